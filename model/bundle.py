"""A bundle: a folder with `card.json` and `weights.safetensors`, refused when they do not belong together."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.card import CARD_NAME, BundleCard, BundleProblem, Card, read_card
from model.networks import NETWORKS, build_network

WEIGHTS_NAME = "weights.safetensors"


@dataclass(frozen=True)
class Bundle(BundleCard):
    """A card and the folder it describes, its weights' digest verified."""

    @cached_property
    def weights_path(self) -> Path:
        return self.path / WEIGHTS_NAME

    def state_dict(self) -> dict[str, Tensor]:
        """The weights on the CPU; what was stored as half precision comes back as float32."""
        try:
            stored = load_file(self.weights_path)
        except (OSError, SafetensorError) as error:
            raise BundleProblem(f"{self.weights_path}: not readable as safetensors ({error})") from error
        return {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}

    def network(self) -> nn.Module:
        """The network with its weights, in evaluation mode. Raises BundleProblem where they do not fit."""
        spec = self.card.network
        try:
            network = build_network(spec.id, spec.kwargs)
        except (KeyError, TypeError) as error:
            raise BundleProblem(f"{self.path / CARD_NAME}: network {spec.id!r} cannot be built: {error}") from error
        try:
            network.load_state_dict(self.state_dict())
        except RuntimeError as error:
            raise BundleProblem(f"{self.weights_path}: weights do not fit network {spec.id!r}: {error}") from error
        return network.eval()


def load_bundle(path: Path) -> Bundle:
    """The bundle in folder `path`. Raises BundleProblem: no such folder or file, invalid card, other weights."""
    read, weights_path = read_card(path), path / WEIGHTS_NAME
    if read.card.network.id not in NETWORKS:
        known = ", ".join(sorted(NETWORKS))
        raise BundleProblem(f"{path / CARD_NAME}: network.id is {read.card.network.id!r}, this version knows: {known}")
    found = _sha256_of_file(weights_path)
    if found != read.card.sha256:
        raise BundleProblem(
            f"{weights_path}: sha256 expected {read.card.sha256}, found {found}: the weights are not those that the "
            "card describes. Restore both files from where the bundle came from; never edit the digest by hand"
        )
    return Bundle(read.card, path, read.sha256)


def save_bundle(path: Path, card: Card, state_dict: dict[str, Tensor], *, half: bool = True) -> Bundle:
    """Write folder `path`: weights first, the card (with the weights' digest) last; each file whole or absent.

    Raises ValueError when a weight is not finite, or has no finite half precision.
    """
    path.mkdir(parents=True, exist_ok=True)
    tensors = {name: _stored(name, value, half=half) for name, value in state_dict.items()}
    draft = path / f"{WEIGHTS_NAME}.part"
    save_file(tensors, draft)
    # safetensors writes for the owner only; the node may run as somebody else
    draft.chmod(0o644)
    digest = _sha256_of_file(draft)
    _replace_durably(draft, path / WEIGHTS_NAME)
    write_card(path, card.model_copy(update={"sha256": digest}))
    return load_bundle(path)


def write_card(path: Path, card: Card) -> None:
    """Replace the card of the bundle folder `path`, for example when metrics were measured."""
    draft = path / f"{CARD_NAME}.part"
    draft.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _replace_durably(draft, path / CARD_NAME)


def _stored(name: str, value: Tensor, *, half: bool) -> Tensor:
    plain = value.detach().cpu().contiguous()
    if not plain.is_floating_point():
        return plain
    plain = plain.to(torch.float16 if half else torch.float32)
    if not bool(torch.isfinite(plain).all()):
        raise ValueError(f"weight {name} is not finite in {plain.dtype}; it cannot be saved")
    return plain


def _sha256_of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleProblem(
            f"{path}: cannot be read ({error.strerror}); a bundle is a folder with card and weights"
        ) from error


def _replace_durably(draft: Path, final: Path) -> None:
    with draft.open("rb+") as file:
        os.fsync(file.fileno())
    draft.replace(final)
