"""The settings of a recipe's step: everything that its prompts follow from, besides the data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from foreword.common.errors import ForewordError
from foreword.prompts.spec import PromptSpec

if TYPE_CHECKING:
    from foreword.training.config import StartConfig, TrainingConfig
    from foreword.transferring.decision import TransferConfig

MULTITASK = "multitask"
"""The name of the prompt that is trained on several collections, and what `start_from` calls it."""

_STARTS = ("words", "noise", "first-ids")


@dataclass(frozen=True)
class Values:
    """How prompts are trained, by several collections at once or one for each.

    Attributes:
        backbone: as `foreword.load_encoder` takes it.
        pooling: of the token embeddings.
        normalize: embeddings of unit length, compared by the cosine; else inner products.
        kind: of the prompt, see `PromptSpec`.
        length: vectors (in each layer, for `gated` and `prefix`).
        sides: `shared`, `untied` or `query`.
        start: where a new prompt's values come from, see `foreword.prompts.start.new_prompt`.
        learning_rate: at its peak.
        schedule: after the warm-up.
        warmup: share of the steps.
        batch_size: queries in a step, on each device.
        temperature: what similarities are divided by in the softmax.
        hard_negatives: that each query brings, at most.
        query_length: tokens a query is cut to in training.
        document_length: tokens a document is cut to in training.
        precision: of the forward passes.
        seed: of every random choice.
        epochs: passes over the training pairs; 0: `steps` decides.
        steps: optimizer steps, where `epochs` is 0.
        placement: of `input` prompts: `before` the first token or `after-cls`; empty for other kinds.
        start_from: `multitask`: the prompt of the recipe before; empty: a new prompt.
        domain_temperature: a domain of n pairs is drawn with weight n ** (1 / this); 1: by size.
        gather_negatives: with several processes, negatives come from all of them.
        mini_batch_size: texts embedded at once (GradCache below the batch size).
        evaluate_every: steps between looks at the dev part.
        dev_queries: of each domain, at such a look.
        dev_documents: of each domain, beside the relevant ones.
        dev_share: of the training queries of a domain without a dev split, held out as one.
        dtype: the precision that prompts are stored in.
    """

    backbone: str
    pooling: str
    normalize: bool
    kind: str
    length: int
    sides: str
    start: str
    learning_rate: float
    schedule: str
    warmup: float
    batch_size: int
    temperature: float
    hard_negatives: int
    query_length: int
    document_length: int
    precision: str
    seed: int
    epochs: float = 0.0
    steps: int = 1
    placement: str = ""
    start_from: str = ""
    domain_temperature: float = 1.0
    gather_negatives: bool = False
    mini_batch_size: int = 64
    evaluate_every: int = 1000
    dev_queries: int = 200
    dev_documents: int = 1000
    dev_share: float = 0.1
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.start not in _STARTS:
            raise ForewordError(f"start is {self.start!r}; expected one of {', '.join(_STARTS)}")
        if self.start_from not in ("", MULTITASK):
            raise ForewordError(f"start_from is {self.start_from!r}; expected {MULTITASK!r} or nothing")
        _at_least(self, 1, "steps", "batch_size", "mini_batch_size", "dev_queries", "dev_documents")
        _at_least(self, 0, "epochs", "warmup", "hard_negatives", "evaluate_every")
        _at_least(self, 3, "query_length", "document_length")
        for name in ("learning_rate", "temperature", "domain_temperature"):
            if not getattr(self, name) > 0:
                raise ForewordError(f"{name} is {getattr(self, name)}; it is above 0")
        if not 0 < self.dev_share < 1:
            raise ForewordError(f"dev_share is {self.dev_share}; it is a share, above 0 and below 1")
        _ = self.spec

    @property
    def spec(self) -> PromptSpec:
        """The prompt's structure. Raises `PromptError` naming the setting that is wrong."""
        placement: Any = self.placement or None
        kind: Any = self.kind
        sides: Any = self.sides
        return PromptSpec(kind, self.length, None, sides, placement)

    @property
    def head(self) -> tuple[str, str, bool]:
        """What an encoder is loaded by: backbone, pooling, normalize."""
        return self.backbone, self.pooling, self.normalize

    def training(self) -> TrainingConfig:
        """The settings as `foreword.training` takes them."""
        from foreword.training.config import TrainingConfig

        precision: Any = self.precision
        return TrainingConfig(
            side="both",
            steps=self.steps,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            warmup=self.warmup,
            temperature=self.temperature,
            hard_negatives=self.hard_negatives,
            gather_negatives=self.gather_negatives,
            mini_batch_size=self.mini_batch_size,
            query_length=self.query_length,
            document_length=self.document_length,
            domain_temperature=self.domain_temperature,
            evaluate_every=self.evaluate_every,
            dev_queries=self.dev_queries,
            dev_documents=self.dev_documents,
            dtype=self.dtype,
            precision=precision,
            seed=self.seed,
        )

    def beginning(self) -> StartConfig:
        """A new prompt's structure and start."""
        from foreword.training.config import StartConfig

        start: Any = self.start
        return StartConfig(self.spec, start, self.seed)

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class TransferValues:
    """How the prompts of other domains are combined for one.

    Attributes:
        method: `average`: the weighted mean of their parameters.
        similarity: see `foreword.transferring.similarity.similarity`.
        top_k: sources that are weighed.
        temperature: of the softmax over their similarities.
        sample: documents of each domain that similarity looks at.
        features: the backbone that embeds them.
        feature_length: tokens they are cut to.
        precision: of these forward passes.
    """

    method: str
    similarity: str
    top_k: int
    temperature: float
    sample: int
    features: str
    feature_length: int
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.method != "average":
            raise ForewordError(f"method is {self.method!r}; a recipe's is 'average', of parameters with one start")
        if self.similarity not in ("mean", "pairwise"):
            raise ForewordError(f"similarity is {self.similarity!r}; expected mean or pairwise")
        _at_least(self, 1, "top_k", "sample")
        _at_least(self, 3, "feature_length")
        if not self.temperature > 0:
            raise ForewordError(f"temperature is {self.temperature}; it is above 0")

    def config(self) -> TransferConfig:
        """The settings as `foreword.transferring` takes them."""
        from foreword.transferring.decision import TransferConfig

        method: Any = self.method
        similarity: Any = self.similarity
        return TransferConfig(method, similarity, self.top_k, self.temperature, self.sample)

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)


def _at_least(record: Any, least: int, *names: str) -> None:
    for name in names:
        if getattr(record, name) < least:
            raise ForewordError(f"{name} is {getattr(record, name)}; it is at least {least}")
