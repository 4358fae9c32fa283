"""Runs and judgements as dictionaries and as TREC files, in the one order that trec_eval scores.

trec_eval ignores the rank column: it reads every score into a 32-bit float and sorts by score, then by
doc_id, both descending. Everything here does the same, so that the order of a file's lines is the order
that is measured, and measures recomputed from a file equal those computed before it was written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from foreword.collections.collection import Qrels
from foreword.collections.folder import read_qrels as read_qrels
from foreword.errors import DataError, ForewordError
from foreword.files import atomic_write, text_lines

Run = dict[str, dict[str, float]]
"""A ranking for each query: `query_id -> doc_id -> score`; an empty ranking is a query without hits."""


def ranked(hits: Mapping[str, float], k: int | None = None) -> list[tuple[str, float]]:
    """The `(doc_id, score)` pairs of one query in trec_eval's order, best first, scores rounded to float32.

    Args:
        hits: `doc_id -> score` of one query.
        k: how many to keep; all when None.
    """
    with np.errstate(over="ignore"):  # beyond float32's range is infinity, which `write_run` refuses
        rounded = np.array(list(hits.values())).astype(np.float32).tolist()
    pairs = sorted(zip(rounded, hits, strict=True), reverse=True)
    return [(doc_id, score) for score, doc_id in pairs[:k]]


def top_k(run: Run, k: int | None) -> Run:
    """A new run with the best `k` hits of every query (None: all), in rank order."""
    if k is not None and k < 0:
        raise ForewordError(f"k is {k}; expected 0 or more hits to keep.")
    return {query_id: dict(ranked(hits, k)) for query_id, hits in run.items()}


def drop_self(run: Run) -> Run:
    """A new run without the hits that are the query itself (doc_id equal to query_id)."""
    return {
        query_id: {doc_id: score for doc_id, score in hits.items() if doc_id != query_id}
        for query_id, hits in run.items()
    }


def trec_name(name: str) -> str:
    """A collection's or system's id as part of a file name: `/` is written `-`."""
    return name.replace("/", "-")


def write_run(path: Path | str, run: Run, tag: str) -> None:
    """Write a run in TREC's format, `query_id Q0 doc_id rank score tag`, ranks from 1.

    Scores are written with every digit of their float32 value, which is all that trec_eval reads. A query
    without hits has no line; an evaluation over the judgements counts it as 0 all the same.

    Raises:
        ForewordError: an id or the tag is empty or holds white space, or a score is not a finite float32.
    """
    _check_word(tag, "tag")
    with atomic_write(path) as file:
        for query_id, hits in run.items():
            file.writelines(run_lines(query_id, hits, tag))


def run_lines(query_id: str, hits: Mapping[str, float], tag: str) -> Iterator[str]:
    """The lines of one query in a run of TREC's format, as `write_run` writes them, with their ends.

    Raises:
        ForewordError: an id or the tag is empty or holds white space, or a score is not a finite float32.
    """
    _check_word(tag, "tag")
    _check_word(query_id, "query_id")
    for rank, (doc_id, score) in enumerate(ranked(hits), start=1):
        _check_word(doc_id, "doc_id")
        if not math.isfinite(score):
            raise ForewordError(f"The score of {doc_id!r} for query {query_id!r} is {score}; expected a finite one.")
        yield f"{query_id} Q0 {doc_id} {rank} {score!r} {tag}\n"


def read_run(path: Path | str) -> Run:
    """Read a run in TREC's format, plain or gzipped; ranks and tags are ignored, as by trec_eval.

    Raises:
        DataError: a line without six fields, a score that is no finite number, or a document listed twice.
    """
    run: Run = {}
    for number, line in text_lines(path):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 6:
            message = f"{len(fields)} fields; expected 6: query_id Q0 doc_id rank score tag."
            raise DataError(message, path=path, line=number)
        query_id, _, doc_id, _, text, _ = fields
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise DataError(f"the score is {text!r}; expected a finite number.", path=path, line=number)
        hits = run.setdefault(query_id, {})
        if doc_id in hits:
            raise DataError(
                f"document {doc_id!r} is listed twice for query {query_id!r}; keep one line.",
                path=path,
                line=number,
            )
        hits[doc_id] = score
    return run


def write_qrels(path: Path | str, qrels: Qrels) -> None:
    """Write judgements in TREC's format, `query_id 0 doc_id relevance`, in the order given.

    Raises:
        ForewordError: an id is empty or holds white space.
    """
    with atomic_write(path) as file:
        for query_id, judged in qrels.items():
            _check_word(query_id, "query_id")
            for doc_id, relevance in judged.items():
                _check_word(doc_id, "doc_id")
                file.write(f"{query_id} 0 {doc_id} {int(relevance)}\n")


def _check_word(text: str, what: str) -> None:
    """Raise unless `text` is one word: a TREC file's fields are parted by white space."""
    if text.split() != [text]:
        raise ForewordError(
            f"The {what} {text!r} is empty or holds white space, which a TREC file cannot say; "
            "rename it before writing the file."
        )


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

    def normalised(hits: Mapping[str, float]) -> dict[str, float]:
        low, high = min(hits.values(), default=0.0), max(hits.values(), default=0.0)
        if high == low:
            return dict.fromkeys(hits, 1.0)
        return {doc_id: (score - low) / (high - low) for doc_id, score in hits.items()}

    return _fuse(runs, weights, k, normalised)


