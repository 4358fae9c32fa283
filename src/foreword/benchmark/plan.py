"""What a benchmark of transfer runs: domains, folds, seeds, settings, claims made beforehand; read from a TOML file."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from foreword.benchmark.summary import Hypothesis
from foreword.collections.groups import members
from foreword.common.errors import ForewordError


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
        text = resources.files("foreword.benchmark").joinpath("transfer.toml").read_text(encoding="utf-8")
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
