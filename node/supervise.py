"""What runs where: one process per role, started, watched, started again, ended together.

The supervisor binds the listening socket once and passes it on, so a receiver can die and come back without the
port ever being closed: what connects meanwhile waits in the backlog. It does no work of its own and imports no role.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node import logs
from node.config import Config, DicomSettings
from node.errors import ConfigurationError
from node.lifeline import VARIABLE

ROLES = {"receive": "node.roles.receive", "work": "node.roles.work"}
"""Role → the module that is its process."""

BACKLOG = 128
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
PROVEN_AFTER_S = 60.0
"""A process that lived so long has shown that it can: its next end counts as the first again."""
GRACE_S = 30.0
"""After SIGTERM, until SIGKILL. A step that is cut off then is taken up again at the next start."""
USAGE = 2
"""Exit code of a role that cannot begin with this configuration: trying again would not help."""
_FIRST_PASSED_FD = 3  # sd_listen_fds(3)

log = logging.getLogger("node.supervise")


def serve(config: Config, roles: Sequence[str]) -> int:
    """Run these roles until SIGTERM or SIGINT; returns the exit code.

    Prints one line to stdout once every role is ready, and keeps `ready.json` in the spool while they run. Raises
    ConfigurationError where the port cannot be had, or where another node serves this spool.
    """
    with contextlib.ExitStack() as stack:
        for role in roles:
            stack.enter_context(_alone(config.spool_path, role))
        listening = None
        if "receive" in roles:
            listening = stack.enter_context(listening_socket(config.node.dicom, os.environ))
        supervisor = _Supervisor(config, roles, listening)
        stack.enter_context(supervisor.signals())
        return supervisor.run()


def listening_socket(settings: DicomSettings, environment: Mapping[str, str]) -> socket.socket:
    """The socket that systemd passed, or one bound as configured; port 0 takes any free one."""
    if environment.get("LISTEN_PID") == str(os.getpid()) and int(environment.get("LISTEN_FDS", "0")) > 0:
        return socket.socket(fileno=_FIRST_PASSED_FD)
    is_v6 = ":" in settings.host
    try:
        return socket.create_server(
            (settings.host, settings.port),
            family=socket.AF_INET6 if is_v6 else socket.AF_INET,
            backlog=BACKLOG,
            dualstack_ipv6=is_v6 and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise ConfigurationError(
            f"dicom.host = {settings.host}, dicom.port = {settings.port}: cannot listen there ({error.strerror}); "
            "choose another port, or end what has it"
        ) from error


def restart_delay_s(failures: int) -> float:
    """How long to wait before the start after that many ends in a row."""
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 16))


@contextlib.contextmanager
def _alone(spool: Path, role: str) -> Iterator[None]:
    """Hold the spool's lock of this role: two workers on one spool would do each other's jobs twice."""
    try:
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"spool.path = {spool}: cannot be made ({error.strerror}); name a folder on a local disk that the node "
            "may write"
        ) from error
    with (spool / f"serve-{role}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigurationError(
                f"spool.path = {spool}: the node with process id {file.read().strip()} serves this spool already, "
                f"with role {role}; end it, or give this one a spool of its own"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@dataclass(frozen=True)
class _Part:
    """One process to be: its name, role, and command line."""

    name: str
    role: str
    command: tuple[str, ...]


@dataclass
class _Child:
    """One process as it is."""

    part: _Part
    process: subprocess.Popen[bytes] | None = None
    wire: socket.socket | None = None
    started_at_s: float = 0.0
    start_at_s: float = 0.0
    failures: int = 0
    is_ready: bool = False


@dataclass
class _Supervisor:
    config: Config
    roles: Sequence[str]
    listening: socket.socket | None
    children: list[_Child] = field(default_factory=list)
    is_ending: bool = False
    has_announced: bool = False
    exit_code: int = 0

    def __post_init__(self) -> None:
        self.children = [_Child(part) for role in self.roles for part in self._parts(role)]
        self._selector = selectors.DefaultSelector()

    def _parts(self, role: str) -> Iterator[_Part]:
        base = (sys.executable, "-m", ROLES[role], "--config", str(self.config.folder))
        if role != "receive":
            yield _Part(role, role, (*base, "--index", "0"))
            return
        count = self.config.node.dicom.receivers
        for number in range(1, count + 1):
            share = f"{number}/{count}"
            yield _Part(f"receive-{number}", role, (*base, "--socket-fd", str(self._listening_fd), "--share", share))

    @property
    def _listening_fd(self) -> int:
        return self.listening.fileno() if self.listening else -1

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end it, SIGCHLD wakes it; as before afterwards."""
        waking, woken = socket.socketpair()
        waking.setblocking(False)
        woken.setblocking(False)
        self._selector.register(woken, selectors.EVENT_READ)
        handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._on_end)
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        previous = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            waking.close()
            woken.close()

    def _on_end(self, number: int, frame: object) -> None:
        self.is_ending = True

    def run(self) -> int:
        """Until the end was asked for, or a role cannot begin."""
        self._ready_file.unlink(missing_ok=True)  # of a supervisor that was killed
        try:
            while not self.is_ending:
                self._start_due()
                self._wait(self._next_start_s())
                self._reap()
                self._announce()
        finally:
            self._end_all()
            self._ready_file.unlink(missing_ok=True)
        return self.exit_code

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.process is None and child.start_at_s <= now:
                self._start(child)

    def _start(self, child: _Child) -> None:
        ours, theirs = socket.socketpair()
        passed = [theirs.fileno()] + ([self._listening_fd] if child.part.role == "receive" else [])
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LISTEN_")}
        environment[VARIABLE] = str(theirs.fileno())
        # a session of its own: Ctrl-C in the terminal reaches the supervisor alone, which ends the roles in order
        child.process = subprocess.Popen(child.part.command, pass_fds=passed, env=environment, start_new_session=True)
        theirs.close()
        ours.setblocking(False)
        child.wire, child.started_at_s, child.is_ready = ours, time.monotonic(), False
        self._selector.register(ours, selectors.EVENT_READ, child)
        log.debug("%s started", child.part.name)

    def _next_start_s(self) -> float | None:
        waiting = [child.start_at_s for child in self.children if child.process is None]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _wait(self, timeout_s: float | None) -> None:
        for key, _ in self._selector.select(timeout_s):
            wire = key.fileobj
            assert isinstance(wire, socket.socket)
            with contextlib.suppress(OSError):
                received = wire.recv(4096)
                if key.data is None:
                    continue
                if received:
                    key.data.is_ready = True
                else:  # the process is ending; its exit code comes by SIGCHLD
                    self._selector.unregister(wire)

    def _reap(self) -> None:
        for child in self.children:
            if child.process is not None and (code := child.process.poll()) is not None:
                self._ended(child, code)

    def _ended(self, child: _Child, code: int) -> None:
        lived_s = time.monotonic() - child.started_at_s
        child.failures = 1 if lived_s >= PROVEN_AFTER_S else child.failures + 1
        delay_s = restart_delay_s(child.failures)
        child.process, child.start_at_s = None, time.monotonic() + delay_s
        if child.wire is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(child.wire)
            child.wire.close()
        if code == USAGE and not self.has_announced:
            # it has said on stderr what to mend
            self.is_ending, self.exit_code = True, USAGE
        elif not self.is_ending:
            facts = {"process": child.part.name, "exit_code": code, "lived_s": round(lived_s, 1), "again_in_s": delay_s}
            logs.event(log, "role ended", level=logging.ERROR, **facts)

    def _announce(self) -> None:
        if self.is_ending or not all(child.is_ready and child.process for child in self.children):
            return
        self._write_ready()
        if not self.has_announced:  # and whoever reads the line finds the file
            self.has_announced = True
            sys.stdout.write(f"{self._ready_line()}\n")
            sys.stdout.flush()

    def _ready_line(self) -> str:
        what = ", ".join(
            f"{role} ×{self.config.node.dicom.receivers}" if role == "receive" else role for role in self.roles
        )
        place = f" on {self.config.node.dicom.host}:{self._port}" if self.listening else ""
        return f"crlm-node ready: AE {self.config.node.dicom.ae_title}{place} ({what})"

    @property
    def _port(self) -> int | None:
        return int(self.listening.getsockname()[1]) if self.listening else None

    @property
    def _ready_file(self) -> Path:
        # a node whose roles are apart has one file a supervisor; who has the port has the plain name
        name = "ready.json" if self.listening else f"ready-{'-'.join(self.roles)}.json"
        return self.config.spool_path / name

    def _write_ready(self) -> None:
        pids = {child.part.name: child.process.pid for child in self.children if child.process}
        content = json.dumps(
            {"ae_title": self.config.node.dicom.ae_title, "port": self._port, "supervisor": os.getpid(), "pids": pids}
        )
        if self._ready_file.exists() and self._ready_file.read_text() == content:
            return
        part = self._ready_file.with_suffix(".part")
        part.write_text(content)
        part.replace(self._ready_file)

    def _end_all(self) -> None:
        deadline = time.monotonic() + GRACE_S
        processes = [child.process for child in self.children if child.process]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logs.event(log, "role killed", level=logging.ERROR, pid=process.pid, after_s=GRACE_S)
                process.kill()
                process.wait()
        for child in self.children:
            if child.wire is not None:
                child.wire.close()
