"""The primary part: systems without training, the multitask prompt alone, and the default transfer."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from foreword.collections.collection import TrainingPair
from foreword.collections.supervision import Fold, FoldCollection
from foreword.errors import ForewordError, PromptError, TooLittleTextError
from foreword.evaluation.calibration import calibrate, calibrate_from_dev
from foreword.files import write_json
from foreword.lab.baselines import Baseline, Method, train_baseline
from foreword.lab.records import BASE, TRANSFER, Cell
from foreword.lab.stage import Found, Stage, multitask, new_start, run_of, seconds_of, settings, supervised, trained
from foreword.lab.statistics import differences, macro_mean
from foreword.prompts.encoder import transformer_of
from foreword.prompts.store import StoredPrompt, folder_name, read_card
from foreword.retrieval.runs import Run
from foreword.tables import NOTHING, Entry, Table
from foreword.training.vectors import DocumentVectors
from foreword.transferring.adapt import adapt
from foreword.transferring.config import AdaptConfig
from foreword.transferring.reach import Array, Reach, document_features, reach_of
from foreword.transferring.trial import Evidence

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


# What labels of the target give: the ceiling, a few labels, and other methods given the same time.


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


# Calibration by domain, base against prompts: whether scores can be read as probabilities of relevance.


CALIBRATION_FILE = "calibration.json"
HITS = 10
PT_RETRIEVAL_HITS = 5
SYSTEMS = ("base", "multitask", "transfer", "supervised")


def calibration(stage: Stage, targets: Sequence[str], seed: int) -> None:
    """Write `calibration.json`: each system on each target, its temperature fitted on the target's dev split.

    The temperature is fitted with labels, so this is about how a system's scores behave, not about transfer.
    """
    found = []
    for target in targets:
        for system, key, route in _routes(stage, target, seed):
            vectors = stage.documents(target, route, key)
            test, dev = (stage.search(target, route, vectors, split) for split in ("test", "dev"))
            qrels = stage.target(target).qrels
            fitted = calibrate_from_dev(test, qrels("test"), dev, qrels("dev"), k=HITS, several="share")
            theirs = calibrate(test, qrels("test"), k=PT_RETRIEVAL_HITS, several="each").as_dict()
            found.append(
                {
                    "target": target,
                    "system": system,
                    "seed": seed,
                    **fitted.as_dict(),
                    "pt_retrieval": {"ece": theirs["ece_equal_width"], "curve": theirs["curve_equal_width"]},
                }
            )
            stage.say(f"{target}: {system}: ECE {fitted.ece:.3f}, Brier {fitted.brier.score:.4f}")
    write_json(stage.output / CALIBRATION_FILE, found)


def _routes(stage: Stage, target: str, seed: int) -> list[tuple[str, str, str | None]]:
    """System, the key of its document vectors, and its route."""
    fold = stage.plan.fold_of(target)
    shared = multitask(stage, fold, seed)
    own, _ = adapted(stage, target, shared, seed)
    return [
        ("base", "base", None),
        ("multitask", f"multitask-fold{fold}-seed{seed}", stage.carry("multitask", shared)),
        ("transfer", f"transfer-seed{seed}", stage.carry("transfer", own)),
        ("supervised", f"supervised-seed{seed}", stage.carry("supervised", supervised(stage, target, seed))),
    ]


def calibration_table(output: Path) -> Table | None:
    """Systems by the means over targets; None where it has not been run."""
    path = output / CALIBRATION_FILE
    if not path.exists():
        return None
    records: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    values = {"ECE": "ece", "Brier": "brier", "temperature": "temperature"}
    lines, rows = [], []
    for system in SYSTEMS:
        own = [record for record in records if record["system"] == system]
        if not own:
            continue
        means = {name: sum(float(record[key]) for record in own) / len(own) for name, key in values.items()}
        means["ECE, PT-Retrieval's"] = sum(float(record["pt_retrieval"]["ece"]) for record in own) / len(own)
        lines.append((Entry(system), *(Entry(f"{value:.3f}") for value in means.values())))
        rows.append({"system": system, "targets": len(own), **means})
    notes = (
        f"Probabilities: softmax over a query's {HITS} best scores, divided by a temperature fitted on the target's "
        "dev split; bins of equal count; each of R relevant hits counts 1/R. Brier: mean squared error of the hits.",
        f"PT-Retrieval's definition: {PT_RETRIEVAL_HITS} hits, temperature 1, bins of equal width (2207.07087).",
    )
    columns = ("system", *(name for name in (rows[0] if rows else {}) if name not in ("system", "targets")))
    title = f"Calibration, means over {rows[0]['targets'] if rows else NOTHING} targets"
    return Table(title, columns, frozenset({0}), tuple(lines), notes, tuple(rows))


# What a benchmark's cells say to `foreword advise`: gains on domains whose labels no choice had seen.


EVIDENCE_FILE = "evidence.json"


def evidence_of(cells: Sequence[Cell], output: Path) -> list[dict[str, Any]]:
    """An entry of `foreword.transferring.trial` for each target that the default transfer has decided on.

    Where it stayed at the base model, the gain is what the multitask prompt would have brought: what was avoided.
    """
    found = []
    for target in sorted({cell.target for cell in cells if cell.system == "transfer"}):
        own = [cell for cell in cells if cell.target == target]
        decided = next(cell for cell in own if cell.system == "transfer")
        reach = decided.details["reach"]
        gain = _mean(own, "multitask" if decided.decision == BASE else "transfer")
        supervised = [cell for cell in own if cell.system == "supervised"]
        entry = Evidence(
            target=target,
            genre=decided.genre,
            nearness=reach["nearness"],
            limit=reach["limit"],
            within=reach["within"],
            pseudo_gain=None,
            gain=round(gain, 6),
            supervised_gain=round(_mean(own, "supervised"), 6) if supervised else None,
            pairs=_pairs(output, supervised[0]) if supervised else None,
        )
        found.append(asdict(entry))
    return found


def _mean(cells: Sequence[Cell], system: str) -> float:
    """The mean difference from the base model over one target's queries."""
    return macro_mean(differences(cells, system, "base", "nDCG@10"))


def _pairs(output: Path, cell: Cell) -> int | None:
    """Training pairs of the ceiling's prompt; None where its folder is gone."""
    folder = output / "prompts" / f"supervised-seed{cell.seed}" / folder_name(cell.target)
    try:
        data = read_card(folder).get("data") or {}
    except PromptError:
        return None
    return sum(int(entry["pairs"]) for entry in data.values())
