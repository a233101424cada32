"""The second family of phantoms: for testing alone, so that a network is not tested by its own teacher.

Other anatomy, other lesions, other scanners (see `model.phantom_second_anatomy`, `…_lesions`, `…_physics`), the same
conditions and the same kind of truth. Its parameters were fixed before any network was tested on it and are frozen
(docs/decisions/0007). Patients roll and tilt on the table, and stacks lie differently from seed to seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from model.phantom import CONDITIONS, Geometry, Phantom, develop, rotation
from model.phantom_anatomy import Body, LiverVessels
from model.phantom_arterial import CT_ARTERIAL, CT_PORTAL_VENOUS, DISEASES
from model.phantom_arteries import Landmarks, Stripes, paint_arteries, uneven_hu, vessels_told_apart
from model.phantom_gadolinium import T1_PORTAL_VENOUS, with_agent
from model.phantom_lesions import Coverage, settle
from model.phantom_motion import Breathing, sample_breathing
from model.phantom_paint import Painted
from model.phantom_physics import MrProtocol
from model.phantom_second_anatomy import SecondPatient, grow_second_vessels, sample_second_patient
from model.phantom_second_lesions import (
    SecondLesion,
    after_gadolinium,
    after_second_chemotherapy,
    hepatocellular,
    in_the_arterial_phase,
    sample_second_decoys,
    sample_second_lesions,
    second_coverage,
)
from model.phantom_second_paint import paint_second
from model.phantom_second_physics import (
    SECOND_B_VALUES,
    SECOND_DWI,
    SECOND_T1WI,
    SECOND_T2WI,
    SecondAcquisition,
    SecondScene,
    image_second_ct,
    image_second_mr,
    sample_fat_fraction,
    sample_second_acquisition,
)
from model.phantom_second_shapes import StarShape
from model.phantom_second_tissues import at_3_tesla, at_voltage
from model.phantom_shapes import Bend, Grid, Point, WaveField, point
from model.phantom_tissues import Properties
from model.volume import Float, Float64, Labels

SECOND_CONDITIONS = (*CONDITIONS, CT_ARTERIAL, T1_PORTAL_VENOUS)
_DWI = Geometry(216, 264, 34, (1.6, 1.6), 5.0, 1.0, upwards=False)
_T2WI = Geometry(320, 400, 42, (1.06, 1.06), 4.0, 0.8, upwards=False)
_CT = Geometry(512, 512, 50, (0.82, 0.82), 4.0, upwards=False)
SECOND_GEOMETRIES: Mapping[str, Geometry] = MappingProxyType(
    {  # before `geometry_of_seed` varies them
        "pre-nact-dwi": _DWI,
        "post-nact-dwi": _DWI,
        "pre-nact-t2wi": _T2WI,
        "post-nact-t2wi": _T2WI,
        CT_PORTAL_VENOUS: _CT,
        CT_ARTERIAL: replace(_CT, slices=66, slice_thickness_mm=3.0, upwards=True),
        T1_PORTAL_VENOUS: Geometry(256, 320, 64, (1.32, 1.32), 3.0),
    }
)
ZOOM, OFFSET_MM, TILT_DEG = 0.07, (14.0, 12.0, 9.0), 6.0
"""How far a seed's stack departs from these: log of the pixel spacing, its middle, and an MR stack's tilt."""
PITCH_DEG, YAW_DEG, ROLL_DEG = 3.0, 3.0, 7.0
"""How patients lie on the table: uniform up to these, about x, y and z."""
STRIPES_HU, STRIPES_MM = (26.0, 55.0), (10.0, 28.0)
RENAL_RETURN_HU = 70.0
BREATHING_MM, BREATHING_UNEVENNESS = (90.0, 200.0), 0.5
_PROTOCOLS = {"dwi": SECOND_DWI, "t2wi": SECOND_T2WI, "venous": SECOND_T1WI}


@dataclass(frozen=True, eq=False)
class SecondParameters:
    """Everything that (condition, seed) decides in the second family, before any voxel."""

    condition: str
    seed: int
    origin_lps_mm: Point
    turn: Float64
    patient: SecondPatient
    metastases: tuple[SecondLesion, ...]
    decoys: tuple[SecondLesion, ...]
    acquisition: SecondAcquisition
    motion: Breathing | None
    stripes: Stripes

    @cached_property
    def liver_vessels(self) -> LiverVessels:
        """Grown when first asked for: only rendering needs them."""
        rng = second_rng("patient", self.seed)
        return grow_second_vessels(rng, sample_second_patient(rng))

    @property
    def nominal_mm(self) -> list[float]:
        """The metastases' longest diameters by design."""
        return [lesion.nominal_long_axis_mm for lesion in self.metastases]


