"""Phantoms: an abdomen with colorectal liver metastases, imaged by physics, with its truth.

`make_phantom(condition, seed)` draws parameters first and renders second. The patient and the metastases depend on
the seed alone: the five conditions of one seed are five examinations of one patient, before and after chemotherapy.
Nothing here is a real patient, and a network trained on phantoms knows phantoms only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.findings import longest_axes
from model.phantom_anatomy import Patient, grow_liver_vessels, sample_patient
from model.phantom_lesions import (
    Coverage,
    FocalLesion,
    after_chemotherapy,
    coverage,
    sample_decoys,
    sample_lesion_count,
    sample_metastases,
)
from model.phantom_paint import paint
from model.phantom_physics import DWI, T2WI, Acquisition, Scene, image_ct, image_mr, sample_acquisition
from model.phantom_shapes import Grid, Point, Tube, point
from model.volume import Float, Float64, Labels, Volume

CONDITIONS: tuple[str, ...] = ("pre-nact-dwi", "pre-nact-t2wi", "post-nact-dwi", "post-nact-t2wi", "ct-portal-venous")
B_VALUES: tuple[float, ...] = (0, 20, 50, 100, 200, 600, 800, 1000, 1200, 1500)  # s/mm², the paper's
NETWORK_B_VALUE = 1000.0


@dataclass(frozen=True)
class Geometry:
    """How the slices lie: matrix, spacing and orientation.

    `tilt_deg` turns the plane about the x, y and z axis of the patient (oblique acquisitions); `upwards` tells whether
    slice 0 is the lowest. `centre_mm` is the middle of the stack relative to the middle of the patient's liver.
    """

    rows: int
    columns: int
    slices: int
    pixel_spacing_mm: tuple[float, float]
    slice_thickness_mm: float
    slice_gap_mm: float = 0.0
    tilt_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    upwards: bool = True
    centre_mm: Point = (0.0, 0.0, 0.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return self.slices, self.rows, self.columns

    @property
    def slice_spacing_mm(self) -> float:
        """Distance between the middles of neighbouring slices."""
        return self.slice_thickness_mm + self.slice_gap_mm

    @property
    def affine_mm(self) -> Float64:
        """(slice, row, column) indices → mm about the patient's reference point."""
        steps = np.diag([0.0, 0.0, 0.0])
        steps[2, 0] = self.slice_spacing_mm if self.upwards else -self.slice_spacing_mm
        steps[1, 1], steps[0, 2] = self.pixel_spacing_mm
        affine = np.eye(4)
        affine[:3, :3] = _rotation(self.tilt_deg) @ steps
        affine[:3, 3] = np.asarray(self.centre_mm) - affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return affine

    def resampled(self, rows: int, columns: int) -> Geometry:
        """The same field of view with another matrix."""
        dy, dx = self.pixel_spacing_mm
        spacing = (dy * self.rows / rows, dx * self.columns / columns)
        return replace(self, rows=rows, columns=columns, pixel_spacing_mm=spacing)


_MR = Geometry(256, 256, 30, (380 / 256, 380 / 256), 6.0, 1.0, centre_mm=(0.0, 0.0, -8.0))
GEOMETRIES: Mapping[str, Geometry] = MappingProxyType(
    {  # matrices as reconstructed; acquired ones are in model.phantom_physics
        "pre-nact-dwi": _MR,
        "post-nact-dwi": _MR,
        "pre-nact-t2wi": _MR.resampled(288, 288),
        "post-nact-t2wi": _MR.resampled(288, 288),
        "ct-portal-venous": Geometry(512, 512, 40, (0.8, 0.8), 5.0, centre_mm=(0.0, 0.0, -8.0)),
    }
)


@dataclass(frozen=True)
class TrueLesion:
    """One true lesion, measured on the truth mask; `nominal_mm` is its longest diameter by design.

    Axes as `model.findings` defines them for a report, so that truth and result differ by the mask alone.
    """

    number: int
    long_axis_mm: float
    short_axis_mm: float
    volume_ml: float
    center_lps_mm: Point
    nominal_mm: float


@dataclass(frozen=True, eq=False)
class PhantomParameters:
    """Everything that (condition, seed) decides, before any voxel."""

    condition: str
    seed: int
    origin_lps_mm: Point
    patient: Patient
    metastases: tuple[FocalLesion, ...]
    decoys: tuple[FocalLesion, ...]
    acquisition: Acquisition

    @cached_property
    def liver_vessels(self) -> tuple[Tube, ...]:
        """Grown when first asked for: they cost ten times the rest, and only rendering needs them."""
        rng = _rng("patient", self.seed)
        return grow_liver_vessels(rng, sample_patient(rng))


@dataclass(frozen=True, eq=False)
class Phantom:
    """One series with its truth.

    `volumes` maps the b-value in s/mm² to a volume for DWI; T2WI and CT have the single key 0.0. `labels_DHW` is the
    truth (0 background, 1..N the lesions), `liver_DHW` the liver with its vessels and lesions, both on the same grid.
    """

    condition: str
    seed: int
    volumes: Mapping[float, Volume]
    labels_DHW: Labels
    liver_DHW: NDArray[np.bool_]
    lesions: tuple[TrueLesion, ...]
    geometry: Geometry
    parameters: PhantomParameters

    @property
    def image(self) -> Volume:
        """The volume that the network reads: b = 1000 s/mm² for DWI (the nearest where that was left out)."""
        key = min(self.volumes, key=lambda b: abs(b - NETWORK_B_VALUE))
        return self.volumes[key]


