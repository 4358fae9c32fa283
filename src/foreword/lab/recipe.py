"""A recipe: the settings of an earlier system, what they are run on, and what that needs."""

from __future__ import annotations

import difflib
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from foreword.collections.registry import group_names, members
from foreword.errors import ForewordError, UnknownNameError
from foreword.prompts.spec import PromptSpec, StoredType

if TYPE_CHECKING:
    from foreword.training.config import StartConfig, TrainingConfig
    from foreword.transferring.config import TransferConfig


# The settings of a recipe's step: everything that its prompts follow from, besides the data.


MULTITASK = "multitask"
"""The name of the prompt that is trained on several collections, and what `start_from` calls it."""

_STARTS = ("words", "noise", "first-ids")


@dataclass(frozen=True)
class Values:
    """How prompts are trained, by several collections at once or one for each.

    Attributes:
        backbone: as `foreword.load_encoder` takes it.
        pooling: of the token embeddings.
        normalize: embeddings of unit length, compared by the cosine; else inner products.
        kind: of the prompt, see `PromptSpec`.
        length: vectors (in each layer, for `gated` and `prefix`).
        sides: `shared`, `untied` or `query`.
        start: where a new prompt's values come from, see `foreword.prompts.start.new_prompt`.
        learning_rate: at its peak.
        schedule: after the warm-up.
        warmup: share of the steps.
        batch_size: queries in a step, on each device.
        temperature: what similarities are divided by in the softmax.
        hard_negatives: that each query brings, at most.
        query_length: tokens a query is cut to in training.
        document_length: tokens a document is cut to in training.
        precision: of the forward passes.
        seed: of every random choice.
        epochs: passes over the training pairs; 0: `steps` decides.
        steps: optimizer steps, where `epochs` is 0.
        placement: of `input` prompts: `before` the first token or `after-cls`; empty for other kinds.
        start_from: `multitask`: the prompt of the recipe before; empty: a new prompt.
        domain_temperature: a domain of n pairs is drawn with weight n ** (1 / this); 1: by size.
        gather_negatives: with several processes, negatives come from all of them.
        mini_batch_size: texts embedded at once (GradCache below the batch size).
        evaluate_every: steps between looks at the dev part.
        dev_queries: of each domain, at such a look.
        dev_documents: of each domain, beside the relevant ones.
        dev_share: of the training queries of a domain without a dev split, held out as one.
        dtype: the precision that prompts are stored in.
    """

    backbone: str
    pooling: str
    normalize: bool
    kind: str
    length: int
    sides: str
    start: str
    learning_rate: float
    schedule: str
    warmup: float
    batch_size: int
    temperature: float
    hard_negatives: int
    query_length: int
    document_length: int
    precision: str
    seed: int
    epochs: float = 0.0
    steps: int = 1
    placement: str = ""
    start_from: str = ""
    domain_temperature: float = 1.0
    gather_negatives: bool = False
    mini_batch_size: int = 64
    evaluate_every: int = 1000
    dev_queries: int = 200
    dev_documents: int = 1000
    dev_share: float = 0.1
    dtype: StoredType = "float16"

    def __post_init__(self) -> None:
        if self.start not in _STARTS:
            raise ForewordError(f"start is {self.start!r}; expected one of {', '.join(_STARTS)}")
        if self.start_from not in ("", MULTITASK):
            raise ForewordError(f"start_from is {self.start_from!r}; expected {MULTITASK!r} or nothing")
        _at_least(self, 1, "steps", "batch_size", "mini_batch_size", "dev_queries", "dev_documents")
        _at_least(self, 0, "epochs", "warmup", "hard_negatives", "evaluate_every")
        _at_least(self, 3, "query_length", "document_length")
        for name in ("learning_rate", "temperature", "domain_temperature"):
            if not getattr(self, name) > 0:
                raise ForewordError(f"{name} is {getattr(self, name)}; it is above 0")
        if not 0 < self.dev_share < 1:
            raise ForewordError(f"dev_share is {self.dev_share}; it is a share, above 0 and below 1")
        _ = self.spec

    @property
    def spec(self) -> PromptSpec:
        """The prompt's structure. Raises `PromptError` naming the setting that is wrong."""
        placement: Any = self.placement or None
        kind: Any = self.kind
        sides: Any = self.sides
        return PromptSpec(kind, self.length, None, sides, placement)

    @property
    def head(self) -> tuple[str, str, bool]:
        """What an encoder is loaded by: backbone, pooling, normalize."""
        return self.backbone, self.pooling, self.normalize

    def training(self) -> TrainingConfig:
        """The settings as `foreword.training` takes them."""
        from foreword.training.config import TrainingConfig

        precision: Any = self.precision
        return TrainingConfig(
            side="both",
            steps=self.steps,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            warmup=self.warmup,
            temperature=self.temperature,
            hard_negatives=self.hard_negatives,
            gather_negatives=self.gather_negatives,
            mini_batch_size=self.mini_batch_size,
            query_length=self.query_length,
            document_length=self.document_length,
            domain_temperature=self.domain_temperature,
            evaluate_every=self.evaluate_every,
            dev_queries=self.dev_queries,
            dev_documents=self.dev_documents,
            dtype=self.dtype,
            precision=precision,
            seed=self.seed,
        )

    def beginning(self) -> StartConfig:
        """A new prompt's structure and start."""
        from foreword.training.config import StartConfig

        start: Any = self.start
        return StartConfig(self.spec, start, self.seed)

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class TransferValues:
    """How the prompts of other domains are combined for one.

    Attributes:
        method: `average`: the weighted mean of their parameters.
        similarity: see `foreword.transferring.reach.similarity`.
        top_k: sources that are weighed.
        temperature: of the softmax over their similarities.
        sample: documents of each domain that similarity looks at.
        features: the backbone that embeds them.
        feature_length: tokens they are cut to.
        precision: of these forward passes.
    """

    method: str
    similarity: str
    top_k: int
    temperature: float
    sample: int
    features: str
    feature_length: int
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.method != "average":
            raise ForewordError(f"method is {self.method!r}; a recipe's is 'average', of parameters with one start")
        if self.similarity not in ("mean", "pairwise"):
            raise ForewordError(f"similarity is {self.similarity!r}; expected mean or pairwise")
        _at_least(self, 1, "top_k", "sample")
        _at_least(self, 3, "feature_length")
        if not self.temperature > 0:
            raise ForewordError(f"temperature is {self.temperature}; it is above 0")

    def config(self) -> TransferConfig:
        """The settings as `foreword.transferring` takes them."""
        from foreword.transferring.config import TransferConfig

        method: Any = self.method
        similarity: Any = self.similarity
        return TransferConfig(method, similarity, self.top_k, self.temperature, self.sample)

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)


