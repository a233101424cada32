"""What goes wrong in a training for reasons that its user can mend; the message says what and how."""

from __future__ import annotations


class RecipeProblem(Exception):
    """A recipe cannot be used; the message names the file, the key and what is expected."""


class ReportProblem(ValueError):
    """Reports cannot be made, read or compared; the message names the file or the case and what to do."""


class TrainingProblem(Exception):
    """A training cannot go on; the message says what is missing and what to do."""


class WeightsProblem(Exception):
    """A weights file cannot be had, or is not the one that was asked for. The sentence says what to do."""
