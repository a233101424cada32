"""Both phases of the simulator's CT pair, and its T1, are taken for what they are in every vendor's dialect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.phantom import Geometry, Phantom
from model.phantom_catalogue import PhantomPair, beside, draw_pair, draw_phantom
from node.config import Config, load_config
from node.config_routes import Route
from node.domain import TimePoint
from node.survey import survey
from simulator.modality import DIALECTS, write_pair, write_series

ROOT = Path(__file__).resolve().parents[3]
CT_DIALECTS = [name for name, dialect in DIALECTS.items() if dialect.write_ct]
CT_NEED = {"modality": "CT", "weighting": "ct", "slice_spacing_mm": (0.5, 8)}
PAIR_ROUTE = {
    "condition": "ct-biphasic",
    "title": "Arterial and portal-venous CT",
    "time_point": "any",
    "needs": {phase: {**CT_NEED, "contrast_phase": phase} for phase in ("portal-venous", "arterial")},
    "bundle": "demo-ct-portal-venous",
}
ARTERIAL_ROUTE = {**PAIR_ROUTE, "condition": "ct-arterial", "needs": {"image": PAIR_ROUTE["needs"]["arterial"]}}
T1_ROUTE = {
    **PAIR_ROUTE,
    "condition": "t1-portal-venous",
    "needs": {"image": {"modality": "MR", "weighting": "t1", "fat_suppressed": True}},
}


@pytest.fixture(scope="module")
def shipped() -> Config:
    return load_config(ROOT / "dicom_config", environment={})


def with_routes(config: Config, *routes: dict[str, Any]) -> Config:
    return replace(config, routes=tuple(Route.model_validate(route) for route in routes))


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    """Coarse in its planes: headers are looked at, not pixels."""
    geometry = Geometry(10, 10, 15, (38.0, 38.0), 5.0)
    return draw_pair(900001, geometry=geometry, arterial_geometry=beside(geometry))


@pytest.fixture(scope="module")
def t1() -> Phantom:
    return draw_phantom("t1-portal-venous", 900001, geometry=Geometry(10, 10, 20, (38.0, 38.0), 5.0))


@pytest.mark.parametrize("dialect", CT_DIALECTS)
def test_a_pair_fills_both_roles_of_one_route(shipped: Config, pair: PhantomPair, tmp_path: Path, dialect: str) -> None:
    write_pair(pair, tmp_path, dialect=dialect, order="shuffled")
    volumes = survey([tmp_path], with_routes(shipped, PAIR_ROUTE)).as_json()
    assert {item["contrast_phase"]: item["decision"] for item in volumes} == {
        "arterial": "accept",
        "portal-venous": "accept",
    }
    assert {item["condition"] for item in volumes} == {"ct-biphasic"}
    assert len({item["study_uid"] for item in volumes}) == 1


@pytest.mark.parametrize("dialect", CT_DIALECTS)
def test_the_shipped_route_takes_the_portal_venous_series_of_a_pair(
    shipped: Config, pair: PhantomPair, tmp_path: Path, dialect: str
) -> None:
    write_pair(pair, tmp_path, dialect=dialect)
    decided = {item["contrast_phase"]: item["decision"] for item in survey([tmp_path], shipped).as_json()}
    assert decided == {"arterial": "refuse", "portal-venous": "accept"}


@pytest.mark.parametrize("dialect", CT_DIALECTS)
def test_each_phase_of_a_pair_has_three_votes(shipped: Config, pair: PhantomPair, tmp_path: Path, dialect: str) -> None:
    """Words, timing, and the order of the two: the loss of any one leaves it accepted."""
    write_pair(pair, tmp_path, dialect=dialect)
    for item in survey([tmp_path], with_routes(shipped, PAIR_ROUTE)).as_json():
        told = [reason["what"] for reason in item["reasons"] if reason["for"]]
        assert any("words say" in what for what in told), told
        assert any("s after the injection" in what for what in told), told
        assert any("order of enhanced acquisitions" in what for what in told), told


@pytest.mark.parametrize("dialect", CT_DIALECTS)
def test_an_arterial_series_is_taken_by_a_route_that_asks_for_it(
    shipped: Config, pair: PhantomPair, tmp_path: Path, dialect: str
) -> None:
    write_series(pair.arterial, tmp_path, dialect=dialect)
    (item,) = survey([tmp_path], with_routes(shipped, ARTERIAL_ROUTE)).as_json()
    assert (item["decision"], item["condition"], item["contrast_phase"]) == ("accept", "ct-arterial", "arterial")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_t1_after_gadolinium_is_told_from_t2_in_every_dialect(
    shipped: Config, t1: Phantom, tmp_path: Path, dialect: str
) -> None:
    write_series(t1, tmp_path, dialect=dialect)
    (refused,) = survey([tmp_path], shipped, operator=TimePoint.PRE).as_json()
    assert (refused["weighting"], refused["decision"]) == ("t1", "refuse")
    (taken,) = survey([tmp_path], with_routes(shipped, T1_ROUTE)).as_json()
    assert taken["decision"] == "accept", taken["reasons"]
