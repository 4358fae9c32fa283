"""The sections on single queries: gains and losses against the baseline, and searches before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from foreword.report import charts, numbers, table
from foreword.report.markup import Markup, element
from foreword.report.parts import Results, data_table, row, scroll

_SHOWN = 5  # queries listed at either end

Gains = Mapping[str, float]
"""query_id -> difference from the baseline."""


def gains(results: Results) -> Markup | None:
    """For each collection: one system's gain on every query, and the queries that moved most."""
    parts = [
        _collection_gains(f"gains-{number}", str(collection), data)
        for number, (collection, data) in enumerate((results.get("per_query") or {}).items())
    ]
    present = [part for part in parts if part is not None]
    return element("div", present) if present else None


def _collection_gains(key: str, collection: str, data: Mapping[str, Any]) -> Markup | None:
    """The gains on one collection: bars, the queries that moved most, and how many each system moves."""
    found = shown_gains(data)
    if found is None:
        return None
    baseline, measure, chosen, deltas = found
    own, texts = deltas[chosen], data.get("texts") or {}
    title = f"{chosen} against {baseline} on {collection}"
    bars = [(str(texts.get(query_id, query_id)), gain) for query_id, gain in own.items()]
    better, same, worse = _counts(own)
    note = f"{better} queries better, {same} the same, {worse} worse. Hover over a bar to read its query."
    return element(
        "article",
        element("h3", title),
        scroll(charts.gain_bars(key, title, bars, measure)),
        element("p", note, class_="note"),
        _movers(data, baseline, chosen, own),
        _wins_table(deltas, baseline, measure),
    )


class Shown(NamedTuple):
    """What is shown of a collection: the gains of every system over a baseline, and the system chosen of them."""

    baseline: str
    measure: str
    system: str
    gains: Mapping[str, Gains]


def shown_gains(data: Mapping[str, Any]) -> Shown | None:
    """The gains on one collection, of the system chosen in the data or else the best on the mean; None for none."""
    baseline, measure = str(data.get("baseline", table.BASELINE)), str(data.get("measure", "nDCG@10"))
    deltas = _deltas(data.get("systems") or {}, baseline)
    if not deltas:
        return None
    chosen = str(data.get("chosen"))
    if chosen not in deltas:
        chosen = max(deltas, key=lambda system: sum(deltas[system].values()) / len(deltas[system]))
    return Shown(baseline, measure, chosen, deltas)


def _deltas(systems: Mapping[str, Mapping[str, float]], baseline: str) -> dict[str, Gains]:
    """Every other system's gains over the baseline, on the queries that both have."""
    base = systems.get(baseline) or {}
    deltas = {
        system: {query_id: values[query_id] - base[query_id] for query_id in base if query_id in values}
        for system, values in systems.items()
        if system != baseline
    }
    return {system: own for system, own in deltas.items() if own}


def _counts(own: Gains) -> tuple[int, int, int]:
    """How many queries are better, the same and worse."""
    better, worse = sum(gain > 0 for gain in own.values()), sum(gain < 0 for gain in own.values())
    return better, len(own) - better - worse, worse


def _movers(data: Mapping[str, Any], baseline: str, system: str, own: Gains) -> Markup | None:
    """The queries that moved most, with the rank of the first relevant document where it is known."""
    texts, systems, ranks = data.get("texts") or {}, data["systems"], data.get("ranks") or {}
    ranked = baseline in ranks and system in ranks
    columns = ["Query", baseline, system, "Δ", *(["First relevant at rank"] if ranked else [])]

    def line(query_id: str) -> Markup:
        ways = [ranks[name].get(query_id) for name in (baseline, system)] if ranked else []
        arrow = " → ".join(numbers.NOTHING if rank is None else str(rank) for rank in ways)
        values = [numbers.value(systems[name][query_id]) for name in (baseline, system)]
        head = element("th", texts.get(query_id, query_id), scope="row", class_="text")
        return row(head, [*values, numbers.difference(own[query_id]), *([arrow] if ranked else [])])

    moved = sorted(own, key=lambda query_id: -own[query_id])
    groups = (
        ("Largest gains", [query_id for query_id in moved[:_SHOWN] if own[query_id] > 0]),
        ("Largest losses", [query_id for query_id in moved[::-1][:_SHOWN] if own[query_id] < 0]),
    )
    bodies = [
        element(
            "tbody",
            element("tr", element("th", name, scope="rowgroup", colspan=len(columns))),
            [line(query_id) for query_id in query_ids],
            class_="group",
        )
        for name, query_ids in groups
        if query_ids
    ]
    return data_table(columns, bodies) if bodies else None


def _wins_table(deltas: Mapping[str, Gains], baseline: str, measure: str) -> Markup:
    """How many queries each system makes better and worse."""
    body = []
    for system, own in deltas.items():
        better, same, worse = _counts(own)
        shares = [
            element("i", class_=name, style=f"width:{amount / len(own) * 100:.1f}%")
            for name, amount in (("win", better), ("same", same), ("loss", worse))
        ]
        mean = numbers.difference(sum(own.values()) / len(own))
        bar = element("td", element("span", shares, class_="shares", aria_hidden="true"))
        head = element("th", system, scope="row")
        body.append(row(head, [str(better), str(same), str(worse), mean, bar]))
    columns = ["System", "Better", "Same", "Worse", f"Mean Δ {measure}", "Better | same | worse"]
    summary = element("summary", f"Every system against {baseline}, query by query")
    return element("details", summary, data_table(columns, body, words=(0, 5)))


def searches(results: Results) -> Markup | None:
    """Real searches before and after, side by side."""
    articles = []
    for item in results.get("searches") or []:
        before, after = item.get("before") or [], item.get("after") or []
        if not before and not after:
            continue
        place = f"in {item['collection']}" if item.get("collection") else "search"
        relevant = ["; relevant: ", element("code", item["relevant"])] if item.get("relevant") else None
        lists = [
            _hits(str(item.get("before_system", "before")), before, None),
            _hits(str(item.get("after_system", "after")), after, before),
        ]
        articles.append(
            element(
                "article",
                element("h3", "“", item.get("query", ""), "”"),
                element("p", place, relevant, class_="note"),
                element("div", lists, class_="pair"),
            )
        )
    return element("div", articles, class_="searches") if articles else None


def _hits(system: str, hits: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]] | None) -> Markup:
    """One system's ranking; with `before`, how far each hit moved since."""
    ranks = {hit.get("name"): rank for rank, hit in enumerate(before or [], start=1)}
    items = []
    for rank, hit in enumerate(hits, start=1):
        name, relevant = hit.get("name", ""), bool(hit.get("relevant"))
        moved = _moved(ranks.get(name), rank) if before else ""
        line = element(
            "p",
            element("code", name),
            element("mark", "relevant") if relevant else None,
            element("span", moved, class_="moved") if moved else None,
            element("span", numbers.value(hit.get("score")), class_="score"),
        )
        snippet = element("p", hit.get("text", ""), class_="snippet")
        items.append(element("li", line, snippet, class_="relevant" if relevant else None))
    return element("div", element("h4", system), element("ol", items, class_="hits"))


def _moved(before: int | None, after: int) -> str:
    """A hit's way: `↑4`, `↓1`, `new`, or nothing when it stayed."""
    if before is None:
        return "new"
    return "" if before == after else f"↑{before - after}" if before > after else f"↓{after - before}"
