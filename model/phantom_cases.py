"""Phantoms as cases: what training and evaluation read from disk, they can also draw."""

from __future__ import annotations

import numpy as np

from model.cases import Case, CaseImage
from model.phantom import NETWORK_B_VALUE, Geometry, make_phantom


def phantom_case(condition: str, seed: int, *, family: int = 1, geometry: Geometry | None = None) -> Case:
    """The one image that a network reads of phantom (condition, seed), with its lesions and its liver.

    Raises ValueError for an unknown condition or family.
    """
    if family != 1:
        raise ValueError(f"unknown family {family} of phantoms; this version draws family 1")
    is_dwi, is_ct = condition.endswith("dwi"), condition.startswith("ct")
    drawn = make_phantom(condition, seed, geometry=geometry, b_values=(NETWORK_B_VALUE,) if is_dwi else None)
    image = CaseImage(
        volume=drawn.image,
        labels={"lesion": drawn.labels_DHW, "liver": drawn.liver_DHW.astype(np.uint16)},
        modality="CT" if is_ct else "MR",
        weighting="ct" if is_ct else "dwi-trace" if is_dwi else "t2",
        phase="portal-venous" if is_ct else None,
        b_value_s_mm2=NETWORK_B_VALUE if is_dwi else None,
        time_point=None if is_ct else "pre" if condition.startswith("pre-") else "post",
    )
    return Case(f"{condition}-{seed}", f"phantom-{seed}", "computed phantoms", "Apache-2.0", {"image": image})
