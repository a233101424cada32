"""The nnU-Net baseline: MONAI's DynUNet with the layers that nnU-Net plans for a patch. Called `dynunet`, not nnU-Net.

Parts and their start are those of MONAI 1.6.1's DynUNet (Apache-2.0): two [convolution, InstanceNorm with weights,
LeakyReLU 0.01] a stage, transposed convolutions, concatenated skips. Depth, strides, kernels and channels (32 doubled
up to 512 in 2-D, 320 in 3-D) are nnU-Net's for the patch (`nnunet_plan`).

What of nnU-Net is missing, so that a row in a table must not bear its name:
- patch, spacing and batch from the data set's fingerprint and the memory of the graphics card: they are given here;
- the bias of convolutions before a norm, which the norm subtracts, and that of transposed convolutions;
- flat kernels in the decoder of anisotropic 3-D patches: MONAI takes there the kernel of the stage below;
- the 3-D cascade, five folds and their ensemble, the choice of configuration and post-processing by cross-validation,
  and resampling by third-order splines; augmentation, optimiser and the number of steps are a recipe's, not the file's.
"""

from __future__ import annotations

from dataclasses import dataclass

from monai.networks.nets.dynunet import DynUNet as MonaiDynUNet
from torch import Tensor, nn

from model.networks.nnunet_plan import Plan, Sides, plan, total_stride

FIRST_FEATURES = 32
MOST_FEATURES = {2: 512, 3: 320}


@dataclass(frozen=True)
class DynUNetConfig:
    """The patch decides the layers: two sides (H, W) or three (D, H, W), in voxels of `spacing_mm`.

    Without a spacing voxels are as long as wide. `width` multiplies the channels.
    """

    patch: Sides = (224, 224)
    spacing_mm: tuple[float, ...] | None = None
    in_channels: int = 3
    out_channels: int = 1
    width: float = 1.0

    def __post_init__(self) -> None:
        if self.dimensions not in MOST_FEATURES:
            raise ValueError(f"patch {self.patch} has {self.dimensions} sides; there are networks for 2 and 3")
        planned = self.plan
        if planned.stages < 3:
            raise ValueError(f"patch {self.patch} is too small: no side can be halved twice and keep 4 voxels")
        if planned.patch != tuple(self.patch):
            raise ValueError(f"patch {self.patch} does not fit its own strides; the next that does is {planned.patch}")

    @property
    def dimensions(self) -> int:
        return len(self.patch)

    @property
    def plan(self) -> Plan:
        """Strides and kernels per stage."""
        return plan(self.patch, self.spacing_mm)

    @property
    def features(self) -> tuple[int, ...]:
        """Channels per stage, at least one."""
        planned = self.plan.features(FIRST_FEATURES, MOST_FEATURES[self.dimensions])
        return tuple(max(1, round(f * self.width)) for f in planned)

    @property
    def stride(self) -> int:
        """Multiples of this do for every axis of the input; `axis_strides` says what each axis needs at least."""
        return max(self.axis_strides)

    @property
    def axis_strides(self) -> Sides:
        """Input sides must be multiples of these: (D, H, W), or (H, W) in 2-D."""
        return total_stride(self.plan.strides)


class DynUNet(nn.Module):
    """Images (B, in_channels, H, W) or (B, in_channels, D, H, W) → logits (B, out_channels, …) at their size.

    MONAI's own `forward` stacks all heads at full size and keeps them in the network, also where only the first is
    wanted, and its weights have two names each. So its parts are taken, and put together here.
    """

    def __init__(self, config: DynUNetConfig) -> None:
        super().__init__()
        self.config = config
        planned = config.plan
        built = MonaiDynUNet(
            spatial_dims=config.dimensions,
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            kernel_size=planned.kernels,
            strides=planned.strides,
            upsample_kernel_size=planned.strides[1:],
            filters=config.features,
            deep_supervision=True,
            deep_supr_num=planned.stages - 2,
        )
        self.down = nn.ModuleList([built.input_block, *built.downsamples, built.bottleneck])
        self.up = built.upsamples
        self.head = nn.ModuleList([built.output_block, *built.deep_supervision_heads])

    def forward(self, images: Tensor) -> Tensor:
        """The finest head's logits; the other heads are not computed."""
        logits: Tensor = self.head[0](self._decoded(images)[0])
        return logits

    def heads(self, images: Tensor) -> list[Tensor]:
        """Logits of every stage of the decoder, finest first, each at its own resolution; the first is `forward`."""
        return [head(features) for head, features in zip(self.head, self._decoded(images), strict=True)]

    def _decoded(self, images: Tensor) -> list[Tensor]:
        features, skips = images, []
        for stage in self.down:
            features = stage(features)
            skips.append(features)
        decoded: list[Tensor] = []
        for up, skip in zip(self.up, skips[-2::-1], strict=True):
            features = up(features, skip)
            decoded.append(features)
        return decoded[::-1]
