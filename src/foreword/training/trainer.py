"""The one path of all trainings: sentence-transformers' trainer, for prompts and for what they are compared with.

Only what is chosen is trained, saved and resumed.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from safetensors.torch import load_file, save
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import BatchSamplers, MultiDatasetDefaultBatchSampler
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import cos_sim, dot_score
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from foreword.collections.collection import TrainingPair
from foreword.errors import DataError, ForewordError
from foreword.files import atomic_write, kept_json, settle, sha256_file, write_json
from foreword.prompts.encoder import resolve_precision, text_prompt
from foreword.prompts.routes import Route
from foreword.terminal import ProgressLines, moves_cursor
from foreword.training.config import TrainingConfig
from foreword.training.dev import BEST, HISTORY, DevEvaluator, DevSet, Scores
from foreword.training.trainee import Trainee, is_main, on_main, world_size
from foreword.training.vectors import DocumentVectors, TrainingData

logger = logging.getLogger(__name__)

WORK = ".foreword-training"
"""The folder, in the output, of checkpoints and of what a training follows from; gone when it is finished."""

CHECKPOINT, STATE = "prompt-in-training.safetensors", "trainer_state.json"
MANIFEST = "whole.json"
"""Written last into a checkpoint: the SHA-256 of its files."""
_BEST = (BEST, HISTORY)


@dataclass(frozen=True)
class TrainingCourse:
    """How a training went.

    Attributes:
        folder: where the values of the step that is kept are.
        history: the evaluations: `step`, `dev` (nDCG@10) and `loss`.
        scores: nDCG@10 of each query, in each of them.
        best_step: the step that is kept.
        choice: why: `by` (`dev`, `folds` or `last`) and the figures.
        losses: `step` and `loss` of the training, where they were recorded.
        parameters: numbers that were trained, of what the trainee has.
        steps: taken in all.
        seconds: spent in this process, the embedding of documents too, evaluations not.
    """

    folder: Path
    history: Sequence[Mapping[str, Any]]
    scores: Sequence[Scores]
    best_step: int
    choice: Mapping[str, Any]
    losses: Sequence[Mapping[str, Any]]
    parameters: int
    steps: int
    seconds: float

    def best(self) -> dict[str, Tensor]:
        """The values that are kept, rounded as they will be stored."""
        return load_file(self.folder / BEST)

    def metrics(self) -> dict[str, Any]:
        """The curves, for the card of the result."""
        return {"dev": self.history, "best_step": self.best_step, "choice": self.choice, "loss": self.losses}

    def run(self, began: float) -> dict[str, Any]:
        """What `run.json` says of a training that began at `time.time()` and ends now."""
        return {
            "seconds": round(time.time() - began, 2),
            "steps": self.steps,
            "choice": self.choice,
            "training_seconds": self.seconds,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def run_training(
    encoder: SentenceTransformer,
    data: TrainingData,
    trainee: Trainee,
    work: Path,
    config: TrainingConfig,
    *,
    route: Route,
    seconds: float | None,
    checkpoints: bool,
    quiet: bool,
    dev_sets: Mapping[str, DevSet] | None = None,
    last: int | None = None,
) -> TrainingCourse:
    """Train, and keep the best step in `work`; what accelerate leaves on the encoder is taken off again.

    Args:
        encoder: what is trained takes part in its forward pass already.
        data: what is learnt from.
        trainee: what is trained; nothing else is.
        work: folder of checkpoints (it goes on from the last one there) and of the best values.
        config: the settings; its `document_side` says whether `route` embeds the documents once, too.
        route: what evaluations encode by.
        seconds: stop after so many, even before `config.steps`; None: no limit. Evaluations are not counted.
        checkpoints: keep what is needed to go on after a cut.
        quiet: no progress bars.
        dev_sets: what evaluations look at; None: the dev splits of the data.
        last: the step to stop after, on the way to `config.steps`; None: those.

    Raises:
        DataError: a pair's document has no vector.
        ForewordError: the checkpoints in `work` are damaged, or there is no room for another.
    """
    began = time.monotonic()
    checkpoint = on_main(lambda: take_up(work))
    set_seed(config.seed)
    corpus, vectors = None, {}
    if config.side == "query":
        document_route = route if config.document_side == "start" else None
        vectors = data.embedded(encoder, config, document_route, quiet=quiet)
    if dev_sets is None:
        dev_sets = dev_sets_of(data, vectors, config)
    evaluator = DevEvaluator(dev_sets, trainee, route, work, config)
    if vectors:
        corpus = {c.id: corpus_pairs(c.id, data.pairs[c.id], vectors[c.id]) for c in data.sources}
    callbacks: list[TrainerCallback] = [] if last is None else [StopAfter(last)]
    callbacks += [] if seconds is None else [TimeBudget(seconds, began, evaluator)]
    transformer: Any = encoder[0]
    transformer.vectors, cache = None, getattr(transformer, "vectors", None)  # of steps on the way nothing is kept
    try:
        trainer = build_trainer(
            encoder, data.pairs, corpus, evaluator, callbacks=callbacks, checkpoints=checkpoints, quiet=quiet
        )
        parameters = sum(p.numel() for p in trainee.parameters() if p.requires_grad)
        reached = TrainerState() if checkpoint is None else TrainerState.load_from_json(str(checkpoint / STATE))
        limit = config.steps if last is None else last
        ended = checkpoint is not None and (reached.global_step >= limit or evaluator.stale(config.patience))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            with quick_attention(config, encoder.device):
                if ended:  # the trainer takes a step before it looks at how many there are to be
                    trainer._load_from_checkpoint(str(checkpoint))
                    trainer.state = reached
                else:
                    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        spent = time.monotonic() - began - evaluator.seconds
        steps = trainer.state.global_step
        if is_main() and evaluator.history[-1]["step"] < steps:  # the steps end between evaluations
            evaluator(encoder, steps=steps)
    finally:
        # accelerate leaves its mixed precision on the model, and a mark that lets the next training's pass by.
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            encoder.__dict__.pop(name, None)
        transformer.vectors = cache
        encoder.requires_grad_(False)
        encoder.eval()
    losses = [
        {"step": entry["step"], "loss": round(entry["loss"], 5)}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    best, choice = on_main(lambda: evaluator.choice)
    history, scores = evaluator.history, evaluator.scores
    return TrainingCourse(work, history, scores, best, choice, losses, parameters, steps, round(spent, 3))


def seal(work: Path, step: int) -> None:
    """Make a checkpoint whole: with the best values so far and the evaluations, on the disk, and its manifest."""
    folder = work / f"checkpoint-{step}"
    for name in _BEST:
        if (work / name).exists():
            shutil.copyfile(work / name, folder / name)
    digests = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST:
            digests[path.name] = sha256_file(path)
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
    write_json(folder / MANIFEST, digests)
    settle(work)


def take_up(work: Path) -> Path | None:
    """The last whole checkpoint, whose best values and evaluations are put back into `work`; None: begin anew.

    What a kill cut has no manifest, and is removed, as are damaged ones after a whole one.

    Raises:
        ForewordError: checkpoints are damaged, and none is whole.
    """
    whole, damaged, rest = None, [], []
    for path in sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        if (path / MANIFEST).exists() and (broken := _broken(path)):
            damaged.append(broken)
        elif (path / MANIFEST).exists() and whole is None:
            whole = path
            continue
        rest.append(path)
    if damaged and whole is None:
        raise ForewordError(
            f"{damaged[0]} was cut or altered, and there is no whole checkpoint before it to go on from; begin anew "
            "with --no-resume (resume=False)"
        )
    if damaged:
        logger.warning("%s was cut or altered; training goes on from %s", damaged[0], whole)
    for path in rest:
        if whole is None or int(path.name.rpartition("-")[2]) > int(whole.name.rpartition("-")[2]):
            shutil.rmtree(path)
    for name in _BEST:
        (work / name).unlink(missing_ok=True)
        if whole is not None and (whole / name).exists():
            shutil.copyfile(whole / name, work / name)
    return whole


def _broken(checkpoint: Path) -> Path | None:
    """A file of a checkpoint that is not as its manifest has it."""
    digests = kept_json(checkpoint / MANIFEST)
    if not isinstance(digests, dict):
        return checkpoint / MANIFEST
    files = (checkpoint / str(name) for name in digests)
    return next((file for file in files if not file.is_file() or sha256_file(file) != digests[file.name]), None)


def dev_sets_of(
    data: TrainingData,
    vectors: Mapping[str, DocumentVectors],
    config: TrainingConfig,
    splits: Sequence[str] = ("dev",),
) -> dict[str, DevSet]:
    """The dev sets of the collections that have such a split; of another than dev, with all queries."""
    dev = splits == ("dev",)
    how: dict[str, Any] = {"documents": config.dev_documents, "seed": config.seed, "splits": splits}
    found: dict[str, DevSet] = {}
    for c in data.sources:
        trained = frozenset(pair.doc_id for pair in data.pairs[c.id]) if dev else frozenset()
        queries = config.dev_queries if dev else None
        dev_set = DevSet.of(c, queries=queries, vectors=vectors.get(c.id), trained=trained, **how)
        if dev_set is not None:
            found[c.id] = dev_set
    return found


def quick_attention(config: TrainingConfig, device: torch.device) -> AbstractContextManager[None]:
    """The way of torch's attention that trains quickly: its fused one is slow backwards in bfloat16 on processors."""
    slow = device.type == "cpu" and resolve_precision(config.precision, device) == "bfloat16"
    context: AbstractContextManager[None] = sdpa_kernel([SDPBackend.MATH]) if slow else nullcontext()
    return context


