"""What goes where, and when again: decisions first, then their course in the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.config_peers import DimsePeer, FolderPeer, OrthancPeer, ResultProfile, Retry
from node.database import Database, iso, moment_of
from node.database_deliveries import (
    CommitmentState,
    Delivery,
    DeliveryState,
    ReceiptRecord,
    commitment_of,
    commitments_of,
    deliveries_of,
    due_commitments,
    receipts_of,
)
from node.database_jobs import add_job, job_of, record_objects, record_state
from node.delivery import (
    BREAKER_FAILURES,
    KEPT,
    Peers,
    after_receipt,
    has_answered,
    is_circuit_open,
    next_probe_at,
    objects_for,
    plan,
    refusals,
    verdict,
    wants_commitment,
    withheld,
)
from node.delivery_records import (
    apply_commitment_report,
    begin_attempt,
    due,
    is_begun,
    pass_deadline,
    plan_deliveries,
    requested_objects,
    settle_attempt,
    settle_request,
    supersede,
)
from node.domain import JobState, Receipt, ResultObject
from node.peers.receipts import judge
from tests.node.jobs.house import empty, make_order, open_house

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
RETRY = Retry(first_s=30, factor=2, max_s=3600, give_up_h=72)
SILENT = Receipt(False, True, "no answer")
REFUSED = Receipt(False, False, "SOP class refused")


def _dimse(**values: object) -> DimsePeer:
    told = {"ae_title": "PACS", "host": "127.0.0.1", "port": 104, "may_receive": True, "retry": RETRY, **values}
    return DimsePeer.model_validate(told)


PEERS: Peers = {
    "pacs": _dimse(),
    "archive": _dimse(storage_commitment=False),
    "demo": _dimse(accepts_demo_results=True),
    "closed": _dimse(may_receive=False, accepts_demo_results=True),
    "folder": FolderPeer(protocol="folder", path=Path("results"), may_receive=True),
    "orthanc": OrthancPeer(protocol="orthanc", url="http://127.0.0.1:1", may_receive=True),
}
OBJECTS = [
    ResultObject("seg", "1.2.840.10008.5.1.4.1.1.66.4", "2.25.1", Path("/seg.dcm"), "0"),
    ResultObject("sr", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.2", Path("/sr.dcm"), "0"),
]
STORED = Receipt(True, False, "", {"2.25.1": 0x0000, "2.25.2": 0xB000}, ("2.25.1", "2.25.2"))


# --- the gate


@pytest.mark.parametrize("name", ["pacs", "archive", "folder", "orthanc"])
def test_demo_results_go_to_no_peer_that_does_not_say_that_it_takes_them(name: str) -> None:
    assert withheld(True, name, PEERS) == "demo weights"
    assert withheld(False, name, PEERS) is None


def test_demo_results_go_to_a_peer_that_takes_them() -> None:
    assert withheld(True, "demo", PEERS) is None


def test_a_peer_that_may_not_receive_gets_nothing_even_if_it_takes_demo_results() -> None:
    assert withheld(True, "closed", PEERS) == "may_receive is false for peer 'closed'"


def test_a_peer_that_left_the_configuration_gets_nothing() -> None:
    assert withheld(False, "gone", PEERS) == "peers.yaml has no peer 'gone'"


def test_a_plan_sorts_the_destinations() -> None:
    planned = plan(True, ("pacs", "demo", "gone"), PEERS)
    assert planned.send_to == ("demo",)
    assert planned.held == {"pacs": "demo weights", "gone": "peers.yaml has no peer 'gone'"}


def test_a_peer_gets_the_objects_of_its_profile() -> None:
    only_seg = _dimse(results=ResultProfile(objects=("seg",), required=("seg",)))
    assert objects_for(only_seg, OBJECTS) == OBJECTS[:1]
    assert objects_for(PEERS["pacs"], OBJECTS) == OBJECTS


def test_only_a_dimse_peer_that_offers_it_is_asked_to_commit() -> None:
    assert [name for name, peer in PEERS.items() if wants_commitment(peer)] == ["pacs", "demo", "closed"]
    assert not wants_commitment(None)


# --- what follows from an answer


@pytest.mark.parametrize(
    ("receipt", "state", "wait_s"),
    [
        (STORED, DeliveryState.SENT, None),
        (REFUSED, DeliveryState.FAILED, None),
        (SILENT, DeliveryState.WAITING, 120),
    ],
)
def test_an_answer_decides_what_follows(receipt: Receipt, state: DeliveryState, wait_s: float | None) -> None:
    step = after_receipt(receipt, failures=3, first_attempt_at=NOW, retry=RETRY, now=NOW, is_committing=True)
    assert step.state == state
    assert step.next_attempt_at == (NOW + timedelta(seconds=wait_s) if wait_s else None)


def test_without_commitment_stored_is_all_there_is_to_hope_for() -> None:
    step = after_receipt(STORED, failures=0, first_attempt_at=NOW, retry=RETRY, now=NOW, is_committing=False)
    assert step.state == DeliveryState.COMMITTED


def test_after_its_patience_a_delivery_is_given_up() -> None:
    began_at = NOW - timedelta(hours=72)
    step = after_receipt(SILENT, failures=50, first_attempt_at=began_at, retry=RETRY, now=NOW, is_committing=False)
    assert (step.state, step.reason) == (DeliveryState.FAILED, "gave up after 72 h: no answer")


def test_whoever_refuses_has_answered() -> None:
    assert has_answered(REFUSED)
    assert has_answered(Receipt(False, True, "out of resources", {"2.25.1": 0xA700}))
    assert not has_answered(SILENT)


def test_refusals_to_commit_are_told_in_words() -> None:
    assert refusals({"2.25.1": 0x0112, "2.25.2": 0x0112}) == "2 objects: 0112 no such object instance"
    assert refusals({"2.25.1": 0x9999}) == "1 objects: 9999 unknown reason"


# --- the breaker


def _records(*receipts: Receipt) -> list[ReceiptRecord]:
    return [ReceiptRecord("job", "pacs", n, iso(NOW - timedelta(minutes=n)), r) for n, r in enumerate(receipts)]


def test_five_silences_in_a_row_open_the_circuit() -> None:
    assert is_circuit_open(_records(*[SILENT] * BREAKER_FAILURES))
    assert not is_circuit_open(_records(*[SILENT] * (BREAKER_FAILURES - 1)))


@pytest.mark.parametrize("answer", [STORED, REFUSED])
def test_any_answer_closes_it(answer: Receipt) -> None:
    assert not is_circuit_open(_records(answer, *[SILENT] * BREAKER_FAILURES))


def test_the_next_probe_is_an_interval_after_the_last_attempt() -> None:
    assert next_probe_at(_records(SILENT), RETRY) == NOW + timedelta(seconds=30)


# --- what deliveries make of a job


def _delivery(peer: str, state: DeliveryState, reason: str = "") -> Delivery:
    return Delivery("job", peer, state, 0, 1, None, None, None, reason, iso(NOW))


@pytest.mark.parametrize(
    ("deliveries", "state", "reason"),
    [
        ([], JobState.COMMITTED, KEPT),
        ([_delivery("a", DeliveryState.SENT)], JobState.SENDING, ""),
        (
            [_delivery("a", DeliveryState.COMMITTED), _delivery("b", DeliveryState.WAITING, "no answer")],
            JobState.SENDING,
            "b: waiting, no answer",
        ),
        (
            [_delivery("a", DeliveryState.FAILED, "refused"), _delivery("b", DeliveryState.COMMITTED)],
            JobState.FAILED,
            "a: failed, refused; b: committed",
        ),
        ([_delivery("a", DeliveryState.FAILED, "x"), _delivery("b", DeliveryState.SENT)], JobState.SENDING, ""),
        (
            [_delivery("a", DeliveryState.HELD, "demo weights"), _delivery("b", DeliveryState.HELD, "demo weights")],
            JobState.HELD,
            "demo weights",
        ),
        (
            [_delivery("a", DeliveryState.HELD, "demo weights"), _delivery("b", DeliveryState.COMMITTED)],
            JobState.COMMITTED,
            "a: held, demo weights",
        ),
        ([_delivery("a", DeliveryState.COMMITTED)], JobState.COMMITTED, ""),
    ],
)
def test_a_jobs_state_follows_from_its_deliveries(deliveries: list[Delivery], state: JobState, reason: str) -> None:
    assert verdict(deliveries) == (state, reason)


# --- the course in the rows


@pytest.fixture
def database(tmp_path: Path, blank: Path) -> Iterator[Database]:
    house = open_house(tmp_path, lambda *_: None, {}, like=blank)
    yield house.database
    house.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The same on both kinds of database."""
    url = request.getfixturevalue("postgres_schema") if request.param == "postgresql" else None
    house = open_house(tmp_path, lambda *_: None, {}, url)
    if url:
        empty(house.database)
    yield house.database
    house.stop()


