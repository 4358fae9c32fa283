"""The page: whole, safe, self-contained, and without what has no data."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from foreword.report import render, write_report
from foreword.report.drawing import Plot

EVIL = "<script>alert(1)</script> & \"quotes\" 'single' </style> \ud800"


def results() -> dict[str, Any]:
    """Small and complete, with hostile text wherever text can come from data."""
    systems = ("bm25", "base", EVIL)
    rows = [
        {
            "system": system,
            "collection": collection,
            "measure": measure,
            "value": 0.3 + 0.1 * place,
            "seconds": 12.0,
            "trained_parameters": 12288 * place,
            "bytes": 49152 * place,
            "p_value": 0.0004,
        }
        for collection in ("pydoc/torch", EVIL)
        for place, system in enumerate(systems)
        for measure in ("nDCG@10", "R@100")
    ]
    hits = [
        {"name": EVIL, "text": EVIL, "score": 0.5, "relevant": True},
        {"name": "b", "text": "", "score": 0.1},
    ]
    base = {f"q{number}": 0.1 * (number % 5) for number in range(20)}
    return {
        "title": EVIL,
        "configuration": {EVIL: EVIL, "training": {"steps": 3, "sources": ["a", EVIL]}},
        "versions": {EVIL: EVIL},
        "created": EVIL,
        "headline": EVIL,
        "rows": rows,
        "similarity": {
            "method": EVIL,
            "domains": ["a", EVIL],
            "targets": ["a", EVIL, "t"],
            "values": [[1.0, 0.2, 0.3], [0.2, 1.0, None]],
        },
        "per_query": {
            EVIL: {
                "measure": EVIL,
                "baseline": "base",
                "systems": {
                    "base": base,
                    EVIL: {query: 0.25 if query != "q3" else base["q3"] for query in base},
                },
                "texts": {"q0": EVIL},
                "ranks": {"base": {"q0": None, "q4": 3}, EVIL: {"q0": 2, "q4": None}},
            }
        },
        "curves": [
            {
                "name": EVIL,
                "points": [{"step": 0, "loss": None, "dev": 0.4}, {"step": 9, "loss": 1.5, "dev": 0.5}],
            },
            {"name": "single", "points": [{"step": 0, "dev": 0.4}]},
        ],
        "weights": [
            {"target": EVIL, "system": EVIL, "weights": {EVIL: 0.75, "base": 0.25}},
            {"target": EVIL, "system": "transfer-uniform", "weights": {EVIL: 1.0}},
        ],
        "advice": [
            {"target": EVIL, "choice": "Don't transfer", "reason": EVIL},
            {"target": "t", "choice": "Transfer", "reason": EVIL},
        ],
        "searches": [
            {
                "query": EVIL,
                "collection": EVIL,
                "relevant": EVIL,
                "before": hits[::-1],
                "after": hits,
                "before_system": "base",
                "after_system": EVIL,
            }
        ],
    }


class Page(HTMLParser):
    """Collects tags, attributes and text, and fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def sections(self) -> list[str | None]:
        return [attributes["id"] for tag, attributes in self.tags if tag == "section"]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(results()))


def test_every_section_is_there_and_linked(page: Page) -> None:
    names = ["results", "advice", "gains", "searches", "similarity", "weights", "curves", "provenance"]
    assert page.sections() == names
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == [f"#{name}" for name in names]


def test_text_from_data_is_never_markup(page: Page) -> None:
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "img", "link", "object", "form"})
    assert len([tag for tag, _ in page.tags if tag == "style"]) == 1
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    shown = EVIL.replace("\ud800", "?")
    assert page.texts["h1"] == [shown]
    assert "<script" not in render(results())


def test_nothing_is_fetched() -> None:
    text = render(results())
    assert not re.search(r"https?://|@import|url\(|\bsrc=|<link", text)


def test_pictures_can_be_read_out(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    pictures = [attributes for tag, attributes in page.tags if tag == "svg" and "aria-hidden" not in attributes]
    assert len(pictures) == 4  # heatmap, gains, two learning curves
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)


def test_every_section_can_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plot, "inline", lambda *_: "")  # two dozen pages: their figures are drawn in the other tests
    whole = results()
    keys = {
        "rows": "results",
        "advice": "advice",
        "per_query": "gains",
        "searches": "searches",
        "similarity": "similarity",
        "weights": "weights",
        "curves": "curves",
    }
    for key, section in keys.items():
        for empty in ({}, None):
            assert section not in Page(render({**whole, key: empty})).sections()
        rest = {name: value for name, value in whole.items() if name != key}
        assert len(Page(render(rest)).sections()) == 7
    bare = Page(render({}))
    assert bare.sections() == []
    assert bare.texts["h1"] == ["Foreword report"]


@pytest.mark.parametrize(
    "change",
    [
        {"per_query": {"c": {"systems": {"other": {"q": 1.0}}}}},  # no baseline
        {"per_query": {"c": {"systems": {"base": {"q": 1.0}}}}},  # nothing beside it
        {"per_query": {"c": {"systems": {"base": {"q": 1.0}, "x": {"other": 1.0}}}}},  # no query in common
        {"curves": [{"name": "x", "points": []}, {"name": "y", "points": [{"step": 1}]}]},
        {"similarity": {"domains": ["a"], "targets": ["b"], "values": []}},
        {"searches": [{"query": "q"}]},
        {"weights": [{"target": "t", "system": "s", "weights": {}}]},
    ],
)
def test_half_filled_sections_are_left_out(change: dict[str, Any]) -> None:
    assert Page(render(change)).sections() == []


def test_gains_without_a_difference_and_single_values() -> None:
    page = Page(
        render(
            {
                "rows": [{"system": "base", "collection": "c", "measure": "AP", "value": 0.5}],
                "per_query": {"c": {"systems": {"base": {"q": 1.0}, "x": {"q": 1.0}}}},
                "similarity": {"domains": ["a"], "values": [[1.0]]},
                "curves": [{"name": "x", "points": [{"step": 0, "loss": 2.0}]}],
            }
        )
    )
    assert page.sections() == ["results", "gains", "similarity", "curves"]


def test_what_the_page_says() -> None:
    text = render(results())
    assert "1 queries" not in text
    assert "– → 2" in text  # the first relevant document of q0, not returned before
    assert "+.250" in text  # its gain
    assert "3 → –" in text
    assert "↑1" in text  # the relevant hit rose from the second place
    assert "49.2 kB" in text
    assert "✕ Don't transfer" in html.unescape(text)
    assert "✓ Transfer" in text


def test_equal_results_give_equal_files(tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "a.html", results())
    write_report(tmp_path / "b.html", results())
    assert (tmp_path / "new" / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "b.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>\n<html lang=")
