"""The settings of transfer, of its parts, and of advice. Importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from foreword.prompts.spec import StoredType
from foreword.settings import (
    DOCUMENT,
    Count,
    Natural,
    NotNegative,
    Positive,
    Precision,
    PseudoQueries,
    Settings,
    Share,
    Side,
    Tokens,
)

Combination = Literal["auto", "multitask", "fitted", "uniform", "similarity", "best-single", "average"]
Similarity = Literal["mean", "pairwise"]


@dataclass(frozen=True)
class EmbeddingSettings(Settings):
    """How texts are embedded for a purpose of their own.

    Attributes:
        query_length: tokens a query is cut to.
        document_length: tokens a document is cut to.
        precision: of the forward passes.
        seed: of every random choice.
    """

    query_length: Tokens = 64
    document_length: Tokens = 128
    precision: Precision = "auto"
    seed: int = 0

    def length(self, side: Side) -> int:
        """Tokens a text of this side is cut to."""
        return self.query_length if side == "query" else self.document_length


@dataclass(frozen=True)
class FitConfig(EmbeddingSettings):
    """How mixture weights are fitted.

    Attributes:
        steps: optimizer steps; 0: the weights stay where they start.
        batch_size: pseudo-queries in a step; the others' documents are the negatives.
        learning_rate: of the weights (Adam).
        anchor: penalty on the squared distance of the weights from where they start (the uniform mixture). Pseudo-
            queries are not queries: without it, a few hundred of them pull the weights too far.
        shrinkage: penalty on the squared weights, which pulls towards the base model.
        by_layer: a weight for each source and layer instead of one for each source; penalties are then means over
            layers.
        temperature: of the softmax.
        held_out: share of the pseudo-queries kept for choosing between candidates.
        most: pseudo-queries used at most.
        spans: random spans of documents that join the held-out pseudo-queries in choosing, at most: a second kind,
            which the weights were not fitted on, tells near domains from far ones better than the first alone.
    """

    steps: Natural = 30
    batch_size: Count = 32
    learning_rate: Positive = 0.05
    anchor: NotNegative = 0.3
    shrinkage: NotNegative = 0.0
    by_layer: bool = False
    temperature: Positive = 0.05
    held_out: Share = 0.3
    most: Natural = 1000
    spans: Natural = 400


@dataclass(frozen=True)
class ProofConfig(EmbeddingSettings):
    """How a prompt is compared with the base model before it is taken for a domain without labels.

    Attributes:
        documents: of the target that pseudo-queries are made of, at most.
    """

    documents: Count = 400


@dataclass(frozen=True)
class DistilConfig(EmbeddingSettings):
    """How a mixture is distilled into one prompt.

    Attributes:
        steps: optimizer steps.
        batch_size: texts in a step; where documents are learnt too, half of them are documents.
        learning_rate: at its peak (Adam).
        warmup: share of the steps in which the rate rises; it falls linearly to 0 in the others.
        most: documents learnt on and held out, at most; of more, a seeded sample.
        held_out: share of them on which the student is compared with its teacher.
        evaluate_every: steps between these comparisons, the best of which is kept; 0: only at the start and the end.
        dtype: the precision that the prompt is stored in; None: that of the source whose document part it keeps, so
            that it keeps it exactly, or else float16.
    """

    steps: Count = 200
    batch_size: Annotated[int, Ge(2)] = 32
    learning_rate: Positive = 0.01
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.1
    most: Annotated[int, Ge(2)] = 2000
    held_out: Annotated[float, Gt(0), Lt(1)] = 0.2
    evaluate_every: Natural = 50
    dtype: StoredType | None = None


@dataclass(frozen=True)
class FeatureSettings(Settings):
    """What document features depend on, besides the encoder.

    Attributes:
        sample: documents of a domain, at most; see `foreword.transferring.reach.document_features`.
        seed: of the sample.
        max_length: tokens a document is cut to.
        document_template: what is embedded of a document.
    """

    sample: Count = 400
    seed: int = 0
    max_length: Tokens = 128
    document_template: str = DOCUMENT

    def sampling(self, precision: Precision) -> dict[str, Any]:
        """The documents that are embedded and how, as `foreword.transferring.reach.document_features` takes it."""
        return {"limit": self.sample, "seed": self.seed, "max_length": self.max_length, "precision": precision}


@dataclass(frozen=True)
class TransferConfig(Settings):
    """How sources are combined for a target.

    Attributes:
        method: `multitask`, the bank's prompt of several domains as it is; `fitted`, a mixture with weights fitted on
            pseudo-queries; `uniform`; `similarity`, softmax over the similarity of documents; `best-single`, the
            source that is best on pseudo-queries; `average`, the mean of the parameters (one start only), weighted
            by similarity; `auto`: multitask where the bank has a prompt of several domains for both sides, else
            fitted.
        similarity: see `foreword.transferring.reach.similarity`.
        top_k: sources that `similarity` and `average` weigh.
        temperature: of their softmax.
        sample: documents of each domain that similarity looks at.
        pseudo: how pseudo-queries are made, see `foreword.collections.pseudo`.
        fit: how weights are fitted and candidates compared.
        proof: how the multitask prompt is compared with the base model.
        reach: whether the bank's reach (see `foreword.transferring.reach`) is looked at. Out of it, or where no
            source's documents are known, the multitask prompt has to be surely better on pseudo-queries, and other
            methods give the base model where they know; None: for `multitask` and `fitted`, since the others are
            controls.
    """

    method: Combination = "auto"
    similarity: Similarity = "mean"
    top_k: Count = 5
    temperature: Positive = 0.1
    sample: Count = 500
    pseudo: PseudoQueries = "auto"
    fit: FitConfig = field(default_factory=FitConfig)
    proof: ProofConfig = field(default_factory=ProofConfig)
    reach: bool | None = None

    @property
    def checks_reach(self) -> bool:
        """Whether the target's reach is looked at."""
        return self.method in ("auto", "multitask", "fitted") if self.reach is None else self.reach


@dataclass(frozen=True)
class AdviceConfig(Settings):
    """How much is looked at.

    Attributes:
        documents: of the target, at most; a seeded sample of more.
        queries: labelled queries, at most.
        prompts: of the bank that are tried alone, at most: those whose own documents are nearest to the target's.
        labels: split whose labels are looked at: `dev` or `train`; `none`; None: dev, else train. Never test.
        pseudo: how pseudo-queries are made, see `foreword.collections.pseudo`.
        seconds: to stay within, by looking at less, as the machine's speed allows; None: whatever it takes. Under
            a budget, equal runs may look at different samples.
        seed: of the samples.
        fit: how a mixture is fitted and candidates compared.
    """

    documents: Count = 2000
    queries: Count = 200
    prompts: Count = 4
    labels: str | None = None
    pseudo: PseudoQueries = "auto"
    seconds: Positive | None = None
    seed: int = 0
    fit: FitConfig = field(default_factory=FitConfig)
