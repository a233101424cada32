"""Volumes and patches: what a volumetric network learns from lies where serving will have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.card import OutputSpec
from model.problems import TrainingProblem
from model.training.augment import AugmentRanges
from model.training.augment_volume import cut_patch, draw_change, unchanged
from model.training.patches import Laying, patch_batch, targets_of
from model.training.recipe import Recipe
from model.training.sources import split_of
from model.training.volumes import LESION, LIVER, VolumeSet, volume_set
from model.training.weak_supervision import Expectations, patient_number

WHOLE = slice(None)
CLASSES = OutputSpec(classes=("background", "liver", "lesion"), activation="softmax")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("volumes")


@pytest.fixture
def volumes(volume_recipe: Callable[..., Recipe], cache: Path) -> VolumeSet:
    recipe = volume_recipe()
    return volume_set(split_of(recipe.source).training, recipe.inputs, cache, workers=1)


def laid(recipe: Recipe, volumes: VolumeSet, expected: Expectations | None = None) -> Laying:
    return Laying.of(recipe, volumes, expected or Expectations())


def coloured(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A volume without symmetry, and a class map of boxes in it."""
    image = np.random.default_rng(seed).integers(0, 255, (12, 20, 24), dtype=np.uint8)
    classes = np.zeros(image.shape, np.uint8)
    classes[2:9, 4:15, 3:18] = LIVER
    classes[4:7, 6:9, 5:10] = LESION
    return image, classes


def test_a_volume_lies_on_the_grid_of_its_spec(volumes: VolumeSet) -> None:
    first = volumes.volumes[0]
    assert first.image_DHW.shape == first.classes_DHW.shape == (8, 36, 36)
    assert first.spacing_mm == pytest.approx((7.5, 8.0, 8.0))
    assert isinstance(first.image_DHW, np.memmap)
    lesion, liver, air = (float(first.image_DHW[first.classes_DHW == wanted].mean()) for wanted in (LESION, LIVER, 0))
    assert lesion > liver > air


def test_a_second_training_draws_nothing_again(
    volumes: VolumeSet, volume_recipe: Callable[..., Recipe], cache: Path
) -> None:
    drawn: list[None] = []
    recipe = volume_recipe()
    sources = split_of(recipe.source).training
    again = volume_set(sources, recipe.inputs, cache, workers=1, done=lambda: drawn.append(None))
    assert not drawn
    assert len(again) == len(volumes) == 4


def test_what_looks_inside_the_liver_learns_inside_the_true_one_and_its_margin(
    volume_recipe: Callable[..., Recipe], volumes: VolumeSet, cache: Path
) -> None:
    plain = volume_recipe()
    narrow = plain.inputs[0].model_copy(update={"within": "liver", "margin_mm": 10.0})
    inside = volume_set(split_of(plain.source).training, [narrow], cache, workers=1).volumes[0]
    whole = volumes.volumes[0]
    assert inside.image_DHW.size < 0.5 * whole.image_DHW.size
    assert inside.organ_voxels == pytest.approx(whole.organ_voxels, rel=0.1)
    shown = np.asarray(inside.image_DHW) > 0
    assert shown[inside.classes_DHW > 0].all()
    assert np.count_nonzero(shown & (inside.classes_DHW == 0)) > 0
    assert not shown[0, 0, 0]


def test_the_share_of_tumour_is_that_of_the_native_masks(volumes: VolumeSet, ct_folder: Path) -> None:
    volume = volumes.volumes[0]
    labels = next(c for c in split_of_all(ct_folder) if c.patient == volume.patient).read().images["pv"].labels
    organ = (labels["liver"] > 0) | (labels["lesion"] > 0)
    assert volumes.tumour_shares()[volume.patient] == pytest.approx((labels["lesion"] > 0).sum() / organ.sum())


def split_of_all(folder: Path) -> tuple:  # type: ignore[type-arg]  # CaseRef
    from model.cases import list_cases

    return list_cases(folder)


def test_a_patch_that_is_not_changed_is_made_of_the_volumes_voxels() -> None:
    image, classes = coloured()
    seen, found = cut_patch(image, classes, np.array([5.5, 9.5, 11.5]), (8, 8, 8), unchanged())
    assert torch.allclose(seen, torch.from_numpy(image[2:10, 6:14, 8:16] / np.float32(255)), atol=1e-4)
    assert torch.equal(found, torch.from_numpy(classes[2:10, 6:14, 8:16]).long())


def test_around_a_volume_lies_nothing() -> None:
    image, classes = coloured()
    seen, found = cut_patch(image, classes, np.array([5.5, 9.5, 11.5]), (16, 24, 32), unchanged())
    assert torch.allclose(seen[2:14, 2:22, 4:28], torch.from_numpy(image / np.float32(255)), atol=1e-4)
    assert float(seen.sum()) == pytest.approx(float(seen[2:14, 2:22, 4:28].sum()))
    assert int((found > 0).sum()) == np.count_nonzero(classes)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirror_moves_image_and_classes_alike(axis: int) -> None:
    image, classes = coloured()
    mirror = np.eye(3)
    mirror[axis, axis] = -1
    middle, patch = np.array([5.5, 9.5, 11.5]), (8, 12, 16)
    plain = cut_patch(image, classes, middle, patch, unchanged())
    mirrored = cut_patch(image, classes, middle, patch, replace(unchanged(), affine_33=mirror))
    for before, after in zip(plain, mirrored, strict=True):
        assert torch.allclose(before.flip(axis).float(), after.float(), atol=1e-4)


