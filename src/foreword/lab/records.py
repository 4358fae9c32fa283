"""A benchmark's records: the plan that it follows, and a cell for each system, held-out target and seed.

A run has a file for each cell, so that it goes on where it was cut; `write_record` puts them into one, to be kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Literal

from foreword.collections.registry import members
from foreword.errors import DataError, ForewordError, of_file
from foreword.files import atomic_write, json_digest, json_lines, read_json, read_toml, write_json
from foreword.retrieval.runs import trec_name
from foreword.settings import Count, Natural, NotNegative, Settings


@dataclass(frozen=True)
class Hypothesis:
    """A claim made before the run: on the mean over the targets, the system is better than the baseline.

    With a `margin`, that it is not worse by as much.
    """

    name: str
    statement: str
    system: str
    baseline: str
    margin: float = 0.0


@dataclass(frozen=True)
class Plan(Settings):
    """The benchmark's settings.

    Attributes:
        title: of the report.
        genre: of the domains that are both sources and, held out, targets.
        domains: their ids, sorted.
        folds: the domains are dealt out to so many folds in their order; the prompts that a domain is given are
            trained on the other folds' domains, and no text of any other domain is in a source.
        far: genre -> ids of targets that are never sources; they are given the first fold's prompts.
        seeds: of the primary part; the others run on the first.
        query_length: tokens a query is cut to.
        document_length: tokens a document is cut to, in training and in the index, for every system alike.
        prompt: of a new prompt: fields of `PromptSpec`.
        multitask: settings of the training of one prompt on all sources.
        source: settings of the sources' own query-side prompts, which rivals combine.
        supervised: settings of the ceiling, which has all of the target's training labels.
        few: numbers of labels.
        hypotheses: the primary claims; everything else is exploratory.
        comparisons: what else is compared in the same way.
    """

    title: str
    genre: str
    domains: tuple[str, ...]
    folds: Count
    far: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    query_length: Count
    document_length: Count
    prompt: Mapping[str, Any]
    multitask: Mapping[str, Any]
    source: Mapping[str, Any]
    supervised: Mapping[str, Any]
    few: tuple[int, ...]
    hypotheses: tuple[Hypothesis, ...]
    comparisons: tuple[Hypothesis, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.folds <= len(self.domains):
            raise ForewordError(f"{self.folds} folds of {len(self.domains)} domains; expected 2 to as many as domains")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ForewordError(f"seeds are {list(self.seeds)}; expected one or more, each once")

    def fold_of(self, target: str) -> int:
        """The fold that a target's prompts were not trained on; the first for targets that are no sources."""
        return self.domains.index(target) % self.folds if target in self.domains else 0

    def held_out(self, fold: int) -> tuple[str, ...]:
        """The domains of a fold."""
        return tuple(domain for domain in self.domains if self.fold_of(domain) == fold)

    def sources(self, fold: int) -> tuple[str, ...]:
        """The domains that a fold's prompts are trained on."""
        return tuple(domain for domain in self.domains if self.fold_of(domain) != fold)

    @property
    def targets(self) -> dict[str, str]:
        """Target -> genre, the sources' genre first."""
        return {
            **dict.fromkeys(self.domains, self.genre),
            **{target: genre for genre, targets in self.far.items() for target in targets},
        }

    def digest(self, *names: str) -> str:
        """16 hexadecimal digits of the settings that every system depends on, and of the fields named."""
        shared = ("domains", "folds", "query_length", "document_length", "prompt")
        chosen = {name: self.as_dict()[name] for name in (*shared, *names)}
        return json_digest(chosen)[:16]


def load_plan(path: Path | str | None = None, *, group: str | None = None) -> Plan:
    """The plan of a TOML file (None: the one that comes with the package), for another of its banks or a group.

    `ForewordError`: a field is missing, unknown or wrong.
    """
    place = Path(__file__).with_name("transfer.toml") if path is None else path
    where = path or "transfer.toml"
    with of_file(where, ForewordError):
        return _plan(read_toml(place), where, group)


