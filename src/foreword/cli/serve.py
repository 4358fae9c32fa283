"""`foreword index build|add|update|delete|search|stats`, and `foreword serve`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli.grammar import (
    BANK,
    COLLECTION,
    PROMPT,
    Command,
    Commands,
    Options,
    Parser,
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
from foreword.errors import ForewordError, UnknownNameError
from foreword.settings import Precision, choices
from foreword.tables import byte_size

if TYPE_CHECKING:
    from foreword.collections.collection import Query
    from foreword.indexing import Index, IndexHit, Written


TOKEN = "FOREWORD_MILVUS_TOKEN"
"""The environment's variable for a server's token, which a command line would show to everyone on the machine."""


def index_options(parser: Parser) -> None:
    """The actions."""
    actions: Any = parser.add_subparsers(
        title="actions", metavar="ACTION", required=True, action=Commands, prog=parser.prog
    )
    for name, (summary, command) in _ACTIONS.items():
        actions.add(name, summary, partial(_with_place, command))


def _with_place(command: Command) -> Command:
    """An action on an index, and where that is."""

    def options(parser: Parser) -> None:
        parser.add_argument("uri", metavar="INDEX", help="a file (notes.db), or a Milvus server (http://host:19530)")
        group = parser.add_argument_group("Milvus")
        group.add_argument("--token", help=f"of a server: user:password or an API key (default: {TOKEN})")
        group.add_argument(
            "--milvus-collection",
            default="foreword",
            metavar="NAME",
            help="that holds the index (default: %(default)s)",
        )
        command.options(parser)

    return replace(command, options=options)


def _writing_options(parser: Parser) -> None:
    parser.add_argument("collection", metavar=COLLECTION, help="e.g. my-notes, pydoc/torch")
    parser.add_argument("--domain", metavar="NAME", help="(default: the collection's id)")
    data_options(parser)
    parser.add_argument("--document-template", metavar="T", help="(default: '{title} {text}')")
    parser.add_argument("--batch-size", type=int, default=64, help="texts in one pass (default: %(default)s)")
    encoder_options(parser)


def _build_options(parser: Parser) -> None:
    parser.add_argument("--replace", action="store_true", help="empty the domain first; the way to another prompt")
    parser.add_argument(
        "--index-type",
        metavar="TYPE",
        help="of an index that is made, as Milvus names it: FLAT, HNSW, ... (default: exact in a file, AUTOINDEX else)",
    )
    _writing_options(parser)


def _delete_options(parser: Parser) -> None:
    parser.add_argument("doc_ids", nargs="*", metavar="DOC_ID", help="what to remove")
    parser.add_argument("--domain", metavar="NAME", help="(default: the only one)")
    parser.add_argument("--all", action="store_true", help="remove the whole domain")


def _search_options(parser: Parser) -> None:
    query_options(parser)
    parser.add_argument("--domain", metavar="NAME", help="(default: the only one)")
    parser.add_argument(
        "--system",
        choices=["dense", "bm25", "min-max", "reciprocal-rank"],
        default="dense",
        help="the last two fuse dense and bm25 (default: %(default)s)",
    )
    parser.add_argument("--where", metavar="EXPR", help="""in Milvus's language, e.g. 'metadata["year"] == "2021"'""")
    encoder_options(parser)


# -- what they do --------------------------------------------------------------------------------------------------


def build(options: Options) -> None:
    """Embed documents: `build`, `add` and `update`."""
    from foreword.indexing.store import shown

    collection = load_collection(options, options.collection)
    domain = options.domain or collection.id
    with _open(options, create=options.command == "build") as index:
        if options.command != "build":
            index.info(domain)  # before a model is loaded
        encoder = load_encoder(options, prompt=chosen_prompt(options))
        how: dict[str, Any] = {"batch_size": options.batch_size, "quiet": options.json, "precision": options.precision}
        if options.command == "build":
            how["replace_all"] = options.replace
        begun = time.perf_counter()
        written: Written = getattr(index, options.command)(encoder, domain, collection.documents(), **how)
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
        encoder = load_encoder(options, prompt=chosen_prompt(options)) if options.system != "bm25" else None
        how = {"mode": options.system}
        if options.system in ("min-max", "reciprocal-rank"):
            how = {"mode": "hybrid", "fusion": options.system}

        def find(queries: Sequence[Query]) -> list[list[Answer]]:
            found = index.search(
                encoder,
                [query.text for query in queries],
                domain,
                k=hits_of(options),
                where=options.where,
                precision=options.precision,
                **how,
            )
            return [[_answer(hit) for hit in hits] for hits in found]

        answer(options, questions, find, how["mode"])


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


