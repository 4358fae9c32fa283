"""The words near a prompt: known neighbours, what is left out, and the section of the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from test_report_page import EVIL, Page
from tiny import random_prompt, save_model, words
from torch import nn

from foreword.errors import PromptError
from foreword.prompts import inspect as module
from foreword.prompts.encoder import transformer_of
from foreword.prompts.inspect import NearWord, bank_words, nearest_words, summary, vocabulary_of, words_record
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec
from foreword.prompts.start import new_prompt
from foreword.prompts.store import StoredPrompt
from foreword.report import render


def table_of(encoder: SentenceTransformer) -> torch.Tensor:
    return transformer_of(encoder).model.get_input_embeddings().weight.detach()


def prompt_of(vectors: torch.Tensor) -> Prompt:
    return Prompt(PromptSpec("input", len(vectors)), {"both.vectors": vectors})


@pytest.fixture
def restored(minilm: SentenceTransformer) -> Iterator[SentenceTransformer]:
    yield minilm
    transformer_of(minilm).remove_all()


# -- neighbours ------------------------------------------------------------------------------------------------------


def test_a_vector_made_of_words_lies_near_them(encoder: SentenceTransformer) -> None:
    vocabulary, table = encoder.tokenizer.get_vocab(), table_of(encoder)
    first, second = words()[3], words()[7]
    mixed = 2 * nn.functional.normalize(table[vocabulary[first]], dim=0)
    mixed = mixed + nn.functional.normalize(table[vocabulary[second]], dim=0)
    near = nearest_words(encoder, prompt_of(torch.stack([3 * table[vocabulary[second]], mixed])), count=2)
    (pure, both) = near.parts["both"]
    assert pure[0].word == second
    assert pure[0].similarity == pytest.approx(1, abs=1e-6)
    assert [w.word for w in both] == [first, second]


def test_similarities_are_the_cosines_of_all_the_words(
    encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = random_prompt(encoder, PromptSpec("input", 4, sides="untied"))
    whole = nearest_words(encoder, prompt, count=6)
    monkeypatch.setattr(module, "_ROWS", 7)
    for part, rows in nearest_words(encoder, prompt, count=6).parts.items():
        for row, again in zip(whole.parts[part], rows, strict=True):
            assert [w.word for w in again] == [w.word for w in row]
            assert [w.similarity for w in again] == pytest.approx([w.similarity for w in row], abs=1e-6)
    assert list(whole.parts) == ["query", "document"]
    tokens = {index: token for token, index in encoder.tokenizer.get_vocab().items()}
    special = {"[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"}
    vectors, table = prompt.tensors()["document.vectors"], table_of(encoder)
    for place, row in enumerate(whole.parts["document"]):
        cosines = nn.functional.cosine_similarity(vectors[place], table, dim=1).tolist()
        expected = sorted(((c, tokens[i]) for i, c in enumerate(cosines) if tokens[i] not in special), reverse=True)[:6]
        assert [w.word for w in row] == [token for _, token in expected]
        assert [w.similarity for w in row] == pytest.approx([c for c, _ in expected], abs=1e-6)


def test_a_prompt_of_words_on_minilm_gives_them_back(restored: SentenceTransformer) -> None:
    prompt = new_prompt(restored, PromptSpec("input", 4), start="text", texts=["stop gradients from flowing"])
    near = nearest_words(restored, prompt, count=3)
    assert [row[0].word for row in near.parts["both"]] == ["stop", "gradient", "##s", "from"]
    assert near.candidates + near.excluded == 30522
    assert near.excluded == 994 + 5  # [unused0] to [unused993], and the special tokens
    first = new_prompt(restored, PromptSpec("input", 8), start="first-ids")
    assert all(w.word not in ("[PAD]", "[CLS]") for row in nearest_words(restored, first).parts["both"] for w in row)


@pytest.mark.parametrize("kind", ["memory", "gated", "prefix"])
def test_other_kinds_have_no_words(encoder: SentenceTransformer, kind: Any) -> None:
    with pytest.raises(PromptError, match=f"of kind '{kind}'.*words exist for prompts of kind 'input' only"):
        nearest_words(encoder, random_prompt(encoder, PromptSpec(kind, 3)))


def test_what_is_asked_is_checked(encoder: SentenceTransformer) -> None:
    with pytest.raises(PromptError, match="count is 0"):
        nearest_words(encoder, random_prompt(encoder, PromptSpec("input", 2)), count=0)
    with pytest.raises(PromptError, match="width 8, the word embeddings 32"):
        nearest_words(encoder, prompt_of(torch.ones(2, 8)))


def test_more_words_than_there_are(encoder: SentenceTransformer) -> None:
    near = nearest_words(encoder, random_prompt(encoder, PromptSpec("input", 2)), count=10_000)
    assert {len(row) for row in near.parts["both"]} == {near.candidates}


@pytest.mark.parametrize("family", ["t5", "qwen3"])
def test_other_families(family: str, tmp_path: Path) -> None:
    encoder = load_encoder(str(save_model(tmp_path / family, family)), device="cpu")
    word = words()[5]
    vector = table_of(encoder)[encoder.tokenizer.get_vocab()[word]]
    near = nearest_words(encoder, prompt_of(vector[None]), count=1)
    assert near.parts["both"][0][0].word == word
    assert near.excluded == len(set(encoder.tokenizer.all_special_ids))


# -- the vocabulary --------------------------------------------------------------------------------------------------


def test_what_is_no_word_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = ["<pad>", "[unused12]", "<unused_3>", "<extra_id_7>", "madeupword0001", "<0x0A>", "<|reserved_special_9|>"]
    tokens += ["<added>", "Ġ", "half", "Ġthe", "the", "##ing", "[unusual]", "é"]
    shown = {"Ġ": " ", "half": "�", "Ġthe": " the"}
    tokenizer = SimpleNamespace(
        all_special_ids=[0],
        added_tokens_decoder={7: SimpleNamespace(special=True), 14: SimpleNamespace(special=False)},
        get_vocab=lambda: {**{token: index for index, token in enumerate(tokens)}, "beyond the rows": 99},
        batch_decode=lambda ids, **_: [shown.get(tokens[i], tokens[i]) for (i,) in ids],
    )
    embeddings = nn.Embedding(20, 4)
    model = SimpleNamespace(get_input_embeddings=lambda: embeddings)
    monkeypatch.setattr(module, "transformer_of", lambda _: SimpleNamespace(tokenizer=tokenizer, model=model))
    found = vocabulary_of(None)  # type: ignore[arg-type]
    assert found.words == ("the", "the", "##ing", "[unusual]", "é")
    assert found.ids.tolist() == [10, 11, 12, 13, 14]
    assert found.excluded == 15
    vector = embeddings.weight[10].detach()
    with torch.no_grad():
        embeddings.weight[11] = vector * 2  # with and without a space: one word, shown once
    near = nearest_words(None, prompt_of(vector[None]), count=4)  # type: ignore[arg-type]
    assert [w.word for w in near.parts["both"][0]].count("the") == 1
    assert len(near.parts["both"][0]) == 4
    assert near.parts["both"][0][0] == NearWord("the", pytest.approx(1))


# -- summaries, records, banks ---------------------------------------------------------------------------------------


def test_summary_weighs_words_by_their_vectors() -> None:
    rows = [
        [NearWord("often", 0.5), NearWord("once", 0.45)],
        [NearWord("close", 0.8), NearWord("often", 0.5)],
        [NearWord("also", 0.45), NearWord("against", -0.9)],
    ]
    found = summary(rows)
    assert [(t.word, round(t.weight, 6), t.vectors) for t in found] == [
        ("often", 1.0, 2),
        ("close", 0.8, 1),
        ("also", 0.45, 1),
        ("once", 0.45, 1),
    ]
    assert [t.word for t in summary(rows, count=1)] == ["often"]
    assert summary([]) == []


def stored(prompt: Prompt, domain: str) -> StoredPrompt:
    return StoredPrompt(prompt, {"domain": domain})


def test_a_bank_has_a_record_for_each_part(encoder: SentenceTransformer) -> None:
    bank = {
        "a": stored(random_prompt(encoder, PromptSpec("input", 2, sides="untied")), "a"),
        "g": stored(random_prompt(encoder, PromptSpec("gated", 2)), "g"),
        "b": stored(random_prompt(encoder, PromptSpec("input", 3)), "b"),
    }
    found = bank_words(encoder, bank, count=2)
    assert [(r["domain"], r["part"], len(r["rows"])) for r in found.records] == [
        ("a", "query", 2),
        ("a", "document", 2),
        ("b", "both", 3),
    ]
    assert found.left_out == {"g": "gated"}
    assert json.loads(json.dumps(found.records)) == found.records
    near = nearest_words(encoder, bank["b"].prompt, count=2)
    assert found.records[2] == words_record("b", "both", near)
    assert set(found.records[2]["rows"][0][0]) == {"word", "similarity"}
    with pytest.raises(PromptError, match=r"here are: g \(gated\)"):
        bank_words(encoder, {"g": bank["g"]})


# -- the page --------------------------------------------------------------------------------------------------------


def test_the_page_has_a_section_of_words(encoder: SentenceTransformer) -> None:
    bank = {EVIL: stored(random_prompt(encoder, PromptSpec("input", 2, sides="untied")), EVIL)}
    records = bank_words(encoder, bank, count=3).records
    records[0]["rows"][0][0]["word"] = records[0]["summary"][0]["word"] = EVIL
    records[1]["rows"][1] = records[1]["rows"][1][:1]  # fewer words than the other vector has
    text = render({"words": records})
    page = Page(text)
    assert page.sections() == ["words"]
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe"})
    assert [tag for tag, _ in page.tags].count("details") == 2
    assert [tag for tag, _ in page.tags].count("bdi") == 3 * 2 + 3 + 1 + len(records[0]["summary"]) + len(
        records[1]["summary"]
    )
    assert "entries were compared; 5 special tokens" in text
    assert render({"words": records}) == text


@pytest.mark.parametrize("empty", [None, [], [{"domain": "a", "part": "both", "rows": [], "summary": []}]])
def test_no_words_no_section(empty: Any) -> None:
    assert Page(render({"words": empty})).sections() == []


def test_records_without_what_is_optional() -> None:
    text = render({"words": [{"domain": "a", "part": "odd", "rows": [[{"word": "w", "similarity": None}], []]}]})
    assert Page(text).sections() == ["words"]
    assert "odd" in text
    assert "were compared" not in text
