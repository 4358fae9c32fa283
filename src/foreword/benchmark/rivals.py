"""Rivals and controls, all of one kind: query-side prompts over the base model's own document vectors.

Every domain's prompt is trained once for each seed, from one start, so that they may be mixed and averaged; a target
is given those of the other folds. The documents are embedded once, by the base model, for all of them: this is also the
table for whoever cannot embed a corpus again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice

import numpy as np

from foreword.benchmark.primary import features
from foreword.benchmark.prompts import new_start, seconds_of, settings, trained
from foreword.benchmark.stage import Found, Stage
from foreword.collections.pseudo import pseudo_pairs
from foreword.collections.records import Document, TrainingPair
from foreword.collections.unlabelled import Unlabelled
from foreword.common.errors import PromptError
from foreword.prompts.encoder import encode
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Route
from foreword.prompts.start import new_prompt
from foreword.prompts.store import StoredPrompt, folder_name, load_prompt, save_prompt
from foreword.retrieval.dense import exact_search
from foreword.training.vectors import DocumentVectors
from foreword.transferring.combine import average_prompts, uniform_weights
from foreword.transferring.controls import oracle_single, random_weights
from foreword.transferring.decision import TransferConfig
from foreword.transferring.fit import FitConfig, embed_pair_documents, fit_weights, pseudo_scores, split_pairs
from foreword.transferring.prompt_similarity import spot_weights
from foreword.transferring.routing import build_pilots, encode_by_experts, route_queries
from foreword.transferring.similarity import Method, similarity, softmax_weights
from foreword.transferring.soups import greedy_soup, task_vectors

SINGLE = "single:"


def rivals(stage: Stage, targets: Sequence[str], seed: int) -> None:
    """All rivals on the targets, which are sources of one another."""
    start = shared_start(stage, seed)
    prompts = {name: source_prompt(stage, name, start, seed) for name in targets}
    for name, stored in prompts.items():
        stage.carry(name, stored)
    for target in targets:
        bank = {name: prompts[name] for name in stage.plan.sources(stage.plan.fold_of(target)) if name in prompts}
        _Rivals(stage, target, bank, start, seed).run()
        own = _Rivals(stage, target, {target: prompts[target]}, start, seed)
        own.cell("supervised-query", partial(own.found, target, labels=None))


def shared_start(stage: Stage, seed: int) -> StoredPrompt:
    """The one prompt that all sources start from."""
    folder = stage.output / "prompts" / f"sources-seed{seed}" / "start"
    if not (folder / "prompt.json").exists():
        spec = new_start(stage, seed, sides="query").spec
        texts = [doc.content for name in stage.plan.domains for doc in _first(stage, name, 8)]
        made = new_prompt(stage.encoder, spec, start="words", texts=texts, seed=seed)
        save_prompt(folder, made, stage.encoder, "start", record={"start": {"from": "words", "seed": seed}})
    return load_prompt(folder, stage.encoder)


def _first(stage: Stage, name: str, count: int) -> list[Document]:
    return list(islice(stage.source(name).documents(), count))


def source_prompt(stage: Stage, name: str, start: StoredPrompt, seed: int) -> StoredPrompt:
    """A domain's own query-side prompt, over the base model's document vectors."""
    every = stage.documents(name, None, "base")
    source = stage.source(name)
    kept = {document.doc_id for document in source.documents()}
    rows = [row for row, doc_id in enumerate(every.doc_ids) if doc_id in kept]
    vectors = DocumentVectors([every.doc_ids[row] for row in rows], every.vectors[rows])
    config = settings(stage, "query", seed, stage.plan.source)
    folder = f"sources-seed{seed}/{folder_name(name)}"
    return trained(stage, folder, source, name, config, start, documents={name: vectors})


class _Rivals:
    """Every rival on one target with one seed."""

    def __init__(
        self, stage: Stage, target: str, bank: Mapping[str, StoredPrompt], start: StoredPrompt, seed: int
    ) -> None:
        self.stage, self.target, self.bank, self.start, self.seed = stage, target, bank, start, seed
        self.configuration = stage.plan.digest("source")
        self.fit = FitConfig(
            query_length=stage.plan.query_length,
            document_length=stage.plan.document_length,
            precision=stage.precision,
            seed=seed,
        )

    def run(self) -> None:
        """The cells."""
        for name in self.bank:
            self.cell(SINGLE + name, partial(self.alone, name))
        self.cell("query:oracle-single", self.oracle)
        self.cell("query:uniform", lambda: self.mixed(uniform_weights(self.bank)))
        self.cell("query:random", lambda: self.mixed(random_weights(self.bank, self.seed)))
        methods: tuple[Method, ...] = ("mean", "pairwise")
        for method in methods:
            self.cell(f"query:similarity-{method}", partial(self.by_similarity, method))
        self.cell("query:average", lambda: self.single(average_prompts(self.bank, uniform_weights(self.bank))))
        for scale in (2.0, 4.0):
            self.cell(f"query:task-vectors-x{scale:g}", partial(self.scaled, scale))
        self.cell("query:fitted", self.fitted)
        self.cell("query:best-single", self.best_single)
        self.cell("query:greedy-soup", self.soup)
        self.cell("query:spot", self.spot)
        self.cell("query:router", self.router)

    def cell(self, system: str, make: Callable[[], Found]) -> None:
        """A cell of this target and seed."""
        self.stage.cell(self.target, system, self.seed, self.configuration, make)

    # -- what a system is --------------------------------------------------------------------------------------

    def found(self, route: Route, **what: object) -> Found:
        """What a route finds among the base model's documents."""
        vectors = self.stage.documents(self.target, None, "base")
        return Found(self.stage.search(self.target, route, vectors), **what)  # type: ignore[arg-type]

    def mixed(self, weights: Mapping[str, float], seconds: float = 0.0, **details: object) -> Found:
        """An exact mixture."""
        used = [self.bank[name] for name, weight in weights.items() if weight]
        return self.found(
            dict(weights),
            weights=dict(weights),
            stored_bytes=sum(int(stored.card["bytes"]) for stored in used),
            seconds=seconds,
            details=details,
        )

    def single(self, prompt: Prompt, seconds: float = 0.0, **details: object) -> Found:
        """One prompt made of the bank's."""
        name = self.stage.carry("made of the bank", StoredPrompt(prompt, {"domain": "made of the bank"}))
        size = max(int(stored.card["bytes"]) for stored in self.bank.values())
        return self.found(name, stored_bytes=size, seconds=seconds, details=details)

    def alone(self, name: str) -> Found:
        """One source's prompt as it is."""
        size = int(self.bank[name].card["bytes"])
        return self.found(name, weights={name: 1.0}, similarity=self.nearness(name), stored_bytes=size)

    def by_similarity(self, method: Method) -> Found:
        """The mixture weighted by similarity."""
        return self.mixed(self.alike(method))

    def scaled(self, scale: float) -> Found:
        """The start and the mean of what the sources learnt, so many times over."""
        return self.single(task_vectors(self.bank, self.start, uniform_weights(self.bank), scale))

    # -- choosing ----------------------------------------------------------------------------------------------

    def nearness(self, source: str) -> float:
        """Cosine of the domains' mean base embeddings."""
        return similarity(features(self.stage, self.target), features(self.stage, source))

    def alike(self, method: Method) -> dict[str, float]:
        """Weights by similarity of documents."""
        mine = features(self.stage, self.target)
        values = {name: similarity(mine, features(self.stage, name), method) for name in self.bank}
        config = TransferConfig()
        return softmax_weights(values, top_k=config.top_k, temperature=config.temperature)

    def pairs(self) -> tuple[list[TrainingPair], list[TrainingPair]]:
        """Pseudo-queries to fit on, and to choose by."""
        made = list(pseudo_pairs(Unlabelled(self.stage.target(self.target)).documents(), "auto", self.seed))
        return split_pairs(made, self.fit)

    def oracle(self) -> Found:
        """The source that is best on the test queries themselves: a bound, no method."""
        scores = {}
        for name in self.bank:
            cell = self.stage.done(self.target, SINGLE + name, self.seed, self.configuration)
            assert cell is not None
            scores[name] = cell.measures["nDCG@10"]
        best = oracle_single(scores)
        return self.found(best, weights={best: 1.0}, details={"looks_at": "test labels"})

    def fitted(self) -> Found:
        began = time.perf_counter()
        fitting, _ = self.pairs()
        fit = fit_weights(self.stage.encoder, uniform_weights(self.bank), fitting, self.fit, document=None, quiet=True)
        return self.mixed(fit.weights, time.perf_counter() - began)

    def pseudo_means(self, routes: Mapping[str, Route]) -> dict[str, float]:
        """Mean nDCG@10 of routes on held-out pseudo-queries."""
        _, held = self.pairs()
        vectors = embed_pair_documents(self.stage.encoder, None, held, self.fit)
        return {
            name: float(
                np.mean(list(pseudo_scores(self.stage.encoder, route, held, self.fit, documents=vectors).values()))
            )
            for name, route in routes.items()
        }

    def best_single(self) -> Found:
        began = time.perf_counter()
        means = self.pseudo_means({name: name for name in self.bank})
        best = max(sorted(means), key=lambda name: means[name])
        return self.mixed({best: 1.0}, time.perf_counter() - began, pseudo=means)

    def soup(self) -> Found:
        began = time.perf_counter()

        def value(prompt: Prompt) -> float:
            name = self.stage.carry("soup", StoredPrompt(prompt, {"domain": "soup"}))
            return self.pseudo_means({name: name})[name]

        means = self.pseudo_means({name: name for name in self.bank})
        prompt = greedy_soup(self.bank, means, value)
        return self.single(prompt, time.perf_counter() - began)

    def spot(self) -> Found:
        """Prompts alike: the target's, trained on its pseudo-queries from the same start, to the sources'."""
        began = time.perf_counter()
        stage, target = self.stage, self.target
        pairs = list(pseudo_pairs(Unlabelled(stage.target(target)).documents(), "auto", self.seed))
        config = settings(stage, "query", self.seed, stage.plan.source)
        stored = trained(
            stage, f"sources-seed{self.seed}/pseudo-{folder_name(target)}", Unlabelled(stage.target(target)), target,
            config, self.start, documents={target: stage.documents(target, None, "base")}, pairs={target: pairs},
        )  # fmt: skip
        stage.cell(target, "query:pseudo", self.seed, self.configuration, lambda: self._own(stored))
        try:
            weights = spot_weights(stored.prompt, self.bank, start=self.start.prompt)
        except PromptError as error:
            stage.say(f"{target}: {error}; uniform weights instead")
            weights = uniform_weights(self.bank)
        return self.mixed(weights, seconds_of(stored) + time.perf_counter() - began)

    def _own(self, stored: StoredPrompt) -> Found:
        name = self.stage.carry("pseudo", stored)
        return self.found(
            name,
            trained_parameters=stored.prompt.count(),
            stored_bytes=int(stored.card["bytes"]),
            seconds=seconds_of(stored),
        )

    def router(self) -> Found:
        """RouterRetriever: each query by the expert whose pilot embedding is nearest."""
        began, stage = time.perf_counter(), self.stage
        library = build_pilots(
            stage.encoder, self.bank, {name: stage.source(name) for name in self.bank}, seed=self.seed,
            precision=stage.precision, documents={name: stage.documents(name, None, "base") for name in self.bank},
            query_length=stage.plan.query_length, document_length=stage.plan.document_length, quiet=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        queries = list(stage.target(self.target).queries("test"))
        how = {"precision": stage.precision, "max_length": stage.plan.query_length, "quiet": True}
        texts = [query.text for query in queries]
        asked = encode(stage.encoder, texts, "query", route=None, **how)  # type: ignore[arg-type]
        experts = route_queries(library, asked)
        vectors = encode_by_experts(stage.encoder, texts, experts, **how)
        documents = stage.documents(self.target, None, "base")
        run = exact_search(
            vectors, [q.query_id for q in queries], documents.vectors, 100, document_ids=documents.doc_ids
        )
        return Found(run, seconds=seconds, stored_bytes=sum(int(s.card["bytes"]) for s in self.bank.values()))
