"""All results of a job agree on their names, and no name is longer than its field."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from node.config import Term
from node.dicom.context import BundleFacts
from node.dicom.palette import LESION_COLOURS, lesion_rgb
from node.dicom.terms import REQUIRED_TERMS, coded, missing_terms, private_schemes
from node.dicom.uids import derived_uid, mint_tracking_uid
from node.errors import ConfigurationError

VALID_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")


def test_uids_are_a_function_of_job_and_kind(make_context: Callable[..., Any]) -> None:
    one, same, other = make_context(), make_context(run=1), make_context(job_id="0123456789abcdef-2")
    assert one.instance_uid("seg") == same.instance_uid("seg") != other.instance_uid("seg")
    uids = {one.instance_uid("seg"), one.series_uid("seg"), one.instance_uid("sr"), one.series_uid("sr")}
    assert len(uids) == 4


@pytest.mark.parametrize("root", [None, "1.2.3", "1.2.276.0.7230010.3.1.4.8323329.12345", "2.16.840.1." + "1" * 30])
def test_derived_uids_are_valid_under_any_root(root: str | None) -> None:
    for number in range(50):
        uid = derived_uid("job", str(number), root=root)
        assert VALID_UID.fullmatch(uid)
        assert len(uid) <= 64
        assert uid.startswith((root or "2.25") + ".")


def test_parts_are_not_run_together() -> None:
    assert derived_uid("ab", "c") != derived_uid("a", "bc")


@pytest.mark.parametrize("root", ["3.1", "1.02", "1.2.", "1.2." + "3" * 50, "hospital"])
def test_a_root_that_is_none_or_too_long_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match="no UID root"):
        derived_uid("job", root=root)


def test_tracking_uids_are_minted_not_derived() -> None:
    minted = {mint_tracking_uid() for _ in range(100)}
    assert len(minted) == 100
    assert all(VALID_UID.fullmatch(uid) and len(uid) <= 64 for uid in minted)


def test_retrained_weights_are_another_device(make_context: Callable[..., Any]) -> None:
    retrained = BundleFacts("demo-ct-portal-venous", "0.1.0", "ef" * 32, is_demo=True)
    assert make_context().device_uid != make_context(bundle=retrained).device_uid
    assert make_context().observer_uid == make_context(bundle=retrained).observer_uid


@pytest.mark.parametrize("condition", ["ct-portal-venous", "post-nact-t2wi", "c" * 62])
@pytest.mark.parametrize("run", [1, 2, 117])
def test_descriptions_fit_and_keep_their_wording(make_context: Callable[..., Any], condition: str, run: int) -> None:
    description = make_context(condition=condition, run=run).series_description("seg")
    assert len(description) <= 64
    assert description.startswith("AI SEG ")
    assert "(RESEARCH, DEMO WEIGHTS)" in description
    assert (f"v{run} replaces v{run - 1}" in description) is (run > 1)


def test_a_demo_bundle_is_never_for_clinical_use(make_context: Callable[..., Any]) -> None:
    context = make_context(bundle=BundleFacts("x", "1.0.0", "ab" * 32, is_demo=True, is_for_clinical_use=True))
    assert context.content_qualification == "RESEARCH"
    assert "DEMO WEIGHTS" in context.warning
    assert len(context.warning) <= 64


def test_a_time_without_a_zone_is_refused(make_context: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        make_context(content_datetime=datetime(2026, 1, 1))


def test_the_shipped_terminology_has_every_term_that_results_need(terms: dict[str, Term]) -> None:
    assert missing_terms(terms) == ()
    assert private_schemes(terms) == ()
    for key in REQUIRED_TERMS:
        assert coded(terms, key).meaning


def test_a_missing_term_is_named_with_the_fix(terms: dict[str, Term]) -> None:
    without = {key: term for key, term in terms.items() if key != "volume"}
    assert missing_terms(without) == ("volume",)
    with pytest.raises(ConfigurationError, match=r"terminology.yaml has no term 'volume'; add it"):
        coded(without, "volume")


def test_private_schemes_are_known() -> None:
    assert private_schemes({"a": Term("1", "99SITE", "A"), "b": Term("2", "SCT", "B")}) == ("99SITE",)


def test_neighbouring_lesions_have_different_colours() -> None:
    assert len(set(LESION_COLOURS)) == len(LESION_COLOURS)
    assert lesion_rgb(1) != lesion_rgb(2)
    assert lesion_rgb(len(LESION_COLOURS) + 1) == lesion_rgb(1)
