"""`foreword search`."""

from __future__ import annotations

import json
import os
import re
import select
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from foreword.cli import grammar as cli
from foreword.errors import DataError, ForewordError
from foreword.files import text_batches

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.collections.collection import Collection, Query
    from foreword.evaluation.hybrid import HybridSearch, HybridWeight
    from foreword.retrieval.search import Hit

    Search = Callable[[Sequence[Query]], list[list[Hit]]]


_HITS, _RUN_HITS = 5, 100  # hits a query: to be read, and in a run, which is measured
_ENDINGS = {".trec": "trec", ".run": "trec", ".jsonl": "jsonl"}


def query_options(parser: cli.Parser) -> None:
    """Queries, and the form of the answers."""
    parser.add_argument(
        "queries",
        nargs="*",
        metavar="QUERY",
        help="what to search for. Without it: one query per line of standard input, as QUERY or NAME<tab>QUERY",
    )
    group = parser.add_argument_group("answers")
    group.add_argument("--k", type=int, help=f"hits per query (default: {_HITS}; in a TREC run, {_RUN_HITS})")
    group.add_argument(
        "--format",
        choices=["text", "trec", "jsonl"],
        help="trec: a TREC run; jsonl: one object per query (default: text)",
    )
    group.add_argument(
        "--output", type=Path, metavar="FILE", help="write a run (.trec) or JSON lines (.jsonl) to this file"
    )


@dataclass(frozen=True)
class Answer:
    """A document that was found: what people are shown of it, and the `record`, all of it as JSON values."""

    doc_id: str
    score: float
    name: str
    text: str
    record: Mapping[str, Any]

    @classmethod
    def of(cls, hit: Hit) -> Answer:
        """The answer that a search's hit is."""
        document = hit.document
        record = {"doc_id": hit.doc_id, "score": hit.score, "title": document.title, "text": document.text}
        record |= {"metadata": dict(document.metadata), "passage": None if hit.passage is None else hit.passage.place}
        if hit.passage is None:
            return cls(hit.doc_id, hit.score, document.name, document.text, record)
        text = document.text[hit.passage.start : hit.passage.end]
        return cls(hit.doc_id, hit.score, named(document.name, hit.passage.place), text, record)


def named(name: str, place: Mapping[str, int] | None) -> str:
    """A document's name, and which of its passages was found, as people are shown it."""
    return name if place is None else f"{name} ({place['number']}/{place['of']})"


Find = Callable[[Sequence["Query"]], Sequence[Sequence[Answer]]]
"""The documents found for each query, best first."""


@dataclass(frozen=True)
class Asked:
    """Queries in the batches in which they come; `more`: others may follow the first batch."""

    batches: Iterator[Sequence[Query]]
    more: bool


def asked(options: cli.Options) -> Asked:
    """The queries among the arguments, or on standard input.

    A file is read whole; what comes through a pipe or is typed is taken in batches as it comes, so that a program
    that waits for an answer gets it.
    """
    from foreword.collections.collection import Query

    if options.queries:
        return Asked(iter([[Query(f"q{number}", text) for number, text in enumerate(options.queries)]]), False)
    whole = _is_whole(sys.stdin)
    if sys.stdin.isatty():
        cli.say("type a query on each line; Ctrl-D ends")
    lines = text_batches(None)
    batches = _named([list(chain.from_iterable(lines))] if whole else lines)
    first = next(batches, None)
    if first is None:
        raise ForewordError("nothing to search for; give queries as arguments or on standard input, one a line")
    return Asked(chain([first], batches), not (whole or _has_ended(sys.stdin)))


def named_queries(lines: Iterable[str], first: int = 0) -> Iterator[Query]:
    """A query a line: `NAME<tab>QUERY`, or the query alone, named q0, q1, ... from `first` on; blank ones no."""
    from foreword.collections.collection import Query

    for line in lines:
        name, _, text = (part.strip() for part in line.partition("\t"))
        if name and text:
            yield Query(name, text)
        elif name or text:
            yield Query(f"q{first}", name or text)
        first += bool(name or text)


def _named(batches: Iterable[Iterable[str]]) -> Iterator[list[Query]]:
    """The queries of each batch that has any, no name occurring twice."""
    seen: set[str] = set()
    for lines in batches:
        queries = list(named_queries(lines, len(seen)))
        for query in queries:
            if query.query_id in seen:
                raise DataError(f"two queries are named {query.query_id!r}; answers are told apart by these names")
            seen.add(query.query_id)
        if queries:
            yield queries


def _is_whole(stream: IO[str]) -> bool:
    """Whether all of a stream is there to be read: it is a file on disk, or an object of Python's alone."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return True


def _has_ended(stream: IO[str]) -> bool:
    """Whether nothing more can come through a pipe, asked without waiting."""
    buffer: Any = stream.buffer  # type: ignore[attr-defined]
    try:
        ready, _, _ = select.select([buffer], [], [], 0)
    except (OSError, ValueError):  # Windows asks sockets alone
        return False
    return bool(ready) and not buffer.peek(1)


def form_of(options: cli.Options) -> str:
    """How answers are written: `text`, `trec`, `jsonl` or `json`."""
    if options.json and options.format:
        raise ForewordError(f"--json is one array; --format {options.format} is another form: give one of them")
    form: str | None = "json" if options.json else options.format
    if options.output is not None:
        form = form or _ENDINGS.get(options.output.suffix)
        if form not in ("trec", "jsonl"):
            raise ForewordError(f"--output {options.output} takes a run or JSON lines: --format trec, or jsonl")
    return form or "text"


def hits_of(options: cli.Options) -> int:
    """Hits a query."""
    default = _RUN_HITS if form_of(options) == "trec" else _HITS
    return default if options.k is None else int(options.k)


def tag_of(options: cli.Options, system: str) -> str:
    """A run's name for a system: the prompt's where it is dense, one word."""
    name = ("base" if options.prompt == "none" else Path(options.prompt).name) if system == "dense" else system
    return re.sub(r"\s+", "-", name) or system


def answer(options: cli.Options, questions: Asked, find: Find, system: str, weight: HybridWeight | None = None) -> None:
    """Search batch by batch, and write each batch's answers before the next is read; `weight`: of a hybrid search."""
    from foreword.files import atomic_write

    tag = tag_of(options, system)
    about = {} if weight is None else {"hybrid": weight.as_dict()}
    if options.output is None:
        _write(form_of(options), sys.stdout, questions, find, tag, about)
        return
    with atomic_write(options.output) as file:
        count = _write(form_of(options), file, questions, find, tag, about)
    print(f"{options.output}: {count:,} queries, {hits_of(options)} hits each at most")


