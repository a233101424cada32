"""A scanner that sends phantoms: arrays become DICOM series in a vendor's dialect, and travel by C-STORE.

`write_series` writes one series and its truth, `write_study` several series of one study, `write_pair` both phases of a
biphasic CT, `send` sends files over one association. Everything is derived from the phantom's seed: written twice, the
files are the same byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat

from model.phantom import Phantom
from model.phantom_catalogue import PAIR, PhantomPair
from model.phantom_physics import DWI, T2WI, GradientEcho
from model.volume import Float, Volume
from simulator.dialects import DIALECTS, Dialect, PixelFormat, Shot
from simulator.directions import Direction, along
from simulator.enhanced import enhanced_mr
from simulator.identity import StudyIdentity, study_of, uid
from simulator.sending import SendResult, send
from simulator.truth import MASK_FILE, TRUTH_FILE, Truth, read_truth, write_truth
from simulator.twins import LOCALIZER_SLICES, TWINS

__all__ = [
    "DIALECTS",
    "MASK_FILE",
    "ORDERS",
    "TRUTH_FILE",
    "TWINS",
    "SendResult",
    "SeriesPlan",
    "StudyIdentity",
    "Truth",
    "read_truth",
    "send",
    "study_of",
    "write_pair",
    "write_series",
    "write_study",
]

ORDERS = ("ascending", "descending", "shuffled")
IMPLEMENTATION_UID = UID(uid("implementation", "crlm-node simulator"))
FIELD = {1: ("1.5", "63.86"), 2: ("3", "127.72")}
"""Tesla and megahertz of each family's MR scanner."""
DELAY_S = {"arterial": 35.0, "portal-venous": 70.0}
"""From the start of the injection to the first slice."""
PORTAL_VENOUS_AT = "101530"
"""When the portal-venous phase of a CT is acquired, and every MR series."""


