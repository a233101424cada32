"""Positive twins: the same real headers with the one thing mended are accepted, each for exactly its condition.

What a subset of a series lacks in slices is filled up with copies of its headers at further positions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from node.domain import Decision, TimePoint

Headers = dict[Path, Dataset]
AXIAL = [1, 0, 0, 0, 1, 0]
PRISMA = "mr-body/siemens-prisma-abdomen-t2tse-haste-vibe-phantom"
PRISMA_UID = "1.3.12.2.1107.5.2.43.66035.2025051308"
PHILIPS_VECTOR = tuple((0x2005, offset) for offset in (0xB0, 0xB1, 0xB2))
SKYRA = "mr-body/siemens-skyra-prostatex-0000"


@dataclass(frozen=True)
class Twin:
    """A real series, what is mended, and the condition (after `pre-` or `post-`) that must take it."""

    name: str
    folder: str
    condition: str
    mend: Callable[[Headers], Headers]
    series_uid: str = ""
    tags: dict[str, Any] = field(default_factory=dict)


def put(headers: Headers, **tags: Any) -> Headers:
    for dataset in headers.values():
        for keyword, told in tags.items():
            if told is None:
                dataset.pop(keyword, None)
            else:
                setattr(dataset, keyword, told)
    return headers


def liver(headers: Headers) -> Headers:
    """The region mended, in every place that names another."""
    return put(headers, BodyPartExamined="LIVER", AnatomicRegionSequence=None)


def turned(headers: Headers) -> Headers:
    """The same stack, axial: positions along the old normal become positions along z."""
    for dataset in headers.values():
        row, column = np.split(np.array(dataset.ImageOrientationPatient, float), 2)
        along = float(np.dot(np.cross(row, column), np.array(dataset.ImagePositionPatient, float)))
        dataset.ImageOrientationPatient = AXIAL
        dataset.ImagePositionPatient = [-190.0, -190.0, round(along, 3)]
    return headers


def stack(headers: Headers, count: int, step_mm: float) -> Headers:
    """`count` axial slices from the headers at hand, used again and again; b-values stay apart."""
    made: Headers = {}
    groups: dict[str, list[Dataset]] = {}
    for dataset in headers.values():
        groups.setdefault(identity(dataset), []).append(dataset)
    for group in groups.values():
        for number in range(count):
            dataset = Dataset()
            dataset.update(group[number % len(group)])
            for keyword in ("SOPInstanceUID", "ImageOrientationPatient", "ImagePositionPatient"):
                dataset.pop(keyword, None)  # the copies share their elements: what differs needs a new one
            dataset.SOPInstanceUID = f"2.25.{abs(hash(identity(group[0]))) % 10**9}.{number + 1}"
            dataset.ImageOrientationPatient = AXIAL
            dataset.ImagePositionPatient = [-180.0, -180.0, number * step_mm]
            made[Path(f"/twin/{len(made):05d}.dcm")] = dataset
    return made


def identity(dataset: Dataset) -> str:
    """What keeps slices of one real series apart: b-value and sequence name."""
    told = [dataset.get(tag) for tag in ((0x0018, 0x9087), (0x0043, 0x1039), (0x0019, 0x100C), (0x0065, 0x100A))]
    return str([element.value if element is not None else None for element in told] + [dataset.get("SequenceName")])


def named(description: str) -> Callable[[Headers], Headers]:
    return lambda headers: put(headers, SeriesDescription=description)


def both(*steps: Callable[[Headers], Headers]) -> Callable[[Headers], Headers]:
    def apply(headers: Headers) -> Headers:
        for step in steps:
            headers = step(headers)
        return headers

    return apply


def philips_trace(headers: Headers) -> Headers:
    for dataset in headers.values():
        if dataset.DiffusionBValue > 0:
            dataset.DiffusionBValue = dataset[0x2001, 0x1003].value = 1000.0
            dataset[0x2001, 0x1004].value = "I"
            dataset.DiffusionGradientOrientation = [0.0, 0.0, 0.0]
            for offset in (0x10B0, 0x10B1, 0x10B2):
                if (0x2005, offset) in dataset:
                    dataset[0x2005, offset].value = 0.0
    return headers


def canon_trace(headers: Headers) -> Headers:
    for dataset in headers.values():
        if dataset.DiffusionBValue > 0:
            dataset.DiffusionBValue, dataset.ImageComments = 1000.0, "b=1000(0.000,0.000,0.000)"
    return headers


def ge_trace(headers: Headers) -> Headers:
    for dataset in headers.values():
        dataset[0x0021, 0x105A].value = 64
        if dataset[0x0043, 0x1030].value == 16:
            dataset[0x0043, 0x1030].value = 19
    return put(headers, ProtocolName="LIVER")


def uih_trace(headers: Headers) -> Headers:
    for dataset in headers.values():
        dataset[0x0065, 0x1037].value = [0.0, 0.0, 0.0]
    return put(headers, ImageType=["ORIGINAL", "PRIMARY", "M", "NONE"])


def enhanced_trace(headers: Headers) -> Headers:
    """XA: axial, 7 mm apart, and the directions gone."""
    for dataset in list(headers.values()):
        for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            diffusion = frame.MRDiffusionSequence[0]
            if diffusion.DiffusionBValue > 0:
                diffusion.DiffusionDirectionality = "ISOTROPIC"
                diffusion.pop("DiffusionGradientDirectionSequence", None)
                frame.walk(lambda _, element: as_trace(element))
            frame.PlaneOrientationSequence[0].ImageOrientationPatient = AXIAL
            frame.PlanePositionSequence[0].ImagePositionPatient = [-64.0, -64.0, number * 7.0]
    return headers


def as_trace(element: DataElement) -> None:
    """Philips' private elements of a direction, in whatever block, as they stand in a trace."""
    told = {(0x2001, 0x03): 1000.0, (0x2001, 0x04): "I", **dict.fromkeys(PHILIPS_VECTOR, 0.0)}
    offset = (element.tag.group, element.tag.element & 0xFF)
    if element.tag.element > 0xFF and offset in told:
        element.value = told[offset]


