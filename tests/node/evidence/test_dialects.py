"""The simulator's vendors: every dialect of every condition is taken for it, every adversarial twin refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from model.phantom import CONDITIONS, Geometry, Phantom, make_phantom
from node.config import load_config
from node.domain import TimePoint
from node.survey import survey
from simulator.directions import ORTHOGONAL
from simulator.modality import DIALECTS, TWINS, write_series

ROOT = Path(__file__).resolve().parents[3]
B_VALUES = (0, 20, 800, 1000)
REASONS = {
    "adc": "apparent diffusion coefficient",
    "computed-b1500": "computed b-value",
    "functional": "as for functional and perfusion imaging",
    "localizer": "localizer",
    "mip": "projection",
    "screenshot": "screenshot",
    "colour": "a colour image",
    "arterial": "arterial",
    "delayed": "delayed",
    "t2-no-fatsat": "not fat-suppressed",
    "mrcp": "only fluid shows",
    "in-phase-gre": "gradient echo",
}
PLAIN = [
    (condition, dialect, is_multiframe)
    for condition in CONDITIONS
    for dialect, known in DIALECTS.items()
    for is_multiframe in (False, True)
    if not condition.startswith("ct") or (known.write_ct is not None and not is_multiframe)
]


def weighting(condition: str) -> str:
    return "ct" if condition.startswith("ct") else "dwi" if condition.endswith("dwi") else "t2"


TWINNED = [
    (condition, dialect, twin)
    for condition in ("pre-nact-dwi", "post-nact-t2wi", "ct-portal-venous")
    for dialect, known in DIALECTS.items()
    for twin, (wanted, _) in TWINS.items()
    if wanted in ("any", weighting(condition)) and (weighting(condition) != "ct" or known.write_ct is not None)
]


@cache
def phantom(condition: str) -> Phantom:
    """Coarse in its planes: headers are looked at, not pixels."""
    spacing, slices = (5.0, 15) if condition.startswith("ct") else (7.0, 10)
    geometry = Geometry(10, 10, slices, (38.0, 38.0), spacing)
    return make_phantom(condition, 900001, geometry=geometry, b_values=B_VALUES)


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, Any]]]:
    """Writes a series and asks `crlm-node route` of it, with its true time point told by an operator."""
    config = load_config(ROOT / "dicom_config", environment={})

    def ask(condition: str, **plan: Any) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("series")
        write_series(phantom(condition), folder, with_truth=False, **plan)
        operator = {"pre": TimePoint.PRE, "post": TimePoint.POST}.get(condition.partition("-")[0])
        return survey([folder], config, operator=operator).as_json()

    return ask


@pytest.mark.parametrize(("condition", "dialect", "is_multiframe"), PLAIN)
def test_every_dialect_of_a_condition_is_taken_for_it(
    routed: Callable[..., list[dict[str, Any]]], condition: str, dialect: str, is_multiframe: bool
) -> None:
    volumes = routed(condition, dialect=dialect, order="shuffled", is_multiframe=is_multiframe)
    taken = [item for item in volumes if item["decision"] != "refuse"]
    explained = [r for item in taken or volumes for r in item["reasons"] if not r["for"]]
    assert [item["decision"] for item in taken] == ["accept"], explained
    assert taken[0]["condition"] == condition
    if condition.endswith("dwi"):
        assert taken[0]["b_s_mm2"] == taken[0]["b_pick_s_mm2"] == 1000
        assert taken[0]["b_values_s_mm2"] == list(B_VALUES)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("is_multiframe", [False, True])
def test_directions_without_a_trace_are_taken_as_their_mean_in_every_dialect(
    routed: Callable[..., list[dict[str, Any]]], dialect: str, is_multiframe: bool
) -> None:
    volumes = routed("pre-nact-dwi", dialect=dialect, directions=ORTHOGONAL, is_multiframe=is_multiframe)
    (taken,) = [item for item in volumes if item["decision"] != "refuse"]
    assert (taken["decision"], taken["b_s_mm2"]) == ("accept", 1000)
    assert "geometric mean of 3 directions, derived in the node" in [r["what"] for r in taken["reasons"]]


@pytest.mark.parametrize(("condition", "dialect", "twin"), TWINNED)
def test_an_adversarial_twin_is_refused_with_the_radiographers_reason(
    routed: Callable[..., list[dict[str, Any]]], condition: str, dialect: str, twin: str
) -> None:
    volumes = routed(condition, dialect=dialect, twin=twin)
    assert {item["decision"] for item in volumes} == {"refuse"}
    against = [reason["what"] for item in volumes for reason in item["reasons"] if not reason["for"]]
    assert any(REASONS[twin] in what for what in against), against


def test_every_twin_has_a_reason_to_be_refused_for() -> None:
    assert set(REASONS) >= set(TWINS), "a new twin needs its radiographer's reason here"
