"""Effectiveness of a run against judgements, by ir_measures (trec_eval's own code for most measures).

Averages follow `trec_eval -c`: over every query that has judgements, whether or not the run answers it. A
judged query without hits scores 0, and so does one whose judged documents are all non-relevant (trec_eval
counts it too; a perfect run then stays below 1). Queries without judgements are left out and counted.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.collections.records import Qrels
from foreword.common.errors import ForewordError, UnknownNameError
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
    judgements = {numbers[query_id]: documents for query_id, documents in judged.items()}
    per_query: dict[str, dict[str, float]] = {str(measure): dict.fromkeys(judged, 0.0) for measure in parsed}
    for metric in ir_measures.iter_calc(parsed, judgements, answers):
        per_query[str(metric.measure)][names[int(metric.query_id)]] = float(metric.value)
    return Evaluation(
        values={str(measure): _aggregate(measure, per_query[str(measure)]) for measure in parsed},
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


def _aggregate(measure: Any, values: Mapping[str, float]) -> float:
    """The measure's own aggregate (a mean, or a sum for counts) over queries in the judgements' order."""
    aggregator = measure.aggregator()
    for value in values.values():
        aggregator.add(value)
    return float(aggregator.result())


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
    _check_provider(measure)
    return measure


def _check_provider(measure: Any) -> None:
    """Raise `ForewordError` with what to install when no installed package computes `measure`."""
    import ir_measures

    able = [provider for provider in ir_measures.DefaultPipeline.providers if provider.supports(measure)]
    if not any(provider.is_available() for provider in able):
        ways = "; ".join(filter(None, (provider.install_instructions() for provider in able)))
        raise ForewordError(f"Measure {measure} needs a package that is not installed: {ways or 'none known'}.")
