"""Every family of backbones carries every kind of prompt; each check compares with a computation of its own."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import FAMILIES, POSITIONS, config, random_prompt, save_model, sentences, tokenizer, words
from torch import Tensor
from transformers import AutoModel

from foreword.errors import BackboneError, PromptError
from foreword.prompts.attention import SLOT
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.feed_forward import find_feed_forwards
from foreword.prompts.kinds.gated import KIND
from foreword.prompts.kinds.input import insertion_order
from foreword.prompts.kinds.kind import kind_of, looked_up
from foreword.prompts.loading import load_encoder
from foreword.prompts.lower import lower_states_kept
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import Kind, PromptSpec, Sides
from foreword.prompts.start import new_prompt
from foreword.prompts.transformer import PromptedTransformer

TEXTS = sentences(9, seed=1)
KINDS: tuple[Kind, ...] = ("memory", "gated", "prefix", "input")
CARRYING = (*FAMILIES, "t5-gated", "electra")
"""Of three feed-forward matrices a layer; of word embeddings narrower than its layers."""
EXACT = (PromptSpec("memory", 4), PromptSpec("memory", 4, 0), PromptSpec("memory", 0, 4), PromptSpec("gated", 4))
"""Those that are the base model while what they are linear in is 0."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: save_model(root / family, family) for family in (*CARRYING, "mpnet", "albert", "gpt2")}


@pytest.fixture(scope="module", params=CARRYING)
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
    assert transformer.feed_forward_refusal is None
    assert len(transformer.shape.layers) == transformer.shape.feed_forwards == 2
    assert transformer.shape.hidden == 32
    assert all(layer.heads == 4 and layer.head_width == 8 for layer in transformer.shape.layers)
    family = transformer.model.config.model_type
    assert {layer.key_value_heads for layer in transformer.shape.layers} == {2 if family == "qwen3" else 4}
    assert transformer.position_limit == (None if family == "t5" else POSITIONS)
    spec = PromptSpec("input", 3)
    assert kind_of(spec).placement(spec, transformer) == ("before" if family in ("t5", "qwen3") else "after-cls")


@pytest.mark.parametrize("spec", EXACT, ids=str)
def test_a_new_prompt_is_the_base_model_on_a_padded_batch(model: SentenceTransformer, spec: PromptSpec) -> None:
    expected = unit(plain(model).encode(TEXTS, batch_size=len(TEXTS)))
    base = all_at_once(model, TEXTS)
    np.testing.assert_allclose(base, expected, atol=1e-6)
    transformer_of(model).add("zero", new_prompt(model, spec))
    turned = 1e-6 if transformer_of(model).rotary and model.tokenizer.padding_side == "left" else 0.0
    np.testing.assert_allclose(all_at_once(model, TEXTS, route="zero"), base, rtol=0, atol=turned)  # positions differ
    rows = ["zero" if i % 2 else None for i in range(len(TEXTS))]
    np.testing.assert_allclose(all_at_once(model, TEXTS, domains=rows), base, rtol=0, atol=turned)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("spec", EXACT, ids=str)
def test_any_one_layer_changes_the_output(model: SentenceTransformer, spec: PromptSpec, layer: int) -> None:
    prompt = new_prompt(model, spec)
    for name in prompt.linear:
        tensors = {key: tensor.clone() for key, tensor in prompt.tensors().items()}
        tensors[name][layer] = torch.randn(tensors[name][layer].shape, generator=torch.Generator().manual_seed(0))
        transformer_of(model).add("one", Prompt(spec, tensors))
        difference = np.abs(all_at_once(model, TEXTS, route="one") - all_at_once(model, TEXTS))
        assert (difference.max(axis=1) > 1e-4).all()


