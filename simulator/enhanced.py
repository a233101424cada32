"""Classic MR slices as one Enhanced MR object (PS3.3 A.36.2): what they share goes up, what differs into frames.

As a Siemens XA or Philips scanner exports it: the b-value stands only in the MR Diffusion functional group. The pixel
values of all frames share one format, so a dialect whose slope changes from volume to volume keeps it per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedMRImageStorage

from simulator.dialects import Shot

_CONTRAST = {"dwi": "DIFFUSION", "t2": "T2"}

_ROOT = """
    SpecificCharacterSet StudyDate SeriesDate ContentDate StudyTime SeriesTime ContentTime
    AccessionNumber Modality Manufacturer ReferringPhysicianName InstitutionName StudyDescription SeriesDescription
    ManufacturerModelName PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex PatientAge
    BodyPartExamined DeviceSerialNumber SoftwareVersions ProtocolName PatientPosition StudyInstanceUID
    SeriesInstanceUID StudyID SeriesNumber FrameOfReferenceUID PositionReferenceIndicator MagneticFieldStrength
    SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
"""


def enhanced_mr(slices: Sequence[tuple[Dataset, Shot]], sop_instance_uid: str) -> Dataset:
    """One multi-frame data set of classic MR slices of one series, frames in their order."""
    first, shot = slices[0]
    ds = Dataset()
    for keyword in _ROOT.split():
        if keyword in first:
            ds[keyword] = first[keyword]
    ds.SOPClassUID, ds.SOPInstanceUID, ds.InstanceNumber = EnhancedMRImageStorage, sop_instance_uid, 1
    ds.ImageType = _frame_type(first, shot)
    ds.AcquisitionDateTime = f"{first.AcquisitionDate}{first.AcquisitionTime}"
    ds.AcquisitionDuration, ds.AcquisitionNumber = 120.0, 1
    ds.ContentQualification, ds.ResonantNucleus, ds.KSpaceFiltering = "PRODUCT", "1H", "COSINE"
    ds.ApplicableSafetyStandardAgency = "IEC"
    ds.PixelPresentation, ds.VolumetricProperties = "MONOCHROME", "VOLUME"
    ds.VolumeBasedCalculationTechnique, ds.ComplexImageComponent = "NONE", "MAGNITUDE"
    ds.AcquisitionContrast = _CONTRAST[shot.weighting]
    ds.BurnedInAnnotation, ds.LossyImageCompression, ds.PresentationLUTShape = "NO", "00", "IDENTITY"
    ds.NumberOfFrames, ds.PixelData = len(slices), b"".join(item.PixelData for item, _ in slices)
    ds.AcquisitionContextSequence = Items([])
    ds.DimensionOrganizationSequence = _items(DimensionOrganizationUID=f"{sop_instance_uid}.1")
    ds.DimensionIndexSequence = Items(_dimensions(f"{sop_instance_uid}.1"))
    _put_pulse_sequence(ds, is_dwi=shot.weighting == "dwi")
    ds.SharedFunctionalGroupsSequence = Items([_shared(first, is_dwi=shot.weighting == "dwi")])
    ds.PerFrameFunctionalGroupsSequence = Items(_frame(item, its_shot) for item, its_shot in slices)
    return ds


def _dimensions(organization_uid: str) -> list[Dataset]:
    return [
        _item(
            DimensionOrganizationUID=organization_uid,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=group,
        )
        for pointer, group in ((0x00209056, 0x00209111), (0x00209057, 0x00209111), (0x00189087, 0x00189117))
    ]


def _put_pulse_sequence(ds: Dataset, *, is_dwi: bool) -> None:
    ds.PulseSequenceName = "EPI" if is_dwi else "TSE"
    ds.MRAcquisitionType, ds.EchoPulseSequence, ds.MultipleSpinEcho = "2D", "SPIN", "NO" if is_dwi else "YES"
    ds.EchoPlanarPulseSequence, ds.PhaseContrast = ("YES" if is_dwi else "NO"), "NO"
    ds.MultiPlanarExcitation, ds.SteadyStatePulseSequence, ds.TimeOfFlightContrast = "NO", "NONE", "NO"
    ds.SaturationRecovery, ds.SpectrallySelectedSuppression, ds.OversamplingPhase = "NO", "FAT", "NONE"
    ds.GeometryOfKSpaceTraversal = "RECTILINEAR"
    ds.RectilinearPhaseEncodeReordering, ds.SegmentedKSpaceTraversal = "LINEAR", "SINGLE"
    ds.NumberOfKSpaceTrajectories = 1


def _shared(first: Dataset, *, is_dwi: bool) -> Dataset:
    shared = Dataset()
    shared.PixelMeasuresSequence = _items(
        SliceThickness=first.SliceThickness,
        PixelSpacing=first.PixelSpacing,
        SpacingBetweenSlices=first.SpacingBetweenSlices,
    )
    shared.PlaneOrientationSequence = _items(ImageOrientationPatient=first.ImageOrientationPatient)
    shared.FrameAnatomySequence = Items([_anatomy()])
    shared.MRTimingAndRelatedParametersSequence = _timing(first, is_dwi=is_dwi)
    shared.MRFOVGeometrySequence = _items(
        InPlanePhaseEncodingDirection="COLUMN",
        MRAcquisitionFrequencyEncodingSteps=int(first.AcquisitionMatrix[0]),
        MRAcquisitionPhaseEncodingStepsInPlane=int(first.AcquisitionMatrix[3]),
        MRAcquisitionPhaseEncodingStepsOutOfPlane=1,
        PercentSampling=100.0,
        PercentPhaseFieldOfView=100.0,
    )
    shared.MREchoSequence = _items(EffectiveEchoTime=float(first.EchoTime))
    shared.MRModifierSequence = Items([_modifier()])
    shared.MRImagingModifierSequence = _items(
        MagnetizationTransfer="NONE",
        BloodSignalNulling="NO",
        Tagging="NONE",
        TransmitterFrequency=63.86,
        PixelBandwidth=1953.12,
    )
    shared.MRReceiveCoilSequence = _items(
        ReceiveCoilName="8CHBODY",
        ReceiveCoilManufacturerName="",
        ReceiveCoilType="MULTICOIL",
        QuadratureReceiveCoil="NO",
        MultiCoilDefinitionSequence=_items(MultiCoilElementName="A1", MultiCoilElementUsed="YES"),
    )
    shared.MRTransmitCoilSequence = _items(
        TransmitCoilName="BODY", TransmitCoilManufacturerName="", TransmitCoilType="BODY"
    )
    shared.MRAveragesSequence = _items(NumberOfAverages=1.0)
    return shared


def _timing(first: Dataset, *, is_dwi: bool) -> Items:
    echoes = int(first.EchoTrainLength)
    return _items(
        RepetitionTime=first.RepetitionTime,
        FlipAngle=first.FlipAngle,
        EchoTrainLength=echoes,
        RFEchoTrainLength=1 if is_dwi else echoes,
        GradientEchoTrainLength=echoes if is_dwi else 0,
        SpecificAbsorptionRateSequence=_items(
            SpecificAbsorptionRateDefinition="IEC_WHOLE_BODY", SpecificAbsorptionRateValue=0.5
        ),
        GradientOutputType="DB_DT",
        GradientOutput=0.0,
        OperatingModeSequence=_items(OperatingModeType="STATIC FIELD", OperatingMode="IEC_NORMAL"),
    )


def _modifier() -> Dataset:
    return _item(
        InversionRecovery="NO",
        FlowCompensation="NONE",
        Spoiling="NONE",
        T2Preparation="NO",
        SpectrallySelectedExcitation="NONE",
        SpatialPresaturation="NONE",
        PartialFourier="NO",
        ParallelAcquisition="NO",
    )


def _frame_type(item: Dataset, shot: Shot) -> list[str]:
    return [*list(item.ImageType)[:2], _CONTRAST[shot.weighting], "NONE"]


def _anatomy() -> Dataset:
    region = _items(CodeValue="818981001", CodingSchemeDesignator="SCT", CodeMeaning="Abdomen")
    return _item(FrameLaterality="U", AnatomicRegionSequence=region)


def _frame(item: Dataset, shot: Shot) -> Dataset:
    frame = Dataset()
    taken = f"{item.AcquisitionDate}{item.AcquisitionTime}"
    frame.FrameContentSequence = _items(
        FrameAcquisitionNumber=1,
        FrameReferenceDateTime=taken,
        FrameAcquisitionDateTime=taken,
        FrameAcquisitionDuration=100.0,
        StackID="1",
        InStackPositionNumber=shot.slice_number,
        DimensionIndexValues=[1, shot.slice_number, shot.volume_number],
    )
    frame.PlanePositionSequence = _items(ImagePositionPatient=item.ImagePositionPatient)
    frame.MRImageFrameTypeSequence = _items(
        FrameType=_frame_type(item, shot),
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
        ComplexImageComponent="MAGNITUDE",
        AcquisitionContrast=_CONTRAST[shot.weighting],
    )
    frame.PixelValueTransformationSequence = _items(
        RescaleIntercept=item.get("RescaleIntercept", 0), RescaleSlope=item.get("RescaleSlope", 1), RescaleType="US"
    )
    frame.FrameVOILUTSequence = _items(WindowCenter=item.WindowCenter, WindowWidth=item.WindowWidth)
    if shot.weighting == "dwi":
        frame.MRDiffusionSequence = Items([_diffusion(shot)])
    return frame


def _diffusion(shot: Shot) -> Dataset:
    directionality = "NONE" if not shot.is_weighted else "DIRECTIONAL" if shot.direction else "ISOTROPIC"
    item = _item(DiffusionBValue=float(shot.b_s_mm2), DiffusionDirectionality=directionality)
    if shot.direction:
        item.DiffusionGradientDirectionSequence = _items(DiffusionGradientOrientation=list(shot.direction))
    return item


def _items(**values: Any) -> Items:
    """A sequence of one item."""
    return Items([_item(**values)])


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
