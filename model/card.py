"""The card: what a bundle's weights are, what they may be fed, what comes out, and how well that was measured.

A card is the contract between training, engine, routing and the result objects (models.md §11.1). It is the only
thing that drives the engine: nothing about a network's input is decided anywhere else. To read a card costs no torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CARD_NAME = "card.json"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNSAVED_SHA256 = "0" * 64
"""Stands in a card whose weights are not yet written; `save_bundle` puts the true digest in."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Percent = Annotated[float, Field(ge=0, le=100)]


class BundleProblem(Exception):
    """A bundle cannot be used; the message names the file, what was expected, what was found and what to do."""


class Strict(BaseModel):
    """Frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkSpec(Strict):
    """A key of `model.networks.NETWORKS` and the fields of that network's config."""

    id: Name
    kwargs: dict[str, Any] = {}


class HuWindow(Strict):
    """CT: clip to [low_hu, high_hu], then scale to [0, 1]."""

    kind: Literal["hu-window"] = "hu-window"
    low_hu: float = -160.0
    high_hu: float = 240.0

    @model_validator(mode="after")
    def _is_a_window(self) -> HuWindow:
        if self.low_hu >= self.high_hu:
            raise ValueError(f"low_hu {self.low_hu} is not below high_hu {self.high_hu}")
        return self


class Percentiles(Strict):
    """MR: clip to these percentiles of the series' body region, then scale to [0, 1]."""

    kind: Literal["percentiles"] = "percentiles"
    low: Percent = 0.5
    high: Percent = 99.5

    @model_validator(mode="after")
    def _is_a_range(self) -> Percentiles:
        if self.low >= self.high:
            raise ValueError(f"percentile low {self.low} is not below high {self.high}")
        return self


class InputSpec(Strict):
    """What the network may be fed, and how a volume becomes its input.

    `size` is rows and columns of the square input; the whole field of view is resized to it (`stretch`, as
    published) or first padded to a square in mm (`pad`). Each slice goes in with `context` neighbours on either
    side as channels, or, with context 0, replicated over `channels`.
    """

    modality: Literal["CT", "MR"]
    weighting: Literal["ct", "dwi-trace", "t2"]
    phase: Literal["portal-venous", "arterial", "native", "delayed"] | None = None
    b_value_s_mm2: tuple[float, float] | None = None
    b_preferred_s_mm2: float | None = None
    orientation: Literal["axial"] = "axial"
    spacing: Literal["native"] = "native"
    """Slices are taken where they lie; in the plane `size` and `fit` decide."""
    size: Annotated[int, Field(ge=16, le=1024)]
    channels: Annotated[int, Field(ge=1, le=9)] = 3
    context: Annotated[int, Field(ge=0, le=4)] = 0
    fit: Literal["stretch", "pad"] = "stretch"
    minimum_slices: Annotated[int, Field(ge=1)] = 3
    scaling: Annotated[HuWindow | Percentiles, Field(discriminator="kind")]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> InputSpec:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} values, one a channel")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        if self.context and 2 * self.context + 1 != self.channels:
            raise ValueError(f"context {self.context} fills {2 * self.context + 1} channels, not {self.channels}")
        if (self.modality == "CT") != (self.weighting == "ct"):
            raise ValueError(f"modality {self.modality} and weighting {self.weighting} contradict each other")
        if (self.b_value_s_mm2 is not None) != (self.weighting == "dwi-trace"):
            raise ValueError("b_value_s_mm2 belongs to weighting dwi-trace, and to it alone")
        return self


class OutputSpec(Strict):
    """Output channel i is `classes[i]`, a key of terminology.yaml. All limits apply at native resolution.

    A lesion is a component of probability ≥ `threshold` that reaches `minimum_peak_probability` somewhere and is large
    enough: what the network is sure of nowhere is no finding, however small a lesion it is sure of may be.
    """

    classes: tuple[str, ...] = ("lesion",)
    activation: Literal["sigmoid"] = "sigmoid"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 1.0
    minimum_peak_probability: Annotated[float, Field(ge=0, lt=1)] = 0.0
    minimum_lesion_ml: Annotated[float, Field(ge=0)] = 0.0
    minimum_lesion_voxels: Annotated[int, Field(ge=1)] = 1


class InferenceSpec(Strict):
    """How the engine runs it. `bf16` only where the device has it, and where a probe agrees with fp32.

    `window` and `tta` have the one value that this version serves; what is done to the answer stands in OutputSpec.
    """

    window: Literal["whole-slice"] = "whole-slice"
    tta: Literal["none"] = "none"
    batch: Annotated[int, Field(ge=1, le=256)] = 16
    precision: Literal["auto", "fp32"] = "auto"


class TrainingStatement(Strict):
    """Where the weights come from, in words that may be printed."""

    trained_on: Literal["phantom", "patients"]
    description: str
    cases: Annotated[int, Field(ge=0)]
    seeds: tuple[int, int] | None = None
    """First and last phantom seed; None for patients."""
    split_sha256: Sha256 | None = None
    """Digest of the list of training cases; None for phantoms, whose seeds are the list."""
    images_seen: Annotated[int, Field(ge=0)] = 0
    licence: str


class Metric(Strict):
    """A measured value with its 95 % confidence interval over `cases` unseen cases."""

    value: float
    low: float
    high: float
    cases: Annotated[int, Field(ge=1)]


class Card(Strict):
    """The contract file of a bundle, `card.json`."""

    name: Name
    system: Literal["a", "b", "c", "d", "best"]
    profile: Literal["published", "as-coded", "best"]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    sha256: Sha256
    network: NetworkSpec
    conditions: Annotated[tuple[Name, ...], Field(min_length=1)]
    companions: Annotated[tuple[Name, ...], Field(max_length=0)] = ()
    """Bundles that must run before this one (a liver model); this version serves none that needs any."""
    input: InputSpec
    output: OutputSpec = OutputSpec()
    inference: InferenceSpec = InferenceSpec()
    training: TrainingStatement
    test_set: str = ""
    metrics: dict[str, Metric] = {}
    limits: tuple[str, ...]
    intended_use: Literal["demo", "research", "clinical"]
    trained: bool

    @model_validator(mode="after")
    def _clinical_use_is_earned(self) -> Card:
        if self.intended_use == "clinical" and not (self.trained and self.training.trained_on == "patients"):
            raise ValueError("intended_use clinical needs weights that were trained on patients")
        return self

    @property
    def is_demo(self) -> bool:
        """Results may only go to a peer that accepts demo results: demo use, phantom-trained or not trained at all."""
        return self.intended_use == "demo" or self.training.trained_on == "phantom" or not self.trained


@dataclass(frozen=True)
class BundleCard:
    """A bundle's card, and the folder where it lies."""

    card: Card
    path: Path
    sha256: str
    """Digest of `card.json`, which holds the weights' digest: the identity of everything the bundle decides."""


def read_card(path: Path) -> BundleCard:
    """The card in bundle folder `path`; the weights are not looked at. Raises BundleProblem, one line per wrong key."""
    card_path = path / CARD_NAME
    raw = _read(card_path)
    try:
        card = Card.model_validate_json(raw)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        raise BundleProblem(f"{card_path}: not a valid card: {wrong}") from error
    return BundleCard(card, path, hashlib.sha256(raw).hexdigest())


def card_digest(path: Path) -> str:
    """What `BundleCard.sha256` is for the folder now. Raises BundleProblem."""
    return hashlib.sha256(_read(path / CARD_NAME)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleProblem(
            f"{path}: cannot be read ({error.strerror}); a bundle is a folder with card and weights"
        ) from error
