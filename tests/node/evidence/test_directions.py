"""Single directions of one series: when a mean of them may be analysed, when a person is asked, when there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from node.domain import Decision
from node.evidence_facts import DERIVED_MEAN, VolumeFacts
from simulator.directions import ORTHOGONAL

ACCEPT, CONFIRM, REFUSE = Decision.ACCEPT, Decision.CONFIRM, Decision.REFUSE
Vector = tuple[float, float, float]

TETRAHEDRON = tuple(
    tuple(part / math.sqrt(3) for part in v) for v in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
)
SIX = tuple(
    tuple(part / math.sqrt(2) for part in v)
    for v in ((1, 0, 1), (-1, 0, 1), (0, 1, 1), (0, 1, -1), (1, 1, 0), (-1, 1, 0))
)
IN_ONE_PLANE = tuple((math.cos(turn), math.sin(turn), 0.0) for turn in (0.0, math.pi / 3, 2 * math.pi / 3))
NEARLY_ORTHOGONAL = ((1.0, 0.05, 0.0), (0.0, 1.0, 0.05), (0.05, 0.0, 1.0))


def directions(bench: Any, vectors: Iterable[Iterable[float] | None], **tags: Any) -> dict[Any, Any]:
    """b = 1000 along each of these; None is a direction by its label alone."""
    first = bench.dwi((1000,), DiffusionDirectionality="DIRECTIONAL", SeriesDescription="ep2d_diff_liver")
    series: dict[Any, Any] = {}
    for number, vector in enumerate(vectors, start=1):
        told = {"DiffusionGradientOrientation": list(vector) if vector is not None else None}
        series |= bench.again(first, shift=1000 * number, AcquisitionNumber=number, **told, **tags)
    return series


def means(bench: Any, headers: dict[Any, Any]) -> list[VolumeFacts]:
    return [volume for volume in bench.facts(headers) if volume.directionality == DERIVED_MEAN]


def against(decision: Any) -> str:
    return "; ".join(reason.what for reason in decision.reasons if not reason.is_for)


@pytest.mark.parametrize("vectors", [ORTHOGONAL, TETRAHEDRON, SIX, NEARLY_ORTHOGONAL])
def test_directions_that_spread_evenly_are_accepted_as_their_mean(bench: Any, vectors: tuple[Vector, ...]) -> None:
    best = bench.best(directions(bench, vectors))
    assert (best.decision, best.condition) == (ACCEPT, "pre-nact-dwi")
    assert f"geometric mean of {len(vectors)} directions, derived in the node" in [r.what for r in best.reasons]


def test_each_single_direction_stays_refused(bench: Any) -> None:
    decisions = bench.decide(directions(bench, ORTHOGONAL)).volumes
    assert [item.decision for item in decisions if item.volume.directionality == "directional"] == [REFUSE] * 3


def test_the_mean_holds_the_instances_of_every_direction_once(bench: Any) -> None:
    headers = directions(bench, ORTHOGONAL)
    (mean,) = means(bench, headers)
    assert [len(members) for members in (mean.members, *mean.other_directions)] == [20, 20, 20]
    assert {path for path, _ in mean.every_member} == set(headers)


def test_every_direction_lies_in_the_order_of_the_first(bench: Any) -> None:
    headers = directions(bench, ORTHOGONAL)
    (mean,) = means(bench, dict(reversed(headers.items())))
    for members in (mean.members, *mean.other_directions):
        heights = [headers[path].ImagePositionPatient[2] for path, _ in members]
        assert heights == sorted(heights)


@pytest.mark.parametrize("vectors", [IN_ONE_PLANE, SIX[:5]])
def test_directions_that_spread_unevenly_are_asked_about(bench: Any, vectors: tuple[Vector, ...]) -> None:
    best = bench.best(directions(bench, vectors))
    assert best.decision is CONFIRM
    assert "do not spread evenly" in against(best)


def test_directions_that_are_told_by_label_alone_are_asked_about(bench: Any) -> None:
    best = bench.best(directions(bench, (None, None, None)))
    assert best.decision is CONFIRM
    assert "not which" in against(best)


def test_two_directions_make_no_mean(bench: Any) -> None:
    assert means(bench, directions(bench, ORTHOGONAL[:2])) == []


def test_one_direction_and_its_opposite_are_one(bench: Any) -> None:
    assert means(bench, directions(bench, ((1, 0, 0), (-1, 0, 0), (0, 1, 0)))) == []


def test_repetitions_of_one_direction_make_no_mean(bench: Any) -> None:
    assert means(bench, directions(bench, [ORTHOGONAL[0]] * 4)) == []


def test_repetitions_whose_direction_nobody_told_make_no_mean(bench: Any) -> None:
    headers = directions(bench, (None, None, None), DiffusionDirectionality=None)
    assert means(bench, headers) == []
    assert bench.best(headers).decision is REFUSE


def test_all_directions_repeated_alike_are_averaged_together(bench: Any) -> None:
    (mean,) = means(bench, directions(bench, [vector for vector in ORTHOGONAL for _ in range(2)]))
    assert len(mean.other_directions) == 5
    assert "3 of them distinct" in mean.direction_signs[0].what


def test_a_direction_that_is_repeated_more_than_others_is_asked_about(bench: Any) -> None:
    best = bench.best(directions(bench, [*ORTHOGONAL, ORTHOGONAL[0]]))
    assert best.decision is CONFIRM


@pytest.mark.parametrize(
    "moved",
    [
        {"ImagePositionPatient": [-150.0, -120.0, 3.5]},
        {"Rows": 128},
        {"EchoTime": "99"},
        {"FrameOfReferenceUID": "1.2.3.77"},
    ],
)
def test_what_lies_or_was_made_otherwise_belongs_to_no_mean(bench: Any, moved: dict[str, Any]) -> None:
    headers = directions(bench, ORTHOGONAL)
    for path in sorted(headers)[-20:]:
        for keyword, told in moved.items():
            setattr(headers[path], keyword, told)
    assert means(bench, headers) == []


def test_directions_of_two_b_values_make_a_mean_each(bench: Any) -> None:
    headers = directions(bench, ORTHOGONAL)
    others = bench.again(headers, shift=9000, DiffusionBValue=50.0)
    assert [mean.b_s_mm2 for mean in means(bench, {**headers, **others})] == [50, 1000]


def test_the_scanners_trace_goes_before_the_mean_that_could_be_derived(bench: Any) -> None:
    headers = {**bench.dwi((1000,)), **directions(bench, ORTHOGONAL)}
    decisions = bench.decide(headers).volumes
    (taken,) = [item for item in decisions if item.decision is ACCEPT]
    (loser,) = [item for item in decisions if item.volume.directionality == DERIVED_MEAN]
    assert taken.volume.directionality == "isotropic"
    assert "it is the scanner's own, no mean derived in the node" in against(loser)


def test_the_trace_goes_before_the_mean_even_where_it_covers_less(bench: Any) -> None:
    short = bench.again(bench.dwi((1000,), count=12), SeriesInstanceUID="1.2.3.5")
    taken = bench.best(short, directions(bench, ORTHOGONAL))
    assert taken.volume.directionality == "isotropic"


def test_a_mean_of_maps_is_no_diffusion_weighted_volume(bench: Any) -> None:
    headers = directions(bench, ORTHOGONAL, ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"])
    assert means(bench, headers) == []


@pytest.mark.parametrize(
    ("folder", "is_even"),
    [
        ("mr-vendor-dwi/siemens-xa60-enhanced-b0-1000", True),
        ("mr-vendor-dwi/ge-signa-pioneer-b1000", True),
        ("mr-vendor-dwi/philips-enhanced-b0-1300", False),
    ],
)
def test_real_series_of_directions_have_a_mean(
    bench: Any, real: Callable[..., dict[Any, Any]], folder: str, is_even: bool
) -> None:
    """The Philips sample was cut to three directions of more, which lie askew."""
    (mean,) = means(bench, real(folder))
    assert (len(mean.direction_signs) == 1) is is_even
