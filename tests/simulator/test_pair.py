"""Two phases as two series of one study: what ties them together, and the truth beside each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.phantom import Phantom
from model.phantom_catalogue import PhantomPair, draw_pair, draw_phantom, reduced, usual_geometry
from simulator.modality import DIALECTS, MASK_FILE, SeriesPlan, read_truth, write_pair, write_series

CT_DIALECTS = [name for name, dialect in DIALECTS.items() if dialect.write_ct]


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    usual = reduced(usual_geometry("ct-portal-venous", 5), 40)
    return draw_pair(5, geometry=replace(usual, slices=16, slice_thickness_mm=12.0))


@pytest.fixture(scope="module")
def t1() -> Phantom:
    usual = reduced(usual_geometry("t1-portal-venous", 5), 32)
    return draw_phantom("t1-portal-venous", 5, geometry=replace(usual, slices=12, slice_thickness_mm=12.0))


@pytest.fixture(scope="module")
def written(pair: PhantomPair, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[Dataset]]]:
    folder = tmp_path_factory.mktemp("pair")
    files = write_pair(pair, folder, dialect="siemens")
    return {name: (folder / name, [dcmread(path) for path in paths]) for name, paths in files.items()}


def seconds(ds: Dataset, keyword: str) -> float:
    told = str(ds[keyword].value)
    return int(told[:2]) * 3600 + int(told[2:4]) * 60 + float(told[4:])


def test_both_series_lie_in_one_study_and_one_frame_of_reference(
    written: dict[str, tuple[Path, list[Dataset]]],
) -> None:
    every = [ds for _, datasets in written.values() for ds in datasets]
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "ContrastBolusStartTime"):
        assert len({str(ds[keyword].value) for ds in every}) == 1, keyword
    assert len({ds.SeriesInstanceUID for ds in every}) == 2
    assert [written[name][1][0].SeriesNumber for name in ("arterial", "portal-venous")] == [2, 3]


def test_the_phases_follow_one_injection(written: dict[str, tuple[Path, list[Dataset]]]) -> None:
    for name, expected_s in (("arterial", 35), ("portal-venous", 70)):
        ds = written[name][1][0]
        assert seconds(ds, "SeriesTime") - seconds(ds, "ContrastBolusStartTime") == expected_s
        assert 0 <= seconds(ds, "AcquisitionTime") - seconds(ds, "SeriesTime") < 10


def test_each_series_has_its_own_truth_with_all_masks(
    pair: PhantomPair, written: dict[str, tuple[Path, list[Dataset]]]
) -> None:
    for name, phantom in (("arterial", pair.arterial), ("portal-venous", pair.portal_venous)):
        folder, datasets = written[name]
        truth = read_truth(folder)
        assert truth.series_instance_uid == datasets[0].SeriesInstanceUID
        assert np.array_equal(truth.labels_DHW, phantom.labels_DHW)
        assert np.array_equal(truth.masks["liver"], phantom.liver_DHW)
        assert np.array_equal(truth.masks["aorta"], phantom.vessels["aorta"])
        assert truth.masks["portal-vein"].any()


def test_the_movement_is_told_beside_the_arterial_series(
    pair: PhantomPair, written: dict[str, tuple[Path, list[Dataset]]]
) -> None:
    folder, _ = written["arterial"]
    motion = pair.arterial.motion
    assert motion is not None
    assert read_truth(folder).motion_mm == motion.amplitude_mm
    assert "motion_mm" not in json.loads((written["portal-venous"][0] / "truth.json").read_text())
    with np.load(folder / MASK_FILE) as stored:
        field_ABC3, affine = stored["displacement_mm"], stored["displacement_affine_lps_mm"]
    node = np.array(field_ABC3.shape[:3]) // 2
    point = affine[:3, :3] @ node + affine[:3, 3]
    there = pair.arterial.to_rest_lps_mm(point[None])[0]
    np.testing.assert_allclose(point + field_ABC3[tuple(node)], there, atol=1e-3)


@pytest.mark.parametrize("dialect", CT_DIALECTS)
def test_dciodvfy_finds_no_error_in_an_arterial_series(
    pair: PhantomPair, tmp_path: Path, dialect: str, require_peer: Callable[[str], Path]
) -> None:
    program = require_peer("/usr/bin/dciodvfy")
    path = write_series(pair.arterial, tmp_path, dialect=dialect)[0]
    told = subprocess.run([program, "-new", path], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dciodvfy_finds_no_error_in_a_t1_series(
    t1: Phantom, tmp_path: Path, dialect: str, require_peer: Callable[[str], Path]
) -> None:
    program = require_peer("/usr/bin/dciodvfy")
    path = write_series(t1, tmp_path, dialect=dialect)[0]
    told = subprocess.run([program, "-new", path], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_the_second_familys_scanner_tells_its_own_protocol(tmp_path: Path) -> None:
    geometry = reduced(usual_geometry("pre-nact-t2wi", 5, 2), 32)
    phantom = draw_phantom("pre-nact-t2wi", 5, family=2, geometry=geometry)
    ds = dcmread(write_series(phantom, tmp_path)[0])
    assert (float(ds.EchoTime), float(ds.MagneticFieldStrength)) == (82, 3)
    assert [float(v) for v in ds.ImageOrientationPatient] != [1, 0, 0, 0, 1, 0]  # an oblique stack


def test_t1_is_not_written_as_one_enhanced_object(t1: Phantom) -> None:
    with pytest.raises(ValueError, match="DWI and T2"):
        SeriesPlan(t1, is_multiframe=True)
