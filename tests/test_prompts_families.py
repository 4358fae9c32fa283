"""Every family of backbones carries every kind of prompt; each check compares with a computation of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import FAMILIES, POSITIONS, random_prompt, save_model, sentences, words
from torch import Tensor

from foreword.errors import BackboneError, PromptError
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.kinds.gated import KIND, gated_term
from foreword.prompts.kinds.input import insertion_order
from foreword.prompts.kinds.kind import kind_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import Kind, PromptSpec, Sides
from foreword.prompts.start import new_prompt
from foreword.prompts.transformer import PromptedTransformer

TEXTS = sentences(9, seed=1)
KINDS: tuple[Kind, ...] = ("gated", "prefix", "input")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: save_model(root / family, family) for family in (*FAMILIES, "mpnet")}


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, folders: dict[str, Path]) -> SentenceTransformer:
    return load_encoder(str(folders[request.param]), device="cpu")


@pytest.fixture
def model(loaded: SentenceTransformer) -> Iterator[SentenceTransformer]:
    yield loaded
    transformer_of(loaded).remove_all()


def plain(encoder: SentenceTransformer) -> SentenceTransformer:
    """The same folder as sentence-transformers loads it."""
    backbone = transformer_of(encoder).backbone
    assert backbone is not None
    return SentenceTransformer(str(backbone.path), device="cpu")


def unit(vectors: Any) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def all_at_once(encoder: SentenceTransformer, texts: list[str], **how: Any) -> np.ndarray:
    """One padded batch."""
    return encode(encoder, texts, how.pop("side", "query"), batch_size=len(texts), **how)


# -- families --------------------------------------------------------------------------------------------------


def test_loads_without_refusal_and_knows_its_layers(model: SentenceTransformer) -> None:
    transformer = transformer_of(model)
    assert transformer.refusal is None
    assert len(transformer.shape.layers) == 2
    assert all(layer.heads == 4 and layer.head_width == 8 for layer in transformer.shape.layers)
    family = transformer.model.config.model_type
    assert {layer.key_value_heads for layer in transformer.shape.layers} == {2 if family == "qwen3" else 4}
    assert transformer.position_limit == (None if family == "t5" else POSITIONS)
    spec = PromptSpec("input", 3)
    assert kind_of(spec).placement(spec, transformer) == ("before" if family in ("t5", "qwen3") else "after-cls")


def test_a_zero_gate_is_the_base_model_on_a_padded_batch(model: SentenceTransformer) -> None:
    expected = unit(plain(model).encode(TEXTS, batch_size=len(TEXTS)))
    np.testing.assert_allclose(all_at_once(model, TEXTS), expected, atol=1e-6)
    transformer_of(model).add("zero", new_prompt(model, PromptSpec("gated", 4)))
    np.testing.assert_allclose(all_at_once(model, TEXTS, route="zero"), expected, atol=1e-6)
    rows = ["zero" if i % 2 else None for i in range(len(TEXTS))]
    np.testing.assert_allclose(all_at_once(model, TEXTS, domains=rows), expected, atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_gate_in_any_one_layer_changes_the_output(model: SentenceTransformer, layer: int) -> None:
    prompt = new_prompt(model, PromptSpec("gated", 4))
    with torch.no_grad():
        prompt.tensors()["both.gate"][layer] = 1.0
    transformer_of(model).add("one", prompt)
    difference = np.abs(all_at_once(model, TEXTS, route="one") - all_at_once(model, TEXTS))
    assert (difference.max(axis=1) > 1e-4).all()


@pytest.mark.parametrize("kind", ["prefix", "input"])
@pytest.mark.parametrize("start", ["words", "noise"])
def test_prefix_and_input_prompts_change_the_output(model: SentenceTransformer, kind: Kind, start: Any) -> None:
    transformer_of(model).add("it", new_prompt(model, PromptSpec(kind, 3), start=start))
    difference = np.abs(all_at_once(model, TEXTS, route="it") - all_at_once(model, TEXTS))
    assert (difference.max(axis=1) > 1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sides", ["shared", "untied", "query"])
def test_a_mixed_batch_equals_each_text_alone(model: SentenceTransformer, kind: Kind, sides: Sides) -> None:
    spec = PromptSpec(kind, 3, sides=sides)
    for seed, name in enumerate(("a", "b", "c")):
        transformer_of(model).add(name, random_prompt(model, spec, seed))
    rows = ["b", None, "a", "c", None, "a", "b", "c", "a"]
    for side in ("query", "document"):
        mixed = all_at_once(model, TEXTS, side=side, domains=rows)
        alone = [encode(model, [t], side, route=row)[0] for t, row in zip(TEXTS, rows, strict=True)]
        np.testing.assert_allclose(mixed, np.stack(alone), atol=1e-5)
        if sides == "query" and side == "document":
            np.testing.assert_allclose(mixed, all_at_once(model, TEXTS), atol=1e-5)
        else:  # and the prompts do differ
            assert np.abs(mixed[2] - encode(model, [TEXTS[2]], side, route="b")[0]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_matter(model: SentenceTransformer, kind: Kind) -> None:
    transformer_of(model).add("it", random_prompt(model, PromptSpec(kind, 3)))
    padded = all_at_once(model, TEXTS, route="it")
    alone = np.concatenate([encode(model, [text], "query", route="it") for text in TEXTS])
    np.testing.assert_allclose(padded, alone, atol=1e-5)


def test_untied_sides_differ(model: SentenceTransformer) -> None:
    transformer_of(model).add("it", random_prompt(model, PromptSpec("gated", 3, sides="untied")))
    query, document = (all_at_once(model, TEXTS, side=side, route="it") for side in ("query", "document"))
    assert np.abs(query - document).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_eager_and_sdpa_agree(model: SentenceTransformer, folders: dict[str, Path], kind: Kind) -> None:
    family = transformer_of(model).model.config.model_type
    eager = load_encoder(str(folders[family]), device="cpu", attn_implementation="eager")
    assert transformer_of(eager).refusal is None
    rows = ["a", None, "b", "a", "b", None, "a", "b", "a"]
    found = []
    for encoder in (model, eager):
        for seed, name in enumerate(("a", "b")):
            transformer_of(encoder).add(name, random_prompt(encoder, PromptSpec(kind, 3), seed))
        found.append(
            np.concatenate([all_at_once(encoder, TEXTS, domains=rows), all_at_once(encoder, TEXTS, route="a")])
        )
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_only_the_top_layers_carry_it(model: SentenceTransformer) -> None:
    transformer = transformer_of(model)
    top = random_prompt(model, PromptSpec("gated", 3, top_layers=1))
    full = {name: torch.zeros(2, *tensor.shape[1:]) for name, tensor in top.tensors().items()}
    for name, tensor in top.tensors().items():
        full[name][1:] = tensor
    transformer.add("top", top)
    transformer.add("full", Prompt(PromptSpec("gated", 3), full))
    np.testing.assert_allclose(
        all_at_once(model, TEXTS, route="top"), all_at_once(model, TEXTS, route="full"), atol=1e-6
    )


# -- what does not go --------------------------------------------------------------------------------------------


def test_mpnet_takes_input_prompts_only_and_says_why(folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders["mpnet"]), device="cpu")
    for kind in ("gated", "prefix"):
        with pytest.raises(BackboneError, match="MPNetModel does not go through transformers' attention interface"):
            new_prompt(encoder, PromptSpec(kind, 3))
    bert = load_encoder(str(folders["bert"]), device="cpu")
    with pytest.raises(BackboneError, match="kind 'input' only, not 'gated'"):
        transformer_of(encoder).add("it", random_prompt(bert, PromptSpec("gated", 3)))
    expected = unit(plain(encoder).encode(TEXTS, batch_size=len(TEXTS)))
    np.testing.assert_allclose(all_at_once(encoder, TEXTS), expected, atol=1e-6)
    for seed, name in enumerate(("a", "b")):
        transformer_of(encoder).add(name, random_prompt(encoder, PromptSpec("input", 3), seed))
    rows = ["a", None, "b", "a", "b", None, "a", "b", "a"]
    mixed = all_at_once(encoder, TEXTS, domains=rows)
    alone = [encode(encoder, [t], "query", route=row)[0] for t, row in zip(TEXTS, rows, strict=True)]
    np.testing.assert_allclose(mixed, np.stack(alone), atol=1e-5)
    assert np.abs(mixed - expected).max() > 1e-3


@pytest.mark.parametrize("family", ["t5", "qwen3"])
def test_after_cls_is_refused_without_a_first_token(folders: dict[str, Path], family: str) -> None:
    encoder = load_encoder(str(folders[family]), device="cpu")
    prompt = new_prompt(encoder, PromptSpec("input", 3, placement="after-cls"))
    with pytest.raises(PromptError, match="no \\[CLS\\] first; use 'before'"):
        transformer_of(encoder).add("it", prompt)


def test_a_prompt_of_other_shapes_is_refused(folders: dict[str, Path]) -> None:
    bert, qwen = (load_encoder(str(folders[family]), device="cpu") for family in ("bert", "qwen3"))
    with pytest.raises(PromptError, match=r"both.keys has shape \(2, 3, 4, 8\); this backbone takes \(2, 3, 2, 8\)"):
        transformer_of(qwen).add("it", random_prompt(bert, PromptSpec("gated", 3)))
    with pytest.raises(PromptError, match="wants the top 3 layers; the backbone has 2"):
        new_prompt(bert, PromptSpec("gated", 3, top_layers=3))


# -- independent references ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("scaling", [None, 1.0])
def test_gated_term_by_hand(groups: int, scaling: float | None) -> None:
    b, heads, t, h, layers, sources, n = 3, 4, 5, 8, 2, 2, 6
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(b, heads, t, h, generator=generator)
    keys, values = (torch.randn(b, layers, sources, n, groups, h, generator=generator) for _ in range(2))
    gate = torch.randn(b, layers, sources, heads, generator=generator)
    got = gated_term(KIND.batch((), {"keys": keys, "values": values, "gate": gate}, None), 1, query, scaling)
    k, v = (x[:, 1].repeat_interleave(heads // groups, dim=3) for x in (keys, values))  # (b, s, n, heads, h)
    scores = torch.einsum("bhtd,bsnhd->bshtn", query, k) * (h**-0.5 if scaling is None else scaling)
    each = torch.einsum("bshtn,bsnhd->bsthd", scores.softmax(-1), v)
    expected = torch.einsum("bsthd,bsh->bthd", each, gate[:, 1])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def heads_of(states: Tensor) -> Tensor:
    """(B, T, 32) -> (B, 4, T, 8)."""
    return states.unflatten(-1, (4, 8)).transpose(1, 2)


def mean_pooled(states: Tensor, mask: Tensor) -> np.ndarray:
    weights = mask.unsqueeze(-1).float()
    return unit(((states * weights).sum(1) / weights.sum(1)).numpy())


def test_prefix_and_gate_in_one_layer_by_hand(tmp_path: Path) -> None:
    encoder = load_encoder(str(save_model(tmp_path / "one", "bert", layers=1)), device="cpu")
    bert: Any = plain(encoder)[0].model.eval()
    features = plain(encoder).tokenize(TEXTS)
    ids, mask = features["input_ids"], features["attention_mask"]
    layer = bert.encoder.layer[0]
    with torch.no_grad():
        words_in = bert.embeddings(ids)
        own = layer.attention.self
        q, k, v = (heads_of(linear(words_in)) for linear in (own.query, own.key, own.value))
        hidden = torch.zeros(mask.shape).masked_fill(mask == 0, float("-inf"))[:, None, None, :]

        def rest_of_the_layer(context: Tensor) -> np.ndarray:
            attended = layer.attention.output(context.transpose(1, 2).flatten(2), words_in)
            return mean_pooled(layer.output(layer.intermediate(attended), attended), mask)

        prefix = random_prompt(encoder, PromptSpec("prefix", 5))
        pk, pv = (prefix.tensors()[f"both.{x}"][0].transpose(0, 1).expand(len(TEXTS), -1, -1, -1) for x in ("keys", "values"))  # fmt: skip
        scores = q @ torch.cat([pk, k], 2).transpose(2, 3) / 8**0.5
        shares = (scores + torch.nn.functional.pad(hidden, (5, 0))).softmax(-1)
        with_prefix = rest_of_the_layer(shares @ torch.cat([pv, v], 2))

        gated = random_prompt(encoder, PromptSpec("gated", 5), seed=1)
        gk, gv = (gated.tensors()[f"both.{x}"][0].transpose(0, 1) for x in ("keys", "values"))
        added = (q @ gk.transpose(1, 2) / 8**0.5).softmax(-1) @ gv
        gate = gated.tensors()["both.gate"][0].view(1, 4, 1, 1)
        with_gate = rest_of_the_layer((q @ k.transpose(2, 3) / 8**0.5 + hidden).softmax(-1) @ v + gate * added)
    transformer_of(encoder).add("prefix", prefix)
    np.testing.assert_allclose(all_at_once(encoder, TEXTS, route="prefix"), with_prefix, atol=1e-5)
    transformer_of(encoder).add("gated", gated)
    np.testing.assert_allclose(all_at_once(encoder, TEXTS, route="gated"), with_gate, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "t5", "qwen3"])
@pytest.mark.parametrize("placement", ["after-cls", "before"])
def test_input_prompts_by_hand(folders: dict[str, Path], family: str, placement: Any) -> None:
    if placement == "after-cls" and family in ("t5", "qwen3"):
        pytest.skip("its tokenizer puts nothing first")
    encoder = load_encoder(str(folders[family]), device="cpu")
    prompt = random_prompt(encoder, PromptSpec("input", 4, placement=placement))
    vectors = prompt.tensors()["both.vectors"]
    base: Any = plain(encoder)[0].model.eval()
    at = 1 if placement == "after-cls" else 0
    expected = []
    for text in TEXTS:
        ids = torch.tensor(encoder.tokenizer(text)["input_ids"])
        embedded = base.get_input_embeddings()(ids)
        joined = torch.cat([embedded[:at], vectors, embedded[at:]]).unsqueeze(0)
        with torch.no_grad():
            states = base(inputs_embeds=joined, attention_mask=torch.ones(joined.shape[:2])).last_hidden_state[0]
        kept = torch.cat([states[:at], states[at + 4 :]])
        expected.append(kept[-1] if family == "qwen3" else kept.mean(0))
    transformer_of(encoder).add("it", prompt)
    np.testing.assert_allclose(all_at_once(encoder, TEXTS, route="it"), unit(torch.stack(expected).numpy()), atol=1e-5)


def test_insertion_order_keeps_padding_where_it_is() -> None:
    right = torch.tensor([[1, 1, 1, 0]])
    left = torch.tensor([[0, 1, 1, 1]])  # the prompt's two vectors are 0 and 1, the text 2 to 5
    assert insertion_order(right, 2, after_first=True).tolist() == [[2, 0, 1, 3, 4, 5]]
    assert insertion_order(right, 2, after_first=False).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert insertion_order(left, 2, after_first=False).tolist() == [[2, 0, 1, 3, 4, 5]]
    assert insertion_order(left, 2, after_first=True).tolist() == [[2, 3, 0, 1, 4, 5]]


# -- the limit of positions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "roberta", "qwen3"])
def test_text_that_leaves_no_room_is_cut_with_a_warning(
    folders: dict[str, Path], family: str, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_encoder(str(folders[family]), device="cpu")
    transformer_of(encoder).add("it", random_prompt(encoder, PromptSpec("input", 10)))
    long = (words() * 2)[:80]
    room = POSITIONS - 10
    kept = room - len(encoder.tokenizer("")["input_ids"])
    with caplog.at_level(logging.WARNING):
        cut = encode(encoder, [" ".join(long), "short"], "query", route="it")
    assert [r.getMessage() for r in caplog.records if "cut to 38 tokens" in r.getMessage()]
    by_hand = encode(encoder, [" ".join(long[:kept])], "query", route="it")
    np.testing.assert_allclose(cut[:1], by_hand, atol=1e-5)
    mixed = encode(encoder, [" ".join(long), " ".join(long)], "query", domains=["it", None])
    np.testing.assert_allclose(mixed[:1], by_hand, atol=1e-5)


def test_no_warning_without_a_cut(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    encoder = load_encoder(str(folders["bert"]), device="cpu")
    transformer_of(encoder).add("it", random_prompt(encoder, PromptSpec("input", 10)))
    encode(encoder, TEXTS, "query", route="it")
    assert not caplog.records


def test_the_limit_goes_with_the_prompt(folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders["bert"]), device="cpu")
    transformer = transformer_of(encoder)
    transformer.add("it", random_prompt(encoder, PromptSpec("input", 10)))
    assert encoder.max_seq_length == POSITIONS - 10
    transformer.remove("it")
    assert encoder.max_seq_length == POSITIONS
    with pytest.raises(PromptError, match="fills the backbone's 48 positions"):
        transformer.add("it", random_prompt(encoder, PromptSpec("input", POSITIONS - 1)))
    assert transformer.domains == []  # a refused prompt is not carried
    encode(encoder, [" ".join(words())], "query")


def test_a_shorter_max_length_is_kept(folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders["bert"]), device="cpu", max_length=8)
    transformer_of(encoder).add("it", random_prompt(encoder, PromptSpec("input", 10)))
    assert encoder.max_seq_length == 8
    text = " ".join(words())
    cut = " ".join(words()[:6])
    np.testing.assert_allclose(
        encode(encoder, [text], "query", route="it"), encode(encoder, [cut], "query", route="it"), atol=1e-6
    )
    with pytest.raises(BackboneError, match="at least 3 tokens"):
        load_encoder(str(folders["bert"]), device="cpu", max_length=2)


def test_the_module_is_a_transformer_of_sentence_transformers(folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders["bert"]), device="cpu")
    assert isinstance(encoder[0], PromptedTransformer)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.train()
    assert not encoder[0].model.training  # no dropout in a frozen backbone
