"""Who and which study a result is about: copied from the source into the result, and kept away from libraries.

The encoding library is handed a header without any patient (`plain_headers`): it would refuse some of the
character sets and values that real studies have, and quote names in its warnings. The patient is written into the
finished object instead, decoded to Unicode (`copy_subject`), value by value as the source has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, MRImageStorage
from pydicom.valuerep import DSfloat, PersonName, format_number_as_ds

from node.dicom.header import PARSE_FAULTS, text, value
from node.dicom.volume import SourceVolume

UNICODE = "ISO_IR 192"

# Type 2 in the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): there, if need be empty
REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)
# What else the Patient, Clinical Trial, General Study and Patient Study modules say: it must not differ from instance
# to instance of a study (dcentvfy compares it)
OPTIONAL = (
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "PatientBirthTime",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "EthnicGroup",
    "PatientComments",
    "ReferencedPatientSequence",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
    "PhysiciansOfRecord",
    "ReferencedStudySequence",
    "ProcedureCodeSequence",
    "ReasonForPerformedProcedureCodeSequence",
    "ConsultingPhysicianName",
    "ReferringPhysicianIdentificationSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientBodyMassIndex",
    "Occupation",
    "AdditionalPatientHistory",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "ReasonForVisit",
    "ServiceEpisodeID",
    "ServiceEpisodeDescription",
    "IssuerOfServiceEpisodeIDSequence",
    "PatientSexNeutered",
    "TimezoneOffsetFromUTC",
)
# Of the acquisition, for the library's note on the equipment that made the images
_EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "StationName")
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_PLACEHOLDER_ROOT = "2.25.1."
_ASCII_ONLY = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})  # PS3.5 section 6.2
_CHARACTER_SET = Tag(0x00080005)
# long sequences of references and numbers
_WITHOUT_TEXT = frozenset(
    Tag(tag_for_keyword(keyword) or 0)
    for keyword in ("PerFrameFunctionalGroupsSequence", "SourceImageSequence", "ReferencedSeriesSequence", "PixelData")
)
_CLASS = {"CT": CTImageStorage, "MR": MRImageStorage}


def copy_subject(source: Dataset, target: Dataset) -> None:
    """Give `target` the patient and the study of `source`, in Unicode; what is required and missing is left empty.

    A value that breaks its representation is copied as it is: a result must be filed where its images are.
    """
    target.SpecificCharacterSet = UNICODE
    target.StudyInstanceUID = text(source, "StudyInstanceUID")
    for keyword in REQUIRED:
        _set(target, keyword, _decoded(value(source, keyword, "")))
    for keyword in OPTIONAL:
        target.pop(keyword, None)
        found = _decoded(value(source, keyword))
        if found is not None:
            _set(target, keyword, found)


def drop_needless_charset(target: Dataset) -> None:
    """Without any letter beyond ASCII no character set is named: the form that every old archive reads."""
    if _is_ascii(target):
        target.pop("SpecificCharacterSet", None)


def _is_ascii(dataset: Dataset) -> bool:
    for tag in list(dataset.keys()):
        if tag in _WITHOUT_TEXT:
            continue
        element = dataset[tag]
        parts = element.value if element.VM > 1 or element.VR == "SQ" else [element.value]
        if element.VR == "SQ":
            if not all(_is_ascii(item) for item in parts):
                return False
        elif not all(str(part).isascii() for part in parts if isinstance(part, str | PersonName)):
            return False
    return True


def copied_sequence(source: Dataset, keyword: str) -> Sequence:
    """The items of a sequence, free of the source's character set and private elements; empty where there is none."""
    found = value(source, keyword)
    return _decoded(found) if isinstance(found, Sequence) else Sequence()


def placeholder_uid(index: int) -> str:
    """Stands for slice `index` in what the library is told; replaced by the true reference afterwards."""
    return f"{_PLACEHOLDER_ROOT}{index + 1}"


def placeholder_index(uid: str) -> int:
    """Inverse of `placeholder_uid`. Raises ValueError for another UID."""
    if not uid.startswith(_PLACEHOLDER_ROOT):
        raise ValueError("no placeholder of ours")
    return int(uid.removeprefix(_PLACEHOLDER_ROOT)) - 1


