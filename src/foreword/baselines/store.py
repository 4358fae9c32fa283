"""Baselines on disk: `weights.safetensors`, `baseline.json`, and `run.json` for what varies from run to run."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from sentence_transformers import SentenceTransformer

from foreword.baselines.change import Change, changed_copy
from foreword.baselines.spec import BaselineSpec
from foreword.common.errors import PromptError
from foreword.common.files import atomic_write, sha256_file, write_json
from foreword.prompts.cards import read_json_card
from foreword.prompts.store import DTYPES, check_backbone, describe_backbone, library_versions

FORMAT = "foreword-baseline/1"
WEIGHTS, CARD, RUN = "weights.safetensors", "baseline.json", "run.json"


@dataclass(frozen=True)
class Baseline:
    """A trained baseline.

    Attributes:
        encoder: a copy of the base model with the best step's values; give it to `foreword.evaluate` and to every
            function that takes an encoder. `save_pretrained` refuses it: load it from `path` with `load_baseline`.
        card: what `baseline.json` says; of equal runs equal.
        run: what `run.json` says: times.
        path: its folder.
    """

    encoder: SentenceTransformer
    card: Mapping[str, Any]
    run: Mapping[str, Any]
    path: Path

    @property
    def spec(self) -> BaselineSpec:
        """What was trained."""
        return BaselineSpec.of(self.card["baseline"])

    @property
    def parameters(self) -> int:
        """Trained parameters, each of which embeddings depend on."""
        return int(self.card["parameters"])

    @property
    def bytes(self) -> int:
        """What is stored for the domain, beside the base model: the size of the weights' file."""
        return int(self.card["bytes"])

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """Evaluations on the dev split: `step`, `dev` (nDCG@10), `loss`; step 0 is the base model."""
        history: Sequence[Mapping[str, Any]] = self.card["metrics"]["dev"]
        return history

    @property
    def best_step(self) -> int:
        """The step whose values were kept."""
        return int(self.card["metrics"]["best_step"])

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return int(self.run["steps"])

    @property
    def seconds(self) -> float:
        """Of the whole training, with evaluations."""
        return float(self.run["seconds"])

    @property
    def training_seconds(self) -> float:
        """Of the training, without evaluations: what a time budget counts."""
        return float(self.run["training_seconds"])


def save_baseline(
    folder: Path,
    change: Change,
    spec: BaselineSpec,
    encoder: SentenceTransformer,
    *,
    dtype: str,
    record: Mapping[str, Any],
    run: Mapping[str, Any],
) -> None:
    """Store what was trained; the card is written last, and without it the folder is no baseline.

    Args:
        folder: made when missing.
        change: its values are rounded to `dtype`.
        spec: its structure.
        encoder: the base model.
        dtype: of the file.
        record: further entries of the card.
        run: what varies from run to run.
    """
    (folder / CARD).unlink(missing_ok=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in sorted(change.stored(DTYPES[dtype]).items())}
    with atomic_write(folder / WEIGHTS, "wb") as file:
        file.write(save(tensors))
    card = {
        "format": FORMAT,
        "baseline": spec.as_dict(),
        "parameters": change.count(),
        "tensors": sorted(tensors),
        "dtype": dtype,
        "bytes": (folder / WEIGHTS).stat().st_size,
        "sha256": sha256_file(folder / WEIGHTS),
        "backbone": describe_backbone(encoder),
        "versions": library_versions(),
        **record,
    }
    write_json(folder / RUN, {"format": FORMAT, "host": platform.node(), **run})
    write_json(folder / CARD, card)


def load_baseline(folder: str | Path, encoder: SentenceTransformer) -> Baseline:
    """Apply a stored baseline to a copy of its base model.

    Raises:
        PromptError: a file is missing, cut or altered, or it was made for another base model.
    """
    folder = Path(folder)
    card, run = read_baseline_card(folder), {}
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256_file(weights) != card["sha256"]:
        raise PromptError(f"{weights} is missing, cut or altered; copy the folder again, whole")
    check_backbone(card, encoder, folder)
    if (folder / RUN).is_file():
        run = read_json_card(folder / RUN, FORMAT, {})
    try:
        made, change = changed_copy(encoder, BaselineSpec.of(card["baseline"]), card["training"]["side"])
        change.assign(change.restored(load_file(weights)))
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise PromptError(f"{folder} cannot be read: {error}") from error
    return Baseline(made, card, run, folder)


def read_baseline_card(folder: str | Path) -> dict[str, Any]:
    """The contents of a baseline's `baseline.json`.

    Raises:
        PromptError: there is none, or it is not one.
    """
    fields = {"baseline": dict, "parameters": int, "bytes": int, "sha256": str, "backbone": dict, "training": dict}
    try:
        return read_json_card(Path(folder) / CARD, FORMAT, {**fields, "metrics": dict})
    except FileNotFoundError:
        raise PromptError(f"{folder} is no baseline: it has no {CARD} (a training that was cut leaves none)") from None
