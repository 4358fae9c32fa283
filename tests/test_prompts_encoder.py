"""Encoding with the base model, with a domain's prompt, with one prompt a row and with mixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, save_model, sentences

from foreword.errors import BackboneError, ForewordError, PromptError
from foreword.prompts.encoder import alike, autocast, encode, resolve_precision, routed, state_digest, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Routes
from foreword.prompts.spec import PromptSpec
from foreword.prompts.start import new_prompt

TEXTS = sentences(11, seed=2)
ENGLISH = [
    "Stop gradients from flowing into a tensor.",
    "",
    "a",
    "Compute the dot product of two one-dimensional tensors, which must have the same number of elements. " * 20,
    "naïve café — déjà vu",
]


def gated(encoder: SentenceTransformer, seed: int = 0, **spec: Any) -> Prompt:
    return random_prompt(encoder, PromptSpec("gated", 3, **spec), seed)


@pytest.fixture
def carrying(encoder: SentenceTransformer) -> SentenceTransformer:
    """The tiny BERT with two gated prompts."""
    for seed, name in enumerate(("a", "b")):
        transformer_of(encoder).add(name, gated(encoder, seed))
    return encoder


@pytest.fixture
def restored(minilm: SentenceTransformer) -> Iterator[SentenceTransformer]:
    yield minilm
    transformer_of(minilm).remove_all()


def test_short_texts_are_not_padded_to_the_longest_of_a_batch(
    encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(["word"] * count) for count in (1, 60, 2, 50, 5, 12, 55, 10, 11, 3) for _ in range(6)]
    alone, shapes, own = encode(encoder, texts, "query", batch_size=1), [], encoder.preprocess
    monkeypatch.setattr("foreword.prompts.encoder.PASS_CHARACTERS", 100)

    def noting(texts: list[str], **how: Any) -> Any:
        features = own(texts, **how)
        shapes.append(tuple(features["input_ids"].shape))
        return features

    monkeypatch.setattr(encoder, "preprocess", noting)
    np.testing.assert_allclose(encode(encoder, texts, "query", batch_size=64), alone, atol=1e-5)
    needed = sum(int(encoder.tokenizer(text, return_tensors="pt")["input_ids"].numel()) for text in texts)
    assert sum(rows for rows, _ in shapes) == len(texts)
    assert sum(rows * tokens for rows, tokens in shapes) < 1.5 * needed
    assert len(shapes) < 10
    assert alike(np.array([100, 80, 75, 74, 10])) == 3
    assert alike(np.array([10, 2, 1])) == 10 * torch.get_num_threads()  # of few characters, more than there are
    assert alike(np.array([0, 0])) > 1


# -- the base model ------------------------------------------------------------------------------------------------


def test_base_embeddings_are_those_of_sentence_transformers(minilm: SentenceTransformer) -> None:
    backbone = transformer_of(minilm).backbone
    assert backbone is not None
    expected = SentenceTransformer(str(backbone.path), device="cpu").encode(ENGLISH)
    np.testing.assert_allclose(minilm.encode(ENGLISH), expected, atol=1e-6)
    np.testing.assert_allclose(encode(minilm, ENGLISH, "query"), expected, atol=1e-6)
    np.testing.assert_allclose(encode(minilm, ENGLISH, "document", batch_size=2), expected, atol=1e-6)


def test_a_new_gated_prompt_on_minilm_is_the_base_model(restored: SentenceTransformer) -> None:
    expected = restored.encode(ENGLISH)
    transformer_of(restored).add("new", new_prompt(restored, PromptSpec("gated", 16)))
    np.testing.assert_allclose(encode(restored, ENGLISH, "query", route="new"), expected, atol=1e-6)
    prompt = transformer_of(restored).prompt("new")
    assert prompt.count() == 6 * (2 * 16 * 12 * 32 + 12)  # layers * (keys and values of 16 vectors, a gate a head)


def test_results_are_in_the_order_of_the_texts(encoder: SentenceTransformer) -> None:
    together = encode(encoder, TEXTS, "query", batch_size=4)
    alone = np.concatenate([encode(encoder, [text], "query") for text in TEXTS])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-5)


NO_MEMORY = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
)


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("room", [3, 1, 0])
def test_a_batch_that_the_memory_is_too_small_for_is_halved(
    encoder: SentenceTransformer, error: Exception, room: int
) -> None:
    alone, sizes = encode(encoder, TEXTS, "query", batch_size=1), []

    def small(module: Any, given: tuple[dict[str, Any]]) -> None:
        sizes.append(len(given[0]["input_ids"]))
        if sizes[-1] > room:
            raise error

    hook = encoder.register_forward_pre_hook(small)
    try:
        if room == 0:
            with pytest.raises(type(error)), pytest.warns(UserWarning, match="no memory for 2 texts at once"):
                encode(encoder, TEXTS, "query", batch_size=8)
            return
        with pytest.warns(UserWarning, match="no memory for 4 texts at once; going on with 2"):
            found = encode(encoder, TEXTS, "query", batch_size=8)
    finally:
        hook.remove()
    np.testing.assert_allclose(found, alone, atol=1e-6)
    assert sizes == {3: [8, 4, 2, 2, 2, 2, 2, 1], 1: [8, 4, 2] + 11 * [1]}[room]


def test_another_failure_of_a_batch_is_not_taken_for_that(encoder: SentenceTransformer) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    hook = encoder.register_forward_pre_hook(broken)
    try:
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            encode(encoder, TEXTS, "query")
    finally:
        hook.remove()


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": -1}, {"max_length": 0}, {"max_length": 2**31}])
def test_impossible_batches_and_lengths_are_refused(encoder: SentenceTransformer, wrong: dict[str, int]) -> None:
    with pytest.raises(ForewordError, match=f"{next(iter(wrong))} is {next(iter(wrong.values()))};"):
        encode(encoder, TEXTS, "query", **wrong)


def test_no_texts(encoder: SentenceTransformer) -> None:
    assert encode(encoder, [], "query").shape == (0, 32)
    assert encode(encoder, [], "document", domains=[]).shape == (0, 32)


def test_vectors_have_unit_length_where_the_similarity_is_the_cosine(encoder: SentenceTransformer) -> None:
    np.testing.assert_allclose(np.linalg.norm(encode(encoder, TEXTS, "query"), axis=1), 1.0, atol=1e-6)
    encoder.similarity_fn_name = "dot"
    np.testing.assert_allclose(encode(encoder, TEXTS, "query"), encoder.encode(TEXTS), atol=1e-5)


def test_max_length_cuts_and_never_lengthens(encoder: SentenceTransformer) -> None:
    long = " ".join(sentences(9, seed=3))
    four = encode(encoder, [" ".join(long.split()[:4])], "query")
    np.testing.assert_allclose(encode(encoder, [long], "query", max_length=6), four, atol=1e-6)
    np.testing.assert_array_equal(encode(encoder, [long], "query", max_length=10_000), encode(encoder, [long], "query"))


BOOKS = {
    "words": "the cat sat on a mat " * 4000,
    "one word": "cat" * 30_000,
    "few tokens": "the" + " " * 60_000 + "cat",
    "a word at the end": "mat " * 5 + "c" * 50_000 + " sat",
    "signs": "...," * 20_000,
    "Chinese": "\u732b\u5750\u5728\u57ab\u5b50\u4e0a" * 10_000,
}


@pytest.mark.parametrize("max_length", [None, 7])
def test_a_book_is_embedded_as_before_and_not_tokenised_as_a_whole(
    minilm: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, max_length: int | None
) -> None:
    tokenizer, seen = transformer_of(minilm).tokenizer, []
    whole = type(tokenizer).__call__
    monkeypatch.setattr(type(tokenizer), "__call__", lambda self, t, *a, **k: seen.append(t) or whole(self, t, *a, **k))
    cut = encode(minilm, list(BOOKS.values()), "document", max_length=max_length, batch_size=1)
    most = {name: max(len(text) for texts in seen for text in texts if BOOKS[name].startswith(text)) for name in BOOKS}
    assert most["words"] == most["Chinese"] == most["signs"] == 16 * (max_length or minilm.max_seq_length)
    monkeypatch.setattr("foreword.prompts.transformer.beginning", lambda tokenizer, text, limit: text)
    assert np.array_equal(cut, encode(minilm, list(BOOKS.values()), "document", max_length=max_length, batch_size=1))


def test_text_prompts_of_the_backbone_are_used(encoder: SentenceTransformer) -> None:
    bare = encode(encoder, TEXTS, "query"), encode(encoder, TEXTS, "document")
    encoder.prompts.update({"query": "babo ", "document": "dilu "})
    for side, word, without in (("query", "babo", bare[0]), ("document", "dilu", bare[1])):
        expected = encoder.encode([f"{word} {text}" for text in TEXTS], normalize_embeddings=True)
        own = encoder.encode_query if side == "query" else encoder.encode_document
        np.testing.assert_allclose(encode(encoder, TEXTS, side), expected, atol=1e-5)
        np.testing.assert_allclose(own(TEXTS, normalize_embeddings=True), expected, atol=1e-5)
        assert np.abs(expected - without).max() > 1e-3


# -- prompts -------------------------------------------------------------------------------------------------------


def test_a_domain_for_each_row(carrying: SentenceTransformer) -> None:
    domains = ["a", None, "b", "b", "a", None, None, "a", "b", "a", "b"]
    expected = {name: encode(carrying, TEXTS, "query", route=name) for name in ("a", "b", None)}
    got = encode(carrying, TEXTS, "query", domains=domains, batch_size=4)
    for row, domain in enumerate(domains):
        np.testing.assert_allclose(got[row], expected[domain][row], atol=1e-5)
    assert np.abs(expected["a"] - expected["b"]).max() > 1e-3
    with pytest.raises(PromptError, match="1 domains for 11 texts"):
        encode(carrying, TEXTS, "query", domains=["a"])


def test_sentence_transformers_own_methods(carrying: SentenceTransformer) -> None:
    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    a = encode(carrying, TEXTS, "query", route="a")
    np.testing.assert_allclose(unit(carrying.encode(TEXTS, domain="a")), a, atol=1e-5)
    np.testing.assert_allclose(unit(carrying.encode_query(TEXTS, domain="a")), a, atol=1e-5)
    transformer_of(carrying).add("u", gated(carrying, 5, sides="untied"))
    for side, method in (("query", carrying.encode_query), ("document", carrying.encode_document)):
        expected = encode(carrying, TEXTS, side, route="u")
        np.testing.assert_allclose(unit(method(TEXTS, domain="u")), expected, atol=1e-5)
    with pytest.raises(PromptError, match="call encode_query or encode_document"):
        carrying.encode(TEXTS, domain="u")


def test_an_unknown_domain_is_said_with_those_there_are(carrying: SentenceTransformer) -> None:
    for call in (
        lambda: encode(carrying, TEXTS, "query", route="c"),
        lambda: encode(carrying, TEXTS, "query", domains=["c"] * len(TEXTS)),
        lambda: carrying.encode(TEXTS, domain="c"),
    ):
        with pytest.raises(PromptError, match="no prompt for domain 'c'; there are: a, b"):
            call()


def test_row_indices_are_checked(carrying: SentenceTransformer) -> None:
    features = carrying.preprocess(TEXTS[:2])
    with pytest.raises(PromptError, match="indices run from -1 to 1"):
        carrying({**features, "prompt_rows": torch.tensor([0, 2])})
    with pytest.raises(PromptError, match="3 entries for 2 texts"):
        carrying({**features, "prompt_rows": torch.tensor([0, 1, 1])})


def test_a_query_side_prompt_leaves_documents_alone(encoder: SentenceTransformer) -> None:
    transformer_of(encoder).add("q", gated(encoder, sides="query"))
    np.testing.assert_array_equal(encode(encoder, TEXTS, "document", route="q"), encode(encoder, TEXTS, "document"))
    assert np.abs(encode(encoder, TEXTS, "query", route="q") - encode(encoder, TEXTS, "query")).max() > 1e-3


def test_a_route_holds_within_its_block(carrying: SentenceTransformer) -> None:
    base = carrying.encode(TEXTS)
    with routed(carrying, "a"):
        inside = carrying.encode(TEXTS)
        with routed(carrying, None):
            np.testing.assert_array_equal(carrying.encode(TEXTS), base)
        np.testing.assert_array_equal(carrying.encode(TEXTS), inside)
    assert np.abs(inside - base).max() > 1e-3
    np.testing.assert_array_equal(carrying.encode(TEXTS), base)
    with pytest.raises(PromptError), routed(carrying, "c"):
        carrying.encode(TEXTS)
    assert transformer_of(carrying).route is None


def test_removing_a_prompt(carrying: SentenceTransformer) -> None:
    b = encode(carrying, TEXTS, "query", route="b")
    transformer_of(carrying).remove("a")
    np.testing.assert_array_equal(encode(carrying, TEXTS, "query", domains=["b"] * len(TEXTS)), b)
    transformer_of(carrying).remove_all()
    assert transformer_of(carrying).domains == []


# -- mixtures ------------------------------------------------------------------------------------------------------


def test_mixtures_by_weight(carrying: SentenceTransformer) -> None:
    base, a = encode(carrying, TEXTS, "query"), encode(carrying, TEXTS, "query", route="a")
    mixed = [encode(carrying, TEXTS, "query", route={"a": w, "b": v}) for w, v in ((1, 0), (0, 0), (0.5, 0.5))]
    np.testing.assert_allclose(mixed[0], a, atol=1e-5)
    np.testing.assert_allclose(mixed[1], base, atol=1e-6)
    np.testing.assert_array_equal(encode(carrying, TEXTS, "query", route={}), base)
    half = carrying_half(carrying)
    np.testing.assert_allclose(mixed[2], half, atol=1e-5)


def carrying_half(encoder: SentenceTransformer) -> np.ndarray:
    """The mean of the two prompts' added terms in every layer, by one layer function of our own."""
    from foreword.prompts.kinds import gated

    original = gated.looked_up
    transformer = transformer_of(encoder)

    def half(prompts: Any, layer: int, query: Any, scaling: Any, _gate: Any) -> Any:
        terms = []
        for name in ("a", "b"):
            part = transformer.prompt(name).part(None)
            assert part is not None
            own = gated.KIND.batch(prompts.layers, {key: part[key].detach()[None, :, None] for key in part}, None)
            terms.append(original(own, layer, query, scaling, own.at("gate", layer)))
        return sum(terms) / 2

    gated.looked_up = half
    try:
        return encode(encoder, TEXTS, "query", route={"a": 1.0, "b": 1.0})
    finally:
        gated.looked_up = original


