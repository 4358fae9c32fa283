"""The command line's grammar. No heavy import happens here, so that help comes at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from foreword.cli import (
    advising,
    benchmarking,
    data,
    evaluating,
    explaining,
    recipes,
    searching,
    showing,
    training,
    transferring,
)
from foreword.cli.shared import Options, Parser


def build_parser() -> Parser:
    """The parser of `foreword`."""
    parser = Parser(
        prog="foreword",
        description="Dense retrieval with one frozen encoder and one small learned prompt per domain.",
        epilog="foreword COMMAND --help shows an example of each. Start with: foreword demo --quick",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[Options], None], summary: str, example: str) -> Parser:
        added: Parser = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # a name that is cut short is a mistake
        )
        for kind in (int, float):
            added.register("type", kind, _number(kind))
        added.set_defaults(run=run, command=name)
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
        recipes,
        benchmarking,
        showing,
    ):
        module.add(command)
    return parser


def _number(kind: type[int] | type[float]) -> Callable[[str], float]:
    """Reads a number that stands alone: in a script, `16\\ ` gives `16 ` and loses the lines that follow."""

    def read(text: str) -> float:
        if text != text.strip():
            raise argparse.ArgumentTypeError(f"{text!r} has blanks around it; a line's last backslash ends the line")
        return kind(text)

    return read


def _version() -> str:
    try:
        return f"foreword {version('foreword')}"
    except PackageNotFoundError:
        return "foreword (not installed)"
