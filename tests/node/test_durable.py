"""Files that are there or not at all, and whose parts are swept by nobody but the right one."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from node.durable import Parts, make_folder, place_new, touch

WRITE_AND_STAY = """
import sys
from pathlib import Path
from node.durable import Parts
print(Parts(Path(sys.argv[1])).write([b"half"]), flush=True)
sys.stdin.read()
"""


def parts_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.part"))


@pytest.fixture
def foreign_writer(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that has written a part and lives."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_STAY, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline().strip().endswith(".part")
    return process


def test_a_part_holds_all_chunks_in_their_order(tmp_path: Path) -> None:
    assert Parts(tmp_path).write([b"one", bytearray(b"two"), memoryview(b"three")]).read_bytes() == b"onetwothree"


def test_the_part_of_a_living_writer_is_not_swept(tmp_path: Path, foreign_writer: subprocess.Popen[str]) -> None:
    assert Parts(tmp_path).sweep() == 0
    assert len(parts_in(tmp_path)) == 1
    foreign_writer.kill()
    foreign_writer.communicate()


def test_the_part_of_a_killed_writer_is_swept_with_its_lock(
    tmp_path: Path, foreign_writer: subprocess.Popen[str]
) -> None:
    foreign_writer.kill()
    foreign_writer.communicate()
    assert Parts(tmp_path).sweep() == 1
    assert not list(tmp_path.iterdir())


def test_a_writer_does_not_sweep_its_own_parts(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    part = parts.write([b"mine"])
    assert parts.sweep() == 0
    assert part.exists()


def test_threads_of_one_writer_never_share_a_part(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    threads = [threading.Thread(target=lambda: [parts.write([b"x"]) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(parts_in(tmp_path)) == 160
    assert len(list(tmp_path.glob("*.lock"))) == 1


def test_a_name_that_is_taken_is_never_replaced(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    first, second = parts.write([b"first"]), parts.write([b"second"])
    assert place_new(first, tmp_path / "final")
    assert not place_new(second, tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == b"first"
    assert second.exists()
    assert not first.exists()


def test_folders_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c", tmp_path)
    make_folder(tmp_path / "a" / "b" / "c", tmp_path)
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.rglob("*"))] == [0o700] * 3


def test_touching_what_exists_leaves_its_content_and_time(tmp_path: Path) -> None:
    path = tmp_path / "marker"
    path.write_text("content")
    before = path.stat().st_mtime_ns
    touch(path)
    assert (path.read_text(), path.stat().st_mtime_ns) == ("content", before)
