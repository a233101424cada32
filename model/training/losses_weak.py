"""Weak supervision of system (d): the share of tumour in the liver should be what the clinical table lets one expect.

    ρ = ΣP_tumour / (ΣP_liver + ΣP_tumour)         L_weak = λ·mean over patients of max(0, |ρ − r̂| − δ)²

System (d) writes λ·mean (ρ − r̂)² with λ = 0.5, and its code takes raw logits for ΣP, the next patient's r̂, and a crop
for the whole liver (models.md §4.4). Here P is the softmax; r̂ travels with its sample; crops of one patient are pooled,
and count only where together they hold most of that patient's liver; and the hinge δ, the mean error of the regression
that gave r̂, keeps the term from asking for more than the table knows. `as_coded_weak_ratio_loss` is what the code did.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WEIGHT = 0.5
LEAST_LIVER = 0.8
_TINY = 1e-6


@dataclass(frozen=True)
class WeakLabels:
    """What is known of the crops of a step, one entry each."""

    expected_B: Tensor
    """r̂ of the crop's patient, NaN where the table has none."""
    patient_B: Tensor
    """Whose crop it is: any integers, equal for one patient."""
    liver_share_B: Tensor
    """Which share of the patient's liver voxels (tumour included) lies in the crop."""


def tumour_share(probability_BKDHW: Tensor, liver: int = 1, tumour: int = 2) -> Tensor:
    """ρ of each crop, in [0, 1] (B): tumour / (liver + tumour). Class `liver` is the liver without its tumours."""
    liver_B, tumour_B = _amounts(probability_BKDHW, liver, tumour)
    return tumour_B / (liver_B + tumour_B + _TINY)


def weak_ratio_loss(logits_BKDHW: Tensor, weak: WeakLabels, margin: float, weight: float = WEIGHT) -> Tensor:
    """λ·mean over patients of max(0, |ρ − r̂| − δ)²; 0 where no patient of the step can be judged.

    A patient is judged where r̂ is known and the crops of the step hold at least 80 % of the liver. Crops of one
    patient are taken as disjoint: what lies in two of them counts twice.
    """
    liver_B, tumour_B = _amounts(logits_BKDHW.float().softmax(1), liver=1, tumour=2)
    patients, of_crop = torch.unique(weak.patient_B, return_inverse=True)

    def pooled(value_B: Tensor) -> Tensor:
        return torch.zeros(len(patients), device=value_B.device, dtype=value_B.dtype).index_add(0, of_crop, value_B)

    tumour_P, liver_P = pooled(tumour_B), pooled(liver_B)
    share_P = tumour_P / (liver_P + tumour_P + _TINY)
    expected_P = pooled(weak.expected_B.float()) / pooled(torch.ones_like(liver_B))
    is_judged_P = (pooled(weak.liver_share_B.float()) >= LEAST_LIVER) & ~expected_P.isnan()
    excess_P = ((share_P - expected_P.nan_to_num()).abs() - margin).clamp(min=0)
    return weight * (is_judged_P * excess_P.square()).sum() / is_judged_P.sum().clamp(min=1)


def as_coded_weak_ratio_loss(logits_BKDHW: Tensor, expected_P: Tensor, step: int, weight: float = WEIGHT) -> Tensor:
    """What system (d)'s code does, for the profile `as-coded` only: λ·mean (ρ − r̂)² with ρ of raw logits.

    `expected_P` lists r̂ in the order of the training patients and `step` counts from 1, so that each crop is compared
    with the patient after its own. ρ of logits is unbounded, and infinite where their sums cancel.
    """
    liver_B, tumour_B = _amounts(logits_BKDHW.float(), liver=-2, tumour=-1)
    return weight * (tumour_B / (liver_B + tumour_B) - expected_P[step]).square().mean()


def _amounts(value_BKDHW: Tensor, liver: int, tumour: int) -> tuple[Tensor, Tensor]:
    return value_BKDHW[:, liver].flatten(1).sum(1), value_BKDHW[:, tumour].flatten(1).sum(1)
