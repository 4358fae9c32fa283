"""What encodes a side, as one number: vectors of one backbone and one fingerprint can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.prompts.encoder import transformer_of
from foreword.prompts.routes import OWN, Default, Route, plain_weight, route_of_side
from foreword.prompts.spec import Side


def side_fingerprint(encoder: SentenceTransformer, side: Side, route: Route | Default = OWN) -> str | None:
    """SHA-256 over the prompts, and their weights, that encode `side`; None where the base model does.

    Names do not count: a prompt and a copy of it, or a prompt and the mixture of it alone, have one fingerprint.

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
        prompt = transformer.prompt(domain)
        part = prompt.part(side)
        if part is None:  # a query-side prompt: documents are the base model's
            continue
        digest = hashlib.sha256(json.dumps({**prompt.spec.as_dict(), "sides": None}, sort_keys=True).encode())
        for name, tensor in sorted(part.items()):
            digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        entries.append([digest.hexdigest(), plain_weight(domain, weight)])
    if not entries:
        return None
    return hashlib.sha256(json.dumps(sorted(entries, key=str)).encode()).hexdigest()
