"""Prompts as words of a plain sentence-transformers model, equal to the encoder where Foreword is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import outside
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, save_model, sentences
from transformers import AutoModel, AutoTokenizer

from foreword.errors import DataError, PromptError
from foreword.exporting import export_plain
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import save_prompt

TEXTS = [*sentences(5, seed=3), "", " Blanks  and CAPITALS, Café 3.14 ", " ".join(sentences(12, seed=4))]
"""The last one is longer than the tiny backbone's 48 positions."""

ENCODE = """
from sentence_transformers import SentenceTransformer

answer = {}
for job in given["jobs"]:
    model = SentenceTransformer(job["folder"], device="cpu")
    for key, (method, name) in job["calls"].items():
        how = {} if name is None else {"prompt_name": name}
        answer[key] = getattr(model, method)(given["texts"], normalize_embeddings=True, **how).tolist()
"""


def carrying(backbone: Path | str, prompts: dict[str, PromptSpec], **options: Any) -> SentenceTransformer:
    encoder = load_encoder(str(backbone), device="cpu", **options)
    for seed, (domain, spec) in enumerate(prompts.items()):
        transformer_of(encoder).add(domain, random_prompt(encoder, spec, seed, scale=0.5))
    return encoder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plain-backbones")
    for family in ("bert", "roberta", "distilbert", "modernbert"):
        save_model(root / family, family, normalize=family == "roberta")
    save_model(root / "cls", "bert", pooling=("cls", "mean_sqrt_len_tokens"))
    return root


INPUT = PromptSpec("input", 5)
UNTIED = PromptSpec("input", 5, sides="untied", placement="after-cls")
QUERY = PromptSpec("input", 5, sides="query")


MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.usefixtures("minilm")
def test_equal_where_foreword_is_not_installed(models: Path, tmp_path: Path) -> None:
    """Several domains in a folder, each by its name; real weights, four families, three kinds of sides, two poolings."""
    cases: list[tuple[str, dict[str, PromptSpec]]] = [
        ("bert", {"a/x": INPUT, "b": UNTIED}),
        ("roberta", {"one": INPUT}),
        ("distilbert", {"one": QUERY}),
        ("modernbert", {"one": UNTIED}),
        ("cls", {"one": INPUT}),
        (MINILM, {"one": INPUT}),
    ]
    jobs, expected = [], {}
    for family, prompts in cases:
        encoder = carrying(family if family == MINILM else models / family, prompts)
        named = export_plain(encoder, tmp_path / family)
        calls: dict[str, tuple[str, str | None]] = {}
        for one in named:
            for side in one.sides:
                key = f"{family} {one.name} {side}"
                calls[key] = (f"encode_{side}", one.name)
                expected[key] = encode(encoder, TEXTS, side, route=one.domain, quiet=True)
        if len(prompts) == 1:  # the only domain is what the sides' own methods take
            for side in ("query", "document"):
                calls[f"{family} {side}"] = (f"encode_{side}", None)
                expected[f"{family} {side}"] = encode(encoder, TEXTS, side, route="one", quiet=True)  # type: ignore[arg-type]
        jobs.append({"folder": str(tmp_path / family), "calls": calls})
    got = outside.run(ENCODE, {"texts": TEXTS, "jobs": jobs}, blocked=True)
    assert sorted(got) == sorted(expected)
    assert {"bert a/x query", "bert b-document document", "distilbert document"} <= set(got)
    for key, want in expected.items():
        unit = want / np.linalg.norm(want, axis=1, keepdims=True)
        np.testing.assert_allclose(np.array(got[key]), unit, atol=1e-5, err_msg=key)


