"""Run a recipe: its steps in order, each of which goes on where it was cut, and the check that something was learnt."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.collections.collection import Collection
from foreword.collections.registry import family_of, load, split_id
from foreword.collections.supervision import supervise
from foreword.downloads import Transport, data_folder
from foreword.downloads.places import DEFAULT
from foreword.errors import ForewordError, PromptError, UnknownNameError
from foreword.evaluation.candidates import read_bank
from foreword.evaluation.group import GroupConfig, System, evaluate_group
from foreword.evaluation.table import format_group
from foreword.files import atomic_write, write_json
from foreword.lab.miniature import DATA, prepare
from foreword.lab.recipe import MULTITASK, STEPS, Evaluation, Recipe, Stage, Step, TransferValues, Values, stages
from foreword.prompts.encoder import state_digest
from foreword.prompts.inspect import bank_words
from foreword.prompts.loading import load_encoder
from foreword.prompts.prompt import Prompt
from foreword.prompts.start import new_prompt
from foreword.prompts.store import (
    CARD,
    DTYPES,
    StoredPrompt,
    check_backbone,
    describe_backbone,
    folder_name,
    load_bank,
    load_prompt,
    read_card,
    save_prompt,
)
from foreword.report import write_report
from foreword.training.train import Outcome, failures, train, train_group
from foreword.transferring.reach import Array, document_features
from foreword.transferring.transfer import has_seen, transfer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


FORMAT = "foreword-recipe/1"
RECORD = "recipe.json"
MINIATURE_DATA = "miniature-data"
"""Below the output."""


def run_recipe(
    recipe: Recipe,
    output: str | Path,
    *,
    data: Path | None = None,
    values: str = "as-took-effect",
    miniature: bool = False,
    steps: Sequence[str] | None = None,
    multitask: Path | None = None,
    bank: Path | None = None,
    transport: Transport = DEFAULT,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run a recipe, or its miniature. Finished prompts and scores found in `output` are used again.

    Into `output` come `multitask/` (a prompt), `prompts/` and `transferred/` (banks), `tables/<group>/` with the
    runs and `group.json`, `tables/<group>.md` and `.csv`, `recipe.json`: configuration, versions, seconds, prompts,
    checks and means; and `report.html`.

    Args:
        recipe: from `load_recipe`.
        output: the folder, made when missing.
        data: the data folder (see `foreword.downloads.data_folder`); a miniature makes its own, in `output`.
        values: `as-written` or `as-took-effect`.
        miniature: small data and few steps.
        steps: some of `STEPS`, whose results before them are in `output` already; None: all that the recipe has.
        multitask: the folder of a multitask prompt, instead of training one.
        bank: the folder of the domains' prompts, instead of training them.
        transport: of the downloads.
        quiet: no progress.

    Returns:
        What `recipe.json` holds.

    Raises:
        UnknownNameError: no such values or step.
        BackboneError: the backbone is not to be had; said before anything is downloaded.
        DataError: data are missing or broken.
        ForewordError: a prompt failed, or a check: it says which, with the figures, after all was written.
    """
    from foreword.prompts.store import library_versions

    resolved = plan(recipe, values=values, miniature=miniature, steps=steps, multitask=multitask, bank=bank, data=data)
    output = Path(output)
    if miniature and data is not None:
        raise ForewordError(f"a miniature makes its own data, in {output / MINIATURE_DATA}; leave out data (--data)")
    place = output / MINIATURE_DATA if miniature else data_folder(data)
    work = Work(recipe, values, miniature, output, place, transport, multitask, bank, quiet)
    began, seconds = time.perf_counter(), {}
    work.load_encoders()
    for step in resolved["steps"]:
        said_at = time.perf_counter()
        if not quiet:
            print(f"[{said_at - began:5.0f} s] {recipe.name}: {step}", file=sys.stderr, flush=True)
        getattr(work, step)()
        seconds[step] = round(time.perf_counter() - said_at, 2)
    checks = work.checks()
    results: dict[str, Any] = {
        "format": FORMAT,
        **resolved,
        "backbones": work.backbones(),
        "versions": library_versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": {**seconds, "all": round(time.perf_counter() - began, 2)},
        "prompts": [prompt.as_dict() for prompt in work.prompts],
        "transfers": work.transfers,
        "checks": [check.as_dict() for check in checks],
        "failures": work.failures,
        "left_out": work.left_out,
        "tables": work.tables,
    }
    _keep(output / RECORD, results)
    write_json(output / RECORD, results)
    work.write_page(results)
    require(checks, recipe.name, str(output / RECORD))
    if work.failures:
        listed = "".join(f"\n  {failure['collection']}: {failure['error']}" for failure in work.failures)
        raise ForewordError(f"{recipe.name}: {len(work.failures)} failed:{listed}")
    return results


