"""Is this node fit to serve? Each examination stands by itself and ends in a sentence that says what to do."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydicom.pixels.decoders.base import get_decoder

from node.bundles import cards_of
from node.config import Config
from node.config_peers import AnyPeer, DimsePeer
from node.database import read_revision
from node.doctor_spool import (
    SKEW_S,
    SLOW_MS,
    file_system_fault,
    file_system_of,
    measure,
    room_bytes,
    standing_folder,
)
from node.errors import ConfigurationError, DatabaseAway, PeerError
from node.peers import accepted_classes, echo
from node.scp_contexts import READABLE_SYNTAXES
from node.tables import REVISION

PATIENCE_S = 10.0
"""How long a peer is waited for here, however patient its deliveries are."""
RESULT_CLASSES = {"seg": "1.2.840.10008.5.1.4.1.1.66.4", "sr": "1.2.840.10008.5.1.4.1.1.88.34"}
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
DCMTK = ("echoscu", "storescu", "dcmdump")


@dataclass(frozen=True)
class Check:
    """One examined thing: what was found and, where that is not well, the one thing to do."""

    name: str
    is_ok: bool
    detail: str
    fix: str = ""


def examine(config: Config) -> Iterator[Check]:
    """Everything that `serve` leans on, one after another. Leaves nothing behind, and never raises."""
    for name, examination in EXAMINATIONS:
        for check in _kept_apart(name, examination, config):
            yield replace(check, fix="") if check.is_ok else check


def _kept_apart(name: str, examination: Examination, config: Config) -> Iterator[Check]:
    try:
        yield from examination(config)
    except Exception as error:  # noqa: BLE001 - a sick organ must not end the examination of the others
        yield Check(
            name, False, f"the examination itself failed: {type(error).__name__}: {error}", "report this as a bug"
        )


def _configuration(config: Config) -> Iterator[Check]:
    titles = ", ".join(sorted(config.node.dicom.our_titles))
    detail = f"{config.folder}: AE {titles}; {len(config.peers)} peers, {len(config.routes)} routes"
    undelivered = [route.condition for route in config.routes if not route.deliver_to]
    if undelivered:
        detail += f"; results of {', '.join(undelivered)} are kept and delivered nowhere"
    yield Check("configuration", bool(config.routes), detail, "write a route into routes.yaml: nothing is analysed")


def _spool(config: Config) -> Iterator[Check]:
    path = config.spool_path
    try:
        folder = standing_folder(path)
        seen = measure(folder)
    except OSError as error:
        fix = "let the node's user write there, or set spool.path to a folder on a local disk"
        yield Check("spool", False, f"{path}: {error.strerror}", fix)
        return
    place = str(path) if folder == path else f"{path} (made at the first start, in {folder})"
    lacks = [w for w, has in (("locks", seen.has_locks), ("hard links", seen.has_hard_links)) if not has]
    yield Check(
        "spool",
        not lacks and seen.write_ms <= SLOW_MS,
        f"{place}: {seen.write_ms:.1f} ms until an image is durable"
        + (f"; no {' and no '.join(lacks)}" if lacks else ""),
        "set spool.path to a local disk" + ("" if lacks else f" that needs less than {SLOW_MS:.0f} ms"),
    )
    yield Check(
        "spool clock",
        abs(seen.skew_s) <= SKEW_S,
        f"file times are {seen.skew_s:+.1f} s from our clock",
        "set the clocks of this machine and of its file server by NTP",
    )


def _spool_disk(config: Config) -> Iterator[Check]:
    folder = standing_folder(config.spool_path)
    floor_mb = config.node.spool.min_free_mb
    free_bytes, free_inodes = room_bytes(folder)
    free_mb = free_bytes / 1e6
    yield Check(
        "spool room",
        free_mb > floor_mb and free_inodes > 10_000,
        f"{free_mb / 1000:.1f} GB and {free_inodes} files free; below {floor_mb / 1000:.1f} GB images are refused",
        "free space on that disk, or set spool.path to a larger one",
    )
    kind = file_system_of(folder)
    is_sqlite_on_it = config.database_url.startswith("sqlite")
    fault = file_system_fault(kind, is_sqlite_on_it=is_sqlite_on_it)
    yield Check(
        "spool file system", fault is None, fault[0] if fault else kind or "not told", fault[1] if fault else ""
    )


def _spool_privacy(config: Config) -> Iterator[Check]:
    path = config.spool_path
    if not path.is_dir():
        return
    mode, owner = path.stat().st_mode & 0o777, path.stat().st_uid
    yield Check(
        "spool privacy",
        mode & 0o077 == 0 and owner == os.geteuid(),
        f"mode {mode:03o}, owned by user {owner}; we are user {os.geteuid()}",
        f"patients' images lie there: chmod 700 {path}, owned by the user that runs the node",
    )


def _database(config: Config) -> Iterator[Check]:
    url = config.database_url
    place = "SQLite in the spool" if url.startswith("sqlite") else url.split("@")[-1]
    try:
        found = read_revision(url)
    except (ConfigurationError, DatabaseAway) as error:
        yield Check("database", False, str(error), "start the server, or correct database.url in node.yaml")
        return
    if found is None:
        yield Check("database", True, f"{place}: empty, its tables are made at the first start")
        return
    detail = f"{place}: revision {found}" + ("" if found == REVISION else f", this node's is {REVISION}")
    is_older = found < REVISION
    yield Check(
        "database",
        found == REVISION or is_older,
        detail + ("; upgraded at the next start" if is_older else ""),
        "a newer node used it: update this one",
    )


def _bundles(config: Config) -> Iterator[Check]:
    # torch is imported only here, below
    from model.bundle import load_bundle
    from model.card import BundleProblem
    from model.engine import Engine

    compute = config.node.compute
    users: dict[str, list[str]] = {}
    for route in config.routes:
        users.setdefault(route.bundle, []).append(route.condition)
    are_whole = True
    for name, conditions in users.items():
        try:
            bundle = load_bundle(config.bundle_path(name))
            engine = Engine(bundle, compute.device, compute.threads, compute.backend)
            seconds = engine.dry_run()
        except (BundleProblem, ValueError) as error:
            # a ValueError is the device's, which the examination of the accelerator explains
            fix = "restore the bundle's folder, or name another bundle in routes.yaml"
            is_bundle = isinstance(error, BundleProblem)
            yield Check(f"bundle {name}", False, str(error), fix if is_bundle else "see the accelerator, below")
            are_whole = False
            continue
        weights = "demo weights, for test archives only" if bundle.card.is_demo else bundle.card.intended_use
        detail = f"for {', '.join(conditions)}: digest right, dry inference {seconds:.2f} s by {engine.way}; {weights}"
        detail += "".join(f"; {sentence}" for sentence in engine.refused_ways)
        yield Check(f"bundle {name}", True, detail)
    if are_whole:
        yield _bundles_fit(config)


def _bundles_fit(config: Config) -> Check:
    called = "bundles fit their routes"
    try:
        cards_of(config)
    except ConfigurationError as error:
        return Check(called, False, str(error), "correct routes.yaml, or name another bundle there")
    return Check(called, True, "every card agrees with what its routes ask")


def _accelerator(config: Config) -> Iterator[Check]:
    from model.hardware import find_hardware

    wish = config.node.compute.device
    try:
        found = find_hardware(wish, config.node.compute.threads)
    except ValueError as error:
        yield Check(
            "accelerator", False, str(error), "install the GPU's driver and torch for it, or set compute.device: auto"
        )
        return
    memory = f", {found.memory_gb:.0f} GB" if found.memory_gb else ""
    bf16 = "bf16" if found.has_bf16 else "no bf16"
    yield Check("accelerator", True, f"{found.kind}: {found.name}{memory}, {found.threads} threads, {bf16}")


def _port(config: Config) -> Iterator[Check]:
    host, port = config.node.dicom.host, config.node.dicom.port
    if port == 0:
        yield Check("port", True, "any free one, told at the start")
        return
    place = f"{host}:{port}"
    fault = _bind_fault(host, port)
    if fault is None:
        yield Check("port", True, f"{place} is free")
    elif fault == errno.EADDRINUSE and (pid := _own_supervisor(config)):
        yield _own_port(config, place, pid)
    else:
        fixes = {
            errno.EADDRINUSE: f"end the program that has it (ss -ltnp 'sport = :{port}' names it), or set dicom.port",
            errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE; grant it, or set a dicom.port above",
            errno.EADDRNOTAVAIL: "no interface of this machine has that address: set dicom.host",
        }
        fix = fixes.get(fault, "set another dicom.host or dicom.port")
        yield Check("port", False, f"{place}: {os.strerror(fault)}", fix)


def _own_port(config: Config, place: str, pid: int) -> Check:
    """Our own node has it. That it answers is what counts; a rejection of this caller is an answer, too."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    dicom = config.node.dicom
    ourselves = DimsePeer(
        ae_title=dicom.ae_title, host=loopback.get(dicom.host, dicom.host), port=dicom.port, timeout_s=PATIENCE_S
    )
    answer = echo(ourselves, dicom.ae_title)
    is_alive = answer.is_ok or "rejected" in answer.what
    fix = "our own node hangs: restart it, and keep its log"
    told = "which answers" if is_alive else answer.what
    return Check("port", is_alive, f"{place} is held by our own node, process {pid}, {told}", fix)


