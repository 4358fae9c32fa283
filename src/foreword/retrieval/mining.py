"""Hard negatives from what a retriever ranks high: near misses teach more than random documents.

Many of the best hits that nobody judged are relevant all the same. The guard against them is the one of
NV-Retriever (de Souza Moreira et al., 2024, arXiv 2407.15831, "positive-aware mining"): no negative may score
near or above the query's relevant document.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from foreword.collections.collection import Collection, Document, Qrels, Query, normalise
from foreword.errors import DataError, ForewordError
from foreword.retrieval.bm25 import BM25
from foreword.retrieval.runs import Run, ranked

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_Corpus = Callable[[], Iterable[Document]]

DEPTH = 100
COUNT = 8
RELATIVE_MARGIN = 0.05
"""A negative scores at most 95 % of the relevant document's score, as NV-Retriever's authors recommend."""

_DROPPED = ("dropped_by_relevance", "dropped_by_copy", "dropped_by_margin", "dropped_own")
_COUNTED = ("queries", "negatives", *_DROPPED, "relevant_not_found", "queries_without_negatives")


@dataclass(frozen=True)
class Guard:
    """How high a hit may score; with both margins, it must pass both, and with neither, every score passes."""

    margin: float | None = None
    """Below the best relevant document's score by at least so much, in the score's own unit."""
    relative_margin: float | None = RELATIVE_MARGIN
    """Below it by at least this share of it, 0 to 1; for scores that are never far below 0."""

    def __post_init__(self) -> None:
        if self.margin is not None and not self.margin >= 0:
            raise ForewordError(f"margin is {self.margin}; expected 0 or more")
        if self.relative_margin is not None and not 0 <= self.relative_margin <= 1:
            raise ForewordError(f"relative_margin is {self.relative_margin}; expected 0 to 1")

    def passes(self, score: float, relevant: float) -> bool:
        """Whether a hit's score is low enough, given the best relevant document's."""
        below = [self.margin, None if self.relative_margin is None else abs(relevant) * self.relative_margin]
        return all(score <= relevant - least for least in below if least is not None)


@dataclass(frozen=True)
class Mined:
    """What `mine` found."""

    negatives: dict[str, tuple[str, ...]]
    """`query_id -> doc_ids`, the hardest first; queries without any are not in it."""
    counts: dict[str, int]
    """`queries` looked at, `negatives` in all, hits `dropped_...` for each reason before a query had enough,
    queries whose `relevant_not_found` among the hits, `queries_without_negatives`."""


def mine(
    collection: Collection,
    retriever: SentenceTransformer | Run | None = None,
    *,
    split: str = "train",
    depth: int = DEPTH,
    skip: int = 0,
    count: int = COUNT,
    margin: float | None = None,
    relative_margin: float | None = RELATIVE_MARGIN,
    **how: Any,
) -> Mined:
    """Hard negatives for the queries of a split, from the corpus that its judgements are about.

    A hit is no negative when it is judged relevant, is the query's own document (in collections where queries are
    documents), says the same as a relevant document or the query (equal after `normalise`), or scores too high
    (see `Guard`; a hit judged not relevant may score as it likes).

    A relevant document that is not among the hits is scored all the same: by its vector, or by BM25. Where a run
    is given its score is not known, and the lowest hit's takes its place (below which, with a margin, nothing is).

    Args:
        collection: with judgements in `split`.
        retriever: an encoder, with the prompt it is routed to; None: BM25; or a run of the split's queries.
        split: any but `test`.
        depth: hits looked at for a query.
        skip: the first hits that are passed over.
        count: negatives a query, at most.
        margin: see `Guard`.
        relative_margin: see `Guard`.
        how: further arguments of `dense_run` (route, vectors, lengths, precision...), for an encoder. Documents are
            searched by their beginnings unless `passages` are asked for: these are what is trained on.

    Raises:
        DataError: the split is `test`, or there is no negative for any query.
        UnknownNameError: the collection has no such split.
        ForewordError: a number is out of its range.
    """
    if split == "test":
        raise DataError(f"{collection.id}: hard negatives are for training, and test queries are for scoring alone")
    if not 0 <= skip < depth or count < 1:
        message = f"depth={depth}, skip={skip}, count={count}; expected 0 <= skip < depth and count at least 1"
        raise ForewordError(message)
    if how and (retriever is None or isinstance(retriever, Mapping)):
        raise ForewordError(f"{', '.join(how)}: for an encoder only, and BM25 or a run was given")
    guard = Guard(margin, relative_margin)
    qrels, corpus = collection.qrels(split), partial(collection.documents_for, split)
    queries = [query for query in collection.queries(split) if _relevant(qrels, query.query_id)]
    if isinstance(retriever, Mapping):
        given: Run = {query.query_id: retriever.get(query.query_id, {}) for query in queries}
        run = {query_id: dict(ranked(hits, depth)) for query_id, hits in given.items()}
        best = {query_id: _best(hits, qrels, query_id) for query_id, hits in given.items()}
    elif retriever is None:
        run, best = _by_bm25(corpus, queries, qrels, depth, exclude_self=collection.exclude_self)
    else:
        run, best = _by_encoder(retriever, collection, corpus, queries, qrels, depth, how)
    mined = _choose(collection, corpus, queries, qrels, run, best, guard, skip, count)
    if not mined.negatives:
        counted = ", ".join(f"{name} {number}" for name, number in mined.counts.items())
        raise DataError(
            f"{collection.id} ({split}): no hard negative was found for any query ({counted}); "
            "a looser margin or a greater depth lets more hits pass"
        )
    return mined


def _choose(
    collection: Collection,
    corpus: _Corpus,
    queries: Sequence[Query],
    qrels: Qrels,
    run: Run,
    best: Mapping[str, float | None],
    guard: Guard,
    skip: int,
    count: int,
) -> Mined:
    """The negatives among the hits of a run, given the score of each query's best relevant document.

    Where that is not known (None) the lowest hit's counts. The corpus is gone through once, for the texts of hits and
    relevant documents; digests of them are held.
    """
    counts = Counter(dict.fromkeys(_COUNTED, 0))
    wanted = {doc_id for query in queries for doc_id in run.get(query.query_id, {})}
    wanted.update(doc_id for query in queries for doc_id in _relevant(qrels, query.query_id))
    texts = {  # digests of what a document says, with and without its title
        doc.doc_id: frozenset(_digest(text) for text in map(normalise, (doc.content, doc.text)) if text)
        for doc in corpus()
        if doc.doc_id in wanted
    }
    negatives: dict[str, tuple[str, ...]] = {}
    for query in queries:
        query_id, hits = query.query_id, run.get(query.query_id, {})
        relevant = _relevant(qrels, query_id)
        own = query_id if collection.exclude_self else None
        same = {_digest(normalise(query.text))}.union(*(texts.get(doc_id, ()) for doc_id in relevant))
        top = best.get(query_id)
        limit = min(hits.values(), default=0.0) if top is None else top
        judged = qrels[query_id]
        chosen: list[str] = []
        for doc_id, score in list(hits.items())[skip:]:
            if len(chosen) == count:
                break
            if doc_id == own:
                counts["dropped_own"] += 1
            elif doc_id in relevant:
                counts["dropped_by_relevance"] += 1
            elif not same.isdisjoint(texts.get(doc_id, ())):
                counts["dropped_by_copy"] += 1
            elif doc_id not in judged and not guard.passes(score, limit):
                counts["dropped_by_margin"] += 1
            else:
                chosen.append(doc_id)
        counts["queries"] += 1
        counts["negatives"] += len(chosen)
        counts["relevant_not_found"] += relevant.isdisjoint(hits)
        counts["queries_without_negatives"] += not chosen
        if chosen:
            negatives[query_id] = tuple(chosen)
    return Mined(negatives, dict(counts))


def _relevant(qrels: Qrels, query_id: str) -> set[str]:
    return {doc_id for doc_id, relevance in qrels.get(query_id, {}).items() if relevance > 0}


def _best(scores: Mapping[str, float], qrels: Qrels, query_id: str) -> float | None:
    """The greatest score of a relevant document; None when there is none."""
    return max((scores[doc_id] for doc_id in _relevant(qrels, query_id) if doc_id in scores), default=None)


def _by_bm25(
    corpus: _Corpus, queries: Sequence[Query], qrels: Qrels, depth: int, *, exclude_self: bool
) -> tuple[Run, dict[str, float | None]]:
    index = BM25(corpus())
    run = index.search(queries, depth, exclude_self=exclude_self)
    best: dict[str, float | None] = {}
    for query in queries:
        query_id = query.query_id
        best[query_id] = _best(run[query_id], qrels, query_id)
        if best[query_id] is None:  # every document that shares a word with the query; the others score 0
            everything = index.search([query], len(index))[query_id]
            best[query_id] = _best(everything, qrels, query_id) or 0.0
    return run, best


def _by_encoder(
    encoder: SentenceTransformer,
    collection: Collection,
    corpus: _Corpus,
    queries: Sequence[Query],
    qrels: Qrels,
    depth: int,
    how: Mapping[str, Any],
) -> tuple[Run, dict[str, float | None]]:
    from foreword.retrieval.search import dense_run

    how = {"passages": False, **how}
    run = dense_run(encoder, collection, queries, documents=corpus(), k=depth, **how)
    best = {query.query_id: _best(run[query.query_id], qrels, query.query_id) for query in queries}
    missed = [query for query in queries if best[query.query_id] is None]
    if missed:  # search their relevant documents alone
        wanted = {doc_id for query in missed for doc_id in _relevant(qrels, query.query_id)}
        if (vectors := how.get("vectors")) is not None:
            places = [place for place, doc_id in enumerate(vectors[0]) if doc_id in wanted]
            how = {**how, "vectors": ([vectors[0][place] for place in places], vectors[1][places])}
        found = [doc for doc in corpus() if doc.doc_id in wanted]
        relevant = dense_run(encoder, collection, missed, documents=found, k=len(wanted), **how)
        best |= {query.query_id: _best(relevant[query.query_id], qrels, query.query_id) for query in missed}
    return run, best


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
