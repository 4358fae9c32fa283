"""Train a baseline on the trainer, the data and the measure that prompts are trained with."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.baselines.change import changed_copy
from foreword.baselines.spec import BaselineSpec, Method, baseline_config
from foreword.baselines.store import CARD, Baseline, load_baseline, read_baseline_card, save_baseline
from foreword.collections.records import Collection, TrainingPair
from foreword.common.errors import ForewordError, OtherTrainingError
from foreword.prompts.encoder import state_digest
from foreword.training.config import TrainingConfig
from foreword.training.identity import identity_of, text_settings
from foreword.training.loop import WORK, pairs_of, run_training
from foreword.training.processes import join, on_main, world_size
from foreword.training.vectors import DocumentVectors


def train_baseline(
    encoder: SentenceTransformer,
    collections: Collection | Sequence[Collection],
    output: str | Path,
    *,
    method: Method,
    rank: int = 8,
    alpha: float | None = None,
    targets: tuple[str, ...] | str | None = None,
    bottleneck: int = 16,
    domain: str | None = None,
    config: TrainingConfig | None = None,
    documents: Mapping[str, DocumentVectors] | None = None,
    pairs: Mapping[str, Sequence[TrainingPair]] | None = None,
    seconds: float | None = None,
    resume: bool = True,
    quiet: bool = False,
) -> Baseline:
    """Train one on the training split of one collection, or of several, and store it.

    Batches, loss, lengths, precision, schedule, dev sets and the choice of the best step are those of
    `foreword.training.train.train` with the same settings; the backbone's dropout is off, as there. A copy of the
    encoder is trained. Differences that prompts do not have: nothing is kept to go on from after a cut.

    Args:
        encoder: from `foreword.load_encoder`; left as it is, its prompts play no part.
        collections: what to train on.
        output: the baseline's folder. A finished training of the same settings found there is returned.
        method: see `BaselineSpec`, as for `rank`, `alpha`, `targets` and `bottleneck`.
        rank: of LoRA's updates.
        alpha: of LoRA.
        targets: of LoRA.
        bottleneck: width of an adapter.
        domain: its name; None: the collection's id, or `multitask` for several.
        config: the settings; None: `baseline_config(method)`. Its `side` says whether documents are changed too;
            `query` alone for `linear-query`. Mind the learning rate: `TrainingConfig`'s own default is for prompts.
        documents: for query-side training, vectors by collection id, instead of embedding its documents.
        pairs: training pairs by collection id, instead of the collection's own training split.
        seconds: stop after so many, even before the steps end, evaluations on the dev split not counted; the
            learning rate's schedule ends with them. None: no limit.
        resume: False: train anew, whatever is there.
        quiet: no progress bars.

    Raises:
        DataError: a collection has no training pairs, or `documents` lack one of its documents.
        BackboneError: the backbone has nothing of the kind.
        OtherTrainingError: `output` holds a training of other settings.
        ForewordError: settings that do not go together, LoRA without PEFT, or values that grew beyond all bounds.
    """
    spec = BaselineSpec(method, rank, alpha, targets, bottleneck)
    config = config or baseline_config(method)
    _check(spec, config, seconds)
    sources = [collections] if not isinstance(collections, Sequence) else list(collections)
    data = pairs_of(sources, pairs, config)
    domain = domain or (sources[0].id if len(sources) == 1 else "multitask")
    config = config.with_steps(sum(map(len, data.values())), world_size())
    output = Path(output)
    join(encoder.device)
    identity = identity_of(
        encoder, sources, data, domain, config,
        start={"from": "base"}, documents=documents, pairs=pairs, seconds=seconds,
    )  # fmt: skip
    if on_main(lambda: _claim(output, {"baseline": spec.as_dict(), **identity}, resume)):
        return load_baseline(output, encoder)
    began = time.time()
    digest = state_digest(encoder)
    made, change = changed_copy(encoder, spec, config.side, seed=config.seed)
    course = run_training(
        made, sources, data, change, output / WORK, config,
        route=None, document_route=None, documents=documents or {}, seconds=seconds, checkpoints=False, quiet=quiet,
    )  # fmt: skip
    if state_digest(encoder) != digest:
        raise ForewordError("the encoder changed while its copy was trained; this is a bug, please report it")
    evaluator = course.evaluator
    record = {
        **identity,
        "metrics": {"dev": evaluator.history, "best_step": evaluator.best_step, "loss": course.losses},
        "text": text_settings(encoder, config),
    }
    finished = {
        "seconds": round(time.time() - began, 3),
        "steps": course.steps,
        "training_seconds": course.seconds,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

    def store() -> None:
        change.assign(evaluator.best_tensors())
        save_baseline(output, change, spec, encoder, dtype=config.dtype, record=record, run=finished)
        shutil.rmtree(output / WORK)

    on_main(store)
    return load_baseline(output, encoder)


def _check(spec: BaselineSpec, config: TrainingConfig, seconds: float | None) -> None:
    if spec.method == "linear-query" and config.side != "query":
        raise ForewordError(f"linear-query changes queries alone; its side is 'query', not {config.side!r}")
    if config.document_side != "base":
        raise ForewordError(
            f"a baseline starts from the base model; document_side is 'base', not {config.document_side!r}"
        )
    if seconds is not None and not seconds > 0:
        raise ForewordError(f"seconds is {seconds}; it is above 0")


def _claim(output: Path, identity: Mapping[str, Any], resume: bool) -> bool:
    """Whether `output` holds the finished training; else it is made ready."""
    if (output / CARD).exists() and resume:
        card = read_baseline_card(output)
        # As JSON reads it back, so that tuples and lists compare equal.
        if all(card.get(key) == value for key, value in json.loads(json.dumps(identity)).items()):
            return True
        raise OtherTrainingError(
            f"{output} holds a baseline trained with other settings or data; choose another folder, or resume=False"
        )
    if (output / WORK).exists():  # cut; there is nothing in it to go on from
        shutil.rmtree(output / WORK)
    return False