def _keep(path: Path, results: dict[str, Any]) -> None:
    """Add what an earlier run of the same configuration recorded of the steps that were not done this time."""
    try:
        before = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # none, or not ours: it is written over
        return
    same = ("format", "recipe", "values", "miniature", "configuration", "evaluation", "report")
    if any(before.get(name) != results[name] for name in same):
        return
    for name, keys in (("prompts", ("domain",)), ("transfers", ("target",)), ("checks", ("prompt", "what"))):
        there = {tuple(entry[key] for key in keys) for entry in results[name]}
        results[name] = [e for e in before[name] if tuple(e[key] for key in keys) not in there] + results[name]
    results["tables"] = {**before["tables"], **results["tables"]}


def plan(
    recipe: Recipe,
    *,
    values: str = "as-took-effect",
    miniature: bool = False,
    steps: Sequence[str] | None = None,
    multitask: Path | None = None,
    bank: Path | None = None,
    data: Path | None = None,
) -> dict[str, Any]:
    """What `run_recipe` would do, as JSON values: the steps, and the settings and collections of each.

    Raises:
        UnknownNameError: no such values or step.
    """
    found = [s for s in stages(recipe, values, miniature=miniature) if not _given(s, multitask, bank)]
    own = ["download", *(stage.step for stage in found), "evaluate"]
    for step in steps or ():
        if step not in own:
            known = STEPS if step not in STEPS else own
            raise UnknownNameError(f"{recipe.name} has no step {step!r}; it has: {', '.join(known)}")
    chosen = [step for step in own if steps is None or step in steps]
    evaluation = recipe.miniature.evaluation if miniature else recipe.evaluation
    resolved = {
        "recipe": recipe.name,
        "title": recipe.title,
        "values": values,
        "miniature": miniature,
        "steps": chosen,
        "data": None if data is None else str(data),
        "multitask": None if multitask is None else str(multitask),
        "bank": None if bank is None else str(bank),
        "configuration": {
            stage.step: {
                "recipe": stage.recipe,
                "collections": list(stage.ids),
                "settings": stage.settings.as_dict(),
            }
            for stage in found
        },
        "evaluation": asdict(evaluation),
        "report": {group: list(ids) for group, ids in recipe.report(miniature=miniature).items()},
        "documents": recipe.miniature.documents if miniature else None,
    }
    as_read_back: dict[str, Any] = json.loads(json.dumps(resolved))  # lists for tuples
    return as_read_back


def _given(stage: Stage, multitask: Path | None, bank: Path | None) -> bool:
    """Whether a step is not done, since its prompts are given."""
    return (stage.step == "pretrain" and bool(multitask or bank)) or (stage.step == "train" and bank is not None)


# Whether a recipe's training learnt anything: for every prompt, and for the backbone that must not.


