"""Whether a prompt of other domains helps a domain without labels: it is compared with the base model on its text.

What helps near domains harms others. Queries of several kinds are made from documents; a prompt is taken when it finds
their documents better than the base model does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection, TrainingPair
from foreword.collections.pseudo import MIXED
from foreword.collections.supervision import sampled_pairs
from foreword.errors import NoGainError, TooLittleTextError
from foreword.evaluation.measures import bootstrap_interval
from foreword.files import rounded
from foreword.prompts.routes import Route
from foreword.transferring.config import ProofConfig
from foreword.transferring.fit import pseudo_scores

FEWEST = 10
"""Pseudo-queries of a kind that a comparison needs."""


def proof_pairs(target: Collection, config: ProofConfig) -> dict[str, list[TrainingPair]]:
    """Pseudo-queries of a target, by kind, where there are enough."""
    return sampled_pairs(target, MIXED, documents=config.documents, seed=config.seed, fewest=FEWEST)


def prove(
    encoder: SentenceTransformer,
    route: Route,
    checks: Mapping[str, Sequence[TrainingPair]],
    config: ProofConfig,
    *,
    surely: bool = False,
) -> dict[str, dict[str, float]]:
    """nDCG@10 of the base model and of a route by kind of pseudo-query, where the route is better.

    It is where the 95 % interval of the mean difference is above 0, documents drawn with all of their pseudo-queries;
    or where the mean over the kinds is above 0, and for none the interval of the difference is below 0.

    Args:
        encoder: which carries the route.
        route: what is compared with the base model.
        checks: pseudo-queries by kind, as `proof_pairs` makes them.
        config: lengths and seed.
        surely: ask for more, as where nothing else speaks for the route: the interval of the mean difference above 0,
            and that of no kind below.

    Raises:
        NoGainError: it is not.
        TooLittleTextError: there is nothing to compare on.
    """
    if not checks:
        raise TooLittleTextError(
            f"the text gives fewer than {FEWEST} pseudo-queries of each kind, too few to compare with the base model"
        )
    scores = {
        (kind, name): pseudo_scores(encoder, tried, pairs, config)
        for kind, pairs in checks.items()
        for name, tried in (("base", None), ("prompt", route))
    }
    means = {
        kind: {name: float(np.mean(list(scores[kind, name].values()))) for name in ("base", "prompt")}
        for kind in checks
    }
    gain = float(np.mean([mean["prompt"] - mean["base"] for mean in means.values()]))
    intervals = [bootstrap_interval(scores[kind, "prompt"], scores[kind, "base"], seed=config.seed) for kind in checks]
    low, high = bootstrap_interval(*_by_document(checks, scores), seed=config.seed)
    said = ", ".join(
        f"{mean['prompt']:.3f} with it and {mean['base']:.3f} without ({kind})" for kind, mean in means.items()
    )
    if gain <= 0 or ((surely or low <= 0) and any(high < 0 for _, high in intervals)):
        raise NoGainError(f"the prompt is no better than the base model: on pseudo-queries, nDCG@10 is {said}")
    if surely and low <= 0:
        raise NoGainError(
            f"the gain is not clear enough for a domain unlike the bank's: on pseudo-queries, nDCG@10 is {said}; the "
            f"95 % interval of the difference is {low:+.3f} to {high:+.3f}"
        )
    return {kind: rounded(mean) for kind, mean in means.items()}


def _by_document(
    checks: Mapping[str, Sequence[TrainingPair]], scores: Mapping[tuple[str, str], Mapping[str, float]]
) -> tuple[dict[str, float], dict[str, float]]:
    """The prompt's and the base model's means over each document's pseudo-queries, of whatever kind."""
    found: dict[str, dict[str, list[float]]] = {"prompt": {}, "base": {}}
    for name, own in found.items():
        for kind, pairs in checks.items():
            for pair in pairs:
                own.setdefault(pair.doc_id, []).append(scores[kind, name][pair.query_id])
    prompt, base = ({doc_id: float(np.mean(each)) for doc_id, each in own.items()} for own in found.values())
    return prompt, base
