"""What encodes a side, as one number: vectors of one backbone and one fingerprint can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.prompts.encoder import transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import OWN, Default, Route, plain_weight, route_of_side
from foreword.prompts.spec import Side
from foreword.prompts.transformer import PromptedTransformer


def side_fingerprint(encoder: SentenceTransformer, side: Side, route: Route | Default = OWN) -> str | None:
    """SHA-256 over the prompts, and their weights, that encode `side`; None where the base model does.

    Names do not count, nor how a thing is said: a prompt, a copy of it and the mixture of it alone have one
    fingerprint, and so have a weight and a list of it for every layer.

    Args:
        encoder: that carries the prompts of the route.
        side: `query` or `document`.
        route: None: base; OWN: what the encoder is routed to.
    """
    transformer = transformer_of(encoder)
    chosen = route_of_side(transformer.route if isinstance(route, Default) else route, side)
    weights: Mapping[str, Any] = {chosen: 1.0} if isinstance(chosen, str) else chosen or {}
    entries = []
    for domain, weight in weights.items():
        digest = _part_digest(transformer, transformer.prompt(domain), side)
        share = _one_number(plain_weight(domain, weight))
        if digest is not None and share != 0.0:
            entries.append([digest, share])
    if not entries:
        return None
    return hashlib.sha256(json.dumps(sorted(entries, key=str)).encode()).hexdigest()


def _part_digest(transformer: PromptedTransformer, prompt: Prompt, side: Side) -> str | None:
    """SHA-256 of what encodes a side, the same for all `sides` of equal values; None: the base model does."""
    part, spec = prompt.part(side), prompt.spec
    if part is None:  # a query-side prompt: documents are the base model's
        return None
    placement = transformer.placement(spec.placement) if spec.kind == "input" else None
    digest = hashlib.sha256(json.dumps([spec.kind, spec.length, spec.top_layers, placement]).encode())
    for name, tensor in sorted(part.items()):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _one_number(weight: float | list[float]) -> float | list[float]:
    return weight[0] if isinstance(weight, list) and len(set(weight)) == 1 else weight
