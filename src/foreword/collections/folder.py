"""`folder:PATH`: a folder in BEIR's layout, or of text files, read as a stream; only `write_label` writes to it.

`corpus.jsonl`, `queries.jsonl` (optional), `qrels/<split>.tsv` (optional) and `hard-negatives/<split>.jsonl`
(optional), each plain or `.gz`. Without a corpus file, each file of text below it is a document. Labels may be as
plain as `query<tab>file` in `labels.tsv`. What a folder's collection holds and checks, it shares with collections that
another library reads: `ReadCollection`.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from foreword.collections.collection import (
    Collection,
    DataWarning,
    Document,
    Entry,
    OneCorpus,
    Qrels,
    Query,
    TrainingPair,
    in_order,
    pairs_from_qrels,
    require_split,
    split_files,
)
from foreword.collections.family import Family
from foreword.collections.text_files import EXTRA, PLAIN, UnreadableError, find_files, read_file
from foreword.collections.views import find_hard_negatives, read_hard_negatives
from foreword.errors import DataError
from foreword.files import atomic_write, json_lines, no_folder, read_json, text_lines

GROUP = "folder"
EVERY_QUERY = "all"
"""The split that names every query of a source, judged or not."""

SELF_RETRIEVING = frozenset({"arguana", "quora"})
"""Sets whose queries are documents too, by the name they have everywhere."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "development": "dev",
    "valid": "dev",
    "validation": "dev",
    "val": "dev",
    "test": "test",
}
"""What others call a split -> what it is called here."""

_ENDINGS = (".tsv", ".txt", ".qrels", ".qrel", ".trec")
_SYNONYMS = {"validation": "dev", "valid": "dev", "val": "dev", "development": "dev"}
_FILE_NAMES = ("file", "filename", "path", "document", "documentid", "doc", "docid", "corpusid")
_QUERY_NAMES = ("query", "queryid", "qid", "q", "topic", "topicid")
_SCORE_NAMES = ("score", "relevance", "relevancescore", "rel", "grade", "label", "judgement", "judgment", "rating")
_HIGHEST_GRADE = 1_000_000


class ReadCollection(OneCorpus, ABC):
    """A `Collection` read again at every call; ids and judgements are all that is held.

    What is broken but usable is counted in `facts` and said once: judgements of a query or document that is not
    there (skipped), documents without text (kept).

    Args:
        splits: those with judgements.
        exclude_self: a query's own document never counts as a hit.
        where: what warnings of judgements name; None: the collection.
        mend: what they add for the reader to do.
    """

    def __init__(
        self,
        collection_id: str,
        group: str,
        splits: Iterable[str] = (),
        *,
        facts: Mapping[str, object],
        exclude_self: bool = False,
        where: str | None = None,
        mend: str = "",
    ) -> None:
        self.id, self.group, self.exclude_self = collection_id, group, exclude_self
        self._splits, self._facts = dict.fromkeys(splits), dict(facts)
        self._where, self._mend = where or collection_id, mend
        self._qrels: dict[str, Qrels] | None = None
        self._counts: dict[str, int] = {}

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """The corpus, streamed. Raises `DataError` for an id that is empty, has blanks or repeats."""

    @abstractmethod
    def _every_query(self) -> Iterator[Query]:
        """All queries, judged or not, streamed and checked."""

    @abstractmethod
    def _read_split(self, split: str, notes: Counter[str]) -> Qrels:
        """The judgements of a split as they are; `notes` counts what was mended."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have judgements."""
        return tuple(self._splits)

    @property
    def facts(self) -> Mapping[str, object]:
        """Where it comes from, and counts of what was broken but usable in what has been read so far."""
        return {**self._facts, **self._counts}

    def queries(self, split: str = "test") -> Iterator[Query]:
        """The judged queries of a split in the source's order, or every query for the split `all`."""
        if split == EVERY_QUERY and split not in self.splits:
            return self._every_query()
        judged = self._judgements(split)
        return (query for query in self._every_query() if query.query_id in judged)

    def qrels(self, split: str = "test") -> Qrels:
        """The judgements of a split, of queries and documents that are there."""
        return {query_id: dict(judged) for query_id, judged in self._judgements(split).items()}

    def _judgements(self, split: str) -> Qrels:
        """The judgements of a split; the first call reads all splits and passes once over the corpus."""
        require_split(self.id, split, self.splits)
        if self._qrels is None:
            notes: Counter[str] = Counter()
            read = {split: self._read_split(split, notes) for split in self._splits}
            wanted = {doc_id for qrels in read.values() for judged in qrels.values() for doc_id in judged}
            documents = {document.doc_id for document in self.documents() if document.doc_id in wanted}
            queries = {query.query_id for query in self._every_query()}
            self._qrels = {name: known_judgements(qrels, queries, documents, notes) for name, qrels in read.items()}
            self._say(notes)
        return self._qrels[split]

    def _say(self, notes: Counter[str]) -> None:
        skipped = f"that is not there and were skipped{self._mend}"
        messages = {
            "judged_twice": "judgements are repeated with another score; the higher one counts",
            "judgements_of_unknown_queries": f"judgements name a query {skipped}",
            "judgements_of_unknown_documents": f"judgements name a document {skipped}",
        }
        for name, message in messages.items():
            self._note(name, notes[name], f"{self._where}: {notes[name]} {message}")

    def _note(self, name: str, count: int, message: str) -> None:
        """Keep a count in `facts`, and warn of it once."""
        if count:
            if name not in self._counts:
                warnings.warn(message, DataWarning, stacklevel=2)
            self._counts[name] = count