def test_weights_can_be_trained(carrying: SentenceTransformer) -> None:
    weights = torch.tensor([0.5, 0.5], requires_grad=True)
    with routed(carrying, {"a": weights[0], "b": weights[1]}):
        vectors = carrying(carrying.preprocess(TEXTS[:3]))["sentence_embedding"]
    (gradient,) = torch.autograd.grad(vectors.square().sum(), weights)
    assert bool((gradient != 0).all())


@pytest.mark.parametrize("kind", ["prefix", "input"])
def test_only_gated_prompts_mix(encoder: SentenceTransformer, kind: Any) -> None:
    for seed, name in enumerate(("a", "b")):
        transformer_of(encoder).add(name, random_prompt(encoder, PromptSpec(kind, 3), seed))
    with pytest.raises(PromptError, match="only memory and gated prompts can be mixed"):
        encode(encoder, TEXTS, "query", route={"a": 0.5, "b": 0.5})


def test_prompts_of_different_structure_do_not_share_a_batch(carrying: SentenceTransformer) -> None:
    transformer_of(carrying).add("long", random_prompt(carrying, PromptSpec("gated", 5)))
    for how in ({"route": {"a": 0.5, "long": 0.5}}, {"domains": ["a", "long"] * 5 + [None]}):
        with pytest.raises(PromptError, match="different kind, length, layers or sides"):
            encode(carrying, TEXTS, "query", **how)


