"""Earlier studies, here and at a peer: asked where a rule needs them, kept, and asked again where nobody answered.

Real spool, real database, the simulator's archive as the peer; only the clock is the test's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli_jobs import therapies_app
from node.database import utc_now
from node.database_history import lookups_of
from node.domain import JobState, SeriesKey, TimePoint
from node.operator import confirm_job, enter_therapies, withdraw_therapy
from node.retrial import retry_since
from node.spool import folder_name
from node.timepoint import Therapy
from tests.deciding import (
    POST_BY_MR,
    POST_BY_STAGING,
    POST_T2,
    PRE_T2,
    SAME_VISIT,
    House,
    as_file,
    instance,
)
from tests.real_peers import DICOMWEB_PLUGIN, OrthancServer

# --- at a peer


def test_an_earlier_study_at_a_peer_decides_where_a_rule_says_so(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.decide()
    assert desk.outcome() == (JobState.QUEUED, POST_T2)


def test_the_modalities_of_an_earlier_study_are_told_too(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_MR)
    desk.receive()
    desk.decide()
    assert desk.outcome() == (JobState.QUEUED, POST_T2)


def test_an_earlier_study_is_found_by_dicomweb_too(
    house: House, orthanc: OrthancServer, require_peer: Callable[[str], Path]
) -> None:
    require_peer(str(DICOMWEB_PLUGIN))
    secret = house.folder / "password"
    secret.write_text(orthanc.password, encoding="utf-8")
    web = {"protocol": "dicomweb", "url": orthanc.dicomweb_url, "username": orthanc.username}
    web |= {"password_file": str(secret), "look_up_earlier_studies": True}
    desk = house.desk(POST_BY_STAGING, more_peers={"web": web})
    told = {"StudyDate": "20260401", "StudyDescription": "MR staging before chemo"}
    orthanc.client.post_instances(as_file(instance(StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.1", **told)))
    desk.receive()
    desk.decide()
    assert desk.outcome() == (JobState.QUEUED, POST_T2)
    with desk.database.read() as rows:
        found = {"StudyDescription": "MR staging before chemo", "ModalitiesInStudy": "MR"}
        assert lookups_of(rows, "1.2.3")["web"].found == ((61, found),)


def test_without_rules_no_peer_is_asked_and_nothing_is_kept(house: House) -> None:
    house.archive_has()
    desk = house.desk()
    desk.receive()
    desk.decide()
    assert desk.outcome() == (JobState.HELD, f"{PRE_T2} or {POST_T2}")
    with desk.database.read() as rows:
        assert lookups_of(rows, "1.2.3") == {}


def test_a_study_with_a_word_of_its_own_waits_for_no_peer(house: House) -> None:
    desk = house.desk(POST_BY_STAGING)
    house.archive.offline = True
    desk.receive(called_ae="CRLM-PRE")
    desk.decide()
    assert desk.outcome() == (JobState.QUEUED, PRE_T2)
    assert desk.questions() == 0


@pytest.mark.parametrize(
    "other",
    [
        {"PatientID": "P-10"},
        {"IssuerOfPatientID": "ANOTHER-HOSPITAL"},
        {"StudyDate": "20260515"},
        {"StudyDate": "20251001"},
        {"StudyDate": "20260701"},
        {"StudyDate": ""},
        {"StudyDescription": "MR follow-up"},
    ],
    ids=["patient", "issuer", "too near", "too far", "later", "no date", "description"],
)
def test_what_the_archive_holds_beside_that_proves_nothing(house: House, other: dict[str, str]) -> None:
    house.archive_has(**other)
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.decide()
    assert desk.outcome() == (JobState.HELD, f"{PRE_T2} or {POST_T2}")
    assert "nobody told" in desk.job().reason


def test_a_study_is_no_earlier_study_of_itself(house: House) -> None:
    same_day = {**POST_BY_STAGING, "days_before": [0, 200]}
    house.archive.shelf.keep(as_file(instance(StudyDescription="before chemo")))
    desk = house.desk(same_day)
    desk.receive()
    desk.decide()
    assert desk.job().state is JobState.HELD


def test_the_explanation_names_rule_distance_and_peer_but_neither_day_nor_patient(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.decide()
    (tried,) = retry_since(desk.config, desk.spool, desk.database, utc_now() - timedelta(days=1))
    told = str(tried.before.volumes)
    assert "post-treatment: an earlier study, 61 days before, has such a StudyDescription (known to pacs)" in told
    assert "2026" not in told
    assert "P-1'" not in told


def test_a_dry_run_decides_by_what_was_found_and_asks_nobody(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.decide()
    house.archive.offline = True
    (tried,) = retry_since(desk.config, desk.spool, desk.database, utc_now() - timedelta(days=1))
    assert tried.after is not None
    assert (tried.is_changed, tried.after.condition) == (False, POST_T2)


# --- a peer that does not answer


def test_a_peer_that_is_down_holds_the_study_and_once_up_decides_it(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_STAGING)
    house.archive.offline = True
    desk.receive()
    desk.decide()
    assert desk.job().state is JobState.HELD
    assert "earlier studies could not be looked up: pacs: ARCHIVE@127.0.0.1" in desk.job().reason
    house.archive.offline = False
    assert desk.ask() == 0  # it is let alone for its pause
    desk.pass_time(30)
    assert desk.ask() == 1
    assert desk.catch_up() == 1
    assert desk.outcome() == (JobState.QUEUED, POST_T2)
    assert desk.questions() == 0


def test_a_peer_that_is_down_is_asked_once_for_many_studies(house: House) -> None:
    desk = house.desk(POST_BY_STAGING)
    house.archive.offline = True
    for number in range(3):
        desk.receive(f"1.2.{number}")
        desk.decide()
        house.archive.offline = False  # the later ones would get an answer, if they asked
    assert desk.questions() == 3
    assert "not reachable" in desk.job("1.2.2").reason
    desk.pass_time(30)
    assert desk.ask() == 3


def test_a_peer_that_stays_down_is_asked_less_and_less(house: House) -> None:
    desk = house.desk(POST_BY_STAGING)
    house.archive.offline = True
    desk.receive()
    desk.decide()
    desk.pass_time(30)
    assert desk.ask() == 1
    desk.pass_time(30)
    assert desk.ask() == 0
    desk.pass_time(30)
    assert desk.ask() == 1


def test_an_open_question_survives_a_restart(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_STAGING)
    house.archive.offline = True
    desk.receive()
    desk.decide()
    house.archive.offline = False
    desk.restart()
    assert desk.ask() == 1
    assert desk.catch_up() == 1
    assert desk.outcome() == (JobState.QUEUED, POST_T2)


def test_a_decision_by_an_answer_outlives_the_peer(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.decide()
    house.archive.offline = True
    desk.spool.mark_study(folder_name("1.2.3"))
    desk.decide()
    assert desk.outcome() == (JobState.QUEUED, POST_T2)


def test_an_answer_without_a_fitting_study_stands_while_the_peer_is_away_and_is_renewed_after(house: House) -> None:
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.decide()
    house.archive.offline = True
    desk.pass_time(301)
    desk.spool.mark_study(folder_name("1.2.3"))
    desk.decide()
    assert "nobody told" in desk.job().reason
    house.archive.offline = False
    house.archive_has()
    desk.pass_time(30)
    desk.spool.mark_study(folder_name("1.2.3"))
    desk.decide()
    assert desk.outcome() == (JobState.QUEUED, POST_T2)


def test_an_answer_on_another_patient_is_none(house: House) -> None:
    house.archive_has()
    desk = house.desk(POST_BY_STAGING)
    desk.receive()
    desk.decide()
    for path in desk.spool.instances(SeriesKey(folder_name("1.2.3"), folder_name("1.2.3.4"))):
        path.unlink()
    desk.receive(PatientID="P-2")
    desk.decide()
    assert desk.job().state is JobState.HELD


# --- here


def test_the_other_half_of_a_visit_is_known_here(house: House) -> None:
    desk = house.desk(SAME_VISIT)
    desk.receive("1.2.1", called_ae="CRLM-PRE", StudyDate="20260531")
    desk.receive()
    desk.decide()
    assert desk.outcome() == (JobState.QUEUED, PRE_T2)


def test_a_description_is_known_here_without_any_peer(house: House) -> None:
    desk = house.desk(POST_BY_STAGING)
    desk.config = replace(desk.config, peers={"results": desk.config.peers["results"]})
    desk.restart()
    desk.receive("1.2.1", StudyDate="20260401", StudyDescription="MR before chemo")
    desk.receive()
    desk.decide()
    assert desk.outcome() == (JobState.QUEUED, POST_T2)


def test_what_an_earlier_study_was_by_another_earlier_study_is_no_word(house: House) -> None:
    desk = house.desk(SAME_VISIT)
    for number, day in enumerate(("20260529", "20260531", "20260603")):
        desk.receive(f"1.2.{number}", called_ae="CRLM-NODE" if number else "CRLM-PRE", StudyDate=day)
        desk.decide()
    assert [desk.outcome(f"1.2.{n}")[0] for n in range(3)] == [JobState.QUEUED, JobState.QUEUED, JobState.HELD]


def test_an_earlier_study_that_comes_later_decides_the_one_that_waits(house: House) -> None:
    desk = house.desk(SAME_VISIT)
    desk.receive()
    desk.decide()
    assert desk.job().state is JobState.HELD
    desk.receive("1.2.1", called_ae="CRLM-PRE", StudyDate="20260531")
    desk.decide()
    assert desk.outcome() == (JobState.QUEUED, PRE_T2)


def test_a_persons_word_on_an_earlier_study_decides_the_later_one(house: House) -> None:
    desk = house.desk(SAME_VISIT)
    desk.receive("1.2.1", StudyDate="20260531")
    desk.receive()
    desk.decide()
    held = desk.job("1.2.1")
    confirm_job(desk.config, desk.spool, desk.database, held.job_id, condition=None, time_point=TimePoint.PRE)
    desk.decide()
    assert desk.outcome("1.2.1") == (JobState.QUEUED, PRE_T2)
    assert desk.outcome() == (JobState.QUEUED, PRE_T2)


def test_a_therapy_decides_and_its_removal_takes_back_what_follows_from_an_earlier_study(house: House) -> None:
    desk = house.desk(SAME_VISIT)
    desk.receive("1.2.1", StudyDate="20260531")
    desk.receive()
    desk.decide()
    therapy = Therapy.from_iso(patient_id="P-1", issuer="", name="FOLFOX", start="2026-05-31")
    enter_therapies(desk.spool, desk.database, [therapy], default_issuer="")
    desk.decide()
    # the therapy itself speaks on the later one: one day on it
    assert desk.outcome("1.2.1") == (JobState.QUEUED, PRE_T2)
    assert "on therapy for 1 days" in desk.job().reason
    withdraw_therapy(desk.spool, desk.database, 1)
    desk.decide()
    assert desk.job("1.2.1").state is desk.job().state is JobState.HELD


def test_a_tag_rules_pre_after_a_known_post_waits_for_a_person(house: House) -> None:
    baseline = {"keyword": "StudyDescription", "pattern": "baseline", "time_point": "pre"}
    desk = house.desk(SAME_VISIT, tag_rules=(baseline,))
    desk.receive("1.2.1", called_ae="CRLM-POST", StudyDate="20260301")
    desk.receive(StudyDescription="baseline")
    desk.decide()
    assert desk.job().state is JobState.HELD
    assert "an earlier study of this patient was post-treatment" in desk.job().reason


def test_another_patients_studies_are_not_looked_at(house: House) -> None:
    desk = house.desk(SAME_VISIT)
    desk.receive("1.2.1", called_ae="CRLM-PRE", StudyDate="20260531", PatientID="P-2")
    desk.receive("1.2.2", called_ae="CRLM-PRE", StudyDate="20260531", IssuerOfPatientID="ELSEWHERE")
    desk.receive()
    desk.decide()
    assert desk.job().state is JobState.HELD


# --- therapies by the command line


def test_every_verb_on_therapies_has_the_patients_studies_looked_at_again(house: House) -> None:
    desk = house.desk()
    desk.receive()
    desk.decide()
    listed = house.folder / "therapies.csv"
    listed.write_text("patient_id,start\nP-1,2026-06-02\n", encoding="utf-8")
    folder = ["--config", str(desk.config.folder)]
    for verb, states in (
        (["add", "P-1", "--start", "2026-06-02", *folder], {JobState.QUEUED}),
        (["remove", "1", *folder], {JobState.HELD}),
        (["import", str(listed), *folder], {JobState.QUEUED}),
    ):
        told = CliRunner().invoke(therapies_app, verb)
        assert (told.exit_code, "1 known studies" in told.output or "1 studies" in told.output) == (0, True)
        desk.decide()
        assert {desk.job().state} == states, verb
