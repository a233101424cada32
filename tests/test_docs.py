"""What the documents name exists: files, headings, commands, options, configuration keys, states, make targets."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.core import TyperGroup
from typer.main import get_group

import model.cli
import node.cli
from node.config import NodeSettings
from node.domain import JobState

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.fixture(scope="module")
def command_lines() -> dict[str, TyperGroup]:
    """The programs' commands. crlm-node puts its groups together when it is called, so it is called once."""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        patch.setattr(sys, "argv", ["crlm-node", "--help"])
        node.cli.main()
    return {"crlm-node": get_group(node.cli.app), "crlm-model": get_group(model.cli.app)}


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    missing = []
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", _text(document)):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        path = (document.parent / file) if file else document
        if not path.exists() or (heading and heading not in _headings(path)):
            missing.append(target)
    assert not missing


def test_the_pictures_are_there() -> None:
    if not (ROOT / "docs" / "images").is_dir():
        pytest.skip("no picture of a demo's overlay was taken yet")
    for document in DOCUMENTS:
        for target in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", _text(document)):
            assert (document.parent / target).read_bytes().startswith(b"\x89PNG"), target


@every_document
def test_commands_and_their_options_exist(document: Path, command_lines: dict[str, TyperGroup]) -> None:
    wrong = []
    for line in _commands(document):
        program, *words = line.split()
        command: Any = command_lines[program]
        while isinstance(command, TyperGroup) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        is_unknown = isinstance(command, TyperGroup) and bool(words) and not words[0].startswith("-")
        options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        if is_unknown or any(word.partition("=")[0] not in options for word in words if word.startswith("--")):
            wrong.append(line)
    assert not wrong


def test_the_readme_names_every_command(command_lines: dict[str, TyperGroup]) -> None:
    commands = command_lines["crlm-node"].commands
    named = set(re.findall(r"^\| `crlm-node ([a-z-]+)`", _text(ROOT / "README.md"), flags=re.MULTILINE))
    assert named == {name for name, each in commands.items() if not each.hidden}


@every_document
def test_configuration_keys_exist(document: Path) -> None:
    sections = "|".join(NodeSettings.model_fields)
    named = re.findall(rf"`({sections})\.(\w+)`", _text(document))
    assert not [
        f"{section}.{key}"
        for section, key in named
        # the spool has a file of that name
        if key not in _keys(section) and (section, key) != ("spool", "json")
    ]


@every_document
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", _text(document), flags=re.MULTILINE)) <= targets


def test_operations_explain_every_state_of_a_job() -> None:
    section = _text(ROOT / "docs" / "operations.md").partition("## What each state means")[2]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)[: len(JobState)] == list(JobState)


def test_every_environment_override_that_is_named_is_a_value() -> None:
    for document in DOCUMENTS:
        for section, key in re.findall(r"CRLM_NODE_([A-Z_]+?)__([A-Z_]+)", _text(document)):
            assert key.lower() in _keys(section.lower()), f"{document.name}: {section}__{key}"


def _keys(section: str) -> set[str]:
    annotation = NodeSettings.model_fields[section].annotation
    return set(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else set()


def _text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def _headings(document: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _text(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _commands(document: Path) -> Iterator[str]:
    """Calls of our programs in code, blocks and spans alike; remarks after them are cut off."""
    for code in re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", _text(document), flags=re.DOTALL):
        for line in "\n".join(code).splitlines():
            found = re.search(r"(?:^|[\s/])(crlm-(?:node|model)(?: [^#|]+)?)", line)
            # the image and a folder are called as the program is
            if found and not re.search(r"(-t|name:|image:) crlm-node|Description=", line):
                yield found[1].strip()
