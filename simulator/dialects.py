"""How each vendor's scanner writes the same slice: where the b-value stands, what says fat suppression, how pixels lie.

Every private element is written under its creator, as seen in headers of real scanners (GE SIGNA Pioneer, Siemens
Prisma, Philips Achieva dStream, Canon Galan, UIH uMR 770, GE LightSpeed, Siemens mCT). A dialect is a row in
`DIALECTS`; a new vendor is one more row and its two functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.dataset import Dataset

from simulator.directions import Direction

GE_B_OFFSET = 1_000_000_000  # GE adds it to the b-value of a multi-b series; readers take the rest of the division
UIH_ACTUAL_SHARE = 0.93  # the actual b-value is below the nominal one (930 of 1000 on a uMR 770)


@dataclass(frozen=True)
class Shot:
    """What one slice shows: the weighting, and its place among the slices and volumes of the series."""

    weighting: str  # dwi | t2 | t1 | ct
    b_s_mm2: float
    slice_number: int  # 1 is the lowest
    slices: int
    volume_number: int  # 1 is the first b-value
    volumes: int
    direction: Direction | None = None  # of the diffusion gradient; None is the trace over all
    is_of_traces: bool = True  # the series holds traces, not directions
    phase: str | None = None  # of the contrast agent: portal-venous | arterial

    @property
    def is_weighted(self) -> bool:
        """Diffusion weighted, not the b = 0 image."""
        return self.weighting == "dwi" and self.b_s_mm2 > 0

    @property
    def is_arterial(self) -> bool:
        """The arteries are bright."""
        return self.phase == "arterial"

    @property
    def vector(self) -> Direction:
        """The gradient's direction as vendors write it: of a trace zeros."""
        return self.direction or (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class PixelFormat:
    """How values are stored: value = stored · slope + intercept. `slope` None: chosen so that the maximum fits."""

    bits_stored: int
    is_signed: bool
    slope: float | None = 1.0
    intercept: float = 0.0
    rescale_type: str | None = None  # None: no rescale attributes at all; "": rescale without its type
    padding: int | None = None  # stored outside the reconstruction circle


@dataclass(frozen=True)
class Dialect:
    """One vendor: equipment, pixel formats, and the functions that finish a header."""

    manufacturer: str
    mr_model: str
    mr_software: tuple[str, ...]
    mr_pixels: PixelFormat
    write_mr: Callable[[Dataset, Shot], None]
    write_t1: Callable[[Dataset, Shot], None]
    ct_model: str | None = None
    ct_software: str = ""
    ct_pixels: PixelFormat | None = None
    write_ct: Callable[[Dataset, Shot], None] | None = None


def _t1_gradient_echo(ds: Dataset, options: list[str], name: str, description: str) -> None:
    """What every vendor tells of a fat-suppressed 3-D spoiled gradient echo after contrast."""
    ds.ScanningSequence, ds.SequenceVariant, ds.MRAcquisitionType = "GR", ["SP", "SS"], "3D"
    ds.ScanOptions = options
    ds.SequenceName = name
    ds.SeriesDescription = ds.ProtocolName = description


def _ge_t1(ds: Dataset, shot: Shot) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    _t1_gradient_echo(ds, ["FAST_GEMS", "EDR_GEMS", "FS"], "LAVA", "Ax LAVA fs PV +C")
    acquisition = ds.private_block(0x0019, "GEMS_ACQU_01", create=True)
    acquisition.add_new(0x9C, "LO", "efgre3d")
    acquisition.add_new(0x9E, "LO", "LAVA")
    acquisition.add_new(0xA4, "SS", 1)  # fat saturation


def _siemens_t1(ds: Dataset, shot: Shot) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]
    _t1_gradient_echo(ds, ["PFP", "FS"], "*fl3d1_ns", "t1_vibe_fs_tra_bh_pv")
    private = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    private.add_new(0x08, "CS", "IMAGE NUM 4")
    private.add_new(0x09, "LO", "1.0")


