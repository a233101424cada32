"""What `crlm-node route --json` prints is written down in docs/routing.md, key by key, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import node.evidence_facts as facts
from model.phantom import GEOMETRIES, make_phantom
from node.config import load_config
from node.domain import Decision, TimePoint
from node.survey import survey
from simulator.modality import write_series

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "routing.md").read_text(encoding="utf-8")
WEIGHTINGS = (
    *(facts.CT, facts.T1, facts.T2, facts.DWI, facts.DWI_TRACE, facts.DWI_COMPUTED),
    *(facts.ADC, facts.FA, facts.LOCALIZER, facts.OTHER, facts.NOT_AN_IMAGE),
)
DIRECTIONALITIES = (facts.ISOTROPIC, facts.DIRECTIONAL, facts.DERIVED_MEAN, facts.UNWEIGHTED, facts.UNTOLD)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A series of diffusion volumes, and a file that is no DICOM."""
    folder = tmp_path_factory.mktemp("study")
    phantom = make_phantom(
        "pre-nact-dwi", 910100, geometry=GEOMETRIES["pre-nact-dwi"].resampled(16, 16), b_values=(0, 1000)
    )
    write_series(phantom, folder, with_truth=False)
    (folder / "note").write_text("no DICOM")
    return survey([folder], load_config(ROOT / "dicom_config", environment={})).as_json()


def documented(what: str) -> dict[str, str]:
    """Key → type of the table under the line "Each <what>:"."""
    table = DOCUMENT.partition(f"Each {what}:\n\n")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, flags=re.MULTILINE))


def values_of(key: str) -> set[str]:
    """The words in code of a key's row."""
    (row,) = re.findall(rf"^\| `{key}` \|[^|]+\|(.+)\|$", DOCUMENT, flags=re.MULTILINE)
    return set(re.findall(r"`([a-z0-9-]+)`", row))


def test_every_key_of_a_volume_is_documented_in_its_order(told: list[dict[str, Any]]) -> None:
    volumes = [item for item in told if "unreadable" not in item]
    assert volumes
    assert all(list(item) == list(documented("volume")) for item in volumes)


def test_every_key_of_a_reason_is_documented(told: list[dict[str, Any]]) -> None:
    reasons = [reason for item in told for reason in item.get("reasons", ())]
    assert reasons
    assert all(list(reason) == list(documented("reason")) for reason in reasons)


def test_every_key_of_an_unreadable_file_is_documented(told: list[dict[str, Any]]) -> None:
    (unreadable,) = [item for item in told if "unreadable" in item]
    assert list(unreadable) == list(documented("file that could not be read"))


def test_every_value_has_its_documented_type(told: list[dict[str, Any]]) -> None:
    types: dict[str, type] = {"string": str, "integer": int, "boolean": bool, "list": list, "null": type(None)}
    for item in told:
        keys = documented("file that could not be read" if "unreadable" in item else "volume")
        for key, kind in keys.items():
            allowed = tuple(types[word.split()[0]] for word in kind.strip().split(" or "))
            assert isinstance(item[key], allowed), key


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("weighting", WEIGHTINGS),
        ("directionality", DIRECTIONALITIES),
        ("decision", tuple(Decision)),
        ("time_point", tuple(TimePoint)),
    ],
)
def test_every_word_that_a_key_may_have_is_documented(key: str, values: tuple[str, ...]) -> None:
    assert values_of(key) == set(values)
