"""The command line as a person or a program meets it: what it prints, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.phantom import GEOMETRIES, make_phantom
from model.training.demo_card import save_untrained_bundle
from node.config import Config, load_config
from node.spool import Spool
from simulator.modality import write_series
from tests.serving import ROOT, SHIPPED, write_config

DONE, FAILED, USAGE = 0, 1, 2


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A site with a folder as its only peer, and tiny networks with random weights."""
    folder = tmp_path_factory.mktemp("site")
    for route in load_config(SHIPPED, environment={}).routes:
        save_untrained_bundle(folder / "bundles" / route.bundle, route.condition)
    archive = {"protocol": "folder", "path": str(folder / "results"), "may_receive": True, "accepts_demo_results": True}
    clinic = {"protocol": "folder", "path": str(folder / "clinic"), "may_receive": True}
    sender = {"protocol": "folder", "path": str(folder / "sender")}
    peers = {"archive": archive, "clinic": clinic, "sender": sender}
    return write_config(folder / "node", peers=peers, bundles=folder / "bundles", deliver_to=["archive"])


@pytest.fixture(scope="module")
def t2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fat-suppressed T2 series, small."""
    geometry = GEOMETRIES["pre-nact-t2wi"].resampled(64, 64)
    folder = tmp_path_factory.mktemp("t2")
    write_series(make_phantom("pre-nact-t2wi", 910200, geometry=geometry), folder)
    return folder


def crlm_node(*words: object, config: Config | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell would, from the project's folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRLM_NODE_")}
    environment = {**kept, "COLUMNS": "200", **({"CRLM_NODE_CONFIG": str(config.folder)} if config else {})}
    command = [sys.executable, "-m", "node", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=200)


def test_an_unknown_verb_is_bad_usage() -> None:
    assert crlm_node("frobnicate").returncode == USAGE


def test_help_names_every_verb() -> None:
    told = crlm_node("--help").stdout
    verbs = ("serve", "check-config", "doctor", "route", "segment", "send", "jobs", "peers", "phantom", "demo")
    assert [verb for verb in verbs if verb not in told] == []


def test_a_configuration_that_is_not_there_ends_with_two_and_says_what_to_do(tmp_path: Path) -> None:
    done = crlm_node("check-config", "--config", tmp_path / "nowhere")
    assert done.returncode == USAGE
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_configuration_error_names_file_line_value_and_fix(config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "dicom_config"
    folder.mkdir()
    for path in config.folder.iterdir():
        (folder / path.name).write_text(path.read_text())
    routes = (folder / "routes.yaml").read_text().replace("time_point: pre", "time_point: before", 1)
    (folder / "routes.yaml").write_text(routes)
    done = crlm_node("serve", "--config", folder)
    assert done.returncode == USAGE
    line = next(n for n, text in enumerate(routes.splitlines(), start=1) if "before" in text)
    assert f"routes.yaml:{line}" in done.stderr
    assert "'before'" in done.stderr
    assert "'pre'" in done.stderr


def test_a_right_configuration_is_told_in_json(config: Config) -> None:
    done = crlm_node("check-config", "--json", config=config)
    assert done.returncode == DONE
    told = json.loads(done.stdout)
    assert {route["condition"] for route in told["routes"]} >= {"pre-nact-dwi", "ct-portal-venous"}


def test_what_a_peer_names_and_is_not_there_is_told_by_check_config(config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "dicom_config"
    shutil.copytree(config.folder, folder)
    web = "protocol: dicomweb, url: 'https://pacs/rs'"
    peers = (folder / "peers.yaml").read_text()
    (folder / "peers.yaml").write_text(f"{peers}  web: {{{web}, token_variable: CRLM_TEST_UNSET}}\n")
    done = crlm_node("check-config", "--config", folder)
    assert done.returncode == DONE, done.stderr
    assert "peers.web.token_variable = CRLM_TEST_UNSET: not set here; the node needs it where it runs" in done.stdout
    (folder / "peers.yaml").write_text(f"{peers}  web: {{{web}, ca_file: '{tmp_path}/none.pem'}}\n")
    done = crlm_node("check-config", "--config", folder)
    assert done.returncode == USAGE
    assert f"peers.web.ca_file = {tmp_path}/none.pem: cannot be read (No such file or directory)" in done.stderr


def test_route_explains_a_series_in_json(config: Config, t2: Path) -> None:
    done = crlm_node("route", t2, "--json", config=config)
    assert done.returncode == DONE
    (told,) = json.loads(done.stdout)
    assert (told["weighting"], told["fat_suppressed"], told["decision"]) == ("t2", True, "accept")
    assert set(told["candidates"]) == {"pre-nact-t2wi", "post-nact-t2wi"}
    assert all({"for", "what", "where"} == set(reason) for reason in told["reasons"])


def test_route_shows_the_margin_behind_the_decision(config: Config, t2: Path) -> None:
    assert crlm_node("route", t2, config=config).stdout.startswith("accept (+1) pre-nact-t2wi or post-nact-t2wi")


def test_route_of_a_path_that_is_not_there_is_bad_usage(config: Config, tmp_path: Path) -> None:
    assert crlm_node("route", tmp_path / "nowhere", config=config).returncode == USAGE


def test_segment_without_a_persons_word_says_which_word_is_wanted(config: Config, t2: Path, tmp_path: Path) -> None:
    done = crlm_node("segment", t2, "--out", tmp_path / "out", config=config)
    assert done.returncode == FAILED
    assert "--condition" in done.stdout


def test_segment_leaves_report_findings_and_picture_and_warns_of_demo_weights(
    config: Config, t2: Path, tmp_path: Path
) -> None:
    done = crlm_node("segment", t2, "--out", tmp_path, "--condition", "post-nact-t2wi", config=config)
    assert done.returncode == DONE, done.stderr
    assert "DEMO WEIGHTS" in done.stderr
    made = {path.name for path in tmp_path.glob("post-nact-t2wi-*/*")}
    assert {"sr.dcm", "findings.json", "overlay.png"} <= made


def test_jobs_list_where_no_node_ran_says_what_to_do_next(tmp_path: Path) -> None:
    config = write_config(tmp_path, peers={}, bundles=tmp_path, deliver_to=[])
    done = crlm_node("jobs", "list", config=config)
    assert (done.returncode, "start the node a first time by `crlm-node serve`" in done.stderr) == (USAGE, True)
    assert not config.spool_path.exists()


def test_jobs_list_of_a_new_node_says_what_to_do_next(config: Config) -> None:
    Spool.open(config.spool_path)
    done = crlm_node("jobs", "list", config=config)
    assert done.returncode == DONE
    assert "crlm-node demo" in done.stdout


def test_a_job_that_is_not_there_fails_with_a_sentence(config: Config) -> None:
    Spool.open(config.spool_path)
    done = crlm_node("jobs", "show", "beef", config=config)
    assert (done.returncode, "no job begins with 'beef'" in done.stderr) == (FAILED, True)


def test_a_peer_that_is_not_there_is_named_with_those_that_are(config: Config) -> None:
    done = crlm_node("peers", "echo", "nobody", config=config)
    assert done.returncode == USAGE
    assert "archive" in done.stderr


def test_files_are_sent_to_a_peer_by_its_name(config: Config, t2: Path) -> None:
    done = crlm_node("send", t2, "--to", "archive", "--json", config=config)
    assert done.returncode == DONE, done.stderr
    assert json.loads(done.stdout)["stored"] is True


def test_results_of_demo_weights_are_sent_by_hand_only_where_they_may_go(
    config: Config, t2: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    crlm_node("segment", t2, "--out", out, "--condition", "post-nact-t2wi", config=config)
    done = crlm_node("send", out, "--to", "clinic", config=config)
    assert done.returncode == FAILED
    assert "nothing was sent: demo weights" in done.stderr


def test_nothing_is_sent_by_hand_to_a_peer_that_may_not_receive(config: Config, t2: Path) -> None:
    done = crlm_node("send", t2, "--to", "sender", config=config)
    assert done.returncode == FAILED
    assert "may_receive is false for peer 'sender'" in done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--condition", "pre-nact-t2wi", "--dialect", "esaote"], "esaote"),
        (["--condition", "ct-portal-venous", "--dialect", "uih"], "uih makes MR only"),
        (["--condition", "ct-biphasic", "--dialect", "uih"], "uih makes MR only"),
        (["--condition", "pre-nact-dwi", "--hepatocellular"], "shown on CT only"),
    ],
)
def test_a_dialect_that_is_not_there_is_bad_usage(tmp_path: Path, words: list[str], why: str) -> None:
    done = crlm_node("phantom", *words, "--out", tmp_path / "p")
    assert done.returncode == USAGE
    assert why in done.stderr


def test_a_biphasic_phantom_is_two_series_with_a_truth_each(tmp_path: Path) -> None:
    words = ("--condition", "ct-biphasic", "--longest-side", 32, "--dialect", "canon", "--seed", 910202)
    done = crlm_node("phantom", *words, "--out", tmp_path / "p")
    assert done.returncode == DONE, done.stderr
    assert len(list((tmp_path / "p" / "arterial").glob("*.dcm"))) == 42
    assert len(list((tmp_path / "p" / "portal-venous").glob("*.dcm"))) == 40
    assert json.loads((tmp_path / "p" / "arterial" / "truth.json").read_text())["motion_mm"] >= 3
    assert "crlm-node route" in done.stdout


def test_a_phantom_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "p").touch()
    done = crlm_node("phantom", "--condition", "pre-nact-t2wi", "--out", tmp_path / "p")
    assert (done.returncode, "Traceback" in done.stderr) == (USAGE, False)


def test_a_phantom_comes_with_its_truth(tmp_path: Path) -> None:
    done = crlm_node("phantom", "--condition", "pre-nact-t2wi", "--out", tmp_path / "p", "--seed", 910201)
    assert done.returncode == DONE, done.stderr
    assert len(list((tmp_path / "p").glob("*.dcm"))) == 30
    assert json.loads((tmp_path / "p" / "truth.json").read_text())["seed"] == 910201
