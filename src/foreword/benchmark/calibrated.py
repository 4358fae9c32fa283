"""Calibration by domain, base against prompts: whether scores can be read as probabilities of relevance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.benchmark.primary import adapted
from foreword.benchmark.prompts import multitask, supervised
from foreword.benchmark.stage import Stage
from foreword.benchmark.tables import Entry, Table
from foreword.common.files import write_json
from foreword.evaluation.calibration import calibrate, calibrate_from_dev
from foreword.report import numbers

FILE = "calibration.json"
HITS = 10
PT_RETRIEVAL_HITS = 5
SYSTEMS = ("base", "multitask", "transfer", "supervised")


def calibration(stage: Stage, targets: Sequence[str], seed: int) -> None:
    """Write `calibration.json`: each system on each target, its temperature fitted on the target's dev split.

    The temperature is fitted with labels, so this is about how a system's scores behave, not about transfer.
    """
    found = []
    for target in targets:
        for system, key, route in _routes(stage, target, seed):
            vectors = stage.documents(target, route, key)
            test, dev = (stage.search(target, route, vectors, split) for split in ("test", "dev"))
            qrels = stage.target(target).qrels
            fitted = calibrate_from_dev(test, qrels("test"), dev, qrels("dev"), k=HITS, several="share")
            theirs = calibrate(test, qrels("test"), k=PT_RETRIEVAL_HITS, several="each").as_dict()
            found.append(
                {
                    "target": target,
                    "system": system,
                    "seed": seed,
                    **fitted.as_dict(),
                    "pt_retrieval": {"ece": theirs["ece_equal_width"], "curve": theirs["curve_equal_width"]},
                }
            )
            stage.say(f"{target}: {system}: ECE {fitted.ece:.3f}, Brier {fitted.brier.score:.4f}")
    write_json(stage.output / FILE, found)


def _routes(stage: Stage, target: str, seed: int) -> list[tuple[str, str, str | None]]:
    """System, the key of its document vectors, and its route."""
    fold = stage.plan.fold_of(target)
    shared = multitask(stage, fold, seed)
    own, _ = adapted(stage, target, shared, seed)
    return [
        ("base", "base", None),
        ("multitask", f"multitask-fold{fold}-seed{seed}", stage.carry("multitask", shared)),
        ("transfer", f"transfer-seed{seed}", stage.carry("transfer", own)),
        ("supervised", f"supervised-seed{seed}", stage.carry("supervised", supervised(stage, target, seed))),
    ]


def calibration_table(output: Path) -> Table | None:
    """Systems by the means over targets; None where it has not been run."""
    path = output / FILE
    if not path.exists():
        return None
    records: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    values = {"ECE": "ece", "Brier": "brier", "temperature": "temperature"}
    lines, rows = [], []
    for system in SYSTEMS:
        own = [record for record in records if record["system"] == system]
        if not own:
            continue
        means = {name: sum(float(record[key]) for record in own) / len(own) for name, key in values.items()}
        means["ECE, PT-Retrieval's"] = sum(float(record["pt_retrieval"]["ece"]) for record in own) / len(own)
        lines.append((Entry(system), *(Entry(f"{value:.3f}") for value in means.values())))
        rows.append({"system": system, "targets": len(own), **means})
    notes = (
        f"Probabilities: softmax over a query's {HITS} best scores, divided by a temperature fitted on the target's "
        "dev split; bins of equal count; each of R relevant hits counts 1/R. Brier: mean squared error of the hits.",
        f"PT-Retrieval's definition: {PT_RETRIEVAL_HITS} hits, temperature 1, bins of equal width (2207.07087).",
    )
    columns = ("system", *(name for name in (rows[0] if rows else {}) if name not in ("system", "targets")))
    title = f"Calibration, means over {rows[0]['targets'] if rows else numbers.NOTHING} targets"
    return Table(title, columns, frozenset({0}), tuple(lines), notes, tuple(rows))
