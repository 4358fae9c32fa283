"""All docstrings of a package, by reading its source or importing it elsewhere, kept on disk between runs."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from foreword.collections.docstrings import clean
from foreword.collections.pydoc_names import is_public, source_docs
from foreword.collections.pydoc_source import RawDoc
from foreword.collections.pydoc_walk import STDLIB, Installed
from foreword.common.errors import DataError, UnknownNameError
from foreword.common.files import atomic_write

METHODS = ("auto", "source", "import", "both")
FEW = 20
"""Under `method="auto"`, a package with compiled modules and fewer docstrings in source is imported too."""

_HERE = Path(__file__).parent
_CODE = ("docstrings", "pydoc_child", "pydoc_names", "pydoc_source", "pydoc_static", "pydoc_walk")


@dataclass(frozen=True, slots=True)
class Extraction:
    """What a package's docstrings are, before any is chosen."""

    package: str
    version: str
    docs: tuple[RawDoc, ...]
    counts: Mapping[str, int]
    method: str
    """`source`, `import` or `source+import`: how it came about."""


def extract(installed: Installed, method: str = "auto", *, cache: Path | None, timeout: float = 120) -> Extraction:
    """The public docstrings of an installed package.

    Args:
        installed: the package, as `pydoc_walk.locate` found it.
        method: `source` executes nothing; `import` runs the package in a child process and asks the living
            objects; `both` does the one and then the other for what the source lacks; `auto` reads the
            source and imports as well only a package that is mostly compiled, or of the standard library
            the modules that are.
        cache: the folder in which extractions are kept, or None.
        timeout: seconds that the child process may take.

    Raises:
        UnknownNameError: an unknown method.
        DataError: the package cannot be imported, or took too long.
    """
    if method not in METHODS:
        raise UnknownNameError(f"unknown method {method!r} for pydoc; known: {', '.join(METHODS)}")
    version = version_of(installed.name)
    path = None if cache is None else cache / f"{installed.name}-{_key(installed, method, version)}.jsonl"
    if path is not None:
        kept = _read_cache(path, installed.name, version)
        if kept is not None:
            return kept
    extraction = _extract(installed, method, version, timeout)
    if path is not None:
        _write_cache(path, extraction)
    return extraction


def _extract(installed: Installed, method: str, version: str, timeout: float) -> Extraction:
    docs: list[RawDoc] = []
    counts: dict[str, int] = {}
    used = []
    if method != "import" and installed.files:
        docs, counts = source_docs(installed)
        used.append("source")
    modules = _to_import(installed, method, len(docs), counts.get("compiled", 0))
    if modules := [name for name in modules if is_public(name)]:
        known = {doc.name for doc in docs}
        docs += [doc for doc in import_docs(modules, timeout) if doc.name not in known]
        used.append("import")
    return Extraction(installed.name, version, tuple(docs), counts, "+".join(used))


def _to_import(installed: Installed, method: str, found: int, compiled: int) -> Iterable[str]:
    """The modules to import besides what the source gave."""
    if method in ("import", "both"):
        return sorted({f.module.partition(".")[0] for f in installed.files} | set(installed.compiled))
    if method == "auto" and installed.name == STDLIB:
        return installed.compiled
    mostly_compiled = bool(installed.compiled) and found < max(FEW, compiled)
    return [installed.name] if method == "auto" and mostly_compiled else []


def import_docs(modules: Iterable[str], timeout: float) -> list[RawDoc]:
    """Import modules in a child process, in an empty folder, and collect the docstrings of what they hold."""
    import subprocess  # this and importlib.metadata are half of the import time, and seldom needed

    names = list(modules)
    with tempfile.TemporaryDirectory(prefix="foreword-pydoc-") as folder:
        out = Path(folder) / "docs.json"
        task = json.dumps({"modules": names, "path": sys.path, "out": str(out)})
        command = [sys.executable, "-P", "-W", "ignore", str(_HERE / "pydoc_child.py")]
        try:
            done = subprocess.run(
                command, input=task, capture_output=True, text=True, cwd=folder, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            message = f"importing {', '.join(names)} took more than {timeout:g} s; try method='source'"
            raise DataError(message) from error
        if done.returncode or not out.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DataError(f"{', '.join(names)} cannot be imported ({last}); try method='source'")
        records = json.loads(out.read_text("utf-8"))
    return [RawDoc(**{**record, "doc": clean(record["doc"])}) for record in records]


def version_of(package: str) -> str:
    """The version of the distribution that a package came with; Python's own for `stdlib`; or `unknown`."""
    import importlib.metadata

    if package == STDLIB:
        return ".".join(str(part) for part in sys.version_info[:3])
    candidates = [_known_distribution(package), package]
    for name in candidates:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name in importlib.metadata.packages_distributions().get(package, ()):
        return importlib.metadata.version(name)
    return "unknown"


def known_packages() -> dict[str, dict[str, str]]:
    """The packages that the catalogue names: `package -> description, distribution`."""
    text = (_HERE / "data" / "pydoc.json").read_text("utf-8")
    packages: dict[str, dict[str, str]] = json.loads(text)["packages"]
    return packages


def _known_distribution(package: str) -> str:
    return known_packages().get(package, {}).get("distribution", package)


def cache_folder() -> Path | None:
    """`$FOREWORD_CACHE`, else the user's cache folder; None when the variable is set and empty (no cache)."""
    folder = os.environ.get("FOREWORD_CACHE")
    if folder is None:
        from platformdirs import user_cache_dir

        folder = user_cache_dir("foreword")
    return Path(folder) / "pydoc" if folder else None


def _key(installed: Installed, method: str, version: str) -> str:
    """20 hexadecimal digits that change with the package's files, the method, Python or the code here."""
    digest = hashlib.sha256()
    for module in _CODE:
        digest.update((_HERE / f"{module}.py").read_bytes())
    digest.update(repr((installed.name, version, method, sys.version, installed.compiled)).encode())
    for file in installed.files:
        status = file.path.stat()
        digest.update(f"{file.path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:20]


def _write_cache(path: Path, extraction: Extraction) -> None:
    """Write the extraction; a cache that cannot be written is no reason to fail."""
    try:
        with atomic_write(path) as file:
            head = {
                "counts": dict(extraction.counts),
                "method": extraction.method,
                "docs": len(extraction.docs),
            }
            for record in [head, *(asdict(doc) for doc in extraction.docs)]:
                file.write(json.dumps(record) + "\n")
    except OSError:
        return


def _read_cache(path: Path, package: str, version: str) -> Extraction | None:
    """The extraction kept under a key; None when there is none, or it is broken and has to be made again."""
    try:
        with path.open(encoding="utf-8") as file:
            head = json.loads(next(file))
            docs = tuple(RawDoc(**json.loads(line)) for line in file)
    except (OSError, ValueError, TypeError, StopIteration):
        return None
    if len(docs) != head["docs"]:
        return None
    return Extraction(package, version, docs, head["counts"], head["method"])
