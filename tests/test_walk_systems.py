"""Each system of the literature is reached by naming its bundle in a route: images in by C-STORE, SEG and SR out.

The weights are random and the threshold is set so that a little is found: what is tested is the way, not the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import dcmread

from model.bundle import Bundle, load_bundle, save_bundle, write_card
from model.card import UNSAVED_SHA256, Card, Companion, TrainingStatement
from model.engine import Engine, Fed
from model.networks import build_network
from model.phantom import GEOMETRIES, Phantom, make_phantom
from model.phantom_catalogue import PAIR, PhantomPair, draw_pair
from node.domain import JobState
from simulator.identity import study_of
from simulator.modality import write_pair, write_series
from simulator.sending import send
from tests.serving import ServedNode, serving, write_config

SEED = 910400
SIDE = 96
"""Pixels of the small phantoms' slices."""
ENDED = {JobState.COMMITTED, JobState.FAILED, JobState.HELD}
STATEMENT = TrainingStatement(trained_on="phantom", description="random weights", cases=0, licence="Apache-2.0")

TOLD = {"kind": "planar", "size": 64, "channels": 1, "mean": [0.5], "std": [0.5]}
CT = {"modality": "CT", "weighting": "ct", "phase": "portal-venous", "scaling": {"kind": "hu-window"}}
VOLUME = {"kind": "volume", "spacing_mm": [10, 6, 6], "patch_DHW": [16, 32, 32]}

UNIFIED: dict[str, Any] = {
    "name": "tiny-unified",
    "system": "c",
    "network": {"id": "uagan", "kwargs": {"modalities": 2, "width": 0.0625}},
    "conditions": ["pre-nact-t2wi", "ct-portal-venous"],
    "inputs": [
        {**TOLD, "modality_code": 0, "modality": "MR", "weighting": "t2", "scaling": {"kind": "percentiles"}},
        {**TOLD, "modality_code": 1, **CT},
    ],
    "output": {"classes": ["background", "lesion"], "activation": "softmax", "minimum_lesion_voxels": 40},
}
LIVER: dict[str, Any] = {
    "name": "tiny-liver",
    "system": "d",
    "network": {"id": "segresnet", "kwargs": {"init_filters": 4, "out_channels": 2}},
    "conditions": ["ct-portal-venous"],
    "inputs": [{**VOLUME, **CT}],
    "output": {"classes": ["background", "liver"], "activation": "softmax"},
}
TUMOUR: dict[str, Any] = {
    **LIVER,
    "name": "tiny-tumour",
    "network": {"id": "segresnet", "kwargs": {"init_filters": 4, "out_channels": 3}},
    "inputs": [{**VOLUME, **CT, "within": "liver", "margin_mm": 5}],
    "output": {
        "classes": ["background", "liver", "lesion"],
        "activation": "softmax",
        "minimum_lesion_voxels": 40,
    },
}
GUIDED: dict[str, Any] = {
    "name": "tiny-guided",
    "system": "b",
    "network": {"id": "cmg", "kwargs": {"width": 0.0625}},
    "conditions": ["ct-biphasic"],
    "inputs": [
        {"kind": "planar", "size": 64, "role": phase, **CT, "phase": phase} for phase in ("portal-venous", "arterial")
    ],
    "output": {"minimum_lesion_voxels": 40},
}
ROUTES: list[dict[str, Any]] = [
    {
        "condition": "ct-biphasic",
        "title": "Two phases of CT by cross-modal guidance",
        "time_point": "any",
        "needs": {
            phase: {"modality": "CT", "weighting": "ct", "contrast_phase": phase}
            for phase in ("portal-venous", "arterial")
        },
        "bundle": "tiny-guided",
        "patience_s": 3,
    },
    {
        "condition": "pre-nact-t2wi",
        "title": "T2WI by the unified network",
        "time_point": "pre",
        "needs": {"image": {"modality": "MR", "weighting": "t2", "fat_suppressed": True}},
        "bundle": "tiny-unified",
    },
    {
        "condition": "ct-portal-venous",
        "title": "Portal-venous CT in two stages",
        "time_point": "any",
        "needs": {"image": {"modality": "CT", "weighting": "ct", "contrast_phase": "portal-venous"}},
        "bundle": "tiny-tumour",
    },
]


def drawn(condition: str) -> Phantom:
    return make_phantom(condition, SEED, geometry=GEOMETRIES[condition].resampled(SIDE, SIDE), lesion_count=2)


