"""The advice to train, to transfer or to stay: samples, evidence and choices by hand, and the command."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from shell import Shell
from tiny import random_prompt, sentences, toy_collection, write_beir

from foreword.collections.collection import Document, MemoryCollection, Query
from foreword.collections.pseudo import pseudo_pairs
from foreword.errors import DataError, ForewordError, PromptError, UnknownNameError
from foreword.evaluation.evaluate import evaluate
from foreword.prompts.encoder import encode
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, folder_name, save_prompt
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.train import train
from foreword.transferring.advise import Found, advise, changes_for, choose, reason_for
from foreword.transferring.config import AdviceConfig, FitConfig
from foreword.transferring.reach import FILE, Reach
from foreword.transferring.trial import (
    Compared,
    Evidence,
    Gain,
    expected_gain,
    label_split,
    labelled_sample,
    nearest_prompts,
    read_evidence,
    text_sample,
    training_pairs,
)

CONFIG = AdviceConfig(fit=FitConfig(precision="float32", steps=10))


# -- samples -------------------------------------------------------------------------------------------------------


def test_a_text_sample_is_seeded_and_in_the_corpus_order(toy: MemoryCollection) -> None:
    sample = text_sample(toy, 20, 0)
    assert (sample.documents, sample.of) == (20, 60)
    ids = [document.doc_id for document in sample.collection.corpus]
    assert ids == [document.doc_id for document in toy.corpus if document.doc_id in set(ids)]
    backwards = text_sample(replace(toy, corpus=toy.corpus[::-1]), 20, 0)
    assert {document.doc_id for document in backwards.collection.corpus} == set(ids)
    assert text_sample(toy, 20, 1).collection.corpus != sample.collection.corpus
    assert text_sample(toy, 100, 0).collection.corpus == toy.corpus
    assert not sample.collection.splits
    empty = replace(toy, corpus=(Document("e", " "), *toy.corpus[:3]))
    assert (text_sample(empty, 100, 0).documents, text_sample(empty, 100, 0).of) == (3, 3)


def test_a_labelled_sample_has_every_relevant_document(toy: MemoryCollection) -> None:
    sample = labelled_sample(toy, "dev", 5, 20, 0)
    assert (sample.documents, sample.of) == (20, 60)
    qrels = sample.collection.qrels("dev")
    assert len(qrels) == len(list(sample.collection.queries("dev"))) == 5
    assert {doc for judged in qrels.values() for doc in judged} <= {d.doc_id for d in sample.collection.corpus}
    assert qrels.items() <= toy.qrels("dev").items()
    every = labelled_sample(toy, "train", 100, 5, 0)  # more relevant documents than were to be drawn
    assert len(every.collection.qrels("train")) == 32
    assert every.documents == 32 + 1
    unjudged = replace(toy, judgements={"dev": {query: {"d1": 0} for query in toy.qrels("dev")}})
    with pytest.raises(DataError, match="has a relevant document"):
        labelled_sample(unjudged, "dev", 5, 20, 0)


def test_labels_that_may_be_looked_at(toy: MemoryCollection) -> None:
    assert label_split(toy) == "dev"
    assert label_split(toy, "train") == "train"
    assert label_split(toy, "none") is None
    assert label_split(toy_collection(splits=("train", "test"))) == "train"
    assert label_split(toy_collection(splits=("test",))) is None
    with pytest.raises(DataError, match="for scoring alone"):
        label_split(toy, "test")
    with pytest.raises(UnknownNameError, match="no split 'dev'"):
        label_split(toy_collection(splits=("train",)), "dev")
    reported = replace(toy, facts={"headline_split": "dev"})  # as MS MARCO's
    assert label_split(reported) == "train"
    assert [training_pairs(c) for c in (toy, toy_collection(splits=("dev", "test")))] == [32, 12]
    assert training_pairs(toy_collection(splits=("test",))) == 0
    assert training_pairs(replace(reported, judgements={"dev": toy.qrels("dev")})) == 0


# -- evidence ------------------------------------------------------------------------------------------------------


def domain(number: int, gain: float, *, within: bool = True, supervised: float | None = None) -> Evidence:
    return Evidence(f"toy/{number}", "toy", within, 0.1, gain, supervised, None if supervised is None else 500)


def test_expected_gain_by_hand() -> None:
    listed = [domain(n, n / 100, supervised=None if n == 4 else n / 10) for n in range(5)]
    listed += [domain(9, -0.5, within=False)]
    found = expected_gain(listed, "other", within=True, kind="transfer")
    # 0, .01, .02, .03, .04: the 2.5 % quantile is a tenth of the way from the first to the second.
    assert found == Gain(pytest.approx(0.02), pytest.approx(0.001), pytest.approx(0.039), "evidence", 5)
    trained = expected_gain(listed, "other", within=True, kind="train")
    assert trained == Gain(pytest.approx(0.15), pytest.approx(0.0075), pytest.approx(0.2925), "evidence", 4)
    own = expected_gain(listed, "toy/4", within=True, kind="transfer")  # its own measurement does not count
    assert own is not None
    assert (own.value, own.count) == (pytest.approx(0.015), 4)
    assert expected_gain(listed, "other", within=False, kind="transfer") is None
    assert expected_gain([], "other", within=True, kind="transfer") is None


def test_evidence_is_read_and_checked(tmp_path: Path) -> None:
    assert all(isinstance(entry, Evidence) for entry in read_evidence())
    path = tmp_path / "evidence.json"
    fine = {
        "target": "t",
        "genre": "g",
        "within": True,
        "pseudo_gain": 0.1,
        "gain": 0.2,
    }
    path.write_text(json.dumps([fine]))
    assert read_evidence(path) == [Evidence("t", "g", True, 0.1, 0.2)]
    for broken in ({}, [1], [{**fine, "more": 1}], [{**fine, "gain": "0.2"}], [{**fine, "within": 1}]):
        path.write_text(json.dumps(broken))
        with pytest.raises(DataError, match="expected"):
            read_evidence(path)
    path.write_text("[")
    with pytest.raises(DataError, match="install the package again"):
        read_evidence(path)


# -- the choice ----------------------------------------------------------------------------------------------------


def found(
    *,
    within: bool = True,
    pseudo: float = 0.1,
    labels: tuple[float, float] | None = None,
    pairs: int = 0,
    transfer: float = 0.05,
    training: float | None = None,
) -> Found:
    """A target with a candidate; `labels`: its gain there, and the interval's upper end."""
    labelled = None if labels is None else Gain(labels[0], labels[0] - 0.1, labels[1], "labels", 50)
    best = Compared("fitted", 0.5 + pseudo, Gain(pseudo, pseudo, pseudo, "pseudo-queries", 9), 0.5, labelled)
    expected = {
        "transfer": Gain(transfer, 0, 0.1, "evidence", 5),
        "train": None if training is None else Gain(training, 0, 0.1, "evidence", 5),
    }
    reach = Reach(0.6 if within else 0.3, 0.5, "a")
    return Found(reach, Compared("base", 0.5, None, 0.45), best, pairs, "dev" if labels else None, 5, expected)


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ({}, "transfer"),
        ({"pseudo": -0.01}, "stay"),
        ({"within": False}, "stay"),
        ({"labels": (-0.02, 0.01)}, "transfer"),  # not significantly below, and better on pseudo-queries
        ({"labels": (-0.02, 0.01), "pseudo": -0.1}, "stay"),
        ({"labels": (-0.05, -0.01)}, "stay"),  # labels outweigh pseudo-queries
        ({"labels": (0.05, 0.1), "pseudo": -0.1}, "transfer"),
        ({"labels": (0.2, 0.3), "within": False}, "stay"),
        ({"pairs": 99, "training": 0.2}, "transfer"),
        ({"pairs": 100, "training": 0.2}, "train"),
        ({"pairs": 100, "training": 0.04}, "transfer"),  # less than transfer's
        ({"pairs": 100, "training": 0.04, "within": False}, "train"),  # but more than nothing
        ({"pairs": 100, "training": -0.04, "within": False}, "stay"),
        ({"pairs": 100}, "transfer"),
    ],
)
def test_the_choice(given: dict[str, Any], choice: str) -> None:
    assert choose(found(**given)) == choice
    assert reason_for("t", choose(found(**given)), found(**given))
    assert changes_for(choose(found(**given)), found(**given))


