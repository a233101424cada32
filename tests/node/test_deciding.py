"""Studies on their way to a decision: none waits for another's peer, and none is lost wherever the process dies."""

from __future__ import annotations

import itertools
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from node.assembly import WaitingSeries
from node.database import Database, Rows, create_database_engine
from node.database_history import lookups_of
from node.database_jobs import list_jobs
from node.domain import JobState, SeriesKey
from node.history_lookup import ANSWER_HOLDS
from node.spool import folder_name
from tests.deciding import POST_BY_STAGING, POST_T2, PRE_T2, Desk, House

OPEN = (JobState.HELD, f"{PRE_T2} or {POST_T2}")


# --- a peer that hangs


@pytest.fixture
def hanging() -> Iterator[dict[str, Any]]:
    """A peer that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {
            "ae_title": "HUNG",
            "host": "127.0.0.1",
            "port": server.getsockname()[1],
            "look_up_earlier_studies": True,
            "timeout_s": 60,
        }


@pytest.fixture
def asking(house: House, hanging: dict[str, Any]) -> Iterator[Desk]:
    """A desk whose threads ask two peers: an archive that answers, and one that hangs."""
    house.archive_has()
    desk = house.desk(POST_BY_STAGING, more_peers={"hung": hanging})
    desk.history.start()
    yield desk
    desk.history.close()


def test_a_peer_that_hangs_delays_no_order_of_another_study(asking: Desk) -> None:
    began_s = time.monotonic()
    asking.receive("1.2.1")
    asking.deciding.step()
    asking.receive("1.2.2", called_ae="CRLM-PRE", PatientID="P-2")
    asking.deciding.step()
    assert asking.outcome("1.2.2") == (JobState.QUEUED, PRE_T2)
    assert asking.to_run == [asking.job("1.2.2").job_id]
    assert [series.key.study for series in asking.deciding.waiting()] == [folder_name("1.2.1")]
    assert time.monotonic() - began_s < asking.config.asked_for_earlier_studies["hung"].timeout_s / 4


def test_a_study_that_a_peer_leaves_waiting_is_held_with_that_reason(
    asking: Desk, wait_until: Callable[..., None]
) -> None:
    asking.receive()
    asking.deciding.step()
    wait_until(lambda: lookup_of(asking, "pacs").is_answer, "the answer of the peer that does not hang")
    asking.pass_time(14)
    asking.deciding.step()
    assert jobs_of(asking) == [], "its patience is not over"
    asking.pass_time(1)
    asking.deciding.step()
    assert asking.outcome() == OPEN
    assert "earlier studies could not be looked up: hung: it has not answered yet" in asking.job().reason
    assert asking.deciding.waiting() == []


# --- patience


def test_an_answer_in_time_decides_the_study_at_once(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.deciding.step()
    assert desk.deciding.waiting() == [
        WaitingSeries(series.key, 12, "earlier studies are being looked up") for series in desk.deciding.waiting()
    ]
    assert (len(desk.deciding.waiting()), jobs_of(desk)) == (1, [])
    desk.ask()
    desk.deciding.step()
    assert [(job.state, job.condition) for job in jobs_of(desk)] == [(JobState.QUEUED, POST_T2)]
    assert desk.catch_up() == 0, "nothing is left to be decided anew"


def test_an_answer_that_comes_late_has_the_study_decided_anew(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.decide_unanswered()
    assert desk.outcome() == OPEN
    assert "pacs: it has not answered yet" in desk.job().reason
    assert desk.ask() == 1
    assert desk.catch_up() == 1
    assert desk.outcome() == (JobState.QUEUED, POST_T2)
    assert desk.catch_up() == 0


def test_a_late_answer_that_tells_nothing_new_is_asked_for_once(house: House) -> None:
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.decide_unanswered()
    assert desk.ask() == 1
    desk.catch_up()
    assert "nobody told" in desk.job().reason
    assert (desk.ask(), desk.catch_up()) == (0, 0)


def test_a_late_failure_replaces_the_reason_and_a_second_one_like_it_nothing(house: House) -> None:
    desk = house.desk(POST_BY_STAGING)
    house.archive.offline = True
    desk.receive()
    desk.decide_unanswered()
    desk.ask()
    assert desk.catch_up() == 1
    assert "pacs: ARCHIVE@127.0.0.1" in desk.job().reason
    desk.pass_time(30)
    assert desk.ask() == 1
    assert desk.catch_up() == 0


def test_an_answer_that_comes_between_reading_and_writing_has_the_study_decided_anew(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    answers = desk.history
    # the study, the question, the decision
    desk.restart(Interrupted.of(desk.database, before_write=3, call=lambda: answers.ask("pacs")))
    desk.decide_unanswered()
    assert desk.outcome() == OPEN
    desk.restart()
    assert desk.catch_up() == 1
    assert desk.outcome() == (JobState.QUEUED, POST_T2)


def test_a_newer_version_of_a_study_that_waits_takes_its_place(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.deciding.step()
    first = instances_of(desk)
    for path in first:
        path.unlink()
    desk.receive()  # the same slices under other UIDs
    desk.decide()
    (job,) = jobs_of(desk)
    assert {item.path for given in job.order.inputs.values() for item in given.every_instance} == set(
        instances_of(desk)
    )
    assert desk.orders.is_current(job.order)


def test_a_question_about_images_that_are_gone_is_not_asked(house: House) -> None:
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.decide_unanswered()
    shutil.rmtree(desk.spool.path / "series" / folder_name("1.2.3"))
    assert desk.ask() == 0
    assert desk.questions() == 0


def test_a_peer_that_is_asked_no_more_leaves_no_study_held(house: House) -> None:
    desk = house.desk(POST_BY_STAGING)
    house.archive.offline = True
    desk.receive()
    desk.decide()
    desk.config = replace(desk.config, peers={"results": desk.config.peers["results"]})
    desk.restart()
    desk.history.start()
    assert desk.catch_up() == 1
    assert "nobody told" in desk.job().reason
    assert desk.questions() == 0


def test_an_answer_is_renewed_when_it_is_old_and_the_study_is_looked_at_again(house: House) -> None:
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.decide()
    house.archive_has()
    for passed_s, outcome in ((ANSWER_HOLDS.total_seconds() - 1, OPEN), (2, (JobState.QUEUED, POST_T2))):
        desk.pass_time(passed_s)
        desk.spool.mark_study(folder_name("1.2.3"))
        desk.decide()
        assert desk.outcome() == outcome


# --- what a process may die of


def test_a_study_whose_headers_fail_us_is_tried_three_times_and_stops_no_other(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = house.desk()
    reads = desk.orders.read
    failing = folder_name("1.2.1")

    def read(ready: Any) -> Any:
        if ready.study_key == failing:
            raise ValueError("a header that nobody foresaw")
        return reads(ready)

    monkeypatch.setattr(desk.orders, "read", read)
    desk.receive("1.2.1")
    desk.receive("1.2.2", called_ae="CRLM-PRE", PatientID="P-2")
    desk.decide()
    assert desk.outcome("1.2.2") == (JobState.QUEUED, PRE_T2)
    said = [record.getMessage() for record in caplog.records]
    assert said.count("study not decided") == 3
    assert said.count("study left undecided until it moves again") == 1


def test_a_database_that_is_away_counts_against_no_study(house: House, free_port: int) -> None:
    desk = house.desk()
    desk.receive(called_ae="CRLM-PRE")
    away = Database(create_database_engine(f"postgresql+psycopg://crlm@127.0.0.1:{free_port}/crlm"))
    desk.restart(away)
    for _ in range(5):
        desk.deciding.step()
        with pytest.raises(OperationalError):
            desk.orders.remind()
    assert [series.reason for series in desk.deciding.waiting()] == ["waits for the database"]
    away.close()
    desk.restart()
    desk.decide()
    assert desk.outcome() == (JobState.QUEUED, PRE_T2)


class Killed(BaseException):
    """As `kill -9` at that line: nobody catches it, nothing after it is done."""


@dataclass(frozen=True)
class Interrupted(Database):
    """The same database, and something that happens at its n-th transaction."""

    moments: Callable[[str], None] = lambda moment: None

    @classmethod
    def of(cls, database: Database, before_write: int, call: Callable[[], object]) -> Interrupted:
        """Calls once, before that transaction which writes, counted from one."""
        numbers = itertools.count(1)
        return cls(
            database.engine,
            database.outage,
            lambda moment: call() if moment == "before a write" and next(numbers) == before_write else None,
        )

    @classmethod
    def killed_at(cls, database: Database, moment: int) -> Interrupted:
        """Dies at that moment, counted from one: before, at the end of, or after a transaction."""
        numbers = itertools.count(1)

        def die(_: str) -> None:
            if next(numbers) >= moment:
                raise Killed

        return cls(database.engine, database.outage, die)

    @contextmanager
    def begin(self) -> Iterator[Rows]:
        self.moments("before a write")
        with super().begin() as rows:
            yield rows
            self.moments("uncommitted")
        self.moments("committed")


@pytest.mark.parametrize("is_late", [False, True], ids=["in time", "late"])
def test_wherever_the_process_dies_the_study_is_asked_about_and_ordered_once(house: House, is_late: bool) -> None:
    desk = house.desk(POST_BY_STAGING)
    for moment in itertools.count(1):
        study_uid, patient = f"1.2.{moment}", f"P-{moment}"
        house.archive_has(PatientID=patient)
        desk.receive(study_uid, PatientID=patient)
        desk.restart(Interrupted.killed_at(desk.database, moment))
        try:
            if is_late:
                desk.decide_unanswered()
            desk.decide()
            desk.catch_up()
        except Killed:
            is_killed = True
        else:
            is_killed = False
        desk.restart()
        desk.decide()
        desk.catch_up()
        assert desk.outcome(study_uid) == (JobState.QUEUED, POST_T2), f"killed at moment {moment}"
        assert lookup_of(desk, "pacs", study_uid).is_answer
        assert desk.catch_up() == 0
        if not is_killed:
            break
    assert moment > 12, "four transactions at least, and three moments in each"


def instances_of(desk: Desk) -> list[Path]:
    return list(desk.spool.instances(SeriesKey(folder_name("1.2.3"), folder_name("1.2.3.4"))))


def lookup_of(desk: Desk, peer: str, study_uid: str = "1.2.3") -> Any:
    with desk.database.read() as rows:
        return lookups_of(rows, study_uid)[peer]


def jobs_of(desk: Desk) -> Any:
    with desk.database.read() as rows:
        return list_jobs(rows)
