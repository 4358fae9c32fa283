"""Effectiveness of a run against judgements, by ir_measures (trec_eval's own code for most measures).

Averages follow `trec_eval -c`: over every query that has judgements, whether or not the run answers it. A
judged query without hits scores 0, and so does one whose judged documents are all non-relevant (trec_eval
counts it too; a perfect run then stays below 1). Queries without judgements are left out and counted.
"""

from __future__ import annotations

import difflib
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreword.collections.collection import Qrels
from foreword.errors import ForewordError, UnknownNameError
from foreword.retrieval.runs import Run, ranked

DEFAULT_MEASURES = ("nDCG@10", "R@100", "AP", "RR@10", "Success@20")

_CUTOFFS = (5, 10, 15, 20, 30, 100, 200, 500, 1000)
TREC_EVAL = (
    *("AP", "Rprec", "Bpref", "RR", "nDCG", "NumRet", "NumRel", "NumRelRet"),
    *(f"IPrec@{tenth / 10}" for tenth in range(11)),
    *(f"{name}@{cutoff}" for name in ("P", "R", "AP", "nDCG") for cutoff in _CUTOFFS),
    *("Success@1", "Success@5", "Success@10"),
)
"""What `trec_eval` stands for: the measures that trec_eval computes with `-m all_trec`, by ir_measures' names."""

_NAME = re.compile(r"\s*(\w+)\s*(.*?)\s*", re.DOTALL)  # `ndcg`, then `@10` or `(rel=2)@10`
_ALIASES = {"hit": "Success", "hitrate": "Success"}  # beyond those of ir_measures (MAP, MRR, Recall, ...)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a run scores; measures are named as ir_measures writes them, e.g. `AP` for `map`."""

    values: dict[str, float]
    """Measure -> mean over all judged queries (a sum for the counting measures, e.g. NumRet)."""
    per_query: dict[str, dict[str, float]]
    """Measure -> query_id -> value, for every judged query, in the judgements' order."""
    queries: int
    """Judged queries: what the means are over."""
    unanswered: int
    """Judged queries without a hit; each counts 0."""
    unjudged: int
    """Queries of the run without judgements; left out."""


def parse_measures(names: Sequence[str]) -> list[Any]:
    """The ir_measures objects for measures by name; `str` of one is its canonical name. Repeats are dropped.

    Any measure of ir_measures is known, in any case and under the common names: `ndcg@10`, `map`, `mrr@10`,
    `recall@100`, `success@20`, `AP(rel=2)`. `trec_eval` stands for all of `TREC_EVAL`.

    Raises:
        UnknownNameError: no measure has that name; the message lists near matches.
        ForewordError: a known measure with parameters that do not fit (`P` without a cutoff), or one that
            needs a package that is not installed.
    """
    if not names:
        raise ForewordError("No measure was named; give one or more, e.g. nDCG@10.")
    named = [one for name in names for one in (TREC_EVAL if name.strip().lower() == "trec_eval" else (name,))]
    return list({str(measure): measure for measure in map(_parse, named)}.values())


def depth(measures: Sequence[str]) -> int:
    """How many hits a query the measures look at: the largest cutoff, 1000 for one without, and at least 100.

    Raises: as `parse_measures`.
    """
    return max(100, *(int(measure.params.get("cutoff", 1000)) for measure in parse_measures(measures)))


def largest_cutoff(measures: Sequence[str]) -> int:
    """The largest cutoff that a measure names; 0 when none does. Raises: as `parse_measures`."""
    return max((int(measure.params.get("cutoff", 0)) for measure in parse_measures(measures)), default=0)


