"""A card's inputs find their images in a case, and every sample has a name of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.card import HuWindow, Percentiles, PlanarInput
from model.case_sets import UnseenPhantom, condition_of
from model.cases import Case, CaseImage, CaseProblem
from model.samples import samples_of
from model.volume import Volume

T2 = PlanarInput(modality="MR", weighting="t2", size=32, scaling=Percentiles())
T1 = T2.model_copy(update={"weighting": "t1"})
PORTAL = PlanarInput(role="pv", modality="CT", weighting="ct", phase="portal-venous", size=32, scaling=HuWindow())
ARTERIAL = PORTAL.model_copy(update={"role": "art", "phase": "arterial"})


def image(weighting: str, phase: str | None = None) -> CaseImage:
    volume = Volume(np.zeros((3, 4, 4), np.float32), np.eye(4))
    return CaseImage(volume, {}, "CT" if weighting == "ct" else "MR", weighting, phase)


def case_of(**images: CaseImage) -> Case:
    return Case("case-1", "patient-1", "made in a test", "Apache-2.0", images)


def test_alternatives_of_one_role_are_samples_of_their_own() -> None:
    found = list(samples_of(case_of(a=image("t2"), b=image("t1"), c=image("ct")), [T2, T1]))
    assert [(sample.case, sample.patient) for sample in found] == [("case-1/a", "patient-1"), ("case-1/b", "patient-1")]
    assert [condition_of(sample) for sample in found] == ["t2wi", "t1wi"]


def test_a_sample_has_one_name_whichever_bundle_reads_it() -> None:
    case = case_of(a=image("t2"), b=image("t1"))
    (alone,), several = samples_of(case, [T1]), list(samples_of(case, [T2, T1]))
    assert alone.case == several[1].case


def test_several_roles_are_one_sample_on_the_grid_of_the_first_if_all_are_there() -> None:
    portal, arterial = image("ct", "portal-venous"), image("ct", "arterial")
    (sample,) = samples_of(case_of(art=arterial, pv=portal), [PORTAL, ARTERIAL])
    assert (sample.case, sample.primary[1]) == ("case-1/pv", portal)
    assert list(sample.fed) == ["pv", "art"]
    assert (sample.fed["art"].volume, sample.fed["art"].phase) == (arterial.volume, "arterial")
    assert condition_of(sample) == "ct-portal-venous+ct-arterial"
    assert list(samples_of(case_of(pv=portal), [PORTAL, ARTERIAL])) == []


@pytest.mark.parametrize(
    ("shown", "condition"),
    [
        (replace(image("dwi-trace"), time_point="pre"), "pre-nact-dwi"),
        (replace(image("t2"), time_point="post"), "post-nact-t2wi"),
        (image("ct", "portal-venous"), "ct-portal-venous"),
    ],
)
def test_conditions_are_named_as_routes_and_cards_name_them(shown: CaseImage, condition: str) -> None:
    spec = T2.model_copy(update={"weighting": shown.weighting, "modality": shown.modality})
    (sample,) = samples_of(case_of(one=shown), [spec])
    assert condition_of(sample) == condition


def test_a_phantom_that_cannot_be_drawn_is_a_problem_of_one_sentence() -> None:
    with pytest.raises(CaseProblem, match="unknown family 9"):
        UnseenPhantom("pre-nact-t2wi", 900_000, family=9).read()
