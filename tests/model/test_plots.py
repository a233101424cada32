"""Plots are drawn from scores alone, the same bytes each time; whether they read well, a person has judged."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.plots import PLOTS, PlotsUnavailable, write_plots
from model.report import Measured, Report, summarise
from tests.model.hand_cases import ANSWER, MEASURED, NOTHING, TRUTH, grid, scored

pytest.importorskip("matplotlib", reason="plots are of the extra `train`")

NEARLY = grid("00000", "01100", "01000", "00000", "00022")


def report_of(name: str, answers: list[np.ndarray], truth: np.ndarray = TRUTH) -> Report:
    cases = [scored(truth, np.where(answer > 0, 0.75, 0.25), str(n)) for n, answer in enumerate(answers)]
    return summarise(Measured(name, "c" * 64, MEASURED.output), "pre-nact-dwi", "by hand", cases, resamples=50)


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return [report_of("first", [ANSWER, NEARLY, TRUTH, NOTHING]), report_of("second", [NEARLY, NEARLY, TRUTH, TRUTH])]


def test_every_plot_is_drawn_and_shows_something(reports: list[Report], tmp_path: Path) -> None:
    paths = write_plots(tmp_path, reports)
    assert [path.stem for path in paths] == list(PLOTS)
    for path in paths:
        with Image.open(path) as image:
            assert image.width > 600
            red, _, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(int), -1, 0)
        # each report in its colour: blue the first, vermilion the second
        assert min(np.count_nonzero(blue > red + 60), np.count_nonzero(red > blue + 60)) > 50, path.name


def test_the_same_reports_give_the_same_bytes(reports: list[Report], tmp_path: Path) -> None:
    once, again = (write_plots(tmp_path / folder, reports) for folder in ("once", "again"))
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]


def test_without_a_lesion_anywhere_only_what_there_is_gets_drawn(tmp_path: Path) -> None:
    paths = write_plots(tmp_path, [report_of("empty", [NOTHING, ANSWER], NOTHING)])
    assert [path.stem for path in paths] == ["dice-per-case", "risk-coverage"]


def test_a_lesion_that_is_found_by_one_report_only_does_not_stop_the_other(tmp_path: Path) -> None:
    silent = report_of("silent", [NOTHING] * 4)
    assert "agreement" in {path.stem for path in write_plots(tmp_path, [silent, report_of("good", [TRUTH] * 4)])}


def test_more_reports_than_can_be_told_apart_are_refused(reports: list[Report], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 to 6 reports, got 8"):
        write_plots(tmp_path, reports * 4)


def test_without_matplotlib_it_is_said_how_to_get_it(
    reports: list[Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlotsUnavailable, match=r"pip install 'crlm-node\[train\]'"):
        write_plots(tmp_path, reports)
    assert not list(tmp_path.iterdir())
