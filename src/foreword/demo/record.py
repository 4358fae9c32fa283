"""The demo's results: every row with its TREC run, so that anyone can recompute the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.collections.records import Collection
from foreword.evaluation.measures import evaluate_run, first_relevant_ranks
from foreword.evaluation.significance import paired_randomization
from foreword.prompts.store import StoredPrompt
from foreword.retrieval.runs import Run, trec_name, write_qrels, write_run

BASELINE = "base"


class Recorder:
    """Collects rows, the values of each query and the files `runs/<system>.<collection>.trec`."""

    def __init__(self, folder: Path, measures: Sequence[str]) -> None:
        """`folder` is the demo's; `measures` are the table's, the first one is looked at query by query."""
        self.folder, self.measures = folder / "runs", tuple(measures)
        self.rows: list[dict[str, Any]] = []
        self.per_query: dict[str, dict[str, Any]] = {}

    def begin(self, collection: Collection) -> None:
        """Write the test qrels of a collection."""
        write_qrels(self.folder / f"{trec_name(collection.id)}.qrels", collection.qrels("test"))
        self.per_query[collection.id] = {
            "measure": self.measures[0],
            "baseline": BASELINE,
            "systems": {},
            "ranks": {},
            "texts": {query.query_id: query.text for query in collection.queries("test")},
        }

    def add(
        self,
        system: str,
        collection: Collection,
        run: Run,
        *,
        seconds: float,
        prompts: Sequence[StoredPrompt] = (),
    ) -> dict[str, float]:
        """Score a run on the test split; returns the measures.

        Args:
            system: the row's name.
            collection: what was searched.
            run: the hits.
            seconds: to train or fit the system, and to retrieve with it.
            prompts: what has to be stored for it.
        """
        qrels = collection.qrels("test")
        result = evaluate_run(run, qrels, self.measures)
        write_run(self.folder / f"{system}.{trec_name(collection.id)}.trec", run, system)
        known = self.per_query[collection.id]
        known["systems"][system] = dict(result.per_query[self.measures[0]])
        known["ranks"][system] = first_relevant_ranks(run, qrels)
        for measure, value in result.values.items():
            row: dict[str, Any] = {
                "system": system,
                "collection": collection.id,
                "measure": measure,
                "value": value,
                "seconds": round(seconds, 2),
                "trained_parameters": sum(p.card["trained_parameters"] for p in prompts),
                "bytes": sum(p.card["bytes"] for p in prompts),
            }
            self.rows.append(row | self._against_base(collection.id, measure, result.per_query[measure]))
        return dict(result.values)

    def _against_base(self, collection: str, measure: str, values: Mapping[str, float]) -> dict[str, Any]:
        base = self.per_query[collection]["systems"].get(BASELINE)
        if base is None or base == values or measure != self.measures[0]:
            return {}
        test = paired_randomization(values, base)
        return {"difference": test.difference, "p_value": test.p_value}

    def value(self, system: str, collection: str) -> float:
        """The first measure of a row."""
        return next(
            float(row["value"])
            for row in self.rows
            if (row["system"], row["collection"], row["measure"]) == (system, collection, self.measures[0])
        )


def curve(name: str, stored: StoredPrompt) -> dict[str, Any]:
    """A training's learning curve, for the report."""
    metrics = stored.card["metrics"]
    points: dict[int, dict[str, Any]] = {}
    for entry in metrics["dev"]:
        points.setdefault(entry["step"], {"step": entry["step"], "loss": None, "dev": None})["dev"] = entry["dev"]
    for entry in metrics["loss"]:
        points.setdefault(entry["step"], {"step": entry["step"], "loss": None, "dev": None})["loss"] = entry["loss"]
    return {"name": name, "points": [points[step] for step in sorted(points)]}
