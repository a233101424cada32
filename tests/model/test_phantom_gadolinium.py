"""T1 after gadolinium: what the agent brightens and what not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from model.phantom import Phantom
from model.phantom_catalogue import draw_phantom, reduced
from model.phantom_gadolinium import GEOMETRY, T1WI, sample_gadolinium, with_agent
from model.phantom_physics import GradientEcho, signal
from model.phantom_tissues import CYST, HAEMANGIOMA, TISSUES, Properties, Tissue


@pytest.fixture(scope="module")
def t1() -> Phantom:
    return draw_phantom("t1-portal-venous", 4, geometry=reduced(GEOMETRY, 96))


def test_vessels_are_brighter_than_the_liver_and_metastases_darker(t1: Phantom) -> None:
    image_DHW, lesion_DHW = t1.image.array_DHW, t1.labels_DHW > 0
    liver = np.median(image_DHW[t1.liver_DHW & ~ndimage.binary_dilation(lesion_DHW, iterations=2)])
    assert np.median(image_DHW[t1.vessels["aorta"]]) > 1.3 * liver
    assert np.median(image_DHW[lesion_DHW]) < 0.85 * liver


def test_the_ernst_equation_holds() -> None:
    """Ernst & Anderson 1966: at the Ernst angle the signal is largest, cos α = e^(−TR/T1)."""
    tissue = Properties(1.0, 500.0, 1e9, 1.0, 0.0, 0.0, 0.0, "")
    ernst_deg = float(np.degrees(np.arccos(np.exp(-10 / 500))))
    at = {deg: signal(tissue, GradientEcho(10, 0, (1, 1), 1, False, deg, 1.0), 0) for deg in (8.0, ernst_deg, 16.0)}
    assert max(at, key=lambda deg: at[deg]) == ernst_deg
    assert at[ernst_deg] == pytest.approx(np.tanh(10 / 500 / 2) ** 0.5, rel=1e-6)


def test_more_gadolinium_is_more_signal() -> None:
    tissues = with_agent(TISSUES)
    ratio = {
        t: signal(tissues[t], T1WI, 0) / signal(TISSUES[t], T1WI, 0)
        for t in (Tissue.FAT, Tissue.MUSCLE, Tissue.LIVER, Tissue.BLOOD)
    }
    assert list(ratio.values()) == sorted(ratio.values())
    assert ratio[Tissue.FAT] == 1.0


def test_a_cyst_takes_up_nothing_and_a_haemangioma_fills() -> None:
    decoys = [decoy for seed in range(40) for decoy in sample_gadolinium(seed).decoys]
    t1_of = {
        kind.source: [decoy.rim.t1_ms for decoy in decoys if decoy.rim.source == kind.source]
        for kind in (CYST, HAEMANGIOMA)
    }
    assert min(t1_of[CYST.source]) >= CYST.t1_ms.low
    assert max(t1_of[HAEMANGIOMA.source]) < 250


def test_it_is_the_patient_before_chemotherapy(t1: Phantom) -> None:
    t2 = draw_phantom("pre-nact-t2wi", 4, geometry=reduced(GEOMETRY, 96))
    assert [lesion.nominal_mm for lesion in t1.lesions] == [lesion.nominal_mm for lesion in t2.lesions]
    assert np.array_equal(t1.liver_DHW, t2.liver_DHW)
