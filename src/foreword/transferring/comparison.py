"""Compare retrievers for a target on its own text: pseudo-queries held out, and random spans as a second kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sentence_transformers import SentenceTransformer

from foreword.collections.pseudo import frequencies_for, pseudo_pairs
from foreword.collections.records import Collection, TrainingPair
from foreword.evaluation.candidates import document_key
from foreword.prompts.routes import Route
from foreword.prompts.store import StoredPrompt
from foreword.transferring.combine import shared_document_source, uniform_weights
from foreword.transferring.fit import (
    Fit,
    FitConfig,
    check_spans,
    embed_pair_documents,
    fit_weights,
    pseudo_scores,
    split_pairs,
)
from foreword.transferring.similarity import Array


def pseudo_material(
    target: Collection, pseudo: str, config: FitConfig
) -> tuple[list[TrainingPair], list[list[TrainingPair]]]:
    """Pseudo-queries to fit on, and two kinds of them to compare by, none of which was fitted on.

    Args:
        target: only its documents are looked at.
        pseudo: how pseudo-queries are made, see `foreword.collections.pseudo`.
        config: the shares, and the seed.

    Raises:
        DataError: too little text.
    """
    counted = frequencies_for(pseudo, target.documents())
    pairs = list(pseudo_pairs(target.documents(), pseudo, config.seed, frequencies=counted))
    fitting, held = split_pairs(pairs, config)
    taken = {pair.doc_id for pair in fitting} if pseudo in ("span", "mixed") else set()
    unseen = (doc for doc in target.documents() if doc.doc_id not in taken)
    return fitting, [held, check_spans(unseen, config)]


def fit_mixture(
    encoder: SentenceTransformer,
    bank: Mapping[str, StoredPrompt],
    fitting: Sequence[TrainingPair],
    config: FitConfig,
    *,
    quiet: bool = False,
) -> Fit:
    """Weights of a bank's prompts, which the encoder carries, fitted from the uniform mixture."""
    document = shared_document_source(bank)
    query_only = all(stored.prompt.spec.sides == "query" for stored in bank.values())
    fixed = document if document is not None or query_only else "mixed"
    return fit_weights(encoder, uniform_weights(bank), fitting, config, document=fixed, quiet=quiet)


def compare(
    encoder: SentenceTransformer,
    routes: Mapping[str, Route],
    checks: Sequence[Sequence[TrainingPair]],
    config: FitConfig,
) -> dict[str, dict[str, float]]:
    """nDCG@10 by route and pseudo-query, each against the documents of its own kind of pseudo-queries.

    Documents are embedded once for all routes that encode them alike.
    """
    scores: dict[str, dict[str, float]] = {name: {} for name in routes}
    for number, check in enumerate(checks):
        embedded: dict[str, Array] = {}
        for name, route in routes.items():
            key = document_key(encoder, route)
            if key not in embedded:
                embedded[key] = embed_pair_documents(encoder, route, check, config)
            values = pseudo_scores(encoder, route, check, config, documents=embedded[key])
            scores[name] |= {f"{number}:{query_id}": value for query_id, value in values.items()}
    return scores