def test_the_words_of_an_advice() -> None:
    far = found(within=False, labels=(0.2, 0.3))
    said = reason_for("t", "stay", far)
    assert "0.300" in said
    assert "(at least 0.5)" in said
    assert "On 50 labelled queries (dev)" in said
    assert "--no-reach" in changes_for("stay", far)
    trained = found(pairs=250, training=0.2)
    assert reason_for("t", "train", trained).startswith(
        "with 250 labelled training pairs, the expected gain of training is +0.200"
    )
    assert "100 labelled training pairs (there are 0)" in changes_for("transfer", found())
    assert "its gain cannot be estimated" in changes_for("transfer", found(pairs=120))
    assert "over 9 pseudo-queries, which overstate" in Gain(0.1, 0, 0.2, "pseudo-queries", 9).said()


def test_the_prompts_nearest_to_a_target_are_tried(encoder: SentenceTransformer) -> None:
    data: dict[str, list[str]] = {"a": ["toy/a#fold1of2"], "b": ["toy/b"], "both": ["toy/a", "toy/b"], "gone": []}
    bank = {}
    for seed, (name, listed) in enumerate(data.items()):
        prompt = random_prompt(encoder, PromptSpec("gated", 3), seed)
        bank[name] = StoredPrompt(prompt, {"domain": name, "data": {domain: {} for domain in listed}})
    features = {"toy/a": np.array([[1.0, 0.0]], np.float32), "toy/b": np.array([[0.0, 1.0]], np.float32)}
    own = np.array([[0.8, 0.6], [0.0, 1.0]], np.float32)  # the mean (.4, .8) is nearer to b than to a
    notes: list[str] = []
    assert nearest_prompts(bank, own, features, 2, notes) == ["b", "both"]
    assert nearest_prompts(bank, own, features, 3, notes) == ["b", "both", "a"]
    assert "the nearest 2 are tried alone: b, both" in notes[0]


