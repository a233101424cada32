"""A recipe: one YAML file that says all of a training, so that the same file and the same data give the same weights.

`model/training/recipes/*.yaml` ship; a site writes its own. What a network is fed is written in the words of its card,
because that is where it goes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from model.card import AnyInput, InferenceSpec, Name, NetworkSpec, OutputSpec, Strict
from model.problems import RecipeProblem, TrainingProblem
from model.training.augment import AugmentRanges

RECIPES_FOLDER = Path(__file__).parent / "recipes"

SettingsT = TypeVar("SettingsT", bound=Strict)

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class PhantomSource(Strict):
    """Phantoms by seed: below 90000 for training, from there to 99999 for validation."""

    kind: Literal["phantoms"] = "phantoms"
    conditions: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Conditions, or pairs of them, that `model.phantom_cases` knows."""
    cases: Annotated[int, Field(ge=1, le=90_000)]
    """Of each condition; seeds 0, 1, …"""
    validation_cases: Annotated[int, Field(ge=1, le=10_000)]


class FolderSource(Strict):
    """Case folders (`model.cases`), split by patient. What remains is for testing and never read in training."""

    kind: Literal["folder"] = "folder"
    path: Path
    split_seed: int = 0
    training_share: Share = 0.7
    validation_share: Share = 0.15

    @model_validator(mode="after")
    def _leaves_a_rest(self) -> FolderSource:
        if self.training_share + self.validation_share > 1 + 1e-9:
            raise ValueError("training_share and validation_share are more than 1 together")
        return self


class Sampling(Strict):
    """Which slices or windows make a batch."""

    lesion_share: Share | None = None
    """Of each batch; None draws from all in their own proportion."""
    negatives: Literal["none", "liver", "all"] = "all"
    """Slices without a lesion: none at all (as published), those that show liver, or all."""
    balance_modalities: bool = False
    hard_share: Share = 0.0
    """Of the slices without a lesion in a batch: drawn where the network found most at the last search."""
    hard_search_every: Share = 0.25
    """Share of the training after which hard slices are searched anew."""


class Optimiser(Strict):
    """torch's optimiser of that name."""

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Positive = 1e-3
    momentum: Share = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Share, Share] = (0.9, 0.999)
    amsgrad: bool = False


class Schedule(Strict):
    """Learning rate over the training, as a factor: linear from 0 over `warmup_share`, then by `kind` to `end`."""

    kind: Literal["constant", "poly", "cosine"] = "constant"
    warmup_share: Share = 0.0
    power: Positive = 0.9
    end: Share = 0.0


class Validation(Strict):
    """How often the validation cases are looked at, and whether the best state or the last one is kept."""

    every_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    keep: Literal["best", "last"] = "last"


class Recipe(Strict):
    """See the fields; `images` or `epochs` says how long."""

    name: Name
    title: str
    system: Literal["a", "b", "c", "d", "best"]
    profile: Literal["published", "as-coded", "best"]
    scheme: Literal["supervised", "constrained", "guided", "unified", "global-local"] = "supervised"
    settings: dict[str, Any] = Field(default_factory=dict)
    """What the scheme alone knows; it checks them."""
    conditions: Annotated[tuple[Name, ...], Field(min_length=1)]
    network: NetworkSpec
    initial: Literal["torch", "he"] = "torch"
    start: str | None = None
    """A bundle whose weights to begin with: a folder, or the name of a bundle beside the one that is written."""
    inputs: Annotated[tuple[AnyInput, ...], Field(min_length=1)]
    output: OutputSpec = OutputSpec()
    inference: InferenceSpec = InferenceSpec()
    companions: dict[Literal["liver"], Name] = Field(default_factory=dict)
    source: Annotated[PhantomSource | FolderSource, Field(discriminator="kind")]
    sampling: Sampling = Sampling()
    augment: AugmentRanges = AugmentRanges()
    loss: Literal["published", "pooled", "dice-ce", "dice-focal"] = "published"
    optimiser: Optimiser = Optimiser()
    """Of the one network that is trained; schemes of several networks have rates of their own in `settings`."""
    schedule: Schedule = Schedule()
    validation: Validation = Validation()
    batch: Annotated[int, Field(ge=1)]
    rows: Annotated[int, Field(ge=16)] | None = None
    """Rows of the picture that a step sees: above and below a body there is air, which costs time only."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches per optimiser step."""
    images: Annotated[int, Field(ge=1)] | None = None
    """How many images (slices or windows) are seen."""
    epochs: Positive | None = None
    precision: Literal["auto", "fp32"] = "auto"
    average_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of the moving average of the weights that is served in their place."""
    seed: int = 0
    limits: tuple[str, ...] = ()
    """Sentences for the card."""

    @model_validator(mode="after")
    def _says_how_long(self) -> Recipe:
        if (self.images is None) == (self.epochs is None):
            raise ValueError("say how long: images or epochs, one of them")
        if any(spec.within == "liver" for spec in self.inputs) and "liver" not in self.companions:
            raise ValueError("an input within the liver needs a companion: companions: {liver: name of a bundle}")
        return self

    @property
    def sha256(self) -> str:
        """Digest of all that decides the weights but the data."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def steps(self, training_images: int) -> int:
        """Optimiser steps for a training set of so many images; at least one."""
        total = self.images if self.images is not None else round((self.epochs or 0) * training_images)
        return max(1, round(total / (self.batch * self.accumulate)))


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Raises RecipeProblem, one line per wrong key."""
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeProblem(f"{path}: cannot be read ({error.strerror})") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise RecipeProblem(f"{path}: not readable as YAML: {error}") from error
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        raise RecipeProblem(f"{path}: not a valid recipe: {wrong}") from error


def with_cases(recipe: Recipe, folder: Path | None) -> Recipe:
    """The recipe on other cases, split as it says, or by default where it had phantoms; None leaves it as it is."""
    if folder is None:
        return recipe
    if isinstance(recipe.source, FolderSource):
        return recipe.model_copy(update={"source": recipe.source.model_copy(update={"path": folder})})
    return recipe.model_copy(update={"source": FolderSource(path=folder)})


def checked(settings: type[SettingsT], recipe: Recipe) -> SettingsT:
    """The recipe's settings as its scheme knows them. Raises TrainingProblem, naming each key that is wrong."""
    try:
        return settings.model_validate(recipe.settings)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise TrainingProblem(f"{recipe.name}: settings of the scheme {recipe.scheme}: {wrong}") from error


def find_recipe(wish: str) -> Path:
    """The file of a recipe: a path, or the name of one that ships. Raises RecipeProblem naming those."""
    for path in (Path(wish), RECIPES_FOLDER / f"{wish}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml"))) or "none"
    raise RecipeProblem(f"{wish}: no such file, and no recipe of that name ships; these do: {known}")
