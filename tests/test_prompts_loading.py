"""Pooling, length and similarity of an encoder: asked for, taken from a prompt, or its own; and the first ids."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from tiny import random_prompt, save_model, sentences, tokenizer

from foreword.errors import BackboneError, ForewordError, OtherEncoderError, PromptError, UnknownNameError
from foreword.indexing import Index
from foreword.prompts.encoder import Head, encode, head_of, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec
from foreword.prompts.start import new_prompt
from foreword.prompts.store import check_backbone, describe_backbone, load_bank, load_prompt, save_mixture, save_prompt
from foreword.training.config import TrainingConfig
from foreword.training.train import train

TEXTS = sentences(7, seed=5)
DOT = Head("cls", False, "dot")
"""What the prompts of these tests are made under; the tiny BERT's own is the mean, and the cosine."""

Load = Callable[..., SentenceTransformer]


@pytest.fixture
def load(tiny_bert: Path) -> Load:
    return lambda **options: load_encoder(str(tiny_bert), device="cpu", **options)


@pytest.fixture
def stored(load: Load, tmp_path: Path) -> Path:
    """A prompt made under the first token's vector and inner products."""
    encoder = load(pooling="cls", normalize=False)
    return save_prompt(tmp_path / "cls", random_prompt(encoder, PromptSpec("gated", 3)), encoder, "toy/one")


def tokens_of(encoder: SentenceTransformer, text: str) -> torch.Tensor:
    """The base model's vectors (T, d) of one text."""
    transformer = transformer_of(encoder)
    with torch.no_grad():
        found: torch.Tensor = transformer.model(**transformer.tokenizer(text, return_tensors="pt")).last_hidden_state
    return found[0]


# -- asked for -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("cls", lambda t: t[0]),
        ("mean", lambda t: t.mean(0)),
        ("max", lambda t: t.max(0).values),
        ("lasttoken", lambda t: t[-1]),
        (["cls", "mean"], lambda t: torch.cat([t[0], t.mean(0)])),
    ],
)
def test_poolings(load: Load, pooling: Any, expected: Callable[[torch.Tensor], torch.Tensor]) -> None:
    encoder = load(pooling=pooling, normalize=False)
    for text in TEXTS[:3]:
        found = encode(encoder, [text], "query")[0]
        np.testing.assert_allclose(found, expected(tokens_of(encoder, text)).numpy(), atol=1e-5)
    assert encoder.get_embedding_dimension() == len(found)


def test_none_keeps_the_backbones_own(load: Load, tmp_path: Path) -> None:
    assert head_of(load()) == Head("mean", False, "cosine")
    own = save_model(tmp_path / "own", pooling="max", normalize=True)
    assert head_of(load_encoder(str(own), device="cpu")) == Head("max", True, "cosine")
    assert head_of(load_encoder(str(own), device="cpu", pooling="cls")) == Head("cls", True, "cosine")