def _encoded(database: Database, number: int = 1, deliver_to: tuple[str, ...] = ("pacs",)) -> str:
    """A job whose deliveries are planned."""
    order = make_order(number, deliver_to)
    with database.begin() as rows:
        add_job(rows, order, spool_id="s", is_demo=False)
        record_state(rows, order.job_id, JobState.SEGMENTING)
        record_state(rows, order.job_id, JobState.ENCODING)
        made = [replace(item, sop_instance_uid=f"{item.sop_instance_uid}.{number}") for item in OBJECTS]
        record_objects(rows, order.job_id, made if number > 1 else OBJECTS)
        plan_deliveries(rows, job_of(rows, order.job_id), PEERS, NOW)
    return order.job_id


def _attempt(
    database: Database, job: str, receipt: Receipt, attempt: int = 1, peer: str = "pacs", now: datetime = NOW
) -> str | None:
    with database.begin() as rows:
        assert begin_attempt(rows, job, peer, attempt, PEERS, now)
        return settle_attempt(rows, job, peer, attempt, receipt, PEERS, now)


def _state(database: Database, job: str) -> tuple[JobState, str]:
    with database.read() as rows:
        found = job_of(rows, job)
    return found.state, found.reason


def _one(database: Database, job: str) -> Delivery:
    with database.read() as rows:
        return deliveries_of(rows, job)[0]


