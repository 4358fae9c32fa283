"""`oag-qa/<topic>`: questions from forums and the papers that answer them, 10,000 papers a topic, 87 topics.

`oag-qa-disciplines/<discipline>` is the union of a discipline's topics. The data has no splits of its own, so
questions are split here by a hash of their text. Topics, files and the archive are facts in `data/oag_qa.json`.
Results are compared by Success@20: the share of questions with a right paper among 20.
"""

from __future__ import annotations

import ast
import csv
import logging
import os
import re
import shutil
import threading
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from foreword.collections.collection import (
    FRACTIONS,
    SPLITS,
    Collection,
    DataWarning,
    Document,
    Entry,
    MemoryCollection,
    Query,
    divided,
    normalise,
)
from foreword.collections.family import Family
from foreword.downloads.archives import extract
from foreword.downloads.fetch import begins_with, fetch, fetch_folder
from foreword.downloads.places import DEFAULT, Resource, Transport, data_folder, locked
from foreword.errors import DataError, UnknownNameError
from foreword.files import read_json, scratch_folder, text_lines

log = logging.getLogger(__name__)

FOLDER = "oag-qa"
"""The topics' family, and the folder below the data folder."""

TITLES = ("exact", "normalised")
"""How a listed title finds its papers: character by character, or after `normalise`."""


@cache
def facts() -> dict[str, Any]:
    """What `data/oag_qa.json` holds: `home`, `archive`, `files` and the topics of the `disciplines`."""
    loaded: dict[str, Any] = read_json(Path(__file__).parent / "data" / "oag_qa.json")
    return loaded