def philips_enhanced(headers: Headers) -> Headers:
    """The frames of b = 0 and of one volume at the high b, now b = 1000 without direction, 15 slices 7 mm apart."""
    (dataset,) = headers.values()
    by_b: dict[float, list[Dataset]] = {}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        by_b.setdefault(float(frame.MRDiffusionSequence[0].DiffusionBValue), []).append(frame)
    made = []
    for b, group in by_b.items():
        for number in range(15):
            frame = copy.deepcopy(group[number % len(group)])
            diffusion = frame.MRDiffusionSequence[0]
            if b:
                diffusion.DiffusionBValue, diffusion.DiffusionDirectionality = 1000.0, "ISOTROPIC"
                diffusion.pop("DiffusionGradientDirectionSequence", None)
                frame.walk(lambda _, element: as_trace(element))
            frame.PlaneOrientationSequence[0].ImageOrientationPatient = AXIAL
            frame.PlanePositionSequence[0].ImagePositionPatient = [-110.0, -110.0, number * 7.0]
            made.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = made
    dataset.NumberOfFrames = len(made)
    return headers


def first_b(dataset: Dataset) -> float:
    return float(dataset.PerFrameFunctionalGroupsSequence[0].MRDiffusionSequence[0].DiffusionBValue)


def one_weighted(headers: Headers) -> Headers:
    """Of many repetitions at the high b-value only the first."""
    weighted = [path for path, dataset in headers.items() if first_b(dataset)]
    return {path: dataset for path, dataset in headers.items() if path not in weighted[1:]}


def spir(headers: Headers) -> Headers:
    for dataset in headers.values():
        block = dataset.private_block(0x2001, "Philips Imaging DD 001", create=True)
        block.add_new(0x21, "CS", "Y")
    return headers


def at_70_s(headers: Headers) -> Headers:
    """The injection began 70 s before the slices."""
    for dataset in headers.values():
        hours, minutes, seconds = (int(str(dataset.AcquisitionTime)[i : i + 2]) for i in (0, 2, 4))
        total = hours * 3600 + minutes * 60 + seconds - 70
        dataset.ContrastBolusStartTime = f"{total // 3600:02d}{total // 60 % 60:02d}{total % 60:02d}"
    return headers


def with_uids(headers: Headers) -> Headers:
    for number, dataset in enumerate(headers.values()):
        dataset.SOPInstanceUID = f"2.25.7.{number + 1}"
    return put(headers, StudyInstanceUID="2.25.5", SeriesInstanceUID="2.25.6", PatientID="X")


def without_vector(headers: Headers) -> Headers:
    for dataset in headers.values():
        if (0x0019, 0x100E) in dataset:
            del dataset[0x0019, 0x100E]
    return headers


def with_creator(headers: Headers, group: int, creator: str) -> Headers:
    for dataset in headers.values():
        dataset.add_new((group, 0x0010), "LO", creator)
    return headers


def with_sequence(headers: Headers, name: str) -> Headers:
    for dataset in headers.values():
        for offset in (0x10BB, 0x10BC, 0x10BD):
            del dataset[0x0019, offset]
        dataset.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(0x9C, "LO", name)
    return headers


