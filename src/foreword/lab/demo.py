"""Run the demo: multitask prompt, a prompt per domain, transfer, retrieval, evaluation, report."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from foreword.collections.collection import Collection
from foreword.collections.registry import catalogue, load
from foreword.evaluation.influence import compare_searches
from foreword.evaluation.measures import first_relevant_ranks, paired_randomization
from foreword.files import as_json, atomic_write, owns, write_json
from foreword.lab.experiment import Experiment, seconds_of
from foreword.prompts.encoder import resolve_precision
from foreword.prompts.routes import Route
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, folder_name, library_versions
from foreword.report import markdown_table, write_plots, write_report
from foreword.report.plots import FOLDER
from foreword.retrieval.runs import Run, hybrid, read_run, trec_name, write_qrels
from foreword.settings import DEFAULT_BACKBONE, Count, Natural, Positive, Settings, Tokens
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.vectors import DocumentVectors
from foreword.transferring.config import FitConfig, ProofConfig, TransferConfig
from foreword.transferring.reach import Array, document_features, similarity, unit_rows
from foreword.transferring.transfer import Transfer, transfer


@dataclass(frozen=True)
class DemoConfig(Settings):
    """The demo's settings. Defaults take some 12 minutes on two processor cores with bfloat16.

    Attributes:
        backbone: a local folder, a hub name, or the packaged MiniLM's name.
        sources: collections with labels.
        target: a collection held out of all of them; the table is about it.
        others: further held-out collections, for transfer alone: no prompt of their own is trained.
        multitask_steps: of the prompt trained on all sources, both sides.
        source_steps: of each source's own query-side prompt, which starts from it.
        source_rate: the learning rate of those, low since the start is good already.
        query_steps: of the target's supervised query-side prompt.
        both_steps: of the target's supervised both-side prompt.
        query_length: tokens a query is cut to.
        document_length: tokens a document is cut to when it is indexed: the backbone's own limit.
        training_length: tokens a document is cut to in training, where it is embedded at every step.
        similarity_documents: of each source, for the similarity of domains.
        measures: in the table.
        searches: real searches shown before and after.
        seed: of every random choice.
    """

    backbone: str = DEFAULT_BACKBONE
    sources: tuple[str, ...] = ("pydoc/numpy", "pydoc/scipy", "pydoc/pandas", "pydoc/sklearn")
    target: str = "pydoc/torch"
    others: tuple[str, ...] = ("pydoc/huggingface_hub", "pydoc/datasets")
    multitask_steps: Count = 60
    source_steps: Count = 40
    source_rate: Positive = 0.01
    query_steps: Count = 150
    both_steps: Count = 110
    query_length: Tokens = 64
    document_length: Tokens = 256
    training_length: Tokens = 128
    similarity_documents: Count = 200
    measures: tuple[str, ...] = ("nDCG@10", "R@100")
    searches: Natural = 3
    seed: int = 0

    @classmethod
    def quick(cls) -> Self:
        """Fewer sources, targets and steps."""
        return cls(
            sources=("pydoc/numpy", "pydoc/pandas", "pydoc/sklearn"),
            others=(),
            multitask_steps=24,
            source_steps=20,
            query_steps=40,
            both_steps=16,
            document_length=128,
            similarity_documents=100,
        )


MULTITASK = "multitask"
BANK, PROMPTS, RUNS = "bank", "prompts", "runs"
"""Folders of the output. The sources' bank lies apart, so that it can be used for transfer."""
BASELINE, AFTER = "base", "supervised-both"
SHOWN = 3  # hits of each search that is shown
TRANSFERS = {
    "transfer-uniform": "uniform",
    "transfer-similarity": "similarity",
    "transfer-fitted": "fitted",
    "best-single": "best-single",
}


