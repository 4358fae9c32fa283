"""How commands are read: parsers that are made when they are asked for, guess what a misspelt word meant, and print a
screen of help; what the commands share: options, printing, loading what options name, and how they end.

Nothing heavy is imported here, so that help comes at once.
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
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from foreword.errors import ForewordError
from foreword.settings import DEFAULT_BACKBONE, EncodingPrecision, Precision, choices, hints, meanings, number_or_text
from foreword.terminal import console, harmless, table_width

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.collections.collection import Collection
    from foreword.collections.registry import Part

Options = argparse.Namespace

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


class Parser(argparse.ArgumentParser):
    """A parser that takes options before, between and after the arguments.

    Its errors, with exit code 2, say what a misspelt command, option or choice may have meant.

    Attributes:
        shown: names of the options that `--help` shows, in this order; `--help-all` shows all. None: there are few.
    """

    shown: Sequence[str] | None = None

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
        self.usage = self.usage or self._short_usage()
        if self._subparsers is None:
            found, rest = self._options_then_arguments(namespace)
        else:
            found, rest = super().parse_known_args(self._asked, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def _options_then_arguments(self, namespace: Any) -> tuple[Any, list[str]]:
        """The options first, from wherever they stand; then the arguments, from what they leave."""
        end = self._asked.index("--") if "--" in self._asked else len(self._asked)
        arguments = self._get_positional_actions()
        settings = [(action.nargs, action.default) for action in arguments]
        try:
            for action in arguments:
                action.nargs = action.default = argparse.SUPPRESS
            found, rest = super().parse_known_args(self._asked[:end], namespace)
        finally:
            for action, (nargs, default) in zip(arguments, settings, strict=True):
                action.nargs, action.default = nargs, default
        needed = [action for action in self._get_optional_actions() if action.required]
        try:
            for action in needed:
                action.required = False
            return super().parse_known_args([*rest, *self._asked[end:]], found)
        finally:
            for action in needed:
                action.required = True

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

    def format_help(self) -> str:
        """A screen of help: the arguments, what is needed, and the options in `shown`."""
        if self.shown is None:
            return self.format_all()
        options = [action for action in self._get_optional_actions() if action.required]
        options += [self._option_string_actions[f"--{name}"] for name in self.shown]
        sections = {"arguments": self._get_positional_actions(), "options": options}
        return self._formatted({title: (None, actions) for title, actions in sections.items()})

    def format_all(self) -> str:
        """The whole help."""
        return self._formatted({str(g.title): (g.description, g._group_actions) for g in self._action_groups})

    def _formatted(self, sections: Mapping[str, tuple[str | None, Iterable[argparse.Action]]]) -> str:
        formatter = self._get_formatter()
        formatter.add_usage(self.usage or self._short_usage(), (), ())
        formatter.add_text(self.description)
        for title, (text, actions) in sections.items():
            formatter.start_section(title)
            formatter.add_text(text)
            formatter.add_arguments(actions)
            formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def _short_usage(self) -> str:
        """The arguments and the options that are needed; the others have their place in the help."""
        needed = [action for action in self._get_optional_actions() if action.required]
        formatter = self._get_formatter()
        parts = [formatter._format_actions_usage(each, []) for each in (self._get_positional_actions(), needed)]
        return " ".join(word for word in (self.prog, *parts, "[options]") if word).replace("%", "%%")


class _HelpAll(argparse.Action):
    """Prints the whole help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        assert isinstance(parser, Parser)
        print(parser.format_all(), end="")
        parser.exit()


def help_all_option(parser: Parser, help: str) -> None:
    """`--help-all`."""
    parser.add_argument("--help-all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help=help)


@cache
def commands() -> Mapping[str, Mapping[str, str]]:
    """What `commands.toml` says of each command."""
    found: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("commands.toml").read_text("utf-8"))
    return found


def add_commands(parser: Parser, metavar: str, *, above: str = "", **settings: Any) -> None:
    """Add the commands below another, or (`above` is empty) those of the program."""
    added: Any = parser.add_subparsers(prog=parser.prog, metavar=metavar, required=True, action=Commands, **settings)
    for name in commands():
        if name.rpartition(" ")[0] == above:
            added.add(name)


class _Made(Mapping[str, Parser]):
    """Parsers by name, each made when it is asked for."""

    def __init__(self) -> None:
        self.makers: dict[str, Callable[[], Parser]] = {}

    def __getitem__(self, name: str) -> Parser:
        return self.makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


