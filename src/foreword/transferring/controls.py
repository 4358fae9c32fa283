"""Controls that any choice or weighing of sources has to beat, and a bound that it cannot.

Uniform weights are in `foreword.transferring.combine`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from foreword.common.errors import ForewordError


def random_weights(sources: Iterable[str], seed: int) -> dict[str, float]:
    """Weights drawn from Dirichlet(1, ..., 1), every mixture being as likely; they add up to 1.

    Args:
        sources: names; their order does not matter, each is drawn for in order of the names.
        seed: of the draw.

    Raises:
        ForewordError: no sources.
    """
    names = sorted(set(sources))
    if not names:
        raise ForewordError("no sources to weigh; give the name of one at least")
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(names)))
    return {name: float(share) for name, share in zip(names, shares, strict=True)}


def oracle_single(scores: Mapping[str, float]) -> str:
    """The source with the highest score; of equal ones the first by name.

    With scores on the target's judgements it looks at the labels that are to be predicted: no method, but a bound
    on what choosing one source can reach.

    Raises:
        ForewordError: no scores, or one that is not finite.
    """
    bad = [name for name, score in scores.items() if not math.isfinite(score)]
    if bad or not scores:
        raise ForewordError(f"{len(scores)} scores, not finite: {', '.join(bad) or 'none'}; expected one at least")
    return min(scores, key=lambda name: (-scores[name], name))
