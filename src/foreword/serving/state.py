"""The prompts that are served at one time, and where they, the backbone and the collections come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.common.errors import PromptError
from foreword.evaluation.candidates import Candidate, read_bank, read_candidate
from foreword.prompts.encoder import load_encoder, transformer_of
from foreword.serving.config import ServeConfig
from foreword.serving.searchers import Searcher
from foreword.serving.ways import Served, carry, check_names

Load = Callable[[str], Any]
"""Gives a collection by its id."""


@dataclass(eq=False)
class State:
    """The prompts and what is searched with them, at one time; a request keeps to the one it began with."""

    served: Mapping[str, Served]
    searchers: tuple[Searcher, ...]
    needed: frozenset[str]
    """The carried prompts that it needs."""
    users: int = 0
    """Requests that keep to it."""

    def searcher(self, domain: str) -> Searcher | None:
        """Who finds documents of a domain; None: nobody."""
        return next((searcher for searcher in self.searchers if domain in searcher.domains()), None)


def read_prompts(encoder: SentenceTransformer, config: ServeConfig, before: Mapping[str, Served]) -> dict[str, Served]:
    """The prompts in the configured folders, carried by the backbone; not while it encodes.

    Those of `before` that have not changed are taken over.

    Raises:
        PromptError: one is broken or for another backbone, or a name is taken, or is wanted and not there.
    """
    found = candidates(config)
    check_names(found)
    for collection, name in config.use.items():
        if name not in found:
            have = ", ".join(found) or "none"
            raise PromptError(f"{collection} is to be searched with prompt {name!r}; there are: {have}")
    served: dict[str, Served] = {}
    for name, candidate in found.items():
        known = before.get(name)
        same = known is not None and known.candidate == candidate
        served[name] = known if same and known is not None else carry(encoder, candidate)
    return served


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


def load_backbone(config: ServeConfig) -> SentenceTransformer:
    """The backbone, under the head that the prompts were made with; the prompts themselves are read later."""
    first = next(iter(candidates(config).values()), None)
    encoder = load_encoder(
        config.backbone,
        prompt=None if first is None else first.path,
        max_length=config.max_length,
        device=config.device,
        revision=config.revision,
        pooling=config.pooling,
        normalize=config.normalize,
    )
    transformer_of(encoder).remove_all()
    return encoder


def loader(config: ServeConfig) -> Load:
    """Loads collections from the configured folder."""
    from foreword.collections.registry import load

    return lambda name: load(name, data=config.data)