def test_the_mean_is_over_the_text_and_its_ends(models: Path, tmp_path: Path) -> None:
    """Worked out from transformers alone: [CLS] and [SEP] are in the mean, the prompt's words are not."""
    encoder = carrying(models / "bert", {"a": INPUT})
    (named,) = export_plain(encoder, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer(named.text + TEXTS[0], return_tensors="pt")
    alone = load_encoder(str(models / "bert"), device="cpu")[0].tokenizer(TEXTS[0])["input_ids"]
    assert ids["input_ids"][0].tolist()[:1] + ids["input_ids"][0].tolist()[6:] == alone
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    vectors = transformer_of(encoder).prompt("a").tensors()["both.vectors"]
    table = model.get_input_embeddings().weight
    assert torch.equal(table[ids["input_ids"][0, 1:6]], vectors)
    with torch.no_grad():
        hidden = model(**ids).last_hidden_state[0]
    mean = torch.cat([hidden[:1], hidden[6:]]).mean(0).numpy()
    found = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(TEXTS[0], prompt_name="a")
    np.testing.assert_allclose(found, mean, atol=1e-5)


def test_text_is_cut_as_the_encoder_cuts_it(models: Path, tmp_path: Path) -> None:
    encoder = carrying(models / "bert", {"a": QUERY}, max_length=10)
    export_plain(encoder, tmp_path / "out")
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    long = " ".join(sentences(12, seed=4))
    ours = encoder.preprocess([long])["input_ids"].shape[1]
    assert ours == 10
    assert model.preprocess([long], prompt=model.prompts["a-query"], task="query")["input_ids"].shape[1] == ours + 5
    assert model.preprocess([long], task="document")["input_ids"].shape[1] == ours


def test_names_and_defaults(models: Path, tmp_path: Path) -> None:
    encoder = carrying(models / "bert", {"a": INPUT, "b": INPUT})
    base = encode(encoder, TEXTS[:3], "query", route=None, quiet=True)
    export_plain(encoder, tmp_path / "none")
    none = SentenceTransformer(str(tmp_path / "none"), device="cpu")
    assert none.default_prompt_name is None
    np.testing.assert_allclose(none.encode(TEXTS[:3], normalize_embeddings=True), base, atol=1e-5)
    export_plain(encoder, tmp_path / "b", default="b")
    chosen = SentenceTransformer(str(tmp_path / "b"), device="cpu")
    own = encode(encoder, TEXTS[:3], "query", route="b", quiet=True)
    for found in (chosen.encode, chosen.encode_query, chosen.encode_document):
        np.testing.assert_allclose(found(TEXTS[:3], normalize_embeddings=True), own, atol=1e-5)
    np.testing.assert_allclose(chosen.encode(TEXTS[:3], prompt="", normalize_embeddings=True), base, atol=1e-5)
    again = export_plain(encoder, tmp_path / "again", default="b")
    assert [one.text for one in again] == [chosen.prompts["a"], chosen.prompts["b"]]
    assert len({again[0].text[i : i + 26] for i in range(0, 130, 26)}) == 5


def test_the_backbones_own_words_stay(models: Path, tmp_path: Path) -> None:
    encoder = carrying(models / "bert", {"a": INPUT})
    encoder.prompts = {"query": "bada ", "document": ""}
    named = export_plain(encoder, tmp_path / "out")
    assert [one.name for one in named] == ["a-query", "a-document"]
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    got = model.encode_query(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(got, encode(encoder, TEXTS, "query", route="a", quiet=True), atol=1e-5)


def test_the_backbones_default_stays(models: Path, tmp_path: Path) -> None:
    """What `encode` puts before a text without a name is the base model's own, where no domain is the default."""
    base = SentenceTransformer(str(models / "bert"), device="cpu")
    base.prompts["own"], base.default_prompt_name = "bada ", "own"
    base.save(str(tmp_path / "base"), create_model_card=False)
    export_plain(carrying(tmp_path / "base", {"a": INPUT, "b": INPUT}), tmp_path / "out")
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert model.default_prompt_name == "own"
    np.testing.assert_allclose(model.encode(TEXTS[:3]), base.encode(TEXTS[:3]), atol=1e-5)


@pytest.mark.parametrize(
    ("prompts", "options", "said"),
    [
        ({"a": PromptSpec("gated", 3)}, {}, "a: a gated prompt stands inside the layers"),
        ({"a": PromptSpec("prefix", 3)}, {}, "a: a prefix prompt stands inside the layers"),
        ({"a": PromptSpec("input", 3, placement="before")}, {}, "only placement 'after-cls' can be words"),
        ({"a": INPUT}, {"pooling": "max"}, "a word of weight 0 still takes part in a maximum"),
        ({"a": INPUT}, {"pooling": ["mean", "weightedmean"]}, "its weights count positions"),
        ({"a": INPUT, "b": PromptSpec("input", 4)}, {}, r"5 \(a\), 4 \(b\) vectors: .* a folder of its own"),
        ({"a": INPUT, "b": QUERY}, {}, r"shared \(a\), query \(b\)"),
        ({"a": UNTIED, "a-query": INPUT}, {}, "several prompts would have the name a-query"),
        ({"query": INPUT}, {}, "the name query"),
        ({"passage": INPUT, "a": INPUT}, {}, "the name passage"),
        ({}, {}, "carries no prompt"),
    ],
)
def test_what_a_plain_model_cannot_do_is_refused(
    models: Path, tmp_path: Path, prompts: dict[str, PromptSpec], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(PromptError, match=said):
        export_plain(carrying(models / "bert", prompts, **options), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_overwritten_nor_left_half(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = carrying(models / "bert", {"a": INPUT})
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    with pytest.raises(DataError, match="is there already"):
        export_plain(encoder, tmp_path / "there")
    with pytest.raises(DataError, match="give --output a name"):
        export_plain(encoder, ".")
    monkeypatch.setattr("foreword.exporting.plain._WEIGHTED", set())  # words that take part in the mean are found out
    with pytest.raises(PromptError, match="a: the export's embeddings differ from the encoder's by"):
        export_plain(encoder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_command(models: Path, tmp_path: Path, shell: Any) -> None:
    encoder = carrying(models / "bert", {})
    for seed, name in enumerate(("a", "b")):
        save_prompt(tmp_path / "bank" / name, random_prompt(encoder, INPUT, seed), encoder, name)
    save_prompt(tmp_path / "g", random_prompt(encoder, PromptSpec("gated", 3)), encoder, "g")
    how = ("--to", "plain", "--backbone", models / "bert", "--device", "cpu")
    said = shell.json("export", tmp_path / "bank", *how, "--output", tmp_path / "out")
    assert said["prompt_names"] == ["a", "b"]
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    ours = load_encoder(str(models / "bert"), bank=tmp_path / "bank", device="cpu")
    want = encode(ours, TEXTS, "document", route="b", quiet=True)
    np.testing.assert_allclose(
        model.encode_document(TEXTS, prompt_name="b", normalize_embeddings=True), want, atol=1e-5
    )
    assert 'prompt_name="a"' in (tmp_path / "out" / "README.md").read_text()
    assert "inside the layers" in shell.fails("export", tmp_path / "g", *how, "--output", tmp_path / "no")
    assert "is there already" in shell.fails("export", tmp_path / "bank", *how, "--output", tmp_path / "out")
    assert "holds no prompt" in shell.fails("export", tmp_path / "out", *how, "--output", tmp_path / "no")
    assert "for 'a' too" in shell.fails(
        "export", tmp_path / "bank", tmp_path / "bank" / "a", *how, "--output", tmp_path / "no"
    )
