"""The section on words: what each word of a query does to one document, with the base model and with a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foreword.report import numbers
from foreword.report.markup import Child, Markup, element
from foreword.report.parts import Results, data_table, row

_FULL = 50  # per cent of a colour behind the strongest word; the text on it stays legible, light or dark
_LEAST = 4  # per cent from which a shade can be seen

_CHIP = (
    "display:inline-block;max-width:100%;margin:0 3px 6px 0;padding:2px 7px 1px;border-radius:6px;text-align:center;"
    "overflow-wrap:anywhere"
)
_NUMBER = "display:block;font-size:11.5px;line-height:1.3;font-variant-numeric:tabular-nums"

_TEXT = (
    "Each word of the query is left out in turn and the search made again. The number below a word is what it adds to "
    "the margin of the document that is watched: the document's score less the best other one's, above 0 when it is "
    "first. "
)
_LIMITS = "One scale for both lines of a search. Words do not add up: leaving out two is not the sum of either."


def influence(results: Results) -> Markup | None:
    """For each search the words of its query, shaded by what they do, for both systems; all numbers to unfold."""
    found = [item for item in results.get("influence") or [] if item.get("words")]
    if not found:
        return None
    samples = [_shade("+", 1.0), " the word helps the document, ", _shade("−", -1.0), " it holds it down. "]
    return element(
        "figure",
        element("figcaption", _TEXT, samples, _LIMITS),
        element("div", [_search(item) for item in found], class_="searches"),
    )


def _search(item: Mapping[str, Any]) -> Markup:
    """One query: the document, a line of words for each system, and the table."""
    base, prompt = _systems(item)
    words = item["words"]
    most = max(abs(float(word[key])) for word in words for key in ("base", "prompted"))
    lines = [
        [
            element("h4", name, element("span", f": {_standing(item.get(key))}", style="font-weight:400")),
            _sentence(words, key, most, name),
        ]
        for name, key in ((base, "base"), (prompt, "prompted"))
    ]
    return element(
        "article",
        element("h3", "“", item.get("query", ""), "”"),
        element("p", _watched(item), class_="note"),
        lines,
        _table(words, base, prompt),
    )


def _systems(item: Mapping[str, Any]) -> tuple[str, str]:
    """The names of the base model and of the prompt."""
    base, prompt = item.get("systems") or ("base", "prompt")
    return str(base), str(prompt)


def _watched(item: Mapping[str, Any]) -> list[Child]:
    """Which document is watched, why, and what the search gained or lost."""
    why = "the first hit with the prompt" if item.get("relevant") is None else "relevant"
    gain, measure = item.get("change"), item.get("measure")
    won = None if gain is None else f"; the search {'gains' if gain > 0 else 'loses'} {numbers.value(abs(gain))}"
    where = f" in {measure}" if won and measure else None
    return ["watched: ", element("code", item.get("document", item.get("doc_id", ""))), f", {why}", won, where]


def _standing(standing: Mapping[str, Any] | None) -> str:
    """Rank and margin for the whole query, in words."""
    if not standing:
        return numbers.NOTHING
    return f"rank {numbers.count(standing.get('rank'))}, margin {numbers.difference(standing.get('margin'))}"


def _sentence(words: Sequence[Mapping[str, Any]], key: str, most: float, name: str) -> Markup:
    """The query as a list of shaded words, each read out with its number."""
    items = []
    for word in words:
        effect = float(word[key])
        number = element("span", numbers.difference(effect), style=_NUMBER)
        chip = _CHIP + _background(effect, most)
        items.append(element("li", element("bdi", word["word"]), number, style=chip))
    style = "margin:0 0 8px;padding:0;list-style:none"
    return element("ul", items, role="list", aria_label=f"Words of the query with {name}", style=style)


def _background(effect: float, most: float) -> str:
    """The shade of an effect, blue for help and orange for harm."""
    share = 0.0 if most == 0 else abs(effect) / most * _FULL
    if share < _LEAST:
        return ";background:var(--faint)"
    return f";background:color-mix(in srgb,var(--{'win' if effect > 0 else 'loss'}) {share:.0f}%,var(--faint))"


def _shade(text: str, effect: float) -> Markup:
    """A sample of a full shade, for the legend."""
    return element("span", text, style=f"padding:0 6px;border-radius:6px;color:var(--ink){_background(effect, 1.0)}")


def _table(words: Sequence[Mapping[str, Any]], base: str, prompt: str) -> Markup:
    """All numbers: the effects, their difference, and where the document stands without each word."""
    body = []
    for word in words:
        ranks = [(word.get(key) or {}).get("rank") for key in ("without_base", "without_prompted")]
        cells: list[Child] = [numbers.difference(word.get(key)) for key in ("base", "prompted", "gain")]
        head = element("th", element("bdi", word["word"]), scope="row")
        body.append(row(head, [*cells, *(numbers.count(rank) for rank in ranks)]))
    columns = ["Left out", base, prompt, "Difference", f"Rank without it, {base}", f"Rank without it, {prompt}"]
    return element("details", element("summary", "All numbers"), data_table(columns, body))
