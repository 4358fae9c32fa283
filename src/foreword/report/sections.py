"""The section with the table of results: what every system scores and costs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import foreword.tables as numbers
from foreword.report import charts
from foreword.report import html as table
from foreword.report.charts import heatmap, nice_ticks, picture
from foreword.report.html import Child, Markup, Results, data_table, element, row, scroll, system_name, value_cell


def results_tables(results: Results) -> Markup | None:
    """Systems by measures for every collection; over several, first an overview of the main measure."""
    rows = results.get("rows") or []
    measures = table.unique(rows, "measure")
    collections = table.unique(rows, "collection")
    if not measures or not collections:
        return None
    baseline = str(results.get("baseline") or table.BASELINE)
    gathered = table.gather(rows, measures, baseline)
    parts: list[Child] = []
    if len(collections) > 1:
        parts.append(_overview(gathered, collections, measures[0], baseline))
    for place, collection in enumerate(collections):
        own = [line for line in gathered if line.collection == collection]
        body = _collection_table(own, measures, baseline, None if len(collections) > 1 else collection)
        if len(collections) > 1:
            summary = element("summary", element("b", collection), " in full")
            body = element("details", summary, body, open=place == 0)
        parts.append(body)
    return element("div", parts, element("p", _notes(gathered, measures[0], baseline), class_="note"))


def _notes(rows: Sequence[table.SystemRow], measure: str, baseline: str) -> str:
    """How to read the table."""
    notes = [f"Best value of each column in bold. Δ: difference in {measure} from {baseline}."]
    if any(line.p_value is not None for line in rows):
        notes.append("p: two-sided paired randomisation test over queries, not corrected for many systems.")
    notes.append("Parameters, size and time are what the system adds; the encoder itself is never trained.")
    return " ".join(notes)


def _overview(rows: Sequence[table.SystemRow], collections: Sequence[str], measure: str, baseline: str) -> Markup:
    """Systems by collections on one measure, with the mean where a system has them all."""
    values = {(line.system, line.collection): line.values.get(measure) for line in rows}
    systems = list(dict.fromkeys(line.system for line in rows))
    means: dict[str, float | None] = {}
    for system in systems:
        own = [number for name in collections if (number := values.get((system, name))) is not None]
        means[system] = sum(own) / len(own) if len(own) == len(collections) else None
    tops = [table.best([line for line in rows if line.collection == name], measure) for name in collections]
    top_mean = numbers.value(max((mean for mean in means.values() if mean is not None), default=None))
    gains = {(line.system, line.collection): line.difference for line in rows}
    body = []
    for system in systems:
        cells = [
            value_cell(values.get((system, name)), top, gains.get((system, name)))
            for name, top in zip(collections, tops, strict=True)
        ]
        mean, base = means[system], means.get(baseline)
        gain = None if mean is None or base is None or system == baseline else mean - base
        cells.append(value_cell(mean, top_mean, gain))
        body.append(row(system_name(system), cells, class_="baseline" if system == baseline else None))
    caption = f"{measure} of every system on every collection, and below it the difference from {baseline}"
    return data_table(["System", *collections, "mean"], body, caption=caption)


def _collection_table(
    rows: Sequence[table.SystemRow], measures: Sequence[str], baseline: str, caption: str | None
) -> Markup:
    """Every measure and cost of the systems on one collection."""
    tops = {measure: table.best(rows, measure) for measure in measures}
    widest = max((abs(line.difference) for line in rows if line.difference is not None), default=0.0)
    body = []
    for line in rows:
        cells = [
            *(value_cell(line.values[measure], tops[measure]) for measure in measures),
            _difference_cell(line.difference, widest),
            numbers.p_value(line.p_value),
            numbers.count(line.trained_parameters),
            numbers.byte_size(line.bytes),
            numbers.duration(line.seconds),
        ]
        class_ = "baseline" if line.system == baseline else None
        body.append(row(system_name(line.system), cells, class_=class_))
    columns = ["System", *measures, f"Δ {measures[0]}", "p", "Trained parameters", "Size", "Time"]
    return data_table(columns, body, caption=caption)


def _difference_cell(number: float | None, widest: float) -> Markup:
    """A difference with a bar to the left (worse) or to the right (better) of a middle line."""
    bar = None
    if number is not None and widest > 0:
        side = "left" if number >= 0 else "right"
        style = f"{side}:50%;width:{abs(number) / widest * 50:.1f}%"
        filled = element("i", class_="win" if number >= 0 else "loss", style=style)
        bar = element("span", filled, class_="diff", aria_hidden="true")
    return element("td", element("span", numbers.difference(number)), bar, class_="n wide")


# The sections on single queries: gains and losses against the baseline, and searches before and after.


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


# The section on words: what each word of a query does to one document, with the base model and with a prompt.


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


# The section on calibration: whether scores, read as probabilities, come true.


_WIDTH, _HEIGHT = 420, 400  # px of a diagram
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 406, 26, 350  # px of the edges of its field
_LARGEST = 6.0  # px: the radius of the bin with the most hits

Item = Mapping[str, Any]


def calibration(results: Results) -> Markup | None:
    """For each domain a reliability diagram with a curve for each system, and the errors in a table."""
    found = [item for item in results.get("calibration") or [] if item.get("curve")]
    if not found:
        return None
    styles = {system: number for number, system in enumerate(table.unique(found, "system"))}
    articles = [
        element(
            "article",
            element("h3", domain, style="margin-top:0"),
            scroll(_diagram(f"calibration-{number}", domain, own, styles)),
        )
        for number, domain in enumerate(table.unique(found, "domain"))
        if (own := [item for item in found if str(item.get("domain")) == domain])
    ]
    text = (
        "A hit's confidence is a softmax over its query's best scores, divided by the temperature T. On the diagonal "
        "it comes true; below it the system is too sure, above it not sure enough. Each dot is a bin of hits, larger "
        "with more of them."
    )
    names = [element("li", charts.line_sample(number), name) for name, number in styles.items()]
    return element(
        "figure",
        element("figcaption", text),
        element("ul", names, class_="legend"),
        element("div", articles, class_="pair"),
        _calibration_table(found),
    )


def _diagram(key: str, domain: str, own: Sequence[Item], styles: Mapping[str, int]) -> Markup:
    """Confidence across, relevance upwards, the diagonal, and a curve for each system."""
    points = [point for item in own for point in item["curve"]]
    ticks = nice_ticks(0.0, max(max(point["confidence"], point["accuracy"]) for point in points), 6)
    largest = max(point["count"] for point in points)
    parts: list[Child] = [
        element("text", "share that is relevant", x=8, y=14, class_="axis"),
        [_tick(tick, ticks[-1]) for tick in ticks],
        element("line", x1=_LEFT, x2=_RIGHT, y1=_BOTTOM, y2=_TOP, class_="zero"),
        _label("confidence", (_LEFT + _RIGHT) / 2, _HEIGHT - 10, "middle"),
        [_curve(item, ticks[-1], largest, charts.line_class(styles[str(item["system"])])) for item in own],
    ]
    described = "; ".join(_said(item) for item in own)
    description = f"Reliability of hits on {domain}, confidence against the share that is relevant: {described}."
    return picture(key, f"Calibration on {domain}", description, _WIDTH, _HEIGHT, parts)


def _said(item: Item) -> str:
    """A system's outcome in words."""
    error = f"{item['system']} has an expected calibration error of {numbers.value(item.get('ece'))}"
    temperature = item.get("temperature")
    return error if temperature is None else f"{error} at temperature {temperature:.3g}"