@dataclass(frozen=True)
class Made:
    """A prompt that a run trained, or found trained, and what it started from."""

    stored: StoredPrompt
    start: Prompt

    def as_dict(self) -> dict[str, Any]:
        """What the record says of it."""
        card = self.stored.card
        return {
            "domain": self.stored.domain,
            "folder": str(self.stored.path),
            "parameters": card["parameters"],
            "bytes": card["bytes"],
            "supervision": card["supervision"],
            "start_digest": card["start_digest"],
            "digest": card["digest"],
            "best_step": card["metrics"]["best_step"],
            "dev": card["metrics"]["dev"],
        }


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        prompt: the domain, or the backbone's name.
        what: `dev loss`, `values` or `backbone`.
        passed: as it should be.
        said: the figures.
    """

    prompt: str
    what: str
    passed: bool
    said: str

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)


def check_prompt(made: Made) -> list[Check]:
    """What a trained prompt must show: a lower dev loss than its start, and other values.

    The start is compared as it would be stored, rounded to the card's dtype.
    """
    return [_loss(made.stored), _values(made.stored, made.start)]


def check_state(name: str, before: str, after: str) -> Check:
    """The backbone must be the same, bit by bit, after all trainings as before (SHA-256 of its state)."""
    same = before == after
    return Check(name, "backbone", same, f"{before[:12]} before, {after[:12]} after")


def require(checks: Sequence[Check], recipe: str, record: str) -> None:
    """Raise `ForewordError` with the figures of every check that failed."""
    failed = [check for check in checks if not check.passed]
    if failed:
        listed = "".join(f"\n  {check.prompt}: {check.what}: {check.said}" for check in failed)
        raise ForewordError(
            f"{recipe}: {len(failed)} of {len(checks)} checks failed, so the training is not to be trusted:{listed}\n"
            f"All figures are in {record}"
        )


def _loss(stored: StoredPrompt) -> Check:
    history = stored.card["metrics"]["dev"]
    looked = {entry["step"]: entry["loss"] for entry in history if entry.get("loss") is not None}
    if len(looked) < 2 or 0 not in looked:
        return Check(stored.domain, "dev loss", False, "no dev split, or too few steps, to see it by")
    best, last = stored.card["metrics"]["best_step"], max(looked)
    reached = {step: looked[step] for step in (best, last) if step > 0}
    step = min(reached, key=lambda step: reached[step])
    said = f"{looked[0]:.6f} at the start, {reached[step]:.6f} at step {step}"
    return Check(stored.domain, "dev loss", reached[step] < looked[0], said)


def _values(stored: StoredPrompt, start: Prompt) -> Check:
    rounded = start.rounded(DTYPES[stored.card["dtype"]]).digest()
    digest, step = stored.card["digest"], stored.card["metrics"]["best_step"]
    changed = digest != rounded and step > 0
    said = f"{rounded[:12]} at the start, {digest[:12]} stored, of step {step}"
    if step == 0:
        said += ": no step retrieved better on the dev split than the start, which was kept"
    return Check(stored.domain, "values", changed, said)


# Where a domain's prompt starts: from the multitask prompt, brought into another form where the settings want one.


def starting_prompt(encoder: SentenceTransformer, values: Values, multitask: StoredPrompt | None) -> Prompt:
    """The prompt that training starts from under these settings.

    A multitask prompt of another structure gives its query part to every part wanted (both, where it is untied and
    an untied one is wanted), and its first vectors; what it has too few of are a new prompt's.

    Raises:
        ForewordError: it is of another kind, or encodes no documents and that is wanted.
    """
    new = new_prompt(encoder, values.spec, start=values.beginning().start, seed=values.seed)
    if multitask is None:
        return new
    old = multitask.prompt
    if old.spec == values.spec:
        return Prompt(old.spec, old.tensors())
    if old.spec.kind != values.kind:
        raise ForewordError(f"the multitask prompt is of kind {old.spec.kind}, and {values.kind} is wanted; train anew")
    tensors, known = new.tensors(), old.tensors()
    axis = 0 if values.kind == "input" else 1  # of the vectors
    for name, tensor in tensors.items():
        part, _, what = name.partition(".")
        origin = known[f"{_part_of(old, part)}.{what}"]
        if what == "gate":
            tensor.copy_(origin)
        else:
            count = min(origin.shape[axis], tensor.shape[axis])
            tensor.narrow(axis, 0, count).copy_(origin.narrow(axis, 0, count))
    return Prompt(values.spec, tensors)


def _part_of(old: Prompt, part: str) -> str:
    """The part of the old prompt that a part of the new one is made of."""
    side = old.spec.part_for("document" if part == "document" else "query")
    if side is None:
        raise ForewordError("the multitask prompt does not encode documents, and the prompt wanted does; train anew")
    return side


# The page of a recipe's run: its tables, learning curves, similarities, and the words that its prompts lie near.


PAGE = "report.html"


def write_page(
    path: Path,
    record: Mapping[str, Any],
    prompts: Sequence[StoredPrompt],
    groups: Iterable[Path],
    encoder: SentenceTransformer,
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        record: what `recipe.json` holds.
        prompts: the prompts that were trained.
        groups: the groups' `group.json`.
        encoder: whose vocabulary the words are from.
    """
    near = {stored.domain: stored for stored in prompts if stored.prompt.spec.kind == "input"}  # to words of its own
    results: dict[str, Any] = {
        "title": f"{record['title']}{' (miniature)' if record['miniature'] else ''}",
        "created": record["finished"],
        "configuration": record["configuration"],
        "versions": record["versions"],
        "rows": [row for group in groups for row in _rows(json.loads(group.read_text("utf-8")))],
        "curves": [{"name": stored.domain, "points": _points(stored.card)} for stored in prompts],
        "words": bank_words(encoder, near).records if near else [],
        "weights": [
            {"target": entry["target"], "system": entry["method"], "weights": entry["weights"]}
            for entry in record["transfers"]
        ],
    }
    write_report(path, results)


