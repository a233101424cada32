"""The clinical table: realistic to read, weakly related to the images, and a control that is not."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from model.phantom_catalogue import draw_phantom, reduced, usual_geometry
from model.phantom_clinical import (
    MISSING_SHARE,
    PATIENT_COLUMN,
    PREDICTORS,
    TNM_STAGES,
    ClinicalRow,
    clinical_row,
    clinical_table,
    shuffled,
    tumour_to_liver_ratio,
    write_clinical_csv,
)
from model.training.weak_labels import fit_expected_shares, read_clinical_table

SEEDS = range(200)
WORDS = {
    "T_involvment": {"< or = 50%", ">50%"},
    "CLIP_Score": {f"Stage_{score}" for score in range(7)},
    "TNM": set(TNM_STAGES),
}


@pytest.fixture(scope="module")
def ratios() -> np.ndarray:
    return np.array([tumour_to_liver_ratio(seed) for seed in SEEDS])


@pytest.fixture(scope="module")
def table(ratios: np.ndarray) -> tuple[ClinicalRow, ...]:
    return tuple(clinical_row(seed, ratio) for seed, ratio in zip(SEEDS, ratios, strict=True))


def explained(table: Sequence[ClinicalRow], ratios: np.ndarray, folder: Path) -> float:
    """R² of the regression by which the weak supervision makes its labels, from the file that it reads."""
    write_clinical_csv(folder / "clinical.csv", table)
    measured = {row.patient: float(ratio) for row, ratio in zip(table, ratios, strict=True)}
    return fit_expected_shares(read_clinical_table(folder / "clinical.csv"), measured).r_squared


def test_the_table_explains_a_little_of_the_ratio_and_no_more(
    table: tuple[ClinicalRow, ...], ratios: np.ndarray, tmp_path: Path
) -> None:
    assert 0.15 <= explained(table, ratios, tmp_path) <= 0.3


def test_dealt_to_other_patients_it_explains_what_chance_does(
    table: tuple[ClinicalRow, ...], ratios: np.ndarray, tmp_path: Path
) -> None:
    """Fifteen coefficients fit about 15/199 = 0.075 of nothing."""
    by_chance = [explained(shuffled(table, seed), ratios, tmp_path) for seed in range(20)]
    assert np.mean(by_chance) == pytest.approx(15 / 199, abs=0.03)
    assert explained(table, ratios, tmp_path) > np.quantile(by_chance, 0.95)


def test_the_control_holds_the_same_rows(table: tuple[ClinicalRow, ...]) -> None:
    control = shuffled(table, 1)
    assert [row.patient for row in control] == [row.patient for row in table]
    assert sorted(repr(dict(row.values)) for row in control) == sorted(repr(dict(row.values)) for row in table)
    assert sum(a.values is not b.values for a, b in zip(control, table, strict=True)) > 190


def test_between_five_and_fifteen_per_cent_of_each_column_is_missing(table: tuple[ClinicalRow, ...]) -> None:
    assert all(0.05 <= share <= 0.15 for share in MISSING_SHARE.values())
    for name in PREDICTORS:
        missing = np.mean([row.values[name] is None for row in table])
        assert missing == pytest.approx(MISSING_SHARE[name], abs=0.06), name


def test_values_are_those_of_the_sheet(table: tuple[ClinicalRow, ...]) -> None:
    for name in PREDICTORS:
        told = [row.values[name] for row in table if row.values[name] is not None]
        if name in WORDS:
            assert set(told) <= WORDS[name]
            assert len(set(told)) > 1
        elif name == "age":
            assert 30 <= min(told) <= max(told) <= 90
        elif name in ("AFP", "TTP", "Interval_BL"):
            assert min(told) >= 0
            assert len(set(told)) > 30
        else:
            assert set(told) == {0, 1}


def test_a_row_depends_on_its_patient_alone() -> None:
    together, alone = clinical_table((3, 4)), clinical_table((4,))
    assert together[1] == alone[0]
    with pytest.raises(ValueError, match="one row"):
        clinical_table((3, 3))


def test_the_file_has_the_sheets_columns_and_empty_fields(table: tuple[ClinicalRow, ...], tmp_path: Path) -> None:
    write_clinical_csv(tmp_path / "clinical.csv", table)
    with (tmp_path / "clinical.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [PATIENT_COLUMN, *PREDICTORS]
    assert [row[PATIENT_COLUMN] for row in rows] == [row.patient for row in table]
    assert [row["AFP"] == "" for row in rows] == [row.values["AFP"] is None for row in table]
    assert read_clinical_table(tmp_path / "clinical.csv").columns == PREDICTORS


@pytest.mark.parametrize("family", [1, 2])
def test_the_ratio_is_that_of_the_rendered_phantom(family: int) -> None:
    phantom = draw_phantom(
        "ct-portal-venous", 5, family=family, geometry=reduced(usual_geometry("ct-portal-venous", 5, family), 128)
    )
    rendered = np.count_nonzero(phantom.labels_DHW) / np.count_nonzero(phantom.liver_DHW)
    assert tumour_to_liver_ratio(5, family) == pytest.approx(rendered, rel=0.15)
