"""How alike two domains are, by the prompts trained for them (SPoT, Vu et al. 2022, 2110.07904).

SPoT takes a task's prompt as the task's embedding. Its prompts are n vectors before the text; those here lie in every
layer, so token i is what vector i is to all layers together: its key, and its value times the gate of each head, by
layer, side by side. (A value never acts without its gate: -g * -v is g * v, and behind a gate of 0 it says nothing.)

Prompts trained from one start share nearly all of it, which makes all of them alike. Given the start, what is compared
is how each of them moved away from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from foreword.common.errors import ForewordError, PromptError
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import Side
from foreword.prompts.store import StoredPrompt
from foreword.transferring.similarity import Array, Method, similarity, softmax_weights, unit_rows

AnyPrompt = Prompt | StoredPrompt


def prompt_tokens(prompt: AnyPrompt, *, start: AnyPrompt | None = None, side: Side = "query") -> Array:
    """The n tokens of a prompt, (n, w), less those of `start` where it is given.

    w is d for `input` prompts, 2 L G h for `prefix` and L (G + H) h for `gated` ones (see `foreword.prompts.spec`).

    Args:
        prompt: of any kind.
        start: what it was trained from; its sides may be others, as long as it encodes `side`.
        side: whose part is looked at. Sources that share one document part differ in their query part alone.

    Raises:
        PromptError: no part encodes this side, or prompt and start differ in structure.
    """
    tokens = _tokens(prompt, side)
    if start is not None:
        origin = _tokens(start, side)
        _check_alike(tokens, origin, "the prompt and its start")
        tokens = tokens - origin
    return np.asarray(tokens.numpy(), dtype=np.float32)


def prompt_similarity(
    a: AnyPrompt, b: AnyPrompt, method: Method = "mean", *, start: AnyPrompt | None = None, side: Side = "query"
) -> float:
    """Likeness of two prompts, from -1 to 1; 0 where one of them did not move from `start` at all.

    Args:
        a: one prompt.
        b: another of the same length and layers.
        method: SPoT's two: `mean`, the cosine of the mean tokens; `pairwise`, the mean cosine over all pairs of a
            token of the one and a token of the other. Neither depends on the order of the tokens.
        start: what both were trained from, to compare how they moved; None: to compare the prompts as they are.
        side: whose part is looked at.

    Raises:
        PromptError: the prompts differ in structure, or no part encodes this side.
        ForewordError: no such method.
    """
    if method not in get_args(Method):
        raise ForewordError(f"similarity method is {method!r}; expected one of {', '.join(get_args(Method))}")
    ours, theirs = (prompt_tokens(prompt, start=start, side=side) for prompt in (a, b))
    _check_alike(ours, theirs, "the two prompts")
    if method == "mean":
        ours, theirs = (tokens.mean(axis=0, keepdims=True) for tokens in (ours, theirs))
    return similarity(unit_rows(ours), unit_rows(theirs), "pairwise")  # rows of zeros give 0


def spot_similarities(
    target: AnyPrompt,
    bank: Mapping[str, StoredPrompt],
    *,
    method: Method = "mean",
    start: AnyPrompt | None = None,
    side: Side = "query",
) -> dict[str, float]:
    """Source -> `prompt_similarity` of its prompt to the target's own.

    Args:
        target: a prompt trained on the target; where it has no labels, on its pseudo-queries, from the shared start.
        bank: the sources. The start itself has similarity 0 to everything, since it did not move; leave it out.
        method: as for `prompt_similarity`.
        start: what all were trained from.
        side: whose part is looked at.

    Raises:
        PromptError: as `prompt_similarity`, or the target's prompt is the start itself, which is like none.
    """
    if start is not None and not prompt_tokens(target, start=start, side=side).any():
        raise PromptError(
            "the target's prompt is still the start (no step of its training was kept), so it is like no source more "
            "than another; train it for longer, or weigh the sources alike"
        )
    return {name: prompt_similarity(target, source, method, start=start, side=side) for name, source in bank.items()}


def spot_weights(
    target_prompt: AnyPrompt,
    bank: Mapping[str, StoredPrompt],
    top_k: int = 5,
    temperature: float = 0.1,
    *,
    method: Method = "mean",
    start: AnyPrompt | None = None,
    side: Side = "query",
) -> dict[str, float]:
    """Weights of the `top_k` sources whose prompts are most like the target's; they add up to 1.

    SPoT begins the target's prompt with the best of the top k, or with their average weighted by the similarities
    themselves, and goes on training it. The weights here are `softmax(similarity / temperature)`, as for similarity
    of documents (a cosine may be negative); with `top_k` 1 it is the nearest source alone, as in the paper.

    Args:
        target_prompt: as for `spot_similarities`.
        bank: as there.
        top_k: sources weighed.
        temperature: of the softmax.
        method: as for `prompt_similarity`.
        start: what all were trained from.
        side: whose part is looked at.

    Raises: as `spot_similarities` and `foreword.transferring.similarity.softmax_weights`.
    """
    alike = spot_similarities(target_prompt, bank, method=method, start=start, side=side)
    return softmax_weights(alike, top_k=top_k, temperature=temperature)


def _tokens(given: AnyPrompt, side: Side) -> Tensor:
    """(n, w), as said at the top."""
    prompt = given.prompt if isinstance(given, StoredPrompt) else given
    part = prompt.part(side)
    if part is None:
        raise PromptError(f"a prompt of sides {prompt.spec.sides!r} has no part for a {side}; compare the other side")
    tensors = {name: tensor.detach().double().cpu() for name, tensor in part.items()}
    if prompt.spec.kind == "input":
        return tensors["vectors"]
    keys, values = tensors["keys"], tensors["values"]  # (L, n, G, h)
    if prompt.spec.kind == "gated":
        gate = tensors["gate"]  # (L, H)
        values = values.repeat_interleave(gate.shape[1] // values.shape[2], dim=2) * gate[:, None, :, None]
    return torch.cat([keys.flatten(2), values.flatten(2)], dim=2).transpose(0, 1).flatten(1)


def _check_alike(a: Tensor | Array, b: Tensor | Array, which: str) -> None:
    if a.shape != b.shape:
        raise PromptError(
            f"{which} differ in structure: tokens of shape {tuple(a.shape)} and {tuple(b.shape)}; compare prompts of "
            "one kind, length and number of layers"
        )
