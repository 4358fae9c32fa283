"""Run a benchmark of transfer, cell by cell, and write what came of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from foreword.errors import ForewordError, UnknownNameError
from foreword.files import atomic_write, write_json
from foreword.lab.cells import (
    EVIDENCE_FILE,
    METHODS,
    calibration,
    calibration_table,
    ceiling,
    evidence_of,
    few_labels,
    in_budget,
    plain,
    transferred,
    tune,
)
from foreword.lab.page import domain_table, hypothesis_table, summary_table, write_page
from foreword.lab.parts import PARTS
from foreword.lab.plots import draw_all, few_shot_families
from foreword.lab.records import Cell, load_cells
from foreword.lab.rivals import rivals
from foreword.lab.stage import Plan, Stage
from foreword.lab.statistics import judge_hypotheses, summarise
from foreword.prompts.store import library_versions
from foreword.tables import Table


def run_benchmark(
    plan: Plan,
    output: Path,
    *,
    parts: Sequence[str] = PARTS,
    data: Path | None = None,
    backbone: str | None = None,
    quiet: bool = False,
) -> Path:
    """Run the parts asked for; cells that are there with the same settings are left as they are.

    Args:
        plan: what to run.
        output: its folder: `cells/`, `runs/` (TREC), `prompts/`, `vectors/`, and the results.
        parts: of `PARTS`, in any order.
        data: folder of collections.
        backbone: instead of the packaged MiniLM.
        quiet: no lines of progress.

    Returns:
        The page.

    Raises:
        UnknownNameError: no such part.
    """
    if unknown := sorted(set(parts) - set(PARTS)):
        raise UnknownNameError(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    stage = Stage(plan, output, data=data, backbone=backbone, quiet=quiet)
    first, near = plan.seeds[0], stage.here(plan.genre)
    if absent := [name for name in plan.domains if name not in near]:
        raise ForewordError(
            f"not here: {', '.join(absent)}; the group's domains are sources of one another. Install them with: "
            "pip install 'foreword[bench]'"
        )
    if "primary" in parts:
        for target in near:
            plain(stage, target)
        for seed in plan.seeds:
            for target in sorted(near, key=plan.fold_of):
                transferred(stage, target, seed)
    if "far" in parts:
        for target in stage.here():
            if target not in near:
                plain(stage, target)
                transferred(stage, target, first)
    if "ceilings" in parts:
        for target in stage.here():
            ceiling(stage, target, first)
    if "rivals" in parts:
        for seed in plan.seeds:
            rivals(stage, near, seed)
    if "baselines" in parts:
        for method in (name for name in METHODS if name in plan.budget["rates"]):
            rate = tune(stage, method, first)
            for target in near if method in plan.budget["everywhere"] else plan.budget["tuned_on"]:
                in_budget(stage, target, method, rate, first, plan.budget["seconds"])
    if "curve" in parts:
        for method in plan.curve["methods"]:
            rate = tune(stage, method, first)
            for target in plan.budget["tuned_on"]:
                for seconds in plan.curve["seconds"]:
                    in_budget(stage, target, method, rate, first, seconds)
    if "few-shot" in parts:
        for count in plan.few:
            for target in near:
                few_labels(stage, target, count, first)
    if "calibration" in parts:
        calibration(stage, near, first)
    return write_results(plan, output, missing=stage.missing)


def write_results(plan: Plan, output: Path, *, missing: dict[str, str] | None = None) -> Path:
    """Tables, verdicts, plots and the page, from the cells that are there; returns the page."""
    cells = load_cells(output)
    if not cells:
        raise ForewordError(f"{output} holds no cells yet; run the benchmark first")
    near = [name for name in plan.domains if any(cell.target == name for cell in cells)]
    verdicts = judge_hypotheses(cells, plan.hypotheses, near)
    summaries = summarise(cells, near, _systems(cells, near))
    tables = [summary_table(summaries), domain_table(cells, [s for s in _SHOWN if s in _systems(cells, near)], near)]
    tables += _compared(plan, cells, near)
    for genre, names in plan.far.items():
        present = [name for name in names if any(cell.target == name for cell in cells)]
        if present:
            systems = _systems(cells, present)
            tables.append(_titled(summary_table(summarise(cells, present, systems)), f"All systems on {genre}"))
            tables.append(_titled(domain_table(cells, systems, present), f"By domain: {genre}"))
    if (calibrated := calibration_table(output)) is not None:
        tables.append(calibrated)
    families = few_shot_families(cells)
    plots = draw_all(output / "plots", cells, summaries, families)
    page = write_page(output, plan.title, _intro(plan, missing or {}), tables, verdicts, plots)
    parts = [f"# {plan.title}", _intro(plan, missing or {})]
    parts += [table.markdown() for table in (hypothesis_table(verdicts), *tables)]
    with atomic_write(output / "results.md") as file:
        file.write("\n\n".join(part.strip() for part in parts) + "\n")
    write_json(output / EVIDENCE_FILE, evidence_of(cells, output))
    write_json(output / "plan.json", {"plan": plan.as_dict(), "versions": library_versions()})
    return page


def _compared(plan: Plan, cells: Sequence[Cell], near: Sequence[str]) -> list[Table]:
    """The exploratory comparisons, and all methods that were trained in given seconds where each of them was."""
    tables = []
    compared = [verdict for verdict in judge_hypotheses(cells, plan.comparisons, near) if not verdict.missing]
    if compared:
        tables.append(hypothesis_table(compared, "Exploratory comparisons"))
    tuned = [name for name in plan.budget["tuned_on"] if name in near]
    timed = [system for system in _systems(cells, tuned) if _TIMED.fullmatch(system)]
    if tuned and timed:
        shown = [system for system in ("base", "supervised") if system in _systems(cells, tuned)]
        table = summary_table(summarise(cells, tuned, [*shown, *timed]))
        tables.append(_titled(table, f"All labels, by method and seconds, on {', '.join(tuned)}"))
    return tables


_TIMED = re.compile(r".+@[\d.]+s")
"""Systems that were trained in given seconds."""

_SHOWN = ("base", "bm25", "base+bm25", "multitask", "transfer", "transfer+bm25", "supervised")


def _systems(cells: Sequence[Cell], targets: Sequence[str]) -> list[str]:
    """The systems there are, those that every benchmark has first; single sources are in the matrix instead."""
    found = {cell.system for cell in cells if cell.target in targets and not cell.system.startswith("single:")}
    return [*(system for system in _SHOWN if system in found), *sorted(found - set(_SHOWN))]


def _titled(table: Table, title: str) -> Table:
    return replace(table, title=title)


def _intro(plan: Plan, missing: dict[str, str]) -> str:
    text = (
        f"{len(plan.domains)} domains in {plan.folds} folds: a domain's prompts come from the other folds' domains, "
        "whose texts no other domain shares. Means are over domains, seeds averaged first; intervals resample domains, "
        f"then queries. Documents are cut at {plan.document_length} tokens, queries at {plan.query_length}, for all "
        "systems. "
        "The hypotheses were written down before the run; everything else is exploratory."
    )
    left_out = "; ".join(f"{name}: {why}" for name, why in sorted(missing.items()))
    return text + (f"\n\nNot on this machine: {left_out}" if left_out else "")
