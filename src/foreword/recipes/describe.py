"""A recipe in words: its settings side by side, what it needs, and the command that runs it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from foreword.recipes.needs import SHARE, before, estimate
from foreword.recipes.recipe import TABLES, Recipe
from foreword.recipes.values import TransferValues, Values

_WIDTH = 100  # characters
_EFFECTIVE = "as-took-effect"


def describe(recipe: Recipe) -> str:
    """What a recipe is, for a terminal."""
    blocks = [
        f"{recipe.name}: {recipe.title}",
        _wrapped(recipe.description),
        _listed("from", recipe.source),
        _values(recipe),
        _listed("why the two differ", [f"{name}: {reason}" for name, reason in recipe.differences.items()]),
        _listed("not followed", recipe.notes),
        _runs(recipe),
        _needs(recipe),
        _commands(recipe),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _wrapped(text: str, indent: str = "", first: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()), _WIDTH, initial_indent=first or indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _listed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{title}:", *(_wrapped(line, "    ", "  - ") for line in lines)]) if lines else ""


def _values(recipe: Recipe) -> str:
    """The settings: one column where the tables agree in all of them."""
    tables = [_stated(recipe.full[name]) for name in TABLES]
    small = _stated(recipe.small[_EFFECTIVE])
    columns = ["miniature", _EFFECTIVE] if not recipe.differences else ["miniature", _EFFECTIVE, "as-written"]
    rows = []
    for name in tables[0]:
        cells = [_shown(small[name]) if small[name] != tables[1][name] else "", _shown(tables[1][name])]
        if recipe.differences:
            cells.append(_shown(tables[0][name]) + (" *" if name in recipe.differences else ""))
        rows.append([name, *reversed(cells)])
    return _table(["setting", *reversed(columns)], rows)


def _stated(settings: Values | TransferValues) -> dict[str, Any]:
    """The settings; of epochs and steps, the one that decides."""
    found = settings.as_dict()
    if isinstance(settings, Values):
        found |= {"steps": "by epochs"} if settings.epochs else {"epochs": ""}
    return found


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value) or "-"


def _runs(recipe: Recipe) -> str:
    what = {"pretrain": "one prompt on", "train": "a prompt for each of", "transfer": "transfer to each of"}[
        recipe.step
    ]
    lines = [f"{what} {len(recipe.ids())} collections: {', '.join(recipe.collections)}"]
    settings = recipe.full[_EFFECTIVE]
    if recipe.after:
        new = isinstance(settings, Values) and not settings.start_from
        lines.append(f"{'as written, ' if new else ''}starts from the prompts of {recipe.after}, which are made first")
    groups = [f"{group} ({len(ids)})" for group, ids in recipe.report().items()]
    lines.append(
        f"scored on {' and '.join(groups)}: {', '.join(recipe.evaluation.systems)}; "
        f"{', '.join(recipe.evaluation.measures)}"
    )
    return _listed("what is done", lines)


def _needs(recipe: Recipe) -> str:
    found, needs = estimate(recipe, _EFFECTIVE), recipe.needs
    rates = " and ".join(f"{rate / 1e12:.3g}" for rate in dict.fromkeys(found.rates))
    lines = [
        f"about {needs.gpu_memory_gb:g} GB on the device, {needs.disk_gb:g} GB on the disk ({needs.download_gb:g} GB "
        "to download)",
        f"about {needs.hours:.3g} hours: {found.training_hours:.3g} of training and {found.indexing_hours:.3g} of the "
        f"evaluation, at {rates} TFLOP/s ({SHARE:.0%} of what NVIDIA's data sheet gives an A100)",
    ]
    for other, its in before(recipe, _EFFECTIVE):
        lines.append(f"and those of {other.name} before it: about {its.hours:.3g} hours")
    lines.append("foreword.recipes.needs.measure gives the rate of a machine, and estimate the hours at that rate")
    lines.append(f"assumed: {needs.basis}")
    return _listed("needs (estimates by formula; nothing was measured on such a device)", lines)


def _commands(recipe: Recipe) -> str:
    miniature = f"foreword recipe {recipe.name} --miniature --output runs/{recipe.name}-miniature"
    return (
        f"run it:\n  {recipe.command}\n"
        f"or on small data made here, in about {recipe.miniature.seconds} s on two processor cores:\n  {miniature}"
    )
