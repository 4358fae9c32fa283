"""Few labels: every one is a dev query once, and a training that does not help ends where it started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import QUICK, contents, load
from tiny import random_prompt, toy_collection

from foreword.collections.collection import Document, MemoryCollection, Query, TrainingPair
from foreword.evaluation.measures import evaluate_run
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import load_prompt, save_prompt
from foreword.retrieval.search import exact_search
from foreword.training import folds
from foreword.training.dev import DevEvaluator, DevSet, PairedGain, chosen
from foreword.training.train import train, train_few

FEW = replace(QUICK, dev_folds=4, steps=8, evaluate_every=4)


def pairs_of(collection: MemoryCollection, split: str = "train") -> list[TrainingPair]:
    return list(collection.pairs(split))


def answered(pairs: list[TrainingPair]) -> list[TrainingPair]:
    """Each query is its document's own text, which any encoder finds: nothing can be gained."""
    return [replace(pair, query=pair.document) for pair in pairs]


# -- folds -----------------------------------------------------------------------------------------------------------


def test_every_label_is_a_dev_query_exactly_once(toy: MemoryCollection, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, tmp_path: Path) -> None:  # fmt: skip
    looked, trained = [], []
    run = folds.run_training

    def watched(encoder: Any, learners: Any, *rest: Any, **how: Any) -> Any:
        looked.extend({q.query_id for dev in one.dev_sets.values() for q in dev.queries} for one in learners)
        trained.extend({pair.query_id for pairs in one.data.pairs.values() for pair in pairs} for one in learners)
        return run(encoder, learners, *rest, **how)

    monkeypatch.setattr(folds, "run_training", watched)
    train(load(tiny_bert), toy, tmp_path / "it", config=FEW, quiet=True)
    labels = {query.query_id for split in ("train", "dev") for query in toy.queries(split)}
    held = looked[:4]
    assert sorted(q for fold in held for q in fold) == sorted(labels)
    assert all(inside == labels - fold for inside, fold in zip(trained, held, strict=False))
    assert max(map(len, held)) <= min(map(len, held)) + 2
    if len(looked) == 5:  # the last training, on all of them, looks at none
        assert looked[4] == set()
        assert trained[4] == labels


def test_copies_of_a_query_and_queries_of_a_document_are_in_one_fold() -> None:
    queries = [
        Query(f"q{n}", text) for n, text in enumerate(["red stone", "Red stone!", "blue", "green", "grey", "pink"])
    ]
    own = {q.query_id: {f"d{n}": 1, "other": 0} for n, q in enumerate(queries)}
    for judged, together in ((own, {"q0", "q1"}), ({**own, "q4": {"d5": 1}}, {"q4", "q5"})):
        parts = [fold["toy"] for fold in folds.folds_of({"toy": DevSet(queries, judged, [], None)}, 3, 0)]
        assert sorted(q for part in parts for q in part) == [q.query_id for q in queries]
        assert any(together <= part for part in parts)
        assert len(parts) == 3
    one = {"toy": DevSet(queries, {q.query_id: {"d": 1} for q in queries}, [], None)}  # all would be in one fold
    assert sorted(len(fold["toy"]) for fold in folds.folds_of(one, 50, 0)) == [1, 1, 1, 1, 2]


def test_documents_that_were_trained_on_do_not_choose_where_others_can() -> None:
    corpus = tuple(Document(f"d{n}", f"word{n}") for n in range(90))
    queries = tuple(Query(f"q{n}", f"word{n} again") for n in range(90))
    judged = {f"q{n}": {f"d{n}": 1} for n in range(90)}
    toy = MemoryCollection("toy/many", "toy", corpus, {"dev": queries}, {"dev": judged})
    how: dict[str, Any] = {"queries": 80, "documents": 10, "seed": 0}
    fresh = DevSet.of(toy, trained={f"d{n}" for n in range(25)}, **how)
    assert fresh is not None
    assert {q.query_id for q in fresh.queries} == {f"q{n}" for n in range(25, 90)}
    every = DevSet.of(toy, trained={f"d{n}" for n in range(40)}, **how)  # 50 others are too few
    assert every is not None
    assert len(every.queries) == 80


