"""The rivals and controls of transfer that combine prompts: random weights, SPoT, task arithmetic, greedy soups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import random_prompt

from foreword.errors import ForewordError, PromptError
from foreword.lab.rivals import greedy_ingredients, greedy_soup, oracle_single, random_weights, task_vectors
from foreword.lab.routing import prompt_similarity, prompt_tokens, spot_weights
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt
from foreword.transferring.transfer import average_prompts, uniform_weights

SPEC = PromptSpec("gated", 2, sides="query")


def small(keys: list[float], values: list[float], gate: float, sides: str = "query") -> Prompt:
    """A gated prompt of one layer, one head of width 1 and two vectors; all of its parts alike."""
    tensors = {
        "keys": torch.tensor(keys).view(1, 2, 1, 1),
        "values": torch.tensor(values).view(1, 2, 1, 1),
        "gate": torch.tensor([[gate]]),
    }
    spec = replace(SPEC, sides=sides)  # type: ignore[arg-type]
    return Prompt(spec, {f"{part}.{name}": tensor for part in spec.parts for name, tensor in tensors.items()})


def stored(prompt: Prompt, origin: Prompt | str, **card: Any) -> StoredPrompt:
    digest = origin if isinstance(origin, str) else origin.digest()
    return StoredPrompt(prompt, {"domain": "x", "start_digest": digest, **card})


@pytest.fixture
def start() -> Prompt:
    return small([1.0, 1.0], [1.0, 1.0], 0.5)


@pytest.fixture
def bank(start: Prompt) -> dict[str, StoredPrompt]:
    return {
        "a": stored(small([3.0, 1.0], [2.0, 0.0], 1.0), start),
        "b": stored(small([1.0, 5.0], [0.0, 4.0], 0.0), start),
    }


def values(prompt: Prompt) -> dict[str, list[float]]:
    return {name.partition(".")[2]: tensor.flatten().tolist() for name, tensor in prompt.tensors().items()}


# -- controls ------------------------------------------------------------------------------------------------------


def test_random_weights_are_a_seeded_draw_by_name() -> None:
    weights = random_weights(["b", "a", "c"], 0)
    assert list(weights) == ["a", "b", "c"]
    assert sum(weights.values()) == pytest.approx(1)
    assert min(weights.values()) > 0
    assert random_weights({"c": 1, "b": 2, "a": 3}, 0) == weights != random_weights("abc", 1)
    # Under Dirichlet(1, 1, 1) a weight has mean 1/3 and variance 1/18.
    drawn = [random_weights("abc", seed)["b"] for seed in range(2000)]
    assert np.mean(drawn) == pytest.approx(1 / 3, abs=0.02)
    assert np.var(drawn) == pytest.approx(1 / 18, abs=0.005)
    assert random_weights(["only"], 3) == {"only": 1.0}
    with pytest.raises(ForewordError, match="no sources"):
        random_weights([], 0)


def test_the_oracle_takes_the_highest_score() -> None:
    assert oracle_single({"a": 0.2, "c": 0.5, "b": 0.5, "d": -1.0}) == "b"
    for wrong in ({}, {"a": float("nan"), "b": 1.0}):
        with pytest.raises(ForewordError, match="expected one at least"):
            oracle_single(wrong)


# -- similarity of prompts -----------------------------------------------------------------------------------------


def test_tokens_are_keys_and_gated_values_by_layer(encoder: SentenceTransformer, start: Prompt) -> None:
    assert prompt_tokens(small([1.0, 2.0], [3.0, 4.0], 0.5)).tolist() == [[1.0, 1.5], [2.0, 2.0]]
    moved = prompt_tokens(small([1.0, 2.0], [3.0, 4.0], 0.5), start=start)  # its tokens are (1, .5) twice
    assert moved.tolist() == [[0.0, 1.0], [1.0, 1.5]]
    deep = random_prompt(encoder, PromptSpec("gated", 3))  # 2 layers, 4 heads of width 8
    tokens, tensors = prompt_tokens(deep), deep.tensors()
    assert tokens.shape == (3, 2 * (32 + 32))
    np.testing.assert_allclose(tokens[1, 64:96], tensors["both.keys"][1, 1].flatten(), rtol=1e-6)
    gated = tensors["both.values"][1, 1, 2] * tensors["both.gate"][1, 2]
    np.testing.assert_allclose(tokens[1, 96 + 16 : 96 + 24], gated, rtol=1e-6)
    prefix, shallow = (random_prompt(encoder, PromptSpec(kind, 3)) for kind in ("prefix", "input"))
    assert prompt_tokens(prefix).shape == (3, 2 * 64)
    memory = random_prompt(encoder, PromptSpec("memory", 3, 2))  # each place has columns of its own
    tokens = prompt_tokens(memory)
    assert tokens.shape == (5, 2 * 64 + 2 * 64)
    assert not tokens[:3, 128:].any() and not tokens[3:, :128].any()  # noqa: PT018
    np.testing.assert_allclose(tokens[4, 224:], memory.tensors()["both.feed_forward_values"][1, 1], rtol=1e-6)
    np.testing.assert_allclose(prompt_tokens(shallow), shallow.tensors()["both.vectors"])


def test_heads_that_share_values_each_gate_them() -> None:
    tensors = {"keys": torch.ones(1, 1, 1, 2), "values": torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)}
    prompt = Prompt(
        PromptSpec("gated", 1), {f"both.{n}": t for n, t in {**tensors, "gate": torch.tensor([[3.0, 5.0]])}.items()}
    )
    assert prompt_tokens(prompt).tolist() == [[1.0, 1.0, 3.0, 6.0, 5.0, 10.0]]


def test_similarity_of_prompts_by_hand() -> None:
    a, b = small([1.0, 0.0], [0.0, 1.0], 1.0), small([1.0, 1.0], [0.0, 1.0], 1.0)
    # Tokens (1, 0), (0, 1) and (1, 0), (1, 1): means (.5, .5) and (1, .5); cosines 1, 1/sqrt 2, 0, 1/sqrt 2.
    assert prompt_similarity(a, b, "mean") == pytest.approx(0.75 / np.sqrt(0.5 * 1.25), abs=1e-6)
    assert prompt_similarity(a, b, "pairwise") == pytest.approx((1 + np.sqrt(2)) / 4, abs=1e-6)
    assert prompt_similarity(a, a) == pytest.approx(1, abs=1e-6)
    assert prompt_similarity(a, b, start=a) == 0.0
    assert prompt_similarity(b, a, "pairwise", start=a) == 0.0
    turned = small([1.0, 0.0], [0.0, -1.0], -1.0)  # the same function
    assert prompt_similarity(a, turned, "pairwise") == pytest.approx(prompt_similarity(a, a, "pairwise"))
    with pytest.raises(ForewordError, match="expected one of mean, pairwise"):
        prompt_similarity(a, b, "median")  # type: ignore[arg-type]


def test_opposite_ways_from_a_start_that_is_nearly_all_of_both() -> None:
    far = small([100.0, 100.0], [100.0, 100.0], 1.0)
    up, down = small([101.0, 100.0], [100.0, 100.0], 1.0), small([99.0, 100.0], [100.0, 100.0], 1.0)
    assert prompt_similarity(up, down) > 0.999
    assert prompt_similarity(up, down, start=far) == pytest.approx(-1, abs=1e-6)


def test_prompts_that_cannot_be_compared(encoder: SentenceTransformer, start: Prompt) -> None:
    longer = random_prompt(encoder, PromptSpec("gated", 3))
    with pytest.raises(PromptError, match=r"the two prompts differ in structure: tokens of shape \(2, 2\) and"):
        prompt_similarity(start, longer)
    with pytest.raises(PromptError, match="the prompt and its start differ in structure"):
        prompt_tokens(longer, start=start)
    untied = small([1.0, 0.0], [0.0, 1.0], 1.0, sides="untied")
    assert prompt_similarity(untied, small([1.0, 0.0], [0.0, 1.0], 1.0)) == pytest.approx(1, abs=1e-6)


def test_spot_weighs_the_sources_that_moved_alike(bank: dict[str, StoredPrompt], start: Prompt) -> None:
    target = small([2.0, 1.0], [1.0, 1.0], 0.5)  # moved (1, 0), (0, 0)
    # a moved (2, 1.5), (0, -.5): its mean (1, .5); b moved (0, -.5), (4, -.5): its mean (2, -.5).
    alike = {"a": 1 / np.sqrt(1.25), "b": 2 / np.sqrt(4.25)}
    moved = {name: prompt_similarity(target, source, start=start) for name, source in bank.items()}
    assert moved == pytest.approx(alike, abs=1e-6)
    shares = np.exp(np.array(list(alike.values())) / 0.2)
    got = spot_weights(stored(target, start), bank, 2, 0.2, start=stored(start, "new"))
    assert got == pytest.approx({"a": shares[0] / shares.sum(), "b": shares[1] / shares.sum()}, abs=1e-5)
    assert spot_weights(target, bank, 1, start=start) == {"b": 1.0}
    with pytest.raises(PromptError, match="still the start"):
        spot_weights(start, bank, start=start)


# -- task arithmetic -----------------------------------------------------------------------------------------------


def test_task_vectors_by_hand(bank: dict[str, StoredPrompt], start: Prompt) -> None:
    got = values(task_vectors(bank, start, {"a": 1.0, "b": 0.5}, 0.5))
    # keys 1 + .5 (2 + 0), 1 + .5 (0 + 2); values 1 + .5 (1 - .5), 1 + .5 (-1 + 1.5); gate .5 + .5 (.5 - .25)
    assert got == {"keys": [2.0, 2.0], "values": [1.25, 1.25], "gate": [0.625]}


def test_task_vectors_meet_the_start_the_average_and_each_source(bank: dict[str, StoredPrompt], start: Prompt) -> None:
    even = uniform_weights(bank)
    assert task_vectors(bank, start, even, 0.0).digest() == start.digest()
    assert values(task_vectors(bank, start, even)) == values(average_prompts(bank, even))
    assert values(task_vectors(bank, stored(start, "new"), {"b": 1.0})) == values(bank["b"].prompt)


def test_a_start_for_both_sides_serves_prompts_of_the_query_side(start: Prompt) -> None:
    for sides in ("shared", "untied"):
        both = small([1.0, 1.0], [1.0, 1.0], 0.5, sides=sides)
        source = stored(small([3.0, 1.0], [2.0, 0.0], 1.0), start, start={"digest": both.digest()})
        made = task_vectors({"a": source}, both, {"a": 1.0}, 0.0)
        assert made.spec == SPEC
        assert values(made) == values(start)
    tied = stored(small([3.0, 1.0], [2.0, 0.0], 1.0, sides="shared"), start)
    with pytest.raises(PromptError, match="which no prompt of"):
        task_vectors({"a": tied}, start, {"a": 1.0})


def test_task_vectors_of_other_starts_are_refused(bank: dict[str, StoredPrompt], start: Prompt) -> None:
    stranger = stored(bank["b"].prompt, "elsewhere")
    with pytest.raises(PromptError, match="different starts cannot be averaged"):
        task_vectors({**bank, "b": stranger}, start, uniform_weights(bank))
    with pytest.raises(PromptError, match="b: not trained from the start that was given"):
        task_vectors({"b": stranger}, start, {"b": 1.0})
    with pytest.raises(PromptError, match="no source z in the bank; there are: a, b"):
        task_vectors(bank, start, {"z": 1.0})
    with pytest.raises(PromptError, match="nothing to average"):
        task_vectors(bank, start, {"a": 1.0, "b": -1.0})


# -- greedy soups --------------------------------------------------------------------------------------------------


def first_key(prompt: Prompt) -> float:
    return values(prompt)["keys"][0]


@pytest.fixture
def keyed(start: Prompt) -> dict[str, StoredPrompt]:
    """Sources whose first key says who they are."""
    firsts = {"a": 4.0, "b": 2.0, "c": 6.0, "d": 4.0}
    return {name: stored(small([key, 0.0], [0.0, 0.0], 0.0), start) for name, key in firsts.items()}


def test_a_greedy_soup_keeps_what_does_not_lower_the_score(keyed: dict[str, StoredPrompt]) -> None:
    seen: list[float] = []

    def evaluate(prompt: Prompt) -> float:
        seen.append(first_key(prompt))
        return -abs(seen[-1] - 4.0)

    scores = {"b": 0.4, "c": 0.3, "a": 0.9, "d": 0.2}
    # a: 4 (score 0); with b: 3, worse; with c: 5, worse; with d: 4, as good.
    assert greedy_ingredients(keyed, scores, evaluate) == ["a", "d"]
    assert seen == [4.0, 3.0, 5.0, 4.0]
    # b: 2 (-2); with c: 4 (0); with a: 4 (0); with d: 4 (0).
    assert greedy_ingredients(keyed, {"b": 3, "c": 2, "a": 1, "d": 1}, evaluate) == ["b", "c", "a", "d"]
    soup = greedy_soup(keyed, {"b": 2, "c": 1}, evaluate)
    assert values(soup) == values(average_prompts(keyed, {"b": 1.0, "c": 1.0}))


def test_a_greedy_soup_of_one_is_that_one(keyed: dict[str, StoredPrompt]) -> None:
    assert values(greedy_soup(keyed, {"c": 0.0}, lambda _: -5.0)) == values(keyed["c"].prompt)


def test_a_greedy_soup_refuses_before_it_evaluates(keyed: dict[str, StoredPrompt]) -> None:
    def never(prompt: Prompt) -> float:
        raise AssertionError(prompt)

    keyed["b"] = stored(keyed["b"].prompt, "elsewhere")
    with pytest.raises(PromptError, match="different starts cannot be averaged"):
        greedy_soup(keyed, {"a": 1.0, "b": 0.5}, never)
    with pytest.raises(PromptError, match="no source z"):
        greedy_soup(keyed, {"z": 1.0}, never)
    with pytest.raises(PromptError, match="nothing to average"):
        greedy_soup(keyed, {}, never)


def test_a_soup_encodes(encoder: SentenceTransformer) -> None:
    origin = random_prompt(encoder, PromptSpec("gated", 3, sides="query"), 9)
    made = {n: stored(random_prompt(encoder, origin.spec, s), origin) for s, n in enumerate("ab")}
    transformer_of(encoder).add("arithmetic", task_vectors(made, origin, {"a": 1.0}))
    transformer_of(encoder).add("a", made["a"].prompt)
    got, expected = (encode(encoder, ["babe bale"], "query", route=name, quiet=True) for name in ("arithmetic", "a"))
    np.testing.assert_allclose(got, expected, atol=1e-4)
