"""Depth, strides and kernels of a U-Net by nnU-Net's rule, from the patch and the spacing of its voxels.

The rule as nnU-Net 2.8.1 applies it (F. Isensee et al., Nature Methods 2021;18:203, online methods, "network
topology"; `experiment_planners/network_topology.py`, Apache-2.0), written anew:

1. An axis can be halved while its feature map has at least 2·4 voxels, so that none gets shorter than 4.
2. Of those axes only the ones are halved whose spacing is less than twice the smallest among them: coarse slices wait
   until the plane has become as coarse.
3. A single axis that is left is halved only while it has at least 3·4 voxels.
4. A kernel is 1 along an axis until that axis's spacing is less than twice the smallest, from then on 3. The deepest
   stage has 3 everywhere.
5. The patch is padded to multiples of the product of the strides.

What nnU-Net does before and around it is not here: it also shrinks the patch until a network fits the memory of the
graphics card, and derives spacing and patch from the data set's fingerprint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMALLEST_EDGE = 4
ANISOTROPY = 2.0

Sides = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """One entry per stage, from full resolution down: `strides` into the stage (the first is all 1), its `kernels`."""

    strides: tuple[Sides, ...]
    kernels: tuple[Sides, ...]
    patch: Sides
    """The patch, padded to what the strides demand."""

    @property
    def stages(self) -> int:
        return len(self.strides)

    def features(self, first: int, most: int) -> tuple[int, ...]:
        """Channels per stage: `first`, doubled with each stage up to `most` (nnU-Net: 32; 512 in 2-D, 320 in 3-D)."""
        return tuple(min(first * 2**stage, most) for stage in range(self.stages))


def plan(patch: Sides, spacing_mm: tuple[float, ...] | None = None) -> Plan:
    """The plan for a patch of 2 or 3 sides in voxels; without a spacing the voxels are as long as wide.

    Raises ValueError where patch and spacing do not fit each other or a side is not positive.
    """
    spacing = list(spacing_mm or (1.0,) * len(patch))
    if len(spacing) != len(patch) or min(*patch, *spacing) <= 0:
        raise ValueError(f"patch {patch} and spacing {spacing_mm} mm must have as many entries, all above 0")
    edges, kernel = list(patch), [1] * len(patch)
    strides, kernels = [(1,) * len(patch)], []
    while halved := _halved_axes(edges, spacing):
        kernel = [3 if k == 3 or s / min(spacing) < ANISOTROPY else 1 for k, s in zip(kernel, spacing, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in range(len(patch))))
        for axis in halved:
            edges[axis], spacing[axis] = math.ceil(edges[axis] / 2), spacing[axis] * 2
    kernels.append((3,) * len(patch))
    return Plan(tuple(strides), tuple(kernels), _padded(patch, strides))


def _halved_axes(edges: list[int], spacing: list[float]) -> list[int]:
    """Which axes are halved next; none where the network ends."""
    long_enough = [axis for axis, edge in enumerate(edges) if edge >= 2 * SMALLEST_EDGE]
    if not long_enough:
        return []
    finest = min(spacing[axis] for axis in long_enough)
    axes = [axis for axis in long_enough if spacing[axis] / finest < ANISOTROPY]
    is_worth_it = len(axes) > 1 or edges[axes[0]] >= 3 * SMALLEST_EDGE
    return axes if is_worth_it else []


def _padded(patch: Sides, strides: Sequence[Sides]) -> Sides:
    return tuple(math.ceil(side / of) * of for side, of in zip(patch, total_stride(strides), strict=True))


def total_stride(strides: Sequence[Sides]) -> Sides:
    """The product of all strides per axis: input sides must be multiples of it."""
    return tuple(math.prod(along) for along in zip(*strides, strict=True))
