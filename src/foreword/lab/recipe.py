"""A recipe: the settings of an earlier system, what they are run on, and what that needs."""

from __future__ import annotations

import difflib
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from annotated_types import Gt, Lt

from foreword.collections.registry import group_names, members
from foreword.errors import ForewordError, UnknownNameError, of_file
from foreword.files import read_toml
from foreword.prompts.spec import Kind, PromptSpec, Sides, StoredType
from foreword.settings import Count, Natural, NotNegative, Positive, Precision, Settings, Tokens, hints
from foreword.training.config import StartConfig, TrainingConfig

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.transferring.config import TransferConfig

MULTITASK = "multitask"
"""The name of the prompt that is trained on several collections, and what `start_from` calls it."""

Table = Literal["as-written", "as-took-effect"]
Step = Literal["pretrain", "train", "transfer"]
TABLES: tuple[Table, ...] = get_args(Table)
STEPS = ("download", *get_args(Step), "evaluate")
"""What a recipe may do, in order."""

SYSTEMS = ("bm25", "base", MULTITASK, "domains", "transfer")


@dataclass(frozen=True)
class TrainingValues(Settings):
    """How prompts are trained, by several collections at once or one for each.

    What is not said here is a setting of `TrainingConfig` or `PromptSpec`, under its name there. A file must give
    all that has no default.

    Attributes:
        backbone: as `foreword.load_encoder` takes it.
        pooling: of the token embeddings.
        normalize: embeddings of unit length, compared by the cosine; else inner products.
        start: where a new prompt's values come from, see `foreword.prompts.start.new_prompt`.
        epochs: passes over the training pairs; 0: `steps` decides.
        placement: of `input` prompts: `before` the first token or `after-cls`; empty for other kinds.
        start_from: `multitask`: the prompt of the recipe before; empty: a new prompt.
        dev_share: of the training queries of a domain without a dev split, held out as one.
    """

    backbone: str
    pooling: str
    normalize: bool
    kind: Kind
    length: Count
    sides: Sides
    start: Literal["words", "noise", "first-ids"]
    learning_rate: Positive
    schedule: str
    warmup: NotNegative
    batch_size: Count
    temperature: Positive
    hard_negatives: Natural
    query_length: Tokens
    document_length: Tokens
    precision: Precision
    seed: int
    epochs: NotNegative = 0.0
    steps: Count = 1
    placement: Literal["", "after-cls", "before"] = ""
    start_from: Literal["", "multitask"] = ""
    domain_temperature: Positive = 1.0
    gather_negatives: bool = False
    mini_batch_size: Count = 64
    evaluate_every: Natural = 1000
    dev_queries: Count = 200
    dev_documents: Count = 1000
    dev_share: Annotated[float, Gt(0), Lt(1)] = 0.1
    dtype: StoredType = "float16"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.spec  # refuses what does not go together

    @property
    def spec(self) -> PromptSpec:
        """The prompt's structure."""
        return PromptSpec(self.kind, self.length, sides=self.sides, placement=self.placement or None)

    @property
    def head(self) -> tuple[str, str, bool]:
        """What an encoder is loaded by: backbone, pooling, normalize."""
        return self.backbone, self.pooling, self.normalize

    def training(self) -> TrainingConfig:
        """The settings as `foreword.training` takes them."""
        shared = hints(TrainingConfig).keys() & hints(TrainingValues).keys()
        return TrainingConfig(side="both", **{name: getattr(self, name) for name in shared})

    def beginning(self) -> StartConfig:
        """A new prompt's structure and start."""
        return StartConfig(self.spec, self.start, self.seed)


@dataclass(frozen=True)
class TransferValues(Settings):
    """How the prompts of other domains are combined for one.

    Attributes:
        method: `average`: the weighted mean of their parameters, which have one start.
        similarity: see `foreword.transferring.reach.similarity`.
        top_k: sources that are weighed.
        temperature: of the softmax over their similarities.
        sample: documents of each domain that similarity looks at.
        features: the backbone that embeds them.
        feature_length: tokens they are cut to.
        precision: of these forward passes.
    """

    method: Literal["average"]
    similarity: Literal["mean", "pairwise"]
    top_k: Count
    temperature: Positive
    sample: Count
    features: str
    feature_length: Tokens
    precision: Precision = "float32"

    def config(self) -> TransferConfig:
        """The settings as `foreword.transferring` takes them."""
        from foreword.transferring.config import TransferConfig

        return TransferConfig(self.method, self.similarity, self.top_k, self.temperature, self.sample)


@dataclass(frozen=True)
class Scoring(Settings):
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
    k: Count
    query_length: Count
    document_length: Count
    split: str = ""
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("systems", SYSTEMS), ("groups", group_names())):
            for one in getattr(self, name):
                if one not in known:
                    raise ForewordError(f"{name} has {one!r}; expected any of {', '.join(known)}")


