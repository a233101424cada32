"""What the database promises: all of a transaction or nothing, states as a table, identity in one place."""

from __future__ import annotations

import json
import shutil
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from node.config import load_config
from node.database import MIGRATIONS, Database, Rows, create_database_engine, iso, moment_of, utc_now
from node.database_history import (
    Lookup,
    WantedLookup,
    answer_lookup,
    fail_lookups,
    is_wanted,
    lookups_of,
    renew_lookup,
    want_lookup,
    wanted_lookups,
    withdraw_peers,
    withdraw_questions,
)
from node.database_jobs import (
    TRANSITIONS,
    ForbiddenTransition,
    UnknownJob,
    add_job,
    add_next_run,
    events_of,
    job_of,
    list_jobs,
    objects_of,
    order_as_json,
    order_of_json,
    record_objects,
    record_state,
    series_slot,
)
from node.database_studies import (
    add_therapy,
    confirm_series,
    lesions_of,
    list_refused_series,
    list_studies,
    list_therapies,
    patient_key,
    record_lesions,
    record_series,
    record_study,
    remove_therapy,
    series_by_uid,
    series_of_study,
    set_operator_time_point,
    studies_of_patient,
    study_of,
)
from node.domain import JobOrder, JobState, ResultObject, TimePoint
from node.errors import ConfigurationError, DatabaseAway
from node.tables import REVISION, metadata
from tests.node.jobs.house import empty, make_order, write_config

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def _open_copy(folder: Path, blank: Path) -> Database:
    shutil.copytree(blank, folder / "spool")
    return _open(folder)


def _open(folder: Path, url: str | None = None) -> Database:
    return Database.open(load_config(write_config(folder / "config", folder / "spool", url), environment={}))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, blank: Path) -> Iterator[Database]:
    """An empty database of either kind."""
    if request.param == "postgresql":
        opened = _open(tmp_path, request.getfixturevalue("postgres_schema"))
        empty(opened)
    else:
        opened = _open_copy(tmp_path, blank)
    yield opened
    opened.close()


@pytest.fixture
def sqlite(tmp_path: Path, blank: Path) -> Iterator[Database]:
    opened = _open_copy(tmp_path, blank)
    yield opened
    opened.close()


def _add(database: Database, number: int = 1, *, generation: str = "", is_demo: bool = False, reason: str = "") -> str:
    order = make_order(number)
    with database.begin() as rows:
        add_job(rows, order, spool_id="s", is_demo=is_demo, generation=generation, reason=reason)
    return order.job_id


# --- schema


def test_the_revisions_make_the_tables_that_the_code_knows(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == REVISION


def test_the_newest_revision_is_the_one_the_code_names() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == REVISION


def test_a_second_opening_upgrades_nothing_and_keeps_everything(sqlite: Database, tmp_path: Path) -> None:
    job = _add(sqlite)
    second = _open(tmp_path)
    with second.read() as rows:
        assert job_of(rows, job).state == JobState.QUEUED
    second.close()


def test_two_first_starts_at_once_make_one_schema(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path / "config", tmp_path / "spool"), environment={})
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: Database.open(config), range(4)))
    assert len(opened) == 4
    for database in opened:
        database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_of_an_older_node_is_brought_up_to_date_with_what_is_in_it(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue("postgres").create_schema() if kind == "postgresql" else None
    config = load_config(write_config(tmp_path / "config", tmp_path / "spool", url), environment={})
    engine = create_database_engine(config.database_url)
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, "0001")
        connection.execute(text("INSERT INTO patients VALUES ('k', 'P-1', '', '')"))
        columns = "study_uid, spool_key, patient_key, operator_time_point, first_instance_at, last_instance_at"
        connection.execute(text(f"INSERT INTO studies ({columns}) VALUES ('1.2', '1.2', 'k', 'pre', 'a', 'b')"))
        columns = "job_id, content_key, run, spool_id, study_uid, condition, state, reason, order_json, bundle"
        columns += ", bundle_sha256, pipeline_version, is_demo, generation, summary, created_at, updated_at"
        told = "'j-1', 'j', 1, 's', '1.2', 'c', 'queued', '', '{}', 'b', 'b', '1', false, '', '{}', 'a', 'a'"
        connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({told})"))
    engine.dispose()
    opened = _open(tmp_path, url)
    with opened.begin() as rows:
        study = study_of(rows, "1.2")
        assert study is not None
        assert (study.operator_time_point, study.study_description) == (TimePoint.PRE, None)
        assert study.spool_id == "s", "where its job is, its images are"
        want_lookup(rows, "1.2", "pacs", "q", utc_now(), "why not")
        assert lookups_of(rows, "1.2") == {"pacs": Lookup("q", "why not")}
    opened.close()


