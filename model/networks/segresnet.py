"""SegResNet, the network of system (d): MONAI's, with its variational autoencoder in training and without in serving.

After A. Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization" (BrainLes 2018), as
MONAI 1.6.1 has it (Apache-2.0) and system (d) uses it (models.md §4.2): 16/32/64/128 channels, residual blocks
(1, 2, 2, 4) down and (1, 1, 1) up, skips added, trilinear upsampling, dropout 0.2 once after the first convolution.
The autoencoder's branch rebuilds the image from the deepest features; it regularises the training only, and all of its
weights are called `vae_*`. Names of weights are MONAI's own, so a checkpoint that MONAI trained loads unchanged.

Axes. Our arrays are slices, rows, columns; system (d) writes its patches as rows × columns × slices: its 512×512×16 is
(16, 512, 512) here and its 256×256×32 is (32, 256, 256). Every kernel, stride and zoom of this network is the same
along all three axes, so counts of parameters do not depend on the order. Weights that were trained in the other order
do: their kernels (out, in, rows, columns, slices) must be permuted to (0, 1, 4, 2, 3) before they are loaded, and the
fully connected `vae_*` layers cannot be carried over at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from monai.networks.nets.segresnet import SegResNet as MonaiSegResNet
from monai.networks.nets.segresnet import SegResNetVAE as MonaiSegResNetVAE
from torch import Tensor, nn

VAE_PREFIX = "vae_"
NORMS: dict[str, tuple[str, dict[str, int]]] = {"instance": ("instance", {}), "group": ("group", {"num_groups": 8})}
_VAE_ZOOM = 2
"""The autoencoder halves the deepest features once more."""


@dataclass(frozen=True)
class SegResNetConfig:
    """Shape of the network. `norm`: "instance" without weights as system (d) has it, "group" of 8 for `best`."""

    in_channels: int = 1
    out_channels: int = 2
    dimensions: int = 3
    init_filters: int = 16
    blocks_down: tuple[int, ...] = (1, 2, 2, 4)
    blocks_up: tuple[int, ...] = (1, 1, 1)
    norm: Literal["instance", "group"] = "instance"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm is {self.norm!r}; there are: {', '.join(NORMS)}")
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError(f"{len(self.blocks_down)} stages down need one fewer up, not {len(self.blocks_up)}")

    @property
    def stride(self) -> int:
        """Input sides must be multiples of this."""
        return int(2 ** (len(self.blocks_down) - 1))


LIVER = SegResNetConfig(out_channels=2)
"""Stage 1 of system (d): background, liver. Patches of (16, 512, 512)."""
TUMOUR = SegResNetConfig(out_channels=3)
"""Stage 2: background, liver, tumour. Patches of (32, 256, 256)."""


@dataclass(frozen=True)
class SegResNetOutputs:
    """What a step of training sees: logits (B, K, …) at input size, and the autoencoder's loss (a scalar).

    The loss is mean(μ²) + MSE(image, rebuilt image), without any weight (MONAI; the paper weighs each by 0.1).
    """

    logits: Tensor
    vae_loss: Tensor


class SegResNet(MonaiSegResNet):
    """Images (B, in_channels, D, H, W) → logits (B, out_channels, D, H, W); sides multiples of `config.stride`."""

    def __init__(self, config: SegResNetConfig) -> None:
        super().__init__(**_arguments(config))
        self.config = config


class _Contiguous(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.contiguous()


class SegResNetWithVae(MonaiSegResNetVAE):
    """The same network with the autoencoder's branch, for training. Images have exactly `input_size_DHW`."""

    def __init__(self, config: SegResNetConfig, input_size_DHW: tuple[int, ...]) -> None:
        super().__init__(
            input_image_size=input_size_DHW,
            vae_estimate_std=False,
            vae_default_std=0.3,
            vae_nz=256,
            **_arguments(config),
        )
        self.config = config
        # would give a standard deviation, which is fixed here: without a gradient DDP needs no search for it
        self.vae_fc2.requires_grad_(False)
        # MONAI flattens what comes out by a view, which a channels-last layout forbids
        self.vae_down.append(_Contiguous())

    def forward(self, images_BCDHW: Tensor) -> Tensor:
        """Logits as the serving network gives them, in training and evaluation alike; images of any size."""
        deepest, skips = self.encode(images_BCDHW)
        logits: Tensor = self.decode(deepest, skips[::-1])
        return logits

    def training_outputs(self, images_BCDHW: Tensor) -> SegResNetOutputs:
        """Logits and the autoencoder's loss. Raises ValueError for images of another size than the network's."""
        if tuple(images_BCDHW.shape[2:]) != tuple(self.input_image_size):
            raise ValueError(
                f"images of {tuple(images_BCDHW.shape[2:])}, but the autoencoder was built for "
                f"{tuple(self.input_image_size)}: crop to that size or build it for the other"
            )
        deepest, skips = self.encode(images_BCDHW)
        logits = self.decode(deepest, skips[::-1])
        return SegResNetOutputs(logits, self._get_vae_loss(images_BCDHW, deepest))


def with_vae(config: SegResNetConfig, input_size_DHW: tuple[int, ...]) -> SegResNetWithVae:
    """The network that is trained, for patches of `input_size_DHW`. Raises ValueError where those do not fit."""
    multiple = _VAE_ZOOM * config.stride
    if len(input_size_DHW) != config.dimensions or any(side <= 0 or side % multiple for side in input_size_DHW):
        raise ValueError(
            f"patch {tuple(input_size_DHW)}: the autoencoder needs {config.dimensions} sides that are multiples "
            f"of {multiple}"
        )
    return SegResNetWithVae(config, input_size_DHW)


def serving_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of `SegResNet` out of those of `SegResNetWithVae`: all but `vae_*`."""
    return {name: value for name, value in state.items() if not name.startswith(VAE_PREFIX)}


def _arguments(config: SegResNetConfig) -> dict[str, Any]:
    return {
        "spatial_dims": config.dimensions,
        "init_filters": config.init_filters,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "dropout_prob": config.dropout,
        "norm": NORMS[config.norm],
        "blocks_down": config.blocks_down,
        "blocks_up": config.blocks_up,
    }
