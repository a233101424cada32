"""Headers to reason about: built by hand for one question each, or read from real series."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node.config import load_config
from node.config_routes import Route, Trust
from node.dicom.header import read_header
from node.domain import Decision, TimePoint, TimePointFinding
from node.evidence import VolumeFacts, read_series
from node.routing import StudyDecision, VolumeDecision, decide

ROOT = Path(__file__).resolve().parents[3]
AXIAL, CORONAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]
Headers = dict[Path, Dataset]

MR_TAGS: Mapping[str, Any] = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
    "Modality": "MR",
    "Manufacturer": "SIEMENS",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM"],
    "BodyPartExamined": "ABDOMEN",
    "SeriesDescription": "t2_tse_fs_tra",
    "ScanningSequence": "SE",
    "ScanOptions": "FS",
    "EchoTime": "84",
    "RepetitionTime": "4000",
}
CT_TAGS: Mapping[str, Any] = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "Modality": "CT",
    "Manufacturer": "GE MEDICAL SYSTEMS",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "BodyPartExamined": "ABDOMEN",
    "SeriesDescription": "Liver PV",
    "ConvolutionKernel": "STANDARD",
    "ContrastBolusAgent": "OMNI 350",
    "ContrastBolusRoute": "IV",
    "ContrastBolusStartTime": "101000",
    "AcquisitionTime": "101110",
}


@dataclass(frozen=True)
class Workbench:
    """Makes series and asks about them; every method returns something new."""

    routes: tuple[Route, ...]
    trust: tuple[Trust, ...] = ()

    def trusting(self, **lines: Any) -> Workbench:
        """The same of a site that declares one thing."""
        return replace(self, trust=(*self.trust, Trust.model_validate(lines)))

    def mr(self, count: int = 20, **tags: Any) -> Headers:
        """Axial T2-weighted fat-suppressed slices of the abdomen, 7 mm apart; `tags` by keyword, None removes."""
        return self._slices(count, {**MR_TAGS, **tags})

    def ct(self, count: int = 40, **tags: Any) -> Headers:
        """A portal-venous CT told by words and by timing."""
        return self._slices(count, {**CT_TAGS, **tags})

    def dwi(self, b_values: Iterable[float] = (50, 400, 1000), count: int = 20, **tags: Any) -> Headers:
        """Traces at several b-values in one series, told by the public elements."""
        parts = []
        for number, b in enumerate(b_values):
            told = {"DiffusionBValue": float(b), "DiffusionDirectionality": "ISOTROPIC" if b else "NONE"}
            header = {**MR_TAGS, "ScanningSequence": "EP", "SeriesDescription": "ep2d_diff_TRACEW", **told, **tags}
            parts.append(self._slices(count, header, start=number * count))
        return {path: dataset for part in parts for path, dataset in part.items()}

    def _slices(self, count: int, tags: Mapping[str, Any], start: int = 0) -> Headers:
        return {Path(f"/series/{n:04d}.dcm"): _slice(n, n - start, tags) for n in range(start, start + count)}

    def again(self, headers: Headers, shift: int = 5000, **tags: Any) -> Headers:
        """The same slices as further instances with other values."""
        made = {}
        for number, dataset in enumerate(headers.values()):
            other = copy.deepcopy(dataset)
            other.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{shift}"
            put(other, tags)
            made[Path(f"/series/{shift + number:05d}.dcm")] = other
        return made

    def facts(self, headers: Headers) -> tuple[VolumeFacts, ...]:
        """The volumes of the one series."""
        return read_series(headers, trust=self.trust).volumes

    def fact(self, headers: Headers) -> VolumeFacts:
        """The only volume of the series."""
        (volume,) = self.facts(headers)
        return volume

    def decide(self, *series: Headers, time_point: TimePoint = TimePoint.PRE) -> StudyDecision:
        """The decision on a study of these series, its time point told by an operator."""
        held = None if time_point is not TimePoint.UNKNOWN else "nobody told"
        finding = TimePointFinding(time_point, "operator", (), held)
        return decide([volume for headers in series for volume in self.facts(headers)], self.routes, finding)

    def best(self, *series: Headers, time_point: TimePoint = TimePoint.PRE) -> VolumeDecision:
        """The most favourable decision on any volume of the study."""
        order = {Decision.ACCEPT: 0, Decision.CONFIRM: 1, Decision.REFUSE: 2}
        return min(self.decide(*series, time_point=time_point).volumes, key=lambda item: order[item.decision])


def _slice(number: int, place: int, tags: Mapping[str, Any]) -> Dataset:
    dataset = Dataset()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.SOPInstanceUID = f"1.2.3.4.{number + 1}"
    dataset.FrameOfReferenceUID = "1.2.3.9"
    dataset.StudyDate = dataset.AcquisitionDate = "20260110"
    dataset.PatientID, dataset.SeriesNumber = "P1", 3
    dataset.ImageOrientationPatient = AXIAL
    dataset.ImagePositionPatient = [-150.0, -120.0, place * 7.0]
    dataset.PixelSpacing, dataset.Rows, dataset.Columns = [1.5, 1.5], 256, 256
    dataset.AcquisitionTime = "101110"
    put(dataset, tags)
    return dataset


def put(dataset: Dataset, tags: Mapping[str, Any]) -> None:
    """Set by keyword; None removes."""
    for keyword, told in tags.items():
        if told is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, told)


@pytest.fixture(scope="session")
def routes() -> tuple[Route, ...]:
    """The shipped routes."""
    return load_config(ROOT / "dicom_config", environment={}).routes


@pytest.fixture(scope="session")
def bench(routes: tuple[Route, ...]) -> Workbench:
    """A workbench with the shipped routes."""
    return Workbench(routes)


@pytest.fixture(scope="session")
def edit() -> Callable[..., Headers]:
    """`edit(headers, Keyword=value, …)`: copies with these values in every instance; None removes."""

    def change(headers: Headers, **tags: Any) -> Headers:
        made = {path: copy.deepcopy(dataset) for path, dataset in headers.items()}
        for dataset in made.values():
            put(dataset, tags)
        return made

    return change


@pytest.fixture(scope="session")
def private() -> Callable[..., Headers]:
    """`private(headers, creator, group, offset, vr, value, block=0x10)` adds a private element to each instance.

    `value` may be a function of the instance.
    """

    def add(headers: Headers, creator: str, group: int, offset: int, vr: str, told: Any, block: int = 0x10) -> Headers:
        for dataset in headers.values():
            number = told(dataset) if callable(told) else told
            if creator:
                dataset.add_new((group, block), "LO", creator)
            dataset.add_new((group, block << 8 | offset), vr, number)
        return headers

    return add


@pytest.fixture(scope="session")
def real(shared_data: Path) -> Callable[[str, str], Headers]:
    """`real("ct-liver/crlm-ct-1004", series_uid="")`: headers of a real series, read anew each time."""

    def load(folder: str, series_uid: str = "") -> Headers:
        headers = dict(_headers(shared_data / folder))
        return {p: d for p, d in headers.items() if series_uid in ("", d.get("SeriesInstanceUID"))}

    return load


def _headers(folder: Path) -> Iterable[tuple[Path, Dataset]]:
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".dsrdump", ".nrrd", ".json"):
            yield path, read_header(path, required=("SOPClassUID",))
