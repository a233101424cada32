"""A clinical table for phantom patients: what the weak supervision of the global-local system reads beside images.

One row a patient with the fifteen predictors of that system, named and coded as in HCC-TACE-Seg's clinical sheet
(HCC-TACE-Seg_clinical_data-V2.xlsx, DOI 10.7937/TCIA.5FNA-0924; column names and words as published code reads them;
weeks for the two intervals are our reading), so that `model.training.weak_labels` reads it. The frequencies are
assumed around those of patients treated by chemoembolisation. The relation to the images is made, and weak on purpose:

    burden = ρ·z + √(1 − ρ²)·ε,   z the patient's standardised tumour-to-liver ratio, ε standard normal

Seven predictors depend on the burden, each with noise of its own, eight on nothing. As they know the ratio through the
burden alone, no linear fit explains more than ρ² = 0.18 of z in the population; coding and missing values take some of
that, and fifteen coefficients fitted to a few hundred patients give some back (a test fits 200). `shuffled` is the
control: the same values, dealt to other patients.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from model.phantom import sample_parameters
from model.phantom_arterial import CT_PORTAL_VENOUS
from model.phantom_cases import phantom_patient
from model.phantom_second import sample_second_parameters
from model.phantom_second_shapes import Balls
from model.volume import Float64

Value: TypeAlias = str | float | int | None
"""None is missing."""

PATIENT_COLUMN = "TCIA_ID"
PREDICTORS = (
    "T_involvment", "CLIP_Score", "Personal history of cancer", "TNM", "Metastasis", "fhx_can", "Alcohol", "Smoking",
    "Evidence_of_cirh", "AFP", "age", "Diabetes", "Lymphnodes", "Interval_BL", "TTP",
)  # fmt: skip
TNM_STAGES = ("Stage-I", "Stage-II", "Stage-IIIA", "Stage-IIIB", "Stage-IIIC", "Stage-IVA", "Stage-IVB")
CORRELATION = math.sqrt(0.18)
MISSING_SHARE: Mapping[str, float] = MappingProxyType(
    dict(
        zip(
            PREDICTORS,
            (0.06, 0.09, 0.05, 0.08, 0.05, 0.14, 0.11, 0.10, 0.05, 0.13, 0.05, 0.06, 0.07, 0.12, 0.15),
            strict=True,
        )
    )
)
RATIO_MEAN_SD = MappingProxyType({1: (0.0136, 0.0145), 2: (0.0096, 0.0188)})
"""Of each family's tumour-to-liver ratios, over its seeds 0 to 999."""
Z_RANGE = (-1.0, 3.0)
_LOW_MM, _HIGH_MM, _PITCH_MM = (-160.0, -112.0, -116.0), (112.0, 92.0, 108.0), 16.0


@dataclass(frozen=True)
class ClinicalRow:
    """One patient's predictors as they stand in the sheet."""

    patient: str
    values: Mapping[str, Value]


def tumour_to_liver_ratio(seed: int, family: int = 1) -> float:
    """Volume of the lesions before treatment over that of the liver, from the drawn parameters, without rendering.

    The liver is counted on a lattice of 16 mm (3 % off), lesions that reach beyond it are not cut.
    """
    if family == 2:
        second = sample_second_parameters(CT_PORTAL_VENOUS, seed)
        tumour_mm3 = sum(_balls_mm3(lesion.balls) for lesion in second.metastases)
        return tumour_mm3 / _liver_mm3(second.patient.liver_depth_at)
    first = sample_parameters(CT_PORTAL_VENOUS, seed)
    tumour_mm3 = sum(4 / 3 * math.pi * math.prod(lesion.shape.radii_mm) for lesion in first.metastases)
    return tumour_mm3 / _liver_mm3(first.patient.liver_depth_at)


def clinical_row(seed: int, ratio: float, family: int = 1) -> ClinicalRow:
    """The row of patient `seed`, whose tumour-to-liver ratio is `ratio`; it depends on nothing else."""
    rng = _rng(f"row:{family}", seed)
    mean, sd = RATIO_MEAN_SD[family]
    z = float(np.clip((ratio - mean) / sd, *Z_RANGE))
    burden = CORRELATION * z + math.sqrt(1 - CORRELATION**2) * float(rng.normal())
    drawn = _predictors(rng, burden)
    missing = rng.random(len(PREDICTORS))
    kept = {
        name: None if lot < MISSING_SHARE[name] else drawn[name] for name, lot in zip(PREDICTORS, missing, strict=True)
    }
    return ClinicalRow(phantom_patient(seed, family), MappingProxyType(kept))


