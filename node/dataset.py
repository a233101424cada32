"""`crlm-node dataset import`: folders of images and segmentations → neutral case folders (model/cases.py).

One case is what one patient's one study gives: its segmented series, each with its labels. Whatever gives no case is
told with its reason, and stops nothing else. Nothing in a case names a patient or a day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.cases import LESION, Case, CaseImage, CaseProblem, TimePoint, write_case
from node.dataset_conventions import Convention, convention_of
from node.dataset_index import DatasetIndex, ImageSeries, index_files, read_headers
from node.dataset_pseudonyms import Pseudonyms
from node.dataset_series import NamedImage, SeriesImages, images_of_series
from node.dicom.seg_file import SegmentationFile, read_segmentation
from node.errors import NodeError
from node.survey import dicom_files

Heard = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ImportWish:
    """What the person at the keyboard says: `collection` is auto or a name of `CONVENTIONS`."""

    pseudonyms: Pseudonyms
    collection: str = "auto"
    licence: str | None = None
    time_point: TimePoint | None = None
    takes_automatic: bool = False


@dataclass(frozen=True)
class Imported:
    """A case that was written."""

    case: str
    folder: Path
    source: str
    images: Mapping[str, Mapping[str, int]]
    """Image → label → how many: lesions, and 1 for any other label."""
    remarks: tuple[str, ...]

    @property
    def lesions(self) -> int:
        """In the image that has the most of them: phases of one examination show the same."""
        return max((labels.get(LESION, 0) for labels in self.images.values()), default=0)

    def as_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "folder": str(self.folder),
            "source": self.source,
            "images": {name: dict(labels) for name, labels in self.images.items()},
            "lesions": self.lesions,
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True)
class Skipped:
    """What gave no case, or no part of one, and why."""

    source: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        return {"source": self.source, "reason": self.reason}


@dataclass(frozen=True)
class _Segmented:
    """An image series, the files of its segmentations, and the case it belongs to."""

    series: ImageSeries
    paths: tuple[Path, ...]
    convention: Convention
    patient: str
    case: str


def import_dataset(
    sources: Sequence[Path], out: Path, wish: ImportWish, heard: Heard = lambda phase, done, of: None
) -> Iterator[Imported | Skipped]:
    """One answer for each case, and one for whatever gave none. `heard(phase, done, of)` is told how far it is."""
    index = index_files(dicom_files(sources), lambda done, of: heard("reading headers", done, of))
    yield from (Skipped(str(item.path), item.reason) for item in index.unreadable)
    segmented, skipped = _segmented(index, wish)
    yield from skipped
    by_case: dict[str, list[_Segmented]] = {}
    for item in segmented:
        by_case.setdefault(item.case, []).append(item)
    for done, group in enumerate(by_case[name] for name in sorted(by_case)):
        heard("writing cases", done, len(by_case))
        yield from _import_case(group, index, out, wish)
    heard("writing cases", len(by_case), len(by_case))


def describe(case: Case, folder: Path, source: str) -> Imported:
    """A case that lies in `folder` now."""
    return Imported(
        case.case, folder, source, {name: _counts(each) for name, each in case.images.items()}, case.remarks
    )


def named_apart(images: Sequence[NamedImage]) -> dict[str, CaseImage]:
    """By name; a second one of a name is `name-2`."""
    turns: Counter[str] = Counter()
    found: dict[str, CaseImage] = {}
    for item in images:
        turns[item.name] += 1
        found[item.name if turns[item.name] == 1 else f"{item.name}-{turns[item.name]}"] = item.image
    return found


def _segmented(index: DatasetIndex, wish: ImportWish) -> tuple[list[_Segmented], list[Skipped]]:
    of_series: dict[str, list[Path]] = {}
    skipped: list[Skipped] = []
    for path in index.segmentations:
        try:
            uid = index.series_of_segmentation(path)
        except NodeError as error:
            skipped.append(Skipped(str(path), str(error)))
            continue
        if uid is None:
            skipped.append(Skipped(str(path), "the images that it refers to are not among the sources"))
        else:
            of_series.setdefault(uid, []).append(path)
    return [_placed_in_case(index.series[uid], tuple(paths), wish) for uid, paths in sorted(of_series.items())], skipped


def _placed_in_case(series: ImageSeries, paths: tuple[Path, ...], wish: ImportWish) -> _Segmented:
    convention = convention_of(wish.collection, series.patient_id)
    is_pseudonym = bool(convention.patient_ids and convention.patient_ids.fullmatch(series.patient_id))
    patient = wish.pseudonyms.patient(series.patient_id, series.issuer, series.study_uid, is_pseudonym=is_pseudonym)
    case = patient if convention.is_case_a_patient else f"{patient}-{wish.pseudonyms.study(series.study_uid)}"
    return _Segmented(series, paths, convention, patient, case)


def _import_case(
    group: Sequence[_Segmented], index: DatasetIndex, out: Path, wish: ImportWish
) -> Iterator[Imported | Skipped]:
    images: list[NamedImage] = []
    remarks: list[str] = []
    for item in group:
        segs = yield from _readable(item.paths)
        try:
            found = _images_of(item, segs, index, wish) if segs else SeriesImages((), ())
        except NodeError as error:
            yield Skipped(item.series.source, str(error))
            continue
        images += found.images
        remarks += found.remarks
    if images:
        yield _write(group[0], images, remarks, out, wish)


def _readable(paths: Sequence[Path]) -> Generator[Skipped, None, list[SegmentationFile]]:
    """The segmentations that can be read; the others are told."""
    segs: list[SegmentationFile] = []
    for path in paths:
        try:
            segs.append(read_segmentation(path))
        except NodeError as error:
            yield Skipped(str(path), str(error))
    return segs


def _images_of(
    item: _Segmented, segs: Sequence[SegmentationFile], index: DatasetIndex, wish: ImportWish
) -> SeriesImages:
    return images_of_series(
        segs,
        read_headers(item.series.paths),
        read_headers(index.notes.get(item.series.study_uid, ())),
        item.convention,
        wish.time_point,
        takes_automatic=wish.takes_automatic,
    )


def _write(
    first: _Segmented, images: Sequence[NamedImage], remarks: Sequence[str], out: Path, wish: ImportWish
) -> Imported | Skipped:
    case = Case(
        case=first.case,
        patient=first.patient,
        collection=first.convention.collection,
        licence=wish.licence or first.convention.licence,
        images=named_apart(images),
        remarks=tuple(dict.fromkeys(remarks)),
    )
    try:
        folder = write_case(out, case)
    except CaseProblem as problem:
        return Skipped(first.series.source, str(problem))
    return describe(case, folder, first.series.source)


def _counts(image: CaseImage) -> dict[str, int]:
    return {name: int(labels_DHW.max(initial=0)) for name, labels_DHW in image.labels.items()}
