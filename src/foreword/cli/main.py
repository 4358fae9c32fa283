"""Parse the command line and run a command.

Exit codes (`foreword --help-all` lists them; `foreword.cli.grammar.EXIT_CODES`): 0 done, 1 an error (said in one line
on standard error), 2 a command line that cannot be understood, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from foreword.cli.grammar import (
    BANK,
    COLLECTION,
    DONE,
    EXIT_CODES,
    FAILED,
    INTERRUPTED,
    PROMPT,
    Command,
    Commands,
    Options,
    Parser,
    explained,
    help_all_option,
    let_go_of_output,
)
from foreword.errors import ForewordError

GROUPS = {
    "collections": {
        "collections": ("data", "list the collections there are"),
        "download": ("data", "download collections, verified and resumable, or write a sample of one"),
        "mine": ("data", "find hard negatives with BM25 or a prompt, for training"),
    },
    "prompts": {
        "train": ("training", "train a prompt for a collection, one for each of several, or one for all"),
        "transfer": ("transfer", "combine a bank's prompts for a collection without labels"),
        "advise": (
            "transfer",
            "say whether to train, to transfer or to stay at the base model for your texts",
        ),
    },
    "searching and measuring": {
        "search": ("search", "search a collection, or a folder of your own"),
        "evaluate": (
            "evaluate",
            "evaluate a prompt, the base model, BM25 or a run on a collection, or a group",
        ),
        "explain": (
            "explain",
            "what a prompt does on a collection: measures, searches, words, layers and heads",
        ),
    },
    "prompts at work elsewhere": {
        "index": ("serve", "keep documents of many domains in Milvus (a file, or a server), and search them"),
        "serve": ("serve", "answer requests for embeddings (OpenAI's API) and searches, with a page"),
        "encode": ("encode", "write the vectors of documents or queries to a file, for an index elsewhere"),
        "export": ("export", "write prompts in another tool's form: sentence-transformers, PEFT or ONNX"),
        "import": ("export", "store a PEFT adapter (prompt tuning or prefix tuning) as a prompt"),
        "push": ("export", "put a prompt, a mixture or a bank on the Hugging Face hub, with a model card"),
    },
    "whole jobs": {
        "demo": ("lab", "the whole job on the documentation of installed packages, in minutes"),
        "benchmark": ("lab", "what transfer is worth on held-out domains, and the experiments of earlier systems"),
    },
    "help": {
        "completion": ("main", "print a script that lets a shell complete commands, options and collections"),
    },
}
"""The commands as help lists them: name -> its module here, whose `COMMANDS` has it, and what it does."""

_ENVIRONMENT = {
    "FOREWORD_DATA": "folder of collections, as --data",
    "FOREWORD_MILVUS_TOKEN": "of a Milvus server, as foreword index --token",
    "FOREWORD_SERVE_*": "settings of foreword serve",
    "HF_TOKEN": "of the Hugging Face hub",
    "NO_COLOR, FORCE_COLOR": "no colours, or colours in a pipe too",
    "COLUMNS": "the width of tables and help",
}


class Program(Parser):
    """The parser of `foreword` itself, whose help lists its commands by what they are for."""

    groups: Mapping[str, Iterable[str]] = GROUPS

    def format_help(self) -> str:
        """The commands, with a section for each group."""
        return self._formatted(self._sections())

    def format_all(self) -> str:
        """The commands, the exit codes and the environment's variables."""
        codes = "\n".join(f"  {code:<5}{meaning}" for code, meaning in EXIT_CODES.items())
        width = max(map(len, _ENVIRONMENT)) + 2
        environment = "\n".join(f"  {name:<{width}}{meaning}" for name, meaning in _ENVIRONMENT.items())
        return f"{self.format_help()}\nexit codes:\n{codes}\n\nenvironment:\n{environment}\n"

    def _sections(self) -> Mapping[str, tuple[str | None, Iterable[argparse.Action]]]:
        (found,) = (action for action in self._actions if isinstance(action, Commands))
        commands = {one.dest: one for one in found._get_subactions()}
        named = {name for names in self.groups.values() for name in names}
        groups = {**self.groups, "other commands": [name for name in commands if name not in named]}
        listed = {title: [commands[name] for name in names if name in commands] for title, names in groups.items()}
        return {title: (None, each) for title, each in (listed | {"options": self._get_optional_actions()}).items()}


