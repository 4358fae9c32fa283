"""Stored prompts, known by their cards until an encoder carries one, and what tells their vectors apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.collections.registry import canonical, overlap
from foreword.collections.supervision import split_fold
from foreword.errors import PromptError
from foreword.files import json_digest
from foreword.prompts.encoder import transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import OWN, Default, Route, plain_weight, route_of_side
from foreword.prompts.store import (
    CARD,
    SOURCES,
    attach_mixture,
    attach_prompt,
    is_mixture,
    read_card,
    read_mixture_card,
    trained_on,
)
from foreword.prompts.store import MIXTURE_CARD as MIXTURE_CARD
from foreword.prompts.transformer import PromptedTransformer
from foreword.settings import Side


def side_fingerprint(encoder: SentenceTransformer, side: Side, route: Route | Default = OWN) -> str | None:
    """SHA-256 over the prompts, and their weights, that encode `side`; None where the base model does.

    Vectors of one backbone and one fingerprint can be compared. Names do not count, nor how a thing is said: a prompt,
    a copy of it and the mixture of it alone have one fingerprint, and so have a weight and a list of it for every
    layer.

    `route` None is the base model, OWN what the encoder is routed to.
    """
    transformer = transformer_of(encoder)
    chosen = route_of_side(transformer.route if isinstance(route, Default) else route, side)
    weights: Mapping[str, Any] = {chosen: 1.0} if isinstance(chosen, str) else chosen or {}
    entries = []
    for domain, weight in weights.items():
        digest = _part_digest(transformer, transformer.prompt(domain), side)
        share = plain_weight(domain, weight)
        if isinstance(share, list) and len(set(share)) == 1:
            share = share[0]
        if digest is not None and share != 0.0:
            entries.append([digest, share])
    if not entries:
        return None
    return json_digest(sorted(entries, key=str))


def _part_digest(transformer: PromptedTransformer, prompt: Prompt, side: Side) -> str | None:
    """SHA-256 of what encodes a side, the same for all `sides` of equal values; None: the base model does."""
    part, spec = prompt.part(side), prompt.spec
    if part is None:  # a query-side prompt: documents are the base model's
        return None
    placement = prompt.kind.placement(spec, transformer)
    digest = hashlib.sha256(json.dumps([spec.kind, spec.length, spec.top_layers, placement]).encode())
    for name, tensor in sorted(part.items()):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Candidate:
    """A stored prompt or mixture, and what its card says of it."""

    path: Path
    domain: str
    digest: str
    """Of its values; two candidates with one digest give equal vectors."""
    supervision: str | None
    """The labels it was trained by: `train`, `dev`, `pseudo-queries`, `k-fold`, `transfer`; None: not said."""
    trained_on: tuple[str, ...]
    """Collections whose labels it, or what it started from, was trained on."""
    chose_by_dev: bool
    """Its best step was chosen by these collections' dev splits."""

    def has_used(self, collection: str, split: str) -> bool:
        """Whether the labels of this split took part in its training.

        A fold's training takes test queries of its collection: all but its own fold's.
        """
        own = split == "train" or (split == "dev" and (self.chose_by_dev or self.supervision == "dev"))
        shared = [name for name in self.trained_on if overlap(name, collection)]
        if split == "test":
            own_id = canonical(collection)
            return any(split_fold(name)[1] is not None and canonical(name) != own_id for name in shared)
        return own and bool(shared)


def read_candidate(folder: Path) -> Candidate:
    """What the card in a prompt's, or a mixture's, folder says. Raises `PromptError` when there is none."""
    if is_mixture(folder):
        card = read_mixture_card(folder)
        values = {key: card.get(key) for key in ("weights", "document", "sources")}
        digest = json_digest(values)
        cards = [read_card(path) for path in sorted((folder / SOURCES).glob("*"))]
    else:
        card = read_card(folder)
        digest = str(card.get("digest") or card["sha256"])
        cards = [card]
    trained = [item for each in cards for item in trained_on(each).items()]
    labelled = dict.fromkeys(name for name, method in trained if method != "pseudo-queries")
    return Candidate(folder, card["domain"], digest, _supervision(card), tuple(labelled), chosen_by_dev(cards))


def chosen_by_dev(cards: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the best step of one of these prompts, or of what it was distilled from, was chosen by a dev split."""
    for card in cards:
        made = card.get("distilled") or card.get("folded") or {}  # `folded` in older cards
        steps = (card.get("metrics") or {}).get("dev") or ()
        if made.get("chosen_by_dev") or any(step.get("dev") is not None for step in steps):
            return True
    return False


def _supervision(card: Mapping[str, Any]) -> str | None:
    """How it was supervised; a prompt of several collections, supervised differently: `mixed`."""
    said = card.get("supervision")
    if isinstance(said, Mapping):
        each = [said] if "method" in said else [one for one in said.values() if isinstance(one, Mapping)]
        methods = {str(one["method"]) for one in each if one.get("method") is not None}
        if methods:
            return methods.pop() if len(methods) == 1 else "mixed"
    return "transfer" if "transfer" in card else None


def read_bank(folder: Path) -> dict[str, Candidate]:
    """The candidates of a bank by domain.

    `PromptError`: the folder holds none, a broken card, or two for one domain.
    """
    paths = sorted({path.parent for name in (CARD, MIXTURE_CARD) for path in folder.glob(f"*/{name}")})
    if not paths:
        raise PromptError(f"{folder} is no bank: none of its folders holds a {CARD} or a {MIXTURE_CARD}")
    bank: dict[str, Candidate] = {}
    for path in paths:
        found = read_candidate(path)
        if found.domain in bank:
            raise PromptError(f"{path} and {bank[found.domain].path} both hold a prompt for {found.domain!r}")
        bank[found.domain] = found
    return bank


@contextmanager
def bare(encoder: SentenceTransformer) -> Iterator[None]:
    """Within the block the encoder carries no prompts; those it carried come back at the end."""
    transformer = transformer_of(encoder)
    carried = {domain: transformer.prompt(domain) for domain in transformer.domains}
    route = transformer.route
    transformer.remove_all()
    try:
        yield
    finally:
        transformer.remove_all()
        for domain, prompt in carried.items():
            transformer.add(domain, prompt)
        transformer.route = route


@contextmanager
def carrying(encoder: SentenceTransformer, candidate: Candidate | None) -> Iterator[Route]:
    """Within the block a bare encoder carries the candidate alone; gives its route (None: the base model).

    `PromptError`: its files are broken, or it was made for another backbone.
    """
    transformer = transformer_of(encoder)
    try:
        if candidate is None:
            yield None
        else:
            attach = attach_mixture if is_mixture(candidate.path) else attach_prompt
            yield attach(encoder, candidate.path)
    finally:
        transformer.remove_all()


def document_key(encoder: SentenceTransformer, route: Route) -> str:
    """Equal for routes that give documents equal vectors, whatever they do to queries."""
    limit = transformer_of(encoder).max_seq_length  # an input prompt leaves less room for the text, of documents too
    return f"{limit} {side_fingerprint(encoder, 'document', route)}"