class Source(Protocol):
    """What is read: every method starts anew at each call."""

    def documents(self) -> Iterator[Document]:
        """The corpus, ids unchecked."""
        ...

    def queries(self) -> Iterator[Query]:
        """Every query, judged or not, ids unchecked."""
        ...

    def judgements(self, split: str) -> Iterable[tuple[str, str, int]]:
        """`(query_id, doc_id, relevance)` of a split; pairs may repeat and name what is not there."""
        ...


class StreamedCollection(ReadCollection):
    """A collection over a `Source`; of a pair judged twice the higher grade counts, and a warning says so."""

    def __init__(
        self,
        collection_id: str,
        group: str,
        source: Source,
        splits: Sequence[str],
        *,
        facts: Mapping[str, object],
        exclude_self: bool = False,
    ) -> None:
        super().__init__(collection_id, group, splits, facts=facts, exclude_self=exclude_self)
        self._source = source

    def documents(self) -> Iterator[Document]:
        """The corpus, streamed. Raises `DataError` for an id that is empty, has blanks or repeats."""
        seen: set[str] = set()
        empty = 0
        for document in self._source.documents():
            self._check_id("document", document.doc_id)
            if document.doc_id in seen:
                raise DataError(f"{self.id}: document {document.doc_id!r} comes twice; ids must be unique")
            seen.add(document.doc_id)
            empty += not document.content.strip()
            yield document
        self._note("empty_documents", empty, f"{self.id}: {empty} documents have no text; they are kept")

    def _every_query(self) -> Iterator[Query]:
        texts: dict[str, str] = {}
        repeated = 0
        for query in self._source.queries():
            self._check_id("query", query.query_id)
            if not query.text.strip():
                raise DataError(f"{self.id}: query {query.query_id!r} has no text")
            known = texts.get(query.query_id)
            if known is None:
                texts[query.query_id] = query.text
                yield query
            elif known == query.text:
                repeated += 1
            else:
                raise DataError(f"{self.id}: query {query.query_id!r} comes twice, with two texts")
        message = f"{self.id}: {repeated} queries are listed again with the same text; each counts once"
        self._note("repeated_queries", repeated, message)

    def _check_id(self, what: str, name: str) -> None:
        if name.split() != [name]:
            message = f"expected an id without blanks (TREC's files cannot hold them), got {name!r}"
            raise DataError(f"{self.id}: {what}: {message}")

    def _read_split(self, split: str, notes: Counter[str]) -> Qrels:
        qrels: Qrels = {}
        for query_id, doc_id, grade in self._source.judgements(split):
            judged = qrels.setdefault(query_id, {})
            if judged.setdefault(doc_id, grade) != grade:
                notes["judged_twice"] += 1
                judged[doc_id] = max(grade, judged[doc_id])
        return qrels


