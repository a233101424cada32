"""What the phantom scanner writes is what real ones write: tags, geometry, pixels, truth."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.phantom import GEOMETRIES, Phantom, make_phantom
from simulator.directions import ORTHOGONAL
from simulator.modality import DIALECTS, ORDERS, TWINS, SeriesPlan, read_truth, study_of, write_series, write_study

PhantomOf = Callable[[str], Phantom]
MR_DIALECTS = tuple(DIALECTS)
CT_DIALECTS = tuple(name for name, dialect in DIALECTS.items() if dialect.write_ct)
WRITTEN = [("pre-nact-dwi", d) for d in MR_DIALECTS] + [("ct-portal-venous", d) for d in CT_DIALECTS]
WRITTEN += [("pre-nact-t2wi", d) for d in MR_DIALECTS]


def read(paths: list[Path]) -> list[Dataset]:
    return [dcmread(path) for path in paths]


def of_b1000(datasets: list[Dataset], folder: Path) -> list[Dataset]:
    """The instances of the network's volume, in the truth's order."""
    by_uid = {str(ds.SOPInstanceUID): ds for ds in datasets}
    return [by_uid[uid] for uid in read_truth(folder).sop_instance_uids]


def values(ds: Dataset) -> np.ndarray:
    return ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))


@pytest.mark.parametrize(("condition", "dialect"), WRITTEN)
def test_values_and_places_survive_every_dialect(
    phantom_of: PhantomOf, tmp_path: Path, condition: str, dialect: str
) -> None:
    phantom = phantom_of(condition)
    datasets = of_b1000(read(write_series(phantom, tmp_path, dialect=dialect, order="shuffled")), tmp_path)
    for index, ds in enumerate(datasets):
        told, true = values(ds), phantom.image.array_DHW[index]
        inside = told > -1500  # GE paints −2000 outside the reconstruction circle of a CT
        if not ds.PixelRepresentation:
            true = np.maximum(true, float(ds.get("RescaleIntercept", 0)))
        assert np.abs(told - true)[inside].max() <= 0.51 * float(ds.get("RescaleSlope", 1))
        corner = phantom.image.affine_lps_mm @ [index, 0, 0, 1]
        np.testing.assert_allclose(np.array(ds.ImagePositionPatient, float), corner[:3], atol=1e-6)


@pytest.mark.parametrize(
    ("dialect", "where"),
    [
        ("siemens", lambda ds: ds[0x0019, 0x100C].value),
        ("ge", lambda ds: ds[0x0043, 0x1039].value[0] % 1_000_000_000),
        ("philips", lambda ds: ds[0x2001, 0x1003].value),
        ("canon", lambda ds: ds.get("DiffusionBValue", 0)),
        ("uih", lambda ds: ds[0x0065, 0x100A].value),
    ],
)
def test_b_values_stand_where_the_vendor_puts_them(
    phantom_of: PhantomOf, tmp_path: Path, dialect: str, where: Callable[[Dataset], float]
) -> None:
    phantom = phantom_of("pre-nact-dwi")
    datasets = read(write_series(phantom, tmp_path, dialect=dialect))
    assert len({ds.SeriesInstanceUID for ds in datasets}) == 1  # every b-value in one series
    assert sorted({float(where(ds)) for ds in datasets}) == [0, 50, 1000]
    assert {float(where(ds)) for ds in of_b1000(datasets, tmp_path)} == {1000.0}


def test_ge_adds_a_thousand_million_and_omits_b_zero(phantom_of: PhantomOf, tmp_path: Path) -> None:
    by_b = {ds[0x0043, 0x1039].value[0]: ds for ds in read(write_series(phantom_of("pre-nact-dwi"), tmp_path))}
    assert set(by_b) == {0, 1_000_000_050, 1_000_001_000}
    assert "DiffusionBValue" not in by_b[0]
    assert by_b[1_000_001_000][0x0043, 0x0010].value == "GEMS_PARM_01"


def test_siemens_calls_the_trace_a_trace(phantom_of: PhantomOf, tmp_path: Path) -> None:
    datasets = read(write_series(phantom_of("pre-nact-dwi"), tmp_path, dialect="siemens"))
    assert {ds.SequenceName for ds in datasets} == {"*ep_b0", "*ep_b50t", "*ep_b1000t"}
    assert all(("TRACEW" in ds.ImageType) == (ds.SequenceName != "*ep_b0") for ds in datasets)
    assert all("DiffusionBValue" not in ds for ds in datasets)


def test_philips_scales_each_volume_to_its_own_maximum(phantom_of: PhantomOf, tmp_path: Path) -> None:
    datasets = read(write_series(phantom_of("pre-nact-dwi"), tmp_path, dialect="philips"))
    assert len({ds.RescaleSlope for ds in datasets}) == 3


@pytest.mark.parametrize("dialect", MR_DIALECTS)
def test_fat_suppression_is_told(phantom_of: PhantomOf, tmp_path: Path, dialect: str) -> None:
    ds = read(write_series(phantom_of("pre-nact-t2wi"), tmp_path, dialect=dialect))[0]
    assert "FS" in ds.ScanOptions
    assert float(ds.EchoTime) == 70
    assert ds.ScanningSequence == "SE"


def test_portal_venous_timing_is_seventy_seconds(phantom_of: PhantomOf, tmp_path: Path) -> None:
    ds = read(write_series(phantom_of("ct-portal-venous"), tmp_path, dialect="siemens"))[0]
    assert float(ds.AcquisitionTime) // 1 == 101530
    assert float(ds.ContrastBolusStartTime) == 101420
    assert ds.ContrastBolusAgent


@pytest.mark.parametrize(("condition", "dialect"), WRITTEN)
def test_dciodvfy_finds_no_error(
    phantom_of: PhantomOf, tmp_path: Path, condition: str, dialect: str, require_peer: Callable[[str], Path]
) -> None:
    program = require_peer("/usr/bin/dciodvfy")
    paths = write_series(phantom_of(condition), tmp_path, dialect=dialect)
    for path in (paths[0], paths[-1]):
        told = subprocess.run([program, "-new", path], capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr
        assert "Error" not in told.stderr


@pytest.mark.parametrize("condition", ["pre-nact-dwi", "pre-nact-t2wi"])
@pytest.mark.parametrize("dialect", ["siemens", "philips"])
def test_an_enhanced_object_passes_dciodvfy_and_keeps_all_frames(
    phantom_of: PhantomOf, tmp_path: Path, condition: str, dialect: str, require_peer: Callable[[str], Path]
) -> None:
    program = require_peer("/usr/bin/dciodvfy")
    phantom = phantom_of(condition)
    (path,) = write_series(phantom, tmp_path, dialect=dialect, is_multiframe=True)
    told = subprocess.run([program, "-new", path], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    ds = dcmread(path)
    assert ds.NumberOfFrames == phantom.geometry.slices * len(phantom.volumes)
    last = ds.PerFrameFunctionalGroupsSequence[-1]
    scale = last.PixelValueTransformationSequence[0]
    shown = ds.pixel_array[-1] * float(scale.RescaleSlope) + float(scale.RescaleIntercept)
    np.testing.assert_allclose(shown, phantom.image.array_DHW[-1], atol=0.51 * float(scale.RescaleSlope))
    if condition.endswith("dwi"):
        assert last.MRDiffusionSequence[0].DiffusionBValue == 1000


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("upwards", [True, False])
def test_the_order_is_that_of_instance_numbers_in_space(tmp_path: Path, order: str, upwards: bool) -> None:
    geometry = replace(GEOMETRIES["ct-portal-venous"].resampled(48, 48), upwards=upwards, slices=12)
    phantom = make_phantom("ct-portal-venous", 5, geometry=geometry)
    datasets = read(write_series(phantom, tmp_path, order=order))
    assert [ds.InstanceNumber for ds in datasets] == list(range(1, 13))
    heights = [float(ds.ImagePositionPatient[2]) for ds in datasets]
    expected = {"ascending": sorted(heights), "descending": sorted(heights, reverse=True)}
    assert heights == expected[order] if order in expected else heights not in expected.values()


def test_an_oblique_stack_has_orthonormal_axes_and_even_steps(tmp_path: Path) -> None:
    geometry = replace(GEOMETRIES["pre-nact-t2wi"].resampled(48, 48), tilt_deg=(14.0, -9.0, 4.0))
    phantom = make_phantom("pre-nact-t2wi", 5, geometry=geometry)
    datasets = read(write_series(phantom, tmp_path))
    orientation = np.array(datasets[0].ImageOrientationPatient, float).reshape(2, 3)
    np.testing.assert_allclose(orientation @ orientation.T, np.eye(2), atol=1e-6)
    assert abs(orientation[0, 1]) > 0.01
    steps = np.diff([np.array(ds.ImagePositionPatient, float) for ds in datasets], axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 7.0, atol=1e-4)
    np.testing.assert_allclose(steps @ orientation.T, 0, atol=1e-4)


def test_truth_is_readable_and_names_the_instances_slice_by_slice(phantom_of: PhantomOf, tmp_path: Path) -> None:
    phantom = phantom_of("pre-nact-dwi")
    datasets = {ds.SOPInstanceUID: ds for ds in read(write_series(phantom, tmp_path, order="shuffled"))}
    truth = read_truth(tmp_path)
    assert truth.lesions == phantom.lesions
    assert len(truth.sop_instance_uids) == len(truth.labels_DHW) == phantom.geometry.slices
    for lesion in truth.lesions:
        index = round(float(np.argwhere(truth.labels_DHW == lesion.number)[:, 0].mean()))
        height = float(datasets[truth.sop_instance_uids[index]].ImagePositionPatient[2])
        assert abs(height - lesion.center_lps_mm[2]) <= 13.0
    assert json.loads((tmp_path / "truth.json").read_text())["what"].startswith("a synthetic phantom")


def test_written_twice_the_files_are_the_same(phantom_of: PhantomOf, tmp_path: Path) -> None:
    phantom = phantom_of("ct-portal-venous")
    first, second = (write_series(phantom, tmp_path / name, dialect="canon") for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_another_content_never_has_the_same_uid(phantom_of: PhantomOf, tmp_path: Path) -> None:
    phantom = phantom_of("pre-nact-t2wi")
    variants: list[dict[str, Any]] = [{}, {"dialect": "uih"}, {"order": "descending"}, {"twin": "mrcp"}]
    variants += [
        {"series_number": 9},
        {"extra": {"BodyPartExamined": "LIVER"}},
        {"extra": {"BodyPartExamined": "HEAD"}},
    ]
    uids = [
        str(dcmread(write_series(phantom, tmp_path / str(n), **variant)[0]).SOPInstanceUID)
        for n, variant in enumerate(variants)
    ]
    assert len(set(uids)) == len(variants)


@pytest.mark.parametrize("twin", TWINS)
def test_each_twin_differs_in_what_its_name_says(phantom_of: PhantomOf, tmp_path: Path, twin: str) -> None:
    condition = {"dwi": "pre-nact-dwi", "t2": "pre-nact-t2wi", "ct": "ct-portal-venous"}.get(TWINS[twin][0])
    ds = read(write_series(phantom_of(condition or "pre-nact-t2wi"), tmp_path, dialect="ge", twin=twin))[0]
    told: dict[str, Callable[[], bool]] = {
        "adc": lambda: ds.ImageType[-1] == "ADC",
        "computed-b1500": lambda: ds.DiffusionBValue == 1500 and "CALC_BVAL" in ds.SeriesDescription,
        "functional": lambda: "GR" in ds.ScanningSequence and "DiffusionBValue" not in ds,
        "localizer": lambda: ds.ImageType[2] == "LOCALIZER",
        "screenshot": lambda: ds.BurnedInAnnotation == "YES",
        "mip": lambda: "MIP" in ds.ImageType,
        "colour": lambda: len(ds.PixelData) == ds.Rows * ds.Columns * 3 + (ds.Rows * ds.Columns * 3) % 2,
        "arterial": lambda: "arterial" in ds.SeriesDescription,
        "delayed": lambda: "delayed" in ds.SeriesDescription,
        "t2-no-fatsat": lambda: "FS" not in ds.ScanOptions and ds[0x0019, 0x10A4].value == 0,
        "mrcp": lambda: float(ds.EchoTime) > 400,
        "in-phase-gre": lambda: ds.ScanningSequence == "GR",
    }
    assert told[twin]()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dialect": "toshiba"}, "unknown dialect"),
        ({"order": "random"}, "unknown order"),
        ({"twin": "arterial"}, "is one of ct"),
        ({"twin": "eadc"}, "unknown twin"),
        ({"directions": ORTHOGONAL}, "diffusion-weighted"),
    ],
)
def test_a_plan_that_is_none_is_refused(
    phantom_of: PhantomOf, tmp_path: Path, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_series(phantom_of("pre-nact-t2wi"), tmp_path, **keywords)


@pytest.mark.parametrize("dialect", MR_DIALECTS)
def test_directions_of_a_b_value_have_the_trace_as_their_geometric_mean(
    phantom_of: PhantomOf, tmp_path: Path, dialect: str
) -> None:
    phantom = phantom_of("pre-nact-dwi")
    datasets = read(write_series(phantom, tmp_path, dialect=dialect, directions=ORTHOGONAL))
    slices, first = phantom.geometry.slices, of_b1000(datasets, tmp_path)[0]
    assert len(datasets) == slices * (1 + 3 * 2)
    same_place = [ds for ds in datasets[-3 * slices :] if ds.ImagePositionPatient == first.ImagePositionPatient]
    mean_HW = np.exp(np.mean([np.log(np.maximum(values(ds), 1e-3)) for ds in same_place], axis=0))
    bright_HW = phantom.image.array_DHW[0] > 50  # where rounding to whole numbers is a small part
    np.testing.assert_allclose(mean_HW[bright_HW], phantom.image.array_DHW[0][bright_HW], rtol=0.02)


@pytest.mark.parametrize("dialect", MR_DIALECTS)
@pytest.mark.parametrize("is_multiframe", [False, True])
def test_dciodvfy_finds_no_error_in_a_direction(
    phantom_of: PhantomOf, tmp_path: Path, dialect: str, is_multiframe: bool, require_peer: Callable[[str], Path]
) -> None:
    plan = {"dialect": dialect, "directions": ORTHOGONAL, "is_multiframe": is_multiframe}
    path = write_series(phantom_of("pre-nact-dwi"), tmp_path, **plan)[-1]
    program = require_peer("/usr/bin/dciodvfy")
    told = subprocess.run([program, "-new", path], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_uih_makes_no_ct_here(phantom_of: PhantomOf) -> None:
    with pytest.raises(ValueError, match="MR scanners only"):
        SeriesPlan(phantom_of("ct-portal-venous"), dialect="uih")


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (("", "ISO 2022 IR 87"), "PHANTOM^CRLM=肝臓^幻影"),
        (("", "ISO 2022 IR 149"), "PHANTOM^CRLM=간^팬텀"),
        ("ISO_IR 100", "PHANTÖM^LÉBER"),
    ],
)
def test_names_survive_their_character_set(
    phantom_of: PhantomOf, tmp_path: Path, character_set: str | tuple[str, ...], name: str
) -> None:
    study = study_of("pre-nact-t2wi", 5).with_(patient_name=name, character_set=character_set)
    extra = {"SeriesDescription": "T2 fs"}
    ds = dcmread(write_series(phantom_of("pre-nact-t2wi"), tmp_path, study=study, extra=extra)[0])
    assert str(ds.PatientName) == name


def test_a_study_of_several_series_has_one_study_uid(phantom_of: PhantomOf, tmp_path: Path) -> None:
    plans = [
        SeriesPlan(phantom_of("pre-nact-dwi"), dialect="siemens", series_number=4),
        SeriesPlan(phantom_of("pre-nact-t2wi"), dialect="siemens", series_number=5),
        SeriesPlan(phantom_of("pre-nact-dwi"), dialect="siemens", series_number=6, twin="adc"),
    ]
    datasets = read(write_study(plans, tmp_path))
    assert len({ds.StudyInstanceUID for ds in datasets}) == len({ds.PatientID for ds in datasets}) == 1
    assert {ds.SeriesNumber for ds in datasets} == {4, 5, 6}
    assert read_truth(tmp_path / "2").condition == "pre-nact-t2wi"
