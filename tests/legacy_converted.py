"""Classic slices as one legacy-converted multi-frame object: what a PACS makes of them (PS3.3 A.70, A.71)."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset

Headers = dict[Path, Dataset]
AT_ROOT = (
    *("StudyInstanceUID", "SeriesInstanceUID", "StudyDate", "PatientID", "SeriesNumber", "Modality", "Manufacturer"),
    *("ImageType", "BodyPartExamined", "SeriesDescription", "FrameOfReferenceUID", "Rows", "Columns"),
    *("SamplesPerPixel", "PhotometricInterpretation"),
)
OF_FRAME = ("AcquisitionTime", "AcquisitionDate", "DiffusionBValue", "DiffusionDirectionality")


def item(source: Dataset, *keywords: str) -> Dataset:
    """A data set of these attributes of another."""
    made = Dataset()
    for keyword in keywords:
        if keyword in source:
            setattr(made, keyword, source.get(keyword))
    return made


def converted(headers: Headers) -> Headers:
    """What a PACS makes of a classic series: places in their macros, all the rest in "unassigned" sequences."""
    first = next(iter(headers.values()))
    root = item(first, *AT_ROOT)
    root.SOPClassUID = "1.2.840.10008.5.1.4.1.1." + ("2.2" if first.Modality == "CT" else "4.4")
    root.SOPInstanceUID, root.NumberOfFrames = "1.2.3.4.1", len(headers)
    rest = Dataset()
    for element in first:
        is_placed = element.keyword in (*AT_ROOT, *OF_FRAME, "SOPInstanceUID", "SOPClassUID", "PixelSpacing")
        if not is_placed and not element.keyword.startswith("Image"):
            rest.add(element)
    shared = Dataset()
    shared.PixelMeasuresSequence = [item(first, "PixelSpacing")]
    shared.UnassignedSharedConvertedAttributesSequence = [rest]
    root.SharedFunctionalGroupsSequence = [shared]
    root.PerFrameFunctionalGroupsSequence = [_frame(dataset) for dataset in headers.values()]
    return {Path("/series/legacy.dcm"): root}


def _frame(dataset: Dataset) -> Dataset:
    frame = Dataset()
    frame.PlanePositionSequence = [item(dataset, "ImagePositionPatient")]
    frame.PlaneOrientationSequence = [item(dataset, "ImageOrientationPatient")]
    frame.UnassignedPerFrameConvertedAttributesSequence = [item(dataset, *OF_FRAME)]
    return frame
