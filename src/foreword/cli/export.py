"""`foreword export`, `import`, `push` and `encode`: prompts and vectors for other tools, and the hub."""

from __future__ import annotations

import glob
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli import grammar as cli
from foreword.cli.engine import documents_of, engine_options, settings_of, shared_out
from foreword.cli.search import named_queries
from foreword.errors import DataError, ForewordError, PromptError
from foreword.files import (
    VECTORS,
    as_json,
    atomic_write,
    ids_file,
    kept_json,
    owned,
    read_json,
    sha256_file,
    write_json,
)
from foreword.settings import Side, choices
from foreword.tables import byte_size

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from foreword.collections.collection import Collection, Query
    from foreword.collections.registry import Part
    from foreword.prompts.routes import Route

    Block = tuple[Sequence[str], np.ndarray[Any, Any]]
    """n ids and their vectors (n, d)."""


FORMS = ("sentence-transformers", "plain", "peft", "onnx")


def export_options(parser: cli.Parser) -> None:
    """Which prompts, in which form."""
    parser.add_argument(
        "prompts",
        nargs="+",
        type=Path,
        metavar=f"{cli.PROMPT}|{cli.BANK}",
        help="folders of prompts or banks, or one mixture",
    )
    parser.add_argument(
        "--to",
        required=True,
        choices=FORMS,
        help="sentence-transformers: any prompt, needs Foreword to load; plain: input prompts after [CLS], as a model "
        "that needs sentence-transformers only; peft: adapter files; onnx: one graph that takes the prompts as inputs",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--default",
        metavar="DOMAIN",
        help="for sentence-transformers: the domain for texts that name none (default: the only one)",
    )
    parser.add_argument(
        "--max-length", type=int, metavar="TOKENS", help="truncate texts to (default: the backbone's limit)"
    )
    cli.encoder_options(parser, prompt=False, precision=None)


def import_options(parser: cli.Parser) -> None:
    """Which adapter, and where to."""
    parser.add_argument(
        "adapter", type=Path, metavar="DIR", help="folder with adapter_config.json, or with query/ and document/"
    )
    parser.add_argument("--domain", metavar="NAME", help="name of the prompt (default: the output folder's name)")
    parser.add_argument("--output", type=Path, required=True, metavar=cli.PROMPT, help="folder for the prompt")
    parser.add_argument(
        "--side",
        choices=["both", "query"],
        help="with one adapter: what it encodes, queries and documents or queries only (default: both)",
    )
    cli.encoder_options(parser, prompt=False, precision=None)


def push_options(parser: cli.Parser) -> None:
    """What is pushed, where to, and what its card says."""
    parser.add_argument(
        "folder", type=Path, metavar=f"{cli.PROMPT}|{cli.BANK}", help="the folder of a prompt, a mixture or a bank"
    )
    parser.add_argument("repository", metavar="USER/NAME", help="the repository; created if missing")
    parser.add_argument("--private", action="store_true", help="make a private repository")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to, created if missing (default: main)")
    parser.add_argument("--license", metavar="ID", help="licence of the prompt, in the hub's spelling, e.g. apache-2.0")
    parser.add_argument(
        "--results",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="output of foreword evaluate --json, for the card",
    )
    parser.add_argument("--no-card", action="store_true", help="do not change README.md on the hub")
    parser.add_argument("--message", metavar="TEXT", help="commit message")
    cli.dry_run_option(parser)


