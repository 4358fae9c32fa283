"""What embedded documents: the backbone, and the side of a prompt that documents pass through, as fingerprints.

Two prompts that embed documents alike have one fingerprint, whatever they do with queries: a prompt trained for
queries alone embeds documents as the base model does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreword.indexing.errors import OtherEncoderError
from foreword.prompts.routes import OWN, Default, Route, route_as_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BASE = "base"
"""The fingerprint of documents without a prompt."""

_NAMES = ("name", "revision", "width")  # of a backbone's description: what it is called, not what it computes


@dataclass(frozen=True)
class Stamp:
    """What an encoder puts on the documents that it embeds.

    Attributes:
        backbone: see `describe_backbone`.
        document_side: `base`, or the 64 hexadecimal digits of `foreword.evaluation.fingerprints.side_fingerprint`.
        route: what encodes both sides, as JSON; the names in it are for people.
        dimension: d', of the vectors.
        max_length: tokens that a document is cut to; None: no limit.
    """

    backbone: Mapping[str, Any]
    document_side: str
    route: Any
    dimension: int
    max_length: int | None


def stamp_of(encoder: SentenceTransformer, route: Route | Default = OWN, max_length: int | None = None) -> Stamp:
    """What `encode(encoder, texts, "document", route=route, max_length=max_length)` puts on documents.

    Raises:
        PromptError: the route names a prompt that the encoder does not carry.
    """
    from foreword.evaluation.fingerprints import side_fingerprint
    from foreword.prompts.encoder import transformer_of
    from foreword.prompts.store import describe_backbone

    transformer = transformer_of(encoder)
    chosen: Route = transformer.route if isinstance(route, Default) else route
    limit = transformer.max_seq_length
    given = [length for length in (limit, max_length) if length is not None]
    return Stamp(
        describe_backbone(encoder),
        side_fingerprint(encoder, "document", chosen) or BASE,
        route_as_json(chosen),
        encoder.get_embedding_dimension() or 0,
        min(given, default=None),
    )


# -- comparing -----------------------------------------------------------------------------------------------------


def check_backbone(stored: Mapping[str, Any], here: Mapping[str, Any], where: str) -> None:
    """Raise `OtherEncoderError` unless two descriptions of a backbone are of the same vectors.

    Args:
        stored: the index's.
        here: the encoder's.
        where: the index, for the message.
    """
    for key in sorted({*stored, *here} - set(_NAMES)):
        if stored.get(key) != here.get(key):
            raise OtherEncoderError(
                f"{where} was built by backbone {stored.get('name')!r} with {key} {_short(stored.get(key))}; this "
                f"encoder is {here.get('name')!r} with {_short(here.get(key))}. Load the backbone it was built by "
                "(--backbone), or build another index"
            )


def check_document_side(domain: str, stored: Stamp, here: Stamp) -> None:
    """Raise `OtherEncoderError` unless documents pass through the same prompt in both."""
    if stored.document_side == here.document_side:
        return
    raise OtherEncoderError(
        f"the documents of {domain!r} were embedded by {described(stored)}, and {described(here)} embeds documents "
        "otherwise; take the prompt that embedded them (--prompt), or one trained for queries alone where that is the "
        "base model, or embed them again (foreword index build --replace)"
    )


def described(stamp: Stamp) -> str:
    """What embeds documents, for people."""
    if stamp.document_side == BASE:
        return "the base model"
    route = stamp.route
    if isinstance(route, Mapping) and "sides" in route:
        route = route["sides"]["document"]
    name = f"prompt {route!r}" if isinstance(route, str) else f"a mixture of {', '.join(map(repr, route))}"
    return f"{name} (document side {stamp.document_side[:12]})"


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text[:13]}...'" if isinstance(value, str) and len(value) == 64 else text
