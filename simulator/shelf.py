"""The archive's folder: instances as Part-10 files, and an index to find them by (PS3.4 C.2.2.2 matching).

One file an instance, `<study>/<series>/<sop>.dcm`, written beside and renamed, so that a file is whole or absent.
The index lives in memory and is read again from the folder at start.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

LEVELS = ("STUDY", "SERIES", "IMAGE")
_UID = re.compile(r"[0-9.]{1,64}")
_OF_LEVEL = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_INDEXED = (
    "SpecificCharacterSet SOPClassUID SOPInstanceUID StudyDate SeriesDate ContentDate StudyTime SeriesTime ContentTime "
    "AccessionNumber Modality Manufacturer ReferringPhysicianName StudyDescription SeriesDescription PatientName "
    "PatientID IssuerOfPatientID PatientBirthDate PatientSex BodyPartExamined StudyInstanceUID SeriesInstanceUID "
    "StudyID SeriesNumber InstanceNumber NumberOfFrames"
)
_RANGED = ("DA", "TM", "DT")


class NotStorable(Exception):
    """Bytes without the UIDs that an instance must have."""


@dataclass(frozen=True)
class StoredInstance:
    """One instance of the archive. `header` holds what can be asked for."""

    path: Path
    transfer_syntax_uid: str
    header: Dataset

    def __getattr__(self, keyword: str) -> str:
        """Any indexed attribute as text: `instance.SOPClassUID`, `instance.Modality`; "" where absent."""
        if keyword.startswith("_") or keyword not in _INDEXED.split():
            raise AttributeError(keyword)
        return str(self.header.get(keyword, ""))

    @property
    def uid(self) -> str:
        """Its SOP Instance UID."""
        return str(self.header.SOPInstanceUID)


class Shelf:
    """All instances of one folder. Safe for several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._instances: dict[str, StoredInstance] = {}
        for path in sorted(folder.rglob("*.dcm")):
            header = dcmread(path, specific_tags=_INDEXED.split(), stop_before_pixels=True)
            self._instances[str(header.SOPInstanceUID)] = _stored(path, header)

    def keep(self, part10: bytes) -> StoredInstance:
        """Keeps an instance; the same UID again replaces it. Raises NotStorable for bytes without their UIDs."""
        header = dcmread(BytesIO(part10), specific_tags=_INDEXED.split(), stop_before_pixels=True)
        uids = [str(header.get(keyword, "")) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        if not all(_UID.fullmatch(uid) for uid in uids):  # a UID becomes a file name
            raise NotStorable("study, series or SOP Instance UID is missing or no UID")
        study, series, sop = uids
        path = self.folder / study / series / f"{sop}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{threading.get_ident()}.part")
        partial.write_bytes(part10)
        partial.replace(path)
        with self._lock:
            self._instances[sop] = _stored(path, header)
            return self._instances[sop]

    def clear(self) -> None:
        """Forgets every instance; the files stay."""
        with self._lock:
            self._instances.clear()

    def instances(self) -> list[StoredInstance]:
        """All instances, in the order of their arrival."""
        with self._lock:
            return list(self._instances.values())

    def get(self, sop_instance_uid: str) -> StoredInstance | None:
        """One instance, None where it is not here."""
        with self._lock:
            return self._instances.get(sop_instance_uid)

    def select(self, identifier: Dataset) -> list[StoredInstance]:
        """Instances under the unique keys of a retrieve request, whatever its level."""
        keys = [_key(identifier, keyword) for keyword in _OF_LEVEL.values() if identifier.get(keyword)]
        return [instance for instance in self.instances() if keys and all(key.fits(instance.header) for key in keys)]

    def find(self, identifier: Dataset) -> Iterator[Dataset]:
        """Answers to a query, one an entity of its level. Raises ValueError for a level that there is not."""
        level = str(identifier.get("QueryRetrieveLevel", ""))
        if level not in LEVELS:
            raise ValueError(f"query level {level!r} is none of {', '.join(LEVELS)}")
        keys = [_key(identifier, keyword) for keyword in _INDEXED.split() if identifier.get(keyword)]
        entities: dict[str, list[StoredInstance]] = {}
        for instance in self.instances():
            entities.setdefault(str(instance.header.get(_OF_LEVEL[level])), []).append(instance)
        for members in entities.values():
            answer = _answer(identifier, level, members)
            if all(key.fits(members[0].header) for key in keys) and _modality_fits(identifier, answer):
                yield answer


@dataclass(frozen=True)
class _Key:
    """One matching key (PS3.4 C.2.2.2): single value, list of UIDs, wild card or range."""

    keyword: str
    wanted: tuple[str, ...]

    def fits(self, header: Dataset) -> bool:
        found = str(header.get(self.keyword, ""))
        return any(self._fits_one(found, wanted) for wanted in self.wanted)

    def _fits_one(self, found: str, wanted: str) -> bool:
        vr = dictionary_VR(self.keyword)
        if vr in _RANGED and "-" in wanted:
            low, high = wanted.split("-", 1)
            return (not low or found >= low) and (not high or found[: len(high)] <= high)
        if vr == "PN":
            return fnmatchcase(found.lower().rstrip("^="), wanted.lower().rstrip("^="))
        return found == wanted if vr == "UI" else fnmatchcase(found, wanted)


def _key(identifier: Dataset, keyword: str) -> _Key:
    value = identifier.get(keyword)
    values: Iterable[object] = value if isinstance(value, MultiValue) else [value]
    return _Key(keyword, tuple(re.sub(r"([\[\]])", r"[\1]", str(item)) for item in values))


def _answer(identifier: Dataset, level: str, members: Sequence[StoredInstance]) -> Dataset:
    """The attributes asked for, as far as they are known, and the counts that belong to the level."""
    answer, first = Dataset(), members[0].header
    answer.SpecificCharacterSet = "ISO_IR 192"
    counts = {
        "NumberOfStudyRelatedSeries": len({member.SeriesInstanceUID for member in members}),
        "NumberOfStudyRelatedInstances": len(members),
        "NumberOfSeriesRelatedInstances": len(members),
        "ModalitiesInStudy": sorted({member.Modality for member in members}),
    }
    for element in identifier:
        keyword = element.keyword
        if keyword in ("", "SpecificCharacterSet", "QueryRetrieveLevel"):
            continue
        setattr(answer, keyword, counts.get(keyword, first.get(keyword, "")))
    answer.QueryRetrieveLevel = level
    setattr(answer, _OF_LEVEL[level], first.get(_OF_LEVEL[level]))
    return answer


def _modality_fits(identifier: Dataset, answer: Dataset) -> bool:
    wanted = identifier.get("ModalitiesInStudy")
    if not wanted:
        return True
    wished = [wanted] if isinstance(wanted, str) else list(wanted)
    found = answer.ModalitiesInStudy
    return bool({str(m) for m in wished} & ({found} if isinstance(found, str) else {str(m) for m in found}))


def _stored(path: Path, header: Dataset) -> StoredInstance:
    header.decode()  # names in any character set become Unicode, once
    return StoredInstance(path, str(header.file_meta.TransferSyntaxUID), header)
