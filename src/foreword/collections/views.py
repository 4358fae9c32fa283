"""Collections seen differently: without another's texts, by templates, without labels, with hard negatives.

A source is seen without the texts of a transfer target, so that transfer is measured on unseen text.
"""

from __future__ import annotations

import gzip
import json
import string
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from foreword.collections.collection import (
    Collection,
    DataWarning,
    Document,
    Qrels,
    Query,
    TrainingPair,
    View,
    normalise,
    require_split,
    split_files,
)
from foreword.errors import DataError, ForewordError
from foreword.files import atomic_write, json_lines
from foreword.settings import DOCUMENT, QUERY


@dataclass(frozen=True)
class Texts:
    """The normalised texts of some collections; memory grows with their text, so give small ones."""

    queries: frozenset[str] = frozenset()
    documents: frozenset[str] = frozenset()

    @classmethod
    def of(cls, collections: Iterable[Collection]) -> Texts:
        """Gather every document and every split's queries.

        A document counts with and without its title, and (documentation) without its signature.
        """
        queries: set[str] = set()
        documents: set[str] = set()
        for collection in collections:
            for document in collection.documents():
                documents.update(_forms(document))
            for split in collection.splits:
                queries.update(normalise(query.text) for query in collection.queries(split))
        return cls(frozenset(queries - {""}), frozenset(documents - {""}))

    def __bool__(self) -> bool:
        return bool(self.queries or self.documents)

    def has_query(self, text: str) -> bool:
        """Whether a query's text occurs among the queries or documents gathered."""
        normal = normalise(text)
        return normal in self.queries or normal in self.documents

    def has_document(self, document: Document) -> bool:
        """Whether a document's text occurs among the queries or documents gathered."""
        return any(form in self.documents or form in self.queries for form in _forms(document))


def _forms(document: Document) -> set[str]:
    """The normalised texts under which a document may turn up elsewhere."""
    signature = document.metadata.get("signature", "")
    body = document.text.removeprefix(signature)
    return {normalise(document.content), normalise(document.text), normalise(body)} - {""}


@dataclass(frozen=True)
class ExcludingCollection(View):
    """`source` seen without excluded documents and queries, and without queries that lose all they find.

    Streams like `source` does: one pass when it is made finds the dropped ids, which are all it holds.
    """

    source: Collection
    texts: Texts
    _facts: Mapping[str, object] = field(init=False, repr=False)
    _documents: frozenset[str] = field(init=False, repr=False)
    _queries: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        documents = frozenset(
            doc.doc_id
            for corpus in (self.source.documents(), *map(self.source.documents_for, self.source.own_corpora))
            for doc in corpus
            if self.texts.has_document(doc)
        )
        queries: set[str] = set()
        for split in self.source.splits:
            qrels = self.source.qrels(split)
            for query in self.source.queries(split):
                judged = qrels.get(query.query_id, {})
                relevant = {doc_id for doc_id, relevance in judged.items() if relevance > 0}
                if self.texts.has_query(query.text) or (relevant and relevant <= documents):
                    queries.add(query.query_id)
        counts = {"excluded_documents": len(documents), "excluded_queries": len(queries)}
        object.__setattr__(self, "_documents", documents)
        object.__setattr__(self, "_queries", frozenset(queries))
        object.__setattr__(self, "_facts", {**self.source.facts, **counts})

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's, and the counts of what is left out."""
        return self._facts

    def documents(self) -> Iterator[Document]:
        """The source's documents but for the excluded ones."""
        return (d for d in self.source.documents() if d.doc_id not in self._documents)

    def documents_for(self, split: str) -> Iterator[Document]:
        """The same of the corpus that a split's judgements are about."""
        return (d for d in self.source.documents_for(split) if not self.texts.has_document(d))

    def queries(self, split: str = "test") -> Iterator[Query]:
        """The source's queries of a split but for the excluded ones."""
        return (q for q in self.source.queries(split) if q.query_id not in self._queries)

    def qrels(self, split: str = "test") -> Qrels:
        """The source's judgements of a split, of what is left."""
        return {
            query_id: {doc_id: grade for doc_id, grade in judged.items() if doc_id not in self._documents}
            for query_id, judged in self.source.qrels(split).items()
            if query_id not in self._queries
        }

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """The source's pairs of what is left; hard negatives whose text is excluded are left out."""
        for pair in self.source.pairs(split, hard_negatives=hard_negatives):
            if pair.query_id not in self._queries and pair.doc_id not in self._documents:
                kept = tuple(text for text in pair.negatives if not self.texts.has_query(text))
                yield pair if len(kept) == len(pair.negatives) else replace(pair, negatives=kept)


@dataclass(frozen=True)
class Slice(View):
    """A collection whose documents are those from number `first` (from 0) to before `last` of the source's."""

    source: Collection
    first: int
    last: int

    def documents(self) -> Iterator[Document]:
        """Those of them, as the source streams them."""
        return islice(self.source.documents(), self.first, self.last)


