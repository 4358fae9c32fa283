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
        side: `both`: train for queries and documents, with negatives from the batch; `query`: for queries only,
            with documents embedded once and all of them as negatives.
        document_side: what embeds the documents with side `query`: `base`, the base model, so that its index stays
            valid; `start`, the prompt that training starts from, whose document side the result keeps.
        steps: optimizer steps.
        epochs: passes over the training pairs; if above 0, it replaces `steps`.
        batch_size: queries per step and device.
        learning_rate: peak learning rate; 2e-3 to 1e-2 suit kind `memory`, 1e-2 to 1e-1 the other kinds.
        schedule: learning rate schedule after the warm-up, as transformers names it.
        warmup: share of the steps in which the learning rate rises.
        temperature: temperature of the softmax over similarities.
        hard_negatives: maximum of hard negatives per query, if the data have any (side `both`).
        gather_negatives: with several processes, use the documents of all of them as negatives (side `both`).
        mini_batch_size: texts embedded at once; if smaller than the batch, GradCache (Gao et al. 2021) is used.
        corpus_negatives: documents scored at each step, a random sample if there are more (side `query`).
        query_length: maximum of tokens per query in training.
        document_length: maximum of tokens per document in training.
        domain_temperature: with several domains, one of n pairs is drawn with weight n ** (1 / this); 1: by size.
        evaluate_every: steps between evaluations on dev, each with a checkpoint; 0: only at the end.
        patience: stop after this many evaluations without a better dev score; 0: never.
        dev_queries: dev queries per domain, a random sample if there are more; 0: no evaluation, the last step is kept.
        dev_documents: documents searched on dev, always including the relevant ones.
        dev_folds: with fewer than 60 dev queries, choose the number of steps by cross-validation on this many folds of
            the labels, then train on all labels; 0: never.
        dtype: precision in which the prompt is stored and evaluated.
        precision: numerical precision of the forward passes.
        log_every: steps between two records of the training loss; 0: about ten records per training.
        report_to: experiment trackers, as transformers names them, separated by commas, e.g. `tensorboard`; or `none`.
        seed: random seed.
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
