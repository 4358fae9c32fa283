"""Run the demo: multitask prompt, a prompt per domain, transfer, retrieval, evaluation, report."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.collections.records import Collection
from foreword.collections.registry import catalogue, load
from foreword.common.errors import OtherTrainingError
from foreword.common.files import atomic_write, write_json
from foreword.demo.config import DemoConfig
from foreword.demo.record import Recorder, curve
from foreword.demo.show import headline, searches, show
from foreword.prompts.encoder import load_encoder, resolve_precision, transformer_of
from foreword.prompts.routes import Route
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, folder_name, library_versions
from foreword.report import markdown_table, write_plots, write_report
from foreword.report.plots import FOLDER
from foreword.retrieval.fusion import min_max
from foreword.retrieval.runs import Run
from foreword.retrieval.search import Vectors, bm25_run, dense_run
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.train import train
from foreword.training.vectors import DocumentVectors, embed_documents
from foreword.transferring.adapt import AdaptConfig
from foreword.transferring.decision import Transfer, TransferConfig, made_name
from foreword.transferring.fit import FitConfig
from foreword.transferring.similarity import Array, document_features, similarity, unit_rows
from foreword.transferring.transfer import transfer

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
