"""Is one system better than another over many domains: intervals, tests, and shares of what labels would give.

Every number here is a mean over domains of means over queries, so that a domain counts once however many queries it
has, and what is averaged over queries has first been averaged over seeds. The intervals say what other domains like
these would have given; the tests say whether chance explains what was seen on these. Everywhere `trials` are resamples
or sign patterns, `seed` is of their draws, and `level` what an interval covers, between 0 and 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import spearmanr

from foreword.errors import ForewordError
from foreword.evaluation.measures import bootstrap_interval, paired_randomization
from foreword.lab.records import MEASURES, TRANSFER, BenchmarkCell, Hypothesis

PerQuery = Mapping[str, Mapping[str, float]]
"""Values, or differences of two systems, by target and query id."""

Array = np.ndarray[Any, np.dtype[np.float64]]

TRIALS = 10_000
_CHUNK_VALUES = 2**20  # drawn query numbers held at a time: 8 MiB of int64


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over domains and the interval in which it lies."""

    mean: float
    low: float
    high: float


def macro_mean(values: PerQuery) -> float:
    """The mean over targets of the means over queries."""
    return float(np.mean([values.mean() for values in _arrays(values)]))


def hierarchical_bootstrap(differences: PerQuery, trials: int = TRIALS, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile interval of the mean over domains of domain means, for domains drawn like these.

    In each trial domains are drawn with replacement and, in each drawn one, its queries with replacement (Davison &
    Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8; drawing with replacement at both levels
    makes the interval a little too wide rather than too narrow).

    `ForewordError`: no queries, or a value that is not finite.
    """
    drawn = _resampled_means([values[:, None] for values in _arrays(differences)], trials, seed)[:, 0]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(macro_mean(differences), float(low), float(high))


def stratified_randomization(differences: PerQuery, trials: int = TRIALS, seed: int = 0) -> float:
    """Two-sided p-value of the mean over domains of domain means, signs flipped query by query within the domains.

    The paired randomisation test (Smucker, Allan & Carterette, 2007) with each query's difference weighed as it
    counts in the mean: exact for few differing queries, else `(1 + hits) / (1 + trials)`. It is about the queries
    of these domains; whether other domains would agree is for `hierarchical_bootstrap` to say.

    `ForewordError`: no queries, a value that is not finite, or fewer than one trial.
    """
    _arrays(differences)  # raises
    share = {
        f"{target}\t{query}": value / (len(values) * len(differences))
        for target, values in differences.items()
        for query, value in values.items()
    }
    return paired_randomization(share, dict.fromkeys(share, 0.0), trials=trials, seed=seed).p_value


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value corrected for having made all of the tests (Holm, "A Simple Sequentially Rejective Multiple Test
    Procedure", 1979): the i-th smallest of n times n - i + 1, never less than a smaller one's, at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def _arrays(values: PerQuery) -> list[Array]:
    """Each target's values, in the order of sorted targets and query ids, so that the caller's changes nothing."""
    if not values or not all(values.values()):
        raise ForewordError("there are no queries to compare on; run both systems on a target")
    arrays = [np.array([float(values[t][q]) for q in sorted(values[t])], dtype=np.float64) for t in sorted(values)]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ForewordError("a query's value is NaN or infinite; evaluate the runs again")
    return arrays


def _resampled_means(stacks: Sequence[Array], trials: int, seed: int) -> Array:
    """Means over domains of means over queries, both drawn with replacement.

    `stacks` are a domain each, (queries, V) for V statistics of the same queries; returns (trials, V).
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(stacks), size=(trials, len(stacks)))
    means = np.empty((*drawn.shape, stacks[0].shape[1]))
    for place, stack in enumerate(stacks):
        where, n = np.argwhere(drawn == place), len(stack)
        for part in np.array_split(where, max(1, -(-len(where) * n // _CHUNK_VALUES))):
            means[tuple(part.T)] = stack[rng.integers(0, n, size=(len(part), n))].mean(axis=1)
    return np.asarray(means.mean(axis=1), dtype=np.float64)


_EXACT_DIGITS = 12  # of a difference: equal values averaged over other numbers of seeds must not seem to differ


@dataclass(frozen=True, slots=True)
class Share:
    """What share of a ceiling's gain over the baseline a system has; None where the ceiling gains nothing.

    `low` and `high` are None where the ceiling's gain is too uncertain for a ratio to have an interval.
    """

    share: float | None
    low: float | None
    high: float | None
    targets: tuple[str, ...]
    """That the system, the ceiling and the baseline all have."""


@dataclass(frozen=True, slots=True)
class DomainDifference:
    """Two systems on one target."""

    target: str
    mean: float
    low: float
    high: float
    p_value: float
    """Of this target alone."""
    p_holm: float
    """Corrected for having looked at all of the targets."""
    queries: int


@dataclass(frozen=True, slots=True)
class WinTieLoss:
    """On how many targets a system is better, alike and worse, and on how many significantly so."""

    wins: int
    ties: int
    losses: int
    significant_wins: int
    significant_losses: int


def seed_means(cells: Sequence[BenchmarkCell], system: str, measure: str) -> dict[str, dict[str, float]]:
    """A system's values by target and query, the mean over its seeds on that target.

    `ForewordError`: a cell lacks the measure, is there twice, or its queries differ from another seed's.
    """
    found: dict[str, dict[int, Mapping[str, float]]] = defaultdict(dict)
    for cell in cells:
        if cell.system != system:
            continue
        where = f"{system} on {cell.target}, seed {cell.seed}"
        if measure not in cell.per_query:
            raise ForewordError(f"{where}: no {measure}; it has {', '.join(cell.per_query)}")
        if cell.seed in found[cell.target]:
            raise ForewordError(f"{where}: there are two cells; keep one")
        found[cell.target][cell.seed] = cell.per_query[measure]
        if cell.per_query[measure].keys() != next(iter(found[cell.target].values())).keys():
            raise ForewordError(f"{where}: other queries than with another seed; run the seeds on one collection")
    return {
        target: {query: math.fsum(seed[query] for seed in seeds.values()) / len(seeds) for query in sorted(first)}
        for target, seeds in sorted(found.items())
        for first in [next(iter(seeds.values()))]
    }


def differences(
    cells: Sequence[BenchmarkCell], system: str, baseline: str, measure: str
) -> dict[str, dict[str, float]]:
    """The system's mean over seeds less the baseline's, by query, on the targets that both have.

    Of two that store something, the seeds that both have count; what stores nothing has a single cell.

    `ForewordError`: as `seed_means`, or the two are scored on different queries of a target.
    """
    seeds = [{c.seed for c in cells if c.system == name and c.stored_bytes} for name in (system, baseline)]
    if all(seeds) and (common := seeds[0] & seeds[1]):
        cells = [c for c in cells if c.seed in common]
    ours, theirs = (seed_means(cells, name, measure) for name in (system, baseline))
    shared = {target: (ours[target], theirs[target]) for target in ours if target in theirs}
    for target, (a, b) in shared.items():
        if a.keys() != b.keys():
            odd = sorted(a.keys() ^ b.keys())
            raise ForewordError(
                f"{system} and {baseline} are scored on different queries of {target} ({len(a)} and {len(b)}; in one "
                f"only: {', '.join(map(repr, odd[:3]))}); run both on one collection"
            )
    return {
        target: {query: round(a[query] - b[query], _EXACT_DIGITS) for query in a} for target, (a, b) in shared.items()
    }


def only(values: PerQuery, targets: Collection[str]) -> dict[str, Mapping[str, float]]:
    """The values of these targets."""
    return {target: values[target] for target in values if target in targets}


def by_domain(differences: PerQuery, trials: int = TRIALS, seed: int = 0) -> list[DomainDifference]:
    """Each target by itself: mean difference, bootstrap interval over its queries, and randomisation test."""
    _arrays(differences)  # raises
    found = []
    for target, values in sorted(differences.items()):
        zeros = dict.fromkeys(values, 0.0)
        test = paired_randomization(values, zeros, trials=trials, seed=seed)
        found.append((target, test, bootstrap_interval(values, zeros, trials=trials, seed=seed)))
    corrected = holm([test.p_value for _, test, _ in found])
    return [
        DomainDifference(target, test.difference, low, high, test.p_value, p_holm, test.n)
        for (target, test, (low, high)), p_holm in zip(found, corrected, strict=True)
    ]


def win_tie_loss(domains: Sequence[DomainDifference], tie: float = 0.001, alpha: float = 0.05) -> WinTieLoss:
    """Count the targets won and lost.

    A mean difference of at most `tie`, up or down, is a tie (in the measure's own unit); a win or loss is significant
    when its corrected p-value is below `alpha`.
    """
    wins = [domain for domain in domains if domain.mean > tie]
    losses = [domain for domain in domains if domain.mean < -tie]
    return WinTieLoss(
        len(wins),
        len(domains) - len(wins) - len(losses),
        len(losses),
        *(sum(domain.p_holm < alpha for domain in side) for side in (wins, losses)),
    )


def share_of_gain(
    cells: Sequence[BenchmarkCell],
    system: str,
    ceiling: str,
    baseline: str,
    measure: str = "nDCG@10",
    *,
    targets: Collection[str] | None = None,
    trials: int = TRIALS,
    seed: int = 0,
) -> Share:
    """(mean of the system - baseline) / (mean of the ceiling - baseline), over the targets that all three have.

    The 95 % interval is a percentile one of the ratio under the same resamples as `hierarchical_bootstrap` takes. A
    resample in which the ceiling gains nothing has no ratio; it counts as below the lower end and above the upper.
    """
    gains = [differences(cells, name, baseline, measure) for name in (system, ceiling)]
    shared = [t for t in gains[0] if t in gains[1] and (targets is None or t in targets)]
    if not shared:
        return Share(None, None, None, ())
    ours, most = (only(gain, shared) for gain in gains)
    top = macro_mean(most)
    if top <= 0:
        return Share(None, None, None, tuple(shared))
    pairs = zip(_arrays(ours), _arrays(most), strict=True)
    drawn = _resampled_means([np.stack(pair, axis=1) for pair in pairs], trials, seed)
    above = drawn[:, 1] > 0
    ratios = drawn[:, 0] / np.where(above, drawn[:, 1], 1.0)
    ends: list[float | None] = []
    for worst, quantile in ((-math.inf, 0.025), (math.inf, 0.975)):
        end = float(np.quantile(np.where(above, ratios, worst), quantile, method="nearest"))
        ends.append(end if math.isfinite(end) else None)
    return Share(macro_mean(ours) / top, ends[0], ends[1], tuple(shared))


def seed_spread(cells: Sequence[BenchmarkCell], system: str, measure: str, targets: Collection[str]) -> float | None:
    """Standard deviation (n - 1) of the mean over the targets from seed to seed; None below two whole seeds."""
    means: dict[int, dict[str, float]] = defaultdict(dict)
    for cell in cells:
        if cell.system == system and cell.target in targets:
            means[cell.seed][cell.target] = cell.measures[measure]
    size = len(set(targets))
    whole = [math.fsum(by_target.values()) / size for by_target in means.values() if len(by_target) == size]
    return float(np.std(whole, ddof=1)) if len(whole) > 1 else None


def coverage(cells: Sequence[BenchmarkCell], system: str, targets: Collection[str] | None = None) -> float | None:
    """The share of a system's decisions, one for each target and seed, that are to transfer; None without any."""
    decisions = [
        cell.decision
        for cell in cells
        if cell.system == system and cell.decision is not None and (targets is None or cell.target in targets)
    ]
    return sum(decision == TRANSFER for decision in decisions) / len(decisions) if decisions else None


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho (1904), ties at their mean rank; None below three pairs or where one side is constant."""
    if len(a) != len(b):
        raise ForewordError(f"{len(a)} values beside {len(b)}; expected pairs")
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    return float(spearmanr(a, b).statistic)


@dataclass(frozen=True)
class SystemGain:
    """A system against the baseline on all targets."""

    difference: Interval
    """Mean over domains, with the interval for domains like these."""
    p_value: float
    worst_target: str
    worst: Interval
    """On that target, with the interval over its queries."""
    counts: WinTieLoss


@dataclass(frozen=True)
class Summary:
    """One system on all targets; means are over targets, seeds averaged first.

    Attributes:
        labels: how many of the target's training labels it used, the different numbers over its cells; None: all.
        seeds: the least and the greatest number of seeds that a target has.
        measures: measure -> mean.
        gain: None for the baseline itself, and where the baseline lacks a target.
        share: of the ceiling's gain; None as `gain`.
        coverage: the share of its decisions that are to transfer; None where it decides nothing.
        spread: standard deviation from seed to seed of the first measure's mean; None for one seed.
        seconds: mean, to adapt to one target.
    """

    system: str
    labels: tuple[int | None, ...]
    seeds: tuple[int, int]
    measures: dict[str, float]
    gain: SystemGain | None
    share: Share | None
    coverage: float | None
    spread: float | None
    trained_parameters: float
    stored_bytes: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Incomplete:
    """A system that lacks targets, and so has no place among the means."""

    system: str
    covered: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Summaries:
    """The systems that cover all targets, and those that do not, each in the order asked for."""

    rows: tuple[Summary, ...]
    incomplete: tuple[Incomplete, ...]
    targets: tuple[str, ...]
    measures: tuple[str, ...]
    ceiling: str
    baseline: str


Outcome = Literal["supported", "contradicted", "undecided", "not tested"]


@dataclass(frozen=True)
class Verdict:
    """What came of a hypothesis.

    Attributes:
        outcome: `supported` when the interval lies above 0 and the corrected p-value below the level, `contradicted`
            when the interval lies below 0 and the p-value below the level, else `undecided`; `not tested` when
            targets are missing.
        difference: mean over domains and its interval.
        p_value: of the randomisation test within the domains.
        p_holm: corrected for all hypotheses that were tested together.
        missing: targets that one of the two systems lacks.
    """

    hypothesis: Hypothesis
    outcome: Outcome
    difference: Interval | None
    p_value: float | None
    p_holm: float | None
    missing: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def summarise(
    cells: Sequence[BenchmarkCell],
    targets: Sequence[str],
    systems: Sequence[str],
    ceiling: str = "supervised",
    baseline: str = "base",
    *,
    measures: Sequence[str] = MEASURES,
    trials: int = 10_000,
    seed: int = 0,
) -> Summaries:
    """One row for each system, in order, that covers all targets; other targets' cells are left out of account.

    Shares of gain are of the ceiling's; systems are compared on the first measure. `ForewordError`: no targets or
    measures, or cells that cannot be compared.
    """
    if not targets or not measures:
        raise ForewordError(f"{len(targets)} targets and {len(measures)} measures; expected one or more of each")
    here = [cell for cell in cells if cell.target in targets]
    rows, incomplete = [], []
    for system in dict.fromkeys(systems):
        missing = _missing(here, targets, [system])
        if missing:
            covered = tuple(target for target in targets if target not in missing)
            incomplete.append(Incomplete(system, covered, missing))
            continue
        compared = system != baseline and not _missing(here, targets, [baseline])
        gain = share = None
        if compared:
            found = differences(here, system, baseline, measures[0])
            domains = by_domain(found, trials, seed)
            worst = min(domains, key=lambda domain: domain.mean)
            gain = SystemGain(
                hierarchical_bootstrap(found, trials, seed),
                stratified_randomization(found, trials, seed),
                worst.target,
                Interval(worst.mean, worst.low, worst.high),
                win_tie_loss(domains),
            )
            share = share_of_gain(here, system, ceiling, baseline, measures[0], trials=trials, seed=seed)
        own = [[cell for cell in here if (cell.target, cell.system) == (target, system)] for target in targets]
        labels = {cell.labels for cells_there in own for cell in cells_there}
        counts = [len(cells_there) for cells_there in own]
        costs = ("trained_parameters", "stored_bytes", "seconds")
        means = [[sum(getattr(cell, cost) for cell in there) / len(there) for there in own] for cost in costs]
        rows.append(
            Summary(
                system,
                (*sorted(number for number in labels if number is not None), *([None] if None in labels else [])),
                (min(counts), max(counts)),
                {measure: macro_mean(seed_means(here, system, measure)) for measure in measures},
                gain,
                share,
                coverage(here, system),
                seed_spread(here, system, measures[0], targets),
                *(sum(of_targets) / len(of_targets) for of_targets in means),
            )
        )
    return Summaries(tuple(rows), tuple(incomplete), tuple(targets), tuple(measures), ceiling, baseline)


def judge_hypotheses(
    cells: Sequence[BenchmarkCell],
    hypotheses: Sequence[Hypothesis],
    targets: Sequence[str],
    *,
    measure: str = MEASURES[0],
    alpha: float = 0.05,
    trials: int = 10_000,
    seed: int = 0,
) -> list[Verdict]:
    """A verdict on each hypothesis, p-values corrected for all that could be tested (Holm, 1979).

    A hypothesis that lacks one of the targets, or has none, is not tested. `alpha` is the level of significance;
    intervals cover 1 - alpha.
    """
    tested: dict[int, tuple[Interval, float]] = {}
    missing = [_missing(cells, targets, [claim.system, claim.baseline]) for claim in hypotheses]
    for place, claim in enumerate(hypotheses):
        if targets and not missing[place]:
            found = only(differences(cells, claim.system, claim.baseline, measure), targets)
            interval = hierarchical_bootstrap(found, trials, seed, 1 - alpha)
            moved = {target: {q: v + claim.margin for q, v in values.items()} for target, values in found.items()}
            tested[place] = interval, stratified_randomization(moved, trials, seed)
    corrected = dict(zip(tested, holm([p_value for _, p_value in tested.values()]), strict=True))
    verdicts = []
    for place, claim in enumerate(hypotheses):
        if place not in tested:
            verdicts.append(Verdict(claim, "not tested", None, None, None, missing[place]))
            continue
        interval, p_value = tested[place]
        outcome: Outcome = "undecided"
        low, high = interval.low + claim.margin, interval.high + claim.margin
        if corrected[place] < alpha and (low > 0 or high < 0):
            outcome = "supported" if low > 0 else "contradicted"
        verdicts.append(Verdict(claim, outcome, interval, p_value, corrected[place], ()))
    return verdicts


def _missing(cells: Iterable[BenchmarkCell], targets: Sequence[str], systems: Sequence[str]) -> tuple[str, ...]:
    """The targets on which one of the systems has no cell."""
    have = {(cell.target, cell.system) for cell in cells}
    return tuple(target for target in targets if any((target, system) not in have for system in systems))