def _philips_t1(ds: Dataset, shot: Shot) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]
    _t1_gradient_echo(ds, ["FS", "PFP"], "T1FFE", "eTHRIVE_BH_PV")
    ds.PresentationLUTShape = "IDENTITY"
    imaging = ds.private_block(0x2001, "Philips Imaging DD 001", create=True)
    imaging.add_new(0x20, "LO", "T1FFE")
    imaging.add_new(0x21, "CS", "Y")  # SPAIR


def _canon_t1(ds: Dataset, shot: Shot) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "GDC"]
    _t1_gradient_echo(ds, ["FS"], "FFE3D", "AX T1 Quick3Ds FatSAT PV")


def _uih_t1(ds: Dataset, shot: Shot) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    _t1_gradient_echo(ds, ["FS"], "gre_quick3d", "quick3d_t1_tra_fs_bh_pv")


def _ge_mr(ds: Dataset, shot: Shot) -> None:
    is_dwi = shot.weighting == "dwi"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.ScanningSequence = ["EP", "SE"] if is_dwi else "SE"
    ds.SequenceVariant = "NONE" if is_dwi else "SK"
    ds.ScanOptions = ["SAT_GEMS", "EDR_GEMS", "EPI_GEMS", "FS"] if is_dwi else ["RSP", "FAST_GEMS", "EDR_GEMS", "FS"]
    ds.SeriesDescription = "Ax DWI 10b RTr LIVER" if is_dwi else "Ax T2 FRFSE RTr fs LIVER"
    ds.ProtocolName = "LIVER NACT"
    acquisition = ds.private_block(0x0019, "GEMS_ACQU_01", create=True)
    acquisition.add_new(0x9C, "LO", "epi2" if is_dwi else "frfseopt")
    acquisition.add_new(0x9E, "LO", "EPI2" if is_dwi else "FRFSE")
    acquisition.add_new(0xA4, "SS", 1)  # fat saturation
    series_kind = 0 if not is_dwi else 64 if shot.is_of_traces else 16  # 64: 3-in-1, 16: tensor
    ds.private_block(0x0021, "GEMS_RELA_01", create=True).add_new(0x5A, "SL", series_kind)
    parameters = ds.private_block(0x0043, "GEMS_PARM_01", create=True)
    if is_dwi:
        kind = 19 if shot.direction is None else 16
        parameters.add_new(0x30, "SS", kind if shot.is_weighted else 14)  # 19: trace, 16: a direction, 14: b = 0
        first = int(shot.b_s_mm2) + (GE_B_OFFSET if shot.is_weighted else 0)
        parameters.add_new(0x39, "IS", [first, 8, 0, 0])
        if shot.is_weighted:  # since RX27 also the public element, but not on the b = 0 image
            ds.DiffusionBValue = shot.b_s_mm2
        if shot.direction:
            for offset, part in zip((0xBB, 0xBC, 0xBD), shot.direction, strict=True):
                acquisition.add_new(offset, "DS", f"{part:.6f}")


_SIEMENS_TRACE = ("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW")
_SIEMENS_SINGLE = ("ORIGINAL", "PRIMARY", "DIFFUSION", "NONE")


def _siemens_mr(ds: Dataset, shot: Shot) -> None:
    is_dwi = shot.weighting == "dwi"
    ds.ScanOptions = ["PFP", "FS"] if is_dwi else "FS"
    private = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    private.add_new(0x08, "CS", "IMAGE NUM 4")
    private.add_new(0x09, "LO", "1.0")
    if not is_dwi:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]
        ds.ScanningSequence, ds.SequenceVariant = "SE", ["SK", "SP"]
        ds.SequenceName = "*tse2d1_16"
        ds.SeriesDescription = ds.ProtocolName = "t2_tse_fs_tra_trig"
        return
    is_trace = shot.is_weighted and shot.direction is None
    ds.ImageType = [*(_SIEMENS_TRACE if is_trace else _SIEMENS_SINGLE), "DIS2D"]
    ds.ScanningSequence, ds.SequenceVariant = "EP", ["SK", "SP"]
    b = int(shot.b_s_mm2)
    ds.SequenceName = f"*ep_b{b}t" if is_trace else f"*ep_b{b}#{shot.volume_number}" if shot.direction else "*ep_b0"
    ds.SeriesDescription = "ep2d_diff_10b_tra_trig" + ("_TRACEW" if shot.is_of_traces else "")
    ds.ProtocolName = "ep2d_diff_10b_tra_trig"
    private.add_new(0x0C, "IS", b)
    private.add_new(0x0D, "CS", "ISOTROPIC" if is_trace else "DIRECTIONAL" if shot.direction else "NONE")
    if shot.direction:
        private.add_new(0x0E, "FD", list(shot.direction))


