"""Which family of pulse sequence made an MR image, and where diffusion is told of, sign by sign.

A header names the sequence in several places, and none of them alone is believed against another: a turbo spin echo
that one place calls echo-planar is asked about.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from node.dicom.header import FrameHeader
from node.evidence_facts import UNSURE, Sign
from node.evidence_texts import series_texts, text_of
from node.evidence_vendors import (
    DIFFUSION_SEQUENCE,
    GE_B,
    GE_SEQUENCE,
    LOWEST_WEIGHTED_B,
    PHILIPS_EPI_FACTOR,
    PHILIPS_TECHNIQUE,
    PrivateReader,
)
from node.evidence_words import DIFFUSION_WORDS, TRACE_TOKENS, first_named

SPIN_ECHO, GRADIENT_ECHO, ECHO_PLANAR, BALANCED = "spin echo", "gradient echo", "echo-planar", "balanced steady state"
UNKNOWN = "an untold kind of sequence"
_PRECEDENCE = (ECHO_PLANAR, BALANCED, GRADIENT_ECHO, SPIN_ECHO)
"""A balanced sequence is a gradient echo besides; what reads a spin echo out by gradients is echo-planar."""
_NAMED: tuple[tuple[str, re.Pattern[str]], ...] = (
    (ECHO_PLANAR, re.compile(r"^\*?ep|epi", re.IGNORECASE)),
    (
        BALANCED,
        re.compile(r"trufi|tru-?fisp|true-?ss|\*?tfi\d|fiesta|b-?tfe|b-?ffe|bssfp|truesf|balanced", re.IGNORECASE),
    ),
    (SPIN_ECHO, re.compile(r"tse|fse|haste|fase|^\*?h2d|^\*?tir|ssh|propeller|cube|\bspace|vista", re.IGNORECASE)),
)
_BALANCED_WORDS = dict(_NAMED)[BALANCED]
_BALANCED_STATES = ("FREE_PRECESSION", "TRANSVERSE")
_NAME_PLACES = (("SequenceName", "(0018,0024)"), ("PulseSequenceName", "(0018,9005)"))


def sequence_family(signs: Sequence[Sign]) -> str:
    """What the signs say together, by precedence where they differ."""
    said = {sign.says for sign in signs}
    return next((family for family in _PRECEDENCE if family in said), UNKNOWN)


def spin_echo_doubts(signs: Sequence[Sign]) -> tuple[Sign, ...] | None:
    """Why a person should look at what is told to be a spin echo; None where it is none.

    One place that says otherwise is a doubt, two are an answer.
    """
    others = [sign for sign in signs if sign.says not in (SPIN_ECHO, UNSURE)]
    if not any(sign.says == SPIN_ECHO for sign in signs) or len({sign.where for sign in others}) > 1:
        return None
    disputing = (Sign(UNSURE, f"{sign.what}, which nothing else says", sign.where) for sign in others)
    return (*(sign for sign in signs if sign.says == UNSURE), *disputing)


def family_signs(header: FrameHeader, private: PrivateReader) -> Iterator[Sign]:
    """Each place that names the sequence's family; `UNSURE` where it leaves open whether it is echo-planar."""
    sequence = text_of(header, "ScanningSequence").upper().split("\\")
    yield from _by_scanning_sequence(sequence)
    yield from _by_pulse_sequence(header, is_classic=any(sequence))
    yield from _by_readout(header, private)
    for name, where in sequence_names(header, private):
        for family, pattern in _NAMED:
            if pattern.search(name) and not (family == BALANCED and "SE" in sequence):
                yield Sign(family, f"the sequence's name is one of {family}", where)
                break
    if "SE" not in sequence and any(_BALANCED_WORDS.search(words) for words, _ in series_texts(header)):
        yield Sign(BALANCED, "the series' words name a balanced steady state", "(0008,103E)", by="text")


