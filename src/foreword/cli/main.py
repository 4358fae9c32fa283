"""Parse the command line and run a command.

Exit codes (`foreword --help-all` lists them; `foreword.cli.grammar.EXIT_CODES`): 0 done, 1 an error (said in one line
on standard error), 2 an invalid command line, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.cli import grammar as cli
from foreword.errors import ForewordError, IndexingError, out_of_memory

_ENVIRONMENT = {
    "FOREWORD_DATA": "folder of collections, as --data",
    "FOREWORD_MILVUS_TOKEN": "token of a Milvus server, as foreword index --token",
    "FOREWORD_SERVE_*": "settings of foreword serve",
    "HF_TOKEN": "token of the Hugging Face hub",
    "NO_COLOR, FORCE_COLOR": "turn colours off, or keep them in a pipe",
    "COLUMNS": "width of tables and help",
}


class ShowVersion(argparse.Action):
    """Prints the version that is installed; it is looked up only here, which takes a fifth of the time of help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print, and exit with code 0."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"foreword {version('foreword')}")
        except PackageNotFoundError:
            print("foreword (not installed)")
        parser.exit()


class Program(cli.Parser):
    """The parser of `foreword` itself, whose help lists its commands by what they are for."""

    def format_help(self) -> str:
        """The commands, with a section for each group."""
        return self._formatted(self._sections())

    def format_all(self) -> str:
        """The commands, the exit codes and the environment's variables."""
        codes = "\n".join(f"  {code:<5}{meaning}" for code, meaning in cli.EXIT_CODES.items())
        width = max(map(len, _ENVIRONMENT)) + 2
        environment = "\n".join(f"  {name:<{width}}{meaning}" for name, meaning in _ENVIRONMENT.items())
        return f"{self.format_help()}\nexit codes:\n{codes}\n\nenvironment:\n{environment}\n"

    def _sections(self) -> Mapping[str, tuple[str | None, Iterable[argparse.Action]]]:
        (found,) = (action for action in self._actions if isinstance(action, cli.Commands))
        sections: dict[str, list[argparse.Action]] = {}
        for one in found._get_subactions():
            sections.setdefault(cli.commands()[one.dest]["group"], []).append(one)
        sections["options"] = self._get_optional_actions()
        return {title: (None, actions) for title, actions in sections.items()}


def build_parser() -> Program:
    """The parser of `foreword`."""
    program = Program(
        prog="foreword",
        usage="foreword COMMAND ...",
        description="Dense retrieval with one frozen encoder and one small learned prompt per domain.",
        epilog="foreword COMMAND --help shows a command's options. Start with: foreword demo",
    )
    program.add_argument("--version", action=ShowVersion, nargs=0, help="show program's version number and exit")
    cli.help_all_option(program, "also show exit codes and environment variables")
    cli.add_commands(program, "COMMAND")
    return program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `foreword` with the arguments given (None: the process's own); returns the exit code."""
    parser = build_parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    for word in words:
        try:
            word.encode()  # what is not of the system's encoding came in as halves of surrogate pairs
        except UnicodeEncodeError as error:
            return _failed(_not_utf_8(error))
    options = parser.parse_args(words or ["--help"])

    def in_one_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, UserWarning):  # a library's deprecations are not the user's business
            print(f"foreword: warning: {message}", file=sys.stderr)

    warnings.showwarning = in_one_line
    # What this process asks of other packages; importing the library asks nothing of them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads fight torch's over the same cores
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    if os.environ.get("RANK", "0") != "0":  # of several processes that train together, the first one speaks
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the life of the process
    try:
        resolve(options)
        options.run(options)
        sys.stdout.flush()
    except ForewordError as error:
        return _failed(str(error))
    except UnicodeEncodeError as error:  # a name among the arguments, or of a file in a folder
        return _failed(_not_utf_8(error))
    except KeyboardInterrupt:
        print("foreword: interrupted; run the same command again to continue", file=sys.stderr)
        return cli.INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has gone
        cli.let_go_of_output()
    except OSError as error:  # a folder that cannot be written to, a full disk
        cli.let_go_of_output()
        return _failed(cli.explained(error))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return _failed(
            "out of memory; a smaller --batch-size, shorter texts (--max-length) or another --device need less"
        )
    return cli.DONE


