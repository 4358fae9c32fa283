"""Run a recipe: its steps in order, each of which goes on where it was cut, and the check that something was learnt."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection
from foreword.collections.registry import family_of, load, split_id
from foreword.collections.supervision import supervise
from foreword.downloads import Transport, data_folder
from foreword.downloads.places import DEFAULT
from foreword.errors import ForewordError, PromptError, UnknownNameError
from foreword.evaluation.candidates import read_bank
from foreword.evaluation.group import GroupConfig, System, evaluate_group
from foreword.evaluation.table import format_group
from foreword.files import as_json, atomic_write, kept_json, owns, write_json
from foreword.lab.experiment import Experiment, learning_curve
from foreword.lab.miniature import DATA, prepare
from foreword.lab.recipe import MULTITASK, STEPS, Recipe, Step, TrainingValues, TransferValues, stages
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
    library_versions,
    load_bank,
    load_prompt,
    read_card,
    save_prompt,
)
from foreword.report import write_report
from foreword.training.group import Outcome, failures, train_group
from foreword.training.train import train
from foreword.transferring.reach import Array, document_features
from foreword.transferring.transfer import has_seen, transfer

FORMAT = "foreword-recipe/1"
RECORD, PAGE = "recipe.json", "report.html"
BANK, TRANSFERRED, TABLES = "prompts", "transferred", "tables"
"""Folders of the output, beside `multitask`."""
MINIATURE_DATA = "miniature-data"
"""Below the output."""


@owns("output")
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
    resolved = plan(recipe, values=values, miniature=miniature, steps=steps, multitask=multitask, bank=bank, data=data)
    output = Path(output)
    if miniature and data is not None:
        raise ForewordError(f"a miniature makes its own data, in {output / MINIATURE_DATA}; leave out data (--data)")
    place = output / MINIATURE_DATA if miniature else data_folder(data)
    work = RecipeRun(recipe, values, miniature, output, place, transport, multitask, bank, quiet)
    seconds: dict[str, float] = {}
    for step in resolved["steps"]:
        began = work.seconds
        work.say(f"{recipe.name}: {step}")
        getattr(work, step)()
        seconds[step] = round(work.seconds - began, 2)
    checks = work.checks()
    results: dict[str, Any] = {
        "format": FORMAT,
        **resolved,
        "backbones": work.backbones(),
        "versions": library_versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": {**seconds, "all": round(work.seconds, 2)},
        "prompts": [prompt.as_dict() for prompt in work.prompts],
        "transfers": work.transfers,
        "checks": [asdict(check) for check in checks],
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
    before = kept_json(path) or {}
    same = ("format", "recipe", "values", "miniature", "configuration", "evaluation", "report")
    if any(before.get(name) != results[name] for name in same):  # none, or not ours: it is written over
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
    given: set[Step] = {"pretrain", "train"} if bank else {"pretrain"} if multitask else set()
    found = [stage for stage in stages(recipe, values, miniature=miniature) if stage.step not in given]
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
        "evaluation": evaluation.as_dict(),
        "report": {group: list(ids) for group, ids in recipe.report(miniature=miniature).items()},
        "documents": recipe.miniature.documents if miniature else None,
    }
    return dict(as_json(resolved))


class RecipeRun(Experiment):
    """The state of one run; `run_recipe` says what happens in which order."""

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
        super().__init__(output, data=data / DATA if miniature else data, quiet=quiet)
        self.recipe, self.miniature, self.made_in, self.transport = recipe, miniature, data, transport
        self.evaluation = recipe.miniature.evaluation if miniature else recipe.evaluation
        self.stages = {stage.step: stage for stage in stages(recipe, table, miniature=miniature)}
        self.pretrains = multitask is None and bank is None
        self.multitask = multitask or output / MULTITASK
        self.bank = bank or output / BANK
        self.prompts: list[Made] = []
        self.transfers: list[dict[str, Any]] = []
        self.failures: list[dict[str, Any]] = []
        self.left_out: list[dict[str, str]] = []
        self.tables: dict[str, Any] = {}
        for stage in self.stages.values():  # every encoder first, so that a missing one is said first of all
            if isinstance(stage.settings, TrainingValues):
                self.loaded(*stage.settings.head)
        self.encoder = self.loaded(*self.values("train" if "train" in self.stages else "pretrain").head)

    # -- pieces ----------------------------------------------------------------------------------------------------

    def values(self, step: Step) -> TrainingValues:
        """The settings of pretraining or of the domains' training."""
        settings = self.stages[step].settings
        assert isinstance(settings, TrainingValues)
        return settings

    def load(self, name: str) -> Collection:
        """A collection, as it is; not kept, since there are large ones."""
        return load(name, data=self.data)

    def supervised(self, name: str) -> Collection:
        """A collection with the splits that its prompt is trained by."""
        values = self.values("train")
        return supervise(self.load(name), seed=values.seed, dev_share=values.dev_share)

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
                family_of(name).download(split_id(name)[1], data_folder(self.data), self.transport)
            except (ForewordError, OSError) as error:
                failed.append(f"\n  {name}: {error}")
        if failed:
            raise ForewordError(f"{len(failed)} of {len(ids)} collections are not there:{''.join(failed)}")

    def pretrain(self) -> None:
        """The multitask prompt."""
        values = self.values("pretrain")
        encoder = self.loaded(*values.head)
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
        values, encoder = self.values("train"), self.encoder
        try:
            begun = load_prompt(self.multitask) if values.start_from else None
        except PromptError as error:
            raise PromptError(f"{error}. The step pretrain makes it, or say where it is (multitask=FOLDER)") from error
        start = starting_prompt(encoder, values, begun)

        def said(one: Outcome) -> None:
            self.say(f"{one.collection}: {one.status}{f': {one.error}' if one.error else ''} ({one.seconds:.0f} s)")

        found = train_group(
            encoder,
            self.stages["train"].ids,
            self.bank,
            load=self.supervised,
            config=values.training(),
            start=values.beginning() if begun is None else StoredPrompt(start, begun.card),
            quiet=self.quiet,
            on_trained=said,
        )
        self.failures += failures(found)
        self.prompts += [Made(load_prompt(one.prompt, encoder), start) for one in found if one.status != "failed"]

    def transfer(self) -> None:
        """For each collection, the prompts of the others combined."""
        values, targets = self.stages["transfer"].settings, self.stages["transfer"].ids
        assert isinstance(values, TransferValues)
        encoder = self.encoder
        bank = load_bank(self.bank, encoder)
        bank.pop(MULTITASK, None)
        features: dict[str, Array] = {}
        for target in targets:
            folder = self.output / TRANSFERRED / folder_name(target)
            used = {name: stored for name, stored in bank.items() if not has_seen(stored, target)}
            follows = {"settings": values.as_dict(), "from": {n: stored.card["digest"] for n, stored in used.items()}}
            card = read_card(folder) if (folder / CARD).is_file() else {}
            said: dict[str, Any] = card.get("transfer", {})  # what an earlier run decided
            if card.get("follows_from") != follows:
                features = features or self._features(values, sorted({*targets, *bank}))
                result = transfer(encoder, self.load(target), used, values.config(), features=features, quiet=True)
                if result.prompt is None:
                    raise ForewordError(f"{target}: {result.method} gave no prompt; a recipe transfers by the average")
                said = {key: value for key, value in result.as_dict().items() if key != "seconds"}
                record = {"transfer": said, "follows_from": follows}
                save_prompt(folder, result.prompt, encoder, target, record=record)
            self.transfers.append(said)
            self.say(f"{target}: " + ", ".join(f"{name} {weight:.2f}" for name, weight in said["weights"].items()))

    def _features(self, values: TransferValues, names: Sequence[str]) -> dict[str, Array]:
        """Embeddings of documents by the backbone that similarity is measured with."""
        encoder = load_encoder(values.features)
        how: dict[str, Any] = {"limit": values.sample, "max_length": values.feature_length, "quiet": True}
        how["precision"] = values.precision
        return {name: document_features(encoder, self.load(name), **how) for name in names}

    def evaluate(self) -> None:
        """The tables."""
        evaluation = self.evaluation
        systems = self._systems()
        for group, ids in self.recipe.report(miniature=self.miniature).items():
            result = evaluate_group(
                group,
                ids,
                systems,
                self.output / TABLES / group,
                load=self.load,
                encoder=self.encoder,
                config=GroupConfig(
                    measures=evaluation.measures,
                    k=evaluation.k,
                    query_length=evaluation.query_length,
                    document_length=evaluation.document_length,
                    precision=evaluation.precision,
                    splits=dict.fromkeys(ids, evaluation.split) if evaluation.split else {},
                ),
                quiet=self.quiet,
            ).as_dict()
            for ending, style in (("md", "markdown"), ("csv", "csv")):  # published figures are of the real collections
                with atomic_write(self.output / TABLES / f"{group}.{ending}") as file:
                    file.write(format_group(result, style, published=not self.miniature))
            self.failures += result["failures"]
            self.tables[group] = {key: result[key] for key in ("headline", "means", "collections", "systems")}

    def _systems(self) -> list[System]:
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
                    check_backbone(read_card(folder), self.encoder, folder)
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
        states = [(head[0], before, state_digest(self.loaded(*head))) for head, before in self.states.items()]
        return found + [check_state(*state) for state in states]

    def backbones(self) -> list[Mapping[str, Any]]:
        """What was loaded, with the hash of its state before."""
        return [{**describe_backbone(self.loaded(*head)), "state_sha256": state} for head, state in self.states.items()]

    def write_page(self, record: Mapping[str, Any]) -> None:
        """The page of all that the record holds: its tables, learning curves, weights, and what prompts lie near."""
        folders = [Path(prompt["folder"]) for prompt in record["prompts"]]
        prompts = [load_prompt(folder) for folder in folders if (folder / CARD).is_file()]  # one may be gone since
        near = {stored.domain: stored for stored in prompts if stored.prompt.kind.among_words}  # to words
        rows: list[dict[str, Any]] = []
        for name in record["tables"]:
            group = json.loads((self.output / TABLES / name / "group.json").read_text("utf-8"))
            for row in group["rows"]:
                common = {key: row[key] for key in ("system", "collection", "seconds")}
                headline_first = sorted(row["measures"].items(), key=lambda item: item[0] != group["headline"])
                rows += [{**common, "measure": measure, "value": value} for measure, value in headline_first]
        results: dict[str, Any] = {
            "title": f"{record['title']}{' (miniature)' if record['miniature'] else ''}",
            "created": record["finished"],
            "configuration": record["configuration"],
            "versions": record["versions"],
            "rows": rows,
            "curves": [learning_curve(stored.domain, stored) for stored in prompts],
            "words": bank_words(self.encoder, near).records if near else [],
            "weights": [
                {"target": entry["target"], "system": entry["method"], "weights": entry["weights"]}
                for entry in record["transfers"]
            ],
        }
        write_report(self.output / PAGE, results)


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


