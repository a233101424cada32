"""Small asymmetric series written as DICOM, with what they must be read as, and a context to encode with.

Nothing here uses the code under test: arrays and affines are what the files were made from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from model.card import OutputSpec
from model.findings import Finding, find_lesions
from model.volume import Mask, Volume
from node.config import Term, load_config
from node.dicom.context import BundleFacts, EncodeContext, Equipment, Tracking
from node.dicom.volume import SourceVolume, read_volume
from node.domain import InstanceRef, RoleInput, TimePoint

ROOT = Path(__file__).resolve().parents[3]
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
Edit = Callable[[Dataset, int], None]


@dataclass(frozen=True)
class Stack:
    """A series on disk; `array_DHW` and `affine_lps_mm` run along +normal whatever the order of the files."""

    role_input: RoleInput
    array_DHW: NDArray[np.float32]
    affine_lps_mm: NDArray[np.float64]

    @property
    def paths(self) -> list[Path]:
        return [instance.path for instance in self.role_input.instances]


@dataclass(frozen=True)
class Lesions:
    """An asymmetric mask on a stack's grid, measured, with tracking identifiers."""

    mask: Mask
    findings: tuple[Finding, ...]
    tracking: tuple[Tracking, ...]


def pattern(shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """Stored values in which no flip or transposition of the array equals it."""
    d, h, w = np.indices(shape)
    return ((d * 7919 + h * 101 + w * 13) % 1000).astype(np.int16)


def stack_affine(
    orientation: Sequence[float],
    spacing_mm: Sequence[float],
    origin_lps_mm: Sequence[float],
    shear_mm: Sequence[float] = (0.0, 0.0, 0.0),
) -> NDArray[np.float64]:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    affine = np.eye(4)
    affine[:3, 0] = np.cross(row, column) * spacing_mm[0] + np.array(shear_mm)
    affine[:3, 1] = column * spacing_mm[1]
    affine[:3, 2] = row * spacing_mm[2]
    affine[:3, 3] = origin_lps_mm
    return affine


def image_header(modality: str, orientation: Sequence[float], spacing_mm: Sequence[float]) -> Dataset:
    """What CT and MR slices of one series share; a made-up patient."""
    header = Dataset()
    header.file_meta = file_meta()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    header.Modality = modality
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.PatientName, header.PatientID = "Phantom^Asymmetric", "P-1"
    header.PatientBirthDate, header.PatientSex = "19500101", "O"
    header.StudyDate, header.StudyTime, header.StudyID = "20260102", "101112", "S1"
    header.AccessionNumber, header.ReferringPhysicianName = "A-1", ""
    header.StudyInstanceUID, header.SeriesInstanceUID = generate_uid(), generate_uid()
    header.FrameOfReferenceUID, header.PositionReferenceIndicator = generate_uid(), ""
    header.Manufacturer, header.ManufacturerModelName = "Maker", "Scanner"
    header.SeriesNumber, header.AcquisitionNumber = 3, 1
    header.ImageOrientationPatient = list(orientation)
    header.PixelSpacing = [spacing_mm[1], spacing_mm[2]]
    header.SliceThickness = spacing_mm[0]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    if modality == "CT":
        header.RescaleSlope, header.RescaleIntercept, header.KVP = 1, -1024, 120
    else:
        header.ScanningSequence, header.SequenceVariant, header.ScanOptions = "SE", "NONE", ""
        header.MRAcquisitionType, header.RepetitionTime, header.EchoTime, header.EchoTrainLength = "2D", 4000, 80, 1
    return header


def file_meta() -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def save(dataset: Dataset, path: Path) -> InstanceRef:
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return InstanceRef(str(dataset.SOPInstanceUID), str(dataset.SOPClassUID), path, "")


@pytest.fixture(scope="session")
def write_stack(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Stack]:
    """Writes a classic series; `file_order[k]` is the slice in the k-th file, `edit(dataset, d)` changes a slice."""

    def write(
        shape: tuple[int, int, int] = (7, 20, 24),
        *,
        modality: str = "CT",
        orientation: Sequence[float] = AXIAL,
        spacing_mm: Sequence[float] = (5.0, 1.5, 1.25),
        origin_lps_mm: Sequence[float] = (-50.5, -61.25, 100.0),
        shear_mm: Sequence[float] = (0.0, 0.0, 0.0),
        file_order: Sequence[int] | None = None,
        edit: Edit | None = None,
        b_value_s_mm2: float | None = None,
    ) -> Stack:
        stored, shared = pattern(shape), image_header(modality, orientation, spacing_mm)
        affine = stack_affine(orientation, spacing_mm, origin_lps_mm, shear_mm)
        folder = tmp_path_factory.mktemp("series")
        instances = []
        for number, d in enumerate(file_order if file_order is not None else range(shape[0]), start=1):
            item = deepcopy(shared)
            item.SOPInstanceUID = generate_uid()
            item.InstanceNumber = number
            item.Rows, item.Columns = shape[1:]
            item.ImagePositionPatient = [round(float(part), 9) for part in affine[:3] @ (d, 0, 0, 1)]
            item.PixelData = stored[d].tobytes()
            if edit is not None:
                edit(item, d)
            instances.append(save(item, folder / f"{number:03}.dcm"))
        values = stored.astype(np.float32) + (-1024 if modality == "CT" else 0)
        role_input = RoleInput(str(shared.SeriesInstanceUID), tuple(instances), b_value_s_mm2)
        return Stack(role_input, values, affine)

    return write


@pytest.fixture(scope="session")
def write_enhanced(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Stack]:
    """Writes an enhanced MR of several b-values, b innermost and lowest first; the chosen frames are the last b's."""

    def write(
        shape: tuple[int, int, int] = (6, 18, 22),
        *,
        b_values: Sequence[float] = (50, 400, 1000),
        orientation: Sequence[float] = AXIAL,
        spacing_mm: Sequence[float] = (7.0, 1.5, 1.5),
        origin_lps_mm: Sequence[float] = (-20.0, -30.0, 40.0),
        slope: float = 2.0,
    ) -> Stack:
        affine = stack_affine(orientation, spacing_mm, origin_lps_mm)
        stored = pattern((shape[0] * len(b_values), *shape[1:]))
        root = image_header("MR", orientation, spacing_mm)
        for keyword in ("ImageOrientationPatient", "PixelSpacing", "SliceThickness", "EchoTime", "RepetitionTime"):
            del root[keyword]
        root.SOPClassUID, root.SOPInstanceUID, root.InstanceNumber = EnhancedMRImageStorage, generate_uid(), 1
        root.NumberOfFrames = len(stored)
        root.Rows, root.Columns = shape[1:]
        root.SharedFunctionalGroupsSequence = [_shared_groups(orientation, spacing_mm, slope)]
        root.PerFrameFunctionalGroupsSequence = [
            _frame_groups(affine[:3] @ (d, 0, 0, 1), b) for d in range(shape[0]) for b in b_values
        ]
        root.PixelData = stored.tobytes()
        instance = save(root, tmp_path_factory.mktemp("series") / "enhanced.dcm")
        chosen = tuple(d * len(b_values) + len(b_values) for d in range(shape[0]))
        values = stored[[number - 1 for number in chosen]].astype(np.float32) * slope
        role_input = RoleInput(str(root.SeriesInstanceUID), (replace(instance, frames=chosen),), float(b_values[-1]))
        return Stack(role_input, values, affine)

    return write


def _shared_groups(orientation: Sequence[float], spacing_mm: Sequence[float], slope: float) -> Dataset:
    plane, measures, transformation = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = list(orientation)
    measures.PixelSpacing, measures.SliceThickness = [spacing_mm[1], spacing_mm[2]], spacing_mm[0]
    transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = slope, 0, "US"
    groups = Dataset()
    groups.PlaneOrientationSequence = [plane]
    groups.PixelMeasuresSequence = [measures]
    groups.PixelValueTransformationSequence = [transformation]
    return groups


def _frame_groups(position: NDArray[np.float64], b_value: float) -> Dataset:
    place, diffusion = Dataset(), Dataset()
    place.ImagePositionPatient = [round(float(part), 9) for part in position]
    diffusion.DiffusionBValue, diffusion.DiffusionDirectionality = b_value, "ISOTROPIC"
    groups = Dataset()
    groups.PlanePositionSequence = [place]
    groups.MRDiffusionSequence = [diffusion]
    return groups


@pytest.fixture(scope="session")
def terms() -> dict[str, Term]:
    return dict(load_config(ROOT / "dicom_config", {}).terms)


@pytest.fixture(scope="session")
def make_context(terms: dict[str, Term]) -> Callable[..., EncodeContext]:
    """A context of a phantom-trained demo bundle; every field can be given."""

    def make(**fields: Any) -> EncodeContext:
        defaults: dict[str, Any] = {
            "job_id": "0123456789abcdef-1",
            "condition": "ct-portal-venous",
            "title": "Portal-venous CT",
            "weighting": "ct",
            "time_point": TimePoint.PRE,
            "bundle": BundleFacts("demo-ct-portal-venous", "0.1.0", "ab" * 32, is_demo=True),
            "finding": "lesion",
            "terms": terms,
            "equipment": Equipment("CRLM node project", "CRLM-NODE", "0.1.0", "0", "Hospital"),
            "series_number": 90000,
            "content_datetime": datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        }
        return EncodeContext(**defaults | fields)

    return make


@pytest.fixture(scope="session")
def lesions_on() -> Callable[[Stack], Lesions]:
    """An F-shaped lesion off the centre that grows from slice to slice, and one of two voxels in the first slice."""

    def make(stack: Stack) -> Lesions:
        probability = np.zeros(stack.array_DHW.shape, np.float32)
        probability[1, 3:10, 4] = probability[2, 3:11, 4] = probability[3, 3:12, 4] = 0.9
        probability[1:4, 3, 4:9] = probability[1:4, 6, 4:7] = 0.9
        probability[0, -3, -6:-4] = 0.8
        mask, findings = find_lesions(probability, Volume(stack.array_DHW, stack.affine_lps_mm), OutputSpec())
        tracking = tuple(Tracking(f"Lesion {f.number}", generate_uid()) for f in findings)
        return Lesions(mask, findings, tracking)

    return make


@pytest.fixture
def real_ct(shared_data: Path) -> Callable[[], tuple[SourceVolume, Mask, tuple[Finding, ...], tuple[Tracking, ...]]]:
    """The real portal-venous CT of 41 slices, with two made-up lesions."""

    def make() -> tuple[SourceVolume, Mask, tuple[Finding, ...], tuple[Tracking, ...]]:
        paths = sorted((shared_data / "ct-liver/crlm-ct-1004").glob("*.dcm"))
        headers = [dcmread(path, stop_before_pixels=True) for path in paths]
        refs = (InstanceRef(h.SOPInstanceUID, h.SOPClassUID, p, "") for h, p in zip(headers, paths, strict=True))
        source = read_volume(RoleInput(headers[0].SeriesInstanceUID, tuple(refs)))
        probability = np.zeros(source.volume.array_DHW.shape, np.float32)
        probability[10:15, 200:230, 150:190] = probability[20:22, 300:306, 180:189] = 0.9
        mask, findings = find_lesions(probability, source.volume, OutputSpec())
        return source, mask, findings, tuple(Tracking(f"Lesion {f.number}", generate_uid()) for f in findings)

    return make
