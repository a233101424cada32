"""What a site declares of its own senders and protocols, as evidence: one sign, with the administrator's name on it.

A header cannot say what everybody at the site knows: that CT-2's protocol "Liver 70 s" is portal-venous. Such a
word counts as one vote beside those of the header. It settles what the header leaves untold, and overrules nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

from node.config_routes import Trust
from node.dicom.header import FrameHeader
from node.evidence_facts import OTHER, UNTOLD, Sign
from node.evidence_texts import series_texts

DECLARED = "declared"


def declared_signs(header: FrameHeader, trust: Sequence[Trust]) -> tuple[tuple[Sign, ...], tuple[Sign, ...]]:
    """What fitting lines declare of the contrast phase, and of the weighting; each value at most once."""
    phases: dict[str, Sign] = {}
    weightings: dict[str, Sign] = {}
    for number, line in enumerate(trust, start=1):
        for source in _sources(header, line):
            where = f"routes.yaml, trust {number}"
            if line.contrast_phase:
                what = f"the site declares {source} {line.contrast_phase}"
                phases.setdefault(line.contrast_phase, Sign(line.contrast_phase, what, where, by=DECLARED))
            if line.weighting:
                what = f"the site declares {source} {line.weighting.upper()}-weighted"
                weightings.setdefault(line.weighting, Sign(line.weighting, what, where, by=DECLARED))
    return tuple(phases.values()), tuple(weightings.values())


def settle_weighting(
    weighting: str, signs: tuple[Sign, ...], declared: tuple[Sign, ...]
) -> tuple[str, tuple[Sign, ...]]:
    """The declared weighting where the header tells none and the site says one; else what the header tells."""
    is_told = any(sign.says != UNTOLD for sign in signs)
    if weighting == OTHER and not is_told and len(declared) == 1:
        return declared[0].says, declared
    agreeing = tuple(sign for sign in declared if sign.says == weighting)
    return weighting, (*signs, *agreeing)


def _sources(header: FrameHeader, line: Trust) -> Iterator[str]:
    """Why the line speaks of this image, in words without any text of the header."""
    if line.called_ae and line.called_ae == _ae(header.root, "ReceivingApplicationEntityTitle"):
        yield f"what is sent to {line.called_ae}"
    if line.calling_ae and line.calling_ae == _ae(header.root, "SendingApplicationEntityTitle"):
        yield f"what {line.calling_ae} sends"
    if line.protocol and any(re.search(line.protocol, words, re.IGNORECASE) for words, _ in series_texts(header)):
        yield f"protocols like {line.protocol!r}"


def called_ae(dataset: Dataset) -> str:
    """The AE title of ours that the instance was sent to; empty where no receiver of ours kept it."""
    return _ae(dataset, "ReceivingApplicationEntityTitle")


def _ae(dataset: Dataset, keyword: str) -> str:
    meta = getattr(dataset, "file_meta", None)
    return str(meta.get(keyword, "") or "").strip() if meta is not None else ""
