"""`crlm-node dataset import` as a person and a program meet it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from model.cases import list_cases
from model.phantom import Phantom
from node.cli_dataset import dataset_app
from tests.segmentations import box, drawn, write_images, write_seg

DONE, FAILED, USAGE = 0, 1, 2


@pytest.fixture(scope="module")
def source(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One segmented CT, and a segmentation whose images are elsewhere."""
    folder = tmp_path_factory.mktemp("source")
    series = write_images(folder / "ct", phantom)
    lesion = drawn("Lesion 1", box(series.volume.array_DHW.shape, (4, 6), (12, 17), (10, 16)))
    write_seg(folder / "seg.dcm", series, [lesion])
    absent = write_images(folder.parent / "absent", phantom, extra={"SeriesDescription": "another"})
    write_seg(folder / "absent.dcm", absent, [lesion])
    return folder


def dataset_import(*words: object) -> Result:
    return CliRunner().invoke(dataset_app, ["import", *map(str, words)])


def test_a_person_reads_a_table_what_was_skipped_and_the_sum(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "cases"
    told = dataset_import(source, "--out", out, "--licence", "in-house, ethics vote 4711")
    (case,) = list_cases(out)
    assert told.exit_code == DONE, told.stderr
    shown = " ".join(told.stdout.split())
    assert case.case in shown
    assert "absent.dcm: the images that it refers to are not among the sources" in shown
    assert "1 case with 1 image and 1 lesion in" in shown
    assert case.entry.licence == "in-house, ethics vote 4711"
    assert (out / ".pseudonym-key").exists()


def test_a_program_reads_json(source: Path, tmp_path: Path) -> None:
    told = dataset_import(source, "--out", tmp_path, "--json", "--no-pseudonyms", "--time-point", "post")
    answer = json.loads(told.stdout)
    (case,) = answer["cases"]
    (listed,) = list_cases(tmp_path)
    assert case["images"] == {"portal-venous": {"lesion": 1}}
    assert (case["lesions"], Path(case["folder"]).name) == (1, case["case"])
    assert [Path(each["source"]).name for each in answer["skipped"]] == ["absent.dcm"]
    assert (listed.patient, listed.images["portal-venous"].time_point) == ("SITE-0815", "post")
    assert not (tmp_path / ".pseudonym-key").exists()


def test_nothing_imported_is_exit_1_and_no_such_folder_bad_usage(source: Path, tmp_path: Path) -> None:
    failed = dataset_import(source / "ct", "--out", tmp_path / "cases")
    assert failed.exit_code == FAILED
    assert "0 cases" in failed.stdout
    assert dataset_import(source / "nowhere", "--out", tmp_path / "cases").exit_code == USAGE


def test_the_layout_of_chaos_is_asked_for_by_name(source: Path, tmp_path: Path) -> None:
    told = dataset_import(source, "--out", tmp_path, "--collection", "chaos")
    assert told.exit_code == FAILED
    assert "not laid out as CHAOS is" in " ".join(told.stdout.split())
