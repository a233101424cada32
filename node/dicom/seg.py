"""Mask → DICOM Segmentation on the source's own grid (PS3.3 A.51): one segment per lesion, in the source's frames.

BINARY, Explicit VR LE, without empty frames: the form that every viewer reads. The library is given one plain
header per slice in array order, so slice d of the mask is slice d of the source by construction: no volume object
in between, whose slice axis runs the other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset

from model.findings import Finding
from model.volume import Mask
from node.dicom.context import EncodeContext, Tracking
from node.dicom.header import text
from node.dicom.objects import finish, shared_arguments, write_object
from node.dicom.palette import lesion_rgb
from node.dicom.subject import placeholder_index, plain_headers
from node.dicom.terms import coded
from node.dicom.volume import SliceRef, SourceVolume
from node.domain import ResultObject
from node.errors import ObjectError

CONTENT_LABEL = "AI_LESIONS"


def encode_seg(
    context: EncodeContext,
    source: SourceVolume,
    mask: Mask,
    findings: Sequence[Finding],
    tracking: Sequence[Tracking],
    path: Path,
) -> ResultObject:
    """Write the lesions of `mask` as a segmentation to `path`: label n is segment n, with finding and tracking n−1.

    Raises ObjectError where mask, findings and source do not belong together, or where there is no lesion: an
    empty segmentation is never written, the report alone says that nothing was found.
    """
    _require_agreement(source, mask, findings, tracking)
    root = source.header.root
    dataset = Segmentation(
        source_images=plain_headers(source),
        pixel_array=mask.labels_DHW,
        segmentation_type="BINARY",
        segment_descriptions=[
            _segment(context, f, t, source.derivation) for f, t in zip(findings, tracking, strict=True)
        ],
        omit_empty_frames=True,
        content_label=CONTENT_LABEL,
        content_description=context.warning or f"Lesions found in {context.title}"[:64],
        content_creator_name=f"{context.equipment.model}^",
        **shared_arguments(context, root, "seg"),
    )
    finish(dataset, context, root)
    dataset.BodyPartExamined = text(root, "BodyPartExamined") or "LIVER"
    _refer_to_source(dataset, source)
    _derive_dimension_uid(dataset, context)
    return write_object(dataset, path, "seg")


def _require_agreement(
    source: SourceVolume, mask: Mask, findings: Sequence[Finding], tracking: Sequence[Tracking]
) -> None:
    if mask.count == 0:
        raise ObjectError("there is no lesion, so there is no segmentation to write")
    if mask.labels_DHW.shape != source.volume.array_DHW.shape or not np.allclose(
        mask.affine_lps_mm, source.volume.affine_lps_mm, atol=1e-6
    ):
        raise ObjectError("the mask does not lie on the source's grid")
    if [finding.number for finding in findings] != list(range(1, mask.count + 1)) or len(tracking) != len(findings):
        raise ObjectError(f"{mask.count} labels, {len(findings)} findings and {len(tracking)} tracking identifiers")


def _segment(context: EncodeContext, finding: Finding, tracking: Tracking, derivation: str) -> SegmentDescription:
    return SegmentDescription(
        segment_number=finding.number,
        segment_label=tracking.identifier,
        segmented_property_category=coded(context.terms, "abnormal_structure"),
        segmented_property_type=coded(context.terms, context.finding),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=context.bundle.name,
            family=coded(context.terms, "algorithm_family"),
            version=context.bundle.version,
            source=context.equipment.manufacturer,
            parameters={"weights_sha256": context.bundle.sha256, **({"input": derivation} if derivation else {})},
        ),
        tracking_uid=tracking.uid,
        tracking_id=tracking.identifier,
        display_color=CIELabColor.from_rgb(*lesion_rgb(finding.number)),
    )


def _refer_to_source(dataset: Dataset, source: SourceVolume) -> None:
    """Replace the placeholders by the instances, and of enhanced ones by exactly the chosen frames.

    Of a mean every direction is named, the first of them first: viewers look for a frame's place in its first item.
    """
    derivations = [
        derivation for frame in dataset.PerFrameFunctionalGroupsSequence for derivation in frame.DerivationImageSequence
    ]
    made: dict[int, list[Dataset]] = {}  # the segments of a slice share its items
    for derivation in {id(derivation): derivation for derivation in derivations}.values():
        (placeholder,) = derivation.SourceImageSequence
        index = placeholder_index(placeholder.ReferencedSOPInstanceUID)
        if index not in made:
            made[index] = [_pointing(placeholder, target) for target in source.slices_at(index)]
        derivation.SourceImageSequence = made[index]
        if source.derivation:
            derivation.DerivationDescription = f"Lesions segmented in the {source.derivation}"
    dataset.SourceImageSequence = [_reference(refs, with_frames=True) for refs in by_instance(source.every_slice)]
    series = Dataset()
    series.SeriesInstanceUID = source.series_uid
    series.ReferencedInstanceSequence = [
        _reference(refs, with_frames=False) for refs in by_instance(source.every_slice)
    ]
    dataset.ReferencedSeriesSequence = [series]


def by_instance(slices: Sequence[SliceRef]) -> list[list[SliceRef]]:
    """Slices grouped by the instance that holds them, in the order of first appearance."""
    groups: dict[str, list[SliceRef]] = {}
    for item in slices:
        groups.setdefault(item.sop_instance_uid, []).append(item)
    return list(groups.values())


def _pointing(placeholder: Dataset, target: SliceRef) -> Dataset:
    item = deepcopy(placeholder)
    _point_to(item, target)
    return item


def _point_to(item: Dataset, target: SliceRef) -> None:
    item.ReferencedSOPClassUID = target.sop_class_uid
    item.ReferencedSOPInstanceUID = target.sop_instance_uid
    if target.frame is not None:
        item.ReferencedFrameNumber = target.frame


def _reference(refs: Sequence[SliceRef], *, with_frames: bool) -> Dataset:
    item = Dataset()
    _point_to(item, refs[0])
    if refs[0].frame is not None:
        del item.ReferencedFrameNumber
        if with_frames:
            item.ReferencedFrameNumber = sorted(ref.frame for ref in refs if ref.frame is not None)
    return item


def _derive_dimension_uid(dataset: Dataset, context: EncodeContext) -> None:
    """The library draws this UID at random; derived, the same job gives the same file."""
    uid = context.uid("seg", "dimensions")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
