"""The benchmark in a domain: prompts and what they are compared with, on the same labels, in the same time.

A method may train for as long as full fine-tuning takes here for so many steps. What a step of each costs is measured
first, all of them in turn; from then on budgets are steps, so that a run that was cut, or had to share its machine, goes
on as it began.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

from foreword.collections.collection import Collection
from foreword.collections.supervision import Fold, FoldCollection, supervise
from foreword.errors import DataError, ForewordError
from foreword.files import json_digest, write_json
from foreword.lab.baselines import Baseline, train_baseline
from foreword.lab.experiment import HITS, Experiment
from foreword.lab.records import MEASURES, BenchmarkCell, Hypothesis, cell_path, load_cell, run_path, save_cell
from foreword.prompts.encoder import resolve_precision
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import StoredPrompt, folder_name
from foreword.retrieval.runs import Run
from foreword.settings import DEFAULT_BACKBONE, Count, Settings
from foreword.training.config import StartConfig, TrainingConfig

DIRECTORY = "in-domain"
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
    """

    rates: tuple[float, ...]
    prompt: Mapping[str, Any] | None = None
    baseline: Mapping[str, Any] | None = None
    start: str = "words"
    training: Mapping[str, Any] = field(default_factory=dict)

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
        final: those of them that are run on the targets.
        budgets: steps of full fine-tuning, whose time each method has.
        longer_seeds: seeds of the budgets after the first.
        equal_steps: whether the first budget is also run with as many steps for all as the first of `final` takes.
        seeds: of everything random.
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
    longer_seeds: tuple[int, ...]
    folds: Count
    batch_size: Count
    query_length: Count
    document_length: Count
    equal_steps: bool = True
    training: Mapping[str, Any] = field(default_factory=dict)
    hypotheses: tuple[Hypothesis, ...] = ()

    @property
    def genres(self) -> dict[str, str]:
        """Target -> genre."""
        return {target: genre for genre, names in self.targets.items() for target in names}

    def digest(self, method: str) -> str:
        """16 hexadecimal digits of the settings that a method's trainings depend on."""
        own = self.methods[method].as_dict()
        own.pop("rates")
        shared = {name: getattr(self, name) for name in ("batch_size", "query_length", "document_length", "folds")}
        return json_digest([own, shared, dict(self.training)])[:16]


def load_in_domain(path: Path | str | None = None) -> InDomainPlan:
    """The plan of a TOML file; None: the one that comes with the package."""
    place = resources.files("foreword.lab").joinpath("in-domain.toml") if path is None else Path(path)
    where = str(path or "in-domain.toml")
    try:
        values = tomllib.loads(place.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ForewordError(f"{where}: not TOML: {error}") from error
    values["hypotheses"] = tuple(Hypothesis(**claim) for claim in values.pop("hypothesis", []))
    values["methods"] = {name: Method.read(method, f"{where}: {name}") for name, method in values["methods"].items()}
    values["targets"] = {genre: tuple(names) for genre, names in values["targets"].items()}
    known = {one.name for one in fields(InDomainPlan)}
    if unknown := sorted(values.keys() - known):
        raise ForewordError(f"{where}: unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return InDomainPlan.read(values, where)


class InDomain(Experiment):
    """The state of one run."""

    training_bars = False

    def __init__(
        self, plan: InDomainPlan, output: Path, *, data: Path | None = None, backbone: str | None = None,
        quiet: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(output, data=data, quiet=quiet)
        self.plan, self.query_length, self.document_length = plan, plan.query_length, plan.document_length
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
        values: dict[str, Any] = {"batch_size": self.plan.batch_size, **self.plan.training, **method.training}
        values |= {"steps": steps, "evaluate_every": max(1, -(-steps // 4)), "learning_rate": rate, **changes}
        place = f"{folder}/{name}-{rate:g}-{steps}-seed{seed}/{folder_name(collection.id)}"
        if method.prompt is not None:
            spec = PromptSpec(**method.prompt)
            side = "query" if spec.sides == "query" else "both"
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
        """Seconds a step of each method, the methods in turn; measured once in a folder."""
        path = self.output / "pace.json"
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if missing := [name for name in names if self._pace_key(name) not in kept]:
            collection = self.supervised(self.plan.tuned_on[0])[0]
            taken: dict[str, list[float]] = {name: [] for name in missing}
            for number in range(rounds):
                for name in missing:
                    seconds = []
                    for steps in (few, many):
                        made = self.made(
                            name, collection, 1e-6, steps, number, folder="pace", dev_queries=0, evaluate_every=0
                        )
                        seconds.append(training_seconds(made))
                    taken[name].append((seconds[1] - seconds[0]) / (many - few))
            kept |= {self._pace_key(name): {"method": name, "seconds": each} for name, each in taken.items()}
            write_json(path, kept)
        return {name: median(kept[self._pace_key(name)]["seconds"]) for name in names}

    def _pace_key(self, name: str) -> str:
        return f"{name} {self.plan.digest(name)}"

    # -- tuning ------------------------------------------------------------------------------------------------

    def tuned(self, names: Sequence[str], steps: Mapping[str, int], seed: int = 0) -> dict[str, dict[float, list[Any]]]:
        """Method -> rate -> the dev curves' ends, one for each collection tuned on: nDCG@10 and loss."""
        found: dict[str, dict[float, list[Any]]] = {}
        for name in names:
            found[name] = {}
            for rate in self.plan.methods[name].rates:
                ends = []
                for target in self.plan.tuned_on:
                    collection = self.supervised(target)[0]
                    made = self.made(name, collection, rate, steps[name], seed, folder="tuning", dtype="float32")
                    curve = made.card["metrics"]["dev"]
                    ends.append({"target": target, "before": curve[0], "after": curve[-1]})
                found[name][rate] = ends
                mean = {key: sum(e["after"][key] for e in ends) / len(ends) for key in ("dev", "loss")}
                self.say(f"{name} {rate:g}, {steps[name]} steps: dev nDCG@10 {mean['dev']:.4f}, loss {mean['loss']:.4f}")
                write_json(self.output / "tuning" / f"{name}.json", {f"{r:g}": e for r, e in found[name].items()})
        return found


def training_seconds(made: StoredPrompt | Baseline) -> float:
    """Of a training, without evaluations."""
    if isinstance(made, Baseline):
        return made.training_seconds
    from foreword.lab.experiment import run_of

    return float(run_of(made)["training_seconds"])