def _rows(group: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A group's rows, a measure each and the headline first, as the report takes them."""
    headline = group["headline"]
    return [
        {
            "system": row["system"],
            "collection": row["collection"],
            "measure": measure,
            "value": value,
            "seconds": row["seconds"],
        }
        for row in group["rows"]
        for measure, value in sorted(row["measures"].items(), key=lambda item: item[0] != headline)
    ]


def _points(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Dev effectiveness and training loss by step."""
    points: dict[int, dict[str, Any]] = {}
    for entry in card["metrics"]["dev"]:
        points.setdefault(entry["step"], {"step": entry["step"]})["dev"] = entry["dev"]
    for entry in card["metrics"]["loss"]:
        points.setdefault(entry["step"], {"step": entry["step"]})["loss"] = entry["loss"]
    return [points[step] for step in sorted(points)]


# The steps of a recipe's run, over the same functions that the commands use.


BANK, TRANSFERRED, TABLES = "prompts", "transferred", "tables"
"""Folders of the output, beside `multitask`."""

_STYLES = {"md": "markdown", "csv": "csv"}


class Work:
    """The state of one run; `run.run_recipe` says what happens in which order."""

    def __init__(
        self,
        recipe: Recipe,
        table: str,
        miniature: bool,
        output: Path,
        data: Path,
        transport: Transport,
        multitask: Path | None,
        bank: Path | None,
        quiet: bool,
    ) -> None:
        """`data` is the data folder, or where a miniature's is made; see `run_recipe` for the others."""
        self.recipe, self.miniature, self.output = recipe, miniature, output
        self.data = data / DATA if miniature else data
        self.made_in, self.transport, self.quiet = data, transport, quiet
        self.stages = {stage.step: stage for stage in stages(recipe, table, miniature=miniature)}
        self.pretrains = multitask is None and bank is None
        self.multitask = multitask or output / MULTITASK
        self.bank = bank or output / BANK
        self.prompts: list[Made] = []
        self.transfers: list[dict[str, Any]] = []
        self.failures: list[dict[str, Any]] = []
        self.left_out: list[dict[str, str]] = []
        self.tables: dict[str, Any] = {}
        self._encoders: dict[tuple[str, str, bool], tuple[SentenceTransformer, str]] = {}

    # -- pieces ----------------------------------------------------------------------------------------------------

    def values(self, step: Step) -> Values:
        """The settings of pretraining or of the domains' training."""
        settings = self.stages[step].settings
        assert isinstance(settings, Values)
        return settings

    @cached_property
    def last(self) -> Values:
        """The settings of the last training, whose encoder is scored."""
        return self.values("train" if "train" in self.stages else "pretrain")

    @property
    def evaluation(self) -> Evaluation:
        """What is scored."""
        return self.recipe.miniature.evaluation if self.miniature else self.recipe.evaluation

    def encoder(self, values: Values) -> SentenceTransformer:
        """The backbone under the settings' pooling and normalisation, loaded once."""
        if values.head not in self._encoders:
            backbone, pooling, normalize = values.head
            encoder = load_encoder(backbone, pooling=pooling, normalize=normalize)
            self._encoders[values.head] = encoder, state_digest(encoder)
        return self._encoders[values.head][0]

    def load_encoders(self) -> None:
        """Load every encoder that is needed, so that a missing one is said first of all."""
        for stage in self.stages.values():
            if isinstance(stage.settings, Values):
                self.encoder(stage.settings)

    def load(self, name: str) -> Collection:
        """A collection, as it is."""
        return load(name, data=self.data)

    def supervised(self, name: str) -> Collection:
        """A collection with the splits that its prompt is trained by."""
        values = self.values("train")
        return supervise(self.load(name), seed=values.seed, dev_share=values.dev_share)

    def say(self, text: str) -> None:
        """A line of progress."""
        if not self.quiet:
            print(f"          {text}", file=sys.stderr, flush=True)

    # -- steps -----------------------------------------------------------------------------------------------------

    def download(self) -> None:
        """Bring every collection that is trained on or scored, unless it is there."""
        stages_here = [stage for stage in self.stages.values() if stage.step != "pretrain" or self.pretrains]
        ids = [name for stage in stages_here for name in stage.ids]
        ids += [name for names in self.recipe.report(miniature=self.miniature).values() for name in names]
        ids = list(dict.fromkeys(ids))
        if self.miniature:
            prepare(ids, self.made_in, self.recipe.miniature.documents)
            return
        failed = []
        for name in ids:
            try:
                family_of(name).download(split_id(name)[1], self.data, self.transport)
            except (ForewordError, OSError) as error:
                failed.append(f"\n  {name}: {error}")
        if failed:
            raise ForewordError(f"{len(failed)} of {len(ids)} collections are not there:{''.join(failed)}")

    def pretrain(self) -> None:
        """The multitask prompt."""
        values = self.values("pretrain")
        encoder = self.encoder(values)
        stored = train(
            encoder,
            [self.load(name) for name in self.stages["pretrain"].ids],
            self.multitask,
            domain=MULTITASK,
            config=values.training(),
            start=values.beginning(),
            quiet=self.quiet,
        )
        self.prompts.append(Made(stored, starting_prompt(encoder, values, None)))

    def train(self) -> None:
        """A prompt for each collection."""
        values = self.values("train")
        encoder = self.encoder(values)
        begun = self._multitask() if values.start_from else None
        start = starting_prompt(encoder, values, begun)
        found = train_group(
            encoder,
            self.stages["train"].ids,
            self.bank,
            load=self.supervised,
            config=values.training(),
            start=values.beginning() if begun is None else StoredPrompt(start, begun.card),
            quiet=self.quiet,
            on_trained=self._trained,
        )
        self.failures += failures(found)
        self.prompts += [Made(load_prompt(one.prompt, encoder), start) for one in found if one.status != "failed"]

    def _multitask(self) -> StoredPrompt:
        try:
            return load_prompt(self.multitask)
        except PromptError as error:
            raise PromptError(f"{error}. The step pretrain makes it, or say where it is (multitask=FOLDER)") from error

    def _trained(self, one: Outcome) -> None:
        self.say(f"{one.collection}: {one.status}{f': {one.error}' if one.error else ''} ({one.seconds:.0f} s)")

    def transfer(self) -> None:
        """For each collection, the prompts of the others combined."""
        values, targets = self.stages["transfer"].settings, self.stages["transfer"].ids
        assert isinstance(values, TransferValues)
        encoder = self.encoder(self.last)
        bank = load_bank(self.bank, encoder)
        bank.pop(MULTITASK, None)
        features: dict[str, Array] = {}
        for target in targets:
            folder = self.output / TRANSFERRED / folder_name(target)
            used = {name: stored for name, stored in bank.items() if not has_seen(stored, target)}
            follows = {"settings": values.as_dict(), "from": {n: stored.card["digest"] for n, stored in used.items()}}
            said = self._transferred(folder, follows)
            if said is None:
                features = features or self._features(values, sorted({*targets, *bank}))
                result = transfer(encoder, self.load(target), used, values.config(), features=features, quiet=True)
                if result.prompt is None:
                    raise ForewordError(f"{target}: {result.method} gave no prompt; a recipe transfers by the average")
                said = {key: value for key, value in result.as_dict().items() if key != "seconds"}
                record = {"transfer": said, "follows_from": follows}
                save_prompt(folder, result.prompt, encoder, target, record=record)
            self.transfers.append(said)
            self.say(f"{target}: " + ", ".join(f"{name} {weight:.2f}" for name, weight in said["weights"].items()))

    def _transferred(self, folder: Path, follows: Mapping[str, Any]) -> dict[str, Any] | None:
        """What an earlier run decided from the same prompts and settings; None: there was none."""
        if not (folder / CARD).is_file():
            return None
        card = read_card(folder)
        said: dict[str, Any] = card.get("transfer", {})
        return said if card.get("follows_from") == follows else None

    def _features(self, values: TransferValues, names: list[str]) -> dict[str, Array]:
        """Embeddings of documents by the backbone that similarity is measured with."""
        encoder = load_encoder(values.features)
        how: dict[str, Any] = {"limit": values.sample, "max_length": values.feature_length, "quiet": True}
        precision: Any = values.precision
        return {name: document_features(encoder, self.load(name), precision=precision, **how) for name in names}

    def evaluate(self) -> None:
        """The tables."""
        evaluation, encoder = self.evaluation, self.encoder(self.last)
        systems = self._systems(encoder)
        precision: Any = evaluation.precision
        for group, ids in self.recipe.report(miniature=self.miniature).items():
            result = evaluate_group(
                group,
                ids,
                systems,
                self.output / TABLES / group,
                load=self.load,
                encoder=encoder,
                config=GroupConfig(
                    measures=evaluation.measures,
                    k=evaluation.k,
                    query_length=evaluation.query_length,
                    document_length=evaluation.document_length,
                    precision=precision,
                    splits=dict.fromkeys(ids, evaluation.split) if evaluation.split else {},
                ),
                quiet=self.quiet,
            ).as_dict()
            for ending, style in _STYLES.items():  # published figures are of the real collections
                with atomic_write(self.output / TABLES / f"{group}.{ending}") as file:
                    file.write(format_group(result, style, published=not self.miniature))
            self.failures += result["failures"]
            self.tables[group] = {key: result[key] for key in ("headline", "means", "collections", "systems")}

    def _systems(self, encoder: SentenceTransformer) -> list[System]:
        """The columns; a prompt made under another pooling or normalisation, or an empty bank, cannot be one."""
        folders = {MULTITASK: self.multitask, "domains": self.bank, "transfer": self.output / TRANSFERRED}
        systems = []
        for name in self.evaluation.systems:
            if name not in folders:
                kind: Any = name
                systems.append(System(name, kind))
                continue
            folder = folders[name]
            try:
                if name == MULTITASK:
                    check_backbone(read_card(folder), encoder, folder)
                else:
                    read_bank(folder)
                systems.append(System(name, "prompt" if name == MULTITASK else "bank", folder))
            except PromptError as error:
                self.left_out.append({"system": name, "why": str(error)})
                self.say(f"{name} is not scored: {error}")
        return systems

    # -- results ---------------------------------------------------------------------------------------------------

    def checks(self) -> list[Check]:
        """Of every prompt that was trained, and of the backbones."""
        found = [check for made in self.prompts for check in check_prompt(made)]
        return found + [
            check_state(head[0], before, state_digest(encoder)) for head, (encoder, before) in self._encoders.items()
        ]

    def write_page(self, record: Mapping[str, Any]) -> None:
        """The page of all that the record holds."""
        folders = [Path(prompt["folder"]) for prompt in record["prompts"]]
        # An earlier run's may be gone since.
        prompts = [load_prompt(folder) for folder in folders if (folder / CARD).is_file()]
        groups = [self.output / TABLES / group / "group.json" for group in record["tables"]]
        write_page(self.output / PAGE, record, prompts, groups, self.encoder(self.last))

    def backbones(self) -> list[Mapping[str, Any]]:
        """What was loaded, with the hash of its state before."""
        return [{**describe_backbone(e), "state_sha256": before} for e, before in self._encoders.values()]
