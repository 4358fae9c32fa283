"""What of a document or a query is embedded, when it is not the usual `<title> <text>` and `<text>`."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import replace

from foreword.collections.records import Collection, Document, Query, TrainingPair
from foreword.collections.view import View, documents_for
from foreword.common.errors import DataError, ForewordError

DOCUMENT = "{title} {text}"
QUERY = "{text}"


class Templated(View):
    """A collection whose documents and queries are written out by templates.

    A template names the fields `title` (of documents) and `text`, and any of the metadata; what a text lacks is
    empty, and stray spaces are taken out at both ends.

    Raises:
        ForewordError: a template that is broken or names no field.
    """

    def __init__(self, source: Collection, document: str | None = None, query: str | None = None) -> None:
        self.source = source
        self._document, self._query = document or DOCUMENT, query or QUERY
        for template in (self._document, self._query):
            _check(template)

    @property
    def facts(self) -> Mapping[str, object]:
        """The source's, and the templates."""
        return {**self.source.facts, "templates": {"document": self._document, "query": self._query}}

    def documents(self) -> Iterator[Document]:
        """The source's documents; the text is what the template makes, and the title goes to the metadata."""
        return map(self._written, self.source.documents())

    def documents_for(self, split: str) -> Iterator[Document]:
        """The corpus that a split's judgements are about, written out."""
        return map(self._written, documents_for(self.source, split))

    def _written(self, doc: Document) -> Document:
        fields = {**doc.metadata, "title": doc.title, "text": doc.text}
        return Document(doc.doc_id, _fill(self._document, fields), "", {**doc.metadata, "name": doc.name})

    def queries(self, split: str = "test") -> Iterator[Query]:
        """The source's queries; the text is what the template makes."""
        for query in self.source.queries(split):
            fields = {**query.metadata, "text": query.text}
            yield Query(query.query_id, _fill(self._query, fields), query.metadata)

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """The source's pairs, written out by the templates.

        Raises:
            DataError: a pair's text is not a document of the collection, whose fields are needed.
        """
        pairs = list(self.source.pairs(split, hard_negatives=hard_negatives))
        wanted = {text for pair in pairs for text in (pair.document, *pair.negatives)}
        texts: dict[str, str] = {}
        for doc in documents_for(self.source, split):
            if doc.content in wanted:
                texts[doc.content] = self._written(doc).text
        if missing := wanted - set(texts):
            raise DataError(
                f"{self.id}: {len(missing)} texts of its training pairs are not among its documents, so that no "
                "template can write them; leave the document template out"
            )
        queries = {query.query_id: query.text for query in self.queries(split)}
        for pair in pairs:
            negatives = tuple(texts[text] for text in pair.negatives)
            yield replace(pair, query=queries[pair.query_id], document=texts[pair.document], negatives=negatives)


def _fill(template: str, fields: Mapping[str, str]) -> str:
    parts = string.Formatter().parse(template)
    return "".join(before + (fields.get(name, "") if name else "") for before, name, _, _ in parts).strip()


def _check(template: str) -> None:
    try:
        names = [name for _, name, spec, conversion in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ForewordError(f"template {template!r} is broken ({error}); e.g. {DOCUMENT!r}") from error
    if not names or not all(name.isidentifier() for name in names):
        raise ForewordError(f"template {template!r} must name fields, e.g. {DOCUMENT!r}")
