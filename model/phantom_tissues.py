"""What the phantoms' tissues look like: relaxation, diffusion, density, attenuation, each with its source.

Values are for 1.5 T, portal-venous CT (70–80 s after the injection), adults. Where a source gives a range the
entry is inside it; entries marked *assumed* are ours (chosen between neighbouring tissues). The relative proton
densities are the least certain figures in the table and matter least: 0.8–1.0 changes a contrast by a fifth.

`adc` is the slow compartment. With the perfusion fraction f the apparent ADC between b = 0 and 1000 s/mm² is
adc − ln(1 − f) per 1000: liver 1.40, spleen 0.96, renal cortex 2.07, medulla 1.86, pancreas 1.46, against
1.34–1.77 by segment, 1.28 ± 0.38, 2.08 ± 0.22, 1.94 ± 0.18 and 1.59–1.68 ± 0.3 in [K08] (a test compares them).

Compared with the papers' abstracts: [K08], the lesion counts and b-values of [B08], the 3 T half of [B04]. The other
figures are as commonly quoted from these sources and were not re-read for this table.

Sources
    [B04] de Bazelaire et al., Radiology 2004;230:652: T1, T2 of abdominal tissues at 1.5 and 3 T
    [S05] Stanisz et al., Magn Reson Med 2005;54:507: T1, T2 of tissue and blood at 1.5 and 3 T
    [C12] Cieszanowski et al., Eur Radiol 2012;22:2514: T2 and ADC of focal liver lesions
    [T10] Taouli & Koh, Radiology 2010;254:47: review of liver DWI, ADC of liver and focal lesions
    [B08] Bruegel et al., Eur Radiol 2008;18:477: ADC of 204 focal liver lesions, cysts, haemangiomas, metastases
    [L08] Luciani et al., Radiology 2008;249:891: perfusion fraction and fast diffusion of the liver
    [K08] Kılıçkesmez et al., Diagn Interv Radiol 2008;14:83: ADC of normal abdominal organs, b = 0, 500, 1000
    [C08] Cui et al., Radiology 2008;248:894: ADC of colorectal and gastric liver metastases under chemotherapy
    [P03] Prokop & Galanski (eds), Spiral and Multislice CT of the Body, Thieme 2003: attenuation of organs,
          unenhanced and in the portal-venous phase
    [B10] Bae, Radiology 2010;256:32: contrast timing and enhancement of aorta, portal vein, liver (+50 HU at least)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Tissue(IntEnum):
    """Integer of a tissue in a painted map; 0 is outside the patient."""

    OUTSIDE = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    MARROW = 5
    DISC = 6
    CSF = 7
    CORD = 8
    LUNG = 9
    HEART = 10
    BLOOD = 11
    LIVER = 12
    LIVER_VESSEL = 13
    SPLEEN = 14
    CORTEX = 15
    MEDULLA = 16
    PANCREAS = 17
    STOMACH_WALL = 18
    STOMACH_FLUID = 19
    GAS = 20
    BOWEL_WALL = 21
    BOWEL_CONTENT = 22
    BILE = 23
    NODE = 24
    TABLE = 25


@dataclass(frozen=True)
class Properties:
    """One tissue. Times in ms, diffusion in 10⁻³ mm²/s, `density` relative to water, CT in HU.

    `perfusion` is the fraction of the signal that is lost to fast (capillary) diffusion above b ≈ 50 s/mm².
    `texture` is the standard deviation of its natural variation, relative for MR and per 100 HU for CT.
    """

    density: float
    t1_ms: float
    t2_ms: float
    adc: float
    perfusion: float
    ct_hu: float
    texture: float
    source: str


TISSUES: dict[Tissue, Properties] = {
    Tissue.OUTSIDE: Properties(0.0, 1000, 50, 0.0, 0.0, -1000, 0.0, "air"),
    Tissue.SKIN: Properties(0.65, 900, 35, 1.0, 0.0, 20, 0.05, "assumed between muscle and fat"),
    Tissue.FAT: Properties(0.90, 343, 58, 0.05, 0.0, -100, 0.06, "T1, T2 [B04]; ADC near 0, assumed; HU [P03]"),
    Tissue.MUSCLE: Properties(0.80, 856, 30, 1.40, 0.0, 62, 0.05, "T1, T2 paravertebral [B04]; ADC assumed; HU [P03]"),
    Tissue.BONE: Properties(0.10, 800, 10, 0.4, 0.0, 420, 0.12, "assumed: cortical bone, near signal void; HU [P03]"),
    Tissue.MARROW: Properties(0.70, 549, 49, 0.50, 0.0, 190, 0.12, "T1, T2 marrow of L4 [B04]; ADC assumed; HU [P03]"),
    Tissue.DISC: Properties(0.75, 1000, 80, 1.60, 0.0, 95, 0.06, "assumed; HU [P03]"),
    Tissue.CSF: Properties(1.00, 3500, 1500, 3.00, 0.0, 12, 0.02, "free water at 37 °C; HU [P03]"),
    Tissue.CORD: Properties(0.85, 745, 74, 0.90, 0.0, 38, 0.04, "T1, T2 [S05]; ADC assumed; HU [P03]"),
    Tissue.LUNG: Properties(0.10, 900, 30, 1.0, 0.0, -840, 0.10, "assumed; HU [P03]"),
    Tissue.HEART: Properties(0.80, 1000, 45, 2.50, 0.30, 130, 0.06, "T1, T2 near muscle [S05]; motion as ADC, assumed"),
    Tissue.BLOOD: Properties(0.85, 1441, 120, 3.00, 0.85, 155, 0.03, "T1 [S05]; flow void as loss; HU [B10]"),
    Tissue.LIVER: Properties(0.80, 586, 46, 1.15, 0.22, 108, 0.05, "T1, T2 [B04]; ADC, f [T10][L08]; HU [B10]"),
    Tissue.LIVER_VESSEL: Properties(
        0.85, 1441, 90, 3.00, 0.80, 165, 0.03, "as blood, slower; HU of the portal vein [B10]"
    ),
    Tissue.SPLEEN: Properties(0.85, 1057, 79, 0.85, 0.10, 122, 0.04, "T1, T2 [B04]; ADC, f [K08]; HU [B10]"),
    Tissue.CORTEX: Properties(0.85, 966, 87, 1.85, 0.20, 185, 0.05, "T1, T2 [B04]; ADC, f [K08]; HU [P03]"),
    Tissue.MEDULLA: Properties(0.87, 1412, 85, 1.70, 0.15, 140, 0.05, "T1, T2 [B04]; ADC, f [K08]; HU [P03]"),
    Tissue.PANCREAS: Properties(0.80, 584, 52, 1.30, 0.15, 95, 0.09, "T1, T2 [B04]; ADC, f [K08]; HU [P03]"),
    Tissue.STOMACH_WALL: Properties(0.80, 900, 55, 1.20, 0.05, 80, 0.05, "assumed between muscle and bowel; HU [P03]"),
    Tissue.STOMACH_FLUID: Properties(0.95, 2500, 300, 2.60, 0.0, 22, 0.12, "assumed: water with food; HU [P03]"),
    Tissue.GAS: Properties(0.0, 1000, 5, 0.0, 0.0, -930, 0.0, "air"),
    Tissue.BOWEL_WALL: Properties(0.80, 900, 65, 1.10, 0.05, 85, 0.06, "assumed; HU [P03]"),
    Tissue.BOWEL_CONTENT: Properties(0.75, 900, 75, 1.20, 0.0, 45, 0.18, "assumed: pasty content; HU [P03]"),
    Tissue.BILE: Properties(0.95, 2000, 450, 2.70, 0.0, 10, 0.02, "assumed: near water; HU [P03]"),
    Tissue.NODE: Properties(0.80, 900, 75, 1.00, 0.05, 85, 0.04, "assumed as spleen; HU [P03]"),
    Tissue.TABLE: Properties(0.0, 1000, 5, 0.0, 0.0, -450, 0.05, "carbon table, no MR signal"),
}


@dataclass(frozen=True)
class Range:
    """A uniform range of a lesion's property."""

    low: float
    high: float


