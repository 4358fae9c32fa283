"""A source collection without the texts of a transfer target, so that transfer is measured on unseen text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from foreword.collections.records import Collection, Document, Qrels, Query, TrainingPair
from foreword.collections.splits import normalise
from foreword.collections.view import View, documents_for, own_corpora


@dataclass(frozen=True)
class Texts:
    """The normalised texts of some collections; memory grows with their text, so give small ones."""

    queries: frozenset[str] = frozenset()
    documents: frozenset[str] = frozenset()

    @classmethod
    def of(cls, collections: Iterable[Collection]) -> Texts:
        """Gather every document and every split's queries.

        A document counts with and without its title, and (documentation) without its signature.
        """
        queries: set[str] = set()
        documents: set[str] = set()
        for collection in collections:
            for document in collection.documents():
                documents.update(_forms(document))
            for split in collection.splits:
                queries.update(normalise(query.text) for query in collection.queries(split))
        return cls(frozenset(queries - {""}), frozenset(documents - {""}))

    def __bool__(self) -> bool:
        return bool(self.queries or self.documents)

    def has_query(self, text: str) -> bool:
        """Whether a query's text occurs among the queries or documents gathered."""
        normal = normalise(text)
        return normal in self.queries or normal in self.documents

    def has_document(self, document: Document) -> bool:
        """Whether a document's text occurs among the queries or documents gathered."""
        return any(form in self.documents or form in self.queries for form in _forms(document))


def _forms(document: Document) -> set[str]:
    """The normalised texts under which a document may turn up elsewhere."""
    signature = document.metadata.get("signature", "")
    body = document.text.removeprefix(signature)
    return {normalise(document.content), normalise(document.text), normalise(body)} - {""}


@dataclass(frozen=True)
class ExcludingCollection(View):
    """`source` seen without excluded documents and queries, and without queries that lose all they find.

    Streams like `source` does: one pass when it is made finds the dropped ids, which are all it holds.
    """

    source: Collection
    texts: Texts
    _facts: Mapping[str, object] = field(init=False, repr=False)
    _documents: frozenset[str] = field(init=False, repr=False)
    _queries: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        documents = frozenset(
            doc.doc_id
            for corpus in (self.source.documents(), *(documents_for(self.source, s) for s in own_corpora(self.source)))
            for doc in corpus
            if self.texts.has_document(doc)
        )
        queries: set[str] = set()
        for split in self.source.splits:
            qrels = self.source.qrels(split)
            for query in self.source.queries(split):
                judged = qrels.get(query.query_id, {})
                relevant = {doc_id for doc_id, relevance in judged.items() if relevance > 0}
                if self.texts.has_query(query.text) or (relevant and relevant <= documents):
                    queries.add(query.query_id)
        counts = {"excluded_documents": len(documents), "excluded_queries": len(queries)}
        object.__setattr__(self, "_documents", documents)
        object.__setattr__(self, "_queries", frozenset(queries))
        object.__setattr__(self, "_facts", {**self.source.facts, **counts})

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's, and the counts of what is left out."""
        return self._facts

    def documents(self) -> Iterator[Document]:
        """The source's documents but for the excluded ones."""
        return (d for d in self.source.documents() if d.doc_id not in self._documents)

    def documents_for(self, split: str) -> Iterator[Document]:
        """The same of the corpus that a split's judgements are about."""
        return (d for d in documents_for(self.source, split) if not self.texts.has_document(d))

    def queries(self, split: str = "test") -> Iterator[Query]:
        """The source's queries of a split but for the excluded ones."""
        return (q for q in self.source.queries(split) if q.query_id not in self._queries)

    def qrels(self, split: str = "test") -> Qrels:
        """The source's judgements of a split, of what is left."""
        return {
            query_id: {doc_id: grade for doc_id, grade in judged.items() if doc_id not in self._documents}
            for query_id, judged in self.source.qrels(split).items()
            if query_id not in self._queries
        }

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """The source's pairs of what is left; hard negatives whose text is excluded are left out."""
        for pair in self.source.pairs(split, hard_negatives=hard_negatives):
            if pair.query_id not in self._queries and pair.doc_id not in self._documents:
                kept = tuple(text for text in pair.negatives if not self.texts.has_query(text))
                yield pair if len(kept) == len(pair.negatives) else replace(pair, negatives=kept)
