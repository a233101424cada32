"""The doctor finds what is wrong, says what to do, and leaves no trace."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from ruamel.yaml import YAML

from model.training.demo_card import save_untrained_bundle
from node import doctor
from node.config import Config, load_config
from node.database import Database
from node.doctor import Check, examine
from node.doctor_spool import file_system_fault, file_system_of, measure, standing_folder
from tests.real_peers import DICOMWEB_PLUGIN, free_port

SHIPPED = Path(__file__).resolve().parent.parent.parent / "dicom_config"
MakeConfig = Callable[..., Config]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one bundle that the tests' route names."""
    folder = tmp_path_factory.mktemp("bundles")
    save_untrained_bundle(folder / "demo-pre-nact-dwi", "pre-nact-dwi")
    return folder


@pytest.fixture
def configured(tmp_path: Path, bundles: Path) -> MakeConfig:
    """`configured(peers, **overrides)`: the shipped configuration with one route, these peers and a spool in tmp."""

    def make(peers: dict[str, Any] | None = None, **overrides: str) -> Config:
        folder = tmp_path / "config"
        shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
        yaml = YAML()
        routes = yaml.load((SHIPPED / "routes.yaml").read_text(encoding="utf-8"))["routes"]
        (route,) = (block for block in routes if block["condition"] == "pre-nact-dwi")
        route["deliver_to"] = []
        yaml.dump({"routes": [route]}, folder / "routes.yaml")
        yaml.dump({"peers": peers or {}}, folder / "peers.yaml")
        environment = {"SPOOL__PATH": str(tmp_path / "spool"), "SPOOL__MIN_FREE_MB": "1", "BUNDLES": str(bundles)}
        environment |= {"DICOM__PORT": str(free_port()), "DICOM__HOST": "127.0.0.1", "COMPUTE__THREADS": "1"}
        environment |= overrides
        return load_config(folder, {f"CRLM_NODE_{name}": value for name, value in environment.items()})

    return make


def the(name: str, config: Config) -> Check:
    """The check of that name, from those examinations that can yield it."""
    groups = {"spool room": "spool disk", "spool file system": "spool disk", "spool clock": "spool"}
    wanted = groups.get(name, "peers" if name.startswith("peer ") else "bundles" if "bundle" in name else name)
    (examination,) = (look for called, look in doctor.EXAMINATIONS if called == wanted)
    (found,) = (check for check in examination(config) if check.name == name)
    return found


def test_a_node_in_order_passes_every_check(
    configured: MakeConfig,
    orthanc: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    require_peer: Callable[[str], Path],
) -> None:
    monkeypatch.setenv("CRLM_TEST_PASSWORD", orthanc.password)
    orthanc.register("CRLM-NODE", 104)
    peers = {
        "pacs": {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port, "may_receive": True},
        "rest": {
            "protocol": "orthanc",
            "url": orthanc.url,
            "username": orthanc.username,
            "password_variable": "CRLM_TEST_PASSWORD",
        },
        "web": {
            "protocol": "dicomweb",
            "url": orthanc.dicomweb_url,
            "username": orthanc.username,
            "password_variable": "CRLM_TEST_PASSWORD",
        },
        "files": {"protocol": "folder", "path": str(tmp_path / "results"), "may_receive": True},
    }
    require_peer(str(DICOMWEB_PLUGIN))
    # the file system under the tests may be a container's
    checks = {check.name: check for check in examine(configured(peers)) if check.name != "spool file system"}
    assert {name: check for name, check in checks.items() if not check.is_ok} == {}
    assert all(check.fix == "" for check in checks.values())
    assert "takes SEG, SR, storage commitment, queries" in checks["peer pacs"].detail
    assert "demo weights" in checks["bundle demo-pre-nact-dwi"].detail
    assert {
        "spool",
        "database",
        "accelerator",
        "port",
        "decoders",
        "peer rest",
        "peer web",
        "peer files",
    } <= checks.keys()


