"""A clinical table becomes expected shares of tumour, each with its own patient (models.md §4.3, §4.4, §11 test 8)."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from model.training.weak_labels import (
    PREDICTORS,
    ClinicalTableError,
    Fit,
    fit_expected_shares,
    predictors_of,
    read_clinical_table,
    tumour_share_of,
)

COUNT = 60
WORDS = {
    "T_involvment": ("< or = 50%", ">50%"),
    "CLIP_Score": tuple(f"Stage_{i}" for i in range(7)),
    "TNM": ("Stage-I", "Stage-II", "Stage-IIIA", "Stage-IIIB", "Stage-IIIC", "Stage-IVA", "Stage-IVB"),
}
Row = dict[str, str]


def some_rows(seed: int = 0) -> tuple[list[Row], dict[str, float]]:
    """Rows of a made-up clinic, and shares of which the table explains a part: more by involvement and stage."""
    rng = np.random.default_rng(seed)
    rows, measured = [], {}
    for number in range(COUNT):
        row = {p.column: str(rng.integers(0, 2)) for p in PREDICTORS}
        row |= {name: words[rng.integers(len(words))] for name, words in WORDS.items()}
        row |= {
            "AFP": f"{10 ** rng.uniform(0, 5):.1f}",
            "age": str(rng.integers(30, 90)),
            "TTP": f"{rng.uniform():.3f}",
        }
        row |= {"TCIA_ID": f"HCC_{number:03d}", "OS": "12.5"}
        rows.append(row)
        involved, stage = WORDS["T_involvment"].index(row["T_involvment"]), WORDS["TNM"].index(row["TNM"])
        measured[row["TCIA_ID"]] = float(np.clip(0.1 + 0.2 * involved + 0.02 * stage + rng.normal(0, 0.1), 0, 1))
    return rows, measured


def write(path: Path, rows: list[Row], separator: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def fit(folder: Path, rows: list[Row], measured: dict[str, float], profile: str = "best") -> Fit:
    return fit_expected_shares(
        read_clinical_table(write(folder / "clinic.csv", rows), predictors_of(profile)), measured
    )


def test_there_are_fifteen_predictors_and_the_best_profile_drops_what_is_known_later() -> None:
    assert len(predictors_of("published")) == len(predictors_of("as-coded")) == 15
    dropped = {p.column for p in predictors_of("published")} - {p.column for p in predictors_of("best")}
    assert dropped == {"TTP", "Interval_BL"}


def test_words_are_coded_by_their_order_and_missing_values_are_told(tmp_path: Path) -> None:
    rows, _ = some_rows()
    rows[0] |= {"TNM": "Stage-IIIB", "CLIP_Score": "Stage_5", "T_involvment": ">50%", "AFP": "", "Smoking": "No"}
    table = read_clinical_table(write(tmp_path / "clinic.csv", rows))
    first = dict(zip(table.columns, table.values_NP[0].tolist(), strict=True))
    assert (first["TNM"], first["CLIP_Score"], first["T_involvment"], first["Smoking"]) == (4, 5, 2, 0)
    assert math.isnan(first["AFP"])


def test_the_fit_is_ordinary_least_squares(tmp_path: Path) -> None:
    """Against numpy's solution of the same normal equations."""
    rows, measured = some_rows()
    found = fit(tmp_path, rows, measured, profile="published")
    table = read_clinical_table(tmp_path / "clinic.csv")
    design = np.column_stack([np.ones(COUNT), table.values_NP])
    share = np.array([measured[patient] for patient in table.patients])
    fitted = design @ np.linalg.lstsq(design, share)[0]
    assert [found.expected[patient] for patient in table.patients] == pytest.approx(fitted.clip(0, 1).tolist())
    assert found.mean_error == pytest.approx(np.abs(fitted - share).mean())
    assert found.r_squared == pytest.approx(1 - ((fitted - share) ** 2).sum() / ((share - share.mean()) ** 2).sum())


def test_left_out_is_what_a_fit_without_that_patient_says(tmp_path: Path) -> None:
    rows, measured = some_rows()
    found = fit(tmp_path, rows, measured)
    table = read_clinical_table(tmp_path / "clinic.csv", predictors_of("best"))
    design = np.column_stack([np.ones(COUNT), table.values_NP])
    share = np.array([measured[patient] for patient in table.patients])
    errors = []
    for i in range(COUNT):
        others = np.arange(COUNT) != i
        errors.append(design[i] @ np.linalg.lstsq(design[others], share[others])[0] - share[i])
    assert found.left_out_mean_error == pytest.approx(np.abs(errors).mean())
    assert found.left_out_r_squared < found.r_squared


def test_shares_stay_with_their_patients_whatever_the_order_of_rows(tmp_path: Path) -> None:
    rows, measured = some_rows()
    straight = fit(tmp_path, rows, measured)
    shuffled = [rows[i] for i in np.random.default_rng(3).permutation(COUNT)]
    again = fit(tmp_path, shuffled, dict(reversed(measured.items())))
    assert again.expected == pytest.approx(straight.expected)
    assert straight.r_squared > 0.4


