"""`crlm-model evaluate` and `compare` from the command line, on case folders made in a test."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model import cli
from model.bundle import Bundle, save_bundle
from model.cases import Case, write_case
from model.report import read_report
from model.training.demo_card import save_untrained_bundle

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def t2_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return save_untrained_bundle(tmp_path_factory.mktemp("t2"), "pre-nact-t2wi")


@pytest.fixture(scope="module")
def both_bundle(t2_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two alternatives of one role: T2 and T1."""
    spec = t2_bundle.card.input
    inputs = (spec, spec.model_copy(update={"weighting": "t1"}))
    card = t2_bundle.card.model_copy(update={"inputs": inputs, "name": "both"})
    return save_bundle(tmp_path_factory.mktemp("both") / "both", card, t2_bundle.state_dict())


@pytest.fixture(scope="module")
def mixed_folder(small_image: Callable[..., object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients with T2 and T1, one of them with a T1 that nobody has outlined."""
    folder = tmp_path_factory.mktemp("mixed")
    for seed in range(2):
        t2, t1 = small_image(seed), small_image(seed + 10, "t1")
        images = {"t2": t2, "t1": t1 if seed else replace(t1, labels={})}  # type: ignore[type-var]  # a CaseImage
        write_case(folder, Case(f"case-{seed}", f"patient-{seed}", "made in a test", "Apache-2.0", images))  # type: ignore[arg-type]  # as above
    return folder


@pytest.fixture(scope="module")
def t2_report(t2_bundle: Bundle, case_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "t2.json"
    told = RUNNER.invoke(cli.app, ["evaluate", str(t2_bundle.path), "--cases", str(case_folder), "--report", str(path)])
    assert told.exit_code == 0, told.output
    assert "soft_dice_batch_all_liver_slices" in told.output, "every name is whole at 80 columns"
    return path


def ended(monkeypatch: pytest.MonkeyPatch, *words: object) -> object:
    """The exit code of the whole program."""
    monkeypatch.setattr(sys, "argv", ["crlm-model", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_cases_from_disk_are_measured_each_with_its_patient(t2_report: Path) -> None:
    report = read_report(t2_report)
    assert report.sample.cases == tuple(f"case-{n}/t2" for n in range(6))
    assert report.sample.patients == tuple(f"patient-{n}" for n in range(6))
    assert (report.condition, all(case.has_liver for case in report.cases)) == ("t2wi", True)
    assert report.test_set == "6 cases of 6 patients of made in a test (all)"


def test_each_condition_has_its_report_and_what_could_not_be_measured_is_named(
    both_bundle: Bundle, mixed_folder: Path, tmp_path: Path
) -> None:
    words = ["evaluate", str(both_bundle.path), "--cases", str(mixed_folder), "--report", str(tmp_path / "r.json")]
    told = RUNNER.invoke(cli.app, words)
    assert told.exit_code == 0, told.output
    t2, t1 = (read_report(tmp_path / f"r-{condition}.json") for condition in ("t2wi", "t1wi"))
    assert (t2.sample.cases, t1.sample.cases) == (("case-0/t2", "case-1/t2"), ("case-1/t1",))
    assert list(t1.left_out) == ["case-0/t1"]
    assert "left out: case-0/t1" in told.output


def test_a_report_compared_with_itself_differs_in_nothing(t2_report: Path, tmp_path: Path) -> None:
    told = RUNNER.invoke(cli.app, ["compare", str(t2_report), str(t2_report), "--json", str(tmp_path / "c.json")])
    assert told.exit_code == 0, told.output
    assert "soft_dice_batch_all_liver_slices" in told.output, "every name is whole at 80 columns"
    (comparison,) = json.loads((tmp_path / "c.json").read_text(), parse_constant=pytest.fail)
    tested = [row for row in comparison["rows"] if row["p_holm"] is not None]
    assert "dice" in {row["measure"] for row in tested}
    assert all(row["result"]["difference"]["value"] == 0 for row in comparison["rows"])


def test_reports_of_other_cases_end_with_one_sentence_and_code_2(
    t2_report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, other = t2_report.read_text(), tmp_path / "other.json"
    other.write_text(text.replace('"case-0/t2"', '"case-9/t2"'))
    assert ended(monkeypatch, "compare", t2_report, other) == 2
    assert "measure both on the same cases" in capsys.readouterr().out
    assert ended(monkeypatch, "compare", t2_report, tmp_path / "none.json") == 2
    assert "none.json: cannot be read" in capsys.readouterr().out


def test_cases_that_the_bundle_does_not_read_end_with_one_sentence_and_code_2(
    untrained_ct_bundle: Bundle,
    case_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ended(monkeypatch, "evaluate", untrained_ct_bundle.path, "--cases", case_folder) == 2
    assert "reads CT ct portal-venous, of which it can be measured on none" in " ".join(capsys.readouterr().out.split())


def test_a_question_that_no_measure_answers_is_bad_usage(t2_report: Path) -> None:
    assert RUNNER.invoke(cli.app, ["compare", str(t2_report), str(t2_report), "--test", "beauty"]).exit_code == 2
