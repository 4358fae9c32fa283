"""Hits of an index, from what Milvus answers, and of two searches in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from foreword.common.errors import UnknownNameError
from foreword.indexing.errors import IndexingError
from foreword.indexing.schema import text_of
from foreword.retrieval.fusion import min_max, reciprocal_rank
from foreword.retrieval.runs import Run, ranked, top_k

Mode = Literal["dense", "bm25", "hybrid"]
"""By vectors, by words, or by both."""
Fusion = Literal["min-max", "reciprocal-rank"]


@dataclass(frozen=True)
class Hit:
    """One document that was found.

    Attributes:
        doc_id: as it was given.
        domain: whose it is.
        score: higher is better: the inner product or the cosine, BM25's score, or the fused one.
        title: of the document.
        text: of the document, without its title; the beginning, where it is longer than Milvus holds.
        metadata: of the document.
        rank: from 1.
    """

    doc_id: str
    domain: str
    score: float
    title: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 1

    @property
    def name(self) -> str:
        """What it is called on screen: its name where it has one, else its title, else its id."""
        return str(self.metadata.get("name") or self.title or self.doc_id)


def hits_of(rows: Sequence[Any], domain: str, *, words: bool = False) -> list[Hit]:
    """One query's hits in trec_eval's order: by score, then doc_id, both descending.

    Args:
        rows: as `Store.search` gives them.
        domain: the one that was searched.
        words: they were found by BM25, whose scores Milvus Lite gives below zero and a server above.

    Raises:
        IndexingError: a hit is of another domain, which would be a fault of the filter.
    """
    found: dict[str, Hit] = {}
    for row in rows:
        entity = row["entity"]
        if entity["domain"] != domain:
            raise IndexingError(f"a search of {domain!r} found a document of {entity['domain']!r}; nothing is shown")
        score = abs(float(row["distance"])) if words else float(row["distance"])
        found[entity["doc_id"]] = Hit(
            entity["doc_id"], domain, score, entity["title"], text_of(entity), dict(entity["metadata"] or {})
        )
    return in_order({doc_id: hit.score for doc_id, hit in found.items()}, found)


def in_order(scores: Mapping[str, float], found: Mapping[str, Hit], k: int | None = None) -> list[Hit]:
    """The hits with these scores, ranked."""
    order = enumerate(ranked(scores, k), start=1)
    return [replace(found[doc_id], score=score, rank=rank) for rank, (doc_id, score) in order]


def fused(dense: Sequence[list[Hit]], words: Sequence[list[Hit]], fusion: Fusion, k: int) -> list[list[Hit]]:
    """The best k of two searches of the same queries, see `foreword.retrieval.fusion`.

    Raises:
        UnknownNameError: no such fusion.
    """
    runs: list[Run] = [
        {str(number): {hit.doc_id: hit.score for hit in hits} for number, hits in enumerate(side)}
        for side in (dense, words)
    ]
    if fusion == "min-max":
        merged = min_max(runs, k=k)
    elif fusion == "reciprocal-rank":
        merged = top_k(reciprocal_rank(runs), k)
    else:
        raise UnknownNameError(f"no fusion {fusion!r}; there are: min-max, reciprocal-rank")
    found = [{hit.doc_id: hit for hit in (*b, *a)} for a, b in zip(dense, words, strict=True)]
    return [in_order(merged.get(str(number), {}), by_id) for number, by_id in enumerate(found)]