def test_a_shuffled_table_knows_nothing_of_a_patient_that_it_has_not_seen(tmp_path: Path) -> None:
    rows, measured = some_rows()
    table = read_clinical_table(write(tmp_path / "clinic.csv", rows), predictors_of("best"))
    assert fit_expected_shares(table, measured).left_out_r_squared > 0.2
    assert fit_expected_shares(table.shuffled(seed=1), measured).left_out_r_squared < 0


def test_missing_values_become_the_median_of_the_training_patients_and_are_counted(tmp_path: Path) -> None:
    rows, measured = some_rows()
    training = dict(list(measured.items())[:40])
    for row in rows[:5]:
        row["age"] = "n/a"
    gaps = fit(tmp_path, rows, training)
    median = float(np.median([float(row["age"]) for row in rows[5:40]]))
    filled = fit(tmp_path, [row | {"age": str(median)} if row["age"] == "n/a" else row for row in rows], training)
    assert gaps.expected == pytest.approx(filled.expected)
    assert gaps.imputed["age"] == 5
    assert filled.imputed["age"] == 0


def test_a_column_that_is_the_same_for_all_or_follows_from_others_does_no_harm(tmp_path: Path) -> None:
    rows, measured = some_rows()
    copied = [row | {"Smoking": "1", "Alcohol": row["Diabetes"]} for row in rows]
    found = fit(tmp_path, copied, measured)
    assert 0 < found.r_squared < 1
    assert math.isfinite(found.left_out_mean_error)


def test_only_training_patients_are_fitted(tmp_path: Path) -> None:
    rows, measured = some_rows()
    training = dict(list(measured.items())[:40])
    assert set(fit(tmp_path, rows, training).expected) == set(training)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_usual_separator_will_do(tmp_path: Path, separator: str) -> None:
    rows, _ = some_rows()
    assert len(read_clinical_table(write(tmp_path / "clinic.csv", rows, separator)).patients) == COUNT


def test_two_rows_of_one_patient_are_refused_by_their_numbers(tmp_path: Path) -> None:
    rows, _ = some_rows()
    with pytest.raises(ClinicalTableError, match=r"clinic\.csv: rows 4 and 62 are of one patient") as caught:
        read_clinical_table(write(tmp_path / "clinic.csv", [*rows, rows[2]]))
    assert rows[2]["TCIA_ID"] not in str(caught.value)


def test_a_word_that_nobody_knows_is_refused_with_row_and_column(tmp_path: Path) -> None:
    rows, _ = some_rows()
    rows[3]["TNM"] = "Stage-V"
    with pytest.raises(ClinicalTableError, match=r"clinic\.csv, row 5, column TNM: 'Stage-V' is no number or one of"):
        read_clinical_table(write(tmp_path / "clinic.csv", rows))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    rows, _ = some_rows()
    for row in rows:
        del row["CLIP_Score"]
    with pytest.raises(ClinicalTableError, match="row 1: there must be exactly one column 'CLIP_Score'"):
        read_clinical_table(write(tmp_path / "clinic.csv", rows))


def test_a_training_patient_without_a_row_is_counted_and_not_named(tmp_path: Path) -> None:
    rows, measured = some_rows()
    with pytest.raises(ClinicalTableError, match="2 of 60 training patients have no row") as caught:
        fit(tmp_path, rows[2:], measured)
    assert rows[0]["TCIA_ID"] not in str(caught.value)


def test_too_few_patients_for_the_predictors_are_refused(tmp_path: Path) -> None:
    rows, measured = some_rows()
    with pytest.raises(ClinicalTableError, match="14 training patients cannot tell 13 predictors apart"):
        fit(tmp_path, rows, dict(list(measured.items())[:14]))


def test_a_column_without_any_value_is_refused(tmp_path: Path) -> None:
    rows, measured = some_rows()
    with pytest.raises(ClinicalTableError, match="no training patient has a value in column AFP"):
        fit(tmp_path, [row | {"AFP": ""} for row in rows], measured)


def test_a_spreadsheet_is_asked_for_as_csv(tmp_path: Path) -> None:
    with pytest.raises(ClinicalTableError, match="save its first sheet as CSV"):
        read_clinical_table(tmp_path / "HCC-TACE-Seg_clinical_data-V2.xlsx")


def test_the_share_counts_liver_vein_and_tumour_once() -> None:
    liver, vein, tumour = np.zeros((3, 1, 2, 10), bool)
    liver[..., :8], vein[0, 0, 8], tumour[0, 0, 6:10] = True, True, True
    assert tumour_share_of(liver, tumour, vein) == pytest.approx(4 / 18)
    with pytest.raises(ValueError, match="no share of tumour"):
        tumour_share_of(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 2), bool))
