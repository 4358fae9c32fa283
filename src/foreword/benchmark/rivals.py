"""Rivals and controls, all of one kind: query-side prompts over the base model's own document vectors.

Every domain's prompt is trained once for each seed, from one start, so that they may be mixed and averaged; a target
is given those of the other folds. The documents are embedded once, by the base model, for all of them: this is also the
table for whoever cannot embed a corpus again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from foreword.benchmark.primary import features
from foreword.benchmark.prompts import seconds_of, settings, trained
from foreword.benchmark.sources import Shared, pilots, shared_start, source_prompt
from foreword.benchmark.stage import Found, Stage
from foreword.benchmark.supervised import drawn
from foreword.collections.pseudo import frequencies_for, pseudo_pairs
from foreword.collections.records import TrainingPair
from foreword.collections.unlabelled import Unlabelled
from foreword.common.errors import PromptError
from foreword.prompts.encoder import encode
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Route, Weight, plain_weight
from foreword.prompts.store import StoredPrompt, folder_name
from foreword.retrieval.dense import exact_search
from foreword.transferring.combine import average_prompts, uniform_weights
from foreword.transferring.controls import oracle_single, random_weights
from foreword.transferring.decision import TransferConfig
from foreword.transferring.fit import FitConfig, embed_pair_documents, fit_weights, pseudo_scores, split_pairs
from foreword.transferring.fold import FoldConfig, fold
from foreword.transferring.prompt_similarity import spot_weights
from foreword.transferring.routing import encode_by_experts, route_queries
from foreword.transferring.similarity import Method, similarity, softmax_weights
from foreword.transferring.soups import greedy_soup, task_vectors

SINGLE = "single:"


def rivals(stage: Stage, targets: Sequence[str], seed: int) -> None:
    """All rivals on the targets, which are sources of one another."""
    start = shared_start(stage, seed)
    prompts = {name: source_prompt(stage, name, start, seed) for name in targets}
    for name, stored in prompts.items():
        stage.carry(name, stored)
    for number in range(stage.plan.folds):
        bank = {name: prompts[name] for name in stage.plan.sources(number)}
        shared = Shared(bank, start, cache(partial(pilots, stage, bank, seed)))
        for target in stage.plan.held_out(number):
            _Rivals(stage, target, shared, seed).run()
            own = _Rivals(stage, target, Shared({target: prompts[target]}, start, shared.pilots), seed)
            own.cell("supervised-query", partial(own.trained_alone, target, prompts[target], labels=None))


class _Rivals:
    """Every rival on one target with one seed."""

    def __init__(self, stage: Stage, target: str, shared: Shared, seed: int) -> None:
        self.stage, self.target, self.seed = stage, target, seed
        self.bank, self.start, self.pilots = shared.bank, shared.start, shared.pilots
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
        self.cell("query:fitted", partial(self.fitted, self.fit))
        self.cell("query:fitted-shrunk", partial(self.fitted, replace(self.fit, anchor=0.0, shrinkage=0.3)))
        self.cell("query:fitted-by-layer", partial(self.fitted, replace(self.fit, by_layer=True)))
        for recipe in ("span", "key-phrases", "mixed"):
            self.cell(f"query:fitted-{recipe}", partial(self.fitted, self.fit, recipe))
        for count in self.stage.plan.few:
            self.cell(f"query:fitted@{count}", partial(self.fitted_on_labels, count))
        if self.seed == self.stage.plan.seeds[0]:
            self.cell("query:fitted-folded", self.folded)
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

    def mixed(self, weights: Mapping[str, Weight], seconds: float = 0.0, **details: object) -> Found:
        """An exact mixture."""
        plain = {name: plain_weight(name, weight) for name, weight in weights.items()}
        single = {name: weight for name, weight in plain.items() if isinstance(weight, float)}
        details |= {} if single else {"weights_by_layer": plain}
        used = [self.bank[name] for name, weight in plain.items() if weight]
        return self.found(
            dict(weights),
            weights=single,
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

    def pairs(self, recipe: str = "auto") -> tuple[list[TrainingPair], list[TrainingPair]]:
        """Pseudo-queries to fit on, and to choose by."""
        text = Unlabelled(self.stage.target(self.target))
        frequencies = frequencies_for(recipe, text.documents())
        made = list(pseudo_pairs(text.documents(), recipe, self.seed, frequencies=frequencies))
        return split_pairs(made, self.fit)

    def oracle(self) -> Found:
        """The source that is best on the test queries themselves: a bound, no method."""
        scores = {}
        for name in self.bank:
            cell = self.stage.done(self.target, SINGLE + name, self.seed, self.configuration)
            assert cell is not None
            scores[name] = cell.measures["nDCG@10"]
        best = oracle_single(scores)
        size = int(self.bank[best].card["bytes"])
        return self.found(best, weights={best: 1.0}, stored_bytes=size, details={"looks_at": "test labels"})

    def fitted(self, config: FitConfig, recipe: str = "auto") -> Found:
        """Weights fitted on pseudo-queries; those of 0 are the base model, which is thus among the sources."""
        began = time.perf_counter()
        fitting, _ = self.pairs(recipe)
        fit = fit_weights(self.stage.encoder, uniform_weights(self.bank), fitting, config, document=None, quiet=True)
        return self.mixed(fit.weights, time.perf_counter() - began)

    def fitted_on_labels(self, count: int) -> Found:
        """Weights fitted on a few labelled pairs, among the documents of the pseudo-queries."""
        began = time.perf_counter()
        target = self.stage.target(self.target)
        pairs = drawn(list(target.pairs("train")), count, self.seed)
        config = replace(self.fit, batch_size=min(self.fit.batch_size, count))
        vectors = self.stage.documents(self.target, None, "base")
        fit = fit_weights(
            self.stage.encoder, uniform_weights(self.bank), pairs, config, document=None, corpus=vectors, quiet=True
        )
        return replace(self.mixed(fit.weights, time.perf_counter() - began), labels=count)

    def folded(self) -> Found:
        """The fitted mixture, distilled into one prompt on the target's text."""
        began = time.perf_counter()
        cell = self.stage.done(self.target, "query:fitted", self.seed, self.configuration)
        assert cell is not None
        folder = self.stage.output / "prompts" / f"folded-seed{self.seed}" / folder_name(self.target)
        stored = fold(
            self.stage.encoder, Unlabelled(self.stage.target(self.target)), dict(cell.weights), folder,
            sources=self.bank, config=FoldConfig(precision=self.stage.precision, seed=self.seed), quiet=True,
        )  # fmt: skip
        return self.single(stored.prompt, cell.seconds + time.perf_counter() - began, metrics=stored.card["metrics"])

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
        stage.cell(target, "query:pseudo", self.seed, self.configuration, partial(self.trained_alone, "pseudo", stored))
        try:
            weights = spot_weights(stored.prompt, self.bank, start=self.start.prompt)
        except PromptError as error:
            stage.say(f"{target}: {error}; uniform weights instead")
            weights = uniform_weights(self.bank)
        return self.mixed(weights, seconds_of(stored) + time.perf_counter() - began)

    def trained_alone(self, name: str, stored: StoredPrompt, **what: object) -> Found:
        """A prompt trained for this target alone."""
        return self.found(
            self.stage.carry(name, stored),
            trained_parameters=stored.prompt.count(),
            stored_bytes=int(stored.card["bytes"]),
            seconds=seconds_of(stored),
            **what,
        )

    def router(self) -> Found:
        """RouterRetriever: each query by the expert whose pilot embedding is nearest."""
        stage = self.stage
        library, seconds = self.pilots()
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
