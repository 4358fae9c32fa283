"""`glasgow/<name>`: cranfield, cisi, medline, cacm, npl, lisa in their own formats, from a folder or a URL.

Only test judgements exist, so these are targets, not sources. File names, counts and quirks are facts in
`data/glasgow.json`; the formats are read by `glasgow_formats`.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from foreword.collections import glasgow_formats as formats
from foreword.collections.exclusion import ExcludingCollection, Texts
from foreword.collections.fetch import fetch_archive
from foreword.collections.memory import MemoryCollection
from foreword.collections.records import Collection, DataWarning, Document, Entry, Qrels, Query
from foreword.common.errors import DataError, UnknownNameError

GROUP = "glasgow"
_DATA = Path(__file__).parent / "data" / "glasgow.json"


def facts() -> dict[str, Any]:
    """What `data/glasgow.json` holds: `home`, `licence` and `collections` by name."""
    loaded: dict[str, Any] = json.loads(_DATA.read_text("utf-8"))
    return loaded


def load(
    name: str,
    *,
    data: Path | None = None,
    exclude: Iterable[Collection] = (),
    url: str | None = None,
) -> Collection:
    """One of the six collections.

    Args:
        name: e.g. `cranfield`.
        data: a folder with its files, or one that holds a folder of its name (`cranfield`, `cran`); without
            it, the environment variable FOREWORD_DATA.
        exclude: collections whose texts must not occur in this one.
        url: a `.tar.gz` to download into `data` when the files are not there; `home` for the one at the
            collections' home site.

    Raises:
        UnknownNameError: no such collection.
        DataError: files are missing or broken; the message says which, and where they may be had.
    """
    known = facts()
    if name not in known["collections"]:
        raise UnknownNameError(f"no collection glasgow/{name}; known: {', '.join(known['collections'])}")
    about = known["collections"][name]
    root = data or _default_folder()
    found = _find(about, root)
    if found is None and url is not None:
        if root is None:
            raise DataError(f"say where glasgow/{name} is to be kept: data=FOLDER (or FOREWORD_DATA)")
        address = known["home"] + about["archive"] if url == "home" else url
        found = _find(about, fetch_archive(address, Path(root) / name))
    if found is None:
        raise DataError(_missing(name, about, known["home"], root))
    collection: Collection = _read(name, about, found, known)
    excluded = Texts.of(exclude)
    return ExcludingCollection(collection, excluded) if excluded else collection


def knows(name: str) -> bool:
    """Whether it is one of the six."""
    return name in facts()["collections"]


def entries(data: Path | None = None) -> list[Entry]:
    """The six, each with whether its files are in `data` (or FOREWORD_DATA)."""
    known = facts()
    root = data or _default_folder()
    return [
        Entry(
            f"{GROUP}/{name}",
            GROUP,
            about["description"],
            ("test",),
            _find(about, root) is not None,
            known["licence"],
            known["home"] + about["archive"].split("/")[0] + "/",
        )
        for name, about in known["collections"].items()
    ]


def _default_folder() -> Path | None:
    folder = os.environ.get("FOREWORD_DATA")
    return Path(folder) if folder else None


def _find(about: dict[str, Any], root: Path | None) -> dict[str, list[Path]] | None:
    """The files of each role, in the folder itself or in one of the collection's usual names below it."""
    if root is None:
        return None
    names: list[str] = about["folders"]
    below = [*names, *(f"{GROUP}/{name}" for name in names)]
    for folder in [Path(root), *(Path(root) / name for name in below)]:
        found = {role: _first_match(folder, patterns) for role, patterns in about["files"].items()}
        if all(found.values()):
            return found
    return None


def _first_match(folder: Path, patterns: list[str]) -> list[Path]:
    """The files that match the first pattern with any; names compare without case (`cisi.all`)."""
    if not folder.is_dir():
        return []
    for pattern in patterns:
        wanted = pattern.casefold()
        hits = sorted(p for p in folder.iterdir() if _matches(p.name.casefold(), wanted) and p.is_file())
        if hits:
            return hits
    return []


