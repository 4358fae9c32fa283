"""The figures: round ticks, a bar for every query, colours that follow the values, and how they become part of a page."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any
from xml.etree import ElementTree

import pytest

from foreword.report.drawing import COLOURS, Plot, canvas, value_axis
from foreword.report.plots import curves, gain_bars, line_look, similarity


def parts(plot: Plot, name: str) -> list[ElementTree.Element]:
    """The drawn parts of a group in the page: those that have a text under the pointer."""
    (group,) = [node for node in ElementTree.fromstring(plot.inline("k")) if node.get("class") == name]
    return [node for node in group if node.tag != "title"]


def titles(nodes: list[ElementTree.Element]) -> list[str]:
    return [node.findtext("title") or "" for node in nodes]


def style(node: ElementTree.Element) -> dict[str, str]:
    return dict(part.split(":", 1) for part in node.attrib["style"].split(";"))


def ticks(low: float, high: float) -> list[float]:
    with canvas(3, 3) as (_, axes):
        value_axis(axes, "", (low, high))
        found = [float(tick) for tick in axes.get_yticks()]
        assert axes.get_ylim() == (found[0], found[-1])
        return found


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.41, 0.58, [0.4, 0.45, 0.5, 0.55, 0.6]),
        (-0.7, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (0, 400, [0, 100, 200, 300, 400]),
        (2.0, 2.0, [1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 2.6]),
    ],
)
def test_ticks_are_round_and_span_the_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_ticks_span_any_values() -> None:
    for low, high in ((0.0, 1e-6), (-3.2, 17.9), (1e5, 3e9), (0.512, 0.513)):
        found = ticks(low, high)
        assert found[0] <= low
        assert found[-1] >= high
        assert 2 <= len(found) <= 9


def test_one_bar_for_each_query_sorted() -> None:
    plot = gain_bars("k", "t", [("worse", -0.5), ("best", 1.0), ("same", 0.0), ("good", 0.25)], "AP")
    assert titles(parts(plot, "hits")) == ["+1.000 best", "+.250 good", ".000 same", "−.500 worse"]
    better, worse = plot.figure.axes[0].patches  # steps: above 0 in one colour, below it in another
    assert list(better.get_data().values) == [1.0, 0.25, 0.0, 0.0]  # type: ignore[attr-defined]
    assert list(worse.get_data().values) == [0.0, 0.0, 0.0, -0.5]  # type: ignore[attr-defined]
    assert [style(node)["fill"] for node in bars(plot)] == ["var(--win)", "var(--loss)"]
    assert plot.said == "2 queries better, 1 worse, 1 the same; differences from +1.000 to −.500."
    assert f'<desc id="k-desc">{plot.said}</desc>' in plot.inline("k")


def bars(plot: Plot) -> list[ElementTree.Element]:
    picture = ElementTree.fromstring(plot.inline("k"))
    return [group[0] for group in picture if group.get("class") == "bars"]


def test_many_queries_are_thinned_out_but_counted() -> None:
    plot = gain_bars("k", "t", [(f"q{number}", number / 5000) for number in range(5000)], "AP", most=100)
    found = titles(parts(plot, "hits"))
    assert len(found) == 100
    assert found[0].endswith("q4999")
    assert found[-1].endswith("q0")
    assert "5,000 queries" in plot.inline("k")


def test_heatmap_colours_and_values() -> None:
    found = {"domains": ["a", "b"], "targets": ["a", "b", "far target name"]}
    plot = similarity({"similarity": {**found, "values": [[1.0, 0.2, 0.8], [0.5, 1.0, -0.1]]}})
    assert plot is not None
    cells = parts(plot, "cells")
    outlines = [style(cell)["stroke"] for cell in cells]
    assert list(zip(titles(cells), outlines, strict=True)) == [
        ("a → a: 1.00", "var(--rule)"),  # itself
        ("a → b: 0.20", "var(--loss)"),  # nearest of b, the only other
        ("a → far target name: 0.80", "var(--loss)"),
        ("b → a: 0.50", "var(--loss)"),
        ("b → b: 1.00", "var(--rule)"),
        ("b → far target name: −0.10", "var(--rule)"),
    ]
    colours = [style(cell) for cell in cells]
    assert colours[0]["fill"] == "none"
    assert {found["fill"] for found in colours[1:4]} == {"var(--heat)"}
    opacity = [float(found.get("fill-opacity", 0)) for found in colours]
    assert opacity == pytest.approx([0, 0.06 + 0.9 / 3, 0.96, 0.66, 0, 0.06])
    written = {
        node.text: style(node)["fill"] for node in ElementTree.fromstring(plot.inline("k")) if node.tag == "text"
    }
    assert written["0.80"] == "var(--heat-ink)"  # light text on a strong colour
    assert written["−0.10"] == "var(--ink)"
    assert "from -0.10 to 0.80" in plot.said


def test_lines() -> None:
    points: list[dict[str, Any]] = [
        {"name": "one", "points": [{"step": 100, "dev": 0.5}, {"step": 0, "dev": 0.4}]},
        *({"name": f"no {number}", "points": [{"step": 0}]} for number in range(8)),
        {"name": "two", "points": [{"step": 50, "dev": 0.45}]},
    ]
    (plot,) = curves({"curves": points})
    lines = {str(line.get_label()): line for line in plot.figure.axes[0].lines}
    assert [tuple(map(float, xy)) for xy in lines["one"].get_xydata()] == [(0, 0.4), (100, 0.5)]
    assert len(lines["two"].get_xydata()) == 1
    assert line_look(0)["linestyle"] == "-"
    assert (line_look(9)["color"], line_look(9)["linestyle"]) == (line_look(1)["color"], "--")
    assert line_look(16) == line_look(0)
    picture = ElementTree.fromstring(plot.inline("k"))
    assert [node.findtext("title") for node in picture if node.get("class") == "line"] == [
        "one: .500 at step 100",
        "two: .450 at step 50",
    ]
    assert "one from .400 to .500; two from .450 to .450" in plot.caption
    assert "var(--c0)" in plot.inline("k")
    assert "var(--c1)" in plot.inline("k")


# How a figure becomes part of a page


def test_the_figures_colours_are_the_pages() -> None:
    sheet = resources.files("foreword.report").joinpath("style.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6});", part)) for part in sheet.split("@media")[:2])
    assert set(COLOURS.values()) <= set(light) & set(dark)
    for colour, name in COLOURS.items():
        assert light[name] == colour or name == "heat-ink"


def test_a_figure_in_a_page_is_small_and_stands_for_itself() -> None:
    plot = gain_bars("k", "a <b> & \ud800", [("x", 0.5), ("y", -0.25)], "AP")
    first, second = plot.inline("one"), plot.inline("two")
    assert plot.inline("one") == first
    assert second == first.replace("one-", "two-")
    assert not re.search(r"https?:|url\(|xmlns|font-family|#[0-9a-f]{6}|\d\.\d{3}|<style|<!--", first)
    root = ElementTree.fromstring(first)
    ids = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
    assert len(ids) == len(set(ids))
    assert root.attrib["aria-labelledby"].split() == ["one-title", "one-desc"]
    assert root.findtext("title") == "a <b> & ?"
    assert "AP from base" in first  # letters are text, not outlines