def resolve(options: cli.Options) -> None:
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
        kind = collection if action.metavar == cli.COLLECTION else folder if action.metavar in _PROMPTS else None
        if kind is not None and value is not None:
            setattr(options, action.dest, [kind(one) for one in value] if isinstance(value, list) else kind(value))
    if not offline:
        check_places(options)


def check_places(options: cli.Options) -> None:
    """Refuse names of collections and folders that are not there, before anything that takes seconds to import."""
    from foreword.collections.registry import family_of, load
    from foreword.collections.supervision import split_fold
    from foreword.prompts.spec import CARD, MIXTURE_CARD, holds_folders, no_bank, no_contents, no_prompt

    def check(dest: str, metavar: str, value: str) -> None:
        if metavar == cli.COLLECTION:
            base, _ = split_fold(value)
            family_of(base)
            if base.startswith("folder:"):
                load(base, data=options.data)
        elif (
            (metavar == "INDEX" or dest == "index")
            and getattr(options, "command", "") != "build"
            and value.endswith(".db")
            and not Path(value).expanduser().exists()
        ):
            raise IndexingError.absent(value)
        elif metavar in _PROMPTS and value != "none":
            one = any((Path(value) / card).is_file() for card in (CARD, MIXTURE_CARD))
            if metavar == cli.PROMPT and not one:
                raise no_prompt(value)
            if not one and not holds_folders(value):
                raise no_bank(value) if metavar == cli.BANK else no_contents(value)

    for action in options.parser._actions:
        value = None if action.dest == "output" else getattr(options, action.dest, None)
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            check(action.dest, str(action.metavar), str(one))


def _not_utf_8(error: UnicodeEncodeError) -> str:
    text = error.object[max(error.start - 60, 0) : error.end + 60]
    return f"{text!a} is not UTF-8, as texts and names of files have to be here; rename or convert it"


def _failed(message: str) -> int:
    print(f"foreword: error: {' '.join(message.splitlines())}", file=sys.stderr)
    return cli.FAILED


SHELLS = ("bash", "zsh", "fish")

_FOLDERS = ("DIR", "PATH", cli.PROMPT, cli.BANK, f"{cli.PROMPT}|{cli.BANK}")
_FILES = ("FILE", "INDEX")
_PROMPTS = (cli.PROMPT, cli.BANK, f"{cli.PROMPT}|{cli.BANK}")
_PLAIN = re.compile(r"[\w./-]+")
"""Names that no shell takes for anything else; forms to be filled in, as `folder:PATH`, are not offered."""


def completion_options(parser: cli.Parser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=SHELLS, help="the shell's name")


def script(parser: cli.Parser, shell: str) -> str:
    """The completion script of a parser, for one of `SHELLS`.

    Names of collections are those known now; what is added later needs the script made again. Needs shtab.
    """
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise ForewordError("foreword completion needs shtab: pip install 'foreword[completion]'") from error
    from foreword.cli.lab import benchmark_names
    from foreword.collections.registry import catalogue, group_names

    ids = [name for entry in catalogue() if _PLAIN.fullmatch(name := entry.id)]
    groups = group_names()
    found = {
        **dict.fromkeys((cli.COLLECTION, f"{cli.COLLECTION}|RESULTS.json"), _words("_foreword_collections", ids)),
        "GROUP": _words("_foreword_groups", groups),
        "download NAME": _words("_foreword_downloads", [*groups, *ids]),
        "benchmark NAME": _words("_foreword_benchmarks", benchmark_names()),
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
        if isinstance(action, cli.Commands):
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


def run_completion(options: cli.Options) -> None:
    """Print a shell's script."""
    print(script(build_parser(), options.shell))