def corpus_pairs(name: str, pairs: Sequence[TrainingPair], vectors: DocumentVectors) -> CorpusPairs:
    """Each pair with the rows of all documents relevant to its query, its own first.

    Raises:
        DataError: a pair's document has no vector.
    """
    rows = {doc_id: row for row, doc_id in enumerate(vectors.doc_ids)}
    relevant: dict[str, list[int]] = {}
    for pair in pairs:
        if pair.doc_id not in rows:
            raise DataError(
                f"{name}: training pair {pair.query_id} names document {pair.doc_id!r}, which has no vector"
            )
        relevant.setdefault(pair.query_id, []).append(rows[pair.doc_id])
    positives = [[rows[p.doc_id], *(row for row in relevant[p.query_id] if row != rows[p.doc_id])] for p in pairs]
    return CorpusPairs(torch.as_tensor(vectors.vectors, dtype=torch.float32), positives)


def build_trainer(
    encoder: SentenceTransformer,
    data: Mapping[str, Sequence[TrainingPair]],
    corpus: Mapping[str, CorpusPairs] | None,
    evaluator: DevEvaluator,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    checkpoints: bool = True,
    quiet: bool,
) -> PromptTrainer:
    """The trainer of one prompt, which the encoder carries and is routed to, or of other parameters in it.

    Args:
        encoder: to train in.
        data: training pairs by domain.
        corpus: for query-side training, the same pairs against fixed document vectors; None: both sides.
        evaluator: run at step 0 and every `evaluate_every` steps; its trainee alone is trained, by its settings, and
            checkpoints lie in its folder.
        callbacks: further ones.
        checkpoints: keep one at each evaluation, to go on from.
        quiet: no progress bar.
    """
    config, trainee = evaluator.config, evaluator.trainee
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
        args=_arguments(encoder, evaluator, datasets, checkpoints=checkpoints, quiet=quiet),
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
    if not quiet and not moves_cursor():
        trainer.add_callback(StepLines())
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
    encoder: SentenceTransformer, evaluator: DevEvaluator, datasets: Any, *, checkpoints: bool, quiet: bool
) -> SentenceTransformerTrainingArguments:
    config = evaluator.config
    precision = resolve_precision(config.precision, encoder.device)
    every = config.evaluate_every if 0 < config.evaluate_every <= config.steps else config.steps
    # Losses are averaged since the last one shown: at checkpoints too, so that a resumed run shows the same ones.
    shown = config.log_every or max(n for n in range(1, max(1, min(10, config.steps // 10)) + 1) if every % n == 0)
    return SentenceTransformerTrainingArguments(
        output_dir=str(evaluator.folder),
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
        # A batch has no text twice: how many rows can be in one, at most.
        dataloader_drop_last=world_size() > 1
        or all(len(set(t[name])) >= config.batch_size for t in datasets.values() for name in t.column_names),
        # Every trained tensor has a part in every step, but not in every small backward pass of GradCache.
        ddp_find_unused_parameters=config.mini_batch_size < config.batch_size,
        eval_strategy="steps",
        eval_steps=every,
        eval_on_start=True,
        save_strategy="steps" if checkpoints else "no",
        save_steps=every,
        save_total_limit=2,  # should the last one be damaged, or cut
        logging_strategy="steps",
        logging_steps=shown,
        report_to=config.report_to.split(","),
        seed=config.seed,
        data_seed=config.seed,
        disable_tqdm=quiet or not moves_cursor(),
        log_level="error",
    )


class PromptTrainer(SentenceTransformerTrainer):
    """Saves and resumes the trainee alone, in full precision; what is frozen is never written."""

    trainee: Trainee

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.trainee.tensors().items()}
        with atomic_write(folder / CHECKPOINT, "wb") as file:
            file.write(save(tensors))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step = self.state.global_step
        try:
            super()._save_checkpoint(model, trial)
        except RuntimeError as error:  # torch's, for a disk that is full
            said = " ".join(str(error).split())
            raise ForewordError(
                f"{self.args.output_dir}: the checkpoint of step {step} cannot be written ({said}); free some space on "
                "the disk, and the same command goes on from the checkpoint before"
            ) from error
        if distributed.is_initialized():
            distributed.barrier()  # every process has written its own part
        on_main(lambda: seal(Path(self.args.output_dir or "."), step))

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
        if self.evaluator.stale(self.patience):
            control.should_training_stop = True


class StepLines(TrainerCallback):
    """Progress in a file or a pipe, on the main process."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called once."""
        self.said = ProgressLines("steps of training")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after each step."""
        if state.is_world_process_zero:
            self.said(state.global_step, state.max_steps)


class StopAfter(TrainerCallback):
    """Stop after a step, wherever the learning rate's schedule is."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after each step."""
        control.should_training_stop = control.should_training_stop or state.global_step >= self.step


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


@dataclass(frozen=True)
class CorpusPairs:
    """Training pairs of one domain against its fixed document vectors.

    Attributes:
        vectors: (N, d'), float32.
        positives: for each pair, the rows of all documents relevant to its query; the pair's own comes first.
    """

    vectors: Tensor
    positives: Sequence[Sequence[int]]


class CorpusContrastiveLoss(nn.Module):
    """`-log softmax(sim(q, d+) / t)` over the documents of the query's domain (InfoNCE, van den Oord et al. 2018).

    Other relevant documents of a query are left out of its softmax. With more than `limit` documents, each step
    scores the relevant ones of the batch and a seeded sample of the rest.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        pairs: Mapping[str, CorpusPairs],
        *,
        temperature: float,
        cosine: bool,
        limit: int,
        seed: int,
    ) -> None:
        """`pairs` by domain; a label is a pair's index, counted through the domains in their order."""
        super().__init__()
        self.model = model
        self.temperature, self.cosine, self.limit, self.seed = temperature, cosine, limit, seed
        self.pairs = list(pairs.values())
        counts = torch.tensor([len(domain.positives) for domain in self.pairs])
        self.starts = torch.cumsum(counts, 0) - counts
        self.vectors = [nn.functional.normalize(p.vectors, dim=1) if cosine else p.vectors for p in self.pairs]

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """The mean loss of a batch; all its pairs are of one domain."""
        queries = self.model(next(iter(sentence_features)))["sentence_embedding"].float()
        queries = nn.functional.normalize(queries, dim=1) if self.cosine else queries
        domain = int(torch.searchsorted(self.starts, labels[0].cpu(), right=True)) - 1
        rows = [self.pairs[domain].positives[int(label) - int(self.starts[domain])] for label in labels]
        candidates, targets, hidden = self._candidates(domain, rows, int(labels.sum()))
        vectors = self.vectors[domain]
        vectors = (vectors if candidates is None else vectors[candidates]).to(queries.device)
        scores = queries @ vectors.T / self.temperature
        scores = scores.masked_fill(hidden.to(scores.device), float("-inf"))
        return nn.functional.cross_entropy(scores, targets.to(scores.device))

    def _candidates(
        self, domain: int, rows: Sequence[Sequence[int]], step: int
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Which documents are scored (None: all), each query's target among them, and what each does not see."""
        total = self.vectors[domain].shape[0]
        candidates: Tensor | None = None
        place = {row: row for relevant in rows for row in relevant}
        if total > self.limit:
            needed = sorted(place)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            drawn = torch.randint(total, (self.limit,), generator=generator).tolist()
            chosen = needed + sorted(set(drawn) - set(needed))
            candidates = torch.tensor(chosen)
            place = {row: i for i, row in enumerate(chosen[: len(needed)])}
            total = len(chosen)
        targets = torch.tensor([place[relevant[0]] for relevant in rows])
        hidden = torch.zeros(len(rows), total, dtype=torch.bool)
        for i, relevant in enumerate(rows):
            hidden[i, [place[row] for row in relevant[1:]]] = True
        return candidates, targets, hidden

    def get_config_dict(self) -> dict[str, Any]:
        """What sentence-transformers shows of a loss."""
        return {"temperature": self.temperature, "cosine": self.cosine, "limit": self.limit}


class DomainBatchSampler(MultiDatasetDefaultBatchSampler):
    """Draws a domain with weight `pairs ** (1 / temperature)`, then its next batch; a domain that ends begins anew.

    With several processes, the batches of one global step, one for each, are of one domain and together repeat no
    text, so that negatives gathered across devices are what one process with the joined batch would see.
    """

    temperature = 1.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for sampler in self.batch_samplers:
            sampler.batch_size *= world_size()  # a joined batch, divided below

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of indices into the concatenated domains."""
        generator = torch.Generator().manual_seed(self.seed + 7919 * self.epoch)
        tables: list[Any] = self.dataset.datasets
        sizes = torch.tensor([len(table) for table in tables], dtype=torch.double)
        offsets = [0, *accumulate(int(size) for size in sizes)]
        weights = sizes ** (1 / self.temperature)
        rounds = [0] * len(sizes)
        batches: list[Iterator[list[int]]] = [self._restart(i, rounds) for i in range(len(sizes))]
        for _ in range(0, len(self), world_size()):
            domain = int(torch.multinomial(weights, 1, generator=generator))
            batch = next(batches[domain], None)
            if batch is None:
                batches[domain] = self._restart(domain, rounds)
                batch = next(batches[domain])
            joined = [index + offsets[domain] for index in batch]
            yield from (joined[process :: world_size()] for process in range(world_size()))

    def _restart(self, domain: int, rounds: list[int]) -> Iterator[list[int]]:
        sampler: Any = self.batch_samplers[domain]
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(1000 * self.epoch + rounds[domain])
        rounds[domain] += 1
        # The domains share one generator, which another's restart would disturb halfway: take all batches now.
        batches = list(sampler)
        if not batches:
            raise DataError("too few different training pairs for one batch without repeated texts; lower batch_size")
        return iter(batches)

    def __len__(self) -> int:
        """Batches in an epoch, of all processes."""
        return world_size() * sum(len(sampler) for sampler in self.batch_samplers)


def domain_sampler(temperature: float) -> type[DomainBatchSampler]:
    """The sampler class for a temperature (the trainer builds the sampler itself, from a class)."""
    return type("DomainBatchSampler", (DomainBatchSampler,), {"temperature": temperature})
