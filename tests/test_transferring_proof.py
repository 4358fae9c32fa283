"""A prompt of other domains compared with the base model on a target's own text, before it is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from foreword.collections.collection import Document, MemoryCollection, Query, TrainingPair
from foreword.errors import NoGainError, PromptError, TooLittleTextError
from foreword.prompts.encoder import transformer_of
from foreword.prompts.spec import PromptSpec
from foreword.prompts.start import new_prompt
from foreword.prompts.store import StoredPrompt, load_prompt, save_prompt
from foreword.transferring.config import ProofConfig, TransferConfig
from foreword.transferring.proof import FEWEST, proof_pairs, prove
from foreword.transferring.transfer import transfer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FAST = ProofConfig(precision="float32", document_length=16, query_length=16)
CONFIG = TransferConfig(proof=FAST)
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


def test_too_little_text_leaves_the_base_model(encoder: SentenceTransformer, start: StoredPrompt) -> None:
    small = MemoryCollection("toy/small", "toy", tuple(texts(FEWEST - 1)), {}, {})
    start.card["data"]["toy/other"] = {}  # of two domains
    result = transfer(encoder, small, {"multitask": start}, CONFIG, quiet=True)
    assert (result.advice, dict(result.weights), result.prompt, result.route) == ("don't transfer", {}, None, None)
    assert "the base model stays: the text gives fewer than 10 pseudo-queries of each kind" in result.reason


def test_a_proven_prompt_is_the_transfer(
    encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.card["data"]["toy/other"] = {}
    means = {"span": {"base": 0.5, "prompt": 0.6}}
    monkeypatch.setattr("foreword.transferring.transfer.prove", lambda *args, **more: means)
    result = transfer(encoder, target, {"multitask": start}, CONFIG, quiet=True)
    assert (result.advice, result.method, dict(result.weights)) == ("transfer", "multitask", {"multitask": 1.0})
    assert result.prompt is start.prompt
    assert result.route == "made for toy/target"
    assert result.reason == "multitask is better on pseudo-queries of toy/target: nDCG@10 is 0.600 (base 0.500, span)"


def test_a_bank_without_a_prompt_of_several_domains_says_so(
    encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt
) -> None:
    with pytest.raises(PromptError, match="this bank has none"):
        transfer(encoder, target, {"one": start}, TransferConfig("multitask", proof=FAST), quiet=True)


def test_pseudo_queries_come_from_so_many_documents(target: MemoryCollection) -> None:
    checks = proof_pairs(target, replace(FAST, documents=20))
    assert set(checks) == {"auto", "span", "key-phrases"}
    chosen = {pair.doc_id for pairs in checks.values() for pair in pairs}
    assert len(chosen) == 20
    assert {p.doc_id for pairs in proof_pairs(target, replace(FAST, documents=20, seed=1)).values() for p in pairs} != chosen  # fmt: skip
    assert not proof_pairs(target, replace(FAST, documents=9))  # fewer than ten of a kind


def test_the_base_model_is_not_better_than_itself(
    encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt
) -> None:
    checks = proof_pairs(target, FAST)
    transformer_of(encoder).add("same", start.prompt)  # a new prompt changes nothing
    with pytest.raises(NoGainError, match="no better"):
        prove(encoder, "same", checks, FAST)
    with pytest.raises(TooLittleTextError, match="too few to compare"):
        prove(encoder, "same", {}, FAST)


def checked(monkeypatch: pytest.MonkeyPatch, **gains: list[float]) -> dict[str, list[TrainingPair]]:
    """Pseudo-queries of 20 documents by kind; with a prompt each has so much more than the base model's .5."""
    of = {f"{kind}{n}": gain for kind, each in gains.items() for n, gain in enumerate(each)}

    def scores(encoder: Any, route: str | None, pairs: list[TrainingPair], config: Any) -> dict[str, float]:
        return {p.query_id: 0.5 + (of[p.query_id] if route is not None else 0.0) for p in pairs}

    monkeypatch.setattr("foreword.transferring.proof.pseudo_scores", scores)
    return {kind: [TrainingPair(f"{kind}{n}", "a query", f"d{n}", "a text") for n in range(20)] for kind in gains}


