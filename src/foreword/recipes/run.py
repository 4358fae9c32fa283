"""Run a recipe: its steps in order, each of which goes on where it was cut, and the check that something was learnt."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foreword.common.errors import ForewordError, UnknownNameError
from foreword.common.files import write_json
from foreword.downloads import Transport, data_folder
from foreword.downloads.resources import DEFAULT
from foreword.recipes.recipe import STEPS, Recipe, Stage, stages

FORMAT = "foreword-recipe/1"
RECORD = "recipe.json"
MINIATURE_DATA = "miniature-data"
"""Below the output."""


def run_recipe(
    recipe: Recipe,
    output: str | Path,
    *,
    data: Path | None = None,
    values: str = "as-took-effect",
    miniature: bool = False,
    steps: Sequence[str] | None = None,
    multitask: Path | None = None,
    bank: Path | None = None,
    transport: Transport = DEFAULT,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run a recipe, or its miniature. Finished prompts and scores found in `output` are used again.

    Into `output` come `multitask/` (a prompt), `prompts/` and `transferred/` (banks), `tables/<group>/` with the
    runs and `group.json`, `tables/<group>.md` and `.csv`, `recipe.json`: configuration, versions, seconds, prompts,
    checks and means; and `report.html`.

    Args:
        recipe: from `load_recipe`.
        output: the folder, made when missing.
        data: the data folder (see `foreword.downloads.data_folder`); a miniature makes its own, in `output`.
        values: `as-written` or `as-took-effect`.
        miniature: small data and few steps.
        steps: some of `STEPS`, whose results before them are in `output` already; None: all that the recipe has.
        multitask: the folder of a multitask prompt, instead of training one.
        bank: the folder of the domains' prompts, instead of training them.
        transport: of the downloads.
        quiet: no progress.

    Returns:
        What `recipe.json` holds.

    Raises:
        UnknownNameError: no such values or step.
        BackboneError: the backbone is not to be had; said before anything is downloaded.
        DataError: data are missing or broken.
        ForewordError: a prompt failed, or a check: it says which, with the figures, after all was written.
    """
    from foreword.prompts.store import library_versions
    from foreword.recipes.checks import require
    from foreword.recipes.steps import Work

    resolved = plan(recipe, values=values, miniature=miniature, steps=steps, multitask=multitask, bank=bank, data=data)
    output = Path(output)
    if miniature and data is not None:
        raise ForewordError(f"a miniature makes its own data, in {output / MINIATURE_DATA}; leave out data (--data)")
    place = output / MINIATURE_DATA if miniature else data_folder(data)
    work = Work(recipe, values, miniature, output, place, transport, multitask, bank, quiet)
    began, seconds = time.perf_counter(), {}
    work.load_encoders()
    for step in resolved["steps"]:
        said_at = time.perf_counter()
        if not quiet:
            print(f"[{said_at - began:5.0f} s] {recipe.name}: {step}", file=sys.stderr, flush=True)
        getattr(work, step)()
        seconds[step] = round(time.perf_counter() - said_at, 2)
    checks = work.checks()
    results: dict[str, Any] = {
        "format": FORMAT,
        **resolved,
        "backbones": work.backbones(),
        "versions": library_versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": {**seconds, "all": round(time.perf_counter() - began, 2)},
        "prompts": [prompt.as_dict() for prompt in work.prompts],
        "transfers": work.transfers,
        "checks": [check.as_dict() for check in checks],
        "failures": work.failures,
        "left_out": work.left_out,
        "tables": work.tables,
    }
    _keep(output / RECORD, results)
    write_json(output / RECORD, results)
    work.write_page(results)
    require(checks, recipe.name, str(output / RECORD))
    if work.failures:
        listed = "".join(f"\n  {failure['collection']}: {failure['error']}" for failure in work.failures)
        raise ForewordError(f"{recipe.name}: {len(work.failures)} failed:{listed}")
    return results


def _keep(path: Path, results: dict[str, Any]) -> None:
    """Add what an earlier run of the same configuration recorded of the steps that were not done this time."""
    try:
        before = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # none, or not ours: it is written over
        return
    same = ("format", "recipe", "values", "miniature", "configuration", "evaluation", "report")
    if any(before.get(name) != results[name] for name in same):
        return
    for name, keys in (("prompts", ("domain",)), ("transfers", ("target",)), ("checks", ("prompt", "what"))):
        there = {tuple(entry[key] for key in keys) for entry in results[name]}
        results[name] = [e for e in before[name] if tuple(e[key] for key in keys) not in there] + results[name]
    results["tables"] = {**before["tables"], **results["tables"]}


def plan(
    recipe: Recipe,
    *,
    values: str = "as-took-effect",
    miniature: bool = False,
    steps: Sequence[str] | None = None,
    multitask: Path | None = None,
    bank: Path | None = None,
    data: Path | None = None,
) -> dict[str, Any]:
    """What `run_recipe` would do, as JSON values: the steps, and the settings and collections of each.

    Raises:
        UnknownNameError: no such values or step.
    """
    found = [s for s in stages(recipe, values, miniature=miniature) if not _given(s, multitask, bank)]
    own = ["download", *(stage.step for stage in found), "evaluate"]
    for step in steps or ():
        if step not in own:
            known = STEPS if step not in STEPS else own
            raise UnknownNameError(f"{recipe.name} has no step {step!r}; it has: {', '.join(known)}")
    chosen = [step for step in own if steps is None or step in steps]
    evaluation = recipe.miniature.evaluation if miniature else recipe.evaluation
    resolved = {
        "recipe": recipe.name,
        "title": recipe.title,
        "values": values,
        "miniature": miniature,
        "steps": chosen,
        "data": None if data is None else str(data),
        "multitask": None if multitask is None else str(multitask),
        "bank": None if bank is None else str(bank),
        "configuration": {
            stage.step: {
                "recipe": stage.recipe,
                "collections": list(stage.ids),
                "settings": stage.settings.as_dict(),
            }
            for stage in found
        },
        "evaluation": asdict(evaluation),
        "report": {group: list(ids) for group, ids in recipe.report(miniature=miniature).items()},
        "documents": recipe.miniature.documents if miniature else None,
    }
    as_read_back: dict[str, Any] = json.loads(json.dumps(resolved))  # lists for tuples
    return as_read_back


def _given(stage: Stage, multitask: Path | None, bank: Path | None) -> bool:
    """Whether a step is not done, since its prompts are given."""
    return (stage.step == "pretrain" and bool(multitask or bank)) or (stage.step == "train" and bank is not None)