def sequence_names(header: FrameHeader, private: PrivateReader | None = None) -> Iterator[tuple[str, str]]:
    """(name, where) of the sequence, the vendor's own last: GE's pulse sequence, Philips' scanning technique."""
    for keyword, where in _NAME_PLACES:
        if name := text_of(header, keyword):
            yield name, where
    for tag in (GE_SEQUENCE, PHILIPS_TECHNIQUE) if private else ():
        if name := private.text(tag) if private else "":
            yield name, str(tag)


def _by_scanning_sequence(sequence: Sequence[str]) -> Iterator[Sign]:
    """Echo-planar stands beside spin or gradient echo; GE's "research mode" (PROPELLER) says nothing."""
    families = (("EP", ECHO_PLANAR), ("GR", GRADIENT_ECHO), ("SE", SPIN_ECHO), ("IR", SPIN_ECHO))
    family = next((family for value, family in families if value in sequence), None)
    if family:
        yield Sign(family, f"Scanning Sequence says {family}", "(0018,0020)")


def _by_pulse_sequence(header: FrameHeader, *, is_classic: bool) -> Iterator[Sign]:
    """The attributes of multi-frame images (PS3.3 C.8.13.4), all required of an original one."""
    echo = text_of(header, "EchoPulseSequence").upper()
    planar = text_of(header, "EchoPlanarPulseSequence").upper()
    if planar == "YES":
        yield Sign(ECHO_PLANAR, "Echo Planar Pulse Sequence says yes", "(0018,9018)")
    elif echo == "SPIN":
        yield Sign(SPIN_ECHO, "Echo Pulse Sequence says spin", "(0018,9008)")
        if not planar and not is_classic:
            yield Sign(UNSURE, "a spin echo, and not told whether it is echo-planar", "(0018,9018)")
    elif echo == "GRADIENT":
        yield Sign(GRADIENT_ECHO, "Echo Pulse Sequence says gradient", "(0018,9008)")
    if text_of(header, "SteadyStatePulseSequence").upper() in _BALANCED_STATES:
        yield Sign(BALANCED, "Steady State Pulse Sequence says balanced", "(0018,9017)")


def _by_readout(header: FrameHeader, private: PrivateReader) -> Iterator[Sign]:
    """Many gradient echoes after one refocusing pulse are an echo-planar read-out, whatever the sequence is called."""
    refocused, read = header.numbers("RFEchoTrainLength"), header.numbers("GradientEchoTrainLength")
    if text_of(header, "EchoPulseSequence").upper() == "SPIN" and refocused and read and refocused[0] <= 1 < read[0]:
        yield Sign(ECHO_PLANAR, f"{read[0]:.0f} gradient echoes after one pulse", "(0018,9241)")
    if (factor := private.numbers(PHILIPS_EPI_FACTOR)) and factor[0] > 1:
        yield Sign(ECHO_PLANAR, f"an EPI factor of {factor[0]:.0f}", str(PHILIPS_EPI_FACTOR))


def diffusion_places(
    header: FrameHeader, image_type: tuple[str, ...], private: PrivateReader | None = None
) -> frozenset[str]:
    """Where diffusion is told of beside a b-value: contrast, the sequence's names, the series' words.

    With `private` also the vendors' own: there GE's element counts, whose b-value is none on other sequences.
    """
    tokens = {"DIFFUSION", *TRACE_TOKENS}
    places = {where for name, where in sequence_names(header, private) if DIFFUSION_SEQUENCE.search(name)}
    if private and (numbers := private.numbers(GE_B.tag)) and GE_B.decode(numbers) >= LOWEST_WEIGHTED_B:
        places.add(str(GE_B.tag))
    in_words = (where for words, where in series_texts(header) if first_named(words, DIFFUSION_WORDS))
    places |= set(itertools.islice(in_words, 1))  # what one place says in words, the others repeat
    if tokens & set(image_type):
        places.add("(0008,0008)")
    if text_of(header, "AcquisitionContrast").upper() in tokens:
        places.add("(0008,9209)")
    return frozenset(places)
