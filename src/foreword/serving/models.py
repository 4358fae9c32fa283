"""The names that models have in OpenAI's API.

A domain's name is a model where queries and documents are encoded alike. Where they differ, `DOMAIN:query` and
`DOMAIN:document` are, so that a client that knows of no sides can ask for either, and `DOMAIN` alone is refused unless
`input_type` says the side: a side that is guessed wrong would show in nothing but bad results.
"""

from __future__ import annotations

from collections.abc import Mapping

from foreword.prompts.spec import Side
from foreword.serving.errors import RequestError
from foreword.serving.ways import BASE_MODEL, SIDES, Served, Way


def split_model(model: str) -> tuple[str, Side | None]:
    """A model's domain and side: `("pydoc/torch", "query")` of `pydoc/torch:query`; None: it does not say."""
    for side in SIDES:
        if model.endswith(f":{side}"):
            return model.removesuffix(f":{side}"), side
    return model, None


def find_way(model: str, asked: Side | None, served: Mapping[str, Served], base: Mapping[Side, Way]) -> Way:
    """What encodes the texts of a request.

    Args:
        model: `base` or a domain, with or without a side behind it.
        asked: the side of `input_type`; None: it was not sent.
        served: the prompts.
        base: the base model's ways.

    Raises:
        RequestError: 404, no such model; 400, the side is not said where it matters, or said twice.
    """
    domain, side = split_model(model)
    if domain != BASE_MODEL and domain not in served:
        known = [name for name, *_ in model_names(served, base)]
        message = f"no model {model!r}; there are: {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}"
        raise RequestError(message, 404, "model_not_found", "model")
    if side is not None and asked is not None and side != asked:
        raise RequestError(
            f"model {model!r} is for a {side}, input_type says {asked}", 400, "side_conflict", "input_type"
        )
    side = side or asked
    ways = base if domain == BASE_MODEL else served[domain].ways
    if side is None and ways["query"] != ways["document"]:
        raise RequestError(
            f"{domain!r} encodes queries and documents differently: ask for model '{domain}:query' or "
            f"'{domain}:document', or send input_type",
            400,
            "side_required",
            "model",
        )
    return ways[side or "query"]


def model_names(served: Mapping[str, Served], base: Mapping[Side, Way]) -> list[tuple[str, str]]:
    """The names to ask for, each with its domain."""
    names: list[tuple[str, str]] = []
    for domain, ways in ((BASE_MODEL, base), *((name, one.ways) for name, one in served.items())):
        differ = ways["query"] != ways["document"]
        names += [(f"{domain}:{side}", domain) for side in SIDES] if differ else [(domain, domain)]
    return names