def _peers(config: Config) -> Iterator[Check]:
    if not config.peers:
        return
    with ThreadPoolExecutor(max_workers=8) as pool:
        yield from pool.map(lambda name: _peer(name, config.peers[name], config.node.dicom.ae_title), config.peers)


def _peer(name: str, peer: AnyPeer, our_ae_title: str) -> Check:
    called = f"peer {name}"
    if not isinstance(peer, DimsePeer):
        answer = echo(_hurried(peer), our_ae_title)
        return Check(
            called, answer.is_ok, _timed(answer.what, answer.milliseconds), f"mend it, or correct {name} in peers.yaml"
        )
    answer = echo(_hurried(peer), our_ae_title)
    told = _timed(answer.what, answer.milliseconds)
    if not answer.is_ok and not peer.may_receive:
        return Check(called, True, f"it only sends to us, and need not answer; {told}")
    if not answer.is_ok:
        return Check(called, False, told, f"mend it there, or correct {name} in peers.yaml")
    return _takes_results(called, peer, our_ae_title, told) if peer.may_receive else Check(called, True, told)


def _takes_results(called: str, peer: DimsePeer, our_ae_title: str, told: str) -> Check:
    """Would it take what routes deliver to it? Asked by an association that sends nothing."""
    asked = [*RESULT_CLASSES.values(), STORAGE_COMMITMENT, STUDY_ROOT_FIND]
    try:
        taken = accepted_classes(_hurried(peer), our_ae_title, asked)
    except PeerError as error:
        return Check(called, False, f"{told}, but {error}", f"allow storage from {our_ae_title} there")
    words = {**{sop_class: kind.upper() for kind, sop_class in RESULT_CLASSES.items()}}
    words |= {STORAGE_COMMITMENT: "storage commitment", STUDY_ROOT_FIND: "queries"}
    needed = {RESULT_CLASSES[kind] for kind in peer.results.required}
    if peer.storage_commitment:
        needed.add(STORAGE_COMMITMENT)
    lacking = [words[sop_class] for sop_class in asked if sop_class in needed - taken]
    takes = ", ".join(words[sop_class] for sop_class in asked if sop_class in taken)
    detail = f"{told}; takes {takes}" + (f"; refuses {', '.join(lacking)}" if lacking else "")
    return Check(
        called,
        not lacking,
        detail,
        f"allow {', '.join(lacking)} there, or change results.required or storage_commitment",
    )


