"""What a run's results come to: its rows by collection and system, as tables, and gains query by query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreword.tables import NOTHING, Table, TableCell, byte_size, count, difference, duration, p_value, top, value

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Results = Mapping[str, Any]
"""The object that `foreword.report.write_report` takes."""

BASELINE = "base"


@dataclass(frozen=True, slots=True)
class SystemRow:
    """One system on one collection, gathered from its rows (one for each measure)."""

    collection: str
    system: str
    values: Mapping[str, float | None]
    """Measure -> value."""
    difference: float | None
    """From the baseline, on the first measure."""
    p_value: float | None
    trained_parameters: int | None
    bytes: int | None
    seconds: float | None


def unique(rows: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    """The values of `key` in the order in which they first appear."""
    return list(dict.fromkeys(str(row[key]) for row in rows if row.get(key) is not None))


def gather(rows: Sequence[Mapping[str, Any]], measures: Sequence[str], baseline: str = BASELINE) -> list[SystemRow]:
    """One `SystemRow` for each collection and system, in order of appearance.

    A difference that the rows do not carry is computed from the baseline's value; a p-value is not.
    """
    cells: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["collection"], row["system"]), {})[row["measure"]] = row
    main = measures[0] if measures else ""
    gathered = []
    for collection in unique(rows, "collection"):
        for system in unique((row for row in rows if row["collection"] == collection), "system"):
            own = cells[collection, system]
            first = own.get(main, {})
            base = cells.get((collection, baseline), {}).get(main, {}).get("value")
            gain = first.get("difference")
            if gain is None and base is not None and first.get("value") is not None:
                gain = first["value"] - base
            compared = system != baseline
            costs = [
                next((row[key] for row in own.values() if row.get(key) is not None), None)
                for key in ("trained_parameters", "bytes", "seconds")
            ]
            values = {measure: own.get(measure, {}).get("value") for measure in measures}
            p = first.get("p_value")
            gathered.append(
                SystemRow(collection, system, values, gain if compared else None, p if compared else None, *costs)
            )
    return gathered


def format_table(
    rows: Sequence[Mapping[str, Any]],
    measures: Sequence[str] | None = None,
    *,
    baseline: str = BASELINE,
    title: str | None = None,
) -> RichTable:
    """The rows as a table for a terminal: systems by measures, the best of each collection in bold.

    `rows` are records with `system, collection, measure, value` and, optionally, `difference, p_value,
    trained_parameters, bytes, seconds`. The columns are `measures` in order, or all that appear; the difference, from
    the baseline, is on the first.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text  # what it holds is never read as rich's own mark-up

    found = _table(rows, measures, baseline)
    several = "collection" in found.columns
    shown = RichTable(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name in found.columns[several:]:
        short = "Δ" if name.startswith("Δ") else "params" if name == "parameters" else name
        shown.add_column(short, justify="left" if name == "system" else "right", no_wrap=True)
    previous = None
    for line in found.lines:
        if several and line[0].text != previous:  # a line of its own: as a column it would not leave room in 80
            if previous is not None:
                shown.add_section()
            previous = line[0].text
            shown.add_row(Text(previous, style="bold"))
        *cells, time = line[several:]
        texts = [Text(cell.text, style="bold" if cell.best else "") for cell in cells]
        shown.add_row(*texts, time.text.replace(" min ", "m").replace(" s", "s"))
    return shown


def markdown_table(
    rows: Sequence[Mapping[str, Any]], measures: Sequence[str] | None = None, *, baseline: str = BASELINE
) -> str:
    """The same table in Markdown, the best values in bold; arguments as for `format_table`."""
    return _table(rows, measures, baseline).markdown()


def _table(rows: Sequence[Mapping[str, Any]], measures: Sequence[str] | None, baseline: str) -> Table:
    chosen = list(measures) if measures is not None else unique(rows, "measure")
    gathered = gather(rows, chosen, baseline)
    several = len({row.collection for row in gathered}) > 1
    tops = {
        (row.collection, measure): top(peer.values[measure] for peer in gathered if peer.collection == row.collection)
        for row in gathered
        for measure in chosen
    }
    lines = []
    for row in gathered:
        values = {measure: value(row.values[measure]) for measure in chosen}
        best = {measure: text != NOTHING and text == tops[row.collection, measure] for measure, text in values.items()}
        costs = (count(row.trained_parameters), byte_size(row.bytes), duration(row.seconds))
        texts = (difference(row.difference), p_value(row.p_value), *costs)
        lines.append(
            (
                *([TableCell(row.collection)] if several else []),
                TableCell(row.system),
                *(TableCell(text, best[measure]) for measure, text in values.items()),
                *map(TableCell, texts),
            )
        )
    columns = [*(["collection"] if several else []), "system", *chosen]
    columns += [f"Δ {chosen[0] if chosen else ''}", "p", "parameters", "size", "time"]
    return Table("", tuple(columns), frozenset({0, 1} if several else {0}), tuple(lines))


Gains = Mapping[str, float]
"""query_id -> difference from the baseline."""


@dataclass(frozen=True)
class QueryGains:
    """The gains of every system over a baseline on one collection, and the system that is shown of them."""

    baseline: str
    measure: str
    system: str
    gains: Mapping[str, Gains]
    texts: Mapping[str, str]
    """query_id -> text, where it is known."""

    @property
    def shown(self) -> list[tuple[str, float]]:
        """The text (or id) and the gain of each query, of the system that is shown."""
        return [(str(self.texts.get(key, key)), gain) for key, gain in self.gains[self.system].items()]


def query_gains(data: Mapping[str, Any]) -> QueryGains | None:
    """The gains on one collection, of the system chosen in the data or else the best on the mean; None for none."""
    baseline, systems = str(data.get("baseline", BASELINE)), data.get("systems") or {}
    base = systems.get(baseline) or {}
    gains: dict[str, Gains] = {
        system: {key: values[key] - base[key] for key in base if key in values}
        for system, values in systems.items()
        if system != baseline and base.keys() & values.keys()
    }
    if not gains:
        return None
    chosen = str(data.get("chosen"))
    if chosen not in gains:
        chosen = max(gains, key=lambda system: sum(gains[system].values()) / len(gains[system]))
    return QueryGains(baseline, str(data.get("measure", "nDCG@10")), chosen, gains, data.get("texts") or {})


def better_same_worse(gains: Iterable[float]) -> tuple[int, int, int]:
    """How many queries are better, the same and worse."""
    own = list(gains)
    better, worse = sum(gain > 0 for gain in own), sum(gain < 0 for gain in own)
    return better, len(own) - better - worse, worse
