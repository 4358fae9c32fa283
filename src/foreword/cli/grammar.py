"""How commands are read: a parser that guesses what a misspelt word meant, and help that wraps to the terminal.

Nothing of the package is imported here, so that help comes at once.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, NoReturn, TypeAlias

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
