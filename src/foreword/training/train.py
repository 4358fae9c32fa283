"""Train one prompt, for one domain or for several at once."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from foreword.collections.records import Collection, TrainingPair, fingerprint
from foreword.common.errors import DataError, ForewordError, OtherTrainingError, PromptError
from foreword.common.files import write_json
from foreword.prompts.encoder import resolve_precision, state_digest, text_prompt, transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.start import new_prompt
from foreword.prompts.store import CARD, StoredPrompt, describe_backbone, load_prompt, save_prompt
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.dev import DevEvaluator, DevSet, seed_everything
from foreword.training.losses import CorpusPairs
from foreword.training.processes import is_main, join, on_main, world_size
from foreword.training.trainer import build_trainer
from foreword.training.vectors import DocumentVectors, embed_documents

WORK = ".foreword-training"
"""The folder, in the output, of checkpoints and of what a training follows from; gone when it is finished."""

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
        resume: False: begin anew.
        quiet: no progress bars.

    Raises:
        DataError: a collection has no training pairs, or `documents` lack one of its documents.
        PromptError: `start` does not fit the backbone or the side.
        ForewordError: `output` holds a training of another configuration.
    """
    sources = [collections] if not isinstance(collections, Sequence) else list(collections)
    if not sources:
        raise DataError("no collection to train on")
    several = len(sources) > 1
    config = config or TrainingConfig.default("both" if several else "query", several=several)
    output = Path(output)
    domain = domain or (sources[0].id if len(sources) == 1 else "multitask")
    data = {c.id: _pairs_of(c, pairs, config.hard_negatives if config.side == "both" else 0) for c in sources}
    if len(data) < len(sources):
        raise DataError(f"a collection is given twice: {', '.join(c.id for c in sources)}")
    config = config.with_steps(sum(map(len, data.values())), world_size())
    join(encoder.device)
    identity = _identity(encoder, sources, data, domain, config, start, documents, pairs)
    if on_main(lambda: _claim(output, identity, encoder, resume)):
        return load_prompt(output, encoder)
    began = time.time()
    prompt = _starting_prompt(encoder, config, start, data)
    start_digest = prompt.digest()
    transformer = transformer_of(encoder)
    route, weights = transformer.route, state_digest(encoder)
    transformer.add(TRAINEE, prompt)
    transformer.route = TRAINEE
    try:
        history = _run(encoder, sources, data, prompt, output, config, documents or {}, quiet)
    finally:
        transformer.remove(TRAINEE)
        transformer.route = route
        # accelerate leaves its mixed precision on the model, and a mark that lets the next training's pass by.
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            encoder.__dict__.pop(name, None)
        encoder.requires_grad_(False)
        encoder.eval()
    if state_digest(encoder) != weights:
        raise ForewordError("the backbone changed in training; this is a bug, please report it")
    evaluator, losses = history
    record = {
        **identity,
        "start_digest": start_digest,
        "trained_parameters": sum(p.numel() for p in prompt.parameters() if p.requires_grad),
        "metrics": {"dev": evaluator.history, "best_step": evaluator.best_step, "loss": losses},
        "text": {
            "query_length": config.query_length,
            "document_length": config.document_length,
            "query_template": f"{text_prompt(encoder, 'query') or ''}{{text}}",
            "document_template": f"{text_prompt(encoder, 'document') or ''}{{title}} {{text}}",
        },
    }
    finished = {
        "seconds": round(time.time() - began, 2),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

    def store() -> None:
        save_prompt(output, evaluator.best_prompt(), encoder, domain, dtype=config.dtype, record=record, run=finished)
        shutil.rmtree(output / WORK)

    on_main(store)
    return load_prompt(output, encoder)


def _pairs_of(
    collection: Collection, given: Mapping[str, Sequence[TrainingPair]] | None, hard_negatives: int
) -> list[TrainingPair]:
    if given is not None and collection.id in given:
        pairs = list(given[collection.id])
    elif "train" in collection.splits:
        pairs = list(collection.pairs("train", hard_negatives=hard_negatives))
    else:
        raise DataError(
            f"{collection.id} has no training split (it has: {', '.join(collection.splits) or 'none'}); judgements of "
            "its test split are not for training. Use pseudo-queries (--pseudo-queries), or transfer"
        )
    if not pairs:
        raise DataError(f"{collection.id} has no training pairs")
    return pairs


def _identity(
    encoder: SentenceTransformer,
    sources: Sequence[Collection],
    data: Mapping[str, Sequence[TrainingPair]],
    domain: str,
    config: TrainingConfig,
    start: StoredPrompt | StartConfig | None,
    documents: Mapping[str, DocumentVectors] | None,
    pairs: Mapping[str, Sequence[TrainingPair]] | None,
) -> dict[str, Any]:
    """Everything that the trained prompt follows from; two trainings with one identity are the same training."""
    import hashlib

    def digest(pairs: Sequence[TrainingPair]) -> str:
        text = "\x1e".join("\x1f".join((p.query_id, p.query, p.doc_id, p.document, *p.negatives)) for p in pairs)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    if isinstance(start, StoredPrompt):
        origin: dict[str, Any] = {"from": start.domain, "prompt": start.prompt.spec.as_dict()}
    else:
        settings = start or StartConfig()
        origin = {"from": settings.start, "seed": settings.seed, "prompt": settings.spec.as_dict()}
    device = encoder.device.type
    described = describe_backbone(encoder)
    supervision = {
        c.id: {"method": "given pairs"} if pairs and c.id in pairs else c.facts.get("supervision", {"method": "train"})
        for c in sources
    }
    return {
        "domain": domain,
        "fingerprint": described["fingerprint"],
        "encoder": {name: described[name] for name in ("pooling", "normalized", "similarity", "text_prompts")},
        "training": {
            **config.as_dict(),
            "precision": resolve_precision(config.precision, device),
            "device": device,
            **({"processes": world_size()} if world_size() > 1 else {}),
        },
        "supervision": supervision[sources[0].id] if len(sources) == 1 else supervision,
        "data": {
            c.id: {
                "collection": fingerprint(c, [split for split in c.splits if split != "test"]),
                "pairs": len(data[c.id]),
                "pairs_sha256": digest(data[c.id]),
                **({"vectors": documents[c.id].digest()} if documents and c.id in documents else {}),
            }
            for c in sources
        },
        "start": {**origin, "digest": _digest_of(start)},
        "max_seq_length": encoder.max_seq_length,
    }


def _digest_of(start: StoredPrompt | StartConfig | None) -> str | None:
    return start.prompt.digest() if isinstance(start, StoredPrompt) else None


def _claim(output: Path, identity: Mapping[str, Any], encoder: SentenceTransformer, resume: bool) -> bool:
    """Whether `output` holds the finished training; else it is made ready. Refuses somebody else's folder."""
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
    if not resume and work.exists():
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


def _run(
    encoder: SentenceTransformer,
    sources: Sequence[Collection],
    data: Mapping[str, Sequence[TrainingPair]],
    prompt: Prompt,
    output: Path,
    config: TrainingConfig,
    documents: Mapping[str, DocumentVectors],
    quiet: bool,
) -> tuple[DevEvaluator, list[dict[str, Any]]]:
    seed_everything(config.seed)
    vectors: dict[str, DocumentVectors] = {}
    if config.side == "query":
        for c in sources:
            if c.id in documents:
                vectors[c.id] = documents[c.id].checked(encoder)
                continue
            vectors[c.id] = embed_documents(
                encoder,
                c,
                split="train" if "train" in c.splits else None,
                route=TRAINEE if config.document_side == "start" else None,
                precision=config.precision,
                max_length=config.document_length,
                quiet=quiet,
            )
    sampling: dict[str, Any] = {
        "queries": config.dev_queries,
        "documents": config.dev_documents,
        "seed": config.seed,
    }
    dev = {c.id: DevSet.of(c, vectors=vectors.get(c.id), **sampling) for c in sources}
    evaluator = DevEvaluator(
        {name: dev_set for name, dev_set in dev.items() if dev_set is not None},
        prompt,
        TRAINEE,
        output / WORK,
        dtype=config.dtype,
        precision=config.precision,
        query_length=config.query_length,
        document_length=config.document_length,
        temperature=config.temperature,
    )
    corpus = {c.id: _corpus_pairs(c.id, data[c.id], vectors[c.id]) for c in sources} if vectors else None
    trainer = build_trainer(encoder, prompt, data, corpus, evaluator, output / WORK, config, quiet=quiet)
    checkpoints = sorted((output / WORK).glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    complete = [path for path in checkpoints if (path / "trainer_state.json").exists()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        trainer.train(resume_from_checkpoint=str(complete[-1]) if complete else None)
    if is_main() and evaluator.history[-1]["step"] < trainer.state.global_step:  # the steps end between evaluations
        evaluator(encoder, steps=trainer.state.global_step)
    losses = [
        {"step": entry["step"], "loss": round(entry["loss"], 5)}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    return evaluator, losses


def _corpus_pairs(name: str, pairs: Sequence[TrainingPair], vectors: DocumentVectors) -> CorpusPairs:
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
