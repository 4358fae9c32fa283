"""Run the demo: multitask prompt, a prompt per domain, transfer, retrieval, evaluation, report."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from foreword.collections.collection import Collection
from foreword.collections.registry import catalogue, load
from foreword.errors import OtherTrainingError
from foreword.evaluation.influence import compare_searches
from foreword.evaluation.measures import evaluate_run, first_relevant_ranks, paired_randomization
from foreword.files import atomic_write, write_json
from foreword.prompts.encoder import resolve_precision, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.routes import Route
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, folder_name, library_versions
from foreword.report import markdown_table, write_plots, write_report
from foreword.report.plots import FOLDER
from foreword.retrieval.runs import Run, min_max, read_run, trec_name, write_qrels, write_run
from foreword.retrieval.search import Vectors, bm25_run, dense_run
from foreword.settings import DEFAULT_BACKBONE
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.train import train
from foreword.training.vectors import DocumentVectors, embed_documents
from foreword.transferring.config import AdaptConfig, FitConfig, TransferConfig
from foreword.transferring.reach import Array, document_features, similarity, unit_rows
from foreword.transferring.transfer import Transfer, made_name, transfer

# What the demo does, and how long each part trains.


@dataclass(frozen=True)
class DemoConfig:
    """The demo's settings. Defaults take under 10 minutes on two processor cores, `quick` under 4.

    Attributes:
        backbone: a local folder, a hub name, or the packaged MiniLM's name.
        sources: collections with labels.
        target: a collection held out of all of them; the table is about it.
        others: further held-out collections, for transfer alone: no prompt of their own is trained.
        multitask_steps: of the prompt trained on all sources, both sides.
        source_steps: of each source's own query-side prompt, which starts from it.
        source_rate: the learning rate of those, low since the start is good already.
        query_steps: of the target's supervised query-side prompt.
        adapt_steps: of the multitask prompt on the target's own text.
        both_steps: of the target's supervised both-side prompt.
        length: prompt vectors in each layer.
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
    multitask_steps: int = 60
    source_steps: int = 40
    source_rate: float = 0.01
    query_steps: int = 150
    adapt_steps: int = 40
    both_steps: int = 110
    length: int = 16
    query_length: int = 64
    document_length: int = 256
    training_length: int = 128
    similarity_documents: int = 200
    measures: tuple[str, ...] = ("nDCG@10", "R@100")
    searches: int = 3
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
            adapt_steps=12,
            both_steps=16,
            document_length=128,
            similarity_documents=100,
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


# The demo's results: every row with its TREC run, so that anyone can recompute the table.


BASELINE = "base"


class Recorder:
    """Collects rows, the values of each query and the files `runs/<system>.<collection>.trec`."""

    def __init__(self, folder: Path, measures: Sequence[str]) -> None:
        """`folder` is the demo's; `measures` are the table's, the first one is looked at query by query."""
        self.folder, self.measures = folder / "runs", tuple(measures)
        self.rows: list[dict[str, Any]] = []
        self.per_query: dict[str, dict[str, Any]] = {}

    def begin(self, collection: Collection) -> None:
        """Write the test qrels of a collection."""
        write_qrels(self.folder / f"{trec_name(collection.id)}.qrels", collection.qrels("test"))
        self.per_query[collection.id] = {
            "measure": self.measures[0],
            "baseline": BASELINE,
            "systems": {},
            "ranks": {},
            "texts": {query.query_id: query.text for query in collection.queries("test")},
        }

    def add(
        self,
        system: str,
        collection: Collection,
        run: Run,
        *,
        seconds: float,
        prompts: Sequence[StoredPrompt] = (),
    ) -> dict[str, float]:
        """Score a run on the test split; returns the measures.

        Args:
            system: the row's name.
            collection: what was searched.
            run: the hits.
            seconds: to train or fit the system, and to retrieve with it.
            prompts: what has to be stored for it.
        """
        qrels = collection.qrels("test")
        result = evaluate_run(run, qrels, self.measures)
        write_run(self.folder / f"{system}.{trec_name(collection.id)}.trec", run, system)
        known = self.per_query[collection.id]
        known["systems"][system] = dict(result.per_query[self.measures[0]])
        known["ranks"][system] = first_relevant_ranks(run, qrels)
        for measure, value in result.values.items():
            row: dict[str, Any] = {
                "system": system,
                "collection": collection.id,
                "measure": measure,
                "value": value,
                "seconds": round(seconds, 2),
                "trained_parameters": sum(p.card["trained_parameters"] for p in prompts),
                "bytes": sum(p.card["bytes"] for p in prompts),
            }
            self.rows.append(row | self._against_base(collection.id, measure, result.per_query[measure]))
        return dict(result.values)

    def _against_base(self, collection: str, measure: str, values: Mapping[str, float]) -> dict[str, Any]:
        base = self.per_query[collection]["systems"].get(BASELINE)
        if base is None or base == values or measure != self.measures[0]:
            return {}
        test = paired_randomization(values, base)
        return {"difference": test.difference, "p_value": test.p_value}

    def value(self, system: str, collection: str) -> float:
        """The first measure of a row."""
        return next(
            float(row["value"])
            for row in self.rows
            if (row["system"], row["collection"], row["measure"]) == (system, collection, self.measures[0])
        )


