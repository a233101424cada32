"""One image series and the segmentations of it → the images of a case with their labels, or one reason why not.

Volumes are told apart by the evidence that routing uses and read by the reader that serving uses, so that a network
is trained on what it will be fed. A segmentation is placed on the volumes whose instances it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset

from model.cases import CaseImage, TimePoint, lies_alike
from node.dataset_conventions import (
    AORTA,
    ARTERIAL,
    LEAST_INSIDE,
    PORTAL_VEIN,
    PORTAL_VENOUS,
    Convention,
    missing_roles,
)
from node.dataset_labels import LabelSet, RoleSegment, inside_part, labels_of
from node.dataset_phases import VesselContrast, phases_of, vessel_contrast
from node.dicom.header import text
from node.dicom.seg_file import SegmentationFile, Source
from node.dicom.seg_place import place
from node.dicom.volume import SourceVolume, read_volume
from node.errors import GeometryError, NodeError
from node.evidence import read_series
from node.evidence_facts import DERIVED_MEAN, DWI_TRACE, LOCALIZER, VolumeFacts
from node.evidence_study import volumes_of
from node.inputs import role_input


class NotSegmented(NodeError):
    """A series and its segmentations give no case; the message is the reason."""


@dataclass(frozen=True)
class NamedImage:
    """An image of a case before it has its final name; `name` is what it shows: portal-venous, t2, dwi-trace-b1000."""

    name: str
    image: CaseImage


@dataclass(frozen=True)
class SeriesImages:
    """What one series gives: labelled images first, the portal-venous one before all."""

    images: tuple[NamedImage, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """The segments of one segmentation that are taken: number → role."""

    seg: SegmentationFile
    roles: Mapping[int, str]


@dataclass(frozen=True)
class _Read:
    """A volume, its segments where it was segmented, and the reason where not."""

    facts: VolumeFacts
    source: SourceVolume
    segments: tuple[RoleSegment, ...]
    reason: str = ""

    @property
    def contrast(self) -> VesselContrast | None:
        vessels = {segment.role: segment.placed for segment in self.segments}
        if self.source.modality != "CT" or not {PORTAL_VEIN, AORTA} <= vessels.keys():
            return None
        return vessel_contrast(self.source.volume.array_DHW, vessels[PORTAL_VEIN], vessels[AORTA])


def images_of_series(
    segs: Sequence[SegmentationFile],
    headers: Mapping[Path, Dataset],
    notes: Mapping[Path, Dataset],
    convention: Convention,
    time_point: TimePoint | None,
    *,
    takes_automatic: bool,
) -> SeriesImages:
    """Raises NotSegmented, GeometryError or UnreadableInstance with the reason why the series gives nothing."""
    choices, remarks = choose(segs, convention, takes_automatic=takes_automatic or convention.takes_automatic)
    volumes = volumes_of([read_series(headers)], {**headers, **notes})
    named, others = segmented_volumes(volumes, choices, headers)
    if convention.takes_siblings:
        named, others = [*named, *others], []
    read = _read(named, choices, headers)
    labelled = [item for item in read if item.segments]
    if not labelled:
        raise NotSegmented(read[0].reason)
    return _images(read, convention, time_point, (*remarks, *_remarks_on(others)))


def choose(
    segs: Sequence[SegmentationFile], convention: Convention, *, takes_automatic: bool
) -> tuple[tuple[Choice, ...], tuple[str, ...]]:
    """Which segments of which segmentation are taken, and remarks. Each role comes from one segmentation.

    What a person drew or corrected goes before what an algorithm made, then the later before the earlier. Where any
    segment was drawn by a person, that person saw the others, and all of that segmentation count. Raises NotSegmented.
    """
    ranked = sorted(segs, key=lambda seg: seg.created, reverse=True)
    ranked.sort(key=_is_automatic)
    choices: list[Choice] = []
    automatic = unknown = 0
    for seg in ranked:
        _refuse_doubtful(seg, convention)
        known = {segment.number: convention.role(segment) for segment in seg.segments}
        unknown += sum(role is None for role in known.values())
        if _is_automatic(seg) and not takes_automatic:
            automatic += sum(role is not None for role in known.values())
            continue
        settled = {role for choice in choices for role in choice.roles.values()}
        if roles := {number: role for number, role in known.items() if role and role not in settled}:
            choices.append(Choice(seg, roles))
    found = [role for choice in choices for role in choice.roles.values()]
    if not found:
        raise NotSegmented(_nothing_known(automatic))
    if missing := missing_roles(convention, found):
        raise NotSegmented(f"no segment is the collection's {', '.join(missing)}: not its own segmentation, or damaged")
    return tuple(choices), tuple(_remarks_on_segments(len(segs), len(choices), automatic, unknown))


def segmented_volumes(
    volumes: Sequence[VolumeFacts], choices: Sequence[Choice], headers: Mapping[Path, Dataset]
) -> tuple[list[VolumeFacts], list[VolumeFacts]]:
    """(those that were segmented, the others), each a volume that can be read. Raises NotSegmented or GeometryError."""
    sound = [item for item in volumes if item.geometry.fault is None and item.weighting != LOCALIZER]
    if not sound:
        raise GeometryError(next((item.geometry.fault for item in volumes if item.geometry.fault), "it has no slices"))
    if refused := next((item for item in sound if item.rejection or item.patients != "one"), None):
        reason = refused.rejection.what if refused.rejection else f"the Patient IDs are {refused.patients}"
        raise NotSegmented(reason)
    uids = {path: text(header, "SOPInstanceUID") for path, header in headers.items()}
    known = frozenset(uids.values())
    sources = frozenset(source for choice in choices for source in choice.seg.sources if source[0] in known)
    parts = [_named_part(item, sources, uids) for item in sound]
    whole = [item for item, part in zip(sound, parts, strict=True) if part > 0.99]
    # the one volume that holds all; a mean holds what each of its directions does, and more
    named = sorted(whole, key=lambda item: len(item.every_member))[:1]
    named = named or [item for item, part in zip(sound, parts, strict=True) if part > 0]
    if not named and len(sound) > 1 and any(item.weighting != "ct" for item in sound):
        raise NotSegmented(f"the segmentation does not say which of the {len(sound)} volumes of its series it shows")
    named = named or sound
    return named, [item for item in sound if item not in named]


def _is_automatic(seg: SegmentationFile) -> bool:
    return all(segment.is_automatic for segment in seg.segments)


def _refuse_doubtful(seg: SegmentationFile, convention: Convention) -> None:
    if convention.doubtful and any(convention.doubtful.search(segment.label) for segment in seg.segments):
        raise NotSegmented(
            "a segment is labelled otherwise than the collection describes (necrosis apart from the mass)"
        )


def _nothing_known(automatic: int) -> str:
    if automatic:
        return "all that is known was segmented by an algorithm, and no person corrected it; --automatic takes it"
    return "no segment is known to be a liver, a lesion or a vessel, by label or by code"


def _remarks_on_segments(found: int, taken: int, automatic: int, unknown: int) -> list[str]:
    told = {
        f"{taken} of {found} segmentations of the series were used": found > taken,
        f"{automatic} segments of an algorithm were left out": automatic > 0,
        f"{unknown} segments of other structures were left out": unknown > 0,
    }
    return [remark for remark, is_so in told.items() if is_so]


def _remarks_on(others: Sequence[VolumeFacts]) -> tuple[str, ...]:
    return (f"{len(others)} other volumes of the series were not segmented and are left out",) if others else ()


def _named_part(facts: VolumeFacts, named: frozenset[Source], uids: Mapping[Path, str]) -> float:
    """Which part of what the segmentation names belongs to the volume."""
    frames: dict[str, set[int]] = {}
    for path, numbers in facts.every_member:
        frames.setdefault(uids[path], set()).update(numbers)
    held = sum(uid in frames and (frame is None or not frames[uid] or frame in frames[uid]) for uid, frame in named)
    return held / len(named) if named else 0.0


def _read(volumes: Sequence[VolumeFacts], choices: Sequence[Choice], headers: Mapping[Path, Dataset]) -> list[_Read]:
    """Each volume with the segments that lie on its grid; a grid that came before is not placed on again."""
    found: list[_Read] = []
    for facts in volumes:
        source = read_volume(role_input(facts, headers))
        twin = next((item for item in found if item.segments and _is_same_grid(item.source, source)), None)
        if twin:
            found.append(_Read(facts, source, twin.segments))
            continue
        try:
            segments = _placed(choices, source)
        except GeometryError as error:
            found.append(_Read(facts, source, (), str(error)))
            continue
        inside = inside_part(segments)
        if inside < LEAST_INSIDE:
            reason = f"only {inside:.0%} of liver and lesions lie inside the images, {LEAST_INSIDE:.0%} are asked for"
            found.append(_Read(facts, source, (), reason))
            continue
        found.append(_Read(facts, source, segments))
    return found


def _is_same_grid(one: SourceVolume, other: SourceVolume) -> bool:
    a, b = one.volume, other.volume
    return a.array_DHW.shape == b.array_DHW.shape and lies_alike(a.affine_lps_mm, b.affine_lps_mm, a.array_DHW.shape)


def _placed(choices: Sequence[Choice], source: SourceVolume) -> tuple[RoleSegment, ...]:
    found = []
    for choice in choices:
        labels = {segment.number: segment.label for segment in choice.seg.segments}
        placed = place(choice.seg, source, choice.roles)
        found += [RoleSegment(choice.roles[number], labels[number], item) for number, item in placed.items()]
    return tuple(found)


def _images(
    read: Sequence[_Read], convention: Convention, time_point: TimePoint | None, remarks: tuple[str, ...]
) -> SeriesImages:
    contrasts = [item.contrast for item in read]
    phases = phases_of(contrasts) if any(contrasts) and not convention.phase else _told_phases(read, convention)
    names = _names(read, phases)
    sets = _label_sets(read, convention)
    order = sorted(range(len(read)), key=lambda i: (sets[i] is None, phases[i] != PORTAL_VENOUS, phases[i] != ARTERIAL))
    told = [remark for labels in sets if labels for remark in labels.remarks]
    told += [remark for name, item in zip(names, read, strict=True) for remark in _remarks_on_volume(name, item)]
    return SeriesImages(
        tuple(NamedImage(names[i], _case_image(read[i], phases[i], sets[i], time_point)) for i in order),
        tuple(dict.fromkeys((*remarks, *told, *_remarks_on_phases(names, contrasts, phases)))),
    )


def _label_sets(read: Sequence[_Read], convention: Convention) -> list[LabelSet | None]:
    """The labels of each volume, made once for those that share a grid; None for one without."""
    made: dict[int, LabelSet] = {}
    for item in read:
        if item.segments and id(item.segments) not in made:
            made[id(item.segments)] = labels_of(item.segments, convention)
    return [made[id(item.segments)] if item.segments else None for item in read]


def _told_phases(read: Sequence[_Read], convention: Convention) -> tuple[str | None, ...]:
    """As the collection says; else by the header where the series is one volume, for it speaks of them all."""
    if convention.phase:
        return (convention.phase,) * len(read)
    return tuple(item.facts.contrast_phase if len(read) == 1 else None for item in read)


def _names(read: Sequence[_Read], phases: Sequence[str | None]) -> list[str]:
    """What each volume shows; of several acquisitions without a phase, which it is by the clock."""
    by_time = sorted(
        read, key=lambda item: (item.facts.acquired or datetime.min, item.source.slices[0].sop_instance_uid)
    )
    turns = {id(item): turn for turn, item in enumerate(by_time, start=1)}
    return [
        _name(item, phase, turns[id(item)] if len(read) > 1 else 0) for item, phase in zip(read, phases, strict=True)
    ]


def _name(item: _Read, phase: str | None, turn: int) -> str:
    if item.source.modality == "CT":
        return phase or (f"acquisition-{turn}" if turn else "ct")
    b = item.facts.b_s_mm2
    return _weighting(item.facts) + (f"-b{b}" if b is not None else "")


def _weighting(facts: VolumeFacts) -> str:
    return DWI_TRACE if facts.directionality == DERIVED_MEAN else facts.weighting


def _case_image(item: _Read, phase: str | None, labels: LabelSet | None, time_point: TimePoint | None) -> CaseImage:
    b = item.facts.b_s_mm2
    return CaseImage(
        volume=item.source.volume,
        labels=labels.labels if labels else {},
        modality=item.source.modality,
        weighting=_weighting(item.facts),
        phase=phase,
        b_value_s_mm2=float(b) if b is not None else None,
        time_point=time_point,
    )


def _remarks_on_volume(name: str, item: _Read) -> list[str]:
    told = [f"{name}: {item.source.derivation}"] if item.source.derivation else []
    return [*told, f"{name} has no labels: {item.reason}"] if item.reason else told


def _remarks_on_phases(
    names: Sequence[str], contrasts: Sequence[VesselContrast | None], phases: Sequence[str | None]
) -> list[str]:
    told = [
        f"{name}: portal vein {contrast.portal_hu:.0f} HU, aorta {contrast.aorta_hu:.0f} HU"
        for name, contrast in zip(names, contrasts, strict=True)
        if contrast
    ]
    return [*told, "no portal-venous phase among the acquisitions"] if told and PORTAL_VENOUS not in phases else told
