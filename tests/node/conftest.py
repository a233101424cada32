"""A house in which studies are decided, with an archive that knows earlier ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from simulator.archive import Archive
from tests.deciding import House


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with Archive(tmp_path_factory.mktemp("archive")) as running:
        yield running


@pytest.fixture
def house(tmp_path: Path, archive: Archive) -> Iterator[House]:
    """An archive that is up and empty."""
    archive.offline = False
    archive.shelf.clear()
    with ExitStack() as desks:
        yield House(tmp_path, archive, desks)
