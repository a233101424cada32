"""Who may import whom, and the manners that a reader cannot check by eye. Read from the source by `ast`, never run.

The tables are the architecture: a new file finds its place by a new line here, and a turned arrow fails with its
file and line.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("node", "model", "simulator")

# The order of the walk, first what everybody leans on. A file imports from the lines above its own, never from
# below, and never from a neighbour on its line; only the files of one folder, or of one family (jobs, jobs_…),
# may use one another.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("node", "node.domain", "node.errors", "node.logs", "node.durable", "node.lifeline"),
    ("node.yaml_file",),
    ("node.config",),
    ("node.dicom",),
    ("node.tables",),
    ("node.migrations",),
    ("node.evidence", "node.spool", "node.database", "node.bundles"),
    ("node.studies",),
    ("node.peers", "node.overlay", "node.job_files"),
    ("node.tracking",),
    ("node.analysis", "node.delivery", "node.inference"),
    # receiver and assembly hand on by file and by value, so they stand beside those who decide, not above them
    ("node.scp", "node.assembly", "node.routing", "node.timepoint", "node.inputs", "node.ledger", "node.jobs"),
    ("node.history",),
    ("node.orders", "node.operator", "node.survey"),
    ("node.retention", "node.console", "node.retrial", "node.deciding"),
    ("node.roles",),
    ("node.supervise",),
    ("node.demo", "node.doctor", "node.offline", "node.dataset"),
    ("node.cli",),
    ("node.__main__",),
)

# Outside libraries with one owner each: library → the places that may import it.
OWNERS: dict[str, tuple[str, ...]] = {
    "pynetdicom": ("node.scp", "node.peers.dimse", "node.peers.association", "simulator"),
    "pyorthanc": ("node.peers.orthanc",),
    "dicomweb_client": ("node.peers.dicomweb",),
    "requests": ("node.peers.dicomweb",),
    "dbos": ("node.jobs",),
    "highdicom": ("node.dicom",),
    "torch": ("model",),
    "safetensors": ("model",),
    "SimpleITK": ("model", "node.dicom"),
    "monai": ("model",),
    "openvino": ("model",),
    "tensorboard": ("model.training",),
    "matplotlib": ("model",),
    "sqlalchemy": ("node.database", "node.tables", "node.migrations", "node.studies", "node.jobs"),
    "alembic": ("node.database", "node.migrations"),
    "psycopg": ("node.database", "node.jobs"),
    "ruamel": ("node.yaml_file", "node.demo", "model.training.recipe"),  # the demo writes a configuration
    "pydantic": ("node.config", "node.yaml_file", "model"),
    "typer": ("node.cli", "model.cli"),
}

# Who works with arrays or cards, and so may import the model; the rest hands on paths.
MODEL_USERS = (
    "node.analysis",
    "node.bundles",
    "node.dataset",
    "node.dicom",
    "node.roles.work",
    "node.demo",
    "node.doctor",
    "node.job_files",
    "node.overlay",
    "node.tracking",
    "node.inference",
    "node.cli",
)
MODEL_MAY_NOT_KNOW = ("node", "simulator", "pydicom", "pynetdicom", "highdicom", "dbos", "fastapi", "sqlalchemy")
COMMAND_LINES = ("node.cli", "node.demo", "model.cli")


@dataclass(frozen=True)
class Import:
    """One imported module as it stands in a file; `module` is absolute."""

    importer: str
    module: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.importer} imports {self.module}"


def test_every_file_of_the_node_has_its_place_in_the_order() -> None:
    homeless = [module for module, _ in _modules("node") if _layer(module) is None]
    assert not homeless, f"give these a line in LAYERS: {', '.join(homeless)}"


def test_the_arrows_of_the_node_never_turn_back() -> None:
    assert _none(
        found
        for found in _imports("node")
        if _is_in(found.module, ("node",)) and not _is_downhill(found.importer, found.module)
    )


@pytest.mark.parametrize(
    ("importer", "imported", "is_allowed"),
    [
        ("node.scp", "node.spool", True),
        ("node.spool", "node.scp", False),
        ("node.scp", "node.assembly", False),
        ("node.dicom.seg", "node.dicom.terms", True),
        ("node.errors", "node.config", False),
        ("node.config", "node.errors.ConfigurationError", True),
    ],
)
def test_a_turned_arrow_is_known_when_it_is_seen(importer: str, imported: str, is_allowed: bool) -> None:
    assert _is_downhill(importer, imported) is is_allowed


@pytest.mark.parametrize("library", OWNERS)
def test_only_its_owner_imports_the_outside_library(library: str) -> None:
    assert _none(
        found
        for package in PACKAGES
        for found in _imports(package)
        if _is_in(found.module, (library,)) and not _is_of_family(found.importer, OWNERS[library])
    )


def test_the_model_knows_nothing_of_dicom_databases_or_the_node() -> None:
    assert _none(found for found in _imports("model") if _is_in(found.module, MODEL_MAY_NOT_KNOW))


def test_the_serving_path_of_the_model_never_imports_training() -> None:
    assert _none(
        found
        for found in _imports("model")
        if _is_in(found.module, ("model.training",))
        and not _is_of_family(found.importer, ("model.training", "model.cli"))
    )


def test_the_node_never_imports_training() -> None:
    assert _none(found for found in _imports("node") if _is_in(found.module, ("model.training",)))


def test_only_those_who_carry_arrays_import_the_model() -> None:
    assert _none(
        found
        for found in _imports("node")
        if _is_in(found.module, ("model",)) and not _is_of_family(found.importer, MODEL_USERS)
    )


def test_the_simulator_never_imports_the_node() -> None:
    assert _none(found for found in _imports("simulator") if _is_in(found.module, ("node",)))


def test_only_the_command_line_and_the_demo_use_the_simulator() -> None:
    assert _none(
        found
        for package in ("node", "model")
        for found in _imports(package)
        if _is_in(found.module, ("simulator",)) and not _is_of_family(found.importer, ("node.cli", "node.demo"))
    )


def test_no_import_is_relative() -> None:
    assert _none(
        f"{_place(path, node)}: from {'.' * node.level}{node.module or ''} import …"
        for package in PACKAGES
        for _, path in _modules(package)
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom) and node.level
    )


def test_only_command_lines_print() -> None:
    assert _none(
        f"{_place(path, node)}: print(…)"
        for package in PACKAGES
        for module, path in _modules(package)
        if not _is_of_family(module, COMMAND_LINES)
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )


def test_nothing_is_pickled_and_nothing_evaluated() -> None:
    assert _none(
        str(found)
        for package in PACKAGES
        for found in _imports(package)
        if _is_in(found.module, ("pickle", "dill", "joblib", "shelve", "marshal"))
    )


def test_every_exemption_from_a_rule_names_the_rule_and_carries_its_reason() -> None:
    folders = [ROOT / name for name in (*PACKAGES, "tests", "bench")]
    assert _none(
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        for line, text, above in _comments(path)
        if not _is_reasoned(text, above)
    )


@pytest.mark.parametrize(
    ("comment", "above", "is_reasoned"),
    [
        ("# an ordinary remark", "", True),
        ("# noqa: BLE001 - the process boundary", "", True),
        ("# noqa: BLE001", "", False),
        ("# noqa", "# every rule at once is too much", False),
        ("# type: ignore[arg-type]  # the stub lacks None", "", True),
        ("# type: ignore[arg-type]", "x = 1", False),
        ("# type: ignore[arg-type]", "    # the stub lacks None", True),
        ("# type: ignore  # because", "", False),
        ("# pragma: no cover", "", False),
    ],
)
def test_a_reason_is_known_when_it_is_seen(comment: str, above: str, is_reasoned: bool) -> None:
    assert _is_reasoned(comment, above) is is_reasoned


def test_tests_are_no_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py")), "pytest runs with --import-mode=importlib"


_EXEMPTION = re.compile(r"#\s*(?:noqa\b|type:\s*ignore\b|pragma:|ruff:|mypy:)")
_RULE = r"(?:ruff: )?noqa:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|type:\s*ignore\[[\w, -]+\]|pragma: [\w ]+?"
_WITH_RULE = re.compile(rf"#\s*(?:{_RULE})")
_WITH_RULE_AND_REASON = re.compile(rf"{_WITH_RULE.pattern}\s*[-–—#:]+\s*\S+")


def _is_reasoned(comment: str, above: str) -> bool:
    """The reason stands behind the rule, or in a comment of its own on the line above where that is too long."""
    if not _EXEMPTION.search(comment):
        return True
    has_reason_above = above.lstrip().startswith("#") and bool(_WITH_RULE.search(comment))
    return has_reason_above or bool(_WITH_RULE_AND_REASON.search(comment))


def _none(violations: Iterable[object]) -> bool:
    found = [str(violation) for violation in violations]
    if found:
        pytest.fail("\n".join(found), pytrace=False)
    return True


def _layer(module: str) -> int | None:
    return next((height for height, row in enumerate(LAYERS) if _entry(module, row)), None)


def _entry(module: str, row: tuple[str, ...]) -> str | None:
    """The entry of `row` that `module` belongs to; the bare package stands for its own file only."""
    return next((name for name in row if module == name or (name != "node" and _is_of_family(module, (name,)))), None)


def _is_downhill(importer: str, imported: str) -> bool:
    here, there = _layer(importer), _layer(_known(imported))
    if here is None or there is None:
        return True  # the test above tells of it
    # the ground layer is one idea in several files
    is_same_room = _entry(importer, LAYERS[here]) == _entry(_known(imported), LAYERS[here]) or here == 0
    return there < here or (there == here and is_same_room)


def _known(imported: str) -> str:
    """`from node.dicom import volume` is read as node.dicom.volume; a name inside a file is cut off."""
    modules = {module for module, _ in _modules("node")}.union(*LAYERS)
    return imported if imported in modules else imported.rpartition(".")[0]


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in packages)


def _is_of_family(module: str, places: tuple[str, ...]) -> bool:
    """The place itself, a file in its folder, or a part of it that was split off: node.jobs → node.jobs_tables."""
    return any(module == name or module.startswith((name + ".", name + "_")) for name in places)


@cache
def _modules(package: str) -> tuple[tuple[str, Path], ...]:
    return tuple(
        (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path)
        for path in sorted((ROOT / package).rglob("*.py"))
    )


@cache
def _imports(package: str) -> tuple[Import, ...]:
    return tuple(
        Import(module, name, _place(path, node))
        for module, path in _modules(package)
        for node in ast.walk(_tree(path))
        for name in _imported(node)
    )


def _imported(node: ast.AST) -> Iterator[str]:
    """Absolute names that this statement imports; `from a import b` is a.b, for b may be a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def _comments(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, comment, and the line above it."""
    text = path.read_text(encoding="utf-8")
    lines = ["", *text.splitlines()]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string, lines[token.start[0] - 1]
