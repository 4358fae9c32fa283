"""What is made smaller: the losses of trainings with negatives from the batch, or with all documents as negatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import cos_sim, dot_score
from torch import Tensor, nn

from foreword.collections.collection import TrainingPair
from foreword.errors import DataError
from foreword.training.config import TrainingConfig
from foreword.training.trainee import world_size
from foreword.training.vectors import DocumentVectors


def loss_of(encoder: SentenceTransformer, corpus: Mapping[str, CorpusPairs] | None, config: TrainingConfig) -> Any:
    """The loss of one training: over its documents, `corpus`, or over those of the batch."""
    cosine = encoder.similarity_fn_name == "cosine"
    if corpus is not None:
        return CorpusContrastiveLoss(
            encoder,
            corpus,
            temperature=config.temperature,
            cosine=cosine,
            limit=config.corpus_negatives,
            seed=config.seed,
        )
    arguments: dict[str, Any] = {
        "scale": 1 / config.temperature,
        "similarity_fct": cos_sim if cosine else dot_score,
        "gather_across_devices": config.gather_negatives and world_size() > 1,
    }
    if config.mini_batch_size < config.batch_size:  # the same gradient in bounded memory, for one more forward pass
        return CachedMultipleNegativesRankingLoss(encoder, mini_batch_size=config.mini_batch_size, **arguments)
    return MultipleNegativesRankingLoss(encoder, **arguments)


@dataclass(frozen=True)
class CorpusPairs:
    """Training pairs of one domain against its fixed document vectors.

    Attributes:
        vectors: (N, d'), float32.
        positives: for each pair, the rows of all documents relevant to its query; the pair's own comes first.
    """

    vectors: Tensor
    positives: Sequence[Sequence[int]]


def corpus_pairs(name: str, pairs: Sequence[TrainingPair], vectors: DocumentVectors) -> CorpusPairs:
    """Each pair with the rows of all documents relevant to its query, its own first.

    Raises:
        DataError: a pair's document has no vector.
    """
    rows = {doc_id: row for row, doc_id in enumerate(vectors.doc_ids)}
    relevant: dict[str, list[int]] = {}
    for pair in pairs:
        if pair.doc_id not in rows:
            raise DataError(
                f"{name}: training pair {pair.query_id} names document {pair.doc_id!r}, which has no vector"
            )
        relevant.setdefault(pair.query_id, []).append(rows[pair.doc_id])
    positives = [[rows[p.doc_id], *(row for row in relevant[p.query_id] if row != rows[p.doc_id])] for p in pairs]
    return CorpusPairs(torch.as_tensor(vectors.vectors, dtype=torch.float32), positives)


class CorpusContrastiveLoss(nn.Module):
    """`-log softmax(sim(q, d+) / t)` over the documents of the query's domain (InfoNCE, van den Oord et al. 2018).

    Other relevant documents of a query are left out of its softmax. With more than `limit` documents, each step
    scores the relevant ones of the batch and a seeded sample of the rest.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        pairs: Mapping[str, CorpusPairs],
        *,
        temperature: float,
        cosine: bool,
        limit: int,
        seed: int,
    ) -> None:
        """`pairs` by domain; a label is a pair's index, counted through the domains in their order."""
        super().__init__()
        self.model = model
        self.temperature, self.cosine, self.limit, self.seed = temperature, cosine, limit, seed
        self.pairs = list(pairs.values())
        counts = torch.tensor([len(domain.positives) for domain in self.pairs])
        self.starts = torch.cumsum(counts, 0) - counts
        self.vectors = [nn.functional.normalize(p.vectors, dim=1) if cosine else p.vectors for p in self.pairs]

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """The mean loss of a batch; all its pairs are of one domain."""
        queries = self.model(next(iter(sentence_features)))["sentence_embedding"]
        return self.compute_loss_from_embeddings([queries], labels)

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The same of queries that are embedded, (B, d'), the only column."""
        queries = embeddings[0].float()
        queries = nn.functional.normalize(queries, dim=1) if self.cosine else queries
        domain = int(torch.searchsorted(self.starts, labels[0].cpu(), right=True)) - 1
        rows = [self.pairs[domain].positives[int(label) - int(self.starts[domain])] for label in labels]
        candidates, targets, hidden = self._candidates(domain, rows, int(labels.sum()))
        vectors = self.vectors[domain]
        vectors = (vectors if candidates is None else vectors[candidates]).to(queries.device)
        scores = queries @ vectors.T / self.temperature
        scores = scores.masked_fill(hidden.to(scores.device), float("-inf"))
        return nn.functional.cross_entropy(scores, targets.to(scores.device))

    def _candidates(
        self, domain: int, rows: Sequence[Sequence[int]], step: int
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Which documents are scored (None: all), each query's target among them, and what each does not see."""
        total = self.vectors[domain].shape[0]
        candidates: Tensor | None = None
        place = {row: row for relevant in rows for row in relevant}
        if total > self.limit:
            needed = sorted(place)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            drawn = torch.randint(total, (self.limit,), generator=generator).tolist()
            chosen = needed + sorted(set(drawn) - set(needed))
            candidates = torch.tensor(chosen)
            place = {row: i for i, row in enumerate(chosen[: len(needed)])}
            total = len(chosen)
        targets = torch.tensor([place[relevant[0]] for relevant in rows])
        hidden = torch.zeros(len(rows), total, dtype=torch.bool)
        for i, relevant in enumerate(rows):
            hidden[i, [place[row] for row in relevant[1:]]] = True
        return candidates, targets, hidden

    def get_config_dict(self) -> dict[str, Any]:
        """What sentence-transformers shows of a loss."""
        return {"temperature": self.temperature, "cosine": self.cosine, "limit": self.limit}


class JoinedLoss(nn.Module):
    """The losses of several prompts that are trained in one pass, each on its own rows of a joined batch.

    All rows of a column go through the backbone together, each with its own prompt, sorted by length: of several
    batches more texts have about one length than of one, and less is spent on padding.
    """

    starts: Tensor
    prompts: Tensor

    def __init__(
        self,
        model: SentenceTransformer,
        losses: Sequence[nn.Module],
        *,
        pairs: Sequence[int],
        prompts: Sequence[int],
        learning: Callable[[], Sequence[int]],
        rows: int,
    ) -> None:
        """What is joined.

        Args:
            model: carries the prompts.
            losses: of each prompt.
            pairs: how many each has; a label is a pair's index, counted through the prompts in their order.
            prompts: their places among those that the model carries.
            learning: the numbers of those that still learn; rows of others are left out.
            rows: embedded at once; 0: all.
        """
        super().__init__()
        self.model, self.losses, self.learning, self.rows = model, nn.ModuleList(losses), learning, rows
        counts = torch.tensor(pairs)
        self.register_buffer("starts", torch.cumsum(counts, 0) - counts, persistent=False)
        self.register_buffer("prompts", torch.tensor(prompts), persistent=False)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        """The loss of each prompt that still learns, by `loss_name`; their sum is what is made smaller."""
        owners = torch.searchsorted(self.starts, labels, right=True) - 1
        learning = self.learning()
        rows = torch.isin(owners, torch.tensor(learning, device=owners.device)).nonzero().flatten()
        owners, labels = owners[rows], (labels - self.starts[owners])[rows]
        columns = [self._embed(features, rows, self.prompts[owners]) for features in sentence_features]
        found: dict[str, Tensor] = {}
        for number in learning:
            loss: Any = self.losses[number]
            own = owners == number
            found[loss_name(number)] = loss.compute_loss_from_embeddings([c[own] for c in columns], labels[own])
        return found

    def _embed(self, features: Mapping[str, Any], rows: Tensor, prompts: Tensor) -> Tensor:
        """Embeddings (B, d') of those rows of a tokenized column, each with its own of `prompts`."""
        mask = features["attention_mask"][rows].bool()
        order = torch.argsort(mask.sum(dim=1), descending=True, stable=True)
        parts = []
        for chosen in order.split(self.rows or len(order)):
            inside = mask[chosen].any(dim=0)
            some = {
                name: value[rows[chosen]][:, inside] if isinstance(value, Tensor) else value
                for name, value in features.items()
            }
            parts.append(self.model(some | {"prompt_rows": prompts[chosen]})["sentence_embedding"])
        return torch.cat(parts)[torch.argsort(order)]

    def get_config_dict(self) -> dict[str, Any]:
        """What sentence-transformers shows of a loss."""
        return {"prompts": len(self.losses)}


def loss_name(number: int) -> str:
    """Under which the trainer records the loss of one of several prompts."""
    return f"loss {number}"
