"""Small phantoms for the simulator's tests: rendered once, read only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from model.phantom import GEOMETRIES, Phantom, make_phantom


@pytest.fixture(scope="session")
def phantom_of() -> Callable[[str], Phantom]:
    """`phantom_of("pre-nact-dwi")`: seed 5, 14 slices of 64², b = 0, 50 and 1000 for DWI."""

    @cache
    def make(condition: str) -> Phantom:
        geometry = replace(GEOMETRIES[condition].resampled(64, 64), slices=14, slice_thickness_mm=12.0)
        return make_phantom(condition, 5, geometry=geometry, b_values=(0.0, 50.0, 1000.0))

    return make
