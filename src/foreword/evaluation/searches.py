"""Single searches before and after, to be read: the query, its relevant documents, and both systems' first hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from foreword.collections.records import Collection, Document, Qrels, Query
from foreword.common.errors import DataError
from foreword.evaluation.measures import evaluate_run, first_relevant_ranks
from foreword.retrieval.runs import Run, ranked
from foreword.retrieval.search import Hit

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

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        counts = {"better": self.better, "same": self.same, "worse": self.worse}
        pairs = {"wins": [pair.as_dict() for pair in self.wins], "losses": [pair.as_dict() for pair in self.losses]}
        return {"measure": self.measure, **counts, **pairs}


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

    Args:
        before: the run of the one system.
        after: the run of the other.
        qrels: the judgements of the split.
        collection: holds the texts.
        query_ids: which queries, in the order wanted.
        split: whose queries they are.
        systems: the systems' names.
        hits: how many of each ranking.

    Raises:
        DataError: the split has no such query.
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
    places = [first_relevant_ranks(run, part) for run in (before, after)]

    def shown(pairs: Sequence[tuple[str, float]]) -> tuple[Hit, ...]:
        return tuple(Hit(doc, score, _found(documents, doc)) for doc, score in pairs)

    return [
        SearchPair(
            collection.id,
            queries[query],
            tuple(_found(documents, doc) for doc in good[query]),
            shown(lists[0][query]),
            shown(lists[1][query]),
            (places[0][query], places[1][query]),
            systems,
        )
        for query in query_ids
    ]


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

    Args:
        run_a: before, as the base model's.
        run_b: after, as a prompt's.
        qrels: the judgements of the split.
        collection: holds the texts.
        count: how many wins, and how many losses, at most; equal gains by query_id.
        measure: as ir_measures names it.
        how: `split`, `systems` and `hits`, as for `compare_searches`.

    Raises: as `compare_searches` and `foreword.evaluation.measures.evaluate_run`.
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


def _found(documents: Mapping[str, Document], doc_id: str) -> Document:
    """The document, or one with nothing but its id where the collection lacks it."""
    return documents.get(doc_id) or Document(doc_id, "")


def _snippet(document: Document) -> str:
    return " ".join(document.text.split())[:_SNIPPET]


def _hit(hit: Hit, relevant: set[str]) -> dict[str, Any]:
    return {
        "name": hit.document.name,
        "text": _snippet(hit.document),
        "score": round(hit.score, 4),
        "relevant": hit.doc_id in relevant,
    }
