"""`foreword encode`: vectors in a file, for an index elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli.grammar import (
    Add,
    Options,
    chosen_prompt,
    data_options,
    dry_run_option,
    encoder_options,
    load_collection,
    load_encoder,
    print_json,
    template_options,
)
from foreword.cli.search import named_queries
from foreword.errors import DataError, ForewordError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.collections.collection import Collection, Query
    from foreword.prompts.routes import Route
    from foreword.settings import Side


FORMAT = "foreword-vectors/1"


def add(command: Add) -> None:
    """The grammar of the command."""
    parser = command(
        "encode",
        encode,
        "write the vectors of documents or queries to a file, for an index elsewhere",
        "foreword encode folder:my-collection --side document --output vectors.npy",
    )
    parser.add_argument("collection", nargs="?", metavar="COLLECTION", help="e.g. pydoc/torch, folder:PATH")
    parser.add_argument("--side", choices=["document", "query"], help="(default: document; of --queries, query)")
    parser.add_argument(
        "--queries", metavar="FILE", help="these instead of a collection: a query a line, or .jsonl; -: standard input"
    )
    parser.add_argument("--split", help="of the collection's queries (default: test)")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help=".npy (ids beside it), .parquet or .jsonl"
    )
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="texts embedded at once (default: %(default)s)")
    data_options(parser)
    template_options(parser)
    dry_run_option(parser)
    encoder_options(parser)


def encode(options: Options) -> None:
    """Encode documents or queries; what was done is written beside the vectors, last."""
    from foreword.cli.vectors import check_target

    side = _side(options)
    check_target(options.output)
    _check_beside(options)
    about: dict[str, Any] = {
        "collection": options.collection,
        "queries": options.queries,
        "side": side,
        "split": (options.split or "test") if side == "query" and options.collection else None,
        "dtype": options.dtype,
        "precision": options.precision,
    }
    if options.dry_run:
        print_json(
            {**about, "output": str(options.output), "prompt": str(options.prompt), "backbone": options.backbone}
        )
        return
    record = _write(options, side, about)
    if options.json:
        print_json(record)
        return
    length = "of unit length" if record["unit_length"] else "of any length"
    print(f"{options.output}: {record['rows']:,} vectors of {record['width']} numbers ({options.dtype}, {length})")


def _side(options: Options) -> Side:
    """Which side is encoded. Raises `ForewordError` for options that contradict each other."""
    if (options.collection is None) == (options.queries is None):
        raise ForewordError("name a collection, e.g. folder:my-collection, or a file of --queries")
    if options.queries is not None and options.side == "document":
        raise ForewordError("--queries are queries; for documents give a collection, e.g. folder:PATH")
    side: Side = "query" if options.queries is not None or options.side == "query" else "document"
    if options.split is not None and (side == "document" or options.collection is None):
        raise ForewordError("--split is for the queries of a collection (--side query)")
    return side


def _check_beside(options: Options) -> None:
    """Raise `DataError` where a file of the user's would be lost: the queries, or one with the record's name."""
    if options.queries not in (None, "-") and Path(options.queries).resolve() == options.output.resolve():
        raise DataError("holds the queries themselves; give another --output", path=options.output)
    path = options.output.with_suffix(".json")
    try:
        ours = not path.exists() or json.loads(path.read_text(encoding="utf-8")).get("format") == FORMAT
    except (ValueError, AttributeError):  # no JSON, or no object
        ours = False
    if not ours:
        raise DataError(
            "is there already and no record of vectors, which would be here; name --output otherwise", path=path
        )


def _write(options: Options, side: Side, about: dict[str, Any]) -> dict[str, Any]:
    """Write the vectors, then the record beside them; returns the record."""
    from foreword.cli.vectors import write_vectors
    from foreword.evaluation.candidates import side_fingerprint
    from foreword.files import sha256_file, write_json
    from foreword.prompts.encoder import head_of, resolve_precision, transformer_of
    from foreword.prompts.store import describe_backbone, library_versions

    collection = load_collection(options, options.collection) if options.collection is not None else None
    encoder = load_encoder(options, prompt=chosen_prompt(options))
    width = encoder.get_embedding_dimension() or 0
    record_path = options.output.with_suffix(".json")
    record_path.unlink(missing_ok=True)  # while the vectors change, nothing is said of them
    blocks = _blocks(options, side, encoder, collection)
    rows = write_vectors(options.output, blocks, width, dtype=options.dtype, side=side)
    transformer = transformer_of(encoder)
    record = {
        "format": FORMAT,
        **about,
        "precision": resolve_precision(options.precision, encoder.device),
        "rows": rows,
        "width": width,
        "unit_length": head_of(encoder).similarity == "cosine",
        "max_length": transformer.max_seq_length,
        "backbone": describe_backbone(encoder),
        "prompt": {
            "path": None if options.prompt == "none" else str(options.prompt),
            "fingerprint": side_fingerprint(encoder, side),
        },
        "templates": {"query": options.query_template, "document": options.document_template},
        "sha256": sha256_file(options.output),
        "versions": library_versions(),
    }
    write_json(record_path, record)
    return record


def _blocks(
    options: Options, side: Side, encoder: SentenceTransformer, collection: Collection | None
) -> Iterator[tuple[Any, Any]]:
    """Ids and vectors, a block at a time."""
    from foreword.prompts.encoder import encode as embed
    from foreword.prompts.encoder import transformer_of
    from foreword.retrieval.search import document_blocks

    how: dict[str, Any] = {"precision": options.precision, "batch_size": options.batch_size, "quiet": options.json}
    if side == "document":
        assert collection is not None
        route: Route = transformer_of(encoder).route
        yield from document_blocks(encoder, collection, route=route, **how)
        return
    queries = list(read_queries(options.queries) if collection is None else collection.queries(options.split or "test"))
    yield [query.query_id for query in queries], embed(encoder, [q.text for q in queries], "query", **how)


def read_queries(name: str) -> Iterable[Query]:
    """The queries in a file: `.jsonl` with `_id` (or `query_id`, `id`) and `text`, else a line each.

    A line is a query, named q0, q1, ... by its place, or a name, a tab and the query.

    Args:
        name: a path; `-`: standard input, a line each.

    Raises:
        DataError: no such file, one that is not UTF-8, or a line that is not of this form.
    """
    from foreword.collections.collection import Query, json_lines, text_lines

    path = Path(name)
    if name != "-" and not path.is_file():
        raise DataError("no such file; give queries a line each, or as .jsonl with _id and text", path=path)
    if path.suffix != ".jsonl":
        lines = sys.stdin if name == "-" else (line for _, line in text_lines(path))
        yield from named_queries(lines)
        return
    for number, row in json_lines(path):
        key = next((key for key in ("_id", "query_id", "id") if row.get(key) is not None), None)
        if key is None or not isinstance(row.get("text"), str):
            shown = json.dumps(row, ensure_ascii=False)[:80]
            raise DataError(f"expected an object with _id and text, got {shown}", path=path, line=number)
        yield Query(str(row[key]), row["text"])
