"""Nine small domains, trained in `test_training_group.py`; run as a program, slowly enough to be killed among them."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny import toy_collection

from foreword.collections.supervision import supervise
from foreword.prompts.loading import load_encoder
from foreword.training.config import TrainingConfig
from foreword.training.group import Outcome, train_group
from foreword.training.trainer import PromptTrainer


def train_nine(backbone: Path | str, output: Path | str) -> list[Outcome]:
    config = replace(
        TrainingConfig.default("query"), steps=6, evaluate_every=2, batch_size=8, precision="float32", dev_folds=0
    )
    return train_group(
        load_encoder(str(backbone), device="cpu"),
        [f"toy/{number}" for number in range(9)],
        output,
        load=lambda name: supervise(toy_collection(name, seed=int(name[-1]))),
        config=config,
        together=4,
        quiet=True,
    )


def main(backbone: str, output: str, pause: str) -> None:
    torch.set_num_threads(1)
    step = PromptTrainer.training_step

    def slow(trainer: PromptTrainer, *arguments: Any) -> Any:
        time.sleep(float(pause))
        return step(trainer, *arguments)

    PromptTrainer.training_step = slow  # type: ignore[method-assign]
    train_nine(backbone, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
