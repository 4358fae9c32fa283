"""`glasgow/<name>`: classic test collections in their own formats, downloaded or from a folder.

cranfield, cisi, medline, cacm, npl, lisa, time and adi.

Only test judgements exist, so these are targets, not sources. File names, counts and quirks are facts in
`data/glasgow.json`.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from foreword.collections.collection import Collection, DataWarning, Document, Entry, MemoryCollection, Qrels, Query
from foreword.collections.family import Family
from foreword.collections.folder import known_judgements
from foreword.downloads.fetch import fetch_folder
from foreword.downloads.places import DEFAULT, Resource, Transport, data_folder
from foreword.errors import DataError
from foreword.files import read_json, text_lines

_RECORD = re.compile(r"\.I\s+(\d+)\s*$")
_FIELD = re.compile(r"\.([TABWXNKC])\s*$")
_LISA_DOCUMENT = re.compile(r"Document\s+(\d+)\s*$", re.IGNORECASE)
_LISA_QUERY = re.compile(r"Query\s+(\d+)\s*$", re.IGNORECASE)
_TIME_DOCUMENT = re.compile(r"\*TEXT\s+\d+\b")
_TIME_QUERY = re.compile(r"\*FIND\s+(\d+)\s*$")
_LISA_END = re.compile(r"\*{20,}\s*$")


@dataclass(slots=True)
class SmartRecord:
    """One document or query as its file has it; texts on one line, otherwise as written."""

    number: str
    """Its id in the file, without leading zeros."""
    title: str = ""
    text: str = ""
    fields: dict[str, list[str]] = field(default_factory=dict)
    line: int = 0
    whole: bool = True
    """Whether its end is there."""


_DIGITS = 18
"""Of an id, at most; the largest known has five."""

lines = partial(text_lines, encoding="latin-1")
"""The lines of a file with their numbers from 1; Latin-1 reads every byte."""


def smart(path: Path) -> Iterator[SmartRecord]:
    """Records of `.I` with fields `.T` (title), `.W` (text) and others, in the file's order."""
    record: SmartRecord | None = None
    current: list[str] = []
    for number, line in lines(path):
        if start := _RECORD.match(line):
            if record is not None:
                yield _closed(record)
            record, current = SmartRecord(_number(start[1], path, number), line=number), []
        elif record is None:
            if line.strip():
                raise DataError("expected a record's first line, like '.I 1'", path=path, line=number)
        elif name := _FIELD.match(line):
            current = record.fields.setdefault(name[1], [])
        elif not record.fields and line.strip().isdigit():
            record.number += line.strip()  # CACM's 2856 is broken over two lines: ".I 28", "56"
        else:
            current.append(line)
    if record is None:
        raise DataError("no record in this file; expected lines like '.I 1'", path=path)
    yield _closed(record)


def _closed(record: SmartRecord) -> SmartRecord:
    record.title = one_line(record.fields.get("T", ()))
    record.text = one_line(record.fields.get("W", ()))
    record.fields = {}
    return record


def one_line(parts: list[str] | tuple[str, ...]) -> str:
    """Lines joined with single spaces."""
    return " ".join(" ".join(parts).split())


def npl(path: Path) -> Iterator[SmartRecord]:
    """Records whose first line is the id and whose last holds only `/`."""
    for start, block in _slash_blocks(path):
        yield SmartRecord(_number(block[0], path, start), text=one_line(block[1:]), line=start)


def _slash_blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of each record that a line with only `/` ends, with the number of the first."""
    block: list[str] = []
    start = 1
    for number, line in lines(path):
        if line.strip() == "/":
            if block:
                yield start, block
            block = []
        elif line.strip():
            if not block:
                start = number
            block.append(line)
    if block and block[0].strip() != "\x1a":  # some copies end with a DOS end-of-file mark
        raise DataError("the last record is not ended by a line with only '/': a cut file?", path=path, line=start)


def _number(text: str, path: Path, line: int) -> str:
    """A number's digits without zeros before them."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _DIGITS:
        raise DataError(f"expected an id (a number), got {digits[:40]!r}", path=path, line=line)
    return digits.lstrip("0") or "0"