class _Labelled(ReadCollection):
    """A folder with labels, as far as it has any; documents are its own.

    BEIR's queries, judgements and hard negatives; or plain labels, see `find_labels` and `read_labels`.
    """

    def __init__(
        self,
        collection_id: str,
        path: Path,
        *,
        group: str = GROUP,
        exclude_self: bool = False,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        self._queries, self._negatives_files = find_lines(path, "queries"), find_hard_negatives(path)
        self._qrels_files, self._labels = find_qrels(path), find_labels(path)
        self._read: dict[str, list[tuple[str, str, int]]] = {}
        if both := self._labels.keys() & self._qrels_files.keys():
            other = self._qrels_files[min(both)].relative_to(path)
            raise DataError(f"{other} has labels of {min(both)} too; keep one of them", path=self._labels[min(both)])
        super().__init__(
            collection_id,
            group,
            in_order(self._labels | self._qrels_files),
            facts={"path": str(path), **_subsample(path), **(facts or {})},
            exclude_self=exclude_self,
            where=str(path / "qrels"),
            mend="; check that the files belong together",
        )
        if self._qrels_files and self._queries is None:
            raise DataError("there are judgements but no queries.jsonl", path=path)

    @abstractmethod
    def _names(self) -> Mapping[str, str]:
        """What labels call the documents -> doc_id."""

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """Every query of a split with each of its relevant documents, and hard negatives where a file lists some."""
        require_split(self.id, split, self.splits)
        path = self._negatives_files.get(split)
        if path is None or hard_negatives == 0:
            return pairs_from_qrels(self, split)
        listed = read_hard_negatives(path)
        return pairs_from_qrels(self, split, {query_id: ids[:hard_negatives] for query_id, ids in listed.items()})

    def _every_query(self) -> Iterator[Query]:
        seen: set[str] = set()
        for line, record in json_lines(self._queries) if self._queries is not None else ():
            assert self._queries is not None
            query_id = _id(record, seen, self._queries, line)
            text = text_of(record, "text", self._queries, line)
            if not text.strip():
                raise DataError(f"query {query_id!r} has no text", path=self._queries, line=line)
            yield Query(query_id, text, metadata_of(record))
        for text in dict.fromkeys(query for split in self._labels for query, _, _ in self._lines(split)):
            yield Query(_query_id(text), text)

    def _read_split(self, split: str, notes: Counter[str]) -> Qrels:
        if split in self._qrels_files:
            return read_qrels(self._qrels_files[split])
        qrels: Qrels = {}
        for query, doc_id, grade in self._lines(split):
            qrels.setdefault(_query_id(query), {})[doc_id] = grade
        return qrels

    def _lines(self, split: str) -> list[tuple[str, str, int]]:
        """The plain labels of a split, read once."""
        if split not in self._read:
            self._read[split] = read_labels(self._labels[split], self._names())
        return self._read[split]


class FolderCollection(_Labelled):
    """A collection in BEIR's files."""

    def __init__(self, collection_id: str, path: Path, **about: Any) -> None:
        """`about`: `group`, `exclude_self` and `facts`."""
        corpus = find_lines(path, "corpus")
        if corpus is None:
            raise DataError("no corpus.jsonl or corpus.jsonl.gz here", path=path)
        self._corpus = corpus
        super().__init__(collection_id, path, **about)

    def documents(self) -> Iterator[Document]:
        """The corpus, streamed. Raises `DataError` on a broken line, a missing field or a repeated id."""
        seen: set[str] = set()
        empty = 0
        for line, record in json_lines(self._corpus):
            doc_id = _id(record, seen, self._corpus, line)
            title = text_of(record, "title", self._corpus, line, optional=True)
            text = text_of(record, "text", self._corpus, line)
            empty += not (title.strip() or text.strip())
            yield Document(doc_id, text, title, metadata_of(record))
        self._note("empty_documents", empty, f"{self._corpus}: {empty} documents have no text; they are kept")

    def _names(self) -> Mapping[str, str]:
        return {document.doc_id: document.doc_id for document in self.documents()}


class TextFolder(_Labelled):
    """Every file of text below a folder is a document, see `find_files`; its path from there is the doc_id.

    Blanks in the path are `_` in the doc_id; labels may name either.
    """

    def __init__(self, collection_id: str, path: Path) -> None:
        super().__init__(collection_id, path)
        self._path = path
        files = (*self._labels.values(), *self._qrels_files.values(), *self._negatives_files.values(), self._queries)
        self._own = {file.relative_to(path).parts[0] for file in files if file is not None}

    def documents(self) -> Iterator[Document]:
        """One document a file, ordered by path. Raises `DataError` where two have one doc_id, or text is not UTF-8."""
        found = find_files(self._path, self._own)
        self._note("passed_over", sum(found.passed_over.values()), f"{self._path}: {found.said()}")
        seen: set[str] = set()
        unread: list[str] = []
        broken = empty = 0
        for name, path in found.files.items():
            doc_id = self._doc_id(name)
            if doc_id in seen:
                raise DataError(f"another file has the doc_id {doc_id!r} too; rename one", path=path)
            seen.add(doc_id)
            try:
                said = read_file(path)
            except UnreadableError as error:
                unread.append(str(error))
                continue
            broken += said.broken
            empty += not (said.title or said.text)
            yield Document(doc_id, said.text, said.title, {**said.metadata, "file": name})
        messages = {
            "unreadable_files": (len(unread), f"files are left out: {'; '.join(unread)}"),
            "broken_front_matter": (
                broken,
                "files have front matter that is no YAML; it is a part of their text",
            ),
            "empty_documents": (empty, "documents have no text; they are kept"),
        }
        for name, (count, message) in messages.items():
            self._note(name, count, f"{self._path}: {count} {message}")

    def _names(self) -> Mapping[str, str]:
        ids = {name: self._doc_id(name) for name in find_files(self._path, self._own).files}
        return {doc_id: doc_id for doc_id in ids.values()} | ids

    def _doc_id(self, name: str) -> str:
        """The doc_id of a file by its path from the folder."""
        try:
            name.encode()
        except UnicodeEncodeError:  # how Python gives names of bytes that are no UTF-8
            message = f"the name {name!a} is not UTF-8, so it is no doc_id; rename the file"
            raise DataError(message, path=self._path) from None
        return "_".join(name.split())


class Folder(Family):
    """Any folder, by its path."""

    name = GROUP

    def knows(self, name: str) -> bool:
        """Any path may be asked for; `open` says when nothing is there."""
        return bool(name)

    def entries(self, data: Path | None = None) -> list[Entry]:
        """The form in which any folder is named; `data` is not used."""
        what = "any folder: of notes, or in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/<split>.tsv)"
        return [Entry(f"{GROUP}:PATH", GROUP, what, ("train", "dev", "test"), True)]

    def open(self, name: str, data: Path | None, *, exclude_self: bool | None = None) -> Collection:
        """The collection in the folder `name`, a path that is relative to `data` where that is given.

        Args:
            exclude_self: a query's own document never counts as a hit; by default for folders named `arguana`
                or `quora`, and samples of such collections.
        """
        path = Path(data or "", name).expanduser()
        if fault := no_folder(path):
            raise DataError(fault, path=path)
        if find_lines(path, "corpus") is not None:
            sample: Any = _subsample(path).get("subsample", {})
            usual = sample.get("exclude_self", path.name.casefold() in SELF_RETRIEVING)
            own = usual if exclude_self is None else exclude_self
            return FolderCollection(f"{GROUP}:{name}", path, exclude_self=own)
        found = find_files(path)
        if found.files:
            return TextFolder(f"{GROUP}:{name}", path)
        said = found.said()
        reads = f"no corpus.jsonl, and no file of text ({', '.join(PLAIN)}; with {EXTRA} others)"
        raise DataError(f"{reads} here{said and f'; {said}'}", path=path)


FOLDER = Folder()


def folder_of(collection: Collection) -> str:
    """The absolute path of the folder that a collection is read from; empty: it is from no folder."""
    path = collection.facts.get("path")
    return str(Path(path).resolve()) if isinstance(path, str) else ""


def find_lines(folder: Path, stem: str) -> Path | None:
    """`<stem>.jsonl` or `<stem>.jsonl.gz` in a folder; None: neither."""
    return next((p for p in (folder / f"{stem}.jsonl", folder / f"{stem}.jsonl.gz") if p.is_file()), None)


# Judgements: BEIR's (`query-id corpus-id score` and a header), TREC's (`query 0 document score`), and plain labels.


def find_qrels(folder: Path) -> dict[str, Path]:
    """`split -> file` of a collection's folder: `qrels/<split>.tsv`, or for test `qrels.tsv` by the corpus."""
    below = folder / "qrels"
    if not below.is_dir():
        beside = list(folder.glob("qrels.*"))
        tests = {path.name.removesuffix(".gz").rpartition(".")[0]: "test" for path in beside}
        return split_files(beside, "judgements", _ENDINGS, tests)
    return split_files(below.iterdir(), "judgements", _ENDINGS, _SYNONYMS)


def read_qrels(path: Path | str) -> Qrels:
    """The judgements of one file, in its order: blank separated, three columns (and a header) or TREC's four.

    A grade below 0 is kept: some measures of trec_eval read it as judged, and others as not judged. A line repeated
    word for word counts once. Raises `DataError` for another number of columns, a score that is no whole number (but
    in a header), or a pair judged twice with different scores.
    """
    qrels: Qrels = {}
    width, begun = 0, False
    for number, line in text_lines(path):
        columns = line.split()
        if not columns:
            continue
        first, begun = not begun, True
        if first and _is_header(line):
            continue
        width = width or len(columns)
        if len(columns) != width or width not in (3, 4):
            expected = "'query-id corpus-id score' or TREC's 'query 0 document score'"
            message = f"{len(columns)} columns; expected {expected}"
            raise DataError(message, path=path, line=number)
        query_id, doc_id = columns[0], columns[-2]
        score = whole(columns[-1], path, number)
        judged = qrels.setdefault(query_id, {})
        if judged.setdefault(doc_id, score) != score:
            message = f"{query_id} {doc_id} is judged {score} here and {judged[doc_id]} before; keep one line"
            raise DataError(message, path=path, line=number)
    return qrels


def _query_id(text: str) -> str:
    """The same for a query wherever it stands, so that runs can be compared when other labels come or go."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def find_labels(folder: Path) -> dict[str, Path]:
    """`split -> file` of plain labels: `labels.tsv` is train's, `labels-dev.tsv` and `labels-test.tsv` say whose."""
    names = {"labels": "train", **{f"labels-{name}": split for name, split in SPLIT_NAMES.items()}}
    return split_files((p for p in folder.glob("labels*.tsv") if p.stem in names), "labels", (".tsv",), names)


def read_labels(path: Path, names: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """Query, doc_id and grade of each line: `query<tab>file`, and behind another tab a grade where it is not 1.

    Args:
        path: the file; a first line of names (`query<tab>file`) is passed over.
        names: what it may call a document -> doc_id.

    Raises:
        DataError: a line of another form, one that names no file, or one that contradicts another.
    """
    known = {unicodedata.normalize("NFC", name): doc_id for name, doc_id in names.items()}
    labels: dict[tuple[str, str], int] = {}
    begun = False
    for number, line in text_lines(path):
        query, *rest = _columns(line)
        if not query and not any(rest):
            continue
        first, begun = not begun, True
        if not query or len(rest) not in (1, 2):
            message = f"expected QUERY<tab>FILE, and perhaps <tab>GRADE; got {line.strip()[:80]!r}"
            raise DataError(message, path=path, line=number)
        name = _file_name(rest[0])
        if name not in known:
            if first and _plain(query) in _QUERY_NAMES and _plain(name) in _FILE_NAMES:
                continue
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{rest[0]!r} is no document of this folder{hint}", path=path, line=number)
        grade = whole(rest[1], path, number) if len(rest) == 2 else 1
        if labels.setdefault((query, known[name]), grade) != grade:
            raise DataError(f"{query!r} and {rest[0]!r} have another grade above; keep one", path=path, line=number)
    return [(query, doc_id, grade) for (query, doc_id), grade in labels.items()]


def query_labels(folder: Path, query: str) -> dict[str, int]:
    """File -> grade of a query, as the training labels of a folder of text files have them."""
    path, labels = find_labels(folder).get("train"), {}
    for number, line in () if path is None else text_lines(path):
        asked, *rest = _columns(line)
        if asked == query and rest:
            labels[_file_name(rest[0])] = whole(rest[1], str(path), number) if len(rest) > 1 else 1
    return labels


def write_label(folder: Path, query: str, name: str, grade: int | None) -> None:
    """Write into a folder's `labels.tsv` whether a file answers a query, in place of what it says of the two.

    Args:
        folder: of text files.
        query: one line, without tabs.
        name: the file's path from the folder.
        grade: 1: it does; 0: it does not; None: no label.

    Raises:
        DataError: the training judgements stand in `qrels/`, or the file's name cannot stand in a line.
    """
    if (judged := find_qrels(folder).get("train")) is not None:
        raise DataError("the training judgements are here; labels.tsv beside them would be refused", path=judged)
    if name != " ".join(name.splitlines()) or "\t" in name:
        raise DataError(f"{name!r} has a tab or a line break, which no line of labels can hold", path=folder)
    path = find_labels(folder).get("train", folder / "labels.tsv")
    lines = [line for _, line in text_lines(path)] if path.exists() else []
    same = [query, _file_name(name)]
    others = [line for line in lines if [*(c := _columns(line))[:1], *map(_file_name, c[1:2])] != same]
    own = [] if grade is None else ["\t".join([query, name, *(["0"] if grade == 0 else [])])]
    with atomic_write(path) as file:
        file.writelines(f"{line}\n" for line in [*others, *own])


def _columns(line: str) -> list[str]:
    return [part.strip() for part in line.rstrip("\t").split("\t")]


def _file_name(written: str) -> str:
    """A file's name as labels write it, in the one form that names are compared in."""
    return PurePosixPath(unicodedata.normalize("NFC", written).replace("\\", "/")).as_posix()


def _is_header(line: str) -> bool:
    """Whether a line is names of columns: the first of queries, the last of scores, as somebody writes them."""
    columns = line.strip().split("\t") if "\t" in line else line.split()
    return _plain(columns[0]) in _QUERY_NAMES and _plain(columns[-1]) in _SCORE_NAMES


def _plain(name: str) -> str:
    """A column's name, however it is written."""
    return re.sub("[^a-z]", "", name.casefold())


def known_judgements(qrels: Qrels, queries: Set[str], documents: Set[str], notes: Counter[str]) -> Qrels:
    """The judgements whose query and document are there; a query that keeps none is left out.

    What is skipped is counted: `judgements_of_unknown_queries` and `judgements_of_unknown_documents` in `notes`.
    """
    kept: Qrels = {}
    for query_id, judged in qrels.items():
        if query_id not in queries:
            notes["judgements_of_unknown_queries"] += len(judged)
            continue
        there = {doc_id: grade for doc_id, grade in judged.items() if doc_id in documents}
        notes["judgements_of_unknown_documents"] += len(judged) - len(there)
        if there:
            kept[query_id] = there
    return kept


def whole(value: object, where: Path | str, line: int | None = None) -> int:
    """A grade as a whole number: 1 of 1, 1.0 or "1". Raises `DataError`, naming file and line, for any other.

    trec_eval keeps a counter for every grade up to the highest, gigabytes of them for one of a billion.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not number.is_integer() or abs(number) > _HIGHEST_GRADE:
        got = repr(value)[:40]
        most = f" of at most {_HIGHEST_GRADE:,}" if abs(number) > _HIGHEST_GRADE else ""
        raise DataError(f"the score must be a whole number{most}, got {got}", path=where, line=line)
    return int(number)


def _subsample(folder: Path) -> dict[str, object]:
    """What `foreword download --sample` wrote about itself, so that results name it."""
    path = folder / "subsample.json"
    if not path.is_file():
        return {}
    record = read_json(path, "make the sample again")
    if not isinstance(record, dict):
        raise DataError(f"expected a JSON object, got {type(record).__name__}", path=path)
    return {"subsample": record}


def _id(record: Mapping[str, Any], seen: set[str], path: Path, line: int) -> str:
    """The record's `_id`, remembered in `seen`; a number is taken as its digits."""
    value = record.get("_id")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"expected '_id', a text; this line has the fields {sorted(record)}", path=path, line=line)
    name = str(value)
    if name.split() != [name]:
        message = f"_id {name!r} has blanks, which TREC's files cannot hold; replace them in corpus and qrels"
        raise DataError(message, path=path, line=line)
    if name in seen:
        raise DataError(f"_id {name!r} comes twice; ids must be unique", path=path, line=line)
    seen.add(name)
    return name


def text_of(record: Mapping[str, Any], name: str, path: Path, line: int, *, optional: bool = False) -> str:
    """A field that is a text; where it is optional, empty if it is not there. Raises `DataError` for any other."""
    value = record.get(name)
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        got = "nothing" if value is None else type(value).__name__
        raise DataError(f"expected {name!r}, a text; got {got}", path=path, line=line)
    return value


def metadata_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The record's metadata as texts."""
    metadata = record.get("metadata")
    return {str(k): str(v) for k, v in metadata.items() if v is not None} if isinstance(metadata, dict) else {}
