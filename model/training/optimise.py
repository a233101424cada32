"""What all schemes share of a step: optimiser and learning rate from the recipe, number format, average of weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import Parameter

from model.training.recipe import Optimiser, Schedule


def make_optimiser(parameters: Iterable[Parameter], spec: Optimiser) -> torch.optim.Optimizer:
    """torch's optimiser as the recipe describes it."""
    if spec.kind == "sgd":
        return torch.optim.SGD(
            parameters, spec.learning_rate, spec.momentum, weight_decay=spec.weight_decay, nesterov=spec.nesterov
        )
    kind = torch.optim.Adam if spec.kind == "adam" else torch.optim.AdamW
    return kind(parameters, spec.learning_rate, betas=spec.betas, weight_decay=spec.weight_decay, amsgrad=spec.amsgrad)


def rate_factor(schedule: Schedule, share: float) -> float:
    """What the learning rate is multiplied by when `share` of the training, 0 to 1, is done."""
    if schedule.warmup_share and share < schedule.warmup_share:
        return share / schedule.warmup_share
    rest = (share - schedule.warmup_share) / max(1e-9, 1 - schedule.warmup_share)
    if schedule.kind == "constant":
        return 1.0
    falling = (1 - rest) ** schedule.power if schedule.kind == "poly" else 0.5 * (1 + math.cos(math.pi * rest))
    return schedule.end + (1 - schedule.end) * falling


class Average:
    """A moving average of a network's weights; statistics of norms are averaged with them."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int) -> None:
        """Move towards `network` after optimiser step `step`, faster at first."""
        keep = min(self._decay, (1 + step) / (10 + step))
        for mine, new in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(new, 1 - keep)
            else:
                mine.copy_(new)


def he_normal(network: nn.Module) -> nn.Module:
    """The network with He-normal convolutions, as ReLU networks want them; torch's default learns far more slowly."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
