"""Tables in a Markdown page that are computed from a benchmark's record: no figure is copied by hand.

A table stands between two comments; the first says what it is, in TOML (the fields of `PublishedTable`):

    <!-- table
    record = "records/in-domain.jsonl"
    show = "summary"
    targets = ["documentation"]
    columns = ["system", "nDCG@10", "Δ nDCG@10"]
    -->
    ... the table: written by `foreword benchmark --tables PAGE` ...
    <!-- end -->
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from foreword.errors import DataError, UnknownNameError
from foreword.files import atomic_write
from foreword.lab.page import domain_table, hypothesis_table, summary_table, tuning_table
from foreword.lab.records import MEASURES, BenchmarkRecord, Hypothesis, load_record
from foreword.lab.statistics import TRIALS, judge_hypotheses, summarise
from foreword.settings import Settings
from foreword.tables import Table

_MARK = re.compile(r"(?<=^<!-- table\n)(.*?)^-->\n.*?(?=^<!-- end -->)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class PublishedTable(Settings):
    """A table of a page.

    Attributes:
        record: the benchmark's file, seen from the page.
        also: further records, whose systems join those of the first on the same targets.
        show: systems' means over the targets, a line for each target, the plan's `hypotheses` or `comparisons`, or the
            `tuning` of a benchmark in a domain.
        targets: genres, or ids (none: all).
        systems: those shown, in this order (none: all, the baseline first).
        columns: those shown, in this order (none: all).
        measures: the first is the one that systems are compared on.
        baseline: what differences are from; the method whose steps' time is 1.
        ceiling: the system of whose gain shares are given.
        title: instead of the usual one.
        notes: whether they stand below.
    """

    record: str
    show: Literal["summary", "targets", "hypotheses", "comparisons", "tuning"]
    also: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    measures: tuple[str, ...] = MEASURES
    baseline: str = "base"
    ceiling: str = "supervised"
    title: str | None = None
    notes: bool = True

    def table(self, record: BenchmarkRecord, *more: BenchmarkRecord, trials: int = TRIALS) -> Table:
        """The table, from the records that it names.

        Raises:
            UnknownNameError: a target, system or column that the record has not.
            ForewordError: cells that cannot be compared.
        """
        if self.show == "tuning":
            return self._chosen(tuning_table(record.run["tuning"], record.run.get("pace", {}), self.baseline))
        joined = {(c.target, c.system, c.seed): c for one in (*reversed(more), record) for c in one.cells}
        own = {cell.target for cell in record.cells}
        cells = [cell for cell in joined.values() if cell.target in own]
        genres = {cell.target: cell.genre for cell in cells}
        wanted = self.targets or tuple(genres)
        targets = [target for one in wanted for target, genre in genres.items() if one in (target, genre)]
        there = sorted({cell.system for cell in cells if cell.target in targets}, key=lambda s: (s != self.baseline, s))
        for kind, names, known in (
            ("target", self.targets, {*genres, *genres.values()}), ("system", self.systems, there),
        ):  # fmt: skip
            if unknown := [name for name in names if name not in known]:
                raise UnknownNameError(
                    f"{self.record}: no {kind} {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
                )
        systems = self.systems or there
        if self.show == "summary":
            how: dict[str, Any] = {"measures": self.measures, "trials": trials}
            found = summary_table(summarise(cells, targets, systems, self.ceiling, self.baseline, **how))
        elif self.show == "targets":
            found = domain_table(cells, systems, targets, self.measures[0])
        else:
            claims = [Hypothesis(**claim) for claim in record.run["plan"]["plan"][self.show]]
            verdicts = judge_hypotheses(cells, claims, targets, measure=self.measures[0], trials=trials)
            found = hypothesis_table(verdicts, self.show.capitalize())
        return self._chosen(found)

    def _chosen(self, table: Table) -> Table:
        title = table.title if self.title is None else self.title
        table = replace(table, title=title, notes=table.notes if self.notes else ())
        return table.only(self.columns) if self.columns else table


def rendered(page: Path | str, trials: int = TRIALS) -> str:
    """A page's text with its tables computed anew; `DataError`: a mark or a record is broken."""
    page, read = Path(page), cache(load_record)
    text = page.read_text("utf-8")
    if not len(_MARK.findall(text)) == text.count("<!-- table\n") == text.count("<!-- end -->"):
        raise DataError("a table's mark is not closed, or closed twice; expected <!-- end --> after each", path=page)

    def written(match: re.Match[str]) -> str:
        try:
            shown = PublishedTable.read(tomllib.loads(match[1]), str(page))
        except tomllib.TOMLDecodeError as error:
            raise DataError(f"a table's mark is no TOML: {error}", path=page) from error
        records = [read(page.parent / name) for name in (shown.record, *shown.also)]
        try:
            table = shown.table(*records, trials=trials)
        except KeyError as error:
            raise DataError(f"{shown.record} has no {error}, which {shown.show} is made of", path=page) from error
        return f"{match[1]}-->\n\n{table.markdown()}\n"

    return _MARK.sub(written, text)


def write_tables(page: Path | str) -> bool:
    """Write a page with its tables computed anew; True when that changed it. Raises as `rendered`."""
    text = rendered(page)
    if changed := text != Path(page).read_text("utf-8"):
        with atomic_write(page) as file:
            file.write(text)
    return changed