def _plan(values: dict[str, Any], where: Path | str, group: str | None) -> Plan:
    own = values.pop("group", None)
    others: dict[str, dict[str, Any]] = values.pop("bank", {})
    if group in others:
        values |= {"genre": group, **others[group]}
    elif group is not None or own is not None:
        values["domains"] = [group or own]
    values["domains"] = tuple(sorted(chain.from_iterable(map(_members, values.get("domains", ())))))
    values["far"] = {
        genre: tuple(target for target in targets if target not in values["domains"])
        for genre, targets in values.get("far", {}).items()
    }
    values["hypotheses"] = tuple(Hypothesis(**claim) for claim in values.pop("hypothesis", []))
    values["comparisons"] = tuple(Hypothesis(**claim) for claim in values.pop("comparison", []))
    known = [field.name for field in fields(Plan)]
    if unknown := sorted(values.keys() - set(known)):
        raise ForewordError(f"{where}: unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return Plan.read({"seeds": (), "few": (), **values}, str(where))


def _members(name: str) -> tuple[str, ...]:
    """A group's, or the one collection."""
    return tuple(members(name)) if "/" not in name else (name,)


MEASURES = ("nDCG@10", "R@100")
"""Reported; systems are compared on the first."""

FORMAT = "foreword-benchmark-cell/1"
TRANSFER, BASE = "transfer", "base"
"""What a system that looks before it transfers may have decided."""

_DIGITS = 6  # of the values in the file


@dataclass(frozen=True)
class BenchmarkCell(Settings):
    """One system on one target with one seed.

    Attributes:
        target: the held-out domain, e.g. `pydoc/torch`.
        genre: what kind of domain it is, e.g. `documentation`.
        system: the retrieval system's name.
        seed: of everything random in it.
        per_query: measure -> `query_id -> value` on the target's test queries; the same queries for every measure.
        labels: training labels of the target that were used: 0 for transfer, k for few-shot, None for all.
        trained_parameters: numbers that were trained for the system.
        stored_bytes: what has to be stored for it beside the backbone.
        seconds: to train, fit and choose, not to encode or to search.
        decision: `transfer` or `base` where the system chose between them, else None.
        weights: of the sources, for mixtures.
        similarity: of the target's documents to the nearest source's; None where none was measured.
        details: whatever else is to be kept, as JSON values.
        configuration: digest of the settings that made the cell.

    Raises:
        ForewordError: no values, measures with different queries, a value that is not finite, or a count below 0.
    """

    target: str
    genre: str
    system: str
    seed: int
    per_query: Mapping[str, Mapping[str, float]]
    labels: Natural | None
    trained_parameters: Natural
    stored_bytes: Natural
    seconds: NotNegative
    decision: Literal["transfer", "base"] | None
    weights: Mapping[str, float]
    similarity: float | None
    details: Mapping[str, Any]
    configuration: str

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target", "system"):
            if not getattr(self, name).strip("."):  # a file's or folder's name is made of it
                raise ForewordError(f"{name} is {getattr(self, name)!r}; expected a name")
        if not self.per_query or not all(self.per_query.values()):
            raise ForewordError(f"{self.system} on {self.target} has no values; score at least one query")
        first = next(iter(self.per_query))
        for measure, values in self.per_query.items():
            if values.keys() != self.per_query[first].keys():
                raise ForewordError(
                    f"{measure} and {first} of {self.system} on {self.target} are of different queries "
                    f"({len(values)} and {len(self.per_query[first])}); evaluate both on one set"
                )
        similarity = [] if self.similarity is None else [self.similarity]
        for numbers in (*(values.values() for values in self.per_query.values()), self.weights.values(), similarity):
            if not all(map(math.isfinite, numbers)):
                raise ForewordError(f"a value of {self.system} on {self.target} is NaN or infinite; run it again")

    @property
    def measures(self) -> dict[str, float]:
        """The mean of each measure over the queries."""
        return {measure: math.fsum(values.values()) / len(values) for measure, values in self.per_query.items()}

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values rounded to 6 digits, with the format's name and the means for readers."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **record,
            "format": FORMAT,
            "measures": _rounded(self.measures),
            "per_query": {measure: _rounded(values) for measure, values in self.per_query.items()},
            "weights": _rounded(self.weights),
            "seconds": round(float(self.seconds), _DIGITS),
            "similarity": None if self.similarity is None else round(float(self.similarity), _DIGITS),
            "details": dict(self.details),
        }


def cell_path(folder: Path | str, target: str, system: str, seed: int) -> Path:
    """The cell's file: `FOLDER/cells/<target>/<system>/seed<k>.json`, with `/` in names written `-`."""
    return Path(folder) / "cells" / trec_name(target) / trec_name(system) / f"seed{seed}.json"


def run_path(folder: Path | str, target: str, system: str, seed: int) -> Path:
    """The cell's TREC run: `FOLDER/runs/<target>/<system>/seed<k>.trec`."""
    return Path(folder) / "runs" / trec_name(target) / trec_name(system) / f"seed{seed}.trec"


def save_cell(folder: Path | str, cell: BenchmarkCell) -> Path:
    """Write a cell where it belongs in the benchmark's folder; equal cells give equal bytes. Returns the path."""
    path = cell_path(folder, cell.target, cell.system, cell.seed)
    write_json(path, cell.as_dict())
    return path


