"""The records that every collection speaks in, and the collection itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Qrels = dict[str, dict[str, int]]
"""Judgements: `query_id -> doc_id -> relevance`; relevance 0 is judged and not relevant."""

SPLITS = ("train", "dev", "test")


class DataWarning(UserWarning):
    """Something in a collection's files was skipped or mended, as is the field's convention; said once."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document; `metadata` is shown with hits and never embedded."""

    doc_id: str
    text: str
    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def content(self) -> str:
        """What is embedded and indexed: `<title> <text>`, as BEIR does, without stray spaces."""
        return f"{self.title} {self.text}".strip() if self.title else self.text

    @property
    def name(self) -> str:
        """What it is called on screen: its name where it has one, else its title, else its id."""
        return self.metadata.get("name") or self.title or self.doc_id


@dataclass(frozen=True, slots=True)
class Query:
    """One query."""

    query_id: str
    text: str
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A query with one relevant document and, when the collection has them, hard negatives (texts)."""

    query_id: str
    query: str
    doc_id: str
    document: str
    negatives: tuple[str, ...] = ()


class Collection(Protocol):
    """Documents, queries and judgements of one domain.

    Every method can be called again and again and gives its items in the same order; nothing holds the
    corpus a second time.
    """

    @property
    def id(self) -> str:
        """As given to `foreword.load`, e.g. `pydoc/torch`."""
        ...

    @property
    def group(self) -> str:
        """The family it belongs to, e.g. `pydoc`."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of `train`, `dev` and `test` have judgements."""
        ...

    @property
    def exclude_self(self) -> bool:
        """Queries are documents too (ArguAna, Quora): a hit whose doc_id is the query_id is left out."""
        ...

    @property
    def facts(self) -> Mapping[str, object]:
        """What a result should record besides: counts of dropped items, versions, licence."""
        ...

    def documents(self) -> Iterable[Document]:
        """The corpus."""
        ...

    def queries(self, split: str = "test") -> Iterable[Query]:
        """The judged queries of a split. Raises `UnknownNameError` for a split that is not there."""
        ...

    def qrels(self, split: str = "test") -> Qrels:
        """The judgements of a split."""
        ...

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterable[TrainingPair]:
        """The (query, relevant document) pairs of a split, for training.

        Each brings at most `hard_negatives` negatives (None: all there are), or fewer when there are no more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue: a collection that `foreword.load` knows by name."""

    id: str
    group: str
    description: str
    splits: tuple[str, ...]
    """The splits it has when its files are there."""
    available: bool
    """Its files (or its package) are on this machine."""
    licence: str = ""
    home: str = ""
    """Where it comes from: a URL, or empty."""
    documents: int | None = None
    """In the corpus; None: not known before it is read."""
    queries: Mapping[str, int] = field(default_factory=dict)
    """Judged queries by split, as far as known."""
    size: int | None = None
    """Bytes to download; None: not known, or nothing to download."""
    citation: str = ""


def pairs_from_qrels(
    collection: Collection, split: str, negatives: Mapping[str, Sequence[str]] | None = None
) -> Iterator[TrainingPair]:
    """The pairs of a collection that has none of its own: every query with each of its relevant documents.

    Holds the texts of the relevant documents, and of the negatives, only.

    Args:
        collection: with judgements in `split`.
        split: of the pairs.
        negatives: doc_ids of hard negatives by query_id; ids that are not in the corpus are passed over.
    """
    negatives = negatives or {}
    qrels = collection.qrels(split)
    wanted = {doc for judged in qrels.values() for doc, relevance in judged.items() if relevance > 0}
    wanted.update(doc for query_id in qrels for doc in negatives.get(query_id, ()))
    texts = {doc.doc_id: doc.content for doc in collection.documents() if doc.doc_id in wanted}
    for query in collection.queries(split):
        judged = qrels.get(query.query_id, {})
        others = tuple(
            texts[doc] for doc in negatives.get(query.query_id, ()) if doc in texts and judged.get(doc, 0) <= 0
        )
        for doc_id, relevance in judged.items():
            if relevance > 0:
                yield TrainingPair(query.query_id, query.text, doc_id, texts[doc_id], others)


def fingerprint(collection: Collection, splits: Iterable[str] | None = None) -> str:
    """SHA-256 over the documents and the queries and judgements of splits (None: all): 64 hexadecimal digits.

    Two results can be compared only when their collections' fingerprints are equal.
    """
    digest = hashlib.sha256()

    def add(*fields: str) -> None:
        digest.update("\x1f".join(fields).encode("utf-8", "surrogatepass") + b"\x1e")

    for doc in collection.documents():
        add("d", doc.doc_id, doc.title, doc.text)
    for split in collection.splits if splits is None else splits:
        for query in collection.queries(split):
            add("q", split, query.query_id, query.text)
        for query_id, judged in sorted(collection.qrels(split).items()):
            for doc_id, relevance in sorted(judged.items()):
                add("j", split, query_id, doc_id, str(relevance))
    return digest.hexdigest()
