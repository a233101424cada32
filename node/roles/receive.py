"""The receiving process: a listening socket in, files in the spool out. No torch, no pixels, no database.

Started by the supervisor, any number of times on one socket: `python -m node.roles.receive --config DIR
--socket-fd N --share 1/2`. SIGTERM: no new associations, the running message is finished and answered, exit 0.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from node import logs
from node.config import load_config
from node.errors import NodeError
from node.lifeline import report_ready
from node.scp import Receiver
from node.scp_listener import set_up_pynetdicom
from node.spool import Spool

ENDING = (signal.SIGTERM, signal.SIGINT)
DESCRIPTORS_PER_ASSOCIATION = 8
"""Its connection, the two ends that wake its thread, and the files of an instance that is being written."""
OTHER_DESCRIPTORS = 128


def share_of(total: int, number: int, count: int) -> int:
    """How many of `total` associations process `number` of `count` may hold, counted from 1; at least one."""
    return max(1, total // count + (number <= total % count))


def allow_descriptors(associations: int) -> None:
    """Raise this process's soft limit so far that every association can have its sockets and its files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OTHER_DESCRIPTORS + DESCRIPTORS_PER_ASSOCIATION * associations
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def run(config_folder: Path, socket_fd: int, number: int, count: int) -> None:
    """Receive until told to end. Raises NodeError where configuration or spool are not usable."""
    # in every thread, so that only the wait below gets them, at a point where nothing is half done
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    os.umask(0o077)
    config = load_config(config_folder)
    logs.set_up("receive", config.spool_path)
    set_up_pynetdicom()
    spool = Spool.open(config.spool_path, config.node.spool.min_free_mb << 20)
    spool.sweep_parts()
    associations = share_of(config.node.dicom.max_associations, number, count)
    allow_descriptors(associations)
    receiver = Receiver(config, spool, socket.socket(fileno=socket_fd), associations)
    acceptor = threading.Thread(target=receiver.serve, name="acceptor")
    acceptor.start()
    report_ready()
    signal.sigwait(ENDING)
    receiver.stop()
    acceptor.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 after SIGTERM, 2 where it could not begin."""
    parser = argparse.ArgumentParser(prog="node.roles.receive", description="One receiving process of the node.")
    parser.add_argument("--config", type=Path, required=True, metavar="DIR")
    parser.add_argument("--socket-fd", type=int, required=True, metavar="N", help="a bound, listening socket")
    parser.add_argument("--share", default="1/1", metavar="I/N", help="which of how many receivers this is")
    options = parser.parse_args(arguments)
    number, count = (int(part) for part in options.share.split("/"))
    try:
        run(options.config, options.socket_fd, number, count)
    except NodeError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