def evaluate_run(run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES) -> Evaluation:
    """Score a run. Ties are ranked as by trec_eval (float32 scores, then doc_id descending) in every measure.

    Args:
        run: `query_id -> doc_id -> score`.
        qrels: `query_id -> doc_id -> relevance`; a query with no judgement at all counts as unjudged.
        measures: names as for `parse_measures`.

    Raises:
        UnknownNameError, ForewordError: from `parse_measures`, or no query is judged.
    """
    import ir_measures

    parsed = parse_measures(measures)
    judged = {query_id: documents for query_id, documents in qrels.items() if documents}
    if not judged:
        raise ForewordError("There are no judgements to evaluate against; check the split and the qrels file.")
    # Scores become ranks, so that providers with other rules for ties (MS MARCO's for RR@k) see none, and
    # query ids become numbers, which gdeval (ERR@k) needs. Queries without hits stay out, since some
    # providers divide by zero; ir_measures gives them each measure's 0.
    numbers = {query_id: str(number) for number, query_id in enumerate(judged)}
    names = list(judged)
    answers = {
        numbers[query_id]: {doc_id: 1.0 / place for place, (doc_id, _) in enumerate(ranked(run[query_id]), 1)}
        for query_id in judged
        if run.get(query_id)
    }
    # trec_eval reads beside its tables where every grade of a query is below 0: a document that no run has stands at 0.
    judgements = {
        numbers[query_id]: documents if max(documents.values()) >= 0 else {**documents, "": 0}
        for query_id, documents in judged.items()
    }
    per_query: dict[str, dict[str, float]] = {str(measure): dict.fromkeys(judged, 0.0) for measure in parsed}
    try:
        for metric in ir_measures.iter_calc(parsed, judgements, answers):
            per_query[str(metric.measure)][names[int(metric.query_id)]] = float(metric.value)
    except subprocess.CalledProcessError as error:  # gdeval, which refuses what its formula has no place for
        highest = max(grade for documents in judged.values() for grade in documents.values())
        message = f"gdeval, which computes ERR@k, takes grades up to 4; these go up to {highest}. Name other measures."
        raise ForewordError(message) from error
    counted = {"NumRel": lambda judged: sum(grade > 0 for grade in judged.values()), "NumQ": lambda _: 1}
    for measure in parsed:
        if count := counted.get(str(measure)):  # it counts what is asked, whatever the run answers
            per_query[str(measure)] = {query_id: float(count(documents)) for query_id, documents in judged.items()}
    values = {}
    for measure in parsed:  # each by its own aggregate: a mean, or a sum for counts
        aggregator = measure.aggregator()
        for value in per_query[str(measure)].values():
            aggregator.add(value)
        values[str(measure)] = float(aggregator.result())
    return Evaluation(
        values=values,
        per_query=per_query,
        queries=len(judged),
        unanswered=len(judged) - len(answers),
        unjudged=sum(query_id not in judged for query_id in run),
    )


def first_relevant_ranks(run: Run, qrels: Qrels) -> dict[str, int | None]:
    """The rank (from 1) of the first relevant document of every judged query; None when none is returned."""
    ranks: dict[str, int | None] = {}
    for query_id, judged in qrels.items():
        hits = (doc_id for doc_id, _ in ranked(run.get(query_id, {})))
        found = (rank for rank, doc_id in enumerate(hits, start=1) if judged.get(doc_id, 0) > 0)
        ranks[query_id] = next(found, None)
    return ranks


def _parse(name: str) -> Any:
    """One measure by name, checked down to a provider that can compute it."""
    import ir_measures

    known = {key.lower(): key for key in sorted(ir_measures.measures.registry)} | _ALIASES
    match = _NAME.fullmatch(name)
    base, rest = match.groups() if match else (name, "")
    if base.lower() not in known:
        near = difflib.get_close_matches(base.lower(), list(known), n=3)
        hint = f" Did you mean {' or '.join(known[key] for key in near)}?" if near else ""
        names = ", ".join(sorted(ir_measures.measures.registry))
        raise UnknownNameError(f"No measure {name!r}.{hint} Known: {names}; with a cutoff, e.g. nDCG@10.")
    try:
        measure: Any = ir_measures.parse_measure(known[base.lower()] + rest)
        needed = [key for key, info in measure.SUPPORTED_PARAMS.items() if info.required]
        missing = [key for key in needed if key not in measure.params]
        if missing:
            raise ValueError(f"it needs a {' and a '.join(missing)}")
        measure.validate_params()
        if measure.params.get("cutoff", 1) < 1:
            raise ValueError("the cutoff must be 1 or more")
    except (ValueError, AssertionError) as error:
        raise ForewordError(
            f"Measure {name!r}: {error}. Write a cutoff as nDCG@10 and a parameter as AP(rel=2)."
        ) from None
    able = [provider for provider in ir_measures.DefaultPipeline.providers if provider.supports(measure)]
    if not any(provider.is_available() for provider in able):
        ways = "; ".join(filter(None, (provider.install_instructions() for provider in able)))
        raise ForewordError(f"Measure {measure} needs a package that is not installed: {ways or 'none known'}.")
    return measure


_EXACT = 12  # differing queries up to which all 2^n sign patterns are gone through
_CHUNK_VALUES = 2**20  # random values held at a time: 8 MiB of float64