def run_export(options: cli.Options) -> None:
    """Export prompts."""
    from foreword.exporting import export_onnx, export_peft, export_plain, export_prompted
    from foreword.prompts.encoder import transformer_of
    from foreword.prompts.store import read_mixture_card

    if options.default is not None and options.to not in ("sentence-transformers", "plain"):
        raise ForewordError(f"--default is for a sentence-transformers model; there is none with --to {options.to}")
    if options.max_length is not None and options.to == "peft":
        raise ForewordError("--max-length does nothing with --to peft: an adapter's files do not say it")
    folders, mixture = prompt_folders(options.prompts)
    if mixture and options.to in ("plain", "peft"):
        raise ForewordError(
            f"{folders[0]} is a mixture of prompts, which --to {options.to} has no form of; foreword transfer --distil "
            "makes one prompt of it"
        )
    encoder = carrying(options, folders, mixture)
    names: list[str] = []
    notes: list[str] = []
    if options.to == "plain":
        names = [one.name for one in export_plain(encoder, options.output, default=options.default)]
    elif options.to == "peft":
        notes = export_peft(encoder, options.output)
    elif options.to == "onnx":
        name = str(read_mixture_card(folders[0])["domain"]) if mixture else ""
        export_onnx(encoder, options.output, routes={name: transformer_of(encoder).route} if mixture else None)
    else:
        export_prompted(encoder, options.output, default=options.default)
    if cli.printed_json(
        options, {"output": str(options.output), "to": options.to, "prompt_names": names, "notes": notes}
    ):
        return
    print(f"{options.output}: written")
    if names:
        print(f"prompt names: {', '.join(names)}")
    print(f"how to use it: {options.output / 'README.md'}")
    if notes:
        cli.say("note: PEFT runs this prompt otherwise unless told; the README says how")


def run_import(options: cli.Options) -> None:
    """Import a PEFT adapter."""
    from foreword.exporting import import_peft

    encoder = cli.load_encoder(options)
    domain = options.domain or options.output.name
    stored = import_peft(
        options.adapter, encoder, options.output, domain, sides="query" if options.side == "query" else None
    )
    spec = stored.prompt.spec
    about = {"prompt": str(options.output), "domain": domain}
    summary = {**about, **spec.as_dict(), "parameters": stored.card["parameters"]}
    if not stored.prompt.kind.among_words:
        cli.say(
            "note: PEFT trains a prefix with the text's positions moved by its length, Foreword runs it without; "
            "evaluate it before you rely on it"
        )
    if cli.printed_json(options, summary):
        return
    print(f"{options.output}: {spec.kind}, {spec.length} vectors, sides {spec.sides}; use it with --prompt")


def prompt_folders(paths: list[Path]) -> tuple[list[Path], bool]:
    """The folders of all prompts that the arguments name, and whether the one there is is a mixture."""
    from foreword.prompts.spec import CARD, MIXTURE_CARD, bank_folders
    from foreword.prompts.store import is_mixture

    found: list[Path] = []
    for path in paths:
        if is_mixture(path):
            if len(paths) > 1:
                raise PromptError(f"{path} is a mixture, which brings its own prompts; export it alone")
            return [path], True
        if (path / CARD).is_file():
            found.append(path)
            continue
        mixtures = sorted(card.parent.name for card in path.glob(f"*/{MIXTURE_CARD}"))
        if mixtures:
            raise PromptError(f"{path} holds mixtures ({', '.join(mixtures)}): export each alone, and prompts by name")
        below = bank_folders(path)
        if not below:
            raise PromptError(f"{path} holds no prompt, no mixture and no bank; give what foreword train wrote")
        found += below
    return found, False


def carrying(options: cli.Options, folders: list[Path], mixture: bool) -> SentenceTransformer:
    """The encoder with all prompts; a single one, or a mixture, encodes texts that name no domain."""
    from foreword.prompts.encoder import transformer_of
    from foreword.prompts.store import attach_prompt, load_prompt

    encoder = cli.load_encoder(options, prompt=folders[0])
    if mixture:
        return encoder
    transformer = transformer_of(encoder)
    for folder in folders[1:]:
        domain = load_prompt(folder).domain
        if domain in transformer.domains:
            raise PromptError(f"{folder}: another of the prompts is for {domain!r} too; export one of them")
        attach_prompt(encoder, folder)
    if len(folders) > 1:
        transformer.route = None
    return encoder


