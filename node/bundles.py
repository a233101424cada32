"""The cards of the bundles that routes name, read without loading a network.

The weights' digest is verified by the engine that loads them; here only what results, routing and delivery must
know of a bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from model.card import Card
from node.config import Config, Evidence, Route
from node.errors import BundleError, ConfigurationError

CARD_NAME = "card.json"

# what routes.yaml calls a weighting → what a card calls it
_CARD_WEIGHTING = {"dwi": "dwi-trace", "t2": "t2", "ct": "ct"}


@dataclass(frozen=True)
class BundleCard:
    """A bundle's card, where it lies, and the digest that identifies it (of the card, which holds the weights')."""

    card: Card
    path: Path
    sha256: str


def read_card(path: Path) -> BundleCard:
    """The card in bundle folder `path`. Raises BundleError naming the file and what is wrong with it."""
    card_path = path / CARD_NAME
    try:
        raw = card_path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{card_path}: cannot be read ({error.strerror}); a bundle is a folder with card and weights"
        ) from error
    try:
        card = Card.model_validate_json(raw)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        raise BundleError(f"{card_path}: not a valid card: {wrong}") from error
    return BundleCard(card, path, hashlib.sha256(raw).hexdigest())


def cards_of(config: Config) -> Mapping[str, BundleCard]:
    """The card of every bundle that a route names, by name.

    Raises ConfigurationError listing every bundle that cannot be read or does not fit its route.
    """
    cards: dict[str, BundleCard] = {}
    faults: list[str] = []
    for route in config.routes:
        try:
            found = cards.setdefault(route.bundle, read_card(config.bundle_path(route.bundle)))
        except BundleError as error:
            faults.append(str(error))
            continue
        faults += [
            f"{config.folder / 'routes.yaml'}: route {route.condition}: bundle {route.bundle}: {fault}"
            for fault in _misfits(route, found.card)
        ]
    if faults:
        raise ConfigurationError("\n".join(faults))
    return cards


def _misfits(route: Route, card: Card) -> list[str]:
    """Why a bundle cannot answer a route: labels and roles live in both files, and are joined here."""
    faults = []
    if route.condition not in card.conditions:
        faults.append(f"its card names the conditions {', '.join(card.conditions)}; name a bundle made for this one")
    for role, evidence in route.needs.items():
        faults += [f"needs.{role}: {fault}" for fault in _input_misfits(evidence, card)]
    return faults


def _input_misfits(evidence: Evidence, card: Card) -> list[str]:
    asked, given = evidence, card.input
    faults = []
    if asked.modality != given.modality:
        faults.append(f"modality {asked.modality}, but the bundle reads {given.modality}")
    if _CARD_WEIGHTING.get(asked.weighting) != given.weighting:
        faults.append(f"weighting {asked.weighting}, but the bundle reads {given.weighting}")
    if given.b_value_s_mm2 is not None:
        low, high = asked.b_value_s_mm2 or (0.0, float("inf"))
        if low < given.b_value_s_mm2[0] or high > given.b_value_s_mm2[1]:
            faults.append(
                f"b_value_s_mm2 {[low, high]} is wider than the bundle's {list(given.b_value_s_mm2)}; narrow it"
            )
    return faults
