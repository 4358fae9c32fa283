"""What labels of the target give: the ceiling, a few labels, and other methods given the same time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

import numpy as np

from foreword.baselines.spec import Method
from foreword.baselines.store import Baseline
from foreword.baselines.train import train_baseline
from foreword.benchmark.primary import adapted, stage_reach
from foreword.benchmark.prompts import multitask, new_start, run_of, seconds_of, settings, supervised, trained
from foreword.benchmark.stage import Found, Stage
from foreword.collections.folds import Fold, FoldCollection
from foreword.collections.records import TrainingPair
from foreword.common.errors import ForewordError
from foreword.prompts.encoder import transformer_of
from foreword.prompts.store import StoredPrompt, folder_name
from foreword.retrieval.runs import Run
from foreword.training.vectors import DocumentVectors

PROMPTS: Mapping[str, Mapping[str, Any]] = {
    "prompt": {},
    "prefix": {"kind": "prefix"},
    "input": {"kind": "input", "length": 20, "sides": "shared"},
}
"""What is trained under these names: the plan's prompt, P-tuning v2 (2110.07602), a shallow prompt (2104.08691)."""

METHODS = ("prompt", "full", "lora", "prefix", "input", "bitfit", "adapter", "linear-query")


def ceiling(stage: Stage, target: str, seed: int) -> None:
    """`supervised`: the multitask prompt trained further on all of the target's training labels.

    A target with test judgements alone is cut into the plan's number of folds: each query is answered by the prompt
    of its own fold, trained on the others' judgements.
    """

    def make() -> Found:
        if "train" not in stage.target(target).splits:
            return _by_folds(stage, target, seed)
        stored = supervised(stage, target, seed)
        return _by_prompt(stage, target, stored, f"supervised-seed{seed}", labels=None, seconds=seconds_of(stored))

    stage.cell(target, "supervised", seed, stage.plan.digest("multitask", "supervised"), make)


def _by_folds(stage: Stage, target: str, seed: int) -> Found:
    """Every query by its fold's prompt; parameters, bytes and seconds are a fold's mean."""
    count = stage.plan.folds
    run: Run = {}
    found: list[Found] = []
    for number in range(1, count + 1):
        part = FoldCollection(stage.target(target), Fold(number, count))
        stored = supervised(stage, target, seed, part)
        key = f"supervised-fold{number}of{count}-seed{seed}"
        found.append(_by_prompt(stage, target, stored, key, labels=None, seconds=seconds_of(stored)))
        run |= {query.query_id: found[-1].run.get(query.query_id, {}) for query in part.queries("test")}
    return replace(
        found[0], run=run, seconds=sum(each.seconds for each in found) / count, details={"folds_of_queries": count}
    )


def few_labels(stage: Stage, target: str, count: int, seed: int) -> None:
    """`transfer@k`: the default transfer with k of the target's labelled training pairs among its pseudo-queries."""

    def make() -> Found:
        began = time.perf_counter()
        start = multitask(stage, stage.plan.fold_of(target), seed)
        pairs = drawn(list(stage.target(target).pairs("train")), count, seed)
        stored, _ = adapted(stage, target, start, seed, labelled=pairs)
        seconds = time.perf_counter() - began
        return _by_prompt(stage, target, stored, f"transfer@{count}-seed{seed}", labels=count, seconds=seconds)

    stage.cell(target, f"transfer@{count}", seed, stage.plan.digest("multitask", "transfer"), make)


def drawn(pairs: Sequence[TrainingPair], count: int, seed: int) -> list[TrainingPair]:
    """A seeded choice; a larger one holds the smaller ones."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [pairs[i] for i in order[:count]]


def tune(stage: Stage, method: str, seed: int) -> float:
    """The learning rate of a method that is best on the dev splits of the plan's domains, in the plan's seconds."""
    budget = stage.plan.budget
    rates: Sequence[float] = budget["rates"][method]
    if len(rates) == 1:
        return rates[0]

    def dev(target: str, rate: float) -> float:
        card = _trained(stage, target, method, rate, seed, budget["seconds"]).card
        return float(card["metrics"]["dev"][-1]["dev"])

    means = {rate: np.mean([dev(name, rate) for name in budget["tuned_on"]]) for rate in rates}
    best = max(means, key=lambda rate: means[rate])
    stage.say(
        f"{method}: dev nDCG@10 by learning rate { ({rate: round(float(v), 4) for rate, v in means.items()}) }; {best}"
    )
    return best


def in_budget(stage: Stage, target: str, method: str, rate: float, seed: int, seconds: float) -> None:
    """`prompt@60s`, `full@60s`, ...: from the base model, with all labels, in the same seconds of training."""
    system = f"{method}@{seconds:g}s"

    def make() -> Found:
        made = _trained(stage, target, method, rate, seed, seconds)
        key = f"{system}-seed{seed}"
        if isinstance(made, StoredPrompt):
            course = run_of(made)
            found = _by_prompt(stage, target, made, key, labels=None, seconds=float(course["training_seconds"]))
            return _with(found, {"learning_rate": rate, "steps": course["steps"]})
        if method == "linear-query":  # the documents are the base model's
            vectors = stage.documents(target, None, "base")
        else:
            vectors = stage.documents(target, None, key, encoder=made.encoder)
        return Found(
            stage.search(target, None, vectors, encoder=made.encoder),
            labels=None,
            trained_parameters=made.parameters,
            stored_bytes=int(made.card["bytes"]),
            seconds=made.training_seconds,
            details={"learning_rate": rate, "steps": made.run["steps"]},
        )

    # What else was tried, and how long, is not the cell's business: other budgets leave it as it is.
    stage.cell(target, system, seed, f"{stage.plan.digest()}, rate {rate:g}", make)


def _trained(stage: Stage, target: str, method: str, rate: float, seed: int, seconds: float) -> StoredPrompt | Baseline:
    values = {"steps": 2000, "evaluate_every": 2000, "dev_queries": 200, "dev_documents": 400, "learning_rate": rate}
    folder = f"{method}@{seconds:g}s-{rate:g}-seed{seed}/{folder_name(target)}"
    if method in PROMPTS:
        config = settings(stage, "both", seed, values)
        start = new_start(stage, seed, **PROMPTS[method])
        return trained(stage, folder, stage.target(target), target, config, start, seconds=seconds)
    if method not in get_args(Method):
        raise ForewordError(f"no method {method!r} in this part; there are: {', '.join([*PROMPTS, *get_args(Method)])}")
    config = settings(stage, "query" if method == "linear-query" else "both", seed, values)
    stage.say(f"training {folder}")
    place = stage.output / "prompts" / folder
    return train_baseline(
        stage.encoder,
        stage.target(target),
        place,
        method=cast("Method", method),
        config=config,
        seconds=seconds,
        quiet=True,
    )


def _by_prompt(
    stage: Stage, target: str, stored: StoredPrompt, key: str, *, labels: int | None, seconds: float
) -> Found:
    name = stage.carry(key, stored)
    vectors: DocumentVectors = stage.documents(target, name, key)
    run = stage.search(target, name, vectors)
    transformer_of(stage.encoder).remove(name)  # an `input` prompt leaves other texts less room while it is carried
    return Found(
        run,
        labels=labels,
        trained_parameters=stored.prompt.count(),
        stored_bytes=int(stored.card["bytes"]),
        seconds=seconds,
        similarity=stage_reach(stage, target).nearness,
    )


def _with(found: Found, details: dict[str, Any]) -> Found:
    return replace(found, details={**found.details, **details})
