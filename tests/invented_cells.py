"""Cells of a benchmark that was never run, with values that can be worked out by hand or drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foreword.lab.records import BenchmarkCell


def cell(target: str, system: str, values: Sequence[float], seed: int = 0, **fields: Any) -> BenchmarkCell:
    """A cell whose queries q0, q1, ... have these values on both measures."""
    by_query = {f"q{number}": float(value) for number, value in enumerate(values)}
    defaults: dict[str, Any] = {
        "genre": "documentation",
        "labels": 0,
        "trained_parameters": 0,
        "stored_bytes": 0,
        "seconds": 0.0,
        "decision": None,
        "weights": {},
        "similarity": None,
        "details": {},
        "configuration": "0" * 16,
    }
    per_query = {"nDCG@10": by_query, "R@100": by_query}
    return BenchmarkCell(target=target, system=system, seed=seed, per_query=per_query, **{**defaults, **fields})


COSTS: Mapping[str, tuple[float, int, float]] = {
    # system: mean gain, trained parameters, seconds
    "base": (0.0, 0, 0.0),
    "bm25": (-0.01, 0, 0.0),
    "base+bm25": (0.05, 0, 0.0),
    "multitask": (0.02, 147_600, 110.0),
    "transfer-uniform": (0.03, 442_800, 0.6),
    "transfer-similarity": (0.031, 442_800, 0.6),
    "transfer-fitted": (0.035, 442_807, 29.0),
    "transfer-guarded": (0.036, 442_807, 31.0),
    "best-single": (0.02, 73_800, 20.0),
    "pseudo-query": (0.015, 73_800, 26.0),
    "lora": (0.055, 147_456, 190.0),
    "bitfit": (0.04, 9_216, 150.0),
    "linear-query": (0.025, 147_456, 12.0),
    "full": (0.075, 22_713_216, 410.0),
    "supervised": (0.08, 147_600, 145.0),
}


def benchmark(targets: Sequence[str], queries: int, seeds: int = 3, *, matrix: bool = True) -> list[BenchmarkCell]:
    """Every system of `COSTS`, few-shot ones and, with `matrix`, every single source, on every target."""
    rng = np.random.default_rng(0)
    genres = ("documentation", "forum", "classic")
    cells = []
    for place, target in enumerate(targets):
        base = rng.uniform(0, 1, queries)
        bent = rng.normal(0, 0.02)

        def add(
            system: str, gain: float, number: int, *, target=target, base=base, bent=bent, place=place, **fields: Any
        ) -> None:  # type: ignore[no-untyped-def]
            noise = rng.normal(gain + (bent if gain else 0), 0.1 if gain else 0.0, queries)
            values = np.clip(base + noise, 0, 1)
            cells.append(cell(target, system, values, number, genre=genres[place % 3], **fields))

        for system, (gain, parameters, seconds) in COSTS.items():
            for number in range(1 if parameters == 0 else seeds):
                costs = {"trained_parameters": parameters, "stored_bytes": 2 * parameters, "seconds": seconds}
                decision = {"decision": "base" if place % 4 == 3 else "transfer"} if "guarded" in system else {}
                add(
                    system,
                    gain,
                    number,
                    labels=None if system in ("supervised", "full", "lora", "bitfit", "linear-query") else 0,
                    **costs,
                    **decision,
                )
        for labels in (4, 8, 16, 32, 64):
            for number in range(seeds):
                add(f"transfer@{labels}", 0.03 + 0.007 * np.log2(labels), number, labels=labels)
                add(f"scratch@{labels}", -0.02 + 0.012 * np.log2(labels), number, labels=labels)
        for other in targets if matrix else ():
            if other != target:
                near = float(rng.uniform(0.1, 0.9))
                add(f"single:{other}", 0.1 * (near - 0.45), 0, similarity=near)
    return cells
