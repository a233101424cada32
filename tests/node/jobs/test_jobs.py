"""A job is done once, whatever dies in between, and a peer's trouble stays that peer's."""

from __future__ import annotations

from datetime import UTC, datetime

from node.database_deliveries import DeliveryState, commitments_of
from node.database_jobs import record_state
from node.dicom.commitment import CommitmentReport
from node.domain import JobState
from node.jobs_client import JobsClient
from node.jobs_steps import CHANGED
from tests.node.jobs.house import House, make_order


def test_a_job_goes_through_its_states_and_its_objects_are_kept(house: House) -> None:
    job = house.add(make_order())
    house.start()
    ended = house.wait_for(job, JobState.COMMITTED)
    assert house.states(job) == [
        JobState.QUEUED,
        JobState.SEGMENTING,
        JobState.ENCODING,
        JobState.SENDING,
        JobState.COMMITTED,
    ]
    assert ended.summary == {"lesion_count": 2}
    with JobsClient(house.config, house.database) as client:
        story = client.show(job)
    assert [item.kind for item in story.objects] == ["seg", "sr"]
    assert all(house.spool.is_our_result(item.sop_instance_uid) for item in story.objects)


def test_a_row_written_just_before_a_crash_is_run_by_the_next_start(house: House) -> None:
    job = house.add(make_order())  # and no enqueue follows
    house.start()
    house.wait_for(job, JobState.COMMITTED)


def test_the_same_job_enqueued_twice_runs_once(house: House) -> None:
    house.tell("hold-segment")
    job = house.add(make_order())
    house.start()
    with JobsClient(house.config, house.database) as client:
        # what orders may do twice, beside the sweep that does it too
        client.enqueue(job)
        client.enqueue(job)
    house.untell("hold-segment")
    house.wait_for(job, JobState.COMMITTED)
    with JobsClient(house.config, house.database) as client:
        client.enqueue(job)
    house.wait_for(house.add(make_order(2)), JobState.COMMITTED)
    assert house.calls("segment").count(job) == 1


def test_a_worker_killed_while_encoding_goes_on_at_the_encoding(house: House) -> None:
    house.tell("hold-encode")
    job = house.add(make_order())
    worker = house.start()
    house.wait_until(lambda: house.calls("encode"), "the encoding")
    worker.kill()
    house.untell("hold-encode")
    house.start()
    house.wait_for(job, JobState.COMMITTED)
    assert house.calls("segment") == [job]
    assert house.calls("encode") == [job, job]


def test_a_worker_ended_by_sigterm_leaves_its_running_step_to_the_next_start(house: House) -> None:
    house.tell("hold-segment")
    job = house.add(make_order())
    worker = house.start()
    house.wait_until(lambda: house.calls("segment"), "the segmentation")
    worker.terminate()
    assert worker.wait() == 0
    house.untell("hold-segment")
    house.start()
    house.wait_for(job, JobState.COMMITTED)
    assert house.calls("segment") == [job, job]


def test_a_delivery_cut_off_by_a_kill_is_made_again_byte_for_byte(house: House) -> None:
    house.tell("peer-archive", "slow")
    job = house.add(make_order())
    worker = house.start()
    house.wait_until(lambda: house.calls("deliver"), "the first attempt")
    worker.kill()
    house.tell("peer-archive", "alive")
    house.start()
    house.wait_for(job, JobState.COMMITTED)
    with JobsClient(house.config, house.database) as client:
        story = client.show(job)
    sent = ",".join(f"{item.sop_instance_uid}={item.sha256}" for item in story.objects)
    ends = [what for _, step, _, what in house.call_log() if step == "deliver" and what.startswith("end")]
    assert ends == [f"end:alive:{sent}"]
    assert [record.attempt for record in story.receipts] == [1]


def test_an_answer_that_was_got_before_a_kill_is_not_asked_for_again(house: House) -> None:
    job = house.add(make_order())
    house.tell("die-before-settle", job)
    house.spawn().wait()
    house.start()
    house.wait_for(job, JobState.COMMITTED)
    assert house.calls("deliver") == ["archive"]


def test_a_hanging_peer_delays_neither_the_networks_nor_another_peer(house: House) -> None:
    house.tell("peer-second", "slow")
    stuck, waiting = (house.add(make_order(number, ("second",))) for number in (1, 2))
    house.start()
    house.wait_until(lambda: house.calls("deliver"), "an attempt that hangs")
    other = house.add(make_order(3, ("archive", "second")))

    house.wait_until(lambda: "archive" in house.deliveries(other), "the third job's plan")
    house.wait_until(
        lambda: house.deliveries(other)["archive"].state == DeliveryState.COMMITTED, "the delivery to the living peer"
    )
    assert sorted(house.calls("segment")) == sorted([stuck, waiting, other])
    assert house.calls("deliver").count("second") == 1, "one association at a time"
    house.tell("peer-second", "alive")
    for job in (stuck, waiting, other):
        house.wait_for(job, JobState.COMMITTED)


