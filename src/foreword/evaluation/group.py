"""Evaluate systems on a group of collections: one table, one mean, one collection in memory at a time.

Each result is written as it comes, `<output>/<collection>/<system>.json` beside the TREC run `<system>.trec`, so
that a cut evaluation goes on where it was; `<output>/group.json` holds the whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.collections.records import Collection
from foreword.common.errors import ForewordError, PromptError
from foreword.common.files import write_json
from foreword.evaluation.candidates import Candidate, bare, read_bank, read_candidate
from foreword.evaluation.measures import depth, largest_cutoff, parse_measures
from foreword.evaluation.members import Leaf, Member, headline_measure, plan, union_of
from foreword.evaluation.score import Scorer, Subject
from foreword.evaluation.seen import seen
from foreword.evaluation.summary import means_of, row_of_means
from foreword.evaluation.systems import GroupConfig, System
from foreword.prompts.encoder import resolve_precision
from foreword.prompts.store import describe_backbone
from foreword.retrieval.runs import Run, write_run

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FORMAT = "foreword-group/1"

__all__ = ["GroupConfig", "GroupResult", "System", "evaluate_group"]


@dataclass(frozen=True)
class GroupResult:
    """The table of a group.

    Attributes:
        group: its name.
        collections: the rows' ids, in order, also of those that failed.
        splits: the split that each is scored on.
        systems: the columns' names, in order.
        headline: the measure that the group is compared by.
        rows: one for each collection and system that was scored; `row["measures"]` holds the values.
        parts: the rows that a mean row is over (the forums of CQADupStack).
        failures: `{"collection", "system", "error"}`.
        means: one for each system: `values`, the collections they are `over`, how many there should be (`of`) and
            which are `missing`.
        common: the same over the collections that every system has; empty when no system lacks one.
    """

    group: str
    collections: tuple[str, ...]
    splits: Mapping[str, str]
    systems: tuple[str, ...]
    headline: str
    rows: tuple[Mapping[str, Any], ...]
    parts: tuple[Mapping[str, Any], ...]
    failures: tuple[Mapping[str, str], ...]
    means: tuple[Mapping[str, Any], ...]
    common: tuple[Mapping[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values, what `group.json` holds and the tables are written from."""
        return {"format": FORMAT, **{name: json.loads(json.dumps(value)) for name, value in vars(self).items()}}


def evaluate_group(
    group: str,
    collections: Sequence[str],
    systems: Sequence[System],
    output: str | Path,
    *,
    load: Callable[[str], Collection],
    encoder: SentenceTransformer | None = None,
    config: GroupConfig | None = None,
    quiet: bool = False,
    on_row: Callable[[Mapping[str, Any]], None] | None = None,
) -> GroupResult:
    """Score every system on every collection, and the mean over the collections.

    A collection that cannot be read, or for which a bank has no prompt, is a failure that the result names; the
    others go on. What `output` holds already under the same configuration is not computed again.

    Args:
        group: its name; it decides the headline measure.
        collections: ids; the folds of one collection (`x#fold1of5`, ...) become one row, in which each fold's
            test queries are searched for by that fold's own prompt.
        systems: the columns.
        output: the folder of the results.
        load: gives a collection by its id, e.g. `foreword.load`; called for one at a time.
        encoder: from `load_encoder`; None: when every system is BM25.
        config: None: the defaults.
        quiet: no progress bars.
        on_row: called with each row as it comes.

    Raises:
        ForewordError: no system, two of one name, no encoder where one is needed, or collections given twice.
        PromptError: a bank or prompt that is not one.
        UnknownNameError: from `parse_measures`.
    """
    config = config or GroupConfig()
    names = [system.name for system in systems]
    if not systems or len(set(names)) < len(names):
        raise ForewordError(f"the systems are named {names}; give one or more, by distinct names")
    if encoder is None and any(system.kind != "bm25" for system in systems):
        raise ForewordError("these systems need an encoder; give one from load_encoder, or evaluate BM25 alone")
    headline = str(parse_measures([headline_measure(group)])[0])
    measures = tuple(str(measure) for measure in parse_measures([headline, *config.measures]))
    if config.k is not None and config.k < largest_cutoff(measures):
        raise ForewordError(f"k={config.k} is fewer hits than the measures look at ({largest_cutoff(measures)})")
    config = replace(config, measures=measures, k=depth(measures) if config.k is None else config.k)
    members = plan(collections, config.splits)
    evaluation = _Evaluation(systems, Path(output), load, encoder, config, quiet, on_row)
    with nullcontext() if encoder is None else bare(encoder):
        for leaf in dict.fromkeys(leaf for member in members for leaf in member.leaves):
            evaluation.add(leaf)
    result = _result(group, members, names, headline, measures, evaluation)
    write_json(Path(output) / "group.json", result.as_dict())
    return result


