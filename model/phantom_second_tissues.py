"""Tissues and lesions as the second family shows them: 3 T, fat in the liver, another tube voltage.

MR times are those at 3 T; where a source has none the 1.5 T value of the first family's table is scaled as its
neighbours change (T1 up by a fifth, T2 down by a tenth). CT enhancement is scaled for a lower tube voltage, at which
iodine attenuates more.

Sources
    [B04] de Bazelaire et al., Radiology 2004;230:652: T1, T2 of abdominal tissues at 3 T
    [S05] Stanisz et al., Magn Reson Med 2005;54:507: T1, T2 of tissue and blood at 3 T
    [B08] Bruegel et al., Eur Radiol 2008;18:477: ADC of focal liver lesions
    [K07] Kodama et al., AJR 2007;188:1307: attenuation of the liver falls with its fat content
    [R23] Radiopaedia, "Late arterial phase": aorta 290–360 HU, liver 20–30 above unenhanced, portal vein 145 ± 20
Of these [R23] was read again; the others are as commonly quoted. Lesion ranges are assumed around the first family's,
wider, and so that no lesion is always darker or brighter than every liver.
"""

from __future__ import annotations

from dataclasses import replace

from model.phantom_arterial import UNENHANCED_HU
from model.phantom_arteries import AORTA, ARTERY, CAVA, HEPATIC_VEIN, PORTAL_VEIN, VESSEL_CODES
from model.phantom_tissues import TISSUES, LesionKind, Properties, Range, Tissue

T1_T2_AT_3T: dict[Tissue, tuple[float, float]] = {
    Tissue.FAT: (382, 68), Tissue.MUSCLE: (898, 29), Tissue.MARROW: (586, 49), Tissue.LIVER: (809, 34),
    Tissue.SPLEEN: (1328, 61), Tissue.CORTEX: (1142, 76), Tissue.MEDULLA: (1545, 81), Tissue.PANCREAS: (725, 43),
    Tissue.BLOOD: (1932, 80), Tissue.LIVER_VESSEL: (1932, 70), Tissue.CORD: (993, 78), Tissue.HEART: (1300, 42),
    Tissue.CSF: (4000, 1400), Tissue.BILE: (2600, 420), Tissue.STOMACH_FLUID: (2900, 260),
}  # fmt: skip
"""Milliseconds: organs, fat, muscle and marrow [B04], blood and cord [S05], fluids assumed."""
T1_RISE, T2_FALL = 1.2, 0.9

LATE_ARTERIAL_HU: dict[int, float] = {
    Tissue.HEART: 250, Tissue.LIVER: 84, Tissue.SPLEEN: 132, Tissue.CORTEX: 200, Tissue.MEDULLA: 92,
    Tissue.PANCREAS: 118, Tissue.STOMACH_WALL: 96, Tissue.BOWEL_WALL: 104, Tissue.MUSCLE: 61, Tissue.NODE: 72,
    AORTA: 330, ARTERY: 300, CAVA: 64, PORTAL_VEIN: 142, HEPATIC_VEIN: 62,
}  # fmt: skip
"""About 40 s after the injection [R23], later than in the first family."""
LATE_ARTERIAL_SOURCE = "late arterial phase [R23]; organs assumed between the phases"
_BLOOD_HU = 45.0
HU_PER_FAT_FRACTION = -115.0
"""Of the liver, per unit of fat fraction, near what [K07] and later work with MR find."""

VIABLE = LesionKind(
    Range(0.80, 0.92), Range(1050, 1500), Range(44, 70), Range(0.75, 1.30), Range(58, 94),
    "3 T; wider than the first family's, partly as dense as a fatty liver, assumed; ADC [B08]",
)  # fmt: skip
NECROTIC = LesionKind(
    Range(0.88, 0.97), Range(1500, 2400), Range(80, 160), Range(1.30, 2.30), Range(28, 56), "towards fluid, assumed",
)  # fmt: skip
MUCINOUS = LesionKind(
    Range(0.90, 0.97), Range(1700, 2600), Range(120, 210), Range(1.50, 2.40), Range(30, 52),
    "mucin: bright on T2, freer diffusion, low attenuation, assumed",
)  # fmt: skip
TREATED = LesionKind(
    Range(0.76, 0.88), Range(950, 1350), Range(42, 66), Range(1.05, 1.60), Range(60, 88), "fibrosis, assumed"
)
CYSTIC = LesionKind(
    Range(0.97, 1.00), Range(3000, 4000), Range(350, 800), Range(2.50, 3.20), Range(-2, 18), "fluid; ADC [B08]"
)
HAEMANGIOMATOUS = LesionKind(
    Range(0.90, 0.96), Range(1500, 2000), Range(90, 150), Range(1.60, 2.30), Range(120, 165), "blood pool; ADC [B08]"
)
FOCAL_FAT = LesionKind(
    Range(0.58, 0.70), Range(760, 840), Range(32, 37), Range(1.00, 1.20), Range(52, 78),
    "a patch of fatty liver: fewer water protons, less attenuation [K07]",
)  # fmt: skip


def at_3_tesla() -> dict[int, Properties]:
    """The MR tissues of the second family."""
    return {int(tissue): _at_3_tesla(tissue, known) for tissue, known in TISSUES.items()}


def at_voltage(factor: float, *, is_arterial: bool) -> dict[int, Properties]:
    """The CT tissues: enhancement above the unenhanced tissue times `factor`, in one of the two phases."""
    table = {int(tissue): known for tissue, known in TISSUES.items()}
    if is_arterial:
        table |= dict.fromkeys(VESSEL_CODES, TISSUES[Tissue.BLOOD])
        for code, hu in LATE_ARTERIAL_HU.items():
            table[int(code)] = replace(table[int(code)], ct_hu=hu, source=LATE_ARTERIAL_SOURCE)
    rest = {int(tissue): hu for tissue, hu in UNENHANCED_HU.items()}
    rest |= dict.fromkeys((int(Tissue.BLOOD), int(Tissue.LIVER_VESSEL), *range(len(Tissue), len(table))), _BLOOD_HU)
    for code, hu in rest.items():
        table[code] = replace(table[code], ct_hu=hu + factor * (table[code].ct_hu - hu))
    return table


def _at_3_tesla(tissue: Tissue, known: Properties) -> Properties:
    t1_ms, t2_ms = T1_T2_AT_3T.get(tissue, (known.t1_ms * T1_RISE, known.t2_ms * T2_FALL))
    return replace(known, t1_ms=t1_ms, t2_ms=t2_ms)
