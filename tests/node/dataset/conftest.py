"""What the tests of `dataset import` share: how the import is called, and the phantoms that are imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.phantom import Phantom
from node.dataset import Imported, ImportWish, Skipped, import_dataset
from node.dataset_pseudonyms import Pseudonyms
from tests.segmentations import small_phantom

Answers = tuple[list[Imported], list[Skipped]]


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A portal-venous CT of a few thousand voxels with two metastases; not to be changed."""
    return small_phantom()


@pytest.fixture
def run_import(tmp_path: Path) -> Callable[..., Answers]:
    """`run_import(source, collection="auto", …)`: (imported, skipped); cases lie in `tmp_path / "cases"`."""

    def run(source: Path, **wish: Any) -> Answers:
        pseudonyms = wish.pop("pseudonyms", Pseudonyms(tmp_path / "key"))
        answers = list(import_dataset([source], tmp_path / "cases", ImportWish(pseudonyms, **wish)))
        imported = [answer for answer in answers if isinstance(answer, Imported)]
        return imported, [answer for answer in answers if isinstance(answer, Skipped)]

    return run
