"""Which images a report is about: the image library (TID 1600), the references of a lesion, the evidence."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom.sr as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from model.findings import lesion_boxes
from model.volume import Labels
from node.dicom.header import FrameHeader, text
from node.dicom.seg import by_instance
from node.dicom.subject import plain_headers
from node.dicom.volume import SliceRef, SourceVolume

_SOURCE = Code("260753009", "SCT", "Source")
_POSITION = (
    codes.DCM.ImagePositionPatientX,
    codes.DCM.ImagePositionPatientY,
    codes.DCM.ImagePositionPatientZ,
)


def insert_image_library(report: Dataset, sources: Sequence[SourceVolume]) -> None:
    """Put the image library before the measurements: a group a source with what its images share (TID 1602), and them.

    The library's own class repeats sixteen descriptors for each image, and costs 7 ms an image to build, copy and
    search; what images share belongs to the group, and their positions stand in the images. So it is put into the
    finished document, whose evidence has all of them anyway.
    """
    library = _container(codes.DCM.ImageLibrary, [_group(source) for source in sources])
    *before, measurements = report.ContentSequence
    report.ContentSequence = [*before, library, measurements]


def _group(source: SourceVolume) -> Dataset:
    descriptors = hd.ImageLibraryEntryDescriptors(plain_headers(source)[0])
    shared = [item for item in descriptors if item.name not in _POSITION]
    images = [_image(*_reference(refs)) for refs in by_instance(source.every_slice)]
    return _container(codes.DCM.ImageLibraryGroup, [*shared, *images])


def _container(name: Code, content: list[Dataset]) -> Dataset:
    container = _item("CONTAINER", name)
    container.ContinuityOfContent = "SEPARATE"
    container.ContentSequence = content
    return container


def _image(sop_class_uid: str, sop_instance_uid: str, frames: list[int] | None) -> Dataset:
    image = _item("IMAGE", _SOURCE)
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    if frames:
        reference.ReferencedFrameNumber = frames
    image.ReferencedSOPSequence = [reference]
    return image


def _item(value_type: str, name: Code) -> Dataset:
    item = Dataset()
    item.ValueType, item.RelationshipType = value_type, "CONTAINS"
    item.ConceptNameCodeSequence = [hd.CodedConcept.from_code(name)]
    return item


def lesion_sources(labels_DHW: Labels, source: SourceVolume) -> list[list[hd.SourceImageForSegmentation]]:
    """For each label 1..N the images, and of enhanced ones the frames, in which it has voxels; of all directions."""
    sources = []
    for number, box in enumerate(lesion_boxes(labels_DHW), start=1):
        within = np.flatnonzero((labels_DHW[box] == number).any(axis=(1, 2))) + box[0].start
        touched = by_instance([ref for index in within for ref in source.slices_at(int(index))])
        sources.append([hd.SourceImageForSegmentation(*_reference(refs)) for refs in touched])
    return sources


def _reference(refs: Sequence[SliceRef]) -> tuple[str, str, list[int] | None]:
    """SOP class, SOP instance, frame numbers (None of a classic instance)."""
    frames = sorted(ref.frame for ref in refs if ref.frame is not None)
    return refs[0].sop_class_uid, refs[0].sop_instance_uid, frames or None


def evidence_item(header: FrameHeader, sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """An instance of the source series as the library takes evidence."""
    root = header.root
    return evidence(text(root, "StudyInstanceUID"), text(root, "SeriesInstanceUID"), sop_class_uid, sop_instance_uid)


def evidence(study_uid: str, series_uid: str, sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Any instance as the library takes evidence and predecessors."""
    item = Dataset()
    item.StudyInstanceUID, item.SeriesInstanceUID = study_uid, series_uid
    item.SOPClassUID, item.SOPInstanceUID = sop_class_uid, sop_instance_uid
    return item