DEPTH = 100
"""Hits of each of the two searches that a hybrid one joins, at least."""
HYBRID_WEIGHT, RANGE_WEIGHT = 0.4, 0.3
"""Of BM25 in `hybrid`, right for most collections: of shares, and of other scores."""


def hybrid(dense: Run, words: Run, weight: float = HYBRID_WEIGHT, k: int | None = None, *, shares: bool = True) -> Run:
    """`(1 - weight) * cosine + weight * share`: scores that mean the same for every query are added as they are.

    Where dense search is sure of a document it stays so, and where few of a query's words are in any document, BM25
    has little to say; `min_max` makes the best hit of both the same 1. With .4 it was significantly above dense search
    on seven of twelve collections, and below it on one, where no weight helped: `foreword.evaluation.hybrid` chooses.
    (Bruch et al., "An Analysis of Fusion Functions for Hybrid Retrieval", 2023, also take bounds that are known before
    the search.)

    Args:
        dense: cosines; a document that it did not return gets its lowest of the query.
        words: BM25's scores as shares of what the query could score, see `BM25.search`; a document that it did not
            return gets 0.
        weight: of the words, 0 to 1; at 0 the hits are those of dense search alone, at 1 those of BM25 alone.
        k: hits kept per query; all when None.
        shares: False: the words' scores are BM25's as they are, and both sides are brought to 0..1 by `min_max`.

    Raises:
        ForewordError: a weight out of range.
    """
    if not 0 <= weight <= 1:
        raise ForewordError(f"The weight of BM25 is {weight}; expected 0 to 1.")
    if weight in (0, 1):
        alone, other = (words, dense) if weight else (dense, words)
        return top_k({query_id: alone.get(query_id, {}) for query_id in (*alone, *other)}, k)
    if not shares:
        return min_max([dense, words], [1 - weight, weight], k)
    fused: Run = {}
    for query_id in dict.fromkeys((*dense, *words)):
        cosines, of_words = dense.get(query_id, {}), words.get(query_id, {})
        least = min(cosines.values(), default=0.0)
        sums = {
            doc_id: (1 - weight) * cosines.get(doc_id, least) + weight * of_words.get(doc_id, 0.0)
            for doc_id in (*cosines, *of_words)
        }
        fused[query_id] = dict(ranked(sums, k))
    return fused


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
