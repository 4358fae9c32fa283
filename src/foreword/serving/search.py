"""What is searched: collections in memory, or a Milvus index, behind one protocol."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Collection as AnyCollection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from foreword.collections.collection import Collection, Document, Query
from foreword.collections.folder import folder_of
from foreword.errors import DataError, RequestError
from foreword.evaluation.hybrid import HybridWeight, weigh
from foreword.indexing import DomainInfo, Index, OtherEncoderError
from foreword.indexing.index import IndexHit, fused
from foreword.indexing.store import quoted
from foreword.retrieval.bm25 import BM25
from foreword.retrieval.passages import Coverage, Cutter, Passage
from foreword.retrieval.runs import DEPTH, Run, hybrid
from foreword.retrieval.search import BestRows, exact_search
from foreword.serving.batcher import Array
from foreword.serving.prompts import Way
from foreword.settings import SIDES

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


logger = logging.getLogger(__name__)

Where = Mapping[str, Any]
"""A filter by metadata: field -> the value it has, or a list of which it has one."""

Systems = Mapping[str, tuple[Way, Way]]
"""Dense system -> what encodes queries and documents."""

Hits = list[list[IndexHit]]
"""Each query's documents, best first."""

Embed = Callable[[Sequence[str], Way], Array]
"""Embeds texts, waiting for it; not to be called in the event loop."""

BLOCK = 256
"""Passages that are embedded in one request to the batcher, so that requests of users take turns with them."""


@dataclass(frozen=True)
class Searchable:
    """A domain that can be searched.

    Attributes:
        documents: how many there are; None: not known.
        systems: that search it.
        folder: the absolute path of the one that its documents' files lie in; empty: none.
        weight: how much words count in `hybrid`; None: it is not among the systems.
    """

    documents: int | None
    systems: tuple[str, ...]
    folder: str = ""
    weight: HybridWeight | None = None

    @classmethod
    def by(cls, documents: int | None, dense: Iterable[str], folder: str, weight: HybridWeight) -> Searchable:
        """What some dense systems search, and BM25; and both, where there are both."""
        names = list(dense)
        return cls(documents, (*names, "bm25", *(["hybrid"] if names else [])), folder, weight if names else None)


def half(dense: Iterable[str]) -> str:
    """The dense system that is one half of `hybrid`: the prompt where there is one."""
    return "prompt" if "prompt" in dense else "base"


class Searcher(Protocol):
    """Finds documents of some domains."""

    def domains(self) -> Mapping[str, Searchable]:
        """What can be searched."""
        ...

    def search(self, queries: Sequence[str], domain: str, system: str, k: int, where: Where | None) -> Hits:
        """The k best documents of each query by one of the domain's systems: `base`, `prompt`, `bm25` or `hybrid`."""
        ...


@dataclass(frozen=True)
class Embedded:
    """A collection's documents, as one way embedded them.

    Attributes:
        ids: the document of each vector; a document's own follow one another.
        vectors: (N, d').
        passages: of the documents that have several, by id, without their texts.
    """

    ids: Sequence[str]
    vectors: Array
    passages: Mapping[str, Sequence[Passage]]

    def of(self, doc_ids: AnyCollection[str]) -> tuple[Sequence[str], Array]:
        """The ids and vectors of some documents."""
        rows = [row for row, doc_id in enumerate(self.ids) if doc_id in doc_ids]
        return [self.ids[row] for row in rows], self.vectors[rows]


