"""Phantoms as cases: in memory what `model.cases` reads from disk, so that training and evaluation need not ask.

Images are named as imported ones are: `portal-venous` and `arterial` on CT, `dwi-trace-b1000`, `t2` and `t1` on MR.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import numpy as np

from model.cases import LESION, Case, CaseImage
from model.phantom import NETWORK_B_VALUE, Geometry, Phantom
from model.phantom_arterial import CT_ARTERIAL, CT_PORTAL_VENOUS, DISEASES
from model.phantom_catalogue import PAIR, draw_pair, draw_phantom
from model.phantom_gadolinium import T1_PORTAL_VENOUS

COLLECTIONS = MappingProxyType({1: "computed phantoms", 2: "computed phantoms of family 2, for testing alone"})
LICENCE = "Apache-2.0"
NETWORK_B_VALUES = MappingProxyType({1: NETWORK_B_VALUE, 2: 900.0})
"""s/mm²: what a network reads of each family's DWI; the other b-values are not drawn."""

_SHOWN: dict[str, tuple[str, Literal["CT", "MR"], str, str | None]] = {  # name, modality, weighting, phase
    CT_PORTAL_VENOUS: ("portal-venous", "CT", "ct", "portal-venous"),
    CT_ARTERIAL: ("arterial", "CT", "ct", "arterial"),
    T1_PORTAL_VENOUS: ("t1", "MR", "t1", "portal-venous"),
    "dwi": ("dwi-trace", "MR", "dwi-trace", None),  # the paper's four by the end of their names
    "t2wi": ("t2", "MR", "t2", None),
}


def phantom_case(
    condition_or_pair: str,
    seed: int,
    *,
    family: int = 1,
    geometry: Geometry | None = None,
    disease: str = DISEASES[0],
    lesion_count: int | None = None,
) -> Case:
    """Phantom `seed` of a condition, or of the pair `ct-biphasic`, as a case with all its labels.

    `geometry` replaces the usual one, of the pair that of the portal-venous phase; the arterial one follows. Raises
    ValueError for what the phantoms do not know.
    """
    if condition_or_pair == PAIR:
        pair = draw_pair(seed, family=family, geometry=geometry, disease=disease, lesion_count=lesion_count)
        return case_of((pair.portal_venous, pair.arterial), PAIR)
    b_values = (NETWORK_B_VALUES[family],) if family in NETWORK_B_VALUES else None
    phantom = draw_phantom(
        condition_or_pair,
        seed,
        family=family,
        geometry=geometry,
        b_values=b_values,
        disease=disease,
        lesion_count=lesion_count,
    )
    return case_of((phantom,), condition_or_pair)


def case_of(phantoms: tuple[Phantom, ...], name: str) -> Case:
    """Phantoms of one patient as a case; `name` is what they are together, a condition or the pair."""
    first = phantoms[0]
    images = dict(_image(phantom) for phantom in phantoms)
    return Case(
        case=f"{name}-{first.seed}" if first.family == 1 else f"{name}-{first.seed}-family-{first.family}",
        patient=phantom_patient(first.seed, first.family),
        collection=COLLECTIONS[first.family],
        licence=LICENCE,
        images=images,  # plain dictionaries: a case is sent from process to process
        remarks=("a synthetic phantom, no patient", *(told for phantom in phantoms for told in _motion(phantom))),
    )


def phantom_patient(seed: int, family: int = 1) -> str:
    """The pseudonym of a phantom patient; the families' patients are other ones under the same seed."""
    return f"phantom-{seed}" if family == 1 else f"phantom-family-{family}-{seed}"


def _image(phantom: Phantom) -> tuple[str, CaseImage]:
    condition = phantom.condition
    name, modality, weighting, phase = _SHOWN.get(condition) or _SHOWN[condition.rpartition("-")[2]]
    b_s_mm2 = next(b for b, volume in phantom.volumes.items() if volume is phantom.image)
    masks = {"liver": phantom.liver_DHW, **phantom.vessels}
    image = CaseImage(
        phantom.image,
        {LESION: phantom.labels_DHW, **{at: mask.astype(np.uint16) for at, mask in masks.items()}},
        modality,
        weighting,
        phase,
        b_s_mm2 if weighting == "dwi-trace" else None,
        "pre" if condition.startswith("pre-") else "post" if condition.startswith("post-") else None,
    )
    return (f"{name}-b{b_s_mm2:.0f}" if weighting == "dwi-trace" else name), image


def _motion(phantom: Phantom) -> list[str]:
    if phantom.motion is None:
        return []
    return [f"moved by up to {phantom.motion.amplitude_mm:.2f} mm in the liver against the portal-venous phase"]
