"""ImageNet weights come from a file whose digest is known, or it is said loudly that there are none."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.networks.cmg import CMG, CMGConfig
from model.networks.resnet import resnet
from model.training.imagenet import (
    TORCHVISION_SHA256,
    WeightsProblem,
    feature_extractor,
    fetch_imagenet,
    read_imagenet,
    start_encoders,
)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """A ResNet-50 as torchvision writes it, with its classifier."""
    torch.manual_seed(2)
    return {**resnet(50).state_dict(), "fc.weight": torch.zeros(10, 2048), "fc.bias": torch.zeros(10)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, torch.Tensor]) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(weights, folder / "resnet50.pth")
    torch.save(weights, folder / "older.pth", _use_new_zipfile_serialization=False)
    save_file(weights, folder / "resnet50.safetensors")
    torch.save({"epoch": 3, "state_dict": weights}, folder / "checkpoint.pth")
    (folder / "noise.pth").write_bytes(b"this is no file of weights")
    return folder


@pytest.mark.parametrize("name", ["resnet50.pth", "older.pth", "resnet50.safetensors"])
def test_torchvisions_layout_is_read_from_each_kind_of_file(
    folder: Path, weights: dict[str, torch.Tensor], name: str
) -> None:
    extractor = feature_extractor(folder / name, digest(folder / name))
    assert extractor.weights == "imagenet"
    assert torch.equal(extractor.trunk.layer4[2].conv3.weight, weights["layer4.2.conv3.weight"])
    assert not any(p.requires_grad for p in extractor.parameters())


def test_a_file_that_is_not_torchvisions_is_refused_unless_its_digest_is_given(folder: Path) -> None:
    with pytest.raises(WeightsProblem, match=f"expected {TORCHVISION_SHA256[50]}"):
        read_imagenet(folder / "resnet50.pth", 50)


@pytest.mark.parametrize(("depth", "prefix"), [(34, "b627a593"), (50, "0676ba61")])
def test_the_known_digests_begin_as_torchvisions_file_names_end(depth: object, prefix: str) -> None:
    known = {str(key): value for key, value in TORCHVISION_SHA256.items()}[str(depth)]
    assert known.startswith(prefix)
    assert len(known) == 64


def test_another_file_than_the_digest_says_is_refused(folder: Path) -> None:
    with pytest.raises(WeightsProblem, match=r"noise\.pth: SHA-256 is"):
        read_imagenet(folder / "noise.pth", 50, digest(folder / "resnet50.pth"))


@pytest.mark.parametrize(
    ("name", "complaint"), [("noise.pth", "not readable as weights"), ("checkpoint.pth", "not a state dict")]
)
def test_a_file_of_something_else_is_refused_with_its_name(folder: Path, name: str, complaint: str) -> None:
    with pytest.raises(WeightsProblem, match=f"{name}: {complaint}"):
        read_imagenet(folder / name, 50, digest(folder / name))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    torch.save({"conv1.weight": partial(print, "ran")}, path)
    with pytest.raises(WeightsProblem, match="not readable as weights"):
        read_imagenet(path, 50, digest(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsProblem, match=r"absent\.pth: cannot be read"):
        read_imagenet(tmp_path / "absent.pth", 50)


def test_without_a_file_the_features_are_random_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        extractor = feature_extractor(None)
    assert extractor.weights == "random"
    assert "RANDOM" in caplog.text
    assert "constraint (random features)" in caplog.text


@pytest.fixture(scope="module")
def resnet34(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resnet34") / "resnet34.safetensors"
    save_file(resnet(34).state_dict(), path)
    return path


def test_weights_of_another_depth_are_refused(resnet34: Path) -> None:
    with pytest.raises(WeightsProblem, match="no ResNet-50"):
        feature_extractor(resnet34, digest(resnet34))


def test_both_encoders_of_system_b_start_from_the_file(resnet34: Path) -> None:
    network = CMG(CMGConfig())
    assert start_encoders(network, resnet34, digest(resnet34)) == "imagenet"
    expected = load_file(resnet34)
    for phase in (network.portal_venous, network.arterial):
        assert all(torch.equal(value, expected[name]) for name, value in phase.encoder.state_dict().items())


def test_encoders_of_another_width_take_no_imagenet_weights(resnet34: Path) -> None:
    with pytest.raises(WeightsProblem, match="width"):
        start_encoders(CMG(CMGConfig(width=0.125)), resnet34, digest(resnet34))


def test_encoders_without_a_file_stay_random_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    network = CMG(CMGConfig(width=0.125))
    before = network.arterial.encoder.conv1.weight.clone()
    with caplog.at_level(logging.WARNING):
        assert start_encoders(network, None) == "random"
    assert torch.equal(network.arterial.encoder.conv1.weight, before)
    assert "RANDOM" in caplog.text


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """The folder over HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        thread = Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_a_download_arrives_whole_and_is_not_made_twice(server: str, folder: Path, tmp_path: Path) -> None:
    expected = digest(folder / "resnet50.pth")
    path = tmp_path / "new" / "resnet50.pth"
    assert fetch_imagenet(f"{server}/resnet50.pth", expected.upper(), path) == path
    assert digest(path) == expected
    assert fetch_imagenet("http://127.0.0.1:1/nobody-listens", expected, path) == path


@pytest.mark.parametrize(
    ("page", "complaint"), [("noise.pth", "nothing of it was kept"), ("absent.pth", "cannot be downloaded")]
)
def test_a_download_that_went_wrong_leaves_nothing(server: str, tmp_path: Path, page: str, complaint: str) -> None:
    with pytest.raises(WeightsProblem, match=complaint):
        fetch_imagenet(f"{server}/{page}", "0" * 64, tmp_path / "resnet50.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_download_needs_a_whole_digest(tmp_path: Path) -> None:
    with pytest.raises(WeightsProblem, match="64 hexadecimal digits"):
        fetch_imagenet("https://example.org/resnet50.pth", "0676ba61", tmp_path / "resnet50.pth")


def test_only_the_web_is_downloaded_from(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsProblem, match="https://"):
        fetch_imagenet((folder / "resnet50.pth").as_uri(), "0" * 64, tmp_path / "resnet50.pth")
