"""`pydoc/<package>`: the documentation of an installed Python package as a retrieval domain, no download.

Query: a docstring's summary sentence. Document: its signature (without the name) and the rest of it, never
the sentence itself. Every query has exactly one relevant document. What was left out, and why, is counted in
`facts`.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from foreword.collections.collection import (
    SPLITS,
    Collection,
    Document,
    Entry,
    MemoryCollection,
    Query,
    contains,
    divided,
    normalise,
)
from foreword.collections.family import Family
from foreword.collections.pydoc.docstrings import clean, summary_and_rest, take_signature
from foreword.collections.pydoc.names import is_public, source_docs
from foreword.collections.pydoc.source import STDLIB, Installed, RawDoc, is_installed, locate
from foreword.collections.views import Texts
from foreword.errors import DataError, UnknownNameError
from foreword.files import cache_folder, json_digest, kept_json, read_json, sha256_file, write_json

METHODS = ("auto", "source", "import", "both")
FEW = 20
"""Under `method="auto"`, a package with compiled modules and fewer docstrings in source is imported too."""

_HERE = Path(__file__).parent
_CODE = ("child", "docstrings", "names", "source")


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
    """The public docstrings of an installed package, kept in the folder `cache` where one is given.

    Method `source` executes nothing; `import` runs the package in a child process and asks the living objects; `both`
    does the one and then the other for what the source lacks; `auto` reads the source and imports as well only a
    package that is mostly compiled, or of the standard library the modules that are. Raises `DataError` where the
    package cannot be imported, or took more than `timeout` seconds.
    """
    if method not in METHODS:
        raise UnknownNameError(f"unknown method {method!r} for pydoc; known: {', '.join(METHODS)}")
    version = version_of(installed.name)
    code = [sha256_file(_HERE / f"{module}.py") for module in _CODE]
    files = [(str(file.path), (status := file.path.stat()).st_size, status.st_mtime_ns) for file in installed.files]
    key = json_digest([code, installed.name, version, method, sys.version, installed.compiled, files])[:20]
    path = None if cache is None else cache / f"{installed.name}-{key}.json"
    if path is not None and (kept := kept_json(path)) is not None:
        return Extraction(installed.name, version, tuple(RawDoc(**doc) for doc in kept["docs"]), **kept["about"])
    docs: list[RawDoc] = []
    counts: dict[str, int] = {}
    used = []
    if method != "import" and installed.files:
        docs, counts = source_docs(installed)
        used.append("source")
    if modules := [name for name in _to_import(installed, method, len(docs), counts) if is_public(name)]:
        known = {doc.name for doc in docs}
        docs += [doc for doc in import_docs(modules, timeout) if doc.name not in known]
        used.append("import")
    about: dict[str, Any] = {"counts": counts, "method": "+".join(used)}
    if path is not None:
        with suppress(OSError, ValueError):  # a cache that cannot be written is no reason to fail
            write_json(path, {"about": about, "docs": [asdict(doc) for doc in docs]})
    return Extraction(installed.name, version, tuple(docs), **about)


def _to_import(installed: Installed, method: str, found: int, counts: Mapping[str, int]) -> Iterable[str]:
    """The modules to import besides the `found` docstrings and `counts` that the source gave."""
    if method in ("import", "both"):
        return sorted({f.module.partition(".")[0] for f in installed.files} | set(installed.compiled))
    if method == "auto" and installed.name == STDLIB:
        return installed.compiled
    mostly_compiled = bool(installed.compiled) and found < max(FEW, counts.get("compiled", 0))
    return [installed.name] if method == "auto" and mostly_compiled else []


def import_docs(modules: Iterable[str], timeout: float) -> list[RawDoc]:
    """Import modules in a child process, in an empty folder, and collect the docstrings of what they hold."""
    import subprocess  # this and importlib.metadata are half of the import time, and seldom needed

    names = list(modules)
    with tempfile.TemporaryDirectory(prefix="foreword-pydoc-") as folder:
        out = Path(folder) / "docs.json"
        task = json.dumps({"modules": names, "path": sys.path, "out": str(out)})
        command = [sys.executable, "-P", "-W", "ignore", str(_HERE / "child.py")]
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
    candidates = [known_packages().get(package, {}).get("distribution", package), package]
    for name in candidates:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name in _distributions().get(package, ()):
        return importlib.metadata.version(name)
    return "unknown"


@cache
def _distributions() -> Mapping[str, list[str]]:
    """The distributions of each importable name; the records of all of them are read for it, for half a second."""
    import importlib.metadata

    return importlib.metadata.packages_distributions()


def known_packages() -> dict[str, dict[str, str]]:
    """The packages that the catalogue names: `package -> description, distribution`."""
    packages: dict[str, dict[str, str]] = read_json(_HERE.parent / "data" / "pydoc.json")["packages"]
    return packages


GROUP = "pydoc"

MIN_REST = 60  # characters of the rest; shorter ones say too little to be found by
MIN_QUERY_WORDS = 4
MAX_QUERY_WORDS = 64  # more is a list or a paragraph without a full stop
MAX_DOCUMENT = 4000  # characters

# Summaries that say nothing of what is documented, or are no summaries.
_GENERIC = re.compile(
    r"(alias(es)? (of|for|to)|see |same as |equivalent (of|to) |copyright|licen[sc]ed|todo|fixme|deprecated|"
    r"internal( use|:)|private|placeholder|authors?:|this (file|module|script) (is|was) (auto\S*|generated|"
    r"deprecated)|not implemented|(in|out)(-of)?-place version of|inherit(ed|s)? (doc|from)|"
    r"initiali[sz]e self|default implementation|overrides? |overridden |"
    r"(args|arguments|parameters|returns?|raises|yields|attributes|notes?|usage|examples?)( of [^.]*)?:|"
    r"\w+ \([^:]{0,150}\) ?:)",
    re.IGNORECASE,
)
# What a documentation generator fills in; LaTeX's own braces follow a letter, `_`, `^` or a backslash.
_TEMPLATE = re.compile(r"%\(\w+\)|(?<![\w^}{\\])\{\w+\}|\{\{\w|<<|\$\{")


@dataclass(frozen=True, slots=True)
class _DocPair:
    """One query with its one document."""

    query: str
    rest: str
    raw: RawDoc
    signature: str
    query_key: str
    rest_key: str

    def document(self, *, with_name: bool) -> Document:
        text = f"{self.signature} {self.rest}".strip()
        if len(text) > MAX_DOCUMENT:
            text = text[:MAX_DOCUMENT].rsplit(" ", 1)[0]
        metadata = {"name": self.raw.name, "kind": self.raw.kind, "file": self.raw.file}
        if self.signature:
            metadata["signature"] = self.signature
        return Document(self.raw.name, text, self.raw.name if with_name else "", metadata)


class Pydoc(Family):
    """Every installed package; the catalogue names the well documented ones."""

    name = GROUP

    def knows(self, name: str) -> bool:
        """Whether there is such a package here."""
        return is_installed(name)

    def entries(self, data: Path | None = None) -> list[Entry]:
        """The standard library and the well documented packages that are installed here; `data` is not used."""
        found = [Entry(f"{GROUP}/{STDLIB}", GROUP, "Python's standard library", SPLITS, True, "PSF-2.0")]
        for package, facts in known_packages().items():
            if is_installed(package):
                licence = _licence(facts.get("distribution", package))
                found.append(Entry(f"{GROUP}/{package}", GROUP, facts["description"], SPLITS, True, licence))
        return found

    def load(
        self, name: str, *, data: Path | None = None, exclude: Iterable[Collection] = (), **options: Any
    ) -> Collection:
        """As `open`; a docstring is left out whole when its query or its document is in an excluded collection."""
        return self.open(name, data, exclude, **options)

    def open(
        self,
        name: str,
        data: Path | None,
        exclude: Iterable[Collection] = (),
        *,
        method: str = "auto",
        with_names: bool = False,
        cache: bool = True,
        timeout: float = 120,
    ) -> Collection:
        """The documentation of package `name`, or of the standard library for `stdlib`.

        Args:
            exclude: collections whose texts (queries and documents) must not occur in this one.
            method: `source` (nothing is executed), `import` (in a child process) or `auto`.
            with_names: put the qualified name into the document's title, so that it is embedded too.
            cache: keep the extraction on disk (`FOREWORD_CACHE`, else the user's cache folder).
            timeout: seconds that an import in a child process may take.
        """
        installed = locate(name)
        if installed is None:
            raise UnknownNameError(f"no installed package {name!r}; install it with: pip install {name}")
        extraction = extract(installed, method, cache=cache_folder(GROUP) if cache else None, timeout=timeout)
        dropped: Counter[str] = Counter()
        items = _distinct(_items(extraction.docs, dropped), dropped)
        if excluded := Texts.of(exclude):
            seen = [excluded.has_query(i.query) or excluded.has_document(i.document(with_name=False)) for i in items]
            dropped.update({"excluded": sum(seen)} if any(seen) else {})
            items = [item for item, known in zip(items, seen, strict=True) if not known]
        if not items:
            raise DataError(f"{name} has no docstring with a summary and more; {sum(dropped.values())} were looked at")
        queries, qrels = divided(
            (Query(f"q:{item.raw.name}", item.query, {"kind": item.raw.kind}), {item.raw.name: 1}) for item in items
        )
        facts = {
            "package": extraction.package,
            "version": extraction.version,
            "method": extraction.method,
            "docstrings": len(extraction.docs),
            "extraction": dict(extraction.counts),
            "dropped": dict(sorted(dropped.items())),
            "with_names": with_names,
        }
        corpus = tuple(item.document(with_name=with_names) for item in items)
        return MemoryCollection(self.id(name), GROUP, corpus, queries, qrels, facts)


PYDOC = Pydoc()


def _licence(distribution: str) -> str:
    """The licence a distribution's metadata names, when it is a name and not a text."""
    import importlib.metadata  # a tenth of this package's import time, seldom needed

    try:
        metadata = importlib.metadata.metadata(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
    for field in ("License-Expression", "License"):
        value = str((metadata.get_all(field) or [""])[0])
        if value and len(value) <= 60 and "\n" not in value:
            return value
    classifiers = metadata.get_all("Classifier") or []
    return next((str(c).rpartition(" :: ")[2] for c in classifiers if c.startswith("License ::")), "")


def _items(docs: Iterable[RawDoc], dropped: Counter[str]) -> Iterator[_DocPair]:
    """The docstrings that give a query and a document; the others are counted by reason."""
    for raw in docs:
        own_signature, body = take_signature(raw.doc, raw.name.rpartition(".")[2])
        query, rest = summary_and_rest(body)
        query_key, rest_key = normalise(query), normalise(rest)
        signature = raw.signature or own_signature
        if len(rest) < MIN_REST:
            dropped["rest_too_short"] += 1
        elif len(query_key.split()) < MIN_QUERY_WORDS:
            dropped["query_too_short"] += 1
        elif len(query_key.split()) > MAX_QUERY_WORDS:
            dropped["query_too_long"] += 1
        elif _GENERIC.match(query) or _TEMPLATE.search(query):
            dropped["query_generic"] += 1
        elif contains(normalise(f"{signature} {rest}"), query_key):
            dropped["leak"] += 1
        else:
            yield _DocPair(query, rest, raw, signature, query_key, rest_key)


def _distinct(items: Iterable[_DocPair], dropped: Counter[str]) -> list[_DocPair]:
    """One item per text (the first: others are aliases); none whose query stands for several documents."""
    by_text: dict[str, _DocPair] = {}
    for item in items:
        if by_text.setdefault(item.rest_key, item) is not item:
            dropped["repeated_text"] += 1
    times = Counter(item.query_key for item in by_text.values())
    kept = [item for item in by_text.values() if times[item.query_key] == 1]
    dropped["ambiguous_query"] += len(by_text) - len(kept)
    return kept
