"""Several runs into one: min-max normalised scores, or reciprocal ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from foreword.common.errors import ForewordError
from foreword.retrieval.runs import Run, ranked


def min_max(runs: Sequence[Run], weights: Sequence[float] | None = None, k: int | None = None) -> Run:
    """The weighted mean of the runs' scores, each brought to 0..1 per query over the hits it returned.

    `s'(d) = (s(d) - min) / (max - min)`; a document that a run did not return gets 0 from it, and hits that
    all score the same get 1 (Fox & Shaw, "Combination of Multiple Searches", 1994, with the normalisation of
    Lee, "Analyses of Multiple Evidence Combination", 1997).

    Args:
        runs: one or more; a query may be missing from some.
        weights: one for each run, 0 or more; equal when None.
        k: hits kept per query; all when None.

    Raises:
        ForewordError: no runs, or weights that do not fit.
    """
    return _fuse(runs, weights, k, _normalised)


def reciprocal_rank(runs: Sequence[Run], k: int = 60, weights: Sequence[float] | None = None) -> Run:
    """Reciprocal rank fusion: the sum over runs of `weight / (k + rank)`, ranks from 1.

    (Cormack, Clarke & Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods", 2009.) Keeps every hit; cut with `top_k`.

    Args:
        runs: one or more; a query may be missing from some.
        k: the constant that keeps the first ranks from deciding alone, 0 or more; not a number of hits.
        weights: one for each run, 0 or more; 1 each when None.

    Raises:
        ForewordError: no runs, weights that do not fit, or a negative `k`.
    """
    if k < 0:
        raise ForewordError(f"Reciprocal rank fusion got k={k}; expected 0 or more (60 is usual).")

    def reciprocal(hits: Mapping[str, float]) -> dict[str, float]:
        return {doc_id: 1.0 / (k + rank) for rank, (doc_id, _) in enumerate(ranked(hits), start=1)}

    return _fuse(runs, weights or [1.0] * len(runs), None, reciprocal, mean=False)


def _normalised(hits: Mapping[str, float]) -> dict[str, float]:
    """One query's scores brought to 0..1."""
    if not hits:
        return {}
    low, high = min(hits.values()), max(hits.values())
    if high == low:
        return dict.fromkeys(hits, 1.0)
    return {doc_id: (score - low) / (high - low) for doc_id, score in hits.items()}


def _fuse(
    runs: Sequence[Run],
    weights: Sequence[float] | None,
    k: int | None,
    transform: Callable[[Mapping[str, float]], dict[str, float]],
    *,
    mean: bool = True,
) -> Run:
    """Weighted sum (or mean) of transformed scores, rounded to float32 so that files hold the same order."""
    given = [1.0] * len(runs) if weights is None else [float(weight) for weight in weights]
    if not runs or len(given) != len(runs):
        raise ForewordError(f"Fusion got {len(runs)} runs and {len(given)} weights; expected one for each run.")
    total = sum(given)
    if not np.isfinite(total) or min(given) < 0 or total == 0:
        raise ForewordError(f"Fusion got the weights {given}; expected 0 or more, and not all 0.")
    share = [weight / total if mean else weight for weight in given]
    fused: Run = {}
    for query_id in dict.fromkeys(query_id for run in runs for query_id in run):
        sums: dict[str, float] = {}
        for run, weight in zip(runs, share, strict=True):
            for doc_id, score in transform(run.get(query_id, {})).items():
                sums[doc_id] = sums.get(doc_id, 0.0) + weight * score
        fused[query_id] = dict(ranked(sums, k))
    return fused
