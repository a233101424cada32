"""One network per file; `NETWORKS` names them. A card's `network.id` is a key of it, its kwargs the config's fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from model.networks.cmg import CMG, CMGConfig
from model.networks.resenc import ResEncConfig, ResEncUNet
from model.networks.segan import SegANConfig, SegANSegmentor
from model.networks.transunet import TransUNet, TransUNetConfig
from model.networks.uagan import UAGAN, UAGANConfig
from model.networks.unet import UNet, UNetConfig
from model.networks.unetpp import UNetPlusPlus, UNetPlusPlusConfig


def _segresnet(**kwargs: Any) -> nn.Module:
    from model.networks.segresnet import SegResNet, SegResNetConfig  # brings MONAI, which takes seconds to import

    return SegResNet(SegResNetConfig(**kwargs))


def _dynunet(**kwargs: Any) -> nn.Module:
    from model.networks.dynunet import DynUNet, DynUNetConfig  # brings MONAI too

    return DynUNet(DynUNetConfig(**kwargs))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": lambda **kwargs: UNet(UNetConfig(**kwargs)),
    "segan": lambda **kwargs: SegANSegmentor(SegANConfig(**kwargs)),
    "uagan": lambda **kwargs: UAGAN(UAGANConfig(**kwargs)),
    "unetpp": lambda **kwargs: UNetPlusPlus(UNetPlusPlusConfig(**kwargs)),
    "segresnet": _segresnet,
    "transunet": lambda **kwargs: TransUNet(TransUNetConfig(**kwargs)),
    "dynunet": _dynunet,
    "resenc": lambda **kwargs: ResEncUNet(ResEncConfig(**kwargs)),
    "cmg": lambda **kwargs: CMG(CMGConfig(**kwargs)),
}


def build_network(network_id: str, kwargs: dict[str, Any]) -> nn.Module:
    """The network `network_id` with random weights.

    Lists among the kwargs become tuples, for JSON has no other. Raises KeyError for an unknown id, TypeError for
    unknown kwargs, ValueError where their values do not fit each other.
    """
    if network_id not in NETWORKS:
        raise KeyError(f"no network is called {network_id!r}; there are: {', '.join(sorted(NETWORKS))}")
    return NETWORKS[network_id](**{name: _frozen(value) for name, value in kwargs.items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