@dataclass(frozen=True)
class SeriesPlan:
    """How one phantom becomes a series.

    `order` is that of instance numbers and file names along the patient's z axis; `twin` a key of `TWINS`; `extra`
    (keyword → value, None deletes) is written last on every instance; `is_multiframe` asks for one enhanced object.
    With `directions` (unit vectors) each weighted volume of a DWI is written as these directions and no trace.
    """

    phantom: Phantom
    dialect: str = "ge"
    order: str = "ascending"
    series_number: int = 3
    series_description: str | None = None
    twin: str | None = None
    is_multiframe: bool = False
    patient_position: str = "HFS"
    directions: tuple[Direction, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dialect not in DIALECTS:
            raise ValueError(f"unknown dialect {self.dialect!r}; there are {', '.join(DIALECTS)}")
        if self.order not in ORDERS:
            raise ValueError(f"unknown order {self.order!r}; there are {', '.join(ORDERS)}")
        if self.weighting == "ct" and DIALECTS[self.dialect].write_ct is None:
            raise ValueError(f"{self.dialect} is known here as a maker of MR scanners only")
        if self.is_multiframe and self.weighting not in ("dwi", "t2"):
            raise ValueError("enhanced multi-frame is written for DWI and T2 only")
        if self.is_multiframe and self.twin is not None:
            raise ValueError("twins are written as classic instances")
        if self.directions and (self.weighting != "dwi" or self.twin is not None):
            raise ValueError("directions are those of a plain diffusion-weighted series")
        if self.twin is not None:
            self._check_twin(self.twin)

    def _check_twin(self, twin: str) -> None:
        if twin not in TWINS:
            raise ValueError(f"unknown twin {twin!r}; there are {', '.join(TWINS)}")
        wanted = TWINS[twin][0]
        if wanted not in ("any", self.weighting):
            raise ValueError(f"the twin {twin!r} is one of {wanted}, the phantom is {self.weighting}")

    @property
    def weighting(self) -> str:
        """dwi, t2, t1 or ct, from the phantom's condition."""
        condition = self.phantom.condition
        if condition.startswith(("ct", "t1")):
            return condition[:2]
        return "dwi" if condition.endswith("dwi") else "t2"

    @property
    def phase(self) -> str | None:
        """Of the contrast agent, where there is one."""
        condition = self.phantom.condition
        return condition.partition("-")[2] if condition.startswith(("ct", "t1")) else None

    def volumes(self) -> list[tuple[float, Direction | None, Volume]]:
        """(b-value, direction, volume) as acquired; maps and projections have one volume only."""
        found: list[tuple[float, Direction | None, Volume]] = []
        for b, volume in self.phantom.volumes.items():
            if self.directions and b:
                found += [(b, direction, along(volume, b, direction)) for direction in self.directions]
            elif self.twin is None or self.weighting != "dwi" or volume is self.phantom.image:
                found.append((b, None, volume))
        return found

    def slice_indices(self) -> list[int]:
        """Array indices of the slices that are written, lowest z first."""
        affine = self.phantom.image.affine_lps_mm
        indices = list(range(self.phantom.geometry.slices))
        upwards = indices if affine[2, 0] > 0 else indices[::-1]
        return upwards[:LOCALIZER_SLICES] if self.twin == "localizer" else upwards


def write_series(
    phantom: Phantom,
    out_dir: Path,
    *,
    study: StudyIdentity | None = None,
    with_truth: bool = True,
    **plan: Any,
) -> list[Path]:
    """Writes one series into `out_dir` (and `truth.json`, `truth_mask.npz` beside it); returns the DICOM files.

    Keywords are those of `SeriesPlan`: dialect, order, series_number, series_description, twin, is_multiframe,
    patient_position, directions, extra. The files' names follow the instance numbers. Raises ValueError for a plan
    that is none.
    """
    chosen = SeriesPlan(phantom, **plan)
    identity = study or study_of(phantom.condition, phantom.seed)
    out_dir.mkdir(parents=True, exist_ok=True)
    series_uid = _series_uid(chosen, identity)
    written = list(_numbered(chosen, identity, series_uid))
    datasets = [item.dataset for item in written]
    if chosen.is_multiframe:
        datasets = [enhanced_mr([(item.dataset, item.shot) for item in written], uid("enhanced", series_uid))]
        _put_extra(datasets[0], chosen)
    paths = [_save(dataset, out_dir / f"{n:04d}.dcm") for n, dataset in enumerate(datasets, start=1)]
    if with_truth:
        _write_truth(chosen, identity, series_uid, written, out_dir)
    return paths


def write_study(plans: Sequence[SeriesPlan], out_dir: Path, *, study: StudyIdentity | None = None) -> list[Path]:
    """Writes several series of one study, each into a folder of its own (`1`, `2`, …); returns all DICOM files.

    Without `study` the first phantom's identity is used. Series numbers are those of the plans.
    """
    identity = study or study_of(plans[0].phantom.condition, plans[0].phantom.seed)
    paths: list[Path] = []
    for number, plan in enumerate(plans, start=1):
        keywords = {name: getattr(plan, name) for name in plan.__dataclass_fields__ if name != "phantom"}
        paths += write_series(plan.phantom, out_dir / str(number), study=identity, **keywords)
    return paths


def write_pair(
    pair: PhantomPair, out_dir: Path, *, study: StudyIdentity | None = None, **plan: Any
) -> dict[str, list[Path]]:
    """Writes both phases as two series of one study, into `arterial` and `portal-venous`; returns the files of each.

    Keywords are those of `SeriesPlan` and hold for both series, whose numbers follow each other.
    """
    identity = study or study_of(PAIR, pair.portal_venous.seed)
    number = plan.pop("series_number", 2)
    phases = {"arterial": pair.arterial, "portal-venous": pair.portal_venous}
    return {
        name: write_series(phantom, out_dir / name, study=identity, series_number=number + later, **plan)
        for later, (name, phantom) in enumerate(phases.items())
    }


def _series_uid(plan: SeriesPlan, identity: StudyIdentity) -> str:
    """Every choice that changes a byte changes the series: one UID never stands for two contents."""
    choices = [getattr(plan, name) for name in plan.__dataclass_fields__ if name not in ("phantom", "extra")]
    image = hashlib.sha256(plan.phantom.image.array_DHW.tobytes()).hexdigest()
    return uid("series", repr(identity), choices, repr(sorted(plan.extra.items())), repr(plan.phantom.geometry), image)


@dataclass(frozen=True)
class _Written:
    """One slice: its index in the array, what it shows, its data set."""

    index: int
    shot: Shot
    dataset: Dataset


def _numbered(plan: SeriesPlan, identity: StudyIdentity, series_uid: str) -> Iterator[_Written]:
    """The slices in the order of their instance numbers."""
    shots = list(_shots(plan))
    if plan.order == "descending":
        shots = [shot for _, shot in sorted(enumerate(shots), key=lambda item: _descending(item[1]))]
    elif plan.order == "shuffled":
        np.random.default_rng(plan.phantom.seed).shuffle(shots)
    pixels = {number: _stored(plan, volume) for number, (_, _, volume) in enumerate(plan.volumes(), start=1)}
    for instance_number, (index, shot) in enumerate(shots, start=1):
        stored, slope, intercept = pixels[shot.volume_number]
        dataset = _header(plan, identity, series_uid, shot, index, instance_number)
        _put_pixels(dataset, plan, stored[index], slope, intercept)
        _finish(dataset, plan, shot)
        yield _Written(index, shot, dataset)


def _shots(plan: SeriesPlan) -> Iterator[tuple[int, Shot]]:
    """(array index, shot), volume by volume, from below upwards."""
    volumes, indices = plan.volumes(), plan.slice_indices()
    for volume_number, (b, direction, _) in enumerate(volumes, start=1):
        for slice_number, index in enumerate(indices, start=1):
            place = (slice_number, len(indices), volume_number, len(volumes))
            yield index, Shot(plan.weighting, b, *place, direction, not plan.directions, plan.phase)


def _descending(item: tuple[int, Shot]) -> tuple[int, int]:
    return item[1].volume_number, -item[1].slice_number


def _stored(plan: SeriesPlan, volume: Volume) -> tuple[NDArray[np.integer[Any]], float, float]:
    """(stored values, slope, intercept) in the dialect's pixel format."""
    layout = _layout(plan)
    slope = layout.slope
    if slope is None:  # a scanner scales each image volume to its own maximum
        slope = float(DSfloat(max(float(volume.array_DHW.max()), 1e-3) / (2**layout.bits_stored - 1), auto_format=True))
    low = -(2 ** (layout.bits_stored - 1)) if layout.is_signed else 0
    stored = np.clip(np.rint((volume.array_DHW - layout.intercept) / slope), low, low + 2**layout.bits_stored - 1)
    if layout.padding is not None:
        stored[:, ~_reconstruction_circle(volume.array_DHW)] = layout.padding
    return stored.astype(np.int16 if layout.is_signed else np.uint16), slope, layout.intercept


def _reconstruction_circle(array_DHW: Float) -> NDArray[np.bool_]:
    _, rows, columns = array_DHW.shape
    y, x = np.ogrid[:rows, :columns]
    distance = ((y - (rows - 1) / 2) / (rows / 2)) ** 2 + ((x - (columns - 1) / 2) / (columns / 2)) ** 2
    return np.asarray(distance <= 1)


def _layout(plan: SeriesPlan) -> PixelFormat:
    dialect = DIALECTS[plan.dialect]
    if plan.weighting == "ct":
        assert dialect.ct_pixels is not None  # checked by SeriesPlan
        return dialect.ct_pixels
    return dialect.mr_pixels


def _header(
    plan: SeriesPlan, identity: StudyIdentity, series_uid: str, shot: Shot, index: int, instance_number: int
) -> Dataset:
    dialect = DIALECTS[plan.dialect]
    ds = Dataset()
    identity.put_on(ds)
    ds.SOPClassUID = CTImageStorage if plan.weighting == "ct" else MRImageStorage
    ds.SOPInstanceUID = uid("instance", series_uid, shot.volume_number, index)
    ds.Modality = "CT" if plan.weighting == "ct" else "MR"
    ds.SeriesInstanceUID, ds.SeriesNumber = series_uid, plan.series_number
    ds.FrameOfReferenceUID = uid("frame", repr(identity), plan.phantom.parameters.origin_lps_mm)
    ds.PositionReferenceIndicator = ""
    ds.Manufacturer = dialect.manufacturer
    ds.StationName, ds.DeviceSerialNumber = "PHANTOM1", "0000"
    ds.InstanceNumber, ds.AcquisitionNumber = instance_number, 1
    ds.BodyPartExamined, ds.PatientPosition = "ABDOMEN", plan.patient_position
    _put_times(ds, identity, shot)
    _put_place(ds, plan, index)
    if plan.weighting == "ct":
        _put_ct(ds, dialect, identity, shot)
    else:
        _put_mr(ds, plan, dialect, shot)
    return ds


def _put_times(ds: Dataset, identity: StudyIdentity, shot: Shot) -> None:
    start = _injected(identity) + timedelta(seconds=DELAY_S[shot.phase or "portal-venous"])
    taken = start + timedelta(seconds=4.0 * (shot.volume_number - 1) + 0.1 * shot.slice_number)
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = identity.study_date
    ds.SeriesTime = start.strftime("%H%M%S")
    ds.AcquisitionTime = taken.strftime("%H%M%S.%f")
    ds.ContentTime = (taken + timedelta(seconds=20)).strftime("%H%M%S.%f")


def _injected(identity: StudyIdentity) -> datetime:
    portal_venous = datetime.strptime(identity.study_date + PORTAL_VENOUS_AT, "%Y%m%d%H%M%S")
    return portal_venous - timedelta(seconds=DELAY_S["portal-venous"])


def _put_place(ds: Dataset, plan: SeriesPlan, index: int) -> None:
    geometry, affine = plan.phantom.geometry, plan.phantom.image.affine_lps_mm
    rows_mm, columns_mm = affine[:3, 1], affine[:3, 2]  # along a step of the row index, of the column index
    orientation = [*(columns_mm / np.linalg.norm(columns_mm)), *(rows_mm / np.linalg.norm(rows_mm))]
    position = affine[:3, :3] @ [index, 0, 0] + affine[:3, 3]
    normal = np.cross(orientation[:3], orientation[3:])
    ds.ImageOrientationPatient = [_number(v) for v in orientation]
    ds.ImagePositionPatient = [_number(v) for v in position]
    ds.SliceLocation = _number(float(position @ normal))
    ds.PixelSpacing = [_number(v) for v in geometry.pixel_spacing_mm]
    ds.SliceThickness = _number(geometry.slice_thickness_mm)
    ds.Rows, ds.Columns = geometry.rows, geometry.columns
    if plan.weighting != "ct":
        ds.SpacingBetweenSlices = _number(geometry.slice_spacing_mm)


def _put_mr(ds: Dataset, plan: SeriesPlan, dialect: Dialect, shot: Shot) -> None:
    protocol = plan.phantom.protocol or (DWI if shot.weighting == "dwi" else T2WI)
    is_gradient_echo = isinstance(protocol, GradientEcho)
    lines, samples = protocol.matrix
    ds.ManufacturerModelName, ds.SoftwareVersions = dialect.mr_model, list(dialect.mr_software)
    ds.MagneticFieldStrength, ds.ImagingFrequency, ds.ImagedNucleus = *FIELD[plan.phantom.family], "1H"
    ds.MRAcquisitionType, ds.AngioFlag = "2D", "N"
    ds.RepetitionTime, ds.EchoTime = _number(protocol.tr_ms), _number(protocol.te_ms)
    ds.EchoTrainLength = lines if protocol.echo_planar else 1 if is_gradient_echo else 16
    ds.EchoNumbers, ds.NumberOfAverages = 1, "1"
    ds.FlipAngle = _number(protocol.flip_deg) if isinstance(protocol, GradientEcho) else "90"
    ds.AcquisitionMatrix, ds.InPlanePhaseEncodingDirection = [samples, 0, 0, lines], "COL"
    ds.PixelBandwidth, ds.PercentSampling, ds.PercentPhaseFieldOfView = "1953.12", "100", "100"
    ds.ReceiveCoilName, ds.VariableFlipAngleFlag = "8CHBODY", "N"
    (dialect.write_t1 if shot.weighting == "t1" else dialect.write_mr)(ds, shot)
    if shot.phase is not None:
        ds.ContrastBolusAgent, ds.ContrastBolusRoute, ds.ContrastBolusVolume = "GADOBUTROL", "IV", "7.5"


def _put_ct(ds: Dataset, dialect: Dialect, identity: StudyIdentity, shot: Shot) -> None:
    ds.ManufacturerModelName, ds.SoftwareVersions = dialect.ct_model, dialect.ct_software
    ds.KVP, ds.XRayTubeCurrent, ds.ExposureTime, ds.Exposure = "120", 240, 500, 120
    ds.DataCollectionDiameter, ds.ReconstructionDiameter = "500", _number(ds.PixelSpacing[0] * ds.Columns)
    ds.GantryDetectorTilt, ds.TableHeight, ds.RotationDirection = "0", "140", "CW"
    ds.ContrastBolusVolume = "100"
    ds.ContrastBolusStartTime = _injected(identity).strftime("%H%M%S.%f")
    assert dialect.write_ct is not None  # checked by SeriesPlan
    dialect.write_ct(ds, shot)


def _put_pixels(ds: Dataset, plan: SeriesPlan, stored_HW: NDArray[Any], slope: float, intercept: float) -> None:
    layout = _layout(plan)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, layout.bits_stored, layout.bits_stored - 1
    ds.PixelRepresentation = int(layout.is_signed)
    if layout.rescale_type is not None:
        ds.RescaleIntercept, ds.RescaleSlope = _number(intercept), _number(slope)
    if layout.rescale_type:
        ds.RescaleType = layout.rescale_type
    if layout.padding is not None:
        ds.PixelPaddingValue = layout.padding
    centre, width = (40.0, 400.0) if plan.weighting == "ct" else _mr_window(stored_HW * slope + intercept)
    ds.WindowCenter, ds.WindowWidth = _number(centre), _number(width)
    ds.PixelData = stored_HW.astype("<i2" if layout.is_signed else "<u2").tobytes()


def _mr_window(shown_HW: NDArray[Any]) -> tuple[float, float]:
    top = max(float(np.percentile(shown_HW, 99.5)), 2.0)
    return round(top / 2), round(top)


def _finish(ds: Dataset, plan: SeriesPlan, shot: Shot) -> None:
    if plan.twin is not None:
        TWINS[plan.twin][1](ds, shot)
    if plan.series_description is not None:
        ds.SeriesDescription = plan.series_description
    _put_extra(ds, plan)


def _put_extra(ds: Dataset, plan: SeriesPlan) -> None:
    for keyword, value in plan.extra.items():
        if value is None:
            ds.pop(keyword, None)
        else:
            setattr(ds, keyword, value)


def _save(dataset: Dataset, path: Path) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION_UID, "CRLM_SIM_1"
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
    return path


def _write_truth(
    plan: SeriesPlan,
    identity: StudyIdentity,
    series_uid: str,
    written: Sequence[_Written],
    out_dir: Path,
) -> None:
    """The truth names, slice by slice, the instances of the volume that the network reads: of its first direction."""
    read_b = next(b for b, volume in plan.phantom.volumes.items() if volume is plan.phantom.image)
    wanted = 1 + [b for b, _, _ in plan.volumes()].index(read_b)
    of_slice = {item.index: item.dataset.SOPInstanceUID for item in written if item.shot.volume_number == wanted}
    uids = [uid("enhanced", series_uid)] if plan.is_multiframe else [str(of_slice[index]) for index in sorted(of_slice)]
    write_truth(out_dir, plan.phantom, identity.study_instance_uid, series_uid, uids)


def _number(value: float) -> DSfloat:
    """A decimal string of at most 16 characters (PS3.5 6.2)."""
    return DSfloat(float(value), auto_format=True)