class Held:
    """A collection in memory: its documents, its BM25 index, and its vectors by the ways that embedded them."""

    def __init__(self, collection: Collection) -> None:
        """Read the documents. Raises `DataError` when there are none."""
        self.collection, self.id, self.folder = collection, collection.id, folder_of(collection)
        self.documents: dict[str, Document] = {doc.doc_id: doc for doc in collection.documents()}
        if not self.documents:
            raise DataError(f"{collection.id} has no documents, so there is nothing to search")
        self.ids = list(self.documents)
        self.bm25 = BM25(self.documents.values())
        self.vectors: dict[Way, Embedded] = {}
        self.weights: dict[tuple[Way, Way], HybridWeight] = {}

    def embed(self, way: Way, embed: Embed, encoder: SentenceTransformer, *, passages: bool) -> None:
        """Have the vectors of a way, unless they are there; of long documents in passages, cut as `encoder` now is."""
        if way not in self.vectors:
            logger.info("embedding the %d documents of %s", len(self.documents), self.id)
            coverage = Coverage()
            ids: list[str] = []
            vectors: list[Array] = []
            several: dict[str, list[Passage]] = {}
            cut = Cutter(encoder, passages=passages, coverage=coverage)
            for block in cut.blocks(self.documents.values(), BLOCK):
                vectors += [
                    embed([one.content for one in block[i : i + BLOCK]], way) for i in range(0, len(block), BLOCK)
                ]
                ids += [one.doc_id for one in block]
                for one in block:
                    if one.of > 1:
                        several.setdefault(one.doc_id, []).append(replace(one, content=""))
            self.vectors[way] = Embedded(ids, np.concatenate(vectors), several)
            if coverage.whole < coverage.documents:
                logger.info("%s: %s", self.id, coverage)

    def weigh(self, ways: tuple[Way, Way], embed: Embed, *, shares: bool) -> None:
        """Have the weight of BM25 beside what encodes queries and documents, unless it is there.

        For `shares` see `foreword.retrieval.runs.hybrid`; they are for cosines.
        """
        if ways not in self.weights:
            sides = dict(zip(SIDES, ways, strict=True))

            def both(queries: Sequence[Query]) -> tuple[Run, Run]:
                vectors = embed([query.text for query in queries], sides["query"])
                ids, embedded = [query.query_id for query in queries], self.vectors[sides["document"]]
                how: dict[str, Any] = {"document_ids": embedded.ids, "best_rows": {}}
                how["exclude_self"] = self.collection.exclude_self
                dense = exact_search(vectors, ids, embedded.vectors, DEPTH, **how)
                return dense, self.bm25.search(queries, DEPTH, self.collection.exclude_self, shares=shares)

            chosen = weigh(self.collection, lambda texts, side: embed(texts, sides[side]), both, shares=shares)
            logger.info("%s: %s", self.id, chosen)
            self.weights[ways] = chosen

    def forget(self, ways: set[Way]) -> None:
        """Keep the vectors of these ways alone."""
        self.vectors = {way: vectors for way, vectors in self.vectors.items() if way in ways}

    def matching(self, where: Where | None) -> list[int]:
        """The places of the documents with such metadata."""
        wanted = {name: value if isinstance(value, list) else [value] for name, value in (where or {}).items()}
        return [
            place
            for place, document in enumerate(self.documents.values())
            if all(name in document.metadata and document.metadata[name] in values for name, values in wanted.items())
        ]

    def hit(self, doc_id: str, score: float, rank: int, passage: Passage | None) -> IndexHit:
        """A document as it is answered, or the passage of it that was found."""
        document = self.documents[doc_id]
        text, place = document.text, None
        if passage is not None:
            text, place = text[passage.start : passage.end], passage.place
        return IndexHit(doc_id, self.id, score, document.title, text, dict(document.metadata), rank, place)


@dataclass(frozen=True)
class MemorySearcher:
    """Exact search of collections in memory; of one state of the prompts, and unchanged after it is made.

    `vectors` are of this state, by collection and way, whatever is embedded and let go since.
    """

    held: Mapping[str, Held]
    vectors: Mapping[str, Mapping[Way, Embedded]]
    ways: Mapping[str, Systems]
    weights: Mapping[str, HybridWeight]
    embed: Embed
    shares: bool

    def domains(self) -> Mapping[str, Searchable]:
        """The collections; each by its dense systems, BM25, and both."""
        return {
            name: Searchable.by(len(held.documents), self.ways[name], held.folder, self.weights[name])
            for name, held in self.held.items()
        }

    def search(self, queries: Sequence[str], domain: str, system: str, k: int, where: Where | None) -> Hits:
        """The k best documents of each query."""
        held = self.held[domain]
        places = held.matching(where)
        if not places:
            return [[] for _ in queries]
        asked = [Query(str(number), text) for number, text in enumerate(queries)]
        best: BestRows = {}
        dense_system = half(self.ways[domain]) if system == "hybrid" else system
        if system == "hybrid":
            depth, weight = max(k, DEPTH), self.weights[domain].bm25
            dense = self._run(asked, domain, dense_system, depth, places, best)
            words = self._run(asked, domain, "bm25", depth, places, best, shares=self.shares)
            run = hybrid(dense, words, weight, k, shares=self.shares)
        else:
            run = self._run(asked, domain, system, k, places, best)
        passages: Mapping[str, Sequence[Passage]] = {}
        if dense_system != "bm25":
            passages = self.vectors[domain][self.ways[domain][dense_system][1]].passages

        def hit(query_id: str, doc_id: str, score: float, rank: int) -> IndexHit:
            row = best.get(query_id, {}).get(doc_id)  # none that its words alone found
            own = None if row is None or doc_id not in passages else passages[doc_id][row]
            return held.hit(doc_id, score, rank, own)

        return [
            [hit(q.query_id, *pair, rank) for rank, pair in enumerate(run[q.query_id].items(), start=1)] for q in asked
        ]

    def _run(
        self,
        asked: Sequence[Query],
        domain: str,
        system: str,
        k: int,
        places: Sequence[int],
        best_rows: BestRows,
        shares: bool = False,
    ) -> Run:
        """The k best of the documents at some places for each query, by vectors or by words.

        For `best_rows` see `exact_search`; a search by words has none.
        """
        held = self.held[domain]
        every = len(places) == len(held.ids)
        ids = [held.ids[place] for place in places]
        if system != "bm25":
            query_way, document_way = self.ways[domain][system]
            embedded = self.vectors[domain][document_way]
            encoded = self.embed([query.text for query in asked], query_way)
            owners, vectors = (embedded.ids, embedded.vectors) if every else embedded.of(set(ids))
            names = [query.query_id for query in asked]
            return exact_search(encoded, names, vectors, k, document_ids=owners, best_rows=best_rows)
        if every:
            return held.bm25.search(asked, k, shares=shares)
        allowed, run = set(ids), {}
        for query in asked:  # one at a time, since all of its hits are looked at
            hits = held.bm25.search([query], len(held.ids), shares=shares)[query.query_id]
            run[query.query_id] = dict([hit for hit in hits.items() if hit[0] in allowed][:k])
        return run


