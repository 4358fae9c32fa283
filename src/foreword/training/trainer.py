"""The one path of all trainings: sentence-transformers' trainer, for prompts and for what they are compared with.

Only what is chosen is trained, saved and resumed.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
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
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
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
from foreword.errors import ForewordError
from foreword.files import atomic_write, kept_json, settle, sha256_file, write_json
from foreword.prompts.encoder import resolve_precision, text_prompt, transformer_of
from foreword.prompts.routes import Route
from foreword.terminal import ProgressLines, moves_cursor
from foreword.training.batches import domain_sampler, fills_batches, joined_sampler, joined_tables, tables_of
from foreword.training.config import TrainingConfig
from foreword.training.dev import BEST, HISTORY, DevEvaluator, DevSet, Scores
from foreword.training.losses import CorpusPairs, JoinedLoss, corpus_pairs, loss_name, loss_of
from foreword.training.trainee import Together, Trainee, is_main, on_main, world_size
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


@dataclass(frozen=True)
class Learner:
    """One of the trainings of a pass.

    Attributes:
        data: what is learnt from; of one collection where others learn in the same pass.
        trainee: what is trained; it takes part in the encoder's forward pass already.
        route: what evaluations encode by; the name of a carried prompt where others learn in the same pass.
        dev_sets: what evaluations look at; None: the dev splits of the data.
    """

    data: TrainingData
    trainee: Trainee
    route: Route
    dev_sets: Mapping[str, DevSet] | None = None


@dataclass(frozen=True)
class Lesson:
    """What the trainer needs of a learner.

    Attributes:
        pairs: training pairs by domain.
        corpus: for query-side training, the same pairs against fixed document vectors; None: both sides.
        evaluator: its trainee alone is trained.
        route: as the learner's.
    """

    pairs: Mapping[str, Sequence[TrainingPair]]
    corpus: Mapping[str, CorpusPairs] | None
    evaluator: DevEvaluator
    route: Route = None


def run_training(
    encoder: SentenceTransformer,
    learners: Sequence[Learner],
    work: Path,
    config: TrainingConfig,
    *,
    seconds: float | None,
    checkpoints: bool,
    quiet: bool,
    last: int | None = None,
) -> list[TrainingCourse]:
    """Train, and keep the best step in `work`; what accelerate leaves on the encoder is taken off again.

    Several learners, each with a prompt of its own, share every pass over the backbone; what each learns is what it
    would learn alone, up to rounding. One that its `patience` ends takes no further part.

    Args:
        encoder: what is trained takes part in its forward pass already.
        learners: what is trained, and on what; nothing else is.
        work: folder of checkpoints (it goes on from the last one there) and of the best values.
        config: the settings; its `document_side` says whether a learner's route embeds the documents once, too.
        seconds: stop after so many, even before `config.steps`; None: no limit. Evaluations are not counted.
        checkpoints: keep what is needed to go on after a cut.
        quiet: no progress bars.
        last: the step to stop after, on the way to `config.steps`; None: those.

    Returns:
        How it went for each.

    Raises:
        DataError: a pair's document has no vector.
        ForewordError: the checkpoints in `work` are damaged, or there is no room for another.
    """
    began = time.monotonic()
    checkpoint = on_main(lambda: take_up(work))
    set_seed(config.seed)
    folders = [work] if len(learners) == 1 else [work / str(number) for number in range(len(learners))]
    lessons = [
        _lesson(encoder, one, folder, config, quiet=quiet) for one, folder in zip(learners, folders, strict=True)
    ]
    evaluations = Evaluations([lesson.evaluator for lesson in lessons])
    callbacks: list[TrainerCallback] = [] if last is None else [StopAfter(last)]
    callbacks += [] if seconds is None else [TimeBudget(seconds, began, evaluations)]
    transformer: Any = encoder[0]
    transformer.vectors, cache = None, getattr(transformer, "vectors", None)  # of steps on the way nothing is kept
    try:
        trainer = build_trainer(encoder, lessons, work, callbacks=callbacks, checkpoints=checkpoints, quiet=quiet)
        parameters = [sum(p.numel() for p in one.trainee.parameters() if p.requires_grad) for one in learners]
        reached = TrainerState() if checkpoint is None else TrainerState.load_from_json(str(checkpoint / STATE))
        limit = config.steps if last is None else last
        ended = checkpoint is not None and (reached.global_step >= limit or not evaluations.learning())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            with quick_attention(config, encoder.device):
                if ended:  # the trainer takes a step before it looks at how many there are to be
                    trainer._load_from_checkpoint(str(checkpoint))
                    trainer.state = reached
                else:
                    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        spent = (time.monotonic() - began - evaluations.seconds) / len(learners)
        learning, end = evaluations.learning(), trainer.state.global_step
        for number in learning if is_main() else ():
            if lessons[number].evaluator.steps[-1] < end:  # the steps end between evaluations
                lessons[number].evaluator(encoder, steps=end)
    finally:
        # accelerate leaves its mixed precision on the model, and a mark that lets the next training's pass by.
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            encoder.__dict__.pop(name, None)
        transformer.vectors = cache
        encoder.requires_grad_(False)
        encoder.eval()
    courses = []
    for number, (folder, lesson) in enumerate(zip(folders, lessons, strict=True)):
        own = lesson.evaluator
        steps = end if number in learning or len(lessons) == 1 else own.steps[-1]
        name = "loss" if len(lessons) == 1 else loss_name(number)
        losses = [
            {"step": entry["step"], "loss": round(entry[name], 5)}
            for entry in trainer.state.log_history
            if name in entry and entry["step"] <= steps
        ]
        best, choice = on_main(partial(getattr, own, "choice"))
        courses.append(
            TrainingCourse(
                folder, own.history, own.scores, best, choice, losses, parameters[number], steps, round(spent, 3)
            )
        )
    return courses


def _lesson(
    encoder: SentenceTransformer, learner: Learner, folder: Path, config: TrainingConfig, *, quiet: bool
) -> Lesson:
    """What a learner learns from, its documents embedded where they are to be, and its evaluations in `folder`."""
    data, vectors = learner.data, {}
    if config.side == "query":
        document_route = learner.route if config.document_side == "start" else None
        vectors = data.embedded(encoder, config, document_route, quiet=quiet)
    dev_sets = dev_sets_of(data, vectors, config) if learner.dev_sets is None else learner.dev_sets
    evaluator = DevEvaluator(dev_sets, learner.trainee, learner.route, folder, config)
    corpus = {c.id: corpus_pairs(c.id, data.pairs[c.id], vectors[c.id]) for c in data.sources} if vectors else None
    return Lesson(data.pairs, corpus, evaluator, learner.route)


def seal(work: Path, step: int) -> None:
    """Make a checkpoint whole: with the best values so far and the evaluations, on the disk, and its manifest."""
    folder = work / f"checkpoint-{step}"
    _copy_best(work, folder)
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name != MANIFEST:
            digests[path.relative_to(folder).as_posix()] = sha256_file(path)
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
    for path in _best(work):
        path.unlink()
    if whole is not None:
        _copy_best(whole, work)
    return whole


def _best(folder: Path) -> list[Path]:
    """The best values and the evaluations in a folder, of several learners each in one of its own."""
    places = [folder, *(place for place in folder.glob("*") if place.name.isdigit())]
    return [place / name for place in places for name in _BEST if (place / name).exists()]


def _copy_best(source: Path, target: Path) -> None:
    for path in _best(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)


def _broken(checkpoint: Path) -> Path | None:
    """A file of a checkpoint that is not as its manifest has it."""
    digests = kept_json(checkpoint / MANIFEST)
    if not isinstance(digests, dict):
        return checkpoint / MANIFEST
    files = ((checkpoint / str(name), digest) for name, digest in digests.items())
    return next((file for file, digest in files if not file.is_file() or sha256_file(file) != digest), None)


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


def build_trainer(
    encoder: SentenceTransformer,
    lessons: Sequence[Lesson],
    work: Path,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    checkpoints: bool = True,
    quiet: bool,
) -> PromptTrainer:
    """The trainer of one prompt, which the encoder carries and is routed to, of other parameters in it, or of several
    prompts.

    Args:
        encoder: to train in.
        lessons: what is trained, by the settings of its evaluators, which are run at step 0 and every
            `evaluate_every` steps.
        work: the folder of checkpoints.
        callbacks: further ones.
        checkpoints: keep one at each evaluation, to go on from.
        quiet: no progress bar.
    """
    evaluations = Evaluations([lesson.evaluator for lesson in lessons])
    config, trainees = lessons[0].evaluator.config, [lesson.evaluator.trainee for lesson in lessons]
    one, with_documents = len(lessons) == 1, lessons[0].corpus is None
    encoder.requires_grad_(False)
    for trainee in trainees:
        trained = None if with_documents else trainee.part("query")
        for parameter in trainee.parameters() if trained is None else trained.values():
            parameter.requires_grad_(True)
    tables = [tables_of(lesson.pairs, config, with_documents=with_documents) for lesson in lessons]
    datasets = tables[0] if one else joined_tables(tables)
    arguments = _arguments(encoder, config, work, datasets, checkpoints=checkpoints, quiet=quiet)
    loss: nn.Module = loss_of(encoder, lessons[0].corpus, config)
    callbacks = [StopWhenStale(evaluations), *callbacks]
    if not one:
        places = transformer_of(encoder).domains
        loss = JoinedLoss(
            encoder,
            [loss, *(loss_of(encoder, lesson.corpus, config) for lesson in lessons[1:])],
            pairs=[len(table) for table in datasets.values()],
            prompts=[places.index(str(lesson.route)) for lesson in lessons],
            learning=evaluations.learning,
            rows=config.batch_size if encoder.device.type == "cpu" else 0,
        )
        arguments.multi_dataset_batch_sampler = joined_sampler(config, evaluations.learning)
        callbacks.append(ClipEach(trainees, arguments.max_grad_norm))
        arguments.max_grad_norm = 0.0
    tasks = {"query": "query", "document": "document"}
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
        args=arguments,
        train_dataset=datasets,
        loss=loss,
        evaluator=evaluations,
        data_collator=SentenceTransformerDataCollator(
            preprocess_fn=preprocess,
            router_mapping=tasks,
            prompts={column: text for column, text in text_prompts.items() if text},
        ),
        callbacks=list(callbacks),
    )
    trainer.trainee = trainees[0] if one else Together(trainees)
    trainer.remove_callback(PrinterCallback)
    if quiet or not moves_cursor():
        trainer.remove_callback(ProgressCallback)
    if not quiet and not moves_cursor():
        trainer.add_callback(StepLines())
    return trainer


def _arguments(
    encoder: SentenceTransformer, config: TrainingConfig, work: Path, datasets: Any, *, checkpoints: bool, quiet: bool
) -> SentenceTransformerTrainingArguments:
    precision = resolve_precision(config.precision, encoder.device)
    every = config.evaluate_every if 0 < config.evaluate_every <= config.steps else config.steps
    # Losses are averaged since the last one shown: at checkpoints too, so that a resumed run shows the same ones.
    shown = config.log_every or max(n for n in range(1, max(1, min(10, config.steps // 10)) + 1) if every % n == 0)
    return SentenceTransformerTrainingArguments(
        output_dir=str(work),
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
        dataloader_drop_last=world_size() > 1 or all(fills_batches(table, config) for table in datasets.values()),
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

    trainee: Trainee | Together

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


class Evaluations(BaseEvaluator):
    """Those of all that learn in one pass."""

    primary_metric = "dev"

    def __init__(self, evaluators: Sequence[DevEvaluator]) -> None:
        super().__init__()
        self.evaluators = evaluators

    def learning(self) -> list[int]:
        """The numbers of those that their patience has not ended; asked by all processes at once."""
        return [n for n, one in enumerate(self.evaluators) if not one.stale(one.config.patience)]

    @property
    def seconds(self) -> float:
        """Taken by evaluations in this process."""
        return sum(one.seconds for one in self.evaluators)

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Evaluate those that learn; the mean of their scores."""
        found = [self.evaluators[number](model, output_path, epoch, steps) for number in self.learning()]
        return {name: sum(one[name] for one in found) / len(found) for name in (found[0] if found else ())}


class StopWhenStale(TrainerCallback):
    """Stop when `patience` evaluations brought no better dev score to any that learns."""

    def __init__(self, evaluations: Evaluations) -> None:
        self.evaluations = evaluations

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after each evaluation."""
        if not self.evaluations.learning():
            control.should_training_stop = True


class ClipEach(TrainerCallback):
    """Clip the gradients of each trainee by their own norm, as when it is trained alone."""

    def __init__(self, trainees: Sequence[Trainee], norm: float) -> None:
        self.trainees, self.norm = trainees, norm

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Called before each step."""
        for trainee in self.trainees:
            nn.utils.clip_grad_norm_(list(trainee.parameters()), self.norm)


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

    def __init__(self, seconds: float, began: float, evaluations: Evaluations) -> None:
        """`began` is the `time.monotonic()` from which seconds are counted."""
        self.seconds, self.began, self.evaluations = seconds, began, evaluations

    def spent(self) -> float:
        """Seconds spent, without evaluations."""
        return time.monotonic() - self.began - self.evaluations.seconds

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
