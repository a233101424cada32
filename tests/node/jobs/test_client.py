"""What a person may ask of jobs, with no worker about: then only our own tables are there to be asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.config import load_config
from node.database import Database, utc_now
from node.database_deliveries import DeliveryState
from node.database_jobs import UnknownJob, job_of, record_objects, record_state
from node.delivery_records import plan_deliveries
from node.domain import JobState, ResultObject
from node.jobs_client import JobsClient, NotPossibleNow
from tests.node.jobs.house import PEERS, ROOT, House, make_order, open_house


@pytest.fixture
def quiet(tmp_path: Path, blank: Path) -> Iterator[House]:
    """A house without any worker."""
    house = open_house(tmp_path, lambda *_: None, {}, like=blank)
    yield house
    house.stop()


@pytest.fixture
def client(quiet: House) -> Iterator[JobsClient]:
    with JobsClient(quiet.config, quiet.database) as opened:
        yield opened


def _advance(house: House, job_id: str, *states: JobState, reason: str = "") -> None:
    with house.database.begin() as rows:
        for state in states:
            record_state(rows, job_id, state, reason)


def _withhold(house: House, job_id: str) -> None:
    """Bring a demo job as far as its deliveries, where it is held."""
    _advance(house, job_id, JobState.SEGMENTING, JobState.ENCODING)
    with house.database.begin() as rows:
        record_objects(rows, job_id, [ResultObject("seg", "1.2", f"2.25.{len(job_id)}", Path("/x"), "0" * 64)])
        plan_deliveries(rows, job_of(rows, job_id), house.config.peers, utc_now())


def test_jobs_are_listed_newest_first_and_by_state(quiet: House, client: JobsClient) -> None:
    first, second = quiet.add(make_order(1)), quiet.add(make_order(2), state=JobState.HELD)
    assert {job.job_id for job in client.list()} == {first, second}
    assert [job.job_id for job in client.list(states=[JobState.HELD])] == [second]
    assert [job.job_id for job in client.list(study_uid="1.2.3.1")] == [first]
    assert len(client.list(limit=1)) == 1


def test_an_unknown_job_is_said_to_be_unknown(client: JobsClient) -> None:
    with pytest.raises(UnknownJob, match="no job 17"):
        client.show("17")


def test_a_retry_is_the_next_run_with_another_id(quiet: House, client: JobsClient) -> None:
    job = quiet.add(make_order())
    _advance(quiet, job, JobState.FAILED, reason="no liver in the image")
    again = client.retry(job)
    assert (again.run, again.predecessor_job_id, again.state) == (2, job, JobState.QUEUED)
    assert again.job_id == f"{again.content_key}-2"
    assert quiet.job(job).state == JobState.FAILED, "what has ended stays as it ended"
    _advance(quiet, again.job_id, JobState.FAILED)
    assert client.retry(job).run == 3


def test_a_running_job_cannot_be_retried(quiet: House, client: JobsClient) -> None:
    job = quiet.add(make_order())
    with pytest.raises(NotPossibleNow, match="cancel it first"):
        client.retry(job)


@pytest.mark.parametrize("steps", [(), (JobState.SEGMENTING,), (JobState.HELD,)])
def test_a_job_that_waits_or_runs_can_be_cancelled(
    quiet: House, client: JobsClient, steps: tuple[JobState, ...]
) -> None:
    job = quiet.add(make_order())
    _advance(quiet, job, *steps)
    client.cancel(job)
    assert quiet.job(job).state == JobState.CANCELLED


def test_cancelling_ends_the_open_deliveries(quiet: House, client: JobsClient) -> None:
    job = quiet.add(make_order(deliver_to=("archive", "second")))
    _withhold(quiet, job)
    client.cancel(job)
    assert {d.state for d in quiet.deliveries(job).values()} == {DeliveryState.CANCELLED}


def test_a_job_that_has_ended_cannot_be_cancelled(quiet: House, client: JobsClient) -> None:
    job = quiet.add(make_order())
    _advance(quiet, job, JobState.FAILED)
    with pytest.raises(NotPossibleNow, match="it is failed"):
        client.cancel(job)


def test_a_job_held_before_its_analysis_is_queued_when_released(quiet: House, client: JobsClient) -> None:
    job = quiet.add(make_order(), state=JobState.HELD)
    assert client.release(job).job_id == job
    assert quiet.job(job).state == JobState.QUEUED


def test_a_job_held_midway_goes_on_as_its_next_run(quiet: House, client: JobsClient) -> None:
    job = quiet.add(make_order())
    _advance(quiet, job, JobState.SEGMENTING, JobState.HELD)
    again = client.release(job)
    assert again.run == 2
    assert quiet.job(job).state == JobState.SUPERSEDED


def test_a_demo_result_stays_held_until_the_peer_says_that_it_takes_it(quiet: House, client: JobsClient) -> None:
    job = quiet.add(make_order(), is_demo=True)
    _withhold(quiet, job)
    with pytest.raises(NotPossibleNow, match="still held: demo weights"):
        client.release(job)
    (quiet.config.folder / "peers.yaml").write_text(
        PEERS.replace("ae_title: ARCHIVE,", "ae_title: ARCHIVE, accepts_demo_results: true,")
    )
    told = load_config(quiet.config.folder, environment={})
    with JobsClient(told, quiet.database) as informed:
        assert informed.release(job).state == JobState.SENDING
    assert quiet.deliveries(job)["archive"].state == DeliveryState.WAITING


def test_a_job_that_is_not_held_cannot_be_released(quiet: House, client: JobsClient) -> None:
    job = quiet.add(make_order())
    with pytest.raises(NotPossibleNow, match="is not held"):
        client.release(job)


def test_listing_jobs_does_not_load_the_library_of_durability(quiet: House) -> None:
    quiet.add(make_order())
    program = (
        "import sys; from pathlib import Path; from node.config import load_config; "
        "from node.database import Database; from node.jobs_client import JobsClient; "
        f"config = load_config(Path({str(quiet.config.folder)!r}), environment={{}}); "
        "print(len(JobsClient(config, Database.open(config)).list())); "
        "print([name for name in ('dbos', 'torch', 'alembic') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "1\n[]\n"


def test_a_database_opened_twice_is_the_same(quiet: House) -> None:
    job = quiet.add(make_order())
    second = Database.open(quiet.config)
    with second.read() as rows:
        assert job_of(rows, job).order == make_order()
    second.close()
