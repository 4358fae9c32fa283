"""Help, its groups and its width; what a misspelt word is answered with; exit codes."""

from __future__ import annotations

import sys

import pytest
from shell import Shell
from test_cli import COMMANDS

from foreword.cli import main
from foreword.cli.grammar import EXIT_CODES, CommandParser, did_you_mean
from foreword.cli.main import GROUPS, build_parser


def said_by(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == code
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_every_command_is_in_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted([*COMMANDS, "help", "completion"])
    help_text = said_by(capsys, "--help")
    places = [help_text.index(f"\n{title}:\n") for title in [*GROUPS, "options", "exit codes", "environment"]]
    assert places == sorted(places)
    assert "other commands" not in help_text


def test_a_command_without_a_group_is_listed_all_the_same() -> None:
    parser = build_parser()
    parser.groups = {"first": ("search",)}
    text = parser.format_help()
    assert text.index("\nfirst:\n  search") < text.index("\nother commands:\n") < text.index("\n  train ")


@pytest.mark.parametrize("words", [("train",), ("index", "search"), ("help",)])
def test_help_of_a_command_is_its_own(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert said_by(capsys, "help", *words) == said_by(capsys, *words, "--help")


def test_help_alone_lists_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert said_by(capsys, "help") == said_by(capsys, "--help")
    assert "did you mean train?" in said_by(capsys, "help", "trian", code=2)


@pytest.mark.parametrize("columns", [50, 90])
def test_texts_wrap_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = said_by(capsys, "benchmark", "--help")
    about = text.split("\n\n")[1]
    assert " ".join(about.split()) == (
        "Leave each domain of a group out, and measure what the others' prompts give it."
    )
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
        (["index", "search", "n.db", "--fusoin", "min-max"], "for --fusoin, did you mean --fusion?"),
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
    parser = CommandParser(prog="p")
    parser.add_argument("--precision")
    assert parser.parse_args(["--precision", "x"]).precision == "x"
    with pytest.raises(SystemExit):
        parser.parse_args(["--prec", "x"])


def test_exit_codes_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(EXIT_CODES) == [0, 1, 2, 130]
    text = said_by(capsys, "--help")
    module = sys.modules[main.__module__]
    for code, meaning in EXIT_CODES.items():
        assert f"  {code}" in text
        assert meaning in text
        assert f"{code} " in str(module.__doc__)
