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
    """A key of `model.networks.NETWORKS` and the fields of that network's config.

    An ensemble has several `members` of one shape; the weights' names then begin with `0.`, `1.`, …
    """

    id: Name
    kwargs: dict[str, Any] = {}
    members: Annotated[int, Field(ge=1, le=16)] = 1


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
    """What one role of the network may be fed, whatever the network's dimensions.

    Several specs of one role are alternatives: a network for several sequences has one a sequence. The first role of
    a card is the primary one, on whose grid the answer lies; images of other roles are brought onto it.
    """

    role: Name = "image"
    modality_code: Annotated[int, Field(ge=0)] | None = None
    """Place of the one in the label that a conditioned network is given; None where it needs none."""
    modality: Literal["CT", "MR"]
    weighting: Literal["ct", "dwi-trace", "t2", "t1"]
    phase: Literal["portal-venous", "arterial", "native", "delayed"] | None = None
    b_value_s_mm2: tuple[float, float] | None = None
    b_preferred_s_mm2: float | None = None
    orientation: Literal["axial"] = "axial"
    minimum_slices: Annotated[int, Field(ge=1)] = 3
    scaling: Annotated[HuWindow | Percentiles, Field(discriminator="kind")]
    within: Literal["field", "liver"] = "field"
    """`liver`: outside the liver, as the companion `liver` finds it and widened by `margin_mm`, all is zero."""
    margin_mm: Annotated[float, Field(ge=0, le=50)] = 0.0

    @model_validator(mode="after")
    def _is_an_image_that_exists(self) -> InputSpec:
        if (self.modality == "CT") != (self.weighting == "ct"):
            raise ValueError(f"modality {self.modality} and weighting {self.weighting} contradict each other")
        if (self.b_value_s_mm2 is not None) != (self.weighting == "dwi-trace"):
            raise ValueError("b_value_s_mm2 belongs to weighting dwi-trace, and to it alone")
        return self


class PlanarInput(InputSpec):
    """Slices as pictures, for 2-D and 2.5-D networks.

    `size` is rows and columns of the square input; the whole field of view is resized to it (`stretch`, as
    published) or first padded to a square in mm (`pad`). Each slice goes in with `context` neighbours on either
    side as channels, or, with context 0, replicated over `channels`. Along the stack slices are taken where they lie.
    """

    kind: Literal["planar"] = "planar"
    size: Annotated[int, Field(ge=16, le=1024)]
    channels: Annotated[int, Field(ge=1, le=9)] = 3
    context: Annotated[int, Field(ge=0, le=4)] = 0
    fit: Literal["stretch", "pad"] = "stretch"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> PlanarInput:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} values, one a channel")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        if self.context and 2 * self.context + 1 != self.channels:
            raise ValueError(f"context {self.context} fills {2 * self.context + 1} channels, not {self.channels}")
        return self


class VolumeInput(InputSpec):
    """A whole volume on a grid of `spacing_mm` (slice, row, column), seen through windows of `patch_DHW` voxels.

    A spacing of None along an axis keeps the volume's own. Windows overlap by `overlap` of their sides and are blended
    with Gaussian weights; a volume that fits into one window is padded to it.
    """

    kind: Literal["volume"] = "volume"
    spacing_mm: tuple[float | None, float | None, float | None] = (None, None, None)
    patch_DHW: tuple[int, int, int]
    overlap: Annotated[float, Field(ge=0, lt=0.9)] = 0.5
    mean: float = 0.0
    std: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _has_a_grid(self) -> VolumeInput:
        if min(self.patch_DHW) < 8:
            raise ValueError(f"patch_DHW {list(self.patch_DHW)}: each side needs at least 8 voxels")
        if any(step is not None and not 0.2 <= step <= 20 for step in self.spacing_mm):
            raise ValueError(f"spacing_mm {list(self.spacing_mm)}: each is between 0.2 and 20 mm, or null")
        return self


AnyInput = Annotated[PlanarInput | VolumeInput, Field(discriminator="kind")]


class OutputSpec(Strict):
    """Output channel i is `classes[i]`; `lesion` (or, of a companion, `liver`) is the one that is looked for.

    With `softmax` the channels exclude each other and the first is what is none of the others. All limits apply at
    native resolution. A lesion is a component of probability ≥ `threshold` that reaches `minimum_peak_probability`
    somewhere and is large enough: what the network is sure of nowhere is no finding, however small a lesion it is sure
    of may be.
    """

    classes: Annotated[tuple[str, ...], Field(min_length=1)] = ("lesion",)
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 1.0
    minimum_peak_probability: Annotated[float, Field(ge=0, lt=1)] = 0.0
    minimum_lesion_ml: Annotated[float, Field(ge=0)] = 0.0
    minimum_lesion_voxels: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _looks_for_something(self) -> OutputSpec:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two output channels have the same class")
        if not {"lesion", "liver"} & set(self.classes):
            raise ValueError(f"classes {list(self.classes)} name neither lesion nor liver")
        if self.activation == "softmax" and len(self.classes) < 2:
            raise ValueError("softmax needs a channel for what is none of the classes, such as background")
        return self

    @property
    def target(self) -> str:
        """The class that is answered: lesion, or liver where there is no lesion."""
        return "lesion" if "lesion" in self.classes else "liver"