def test_queries_and_documents_by_different_routes(carrying: SentenceTransformer) -> None:
    route = Routes({"a": 0.5, "b": 0.5}, "b")
    np.testing.assert_array_equal(
        encode(carrying, TEXTS, "query", route=route), encode(carrying, TEXTS, "query", route={"a": 0.5, "b": 0.5})
    )
    np.testing.assert_array_equal(
        encode(carrying, TEXTS, "document", route=route), encode(carrying, TEXTS, "document", route="b")
    )
    with pytest.raises(PromptError, match="pass the task"), routed(carrying, route):
        carrying.encode(TEXTS)


# -- starts, precision, loading ------------------------------------------------------------------------------------


def test_starts(encoder: SentenceTransformer) -> None:
    spec = PromptSpec("gated", 4, sides="untied")
    first, again, other = (new_prompt(encoder, spec, seed=seed) for seed in (1, 1, 2))
    assert first.digest() == again.digest() != other.digest()
    assert not first.tensors()["query.gate"].any()
    memory = new_prompt(encoder, PromptSpec(length=4, feed_forward=7), seed=1)
    torch.testing.assert_close(memory.tensors()["both.keys"], first.tensors()["query.keys"])
    assert memory.linear == ("both.values", "both.feed_forward_values")
    assert not any(memory.tensors()[name].any() for name in memory.linear)
    assert memory.tensors()["both.feed_forward_keys"].std(dim=1).min() > 0
    assert torch.equal(first.tensors()["query.keys"], first.tensors()["document.keys"])
    text = sentences(1, least=6, most=6)[0]
    vectors = new_prompt(encoder, PromptSpec("input", 4), start="text", texts=[text]).tensors()["both.vectors"]
    ids = encoder.tokenizer(text, add_special_tokens=False)["input_ids"][:4]
    assert torch.equal(vectors, encoder[0].model.get_input_embeddings().weight[ids].detach())
    with pytest.raises(PromptError, match="needs 4 tokens of text, got 1"):
        new_prompt(encoder, PromptSpec("input", 4), start="text", texts=["babe"[:1]])
    with pytest.raises(PromptError, match="start is 'zeros'"):
        new_prompt(encoder, spec, start="zeros")  # type: ignore[arg-type]


