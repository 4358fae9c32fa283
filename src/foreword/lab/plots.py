"""The benchmark's plots, each as PNG and SVG: who helps whom, nearness, few labels, and what gains cost.

Each returns None where the cells hold nothing to draw.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.lab.records import BenchmarkCell
from foreword.lab.statistics import (
    Summaries,
    Summary,
    differences,
    macro_mean,
    only,
    rank_correlation,
    seed_means,
    seed_spread,
)
from foreword.report.plots import (
    EXTREMES,
    LABELLED,
    SOFT,
    End,
    Plot,
    canvas,
    dots,
    draw_curves,
    end_labels,
    gain_axis,
    heat,
    heat_axes,
    label_points,
    log_axis,
    save,
    settle,
    short_names,
    signed,
    standing_out,
    value_axis,
)

SINGLE = "single:"
"""Systems with the prompt of one source are named `single:<source>`."""

_NO_LABELS, _LABELS = "without labels of the target", "with labels of the target"
_FEW_SHOT = re.compile(r"(?P<family>.+)@(?P<labels>\d+|all)")


def transfer_matrix(
    folder: Path | str,
    cells: Sequence[BenchmarkCell],
    targets: Sequence[str],
    *,
    baseline: str = "base",
    measure: str = "nDCG@10",
) -> Plot | None:
    """Sources by targets: what each single source's prompt gives over the baseline."""
    gains = _domain_means(cells, _singles(cells), targets, baseline, measure)
    sources = sorted({system.removeprefix(SINGLE) for system, _ in gains}, key=_order_like(targets))
    columns = [target for target in targets if any((SINGLE + source, target) in gains for source in sources)]
    if not gains:
        return None
    most = max(abs(value) for value in gains.values()) or 1.0
    width, height = max(5.6, 2.6 + 0.52 * len(columns)), 1.7 + 0.3 * len(sources)
    with canvas(width, height) as (figure, axes):
        axes.grid(False)
        heat(axes, [[gains.get((SINGLE + source, target)) for target in columns] for source in sources], most)
        heat_axes(axes, sources, columns, ("source of the prompt", "target (held out)"))
        title = f"Gain in {measure} by source and target"
        axes.set_title(title)
        caption = (
            f"Difference in {measure} from {baseline} when one source's prompt is used as it is: blue is better, "
            "orange is worse. Grey: not run, or the target itself."
        )
        data = [
            {"source": system.removeprefix(SINGLE), "target": target, "difference": value}
            for (system, target), value in sorted(gains.items())
        ]
        return save(figure, folder, "transfer-matrix", title, caption, data)


def gain_by_similarity(
    folder: Path | str,
    cells: Sequence[BenchmarkCell],
    targets: Sequence[str],
    systems: Sequence[str] | None = None,
    *,
    baseline: str = "base",
    measure: str = "nDCG@10",
) -> Plot | None:
    """Gain over the baseline against similarity, a point for each system and target that has one.

    Args:
        folder: for the files.
        cells: with `similarity`.
        targets: to be drawn.
        systems: None: every single source, which makes a point of each source and target.
        baseline: what gains are over.
        measure: of the gains.
    """
    chosen = _singles(cells) if systems is None else list(systems)
    near = _similarities(cells)
    gains = _domain_means(cells, chosen, targets, baseline, measure)
    keys = sorted(key for key in gains if key in near)
    if not keys:
        return None
    points = [(near[key], gains[key]) for key in keys]
    genres = {cell.target: cell.genre for cell in cells}
    rho = rank_correlation(*map(list, zip(*points, strict=True)))
    with canvas(7.0, 4.6) as (figure, axes):
        for place, genre in enumerate(sorted({genres[target] for _, target in keys})):
            own = [point for point, key in zip(points, keys, strict=True) if genres[key[1]] == genre]
            dots(axes, own, place, genre)
        gain_axis(axes, measure, baseline)
        axes.margins(0.1)
        axes.set_xlabel("similarity of the target's documents to the source's (cosine)")
        title = f"Gain in {measure} against similarity"
        axes.set_title(title)
        figure.legend(loc="outside lower center", ncols=4, title="genre of the target")
        settle(figure)
        names = _point_names(keys, with_system=len(chosen) > 1)
        label_points(axes, points, {number: names[number] for number in standing_out([gain for _, gain in points])})
        correlated = "" if rho is None else f" Spearman's rank correlation {signed(rho)} over {len(points)} points."
        some = f" Named: the {EXTREMES} points at each end." if len(points) > LABELLED else ""
        caption = f"A point is a source (or system) and a target; difference from {baseline}.{correlated}{some}"
        data = [
            {"system": system, "target": target, "similarity": x, "difference": y}
            for (system, target), (x, y) in zip(keys, points, strict=True)
        ]
        return save(figure, folder, "gain-by-similarity", title, caption, data)