def test_the_whole_course_to_a_commitment(either: Database) -> None:
    job = _encoded(either)
    assert _state(either, job) == (JobState.SENDING, "")
    transaction = _attempt(either, job, STORED)
    assert transaction is not None
    assert transaction.startswith("2.25.")
    assert _one(either, job).state == DeliveryState.SENT
    with either.begin() as rows:
        found = requested_objects(rows, transaction, 1)
        assert found == ("pacs", OBJECTS)
        settle_request(rows, transaction, 1, Receipt(True, False, ""), PEERS, NOW)
        assert requested_objects(rows, transaction, 1) is None, "asked once"
        assert apply_commitment_report(rows, transaction, ["2.25.1", "2.25.2"], {}, NOW)
    assert _state(either, job) == (JobState.COMMITTED, "")
    with either.read() as rows:
        assert [c.state for c in commitments_of(rows, job)] == [CommitmentState.COMMITTED]
        assert [record.receipt for record in receipts_of(rows, job)] == [STORED]


def test_planning_again_after_a_crash_changes_nothing(database: Database) -> None:
    job = _encoded(database)
    _attempt(database, job, SILENT)
    before = _one(database, job)
    with database.begin() as rows:
        plan_deliveries(rows, job_of(rows, job), PEERS, NOW)
    assert _one(database, job) == before


def test_an_answer_settled_twice_counts_once(database: Database) -> None:
    job = _encoded(database)
    transaction = _attempt(database, job, STORED)
    with database.begin() as rows:
        assert settle_attempt(rows, job, "pacs", 1, STORED, PEERS, NOW) == transaction
        assert len(commitments_of(rows, job)) == 1


def test_the_waits_between_attempts_grow(database: Database) -> None:
    job = _encoded(database)
    waits = []
    now = NOW
    for attempt in (1, 2, 3):
        _attempt(database, job, SILENT, attempt, now=now)
        next_at = moment_of(str(_one(database, job).next_attempt_at))
        waits.append((next_at - now).total_seconds())
        now = next_at
    assert waits == [30, 60, 120]
    assert _state(database, job) == (JobState.SENDING, "pacs: waiting, no answer")


def test_an_attempt_is_due_when_its_time_has_come_and_not_before(database: Database) -> None:
    job = _encoded(database)
    _attempt(database, job, SILENT)
    with database.read() as rows:
        assert due(rows, "s", PEERS, NOW + timedelta(seconds=29)) == []
        assert [d.job_id for d in due(rows, "s", PEERS, NOW + timedelta(seconds=31))] == [job]
        assert due(rows, "another spool", PEERS, NOW + timedelta(days=1)) == []