def _philips_mr(ds: Dataset, shot: Shot) -> None:
    is_dwi = shot.weighting == "dwi"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"]  # says the same of a derived trace
    ds.ScanningSequence, ds.SequenceVariant = "SE", "SK"
    ds.ScanOptions = ["FS", "PFP"]
    ds.SeriesDescription = "DWI 10b SPIR RT" if is_dwi else "T2W_TSE_SPIR_RT"
    ds.ProtocolName = f"WIP {ds.SeriesDescription}"
    ds.PresentationLUTShape = "IDENTITY"
    imaging = ds.private_block(0x2001, "Philips Imaging DD 001", create=True)
    imaging.add_new(0x20, "LO", "DwiSE" if is_dwi else "TSE")
    imaging.add_new(0x21, "CS", "Y")  # SPIR
    private = ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    private.add_new(0x0E, "FL", 0.0033)  # scale slope SS: comparable between scans only as DV / (RS · SS)
    if is_dwi:
        imaging.add_new(0x03, "FL", float(shot.b_s_mm2))
        imaging.add_new(0x04, "CS", "I" if shot.direction is None else "O")
        indices = ds.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        indices.add_new(0x12, "IS", shot.volume_number)
        indices.add_new(0x13, "IS", 1)
        ds.DiffusionBValue = float(shot.b_s_mm2)
        ds.DiffusionGradientOrientation = list(shot.vector)
        if shot.direction:
            for offset, part in zip((0xB0, 0xB1, 0xB2), shot.direction, strict=True):
                private.add_new(offset, "FL", part)


def _canon_mr(ds: Dataset, shot: Shot) -> None:
    is_dwi = shot.weighting == "dwi"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "GDC"]
    ds.ScanningSequence = ["SE", "EP"] if is_dwi else "SE"
    ds.SequenceVariant = "NONE"
    ds.ScanOptions = ["PFP", "FS"]
    ds.SequenceName = "SEEPI2D+0.7" if is_dwi else "FSE2D+10.0"
    ds.SeriesDescription = ds.ProtocolName = "DWI Abdomen b1500" if is_dwi else "AX T2 FatSAT Abdomen"
    ds.add_new(0x700D0010, "LO", "CANON_MEC_MR3")
    if shot.is_weighted:  # Canon leaves the element out for b = 0
        ds.DiffusionBValue = float(shot.b_s_mm2)
        ds.ImageComments = f"b={int(shot.b_s_mm2)}({','.join(f'{part:.3f}' for part in shot.vector)})"


def _uih_mr(ds: Dataset, shot: Shot) -> None:
    is_dwi = shot.weighting == "dwi"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    ds.ScanningSequence, ds.SequenceVariant = ("EP" if is_dwi else "SE"), "NONE"
    ds.ScanOptions = "FS"
    ds.SequenceName = "epi_dwi" if is_dwi else "fse"
    ds.SeriesDescription = ds.ProtocolName = "epi_dwi_tra_fs_10b_liver" if is_dwi else "fse_t2_tra_fs_trig_liver"
    if is_dwi:
        private = ds.private_block(0x0065, "Image Private Header", create=True)
        b = float(shot.b_s_mm2)
        private.add_new(0x09, "FD", b * UIH_ACTUAL_SHARE if b else 1.25)
        private.add_new(0x0A, "FD", b)
        private.add_new(0x2D, "ST", f"epi_dwi_b{int(b)}")
        private.add_new(0x37, "FD", list(shot.vector))


