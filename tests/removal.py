"""What a header tells, taken away piece by piece: an element, a private block, at the top or inside sequences.

    python -m tests.removal

tries every piece of every twin in every dialect, of its legacy conversion, and of every real series: minutes. The
tests try what evidence reads (tests/node/evidence/test_removal.py).
"""

from __future__ import annotations

import ast
import csv
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from model.phantom import Geometry, Phantom, make_phantom
from node import evidence_vendors
from node.config import load_config
from node.config_routes import Route
from node.dicom.header import PARSE_FAULTS, read_header
from node.domain import Decision, TimePoint, TimePointFinding
from node.evidence import TIME_POINT_KEYWORDS, read_series
from node.evidence_vendors import PrivateTag
from node.routing import decide
from simulator.modality import DIALECTS, TWINS, write_series

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
CONDITIONS = {"dwi": "pre-nact-dwi", "t2": "pre-nact-t2wi", "ct": "ct-portal-venous"}
FEWEST_SLICES = 8
TOLD = TimePointFinding(TimePoint.PRE, "operator")
Headers = Mapping[Path, Dataset]


@dataclass(frozen=True)
class Piece:
    """An element, or a private block with all that its creator wrote, inside the sequences `within`."""

    within: tuple[BaseTag, ...]
    tag: BaseTag
    is_block: bool = False

    def __str__(self) -> str:
        names = [keyword_for_tag(tag) or str(tag) for tag in (*self.within, self.tag)]
        return " > ".join(names) + (" and its block" if self.is_block else "")

    def holds(self, tag: BaseTag) -> bool:
        """Whether the element goes with the piece."""
        in_block = self.is_block and tag.group == self.tag.group and tag.elem >> 8 == self.tag.elem
        return tag == self.tag or in_block


def pieces(headers: Headers) -> dict[Piece, None]:
    """Every piece of any header, in a fixed order."""
    return dict.fromkeys(piece for dataset in headers.values() for piece in _pieces(dataset, ()))


def _pieces(dataset: Dataset, within: tuple[BaseTag, ...]) -> Iterator[Piece]:
    for tag in list(dataset.keys()):
        yield Piece(within, tag)
        if tag.is_private_creator:
            yield Piece(within, tag, is_block=True)
        for item in _items(dataset, tag):
            yield from _pieces(item, (*within, tag))


def _items(dataset: Dataset, tag: BaseTag) -> list[Dataset]:
    try:
        element = dataset[tag]
    except PARSE_FAULTS:  # what cannot be decoded is no sequence, and tells nothing
        return []
    return list(element.value) if element.VR == "SQ" else []


def without(headers: Headers, piece: Piece, *, emptied: bool = False) -> dict[Path, Dataset]:
    """The series without the piece in any of its instances; `emptied` leaves the element and takes its value."""
    return {path: _without(dataset, piece, emptied) for path, dataset in headers.items()}


def _without(dataset: Dataset, piece: Piece, emptied: bool) -> Dataset:
    """A copy that shares what stays, as raw as it is."""
    made = Dataset({tag: dataset.get_item(tag) for tag in list(dataset.keys())})
    if hasattr(dataset, "file_meta"):
        made.file_meta = dataset.file_meta
    if piece.within:
        outer, inner = piece.within[0], Piece(piece.within[1:], piece.tag, piece.is_block)
        if outer in made:
            items = [_without(item, inner, emptied) for item in _items(dataset, outer)]
            made[outer] = DataElement(outer, "SQ", Sequence(items))
        return made
    for tag in [piece.tag] if not piece.is_block else [tag for tag in made.keys() if piece.holds(tag)]:  # noqa: SIM118 - iterating a data set decodes every element
        if emptied and tag in made:
            made[tag] = DataElement(tag, dataset[tag].VR, None)
        else:
            made.pop(tag, None)
    return made


def best_decision(headers: Headers, routes: tuple[Route, ...]) -> Decision:
    """The most favourable decision on any volume of the series, before chemotherapy."""
    order = (Decision.ACCEPT, Decision.CONFIRM, Decision.REFUSE)
    volumes = decide(read_series(headers).volumes, routes, TOLD).volumes
    return min((item.decision for item in volumes), key=order.index)


@cache
def read_tags() -> frozenset[int]:
    """What evidence asks of an image by keyword: found in its source, so that a new question is tried, too."""
    sources = [*(ROOT / "node").glob("evidence*.py"), ROOT / "node/dicom/header.py", ROOT / "node/dicom/grid.py"]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    strings = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    found = (tag_for_keyword(string) for string in strings if isinstance(string, str))
    of_time_point = {tag_for_keyword(keyword) for keyword in TIME_POINT_KEYWORDS}
    return frozenset(tag for tag in found if tag is not None and tag not in of_time_point)


