"""Rivals and controls, all of one kind: query-side prompts over the base model's own document vectors.

Every domain's prompt is trained once for each seed, from one start, so that they may be mixed and averaged; a target
is given those of the other folds. The documents are embedded once, by the base model, for all of them: this is also the
table for whoever cannot embed a corpus again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import islice

import numpy as np

from foreword.collections.collection import TrainingPair
from foreword.collections.pseudo import frequencies_for, pseudo_pairs
from foreword.collections.views import Unlabelled
from foreword.errors import ForewordError, PromptError
from foreword.lab.experiment import Findings, seconds_of
from foreword.lab.routing import PilotLibrary, build_pilots, route_queries, spot_weights
from foreword.lab.stage import Stage, drawn
from foreword.prompts.encoder import encode
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Route, Weight, plain_weight
from foreword.prompts.start import new_prompt
from foreword.prompts.store import StoredPrompt, folder_name, load_prompt, save_prompt
from foreword.retrieval.search import exact_search
from foreword.training.vectors import DocumentVectors
from foreword.transferring.config import DistilConfig, FitConfig, Similarity, TransferConfig
from foreword.transferring.distil import distil
from foreword.transferring.fit import embed_pair_documents, fit_weights, pseudo_scores, split_pairs
from foreword.transferring.reach import similarity, softmax_weights
from foreword.transferring.transfer import average_prompts, uniform_weights

SINGLE = "single:"
PILOT_QUERIES = 150
"""Training queries of each source that say which expert is best for what."""


def rivals(stage: Stage, targets: Sequence[str], seed: int) -> None:
    """All rivals on the targets, which are sources of one another."""
    start = shared_start(stage, seed)
    prompts = {name: source_prompt(stage, name, start, seed) for name in targets}
    for name, stored in prompts.items():
        stage.carry(name, stored)
    for number in range(stage.plan.folds):
        bank = {name: prompts[name] for name in stage.plan.sources(number)}
        library = cache(partial(pilots, stage, bank, seed))
        for target in stage.plan.held_out(number):
            own = _Rivals(stage, target, bank, start, library, seed)
            own.run()
            own.cell("supervised-query", partial(own.trained_alone, target, prompts[target], labels=None))


class _Rivals:
    """Every rival on one target with one seed."""

    def __init__(
        self, stage: Stage, target: str, bank: Mapping[str, StoredPrompt], start: StoredPrompt,
        library: Callable[[], tuple[PilotLibrary, float]], seed: int,
    ) -> None:  # fmt: skip
        self.stage, self.target, self.seed = stage, target, seed
        self.bank, self.start, self.library = bank, start, library
        self.configuration = stage.plan.digest("source")
        self.fit = FitConfig(**stage.common(seed))

    def run(self) -> None:
        """The cells."""
        for name in self.bank:
            self.cell(SINGLE + name, partial(self.alone, name))
        self.cell("query:oracle-single", self.oracle)
        self.cell("query:uniform", lambda: self.mixed(uniform_weights(self.bank)))
        self.cell("query:random", lambda: self.mixed(random_weights(self.bank, self.seed)))
        methods: tuple[Similarity, ...] = ("mean", "pairwise")
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

    def cell(self, system: str, make: Callable[[], Findings]) -> None:
        """A cell of this target and seed."""
        self.stage.cell(self.target, system, self.seed, self.configuration, make)

    def found(self, route: Route, **what: object) -> Findings:
        """What a route finds among the base model's documents."""
        vectors = self.stage.documents(self.target, None, "base")
        return Findings(self.stage.search(self.stage.collection(self.target), route, vectors), **what)  # type: ignore[arg-type]

    def mixed(self, weights: Mapping[str, Weight], seconds: float = 0.0, **details: object) -> Findings:
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

    def single(self, prompt: Prompt, seconds: float = 0.0, **details: object) -> Findings:
        """One prompt made of the bank's."""
        name = self.stage.carry("made of the bank", StoredPrompt(prompt, {"domain": "made of the bank"}))
        size = max(int(stored.card["bytes"]) for stored in self.bank.values())
        return self.found(name, stored_bytes=size, seconds=seconds, details=details)

    def alone(self, name: str) -> Findings:
        """One source's prompt as it is; how near it is: the cosine of the domains' mean base embeddings."""
        near = similarity(self.stage.features(self.target), self.stage.features(name))
        size = int(self.bank[name].card["bytes"])
        return self.found(name, weights={name: 1.0}, similarity=near, stored_bytes=size)

    def by_similarity(self, method: Similarity) -> Findings:
        """The mixture weighted by similarity of documents."""
        mine = self.stage.features(self.target)
        values = {name: similarity(mine, self.stage.features(name), method) for name in self.bank}
        config = TransferConfig()
        return self.mixed(softmax_weights(values, top_k=config.top_k, temperature=config.temperature))

    def scaled(self, scale: float) -> Findings:
        """The start and the mean of what the sources learnt, so many times over."""
        return self.single(task_vectors(self.bank, self.start, uniform_weights(self.bank), scale))

    def pairs(self, recipe: str = "auto") -> tuple[list[TrainingPair], list[TrainingPair]]:
        """Pseudo-queries to fit on, and to choose by."""
        text = Unlabelled(self.stage.collection(self.target))
        frequencies = frequencies_for(recipe, text.documents())
        made = list(pseudo_pairs(text.documents(), recipe, self.seed, frequencies=frequencies))
        return split_pairs(made, self.fit)

    def oracle(self) -> Findings:
        """The source that is best on the test queries themselves: a bound, no method."""
        scores = {}
        for name in self.bank:
            cell = self.stage.done(self.target, SINGLE + name, self.seed, self.configuration)
            assert cell is not None
            scores[name] = cell.measures["nDCG@10"]
        best = oracle_single(scores)
        size = int(self.bank[best].card["bytes"])
        return self.found(best, weights={best: 1.0}, stored_bytes=size, details={"looks_at": "test labels"})

    def fitted(self, config: FitConfig, recipe: str = "auto") -> Findings:
        """Weights fitted on pseudo-queries; those of 0 are the base model, which is thus among the sources."""
        began = time.perf_counter()
        fitting, _ = self.pairs(recipe)
        fit = fit_weights(self.stage.encoder, uniform_weights(self.bank), fitting, config, document=None, quiet=True)
        return self.mixed(fit.weights, time.perf_counter() - began)

    def fitted_on_labels(self, count: int) -> Findings:
        """Weights fitted on a few labelled pairs, among the documents of the pseudo-queries."""
        began = time.perf_counter()
        target = self.stage.collection(self.target)
        pairs = drawn(list(target.pairs("train")), count, self.seed)
        config = replace(self.fit, batch_size=min(self.fit.batch_size, count))
        vectors = self.stage.documents(self.target, None, "base")
        fit = fit_weights(
            self.stage.encoder, uniform_weights(self.bank), pairs, config, document=None, corpus=vectors, quiet=True
        )
        return replace(self.mixed(fit.weights, time.perf_counter() - began), labels=count)

    def folded(self) -> Findings:
        """The fitted mixture, distilled into one prompt on the target's text."""
        began = time.perf_counter()
        cell = self.stage.done(self.target, "query:fitted", self.seed, self.configuration)
        assert cell is not None
        folder = self.stage.output / "prompts" / f"folded-seed{self.seed}" / folder_name(self.target)
        stored = distil(
            self.stage.encoder, Unlabelled(self.stage.collection(self.target)), dict(cell.weights), folder,
            sources=self.bank, config=DistilConfig(precision=self.stage.precision, seed=self.seed), quiet=True,
        )  # fmt: skip
        return self.single(stored.prompt, cell.seconds + time.perf_counter() - began, metrics=stored.card["metrics"])

    def pseudo_means(self, routes: Mapping[str, Route]) -> dict[str, float]:
        """Mean nDCG@10 of routes on held-out pseudo-queries."""
        _, held = self.pairs()
        vectors = embed_pair_documents(self.stage.encoder, None, held, self.fit)
        scores = partial(pseudo_scores, self.stage.encoder, pairs=held, config=self.fit, documents=vectors)
        return {name: float(np.mean(list(scores(route=route).values()))) for name, route in routes.items()}

    def best_single(self) -> Findings:
        began = time.perf_counter()
        means = self.pseudo_means({name: name for name in self.bank})
        best = max(sorted(means), key=lambda name: means[name])
        return self.mixed({best: 1.0}, time.perf_counter() - began, pseudo=means)

    def soup(self) -> Findings:
        began = time.perf_counter()

        def value(prompt: Prompt) -> float:
            name = self.stage.carry("soup", StoredPrompt(prompt, {"domain": "soup"}))
            return self.pseudo_means({name: name})[name]

        means = self.pseudo_means({name: name for name in self.bank})
        prompt = greedy_soup(self.bank, means, value)
        return self.single(prompt, time.perf_counter() - began)

    def spot(self) -> Findings:
        """Prompts alike: the target's, trained on its pseudo-queries from the same start, to the sources'."""
        began = time.perf_counter()
        stage, target = self.stage, self.target
        pairs = list(pseudo_pairs(Unlabelled(stage.collection(target)).documents(), "auto", self.seed))
        config = stage.settings("query", self.seed, stage.plan.source)
        stored = stage.trained(
            f"prompts/sources-seed{self.seed}/pseudo-{folder_name(target)}",
            Unlabelled(stage.collection(target)), target, config, self.start,
            documents={target: stage.documents(target, None, "base")}, pairs={target: pairs},
        )  # fmt: skip
        stage.cell(target, "query:pseudo", self.seed, self.configuration, partial(self.trained_alone, "pseudo", stored))
        try:
            weights = spot_weights(stored.prompt, self.bank, start=self.start.prompt)
        except PromptError as error:
            stage.say(f"{target}: {error}; uniform weights instead")
            weights = uniform_weights(self.bank)
        return self.mixed(weights, seconds_of(stored) + time.perf_counter() - began)

    def trained_alone(self, name: str, stored: StoredPrompt, **what: object) -> Findings:
        """A prompt trained for this target alone."""
        return self.found(
            self.stage.carry(name, stored),
            trained_parameters=stored.prompt.count(),
            stored_bytes=int(stored.card["bytes"]),
            seconds=seconds_of(stored),
            **what,
        )

    def router(self) -> Findings:
        """RouterRetriever: each query by the expert whose pilot embedding is nearest."""
        stage = self.stage
        library, seconds = self.library()
        queries = list(stage.collection(self.target).queries("test"))
        how = {"precision": stage.precision, "max_length": stage.plan.query_length, "quiet": True}
        texts = [query.text for query in queries]
        asked = encode(stage.encoder, texts, "query", route=None, **how)  # type: ignore[arg-type]
        experts = route_queries(library, asked)
        vectors = encode(stage.encoder, texts, "query", domains=experts, **how)  # type: ignore[arg-type]
        documents = stage.documents(self.target, None, "base")
        run = exact_search(
            vectors, [q.query_id for q in queries], documents.vectors, 100, document_ids=documents.doc_ids
        )
        return Findings(run, seconds=seconds, stored_bytes=sum(int(s.card["bytes"]) for s in self.bank.values()))