def test_a_turned_map_has_no_classes_between_classes() -> None:
    image, classes = coloured()
    only_lesion = np.where(classes == LESION, LESION, 0).astype(np.uint8)
    for seed in range(5):
        change = draw_change(
            AugmentRanges(rotation_deg=45, log_scale=0.3), (5.0, 2.0, 2.0), np.random.default_rng(seed)
        )
        _, found = cut_patch(image, only_lesion, np.array([5.0, 8.0, 8.0]), (8, 16, 16), change)
        assert set(found.unique().tolist()) == {0, LESION}


def test_a_turn_is_in_millimetres_and_not_in_voxels() -> None:
    only_turn = AugmentRanges(45, log_scale=0, log_aspect=0)
    affine = draw_change(only_turn, (5.0, 1.0, 2.0), np.random.default_rng(1)).affine_33
    in_mm = np.diag([5.0, 1.0, 2.0]) @ affine @ np.diag([1 / 5.0, 1.0, 1 / 2.0])
    assert np.allclose(in_mm @ in_mm.T, np.eye(3))
    assert not np.allclose(affine @ affine.T, np.eye(3))


def test_every_patch_that_must_show_a_lesion_does(volume_recipe: Callable[..., Recipe], volumes: VolumeSet) -> None:
    recipe = volume_recipe(sampling={"negatives": "none"}, batch=4)
    batches = [patch_batch(recipe, laid(recipe, volumes), number, WHOLE) for number in range(8)]
    lesions = torch.cat([batch.targets["image"][:, 2].flatten(1).sum(1) for batch in batches])
    assert len(lesions) == 32
    assert float(lesions.min()) > 0


def test_a_third_of_the_patches_is_laid_on_a_lesion_whatever_the_batch(
    volume_recipe: Callable[..., Recipe], volumes: VolumeSet
) -> None:
    from model.training.patches import _must_show

    recipe = volume_recipe(sampling={"lesion_share": 0.33})
    assert sum(_must_show(recipe, patch) for patch in range(300)) == 99


def test_a_batch_is_a_function_of_its_number_and_each_process_knows_its_part(
    volume_recipe: Callable[..., Recipe], volumes: VolumeSet
) -> None:
    recipe = volume_recipe(batch=4)
    laying = laid(recipe, volumes)
    whole, again, other = (patch_batch(recipe, laying, number, WHOLE) for number in (3, 3, 4))
    parts = [patch_batch(recipe, laying, 3, part) for part in (slice(0, 2), slice(2, 4))]
    assert torch.equal(whole.images["image"], again.images["image"])
    assert torch.equal(whole.images["image"], torch.cat([part.images["image"] for part in parts]))
    assert torch.equal(whole.targets["image"], torch.cat([part.targets["image"] for part in parts]))
    assert not torch.equal(whole.images["image"], other.images["image"])


def test_what_is_expected_of_a_patient_follows_the_patient_after_shuffling(
    volume_recipe: Callable[..., Recipe], volumes: VolumeSet
) -> None:
    by_patient = {f"patient-{n}": n / 10 for n in range(5)}  # of patient-5 nothing is known
    recipe = volume_recipe(batch=16)
    shuffled = VolumeSet(tuple(volumes.volumes[i] for i in (2, 0, 3, 1)))
    of_number = {patient_number(v.patient): by_patient.get(v.patient, np.nan) for v in volumes.volumes}
    for some in (volumes, shuffled):
        batch = patch_batch(recipe, laid(recipe, some, Expectations(by_patient, 0.05)), 0, WHOLE)
        wanted = [of_number[int(number)] for number in batch.weak.patient_B]
        assert np.allclose(batch.weak.expected_B.numpy(), wanted, equal_nan=True)
        assert len(set(batch.weak.patient_B.tolist())) == 4
        assert batch.margin == 0.05


def test_the_published_mistake_is_the_next_patients_value() -> None:
    expected = Expectations({"b": 0.2, "a": 0.1, "c": 0.3})
    assert [expected.of_following(patient) for patient in "abc"] == [0.2, 0.3, 0.1]
    assert np.isnan(expected.of_following("d"))


def test_a_patch_around_the_whole_volume_holds_all_of_its_liver(
    volume_recipe: Callable[..., Recipe], volumes: VolumeSet
) -> None:
    still = {"rotation_deg": 0, "log_scale": 0, "log_aspect": 0, "shift": 0}
    large = volume_recipe(augment=still).inputs[0].model_copy(update={"patch_DHW": (16, 40, 40)})
    wide = VolumeSet(tuple(replace(volume, spec=large) for volume in volumes.volumes))
    recipe = volume_recipe(augment=still)
    share_of_wide = patch_batch(recipe, laid(recipe, wide), 0, WHOLE).weak.liver_share_B
    share = patch_batch(recipe, laid(recipe, volumes), 0, WHOLE).weak.liver_share_B
    assert share_of_wide.tolist() == [1.0, 1.0]
    assert 0 < float(share.min()) <= 1


def test_a_liver_contains_its_lesions_where_they_are_no_class_of_their_own() -> None:
    classes = torch.tensor([0, LIVER, LESION]).view(1, 1, 1, 3)
    assert targets_of(classes, CLASSES)[0, :, 0, 0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    liver = OutputSpec(classes=("background", "liver"), activation="softmax")
    assert targets_of(classes, liver)[0, :, 0, 0].tolist() == [[1, 0, 0], [0, 1, 1]]
    assert targets_of(classes, OutputSpec())[0, :, 0, 0].tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    "changes", [{"rows": 32}, {"sampling": {"hard_share": 0.5}}, {"augment": {"channel_gain": 0.1}}]
)
def test_what_is_for_slices_only_is_refused_for_volumes(
    volume_recipe: Callable[..., Recipe], volumes: VolumeSet, changes: dict[str, object]
) -> None:
    with pytest.raises(TrainingProblem, match="for slices only"):
        laid(volume_recipe(**changes), volumes)
