"""Whether a run's scores can be read as probabilities: calibration error, Brier score and temperature.

The probability that a hit is relevant is a softmax over its query's k best scores, each divided by a temperature T.
T changes no ranking, for it is one number for all; it is fitted on a dev run and kept for test.

A softmax shares one certainty among a query's hits, while a query may have several relevant hits, or none. So it is
to be said what its event is. `each`: every relevant hit counts 1, as in Tam et al. (2207.07087); the best that can be
said of R relevant hits is then 1/R each, which is too little. `share`: each of them counts 1/R, the chance that it is
the one drawn among them; then 1/R each is perfectly calibrated. Either way a query without a relevant hit counts 0
throughout, and hits that nobody judged are not relevant, as for trec_eval.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from foreword.collections.collection import Qrels
from foreword.errors import ForewordError
from foreword.retrieval.runs import Run, ranked

Array = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.intp]]

Binning = Literal["count", "width"]
"""Bins of about equal count (equal probabilities share one), or of equal width between 0 and 1."""


@dataclass(frozen=True, slots=True)
class Bin:
    """One point of a reliability curve; calibrated: `confidence` equals `accuracy`."""

    confidence: float
    """Mean probability."""
    accuracy: float
    """Mean outcome."""
    count: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability curve, and how far it lies from the diagonal."""

    ece: float
    """Expected calibration error: the mean of |confidence - accuracy| over bins, weighted by their counts."""
    curve: tuple[Bin, ...]
    """By rising confidence, without empty bins."""


@dataclass(frozen=True, slots=True)
class Brier:
    """The Brier score and its parts, `score = reliability - resolution + uncertainty + within_bins`.

    The first three are Murphy's ("A New Vector Partition of the Probability Score", 1973), who groups by each
    probability; the last is what coarser bins need besides (Stephenson, Coelho & Jolliffe, "Two Extra Components in
    the Brier Score Decomposition", 2008).
    """

    score: float
    """Mean squared difference of probability and outcome."""
    reliability: float
    """Mean squared distance of the curve from the diagonal; 0 is calibrated."""
    resolution: float
    """How far the bins' outcomes lie from the mean outcome; greater is better."""
    uncertainty: float
    """Variance of the outcomes, whatever the probabilities say."""
    within_bins: float
    """Variance of the probabilities inside bins, less twice their covariance with the outcomes."""


def reliability(chances: Array, outcomes: Array, bins: int, binning: Binning) -> Reliability:
    """The curve of N probabilities over at most `bins` bins."""
    confidence, accuracy, counts, _ = _means(chances, outcomes, bins, binning)
    points = zip(confidence.tolist(), accuracy.tolist(), counts.tolist(), strict=True)
    error = float(np.abs(confidence - accuracy) @ counts) / len(chances)
    return Reliability(error, tuple(Bin(*point) for point in points))


def brier(chances: Array, outcomes: Array, bins: int, binning: Binning) -> Brier:
    """The Brier score of N probabilities, taken apart; outcomes between 0 and 1 are allowed."""
    confidence, accuracy, counts, places = _means(chances, outcomes, bins, binning)
    shares = counts / len(chances)
    off, odd = chances - confidence[places], outcomes - accuracy[places]
    return Brier(
        score=float(np.mean((chances - outcomes) ** 2)),
        reliability=float((confidence - accuracy) ** 2 @ shares),
        resolution=float((accuracy - outcomes.mean()) ** 2 @ shares),
        uncertainty=float(outcomes.var()),
        within_bins=float(np.mean(off**2 - 2 * off * odd)),
    )


def _means(chances: Array, outcomes: Array, bins: int, binning: Binning) -> tuple[Array, Array, Integers, Integers]:
    """Each used bin's mean probability, mean outcome and count, and (N) the place of each probability's bin."""
    if binning == "width":  # a bin has its upper edge, not its lower one, as in Guo et al. and scikit-learn
        numbers = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], chances)
    else:  # by the number of smaller probabilities, so that equal ones stay together
        numbers = np.searchsorted(np.sort(chances), chances) * bins // len(chances)
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    confidence: Array = np.bincount(places, weights=chances) / counts
    accuracy: Array = np.bincount(places, weights=outcomes) / counts
    return confidence, accuracy, counts, places


