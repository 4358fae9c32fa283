"""Tables and the numbers in them."""

from __future__ import annotations

import io

import pytest

import foreword.tables as numbers
from foreword.report import format_table, markdown_table

ROWS = [
    {"system": "bm25", "collection": "c", "measure": "nDCG@10", "value": 0.4, "seconds": 2.0},
    {"system": "bm25", "collection": "c", "measure": "R@100", "value": 0.9001},
    {"system": "base", "collection": "c", "measure": "nDCG@10", "value": 0.5},
    {"system": "base", "collection": "c", "measure": "R@100", "value": 0.9},
    {
        "system": "a|b",
        "collection": "c",
        "measure": "nDCG@10",
        "value": 0.5693,
        "difference": 0.0691,
        "p_value": 0.0001,
        "trained_parameters": 12288,
        "bytes": 49336,
        "seconds": 83.0,
    },
]


def test_markdown() -> None:
    assert markdown_table(ROWS).splitlines() == [
        "| system | nDCG@10 | R@100 | Δ nDCG@10 | p | parameters | size | time |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: |",
        "| bm25 | .400 | **.900** | −.100 | – | – | – | 2.0 s |",
        "| base | .500 | **.900** | – | – | – | – | – |",  # printed alike, marked alike
        "| a\\|b | **.569** | – | +.069 | <.001 | 12,288 | 49.3 kB | 1 min 23 s |",
    ]


def test_several_collections_and_chosen_measures() -> None:
    rows = [*ROWS, {"system": "base", "collection": "d", "measure": "nDCG@10", "value": 0.1}]
    lines = markdown_table(rows, ["nDCG@10"]).splitlines()
    assert lines[0].startswith("| collection | system | nDCG@10 | Δ nDCG@10 |")
    assert lines[-1].startswith("| d | base | **.100** | – |")
    assert markdown_table([], []).startswith("| system |")


def test_the_terminals_table_says_the_same() -> None:
    from rich.console import Console

    screen = io.StringIO()
    Console(file=screen, width=120, color_system=None).print(format_table(ROWS, title="[bold]c"))
    text = screen.getvalue()
    for expected in ("a|b", ".569", "+.069", "<.001", "12,288", "49.3 kB", "1m23s", "−.100"):
        assert expected in text
    table = format_table([*ROWS, {**ROWS[2], "collection": "d"}], ["nDCG@10"])
    assert [column.header for column in table.columns][:2] == ["system", "nDCG@10"]
    assert table.row_count == 4 + 2  # and a line for each collection


@pytest.mark.parametrize(
    ("function", "number", "text"),
    [
        (numbers.value, 0.3744, ".374"),
        (numbers.value, 0.9999, "1.000"),
        (numbers.value, -0.25, "−.250"),
        (numbers.value, 10.0, "10.0"),
        (numbers.value, 12345.6, "12,345.6"),
        (numbers.value, float("nan"), "–"),
        (numbers.value, None, "–"),
        (numbers.difference, 0.0691, "+.069"),
        (numbers.difference, -0.0004, ".000"),
        (numbers.difference, -0.012, "−.012"),
        (numbers.p_value, 0.0009, "<.001"),
        (numbers.p_value, 0.05, ".050"),
        (numbers.count, 589824, "589,824"),
        (numbers.byte_size, 0, "0 B"),
        (numbers.byte_size, 999, "999 B"),
        (numbers.byte_size, 999_960, "1.0 MB"),
        (numbers.byte_size, 2_359_584, "2.4 MB"),
        (numbers.duration, 0.04, "0.0 s"),
        (numbers.duration, 9.97, "10 s"),
        (numbers.duration, 59.7, "1 min 0 s"),
        (numbers.duration, 3780.0, "1 h 3 min"),
    ],
)
def test_numbers(function, number, text: str) -> None:  # type: ignore[no-untyped-def]
    assert function(number) == text
