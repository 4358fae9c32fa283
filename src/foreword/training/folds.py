"""How many steps are trained, where labels are too few to set some aside: by k-fold, and then on all of them.

The labels are cut into k folds, and k trainings start alike, each without one fold, whose queries it is evaluated on.
Every label is a dev query once, so that the step is chosen on as many queries as there are labels (Stone,
"Cross-validatory choice and assessment of statistical predictions", 1974). The training on all labels then follows the
same schedule and ends at that step, as the k did when they were looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection, TrainingPair, normalise
from foreword.collections.supervision import position
from foreword.files import kept_json, write_json
from foreword.prompts.routes import Route
from foreword.prompts.store import DTYPES
from foreword.training.config import TrainingConfig
from foreword.training.dev import FEW, DevSet, Scores, chosen, keep
from foreword.training.trainee import Trainee, on_main
from foreword.training.trainer import Learner, TrainingCourse, dev_sets_of, run_training
from foreword.training.vectors import DocumentVectors, TrainingData

RECORD = "fold.json"
"""In a fold's folder, when it is finished."""


def run_course(
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
) -> TrainingCourse:
    """Train, and choose the step to keep: by the dev part, or by folds of all labels where it is small.

    Arguments and errors are those of `foreword.training.trainer.run_training`. Under a time budget (`seconds`), dev
    decides, however small.
    """
    how: dict[str, Any] = {"checkpoints": checkpoints, "quiet": quiet}
    if seconds is not None or not too_few(data, config):
        return run_training(encoder, [Learner(data, trainee, route)], work, config, seconds=seconds, **how)[0]
    vectors: dict[str, DocumentVectors] = {}
    if config.side == "query":
        vectors = data.embedded(encoder, config, route if config.document_side == "start" else None, quiet=quiet)
    pairs = {c.id: [*data.pairs[c.id], *_dev_pairs(c, config)] for c in data.sources}
    labels = replace(data, pairs=pairs, documents=vectors)
    dev_sets = dev_sets_of(labels, vectors, config, ("train", "dev"))
    folds = folds_of(dev_sets, config.dev_folds, config.seed)
    if len(folds) < 2:  # copies of one query
        return run_training(encoder, [Learner(data, trainee, route)], work, config, seconds=None, **how)[0]
    start = {name: tensor.clone() for name, tensor in trainee.tensors().items()}
    done: list[dict[str, Any]] = []
    for number, held in enumerate(folds, 1):
        place = work / f"fold{number}"
        finished = on_main(partial(kept_json, place / RECORD))
        if finished is None:
            trainee.assign(start)
            parts = {name: dev_sets[name].part(query_ids) for name, query_ids in held.items()}
            learner = Learner(without(labels, held), trainee, route, parts)
            [course] = run_training(encoder, [learner], place, replace(config, patience=0), seconds=None, **how)
            finished = on_main(partial(_finish, place, course))
        done.append(finished)
    history, scores = together(done)
    best, reason = chosen([entry["step"] for entry in history], scores)
    place = work / "all"
    trainee.assign(start)
    course = TrainingCourse(place, [], [], 0, {}, [], done[0]["parameters"], 0, 0.0)
    if best:
        learner = Learner(labels, trainee, route, {})
        [course] = run_training(encoder, [learner], place, config, seconds=None, last=best, **how)
    else:
        on_main(lambda: keep(place, trainee.rounded(DTYPES[config.dtype]).tensors()))
    return replace(
        course,
        history=history,
        scores=scores,
        best_step=best,
        choice={"by": "folds", "folds": len(done), **reason},
        steps=course.steps + sum(one["steps"] for one in done),
        seconds=round(course.seconds + sum(one["seconds"] for one in done), 3),
    )