@dataclass(frozen=True)
class Needs(Settings):
    """What a run needs: assumptions, and the estimates that follow from them (see `estimate`).

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
class Miniature(Settings):
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
    evaluation: Scoring
    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe(Settings):
    """One recipe, as its file has it.

    Attributes:
        name: of the file.
        title: in a line.
        description: what it does.
        source: papers and systems that the values come from.
        command: that runs it.
        step: its own: `pretrain` one prompt on several collections, `train` one for each, or `transfer`.
        collections: ids and groups that the step is done on.
        evaluation: what is scored at the end.
        needs: of the full run.
        full: the settings by table.
        small: those of the miniature.
        differences: setting -> why the tables differ in it.
        miniature: the small data.
        after: the recipe whose prompts it starts from; empty: none.
        notes: what of the source is not followed, and why.
    """

    name: str
    title: str
    description: str
    source: tuple[str, ...]
    command: str
    step: Step
    collections: tuple[str, ...]
    evaluation: Scoring
    needs: Needs
    full: Mapping[str, TrainingValues | TransferValues]
    small: Mapping[str, TrainingValues | TransferValues]
    differences: Mapping[str, str]
    miniature: Miniature
    after: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step != "pretrain" and not self.after:
            raise ForewordError("after is missing: the recipe whose prompts this one starts from")
        written, effective = (self.full[table].as_dict() for table in TABLES)
        differing = {name for name in written if written[name] != effective[name]}
        if differing != set(self.differences):
            odd = ", ".join(sorted(differing ^ set(self.differences)))
            raise ForewordError(f"differences must give the reason for each setting that differs, and no other: {odd}")

    def settings(self, table: str, *, miniature: bool = False) -> TrainingValues | TransferValues:
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
        """The groups in the evaluation, with their collections.

        A recipe that is scored on the split it is chosen by is scored on its own collections alone.
        """
        if miniature:
            return dict(self.miniature.report)
        own = self.collections if self.evaluation.split else None
        return {g: tuple(n for n in members(g) if own is None or n in own) for g in self.evaluation.groups}


def recipe_names() -> tuple[str, ...]:
    """The recipes there are, those first that others start from."""
    found = {path.stem: read_toml(path).get("after", "") for path in _FOLDER.glob("*.toml")}

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
    return read_recipe(_FOLDER / f"{name}.toml")


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises `ForewordError` when a key is unknown, missing or wrong; the message names it."""
    with of_file(path.name, ForewordError):
        return _recipe(path)


def _recipe(path: Path) -> Recipe:
    where = path.name
    table = read_toml(path)

    def taken(name: str, source: dict[str, Any]) -> dict[str, Any]:
        found = source.pop(name, {})
        if not isinstance(found, dict):
            raise ForewordError(f"{where}: {name} is {found!r}; expected a table, [{name}]")
        return found

    kind: type[Settings] = TransferValues if table.get("step") == "transfer" else TrainingValues
    common, evaluation, small = (taken(name, table) for name in ("values", "evaluation", "miniature"))
    settings = {name: {**common, **taken(name, table)} for name in TABLES}
    smaller = taken("values", small)
    smaller_settings = {name: {**settings[name], **smaller, **taken(name, small)} for name in TABLES}
    report = {group: tuple(ids) for group, ids in taken("report", small).items()}
    scored = {**evaluation, **taken("evaluation", small), "groups": list(report)}
    made = {
        "name": path.stem,
        "evaluation": Scoring.read(evaluation, f"{where}, evaluation"),
        "needs": Needs.read(taken("needs", table), f"{where}, needs"),
        "full": {name: kind.read(settings[name], f"{where}, {name}") for name in TABLES},
        "small": {name: kind.read(smaller_settings[name], f"{where}, {name} of the miniature") for name in TABLES},
        "differences": taken("differences", table),
    }
    inside = f"{where}, miniature"
    small |= {"report": report, "evaluation": Scoring.read(scored, inside)}
    return Recipe.read({**table, **made, "miniature": Miniature.read(small, inside)}, where)


_FOLDER = Path(__file__).parent / "recipes"


def chain(recipe: Recipe, table: str) -> tuple[Recipe, ...]:
    """The recipes whose steps are done, in order: those that this one starts from, and it."""
    settings = recipe.settings(table)
    alone = isinstance(settings, TrainingValues) and not settings.start_from
    return (recipe,) if alone else (*chain(load_recipe(recipe.after), table), recipe)


@dataclass(frozen=True)
class RecipeStep:
    """One step of a run: whose it is, on what, and how."""

    recipe: str
    step: Step
    ids: tuple[str, ...]
    settings: TrainingValues | TransferValues


