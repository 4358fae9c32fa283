"""The benchmark's tables, and its page, with nothing beside it, and the same results as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import foreword.tables as numbers
from foreword.files import atomic_write, write_json
from foreword.lab.records import BenchmarkCell
from foreword.lab.statistics import Interval, Summaries, Summary, Verdict, macro_mean, only, seed_means
from foreword.report.drawing import Plot
from foreword.report.html import document, fill
from foreword.tables import Table, TableCell, top


def summary_table(summaries: Summaries, title: str = "Means over the targets") -> Table:
    """Systems by what they come to; the best means are marked, and the systems without a mean are named below."""
    measures = summaries.measures
    tops = {measure: top(summary.measures[measure] for summary in summaries.rows) for measure in measures}
    lines = []
    for summary in summaries.rows:
        values = [_valued(summary.measures[measure], tops[measure]) for measure in measures]
        lines.append(
            (TableCell(summary.system), *values, *map(TableCell, (*_gain_texts(summary), *_cost_texts(summary))))
        )
    gains = (f"Δ {measures[0]}", "p", f"of {summaries.ceiling}'s gain", "worst domain", "Δ there", "win/tie/loss")
    costs = ("labels", "transferred", "sd of seeds", "seeds", "parameters", "stored", "time")
    columns = ("system", *measures, *gains, *costs)
    return Table(
        f"{title} ({len(summaries.targets)})",
        columns,
        frozenset({0, columns.index("worst domain")}),
        tuple(lines),
        tuple(_summary_notes(summaries)),
        tuple(row.as_dict() for row in summaries.rows),
    )


def domain_table(
    cells: Sequence[BenchmarkCell], systems: Sequence[str], targets: Sequence[str], measure: str = "nDCG@10"
) -> Table:
    """Targets by systems, means over seeds, the best of each line marked.

    The last line has the mean of each system that covers all targets; a dash says that the system was not run.
    """
    means = {system: only(seed_means(cells, system, measure), targets) for system in systems}
    genres = {cell.target: cell.genre for cell in cells}
    lines, records = [], []

    def add(target: str, genre: str, values: Mapping[str, float | None]) -> None:
        best = top(values.values())
        lines.append((TableCell(target), TableCell(genre), *(_valued(values[system], best) for system in systems)))
        records.append({"target": target, "genre": genre, "measure": measure, "values": dict(values)})

    for target in targets:
        own = {s: macro_mean({target: means[s][target]}) if target in means[s] else None for s in systems}
        add(target, genres.get(target, numbers.NOTHING), own)
    whole = {s: macro_mean(means[s]) if set(means[s]) == set(targets) else None for s in systems}
    add(f"mean of {len(targets)}", "", whole)
    notes = [
        f"{system}: no mean, since it covers {len(means[system])} of {len(targets)} targets."
        for system in systems
        if whole[system] is None
    ]
    columns = ("target", "genre", *systems)
    return Table(f"{measure} by target", columns, frozenset({0, 1}), tuple(lines), tuple(notes), tuple(records))


def hypothesis_table(verdicts: Sequence[Verdict], title: str = "Hypotheses") -> Table:
    """What was claimed and what came of it."""
    lines = []
    for verdict in verdicts:
        claim = verdict.hypothesis
        outcome: str = verdict.outcome
        if verdict.missing:
            named = verdict.missing if len(verdict.missing) < 4 else [f"{len(verdict.missing)} targets"]
            outcome += f" (missing: {', '.join(named)})"
        texts = (claim.name, claim.statement, f"{claim.system} − {claim.baseline}", _interval(verdict.difference))
        lines.append((*texts, numbers.p_value(verdict.p_value), numbers.p_value(verdict.p_holm), outcome))
    notes = (
        "Supported or contradicted: the interval for domains like these lies on one side of 0 and the p-value, "
        "corrected for all hypotheses (Holm), is below the level; undecided otherwise.",
    )
    columns = ("hypothesis", "statement", "compared", "difference", "p", "p (Holm)", "verdict")
    records = tuple(verdict.as_dict() for verdict in verdicts)
    shown = tuple(tuple(map(TableCell, line)) for line in lines)
    return Table(title, columns, frozenset({0, 1, 2, 6}), shown, notes, records)


def tuning_table(
    tuning: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], paces: Mapping[str, Mapping[str, Any]], unit: str
) -> Table:
    """What each method comes to by rate, as means over the collections tuned on, and what a step of it costs.

    Args:
        tuning: method -> rate -> what each training had `before` and `after` it.
        paces: of any key, a `method` and the `seconds` a step that were measured.
        unit: the method whose step's time is 1.
    """
    steps = {each["method"]: median(each["seconds"]) for each in paces.values()}
    lines, rows = [], []
    for method, rates in sorted(tuning.items()):
        own = [
            {key: sum(end[key.split()[1]][key.split()[0]] for end in ends) / len(ends) for key in _TUNING}
            | {"method": method, "rate": float(rate)}
            for rate, ends in rates.items()
        ]
        best = min(row["loss after"] for row in own)
        pace = numbers.value(steps[method] / steps[unit], 2) if {method, unit} <= set(steps) else numbers.NOTHING
        for row in own:
            cells = [TableCell(f"{row[key]:.4f}", key == "loss after" and row[key] == best) for key in _TUNING]
            lines.append((TableCell(method), TableCell(f"{row['rate']:g}"), *cells, TableCell(pace)))
        rows += own
    columns = ("method", "rate", *_TUNING, "a step")
    notes = (f"On dev queries, means over the collections (dev: nDCG@10); a step's time, that of {unit} being 1.",)
    return Table("Learning rates", columns, frozenset({0}), tuple(lines), notes, tuple(rows))


_TUNING = ("dev before", "dev after", "loss before", "loss after")


def _gain_texts(row: Summary) -> list[str]:
    """Difference, p-value, share, worst domain, its difference and counts."""
    gain = row.gain
    if gain is None:
        return [numbers.NOTHING] * 6
    counts, share, kept = gain.counts, row.share, numbers.NOTHING
    if share is not None and share.share is not None and share.low is not None:
        kept = f"{_percent(share.share)} {_ends(share.low, share.high, _percent)}"  # `63 % [41 %, 80 %]`
    return [
        _interval(gain.difference),
        numbers.p_value(gain.p_value),
        kept,
        gain.worst_target,
        _interval(gain.worst),
        f"{counts.wins}/{counts.ties}/{counts.losses} ({counts.significant_wins}/{counts.significant_losses})",
    ]


def _cost_texts(row: Summary) -> list[str]:
    """Labels, coverage, spread, seeds, parameters, bytes and seconds."""
    low, high = row.seeds
    labels = ["all" if number is None else str(number) for number in row.labels]
    parameters = row.trained_parameters
    return [
        labels[0] if len(labels) == 1 else f"{labels[0]}–{labels[-1]}",
        _percent(row.coverage),
        numbers.value(row.spread, 4),
        str(low) if low == high else f"{low}–{high}",
        numbers.count(parameters) if float(parameters).is_integer() else f"{parameters:,.1f}",
        numbers.byte_size(row.stored_bytes),
        numbers.duration(row.seconds),
    ]


def _summary_notes(summaries: Summaries) -> list[str]:
    """How to read the columns, and who is missing from them."""
    count = len(summaries.targets)
    notes = [
        f"Δ: from {summaries.baseline}. In brackets: 95 % bootstrap intervals, domains and queries drawn (of the worst "
        "domain: queries alone). p: randomisation within the domains.",
        "win/tie/loss: domains (in brackets those significantly won/lost after Holm's correction). transferred: share "
        "of its decisions. parameters, stored, time: means; time is to adapt to one target.",
    ]
    if summaries.baseline not in [row.system for row in summaries.rows] and summaries.rows:
        have = {one.system: len(one.covered) for one in summaries.incomplete}
        if summaries.rows[0].gain is None:
            covered = f": it covers {have[summaries.baseline]} of {count} targets" if summaries.baseline in have else ""
            notes.append(f"No differences, since {summaries.baseline} lacks targets{covered}.")
    shares = {row.share.targets for row in summaries.rows if row.share is not None}
    fewer = [targets for targets in shares if len(targets) < count]
    if fewer:
        notes.append(
            f"The share of {summaries.ceiling}'s gain is over the {len(fewer[0])} of {count} targets that it has."
        )
    if summaries.incomplete:
        named = ", ".join(f"{one.system} ({len(one.covered)})" for one in summaries.incomplete)
        notes.append(f"No means, since they cover some of the {count} targets only: {named}.")
    return notes


def _interval(interval: Interval | None) -> str:
    """`+.012 [−.003, +.025]`."""
    if interval is None:
        return numbers.NOTHING
    return f"{numbers.difference(interval.mean)} {_ends(interval.low, interval.high, numbers.difference)}"


def _ends(low: float | None, high: float | None, written: Any) -> str:
    return f"[{written(low)}, {written(high)}]"


def _percent(share: float | None) -> str:
    return numbers.NOTHING if share is None else f"{round(100 * share)} %".replace("-", "−")


def _valued(value: float | None, best: str) -> TableCell:
    text = numbers.value(value)
    return TableCell(text, text == best and text != numbers.NOTHING)


FORMAT = "foreword-benchmark/1"
PAGE, RESULTS, TEXT, LATEX = "report.html", "results.json", "results.md", "results.tex"


def write_page(
    folder: Path | str,
    title: str,
    intro: str,
    tables: Sequence[Table],
    hypotheses: Sequence[Verdict],
    plots: Sequence[Plot],
) -> Path:
    """Write `report.html`, which needs no other file, and `results.json`, `.md` and `.tex` (LaTeX, with booktabs).

    Equal results give equal bytes.

    `intro` is text over the results, paragraphs parted by blank lines. The hypotheses come first, with their verdicts;
    the plots go into the page. Gives its path.
    """
    folder = Path(folder)
    results = {
        "format": FORMAT,
        "title": title,
        "intro": intro,
        "hypotheses": [verdict.as_dict() for verdict in hypotheses],
        "tables": [table.as_dict() for table in tables],
        "plots": [plot.as_dict() for plot in plots],
    }
    shown = [*([hypothesis_table(hypotheses)] if hypotheses else []), *tables]
    sections = [(f"table-{n}", table.title, fill("table.html", table=table)) for n, table in enumerate(shown, start=1)]
    sections += [(plot.name, plot.title, fill("plot.html", plot=plot)) for plot in plots]
    paragraphs = [text for text in intro.split("\n\n") if text.strip()]
    page = document(title, fill("header.html", title=title, paragraphs=paragraphs), sections)
    write_json(folder / RESULTS, results)
    whole = [hypothesis_table(hypotheses), *tables]
    texts = [f"# {title}", intro, *(table.markdown() for table in whole)]
    latex = "\n".join(table.latex() for table in whole if table.lines)
    for name, written in ((PAGE, page), (TEXT, "\n\n".join(text.strip() for text in texts) + "\n"), (LATEX, latex)):
        with atomic_write(folder / name) as file:
            file.write(written)
    return folder / PAGE
