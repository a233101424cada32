"""How well an answer covers the truth, voxel by voxel, on the native grid, by the definitions of the project
(models.md §5).

Measures are per case: Dice of an empty truth is 1 for an empty answer and 0 for any other, and so are the rest of the
shares. `SliceCounts` keeps the counts of every slice, so that a case can be judged on three sets of slices without
its masks: the whole volume, which is what a site receives; slices with liver, the clinical question; and slices with
tumour, the only ones that the literature tested on. The last flatter: an answer on any other slice costs nothing.

Its neighbours: distances in `model.metrics_surface`, lesions in `model.metrics_lesions`, probabilities in
`model.metrics_calibration`, measures as CRLM-GAN computed them in `model.metrics_batches`; what becomes of them over
many cases in `model.measures`, with intervals and tests of `model.statistics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from model.volume import Float, Float64, Half

SliceSet: TypeAlias = Literal["whole_volume", "all_liver_slices", "tumour_slices"]
SLICE_SETS: tuple[SliceSet, ...] = get_args(SliceSet)


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of an answer and a truth. Sums of overlaps are overlaps of the pooled voxels."""

    true_positive: int
    false_positive: int
    false_negative: int

    @classmethod
    def of(cls, answer_DHW: NDArray[np.bool_], truth_DHW: NDArray[np.bool_]) -> Overlap:
        """Counts of two masks on one grid. Raises ValueError for different shapes."""
        same_grid(answer_DHW, truth_DHW)
        both = int(np.count_nonzero(answer_DHW & truth_DHW))
        return cls(both, int(np.count_nonzero(answer_DHW)) - both, int(np.count_nonzero(truth_DHW)) - both)

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
        )

    @property
    def answered(self) -> int:
        """Voxels of the answer."""
        return self.true_positive + self.false_positive

    @property
    def true(self) -> int:
        """Voxels of the truth."""
        return self.true_positive + self.false_negative

    @property
    def dice(self) -> float:
        """2TP / (2TP + FP + FN); 1 where both are empty. For two masks this is their F1, too."""
        return self._share(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN); 1 where both are empty."""
        return self._share(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); of an empty truth 1 where the answer is empty, else 0."""
        return self._share(self.true_positive, self.true)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); of an empty answer 1 where the truth is empty, else 0."""
        return self._share(self.true_positive, self.answered)

    @property
    def volumetric_overlap_error(self) -> float:
        """VOE = 1 − IoU."""
        return 1.0 - self.iou

    @property
    def relative_volume_difference(self) -> float | None:
        """RVD = (|answer| − |truth|) / |truth|, signed; 0 where both are empty, None where the truth alone is."""
        if not self.true:
            return None if self.answered else 0.0
        return (self.answered - self.true) / self.true

    def volume_difference_ml(self, voxel_ml: float) -> float:
        """|answer| − |truth| in millilitres, signed."""
        return (self.answered - self.true) * voxel_ml

    def _share(self, part: int, whole: int) -> float:
        if whole:
            return part / whole
        return 0.0 if self.answered or self.true else 1.0


@dataclass(frozen=True)
class SliceCounts:
    """What each slice of one case contributes, a column a measure; sums of columns are the measures of slice sets.

    `shared_probability` is ΣPY, `probability` ΣP, the sums being over the voxels of the slice.
    """

    true_positive: tuple[int, ...]
    false_positive: tuple[int, ...]
    false_negative: tuple[int, ...]
    shared_probability: tuple[float, ...]
    probability: tuple[float, ...]
    in_liver: tuple[bool, ...]
    """The slice shows liver; all True where the case has no mask of the liver."""

    @classmethod
    def of(
        cls,
        answer_DHW: NDArray[np.bool_],
        truth_DHW: NDArray[np.bool_],
        probability_DHW: Float | Half,
        liver_DHW: NDArray[np.bool_] | None = None,
    ) -> SliceCounts:
        """Counts slice by slice. Raises ValueError for arrays of different shapes."""
        same_grid(answer_DHW, truth_DHW, probability_DHW, *(() if liver_DHW is None else (liver_DHW,)))
        slices = zip(answer_DHW, truth_DHW, probability_DHW, strict=True)
        overlaps = [Overlap.of(answer_HW, truth_HW) for answer_HW, truth_HW, _ in slices]
        return cls(
            true_positive=tuple(overlap.true_positive for overlap in overlaps),
            false_positive=tuple(overlap.false_positive for overlap in overlaps),
            false_negative=tuple(overlap.false_negative for overlap in overlaps),
            shared_probability=tuple(
                float(p_HW[truth_HW].sum(dtype=np.float64)) if truth_HW.any() else 0.0
                for p_HW, truth_HW in zip(probability_DHW, truth_DHW, strict=True)
            ),
            probability=tuple(float(p_HW.sum(dtype=np.float64)) for p_HW in probability_DHW),
            in_liver=tuple(True if liver_DHW is None else bool(liver_DHW[d].any()) for d in range(len(answer_DHW))),
        )

    def chosen(self, slices: SliceSet) -> NDArray[np.bool_]:
        """Which slices belong to a set. A slice with tumour counts as one with liver, however its mask was drawn."""
        lesion_voxels = np.add(self.true_positive, self.false_negative)
        with_tumour: NDArray[np.bool_] = lesion_voxels > 0
        if slices == "tumour_slices":
            return with_tumour
        if slices == "all_liver_slices":
            with_tumour |= np.array(self.in_liver, bool)
            return with_tumour
        return np.ones(len(with_tumour), bool)

    def overlap(self, slices: SliceSet = "whole_volume") -> Overlap:
        """Counts over the slices of a set."""
        kept = self.chosen(slices)
        columns = (self.true_positive, self.false_positive, self.false_negative)
        tp, fp, fn = (int(np.array(column)[kept].sum()) for column in columns)
        return Overlap(tp, fp, fn)

    def table(self, slices: SliceSet) -> Float64:
        """Columns TP, FP, FN, ΣPY, ΣP of the slices of a set, in their order: what `batch_scores`
        reads."""
        columns = [
            self.true_positive,
            self.false_positive,
            self.false_negative,
            self.shared_probability,
            self.probability,
        ]
        return np.array(columns, np.float64).T[self.chosen(slices)]


def same_grid(first: NDArray[np.generic], *others: NDArray[np.generic]) -> None:
    """Raises ValueError where arrays that are to be compared differ in shape."""
    for other in others:
        if other.shape != first.shape:
            raise ValueError(f"answer and truth are not on one grid: {first.shape} and {other.shape}")
