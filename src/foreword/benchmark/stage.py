"""What the parts of a benchmark stand on: the targets, the sources, what embeds them, and the cells that are done."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.benchmark.plan import Plan
from foreword.benchmark.records import Cell, cell_path, load_cell, run_path, save_cell
from foreword.collections.exclusion import ExcludingCollection, Texts
from foreword.collections.records import Collection
from foreword.collections.registry import load
from foreword.common.errors import ForewordError
from foreword.common.files import atomic_write
from foreword.evaluation.candidates import document_key
from foreword.evaluation.measures import evaluate_run
from foreword.prompts.encoder import load_encoder, resolve_precision, state_digest, transformer_of
from foreword.prompts.routes import Route
from foreword.prompts.store import StoredPrompt, folder_name
from foreword.retrieval.fusion import min_max
from foreword.retrieval.runs import Run, read_run, write_run
from foreword.retrieval.search import bm25_run, dense_run
from foreword.training.vectors import DocumentVectors, embed_documents
from foreword.transferring.similarity import Array

MEASURES = ("nDCG@10", "R@100")
HITS = 100


@dataclass(frozen=True)
class Found:
    """What a system found, and what it took; the fields are `Cell`'s."""

    run: Run
    labels: int | None = 0
    trained_parameters: int = 0
    stored_bytes: int = 0
    seconds: float = 0.0
    decision: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    similarity: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Stage:
    """The state of one benchmark.

    Test queries and their judgements are read in `cell` alone, and in parts that say that they are bounds; a target's
    labels are read by systems whose cells say how many.
    """

    def __init__(
        self, plan: Plan, output: Path, *, data: Path | None = None, backbone: str | None = None, quiet: bool = False
    ) -> None:
        self.plan, self.output, self.data, self.quiet = plan, Path(output), data, quiet
        self.began = time.monotonic()
        self.encoder = load_encoder() if backbone is None else load_encoder(backbone)
        self.precision = resolve_precision("auto", self.encoder.device)
        self.missing: dict[str, str] = {}
        self.features: dict[str, Array] = {}
        self._targets: dict[str, Collection] = {}
        self._sources: dict[str, Collection] = {}
        self._texts: dict[str, Texts] = {}
        self._vectors: dict[tuple[str, str], DocumentVectors] = {}
        self._digests: dict[str, str] = {}
        self._state = ""

    def say(self, text: str) -> None:
        """One line of progress, with the minutes gone by."""
        if not self.quiet:
            gone = time.monotonic() - self.began
            print(f"[{gone / 60:6.1f} min] {text}", file=sys.stderr, flush=True)

    # -- collections -------------------------------------------------------------------------------------------

    def target(self, name: str) -> Collection:
        """A target, whole."""
        if name not in self._targets:
            self._targets[name] = load(name, data=self.data)
        return self._targets[name]

    def here(self, genre: str | None = None) -> list[str]:
        """The targets, of one genre or all, whose files are on this machine; why others are not is in `missing`."""
        present = []
        for name, kind in self.plan.targets.items():
            if (genre is not None and kind != genre) or name in self.missing:
                continue
            try:
                self.target(name)
            except ForewordError as error:
                self.missing[name] = str(error)
                self.say(f"{name} is left out: {error}")
            else:
                present.append(name)
        return present

    def source(self, name: str) -> Collection:
        """A domain without the texts that any other domain has, so that it can serve all of them as a source."""
        if name not in self._sources:
            others = [self._texts_of(other) for other in self.plan.domains if other != name]
            texts = Texts(
                frozenset().union(*(each.queries for each in others)),
                frozenset().union(*(each.documents for each in others)),
            )
            self._sources[name] = ExcludingCollection(self.target(name), texts)
        return self._sources[name]

    def _texts_of(self, name: str) -> Texts:
        if name not in self._texts:
            self._texts[name] = Texts.of([self.target(name)])
        return self._texts[name]

    # -- searching ---------------------------------------------------------------------------------------------

    def carry(self, name: str, stored: StoredPrompt) -> str:
        """Let the encoder carry a prompt; returns the name."""
        transformer_of(self.encoder).add(name, stored.prompt)
        return name

    def documents(
        self, name: str, route: str | None, key: str, *, encoder: SentenceTransformer | None = None
    ) -> DocumentVectors:
        """A target's documents embedded by a route; on disk they bear `key` and a digest of what made them.

        They are kept in half precision, for whatever comes of it alike in every run.
        """
        key = f"{key}-{self._digest(name, route, encoder)}"
        if (name, key) not in self._vectors:
            path = self.output / "vectors" / folder_name(name) / f"{key}.npy"
            ids = [document.doc_id for document in self.target(name).documents()]
            if not path.exists():
                made = embed_documents(
                    encoder or self.encoder,
                    self.target(name),
                    route=route,
                    precision=self.precision,
                    max_length=self.plan.document_length,
                    quiet=True,
                )
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
            texts = ((document.doc_id, document.content) for document in self.target(name).documents())
            self._digests[name] = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
        if encoder is None:
            self._state = self._state or state_digest(self.encoder)  # frozen
        state = self._state if encoder is None else state_digest(encoder)
        parts = [self._digests[name], state, document_key(encoder or self.encoder, route)]
        settings = [self.precision, self.plan.document_length]
        return hashlib.sha256(json.dumps([*parts, *settings]).encode()).hexdigest()[:16]

    def search(
        self,
        name: str,
        route: Route,
        vectors: DocumentVectors,
        split: str = "test",
        *,
        encoder: SentenceTransformer | None = None,
    ) -> Run:
        """The hits of a split's queries by a route among documents embedded already."""
        collection = self.target(name)
        return dense_run(
            encoder or self.encoder,
            collection,
            list(collection.queries(split)),
            route=route,
            vectors=(vectors.doc_ids, vectors.vectors),
            k=HITS,
            query_length=self.plan.query_length,
            precision=self.precision,
            quiet=True,
        )

    def bm25(self, name: str) -> Run:
        """The hits of the test queries by BM25."""
        return bm25_run(self.target(name), list(self.target(name).queries("test")), k=HITS)

    # -- cells -------------------------------------------------------------------------------------------------

    def done(self, target: str, system: str, seed: int, configuration: str) -> Cell | None:
        """The cell of an earlier run with these settings, or None."""
        path = cell_path(self.output, target, system, seed)
        if not path.exists():
            return None
        cell = load_cell(path)
        return cell if cell.configuration == configuration else None

    def cell(self, target: str, system: str, seed: int, configuration: str, make: Callable[[], Found]) -> Cell:
        """The cell, made and stored with its TREC run unless it is there already."""
        if (found := self.done(target, system, seed, configuration)) is not None:
            return found
        made = make()
        judged = evaluate_run(made.run, self.target(target).qrels("test"), list(MEASURES))
        path = run_path(self.output, target, system, seed)
        write_run(path, made.run, system)
        cell = Cell(
            target=target,
            genre=self.plan.targets[target],
            system=system,
            seed=seed,
            per_query={measure: dict(judged.per_query[measure]) for measure in MEASURES},
            labels=made.labels,
            trained_parameters=made.trained_parameters,
            stored_bytes=made.stored_bytes,
            seconds=round(made.seconds, 2),
            decision=made.decision,
            weights=dict(made.weights),
            similarity=made.similarity,
            details=dict(made.details),
            configuration=configuration,
        )
        save_cell(self.output, cell)
        self.say(f"{target}: {system}, seed {seed}: nDCG@10 {cell.measures['nDCG@10']:.3f}")
        return cell

    def fused(self, target: str, system: str, seed: int, configuration: str) -> Cell:
        """The cell `<system>+bm25`: the system's hits and BM25's, min-max fused."""

        def make() -> Found:
            other = self.done(target, system, seed, configuration)
            if other is None:
                raise ForewordError(f"{system} on {target} with seed {seed} is not there to be fused; run it first")
            runs: Sequence[Run] = [
                read_run(run_path(self.output, target, name, number)) for name, number in ((system, seed), ("bm25", 0))
            ]
            return Found(
                min_max(runs, k=HITS),
                labels=other.labels,
                trained_parameters=other.trained_parameters,
                stored_bytes=other.stored_bytes,
                seconds=other.seconds,
                decision=other.decision,
                similarity=other.similarity,
            )

        return self.cell(target, f"{system}+bm25", seed, configuration, make)
