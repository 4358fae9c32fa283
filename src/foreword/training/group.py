"""A prompt for each collection of a group: what is done is skipped, what was cut goes on, what fails is reported."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.collections.records import Collection
from foreword.common.errors import ForewordError
from foreword.common.files import write_json
from foreword.prompts.store import CARD, StoredPrompt, folder_name
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.processes import on_main
from foreword.training.train import train

logger = logging.getLogger(__name__)

RECORD = "group.json"
"""What became of every collection, in the folder of the prompts."""


@dataclass(frozen=True)
class Trained:
    """What became of one collection.

    Attributes:
        collection: its id.
        status: `trained` in this run (or finished, after a cut), `done` before it, or `failed`.
        prompt: the prompt's folder; empty when it failed.
        error: what went wrong, else empty.
        seconds: of this run.
    """

    collection: str
    status: str
    prompt: str = ""
    error: str = ""
    seconds: float = 0.0


def train_group(
    encoder: SentenceTransformer,
    collections: Sequence[str],
    output: str | Path,
    *,
    load: Callable[[str], Collection],
    config: TrainingConfig | None = None,
    start: StoredPrompt | StartConfig | None = None,
    resume: bool = True,
    quiet: bool = False,
    on_trained: Callable[[Trained], None] | None = None,
) -> list[Trained]:
    """Train a prompt for every collection, each in its own folder of `output`, which is a bank then.

    Args:
        encoder: from `load_encoder`.
        collections: ids; one is loaded at a time.
        output: folder of the prompts; `group.json` there says what became of each collection.
        load: gives a collection, with the splits to train by, of its id.
        config: the settings of all.
        start: where all start; from one start, prompts can be averaged and compared.
        resume: False: train all of them anew.
        quiet: no progress bars.
        on_trained: called after each collection.

    Returns:
        What became of each, in order. A collection that fails does not stop the others.

    Raises:
        ForewordError: two collections would share a folder.
    """
    output = Path(output)
    folders = {name: output / folder_name(name) for name in collections}
    if len(set(folders.values())) < len(collections):
        raise ForewordError("two of the collections have the same folder name, or one is given twice; train them apart")
    done: list[Trained] = []
    for name, folder in folders.items():
        began = time.monotonic()
        finished = resume and (folder / CARD).exists()
        try:
            train(encoder, load(name), folder, domain=name, config=config, start=start, resume=resume, quiet=quiet)
            result = Trained(name, "done" if finished else "trained", str(folder), seconds=_since(began))
        except Exception as error:
            logger.debug("training on %s failed", name, exc_info=True)
            result = Trained(name, "failed", error=_said(error), seconds=_since(began))
        done.append(result)
        on_main(lambda: write_json(output / RECORD, {"collections": [asdict(entry) for entry in done]}))
        if on_trained is not None:
            on_trained(result)
    return done


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)


def _said(error: Exception) -> str:
    """The message; its type too where it is not one of ours, whose messages speak for themselves."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ForewordError) else f"{type(error).__name__}: {text}"


def failures(results: Sequence[Trained]) -> list[dict[str, Any]]:
    """The collections that failed, as JSON values."""
    return [asdict(result) for result in results if result.status == "failed"]
