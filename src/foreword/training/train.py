"""Train one prompt, for one domain or for several at once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection, TrainingPair
from foreword.collections.registry import canonical, overlap
from foreword.collections.supervision import split_fold, supervise
from foreword.collections.views import Labels
from foreword.errors import ForewordError, OtherTrainingError, PromptError
from foreword.files import as_json, kept_json, owns, write_json
from foreword.prompts.encoder import resolve_precision, state_digest, text_prompt, transformer_of
from foreword.prompts.lower import lower_states_kept
from foreword.prompts.prompt import Prompt
from foreword.prompts.start import new_prompt
from foreword.prompts.store import (
    CARD,
    StoredPrompt,
    describe_backbone,
    load_prompt,
    save_prompt,
    trained_on,
)
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.folds import run_course
from foreword.training.trainee import join, on_main, world_size
from foreword.training.trainer import WORK, TrainingCourse
from foreword.training.vectors import DocumentVectors, TrainingData

IDENTITY = "identity.json"
"""What an interrupted training follows from, in its folder `WORK`."""

TRAINEE = "(in training)"
"""The name under which the encoder carries the prompt while it is trained."""


@owns("output")
def train(
    encoder: SentenceTransformer,
    collections: Collection | Sequence[Collection],
    output: str | Path,
    *,
    domain: str | None = None,
    config: TrainingConfig | None = None,
    start: StoredPrompt | StartConfig | None = None,
    documents: Mapping[str, DocumentVectors] | None = None,
    pairs: Mapping[str, Sequence[TrainingPair]] | None = None,
    seconds: float | None = None,
    resume: bool = True,
    quiet: bool = False,
) -> StoredPrompt:
    """Train a prompt on the training split of one collection, or of several (multitask), and store it.

    The backbone is frozen. The step that scores best on the collections' dev splits is kept, where it gains more over
    the start than chance explains; else the prompt is the start. Small dev splits are replaced by folds of all labels
    (`TrainingConfig.dev_folds`). Without any dev split, the last step is kept. Test splits are never read.

    Args:
        encoder: from `foreword.load_encoder`; comes back carrying what it carried before.
        collections: what to train on.
        output: the prompt's folder. A finished training of the same configuration found there is returned as it
            is; an interrupted one goes on from its last checkpoint (see `resume`).
        domain: the prompt's name; None: the collection's id, or `multitask` for several.
        config: the settings; None: the defaults of query-side training, or for several collections of both sides.
        start: another prompt to start from, or what a new one is; None: a new one of the default kind.
        documents: for query-side training, vectors by collection id, instead of embedding its documents.
        pairs: training pairs by collection id, instead of the collection's own training split (pseudo-queries).
        seconds: stop after so many, even before the steps end, evaluations on the dev split not counted; the
            learning rate's schedule ends with them. An interrupted training then begins anew. None: no limit.
        resume: False: begin anew.
        quiet: no progress bars.

    Raises:
        DataError: a collection has no training pairs, or `documents` lack one of its documents.
        PromptError: `start` does not fit the backbone or the side.
        ForewordError: `output` holds a training of another configuration.
    """
    prepared = prepare(
        encoder, collections, output,
        domain=domain, config=config, start=start, documents=documents, pairs=pairs, seconds=seconds, resume=resume,
    )  # fmt: skip
    return prepared.stored or prepared.train(encoder, quiet=quiet)


@dataclass
class Prepared:
    """A training that can begin, or one that is finished.

    Attributes:
        output: the prompt's folder.
        data: what is learnt from.
        domain: the result's name.
        config: the settings.
        start: as for `train`.
        seconds: as for `train`.
        identity: of `identity_of`.
        stored: the result, where it is finished.
    """

    output: Path
    data: TrainingData
    domain: str
    config: TrainingConfig
    start: StoredPrompt | StartConfig
    seconds: float | None
    identity: Mapping[str, Any]
    stored: StoredPrompt | None

    def prompt(self, encoder: SentenceTransformer) -> Prompt:
        """A prompt as it is before training."""
        return _starting_prompt(encoder, self.config, self.start, self.data)

    def train(self, encoder: SentenceTransformer, *, quiet: bool) -> StoredPrompt:
        """Train it alone, and store the result."""
        began, prompt = time.time(), self.prompt(encoder)
        digest = prompt.digest()
        with in_training(encoder, {TRAINEE: prompt}, self.output / WORK):
            course = run_course(
                encoder, self.data, prompt, self.output / WORK, self.config,
                route=TRAINEE, seconds=self.seconds, checkpoints=True, quiet=quiet,
            )  # fmt: skip
        return self.store(encoder, Prompt(prompt.spec, course.best()), course, start_digest=digest, began=began)

    def store(
        self, encoder: SentenceTransformer, best: Prompt, course: TrainingCourse, *, start_digest: str, began: float
    ) -> StoredPrompt:
        """Store what came of it.

        Args:
            encoder: it was trained for.
            best: the prompt of the step that is kept.
            course: how it went.
            start_digest: of the prompt as it was before.
            began: the `time.time()` then.
        """
        config = self.config
        record = {
            **self.identity,
            "start_digest": start_digest,
            "trained_parameters": course.parameters,
            "metrics": course.metrics(),
            "learnt": course.best_step > 0,
            "text": text_settings(encoder, config.query_length, config.document_length, self.data.sources),
        }
        finished = course.run(began)

        def store() -> None:
            save_prompt(self.output, best, encoder, self.domain, dtype=config.dtype, record=record, run=finished)
            shutil.rmtree(self.output / WORK)

        on_main(store)
        return load_prompt(self.output, encoder)


def prepare(
    encoder: SentenceTransformer,
    collections: Collection | Sequence[Collection],
    output: str | Path,
    *,
    domain: str | None = None,
    config: TrainingConfig | None = None,
    start: StoredPrompt | StartConfig | None = None,
    documents: Mapping[str, DocumentVectors] | None = None,
    pairs: Mapping[str, Sequence[TrainingPair]] | None = None,
    seconds: float | None = None,
    resume: bool = True,
) -> Prepared:
    """Read what `train` learns from, and make its folder ready; arguments and errors are those of `train`."""
    sources = [collections] if not isinstance(collections, Sequence) else list(collections)
    several = len(sources) > 1
    config = config or TrainingConfig.default("both" if several else "query", several=several)
    output = Path(output)
    data = TrainingData.of(sources, config, pairs, documents)
    domain = domain or data.domain
    start = start or StartConfig()
    if isinstance(start, StoredPrompt):
        _refuse_seen_folds(sources, start)
        origin: dict[str, Any] = {"from": start.domain, "prompt": start.prompt.spec.as_dict()}
        origin |= {"digest": start.prompt.digest(), "trained_on": trained_on(start.card)}
    else:
        origin = {"from": start.start, "seed": start.seed, "prompt": start.spec.as_dict(), "digest": None}
    config = data.steps_of(config, world_size())
    join(encoder.device)
    identity = identity_of(encoder, data, domain, config, start=origin, seconds=seconds)
    finished = on_main(lambda: _claim(output, identity, encoder, resume, anew=not resume or seconds is not None))
    stored = load_prompt(output, encoder) if finished else None
    return Prepared(output, data, domain, config, start, seconds, identity, stored)


@contextmanager
def in_training(encoder: SentenceTransformer, prompts: Mapping[str, Prompt], work: Path) -> Iterator[None]:
    """Within the block, the encoder carries the prompts, of one structure, and is routed to the first one.

    States of the layers below them are kept in `work` meanwhile.

    Raises:
        ForewordError: the backbone is another one after it.
    """
    transformer = transformer_of(encoder)
    route, weights = transformer.route, state_digest(encoder)
    for name, prompt in prompts.items():
        transformer.add(name, prompt)
    transformer.route = first = next(iter(prompts))
    try:
        with lower_states_kept(transformer, prompts[first].spec, work):
            yield
    finally:
        for name in prompts:
            transformer.remove(name)
        transformer.route = route
    if state_digest(encoder) != weights:
        raise ForewordError("the backbone changed in training; this is a bug, please report it")


def train_few(
    encoder: SentenceTransformer,
    collection: Collection,
    pairs: Sequence[TrainingPair],
    output: str | Path,
    *,
    start: StoredPrompt | StartConfig | None = None,
    config: TrainingConfig | None = None,
    domain: str | None = None,
    resume: bool = True,
    quiet: bool = False,
) -> StoredPrompt:
    """Train a prompt on labels that are at hand, and store it: `train`, with a dev part of their own, or folds.

    Best from a prompt that knows domains like it already, such as a multitask one.

    Args:
        encoder: from `foreword.load_encoder`.
        collection: its documents; of its queries and judgements nothing is learnt. A copy of one of its test queries
            among `pairs` is left out.
        pairs: the labels, two different queries or more.
        output: the prompt's folder, as for `train`.
        start: as for `train`.
        config: the settings; None: `TrainingConfig.few` for the side that `start` has.
        domain: the prompt's name; None: the collection's id.
        resume: False: begin anew.
        quiet: no progress bars.

    Raises: as `train`, and `DataError` for a single query.
    """
    spec = start.prompt.spec if isinstance(start, StoredPrompt) else (start or StartConfig()).spec
    config = config or TrainingConfig.few("query" if spec.sides == "query" else "both")
    labelled = supervise(Labels(collection, pairs), method="train", seed=config.seed)
    how: dict[str, Any] = {"domain": domain, "start": start, "resume": resume, "quiet": quiet}
    return train(encoder, labelled, output, config=config, **how)


def _refuse_seen_folds(sources: Sequence[Collection], start: StoredPrompt) -> None:
    """A fold's prompt must not start from one that was trained on the fold's own test queries."""
    for collection in sources:
        for name in trained_on(start.card):
            folds = split_fold(collection.id)[1], split_fold(name)[1]
            if all(folds) and overlap(name, collection.id) and canonical(name) != canonical(collection.id):
                raise PromptError(
                    f"the prompt to start from was trained on test queries of {collection.id} (as {name}); start from "
                    "another"
                )


def _claim(
    output: Path, identity: Mapping[str, Any], encoder: SentenceTransformer, resume: bool, *, anew: bool
) -> bool:
    """Whether `output` holds the finished training; else it is made ready. Refuses somebody else's folder.

    `resume`: a finished one counts; `anew`: an interrupted one does not.
    """
    wanted = as_json(identity)
    if (output / CARD).exists() and resume:
        try:
            stored = load_prompt(output, encoder)
        except PromptError as error:
            raise PromptError(f"{error}; or train anew with --no-resume (resume=False)") from error
        if all(stored.card.get(key) == value for key, value in wanted.items()):
            shutil.rmtree(output / WORK, ignore_errors=True)  # what a kill just before the end left
            return True
        raise OtherTrainingError(
            f"{output} holds a prompt trained with other settings or data; choose another folder, or train anew "
            "with --no-resume (resume=False)"
        )
    claim_work(output / WORK, wanted, anew=anew)
    return False


def claim_work(work: Path, wanted: Mapping[str, Any], *, anew: bool) -> None:
    """Make the folder of checkpoints ready for a training of this identity.

    Args:
        work: the folder; what an interrupted training left there stays if it is of the same identity.
        wanted: the identity.
        anew: it does not stay.

    Raises:
        ForewordError: an interrupted training is of another identity, or of one that nobody knows.
    """
    if anew and work.exists():
        shutil.rmtree(work)
    if (kept := kept_json(work / IDENTITY)) != wanted:
        if any(work.rglob("checkpoint-*")):
            if kept is None:
                raise ForewordError(
                    f"{work / IDENTITY} is damaged or missing, so that nobody knows what training this is; begin anew "
                    "with --no-resume (resume=False)"
                )
            raise OtherTrainingError(
                f"{work.parent} holds an interrupted training with other settings or data; choose another folder, or "
                "begin anew with --no-resume (resume=False)"
            )
        if work.exists():  # it ended before its first checkpoint: nothing to go on from
            shutil.rmtree(work)
        write_json(work / IDENTITY, wanted)


def _starting_prompt(
    encoder: SentenceTransformer, config: TrainingConfig, start: StoredPrompt | StartConfig, data: TrainingData
) -> Prompt:
    """The prompt to train; for query-side training with a query part, and the document part it has if that is kept."""
    if isinstance(start, StoredPrompt):
        prompt = Prompt(start.prompt.spec, start.prompt.tensors())
    else:
        texts = [pair.document for pairs in data.pairs.values() for pair in pairs[:8]]
        prompt = new_prompt(encoder, start.spec, start=start.start, texts=texts, seed=start.seed)
    spec, tensors = prompt.spec, prompt.tensors()
    if config.side == "both":
        if spec.sides == "query":
            raise PromptError(
                "a prompt whose sides are 'query' cannot be trained on both; start from a shared or untied one"
            )
        return prompt
    parts = {"query": spec.part_for("query")}
    if keep_documents := config.document_side == "start":
        parts["document"] = spec.part_for("document")
        if parts["document"] is None:
            raise PromptError("document_side 'start' needs a prompt that encodes documents too; start from such a one")
    return Prompt(
        replace(spec, sides="untied" if keep_documents else "query"),
        {
            f"{new}.{name.partition('.')[2]}": tensor
            for new, old in parts.items()
            for name, tensor in tensors.items()
            if name.startswith(f"{old}.")
        },
    )


def identity_of(
    encoder: SentenceTransformer,
    data: TrainingData,
    domain: str,
    config: TrainingConfig,
    *,
    start: Mapping[str, Any],
    seconds: float | None,
) -> dict[str, Any]:
    """Everything that the result follows from, as JSON values (under a time budget: the machine's speed too).

    Two trainings with one identity are the same training.

    Args:
        encoder: its weights, head and precision.
        data: what is learnt from.
        domain: the result's name.
        config: the settings.
        start: what is trained, and where it starts.
        seconds: the time budget; None: none.
    """
    device = encoder.device.type
    described = describe_backbone(encoder)
    return {
        "domain": domain,
        "fingerprint": described["fingerprint"],
        "encoder": {name: described[name] for name in ("pooling", "normalized", "similarity", "text_prompts")},
        "training": {
            **config.as_dict(),
            "precision": resolve_precision(config.precision, device),
            "device": device,
            **({"processes": world_size()} if world_size() > 1 else {}),
            **({} if seconds is None else {"seconds": seconds}),
        },
        **data.identity(),
        "start": dict(start),
        "max_seq_length": encoder.max_seq_length,
    }


def text_settings(
    encoder: SentenceTransformer, query_length: int, document_length: int, sources: Sequence[Collection] = ()
) -> dict[str, Any]:
    """How texts were cut, written out and what stood before them, for the card of a result."""
    written = [c.facts["templates"] for c in sources if "templates" in c.facts]
    templates: Any = written[0] if written else {"query": "{text}", "document": "{title} {text}"}
    return {
        "query_length": query_length,
        "document_length": document_length,
        "query_template": f"{text_prompt(encoder, 'query') or ''}{templates['query']}",
        "document_template": f"{text_prompt(encoder, 'document') or ''}{templates['document']}",
    }
