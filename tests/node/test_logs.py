"""Logs are one line an event, and hold no patient."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import logs
from node.errors import ConfigurationError, PeerError

log = logging.getLogger("node.example")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """`set_up` changes the process; hand it back as pytest had it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    library_levels = {name: logging.getLogger(name).level for name in logs.LIBRARY_LEVELS}
    hooks = (sys.excepthook, threading.excepthook, warnings.showwarning)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, library_level in library_levels.items():
        logging.getLogger(name).setLevel(library_level)
    sys.excepthook, threading.excepthook, warnings.showwarning = hooks


def set_up(**environment: str) -> io.StringIO:
    stream = io.StringIO()
    logs.set_up("work", environment=environment, stream=stream)
    return stream


def test_an_event_is_one_line_of_time_level_role_and_facts() -> None:
    stream = set_up()
    logs.event(log, "series complete", slices=30, why="quiet for 10 s")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(' info role=work logger=node.example series complete slices=30 why="quiet for 10 s"')
    assert line.split(" ")[0].endswith("Z")


def test_json_lines_are_read_back_with_the_same_facts() -> None:
    stream = set_up(CRLM_NODE_LOG_FORMAT="json")
    logs.event(log, "sent", level=logging.WARNING, peer="pacs", path=Path("a b"))
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "role": "work",
        "logger": "node.example",
        "event": "sent",
        "peer": "pacs",
        "path": "a b",
    }


def test_a_caller_cannot_write_a_second_line() -> None:
    stream = set_up()
    log.info("association from %s", "EVIL\n2026-01-01T00:00:00.000Z info role=work forged")
    logs.event(log, "association", calling="EVIL\r\nforged")
    assert len(stream.getvalue().splitlines()) == 2


def test_a_uid_in_a_reason_is_told_by_its_pseudonym() -> None:
    told = set_up()
    uid = "1.2.826.0.1.3680043.8.498.73944"
    logs.event(logging.getLogger("node.x"), "failed", reason=f"{uid}.dcm: it has no pixel data", version="3.11.7")
    assert uid not in told.getvalue()
    assert f"{logs.pseudonym(uid)}.dcm: it has no pixel data" in told.getvalue()
    assert "3.11.7" in told.getvalue()


def test_the_level_comes_from_the_environment() -> None:
    stream = set_up(CRLM_NODE_LOG_LEVEL="warning")
    log.info("not told")
    log.warning("told")
    assert "not told" not in stream.getvalue()
    assert "told" in stream.getvalue()


@pytest.mark.parametrize("variable", ["CRLM_NODE_LOG_LEVEL", "CRLM_NODE_LOG_FORMAT"])
def test_a_level_or_format_that_does_not_exist_is_refused_with_its_fix(variable: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable}='loud': write "):
        set_up(**{variable: "loud"})


def test_a_foreign_exception_is_told_by_type_and_place_and_not_by_its_text() -> None:
    stream = set_up()
    try:
        int("DOE^JANE")
    except ValueError:
        log.exception("header not read")
    line = stream.getvalue()
    assert "header not read error=ValueError" in line
    assert "test_logs.py:" in line
    assert "DOE" not in line
    assert len(line.splitlines()) == 1


def test_an_exception_given_as_the_message_is_told_by_type() -> None:
    stream = set_up()
    try:
        int("DOE^JANE")
    except ValueError as error:
        log.exception(error)
    assert "DOE" not in stream.getvalue()
    assert "error=ValueError" in stream.getvalue()


def test_an_error_of_ours_is_told_with_its_reason() -> None:
    stream = set_up()
    try:
        raise PeerError("PACS did not answer within 60 s")
    except PeerError:
        log.exception("not sent")
    assert 'reason="PACS did not answer within 60 s"' in stream.getvalue()


def test_a_warning_that_quotes_a_birth_date_is_logged_without_it() -> None:
    stream = set_up()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = logs._log_warning
        warnings.warn("Invalid value for VR DA: '19701231x'", UserWarning, stacklevel=1)
    assert "category=UserWarning" in stream.getvalue()
    assert "1970" not in stream.getvalue()


def test_an_uncaught_exception_ends_as_one_line_without_its_text() -> None:
    program = "from node import logs; logs.set_up('work'); int('DOE^JANE')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "critical role=work" in line
    assert "error=ValueError" in line
    assert "DOE" not in line


def test_roles_of_one_spool_write_the_same_pseudonym(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from node import logs; "
        "logs.set_up('receive', pathlib.Path(sys.argv[1])); print(logs.pseudonym('1.2.3'))"
    )
    roles = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    written = {role.communicate(timeout=30)[0] for role in roles}
    assert len(written) == 1
    assert len(written.pop().strip()) == 12


def test_pseudonyms_differ_between_spools_and_hide_the_uid(tmp_path: Path) -> None:
    told = set()
    for name in ("a", "b"):
        logs.set_up("work", tmp_path / name, environment={}, stream=io.StringIO())
        told.add(logs.pseudonym("1.2.3"))
    assert len(told) == 2
    assert not any("1.2.3" in name for name in told)


def test_the_key_of_the_pseudonyms_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    logs.pseudonym_key(tmp_path)
    assert (tmp_path / logs.KEY_FILE).stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == [logs.KEY_FILE]
