"""What a network costs: multiply-accumulate operations of one forward pass, counted, not estimated.

Counted by torch over convolutions and matrix products, which are all but a few per cent of the work; norms,
activations and interpolations are not in it. Nothing is computed: the network runs on the meta device, so that an
input of any size is counted in moments and without memory.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """`macs` of one forward pass over inputs of `shapes`, and the network's `parameters`."""

    shapes: tuple[tuple[int, ...], ...]
    macs: int
    parameters: int

    def __str__(self) -> str:
        sizes = " + ".join("×".join(map(str, shape)) for shape in self.shapes)
        return f"{self.macs / 1e9:.3f} GMAC for {sizes}, {self.parameters / 1e6:.2f} M parameters"


def macs(network: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Multiply-accumulates of `network.forward` in evaluation, given one shape per input, batch first."""
    on_meta = copy.deepcopy(network).to("meta").eval()
    inputs = [torch.zeros(shape, device="meta") for shape in shapes]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        on_meta(*inputs)
    # torch counts a multiplication and its addition as two
    return int(counter.get_total_flops()) // 2


def cost(network: nn.Module, *shapes: tuple[int, ...]) -> Cost:
    """The same with the number of parameters, to be printed."""
    return Cost(shapes, macs(network, *shapes), sum(parameter.numel() for parameter in network.parameters()))