@pytest.mark.parametrize("spec", EXACT, ids=str)
def test_mixtures_are_linear(model: SentenceTransformer, spec: PromptSpec) -> None:
    """What sources add is added up: halves of one are the whole, and a weight is as good as a factor of the values."""
    transformer, prompt = transformer_of(model), random_prompt(model, spec)
    for name in ("a", "again"):
        transformer.add(name, prompt)
    scaled = {key: tensor * (-0.7 if key in prompt.linear else 1) for key, tensor in prompt.tensors().items()}
    transformer.add("scaled", Prompt(spec, scaled))
    transformer.add("b", random_prompt(model, spec, 1))
    whole = all_at_once(model, TEXTS, route="a")
    np.testing.assert_allclose(all_at_once(model, TEXTS, route={"a": 0.25, "again": 0.75}), whole, atol=1e-5)
    np.testing.assert_allclose(
        all_at_once(model, TEXTS, route={"a": -0.7, "b": 0.3}),
        all_at_once(model, TEXTS, route={"scaled": 1.0, "b": 0.3}),
        atol=1e-5,
    )
    by_layer = all_at_once(model, TEXTS, route={"a": [1.0, 0.0], "again": [0.0, 1.0], "b": 0.0})
    np.testing.assert_allclose(by_layer, whole, atol=1e-5)
    if not spec.length:  # its vectors do not compete: a mixture is one prompt of all of them
        joined = {key: torch.cat([tensor, scaled[key]], dim=1) for key, tensor in prompt.tensors().items()}
        transformer.add("joined", Prompt(PromptSpec("memory", 0, 8), joined))
        mixed = all_at_once(model, TEXTS, route={"a": 1.0, "scaled": 1.0})
        np.testing.assert_allclose(all_at_once(model, TEXTS, route="joined"), mixed, atol=1e-5)


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
    texts, rows = TEXTS[:5], ["b", None, "a", "c", "a"]
    for side in ("query", "document"):
        mixed = all_at_once(model, texts, side=side, domains=rows)
        alone = [encode(model, [t], side, route=row)[0] for t, row in zip(texts, rows, strict=True)]
        np.testing.assert_allclose(mixed, np.stack(alone), atol=1e-5)
        if sides == "query" and side == "document":
            np.testing.assert_allclose(mixed, all_at_once(model, texts), atol=1e-5)
        else:  # and the prompts do differ
            assert np.abs(mixed[2] - encode(model, [texts[2]], side, route="b")[0]).max() > 1e-3


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
def test_eager_and_sdpa_agree(model: SentenceTransformer, kind: Kind) -> None:
    backbone = transformer_of(model).backbone
    assert backbone is not None
    eager = load_encoder(str(backbone.path), device="cpu", attn_implementation="eager")
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


@pytest.mark.parametrize("kind", ["memory", "gated"])
def test_only_the_top_layers_carry_it(model: SentenceTransformer, kind: Kind) -> None:
    transformer = transformer_of(model)
    top = random_prompt(model, PromptSpec(kind, 3, top_layers=1))
    full = {name: torch.zeros(2, *tensor.shape[1:]) for name, tensor in top.tensors().items()}
    for name, tensor in top.tensors().items():
        full[name][1:] = tensor
    transformer.add("top", top)
    transformer.add("full", Prompt(PromptSpec(kind, 3), full))
    np.testing.assert_allclose(
        all_at_once(model, TEXTS, route="top"), all_at_once(model, TEXTS, route="full"), atol=1e-6
    )


@pytest.mark.parametrize("kind", ["memory", "prefix"])
def test_states_below_a_prompt_are_computed_once(model: SentenceTransformer, kind: Kind, tmp_path: Path) -> None:
    """And come out as without; only of T5, whose first layer hands a bias on, they cannot be kept."""
    transformer, spec = transformer_of(model), PromptSpec(kind, 3, top_layers=1)
    for name, seed in (("a", 0), ("b", 1)):
        transformer.add(name, random_prompt(model, spec, seed))
    alone = {name: all_at_once(model, TEXTS, route=name) for name in "ab"}
    with lower_states_kept(transformer, spec, tmp_path) as kept:
        assert kept == (transformer.model.config.model_type != "t5")
        passed: list[int] = []
        [lowest] = [part for part in transformer.model.modules() if getattr(part, SLOT, None) == 0]
        handle = lowest.register_forward_hook(lambda *_: passed.append(0))
        for order in (TEXTS, TEXTS[::-1]):  # other rows, another prompt
            name = "a" if order is TEXTS else "b"
            expected = alone[name] if order is TEXTS else alone[name][::-1]
            np.testing.assert_allclose(all_at_once(model, order, route=name), expected, atol=1e-6)
        assert len(passed) == (1 if kept else 2)
        all_at_once(model, [*TEXTS[:3], words()[0]], route="a")
        all_at_once(model, TEXTS, route=None)
        handle.remove()
        assert len(passed) == (3 if kept else 4)
    np.testing.assert_array_equal(all_at_once(model, TEXTS, route="a"), alone["a"])
    assert list(tmp_path.iterdir()) == []


