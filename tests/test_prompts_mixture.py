"""Mixtures whose weights differ from layer to layer: in the forward pass, under gradients, and on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import random_prompt, sentences

from foreword.errors import PromptError
from foreword.prompts.encoder import encode, routed, transformer_of
from foreword.prompts.inspect import prompt_strength
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Routes, layer_weights, plain_weight, route_as_json, route_of_json
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, attach_mixture, save_mixture

TEXTS = sentences(7, seed=2)
SPEC = PromptSpec("gated", 3)


@pytest.fixture
def carrying(encoder: SentenceTransformer) -> SentenceTransformer:
    """The tiny BERT, of two layers, with three gated prompts."""
    for seed, name in enumerate("abc"):
        transformer_of(encoder).add(name, random_prompt(encoder, SPEC, seed))
    return encoder


def vectors(encoder: SentenceTransformer, route: Any) -> np.ndarray:
    return encode(encoder, TEXTS, "query", route=route)


def stored(encoder: SentenceTransformer) -> dict[str, StoredPrompt]:
    return {name: StoredPrompt(transformer_of(encoder).prompt(name), {"dtype": "float32"}) for name in "abc"}


# -- the forward pass ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_equal_numbers_are_the_one_number_to_the_bit(carrying: SentenceTransformer, kind: Callable[[Any], Any]) -> None:
    one = vectors(carrying, {"a": 0.3, "b": -1.7})
    np.testing.assert_array_equal(vectors(carrying, {"a": kind([0.3, 0.3]), "b": kind([-1.7, -1.7])}), one)
    np.testing.assert_array_equal(vectors(carrying, {"a": 0.3, "b": kind([-1.7, -1.7])}), one)


def test_a_weight_scales_the_gate_of_its_layer(carrying: SentenceTransformer) -> None:
    transformer = transformer_of(carrying)
    tensors = transformer.prompt("a").tensors()
    scaled = {**tensors, "both.gate": tensors["both.gate"] * torch.tensor([[0.5], [-2.0]])}
    transformer.add("scaled", Prompt(SPEC, scaled))
    np.testing.assert_allclose(vectors(carrying, {"a": [0.5, -2.0]}), vectors(carrying, "scaled"), atol=1e-6)
    assert np.abs(vectors(carrying, {"a": [0.5, -2.0]}) - vectors(carrying, {"a": [-2.0, 0.5]})).max() > 1e-3


def test_a_source_for_each_layer(carrying: SentenceTransformer) -> None:
    transformer = transformer_of(carrying)
    a, b = (transformer.prompt(name).tensors() for name in "ab")
    joined = {name: torch.stack([a[name][0], b[name][1]]) for name in a}  # a's lower layer under b's upper one
    transformer.add("joined", Prompt(SPEC, joined))
    route = {"a": [1.0, 0.0], "b": [0.0, 1.0]}
    np.testing.assert_allclose(vectors(carrying, route), vectors(carrying, "joined"), atol=1e-6)


def test_layers_are_the_prompted_ones(carrying: SentenceTransformer) -> None:
    transformer_of(carrying).add("top", random_prompt(carrying, PromptSpec("gated", 3, top_layers=1), 4))
    np.testing.assert_array_equal(vectors(carrying, {"top": [0.4]}), vectors(carrying, {"top": 0.4}))
    with pytest.raises(PromptError, match="'top' is a list of 2; expected one number, or a list of 1"):
        vectors(carrying, {"top": [0.4, 0.4]})


def test_the_two_sides_have_weights_of_their_own(carrying: SentenceTransformer) -> None:
    route = Routes({"a": [0.2, 0.9]}, {"b": [0.5, 0.1], "a": 0.3})
    np.testing.assert_array_equal(vectors(carrying, route), vectors(carrying, {"a": [0.2, 0.9]}))
    np.testing.assert_array_equal(
        encode(carrying, TEXTS, "document", route=route), vectors(carrying, {"b": [0.5, 0.1], "a": 0.3})
    )


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ([0.5], "'b' is a list of 1; expected one number, or a list of 2: one for each layer"),
        ([0.5] * 3, "'b' is a list of 3"),
        (torch.ones(2, 2), r"'b' is numbers of shape \(2, 2\)"),
    ],
)
def test_a_wrong_length_is_refused(carrying: SentenceTransformer, weight: Any, said: str) -> None:
    for route in ({"a": 0.5, "b": weight}, Routes({"b": weight}, "a")):
        with pytest.raises(PromptError, match=said):
            vectors(carrying, route)


def test_strength_sees_the_layers_weights(carrying: SentenceTransformer) -> None:
    found = prompt_strength(carrying, TEXTS, "query", route={"a": [0.0, 2.0]})
    assert not found.strength[0].any()
    assert found.strength[1].all()


# -- gradients -----------------------------------------------------------------------------------------------------


def gradient(encoder: SentenceTransformer, route: Any, of: torch.Tensor) -> torch.Tensor:
    with routed(encoder, route):
        made = encoder(encoder.preprocess(TEXTS[:3]))["sentence_embedding"]
    (found,) = torch.autograd.grad(made.cos().sum(), of)
    return found


def test_the_layers_gradients_add_up_to_that_of_one_weight(carrying: SentenceTransformer) -> None:
    single = torch.tensor([0.5, 0.2], requires_grad=True)
    whole = gradient(carrying, {"a": single[0], "b": single[1]}, single)
    layered = torch.tensor([[0.5, 0.5], [0.2, 0.2]], requires_grad=True)
    parts = gradient(carrying, {"a": layered[0], "b": layered[1]}, layered)
    assert bool((parts != 0).all())
    torch.testing.assert_close(parts.sum(dim=1), whole)
    listed = gradient(carrying, {"a": list(layered[0]), "b": [layered[1, 0], layered[1, 1]]}, layered)
    torch.testing.assert_close(listed, parts)
    mixed = gradient(carrying, {"a": single[0], "b": [0.2, 0.2]}, single)
    torch.testing.assert_close(mixed, whole * torch.tensor([1.0, 0.0]))


def test_layer_weights_by_hand() -> None:
    assert layer_weights({"a": 1, "b": 0.5}, 3).tolist() == [[1.0, 0.5]]
    assert layer_weights({"a": [1, 2, 3], "b": 0.5}, 3).tolist() == [[1.0, 0.5], [2.0, 0.5], [3.0, 0.5]]


# -- on disk -------------------------------------------------------------------------------------------------------


def test_weights_as_json_values() -> None:
    assert plain_weight("a", torch.tensor([0.5, 0.25], requires_grad=True)) == [0.5, 0.25]
    assert plain_weight("a", 0.1) == 0.1
    assert plain_weight("a", (1, 0.1)) == [1.0, 0.1]
    route = Routes({"a": torch.tensor(0.5), "b": [0.1, 0.2]}, "a")
    assert route_of_json(json.loads(json.dumps(route_as_json(route)))) == Routes({"a": 0.5, "b": [0.1, 0.2]}, "a")
    assert [route_of_json(route_as_json(one)) for one in (None, "a", {"a": 1.0})] == [None, "a", {"a": 1.0}]
    for wrong in ("a", [0.5, float("nan")], [[1.0]], [1.0, [2.0]], None, {}):
        with pytest.raises(PromptError, match=r"the weight of 'x' is .*; expected finite numbers"):
            plain_weight("x", wrong)  # type: ignore[arg-type]


def test_a_mixture_by_layers_round_trips(carrying: SentenceTransformer, tiny_bert: Path, tmp_path: Path) -> None:
    weights = {"a": torch.tensor([0.7, -0.2]), "b": 0.25, "c": [0.0, 0.0]}
    save_mixture(tmp_path / "mix", "t", weights, stored(carrying), carrying)
    card = json.loads((tmp_path / "mix" / "mixture.json").read_text())
    assert card["weights"] == {"a": torch.tensor([0.7, -0.2]).tolist(), "b": 0.25}
    again = load_encoder(str(tiny_bert), prompt=tmp_path / "mix", device="cpu")
    np.testing.assert_array_equal(encode(again, TEXTS, "query"), vectors(carrying, {"a": weights["a"], "b": 0.25}))


def test_a_mixture_of_wrong_weights_is_not_written(carrying: SentenceTransformer, tmp_path: Path) -> None:
    for wrong, said in (([0.5, 0.5, 0.5], "'a' is a list of 3"), ([0.5, float("inf")], "expected finite numbers")):
        with pytest.raises(PromptError, match=said):
            save_mixture(tmp_path / "mix", "t", {"a": wrong}, stored(carrying), carrying)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (
            {"a": [0.5], "b": 1.0},
            r"mixture\.json: the weight of 'a' is a list of 1; expected one number, or a list of 2",
        ),
        ({"a": [0.5, "x"], "b": 1.0}, r"mixture\.json: the weight of 'a' is .*expected finite numbers"),
    ],
)
def test_altered_weights_are_refused_when_loaded(
    carrying: SentenceTransformer, tmp_path: Path, weights: dict[str, Any], said: str
) -> None:
    path = save_mixture(tmp_path / "mix", "t", {"a": 0.5, "b": 1.0}, stored(carrying), carrying) / "mixture.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights": weights}))
    with pytest.raises(PromptError, match=said):
        attach_mixture(carrying, tmp_path / "mix")


def test_a_saved_encoder_keeps_its_layers_weights(carrying: SentenceTransformer, tmp_path: Path) -> None:
    transformer_of(carrying).route = Routes({"a": torch.tensor([0.25, 0.5]), "b": 0.3}, "c")
    carrying.save_pretrained(str(tmp_path / "saved"))
    again = load_encoder(str(tmp_path / "saved"), device="cpu")
    for side in ("query", "document"):
        np.testing.assert_array_equal(encode(again, TEXTS, side), encode(carrying, TEXTS, side))  # type: ignore[arg-type]
