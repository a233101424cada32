"""Is an image like those that the network learnt from? Measured alike in training and in service.

An image outside is analysed all the same: the answer comes with a sentence that says in what it differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from model.body import body_of
from model.canonical import turn_to_axial
from model.card import Card, InputSpec, SeenInputs, SeenRange
from model.volume import Volume

_NAMES: Mapping[str, tuple[str, str]] = {
    "slice_spacing_mm": ("distance of slices", " mm"),
    "pixel_spacing_mm": ("pixel spacing", " mm"),
    "field_of_view_mm": ("field of view", " mm"),
    "extent_mm": ("length of the stack", " mm"),
    "contrast": ("median of the body", " HU"),
}
_MR_CONTRAST = ("brightest to median signal in the body", "")
_SLACK = 0.25
"""A quarter of the range seen, and at least a fortieth of its larger end, may be exceeded in silence."""
_LEAST_SPREAD = 0.1


def measure(volume: Volume, spec: InputSpec) -> dict[str, float]:
    """The values that `SeenInputs` holds ranges of. Raises VolumeProblem for a plane that is not axial."""
    turn = turn_to_axial(volume.affine_lps_mm)
    slices, rows, columns = turn.apply(volume.array_DHW).shape
    slice_mm, row_mm, column_mm = turn.spacing_mm(volume.affine_lps_mm)
    return {
        "slice_spacing_mm": slice_mm,
        "pixel_spacing_mm": float(np.sqrt(row_mm * column_mm)),
        "field_of_view_mm": max(rows * row_mm, columns * column_mm),
        "extent_mm": (slices - 1) * slice_mm,
        "contrast": _contrast(volume, spec),
    }


def seen_in(measured: Sequence[Mapping[str, float]]) -> SeenInputs:
    """The ranges of what `measure` gave for the training images of a role."""
    names = measured[0].keys() if measured else ()
    ends = {name: [case[name] for case in measured] for name in names}
    return SeenInputs(**{name: SeenRange(low=min(values), high=max(values)) for name, values in ends.items()})


def remarks_on(volume: Volume, spec: InputSpec, card: Card) -> list[str]:
    """A sentence for each value of an image that lies outside what the training saw; none where nothing is known."""
    seen = card.training.inputs_seen.get(spec.role)
    if seen is None:
        return []
    remarks = []
    for name, value in measure(volume, spec).items():
        known: SeenRange | None = getattr(seen, name)
        if known is not None and not _is_near(value, known):
            what, unit = _MR_CONTRAST if name == "contrast" and spec.modality == "MR" else _NAMES[name]
            remarks.append(
                f"unlike the training images: {what} {value:.3g}{unit}, trained on {known.low:.3g} to {known.high:.3g}"
            )
    return remarks


def _is_near(value: float, known: SeenRange) -> bool:
    slack = _SLACK * max(known.high - known.low, _LEAST_SPREAD * max(abs(known.low), abs(known.high)))
    return known.low - slack <= value <= known.high + slack


def _contrast(volume: Volume, spec: InputSpec) -> float:
    body = body_of(turn_to_axial(volume.affine_lps_mm).apply(volume.array_DHW), is_ct=spec.modality == "CT")
    values = body.values_DHW[body.inside_DHW]
    if spec.modality == "CT":
        return float(np.median(values))
    middle, bright = np.percentile(values, [50, 99.5])
    return float(bright / middle) if middle > 0 else 0.0
