"""The discriminator of CRLM-GAN: the four stages of a ResNet-50, which judge how alike two masked images look.

Shapes of models.md §1.3. It is a fixed judge: no weight learns unless an adversarial scheme asks for it, and batch
norm never leaves evaluation mode, not even by `.train()`. (The published code leaves it in training mode, so its
statistics drift on masked images, §1.5.) It is a part of training and never served.

With ImageNet weights it is the published one. With random weights the statistics of batch norm mean nothing until
they are measured (`calibrate`), and whatever comes out is called by another name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from model.networks.resnet import LEVELS, level, load_trunk, resnet

Weights = Literal["imagenet", "random"]
STAGES = len(LEVELS) - 1
# of fewer, a variance is an accident: measured on 2, the last stage's term came out at 3e9 instead of 14
LEAST_VALUES = 64


class ResNet50Features(nn.Module):
    """Images (B, 3, H, W) → up to four stages: 256, 512, 1024 and 2048 channels at 1/4, 1/8, 1/16 and 1/32 size.

    `weights` tells where the weights are from, for the run's record.
    """

    def __init__(self, imagenet: Mapping[str, Tensor] | None = None) -> None:
        """`imagenet`: torchvision's state dict; random weights without it. Raises RuntimeError if it does not fit."""
        super().__init__()
        self.weights: Weights = "random" if imagenet is None else "imagenet"
        self.trunk = resnet(50)
        if imagenet is not None:
            load_trunk(self.trunk, imagenet)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> ResNet50Features:
        """As ever, but batch norm stays in evaluation mode."""
        super().train(mode)
        for norm in self._norms():
            norm.eval()
        return self

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """All four stages."""
        return self.stages(images_B3HW)

    def stages(self, images_B3HW: Tensor, last: int = STAGES) -> tuple[Tensor, ...]:
        """Outputs of stages 1 to `last`, each after its last ReLU; deeper ones are not computed."""
        features, stages = level(self.trunk, 0, images_B3HW), []
        for stage in range(1, last + 1):
            features = level(self.trunk, stage, features)
            stages.append(features)
        return tuple(stages)

    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Measure the statistics of batch norm on batches (B, 3, H, W) of whole, normalised images.

        For random weights only: their statistics are those of no data at all. Every layer sees inputs that the layers
        before it normalised; several batches are averaged. Whole images and not masked ones, as those of ImageNet are
        (docs/LOG.md has both).
        Raises ValueError for ImageNet weights, for no batch, and for one that leaves fewer than 64 values a channel in
        the last stage (16 images of 64², 4 of 128²).
        """
        if self.weights == "imagenet":
            raise ValueError("ImageNet weights carry their own statistics; measuring others would make another network")
        averaging = {norm: norm.momentum for norm in self._norms()}
        for norm in averaging:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        try:
            self._measure(batches)
        finally:
            for norm, momentum in averaging.items():
                norm.momentum = momentum
                norm.eval()

    @torch.no_grad()
    def _measure(self, batches: Iterable[Tensor]) -> None:
        seen = 0
        for images_B3HW in batches:
            values = self.stages(images_B3HW)[-1][:, 0].numel()
            if values < LEAST_VALUES:
                raise ValueError(
                    f"a batch {tuple(images_B3HW.shape)} leaves {values} values a channel; give more images"
                )
            seen += 1
        if not seen:
            raise ValueError("no batch to calibrate on; give at least one of the images that the constraint will see")

    def adversarial_parameters(self) -> tuple[nn.Parameter, ...]:
        """The convolutions of stages 1 to 4: what an adversarial scheme may train. Batch norm is never among them."""
        return tuple(
            weight
            for stage in range(1, STAGES + 1)
            for layer in self.trunk.get_submodule(f"layer{stage}").modules()
            if isinstance(layer, nn.Conv2d)
            for weight in layer.parameters()
        )

    def _norms(self) -> Iterator[nn.BatchNorm2d]:
        return (layer for layer in self.modules() if isinstance(layer, nn.BatchNorm2d))