def _tick(tick: float, top: float) -> list[Markup]:
    """A value on both axes, with a line across."""
    x, y, text = _x(tick, top), _y(tick, top), f"{tick:g}"
    line = element("line", x1=_LEFT, x2=_RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
    return [line, _label(text, _LEFT - 8, y + 4, "end"), _label(text, x, _BOTTOM + 18, "middle")]


def _curve(item: Item, top: float, largest: int, style: str) -> Markup:
    """One system's curve; a dot's numbers appear on hover."""
    places = [(f"{_x(p['confidence'], top):.1f}", f"{_y(p['accuracy'], top):.1f}") for p in item["curve"]]
    dots = []
    for (x, y), point in zip(places, item["curve"], strict=True):
        said = (
            f"{item['system']}: confidence {numbers.value(point['confidence'])}, relevant "
            f"{numbers.value(point['accuracy'])}, {numbers.count(point['count'])} hits"
        )
        radius = max(2.0, _LARGEST * math.sqrt(point["count"] / largest))
        dots.append(element("circle", element("title", said), cx=x, cy=y, r=f"{radius:.1f}"))
    return element(
        "g", element("polyline", points=" ".join(f"{x},{y}" for x, y in places)), dots, class_=f"curve {style}"
    )


def _x(value: float, top: float) -> float:
    """px from the left."""
    return _LEFT + value / top * (_RIGHT - _LEFT)


def _y(value: float, top: float) -> float:
    """px from the top."""
    return _BOTTOM - value / top * (_BOTTOM - _TOP)


def _label(text: str, x: float, y: float, anchor: str) -> Markup:
    """A text at a place."""
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _calibration_table(found: Sequence[Item]) -> Markup:
    """The errors of every system on every domain, the least of each domain in bold."""
    several = len(table.unique(found, "domain")) > 1
    body = []
    for item in found:
        peers = [peer for peer in found if peer.get("domain") == item.get("domain")]
        cells: list[Child] = [element("td", item.get("domain"))] if several else []
        cells.append(numbers.NOTHING if item.get("temperature") is None else f"{item['temperature']:.3g}")
        cells += [_least(item, peers, name) for name in ("ece", "brier")]
        cells += [numbers.value(item.get(name), 4) for name in ("reliability", "resolution", "uncertainty")]
        cells.append(numbers.count(sum(point["count"] for point in item["curve"])))
        body.append(row(system_name(str(item["system"])), cells))
    columns = ["System", *(["Domain"] if several else [])]
    columns += ["T", "ECE", "Brier", "reliability", "resolution", "uncertainty", "hits"]
    caption = "Expected calibration error and Brier score (less is better), and the Brier score's parts"
    return data_table(columns, body, caption=caption, words=range(2 if several else 1))


def _least(item: Item, peers: Sequence[Item], name: str) -> Markup:
    """A number that should be small, bold when none of its domain prints less."""
    text = numbers.value(item.get(name))
    least = numbers.value(min((peer[name] for peer in peers if peer.get(name) is not None), default=None))
    bold = text == least and text != numbers.NOTHING and len(peers) > 1
    return element("td", element("b", text) if bold else text, class_="n")


# The section on the words that prompts lie near.


_PARTS = {"both": "queries and documents", "query": "queries", "document": "documents"}


def words(results: Results) -> Markup | None:
    """A line of telling words for each prompt, and all of its vectors to unfold."""
    found = [item for item in results.get("words") or [] if any(item.get("rows") or [])]
    if not found:
        return None
    lines = [
        row(
            element("th", item.get("domain", ""), scope="row"),
            [element("td", _part(item)), element("td", _telling(item.get("summary") or []))],
        )
        for item in found
    ]
    caption = "The words that each prompt's vectors lie nearest to, most telling first"
    note = (
        "A word weighs the sum of its cosines with the vectors that have it among their nearest; × says how many "
        f"those are. {_left_out(found)}Nearness is a hint at what a prompt has learnt, not its meaning."
    )
    return element(
        "div",
        data_table(["Domain", "Encodes", "Words"], lines, caption=caption, words=range(3)),
        element("p", note, class_="note"),
        [_vectors(item) for item in found],
    )


def _part(item: Mapping[str, Any]) -> str:
    """What a part of a prompt encodes, in words."""
    part = str(item.get("part", ""))
    return _PARTS.get(part, part)


def _left_out(found: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on the vocabulary, where the records tell its size and all agree."""
    sizes = {(item.get("candidates"), item.get("excluded")) for item in found}
    candidates, excluded = next(iter(sizes))
    if len(sizes) > 1 or candidates is None or excluded is None:
        return ""
    return (
        f"Of the vocabulary {numbers.count(candidates)} entries were compared; {numbers.count(excluded)} special "
        "tokens, placeholders and the like were left out. "
    )


def _telling(summary: Sequence[Mapping[str, Any]]) -> list[Child]:
    """Words in a line, each with the number of its vectors where they are several."""
    parts: list[Child] = []
    for place, item in enumerate(summary):
        near = int(item.get("vectors", 1))
        parts += [", " if place else None, _word(item), f" ×{near}" if near > 1 else None]
    return parts or [numbers.NOTHING]


def _word(item: Mapping[str, Any]) -> Markup:
    """A word set apart, so that its direction of writing leaves the line around it alone."""
    return element("bdi", item.get("word", ""))


def _vectors(item: Mapping[str, Any]) -> Markup:
    """The nearest words of every vector, with their cosines, folded."""
    rows = item["rows"]
    most = max(map(len, rows))
    lines = []
    for number, near in enumerate(rows, start=1):
        cells = [element("td", _word(w), element("small", numbers.value(w.get("similarity")))) for w in near]
        cells += [element("td", numbers.NOTHING)] * (most - len(near))
        lines.append(row(element("th", number, scope="row"), cells))
    columns = ["Vector", "nearest", *(f"{place}." for place in range(2, most + 1))]
    heading = element("summary", "All vectors of ", element("b", item.get("domain", "")), f", {_part(item)}")
    return element("details", heading, data_table(columns, lines, words=range(len(columns))))


# The sections on domains: their similarity, the mixtures made of them, and what to do about each target.


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


# The sections on how the numbers came about: learning curves, configuration and versions.


def curves(results: Results) -> Markup | None:
    """Dev effectiveness and training loss against step, one line for each prompt."""
    found = [curve for curve in results.get("curves") or [] if curve.get("points")]
    styles = {str(curve["name"]): number for number, curve in enumerate(found)}
    pictures = []
    for field, label in (
        ("dev", str(results.get("dev_measure") or "dev nDCG@10")),
        ("loss", "training loss"),
    ):
        lines = [charts.Curve(str(curve["name"]), _points(curve, field)) for curve in found]
        lines = [line for line in lines if line.points]
        if lines:
            pictures.append(scroll(charts.line_chart(f"curve-{field}", label, lines, styles, label)))
    if not pictures:
        return None
    names = [element("li", charts.line_sample(number), name) for name, number in styles.items()]
    return element("figure", element("ul", names, class_="legend"), element("div", pictures, class_="pair"))


def _points(curve: Mapping[str, Any], field: str) -> list[tuple[float, float]]:
    """The (step, value) points at which a curve has this field."""
    points = [point for point in curve["points"] if point.get(field) is not None]
    return sorted((float(point["step"]), float(point[field])) for point in points)


def provenance(results: Results) -> Markup | None:
    """Configuration and versions, so that the numbers can be made again."""
    parts = []
    for key, caption in (("configuration", "Configuration"), ("versions", "Versions")):
        body = [
            element("tr", element("th", name, scope="row"), element("td", element("code", text)))
            for name, text in _flat(results.get(key) or {})
        ]
        if body:
            parts.append(scroll(element("table", element("caption", caption), element("tbody", body))))
    return element("div", parts, class_="pair") if parts else None


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as (dotted name, plain text or JSON) lines."""
    lines: list[tuple[str, str]] = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            lines += _flat(inner, f"{prefix}{key}.")
        elif isinstance(inner, list | tuple) and all(isinstance(item, str) for item in inner):
            lines.append((f"{prefix}{key}", ", ".join(inner)))
        else:
            text = inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False, default=str)
            lines.append((f"{prefix}{key}", text))
    return lines


# The section on gated prompts: in which layers and heads they act.


_SIDES = {"query": "queries", "document": "documents"}

_GATES_TEXT = (
    "How large what a prompt adds to a head's output is against that output itself: the ratio of their norms over a "
    "text's tokens, the mean over texts. At 1 the prompt says as much as the text does; at 0 it is silent. Layers "
    "count from the bottom."
)


def gates(results: Results) -> Markup | None:
    """A heatmap of layers by heads for each gated prompt and side, the first one open."""
    found = [item for item in results.get("gates") or [] if _whole(item)]
    if not found:
        return None
    parts = [_folded(f"gates-{number}", item, number == 0) for number, item in enumerate(found)]
    return element("figure", element("figcaption", _GATES_TEXT), parts)


def _whole(item: Mapping[str, Any]) -> bool:
    """Whether a record has a row for each layer, and rows of one length."""
    layers, values = item.get("layers") or [], item.get("strength") or []
    return bool(layers) and len(values) == len(layers) and len({len(row) for row in values}) == 1 and bool(values[0])


def _folded(key: str, item: Mapping[str, Any], opened: bool) -> Markup:
    """One prompt's heatmap under its name, with the place where it acts most."""
    side = str(item.get("side", ""))
    name = f"{item.get('domain', '')}, {_SIDES.get(side, side)}"
    layers, values = [int(layer) + 1 for layer in item["layers"]], item["strength"]
    heads = range(1, len(values[0]) + 1)
    picture = heatmap(
        key,
        f"Prompt of {name}: strength by layer and head",
        [f"layer {layer}" for layer in layers],
        [f"head {head}" for head in heads],
        values,
        what=f"Strength of the prompt of {name} in {len(layers)} layers (rows) and {len(heads)} heads (columns)",
        outline=False,
    )
    summary = element("summary", element("b", name), f": {_strongest(layers, values)}")
    return element("details", summary, scroll(picture), open=opened)


def _strongest(layers: Sequence[int], values: Sequence[Sequence[float]]) -> str:
    """The strongest head and layer, in words."""
    most, layer, head = max(
        (value, -row, -column) for row, line in enumerate(values) for column, value in enumerate(line)
    )
    means = [sum(line) / len(line) for line in values]
    top = means.index(max(means))
    return (
        f"most in layer {layers[-layer]}, head {1 - head} ({numbers.value(most)}); "
        f"by the mean of its heads in layer {layers[top]} ({numbers.value(means[top])})"
    )
