"""A volume through a 3-D network and back: what is found lies where it was, and only where it may look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.bundle import Bundle, save_bundle
from model.canonical import VolumeProblem
from model.card import UNSAVED_SHA256, BundleProblem, Card, Companion, read_card
from model.engine import Engine
from model.networks import NETWORKS
from model.volume import Volume

BODY_HU, LIVER_HU, LESION_HU = 50.0, 100.0, 190.0


class AtLeast(nn.Module):
    """Says yes where the image is bright enough: logit = 60·(x − limit)."""

    def __init__(self, limit: float = 0.5) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(limit))

    def forward(self, images: Tensor) -> Tensor:
        return 60 * (images - self.limit)


@pytest.fixture(autouse=True)
def _network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "at-least", lambda **kwargs: AtLeast(**kwargs))


def bundle(folder: Path, name: str, limit: float, target: str, liver: Path | None = None, **spec: Any) -> Bundle:
    """A bundle that finds what is at least `limit` of the window 0 to 200 HU."""
    content = {
        "name": name,
        "system": "d",
        "profile": "best",
        "version": "0.1.0",
        "sha256": UNSAVED_SHA256,
        "network": {"id": "at-least"},
        "conditions": ["ct-portal-venous"],
        "companions": {"liver": Companion(bundle=liver.name, sha256=read_card(liver).sha256)} if liver else {},
        "inputs": [
            {
                "kind": "volume",
                "modality": "CT",
                "weighting": "ct",
                "scaling": {"kind": "hu-window", "low_hu": 0, "high_hu": 200},
                "patch_DHW": [8, 24, 24],
                **spec,
            }
        ],
        "output": {"classes": [target]},
        "training": {"trained_on": "phantom", "description": "made in a test", "cases": 0, "licence": "Apache-2.0"},
        "limits": ["made in a test"],
        "intended_use": "demo",
        "trained": True,
    }
    return save_bundle(folder / name, Card.model_validate(content), AtLeast(limit).state_dict())


def grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], tilt_deg: float = 0.0) -> np.ndarray:
    """An affine whose middle voxel lies at the origin; a tilt is about the x axis."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * np.array(spacing_mm)
    angle = np.deg2rad(tilt_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def painted(affine: np.ndarray, shape: tuple[int, int, int], *balls: tuple[tuple[float, ...], float, float]) -> Volume:
    """Air, and balls (middle in mm, radius in mm, HU) over one another."""
    places = Volume(np.zeros(shape, np.float32), affine).to_lps_mm(
        np.stack(np.indices(shape), axis=-1).reshape(-1, 3).astype(float)
    )
    array = np.full(len(places), -1000.0, np.float32)
    for middle, radius, hu in balls:
        array[np.linalg.norm(places - np.array(middle), axis=1) <= radius] = hu
    return Volume(array.reshape(shape), affine)


def flipped(volume: Volume, axes: tuple[int, ...]) -> Volume:
    affine = volume.affine_lps_mm.copy()
    for axis in axes:
        affine[:3, 3] += affine[:3, axis] * (volume.array_DHW.shape[axis] - 1)
        affine[:3, axis] *= -1
    return Volume(np.ascontiguousarray(np.flip(volume.array_DHW, axes)), affine)


@pytest.mark.parametrize("spacing_mm", [(None, None, None), (2.0, 2.0, 2.0), (5.0, 3.0, 2.5)])
@pytest.mark.parametrize(("axes", "tilt_deg"), [((), 0.0), ((0,), 0.0), ((1, 2), 0.0), ((0, 2), 20.0)])
def test_a_ball_comes_back_where_it_was(
    tmp_path: Path, spacing_mm: tuple[float | None, ...], axes: tuple[int, ...], tilt_deg: float
) -> None:
    """Slices of 4 mm, pixels of 1.5 × 2 mm: the ball of 12 mm keeps middle (to a third of a voxel) and volume."""
    shape = (26, 70, 56)
    middle = (14.0, -12.0, 9.0)
    body = ((0.0, 0.0, 0.0), 45.0, BODY_HU)
    volume = flipped(painted(grid(shape, (4.0, 1.5, 2.0), tilt_deg), shape, body, (middle, 12.0, LESION_HU)), axes)
    engine = Engine(bundle(tmp_path, "lesions", 0.6, "lesion", spacing_mm=spacing_mm), "cpu")
    found = engine.segment(volume).probability_DHW >= 0.5
    true = volume.array_DHW == LESION_HU
    apart = np.argwhere(found).mean(axis=0) - np.argwhere(true).mean(axis=0)
    assert np.abs(apart).max() < 0.34
    assert found.sum() == pytest.approx(true.sum(), rel=0.12)
    place = volume.to_lps_mm(np.argwhere(found).mean(axis=0, keepdims=True))[0]
    assert np.linalg.norm(place - middle) < 1.5


def test_of_a_native_grid_every_voxel_comes_back(tmp_path: Path) -> None:
    shape = (12, 40, 40)
    volume = painted(grid(shape, (4.0, 1.5, 2.0)), shape, ((4.0, -3.0, 2.0), 11.0, LESION_HU))
    engine = Engine(bundle(tmp_path, "lesions", 0.6, "lesion"), "cpu")
    assert np.array_equal(engine.segment(volume).probability_DHW >= 0.5, volume.array_DHW == LESION_HU)


@pytest.fixture
def two_stages(tmp_path: Path) -> Bundle:
    """Liver: 80 HU or more. Lesions: 150 HU or more, inside the liver and 5 mm around it."""
    liver = bundle(tmp_path, "liver", 0.4, "liver", spacing_mm=(5.0, 4.0, 4.0), patch_DHW=(8, 16, 16))
    return bundle(tmp_path, "lesions", 0.75, "lesion", liver.path, within="liver", margin_mm=5.0)


SHAPE = (30, 60, 60)
GRID = grid(SHAPE, (5.0, 3.0, 3.0))
ABDOMEN = ((0.0, 0.0, 0.0), 88.0, BODY_HU)
LIVER = ((-20.0, 0.0, 0.0), 40.0, LIVER_HU)
IN_LIVER = ((-20.0, 10.0, 5.0), 10.0, LESION_HU)
ELSEWHERE = ((60.0, 0.0, 0.0), 10.0, LESION_HU)


def test_outside_the_liver_nothing_is_answered(two_stages: Bundle) -> None:
    volume = painted(GRID, SHAPE, ABDOMEN, LIVER, IN_LIVER, ELSEWHERE)
    answer = Engine(two_stages, "cpu").segment(volume).probability_DHW
    only_in_liver = painted(GRID, SHAPE, ABDOMEN, LIVER, IN_LIVER).array_DHW == LESION_HU
    elsewhere = (volume.array_DHW == LESION_HU) & ~only_in_liver
    assert answer[elsewhere].max() == 0
    found = answer >= 0.5
    assert 2 * (found & only_in_liver).sum() / (found.sum() + only_in_liver.sum()) > 0.95


def test_without_the_liver_the_other_lesion_would_have_been_answered(tmp_path: Path) -> None:
    volume = painted(GRID, SHAPE, ABDOMEN, LIVER, ELSEWHERE)
    answer = Engine(bundle(tmp_path, "anywhere", 0.75, "lesion"), "cpu").segment(volume).probability_DHW
    assert answer[volume.array_DHW == LESION_HU].min() > 0.5


def test_a_volume_without_a_liver_is_refused(two_stages: Bundle) -> None:
    with pytest.raises(VolumeProblem, match="no liver was found"):
        Engine(two_stages, "cpu").segment(painted(GRID, SHAPE, ABDOMEN, ELSEWHERE))


def test_a_companion_that_is_absent_is_refused(two_stages: Bundle) -> None:
    (two_stages.path.parent / "liver" / "card.json").unlink()
    with pytest.raises(BundleProblem, match=r"liver.card\.json"):
        Engine(two_stages, "cpu")


def test_a_companion_of_another_version_is_refused(two_stages: Bundle) -> None:
    bundle(two_stages.path.parent, "liver", 0.3, "liver", spacing_mm=(5.0, 4.0, 4.0), patch_DHW=(8, 16, 16))
    with pytest.raises(BundleProblem, match="another version of its companion"):
        Engine(two_stages, "cpu")
