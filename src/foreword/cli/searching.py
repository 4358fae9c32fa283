"""`foreword search`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from foreword.cli.queries import Answer, Find, answer, asked, form_of, hits_of, query_options
from foreword.cli.shared import (
    Add,
    Options,
    chosen_prompt,
    data_options,
    encoder_options,
    load_collection,
    load_encoder,
)
from foreword.common.errors import DataError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.collections.records import Collection, Query
    from foreword.retrieval.runs import Run
    from foreword.retrieval.search import Hit, Vectors

    Search = Callable[[Sequence[Query]], list[list[Hit]]]


def add(command: Add) -> None:
    """The grammar of the command."""
    parser = command(
        "search",
        search,
        "search a collection, or a folder of your own",
        'foreword search pydoc/torch "stop gradients from flowing" --prompt prompts/pydoc-torch\n'
        "  foreword search folder:notes --format trec < queries.tsv > notes.trec",
    )
    parser.add_argument("collection", metavar="COLLECTION", help="e.g. pydoc/torch, folder:PATH")
    query_options(parser)
    data_options(parser)
    parser.add_argument("--system", choices=["dense", "bm25"], default="dense", help="(default: %(default)s)")
    encoder_options(parser)


def search(options: Options) -> None:
    """Search a collection."""
    form_of(options)  # before anything is read
    questions = asked(options)
    collection = load_collection(options, options.collection)
    encoder = load_encoder(options, prompt=chosen_prompt(options)) if options.system == "dense" else None
    how = {"precision": options.precision, "quiet": options.json} if encoder is not None else {}
    find = (_held if questions.more else _once)(encoder, collection, hits_of(options), how)
    answer(options, questions, _answers(find), options.system)


def _answers(find: Search) -> Find:
    def found(queries: Sequence[Query]) -> list[list[Answer]]:
        return [[_answer(hit) for hit in hits] for hits in find(queries)]

    return found


def _answer(hit: Hit) -> Answer:
    document = hit.document
    record = {"doc_id": hit.doc_id, "score": hit.score, "title": document.title, "text": document.text}
    return Answer(hit.doc_id, hit.score, document.name, document.text, record | {"metadata": dict(document.metadata)})


def _once(encoder: SentenceTransformer | None, collection: Collection, k: int, how: dict[str, Any]) -> Search:
    """Searches a collection in bounded memory, embedding its documents each time."""
    from foreword.retrieval.search import search

    def find(queries: Sequence[Query]) -> list[list[Hit]]:
        return search(encoder, collection, queries, k=k, **how)

    return find


def _held(encoder: SentenceTransformer | None, collection: Collection, k: int, how: dict[str, Any]) -> Search:
    """Searches a collection again and again: its texts, and their vectors or BM25's index, are made once and held."""
    from foreword.retrieval.bm25 import BM25
    from foreword.retrieval.search import Hit, dense_run

    documents = {document.doc_id: document for document in collection.documents()}
    if encoder is None:
        index = BM25(documents.values())
    else:
        vectors = _vectors(encoder, collection, how)

    def run(queries: Sequence[Query]) -> Run:
        if encoder is None:
            return index.search(queries, k, exclude_self=collection.exclude_self)
        return dense_run(encoder, collection, queries, vectors=vectors, k=k, **how)

    def find(queries: Sequence[Query]) -> list[list[Hit]]:
        found = run(queries)
        return [
            [Hit(doc_id, score, documents[doc_id]) for doc_id, score in found.get(query.query_id, {}).items()]
            for query in queries
        ]

    return find


def _vectors(encoder: SentenceTransformer, collection: Collection, how: dict[str, Any]) -> Vectors:
    """Ids and vectors (N, d') of a collection's documents. Raises `DataError` when there are none."""
    import numpy as np

    from foreword.retrieval.search import document_blocks

    blocks = list(document_blocks(encoder, collection, **how))
    if not blocks:
        raise DataError(f"{collection.id} has no documents, so there is nothing to search")
    return [doc_id for ids, _ in blocks for doc_id in ids], np.concatenate([rows for _, rows in blocks])
