"""Combine source prompts into one retriever for a target."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from foreword.common.errors import PromptError
from foreword.prompts.prompt import Prompt
from foreword.prompts.store import StoredPrompt


def uniform_weights(sources: Mapping[str, object]) -> dict[str, float]:
    """The same weight for every source; they add up to 1."""
    return {name: 1 / len(sources) for name in sources}


def check_mixable(sources: Mapping[str, StoredPrompt]) -> None:
    """Raise `PromptError` unless all are gated prompts of one structure, which alone can be mixed exactly."""
    specs = {name: stored.prompt.spec for name, stored in sources.items()}
    odd = [name for name, spec in specs.items() if spec.kind != "gated"]
    if odd:
        raise PromptError(
            f"{', '.join(odd)}: only gated prompts can be mixed exactly; average prefix or input prompts that have "
            "one start (method 'average')"
        )
    if len(set(specs.values())) > 1:
        raise PromptError(f"the sources differ in length, layers or sides: {specs}")


def shared_document_source(sources: Mapping[str, StoredPrompt]) -> str | None:
    """The source that encodes documents for all, when every source's own document part is the same; else None.

    Prompts trained on the query side over one prompt's documents are such: their mixture leaves documents alone.
    """
    parts = {}
    for name, stored in sources.items():
        if stored.prompt.spec.sides != "untied":
            return None
        tensors = stored.prompt.tensors()
        parts[name] = {key: tensor for key, tensor in tensors.items() if key.startswith("document.")}
    names = list(parts)
    first = parts[names[0]]
    same = all(torch.equal(part[key], first[key]) for part in parts.values() for key in first)
    return names[0] if same else None


def start_of(stored: StoredPrompt) -> str:
    """What a prompt's training started from: the other prompt's digest, or how a new one was made."""
    start = stored.card.get("start") or {}
    return str(
        stored.card.get("start_digest")
        or start.get("digest")
        or (start.get("from"), start.get("seed"), start.get("prompt"))
    )


def average_prompts(sources: Mapping[str, StoredPrompt], weights: Mapping[str, float]) -> Prompt:
    """The weighted mean of the prompts' parameters.

    Prompts trained from different starts lie in unrelated places, and their mean means nothing (Belanec et al.,
    "Task Prompt Vectors", 2024); they are refused.

    Args:
        sources: stored prompts, by name.
        weights: of some or all of them; divided by their sum.

    Raises:
        PromptError: different starts or structures, or no weight above 0.
    """
    chosen = {name: sources[name] for name, weight in weights.items() if weight}
    total = sum(weights[name] for name in chosen)
    if not chosen or total <= 0:
        raise PromptError("nothing to average: no source has a weight above 0")
    starts = {name: start_of(stored) for name, stored in chosen.items()}
    if len(set(starts.values())) > 1:
        listing = "; ".join(f"{name}: {start[:40]}" for name, start in starts.items())
        raise PromptError(
            f"prompts trained from different starts cannot be averaged ({listing}); mix gated prompts instead, or "
            "train all of them from one prompt"
        )
    if len({stored.prompt.spec for stored in chosen.values()}) > 1:
        raise PromptError("prompts of different kind, length, layers or sides cannot be averaged")
    first = next(iter(chosen.values())).prompt
    mean = {name: torch.zeros_like(tensor) for name, tensor in first.tensors().items()}
    for name, stored in chosen.items():
        for key, tensor in stored.prompt.tensors().items():
            mean[key] += tensor * (weights[name] / total)
    return Prompt(first.spec, mean)
