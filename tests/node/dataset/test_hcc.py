"""The manners of TCIA HCC-TACE-Seg: several acquisitions in one series (models.md §6.2, acceptance test 13)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from model.cases import read_case
from model.phantom import Phantom
from tests.segmentations import Series, box, drawn, sources_from, write_images, write_seg

ID = "HCC_042"
SHAPE = (14, 48, 56)
LIVER, PORTAL, AORTA = (
    box(SHAPE, (2, 12), (10, 40), (8, 44)),
    box(SHAPE, (4, 9), (26, 30), (20, 24)),
    box(SHAPE, (2, 12), (42, 45), (26, 29)),
)
MASSES = box(SHAPE, (3, 7), (14, 22), (12, 20)) | box(SHAPE, (8, 10), (30, 33), (34, 38))
PHASES = {"arterial": (90.0, 320.0), "portal-venous": (170.0, 150.0), "non-contrast": (45.0, 42.0)}
"""Portal vein and aorta, HU."""


@pytest.fixture
def write_study(phantom: Phantom, tmp_path: Path) -> Callable[..., list[Series]]:
    """Acquisitions of the given phases in one series, told apart by number, by time, or lying elsewhere."""

    def write(phases: Sequence[str], numbers: Sequence[int], shift_mm: Sequence[float] = ()) -> list[Series]:
        written = []
        for turn, phase in enumerate(phases):
            array_DHW = phantom.image.array_DHW.copy()
            array_DHW[PORTAL], array_DHW[AORTA] = PHASES[phase]
            extra = {
                "SeriesInstanceUID": "2.25.4711",
                "SeriesDescription": "LIVER 3 PHASE (AP)",
                "AcquisitionNumber": numbers[turn],
                "AcquisitionTime": f"1016{10 + 20 * turn}",
                "ContrastBolusStartTime": None,
            }
            series = write_images(
                tmp_path / f"source/ct/{turn}", phantom, patient_id=ID, array_DHW=array_DHW, extra=extra
            )
            for path in series.paths if shift_mm and shift_mm[turn] else ():
                dataset = dcmread(path)
                x, y, z = map(float, dataset.ImagePositionPatient)
                dataset.ImagePositionPatient = [x, y, z + shift_mm[turn]]
                dataset.save_as(path)
            written.append(series)
        return written

    return write


def segments(*more: Any) -> list[Any]:
    return [
        drawn("Liver", LIVER & ~MASSES),
        drawn("Mass", MASSES),
        drawn("Portal vein", PORTAL),
        drawn("Abdominal aorta", AORTA),
        *more,
    ]


def from_several(acquisitions: list[Series]) -> Callable[[Any], None]:
    """Frames name instances of one acquisition and of another in turn, as in the collection."""
    uids = [[image.SOPInstanceUID for image in series.headers] for series in acquisitions]
    turned = {str(uid): str(uids[d % len(uids)][d]) for d, uid in enumerate(uids[0])}
    return lambda dataset: sources_from(dataset, turned)


@pytest.mark.parametrize("numbers", [(3, 4, 5), (1, 1, 1)], ids=["by number", "by time"])
def test_acquisitions_at_the_same_positions_become_images_with_the_same_labels(
    write_study: Callable[..., list[Series]], run_import: Callable[..., Any], tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    written = write_study(("non-contrast", "arterial", "portal-venous"), numbers)
    write_seg(tmp_path / "source/seg/1-1.dcm", written[0], segments(), edit=from_several(written))
    (found,), skipped = run_import(tmp_path / "source")
    case = read_case(found.folder)
    assert not skipped
    assert (case.case, case.collection) == (ID, "HCC-TACE-Seg")
    assert list(case.images) == ["portal-venous", "arterial", "non-contrast"]
    for name, series in zip(("non-contrast", "arterial", "portal-venous"), written, strict=True):
        image = case.images[name]
        assert image.phase == name
        np.testing.assert_array_equal(image.volume.array_DHW, np.rint(series.volume.array_DHW))
        np.testing.assert_array_equal(image.labels["liver"], LIVER)
        np.testing.assert_array_equal(image.labels["portal-vein"], PORTAL)
        np.testing.assert_array_equal(image.labels["lesion"] > 0, MASSES)
        assert image.labels["lesion"].max() == 2


def test_an_arterial_series_alone_is_called_so(
    write_study: Callable[..., list[Series]], run_import: Callable[..., Any], tmp_path: Path
) -> None:
    written = write_study(("arterial",), (1,))
    write_seg(tmp_path / "source/seg/1-1.dcm", written[0], segments())
    (found,), _ = run_import(tmp_path / "source")
    assert list(read_case(found.folder).images) == ["arterial"]
    assert "no portal-venous phase among the acquisitions" in found.remarks
    assert "arterial: portal vein 90 HU, aorta 320 HU" in found.remarks


def test_a_phase_on_other_positions_stays_without_labels(
    write_study: Callable[..., list[Series]], run_import: Callable[..., Any], tmp_path: Path
) -> None:
    written = write_study(("portal-venous", "arterial"), (1, 2), shift_mm=(0.0, 4.0))
    write_seg(tmp_path / "source/seg/1-1.dcm", written[0], segments())
    (found,), _ = run_import(tmp_path / "source")
    images = read_case(found.folder).images
    assert list(images) == ["portal-venous", "acquisition-2"]
    assert "lesion" in images["portal-venous"].labels
    assert not images["acquisition-2"].labels
    assert images["acquisition-2"].phase is None
    assert any(
        "acquisition-2 has no labels: a frame of the segmentation lies 4.00 mm beside" in r for r in found.remarks
    )


def test_an_acquisition_that_holds_too_little_of_the_liver_is_not_labelled(
    write_study: Callable[..., list[Series]], run_import: Callable[..., Any], tmp_path: Path
) -> None:
    written = write_study(("portal-venous", "arterial"), (1, 2))
    for path in written[1].paths[:5]:
        path.unlink()
    write_seg(tmp_path / "source/seg/1-1.dcm", written[0], segments())
    (found,), _ = run_import(tmp_path / "source")
    assert list(read_case(found.folder).images) == ["portal-venous", "acquisition-2"]
    assert any("lie inside the images, 98% are asked for" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("drawn_segments", "reason"),
    [
        (segments(drawn("Necrosis", PORTAL)), "labelled otherwise than the collection describes"),
        (segments()[:2], "no segment is the collection's portal-vein, aorta"),
    ],
)
def test_awkward_cases_are_skipped_with_the_reason(
    write_study: Callable[..., list[Series]],
    run_import: Callable[..., Any],
    tmp_path: Path,
    drawn_segments: list[Any],
    reason: str,
) -> None:
    written = write_study(("portal-venous",), (1,))
    write_seg(tmp_path / "source/seg/1-1.dcm", written[0], drawn_segments)
    imported, (skipped,) = run_import(tmp_path / "source")
    assert not imported
    assert reason in skipped.reason


def test_acquisitions_that_nothing_tells_apart_are_skipped_with_the_reason(
    write_study: Callable[..., list[Series]], run_import: Callable[..., Any], tmp_path: Path
) -> None:
    written = write_study(("portal-venous", "arterial"), (1, 1))
    for path in written[1].paths:
        dataset = dcmread(path)
        dataset.AcquisitionTime = "101610"
        dataset.save_as(path)
    write_seg(tmp_path / "source/seg/1-1.dcm", written[0], segments())
    imported, (skipped,) = run_import(tmp_path / "source")
    assert not imported
    assert "share their position with another" in skipped.reason
