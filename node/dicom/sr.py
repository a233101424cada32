"""Findings → Comprehensive 3D SR, TID 1500 (PS3.16): one TID 1411 group per lesion that points at its segment,
and one TID 1501 group for the study: how many, how much in all, and what the reader must know.

The document is complete, unverified and preliminary: nobody has looked at it. The network's probability is not
written: it is not calibrated, and the codes there are (Certainty of Finding) would make a claim of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import highdicom.sr as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage

from model.findings import Finding
from model.volume import Mask
from node.dicom.context import EncodeContext, Tracking
from node.dicom.header import FrameHeader, read_header, text, value
from node.dicom.image_library import evidence, evidence_item, insert_image_library, lesion_sources
from node.dicom.measurements import Group, assessment_group, lesion_group, refusal_group
from node.dicom.objects import finish, shared_arguments, write_object
from node.dicom.seg import by_instance
from node.dicom.subject import REQUIRED, copied_sequence
from node.dicom.terms import coded
from node.dicom.volume import SourceVolume, modality_of
from node.domain import InstanceRef, ResultObject
from node.errors import ObjectError


def encode_sr(
    context: EncodeContext,
    source: SourceVolume,
    mask: Mask,
    findings: Sequence[Finding],
    tracking: Sequence[Tracking],
    path: Path,
    *,
    seg: ResultObject | None,
    others: Sequence[SourceVolume] = (),
) -> ResultObject:
    """Write the report to `path`. `seg` is the segmentation it points at: None where no lesion was found, or where
    the route makes none. `others` are what the network read beside the source.

    Raises ObjectError where findings, tracking and mask do not belong together.
    """
    if not mask.count == len(findings) == len(tracking):
        raise ObjectError(f"{mask.count} labels, {len(findings)} findings and {len(tracking)} tracking identifiers")
    groups = [
        lesion_group(
            context,
            finding,
            tracked,
            sources,
            b_value_s_mm2=source.b_value_s_mm2,
            derivation=source.derivation,
            points_at_segment=seg is not None,
        )
        for finding, tracked, sources in zip(findings, tracking, lesion_sources(mask.labels_DHW, source), strict=True)
    ]
    items = [
        evidence_item(read.header, refs[0].sop_class_uid, refs[0].sop_instance_uid)
        for read in (source, *others)
        for refs in by_instance(read.every_slice)
    ]
    if seg is not None:
        items.append(evidence(source.study_uid, context.series_uid("seg"), seg.sop_class_uid, seg.sop_instance_uid))
    report = _report(context, source.header, [*groups, assessment_group(context, findings, source.derivation)])
    dataset = _document(context, source.header, report, items)
    insert_image_library(dataset, [source, *others])
    return write_object(dataset, path, "sr")


def encode_refusal_sr(
    context: EncodeContext, instances: Sequence[InstanceRef], reason: str, path: Path
) -> ResultObject:
    """Write to `path` a report that these instances were not analysed, and why: "the slices are not parallel".

    Raises ObjectError where they are no CT or MR images, which are never meant for analysis.
    """
    if any(modality_of(instance.sop_class_uid) is None for instance in instances):
        raise ObjectError("no CT or MR images: nothing is reported of them")
    header = FrameHeader(read_header(instances[0].path))
    items = [evidence_item(header, instance.sop_class_uid, instance.sop_instance_uid) for instance in instances]
    report = _report(context, header, [refusal_group(context, reason)])
    # a kind of its own: who takes results need not want to hear of what is none
    return replace(write_object(_document(context, header, report, items), path, "sr"), kind="refusal")


def _report(context: EncodeContext, header: FrameHeader, groups: Sequence[Group]) -> hd.MeasurementReport:
    is_ct = modality_of(text(header.root, "SOPClassUID")) == "CT"
    return hd.MeasurementReport(
        observation_context=hd.ObservationContext(observer_device_context=_observer(context)),
        procedure_reported=coded(context.terms, "procedure_ct" if is_ct else "procedure_mr"),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )


def _observer(context: EncodeContext) -> hd.ObserverContext:
    node = context.equipment
    name = f"{node.model} ({context.warning})" if context.warning else node.model
    return hd.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.DeviceObserverIdentifyingAttributes(
            uid=context.observer_uid,
            name=name,
            manufacturer_name=node.manufacturer,
            model_name=node.model,
            serial_number=node.serial,
        ),
    )


def _document(
    context: EncodeContext, header: FrameHeader, report: hd.MeasurementReport, items: list[Dataset]
) -> Dataset:
    for keyword in REQUIRED:  # the library insists on them; the patient comes with `finish`
        setattr(items[0], keyword, "")
    dataset = hd.Comprehensive3DSR(
        evidence=items,
        content=report[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        requested_procedures=_requested(header.root) or None,
        previous_versions=_predecessor(context, header),
        **shared_arguments(context, header.root, "sr"),
    )
    finish(dataset, context, header.root)
    return dataset


def _predecessor(context: EncodeContext, header: FrameHeader) -> list[Dataset] | None:
    replaced = context.predecessor
    if replaced is None:
        return None
    study_uid = text(header.root, "StudyInstanceUID")
    return [evidence(study_uid, replaced.sr_series_uid, Comprehensive3DSRStorage, replaced.sr_instance_uid)]


def _requested(root: Dataset) -> list[Dataset]:
    """Items of Referenced Request Sequence, by which RIS and PACS match a report to its order (PS3.3 C.17.2)."""
    requests = value(root, "RequestAttributesSequence") or [root]
    return [item for item in (_request(root, request) for request in requests) if item is not None]


def _request(root: Dataset, request: Dataset) -> Dataset | None:
    accession = text(request, "AccessionNumber") or text(root, "AccessionNumber")
    procedure_id = text(request, "RequestedProcedureID")
    if not accession and not procedure_id:
        return None
    item = Dataset()
    item.StudyInstanceUID = text(root, "StudyInstanceUID")
    item.ReferencedStudySequence = []
    item.AccessionNumber = accession
    item.PlacerOrderNumberImagingServiceRequest = text(root, "PlacerOrderNumberImagingServiceRequest")
    item.FillerOrderNumberImagingServiceRequest = text(root, "FillerOrderNumberImagingServiceRequest")
    item.RequestedProcedureID = procedure_id
    item.RequestedProcedureDescription = text(request, "RequestedProcedureDescription")
    item.RequestedProcedureCodeSequence = copied_sequence(request, "RequestedProcedureCodeSequence")
    return item
