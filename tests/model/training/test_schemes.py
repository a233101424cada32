"""What a scheme adds to plain supervision, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.cases import Case, write_case
from model.engine import Engine, Fed
from model.problems import TrainingProblem
from model.training.loop import Trained, Training
from model.training.publish import publish
from model.training.recipe import Recipe
from model.training.schemes.constrained import ConstrainedScheme
from model.training.sources import split_of
from model.volume import Volume

PAIR_INPUTS = [
    {
        "kind": "planar",
        "role": phase,
        "modality": "CT",
        "weighting": "ct",
        "phase": phase,
        "size": 64,
        "within": "liver",
        "scaling": {"kind": "hu-window", "low_hu": -200, "high_hu": 250},
    }
    for phase in ("portal-venous", "arterial")
]


def trained(recipe: Recipe, folder: Path, **more: Any) -> Trained:
    return Training(recipe, folder, cache=folder.parent / "cache", workers=1, **more).run()


def weights(recipe: Recipe, folder: Path) -> torch.Tensor:
    state = trained(recipe, folder).network.state_dict()
    return torch.cat([value.flatten().double() for value in state.values()])


@pytest.fixture
def constrained(recipe_of: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Two steps on 16 images of 64², as random features need them."""
    inputs = [{"kind": "planar", "modality": "MR", "weighting": "t2", "size": 64, "scaling": {"kind": "percentiles"}}]

    def make(**changes: Any) -> Recipe:
        plain = {"inputs": inputs, "batch": 16, "images": 32, "validation": {"every_share": 1.0}}
        return recipe_of(**plain, **changes)

    return make


def test_the_constraint_of_the_paper_changes_the_generator_and_that_of_the_script_does_not(
    constrained: Callable[..., Recipe], tmp_path: Path
) -> None:
    plain = weights(constrained(), tmp_path / "plain")
    as_coded = weights(constrained(scheme="constrained", profile="as-coded"), tmp_path / "as-coded")
    published = weights(constrained(scheme="constrained", profile="published"), tmp_path / "published")
    assert torch.equal(plain, as_coded)
    assert not torch.equal(plain, published)


def test_a_frozen_judge_stays_as_it_is_and_one_that_learns_does_not(
    constrained: Callable[..., Recipe], tmp_path: Path
) -> None:
    for judge, stays in (("frozen", True), ("adversarial", False)):
        settings = {"judge": judge, "warm_up_share": 0.0}
        training = Training(
            constrained(scheme="constrained", settings=settings), tmp_path / judge, cache=tmp_path / "cache", workers=1
        )
        scheme = training._scheme
        assert isinstance(scheme, ConstrainedScheme)
        before = [p.clone() for p in scheme._extractor.parameters()]
        training.run()
        same = [torch.equal(a, b) for a, b in zip(before, scheme._extractor.parameters(), strict=True)]
        assert all(same) == stays