def _matches(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern in which `?` stands for one digit."""
    return len(name) == len(pattern) and all(
        (c.isdigit() if p == "?" else c == p) for c, p in zip(name, pattern, strict=True)
    )


def _missing(name: str, about: dict[str, Any], home: str, root: Path | None) -> str:
    needed = ", ".join(patterns[0] for patterns in about["files"].values())
    looked = "no folder was given" if root is None else f"not found in {root} or its folder {about['folders'][0]}"
    return (
        f"glasgow/{name} needs the files {needed} ({looked}). Get {home}{about['archive']}, unpack it "
        "and say data=FOLDER (or --data FOLDER, or set FOREWORD_DATA)"
    )


def _read(name: str, about: dict[str, Any], files: dict[str, list[Path]], known: dict[str, Any]) -> MemoryCollection:
    repeated: list[str] = []
    documents = tuple(_documents(about["format"], files["documents"], repeated))
    ids = {document.doc_id for document in documents}
    queries = list(_queries(about, files["queries"][0]))
    judged = _known_only(_qrels(about, files["qrels"][0]), ids, {q.query_id for q in queries}, files["qrels"][0])
    counts = {
        "documents": len(documents),
        "judged_queries": len(judged),
        "queries_without_judgements": len(queries) - len(judged),
        "empty_documents": sum(not document.content for document in documents),
        "repeated_documents": len(repeated),
        "expected": {"documents": about["documents"], "judged_queries": about["judged_queries"]},
        "licence": known["licence"],
        "home": known["home"],
    }
    _check_counts(name, about, len(documents), len(judged))
    kept = tuple(query for query in queries if query.query_id in judged)
    return MemoryCollection(f"{GROUP}/{name}", GROUP, documents, {"test": kept}, {"test": judged}, counts)


def _check_counts(name: str, about: dict[str, Any], documents: int, judged: int) -> None:
    """Warn when there is less than the collection is known to have: its files are cut, or a selection."""
    for what, got, expected in (
        ("documents", documents, about["documents"]),
        ("judged queries", judged, about["judged_queries"]),
    ):
        if expected is not None and got < expected:
            message = f"glasgow/{name} has {got} {what}; the whole collection has {expected}: are files cut?"
            warnings.warn(message, DataWarning, stacklevel=4)


def _documents(form: str, paths: list[Path], repeated: list[str]) -> Iterator[Document]:
    """The documents of all files; LISA's that come again are left out and noted, others' are an error."""
    read = {"smart": formats.smart, "npl": formats.npl, "lisa": formats.lisa}[form]
    seen: set[str] = set()
    for path in paths:
        for record in read(path):
            if record.number not in seen:
                seen.add(record.number)
                text = record.text.removeprefix(record.title).lstrip()  # Cranfield's texts begin with the title
                yield Document(record.number, text, record.title, {"file": path.name})
            elif form == "lisa":
                repeated.append(record.number)
            else:
                raise DataError(f"document {record.number} comes twice", path=path, line=record.line)


def _queries(about: dict[str, Any], path: Path) -> Iterator[Query]:
    """The queries: title (where there is one) and text; numbered by position where the judgements are."""
    read = {"smart": formats.smart, "npl": formats.npl, "lisa": formats.lisa_queries}[about["format"]]
    seen: set[str] = set()
    for position, record in enumerate(read(path), 1):
        if record.number in seen:
            raise DataError(f"query {record.number} comes twice", path=path, line=record.line)
        seen.add(record.number)
        if about.get("queries_by_position"):
            record = replace(record, number=str(position))
        yield Query(record.number, f"{record.title} {record.text}".strip())


def _qrels(about: dict[str, Any], path: Path) -> Qrels:
    if about["format"] == "npl":
        return formats.npl_qrels(path)
    if about["format"] == "lisa":
        return formats.lisa_qrels(path)
    return formats.table_qrels(path, about.get("grades", {}))


def _known_only(qrels: Qrels, documents: set[str], queries: set[str], path: Path) -> Qrels:
    """The judgements of known queries and documents; the others are counted in one warning."""
    kept = {
        query_id: {doc_id: grade for doc_id, grade in judged.items() if doc_id in documents}
        for query_id, judged in qrels.items()
        if query_id in queries
    }
    kept = {query_id: judged for query_id, judged in kept.items() if judged}
    lost = sum(map(len, qrels.values())) - sum(map(len, kept.values()))
    if lost:
        message = f"{path}: {lost} judgements name a document or query that is not there and were skipped"
        warnings.warn(message, DataWarning, stacklevel=4)
    return kept