def pilots(stage: Stage, bank: Mapping[str, StoredPrompt], seed: int) -> tuple[PilotLibrary, float]:
    """RouterRetriever's pilot embeddings of a bank, and the seconds that they took."""
    began = time.perf_counter()
    library = build_pilots(
        stage.encoder, bank, {name: stage.source(name) for name in bank},
        {name: stage.documents(name, None, "base") for name in bank}, limit=PILOT_QUERIES, seed=seed,
        precision=stage.precision, query_length=stage.plan.query_length, quiet=True,
    )  # fmt: skip
    return library, time.perf_counter() - began


def shared_start(stage: Stage, seed: int) -> StoredPrompt:
    """The one prompt that all sources start from."""
    folder = stage.output / "prompts" / f"sources-seed{seed}" / "start"
    if not (folder / "prompt.json").exists():
        spec = stage.new_start(seed, sides="query").spec
        texts = [doc.content for name in stage.plan.domains for doc in islice(stage.source(name).documents(), 8)]
        made = new_prompt(stage.encoder, spec, start="words", texts=texts, seed=seed)
        save_prompt(folder, made, stage.encoder, "start", record={"start": {"from": "words", "seed": seed}})
    return load_prompt(folder, stage.encoder)


def source_prompt(stage: Stage, name: str, start: StoredPrompt, seed: int) -> StoredPrompt:
    """A domain's own query-side prompt, over the base model's document vectors."""
    every = stage.documents(name, None, "base")
    source = stage.source(name)
    kept = {document.doc_id for document in source.documents()}
    rows = [row for row, doc_id in enumerate(every.doc_ids) if doc_id in kept]
    vectors = DocumentVectors([every.doc_ids[row] for row in rows], every.vectors[rows])
    config = stage.settings("query", seed, stage.plan.source)
    folder = f"prompts/sources-seed{seed}/{folder_name(name)}"
    return stage.trained(folder, source, name, config, start, documents={name: vectors})


