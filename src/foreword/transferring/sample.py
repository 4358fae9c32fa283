"""A seeded sample of a collection in memory, so that what is measured on it takes a bounded time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from foreword.collections.memory import MemoryCollection, require_split
from foreword.collections.records import Collection, Document
from foreword.collections.resplit import position
from foreword.collections.supervision import headline_split
from foreword.collections.view import documents_for
from foreword.common.errors import DataError


@dataclass(frozen=True)
class Sample:
    """Documents of a collection, with or without a split's labelled queries.

    Attributes:
        collection: the sample, under the collection's id.
        of: how many documents with any text the collection has.
    """

    collection: MemoryCollection
    of: int

    @property
    def documents(self) -> int:
        """In the sample."""
        return len(self.collection.corpus)


def text_sample(target: Collection, limit: int, seed: int) -> Sample:
    """At most `limit` documents of a collection, without its queries and judgements; one pass over the corpus."""
    documents, count = _drawn(target.documents(), limit, seed, frozenset())
    return Sample(MemoryCollection(target.id, target.group, documents, {}, {}), count)


def labelled_sample(target: Collection, split: str, queries: int, limit: int, seed: int) -> Sample:
    """At most `queries` judged queries of a split, all their relevant documents, and others up to `limit`.

    Scores on it are higher than on the whole corpus, of which it leaves out what could be mistaken for relevant.

    Raises:
        DataError: no query has a relevant document.
    """
    relevant = {
        query_id: {doc_id: grade for doc_id, grade in judged.items() if grade > 0}
        for query_id, judged in target.qrels(split).items()
    }
    asked = [query for query in target.queries(split) if relevant.get(query.query_id)]
    places = {query.query_id: (position(query.query_id, "labels", seed), query.query_id) for query in asked}
    chosen = set(heapq.nsmallest(queries, places, key=lambda query_id: places[query_id]))
    wanted = frozenset(doc_id for query_id in chosen for doc_id in relevant[query_id])
    documents, count = _drawn(documents_for(target, split), limit, seed, wanted)
    there = {document.doc_id for document in documents}
    qrels = {
        query_id: kept
        for query_id in sorted(chosen)
        if (kept := {doc_id: grade for doc_id, grade in relevant[query_id].items() if doc_id in there})
    }
    if not qrels:
        raise DataError(f"no query of {target.id}, split {split}, has a relevant document in the corpus")
    texts = tuple(query for query in asked if query.query_id in qrels)
    own = target.exclude_self
    made = MemoryCollection(target.id, target.group, documents, {split: texts}, {split: qrels}, exclude_self=own)
    return Sample(made, count)


def _drawn(
    documents: Iterable[Document], limit: int, seed: int, wanted: frozenset[str]
) -> tuple[tuple[Document, ...], int]:
    """The wanted documents and others up to `limit` (one at least), in the corpus's order; and how many there are.

    Documents without any text are passed over, unless they are wanted. Holds what it draws, and no more.
    """
    count = 0
    kept: list[tuple[int, Document]] = []

    def others() -> Iterator[tuple[float, int, Document]]:
        nonlocal count
        for number, document in enumerate(documents):
            if document.doc_id in wanted:
                kept.append((number, document))
            elif not document.content.strip():
                continue
            else:
                yield position(document.doc_id, "sample", seed), number, document
            count += 1

    drawn = heapq.nsmallest(max(1, limit - len(wanted)), others())
    kept += [(number, document) for _, number, document in drawn]
    return tuple(document for _, document in sorted(kept, key=lambda item: item[0])), count


def label_split(target: Collection, asked: str | None = None) -> str | None:
    """The split whose labels may help to choose: dev, else train; never the one that is reported.

    Args:
        target: a collection, with labels or without.
        asked: a split that is wanted; `none`: no labels; None: the first there is.

    Returns:
        None when there is none.

    Raises:
        DataError: the split asked for is the reported one.
        UnknownNameError: there is no such split.
    """
    if asked == "none":
        return None
    reported = {"test", headline_split(target)}
    if asked is not None:
        if asked in reported:
            raise DataError(f"split {asked!r} of {target.id} is for scoring alone; name dev or train, or none")
        require_split(target.id, asked, target.splits)
        return asked
    return next((split for split in ("dev", "train") if split in target.splits and split not in reported), None)


def training_pairs(target: Collection) -> int:
    """How many labelled pairs `foreword train` has: of the train split, else of a dev split that is not reported."""
    reported = {"test", headline_split(target)}
    split = next((s for s in ("train", "dev") if s in target.splits and s not in reported), None)
    if split is None:
        return 0
    return sum(grade > 0 for judged in target.qrels(split).values() for grade in judged.values())
