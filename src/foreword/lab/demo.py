"""Run the demo: multitask prompt, a prompt per domain, transfer, retrieval, evaluation, report."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

from foreword.collections.collection import Collection, MemoryCollection
from foreword.collections.registry import catalogue, load
from foreword.collections.supervision import position
from foreword.evaluation.influence import compare_searches
from foreword.evaluation.measures import first_relevant_ranks, paired_randomization
from foreword.files import as_json, atomic_write, owns, write_json
from foreword.lab.experiment import HITS, Experiment, seconds_of
from foreword.prompts.encoder import encode, resolve_precision
from foreword.prompts.routes import Route
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, folder_name, library_versions
from foreword.report import markdown_table, write_plots, write_report
from foreword.report.plots import FOLDER
from foreword.retrieval.runs import Run, hybrid, read_run, trec_name, write_qrels
from foreword.settings import DEFAULT_BACKBONE, Count, Natural, Positive, Settings, Tokens
from foreword.tables import duration, p_value
from foreword.training.config import StartConfig, TrainingConfig
from foreword.training.vectors import DocumentVectors
from foreword.transferring.config import FitConfig, ProofConfig, TransferConfig
from foreword.transferring.reach import Array, document_features, similarity, unit_rows
from foreword.transferring.transfer import Transfer, transfer


@dataclass(frozen=True)
class DemoConfig(Settings):
    """The demo's settings. By default it takes minutes on two processor cores of any kind; `full` is the whole job.

    Attributes:
        backbone: a local folder, a hub name, or the packaged MiniLM's name.
        sources: collections with labels.
        target: a collection held out of all of them; the table is about it.
        target_documents: of the target: the relevant ones of all test queries, and a seeded sample of the others, with
            their queries for training and dev; 0: all.
        others: further held-out collections, for transfer alone: no prompt of their own is trained.
        multitask_steps: of the prompt trained on all sources, both sides.
        multitask_rate: its learning rate; few steps want a high one.
        source_steps: of each source's own query-side prompt, which starts from it; 0: they get none, and nothing is
            mixed of them.
        source_rate: the learning rate of those, low since the start is good already.
        query_steps: of the target's supervised query-side prompt.
        query_rate: its learning rate.
        both_steps: of the target's supervised both-side prompt, which starts from the multitask one.
        both_rate: its learning rate.
        evaluations: of a training of both sides, after that of its start: documents are embedded anew in each.
        query_length: tokens a query is cut to.
        document_length: tokens a document is cut to when it is indexed.
        training_length: tokens a document is cut to in training, where it is embedded at every step.
        dev_queries: of each source, in an evaluation of both sides, and three times as many of the target; among twice
            as many documents, besides the relevant ones.
        similarity_documents: of each source, for the similarity of domains.
        proof_documents: of the target, for the comparison by which a transfer is taken or not.
        measures: in the table.
        searches: real searches shown before and after.
        tokens: million tokens through the encoder in all, as counted once (a training step counts twice: forward,
            and backward to the prompt); what the time is foretold by.
        seed: of every random choice.
    """

    backbone: str = DEFAULT_BACKBONE
    sources: tuple[str, ...] = ("pydoc/numpy", "pydoc/pandas", "pydoc/sklearn")
    target: str = "pydoc/torch"
    target_documents: Natural = 1000
    others: tuple[str, ...] = ()
    multitask_steps: Count = 20
    multitask_rate: Positive = 0.01
    source_steps: Natural = 0
    source_rate: Positive = 0.01
    query_steps: Count = 40
    query_rate: Positive = 0.01
    both_steps: Count = 18
    both_rate: Positive = 0.01
    evaluations: Count = 1
    query_length: Tokens = 32
    document_length: Tokens = 64
    training_length: Tokens = 64
    dev_queries: Count = 30
    similarity_documents: Count = 50
    proof_documents: Count = 30
    measures: tuple[str, ...] = ("nDCG@10", "R@100")
    searches: Natural = 3
    tokens: Positive = 0.62
    seed: int = 0

    @classmethod
    def full(cls) -> Self:
        """The whole job: all of the target's documents, longer texts, a prompt of every source, more targets."""
        return cls(
            sources=("pydoc/numpy", "pydoc/scipy", "pydoc/pandas", "pydoc/sklearn"),
            target_documents=0,
            others=("pydoc/huggingface_hub", "pydoc/datasets"),
            multitask_steps=60,
            multitask_rate=0.0025,
            source_steps=40,
            query_steps=150,
            query_rate=0.005,
            both_steps=110,
            both_rate=0.005,
            evaluations=2,
            query_length=64,
            document_length=256,
            training_length=128,
            dev_queries=50,
            similarity_documents=200,
            proof_documents=200,
            tokens=5.8,
        )


