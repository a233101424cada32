"""Folders of DICOM files → which image series there are, and which segmentations: one pass over headers, kept small.

Only names and UIDs are kept of each file, so that a collection of a hundred thousand instances costs some ten
megabytes; the headers of a series are read again when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from node.dicom.header import read_header, text, value
from node.dicom.seg_file import SEG_CLASSES, read_segmentation
from node.dicom.volume import modality_of
from node.errors import UnreadableInstance
from node.evidence_study import KEY_OBJECT_SELECTION
from node.survey import Unreadable


@dataclass
class ImageSeries:
    """The image files of one series, each instance once."""

    study_uid: str
    series_uid: str
    patient_id: str
    issuer: str
    paths: list[Path] = field(default_factory=list)

    @property
    def source(self) -> str:
        """Where it lies, for a person."""
        return str(self.paths[0].parent)


@dataclass(frozen=True)
class DatasetIndex:
    """All that was found: images by Series Instance UID, key object notes by study, and the segmentations."""

    series: Mapping[str, ImageSeries]
    series_of: Mapping[str, str]
    """SOP Instance UID of an image → UID of its series."""
    segmentations: Mapping[Path, tuple[str, ...]]
    """With the series that each refers to, found here or not."""
    notes: Mapping[str, Sequence[Path]]
    unreadable: tuple[Unreadable, ...]

    def series_of_segmentation(self, path: Path) -> str | None:
        """The series that a segmentation speaks of: as it refers to it, else that of the instances it names.

        Raises UnreadableInstance.
        """
        for uid in self.segmentations[path]:
            if uid in self.series:
                return uid
        named = sorted(uid for uid, _ in read_segmentation(path).sources)
        return next((self.series_of[uid] for uid in named if uid in self.series_of), None)


def index_files(files: Sequence[Path], heard: Callable[[int, int], None] = lambda done, of: None) -> DatasetIndex:
    """Read every header once. `heard(files done, of)` is told now and then."""
    series: dict[str, ImageSeries] = {}
    series_of: dict[str, str] = {}
    segmentations: dict[Path, tuple[str, ...]] = {}
    notes: dict[str, list[Path]] = {}
    unreadable: list[Unreadable] = []
    for number, path in enumerate(files, start=1):
        try:
            header = read_header(path)
        except UnreadableInstance as error:
            unreadable.append(Unreadable(path, str(error)))
            continue
        except OSError as error:
            unreadable.append(Unreadable(path, error.strerror or type(error).__name__))
            continue
        sop_class, sop_uid = text(header, "SOPClassUID"), text(header, "SOPInstanceUID")
        if sop_class in SEG_CLASSES:
            referred = value(header, "ReferencedSeriesSequence", ())
            segmentations[path] = tuple(text(item, "SeriesInstanceUID") for item in referred)
        elif sop_class == KEY_OBJECT_SELECTION:
            notes.setdefault(text(header, "StudyInstanceUID"), []).append(path)
        elif modality_of(sop_class) and sop_uid not in series_of:
            found = _series_of(header, series)
            found.paths.append(path)
            series_of[sop_uid] = found.series_uid
        if number % 100 == 0 or number == len(files):
            heard(number, len(files))
    return DatasetIndex(series, series_of, segmentations, notes, tuple(unreadable))


def read_headers(paths: Iterable[Path]) -> dict[Path, Dataset]:
    """Raises UnreadableInstance."""
    return {path: read_header(path) for path in paths}


def _series_of(header: Dataset, series: dict[str, ImageSeries]) -> ImageSeries:
    uid = text(header, "SeriesInstanceUID")
    if uid not in series:
        patient = text(header, "PatientID"), text(header, "IssuerOfPatientID")
        series[uid] = ImageSeries(text(header, "StudyInstanceUID"), uid, *patient)
    return series[uid]
