"""Run as a script in a process of its own: import modules and write down the docstrings of what they hold.

Uses the standard library only. Standard input is a JSON object: `modules` (names), `path` (for `sys.path`)
and `out` (the file to write). Whatever the modules print or write to the current folder is thrown away.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_SKIPPED = frozenset({"test", "tests", "conftest", "__main__"})


def main() -> None:
    """Do the task on standard input; fails only when not even the first module can be imported."""
    task = json.loads(sys.stdin.read())
    sys.path[:] = task["path"]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # compiled code prints there too
    records: list[dict[str, Any]] = []
    seen: set[str] = set()
    failed: BaseException | None = None
    loaded = 0
    for name in task["modules"]:
        try:
            module = importlib.import_module(name)
        except BaseException as error:  # a module may even exit on import
            failed = error
            continue
        loaded += 1
        for each in [module, *submodules(module)]:
            for record in records_of(each, name.partition(".")[0]):
                if record["name"] not in seen:
                    seen.add(record["name"])
                    records.append(record)
    if failed is not None and not loaded:
        sys.exit(f"{type(failed).__name__}: {failed}")
    # Of a thing that several modules show, the shortest name comes first and is the one that is kept.
    records.sort(key=lambda record: (record["name"].count("."), record["name"]))
    with open(task["out"], "w", encoding="utf-8") as file:
        json.dump(records, file)


def submodules(module: ModuleType) -> Iterator[ModuleType]:
    """The public modules below a package that can be imported, in order of name."""
    for found in sorted(pkgutil.iter_modules(getattr(module, "__path__", [])), key=lambda info: info.name):
        if found.name.startswith("_") or found.name in _SKIPPED:
            continue
        try:
            child = importlib.import_module(f"{module.__name__}.{found.name}")
        except BaseException:
            continue
        yield child
        yield from submodules(child)


def records_of(module: ModuleType, package: str) -> Iterator[dict[str, Any]]:
    """The docstrings of a module, its functions, its classes and their methods, if they are the package's."""
    yield from record(module, module.__name__, "module")
    for name in sorted(set(getattr(module, "__all__", None) or vars(module))):
        thing = getattr(module, name, None)
        if name.startswith("_") or thing is None or inspect.ismodule(thing):
            continue
        home = getattr(thing, "__module__", None) or package
        if home.partition(".")[0] not in (package, "_" + package) and module.__name__ != package:
            continue
        if inspect.isclass(thing):
            if home.partition(".")[0].lstrip("_") != package.lstrip("_") and home != "builtins":
                continue
            yield from record(thing, f"{module.__name__}.{name}", "class")
            yield from methods_of(thing, f"{module.__name__}.{name}")
        elif callable(thing) and home.partition(".")[0].lstrip("_") == package.lstrip("_"):
            yield from record(thing, f"{module.__name__}.{name}", "function")


def methods_of(owner: type, qualified: str) -> Iterator[dict[str, Any]]:
    """The docstrings of the public methods and properties that a class defines itself."""
    for name in sorted(vars(owner)):
        if name.startswith("_"):
            continue
        thing = inspect.getattr_static(owner, name)
        if isinstance(thing, staticmethod | classmethod):
            thing = thing.__func__
        if inspect.isroutine(thing):
            yield from record(thing, f"{qualified}.{name}", "method")
        elif inspect.isdatadescriptor(thing):
            yield from record(thing, f"{qualified}.{name}", "property")


def record(thing: Any, name: str, kind: str) -> Iterator[dict[str, Any]]:
    """One record of a documented thing; none when it has no docstring of its own."""
    doc = getattr(thing, "__doc__", None)
    if not isinstance(doc, str) or not doc.strip():
        return
    home = getattr(thing, "__module__", None) or getattr(thing, "__name__", "")
    file = home if isinstance(home, str) else ""
    yield {
        "name": name,
        "kind": kind,
        "doc": doc,
        "signature": rendered(thing, kind),
        "file": file,
        "line": 0,
    }


def rendered(thing: Any, kind: str) -> str:
    """`(a, b=1)` where it can be known, without annotations and without `self`; else empty."""
    if kind in ("module", "property"):
        return ""
    try:
        found = inspect.signature(thing)
    except Exception:  # a compiled function's signature can even fail to parse (select.epoll's, in Python 3.13)
        return ""
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    if kind == "method" and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    shown = str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return shown if " at 0x" not in shown else ""  # an address differs from run to run


if __name__ == "__main__":
    main()
