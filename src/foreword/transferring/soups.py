"""Combinations of parameters instead of functions: task arithmetic and greedy soups.

Both are for prompts trained from one start (see `foreword.transferring.combine.average_prompts`, which refuses
others). Where all sources share one document part, so does what is made of them, up to rounding: route the documents
by the source that `shared_document_source` names, and their vectors serve for every combination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from foreword.common.errors import PromptError
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec, Side
from foreword.prompts.store import StoredPrompt
from foreword.transferring.combine import average_prompts


def task_vectors(
    bank: Mapping[str, StoredPrompt], start: Prompt | StoredPrompt, weights: Mapping[str, float], scale: float = 1.0
) -> Prompt:
    """`start + scale * sum_i w_i (P_i - start)`: how the sources moved from the start, added to it.

    Task arithmetic (Ilharco et al. 2023, 2212.04089), of prompts as in Belanec et al. 2024 (2408.01119). With weights
    that add up to 1 and scale 1 it is the weighted average; with scale 0, the start; above 1, further on.

    Args:
        bank: stored prompts, by name.
        start: what they were trained from, such as the multitask prompt; it may encode both sides where they have
            only a query part.
        weights: of some or all of them, taken as they are (a sum of 1 is not asked for), with a sum above 0.
        scale: of the sum.

    Raises:
        PromptError: an unknown source, different starts or structures, another start than theirs, or weights that
            add up to nothing.
    """
    _check_names(bank, weights)
    origin = start.prompt if isinstance(start, StoredPrompt) else start
    average = average_prompts(bank, weights)  # the sum, over the sum of the weights
    digest = origin.digest()
    strangers = [name for name, weight in weights.items() if weight and digest not in _start_digests(bank[name])]
    if strangers:
        raise PromptError(
            f"{', '.join(strangers)}: not trained from the start that was given (digest {digest[:12]}...); give the "
            "prompt that their cards name as their start"
        )
    means = average.tensors()
    first = {name: values.to(means[name].device) for name, values in _values_like(origin, average.spec).items()}
    factor = scale * sum(weights.values())
    return Prompt(average.spec, {name: first[name] + factor * (mean - first[name]) for name, mean in means.items()})


def greedy_ingredients(
    bank: Mapping[str, StoredPrompt], order_scores: Mapping[str, float], evaluate: Callable[[Prompt], float]
) -> list[str]:
    """The sources of a greedy soup, in the order in which they went in; see `greedy_soup`."""
    _check_names(bank, order_scores)
    average_prompts(bank, _alike(order_scores))  # what cannot be averaged is refused before anything is evaluated
    kept: list[str] = []
    best = -float("inf")
    for name in sorted(order_scores, key=lambda name: (-order_scores[name], name)):
        score = evaluate(average_prompts(bank, _alike([*kept, name])))
        if not kept or score >= best:
            kept, best = [*kept, name], score
    return kept


def greedy_soup(
    bank: Mapping[str, StoredPrompt], order_scores: Mapping[str, float], evaluate: Callable[[Prompt], float]
) -> Prompt:
    """The average of sources that were added one by one, each kept when the score does not fall.

    Greedy soups (Wortsman et al. 2022, 2203.05482, recipe 1). The paper's held-out labels are, for a target without
    labels, its held-out pseudo-queries.

    Args:
        bank: stored prompts, by name.
        order_scores: source -> its own held-out score; they are tried from the highest on, equal ones by name. The
            first always goes in. Sources without a score are left out.
        evaluate: the held-out score of a prompt, higher for better; called once for each source.

    Raises:
        PromptError: an unknown source, none at all, or different starts or structures.
    """
    return average_prompts(bank, _alike(greedy_ingredients(bank, order_scores, evaluate)))


def _alike(names: Iterable[str]) -> dict[str, float]:
    return dict.fromkeys(names, 1.0)


def _check_names(bank: Mapping[str, StoredPrompt], names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in bank]
    if unknown:
        raise PromptError(f"no source {', '.join(unknown)} in the bank; there are: {', '.join(bank) or 'none'}")


def _start_digests(stored: StoredPrompt) -> set[str]:
    """The digests of what a prompt's training started from: as it was stored, and as it was trained.

    They differ where a query part was taken out of a prompt for both sides.
    """
    start = stored.card.get("start") or {}
    return {str(digest) for digest in (stored.card.get("start_digest"), start.get("digest")) if digest}


def _values_like(start: Prompt, spec: PromptSpec) -> dict[str, Tensor]:
    """The values of `start` by the names that a prompt of `spec` has."""
    sides: dict[str, Side] = {"both": "query", "query": "query", "document": "document"}
    parts = {part: start.part(sides[part]) for part in spec.parts}
    fits = spec.sides != "shared" or start.spec.sides == "shared"
    if replace(start.spec, sides=spec.sides) != spec or not fits or None in parts.values():
        raise PromptError(f"the start is {start.spec}, which no prompt of {spec} can be trained from")
    return {f"{part}.{n}": tensor.detach() for part, own in parts.items() for n, tensor in (own or {}).items()}
