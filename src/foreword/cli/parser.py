"""The command line's grammar. No heavy import happens here, so that help comes at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from foreword.cli import data, evaluating, recipes, searching, showing, training, transferring
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
        )
        added.set_defaults(run=run, command=name)
        added.add_argument("--json", action="store_true", help="print JSON instead of text")
        return added

    for module in (data, training, transferring, evaluating, searching, recipes, showing):
        module.add(command)
    return parser


def _version() -> str:
    try:
        return f"foreword {version('foreword')}"
    except PackageNotFoundError:
        return "foreword (not installed)"
