"""Figures for a model card: what `foreword evaluate --json` printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.common.errors import DataError


@dataclass(frozen=True)
class Figures:
    """What a prompt scores on one split of one collection; `measures` are named as ir_measures does."""

    collection: str
    split: str
    measures: Mapping[str, float]
    supervision: str
    """By which labels the prompt was trained; `unknown` where it is not said."""
    seen_by_backbone: bool | None
    """Whether the backbone was trained on the collection; None: not known."""


def read_results(paths: Iterable[str | Path], folder: Path) -> list[Figures]:
    """Read results of the prompt in `folder`, or of prompts in the bank there.

    Raises:
        DataError: a file is none that `foreword evaluate --json` wrote, or is about another prompt.
    """
    return [_read(Path(path), folder) for path in paths]


def _read(path: Path, folder: Path) -> Figures:
    try:
        result: Any = json.loads(path.read_text(encoding="utf-8"))
        figures = Figures(
            str(result["collection"]),
            str(result["split"]),
            {str(name): float(value) for name, value in result["measures"].items()},
            str(result.get("supervision") or "unknown"),
            result.get("seen_by_backbone"),
        )
        of, system = str(result["prompt"]), str(result.get("system", "dense"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"cannot be read: {error}", path=path) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        expected = "expected what `foreword evaluate COLLECTION --prompt PROMPT --json` prints"
        raise DataError(f"{expected}; this lacks or mistakes {error}", path=path) from error
    if of == "none" or not Path(of).resolve().is_relative_to(folder.resolve()):
        message = f"its figures are of {of!r}, not of {folder}; evaluate that prompt, from this folder"
        raise DataError(message, path=path)
    if system != "dense":
        raise DataError(f"its figures are of {system}, not of the prompt alone; evaluate it by dense search", path=path)
    return figures


def metric_id(measure: str) -> str:
    """A measure's name as the hub and mteb write it: `nDCG@10` is `ndcg_at_10`."""
    return re.sub(r"\W+", "_", measure.lower().replace("@", "_at_"))