def lisa(path: Path) -> Iterator[SmartRecord]:
    """Records of `Document N`, title lines, a blank line, text, and a line of asterisks.

    The public copies are damaged: a document that breaks off, and what stands outside of one, is a record not `whole`.
    """
    record: SmartRecord | None = None
    block: list[str] = []
    for number, line in lines(path):
        if start := _LISA_DOCUMENT.match(line):
            if record is not None:
                record.whole = False
                yield record
            record, block = SmartRecord(_number(start[1], path, number), line=number), []
        elif record is not None and _LISA_END.match(line):
            blank = next((i for i, each in enumerate(block) if not each.strip()), len(block))
            record.title, record.text = one_line(block[:blank]), one_line(block[blank:])
            yield record
            record = None
        elif record is not None:
            block.append(line)
        elif line.strip().strip("\x1a"):
            record, block = SmartRecord("", line=number, whole=False), []
    if record is not None:
        record.whole = False
        yield record


def lisa_queries(path: Path) -> Iterator[SmartRecord]:
    """Queries: a line with the number, then text up to `#`."""
    record: SmartRecord | None = None
    block: list[str] = []
    for number, line in lines(path):
        text = line.strip().strip("\x1a")
        if record is None:
            if text:
                record, block = SmartRecord(_number(text, path, number), line=number), []
            continue
        block.append(text.removesuffix("#"))
        if text.endswith("#"):
            record.text = one_line(block)
            yield record
            record = None
    if record is not None:
        raise DataError(f"query {record.number} is not ended by '#': a cut file?", path=path, line=record.line)


def time(path: Path) -> Iterator[SmartRecord]:
    """TIME's articles, `*TEXT number date PAGE number` and text, numbered by their place as its judgements do."""
    for place, record in enumerate(_starred(path, _TIME_DOCUMENT), 1):
        record.number = str(place)
        yield record


def time_queries(path: Path) -> Iterator[SmartRecord]:
    """TIME's queries: `*FIND number`, and text."""
    yield from _starred(path, _TIME_QUERY)


def _starred(path: Path, begins: re.Pattern[str]) -> Iterator[SmartRecord]:
    """Records that a line begins and the next one's, or `*STOP`, ends; the pattern's group is the number."""
    record: SmartRecord | None = None
    block: list[str] = []
    for number, line in lines(path):
        start = begins.match(line)
        if (start or line.startswith("*STOP")) and record is not None:
            record.text = one_line(block)
            yield record
            record = None
        if start:
            record, block = SmartRecord(_number(start[1], path, number) if begins.groups else "", line=number), []
        elif record is not None:
            block.append(line)
        elif line.strip("\x1a").strip() and not line.startswith("*STOP"):
            raise DataError(f"expected a line like '*TEXT 017' or '*FIND 1', got {line[:40]!r}", path=path, line=number)
    if record is not None:
        record.text = one_line(block)
        yield record


def table_qrels(path: Path, grades: Mapping[str, int]) -> Qrels:
    """Judgements of `query document ...` a line, as CISI, CACM, MEDLINE and Cranfield have them.

    `grades` says the relevance by the third column; empty: every line is a relevant document.
    """
    qrels: Qrels = {}
    for number, line in lines(path):
        columns = line.strip("\x1a").split()
        if not columns:
            continue
        if len(columns) == 4 and columns[1] in ("0", "Q0") and columns[2] != "0":
            del columns[1]  # the form `query 0 document relevance`
        if len(columns) < 2 or not (columns[0].isdigit() and columns[1].isdigit()):
            raise DataError(f"expected 'query document ...', got {line[:60]!r}", path=path, line=number)
        grade = 1
        if grades:
            if len(columns) < 3 or columns[2] not in grades:
                known = ", ".join(sorted(grades))
                raise DataError(f"expected a grade ({known}) in column 3 of {line[:60]!r}", path=path, line=number)
            grade = grades[columns[2]]
        qrels.setdefault(_number(columns[0], path, number), {})[_number(columns[1], path, number)] = grade
    return qrels


def npl_qrels(path: Path) -> Qrels:
    """Judgements in NPL's records: a query's number, then ids of relevant documents over some lines."""
    qrels: Qrels = {}
    for start, block in _slash_blocks(path):
        documents = " ".join(block[1:]).split()
        judged = qrels.setdefault(_number(block[0], path, start), {})
        judged.update({_number(document, path, start): 1 for document in documents})
    return qrels


def lisa_qrels(path: Path) -> Qrels:
    """Judgements of `Query N`, a line with their count, then ids up to -1."""
    qrels: Qrels = {}
    query = ""
    counted = False
    for number, line in lines(path):
        if start := _LISA_QUERY.match(line.strip()):
            query, counted = _number(start[1], path, number), False
            qrels[query] = {}
        elif query and not counted and line.strip():
            counted = True  # "3 Relevant Refs :"; the ids that follow are what counts
        elif query:
            for token in line.split():
                if token == "-1":
                    query = ""
                    break
                qrels[query][_number(token, path, number)] = 1
    return {query_id: judged for query_id, judged in qrels.items() if judged}