def test_a_constrained_training_goes_on_with_the_judge_it_had(
    constrained: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = constrained(scheme="constrained")

    def leave(phase: str, done: int, of: int, value: float) -> None:
        if phase == "training" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(recipe, tmp_path / "cut", save_every_s=0, heard=leave)
    assert torch.equal(weights(recipe, tmp_path / "cut"), weights(recipe, tmp_path / "whole"))


def test_settings_that_a_scheme_does_not_know_are_named(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(TrainingProblem, match=r"small: settings of the scheme constrained: stages\.0: .*less than"):
        trained(recipe_of(scheme="constrained", settings={"stages": [5]}), tmp_path / "run")


@pytest.fixture(scope="module")
def pair_folder(tmp_path_factory: pytest.TempPathFactory, small_image: Callable[..., Any]) -> Path:
    """Three patients with two phases of one liver, the arterial one moved by 6 mm."""
    folder = tmp_path_factory.mktemp("pairs")
    for seed in range(3):
        venous, arterial = (small_image(seed, "ct", phase) for phase in ("portal-venous", "arterial"))
        moved = arterial.volume.affine_lps_mm.copy()
        moved[0, 3] += 6.0
        arterial = type(arterial)(Volume(arterial.volume.array_DHW, moved), arterial.labels, "CT", "ct", "arterial")
        images = {"portal-venous": venous, "arterial": arterial}
        write_case(folder, Case(f"pair-{seed}", f"patient-{seed}", "made in a test", "Apache-2.0", images))
    return folder


@pytest.mark.parametrize("settings", [{}, {"guidance": False}])
def test_two_phases_are_learnt_together(
    recipe_of: Callable[..., Recipe], pair_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    recipe = recipe_of(
        scheme="guided",
        settings=settings,
        network={"id": "cmg", "kwargs": {"width": 0.0625}},
        inputs=PAIR_INPUTS,
        companions={"liver": "some-liver"},
        source={"kind": "folder", "path": str(pair_folder), "training_share": 0.67, "validation_share": 0.33},
        images=12,
    )
    found = trained(recipe, tmp_path / "run")
    assert tuple(found.training.pictures) == ("portal-venous", "arterial")
    # the arterial picture lies on the grid of the portal-venous one: 6 mm are one pixel of it
    first, second = (found.training.lesions[role].astype(int).sum(axis=(0, 1)) for role in found.training.lesions)
    assert abs(first.argmax() - second.argmax()) <= 3
    assert found.looks


def test_two_phases_in_another_order_are_refused(
    recipe_of: Callable[..., Recipe], pair_folder: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(
        scheme="guided",
        network={"id": "cmg", "kwargs": {"width": 0.0625}},
        inputs=PAIR_INPUTS[::-1],
        companions={"liver": "some-liver"},
        source={"kind": "folder", "path": str(pair_folder), "training_share": 0.67, "validation_share": 0.33},
    )
    with pytest.raises(TrainingProblem, match="needs the roles portal-venous and arterial"):
        trained(recipe, tmp_path / "run")


def told(code: int, **more: Any) -> dict[str, Any]:
    """An input of one channel in [-1, 1] with its place in the label."""
    return {"kind": "planar", "modality_code": code, "size": 64, "channels": 1, "mean": [0.5], "std": [0.5], **more}


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory: pytest.TempPathFactory, small_image: Callable[..., Any]) -> Path:
    """Six patients, three with a T2WI and three with a CT: no patient has both."""
    folder = tmp_path_factory.mktemp("mixed")
    for seed in range(6):
        image = small_image(seed, "t2") if seed % 2 else small_image(seed, "ct", "portal-venous")
        write_case(folder, Case(f"case-{seed}", f"patient-{seed}", "made in a test", "Apache-2.0", {"image": image}))
    return folder


@pytest.mark.parametrize(
    ("mode", "network"),
    [
        ("full", {"id": "uagan", "kwargs": {"modalities": 2, "width": 0.0625}}),
        ("unified", {"id": "uagan", "kwargs": {"modalities": 2, "width": 0.0625, "translation": False}}),
    ],
)
def test_modalities_are_learnt_by_one_network_that_is_then_served_for_each(
    recipe_of: Callable[..., Recipe], mixed_folder: Path, tmp_path: Path, mode: str, network: dict[str, Any]
) -> None:
    recipe = recipe_of(
        scheme="unified",
        settings={"mode": mode, "critic_width": 0.5},
        network=network,
        inputs=[
            told(0, modality="MR", weighting="t2", scaling={"kind": "percentiles"}),
            told(1, modality="CT", weighting="ct", phase="portal-venous", scaling={"kind": "hu-window"}),
        ],
        output={"classes": ["background", "lesion"], "activation": "softmax"},
        source={"kind": "folder", "path": str(mixed_folder), "training_share": 0.67, "validation_share": 0.33},
        sampling={"lesion_share": 0.5, "balance_modalities": True},
        images=8,
        validation={"every_share": 1.0},
    )
    bundle = publish(recipe, trained(recipe, tmp_path / "run"), tmp_path / "out", workers=1)
    engine = Engine(bundle, "cpu")
    for source in split_of(recipe.source).training[:2]:
        image = source.read().images["image"]
        fed = {"image": Fed(image.volume, image.weighting, image.phase)}
        assert engine.segment(fed).probability_DHW.shape == image.volume.array_DHW.shape


def test_a_network_that_the_mode_does_not_train_is_refused(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = recipe_of(
        scheme="unified",
        network={"id": "unetpp", "kwargs": {}},
        inputs=[told(0, modality="MR", weighting="t2", scaling={"kind": "percentiles"})],
    )
    with pytest.raises(TrainingProblem, match="is not what this mode"):
        trained(recipe, tmp_path / "run")