def _at_least(record: Any, least: int, *names: str) -> None:
    for name in names:
        if getattr(record, name) < least:
            raise ForewordError(f"{name} is {getattr(record, name)}; it is at least {least}")


# Frozen records from the tables of a TOML file: every key known and of its type, every error naming the key.


Record = TypeVar("Record")

_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def build(kind: type[Record], table: Mapping[str, Any], where: str) -> Record:
    """A record of a dataclass from a table; lists become tuples.

    Args:
        kind: the dataclass.
        table: its fields by name; those with a default may be left out.
        where: the file and the table, for messages.

    Raises:
        ForewordError: a key that is not known, missing or of another type, or a value that the record refuses.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise ForewordError(f"{where}: unknown key {', '.join(unknown)}; known: {', '.join(known)}")
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    missing = [name for name in required if name not in table]
    if missing:
        raise ForewordError(f"{where}: the key {', '.join(missing)} is missing")
    values = {name: _checked(value, hints[name], f"{where}: {name}") for name, value in table.items()}
    try:
        return kind(**values)
    except ForewordError as error:
        raise ForewordError(f"{where}: {error}") from error


def subtable(table: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The table under a key, empty where there is none. Raises `ForewordError` when it is something else."""
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise ForewordError(f"{where}: {name} is {found!r}; expected a table, [{name}]")
    return found


def _checked(value: Any, hint: Any, where: str) -> Any:
    """The value as its type wants it: a list as a tuple, a whole number for a float."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ForewordError(f"{where} is {value!r}; expected a list of texts")
        return tuple(value)
    if get_origin(hint) is not None:  # a mapping, checked by the record itself
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ForewordError(f"{where} is {value!r}; expected {_NAMES.get(hint, hint)}")
    return value


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
    """What a run needs: assumptions, and the estimates that follow from them (see `foreword.lab.needs`).

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
    return Path(__file__).parent / "recipes"
