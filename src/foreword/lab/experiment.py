"""What a benchmark, a recipe's run and the demo are built on.

An experiment has one folder, in which everything that was finished is found again: prompts trained with the same
settings on the same data, and whatever a kind of experiment keeps of its own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection
from foreword.collections.registry import load
from foreword.errors import ForewordError, OtherTrainingError
from foreword.evaluation.measures import Evaluation, evaluate_run
from foreword.files import kept_json, write_json
from foreword.lab.records import MEASURES, BenchmarkCell, cell_path, load_cell, run_path, save_cell
from foreword.prompts.encoder import state_digest, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.routes import Route
from foreword.prompts.store import CARD, RUN, StoredPrompt, library_versions
from foreword.retrieval.runs import Run, hybrid, read_run, write_run
from foreword.retrieval.search import bm25_run, dense_run
from foreword.settings import DEFAULT_BACKBONE, Precision
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.train import train
from foreword.training.vectors import DocumentVectors, embed_documents

HITS = 100
"""That a search returns for each query."""


class Experiment:
    """A folder, collections and encoders loaded once, and what is trained, searched and scored with them.

    Attributes:
        encoder: that trains and searches; set by each kind of experiment from `loaded`, as are the next three.
        precision: of the forward passes.
        query_length: tokens a query is cut to.
        document_length: tokens a document is cut to in training.
        states: encoder's name, pooling and normalisation -> the digest of its weights when it was loaded.
        curves: folder -> the learning curve of what was trained into it.
    """

    encoder: SentenceTransformer
    precision: Precision
    query_length: int
    document_length: int
    training_bars: ClassVar[bool] = True
    """Whether trainings show their progress, unless the experiment is quiet."""

    def __init__(self, output: str | Path, *, data: Path | None = None, quiet: bool = False) -> None:
        """`output` is made when something is written; `data` is the folder of collections."""
        self.output, self.data, self.quiet = Path(output), data, quiet
        self.states: dict[tuple[Any, ...], str] = {}
        self.curves: dict[str, dict[str, Any]] = {}
        self._began = time.perf_counter()
        self._encoders: dict[tuple[Any, ...], SentenceTransformer] = {}
        self._collections: dict[str, Collection] = {}

    @property
    def seconds(self) -> float:
        """Gone by since the experiment began."""
        return time.perf_counter() - self._began

    def say(self, text: str) -> None:
        """A line of progress."""
        if not self.quiet:
            print(f"[{self.seconds:5.0f} s] {text}", file=sys.stderr, flush=True)

    def machine(self) -> dict[str, Any]:
        """What this runs on: processor, cores, threads, device, precision, versions."""
        try:
            processor = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        except OSError:
            processor = None
        return {
            "processor": processor[1] if processor else platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": str(self.encoder.device),
            "precision": self.precision,
            "versions": library_versions(),
        }

    def note_machine(self) -> None:
        """Add what this runs on to `machine.json`, a list of those that the folder's results are from."""
        this = self.machine()
        path = self.output / "machine.json"
        if this not in (noted := kept_json(path) or []):
            write_json(path, [*noted, this])

    def loaded(
        self, backbone: str = DEFAULT_BACKBONE, pooling: str | None = None, normalize: bool | None = None
    ) -> SentenceTransformer:
        """An encoder, loaded once."""
        head = (backbone, pooling, normalize)
        if head not in self._encoders:
            self._encoders[head] = load_encoder(backbone, pooling=pooling, normalize=normalize)
            self.states[head] = state_digest(self._encoders[head])
        return self._encoders[head]

    def collection(self, name: str) -> Collection:
        """A collection, whole, by its id or its folder below `data`; loaded once."""
        if name not in self._collections:
            folder = (self.data or Path()) / name
            self._collections[name] = load(
                f"folder:{folder}" if (folder / "corpus.jsonl").is_file() else name, data=self.data
            )
        return self._collections[name]

    def carry(self, name: str, stored: StoredPrompt) -> str:
        """Let the encoder carry a prompt; returns the name."""
        transformer_of(self.encoder).add(name, stored.prompt)
        return name

    def drop(self, name: str) -> None:
        """Let the encoder carry a prompt no longer."""
        transformer_of(self.encoder).remove(name)

    def common(self, seed: int) -> dict[str, Any]:
        """The settings that trainings, fits and comparisons share."""
        lengths = {"query_length": self.query_length, "document_length": self.document_length}
        return {**lengths, "precision": self.precision, "seed": seed}

    def trained(
        self,
        folder: str,
        collections: Collection | Sequence[Collection],
        name: str,
        config: TrainingConfig,
        start: StoredPrompt | StartConfig,
        **how: Any,
    ) -> StoredPrompt:
        """The prompt `name` in a folder of the output, trained unless it is there with the same settings and data.

        Args:
            folder: below the output. What was trained there otherwise, or by other versions of the packages, is
                trained anew.
            collections: what to train on.
            name: the prompt's.
            config: the settings.
            start: another prompt to start from, or what a new one is.
            how: further arguments of `foreword.training.train.train`.
        """
        place = self.output / folder
        how |= {"domain": name, "config": config, "start": start, "quiet": self.quiet or not self.training_bars}
        if not (place / CARD).exists():
            self.say(f"training {folder}, {config.steps} steps")
        try:
            stored = train(self.encoder, collections, place, **how)
        except OtherTrainingError:
            stored = train(self.encoder, collections, place, resume=False, **how)
        self.curves[folder] = learning_curve(name, stored)
        return stored

    def embedded(
        self, collection: Collection, route: Route, length: int, *, encoder: SentenceTransformer | None = None
    ) -> DocumentVectors:
        """A collection's documents, cut to so many tokens, by a route."""
        quiet = self.quiet or not self.training_bars
        how: dict[str, Any] = {"precision": self.precision, "max_length": length, "quiet": quiet}
        return embed_documents(encoder or self.encoder, collection, route=route, **how)

    def search(
        self,
        collection: Collection,
        route: Route,
        vectors: DocumentVectors,
        split: str = "test",
        *,
        encoder: SentenceTransformer | None = None,
    ) -> Run:
        """The hits of a split's queries by a route among documents embedded already."""
        return dense_run(
            encoder or self.encoder, collection, list(collection.queries(split)), route=route, k=HITS,
            vectors=(vectors.doc_ids, vectors.vectors), query_length=self.query_length, precision=self.precision,
            quiet=True,
        )  # fmt: skip

    def bm25(self, collection: Collection) -> Run:
        """The hits of the test queries by BM25, with shares as scores, which can be added to cosines."""
        return bm25_run(collection, list(collection.queries("test")), k=HITS, shares=True)

    def scored(self, collection: Collection, system: str, run: Run, path: Path, measures: Sequence[str]) -> Evaluation:
        """What a run scores by the test judgements; the run itself is written to `path`, as TREC has it."""
        write_run(path, run, system)
        return evaluate_run(run, collection.qrels("test"), measures)