def sample_second_parameters(
    condition: str, seed: int, *, lesion_count: int | None = None, disease: str = DISEASES[0]
) -> SecondParameters:
    """Draws a phantom of the second family without rendering it. Raises ValueError for an unknown condition or disease.

    The patient and the lesions depend on the seed alone, as in the first family.
    """
    if condition not in SECOND_CONDITIONS:
        raise ValueError(f"unknown condition {condition!r}; the phantoms know {', '.join(SECOND_CONDITIONS)}")
    patient = sample_second_patient(second_rng("patient", seed))
    metastases = sample_second_lesions(second_rng("lesions", seed), patient, lesion_count)
    decoys = sample_second_decoys(second_rng("decoys", seed), patient, metastases)
    fat_fraction = sample_fat_fraction(second_rng("fat", seed))
    table = second_rng(f"table:{condition.partition('-')[0]}", seed)  # both phases of a CT are taken on one table
    turn = rotation(point(table.uniform(-1, 1, size=3) * (PITCH_DEG, YAW_DEG, ROLL_DEG)))
    origin = point(table.uniform((-10, -30, -900), (10, 10, -200)).round(2))
    rng = second_rng(condition, seed)
    acquisition = sample_second_acquisition(rng, fat_fraction)
    stripes = Stripes(WaveField.sample(rng, STRIPES_MM, rms=1.0), float(rng.uniform(*STRIPES_HU)))
    show = second_rng("chemotherapy" if condition.startswith("post-") else f"{condition}:{disease}", seed)
    return SecondParameters(
        condition,
        seed,
        origin,
        turn,
        patient,
        _shown(show, condition, disease, metastases),
        _decoys_shown(show, condition, decoys),
        acquisition,
        _breathing(rng, patient) if condition == CT_ARTERIAL else None,
        stripes,
    )


def geometry_of_seed(condition: str, seed: int) -> Geometry:
    """How the stack of this seed lies: its own field of view and place, and, on MR, its own tilt."""
    usual = SECOND_GEOMETRIES[condition]
    rng = second_rng(f"stack:{condition}", seed)
    zoom = float(np.exp(rng.uniform(-ZOOM, ZOOM)))
    centre = point(rng.uniform(-1, 1, size=3) * np.array(OFFSET_MM))
    x_deg, y_deg, z_deg = (float(v) for v in rng.uniform(-TILT_DEG, TILT_DEG, size=3) * [1.0, 1.0, 0.5])
    dy, dx = usual.pixel_spacing_mm
    tilt = (0.0, 0.0, 0.0) if condition.startswith("ct") else (x_deg, y_deg, z_deg)
    return replace(usual, pixel_spacing_mm=(dy * zoom, dx * zoom), centre_mm=centre, tilt_deg=tilt)


def render_second(drawn: SecondParameters, geometry: Geometry, b_values: Sequence[float] = SECOND_B_VALUES) -> Phantom:
    """Images of drawn parameters under a geometry."""
    turned = drawn.turn @ geometry.affine_mm[:3]
    grid = Grid(np.vstack([turned, geometry.affine_mm[3:]]), geometry.shape, _bend(drawn))
    painted = paint_second(drawn.patient, drawn.liver_vessels, grid)
    placed, labels = _place(drawn, grid, painted)
    protocol = _protocol(drawn.condition)
    if protocol is None:
        images = {0.0: image_second_ct(_ct_scene(drawn, grid, painted, placed), drawn.acquisition)}
    else:
        scene = SecondScene(grid.straight(), painted.tissue_DHW, placed, _mr_tissues(drawn))
        images = _mr_images(drawn, protocol, scene, b_values)
    return develop(
        drawn, geometry, images, painted, labels, drawn.nominal_mm, protocol=protocol, motion=drawn.motion, family=2
    )


def second_rng(purpose: str, seed: int) -> np.random.Generator:
    """A generator of its own for each purpose, other ones than the first family's."""
    digest = hashlib.sha256(f"crlm-phantom-second-1:{purpose}:{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _shown(
    rng: np.random.Generator, condition: str, disease: str, lesions: tuple[SecondLesion, ...]
) -> tuple[SecondLesion, ...]:
    """The lesions as this examination shows them. Raises ValueError for a disease that it does not know."""
    if disease not in DISEASES or (disease != DISEASES[0] and not condition.startswith("ct")):
        raise ValueError(f"unknown disease {disease!r} on {condition}; CT knows {', '.join(DISEASES)}, MR the first")
    if disease == "hepatocellular":
        is_arterial = condition == CT_ARTERIAL
        return tuple(hepatocellular(rng, lesion, is_arterial=is_arterial) for lesion in lesions)
    if condition.startswith("post-"):
        return after_second_chemotherapy(rng, lesions)
    return _decoys_shown(rng, condition, lesions)