def few_shot_families(cells: Sequence[BenchmarkCell]) -> dict[str, dict[str, str]]:
    """Families of systems named `<family>@<labels>`: family -> labels as text -> system.

    A system with the family's bare name and no labels is its point at 0.
    """
    families: dict[str, dict[str, str]] = {}
    for system in sorted({cell.system for cell in cells}):
        if found := _FEW_SHOT.fullmatch(system):
            families.setdefault(found["family"], {})[found["labels"]] = system
    for cell in cells:
        if cell.system in families and cell.labels == 0:
            families[cell.system].setdefault("0", cell.system)
    return families


def few_shot_curves(
    folder: Path | str,
    cells: Sequence[BenchmarkCell],
    targets: Sequence[str],
    families: Mapping[str, Mapping[str, str]] | None = None,
    *,
    baseline: str = "base",
    measure: str = "nDCG@10",
) -> Plot | None:
    """Means over targets by number of labels, a curve for each family, over the targets that all points have.

    Args:
        folder: for the files.
        cells: of all systems.
        targets: to be averaged over.
        families: as `few_shot_families` gives, which is the default; add systems of other names here.
        baseline: a level line, where it covers the targets.
        measure: drawn.
    """
    families = few_shot_families(cells) if families is None else families
    means = {s: seed_means(cells, s, measure) for points in families.values() for s in points.values()}
    shared = [target for target in targets if all(target in own for own in means.values())]
    if not means or not shared:
        return None
    levels = sorted({labels for points in families.values() for labels in points}, key=_label_order)
    data = [
        {
            "family": family,
            "labels": labels,
            "system": points[labels],
            "value": macro_mean(only(means[points[labels]], shared)),
            "spread": seed_spread(cells, points[labels], measure, shared),
        }
        for family, points in families.items()
        for labels in sorted(points, key=_label_order)
    ]
    level = only(seed_means(cells, baseline, measure), shared)
    with canvas(7.0, 4.2) as (figure, axes):
        if len(level) == len(shared):
            axes.axhline(macro_mean(level), color=SOFT, linestyle=(0, (5, 3)), linewidth=1.2, zorder=1)
        ends = draw_curves(axes, data, levels)
        if len(level) == len(shared):
            ends.append(End(len(levels) - 1, macro_mean(level), baseline, SOFT))
        value_axis(axes, f"{measure}, mean over {len(shared)} targets")
        axes.set_xticks(range(len(levels)), levels)
        axes.set_xlim(-0.3, len(levels) - 0.85)
        axes.set_xlabel("training labels of the target (pairs)")
        title = f"{measure} by number of labels"
        axes.set_title(title)
        end_labels(axes, ends, len(levels) - 1)
        caption = (
            f"Means over the {len(shared)} of {len(targets)} targets that every point has; bands are one standard "
            f"deviation over seeds. Dashed: {baseline}."
        )
        return save(figure, folder, "few-shot", title, caption, data)


def gain_by_parameters(folder: Path | str, summaries: Summaries) -> Plot | None:
    """Gain over the baseline against the number of trained parameters, a point for each system."""
    label = "trained parameters (log scale)"
    return _gain_by_cost(folder, summaries, "parameters", label, lambda row: row.trained_parameters)


def gain_by_seconds(folder: Path | str, summaries: Summaries) -> Plot | None:
    """Gain over the baseline against the time to adapt to one target, a point for each system."""
    label = "time to adapt to one target (seconds, log scale)"
    return _gain_by_cost(folder, summaries, "seconds", label, lambda row: row.seconds)


