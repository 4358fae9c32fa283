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
        query_length: maximum of tokens per query.
        document_length: maximum of tokens per document.
        precision: numerical precision of the forward passes.
        seed: random seed.
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
        method: `multitask`: the bank's prompt that was trained on several domains; `fitted`: a mixture, its weights
            fitted on pseudo-queries; `uniform`: a mixture of equal weights; `similarity`: a mixture, its weights a
            softmax over the similarity of documents; `best-single`: the prompt that is best on pseudo-queries;
            `average`: the mean of the parameters of prompts with the same start, weighted by similarity; `auto`:
            multitask if the bank has such a prompt for both sides, else fitted.
        similarity: of domains: `mean`, cosine of the mean embeddings; `pairwise`, mean cosine of pairs.
        top_k: number of most similar sources that `similarity` and `average` use.
        temperature: of the softmax of `similarity` and `average`.
        sample: documents per domain for similarity.
        pseudo: method for pseudo-queries, see `foreword.collections.pseudo`.
        fit: how weights are fitted and candidates compared.
        proof: how the multitask prompt is compared with the base model.
        reach: whether to check that the target is similar to some source (see `foreword.transferring.reach`). If it
            is not, or if no source's documents are known, the multitask prompt must be significantly better on
            pseudo-queries, and other methods return the base model. None: yes for `multitask` and `fitted` only.
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
        documents: maximum of target documents, a random sample if there are more.
        queries: maximum of labelled queries.
        prompts: maximum of the bank's prompts tried alone: those whose documents are most similar.
        labels: split whose labels are used: `dev`, `train` or `none`; None: dev, else train. Never test.
        pseudo: method for pseudo-queries, see `foreword.collections.pseudo`.
        seconds: time limit, kept by using smaller samples, so equal runs may use different ones; None: no limit.
        seed: random seed of the samples.
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
