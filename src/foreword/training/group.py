"""A prompt for each collection of a group; several at once, in one pass over the backbone."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection
from foreword.errors import ForewordError
from foreword.files import as_json, kept_json, owned, owns, write_json
from foreword.prompts.encoder import resolve_precision
from foreword.prompts.prompt import Prompt
from foreword.prompts.store import CARD, StoredPrompt, folder_name
from foreword.training.batches import hard_negatives
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.folds import too_few
from foreword.training.train import IDENTITY, TRAINEE, Prepared, claim_work, in_training, prepare
from foreword.training.trainee import on_main, world_size
from foreword.training.trainer import WORK, Learner, run_training

logger = logging.getLogger(__name__)

RECORD = "group.json"
"""What became of every collection, in the folder of the prompts."""

TOGETHER = 8
"""Prompts that are trained in one pass, at most."""

TOKENS = 2**15
"""Tokens of a step, at most, that a pass may keep the states of: a few gigabytes with a model of 6 layers."""

DOCUMENTS = 50_000
"""Documents of a collection, at most, whose vectors may lie in memory together with those of others."""


@dataclass(frozen=True)
class Outcome:
    """What became of one collection.

    Attributes:
        collection: its id.
        status: `trained` in this run (or finished, after a cut), `done` before it, or `failed`.
        prompt: the prompt's folder; empty when it failed.
        error: what went wrong, else empty.
        seconds: of this run; of a pass with others, its share.
        learnt: False: no step was better than the start, so the prompt is what it started from.
    """

    collection: str
    status: str
    prompt: str = ""
    error: str = ""
    seconds: float = 0.0
    learnt: bool = True

    @classmethod
    def of(cls, stored: StoredPrompt, status: str, seconds: float) -> Outcome:
        """Of a prompt that is there."""
        learnt = stored.card.get("learnt", True)
        return cls(stored.domain, status, str(stored.path), seconds=round(seconds, 2), learnt=learnt)

    @classmethod
    def failed(cls, collection: str, error: Exception, seconds: float) -> Outcome:
        """Of an error."""
        logger.debug("training on %s failed", collection, exc_info=error)
        said = " ".join(str(error).split())
        said = said if isinstance(error, ForewordError) else f"{type(error).__name__}: {said}"
        return cls(collection, "failed", error=said, seconds=round(seconds, 2))


@owns("output")
def train_group(
    encoder: SentenceTransformer,
    collections: Sequence[str],
    output: str | Path,
    *,
    load: Callable[[str], Collection],
    config: TrainingConfig | None = None,
    start: StoredPrompt | StartConfig | None = None,
    together: int = TOGETHER,
    resume: bool = True,
    quiet: bool = False,
    on_trained: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Train a prompt for every collection, each in its own folder of `output`, which is a bank then.

    Prompts are trained in one pass over the backbone where they can be: each has its own texts, negatives, gradients
    and evaluations, so that it learns what it would learn alone, up to rounding. One by one are trained those with so
    few labels that folds choose their steps, or with more than `DOCUMENTS` documents on the query side; and all with
    several processes, GradCache (`mini_batch_size`), float16 or trackers.

    Args:
        encoder: from `load_encoder`.
        collections: ids; so many as are trained together are loaded at a time.
        output: folder of the prompts; `group.json` there says what became of each collection.
        load: gives a collection, with the splits to train by, of its id.
        config: the settings of all.
        start: where all start; from one start, prompts can be averaged and compared.
        together: prompts in one pass, at most; fewer where a step would have more than `TOKENS` tokens. 1: one by one.
        resume: False: train all of them anew.
        quiet: no progress bars.
        on_trained: called after each collection.

    Returns:
        What became of each, in order. A collection that fails does not stop the others.

    Raises:
        ForewordError: two collections would share a folder; an impossible `together`.
    """
    if together < 1:
        raise ForewordError(f"together is {together}; expected 1 or more")
    output = Path(output)
    folders = {name: output / folder_name(name) for name in collections}
    if len(set(folders.values())) < len(collections):
        raise ForewordError("two of the collections have the same folder name, or one is given twice; train them apart")
    done: dict[str, Outcome] = {}

    def tell(result: Outcome) -> None:
        done[result.collection] = result
        listed = [asdict(done[name]) for name in collections if name in done]
        on_main(lambda: write_json(output / RECORD, {"collections": listed}))
        if on_trained is not None:
            on_trained(result)

    begun = _begun(output, collections) if resume and together > 1 else {}
    waiting: dict[Any, list[Prepared]] = {}
    with ExitStack() as owning:
        for name, folder in folders.items():
            began = time.monotonic()
            try:
                owning.enter_context(owned(folder))
                prepared = prepare(encoder, load(name), folder, domain=name, config=config, start=start, resume=resume)
                key, many = begun.get(name) or _alike(encoder, prepared, together)
            except Exception as error:
                tell(Outcome.failed(name, error, time.monotonic() - began))
                continue
            if prepared.stored is not None and name not in begun:
                tell(Outcome.of(prepared.stored, "done", time.monotonic() - began))
                continue
            waiting.setdefault(key, []).append(prepared)
            if len(waiting[key]) >= many:
                _train(encoder, waiting.pop(key), output, resume=resume, quiet=quiet, tell=tell)
        for left in waiting.values():
            _train(encoder, left, output, resume=resume, quiet=quiet, tell=tell)
    on_main(lambda: _tidy(output))
    return [done[name] for name in collections]