def test_an_open_question_of_an_older_node_is_asked_by_this_one(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path / "config", tmp_path / "spool"), environment={})
    engine = create_database_engine(config.database_url)
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, "0004")
        connection.execute(text("INSERT INTO patients VALUES ('k', 'P-1', '', '')"))
        columns = "study_uid, spool_key, patient_key, first_instance_at, last_instance_at, spool_id"
        connection.execute(text(f"INSERT INTO studies ({columns}) VALUES ('1.2', '1.2', 'k', 'a', 'b', 's')"))
        told = "('1.2', 'away', 'q', 'not reachable', '[]', 'a'), ('1.2', 'pacs', 'q', '', '[]', 'a')"
        columns = "study_uid, peer, question, reason, found, asked_at"
        connection.execute(text(f"INSERT INTO earlier_lookups ({columns}) VALUES {told}"))
    engine.dispose()
    opened = _open(tmp_path)
    with opened.read() as rows:
        assert [len(wanted_lookups(rows, "s", peer, 9)) for peer in ("away", "pacs")] == [1, 0]
    opened.close()


# --- what peers are asked


def _asked_about(rows: Rows, uid: str = "1.2", *, peer: str = "pacs", spool_id: str = "s", at: int = 0) -> None:
    """A study of patient P1 about which a peer is to be asked."""
    _study(rows, uid, spool_id=spool_id)
    want_lookup(rows, uid, peer, f"question {uid}", EPOCH + timedelta(seconds=at), "not yet")


def _first_wanted(rows: Rows, peer: str = "pacs") -> WantedLookup:
    return wanted_lookups(rows, "s", peer, 1)[0]


def test_a_question_is_put_with_whose_study_it_is_about_the_oldest_first_and_in_its_own_spool(
    database: Database,
) -> None:
    with database.begin() as rows:
        _asked_about(rows, "1.2", at=2)
        _asked_about(rows, "1.3", at=1)
        _asked_about(rows, "1.4", spool_id="of another node")
        first, second = wanted_lookups(rows, "s", "pacs", 9)
    assert (first.study_uid, second.study_uid) == ("1.3", "1.2")
    assert (first.patient_id, first.issuer, first.study_date, first.spool_key) == ("P1", "", "20250102", "1.3")
    assert "P1" not in repr(first)


def test_an_answer_is_news_the_first_time_and_when_it_is_another(database: Database) -> None:
    found = [(3, {"StudyDescription": "x"})]
    with database.begin() as rows:
        _asked_about(rows)
        assert is_wanted(rows, "1.2", ["pacs"])
        assert answer_lookup(rows, _first_wanted(rows), found, EPOCH)
        assert lookups_of(rows, "1.2") == {"pacs": Lookup("question 1.2", "", tuple(found))}
        assert not is_wanted(rows, "1.2", ["pacs"])
        renew_lookup(rows, "1.2", "pacs", EPOCH)
        assert not answer_lookup(rows, _first_wanted(rows), found, EPOCH)
        renew_lookup(rows, "1.2", "pacs", EPOCH)
        assert answer_lookup(rows, _first_wanted(rows), [], EPOCH)


def test_an_answer_to_a_question_that_another_has_replaced_is_not_kept(database: Database) -> None:
    with database.begin() as rows:
        _asked_about(rows)
        asked = _first_wanted(rows)
        want_lookup(rows, "1.2", "pacs", "of another patient", EPOCH + timedelta(seconds=1), "not yet")
        assert not answer_lookup(rows, asked, [(3, {})], EPOCH)
        assert lookups_of(rows, "1.2") == {"pacs": Lookup("of another patient", "not yet")}
        assert is_wanted(rows, "1.2", ["pacs"])


