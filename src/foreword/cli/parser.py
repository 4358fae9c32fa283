"""The command line's grammar. No heavy import happens here, so that help comes at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from foreword.cli import commands
from foreword.prompts.defaults import DEFAULT_BACKBONE

Parser = argparse.ArgumentParser


def build_parser() -> Parser:
    """The parser of `foreword`."""
    parser = Parser(
        prog="foreword",
        description="Dense retrieval with one frozen encoder and one small learned prompt per domain.",
        epilog="foreword COMMAND --help shows an example of each. Start with: foreword demo --quick",
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None], summary: str, example: str) -> Parser:
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run, command=name)
        sub.add_argument("--json", action="store_true", help="print JSON instead of text")
        return sub

    _collections(
        command(
            "collections",
            commands.collections,
            "list the collections there are",
            "foreword collections --group pydoc",
        )
    )
    _train(
        command(
            "pretrain",
            commands.pretrain,
            "train one multitask prompt on several collections",
            "foreword pretrain pydoc/numpy pydoc/scipy pydoc/pandas --target pydoc/torch --output prompts/multitask",
        ),
        several=True,
    )
    _train(
        command(
            "train",
            commands.train,
            "train a prompt for one collection",
            "foreword train pydoc/torch --start-from prompts/multitask --output prompts/pydoc-torch",
        ),
        several=False,
    )
    _transfer(
        command(
            "transfer",
            commands.transfer,
            "combine a bank's prompts for a collection without labels, or advise against it",
            "foreword transfer pydoc/torch --bank prompts --output transferred/pydoc-torch",
        )
    )
    _evaluate(
        command(
            "evaluate",
            commands.evaluate,
            "evaluate a prompt, the base model, BM25 or a run on a collection",
            "foreword evaluate pydoc/torch --prompt prompts/pydoc-torch --measures nDCG@10 R@100 --json",
        )
    )
    _search(
        command(
            "search",
            commands.search,
            "search a collection, or a folder of your own",
            'foreword search pydoc/torch "stop gradients from flowing" --prompt prompts/pydoc-torch',
        )
    )
    _report(
        command(
            "report",
            commands.report,
            "write the HTML report of a results.json",
            "foreword report runs/demo/results.json --output report.html",
        )
    )
    _demo(
        command(
            "demo",
            commands.demo,
            "the whole job on the documentation of installed packages, in minutes",
            "foreword demo --quick",
        )
    )
    return parser


def _version() -> str:
    try:
        return f"foreword {version('foreword')}"
    except PackageNotFoundError:
        return "foreword (not installed)"


def _data(parser: Parser) -> None:
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of collections that are not downloaded")


def _encoder(parser: Parser, *, prompt: bool = True) -> None:
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--backbone",
        default=DEFAULT_BACKBONE,
        metavar="NAME",
        help="folder or hub name (default: %(default)s)",
    )
    group.add_argument("--revision", metavar="REV", help="of the backbone on the hub")
    group.add_argument("--device", metavar="DEVICE", help="as torch names it (default: an accelerator if there is one)")
    group.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "float16", "auto"],
        default="float32",
        help="of forward passes; auto: bfloat16 where the processor has it (default: %(default)s)",
    )
    if prompt:
        group.add_argument(
            "--prompt",
            default="none",
            metavar="PATH",
            help="a prompt's or mixture's folder, or none (default)",
        )
        group.add_argument(
            "--max-length", type=int, metavar="TOKENS", help="texts are cut to (default: the backbone's)"
        )


def _collections(parser: Parser) -> None:
    _data(parser)
    parser.add_argument("--group", metavar="GROUP", help="only this one")


def _train(parser: Parser, *, several: bool) -> None:
    parser.add_argument(
        "collections", nargs="+" if several else 1, metavar="COLLECTION", help="e.g. pydoc/torch, folder:PATH"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the prompt's folder")
    _data(parser)
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="COLLECTION",
        help="drop this one's texts from the training data (may be repeated)",
    )
    parser.add_argument("--name", metavar="DOMAIN", help="the prompt's name (default: the collection, or multitask)")
    parser.add_argument("--no-resume", action="store_true", help="begin anew, whatever the folder holds")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    _encoder(parser, prompt=False)
    prompt = parser.add_argument_group("prompt")
    prompt.add_argument("--start-from", type=Path, metavar="PROMPT", help="begin with another prompt's values")
    prompt.add_argument("--kind", choices=["gated", "prefix", "input"], default="gated", help="(default: %(default)s)")
    prompt.add_argument("--length", type=int, default=16, help="vectors (default: %(default)s a layer)")
    prompt.add_argument("--top-layers", type=int, metavar="K", help="only the top K layers (default: all)")
    prompt.add_argument(
        "--sides", choices=["shared", "untied", "query"], default="shared", help="(default: %(default)s)"
    )
    prompt.add_argument("--placement", choices=["after-cls", "before"], help="of input vectors")
    prompt.add_argument(
        "--start",
        choices=["words", "text", "noise"],
        default="words",
        help="of a new prompt (default: %(default)s)",
    )
    training = parser.add_argument_group("training", "what is not given depends on the side; --dry-run prints it")
    training.add_argument(
        "--side",
        choices=["both", "query"],
        default="both" if several else "query",
        help="query: documents keep the base model's vectors (default: %(default)s)",
    )
    training.add_argument(
        "--document-side",
        choices=["base", "start"],
        help="query side: what embeds documents once, the base model (default) or the prompt of --start-from",
    )
    training.add_argument(
        "--documents",
        type=Path,
        metavar="FILE",
        help="query side: your document vectors, .npy (with --ids) or .parquet",
    )
    training.add_argument("--ids", type=Path, metavar="FILE", help="document ids of a .npy, one a line")
    training.add_argument(
        "--pseudo-queries",
        choices=["auto", "title", "first-sentence", "span"],
        help="train on pseudo-queries of the documents instead of labels",
    )
    for option, kind, text in (
        ("steps", int, "optimizer steps"),
        ("batch-size", int, "queries a step"),
        ("learning-rate", float, "at its peak"),
        ("schedule", str, "of the learning rate"),
        ("warmup", float, "share of the steps"),
        ("temperature", float, "of the softmax over similarities"),
        ("hard-negatives", int, "a query, at most"),
        ("mini-batch-size", int, "texts embedded at once"),
        ("corpus-negatives", int, "documents scored a step (query side)"),
        ("query-length", int, "tokens"),
        ("document-length", int, "tokens"),
        ("domain-temperature", float, "of the choice between domains"),
        ("evaluate-every", int, "steps between evaluations on dev"),
        ("patience", int, "evaluations without gain before stopping; 0: never"),
        ("dtype", str, "of the stored prompt: float16, bfloat16, float32"),
        ("seed", int, "of every random choice"),
    ):
        training.add_argument(f"--{option}", type=kind, help=text)
    parser.set_defaults(precision="auto")


def _transfer(parser: Parser) -> None:
    parser.add_argument("collection", metavar="TARGET", help="only its documents are looked at")
    parser.add_argument("--bank", type=Path, required=True, metavar="DIR", help="folder of prompts")
    parser.add_argument("--output", type=Path, metavar="DIR", help="store the result here, for --prompt")
    _data(parser)
    parser.add_argument(
        "--method",
        choices=["fitted", "uniform", "similarity", "best-single", "average"],
        default="fitted",
        help="(default: %(default)s)",
    )
    parser.add_argument("--only", nargs="+", metavar="DOMAIN", help="use only these prompts of the bank")
    parser.add_argument(
        "--exclude",
        nargs="+",
        default=[],
        metavar="DOMAIN",
        help="use all but these (the target itself is never used)",
    )
    parser.add_argument("--similarity", choices=["mean", "pairwise"], default="mean", help="(default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=5, help="sources that similarity weighs (default: %(default)s)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.1,
        help="of the softmax over similarities (default: %(default)s)",
    )
    parser.add_argument(
        "--pseudo-queries",
        choices=["auto", "title", "first-sentence", "span"],
        default="auto",
        help="(default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    _encoder(parser, prompt=False)
    parser.set_defaults(precision="auto")


def _evaluate(parser: Parser) -> None:
    parser.add_argument("collection", metavar="COLLECTION", help="e.g. pydoc/torch, glasgow/cranfield, folder:PATH")
    _data(parser)
    parser.add_argument("--split", choices=["train", "dev", "test"], default="test", help="(default: %(default)s)")
    parser.add_argument(
        "--measures",
        nargs="+",
        metavar="M",
        help="as ir_measures names them (default: nDCG@10 R@100 AP RR@10 Success@20)",
    )
    parser.add_argument("--k", type=int, help="hits a query (default: what the measures look at, at least 100)")
    parser.add_argument(
        "--system",
        choices=["dense", "bm25", "min-max", "reciprocal-rank"],
        default="dense",
        help="the last two fuse dense and bm25 (default: %(default)s)",
    )
    parser.add_argument("--run", dest="run_file", type=Path, metavar="FILE", help="evaluate this TREC run instead")
    parser.add_argument("--write-run", type=Path, metavar="FILE", help="write the hits as a TREC run")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="a TREC run to test the difference against")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    _encoder(parser)


def _search(parser: Parser) -> None:
    parser.add_argument("collection", metavar="COLLECTION", help="e.g. pydoc/torch, folder:PATH")
    parser.add_argument(
        "queries", nargs="*", metavar="QUERY", help="what to search for (none: a line of standard input each)"
    )
    _data(parser)
    parser.add_argument("--system", choices=["dense", "bm25"], default="dense", help="(default: %(default)s)")
    parser.add_argument("--k", type=int, default=5, help="hits a query (default: %(default)s)")
    _encoder(parser)


def _report(parser: Parser) -> None:
    parser.add_argument("results", type=Path, metavar="RESULTS.json", help="as foreword demo writes it")
    parser.add_argument("--output", type=Path, metavar="FILE", help="(default: report.html beside it)")


def _demo(parser: Parser) -> None:
    parser.add_argument("--quick", action="store_true", help="fewer sources and steps: under 4 minutes on two cores")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), metavar="DIR", help="(default: %(default)s)")
    _data(parser)
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
