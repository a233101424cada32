"""A complete study becomes jobs, and what a person says later changes them. Real spool, real database, no network."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from model.card import TrainingStatement
from model.phantom import GEOMETRIES, make_phantom
from model.training.demo_card import draft_card
from node.assembly import Assembler
from node.bundles import BundleCard
from node.config import AssemblySettings, Config
from node.database import Database, iso, moment_of, utc_now
from node.database_deliveries import DeliveryState, add_delivery, add_receipt
from node.database_jobs import Job, events_of, list_jobs, record_state
from node.database_studies import SeriesRow, list_studies, list_therapies, series_of_study, set_look_again
from node.domain import JobState, Receipt, SeriesKey, TimePoint
from node.jobs_client import JobsClient, NotPossibleNow
from node.operator import OperatorError, confirm_job, enter_therapies, retry_job, withdraw_therapy
from node.orders import Orders
from node.orders_jobs import IMAGES_GONE, REPLACED
from node.retrial import retry_since
from node.spool import Spool, folder_name
from node.tables import job_events, jobs, series
from node.timepoint import Therapy
from simulator.directions import ORTHOGONAL
from simulator.modality import study_of, write_series
from tests.serving import write_config

SMALL = GEOMETRIES["pre-nact-dwi"].resampled(32, 32)


@dataclass
class Desk:
    """A node's decisions without its processes."""

    config: Config
    spool: Spool
    database: Database
    orders: Orders
    assembler: Assembler

    def receive(self, files: list[Path], called_ae: str = "CRLM-NODE") -> None:
        """Put instances into the spool as the receiver does, and mark their series."""
        for path in files:
            dataset = dcmread(path)
            dataset.file_meta.ReceivingApplicationEntityTitle = called_ae
            key = SeriesKey(folder_name(dataset.StudyInstanceUID), folder_name(dataset.SeriesInstanceUID))
            folder = self.spool.series_folder(key)
            folder.mkdir(parents=True, exist_ok=True)
            dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm")
            self.spool.mark_dirty(key)

    def decide(self) -> list[str]:
        """Let the assembler look until nothing moves; the ids of jobs that may run."""
        to_run: list[str] = []
        for _ in range(3):
            for ready in self.assembler.step():
                to_run += self.orders.consider(ready)
                self.assembler.done(ready)
        return to_run

    def jobs(self, *states: JobState) -> list[Job]:
        with self.database.read() as rows:
            return list_jobs(rows, states=states)

    def series_known(self) -> list[SeriesRow]:
        with self.database.read() as rows:
            return [row for study in list_studies(rows) for row in series_of_study(rows, study.study_uid)]

    def therapy(self, therapy: Therapy) -> None:
        enter_therapies(self.spool, self.database, [therapy], default_issuer=self.config.node.site.patient_id_issuer)

    def withdraw(self) -> None:
        with self.database.read() as rows:
            (known,) = list_therapies(rows)
        withdraw_therapy(self.spool, self.database, known.therapy_id)

    def series(self) -> list[SeriesRow]:
        with self.database.read() as rows:
            return series_of_study(rows, self.jobs()[0].order.study_uid)

    def deliver(self, job: Job) -> None:
        """Write that a peer has the job's results."""
        with self.database.begin() as rows:
            for state in (JobState.SEGMENTING, JobState.ENCODING, JobState.SENDING):
                record_state(rows, job.job_id, state)
            add_delivery(rows, job.job_id, "results", state=DeliveryState.SENT, reason="", now=utc_now())
            add_receipt(rows, job.job_id, "results", 1, Receipt(True, False, "stored", stored=("2.25.1",)), utc_now())
            record_state(rows, job.job_id, JobState.COMMITTED)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Quiet periods of nothing, and the cards of demo bundles without their weights."""
    results = {"protocol": "folder", "path": str(tmp_path / "results"), "may_receive": True}
    config = write_config(tmp_path, peers={"results": results}, bundles=tmp_path, deliver_to=["results"])
    spool = Spool.open(config.spool_path)
    database = Database.open(config)
    settings = AssemblySettings(series_quiet_s=0, study_quiet_s=0, gap_patience_s=0)
    orders = Orders(config, spool, database, _cards(config))
    return Desk(config, spool, database, orders, Assembler(spool, settings))


def _cards(config: Config) -> Mapping[str, BundleCard]:
    statement = TrainingStatement(trained_on="phantom", description="none", cases=0, licence="Apache-2.0")
    return {
        route.bundle: BundleCard(draft_card(route.condition, training=statement, trained=False), Path(), route.bundle)
        for route in config.routes
    }


@pytest.fixture(scope="module")
def dwi(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A multi-b series, 30 slices at b = 0, 50 and 1000."""
    phantom = make_phantom("pre-nact-dwi", 910100, geometry=SMALL, b_values=(0.0, 50.0, 1000.0))
    return write_series(phantom, tmp_path_factory.mktemp("dwi"))


