"""What cannot be analysed is told from what went wrong, and whoever asked for it gets a report that says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from model.phantom import GEOMETRIES, make_phantom
from model.training.demo_card import save_untrained_bundle
from node.analysis import Analysis, OfflineLedger
from node.bundles import bundle_card
from node.dicom.check import check_refusal
from node.dicom.header import read_header
from node.domain import GivenImage, Inference, InstanceRef, JobOrder, RoleInput, TimePoint
from node.errors import InferenceError, NodeError, ObjectError, VolumeRefusal
from simulator.modality import write_series
from tests.serving import write_config

CONDITION = "pre-nact-t2wi"
WHY = "3 slices; at least 8 are needed"


class Unable:
    """A network that answers nothing."""

    def __init__(self, error: NodeError) -> None:
        self._error = error

    def segment(self, bundle: Path, images: Mapping[str, GivenImage], out: Path) -> Inference:
        raise self._error


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    phantom = make_phantom(CONDITION, 910200, geometry=GEOMETRIES[CONDITION].resampled(32, 32))
    return write_series(phantom, tmp_path_factory.mktemp("t2"))


@pytest.fixture
def order(files: list[Path], tmp_path: Path) -> JobOrder:
    headers = [read_header(path) for path in files]
    refs = tuple(
        InstanceRef(header.SOPInstanceUID, header.SOPClassUID, path, f"{index:064x}")
        for index, (path, header) in enumerate(zip(files, headers, strict=True))
    )
    save_untrained_bundle(tmp_path / "bundles" / "demo-pre-nact-t2wi", CONDITION)
    return JobOrder(
        study_uid=headers[0].StudyInstanceUID,
        condition=CONDITION,
        route_revision="r1",
        bundle="demo-pre-nact-t2wi",
        bundle_sha256=bundle_card(tmp_path / "bundles" / "demo-pre-nact-t2wi").sha256,
        time_point=TimePoint.PRE,
        inputs={"image": RoleInput(headers[0].SeriesInstanceUID, refs)},
        deliver_to=(),
    )


@pytest.fixture
def analysis_with(order: JobOrder, tmp_path: Path) -> Callable[[NodeError], Analysis]:
    config = write_config(tmp_path, peers={}, bundles=tmp_path / "bundles", deliver_to=[])
    cards = {order.bundle: bundle_card(config.bundle_path(order.bundle))}
    ledger = OfflineLedger(datetime(2026, 1, 7, tzinfo=UTC))
    (tmp_path / "scratch").mkdir()
    return lambda error: Analysis(config, cards, Unable(error), ledger, tmp_path / "scratch")


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [(VolumeRefusal(WHY), "refused", False), (InferenceError("no answer within 600 s"), "failed", True)],
)
def test_a_refusal_of_the_images_is_no_failure_of_the_network(
    analysis_with: Any, order: JobOrder, tmp_path: Path, error: NodeError, status: str, retry: bool
) -> None:
    outcome = analysis_with(error).segment(order, tmp_path / "job")
    assert (outcome["status"], outcome["retry"], outcome["reason"]) == (status, retry, str(error))


def test_images_that_form_no_volume_are_refused(analysis_with: Any, order: JobOrder, tmp_path: Path) -> None:
    given = order.inputs["image"]
    gap = RoleInput(given.series_uid, given.instances[:5] + given.instances[9:])
    broken = JobOrder(**{**vars(order), "inputs": {"image": gap}})
    assert analysis_with(VolumeRefusal(WHY)).segment(broken, tmp_path / "job")["status"] == "refused"


def test_the_report_says_why(analysis_with: Any, order: JobOrder, tmp_path: Path) -> None:
    outcome = analysis_with(VolumeRefusal(WHY)).refuse(order, tmp_path / "job", WHY)
    (made,) = outcome["objects"]
    assert (outcome["status"], made["kind"], outcome["summary"]) == ("done", "refusal", {"not_analysed": WHY})
    assert f"Not analysed: {WHY}." in Path(made["path"]).read_bytes().decode(errors="replace")


def test_a_report_of_another_patient_does_not_pass(analysis_with: Any, order: JobOrder, tmp_path: Path) -> None:
    analysis = analysis_with(VolumeRefusal(WHY))
    (made,) = analysis.refuse(order, tmp_path / "job", WHY)["objects"]
    path = Path(made["path"])
    report = dcmread(path)
    report.PatientID = "SOMEBODY-ELSE"
    report.save_as(path)
    instances = order.inputs["image"].instances
    context = analysis._context(order, analysis._route(order), None)
    with pytest.raises(ObjectError, match="PatientID of the report"):
        check_refusal(path, context, instances, WHY)


def test_a_report_with_another_reason_does_not_pass(analysis_with: Any, order: JobOrder, tmp_path: Path) -> None:
    analysis = analysis_with(VolumeRefusal(WHY))
    (made,) = analysis.refuse(order, tmp_path / "job", WHY)["objects"]
    context = analysis._context(order, analysis._route(order), None)
    with pytest.raises(ObjectError, match="reason why nothing was analysed"):
        check_refusal(Path(made["path"]), context, order.inputs["image"].instances, "a gap of 10 mm")
