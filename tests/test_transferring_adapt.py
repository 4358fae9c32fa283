"""Adapting a prompt half-way to a target's text: what it looks at, what it keeps, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from foreword.collections.collection import Document, MemoryCollection, Query, TrainingPair
from foreword.errors import ForewordError, NoGainError, TooLittleTextError
from foreword.prompts.encoder import transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec
from foreword.prompts.start import new_prompt
from foreword.prompts.store import StoredPrompt, load_prompt, save_prompt, trained_on
from foreword.training.config import TrainingConfig
from foreword.training.train import train_few
from foreword.transferring.adapt import FEWEST, adapt, adaptation_pairs, averaged, kept_back, proof_pairs, prove
from foreword.transferring.config import AdaptConfig, TransferConfig
from foreword.transferring.transfer import transfer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FAST: dict[str, Any] = {
    "prove": False,
    "steps": 2,
    "batch_size": 8,
    "agree": 0,
    "precision": "float32",
    "document_length": 16,
    "query_length": 16,
}
WORDS = ["red", "green", "blue", "amber", "violet", "cyan", "white", "black", "brown", "grey", "pink", "gold"]


def texts(count: int) -> list[Document]:
    """Documents of two sentences, no two alike."""
    found = []
    for number in range(count):
        a, b = WORDS[number % 12], WORDS[(number // 12 + 5) % 12]
        first = f"The {a} stone number {number} lies on the {b} hill."
        found.append(
            Document(f"d{number}", f"{first} Nobody has moved it since the {a} river came by {number} years ago.")
        )
    return found


@pytest.fixture
def target() -> MemoryCollection:
    queries = {"test": (Query("q1", "a question that must not be read"),)}
    return MemoryCollection("toy/target", "toy", tuple(texts(90)), queries, {"test": {"q1": {"d1": 1}}})


@pytest.fixture
def start(encoder: SentenceTransformer, tmp_path: Path) -> StoredPrompt:
    made = new_prompt(encoder, PromptSpec(length=2, sides="untied"), start="words", texts=["a stone"], seed=0)
    card = {"supervision": {"method": "train"}, "data": {"toy/source": {}}}
    save_prompt(tmp_path / "start", made, encoder, "multitask", dtype="float32", record=card)
    return load_prompt(tmp_path / "start", encoder)


def test_the_average_is_worked_by_hand(start: StoredPrompt) -> None:
    ones = Prompt(start.prompt.spec, {key: torch.ones_like(t) for key, t in start.prompt.tensors().items()})
    zeros = Prompt(start.prompt.spec, {key: torch.zeros_like(t) for key, t in start.prompt.tensors().items()})
    mixed = averaged(zeros, ones, 0.25)
    assert all(torch.equal(t, torch.full_like(t, 0.25)) for t in mixed.tensors().values())
    assert averaged(start.prompt, ones, 0.0).digest() == start.prompt.digest()


def test_share_0_is_the_start_and_1_the_trained_prompt(
    encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt, tmp_path: Path
) -> None:
    none = adapt(encoder, target, start, tmp_path / "none", AdaptConfig(share=0.0, **FAST), quiet=True)
    assert none.prompt.digest() == start.prompt.rounded(torch.float16).digest()
    whole = adapt(encoder, target, start, tmp_path / "all", AdaptConfig(share=1.0, **FAST), quiet=True)
    trained = load_prompt(tmp_path / "all" / "adapted")
    assert whole.prompt.digest() == trained.prompt.digest() != none.prompt.digest()
    assert "(before adaptation)" not in transformer_of(encoder).domains


def test_the_card_says_whose_text_and_whose_labels(
    encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt, tmp_path: Path
) -> None:
    stored = adapt(encoder, target, start, tmp_path / "out", AdaptConfig(**FAST), quiet=True)
    assert trained_on(stored.card) == {"toy/source": "train", "toy/target": "pseudo-queries"}
    labels = [
        TrainingPair(f"t{n}", f"which stone is the {WORDS[n]} one", f"d{n}", doc.text) for n, doc in enumerate(texts(4))
    ]
    config = TrainingConfig(side="both", steps=2, batch_size=4, precision="float32")
    few = train_few(encoder, target, labels, tmp_path / "few", start=stored, config=config, quiet=True)
    assert trained_on(few.card) == {"toy/source": "train", "toy/target": "train"}
    assert few.card["metrics"]["choice"]["by"] == "folds"


def test_equal_runs_give_equal_prompts(
    encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt, tmp_path: Path
) -> None:
    digests = {
        adapt(encoder, target, start, tmp_path / name, AdaptConfig(**FAST), quiet=True).prompt.digest()
        for name in ("one", "two")
    }
    assert len(digests) == 1


def test_an_adaptation_of_other_settings_is_replaced(
    encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt, tmp_path: Path
) -> None:
    first = adapt(encoder, target, start, tmp_path / "out", AdaptConfig(**FAST), quiet=True)
    second = adapt(encoder, target, start, tmp_path / "out", AdaptConfig(**{**FAST, "seed": 1}), quiet=True)
    assert first.prompt.digest() != second.prompt.digest()
    assert load_prompt(tmp_path / "out").card["adaptation"]["seed"] == 1


def test_pseudo_queries_of_several_documents_are_nobodys(
    encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt
) -> None:
    copies = [Document(f"copy{n}", "This sentence is everywhere here. " + doc.text) for n, doc in enumerate(texts(5))]
    more = MemoryCollection("toy/target", "toy", (*target.documents(), *copies), {}, {})
    config = AdaptConfig(**{**FAST, "pseudo": "first-sentence"})
    pairs, counts = adaptation_pairs(encoder, more, start, config)
    assert counts["repeated"] == 5
    assert counts["kept"] == len(pairs) == counts["made"] - 5
    assert not any("everywhere" in pair.query for pair in pairs)


def titled(*titles: str) -> list[Document]:
    """Documents with these titles; no two texts alike."""
    return [replace(doc, title=title) for doc, title in zip(texts(len(titles)), titles, strict=True)]


def test_documents_of_one_title_all_answer_it(encoder: SentenceTransformer, start: StoredPrompt) -> None:
    threads = titled(*["How do I mend a boat?"] * 3, *["how do I mend a  BOAT"] * 2, "Where is the red hill?")
    config = AdaptConfig(**FAST)
    pairs, counts = adaptation_pairs(encoder, MemoryCollection("toy/faq", "toy", tuple(threads), {}, {}), start, config)
    assert counts == {"made": 6, "repeated": 0, "kept": 6}
    assert [pair.doc_id for pair in pairs] == [f"d{number}" for number in range(6)]
    assert [pair.query_id for pair in pairs] == ["pseudo:d0"] * 5 + ["pseudo:d5"]
    assert {pair.query for pair in pairs[:5]} == {"How do I mend a boat?"}  # equal texts never share a batch


def test_a_heading_is_nobodys_query(encoder: SentenceTransformer, start: StoredPrompt) -> None:
    headings = titled(*["What this chapter is about"] * 11, *["Where the river goes"] * 10)
    target = MemoryCollection("toy/book", "toy", tuple(headings), {}, {})
    pairs, counts = adaptation_pairs(encoder, target, start, AdaptConfig(**FAST))
    assert counts["repeated"] == 11
    assert {pair.query for pair in pairs} == {"Where the river goes"}


def test_one_document_found_is_enough_for_its_group(encoder: SentenceTransformer, start: StoredPrompt) -> None:
    threads = titled(*[f"What about the question number {number // 3}?" for number in range(30)])
    target = MemoryCollection("toy/faq", "toy", tuple(threads), {}, {})
    groups = [found_groups(encoder, target, start, agree) for agree in (1, 3, 30)]
    assert groups[0] <= groups[1] <= groups[2] == {f"pseudo:d{number}" for number in range(0, 30, 3)}


def found_groups(encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt, agree: int) -> set[str]:
    """The queries that are kept, each with all three of its documents."""
    pairs, _ = adaptation_pairs(encoder, target, start, AdaptConfig(**{**FAST, "agree": agree}))
    counts = Counter(pair.query_id for pair in pairs)
    assert set(counts.values()) <= {3}
    return set(counts)


def test_the_filter_keeps_what_the_prompt_finds(
    encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt
) -> None:
    every, _ = adaptation_pairs(encoder, target, start, AdaptConfig(**{**FAST, "agree": 90}))
    some, counts = adaptation_pairs(encoder, target, start, AdaptConfig(**{**FAST, "agree": 3}))
    assert len(every) == 90  # among all of them, each document is found
    assert 0 < len(some) < 90
    assert counts["not_found"] == 90 - len(some)
    assert {pair.doc_id for pair in some} < {pair.doc_id for pair in every}


def test_too_little_text_is_said(encoder: SentenceTransformer, start: StoredPrompt, tmp_path: Path) -> None:
    small = MemoryCollection("toy/small", "toy", tuple(texts(FEWEST - 1)), {}, {})
    with pytest.raises(TooLittleTextError, match=f"63 pseudo-queries.*needs {FEWEST}"):
        adapt(encoder, small, start, tmp_path / "out", AdaptConfig(**FAST), quiet=True)


def test_too_little_text_leaves_the_base_model(encoder: SentenceTransformer, start: StoredPrompt) -> None:
    small = MemoryCollection("toy/small", "toy", tuple(texts(FEWEST - 1)), {}, {})
    start.card["data"]["toy/other"] = {}  # of two domains
    result = transfer(encoder, small, {"multitask": start}, TransferConfig(adapt=AdaptConfig(**FAST)), quiet=True)
    assert (result.advice, dict(result.weights), result.prompt, result.route) == ("don't transfer", {}, None, None)
    assert "the base model stays: toy/small gives 63 pseudo-queries" in result.reason


# -- the proof -----------------------------------------------------------------------------------------------------


def test_a_fifth_is_kept_back_and_not_learnt_from(
    encoder: SentenceTransformer,
    target: MemoryCollection,
    start: StoredPrompt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = AdaptConfig(**{**FAST, "prove": True})
    held = kept_back(target, config)
    assert len(held) == 18
    assert len(kept_back(target, replace(config, proofs=5))) == 5
    assert kept_back(target, replace(config, seed=1)) != held
    assert not kept_back(target, AdaptConfig(**FAST))
    checks = proof_pairs(target, held, config)
    assert set(checks) == {"span", "key-phrases"}  # first sentences are learnt from
    assert {pair.doc_id for pairs in checks.values() for pair in pairs} <= held
    assert set(proof_pairs(target, held, replace(config, pseudo="span"))) == {"auto", "key-phrases"}
    assert set(proof_pairs(target, held, replace(config, pseudo="title"))) == {"span", "key-phrases"}
    assert not proof_pairs(target, set(sorted(held)[:9]), config)  # fewer than ten of a kind

    learnt: list[str] = []

    def training(*args: Any, pairs: dict[str, list[TrainingPair]], **how: Any) -> StoredPrompt:
        learnt.extend(pair.doc_id for pair in pairs[target.id])
        return start

    monkeypatch.setattr("foreword.transferring.adapt.train", training)
    with pytest.raises(NoGainError, match="no better"):  # the prompt as it was, which is no better than noise
        adapt(encoder, target, start, tmp_path / "out", config, quiet=True)
    assert set(learnt) == {doc.doc_id for doc in target.documents()} - held
    assert not (tmp_path / "out" / "prompt.safetensors").exists()
    assert "(to be proven)" not in transformer_of(encoder).domains


def test_the_base_model_is_not_better_than_itself(
    encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt
) -> None:
    config = AdaptConfig(**FAST)
    same = new_prompt(encoder, PromptSpec(length=2), start="words", seed=0)  # a new prompt changes nothing
    checks = proof_pairs(target, {doc.doc_id for doc in target.documents()}, config)
    with pytest.raises(NoGainError, match="no better"):
        prove(encoder, same, checks, config)
    with pytest.raises(TooLittleTextError, match="nothing can be"):
        prove(encoder, same, {}, config)


@pytest.mark.parametrize(
    ("span", "phrases", "proven"),
    [
        ([0.1] * 20, [0.1] * 20, True),
        ([0.2] * 20, [0.0] * 20, True),
        ([0.2] * 20, [0.1, -0.12] * 10, True),  # worse for one kind, by what may be chance
        ([0.2] * 20, [-0.01] * 20, False),  # worse for one kind, surely
        ([0.1] * 20, [0.1, -0.4] * 10, False),  # worse in the mean
        ([0.0] * 20, [0.0] * 20, False),
    ],
)
def test_better_in_the_mean_and_surely_worse_on_no_kind(
    encoder: SentenceTransformer,
    target: MemoryCollection,
    start: StoredPrompt,
    monkeypatch: pytest.MonkeyPatch,
    span: list[float],
    phrases: list[float],
    proven: bool,
) -> None:
    gains = {"span": span, "key-phrases": phrases}

    def scores(encoder: Any, route: str | None, pairs: str, config: Any) -> dict[str, float]:
        return {str(n): 0.5 + (gain if route is not None else 0.0) for n, gain in enumerate(gains[pairs])}

    monkeypatch.setattr("foreword.transferring.adapt.pseudo_scores", scores)
    checks: Any = {"span": "span", "key-phrases": "key-phrases"}
    if proven:
        means = prove(encoder, start.prompt, checks, AdaptConfig(**FAST))
        assert means == {
            kind: {"base": 0.5, "adapted": pytest.approx(0.5 + sum(each) / 20)} for kind, each in gains.items()
        }
    else:
        with pytest.raises(NoGainError, match=r"0\.500 without \(span\)"):
            prove(encoder, start.prompt, checks, AdaptConfig(**FAST))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ForewordError, match=r"share is 1\.5"):
        AdaptConfig(share=1.5)