def run_push(options: cli.Options) -> None:
    """Push a prompt. The token is HF_TOKEN's, or what `hf auth login` stored: a command line is read by others."""
    from foreword.hub.push import plan_push
    from foreword.hub.push import push as upload

    card = {"licence": options.license, "results": options.results, "card": not options.no_card}
    if options.dry_run:
        plan, branch = plan_push(options.folder, options.repository, **card), options.revision or "main"
        about = {"repository": plan.repository, "kind": plan.contents.kind, "private": options.private}
        if cli.printed_json(options, {**about, "revision": branch, "files": plan.sizes, "card": plan.card}):
            return
        print(f"{plan.repository} ({branch}{', private' if options.private else ''}) would get")
        for name, size in plan.sizes.items():
            print(f"  {name}  {byte_size(size)}")
        if plan.card is not None:
            print(f"\nREADME.md:\n\n{plan.card}", end="")
        return
    done = upload(
        options.folder,
        options.repository,
        private=True if options.private else None,
        revision=options.revision,
        message=options.message,
        **card,
    )
    if cli.printed_json(options, vars(done)):
        return
    if options.license is None and not options.no_card:
        cli.say("the card states no licence, so nobody else may use the prompt; --license states one")
    removed = f", {len(done.removed)} files of an earlier prompt removed" if done.removed else ""
    total = byte_size(sum(done.files.values())) + ("" if done.changed else ", all there already")
    print(f"{done.url} ({done.revision}, {done.commit[:12]}): {len(done.files)} files, {total}{removed}")


