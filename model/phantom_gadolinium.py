"""T1-weighted MRI after gadolinium in the portal-venous phase: a fat-suppressed 3-D spoiled gradient echo.

The agent shortens T1 by R1 = R1₀ + r₁·C; C is the concentration that a tissue holds about 70 s after 0.1 mmol/kg. It
is the patient before chemotherapy, metastases and decoys as in the other examinations of that time.

Sources
    [R05] Rohrer et al., Invest Radiol 2005;40:715: relaxivities of contrast media, 4–5 L/(mmol·s) at 1.5 T in plasma
    [R99] Rofsky et al., Radiology 1999;212:876: the breath-hold 3-D gradient echo (VIBE), its TR, TE, flip angle
    Concentrations are assumed: blood about 1.5 mmol/L after distribution, organs by their blood and interstitial
    volumes, so that liver, spleen, cortex and vessels have the order of brightness that radiologists know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from model.phantom import Geometry, Phantom, PhantomParameters, develop, place_lesions, sample_parameters, seeded_rng
from model.phantom_lesions import FocalLesion
from model.phantom_paint import paint
from model.phantom_physics import GradientEcho, Scene, image_mr, sample_acquisition
from model.phantom_shapes import Grid
from model.phantom_tissues import CYST, HAEMANGIOMA, TISSUES, Properties, Range, Tissue

T1_PORTAL_VENOUS = "t1-portal-venous"
GEOMETRY = Geometry(256, 256, 48, (380 / 256, 380 / 256), 4.0, centre_mm=(0.0, 0.0, -8.0))
T1WI = GradientEcho(
    tr_ms=4.4, te_ms=2.1, matrix=(180, 256), fov_mm=380, echo_planar=False, flip_deg=12, t2_star_share=0.6
)
"""[R99]"""
RELAXIVITY = 4.5
"""L/(mmol·s) [R05]."""
CONCENTRATION: dict[Tissue, float] = {
    Tissue.BLOOD: 1.5, Tissue.LIVER_VESSEL: 1.6, Tissue.HEART: 1.1, Tissue.LIVER: 0.62, Tissue.SPLEEN: 0.85,
    Tissue.CORTEX: 1.5, Tissue.MEDULLA: 0.9, Tissue.PANCREAS: 0.55, Tissue.MUSCLE: 0.15, Tissue.SKIN: 0.15,
    Tissue.MARROW: 0.1, Tissue.STOMACH_WALL: 0.5, Tissue.BOWEL_WALL: 0.6, Tissue.NODE: 0.4,
}  # fmt: skip
"""mmol/L; what is not here holds none."""
VIABLE, NECROSIS, POOLED = Range(0.22, 0.45), Range(0.02, 0.12), Range(1.0, 1.5)
"""Metastases enhance less than the liver, their necrosis hardly; haemangiomas hold blood."""
NOISE, GAIN = Range(0.0022, 0.0036), Range(5200, 8200)


def sample_gadolinium(seed: int, *, lesion_count: int | None = None) -> PhantomParameters:
    """Draws the T1 examination of patient `seed`."""
    before = sample_parameters("pre-nact-t2wi", seed, lesion_count=lesion_count)
    rng = seeded_rng(T1_PORTAL_VENOUS, seed)
    acquisition = sample_acquisition(rng, treated=False, echo_planar=False)
    noise, gain = (float(rng.uniform(span.low, span.high)) for span in (NOISE, GAIN))
    return replace(
        before,
        condition=T1_PORTAL_VENOUS,
        metastases=tuple(_enhanced(rng, lesion, VIABLE, NECROSIS) for lesion in before.metastases),
        decoys=tuple(_decoy(rng, lesion) for lesion in before.decoys),
        acquisition=replace(acquisition, noise=noise, gain=gain),
    )


def render_gadolinium(drawn: PhantomParameters, geometry: Geometry = GEOMETRY) -> Phantom:
    """The volume of a T1 examination."""
    grid = Grid(geometry.affine_mm, geometry.shape)
    painted = paint(drawn.patient, drawn.liver_vessels, grid)
    placed, labels = place_lesions(drawn, grid, painted.liver_DHW)
    scene = Scene(grid, painted.tissue_DHW, placed, with_agent(TISSUES))
    image_DHW = image_mr(scene, drawn.acquisition, T1WI, (0.0,))[0]
    return develop(drawn, geometry, {0.0: image_DHW}, painted, labels, drawn.nominal_mm, protocol=T1WI)


def with_agent(tissues: Mapping[Any, Properties]) -> dict[int, Properties]:
    """A table of tissues, by their codes, about 70 s after the injection."""
    return {int(code): shortened(tissue, CONCENTRATION.get(code, 0.0)) for code, tissue in tissues.items()}


def shortened(tissue: Properties, mmol_l: float) -> Properties:
    """A tissue that holds gadolinium."""
    return replace(tissue, t1_ms=1000 / (1000 / tissue.t1_ms + RELAXIVITY * mmol_l))


def _enhanced(rng: np.random.Generator, lesion: FocalLesion, rim: Range, core: Range) -> FocalLesion:
    of_rim, of_core = (float(rng.uniform(span.low, span.high)) for span in (rim, core))
    return replace(lesion, rim=shortened(lesion.rim, of_rim), core=shortened(lesion.core, of_core))


def _decoy(rng: np.random.Generator, lesion: FocalLesion) -> FocalLesion:
    """A haemangioma fills; a cyst takes up nothing."""
    filled = _enhanced(rng, lesion, POOLED, POOLED)
    if lesion.rim.source != HAEMANGIOMA.source:
        assert lesion.rim.source == CYST.source  # there are no other decoys
        return lesion
    return filled
