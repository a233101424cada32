"""Delivery into a folder: whole files or none, as often as one likes."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node.config_peers import FolderPeer
from node.peers import echo, send

OURS = "CRLM-NODE"


@pytest.fixture
def make_peer() -> Callable[[Path], FolderPeer]:
    return lambda path: FolderPeer(protocol="folder", path=path, may_receive=True)


@contextmanager
def files_up_to(size_bytes: int) -> Iterator[None]:
    """As on a disk that fills up in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_each_job_gets_a_folder_with_the_very_files(results: Any, make_peer: Any, tmp_path: Path) -> None:
    receipt = send(make_peer(tmp_path / "results"), results.objects, OURS)
    assert receipt.is_stored, receipt.reason
    job = tmp_path / "results" / results.of("seg").path.parent.name
    assert sorted(path.name for path in job.iterdir()) == ["seg.dcm", "sr.dcm"]
    for item in results.objects:
        assert (job / item.path.name).read_bytes() == item.path.read_bytes()
        assert receipt.statuses[item.sop_instance_uid] == 200


def test_sending_twice_is_sending_once(results: Any, make_peer: Any, tmp_path: Path) -> None:
    send(make_peer(tmp_path), results.objects, OURS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
    assert send(make_peer(tmp_path), results.objects, OURS).is_stored
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_file_with_other_content_is_never_replaced(results: Any, make_peer: Any, tmp_path: Path) -> None:
    there = tmp_path / results.of("sr").path.parent.name / "sr.dcm"
    there.parent.mkdir()
    there.write_bytes(b"of somebody else")
    receipt = send(make_peer(tmp_path), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)
    assert "other content" in receipt.reason
    assert there.read_bytes() == b"of somebody else"
    assert list(receipt.statuses) == [results.of("seg").sop_instance_uid]


def test_a_share_that_is_not_mounted_is_awaited_and_not_replaced_by_a_folder(
    results: Any, make_peer: Any, tmp_path: Path
) -> None:
    receipt = send(make_peer(tmp_path / "share" / "results"), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert "mount the share" in receipt.reason
    assert not (tmp_path / "share").exists()


def test_a_file_where_the_folder_should_be_is_for_a_person(results: Any, make_peer: Any, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("no folder")
    receipt = send(make_peer(tmp_path / "results"), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, False)


def test_a_disk_that_fills_up_leaves_no_half_file_and_is_tried_again(
    results: Any, make_peer: Any, tmp_path: Path
) -> None:
    with files_up_to(100):
        receipt = send(make_peer(tmp_path), results.objects, OURS)
    assert (receipt.is_stored, receipt.retry) == (False, True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_echo_leaves_nothing_behind_not_even_the_folder(make_peer: Any, tmp_path: Path) -> None:
    result = echo(make_peer(tmp_path / "results"), OURS)
    assert result.is_ok, result.what
    assert not list(tmp_path.iterdir())


def test_echo_says_what_is_in_the_way(make_peer: Any, tmp_path: Path) -> None:
    result = echo(make_peer(tmp_path / "share" / "results"), OURS)
    assert not result.is_ok
    assert "make the folder above it, or mount the share" in result.what