def test_a_failure_is_told_of_all_that_is_open_at_the_peer_and_puts_the_question_behind_the_others(
    database: Database,
) -> None:
    with database.begin() as rows:
        _asked_about(rows, "1.2", at=1)
        _asked_about(rows, "1.3", at=2)
        _asked_about(rows, "1.4", at=3, peer="other")
        _asked_about(rows, "1.5", spool_id="of another node")
        later = EPOCH + timedelta(seconds=9)
        assert fail_lookups(rows, "s", _first_wanted(rows), "not reachable", later) == ["1.2", "1.3"]
        assert [wanted.study_uid for wanted in wanted_lookups(rows, "s", "pacs", 9)] == ["1.3", "1.2"]
        reasons = [lookup.reason for uid in ("1.2", "1.3", "1.4", "1.5") for lookup in lookups_of(rows, uid).values()]
        assert reasons == ["not reachable", "not reachable", "not yet", "not yet"]
        assert fail_lookups(rows, "s", _first_wanted(rows), "not reachable", later) == []


def test_an_answer_outlives_a_failure_to_renew_it(database: Database) -> None:
    with database.begin() as rows:
        _asked_about(rows)
        answer_lookup(rows, _first_wanted(rows), [(3, {})], EPOCH)
        renew_lookup(rows, "1.2", "pacs", EPOCH)
        assert fail_lookups(rows, "s", _first_wanted(rows), "not reachable", EPOCH) == []
        assert lookups_of(rows, "1.2") == {"pacs": Lookup("question 1.2", "", ((3, {}),))}
        assert not is_wanted(rows, "1.2", ["pacs"])


def test_what_is_no_longer_to_be_asked_is_taken_back_and_answers_stay(database: Database) -> None:
    with database.begin() as rows:
        _asked_about(rows, peer="answers")
        answer_lookup(rows, _first_wanted(rows, "answers"), [], EPOCH)
        renew_lookup(rows, "1.2", "answers", EPOCH)
        _asked_about(rows, peer="away")
        withdraw_questions(rows, "1.2")
        assert lookups_of(rows, "1.2") == {"answers": Lookup("question 1.2")}
        assert not is_wanted(rows, "1.2", ["answers", "away"])