@pytest.mark.parametrize(
    ("span", "phrases", "proven"),
    [
        ([0.1] * 20, [0.1] * 20, True),
        ([0.2] * 20, [0.0] * 20, True),
        ([0.2] * 20, [0.1, -0.12] * 10, True),  # worse for one kind, by what may be chance
        ([0.2] * 20, [-0.01] * 20, True),  # worse for one kind, surely, and yet surely better by the documents
        ([0.5, -0.4] * 10, [-0.01] * 20, False),  # worse for one kind, surely, and better by what may be chance
        ([0.1] * 20, [0.1, -0.4] * 10, False),  # worse in the mean
        ([0.0] * 20, [0.0] * 20, False),
    ],
)
def test_better_in_the_mean_and_surely_worse_on_no_kind_unless_surely_better(
    encoder: SentenceTransformer,
    monkeypatch: pytest.MonkeyPatch,
    span: list[float],
    phrases: list[float],
    proven: bool,
) -> None:
    gains = {"span": span, "phrases": phrases}
    checks = checked(monkeypatch, **gains)
    if proven:
        assert prove(encoder, "same", checks, FAST) == {
            kind: {"base": 0.5, "prompt": pytest.approx(0.5 + sum(each) / 20)} for kind, each in gains.items()
        }
    else:
        with pytest.raises(NoGainError, match=r"0\.500 without \(span\)"):
            prove(encoder, "same", checks, FAST)
    if min(phrases) == max(phrases) < 0:
        with pytest.raises(NoGainError, match="no better"):  # out of reach no kind may be worse
            prove(encoder, "same", checks, FAST, surely=True)


@pytest.mark.parametrize(
    ("first", "second", "sure"),
    [
        ([0.1, 0.0] * 10, [0.1, 0.0] * 10, True),
        ([0.3, -0.1] * 10, [0.3, -0.1] * 10, True),
        ([0.3, -0.2] * 10, [0.3, -0.2] * 10, False),
        ([0.3, -0.2] * 10, [-0.2, 0.3] * 10, True),  # what one kind loses, the other gains, document by document
    ],
)
def test_sure_is_above_0_by_the_documents(
    encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, first: list[float], second: list[float], sure: bool
) -> None:
    checks = checked(monkeypatch, span=first, auto=second)
    of_documents = np.array([first, second]).mean(axis=0)
    drawn = np.random.default_rng(1).choice(of_documents, (4000, 20)).mean(axis=1)
    assert (np.quantile(drawn, 0.025) > 0) == sure
    prove(encoder, "same", checks, FAST)  # better in the mean, all of them
    if sure:
        prove(encoder, "same", checks, FAST, surely=True)
    else:
        with pytest.raises(
            NoGainError, match=r"not clear enough .* 95 % interval of the difference is -0\.\d+ to \+0\."
        ):
            prove(encoder, "same", checks, FAST, surely=True)


def test_out_of_reach_a_prompt_has_to_be_surely_better(
    encoder: SentenceTransformer, target: MemoryCollection, start: StoredPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.card["data"]["toy/other"] = {}
    bank, asked = {"multitask": start}, []
    means = {"span": {"base": 0.5, "prompt": 0.6}}
    monkeypatch.setattr("foreword.transferring.transfer.prove", lambda *args, surely: asked.append(surely) or means)
    sources = {"toy/source": np.array([[1.0, 0.0]], np.float32), "toy/other": np.array([[0.0, 1.0]], np.float32)}
    far = transfer(
        encoder, target, bank, CONFIG, features={**sources, target.id: np.array([[-1.0, 0.0]], np.float32)}, quiet=True
    )
    assert (far.advice, far.prompt) == ("transfer", start.prompt)
    assert "out of its reach (at least 0.5); multitask is clearly better on pseudo-queries of toy/target" in far.reason
    near = transfer(
        encoder, target, bank, CONFIG, features={**sources, target.id: np.array([[1.0, 0.0]], np.float32)}, quiet=True
    )
    assert near.advice == "transfer"
    transfer(encoder, target, bank, CONFIG, quiet=True)  # nothing is known of the sources
    transfer(encoder, target, bank, replace(CONFIG, reach=False), quiet=True)
    assert asked == [True, False, True, False]
