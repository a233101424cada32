"""Headers of a series → facts, volume by volume: what it is, on what signs. The door to the evidence_* files.

Reads what the scanner did and not only what somebody typed; decides nothing (node/routing.py does). Facts name no
patient; the study's header, which the time point needs, is kept apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from node.config_routes import Trust
from node.dicom.header import FrameHeader, text, value
from node.evidence_ct import contrast, kernel_kind, phase_votes
from node.evidence_declared import declared_signs, settle_weighting
from node.evidence_diffusion import disputing_b_values
from node.evidence_facts import (
    CT,
    DERIVED_MEAN,
    DIFFUSION_WEIGHTED,
    LOCALIZER,
    NOT_AN_IMAGE,
    OTHER,
    Geometry,
    Member,
    SeriesEvidence,
    Sign,
    StudyHeader,
    VolumeFacts,
)
from node.evidence_geometry import geometry_of
from node.evidence_kind import IMAGE_CLASSES, is_other_picture, kind_signs
from node.evidence_mean import DirectionMean, direction_means
from node.evidence_mr import echo_time, fat_suppression, mr_weighting, weighted_directionality
from node.evidence_regions import region_signs
from node.evidence_slices import SliceFacts, first_number, parse_date, read_slices
from node.evidence_split import Part, split
from node.evidence_texts import text_of
from node.evidence_vendors import PrivateReader, creators_of

__all__ = ["Member", "SeriesEvidence", "Sign", "StudyHeader", "VolumeFacts", "read_series", "study_header"]

TIME_POINT_KEYWORDS = (
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
    "ClinicalTrialProtocolID",
    "RequestedProcedureDescription",
    "RequestedProcedureID",
    "ReasonForTheRequestedProcedure",
    "PerformedProcedureStepDescription",
    "StudyDescription",
)
"""What an administrator's tag rules may ask without further ado."""


def read_series(
    headers: Mapping[Path, Dataset], keywords: Iterable[str] = (), trust: Sequence[Trust] = ()
) -> SeriesEvidence:
    """The volumes of one series (headers as `node.dicom.header.read_header` gives them) and its study's header.

    `keywords` are further attributes that tag rules ask for, `trust` is what the site declares. The order of
    `headers` does not matter; of two instances with one SOP Instance UID the first path counts. Raises ValueError
    for no header at all.
    """
    if not headers:
        raise ValueError("a series has at least one instance")
    unique: dict[str, tuple[Path, Dataset]] = {}
    for path in sorted(headers):
        unique.setdefault(text(headers[path], "SOPInstanceUID") or str(path), (path, headers[path]))
    first = min(unique)
    path, dataset = unique[first]
    return SeriesEvidence(
        header=study_header(dataset, keywords),
        series_uid=text(dataset, "SeriesInstanceUID"),
        source=str(path.parent),
        volumes=_volumes([unique[uid] for uid in sorted(unique)], trust),
    )


def study_header(dataset: Dataset, keywords: Iterable[str] = ()) -> StudyHeader:
    """What the time point is decided from. Called and calling AE title are the receiver's to add (`replace`)."""
    asked = dict.fromkeys((*TIME_POINT_KEYWORDS, *keywords))
    return StudyHeader(
        study_uid=text(dataset, "StudyInstanceUID"),
        patient_id=text(dataset, "PatientID"),
        issuer=text(dataset, "IssuerOfPatientID"),
        study_date=parse_date(text(dataset, "StudyDate")),
        attributes=tuple(sorted((keyword, told) for keyword in asked for told in _told(dataset, keyword))),
    )


