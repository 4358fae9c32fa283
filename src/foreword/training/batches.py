"""Which pairs make a batch: tables of the domains, and the order in which batches are drawn from them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, count
from typing import Any

import torch
from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler
from torch.utils.data import ConcatDataset

from foreword.collections.collection import TrainingPair
from foreword.errors import DataError
from foreword.training.config import TrainingConfig
from foreword.training.trainee import world_size


def tables_of(data: Mapping[str, Sequence[TrainingPair]], config: TrainingConfig, *, with_documents: bool) -> Any:
    """A table a domain: `query`, `document` and its hard negatives; or `query` and `label`, a pair's number."""
    from datasets import Dataset, DatasetDict

    tables: dict[str, Any] = {}
    start = 0
    for domain, pairs in data.items():
        columns: dict[str, list[Any]] = {"query": [pair.query for pair in pairs]}
        if with_documents:
            columns["document"] = [pair.document for pair in pairs]
            for i, texts in enumerate(hard_negatives(pairs, config)):
                columns[f"negative_{i + 1}"] = texts
        else:
            columns["label"] = list(range(start, start + len(pairs)))
            start += len(pairs)
        if with_documents and len(pairs) < 2:
            raise DataError(f"{domain} has {len(pairs)} training pair; in-batch negatives need at least 2")
        tables[domain] = Dataset.from_dict(columns)
    return DatasetDict(tables)


def joined_tables(tables: Sequence[Any]) -> Any:
    """The tables of several trainings of one domain each, as those of one, with labels counted through them."""
    from datasets import DatasetDict

    joined: dict[str, Any] = {}
    start = 0
    for number, ((_, table),) in enumerate(one.items() for one in tables):
        kept = table.remove_columns("label") if "label" in table.column_names else table
        joined[str(number)] = kept.add_column("label", list(range(start, start + len(table))))
        start += len(table)
    return DatasetDict(joined)


def fills_batches(table: Any, config: TrainingConfig) -> bool:
    """Whether a batch can be full: it has no text twice."""
    return all(len(set(table[name])) >= config.batch_size for name in table.column_names)


def hard_negatives(pairs: Sequence[TrainingPair], config: TrainingConfig) -> list[list[str]]:
    """Columns of hard negatives: as many as at least half of the pairs have, up to `config.hard_negatives`.

    Tables have no gaps: a pair with fewer gets documents of other pairs, as random as its in-batch negatives.
    """
    counts = sorted((len(pair.negatives) for pair in pairs), reverse=True)
    width = min(config.hard_negatives, counts[(len(counts) - 1) // 2] if counts else 0)
    chance = random.Random(config.seed)
    positives: dict[str, set[str]] = {}
    for pair in pairs:
        positives.setdefault(pair.query_id, set()).add(pair.document)

    def filled(pair: TrainingPair) -> list[str]:
        chosen = list(pair.negatives[:width])
        while len(chosen) < width:
            other = pairs[chance.randrange(len(pairs))].document
            if other not in positives[pair.query_id] or len(positives) < 2:
                chosen.append(other)
        return chosen

    return [list(column) for column in zip(*map(filled, pairs), strict=True)] if width else []


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


class JoinedBatchSampler(MultiDatasetDefaultBatchSampler):
    """The next batches of all domains as one, each drawn as when its domain is trained alone."""

    config: TrainingConfig
    learning: Callable[[], Sequence[int]]
    """The numbers of the domains that still learn; others have no rows."""

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of indices into the concatenated domains."""
        tables: list[Any] = self.dataset.datasets
        offsets = [0, *accumulate(len(table) for table in tables)]
        streams = [self._alone(number) for number in range(len(self.batch_samplers))]
        for _ in range(len(self)):
            yield [index + offsets[number] for number in self.learning() for index in next(streams[number])]

    def _alone(self, number: int) -> Iterator[list[int]]:
        table, inner = self.dataset.datasets[number], self.batch_samplers[number]
        inner.drop_last = fills_batches(table, self.config)
        sampler = domain_sampler(1.0)(ConcatDataset([table]), [inner], self.generator, self.seed)
        for epoch in count():
            sampler.set_epoch(epoch)
            yield from sampler

    def __len__(self) -> int:
        """Batches of the whole training: there is one epoch."""
        return self.config.steps


def joined_sampler(config: TrainingConfig, learning: Callable[[], Sequence[int]]) -> type[JoinedBatchSampler]:
    """The sampler class of a joined training (the trainer builds the sampler itself, from a class)."""
    return type("JoinedBatchSampler", (JoinedBatchSampler,), {"config": config, "learning": staticmethod(learning)})