FRAME = {"FrameOfReferenceUID": "2.25.9"}
T2 = [
    Twin("toshiba-fs", "mr-liver/cmbcrc-toshiba-scan1-t2", "t2wi", lambda h: put(h, ScanOptions=["PFP", "FS"])),
    Twin("toshiba-fatsat", "mr-liver/cmbcrc-toshiba-scan1-t2", "t2wi", lambda h: put(h, ScanOptions="FATSAT")),
    Twin(
        "toshiba-spectral",
        "mr-liver/cmbcrc-toshiba-scan1-t2",
        "t2wi",
        lambda h: put(h, SpectrallySelectedSuppression="FAT"),
    ),
    Twin(
        "toshiba-stir",
        "mr-liver/cmbcrc-toshiba-scan1-t2",
        "t2wi",
        lambda h: put(h, ScanningSequence=["SE", "IR"], InversionTime="160"),
    ),
    Twin(
        "toshiba-dixon-water",
        "mr-liver/cmbcrc-toshiba-scan1-t2",
        "t2wi",
        lambda h: put(h, ImageType=["DERIVED", "PRIMARY", "DIXON", "WATER"]),
    ),
    Twin(
        "skyra-tse-water-excitation",
        f"{SKYRA}/t2-tra",
        "t2wi",
        both(liver, lambda h: put(h, ScanOptions=["PFP", "WE"])),
    ),
    Twin("skyra-tse-fs", f"{SKYRA}/t2-tra", "t2wi", both(liver, lambda h: put(h, ScanOptions="FS"))),
    Twin("skyra-tse-sfs", f"{SKYRA}/t2-tra", "t2wi", both(liver, lambda h: put(h, ScanOptions=["PFP", "SFS"]))),
    Twin(
        "prisma-tse",
        PRISMA,
        "t2wi",
        both(lambda h: stack(h, 20, 9.6), lambda h: put(h, ScanOptions="FS")),
        f"{PRISMA_UID}202034306406033.0.0.0",
    ),
    Twin(
        "prisma-haste",
        PRISMA,
        "t2wi",
        both(lambda h: stack(h, 20, 8.8), lambda h: put(h, ScanOptions=["PFP", "FS"])),
        f"{PRISMA_UID}085842445001508.0.0.0",
    ),
    Twin(
        "prisma-tse-sagittal-turned",
        PRISMA,
        "t2wi",
        both(lambda h: stack(h, 16, 9.6), lambda h: put(h, ScanOptions="FS", SeriesDescription="t2_tse_tra")),
        f"{PRISMA_UID}20058368406015.0.0.0",
    ),
    Twin(
        "intera-spir",
        "mr-body/philips-intera-upper-abdomen-single",
        "t2wi",
        both(lambda h: stack(h, 30, 4.4), spir),
    ),
    Twin(
        "intera-fs",
        "mr-body/philips-intera-upper-abdomen-single",
        "t2wi",
        both(lambda h: stack(h, 30, 4.4), lambda h: put(h, ScanOptions=["FS", "PFP"])),
    ),
    Twin(
        "achieva-stir",
        "mr-body/philips-achieva-cor-stir",
        "t2wi",
        both(
            lambda h: stack(h, 20, 6.0),
            liver,
            lambda h: put(h, ImageType=["ORIGINAL", "PRIMARY", "M_IR", "M", "IR"], SeriesDescription="STIR tra"),
        ),
    ),
]
DWI = [
    Twin("prisma-axial", "mr-body/siemens-prisma-kidney-dwi-b50-400-800-phantom", "dwi", both(turned, liver)),
    Twin("skyra-liver", f"{SKYRA}/dwi-b50-400-800", "dwi", liver),
    Twin("achieva-isotropic", "mr-vendor-dwi/philips-achieva-dstream-b2000", "dwi", both(liver, philips_trace)),
    Twin("galan-b1000", "mr-vendor-dwi/canon-galan-b0-1500", "dwi", both(liver, canon_trace)),
    Twin(
        "pioneer-trace",
        "mr-vendor-dwi/ge-signa-pioneer-b1000",
        "dwi",
        both(ge_trace, lambda h: stack(h, 20, 7.0), liver),
    ),
    Twin("umr-slices", "mr-vendor-dwi/uih-umr770", "dwi", both(uih_trace, lambda h: stack(h, 20, 6.0), liver)),
    Twin(
        "skyra-classic-creator",
        "mr-vendor-dwi/siemens-skyra-classic-b0-1000",
        "dwi",
        both(
            lambda h: stack(h, 20, 6.0),
            liver,
            named("ep2d_diff_tra_TRACEW"),
            lambda h: put(h, ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "ND"], **FRAME),
            lambda h: with_creator(h, 0x0019, "SIEMENS MR HEADER"),
            without_vector,
        ),
    ),
    Twin(
        "mr750-creator",
        "mr-vendor-dwi/ge-mr750-b1000",
        "dwi",
        both(
            lambda h: stack(h, 20, 6.0),
            liver,
            named("Ax DWI b1000"),
            lambda h: put(h, DiffusionDirectionality="ISOTROPIC", **FRAME),
            lambda h: with_creator(h, 0x0043, "GEMS_PARM_01"),
            lambda h: with_sequence(h, "epi2"),
        ),
        "1.2.826.0.1.3680043.8.498.1725697665093567298242875077",
    ),
    Twin(
        "achieva-four-b-isotropic",
        "mr-vendor-dwi/philips-achieva-b0-40-273-800",
        "dwi",
        both(
            lambda h: stack(h, 20, 6.0),
            liver,
            named("DWI liver"),
            lambda h: put(h, DiffusionDirectionality="ISOTROPIC", **FRAME),
        ),
    ),
    Twin(
        "philips-enhanced-isotropic",
        "mr-vendor-dwi/philips-enhanced-b0-1300",
        "dwi",
        both(philips_enhanced, liver, named("DWI liver"), lambda h: put(h, **FRAME)),
    ),
    Twin(
        "xa60-enhanced",
        "mr-vendor-dwi/siemens-xa60-enhanced-b0-1000",
        "dwi",
        both(one_weighted, enhanced_trace, liver),
    ),
]
CT = [
    Twin("lightspeed", "ct-liver/crlm-ct-1004", "ct", both(at_70_s, named("ABD PORTAL VENOUS"))),
    Twin("lightspeed-german", "ct-liver/crlm-ct-1004", "ct", both(at_70_s, named("Leber portalvenös 5.0"))),
    Twin("lightspeed-french", "ct-liver/crlm-ct-1004", "ct", both(at_70_s, named("Foie temps portal"))),
    Twin("lightspeed-japanese", "ct-liver/crlm-ct-1004", "ct", both(at_70_s, named("腹部造影 門脈相"))),
    Twin("lightspeed-polish", "ct-liver/crlm-ct-1004", "ct", both(at_70_s, named("Jama brzuszna faza żylna"))),
    Twin("lightspeed-seconds", "ct-liver/crlm-ct-1004", "ct", both(at_70_s, named("CT CH/AB/PEL 70s"))),
    Twin(
        "biograph-with-uids",
        "ct-liver/totalsegmentator-siemens-j2k",
        "ct",
        both(with_uids, lambda h: stack(h, 50, 3.0), liver, named("CT Leber PV 3.0")),
    ),
    Twin(
        "lightspeed-ultra-contrast",
        "seg-sr/dcmqi-liver",
        "ct",
        both(
            lambda h: stack(h, 60, 2.5),
            liver,
            named("Liver PV"),
            at_70_s,
            lambda h: put(h, ContrastBolusAgent="OMNI", ContrastBolusRoute="IV"),
        ),
        "1.2.392.200103.20080913.113635.1.2009.6.22.21.43.10.23430.1",
    ),
]