def sample_parameters(condition: str, seed: int, *, lesion_count: int | None = None) -> PhantomParameters:
    """Draws a phantom's parameters without rendering it.

    Raises `ValueError` for an unknown condition. `lesion_count` overrides the number of metastases before treatment.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"unknown condition {condition!r}; the phantoms know {', '.join(CONDITIONS)}")
    patient = sample_patient(_rng("patient", seed))
    lesion_rng = _rng("lesions", seed)
    drawn = sample_lesion_count(lesion_rng)
    metastases = sample_metastases(lesion_rng, patient, drawn if lesion_count is None else lesion_count)
    decoys = sample_decoys(_rng("decoys", seed), patient, metastases)
    treated = condition.startswith("post-")
    if treated:
        metastases = after_chemotherapy(_rng("chemotherapy", seed), metastases)
    rng = _rng(condition, seed)
    origin = point(rng.uniform((-8, -20, -260), (8, 4, 160)).round(2))
    acquisition = sample_acquisition(rng, treated=treated, echo_planar=condition.endswith("dwi"))
    return PhantomParameters(condition, seed, origin, patient, metastases, decoys, acquisition)


def make_phantom(
    condition: str,
    seed: int,
    *,
    lesion_count: int | None = None,
    geometry: Geometry | None = None,
    b_values: Sequence[float] | None = None,
) -> Phantom:
    """A phantom of `condition`; the same arguments give the same bytes.

    `geometry` replaces the condition's own (`GEOMETRIES`); `b_values` (s/mm², DWI only) replaces the paper's ten, and
    `(1000,)` is what training needs. Raises `ValueError` for an unknown condition.
    """
    parameters = sample_parameters(condition, seed, lesion_count=lesion_count)
    return render(parameters, geometry or GEOMETRIES[condition], b_values or B_VALUES)


def render(parameters: PhantomParameters, geometry: Geometry, b_values: Sequence[float] = B_VALUES) -> Phantom:
    """Images of drawn parameters under a geometry."""
    grid = Grid(geometry.affine_mm, geometry.shape)
    painted = paint(parameters.patient, parameters.liver_vessels, grid)
    placed, labels = _place(parameters, grid, painted.liver_DHW)
    scene = Scene(grid, painted.tissue_DHW, placed)
    affine = grid.affine_mm.copy()
    affine[:3, 3] += parameters.origin_lps_mm
    volumes = {b: Volume(image, affine) for b, image in _images(parameters, scene, b_values).items()}
    labels, lesions = _measure(labels, affine, [m.nominal_long_axis_mm for m in parameters.metastases])
    return Phantom(
        parameters.condition,
        parameters.seed,
        MappingProxyType(volumes),
        labels,
        painted.liver_DHW,
        lesions,
        geometry,
        parameters,
    )


def _rng(purpose: str, seed: int) -> np.random.Generator:
    """A generator of its own for each purpose: `hash()` is salted, SHA-256 is not."""
    digest = hashlib.sha256(f"crlm-phantom-1:{purpose}:{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _rotation(tilt_deg: tuple[float, float, float]) -> Float64:
    a, b, c = (math.radians(v) for v in tilt_deg)
    rx = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    ry = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    rz = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return np.asarray(rx @ ry @ rz)


def _images(parameters: PhantomParameters, scene: Scene, b_values: Sequence[float]) -> dict[float, Float]:
    if parameters.condition == "ct-portal-venous":
        return {0.0: image_ct(scene, parameters.acquisition)}
    if parameters.condition.endswith("t2wi"):
        return {0.0: image_mr(scene, parameters.acquisition, T2WI, (0.0,))[0]}
    volumes = image_mr(scene, parameters.acquisition, DWI, b_values)
    return {float(b): volume for b, volume in zip(b_values, volumes, strict=True)}


def _place(
    parameters: PhantomParameters, grid: Grid, liver_DHW: NDArray[np.bool_]
) -> tuple[tuple[tuple[FocalLesion, Coverage], ...], Labels]:
    """Decoys and metastases clipped to the liver, and the raw truth: voxels that a metastasis fills by half or more."""
    labels = np.zeros(grid.shape, np.uint16)
    placed: list[tuple[FocalLesion, Coverage]] = []
    numbers = [0] * len(parameters.decoys) + list(range(1, len(parameters.metastases) + 1))
    for number, lesion in zip(numbers, parameters.decoys + parameters.metastases, strict=True):
        cover = coverage(lesion, grid)
        if cover is None:
            continue
        inside = liver_DHW[cover.box]
        cover = replace(cover, rim_DHW=cover.rim_DHW * inside, core_DHW=cover.core_DHW * inside)
        placed.append((lesion, cover))
        if number:
            labels[cover.box][_largest_component(cover.rim_DHW + cover.core_DHW >= 0.5)] = number
    return tuple(placed), labels


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count < 2:
        return mask
    return np.asarray(parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:])))


def _measure(labels: Labels, affine: Float64, nominal_mm: list[float]) -> tuple[Labels, tuple[TrueLesion, ...]]:
    """Renumbers the lesions that have a voxel as 1..N and measures each."""
    numbered = np.zeros_like(labels)
    lesions: list[TrueLesion] = []
    for original, box in enumerate(ndimage.find_objects(labels, len(nominal_mm)), start=1):
        if box is None:
            continue
        mask = labels[box] == original
        numbered[box][mask] = len(lesions) + 1
        lesions.append(_measure_one(mask, box, affine, len(lesions) + 1, nominal_mm[original - 1]))
    return numbered, tuple(lesions)


def _measure_one(
    mask: NDArray[np.bool_], box: tuple[slice, ...], affine: Float64, number: int, nominal_mm: float
) -> TrueLesion:
    start = [part.start for part in box]
    x, y, z = (np.argwhere(mask) + start).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
    axes = longest_axes(mask, affine)
    volume_ml = float(mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)
    return TrueLesion(number, axes.long_mm, axes.short_mm, volume_ml, point((x, y, z)), nominal_mm)