# -- advice on texts -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def useful(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> StoredPrompt:
    """A prompt trained on pseudo-queries of the toy domain, under the name of one like it."""
    toy = toy_collection()
    config = TrainingConfig(side="both", steps=60, batch_size=16, evaluate_every=60, precision="float32", dev_queries=1)
    made = train(
        load_encoder(str(tiny_bert), device="cpu"),
        replace(toy_collection(splits=("train",)), id="toy/source"),
        tmp_path_factory.mktemp("useful") / "it",
        config=config,
        start=StartConfig(PromptSpec(length=8)),
        pairs={"toy/source": list(pseudo_pairs(toy.documents()))},
        quiet=True,
    )
    return made


def noise(like: StoredPrompt, encoder: SentenceTransformer, seed: int = 0) -> StoredPrompt:
    return StoredPrompt(random_prompt(encoder, like.prompt.spec, seed, scale=2.0), {"domain": "noise"})


class WithoutTest(MemoryCollection):
    """A collection whose test split may not be looked at."""

    def queries(self, split: str = "test") -> Any:
        assert split != "test"
        return super().queries(split)

    def qrels(self, split: str = "test") -> Any:
        assert split != "test"
        return super().qrels(split)


def test_a_useful_prompt_is_transferred(
    encoder: SentenceTransformer, toy: MemoryCollection, useful: StoredPrompt
) -> None:
    bank = {"useful": useful, "noise": noise(useful, encoder)}
    target = WithoutTest(toy.id, toy.group, toy.corpus, toy.query_texts, toy.judgements)
    got = advise(encoder, target, bank, CONFIG, evidence=[], quiet=True)
    assert got.advice == "transfer"
    names = [candidate.name for candidate in got.candidates]
    assert names == ["base", "useful", "noise", "fitted"]
    assert got.found is not None
    assert got.found.split == "dev"
    labels = {candidate.name: candidate.labels or 0.0 for candidate in got.candidates}
    assert labels["useful"] > labels["base"]
    assert got.found.best is not None
    assert got.found.best.labels == max(labels.values())
    assert got.expected is not None
    assert (got.expected.basis, got.expected.count) == ("labels", 12)
    assert got.expected.low <= got.expected.value <= got.expected.high
    assert got.transfer.route is not None
    assert encode(encoder, ["babe bale"], "query", route=got.transfer.route).shape == (1, 32)
    assert any("not known" in note for note in got.notes)  # the reach: no features were given
    said = got.as_dict()
    assert (said["advice"], said["labels"], said["training_pairs"]) == ("transfer", "dev", 32)
    json.dumps(said, allow_nan=False)
    again = advise(encoder, target, bank, CONFIG, evidence=[], quiet=True).as_dict()
    timeless = [
        {**one, "seconds": 0, "training_seconds": 0, "transfer": {**one["transfer"], "seconds": 0}}
        for one in (said, again)
    ]
    assert timeless[0] == timeless[1]


