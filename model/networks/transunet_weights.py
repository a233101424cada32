"""Pre-trained weights for TransUNet's encoder from the official file, which the user supplies.

The file is `R50+ViT-B_16.npz` (ImageNet-21k) of google-research/vision_transformer; the address that TransUNet gives
was reported dead in February 2026, so nothing is downloaded here: the user names a file and its SHA-256 digest. Kernels
of convolutions are stored as (height, width, in, out), of linear layers as (in, out), of attention as
(in, heads, per head), and as (heads, per head, out) on its way out.

    conv_root/kernel, gn_root/{scale,bias}                                 root
    block{1..3}/unit{1..}/{conv,gn}{1,2,3}/…, {conv,gn}_proj/…              stages
    embedding/{kernel,bias}                                                embed
    Transformer/posembed_input/pos_embedding (1, 1 + N, C)                 positions, without the class token
    Transformer/encoderblock_{i}/LayerNorm_0, MultiHeadDotProductAttention_1/{query,key,value,out},
        LayerNorm_2, MlpBlock_3/Dense_{0,1}                                layers
    Transformer/encoder_norm/{scale,bias}                                  norm

The decoder has no pre-trained weights. What the file holds beyond these (class token, classifier) is left alone.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.networks.transunet import Bottleneck, Layer, TransUNet, resized
from model.problems import WeightsProblem

POSITIONS_KEY = "Transformer/posembed_input/pos_embedding"


class _Place(NamedTuple):
    """An array of the file and the tensor that it becomes."""

    key: str
    parameter: Tensor
    is_kernel: bool


def load_vit_weights(network: TransUNet, path: Path, sha256: str) -> None:
    """Copies the file's weights into the encoder of `network`, all or none.

    Positions of another grid are interpolated. Raises WeightsProblem: no such file, another digest, an array missing
    or of another shape.
    """
    arrays = _read(path, sha256)
    new = [(place.parameter, _tensor(path, arrays, place)) for place in places(network)]
    new.append((network.positions, _positions(path, arrays, network)))
    with torch.no_grad():
        for parameter, value in new:
            parameter.copy_(value)


def places(network: TransUNet) -> Iterator[_Place]:
    """Every array but the positions, by its official name."""
    yield _Place("conv_root/kernel", network.root[0].get_parameter("weight"), True)
    yield from _scale_and_bias("gn_root", network.root[1])
    for s, stage in enumerate(network.stages, start=1):
        for u, unit in enumerate(stage.children(), start=1):
            yield from _of_bottleneck(f"block{s}/unit{u}", unit)
    yield from _kernel_and_bias("embedding", network.embed)
    for i, layer in enumerate(network.layers):
        yield from _of_layer(f"Transformer/encoderblock_{i}", layer)
    yield from _scale_and_bias("Transformer/encoder_norm", network.norm)


def _of_bottleneck(at: str, unit: torch.nn.Module) -> Iterator[_Place]:
    if not isinstance(unit, Bottleneck):
        raise TypeError(f"{at} is a {type(unit).__name__}, not a bottleneck")
    for number, (conv, norm) in enumerate(
        ((unit.conv1, unit.gn1), (unit.conv2, unit.gn2), (unit.conv3, unit.gn3)), start=1
    ):
        yield _Place(f"{at}/conv{number}/kernel", conv.weight, True)
        yield from _scale_and_bias(f"{at}/gn{number}", norm)
    if len(unit.skip):
        yield _Place(f"{at}/conv_proj/kernel", unit.skip[0].get_parameter("weight"), True)
        yield from _scale_and_bias(f"{at}/gn_proj", unit.skip[1])


def _of_layer(at: str, layer: torch.nn.Module) -> Iterator[_Place]:
    if not isinstance(layer, Layer):
        raise TypeError(f"{at} is a {type(layer).__name__}, not a transformer's layer")
    yield from _scale_and_bias(f"{at}/LayerNorm_0", layer.attention_norm)
    for name, linear in (("query", layer.query), ("key", layer.key), ("value", layer.value), ("out", layer.out)):
        yield from _kernel_and_bias(f"{at}/MultiHeadDotProductAttention_1/{name}", linear)
    yield from _scale_and_bias(f"{at}/LayerNorm_2", layer.mlp_norm)
    for name, linear in (("Dense_0", layer.fc1), ("Dense_1", layer.fc2)):
        yield from _kernel_and_bias(f"{at}/MlpBlock_3/{name}", linear)


def _scale_and_bias(at: str, norm: torch.nn.Module) -> Iterator[_Place]:
    yield _Place(f"{at}/scale", norm.get_parameter("weight"), False)
    yield _Place(f"{at}/bias", norm.get_parameter("bias"), False)


def _kernel_and_bias(at: str, layer: torch.nn.Module) -> Iterator[_Place]:
    yield _Place(f"{at}/kernel", layer.get_parameter("weight"), True)
    yield _Place(f"{at}/bias", layer.get_parameter("bias"), False)


def _read(path: Path, sha256: str) -> dict[str, NDArray[np.float32]]:
    if not path.is_file():
        raise WeightsProblem(f"{path}: no such file; TransUNet can also be trained from random weights, without one")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256.lower():
            raise WeightsProblem(f"{path}: its SHA-256 is {found}, not {sha256} as given: another file, or damaged")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                return {name: np.asarray(archive[name], np.float32) for name in archive.files}
        except (OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise WeightsProblem(f"{path}: not readable as .npz ({error})") from error


def _tensor(path: Path, arrays: dict[str, NDArray[np.float32]], place: _Place) -> Tensor:
    """The array in the shape of its tensor."""
    array = _array(path, arrays, place.key)
    shape = tuple(place.parameter.shape)
    if place.is_kernel and len(shape) == 4:
        # (height, width, in, out) → (out, in, height, width)
        moved = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        fits = moved.shape == shape
    elif place.is_kernel:
        # heads are folded into the channels, in the file's order
        moved = array.reshape(shape[::-1]).T if array.size == math.prod(shape) else array
        fits = array.size == math.prod(shape) and shape[1] in (array.shape[0], math.prod(array.shape[:-1]))
    else:
        moved, fits = array.reshape(-1), array.size == math.prod(shape)
    if not fits:
        raise WeightsProblem(f"{path}: {place.key} is {array.shape}, which does not become the network's {shape}")
    return torch.from_numpy(np.ascontiguousarray(moved))


def _positions(path: Path, arrays: dict[str, NDArray[np.float32]], network: TransUNet) -> Tensor:
    """The square grid's positions without the class token's, for the network's grid."""
    array = _array(path, arrays, POSITIONS_KEY)
    side = math.isqrt(array.shape[1] - 1) if array.ndim == 3 and array.shape[1] > 1 else 0
    hidden = network.config.hidden
    if array.shape != (1, 1 + side * side, hidden) or not side:
        raise WeightsProblem(f"{path}: {POSITIONS_KEY} is {array.shape}, not (1, 1 + side², {hidden})")
    return resized(torch.from_numpy(array[:, 1:].copy()), (side, side), network.config.grid)


def _array(path: Path, arrays: dict[str, NDArray[np.float32]], key: str) -> NDArray[np.float32]:
    if key not in arrays:
        raise WeightsProblem(f"{path}: has no array {key}; it is not R50+ViT-B_16.npz or another network's size")
    return arrays[key]
