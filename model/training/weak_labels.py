"""From a clinical table to each patient's expected share of tumour in the liver, r̂: the weak labels of system (d).

r_i = |mass| / |liver ∪ portal vein ∪ mass| of the training patients is regressed on what the clinic knows of them, by
ordinary least squares; r̂ is the fitted value (models.md §4.3). It is needed in training only.

The table is that of TCIA's HCC-TACE-Seg (DOI 10.7937/TCIA.5FNA-0924): one row a patient, column `TCIA_ID`, and the 15
predictors below, coded by their order. Its release is an .xlsx file; we read CSV, as any spreadsheet program saves it.
System (d) sees rows twice where the table has a patient twice; here that is an error. Two predictors are not known when
the patient is first seen, time to progression (`TTP`) and the interval to the baseline scan (`Interval_BL`): they are
used in the profiles `published` and `as-coded` only.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.volume import Float64

PROFILES = ("published", "as-coded", "best")
PATIENT_COLUMN = "TCIA_ID"
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "unknown", "not stated", "."})

_YES_NO = {"no": 0.0, "n": 0.0, "yes": 1.0, "y": 1.0}
_CLIP = {f"stage_{score}": float(score) for score in range(7)}
_TNM = {f"stage-{name}": float(i) for i, name in enumerate(("i", "ii", "iiia", "iiib", "iiic", "iva", "ivb"), start=1)}
_INVOLVEMENT = {"< or = 50%": 1.0, "<=50%": 1.0, "≤50%": 1.0, ">50%": 2.0}


class ClinicalTableError(ValueError):
    """The table cannot be used; the text names file, row and column, and never a patient."""


@dataclass(frozen=True)
class Predictor:
    """A column: a number, or one of the words of `codes`, in their order."""

    column: str
    codes: Mapping[str, float] = field(default_factory=dict)
    is_known_before: bool = True
    """False: known only after the images to be segmented, so no honest predictor of them."""


PREDICTORS = (
    Predictor("T_involvment", _INVOLVEMENT),
    Predictor("CLIP_Score", _CLIP),
    Predictor("Personal history of cancer", _YES_NO),
    Predictor("TNM", _TNM),
    Predictor("Metastasis", _YES_NO),
    Predictor("fhx_can", _YES_NO),
    Predictor("Alcohol", _YES_NO),
    Predictor("Smoking", _YES_NO),
    Predictor("Evidence_of_cirh", _YES_NO),
    Predictor("AFP"),
    Predictor("age"),
    Predictor("Diabetes", _YES_NO),
    Predictor("Lymphnodes", _YES_NO),
    Predictor("Interval_BL", is_known_before=False),
    Predictor("TTP", is_known_before=False),
)


def predictors_of(profile: str) -> tuple[Predictor, ...]:
    """All 15 in `published` and `as-coded`; in `best` those that are known before the images. KeyError for another."""
    if profile not in PROFILES:
        raise KeyError(f"no profile is called {profile!r}; there are: {', '.join(PROFILES)}")
    return tuple(p for p in PREDICTORS if p.is_known_before or profile != "best")


@dataclass(frozen=True)
class ClinicalTable:
    """The predictors' values (patients, predictors), NaN where the table has none."""

    source: str
    patients: tuple[str, ...]
    columns: tuple[str, ...]
    values_NP: Float64

    def shuffled(self, seed: int) -> ClinicalTable:
        """The same rows dealt out to other patients: the control, of which no supervision can come."""
        order = np.random.default_rng(seed).permutation(len(self.patients))
        return replace(self, values_NP=self.values_NP[order])


@dataclass(frozen=True)
class Fit:
    """The regression: r̂ by patient, in [0, 1], and how much the table knows.

    `mean_error` is the mean |r̂ − r| on the training patients themselves, the hinge's δ; `left_out_…` is the same with
    each patient predicted by the others, which is what the table would be worth for a new one.
    """

    expected: Mapping[str, float]
    mean_error: float
    r_squared: float
    left_out_mean_error: float
    left_out_r_squared: float
    columns: tuple[str, ...]
    imputed: Mapping[str, int]
    """How many patients had no value in each column and got the median."""

    def __str__(self) -> str:
        return (
            f"R² {self.r_squared:.3f} (left out: {self.left_out_r_squared:.3f}), mean error {self.mean_error:.4f} "
            f"(left out: {self.left_out_mean_error:.4f}), {len(self.expected)} patients, {len(self.columns)} predictors"
        )


def read_clinical_table(path: Path, predictors: Sequence[Predictor] = PREDICTORS) -> ClinicalTable:
    """The predictors of every patient in a CSV file; separators comma, semicolon or tab.

    Raises ClinicalTableError: not a CSV file, a column missing, a value that is neither number nor known word, a row
    without a patient or a patient with two rows.
    """
    lines = _lines(path)
    header = [name.strip() for name in lines[0]]
    wanted = (PATIENT_COLUMN, *(p.column for p in predictors))
    if missing := [name for name in wanted if header.count(name) != 1]:
        raise ClinicalTableError(f"{path}, row 1: there must be exactly one column {', '.join(map(repr, missing))}")
    rows: dict[str, int] = {}
    values: list[list[float]] = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in line):
            continue
        cells = dict(zip(header, line, strict=False))
        _note_patient(path, rows, cells.get(PATIENT_COLUMN, "").strip(), number)
        values.append([_value(path, number, p, cells.get(p.column, "")) for p in predictors])
    if not rows:
        raise ClinicalTableError(f"{path}: has a header, and no patient below it")
    return ClinicalTable(str(path), tuple(rows), tuple(p.column for p in predictors), np.array(values))


