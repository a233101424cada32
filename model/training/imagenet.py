"""ImageNet weights of ResNet-34 and ResNet-50: from a file that the user has, never fetched behind the user's back.

Files are torchvision's (`.pth`, read with `weights_only=True`, so that no code in them runs) or the same names as
safetensors. A file is used only if its SHA-256 is torchvision's own for IMAGENET1K_V1, or the one that the user
gives; with the latter the user answers for what the weights are.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import BinaryIO
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.networks.cmg import CMG
from model.networks.resnet import Depth, load_trunk
from model.networks.resnet50_features import ResNet50Features, Weights
from model.problems import WeightsProblem
from model.training.losses_constraint import row_name

log = logging.getLogger("model.training.imagenet")

# torchvision's IMAGENET1K_V1 (resnet34-b627a593.pth, resnet50-0676ba61.pth): a name ends in its digest's first digits
TORCHVISION_SHA256: dict[Depth, str] = {
    34: "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    50: "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
}
CHUNK_BYTES = 1 << 20
PATIENCE_S = 60
# a file of something else makes torch's reader stumble over its own steps, in several ways
UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    AttributeError,
    SafetensorError,
    # what torch's weights-only reader raises has no name of torch's own, and pickle is imported nowhere here
    torch.serialization.pickle.UnpicklingError,  # type: ignore[attr-defined]  # torch does not export it
)


def feature_extractor(path: Path | None, sha256: str | None = None) -> ResNet50Features:
    """The judge of the feature constraint, with ImageNet weights from `path`, or without a path with random ones.

    What it is stands in its `weights`, and in the log. Raises WeightsProblem.
    """
    if path is None:
        log.warning(
            "no file with ImageNet weights was named: the feature constraint judges by RANDOM features. It is called "
            "%r and is not CRLM-GAN. Name torchvision's resnet50-0676ba61.pth to have that",
            row_name("random"),
        )
        return ResNet50Features()
    weights = read_imagenet(path, 50, sha256)
    try:
        extractor = ResNet50Features(weights)
    except RuntimeError as error:
        raise WeightsProblem(f"{path}: no ResNet-50 in torchvision's layout: {error}") from error
    log.info("the feature constraint judges by the ImageNet weights in %s", path)
    return extractor


def start_encoders(network: CMG, path: Path | None, sha256: str | None = None) -> Weights:
    """Give both encoders of system (b) the ImageNet weights in `path`; without a path they keep their random ones.

    Returns which it is, for the run's record. Raises WeightsProblem, also for a network that is not of full width.
    """
    if path is None:
        log.warning(
            "no file with ImageNet weights was named: the encoders start from RANDOM weights, the published ones do "
            "not. Name torchvision's resnet34-b627a593.pth to have them"
        )
        return "random"
    weights = read_imagenet(path, 34, sha256)
    try:
        for phase in (network.portal_venous, network.arterial):
            load_trunk(phase.encoder, weights)
    except RuntimeError as error:
        raise WeightsProblem(f"{path}: does not fit a ResNet-34 of this network's width: {error}") from error
    log.info("both encoders start from the ImageNet weights in %s", path)
    return "imagenet"


def read_imagenet(path: Path, depth: Depth, sha256: str | None = None) -> dict[str, Tensor]:
    """The state dict in `path`, on the CPU, once its digest is known to be right.

    `sha256`: 64 hexadecimal digits, in place of torchvision's. Raises WeightsProblem: no such file, another digest,
    nothing but tensors by name expected.
    """
    expected = TORCHVISION_SHA256[depth] if sha256 is None else _digest(sha256)
    found = _sha256_of(path)
    if found != expected:
        raise WeightsProblem(
            f"{path}: SHA-256 is {found}, expected {expected}. Take torchvision's IMAGENET1K_V1 file of "
            f"ResNet-{depth}, or give this file's own digest if you know what it is"
        )
    weights = _load(path)
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise WeightsProblem(f"{path}: not a state dict (tensors by name); save the network's `state_dict()` alone")
    return weights


def fetch_imagenet(url: str, sha256: str, path: Path) -> Path:
    """Download `url` to `path`, whole and with this digest or not at all; a file that has it already is kept.

    Raises WeightsProblem: neither http nor https, not reachable, another digest (nothing is left of it then).
    """
    expected = _digest(sha256)
    if urlsplit(url).scheme not in ("http", "https"):
        raise WeightsProblem(f"{url}: not an address; give one that begins with https:// or http://")
    if path.is_file() and _sha256_of(path) == expected:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    try:
        found = _download(url, draft)
        if found != expected:
            raise WeightsProblem(f"{url}: SHA-256 is {found}, expected {expected}; nothing of it was kept")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _load(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise WeightsProblem(f"{path}: not readable as weights ({error})") from error


def _download(url: str, draft: Path) -> str:
    """The digest of what came; durable in `draft`."""
    try:
        with urlopen(url, timeout=PATIENCE_S) as answer, draft.open("wb") as file:
            return _copy(answer, file)
    except (URLError, OSError) as error:
        raise WeightsProblem(f"{url}: cannot be downloaded ({error})") from error


def _copy(source: BinaryIO, file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        file.write(chunk)
    file.flush()
    os.fsync(file.fileno())
    return digest.hexdigest()


def _digest(sha256: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256.lower()):
        raise WeightsProblem(f"{sha256!r} is no SHA-256: give its 64 hexadecimal digits")
    return sha256.lower()


def _sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsProblem(f"{path}: cannot be read ({error.strerror}); name a file with ImageNet weights") from error
