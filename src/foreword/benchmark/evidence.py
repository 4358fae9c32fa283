"""What a benchmark's cells say to `foreword advise`: gains on domains whose labels no choice had seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foreword.benchmark.records import BASE, Cell
from foreword.benchmark.statistics import differences, macro_mean
from foreword.common.errors import PromptError
from foreword.prompts.store import folder_name, read_card
from foreword.transferring.evidence import Evidence

FILE = "evidence.json"


def evidence_of(cells: Sequence[Cell], output: Path) -> list[dict[str, Any]]:
    """An entry of `foreword.transferring.evidence` for each target that the default transfer has decided on.

    Where it stayed at the base model, the gain is what the multitask prompt would have brought: what was avoided.
    """
    found = []
    for target in sorted({cell.target for cell in cells if cell.system == "transfer"}):
        own = [cell for cell in cells if cell.target == target]
        decided = next(cell for cell in own if cell.system == "transfer")
        reach = decided.details["reach"]
        gain = _mean(own, "multitask" if decided.decision == BASE else "transfer")
        supervised = [cell for cell in own if cell.system == "supervised"]
        entry = Evidence(
            target=target,
            genre=decided.genre,
            nearness=reach["nearness"],
            limit=reach["limit"],
            within=reach["within"],
            pseudo_gain=None,
            gain=round(gain, 6),
            supervised_gain=round(_mean(own, "supervised"), 6) if supervised else None,
            pairs=_pairs(output, supervised[0]) if supervised else None,
        )
        found.append(asdict(entry))
    return found


def _mean(cells: Sequence[Cell], system: str) -> float:
    """The mean difference from the base model over one target's queries."""
    return macro_mean(differences(cells, system, "base", "nDCG@10"))


def _pairs(output: Path, cell: Cell) -> int | None:
    """Training pairs of the ceiling's prompt; None where its folder is gone."""
    folder = output / "prompts" / f"supervised-seed{cell.seed}" / folder_name(cell.target)
    try:
        data = read_card(folder).get("data") or {}
    except PromptError:
        return None
    return sum(int(entry["pairs"]) for entry in data.values())
