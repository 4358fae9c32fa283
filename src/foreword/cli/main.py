"""Parse the command line and run a command.

Exit codes (`foreword --help` lists them; `foreword.cli.grammar.EXIT_CODES`): 0 done, 1 an error (said in one line on
standard error), 2 a command line that cannot be understood, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from foreword.cli import data, encode, evaluate, export, index, lab, search, serve, training, transfer
from foreword.cli.export import bring
from foreword.cli.grammar import (
    DONE,
    EXIT_CODES,
    FAILED,
    INTERRUPTED,
    CommandParser,
    Commands,
    GroupedParser,
    Options,
    Parser,
    add_command,
    explained,
    let_go_of_output,
)
from foreword.errors import ForewordError

# `foreword completion`: what a shell needs to complete commands, options, collections, groups, files and folders.


SHELLS = ("bash", "zsh", "fish")

_FOLDERS = ("DIR", "PATH", "PROMPT", "PROMPT|BANK")
_FILES = ("FILE", "TOML", "RESULTS.json", "INDEX")
_COLLECTIONS = ("COLLECTION", "TARGET", "FOLDER|COLLECTION")
_PLAIN = re.compile(r"[\w./-]+")
"""Names that no shell takes for anything else; forms to be filled in, as `folder:PATH`, are not offered."""


def add_completion(commands: Commands, parser: GroupedParser) -> None:
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
    from foreword.collections.registry import catalogue, group_names
    from foreword.lab.recipe import recipe_names

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


# The command line's grammar. No heavy import happens here, so that help comes at once.


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

    for add in (
        data.add,
        training.add,
        transfer.add_transfer,
        transfer.add_advise,
        evaluate.add_evaluate,
        evaluate.add_explain,
        search.add,
        index.add,
        encode.add,
        export.add_export,
        export.add_hub,
        serve.add,
        lab.add_recipe,
        lab.add_benchmark,
        lab.add_show,
    ):
        add(command)
    _add_help(commands, parser)
    add_completion(commands, parser)
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `foreword` with the arguments given (None: the process's own); returns the exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    _settle()
    if os.environ.get("RANK", "0") != "0":  # of several processes that train together, the first one speaks
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the life of the process
    try:
        bring(options)
        options.run(options)
        sys.stdout.flush()
    except ForewordError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        print("foreword: interrupted; the same command goes on from where it was", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has gone
        let_go_of_output()
    except OSError as error:  # a folder that cannot be written to, a full disk
        let_go_of_output()
        return _failed(explained(error))
    return DONE


def _settle() -> None:
    """What this process asks of other packages; importing the library asks nothing of them."""
    warnings.showwarning = _one_line_warning
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads fight torch's over the same cores
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def _failed(message: str) -> int:
    print(f"foreword: error: {' '.join(message.splitlines())}", file=sys.stderr)
    return FAILED


def _one_line_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, UserWarning):  # a library's deprecations are not the user's business
        print(f"foreword: warning: {message}", file=sys.stderr)
