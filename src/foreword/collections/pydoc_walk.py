"""Where an installed package's source files are, found without importing it."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STDLIB = "stdlib"

# Tests, bundled copies of other packages, and pages about a package rather than of it.
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "examples", "benchmarks", "__pycache__", "site-packages", "dist-packages"}
    | {"vendor", "vendored", "third_party", "extern", "externals", "node_modules"}
    | {"_vendor", "_vendored", "_third_party", "_extern", "_externals"}
)
_SKIPPED_FILES = frozenset({"conftest.py", "setup.py", "__main__.py"})
# Of the standard library: its own tests, applications, jokes and private or frozen parts.
_SKIPPED_STDLIB = frozenset(
    {"antigravity", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "this"}
    | {"tkinter", "turtle", "turtledemo"}
)
_COMPILED = (".so", ".pyd")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One Python module's file."""

    module: str
    """Dotted name, e.g. `torch.nn.functional`."""
    path: Path
    is_package: bool
    """It is an `__init__.py`, so relative imports start at the module itself."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A package as it lies on disk."""

    name: str
    files: tuple[SourceFile, ...]
    """Ordered by path."""
    compiled: tuple[str, ...]
    """Dotted names of the modules without Python source."""


def is_installed(package: str) -> bool:
    """Whether a top-level package can be imported, without importing it."""
    if package == STDLIB:
        return True
    try:
        return package.isidentifier() and importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def locate(package: str) -> Installed | None:
    """The files of a top-level package (or of `stdlib`), tests and bundled copies left out.

    Returns:
        None when there is no such package.
    """
    if package == STDLIB:
        return _locate_stdlib()
    if not is_installed(package):
        return None
    spec = importlib.util.find_spec(package)
    assert spec is not None
    if spec.submodule_search_locations is not None:
        roots = [Path(root) for root in spec.submodule_search_locations]
        found = [item for root in roots for item in _walk(root, package)]
    else:
        path = Path(spec.origin) if spec.has_location and spec.origin else None
        found = [_as_module(path, package)] if path is not None else [package]
    return _installed(package, found)


def _locate_stdlib() -> Installed:
    """The public modules of `sys.stdlib_module_names`; those without a file are compiled."""
    root = Path(sysconfig.get_path("stdlib"))
    found: list[SourceFile | str] = []
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in _SKIPPED_STDLIB:
            continue
        if (root / name / "__init__.py").is_file():
            found.extend(_walk(root / name, name))
        elif (root / f"{name}.py").is_file():
            found.append(SourceFile(name, root / f"{name}.py", False))
        elif is_installed(name):
            found.append(name)
    return _installed(STDLIB, found)


def _installed(package: str, found: list[SourceFile | str]) -> Installed:
    files = sorted((f for f in found if isinstance(f, SourceFile)), key=lambda f: f.path.as_posix())
    return Installed(package, tuple(files), tuple(sorted(f for f in found if isinstance(f, str))))


def _walk(folder: Path, module: str) -> Iterator[SourceFile | str]:
    """The modules below a package's folder."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        name = entry.name
        if entry.is_dir():
            if name.isidentifier() and name not in _SKIPPED_FOLDERS:
                yield from _walk(Path(entry.path), f"{module}.{name}")
        elif name.endswith(".py"):
            if name not in _SKIPPED_FILES and not name.startswith("test_"):
                yield _as_source(Path(entry.path), module)
        elif name.endswith(_COMPILED):
            yield f"{module}.{name.split('.')[0]}"


def _as_source(path: Path, package: str) -> SourceFile:
    is_package = path.name == "__init__.py"
    return SourceFile(package if is_package else f"{package}.{path.stem}", path, is_package)


def _as_module(path: Path, name: str) -> SourceFile | str:
    """A package that is a single file."""
    return SourceFile(name, path, False) if path.suffix == ".py" else name
