"""`glasgow/<name>`: cranfield, cisi, medline, cacm, npl, lisa in their own formats, downloaded or from a folder.

Only test judgements exist, so these are targets, not sources. File names, counts and quirks are facts in
`data/glasgow.json`; the formats are read by `glasgow_formats`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from foreword.collections import glasgow_formats as formats
from foreword.collections.exclusion import ExcludingCollection, Texts
from foreword.collections.memory import MemoryCollection
from foreword.collections.records import Collection, DataWarning, Document, Entry, Qrels, Query
from foreword.common.errors import DataError, UnknownNameError
from foreword.downloads.fetch import fetch_folder
from foreword.downloads.places import data_folder
from foreword.downloads.resources import DEFAULT, Resource, Transport

GROUP = "glasgow"
_DATA = Path(__file__).parent / "data" / "glasgow.json"
_LIMIT = 200_000_000
"""Bytes that an archive may unpack to; the largest known has a few million."""


def facts() -> dict[str, Any]:
    """What `data/glasgow.json` holds: `home`, `licence` and `collections` by name."""
    loaded: dict[str, Any] = json.loads(_DATA.read_text("utf-8"))
    return loaded


def load(name: str, *, data: Path | None = None, exclude: Iterable[Collection] = ()) -> Collection:
    """One of the six collections.

    Args:
        name: e.g. `cranfield`.
        data: a folder with its files, or one that holds a folder of its name (`cranfield`, `cran`) or what
            `download` made; without it, the data folder (see `foreword.downloads.data_folder`).
        exclude: collections whose texts must not occur in this one.

    Raises:
        UnknownNameError: no such collection.
        DataError: files are missing or broken; the message says which, and how they may be had.
    """
    known = facts()
    about = _about(name, known)
    root = data_folder(data)
    found = _find(about, root)
    if found is None:
        raise DataError(_missing(name, about, known["home"], root))
    collection: Collection = _read(name, about, found, known)
    excluded = Texts.of(exclude)
    return ExcludingCollection(collection, excluded) if excluded else collection


def knows(name: str) -> bool:
    """Whether it is one of the six."""
    return name in facts()["collections"]


def entries(data: Path | None = None) -> list[Entry]:
    """The six, each with whether its files are in the data folder."""
    known = facts()
    root = data_folder(data)
    return [
        Entry(
            f"{GROUP}/{name}",
            GROUP,
            about["description"],
            ("test",),
            _find(about, root) is not None,
            known["licence"],
            known["home"] + about["archive"].split("/")[0] + "/",
            documents=about["documents"],
            queries={"test": about["judged_queries"]},
        )
        for name, about in known["collections"].items()
    ]


def download(name: str, data: Path, transport: Transport = DEFAULT) -> Path:
    """Get a collection's files into the data folder, unless they are there.

    Args:
        name: e.g. `cranfield`.
        data: the data folder; the archive is unpacked into `glasgow/<name>` below it.
        transport: see `foreword.downloads`.

    Returns:
        The folder with the files.

    Raises:
        UnknownNameError: no such collection.
        DataError: the archive cannot be had or unpacked, or lacks a file.
    """
    known = facts()
    about = _about(name, known)
    found = _find(about, data)
    if found is None:
        folder = Path(data) / GROUP / name
        fetch_folder(resource(name), data, folder, transport, limit=_LIMIT)
        found = _find(about, data)
        if found is None:
            raise DataError(f"lacks one of the files {_needed(about)}; delete it to unpack again", path=folder)
    return found["documents"][0].parent


def resource(name: str) -> Resource:
    """The archive of one of the six at its home site."""
    known = facts()
    archive = _about(name, known)["archive"]
    return Resource(f"{GROUP}/{PurePosixPath(archive).name}", (known["home"] + archive,))


def _about(name: str, known: dict[str, Any]) -> dict[str, Any]:
    if name not in known["collections"]:
        raise UnknownNameError(f"no collection {GROUP}/{name}; known: {', '.join(known['collections'])}")
    about: dict[str, Any] = known["collections"][name]
    return about


def _find(about: dict[str, Any], root: Path) -> dict[str, list[Path]] | None:
    """The files of each role, in the folder itself or in one of the collection's usual names below it."""
    names: list[str] = about["folders"]
    below = [*names, *(f"{GROUP}/{name}" for name in names)]
    for folder in [Path(root), *(_inner(Path(root) / name) for name in below)]:
        found = {role: _first_match(folder, patterns) for role, patterns in about["files"].items()}
        if all(found.values()):
            return found
    return None


def _inner(folder: Path) -> Path:
    """The only folder in a folder, where an archive had one around its files; else the folder itself."""
    inside = list(folder.iterdir()) if folder.is_dir() else []
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


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


def _needed(about: dict[str, Any]) -> str:
    return ", ".join(patterns[0] for patterns in about["files"].values())


def _missing(name: str, about: dict[str, Any], home: str, root: Path) -> str:
    return (
        f"glasgow/{name} needs the files {_needed(about)}; not found in {root} or its folder {about['folders'][0]}. "
        f"`foreword download glasgow/{name}` gets them from {home}{about['archive']}; or say data=FOLDER "
        "(--data FOLDER, FOREWORD_DATA) where you have them"
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
