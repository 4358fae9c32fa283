"""The public names of a package: under which path its users know what a private file defines.

`sklearn/linear_model/_base.py` defines a class that everyone calls `sklearn.linear_model.LinearRegression`.
Following the imports gives that name, leaves out what no public module shows, and survives moves of files.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from foreword.collections.pydoc.source import Installed, Module, RawDoc, SourceFile, parse_module

# Classes that compiled code keeps under another name than the one its users know.
_KNOWN_AS = {"torch._C.TensorBase": "torch.Tensor", "torch._C.Size": "torch.Size"}
_CALLS = (b"add_docstr", b"add_newdoc")


def is_public(name: str) -> bool:
    """Whether no part of a dotted name starts with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))


def source_docs(installed: Installed) -> tuple[list[RawDoc], dict[str, int]]:
    """Every public docstring of a package under its public name, ordered by file and line; nothing executed.

    With them come counts: `files`, `unreadable` files, docstrings left out as `private` (no public module shows them)
    or `redefined` (another of the same name came before), and names that public modules import from `compiled` ones.
    """
    with _no_garbage_collection():
        modules, unreadable = _parse(installed)
    names = PublicNames(modules)
    found: list[RawDoc] = []
    private = 0
    for module in modules.values():
        named = [(doc, names.of_defined(module, doc.name)) for doc in module.docs]
        named += [(doc, names.of_added(doc.name)) for doc in module.added]
        for doc, name in named:
            if name is None or not is_public(name):
                private += 1
            else:
                found.append(replace(doc, name=name))
    found.sort(key=lambda doc: (doc.file, doc.line, doc.name))
    unique = {doc.name: doc for doc in reversed(found)}
    kept = [doc for doc in found if unique[doc.name] is doc]
    compiled = set(installed.compiled)
    imported = [m.imports.values() for m in modules.values() if is_public(m.name)]
    return kept, {
        "files": len(modules),
        "unreadable": unreadable,
        "private": private,
        "redefined": len(found) - len(kept),
        "compiled": sum(where in compiled for each in imported for where, _ in each),
    }


def _parse(installed: Installed) -> tuple[dict[str, Module], int]:
    """Parse the public modules, and of the private ones those that they import from or that attach docs."""
    files = {file.module: file for file in installed.files}
    waiting: list[str] = []
    for file in installed.files:
        with suppress(OSError):
            if is_public(file.module) or any(call in file.path.read_bytes() for call in _CALLS):
                waiting.append(file.module)
    modules: dict[str, Module] = {}
    seen: set[str] = set()
    unreadable = 0
    while waiting:
        name = waiting.pop()
        if name in seen or name not in files:
            continue
        seen.add(name)
        module = parse_module(files[name], _shown(files[name]))
        if module is None:
            unreadable += 1
            continue
        modules[name] = module
        waiting.extend(module.stars)
        for where, what in module.imports.values():
            waiting.append(where)
            if what is not None:
                waiting.append(f"{where}.{what}")
    return {name: modules[name] for name in sorted(modules)}, unreadable


def _shown(file: SourceFile) -> str:
    """A file's path below the folder that holds its package, e.g. `torch/nn/functional.py`."""
    depth = file.module.count(".") + (1 if file.is_package else 0)
    return file.path.relative_to(file.path.parents[depth]).as_posix()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Syntax trees are many small objects without cycles: collecting while they grow doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class PublicNames:
    """The public path of every top-level definition that has one."""

    def __init__(self, modules: dict[str, Module]) -> None:
        self.modules = modules
        self._star_names: dict[str, frozenset[str]] = {}
        self._paths: dict[tuple[str, str], str] = {}
        self._collect()

    def of_defined(self, module: Module, name: str) -> str | None:
        """The public path of what a module defines (`name` relative to it; empty for the module itself)."""
        if not name:
            return module.name
        top, dot, inner = name.partition(".")
        path = self._paths.get((module.name, top))
        if path is None and is_public(module.name):
            path = f"{module.name}.{top}"
        return None if path is None else f"{path}{dot}{inner}"

    def of_added(self, name: str) -> str | None:
        """The public path of a compiled thing documented by a call; `name` is where the call says it is."""
        for private, known in _KNOWN_AS.items():
            if name.startswith(f"{private}."):
                return known + name[len(private) :]
        if is_public(name):
            return name
        parts = name.split(".")
        for depth in range(1, len(parts)):
            package = self.modules.get(".".join(parts[:depth]))
            if package is None or not is_public(package.name):
                continue
            for start in range(depth, len(parts)):
                if parts[start] in package.imports and not parts[start].startswith("_"):
                    return ".".join([package.name, *parts[start:]])
        return None

    def _collect(self) -> None:
        """For each definition its best public path: in a package above it, else in a module that lists it."""
        best: dict[tuple[str, str], tuple[bool, int, str]] = {}
        for module in self.modules.values():
            if not is_public(module.name):
                continue
            listed = self._exported(module)
            for name in sorted(self._shown(module, listed)):
                home = self._resolve(module.name, name, ())
                if home is None:
                    continue
                above = f"{home[0]}.".startswith(f"{module.name}.")
                if not above and (listed is None or name not in listed or is_public(home[0])):
                    continue
                rank = (not above, module.name.count("."), f"{module.name}.{name}")
                best[home] = min(best.get(home, rank), rank)
        self._paths = {home: path for home, (_, _, path) in best.items()}

    def _shown(self, module: Module, listed: Sequence[str] | None) -> frozenset[str]:
        """The public names that a module offers; those it only imports count in a package or when listed."""
        names = set(module.defined) | set(listed or ())
        if module.is_package:
            names.update(module.imports)
            for star in module.stars:
                names.update(self._names_of_star(star, ()))
        return frozenset(name for name in names if not name.startswith("_"))

    def _exported(self, module: Module) -> list[str] | None:
        if module.exported is None and module.exported_from in self.modules:
            return self.modules[module.exported_from].exported
        return module.exported

    def _names_of_star(self, name: str, seen: tuple[str, ...]) -> frozenset[str]:
        """The names that `from <name> import *` brings in."""
        module = self.modules.get(name)
        if module is None or name in seen:
            return frozenset()
        if name not in self._star_names:
            listed = self._exported(module)
            names = set(listed or ())
            if listed is None:
                names = {*module.defined, *module.imports}
                for star in module.stars:
                    names |= self._names_of_star(star, (*seen, name))
            self._star_names[name] = frozenset(n for n in names if not n.startswith("_"))
        return self._star_names[name]

    def _resolve(self, module_name: str, name: str, seen: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
        """The module and name that define what `module_name` calls `name`, or None when not in source."""
        module = self.modules.get(module_name)
        if module is None or (module_name, name) in seen:
            return None
        if name in module.defined:
            return module_name, name
        seen = (*seen, (module_name, name))
        if name in module.imports:
            where, what = module.imports[name]
            return None if what is None else self._resolve(where, what, seen)
        for star in module.stars:
            if name in self._names_of_star(star, ()):
                found = self._resolve(star, name, seen)
                if found is not None:
                    return found
        return None
