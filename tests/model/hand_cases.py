"""Cases of one 5×5 slice, small enough to count by hand, and scores of them."""

from __future__ import annotations

import numpy as np

from model.card import OutputSpec
from model.findings import find_lesions
from model.report import Measured
from model.scores import Answer, CaseScore, Exam, score
from model.volume import Volume

SPACING_MM = (5.0, 4.0, 2.0)
"""Slice, row, column: a voxel is 0.04 ml."""


def grid(*rows: str) -> np.ndarray:
    """One 5×5 slice of labels, a digit a voxel."""
    return np.array([[[int(c) for c in row] for row in rows]], np.uint16)


TRUTH = grid("00000", "01100", "01100", "00000", "00022")
ANSWER = grid("00000", "00110", "00110", "00000", "00000")
"""Half of lesion 1 and as much beside it; nothing of lesion 2: TP 2, FP 2, FN 4."""
NOTHING = grid(*["00000"] * 5)
MEASURED = Measured("by-hand", "a" * 64, OutputSpec())


def affine(spacing_mm: tuple[float, float, float] = SPACING_MM) -> np.ndarray:
    """Axial, slices upward."""
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0], [0, 1, 2]] = spacing_mm
    matrix[3, 3] = 1
    return matrix


def exam(truth: np.ndarray, case: str = "case", patient: str = "", liver: np.ndarray | None = None) -> Exam:
    """A truth on its grid; the image shows nothing."""
    image = Volume(np.zeros(truth.shape, np.float32), affine())
    return Exam(case, patient or case, image, truth.astype(np.uint16), liver)


def answered(probability: np.ndarray, training: int = 0) -> Answer:
    """What the report makes of probabilities."""
    volume = Volume(np.zeros(probability.shape, np.float32), affine())
    mask, findings = find_lesions(probability.astype(np.float32), volume, OutputSpec())
    return Answer(probability.astype(np.float16), mask, findings, 0.5, training)


def scored(
    truth: np.ndarray,
    answer: np.ndarray,
    case: str = "case",
    *,
    patient: str = "",
    training: int = 0,
    liver: np.ndarray | None = None,
) -> CaseScore:
    """The score of a mask, or of probabilities."""
    probability = answer if answer.dtype.kind == "f" else (answer > 0).astype(np.float32)
    return score(exam(truth, case, patient, liver), answered(probability, training))
