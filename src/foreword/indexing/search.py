"""What can be asked of an index: searches by vectors, by words and by both, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from foreword.errors import IndexingError, UnknownNameError
from foreword.indexing.store import DENSE, MOST_HITS, SPARSE, Store, text_of
from foreword.indexing.write import DomainInfo, Facts, check_document_side, described, stamp_of
from foreword.prompts.routes import OWN, Default, Route
from foreword.retrieval.runs import Run, min_max, ranked, reciprocal_rank, top_k

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


# Hits of an index, from what Milvus answers, and of two searches in one.


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
    """The best k of two searches of the same queries, see `foreword.retrieval.runs`.

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


FUSION_DEPTH = 100
"""Hits of each of the two searches that a hybrid one joins, at least."""


class Reader:
    """The side of an `Index` that changes nothing."""

    def __init__(self, store: Store) -> None:
        """See `Index.open`."""
        self._store = store
        self._facts = Facts(store)

    # -- searching -------------------------------------------------------------------------------------------------

    def search(
        self,
        encoder: SentenceTransformer | None,
        queries: Sequence[str],
        domain: str,
        route: Route | Default = OWN,
        k: int = 10,
        mode: Mode = "dense",
        where: str | None = None,
        *,
        fusion: Fusion = "min-max",
        **how: Any,
    ) -> list[list[Hit]]:
        """The best k documents of a domain for each query, best first.

        Args:
            encoder: with the prompt that embedded the domain's documents, or one that leaves documents to the base
                model where that did; None, for `bm25` alone.
            queries: texts.
            domain: where to look.
            route: see `build`.
            k: hits a query.
            mode: by vectors, by words, or both.
            where: a condition in Milvus's language, e.g. `metadata["year"] == "2021"`,
                `TEXT_MATCH(text, "gradient")`.
            fusion: how `hybrid` joins the two.
            how: `precision`, `max_length` and `batch_size` of `foreword.encode`.

        Raises:
            OtherEncoderError: the encoder or the prompt is not what embedded the documents.
            UnknownNameError: no such domain or mode.
        """
        from foreword.prompts.encoder import encode

        if mode not in ("dense", "bm25", "hybrid"):
            raise UnknownNameError(f"no mode {mode!r}; there are: dense, bm25, hybrid")
        if mode == "bm25":
            return self.search_words(queries, domain, k, where)
        if encoder is None:
            raise IndexingError(f"a search by {mode} needs an encoder; only bm25 does without")
        self.check(encoder, domain, route)
        depth = max(k, FUSION_DEPTH) if mode == "hybrid" else k
        vectors = encode(encoder, queries, "query", route=route, quiet=True, **how)
        dense = self.search_vectors(vectors, domain, depth, where)
        return dense if mode == "dense" else fused(dense, self.search_words(queries, domain, depth, where), fusion, k)

    def search_vectors(self, vectors: Any, domain: str, k: int = 10, where: str | None = None) -> list[list[Hit]]:
        """The k documents of a domain nearest to each vector; that they are of the right prompt is yours to `check`.

        Args:
            vectors: (B, d').
            domain: where to look.
            k: hits a vector.
            where: see `search`.
        """
        info = self.info(domain)
        found = np.asarray(vectors, dtype=np.float32)
        if found.ndim != 2 or found.shape[1] != info.dimension:
            raise IndexingError(f"the queries' vectors have the shape {found.shape}; expected (B, {info.dimension})")
        return self._search(list(found), domain, k, where, DENSE, str(self._facts.header["metric"]))

    def search_words(
        self, queries: Sequence[str], domain: str, k: int = 10, where: str | None = None
    ) -> list[list[Hit]]:
        """The k documents of a domain with the best BM25 scores for each query; those without its words are not hits.

        Milvus computes them, with k1 and b of its own; Milvus Lite weighs words by each of its segments apart.
        """
        self.info(domain)
        return self._search(list(queries), domain, k, where, SPARSE, "BM25")

    def _search(
        self, data: list[Any], domain: str, k: int, where: str | None, field: str, metric: str
    ) -> list[list[Hit]]:
        if not 1 <= k <= MOST_HITS:
            raise IndexingError(f"k is {k}; expected 1 to {MOST_HITS:,}")
        if not data:
            return []
        rows = self._store.search(data, field, metric, domain, where, k)
        return [hits_of(found, domain, words=field == SPARSE) for found in rows]

    def check(self, encoder: SentenceTransformer, domain: str, route: Route | Default = OWN) -> DomainInfo:
        """Raise `OtherEncoderError` unless queries by this encoder and route belong to a domain's documents.

        Returns:
            What is known of the domain.
        """
        info = self.info(domain)
        here = stamp_of(encoder, route)
        self._facts.check_backbone(here)
        check_document_side(domain, info.stamp, here)
        return info

    def check_backbone(self, encoder: SentenceTransformer) -> None:
        """Raise `OtherEncoderError` unless the encoder's backbone is what embedded the documents of all domains."""
        self._facts.check_backbone(stamp_of(encoder, None))

    # -- what there is ---------------------------------------------------------------------------------------------

    def info(self, domain: str) -> DomainInfo:
        """What is known of a domain. Raises `UnknownNameError` for one that is not there."""
        return self._facts.info(domain)

    def domains(self) -> dict[str, DomainInfo]:
        """The domains by name, in the order of their names."""
        return self._facts.all()

    def stats(self) -> dict[str, Any]:
        """What `foreword index stats` prints, as JSON values."""
        domains = self.domains()
        path = self._store.path
        size = None if path is None else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        header: Mapping[str, Any] = {} if self._facts.empty else self._facts.header
        return {
            "uri": self._store.uri,
            "collection": self._store.name,
            "server": self._store.version(),
            "backbone": header.get("backbone"),
            "dimension": header.get("dimension"),
            "metric": header.get("metric"),
            "index_type": header.get("index_type") or ("exact" if self._store.local else "AUTOINDEX"),
            "documents": sum(info.documents for info in domains.values()),
            "bytes": size,
            "domains": {
                name: info.as_dict() | {"embedded_by": described(info.stamp)} for name, info in domains.items()
            },
        }
