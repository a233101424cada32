"""Coded concepts of terminology.yaml as the encoders need them."""

from __future__ import annotations

from collections.abc import Mapping

from highdicom.sr import CodedConcept

from node.config import Term
from node.errors import ConfigurationError

REQUIRED_TERMS = frozenset({
    "lesion", "abnormal_structure", "procedure_ct", "procedure_mr", "time_point_pre", "time_point_post",
    "long_axis", "short_axis", "volume", "intensity_ct", "intensity_t1", "intensity_t2", "intensity_dwi", "b_value",
    "quantity", "mean", "median", "standard_deviation", "minimum", "maximum", "total", "axis_method",
    "volume_method", "millimeter", "milliliter", "hounsfield", "s_per_mm2", "no_units", "analysis_summary",
    "not_attempted", "algorithm_family",
})  # fmt: skip
"""Keys that every result is written with; a route's `finding` may name further ones."""


def coded(terms: Mapping[str, Term], key: str) -> CodedConcept:
    """The concept `key`. Raises ConfigurationError where terminology.yaml has none."""
    term = terms.get(key)
    if term is None:
        raise ConfigurationError(f"terminology.yaml has no term {key!r}; add it as the file that ships has it")
    return CodedConcept(term.value, term.scheme, term.meaning)


def missing_terms(terms: Mapping[str, Term]) -> tuple[str, ...]:
    """Keys that terminology.yaml lacks and results need, for the check of a configuration before it is used."""
    return tuple(sorted(REQUIRED_TERMS - terms.keys()))


def private_schemes(terms: Mapping[str, Term]) -> tuple[str, ...]:
    """Designators of the private coding schemes in use: an object that uses one must declare it (0008,0110)."""
    return tuple(sorted({term.scheme for term in terms.values() if term.scheme.startswith("99")}))
