"""Print what the documentation takes from the program itself: the command line's help, as argparse prints it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

WIDTH = "100"


def helps() -> Iterator[str]:
    """A section for each command, and for each action of one that has them."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
    from foreword.cli.main import build_parser

    os.environ["COLUMNS"] = WIDTH
    for command in parsers_of(build_parser()):
        yield _section(command)
        yield from (_section(action) for action in parsers_of(command))


def parsers_of(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of its commands, in their order."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [child for action in found for child in action.choices.values()]


def _section(parser: argparse.ArgumentParser) -> str:
    return f"## {parser.prog}\n\n```text\n{parser.format_all().strip()}\n```"


if __name__ == "__main__":
    print("\n\n".join(helps()))
