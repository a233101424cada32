"""ResNet-34 and ResNet-50 trunks (He et al., CVPR 2016) in torchvision's layout, so that its weights load strictly.

The layers are MONAI's general `ResNet`, told what torchvision builds: stem with stride 2, stride on the 3×3
convolution of a bottleneck ("v1.5"), projections by bias-free 1×1 convolution. MONAI's `ResNetFeatures` is the same
for depth 50; for depth 34 it takes parameter-free shortcuts that no ImageNet file fits, and cuts their gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

Depth = Literal[34, 50]

PUBLISHED_CHANNELS = (64, 128, 256, 512)
BLOCKS_PER_STAGE = (3, 4, 6, 3)
CLASSIFIER = ("fc.weight", "fc.bias")

# What is applied to go one level deeper: the stem, then the four stages. Level n halves the image n + 1 times.
LEVELS = (("conv1", "bn1", "act"), ("maxpool", "layer1"), ("layer2",), ("layer3",), ("layer4",))


def resnet(depth: Depth, in_channels: int = 3, channels: tuple[int, ...] = PUBLISHED_CHANNELS) -> nn.Module:
    """The trunk without its classifier; `channels` of the four stages (a bottleneck gives four times as many)."""
    from monai.networks.nets.resnet import ResNet  # seconds to import, so only where a network needs it

    trunk: nn.Module = ResNet(
        block="basic" if depth == 34 else "bottleneck",
        layers=list(BLOCKS_PER_STAGE),
        block_inplanes=list(channels),
        spatial_dims=2,
        n_input_channels=in_channels,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
        feed_forward=False,
    )
    return trunk


def level(trunk: nn.Module, number: int, features_BCHW: Tensor) -> Tensor:
    """Features of level `number` from those of the level above it; level 0 is the stem and takes the images."""
    for name in LEVELS[number]:
        features_BCHW = trunk.get_submodule(name)(features_BCHW)
    return features_BCHW


def load_trunk(trunk: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load torchvision's state dict; of it only the classifier may be left over. Raises RuntimeError for any other."""
    trunk.load_state_dict({name: value for name, value in weights.items() if name not in CLASSIFIER})
