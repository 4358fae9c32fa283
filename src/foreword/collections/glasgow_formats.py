"""The formats of the Glasgow test collections: SMART records, NPL's and LISA's, and their judgements."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from foreword.collections.records import Qrels
from foreword.common.errors import DataError

_RECORD = re.compile(r"\.I\s+(\d+)\s*$")
_FIELD = re.compile(r"\.([TABWXNKC])\s*$")
_LISA_DOCUMENT = re.compile(r"Document\s+(\d+)\s*$", re.IGNORECASE)
_LISA_QUERY = re.compile(r"Query\s+(\d+)\s*$", re.IGNORECASE)
_LISA_END = re.compile(r"\*{20,}\s*$")


@dataclass(slots=True)
class Record:
    """One document or query as its file has it; texts on one line, otherwise as written."""

    number: str
    """Its id in the file, without leading zeros."""
    title: str = ""
    text: str = ""
    fields: dict[str, list[str]] = field(default_factory=dict)
    line: int = 0


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers from 1, without line ends. Latin-1 reads every byte."""
    with path.open(encoding="latin-1", newline=None) as file:
        for number, line in enumerate(file, 1):
            yield number, line.rstrip("\r\n")


def smart(path: Path) -> Iterator[Record]:
    """Records of `.I` with fields `.T` (title), `.W` (text) and others, in the file's order."""
    record: Record | None = None
    current: list[str] = []
    for number, line in lines(path):
        if start := _RECORD.match(line):
            if record is not None:
                yield _closed(record)
            record, current = Record(str(int(start[1])), line=number), []
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


def _closed(record: Record) -> Record:
    record.title = one_line(record.fields.get("T", ()))
    record.text = one_line(record.fields.get("W", ()))
    record.fields = {}
    return record


def one_line(parts: list[str] | tuple[str, ...]) -> str:
    """Lines joined with single spaces."""
    return " ".join(" ".join(parts).split())


def npl(path: Path) -> Iterator[Record]:
    """Records whose first line is the id and whose last holds only `/`."""
    for start, block in _slash_blocks(path):
        yield Record(_number(block[0], path, start), text=one_line(block[1:]), line=start)


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
    if not text.strip().isdigit():
        raise DataError(f"expected an id (a number), got {text.strip()[:40]!r}", path=path, line=line)
    return str(int(text))


def lisa(path: Path) -> Iterator[Record]:
    """Records of `Document N`, title lines, a blank line, text, and a line of asterisks."""
    record: Record | None = None
    block: list[str] = []
    for number, line in lines(path):
        if start := _LISA_DOCUMENT.match(line):
            if record is not None:
                raise DataError(f"document {record.number} is not ended by asterisks", path=path, line=number)
            record, block = Record(str(int(start[1])), line=number), []
        elif record is not None and _LISA_END.match(line):
            blank = next((i for i, each in enumerate(block) if not each.strip()), len(block))
            record.title, record.text = one_line(block[:blank]), one_line(block[blank:])
            yield record
            record = None
        elif record is not None:
            block.append(line)
        elif line.strip().strip("\x1a"):
            raise DataError(f"expected 'Document N', got {line[:40]!r}", path=path, line=number)
    if record is not None:
        raise DataError(f"document {record.number} is cut off", path=path, line=record.line)


def lisa_queries(path: Path) -> Iterator[Record]:
    """Queries: a line with the number, then text up to `#`."""
    record: Record | None = None
    block: list[str] = []
    for number, line in lines(path):
        text = line.strip().strip("\x1a")
        if record is None:
            if text:
                record, block = Record(_number(text, path, number), line=number), []
            continue
        block.append(text.removesuffix("#"))
        if text.endswith("#"):
            record.text = one_line(block)
            yield record
            record = None
    if record is not None:
        raise DataError(f"query {record.number} is not ended by '#': a cut file?", path=path, line=record.line)


def table_qrels(path: Path, grades: Mapping[str, int]) -> Qrels:
    """Judgements of `query document ...` a line.

    Args:
        path: CISI's and CACM's files (two ids and two columns of zeros), MEDLINE's (with a final 1) or
            Cranfield's (with a grade).
        grades: relevance by what the third column says; empty: every line is a relevant document.
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
        qrels.setdefault(str(int(columns[0])), {})[str(int(columns[1]))] = grade
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
            query, counted = str(int(start[1])), False
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