def test_without_labels_or_evidence(encoder: SentenceTransformer, toy: MemoryCollection, useful: StoredPrompt) -> None:
    none = replace(CONFIG, labels="none")
    got = advise(encoder, toy, {"useful": useful}, none, evidence=[], quiet=True)
    assert got.advice == "transfer"
    assert got.expected is not None
    assert got.expected.basis == "pseudo-queries"
    assert "no measurements installed: the interval comes from pseudo-queries only, which overstate gains" in got.notes
    told = advise(encoder, toy, {"useful": useful}, none, evidence=[domain(n, 0.02) for n in range(3)], quiet=True)
    assert told.expected == Gain(pytest.approx(0.02), pytest.approx(0.02), pytest.approx(0.02), "evidence", 3)
    twice = advise(encoder, toy, {"useful": useful, "copy": useful}, none, evidence=[], quiet=True)
    assert [candidate.name for candidate in twice.candidates] == ["base", "useful", "fitted"]
    assert any("not tried alone: copy" in note for note in twice.notes)
    bank = {str(seed): noise(useful, encoder, seed) for seed in range(2)}
    stays = advise(encoder, toy, bank, replace(none, prompts=1), evidence=[], quiet=True)
    assert len([c for c in stays.candidates if c.name in bank]) == 1
    assert any("are tried alone" in note for note in stays.notes)
    if stays.advice == "stay":  # the fit may shrink noise to a help
        assert stays.transfer.route is None


def test_out_of_reach(encoder: SentenceTransformer, toy: MemoryCollection, useful: StoredPrompt) -> None:
    names = ["toy/x", "toy/y", "toy/z"]
    bank = {"useful": StoredPrompt(useful.prompt, {"domain": "useful", "data": {"toy/x": {}}})}
    one = encode(encoder, [toy.corpus[0].content], "document", route=None)
    far = {name: -one / np.linalg.norm(one) for name in names}  # alike to one another, opposite to the target
    got = advise(encoder, toy, bank, replace(CONFIG, labels="none"), features=far, evidence=[], quiet=True)
    assert got.advice == "stay"
    assert "out of its reach" in got.reason
    assert not got.candidates  # nothing was tried
    assert not got.transfer.weights
    assert "domains more similar" in got.changes
    assert got.expected is None
    labelled = advise(encoder, toy, bank, CONFIG, features=far, evidence=[], quiet=True)
    assert labelled.advice == "stay"
    assert [candidate.name for candidate in labelled.candidates] == ["base", "useful", "fitted"]
    several = {"useful": StoredPrompt(useful.prompt, {"domain": "useful", "data": {name: {} for name in names}})}
    proven = advise(encoder, toy, several, replace(CONFIG, labels="none"), features=far, evidence=[], quiet=True)
    assert (proven.advice, proven.transfer.prompt, proven.expected) == ("transfer", useful.prompt, None)
    assert "out of its reach" in proven.reason  # and yet surely better
    weak = {"noise": StoredPrompt(noise(useful, encoder, 0).prompt, several["useful"].card)}
    told = advise(encoder, toy, weak, replace(CONFIG, labels="none"), features=far, evidence=[], quiet=True)
    assert (told.advice, dict(told.transfer.weights)) == ("stay", {})


def test_training_is_advised_by_evidence(
    encoder: SentenceTransformer, toy: MemoryCollection, useful: StoredPrompt
) -> None:
    many = {f"q{i}": {f"d{i}": 1, f"d{i + 1}": 2, f"d{i + 2}": 0} for i in range(50)}
    asked = tuple(replace(toy.query_texts["train"][0], query_id=name) for name in many)
    target = replace(toy, query_texts={"train": asked}, judgements={"train": many})
    evidence = [domain(n, 0.01, supervised=2.0) for n in range(3)]
    none = replace(CONFIG, labels="none")
    got = advise(encoder, target, {"useful": useful}, none, evidence=evidence, quiet=True)
    assert (got.advice, got.found.pairs if got.found else 0) == ("train", 100)
    assert got.expected is not None
    assert got.expected.value == pytest.approx(2.0)


def test_too_little_text(encoder: SentenceTransformer, toy: MemoryCollection, useful: StoredPrompt) -> None:
    few = replace(toy, corpus=toy.corpus[:29])
    got = advise(encoder, few, {"useful": useful}, CONFIG, quiet=True)
    assert got.advice == "stay"
    assert "has 29 documents with text" in got.reason
    assert got.as_dict()["candidates"] == []
    short = replace(toy, corpus=tuple(Document(f"d{i}", text) for i, text in enumerate(sentences(40, most=3))))
    got = advise(encoder, short, {"useful": useful}, replace(CONFIG, labels="none"), evidence=[], quiet=True)
    assert got.advice == "stay"
    assert "too little text" in got.reason
    assert any("no pseudo-queries are compared on" in note for note in got.notes)


