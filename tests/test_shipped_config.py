"""The configuration that ships works as it stands, and its routes and the bundles that ship agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.bundle import Bundle, load_bundle
from node.bundles import cards_of
from node.config import Config, load_config
from node.config_routes import Evidence, Route
from node.errors import ConfigurationError
from node.yaml_file import parse_yaml

ROOT = Path(__file__).resolve().parent.parent
CONDITIONS = ["pre-nact-dwi", "pre-nact-t2wi", "post-nact-dwi", "post-nact-t2wi", "ct-portal-venous"]


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ROOT / "dicom_config", environment={"CRLM_NODE_BUNDLES": str(ROOT / "model" / "bundles")})


@pytest.fixture(scope="module", params=CONDITIONS)
def route(request: pytest.FixtureRequest, config: Config) -> Route:
    route = config.route(request.param)
    assert route is not None, f"routes.yaml has no condition {request.param}"
    return route


@pytest.fixture(scope="module")
def bundle(route: Route, config: Config) -> Bundle:
    return load_bundle(config.bundle_path(route.bundle))


def test_the_shipped_conditions_are_the_five_of_the_paper(config: Config) -> None:
    assert [route.condition for route in config.routes] == CONDITIONS


def test_a_bundle_that_is_not_there_is_told_with_the_line_that_names_it() -> None:
    config = load_config(ROOT / "dicom_config", environment={"CRLM_NODE_BUNDLES": "/nowhere"})
    with pytest.raises(
        ConfigurationError, match=r"routes\.yaml:\d+: routes\.0\.bundle = 'demo-pre-nact-dwi': /nowhere"
    ):
        cards_of(config)


def test_a_route_with_more_roles_than_its_bundle_reads_is_told(config: Config) -> None:
    route = config.routes[0]
    pair = route.model_copy(update={"needs": {"dwi": route.needs["image"], "again": route.needs["image"]}})
    with pytest.raises(ConfigurationError, match="it reads image, the route has the roles dwi, again; name one"):
        cards_of(replace(config, routes=(pair,)))


def test_no_shipped_peer_takes_demo_results(config: Config) -> None:
    assert not [name for name, peer in config.peers.items() if peer.accepts_demo_results]


def test_the_shipped_node_refuses_unknown_callers(config: Config) -> None:
    assert not config.node.dicom.accept_unknown_callers


def test_every_key_of_the_shipped_node_file_stands_at_its_default(config: Config) -> None:
    """The file's own first sentence says so. The two further AE titles are an example."""
    apart: Any = {"dicom": {"called_ae_titles"}, "bundles": True}
    assert config.node.model_dump(exclude=apart) == type(config.node)().model_dump(exclude=apart)


def test_every_default_of_the_node_file_is_shown_in_it(config: Config) -> None:
    """A key that stands nowhere is a key that nobody finds."""
    shown = parse_yaml(ROOT / "dicom_config" / "node.yaml")
    missing = [
        f"{section}.{key}"
        for section, value in config.node.model_dump().items()
        for key in (value if isinstance(value, dict) else ())
        if key not in shown[section]
    ]
    assert not missing


def test_every_route_and_its_bundle_agree(config: Config, bundle: Bundle) -> None:
    assert set(cards_of(config)) == {route.bundle for route in config.routes}


def test_a_routes_contrast_phase_is_what_its_network_was_fed(route: Route, bundle: Bundle) -> None:
    assert _image(route).contrast_phase == bundle.card.input.phase


def test_a_route_prefers_the_b_value_that_its_network_prefers(route: Route, bundle: Bundle) -> None:
    assert _image(route).b_preferred_s_mm2 == bundle.card.input.b_preferred_s_mm2


def test_a_route_waits_for_enough_slices_for_its_network(route: Route, bundle: Bundle) -> None:
    assert _image(route).min_slices >= bundle.card.input.minimum_slices


def test_every_class_of_a_bundle_has_a_term(bundle: Bundle, config: Config) -> None:
    assert set(bundle.card.output.classes) <= set(config.terms)


def test_a_shipped_bundle_says_that_it_is_a_demo(bundle: Bundle) -> None:
    assert bundle.card.is_demo
    assert bundle.card.trained


def _image(route: Route) -> Evidence:
    assert list(route.needs) == ["image"], "every shipped network has one input"
    return route.needs["image"]
