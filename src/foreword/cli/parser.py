"""The command line's grammar. No heavy import happens here, so that help comes at once."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from foreword.cli import (
    advising,
    benchmarking,
    completing,
    data,
    encoding,
    evaluating,
    explaining,
    exporting,
    hubbing,
    indexing,
    recipes,
    searching,
    serving,
    showing,
    training,
    transferring,
)
from foreword.cli.failures import EXIT_CODES
from foreword.cli.grammar import CommandParser, Commands, GroupedParser, add_command
from foreword.cli.shared import Options, Parser

GROUPS = {
    "collections": ("collections", "download", "subsample", "mine"),
    "prompts": ("train", "pretrain", "transfer", "advise", "words"),
    "searching and measuring": ("search", "evaluate", "explain", "report"),
    "prompts at work elsewhere": ("index", "serve", "encode", "export", "import", "push"),
    "whole jobs": ("demo", "recipe", "benchmark"),
    "help": ("help", "completion"),
}
"""What help lists the commands under."""

_ENVIRONMENT = {
    "FOREWORD_DATA": "folder of collections, as --data",
    "FOREWORD_MILVUS_TOKEN": "of a Milvus server, as foreword index --token",
    "FOREWORD_SERVE_*": "settings of foreword serve",
    "HF_TOKEN": "of the Hugging Face hub",
    "NO_COLOR, FORCE_COLOR": "no colours, or colours in a pipe too",
    "COLUMNS": "the width of tables and help",
}


def build_parser() -> GroupedParser:
    """The parser of `foreword`."""
    parser = GroupedParser(
        prog="foreword",
        description="Dense retrieval with one frozen encoder and one small learned prompt per domain.",
        epilog=_epilog(),
    )
    parser.groups = GROUPS
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=CommandParser)

    def command(name: str, run: Callable[[Options], None], summary: str, example: str) -> Parser:
        added = add_command(commands, name, run, summary, f"example:\n  {example}")
        added.set_defaults(command=name)
        added.add_argument("--json", action="store_true", help="print JSON instead of text")
        return added

    for module in (
        data,
        training,
        transferring,
        advising,
        evaluating,
        explaining,
        searching,
        indexing,
        encoding,
        exporting,
        hubbing,
        serving,
        recipes,
        benchmarking,
        showing,
    ):
        module.add(command)
    _add_help(commands, parser)
    completing.add(commands, parser)
    return parser


def _add_help(commands: Commands, parser: GroupedParser) -> None:
    """`foreword help COMMAND`: what `foreword COMMAND --help` prints."""

    def run(options: Options) -> None:
        parser.parse_args([*options.words, "--help"])

    example = "example:\n  foreword help train\n  foreword help index search"
    added = add_command(commands, "help", run, "what a command does, and its options", example)
    added.add_argument("words", nargs="*", metavar="COMMAND", help="(none: the list of commands)")


def _epilog() -> str:
    codes = "\n".join(f"  {code:<5}{meaning}" for code, meaning in EXIT_CODES.items())
    width = max(map(len, _ENVIRONMENT)) + 2
    environment = "\n".join(f"  {name:<{width}}{meaning}" for name, meaning in _ENVIRONMENT.items())
    return (
        "foreword help COMMAND shows a command's options and an example. Start with: foreword demo --quick\n\n"
        f"exit codes:\n{codes}\n\nenvironment:\n{environment}"
    )


def _version() -> str:
    try:
        return f"foreword {version('foreword')}"
    except PackageNotFoundError:
        return "foreword (not installed)"
