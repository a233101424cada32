"""A bundle: a folder with `card.json` and `weights.safetensors`, refused when they do not belong together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.card import CARD_NAME, BundleCard, BundleProblem, Card, read_card
from model.networks import NETWORKS, build_network
from model.probe import PROBE_NAME, pack

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

    def networks(self) -> list[nn.Module]:
        """The members with their weights, in evaluation mode. Raises BundleProblem where these do not fit."""
        members, weights = self.card.network.members, self.state_dict()
        if members == 1:
            return [self._network(weights)]
        return [self._network(_under(weights, f"{number}.")) for number in range(members)]

    def network(self) -> nn.Module:
        """The one network of a bundle that is no ensemble. Raises BundleProblem."""
        (network,) = self.networks()
        return network

    def _network(self, weights: dict[str, Tensor]) -> nn.Module:
        spec = self.card.network
        try:
            network = build_network(spec.id, spec.kwargs)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleProblem(f"{self.path / CARD_NAME}: network {spec.id!r} cannot be built: {error}") from error
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise BundleProblem(f"{self.weights_path}: weights do not fit network {spec.id!r}: {error}") from error
        return network.eval()

    def companion(self, role: str) -> Bundle:
        """The bundle that must run before this one. Raises BundleProblem: absent, or another than the card names."""
        wanted = self.card.companions[role]  # type: ignore[index]  # the card's keys are literals
        found = load_bundle(self.path.parent / wanted.bundle)
        if found.sha256 != wanted.sha256:
            raise BundleProblem(
                f"{found.path / CARD_NAME}: {self.card.name} was made with another version of its companion "
                f"{wanted.bundle} (sha256 {wanted.sha256[:12]}…, found {found.sha256[:12]}…); restore that one"
            )
        return found


def _under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


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


def add_probe(bundle: Bundle, seen: Mapping[str, NDArray[np.uint8]]) -> Bundle:
    """Put a probe into the bundle's folder and its digest into the card."""
    content = pack(seen)
    draft = bundle.path / f"{PROBE_NAME}.part"
    draft.write_bytes(content)
    _replace_durably(draft, bundle.path / PROBE_NAME)
    digest = hashlib.sha256(content).hexdigest()
    write_card(bundle.path, bundle.card.model_copy(update={"probe_sha256": digest}))
    return load_bundle(bundle.path)


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
