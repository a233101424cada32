"""Public layouts become cases: labels as the collections number them, pictures only with what they do not say."""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from model.cases import CaseProblem, list_cases, read_case
from model.cli import app
from model.import_cases import NotWritten, PictureScale, Written, import_layout
from model.nifti import write_nifti

SHAPE = (5, 12, 14)
SCALE = PictureScale((5.0, 0.8, 0.7), (-160.0, 240.0))


def affine() -> NDArray[np.float64]:
    made = np.diag([0.0, 0.0, 0.0, 1.0])
    made[[2, 1, 0], [0, 1, 2]] = (5.0, 0.8, 0.7)
    made[:3, 3] = (-10.0, -20.0, 30.0)
    return made


def image() -> NDArray[np.int16]:
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) - 300).astype(np.int16)


def organs() -> NDArray[np.uint8]:
    """A liver of 1 with a large and a small lesion of 2."""
    labels_DHW = np.zeros(SHAPE, np.uint8)
    labels_DHW[1:4, 2:10, 2:12] = 1
    labels_DHW[2, 3, 3], labels_DHW[1:3, 6:8, 6:9] = 2, 2
    return labels_DHW


def run(layout: str, source: Path, scale: PictureScale | None = None) -> tuple[list[Written], list[NotWritten]]:
    answers = list(import_layout(layout, source, source.parent / "cases", scale))
    written = [answer for answer in answers if isinstance(answer, Written)]
    return written, [answer for answer in answers if isinstance(answer, NotWritten)]


@pytest.fixture
def lits(tmp_path: Path) -> Path:
    source = tmp_path / "lits"
    (source / "batch 1").mkdir(parents=True)
    write_nifti(source / "batch 1/volume-7.nii", image(), affine())
    write_nifti(source / "batch 1/segmentation-7.nii", organs(), affine())
    return source


def test_lits_becomes_a_case_with_a_whole_liver_and_numbered_lesions(lits: Path) -> None:
    (written,), skipped = run("lits", lits)
    case = read_case(written.folder)
    (shown,) = case.images.values()
    assert not skipped
    assert (case.case, case.collection, case.licence) == ("LITS-007", "LiTS", "CC BY-NC-ND 4.0")
    np.testing.assert_array_equal(shown.volume.array_DHW, image())
    np.testing.assert_allclose(shown.volume.affine_lps_mm, affine(), atol=1e-5)
    np.testing.assert_array_equal(shown.labels["liver"], organs() > 0)
    np.testing.assert_array_equal(shown.labels["lesion"] > 0, organs() == 2)
    assert shown.labels["lesion"][1, 6, 6] == 1
    assert shown.labels["lesion"][2, 3, 3] == 2
    assert written.lesions == 2


def test_msd_pairs_images_and_labels_by_name(tmp_path: Path) -> None:
    source = tmp_path / "Task03_Liver"
    for folder in ("imagesTr", "labelsTr"):
        (source / folder).mkdir(parents=True)
        (source / folder / "._liver_3.nii.gz").write_bytes(b"what macOS leaves")
    for number in (3, 12):
        write_nifti(source / f"imagesTr/liver_{number}.nii.gz", image().astype(np.float32), affine())
    write_nifti(source / "labelsTr/liver_3.nii.gz", organs().astype(np.float32), affine())
    (written,), (skipped,) = run("msd", source)
    assert written.case == "MSD-liver_3"
    assert read_case(written.folder).licence == "CC BY-SA 4.0"
    assert "liver_12.nii.gz: cannot be read" in skipped.reason


@pytest.mark.parametrize(
    ("labels_DHW", "shift_mm", "reason"),
    [
        (organs() + 2, 0.0, "labels are 0, 1 and 2"),
        (organs() * 0.3, 0.0, "labels are 0, 1 and 2"),
        (organs()[:4], 0.0, "is not the image's"),
        (organs(), 0.5, "lies elsewhere than its image"),
    ],
)
def test_labels_that_do_not_belong_to_the_image_are_refused(
    lits: Path, labels_DHW: NDArray[np.floating], shift_mm: float, reason: str
) -> None:
    moved = affine()
    moved[0, 3] += shift_mm
    write_nifti(lits / "batch 1/segmentation-7.nii", labels_DHW, moved)
    written, (skipped,) = run("lits", lits)
    assert not written
    assert reason in skipped.reason


