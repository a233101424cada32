"""The arterial phase of the same CT examination: other enhancement, another breath-hold, the same patient.

About 35 s after the injection the arteries are bright, the portal vein begins to fill, the hepatic veins and the cava
below the kidneys are empty of contrast, the spleen is striped and the liver is little more than unenhanced. A
colorectal metastasis shows a bright or a dark rim. How the patient moved is in `model.phantom_motion`.

Sources
    [R23] Radiopaedia, "Late arterial phase", revision of 2023-03-23: aorta 290–360 HU, liver 20–30 HU above
          unenhanced, portal vein 145 ± 20 HU, best for pancreas, spleen and renal cortex; ours is a little earlier
    [P03] Prokop & Galanski (eds), Spiral and Multislice CT of the Body, Thieme 2003: unenhanced and arterial values
    [B10] Bae, Radiology 2010;256:32: contrast timing
    [G81] Glazer et al., AJR 1981;137:343: dynamic CT of the normal spleen, uneven in the first minute
    [L18] LI-RADS v2018: arterial-phase hyperenhancement, washout and capsule of hepatocellular carcinoma
Only [R23] was read again for this table; the others are as commonly quoted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from model.phantom import (
    GEOMETRIES,
    Geometry,
    Phantom,
    PhantomParameters,
    develop,
    place_lesions,
    sample_parameters,
    seeded_rng,
)
from model.phantom_anatomy import Patient
from model.phantom_arteries import (
    AORTA,
    ARTERY,
    CAVA,
    HEPATIC_VEIN,
    PORTAL_VEIN,
    VESSEL_CODES,
    Landmarks,
    Stripes,
    paint_arteries,
    uneven_hu,
    vessels_told_apart,
)
from model.phantom_lesions import FocalLesion
from model.phantom_motion import Breathing, sample_breathing
from model.phantom_paint import paint
from model.phantom_physics import Scene, image_ct, sample_acquisition
from model.phantom_shapes import Grid, WaveField
from model.phantom_tissues import CYST, HAEMANGIOMA, TISSUES, Properties, Range, Tissue

CT_ARTERIAL = "ct-arterial"
CT_PORTAL_VENOUS = "ct-portal-venous"
GEOMETRY = replace(GEOMETRIES[CT_PORTAL_VENOUS], slices=42, centre_mm=(0.0, 0.0, -9.7))
"""A stack of its own: its slices lie 1.7 mm beside those of the portal-venous one, and it covers more."""

ARTERIAL_HU: dict[int, tuple[float, str]] = {
    Tissue.HEART: (225, "blood and muscle together, assumed below the aorta"),
    Tissue.LIVER: (72, "unenhanced 55–60 [P03] and little more, early in the phase [R23]"),
    Tissue.SPLEEN: (118, "mean of the stripes [G81]"),
    Tissue.CORTEX: (185, "corticomedullary phase [P03]"),
    Tissue.MEDULLA: (72, "not yet enhanced [P03]"),
    Tissue.PANCREAS: (108, "near its peak [R23][P03]"),
    Tissue.STOMACH_WALL: (88, "mucosal enhancement, assumed"),
    Tissue.BOWEL_WALL: (96, "mucosal enhancement, assumed"),
    Tissue.MUSCLE: (58, "near unenhanced [P03]"),
    Tissue.NODE: (62, "assumed between muscle and pancreas"),
    Tissue.CORD: (36, "unenhanced [P03]"),
    AORTA: (305, "290–360 [R23]"),
    ARTERY: (270, "smaller arteries, a little below the aorta, assumed"),
    CAVA: (52, "unenhanced blood below the kidneys [P03]; above see RENAL_RETURN_HU"),
    PORTAL_VEIN: (108, "begins to fill; 145 ± 20 when the phase is late [R23]"),
    HEPATIC_VEIN: (50, "unenhanced blood [P03]"),
}
RENAL_RETURN_HU = 62.0
"""What the renal veins bring: the cava above them is brighter by so much."""
SPLEEN_STRIPES_HU = (22.0, 42.0)
BOLUS_STRENGTH = (0.85, 1.15)
"""Share of the enhancement above unenhanced tissue: dose, cardiac output and timing differ from patient to patient."""
UNENHANCED_HU = {
    Tissue.HEART: 45.0, Tissue.LIVER: 58.0, Tissue.SPLEEN: 48.0, Tissue.CORTEX: 35.0, Tissue.MEDULLA: 35.0,
    Tissue.PANCREAS: 42.0, Tissue.STOMACH_WALL: 40.0, Tissue.BOWEL_WALL: 40.0, Tissue.MUSCLE: 55.0, Tissue.NODE: 42.0,
}  # fmt: skip
"""[P03]; vessels hold blood of 45 HU."""
_BLOOD_HU = 45.0

BRIGHT_RIM = Range(84, 122)
DARK_RIM = Range(46, 62)
BRIGHT_RIM_SHARE = 0.55
CORE = Range(36, 56)
"""Metastases [P03]: a bright rim in rather more than half of them, the middle always darker than the liver."""
NODULES, POOL = Range(150, 230), Range(56, 72)
"""Haemangiomas: nodules as bright as arteries at the edge, the middle not yet filled [P03]."""
HYPERENHANCEMENT = Range(106, 148)
WASHOUT, CAPSULE, MOSAIC = Range(74, 94), Range(116, 136), 0.13
"""Hepatocellular carcinomas [L18]: bright in the arterial phase, darker than the liver with a thin bright capsule in
the portal-venous one; MOSAIC is their texture."""

DISEASES = ("metastases", "hepatocellular")


@dataclass(frozen=True, eq=False)
class ArterialPhase:
    """What seed and disease decide of the arterial examination, before any voxel."""

    parameters: PhantomParameters
    motion: Breathing
    bolus: float
    stripes: Stripes


def sample_portal_venous(
    seed: int, *, lesion_count: int | None = None, disease: str = DISEASES[0]
) -> PhantomParameters:
    """Parameters of the portal-venous phase; with metastases those of `sample_parameters`. Raises ValueError."""
    if disease not in DISEASES:
        raise ValueError(f"unknown disease {disease!r}; the phantoms know {', '.join(DISEASES)}")
    drawn = sample_parameters(CT_PORTAL_VENOUS, seed, lesion_count=lesion_count)
    if disease == "metastases":
        return drawn
    rng = seeded_rng("hepatocellular", seed)
    return replace(drawn, metastases=tuple(_washed_out(rng, lesion) for lesion in drawn.metastases))


def sample_arterial(seed: int, *, lesion_count: int | None = None, disease: str = DISEASES[0]) -> ArterialPhase:
    """Draws the arterial phase of patient `seed`: same body, place in the scanner and lesions. Raises ValueError."""
    portal = sample_portal_venous(seed, lesion_count=lesion_count, disease=disease)
    rng = seeded_rng(CT_ARTERIAL, seed)
    patient = portal.patient
    motion = sample_breathing(rng, patient.body, patient.spine_y_mm, patient.liver_depth_at)
    acquisition = sample_acquisition(rng, treated=False, echo_planar=False)
    bolus, stripes_hu = float(rng.uniform(*BOLUS_STRENGTH)), float(rng.uniform(*SPLEEN_STRIPES_HU))
    stripes = Stripes(WaveField.sample(rng, (14.0, 34.0), rms=1.0), stripes_hu)
    show = _hyperenhanced if disease == "hepatocellular" else _rimmed
    lesion_rng = seeded_rng(f"{CT_ARTERIAL}:{disease}", seed)
    parameters = replace(
        portal,
        condition=CT_ARTERIAL,
        metastases=tuple(show(lesion_rng, lesion) for lesion in portal.metastases),
        decoys=tuple(_decoy(lesion_rng, lesion) for lesion in portal.decoys),
        acquisition=acquisition,
    )
    return ArterialPhase(parameters, motion, bolus, stripes)


def render_arterial(drawn: ArterialPhase, geometry: Geometry = GEOMETRY) -> Phantom:
    """The arterial volume: painted where the patient lay in this breath-hold, imaged on a straight grid."""
    parameters = drawn.parameters
    grid = Grid(geometry.affine_mm, geometry.shape, drawn.motion)
    painted = paint(parameters.patient, parameters.liver_vessels, grid)
    placed, labels = place_lesions(parameters, grid, painted.liver_DHW)
    codes_DHW, marks = vessels_told_apart(painted), _landmarks(parameters.patient)
    paint_arteries(codes_DHW, marks, parameters.liver_vessels.portal, grid)
    uneven_DHW = uneven_hu(codes_DHW, marks, drawn.stripes, RENAL_RETURN_HU * drawn.bolus, grid)
    scene = Scene(grid.straight(), codes_DHW, placed, _tissues(drawn.bolus), uneven_DHW)
    image_DHW = image_ct(scene, parameters.acquisition)
    return develop(parameters, geometry, {0.0: image_DHW}, painted, labels, parameters.nominal_mm, motion=drawn.motion)


def _tissues(bolus: float) -> dict[int, Properties]:
    """The table of this bolus: arterial values where there are some, else the portal-venous phase's."""
    blood = TISSUES[Tissue.BLOOD]
    table = {int(tissue): known for tissue, known in TISSUES.items()}
    table |= dict.fromkeys(VESSEL_CODES, blood)
    for code, (hu, source) in ARTERIAL_HU.items():
        rest = UNENHANCED_HU.get(Tissue(code), hu) if code < len(Tissue) else _BLOOD_HU
        table[int(code)] = replace(table[int(code)], ct_hu=rest + bolus * (hu - rest), source=source)
    return table


