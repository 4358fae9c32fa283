"""What the commands share: printing, the options of several of them, and loading what the options name."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli.grammar import CommandParser
from foreword.common.terminal import console, harmless, table_width
from foreword.prompts.defaults import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.collections.records import Collection

Options = argparse.Namespace
Parser = CommandParser
Add = Callable[[str, Callable[[Options], None], str, str], Parser]
"""Adds a command: its name, what runs it, a summary and an example."""


# -- printing --------------------------------------------------------------------------------------------------


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def say(text: str) -> None:
    """A line for the person at the terminal, kept off standard output, which may be read by a program."""
    print(text, file=sys.stderr)


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table on standard output; the texts are shown as they are, brackets too."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(harmless(title), "italic") if title else None, box=SIMPLE_HEAD, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(Text(column), no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(harmless(cell)) for cell in row))
    console(width=table_width()).print(table)


def byte_size(count: int | None) -> str:
    """Bytes for people: `2.1 GB`; `?` when not known."""
    if count is None:
        return "?"
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if size >= 10 or units[0] == "B" else f"{size:.1f} {units[0]}"


# -- options ---------------------------------------------------------------------------------------------------


def data_options(parser: Parser) -> None:
    """Where collections' files are."""
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of collections (default: FOREWORD_DATA, else the user's cache)"
    )


def template_options(parser: Parser) -> None:
    """What of a text is embedded."""
    parser.add_argument("--document-template", metavar="T", help="(default: '{title} {text}')")
    parser.add_argument("--query-template", metavar="T", help="(default: '{text}')")


def dry_run_option(parser: Parser) -> None:
    """Print the configuration and stop."""
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")


def encoder_options(parser: Parser, *, prompt: bool = True, precision: str = "float32") -> None:
    """The backbone and, with `prompt`, what it carries."""
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--backbone", default=DEFAULT_BACKBONE, metavar="NAME", help="folder or hub name (default: %(default)s)"
    )
    group.add_argument("--revision", metavar="REV", help="of the backbone on the hub")
    group.add_argument(
        "--pooling",
        choices=["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"],
        help="(default: the prompt's, else the backbone's own)",
    )
    group.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="unit length and cosine, or as they are and inner products (default: the prompt's, else the backbone's)",
    )
    group.add_argument("--device", metavar="DEVICE", help="as torch names it (default: an accelerator if there is one)")
    group.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "float16", "auto"],
        default=precision,
        help="of forward passes; auto: bfloat16 where the processor has it (default: %(default)s)",
    )
    if prompt:
        group.add_argument(
            "--prompt", default="none", metavar="PATH", help="a prompt's or mixture's folder, or none (default)"
        )
        group.add_argument(
            "--max-length", type=int, metavar="TOKENS", help="texts are cut to (default: the backbone's)"
        )


# -- what the options name -------------------------------------------------------------------------------------


def load_collection(options: Options, name: str, *, exclude: Iterable[Collection] = ()) -> Collection:
    """A collection by its id."""
    from foreword.collections.registry import load

    return load(
        name,
        data=options.data,
        exclude=exclude,
        document_template=getattr(options, "document_template", None),
        query_template=getattr(options, "query_template", None),
    )


def load_encoder(options: Options, *, prompt: Path | str | None = None) -> SentenceTransformer:
    """The encoder that the options ask for, with a prompt."""
    from foreword.prompts.encoder import load_encoder as load

    return load(
        options.backbone,
        prompt=prompt,
        revision=options.revision,
        device=options.device,
        max_length=getattr(options, "max_length", None),
        pooling=options.pooling,
        normalize=options.normalize,
    )


def chosen_prompt(options: Options) -> Path | None:
    """The value of --prompt; None for `none`."""
    return None if options.prompt == "none" else Path(options.prompt)
