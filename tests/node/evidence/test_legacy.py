"""Legacy-converted multi-frame objects: classic headers whose attributes a converter left in functional groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node.domain import Decision
from tests.legacy_converted import converted

Headers = dict[Path, Dataset]


@pytest.mark.parametrize(
    ("builder", "condition"), [("mr", "pre-nact-t2wi"), ("dwi", "pre-nact-dwi"), ("ct", "ct-portal-venous")]
)
def test_a_converted_series_is_taken_for_what_the_classic_one_was(bench: Any, builder: str, condition: str) -> None:
    taken = [told for told in bench.decide(converted(getattr(bench, builder)())).volumes if told.condition]
    assert [(told.decision, told.condition) for told in taken] == [(Decision.ACCEPT, condition)]


def test_private_elements_of_a_converted_series_are_found(bench: Any, private: Callable[..., Headers]) -> None:
    headers = bench.dwi((1000,), DiffusionBValue=None, DiffusionDirectionality=None)
    private(headers, "SIEMENS MR HEADER", 0x0019, 0x0C, "IS", 1000, 0x11)
    private(headers, "", 0x0019, 0x0D, "CS", "ISOTROPIC", 0x11)
    assert bench.best(converted(headers)).condition == "pre-nact-dwi"


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"ScanOptions": "PFP", "SeriesDescription": "t2_tse_tra"}, "not fat-suppressed"),
        ({"EchoTime": "650"}, "only fluid shows"),
        (
            {"ScanningSequence": "GR", "EchoTime": "2.4", "RepetitionTime": "4.8", "SeriesDescription": "x"},
            "T1-weighted",
        ),
    ],
)
def test_a_converted_series_is_refused_for_the_classic_reason(bench: Any, tags: dict[str, Any], why: str) -> None:
    best = bench.best(converted(bench.mr(**tags)))
    assert best.decision is Decision.REFUSE
    assert why in "; ".join(reason.what for reason in best.reasons if not reason.is_for)