@dataclass(frozen=True)
class Findings:
    """What a system found, and what it took; the fields are `BenchmarkCell`'s."""

    run: Run
    labels: int | None = 0
    trained_parameters: int = 0
    stored_bytes: int = 0
    seconds: float = 0.0
    decision: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    similarity: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Benchmark(Experiment):
    """An experiment whose results are cells: a system on a target, with a seed.

    Attributes:
        genres: target -> genre.
    """

    genres: Mapping[str, str]
    training_bars = False

    def done(self, target: str, system: str, seed: int, configuration: str) -> BenchmarkCell | None:
        """The cell of an earlier run with these settings, or None."""
        path = cell_path(self.output, target, system, seed)
        if not path.exists():
            return None
        cell = load_cell(path)
        return cell if cell.configuration == configuration else None

    def cell(
        self, target: str, system: str, seed: int, configuration: str, make: Callable[[], Findings]
    ) -> BenchmarkCell:
        """The cell, made and stored with its TREC run unless it is there already."""
        if (there := self.done(target, system, seed, configuration)) is not None:
            return there
        made = make()
        path = run_path(self.output, target, system, seed)
        judged = self.scored(self.collection(target), system, made.run, path, MEASURES)
        costs = {name: value for name, value in vars(made).items() if name != "run"}
        cell = BenchmarkCell(
            target=target,
            genre=self.genres[target],
            system=system,
            seed=seed,
            per_query={measure: dict(judged.per_query[measure]) for measure in MEASURES},
            configuration=configuration,
            **{**costs, "seconds": round(made.seconds, 2)},
        )
        save_cell(self.output, cell)
        self.say(f"{target}: {system}, seed {seed}: nDCG@10 {cell.measures['nDCG@10']:.3f}")
        return cell

    def fused(self, target: str, system: str, seed: int, configuration: str) -> BenchmarkCell:
        """The cell `<system>+bm25`: the system's hits and BM25's, their scores added."""

        def make() -> Findings:
            other = self.done(target, system, seed, configuration)
            if other is None:
                raise ForewordError(f"{system} on {target} with seed {seed} is not there to be fused; run it first")
            dense, words = (
                read_run(run_path(self.output, target, name, number)) for name, number in ((system, seed), ("bm25", 0))
            )
            kept = ("labels", "trained_parameters", "stored_bytes", "seconds", "decision", "similarity")
            return Findings(hybrid(dense, words, k=HITS), **{name: getattr(other, name) for name in kept})

        return self.cell(target, f"{system}+bm25", seed, configuration, make)


def run_of(stored: StoredPrompt) -> dict[str, Any]:
    """How a prompt's training went: `seconds`, `training_seconds` (without evaluations), `steps`."""
    assert stored.path is not None
    run: dict[str, Any] = json.loads((Path(stored.path) / RUN).read_text(encoding="utf-8"))
    return run


def seconds_of(stored: StoredPrompt) -> float:
    """What its training took."""
    return float(run_of(stored)["seconds"])


def learning_curve(name: str, stored: StoredPrompt) -> dict[str, Any]:
    """Dev effectiveness and training loss by step, as the report takes them."""
    points: dict[int, dict[str, Any]] = {}
    for curve in ("dev", "loss"):
        for entry in stored.card["metrics"][curve]:
            point = points.setdefault(entry["step"], {"step": entry["step"], "loss": None, "dev": None})
            point[curve] = entry[curve]
    return {"name": name, "points": [points[step] for step in sorted(points)]}
