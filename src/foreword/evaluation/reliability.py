"""Do probabilities come true: reliability curves, the calibration error, and the parts of the Brier score.

Shapes: N probabilities, each with what came of it, 0 to 1. Everything is over bins of probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

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

    def points(self) -> list[dict[str, Any]]:
        """The curve as JSON values."""
        return [{"confidence": b.confidence, "accuracy": b.accuracy, "count": b.count} for b in self.curve]


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