def test_length_and_similarity_go_together(load: Load, tmp_path: Path) -> None:
    plain, unit, raw = load(), load(normalize=True), load(normalize=False)
    assert (head_of(unit), head_of(raw)) == (Head("mean", True, "cosine"), Head("mean", False, "dot"))
    assert (unit.similarity_fn_name, raw.similarity_fn_name) == ("cosine", "dot")
    np.testing.assert_allclose(np.linalg.norm(unit.encode(TEXTS), axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(raw.encode(TEXTS), plain.encode(TEXTS), atol=1e-6)
    np.testing.assert_allclose(encode(unit, TEXTS, "query"), encode(plain, TEXTS, "query"), atol=1e-6)
    assert np.abs(np.linalg.norm(encode(raw, TEXTS, "query"), axis=1) - 1).min() > 0.1

    folder = save_model(tmp_path / "normal", normalize=True)
    without = load_encoder(str(folder), device="cpu", normalize=False)
    assert [type(module).__name__ for module in without] == ["PromptedTransformer", "Pooling"]
    np.testing.assert_allclose(without.encode(TEXTS), raw.encode(TEXTS), atol=1e-6)
    again = load_encoder(str(folder), device="cpu", normalize=True)
    assert [type(module).__name__ for module in again] == ["PromptedTransformer", "Pooling", "Normalize"]


@pytest.mark.parametrize("normalize", [True, False])
def test_inner_products_of_encode_are_the_models_similarity(load: Load, normalize: bool) -> None:
    """What retrieval multiplies, what sentence-transformers compares by, and what training scores by."""
    encoder = load(pooling="cls", normalize=normalize)
    queries, documents = encode(encoder, TEXTS[:3], "query"), encode(encoder, TEXTS, "document")
    own = encoder.similarity(encoder.encode(TEXTS[:3]), encoder.encode(TEXTS)).numpy()
    np.testing.assert_allclose(queries @ documents.T, own, atol=1e-4)


def test_a_transformer_alone_takes_the_mean(tiny_bert: Path) -> None:
    raw = tiny_bert.with_name(f"{tiny_bert.name}-raw")
    assert not (raw / "modules.json").exists()
    encoder = load_encoder(str(raw), device="cpu")
    assert head_of(encoder) == Head("mean", False, "cosine")
    found = encode(load_encoder(str(raw), device="cpu", normalize=False), TEXTS[:1], "query")[0]
    np.testing.assert_allclose(found, tokens_of(encoder, TEXTS[0]).mean(0).numpy(), atol=1e-5)
    assert head_of(load_encoder(str(raw), device="cpu", pooling="cls", normalize=True)) == Head("cls", True, "cosine")


def test_what_cannot_be_had_is_said(load: Load, tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no pooling 'first'; there are: cls, .*first token's vector is 'cls'"):
        load(pooling="first")
    with pytest.raises(UnknownNameError, match="no pooling of that name"):
        load(pooling=[])
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    dense = SentenceTransformer(modules=[encoder[0], Pooling(32), Dense(32, 16), Normalize()], device="cpu")
    dense.save(str(tmp_path / "dense"), create_model_card=False)
    assert load_encoder(str(tmp_path / "dense"), device="cpu", pooling="cls").encode(["a"]).shape == (1, 16)
    with pytest.raises(BackboneError, match="take vectors of width 32 after the pooling"):
        load_encoder(str(tmp_path / "dense"), device="cpu", pooling=["cls", "mean"])
    dense.similarity_fn_name = "manhattan"
    dense.save(str(tmp_path / "manhattan"), create_model_card=False)
    with pytest.raises(BackboneError, match=r"similarity is 'manhattan'.*normalize=True"):
        load_encoder(str(tmp_path / "manhattan"), device="cpu")
    assert load_encoder(str(tmp_path / "manhattan"), device="cpu", normalize=True).similarity_fn_name == "cosine"


# -- from a prompt ---------------------------------------------------------------------------------------------------


def test_a_prompt_brings_what_it_was_made_under(load: Load, stored: Path, caplog: pytest.LogCaptureFixture) -> None:
    card = json.loads((stored / "prompt.json").read_text())["backbone"]
    assert (card["pooling"], card["normalized"], card["similarity"]) == ("cls", False, "dot")
    with caplog.at_level(logging.INFO, logger="foreword"):
        encoder = load(prompt=stored)
    assert head_of(encoder) == DOT
    assert (
        "cls pooling, embeddings of any length and similarity dot, as it was made; the backbone's own is mean"
        in caplog.text
    )
    same = load(prompt=stored, pooling="cls", normalize=False)
    np.testing.assert_array_equal(encode(same, TEXTS, "query"), encode(encoder, TEXTS, "query"))


def test_nothing_is_said_where_nothing_was_taken(load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = load()
    save_prompt(tmp_path / "own", random_prompt(encoder, PromptSpec("gated", 3)), encoder, "toy/one")
    with caplog.at_level(logging.INFO, logger="foreword"):
        assert head_of(load(prompt=tmp_path / "own")) == head_of(encoder)
    assert "as it was made" not in caplog.text


@pytest.mark.parametrize("options", [{"pooling": "mean"}, {"normalize": True}, {"pooling": "cls", "normalize": True}])
def test_what_contradicts_the_prompt_is_refused(load: Load, stored: Path, options: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match=r"cls: was made under cls pooling, .*dot; asked for was .*Leave pooling"):
        load(prompt=stored, **options)


def test_a_prompt_refuses_another_similarity(load: Load, stored: Path) -> None:
    """The two have one pooling and no module that makes unit length: only the similarity tells them apart."""
    encoder = load(pooling="cls")
    assert head_of(encoder) == Head("cls", False, "cosine")
    with pytest.raises(PromptError, match=r"with similarity 'dot'; this encoder is .* with similarity 'cosine'"):
        load_prompt(stored, encoder)


def test_a_card_from_before_similarity_was_noted(load: Load, stored: Path) -> None:
    card = json.loads((stored / "prompt.json").read_text())
    del card["backbone"]["similarity"]
    (stored / "prompt.json").write_text(json.dumps(card))
    encoder = load(prompt=stored)
    assert head_of(encoder) == Head("cls", False, "cosine")
    check_backbone(card, encoder, stored)


def test_a_prompt_of_other_weights_is_refused_for_them(stored: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", seed=1)
    for options in ({}, {"pooling": "mean"}):
        with pytest.raises(PromptError, match="with weights"):
            load_encoder(str(other), prompt=stored, device="cpu", **options)


def test_a_card_with_a_pooling_that_is_none(load: Load, stored: Path) -> None:
    card = json.loads((stored / "prompt.json").read_text())
    for change in ({"pooling": "best"}, {"pooling": 3}, {"similarity": "x"}, {"pooling": None}):
        altered = {**card, "backbone": {**card["backbone"], **change}}
        (stored / "prompt.json").write_text(json.dumps(altered))
        with pytest.raises(ForewordError):
            load(prompt=stored)


def test_banks_and_mixtures_bring_theirs(load: Load, tmp_path: Path) -> None:
    encoder = load(pooling=["cls", "mean"], normalize=True)
    for seed, name in enumerate(("a", "b")):
        save_prompt(tmp_path / "bank" / name, random_prompt(encoder, PromptSpec("gated", 3), seed), encoder, name)
    bank = load_bank(tmp_path / "bank", encoder)
    save_mixture(tmp_path / "mix", "t", {"a": 0.5, "b": 0.5}, bank, encoder)
    for options in ({"bank": tmp_path / "bank"}, {"prompt": tmp_path / "mix"}):
        assert head_of(load(**options)) == Head(("cls", "mean"), True, "cosine")
        with pytest.raises(PromptError, match=r"made under cls\+mean pooling"):
            load(pooling="mean", **options)
    own = load()
    alone = save_prompt(tmp_path / "alone", random_prompt(own, PromptSpec("gated", 3)), own, "alone")
    with pytest.raises(PromptError, match="pooling"):
        load(prompt=alone, bank=tmp_path / "bank")


# -- saved encoders --------------------------------------------------------------------------------------------------


def test_a_saved_encoder_keeps_its_own(load: Load, stored: Path, tmp_path: Path) -> None:
    encoder = load(prompt=stored)
    encoder.save_pretrained(str(tmp_path / "saved"))
    ours = load_encoder(str(tmp_path / "saved"), device="cpu")
    theirs = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    for loaded in (ours, theirs):
        assert head_of(loaded) == DOT
        np.testing.assert_allclose(loaded.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    assert head_of(load_encoder(str(tmp_path / "saved"), device="cpu", pooling="cls", normalize=False)) == DOT
    with pytest.raises(PromptError, match="saved: was made under cls pooling"):
        load_encoder(str(tmp_path / "saved"), device="cpu", normalize=True)
    (tmp_path / "saved" / "modules.json").write_text("[{}]")
    with pytest.raises(PromptError, match="its modules cannot be read"):
        load_encoder(str(tmp_path / "saved"), device="cpu")


@pytest.mark.parametrize("normalize", [True, False])
def test_a_saved_encoder_without_prompts_takes_what_is_asked(load: Load, tmp_path: Path, normalize: bool) -> None:
    encoder = load(pooling="max", normalize=normalize)
    encoder.save_pretrained(str(tmp_path / "saved"))
    again = load_encoder(str(tmp_path / "saved"), device="cpu")
    assert head_of(again) == head_of(encoder)
    assert describe_backbone(again) == describe_backbone(encoder)
    other = load_encoder(str(tmp_path / "saved"), device="cpu", pooling="cls", normalize=not normalize)
    assert head_of(other) == Head("cls", not normalize, "dot" if normalize else "cosine")


# -- the first token's vector with an input prompt -------------------------------------------------------------------


@pytest.mark.parametrize("placement", ["after-cls", "before"])
def test_cls_pooling_gives_the_first_token_not_a_prompt_vector(load: Load, placement: Any) -> None:
    encoder = load(pooling="cls", normalize=False)
    transformer = transformer_of(encoder)
    prompt = random_prompt(encoder, PromptSpec("input", 3, placement=placement))
    transformer.add("p", prompt)
    table = transformer.model.get_input_embeddings().weight.detach()
    found = encode(encoder, TEXTS, "query", route="p", batch_size=len(TEXTS))
    for row, text in enumerate(TEXTS):
        words = table[transformer.tokenizer(text)["input_ids"]]
        vectors = prompt.tensors()["both.vectors"]
        joined = [words[:1], vectors, words[1:]] if placement == "after-cls" else [vectors, words]
        with torch.no_grad():
            outputs = transformer.model(inputs_embeds=torch.cat(joined)[None]).last_hidden_state[0]
        expected = outputs[0 if placement == "after-cls" else 3]
        np.testing.assert_allclose(found[row], expected.numpy(), atol=1e-5)


# -- the first ids ---------------------------------------------------------------------------------------------------


def test_first_ids(load: Load) -> None:
    encoder = load()
    table = transformer_of(encoder).model.get_input_embeddings().weight.detach()
    prompt = new_prompt(encoder, PromptSpec("input", 6, sides="untied"), start="first-ids", seed=3)
    for part in ("query", "document"):
        assert torch.equal(prompt.tensors()[f"{part}.vectors"], table[:6])
    inside = new_prompt(encoder, PromptSpec("gated", 6), start="first-ids")
    assert inside.digest() == new_prompt(encoder, PromptSpec("gated", 6), start="first-ids", seed=1).digest()
    assert isinstance(inside, Prompt)
    with pytest.raises(PromptError, match=f"needs 9999 ids, the vocabulary has {len(table)}"):
        new_prompt(encoder, PromptSpec("input", 9999), start="first-ids")


# -- embeddings that are cut (truncate_dim) ----------------------------------------------------------------------------


def shortened(folder: Path, width: Any, **how: Any) -> Path:
    """A tiny model whose folder says that embeddings are cut to `width` numbers."""
    save_model(folder, **how)
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncate_dim": width}))
    return folder


@pytest.mark.parametrize("normalize", [False, True])
def test_cut_embeddings_are_those_of_sentence_transformers_everywhere(tmp_path: Path, normalize: bool) -> None:
    folder = shortened(tmp_path / "cut", 12, normalize=normalize)
    texts = sentences(5)
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    assert expected.shape == (5, 12)
    encoder = load_encoder(str(folder), device="cpu")
    assert encoder.get_embedding_dimension() == 12
    got = encode(encoder, texts, "document", quiet=True)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(texts, normalize_embeddings=True), expected, atol=1e-6)
    prompt = random_prompt(encoder, PromptSpec(kind="gated"))
    transformer_of(encoder).add("one", prompt)
    encoder.save_pretrained(str(tmp_path / "saved"))
    for again in (
        load_encoder(str(tmp_path / "saved"), device="cpu"),
        SentenceTransformer(str(tmp_path / "saved"), device="cpu", trust_remote_code=True),
    ):
        np.testing.assert_allclose(encode(again, texts, "document", quiet=True), expected, atol=1e-6)


def test_a_cut_that_is_set_by_hand(encoder: SentenceTransformer, tiny_bert: Path) -> None:
    texts = sentences(3)
    encoder.truncate_dim = 7
    plain = SentenceTransformer(str(tiny_bert), device="cpu", truncate_dim=7)
    expected = plain.encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(encode(encoder, texts, "query", quiet=True), expected, atol=1e-6)


@pytest.mark.parametrize("width", [0, -3, 33, "12", True, [12]])
def test_a_cut_to_no_width_is_refused(tmp_path: Path, width: Any) -> None:
    folder = shortened(tmp_path / "cut", width)
    with pytest.raises(BackboneError, match=rf"{folder}.*truncate_dim is .*expected a number from 1 to 32"):
        load_encoder(str(folder), device="cpu")


def test_training_indexing_and_vectors_of_a_cut_encoder(tmp_path: Path, toy: Any, beir: Path) -> None:
    encoder = load_encoder(str(shortened(tmp_path / "cut", 12)), device="cpu")
    for side in ("query", "both"):
        config = TrainingConfig.default(side, steps=2, evaluate_every=1, batch_size=8, dev_folds=0)  # type: ignore[arg-type]
        stored = train(encoder, toy, tmp_path / side, config=config, quiet=True)
        [first, *_] = stored.card["metrics"]["dev"]
        assert first["step"] == 0
        assert first["dev"] is not None
    with Index.open(str(tmp_path / "notes.db"), create=True) as index:
        index.build(encoder, "toy", list(toy.documents()), quiet=True)
        assert index.info("toy").complete
        assert index.info("toy").stamp.dimension == 12
        other = load_encoder(str(tmp_path / "cut"), device="cpu")
        other.truncate_dim = 8
        with pytest.raises(OtherEncoderError, match=r"vectors of 12 numbers.*gives 8"):
            index.build(other, "two", list(toy.documents()), quiet=True)


# -- what cannot be loaded ---------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_layer(folder: Path) -> None:
    tensors = {k: v for k, v in load_file(folder / "model.safetensors").items() if "layer.1" not in k}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def not_numbers(folder: Path) -> None:
    tensors = {k: v * float("nan") for k, v in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def edited(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def pointer(path: Path) -> None:
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 90868376\n")


def no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "pointer": (
        lambda f: pointer(f / "model.safetensors"),
        r"model\.safetensors is a pointer of git-lfs.*git lfs pull",
    ),
    "vocabulary's pointer": (lambda f: pointer(f / "tokenizer.json"), r"tokenizer\.json is a pointer of git-lfs"),
    "cut weights": (lambda f: cut(f / "model.safetensors"), "cannot be loaded"),
    "weights of text": (lambda f: (f / "model.safetensors").write_text("404: Not Found"), "cannot be loaded"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot be loaded"),
    "fewer layers": (without_layer, r"weights lack '.*layer\.1\..*' and \d+ more"),
    "other width": (lambda f: edited(f / "config.json", hidden_size=64), "cannot be loaded"),
    "no config": (lambda f: (f / "config.json").unlink(), r"holds no config\.json"),
    "cut config": (lambda f: cut(f / "config.json"), "cannot be loaded"),
    "config of a list": (lambda f: (f / "config.json").write_text("[]"), "cannot be loaded"),
    "unknown type": (lambda f: edited(f / "config.json", model_type="no-such"), "cannot be loaded.*no-such"),
    "no type": (lambda f: edited(f / "config.json", model_type=None), "cannot be loaded"),
    "no padding token": (lambda f: edited(f / "tokenizer_config.json", pad_token=None), "no padding token"),
    "no tokenizer": (no_tokenizer, "its tokenizer knows .* missing or another model's"),
    "cut tokenizer": (lambda f: cut(f / "tokenizer.json"), "cannot be loaded|its tokenizer knows"),
    "cut modules": (lambda f: cut(f / "modules.json"), r"modules\.json"),
    "modules of numbers": (lambda f: (f / "modules.json").write_text("[1]"), r"modules\.json"),
    "no pooling": (lambda f: (f / "1_Pooling" / "config.json").unlink(), "cannot be loaded"),
    "unknown module": (
        lambda f: edited_module(f, "no_such_package.Module"),
        "cannot be loaded.*no_such_package",
    ),
    "transformer alone among modules": (
        lambda f: (f / "modules.json").write_text(json.dumps(json.loads((f / "modules.json").read_text())[:1])),
        "cannot be loaded.*sentence_embedding",
    ),
    "no text": (
        lambda f: edited(f / "sentence_bert_config.json", modality_config={}),
        "cannot be loaded.*'text' is not supported",
    ),
    "weights of NaN": (not_numbers, "what it makes of a text is not finite"),
    "cut settings": (lambda f: cut(f / "config_sentence_transformers.json"), "cannot be loaded"),
}


def edited_module(folder: Path, kind: str) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_is_named_in_one_line(tmp_path: Path, tiny_bert: Path, what: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    break_it, said = BROKEN[what]
    break_it(folder)
    with pytest.raises(BackboneError, match=said) as caught:
        load_encoder(str(folder), device="cpu")
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message


def test_weights_that_are_a_folder_are_named(tmp_path: Path, tiny_bert: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / "model.safetensors").mkdir()
    with pytest.raises(ForewordError, match=r"model\.safetensors: cannot be read: Is a directory"):
        load_encoder(str(tmp_path / "model"), device="cpu")


ROUTES = (
    1,
    [],
    ["it"],
    "other",
    {"it": "a"},
    {"other": 1.0},
    {"sides": {"query": "it"}},
    {"sides": {"query": {"sides": {}}}},
)


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_saved_encoder_with_another_route_is_refused(
    tmp_path: Path, encoder: SentenceTransformer, route: Any
) -> None:
    transformer_of(encoder).add("it", random_prompt(encoder, PromptSpec(length=3)))
    encoder.save_pretrained(str(tmp_path), create_model_card=False)
    edited(tmp_path / "foreword.json", route=route)
    with pytest.raises(PromptError, match=re.escape(str(tmp_path))):
        load_encoder(str(tmp_path), device="cpu")


@pytest.mark.parametrize("backbone", [{}, {"name": None}, {"name": "NAME", "revision": None}])
def test_a_saved_encoder_that_does_not_say_its_backbone_is_refused(
    tmp_path: Path, encoder: SentenceTransformer, backbone: dict[str, Any]
) -> None:
    encoder.save_pretrained(str(tmp_path), create_model_card=False)
    name = json.loads((tmp_path / "foreword.json").read_text())["backbone"]["name"]
    edited(tmp_path / "foreword.json", backbone={key: value and name for key, value in backbone.items()})
    with pytest.raises(PromptError, match=re.escape(str(tmp_path))):
        load_encoder(str(tmp_path), device="cpu")


@pytest.mark.parametrize("length", [-1, 2, 2**31, 10**30])
def test_a_saved_encoder_with_an_impossible_length_is_refused(
    tmp_path: Path, encoder: SentenceTransformer, length: int
) -> None:
    encoder.save_pretrained(str(tmp_path), create_model_card=False)
    edited(tmp_path / "foreword.json", max_length=length)
    with pytest.raises(PromptError, match=re.escape(str(tmp_path))):
        load_encoder(str(tmp_path), device="cpu")


def test_a_saved_encoder_with_another_pooling_is_refused(tmp_path: Path, encoder: SentenceTransformer) -> None:
    encoder.save_pretrained(str(tmp_path), create_model_card=False)
    edited(tmp_path / "1_Pooling" / "config.json", pooling_mode=None)
    with pytest.raises(ForewordError, match=re.escape(str(tmp_path))):
        load_encoder(str(tmp_path), device="cpu")


def test_the_tokenizer_of_a_larger_model_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    tokens = tokenizer("bert")
    tokens.add_tokens([f"more{number}" for number in range(9)])
    tokens.save_pretrained(folder)
    with pytest.raises(BackboneError, match=rf"{folder}: its tokenizer knows"):
        load_encoder(str(folder), device="cpu")


def test_a_router_is_told_what_it_is(tmp_path: Path, tiny_bert: Path) -> None:
    parts = {task: list(SentenceTransformer(str(tiny_bert), device="cpu")) for task in ("query", "document")}
    router = Router.for_query_document(parts["query"], parts["document"])
    SentenceTransformer(modules=[router], device="cpu").save(str(tmp_path / "router"), create_model_card=False)
    with pytest.raises(BackboneError, match="its first module is Router, and prompts live in a Transformer"):
        load_encoder(str(tmp_path / "router"), device="cpu")