def encode_options(parser: cli.Parser) -> None:
    """What is encoded, by what, and where to."""
    parser.add_argument("collection", nargs="?", metavar=cli.COLLECTION, help="e.g. pydoc/torch, or a folder")
    parser.add_argument("--side", choices=choices(Side), help="(default: document; with --queries: query)")
    parser.add_argument(
        "--queries",
        metavar="FILE",
        help="encode these queries instead of a collection: one per line, or .jsonl; -: standard input",
    )
    parser.add_argument("--split", help="split of the queries to encode (default: test)")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help=".npy (ids in a second file), .parquet or .jsonl"
    )
    types = ["float32", "float16", "int8"]
    parser.add_argument("--dtype", choices=types, default="float32", help="int8: directions (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="texts embedded at once (default: %(default)s)")
    cli.data_options(parser)
    cli.template_options(parser)
    cli.dry_run_option(parser)
    engine_options(parser)
    cli.encoder_options(parser)


def run_encode(options: cli.Options) -> None:
    """Encode documents or queries; what was done is written beside the vectors, last."""
    if (options.collection is None) == (options.queries is None):
        raise ForewordError("name a collection, e.g. folder:my-collection, or a file of --queries")
    if options.queries is not None and options.side == "document":
        raise ForewordError("--queries are queries; for documents give a collection, or a folder")
    side: Side = "query" if options.queries is not None or options.side == "query" else "document"
    if options.split is not None and (side == "document" or options.collection is None):
        raise ForewordError("--split is for the queries of a collection (--side query)")
    cli.needs(options, "engine", side == "document", "shares out documents; queries are few")
    cli.needs(options, "workers", options.engine is not None, "is of an --engine")
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
        cli.print_json(
            {**about, "output": str(options.output), "prompt": str(options.prompt), "backbone": options.backbone}
        )
        return
    with owned(options.output, file=True):
        record = (_write if options.engine is None else _write_parts)(options, side, about)
    if cli.printed_json(options, record):
        return
    length = "of unit length" if record["unit_length"] else "of any length"
    files = f" in {len(record['files'])} files" if "files" in record else ""
    vectors = f"{record['rows']:,} vectors of {record['width']} numbers ({options.dtype}, {length})"
    print(f"{options.output}: {vectors}{files}")


def _check_beside(options: cli.Options) -> None:
    """Raise `DataError` where a file of the user's would be lost: the queries, or one with the record's name."""
    if options.queries not in (None, "-") and Path(options.queries).resolve() == options.output.resolve():
        raise DataError("holds the queries themselves; give another --output", path=options.output)
    path = options.output.with_suffix(".json")
    try:
        ours = not path.exists() or read_json(path).get("format") == VECTORS
    except (DataError, AttributeError):  # no JSON, or no object
        ours = False
    if not ours:
        raise DataError(
            "is there already and no record of vectors, which would be here; name --output otherwise", path=path
        )


def _write(options: cli.Options, side: Side, about: dict[str, Any]) -> dict[str, Any]:
    """Write the vectors, then the record beside them; returns the record."""
    collection = cli.load_collection(options, options.collection) if options.collection is not None else None
    encoder = cli.load_encoder(options, prompt=cli.chosen_prompt(options))
    made = about | _made_by(options, encoder, side)
    record = _write_one(options, options.output, encoder, side, collection, made)
    _remove_parts(options.output.absolute())
    return record


def _made_by(options: cli.Options, encoder: SentenceTransformer, side: Side) -> dict[str, Any]:
    """What the record says of how the vectors are made."""
    from foreword.evaluation.candidates import side_fingerprint
    from foreword.prompts.encoder import head_of, resolve_precision, transformer_of
    from foreword.prompts.store import describe_backbone

    unit, directions = head_of(encoder).similarity == "cosine", options.dtype == "int8"
    if directions and not unit:
        raise ForewordError("int8 keeps directions, and this model's vectors have lengths; use --dtype float16")
    return {
        "precision": resolve_precision(options.precision, encoder.device),
        "width": encoder.get_embedding_dimension() or 0,
        "unit_length": unit and not directions,
        "max_length": transformer_of(encoder).max_seq_length,
        "backbone": describe_backbone(encoder),
        "prompt": {
            "path": None if options.prompt == "none" else str(options.prompt),
            "fingerprint": side_fingerprint(encoder, side),
        },
        "templates": {"query": options.query_template, "document": options.document_template},
    }


def _write_one(
    options: cli.Options,
    output: Path,
    encoder: SentenceTransformer,
    side: Side,
    collection: Collection | None,
    made: dict[str, Any],
) -> dict[str, Any]:
    """Write a file of vectors, then its record: how they are `made`, and what the file holds."""
    from foreword.prompts.store import library_versions

    record_path = output.with_suffix(".json")
    write_json(record_path, {"format": VECTORS, "complete": False})  # until all of one write is there
    blocks = _blocks(options, side, encoder, collection)
    try:
        rows = write_vectors(output, blocks, made["width"], dtype=options.dtype, side=side)
    except BaseException:
        if not output.exists():
            record_path.unlink()
        raise
    record = {
        "format": VECTORS,
        "complete": True,
        **made,
        "rows": rows,
        "sha256": sha256_file(output),
        **({"ids_sha256": sha256_file(ids_file(output))} if output.suffix == ".npy" else {}),
        "versions": library_versions(),
    }
    write_json(record_path, record)
    return record


def _write_parts(options: cli.Options, side: Side, about: dict[str, Any]) -> dict[str, Any]:
    """Write a file of vectors for each part of the collection, by many processes, and the record of all of them last.

    The parts' files are `NAME-00000-of-00064.parquet`, each with a record of its own: of text and settings as they are,
    it says that the file need not be made again.
    """
    given = cli.Options(**settings_of(options))
    output: Path = given.output
    encoder = cli.load_encoder(given, prompt=cli.chosen_prompt(given))
    made = {**about, "collection": given.collection, **_made_by(given, encoder, side)}
    settings = {"options": {**vars(given), "precision": made["precision"]}, "made": made}

    def name(number: int, of: int) -> Path:
        return output.with_name(f"{output.stem}-{number:05d}-of-{of:05d}{output.suffix}")

    write_json(output.with_suffix(".json"), {"format": VECTORS, "complete": False})
    parts = dict(shared_out(given, part_writer, settings, name))
    files = sorted(parts)
    for path in (output, ids_file(output)):  # one file of all parts
        path.unlink(missing_ok=True)
    _remove_parts(output, files)
    if kept := sum(parts[path]["kept"] for path in files):
        cli.say(f"{kept} of {len(files)} parts were there already")
    rows = sum(parts[path]["rows"] for path in files)
    record = {"format": VECTORS, "complete": True, **made, "rows": rows, "files": [path.name for path in files]}
    write_json(output.with_suffix(".json"), record)
    return record


def _remove_parts(output: Path, but: Sequence[Path] = ()) -> None:
    """Remove the files of parts that an earlier write to the same name left, so that each document is there once."""
    for record in output.parent.glob(f"{glob.escape(output.stem)}-?????-of-?????.json"):
        path = record.with_suffix(output.suffix)
        if path not in but and (kept_json(record) or {}).get("format") == VECTORS:
            for one in (path, ids_file(path), record):
                one.unlink(missing_ok=True)


def part_writer(options: dict[str, Any], made: dict[str, Any]) -> Callable[[tuple[Part, Path]], dict[str, Any]]:
    """What writes the vectors of one part to its file, in a process of an engine; see `_write_parts`."""
    from foreword.collections.collection import fingerprint

    given = cli.Options(**options)
    side: Side = made["side"]

    @cache
    def encoder() -> SentenceTransformer:
        loaded = cli.load_encoder(given, prompt=cli.chosen_prompt(given))
        here = as_json(_made_by(given, loaded, side))
        if other := [key for key in here if here[key] != as_json(made[key])]:
            raise ForewordError(f"the encoder on {platform.node()} has another {', '.join(other)} than the one here")
        return loaded

    def write(piece: tuple[Part, Path]) -> dict[str, Any]:
        part, output = piece
        collection, ids = documents_of(given, part)
        mine = {**made, "part": part, "documents_sha256": fingerprint(collection, ())}
        with owned(output, file=True):
            record = kept_json(output.with_suffix(".json")) or {}
            kept = output.is_file() and as_json({**record, **mine}) == record and record["complete"]
            if not kept:
                record = _write_one(given, output, encoder(), side, collection, mine)
        return {"rows": record["rows"], "kept": kept, "ids": ids}

    return write


def _blocks(
    options: cli.Options, side: Side, encoder: SentenceTransformer, collection: Collection | None
) -> Iterator[tuple[Any, Any]]:
    """Ids and vectors, a block at a time."""
    from foreword.prompts.encoder import encode as embed
    from foreword.prompts.encoder import transformer_of
    from foreword.retrieval.passages import Coverage
    from foreword.retrieval.search import document_blocks

    how: dict[str, Any] = {"precision": options.precision, "batch_size": options.batch_size, "quiet": options.json}
    if side == "document":
        assert collection is not None
        route: Route = transformer_of(encoder).route
        coverage = Coverage()
        yield from document_blocks(encoder, collection, route=route, passages=False, coverage=coverage, **how)
        if coverage.left_out:
            cli.say(f"{collection.id}: {coverage}")
        return
    queries = list(read_queries(options.queries) if collection is None else collection.queries(options.split or "test"))
    yield [query.query_id for query in queries], embed(encoder, [q.text for q in queries], "query", **how)


def read_queries(name: str) -> Iterable[Query]:
    """The queries in a file: `.jsonl` with `_id` (or `query_id`, `id`) and `text`, else a line each.

    A line is a query, named q0, q1, ... by its place, or a name, a tab and the query. `-`: standard input, a line each.
    """
    from foreword.collections.collection import Query
    from foreword.files import json_lines, text_lines

    path = Path(name)
    if name != "-" and not path.is_file():
        raise DataError("no such file; give queries a line each, or as .jsonl with _id and text", path=path)
    if path.suffix != ".jsonl":
        yield from named_queries(line for _, line in text_lines(None if name == "-" else path))
        return
    for number, row in json_lines(path):
        key = next((key for key in ("_id", "query_id", "id") if row.get(key) is not None), None)
        if key is None or not isinstance(row.get("text"), str):
            shown = json.dumps(row, ensure_ascii=False)[:80]
            raise DataError(f"expected an object with _id and text, got {shown}", path=path, line=number)
        yield Query(str(row[key]), row["text"])


# `.npy` and `.parquet` are what `foreword train --documents` reads (`foreword.training.vectors.read_vectors`).


SUFFIXES = (".npy", ".parquet", ".jsonl")


def check_target(path: Path) -> None:
    """Raise `DataError` unless `write_vectors` knows the form that the name's ending asks for."""
    if path.suffix not in SUFFIXES:
        message = f"vectors are written as {', '.join(SUFFIXES)}, not as {path.suffix or 'a file without an ending'}"
        raise DataError(message, path=path)


def write_vectors(path: Path, blocks: Iterable[Block], width: int, *, dtype: str, side: Side) -> int:
    """Write blocks of vectors, holding one at a time; the file appears when it is whole.

    `.npy`: an array (N, d) with the ids in `ids_file`; `.parquet`: columns `doc_id` (or, of queries, `query_id`) and
    `vector`; `.jsonl`: an object with these two a line, its decimal numbers giving back those of `dtype` (`float32`,
    `float16`, or `int8`: directions, see `to_int8`). An empty file has the `width` d, too. N is returned. Raises
    `DataError` for an id that occurs twice, or numbers beyond `dtype`.
    """
    import numpy as np

    check_target(path)
    key = "doc_id" if side == "document" else "query_id"
    checked = _checked(blocks, dtype)
    if path.suffix == ".npy":
        return _write_npy(path, checked, width, np.dtype(dtype))
    if path.suffix == ".parquet":
        return _write_parquet(path, checked, width, dtype, key)
    count = 0
    with atomic_write(path) as file:
        for ids, vectors in checked:
            for one, vector in zip(ids, vectors, strict=True):
                # str of a numpy number is the shortest decimal that reads back as that number.
                file.write(f'{{"{key}": {json.dumps(one)}, "vector": [{", ".join(map(str, vector))}]}}\n')
            count += len(ids)
    return count


def _checked(blocks: Iterable[Block], dtype: str) -> Iterator[Block]:
    """The blocks in `dtype`, with ids that occur once and finite numbers."""
    import numpy as np

    from foreword.retrieval.search import to_int8

    seen: set[str] = set()
    for ids, given in blocks:
        with np.errstate(over="ignore"):  # said below
            vectors = given if dtype == "int8" else given.astype(dtype, copy=False)
        if not np.isfinite(vectors).all():
            raise DataError(f"the vectors hold NaN, or numbers beyond {dtype}; write them as float32")
        for one in ids:
            if one in seen:
                raise DataError(f"id {one!r} occurs twice; vectors are told apart by their ids")
            seen.add(one)
        yield ids, to_int8(vectors) if dtype == "int8" else vectors


def _write_npy(path: Path, blocks: Iterable[Block], width: int, dtype: np.dtype[Any]) -> int:
    import numpy as np

    count = 0
    with ExitStack() as files:
        rows = files.enter_context(atomic_write(path, "wb"))
        names = files.enter_context(atomic_write(ids_file(path)))

        def header() -> None:
            described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count, width)}
            np.lib.format.write_array_header_1_0(rows, described)

        header()
        start = rows.tell()
        for ids, vectors in blocks:
            odd = [one for one in ids if not one or "\n" in one or "\r" in one]
            if odd:
                message = f"id {odd[0]!r} is empty or holds a line end, which a list of ids cannot; write a .parquet"
                raise DataError(message, path=path)
            names.writelines(f"{one}\n" for one in ids)
            rows.write(np.ascontiguousarray(vectors).tobytes())
            count += len(ids)
        rows.seek(0)
        header()
        if rows.tell() != start:  # numpy leaves room in the header for a longer first axis
            raise DataError(f"{count} rows do not fit numpy's header; write a .parquet", path=path)
    return count


def _write_parquet(path: Path, blocks: Iterable[Block], width: int, dtype: str, key: str) -> int:
    import numpy as np
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    kind = arrow.list_(arrow.from_numpy_dtype(dtype))
    schema = arrow.schema([(key, arrow.string()), ("vector", kind)])
    count = 0
    with atomic_write(path, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        for ids, vectors in blocks:
            offsets = arrow.array(np.arange(len(ids) + 1, dtype=np.int32) * width)
            lists = arrow.ListArray.from_arrays(offsets, arrow.array(vectors.ravel(), type=kind.value_type))
            writer.write_table(arrow.Table.from_arrays([arrow.array(ids, arrow.string()), lists], schema=schema))
            count += len(ids)
    return count