def test_a_job_held_midway_and_released_goes_on_as_its_next_run(house: House) -> None:
    order = make_order()
    answer = house.workshop / f"answer-segment-{order.job_id}.json"
    answer.write_text('{"status": "held", "reason": "two orientations"}')
    job = house.add(order)
    house.start()
    house.wait_for(job, JobState.HELD)
    with house.database.begin() as rows:
        # as orders do, who do not know how far a held job had come
        record_state(rows, job, JobState.QUEUED, "released")
    released = house.wait_for(job, JobState.SUPERSEDED)
    assert house.wait_for(released.reason.rpartition(" ")[2], JobState.COMMITTED).run == 2


def test_a_job_whose_series_changed_sends_nothing(house: House) -> None:
    house.tell("hold-segment")
    job = house.add(make_order())
    house.start()
    house.wait_until(lambda: house.calls("segment"), "the segmentation")
    house.tell("changed")
    house.untell("hold-segment")
    assert house.wait_for(job, JobState.SUPERSEDED).reason == CHANGED
    assert house.calls("encode") == []


def test_a_job_whose_series_changed_while_its_peer_was_dead_sends_nothing(house: House) -> None:
    house.tell("peer-archive", "dead")
    job = house.add(make_order())
    house.start()
    house.wait_until(lambda: house.calls("deliver"), "an attempt")
    house.tell("changed")
    house.tell("peer-archive", "alive")
    house.wait_for(job, JobState.SUPERSEDED)
    assert house.deliveries(job)["archive"].state == DeliveryState.CANCELLED
    assert not [what for _, step, _, what in house.call_log() if what.startswith("end:alive")]


def test_the_study_is_looked_up_before_a_repeated_delivery_and_not_before_the_first(house: House) -> None:
    house.tell("peer-archive", "dead")
    job = house.add(make_order())
    house.start()
    house.wait_until(lambda: house.calls("whereabouts", "asked"), "a look-up")
    house.tell("peer-archive", "alive")
    house.wait_for(job, JobState.COMMITTED)
    steps = [step for _, step, _, what in house.call_log() if what in ("begin", "asked")]
    assert steps[:5] == ["segment", "encode", "deliver", "whereabouts", "deliver"]


def test_results_wait_for_a_person_where_the_study_has_left_its_peer(house: House) -> None:
    house.tell("peer-archive", "dead")
    house.tell("lost-archive", "the study is gone")
    job = house.add(make_order())
    house.start()
    assert house.wait_for(job, JobState.HELD).reason == "the study is gone"
    house.tell("peer-archive", "alive")
    assert house.calls("deliver") == ["archive"]


def test_results_of_demo_weights_leave_only_for_a_peer_that_takes_them(house: House) -> None:
    withheld = house.add(make_order(1, ("archive", "folder")), is_demo=True)
    in_part = house.add(make_order(2, ("archive", "demo-archive")), is_demo=True)
    house.start()
    assert house.wait_for(withheld, JobState.HELD).reason == "demo weights"
    assert house.wait_for(in_part, JobState.COMMITTED).reason == "archive: held, demo weights"
    assert house.calls("deliver") == ["demo-archive"]


def test_a_route_without_destination_keeps_its_results_in_the_spool(house: House) -> None:
    job = house.add(make_order(deliver_to=()))
    house.start()
    assert house.wait_for(job, JobState.COMMITTED).reason == "kept in the spool; no destination"


def test_a_peer_that_refuses_fails_the_job_and_the_part_that_arrived_is_told(house: House) -> None:
    house.tell("peer-archive", "refuses")
    job = house.add(make_order(deliver_to=("archive", "second")))
    house.start()
    assert house.wait_for(job, JobState.FAILED).reason == "archive: failed, archive refuses; second: committed"
    assert house.calls("deliver").count("archive") == 1


# --- what cannot be analysed

REFUSED = '{"status": "refused", "reason": "a gap of 10 mm"}'


def test_what_cannot_be_analysed_fails_with_its_reason(house: House) -> None:
    house.tell("answer-segment.json", REFUSED)
    job = house.add(make_order(deliver_to=("archive",)))
    house.start()
    assert house.wait_for(job, JobState.FAILED).reason == "not analysed: a gap of 10 mm"
    assert not house.calls("refuse")


def test_who_wants_to_hear_of_it_gets_a_report_and_nobody_else_anything(house: House) -> None:
    house.tell("answer-segment.json", REFUSED)
    job = house.add(make_order(deliver_to=("archive", "attentive")))
    house.start()
    ended = house.wait_for(job, JobState.COMMITTED)
    assert ended.summary == {"not_analysed": "a gap of 10 mm"}
    assert house.calls("deliver") == ["attentive"]
    with JobsClient(house.config, house.database) as client:
        assert [item.kind for item in client.show(job).objects] == ["refusal"]


