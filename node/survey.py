"""Files and folders → what routing would decide, without a spool or a database: `crlm-node route PATH…`.

Also for headers that the receiver would never take: a file without UIDs is explained, not passed over.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from node.config import Config
from node.dicom.context import DEMO_WORDS
from node.dicom.header import read_header, text
from node.domain import ResultObject, TimePoint
from node.errors import UnreadableInstance
from node.evidence import SeriesEvidence, read_series
from node.evidence_declared import called_ae
from node.evidence_study import volumes_of
from node.routing import StudyDecision, as_json, decide
from node.timepoint import Therapy, time_point_of

NOT_DICOM = re.compile(r"\.(json|txt|md|csv|tsv|ya?ml|xml|html?|pdf|png|jpe?g|gz|zip|py|npz|nii|nrrd)$", re.IGNORECASE)
"""Skipped when a folder is searched; a file that is named is always read."""


@dataclass(frozen=True)
class Unreadable:
    """A file that gave no header, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class SurveyResult:
    """Decisions study by study, with the evidence they rest on, and the files that could not be read."""

    studies: tuple[StudyDecision, ...]
    series: tuple[SeriesEvidence, ...]
    unreadable: tuple[Unreadable, ...]

    def as_json(self) -> list[dict[str, Any]]:
        """One object per volume found, then one per unreadable file (`unreadable`: true)."""
        volumes = [item for study in self.studies for item in as_json(study)]
        return volumes + [
            {"unreadable": True, "source": str(item.path), "reason": item.reason} for item in self.unreadable
        ]


def dicom_files(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The files named, and those in the folders named that may be DICOM, each once and in a fixed order."""
    found: dict[Path, None] = {}
    for path in paths:
        for file in [path] if not path.is_dir() else sorted(path.rglob("*")):
            is_wanted = file == path or (not NOT_DICOM.search(file.name) and file.name != "DICOMDIR")
            if is_wanted and (file == path or file.is_file()) and not _is_hidden(file, path):
                found[file] = None
    return tuple(found)


def _is_hidden(file: Path, root: Path) -> bool:
    return file != root and any(part.startswith(".") for part in file.relative_to(root).parts)


def survey(
    paths: Sequence[Path], config: Config, *, operator: TimePoint | None = None, therapies: Sequence[Therapy] = ()
) -> SurveyResult:
    """What would be decided of every series found under `paths`. `operator` is a time point told by hand."""
    headers, unreadable = _headers(dicom_files(paths))
    keywords = config.node.time_point.keywords
    found = [(read_series(group, keywords, config.trust), group) for group in _series(headers)]
    by_study: dict[tuple[str, str], list[tuple[SeriesEvidence, dict[Path, Dataset]]]] = defaultdict(list)
    for evidence, group in found:
        # without a study's UID there is no study: such series have nothing in common
        by_study[evidence.header.study_uid, evidence.header.study_uid or evidence.source].append((evidence, group))
    studies = tuple(_decide(study, config, operator, therapies) for study in by_study.values())
    return SurveyResult(studies, tuple(evidence for evidence, _ in found), tuple(unreadable))


def _decide(
    study: Sequence[tuple[SeriesEvidence, Mapping[Path, Dataset]]],
    config: Config,
    operator: TimePoint | None,
    therapies: Sequence[Therapy],
) -> StudyDecision:
    """One study, of its own headers alone: whose images another study holds is nothing to this one."""
    headers = {path: dataset for _, group in study for path, dataset in group.items()}
    first = next(iter(headers.values()))
    finding = time_point_of(
        study[0][0].header,
        operator=operator,
        called=config.called_time_point(called_ae(first)),
        therapies=therapies,
        settings=config.node.time_point,
        site_issuer=config.node.site.patient_id_issuer,
    )
    return decide(volumes_of([evidence for evidence, _ in study], headers), config.routes, finding)


def _headers(files: Iterable[Path]) -> tuple[dict[Path, Dataset], list[Unreadable]]:
    headers: dict[Path, Dataset] = {}
    unreadable: list[Unreadable] = []
    for path in files:
        try:
            headers[path] = read_header(path, required=("SOPClassUID",))
        except UnreadableInstance as error:
            unreadable.append(Unreadable(path, str(error)))
        except OSError as error:
            unreadable.append(Unreadable(path, error.strerror or type(error).__name__))
    return headers, unreadable


def _series(headers: dict[Path, Dataset]) -> Iterator[dict[Path, Dataset]]:
    """One series at a time. Copies of an instance in another folder are another copy of the series, judged apart."""
    groups: dict[tuple[str, str], dict[Path, Dataset]] = defaultdict(dict)
    for path, dataset in headers.items():
        uid = text(dataset, "SeriesInstanceUID")
        groups[text(dataset, "StudyInstanceUID"), uid or str(path.parent)][path] = dataset
    for group in groups.values():
        uids = {text(dataset, "SOPInstanceUID") for dataset in group.values()}
        yield from [group] if len(uids) == len(group) else _by_folder(group)


def _by_folder(group: dict[Path, Dataset]) -> Iterator[dict[Path, Dataset]]:
    folders: dict[Path, dict[Path, Dataset]] = defaultdict(dict)
    for path, dataset in group.items():
        folders[path.parent][path] = dataset
    yield from folders.values()


def is_of_demo_weights(path: Path) -> bool:
    """Whether an object says of itself that it was made with demo weights. Raises UnreadableInstance."""
    return DEMO_WORDS in text(read_header(path), "SeriesDescription")


def describe_instance(path: Path) -> ResultObject:
    """A DICOM file as an object that can be sent. Raises UnreadableInstance."""
    header = read_header(path)
    return ResultObject(
        kind="instance",
        sop_class_uid=text(header, "SOPClassUID"),
        sop_instance_uid=text(header, "SOPInstanceUID"),
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
