"""Adversarial twins: series that look like a condition's and must not be taken for it.

A twin is the same phantom under another header, as the named kind of series has it on a real scanner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pydicom.dataset import Dataset

from simulator.dialects import Shot

LOCALIZER_SLICES = 9


def _adc(ds: Dataset, shot: Shot) -> None:
    """An ADC map keeps the b-value, the echo-planar sequence and the fat suppression of its sources."""
    ds.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
    ds.SeriesDescription = f"{ds.SeriesDescription} ADC"
    ds.RescaleType = "10^-6 mm2/s"
    ds.RescaleIntercept, ds.RescaleSlope = ds.get("RescaleIntercept", 0), ds.get("RescaleSlope", 1)
    ds.DiffusionBValue = float(shot.b_s_mm2)


def _computed(ds: Dataset, shot: Shot) -> None:
    ds.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "CALC_BVALUE"]
    ds.SeriesDescription = f"{ds.SeriesDescription}_CALC_BVAL"
    ds.SequenceName = "*ep_b50_800"
    ds.DiffusionBValue = 1500.0


def _localizer(ds: Dataset, shot: Shot) -> None:
    """Three planes of three slices in one series."""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.SeriesDescription = ds.ProtocolName = "3-Plane Localizer"
    planes = ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1])
    ds.ImageOrientationPatient = planes[(shot.slice_number - 1) // (LOCALIZER_SLICES // 3)]


def _mip(ds: Dataset, shot: Shot) -> None:
    ds.ImageType = ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "MIP"]
    ds.SeriesDescription = f"{ds.SeriesDescription} MIP"


def _arterial(ds: Dataset, shot: Shot) -> None:
    _phase(ds, "Abdomen arterial 25s", "101504.000000")


def _delayed(ds: Dataset, shot: Shot) -> None:
    _phase(ds, "Abdomen delayed 180 s", "101229.000000")


def _phase(ds: Dataset, words: str, bolus_time: str) -> None:
    ds.SeriesDescription = words
    ds.ProtocolName = "Abdomen 3 phases"
    ds.ContrastBolusStartTime = bolus_time


def _no_fat_suppression(ds: Dataset, shot: Shot) -> None:
    ds.ScanOptions = "PFP"
    ds.SeriesDescription = ds.ProtocolName = "t2_tse_tra_trig_nofs"
    _without_fat_signs(ds)


def _mrcp(ds: Dataset, shot: Shot) -> None:
    ds.EchoTime, ds.RepetitionTime, ds.EchoTrainLength = "650", "4500", "256"
    ds.SeriesDescription = ds.ProtocolName = "MRCP thick slab"


def _in_phase(ds: Dataset, shot: Shot) -> None:
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "GR", "SP", "PFP"
    ds.EchoTime, ds.RepetitionTime, ds.FlipAngle, ds.EchoTrainLength = "4.76", "140", "70", "1"
    ds.SeriesDescription = ds.ProtocolName = "t1_fl2d_in_phase_tra_bh"
    _without_fat_signs(ds)


def _functional(ds: Dataset, shot: Shot) -> None:
    """An echo-planar gradient echo; the vendor's private b-value stays, as some scanners write it on every such one."""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    ds.ScanningSequence, ds.SequenceName, ds.EchoTime = ["EP", "GR"], "*epfid2d1_64", "30"
    ds.SeriesDescription = ds.ProtocolName = "ep2d_bold"
    for keyword in ("DiffusionBValue", "DiffusionDirectionality", "DiffusionGradientOrientation"):
        ds.pop(keyword, None)


def _screenshot(ds: Dataset, shot: Shot) -> None:
    ds.ImageType, ds.BurnedInAnnotation = ["DERIVED", "SECONDARY", "SCREEN SAVE"], "YES"
    ds.SeriesDescription = f"Screen save {ds.SeriesDescription}"


def _colour(ds: Dataset, shot: Shot) -> None:
    """A fusion as painted on a workstation: eight bits of red, green and blue, here alike."""
    ds.SeriesDescription = f"{ds.SeriesDescription} fused colour"
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.pop("PixelPaddingValue", None)
    high_bytes = ds.PixelData[1::2]
    painted = bytes(grey for grey in high_bytes for _ in range(ds.SamplesPerPixel))
    ds.PixelData = painted + b"\0" * (len(painted) % 2)


def _without_fat_signs(ds: Dataset) -> None:
    for group, creator, element, value in (
        (0x0019, "GEMS_ACQU_01", 0xA4, 0),
        (0x2001, "Philips Imaging DD 001", 0x21, "N"),
    ):
        if any(e.value == creator for e in ds.group_dataset(group) if e.tag.element == 0x10):
            ds.private_block(group, creator)[element].value = value


TWINS: Mapping[str, tuple[str, Callable[[Dataset, Shot], None]]] = MappingProxyType(
    {  # name → (the weighting it is a twin of, what it does to the header); "any" fits each
        "adc": ("dwi", _adc),
        "computed-b1500": ("dwi", _computed),
        "functional": ("dwi", _functional),
        "localizer": ("any", _localizer),
        "mip": ("any", _mip),
        "screenshot": ("any", _screenshot),
        "colour": ("any", _colour),
        "arterial": ("ct", _arterial),
        "delayed": ("ct", _delayed),
        "t2-no-fatsat": ("t2", _no_fat_suppression),
        "mrcp": ("t2", _mrcp),
        "in-phase-gre": ("t2", _in_phase),
    }
)