def test_a_start_longer_than_the_positions_is_refused_by_name(encoder: SentenceTransformer) -> None:
    with pytest.raises(PromptError, match="start 'noise'"):
        new_prompt(encoder, PromptSpec("prefix", 60), start="words")
    assert new_prompt(encoder, PromptSpec("prefix", 60), start="noise").spec.length == 60


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "soft"},
        {"length": 0},
        {"sides": "left"},
        {"top_layers": 0},
        {"kind": "input", "top_layers": 1},
        {"placement": "before"},
    ],
)
def test_specs_are_checked_when_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(PromptError):
        PromptSpec(**wrong)


def test_precision(encoder: SentenceTransformer) -> None:
    assert resolve_precision("float32", "cpu") == "float32"
    assert resolve_precision("auto", "cpu") in ("float32", "bfloat16")
    with autocast("bfloat16", "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    rough, exact = (encode(encoder, TEXTS, "query", precision=p) for p in ("bfloat16", "float32"))
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.05


def test_a_plain_model_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(PromptError, match=r"load it with foreword\.load_encoder"):
        encode(SentenceTransformer(str(tiny_bert), device="cpu"), TEXTS, "query")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="holds no weights"):
        load_encoder(str(tmp_path))


def test_state_digest_sees_one_changed_weight(tmp_path: Path) -> None:
    encoder = load_encoder(str(save_model(tmp_path / "one", layers=1)), device="cpu")
    before = state_digest(encoder)
    transformer_of(encoder).add("a", gated(encoder))
    assert state_digest(encoder) == before
    with torch.no_grad():
        next(encoder[0].model.parameters())[0] += 1e-6
    assert state_digest(encoder) != before


def test_errors_are_the_packages_own() -> None:
    assert issubclass(PromptError, ForewordError)
    assert issubclass(BackboneError, ForewordError)
