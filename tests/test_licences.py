"""No package under the GPL in our processes: the licence of everything that the install brings, as it declares itself.

The closure is walked from our own requirements, so a new dependency is judged on the day it comes in. An extra's
packages are judged where they are installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "crlm-node"
EXTRAS = ("train", "cpu", "dev")

# SPDX identifiers that we admit. LGPL and MPL bind their own files only, which we use unchanged (see NOTICE).
ADMITTED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "ISC",
        "LGPL-3.0-only",
        "MIT",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
        "Zlib",
    }
)

# What packages without an SPDX expression write instead, in `License` or as a classifier's last part.
SPELLINGS = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}

# NVIDIA's own runtime libraries come with the CUDA build of torch. They are proprietary, not copyleft, installed
# by whoever chooses that build, and never shipped by us.
NOT_OURS_TO_JUDGE = re.compile(r"(nvidia-|cuda-).*")


def test_every_package_of_the_base_install_has_an_admitted_licence() -> None:
    packages = _closure(PROJECT, extra="")
    assert len(packages) > 40, "the walk must have reached the dependencies' dependencies"
    assert not list(_refused(packages))


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_installed_package_of_an_extra_has_an_admitted_licence(extra: str) -> None:
    named = [
        Requirement(text).name
        for text in distribution(PROJECT).requires or ()
        if _applies(Requirement(text), extra) and not _applies(Requirement(text), "")
    ]
    assert named, f"pyproject.toml has no extra {extra!r}"
    if not any(_installed(name) for name in named):
        pytest.skip(f"the extra {extra!r} is not installed ({', '.join(named)})")
    assert not list(_refused(_closure(PROJECT, extra=extra)))


@pytest.mark.parametrize(
    ("expression", "is_admitted"),
    [
        ("MIT", True),
        ("MIT AND (Apache-2.0 OR GPL-2.0-only)", True),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
        ("LGPL-3.0-only", True),
        ("GPL-3.0-or-later", False),
        ("MIT AND AGPL-3.0-only", False),
        ("GPL-2.0-only OR AGPL-3.0-only", False),
        ("", False),
        ("LicenseRef-Proprietary", False),
    ],
)
def test_an_expression_is_judged_by_all_that_it_demands(expression: str, is_admitted: bool) -> None:
    assert _is_admitted(expression) is is_admitted


def _refused(packages: dict[str, Distribution]) -> Iterator[str]:
    for name, package in sorted(packages.items()):
        found = _licences(package)
        if not NOT_OURS_TO_JUDGE.fullmatch(name) and not any(map(_is_admitted, found)):
            yield f"{name} {package.version}: {' | '.join(found) or 'no licence that we can read'}"


def _licences(package: Distribution) -> list[str]:
    """What the package says of itself, the most exact way first; the first that says anything decides."""
    metadata = package.metadata
    if metadata["License-Expression"]:
        return [metadata["License-Expression"]]
    classifiers = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier") or () if "License ::" in text]
    classifiers = [text for text in classifiers if text not in ("OSI Approved", "DFSG approved")]
    # of several classifiers all are demanded
    if classifiers:
        return [" AND ".join(SPELLINGS.get(text.lower(), text.replace(" ", "-")) for text in classifiers)]
    stated = (metadata["License"] or "").strip()
    return [SPELLINGS.get(stated.lower(), stated)] if stated and "\n" not in stated else []


def _is_admitted(expression: str) -> bool:
    """SPDX's grammar of AND, OR, WITH and parentheses: AND demands all, OR any one."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    alternatives: list[list[bool]] = [[]]
    while tokens:
        token = tokens.pop(0)
        if token == "OR":
            alternatives.append([])
        elif token == "(":
            inside, tokens = _to_the_closing(tokens)
            alternatives[-1].append(_is_admitted(" ".join(inside)))
        elif token != "AND":
            with_exception = f" WITH {tokens[1]}" if tokens[:1] == ["WITH"] else ""
            tokens = tokens[2:] if with_exception else tokens
            alternatives[-1].append(token + with_exception in ADMITTED)
    return any(demands and all(demands) for demands in alternatives)


def _to_the_closing(tokens: list[str]) -> tuple[list[str], list[str]]:
    depth = 1
    for index, token in enumerate(tokens):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth == 0:
            return tokens[:index], tokens[index + 1 :]
    return tokens, []


def _closure(name: str, extra: str) -> dict[str, Distribution]:
    """Every installed package that `name[extra]` needs, by its canonical name; our own left out."""
    found: dict[str, Distribution] = {}
    ahead = [(name, frozenset({extra}))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while ahead:
        if ahead[-1] in seen:
            ahead.pop()
            continue
        current, extras = ahead.pop()
        seen.add((current, extras))
        package = _installed(current)
        if package is None:
            continue  # an extra's package that is not installed, or a requirement of another platform
        if canonicalize_name(current) != PROJECT:
            found[canonicalize_name(current)] = package
        for requirement in map(Requirement, package.requires or ()):
            if any(_applies(requirement, wanted) for wanted in extras | {""}):
                ahead.append((requirement.name, frozenset(requirement.extras)))
    return found


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