@pytest.mark.parametrize("time_point", [TimePoint.PRE, TimePoint.POST])
@pytest.mark.parametrize("twin", [*T2, *DWI], ids=lambda twin: twin.name)
def test_a_mended_mr_series_is_accepted_for_exactly_its_condition(
    bench: Any, real: Callable[..., Headers], twin: Twin, time_point: TimePoint
) -> None:
    headers = twin.mend(real(twin.folder, twin.series_uid))
    decision = bench.decide(headers, time_point=time_point)
    taken = [item for item in decision.volumes if item.decision is not Decision.REFUSE]
    explained = [[reason for reason in item.reasons if not reason.is_for] for item in taken or decision.volumes]
    assert [item.decision for item in taken] == [Decision.ACCEPT], explained
    assert taken[0].condition == f"{time_point.value}-nact-{twin.condition}"


@pytest.mark.parametrize("twin", CT, ids=lambda twin: twin.name)
def test_a_mended_ct_series_is_accepted(bench: Any, real: Callable[..., Headers], twin: Twin) -> None:
    headers = twin.mend(real(twin.folder, twin.series_uid))
    (item,) = bench.decide(headers, time_point=TimePoint.UNKNOWN).volumes
    assert item.decision is Decision.ACCEPT, [reason for reason in item.reasons if not reason.is_for]
    assert item.condition == "ct-portal-venous"


@pytest.mark.parametrize("twin", [*T2, *DWI, *CT], ids=lambda twin: twin.name)
def test_the_mended_thing_is_what_was_wrong(bench: Any, real: Callable[..., Headers], twin: Twin) -> None:
    """The real series, unmended, is taken for nothing unattended."""
    decisions = bench.decide(real(twin.folder, twin.series_uid)).volumes
    assert Decision.ACCEPT not in [item.decision for item in decisions]
