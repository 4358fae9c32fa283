"""`foreword index build|add|update|delete|search|stats`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from foreword.cli.grammar import (
    Add,
    Options,
    Parser,
    add_command,
    chosen_prompt,
    data_options,
    encoder_options,
    load_collection,
    load_encoder,
    print_json,
    print_table,
    say,
)
from foreword.cli.search import Answer, answer, asked, form_of, hits_of, query_options
from foreword.errors import ForewordError
from foreword.tables import byte_size

if TYPE_CHECKING:
    from foreword.collections.collection import Query
    from foreword.indexing import Index, IndexHit, Written


TOKEN = "FOREWORD_MILVUS_TOKEN"
"""The environment's variable for a server's token, which a command line would show to everyone on the machine."""


def add(command: Add) -> None:
    """The grammar of the command."""
    parser = command(
        "index",
        search,
        "keep documents of many domains in Milvus (a file, or a server), and search them",
        'foreword index build notes.db folder:my-notes\n  foreword index search notes.db "how long do receipts keep"',
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, run: Callable[[Options], None], summary: str, example: str) -> Parser:
        added = add_command(actions, name, run, summary, f"example:\n  foreword index {name} {example}")
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON instead of text")
        added.add_argument("uri", metavar="INDEX", help="a file (notes.db), or a Milvus server (http://host:19530)")
        _place_options(added)
        return added

    _add_writing(action)
    _add_rest(action)


def _place_options(parser: Parser) -> None:
    group = parser.add_argument_group("Milvus")
    group.add_argument("--token", help=f"of a server: user:password or an API key (default: {TOKEN})")
    group.add_argument(
        "--milvus-collection", default="foreword", metavar="NAME", help="that holds the index (default: %(default)s)"
    )


def _add_writing(action: Add) -> None:
    made = action("build", build, "embed a collection into a domain, made where it is not there", _BUILD)
    made.add_argument("--replace", action="store_true", help="empty the domain first; the way to another prompt")
    made.add_argument(
        "--index-type",
        metavar="TYPE",
        help="of an index that is made, as Milvus names it: FLAT, HNSW, ... (default: exact in a file, AUTOINDEX else)",
    )
    more = action("add", build, "embed documents into a domain that is there", "notes.db folder:more --domain notes")
    same = action("update", build, "bring a domain up to its collection: new, changed and removed documents", _UPDATE)
    for parser in (made, more, same):
        parser.set_defaults(action=parser.prog.rpartition(" ")[2])
        parser.add_argument("collection", metavar="COLLECTION", help="e.g. folder:my-notes, pydoc/torch")
        parser.add_argument("--domain", metavar="NAME", help="(default: the collection's id)")
        data_options(parser)
        parser.add_argument("--document-template", metavar="T", help="(default: '{title} {text}')")
        parser.add_argument("--batch-size", type=int, default=64, help="texts in one pass (default: %(default)s)")
        encoder_options(parser)


_BUILD = "notes.db folder:my-notes --domain notes --prompt prompts/notes"
_UPDATE = "notes.db folder:my-notes --domain notes"


def _add_rest(action: Add) -> None:
    parser = action("delete", delete, "remove documents, or a whole domain", "notes.db a.txt b.txt --domain notes")
    parser.add_argument("doc_ids", nargs="*", metavar="DOC_ID", help="what to remove")
    parser.add_argument("--domain", metavar="NAME", help="(default: the only one)")
    parser.add_argument("--all", action="store_true", help="remove the whole domain")

    parser = action("search", search, "search a domain", 'notes.db "how long do receipts keep" --domain notes --k 3')
    query_options(parser)
    parser.add_argument("--domain", metavar="NAME", help="(default: the only one)")
    parser.add_argument(
        "--mode", choices=["dense", "bm25", "hybrid"], default="dense", help="vectors, words, both (default: dense)"
    )
    parser.add_argument(
        "--fusion", choices=["min-max", "reciprocal-rank"], default="min-max", help="of hybrid (default: %(default)s)"
    )
    parser.add_argument("--where", metavar="EXPR", help="""in Milvus's language, e.g. 'metadata["year"] == "2021"'""")
    encoder_options(parser)

    action("stats", stats, "what an index holds, and what embedded it", "notes.db")


# -- what they do --------------------------------------------------------------------------------------------------