class Demo(Experiment):
    """The state of one demo; `run_demo` says what happens in which order."""

    def __init__(self, config: DemoConfig, output: Path, data: Path | None, quiet: bool) -> None:
        super().__init__(output, data=data, quiet=quiet)
        self.config, self.query_length, self.document_length = config, config.query_length, config.training_length
        self.say(f"loading {len(config.sources)} sources and the held-out {config.target}")
        self.target = self.collection(config.target)
        self.others = [self.collection(name) for name in config.others]
        held_out = [self.target, *self.others]
        self.sources = [load(name, data=data, exclude=held_out) for name in config.sources]
        self.far: list[Collection] = []
        if config.others:  # not in the quick demo: the classic collections here are far from any documentation
            here = [entry.id for entry in catalogue(data) if entry.group == "glasgow" and entry.available]
            self.far = [self.collection(name) for name in here]
        self.encoder = self.loaded(config.backbone)
        self.precision = resolve_precision("auto", self.encoder.device)
        self.rows: list[dict[str, Any]] = []
        self.per_query: dict[str, dict[str, Any]] = {}
        self.bank: dict[str, StoredPrompt] = {}
        self.vectors: dict[tuple[str, str], DocumentVectors] = {}
        self.transfers: list[tuple[str, Transfer]] = []
        self.features: dict[str, Array] = {}

    # -- pieces ------------------------------------------------------------------------------------------------

    def settings(self, side: Any, steps: int, *, dev: int = 50, **changes: Any) -> TrainingConfig:
        """The training settings of a part; `dev` queries of each domain for both sides, all of them for one."""
        return TrainingConfig.default(
            side,
            steps=steps,
            evaluate_every=-(-steps // 3) if side == "query" else -(-steps // 2),
            dev_queries=300 if side == "query" else dev,
            dev_documents=2 * dev,  # embedded anew at each evaluation of both sides
            **self.common(self.config.seed),
            **changes,
        )

    def documents(self, collection: Collection, route: str | None) -> DocumentVectors:
        """Document vectors by the base model (None) or a prompt, embedded once."""
        key = (collection.id, route or "")
        if key not in self.vectors:
            length = self.config.training_length if collection in self.sources else self.config.document_length
            self.vectors[key] = self.embedded(collection, route, length)
        return self.vectors[key]

    def timed(self, collection: Collection, route: Route, documents: str | None) -> tuple[Run, float]:
        """Hits of the test queries by `route` among documents embedded by the prompt `documents`, and the seconds."""
        began = time.perf_counter()
        return self.search(collection, route, self.documents(collection, documents)), time.perf_counter() - began

    def begin(self, collection: Collection) -> None:
        """Write the test judgements of a collection beside its runs."""
        write_qrels(self.output / RUNS / f"{trec_name(collection.id)}.qrels", collection.qrels("test"))
        self.per_query[collection.id] = {
            "measure": self.config.measures[0],
            "baseline": BASELINE,
            "systems": {},
            "ranks": {},
            "texts": {query.query_id: query.text for query in collection.queries("test")},
        }

    def row(
        self, system: str, collection: Collection, run: Run, seconds: float, prompts: Sequence[StoredPrompt] = ()
    ) -> None:
        """Score a run on the test split, record its rows and say it.

        Args:
            system: the row's name.
            collection: what was searched.
            run: the hits.
            seconds: to train or fit the system, and to retrieve with it.
            prompts: what has to be stored for it.
        """
        path = self.output / RUNS / f"{system}.{trec_name(collection.id)}.trec"
        result = self.scored(collection, system, run, path, self.config.measures)
        known, first = self.per_query[collection.id], self.config.measures[0]
        values, base = dict(result.per_query[first]), known["systems"].get(BASELINE)
        known["systems"][system] = values
        known["ranks"][system] = first_relevant_ranks(run, collection.qrels("test"))
        test = None if base is None or base == values else paired_randomization(values, base)
        for measure, value in result.values.items():
            row = {
                "system": system,
                "collection": collection.id,
                "measure": measure,
                "value": value,
                "seconds": round(seconds, 2),
                "trained_parameters": sum(p.card["trained_parameters"] for p in prompts),
                "bytes": sum(p.card["bytes"] for p in prompts),
            }
            if test is not None and measure == first:
                row |= {"difference": test.difference, "p_value": test.p_value}
            self.rows.append(row)
        said = ", ".join(f"{name} {value:.3f}" for name, value in result.values.items())
        self.say(f"{collection.id}: {system}: {said}")

    # -- steps -------------------------------------------------------------------------------------------------

    def without_training(self, collection: Collection) -> None:
        """The rows `bm25`, `base` and `base+bm25`."""
        self.begin(collection)
        base, base_seconds = self.timed(collection, None, None)
        self.row("base", collection, base, base_seconds)
        began = time.perf_counter()
        bm25 = self.bm25(collection)
        bm25_seconds = time.perf_counter() - began
        self.row("bm25", collection, bm25, bm25_seconds)
        self.row("base+bm25", collection, hybrid(base, bm25, k=100), base_seconds + bm25_seconds)

    def train_sources(self) -> float:
        """The multitask prompt, and each source's own query-side prompt over the documents that it embeds."""
        start = StartConfig(PromptSpec(sides="untied"), seed=self.config.seed)
        config = self.settings("both", self.config.multitask_steps, several=True)
        multitask = self.trained(f"{BANK}/{MULTITASK}", self.sources, MULTITASK, config, start)
        self.bank[MULTITASK] = multitask
        self.carry(MULTITASK, multitask)
        rate = self.config.source_rate
        config = self.settings("query", self.config.source_steps, document_side="start", learning_rate=rate)
        for source in self.sources:
            vectors = {source.id: self.documents(source, MULTITASK)}
            folder = f"{BANK}/{folder_name(source.id)}"
            self.bank[source.id] = self.trained(folder, source, source.id, config, multitask, documents=vectors)
        return seconds_of(multitask)

    def similarities(self) -> dict[str, Any]:
        """The report's heatmap: likeness of every held-out domain to every source, by base embeddings."""
        self.say("similarity of the domains' documents")
        held_out = [self.target, *self.others, *self.far]
        for collection in held_out:
            self.features[collection.id] = unit_rows(self.documents(collection, None).vectors)
        how: dict[str, Any] = {"limit": self.config.similarity_documents, "max_length": self.document_length}
        how |= {"precision": self.precision, "quiet": self.quiet}
        for source in self.sources:
            self.features[source.id] = document_features(self.encoder, source, **how)
        return {
            "method": "cosine of mean base embeddings of the documents",
            "domains": [c.id for c in self.sources],
            "targets": [c.id for c in held_out],
            "values": [
                [round(similarity(self.features[target.id], self.features[source.id]), 4) for target in held_out]
                for source in self.sources
            ],
        }

    def transfers_to(self, collection: Collection, seconds: float) -> None:
        """The rows of transfer; a collection's labels are looked at only to score them."""
        run, taken = self.timed(collection, MULTITASK, MULTITASK)
        self.row("multitask", collection, run, seconds + taken, prompts=[self.bank[MULTITASK]])
        sources = {name: stored for name, stored in self.bank.items() if name != MULTITASK}
        for system, method in TRANSFERS.items():
            if method == "best-single" and collection is not self.target:  # it takes a while, and is a control
                continue
            self.combine(system, method, collection, self.bank if method == "fitted" else sources)

    def combine(self, system: str, method: Any, collection: Collection, bank: Mapping[str, StoredPrompt]) -> None:
        """The row of one way of combining a bank's prompts."""
        config = TransferConfig(method=method, fit=FitConfig(**self.common(self.config.seed)))
        result = transfer(self.encoder, collection, bank, config, features=self.features, quiet=self.quiet)
        # Every source's document side is the multitask prompt's, so one embedding of the documents serves all.
        run, taken = self.timed(collection, result.route, MULTITASK if result.weights else None)
        # The multitask prompt embeds the documents, whatever its weight on the query side.
        needed = {MULTITASK, *result.weights} if result.weights else set()
        used = [stored for name, stored in self.bank.items() if name in needed]
        self.row(system, collection, run, result.seconds + taken, prompts=used)
        self.transfers.append((system, result))

    def with_target_texts(self) -> None:
        """The rows of prompts trained on the target: on its text, and on its labels."""
        multitask, target = self.bank[MULTITASK], self.target
        proof = ProofConfig(**self.common(self.config.seed))
        result = transfer(
            self.encoder, target, {MULTITASK: multitask}, TransferConfig("multitask", proof=proof),
            features=self.features, quiet=self.quiet,
        )  # fmt: skip
        name = MULTITASK if result.weights else None
        run, taken = self.timed(target, name, name)
        self.row("transfer", target, run, result.seconds + taken, prompts=[multitask] if result.weights else [])
        self.transfers.append(("transfer", result))

        start = StartConfig(PromptSpec(sides="query"), seed=self.config.seed)
        config = self.settings("query", self.config.query_steps)
        self.tuned("supervised-query", config, start, None, documents={target.id: self.documents(target, None)})
        config = self.settings("both", self.config.both_steps, dev=150)
        self.tuned("supervised-both", config, multitask, "supervised-both")

    def tuned(
        self, system: str, config: TrainingConfig, start: StoredPrompt | StartConfig, route: str | None, **how: Any
    ) -> None:
        """The row of a prompt trained on the target's labels, among documents that the prompt `route` embeds."""
        stored = self.trained(f"{PROMPTS}/{system}", self.target, system, config, start, **how)
        self.carry(system, stored)
        run, taken = self.timed(self.target, system, route)
        self.row(system, self.target, run, seconds_of(stored) + taken, prompts=[stored])

    # -- results -----------------------------------------------------------------------------------------------

    def results(self, similarities: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that `results.json` and the report hold."""
        fitted = [result for system, result in self.transfers if system == "transfer-fitted"]
        return {
            "title": f"Foreword demo: {self.target.id}",
            "configuration": {
                **as_json(self.config.as_dict()),
                "backbone": self.bank[MULTITASK].card["backbone"],
                "precision": self.precision,
                "collections": {c.id: dict(c.facts) for c in [*self.sources, self.target, *self.others, *self.far]},
                "seconds": round(self.seconds, 1),
            },
            "versions": library_versions(),
            "created": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "headline": self.headline(),
            "rows": self.rows,
            "similarity": similarities,
            "per_query": self.per_query,
            "curves": list(self.curves.values()),
            "weights": [
                {"target": result.target, "system": system, "weights": dict(result.weights)}
                for system, result in self.transfers
            ],
            "advice": [
                {"target": result.target, "choice": result.advice, "reason": result.reason} for result in fitted
            ],
            "searches": self.searches(),
        }

    def headline(self) -> str:
        """The demo's outcome in a sentence."""
        measure, target = self.config.measures[0], self.target.id
        own = [row for row in self.rows if (row["collection"], row["measure"]) == (target, measure)]
        values = {row["system"]: row["value"] for row in own}
        base, without, best = (values[name] for name in (BASELINE, "transfer", AFTER))
        return (
            f"{target}, {measure}: {base:.3f} with the base model, {without:.3f} by transfer without any of its "
            f"labels, {best:.3f} with a prompt trained on its labels."
        )

    def searches(self) -> list[dict[str, Any]]:
        """Test queries whose relevant document moved, drawn by seed, with the hits before and after."""
        systems = (BASELINE, AFTER)
        before, after = (self.output / RUNS / f"{name}.{trec_name(self.target.id)}.trec" for name in systems)
        old, new = (self.per_query[self.target.id]["systems"][name] for name in systems)
        moved = [query for query in old if old[query] != new[query]]
        seed, count = self.config.seed, self.config.searches
        drawn = sorted(moved, key=lambda query: hashlib.sha256(f"{seed}\x1f{query}".encode()).digest())[:count]
        qrels = self.target.qrels("test")
        pairs = compare_searches(
            read_run(before), read_run(after), qrels, self.target, drawn, systems=systems, hits=SHOWN
        )
        return [pair.as_dict() for pair in pairs]


@owns("output")
def run_demo(config: DemoConfig, output: Path, *, data: Path | None = None, quiet: bool = False) -> dict[str, Any]:
    """Run the demo; `output` gets `results.json`, `table.md`, `report.html`, `plots/`, `runs/`, `bank/`, `prompts/`.

    Args:
        config: what to do.
        output: made when missing; finished trainings found there are used again.
        data: the folder of collections that are not downloaded.
        quiet: no progress.

    Returns:
        What `results.json` holds.
    """
    (output / "results.json").unlink(missing_ok=True)  # until there are new ones: no figure without its run
    for path in (output / RUNS).glob("*"):
        if path.suffix in (".trec", ".qrels"):
            path.unlink()
    demo = Demo(config, output, data, quiet)
    for collection in [demo.target, *demo.others, *demo.far]:
        demo.without_training(collection)
    seconds = demo.train_sources()
    similarities = demo.similarities()
    for collection in [demo.target, *demo.others, *demo.far]:
        demo.transfers_to(collection, seconds)
    demo.with_target_texts()
    results = demo.results(similarities)
    write_json(output / "results.json", results)
    with atomic_write(output / "table.md") as file:
        file.write(markdown_table(results["rows"], list(config.measures)))
    write_report(output / "report.html", results)
    write_plots(output / FOLDER, results)
    if not quiet:
        show(results, output)
    return results


def show(results: Mapping[str, Any], output: Path) -> None:
    """Print the table, the advice for each target, and the searches."""
    from rich.markup import escape

    from foreword.report import format_table
    from foreword.terminal import console as terminal

    console = terminal()
    console.print(format_table(results["rows"], results["configuration"]["measures"], title=results["title"]))
    console.print(results["headline"], highlight=False, markup=False)
    console.print()
    for advice in results["advice"]:
        said = f"{advice['target']}: [bold]{advice['choice']}[/bold], {escape(advice['reason'])}"
        console.print(said, highlight=False)
    for search in results["searches"]:
        console.print(f"\n[bold]{escape(search['query'])}[/bold]  ({escape(str(search['relevant']))})", highlight=False)
        for label, hits in ((search["before_system"], search["before"]), (search["after_system"], search["after"])):
            names = [f"{'*' if hit['relevant'] else ''}{hit['name']}" for hit in hits]
            console.print(f"  {label:>16}: {', '.join(names)}", highlight=False, markup=False)
    console.print(f"\n* relevant. Written: {output / 'results.json'}, {output / 'report.html'}, {output / 'runs'}/")
