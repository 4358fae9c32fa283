"""The benchmark in a domain: prompts and what they are compared with, on the same labels, in the same time.

A method may train for as long as full fine-tuning takes here for so many steps. What a step of each costs is measured
first, all of them in turn; from then on budgets are steps, so that a run that was cut, or had to share its machine,
goes on as it began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection
from foreword.collections.supervision import Fold, FoldCollection, supervise
from foreword.errors import ForewordError, UnknownNameError, of_file
from foreword.files import json_digest, kept_json, owns, read_json, read_toml, write_json
from foreword.lab.baselines import Baseline, train_baseline
from foreword.lab.experiment import Benchmark, Findings, run_of
from foreword.lab.page import domain_table, summary_table, tuning_table, write_page
from foreword.lab.records import BenchmarkCell, Hypothesis, load_cells
from foreword.lab.statistics import judge_hypotheses, summarise
from foreword.prompts.encoder import resolve_precision
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, folder_name, library_versions
from foreword.retrieval.runs import Run
from foreword.settings import DEFAULT_BACKBONE, Count, Settings
from foreword.tables import Table
from foreword.training.config import StartConfig, Trained, TrainingConfig

REFERENCE = "full"
"""The method whose steps are the unit of budgets."""


@dataclass(frozen=True)
class Method(Settings):
    """A way to train an encoder for a domain.

    Attributes:
        rates: learning rates to try.
        prompt: fields of `PromptSpec`, of a prompt;
        baseline: or arguments of `train_baseline`.
        start: where a prompt starts.
        training: settings of the training that differ from the plan's.
        chosen: the rate, where a run has no tuning of its own.
    """

    rates: tuple[float, ...]
    prompt: Mapping[str, Any] | None = None
    baseline: Mapping[str, Any] | None = None
    start: str = "words"
    training: Mapping[str, Any] = field(default_factory=dict)
    chosen: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.prompt is None) == (self.baseline is None):
            raise ForewordError("a method has either prompt or baseline")


@dataclass(frozen=True)
class InDomainPlan(Settings):
    """The benchmark's settings.

    Attributes:
        title: of the report.
        tuned_on: collections on whose dev queries rates are chosen; no targets.
        targets: genre -> collections whose test queries are scored.
        methods: all that are tuned.
        final: those of them that are run on the targets; the others than the first, and than full fine-tuning, also
            with as many steps as the first takes, where that is another number by more than 5 %.
        budgets: steps of full fine-tuning, whose time each method has.
        seeds: of everything random; budgets after the first are run with the first of them.
        folds: queries of a target with test judgements alone are answered by so many trainings on the others.
        batch_size: pairs in a step.
        query_length: tokens a query is cut to.
        document_length: tokens a document is cut to.
        training: further settings of every training.
        hypotheses: the claims.
    """

    title: str
    tuned_on: tuple[str, ...]
    targets: Mapping[str, tuple[str, ...]]
    methods: Mapping[str, Method]
    final: tuple[str, ...]
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    folds: Count
    batch_size: Count
    query_length: Count
    document_length: Count
    training: Mapping[str, Any] = field(default_factory=dict)
    hypotheses: tuple[Hypothesis, ...] = ()

    @property
    def genres(self) -> dict[str, str]:
        """Target -> genre."""
        return {target: genre for genre, names in self.targets.items() for target in names}

    def on(self, targets: Sequence[str]) -> InDomainPlan:
        """The plan for collections of somebody's own: its final methods alone, and lengths as trainings have them."""
        lengths = {name: getattr(TrainingConfig, name) for name in ("query_length", "document_length")}
        methods = {name: self.methods[name] for name in self.final}
        return replace(self, targets={"own": tuple(targets)}, methods=methods, **lengths)

    def digest(self, method: str) -> str:
        """16 hexadecimal digits of the settings that a method's trainings depend on."""
        own = self.methods[method].as_dict()
        for name in ("rates", "chosen"):
            own.pop(name)
        shared = {name: getattr(self, name) for name in ("batch_size", "query_length", "document_length", "folds")}
        return json_digest([own, shared, dict(self.training)])[:16]


def load_in_domain(path: Path | str | None = None) -> InDomainPlan:
    """The plan of a TOML file; None: the one that comes with the package."""
    place = Path(__file__).with_name("in-domain.toml") if path is None else path
    where = str(path or "in-domain.toml")
    with of_file(where, ForewordError):
        return _plan(read_toml(place), where)


