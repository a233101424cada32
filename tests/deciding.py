"""A node's decisions without its processes: real spool and database, the simulator's archive, the test's own clock."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from model.card import TrainingStatement
from model.training.demo_card import draft_card
from node.assembly import Assembler
from node.bundles import BundleCard
from node.config import AssemblySettings, Config
from node.database import Database, utc_now
from node.database_history import lookups_of
from node.database_jobs import Job, list_jobs
from node.database_studies import list_studies
from node.deciding import ANSWER_PATIENCE_S, Deciding
from node.domain import JobState, SeriesKey
from node.history_lookup import HistoryLookUp
from node.orders import Orders
from node.spool import Spool, folder_name
from simulator.archive import Archive
from tests.serving import write_config

POST_BY_STAGING = {"keyword": "StudyDescription", "pattern": "before chemo", "days_before": [28, 200]}
POST_BY_STAGING |= {"time_point": "post"}
POST_BY_MR = {"keyword": "ModalitiesInStudy", "pattern": "MR", "days_before": [28, 200], "time_point": "post"}
SAME_VISIT = {"was": "pre", "days_before": [0, 3], "time_point": "pre"}
PRE_T2, POST_T2 = "pre-nact-t2wi", "post-nact-t2wi"


def instance(number: int = 0, **tags: Any) -> Dataset:
    """The header of an axial T2 slice of patient P-1 on 2026-06-01."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.9"
    dataset.PatientID, dataset.PatientName, dataset.StudyDate = "P-1", "Somebody^Else", "20260601"
    dataset.Modality, dataset.ImageType, dataset.BodyPartExamined = "MR", ["ORIGINAL", "PRIMARY"], "LIVER"
    dataset.SeriesDescription, dataset.ScanningSequence, dataset.ScanOptions = "t2 fs", "SE", "FS"
    dataset.EchoTime, dataset.RepetitionTime, dataset.PixelSpacing = "84", "4000", [1.5, 1.5]
    dataset.Rows = dataset.Columns = 8
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 7 * number]
    for keyword, told in tags.items():
        setattr(dataset, keyword, told)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def as_file(dataset: Dataset) -> bytes:
    """A Part-10 file."""
    file = BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


@dataclass
class Desk:
    """One spool with its database, whoever works on it, and a clock that only the test moves."""

    config: Config
    spool: Spool
    database: Database
    hands: list[float] = field(default_factory=lambda: [0.0])
    to_run: list[str] = field(default_factory=list)
    """Ids of the jobs that were to be enqueued."""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self, database: Database | None = None) -> None:
        """Everybody new, as after `kill -9`: what is known is what lies in spool and database."""
        database, begun = database or self.database, utc_now() - timedelta(seconds=self.hands[0])
        self.history = HistoryLookUp(
            self.config,
            self.spool,
            database,
            clock=lambda: self.hands[0],
            now=lambda: begun + timedelta(seconds=self.hands[0]),
        )
        self.orders = Orders(self.config, self.spool, database, _cards(self.config))
        assembler = Assembler(self.spool, AssemblySettings(series_quiet_s=0, study_quiet_s=0, gap_patience_s=0))
        enqueue = self.to_run.append
        self.deciding = Deciding(assembler, self.orders, self.history, database, enqueue, clock=lambda: self.hands[0])

    def receive(self, study_uid: str = "1.2.3", called_ae: str = "CRLM-NODE", **tags: Any) -> None:
        """A study of one T2 series comes in."""
        for number in range(12):
            dataset = instance(number, StudyInstanceUID=study_uid, SeriesInstanceUID=f"{study_uid}.4", **tags)
            dataset.file_meta.ReceivingApplicationEntityTitle = called_ae
            key = SeriesKey(folder_name(study_uid), folder_name(dataset.SeriesInstanceUID))
            folder = self.spool.series_folder(key)
            folder.mkdir(parents=True, exist_ok=True)
            dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
        self.spool.mark_dirty(key)

    def decide(self) -> None:
        """Let everybody work until nothing moves. Peers answer at once, where they answer."""
        for _ in range(20):
            self.deciding.step()
            self.ask()
            self.deciding.step()
            if not self.deciding.waiting() and not self.spool.dirty():
                return
        raise AssertionError("something moves for ever")

    def decide_unanswered(self) -> None:
        """As `decide`, but the peers take longer than a study waits for them."""
        self.deciding.step()
        self.pass_time(ANSWER_PATIENCE_S)
        self.deciding.step()

    def ask(self) -> int:
        """What the peers' threads do; returns how many questions were put."""
        return sum(self.history.ask(name) for name in self.config.asked_for_earlier_studies)

    def catch_up(self) -> int:
        """Decide anew what has to be, by a reminder; returns how many studies that were."""
        count = self.orders.remind()
        self.decide()
        return count

    def job(self, study_uid: str = "1.2.3") -> Job:
        """What the study's job is now."""
        with self.database.read() as rows:
            jobs = [job for job in list_jobs(rows, study_uid=study_uid) if job.state is not JobState.SUPERSEDED]
        (job,) = jobs
        return job

    def outcome(self, study_uid: str = "1.2.3") -> tuple[JobState, str]:
        job = self.job(study_uid)
        return job.state, job.condition

    def questions(self) -> int:
        """How many are open."""
        with self.database.read() as rows:
            return sum(
                not lookup.is_answer
                for study in list_studies(rows)
                for lookup in lookups_of(rows, study.study_uid).values()
            )

    def pass_time(self, seconds: float) -> None:
        self.hands[0] += seconds


@dataclass
class House:
    """Opens desks at one archive."""

    folder: Path
    archive: Archive
    desks: ExitStack

    def desk(
        self,
        *rules: Mapping[str, Any],
        tag_rules: tuple[Mapping[str, Any], ...] = (),
        more_peers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Desk:
        peers: dict[str, Mapping[str, Any]] = {
            "results": {"protocol": "folder", "path": str(self.folder / "results"), "may_receive": True},
            "pacs": {
                "ae_title": "ARCHIVE",
                "host": "127.0.0.1",
                "port": self.archive.port,
                "look_up_earlier_studies": True,
                "retry": {"first_s": 30, "factor": 2},
            },
            **(more_peers or {}),
        }
        time_point = {"earlier_studies": [dict(rule) for rule in rules], "tag_rules": [dict(r) for r in tag_rules]}
        config = write_config(
            self.folder,
            peers=peers,
            bundles=self.folder,
            deliver_to=["results"],
            node={"time_point": time_point},
        )
        database = Database.open(config)
        self.desks.callback(database.close)
        return Desk(config, Spool.open(config.spool_path), database)

    def archive_has(self, **tags: Any) -> None:
        """A study of the patient that the archive holds, 2026-04-01 unless another day is told."""
        told = {"StudyDate": "20260401", "StudyDescription": "MR staging before chemo", **tags}
        self.archive.shelf.keep(
            as_file(instance(StudyInstanceUID=generate_uid(), SeriesInstanceUID=generate_uid(), **told))
        )


def _cards(config: Config) -> dict[str, BundleCard]:
    statement = TrainingStatement(trained_on="phantom", description="none", cases=0, licence="Apache-2.0")
    return {
        route.bundle: BundleCard(draft_card(route.condition, training=statement, trained=False), Path(), route.bundle)
        for route in config.routes
    }