def test_the_folds_decide_as_separate_trainings_would(tiny_bert: Path, toy: MemoryCollection, tmp_path: Path) -> None:
    """The curve in the card is that of four trainings on hand-made collections, each without a fold."""
    stored = train(load(tiny_bert), toy, tmp_path / "it", config=FEW, quiet=True)
    every = [*toy.queries("train"), *toy.queries("dev")]
    judged = {**toy.qrels("train"), **toy.qrels("dev")}
    dev = {toy.id: DevSet(every, judged, [], None)}
    found: dict[int, list[float]] = {}
    sizes = []
    for number, fold in enumerate(folds.folds_of(dev, 4, FEW.seed)):
        held = fold[toy.id]
        sizes.append(len(held))
        splits = {
            "train": [q for q in every if q.query_id not in held],
            "dev": [q for q in every if q.query_id in held],
        }
        apart = replace(
            toy,
            query_texts={name: tuple(queries) for name, queries in splits.items()},
            judgements={name: {q.query_id: judged[q.query_id] for q in queries} for name, queries in splits.items()},
        )
        alone = train(load(tiny_bert), apart, tmp_path / str(number), config=replace(FEW, dev_folds=0), quiet=True)
        for entry in alone.card["metrics"]["dev"]:
            found.setdefault(entry["step"], []).append(entry["dev"])
    assert {entry["step"]: entry["dev"] for entry in stored.card["metrics"]["dev"]} == pytest.approx(
        {step: float(np.average(values, weights=sizes)) for step, values in found.items()}, abs=1e-5
    )
    choice = stored.card["metrics"]["choice"]
    assert (choice["by"], choice["folds"], choice["queries"]) == ("folds", 4, 44)


@pytest.mark.parametrize(("side", "origin"), [("query", "base"), ("both", "prompt")])
def test_labels_that_teach_nothing_leave_the_start_to_the_bit(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, side: Any, origin: str
) -> None:
    encoder, start = load(tiny_bert), None
    if origin == "prompt":
        config = replace(QUICK, side="both", dev_queries=0)
        start = train(encoder, toy_collection("toy/two"), tmp_path / "start", config=config, quiet=True)
        transformer_of(encoder).add("start", start.prompt)
    config = replace(FEW, side=side, learning_rate=0.3)
    labels = answered(pairs_of(toy))
    stored = train_few(encoder, toy, labels, tmp_path / "few", start=start, config=config, quiet=True)
    metrics = stored.card["metrics"]
    assert (metrics["dev"][0]["dev"], metrics["best_step"], metrics["choice"]["by"]) == (1.0, 0, "folds")
    transformer_of(encoder).add("few", stored.prompt)
    for task in ("query", "document"):
        texts = [query.text for query in toy.queries("test")]
        before = encode(encoder, texts, task, route=start and "start")  # type: ignore[arg-type]
        np.testing.assert_array_equal(encode(encoder, texts, task, route="few"), before)  # type: ignore[arg-type]


def test_useful_labels_gain_on_queries_that_nobody_looked_at(tiny_bert: Path, tmp_path: Path) -> None:
    """A start that spoils the queries is mended by 40 labels, for 60 other queries, too."""
    encoder, corpus = load(tiny_bert), toy_collection(documents=100).corpus
    spoilt = random_prompt(encoder, PromptSpec(length=4, sides="query"), scale=0.3)
    save_prompt(tmp_path / "start", spoilt, encoder, "spoilt", dtype="float32")
    start = load_prompt(tmp_path / "start", encoder)
    toy = MemoryCollection("toy/spoilt", "toy", corpus, {}, {})
    labels = [TrainingPair(doc.doc_id, doc.content, doc.doc_id, doc.content) for doc in corpus[:40]]
    config = replace(FEW, steps=20, evaluate_every=10, dev_folds=3, learning_rate=0.03)
    stored = train_few(encoder, toy, labels, tmp_path / "it", start=start, config=config, quiet=True)
    assert stored.card["metrics"]["best_step"] > 0
    transformer_of(encoder).add("start", start.prompt)
    transformer_of(encoder).add("few", stored.prompt)
    ids = [doc.doc_id for doc in corpus]
    documents = encode(encoder, [doc.content for doc in corpus], "document")
    scores = {}
    for route in ("start", "few"):
        queries = encode(encoder, [doc.content for doc in corpus[40:]], "query", route=route)
        run = exact_search(queries, ids[40:], documents, k=10, document_ids=ids)
        scores[route] = evaluate_run(run, {name: {name: 1} for name in ids[40:]}, ["nDCG@10"]).values["nDCG@10"]
    assert scores["few"] > scores["start"] + 0.2


