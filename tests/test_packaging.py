"""What the house promises about how it is installed: pins, image, compose file, commands. Read, not run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from node.config import Config, load_config
from node.config_peers import DimsePeer

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_requirement_is_pinned_and_its_pin_is_admitted() -> None:
    pins = _pins()
    wanted = [
        *PROJECT["dependencies"],
        *(text for extra in PROJECT["optional-dependencies"].values() for text in extra),
    ]
    for requirement in map(Requirement, wanted):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin, f"constraints.txt has no {requirement.name}; run `make lock`"
        assert requirement.specifier.contains(pin), f"{requirement} does not admit the pinned {pin}"


def test_what_is_installed_is_what_is_pinned() -> None:
    """`make install` took the pins, so these tests tell something about them."""
    differing = []
    for name, pin in _pins().items():
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue  # of an extra that is not installed here
        if installed != pin:
            differing.append(f"{name}: pinned {pin}, installed {installed}")
    assert not differing


def test_torch_is_pinned_without_a_build_label() -> None:
    """So that the package index decides between the CPU and the CUDA build."""
    assert "+" not in _pins()["torch"]


def test_make_help_lists_every_command() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = set(re.findall(r"^\.PHONY: (\w+)", makefile, flags=re.MULTILINE))
    assert {"demo", "test", "check", "bench", "campaign", "install", "peers", "docs", "clean", "help"} <= commands
    assert commands == set(re.findall(r"make (\w+)", told))


def test_the_ci_entry_demands_real_peers() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "CRLM_REQUIRE_PEERS=1" in script.read_text(encoding="utf-8")


class TestDockerfile:
    """The image: not root, data in volumes, built by the Makefile's steps."""

    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    final_stage = re.split(r"^FROM ", text, flags=re.MULTILINE)[-1]

    def test_the_process_is_not_root_and_its_user_is_a_number(self) -> None:
        assert re.findall(r"^USER (.+)$", self.final_stage, flags=re.MULTILINE) == ["10001:10001"]
        assert self.final_stage.index("USER 10001") < self.final_stage.index("ENTRYPOINT")

    def test_configuration_spool_and_bundles_are_volumes_that_the_node_is_told_of(self) -> None:
        found = re.search(r"^VOLUME (.+)$", self.final_stage, flags=re.MULTILINE)
        assert found
        volumes = json.loads(found[1])
        for variable in ("CRLM_NODE_CONFIG", "CRLM_NODE_SPOOL__PATH", "CRLM_NODE_BUNDLES"):
            told = re.search(rf"{variable}=(\S+)", self.final_stage)
            assert told, variable
            assert told[1] in volumes

    def test_it_installs_by_the_makefile_and_by_nothing_else(self) -> None:
        assert "make install" in self.text
        assert "pip install" not in self.text

    def test_every_package_index_is_the_builders_choice(self) -> None:
        assert "://" not in self.text

    def test_everything_that_it_copies_is_let_through(self) -> None:
        ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
        sources = re.findall(r"^COPY (?!--from)(.+) \S+$", self.text, flags=re.MULTILINE)
        for source in " ".join(sources).split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source


class TestCompose:
    """The example of a whole site: what it mounts exists, what it sets is known, and no secret stands in it."""

    compose: dict[str, Any] = YAML(typ="safe").load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    services: dict[str, Any] = compose["services"]

    def test_the_roles_are_apart_and_every_role_runs(self) -> None:
        roles = {name: service["command"] for name, service in self.services.items() if "command" in service}
        assert roles == {"receive": ["serve", "--role", "receive"], "work": ["serve", "--role", "work"]}

    def test_the_roles_share_spool_and_configuration(self) -> None:
        assert self.services["receive"]["volumes"] == self.services["work"]["volumes"]

    @pytest.mark.parametrize("role", ["receive", "work"])
    def test_a_role_can_do_no_more_than_it_must(self, role: str) -> None:
        service = self.services[role]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "privileged" not in service

    def test_only_the_dicom_port_is_open_to_the_network(self) -> None:
        open_ports = [port for service in self.services.values() for port in service.get("ports", ())]
        assert [port for port in open_ports if not port.startswith("127.0.0.1:")] == ["11112:11112"]

    def test_every_image_is_pinned(self) -> None:
        for service in self.services.values():
            assert re.fullmatch(r"[a-z/-]+:\d[\w.-]*", service["image"])

    def test_no_secret_stands_in_a_file(self) -> None:
        settings = [
            (key, str(value))
            for service in self.services.values()
            for key, value in (service.get("environment") or {}).items()
        ]
        for key, value in settings:
            if re.search("PASSWORD|USERS|URL", key):
                assert re.search(r"\$\{\w+_PASSWORD:\?", value), f"{key} must come from the environment"
        assert not re.search(r"PASSWORD=.+", (ROOT / "deploy/compose/env.example").read_text(encoding="utf-8"))

    def test_everything_that_is_mounted_from_the_repository_is_there(self) -> None:
        for service in self.services.values():
            for volume in service.get("volumes", ()):
                source = volume.partition(":")[0]
                assert source in self.compose["volumes"] or (ROOT / source).exists(), source

    def test_the_configuration_as_mounted_is_right(self, mounted: Config) -> None:
        assert mounted.database_url == "postgresql+psycopg://crlm:secret@postgres/crlm"

    def test_node_and_orthanc_know_each_other(self, mounted: Config) -> None:
        orthanc = json.loads((ROOT / "deploy/compose/orthanc.json").read_text(encoding="utf-8"))
        pacs = mounted.peers["pacs"]
        assert isinstance(pacs, DimsePeer)
        assert (pacs.ae_title, pacs.host, pacs.port) == (orthanc["DicomAet"], "orthanc", orthanc["DicomPort"])
        assert pacs.may_send
        node = orthanc["DicomModalities"]["crlm-node"]
        assert (node["AET"], node["Host"]) == (mounted.node.dicom.ae_title, "receive")
        assert node["Port"] == mounted.node.dicom.port
        assert pacs.host in self.services
        assert node["Host"] in self.services

    @pytest.fixture
    def mounted(self, tmp_path: Path) -> Config:
        """The configuration that the worker sees: the shipped one with compose's files and variables over it."""
        folder = tmp_path / "crlm-node"
        shutil.copytree(ROOT / "dicom_config", folder)
        for volume in self.services["work"]["volumes"]:
            source, target = volume.split(":")[:2]
            if target.startswith("/etc/crlm-node/"):
                shutil.copy(ROOT / source, folder / Path(target).name)
        environment = {
            key: re.sub(r"\$\{\w+:\?[^}]*\}", "secret", value)
            for key, value in self.services["work"]["environment"].items()
        }
        return load_config(folder, environment)


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): pin for name, pin in pairs}