def test_copies_carry_prompts_of_their_own(folders: dict[str, Path]) -> None:
    """A backbone goes through pickle and deepcopy with its ways for prompts."""
    encoder = load_encoder(str(folders["bert"]), device="cpu")
    prompt, other = (random_prompt(encoder, PromptSpec("memory", 3), seed) for seed in (0, 1))
    transformer_of(encoder).add("it", prompt)
    expected = all_at_once(encoder, TEXTS, route="it")
    for again in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(all_at_once(again, TEXTS, route="it"), expected)
        transformer_of(again).add("it", other)
        assert np.abs(all_at_once(again, TEXTS, route="it") - expected).max() > 1e-3
        np.testing.assert_array_equal(all_at_once(encoder, TEXTS, route="it"), expected)


def test_threads_do_not_mix_their_prompts(folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders["bert"]), device="cpu")
    routes = [None, "a", {"a": 0.5, "b": 0.5}, "b"]
    for seed, name in enumerate(("a", "b")):
        transformer_of(encoder).add(name, random_prompt(encoder, PromptSpec("memory", 3), seed))
    alone = [all_at_once(encoder, TEXTS, route=route) for route in routes]
    with ThreadPoolExecutor(len(routes)) as pool:
        for _ in range(10):
            found = pool.map(lambda route: all_at_once(encoder, TEXTS, route=route), routes)
            for got, expected in zip(found, alone, strict=True):
                np.testing.assert_allclose(got, expected, atol=1e-6)


# -- what does not go --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [PromptSpec("input", 3), PromptSpec("memory", 0, 3)], ids=str)
def test_mpnet_takes_no_prompt_beside_its_attention_and_says_why(folders: dict[str, Path], spec: PromptSpec) -> None:
    encoder = load_encoder(str(folders["mpnet"]), device="cpu")
    for kind in ("gated", "prefix"):
        with pytest.raises(BackboneError, match="MPNetModel does not go through transformers' attention interface"):
            new_prompt(encoder, PromptSpec(kind, 3))
    with pytest.raises(BackboneError, match=r"attention interface.*; choose length 0 and feed_forward 16$"):
        new_prompt(encoder, PromptSpec(length=8))
    bert = load_encoder(str(folders["bert"]), device="cpu")
    with pytest.raises(BackboneError, match="kind 'input', or 'memory' with length 0, not 'gated'"):
        transformer_of(encoder).add("it", random_prompt(bert, PromptSpec("gated", 3)))
    expected = unit(plain(encoder).encode(TEXTS, batch_size=len(TEXTS)))
    np.testing.assert_allclose(all_at_once(encoder, TEXTS), expected, atol=1e-6)
    if spec.kind == "memory":
        transformer_of(encoder).add("new", new_prompt(encoder, spec))
        np.testing.assert_allclose(all_at_once(encoder, TEXTS, route="new"), expected, atol=1e-6)
    for seed, name in enumerate(("a", "b")):
        transformer_of(encoder).add(name, random_prompt(encoder, spec, seed))
    rows = ["a", None, "b", "a", "b", None, "a", "b", "a"]
    mixed = all_at_once(encoder, TEXTS, domains=rows)
    alone = [encode(encoder, [t], "query", route=row)[0] for t, row in zip(TEXTS, rows, strict=True)]
    np.testing.assert_allclose(mixed, np.stack(alone), atol=1e-5)
    assert np.abs(mixed - expected).max() > 1e-3


def test_layers_that_are_shared_take_input_prompts_only_and_say_why(folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders["albert"]), device="cpu")
    shared = (
        r"its layers share one attention\); .* share one feed-forward part\); it takes prompts of kind 'input' only"
    )
    with pytest.raises(BackboneError, match=shared):
        new_prompt(encoder, PromptSpec())
    expected = unit(plain(encoder).encode(TEXTS, batch_size=len(TEXTS)))
    np.testing.assert_allclose(all_at_once(encoder, TEXTS), expected, atol=1e-6)
    transformer_of(encoder).add("it", random_prompt(encoder, PromptSpec("input", 3)))
    assert np.abs(all_at_once(encoder, TEXTS, route="it") - expected).max() > 1e-3


def test_feed_forward_parts_that_are_not_found_say_what_to_do(folders: dict[str, Path]) -> None:
    """GPT-2's matrices are no `nn.Linear`."""
    encoder = load_encoder(str(folders["gpt2"]), device="cpu")
    with pytest.raises(BackboneError, match=r"0 of them are found in 2 layers\); choose length 16 and feed_forward 0"):
        new_prompt(encoder, PromptSpec())
    transformer_of(encoder).add("it", random_prompt(encoder, PromptSpec("memory", 16, 0)))
    assert np.abs(all_at_once(encoder, TEXTS, route="it") - all_at_once(encoder, TEXTS)).max() > 1e-3


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


