"""What only the whole study tells of a volume: whether all is of one patient, and what its archive took back.

A key object note names instances, and no volume that holds one is analysed. An archive sends such a note when a
technologist rejects a series, when it belongs to another patient, or when its time of keeping is over (IHE Imaging
Object Change Management; titles of PS3.16 CID 7011).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from node.config_routes import Trust
from node.dicom.header import text, value
from node.domain import SeriesKey
from node.evidence import read_series
from node.evidence_facts import SEVERAL_IN_SERIES, SEVERAL_IN_STUDY, SeriesEvidence, Sign, VolumeFacts

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
REJECTED = "rejected"
TITLES = {
    "113001": "rejected for quality reasons",
    "113037": "rejected for patient safety reasons",
    "113038": "incorrect modality worklist entry",
    "113039": "data retention policy expired",
}
"""Document titles (DCM) that reject what the note lists; any other title only points at it."""


@dataclass(frozen=True)
class StudyEvidence:
    """What the headers of a study tell: series by series, and of each volume what only the whole study tells."""

    series: Mapping[SeriesKey, SeriesEvidence]
    volumes: tuple[VolumeFacts, ...]


def read_study(
    headers: Mapping[SeriesKey, Mapping[Path, Dataset]], keywords: Iterable[str] = (), trust: Sequence[Trust] = ()
) -> StudyEvidence:
    """The evidence of a study's series; each has a header at least. `keywords` and `trust` as for `read_series`."""
    series = {key: read_series(found, keywords, trust) for key, found in headers.items()}
    everything = {path: dataset for found in headers.values() for path, dataset in found.items()}
    return StudyEvidence(series, tuple(volumes_of(list(series.values()), everything)))


def rejections(headers: Iterable[Dataset]) -> dict[str, Sign]:
    """SOP Instance UID → why a note among `headers` rejects it."""
    found: dict[str, Sign] = {}
    for note in headers:
        if text(note, "SOPClassUID") == KEY_OBJECT_SELECTION and (title := _title(note)):
            sign = Sign(REJECTED, f"a key object note rejects it: {title}", "(0040,A043)")
            found.update((uid, sign) for uid in _listed(note))
    return found


def volumes_of(study: Sequence[SeriesEvidence], headers: Mapping[Path, Dataset]) -> list[VolumeFacts]:
    """All volumes of a study's series, with what the study's `headers` tell of each: rejection, and whose it is."""
    volumes = [volume for series in study for volume in series.volumes]
    if rejected := rejections(headers.values()):
        volumes = [_marked(volume, rejected, headers) for volume in volumes]
    if len(_patients(headers.values())) > 1:
        volumes = [replace(volume, patients=_whose(volume, headers)) for volume in volumes]
    return volumes


def _whose(volume: VolumeFacts, headers: Mapping[Path, Dataset]) -> str:
    """Several patients lie in the study; do they in this very series?"""
    folder = [dataset for dataset in headers.values() if text(dataset, "SeriesInstanceUID") == volume.series_uid]
    return SEVERAL_IN_SERIES if len(_patients(folder)) > 1 else SEVERAL_IN_STUDY


def _patients(headers: Iterable[Dataset]) -> set[str]:
    """The Patient IDs that are told; one that is absent contradicts none."""
    return {told for dataset in headers if (told := text(dataset, "PatientID"))}


def _marked(volume: VolumeFacts, rejected: Mapping[str, Sign], headers: Mapping[Path, Dataset]) -> VolumeFacts:
    uids = (text(headers[path], "SOPInstanceUID") for path, _ in volume.every_member)
    sign = next((rejected[uid] for uid in uids if uid in rejected), None)
    return replace(volume, rejection=sign) if sign else volume


def _title(note: Dataset) -> str | None:
    codes = value(note, "ConceptNameCodeSequence", ())
    return next((TITLES.get(text(c, "CodeValue")) for c in codes if text(c, "CodingSchemeDesignator") == "DCM"), None)


def _listed(note: Dataset) -> Iterator[str]:
    for study in value(note, "CurrentRequestedProcedureEvidenceSequence", ()):
        for series in value(study, "ReferencedSeriesSequence", ()):
            for instance in value(series, "ReferencedSOPSequence", ()):
                yield text(instance, "ReferencedSOPInstanceUID")
