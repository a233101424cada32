"""Batch number n of a volumetric recipe: patches laid, cut and augmented as a pure function of (recipe, volumes, n)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.card import OutputSpec, VolumeInput
from model.problems import TrainingProblem
from model.training.augment_volume import cut_patch, draw_change
from model.training.losses_weak import WeakLabels
from model.training.recipe import Recipe
from model.training.volumes import LESION, LIVER, SeenVolume, VolumeSet
from model.training.weak_supervision import Expectations, patient_number
from model.volume import Float64

_ORDER, _PATCH = 1, 2
"""What a random generator is for: which volumes an epoch begins with, or one patch."""


@dataclass(frozen=True)
class VolumeBatch:
    """Role → normalised images (B, 1, D, H, W) and targets (B, K, D, H, W), and what is known of each patch.

    Targets have a channel for each of the recipe's classes.
    """

    images: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    code_B: Tensor
    """Modality of a conditioned network, -1 untold."""
    weak: WeakLabels
    """Whose each patch is, and what a clinical table lets one expect of that patient."""
    following_B: Tensor
    """What it lets one expect of the patient after this one: the published code mixes them up, and `as-coded` too."""
    margin: float
    """Mean error of what the table lets one expect."""

    def to(self, device: torch.device) -> VolumeBatch:
        """On that device."""
        weak = WeakLabels(
            *(value.to(device) for value in (self.weak.expected_B, self.weak.patient_B, self.weak.liver_share_B))
        )
        return VolumeBatch(
            {role: image.to(device, non_blocking=True) for role, image in self.images.items()},
            {role: target.to(device, non_blocking=True) for role, target in self.targets.items()},
            self.code_B.to(device),
            weak,
            self.following_B.to(device),
            self.margin,
        )


@dataclass(frozen=True)
class Laying:
    """Where patches of a recipe are laid: volumes to draw from, and the class that some must show."""

    volumes: VolumeSet
    drawn_N: tuple[int, ...]
    """Volumes of an epoch."""
    showing_N: tuple[int, ...]
    """Those that show the class which is looked for."""
    target: int
    expected: Expectations

    @classmethod
    def of(cls, recipe: Recipe, volumes: VolumeSet, expected: Expectations) -> Laying:
        """Raises TrainingProblem where there is nothing to learn from, or for keys that volumes have no use for."""
        sampling, augment = recipe.sampling, recipe.augment
        unfit = {
            "sampling.hard_share": sampling.hard_share,
            "sampling.balance_modalities": sampling.balance_modalities,
            "augment.quarter_turns": augment.quarter_turns,
            "augment.channel_gain": augment.channel_gain,
            "rows": recipe.rows,
        }
        if wrong := [key for key, value in unfit.items() if value]:
            raise TrainingProblem(f"{recipe.name}: {', '.join(wrong)}: for slices only; leave it out for volumes")
        target = LESION if recipe.output.target == "lesion" else LIVER
        showing = tuple(volumes.showing(target).tolist())
        if not showing:
            raise TrainingProblem(f"none of the {len(volumes)} training volumes shows a {recipe.output.target}")
        drawn = showing if sampling.negatives == "none" else tuple(range(len(volumes)))
        return cls(volumes, drawn, showing, target, expected)

    def __len__(self) -> int:
        """Volumes of an epoch: each gives one patch."""
        return len(self.drawn_N)


def patch_batch(recipe: Recipe, laying: Laying, number: int, part: slice) -> VolumeBatch:
    """Those patches of batch `number` that `part` names, augmented."""
    wanted = range(recipe.batch)[part]
    patches = [_patch(recipe, laying, number * recipe.batch + place) for place in wanted]
    return _joined(patches, recipe, laying.expected)


def targets_of(classes_BDHW: Tensor, output: OutputSpec) -> Tensor:
    """One channel a class (B, K, D, H, W) from class maps.

    The liver contains its lesions where they are no class of their own; any other name is what is left.
    """
    known = {"lesion": classes_BDHW == LESION, "liver": classes_BDHW == LIVER}
    if "lesion" not in output.classes:
        known["liver"] = classes_BDHW > 0
    named = [known[name] for name in output.classes if name in known]
    rest = ~torch.stack(named).any(0)
    return torch.stack([known.get(name, rest) for name in output.classes], dim=1).float()


@dataclass(frozen=True)
class Patch:
    """Image in [0, 1] and class map (D, H, W), and which share of its volume's liver lies in it (NaN: no liver)."""

    volume: SeenVolume
    image_DHW: Tensor
    classes_DHW: Tensor
    liver_share: float


