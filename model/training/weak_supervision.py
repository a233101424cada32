"""What a clinical table lets one expect of each training patient, found by who the patient is and never by a place.

The published code takes the r̂ of the patient after the right one (models.md §4.4); what is passed on here is a mapping
from patients, so that neither shuffling nor a skipped crop can move it.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from model.card import Strict
from model.problems import TrainingProblem
from model.training.recipe import Recipe, checked
from model.training.volumes import VolumeSet
from model.training.weak_labels import ClinicalTableError, fit_expected_shares, predictors_of, read_clinical_table

log = logging.getLogger(__name__)


class GlobalLocalSettings(Strict):
    """What the scheme global-local alone knows."""

    clinical_table: Path | None = None
    """CSV as `model.training.weak_labels` reads it; without it there is no weak supervision."""
    ratio_weight: Annotated[float, Field(ge=0)] = 0.5
    """λ of the loss on the share of tumour."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """ε of the smoothing by r̂, our reading of the second version of the paper; 0 leaves the truth as it is."""
    shuffled: int | None = None
    """A seed by which the table's rows are dealt out to other patients: the control."""


@dataclass(frozen=True)
class Expectations:
    """r̂ by patient, and the mean error δ of the regression that gave it; nothing is expected of other patients."""

    by_patient: Mapping[str, float] = field(default_factory=dict)
    margin: float = 0.0

    def of(self, patient: str) -> float:
        """r̂, NaN where it is not known."""
        return self.by_patient.get(patient, math.nan)

    def of_following(self, patient: str) -> float:
        """r̂ of the patient after this one in their order, the first after the last; NaN where it is not known."""
        order = sorted(self.by_patient)
        return self.of(order[(order.index(patient) + 1) % len(order)]) if patient in order else math.nan


def expectations_of(recipe: Recipe, training: VolumeSet) -> Expectations:
    """What the recipe's table lets one expect of its training patients. Raises TrainingProblem."""
    if recipe.scheme != "global-local":
        return Expectations()
    settings = checked(GlobalLocalSettings, recipe)
    if settings.clinical_table is None:
        return Expectations()
    try:
        table = read_clinical_table(settings.clinical_table, predictors_of(recipe.profile))
        table = table if settings.shuffled is None else table.shuffled(settings.shuffled)
        fit = fit_expected_shares(table, training.tumour_shares())
    except ClinicalTableError as error:
        raise TrainingProblem(f"{recipe.name}: {error}") from error
    log.info("the clinical table explains the share of tumour: %s", fit)
    # the hinge is ours; the paper compares with r̂ itself
    return Expectations(fit.expected, fit.mean_error if recipe.profile == "best" else 0.0)


def patient_number(patient: str) -> int:
    """The same for one patient in every process, another for any other patient."""
    return int.from_bytes(hashlib.sha256(patient.encode()).digest()[:6], "big")


def digest_of(recipe: Recipe) -> str:
    """Of the clinical table's content, for it decides the weights too; empty where there is none."""
    table: Any = recipe.settings.get("clinical_table") if recipe.scheme == "global-local" else None
    return "-" + hashlib.sha256(Path(table).read_bytes()).hexdigest() if table and Path(table).is_file() else ""
