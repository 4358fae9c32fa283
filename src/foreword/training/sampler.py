"""Which domain each step trains on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import torch
from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler

from foreword.common.errors import DataError
from foreword.training.processes import world_size


class DomainBatchSampler(MultiDatasetDefaultBatchSampler):
    """Draws a domain with weight `pairs ** (1 / temperature)`, then its next batch; a domain that ends begins anew.

    With several processes, the batches of one global step, one for each, are of one domain and together repeat no
    text, so that negatives gathered across devices are what one process with the joined batch would see.
    """

    temperature = 1.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for sampler in self.batch_samplers:
            sampler.batch_size *= world_size()  # a joined batch, divided below

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of indices into the concatenated domains."""
        generator = torch.Generator().manual_seed(self.seed + 7919 * self.epoch)
        tables: list[Any] = self.dataset.datasets
        sizes = torch.tensor([len(table) for table in tables], dtype=torch.double)
        offsets = [0, *accumulate(int(size) for size in sizes)]
        weights = sizes ** (1 / self.temperature)
        rounds = [0] * len(sizes)
        batches: list[Iterator[list[int]]] = [self._restart(i, rounds) for i in range(len(sizes))]
        for _ in range(0, len(self), world_size()):
            domain = int(torch.multinomial(weights, 1, generator=generator))
            batch = next(batches[domain], None)
            if batch is None:
                batches[domain] = self._restart(domain, rounds)
                batch = next(batches[domain])
            joined = [index + offsets[domain] for index in batch]
            yield from (joined[process :: world_size()] for process in range(world_size()))

    def _restart(self, domain: int, rounds: list[int]) -> Iterator[list[int]]:
        sampler: Any = self.batch_samplers[domain]
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(1000 * self.epoch + rounds[domain])
        rounds[domain] += 1
        # The domains share one generator, which another's restart would disturb halfway: take all batches now.
        batches = list(sampler)
        if not batches:
            raise DataError("too few different training pairs for one batch without repeated texts; lower batch_size")
        return iter(batches)

    def __len__(self) -> int:
        """Batches in an epoch, of all processes."""
        return world_size() * sum(len(sampler) for sampler in self.batch_samplers)


def domain_sampler(temperature: float) -> type[DomainBatchSampler]:
    """The sampler class for a temperature (the trainer builds the sampler itself, from a class)."""
    return type("DomainBatchSampler", (DomainBatchSampler,), {"temperature": temperature})
