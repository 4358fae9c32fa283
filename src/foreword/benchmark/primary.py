"""The primary part: systems without training, the multitask prompt alone, and the default transfer."""

from __future__ import annotations

import time
from collections.abc import Sequence

from foreword.benchmark.prompts import multitask, seconds_of
from foreword.benchmark.records import BASE, TRANSFER
from foreword.benchmark.stage import Found, Stage
from foreword.collections.records import TrainingPair
from foreword.common.errors import TooLittleTextError
from foreword.prompts.store import StoredPrompt, folder_name
from foreword.transferring.adapt import AdaptConfig, adapt
from foreword.transferring.reach import Reach, reach_of
from foreword.transferring.similarity import Array, document_features

FEATURES = 400
"""Documents of each domain that tell how near domains are."""


def plain(stage: Stage, target: str) -> None:
    """`base`, `bm25` and `base+bm25`."""
    configuration = stage.plan.digest()

    def base() -> Found:
        began = time.perf_counter()
        vectors = stage.documents(target, None, "base")
        return Found(stage.search(target, None, vectors), details={"embedding_seconds": _since(began)})

    stage.cell(target, "base", 0, configuration, base)
    stage.cell(target, "bm25", 0, configuration, lambda: Found(stage.bm25(target)))
    stage.fused(target, "base", 0, configuration)


def transferred(stage: Stage, target: str, seed: int) -> None:
    """`multitask` and `transfer`, and both fused with BM25."""
    fold = stage.plan.fold_of(target)
    configuration = stage.plan.digest("multitask", "transfer")
    shared: list[StoredPrompt] = []

    def source() -> StoredPrompt:
        if not shared:
            shared.append(multitask(stage, fold, seed))
        return shared[0]

    def all_sources() -> Found:
        stored = source()
        name = stage.carry("multitask", stored)
        vectors = stage.documents(target, name, f"multitask-fold{fold}-seed{seed}")
        return Found(
            stage.search(target, name, vectors),
            stored_bytes=int(stored.card["bytes"]),
            similarity=stage_reach(stage, target).nearness,
            details={"shared_parameters": stored.prompt.count(), "shared_seconds": seconds_of(stored)},
        )

    def default() -> Found:
        began = time.perf_counter()
        reach = stage_reach(stage, target)
        details = {"reach": reach.as_dict()}
        if not reach.within:
            run = stage.search(target, None, stage.documents(target, None, "base"))
            return Found(run, decision=BASE, similarity=reach.nearness, details=details)
        stored, made = adapted(stage, target, source(), seed)
        seconds = time.perf_counter() - began
        name = stage.carry("transfer", stored)
        vectors = stage.documents(target, name, f"transfer-seed{seed}")
        return Found(
            stage.search(target, name, vectors),
            trained_parameters=stored.prompt.count() if made else 0,
            stored_bytes=int(stored.card["bytes"]),
            seconds=seconds,
            decision=TRANSFER,
            similarity=reach.nearness,
            details={**details, "adapted": made, "adaptation": stored.card.get("adaptation", {})},
        )

    stage.cell(target, "multitask", seed, configuration, all_sources)
    stage.fused(target, "multitask", seed, configuration)
    stage.cell(target, "transfer", seed, configuration, default)
    stage.fused(target, "transfer", seed, configuration)


def adapted(
    stage: Stage, target: str, start: StoredPrompt, seed: int, labelled: Sequence[TrainingPair] = ()
) -> tuple[StoredPrompt, bool]:
    """The multitask prompt adapted to a target's text, or as it is where there is too little text; and which."""
    config = AdaptConfig(
        query_length=stage.plan.query_length,
        document_length=stage.plan.document_length,
        precision=stage.precision,
        seed=seed,
        **stage.plan.transfer,
    )
    with_labels = f"-labels{len(labelled)}" if labelled else ""
    stage.say(f"adapting to {target}{with_labels}, seed {seed}")
    folder = stage.output / "prompts" / f"adapted{with_labels}-seed{seed}" / folder_name(target)
    try:
        made = adapt(stage.encoder, stage.target(target), start, folder, config, labelled=labelled, quiet=True)
        return made, True
    except TooLittleTextError as error:
        stage.say(str(error))
        return start, False


def features(stage: Stage, name: str) -> Array:
    """Base embeddings of a sample of a domain's documents, made once."""
    if name not in stage.features:
        stage.features[name] = document_features(
            stage.encoder,
            stage.target(name),
            limit=FEATURES,
            precision=stage.precision,
            max_length=stage.plan.document_length,
            quiet=True,
        )
    return stage.features[name]


def stage_reach(stage: Stage, target: str) -> Reach:
    """Whether a target is within the reach of its fold's sources."""
    sources = stage.plan.sources(stage.plan.fold_of(target))
    return reach_of(features(stage, target), {name: features(stage, name) for name in sources})


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 2)