def _plan(values: dict[str, Any], where: str) -> InDomainPlan:
    values["hypotheses"] = tuple(Hypothesis(**claim) for claim in values.pop("hypothesis", []))
    values["methods"] = {name: Method.read(method, f"{where}: {name}") for name, method in values["methods"].items()}
    values["targets"] = {genre: tuple(names) for genre, names in values["targets"].items()}
    known = {one.name for one in fields(InDomainPlan)}
    if unknown := sorted(values.keys() - known):
        raise ForewordError(f"{where}: unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return InDomainPlan.read(values, where)


class InDomain(Benchmark):
    """The state of one run."""

    def __init__(
        self, plan: InDomainPlan, output: Path, *, data: Path | None = None, backbone: str | None = None,
        quiet: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(output, data=data, quiet=quiet)
        self.plan, self.query_length, self.document_length = plan, plan.query_length, plan.document_length
        self.genres = plan.genres
        self.encoder = self.loaded(backbone or DEFAULT_BACKBONE)
        self.precision = resolve_precision("auto", self.encoder.device)

    def supervised(self, name: str) -> list[Collection]:
        """A collection with the labels that there are: its own splits, or folds of its test queries."""
        whole = self.collection(name)
        if {"train", "dev"} & set(whole.splits):
            return [supervise(whole)]
        return [FoldCollection(whole, Fold(i + 1, self.plan.folds)) for i in range(self.plan.folds)]

    def made(
        self, name: str, collection: Collection, rate: float, steps: int, seed: int, *, folder: str, **changes: Any
    ) -> StoredPrompt | Baseline:
        """What a method makes of a collection's labels."""
        method = self.plan.methods[name]
        # One training to a budget: the dev part decides, however small.
        values: dict[str, Any] = {"batch_size": self.plan.batch_size, "dev_folds": 0}
        values |= {**self.plan.training, **method.training}
        values |= {"steps": steps, "evaluate_every": -(-steps // 2), "learning_rate": rate, **changes}
        place = f"{folder}/{name}-{rate:g}-{steps}-seed{seed}/{folder_name(collection.id)}"
        if method.prompt is not None:
            spec = PromptSpec(**method.prompt)
            side: Trained = "query" if spec.sides == "query" else "both"
            config = TrainingConfig.default(side, **{**self.common(seed), **values})
            start = StartConfig(spec, method.start, seed)  # type: ignore[arg-type]  # checked there
            return self.trained(place, collection, collection.id, config, start)
        assert method.baseline is not None
        side = "query" if method.baseline["method"] == "linear-query" else "both"
        config = TrainingConfig.default(side, **{**self.common(seed), **values})
        self.say(f"training {place}")
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in method.baseline.items()
        }
        return train_baseline(self.encoder, collection, self.output / place, config=config, quiet=True, **given)

    # -- what a step costs -------------------------------------------------------------------------------------

    def paces(self, names: Sequence[str], *, few: int = 4, many: int = 20, rounds: int = 3) -> dict[str, float]:
        """Seconds a step of each method, the methods in turn; measured once in a folder.

        Those that come later are measured in turn with the reference, and put on the scale of its first seconds.
        """
        path = self.output / "pace.json"
        kept: dict[str, Any] = read_json(path) if path.exists() else {}
        if missing := [name for name in names if self._pace_key(name) not in kept]:
            collection = self.supervised(self.plan.tuned_on[0])[0]
            known, folder = kept.get(self._pace_key(REFERENCE)), f"pace/{len(kept)}"
            taken: dict[str, list[float]] = {name: [] for name in ([*missing, REFERENCE] if known else missing)}
            for number in range(rounds):
                for name in taken:
                    seconds = []
                    for steps in (few, many):
                        made = self.made(
                            name, collection, 1e-6, steps, number, folder=folder, dev_queries=0, evaluate_every=0
                        )
                        seconds.append(training_seconds(made))
                    taken[name].append((seconds[1] - seconds[0]) / (many - few))
            scale = median(known["seconds"]) / median(taken[REFERENCE]) if known else 1
            for name in missing:
                kept[self._pace_key(name)] = {"method": name, "seconds": [each * scale for each in taken[name]]}
            write_json(path, kept)
        return {name: median(kept[self._pace_key(name)]["seconds"]) for name in names}

    def _pace_key(self, name: str) -> str:
        return f"{name} {self.plan.digest(name)}"

    # -- tuning ------------------------------------------------------------------------------------------------

    def tune(self, name: str, steps: int, seed: int = 0) -> None:
        """Write a method's dev curves' ends by rate, one for each collection tuned on: nDCG@10 and loss."""
        found: dict[str, list[Any]] = {}
        for rate in self.plan.methods[name].rates:
            ends = found[f"{rate:g}"] = []
            for target in self.plan.tuned_on:
                collection = self.supervised(target)[0]
                made = self.made(name, collection, rate, steps, seed, folder="tuning", evaluate_every=steps)
                curve = made.card["metrics"]["dev"]
                ends.append({"target": target, "before": curve[0], "after": curve[-1]})
            mean = {key: sum(end["after"][key] for end in ends) / len(ends) for key in ("dev", "loss")}
            self.say(f"{name} {rate:g}, {steps} steps: dev nDCG@10 {mean['dev']:.4f}, loss {mean['loss']:.4f}")
            write_json(self.output / "tuning" / f"{name}.json", found)

    def best_rate(self, name: str) -> float:
        """The rate whose trainings end with the least mean dev loss.

        nDCG@10 of some hundred queries says less: it hardly moves where most relevant documents stay where they are.
        """
        rates = self.plan.methods[name].rates
        if len(rates) == 1:
            return rates[0]
        path = self.output / "tuning" / f"{name}.json"
        if not path.exists():
            if (chosen := self.plan.methods[name].chosen) is None:
                raise ForewordError(f"{name} is not tuned yet; run the part 'tuning' first, or give it one rate")
            return chosen
        ends: Mapping[str, Any] = read_json(path)
        losses = {rate: sum(end["after"]["loss"] for end in ends[f"{rate:g}"]) for rate in rates}
        best = min(losses, key=lambda rate: losses[rate])
        if best in (min(rates), max(rates)):
            self.say(f"{name}: the best rate, {best:g}, is at the edge of those tried: try more")
        return best

    # -- targets -----------------------------------------------------------------------------------------------

    def hits(self, target: str, part: Collection, route: str | None, encoder: SentenceTransformer) -> Run:
        """The hits of a part's test queries in the whole target."""
        vectors = self.embedded(self.collection(target), route, self.document_length, encoder=encoder)
        return self.search(part, route, vectors, encoder=encoder)

    def base(self, target: str) -> None:
        """`base`, `bm25` and, fused, `base+bm25`."""
        configuration, whole = f"{self.query_length} {self.document_length}", self.collection(target)
        self.cell(target, "base", 0, configuration, lambda: Findings(self.hits(target, whole, None, self.encoder)))
        self.cell(target, "bm25", 0, configuration, lambda: Findings(self.bm25(whole)))
        self.fused(target, "base", 0, configuration)

    def trained_on(self, target: str, name: str, rate: float, steps: int, seed: int, system: str) -> None:
        """A method on a target's labels; where it has test judgements alone, each query is answered by its fold's."""

        def make() -> Findings:
            run: Run = {}
            seconds, kept, made = [], [], None
            for part in self.supervised(target):
                made = self.made(name, part, rate, steps, seed, folder="trained")
                if isinstance(made, StoredPrompt):
                    run |= self.hits(target, part, self.carry(system, made), self.encoder)
                    self.drop(system)
                else:
                    run |= self.hits(target, part, None, made.encoder)
                seconds.append(training_seconds(made))
                kept.append(int(made.card["metrics"]["best_step"]))
            assert made is not None
            return Findings(
                run,
                labels=None,
                trained_parameters=made.prompt.count() if isinstance(made, StoredPrompt) else made.parameters,
                stored_bytes=int(made.card["bytes"]),
                seconds=sum(seconds) / len(seconds),
                details={"learning_rate": rate, "steps": steps, "kept": kept},
            )

        configuration = f"{self.plan.digest(name)}, rate {rate:g}, {steps} steps"
        self.cell(target, system, seed, configuration, make)


@owns("output")
def run_in_domain(
    plan: InDomainPlan,
    output: Path,
    *,
    parts: Sequence[str] | None = None,
    data: Path | None = None,
    backbone: str | None = None,
    quiet: bool = False,
) -> Path:
    """Run the parts asked for; what is there with the same settings is left as it is.

    Args:
        plan: what to run.
        output: its folder: `pace.json`, `tuning/`, `trained/`, `cells/`, `runs/` (TREC), and the results.
        parts: `tuning`, and genres of the plan's targets; None: all.
        data: folder of collections.
        backbone: instead of the packaged MiniLM.
        quiet: no lines of progress.

    Returns:
        The page.

    Raises:
        UnknownNameError: no such part.
    """
    known = ("tuning", *plan.targets)
    if unknown := sorted(set(parts or ()) - set(known)):
        raise UnknownNameError(f"no part {', '.join(unknown)}; there are: {', '.join(known)}")
    parts = parts or known
    bench = InDomain(plan, output, data=data, backbone=backbone, quiet=quiet)
    bench.note_machine()
    paces = bench.paces(list(plan.methods))
    steps = {n: {b: max(1, round(b * paces[REFERENCE] / paces[n])) for b in plan.budgets} for n in plan.methods}
    short = {name: budgets[plan.budgets[0]] for name, budgets in steps.items()}
    bench.say(f"steps in the time of {plan.budgets[0]} of {REFERENCE}: {short}")
    if "tuning" in parts:
        for name in plan.methods:
            bench.tune(name, short[name])
    rates = {name: bench.best_rate(name) for name in plan.final} if set(parts) - {"tuning"} else {}
    passes = [(plan.budgets[0], seed) for seed in plan.seeds] + [(budget, plan.seeds[0]) for budget in plan.budgets[1:]]
    for budget, seed in passes:  # those that say most come first
        for target, genre in plan.genres.items():
            if genre not in parts:
                continue
            bench.base(target)
            for name in plan.final:
                bench.trained_on(target, name, rates[name], steps[name][budget], seed, f"{name}@{budget}")
            if (budget, seed) == passes[0]:
                many = steps[plan.final[0]][budget]
                for name in set(plan.final[1:]) - {REFERENCE}:
                    if abs(steps[name][budget] - many) > many / 20:  # else it is what it had in the same time
                        bench.trained_on(target, name, rates[name], many, seed, f"{name}@steps")
    return write_in_domain(plan, output)


def write_in_domain(plan: InDomainPlan, output: Path) -> Path:
    """Tables, verdicts and the page, from the cells that are there; returns the page."""
    cells = load_cells(output)
    if not cells:
        raise ForewordError(f"{output} holds no cells yet; run the benchmark first")
    kept = {path.stem: read_json(path) for path in (output / "tuning").glob("*.json")}
    tuning = tuning_table(kept, kept_json(output / "pace.json") or {}, REFERENCE)
    verdicts, tables = [], [tuning, *in_domain_tables(plan, cells)]
    for genre, names in plan.targets.items():
        claims = [replace(claim, statement=f"{genre}: {claim.statement}") for claim in plan.hypotheses]
        verdicts += judge_hypotheses(cells, claims, names)
    intro = (
        f"Trained on a collection's labels, queries cut at {plan.query_length} tokens and documents at "
        f"{plan.document_length}, {plan.batch_size} pairs a step. `prompt@40`: in the time that full fine-tuning takes "
        "for 40 steps. Rates were chosen on the dev queries of collections that are no targets: "
        f"{', '.join(plan.tuned_on)}."
    )
    page = write_page(output, plan.title, intro, tables, verdicts, [])
    write_json(output / "plan.json", {"plan": plan.as_dict(), "versions": library_versions()})
    return page


def in_domain_tables(plan: InDomainPlan, cells: Sequence[BenchmarkCell]) -> list[Table]:
    """For each genre, systems by their means and targets by systems."""
    tables = []
    for genre, names in plan.targets.items():
        present = [name for name in names if any(cell.target == name for cell in cells)]
        found = {cell.system for cell in cells if cell.target in present}
        timed = [f"{name}@{budget}" for budget in plan.budgets for name in plan.final]
        equal = [f"{name}@steps" for name in plan.final[1:]]
        order = ["base", "bm25", "base+bm25", *timed, *equal]
        systems = [system for system in order if system in found]
        if present:
            summaries = summarise(cells, present, systems, ceiling=f"{REFERENCE}@{plan.budgets[0]}")
            tables.append(replace(summary_table(summaries), title=f"All systems on {genre} ({len(present)})"))
            tables.append(replace(domain_table(cells, systems, present), title=f"By collection: {genre}"))
    return tables


def training_seconds(made: StoredPrompt | Baseline) -> float:
    """Of a training, without evaluations."""
    return made.training_seconds if isinstance(made, Baseline) else float(run_of(made)["training_seconds"])