class OagQa(Family):
    """Collections made of topics."""

    noun: str
    """What one of them is called."""

    def names(self) -> Mapping[str, Sequence[str]]:
        """The topics of each collection."""
        raise NotImplementedError

    def description(self, name: str) -> str:
        """What a collection is, for the catalogue."""
        raise NotImplementedError

    def about(self, name: str) -> Sequence[str]:
        """A collection's topics. Raises `UnknownNameError` when there is no such collection."""
        if not self.knows(name):
            raise UnknownNameError(f"no {self.noun} {name!r} in OAG-QA; known: {', '.join(self.names())}")
        return self.names()[name]

    def entry(self, name: str, root: Path) -> Entry:
        """The catalogue's line of a collection; the size is that of the one archive with all of them."""
        about = facts()
        return Entry(
            self.id(name),
            self.name,
            self.description(name),
            SPLITS,
            self.find(name, root) is not None,
            about["licence"] or "",
            about["home"],
            size=about["archive"]["size"],
            citation=about["citation"],
        )

    def open(self, name: str, data: Path | None, *, titles: str = "exact", seed: int = 0) -> Collection:
        """The questions and papers of a collection's topics.

        A title finds its papers in all of the topics: the same paper may be in two topics' files.

        Args:
            data: the data folder, or one that holds the tables.
            titles: `exact` or `normalised`: how a listed title finds its papers.
            seed: of the split into train, dev and test.
        """
        topics, collection_id = self.about(name), self.id(name)
        if titles not in TITLES:
            raise UnknownNameError(f"titles is one of {', '.join(TITLES)}; got {titles!r}")
        folder = self.require(name, data_folder(data))
        notes: Counter[str] = Counter()
        papers, questions = self._read(topics, folder, notes)
        relevant = _match(questions, papers, normalised=titles == "normalised", notes=notes)
        notes["documents"], notes["questions"] = len(papers), len(questions)
        notes["empty_documents"] = sum(not paper.content.strip() for paper in papers)
        split = {"by": "hash of the question's normalised text", "seed": seed, "shares": dict(FRACTIONS)}
        counts = {"path": str(folder), "titles": titles, "split": split, **dict(sorted(notes.items()))}
        if lost := notes["questions_without_paper"]:
            other = "" if titles == "normalised" else '; titles="normalised" compares without case and punctuation'
            message = f"{collection_id}: {lost} of {len(questions)} questions list no title of any paper here"
            warnings.warn(f"{message}; they are left out{other}", DataWarning, stacklevel=3)
        if repeated := notes["repeated_documents"]:
            message = f"{collection_id}: {repeated} rows repeat a paper's id; the first one is kept"
            warnings.warn(message, DataWarning, stacklevel=3)
        judged = (q for q in questions if q.query_id in relevant)
        queries, qrels = divided(((Query(q.query_id, q.text), relevant[q.query_id]) for q in judged), seed)
        return MemoryCollection(collection_id, self.name, tuple(papers), queries, qrels, counts)

    def _read(self, topics: Sequence[str], folder: Path, notes: Counter[str]) -> tuple[list[Document], list[Question]]:
        """The papers and questions of topics; outside of the topics' own family, ids are `<topic>/<id>`."""
        papers: list[Document] = []
        questions: list[Question] = []
        for topic in topics:
            question_file, paper_file = topic_files(topic)
            prefix = "" if self.noun == "topic" else f"{topic}/"
            about = {"topic": topic} if prefix else {}
            for paper in read_papers(folder / paper_file, notes):
                papers.append(replace(paper, doc_id=prefix + paper.doc_id, metadata=about))
            questions += [replace(q, query_id=prefix + q.query_id) for q in read_questions(folder / question_file)]
        return papers, questions

    def files(self, name: str) -> list[str]:
        """The names of a collection's files: both of each topic."""
        return [file for topic in self.about(name) for file in topic_files(topic)]

    def find(self, name: str, root: Path) -> Path | None:
        """The folder with all of a collection's files, or None."""
        wanted = self.files(name)
        return next((folder for folder in _places(root) if _has(folder, wanted)), None)

    def require(self, name: str, root: Path) -> Path:
        """As `find`; raises `DataError` that names the missing files and where they were looked for."""
        found = self.find(name, root)
        if found is not None:
            return found
        wanted, looked = self.files(name), list(dict.fromkeys(_places(root)))
        nearest = max(looked, key=lambda folder: sum((folder / file).is_file() for file in wanted))
        missing = [file for file in wanted if not (nearest / file).is_file()]
        raise DataError(
            f"{self.id(name)} needs the files {_shown(missing)} (looked in {', '.join(map(str, looked))}). "
            f"Say `foreword download {self.id(name)}`, or with your own copy "
            f"`foreword download {self.id(name)} --from PATH` (the archive, or a folder with its files)"
        )

    def download(self, name: str, data: Path, transport: Transport = DEFAULT, source: Path | None = None) -> Path:
        """The folder with a collection's files; the one archive brings those of all topics.

        Args:
            source: the user's own copy, instead of a download: a folder, which is linked to from the data folder
                (copied where links cannot be made), or a zip or tar archive, which is unpacked.
        """
        data, source = Path(data), None if source is None else Path(source).expanduser()
        if source is not None and not source.exists():
            message = "does not exist: no such file or folder; expected OAG-QA's archive or its unpacked folder"
            raise DataError(message, path=source)
        found = self.find(name, data)
        if found is not None:
            return found
        with locked(data, FOLDER):
            if self.find(name, data) is None:
                _bring(data, transport, source, self.files(name))
        return self.require(name, data)


class Topics(OagQa):
    """The 87 topics, in alphabetical order."""

    name, noun = FOLDER, "topic"

    def names(self) -> Mapping[str, Sequence[str]]:
        """Each topic, of itself."""
        return {topic: (topic,) for topic in sorted(t for listed in facts()["disciplines"].values() for t in listed)}

    def description(self, name: str) -> str:
        """What a topic is, for the catalogue."""
        return f"forum questions on {name.replace('_', ' ')}, papers for answers"


class Disciplines(OagQa):
    """The 22 disciplines, each the union of its topics; a question is in the same split as in its topic."""

    name, noun = "oag-qa-disciplines", "discipline"

    def names(self) -> Mapping[str, Sequence[str]]:
        """The topics of each discipline."""
        listed: Mapping[str, Sequence[str]] = facts()["disciplines"]
        return listed

    def description(self, name: str) -> str:
        """What a discipline is, for the catalogue."""
        return f"OAG-QA's {', '.join(self.about(name)).replace('_', ' ')}"