Several = Literal["each", "share"]
"""What each of a query's R relevant hits counts: 1, or 1/R."""

_IMPOSSIBLE = math.log(1e-12)  # a relevant hit of probability 0 costs this much, not infinitely much
_RANGE = math.log(1e3)  # temperatures looked at: from a thousandth to a thousand times the spread of the scores
_GRID = 48  # temperatures tried before the search around the best


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well the probabilities of a run's hits agree with the judgements."""

    temperature: float
    k: int
    bins: int
    several: Several
    queries: int
    """Judged queries with hits."""
    unanswered: int
    """Judged queries without a hit: there is no probability to look at; left out."""
    hits: int
    """(query, hit) pairs: what everything but `top` is a mean over."""
    pairs: Reliability
    """Every hit, in bins of equal count (Nixon et al., 1904.01685); hits of one probability share a bin."""
    equal_width: Reliability
    """Every hit, in bins of equal width: Tam et al.'s definition (their script for BEIR: k = 5, 10 bins, T = 1)."""
    top: Reliability
    """The first hit alone, relevant or not, in bins of equal width: a classifier's definition (Guo et al., 2017)."""
    nll: float
    """Mean negative log likelihood of relevance, in nats: what `fit_temperature` makes small."""
    brier: Brier
    """The mean squared error, and its parts over the bins of `pairs`."""

    @property
    def ece(self) -> float:
        """The expected calibration error of `pairs`."""
        return self.pairs.ece

    def as_dict(self) -> dict[str, Any]:
        """JSON values: the numbers by name, and the three errors and curves side by side."""
        named = {"": self.pairs, "_equal_width": self.equal_width, "_top": self.top}
        plain = ("temperature", "k", "bins", "several", "queries", "unanswered", "hits", "nll")
        parts = {name: value for name, value in asdict(self.brier).items() if name != "score"}
        return {
            **{name: getattr(self, name) for name in plain},
            **{f"ece{end}": found.ece for end, found in named.items()},
            "brier": self.brier.score,
            **parts,
            **{f"curve{end}": [asdict(b) for b in found.curve] for end, found in named.items()},
        }


def calibrate(
    run: Run, qrels: Qrels, *, temperature: float = 1.0, k: int = 10, bins: int = 10, several: Several = "each"
) -> Calibration:
    """Compare the probabilities of a run's hits with the judgements.

    Args:
        run: `query_id -> doc_id -> score`; a longer run is cut to k.
        qrels: `query_id -> doc_id -> relevance`; above 0 is relevant.
        temperature: T; of another run than this one, see `fit_temperature`.
        k: hits a query, which share its certainty.
        bins: of each curve, at most.
        several: what each of several relevant hits counts.

    Raises:
        ForewordError: no judged query has a hit, a score is not finite, or an argument is out of range.
    """
    if not (temperature > 0 and math.isfinite(temperature)) or bins < 1:
        raise ForewordError(f"temperature={temperature}, bins={bins}; expected a temperature above 0, 1 or more bins.")
    found = _gather(run, qrels, k, several)
    present = found.present
    logs, others = _log_probabilities(found.scores, temperature)
    chances, relevance = np.exp(logs)[present], found.relevance[present]
    first = np.exp(logs[:, 0])
    return Calibration(
        temperature=float(temperature),
        k=k,
        bins=bins,
        several=several,
        queries=len(found.scores),
        unanswered=found.unanswered,
        hits=len(chances),
        pairs=reliability(chances, relevance, bins, "count"),
        equal_width=reliability(chances, relevance, bins, "width"),
        top=reliability(first, (found.relevance[:, 0] > 0).astype(float), bins, "width"),
        nll=_loss(logs, others, found),
        brier=brier(chances, relevance, bins, "count"),
    )


