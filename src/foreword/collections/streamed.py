"""A collection that another library reads: streamed from it at every call, checked as a folder's files are."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from foreword.collections.folder import EVERY_QUERY
from foreword.collections.memory import require_split
from foreword.collections.qrels_files import known_judgements
from foreword.collections.records import DataWarning, Document, Qrels, Query, TrainingPair, pairs_from_qrels
from foreword.common.errors import DataError

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


def whole(value: object, where: str) -> int:
    """A grade as a whole number: 1 of 1, 1.0 or "1". Raises `DataError` for any other."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = float("nan")
    if not number.is_integer():
        raise DataError(f"{where}: the score must be a whole number, got {value!r}")
    return int(number)


class Source(Protocol):
    """What is read: every method starts anew at each call."""

    def documents(self) -> Iterator[Document]:
        """The corpus, ids unchecked."""
        ...

    def queries(self) -> Iterator[Query]:
        """Every query, judged or not, ids unchecked."""
        ...

    def judgements(self, split: str, notes: Counter[str]) -> Iterable[tuple[str, str, int]]:
        """`(query_id, doc_id, relevance)` of a split; pairs may repeat and name what is not there.

        What it mends itself it counts in `notes`.
        """
        ...


class StreamedCollection:
    """A `Collection` over a `Source`; ids and judgements are all that is held.

    What is broken but usable is counted in `facts` and said once: judgements of a query or document that is not
    there (skipped), a pair judged twice (the higher grade counts), negative grades (0), documents without text.
    """

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
        self.id, self.group, self.exclude_self = collection_id, group, exclude_self
        self._source = source
        self._splits = tuple(splits)
        self._facts = dict(facts)
        self._qrels: dict[str, Qrels] | None = None
        self._counts: dict[str, int] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits with judgements."""
        return self._splits

    @property
    def facts(self) -> Mapping[str, object]:
        """Where it comes from, and counts of what was broken in what has been read so far."""
        return {**self._facts, **self._counts}

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
        self._note("empty_documents", empty, "documents have no text; they are kept")

    def queries(self, split: str = "test") -> Iterator[Query]:
        """The judged queries of a split, or every query for the split `all`."""
        if split == EVERY_QUERY and split not in self.splits:
            return self._every_query()
        judged = self._judgements(split)
        return (query for query in self._every_query() if query.query_id in judged)

    def qrels(self, split: str = "test") -> Qrels:
        """The judgements of a split, of queries and documents that are there."""
        return {query_id: dict(judged) for query_id, judged in self._judgements(split).items()}

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """Every query of a split with each of its relevant documents; there are no hard negatives."""
        require_split(self.id, split, self.splits)
        return pairs_from_qrels(self, split)

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
        self._note("repeated_queries", repeated, "queries are listed again with the same text; each counts once")

    def _check_id(self, what: str, name: str) -> None:
        if name.split() != [name]:
            message = f"expected an id without blanks (TREC's files cannot hold them), got {name!r}"
            raise DataError(f"{self.id}: {what}: {message}")

    def _judgements(self, split: str) -> Qrels:
        """The judgements of a split; the first call reads all splits and passes once over the corpus."""
        require_split(self.id, split, self.splits)
        if self._qrels is None:
            self._qrels = self._read_qrels()
        return self._qrels[split]

    def _read_qrels(self) -> dict[str, Qrels]:
        notes: Counter[str] = Counter()
        read = {split: self._read_split(split, notes) for split in self.splits}
        wanted = {doc_id for qrels in read.values() for judged in qrels.values() for doc_id in judged}
        documents = {document.doc_id for document in self.documents() if document.doc_id in wanted}
        queries = {query.query_id for query in self._every_query()}
        kept = {split: known_judgements(qrels, queries, documents, notes) for split, qrels in read.items()}
        self._say(notes)
        return kept

    def _read_split(self, split: str, notes: Counter[str]) -> Qrels:
        qrels: Qrels = {}
        for query_id, doc_id, grade in self._source.judgements(split, notes):
            if grade < 0:
                notes["negative_scores"] += 1
            judged = qrels.setdefault(query_id, {})
            if doc_id in judged and judged[doc_id] != max(grade, 0):
                notes["judged_twice"] += 1
            judged[doc_id] = max(grade, 0, judged.get(doc_id, 0))
        return qrels

    def _say(self, notes: Counter[str]) -> None:
        messages = {
            "negative_scores": "scores are negative and taken as 0 (judged, not relevant)",
            "judged_twice": "judgements are repeated with another score; the higher one counts",
            "judgements_of_unknown_queries": "judgements name a query that is not there and were skipped",
            "judgements_of_unknown_documents": "judgements name a document that is not there and were skipped",
        }
        for name, message in messages.items():
            self._note(name, notes[name], message)

    def _note(self, name: str, count: int, message: str) -> None:
        """Keep a count in `facts`, and warn of it once."""
        if count:
            if name not in self._counts:
                warnings.warn(f"{self.id}: {count} {message}", DataWarning, stacklevel=2)
            self._counts[name] = count