def _told(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """What the attribute says at the top and in each request that the series answers; a code says its meaning."""
    told: list[str] = []
    for place in (dataset, *value(dataset, "RequestAttributesSequence", ())):
        found = value(place, keyword, "")
        told += [text(code, "CodeMeaning") for code in found] if isinstance(found, Items) else [text(place, keyword)]
    return tuple(dict.fromkeys(filter(None, told)))


def _volumes(instances: Sequence[tuple[Path, Dataset]], trust: Sequence[Trust]) -> tuple[VolumeFacts, ...]:
    of_images = [(path, dataset) for path, dataset in instances if text(dataset, "SOPClassUID") in IMAGE_CLASSES]
    parts = split(item for path, dataset in of_images for item in read_slices(path, dataset))
    others = [
        _no_volume(path, dataset) for path, dataset in instances if text(dataset, "SOPClassUID") not in IMAGE_CLASSES
    ]
    weighted = [part.b.value for part in parts if part.b]
    b_values = tuple(sorted({int(b) for b in weighted}))
    volumes = [_volume(part, parts, b_values, trust) for part in parts]
    means = [_mean(mean, _volume(mean.parts[0], parts, b_values, trust)) for mean in direction_means(parts)]
    return (*volumes, *(mean for mean in means if mean.weighting in DIFFUSION_WEIGHTED), *others)


def _mean(mean: DirectionMean, reference: VolumeFacts) -> VolumeFacts:
    """The volume that the node would derive: all that is known of its first direction, but the direction."""
    return replace(
        reference,
        other_directions=tuple(_members(part.slices) for part in mean.parts[1:]),
        is_b_certain=all(part.b is not None and part.b.is_certain for part in mean.parts),
        directionality=DERIVED_MEAN,
        direction_signs=mean.signs,
    )


def _no_volume(path: Path, dataset: Dataset) -> VolumeFacts:
    """An instance of a class that holds no slices of ours: a report, a presentation state, a capture."""
    sop_class = text(dataset, "SOPClassUID")
    is_picture = is_other_picture(sop_class)
    what = "a picture of a kind that is not analysed" if is_picture else "no image, by its SOP class"
    header = FrameHeader(dataset)
    return replace(
        _common(header, path),
        weighting=OTHER if is_picture else NOT_AN_IMAGE,
        weighting_signs=(Sign(NOT_AN_IMAGE, what, "(0008,0016)"),),
        members=(Member(path, ()),),
    )


def _volume(part: Part, series: Sequence[Part], b_values: tuple[int, ...], trust: Sequence[Trust]) -> VolumeFacts:
    first = part.slices[0]
    private = PrivateReader(first.header, creators_of(first.header.root))
    kinds = kind_signs(part, series, private)
    region, regions = region_signs(first.header)
    facts = replace(
        _common(first.header, first.path),
        kind_signs=kinds,
        image_type=first.image_type,
        geometry=geometry_of(part.slices),
        members=_members(part.slices),
        region=region,
        region_signs=regions,
        acquired=first.acquired,
    )
    phases, weightings = declared_signs(first.header, trust)
    if IMAGE_CLASSES[facts.sop_class_uid] == "CT":
        facts = _with_ct(facts, first.header, kinds)
        return replace(facts, phase_signs=(*facts.phase_signs, *phases))
    facts = _with_mr(facts, part, series, b_values, private)
    weighting, signs = settle_weighting(facts.weighting, facts.weighting_signs, weightings)
    return replace(facts, weighting=weighting, weighting_signs=signs)


def _with_ct(facts: VolumeFacts, header: FrameHeader, kinds: tuple[Sign, ...]) -> VolumeFacts:
    given, signs = contrast(header)
    kernel = text_of(header, "ConvolutionKernel")
    localizer = tuple(sign for sign in kinds if sign.says == LOCALIZER)
    return replace(
        facts,
        weighting=LOCALIZER if localizer else CT,
        weighting_signs=localizer or (Sign(CT, "computed tomography", "(0008,0016)"),),
        contrast_given=given,
        contrast_signs=signs,
        phase_signs=phase_votes(header),
        kernel=kernel,
        kernel_kind=kernel_kind(kernel),
    )


def _with_mr(
    facts: VolumeFacts, part: Part, series: Sequence[Part], b_values: tuple[int, ...], private: PrivateReader
) -> VolumeFacts:
    header = private.header
    directionality, direction_signs = weighted_directionality(part, series)
    weighting, signs = mr_weighting(part, series, facts.kind_signs, private)
    fat_suppressed, fat_signs = fat_suppression(header, private)
    echo_ms, is_disputed = echo_time(header)
    facts = replace(
        facts,
        weighting=weighting,
        weighting_signs=signs,
        fat_suppressed=fat_suppressed,
        fat_signs=fat_signs,
        echo_time_ms=None if is_disputed else echo_ms,
        repetition_time_ms=first_number(header, "RepetitionTime"),
    )
    if part.b is None or not weighting.startswith("dwi"):
        return facts
    disputing = disputing_b_values(private, part.b) if part.b.is_certain else ()
    return replace(
        facts,
        b_values_s_mm2=b_values,
        b_s_mm2=int(part.b.value),
        b_signs=tuple(Sign("b", f"b = {b.value:.0f} s/mm²", b.where) for b in (part.b, *disputing)),
        b_disputed_s_mm2=tuple(round(b.value) for b in disputing),
        is_b_certain=part.b.is_certain,
        directionality=directionality,
        direction_signs=direction_signs,
    )


def _common(header: FrameHeader, path: Path) -> VolumeFacts:
    root = header.root
    number = value(root, "SeriesNumber")
    return VolumeFacts(
        study_uid=text(root, "StudyInstanceUID"),
        series_uid=text(root, "SeriesInstanceUID"),
        series_number=int(number) if isinstance(number, int) else None,
        source=str(path.parent),
        sop_class_uid=text(root, "SOPClassUID"),
        modality=text(root, "Modality"),
        manufacturer=text(root, "Manufacturer"),
        weighting=OTHER,
        weighting_signs=(),
        kind_signs=(),
        image_type=(),
        geometry=_NOWHERE,
        members=(),
        study_date=parse_date(text(root, "StudyDate")),
    )


_NOWHERE = Geometry(0, 0, 0, None, False, None, 0.0, None, 0.0, "it holds no slices")


def _members(slices: Sequence[SliceFacts]) -> tuple[Member, ...]:
    """Instances in the order of their lowest slice; frames of one instance in the order of their positions."""
    frames: dict[Path, list[int]] = {}
    for item in slices:
        frames.setdefault(item.path, []).extend([item.header.number] if item.header.number else [])
    return tuple(Member(path, tuple(numbers)) for path, numbers in frames.items())