def time_qrels(path: Path, gap: Mapping[str, int]) -> Qrels:
    """Judgements of `query document document ...` a line, some without any document.

    They number the articles as if more stood within a `gap`: `after` one, `before` another and those that follow it,
    whose numbers are higher `by` that many. What a number within means is not known; it names no document here.
    """
    qrels: Qrels = {}
    for number, line in lines(path):
        columns = [int(_number(column, path, number)) for column in line.strip("\x1a").split()]
        for doc in columns[1:]:
            doc_id = str(doc) if doc <= gap["after"] else str(doc - gap["by"]) if doc >= gap["before"] else f"gap-{doc}"
            qrels.setdefault(str(columns[0]), {})[doc_id] = 1
    return qrels


GROUP = "glasgow"
_LIMIT = 200_000_000
"""Bytes that an archive may unpack to; the largest known has a few million."""


@cache
def facts() -> dict[str, Any]:
    """What `data/glasgow.json` holds: `home`, `licence` and `collections` by name."""
    loaded: dict[str, Any] = read_json(Path(__file__).parent / "data" / "glasgow.json")
    return loaded


class Glasgow(Family):
    """The collections."""

    name = GROUP

    def names(self) -> Mapping[str, Any]:
        """The facts of each collection."""
        known: Mapping[str, Any] = facts()["collections"]
        return known

    def entry(self, name: str, root: Path) -> Entry:
        """The catalogue's line of a collection."""
        about, known = self.about(name), facts()
        return Entry(
            self.id(name),
            GROUP,
            about["description"],
            ("test",),
            _find(about, root) is not None,
            known["licence"],
            known["home"] + about["archive"].split("/")[0] + "/",
            documents=about["documents"],
            queries={"test": about["judged_queries"]},
        )

    def open(self, name: str, data: Path | None) -> Collection:
        """One of them.

        Args:
            data: a folder with its files, or one that holds a folder of its name (`cranfield`, `cran`) or what
                `download` made; without it, the data folder (see `foreword.downloads.data_folder`).
        """
        about, root = self.about(name), data_folder(data)
        found = _find(about, root)
        if found is None:
            raise DataError(
                f"{self.id(name)} needs the files {_needed(about)}; not found in {root} or its folder "
                f"{about['folders'][0]}. `foreword download {self.id(name)}` gets them from "
                f"{facts()['home']}{about['archive']}; or say data=FOLDER (--data FOLDER, FOREWORD_DATA) where you "
                "have them"
            )
        return _read(self.id(name), about, found)

    def download(self, name: str, data: Path, transport: Transport = DEFAULT) -> Path:
        """Get a collection's files into `glasgow/<name>` below the data folder, unless they are there."""
        about = self.about(name)
        found = _find(about, data)
        if found is None:
            folder = Path(data) / GROUP / name
            fetch_folder(self.resource(name), data, folder, transport, limit=_LIMIT)
            found = _find(about, data)
            if found is None:
                raise DataError(f"lacks one of the files {_needed(about)}; delete it to unpack again", path=folder)
        return found["documents"][0].parent

    def resource(self, name: str) -> Resource:
        """The archive of a collection at its home site."""
        archive = self.about(name)["archive"]
        return Resource(f"{GROUP}/{PurePosixPath(archive).name}", (facts()["home"] + archive,))


GLASGOW = Glasgow()


def _find(about: Mapping[str, Any], root: Path) -> dict[str, list[Path]] | None:
    """The files of each role, in the folder itself or in one of the collection's usual names below it."""
    names: list[str] = about["folders"]
    for folder in [Path(root), *(Path(root) / below for below in [*names, *(f"{GROUP}/{name}" for name in names)])]:
        inside = list(folder.iterdir()) if folder.is_dir() else []
        if folder != Path(root) and len(inside) == 1 and inside[0].is_dir():  # an archive's own folder around its files
            inside = list(inside[0].iterdir())
        found = {role: _first_match(inside, patterns) for role, patterns in about["files"].items()}
        if all(found.values()):
            return found
    return None


