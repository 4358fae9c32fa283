"""Imports point one way, nothing imports the package root, and importing the package is light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import foreword

ROOT = Path(foreword.__file__).parent
ORDER = (
    "errors",
    "files",
    "settings",
    "tables",
    "terminal",
    "downloads",
    "collections",
    "prompts",
    "retrieval",
    "evaluation",
    "training",
    "transferring",
    "report",
    "exporting",
    "hub",
    "indexing",
    "serving",
    "lab",
    "cli",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def names_imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Every module a statement below `tree` may import; relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else base for name in names)


def runs_at_import(tree: ast.Module) -> ast.Module:
    """What is left without function bodies and without `if TYPE_CHECKING:`."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]  # noqa: N815

        def visit_If(self, node: ast.If) -> ast.AST | None:
            checking = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return None if checking else self.generic_visit(node)

    stripped = Strip().visit(tree)
    assert isinstance(stripped, ast.Module)
    return stripped


def package_of(name: str) -> str:
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def test_every_package_has_its_place_in_the_order() -> None:
    packages = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert packages <= set(ORDER)


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_to_the_left(package: str) -> None:
    allowed = set(ORDER[: ORDER.index(package) + 1])
    wrong = [
        f"{name} imports {imported}"
        for name in MODULES
        if name.split(".")[1:2] == [package]
        for imported in names_imported(parsed(name), package_of(name))
        if imported.split(".")[0] == "foreword" and len(imported.split(".")) > 1
        if imported.split(".")[1] not in allowed
    ]
    assert wrong == []


def test_no_module_imports_the_root() -> None:
    wrong = []
    for name in MODULES:
        for node in ast.walk(parsed(name)):
            bare = isinstance(node, ast.Import) and any(alias.name == "foreword" for alias in node.names)
            wrong += [name] * (bare or (isinstance(node, ast.ImportFrom) and node.module == "foreword"))
    assert wrong == []


def test_no_two_files_import_each_other_in_a_circle() -> None:
    """Inside functions and for types alone too: whoever reads a file needs none of those that need it."""
    graph = {
        name: {m for m in names_imported(parsed(name), package_of(name)) if m in MODULES} - {name} for name in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


HEAVY = (
    "torch",
    "transformers",
    "sentence_transformers",
    "numpy",
    "datasets",
    "bm25s",
    "ir_measures",
    "pandas",
    "rich",
)


@pytest.mark.parametrize(
    "code",
    [
        "import foreword",
        "import foreword.cli; foreword.cli.main.__doc__",
        "from foreword.cli.main import build_parser; build_parser().format_help()",
        "import foreword.collections",
    ],
)
def test_importing_is_light(code: str) -> None:
    code += "; import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert sorted(set(done.stdout.split()) & set(HEAVY)) == []


ASKS_NOTHING = """
import importlib, logging, os, sys

def state():
    loggers = {name: one for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    of = lambda one: [one.level, one.propagate, one.disabled, list(map(str, one.handlers)), list(map(str, one.filters))]
    told = {name: of(one) for name, one in loggers.items() if name.partition(".")[0] != "foreword"}
    return dict(os.environ), of(logging.root), {name: how for name, how in told.items() if how != [0, True, False, [], []]}

ours, others = (words.split(",") for words in sys.argv[1:])
for name in others:
    try:
        importlib.import_module(name)
    except ImportError:  # of an extra
        assert name.partition(".")[0] not in ("torch", "sentence_transformers", "accelerate")
before = state()
for name in ours:
    importlib.import_module(name)
assert state() == before, (before, state())
"""
"""Imports what our modules import, and then them: of the environment and of others' loggers nothing changes."""


def test_importing_asks_nothing_of_other_packages() -> None:
    ours = [name for name in MODULES if not name.endswith("__main__")]
    found = {m for name in ours for m in names_imported(runs_at_import(parsed(name)), package_of(name))}
    others = sorted(m for m in found if m.partition(".")[0] not in ("foreword", "__future__"))
    command = [sys.executable, "-c", ASKS_NOTHING, ",".join(ours), ",".join(others)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOKENIZERS_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_what_the_package_offers_is_there() -> None:
    for name in foreword.__all__:
        assert getattr(foreword, name).__doc__
        assert name in dir(foreword)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = foreword.nothing  # type: ignore[attr-defined]
