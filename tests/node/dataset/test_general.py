"""Segmentations of any site and any writer: whose word counts, which volume is meant, and what is kept to oneself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from model.cases import read_case
from model.phantom import Phantom
from node.dataset_pseudonyms import Pseudonyms
from tests.segmentations import Series, box, drawn, small_phantom, write_images, write_seg

SHAPE = (14, 48, 56)
ONE, TWO = box(SHAPE, (4, 6), (12, 17), (10, 16)), box(SHAPE, (7, 9), (30, 34), (30, 35))
LIVER = box(SHAPE, (3, 11), (10, 40), (8, 44))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def ct(phantom: Phantom, source: Path) -> Series:
    return write_images(source / "ct", phantom)


def later(seconds: int) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        dataset.ContentDate, dataset.ContentTime = "20260401", f"12{seconds:04}"

    return edit


def copy_files(paths: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in paths:
        (folder / path.name).write_bytes(path.read_bytes())


def lesions_of(found: Any, image: str = "portal-venous") -> np.ndarray:
    labels: np.ndarray = read_case(found.folder).images[image].labels["lesion"]
    return labels


def test_segments_are_known_by_code_where_their_labels_say_nothing(
    ct: Series, source: Path, run_import: Callable[..., Any]
) -> None:
    segments = [
        drawn("Segment_1", LIVER, codes.SCT.Liver, by="MANUAL"),
        drawn("Segment_2", ONE, codes.SCT.Neoplasm, by="MANUAL"),
        drawn("Segment_3", TWO, codes.SCT.Kidney, by="MANUAL"),
    ]
    write_seg(source / "seg.dcm", ct, segments)
    (found,), _ = run_import(source)
    labels = read_case(found.folder).images["portal-venous"].labels
    assert set(labels) == {"liver", "lesion"}
    np.testing.assert_array_equal(labels["lesion"], ONE)
    assert "1 segments of other structures were left out" in found.remarks


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_every_kind_of_segmentation_gives_the_same_case(
    ct: Series, source: Path, run_import: Callable[..., Any], kind: str
) -> None:
    write_seg(source / "seg.dcm", ct, [drawn("Lesion 1", ONE), drawn("Lesion 2", TWO)], kind=kind)
    (found,), _ = run_import(source)
    np.testing.assert_array_equal(lesions_of(found), ONE * 1 + TWO * 2)


def test_a_single_segment_of_several_pieces_is_several_lesions(
    ct: Series, source: Path, run_import: Callable[..., Any]
) -> None:
    write_seg(source / "seg.dcm", ct, [drawn("tumour", ONE | TWO)])
    (found,), _ = run_import(source)
    np.testing.assert_array_equal(lesions_of(found), ONE * 1 + TWO * 2)
    assert found.lesions == 2


def test_what_an_algorithm_made_and_nobody_corrected_is_no_truth(
    ct: Series, source: Path, run_import: Callable[..., Any]
) -> None:
    write_seg(source / "seg.dcm", ct, [drawn("Lesion 1", ONE, by="AUTOMATIC")])
    imported, (skipped,) = run_import(source)
    assert not imported
    assert "--automatic takes it" in skipped.reason
    (found,), _ = run_import(source, takes_automatic=True)
    np.testing.assert_array_equal(lesions_of(found), ONE)


def test_what_a_radiologist_corrected_goes_before_what_was_corrected(
    ct: Series, source: Path, run_import: Callable[..., Any]
) -> None:
    write_seg(source / "corrected.dcm", ct, [drawn("Lesion 1", TWO, codes.SCT.Lesion)], edit=later(1))
    write_seg(source / "ours.dcm", ct, [drawn("Lesion 1", ONE, codes.SCT.Lesion, by="AUTOMATIC")], edit=later(2))
    (found,), _ = run_import(source, takes_automatic=True)
    np.testing.assert_array_equal(lesions_of(found), TWO)
    assert "1 of 2 segmentations of the series were used" in found.remarks


def test_what_a_person_left_as_it_was_beside_a_correction_counts_as_seen(
    ct: Series, source: Path, run_import: Callable[..., Any]
) -> None:
    seen = [drawn("Lesion 1", ONE, by="AUTOMATIC"), drawn("Lesion 2", TWO, by="MANUAL")]
    write_seg(source / "seg.dcm", ct, seen)
    (found,), _ = run_import(source)
    np.testing.assert_array_equal(lesions_of(found), ONE * 1 + TWO * 2)


def test_of_two_drawings_the_later_counts(ct: Series, source: Path, run_import: Callable[..., Any]) -> None:
    write_seg(source / "a.dcm", ct, [drawn("Lesion 1", TWO)], edit=later(9))
    write_seg(source / "b.dcm", ct, [drawn("Lesion 1", ONE)], edit=later(1))
    (found,), _ = run_import(source)
    np.testing.assert_array_equal(lesions_of(found), TWO)


def test_liver_and_lesions_may_come_from_two_segmentations(
    ct: Series, source: Path, run_import: Callable[..., Any]
) -> None:
    write_seg(source / "a.dcm", ct, [drawn("Liver", LIVER)])
    write_seg(source / "b.dcm", ct, [drawn("Lesion 1", ONE)])
    (found,), _ = run_import(source)
    assert set(read_case(found.folder).images["portal-venous"].labels) == {"liver", "lesion"}


def test_a_lesion_of_another_organ_is_none(ct: Series, source: Path, run_import: Callable[..., Any]) -> None:
    segments = [drawn("Tumor 1", ONE, region=codes.SCT.Spleen), drawn("Tumor 2", TWO, region=codes.SCT.Liver)]
    write_seg(source / "seg.dcm", ct, segments)
    (found,), _ = run_import(source)
    np.testing.assert_array_equal(lesions_of(found), TWO)


def test_a_t2_series_becomes_a_case_with_its_time_point(source: Path, run_import: Callable[..., Any]) -> None:
    series = write_images(source / "t2", small_phantom(condition="pre-nact-t2wi"))
    write_seg(source / "seg.dcm", series, [drawn("Lesion 1", ONE)])
    (found,), _ = run_import(source, time_point="pre")
    image = read_case(found.folder).images["t2"]
    assert (image.modality, image.weighting, image.phase, image.time_point) == ("MR", "t2", None, "pre")
    np.testing.assert_array_equal(image.labels["lesion"], ONE)


def test_of_several_b_values_the_one_that_was_drawn_on_is_taken(source: Path, run_import: Callable[..., Any]) -> None:
    series = write_images(source / "dwi", small_phantom(condition="pre-nact-dwi"))
    write_seg(source / "seg.dcm", series, [drawn("Lesion 1", ONE)])
    (found,), _ = run_import(source)
    (image,) = read_case(found.folder).images.values()
    scale = np.abs(series.volume.array_DHW).max()
    assert list(found.images) == ["dwi-trace-b1000"]
    assert (image.weighting, image.b_value_s_mm2) == ("dwi-trace", 1000.0)
    np.testing.assert_allclose(image.volume.array_DHW, series.volume.array_DHW, atol=scale / 1000)
    assert "2 other volumes of the series were not segmented and are left out" in found.remarks


def test_a_segmentation_that_names_no_b_value_is_not_guessed_at(source: Path, run_import: Callable[..., Any]) -> None:
    def forget(dataset: Dataset) -> None:
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            del groups.DerivationImageSequence

    series = write_images(source / "dwi", small_phantom(condition="pre-nact-dwi"))
    write_seg(source / "seg.dcm", series, [drawn("Lesion 1", ONE)], edit=forget)
    imported, (skipped,) = run_import(source)
    assert not imported
    assert "does not say which of the 3 volumes" in skipped.reason


def test_segmented_series_of_one_study_are_images_of_one_case(
    phantom: Phantom, source: Path, run_import: Callable[..., Any]
) -> None:
    portal = write_images(source / "pv", phantom, extra={"SeriesDescription": "Abdomen PV"})
    arterial = write_images(
        source / "art",
        phantom,
        series_number=4,
        extra={"SeriesDescription": "Abdomen ART", "ContrastBolusStartTime": None},
    )
    write_seg(source / "seg-pv.dcm", portal, [drawn("Lesion 1", ONE)])
    write_seg(source / "seg-art.dcm", arterial, [drawn("Lesion 1", TWO)])
    (found,), skipped = run_import(source)
    assert not skipped
    assert set(found.images) == {"portal-venous", "arterial"}
    np.testing.assert_array_equal(lesions_of(found, "arterial"), TWO)


def test_a_case_tells_nothing_of_who_and_when(ct: Series, source: Path, run_import: Callable[..., Any]) -> None:
    write_seg(source / "seg.dcm", ct, [drawn("Lesion 1 seen by Dr Roe", ONE)])
    (found,), _ = run_import(source)
    header = ct.headers[0]
    told = (found.folder / "case.json").read_text() + " ".join(path.name for path in found.folder.rglob("*"))
    secrets = [
        *(str(header[keyword].value) for keyword in ("PatientID", "PatientBirthDate", "StudyDate", "AccessionNumber")),
        *(str(header[keyword].value) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")),
        *("PHANTOM", "Roe", "HOSPITAL", str(source)),
    ]
    assert [secret for secret in secrets if secret in told] == []


def test_a_pseudonym_is_the_same_with_the_same_key_and_another_with_another(
    ct: Series, source: Path, run_import: Callable[..., Any], tmp_path: Path
) -> None:
    write_seg(source / "seg.dcm", ct, [drawn("Lesion 1", ONE)])
    names = [
        run_import(source, pseudonyms=Pseudonyms(tmp_path / key))[0][0].case
        for key in ("one-key", "one-key", "another-key")
    ]
    assert names[0] == names[1] != names[2]
    assert (tmp_path / "one-key").stat().st_mode & 0o777 == 0o600
    plain = run_import(source, pseudonyms=Pseudonyms(None))[0][0]
    assert read_case(plain.folder).patient == "SITE-0815"


def test_images_that_were_taken_back_give_no_case(ct: Series, source: Path, run_import: Callable[..., Any]) -> None:
    write_seg(source / "seg.dcm", ct, [drawn("Lesion 1", ONE)])
    image = ct.headers[5]
    note = Dataset()
    note.file_meta = image.file_meta
    note.SOPClassUID, note.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.59", generate_uid()
    note.file_meta.MediaStorageSOPClassUID = note.SOPClassUID
    note.StudyInstanceUID, note.SeriesInstanceUID, note.Modality = image.StudyInstanceUID, generate_uid(), "KO"
    title, listed, series, study = Dataset(), Dataset(), Dataset(), Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "113001", "DCM", "Rejected for Quality Reasons"
    listed.ReferencedSOPInstanceUID, listed.ReferencedSOPClassUID = image.SOPInstanceUID, image.SOPClassUID
    series.ReferencedSOPSequence, study.ReferencedSeriesSequence = [listed], [series]
    note.ConceptNameCodeSequence, note.CurrentRequestedProcedureEvidenceSequence = [title], [study]
    note.save_as(source / "note.dcm", enforce_file_format=True)
    imported, (skipped,) = run_import(source)
    assert not imported
    assert "rejected for quality reasons" in skipped.reason


def test_what_gives_no_case_is_told_and_stops_nothing(
    ct: Series, phantom: Phantom, source: Path, run_import: Callable[..., Any], tmp_path: Path
) -> None:
    absent = write_images(tmp_path / "elsewhere", small_phantom(seed=8))
    write_seg(source / "absent.dcm", absent, [drawn("Lesion 1", ONE)])
    write_seg(source / "seg.dcm", ct, [drawn("Lesion 1", ONE)])
    (source / "noise.dcm").write_bytes(b"no DICOM at all")
    (found,), skipped = run_import(source)
    assert found.lesions == 1
    assert {Path(item.source).name: item.reason for item in skipped} == {
        "noise.dcm": "noise.dcm: no DICOM instance, it lacks "
        "SOPClassUID, SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID",
        "absent.dcm": "the images that it refers to are not among the sources",
    }


def test_a_series_that_is_no_volume_is_skipped_with_the_readers_reason(
    ct: Series, source: Path, run_import: Callable[..., Any]
) -> None:
    write_seg(source / "seg.dcm", ct, [drawn("Lesion 1", ONE)])
    ct.paths[6].unlink()
    imported, (skipped,) = run_import(source)
    assert not imported
    assert "a gap of 20.00 mm" in skipped.reason


def test_copies_of_the_same_files_in_two_folders_count_once(
    ct: Series, source: Path, run_import: Callable[..., Any]
) -> None:
    write_seg(source / "seg.dcm", ct, [drawn("Lesion 1", ONE)])
    copy_files(ct.paths, source / "copy")
    (found,), skipped = run_import(source)
    assert not skipped
    assert read_case(found.folder).images["portal-venous"].volume.array_DHW.shape == SHAPE


@pytest.mark.parametrize(
    ("patterns", "truth"),
    [
        (("dcmqi-liver/0?.dcm", "dcmqi-liver/liver.dcm"), "dcmqi-liver/liver_seg.nrrd"),
        (("dcmqi-phantoms/image__*", "dcmqi-phantoms/seg__label.seg"), "dcmqi-phantoms/nrrd__label.nrrd"),
    ],
)
def test_a_liver_of_another_writer_lies_where_its_writers_own_tools_say(
    shared_data: Path, run_import: Callable[..., Any], source: Path, patterns: tuple[str, ...], truth: str
) -> None:
    told = SimpleITK.ReadImage(shared_data / "seg-sr" / truth)
    copy_files((path for pattern in patterns for path in (shared_data / "seg-sr").glob(pattern)), source)
    imported, _ = run_import(source)
    images = [image for found in imported for image in read_case(found.folder).images.values()]
    shape = tuple(reversed(told.GetSize()))
    (image,) = [item for item in images if item.volume.array_DHW.shape == shape]
    for d, h, w in np.argwhere(image.labels["liver"]):
        xyz = (image.volume.affine_lps_mm @ (d, h, w, 1))[:3]
        assert told[told.TransformPhysicalPointToIndex(xyz.tolist())] > 0
    assert int(image.labels["liver"].sum()) == int((SimpleITK.GetArrayFromImage(told) > 0).sum())


def test_a_label_map_of_another_writer_becomes_a_case(
    shared_data: Path, run_import: Callable[..., Any], source: Path
) -> None:
    folder = shared_data / "seg-sr/dcmqi-phantoms"
    copy_files([*sorted(folder.glob("image__*")), folder / "sparse-labelmap-ppv5.dcm"], source)
    (found,), skipped = run_import(source)
    assert not skipped
    labels = read_case(found.folder).images["ct"].labels
    frames = dcmread(source / "sparse-labelmap-ppv5.dcm").pixel_array
    assert int(labels["liver"].sum()) == int((frames == 1).sum()) == 630


def test_a_damaged_segmentation_beside_a_sound_one_is_told(
    ct: Series, source: Path, run_import: Callable[..., Any]
) -> None:
    def damage(dataset: Dataset) -> None:
        del dataset.SegmentSequence[0].SegmentNumber

    write_seg(source / "damaged.dcm", ct, [drawn("Lesion 1", TWO)], edit=damage)
    write_seg(source / "sound.dcm", ct, [drawn("Lesion 1", ONE)])
    (found,), (skipped,) = run_import(source)
    np.testing.assert_array_equal(lesions_of(found), ONE)
    assert Path(skipped.source).name == "damaged.dcm"


def test_a_segmentation_that_refers_to_no_series_is_known_by_the_instances_it_names(
    ct: Series, source: Path, run_import: Callable[..., Any]
) -> None:
    def forget(dataset: Dataset) -> None:
        del dataset.ReferencedSeriesSequence

    write_seg(source / "seg.dcm", ct, [drawn("Lesion 1", ONE)], edit=forget)
    (found,), _ = run_import(source)
    np.testing.assert_array_equal(lesions_of(found), ONE)


AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def test_a_segmentation_of_the_mean_of_directions_gets_that_mean(source: Path, run_import: Callable[..., Any]) -> None:
    series = write_images(source / "dwi", small_phantom(condition="pre-nact-dwi"), directions=AXES)
    at_place: dict[tuple[float, ...], list[Dataset]] = {}
    for path in sorted((source / "dwi").glob("*.dcm")):
        image = dcmread(path)
        if image[0x0019, 0x100C].value == 1000:
            at_place.setdefault(tuple(image.ImagePositionPatient), []).append(image)

    def name_all(dataset: Dataset) -> None:
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            (derivation,) = groups.DerivationImageSequence
            first = derivation.SourceImageSequence[0]
            images = at_place[tuple(groups.PlanePositionSequence[0].ImagePositionPatient)]
            derivation.SourceImageSequence = [deepcopy(first) for _ in images]
            for item, image in zip(derivation.SourceImageSequence, images, strict=True):
                item.ReferencedSOPInstanceUID = image.SOPInstanceUID

    write_seg(source / "seg.dcm", series, [drawn("Lesion 1", ONE)], edit=name_all)
    (found,), _ = run_import(source)
    (image,) = read_case(found.folder).images.values()
    stored = np.array(
        [[each.pixel_array for each in at_place[xyz]] for xyz in sorted(at_place, key=lambda xyz: xyz[2])]
    )
    product = np.prod(stored.astype(float), axis=1)
    assert image.weighting == "dwi-trace"
    assert any("geometric mean of 3 directions" in remark for remark in found.remarks)
    np.testing.assert_allclose(image.volume.array_DHW[product > 0], np.cbrt(product[product > 0]), rtol=1e-4)
