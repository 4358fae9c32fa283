"""What a training follows from: two trainings with one identity are the same training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.collections.records import Collection, TrainingPair, fingerprint
from foreword.prompts.encoder import resolve_precision, text_prompt
from foreword.prompts.store import describe_backbone
from foreword.training.config import TrainingConfig
from foreword.training.processes import world_size
from foreword.training.vectors import DocumentVectors


def identity_of(
    encoder: SentenceTransformer,
    sources: Sequence[Collection],
    data: Mapping[str, Sequence[TrainingPair]],
    domain: str,
    config: TrainingConfig,
    *,
    start: Mapping[str, Any],
    documents: Mapping[str, DocumentVectors] | None,
    pairs: Mapping[str, Sequence[TrainingPair]] | None,
    seconds: float | None,
) -> dict[str, Any]:
    """Everything that the result follows from, as JSON values (under a time budget: the machine's speed too).

    Args:
        encoder: its weights, head and precision.
        sources: the collections.
        data: their training pairs, by id.
        domain: the result's name.
        config: the settings.
        start: what is trained, and where it starts.
        documents: vectors by collection id that were given.
        pairs: training pairs by collection id that were given.
        seconds: the time budget; None: none.
    """
    device = encoder.device.type
    described = describe_backbone(encoder)
    supervision = {
        c.id: {"method": "given pairs"} if pairs and c.id in pairs else c.facts.get("supervision", {"method": "train"})
        for c in sources
    }
    return {
        "domain": domain,
        "fingerprint": described["fingerprint"],
        "encoder": {name: described[name] for name in ("pooling", "normalized", "similarity", "text_prompts")},
        "training": {
            **config.as_dict(),
            "precision": resolve_precision(config.precision, device),
            "device": device,
            **({"processes": world_size()} if world_size() > 1 else {}),
            **({} if seconds is None else {"seconds": seconds}),
        },
        "supervision": supervision[sources[0].id] if len(sources) == 1 else supervision,
        "data": {
            c.id: {
                "collection": fingerprint(c, [split for split in c.splits if split != "test"]),
                "pairs": len(data[c.id]),
                "pairs_sha256": _digest(data[c.id]),
                **({"vectors": documents[c.id].digest()} if documents and c.id in documents else {}),
            }
            for c in sources
        },
        "start": dict(start),
        "max_seq_length": encoder.max_seq_length,
    }


def _digest(pairs: Sequence[TrainingPair]) -> str:
    text = "\x1e".join("\x1f".join((p.query_id, p.query, p.doc_id, p.document, *p.negatives)) for p in pairs)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def text_settings(
    encoder: SentenceTransformer, config: TrainingConfig, sources: Sequence[Collection] = ()
) -> dict[str, Any]:
    """How texts were cut, written out and what stood before them, for the card of a result."""
    written = [c.facts["templates"] for c in sources if "templates" in c.facts]
    templates: Any = written[0] if written else {"query": "{text}", "document": "{title} {text}"}
    return {
        "query_length": config.query_length,
        "document_length": config.document_length,
        "query_template": f"{text_prompt(encoder, 'query') or ''}{templates['query']}",
        "document_template": f"{text_prompt(encoder, 'document') or ''}{templates['document']}",
    }
