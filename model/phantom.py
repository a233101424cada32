"""Phantoms: an abdomen with colorectal liver metastases, imaged by physics, with its truth.

`make_phantom(condition, seed)` draws parameters first and renders second. The patient and the metastases depend on
the seed alone: the five conditions of one seed are five examinations of one patient, before and after chemotherapy.
Nothing here is a real patient, and a network trained on phantoms knows phantoms only.

This is the first family. The conditions that it was given later, the second family and the pair of CT phases are asked
for through `model.phantom_catalogue`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.phantom_anatomy import LiverVessels, Patient, grow_liver_vessels, sample_patient
from model.phantom_lesions import (
    Coverage,
    FocalLesion,
    after_chemotherapy,
    coverage,
    sample_decoys,
    sample_lesion_count,
    sample_metastases,
    settle,
)
from model.phantom_motion import Breathing
from model.phantom_paint import Painted, Vessel, paint
from model.phantom_physics import DWI, T2WI, Acquisition, MrProtocol, Scene, image_ct, image_mr, sample_acquisition
from model.phantom_shapes import Grid, Point, point
from model.phantom_truth import TrueLesion, measure_lesions
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
        affine[:3, :3] = rotation(self.tilt_deg) @ steps
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


class Parameters(Protocol):
    """What the parameters of every family of phantoms tell."""

    @property
    def condition(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def origin_lps_mm(self) -> Point:
        """Where the patient's reference point lies in the scanner."""
        ...

    @property
    def turn(self) -> Float64:
        """Turns directions of the scanner into the patient's, 3×3."""
        ...


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

    @property
    def turn(self) -> Float64:
        """These patients lie straight."""
        return np.eye(3)

    @property
    def nominal_mm(self) -> list[float]:
        """The metastases' longest diameters by design."""
        return [lesion.nominal_long_axis_mm for lesion in self.metastases]

    @cached_property
    def liver_vessels(self) -> LiverVessels:
        """Grown when first asked for: they cost ten times the rest, and only rendering needs them."""
        rng = seeded_rng("patient", self.seed)
        return grow_liver_vessels(rng, sample_patient(rng))


@dataclass(frozen=True, eq=False)
class Phantom:
    """One series with its truth.

    `volumes` maps the b-value in s/mm² to a volume for DWI; every other weighting has the single key 0.0. `labels_DHW`
    is the truth (0 background, 1..N the lesions), `liver_DHW` the liver with its vessels and lesions, `vessels` has
    `portal-vein` (the trunk and the tree inside the liver) and `aorta`, all on the same grid. `motion` is how the
    patient had moved against the portal-venous breath-hold, `protocol` the MR sequence.
    """

    condition: str
    seed: int
    volumes: Mapping[float, Volume]
    labels_DHW: Labels
    liver_DHW: NDArray[np.bool_]
    lesions: tuple[TrueLesion, ...]
    geometry: Geometry
    parameters: Parameters
    vessels: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    protocol: MrProtocol | None = None
    motion: Breathing | None = None
    family: int = 1

    @property
    def image(self) -> Volume:
        """The volume that the network reads: b = 1000 s/mm² for DWI (the nearest where that was left out)."""
        key = min(self.volumes, key=lambda b: abs(b - NETWORK_B_VALUE))
        return self.volumes[key]

    def to_rest_lps_mm(self, points_N3: Float64) -> Float64:
        """Where in the portal-venous breath-hold lies what is seen at (N, 3) points here; LPS, in mm."""
        return self._moved(points_N3, Breathing.to_rest_mm)

    def from_rest_lps_mm(self, points_N3: Float64) -> Float64:
        """The inverse: where is seen here what lies at points in the portal-venous breath-hold."""
        return self._moved(points_N3, Breathing.from_rest_mm)

    def _moved(self, points_N3: Float64, move: Callable[[Breathing, Float64], Float64]) -> Float64:
        if self.motion is None:
            return points_N3.copy()
        origin, turn = np.asarray(self.parameters.origin_lps_mm), self.parameters.turn
        return np.asarray(move(self.motion, (points_N3 - origin) @ turn.T) @ turn + origin)


