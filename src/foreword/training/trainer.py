"""sentence-transformers' trainer, set up for prompts: only what is chosen is trained, saved and resumed."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import cos_sim, dot_score
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from foreword.collections.records import TrainingPair
from foreword.common.errors import DataError
from foreword.common.terminal import moves_cursor
from foreword.prompts.encoder import resolve_precision, text_prompt
from foreword.training.config import TrainingConfig
from foreword.training.dev import DevEvaluator
from foreword.training.losses import CorpusContrastiveLoss, CorpusPairs
from foreword.training.processes import on_main, world_size
from foreword.training.sampler import domain_sampler
from foreword.training.trainee import Trainee

CHECKPOINT = "prompt-in-training.safetensors"


class PromptTrainer(SentenceTransformerTrainer):
    """Saves and resumes the trainee alone, in full precision; what is frozen is never written."""

    trainee: Trainee

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.trainee.tensors().items()}
        save_file(tensors, folder / CHECKPOINT)

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        self.trainee.assign(load_file(Path(checkpoint_path) / CHECKPOINT))

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: a prompt's card is its `prompt.json`."""


class StopWhenStale(TrainerCallback):
    """Stop after `patience` evaluations without a better dev score."""

    def __init__(self, evaluator: DevEvaluator, patience: int) -> None:
        self.evaluator, self.patience = evaluator, patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after each evaluation."""
        if self.patience and self.evaluator.dev_sets:
            control.should_training_stop = on_main(lambda: self.evaluator.since_best >= self.patience)


class TimeBudget(TrainerCallback):
    """Stop once so many seconds are spent, and let the learning rate end with them.

    The schedule is where the steps are, or where the time is when that is further. Evaluations measure, they do not
    train: their time is not counted.
    """

    def __init__(self, seconds: float, began: float, evaluator: DevEvaluator) -> None:
        """`began` is the `time.monotonic()` from which seconds are counted."""
        self.seconds, self.began, self.evaluator = seconds, began, evaluator

    def spent(self) -> float:
        """Seconds spent, without evaluations."""
        return time.monotonic() - self.began - self.evaluator.seconds

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        lr_scheduler: Any = None,
        **_: Any,
    ) -> None:
        """Called after each step, when the schedule has moved by one."""
        share = on_main(self.spent) / self.seconds
        if share >= 1:
            control.should_training_stop = True
        elif lr_scheduler is not None:
            lr_scheduler.last_epoch = max(lr_scheduler.last_epoch, int(share * state.max_steps))


def build_trainer(
    encoder: SentenceTransformer,
    trainee: Trainee,
    data: Mapping[str, Sequence[TrainingPair]],
    corpus: Mapping[str, CorpusPairs] | None,
    evaluator: DevEvaluator,
    folder: Path,
    config: TrainingConfig,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    checkpoints: bool = True,
    quiet: bool,
) -> PromptTrainer:
    """The trainer of one prompt, which the encoder carries and is routed to, or of other parameters in it.

    Args:
        encoder: to train in.
        trainee: the only parameters that are trained.
        data: training pairs by domain.
        corpus: for query-side training, the same pairs against fixed document vectors; None: both sides.
        evaluator: run at step 0 and every `config.evaluate_every` steps.
        folder: of checkpoints.
        config: the settings.
        callbacks: further ones.
        checkpoints: keep one at each evaluation, to go on from.
        quiet: no progress bar.
    """
    encoder.requires_grad_(False)
    trained = trainee.part("query") if corpus is not None else None
    for parameter in trainee.parameters() if trained is None else trained.values():
        parameter.requires_grad_(True)
    tasks = {"query": "query", "document": "document"}
    datasets = _datasets(data, config, with_documents=corpus is None)
    tasks |= {name: "document" for dataset in datasets.values() for name in dataset.column_names if "negative" in name}
    lengths = {"query": config.query_length, "document": config.document_length}

    def preprocess(inputs: list[str], prompt: str | None = None, task: str | None = None) -> dict[str, Any]:
        features: dict[str, Any] = encoder.preprocess(
            inputs,
            prompt=prompt,
            task=task,
            max_length=min(lengths[task or "query"], encoder.max_seq_length or 10**9),
        )
        return features

    text_prompts = {column: text_prompt(encoder, "query" if column == "query" else "document") for column in tasks}
    trainer = PromptTrainer(
        model=encoder,
        args=_arguments(folder, config, encoder, datasets, checkpoints, quiet),
        train_dataset=datasets,
        loss=_loss(encoder, corpus, config),
        evaluator=evaluator,
        data_collator=SentenceTransformerDataCollator(
            preprocess_fn=preprocess,
            router_mapping=tasks,
            prompts={column: text for column, text in text_prompts.items() if text},
        ),
        callbacks=[StopWhenStale(evaluator, config.patience), *callbacks],
    )
    trainer.trainee = trainee
    trainer.remove_callback(PrinterCallback)
    if quiet or not moves_cursor():
        trainer.remove_callback(ProgressCallback)
    return trainer


def _datasets(data: Mapping[str, Sequence[TrainingPair]], config: TrainingConfig, *, with_documents: bool) -> Any:
    """A table a domain: `query`, `document` and its hard negatives; or `query` and `label`, a pair's number."""
    from datasets import Dataset, DatasetDict

    tables: dict[str, Any] = {}
    start = 0
    for domain, pairs in data.items():
        columns: dict[str, list[Any]] = {"query": [pair.query for pair in pairs]}
        if with_documents:
            columns["document"] = [pair.document for pair in pairs]
            for i, texts in enumerate(_hard_negatives(pairs, config)):
                columns[f"negative_{i + 1}"] = texts
        else:
            columns["label"] = list(range(start, start + len(pairs)))
            start += len(pairs)
        if with_documents and len(pairs) < 2:
            raise DataError(f"{domain} has {len(pairs)} training pair; in-batch negatives need at least 2")
        tables[domain] = Dataset.from_dict(columns)
    return DatasetDict(tables)


