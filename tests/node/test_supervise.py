"""`crlm-node serve` as a process: ready, restarted, ended, and never twice on one spool."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from node.config import DicomSettings
from node.errors import ConfigurationError
from node.supervise import listening_socket, restart_delay_s
from tests.receiving import NodeProcess, Sender, ct_slice, environment, running_node, start_node, write_config

WaitUntil = Callable[..., None]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("configuration") / "config")


@pytest.fixture(scope="module")
def shared_node(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """Two receivers, for tests after which the node still lives."""
    with running_node(config, tmp_path_factory.mktemp("node") / "spool", dicom__receivers=2) as running:
        yield running


@pytest.fixture
def node(config: Path, tmp_path: Path) -> Iterator[NodeProcess]:
    """One receiver, for tests that end the node."""
    with running_node(config, tmp_path / "spool") as running:
        yield running


def stores(port: int) -> bool:
    with Sender(port) as sender:
        return sender.store_dataset(ct_slice()) == 0


def test_the_ready_line_names_title_port_and_roles(shared_node: NodeProcess) -> None:
    assert shared_node.ready_line == f"crlm-node ready: AE CRLM-NODE on 127.0.0.1:{shared_node.port} (receive ×2)"
    assert stores(shared_node.port)


def test_the_ready_file_names_every_process(shared_node: NodeProcess) -> None:
    assert shared_node.ready["ae_title"] == "CRLM-NODE"
    assert shared_node.ready["supervisor"] == shared_node.process.pid
    assert sorted(shared_node.ready["pids"]) == ["receive-1", "receive-2"]
    assert all(psutil.pid_exists(pid) for pid in shared_node.ready["pids"].values())


def test_sigterm_ends_it_with_0_and_leaves_no_process(node: NodeProcess) -> None:
    pids = node.ready["pids"].values()
    assert node.end() == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not (node.spool_path / "ready.json").exists()


def test_a_second_node_on_the_same_spool_ends_with_2_and_a_sentence(shared_node: NodeProcess, config: Path) -> None:
    second = start_node(config, shared_node.spool_path)
    _, errors = second.communicate(timeout=30)
    assert second.returncode == 2
    assert f"process id {shared_node.process.pid} serves this spool already" in errors
    assert shared_node.process.poll() is None


def test_a_killed_receiver_comes_back_and_the_port_never_closes(
    shared_node: NodeProcess, wait_until: WaitUntil
) -> None:
    before = shared_node.ready["pids"]["receive-1"]
    os.kill(before, signal.SIGKILL)
    assert [stores(shared_node.port) for _ in range(6)] == [True] * 6
    wait_until(lambda: shared_node.ready["pids"]["receive-1"] != before, "the killed receiver is started again", 60)
    assert stores(shared_node.port)
    assert shared_node.process.poll() is None


def test_a_receiver_that_ends_in_order_does_not_end_the_listening_of_the_others(shared_node: NodeProcess) -> None:
    # socket.shutdown() on the shared socket would: every process has the same one
    os.kill(shared_node.ready["pids"]["receive-1"], signal.SIGTERM)
    assert [stores(shared_node.port) for _ in range(6)] == [True] * 6


def test_while_no_receiver_lives_callers_wait_in_the_backlog(node: NodeProcess) -> None:
    for pid in node.ready["pids"].values():
        os.kill(pid, signal.SIGKILL)
    assert stores(node.port)


def test_the_roles_of_a_killed_supervisor_end_and_the_spool_can_be_served_again(
    node: NodeProcess, config: Path, wait_until: WaitUntil
) -> None:
    port, pids = node.port, list(node.ready["pids"].values())
    node.process.kill()
    wait_until(lambda: not any(_lives(pid) for pid in pids), "the receivers have ended", 60)
    with running_node(config, node.spool_path, dicom__port=port) as again:
        assert again.port == port
        assert stores(port)


def test_a_role_that_cannot_begin_ends_the_node_with_2(config: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "spool.json").write_text(json.dumps({"spool_id": "x", "layout": 99}))
    node = start_node(config, spool)
    _, errors = node.communicate(timeout=30)
    assert node.returncode == 2
    assert "layout 99" in errors


def test_a_port_that_is_taken_ends_it_with_2_and_a_sentence(config: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        node = start_node(config, tmp_path / "spool", dicom__port=other.getsockname()[1])
        _, errors = node.communicate(timeout=30)
    assert node.returncode == 2
    assert "cannot listen there" in errors
    assert "choose another port" in errors


def test_ctrl_c_ends_it_as_sigterm_does(node: NodeProcess) -> None:
    node.process.send_signal(signal.SIGINT)
    assert node.process.wait(40) == 0


ACTIVATED = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
os.dup2(listening.fileno(), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
from node.cli import main
sys.argv = ["crlm-node", "serve", "--role", "receive", "--config", sys.argv[1]]
main()
"""


def test_systemd_may_bring_the_socket(config: Path, tmp_path: Path) -> None:
    node = subprocess.Popen(
        [sys.executable, "-c", ACTIVATED, str(config)],
        env=environment(tmp_path / "spool", dicom__port=1),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert node.stdout
    port = int(node.stdout.readline())
    assert f":{port} " in node.stdout.readline()
    assert stores(port)
    node.terminate()
    node.communicate(timeout=40)
    assert node.returncode == 0


def test_a_socket_meant_for_another_process_is_not_taken() -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    with listening_socket(DicomSettings(host="127.0.0.1", port=0), environ) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"


def test_a_host_that_is_not_ours_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"dicom\.host = 192\.0\.2\.1"):
        listening_socket(DicomSettings(host="192.0.2.1", port=0), {})


def test_each_failure_in_a_row_waits_longer_up_to_a_bound() -> None:
    assert [restart_delay_s(failures) for failures in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert restart_delay_s(50) == 30.0


def _lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