class _Evaluation:
    """The rows so far, and what went wrong."""

    def __init__(
        self,
        systems: Sequence[System],
        output: Path,
        load: Callable[[str], Collection],
        encoder: SentenceTransformer | None,
        config: GroupConfig,
        quiet: bool,
        on_row: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        self.systems, self.output, self.load = systems, output, load
        self.encoder, self.config, self.on_row = encoder, config, on_row
        self.backbone = {} if encoder is None else describe_backbone(encoder)
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.failures: list[dict[str, str]] = []
        self.banks = {s.name: read_bank(s.path) for s in systems if s.kind == "bank" and s.path is not None}
        self.single = {s.name: read_candidate(s.path) for s in systems if s.kind == "prompt" and s.path is not None}
        self.scorer = Scorer(
            encoder,
            measures=config.measures,
            k=config.k or 0,
            query_length=config.query_length,
            document_length=config.document_length,
            precision=config.precision,
            batch_size=config.batch_size,
            quiet=quiet,
        )

    def add(self, leaf: Leaf) -> None:
        """Score every system on a collection, or take what is there."""
        try:
            if leaf.missing:
                raise ForewordError(f"{', '.join(leaf.missing)} not given: a mean over fewer folds is no score")
            subject = Subject(leaf, (self.load(name) for name in leaf.ids))
        except (ForewordError, OSError) as error:
            self._fail(leaf, self.systems, error)
            return
        wanted: dict[str, list[Candidate | None]] = {}  # one for each fold, or one alone
        for system in self.systems:
            try:
                wanted[system.name] = self._candidates(system, leaf)
            except PromptError as error:
                self._fail(leaf, [system], error)
        identities = {name: self._identity(name, subject, found) for name, found in wanted.items()}
        about: dict[str, dict[str, Any]] = {}
        for name, found in list(wanted.items()):
            try:
                about[name] = self._about(name, leaf, found)
            except PromptError as error:
                self._fail(leaf, [s for s in self.systems if s.name == name], error)
                del wanted[name]
        todo = {name: wanted[name] for name in wanted if not self._take(subject, name, identities[name], about[name])}
        for name, scored in self.scorer.score(subject, todo, self._kinds()):
            try:
                if isinstance(scored, Exception):
                    raise scored
                self._write(leaf, name, identities[name], about[name] | scored.row, scored.run)
            except (ForewordError, OSError) as error:
                self._fail(leaf, [s for s in self.systems if s.name == name], error)

    def _write(self, leaf: Leaf, name: str, identity: Mapping[str, Any], row: dict[str, Any], run: Run) -> None:
        folder = self.output / leaf.folder
        (folder / f"{name}.json").unlink(missing_ok=True)  # of another configuration; the run below is not its own
        write_run(folder / f"{name}.trec", run, name)
        write_json(folder / f"{name}.json", {"format": FORMAT, "identity": identity, "row": row})
        self._keep(leaf, name, row)

    def _kinds(self) -> dict[str, str]:
        return {system.name: system.kind for system in self.systems}

    def _candidates(self, system: System, leaf: Leaf) -> list[Candidate | None]:
        if system.kind == "bank":
            bank = self.banks[system.name]
            found = [bank.get(name) or bank.get(union_of(name) or name) for name in leaf.ids]
            if lacking := [name for name, own in zip(leaf.ids, found, strict=True) if own is None]:
                raise PromptError(f"{system.path} holds no prompt for {', '.join(lacking)}")
            return found
        return [self.single.get(system.name)]

    def _identity(self, name: str, subject: Subject, candidates: Sequence[Candidate | None]) -> dict[str, Any]:
        """Everything that a row follows from, as JSON reads it back."""
        identity: dict[str, Any] = {
            "collection": subject.identity(),
            "measures": self.config.measures,
            "k": self.config.k,
        }
        if self.encoder is not None and self._kinds()[name] != "bm25":
            identity |= {
                "backbone": {key: value for key, value in self.backbone.items() if key not in ("name", "revision")},
                "query_length": self.config.query_length,
                "document_length": self.config.document_length,
                "max_length": self.encoder.max_seq_length,
                "precision": resolve_precision(self.config.precision, self.encoder.device),
                "prompts": [found and found.digest for found in candidates],
            }
        read_back: dict[str, Any] = json.loads(json.dumps(identity))
        return read_back

    def _take(self, subject: Subject, name: str, identity: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
        """Keep the row that an earlier evaluation left, if it is of this identity; what is known of it is today's."""
        path = self.output / subject.leaf.folder / f"{name}.json"
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none, or not ours: it is computed and written over
            return False
        same = isinstance(stored, dict) and stored.get("identity") == identity and stored.get("format") == FORMAT
        whole = same and path.with_suffix(".trec").is_file()
        if not whole or (row := stored["row"])["corpus_sha256"] != subject.corpus_sha256():
            return False
        measures = {measure: row["measures"][measure] for measure in self.config.measures}  # JSON's are sorted
        self._keep(subject.leaf, name, {**row, "measures": measures, **about})
        return True

    def _about(self, name: str, leaf: Leaf, candidates: Sequence[Candidate | None]) -> dict[str, Any]:
        """What a row says besides its score."""
        prompts = [found for found in candidates if found is not None]
        methods = {found.supervision for found in prompts}
        dense = self._kinds()[name] != "bm25"
        scored_on = leaf.ids if len(prompts) == len(leaf.ids) else (leaf.id,) * len(prompts)
        used = [p for p, own in zip(prompts, scored_on, strict=True) if p.has_used(own, leaf.split)]
        if used and leaf.split == "test":
            raise PromptError(f"{used[0].path} was trained on test queries of {leaf.id}; score it on its own fold")
        return {
            "collection": leaf.id,
            "split": leaf.split,
            "system": name,
            "supervision": "none" if not prompts else "k-fold" if len(prompts) > 1 else methods.pop(),
            "seen_by_backbone": seen(str(self.backbone["name"]), leaf.id) if dense else False,
            "backbone": self.backbone["name"] if dense else None,
            "prompts": [found.digest for found in prompts],
            "folds": leaf.folds or None,
            "notes": [f"its prompt was trained on, or chosen by, the {leaf.split} split"] if used else [],
        }

    def _keep(self, leaf: Leaf, name: str, row: dict[str, Any]) -> None:
        self.rows[leaf.id, name] = row
        if self.on_row is not None:
            self.on_row(row)

    def _fail(self, leaf: Leaf, systems: Sequence[System], error: Exception) -> None:
        self.failures += [{"collection": leaf.id, "system": s.name, "error": str(error)} for s in systems]


def _result(
    group: str,
    members: Sequence[Member],
    systems: Sequence[str],
    headline: str,
    measures: Sequence[str],
    evaluation: _Evaluation,
) -> GroupResult:
    rows: dict[tuple[str, str], Mapping[str, Any]] = {}
    parts: list[Mapping[str, Any]] = []
    for member in members:
        for system in systems:
            own = [evaluation.rows.get((leaf.id, system)) for leaf in member.leaves]
            present = [row for row in own if row is not None]
            parts += present if member.is_mean else []
            if len(present) == len(own):  # a mean over fewer would look like the whole
                rows[member.id, system] = row_of_means(member.id, present, measures) if member.is_mean else present[0]
    ids = [member.id for member in members]
    means, common = means_of(rows, ids, systems, measures)
    return GroupResult(
        group,
        tuple(ids),
        {member.id: member.leaves[0].split for member in members},
        tuple(systems),
        headline,
        tuple(rows[key] for key in ((i, s) for i in ids for s in systems) if key in rows),
        tuple(parts),
        tuple(evaluation.failures),
        tuple(means),
        tuple(common),
    )