def _hard_negatives(pairs: Sequence[TrainingPair], config: TrainingConfig) -> list[list[str]]:
    """Columns of hard negatives: as many as at least half of the pairs have, up to `config.hard_negatives`.

    Tables have no gaps: a pair with fewer gets documents of other pairs, as random as its in-batch negatives.
    """
    counts = sorted((len(pair.negatives) for pair in pairs), reverse=True)
    width = min(config.hard_negatives, counts[(len(counts) - 1) // 2] if counts else 0)
    chance = random.Random(config.seed)
    positives: dict[str, set[str]] = {}
    for pair in pairs:
        positives.setdefault(pair.query_id, set()).add(pair.document)

    def filled(pair: TrainingPair) -> list[str]:
        chosen = list(pair.negatives[:width])
        while len(chosen) < width:
            other = pairs[chance.randrange(len(pairs))].document
            if other not in positives[pair.query_id] or len(positives) < 2:
                chosen.append(other)
        return chosen

    return [list(column) for column in zip(*map(filled, pairs), strict=True)] if width else []


def _distinct(table: Any) -> int:
    """How many rows without a repeated text there are, at most: what a batch without duplicates is made of."""
    return min(len(set(table[name])) for name in table.column_names)


def _loss(encoder: SentenceTransformer, corpus: Mapping[str, CorpusPairs] | None, config: TrainingConfig) -> Any:
    cosine = encoder.similarity_fn_name == "cosine"
    if corpus is not None:
        return CorpusContrastiveLoss(
            encoder,
            corpus,
            temperature=config.temperature,
            cosine=cosine,
            limit=config.corpus_negatives,
            seed=config.seed,
        )
    arguments: dict[str, Any] = {
        "scale": 1 / config.temperature,
        "similarity_fct": cos_sim if cosine else dot_score,
        "gather_across_devices": config.gather_negatives and world_size() > 1,
    }
    if config.mini_batch_size < config.batch_size:  # the same gradient in bounded memory, for one more forward pass
        return CachedMultipleNegativesRankingLoss(encoder, mini_batch_size=config.mini_batch_size, **arguments)
    return MultipleNegativesRankingLoss(encoder, **arguments)


def _arguments(
    folder: Path,
    config: TrainingConfig,
    encoder: SentenceTransformer,
    datasets: Any,
    checkpoints: bool,
    quiet: bool,
) -> SentenceTransformerTrainingArguments:
    precision = resolve_precision(config.precision, encoder.device)
    every = config.evaluate_every if 0 < config.evaluate_every <= config.steps else config.steps
    # Losses are averaged since the last one shown: at checkpoints too, so that a resumed run shows the same ones.
    shown = config.log_every or max(n for n in range(1, max(1, min(10, config.steps // 10)) + 1) if every % n == 0)
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=round(config.warmup * config.steps),
        weight_decay=0.0,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=encoder.device.type == "cpu",
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        multi_dataset_batch_sampler=domain_sampler(config.domain_temperature),
        dataloader_drop_last=world_size() > 1
        or all(_distinct(table) >= config.batch_size for table in datasets.values()),
        # Every trained tensor has a part in every step, but not in every small backward pass of GradCache.
        ddp_find_unused_parameters=config.mini_batch_size < config.batch_size,
        eval_strategy="steps",
        eval_steps=every,
        eval_on_start=True,
        save_strategy="steps" if checkpoints else "no",
        save_steps=every,
        save_total_limit=1,
        logging_strategy="steps",
        logging_steps=shown,
        report_to=config.report_to.split(","),
        seed=config.seed,
        data_seed=config.seed,
        disable_tqdm=quiet or not moves_cursor(),
        log_level="error",
    )


logging.getLogger("accelerate").setLevel(logging.ERROR)