def test_prompts_that_cannot_be_mixed(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    zero = random_prompt(encoder, PromptSpec("prefix", 3), scale=0.0)
    strong = {"a": random_prompt(encoder, PromptSpec("prefix", 3), scale=2.0), "b": zero}
    bank: dict[str, StoredPrompt] = {name: StoredPrompt(prompt, {"domain": name}) for name, prompt in strong.items()}
    got = advise(encoder, toy, bank, CONFIG, evidence=[], quiet=True)
    assert [candidate.name for candidate in got.candidates] == ["base", "a", "b"]
    assert any("no mixture is fitted" in note for note in got.notes)
    if got.advice == "transfer":
        assert isinstance(got.transfer.prompt, Prompt)
        assert encode(encoder, ["babe bale"], "query", route=got.transfer.route).shape == (1, 32)


def test_a_time_budget_looks_at_less(encoder: SentenceTransformer, toy: MemoryCollection, useful: StoredPrompt) -> None:
    got = advise(encoder, toy, {"useful": useful}, replace(CONFIG, seconds=1e-3), evidence=[], quiet=True)
    assert any("5% of the usual samples" in note for note in got.notes)
    assert got.candidates


def test_without_a_bank(encoder: SentenceTransformer, toy: MemoryCollection) -> None:
    target = WithoutTest(toy.id, toy.group, toy.corpus, toy.query_texts, toy.judgements)
    got = advise(encoder, target, config=replace(CONFIG, labels="train"), quiet=True)
    assert (got.advice, got.candidates, dict(got.transfer.weights)) == ("stay", [], {})
    assert "32 labelled training pairs, and fewer than 100 rarely show a gain" in got.reason
    assert "--bank" in got.changes
    how: dict[str, Any] = {"split": "train", "measures": ["nDCG@10"]}
    dense = evaluate(toy, encoder, query_length=64, document_length=128, precision="float32", **how)
    assert got.words.dense == pytest.approx(dense.measures["nDCG@10"], abs=1e-4)
    assert got.words.words == pytest.approx(evaluate(toy, "bm25", **how).measures["nDCG@10"], abs=1e-4)
    assert (got.words.chosen_by, got.words.queries) == ("train queries", 32)
    assert got.training_seconds is not None
    by_text = advise(encoder, target, config=CONFIG, quiet=True)  # 12 dev queries are too few to weigh by
    assert by_text.words.chosen_by == "pseudo-queries"
    unlabelled = advise(encoder, replace(toy, query_texts={}, judgements={}), config=CONFIG, quiet=True)
    assert unlabelled.words == by_text.words
    assert "no label" in unlabelled.reason
    assert unlabelled.training_seconds is None
    json.dumps(unlabelled.as_dict(), allow_nan=False)
    asked = tuple(Query(f"q{i}", document.text) for i, document in enumerate(toy.corpus[:50]))
    many = {f"q{i}": {f"d{i}": 1, f"d{i + 1}": 1} for i in range(50)}
    labelled = replace(toy, query_texts={"train": asked}, judgements={"train": many})
    told = advise(encoder, labelled, config=replace(CONFIG, seconds=1e-3), quiet=True)
    assert (told.advice, told.expected, told.words.chosen_by) == ("train", None, "pseudo-queries")
    assert any("of the usual samples" in note for note in told.notes)


def test_what_advice_refuses(encoder: SentenceTransformer, toy: MemoryCollection, useful: StoredPrompt) -> None:
    with pytest.raises(PromptError, match="trained on toy/source itself"):
        advise(encoder, replace(toy, id="toy/source"), {"useful": useful}, CONFIG)
    with pytest.raises(PromptError, match="rename it"):
        advise(encoder, toy, {"base": useful}, CONFIG)
    with pytest.raises(DataError, match="for scoring alone"):
        advise(encoder, toy, {"useful": useful}, replace(CONFIG, labels="test"))
    with pytest.raises(ForewordError, match="documents is 0; it is at least 1"):
        AdviceConfig(documents=0)


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bank(tiny_bert: Path, useful: StoredPrompt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multitask prompt of three folders, and one of a domain that is not here."""
    folder = tmp_path_factory.mktemp("command") / "bank"
    encoder = load_encoder(str(tiny_bert), device="cpu")
    data = {f"folder:{write_beir(folder.parent / name, toy_collection(name))}": {} for name in ("x", "y", "z")}
    save_prompt(folder / "multitask", useful.prompt, encoder, "multitask", record={"data": data})
    save_prompt(folder / folder_name("toy/gone"), noise(useful, encoder).prompt, encoder, "toy/gone")
    return folder


def test_advise_on_a_folder(shell: Shell, beir: Path, tiny_bert: Path, bank: Path, tmp_path: Path) -> None:
    command = ("advise", beir, "--bank", bank, "--backbone", tiny_bert, "--precision", "float32")
    output = tmp_path / "out"
    got = shell.json(*command, "--output", output)
    assert "judged without toy/gone, whose documents cannot be read" in shell.printed.err
    assert (bank / FILE).is_file()
    assert got["reach"]["nearest"] in {f"folder:{bank.parent / name}" for name in ("x", "y", "z")}
    assert got["target"] == f"folder:{beir}"
    assert got["advice"] in ("transfer", "stay")
    assert got["command"].startswith(f"foreword search folder:{beir} 'your question' ")
    evaluated = shell.json("evaluate", f"folder:{beir}", "--backbone", tiny_bert, "--prompt", output)
    assert evaluated["queries"] == 12
    told = shell(*command, "--labels", "none", "--exclude", "toy/gone")
    assert "reason: " in told
    assert "what would change this: " in told
    assert "next: foreword " in told
    assert shell.json(*command, "--dry-run")["advice"]["documents"] == 2000
    assert "invalid choice: 'test'" in shell.usage(*command, "--labels", "test")


def test_advise_without_a_bank(shell: Shell, beir: Path, tiny_bert: Path) -> None:
    command = ("advise", beir, "--backbone", tiny_bert, "--precision", "float32")
    told = shell(*command)
    assert told.startswith(f"folder:{beir}: stay")
    assert "hybrid " in told
    assert "training takes about" in told
    got = shell.json(*command)
    words = shlex.split(got["command"])
    assert words[:4] == ["foreword", "search", f"folder:{beir}", "your question"]
    assert ("hybrid" in words) == (got["hybrid"]["bm25"] > 0)
    assert shell(*words[1:])
    assert "--output is for the prompts of a --bank" in shell.fails(*command, "--output", "out")


def test_advise_on_text_files(shell: Shell, tiny_bert: Path, bank: Path, tmp_path: Path) -> None:
    texts = tmp_path / "my texts"
    texts.mkdir()
    for number in range(5):
        (texts / f"{number}.txt").write_text("babe bale. " + "dade dale " * 9)
    command = ("advise", texts, "--bank", bank, "--backbone", tiny_bert, "--precision", "float32")
    told = shell(*command)
    assert told.startswith(f"folder:{texts}: stay, with hybrid search\n")
    assert "has 5 documents with text" in told
    assert f"next: foreword search 'folder:{texts}' 'your question' --system hybrid --backbone {tiny_bert}\n" in told
    for document in toy_collection().corpus:
        (texts / f"{document.doc_id}.md").write_text(f"# About {document.doc_id}\n{document.text}")
    got = shell.json(*command)
    assert got["labels"] is None
    assert got["advice"] in ("transfer", "stay")
    if got["advice"] == "transfer":
        words = got["command"].split()
        assert words[:2] in (["foreword", "transfer"], ["foreword", "search"])


def test_transfer_out_of_reach(
    shell: Shell, beir: Path, tiny_bert: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreword.transferring.reach.LIMIT", 1.1)  # to an untrained encoder all texts are alike
    far = tmp_path / "far"
    far.mkdir()
    for number in range(40):
        (far / f"{number}.txt").write_text(f"{number}{number}{number}. " + "0 1 2 3 , . " * (number % 3 + 3))
    command = ("transfer", f"folder:{far}", "--bank", bank, "--backbone", tiny_bert, "--precision", "float32")
    result = shell.json(*command)
    assert result["reach"]["within"] is False
    assert (result["advice"], result["weights"]) == ("don't transfer", {})
    assert shell.json(*command, "--no-reach")["reach"] is None
    asked = shell.json(*command, "--method", "uniform", "--reach")
    assert asked["advice"] == "don't transfer"
    stored = shell.json("advise", far, "--bank", bank, "--backbone", tiny_bert, "--precision", "float32")
    assert stored["advice"] == "stay"
