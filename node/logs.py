"""Logging of every role: one line per event, UTC, no patient.

Text by default (`key=value` after the event), JSON lines with CRLM_NODE_LOG_FORMAT=json; CRLM_NODE_LOG_LEVEL sets
the level. What a line may hold is decided here, once: study and series UIDs only as `pseudonym(uid)`, foreign
exceptions and warnings only as type and place, because pydicom and its kin quote header values in their texts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from node.errors import ConfigurationError, NodeError

LEVEL_VARIABLE = "CRLM_NODE_LOG_LEVEL"
FORMAT_VARIABLE = "CRLM_NODE_LOG_FORMAT"
KEY_FILE = "log.key"
# Below these levels the libraries log datasets, identifiers of queries, or a line per request.
LIBRARY_LEVELS = {
    "pynetdicom": logging.ERROR,
    "pydicom": logging.ERROR,
    "highdicom": logging.WARNING,
    "dicomweb_client": logging.CRITICAL,  # the URL of a query names the patient
    "retrying": logging.CRITICAL,
    "urllib3": logging.ERROR,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "alembic": logging.WARNING,
}

log = logging.getLogger(__name__)
_key = secrets.token_bytes(16)  # until a role names its spool: pseudonyms that hold within one process


def set_up(
    role: str,
    spool: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send every log record and warning of this process to `stream` (stderr) as one line each.

    All roles that name the same `spool` write the same pseudonyms. May be called again, for instance once the
    spool is known. Raises ConfigurationError for a level or format that does not exist.
    """
    environment = os.environ if environment is None else environment
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_formatter(environment.get(FORMAT_VARIABLE, "text"), role))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(_level(environment.get(LEVEL_VARIABLE, "info")))
    for library, level in LIBRARY_LEVELS.items():
        logging.getLogger(library).setLevel(level)
    warnings.showwarning = _log_warning
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    if spool is not None:
        global _key  # the one dial of `pseudonym`, which every room calls with a UID alone
        _key = pseudonym_key(spool)


def event(logger: logging.Logger, what: str, /, level: int = logging.INFO, **facts: object) -> None:
    """Log one event with its facts: `event(log, "series complete", study=pseudonym(uid), slices=30)`."""
    logger.log(level, "%s", what, extra={"facts": facts}, stacklevel=2)


def pseudonym(uid: str) -> str:
    """Twelve hexadecimal digits that stand for a UID: the same in all logs of one spool, not to be reversed."""
    return hashlib.blake2b(uid.encode(), key=_key, digest_size=6).hexdigest()


def pseudonym_key(spool: Path) -> bytes:
    """The spool's secret for pseudonyms (`spool/log.key`), made at the first call. Safe between processes."""
    path = spool / KEY_FILE
    if not path.exists():
        spool.mkdir(parents=True, exist_ok=True)
        own = spool / f".{KEY_FILE}.{os.getpid()}"
        own.touch(mode=0o600)
        own.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
        try:
            os.link(own, path)  # the first of several processes wins, and never with half a key
        except FileExistsError:
            pass
        finally:
            own.unlink()
    return bytes.fromhex(path.read_text(encoding="ascii").strip())


class _TextFormatter(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        head = f"{_time(record)} {record.levelname.lower()} role={self._role} logger={record.name}"
        facts = [f"{key}={_quoted(value)}" for key, value in _facts(record).items()]
        return " ".join([head, _one_line(_message(record)), *facts])


class _JsonFormatter(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "event": _message(record),
        }
        return json.dumps({**_facts(record), **line}, default=str)


_FORMATTERS: dict[str, type[_TextFormatter] | type[_JsonFormatter]] = {"text": _TextFormatter, "json": _JsonFormatter}


def _formatter(name: str, role: str) -> logging.Formatter:
    if name not in _FORMATTERS:
        raise ConfigurationError(f"environment variable {FORMAT_VARIABLE}={name!r}: write text or json")
    return _FORMATTERS[name](role)


def _level(name: str) -> int:
    level = logging.getLevelNamesMapping().get(name.upper())
    if level is None:
        raise ConfigurationError(f"environment variable {LEVEL_VARIABLE}={name!r}: write debug, info, warning or error")
    return level


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    # libraries write `logger.exception(error)`: then the message is the error's text
    return type(record.msg).__name__ if isinstance(record.msg, BaseException) else record.getMessage()


_UID = re.compile(r"\b[0-9]+(?:\.[0-9]+){5,}\b|\b2\.25\.[0-9]{12,}\b")
"""What can only be a UID: a version or an address has fewer parts."""


def _without_uids(value: object) -> object:
    return _UID.sub(lambda found: pseudonym(found[0]), value) if isinstance(value, str) else value


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    # a reason may name a file, and files are named after their instance
    facts = {key: _without_uids(value) for key, value in getattr(record, "facts", {}).items()}
    if record.exc_info and record.exc_info[1] is not None:
        facts |= _told(record.exc_info[1])
    return facts


def _told(error: BaseException) -> dict[str, str]:
    """What a log may say of an error: our own texts hold no patient, a foreign one might quote a header."""
    told = {"error": type(error).__name__, "where": _where(error)}
    if isinstance(error, NodeError):
        told["reason"] = str(error)
    elif isinstance(error, OSError) and error.strerror:
        told["reason"] = error.strerror
    if error.__cause__ is not None:
        told["cause"] = f"{type(error.__cause__).__name__} at {_where(error.__cause__)}"
    return told


def _where(error: BaseException) -> str:
    """The call chain, innermost first: `header.py:41 read < scp.py:88 store`."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def _log_uncaught(category: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(category, KeyboardInterrupt):
        sys.__excepthook__(category, error or category(), trace)
        return
    log.critical("uncaught exception", exc_info=(category, error or category(), trace))


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    event(log, "warning", level=logging.WARNING, category=category.__name__, where=f"{Path(filename).name}:{lineno}")


def _quoted(value: object) -> str:
    text = str(value)
    is_plain = text.isprintable() and text != "" and not any(character in text for character in ' ="\\')
    return text if is_plain else json.dumps(text)


def _one_line(text: str) -> str:
    """An AE title or a path from outside must not be able to write a second line."""
    return text if text.isprintable() else json.dumps(text)[1:-1]
