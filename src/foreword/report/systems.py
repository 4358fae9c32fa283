"""The section with the table of results: what every system scores and costs."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.report import numbers, table
from foreword.report.markup import Child, Markup, element
from foreword.report.parts import Results, data_table, row, system_name, value_cell


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
            numbers.size(line.bytes),
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
