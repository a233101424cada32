"""Is anything missing from a series that has fallen silent? No DICOM message says "that was all": signs only.

Each sign is one that a complete series does not give by chance, for a series that is suspected waits minutes:
a count that the headers announce, a hole in a numbering that announces its end, a step that is a multiple of the
others, a volume that is a few slices shorter than its siblings at other b-values.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from pydicom.dataset import Dataset

from node.dicom.header import as_numbers, is_enhanced, value
from node.evidence_slices import SliceFacts, read_slices
from node.evidence_split import Part, normal_of, split

MIN_STEPS = 5
"""With fewer steps between slices "the usual step" means nothing: localizers have three slices anywhere."""
USUAL_SHARE = 0.8
"""So many of the steps must be alike before an odd one is a gap."""
STEP_TOLERANCE = 0.1
"""Of the usual step: what rounding of positions may do."""
SIBLING_SHARE = 0.75
"""A volume with fewer slices than that of its longest sibling is another kind of volume, not a shorter one."""
_SAME_PLACE_MM = 0.01


def missing_from(headers: Mapping[Path, Dataset]) -> str | None:
    """What seems to be missing from a series, in words for the person who asks why it waits; None for nothing."""
    signs = itertools.chain(_announced(headers), _numbering(headers), _geometry(headers))
    return next(signs, None)


def _announced(headers: Mapping[Path, Dataset]) -> Iterator[str]:
    """Number of Series Related Instances (0020,1209), which some archives add when they forward a series."""
    told = [_integer(header, "NumberOfSeriesRelatedInstances") for header in headers.values()]
    expected = max((number for number in told if number), default=0)
    if expected > len(headers):
        yield f"{expected - len(headers)} of {expected} announced instances missing"


def _numbering(headers: Mapping[Path, Dataset]) -> Iterator[str]:
    """Images in Acquisition (0020,1002) = N, believed only where Instance Numbers run up to N and leave holes.

    By itself it counts more than the series on some scanners: several reconstructions of one acquisition.
    """
    told = {_integer(header, "ImagesInAcquisition") for header in headers.values()}
    numbers = {_integer(header, "InstanceNumber") for header in headers.values()}
    expected = next(iter(told)) if len(told) == 1 else None
    if not expected or None in numbers or len(numbers) != len(headers):
        return
    holes = set(range(1, expected + 1)) - numbers
    if holes and numbers <= set(range(1, expected + 1)) and expected in numbers:
        yield f"{len(holes)} of {expected} numbered images missing"


def _geometry(headers: Mapping[Path, Dataset]) -> Iterator[str]:
    # an enhanced instance comes whole or not at all
    classic = {path: header for path, header in headers.items() if not is_enhanced(header)}
    parts = split(item for path, header in classic.items() for item in read_slices(path, header))
    for part in parts:
        yield from _gaps(part)
    yield from _short_siblings(parts)


def _gaps(part: Part) -> Iterator[str]:
    along = _positions_mm(part.slices)
    steps = [after - before for before, after in itertools.pairwise(along)]
    if len(steps) < MIN_STEPS:
        return
    usual = median(steps)
    if sum(abs(step - usual) <= STEP_TOLERANCE * usual for step in steps) < USUAL_SHARE * len(steps):
        return
    for (before, after), step in zip(itertools.pairwise(along), steps, strict=True):
        missing = round(step / usual) - 1
        if missing >= 1 and abs(step - (missing + 1) * usual) <= STEP_TOLERANCE * usual * (missing + 1):
            yield f"gap of {missing} slice{'s' * (missing > 1)} between {_mm(before)} and {_mm(after)} mm"


def _positions_mm(slices: Sequence[SliceFacts]) -> list[float]:
    """Places along the normal, each once, ascending; empty where a slice has none."""
    if not all(item.orientation and item.position_lps_mm for item in slices):
        return []
    normal = normal_of(slices[0].orientation)
    along = sorted(sum(a * b for a, b in zip(item.position_lps_mm, normal, strict=True)) for item in slices)
    return [place for index, place in enumerate(along) if not index or place - along[index - 1] > _SAME_PLACE_MM]


def _short_siblings(parts: Sequence[Part]) -> Iterator[str]:
    """Volumes of one diffusion series cover the same slices; one that is a little shorter has lost some."""
    families: dict[Hashable, list[Part]] = defaultdict(list)
    for part in parts:
        if part.b is not None:
            families[part.slices[0].matrix, part.slices[0].image_type].append(part)
    for family in families.values():
        full = max(len(part.slices) for part in family)
        for part in family:
            if SIBLING_SHARE * full <= len(part.slices) < full:
                assert part.b is not None
                yield f"{full - len(part.slices)} of {full} slices missing at b = {part.b.value:g} s/mm²"


def _integer(header: Dataset, keyword: str) -> int | None:
    numbers = as_numbers(value(header, keyword, ()))
    return int(numbers[0]) if numbers else None


def _mm(place: float) -> str:
    return f"{place:.0f}".replace("-", "−")
