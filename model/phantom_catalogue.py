"""Every phantom that there is, asked for in one way: two families, seven conditions, and the pair of CT phases.

Family 1 is for training, family 2 for testing alone (docs/decisions/0007). Seeds mean other patients in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from model import phantom_arterial, phantom_gadolinium
from model.phantom import B_VALUES, CONDITIONS, GEOMETRIES, Geometry, Phantom, make_phantom, render
from model.phantom_arterial import CT_ARTERIAL, CT_PORTAL_VENOUS, DISEASES
from model.phantom_gadolinium import T1_PORTAL_VENOUS
from model.phantom_second import geometry_of_seed, render_second, sample_second_parameters
from model.phantom_second_physics import SECOND_B_VALUES

ALL_CONDITIONS = (*CONDITIONS, CT_ARTERIAL, T1_PORTAL_VENOUS)
PAIR = "ct-biphasic"
FAMILIES = (1, 2)
_ASIDE_MM = 1.7
"""The slices of an arterial stack lie so much lower than those of the portal-venous one, beside whole spacings."""


@dataclass(frozen=True, eq=False)
class PhantomPair:
    """Both phases of one biphasic CT: the same patient, table and frame of reference in two breath-holds.

    How they are moved against each other is told by the arterial one (`to_rest_lps_mm`, `from_rest_lps_mm`).
    """

    portal_venous: Phantom
    arterial: Phantom


def draw_phantom(
    condition: str,
    seed: int,
    *,
    family: int = 1,
    geometry: Geometry | None = None,
    b_values: Sequence[float] | None = None,
    lesion_count: int | None = None,
    disease: str = DISEASES[0],
) -> Phantom:
    """Phantom `seed` of any condition and family; the same arguments give the same phantom.

    `geometry` replaces the usual one, `b_values` (s/mm²) those of DWI, `lesion_count` the drawn number of lesions
    before treatment; `disease` is `metastases` or, on CT, `hepatocellular`. Raises ValueError for what is not known.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family}; there are {', '.join(map(str, FAMILIES))}")
    lies = geometry or usual_geometry(condition, seed, family)
    if family == 2:
        drawn = sample_second_parameters(condition, seed, lesion_count=lesion_count, disease=disease)
        return render_second(drawn, lies, b_values or SECOND_B_VALUES)
    if condition == CT_ARTERIAL:
        phase = phantom_arterial.sample_arterial(seed, lesion_count=lesion_count, disease=disease)
        return phantom_arterial.render_arterial(phase, lies)
    if condition == CT_PORTAL_VENOUS:
        return render(phantom_arterial.sample_portal_venous(seed, lesion_count=lesion_count, disease=disease), lies)
    if disease != DISEASES[0]:
        raise ValueError(f"unknown disease {disease!r} on {condition}; on MR there are {DISEASES[0]} only")
    if condition == T1_PORTAL_VENOUS:
        return phantom_gadolinium.render_gadolinium(
            phantom_gadolinium.sample_gadolinium(seed, lesion_count=lesion_count), lies
        )
    return make_phantom(condition, seed, lesion_count=lesion_count, geometry=lies, b_values=b_values or B_VALUES)


def draw_pair(
    seed: int,
    *,
    family: int = 1,
    geometry: Geometry | None = None,
    arterial_geometry: Geometry | None = None,
    lesion_count: int | None = None,
    disease: str = DISEASES[0],
) -> PhantomPair:
    """Both phases of a biphasic CT of patient `seed`.

    With a `geometry` for the portal-venous phase the arterial one follows it (`beside`) where none is given.
    """
    if geometry is not None and arterial_geometry is None:
        arterial_geometry = beside(geometry)
    venous, arterial = (
        draw_phantom(name, seed, family=family, geometry=lies, lesion_count=lesion_count, disease=disease)
        for name, lies in ((CT_PORTAL_VENOUS, geometry), (CT_ARTERIAL, arterial_geometry))
    )
    return PhantomPair(venous, arterial)


def usual_geometry(condition: str, seed: int, family: int = 1) -> Geometry:
    """The geometry that a phantom has where none is asked for; of the pair that of its portal-venous phase.

    Raises ValueError for an unknown condition.
    """
    if condition == PAIR:
        condition = CT_PORTAL_VENOUS
    if condition not in ALL_CONDITIONS:
        raise ValueError(f"unknown condition {condition!r}; the phantoms know {', '.join(ALL_CONDITIONS)}")
    if family == 2:
        return geometry_of_seed(condition, seed)
    own = {CT_ARTERIAL: phantom_arterial.GEOMETRY, T1_PORTAL_VENOUS: phantom_gadolinium.GEOMETRY}
    return own[condition] if condition in own else GEOMETRIES[condition]


def beside(geometry: Geometry) -> Geometry:
    """A stack of the same kind whose slices lie between those of another, with one more at either end."""
    x, y, z = geometry.centre_mm
    return replace(geometry, slices=geometry.slices + 2, centre_mm=(x, y, z - _ASIDE_MM))


def reduced(geometry: Geometry, longest_side: int) -> Geometry:
    """The same field of view with no more than `longest_side` pixels a side, for tests and quick looks."""
    share = min(1.0, longest_side / max(geometry.rows, geometry.columns))
    return geometry.resampled(max(1, round(geometry.rows * share)), max(1, round(geometry.columns * share)))