def _time_zone(config: Config) -> Iterator[Check]:
    now = datetime.now(config.zone)
    hint = (
        "; results carry UTC times, set site.time_zone to the hospital's" if config.node.site.time_zone == "UTC" else ""
    )
    yield Check("time zone", True, f"{config.zone.key}: it is {now:%H:%M} ({now:%z}){hint}")


def _decoders(config: Config) -> Iterator[Check]:
    compressed = [syntax for syntax in READABLE_SYNTAXES if syntax.is_encapsulated]
    absent = [syntax for syntax in compressed if not get_decoder(syntax).is_available]
    missing = sorted({need for syntax in absent for need in get_decoder(syntax).missing_dependencies})
    yield Check(
        "decoders",
        not absent,
        f"none for {', '.join(syntax.name for syntax in absent)}"
        if absent
        else f"for all {len(READABLE_SYNTAXES)} syntaxes",
        f"install the node's dependencies again; one of these would do: {'; '.join(missing)}",
    )


def _dcmtk(config: Config) -> Iterator[Check]:
    found = [program for program in DCMTK if shutil.which(program)]
    detail = f"{', '.join(found)} at hand for a second opinion" if found else "absent; not needed"
    yield Check("dcmtk", True, detail)


def _hurried(peer: Any) -> Any:
    limit = getattr(peer, "timeout_s", None)
    return peer if limit is None else peer.model_copy(update={"timeout_s": min(limit, PATIENCE_S)})


def _timed(what: str, milliseconds: float) -> str:
    return f"{what} ({milliseconds:.0f} ms)"


def _bind_fault(host: str, port: int) -> int | None:
    """errno of binding there as `serve` does, None where it works."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return error.errno or errno.EINVAL
    return None


def _own_supervisor(config: Config) -> int | None:
    """Process id of the node that serves this spool on our port, if it lives."""
    try:
        ready: dict[str, Any] = json.loads((config.spool_path / "ready.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    pid = int(ready.get("supervisor", -1))
    return pid if ready.get("port") == config.node.dicom.port and _is_alive(pid) else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0


Examination = Callable[[Config], Iterable[Check]]
EXAMINATIONS: tuple[tuple[str, Examination], ...] = (
    ("configuration", _configuration),
    ("spool", _spool),
    ("spool disk", _spool_disk),
    ("spool privacy", _spool_privacy),
    ("database", _database),
    ("bundles", _bundles),
    ("accelerator", _accelerator),
    ("port", _port),
    ("peers", _peers),
    ("time zone", _time_zone),
    ("decoders", _decoders),
    ("dcmtk", _dcmtk),
)
