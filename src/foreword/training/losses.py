"""The loss of query-side training: each query against every document of its domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn


@dataclass(frozen=True)
class CorpusPairs:
    """Training pairs of one domain against its fixed document vectors.

    Attributes:
        vectors: (N, d'), float32.
        positives: for each pair, the rows of all documents relevant to its query; the pair's own comes first.
    """

    vectors: Tensor
    positives: Sequence[Sequence[int]]


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
        queries = self.model(next(iter(sentence_features)))["sentence_embedding"].float()
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