@dataclass(frozen=True, slots=True)
class Comparison:
    """System a against system b, query by query."""

    difference: float
    """Mean of a - b."""
    p_value: float
    """Two-sided: how often chance alone gives a mean difference at least as large."""
    wins: int
    """Queries on which a is better."""
    ties: int
    losses: int
    n: int
    """Queries."""


def paired_randomization(
    a: Mapping[str, float], b: Mapping[str, float], *, trials: int = 10_000, seed: int = 0
) -> Comparison:
    """Fisher's two-sided paired randomisation test on the mean difference of two systems.

    Under the null hypothesis the two systems' values on a query may be swapped, which flips the sign of their
    difference (Smucker, Allan & Carterette, "A Comparison of Statistical Significance Tests for Information
    Retrieval Evaluation", 2007). With 12 differing queries or fewer the p-value is exact, over all sign
    patterns; otherwise it is `(1 + hits) / (1 + trials)` over random ones, which is never 0 (Phipson & Smyth,
    2010).

    Args:
        a: `query_id -> value` of the system of interest.
        b: the same queries' values of the baseline.
        trials: random sign patterns.

    Raises:
        ForewordError: the queries differ, there are none, or a value is not finite.
    """
    deltas = _differences(a, b)
    if trials < 1:
        raise ForewordError(f"trials is {trials}; expected 1 or more.")
    moved = deltas[deltas != 0]  # a query without a difference has no sign to flip
    observed = abs(moved.sum())
    edge = observed * (1 - 1e-12)  # equal sums added in another order still count as equal
    if len(moved) <= _EXACT:
        patterns = (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1
        p_value = float(np.mean(np.abs((1.0 - 2.0 * patterns) @ moved) >= edge))
    else:
        rng = np.random.default_rng(seed)
        hits = 0
        for rows in _chunks(trials, len(moved)):
            signs = 1.0 - 2.0 * rng.integers(0, 2, size=(rows, len(moved)), dtype=np.int8)
            hits += int(np.count_nonzero(np.abs(signs @ moved) >= edge))
        p_value = (1 + hits) / (1 + trials)
    wins, losses = int((deltas > 0).sum()), int((deltas < 0).sum())
    n = len(deltas)
    return Comparison(float(deltas.mean()), p_value, wins, n - wins - losses, losses, n)


def bootstrap_interval(
    a: Mapping[str, float],
    b: Mapping[str, float],
    *,
    level: float = 0.95,
    trials: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of a - b over queries drawn with replacement.

    (Efron, 1979; for retrieval, Sakai, "Evaluating Evaluation Metrics Based on the Bootstrap", 2006.)

    Args:
        a: `query_id -> value` of the system of interest.
        b: the same queries' values of the baseline.
        level: coverage, between 0 and 1.
        trials: samples of the queries.
        seed: of the samples.

    Returns:
        The interval's lower and upper end.

    Raises:
        ForewordError: as `paired_randomization`, or a level outside 0 to 1.
    """
    deltas = _differences(a, b)
    if not 0 < level < 1 or trials < 1:
        raise ForewordError(f"level={level}, trials={trials}; expected a level between 0 and 1 and 1 or more trials.")
    rng = np.random.default_rng(seed)
    n = len(deltas)
    means = [deltas[rng.integers(0, n, size=(rows, n))].mean(axis=1) for rows in _chunks(trials, n)]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _differences(a: Mapping[str, float], b: Mapping[str, float]) -> np.ndarray:
    """a - b by query id, in the order of sorted ids, so that the caller's order changes nothing."""
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())
        raise ForewordError(
            f"The two systems are judged on different queries ({len(a)} and {len(b)}; in one only: "
            f"{', '.join(map(repr, odd[:3]))}{', ...' if len(odd) > 3 else ''}). Evaluate both on one set."
        )
    if not a:
        raise ForewordError("There are no queries to compare on.")
    deltas = np.array([float(a[query_id]) - float(b[query_id]) for query_id in sorted(a)])
    if not np.isfinite(deltas).all():
        raise ForewordError("A query's value is NaN or infinite; evaluate the runs again.")
    return deltas


def _chunks(trials: int, width: int) -> Iterator[int]:
    """Numbers of rows that add up to `trials`, each with at most `_CHUNK_VALUES` values."""
    most = max(1, _CHUNK_VALUES // width)
    for first in range(0, trials, most):
        yield min(most, trials - first)
