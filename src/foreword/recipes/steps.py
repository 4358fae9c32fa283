"""The steps of a recipe's run, over the same functions that the commands use."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.collections.records import Collection
from foreword.collections.registry import family_of, load, split_id
from foreword.collections.supervision import supervise
from foreword.common.errors import ForewordError, PromptError
from foreword.common.files import atomic_write
from foreword.downloads import Transport
from foreword.evaluation.candidates import read_bank
from foreword.evaluation.formats import format_group
from foreword.evaluation.group import GroupConfig, System, evaluate_group
from foreword.prompts.encoder import load_encoder, state_digest
from foreword.prompts.store import (
    CARD,
    StoredPrompt,
    check_backbone,
    describe_backbone,
    folder_name,
    load_bank,
    load_prompt,
    read_card,
    save_prompt,
)
from foreword.recipes.checks import Check, Made, check_prompt, check_state
from foreword.recipes.miniature import DATA, prepare
from foreword.recipes.page import PAGE, write_page
from foreword.recipes.recipe import Evaluation, Recipe, Step, stages
from foreword.recipes.starts import starting_prompt
from foreword.recipes.values import MULTITASK, TransferValues, Values
from foreword.training.group import Trained, failures, train_group
from foreword.training.train import train
from foreword.transferring.similarity import Array, document_features
from foreword.transferring.transfer import has_seen, transfer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

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

    def _trained(self, one: Trained) -> None:
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