def _ge_ct(ds: Dataset, shot: Shot) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesDescription = "ABD ARTERIAL 5mm" if shot.is_arterial else "ABD PORTAL VENOUS 5mm"
    ds.ProtocolName = "6.1 LIVER 3 PHASE"
    ds.ConvolutionKernel, ds.FilterType, ds.ScanOptions = "STANDARD", "BODY FILTER", "HELICAL MODE"
    ds.ContrastBolusAgent, ds.ContrastBolusRoute = "OMNI 350", "IV"
    ds.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(0x1A, "LO", "S")


def _siemens_ct(ds: Dataset, shot: Shot) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]
    ds.SeriesDescription = f"Abdomen {'arteriell' if shot.is_arterial else 'portalvenös'} 5.0 B30f"
    ds.ProtocolName = "Abdomen_art_35s" if shot.is_arterial else "Abdomen_pv_70s"
    ds.ConvolutionKernel, ds.FilterType = "B30f", "FLAT"
    ds.ContrastBolusAgent = "APPLIED"
    ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x08, "CS", "SOM 5")


def _philips_ct(ds: Dataset, shot: Shot) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"]
    ds.SeriesDescription = f"Liver, {'ART' if shot.is_arterial else 'PV'} phase, 5mm"
    ds.ProtocolName = "Liver 3 phase/Abdomen"
    ds.ConvolutionKernel, ds.FilterType, ds.ScanOptions = "B", "B", "HELIX"
    ds.ContrastBolusAgent, ds.ContrastBolusRoute = "IV Contrast", "IV"
    ds.private_block(0x01F1, "ELSCINT1", create=True).add_new(0x01, "CS", "HELIX")


def _canon_ct(ds: Dataset, shot: Shot) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesDescription = f"Abdomen {'Arterial' if shot.is_arterial else 'Portal'} 5.0"
    ds.ProtocolName = "Liver 3 Phase"
    ds.ConvolutionKernel, ds.ScanOptions = "FC08", "HELICAL_CT"
    ds.ContrastBolusAgent, ds.ContrastBolusRoute = "IOPAMIRON 370", "IV"


DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        "ge": Dialect(
            "GE MEDICAL SYSTEMS",
            "SIGNA EXCITE",
            ("11", "LX", "MR Software release:11.0_M4_0517.a"),
            PixelFormat(16, is_signed=True),
            _ge_mr,
            _ge_t1,
            "LightSpeed16",
            "06MW03.5",
            PixelFormat(16, is_signed=True, intercept=-1024, rescale_type="HU", padding=-2000),
            _ge_ct,
        ),
        "siemens": Dialect(
            "SIEMENS",
            "Aera",
            ("syngo MR E11",),
            PixelFormat(12, is_signed=False),
            _siemens_mr,
            _siemens_t1,
            "SOMATOM Definition AS",
            "syngo CT VA48A",
            PixelFormat(12, is_signed=False, intercept=-1024, rescale_type="HU"),
            _siemens_ct,
        ),
        "philips": Dialect(
            "Philips Medical Systems",
            "Achieva dStream",
            ("5.3.0", "5.3.0.3"),
            PixelFormat(12, is_signed=False, slope=None, rescale_type="normalized"),
            _philips_mr,
            _philips_t1,
            "Brilliance 64",
            "4.1",
            PixelFormat(12, is_signed=False, intercept=-1000, rescale_type="HU"),
            _philips_ct,
        ),
        "canon": Dialect(
            "CANON_MEC",
            "Vantage Titan",
            ("V6.0SP2000*",),
            PixelFormat(16, is_signed=True, rescale_type=""),
            _canon_mr,
            _canon_t1,
            "Aquilion ONE",
            "V8.40",
            PixelFormat(16, is_signed=True, rescale_type="HU"),
            _canon_ct,
        ),
        "uih": Dialect("UIH", "uMR 570", ("R002",), PixelFormat(16, is_signed=False), _uih_mr, _uih_t1),
    }
)