@cache
def _private_tags() -> frozenset[tuple[int, int]]:
    """(group, offset) of the private elements in the evidence tables."""
    tables = [*vars(evidence_vendors).values()]
    tags = [tag for tag in tables if isinstance(tag, PrivateTag)]
    tags += [source.tag for source in evidence_vendors.PRIVATE_B]
    tags += [tag for vector in evidence_vendors.VECTORS for tag in vector]
    return frozenset((tag.group, tag.offset) for tag in (*tags, evidence_vendors.UIH_NOMINAL_B.tag))


def is_read(piece: Piece) -> bool:
    """Whether evidence asks for it: what the files or the vendors' tables name, functional groups, private blocks."""
    if any(tag.is_private for tag in piece.within):
        return False  # a vendor's copy of the header, asked last: its block stands for it
    if piece.tag.is_private:
        return piece.is_block or (piece.tag.group, piece.tag.elem & 0xFF) in _private_tags()
    is_group = piece.within or piece.tag.group == 0x5200
    return piece.tag in read_tags() or bool(is_group and dictionary_VR(piece.tag) == "SQ")


def twins(weighting: str) -> Iterator[tuple[str, str]]:
    """(dialect, twin) that the simulator writes of a weighting."""
    for dialect, known in DIALECTS.items():
        for twin, (wanted, _) in TWINS.items():
            if wanted in ("any", weighting) and (weighting != "ct" or known.write_ct is not None):
                yield dialect, twin


@cache
def _phantom(weighting: str) -> Phantom:
    """Coarse, and no larger than it must be: headers are looked at."""
    spacing_mm = 7.5 if weighting == "ct" else 9.0
    geometry = Geometry(8, 8, FEWEST_SLICES, (48.0, 48.0), spacing_mm)
    return make_phantom(CONDITIONS[weighting], 900001, geometry=geometry, b_values=(1000,))


def twin_headers(weighting: str, dialect: str, twin: str | None, *, is_multiframe: bool = False) -> dict[Path, Dataset]:
    """The headers of an adversarial twin, or with None of the series that it resembles."""
    with tempfile.TemporaryDirectory() as folder:
        plan = {"dialect": dialect, "twin": twin, "is_multiframe": is_multiframe}
        paths = write_series(_phantom(weighting), Path(folder), with_truth=False, **plan)
        return {path: read_header(path) for path in paths}


def real_headers(folder: Path, series_uid: str) -> dict[Path, Dataset]:
    """The headers of one real series."""
    paths = (path for path in sorted(folder.iterdir()) if path.suffix not in (".dsrdump", ".nrrd", ".json"))
    read = {path: read_header(path, required=("SOPClassUID",)) for path in paths}
    return {path: dataset for path, dataset in read.items() if dataset.get("SeriesInstanceUID") == series_uid}


def real_series() -> list[tuple[str, str]]:
    """(folder, Series Instance UID) of all that has an expected answer; none where the real data are absent."""
    if not (expected := SHARED_DATA / "expected-routing.csv").is_file():
        return []
    with expected.open(encoding="utf-8") as file:
        return [(row["folder"], row["series_instance_uid"]) for row in csv.DictReader(file)]


def accepted_without(headers: Headers, routes: tuple[Route, ...]) -> list[str]:
    """The pieces that evidence reads and without which the series is accepted."""
    read = (piece for piece in pieces(headers) if is_read(piece))
    return [str(piece) for piece in read if best_decision(without(headers, piece), routes) is Decision.ACCEPT]


def _accepted_without_any(headers: Headers, routes: tuple[Route, ...]) -> list[str]:
    """Of all pieces, those without which, or without whose value, the series is accepted."""
    tried = [
        (piece, emptied) for piece in pieces(headers) for emptied in (False, True) if not (emptied and piece.is_block)
    ]
    return [
        f"{piece}{', emptied' if emptied else ''}"
        for piece, emptied in tried
        if best_decision(without(headers, piece, emptied=emptied), routes) is Decision.ACCEPT
    ]


def _every_series() -> Iterator[tuple[str, dict[Path, Dataset]]]:
    for weighting in CONDITIONS:
        for dialect, twin in twins(weighting):
            yield f"{weighting} {dialect} {twin}", twin_headers(weighting, dialect, twin)
    for folder, series_uid in real_series():
        yield f"{folder} {series_uid}", real_headers(SHARED_DATA / folder, series_uid)


def main() -> int:
    """Print what is accepted without a piece; exit code 1 where anything is."""
    warnings.simplefilter("ignore")  # pydicom's remarks on the values inside real files
    routes = load_config(ROOT / "dicom_config", environment={}).routes
    is_sound = True
    for name, headers in _every_series():
        is_refused = best_decision(headers, routes) is Decision.REFUSE
        found = _accepted_without_any(headers, routes) if is_refused else []
        is_sound = is_sound and not found
        print(
            f"{name}: {f'{len(found)} of {len(pieces(headers))}' if is_refused else 'not refused'} {found}", flush=True
        )
    return 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