class Templated(View):
    """A collection whose documents and queries are written out by templates.

    A template names the fields `title` (of documents) and `text`, and any of the metadata; what a text lacks is
    empty, and stray spaces are taken out at both ends. Raises `ForewordError` for a broken template.
    """

    def __init__(self, source: Collection, document: str | None = None, query: str | None = None) -> None:
        self.source = source
        self._document, self._query = document or DOCUMENT, query or QUERY
        for template in (self._document, self._query):
            try:
                names = [name for _, name, spec, conversion in string.Formatter().parse(template) if name is not None]
            except ValueError as error:
                raise ForewordError(f"template {template!r} is broken ({error}); e.g. {DOCUMENT!r}") from error
            if not names or not all(name.isidentifier() for name in names):
                raise ForewordError(f"template {template!r} must name fields, e.g. {DOCUMENT!r}")

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's, and the templates."""
        return {**self.source.facts, "templates": {"document": self._document, "query": self._query}}

    def documents(self) -> Iterator[Document]:
        """The source's documents; the text is what the template makes, and the title goes to the metadata."""
        return map(self._written, self.source.documents())

    def documents_for(self, split: str) -> Iterator[Document]:
        """The corpus that a split's judgements are about, written out."""
        return map(self._written, self.source.documents_for(split))

    def _written(self, doc: Document) -> Document:
        fields = {**doc.metadata, "title": doc.title, "text": doc.text}
        return Document(doc.doc_id, _fill(self._document, fields), "", {**doc.metadata, "name": doc.name})

    def queries(self, split: str = "test") -> Iterator[Query]:
        """The source's queries; the text is what the template makes."""
        for query in self.source.queries(split):
            fields = {**query.metadata, "text": query.text}
            yield Query(query.query_id, _fill(self._query, fields), query.metadata)

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """The source's pairs, written out by the templates. Raises `DataError` for the text of no known document."""
        pairs = list(self.source.pairs(split, hard_negatives=hard_negatives))
        wanted = {text for pair in pairs for text in (pair.document, *pair.negatives)}
        texts: dict[str, str] = {}
        for doc in self.source.documents_for(split):
            if doc.content in wanted:
                texts[doc.content] = self._written(doc).text
        if missing := wanted - set(texts):
            raise DataError(
                f"{self.id}: {len(missing)} texts of its training pairs are not among its documents, so that no "
                "template can write them; leave the document template out"
            )
        queries = {query.query_id: query.text for query in self.queries(split)}
        for pair in pairs:
            negatives = tuple(texts[text] for text in pair.negatives)
            yield replace(pair, query=queries[pair.query_id], document=texts[pair.document], negatives=negatives)


def _fill(template: str, fields: Mapping[str, str]) -> str:
    parts = string.Formatter().parse(template)
    return "".join(before + (fields.get(name, "") if name else "") for before, name, _, _ in parts).strip()


class Unlabelled(View):
    """A collection without its queries and judgements, so that nothing can learn from, or be chosen by, labels."""

    splits: tuple[str, ...] = ()
    exclude_self = False
    own_corpora: tuple[str, ...] = ()

    def __init__(self, collection: Collection) -> None:
        self.source = collection

    def documents_for(self, split: str) -> Iterable[Document]:
        """The corpus."""
        return self.documents()

    def queries(self, split: str = "test") -> Iterable[Query]:
        """None. Raises `DataError`."""
        raise self._refusal()

    def qrels(self, split: str = "test") -> Qrels:
        """None. Raises `DataError`."""
        raise self._refusal()

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterable[TrainingPair]:
        """None. Raises `DataError`."""
        raise self._refusal()

    def _refusal(self) -> DataError:
        return DataError(f"{self.id} is used without its queries and judgements here")


class Labels(View):
    """A collection with given pairs as its training split; its test split as it is, and no dev split."""

    def __init__(self, collection: Collection, pairs: Sequence[TrainingPair]) -> None:
        self.source = collection
        self.given = tuple(pairs)

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, and the source's test split."""
        return ("train", *({"test"} & set(self.source.splits)))

    @property
    def own_corpora(self) -> tuple[str, ...]:
        """Test, where the source's is about another corpus."""
        return tuple({"test"} & set(self.source.own_corpora))

    def documents_for(self, split: str) -> Iterable[Document]:
        """The corpus; for test, the source's."""
        require_split(self.id, split, self.splits)
        return self.source.documents_for(split) if split == "test" else self.documents()

    def queries(self, split: str = "test") -> Iterable[Query]:
        """Of the pairs, each once; of test, the source's."""
        require_split(self.id, split, self.splits)
        if split == "test":
            return self.source.queries(split)
        return [Query(query_id, text) for query_id, text in {p.query_id: p.query for p in self.given}.items()]

    def qrels(self, split: str = "test") -> Qrels:
        """The pairs' documents are relevant; of test, the source's."""
        require_split(self.id, split, self.splits)
        if split == "test":
            return self.source.qrels(split)
        found: dict[str, dict[str, int]] = {}
        for pair in self.given:
            found.setdefault(pair.query_id, {})[pair.doc_id] = 1
        return found

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterable[TrainingPair]:
        """Those given; of test, the source's."""
        require_split(self.id, split, self.splits)
        if split == "test":
            return self.source.pairs(split, hard_negatives=hard_negatives)
        return [replace(pair, negatives=pair.negatives[:hard_negatives]) for pair in self.given]


