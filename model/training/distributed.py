"""Several processes that train one network, each on its part of every batch: started by `torchrun`, else there is one.

Gradients are averaged after the backward pass by one all-reduce of all of them. That holds for every scheme alike,
also for those that step several networks in turn, where a wrapper around one network would not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.nn import Parameter


@dataclass(frozen=True)
class World:
    """How many processes there are, and which one this is."""

    size: int = 1
    rank: int = 0

    @property
    def is_first(self) -> bool:
        """The one that writes."""
        return self.rank == 0

    def part(self, batch: int) -> slice:
        """This process's images of a batch. Raises ValueError for a batch that cannot be dealt out evenly."""
        if batch % self.size:
            raise ValueError(f"a batch of {batch} cannot be dealt out to {self.size} processes; make it a multiple")
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def average_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Every process has the mean of all afterwards."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def average(self, value: Tensor) -> Tensor:
        """The mean of a value over all processes."""
        if self.size == 1:
            return value
        distributed.all_reduce(value)
        return value / self.size

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            distributed.barrier()


def join_world(device: torch.device) -> World:
    """The world that `torchrun` made, told by its environment variables; one process without it."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) < 2:
        return World()
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(distributed.get_world_size(), distributed.get_rank())


def leave_world(world: World) -> None:
    """The counterpart of `join_world`."""
    if world.size > 1:
        distributed.destroy_process_group()