def fit_expected_shares(table: ClinicalTable, measured: Mapping[str, float]) -> Fit:
    """r̂ of the training patients in `measured` (patient → r_i of their masks). Patients without r_i are not used.

    Missing values become the median of the training patients. Raises ClinicalTableError: a training patient without a
    row, a column without any value, too few patients for as many predictors.
    """
    row_of = {patient: row for row, patient in enumerate(table.patients)}
    patients = sorted(measured)
    if absent := sum(patient not in row_of for patient in patients):
        raise ClinicalTableError(
            f"{table.source}: {absent} of {len(patients)} training patients have no row; column {PATIENT_COLUMN} must "
            "spell them as the cases do"
        )
    if len(patients) < len(table.columns) + 2:
        raise ClinicalTableError(
            f"{table.source}: {len(patients)} training patients cannot tell {len(table.columns)} predictors apart"
        )
    raw_NP = table.values_NP[[row_of[patient] for patient in patients]]
    share_N = np.array([measured[patient] for patient in patients])
    fitted_N, left_out_N = _least_squares(_imputed(table, raw_NP), share_N)
    return Fit(
        expected=dict(zip(patients, np.clip(fitted_N, 0, 1).tolist(), strict=True)),
        mean_error=float(np.abs(fitted_N - share_N).mean()),
        r_squared=_r_squared(fitted_N, share_N),
        left_out_mean_error=float(np.abs(left_out_N - share_N).mean()),
        left_out_r_squared=_r_squared(left_out_N, share_N),
        columns=table.columns,
        imputed=dict(zip(table.columns, np.isnan(raw_NP).sum(axis=0).tolist(), strict=True)),
    )


def tumour_share_of(
    liver: NDArray[np.bool_], tumour: NDArray[np.bool_], vein: NDArray[np.bool_] | None = None
) -> float:
    """r of one patient's masks: |tumour| / |liver ∪ portal vein ∪ tumour|. Raises ValueError for an empty liver."""
    organ = liver | tumour if vein is None else liver | tumour | vein
    if not organ.any():
        raise ValueError("neither liver nor tumour is labelled: there is no share of tumour")
    return float(np.count_nonzero(tumour) / np.count_nonzero(organ))


def _lines(path: Path) -> list[list[str]]:
    if path.suffix.lower() in {".xlsx", ".xls"}:
        raise ClinicalTableError(f"{path}: spreadsheets are not read; save its first sheet as CSV (UTF-8)")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ClinicalTableError(f"{path}: cannot be read as text in UTF-8 ({error})") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    if not lines:
        raise ClinicalTableError(f"{path}: is empty; its first row must name the columns")
    return lines


def _note_patient(path: Path, rows: dict[str, int], patient: str, number: int) -> None:
    if not patient:
        raise ClinicalTableError(f"{path}, row {number}: column {PATIENT_COLUMN} is empty")
    if patient in rows:
        raise ClinicalTableError(
            f"{path}: rows {rows[patient]} and {number} are of one patient ({PATIENT_COLUMN}); keep one of them"
        )
    rows[patient] = number


def _value(path: Path, number: int, predictor: Predictor, cell: str) -> float:
    """The cell as a number; NaN where it is empty."""
    text = re.sub(r"\s+", " ", cell.strip().lower())
    if text in MISSING:
        return np.nan
    if text in predictor.codes:
        return predictor.codes[text]
    try:
        value = float(text)
    except ValueError:
        value = np.inf
    if not np.isfinite(value):
        known = f" or one of {', '.join(predictor.codes)}" if predictor.codes else ""
        raise ClinicalTableError(f"{path}, row {number}, column {predictor.column}: {cell!r} is no number{known}")
    return value


def _imputed(table: ClinicalTable, raw_NP: Float64) -> Float64:
    is_missing_NP = np.isnan(raw_NP)
    if empty := [name for name, missing_N in zip(table.columns, is_missing_NP.T, strict=True) if missing_N.all()]:
        raise ClinicalTableError(f"{table.source}: no training patient has a value in column {', '.join(empty)}")
    return np.where(is_missing_NP, np.nanmedian(raw_NP, axis=0), raw_NP)


def _least_squares(values_NP: Float64, share_N: Float64) -> tuple[Float64, Float64]:
    """Fitted values, and what each patient would be given by the others: r − e/(1 − h), h the leverage.

    Columns are standardised, for AFP spans five orders of magnitude; fitted values do not depend on it. A column that
    is the same for all, or follows from others, is left to the constant and to those.
    """
    spread = values_NP.std(axis=0)
    standard_NP = (values_NP - values_NP.mean(axis=0)) / np.where(spread > 0, spread, 1)
    design = np.column_stack([np.ones(len(share_N)), standard_NP])
    basis, singular, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, singular > singular[0] * max(design.shape) * np.finfo(float).eps]
    fitted = basis @ (basis.T @ share_N)
    leverage = np.minimum((basis**2).sum(axis=1), 1 - 1e-9)
    return fitted, share_N - (share_N - fitted) / (1 - leverage)


def _r_squared(predicted_N: Float64, share_N: Float64) -> float:
    total = float(((share_N - share_N.mean()) ** 2).sum())
    return 1 - float(((share_N - predicted_N) ** 2).sum()) / total if total else 0.0
