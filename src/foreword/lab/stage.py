"""What the parts of a benchmark stand on: the targets, the sources, what embeds them, and the cells that are done."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection, TrainingPair
from foreword.collections.registry import load, members
from foreword.collections.supervision import FoldCollection
from foreword.collections.views import ExcludingCollection, Texts
from foreword.errors import ForewordError, OtherTrainingError
from foreword.evaluation.candidates import document_key
from foreword.evaluation.measures import evaluate_run
from foreword.files import atomic_write
from foreword.lab.records import Cell, cell_path, load_cell, run_path, save_cell
from foreword.lab.statistics import Hypothesis
from foreword.prompts.encoder import resolve_precision, state_digest, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.routes import Route
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import RUN, StoredPrompt, folder_name
from foreword.retrieval.runs import Run, min_max, read_run, write_run
from foreword.retrieval.search import bm25_run, dense_run
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.train import train
from foreword.training.vectors import DocumentVectors, embed_documents
from foreword.transferring.reach import Array

# What a benchmark of transfer runs: domains, folds, seeds, settings, claims made beforehand; read from a TOML file.


@dataclass(frozen=True)
class Plan:
    """The benchmark's settings.

    Attributes:
        title: of the report.
        genre: of the domains that are both sources and, held out, targets.
        domains: their ids, sorted.
        folds: the domains are dealt out to so many folds in their order; the prompts that a domain is given are
            trained on the other folds' domains, and no text of any other domain is in a source.
        far: genre -> ids of targets that are never sources; they are given the first fold's prompts.
        seeds: of the primary part; the others run on the first.
        query_length: tokens a query is cut to.
        document_length: tokens a document is cut to, in training and in the index, for every system alike.
        prompt: of a new prompt: `length` and `sides`.
        multitask: settings of the training of one prompt on all sources.
        transfer: settings of the default transfer (see `foreword.transferring.adapt`).
        source: settings of the sources' own query-side prompts, which rivals combine.
        supervised: settings of the ceiling, which has all of the target's training labels.
        budget: `seconds` of each baseline's training, `rates` to try for each method (those without are left out),
            `tuned_on`, the domains whose dev split chooses among them, and the methods that are trained `everywhere`;
            the others on the domains they were tuned on alone.
        curve: `methods` that are also given other budgets, `seconds`, on the domains that rates were tuned on.
        few: numbers of labels.
        hypotheses: the primary claims; everything else is exploratory.
        comparisons: what else is compared in the same way.
    """

    title: str
    genre: str
    domains: tuple[str, ...]
    folds: int
    far: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    query_length: int
    document_length: int
    prompt: Mapping[str, Any]
    multitask: Mapping[str, Any]
    transfer: Mapping[str, Any]
    source: Mapping[str, Any]
    supervised: Mapping[str, Any]
    budget: Mapping[str, Any]
    curve: Mapping[str, Any]
    few: tuple[int, ...]
    hypotheses: tuple[Hypothesis, ...]
    comparisons: tuple[Hypothesis, ...]

    def __post_init__(self) -> None:
        if not 2 <= self.folds <= len(self.domains):
            raise ForewordError(f"{self.folds} folds of {len(self.domains)} domains; expected 2 to as many as domains")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ForewordError(f"seeds are {list(self.seeds)}; expected one or more, each once")

    def fold_of(self, target: str) -> int:
        """The fold that a target's prompts were not trained on; the first for targets that are no sources."""
        return self.domains.index(target) % self.folds if target in self.domains else 0

    def held_out(self, fold: int) -> tuple[str, ...]:
        """The domains of a fold."""
        return tuple(domain for domain in self.domains if self.fold_of(domain) == fold)

    def sources(self, fold: int) -> tuple[str, ...]:
        """The domains that a fold's prompts are trained on."""
        return tuple(domain for domain in self.domains if self.fold_of(domain) != fold)

    @property
    def targets(self) -> dict[str, str]:
        """Target -> genre, the sources' genre first."""
        return {
            **dict.fromkeys(self.domains, self.genre),
            **{target: genre for genre, targets in self.far.items() for target in targets},
        }

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def digest(self, *names: str) -> str:
        """16 hexadecimal digits of the settings that every system depends on, and of the fields named."""
        shared = ("domains", "folds", "query_length", "document_length", "prompt")
        chosen = {name: self.as_dict()[name] for name in (*shared, *names)}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def load_plan(path: Path | str | None = None, *, group: str | None = None) -> Plan:
    """The plan of a TOML file.

    Args:
        path: the file; None: the one that comes with the package.
        group: domains, instead of the file's own group.

    Raises:
        ForewordError: a field is missing, unknown or wrong.
    """
    if path is None:
        text = resources.files("foreword.lab").joinpath("transfer.toml").read_text(encoding="utf-8")
    else:
        text = Path(path).read_text(encoding="utf-8")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ForewordError(f"{path}: not TOML: {error}") from error
    named = group or values.pop("group", None)
    values["domains"] = tuple(sorted(values.get("domains", ()) if named is None else members(named)))
    values.pop("group", None)
    values["far"] = {genre: tuple(targets) for genre, targets in values.get("far", {}).items()}
    values["hypotheses"] = tuple(Hypothesis(**claim) for claim in values.pop("hypothesis", []))
    values["comparisons"] = tuple(Hypothesis(**claim) for claim in values.pop("comparison", []))
    values |= {name: tuple(values.get(name, ())) for name in ("seeds", "few")}
    known = {field.name for field in fields(Plan)}
    if unknown := sorted(values.keys() - known):
        raise ForewordError(
            f"{path or 'transfer.toml'}: unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )
    if missing := sorted(known - values.keys()):
        raise ForewordError(f"{path or 'transfer.toml'}: missing: {', '.join(missing)}")
    return Plan(**values)


def chosen(plan: Plan, *, seeds: tuple[int, ...] | None = None) -> Plan:
    """The plan with other seeds."""
    return plan if seeds is None else replace(plan, seeds=seeds)


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


# The prompts that a benchmark trains, each once: of many sources, of one source, of a target.


def new_start(stage: Stage, seed: int, **changes: Any) -> StartConfig:
    """What a new prompt is: the plan's, with changes of its spec."""
    return StartConfig(PromptSpec(**{**stage.plan.prompt, **changes}), seed=seed)


def settings(stage: Stage, side: Any, seed: int, values: Mapping[str, Any], *, several: bool = False) -> TrainingConfig:
    """Training settings of the plan, with the benchmark's lengths."""
    common = {
        "query_length": stage.plan.query_length,
        "document_length": stage.plan.document_length,
        "precision": stage.precision,
        "seed": seed,
    }
    return TrainingConfig.default(side, several=several, **{**common, **values})


def trained(
    stage: Stage,
    folder: str,
    collections: Collection | Sequence[Collection],
    name: str,
    config: TrainingConfig,
    start: StoredPrompt | StartConfig,
    *,
    documents: Mapping[str, DocumentVectors] | None = None,
    pairs: Mapping[str, Sequence[TrainingPair]] | None = None,
    seconds: float | None = None,
) -> StoredPrompt:
    """The prompt in `<output>/prompts/<folder>`, trained unless it is there with the same settings."""
    place = stage.output / "prompts" / folder
    how: dict[str, Any] = {
        "domain": name, "config": config, "start": start, "documents": documents, "pairs": pairs,
        "seconds": seconds, "quiet": True,
    }  # fmt: skip
    if not (place / "prompt.json").exists():
        stage.say(f"training {folder}")
    try:
        return train(stage.encoder, collections, place, **how)
    except OtherTrainingError:  # an earlier run's, of other settings or other versions of the packages
        return train(stage.encoder, collections, place, resume=False, **how)


def seconds_of(stored: StoredPrompt) -> float:
    """What its training took."""
    return float(run_of(stored)["seconds"])


def run_of(stored: StoredPrompt) -> dict[str, Any]:
    """How its training went: `seconds`, `training_seconds` (without evaluations), `steps`."""
    assert stored.path is not None
    run: dict[str, Any] = json.loads((Path(stored.path) / RUN).read_text(encoding="utf-8"))
    return run


def multitask(stage: Stage, fold: int, seed: int) -> StoredPrompt:
    """One prompt on all sources of a fold."""
    sources = [stage.source(name) for name in stage.plan.sources(fold)]
    config = settings(stage, "both", seed, stage.plan.multitask, several=True)
    start = new_start(stage, seed)
    return trained(stage, f"fold{fold}-seed{seed}/multitask", sources, "multitask", config, start)


def supervised(stage: Stage, target: str, seed: int, part: FoldCollection | None = None) -> StoredPrompt:
    """The ceiling: the multitask prompt trained further on all of the target's training labels, or of a fold's."""
    start = multitask(stage, stage.plan.fold_of(target), seed)
    config = settings(stage, "both", seed, stage.plan.supervised)
    collection = part or stage.target(target)
    return trained(
        stage, f"supervised-seed{seed}/{folder_name(collection.id)}", collection, collection.id, config, start
    )