def curve(name: str, stored: StoredPrompt) -> dict[str, Any]:
    """A training's learning curve, for the report."""
    metrics = stored.card["metrics"]
    points: dict[int, dict[str, Any]] = {}
    for entry in metrics["dev"]:
        points.setdefault(entry["step"], {"step": entry["step"], "loss": None, "dev": None})["dev"] = entry["dev"]
    for entry in metrics["loss"]:
        points.setdefault(entry["step"], {"step": entry["step"], "loss": None, "dev": None})["loss"] = entry["loss"]
    return {"name": name, "points": [points[step] for step in sorted(points)]}


# What the demo prints at its end: the table, the advice and three searches.


BEFORE, AFTER = "base", "supervised-both"
SHOWN = 3


def headline(recorder: Recorder, target: str) -> str:
    """The demo's outcome in a sentence."""
    measure = recorder.measures[0]
    base, without, best = (recorder.value(name, target) for name in ("base", "transfer-adapted", AFTER))
    return (
        f"{target}, {measure}: {base:.3f} with the base model, {without:.3f} by transfer without any of its labels, "
        f"{best:.3f} with a prompt trained on its labels."
    )


def searches(recorder: Recorder, collection: Collection, folder: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Test queries whose relevant document moved, drawn by seed, with the hits before and after."""
    known = recorder.per_query[collection.id]
    before, after = (read_run(folder / "runs" / f"{name}.{trec_name(collection.id)}.trec") for name in (BEFORE, AFTER))
    values = known["systems"]
    moved = [query for query in values[BEFORE] if values[BEFORE][query] != values[AFTER][query]]
    chosen = sorted(moved, key=lambda query: hashlib.sha256(f"{seed}\x1f{query}".encode()).digest())[:count]
    qrels = collection.qrels("test")
    pairs = compare_searches(before, after, qrels, collection, chosen, systems=(BEFORE, AFTER), hits=SHOWN)
    return [pair.as_dict() for pair in pairs]


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


MULTITASK = "multitask"
BANK, PROMPTS = "bank", "prompts"
TRANSFERS = {
    "transfer-uniform": "uniform",
    "transfer-similarity": "similarity",
    "transfer-fitted": "fitted",
    "best-single": "best-single",
}


class Demo:
    """The state of one demo; `run_demo` says what happens in which order."""

    def __init__(self, config: DemoConfig, output: Path, data: Path | None, quiet: bool) -> None:
        self.config, self.output, self.data, self.quiet = config, output, data, quiet
        self.began = time.time()
        self.say(f"loading {len(config.sources)} sources and the held-out {config.target}")
        self.target = load(config.target, data=data)
        self.others = [load(name, data=data) for name in config.others]
        held_out = [self.target, *self.others]
        self.sources = [load(name, data=data, exclude=held_out) for name in config.sources]
        self.far = self._far_targets()
        self.encoder = load_encoder(config.backbone)
        self.precision = resolve_precision("auto", self.encoder.device)
        self.recorder = Recorder(output, config.measures)
        self.bank: dict[str, StoredPrompt] = {}
        self.vectors: dict[tuple[str, str], DocumentVectors] = {}
        self.curves: list[dict[str, Any]] = []
        self.transfers: list[tuple[str, Transfer]] = []
        self.features: dict[str, Array] = {}

    def say(self, text: str) -> None:
        """One line of progress, with the seconds gone by."""
        if not self.quiet:
            print(f"[{time.time() - self.began:5.0f} s] {text}", file=sys.stderr, flush=True)

    def _far_targets(self) -> list[Collection]:
        """The classic collections whose files are on this machine: far from any documentation."""
        if not self.config.others:  # the quick demo
            return []
        here = [entry.id for entry in catalogue(self.data) if entry.group == "glasgow" and entry.available]
        return [load(name, data=self.data) for name in here]

    # -- pieces ------------------------------------------------------------------------------------------------

    def settings(self, side: Any, steps: int, *, dev: int = 50, **changes: Any) -> TrainingConfig:
        """The training settings of a part; `dev` queries of each domain for both sides, all of them for one."""
        return TrainingConfig.default(
            side,
            steps=steps,
            evaluate_every=-(-steps // 3) if side == "query" else -(-steps // 2),
            dev_queries=300 if side == "query" else dev,
            dev_documents=2 * dev,  # embedded anew at each evaluation of both sides
            query_length=self.config.query_length,
            document_length=self.config.training_length,
            precision=self.precision,
            seed=self.config.seed,
            **changes,
        )

    def trained(
        self,
        place: str,
        name: str,
        collections: Collection | Sequence[Collection],
        config: TrainingConfig,
        **how: Any,
    ) -> tuple[StoredPrompt, float]:
        """Train a prompt into `<place>/<name>`; returns it with the seconds that took.

        The bank of sources lies apart from the target's own prompts, so that it can be used for transfer.
        """
        folder = self.output / place / folder_name(name)
        how |= {"domain": name, "config": config, "quiet": self.quiet}
        try:
            stored = train(self.encoder, collections, folder, **how)
        except OtherTrainingError:  # an earlier demo's, of other settings or packages
            stored = train(self.encoder, collections, folder, resume=False, **how)
        seconds = float(json.loads((folder / "run.json").read_text(encoding="utf-8"))["seconds"])
        self.curves.append(curve(name, stored))
        return stored, seconds

    def documents(self, collection: Collection, route: str | None) -> DocumentVectors:
        """Document vectors by the base model (None) or a prompt, embedded once."""
        key = (collection.id, route or "")
        if key not in self.vectors:
            self.vectors[key] = embed_documents(
                self.encoder,
                collection,
                route=route,
                precision=self.precision,
                max_length=self.config.training_length if collection in self.sources else self.config.document_length,
                quiet=self.quiet,
            )
        return self.vectors[key]

    def search(self, collection: Collection, route: Route, documents: str | None) -> tuple[Run, float]:
        """Hits of the test queries by `route` among documents embedded by the prompt `documents`."""
        began = time.perf_counter()
        known = self.documents(collection, documents)
        vectors: Vectors = (known.doc_ids, known.vectors)
        run = dense_run(
            self.encoder,
            collection,
            list(collection.queries("test")),
            route=route,
            vectors=vectors,
            query_length=self.config.query_length,
            precision=self.precision,
            quiet=True,
        )
        return run, time.perf_counter() - began

    def row(self, system: str, collection: Collection, run: Run, seconds: float, **what: Any) -> None:
        """Record a row and say it."""
        values = self.recorder.add(system, collection, run, seconds=seconds, **what)
        said = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        self.say(f"{collection.id}: {system}: {said}")

    # -- steps -------------------------------------------------------------------------------------------------

    def without_training(self, collection: Collection) -> None:
        """The rows `bm25`, `base` and `base+bm25`."""
        self.recorder.begin(collection)
        base, base_seconds = self.search(collection, None, None)
        self.row("base", collection, base, base_seconds)
        began = time.perf_counter()
        bm25 = bm25_run(collection, list(collection.queries("test")))
        bm25_seconds = time.perf_counter() - began
        self.row("bm25", collection, bm25, bm25_seconds)
        self.row("base+bm25", collection, min_max([base, bm25], k=100), base_seconds + bm25_seconds)

    def train_sources(self) -> float:
        """The multitask prompt, and each source's own query-side prompt over the documents that it embeds."""
        self.say(f"multitask prompt on {len(self.sources)} sources, {self.config.multitask_steps} steps")
        start = StartConfig(PromptSpec(length=self.config.length, sides="untied"), seed=self.config.seed)
        config = self.settings("both", self.config.multitask_steps, several=True)
        multitask, seconds = self.trained(BANK, MULTITASK, self.sources, config, start=start)
        self.bank[MULTITASK] = multitask
        transformer_of(self.encoder).add(MULTITASK, multitask.prompt)
        rate = self.config.source_rate
        config = self.settings("query", self.config.source_steps, document_side="start", learning_rate=rate)
        for source in self.sources:
            self.say(f"prompt for {source.id}, {self.config.source_steps} steps")
            vectors = {source.id: self.documents(source, MULTITASK)}
            self.bank[source.id], _ = self.trained(BANK, source.id, source, config, start=multitask, documents=vectors)
        return seconds

    def similarities(self) -> dict[str, Any]:
        """The report's heatmap: likeness of every held-out domain to every source, by base embeddings."""
        self.say("similarity of the domains' documents")
        held_out = [self.target, *self.others, *self.far]
        for collection in held_out:
            self.features[collection.id] = unit_rows(self.documents(collection, None).vectors)
        for source in self.sources:
            self.features[source.id] = document_features(
                self.encoder,
                source,
                limit=self.config.similarity_documents,
                precision=self.precision,
                max_length=self.config.training_length,
                quiet=self.quiet,
            )
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
        run, taken = self.search(collection, MULTITASK, MULTITASK)
        self.row("multitask", collection, run, seconds + taken, prompts=[self.bank[MULTITASK]])
        sources = {name: stored for name, stored in self.bank.items() if name != MULTITASK}
        for system, method in TRANSFERS.items():
            if method == "best-single" and collection is not self.target:  # it takes a while, and is a control
                continue
            self.combine(system, method, collection, self.bank if method == "fitted" else sources)

    def combine(self, system: str, method: Any, collection: Collection, bank: Mapping[str, StoredPrompt]) -> None:
        """The row of one way of combining a bank's prompts."""
        fit = FitConfig(
            query_length=self.config.query_length,
            document_length=self.config.training_length,
            precision=self.precision,
            seed=self.config.seed,
        )
        config = TransferConfig(method=method, fit=fit)
        result = transfer(self.encoder, collection, bank, config, features=self.features, quiet=self.quiet)
        # Every source's document side is the multitask prompt's, so one embedding of the documents serves all.
        run, taken = self.search(collection, result.route, MULTITASK if result.weights else None)
        # The multitask prompt embeds the documents, whatever its weight on the query side.
        needed = {MULTITASK, *result.weights} if result.weights else set()
        used = [stored for name, stored in self.bank.items() if name in needed]
        self.row(system, collection, run, result.seconds + taken, prompts=used)
        self.transfers.append((system, result))

    def with_target_texts(self) -> None:
        """The rows of prompts trained on the target: on its text, and on its labels."""
        multitask, target = self.bank[MULTITASK], self.target
        self.say(f"prompts for {target.id}: adapted to its text, supervised on the query side, supervised on both")
        adaptation = AdaptConfig(
            steps=self.config.adapt_steps,
            query_length=self.config.query_length,
            document_length=self.config.training_length,
            precision=self.precision,
            seed=self.config.seed,
        )
        asked = TransferConfig("adapted", adapt=adaptation)
        folder = self.output / PROMPTS / "transfer-adapted"
        how: dict[str, Any] = {"features": self.features, "output": folder, "quiet": self.quiet}
        result = transfer(self.encoder, target, {MULTITASK: multitask}, asked, **how)
        name = None if result.prompt is None else made_name(target.id)
        run, taken = self.search(target, name, name)
        used = [] if result.prompt is None else [StoredPrompt(result.prompt, multitask.card)]
        self.row("transfer-adapted", target, run, result.seconds + taken, prompts=used)
        self.transfers.append(("transfer-adapted", result))

        vectors = {target.id: self.documents(target, None)}
        config = self.settings("query", self.config.query_steps)
        start = StartConfig(PromptSpec(length=self.config.length, sides="query"), seed=self.config.seed)
        stored, seconds = self.trained(PROMPTS, "supervised-query", target, config, start=start, documents=vectors)
        self.tuned("supervised-query", stored, seconds, None)

        config = self.settings("both", self.config.both_steps, dev=150)
        stored, seconds = self.trained(PROMPTS, "supervised-both", target, config, start=multitask)
        self.tuned("supervised-both", stored, seconds, "supervised-both")

    def tuned(self, system: str, stored: StoredPrompt, seconds: float, documents: str | None) -> None:
        """The row of a prompt of the target's own."""
        transformer_of(self.encoder).add(system, stored.prompt)
        run, taken = self.search(self.target, system, documents)
        self.row(system, self.target, run, seconds + taken, prompts=[stored])

    # -- results -----------------------------------------------------------------------------------------------

    def results(self, similarities: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that `results.json` and the report hold."""
        fitted = [result for system, result in self.transfers if system == "transfer-fitted"]
        return {
            "title": f"Foreword demo: {self.target.id}",
            "configuration": {
                **self.config.as_dict(),
                "backbone": self.bank[MULTITASK].card["backbone"],
                "precision": self.precision,
                "collections": {c.id: dict(c.facts) for c in [*self.sources, self.target, *self.others, *self.far]},
                "seconds": round(time.time() - self.began, 1),
            },
            "versions": library_versions(),
            "created": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "headline": headline(self.recorder, self.target.id),
            "rows": self.recorder.rows,
            "similarity": similarities,
            "per_query": self.recorder.per_query,
            "curves": self.curves,
            "weights": [
                {"target": result.target, "system": system, "weights": dict(result.weights)}
                for system, result in self.transfers
            ],
            "advice": [
                {"target": result.target, "choice": result.advice, "reason": result.reason} for result in fitted
            ],
            "searches": searches(self.recorder, self.target, self.output, self.config.searches, self.config.seed),
        }


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
    if (output / "runs").is_dir():
        for path in (output / "runs").iterdir():
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