def clinical_table(seeds: Iterable[int], family: int = 1) -> tuple[ClinicalRow, ...]:
    """One row for each seed, in their order. Raises ValueError for a seed that comes twice."""
    wanted = tuple(seeds)
    if len(set(wanted)) != len(wanted):
        raise ValueError("a patient has one row in the clinical table; a seed comes twice")
    return tuple(clinical_row(seed, tumour_to_liver_ratio(seed, family), family) for seed in wanted)


def shuffled(table: Sequence[ClinicalRow], seed: int) -> tuple[ClinicalRow, ...]:
    """The control: every patient gets the values of one drawn at random, each row's once."""
    order = _rng("shuffle", seed).permutation(len(table))
    return tuple(ClinicalRow(row.patient, table[other].values) for row, other in zip(table, order, strict=True))


def write_clinical_csv(path: Path, table: Sequence[ClinicalRow]) -> None:
    """The table as CSV with the sheet's column names; a missing value is an empty field. Whole or absent."""
    draft = path.with_name(f"{path.name}.part")
    with draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((PATIENT_COLUMN, *PREDICTORS))
        for row in table:
            writer.writerow((row.patient, *("" if (v := row.values[name]) is None else v for name in PREDICTORS)))
    draft.replace(path)


def _predictors(rng: np.random.Generator, burden: float) -> dict[str, Value]:
    def noisy(share: float) -> float:
        """The burden seen through noise: correlation `share` with it, variance 1."""
        return share * burden + math.sqrt(1 - share**2) * float(rng.normal())

    def happens(share: float) -> int:
        return int(rng.random() < share)

    clip = int(np.searchsorted((-0.7, 0.2, 0.9, 1.5, 2.1, 2.7), noisy(0.8)))
    tnm = int(np.searchsorted((-0.6, 0.2, 0.8, 1.2, 1.6, 2.1), noisy(0.75)))
    return {
        "T_involvment": ">50%" if noisy(0.85) > 1.1 else "< or = 50%",
        "CLIP_Score": f"Stage_{clip}",
        "Personal history of cancer": happens(0.17),
        "TNM": TNM_STAGES[tnm],
        "Metastasis": int(noisy(0.6) > 1.4),
        "fhx_can": happens(0.36),
        "Alcohol": happens(0.58),
        "Smoking": happens(0.62),
        "Evidence_of_cirh": happens(0.75),
        "AFP": round(float(np.exp(3.6 + 2.2 * noisy(0.6))), 1),
        "age": int(np.clip(round(rng.normal(66, 9.5)), 31, 89)),
        "Diabetes": happens(0.33),
        "Lymphnodes": int(noisy(0.55) > 1.0),
        "Interval_BL": round(float(rng.gamma(2.2, 1.6)), 1),
        "TTP": round(float(np.exp(3.0 - 0.75 * noisy(0.7))), 1),
    }


def _liver_mm3(depth_at: Callable[[Float64], Float64]) -> float:
    axes = (np.arange(low + _PITCH_MM / 2, high, _PITCH_MM) for low, high in zip(_LOW_MM, _HIGH_MM, strict=True))
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return float(np.count_nonzero(depth_at(lattice) > 0)) * _PITCH_MM**3


def _balls_mm3(balls: Balls) -> float:
    """Volume of balls run together, counted on a lattice of a fortieth of their extent."""
    low, high = np.asarray(balls.low_mm), np.asarray(balls.high_mm)
    pitch = float((high - low).max()) / 40
    axes = (np.arange(a + pitch / 2, b, pitch, dtype=np.float32) for a, b in zip(low, high, strict=True))
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return float(np.count_nonzero(balls.depth_mm(x, y, z) > 0)) * pitch**3


def _rng(purpose: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"crlm-phantom-clinical-1:{purpose}:{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