def failures(results: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The collections that failed, as JSON values."""
    return [asdict(result) for result in results if result.status == "failed"]


def _alike(encoder: SentenceTransformer, prepared: Prepared, together: int) -> tuple[Any, int]:
    """What trainings must have in common to be trained in one pass, and how many may be."""
    config, pairs = prepared.config, [pair for own in prepared.data.pairs.values() for pair in own]
    both = config.side == "both"
    apart = (
        world_size() > 1
        or (both and config.mini_batch_size < config.batch_size)
        or resolve_precision(config.precision, encoder.device) == "float16"  # whose scale is one for all
        or config.report_to != "none"
        or any((prepared.output / WORK).rglob("checkpoint-*"))  # begun alone
        or too_few(prepared.data, config)
        or (not both and any(_more_than(DOCUMENTS, source.documents()) for source in prepared.data.sources))
    )
    if apart:
        return prepared.domain, 1
    columns = 1 + len(hard_negatives(pairs, config)) if both else 0
    tokens = config.batch_size * (config.query_length + columns * config.document_length)
    return (config, columns), max(1, min(together, TOKENS // tokens))


def _more_than(count: int, things: Iterable[Any]) -> bool:
    return next(islice(things, count, None), None) is not None


def _train(
    encoder: SentenceTransformer,
    prepared: Sequence[Prepared],
    output: Path,
    *,
    resume: bool,
    quiet: bool,
    tell: Callable[[Outcome], None],
) -> None:
    """Train in one pass, or one by one where there is one, or the pass fails."""
    left = list(prepared)
    if len(prepared) > 1:
        work = output / WORK / hashlib.sha256("\x1f".join(one.domain for one in prepared).encode()).hexdigest()[:16]
        try:
            claim_work(work, as_json({one.domain: one.identity for one in prepared}), anew=not resume)
        except ForewordError as error:
            for one in prepared:
                tell(Outcome.failed(one.domain, error, 0.0))
            return
        try:
            for result in _train_together(encoder, prepared, work, quiet=quiet):
                left.pop(0)
                tell(result)
        except Exception as error:
            said = " ".join(str(error).split())
            logger.warning("%d trainings in one pass failed, so they are done one by one: %s", len(prepared), said)
    for one in left:
        began = time.monotonic()
        try:
            stored, status = (one.stored, "done") if one.stored else (one.train(encoder, quiet=quiet), "trained")
            result = Outcome.of(stored, status, time.monotonic() - began)
        except Exception as error:
            result = Outcome.failed(one.domain, error, time.monotonic() - began)
        tell(result)


def _train_together(
    encoder: SentenceTransformer, prepared: Sequence[Prepared], work: Path, *, quiet: bool
) -> Iterator[Outcome]:
    """Train in one pass, and store those that are not stored yet: a kill may have come among them."""
    began, clock = time.time(), time.monotonic()
    prompts = {f"{TRAINEE} {one.domain}": one.prompt(encoder) for one in prepared}
    digests = [prompt.digest() for prompt in prompts.values()]
    learners = [
        Learner(one.data, prompt, route) for one, (route, prompt) in zip(prepared, prompts.items(), strict=True)
    ]
    config = prepared[0].config
    with in_training(encoder, prompts, work):
        courses = run_training(encoder, learners, work, config, seconds=None, checkpoints=True, quiet=quiet)
    share = (time.monotonic() - clock) / len(prepared)
    for one, prompt, course, digest in zip(prepared, prompts.values(), courses, digests, strict=True):
        stored, status = one.stored, "done"
        if stored is None:
            best, status = Prompt(prompt.spec, course.best()), "trained"
            stored = one.store(encoder, best, course, start_digest=digest, began=began)
        yield Outcome.of(stored, status, share)
    shutil.rmtree(work)


def _begun(output: Path, collections: Sequence[str]) -> dict[str, tuple[Any, int]]:
    """Of collections whose training in one pass was cut: the pass, and how many it had, all of them asked for."""
    found: dict[str, tuple[Any, int]] = {}
    for work, names in _passes(output).items():
        if set(names) <= set(collections) and any(work.glob("checkpoint-*")):
            found |= {name: (work, len(names)) for name in names}
    return found


def _passes(output: Path) -> dict[Path, Mapping[str, Any]]:
    """The folders of passes, each with the identities by collection."""
    kept = {path.parent: kept_json(path) for path in sorted((output / WORK).glob(f"*/{IDENTITY}"))}
    return {work: identities for work, identities in kept.items() if isinstance(identities, dict)}


def _tidy(output: Path) -> None:
    """Remove what passes left that never got far, or whose prompts are all there, however they came to be."""
    for work, names in _passes(output).items():
        stored = all((output / folder_name(name) / CARD).exists() for name in names)
        if stored or not any(work.glob("checkpoint-*")):
            shutil.rmtree(work)
    with suppress(OSError):  # there is none, or it holds the pass of others
        (output / WORK).rmdir()
