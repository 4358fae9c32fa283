"""Two systems on single queries, to be read: which words of a query moved a document, and what each system found.

A word's part is found by leaving it out and looking again, with and without a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foreword.collections.collection import Collection, Document, Qrels, Query
from foreword.errors import DataError, UnknownNameError
from foreword.evaluation.candidates import document_key
from foreword.evaluation.measures import evaluate_run, first_relevant_ranks
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.routes import OWN, Default, Route
from foreword.retrieval.runs import Run, ranked
from foreword.retrieval.search import Hit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


Array = np.ndarray[Any, np.dtype[np.float32]]

_BLOCK = 8192  # documents scored at a time: 24 MiB of float64 at width 384


@dataclass(frozen=True)
class TwoViews:
    """Documents as the base model and as a prompt (`route`) see them, (N, d') each; see `embed_views`.

    Both are one array where the prompt leaves documents to the base model.
    """

    doc_ids: tuple[str, ...]
    base: Array
    prompted: Array
    route: Route

    def without(self, doc_id: str) -> TwoViews:
        """The views without one of the documents; it may be missing."""
        if doc_id not in self.doc_ids:
            return self
        place = self.doc_ids.index(doc_id)
        base = np.delete(self.base, place, axis=0)
        prompted = base if self.prompted is self.base else np.delete(self.prompted, place, axis=0)
        return replace(self, doc_ids=self.doc_ids[:place] + self.doc_ids[place + 1 :], base=base, prompted=prompted)


@dataclass(frozen=True)
class Standing:
    """How a document stands for a query."""

    score: float
    margin: float
    """Its score less the best other document's: above 0 it is first."""
    rank: int
    """From 1, ties as trec_eval breaks them."""


@dataclass(frozen=True)
class WordInfluence:
    """What one word does: the margin with the whole query less the margin without the word; above 0 it helps."""

    word: str
    start: int
    """Its place in the query, in characters."""
    base: float
    """With the base model."""
    prompted: float
    """With the prompt."""
    gain: float
    """`prompted - base`: how much of the prompt's gain comes by this word."""
    without_base: Standing
    """The document's standing without the word, with the base model."""
    without_prompted: Standing
    """The same with the prompt."""


@dataclass(frozen=True)
class Influence:
    """The words of a query, in order, and how the document stands for the whole of it."""

    query: str
    doc_id: str
    base: Standing
    prompted: Standing
    words: tuple[WordInfluence, ...]

    @property
    def gain(self) -> float:
        """The margin with the prompt less the margin with the base model."""
        return self.prompted.margin - self.base.margin

    def as_dict(self) -> dict[str, Any]:
        """JSON values, the gain among them."""
        return {**asdict(self), "gain": self.gain}


def embed_views(
    encoder: SentenceTransformer, documents: Iterable[Document], *, route: Route | Default = OWN, **how: Any
) -> TwoViews:
    """Embed documents by the base model and by a prompt: once, where both give documents the same vectors.

    There are two documents at least (else `DataError`): a corpus that fits in memory, or the best hits of both systems.
    `route` is the prompt or mixture; OWN: what the encoder is routed to. `how` goes to `encode`.
    """
    found = list(documents)
    if len(found) < 2:
        raise DataError(f"{len(found)} documents; how one stands takes at least one other")
    chosen = transformer_of(encoder).route if isinstance(route, Default) else route
    texts = [doc.content for doc in found]
    base = encode(encoder, texts, "document", route=None, **{"quiet": True, **how})
    same = document_key(encoder, chosen) == document_key(encoder, None)
    prompted = base if same else encode(encoder, texts, "document", route=chosen, **{"quiet": True, **how})
    return TwoViews(tuple(doc.doc_id for doc in found), base, prompted, chosen)


def token_influence(encoder: SentenceTransformer, query: str, views: TwoViews, doc_id: str, **how: Any) -> Influence:
    """How each word of a query moves a document, with the base model and with the prompt of `views`.

    Words are parted by white space. A word that occurs twice is left out once at a time. All the shorter queries are
    encoded together. Words do not add up: leaving out two is not the sum of leaving out either.

    `doc_id` is the document to watch, as a relevant one; `how` goes to `encode`, as `max_length`. `UnknownNameError`:
    `views` have no such document. `DataError`: the query has no word.
    """
    if doc_id not in views.doc_ids:
        raise UnknownNameError(f"no document {doc_id!r} among the {len(views.doc_ids)} given; embed it with them")
    words = list(re.finditer(r"\S+", query))
    if not words:
        raise DataError("the query is empty; give one with words")
    # Without a word goes the white space behind it, or before it where it is the last.
    texts = [query, *((query[: w.start()] + query[w.end() :].lstrip()).rstrip() for w in words)]
    base, prompted = (
        _standings(encode(encoder, texts, "query", route=route, **{"quiet": True, **how}), vectors, views, doc_id)
        for route, vectors in ((None, views.base), (views.route, views.prompted))
    )
    effects = []
    for word, plain, tuned in zip(words, base[1:], prompted[1:], strict=True):
        own, new = base[0].margin - plain.margin, prompted[0].margin - tuned.margin
        effects.append(WordInfluence(word[0], word.start(), own, new, new - own, plain, tuned))
    return Influence(query, doc_id, base[0], prompted[0], tuple(effects))


def _standings(queries: Array, documents: Array, views: TwoViews, doc_id: str) -> Sequence[Standing]:
    """How the document stands for each of the queries (Q, d') among all (N, d')."""
    wide = queries.astype(np.float64)
    blocks = [documents[first : first + _BLOCK] for first in range(0, len(documents), _BLOCK)]
    scores = np.concatenate([wide @ block.astype(np.float64).T for block in blocks], axis=1).astype(np.float32)
    place = views.doc_ids.index(doc_id)
    ahead = np.array([other > doc_id for other in views.doc_ids])  # of equal scores the greater id comes first
    own = scores[:, place]
    ranks = 1 + (scores > own[:, None]).sum(axis=1) + ((scores == own[:, None]) & ahead).sum(axis=1)
    others = np.delete(scores, place, axis=1).max(axis=1)
    margins = own.astype(np.float64) - others
    return [Standing(*line) for line in zip(own.tolist(), margins.tolist(), ranks.tolist(), strict=True)]


_SNIPPET = 300  # characters of a document's text


@dataclass(frozen=True)
class SearchPair:
    """One query as two systems answer it."""

    collection: str
    query: Query
    relevant: tuple[Document, ...]
    """A document that is judged but not in the collection has its id for a name and no text."""
    before: tuple[Hit, ...]
    after: tuple[Hit, ...]
    ranks: tuple[int | None, int | None]
    """Of the first relevant document, before and after; None: not among the run's hits."""
    systems: tuple[str, str]
    gain: float | None = None
    """What the measure gained, where one was looked at."""

    def as_dict(self) -> dict[str, Any]:
        """A record of the report's searches: JSON values, texts shortened."""
        relevant = {doc.doc_id for doc in self.relevant}
        first = self.relevant[0] if self.relevant else None
        return {
            "query": self.query.text,
            "query_id": self.query.query_id,
            "collection": self.collection,
            "relevant": ", ".join(doc.name for doc in self.relevant),
            "relevant_text": "" if first is None else _snippet(first),
            "before": [_hit(hit, relevant) for hit in self.before],
            "after": [_hit(hit, relevant) for hit in self.after],
            "before_system": self.systems[0],
            "after_system": self.systems[1],
            "ranks": list(self.ranks),
            **({} if self.gain is None else {"gain": self.gain}),
        }


@dataclass(frozen=True)
class WinsAndLosses:
    """The queries that a system changes most, and how many it changes at all."""

    measure: str
    wins: tuple[SearchPair, ...]
    """By falling gain."""
    losses: tuple[SearchPair, ...]
    """By rising gain."""
    better: int
    same: int
    worse: int


def compare_searches(
    before: Run,
    after: Run,
    qrels: Qrels,
    collection: Collection,
    query_ids: Sequence[str],
    *,
    split: str = "test",
    systems: tuple[str, str] = ("before", "after"),
    hits: int = 3,
) -> list[SearchPair]:
    """The searches of some queries by two systems; one pass over the collection's documents.

    They are in the order of `query_ids`, with `hits` of each ranking. `DataError`: the split has no such query.
    """
    queries = {query.query_id: query for query in collection.queries(split)}
    unknown = [query_id for query_id in query_ids if query_id not in queries]
    if unknown:
        raise DataError(f"{collection.id} has no query {unknown[0]!r} in {split}; give ids of that split")
    good = {query: [doc for doc, grade in qrels.get(query, {}).items() if grade > 0] for query in query_ids}
    lists = [{query: ranked(run.get(query, {}), hits) for query in query_ids} for run in (before, after)]
    wanted = {doc for docs in good.values() for doc in docs}
    wanted |= {doc for found in lists for pairs in found.values() for doc, _ in pairs}
    documents = {doc.doc_id: doc for doc in collection.documents() if doc.doc_id in wanted}
    part = {query: qrels.get(query, {}) for query in query_ids}
    first, second = (first_relevant_ranks(run, part) for run in (before, after))
    told = []
    for query in query_ids:
        relevant = tuple(documents.get(doc) or Document(doc, "") for doc in good[query])  # one lacking: its id alone
        shown = [
            tuple(Hit(doc, score, documents.get(doc) or Document(doc, "")) for doc, score in found[query])
            for found in lists
        ]
        ranks = (first[query], second[query])
        told.append(SearchPair(collection.id, queries[query], relevant, shown[0], shown[1], ranks, systems))
    return told


def wins_and_losses(
    run_a: Run,
    run_b: Run,
    qrels: Qrels,
    collection: Collection,
    count: int = 5,
    *,
    measure: str = "nDCG@10",
    **how: Any,
) -> WinsAndLosses:
    """The queries on which run b is better, and worse, than run a by most.

    Wins and losses are `count` each, at most; equal gains by query_id. `how` are `split`, `systems` and `hits`, as for
    `compare_searches`; errors are those of it and of `foreword.evaluation.measures.evaluate_run`.
    """
    values = [next(iter(evaluate_run(run, qrels, [measure]).per_query.values())) for run in (run_a, run_b)]
    gains = {query: values[1][query] - values[0][query] for query in values[0]}
    rising = sorted((gain, query) for query, gain in gains.items())
    losses = [query for gain, query in rising if gain < 0][:count]
    wins = [query for _, query in sorted((-gain, query) for gain, query in rising if gain > 0)][:count]
    pairs = compare_searches(run_a, run_b, qrels, collection, [*wins, *losses], **how)
    told = tuple(replace(pair, gain=gains[pair.query.query_id]) for pair in pairs)
    better, worse = sum(gain > 0 for gain in gains.values()), sum(gain < 0 for gain in gains.values())
    return WinsAndLosses(measure, told[: len(wins)], told[len(wins) :], better, len(gains) - better - worse, worse)


def _snippet(document: Document) -> str:
    return " ".join(document.text.split())[:_SNIPPET]


def _hit(hit: Hit, relevant: set[str]) -> dict[str, Any]:
    return {
        "name": hit.document.name,
        "text": _snippet(hit.document),
        "score": round(hit.score, 4),
        "relevant": hit.doc_id in relevant,
    }