def test_a_report_of_refusal_cut_off_by_a_kill_is_written_once(house: House) -> None:
    house.tell("answer-segment.json", REFUSED)
    house.tell("die-before-plan")
    job = house.add(make_order(deliver_to=("attentive",)))
    house.start().wait()
    house.start()
    house.wait_for(job, JobState.COMMITTED)
    assert house.calls("refuse") == [job]


def test_a_report_of_refusal_that_cannot_be_written_leaves_the_reason(house: House) -> None:
    house.tell("answer-segment.json", REFUSED)
    house.tell("answer-refuse.json", '{"status": "failed", "reason": "no CT or MR images"}')
    job = house.add(make_order(deliver_to=("attentive",)))
    house.start()
    told = house.wait_for(job, JobState.FAILED).reason
    assert told == "not analysed: a gap of 10 mm (no CT or MR images)"


# --- commitment


def _report(house: House, transaction_uid: str, committed: list[str], failed: dict[str, int]) -> None:
    """Write a report as the receiver does."""
    report: CommitmentReport = {"transaction_uid": transaction_uid, "committed": committed, "failed": failed}
    house.spool.write_commitment_report(report, "PACS", datetime.now(UTC))


def _request(house: House, number: int) -> str:
    """Transaction UID of the so-many-th request."""
    house.wait_until(lambda: len(house.calls("request", "2.25.")) >= number, "a commitment request")
    return [what for _, step, _, what in house.call_log() if step == "request"][number - 1]


def test_a_report_in_the_spool_commits_the_job(house: House) -> None:
    job = house.add(make_order(deliver_to=("pacs",)))
    house.start()
    transaction_uid = _request(house, 1)
    assert house.job(job).state == JobState.SENDING
    with JobsClient(house.config, house.database) as client:
        uids = [item.sop_instance_uid for item in client.show(job).objects]
    _report(house, transaction_uid, uids, {})
    house.wait_for(job, JobState.COMMITTED)
    house.wait_until(lambda: not house.spool.commitment_reports(), "the report to be taken in")


def test_what_a_peer_does_not_commit_to_is_sent_once_more_and_alone(house: House) -> None:
    job = house.add(make_order(deliver_to=("pacs",)))
    house.start()
    first = _request(house, 1)
    with JobsClient(house.config, house.database) as client:
        seg, sr = client.show(job).objects
    _report(house, first, [seg.sop_instance_uid], {sr.sop_instance_uid: 0x0112})
    second = _request(house, 2)
    sent = [what for _, step, _, what in house.call_log() if step == "deliver" and what.startswith("end")]
    assert sent[1] == f"end:alive:{sr.sop_instance_uid}={sr.sha256}"
    _report(house, second, [sr.sop_instance_uid], {})
    house.wait_for(job, JobState.COMMITTED)


def test_a_kill_between_storing_and_asking_does_not_lose_the_request(house: House) -> None:
    job = house.add(make_order(deliver_to=("pacs",)))
    house.tell("die-before-request")
    house.spawn().wait()
    house.start()
    transaction_uid = _request(house, 1)
    assert house.calls("deliver") == ["pacs"]
    with house.database.read() as rows:
        assert [c.transaction_uid for c in commitments_of(rows, job)] == [transaction_uid]


def test_on_postgresql_a_job_survives_a_kill_and_commits(postgres_house: House) -> None:
    house = postgres_house
    house.tell("hold-encode")
    job = house.add(make_order(deliver_to=("pacs",)))
    worker = house.start()
    house.wait_until(lambda: house.calls("encode"), "the encoding")
    worker.kill()
    house.untell("hold-encode")
    house.start()
    transaction_uid = _request(house, 1)
    with JobsClient(house.config, house.database) as client:
        uids = [item.sop_instance_uid for item in client.show(job).objects]
        _report(house, transaction_uid, uids, {})
        house.wait_for(job, JobState.COMMITTED)
        # the server's lock still belongs to the living worker
        assert house.spawn().wait() == 2
        again = client.retry(job)
    house.wait_until(lambda: house.calls("segment") == [job, again.job_id], "the second run")


def test_a_worker_of_another_spool_in_the_same_database_takes_none_of_its_jobs(
    postgres_house: House, other_postgres_house: House
) -> None:
    ours, theirs = postgres_house, other_postgres_house
    job, marker = ours.add(make_order(1)), theirs.add(make_order(2))
    theirs.start()
    theirs.wait_for(marker, JobState.COMMITTED)
    assert ours.job(job).state == JobState.QUEUED
    ours.start()
    ours.wait_for(job, JobState.COMMITTED)
    assert theirs.calls("segment") == [marker]
