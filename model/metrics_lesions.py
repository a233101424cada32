"""Which answered lesion is which true one, and what was found, missed, invented.

Answered lesions are those of the report: the components that `model.findings` labels. True lesions are the labels of
the truth, each one lesion, as a reader drew them; where a data set has one label for all, `label_lesions` makes them
components first. They are matched one to one by their intersection over union, at least 0.1 for "found" and 0.5 for
"found and outlined" (models.md §5). An answer that covers two lesions finds one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from model.findings import lesion_boxes, longest_axes
from model.metrics import same_grid
from model.volume import Float64, Labels

FOUND_IOU = 0.1
OUTLINED_IOU = 0.5
MATCH_IOUS = (FOUND_IOU, OUTLINED_IOU)


@dataclass(frozen=True)
class LesionMatches:
    """Which answered lesion is which true one: pairs of (answer label, truth label), and how many there were."""

    pairs: tuple[tuple[int, int], ...]
    answered: int
    true: int
    ious: tuple[float, ...] = ()
    """Intersection over union of each pair."""

    @property
    def missed(self) -> int:
        return self.true - len(self.pairs)

    @property
    def false_positives(self) -> int:
        return self.answered - len(self.pairs)

    @property
    def dices(self) -> tuple[float, ...]:
        """Dice of each pair: 2·IoU / (1 + IoU)."""
        return tuple(2 * iou / (1 + iou) for iou in self.ious)


@dataclass(frozen=True)
class LesionSize:
    """How large a lesion is, with the report's own ruler; `mean_probability` is of answered lesions only."""

    voxel_count: int
    volume_ml: float
    long_axis_mm: float
    short_axis_mm: float
    mean_probability: float | None = None


SharedVoxels = tuple[int, int, int]
"""Answer label, truth label, number of voxels that have both."""


def match_lesions(answer_DHW: Labels, truth_DHW: Labels, minimum_iou: float = FOUND_IOU) -> LesionMatches:
    """One-to-one matching of labels 1..N: as many pairs as possible, among those the largest sum of IoU."""
    return match(iou_table(answer_DHW, truth_DHW), minimum_iou)


def match(iou_AT: Float64, minimum_iou: float = FOUND_IOU) -> LesionMatches:
    """The same of a table of IoU, answered lesions (rows) with true ones (columns)."""
    answered, true = iou_AT.shape
    # an eligible pair always outweighs every gain in IoU that could be had by giving it up
    worth = np.where(iou_AT >= minimum_iou, iou_AT + min(iou_AT.shape) + 1, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    kept = [(int(a), int(t)) for a, t in zip(rows, columns, strict=True) if iou_AT[a, t] >= minimum_iou]
    pairs = tuple((a + 1, t + 1) for a, t in kept)
    return LesionMatches(pairs, answered, true, tuple(float(iou_AT[a, t]) for a, t in kept))


def iou_table(answer_DHW: Labels, truth_DHW: Labels) -> Float64:
    """Intersection over union of each answered lesion (rows) with each true one (columns)."""
    counts = _joint_counts(answer_DHW, truth_DHW)
    return _iou(counts[1:, 1:], counts.sum(axis=1)[1:], counts.sum(axis=0)[1:])


def shared_voxels(answer_DHW: Labels, truth_DHW: Labels) -> tuple[SharedVoxels, ...]:
    """All pairs of lesions that overlap: what a score keeps to be matched again at any IoU."""
    shared = _joint_counts(answer_DHW, truth_DHW)[1:, 1:]
    return tuple((int(a) + 1, int(t) + 1, int(shared[a, t])) for a, t in np.argwhere(shared))


def iou_of(shared: Sequence[SharedVoxels], answered: Sequence[LesionSize], true: Sequence[LesionSize]) -> Float64:
    """The table of `iou_table` from what a score keeps."""
    shared_AT = np.zeros((len(answered), len(true)))
    for a, t, voxels in shared:
        shared_AT[a - 1, t - 1] = voxels
    sizes = (np.array([lesion.voxel_count for lesion in lesions], np.float64) for lesions in (answered, true))
    return _iou(shared_AT, *sizes)


def lesion_sizes(labels_DHW: Labels, affine_lps_mm: Float64) -> tuple[LesionSize, ...]:
    """Sizes of labels 1..N. Raises ValueError where a number up to the highest is missing."""
    numbers = np.unique(labels_DHW[labels_DHW > 0])
    if len(numbers) != labels_DHW.max(initial=0):
        raise ValueError(f"lesion labels must be 1 to N without a gap, got {numbers.tolist()}: number them anew")
    voxel_ml = abs(float(np.linalg.det(affine_lps_mm[:3, :3]))) / 1000
    sizes = []
    for number, box in enumerate(lesion_boxes(labels_DHW), start=1):
        lesion = labels_DHW[box] == number
        axes = longest_axes(lesion, affine_lps_mm)
        voxels = int(np.count_nonzero(lesion))
        sizes.append(LesionSize(voxels, voxels * voxel_ml, axes.long_mm, axes.short_mm))
    return tuple(sizes)


def _joint_counts(answer_DHW: Labels, truth_DHW: Labels) -> Float64:
    """Voxels of each pair of labels, background included, (A+1, T+1)."""
    same_grid(answer_DHW, truth_DHW)
    answered, true = int(answer_DHW.max(initial=0)), int(truth_DHW.max(initial=0))
    either = (answer_DHW > 0) | (truth_DHW > 0)
    joint = answer_DHW[either].astype(np.int64) * (true + 1) + truth_DHW[either]
    counts = np.bincount(joint, minlength=(answered + 1) * (true + 1))
    return counts.reshape(answered + 1, true + 1).astype(np.float64)


def _iou(shared_AT: Float64, answered_A: Float64, true_T: Float64) -> Float64:
    union_AT = answered_A[:, None] + true_T[None, :] - shared_AT
    table: Float64 = shared_AT / np.maximum(union_AT, 1)
    return table
