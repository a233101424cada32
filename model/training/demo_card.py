"""The cards of the demo bundles: one network, five conditions, and what must be said about each.

Demo weights are trained on phantoms. They show that the node works; they know no patient.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.bundle import Bundle, save_bundle
from model.card import (
    UNSAVED_SHA256,
    Card,
    HuWindow,
    InferenceSpec,
    NetworkSpec,
    OutputSpec,
    Percentiles,
    PlanarInput,
    TrainingStatement,
)
from model.networks import build_network

DEMO_VERSION = "0.1.0"
DEMO_SIZE = 128
DEMO_WIDTH = 0.25

_B_RANGE_S_MM2 = (800.0, 1200.0)
_INPUTS: dict[str, dict[str, Any]] = {
    "dwi": {
        "modality": "MR",
        "weighting": "dwi-trace",
        "b_value_s_mm2": _B_RANGE_S_MM2,
        "b_preferred_s_mm2": 1000.0,
        "scaling": Percentiles(),
    },
    "t2wi": {"modality": "MR", "weighting": "t2", "scaling": Percentiles()},
    # slices are thin and vessels many: only the slices beside it tell a vessel that crosses from a round lesion
    "ct": {"modality": "CT", "weighting": "ct", "phase": "portal-venous", "context": 1, "scaling": HuWindow()},
}
_INPUT_OF_CONDITION = {
    "pre-nact-dwi": "dwi",
    "pre-nact-t2wi": "t2wi",
    "post-nact-dwi": "dwi",
    "post-nact-t2wi": "t2wi",
    "ct-portal-venous": "ct",
}
DEMO_CONDITIONS = tuple(_INPUT_OF_CONDITION)

_LIMITS = (
    "Trained on computed phantoms only; on images of patients its answers mean nothing.",
    "Quarter width and 128×128 input: lesions that are a few millimetres wide are lost.",
    "Not for diagnosis, not for research on patients: for showing and testing the node.",
)


def bundle_name(condition: str) -> str:
    """Name and folder of a condition's demo bundle."""
    return f"demo-{condition}"


def input_spec(condition: str, size: int = DEMO_SIZE) -> PlanarInput:
    """What a network for `condition` is fed. Raises KeyError for an unknown condition."""
    return PlanarInput(size=size, **_INPUTS[_INPUT_OF_CONDITION[condition]])


def draft_card(
    condition: str,
    *,
    training: TrainingStatement,
    trained: bool,
    width: float = DEMO_WIDTH,
    size: int = DEMO_SIZE,
    output: OutputSpec | None = None,
) -> Card:
    """A demo card whose weights are not yet written."""
    return Card(
        name=bundle_name(condition),
        system="a",
        profile="best",
        version=DEMO_VERSION,
        sha256=UNSAVED_SHA256,
        network=NetworkSpec(id="unetpp", kwargs={"width": width}),
        conditions=(condition,),
        inputs=(input_spec(condition, size),),
        output=output or OutputSpec(),
        inference=InferenceSpec(),
        training=training,
        limits=_LIMITS,
        intended_use="demo",
        trained=trained,
    )


def save_untrained_bundle(path: Path, condition: str, *, width: float = 0.125, size: int = 64, seed: int = 0) -> Bundle:
    """A tiny bundle with random weights, marked untrained: for tests that need an engine and no lesions."""
    statement = TrainingStatement(
        trained_on="phantom", description="random weights, never trained", cases=0, licence="Apache-2.0"
    )
    card = draft_card(condition, training=statement, trained=False, width=width, size=size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(card.network.id, card.network.kwargs)
        _settle_norms(network, torch.randn(4, input_spec(condition).channels, size, size))
    return save_bundle(path, card, network.state_dict())


def _settle_norms(network: nn.Module, images_BCHW: Tensor) -> None:
    """One pass that sets every batch norm's statistics: without it, random weights answer all pixels alike."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network.train()(images_BCHW)