def _landmarks(patient: Patient) -> Landmarks:
    right, left = (kidney.centre_mm for kidney in patient.kidneys)
    return Landmarks(patient.aorta[0].end_mm, patient.spleen.centre_mm, patient.spleen.reach_mm, right, left)


def _rimmed(rng: np.random.Generator, lesion: FocalLesion) -> FocalLesion:
    """A colorectal metastasis: a rim brighter or darker than the liver around a dark middle."""
    bright, rim_hu, core_hu = rng.random() < BRIGHT_RIM_SHARE, _pick(rng, BRIGHT_RIM), _pick(rng, CORE)
    dark_hu, begins = _pick(rng, DARK_RIM), float(rng.uniform(0.66, 0.84))
    return replace(
        lesion,
        core_radius=max(lesion.core_radius, begins) if bright else lesion.core_radius,
        rim=replace(lesion.rim, ct_hu=rim_hu if bright else dark_hu),
        core=replace(lesion.core, ct_hu=core_hu),
    )


def _hyperenhanced(rng: np.random.Generator, lesion: FocalLesion) -> FocalLesion:
    """A hepatocellular carcinoma: bright throughout."""
    tissue = replace(lesion.rim, ct_hu=_pick(rng, HYPERENHANCEMENT), texture=MOSAIC)
    return replace(lesion, core_radius=0.0, rim=tissue, core=tissue)