def draw_all(
    folder: Path | str,
    cells: Sequence[BenchmarkCell],
    summaries: Summaries,
    families: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Plot]:
    """Every plot that there is something for, in the page's order."""
    targets = summaries.targets
    same: dict[str, Any] = {"baseline": summaries.baseline, "measure": summaries.measures[0]}
    plots = [
        transfer_matrix(folder, cells, targets, **same),
        gain_by_similarity(folder, cells, targets, **same),
        few_shot_curves(folder, cells, targets, families, **same),
        gain_by_parameters(folder, summaries),
        gain_by_seconds(folder, summaries),
    ]
    return [plot for plot in plots if plot is not None]


def _gain_by_cost(
    folder: Path | str, summaries: Summaries, what: str, label: str, cost: Callable[[Summary], float]
) -> Plot | None:
    measure, baseline = summaries.measures[0], summaries.baseline
    rows = [(row, row.gain.difference) for row in summaries.rows if row.gain is not None]
    if not rows:
        return None
    groups: dict[str, list[int]] = {}
    for number, (row, _) in enumerate(rows):
        groups.setdefault(_NO_LABELS if row.labels == (0,) else _LABELS, []).append(number)
    with canvas(7.0, 4.8) as (figure, axes):
        places = log_axis(axes, [cost(row) for row, _ in rows])
        points = [(x, gain.mean) for x, (_, gain) in zip(places, rows, strict=True)]
        for x, (_, gain) in zip(places, rows, strict=True):
            axes.plot([x, x], [gain.low, gain.high], color=SOFT, alpha=0.35, linewidth=1.3, zorder=2)
        for place, (name, own) in enumerate(groups.items()):
            dots(axes, [points[number] for number in own], place, name)
        gain_axis(axes, measure, baseline)
        axes.set_xlabel(label)
        title = f"Gain in {measure} against {'trained parameters' if what == 'parameters' else 'time'}"
        axes.set_title(title)
        figure.legend(loc="outside lower center", ncols=2)
        settle(figure)
        label_points(axes, points, {number: row.system for number, (row, _) in enumerate(rows)})
        caption = (
            f"Means over {len(summaries.targets)} targets, differences from {baseline}, with 95 % bootstrap intervals "
            "(domains and queries drawn). 0 stands left of the broken axis; points that would cover one another "
            "are moved a little to the sides."
        )
        data = [
            {"system": row.system, what: cost(row), "difference": gain.mean, "low": gain.low, "high": gain.high}
            for row, gain in rows
        ]
        return save(figure, folder, f"gain-by-{what}", title, caption, data)


def _singles(cells: Sequence[BenchmarkCell]) -> list[str]:
    """The systems with one source's prompt."""
    return sorted({cell.system for cell in cells if cell.system.startswith(SINGLE)})


def _domain_means(
    cells: Sequence[BenchmarkCell], systems: Sequence[str], targets: Sequence[str], baseline: str, measure: str
) -> dict[tuple[str, str], float]:
    """The mean difference from the baseline by system and target."""
    return {
        (system, target): macro_mean({target: values})
        for system in systems
        for target, values in only(differences(cells, system, baseline, measure), targets).items()
    }


def _similarities(cells: Sequence[BenchmarkCell]) -> dict[tuple[str, str], float]:
    """The mean over seeds by system and target, where there is one."""
    found: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        if cell.similarity is not None:
            found.setdefault((cell.system, cell.target), []).append(cell.similarity)
    return {key: math.fsum(values) / len(values) for key, values in found.items()}


def _order_like(targets: Sequence[str]) -> Callable[[str], tuple[int, str]]:
    """Sort key: names in the order of the targets, others after them by name."""
    return lambda name: (targets.index(name) if name in targets else len(targets), name)


def _label_order(labels: str) -> float:
    return math.inf if labels == "all" else int(labels)


def _point_names(keys: Sequence[tuple[str, str]], *, with_system: bool) -> list[str]:
    """`source → target`, or the target alone, of each system and target."""
    pairs = [(system.removeprefix(SINGLE), target) for system, target in keys]
    short = short_names(name for pair in pairs for name in pair)
    return [f"{short[source]} → {short[target]}" if with_system else short[target] for source, target in pairs]