def sample_parameters(condition: str, seed: int, *, lesion_count: int | None = None) -> PhantomParameters:
    """Draws a phantom's parameters without rendering it.

    Raises `ValueError` for an unknown condition. `lesion_count` overrides the number of metastases before treatment.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"unknown condition {condition!r}; the phantoms know {', '.join(CONDITIONS)}")
    patient = sample_patient(seeded_rng("patient", seed))
    lesion_rng = seeded_rng("lesions", seed)
    drawn = sample_lesion_count(lesion_rng)
    metastases = sample_metastases(lesion_rng, patient, drawn if lesion_count is None else lesion_count)
    decoys = sample_decoys(seeded_rng("decoys", seed), patient, metastases)
    treated = condition.startswith("post-")
    if treated:
        metastases = after_chemotherapy(seeded_rng("chemotherapy", seed), metastases)
    rng = seeded_rng(condition, seed)
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
    placed, labels = place_lesions(parameters, grid, painted.liver_DHW)
    protocol, images = _images(parameters, Scene(grid, painted.tissue_DHW, placed), b_values)
    return develop(parameters, geometry, images, painted, labels, parameters.nominal_mm, protocol=protocol)


def develop(
    parameters: Parameters,
    geometry: Geometry,
    images: Mapping[float, Float],
    painted: Painted,
    labels: Labels,
    nominal_mm: Sequence[float],
    *,
    protocol: MrProtocol | None = None,
    motion: Breathing | None = None,
    family: int = 1,
) -> Phantom:
    """Images and raw truth become a phantom: placed in the scanner, its lesions numbered and measured."""
    affine = geometry.affine_mm
    affine[:3, 3] += parameters.origin_lps_mm
    labels, lesions = measure_lesions(labels, affine, nominal_mm)
    named = {"portal-vein": Vessel.PORTAL_VEIN, "aorta": Vessel.AORTA}
    return Phantom(
        parameters.condition,
        parameters.seed,
        MappingProxyType({b: Volume(image, affine) for b, image in images.items()}),
        labels,
        painted.liver_DHW,
        lesions,
        geometry,
        parameters,
        MappingProxyType({name: (painted.vessel_DHW == of) & (labels == 0) for name, of in named.items()}),
        protocol,
        motion,
        family,
    )


def seeded_rng(purpose: str, seed: int) -> np.random.Generator:
    """A generator of its own for each purpose: `hash()` is salted, SHA-256 is not."""
    digest = hashlib.sha256(f"crlm-phantom-1:{purpose}:{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def rotation(tilt_deg: tuple[float, float, float]) -> Float64:
    """The 3×3 rotation by these angles about x, y and z; z turns first."""
    a, b, c = (math.radians(v) for v in tilt_deg)
    rx = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    ry = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    rz = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return np.asarray(rx @ ry @ rz)


def _images(
    parameters: PhantomParameters, scene: Scene, b_values: Sequence[float]
) -> tuple[MrProtocol | None, dict[float, Float]]:
    if parameters.condition == "ct-portal-venous":
        return None, {0.0: image_ct(scene, parameters.acquisition)}
    if parameters.condition.endswith("t2wi"):
        return T2WI, {0.0: image_mr(scene, parameters.acquisition, T2WI, (0.0,))[0]}
    volumes = image_mr(scene, parameters.acquisition, DWI, b_values)
    return DWI, {float(b): volume for b, volume in zip(b_values, volumes, strict=True)}


def place_lesions(
    parameters: PhantomParameters, grid: Grid, liver_DHW: NDArray[np.bool_]
) -> tuple[tuple[tuple[FocalLesion, Coverage], ...], Labels]:
    """Decoys and metastases as they lie on a grid, clipped to the liver, and the raw truth of the metastases."""
    lesions = parameters.decoys + parameters.metastases
    numbers = [0] * len(parameters.decoys) + list(range(1, len(parameters.metastases) + 1))
    covers = [(number, coverage(lesion, grid)) for number, lesion in zip(numbers, lesions, strict=True)]
    settled, labels = settle(covers, liver_DHW)
    placed = ((lesion, cover) for lesion, cover in zip(lesions, settled, strict=True) if cover is not None)
    return tuple(placed), labels
