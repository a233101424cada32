"""Case folders of six small patients, bright balls in a dim body, and a recipe that learns them in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.cases import Case, CaseImage, write_case
from model.training.recipe import Recipe
from model.volume import Volume


@pytest.fixture(scope="session", name="small_image")
def _small_image() -> Callable[..., CaseImage]:
    return small_image


def small_image(seed: int, weighting: str = "t2", phase: str | None = None) -> CaseImage:
    """Ten slices of 48² with two lesions, a body and a liver."""
    rng = np.random.default_rng(seed)
    d, h, w = np.mgrid[:10, :48, :48].astype(np.float32)
    body = ((h - 24) / 20) ** 2 + ((w - 24) / 22) ** 2 < 1
    liver = ((d - 4.5) / 4) ** 2 + ((h - 22) / 12) ** 2 + ((w - 20) / 12) ** 2 < 1
    labels = np.zeros(body.shape, np.uint16)
    for number in (1, 2):
        middle = rng.uniform((3, 16, 12 + 12 * (number - 1)), (6, 28, 18 + 12 * (number - 1)))
        labels[(2.0 * (d - middle[0])) ** 2 + (h - middle[1]) ** 2 + (w - middle[2]) ** 2 < rng.uniform(9, 25)] = number
    labels[~liver] = 0
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint16)
    is_ct = weighting == "ct"
    array = body * 60 + liver * 40 + (labels > 0) * 120 + rng.normal(0, 4, body.shape)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = (6.0, 6.0, 6.0)
    affine[:, 3] = (-140.0, -140.0, 10.0 * seed, 1.0)
    return CaseImage(
        Volume((array - (1000 * ~body if is_ct else 0)).astype(np.float32), affine),
        {"lesion": labels, "liver": liver.astype(np.uint16)},
        "CT" if is_ct else "MR",
        weighting,
        phase,
        1000.0 if weighting == "dwi-trace" else None,
    )


@pytest.fixture(scope="session")
def case_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients with a T2WI each."""
    folder = tmp_path_factory.mktemp("cases")
    for seed in range(6):
        case = Case(f"case-{seed}", f"patient-{seed}", "made in a test", "Apache-2.0", {"t2": small_image(seed)})
        write_case(folder, case)
    return folder


@pytest.fixture
def recipe_of(case_folder: Path) -> Callable[..., Recipe]:
    """`recipe_of(batch=4)`: a recipe on these cases with some keys changed."""

    def make(**changes: Any) -> Recipe:
        plain: dict[str, Any] = {
            "name": "small",
            "title": "A small network",
            "system": "a",
            "profile": "best",
            "conditions": ["pre-nact-t2wi"],
            "network": {"id": "unetpp", "kwargs": {"width": 0.0625}},
            "initial": "he",
            "inputs": [
                {"kind": "planar", "modality": "MR", "weighting": "t2", "size": 32, "scaling": {"kind": "percentiles"}}
            ],
            "source": {"kind": "folder", "path": str(case_folder), "training_share": 0.66, "validation_share": 0.34},
            "sampling": {"lesion_share": 0.5},
            "loss": "pooled",
            "optimiser": {"kind": "adamw", "learning_rate": 0.01},
            "schedule": {"kind": "cosine", "warmup_share": 0.1},
            "validation": {"every_share": 0.25},
            "batch": 4,
            "images": 48,
        }
        return Recipe.model_validate(plain | changes)

    return make


@pytest.fixture(scope="session")
def ct_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients with a portal-venous CT each."""
    folder = tmp_path_factory.mktemp("ct-cases")
    for seed in range(6):
        image = small_image(seed, "ct", "portal-venous")
        write_case(folder, Case(f"ct-{seed}", f"patient-{seed}", "made in a test", "Apache-2.0", {"pv": image}))
    return folder


@pytest.fixture(scope="session")
def volume_recipe(ct_folder: Path) -> Callable[..., Recipe]:
    """As `recipe_of`, of volumes: system (d) on these CTs, a network of one channel to four."""

    def make(**changes: Any) -> Recipe:
        plain: dict[str, Any] = {
            "name": "small-volumes",
            "title": "A small volumetric network",
            "system": "d",
            "profile": "best",
            "scheme": "global-local",
            "conditions": ["ct-portal-venous"],
            "network": {
                "id": "segresnet",
                "kwargs": {"out_channels": 3, "init_filters": 4, "blocks_down": [1, 1], "blocks_up": [1]},
            },
            "inputs": [VOLUME_INPUT],
            "output": {"classes": ["background", "liver", "lesion"], "activation": "softmax"},
            "source": {"kind": "folder", "path": str(ct_folder), "training_share": 0.66, "validation_share": 0.34},
            "sampling": {"lesion_share": 0.5},
            "augment": {"mirror_share": 0.5},
            "loss": "dice-focal",
            "optimiser": {"kind": "adamw", "learning_rate": 0.01},
            "validation": {"every_share": 0.25},
            "batch": 2,
            "images": 24,
        }
        return Recipe.model_validate(plain | changes)

    return make


VOLUME_INPUT: dict[str, Any] = {
    "kind": "volume",
    "modality": "CT",
    "weighting": "ct",
    "phase": "portal-venous",
    "scaling": {"kind": "hu-window", "low_hu": 0, "high_hu": 250},
    "spacing_mm": [8.0, 8.0, 8.0],
    "patch_DHW": [8, 24, 24],
    "overlap": 0.25,
}
