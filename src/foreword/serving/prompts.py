"""The prompts that are served, in a form that texts of many domains and both sides can share a forward pass.

Each side of a prompt is carried by the backbone as a prompt of its own, under a name made of its values: whatever the
domains and sides, rows are told apart by name alone, equal prompts are carried once, and a prompt that replaces
another of its domain stands beside it until the requests that began with the old one are done.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.errors import PromptError
from foreword.evaluation.candidates import Candidate, read_bank, read_candidate
from foreword.prompts.encoder import text_prompt, transformer_of
from foreword.prompts.kinds.kind import kind_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import OneRoute, Weight, route_of_side
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import SOURCES, StoredPrompt, attach_mixture, is_mixture, load_prompt
from foreword.serving.config import ServeConfig
from foreword.settings import SIDES, Side

BASE_MODEL = "base"
"""The model name of the backbone without a prompt."""


@dataclass(frozen=True)
class Way:
    """How a text is encoded.

    Attributes:
        side: whose words of the backbone stand before the text; `query` for both where they do not differ.
        name: of the carried prompt; None: the base model, or a mixture.
        spec: of the carried prompt; None: the base model, or a mixture.
        weights: of a mixture, carried name and weight as JSON values in a tuple; empty: no mixture.
    """

    side: Side
    name: str | None = None
    spec: PromptSpec | None = None
    weights: tuple[tuple[str, float | tuple[float, ...]], ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The carried prompts that it needs."""
        return frozenset({self.name} if self.name is not None else {name for name, _ in self.weights})

    @property
    def route(self) -> Mapping[str, Weight]:
        """The mixture, as `foreword.prompts.encoder.encode` takes it."""
        return dict(self.weights)

    def joins(self, others: Way) -> Way | None:
        """The way that stands for a forward pass of both; None: they cannot share one.

        Rows of prompts of one structure can, and the base model's with those in the layers. Texts behind input
        prompts stand at other positions, and a mixture is one for the whole pass.
        """
        if self == others:
            return self
        if self.side != others.side or self.weights or others.weights:
            return None
        if self.spec is None or others.spec is None:
            chosen = others if self.spec is None else self
            return chosen if chosen.spec is None or not kind_of(chosen.spec).among_words else None
        return self if self.spec == others.spec else None


@dataclass(frozen=True)
class Served:
    """A domain's prompt or mixture as it is served, whatever becomes of its folder until it is read again.

    Attributes:
        candidate: what its card says.
        about: what `/domains` shows.
        ways: what encodes either side.
        stored: the prompt itself; None: a mixture.
    """

    candidate: Candidate
    about: Mapping[str, Any]
    ways: Mapping[Side, Way]
    stored: StoredPrompt | None = field(default=None, compare=False)


def base_ways(encoder: SentenceTransformer) -> dict[Side, Way]:
    """What encodes queries and documents without a prompt."""
    same = text_prompt(encoder, "query") == text_prompt(encoder, "document")
    return {side: Way("query" if same else side) for side in SIDES}


def candidates(config: ServeConfig) -> dict[str, Candidate]:
    """The prompts and mixtures in the configured folders, by domain. Raises `PromptError` for two of one domain."""
    found = read_bank(config.bank) if config.bank is not None else {}
    for folder in config.prompts:
        candidate = read_candidate(folder)
        if candidate.domain in found:
            other = found[candidate.domain].path
            raise PromptError(f"{folder} and {other} both hold a prompt for {candidate.domain!r}")
        found[candidate.domain] = candidate
    return found


def read_prompts(encoder: SentenceTransformer, config: ServeConfig, before: Mapping[str, Served]) -> dict[str, Served]:
    """The prompts in the configured folders, carried by the backbone; not while it encodes.

    Those of `before` that have not changed are taken over. Raises `PromptError` where one is broken or for another
    backbone, its name means something else in a request, or a prompt is wanted and not there.
    """
    found = candidates(config)
    for name, candidate in found.items():
        if name == BASE_MODEL or name.endswith(tuple(f":{side}" for side in SIDES)):
            raise PromptError(f"{candidate.path}: a prompt for {name!r} cannot be served, the name is taken")
    for collection, name in config.use.items():
        if name not in found:
            have = ", ".join(found) or "none"
            raise PromptError(f"{collection} is to be searched with prompt {name!r}; there are: {have}")
    served: dict[str, Served] = {}
    for name, candidate in found.items():
        known = before.get(name)
        served[name] = known if known is not None and known.candidate == candidate else carry(encoder, candidate)
    return served


def carry(encoder: SentenceTransformer, candidate: Candidate) -> Served:
    """Let the backbone carry the sides of a stored prompt or mixture; not while it encodes."""
    transformer = transformer_of(encoder)
    before = set(transformer.domains)
    mixture, stored = is_mixture(candidate.path), None
    if mixture:
        route = attach_mixture(encoder, candidate.path)
        prompts = {name: transformer.prompt(name) for name in transformer.domains if name not in before}
        for name in prompts:
            transformer.remove(name)
        size = sum(file.stat().st_size for file in sorted((candidate.path / SOURCES).glob("*/*.safetensors")))
    else:
        stored = load_prompt(candidate.path, encoder)
        size = int(stored.card["bytes"])
        prompts = {candidate.domain: stored.prompt}
        route = candidate.domain
    base = base_ways(encoder)
    ways = {side: _way(encoder, base[side], route_of_side(route, side), prompts, side) for side in SIDES}
    first = next(iter(prompts.values())).spec if prompts else None  # the facts of a mixture are its sources'
    about = {
        **{name: getattr(first, name, None) for name in ("kind", "length", "sides")},
        "mixture": mixture,
        "parameters": sum(prompt.count() for prompt in prompts.values()),
        "bytes": size,
        "fingerprint": candidate.digest,
        "trained_on": list(candidate.trained_on),
        "supervision": candidate.supervision,
    }
    return Served(candidate, about, ways, stored)


def release(encoder: SentenceTransformer, needed: frozenset[str]) -> None:
    """Carry no prompt but those needed; not while the backbone encodes."""
    transformer = transformer_of(encoder)
    for name in [name for name in transformer.domains if name not in needed]:
        transformer.remove(name)


def _way(encoder: SentenceTransformer, base: Way, route: OneRoute, prompts: Mapping[str, Prompt], side: Side) -> Way:
    if route is None:
        return base
    if isinstance(route, str):
        part = _part(prompts[route], side)
        return base if part is None else replace(base, name=_carried(encoder, part), spec=part.spec)
    weights: list[tuple[str, float | tuple[float, ...]]] = []
    for name, weight in route.items():
        part = _part(prompts[name], side)
        if part is not None:
            plain: Any = tuple(weight) if isinstance(weight, list) else weight
            weights.append((_carried(encoder, part, {name for name, _ in weights}), plain))
    return replace(base, weights=tuple(weights))


def _part(prompt: Prompt, side: Side) -> Prompt | None:
    """One side of a prompt, as a prompt for both; None: the base model encodes it."""
    tensors = prompt.part(side)
    if tensors is None:
        return None
    return Prompt(replace(prompt.spec, sides="shared"), {f"both.{name}": tensor for name, tensor in tensors.items()})


def _carried(encoder: SentenceTransformer, part: Prompt, taken: Collection[str] = ()) -> str:
    """The name that the part is carried under; not one of `taken`, so that a mixture may have equal parts."""
    spec = part.spec
    name = f"{spec.kind} {spec.length} {spec.top_layers} {spec.placement} {part.digest()}"
    while name in taken:
        name += " again"
    if name not in transformer_of(encoder).domains:
        transformer_of(encoder).add(name, part)
    return name
