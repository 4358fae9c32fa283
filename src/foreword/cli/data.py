"""`foreword collections`, `download` and `mine`: collections and their files."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foreword.cli import grammar as cli
from foreword.errors import ForewordError, UnknownNameError
from foreword.files import read_json
from foreword.tables import byte_size


def collections_options(parser: cli.Parser) -> None:
    """What is listed."""
    cli.data_options(parser)
    parser.add_argument("--group", metavar="GROUP", help="only this group, e.g. beir, cqadupstack, oag-qa, dpr, pydoc")
    parser.add_argument("--seen", action="store_true", help="list which backbones were trained on which collections")


def download_options(parser: cli.Parser) -> None:
    """What is downloaded, from where; and what is drawn from it."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="collections or groups: beir/nfcorpus, dpr, glasgow")
    cli.data_options(parser)
    parser.add_argument("--mirror", action="append", default=[], metavar="URL", help="mirror to try first (repeatable)")
    parser.add_argument("--offline", action="store_true", help="use no network; report what is missing")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="PATH", help="your own copy of OAG-QA: a folder or an archive"
    )
    group = parser.add_argument_group("a sample of one large collection, stored as a new collection")
    group.add_argument("--sample", type=int, metavar="N", help="documents to draw, in addition to the judged ones")
    group.add_argument("--output", type=Path, metavar="DIR", help="a new folder for the sample")
    group.add_argument("--seed", type=int, default=0, help="random seed of the sample (default: %(default)s)")


def mine_options(parser: cli.Parser) -> None:
    """Where negatives are looked for, and which are taken."""
    parser.add_argument("collection", metavar=cli.COLLECTION)
    cli.data_options(parser)
    cli.template_options(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help=".jsonl or .jsonl.gz, for --negatives"
    )
    parser.add_argument("--split", choices=["train", "dev"], default="train", help="(default: %(default)s)")
    parser.add_argument(
        "--system", choices=["bm25", "dense"], help="system that finds them (default: bm25, or dense with --prompt)"
    )
    parser.add_argument("--depth", type=int, default=100, help="hits to look at (default: %(default)s)")
    parser.add_argument("--skip", type=int, default=0, help="first hits to skip (default: %(default)s)")
    parser.add_argument("--count", type=int, default=8, help="maximum of negatives per query (default: %(default)s)")
    parser.add_argument(
        "--margin", type=float, help="take only hits that score this much below the best relevant document"
    )
    parser.add_argument(
        "--relative-margin",
        type=float,
        default=0.05,
        help="the same, as a share of that document's score (default: %(default)s; 0: anything below it)",
    )
    cli.encoder_options(parser, precision="auto")


def run_collections(options: cli.Options) -> None:
    """List the collections."""
    from foreword.collections.registry import catalogue, group_names, grouped_catalogue

    if options.seen:
        from foreword.evaluation.published import table

        seen = table()
        if cli.printed_json(options, seen):
            return
        columns = ("backbone", "collection", "through")
        cli.print_table("", columns, [[row[name] for name in columns] for row in seen])
        for source in dict.fromkeys(row["source"] for row in seen):
            print(f"source: {source}")
        return
    if options.group is None and not options.json:
        entries = catalogue(data=options.data)
    else:
        entries = [e for e in grouped_catalogue(options.data) if options.group in (None, e.group)]
    if not entries:
        raise UnknownNameError(f"no group {options.group!r}; there are: {', '.join(group_names())}")
    if cli.printed_json(options, [asdict(entry) for entry in entries]):
        return
    rows = [
        (
            entry.id,
            "yes" if entry.available else "no",
            "" if entry.documents is None else f"{entry.documents:,}",
            " ".join(
                f"{split} {entry.queries[split]:,}" if split in entry.queries else split for split in entry.splits
            ),
            "" if entry.size is None else byte_size(entry.size),
            entry.licence or "not stated",
            entry.description,
        )
        for entry in entries
    ]
    cli.print_table("", ("id", "here", "documents", "splits, queries", "download", "licence", "what"), rows)