TOPICS, DISCIPLINES = Topics(), Disciplines()


def _match(
    questions: Iterable[Question], papers: Iterable[Document], *, normalised: bool, notes: Counter[str]
) -> dict[str, dict[str, int]]:
    """`query_id -> doc_id -> 1`: every paper with one of the listed titles; questions without any are left out."""
    by_title: dict[str, list[str]] = defaultdict(list)
    for paper in papers:
        by_title[normalise(paper.title) if normalised else paper.title].append(paper.doc_id)
    by_title.pop("", None)  # papers without a title answer nothing
    relevant: dict[str, dict[str, int]] = {}
    for question in questions:
        found = [by_title.get(normalise(title) if normalised else title, []) for title in question.titles]
        notes["titles_listed"] += len(found)
        notes["titles_without_paper"] += found.count([])
        judged = {doc_id: 1 for doc_ids in found for doc_id in doc_ids}
        if judged:
            relevant[question.query_id] = judged
        else:
            notes["questions_without_paper"] += 1
    return relevant


def topic_files(topic: str) -> tuple[str, str]:
    """The names of a topic's questions and papers."""
    names = facts()["files"]
    return names["questions"].format(topic=topic), names["papers"].format(topic=topic)


def _bring(data: Path, transport: Transport, source: Path | None, wanted: Sequence[str]) -> None:
    folder = data / FOLDER
    if folder.exists() and not folder.is_symlink():
        message = "is there but lacks files of OAG-QA; move it away, then download again"
        raise DataError(message, path=folder)
    archive = facts()["archive"]
    limit: int = archive["unpacked_limit"]
    if source is None:
        resource = Resource(archive["name"], (archive["url"],), sha256=archive["sha256"], size=archive["size"])
        if not (data / resource.name).exists() and not _from_mirror(resource, data, transport):
            _from_drive(archive["drive_id"], data / resource.name, transport)
        _unlink(folder)
        fetch_folder(resource, data, folder, transport, limit=limit, members=_is_topic_file)
    elif source.is_dir():
        _check_holds(source, source, wanted)
        _unlink(folder)
        _link(source, folder)
    else:
        _unlink(folder)
        extract(source, folder, limit=limit, members=_is_topic_file)
        try:
            _check_holds(folder, source, wanted)
        except DataError:
            shutil.rmtree(folder)  # made a moment ago; left there, it would be in the way of the right one
            raise


def _check_holds(folder: Path, source: Path, wanted: Sequence[str]) -> None:
    """Raise `DataError` about the user's `source` unless one folder in `folder` has all the files."""
    if not any(_has(place, wanted) for place in _inside(folder)):
        raise DataError(
            f"does not hold the files {_shown(wanted)}; expected OAG-QA's archive or its folder", path=source
        )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _unlink(folder: Path) -> None:
    """Remove an earlier link to a folder without the files; what it points to is left alone."""
    if folder.is_symlink():
        log.warning("%s was a link to %s, which lacks files of OAG-QA; it is replaced", folder, os.readlink(folder))
        folder.unlink()


def _from_mirror(resource: Resource, data: Path, transport: Transport) -> bool:
    """Whether a mirror had the archive; its own address is a page of Google Drive, no file."""
    mirrored = replace(resource, urls=())
    if not transport.addresses(mirrored):
        return False
    try:
        fetch(mirrored, data, transport, check=begins_with(b"PK", expected="expected a zip archive"))
    except DataError as error:
        log.warning("no mirror gave OAG-QA, so Google Drive is asked: %s", error)
        return False
    return True


