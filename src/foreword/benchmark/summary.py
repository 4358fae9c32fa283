"""What each system comes to over all targets, and whether what was claimed before the run held."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from foreword.benchmark.records import Cell
from foreword.benchmark.statistics import (
    Interval,
    Share,
    WinTieLoss,
    by_domain,
    coverage,
    differences,
    hierarchical_bootstrap,
    holm,
    macro_mean,
    only,
    seed_means,
    seed_spread,
    share_of_gain,
    stratified_randomization,
    win_tie_loss,
)
from foreword.common.errors import ForewordError

MEASURES = ("nDCG@10", "R@100")
"""Reported; systems are compared on the first."""


@dataclass(frozen=True)
class Gain:
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
        system: its name.
        labels: how many of the target's training labels it used, the different numbers over its cells; None: all.
        seeds: the least and the greatest number of seeds that a target has.
        measures: measure -> mean.
        gain: None for the baseline itself, and where the baseline lacks a target.
        share: of the ceiling's gain; None as `gain`.
        coverage: the share of its decisions that are to transfer; None where it decides nothing.
        spread: standard deviation from seed to seed of the first measure's mean; None for one seed.
        trained_parameters: exact mean.
        stored_bytes: mean.
        seconds: mean, to adapt to one target.
    """

    system: str
    labels: tuple[int | None, ...]
    seeds: tuple[int, int]
    measures: dict[str, float]
    gain: Gain | None
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


@dataclass(frozen=True)
class Hypothesis:
    """A claim made before the run: on the mean over the targets, the system is better than the baseline."""

    name: str
    statement: str
    system: str
    baseline: str


Outcome = Literal["supported", "contradicted", "undecided", "not tested"]


@dataclass(frozen=True)
class Verdict:
    """What came of a hypothesis.

    Attributes:
        hypothesis: the claim.
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
    cells: Sequence[Cell],
    targets: Sequence[str],
    systems: Sequence[str],
    ceiling: str = "supervised",
    baseline: str = "base",
    *,
    measures: Sequence[str] = MEASURES,
    trials: int = 10_000,
    seed: int = 0,
) -> Summaries:
    """One row for each system that covers all targets.

    Args:
        cells: of all systems; other targets' are left out of account.
        targets: the held-out domains that the means are over.
        systems: the rows, in order.
        ceiling: what shares of gain are of.
        baseline: what differences are from.
        measures: the columns; the first is compared.
        trials: of intervals and tests.
        seed: of their draws.

    Raises:
        ForewordError: no targets or measures, or cells that cannot be compared.
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
            gain = _gain(differences(here, system, baseline, measures[0]), trials, seed)
            share = share_of_gain(here, system, ceiling, baseline, measures[0], trials=trials, seed=seed)
        rows.append(
            Summary(
                system,
                _labels(here, system),
                _seeds(here, system),
                {measure: macro_mean(seed_means(here, system, measure)) for measure in measures},
                gain,
                share,
                coverage(here, system),
                seed_spread(here, system, measures[0], targets),
                *(_cost(here, system, cost) for cost in (_parameters, _bytes, _seconds)),
            )
        )
    return Summaries(tuple(rows), tuple(incomplete), tuple(targets), tuple(measures), ceiling, baseline)


def judge_hypotheses(
    cells: Sequence[Cell],
    hypotheses: Sequence[Hypothesis],
    targets: Sequence[str],
    *,
    measure: str = MEASURES[0],
    alpha: float = 0.05,
    trials: int = 10_000,
    seed: int = 0,
) -> list[Verdict]:
    """A verdict on each hypothesis, p-values corrected for all that could be tested (Holm, 1979).

    Args:
        cells: of all systems named.
        hypotheses: the claims.
        targets: the held-out domains that the means are over; a hypothesis that lacks one is not tested.
        measure: that systems are compared on.
        alpha: the level of significance; intervals cover 1 - alpha.
        trials: of intervals and tests.
        seed: of their draws.
    """
    tested: dict[int, tuple[Interval, float]] = {}
    missing = [_missing(cells, targets, [claim.system, claim.baseline]) for claim in hypotheses]
    for place, claim in enumerate(hypotheses):
        if not missing[place]:
            found = only(differences(cells, claim.system, claim.baseline, measure), targets)
            interval = hierarchical_bootstrap(found, trials, seed, 1 - alpha)
            tested[place] = interval, stratified_randomization(found, trials, seed)
    corrected = dict(zip(tested, holm([p_value for _, p_value in tested.values()]), strict=True))
    verdicts = []
    for place, claim in enumerate(hypotheses):
        if place not in tested:
            verdicts.append(Verdict(claim, "not tested", None, None, None, missing[place]))
            continue
        interval, p_value = tested[place]
        outcome = _outcome(interval, corrected[place] < alpha)
        verdicts.append(Verdict(claim, outcome, interval, p_value, corrected[place], ()))
    return verdicts


def _outcome(interval: Interval, significant: bool) -> Outcome:
    if significant and interval.low > 0:
        return "supported"
    return "contradicted" if significant and interval.high < 0 else "undecided"


def _gain(found: dict[str, dict[str, float]], trials: int, seed: int) -> Gain:
    """Of differences by target and query."""
    domains = by_domain(found, trials, seed)
    worst = min(domains, key=lambda domain: domain.mean)
    return Gain(
        hierarchical_bootstrap(found, trials, seed),
        stratified_randomization(found, trials, seed),
        worst.target,
        Interval(worst.mean, worst.low, worst.high),
        win_tie_loss(domains),
    )


def _missing(cells: Iterable[Cell], targets: Sequence[str], systems: Sequence[str]) -> tuple[str, ...]:
    """The targets on which one of the systems has no cell."""
    have = {(cell.target, cell.system) for cell in cells}
    return tuple(target for target in targets if any((target, system) not in have for system in systems))


def _by_target(cells: Iterable[Cell], system: str) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.system == system:
            found[cell.target].append(cell)
    return found


def _labels(cells: Iterable[Cell], system: str) -> tuple[int | None, ...]:
    found = {cell.labels for cell in cells if cell.system == system}
    return (*sorted(labels for labels in found if labels is not None), *([None] if None in found else []))


def _seeds(cells: Iterable[Cell], system: str) -> tuple[int, int]:
    counts = [len(own) for own in _by_target(cells, system).values()]
    return min(counts), max(counts)


def _cost(cells: Iterable[Cell], system: str, cost: Callable[[Cell], float]) -> float:
    """The mean over targets of the mean over seeds."""
    means = [sum(map(cost, own)) / len(own) for own in _by_target(cells, system).values()]
    return sum(means) / len(means)


def _parameters(cell: Cell) -> float:
    return cell.trained_parameters


def _bytes(cell: Cell) -> float:
    return cell.stored_bytes


def _seconds(cell: Cell) -> float:
    return cell.seconds