def build_parser() -> Program:
    """The parser of `foreword`."""
    program = Program(
        prog="foreword",
        usage="foreword COMMAND ...",
        description="Dense retrieval with one frozen encoder and one small learned prompt per domain.",
        epilog="foreword COMMAND --help shows a command's options. Start with: foreword demo --quick",
    )
    program.add_argument("--version", action="version", version=_version())
    help_all_option(program, "exit codes and the environment's variables too")
    commands: Any = program.add_subparsers(prog="foreword", metavar="COMMAND", required=True, action=Commands)
    for names in GROUPS.values():
        for name, (module, summary) in names.items():
            commands.add(name, summary, _finder(module, name))
    return program


def _finder(module: str, name: str) -> Callable[[], Command]:
    def find() -> Command:
        found: Command = import_module(f"foreword.cli.{module}").COMMANDS[name]
        return found

    return find


def _version() -> str:
    try:
        return f"foreword {version('foreword')}"
    except PackageNotFoundError:
        return "foreword (not installed)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `foreword` with the arguments given (None: the process's own); returns the exit code."""
    parser = build_parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(words or ["--help"])
    _settle()
    if os.environ.get("RANK", "0") != "0":  # of several processes that train together, the first one speaks
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the life of the process
    try:
        resolve(options)
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


def resolve(options: Options) -> None:
    """Replace a folder's path by its collection's id, and `hf:user/name` by the folder that comes from the hub.

    With --dry-run nothing is asked of the network, and the prompt's name stays.
    """
    from foreword.collections.registry import full_id

    offline = getattr(options, "dry_run", False)

    def collection(name: str) -> str:
        return full_id(name, getattr(options, "data", None))

    def folder(value: Any) -> Any:
        if offline or not str(value).startswith("hf:"):
            return value
        from foreword.hub.contents import from_hub

        return from_hub(str(value))

    for action in options.parser._actions:
        value = getattr(options, action.dest, None)
        kind = collection if action.metavar == COLLECTION else folder if action.metavar in _PROMPTS else None
        if kind is not None and value is not None:
            setattr(options, action.dest, [kind(one) for one in value] if isinstance(value, list) else kind(value))


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


# -- completion: what a shell needs to complete commands, options, collections, groups, files and folders ------------

SHELLS = ("bash", "zsh", "fish")

_FOLDERS = ("DIR", "PATH", PROMPT, BANK, f"{PROMPT}|{BANK}")
_FILES = ("FILE", "INDEX")
_PROMPTS = (PROMPT, BANK, f"{PROMPT}|{BANK}")
_PLAIN = re.compile(r"[\w./-]+")
"""Names that no shell takes for anything else; forms to be filled in, as `folder:PATH`, are not offered."""


def completion_options(parser: Parser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=SHELLS, help="the shell's name")


def script(parser: Parser, shell: str) -> str:
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
    found = {
        **dict.fromkeys((COLLECTION, f"{COLLECTION}|RESULTS.json"), _words("_foreword_collections", ids)),
        "GROUP": _words("_foreword_groups", groups),
        "download NAME": _words("_foreword_downloads", [*groups, *ids]),
        "benchmark NAME": _words("_foreword_benchmarks", ["transfer", *recipe_names()]),
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
        if isinstance(action, Commands):
            action.choices = dict(action.choices)  # shtab takes it for commands when it is a dictionary
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


def completion(options: Options) -> None:
    """Print a shell's script."""
    print(script(build_parser(), options.shell))


COMMANDS = {
    "completion": Command(
        completion,
        completion_options,
        'eval "$(foreword completion bash)"          # in ~/.bashrc\n'
        '  eval "$(foreword completion zsh)"           # in ~/.zshrc, after compinit\n'
        "  foreword completion fish > ~/.config/fish/completions/foreword.fish",
    ),
}