def build(options: Options) -> None:
    """Embed documents: `build`, `add` and `update`."""
    from foreword.indexing.store import shown

    collection = load_collection(options, options.collection)
    domain = options.domain or collection.id
    with _open(options, create=options.action == "build") as index:
        if options.action != "build":
            index.info(domain)  # before a model is loaded
        encoder = load_encoder(options, prompt=chosen_prompt(options))
        how: dict[str, Any] = {"batch_size": options.batch_size, "quiet": options.json, "precision": options.precision}
        if options.action == "build":
            how["replace_all"] = options.replace
        begun = time.perf_counter()
        written: Written = getattr(index, options.action)(encoder, domain, collection.documents(), **how)
        info = index.info(domain)
    seconds = time.perf_counter() - begun
    if options.json:
        print_json({"domain": domain, **written.as_dict(), "documents": info.documents, "seconds": round(seconds, 3)})
        return
    counts = ", ".join(f"{count:,} {name}" for name, count in written.as_dict().items() if count) or "nothing to do"
    print(f"{domain}: {counts}; {info.documents:,} documents in {shown(options.uri)}, {seconds:.1f} s")


def delete(options: Options) -> None:
    """Remove documents or a domain."""
    if bool(options.doc_ids) == options.all:
        raise ForewordError("say which documents to remove, by their ids, or --all for the whole domain")
    with _open(options) as index:
        domain = _domain(index, options.domain)
        before = index.info(domain).documents
        removed = index.delete(domain, None if options.all else options.doc_ids)
    if options.json:
        print_json({"domain": domain, "removed": removed, "documents": before - removed})
        return
    print(f"{domain}: {removed:,} removed, {before - removed:,} left")
    if not options.all and removed < len(set(options.doc_ids)):
        say(f"{len(set(options.doc_ids)) - removed} of the ids were not there")


def search(options: Options) -> None:
    """Search a domain."""
    form_of(options)  # before anything is read
    questions = asked(options)
    with _open(options) as index:
        domain = _domain(index, options.domain)
        if not index.info(domain).complete:
            say(f"{domain}: its documents were not all written; the command that was cut goes on where it was")
        encoder = load_encoder(options, prompt=chosen_prompt(options)) if options.mode != "bm25" else None

        def find(queries: Sequence[Query]) -> list[list[Answer]]:
            found = index.search(
                encoder,
                [query.text for query in queries],
                domain,
                k=hits_of(options),
                mode=options.mode,
                where=options.where,
                fusion=options.fusion,
                precision=options.precision,
            )
            return [[_answer(hit) for hit in hits] for hits in found]

        answer(options, questions, find, options.mode)


def stats(options: Options) -> None:
    """What an index holds."""
    with _open(options) as index:
        found = index.stats()
    if options.json:
        print_json(found)
        return
    size = "" if found["bytes"] is None else f", {byte_size(found['bytes'])}"
    print(f"{found['uri']} ({found['server']}): {found['documents']:,} documents{size}")
    print(
        f"backbone {found['backbone']['name']}, vectors of width {found['dimension']}, {found['metric']}, "
        f"index {found['index_type']}"
    )
    rows = [
        (name, f"{info['documents']:,}", info["embedded_by"], "complete" if info["complete"] else "unfinished")
        for name, info in found["domains"].items()
    ]
    print_table("", ("domain", "documents", "embedded by", "state"), rows)


def _open(options: Options, *, create: bool = False) -> Index:
    from foreword.indexing import Index
    from foreword.indexing.store import local_path

    token = options.token or (os.environ.get(TOKEN) if local_path(options.uri) is None else None)
    made = {"index_type": options.index_type} if create else {}
    return Index.open(options.uri, options.milvus_collection, token, create, **made)


def _domain(index: Index, given: str | None) -> str:
    """The domain asked for, or the only one there is."""
    if given is not None:
        return given
    names = list(index.domains())
    if len(names) != 1:
        raise ForewordError(f"say which domain (--domain); there are: {', '.join(names) or 'none'}")
    return names[0]


def _answer(hit: IndexHit) -> Answer:
    record = {
        "doc_id": hit.doc_id,
        "domain": hit.domain,
        "rank": hit.rank,
        "score": hit.score,
        "title": hit.title,
        "text": hit.text,
        "metadata": dict(hit.metadata),
    }
    return Answer(hit.doc_id, hit.score, hit.name, hit.text, record)