MULTITASK = "multitask"
BANK, PROMPTS, RUNS = "bank", "prompts", "runs"
"""Folders of the output. The sources' bank lies apart, so that it can be used for transfer."""
BASELINE, WORDS, AFTER = "base", "bm25", "supervised-both"
SHOWN = 3  # hits of each search that is shown
SECONDS = 15.0  # for all but the encoder: reading packages, measures, tests, pictures
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
        self.say(f"reading {config.target} and the encoder")
        whole = self.collection(config.target)
        self.held_out = [whole, *(self.collection(name) for name in config.others)]
        self.target = part_of(whole, config.target_documents, config.seed) if config.target_documents else whole
        self.others = self.held_out[1:]
        if config.others:  # the classic collections here are far from any documentation
            here = [entry.id for entry in catalogue(data) if entry.group == "glasgow" and entry.available]
            self.others += [self.collection(name) for name in here]
        self.sources: list[Collection] = []
        self.encoder = self.loaded(config.backbone)
        self.precision = resolve_precision("auto", self.encoder.device)
        self.rows: list[dict[str, Any]] = []
        self.per_query: dict[str, dict[str, Any]] = {}
        self.words: dict[str, tuple[Run, float]] = {}
        self.bank: dict[str, StoredPrompt] = {}
        self.vectors: dict[tuple[str, str], DocumentVectors] = {}
        self.transfers: list[tuple[str, Transfer]] = []
        self.features: dict[str, Array] = {}

    # -- pieces ------------------------------------------------------------------------------------------------

    def settings(self, side: Any, steps: int, *, dev: int = 0, **changes: Any) -> TrainingConfig:
        """The training settings of a part; `dev` queries of each domain for both sides, all of them for one."""
        return TrainingConfig.default(
            side,
            steps=steps,
            evaluate_every=-(-steps // (3 if side == "query" else self.config.evaluations)),
            dev_queries=300 if side == "query" else dev,
            dev_documents=2 * dev or 1,  # not looked at where one side is trained
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

    def fused(
        self, system: str, collection: Collection, run: Run, seconds: float, prompts: Sequence[StoredPrompt] = ()
    ) -> None:
        """The row of a run, as `row` takes it, fused with BM25's."""
        words, more = self.words[collection.id]
        self.row(f"{system}+{WORDS}", collection, hybrid(run, words, k=HITS), seconds + more, prompts)

    def prompted(
        self, system: str, collection: Collection, run: Run, seconds: float, prompts: Sequence[StoredPrompt]
    ) -> None:
        """The rows of a run with a prompt, as `row` takes it: alone, and fused with BM25's."""
        self.row(system, collection, run, seconds, prompts)
        self.fused(system, collection, run, seconds, prompts)

    # -- steps -------------------------------------------------------------------------------------------------

    def foretell(self) -> float:
        """Measure the encoder on a few documents, and say what is done, how long it takes and what is left out.

        Returns:
            The seconds foretold, from now on.
        """
        config, whole = self.config, DemoConfig.full()
        texts = [doc.content for doc in islice(self.target.documents(), 64)]
        how: dict[str, Any] = {"precision": self.precision, "max_length": config.document_length, "quiet": True}
        encode(self.encoder, texts[:8], "document", route=None, **how)  # the first forward pass is slow
        began = time.perf_counter()
        encode(self.encoder, texts, "document", route=None, **how)
        seconds = time.perf_counter() - began
        read = self.encoder.preprocess(texts, max_length=config.document_length)["attention_mask"].numel()
        rate = read / seconds / 1e6  # million tokens a second

        def taking(one: DemoConfig) -> float:
            return one.tokens / rate + SECONDS

        here = self.machine()
        self.say(
            f"{here['processor']}, {here['threads']} threads, {here['precision']}: {1e6 * rate:,.0f} tokens a second"
        )
        self.say(f"this takes about {duration(taking(config))} more; a table, real searches and a report come last")
        if part := self.target.facts.get("part"):
            self.say(
                f"left out, to be quick: all but {part}, text beyond {config.document_length} tokens, most steps of "
                "training, prompts of the sources' own and mixtures of them, further targets"
            )
            self.say(f"with all of that: foreword demo --full, about {duration(taking(whole))} here")
        return taking(config)

    def without_training(self, collection: Collection) -> None:
        """The rows `base`, `bm25` and `base+bm25`."""
        self.begin(collection)
        began = time.perf_counter()
        words = self.bm25(collection)
        self.words[collection.id] = words, time.perf_counter() - began
        self.first_hits(WORDS, collection, words)
        base, seconds = self.timed(collection, None, None)
        self.first_hits(BASELINE, collection, base)
        self.row(BASELINE, collection, base, seconds)
        self.row(WORDS, collection, *self.words[collection.id])
        self.fused(BASELINE, collection, base, seconds)

    def first_hits(self, system: str, collection: Collection, run: Run) -> None:
        """Say what a test query of the target finds: a search, before anything is trained."""
        if collection is self.target:
            (search,) = self.compared((system, system), (run, run), self.drawn(run, 1))
            self.say(f"{system} finds for “{search['query']}”: {', '.join(hit_names(search['after']))}")

    def train_sources(self) -> float:
        """The multitask prompt, and each source's own query-side prompt over the documents that it embeds."""
        self.say(f"reading {', '.join(self.config.sources)}, without any text of {self.config.target}")
        self.sources = [load(name, data=self.data, exclude=self.held_out) for name in self.config.sources]
        start = StartConfig(PromptSpec(sides="untied"), seed=self.config.seed)
        dev, rate = self.config.dev_queries, self.config.multitask_rate
        config = self.settings("both", self.config.multitask_steps, dev=dev, learning_rate=rate)
        multitask = self.trained(f"{BANK}/{MULTITASK}", self.sources, MULTITASK, config, start)
        self.bank[MULTITASK] = multitask
        self.carry(MULTITASK, multitask)
        rate, steps = self.config.source_rate, self.config.source_steps
        for source in self.sources if steps else ():
            config = self.settings("query", steps, document_side="start", learning_rate=rate)
            vectors = {source.id: self.documents(source, MULTITASK)}
            folder = f"{BANK}/{folder_name(source.id)}"
            self.bank[source.id] = self.trained(folder, source, source.id, config, multitask, documents=vectors)
        return seconds_of(multitask)

    def similarities(self) -> dict[str, Any]:
        """The report's heatmap: likeness of every held-out domain to every source, by base embeddings."""
        self.say("similarity of the domains' documents")
        held_out = [self.target, *self.others]
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
        self.prompted(MULTITASK, collection, run, seconds + taken, prompts=[self.bank[MULTITASK]])
        sources = {name: stored for name, stored in self.bank.items() if name != MULTITASK}
        for system, method in TRANSFERS.items() if sources else ():
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
        self.prompted(system, collection, run, result.seconds + taken, prompts=used)
        self.transfers.append((system, result))

    def with_target_texts(self) -> None:
        """The rows of prompts trained on the target: on its text, and on its labels."""
        multitask, target = self.bank[MULTITASK], self.target
        self.say(f"whether {MULTITASK} helps {target.id}, by its text alone")
        proof = ProofConfig(documents=self.config.proof_documents, **self.common(self.config.seed))
        result = transfer(
            self.encoder, target, {MULTITASK: multitask}, TransferConfig("multitask", proof=proof),
            features=self.features, quiet=self.quiet,
        )  # fmt: skip
        name = MULTITASK if result.weights else None
        run, taken = self.timed(target, name, name)
        self.prompted("transfer", target, run, result.seconds + taken, prompts=[multitask] if result.weights else [])
        self.transfers.append(("transfer", result))

        start = StartConfig(PromptSpec(sides="query"), seed=self.config.seed)
        config = self.settings("query", self.config.query_steps, learning_rate=self.config.query_rate)
        self.tuned("supervised-query", config, start, None, documents={target.id: self.documents(target, None)})
        dev, rate = 3 * self.config.dev_queries, self.config.both_rate
        config = self.settings("both", self.config.both_steps, dev=dev, learning_rate=rate)
        self.tuned("supervised-both", config, multitask, "supervised-both")

    def tuned(
        self, system: str, config: TrainingConfig, start: StoredPrompt | StartConfig, route: str | None, **how: Any
    ) -> None:
        """The rows of a prompt trained on the target's labels, among documents that the prompt `route` embeds."""
        stored = self.trained(f"{PROMPTS}/{system}", self.target, system, config, start, **how)
        self.carry(system, stored)
        run, taken = self.timed(self.target, system, route)
        self.prompted(system, self.target, run, seconds_of(stored) + taken, prompts=[stored])

    # -- results -----------------------------------------------------------------------------------------------

    def results(self, similarities: Mapping[str, Any], foretold: float) -> dict[str, Any]:
        """Everything that `results.json` and the report hold; `foretold` are the seconds of all that were."""
        advised = "transfer-fitted" if self.config.source_steps else "transfer"
        part = self.target.facts.get("part")
        return {
            "title": f"Foreword demo: {self.target.id}" + (f", {part}" if part else ""),
            "configuration": {
                **as_json(self.config.as_dict()),
                "backbone": self.bank[MULTITASK].card["backbone"],
                "precision": self.precision,
                "collections": {c.id: dict(c.facts) for c in [*self.sources, self.target, *self.others]},
                "machine": self.machine(),
                "foretold_seconds": round(foretold, 1),
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
                {"target": result.target, "choice": result.advice, "reason": result.reason}
                for system, result in self.transfers
                if system == advised
            ],
            "searches": self.searches(),
        }

    def headline(self) -> str:
        """The demo's outcome in two sentences."""
        measure, target = self.config.measures[0], self.target.id
        own = [row for row in self.rows if (row["collection"], row["measure"]) == (target, measure)]
        values = {row["system"]: row["value"] for row in own}
        base, without, best = (values[name] for name in (BASELINE, "transfer", AFTER))
        systems = self.per_query[target]["systems"]
        both, alone = (systems[f"{name}+{WORDS}"] for name in (AFTER, BASELINE))
        more = paired_randomization(both, alone)
        return (
            f"{target}, {measure}: {base:.3f} with the base model, {without:.3f} by transfer without any of its "
            f"labels, {best:.3f} with a prompt trained on its labels. Fused with BM25 the prompt has "
            f"{values[f'{AFTER}+{WORDS}']:.3f}, the base model {values[f'{BASELINE}+{WORDS}']:.3f} "
            f"(p {p_value(more.p_value)})."
        )

    def searches(self) -> list[dict[str, Any]]:
        """Test queries whose relevant document moved, drawn by seed, with the hits before and after."""
        systems = (BASELINE, AFTER)
        names = [f"{system}.{trec_name(self.target.id)}.trec" for system in systems]
        before, after = (read_run(self.output / RUNS / name) for name in names)
        old, new = (self.per_query[self.target.id]["systems"][name] for name in systems)
        moved = [query for query in old if old[query] != new[query]]
        return self.compared(systems, (before, after), self.drawn(moved, self.config.searches))

    def drawn(self, query_ids: Iterable[str], count: int) -> list[str]:
        """So many of the queries, by seed."""
        seed = self.config.seed
        return sorted(query_ids, key=lambda query: hashlib.sha256(f"{seed}\x1f{query}".encode()).digest())[:count]

    def compared(
        self, systems: tuple[str, str], runs: tuple[Run, Run], query_ids: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The target's searches for some test queries by two systems."""
        qrels = self.target.qrels("test")
        pairs = compare_searches(*runs, qrels, self.target, query_ids, systems=systems, hits=SHOWN)
        return [pair.as_dict() for pair in pairs]


def part_of(collection: Collection, documents: int, seed: int) -> Collection:
    """A part of a collection under its id: all of its test queries, and so many of its documents.

    These are all that the test judgements name, and others by a seeded hash of their ids. Of train and dev stays what
    loses none of its relevant documents.
    """
    tested = {doc_id for docs in collection.qrels("test").values() for doc_id in docs}
    corpus = tuple(collection.documents())
    others = sorted(doc.doc_id for doc in corpus if doc.doc_id not in tested)
    others.sort(key=lambda doc_id: position(doc_id, "part", seed))
    kept = {*tested, *others[: max(0, documents - len(tested))]}
    chosen = tuple(doc for doc in corpus if doc.doc_id in kept)
    queries, qrels = {}, {}
    for split in collection.splits:
        judged = collection.qrels(split)
        qrels[split] = {query_id: docs for query_id, docs in judged.items() if docs.keys() <= kept}
        queries[split] = tuple(query for query in collection.queries(split) if query.query_id in qrels[split])
    facts = {**collection.facts, "part": f"{len(chosen):,} of its {len(corpus):,} documents"}
    return MemoryCollection(
        collection.id, collection.group, chosen, queries, qrels, facts, exclude_self=collection.exclude_self
    )


def hit_names(hits: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of a search's hits, the relevant ones with a star."""
    return [f"{'*' if hit['relevant'] else ''}{hit['name']}" for hit in hits]


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
    foretold = demo.foretell()
    for collection in [demo.target, *demo.others]:
        demo.without_training(collection)
    seconds = demo.train_sources()
    similarities = demo.similarities()
    for collection in [demo.target, *demo.others]:
        demo.transfers_to(collection, seconds)
    demo.with_target_texts()
    demo.say("writing the report")
    results = demo.results(similarities, foretold)
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
            console.print(f"  {label:>16}: {', '.join(hit_names(hits))}", highlight=False, markup=False)
    console.print(f"\n* relevant. Written: {output / 'results.json'}, {output / 'report.html'}, {output / 'runs'}/")