_ACTIONS = {
    "build": (
        "embed a collection into a domain, made where it is not there",
        Command(
            build,
            _build_options,
            "foreword index build notes.db my-notes --domain notes --prompt prompts/notes",
            shown="domain prompt replace index-type batch-size backbone data token",
        ),
    ),
    "add": (
        "embed documents into a domain that is there",
        Command(
            build,
            _writing_options,
            "foreword index add notes.db more --domain notes",
            shown="domain prompt batch-size backbone data token",
        ),
    ),
    "update": (
        "bring a domain up to its collection: new, changed and removed documents",
        Command(
            build,
            _writing_options,
            "foreword index update notes.db my-notes --domain notes",
            shown="domain prompt batch-size backbone data token",
        ),
    ),
    "delete": (
        "remove documents, or a whole domain",
        Command(delete, _delete_options, "foreword index delete notes.db a.txt b.txt --domain notes"),
    ),
    "search": (
        "search a domain",
        Command(
            search,
            _search_options,
            'foreword index search notes.db "how long do receipts keep" --domain notes --k 3',
            shown="domain k prompt system where format output backbone token",
        ),
    ),
    "stats": (
        "what an index holds, and what embedded it",
        Command(stats, lambda parser: None, "foreword index stats notes.db"),
    ),
}


# -- `foreword serve` ----------------------------------------------------------------------------------------------


PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "pydantic", "starlette")


def serve_options(parser: Parser) -> None:
    """What is served, where, and within which limits."""
    parser.add_argument(
        "collections", nargs="*", metavar=COLLECTION, help="embedded and searched in memory, e.g. a folder"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings in TOML; FOREWORD_SERVE_* and options are above them"
    )
    group = parser.add_argument_group("what is served")
    group.add_argument("--bank", type=Path, metavar=BANK, help="folder of prompts and mixtures")
    group.add_argument(
        "--prompt", type=Path, action="append", dest="prompts", metavar=PROMPT, help="a prompt more (again for others)"
    )
    group.add_argument(
        "--use",
        action="append",
        metavar="COLLECTION=PROMPT",
        help="search a collection with another's prompt (again for others)",
    )
    group.add_argument("--index", metavar="URI", help="a Milvus server, or the file of an embedded index")
    group.add_argument(
        "--milvus-collection", dest="index_collection", metavar="NAME", help="that holds the index (default: foreword)"
    )
    group.add_argument("--data", type=Path, metavar="DIR", help="folder of collections")
    group = parser.add_argument_group("backbone")
    group.add_argument("--backbone", metavar="NAME", help="folder or hub name (default: all-MiniLM-L6-v2)")
    group.add_argument("--revision", metavar="REV", help="of the backbone on the hub")
    group.add_argument("--device", metavar="DEVICE", help="as torch names it (default: an accelerator if there is one)")
    group.add_argument("--precision", choices=choices(Precision), help="(default: float32)")
    group.add_argument("--max-length", type=int, metavar="TOKENS", help="texts are cut to (default: the backbone's)")
    group = parser.add_argument_group("where")
    group.add_argument("--host", metavar="ADDRESS", help="(default: 127.0.0.1)")
    group.add_argument("--port", type=int, help="0: a free one (default: 8000)")
    group.add_argument("--root-path", metavar="PATH", help="that a reverse proxy serves this below")
    group = parser.add_argument_group("batches and limits")
    group.add_argument("--wait-ms", type=float, metavar="MS", help="a text waits for others (default: 3)")
    group.add_argument("--batch-tokens", type=int, metavar="N", help="in one forward pass (default: 8192)")
    group.add_argument("--batch-texts", type=int, metavar="N", help="in one forward pass (default: 64)")
    group.add_argument("--queue-texts", type=int, metavar="N", help="that may wait; beyond: 503 (default: 8192)")
    group.add_argument("--max-texts", type=int, metavar="N", help="in a request (default: 2048)")
    group.add_argument("--max-tokens", type=int, metavar="N", help="in a request (default: 300000)")
    group.add_argument("--max-body-bytes", type=int, metavar="N", help="of a request (default: 8388608)")
    group.add_argument("--stop-seconds", type=int, metavar="S", help="for pending requests (default: 30)")
    parser.add_argument("--dry-run", action="store_true", help="print the effective configuration and stop")


_OWN = ("run", "command", "parser", "json", "config", "dry_run")


def serve(options: Options) -> None:
    """Serve until told to stop."""
    from foreword.serving.config import read_config

    given: dict[str, Any] = {name: value for name, value in vars(options).items() if name not in _OWN}
    for name in ("collections", "prompts"):
        given[name] = tuple(given[name]) if given[name] else None
    given["use"] = None if given["use"] is None else dict(_pair(text, options.data) for text in given["use"])
    config = read_config(options.config, given)
    if options.dry_run:
        print_json(config.as_dict())
        return
    try:
        from foreword.serving.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in PACKAGES:
            raise
        raise ForewordError(f"foreword serve needs {error.name}: pip install 'foreword[serve]'") from error
    run(config)


def _pair(text: str, data: Path | None) -> tuple[str, str]:
    from foreword.collections.registry import full_id

    collection, equals, prompt = text.partition("=")
    if not equals or not collection or not prompt:
        raise UnknownNameError(f"--use is {text!r}; expected COLLECTION=PROMPT")
    return full_id(collection, data), prompt


COMMANDS = {
    "index": Command(
        search,
        index_options,
        'foreword index build notes.db my-notes\n  foreword index search notes.db "how long do receipts keep"',
    ),
    "serve": Command(
        serve,
        serve_options,
        "foreword serve my-notes pydoc/networkx --bank bank",
        shown="bank prompt use index config host port backbone device precision data dry-run",
    ),
}