def check_prompt(made: Made) -> list[Check]:
    """What a trained prompt must show: a lower dev loss than its start, and other values.

    The start is compared as it would be stored, rounded to the card's dtype.
    """
    stored = made.stored
    history, best = stored.card["metrics"]["dev"], stored.card["metrics"]["best_step"]
    looked = {entry["step"]: entry["loss"] for entry in history if entry.get("loss") is not None}
    if len(looked) < 2 or 0 not in looked:
        loss = Check(stored.domain, "dev loss", False, "no dev split, or too few steps, to see it by")
    else:
        step = min((step for step in (best, max(looked)) if step > 0), key=lambda step: looked[step])
        said = f"{looked[0]:.6f} at the start, {looked[step]:.6f} at step {step}"
        loss = Check(stored.domain, "dev loss", looked[step] < looked[0], said)
    rounded, digest = made.start.rounded(DTYPES[stored.card["dtype"]]).digest(), stored.card["digest"]
    said = f"{rounded[:12]} at the start, {digest[:12]} stored, of step {best}"
    if best == 0:
        said += ": no step retrieved better on the dev split than the start, which was kept"
    return [loss, Check(stored.domain, "values", digest != rounded and best > 0, said)]


def check_state(name: str, before: str, after: str) -> Check:
    """The backbone must be the same, bit by bit, after all trainings as before (SHA-256 of its state)."""
    return Check(name, "backbone", before == after, f"{before[:12]} before, {after[:12]} after")


