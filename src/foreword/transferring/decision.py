"""What is asked of a transfer, and what was decided for a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from foreword.common.errors import ForewordError
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Route, Routes, Weight, plain_weight
from foreword.transferring.adapt import AdaptConfig
from foreword.transferring.fit import FitConfig
from foreword.transferring.reach import Reach
from foreword.transferring.similarity import Method

Combination = Literal["auto", "adapted", "fitted", "uniform", "similarity", "best-single", "average"]


@dataclass(frozen=True)
class TransferConfig:
    """How sources are combined for a target.

    Attributes:
        method: `adapted`, the bank's multitask prompt, trained half-way on the target's pseudo-queries (see
            `foreword.transferring.adapt`); `fitted`, a mixture with weights fitted on them; `uniform`; `similarity`,
            softmax over the similarity of documents; `best-single`, the source that is best on pseudo-queries;
            `average`, the mean of the parameters (one start only), weighted by similarity; `auto`: adapted where the
            bank has a prompt of several domains for both sides, else fitted.
        similarity: see `foreword.transferring.similarity.similarity`.
        top_k: sources that `similarity` and `average` weigh.
        temperature: of their softmax.
        sample: documents of each domain that similarity looks at.
        pseudo: how pseudo-queries are made, see `foreword.collections.pseudo`.
        fit: how weights are fitted and candidates compared.
        adapt: how a prompt is adapted; its `pseudo` holds, not this one's.
        reach: a target that lies out of the bank's reach (see `foreword.transferring.reach`) is advised against,
            where documents of the sources are known; None: for `adapted` and `fitted`, since the others are controls.
    """

    method: Combination = "auto"
    similarity: Method = "mean"
    top_k: int = 5
    temperature: float = 0.1
    sample: int = 500
    pseudo: str = "auto"
    fit: FitConfig = field(default_factory=FitConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    reach: bool | None = None

    @property
    def checks_reach(self) -> bool:
        """Whether the target's reach is looked at."""
        return self.method in ("auto", "adapted", "fitted") if self.reach is None else self.reach

    def __post_init__(self) -> None:
        if self.method not in get_args(Combination):
            raise ForewordError(f"method is {self.method!r}; expected one of {', '.join(get_args(Combination))}")
        if self.top_k < 1 or self.sample < 1 or not self.temperature > 0:
            raise ForewordError(
                f"top_k {self.top_k}, sample {self.sample}, temperature {self.temperature}: expected at least 1, at "
                "least 1 and above 0"
            )


@dataclass(frozen=True)
class Transfer:
    """What was decided for a target.

    Attributes:
        target: its id.
        method: how the sources were combined.
        weights: of the sources; empty: the base model, no prompt.
        advice: `transfer`, or `don't transfer`.
        reason: in a sentence.
        similarities: source -> similarity to the target, where it was looked at.
        pseudo: candidate -> mean nDCG@10 on held-out pseudo-queries, where it was looked at.
        document: the one source that encodes documents; None: the mixture does (or the base model, for sources
            that have no document side).
        prompt: for `adapted` and `average`, what was made.
        reach: how near the target is to the bank; None: not looked at, or no source's documents are known.
        seconds: it took.
    """

    target: str
    method: str
    weights: Mapping[str, Weight]
    advice: str
    reason: str
    similarities: Mapping[str, float] = field(default_factory=dict)
    pseudo: Mapping[str, float] = field(default_factory=dict)
    document: str | None = None
    prompt: Prompt | None = None
    reach: Reach | None = None
    seconds: float = 0.0

    @property
    def route(self) -> Route:
        """For an encoder that carries the sources under their names; None: the base model."""
        if self.prompt is not None:
            return made_name(self.target)
        return route_of(self.weights, self.document)

    def as_dict(self) -> dict[str, Any]:
        """The decision as JSON values."""
        return {
            "target": self.target,
            "method": self.method,
            "weights": {name: plain_weight(name, weight) for name, weight in self.weights.items()},
            "document": self.document,
            "advice": self.advice,
            "reason": self.reason,
            "similarities": {name: round(value, 6) for name, value in self.similarities.items()},
            "reach": None if self.reach is None else self.reach.as_dict(),
            "pseudo_nDCG@10": {name: round(value, 6) for name, value in self.pseudo.items()},
            "seconds": round(self.seconds, 2),
        }


def made_name(target: str) -> str:
    """The name under which an encoder carries the one prompt made for a target."""
    return f"made for {target}"


def route_of(weights: Mapping[str, Weight], document: str | None) -> Route:
    """The route of a mixture whose documents are encoded by `document` (None: by the mixture); None when empty."""
    if not weights:
        return None
    return weights if document is None else Routes(weights, document)