# Combinations of parameters instead of functions: task arithmetic and greedy soups.
#
# Both are for prompts trained from one start (see `foreword.transferring.transfer.average_prompts`, which refuses
# others). Where all sources share one document part, so does what is made of them, up to rounding: route the documents
# by the source that `shared_document_source` names, and their vectors serve for every combination.


def task_vectors(
    bank: Mapping[str, StoredPrompt], start: Prompt | StoredPrompt, weights: Mapping[str, float], scale: float = 1.0
) -> Prompt:
    """`start + scale * sum_i w_i (P_i - start)`: how the sources moved from the start, added to it.

    Task arithmetic (Ilharco et al. 2023, 2212.04089), of prompts as in Belanec et al. 2024 (2408.01119). With weights
    that add up to 1 and scale 1 it is the weighted average; with scale 0, the start; above 1, further on.

    Args:
        start: what they were trained from, such as the multitask prompt; it may encode both sides where they have
            only a query part.
        weights: of some or all of them, taken as they are (a sum of 1 is not asked for), with a sum above 0.

    Raises:
        PromptError: an unknown source, different starts or structures, another start than theirs, or weights that
            add up to nothing.
    """
    _check_names(bank, weights)
    origin = start.prompt if isinstance(start, StoredPrompt) else start
    average = average_prompts(bank, weights)  # the sum, over the sum of the weights
    digest = origin.digest()
    cards = {name: bank[name].card for name, weight in weights.items() if weight}
    # As it was stored, or as it was trained: they differ where a query part was taken out of a prompt for both sides.
    known = {name: {(card.get("start") or {}).get("digest"), card.get("start_digest")} for name, card in cards.items()}
    strangers = [name for name, digests in known.items() if digest not in digests]
    if strangers:
        raise PromptError(
            f"{', '.join(strangers)}: not trained from the start that was given (digest {digest[:12]}...); give the "
            "prompt that their cards name as their start"
        )
    means = average.tensors()
    spec = average.spec
    parts = {part: origin.part("document" if part == "document" else "query") for part in spec.parts}
    fits = spec.sides != "shared" or origin.spec.sides == "shared"
    if replace(origin.spec, sides=spec.sides) != spec or not fits or None in parts.values():
        raise PromptError(f"the start is {origin.spec}, which no prompt of {spec} can be trained from")
    named = {f"{part}.{n}": tensor.detach() for part, own in parts.items() for n, tensor in (own or {}).items()}
    first = {name: values.to(means[name].device) for name, values in named.items()}
    factor = scale * sum(weights.values())
    return Prompt(average.spec, {name: first[name] + factor * (mean - first[name]) for name, mean in means.items()})


