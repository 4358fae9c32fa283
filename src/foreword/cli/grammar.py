"""How commands are read: a parser that guesses what a misspelt word meant, and help that wraps to the terminal.

Nothing of the package is imported here, so that help comes at once.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from foreword.settings import DEFAULT_BACKBONE
from foreword.terminal import console, harmless, table_width

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.collections.collection import Collection


_NEAR = 0.7  # share of letters in common from which a word is offered in place of another


class HelpFormatter(argparse.HelpFormatter):
    """Wraps texts to the terminal's width; a line that begins with a blank, as an example does, stays as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            indent + line
            if line[:1].isspace() or not line
            else textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent)
            for line in text.splitlines()
        )


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors, with exit code 2, say what a misspelt command, option or choice may have meant."""

    def __init__(self, **settings: Any) -> None:
        """Take argparse's settings, with the package's help and whole option names."""
        settings.setdefault("formatter_class", HelpFormatter)
        super().__init__(**settings, allow_abbrev=False)  # a name that is cut short is a mistake
        self._asked: Sequence[str] = ()
        for kind in (int, float):
            self.register("type", kind, _number(kind))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse as argparse does, but refuse what is not known here, where the command's own usage can be shown."""
        self._asked = list(sys.argv[1:] if args is None else args)
        found, rest = super().parse_known_args(self._asked, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and for options that are not known, which may be meant; exit code 2."""
        known = self._option_string_actions
        names = [word.partition("=")[0] for word in self._own_words() if word.startswith("--")]
        hints = [f"for {name}, {near}" for name in names if name not in known and (near := did_you_mean(name, known))]
        super().error("; ".join([message, *hints]))

    def _own_words(self) -> Iterable[str]:
        """What may be options of this parser: the words before a bare `--`, and before a command's name."""
        words = self._asked[: self._asked.index("--")] if "--" in self._asked else self._asked
        return words if self._subparsers is None else takewhile(lambda word: word.startswith("-"), words)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        hint = did_you_mean(str(value), choices)
        said = f"invalid choice: {value!r}{f'; {hint}' if hint else ''} (choose from {', '.join(choices)})"
        raise argparse.ArgumentError(action, said)


class GroupedParser(CommandParser):
    """The parser of the program itself, whose help lists its commands by what they are for.

    Attributes:
        groups: title -> names of commands; commands in none of them come last.
    """

    groups: Mapping[str, Sequence[str]] = {}

    def format_help(self) -> str:
        """The help, with a section for each group."""
        commands = {one.dest: one for action in self._actions for one in _listed(action)}
        named = {name for names in self.groups.values() for name in names}
        others = [name for name in commands if name not in named]
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, names in {**self.groups, "other commands": others}.items():
            formatter.start_section(title)
            formatter.add_arguments([commands[name] for name in names if name in commands])
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments([action for action in self._actions if action.option_strings])
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


Commands: TypeAlias = "argparse._SubParsersAction[CommandParser]"
"""What `add_subparsers` gives."""


def add_command(commands: Commands, name: str, run: Callable[..., None], summary: str, epilog: str) -> CommandParser:
    """Add a command to a parser's.

    Args:
        commands: what `add_subparsers` gave.
        name: of the command.
        run: what runs it.
        summary: one line, without a capital or a stop: the list's entry, and the first of the command's own help.
        epilog: the end of its help.
    """
    about = summary[0].upper() + summary[1:] + "."
    added = commands.add_parser(name, help=summary, description=about, epilog=epilog)
    added.set_defaults(run=run)
    return added


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean x?`, or nothing where no known word is near; dashes in front count for nothing."""
    bare = {name.lstrip("-"): name for name in known}
    near = difflib.get_close_matches(word.lstrip("-"), bare, n=2, cutoff=_NEAR)
    return f"did you mean {' or '.join(bare[name] for name in near)}?" if near else ""


def _number(kind: type[int] | type[float]) -> Callable[[str], float]:
    """Reads a number that stands alone: in a script, `16\\ ` gives `16 ` and loses the lines that follow."""

    def read(text: str) -> float:
        if text != text.strip():
            raise argparse.ArgumentTypeError(f"{text!r} has blanks around it; a line's last backslash ends the line")
        return kind(text)

    return read


def _listed(action: argparse.Action) -> list[argparse.Action]:
    """The commands that an action holds, as help lists them."""
    return list(action._get_subactions()) if isinstance(action, argparse._SubParsersAction) else []


# What the commands share: printing, the options of several of them, and loading what the options name.


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
    from foreword.prompts.loading import load_encoder as load

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


# How commands end: the exit codes, and what an operating system's error means for the person at the terminal.


DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

EXIT_CODES = {
    DONE: "done, or the reader of a pipe has had enough",
    FAILED: "an error, said in one line on standard error",
    MISUSED: "a command line that cannot be understood",
    INTERRUPTED: "interrupted (Ctrl-C); the same command goes on from where it was",
}
"""Every exit code there is, as help prints them."""

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}")
"""The name under which `foreword.files.atomic_write` writes a file before it is whole."""

_CURES = {
    errno.ENOENT: "no such file or folder; check the path",
    errno.EACCES: "not permitted; choose a place that you may write to, or ask for the right to",
    errno.EPERM: "not permitted; choose a place that you may write to, or ask for the right to",
    errno.EROFS: "the file system can only be read; choose another place",
    errno.ENOSPC: "the disk is full; free some space, or choose a place on another disk",
    errno.EDQUOT: "your share of the disk is used up; free some space, or choose a place on another disk",
    errno.ENOTDIR: "a part of this path is a file, so nothing can be below it; choose another path",
    errno.EISDIR: "is a folder; name a file",
    errno.EEXIST: "is there already and is no folder; choose another path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOTEMPTY: "the folder is not empty; choose another, or empty it",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.ECONNREFUSED: "nobody answers there; is the server running, and is its address right?",
}


def explained(error: OSError) -> str:
    """An operating system's error in one line: where it happened, what it is, and what can be done."""
    said = _CURES.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__
    if error.filename is None or isinstance(error.filename, int):
        return said
    path = Path(os.fsdecode(error.filename))
    written = _TEMPORARY.fullmatch(path.name)
    return f"{path.with_name(written['name']) if written else path}: {said}"


def let_go_of_output() -> None:
    """Send what is left for standard output nowhere, where it cannot be written: the interpreter would try again."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
