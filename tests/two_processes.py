"""A command and trainings for `test_training_processes.py`, which torchrun runs in two processes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny import toy_collection

from foreword.cli import main as command_line
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.train import train
from foreword.training.trainee import is_main, world_size
from foreword.training.trainer import PromptTrainer


def main(backbone: str, output: str, settings: str, *command: str) -> None:
    """Run Foreword's command, then train once for each of the settings; what is seen goes to `rank<n>.json`."""
    torch.set_num_threads(1)
    assert command_line(command) == 0  # first, so that it is what joins the processes
    results = [train_once(backbone, f"{output}/{number}", given) for number, given in enumerate(json.loads(settings))]
    Path(output, f"rank{0 if is_main() else 1}.json").write_text(json.dumps(results))


def train_once(backbone: str, output: str, given: dict[str, Any]) -> dict[str, Any]:
    encoder = load_encoder(backbone, device="cpu")
    sides = given.pop("sides")
    config = replace(TrainingConfig.default("both", several=True), precision="float32", dtype="float32", **given)
    collections = [toy_collection("toy/one"), toy_collection("toy/two", seed=1)]
    seen: list[Any] = []
    step = PromptTrainer.training_step

    def record(trainer: PromptTrainer, model: Any, inputs: Any, *rest: Any) -> Any:
        loss = step(trainer, model, inputs, *rest)
        ids = {key: value.tolist() for key, value in inputs.items() if key.endswith("input_ids")}
        gradients = {name: p.grad.tolist() for name, p in trainer.trainee.named_parameters() if p.grad is not None}
        seen.append({"inputs": ids, "gradients": gradients})
        return loss

    start = StartConfig(PromptSpec("prefix", 4, sides=sides), "words")
    PromptTrainer.training_step = record  # type: ignore[method-assign]
    try:
        stored = train(encoder, collections, output, config=config, start=start, quiet=True)
    finally:
        PromptTrainer.training_step = step  # type: ignore[method-assign]
    return {
        "steps": seen,
        "digest": stored.card["digest"],
        "world": world_size(),
        "dev": stored.card["metrics"]["dev"],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
