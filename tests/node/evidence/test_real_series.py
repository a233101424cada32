"""Every series of the shared real data gets the answer that a reader of headers would give, by true rules."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from node.config import load_config
from node.survey import SurveyResult, survey

ROOT = Path(__file__).resolve().parents[3]
EXPECTED = ROOT.parent / "shared" / "data" / "expected-routing.csv"
FAT = {"yes": True, "no": False, "": None}


def rows() -> list[dict[str, str]]:
    """The expected answers, none where the shared data are absent."""
    if not EXPECTED.is_file():
        return []
    with EXPECTED.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def surveyed(shared_data: Path) -> Mapping[str, SurveyResult]:
    """Folder → what `crlm-node route` says of it, with the shipped routes and no therapy known."""
    config = load_config(ROOT / "dicom_config", environment={})
    return {folder: survey([shared_data / folder], config) for folder in sorted({row["folder"] for row in rows()})}


def told(surveyed: Mapping[str, SurveyResult], row: dict[str, str]) -> list[dict[str, Any]]:
    found = surveyed[row["folder"]].as_json()
    return [item for item in found if item.get("series_uid") == row["series_instance_uid"]]


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['folder']}-{row['series_instance_uid'][-12:]}")
def test_a_real_series_gets_the_expected_answer(surveyed: Mapping[str, SurveyResult], row: dict[str, str]) -> None:
    volumes = told(surveyed, row)
    assert volumes
    decision, _, condition = row["decision"].partition(":")
    for volume in volumes:
        assert volume["weighting"] == row["weighting"]
        assert volume["decision"] == decision
        assert volume["condition"] == (condition or None)
        if row["b_values_s_mm2"]:
            assert volume["b_values_s_mm2"] == [int(b) for b in row["b_values_s_mm2"].split()]
        if row["b_pick_s_mm2"]:
            assert volume["b_pick_s_mm2"] == int(row["b_pick_s_mm2"])
        if row["fat_suppressed"]:
            assert volume["fat_suppressed"] is FAT[row["fat_suppressed"]]
        if row["region"]:
            assert volume["region"] == row["region"]


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("ct-liver/totalsegmentator-siemens-j2k", "Study Instance UID is empty"),
        ("mr-body/philips-achieva-cor-stir", "coronal"),
        ("mr-body/siemens-prisma-kidney-dwi-b50-400-800-phantom", "coronal"),
        ("mr-body/siemens-skyra-prostatex-0000/adc", "apparent diffusion coefficient"),
        ("mr-body/siemens-skyra-prostatex-0000/calc-b1000", "computed b-value"),
        ("mr-body/siemens-skyra-prostatex-0000/dwi-b50-400-800", "prostate"),
        ("mr-body/siemens-skyra-prostatex-0000/t2-tra", "not fat-suppressed"),
        ("mr-liver/cmbcrc-toshiba-scan1-t2", "not fat-suppressed"),
        ("mr-vendor-dwi/canon-galan-b0-1500", "no b-value between 800 and 1200"),
        ("mr-vendor-dwi/uih-umr770", "tiled"),
        ("negatives/siemens-localizer", "several"),
        ("negatives/siemens-phoenix-sr", "no image"),
    ],
)
def test_the_refusal_of_a_real_series_names_its_reason(
    surveyed: Mapping[str, SurveyResult], folder: str, why: str
) -> None:
    reasons = [reason["what"] for item in surveyed[folder].as_json() for reason in item.get("reasons", ())]
    wanted = "orientations of a few slices" if why == "several" else why
    assert any(wanted in reason for reason in reasons)


def test_nothing_of_the_real_data_is_accepted_unattended(surveyed: Mapping[str, SurveyResult]) -> None:
    accepted = [
        item["source"] for result in surveyed.values() for item in result.as_json() if item.get("decision") == "accept"
    ]
    assert accepted == []
