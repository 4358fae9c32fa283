"""The prompts that a benchmark trains, each once: of many sources, of one source, of a target."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.benchmark.stage import Stage
from foreword.collections.folds import FoldCollection
from foreword.collections.records import Collection, TrainingPair
from foreword.common.errors import OtherTrainingError
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import RUN, StoredPrompt, folder_name
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.train import train
from foreword.training.vectors import DocumentVectors


def new_start(stage: Stage, seed: int, **changes: Any) -> StartConfig:
    """What a new prompt is: the plan's, with changes of its spec."""
    return StartConfig(PromptSpec(**{**stage.plan.prompt, **changes}), seed=seed)


def settings(stage: Stage, side: Any, seed: int, values: Mapping[str, Any], *, several: bool = False) -> TrainingConfig:
    """Training settings of the plan, with the benchmark's lengths."""
    common = {
        "query_length": stage.plan.query_length,
        "document_length": stage.plan.document_length,
        "precision": stage.precision,
        "seed": seed,
    }
    return TrainingConfig.default(side, several=several, **{**common, **values})


def trained(
    stage: Stage,
    folder: str,
    collections: Collection | Sequence[Collection],
    name: str,
    config: TrainingConfig,
    start: StoredPrompt | StartConfig,
    *,
    documents: Mapping[str, DocumentVectors] | None = None,
    pairs: Mapping[str, Sequence[TrainingPair]] | None = None,
    seconds: float | None = None,
) -> StoredPrompt:
    """The prompt in `<output>/prompts/<folder>`, trained unless it is there with the same settings."""
    place = stage.output / "prompts" / folder
    how: dict[str, Any] = {
        "domain": name, "config": config, "start": start, "documents": documents, "pairs": pairs,
        "seconds": seconds, "quiet": True,
    }  # fmt: skip
    if not (place / "prompt.json").exists():
        stage.say(f"training {folder}")
    try:
        return train(stage.encoder, collections, place, **how)
    except OtherTrainingError:  # an earlier run's, of other settings or other versions of the packages
        return train(stage.encoder, collections, place, resume=False, **how)


def seconds_of(stored: StoredPrompt) -> float:
    """What its training took."""
    return float(run_of(stored)["seconds"])


def run_of(stored: StoredPrompt) -> dict[str, Any]:
    """How its training went: `seconds`, `training_seconds` (without evaluations), `steps`."""
    assert stored.path is not None
    run: dict[str, Any] = json.loads((Path(stored.path) / RUN).read_text(encoding="utf-8"))
    return run


def multitask(stage: Stage, fold: int, seed: int) -> StoredPrompt:
    """One prompt on all sources of a fold."""
    sources = [stage.source(name) for name in stage.plan.sources(fold)]
    config = settings(stage, "both", seed, stage.plan.multitask, several=True)
    start = new_start(stage, seed)
    return trained(stage, f"fold{fold}-seed{seed}/multitask", sources, "multitask", config, start)


def supervised(stage: Stage, target: str, seed: int, part: FoldCollection | None = None) -> StoredPrompt:
    """The ceiling: the multitask prompt trained further on all of the target's training labels, or of a fold's."""
    start = multitask(stage, stage.plan.fold_of(target), seed)
    config = settings(stage, "both", seed, stage.plan.supervised)
    collection = part or stage.target(target)
    return trained(
        stage, f"supervised-seed{seed}/{folder_name(collection.id)}", collection, collection.id, config, start
    )