def _from_drive(drive_id: str, path: Path, transport: Transport) -> None:
    """Download a file of Google Drive, which asks questions that a plain request cannot answer, as `path`."""
    own = f"Get {facts()['archive']['url']} in a browser, then say --from PATH"
    if transport.is_offline:
        raise DataError(f"OAG-QA is not there and downloads are switched off. {own}", path=path)
    try:
        import gdown
    except ImportError as error:
        message = f"OAG-QA is on Google Drive, which needs gdown: pip install foreword[download]. {own}"
        raise DataError(message, path=path) from error
    with scratch_folder(path) as temporary:
        output = temporary / path.name
        try:
            gdown.download(id=drive_id, output=str(output), quiet=transport.quiet)
        except Exception as error:  # its own, requests' and urllib3's: whichever, the remedy is the same
            raise DataError(f"gdown could not download OAG-QA ({str(error).strip()}). {own}", path=path) from error
        if not output.is_file():
            raise DataError(f"gdown brought no file for OAG-QA. {own}", path=path)
        os.replace(output, path)


def _link(source: Path, folder: Path) -> None:
    """Make `folder` a link to the user's folder, or a whole copy of its tables where links cannot be made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.symlink_to(source.resolve(), target_is_directory=True)
        return
    except OSError:  # e.g. Windows without the right to make links; the copy serves as well
        pass
    with scratch_folder(folder) as temporary:
        for path in sorted(source.rglob("*.tsv")):
            if _is_topic_file(path.name):
                shutil.copyfile(path, temporary / path.name)
        os.replace(temporary, folder)


def _is_topic_file(name: str) -> bool:
    """Whether an archive's member is wanted: it holds DPR's training files besides, and macOS adds hidden ones."""
    last = name.rpartition("/")[2]
    endings = tuple(name.replace("{topic}", "") for name in facts()["files"].values())
    return last.endswith(endings) and not last.startswith(".")


def _places(root: Path) -> Iterator[Path]:
    """The folders to look in: the data folder's `oag-qa`, itself, and the archive's folder in either."""
    inner = facts()["archive"]["folder"]
    below = root / FOLDER
    yield from (below, below / inner, root, root / inner)
    yield from _inside(below)


def _inside(folder: Path) -> Iterator[Path]:
    """A folder and those in it, two levels down."""
    yield folder
    yield from (path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern)) if path.is_dir())


def _has(folder: Path, names: Sequence[str]) -> bool:
    return all((folder / name).is_file() for name in names)


# Both are tab separated with quotes as Python's csv and pandas write them: a field in quotes may hold tabs and
# line ends. The lists of titles are Python literals; they are read as such, never run.

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
    """The questions of a topic, in the file's order."""
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

    Columns are id, abstract, title, or those that a first row beginning with `id` names. `repeated_documents` in
    `notes` counts the rows left out.
    """
    papers: dict[str, Document] = {}
    places = {name: place for place, name in enumerate(_PAPER_COLUMNS)}
    for number, (line, row) in enumerate(tsv_rows(path)):
        if number == 0 and row[0].strip() == "id":
            names = [name.strip() for name in row]
            if missing := [name for name in _PAPER_COLUMNS if name not in names]:
                expected = ", ".join(_PAPER_COLUMNS)
                message = f"the header {names} has no {' or '.join(missing)}; expected {expected}"
                raise DataError(message, path=path, line=line)
            places = {name: names.index(name) for name in _PAPER_COLUMNS}
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
    """The rows of a tab separated UTF-8 file with the number of each one's first line; empty ones are passed over."""
    end = "\x00end"  # a last line of our own: an open quote would swallow it
    line = 1
    try:
        with _csv_limit:  # csv's limit of a field is one for the whole process, and is put back
            before = csv.field_size_limit(_LONGEST_FIELD)
            try:
                reader = csv.reader(chain((f"{text}\n" for _, text in text_lines(path)), [end]), delimiter="\t")
                rows = []
                for row in reader:
                    rows.append((line, row))
                    line = reader.line_num + 1
            finally:
                csv.field_size_limit(before)
    except csv.Error as error:
        raise DataError(f"broken table ({error})", path=path, line=line) from error
    start, last_row = rows.pop()
    if last_row != [end]:
        raise DataError("a quote that opens in this row is never closed", path=path, line=start)
    yield from ((number, row) for number, row in rows if any(field.strip() for field in row))