def _patch(recipe: Recipe, laying: Laying, patch: int) -> Patch:
    """Patch number `patch` of the training."""
    rng = np.random.default_rng((recipe.seed, _PATCH, patch))
    must_show = _must_show(recipe, patch)
    number = int(rng.choice(laying.showing_N)) if must_show else _of_epoch(recipe.seed, laying.drawn_N, patch)
    volume = laying.volumes.volumes[number]
    change = draw_change(recipe.augment, volume.spacing_mm, rng)
    middle = _middle(recipe, laying, volume, must_show, rng)
    image, classes = cut_patch(volume.image_DHW, volume.classes_DHW, middle, volume.spec.patch_DHW, change)
    organ = int((classes > 0).sum()) * abs(np.linalg.det(change.affine_33))
    share = min(1.0, organ / volume.organ_voxels) if volume.organ_voxels else np.nan
    return Patch(volume, image, classes, share)


def _must_show(recipe: Recipe, patch: int) -> bool:
    """The share of patches that the recipe asks for, evenly spread over the training whatever the batch."""
    if recipe.sampling.negatives == "none":
        return True
    share = recipe.sampling.lesion_share or 0.0
    return int((patch + 1) * share + 1e-9) > int(patch * share + 1e-9)


def _of_epoch(seed: int, drawn_N: Sequence[int], patch: int) -> int:
    """Each volume once an epoch, in an order of its own."""
    epoch, place = divmod(patch, len(drawn_N))
    return int(np.random.default_rng((seed, _ORDER, epoch)).permutation(drawn_N)[place])


def _middle(recipe: Recipe, laying: Laying, volume: SeenVolume, must_show: bool, rng: np.random.Generator) -> Float64:
    """Where the middle of a patch lies: on what it must show, or on the liver, or anywhere; shifted by chance.

    The patch stays within the volume; where it is longer, it lies around it as windows do in serving.
    """
    shape, patch = np.array(volume.image_DHW.shape, float), np.array(volume.spec.patch_DHW, float)
    places = volume.places[laying.target] if must_show else volume.places[LIVER]
    anywhere = not must_show and (recipe.sampling.negatives == "all" or not len(places))
    aim = rng.uniform(0, shape - 1) if anywhere else places[rng.integers(len(places))].astype(float)
    aim = aim + rng.uniform(-1, 1, 3) * min(recipe.augment.shift, 0.49) * patch
    # middles lie on voxels or between two, so that an unchanged patch is made of voxels
    start = np.clip(np.round(aim - (patch - 1) / 2), 0, np.maximum(shape - patch, 0))
    around = -((patch - shape) // 2)
    middle: Float64 = np.where(shape < patch, around, start) + (patch - 1) / 2
    return middle


def _joined(patches: Sequence[Patch], recipe: Recipe, expected: Expectations) -> VolumeBatch:
    volumes = [patch.volume for patch in patches]
    role = volumes[0].spec.role
    images = [normalised(patch.image_DHW, patch.volume.spec) for patch in patches]
    patients = [volume.patient for volume in volumes]
    return VolumeBatch(
        {role: torch.stack(images)[:, None]},
        {role: targets_of(torch.stack([patch.classes_DHW for patch in patches]), recipe.output)},
        torch.tensor([volume.code for volume in volumes]),
        WeakLabels(
            torch.tensor([expected.of(patient) for patient in patients]),
            torch.tensor([patient_number(patient) for patient in patients]),
            torch.tensor([patch.liver_share for patch in patches], dtype=torch.float32),
        ),
        torch.tensor([expected.of_following(patient) for patient in patients]),
        expected.margin,
    )


def normalised(image_DHW: Tensor, spec: VolumeInput) -> Tensor:
    """An image in [0, 1] as the network takes it."""
    return (image_DHW - spec.mean) / spec.std
