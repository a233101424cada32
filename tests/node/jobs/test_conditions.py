"""The ten conditions under which the durability library does what is asked of it, each by its number.

They are those of the architecture, section 2. Every one has failed somebody: a job that waited for ever, a live step
that ran twice, a worker that crashed a hundred times on one series.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import signal
import sqlite3
from collections.abc import Callable, Iterator

import dbos
import pytest

from node.database_deliveries import DeliveryState
from node.domain import PIPELINE_VERSION, JobState
from node.jobs_client import JobsClient
from node.jobs_sweep import POISON
from tests.node.jobs.house import House, Nursery, make_order, open_house

NEXT_VERSION = "2"


@pytest.fixture(scope="module")
def committed(
    tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None], nurseries: dict[str, Nursery]
) -> Iterator[tuple[House, str]]:
    """A house in which one job of 300 instances went to two peers, from the very first start on."""
    house = open_house(tmp_path_factory.mktemp("committed"), wait_until, nurseries)
    job = house.add(make_order(deliver_to=("archive", "second"), instances=300))
    house.start()
    house.wait_for(job, JobState.COMMITTED)
    yield house, job
    house.stop()


# --- 1: the pipeline version is pinned


def test_1_a_job_of_another_pipeline_version_is_restarted_from_its_order(house: House) -> None:
    house.tell("hold-segment")
    first = house.add(make_order())
    worker = house.start()
    house.wait_until(lambda: house.calls("segment"), "the first segmentation")
    worker.kill()
    house.untell("hold-segment")

    house.start(version=NEXT_VERSION)

    old = house.wait_for(first, JobState.SUPERSEDED)
    new = house.wait_for(old.reason.rpartition(" ")[2], JobState.COMMITTED)
    assert old.reason.startswith("pipeline version 2 took over from 1")
    assert (new.predecessor_job_id, new.pipeline_version) == (first, "2")
    assert new.order.inputs == old.order.inputs
    assert new.content_key != old.content_key, "another version makes another result"


def test_1_the_version_is_the_hand_bumped_one_and_not_a_digest_of_the_source(committed: tuple[House, str]) -> None:
    house, _ = committed
    versions = {row[0] for row in house.query("SELECT application_version FROM workflow_status")}
    assert versions == {PIPELINE_VERSION}


# --- 2: a stable executor id per process


def test_2_a_second_worker_leaves_the_live_job_of_the_first_alone(house: House) -> None:
    house.tell("hold-segment")
    held = house.add(make_order(1))
    house.start(index=0)
    house.wait_until(lambda: house.calls("segment"), "the first worker's segmentation")

    second = house.start(index=1)
    other = house.add(make_order(2))
    house.wait_until(lambda: len(house.calls("segment")) == 2, "the second worker's segmentation")
    house.untell("hold-segment")

    house.wait_for(held, JobState.COMMITTED)
    house.wait_for(other, JobState.COMMITTED)
    runs = [(subject, int(pid)) for pid, step, subject, what in house.call_log() if (step, what) == ("segment", "end")]
    assert sorted(subject for subject, _ in runs) == sorted([held, other]), "each ran once"
    assert dict(runs)[other] == second.pid


def test_2_the_executor_is_named_by_spool_and_index(committed: tuple[House, str]) -> None:
    house, _ = committed
    executors = {row[0] for row in house.query("SELECT executor_id FROM workflow_status")}
    assert executors == {f"{house.spool.spool_id}-0"}


# --- 3: SQLite in write-ahead-log mode


@pytest.mark.parametrize("name", ["node.sqlite", "dbos.sqlite"])
def test_3_the_sqlite_files_are_in_write_ahead_log_mode(committed: tuple[House, str], name: str) -> None:
    house, _ = committed
    connection = sqlite3.connect(house.config.spool_path / name)
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.close()
    assert mode == "wal"


# --- 4: portable serialization


def test_4_nothing_durable_is_pickled(committed: tuple[House, str]) -> None:
    house, job = committed
    kinds = {row[0] for row in house.query("SELECT serialization FROM workflow_status")}
    assert kinds == {"portable_json"}
    steps = house.query("SELECT output FROM operation_outputs WHERE output IS NOT NULL")
    assert steps
    assert all(isinstance(json.loads(row[0]), dict | str | type(None)) for row in steps)
    inputs = [json.loads(row[0]) for row in house.query("SELECT inputs FROM workflow_input")]
    assert {"positionalArgs": [job], "namedArgs": {}} in inputs


# --- 5: one workflow per series order, never one per instance


def test_5_a_job_of_300_instances_is_one_workflow_and_one_more_a_peer(committed: tuple[House, str]) -> None:
    house, job = committed
    rows = house.query("SELECT workflow_uuid, name FROM workflow_status ORDER BY workflow_uuid")
    assert {tuple(row) for row in rows} == {
        (job, "analyse"),
        (f"deliver:{job}:archive:1", "deliver"),
        (f"deliver:{job}:second:1", "deliver"),
    }


# --- 6: the jobs of a dead executor


def test_6_a_living_worker_takes_over_the_job_of_a_killed_one(house: House) -> None:
    house.tell("hold-segment")
    first, second = house.start(index=0), house.start(index=1)
    jobs = [house.add(make_order(number)) for number in (1, 2)]
    house.wait_until(lambda: len(house.calls("segment")) == 2, "a job at each worker")
    second.kill()
    house.untell("hold-segment")
    for job in jobs:
        house.wait_for(job, JobState.COMMITTED)
    ended = [int(pid) for pid, step, _, what in house.call_log() if (step, what) == ("segment", "end")]
    assert ended == [first.pid, first.pid]


def test_6_of_three_executors_on_postgresql_one_is_killed_and_all_20_jobs_end(postgres_house: House) -> None:
    house = postgres_house
    house.tell("hold-segment")
    workers = [house.ready(worker) for worker in [house.spawn(index=index) for index in range(3)]]
    jobs = [house.add(make_order(number)) for number in range(20)]
    house.wait_until(lambda: len(house.calls("segment")) == 3, "a job at each worker")
    workers[1].kill()
    house.untell("hold-segment")

    for job in jobs:
        house.wait_for(job, JobState.COMMITTED)
    begun = house.calls("segment")
    assert len(begun) == 21, "the killed one's job ran again, and no other"
    assert sorted(house.calls("deliver")) == ["archive"] * 20


def test_6_the_private_function_that_recovers_is_the_one_we_know() -> None:
    assert importlib.metadata.version("dbos").startswith("3.4."), "read its recovery anew before changing this"
    assert list(inspect.signature(dbos.DBOS._recover_pending_workflows).parameters) == ["executor_ids"]


# --- 7: two queues, quickly polled


def test_7_a_spool_has_two_queues_with_these_widths(committed: tuple[House, str]) -> None:
    house, _ = committed
    columns = (
        "name, worker_concurrency, concurrency, partition_concurrency, partition_worker_concurrency, "
        "polling_interval_sec"
    )
    assert {tuple(row) for row in house.query(f"SELECT {columns} FROM queues")} == {
        (f"segment@{house.spool.spool_id}", 1, None, None, None, 0.05),
        (f"deliver@{house.spool.spool_id}", None, None, None, 1, 0.05),
    }


# --- 8: one launch, by the worker alone; poison


def test_8_a_second_start_under_the_same_index_ends_with_exit_2_and_runs_nothing(house: House) -> None:
    house.tell("hold-segment")
    job = house.add(make_order())
    house.start()
    house.wait_until(lambda: house.calls("segment"), "the segmentation")

    second = house.spawn()
    assert second.wait() == 2
    assert "worker 0 of this spool is running already" in second.said
    house.untell("hold-segment")

    house.wait_for(job, JobState.COMMITTED)
    assert house.calls("segment") == [job]


def test_8_the_command_line_acts_beside_a_live_worker_without_running_its_steps(house: House) -> None:
    house.tell("hold-segment")
    job = house.add(make_order(1))
    house.start()
    house.wait_until(lambda: house.calls("segment"), "the segmentation")

    with JobsClient(house.config, house.database) as client:
        client.cancel(job)
        house.untell("hold-segment")
        again = client.retry(job)
        house.wait_for(again.job_id, JobState.COMMITTED)

    assert again.job_id == f"{again.content_key}-2"
    assert house.job(job).state == JobState.CANCELLED
    assert house.calls("segment") == [job, again.job_id]
    assert house.calls("encode") == [again.job_id], "the cancelled job's result was dropped"


def test_8_a_series_that_kills_the_worker_four_times_is_poison_and_others_go_on(house: House) -> None:
    house.tell("die-segment")
    poison = house.add(make_order(1))
    for _ in range(4):
        assert house.spawn().wait() == -signal.SIGKILL
    house.untell("die-segment")

    house.start()
    other = house.add(make_order(2))

    assert house.wait_for(poison, JobState.FAILED).reason == POISON
    house.wait_for(other, JobState.COMMITTED)
    assert house.calls("segment").count(poison) == 4


def test_8_recovered_jobs_go_back_to_their_queue_and_keep_its_width(house: House) -> None:
    house.tell("hold-segment")
    jobs = [house.add(make_order(number)) for number in range(3)]
    worker = house.start()
    house.wait_until(lambda: house.calls("segment"), "the first segmentation")
    worker.kill()
    house.untell("hold-segment")

    second = house.start()

    for job in jobs:
        house.wait_for(job, JobState.COMMITTED)
    steps = [what for pid, step, _, what in house.call_log() if step == "segment" and int(pid) == second.pid]
    assert steps == ["begin", "end"] * 3, "never two at once"


# --- 9: outcomes are returned, and replay as they were


def test_9_every_outcome_replays_after_a_kill_as_it_was(house: House) -> None:
    told = {
        "held": ({"status": "held", "reason": "two orientations"}, JobState.HELD, 1),
        "failed": ({"status": "failed", "reason": "no liver in the image"}, JobState.FAILED, 1),
        "superseded": ({"status": "superseded", "reason": "a better series came"}, JobState.SUPERSEDED, 1),
        "crash": (
            {"status": "failed", "retry": True, "reason": "the network's process was killed"},
            JobState.FAILED,
            3,
        ),
    }
    jobs: dict[str, str] = {}
    for number, (name, (answer, _, _)) in enumerate(told.items()):
        order = make_order(number)
        house.tell(f"answer-segment-{order.job_id}.json", json.dumps(answer))
        # the outcome is recorded, its consequence is not
        house.tell("die-before-end", order.job_id)
        jobs[name] = house.add(order)
        assert house.spawn().wait() == -signal.SIGKILL

    house.start()

    for name, job in jobs.items():
        answer, state, runs = told[name]
        assert house.wait_for(job, state).reason == answer["reason"]
        assert house.calls("segment").count(job) == runs, f"{name}: replayed, not run again"
    assert house.calls("encode") == []


# --- 10: the truth about deliveries is our table


def test_10_a_new_version_with_a_dead_pacs_strands_nothing(house: House) -> None:
    house.tell("peer-archive", "dead")
    house.tell("peer-second", "slow")
    job = house.add(make_order(deliver_to=("archive", "second")))
    worker = house.start()
    house.wait_for(job, JobState.SENDING)
    house.wait_until(lambda: house.deliveries(job)["archive"].attempts > 0, "a failed attempt")
    house.wait_until(lambda: "second" in house.calls("deliver"), "an attempt under way")
    worker.kill()
    house.tell("peer-archive", "alive")
    house.tell("peer-second", "alive")

    house.start(version=NEXT_VERSION)

    house.wait_for(job, JobState.COMMITTED)
    assert {delivery.state for delivery in house.deliveries(job).values()} == {DeliveryState.COMMITTED}
    assert house.calls("segment") == [job], "only the sending was left to do"
