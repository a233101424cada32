"""What a site declares counts as one vote: it settles what a header leaves untold, and overrules nothing."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from pydicom.dataset import FileMetaDataset

from node.config_routes import Trust
from node.domain import Decision

ACCEPT, CONFIRM, REFUSE = Decision.ACCEPT, Decision.CONFIRM, Decision.REFUSE
UNTIMED = {"ContrastBolusStartTime": None, "SeriesDescription": "Liver PV"}
"""A CT whose phase only its words tell: one vote."""
SILENT = {"ScanningSequence": None, "EchoTime": "84", "SeriesDescription": "fs tra liver"}
"""An MR whose sequence nobody tells."""


def received(headers: Any, *, called: str = "", calling: str = "") -> Any:
    for dataset in headers.values():
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.ReceivingApplicationEntityTitle = called
        dataset.file_meta.SendingApplicationEntityTitle = calling
    return headers


def test_one_vote_of_the_header_and_the_sites_word_suffice_for_a_ct_phase(bench: Any) -> None:
    series = bench.ct(**UNTIMED)
    assert bench.best(series).decision is CONFIRM
    told = bench.trusting(protocol="liver pv", contrast_phase="portal-venous").best(series)
    assert (told.decision, told.condition) == (ACCEPT, "ct-portal-venous")
    assert any(reason.where == "routes.yaml, trust 1" and reason.is_for for reason in told.reasons)


def test_the_sites_word_alone_asks_a_person(bench: Any) -> None:
    series = bench.ct(ContrastBolusStartTime=None, SeriesDescription="Liver routine", ProtocolName="Liver 4711")
    told = bench.trusting(protocol="4711", contrast_phase="portal-venous").best(series)
    assert told.decision is CONFIRM


def test_the_sites_word_against_the_headers_asks_a_person(bench: Any) -> None:
    told = bench.trusting(protocol="liver pv", contrast_phase="arterial").best(bench.ct())
    assert told.decision is CONFIRM


def test_contrast_that_was_not_given_is_not_declared_into_being(bench: Any) -> None:
    plain = bench.ct(ContrastBolusAgent=None, ContrastBolusRoute=None, **UNTIMED)
    told = bench.trusting(protocol="liver", contrast_phase="portal-venous").best(plain)
    assert told.decision is not ACCEPT


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"called_ae": "CRLM-LIVER"}, ACCEPT),
        ({"calling_ae": "CT-2"}, ACCEPT),
        ({"called_ae": "CRLM-NODE"}, CONFIRM),
        ({"calling_ae": "CT-1"}, CONFIRM),
        ({"protocol": "spine"}, CONFIRM),
    ],
)
def test_a_line_speaks_only_of_what_it_names(bench: Any, line: dict[str, str], told: Decision) -> None:
    series = received(bench.ct(**UNTIMED), called="CRLM-LIVER", calling="CT-2")
    assert bench.trusting(**line, contrast_phase="portal-venous").best(series).decision is told


def test_two_lines_on_one_phase_are_one_vote(bench: Any) -> None:
    series = bench.ct(ContrastBolusStartTime=None, SeriesDescription="Liver routine")
    site = bench.trusting(protocol="liver", contrast_phase="portal-venous")
    site = site.trusting(protocol="routine", contrast_phase="portal-venous")
    assert site.best(series).decision is CONFIRM


def test_a_declared_weighting_settles_an_untold_sequence(bench: Any) -> None:
    series = bench.mr(**SILENT)
    assert bench.best(series).decision is REFUSE
    told = bench.trusting(protocol="fs tra liver", weighting="t2").best(series)
    assert (told.decision, told.condition) == (ACCEPT, "pre-nact-t2wi")


@pytest.mark.parametrize(
    "tags", [{"ScanningSequence": "GR", "EchoTime": "84"}, {"ScanningSequence": "SE", "EchoTime": "12"}]
)
def test_a_declared_weighting_overrules_no_sequence(bench: Any, tags: dict[str, str]) -> None:
    assert bench.trusting(protocol=".", weighting="t2").best(bench.mr(**tags)).decision is REFUSE


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"contrast_phase": "arterial"}, "name one source"),
        ({"protocol": "x", "called_ae": "Y", "weighting": "t2"}, "name one source"),
        ({"protocol": "x"}, "declare one thing"),
        ({"protocol": "x", "weighting": "t2", "contrast_phase": "arterial"}, "declare one thing"),
        ({"protocol": "x(", "weighting": "t2"}, "no regular expression"),
    ],
)
def test_a_line_that_says_too_much_or_too_little_is_refused(line: dict[str, str], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Trust.model_validate(line)
