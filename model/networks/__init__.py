"""One network per file; `NETWORKS` names them. A card's `network.id` is a key of it, its kwargs the config's fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from model.networks.unetpp import UNetPlusPlus, UNetPlusPlusConfig

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unetpp": lambda **kwargs: UNetPlusPlus(UNetPlusPlusConfig(**kwargs)),
}


def build_network(network_id: str, kwargs: dict[str, Any]) -> nn.Module:
    """The network `network_id` with random weights. Raises KeyError for an unknown id, TypeError for unknown kwargs."""
    if network_id not in NETWORKS:
        raise KeyError(f"no network is called {network_id!r}; there are: {', '.join(sorted(NETWORKS))}")
    return NETWORKS[network_id](**kwargs)