def greedy_ingredients(
    bank: Mapping[str, StoredPrompt], order_scores: Mapping[str, float], evaluate: Callable[[Prompt], float]
) -> list[str]:
    """The sources of a greedy soup, in the order in which they went in; see `greedy_soup`."""
    _check_names(bank, order_scores)
    average_prompts(bank, dict.fromkeys(order_scores, 1.0))  # refuses, before anything is evaluated
    kept: list[str] = []
    best = -float("inf")
    for name in sorted(order_scores, key=lambda name: (-order_scores[name], name)):
        score = evaluate(average_prompts(bank, dict.fromkeys([*kept, name], 1.0)))
        if not kept or score >= best:
            kept, best = [*kept, name], score
    return kept


def greedy_soup(
    bank: Mapping[str, StoredPrompt], order_scores: Mapping[str, float], evaluate: Callable[[Prompt], float]
) -> Prompt:
    """The average of sources that were added one by one, each kept when the score does not fall.

    Greedy soups (Wortsman et al. 2022, 2203.05482, recipe 1). The paper's held-out labels are, for a target without
    labels, its held-out pseudo-queries.

    Args:
        order_scores: source -> its own held-out score; they are tried from the highest on, equal ones by name. The
            first always goes in. Sources without a score are left out.
        evaluate: the held-out score of a prompt, higher for better; called once for each source.

    Raises:
        PromptError: an unknown source, none at all, or different starts or structures.
    """
    return average_prompts(bank, dict.fromkeys(greedy_ingredients(bank, order_scores, evaluate), 1.0))


def _check_names(bank: Mapping[str, StoredPrompt], names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in bank]
    if unknown:
        raise PromptError(f"no source {', '.join(unknown)} in the bank; there are: {', '.join(bank) or 'none'}")


def random_weights(sources: Iterable[str], seed: int) -> dict[str, float]:
    """Weights drawn from Dirichlet(1, ..., 1), every mixture being as likely; they add up to 1.

    Args:
        sources: names; their order does not matter, each is drawn for in order of the names.

    Raises:
        ForewordError: no sources.
    """
    names = sorted(set(sources))
    if not names:
        raise ForewordError("no sources to weigh; give the name of one at least")
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(names)))
    return {name: float(share) for name, share in zip(names, shares, strict=True)}


def oracle_single(scores: Mapping[str, float]) -> str:
    """The source with the highest score; of equal ones the first by name.

    With scores on the target's judgements it looks at the labels that are to be predicted: no method, but a bound
    on what choosing one source can reach.

    Raises:
        ForewordError: no scores, or one that is not finite.
    """
    bad = [name for name, score in scores.items() if not math.isfinite(score)]
    if bad or not scores:
        raise ForewordError(f"{len(scores)} scores, not finite: {', '.join(bad) or 'none'}; expected one at least")
    return min(scores, key=lambda name: (-scores[name], name))
