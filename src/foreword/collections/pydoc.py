"""`pydoc/<package>`: the documentation of an installed Python package as a retrieval domain, no download.

Query: a docstring's summary sentence. Document: its signature (without the name) and the rest of it, never
the sentence itself. Every query has exactly one relevant document. What was left out, and why, is counted in
`facts`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from foreword.collections.docstrings import summary_and_rest, take_signature
from foreword.collections.exclusion import Texts
from foreword.collections.items import distinct, without
from foreword.collections.memory import MemoryCollection
from foreword.collections.pydoc_extract import Extraction, cache_folder, extract, known_packages
from foreword.collections.pydoc_source import RawDoc
from foreword.collections.pydoc_walk import STDLIB, is_installed, locate
from foreword.collections.records import SPLITS, Collection, Document, Entry, Qrels, Query
from foreword.collections.splits import contains, normalise, split_of
from foreword.common.errors import DataError, UnknownNameError

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
class _Item:
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


def load(
    name: str,
    *,
    data: Path | None = None,
    exclude: Iterable[Collection] = (),
    method: str = "auto",
    with_names: bool = False,
    cache: bool = True,
    timeout: float = 120,
) -> Collection:
    """The documentation of package `name`, or of the standard library for `stdlib`.

    Args:
        name: a top-level package, as it is imported.
        data: not used: the package is found as Python finds it.
        exclude: collections whose texts (queries and documents) must not occur in this one.
        method: `source` (nothing is executed), `import` (in a child process) or `auto`.
        with_names: put the qualified name into the document's title, so that it is embedded too.
        cache: keep the extraction on disk (`FOREWORD_CACHE`, else the user's cache folder).
        timeout: seconds that an import in a child process may take.

    Raises:
        UnknownNameError: no such package, or an unknown method.
        DataError: the package has no documentation that gives a single query.
    """
    installed = locate(name)
    if installed is None:
        raise UnknownNameError(f"no installed package {name!r}; install it with: pip install {name}")
    extraction = extract(installed, method, cache=cache_folder() if cache else None, timeout=timeout)
    dropped: Counter[str] = Counter()
    items = distinct(_items(extraction.docs, dropped), lambda item: item.rest_key, dropped)
    excluded = Texts.of(exclude)
    if excluded:
        items = list(without(items, excluded, dropped))
    if not items:
        raise DataError(f"{name} has no docstring with a summary and more; {sum(dropped.values())} were looked at")
    return _collection(extraction, items, dropped, with_names=with_names)


def knows(name: str) -> bool:
    """Whether there is such a package here."""
    return is_installed(name)


def entries(data: Path | None = None) -> list[Entry]:
    """The standard library and the well documented packages that are installed here; `data` is not used."""
    found = [Entry(f"{GROUP}/{STDLIB}", GROUP, "Python's standard library", SPLITS, True, "PSF-2.0")]
    for package, facts in known_packages().items():
        if is_installed(package):
            licence = _licence(facts.get("distribution", package))
            found.append(Entry(f"{GROUP}/{package}", GROUP, facts["description"], SPLITS, True, licence))
    return found


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


def _items(docs: Iterable[RawDoc], dropped: Counter[str]) -> Iterator[_Item]:
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
            yield _Item(query, rest, raw, signature, query_key, rest_key)


def _collection(
    extraction: Extraction, items: list[_Item], dropped: Counter[str], *, with_names: bool
) -> MemoryCollection:
    queries: dict[str, list[Query]] = {split: [] for split in SPLITS}
    qrels: dict[str, Qrels] = {split: {} for split in SPLITS}
    for item in items:
        split = split_of(item.query)
        query = Query(f"q:{item.raw.name}", item.query, {"kind": item.raw.kind})
        queries[split].append(query)
        qrels[split][query.query_id] = {item.raw.name: 1}
    present = [split for split in SPLITS if qrels[split]]
    return MemoryCollection(
        id=f"{GROUP}/{extraction.package}",
        group=GROUP,
        corpus=tuple(item.document(with_name=with_names) for item in items),
        query_texts={split: tuple(queries[split]) for split in present},
        judgements={split: qrels[split] for split in present},
        facts={
            "package": extraction.package,
            "version": extraction.version,
            "method": extraction.method,
            "docstrings": len(extraction.docs),
            "extraction": dict(extraction.counts),
            "dropped": dict(sorted(dropped.items())),
            "with_names": with_names,
        },
    )