@pytest.mark.parametrize("calls", [5, 14])
def test_a_cut_in_a_fold_or_after_them_goes_on_to_the_same_bytes(
    tiny_bert: Path, toy: MemoryCollection, tmp_path: Path, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PairedGain, "counts", property(lambda gain: True))  # the training on all labels takes place
    config = replace(FEW, steps=6, evaluate_every=3)
    train(load(tiny_bert), toy, tmp_path / "uncut", config=config, quiet=True)
    call, left = DevEvaluator.__call__, [calls]

    def evaluate(self: DevEvaluator, *args: Any, **how: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return call(self, *args, **how)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(DevEvaluator, "__call__", evaluate)
        with pytest.raises(KeyboardInterrupt):
            train(load(tiny_bert), toy, tmp_path / "cut", config=config, quiet=True)
    torch.manual_seed(123)
    train(load(tiny_bert), toy, tmp_path / "cut", config=config, quiet=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "uncut")
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["prompt.json", "prompt.safetensors", "run.json"]


# -- what is more than chance ----------------------------------------------------------------------------------------


def test_a_gain_and_its_error_by_hand() -> None:
    gain = PairedGain.of({"a": [0.5, 0.5, 0.5, 0.5]}, {"a": [0.5, 0.5, 0.9, 0.7]})
    assert gain.mean == pytest.approx(0.15)
    assert gain.error == pytest.approx((0.11 / 3 / 4) ** 0.5)  # squares of -.15, -.15, .25, .05: .11
    assert gain.counts
    two = PairedGain.of({"a": [0.5] * 4, "b": [0.0, 0.0]}, {"a": [0.5, 0.5, 0.9, 0.7], "b": [0.2, 0.2]})
    assert two.mean == pytest.approx((0.15 + 0.2) / 2)  # collections count alike
    assert two.error == pytest.approx((0.11 / 3 / 4) ** 0.5 / 2)
    assert not PairedGain.of({"a": [0.5]}, {"a": [1.0]}).counts  # of one query nothing can be told
    assert not PairedGain.of({"a": [1.0, 1.0]}, {"a": [1.0, 1.0]}).counts


def test_the_best_of_the_gains_that_count_is_kept() -> None:
    start = {"a": [0.2, 0.4, 0.6]}
    by_one = {"a": [0.9, 0.4, 0.5]}  # the highest mean, by one query alone
    by_all = {"a": [0.3, 0.5, 0.7]}
    step, reason = chosen([0, 10, 20], [start, by_all, by_one])
    assert (step, reason["gain"], reason["queries"]) == (10, 0.1, 3)
    step, reason = chosen([0, 20], [start, by_one])
    assert (step, reason["step"], reason["gain"]) == (0, 20, 0.2)
    assert chosen([0], [start]) == (0, {"queries": 3})


@pytest.mark.parametrize("queries", [16, 60, 200])
def test_how_often_chance_is_taken_for_a_gain(queries: int) -> None:
    chance = np.random.default_rng(queries)
    kept = dict.fromkeys((-0.03, 0.0, 0.1), 0)
    for gain in kept:
        for _ in range(300):
            start = chance.uniform(0.2, 0.8, queries)
            same = chance.normal(0, 0.15, queries)  # what the steps of one training have in common
            steps = [start + gain + same + chance.normal(0, 0.1, queries) for _ in range(3)]
            kept[gain] += chosen([0, 1, 2, 3], [{"a": one.tolist()} for one in (start, *steps)])[0] > 0
    assert kept[-0.03] < 0.15 * 300
    assert kept[0.0] < 0.38 * 300
    assert kept[0.1] > 0.85 * 300