def expand(names: list[str], data: Path | None) -> list[str]:
    """Collections, with the members of a group in its place."""
    from foreword.collections.registry import group_names, members

    ids = [i for name in names for i in (members(name, data) if name in group_names() else (name,))]
    return list(dict.fromkeys(ids))


def run_download(options: cli.Options) -> None:
    """Download collections, or write a sample of one."""
    cli.needs(
        options, "output seed", options.sample is not None, "is of a sample; say with --sample of how many documents"
    )
    from foreword.collections.registry import catalogue
    from foreword.downloads import Transport, data_folder

    data = data_folder(options.data)
    transport = Transport(offline=options.offline, mirrors=tuple(options.mirror), quiet=options.json)
    known = {entry.id: entry for entry in catalogue(data)}
    if options.sample is not None:
        _sample(options, transport, missing={name for name, entry in known.items() if not entry.available})
        return
    done: list[dict[str, Any]] = []
    failed: list[str] = []
    for name in expand(options.names, data):
        entry = known.get(name)
        terms = {"licence": entry.licence, "citation": entry.citation} if entry else {}
        try:
            folder = _download(name, data, transport, options.source)
        except (ForewordError, OSError) as error:
            failed.append(name)
            cli.say(f"{name}: {error}")
            continue
        done.append({"id": name, "folder": str(folder), **terms})
        if not options.json:
            print(f"{name}: {folder}")
            for what, text in terms.items():
                print(f"  {what}: {text or 'not stated'}")
    if options.json:
        cli.print_json({"downloaded": done, "failed": failed})
    if failed:
        raise ForewordError(
            f"{len(failed)} of {len(failed) + len(done)} collections are not there: {', '.join(failed)}"
        )


def _download(name: str, data: Path, transport: Any, source: Path | None) -> Path:
    from foreword.collections.registry import family_of, split_id

    family = family_of(name)
    takes_source = "source" in inspect.signature(family.download).parameters
    if source is not None and not takes_source:
        raise ForewordError("--from is for OAG-QA; put files of this one where --data points")
    own = {"source": source} if takes_source else {}
    folder: Path = family.download(split_id(name)[1], data, transport, **own)
    return folder


def _sample(options: cli.Options, transport: Any, *, missing: Collection[str]) -> None:
    """Write a sample of a collection, which is downloaded where it is not there."""
    from foreword.collections.registry import full_id
    from foreword.collections.supervision import RECORD, subsample
    from foreword.downloads import data_folder

    if len(options.names) > 1 or options.output is None:
        raise ForewordError("a sample is of one collection, and goes to a folder of its own: --output DIR")
    name = full_id(options.names[0], options.data)
    if name in missing:
        _download(name, data_folder(options.data), transport, options.source)
    folder = subsample(cli.load_collection(options, name), options.output, documents=options.sample, seed=options.seed)
    record = read_json(folder / RECORD)
    if cli.printed_json(options, record):
        return
    print(f"folder:{folder}: {record['documents']:,} of {record['of']:,} documents of {record['source']}")


def run_mine(options: cli.Options) -> None:
    """Find hard negatives."""
    from foreword.collections.views import write_hard_negatives
    from foreword.retrieval.mining import mine as find

    prompt = cli.chosen_prompt(options)
    system = options.system or ("dense" if prompt else "bm25")
    if system == "bm25" and prompt:
        raise ForewordError("--prompt is for --system dense; BM25 has none")
    encoder = cli.load_encoder(options, prompt=prompt) if system == "dense" else None
    how = {"precision": options.precision, "quiet": options.json} if encoder is not None else {}
    mined = find(
        cli.load_collection(options, options.collection),
        encoder,
        split=options.split,
        depth=options.depth,
        skip=options.skip,
        count=options.count,
        margin=options.margin,
        relative_margin=options.relative_margin,
        **how,
    )
    write_hard_negatives(options.output, mined.negatives, str(prompt or ("base" if encoder is not None else "bm25")))
    if cli.printed_json(options, {"output": str(options.output), **mined.counts}):
        return
    print(f"{options.output}: {mined.counts['negatives']:,} hard negatives of {mined.counts['queries']:,} queries")
    for name, count in mined.counts.items():
        if name not in ("negatives", "queries") and count:
            print(f"  {name.replace('_', ' ')}: {count:,}")