@dataclass(frozen=True)
class LesionKind:
    """The spread of one kind of focal lesion; each lesion draws its own value from each range."""

    density: Range
    t1_ms: Range
    t2_ms: Range
    adc: Range
    ct_hu: Range
    source: str


VIABLE_PRE = LesionKind(
    Range(0.82, 0.90), Range(800, 1100), Range(66, 92), Range(0.80, 1.20), Range(62, 86),
    "T2 [C12]; ADC 0.94–1.5 [T10], 1.22 ± 0.31 [B08]; hypoattenuating to liver [P03]",
)  # fmt: skip
NECROSIS_PRE = LesionKind(
    Range(0.88, 0.95), Range(1200, 1800), Range(95, 150), Range(1.40, 2.10), Range(38, 58),
    "central necrosis: T2 and ADC rise towards fluid [T10]; HU little above water [P03]",
)  # fmt: skip
VIABLE_POST = LesionKind(
    Range(0.80, 0.88), Range(750, 1000), Range(62, 82), Range(1.00, 1.35), Range(62, 84),
    "ADC rises after chemotherapy [C08]; fibrosis shortens T2, assumed",
)  # fmt: skip
NECROSIS_POST = LesionKind(
    Range(0.78, 0.88), Range(800, 1300), Range(58, 100), Range(1.25, 1.80), Range(48, 68),
    "mixed fibrosis and necrosis, assumed between muscle and fluid",
)  # fmt: skip
CYST = LesionKind(
    Range(0.97, 1.00), Range(2500, 3500), Range(400, 900), Range(2.60, 3.20), Range(0, 15),
    "T2 [C12]; ADC 3.02 ± 0.31 [B08]; water HU [P03]",
)  # fmt: skip
HAEMANGIOMA = LesionKind(
    Range(0.90, 0.95), Range(1200, 1600), Range(110, 170), Range(1.70, 2.30), Range(135, 165),
    "T2 [C12]; ADC 1.92 ± 0.34 [B08]; as the blood pool in the portal-venous phase [P03]",
)  # fmt: skip