def test_a_dead_peer_is_probed_by_one_delivery_an_interval(database: Database) -> None:
    jobs = [_encoded(database, number) for number in range(1, 9)]
    for job in jobs[:BREAKER_FAILURES]:
        _attempt(database, job, SILENT)
    with database.begin() as rows:
        assert due(rows, "s", PEERS, NOW + timedelta(seconds=10)) == []
        assert len(due(rows, "s", PEERS, NOW + timedelta(seconds=31))) == 1
        # one that was queued before the circuit opened does not go out either
        assert begin_attempt(rows, jobs[6], "pacs", 1, PEERS, NOW) == []
        postponed = next(d for d in deliveries_of(rows, jobs[6]))
    assert (postponed.state, postponed.attempts) == (DeliveryState.WAITING, 1)
    assert postponed.next_attempt_at == iso(NOW + timedelta(seconds=30))


def test_a_peer_that_answers_again_gets_all_that_waited(database: Database) -> None:
    jobs = [_encoded(database, number) for number in range(1, 8)]
    for attempt in (1, 2, 3):
        _attempt(database, jobs[0], SILENT, attempt)
    _attempt(database, jobs[1], SILENT)
    _attempt(database, jobs[2], SILENT)
    probe_at = NOW + timedelta(seconds=31)
    _attempt(database, jobs[3], STORED, now=probe_at)
    with database.read() as rows:
        waiting = {delivery.job_id for delivery in due(rows, "s", PEERS, probe_at)}
    assert waiting == {jobs[0], jobs[1], jobs[2], *jobs[4:]}


def test_the_gate_is_asked_again_before_each_attempt(database: Database) -> None:
    order = make_order(1, ("demo",))
    with database.begin() as rows:
        add_job(rows, order, spool_id="s", is_demo=True)
        record_state(rows, order.job_id, JobState.SEGMENTING)
        record_state(rows, order.job_id, JobState.ENCODING)
        record_objects(rows, order.job_id, OBJECTS)
        plan_deliveries(rows, job_of(rows, order.job_id), PEERS, NOW)
        changed = {**PEERS, "demo": _dimse(accepts_demo_results=False)}
        assert begin_attempt(rows, order.job_id, "demo", 1, changed, NOW) == []
    assert _state(database, order.job_id) == (JobState.HELD, "demo weights")


def test_a_peer_whose_profile_takes_nothing_is_sent_nothing(database: Database) -> None:
    job = _encoded(database)
    empty = {**PEERS, "pacs": _dimse(results=ResultProfile(objects=(), required=()))}
    with database.begin() as rows:
        assert begin_attempt(rows, job, "pacs", 1, empty, NOW) == []
    assert _state(database, job)[0] == JobState.COMMITTED


def test_a_report_with_failures_sends_those_once_more_and_then_calls_a_person(database: Database) -> None:
    job = _encoded(database)
    first = _attempt(database, job, STORED)
    assert first
    with database.begin() as rows:
        apply_commitment_report(rows, first, ["2.25.1"], {"2.25.2": 0x0112}, NOW)
    waiting = _one(database, job)
    assert (waiting.state, waiting.rounds, waiting.pending_uids) == (DeliveryState.WAITING, 2, ("2.25.2",))
    with database.begin() as rows:
        assert begin_attempt(rows, job, "pacs", 2, PEERS, NOW) == OBJECTS[1:]
        second = settle_attempt(rows, job, "pacs", 2, Receipt(True, False, "", {"2.25.2": 0}, ("2.25.2",)), PEERS, NOW)
        assert second
        apply_commitment_report(rows, second, [], {"2.25.2": 0x0112}, NOW)
    state, reason = _state(database, job)
    assert state == JobState.FAILED
    assert reason == "pacs: failed, not committed by the peer (1 objects: 0112 no such object instance), sent twice"


@pytest.mark.parametrize("statuses", [{"2.25.1": 0x0111, "2.25.2": 0}, {"2.25.1": 0x0111, "2.25.2": 0x0107}])
def test_commitment_is_asked_for_all_that_a_peer_has_by_whatever_status(
    database: Database, statuses: dict[str, int]
) -> None:
    # a repeat after a crash between storing and noting it is answered "duplicate" by some archives
    job = _encoded(database)
    transaction = _attempt(database, job, judge("pacs", PEERS["pacs"].results, OBJECTS, statuses))
    assert transaction
    with database.read() as rows:
        asked = commitment_of(rows, transaction)
    assert asked is not None
    assert asked.requested_uids == ("2.25.1", "2.25.2")
    with database.begin() as rows:
        apply_commitment_report(rows, transaction, ["2.25.2"], {}, NOW)
    assert _state(database, job)[0] == JobState.SENDING


