"""A bundle to be carried to another machine: its files and those of its companions, verified before and after."""

from __future__ import annotations

import shutil
from pathlib import Path

from model.bundle import WEIGHTS_NAME, Bundle, load_bundle
from model.card import CARD_NAME, BundleProblem, card_digest
from model.probe import PROBE_NAME, read_probe


def export_bundle(path: Path, out: Path) -> tuple[Bundle, ...]:
    """Copy bundle folder `path`, and the bundles that must run before it, into `out`; the copies, verified.

    A folder of the same name with the same card is verified and left as it is. Raises BundleProblem: a bundle that is
    not whole, or another one in its place; OSError where nothing can be written.
    """
    bundles = _with_companions(load_bundle(path))
    for bundle in bundles:
        target = out / bundle.path.name
        if target.exists() and card_digest(target) != bundle.sha256:
            raise BundleProblem(f"{target}: another bundle of this name is there; name another folder, or remove it")
    return tuple(_copied(bundle, out) for bundle in bundles)


def _with_companions(bundle: Bundle) -> tuple[Bundle, ...]:
    """Verified, those that run first before those that need them."""
    read_probe(bundle.path, bundle.card)
    companions = (_with_companions(bundle.companion(role)) for role in bundle.card.companions)
    return (*(one for several in companions for one in several), bundle)


def _copied(bundle: Bundle, out: Path) -> Bundle:
    target, draft = out / bundle.path.name, out / f".{bundle.path.name}.part"
    if not target.exists():
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name in (WEIGHTS_NAME, CARD_NAME, *((PROBE_NAME,) if bundle.card.probe_sha256 else ())):
            shutil.copyfile(bundle.path / name, draft / name)
        draft.rename(target)
    copy = load_bundle(target)
    read_probe(target, copy.card)
    return copy