def crafted(folder: Path, content: Mapping[str, Any], images: Mapping[str, Fed], share: float) -> Bundle:
    """A bundle with random weights whose threshold is reached by `share` of the voxels of `images`."""
    card = Card.model_validate(
        {
            "profile": "best",
            "version": "0.1.0",
            "sha256": UNSAVED_SHA256,
            "training": STATEMENT.model_dump(),
            "limits": ["random weights"],
            "intended_use": "demo",
            "trained": False,
            **content,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build_network(card.network.id, card.network.kwargs)
    bundle = save_bundle(folder / card.name, card, network.state_dict())
    probability_DHW = Engine(bundle, "cpu", backend="eager").segment(images).probability_DHW.astype(np.float32)
    found = probability_DHW[probability_DHW > 0]
    threshold = float(np.clip(np.quantile(found, 1 - share), 0.001, 0.999))
    output = card.output.model_copy(update={"threshold": threshold})
    write_card(bundle.path, bundle.card.model_copy(update={"output": output}))
    return load_bundle(bundle.path)


@pytest.fixture(scope="module")
def phantoms() -> dict[str, Phantom]:
    return {condition: drawn(condition) for condition in ("pre-nact-t2wi", "ct-portal-venous")}


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return draw_pair(SEED, geometry=GEOMETRIES["ct-portal-venous"].resampled(SIDE, SIDE), lesion_count=2)


@pytest.fixture(scope="module")
def bundles(phantoms: Mapping[str, Phantom], pair: PhantomPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    mr, ct = (Fed(phantoms[name].image, *kind) for name, kind in (("pre-nact-t2wi", ("t2",)), ("ct-portal-venous", ())))
    crafted(folder, UNIFIED, {"image": mr}, 0.004)
    liver = crafted(folder, LIVER, {"image": ct}, 0.2)
    companion = Companion(bundle=liver.card.name, sha256=liver.sha256)
    crafted(folder, {**TUMOUR, "companions": {"liver": companion}}, {"image": ct}, 0.02)
    phases = {"portal-venous": pair.portal_venous, "arterial": pair.arterial}
    crafted(folder, GUIDED, {name: Fed(phase.image, "ct", name) for name, phase in phases.items()}, 0.004)
    return folder


@pytest.fixture(scope="module")
def walked(
    phantoms: Mapping[str, Phantom], pair: PhantomPair, bundles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedNode]:
    """A node with a route for each system that was sent one study for each, and has delivered."""
    folder = tmp_path_factory.mktemp("walk")
    results = {"protocol": "folder", "path": str(folder / "results"), "may_receive": True}
    config = write_config(
        folder,
        peers={"results": {**results, "accepts_demo_results": True}},
        bundles=bundles,
        deliver_to=["results"],
        own_routes=ROUTES,
    )
    with serving(config) as node:
        for condition, phantom in phantoms.items():
            files = write_series(phantom, folder / condition, study=study_of(condition, SEED))
            send(files, "127.0.0.1", node.port, "CRLM-PRE", "STORESCU")
        written = write_pair(pair, folder / PAIR, study=study_of(PAIR, SEED))
        send([path for files in written.values() for path in files], "127.0.0.1", node.port, "CRLM-PRE", "STORESCU")
        yield node


@pytest.mark.parametrize(
    ("condition", "bundle"),
    [("pre-nact-t2wi", "tiny-unified"), ("ct-portal-venous", "tiny-tumour"), (PAIR, "tiny-guided")],
)
def test_a_study_whose_route_names_the_systems_bundle_ends_as_segmentation_and_report(
    walked: ServedNode, condition: str, bundle: str
) -> None:
    (job,) = walked.wait_for_job(study_of(condition, SEED).study_instance_uid, ENDED, deadline_s=120)
    assert (job.state, job.order.bundle) == (JobState.COMMITTED, bundle), job.reason
    objects = {item.kind: dcmread(item.path) for item in walked.objects(job.job_id)}
    assert set(objects) == {"seg", "sr"}
    assert len(objects["seg"].SegmentSequence) == job.summary["lesion_count"] > 0


def test_the_report_of_two_phases_names_the_images_of_both_and_the_segmentation_those_of_one(
    walked: ServedNode,
) -> None:
    (job,) = walked.wait_for_job(study_of(PAIR, SEED).study_instance_uid, ENDED, deadline_s=120)
    objects = {item.kind: dcmread(item.path) for item in walked.objects(job.job_id)}
    read = {role: given.series_uid for role, given in job.order.inputs.items()}
    (evidence,) = objects["sr"].CurrentRequestedProcedureEvidenceSequence
    named = {series.SeriesInstanceUID for series in evidence.ReferencedSeriesSequence}
    assert named == {*read.values(), objects["seg"].SeriesInstanceUID}
    assert [item.SeriesInstanceUID for item in objects["seg"].ReferencedSeriesSequence] == [read["portal-venous"]]