def test_a_report_that_comes_twice_sends_nothing_twice(database: Database) -> None:
    job = _encoded(database)
    transaction = _attempt(database, job, STORED)
    assert transaction
    for _ in range(2):
        with database.begin() as rows:
            assert apply_commitment_report(rows, transaction, [], {"2.25.1": 0x0110, "2.25.2": 0x0110}, NOW)
    assert (_one(database, job).rounds, _one(database, job).state) == (2, DeliveryState.WAITING)


def test_a_late_report_of_the_first_request_spares_the_second_sending(database: Database) -> None:
    job = _encoded(database)
    transaction = _attempt(database, job, STORED)
    assert transaction
    late = NOW + timedelta(hours=25)
    with database.begin() as rows:
        (overdue,) = due_commitments(rows, "s", late)
        pass_deadline(rows, overdue, PEERS, late)
        assert deliveries_of(rows, job)[0].state == DeliveryState.WAITING
        apply_commitment_report(rows, transaction, ["2.25.1", "2.25.2"], {}, late)
    assert _state(database, job)[0] == JobState.COMMITTED


def test_without_a_report_all_is_sent_once_more_and_then_the_job_fails(database: Database) -> None:
    job = _encoded(database)
    _attempt(database, job, STORED)
    now = NOW
    for attempt in (2, 3):
        now += timedelta(hours=24)
        with database.begin() as rows:
            (overdue,) = due_commitments(rows, "s", now)
            pass_deadline(rows, overdue, PEERS, now)
        if attempt == 2:
            _attempt(database, job, STORED, 2, now=now)
    assert _state(database, job) == (JobState.FAILED, "pacs: failed, not committed within 24 h, sent twice")


def test_a_request_that_fails_is_made_again_and_one_that_is_refused_fails_the_job(database: Database) -> None:
    job = _encoded(database)
    transaction = _attempt(database, job, STORED)
    assert transaction
    with database.begin() as rows:
        settle_request(rows, transaction, 1, SILENT, PEERS, NOW)
        assert due_commitments(rows, "s", NOW + timedelta(seconds=29)) == []
        (again,) = due_commitments(rows, "s", NOW + timedelta(seconds=31))
        assert again.attempts == 1
        settle_request(rows, transaction, 2, REFUSED, PEERS, NOW)
    assert _state(database, job) == (JobState.FAILED, "pacs: failed, stored, but not committed: SOP class refused")


def test_a_request_that_was_written_but_never_made_is_found_by_the_sweep(database: Database) -> None:
    job = _encoded(database)
    _attempt(database, job, STORED)
    with database.read() as rows:
        assert due_commitments(rows, "s", NOW + timedelta(seconds=59)) == []
        assert len(due_commitments(rows, "s", NOW + timedelta(seconds=61))) == 1


def test_a_report_for_no_request_of_ours_is_said_to_be_none(database: Database) -> None:
    with database.begin() as rows:
        assert not apply_commitment_report(rows, "2.25.999", ["2.25.1"], {}, NOW)


def test_a_job_of_which_something_was_taken_is_not_superseded(database: Database) -> None:
    untouched, touched = _encoded(database, 1), _encoded(database, 2)
    _attempt(database, untouched, SILENT)
    _attempt(database, touched, Receipt(False, True, "aborted", {"2.25.1": 0x0000}, ("2.25.1",)))
    with database.begin() as rows:
        assert not is_begun(rows, untouched)
        assert supersede(rows, untouched, "changed", NOW)
        assert not supersede(rows, touched, "changed", NOW)
    assert _state(database, untouched) == (JobState.SUPERSEDED, "changed")
    assert _state(database, touched)[0] == JobState.SENDING


def test_an_answer_to_a_cancelled_job_is_kept_and_changes_nothing(database: Database) -> None:
    job = _encoded(database)
    with database.begin() as rows:
        begin_attempt(rows, job, "pacs", 1, PEERS, NOW)
        supersede(rows, job, "changed", NOW)
        assert settle_attempt(rows, job, "pacs", 1, STORED, PEERS, NOW) is None
        assert [record.receipt for record in receipts_of(rows, job)] == [STORED]
    assert _one(database, job).state == DeliveryState.CANCELLED