def _decoys_shown(
    rng: np.random.Generator, condition: str, lesions: tuple[SecondLesion, ...]
) -> tuple[SecondLesion, ...]:
    """With the contrast agent of the condition, where there is one that changes the drawn values."""
    if condition == CT_ARTERIAL:
        return tuple(in_the_arterial_phase(rng, lesion) for lesion in lesions)
    if condition == T1_PORTAL_VENOUS:
        return tuple(after_gadolinium(rng, lesion) for lesion in lesions)
    return lesions


def _breathing(rng: np.random.Generator, patient: SecondPatient) -> Breathing:
    middle = patient.torso.radii_LA[len(patient.torso.radii_LA) // 2]
    quarter = len(middle) // 4
    body = Body(
        float(middle[0]), float(middle[quarter] + middle[3 * quarter]) / 2, patient.fat_mm, patient.wall_mm, 0.0
    )
    return sample_breathing(
        rng, body, patient.spine_y_mm, patient.liver_depth_at,
        wavelengths_mm=BREATHING_MM, unevenness=BREATHING_UNEVENNESS,
    )  # fmt: skip


def _bend(drawn: SecondParameters) -> Bend | None:
    """What displaces the anatomy: another breath-hold, or the distortion of an echo-planar image."""
    return drawn.acquisition.distortion if drawn.condition.endswith("dwi") else drawn.motion


def _place(
    drawn: SecondParameters, grid: Grid, painted: Painted
) -> tuple[tuple[tuple[SecondLesion, Coverage], ...], Labels]:
    lesions = drawn.decoys + drawn.metastases
    numbers = [0] * len(drawn.decoys) + list(range(1, len(drawn.metastases) + 1))
    covers = [(number, second_coverage(lesion, grid)) for number, lesion in zip(numbers, lesions, strict=True)]
    settled, labels = settle(covers, painted.liver_DHW)
    placed = ((lesion, cover) for lesion, cover in zip(lesions, settled, strict=True) if cover is not None)
    return tuple(placed), labels


def _protocol(condition: str) -> MrProtocol | None:
    return None if condition.startswith("ct") else _PROTOCOLS[condition.rpartition("-")[2]]


def _ct_scene(
    drawn: SecondParameters, grid: Grid, painted: Painted, placed: tuple[tuple[SecondLesion, Coverage], ...]
) -> SecondScene:
    is_arterial = drawn.condition == CT_ARTERIAL
    tissues = at_voltage(drawn.acquisition.voltage, is_arterial=is_arterial)
    if not is_arterial:
        return SecondScene(grid.straight(), painted.tissue_DHW, placed, tissues)
    codes_DHW, marks = vessels_told_apart(painted), _landmarks(drawn.patient)
    paint_arteries(codes_DHW, marks, drawn.liver_vessels.portal, grid)
    uneven_DHW = uneven_hu(codes_DHW, marks, drawn.stripes, RENAL_RETURN_HU, grid)
    return SecondScene(grid.straight(), codes_DHW, placed, tissues, uneven_DHW)


def _landmarks(patient: SecondPatient) -> Landmarks:
    centres, middle = patient.aorta.centres_N3, np.abs(patient.aorta.centres_N3[:, 2]).argmin()
    right, left = (_middle(kidney) for kidney in patient.kidneys)
    return Landmarks(point(centres[middle]), _middle(patient.spleen), 75.0, right, left)


def _middle(shape: StarShape) -> Point:
    x, y = shape.axis_L2[len(shape.axis_L2) // 2]
    return float(x), float(y), (shape.bottom_mm + shape.top_mm) / 2


def _mr_tissues(drawn: SecondParameters) -> dict[int, Properties]:
    return with_agent(at_3_tesla()) if drawn.condition == T1_PORTAL_VENOUS else at_3_tesla()


def _mr_images(
    drawn: SecondParameters, protocol: MrProtocol, scene: SecondScene, b_values: Sequence[float]
) -> dict[float, Float]:
    wanted = tuple(float(b) for b in b_values) if protocol.echo_planar else (0.0,)
    return dict(zip(wanted, image_second_mr(scene, drawn.acquisition, protocol, wanted), strict=True))
