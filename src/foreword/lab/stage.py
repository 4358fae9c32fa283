"""The state of a benchmark of transfer: its targets and sources, the vectors it keeps, its cells, and the prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection, TrainingPair
from foreword.collections.views import ExcludingCollection, Texts
from foreword.errors import ForewordError
from foreword.evaluation.candidates import document_key
from foreword.files import atomic_write, json_digest
from foreword.lab.experiment import Benchmark
from foreword.lab.records import Plan
from foreword.prompts.encoder import resolve_precision, state_digest
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, folder_name
from foreword.retrieval.runs import Run
from foreword.settings import DEFAULT_BACKBONE
from foreword.training.config import StartConfig, Trained, TrainingConfig
from foreword.training.vectors import DocumentVectors
from foreword.transferring.reach import Array, Reach, document_features, reach_of

FEATURES = 400
"""Documents of each domain that tell how near domains are."""


class Stage(Benchmark):
    """The state of one benchmark.

    Test queries and their judgements are read in `cell` alone, and in parts that say that they are bounds; a target's
    labels are read by systems whose cells say how many.
    """

    def __init__(
        self, plan: Plan, output: Path, *, data: Path | None = None, backbone: str | None = None, quiet: bool = False
    ) -> None:
        super().__init__(output, data=data, quiet=quiet)
        self.plan, self.query_length, self.document_length = plan, plan.query_length, plan.document_length
        self.genres = plan.targets
        self.encoder = self.loaded(backbone or DEFAULT_BACKBONE)
        self.precision = resolve_precision("auto", self.encoder.device)
        self.missing: dict[str, str] = {}
        self._features: dict[str, Array] = {}
        self._sources: dict[str, Collection] = {}
        self._texts: dict[str, Texts] = {}
        self._vectors: dict[tuple[str, str], DocumentVectors] = {}
        self._digests: dict[str, str] = {}

    # -- collections -------------------------------------------------------------------------------------------

    def here(self, genre: str | None = None) -> list[str]:
        """The targets, of one genre or all, whose files are on this machine; why others are not is in `missing`."""
        present = []
        for name, kind in self.plan.targets.items():
            if (genre is not None and kind != genre) or name in self.missing:
                continue
            try:
                self.collection(name)
            except ForewordError as error:
                self.missing[name] = str(error)
                self.say(f"{name} is left out: {error}")
            else:
                present.append(name)
        return present

    def source(self, name: str) -> Collection:
        """A domain without the texts that any other domain has, so that it can serve all of them as a source."""
        if name not in self._sources:
            for other in self.plan.domains:
                if other != name and other not in self._texts:
                    self._texts[other] = Texts.of([self.collection(other)])
            others = [self._texts[other] for other in self.plan.domains if other != name]
            texts = Texts(
                frozenset().union(*(each.queries for each in others)),
                frozenset().union(*(each.documents for each in others)),
            )
            self._sources[name] = ExcludingCollection(self.collection(name), texts)
        return self._sources[name]

    def features(self, name: str) -> Array:
        """Base embeddings of a sample of a domain's documents, made once."""
        if name not in self._features:
            how: dict[str, Any] = {"precision": self.precision, "max_length": self.plan.document_length, "quiet": True}
            found = document_features(self.encoder, self.collection(name), limit=FEATURES, **how)
            self._features[name] = found
        return self._features[name]

    def reach(self, target: str) -> Reach:
        """Whether a target is within the reach of its fold's sources."""
        sources = self.plan.sources(self.plan.fold_of(target))
        return reach_of(self.features(target), {name: self.features(name) for name in sources})

    # -- searching ---------------------------------------------------------------------------------------------

    def documents(
        self, name: str, route: str | None, key: str, *, encoder: SentenceTransformer | None = None
    ) -> DocumentVectors:
        """A target's documents embedded by a route; on disk they bear `key` and a digest of what made them.

        They are kept in half precision, for whatever comes of it alike in every run.
        """
        key = f"{key}-{self._digest(name, route, encoder)}"
        if (name, key) not in self._vectors:
            path = self.output / "vectors" / folder_name(name) / f"{key}.npy"
            ids = [document.doc_id for document in self.collection(name).documents()]
            if not path.exists():
                made = self.embedded(self.collection(name), route, self.plan.document_length, encoder=encoder)
                with atomic_write(path, "wb") as file:
                    np.save(file, made.vectors.astype(np.float16))
            vectors = np.load(path).astype(np.float32)
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            kept = {pair: one for pair, one in self._vectors.items() if pair[0] == name or pair[1].startswith("base-")}
            self._vectors = {**kept, (name, key): DocumentVectors(ids, vectors)}
        return self._vectors[name, key]

    def _digest(self, name: str, route: str | None, encoder: SentenceTransformer | None) -> str:
        """Of the texts, the weights, the prompt and the settings: vectors of an earlier one are not taken for it."""
        if name not in self._digests:
            texts = ((document.doc_id, document.content) for document in self.collection(name).documents())
            self._digests[name] = json_digest(list(texts))
        state = next(iter(self.states.values())) if encoder is None else state_digest(encoder)
        parts = [self._digests[name], state, document_key(encoder or self.encoder, route)]
        settings = [self.precision, self.plan.document_length]
        return json_digest([*parts, *settings])[:16]

    def hits(self, target: str, route: str | None, key: str) -> Run:
        """The hits of a target's test queries by a route that encodes its documents too, kept under `key`."""
        return self.search(self.collection(target), route, self.documents(target, route, key))

    # -- prompts -----------------------------------------------------------------------------------------------

    def new_start(self, seed: int, **changes: Any) -> StartConfig:
        """What a new prompt is: the plan's, with changes of its spec."""
        return StartConfig(PromptSpec(**{**self.plan.prompt, **changes}), seed=seed)

    def settings(self, side: Trained, seed: int, values: Mapping[str, Any], *, several: bool = False) -> TrainingConfig:
        """Training settings of the plan, with the benchmark's lengths."""
        return TrainingConfig.default(side, several=several, **{**self.common(seed), **values})

    def multitask(self, fold: int, seed: int) -> StoredPrompt:
        """One prompt on all sources of a fold."""
        sources = [self.source(name) for name in self.plan.sources(fold)]
        config = self.settings("both", seed, self.plan.multitask, several=True)
        folder = f"prompts/fold{fold}-seed{seed}/multitask"
        return self.trained(folder, sources, "multitask", config, self.new_start(seed))

    def supervised(self, target: str, seed: int, part: Collection | None = None) -> StoredPrompt:
        """The ceiling: the multitask prompt trained further on all of the target's training labels, or of a fold's."""
        start = self.multitask(self.plan.fold_of(target), seed)
        config = self.settings("both", seed, self.plan.supervised)
        collection = part or self.collection(target)
        folder = f"prompts/supervised-seed{seed}/{folder_name(collection.id)}"
        return self.trained(folder, collection, collection.id, config, start)


def drawn(pairs: Sequence[TrainingPair], count: int, seed: int) -> list[TrainingPair]:
    """A seeded choice; a larger one holds the smaller ones."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [pairs[i] for i in order[:count]]
