"""The settings of one training. Importing this loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Lt

from foreword.errors import ForewordError
from foreword.prompts.spec import PromptSpec, Start, StoredType
from foreword.settings import Count, Natural, NotNegative, Positive, Precision, Settings, Tokens

Trained = Literal["both", "query"]
DocumentSide = Literal["base", "start"]


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """How a prompt is trained. The defaults suit short texts on two processor cores.

    Attributes:
        side: `both`, queries and documents are embedded at every step, negatives come from the batch;
            `query`, documents are embedded once and all of them are negatives.
        document_side: what embeds them once (`query`): `base`, the base model, so that an index it built goes on
            working; `start`, the prompt that training starts from, whose document side the result keeps.
        steps: optimizer steps.
        epochs: passes over the training pairs; above 0 it decides the steps.
        batch_size: queries in a step, on each device.
        learning_rate: at its peak. Prompts of kind `memory` want 2e-3 to 1e-2, others 1e-2 to 1e-1.
        schedule: of the learning rate after the warm-up, as transformers names it.
        warmup: share of the steps.
        temperature: what similarities are divided by in the softmax.
        hard_negatives: negatives of its own that each query brings, at most, when the data have them (`both`).
        gather_negatives: with several processes, every query has the documents of all of them as negatives (`both`).
        mini_batch_size: texts embedded at once; smaller than the batch: GradCache (Gao et al. 2021).
        corpus_negatives: documents scored at each step, a seeded sample when there are more (`query`).
        query_length: tokens a query is cut to in training.
        document_length: tokens a document is cut to in training, and when embedded once.
        domain_temperature: a domain of n pairs is drawn with weight n ** (1 / this); 1: by size.
        evaluate_every: steps between evaluations on the dev part, each with a checkpoint; 0: only at the end.
        patience: evaluations without a better dev score after which training stops; 0: never stops early.
        dev_queries: queries of each domain in an evaluation, a seeded sample when there are more; 0: no evaluation,
            the last step is kept.
        dev_documents: documents searched in an evaluation, always with the relevant ones.
        dev_folds: with few dev queries (below 60), all labels are cut into so many folds, each is held out once, and
            the step that is best on all of them is taken, on all labels; 0: never.
        dtype: the precision that the prompt is stored in, and evaluated in.
        precision: of the forward passes.
        log_every: steps between two records of the training loss; 0: about ten in a training.
        report_to: trackers that transformers' trainer reports to, e.g. `tensorboard`, with commas between; `none`.
        seed: of every random choice.
    """

    side: Trained = "query"
    document_side: DocumentSide = "base"
    steps: Count = 150
    epochs: NotNegative = 0.0
    batch_size: Count = 32
    learning_rate: Positive = 0.005
    schedule: str = "linear"
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.05
    temperature: Positive = 0.05
    hard_negatives: Natural = 1
    gather_negatives: bool = True
    mini_batch_size: Count = 64
    corpus_negatives: Count = 100_000
    query_length: Tokens = 64
    document_length: Tokens = 128
    domain_temperature: Positive = 2.0
    evaluate_every: Natural = 20
    patience: Natural = 0
    dev_queries: Natural = 200
    dev_documents: Count = 1000
    dev_folds: Natural = 5
    dtype: StoredType = "float16"
    precision: Precision = "auto"
    log_every: Natural = 0
    report_to: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        from transformers import SchedulerType
        from transformers.integrations.integration_utils import get_available_reporting_integrations

        if self.schedule not in (kinds := [kind.value for kind in SchedulerType]):
            raise ForewordError(f"schedule is {self.schedule!r}; expected one of {', '.join(kinds)}")
        installed = sorted(get_available_reporting_integrations())
        if unknown := set(self.report_to.split(",")) - {"none", "all", *installed}:
            raise ForewordError(
                f"report_to names {', '.join(sorted(unknown))}, which is not installed or not known to transformers; "
                f"here are: {', '.join(installed) or 'none'}"
            )

    @classmethod
    def default(cls, side: Trained = "query", *, several: bool = False, **changes: Any) -> Self:
        """The settings for a side that measured well on MiniLM, with `changes`.

        Args:
            side: what is trained.
            several: for one prompt on several collections.
            changes: other settings, by name.
        """
        return cls(side=side, **(cls.usual(side, several=several) | changes))

    @classmethod
    def few(cls, side: Trained = "both", **changes: Any) -> Self:
        """The settings for a few labels, up to some hundred, with `changes`."""
        values: dict[str, Any] = {"steps": 80, "evaluate_every": 20, "batch_size": 16, "dev_documents": 400}
        return cls.default(side, **(values | changes))

    @staticmethod
    def usual(side: Trained, *, several: bool = False) -> dict[str, Any]:
        """What `default` sets otherwise than the fields' own defaults."""
        if several:
            return {"steps": 180, "evaluate_every": 60, "learning_rate": 0.0025}
        return {"steps": 110, "evaluate_every": 55} if side == "both" else {"evaluate_every": 50}

    def with_steps(self, pairs: int, processes: int = 1) -> Self:
        """The steps that `epochs` asks for on so many training pairs and processes; unchanged without epochs."""
        if not self.epochs:
            return self
        return replace(self, steps=max(1, math.ceil(self.epochs * pairs / (self.batch_size * processes))))


@dataclass(frozen=True)
class StartConfig(Settings):
    """What a new prompt is and where it starts, when it does not start from another prompt."""

    spec: PromptSpec = field(default_factory=PromptSpec)
    start: Start = "words"
    seed: int = 0
