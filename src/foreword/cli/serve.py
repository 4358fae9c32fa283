"""`foreword index build|add|update|delete|search|stats`, and `foreword serve`."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli import grammar as cli
from foreword.cli.engine import documents_of, engine_options, settings_of, shared_out
from foreword.cli.search import Answer, answer, asked, form_of, hits_of, named, query_options
from foreword.errors import ForewordError, UnknownNameError
from foreword.tables import byte_size

if TYPE_CHECKING:
    from foreword.collections.collection import Query
    from foreword.collections.registry import Part
    from foreword.indexing import DomainInfo, Index, Written
    from foreword.retrieval.passages import Coverage


TOKEN = "FOREWORD_MILVUS_TOKEN"
"""The environment's variable for a server's token, which a command line would show to everyone on the machine."""


def index_options(parser: cli.Parser) -> None:
    """The actions."""
    cli.add_commands(parser, "ACTION", title="actions", above="index")


def index_build_options(parser: cli.Parser) -> None:
    """What is embedded, into which index."""
    index_add_options(parser)
    parser.add_argument(
        "--replace", action="store_true", help="empty the domain first, e.g. to embed it with another prompt"
    )
    parser.add_argument(
        "--index-type",
        metavar="TYPE",
        help="Milvus index type of a new index: FLAT, HNSW, ... (default: exact in a file, AUTOINDEX on a server)",
    )
    engine_options(parser)


def index_add_options(parser: cli.Parser) -> None:
    """What is embedded, into which index that is there."""
    index_stats_options(parser)
    parser.add_argument("collection", metavar=cli.COLLECTION, help="e.g. my-notes, pydoc/torch")
    parser.add_argument("--domain", metavar="NAME", help="name of the domain (default: the collection's id)")
    cli.data_options(parser)
    parser.add_argument("--document-template", metavar="T", help="(default: '{title} {text}')")
    parser.add_argument("--batch-size", type=int, default=64, help="texts per forward pass (default: %(default)s)")
    cli.passages_option(parser, "as in the existing domain; passages for a new one")
    cli.encoder_options(parser)


index_update_options = index_add_options


def index_delete_options(parser: cli.Parser) -> None:
    """What is removed."""
    index_stats_options(parser)
    parser.add_argument("doc_ids", nargs="*", metavar="DOC_ID", help="ids of documents to remove")
    parser.add_argument("--domain", metavar="NAME", help="domain (default: the only one)")
    parser.add_argument("--all", action="store_true", help="remove the whole domain")


def index_search_options(parser: cli.Parser) -> None:
    """What is asked, and by what it is found."""
    index_stats_options(parser)
    query_options(parser)
    parser.add_argument("--domain", metavar="NAME", help="domain (default: the only one)")
    cli.system_option(parser)
    parser.add_argument(
        "--where", metavar="EXPR", help="""Milvus filter expression, e.g. 'metadata["year"] == "2021"'"""
    )
    cli.encoder_options(parser)


def index_stats_options(parser: cli.Parser) -> None:
    """Where the index is."""
    parser.add_argument("uri", metavar="INDEX", help="a file (notes.db), or a Milvus server (http://host:19530)")
    group = parser.add_argument_group("Milvus")
    group.add_argument("--token", help=f"token of a server: user:password or an API key (default: {TOKEN})")
    group.add_argument(
        "--milvus-collection",
        default="foreword",
        metavar="NAME",
        help="Milvus collection with the index (default: %(default)s)",
    )


def run_index_build(options: cli.Options) -> None:
    """Embed documents: `build`, `add` and `update`."""
    from foreword.collections.folder import folder_of
    from foreword.evaluation.hybrid import weighed_by
    from foreword.indexing.store import shown
    from foreword.retrieval.passages import Coverage

    engine = getattr(options, "engine", None)
    if options.command == "build":
        cli.needs(options, "workers", engine is not None, "is of an --engine")
    collection = cli.load_collection(options, options.collection)
    domain = options.domain or collection.id
    with _open(options, create=options.command == "build") as index:
        if options.command != "build":
            index.info(domain)  # before a model is loaded
        begun = time.perf_counter()
        before, coverage = index.domains().get(domain), Coverage()
        written = None
        as_before = before is not None and (options.command == "add" or before.weighed == weighed_by(collection, None))
        known = engine is None and before is not None and before.hybrid is not None and as_before
        if known and before is not None and _is_usual(options, before):
            written = index.unchanged(domain, collection.documents(), all_of_them=options.command == "update")
        if written is None:
            from foreword.evaluation.candidates import side_fingerprint  # loads torch

            encoder = cli.load_encoder(options, prompt=cli.chosen_prompt(options))
            how: dict[str, Any] = {"batch_size": options.batch_size, "quiet": options.json}
            how |= {"precision": options.precision, "folder": folder_of(collection)}
            how |= {"passages": options.passages, "coverage": coverage}
            if options.command == "build":
                how["replace_all"] = options.replace
            if engine is not None:
                how["parts"] = partial(_parts, options, domain, index.address, coverage)
            begun = time.perf_counter()
            written = getattr(index, options.command)(encoder, domain, collection.documents(), **how)
            own = index.info(domain)
            other = written.added + written.changed + written.removed
            other = other or own.weighed != weighed_by(collection, side_fingerprint(encoder, "query"))
            if own.hybrid is None or (other and options.command != "add"):
                index.weigh(encoder, domain, collection, precision=options.precision)
        info = index.info(domain)
    seconds = time.perf_counter() - begun
    if options.json:
        found = {"domain": domain, **written.as_dict(), "documents": info.documents, "hybrid": info.weight.as_dict()}
        cli.print_json({**found, "text": coverage.as_dict(), "seconds": round(seconds, 3)})
        return
    counts = ", ".join(f"{count:,} {name}" for name, count in written.as_dict().items() if count) or "nothing to do"
    print(f"{domain}: {counts}; {info.documents:,} documents in {shown(options.uri)}, {seconds:.1f} s")
    if coverage.whole < coverage.documents:
        unasked = options.passages is None and not info.stamp.passages
        print(f"text: {coverage}{' (as before; --replace makes passages)' if unasked else ''}")
    print(info.weight)


run_index_add = run_index_update = run_index_build


def _parts(options: cli.Options, domain: str, address: str, coverage: Coverage) -> Written:
    """Have each part of a collection embedded and written by many processes; what became of the documents."""
    from foreword.indexing.write import Written

    values = {**settings_of(options), "uri": address, "domain": domain, "token": _token(options)}
    given, counts = cli.Options(**values), Counter[str]()
    alone = address != options.uri
    for _, said in shared_out(given, index_part, {"options": values}, lambda number, of: number, one_machine=alone):
        counts.update(said["written"])
        for name, count in said["text"].items():
            setattr(coverage, name, getattr(coverage, name) + count)
    return Written(**counts)


def index_part(options: dict[str, Any]) -> Callable[[tuple[Part, int]], dict[str, Any]]:
    """What embeds one part into the index of another process, or of a server, in a process of an engine."""
    from foreword.indexing import Index
    from foreword.retrieval.passages import Coverage

    given = cli.Options(**options)
    encoder = cli.load_encoder(given, prompt=cli.chosen_prompt(given))
    index = Index.open(given.uri, given.milvus_collection, given.token)
    how = {"batch_size": given.batch_size, "precision": given.precision, "passages": given.passages, "part": True}

    def write(piece: tuple[Part, int]) -> dict[str, Any]:
        collection, ids = documents_of(given, piece[0])
        coverage = Coverage()
        written = index.build(encoder, given.domain, collection.documents(), coverage=coverage, **how)
        return {"written": written.as_dict(), "text": vars(coverage), "ids": ids}

    return write


def _is_usual(options: cli.Options, info: DomainInfo) -> bool:
    """Whether the options name what embedded a domain by the base model; a folder may hold another model by now."""
    asked = (options.revision, options.pooling, options.normalize, options.max_length, options.passages)
    named = info.stamp.backbone["name"] == options.backbone and not Path(options.backbone).exists()
    base = options.prompt == "none" and info.prompt == "base" and options.passages in (None, info.stamp.passages)
    return named and base and all(value is None for value in asked) and not getattr(options, "replace", False)


def run_index_delete(options: cli.Options) -> None:
    """Remove documents or a domain."""
    if bool(options.doc_ids) == options.all:
        raise ForewordError("say which documents to remove, by their ids, or --all for the whole domain")
    with _open(options) as index:
        domain = _domain(index, options.domain)
        before = index.info(domain).documents
        removed = index.delete(domain, None if options.all else options.doc_ids)
    if cli.printed_json(options, {"domain": domain, "removed": removed, "documents": before - removed}):
        return
    print(f"{domain}: {removed:,} removed, {before - removed:,} left")
    if not options.all and removed < len(set(options.doc_ids)):
        cli.say(f"{len(set(options.doc_ids)) - removed} of the ids were not there")


_SHOWN = ("doc_id", "domain", "rank", "score", "title", "text", "metadata", "passage")


def run_index_search(options: cli.Options) -> None:
    """Search a domain."""
    form_of(options)  # before anything is read
    cli.needs(options, "bm25_weight", options.system == "hybrid", "is for --system hybrid")
    questions = asked(options)
    with _open(options) as index:
        domain = _domain(index, options.domain)
        if not index.info(domain).complete:
            cli.say(f"{domain}: not all of its documents were written; run the interrupted command again to continue")
        encoder = cli.load_encoder(options, prompt=cli.chosen_prompt(options)) if options.system != "bm25" else None
        weight = None
        if options.system == "hybrid":
            from foreword.evaluation.hybrid import HybridWeight

            given = options.bm25_weight
            weight = index.info(domain).weight if given is None else HybridWeight(given, "you")
            cli.say(str(weight))

        def find(queries: Sequence[Query]) -> list[list[Answer]]:
            found = index.search(
                encoder,
                [query.text for query in queries],
                domain,
                k=hits_of(options),
                where=options.where,
                mode=options.system,
                bm25_weight=options.bm25_weight,
                precision=options.precision,
            )
            return [
                [
                    Answer(
                        hit.doc_id,
                        hit.score,
                        named(hit.name, hit.passage),
                        hit.text,
                        {name: getattr(hit, name) for name in _SHOWN},
                    )
                    for hit in hits
                ]
                for hits in found
            ]

        answer(options, questions, find, options.system, weight)


def run_index_stats(options: cli.Options) -> None:
    """What an index holds."""
    with _open(options) as index:
        found = index.stats()
    if cli.printed_json(options, found):
        return
    size = "" if found["bytes"] is None else f", {byte_size(found['bytes'])}"
    print(f"{found['uri']} ({found['server']}): {found['documents']:,} documents{size}")
    print(
        f"backbone {found['backbone']['name']}, vectors of width {found['dimension']}, {found['metric']}, "
        f"index {found['index_type']}"
    )
    rows = [
        (
            name,
            f"{info['documents']:,}",
            f"{info['embedded_by']}{', in passages' if info['passages'] else ''}",
            "complete" if info["complete"] else "unfinished",
        )
        for name, info in found["domains"].items()
    ]
    cli.print_table("", ("domain", "documents", "embedded by", "state"), rows)


def _open(options: cli.Options, *, create: bool = False) -> Index:
    from foreword.indexing import Index

    made = {"index_type": options.index_type} if create else {}
    return Index.open(options.uri, options.milvus_collection, _token(options), create, **made)


def _token(options: cli.Options) -> str | None:
    from foreword.indexing.store import local_path

    return options.token or (os.environ.get(TOKEN) if local_path(options.uri) is None else None)


def _domain(index: Index, name: str | None) -> str:
    """The domain asked for, or the only one there is."""
    if name is not None:
        return name
    names = list(index.domains())
    if len(names) != 1:
        raise ForewordError(f"say which domain (--domain); there are: {', '.join(names) or 'none'}")
    return names[0]


PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "pydantic", "starlette")


def serve_options(parser: cli.Parser) -> None:
    """What is served, where, and within which limits."""
    from foreword.serving.config import ServeConfig

    parser.add_argument(
        "collections",
        nargs="*",
        metavar=cli.COLLECTION,
        help="collections to embed and search in memory, e.g. a folder",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings in TOML; FOREWORD_SERVE_* and options override them"
    )
    group = parser.add_argument_group("what is served")
    group.add_argument("--bank", type=Path, metavar=cli.BANK, help="folder of prompts and mixtures")
    group.add_argument(
        "--prompt",
        type=Path,
        action="append",
        dest="prompts",
        metavar=cli.PROMPT,
        help="a further prompt (repeatable)",
    )
    group.add_argument(
        "--use",
        action="append",
        metavar="COLLECTION=PROMPT",
        help="search a collection with the prompt of another domain (repeatable)",
    )
    cli.settings_options(group, ServeConfig, ("index", "index_collection=milvus-collection", "data", "labels"))
    backbone = ("backbone", "revision", "device", "precision", "max_length", "passages")
    cli.settings_options(parser.add_argument_group("backbone"), ServeConfig, backbone)
    cli.settings_options(parser.add_argument_group("where"), ServeConfig, ("host", "port", "root_path"))
    limits = ("wait_ms", "batch_tokens", "batch_texts", "queue_texts", "max_texts", "max_tokens", "max_body_bytes")
    cli.settings_options(parser.add_argument_group("batches and limits"), ServeConfig, (*limits, "stop_seconds"))
    cli.dry_run_option(parser)


def run_serve(options: cli.Options) -> None:
    """Serve until told to stop."""
    from foreword.collections.registry import full_id
    from foreword.serving.config import ServeConfig, read_config

    chosen = cli.given(options, ServeConfig)
    for name in ("collections", "prompts"):
        chosen[name] = tuple(chosen.get(name, ())) or None
    if "use" in chosen:
        pairs = [text.partition("=") for text in chosen["use"]]
        for text, (collection, _, prompt) in zip(chosen["use"], pairs, strict=True):
            if not collection or not prompt:
                raise UnknownNameError(f"--use is {text!r}; expected COLLECTION=PROMPT")
        chosen["use"] = {full_id(collection, options.data): prompt for collection, _, prompt in pairs}
    config = read_config(options.config, chosen)
    if options.dry_run:
        cli.print_json(config.as_dict())
        return
    try:
        from foreword.serving.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in PACKAGES:
            raise
        raise ForewordError(f"foreword serve needs {error.name}: pip install 'foreword[serve]'") from error
    run(config)