def as_npy(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def as_png(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two phases of one patient: float arrays by the name of pictures, masks of 0/255 and of 0/1."""
    source = tmp_path / "pictures"
    for phase, offset in (("pv", 0), ("art", 50)):
        for d in range(SHAPE[0]):
            name = f"{phase}/pat ient/{d + 8}.png"  # 10.png comes after 9.png
            put(source / "train_img" / name, as_npy(image()[d] + np.float32(offset)))
            put(source / "liver_mask" / name, as_png((organs()[d] > 0).astype(np.uint8) * 255))
            put(source / "tumor_mask" / name, as_npy((organs()[d] == 2).astype(np.uint8)))
    return source


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_pictures_of_two_phases_become_one_case(pictures: Path) -> None:
    (written,), skipped = run("png", pictures, SCALE)
    case = read_case(written.folder)
    assert not skipped
    assert case.case == "PNG-pat-ient"
    assert {name: shown.phase for name, shown in case.images.items()} == {
        "portal-venous": "portal-venous",
        "arterial": "arterial",
    }
    np.testing.assert_array_equal(case.images["portal-venous"].volume.array_DHW, image())
    np.testing.assert_array_equal(case.images["arterial"].volume.array_DHW, image() + 50)
    for shown in case.images.values():
        assert shown.volume.spacing_mm == pytest.approx(SCALE.spacing_mm)
        np.testing.assert_array_equal(shown.labels["liver"], organs() > 0)
        np.testing.assert_array_equal(shown.labels["lesion"] > 0, organs() == 2)


def test_grey_levels_are_hu_by_the_window_that_is_named(pictures: Path) -> None:
    grey = np.tile(np.linspace(0, 255, SHAPE[2]).astype(np.uint8), (SHAPE[1], 1))
    for path in (pictures / "train_img").rglob("*.png"):
        path.write_bytes(as_png(grey))
    (written,), _ = run("png", pictures, SCALE)
    array_DHW = read_case(written.folder).images["portal-venous"].volume.array_DHW
    assert array_DHW[0, 0, [0, -1]].tolist() == [-160.0, 240.0]
    _, (skipped,) = run("png", pictures, PictureScale(SCALE.spacing_mm))
    assert "grey levels of 8 bits are no HU; name by --window" in skipped.reason


class Loud:
    """Would say so if it were loaded."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps(Loud()), "a pickle, which is never read"),
        (as_npy(np.array([Loud()], dtype=object)), "no plain array of numbers"),
        (b"GIF89a", "neither a PNG nor a NumPy array"),
        (as_npy(np.zeros((3, *SHAPE[1:]))), "one plane of numbers is needed"),
        (as_png(np.zeros(SHAPE[1:], np.uint8))[:-30], "damaged|cannot be read"),
        (as_npy(np.zeros((4, 4))), "slices and masks differ in size"),
    ],
)
def test_what_is_no_slice_is_refused_and_no_pickle_is_loaded(pictures: Path, content: bytes, reason: str) -> None:
    (pictures / "train_img/pv/pat ient/9.png").write_bytes(content)
    written, (skipped,) = run("png", pictures, SCALE)
    assert not written
    assert re.search(reason, skipped.reason)


def test_pictures_without_their_spacing_are_not_guessed_at(pictures: Path) -> None:
    with pytest.raises(CaseProblem, match="name it by --spacing-mm SLICE ROW COLUMN"):
        run("png", pictures)


def test_a_folder_that_is_laid_out_otherwise_is_told(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for layout in ("lits", "msd", "png"):
        with pytest.raises(CaseProblem, match=f"nothing is laid out there as {layout} is"):
            run(layout, tmp_path / "source", SCALE)


def test_the_command_writes_cases_and_tells_what_it_skipped(lits: Path, tmp_path: Path) -> None:
    write_nifti(lits / "batch 1/volume-8.nii", image(), affine())
    told = CliRunner().invoke(app, ["import", "lits", str(lits), "--out", str(tmp_path / "out")])
    assert told.exit_code == 0, told.output
    assert "lesions in all: 2; 1 skipped" in told.output.replace("\n", "")
    assert "segmentation-8.nii: cannot be read" in told.output.replace("\n", "")
    assert [ref.case for ref in list_cases(tmp_path / "out")] == ["LITS-007"]


def test_the_command_fails_where_nothing_was_written(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["import", "msd", str(tmp_path), "--out", str(tmp_path / "out")])
    assert told.exit_code == 1
    assert "nothing is laid out there as msd is" in told.output.replace("\n", "")


def test_the_command_takes_spacing_and_window_of_pictures(pictures: Path, tmp_path: Path) -> None:
    words = ["import", "png", str(pictures), "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, [*words, "--spacing-mm", "5", "0.8", "0.7", "--window", "-160", "240"])
    assert told.exit_code == 0, told.output
    (ref,) = list_cases(tmp_path / "out")
    assert ref.read_image("arterial", []).volume.spacing_mm == pytest.approx((5.0, 0.8, 0.7))
    assert "name it by --spacing-mm" in " ".join(CliRunner().invoke(app, words).output.split())