def plain_headers(source: SourceVolume) -> list[Dataset]:
    """One single-frame header per slice, in array order, with the geometry of `source` and without its patient.

    An enhanced source looks classic here: references to its frames are written afterwards, to exactly the chosen
    ones (the library would refer to every frame at a position, the wrong b-value first).
    """
    shared = _shared_header(source)
    headers = []
    for index, item in enumerate(source.slices):
        header = Dataset()
        header.update(shared)
        header.SOPInstanceUID = placeholder_uid(index)
        header.ImagePositionPatient = [_ds(part) for part in item.position_lps_mm]
        headers.append(header)
    return headers


def slice_spacing_mm(source: SourceVolume) -> float:
    """Distance of neighbouring slices along their normal, also where a tilted gantry shifts them sideways."""
    affine = source.volume.affine_lps_mm
    plane = np.linalg.norm(np.cross(affine[:3, 1], affine[:3, 2]))
    return float(abs(np.linalg.det(affine[:3, :3])) / plane)


def _shared_header(source: SourceVolume) -> Dataset:
    root, first = source.header.root, source.header
    header = Dataset()
    header.SOPClassUID = _CLASS[source.modality]
    header.StudyInstanceUID, header.SeriesInstanceUID = source.study_uid, source.series_uid
    header.Modality = source.modality
    header.FrameOfReferenceUID = source.frame_of_reference_uid
    header.PositionReferenceIndicator = text(root, "PositionReferenceIndicator")
    for keyword in REQUIRED:
        setattr(header, keyword, "")
    _, header.Rows, header.Columns = source.volume.array_DHW.shape
    header.ImageOrientationPatient = [_ds(part) for part in first.orientation]
    header.PixelSpacing = [_ds(part) for part in first.pixel_spacing_mm]
    thickness = first.numbers("SliceThickness")
    header.SliceThickness = _ds(thickness[0] if thickness and thickness[0] > 0 else round(slice_spacing_mm(source), 6))
    header.SpacingBetweenSlices = _ds(round(slice_spacing_mm(source), 6))
    for keyword in (*_EQUIPMENT, *(_LOSSY if text(root, _LOSSY[0]) == "01" else ())):
        found = _decoded(value(root, keyword))
        if found is not None:
            _set(header, keyword, found)
    return header


def _ds(number: float) -> DSfloat:
    return DSfloat(format_number_as_ds(number))


def _set(target: Dataset, keyword: str, found: Any) -> None:
    """Give `target` the attribute; a value of quite another kind (a text in place of a sequence) is left out."""
    tag = Tag(tag_for_keyword(keyword) or 0)
    vr = dictionary_VR(tag)
    if (vr == "SQ") != isinstance(found, Sequence):
        found = Sequence() if vr == "SQ" else ""
    found = [_fitting(part, vr) for part in found] if isinstance(found, list) else _fitting(found, vr)
    # an element of its own: assigning by keyword would refuse what the source has written against its VR
    target[tag] = DataElement(tag, vr, found)


def _fitting(found: Any, vr: str) -> Any:
    """What can be written as `vr`: a name stored where a text belongs, or characters where only ASCII may stand."""
    if isinstance(found, PersonName) and vr != "PN":
        found = str(found)
    return "" if vr in _ASCII_ONLY and isinstance(found, str) and not found.isascii() else found


def _decoded(found: Any) -> Any:
    """A value free of the source's character set, sequences included; None where there is none.

    Everything else is taken as text: all that is copied here is text in the Standard, and a source that stores a
    number in its place must not stop the result from being written.
    """
    if found is None:
        return None
    if isinstance(found, PersonName):
        return PersonName(str(found))
    if isinstance(found, Sequence):
        return Sequence([_decoded_item(item) for item in found])
    if isinstance(found, MultiValue | list):
        return [_decoded(part) for part in found]
    return found.decode("ascii", "replace") if isinstance(found, bytes) else str(found)


def _decoded_item(item: Dataset) -> Dataset:
    copy = Dataset()
    for tag in list(item.keys()):
        if tag.is_private or tag == _CHARACTER_SET:
            continue
        try:
            element = item[tag]
        except PARSE_FAULTS:
            continue
        is_text = isinstance(element.value, str | PersonName | Sequence | MultiValue)
        copy[tag] = DataElement(tag, element.VR, _decoded(element.value) if is_text else element.value)
    return copy
