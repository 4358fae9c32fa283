"""One cell of the benchmark, a system on a held-out target with one seed, and the file that it is kept in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any

from foreword.errors import DataError, ForewordError
from foreword.files import write_json
from foreword.retrieval.runs import trec_name

FORMAT = "foreword-benchmark-cell/1"
TRANSFER, BASE = "transfer", "base"
"""What a system that looks before it transfers may have decided."""

_DIGITS = 6  # of the values in the file
_KINDS: Mapping[str, tuple[type, ...]] = {
    "target": (str,),
    "genre": (str,),
    "system": (str,),
    "seed": (int,),
    "per_query": (dict,),
    "labels": (int, NoneType),
    "trained_parameters": (int,),
    "stored_bytes": (int,),
    "seconds": (int, float),
    "decision": (str, NoneType),
    "weights": (dict,),
    "similarity": (int, float, NoneType),
    "details": (dict,),
    "configuration": (str,),
}


@dataclass(frozen=True)
class Cell:
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
    labels: int | None
    trained_parameters: int
    stored_bytes: int
    seconds: float
    decision: str | None
    weights: Mapping[str, float]
    similarity: float | None
    details: Mapping[str, Any]
    configuration: str

    def __post_init__(self) -> None:
        for name in ("target", "system"):
            if not getattr(self, name).strip("."):  # a file's or folder's name is made of it
                raise ForewordError(f"{name} is {getattr(self, name)!r}; expected a name")
        if self.decision not in (TRANSFER, BASE, None):
            raise ForewordError(f"decision is {self.decision!r}; expected {TRANSFER!r}, {BASE!r} or None")
        for name in ("labels", "trained_parameters", "stored_bytes", "seconds"):
            number = getattr(self, name)
            if number is not None and not 0 <= number < math.inf:
                raise ForewordError(f"{name} is {number}; expected 0 or more")
        self._check_values()

    def _check_values(self) -> None:
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

    @classmethod
    def of_dict(cls, record: Mapping[str, Any]) -> Cell:
        """The cell that `as_dict` gave.

        Raises:
            ForewordError: another format, a field that is missing or of another type, or what `Cell` refuses.
        """
        if record.get("format") != FORMAT:
            raise ForewordError(f"the format is {record.get('format')!r}; expected {FORMAT!r}")
        unknown = sorted(record.keys() - _KINDS.keys() - {"format", "measures"})
        missing = [name for name in _KINDS if name not in record]
        if unknown or missing:
            raise ForewordError(f"unknown fields: {unknown}; missing fields: {missing}; run the cell again")
        for name, kinds in _KINDS.items():
            _check_kind(record[name], kinds, name)
        for measure, values in record["per_query"].items():
            _check_kind(values, (dict,), f"per_query of {measure}")
        for values in (*record["per_query"].values(), record["weights"]):
            for key, value in values.items():
                _check_kind(value, (int, float), f"the value of {key}")
        return cls(**{name: record[name] for name in _KINDS})


def cell_path(folder: Path | str, target: str, system: str, seed: int) -> Path:
    """The cell's file: `FOLDER/cells/<target>/<system>/seed<k>.json`, with `/` in names written `-`."""
    return _leaf(Path(folder) / "cells", target, system) / f"seed{seed}.json"


def run_path(folder: Path | str, target: str, system: str, seed: int) -> Path:
    """The cell's TREC run: `FOLDER/runs/<target>/<system>/seed<k>.trec`."""
    return _leaf(Path(folder) / "runs", target, system) / f"seed{seed}.trec"


def save_cell(folder: Path | str, cell: Cell) -> Path:
    """Write a cell where it belongs in the benchmark's folder; equal cells give equal bytes. Returns the path."""
    path = cell_path(folder, cell.target, cell.system, cell.seed)
    write_json(path, cell.as_dict())
    return path


def load_cell(path: Path | str) -> Cell:
    """The cell of a file.

    Raises:
        DataError: the file cannot be read, is broken, or holds a cell of another place.
    """
    path = Path(path)
    try:
        record = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"broken JSON ({error}); remove the file and run the cell again", path=path) from error
    if not isinstance(record, dict):
        raise DataError(f"expected a JSON object, got {type(record).__name__}", path=path)
    try:
        cell = Cell.of_dict(record)
    except ForewordError as error:
        raise DataError(str(error), path=path) from error
    place = cell_path("", cell.target, cell.system, cell.seed).parts[-3:]
    if path.parts[-3:] != place:
        raise DataError(f"holds the cell of {'/'.join(place)}; move it there or remove it", path=path)
    return cell


def load_cells(folder: Path | str) -> list[Cell]:
    """All cells of a benchmark's folder, by target, system and seed; none where nothing has been run yet.

    Raises:
        DataError: there is no such folder, or a file is broken (the message names it).
    """
    if not Path(folder).is_dir():
        raise DataError("there is no such folder; give that of a benchmark", path=folder)
    cells = [load_cell(path) for path in (Path(folder) / "cells").glob("*/*/seed*.json")]
    return sorted(cells, key=lambda cell: (cell.target, cell.system, cell.seed))


def _leaf(folder: Path, target: str, system: str) -> Path:
    return folder / trec_name(target) / trec_name(system)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: round(float(value), _DIGITS) for key, value in values.items()}


def _check_kind(value: Any, kinds: tuple[type, ...], what: str) -> None:
    """Raise unless the value is of one of the types; true and false are no numbers here."""
    if not isinstance(value, kinds) or isinstance(value, bool):
        expected = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
        raise ForewordError(f"{what} is {value!r:.60}; expected {expected}")