def _washed_out(rng: np.random.Generator, lesion: FocalLesion) -> FocalLesion:
    """The same in the portal-venous phase: darker than the liver, with a capsule of about 2 mm where it is large."""
    tissue = replace(lesion.rim, ct_hu=_pick(rng, WASHOUT), texture=MOSAIC)
    capsule = replace(tissue, ct_hu=_pick(rng, CAPSULE), texture=0.05)
    radius_mm = math.prod(lesion.shape.radii_mm) ** (1 / 3)
    if radius_mm < 8:
        return replace(lesion, core_radius=0.0, rim=tissue, core=tissue)
    return replace(lesion, core_radius=1 - 2.0 / radius_mm, rim=capsule, core=tissue)


def _decoy(rng: np.random.Generator, lesion: FocalLesion) -> FocalLesion:
    """A cyst looks as ever; a haemangioma fills from its edge."""
    nodules, pool, begins = _pick(rng, NODULES), _pick(rng, POOL), float(rng.uniform(0.5, 0.75))
    if lesion.rim.source != HAEMANGIOMA.source:
        assert lesion.rim.source == CYST.source  # there are no other decoys
        return lesion
    rim, core = replace(lesion.rim, ct_hu=nodules), replace(lesion.core, ct_hu=pool)
    return replace(lesion, core_radius=begins, rim=rim, core=core)


def _pick(rng: np.random.Generator, span: Range) -> float:
    return float(rng.uniform(span.low, span.high))