def test_questions_at_peers_that_are_asked_no_more_are_taken_back(database: Database) -> None:
    with database.begin() as rows:
        _asked_about(rows, "1.2", peer="gone")
        _asked_about(rows, "1.3", peer="still asked")
        _asked_about(rows, "1.4", peer="gone", spool_id="of another node")
        assert withdraw_peers(rows, "s", ["still asked"]) == ["1.2"]
        assert withdraw_peers(rows, "s", []) == ["1.3"]
        assert lookups_of(rows, "1.4") != {}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_of_a_newer_node_is_refused(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue("postgres").create_schema() if kind == "postgresql" else None
    newer = _open(tmp_path, url)
    with newer.begin() as rows:
        rows.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    newer.close()
    with pytest.raises(ConfigurationError, match=f"revision 9999, this node knows up to {REVISION}"):
        _open(tmp_path, url)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://x/y", "mysql is not supported"),
        ("sqlite://", "in memory would forget"),
        ("not a url", "no SQLAlchemy URL"),
    ],
)
def test_another_kind_of_database_is_refused_with_its_fix(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        create_database_engine(url)


def test_a_server_that_does_not_answer_is_told_without_its_password(tmp_path: Path, free_port: int) -> None:
    with pytest.raises(DatabaseAway, match="cannot be opened") as caught:
        _open(tmp_path, f"postgresql+psycopg://crlm:secret@127.0.0.1:{free_port}/crlm?connect_timeout=2")
    assert "secret" not in str(caught.value)


def test_the_sqlite_file_is_ours_alone(sqlite: Database) -> None:
    assert stat.S_IMODE(Path(str(sqlite.engine.url.database)).stat().st_mode) == 0o600


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    order = make_order()

    def fail() -> None:
        with database.begin() as rows:
            add_job(rows, order, spool_id="s", is_demo=False)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with database.read() as rows:
        assert list_jobs(rows) == []


def test_a_row_that_refers_to_nothing_is_refused(database: Database) -> None:
    def refer() -> None:
        with database.begin() as rows:
            _series(rows, "g1", study_uid="9.9")

    with pytest.raises(IntegrityError):
        refer()


def test_text_order_of_times_is_time_order() -> None:
    now = utc_now()
    assert iso(moment_of(iso(now))) == iso(now)
    assert iso(now.replace(microsecond=0)) < iso(now.replace(microsecond=1000))


# --- jobs


def test_a_job_comes_back_as_it_was_written(database: Database) -> None:
    order = make_order(deliver_to=("archive", "pacs"))
    job = _add(database, generation="4", is_demo=True)
    with database.begin() as rows:
        add_job(rows, order, spool_id="s", is_demo=False)
    with database.read() as rows:
        found = job_of(rows, job)
    assert (found.order, found.generation, found.is_demo, found.state) == (make_order(), "4", True, JobState.QUEUED)


def test_an_order_survives_json() -> None:
    order = make_order(deliver_to=("archive", "pacs"))
    assert order_of_json(order_as_json(order)) == order


def of_directions(order: JobOrder) -> JobOrder:
    """The order, its input a mean over three directions."""
    (given,) = order.inputs.values()
    others = tuple(
        tuple(replace(item, sop_instance_uid=f"{item.sop_instance_uid}.{number}") for item in given.instances)
        for number in (1, 2)
    )
    return replace(order, inputs={"image": replace(given, other_directions=others)})


def test_an_order_of_a_mean_over_directions_survives_json() -> None:
    order = of_directions(make_order())
    assert order_of_json(json.loads(json.dumps(order_as_json(order)))) == order


def test_an_order_that_was_written_before_there_were_means_is_read_as_it_was() -> None:
    order = make_order()
    row = order_as_json(order)
    del row["inputs"]["image"]["other_directions"]
    assert order_of_json(row) == order


def test_the_key_of_an_order_without_a_mean_is_what_it_was_before_there_were_means() -> None:
    assert make_order().content_key == "a3e367fb7321df451dbb7d417e88cdc6"


def test_every_direction_of_a_mean_is_part_of_the_orders_key() -> None:
    order = of_directions(make_order())
    (given,) = order.inputs.values()
    fewer = replace(order, inputs={"image": replace(given, other_directions=given.other_directions[:1])})
    swapped = replace(order, inputs={"image": replace(given, other_directions=given.other_directions[::-1])})
    assert len({make_order().content_key, fewer.content_key, order.content_key}) == 3
    assert swapped.content_key == order.content_key


def test_a_job_that_is_known_is_not_written_again(database: Database) -> None:
    job = _add(database)
    with database.begin() as rows:
        record_state(rows, job, JobState.HELD, "why")
        assert not add_job(rows, make_order(), spool_id="s", is_demo=False)
        assert job_of(rows, job).state == JobState.HELD


def test_each_change_of_state_is_a_row_with_its_time_and_reason(database: Database) -> None:
    job = _add(database, reason="from a study")
    with database.begin() as rows:
        record_state(rows, job, JobState.SEGMENTING)
        record_state(rows, job, JobState.HELD, "two orientations")
    with database.read() as rows:
        events = events_of(rows, job)
        assert job_of(rows, job).reason == "two orientations"
    assert [(event.state, event.reason) for event in events] == [
        (JobState.QUEUED, "from a study"),
        (JobState.SEGMENTING, ""),
        (JobState.HELD, "two orientations"),
    ]
    assert all(moment_of(event.at) <= utc_now() for event in events)


@pytest.mark.parametrize("state", [state for state in JobState if state.is_final])
def test_a_job_that_has_ended_stays_as_it_ended(sqlite: Database, state: JobState) -> None:
    job = _add(sqlite)
    with sqlite.begin() as rows:
        for step in (JobState.SEGMENTING, JobState.ENCODING, state):
            assert record_state(rows, job, step)
        assert [record_state(rows, job, other) for other in JobState] == [False] * len(JobState)
        assert job_of(rows, job).state == state


def test_a_change_that_the_table_does_not_list_is_an_error(sqlite: Database) -> None:
    job = _add(sqlite)
    with sqlite.begin() as rows, pytest.raises(ForbiddenTransition, match="from queued to encoding"):
        record_state(rows, job, JobState.ENCODING)


def test_every_state_has_its_row_in_the_table_of_changes() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert {state for state, following in TRANSITIONS.items() if not following} == {s for s in JobState if s.is_final}


def test_the_state_of_an_unknown_job_cannot_be_changed(sqlite: Database) -> None:
    with sqlite.begin() as rows, pytest.raises(UnknownJob):
        record_state(rows, "nobody", JobState.HELD)


def test_of_two_who_end_a_job_at_once_one_does(database: Database) -> None:
    job = _add(database)
    gate = threading.Barrier(2)
    ended: list[bool] = []

    def end(state: JobState) -> None:
        gate.wait()
        with database.begin() as rows:
            ended.append(record_state(rows, job, state))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(end, (JobState.CANCELLED, JobState.FAILED)))
    assert sorted(ended) == [False, True]


