"""Help, its groups and its width; what a misspelt word is answered with; exit codes."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest
from shell import Shell
from test_cli import COMMANDS

from foreword.cli import main
from foreword.cli.grammar import EXIT_CODES, Commands, Parser, commands, did_you_mean
from foreword.cli.main import build_parser


def said_by(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == code
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_every_command_is_in_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {name: about["group"] for name, about in commands().items() if "group" in about}
    assert sorted(listed) == sorted([*COMMANDS, "completion"])
    help_text = said_by(capsys, "--help-all")
    titles = list(dict.fromkeys(listed.values()))
    places = [help_text.index(f"\n{title}:\n") for title in [*titles, "options", "exit codes", "environment"]]
    assert places == sorted(places)
    for name, title in listed.items():
        above = help_text[: help_text.index(f"\n  {name} ") + 1]
        assert above.rindex(":\n") == above.index(f"\n{title}:\n") + len(title) + 1


def test_every_command_has_its_functions() -> None:
    for name, about in commands().items():
        file, function = import_module(f"foreword.cli.{about['file']}"), name.replace(" ", "_")
        assert callable(getattr(file, f"{function}_options")), name
        assert name == "index" or callable(getattr(file, f"run_{function}")), name


def every_parser() -> list[Parser]:
    found = [build_parser()]
    for parser in found:
        found += [
            below for action in parser._actions if isinstance(action, Commands) for below in action.choices.values()
        ]
    return found


def test_help_is_a_screen_and_help_all_has_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for parser in every_parser():
        assert parser.format_help().count("\n") <= 40, parser.prog
        whole = parser.format_all()
        for action in parser._get_optional_actions():
            assert action.option_strings[-1] in whole, (parser.prog, action.option_strings)


def test_the_program_alone_lists_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert said_by(capsys) == said_by(capsys, "--help")
    assert "did you mean train?" in said_by(capsys, "trian", code=2)


def test_options_stand_where_they_like() -> None:
    parse = build_parser().parse_args
    for words in (
        ["search", "x", "--k", "2", "a query", "--system", "bm25"],
        ["search", "--k", "2", "--system", "bm25", "x", "a query"],
        ["search", "x", "a query", "--k", "2", "--system", "bm25"],
    ):
        options = parse(words)
        assert (options.collection, options.queries, options.k, options.system) == ("x", ["a query"], 2, "bm25")
    assert parse(["search", "x", "--k", "2", "--", "-5 degrees", "--k"]).queries == ["-5 degrees", "--k"]
    assert parse(["index", "search", "--k", "2", "n.db", "--where", "y", "q"]).queries == ["q"]
    assert parse(["train", "a", "--steps", "2", "b", "--output", "o"]).collections == ["a", "b"]


@pytest.mark.parametrize("columns", [50, 90])
def test_texts_wrap_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = said_by(capsys, "benchmark", "--help")
    about = text.split("\n\n")[1]
    assert " ".join(about.split()) == ("Measure transfer on held-out domains, or rerun experiments of earlier systems.")
    assert max(map(len, about.splitlines())) <= columns
    assert "\n  foreword benchmark transfer --parts primary far\n" in text  # an example is to be copied whole


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serch", "x"], "invalid choice: 'serch'; did you mean search?"),
        (["evalaute"], "did you mean evaluate?"),
        (["index", "biuld"], "did you mean build?"),
        (["search", "x", "--promt", "p"], "for --promt, did you mean --prompt"),
        (["train", "x", "--ouput", "p"], "for --ouput, did you mean --output"),  # though --output is missing too
        (["search", "x", "--sistem=bm25"], "for --sistem, did you mean --system?"),
        (["search", "x", "--system", "bm52"], "invalid choice: 'bm52'; did you mean bm25?"),
        (["index", "search", "n.db", "--sytsem", "hybrid"], "for --sytsem, did you mean --system?"),
    ],
)
def test_misspelt_words(shell: Shell, arguments: list[str], said: str) -> None:
    printed = shell.usage(*arguments)
    assert said in printed
    assert printed.startswith("usage: foreword")


def test_a_word_like_no_other_gets_no_guess(shell: Shell) -> None:
    assert "did you mean" not in shell.usage("xyzzy")
    assert "did you mean" not in shell.usage("search", "x", "--qqqq")
    assert did_you_mean("zebra", ["search"]) == ""
    assert "did you mean --version" not in shell.usage(
        "serch", "x", "--revision", "y"
    )  # which is the command's to judge


def test_numbers_stand_alone_in_all_commands(shell: Shell) -> None:
    for command in (("search", "x"), ("index", "search", "n.db")):
        assert "has blanks around it" in shell.usage(*command, "--k", "3 ")
        assert "invalid int value: 'three'" in shell.usage(*command, "--k", "three")


def test_usage_of_the_command_at_fault(shell: Shell) -> None:
    assert shell.usage("search", "x", "--nothing").startswith("usage: foreword search ")
    assert shell.usage("index", "stats", "n.db", "--nothing").startswith("usage: foreword index stats ")


def test_parsers_take_whole_names_alone() -> None:
    parser = Parser(prog="p")
    parser.add_argument("--precision")
    assert parser.parse_args(["--precision", "x"]).precision == "x"
    with pytest.raises(SystemExit):
        parser.parse_args(["--prec", "x"])


def test_exit_codes_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(EXIT_CODES) == [0, 1, 2, 130]
    text = said_by(capsys, "--help-all")
    module = sys.modules[main.__module__]
    for code, meaning in EXIT_CODES.items():
        assert f"  {code}" in text
        assert meaning in text
        assert f"{code} " in str(module.__doc__)
