"""Colours and bars: on a terminal that has them, not in a pipe, and as NO_COLOR, FORCE_COLOR and TERM ask."""

from __future__ import annotations

import io

import pytest

from foreword.cli.grammar import print_table
from foreword.terminal import console, moves_cursor, track, wants_colour

RED = "\x1b[31m"


class Stream(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("terminal", "variables", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),  # empty is as good as absent: https://no-color.org
        (True, {"TERM": "dumb"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour(monkeypatch: pytest.MonkeyPatch, terminal: bool, variables: dict[str, str], coloured: bool) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    out = Stream(terminal)
    monkeypatch.setattr("sys.stdout", out)
    console().print("[red]word[/red]")
    assert (RED in out.getvalue()) is coloured
    assert "word" in out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_tables_show_texts_as_they_are(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    out = Stream(terminal)
    monkeypatch.setattr("sys.stdout", out)
    print_table("a [title]", ["[b]"], [["[/b] [red]x[/red] :smile:"], ["moves \x1b[2J up\x07"]])
    said = out.getvalue()
    assert "a [title]" in said
    assert "[/b] [red]x[/red] :smile:" in said
    assert "\x1b[2J" not in said
    assert "\x07" not in said
    assert ("\x1b[" in said) is terminal


def test_a_table_in_a_pipe_is_wide_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "word " * 28 + "end"
    for columns, lines in ((None, 1), ("60", 3)):
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        out = Stream(False)
        monkeypatch.setattr("sys.stdout", out)
        print_table("", ["n", "text"], [["1", long]])
        assert sum("word" in line for line in out.getvalue().splitlines()) == lines


@pytest.mark.parametrize(
    ("terminal", "term", "shown"), [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)]
)
def test_bars_where_a_line_can_be_drawn_again(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str, shown: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    err = Stream(terminal)
    monkeypatch.setattr("sys.stderr", err)
    assert moves_cursor() is shown
    asked = {}
    monkeypatch.setattr("tqdm.tqdm", lambda items, **settings: asked.update(settings) or items)
    assert list(track([1, 2], "counting")) == [1, 2]
    assert bool(asked) is shown
    asked.clear()
    assert list(track([1, 2], "counting", quiet=True)) == [1, 2]
    assert asked["disable"] is True


def test_a_log_has_a_line_of_progress_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    err, clock = Stream(False), iter([0.0, 4.0, 11.0, 15.0, 22.0])
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr("foreword.terminal.time.monotonic", lambda: next(clock))
    assert list(track("abcd", "letters")) == list("abcd")
    assert err.getvalue() == "letters: 25 %\nletters: 75 %\n"
    clock = iter([0.0, 11.0])
    assert list(track(iter("a"), "letters")) == ["a"]  # nobody knows how many
    assert err.getvalue().endswith("letters: 0\n")
    assert list(track("abcd", "letters", quiet=True)) == list("abcd")  # does not look at the clock


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, None),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_what_other_programs_are_told(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: bool | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wants_colour() is wanted
