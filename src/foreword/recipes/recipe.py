"""A recipe: the settings of an earlier system, what they are run on, and what that needs."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from foreword.collections.groups import group_names, members
from foreword.common.errors import ForewordError, UnknownNameError
from foreword.recipes.tables import build, subtable
from foreword.recipes.values import MULTITASK, TransferValues, Values

Table = Literal["as-written", "as-took-effect"]
Step = Literal["pretrain", "train", "transfer"]
TABLES: tuple[Table, ...] = get_args(Table)
STEPS = ("download", *get_args(Step), "evaluate")
"""What a recipe may do, in order."""

SYSTEMS = ("bm25", "base", MULTITASK, "domains", "transfer")

_SHOWN = ("title", "description", "source", "command", "step", "after", "collections", "notes")


@dataclass(frozen=True)
class Evaluation:
    """What is scored at the end.

    Attributes:
        groups: of collections, each with a table of its own.
        systems: its columns: `bm25`, `base` (the backbone without a prompt), `multitask`, `domains` (each
            collection's own prompt) and `transfer`.
        measures: as ir_measures names them.
        k: hits a query.
        query_length: tokens a query is cut to.
        document_length: tokens a document is cut to.
        split: that is scored; empty: the one that each collection is reported on.
        precision: of the forward passes.
    """

    groups: tuple[str, ...]
    systems: tuple[str, ...]
    measures: tuple[str, ...]
    k: int
    query_length: int
    document_length: int
    split: str = ""
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in self.systems:
            if name not in SYSTEMS:
                raise ForewordError(f"systems has {name!r}; expected any of {', '.join(SYSTEMS)}")
        for name in self.groups:
            if name not in group_names():
                raise ForewordError(f"groups has {name!r}; expected any of {', '.join(group_names())}")
        if min(self.k, self.query_length, self.document_length) < 1:
            raise ForewordError("k, query_length and document_length are at least 1")


@dataclass(frozen=True)
class Needs:
    """What a run needs: assumptions, and the estimates that follow from them (see `foreword.recipes.needs`).

    Attributes:
        pairs: training pairs in an epoch, of all prompts together.
        query_tokens: mean of a query, before it is cut.
        document_tokens: mean of a document, before it is cut.
        documents: indexed by each system in the evaluation.
        download_gb: gigabytes to download.
        disk_gb: gigabytes on the disk, unpacked files included.
        gpu_memory_gb: gigabytes on the device, for the as-took-effect values.
        hours: on the device that the estimate assumes, for these values.
        basis: where the assumptions come from.
    """

    pairs: int
    query_tokens: int
    document_tokens: int
    documents: int
    download_gb: float
    disk_gb: float
    gpu_memory_gb: float
    hours: float
    basis: str


@dataclass(frozen=True)
class Miniature:
    """The same recipe on small data that is made on the spot.

    Attributes:
        collections: ids, instead of the recipe's own.
        documents: in each of them.
        seconds: about what it takes on two quiet cores.
        report: group -> the ids in its table.
        evaluation: what is scored at the end.
        before: recipe -> the settings that its miniature has when it comes before this one.
    """

    collections: tuple[str, ...]
    documents: int
    seconds: int
    report: Mapping[str, tuple[str, ...]]
    evaluation: Evaluation
    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """One recipe, as its file has it.

    Attributes:
        name: of the file.
        title: in a line.
        description: what it does.
        source: papers and systems that the values come from.
        command: that runs it.
        step: its own: `pretrain` one prompt on several collections, `train` one for each, or `transfer`.
        after: the recipe whose prompts it starts from; empty: none.
        collections: ids and groups that the step is done on.
        notes: what of the source is not followed, and why.
        evaluation: what is scored at the end.
        needs: of the full run.
        full: the settings by table.
        small: those of the miniature.
        differences: setting -> why the tables differ in it.
        miniature: the small data.
    """

    name: str
    title: str
    description: str
    source: tuple[str, ...]
    command: str
    step: Step
    after: str
    collections: tuple[str, ...]
    notes: tuple[str, ...]
    evaluation: Evaluation
    needs: Needs
    full: Mapping[str, Values | TransferValues]
    small: Mapping[str, Values | TransferValues]
    differences: Mapping[str, str]
    miniature: Miniature

    def __post_init__(self) -> None:
        if self.step not in get_args(Step):
            raise ForewordError(f"step is {self.step!r}; expected one of {', '.join(get_args(Step))}")
        if self.step != "pretrain" and not self.after:
            raise ForewordError("after is missing: the recipe whose prompts this one starts from")
        written, effective = (self.full[table].as_dict() for table in TABLES)
        differing = {name for name in written if written[name] != effective[name]}
        if differing != set(self.differences):
            odd = ", ".join(sorted(differing ^ set(self.differences)))
            raise ForewordError(f"differences must give the reason for each setting that differs, and no other: {odd}")

    def settings(self, table: str, *, miniature: bool = False) -> Values | TransferValues:
        """The settings of a table. Raises `UnknownNameError` when there is no such table."""
        if table not in TABLES:
            raise UnknownNameError(f"no values {table!r}; there are: {', '.join(TABLES)}")
        return (self.small if miniature else self.full)[table]

    def ids(self, *, miniature: bool = False) -> tuple[str, ...]:
        """The collections that the step is done on."""
        if miniature:
            return self.miniature.collections
        found = (members(name) if name in group_names() else (name,) for name in self.collections)
        return tuple(dict.fromkeys(name for names in found for name in names))

    def report(self, *, miniature: bool = False) -> dict[str, tuple[str, ...]]:
        """The groups in the evaluation, with their collections."""
        if miniature:
            return dict(self.miniature.report)
        return {group: tuple(n for n in members(group) if self._reported(n)) for group in self.evaluation.groups}

    def _reported(self, name: str) -> bool:
        """A recipe that is scored on the split it is chosen by is scored on its own collections alone."""
        return not self.evaluation.split or name in self.collections


def recipe_names() -> tuple[str, ...]:
    """The recipes there are, those first that others start from."""
    found = {path.stem: tomllib.loads(path.read_text("utf-8")).get("after", "") for path in _folder().glob("*.toml")}

    def depth(name: str) -> int:
        return 1 + depth(found[name]) if found.get(name) else 0

    return tuple(sorted(found, key=lambda name: (depth(name), name)))


def load_recipe(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        UnknownNameError: there is none; the message lists near names.
        ForewordError: its file has an unknown, missing or wrong key, which the message names.
    """
    if name not in recipe_names():
        near = difflib.get_close_matches(name, recipe_names(), n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(recipe_names())}"
        raise UnknownNameError(f"no recipe {name!r}; {hint}")
    return read_recipe(_folder() / f"{name}.toml")


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises `ForewordError` when a key is unknown, missing or wrong; the message names it."""
    where = path.name
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ForewordError(f"{where}: {error}") from error
    parts = {n: subtable(table, n, where) for n in ("values", *TABLES, "differences", "evaluation", "needs")}
    small = subtable(table, "miniature", where)
    kind = TransferValues if table.get("step") == "transfer" else Values
    settings = {name: {**parts["values"], **parts[name]} for name in TABLES}
    smaller = subtable(small, "values", where)
    fields: dict[str, Any] = {name: table[name] for name in _SHOWN if name in table} | {
        "name": path.stem,
        "after": table.get("after", ""),
        "notes": table.get("notes", []),
        "evaluation": build(Evaluation, parts["evaluation"], f"{where}, evaluation"),
        "needs": build(Needs, parts["needs"], f"{where}, needs"),
        "full": {name: build(kind, settings[name], f"{where}, {name}") for name in TABLES},
        "small": {
            name: build(
                kind,
                {**settings[name], **smaller, **subtable(small, name, where)},
                f"{where}, {name} of the miniature",
            )
            for name in TABLES
        },
        "differences": parts["differences"],
        "miniature": _miniature(small, parts["evaluation"], f"{where}, miniature"),
    }
    unknown = {name: value for name, value in table.items() if name not in {*_SHOWN, *parts, "miniature"}}
    return build(Recipe, {**fields, **unknown}, where)


def _miniature(table: Mapping[str, Any], evaluation: Mapping[str, Any], where: str) -> Miniature:
    report = {group: tuple(ids) for group, ids in subtable(table, "report", where).items()}
    changes = {**subtable(table, "evaluation", where), "groups": list(report)}
    plain = {name: value for name, value in table.items() if name not in ("values", *TABLES)}
    fields = {**plain, "report": report, "evaluation": build(Evaluation, {**evaluation, **changes}, where)}
    return build(Miniature, fields, where)


def chain(recipe: Recipe, table: str) -> tuple[Recipe, ...]:
    """The recipes whose steps are done, in order: those that this one starts from, and it."""
    settings = recipe.settings(table)
    alone = isinstance(settings, Values) and not settings.start_from
    return (recipe,) if alone else (*chain(load_recipe(recipe.after), table), recipe)


@dataclass(frozen=True)
class Stage:
    """One step of a run: whose it is, on what, and how."""

    recipe: str
    step: Step
    ids: tuple[str, ...]
    settings: Values | TransferValues


def stages(recipe: Recipe, table: str, *, miniature: bool = False) -> tuple[Stage, ...]:
    """The steps that make prompts, in order, of a recipe and of those before it.

    In a miniature of transfer the domains that are trained are those that are transferred to.

    Raises:
        UnknownNameError: no such table, or `before` names a setting that is not one.
    """
    found = []
    for one in chain(recipe, table):
        settings, ids = one.settings(table, miniature=miniature), one.ids(miniature=miniature)
        if miniature and one.name in recipe.miniature.before:
            changes = recipe.miniature.before[one.name]
            if unknown := sorted(set(changes) - set(settings.as_dict())):
                raise UnknownNameError(f"{recipe.name}: miniature.before: {one.name} has no {', '.join(unknown)}")
            settings = replace(settings, **changes)
        if miniature and (one.step, recipe.step) == ("train", "transfer"):
            ids = recipe.ids(miniature=True)
        found.append(Stage(one.name, one.step, ids, settings))
    return tuple(found)


def _folder() -> Path:
    return Path(__file__).parent
