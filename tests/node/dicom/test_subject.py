"""Results are filed with the patient and study of their images, in whatever letters those are written."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

from node.dicom.check import check_objects
from node.dicom.seg import encode_seg
from node.dicom.sr import encode_sr
from node.dicom.subject import REQUIRED, copy_subject, placeholder_index, plain_headers
from node.dicom.volume import read_volume


@pytest.fixture
def encode_both(
    write_stack: Callable[..., Any],
    make_context: Callable[..., Any],
    lesions_on: Callable[..., Any],
    tmp_path: Path,
) -> Callable[..., tuple[Dataset, Dataset]]:
    """Segmentation and report of a stack whose headers were edited."""

    def run(edit: Callable[[Dataset, int], None]) -> tuple[Dataset, Dataset]:
        stack = write_stack(edit=edit)
        lesions, source, context = lesions_on(stack), read_volume(stack.role_input), make_context()
        given = (lesions.mask, lesions.findings, lesions.tracking)
        seg = encode_seg(context, source, *given, tmp_path / "seg.dcm")
        encode_sr(context, source, *given, tmp_path / "sr.dcm", seg=seg)
        check_objects(tmp_path / "seg.dcm", tmp_path / "sr.dcm", context, source, *given)
        return dcmread(tmp_path / "seg.dcm"), dcmread(tmp_path / "sr.dcm")

    return run


NAMES = {
    "chrH31.dcm": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "chrI2.dcm": "Hong^Gildong=洪^吉洞=홍^길동",
    "chrX2.dcm": "Wang^XiaoDong=王^小东=",
    "chrX1.dcm": "Wang^XiaoDong=王^小東=",
    "chrFren.dcm": "Buc^Jérôme",
    "chrGreek.dcm": "Διονυσιος",
    "chrRuss.dcm": "Люкceмбypг",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_any_character_set_arrives_in_unicode(
    encode_both: Callable[..., Any], shared_data: Path, name: str
) -> None:
    original = dcmread(shared_data / "malformed/pydicom-charset" / name)

    def edit(dataset: Dataset, _: int) -> None:
        dataset.SpecificCharacterSet = original.SpecificCharacterSet
        dataset.PatientName = original.PatientName

    for result in encode_both(edit):
        assert result.SpecificCharacterSet == "ISO_IR 192"
        assert str(result.PatientName).rstrip("=") == NAMES[name].rstrip("=")


def test_korean_in_code_extensions_is_kept_whole(encode_both: Callable[..., Any], shared_data: Path) -> None:
    original = dcmread(shared_data / "malformed/pydicom-charset/chrKoreanMulti.dcm")

    def edit(dataset: Dataset, _: int) -> None:
        dataset.SpecificCharacterSet = original.SpecificCharacterSet
        dataset.PatientName = original.PatientName

    for result in encode_both(edit):
        assert str(result.PatientName) == str(original.PatientName)
        assert "김" in str(result.PatientName)


def test_names_in_latin_letters_need_no_character_set(encode_both: Callable[..., Any]) -> None:
    for result in encode_both(lambda dataset, _: None):
        assert "SpecificCharacterSet" not in result
        assert result.PatientName == "Phantom^Asymmetric"


@pytest.mark.parametrize(
    "keywords", [REQUIRED, ("Manufacturer",), ("SpecificCharacterSet",), ("SliceThickness",)], ids=lambda k: k[0]
)
def test_attributes_that_the_source_lacks_are_left_empty(
    encode_both: Callable[..., Any], keywords: tuple[str, ...]
) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        for keyword in keywords:
            delattr(dataset, keyword)

    for result in encode_both(edit):
        assert all(keyword in result for keyword in REQUIRED)
        assert not any(result[keyword].value for keyword in keywords if keyword in REQUIRED)


def test_values_that_break_their_representation_are_filed_as_they_are(encode_both: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            dataset.PatientSex, dataset.PatientBirthDate = "male", "1950"
            dataset.PatientAge, dataset.StudyTime = "61", "10:11:12"
            dataset.PatientID = "X" * 70

    for result in encode_both(edit):
        assert (result.PatientSex, result.PatientBirthDate, result.PatientAge) == ("male", "1950", "61")
        assert (result.StudyTime, result.PatientID) == ("10:11:12", "X" * 70)


def test_a_name_for_a_text_and_bytes_for_a_date_do_not_stop_a_result(encode_both: Callable[..., Any]) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset[0x00081030] = DataElement(0x00081030, "PN", "Liver^study")  # Study Description
        dataset[0x00100030] = DataElement(0x00100030, "OB", b"\xff\xfe")  # Patient's Birth Date

    for result in encode_both(edit):
        assert (result.StudyDescription, result.PatientBirthDate) == ("Liver^study", "")


def test_sequences_and_clinical_trial_attributes_come_along_without_private_elements() -> None:
    source, target, item = Dataset(), Dataset(), Dataset()
    source.SpecificCharacterSet = "ISO_IR 100"
    item.PatientID, item.TypeOfPatientID = "Müller-1", "TEXT"
    item.private_block(0x0011, "PRIVATE", create=True).add_new(1, "LO", "secret")
    source.OtherPatientIDsSequence = [item]
    source.StudyInstanceUID, source.ClinicalTrialSubjectID = "1.2.3", "T-1"
    copy_subject(source, target)
    assert target.OtherPatientIDsSequence[0].PatientID == "Müller-1"
    assert not [element for element in target.OtherPatientIDsSequence[0] if element.tag.is_private]
    assert (target.ClinicalTrialSubjectID, target.StudyInstanceUID) == ("T-1", "1.2.3")
    assert len(item) == 4, "the source is not changed"


def test_the_library_is_never_told_the_patient(write_stack: Callable[..., Any]) -> None:
    source = read_volume(write_stack().role_input)
    headers = plain_headers(source)
    assert len(headers) == 7
    assert [placeholder_index(header.SOPInstanceUID) for header in headers] == list(range(7))
    for header in headers:
        assert not any(isinstance(element.value, PersonName) and element.value for element in header)
        assert header.PatientID == ""
        assert "Phantom" not in str(header)


def test_a_name_without_components_is_quoted_in_no_warning_and_no_log(
    encode_both: Callable[..., Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = encode_both(lambda dataset, _: setattr(dataset, "PatientName", "Mononymous"))
    assert all(result.PatientName == "Mononymous" for result in results)
    told = " ".join([str(warning.message) for warning in caught]) + caplog.text + "".join(capfd.readouterr())
    assert "Mononymous" not in told