def too_few(data: TrainingData, config: TrainingConfig) -> bool:
    """Whether there is a dev part, and it is too small to choose by; its texts have to be found in train's corpus."""
    if config.dev_folds < 2 or not config.dev_queries:
        return False
    for c in data.sources:
        if c.id in data.given or "dev" not in c.splits or {"train", "dev"} & set(c.own_corpora):
            return False
    judged = (docs for c in data.sources for docs in c.qrels("dev").values())
    return 0 < sum(any(grade > 0 for grade in docs.values()) for docs in judged) < FEW


def _dev_pairs(collection: Collection, config: TrainingConfig) -> Iterable[TrainingPair]:
    return collection.pairs("dev", hard_negatives=config.hard_negatives if config.side == "both" else 0)


def folds_of(dev_sets: Mapping[str, DevSet], count: int, seed: int) -> list[dict[str, set[str]]]:
    """The ids of each fold's queries, by collection: in the order of a hash, each to the smallest fold.

    Copies are in one fold, and so are queries that share a relevant document, unless too many do.
    """
    folds: list[dict[str, set[str]]] = [{} for _ in range(count)]
    for name, dev in dev_sets.items():
        texts = {query.query_id: {f"text {normalise(query.text)}"} for query in dev.queries}
        judged = {query_id: dev.qrels[query_id].items() for query_id in texts}
        documents = {q: {f"document {doc_id}" for doc_id, grade in own if grade > 0} for q, own in judged.items()}
        groups = _joined({query_id: own | documents[query_id] for query_id, own in texts.items()})
        if max(map(len, groups)) * min(count, len(texts)) >= 2 * len(texts):
            groups = _joined(texts)
        place = {q.query_id: (position(q.text, "labels", seed), q.query_id) for q in dev.queries}
        for group in sorted(groups, key=lambda group: min(place[query_id] for query_id in group)):
            smallest = min(folds, key=lambda fold: len(fold.get(name, ())))
            smallest.setdefault(name, set()).update(group)
    return [fold for fold in folds if fold]


def _joined(marks: Mapping[str, Set[str]]) -> list[set[str]]:
    """Groups of what has a mark in common, directly or through others."""
    groups: list[tuple[set[str], set[str]]] = []
    for name, own in marks.items():
        names, seen = {name}, set(own)
        apart = []
        for other, theirs in groups:
            if seen.isdisjoint(theirs):
                apart.append((other, theirs))
            else:
                names, seen = names | other, seen | theirs
        groups = [*apart, (names, seen)]
    return [names for names, _ in groups]


def without(labels: TrainingData, held: Mapping[str, Set[str]]) -> TrainingData:
    """The labels of the other folds."""
    pairs = {n: [p for p in own if p.query_id not in held.get(n, ())] for n, own in labels.pairs.items()}
    kept = [source for source in labels.sources if pairs[source.id]]
    return replace(labels, sources=kept, pairs={source.id: pairs[source.id] for source in kept})


def _finish(folder: Path, course: TrainingCourse) -> dict[str, Any]:
    """Write, and give, what is needed of a fold's training."""
    names = ("history", "scores", "steps", "seconds", "parameters")
    record = {name: getattr(course, name) for name in names}
    write_json(folder / RECORD, record)
    return record


def together(folds: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Scores]]:
    """The evaluations of all folds as one, on every label: history and scores."""
    names = dict.fromkeys(name for fold in folds for name in fold["scores"][0])
    sizes = [sum(map(len, fold["scores"][0].values())) for fold in folds]
    history: list[dict[str, Any]] = []
    scores: list[Scores] = []
    for number, entry in enumerate(folds[0]["history"]):
        joined = {name: [v for fold in folds for v in fold["scores"][number].get(name, ())] for name in names}
        dev = float(np.mean([np.mean(values) for values in joined.values()]))
        loss = float(np.average([fold["history"][number]["loss"] for fold in folds], weights=sizes))
        history.append({"step": entry["step"], "dev": round(dev, 6), "loss": round(loss, 6)})
        scores.append(joined)
    return history, scores