@pytest.mark.parametrize("known", [True, False])
def test_projections_of_attention_are_no_feed_forward_part(known: bool) -> None:
    """Queries wider than the backbone, and keys of its width: together they look like a part with a gate."""
    tokens = tokenizer("qwen3")
    made = config("qwen3", tokens)
    made.head_dim = 16
    model: Any = AutoModel.from_config(made)
    for layer in model.layers if known else ():
        setattr(layer.self_attn, SLOT, 0)
    found = find_feed_forwards(model, 32, lambda: model(torch.tensor([[5, 6]])))
    assert found == [(layer.mlp.gate_proj, layer.mlp.down_proj) for layer in model.layers]


# -- independent references ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("scaling", [None, 1.0])
def test_what_learned_keys_and_values_add_by_hand(groups: int, scaling: float | None) -> None:
    b, heads, t, h, layers, sources, n = 3, 4, 5, 8, 2, 2, 6
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(b, heads, t, h, generator=generator)
    keys, values = (torch.randn(b, layers, sources, n, groups, h, generator=generator) for _ in range(2))
    gate = torch.randn(b, layers, sources, heads, generator=generator)
    batch = KIND.batch((), {"keys": keys, "values": values, "gate": gate}, None)
    got = looked_up(batch, 1, query, scaling, batch.at("gate", 1))
    k, v = (x[:, 1].repeat_interleave(heads // groups, dim=3) for x in (keys, values))  # (b, s, n, heads, h)
    scores = torch.einsum("bhtd,bsnhd->bshtn", query, k) * (h**-0.5 if scaling is None else scaling)
    each = torch.einsum("bshtn,bsnhd->bsthd", scores.softmax(-1), v)
    expected = torch.einsum("bsthd,bsh->bthd", each, gate[:, 1])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(looked_up(batch, 1, query, scaling), each.sum(1), atol=1e-5, rtol=1e-5)


def heads_of(states: Tensor) -> Tensor:
    """(B, T, 32) -> (B, 4, T, 8)."""
    return states.unflatten(-1, (4, 8)).transpose(1, 2)


def mean_pooled(states: Tensor, mask: Tensor) -> np.ndarray:
    weights = mask.unsqueeze(-1).float()
    return unit(((states * weights).sum(1) / weights.sum(1)).numpy())


def test_prompts_in_one_layer_by_hand(tmp_path: Path) -> None:
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
        own_attention = (q @ k.transpose(2, 3) / 8**0.5 + hidden).softmax(-1) @ v
        with_gate = rest_of_the_layer(own_attention + gate * added)

        memories = [random_prompt(encoder, PromptSpec("memory", 5, 6), seed=seed) for seed in (2, 3)]
        weights = (1.0, 0.0), (0.3, -0.7)
        with_memory = []
        for shares in weights:
            context = own_attention
            for prompt, share in zip(memories, shares, strict=True):
                mk, mv = (prompt.tensors()[f"both.{x}"][0].transpose(0, 1) for x in ("keys", "values"))
                context = context + share * (q @ mk.transpose(1, 2) / 8**0.5).softmax(-1) @ mv
            attended = layer.attention.output(context.transpose(1, 2).flatten(2), words_in)
            inner, outer = layer.intermediate.dense, layer.output.dense
            fed = torch.nn.functional.gelu(attended @ inner.weight.T + inner.bias) @ outer.weight.T + outer.bias
            for prompt, share in zip(memories, shares, strict=True):
                fk, fv = (prompt.tensors()[f"both.feed_forward_{x}"][0] for x in ("keys", "values"))  # (6, 32)
                fed = fed + share * torch.nn.functional.gelu(attended @ fk.T) @ fv
            with_memory.append(mean_pooled(layer.output.LayerNorm(fed + attended), mask))
    transformer_of(encoder).add("prefix", prefix)
    np.testing.assert_allclose(all_at_once(encoder, TEXTS, route="prefix"), with_prefix, atol=1e-5)
    transformer_of(encoder).add("gated", gated)
    np.testing.assert_allclose(all_at_once(encoder, TEXTS, route="gated"), with_gate, atol=1e-5)
    for name, memory in zip("ab", memories, strict=True):
        transformer_of(encoder).add(name, memory)
    np.testing.assert_allclose(all_at_once(encoder, TEXTS, route="a"), with_memory[0], atol=1e-5)
    mixed = all_at_once(encoder, TEXTS, route=dict(zip("ab", weights[1], strict=True)))
    np.testing.assert_allclose(mixed, with_memory[1], atol=1e-5)


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
