"""`ir_datasets:<id>`: any data set that the ir_datasets library knows, read through it.

The library downloads what it reads, when it first reads it, to its own folder (IR_DATASETS_HOME). Its ids name
one split each, so a collection here has one split: that of the id.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from foreword.collections.collection import Collection, Document, Entry, Query, TrainingPair, require_split
from foreword.collections.family import Family
from foreword.collections.folder import SELF_RETRIEVING, SPLIT_NAMES, StreamedCollection, whole
from foreword.errors import DataError, UnknownNameError

GROUP = "ir_datasets"

_NO_TEXT = frozenset({"doc_id", "query_id", "title", "url"})
"""Fields that are no part of a document's text where the library does not say itself what its text is."""


class IrDatasets(Family):
    """Any data set of the library."""

    name = GROUP

    def knows(self, name: str) -> bool:
        """Any id may be asked for; `open` says when the library does not know it."""
        return bool(name)

    def entries(self, data: Path | None = None) -> list[Entry]:
        """The form in which its data sets are named; `data` is not used."""
        there = importlib.util.find_spec("ir_datasets") is not None
        what = "a data set of the ir_datasets library" + ("" if there else " (pip install foreword[ir-datasets])")
        return [Entry(f"{GROUP}:ID", GROUP, what, ("train", "dev", "test"), there, home="https://ir-datasets.com/")]

    def open(
        self, name: str, data: Path | None, *, docpairs: bool | None = None, exclude_self: bool | None = None
    ) -> Collection:
        """A data set of ir_datasets. Without judgements (and docpairs) it is a collection of documents only.

        Args:
            name: the library's id, e.g. `beir/scifact/test` or `msmarco-passage/train/triples-small`. The last part
                that is a split's name says which split it is; without one it is `test`.
            docpairs: for training, take the data set's pairs of a relevant and another document, which become hard
                negatives; None: if it has such pairs and no judgements.
            exclude_self: a query's own document never counts as a hit; by default for ids with arguana or quora.
        """
        try:
            import ir_datasets as library
        except ImportError as error:
            raise DataError(f"{GROUP}:{name} needs ir_datasets: pip install foreword[ir-datasets]") from error
        try:
            dataset: Any = library.load(name)
        except KeyError:
            near = difflib.get_close_matches(name, list(library.registry), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see https://ir-datasets.com/ for its ids"
            raise UnknownNameError(f"ir_datasets knows no {name!r}; {hint}") from None
        if not dataset.has_docs():
            raise DataError(f"{GROUP}:{name} has no documents; take an id that has them")
        has_pairs = dataset.has_queries() and dataset.has_docpairs()
        if docpairs and not has_pairs:
            raise DataError(f"{GROUP}:{name} has no docpairs; leave docpairs out")
        judged = dataset.has_queries() and dataset.has_qrels()
        by_docpairs = has_pairs and split_of_id(name) == "train" and not judged if docpairs is None else docpairs
        splits = (split_of_id(name),) if judged or by_docpairs else ()
        own = bool(SELF_RETRIEVING & set(name.split("/"))) if exclude_self is None else exclude_self
        kind = _WithDocpairs if by_docpairs else StreamedCollection
        facts = {
            "ir_datasets": str(getattr(library, "__version__", "unknown")),
            "training_pairs": "docpairs" if by_docpairs else "judgements",
        }
        source = _Dataset(f"{GROUP}:{name}", dataset, judged=judged)
        return kind(f"{GROUP}:{name}", GROUP, source, splits, facts=facts, exclude_self=own)


IR_DATASETS = IrDatasets()


def split_of_id(name: str) -> str:
    """The split that an id names: `dev` of `msmarco-passage/dev/small`; `test` where it names none."""
    return next((SPLIT_NAMES[part] for part in reversed(name.split("/")) if part in SPLIT_NAMES), "test")


class _Dataset:
    """The library's data set as a `Source`."""

    def __init__(self, collection_id: str, dataset: Any, *, judged: bool) -> None:
        self.id, self.dataset, self._judged = collection_id, dataset, judged

    def documents(self) -> Iterator[Document]:
        with _said(self.id, "documents"):
            yield from map(_document, self.dataset.docs_iter())

    def queries(self) -> Iterator[Query]:
        if not self.dataset.has_queries():
            return
        with _said(self.id, "queries"):
            for query in self.dataset.queries_iter():
                yield Query(str(query.query_id), _text(query))

    def judgements(self, split: str) -> Iterator[tuple[str, str, int]]:
        if not self._judged:
            yield from ((query_id, doc_id, 1) for query_id, doc_id, _ in self.docpairs())
            return
        with _said(self.id, "judgements"):
            for judged in self.dataset.qrels_iter():
                grade = whole(judged.relevance, self.id)
                yield str(judged.query_id), str(judged.doc_id), grade

    def docpairs(self) -> Iterator[tuple[str, str, str]]:
        """`(query_id, doc_id of a relevant document, doc_id of another)`."""
        with _said(self.id, "docpairs"):
            for pair in self.dataset.docpairs_iter():
                yield str(pair.query_id), str(pair.doc_id_a), str(pair.doc_id_b)


class _WithDocpairs(StreamedCollection):
    """Training pairs are the library's docpairs, in its order; their texts are looked up in its document store."""

    _source: _Dataset

    def pairs(self, split: str = "train", *, hard_negatives: int | None = None) -> Iterator[TrainingPair]:
        """A pair for each run of docpairs with one query and relevant document, the others its hard negatives.

        Docpairs of a query or document that is not there are left out, which `facts` counts and a warning says.
        """
        require_split(self.id, split, self.splits)
        return self._pairs(hard_negatives)

    def _pairs(self, most: int | None) -> Iterator[TrainingPair]:
        texts = {query.query_id: query.text for query in self._every_query()}
        lost = 0
        with _said(self.id, "documents"):
            store = self._source.dataset.docs_store()
        for (query_id, doc_id), run in groupby(self._source.docpairs(), key=lambda pair: pair[:2]):
            others = list(dict.fromkeys(other for _, _, other in run))
            wanted = others if most is None else list(islice(others, most))
            with _said(self.id, "documents"):
                found = {str(doc.doc_id): _document(doc).content for doc in store.get_many_iter([doc_id, *wanted])}
            if query_id not in texts or doc_id not in found:
                lost += 1
                continue
            lost += sum(other not in found for other in wanted)
            negatives = tuple(found[other] for other in wanted if other in found)
            yield TrainingPair(query_id, texts[query_id], doc_id, found[doc_id], negatives)
        message = f"{self.id}: {lost} docpairs name a query or document that is not there"
        self._note("docpairs_of_unknown_texts", lost, message)


@contextmanager
def _said(collection_id: str, what: str) -> Iterator[None]:
    """The library's failures to download or read, as errors that say which data set it was."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        message = f"{collection_id}: ir_datasets cannot provide its {what} ({type(error).__name__}: {error})"
        raise DataError(f"{message}; see https://ir-datasets.com/ for what this data set needs") from error


def _document(doc: Any) -> Document:
    """A record of the library: its own text where it says it, the title apart when the text begins with it."""
    title = getattr(doc, "title", "")
    title = title.strip() if isinstance(title, str) else ""
    text = _text(doc)
    if title and text.startswith(title):
        return Document(str(doc.doc_id), text[len(title) :].lstrip(), title)
    return Document(str(doc.doc_id), text, "" if hasattr(doc, "default_text") else title)


def _text(record: Any) -> str:
    """`default_text()` of a query or document, or all of its fields that are texts."""
    if hasattr(record, "default_text"):
        return str(record.default_text() or "").strip()
    values = ((name, getattr(record, name)) for name in record._fields if name not in _NO_TEXT)
    return " ".join(value.strip() for _, value in values if isinstance(value, str) and value.strip())
