"""The two files of an OAG-QA topic: questions with the titles of their papers, and the papers.

Both are tab separated with quotes as Python's csv and pandas write them: a field in quotes may hold tabs and
line ends. The lists of titles are Python literals; they are read as such, never run.
"""

from __future__ import annotations

import ast
import csv
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foreword.collections.records import Document
from foreword.common.errors import DataError

_PAPER_COLUMNS = ("id", "abstract", "title")
_LONGEST_FIELD = 1 << 30  # characters; csv's own limit of 131,072 is below some abstracts' length
_LONGEST_LIST = 1 << 20  # characters of one list of titles

_STRING = r"""(?:'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+")"""
_LIST_OF_STRINGS = re.compile(rf"\s*\[\s*(?:{_STRING}\s*(?:,\s*{_STRING}\s*)*+,?\s*)?\]\s*")

_csv_limit = threading.Lock()


@dataclass(frozen=True, slots=True)
class Question:
    """One question; `query_id` is `q` and its position in the file, from 1."""

    query_id: str
    text: str
    titles: tuple[str, ...]
    """Of the papers that answer it."""


def read_questions(path: Path) -> list[Question]:
    """The questions of a topic, in the file's order.

    Raises:
        DataError: not two columns, an empty question, or a list that is no flat list of texts.
    """
    questions: list[Question] = []
    for line, row in tsv_rows(path):
        if len(row) < 2:
            raise DataError("1 column; expected a question and a list of titles", path=path, line=line)
        text = row[0].strip()
        if not text:
            raise DataError("the question is empty", path=path, line=line)
        questions.append(Question(f"q{len(questions) + 1}", text, literal_titles(row[1], path, line)))
    return questions


def read_papers(path: Path, notes: Counter[str]) -> list[Document]:
    """The papers of a topic, in the file's order; of an id that comes again the first is kept.

    Args:
        path: columns id, abstract, title, or those that a first row beginning with `id` names.
        notes: `repeated_documents` counts the rows left out.

    Raises:
        DataError: fewer columns, or an id that is empty or has blanks.
    """
    papers: dict[str, Document] = {}
    places = {name: place for place, name in enumerate(_PAPER_COLUMNS)}
    for number, (line, row) in enumerate(tsv_rows(path)):
        if number == 0 and row[0].strip() == "id":
            places = _header(row, path, line)
            continue
        if len(row) <= max(places.values()):
            message = f"{len(row)} columns; expected {', '.join(_PAPER_COLUMNS)}"
            raise DataError(message, path=path, line=line)
        doc_id = row[places["id"]].strip()
        if doc_id.split() != [doc_id]:
            raise DataError(f"expected an id without blanks, got {doc_id!r}", path=path, line=line)
        if doc_id in papers:
            notes["repeated_documents"] += 1
            continue
        papers[doc_id] = Document(doc_id, row[places["abstract"]], row[places["title"]])
    return list(papers.values())


def literal_titles(text: str, path: Path, line: int) -> tuple[str, ...]:
    """The texts of a Python list literal such as `['A title', "another's"]`.

    Anything else (a call, a name, a nested list, texts without a comma between them) is a `DataError`.
    """
    expected = "expected a Python list of texts, such as ['A title', 'another']"
    if len(text) > _LONGEST_LIST:
        message = f"the list of titles has {len(text)} characters, more than {_LONGEST_LIST}"
        raise DataError(message, path=path, line=line)
    if not _LIST_OF_STRINGS.fullmatch(text):  # so the parser meets no depth, and nothing but texts
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise DataError(f"{expected}; got {shown!r}", path=path, line=line)
    try:
        titles = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError) as error:  # e.g. a broken \x escape
        raise DataError(f"{expected}; {error}", path=path, line=line) from error
    return tuple(titles)


def tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a tab separated UTF-8 file with the number of each one's first line; empty ones are passed over.

    Raises:
        DataError: it cannot be read, is not UTF-8, or a quote is not closed.
    """
    end = "\x00end"  # a last line of our own: an open quote would swallow it
    line = 1

    def lines() -> Iterator[str]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            last = ""
            for last in file:
                yield last
        if last and not last.endswith(("\n", "\r")):
            yield "\n"
        yield end

    try:
        with _long_fields():
            reader = csv.reader(lines(), delimiter="\t")
            rows = []
            for row in reader:
                rows.append((line, row))
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        message = "not UTF-8; convert the file, e.g. iconv -f latin1 -t utf-8"
        raise DataError(message, path=path) from error
    except csv.Error as error:
        raise DataError(f"broken table ({error})", path=path, line=line) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error
    start, last_row = rows.pop()
    if last_row != [end]:
        raise DataError("a quote that opens in this row is never closed", path=path, line=start)
    yield from ((number, row) for number, row in rows if any(field.strip() for field in row))


def _header(row: list[str], path: Path, line: int) -> dict[str, int]:
    """`name -> place` of the three columns that a header names."""
    names = [name.strip() for name in row]
    missing = [name for name in _PAPER_COLUMNS if name not in names]
    if missing:
        message = f"the header {names} has no {' or '.join(missing)}; expected {', '.join(_PAPER_COLUMNS)}"
        raise DataError(message, path=path, line=line)
    return {name: names.index(name) for name in _PAPER_COLUMNS}


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let csv read long fields meanwhile; its limit is one for the whole process and is put back."""
    with _csv_limit:
        before = csv.field_size_limit(_LONGEST_FIELD)
        try:
            yield
        finally:
            csv.field_size_limit(before)