@pytest.fixture(scope="module")
def directions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """30 slices at b = 0, and three times 30 at b = 1000: directions, and no trace of them."""
    phantom = make_phantom("pre-nact-dwi", 910101, geometry=SMALL, b_values=(0.0, 1000.0))
    return write_series(phantom, tmp_path_factory.mktemp("directions"), directions=ORTHOGONAL)


def test_a_study_sent_to_the_pre_title_is_ordered_as_pre(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    to_run = desk.decide()
    (job,) = desk.jobs()
    assert (job.condition, job.state, to_run) == ("pre-nact-dwi", JobState.QUEUED, [job.job_id])
    assert job.order.time_point is TimePoint.PRE


def test_only_the_b1000_images_become_the_networks_input(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    (job,) = desk.jobs()
    given = job.order.inputs["image"]
    assert (len(given.instances), given.b_value_s_mm2) == (30, 1000)


def test_a_study_of_unknown_time_is_held_with_both_conditions_named(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi)
    assert desk.decide() == []
    (job,) = desk.jobs()
    assert (job.state, job.condition) == (JobState.HELD, "pre-nact-dwi or post-nact-dwi")
    assert "before or after chemotherapy" in job.reason


def test_a_persons_word_releases_a_held_study_as_what_it_was_said_to_be(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi)
    desk.decide()
    (held,) = desk.jobs()
    confirm_job(desk.config, desk.spool, desk.database, held.job_id, condition=None, time_point=TimePoint.POST)
    (to_run,) = desk.decide()
    (job,) = desk.jobs(JobState.QUEUED)
    assert (job.job_id, job.condition) == (to_run, "post-nact-dwi")
    assert [job.job_id for job in desk.jobs(JobState.SUPERSEDED)] == [held.job_id]


def test_a_word_that_leaves_the_question_open_is_not_taken(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi)
    desk.decide()
    (held,) = desk.jobs()
    with pytest.raises(OperatorError, match="--condition pre-nact-dwi or --condition post-nact-dwi"):
        confirm_job(desk.config, desk.spool, desk.database, held.job_id, condition=None, time_point=None)


def test_a_therapy_that_is_entered_later_decides_the_studies_it_touches(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi)
    desk.decide()
    header = dcmread(dwi[0], stop_before_pixels=True)
    therapy = Therapy.from_iso(
        patient_id=header.PatientID, issuer=header.IssuerOfPatientID, name="FOLFOX", start="2024-04-01"
    )
    assert enter_therapies(desk.spool, desk.database, [therapy], default_issuer="") == (1, 1)
    desk.decide()
    (job,) = desk.jobs(JobState.QUEUED)
    assert job.condition == "pre-nact-dwi"


def test_a_therapy_that_is_withdrawn_takes_the_decision_back(desk: Desk, dwi: list[Path]) -> None:
    header = dcmread(dwi[0], stop_before_pixels=True)
    therapy = Therapy.from_iso(
        patient_id=header.PatientID, issuer=header.IssuerOfPatientID, name="FOLFOX", start="2024-04-01"
    )
    enter_therapies(desk.spool, desk.database, [therapy], default_issuer="")
    desk.receive(dwi)
    desk.decide()
    withdraw_therapy(desk.spool, desk.database, 1)
    assert desk.decide() == []
    (held,) = desk.jobs(JobState.HELD)
    assert held.condition == "pre-nact-dwi or post-nact-dwi"


def test_considering_a_study_twice_makes_one_job(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    desk.receive([])
    for key in desk.spool.series_of(desk.spool.studies()[0]):
        desk.spool.mark_dirty(key)
    assert desk.decide() == []
    assert len(desk.jobs()) == 1


def test_a_late_slice_replaces_what_was_not_delivered(desk: Desk, dwi: list[Path]) -> None:
    early, late = _without_top(dwi)
    desk.receive(early, "CRLM-PRE")
    desk.decide()
    (first,) = desk.jobs()
    desk.receive(late, "CRLM-PRE")
    assert not desk.orders.is_current(first.order)
    (to_run,) = desk.decide()
    assert to_run != first.job_id
    assert [job.job_id for job in desk.jobs(JobState.SUPERSEDED)] == [first.job_id]
    (second,) = desk.jobs(JobState.QUEUED)
    assert len(second.order.inputs["image"].instances) == 30


def test_a_late_slice_after_delivery_makes_a_second_version_that_names_the_first(desk: Desk, dwi: list[Path]) -> None:
    early, late = _without_top(dwi)
    desk.receive(early, "CRLM-PRE")
    desk.decide()
    (first,) = desk.jobs()
    desk.deliver(first)
    desk.receive(late, "CRLM-PRE")
    desk.decide()
    (second,) = desk.jobs(JobState.QUEUED)
    assert second.predecessor_job_id == first.job_id
    assert [job.job_id for job in desk.jobs(JobState.COMMITTED)] == [first.job_id]


def test_an_image_that_adds_nothing_to_the_chosen_volume_leaves_the_job_as_it_is(desk: Desk, dwi: list[Path]) -> None:
    desk.receive([path for path in dwi if _b(path) != 50], "CRLM-PRE")
    desk.decide()
    (job,) = desk.jobs()
    desk.receive([path for path in dwi if _b(path) == 50], "CRLM-PRE")
    assert desk.decide() == []
    (same,) = desk.jobs()
    assert same.job_id == job.job_id
    assert desk.orders.is_current(same.order)


def test_a_series_that_lacks_a_slice_waits_for_a_person(desk: Desk, dwi: list[Path]) -> None:
    top = max((path for path in dwi if _b(path) == 1000), key=_z)
    desk.receive([path for path in dwi if path != top], "CRLM-PRE")
    assert desk.decide() == []
    (job,) = desk.jobs()
    assert (job.state, "1 of 30 slices missing" in job.reason) == (JobState.HELD, True), job.reason


def test_a_series_that_no_decision_ever_saw_is_looked_at_when_the_node_starts(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    for marker in (desk.spool.path / "dirty").iterdir():
        marker.unlink()
    assert desk.decide() == []
    assert desk.orders.reconcile() == 1
    assert len(desk.decide()) == 1
    assert desk.orders.reconcile() == 0


def test_a_lost_database_never_gives_a_result_that_was_made_before_another_content(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    (job,) = desk.jobs()
    desk.spool.job_folder(job.job_id)  # as its first step leaves it
    with desk.database.begin() as rows:
        for table in (job_events, series, jobs):
            rows.execute(table.delete())
    desk.orders.reconcile()
    (to_run,) = desk.decide()
    assert to_run == f"{job.content_key}-2"


def _without_top(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """All but the uppermost slice of each b-value, which nobody can know to be missing; and those."""
    top_z = max(map(_z, files))
    return [path for path in files if _z(path) < top_z], [path for path in files if _z(path) == top_z]


def _z(path: Path) -> float:
    return float(dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])


def _b(path: Path) -> float:
    dataset = dcmread(path, stop_before_pixels=True)
    return float(dataset.private_block(0x0043, "GEMS_PARM_01")[0x39].value[0]) % 1e9


def test_what_is_held_stays_held_when_it_comes_again_after_another_decision(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi)
    desk.decide()
    (held,) = desk.jobs()
    header = dcmread(dwi[0], stop_before_pixels=True)
    identity = {"patient_id": header.PatientID, "issuer": header.IssuerOfPatientID}
    desk.therapy(Therapy.from_iso(**identity, name="FOLFOX", start="2024-04-01"))
    desk.decide()
    desk.withdraw()
    assert desk.decide() == []
    latest = max(desk.jobs(), key=lambda job: job.created_at)
    assert (latest.content_key, latest.state, latest.reason) == (held.content_key, JobState.HELD, held.reason)


def test_results_at_a_peer_say_so_when_the_study_is_decided_otherwise(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    (first,) = desk.jobs()
    desk.deliver(first)
    desk.receive(dwi, "CRLM-POST")
    desk.decide()
    states = {job.condition: (job.state, job.reason) for job in desk.jobs()}
    assert states["pre-nact-dwi"] == (JobState.COMMITTED, f"results are at a peer, but {REPLACED}")
    assert states["post-nact-dwi"][0] is JobState.QUEUED


def test_a_job_that_waits_for_a_word_is_not_released_without_it(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi)
    desk.decide()
    (held,) = desk.jobs()
    with JobsClient(desk.config, desk.database) as jobs, pytest.raises(NotPossibleNow, match="jobs confirm"):
        jobs.release(held.job_id)
    assert [job.state for job in desk.jobs()] == [JobState.HELD]


def test_a_cancelled_job_that_waited_for_a_word_waits_again_when_retried(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi)
    desk.decide()
    (held,) = desk.jobs()
    with JobsClient(desk.config, desk.database) as jobs:
        jobs.cancel(held.job_id)
        assert "jobs confirm" in retry_job(desk.config, desk.spool, desk.database, jobs, held.job_id)
    (again,) = desk.jobs(JobState.HELD)
    confirm_job(desk.config, desk.spool, desk.database, again.job_id, condition=None, time_point=TimePoint.PRE)
    desk.decide()
    assert [job.condition for job in desk.jobs(JobState.QUEUED)] == ["pre-nact-dwi"]


def test_images_of_two_patients_in_one_series_are_refused(desk: Desk, dwi: list[Path], tmp_path: Path) -> None:
    desk.receive([*dwi[:-3], *(as_of(path, "ANOTHER", tmp_path) for path in dwi[-3:])], "CRLM-PRE")
    assert desk.decide() == []
    (row,) = desk.series_known()
    assert "several patients under one Series" in row.reason


def test_a_study_with_series_of_two_patients_waits_for_a_person(desk: Desk, dwi: list[Path], tmp_path: Path) -> None:
    other = [as_of(path, "ANOTHER", tmp_path, series=generate_uid(prefix="1.2.3.")) for path in dwi[:1]]
    desk.receive([*dwi, *other], "CRLM-PRE")
    assert desk.decide() == []
    (job,) = desk.jobs()
    assert (job.state, "several patients under one Study" in job.reason) == (JobState.HELD, True)


def as_of(path: Path, patient_id: str, folder: Path, series: str | None = None) -> Path:
    """The same image as another patient's, and of another series if one is named."""
    dataset = dcmread(path)
    dataset.PatientID = patient_id
    if series:
        dataset.SeriesInstanceUID = series
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.save_as(folder / path.name)
    return folder / path.name


# --- what a changed configuration would have decided


def test_the_same_configuration_would_decide_the_same(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    (told,) = retry_since(desk.config, desk.spool, desk.database, utc_now() - timedelta(days=1))
    assert told.after is not None
    assert (told.is_changed, told.before.condition, told.after.condition) == (False, "pre-nact-dwi", "pre-nact-dwi")


def test_a_changed_route_shows_what_it_would_have_decided_otherwise(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    routes = tuple(route for route in desk.config.routes if route.condition != "pre-nact-dwi")
    changed = dataclasses.replace(desk.config, routes=routes)
    (told,) = retry_since(changed, desk.spool, desk.database, utc_now() - timedelta(days=1))
    assert told.is_changed
    assert told.after is not None
    assert (told.before.decision, told.after.decision) == ("accept", "refuse")
    assert [job.state for job in desk.jobs()] == [JobState.QUEUED]  # nothing was written


def test_only_studies_of_the_period_are_tried_again(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    assert not list(retry_since(desk.config, desk.spool, desk.database, utc_now() + timedelta(hours=1)))


def test_a_series_whose_images_are_gone_is_told_as_such(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    (key,) = desk.spool.series_of(desk.spool.studies()[0])
    shutil.rmtree(desk.spool.series_folder(key))
    (told,) = retry_since(desk.config, desk.spool, desk.database, utc_now() - timedelta(days=1))
    assert (told.after, told.is_changed) == (None, False)


# --- what an archive takes back


def rejection_note(folder: Path, images: list[Path], title: str) -> Path:
    """A Key Object Selection of the images' study with a document title of PS3.16 CID 7010."""
    first = dcmread(images[0], stop_before_pixels=True)
    note = Dataset()
    note.file_meta = FileMetaDataset()
    note.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    note.SOPClassUID = note.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.59"
    note.SOPInstanceUID = note.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    note.StudyInstanceUID, note.SeriesInstanceUID = first.StudyInstanceUID, generate_uid()
    note.PatientID, note.PatientName, note.Modality = first.PatientID, first.PatientName, "KO"
    code, series, study = Dataset(), Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = title, "DCM", "as the standard says"
    note.ConceptNameCodeSequence = [code]
    listed = []
    for path in images:
        dataset, item = dcmread(path, stop_before_pixels=True), Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
        listed.append(item)
    series.SeriesInstanceUID, series.ReferencedSOPSequence = first.SeriesInstanceUID, listed
    study.StudyInstanceUID, study.ReferencedSeriesSequence = first.StudyInstanceUID, [series]
    note.CurrentRequestedProcedureEvidenceSequence = [study]
    path = folder / f"{note.SOPInstanceUID}.dcm"
    note.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("title", ["113001", "113037", "113038", "113039"])
def test_a_series_that_its_archive_rejects_is_not_analysed(
    desk: Desk, dwi: list[Path], tmp_path: Path, title: str
) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    desk.receive([rejection_note(tmp_path, dwi[-3:], title)], "CRLM-PRE")
    assert desk.decide() == []
    (job,) = desk.jobs()
    assert job.state is JobState.CANCELLED
    assert "key object note" in job.reason
    told = [reason["what"] for row in desk.series() for volume in row.explanation for reason in volume["reasons"]]
    assert job.reason in told


def test_a_delivered_result_says_so_when_another_image_comes_under_one_of_its_uids(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    (job,) = desk.jobs()
    desk.deliver(job)
    (key,) = (key for study in desk.spool.studies() for key in desk.spool.series_of(study))
    # as the receiver keeps what comes a second time
    again = desk.spool.path / "repeats" / key.marker / f"{dcmread(dwi[-1]).SOPInstanceUID}~0123456789ab.dcm"
    again.parent.mkdir()
    other = dcmread(dwi[-1])
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(again)
    desk.spool.mark_dirty(key)
    desk.decide()
    (marked,) = desk.jobs()
    assert (marked.state, marked.job_id) == (JobState.COMMITTED, job.job_id)
    assert marked.reason.startswith("results are at a peer, but two images under one SOP Instance UID")


def test_the_margin_is_kept_with_the_explanation(desk: Desk, dwi: list[Path]) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    (row,) = desk.series()
    assert [(told["decision"], told["margin"]) for told in row.explanation if told["condition"]] == [("accept", 1)]


def test_a_mean_over_directions_is_ordered_with_all_of_its_images(desk: Desk, directions: list[Path]) -> None:
    desk.receive(directions, "CRLM-PRE")
    desk.decide()
    (job,) = desk.jobs()
    given = job.order.inputs["image"]
    assert [len(direction) for direction in given.directions] == [30, 30, 30]
    assert len({item.sop_instance_uid for item in given.every_instance}) == 90


def test_a_mean_over_directions_is_not_analysed_when_its_archive_rejects_one_of_them(
    desk: Desk, directions: list[Path], tmp_path: Path
) -> None:
    desk.receive(directions, "CRLM-PRE")
    desk.decide()
    desk.receive([rejection_note(tmp_path, directions[-3:], "113001")], "CRLM-PRE")
    assert desk.decide() == []
    assert [job.state for job in desk.jobs()] == [JobState.CANCELLED]


def test_a_note_that_only_points_at_images_takes_nothing_back(desk: Desk, dwi: list[Path], tmp_path: Path) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    desk.receive([rejection_note(tmp_path, dwi[-3:], "113000")], "CRLM-PRE")
    desk.decide()
    assert [job.state for job in desk.jobs()] == [JobState.QUEUED]


def test_a_delivered_result_whose_images_are_rejected_says_so(desk: Desk, dwi: list[Path], tmp_path: Path) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    (job,) = desk.jobs()
    desk.deliver(job)
    desk.receive([rejection_note(tmp_path, dwi, "113037")], "CRLM-PRE")
    for _ in range(2):  # looked at again, it is said no second time
        desk.spool.mark_dirty(desk.spool.series_of(desk.spool.studies()[0])[0])
        desk.decide()
    (marked,) = desk.jobs()
    assert (marked.state, marked.job_id) == (JobState.COMMITTED, job.job_id)
    assert marked.reason.startswith("results are at a peer, but a key object note rejects it")
    with desk.database.read() as rows:
        assert [event.reason for event in events_of(rows, job.job_id)].count(marked.reason) == 1


# --- a route with several roles


@pytest.fixture(scope="module")
def t2(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A T2-weighted series of the same study."""
    geometry = GEOMETRIES["pre-nact-t2wi"].resampled(32, 32)
    phantom = make_phantom("pre-nact-t2wi", 910100, geometry=geometry)
    study = study_of("pre-nact-dwi", 910100)
    return write_series(phantom, tmp_path_factory.mktemp("t2"), study=study, series_number=9)


@pytest.fixture
def pair_desk(desk: Desk) -> Desk:
    """Its first route wants DWI and T2WI of one study, the next T2WI alone."""
    dwi_route, t2_route = (desk.config.route(name) for name in ("pre-nact-dwi", "pre-nact-t2wi"))
    assert dwi_route is not None
    assert t2_route is not None
    needs = {"dwi": dwi_route.needs["image"], "t2": t2_route.needs["image"]}
    both = dwi_route.model_copy(update={"condition": "pair", "needs": needs})
    config = dataclasses.replace(desk.config, routes=(both, t2_route))
    orders = Orders(config, desk.spool, desk.database, _cards(desk.config))
    return dataclasses.replace(desk, config=config, orders=orders)


def make_older(desk: Desk, seconds: float) -> None:
    """As if all that is there had come so much earlier."""
    for path in desk.spool.path.glob("series/*/*/*.dcm"):
        at = path.stat().st_mtime - seconds
        os.utime(path, (at, at))
    with desk.database.begin() as rows:
        for study in list_studies(rows):
            if study.look_again_at:
                earlier = iso(moment_of(study.look_again_at) - timedelta(seconds=seconds))
                set_look_again(rows, study.study_uid, earlier)


def test_half_a_pair_is_waited_for_and_then_taken_together(pair_desk: Desk, dwi: list[Path], t2: list[Path]) -> None:
    pair_desk.receive(t2, "CRLM-PRE")
    assert pair_desk.decide() == []
    assert pair_desk.orders.remind() == 0
    pair_desk.receive(dwi, "CRLM-PRE")
    assert len(pair_desk.decide()) == 1
    (job,) = pair_desk.jobs()
    assert (job.condition, set(job.order.inputs)) == ("pair", {"dwi", "t2"})


def test_patience_over_the_half_goes_to_the_route_that_wants_no_more(pair_desk: Desk, t2: list[Path]) -> None:
    pair_desk.receive(t2, "CRLM-PRE")
    pair_desk.decide()
    make_older(pair_desk, 901)
    assert pair_desk.orders.remind() == 1
    assert len(pair_desk.decide()) == 1
    assert [(job.condition, job.state) for job in pair_desk.jobs()] == [("pre-nact-t2wi", JobState.QUEUED)]
    assert pair_desk.orders.remind() == 0


def test_the_other_half_that_comes_late_replaces_what_was_ordered_without_it(
    pair_desk: Desk, dwi: list[Path], t2: list[Path]
) -> None:
    pair_desk.receive(t2, "CRLM-PRE")
    make_older(pair_desk, 901)
    pair_desk.decide()
    pair_desk.receive(dwi, "CRLM-PRE")
    pair_desk.decide()
    states = {job.condition: job.state for job in pair_desk.jobs()}
    assert states == {"pre-nact-t2wi": JobState.SUPERSEDED, "pair": JobState.QUEUED}


def test_the_past_is_tried_with_patience_over(pair_desk: Desk, t2: list[Path]) -> None:
    pair_desk.receive(t2, "CRLM-PRE")
    pair_desk.decide()
    make_older(pair_desk, 901)
    (told,) = retry_since(pair_desk.config, pair_desk.spool, pair_desk.database, utc_now() - timedelta(days=1))
    assert told.after is not None
    assert (told.before.decision, told.after.decision) == ("refuse", "accept")


def test_an_image_that_no_role_wants_prolongs_no_patience(pair_desk: Desk, t2: list[Path], tmp_path: Path) -> None:
    pair_desk.receive(t2, "CRLM-PRE")
    make_older(pair_desk, 901)
    pair_desk.decide()
    phantom = make_phantom("pre-nact-t2wi", 910100, geometry=GEOMETRIES["pre-nact-t2wi"].resampled(32, 32))
    study = study_of("pre-nact-dwi", 910100)
    pair_desk.receive(write_series(phantom, tmp_path, study=study, series_number=11, twin="localizer"), "CRLM-PRE")
    pair_desk.decide()
    assert [(job.condition, job.state) for job in pair_desk.jobs()] == [("pre-nact-t2wi", JobState.QUEUED)]


def test_the_other_half_that_comes_after_a_delivery_waits_for_a_person(
    pair_desk: Desk, dwi: list[Path], t2: list[Path]
) -> None:
    pair_desk.receive(t2, "CRLM-PRE")
    make_older(pair_desk, 901)
    pair_desk.decide()
    (alone,) = pair_desk.jobs()
    pair_desk.deliver(alone)
    pair_desk.receive(dwi, "CRLM-PRE")
    assert pair_desk.decide() == []
    both = next(job for job in pair_desk.jobs() if job.condition == "pair")
    assert (both.state, both.predecessor_job_id) == (JobState.HELD, alone.job_id)
    assert both.reason.startswith("a better series came after a result was delivered")


def test_what_waits_to_replace_a_delivered_result_is_not_released_by_another_look(
    pair_desk: Desk, dwi: list[Path], t2: list[Path]
) -> None:
    pair_desk.receive(t2, "CRLM-PRE")
    make_older(pair_desk, 901)
    pair_desk.decide()
    pair_desk.deliver(pair_desk.jobs()[0])
    pair_desk.receive(dwi, "CRLM-PRE")
    pair_desk.decide()
    pair_desk.spool.mark_study(pair_desk.spool.studies()[0])
    assert pair_desk.decide() == []
    assert next(job for job in pair_desk.jobs() if job.condition == "pair").state is JobState.HELD


def test_a_node_leaves_the_patience_of_another_nodes_study_alone(
    pair_desk: Desk, t2: list[Path], tmp_path: Path
) -> None:
    pair_desk.receive(t2, "CRLM-PRE")
    pair_desk.decide()
    make_older(pair_desk, 901)
    neighbour = Orders(pair_desk.config, Spool.open(tmp_path / "neighbour"), pair_desk.database, {})
    assert neighbour.remind() == 0
    assert pair_desk.orders.remind() == 1


def test_a_study_whose_images_have_left_the_spool_waits_no_longer_and_is_asked_about_once(
    pair_desk: Desk, t2: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    pair_desk.receive(t2, "CRLM-PRE")
    pair_desk.decide()
    (waiting,) = pair_desk.series_known()
    assert "pair waits for its other roles" in waiting.reason
    make_older(pair_desk, 901)
    for path in pair_desk.spool.path.glob("series/*/*/*.dcm"):
        path.unlink()  # the folders stay, as after a tidying hand
    for _ in range(3):
        assert pair_desk.orders.remind() == 0
    assert [record.getMessage() for record in caplog.records].count(IMAGES_GONE) == 1
    (ended,) = pair_desk.series_known()
    assert ended.reason == IMAGES_GONE


def test_a_study_that_left_the_spool_and_comes_again_is_decided_as_a_new_one(pair_desk: Desk, t2: list[Path]) -> None:
    pair_desk.receive(t2, "CRLM-PRE")
    pair_desk.decide()
    make_older(pair_desk, 901)
    for folder in pair_desk.spool.path.glob("series/*"):
        shutil.rmtree(folder)
    pair_desk.orders.remind()
    pair_desk.receive(t2, "CRLM-PRE")
    make_older(pair_desk, 901)
    assert len(pair_desk.decide()) == 1


def test_a_held_job_whose_images_are_gone_ends_and_begins_anew_when_they_come_again(desk: Desk, t2: list[Path]) -> None:
    desk.receive(t2, "CRLM-NODE")
    desk.decide()
    (held,) = desk.jobs()
    with desk.database.begin() as rows:
        set_look_again(rows, held.study_uid, iso(utc_now()))
    for folder in desk.spool.path.glob("series/*"):
        shutil.rmtree(folder)
    desk.orders.remind()
    (ended,) = desk.jobs()
    assert (ended.state, ended.reason) == (JobState.SUPERSEDED, IMAGES_GONE)
    desk.receive(t2, "CRLM-NODE")
    desk.decide()
    assert sorted((job.run, job.state) for job in desk.jobs()) == [(1, JobState.SUPERSEDED), (2, JobState.HELD)]


# --- after a report that a series could not be analysed


def test_a_repeated_series_is_analysed_though_a_refusal_was_reported(
    desk: Desk, dwi: list[Path], tmp_path: Path
) -> None:
    desk.receive(dwi, "CRLM-PRE")
    desk.decide()
    (refused,) = desk.jobs()
    with desk.database.begin() as rows:
        rows.execute(jobs.update().values(summary={"not_analysed": "a gap of 10 mm"}))
    desk.deliver(refused)
    phantom = make_phantom("pre-nact-dwi", 910100, geometry=SMALL, b_values=(0.0, 50.0, 1000.0))
    desk.receive(write_series(phantom, tmp_path, series_number=30), "CRLM-PRE")
    assert len(desk.decide()) == 1
    repeat = next(job for job in desk.jobs() if job.job_id != refused.job_id)
    assert (repeat.state, repeat.predecessor_job_id) == (JobState.QUEUED, None)
    assert next(job for job in desk.jobs() if job.job_id == refused.job_id).reason == ""
