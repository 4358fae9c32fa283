"""Evaluate an encoder, BM25 or a run on a collection."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreword.collections.collection import Collection, judged_queries
from foreword.errors import UnknownNameError
from foreword.evaluation.measures import DEFAULT_MEASURES, depth, evaluate_run
from foreword.retrieval.runs import Run, drop_self
from foreword.retrieval.search import bm25_run, dense_run

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Result:
    """What a system scores on a collection.

    Attributes:
        collection: its id.
        split: of the judgements.
        queries: judged queries, which the means are over.
        documents: in the corpus.
        measures: measure -> mean.
        per_query: measure -> query_id -> value.
        run: the hits.
        seconds: for embedding and search.
        unanswered: judged queries without a hit; each counts 0.
        unjudged: queries of the run without judgements; left out.
    """

    collection: str
    split: str
    queries: int
    documents: int
    measures: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    run: Run
    seconds: float
    unanswered: int = 0
    unjudged: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The summary, without the run and the values of each query."""
        return {
            "collection": self.collection,
            "split": self.split,
            "queries": self.queries,
            "unanswered": self.unanswered,
            "unjudged": self.unjudged,
            "documents": self.documents,
            "measures": dict(self.measures),
            "seconds": round(self.seconds, 3),
        }


def evaluate(
    collection: Collection,
    system: SentenceTransformer | Run | str = "bm25",
    *,
    split: str = "test",
    measures: Sequence[str] = DEFAULT_MEASURES,
    k: int | None = None,
    **how: Any,
) -> Result:
    """Score a system on a split of a collection.

    Args:
        collection: with judgements in `split`.
        system: an encoder from `foreword.load_encoder` (with the prompt it is routed to), `"bm25"`, or a run.
        split: `train`, `dev` or `test`.
        measures: as ir_measures names them.
        k: hits a query; None: as many as the measures look at, see `depth`.
        how: for an encoder, the further arguments of `foreword.retrieval.search.dense_run`.

    Raises:
        UnknownNameError: the collection has no such split, or there is no such measure.
        DataError: the collection has no judgements.
    """
    queries = judged_queries(collection, split)
    k = depth(measures) if k is None else k
    began = time.perf_counter()
    if isinstance(system, str):
        if system != "bm25":
            raise UnknownNameError(
                f"no system {system!r}; give 'bm25', a run, or an encoder (load_encoder(prompt=...))"
            )
        run = bm25_run(collection, queries, k=k)
    elif isinstance(system, Mapping):
        run = drop_self(system) if collection.exclude_self else system
    else:
        run = dense_run(system, collection, queries, k=k, **how)
    seconds = time.perf_counter() - began
    evaluation = evaluate_run(run, collection.qrels(split), measures)
    documents = sum(1 for _ in collection.documents())
    return Result(
        collection.id,
        split,
        evaluation.queries,
        documents,
        evaluation.values,
        evaluation.per_query,
        run,
        seconds,
        evaluation.unanswered,
        evaluation.unjudged,
    )