def test_the_next_run_has_the_same_content_and_another_id(database: Database) -> None:
    job = _add(database)
    with database.begin() as rows:
        again = add_next_run(rows, job_of(rows, job), "a person asked")
    assert (again.run, again.content_key, again.predecessor_job_id) == (2, make_order().content_key, job)
    assert again.job_id != job


def test_objects_are_recorded_once_and_in_sending_order(database: Database) -> None:
    job = _add(database)
    objects = [
        ResultObject(kind, "1.2", f"2.25.{n}", Path(f"/{kind}.dcm"), "0") for n, kind in enumerate(("seg", "sr"))
    ]
    for _ in range(2):
        with database.begin() as rows:
            record_objects(rows, job, objects, {"lesion_count": 3})
    with database.read() as rows:
        assert objects_of(rows, job) == objects
        assert job_of(rows, job).summary == {"lesion_count": 3}


def test_each_job_of_a_study_keeps_its_own_series_numbers(database: Database) -> None:
    jobs = [_add(database, number) for number in range(3)]
    with database.begin() as rows:
        slots = [series_slot(rows, "1.2.3", job) for job in jobs]
        assert slots == [0, 1, 2]
        assert series_slot(rows, "1.2.3", jobs[1]) == 1
        other = make_order(9)
        add_job(rows, other, spool_id="s", is_demo=False)
        assert series_slot(rows, "1.2.4", other.job_id) == 0


# --- patients, studies, series, therapies, lesions


def _study(
    rows: Rows, uid: str = "1.2", at: str = "2025-01-02T10:00:00.000+00:00", *, spool_id: str | None = None
) -> str:
    key = patient_key(rows, "P1", "", "Doe^Jane")
    record_study(
        rows,
        uid,
        spool_key=uid,
        patient_key=key,
        study_date="20250102",
        called_ae="CRLM-NODE",
        calling_ae="CT1",
        first_instance_at=at,
        last_instance_at=at,
        spool_id=spool_id,
    )
    return key


def _series(rows: Rows, generation: str, *, study_uid: str = "1.2", decision: str = "accept") -> None:
    record_series(
        rows,
        "1.2~1.2.3",
        study_uid=study_uid,
        series_uid="1.2.3",
        generation=generation,
        instance_count=30,
        decision=decision,
        condition="pre-nact-dwi",
        reason="",
        explanation=[{"for": True, "what": "b-value 1000", "where": "(0018,9087)"}],
    )


def _therapy(rows: Rows, name: str, start_date: str, end_date: str | None = None) -> str:
    return add_therapy(
        rows,
        patient_id="P1",
        issuer="",
        name=name,
        start_date=start_date,
        end_date=end_date,
        surgery_date=None,
        source="oncology",
    )


