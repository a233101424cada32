"""One YAML file as one checked value, or one sentence a fault: file, line, key, value and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from node.errors import ConfigurationError

ModelT = TypeVar("ModelT", bound=BaseModel)
Keys = tuple[str, ...]

# pydantic's kinds of fault whose own message names no remedy that a reader of YAML understands
_FIXES = {
    "extra_forbidden": "no such key; check its spelling against the file that ships, or remove the line",
    "missing": "this key is missing; add it",
    "model_type": "a section is needed here: lines of `key: value`, indented under it",
    "model_attributes_type": "a section is needed here: lines of `key: value`, indented under it",
    "dict_type": "a section is needed here: lines of `key: value`, indented under it",
    "tuple_type": "a list is needed here, such as [a, b]",
    "path_type": "a path is needed here, as text",
    "union_tag_invalid": "its protocol is none of dimse, folder, orthanc, dicomweb; write one of them",
}
_PASSWORD_IN_URL = re.compile(r"(?<=://)([^:/@\s]*):[^@\s]*@")


def parse_yaml(path: Path) -> CommentedMap:
    """The file's top-level mapping with its line numbers; an empty file is an empty one. Raises ConfigurationError."""
    try:
        with path.open(encoding="utf-8") as file:
            data = YAML(typ="rt").load(file)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path}: no such file; copy the one that ships in dicom_config/ and edit it"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{path}: not readable: {error.strerror}; mend its type or its permissions") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}:{line}: not valid YAML: {error.problem}; mend the line") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    except ReaderError as error:
        raise ConfigurationError(
            f"{path}: a control character stands at character {error.position}; remove it"
        ) from error
    if data is None:
        return CommentedMap()
    if not isinstance(data, CommentedMap):
        raise ConfigurationError(f"{path}:1: expected `key: value` lines at the top level; see the file that ships")
    return data


def read_yaml(path: Path, model: type[ModelT], overrides: Mapping[Keys, tuple[str, str]] | None = None) -> ModelT:
    """The file as a `model`. `overrides`: keys → (name of the environment variable, its text).

    Raises ConfigurationError whose message lists every fault, one a line.
    """
    overrides = overrides or {}
    raw = parse_yaml(path)
    data = _plain(raw)
    for keys, (variable, text) in overrides.items():
        _set(data, keys, _value_of(variable, text))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [_fault(path, raw, dict(detail), overrides) for detail in error.errors()]
        raise ConfigurationError("\n".join(faults)) from error


def line_of(raw: CommentedMap, location: Sequence[str | int]) -> int:
    """Line (from 1) of the innermost part of `location` that the file has."""
    node: Any = raw
    line = 1
    for part in location:
        if isinstance(node, CommentedMap) and part in node:
            line = node.lc.key(part)[0] + 1
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line = node.lc.item(part)[0] + 1
        else:
            break
        node = node[part]
    return int(line)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _value_of(variable: str, text: str) -> Any:
    """A list or section is read as YAML; all else stays text, which pydantic turns into the number it should be."""
    if not text.startswith(("[", "{")):
        return text
    try:
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ConfigurationError(
            f"environment variable {variable}={text!r}: not valid YAML; close its brackets and quote its texts"
        ) from error


def _set(data: dict[str, Any], keys: Keys, value: Any) -> None:
    for key in keys[:-1]:
        step = data.setdefault(key, {})
        data[key] = step if isinstance(step, dict) else {}
        data = data[key]
    data[keys[-1]] = value


def _fault(path: Path, raw: CommentedMap, detail: dict[str, Any], overrides: Mapping[Keys, tuple[str, str]]) -> str:
    location = _location_in_file(detail["loc"])
    names = tuple(str(part) for part in location)
    message = _FIXES.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    if names in overrides:
        variable, text = overrides[names]
        return f"environment variable {variable}={_shown(text)}: {message}"
    is_shown = detail["type"] not in _FIXES and not isinstance(detail["input"], dict | list | tuple)
    value = f" = {_shown(detail['input'])}" if is_shown else ""
    return f"{path}:{line_of(raw, location)}: {'.'.join(names)}{value}: {message}"


def _location_in_file(location: Sequence[str | int]) -> list[str | int]:
    """pydantic's location without what stands in no file: the protocol after a peer's name, and its own markers."""
    parts = [part for part in location if part != "[key]"]
    if parts[:1] == ["peers"] and len(parts) > 2:
        del parts[2]
    return parts


def _shown(value: object) -> str:
    """The value as it may be printed: never with a password."""
    return _PASSWORD_IN_URL.sub(r"\1:…@", repr(value))
