"""The sections on domains: their similarity, the mixtures made of them, and what to do about each target."""

from __future__ import annotations

from foreword.report import numbers, table
from foreword.report.heatmap import heatmap
from foreword.report.markup import Markup, element
from foreword.report.parts import Results, data_table, row, scroll


def advice(results: Results) -> Markup | None:
    """One card for each target: what to do, and why."""
    cards = []
    for item in results.get("advice") or []:
        choice = str(item.get("choice", ""))
        against = choice.lower().replace("’", "'").startswith(("don't", "do not", "no "))
        badge = element("p", "✕ " if against else "✓ ", choice, class_="against" if against else "in-favour")
        heading = element("h3", item.get("target", ""))
        cards.append(element("li", heading, badge, element("p", item.get("reason", ""))))
    return element("ul", cards, class_="cards") if cards else None


def similarity(results: Results) -> Markup | None:
    """The heatmap of source and target domains."""
    found = results.get("similarity") or {}
    sources, values = found.get("domains") or [], found.get("values") or []
    targets = found.get("targets") or sources
    if not sources or len(values) != len(sources) or any(len(line) != len(targets) for line in values):
        return None
    method = f" Measured by {found['method']}." if found.get("method") else ""
    text = (
        "Rows are sources, columns are targets; a stronger colour is more similar, and the outline marks "
        f"each target's nearest source.{method} Only texts are looked at, no labels."
    )
    picture = heatmap("similarity", "Domain similarity", sources, targets, values)
    return element("figure", element("figcaption", text), scroll(picture))


def weights(results: Results) -> Markup | None:
    """For each target, the share of every source in each transfer system's mixture."""
    found = [item for item in results.get("weights") or [] if item.get("weights")]
    parts = []
    for target in table.unique(found, "target"):
        own = {item["system"]: item["weights"] for item in found if item["target"] == target}
        sources = list(dict.fromkeys(source for shares in own.values() for source in shares))
        body = [
            row(
                element("th", source, scope="row"),
                [_weight_cell(shares.get(source)) for shares in own.values()],
            )
            for source in sources
        ]
        parts.append(
            data_table(
                ["Source", *own],
                body,
                caption=f"Prompts mixed for {target}",
                words=range(len(own) + 1),
                class_="weights",
            )
        )
    return element("div", parts) if parts else None


def _weight_cell(share: float | None) -> Markup:
    """A weight as a bar and a number."""
    if share is None:
        return element("td", numbers.NOTHING)
    length = f"width:{min(max(share, 0.0), 1.0) * 100:.1f}%"
    bar = element("span", element("i", class_="win", style=length), class_="meter", aria_hidden="true")
    return element("td", element("span", bar, numbers.value(share, 2), class_="weight"))