def test_an_examination_leaves_no_trace(configured: MakeConfig, tmp_path: Path) -> None:
    config = configured({"files": {"protocol": "folder", "path": str(tmp_path / "results")}})
    before = sorted(tmp_path.rglob("*"))
    assert list(examine(config))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_examination_that_fails_itself_does_not_end_the_others(
    configured: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sick(config: Config) -> list[Check]:
        raise KeyError("organ")

    monkeypatch.setattr(doctor, "EXAMINATIONS", (("organ", sick), ("dcmtk", lambda config: [Check("dcmtk", True, "")])))
    first, second = examine(configured())
    assert not first.is_ok
    assert "KeyError" in first.detail
    assert second.is_ok


def test_altered_weights_are_found_by_their_digest(configured: MakeConfig, bundles: Path, tmp_path: Path) -> None:
    shutil.copytree(bundles, tmp_path / "bundles")
    (weights,) = (tmp_path / "bundles").rglob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    check = the("bundle demo-pre-nact-dwi", configured(BUNDLES=str(tmp_path / "bundles")))
    assert not check.is_ok
    assert "sha256" in check.detail
    assert "restore" in check.fix


def test_a_bundle_that_does_not_fit_its_route_is_found(configured: MakeConfig, tmp_path: Path) -> None:
    save_untrained_bundle(tmp_path / "bundles" / "demo-pre-nact-dwi", "ct-portal-venous")
    check = the("bundles fit their routes", configured(BUNDLES=str(tmp_path / "bundles")))
    assert not check.is_ok
    assert "ct-portal-venous" in check.detail


def test_a_gpu_that_is_wished_and_absent_is_told(configured: MakeConfig) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    check = the("accelerator", configured(COMPUTE__DEVICE="cuda"))
    assert not check.is_ok
    assert "compute.device: auto" in check.fix


def test_a_file_where_the_spool_should_be_is_told(configured: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    check = the("spool", configured(SPOOL__PATH=str(tmp_path / "file" / "spool")))
    assert not check.is_ok
    assert "Not a directory" in check.detail


def test_too_little_room_is_told_before_images_are_refused(configured: MakeConfig) -> None:
    check = the("spool room", configured(SPOOL__MIN_FREE_MB=str(10**9)))
    assert not check.is_ok
    assert "free space on that disk" in check.fix


def test_a_spool_that_others_can_read_is_told(configured: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool").chmod(0o755)
    check = the("spool privacy", configured())
    assert not check.is_ok
    assert f"chmod 700 {tmp_path / 'spool'}" in check.fix
    (tmp_path / "spool").chmod(0o700)
    assert the("spool privacy", configured()).is_ok


@pytest.mark.parametrize(
    ("kind", "is_sqlite_on_it", "is_fault"),
    [
        ("ext4", True, False),
        ("xfs", True, False),
        ("tmpfs", False, True),
        ("overlay", False, True),
        ("nfs4", True, True),
        ("nfs4", False, False),
        ("cifs", True, True),
    ],
)
def test_the_file_system_decides_whether_a_spool_may_lie_on_it(
    kind: str, is_sqlite_on_it: bool, is_fault: bool
) -> None:
    assert (file_system_fault(kind, is_sqlite_on_it=is_sqlite_on_it) is not None) is is_fault


def test_the_file_system_is_the_one_of_the_nearest_mount_point() -> None:
    assert file_system_of(Path("/proc/self")) == "proc"
    assert file_system_of(Path("/dev/shm")) in ("tmpfs", file_system_of(Path("/dev")), file_system_of(Path("/")))


def test_a_folder_is_measured_by_what_it_does(tmp_path: Path) -> None:
    seen = measure(tmp_path)
    assert 0 < seen.write_ms < 5000
    assert seen.has_locks
    assert seen.has_hard_links
    assert abs(seen.skew_s) < 2
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_yet_is_measured_where_it_will_be_made(tmp_path: Path) -> None:
    assert standing_folder(tmp_path / "a" / "b") == tmp_path


def test_a_database_of_a_newer_node_is_told(configured: MakeConfig, tmp_path: Path) -> None:
    config = configured()
    Database.open(config).close()
    assert the("database", config).is_ok
    with sqlite3.connect(tmp_path / "spool" / "node.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    check = the("database", config)
    assert not check.is_ok
    assert "update this one" in check.fix


def test_a_database_server_that_is_not_there_is_told_without_the_password(configured: MakeConfig) -> None:
    url = f"postgresql+psycopg://crlm:secret@127.0.0.1:{free_port()}/crlm"
    check = the("database", configured(DATABASE__URL=url))
    assert not check.is_ok
    assert "secret" not in check.detail + check.fix


def test_a_port_that_another_program_has_is_told(configured: MakeConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check = the("port", configured(DICOM__PORT=str(port)))
    assert not check.is_ok
    assert f"sport = :{port}" in check.fix


def test_an_address_that_is_not_ours_is_told(configured: MakeConfig) -> None:
    check = the("port", configured(DICOM__HOST="192.0.2.1"))
    assert not check.is_ok
    assert "set dicom.host" in check.fix


def test_a_port_held_by_our_own_running_node_is_in_order(configured: MakeConfig, tmp_path: Path) -> None:
    port = free_port()
    entity = AE(ae_title="CRLM-NODE")
    entity.add_supported_context("1.2.840.10008.1.1")
    entity.require_calling_aet = ["SOMEBODY"]  # as a node that does not know itself as a caller
    server = entity.start_server(("127.0.0.1", port), block=False)
    try:
        check = the("port", running_on(port, configured, tmp_path))
    finally:
        server.shutdown()
    assert check.is_ok, check.detail
    assert "held by our own node" in check.detail


def test_our_own_node_that_hangs_is_told(
    configured: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        check = the("port", running_on(hung.getsockname()[1], configured, tmp_path))
    assert not check.is_ok
    assert "restart it" in check.fix


def running_on(port: int, configured: MakeConfig, tmp_path: Path) -> Config:
    """A configuration whose spool says that this process serves it."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "ready.json").write_text(json.dumps({"port": port, "supervisor": os.getpid()}))
    return configured(DICOM__PORT=str(port))


def test_a_peer_that_should_receive_and_does_not_answer_is_told(configured: MakeConfig) -> None:
    peer = {"ae_title": "PACS", "host": "127.0.0.1", "port": free_port(), "may_receive": True}
    check = the("peer pacs", configured({"pacs": peer}))
    assert not check.is_ok
    assert "connection refused" in check.detail
    assert "peers.yaml" in check.fix


def test_a_scanner_that_only_sends_need_not_answer(configured: MakeConfig) -> None:
    peer = {"ae_title": "CT1", "host": "127.0.0.1", "port": free_port(), "may_send": True}
    assert the("peer ct1", configured({"ct1": peer})).is_ok


def test_a_peer_that_would_refuse_our_results_is_told_before_the_first_delivery(
    configured: MakeConfig, storescp_dcmtk: Any
) -> None:
    # storescp knows Comprehensive 3D SR and Segmentation, but no commitment
    peer = {"ae_title": "STORESCP", "host": "127.0.0.1", "port": storescp_dcmtk().port, "may_receive": True}
    check = the("peer pacs", configured({"pacs": peer}))
    assert not check.is_ok
    assert "refuses storage commitment" in check.detail
    assert the("peer pacs", configured({"pacs": {**peer, "storage_commitment": False}})).is_ok