def stages(recipe: Recipe, table: str, *, miniature: bool = False) -> tuple[RecipeStep, ...]:
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
        found.append(RecipeStep(one.name, one.step, ids, settings))
    return tuple(found)


# What a full run needs: estimates from the settings, by formulas that are said, at a rate that is given.
#
# Nothing here was measured on the device that the recipes are for. Floating-point operations are 2 N a token forward
# and 2 N a token backward through frozen weights (N parameters beside the embeddings; Kaplan et al. 2020, without the
# gradient of the weights), once more forward under GradCache; attention's own products are left out (some 5 %).
# Memory is that of activations in training, `s b h (34 + 5 a s / h)` bytes a layer at 16 bits for b texts of s tokens,
# width h and a heads (Korthikanti et al. 2022, arXiv 2205.05198, equation 2), and the weights.

LAYERS, WIDTH, HEADS = 12, 768, 12  # of bert-base-uncased
PARAMETERS = 12 * LAYERS * WIDTH**2  # beside the embeddings
WEIGHTS = 109_482_240  # parameters with the embeddings and the pooler

PEAK = {"float16": 312e12, "bfloat16": 312e12, "float32": 19.5e12, "auto": 312e12}
"""Operations a second that NVIDIA's data sheet gives the A100 (dense products)."""
SHARE = 0.4
"""Of the peak that is assumed to be reached."""
UNPACKED = 4
"""Bytes on the disk for each downloaded one: the archive itself, and text three times as large."""


@dataclass(frozen=True)
class Estimate:
    """What a run of one recipe, without those before it, is estimated to need.

    Attributes:
        training_hours: of all its prompts.
        indexing_hours: of the evaluation.
        gpu_memory_gb: gigabytes, in training.
        rates: operations a second that are assumed in training and in the evaluation.
    """

    training_hours: float
    indexing_hours: float
    gpu_memory_gb: float
    rates: tuple[float, float]

    @property
    def hours(self) -> float:
        """Of all of it."""
        return self.training_hours + self.indexing_hours


def estimate(recipe: Recipe, table: str = "as-took-effect", *, rate: float | None = None) -> Estimate:
    """What a full run of a recipe needs.

    Args:
        recipe: its `needs` give the amounts.
        table: of its settings.
        rate: operations a second, as `measure` finds them on a device; None: `SHARE` of an A100's `PEAK`, at the
            precisions of the settings and of the evaluation.
    """
    needs, evaluation = recipe.needs, recipe.evaluation
    settings = (one.settings(table) for one in chain(recipe, table))
    values = [one for one in settings if isinstance(one, TrainingValues)][-1]  # that the prompts are trained by
    rates = (rate or SHARE * PEAK[values.precision], rate or SHARE * PEAK[evaluation.precision])
    own = values.length if values.kind == "input" else 0  # positions that the prompt itself takes
    cached = values.mini_batch_size < values.batch_size
    training = 0.0
    if recipe.step != "transfer":
        query = min(needs.query_tokens, values.query_length) + own
        document = min(needs.document_tokens, values.document_length) + own
        tokens = values.epochs * needs.pairs * (query + (1 + values.hard_negatives) * document)
        training = tokens * PARAMETERS * (6 if cached else 4)
    length = min(needs.document_tokens, evaluation.document_length)
    tokens = sum(length + (0 if name == "base" else own) for name in evaluation.systems if name != "bm25")
    indexing = 2.0 * PARAMETERS * needs.documents * tokens

    def held(texts: int, tokens: int) -> float:
        size = 4 if values.precision == "float32" else 2  # bytes of an activation
        return texts * tokens * WIDTH * LAYERS * (34 + 5 * HEADS * tokens / WIDTH) * size / 2

    if recipe.step == "transfer":  # nothing is trained: one layer's activations of a batch
        activations = held(64, evaluation.document_length) / LAYERS * 2
    elif cached:
        activations = held(values.mini_batch_size, values.document_length + own)
    else:
        columns = (1 + values.hard_negatives) * held(values.batch_size, values.document_length + own)
        activations = held(values.batch_size, values.query_length + own) + columns
    return Estimate(training / rates[0] / 3600, indexing / rates[1] / 3600, (activations + 4 * WEIGHTS) / 1e9, rates)


