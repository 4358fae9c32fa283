"""Tables and the numbers in them: one model of a table, a writer for each format, and one way to print a number."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from foreword.errors import UnknownNameError

NOTHING = "–"
"""In the place of a number that is missing."""


def value(number: float | None, digits: int = 3) -> str:
    """A measure: `.374`, `1.000`, `12.5`; a dash for what is missing or not finite."""
    if number is None or not math.isfinite(number):
        return NOTHING
    text = f"{number:.{digits}f}" if abs(number) < 10 else f"{number:,.1f}"
    text = text.replace("-", "−")
    return text.replace("0.", ".", 1) if text.removeprefix("−").startswith("0.") else text


def top(numbers: Iterable[float | None]) -> str:
    """The greatest measure as it is printed, so that values printed alike are marked alike."""
    return value(max((number for number in numbers if number is not None), default=None))


def difference(number: float | None) -> str:
    """A difference with its sign: `+.069`, `−.012`, `.000`."""
    text = value(number)
    if number is None or text == NOTHING or text.removeprefix("−") == ".000":
        return text.removeprefix("−")
    return text if number < 0 else f"+{text}"


def p_value(number: float | None) -> str:
    """A p-value: `.031`, `<.001`."""
    return "<.001" if number is not None and number < 0.001 else value(number)


def count(number: float | None) -> str:
    """A count with thousands parted: `12,288`."""
    return NOTHING if number is None else f"{int(number):,}"


def byte_size(number: float | None) -> str:
    """Bytes for people: `0 B`, `49.2 kB`, `1.2 MB` (thousands, not 1024s)."""
    if number is None:
        return NOTHING
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 999.95 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds for people: `0.4 s`, `12 s`, `2 min 5 s`, `1 h 3 min`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


@dataclass(frozen=True)
class TableCell:
    """One cell as it is printed; the best of its column (or line) is set off."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table as it is printed, and the numbers that it was made from.

    Attributes:
        title: what it shows; may be empty.
        columns: their names, left to right.
        words: the places of the columns that are text; the others are numbers and stand on the right.
        lines: as many cells as columns each.
        notes: to stand below.
        records: a JSON object for each line, with all digits.
        marks: place of a column -> the letter at its name, of a note below.
        ruled: how many lines stand above a rule; None: all, and there is none.
    """

    title: str
    columns: tuple[str, ...]
    words: frozenset[int]
    lines: tuple[tuple[TableCell, ...], ...]
    notes: tuple[str, ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()
    marks: Mapping[int, str] = field(default_factory=dict)
    ruled: int | None = None

    def only(self, columns: Sequence[str]) -> Table:
        """The table with these columns alone, in this order; `UnknownNameError`: it has no such column."""
        if unknown := [name for name in columns if name not in self.columns]:
            raise UnknownNameError(f"no column {', '.join(unknown)}; there are: {', '.join(self.columns)}")
        places = [self.columns.index(name) for name in columns]
        return replace(
            self,
            columns=tuple(columns),
            words=frozenset(new for new, old in enumerate(places) if old in self.words),
            lines=tuple(tuple(line[old] for old in places) for line in self.lines),
            marks={new: self.marks[old] for new, old in enumerate(places) if old in self.marks},
        )

    def markdown(self) -> str:
        """In Markdown: the title, the best values in bold, notes as a list below."""
        columns = [name + (f" <sup>{self.marks[n]}</sup>" if n in self.marks else "") for n, name in self._named()]
        rows = markdown_rows(columns, self.lines, self.words)
        head = [f"{self.title}.", ""] if self.title else []
        notes = ["", *(f"- {_barred(note)}" for note in self.notes)] if self.notes else []
        return "\n".join([*head, rows, *notes]) + "\n"

    def __str__(self) -> str:
        return self.markdown()

    def text(self) -> str:
        """For a terminal: columns of equal width, `*` behind the best, rules of dashes."""
        shown = [[name + (f"[{self.marks[n]}]" if n in self.marks else "") for n, name in self._named()]]
        shown += [[cell.text + ("*" if cell.best else "") for cell in line] for line in self.lines]
        widths = [max(len(line[place]) for line in shown) for place in range(len(self.columns))]
        body = [
            "  ".join(
                text.ljust(width) if place in self.words else text.rjust(width)
                for place, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in shown
        ]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        ruled = self._ruled([body[0], rule], body[1:], rule)
        return "\n".join([self.title, "", *ruled, "", *self.notes]).rstrip() + "\n"

    def latex(self) -> str:
        """In LaTeX, for the package booktabs: a `table` with a caption, the best in bold and notes below."""
        columns = [
            escape_latex(name) + (f"\\textsuperscript{{{self.marks[n]}}}" if n in self.marks else "")
            for n, name in self._named()
        ]
        cells = [[escape_latex(cell.text) for cell in line] for line in self.lines]
        bold = [
            [f"\\textbf{{{text}}}" if cell.best else text for text, cell in zip(texts, line, strict=True)]
            for texts, line in zip(cells, self.lines, strict=True)
        ]
        head, *body = [f"{' & '.join(line)} \\\\" for line in (columns, *bold)]
        align = "".join("l" if place in self.words else "r" for place in range(len(self.columns)))
        opened = ["\\begin{table}", "\\centering", f"\\caption{{{escape_latex(self.title)}}}"]
        opened += [f"\\begin{{tabular}}{{{align}}}", "\\toprule", head, "\\midrule"]
        closed = ["\\bottomrule", "\\end{tabular}"]
        closed += [f"\\par\\footnotesize {escape_latex(note)}" for note in self.notes]
        return "\n".join([*self._ruled(opened, body, "\\midrule"), *closed, "\\end{table}"]) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """Title, notes and records as JSON values."""
        return {"title": self.title, "notes": list(self.notes), "rows": [dict(record) for record in self.records]}

    def _named(self) -> Iterable[tuple[int, str]]:
        return enumerate(self.columns)

    def _ruled(self, head: list[str], body: list[str], rule: str) -> list[str]:
        return [*head, *body] if self.ruled is None else [*head, *body[: self.ruled], rule, *body[self.ruled :]]


def markdown_rows(
    columns: Sequence[str], lines: Iterable[Sequence[TableCell | str]], words: Collection[int] | None = None
) -> str:
    """The rows of a table in Markdown, header first; `words` are the columns on the left (None: all)."""

    def shown(cell: TableCell | str) -> str:
        text = _barred(cell.text if isinstance(cell, TableCell) else cell)
        return f"**{text}**" if isinstance(cell, TableCell) and cell.best else text

    rule = [":--" if words is None or place in words else "--:" for place in range(len(columns))]
    return "\n".join(f"| {' | '.join(map(shown, line))} |" for line in (columns, rule, *lines))


def _barred(text: str) -> str:
    """A bar in a text must not part a cell."""
    return text.replace("|", "\\|")


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{mark: f"\\{mark}" for mark in "_%&#${}"},
    NOTHING: "--",
}


def escape_latex(text: str) -> str:
    """The text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in text)