def _write(form: str, file: IO[str], questions: Asked, find: Find, tag: str, about: Mapping[str, Any]) -> int:
    """Write the answers, as objects with what they are `about`; returns how many queries there were."""
    from foreword.retrieval.runs import run_lines

    count = 0
    kept = []
    for queries in questions.batches:
        for query, hits in zip(queries, find(queries), strict=True):
            if form == "json":
                kept.append({**_record(query, hits), **about})
            elif form == "trec":
                file.writelines(run_lines(query.query_id, {hit.doc_id: hit.score for hit in hits}, tag))
            elif form == "jsonl":
                file.write(json.dumps({**_record(query, hits), **about}, ensure_ascii=False, default=str) + "\n")
            else:
                rows = [(f"{hit.score:.3f}", hit.name, shorten(hit.text)) for hit in hits]
                cli.print_table(query.text, ("score", "document", "text"), rows)
        file.flush()
        count += len(queries)
    if form == "json":
        cli.print_json(kept)
    return count


def _record(query: Query, hits: Sequence[Answer]) -> dict[str, Any]:
    return {"query_id": query.query_id, "query": query.text, "hits": [dict(hit.record) for hit in hits]}


def shorten(text: str, width: int = 160) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rsplit(" ", 1)[0] + "…"


def search_options(parser: cli.Parser) -> None:
    """What is searched, and by what."""
    parser.add_argument("collection", metavar=cli.COLLECTION, help="e.g. pydoc/torch, or a folder")
    query_options(parser)
    cli.data_options(parser)
    cli.system_option(parser)
    cli.passages_option(parser)
    cli.encoder_options(parser)


def run_search(options: cli.Options) -> None:
    """Search a collection: in bounded memory, or, where more may be asked, with texts and vectors that are held."""
    from foreword.retrieval.passages import Coverage
    from foreword.retrieval.search import search as once

    form_of(options)  # before anything is read
    cli.needs(options, "bm25_weight", options.system == "hybrid", "is for --system hybrid")
    questions = asked(options)
    collection = cli.load_collection(options, options.collection)
    encoder = cli.load_encoder(options, prompt=cli.chosen_prompt(options)) if options.system != "bm25" else None
    coverage, how = Coverage(), {}
    if encoder is not None:
        how = {
            "passages": options.passages,
            "coverage": coverage,
            "precision": options.precision,
            "quiet": options.json,
        }
    k = hits_of(options)
    both = None
    if encoder is not None and options.system == "hybrid":
        from foreword.evaluation.hybrid import HybridSearch

        both = HybridSearch(encoder, collection, options.bm25_weight, **how)
        cli.say(str(both.weight))
    held = _held(encoder, collection, k, how, both) if both or questions.more else None

    def find(queries: Sequence[Query]) -> list[list[Answer]]:
        found = held(queries) if held else once(encoder, collection, queries, k=k, **how)
        return [[Answer.of(hit) for hit in hits] for hits in found]

    answer(options, questions, find, options.system, None if both is None else both.weight)
    if coverage.whole < coverage.documents:
        cli.say(f"{collection.id}: {coverage}")


def _held(
    encoder: SentenceTransformer | None,
    collection: Collection,
    k: int,
    how: dict[str, Any],
    both: HybridSearch | None = None,
) -> Search:
    """Searches a collection again and again: its texts, and their vectors or BM25's index, are made once and held."""
    import numpy as np

    from foreword.retrieval.bm25 import BM25
    from foreword.retrieval.passages import Cutter, Passage
    from foreword.retrieval.search import BestRows, as_hits, dense_run, document_blocks

    documents = {document.doc_id: document for document in collection.documents()}
    if encoder is None:
        index = BM25(documents.values())
    else:
        cut = Cutter(encoder, passages=how["passages"])
    if encoder is not None and both is None:
        blocks = list(document_blocks(encoder, collection, **how))
        if not blocks:
            raise DataError(f"{collection.id} has no documents, so there is nothing to search")
        vectors = [doc_id for ids, _ in blocks for doc_id in ids], np.concatenate([rows for _, rows in blocks])

    def find(queries: Sequence[Query]) -> list[list[Hit]]:
        best: BestRows = {}
        pieces: dict[str, list[Passage]] = {}
        if encoder is None:
            run = index.search(queries, k, exclude_self=collection.exclude_self)
        else:
            if both is not None:
                run = both.run(queries, k, best_rows=best)
            else:
                run = dense_run(encoder, collection, queries, vectors=vectors, k=k, best_rows=best, **how)
            found = {doc_id: documents[doc_id] for hits in run.values() for doc_id in hits}
            pieces = dict(zip(found, cut(list(found.values())), strict=True))
        return as_hits(queries, run, documents, best, pieces)

    return find