def fit_temperature(run: Run, qrels: Qrels, k: int = 10, *, several: Several = "each") -> float:
    """The temperature that makes the judgements of a dev run most likely; test takes it as it is.

    The loss is the mean over hits of `-y log p - (1 - y) log(1 - p)`. It is searched on a grid and then around
    the best, within a thousandth to a thousand times the scores' mean standard deviation in a query; where the scores
    say nothing (or everything) the result is that bound. No randomness: equal runs give equal temperatures.

    Raises:
        ForewordError: as `calibrate`; or no temperature is better than another: no relevant hit, or equal scores.
    """
    from scipy.optimize import minimize_scalar

    found = _gather(run, qrels, k, several)
    if not found.relevance.any():
        raise ForewordError(f"No query has a relevant hit among its first {k}, so no temperature can be fitted.")
    spread = float(np.mean([row[real].std() for row, real in zip(found.scores, found.present, strict=True)]))
    if spread == 0:
        raise ForewordError("The scores of a query's hits are all equal, so no temperature can be fitted.")

    def loss(log_temperature: float) -> float:
        return _loss(*_log_probabilities(found.scores, math.exp(log_temperature)), found)

    low, high = math.log(spread) - _RANGE, math.log(spread) + _RANGE
    grid = [low + (high - low) * place / _GRID for place in range(_GRID + 1)]
    best = min(range(len(grid)), key=lambda place: loss(grid[place]))
    bounds = (grid[max(0, best - 1)], grid[min(_GRID, best + 1)])
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7}).x)


def calibrate_from_dev(
    run: Run, qrels: Qrels, dev_run: Run, dev_qrels: Qrels, *, k: int = 10, bins: int = 10, several: Several = "each"
) -> Calibration:
    """Calibrate a run with the temperature of a dev run of the same system.

    Raises:
        ForewordError: as `calibrate` and `fit_temperature`, or a query is judged in both: it would judge itself.
    """
    both = sorted(qrels.keys() & dev_qrels.keys())
    if both:
        raise ForewordError(f"{len(both)} queries are in dev and test (first: {both[0]!r}); the splits must differ.")
    temperature = fit_temperature(dev_run, dev_qrels, k, several=several)
    return calibrate(run, qrels, temperature=temperature, k=k, bins=bins, several=several)


@dataclass(frozen=True)
class _Hits:
    scores: Array
    """(Q, k), -inf where a query has fewer hits."""
    relevance: Array
    """(Q, k), 0 to 1."""
    unanswered: int

    @property
    def present(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.asarray(self.scores > -np.inf)


def _gather(run: Run, qrels: Qrels, k: int, several: Several) -> _Hits:
    """The k best hits of every judged query that has any."""
    if k < 1 or several not in get_args(Several):
        raise ForewordError(f"k={k}, several={several!r}; expected 1 or more hits, and 'each' or 'share'.")
    judged = [query_id for query_id, documents in qrels.items() if documents]
    hits = {query_id: ranked(run[query_id], k) for query_id in judged if run.get(query_id)}
    if not hits:
        raise ForewordError("No judged query has a hit; check that the run and the qrels are of one split.")
    width = max(map(len, hits.values()))
    scores, relevance = np.full((len(hits), width), -np.inf), np.zeros((len(hits), width))
    for row, (query_id, pairs) in enumerate(hits.items()):
        for column, (doc_id, score) in enumerate(pairs):
            if not math.isfinite(score):
                raise ForewordError(
                    f"The score of {doc_id!r} for query {query_id!r} is {score}; expected a finite one."
                )
            scores[row, column] = score
            relevance[row, column] = qrels[query_id].get(doc_id, 0) > 0
    if several == "share":
        relevance /= np.maximum(relevance.sum(axis=1, keepdims=True), 1.0)
    return _Hits(scores, relevance, len(judged) - len(hits))


def _log_probabilities(scores: Array, temperature: float) -> tuple[Array, Array]:
    """log p and log(1 - p) of a softmax over each row of scores (Q, k), exact where p is near 0 or 1.

    Rows fall, so only the first p can pass 1/2; its complement is the sum of the others.
    """
    scaled = scores / temperature
    total = np.logaddexp.reduce(scaled, axis=1, keepdims=True)
    logs = scaled - total
    first = np.logaddexp.reduce(logs[:, 1:], axis=1, keepdims=True)  # of one hit alone: -inf
    return logs, np.concatenate([first, np.log1p(-np.exp(logs[:, 1:]))], axis=1)


def _loss(logs: Array, others: Array, found: _Hits) -> float:
    """The mean negative log likelihood of relevance."""
    yes, no = np.maximum(logs, _IMPOSSIBLE), np.maximum(others, _IMPOSSIBLE)
    losses = -found.relevance * yes - (1 - found.relevance) * no
    return float(losses[found.present].mean())