def load_cell(path: Path | str) -> BenchmarkCell:
    """The cell of a file; `DataError` when it cannot be read, is broken, or holds a cell of another place."""
    path = Path(path)
    try:
        record = read_json(path, "remove the file and run the cell again")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error
    found = record.pop("format", None) if isinstance(record, dict) else None
    if found != FORMAT:
        raise DataError(f"the format is {found!r}; expected {FORMAT!r}", path=path)
    record.pop("measures", None)
    try:
        cell = BenchmarkCell.read(record, "the cell")
    except ForewordError as error:
        raise DataError(f"{error}; run it again", path=path) from error
    place = cell_path("", cell.target, cell.system, cell.seed).parts[-3:]
    if path.parts[-3:] != place:
        raise DataError(f"holds the cell of {'/'.join(place)}; move it there or remove it", path=path)
    return cell


def load_cells(folder: Path | str) -> list[BenchmarkCell]:
    """All cells of a benchmark's folder, by target, system and seed; none where nothing has been run yet.

    `DataError`: there is no such folder, or a file is broken (the message names it).
    """
    if not Path(folder).is_dir():
        raise DataError("there is no such folder; give that of a benchmark", path=folder)
    cells = [load_cell(path) for path in (Path(folder) / "cells").glob("*/*/seed*.json")]
    return sorted(cells, key=lambda cell: (cell.target, cell.system, cell.seed))


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: round(float(value), _DIGITS) for key, value in values.items()}


RECORD_FORMAT = "foreword-benchmark-record/1"

_RECORD_DIGITS = 4  # of a query's values in a record; tables have three of the means
_MADE_FROM_CELLS = ("results.json", "evidence.json")


@dataclass(frozen=True)
class BenchmarkRecord:
    """All of a run that its tables are computed from.

    Attributes:
        run: what stood beside the cells: name -> content of NAME.json (`plan`, `machine`, ...), folder -> such names.
        cells: by target, system and seed.
    """

    run: Mapping[str, Any]
    cells: tuple[BenchmarkCell, ...]


def write_record(path: Path | str, folder: Path | str) -> None:
    """Put a run's folder into one file, a JSON object a line; equal runs give equal bytes.

    The first line has what stands beside the cells; then comes each target with its queries, followed by its cells with
    a value for each of them, in their order, rounded to 4 digits. `DataError`: no cells, no `plan.json`, a broken
    file, or a system was scored on other queries of a target than another.
    """
    folder, cells = Path(folder), load_cells(folder)
    if not cells:
        raise DataError("holds no cells; run the benchmark first", path=folder)
    run: dict[str, Any] = {}
    for kept in sorted([*folder.glob("*.json"), *folder.glob("tuning/*.json")]):
        if kept.name not in _MADE_FROM_CELLS:
            into = run if kept.parent == folder else run.setdefault(kept.parent.name, {})
            into[kept.stem] = read_json(kept)
    if "plan" not in run:
        raise DataError("has no plan.json; have the run's report written first", path=folder)
    lines: list[dict[str, Any]] = [{"format": RECORD_FORMAT, "run": run}]
    for (target, genre), group in groupby(cells, lambda cell: (cell.target, cell.genre)):
        own = list(group)
        queries = sorted(next(iter(own[0].per_query.values())))
        lines.append({"target": target, "genre": genre, "queries": queries})
        for cell in own:
            if (odd := next(iter(cell.per_query.values()))).keys() != set(queries):
                raise DataError(
                    f"{cell.system} on {target} has {len(odd)} queries, {own[0].system} has {len(queries)} or others; "
                    "run both on one collection",
                    path=folder,
                )
            record = cell.as_dict()
            for name in ("format", "measures", "target", "genre"):
                del record[name]
            record["per_query"] = {
                measure: " ".join(_short(values[query]) for query in queries)
                for measure, values in cell.per_query.items()
            }
            lines.append(record)
    with atomic_write(path) as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n")


def load_record(path: Path | str) -> BenchmarkRecord:
    """A run as `write_record` kept it; `DataError` when the file is missing or broken."""
    mend = "write it again: foreword benchmark --record"
    try:
        first, *lines = [line for _, line in json_lines(Path(path))]
        if first["format"] != RECORD_FORMAT:
            raise DataError(f"the format is {first['format']!r}; expected {RECORD_FORMAT!r}", path=path)
        cells, about = [], {}
        for line in lines:
            if "queries" in line:
                about = line
                continue
            per_query = {
                measure: dict(zip(about["queries"], map(float, values.split(" ")), strict=True))
                for measure, values in line.pop("per_query").items()
            }
            values = {**line, "per_query": per_query, "target": about["target"], "genre": about["genre"]}
            cells.append(BenchmarkCell.read(values, "a cell"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"no record of a benchmark ({error}); {mend}", path=path) from error
    return BenchmarkRecord(first["run"], tuple(cells))


def _short(value: float) -> str:
    """`1`, `.6309`, `0`."""
    text = f"{value:.{_RECORD_DIGITS}f}".rstrip("0").rstrip(".")
    return text.removeprefix("0") or "0"
