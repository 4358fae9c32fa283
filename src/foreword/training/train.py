"""Train one prompt, for one domain or for several at once."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.collections.folds import split_fold
from foreword.collections.records import Collection, TrainingPair
from foreword.collections.unions import canonical, overlap
from foreword.common.errors import ForewordError, OtherTrainingError, PromptError
from foreword.common.files import write_json
from foreword.prompts.encoder import state_digest, transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.start import new_prompt
from foreword.prompts.store import CARD, StoredPrompt, load_prompt, save_prompt, trained_on
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.identity import identity_of, text_settings
from foreword.training.loop import WORK, pairs_of, run_training
from foreword.training.processes import join, on_main, world_size
from foreword.training.vectors import DocumentVectors

TRAINEE = "(in training)"
"""The name under which the encoder carries the prompt while it is trained."""


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

    The backbone is frozen. The prompt that scores best on the collections' dev splits is kept; without any dev
    split, the last one. Test splits are never read.

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
    sources = [collections] if not isinstance(collections, Sequence) else list(collections)
    several = len(sources) > 1
    config = config or TrainingConfig.default("both" if several else "query", several=several)
    output = Path(output)
    data = pairs_of(sources, pairs, config)
    domain = domain or (sources[0].id if len(sources) == 1 else "multitask")
    _refuse_seen_folds(sources, start)
    config = config.with_steps(sum(map(len, data.values())), world_size())
    join(encoder.device)
    identity = identity_of(
        encoder, sources, data, domain, config,
        start=_origin(start), documents=documents, pairs=pairs, seconds=seconds,
    )  # fmt: skip
    if on_main(lambda: _claim(output, identity, encoder, resume, anew=not resume or seconds is not None)):
        return load_prompt(output, encoder)
    began = time.time()
    prompt = _starting_prompt(encoder, config, start, data)
    start_digest = prompt.digest()
    transformer = transformer_of(encoder)
    route, weights = transformer.route, state_digest(encoder)
    transformer.add(TRAINEE, prompt)
    transformer.route = TRAINEE
    try:
        course = run_training(
            encoder, sources, data, prompt, output / WORK, config,
            route=TRAINEE, document_route=TRAINEE if config.document_side == "start" else None,
            documents=documents or {}, seconds=seconds, checkpoints=True, quiet=quiet,
        )  # fmt: skip
    finally:
        transformer.remove(TRAINEE)
        transformer.route = route
        encoder.requires_grad_(False)
        encoder.eval()
    if state_digest(encoder) != weights:
        raise ForewordError("the backbone changed in training; this is a bug, please report it")
    evaluator = course.evaluator
    record = {
        **identity,
        "start_digest": start_digest,
        "trained_parameters": course.parameters,
        "metrics": {"dev": evaluator.history, "best_step": evaluator.best_step, "loss": course.losses},
        "text": text_settings(encoder, config, sources),
    }
    finished = {
        "seconds": round(time.time() - began, 2),
        "steps": course.steps,
        "training_seconds": course.seconds,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

    def store() -> None:
        best = Prompt(prompt.spec, evaluator.best_tensors())
        save_prompt(output, best, encoder, domain, dtype=config.dtype, record=record, run=finished)
        shutil.rmtree(output / WORK)

    on_main(store)
    return load_prompt(output, encoder)


def _refuse_seen_folds(sources: Sequence[Collection], start: StoredPrompt | StartConfig | None) -> None:
    """A fold's prompt must not start from one that was trained on the fold's own test queries."""
    if not isinstance(start, StoredPrompt):
        return
    for collection in sources:
        for name in trained_on(start.card):
            folds = split_fold(collection.id)[1], split_fold(name)[1]
            if all(folds) and overlap(name, collection.id) and canonical(name) != canonical(collection.id):
                raise PromptError(
                    f"the prompt to start from was trained on test queries of {collection.id} (as {name}); start from "
                    "another"
                )


def _origin(start: StoredPrompt | StartConfig | None) -> dict[str, Any]:
    """What the prompt is and where it starts, for the identity."""
    if isinstance(start, StoredPrompt):
        origin: dict[str, Any] = {"from": start.domain, "prompt": start.prompt.spec.as_dict()}
        return {**origin, "digest": start.prompt.digest(), "trained_on": trained_on(start.card)}
    settings = start or StartConfig()
    return {"from": settings.start, "seed": settings.seed, "prompt": settings.spec.as_dict(), "digest": None}


def _claim(
    output: Path, identity: Mapping[str, Any], encoder: SentenceTransformer, resume: bool, *, anew: bool
) -> bool:
    """Whether `output` holds the finished training; else it is made ready. Refuses somebody else's folder.

    `resume`: a finished one counts; `anew`: an interrupted one does not.
    """
    # As JSON reads it back, so that tuples and lists compare equal.
    wanted = json.loads(json.dumps(identity))
    if (output / CARD).exists() and resume:
        stored = load_prompt(output, encoder)
        if all(stored.card.get(key) == value for key, value in wanted.items()):
            return True
        raise OtherTrainingError(
            f"{output} holds a prompt trained with other settings or data; choose another folder, or train anew "
            "with --no-resume (resume=False)"
        )
    work = output / WORK
    if anew and work.exists():
        shutil.rmtree(work)
    if any(work.glob("checkpoint-*")):
        if json.loads((work / "identity.json").read_text()) != wanted:
            raise OtherTrainingError(
                f"{output} holds an interrupted training with other settings or data; choose another folder, or "
                "begin anew with --no-resume (resume=False)"
            )
    elif not (work / "identity.json").exists() or json.loads((work / "identity.json").read_text()) != wanted:
        if work.exists():  # it ended before its first checkpoint: nothing to go on from
            shutil.rmtree(work)
        write_json(work / "identity.json", wanted)
    return False


def _starting_prompt(
    encoder: SentenceTransformer,
    config: TrainingConfig,
    start: StoredPrompt | StartConfig | None,
    data: Mapping[str, Sequence[TrainingPair]],
) -> Prompt:
    if isinstance(start, StoredPrompt):
        prompt = Prompt(start.prompt.spec, start.prompt.tensors())
    else:
        settings = start or StartConfig()
        texts = [pair.document for pairs in data.values() for pair in pairs[:8]]
        prompt = new_prompt(encoder, settings.spec, start=settings.start, texts=texts, seed=settings.seed)
    if config.side == "query":
        prompt = _for_query_side(prompt, keep_documents=config.document_side == "start")
    if config.side == "both" and prompt.spec.sides == "query":
        raise PromptError(
            "a prompt whose sides are 'query' cannot be trained on both; start from a shared or untied one"
        )
    return prompt


def _for_query_side(prompt: Prompt, *, keep_documents: bool) -> Prompt:
    """The prompt with a query part to train, and the document part it has when that is kept, or none."""
    spec, tensors = prompt.spec, prompt.tensors()
    if keep_documents and spec.part_for("document") is None:
        raise PromptError("document_side 'start' needs a prompt that encodes documents too; start from such a one")
    parts = {"query": spec.part_for("query"), **({"document": spec.part_for("document")} if keep_documents else {})}
    changed = replace(spec, sides="untied" if keep_documents else "query")
    return Prompt(
        changed,
        {
            f"{new}.{name.partition('.')[2]}": tensor
            for new, old in parts.items()
            for name, tensor in tensors.items()
            if name.startswith(f"{old}.")
        },
    )
