"""The cards of the bundles that routes name, read without loading a network.

The weights' digest is verified by the engine that loads them; here only what results, routing and delivery must
know of a bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model.card import AnyInput, BundleCard, BundleProblem, Card, read_card
from node.config import Config
from node.config_routes import Evidence, Route
from node.errors import BundleError, ConfigurationError
from node.yaml_file import line_of, parse_yaml

__all__ = ["BundleCard", "bundle_card", "cards_of"]

# what routes.yaml calls a weighting → what a card calls it
CARD_WEIGHTING = {"dwi": "dwi-trace", "t2": "t2", "t1": "t1", "ct": "ct"}


def bundle_card(path: Path) -> BundleCard:
    """The card in bundle folder `path`. Raises BundleError naming the file and what is wrong with it."""
    try:
        return read_card(path)
    except BundleProblem as problem:
        raise BundleError(str(problem)) from problem


def cards_of(config: Config) -> Mapping[str, BundleCard]:
    """The card of every bundle that a route names, by name.

    Raises ConfigurationError listing every bundle that cannot be read or does not fit its route.
    """
    cards: dict[str, BundleCard] = {}
    faults: list[str] = []
    for index, route in enumerate(config.routes):
        try:
            found = cards.setdefault(route.bundle, bundle_card(config.bundle_path(route.bundle)))
            wrong = _misfits(route, found.card)
        except BundleError as error:
            wrong = [f"{error} (node.yaml's `bundles` names the folder of all bundles)"]
        if wrong:
            path = config.folder / "routes.yaml"
            place = f"{path}:{line_of(parse_yaml(path), ['routes', index, 'bundle'])}: routes.{index}.bundle"
            faults += [f"{place} = {route.bundle!r}: {fault}" for fault in wrong]
    if faults:
        raise ConfigurationError("\n".join(faults))
    return cards


def _misfits(route: Route, card: Card) -> list[str]:
    """Why a bundle cannot answer a route: labels and roles live in both files, and are joined here."""
    faults = []
    if route.condition not in card.conditions:
        faults.append(f"its card names the conditions {', '.join(card.conditions)}; name a bundle made for this one")
    if route.finding != "lesion" and card.intended_use != "clinical":
        faults.append(
            f"finding {route.finding} needs a bundle for clinical use, its card says {card.intended_use}; write lesion"
        )
    given = card_roles(route, card)
    if given is None:
        return [
            *faults,
            f"it reads {' and '.join(card.roles)}, the route has the roles {', '.join(route.needs)}; "
            f"name {'those' if len(card.roles) > 1 else 'one'}",
        ]
    for role, evidence in route.needs.items():
        faults += [f"needs.{role}: {fault}" for fault in _input_misfits(evidence, card, given[role])]
    return faults


def card_roles(route: Route, card: Card) -> Mapping[str, str] | None:
    """The route's role → the card's role; None where they do not go together. A lone role may have any name."""
    if len(route.needs) == len(card.roles) == 1:
        return dict(zip(route.needs, card.roles, strict=True))
    return {role: role for role in route.needs} if set(route.needs) == set(card.roles) else None


def card_spec(evidence: Evidence, card: Card, role: str) -> AnyInput:
    """What the card's role is fed for an image that the route describes so. Raises KeyError in words."""
    return card.spec(role, CARD_WEIGHTING[evidence.weighting], evidence.contrast_phase)


def _input_misfits(evidence: Evidence, card: Card, role: str) -> list[str]:
    try:
        given = card_spec(evidence, card, role)
    except KeyError as error:
        return [str(error.args[0])]
    faults = []
    if given.b_value_s_mm2 is not None:
        low, high = evidence.b_value_s_mm2 or (0.0, float("inf"))
        if low < given.b_value_s_mm2[0] or high > given.b_value_s_mm2[1]:
            faults.append(
                f"b_value_s_mm2 {[low, high]} is wider than the bundle's {list(given.b_value_s_mm2)}; narrow it"
            )
    return faults
