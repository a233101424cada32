"""The spool's protocol without a network: what is kept where, and what is told of it."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.domain import SeriesKey
from node.errors import ConfigurationError, SpoolFull
from node.spool import Outcome, Spool, folder_name
from tests.receiving import ct_slice, encoded, keep, new_uid


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path / "spool")


def key_of(dataset: Dataset) -> SeriesKey:
    return SeriesKey(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))


# --- names


@pytest.mark.parametrize("uid", ["1.2.840.10008.1", "0.1", "2.25.329800735698586629295641978511506172918"])
def test_a_valid_uid_is_its_own_name(uid: str) -> None:
    assert folder_name(uid) == uid


@pytest.mark.parametrize(
    "uid", ["", ".", "..", "../../etc/passwd", "/", "1.2/3", "1..2", "1.02", "1.2\n", "1.2\0", "Ü", "1" * 65, "x", "~"]
)
def test_anything_else_is_named_by_its_digest(uid: str) -> None:
    name = folder_name(uid)
    assert name.startswith("x-")
    assert len(name) == 34
    assert not set(name) & set("/.~\0")


def test_different_identifiers_have_different_names() -> None:
    assert len({folder_name(uid) for uid in ("", " ", "a", "A", "1.02", "1.2")}) == 6


# --- opening


def test_a_spool_keeps_its_id(tmp_path: Path) -> None:
    assert Spool.open(tmp_path / "spool").spool_id == Spool.open(tmp_path / "spool").spool_id


def test_processes_that_open_a_new_spool_at_once_agree_on_its_id(tmp_path: Path) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(Spool.open(tmp_path / "s").spool_id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_a_spool_of_another_layout_is_refused_with_a_sentence(tmp_path: Path) -> None:
    Spool.open(tmp_path / "spool")
    (tmp_path / "spool" / "spool.json").write_text('{"spool_id": "x", "layout": 99}')
    with pytest.raises(ConfigurationError, match="layout 99"):
        Spool.open(tmp_path / "spool")


def test_a_spool_that_cannot_be_made_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"spool\.path = .*name a folder"):
        Spool.open(tmp_path / "file" / "spool")


# --- keeping


def test_an_instance_lies_in_its_series_under_its_uid(spool: Spool) -> None:
    dataset = ct_slice()
    kept = keep(spool, dataset)
    assert kept.outcome is Outcome.STORED
    assert kept.path == spool.series_folder(key_of(dataset)) / f"{dataset.SOPInstanceUID}.dcm"
    assert dcmread(kept.path) == dataset


def test_the_marker_is_there_before_and_after(spool: Spool) -> None:
    dataset = ct_slice()
    keep(spool, dataset)
    assert spool.dirty() == [key_of(dataset)]


def test_a_repeat_marks_the_series_again(spool: Spool) -> None:
    dataset = ct_slice()
    keep(spool, dataset)
    assert spool.claim(key_of(dataset))
    assert spool.dirty() == []
    assert keep(spool, dataset).outcome is Outcome.IDENTICAL
    assert spool.dirty() == [key_of(dataset)]


def test_the_same_instance_by_another_sender_is_identical(spool: Spool) -> None:
    # archives pass on what scanners sent before: a study that comes by both ways is analysed once
    dataset = ct_slice()
    keep(spool, dataset)
    stored = spool.instances(key_of(dataset))[0]
    stored.write_bytes(stored.read_bytes().replace(b"PACS", b"SCAN"))
    assert keep(spool, dataset).outcome is Outcome.IDENTICAL


def test_the_same_instance_to_another_title_of_ours_is_a_new_version(spool: Spool) -> None:
    # by sending a study again to CRLM-PRE, a site says what it is
    dataset = ct_slice()
    keep(spool, dataset, called_ae="CRLM-NODE")
    assert keep(spool, dataset, called_ae="CRLM-PRE").outcome is Outcome.REPEAT
    assert keep(spool, dataset, called_ae="CRLM-PRE").outcome is Outcome.IDENTICAL


def test_repeats_are_told_in_order_of_arrival(spool: Spool) -> None:
    dataset = ct_slice()
    keep(spool, dataset)
    for name in ("C", "A", "B"):
        dataset.PatientName = name
        keep(spool, dataset)
    assert [str(dcmread(path).PatientName) for path in spool.repeats(key_of(dataset))] == ["C", "A", "B"]


def test_of_two_writers_of_one_uid_neither_replaces_the_other(tmp_path: Path) -> None:
    spools = [Spool.open(tmp_path / "spool") for _ in range(8)]
    dataset = ct_slice()
    contents = [encoded(ct_slice(SOPInstanceUID=dataset.SOPInstanceUID, PatientID=str(n))) for n in range(len(spools))]
    start = threading.Barrier(len(spools))

    def write(number: int) -> None:
        start.wait()
        keep(spools[number], dataset, data=contents[number])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(spools))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = [*spools[0].instances(key_of(dataset)), *spools[0].repeats(key_of(dataset))]
    assert {dcmread(path).PatientID for path in files} == {str(number) for number in range(len(spools))}


def test_a_series_folder_that_was_cleared_away_is_made_again(spool: Spool) -> None:
    first = ct_slice()
    path = keep(spool, first).path
    path.unlink()
    path.parent.rmdir()
    path.parent.parent.rmdir()
    second = ct_slice(first.StudyInstanceUID, first.SeriesInstanceUID)
    assert keep(spool, second).path.exists()


def test_below_the_floor_nothing_is_kept(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool", min_free_bytes=1 << 60)
    with pytest.raises(SpoolFull, match="min_free_mb"):
        keep(spool, ct_slice())
    with pytest.raises(SpoolFull):
        spool.quarantine([b"bytes"], "reason")
    assert spool.studies() == []


def test_nothing_in_the_spool_is_readable_by_others(spool: Spool) -> None:
    dataset = ct_slice()
    keep(spool, dataset)
    dataset.PatientID = "other"
    keep(spool, dataset)
    spool.quarantine([b"bytes"], "reason")
    spool.mark_result([new_uid()])
    spool.job_folder("job-1")
    assert [path for path in spool.path.rglob("*") if path.stat().st_mode & 0o077] == []


# --- judging


def test_a_newer_header_takes_the_place_and_the_older_is_kept(spool: Spool) -> None:
    dataset = ct_slice(PatientName="Old^Name")
    keep(spool, dataset)
    dataset.PatientName = "New^Name"
    keep(spool, dataset)
    key = key_of(dataset)
    current = spool.supersede(spool.repeats(key)[0], key)
    assert str(dcmread(current).PatientName) == "New^Name"
    (older,) = (spool.path / "versions" / key.marker).iterdir()
    assert str(dcmread(older).PatientName) == "Old^Name"
    assert spool.repeats(key) == ()


def test_a_judgement_that_a_crash_cut_off_can_be_repeated(spool: Spool) -> None:
    dataset = ct_slice()
    path = keep(spool, dataset).path
    dataset.PatientName = "New^Name"
    keep(spool, dataset)
    key = key_of(dataset)
    spool.supersede(spool.repeats(key)[0], key)
    # as if the crash had come after the older one was put away
    (older,) = (spool.path / "versions" / key.marker).iterdir()
    newer = path.read_bytes()
    path.unlink()
    os.link(older, path)
    repeat = spool.path / "repeats" / key.marker / f"{dataset.SOPInstanceUID}~0123456789ab.dcm"
    repeat.write_bytes(newer)
    spool.supersede(repeat, key)
    assert path.read_bytes() == newer
    assert len(list((spool.path / "versions" / key.marker).iterdir())) == 1


def test_what_contradicts_is_kept_aside(spool: Spool) -> None:
    dataset = ct_slice()
    keep(spool, dataset)
    dataset.PixelData = b"\1" * len(dataset.PixelData)
    keep(spool, dataset)
    key = key_of(dataset)
    spool.set_aside(spool.repeats(key)[0], key)
    assert len(spool.aside(key)) == 1
    assert spool.repeats(key) == ()
    assert spool.original_of(spool.aside(key)[0], key) == spool.instances(key)[0]


def test_who_asks_in_the_wrong_folder_is_told_and_leaves_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no spool is there; run this where the node runs"):
        Spool.of_node(tmp_path / "spool")
    assert not (tmp_path / "spool").exists()


def test_who_asks_where_the_node_ran_gets_its_spool(spool: Spool) -> None:
    assert Spool.of_node(spool.path).spool_id == spool.spool_id


# --- quarantine


def test_quarantine_keeps_the_bytes_with_the_reason(spool: Spool) -> None:
    name = spool.quarantine([b"by", b"tes"], "not a data set", {"calling_ae": "PACS"})
    (item,) = spool.quarantined()
    assert (item.id, item.path.read_bytes(), item.reason) == (name, b"bytes", "not a data set")
    assert item.facts == {"calling_ae": "PACS"}


def test_the_same_poison_again_takes_no_more_room(spool: Spool) -> None:
    assert spool.quarantine([b"poison"], "reason") == spool.quarantine([b"poison"], "reason")
    assert len(spool.quarantined()) == 1


def test_a_stored_instance_can_be_taken_out_of_its_series(spool: Spool) -> None:
    dataset = ct_slice()
    path = keep(spool, dataset).path
    content = path.read_bytes()
    spool.quarantine_file(path, "no pixel data")
    assert spool.instances(key_of(dataset)) == ()
    assert spool.quarantined()[0].path.read_bytes() == content


# --- the node's own


def test_a_result_is_known_by_its_exact_uid(spool: Spool) -> None:
    uid = new_uid()
    spool.mark_result([uid])
    assert spool.is_our_result(uid)
    assert not spool.is_our_result(uid + "1")
    assert not spool.is_our_result("")


def test_commitment_reports_are_told_oldest_first(spool: Spool) -> None:
    late, early = new_uid(), new_uid()
    for uid, hour in ((late, 12), (early, 9)):
        spool.write_commitment_report(
            {"transaction_uid": uid, "committed": ["1.2"], "failed": {"1.3": 0x0112}},
            "ARCHIVE",
            datetime(2026, 1, 1, hour, tzinfo=UTC),
        )
    reports = spool.commitment_reports()
    assert [one.report["transaction_uid"] for one in reports] == [early, late]
    assert reports[0].report == {"transaction_uid": early, "committed": ["1.2"], "failed": {"1.3": 0x0112}}
    reports[0].path.unlink()
    assert len(spool.commitment_reports()) == 1


def test_a_foreign_file_among_the_markers_is_no_series(spool: Spool) -> None:
    (spool.path / "dirty" / ".DS_Store").touch()
    assert spool.dirty() == []