class Commands(argparse._SubParsersAction):  # type: ignore[type-arg]  # generic in typeshed alone
    """The commands of a parser. A command's own parser is made, and its module imported, when it is asked for."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        """Take what argparse gives."""
        super().__init__(*arguments, **settings)
        self._made = _Made()
        self._name_parser_map = self.choices = self._made  # type: ignore[assignment]  # it needs a Mapping

    def add(self, name: str) -> None:
        """Add a command of `commands.toml`."""
        about, word = commands()[name], name.rpartition(" ")[2]

        @cache
        def made() -> Parser:
            file, function = import_module(f"foreword.cli.{about['file']}"), name.replace(" ", "_")
            summary, example = about["about"], about["example"].replace("\n", "\n  ")
            parser = Parser(
                prog=f"foreword {name}",
                description=summary[0].upper() + summary[1:] + ".",
                epilog=f"example:\n  {example}",
            )
            parser.set_defaults(run=getattr(file, f"run_{function}", None), command=word, parser=parser)
            usual = argparse.SUPPRESS if word != name else False  # where the command above has it too
            parser.add_argument("--json", action="store_true", default=usual, help="print JSON instead of text")
            if "shown" in about:
                parser.shown = [*about["shown"].split(), "json", "help", "help-all"]
                help_all_option(parser, "show every option")
            getattr(file, f"{function}_options")(parser)
            return parser

        self._made.makers[word] = made
        self._choices_actions.append(self._ChoicesPseudoAction(word, (), about["about"]))


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


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def printed_json(options: Options, value: Any) -> bool:
    """With --json, print what a command found as JSON; whether it did."""
    if options.json:
        print_json(value)
    return bool(options.json)


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


COLLECTION, PROMPT, BANK = "COLLECTION", "PROMPT", "BANK"
"""What an argument or option names, as help shows it: a collection's id or folder, a prompt's folder or one on the hub
(`hf:USER/NAME`), a folder of prompts. By these words shells complete them, and they are resolved before a command
runs."""


def settings_options(
    parser: Parser | argparse._ArgumentGroup, settings: type[Any], names: Iterable[str], **usual: Any
) -> None:
    """Options for fields of settings: kind, choices, meaning and default are the field's own.

    A command's options hold None for what was not given. A name is `pseudo=pseudo-queries` where the option has another
    than the field; `usual` are defaults to show in place of the class's.
    """
    usual = {field.name: field.default for field in fields(settings)} | usual
    types, meant = hints(settings), meanings(settings)  # type: ignore[arg-type]  # mypy: a class that cannot be hashed
    for field_name, _, option in (name.partition("=") for name in names):
        hint, default = types[field_name], usual[field_name]
        text = _SEE.sub("", meant[field_name].replace("`", "")).rstrip(".").replace("None:", "default:")
        if default not in (None, "") and "default:" not in text:
            text += f" (default: {('no', 'yes')[default] if isinstance(default, bool) else default})"
        kind = number_or_text(hint)
        how: dict[str, Any] = {"type": kind, "metavar": _METAVARS.get(kind, "N")}
        if values := choices(hint):
            how = {"choices": values}
        elif kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        flag = f"--{(option or field_name).replace('_', '-')}"
        parser.add_argument(flag, dest=field_name, help=text.replace("%", "%%"), **how)


_SEE = re.compile(r",? see foreword[.\w]+| \(see foreword[.\w]+\)")
_METAVARS: Mapping[type, str] = {str: "NAME", Path: "DIR"}


def given(options: Options, settings: type[Any]) -> dict[str, Any]:
    """The fields of settings that options were given for."""
    found = {field.name: getattr(options, field.name, None) for field in fields(settings)}
    return {name: value for name, value in found.items() if value is not None}


def needs(options: Options, names: str, there: bool, what: str) -> None:
    """Raise `ForewordError` for options given without what they need; `what` ends the message: `is for a --group`."""
    for action in options.parser._actions:
        if not there and action.dest in names.split() and getattr(options, action.dest) != action.default:
            raise ForewordError(f"{action.option_strings[-1]} {what}")


def data_options(parser: Parser) -> None:
    """Where collections' files are."""
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of collections (default: FOREWORD_DATA, else the user's cache)"
    )


def template_options(parser: Parser) -> None:
    """What of a text is embedded."""
    parser.add_argument("--document-template", metavar="T", help="text of a document (default: '{title} {text}')")
    parser.add_argument("--query-template", metavar="T", help="text of a query (default: '{text}')")