MOST_VALUES = 1000
"""Fields and values of a filter, all of which are compared with every document's."""


def _plain(value: Any) -> bool:
    """Whether a filter may hold it: Unicode text, a number that an index can hold, true or false."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    return isinstance(value, int | float) and abs(value) < 2**63


def check_where(where: Where | None) -> Where | None:
    """A request's filter. Raises `RequestError` unless it maps some fields to values, or to lists of them."""
    entries = [[name, *(value if isinstance(value, list) else [value])] for name, value in (where or {}).items()]
    if sum(map(len, entries)) > MOST_VALUES:
        raise RequestError(f"where has more than {MOST_VALUES} fields and values; send fewer", param="where")
    for name, *values in entries:
        if not all(map(_plain, (name, *values))):
            message = "where is to be an object: field of the metadata -> a value, or a list of which it has one"
            raise RequestError(message, param="where")
        if not values:
            raise RequestError(f"where: the list of {name!r} is empty, so nothing can match", param="where")
    return where


@dataclass(frozen=True)
class IndexSearcher:
    """Search of an index; of one state of the prompts, and of the domains there were when they were read."""

    index: Index
    infos: Mapping[str, DomainInfo]
    ways: Mapping[str, Systems]
    embed: Embed

    @classmethod
    def of(
        cls, index: Index, encoder: SentenceTransformer, systems: Callable[[str, str], Systems], embed: Embed
    ) -> IndexSearcher:
        """The searcher of a state of the prompts, while these are carried.

        A system whose documents' side is not what embedded a domain's documents does not search it; a domain that
        none searches is said in the log. Raises `OtherEncoderError` where the index is of another backbone.
        """
        infos = index.domains()
        ways: dict[str, dict[str, tuple[Way, Way]]] = {}
        for domain, info in infos.items():
            index.check_backbone(encoder)
            ways[domain] = {}
            for name, (queries, documents) in systems(domain, info.folder).items():
                with suppress(OtherEncoderError):
                    index.check(encoder, domain, documents.name or documents.route or None)
                    ways[domain][name] = queries, documents
            if not ways[domain]:
                said = "%s is searched by words alone: %s embedded its documents, and is not what searches it here"
                logger.warning(f"{said} (--bank, --prompt, --use)", domain, info.embedded_by)
        return cls(index, infos, ways, embed)

    def domains(self) -> Mapping[str, Searchable]:
        """The index's domains."""
        return {
            name: Searchable.by(info.documents, self.ways[name], info.folder, info.weight)
            for name, info in self.infos.items()
        }

    def search(self, queries: Sequence[str], domain: str, system: str, k: int, where: Where | None) -> Hits:
        """See `Searcher`. `RequestError` (409): something else has embedded the documents since, in another process."""
        condition = None if where is None else expression(where)
        if system == "bm25":
            return self.index.search_words(queries, domain, k, condition)
        if system == "hybrid":
            dense, words = (
                self.search(queries, domain, name, max(k, DEPTH), where) for name in (half(self.ways[domain]), "bm25")
            )
            return fused(dense, words, self.infos[domain].weight.bm25, k)
        if self.index.info(domain).stamp != self.infos[domain].stamp:  # on a server; a file is this process's
            message = f"the documents of {domain!r} were embedded again; reload the prompts (/admin/reload)"
            raise RequestError(message, 409, "index_changed", "domain")
        vectors = self.embed(queries, self.ways[domain][system][0])
        return self.index.search_vectors(vectors, domain, k, condition)


def expression(where: Where) -> str:
    """A filter by metadata in Milvus's language, each value quoted, so that no text in it is read as a condition."""
    conditions = []
    for name, value in where.items():
        field = f"metadata[{quoted(name)}]"
        values = value if isinstance(value, list) else [value]
        literals = [quoted(one) if isinstance(one, str) else json.dumps(one) for one in values]
        conditions.append(f"({' or '.join(f'{field} == {one}' for one in literals)})")  # Milvus Lite knows no `in` here
    return " and ".join(conditions)