# `hard-negatives/<split>.jsonl` (or `.gz`) has one line a query, the hardest first:
# `{"query_id": "q1", "doc_ids": ["d7", "d2"], "from": "bm25"}`; `from` names what found them.

FOLDER = "hard-negatives"
"""Their place in a collection's folder."""


def find_hard_negatives(folder: Path) -> dict[str, Path]:
    """`split -> file` of a collection's folder, in the order train, dev, others; empty where there are none."""
    below = Path(folder) / FOLDER
    return split_files(below.iterdir() if below.is_dir() else (), "hard negatives", (".jsonl",))


def read_hard_negatives(path: Path) -> dict[str, tuple[str, ...]]:
    """`query_id -> doc_ids` of one file, in its order; a number is taken as its digits."""
    negatives: dict[str, tuple[str, ...]] = {}
    for line, record in json_lines(Path(path)):
        query_id = _id(record.get("query_id"), "query_id", path, line)
        listed = record.get("doc_ids")
        if not isinstance(listed, list):
            message = f"expected 'doc_ids', a list of ids; this line has the fields {sorted(record)}"
            raise DataError(message, path=path, line=line)
        doc_ids = tuple(_id(value, "doc_ids", path, line) for value in listed)
        if query_id in negatives:
            raise DataError(f"query {query_id!r} is listed twice; keep one line", path=path, line=line)
        if len(set(doc_ids)) < len(doc_ids):
            raise DataError(f"query {query_id!r} lists a document twice; keep one", path=path, line=line)
        negatives[query_id] = doc_ids
    return negatives


def write_hard_negatives(path: Path, negatives: Mapping[str, Sequence[str]], found_by: str) -> Path:
    """Write `query_id -> doc_ids`, the hardest first, with what `found_by` says: `bm25`, `dpr`, or a prompt's name.

    The file is gzipped when its name ends in `.gz`; equal input gives equal bytes.
    """
    path = Path(path)
    lines = (negatives_line(query_id, doc_ids, found_by).encode() for query_id, doc_ids in negatives.items())
    with atomic_write(path, "wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                packed.writelines(lines)
        else:
            file.writelines(lines)
    return path


def negatives_line(query_id: str, doc_ids: Sequence[str], found_by: str) -> str:
    """One line of the file, with its end."""
    return json.dumps({"query_id": query_id, "doc_ids": list(doc_ids), "from": found_by}) + "\n"


def _id(value: Any, name: str, path: Path, line: int) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"expected an id (a text) in {name!r}, got {value!r}", path=path, line=line)
    return str(value)


@dataclass(frozen=True)
class WithNegatives(View):
    """`source` seen with hard negatives for the pairs of one split, in place of any that it has of its own.

    `negatives` is `query_id -> doc_ids`, the hardest first, e.g. from `read_hard_negatives` or mined.
    """

    source: Collection
    negatives: Mapping[str, Sequence[str]]
    split: str = "train"
    _said: set[str] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        require_split(self.source.id, self.split, self.source.splits)

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's, and the number of negatives."""
        count = sum(len(doc_ids) for doc_ids in self.negatives.values())
        return {**self.source.facts, "hard_negatives": {self.split: count}}

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterable[TrainingPair]:
        """The source's pairs; those of the split with at most `hard_negatives` of the negatives' texts.

        A pass over the corpus gathers the texts, which are held. A negative that is judged relevant is left out;
        so is one that the corpus does not have, which is said once.
        """
        if split != self.split or hard_negatives == 0:
            return self.source.pairs(split, hard_negatives=hard_negatives)
        return self._pairs(hard_negatives)

    def _pairs(self, most: int | None) -> Iterator[TrainingPair]:
        qrels = self.source.qrels(self.split)
        chosen: dict[str, list[str]] = {}
        for query_id, doc_ids in self.negatives.items():
            judged = qrels.get(query_id, {})
            chosen[query_id] = [doc_id for doc_id in doc_ids if judged.get(doc_id, 0) <= 0][:most]
        wanted = {doc_id for doc_ids in chosen.values() for doc_id in doc_ids}
        texts = {doc.doc_id: doc.content for doc in self.source.documents_for(self.split) if doc.doc_id in wanted}
        self._say(len(wanted) - len(texts))
        for pair in self.source.pairs(self.split, hard_negatives=0):
            listed = (doc_id for doc_id in chosen.get(pair.query_id, ()) if doc_id != pair.doc_id)
            yield replace(pair, negatives=tuple(texts[doc_id] for doc_id in listed if doc_id in texts))

    def _say(self, missing: int) -> None:
        if missing and not self._said:
            self._said.add("missing")
            message = f"{self.id}: {missing} hard negatives are not in the corpus (another one's, or excluded)"
            warnings.warn(f"{message}; they are left out", DataWarning, stacklevel=3)