def passages_option(parser: Parser, default: str = "passages") -> None:
    """Whether long documents are searched in passages; the default, as help says it."""
    parser.add_argument(
        "--passages",
        action=argparse.BooleanOptionalAction,
        help="split documents that are longer than the model's limit into overlapping passages and score each by its "
        f"best one, or read only the beginning (default: {default})",
    )


def system_option(parser: Parser) -> None:
    """What searches: vectors, words or both, and how much words count then."""
    help = "dense: vectors; bm25: words; hybrid: a weighted sum of both (default: %(default)s)"
    parser.add_argument("--system", choices=["dense", "bm25", "hybrid"], default="dense", help=help)
    weight_option(parser)


def weight_option(parser: argparse._ActionsContainer) -> None:
    """How much BM25 counts in a hybrid search."""
    help = "weight of BM25 in --system hybrid, 0 to 1 (default: chosen on train or dev labels, else on the texts)"

    def share(text: str) -> float:
        if not 0 <= (value := float(text)) <= 1:
            raise argparse.ArgumentTypeError(f"{text}; expected 0 (dense search alone) to 1 (BM25 alone)")
        return value

    parser.add_argument("--bm25-weight", type=share, metavar="W", help=help)


def dry_run_option(parser: Parser) -> None:
    """Print the configuration and stop."""
    parser.add_argument("--dry-run", action="store_true", help="print the settings and stop")


def encoder_options(parser: Parser, *, prompt: bool = True, precision: str | None = "float32") -> None:
    """The backbone, with `prompt` what it carries, and with a `precision` that of forward passes."""
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--backbone", default=DEFAULT_BACKBONE, metavar="NAME", help="folder or hub name (default: %(default)s)"
    )
    group.add_argument("--revision", metavar="REV", help="revision of the backbone on the hub")
    group.add_argument(
        "--pooling",
        choices=["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"],
        help="(default: the prompt's, else the backbone's own)",
    )
    group.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="vectors of unit length, or unnormalised (default: the prompt's, else the backbone's)",
    )
    group.add_argument(
        "--device", metavar="DEVICE", help="torch device, e.g. cpu or cuda:1 (default: an accelerator if there is one)"
    )
    if precision is not None:
        int8 = "; int8: OpenVINO, on a CPU" if precision == "float32" else ""
        group.add_argument(
            "--precision",
            choices=choices(EncodingPrecision if precision == "float32" else Precision),
            default=precision,
            help=f"numerical precision; auto: bfloat16 if the processor supports it{int8} (default: %(default)s)",
        )
    if prompt:
        group.add_argument(
            "--prompt", default="none", metavar=PROMPT, help="folder of a prompt or mixture, or none (default)"
        )
        group.add_argument(
            "--max-length", type=int, metavar="TOKENS", help="truncate texts to (default: the backbone's limit)"
        )


def load_collection(
    options: Options, name: str, *, exclude: Iterable[Collection] = (), part: Part | None = None
) -> Collection:
    """A collection by its id, or a part of its documents."""
    from foreword.collections.registry import load

    return load(
        name,
        data=options.data,
        exclude=exclude,
        document_template=getattr(options, "document_template", None),
        query_template=getattr(options, "query_template", None),
        part=part,
    )


def load_encoder(options: Options, *, prompt: Path | str | None = None) -> SentenceTransformer:
    """The encoder that the options ask for, with a prompt, and the user's cache of vectors."""
    from foreword.prompts.cache import VectorCache
    from foreword.prompts.encoder import transformer_of
    from foreword.prompts.loading import load_encoder as load

    encoder = load(
        options.backbone,
        prompt=prompt,
        revision=options.revision,
        device=options.device,
        max_length=getattr(options, "max_length", None),
        pooling=options.pooling,
        normalize=options.normalize,
    )
    transformer_of(encoder).vectors = VectorCache.of_user()
    return encoder


def load_bare_encoder(options: Options, prompt: Path | None) -> SentenceTransformer:
    """The encoder without a prompt, pooled, normalised and cut as one was made; None: as the backbone's own."""
    encoder = load_encoder(options, prompt=prompt)
    if prompt is not None:
        from foreword.prompts.encoder import transformer_of

        transformer_of(encoder).remove_all()
    return encoder


def chosen_prompt(options: Options) -> Path | None:
    """The value of --prompt; None for `none`."""
    return None if options.prompt == "none" else Path(options.prompt)


DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

EXIT_CODES = {
    DONE: "success, also if the reader of a pipe stops early",
    FAILED: "an error; one line on standard error explains it",
    MISUSED: "an invalid command line",
    INTERRUPTED: "interrupted (Ctrl-C); run the same command again to continue",
}
"""Every exit code there is, as help prints them."""

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.part")
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