def _first_match(paths: list[Path], patterns: list[str]) -> list[Path]:
    """The files that match the first pattern with any, in which `?` is one digit; cases are alike (`cisi.all`)."""
    for pattern in patterns:
        wanted = re.compile(re.escape(pattern.casefold()).replace(r"\?", r"\d"))
        if hits := sorted(path for path in paths if wanted.fullmatch(path.name.casefold()) and path.is_file()):
            return hits
    return []


def _needed(about: Mapping[str, Any]) -> str:
    return ", ".join(patterns[0] for patterns in about["files"].values())


def _read(collection_id: str, about: Mapping[str, Any], files: Mapping[str, list[Path]]) -> MemoryCollection:
    repeated: list[str] = []
    damaged = dict.fromkeys(about.get("damaged", ()))
    documents = tuple(_documents(about["format"], files["documents"], repeated, damaged))
    if not documents:
        raise DataError("no document in these files", path=files["documents"][0])
    if damaged:
        names = ", ".join(damaged) if len(damaged) <= 10 else f"{', '.join([*damaged][:10])}, ..."
        message = f"{collection_id}: {len(damaged)} documents are damaged in these files and were skipped ({names})"
        warnings.warn(message, DataWarning, stacklevel=4)
    queries = list(_queries(about, files["queries"][0]))
    path, notes = files["qrels"][0], Counter[str]()
    smart_qrels = partial(table_qrels, grades=about.get("grades", {}))
    readers: dict[str, Callable[[Path], Qrels]] = {
        "npl": npl_qrels,
        "lisa": lisa_qrels,
        "time": partial(time_qrels, gap=about.get("gap", {})),
    }
    qrels = readers.get(about["format"], smart_qrels)(path)
    judged = known_judgements(qrels, {q.query_id for q in queries}, {doc.doc_id for doc in documents}, notes)
    if lost := notes.total():
        message = f"{path}: {lost} judgements name a document or query that is not there and were skipped"
        warnings.warn(message, DataWarning, stacklevel=4)
    for what, got, expected in (
        ("documents", len(documents), about["documents"]),
        ("judged queries", len(judged), about["judged_queries"]),
    ):
        if expected is not None and got < expected:
            message = f"{collection_id} has {got} {what}; the whole collection has {expected}: are files cut?"
            warnings.warn(message, DataWarning, stacklevel=4)
    counts = {
        "documents": len(documents),
        "judged_queries": len(judged),
        "queries_without_judgements": len(queries) - len(judged),
        "empty_documents": sum(not document.content for document in documents),
        "repeated_documents": len(repeated),
        "damaged_documents": len(damaged),
        "expected": {"documents": about["documents"], "judged_queries": about["judged_queries"]},
        "licence": facts()["licence"],
        "home": facts()["home"],
    }
    kept = tuple(query for query in queries if query.query_id in judged)
    return MemoryCollection(collection_id, GROUP, documents, {"test": kept}, {"test": judged}, counts)


def _documents(form: str, paths: list[Path], repeated: list[str], damaged: dict[str, None]) -> Iterator[Document]:
    """The documents of all files; LISA's that come again are left out and noted, others' are an error.

    `damaged` has the numbers of those that no copy has whole; what else breaks off, and is whole nowhere, is added.
    """
    read = {"smart": smart, "npl": npl, "lisa": lisa, "time": time}[form]
    known, broken = set(damaged), dict[str, None]()
    seen: set[str] = set()
    for path in paths:
        for record in read(path):
            if not record.whole or record.number in known:
                broken[record.number or f"{path.name}:{record.line}"] = None
            elif record.number not in seen:
                seen.add(record.number)
                text = record.text.removeprefix(record.title).lstrip()  # Cranfield's texts begin with the title
                yield Document(record.number, text, record.title, {"file": path.name})
            elif form == "lisa":
                repeated.append(record.number)
            else:
                raise DataError(f"document {record.number} comes twice", path=path, line=record.line)
    damaged.update((name, None) for name in broken if name not in seen)


def _queries(about: Mapping[str, Any], path: Path) -> Iterator[Query]:
    """The queries: title (where there is one) and text; numbered by position where the judgements are."""
    read = {"smart": smart, "npl": npl, "lisa": lisa_queries, "time": time_queries}[about["format"]]
    seen: set[str] = set()
    for position, record in enumerate(read(path), 1):
        if record.number in seen:
            raise DataError(f"query {record.number} comes twice", path=path, line=record.line)
        seen.add(record.number)
        number = str(position) if about.get("queries_by_position") else record.number
        yield Query(number, f"{record.title} {record.text}".strip())
