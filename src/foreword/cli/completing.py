"""`foreword completion`: what a shell needs to complete commands, options, collections, groups, files and folders."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Mapping

from foreword.cli.grammar import CommandParser, Commands, GroupedParser, add_command
from foreword.cli.shared import Options
from foreword.common.errors import ForewordError

SHELLS = ("bash", "zsh", "fish")

_FOLDERS = ("DIR", "PATH", "PROMPT", "PROMPT|BANK")
_FILES = ("FILE", "TOML", "RESULTS.json", "INDEX")
_COLLECTIONS = ("COLLECTION", "TARGET", "FOLDER|COLLECTION")
_PLAIN = re.compile(r"[\w./-]+")
"""Names that no shell takes for anything else; forms to be filled in, as `folder:PATH`, are not offered."""


def add(commands: Commands, parser: GroupedParser) -> None:
    """The grammar of the command; `parser` is the program's, which the script completes."""

    def run(options: Options) -> None:
        print(script(parser, options.shell))

    added = add_command(
        commands,
        "completion",
        run,
        "print a script that lets a shell complete commands, options and collections",
        "examples:\n"
        '  eval "$(foreword completion bash)"          # in ~/.bashrc\n'
        '  eval "$(foreword completion zsh)"           # in ~/.zshrc, after compinit\n'
        "  foreword completion fish > ~/.config/fish/completions/foreword.fish",
    )
    added.add_argument("shell", choices=SHELLS, help="the shell's name")


def script(parser: CommandParser, shell: str) -> str:
    """The completion script of a parser, for one of `SHELLS`.

    Names of collections are those known now; what is added later needs the script made again.

    Raises:
        ForewordError: shtab is not installed.
    """
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise ForewordError("foreword completion needs shtab: pip install 'foreword[completion]'") from error
    from foreword.collections.groups import group_names
    from foreword.collections.registry import catalogue
    from foreword.recipes import recipe_names

    ids = [name for entry in catalogue() if _PLAIN.fullmatch(name := entry.id)]
    groups = group_names()
    names = [name for action in parser._actions for name in action.choices or ()]
    found = {
        **dict.fromkeys(_COLLECTIONS, _words("_foreword_collections", ids)),
        "GROUP": _words("_foreword_groups", groups),
        "download NAME": _words("_foreword_downloads", [*groups, *ids]),
        "recipe NAME": _words("_foreword_recipes", recipe_names()),
        "help COMMAND": _words("_foreword_commands", names),
        **dict.fromkeys(_FOLDERS, shtab.DIRECTORY),
        **dict.fromkeys(_FILES, shtab.FILE),
    }
    for command, action in _arguments(parser):
        kind = found.get(str(action.metavar)) or found.get(f"{command} {action.metavar}")
        if kind is not None:
            action.complete = kind  # type: ignore[attr-defined]  # how shtab is told
    made: str = shtab.complete(parser, shell)
    return made


def _arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Every option and argument of every command, with the command's last word."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _arguments(below)
        else:
            yield parser.prog.rpartition(" ")[2], action


def _words(name: str, words: Iterable[str]) -> Mapping[str, str | Mapping[str, str]]:
    """A function of the shell's that offers words, as shtab takes it."""
    listed = " ".join(words)
    return {
        "bash": name,
        "zsh": name,
        "fish": f"({name})",
        "preamble": {
            "bash": f"{name}() {{\n  compgen -W '{listed}' -- \"$1\"\n}}",
            "zsh": f"{name}() {{\n  compadd -- {listed}\n}}",
            "fish": f"function {name}\n  printf '%s\\n' {listed}\nend",
        },
    }