def measure(encoder: SentenceTransformer, values: TrainingValues, *, seconds: float = 5.0) -> float:
    """Operations a second that this machine reaches in training under these settings, for `estimate`.

    Texts of the settings' document length go forward and backward, to an untrained prompt, for some seconds.
    """
    from foreword.prompts.encoder import autocast, transformer_of
    from foreword.prompts.start import new_prompt

    transformer = transformer_of(encoder)
    prompt = new_prompt(encoder, values.spec, start="noise", seed=values.seed).to(encoder.device)
    texts = ["word " * values.document_length] * min(values.batch_size, values.mini_batch_size)
    tokens = len(texts) * (values.document_length + (values.length if values.kind == "input" else 0))
    route, known = transformer.route, "(measured)"
    transformer.add(known, prompt)
    transformer.route = known
    embeddings: Any = transformer.model.get_input_embeddings()
    count = sum(p.numel() for p in transformer.model.parameters()) - embeddings.weight.numel()
    done, taken = 0.0, 0.0
    try:
        while taken < seconds or not done:
            began = time.perf_counter()
            features = encoder.preprocess(texts, task="document", max_length=values.document_length)
            features = {k: v.to(encoder.device) if hasattr(v, "to") else v for k, v in features.items()}
            with autocast(values.precision, encoder.device):
                encoder(features)["sentence_embedding"].float().sum().backward()
            taken += time.perf_counter() - began
            done += 4.0 * count * tokens
    finally:
        transformer.remove(known)
        transformer.route = route
    return done / taken


def before(recipe: Recipe, table: str) -> list[tuple[Recipe, Estimate]]:
    """The recipes whose prompts come first, with their estimates."""
    return [(r, estimate(r, table)) for r in chain(recipe, table)[:-1]]


# A recipe in words.

_EFFECTIVE = "as-took-effect"


def describe(recipe: Recipe) -> str:
    """What a recipe is, for a terminal."""
    what = {"pretrain": "one prompt on", "train": "a prompt for each of", "transfer": "transfer to each of"}[
        recipe.step
    ]
    done = [f"{what} {len(recipe.ids())} collections: {', '.join(recipe.collections)}"]
    if recipe.after:
        new = len(chain(recipe, _EFFECTIVE)) == 1
        done.append(f"{'as written, ' if new else ''}starts from the prompts of {recipe.after}, which are made first")
    groups = " and ".join(f"{group} ({len(ids)})" for group, ids in recipe.report().items())
    systems, measures = ", ".join(recipe.evaluation.systems), ", ".join(recipe.evaluation.measures)
    done.append(f"scored on {groups}: {systems}; {measures}")
    found, needs = estimate(recipe, _EFFECTIVE), recipe.needs
    rates = " and ".join(f"{rate / 1e12:.3g}" for rate in dict.fromkeys(found.rates))
    others = before(recipe, _EFFECTIVE)
    needed = [
        f"about {needs.gpu_memory_gb:g} GB on the device, {needs.disk_gb:g} GB on the disk ({needs.download_gb:g} GB "
        "to download)",
        f"about {needs.hours:.3g} hours: {found.training_hours:.3g} of training and {found.indexing_hours:.3g} of the "
        f"evaluation, at {rates} TFLOP/s ({SHARE:.0%} of what NVIDIA's data sheet gives an A100)",
        *(f"and those of {other.name} before it: about {its.hours:.3g} hours" for other, its in others),
        "foreword.lab.recipe.measure gives the rate of a machine, and estimate the hours at that rate",
        f"assumed: {needs.basis}",
    ]
    miniature = f"foreword benchmark {recipe.name} --miniature --output runs/{recipe.name}-miniature"
    blocks = [
        f"{recipe.name}: {recipe.title}",
        _wrapped(recipe.description),
        _listed("from", recipe.source),
        _side_by_side(recipe),
        _listed("why the two differ", [f"{name}: {reason}" for name, reason in recipe.differences.items()]),
        _listed("not followed", recipe.notes),
        _listed("what is done", done),
        _listed("needs (estimates by formula; nothing was measured on such a device)", needed),
        f"run it:\n  {recipe.command}\n"
        f"or on small data made here, in about {recipe.miniature.seconds} s on two processor cores:\n  {miniature}",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _wrapped(text: str, first: str = "", indent: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()), 100, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )


def _listed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{title}:", *(_wrapped(line, "  - ", "    ") for line in lines)]) if lines else ""


def _side_by_side(recipe: Recipe) -> str:
    """The settings: one column where the tables agree in all of them."""

    def stated(settings: TrainingValues | TransferValues) -> dict[str, str]:
        found = settings.as_dict()
        if isinstance(settings, TrainingValues):  # of epochs and steps, the one that decides
            found |= {"steps": "by epochs"} if settings.epochs else {"epochs": ""}
        return {name: _shown(value) for name, value in found.items()}

    written, effective = (stated(recipe.full[name]) for name in TABLES)
    small = stated(recipe.small[_EFFECTIVE])
    rows: list[list[str]] = [["setting", *(["as-written"] if recipe.differences else []), _EFFECTIVE, "miniature"]]
    for name, value in effective.items():
        first = [written[name] + (" *" if name in recipe.differences else "")] if recipe.differences else []
        rows.append([name, *first, value, small[name] if small[name] != value else ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value) or "-"