def require(checks: Sequence[Check], recipe: str, record: str) -> None:
    """Raise `ForewordError` with the figures of every check that failed."""
    failed = [check for check in checks if not check.passed]
    if failed:
        listed = "".join(f"\n  {check.prompt}: {check.what}: {check.said}" for check in failed)
        raise ForewordError(
            f"{recipe}: {len(failed)} of {len(checks)} checks failed, so the training is not to be trusted:{listed}\n"
            f"All figures are in {record}"
        )


# Where a domain's prompt starts: from the multitask prompt, brought into another form where the settings want one.


def starting_prompt(encoder: SentenceTransformer, values: TrainingValues, multitask: StoredPrompt | None) -> Prompt:
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
    for name, tensor in tensors.items():
        part, _, what = name.partition(".")
        source = old.spec.part_for("document" if part == "document" else "query")
        if source is None:
            raise ForewordError(
                "the multitask prompt does not encode documents, and the prompt wanted does; train anew"
            )
        origin = known[f"{source}.{what}"]
        if (counted := new.kind.length_axis(what)) is None:
            tensor.copy_(origin)
        else:
            axis, _ = counted
            count = min(origin.shape[axis], tensor.shape[axis])
            tensor.narrow(axis, 0, count).copy_(origin.narrow(axis, 0, count))
    return Prompt(values.spec, tensors)