def test_a_patient_is_one_by_id_and_issuer_and_the_key_tells_nothing(database: Database) -> None:
    with database.begin() as rows:
        key = patient_key(rows, "P1", "Hospital A", "Doe^Jane")
        assert patient_key(rows, "P1", "Hospital A") == key
        assert patient_key(rows, "P1", "Hospital B") != key
    assert "P1" not in key


def test_identity_stands_in_one_table_alone(database: Database) -> None:
    with database.begin() as rows:
        _study(rows)
        _series(rows, "g1")
        _therapy(rows, "FOLFOX", "2025-01-01")
        for table in metadata.sorted_tables:
            if table.name != "patients":
                content = str([tuple(row) for row in rows.execute(table.select())])
                assert "Doe" not in content
                assert "'P1'" not in content


def test_a_later_series_moves_a_studys_last_arrival_only(database: Database) -> None:
    later = "2025-01-02T10:05:00.000+00:00"
    with database.begin() as rows:
        key = _study(rows)
        set_operator_time_point(rows, "1.2", TimePoint.POST)
        first = study_of(rows, "1.2")
        _study(rows, at=later)
        again = study_of(rows, "1.2")
        assert list_studies(rows) == studies_of_patient(rows, key) == [again]
    assert first is not None
    assert again == replace(first, last_instance_at=later), "a person's word is not lost by a late series"


def test_a_study_that_nobody_sent_is_not_known(sqlite: Database) -> None:
    with sqlite.read() as rows:
        assert study_of(rows, "9") is None


def test_a_series_keeps_its_latest_decision_and_its_evidence(database: Database) -> None:
    with database.begin() as rows:
        _study(rows)
        _series(rows, "g1", decision="refuse")
        assert [found.marker for found in list_refused_series(rows)] == ["1.2~1.2.3"]
        _series(rows, "g2")
        (found,) = series_of_study(rows, "1.2")
        assert series_by_uid(rows, "1.2.3") == [found]
        assert list_refused_series(rows) == []
    assert (found.generation, found.decision) == ("g2", "accept")
    assert found.explanation == [{"for": True, "what": "b-value 1000", "where": "(0018,9087)"}]


def test_a_confirmation_holds_for_the_content_it_was_given_for(database: Database) -> None:
    with database.begin() as rows:
        _study(rows)
        _series(rows, "g1")
        confirm_series(rows, "1.2~1.2.3", "pre-nact-dwi")
        _series(rows, "g1")
        assert series_of_study(rows, "1.2")[0].confirmed_condition == "pre-nact-dwi"
        _series(rows, "g2")
        assert series_of_study(rows, "1.2")[0].confirmed_condition is None


def test_therapies_come_earliest_first_are_replaced_and_can_be_taken_back(database: Database) -> None:
    with database.begin() as rows:
        key = _therapy(rows, "FOLFIRI", "2025-06-01")
        _therapy(rows, "FOLFOX", "2025-01-01")
        _therapy(rows, "FOLFIRI", "2025-06-01", end_date="2025-08-01")
        first, second = list_therapies(rows, patient_key=key)
        assert [(first.name, first.end_date), (second.name, second.end_date)] == [
            ("FOLFOX", None),
            ("FOLFIRI", "2025-08-01"),
        ]
        assert remove_therapy(rows, second.therapy_id) == key
        assert remove_therapy(rows, second.therapy_id) is None
        assert list_therapies(rows) == [first]


def test_lesions_keep_the_identities_that_were_minted_first(database: Database) -> None:
    job = _add(database)
    with database.begin() as rows:
        key = patient_key(rows, "P1", "")
        minted = [("2.25.1", "L1"), ("2.25.2", "L2")]
        for told in (minted, [("2.25.8", "L1"), ("2.25.9", "L2")]):
            assert record_lesions(rows, job, patient_key=key, study_uid="1.2", identities=told) == minted
        assert lesions_of(rows, job) == minted


def test_reading_does_not_wait_for_a_writer(sqlite: Database) -> None:
    job = _add(sqlite)
    with sqlite.begin() as writing:
        record_state(writing, job, JobState.HELD, "unfinished")
        with sqlite.read() as rows:
            assert job_of(rows, job).state == JobState.QUEUED