class InferenceSpec(Strict):
    """How the engine runs it. `bf16` only where the device has it, and where a probe agrees with fp32.

    `tta`: the mean over the image and its mirror images (`flips`: left-right and front-back, and both).
    `registration`: how an image of another role is moved onto the primary one.
    """

    tta: Literal["none", "flips"] = "none"
    batch: Annotated[int, Field(ge=1, le=256)] = 16
    precision: Literal["auto", "fp32"] = "auto"
    registration: Literal["none", "affine", "deformable"] = "none"


class SeenRange(Strict):
    """Smallest and largest value among the training cases."""

    low: float
    high: float

    @model_validator(mode="after")
    def _is_a_range(self) -> SeenRange:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


class SeenInputs(Strict):
    """What the training images of one role were like: an image far outside is analysed with a warning."""

    slice_spacing_mm: SeenRange | None = None
    pixel_spacing_mm: SeenRange | None = None
    field_of_view_mm: SeenRange | None = None
    """The longer side of a slice."""
    extent_mm: SeenRange | None = None
    """From the first slice's middle to the last one's."""
    contrast: SeenRange | None = None
    """CT: median HU in the body. MR: ratio of the 99.5th to the 50th percentile in the body."""


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
    inputs_seen: dict[Name, SeenInputs] = {}
    """Per role."""
    licence: str


class Metric(Strict):
    """A measured value with its 95 % confidence interval over `cases` unseen cases."""

    value: float
    low: float
    high: float
    cases: Annotated[int, Field(ge=1)]


class Companion(Strict):
    """A bundle that must run before this one; it lies in the folder beside, under its name."""

    bundle: Name
    sha256: Sha256
    """Digest of the companion's `card.json`, so that this card's digest stands for both."""


class Card(Strict):
    """The contract file of a bundle, `card.json`."""

    name: Name
    system: Literal["a", "b", "c", "d", "best"]
    profile: Literal["published", "as-coded", "best"]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    sha256: Sha256
    probe_sha256: Sha256 | None = None
    """Digest of the probe, if the bundle has one: `model.probe`."""
    network: NetworkSpec
    conditions: Annotated[tuple[Name, ...], Field(min_length=1)]
    companions: dict[Literal["liver"], Companion] = {}
    inputs: Annotated[tuple[AnyInput, ...], Field(min_length=1)]
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

    @model_validator(mode="after")
    def _inputs_belong_together(self) -> Card:
        if len({spec.kind for spec in self.inputs}) > 1:
            raise ValueError("inputs are planar or volumes, not both")
        if any(spec.within == "liver" for spec in self.inputs) and "liver" not in self.companions:
            raise ValueError("an input within the liver needs the companion `liver`")
        if len(self.roles) > 1 and len(self.roles) < len(self.inputs):
            raise ValueError("a network with several roles takes one kind of image for each")
        kinds = [(spec.role, spec.weighting, spec.phase) for spec in self.inputs]
        if len(set(kinds)) < len(kinds):
            raise ValueError("two inputs of one role take the same kind of image")
        return self

    @property
    def input(self) -> AnyInput:
        """What the primary role is fed, or the first of its alternatives."""
        return self.inputs[0]

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles in the order in which the network takes them."""
        return tuple(dict.fromkeys(spec.role for spec in self.inputs))

    @property
    def modality_count(self) -> int:
        """Length of the label that a conditioned network is given; 0 where it is given none."""
        return 1 + max((spec.modality_code for spec in self.inputs if spec.modality_code is not None), default=-1)

    def spec(self, role: str, weighting: str | None = None, phase: str | None = None) -> AnyInput:
        """What `role` is fed for that kind of image; None asks for whatever it takes. Raises KeyError."""
        for spec in self.inputs:
            if spec.role == role and weighting in (None, spec.weighting) and phase in (None, spec.phase):
                return spec
        kinds = ", ".join(f"{s.role}: {s.weighting}{f' {s.phase}' if s.phase else ''}" for s in self.inputs)
        raise KeyError(f"{self.name} takes no {weighting or 'image'} {phase or ''} as {role}; it takes {kinds}")

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
