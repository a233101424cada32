"""The working process: studies that became complete in, results at their peers out.

Builds the parts in the order in which a study meets them, then goes round: what is complete is decided and
ordered; the durable jobs run in threads of their library; the network runs in a child. SIGTERM: no new step begins,
a running one may finish or is taken up at the next start, exit 0.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from node import logs
from node.analysis import Analysis, require_terms, warm_up
from node.assembly import Assembler, WaitingSeries
from node.bundles import BundleCard, cards_of
from node.config import Config, load_config
from node.config_peers import DimsePeer
from node.database import AWAY, Database
from node.database_deliveries import CommitmentState, commitment_of
from node.deciding import Deciding
from node.domain import Receipt, ResultObject
from node.errors import BundleError, NodeError, PeerError
from node.history_lookup import HistoryLookUp
from node.inference import EngineProcess, InferenceRefusal
from node.jobs import Jobs
from node.ledger import DatabaseLedger
from node.lifeline import report_ready
from node.orders import Orders
from node.peers import CommitmentAnswer, request_commitment, send, whereabouts
from node.spool import Spool

ENDING = (signal.SIGTERM, signal.SIGINT)
FINISH_S = 15
"""How long a running step may take to its end after SIGTERM."""
WAITING_FILE = "waiting.json"
_WAITING_EVERY_S = 1.0

log = logging.getLogger("node.work")


def run(config_folder: Path, index: int) -> None:
    """Work until told to end. Raises NodeError where configuration, bundles or database are not usable."""
    # blocked in every thread and in the child, so that only the wait in `_go_round` gets them
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    os.umask(0o077)
    config = load_config(config_folder)
    logs.set_up("work", config.spool_path)
    spool = Spool.open(config.spool_path, config.node.spool.min_free_mb << 20)
    database = Database.open(config)
    cards = cards_of(config)
    require_terms(config)
    compute = config.node.compute
    with EngineProcess(
        device=compute.device, threads=compute.threads, timeout_s=compute.timeout_s, backend=compute.backend
    ) as engine:
        _warm(engine, cards)
        warm_up()
        analysis = Analysis(config, cards, engine, DatabaseLedger(config, spool, database), spool.scratch(index))
        history = HistoryLookUp(config, spool, database)
        orders = Orders(config, spool, database, cards)
        jobs = Jobs.launch(
            config,
            database,
            index,
            segment=analysis.segment,
            encode=analysis.encode,
            refuse=analysis.refuse,
            deliver=lambda peer, objects: _deliver(config, peer, objects),
            request_commitment=lambda peer, objects, uid: _request_commitment(config, database, peer, objects, uid),
            is_current=orders.is_current,
            whereabouts=lambda peer, objects: whereabouts(config.peers[peer], objects, config.node.dicom.ae_title),
        )
        try:
            orders.reconcile()
            history.start()
            assembler = Assembler(spool, config.node.assembly)
            deciding = Deciding(assembler, orders, history, database, jobs.enqueue)
            report_ready()
            _go_round(config, spool, deciding, orders, jobs)
        finally:
            history.close()
            jobs.close(FINISH_S)
            database.close()


def _warm(engine: EngineProcess, cards: Mapping[str, BundleCard]) -> None:
    """Every route's network is loaded, and its weights' digest compared, before the first study."""
    try:
        engine.warm([found.path for found in cards.values()])
    except InferenceRefusal as error:
        raise BundleError(str(error)) from error


def _go_round(config: Config, spool: Spool, deciding: Deciding, orders: Orders, jobs: Jobs) -> None:
    told_at_s = 0.0
    told: list[WaitingSeries] | None = None
    while signal.sigtimedwait(ENDING, config.node.assembly.poll_s) is None:
        jobs.raise_if_broken()
        deciding.step()
        if time.monotonic() - told_at_s >= _WAITING_EVERY_S:
            told_at_s = time.monotonic()
            _remind(orders)
            waiting = deciding.waiting()
            if waiting != told:
                _tell_waiting(spool, waiting)
                told = waiting


def _remind(orders: Orders) -> None:
    """A patience that is over, and a peer's answer that came late, have studies decided anew."""
    try:
        if count := orders.remind():
            logs.event(log, "studies are looked at again", studies=count)
    except AWAY:
        pass  # told by the database's outage; what is due stands there
    except Exception:  # one study's row must not end the node
        log.exception("studies not looked at again")


def _tell_waiting(spool: Spool, waiting: Sequence[WaitingSeries]) -> None:
    """For `crlm-node jobs list` and the console: what has come and is not yet decided, and why."""
    told = [
        {"study": item.key.study, "series": item.key.series, "instances": item.instance_count, "why": item.reason}
        for item in waiting
    ]
    part = spool.path / f"{WAITING_FILE}.part"
    part.write_text(json.dumps(told), encoding="utf-8")
    part.replace(spool.path / WAITING_FILE)


def _deliver(config: Config, peer: str, objects: Sequence[ResultObject]) -> Receipt:
    return send(config.peers[peer], objects, config.node.dicom.ae_title)


def _request_commitment(
    config: Config, database: Database, peer: str, objects: Sequence[ResultObject], transaction_uid: str
) -> CommitmentAnswer:
    asked = config.peers[peer]
    if not isinstance(asked, DimsePeer):
        raise PeerError(f"{peer} is no DIMSE peer, so it cannot be asked for storage commitment")

    def has_report() -> bool:
        with database.read() as rows:
            found = commitment_of(rows, transaction_uid)
        return found is not None and found.state is not CommitmentState.OPEN

    return request_commitment(asked, objects, config.node.dicom.ae_title, transaction_uid, has_report=has_report)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 after SIGTERM, 2 where it could not begin, 1 where it may be able to later."""
    parser = argparse.ArgumentParser(prog="node.roles.work", description="The working process of the node.")
    parser.add_argument("--config", type=Path, required=True, metavar="DIR")
    parser.add_argument("--index", type=int, default=0, help="which worker of this spool this is")
    options = parser.parse_args(arguments)
    try:
        run(options.config, options.index)
    except NodeError as error:
        sys.stderr.write(f"{error}\n")
        # 2: nothing but another configuration helps; 1: started again later, it may do
        return 1 if error.retry else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
