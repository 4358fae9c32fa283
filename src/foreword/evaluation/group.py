"""Evaluate systems on a group of collections: one table, one mean, one collection in memory at a time.

A row of the table is a collection, the k folds of one, or the mean of several. Each result is written as it comes,
`<output>/<collection>/<system>.json` beside the TREC run `<system>.trec`, so that a cut evaluation goes on where it
was; `<output>/group.json` holds the whole.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from foreword.collections.collection import Collection, Document, Qrels, Query, judged_queries
from foreword.collections.registry import group_names, members
from foreword.collections.supervision import Fold, split_fold
from foreword.errors import DataError, ForewordError, PromptError
from foreword.evaluation.candidates import Candidate, bare, carrying, document_key, read_bank, read_candidate
from foreword.evaluation.hybrid import FEWEST, MOST, WEIGHTS, HybridWeight, Judged, choose_weight, judged_sample, weigh
from foreword.evaluation.measures import depth, evaluate_run, largest_cutoff, parse_measures
from foreword.evaluation.published import HEADLINE_SPLITS, HEADLINES, means_of, row_of_means, seen
from foreword.files import as_json, kept_json, owns, write_json
from foreword.prompts.encoder import encode, resolve_precision
from foreword.prompts.routes import Route
from foreword.prompts.store import describe_backbone
from foreword.retrieval.bm25 import BM25
from foreword.retrieval.passages import wanted
from foreword.retrieval.runs import DEPTH, Run, hybrid, top_k, write_run
from foreword.retrieval.search import document_blocks, exact_search
from foreword.settings import Count, EncodingPrecision, Settings, Side, Tokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FORMAT = "foreword-group/1"

_FIRST_DOCUMENTS = 1000  # that the quick identity of a collection looks at
_BETWEEN = "\x1f"  # parts a search's number from the query's id, which holds no control characters


_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


@dataclass(frozen=True)
class System:
    """One column of the table.

    Attributes:
        name: a word; files are named by it.
        kind: `base`, the backbone without prompts; `bm25`; `prompt`, one prompt or mixture for every collection;
            `bank`, a folder with a prompt or mixture for each.
        path: of the prompt or the bank.
        words: searches by BM25, too, at the weight that each collection's own labels or text choose, see
            `foreword.evaluation.hybrid`.
    """

    name: str
    kind: Literal["base", "bm25", "prompt", "bank"]
    path: Path | None = None
    words: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ForewordError(f"a system is named {self.name!r}; expected letters, digits and any of . _ + -")
        if self.kind not in ("base", "bm25", "prompt", "bank"):
            raise ForewordError(f"system {self.name} is of kind {self.kind!r}; expected base, bm25, prompt or bank")
        if (self.path is None) != (self.kind in ("base", "bm25")):
            raise ForewordError(f"system {self.name} of kind {self.kind} has the path {self.path}")
        if self.words and self.kind == "bm25":
            raise ForewordError(f"system {self.name} is BM25 already; words are put beside a dense system")


@dataclass(frozen=True)
class GroupConfig(Settings):
    """How a group is evaluated.

    Attributes:
        measures: as ir_measures names them; the group's headline measure is added where it is missing.
        k: hits a query; None: as many as the measures look at.
        query_length: tokens a query is cut to; None: the encoder's limit.
        document_length: tokens of a document, or of a passage; None: the encoder's limit.
        passages: documents longer than that are searched in passages; None: unless a `document_length` is given.
        precision: of the forward passes.
        batch_size: texts in one forward pass.
        splits: collection -> split, over `HEADLINE_SPLITS`; elsewhere `test`.
    """

    measures: tuple[str, ...] = ("nDCG@10", "R@100", "Success@20")
    k: Count | None = None
    query_length: Tokens | None = None
    document_length: Tokens | None = None
    passages: bool | None = None
    precision: EncodingPrecision = "float32"
    batch_size: Count = 64
    splits: Mapping[str, str] = field(default_factory=dict)


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
        return {"format": FORMAT, **as_json(vars(self))}


@owns("output")
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
    result = evaluation.result(group, members, headline)
    write_json(Path(output) / "group.json", result.as_dict())
    return result


def headline_measure(group: str) -> str:
    """The measure that a group is compared by."""
    return str(HEADLINES["measures"].get(group, "nDCG@10"))


@dataclass(frozen=True)
class Leaf:
    """One collection to be scored: loaded by its id, or put together from its k folds."""

    id: str
    ids: tuple[str, ...]
    """What is loaded: the id itself, or the folds' ids in order."""
    split: str
    folds: int = 0
    """k; 0: not in folds."""
    seed: int = 0
    """Of the folds."""
    missing: tuple[str, ...] = ()
    """The ids of folds that were not given."""

    @property
    def folder(self) -> str:
        """The name of its folder in the results: the id, with `/` written `-`, and how it is cut into folds."""
        cut = f"#{self.folds}folds{f'@{self.seed}' if self.seed else ''}" if self.folds else ""
        return f"{self.id}{cut}".replace("/", "-")


@dataclass(frozen=True)
class Member:
    """One row of the group: a leaf, or the unweighted mean of several (CQADupStack of its 12 forums)."""

    id: str
    leaves: tuple[Leaf, ...]
    is_mean: bool = False

    @classmethod
    def of(cls, base: str, given: Sequence[Fold | None], splits: Mapping[str, str]) -> Member:
        """The row of a collection that is given whole (None) or in folds. Raises `ForewordError`, as `plan`."""
        split = splits.get(base, "test")
        folds = [fold for fold in given if fold is not None]
        if not folds:
            parts = HEADLINES["means"].get(base)
            if parts in group_names():
                leaves = tuple(Leaf(name, (name,), splits.get(name, split)) for name in members(parts))
                return cls(base, leaves, is_mean=True)
            return cls(base, (Leaf(base, (base,), split),))
        first = folds[0]
        if len(folds) < len(given) or len({(fold.folds, fold.seed) for fold in folds}) > 1:
            raise ForewordError(f"{base} is given in two ways; give it whole, or in the folds of one division")
        names = {i: base + replace(first, fold=i).suffix for i in range(1, first.folds + 1)}
        there = {fold.fold for fold in folds}
        here, missing = (tuple(name for i, name in names.items() if (i in there) is wanted) for wanted in (True, False))
        return cls(base, (Leaf(base, here, "test", first.folds, first.seed, missing),))


def plan(ids: Sequence[str], splits: Mapping[str, str] | None = None) -> list[Member]:
    """The rows that a list of collection ids gives, in order; the folds of one collection become one row.

    Args:
        ids: a fold is `<id>#fold<i>of<k>`, i from 1, optionally `@<seed>`.
        splits: id -> the split to score on, over `HEADLINE_SPLITS`; what is in neither is scored on `test`.

    Raises:
        ForewordError: there are none, a collection is given whole and in folds, or in folds of two kinds, or folds are
            to be scored on another split than `test`.
        UnknownNameError: a fold that cannot be.
    """
    chosen = {**HEADLINE_SPLITS, **(splits or {})}
    given: dict[str, dict[Fold | None, None]] = {}
    for name in ids:
        base, fold = split_fold(name)
        given.setdefault(base, {})[fold] = None
        asked = {(splits or {}).get(key, "test") for key in (name, base)}
        if fold is not None and asked != {"test"}:
            other = min(asked - {"test"})
            raise ForewordError(f"{name} is to be scored on {other!r}; a fold offers its test queries alone for that")
    if not given:
        raise ForewordError("the group holds no collection to evaluate")
    return [Member.of(base, tuple(folds), chosen) for base, folds in given.items()]


def union_of(name: str) -> str | None:
    """The collection whose score is a mean over this one among others, e.g. beir/cqadupstack of a forum; or None."""
    means = HEADLINES["means"].items()
    return next((str(whole) for whole, parts in means if parts in group_names() and name in members(parts)), None)


class Subject:
    """The judged queries of a collection by fold (one, when it is whole), over one corpus."""

    def __init__(self, leaf: Leaf, parts: Iterable[Collection], *, words: bool = False) -> None:
        """Read the queries and judgements of each part, and keep the first for its documents, which are all alike.

        With `words` also those that the weight of BM25 may be chosen on.

        `UnknownNameError`: a part has no such split. `DataError`: it has no judgements, or a query is in two folds.
        """
        self.first: Collection
        self.leaf = leaf
        self.queries: list[list[Query]] = []
        self.qrels: Qrels = {}
        self.weighing: list[Judged | None] = []
        for number, part in enumerate(parts):
            if number == 0:
                self.first = part
            self.queries.append(judged_queries(part, leaf.split))
            self.weighing.append(judged_sample(part, leaf.split) if words else None)
            qrels = part.qrels(leaf.split)
            if twice := sorted(set(qrels) & set(self.qrels)):
                raise DataError(f"{part.id}: query {twice[0]!r} is in another fold, too; folds must not overlap")
            self.qrels |= qrels
        self.documents_seen = 0
        self._sha256: str | None = None
        self._words: BM25 | None = None

    def by_words(self, queries: Iterable[Query], k: int, *, shares: bool = False) -> Run:
        """The best k documents by BM25, whose index is made once."""
        if self._words is None:
            self._words = BM25(self.documents())
        return self._words.search(queries, k, self.first.exclude_self, shares=shares)

    def every_query(self) -> list[Query]:
        """The queries of all folds."""
        return [query for queries in self.queries for query in queries]

    def documents(self) -> Iterator[Document]:
        """The documents, counted and hashed: when they are through, `documents_seen` and `corpus_sha256` hold."""
        digest, count = hashlib.sha256(), 0
        for doc in self.first.documents():
            count += 1
            digest.update(f"{doc.doc_id}\x1f{doc.title}\x1f{doc.text}\x1e".encode("utf-8", "surrogatepass"))
            yield doc
        self.documents_seen, self._sha256 = count, digest.hexdigest()

    def corpus_sha256(self) -> str:
        """The digest of every document, as a row holds it, by one pass, once; empty if they cannot be read."""
        if self._sha256 is None:
            self._sha256 = ""
            with suppress(ForewordError, OSError):  # no row holds "", and the scoring meets the error and says so
                deque(self.documents(), maxlen=0)
        return self._sha256

    def identity(self) -> dict[str, Any]:
        """What tells this collection from another without a pass over its documents: 1000 of them are looked at."""
        digest = hashlib.sha256()
        for fields in self._lines():
            digest.update(("\x1f".join(fields) + "\x1e").encode("utf-8", "surrogatepass"))
        return {
            "id": self.leaf.id,
            "split": self.leaf.split,
            "folds": [self.leaf.folds, self.leaf.seed],
            "facts": as_json(self.first.facts),
            "exclude_self": self.first.exclude_self,
            "sha256": digest.hexdigest(),
        }

    def _lines(self) -> Iterator[tuple[str, ...]]:
        for doc in islice(self.first.documents(), _FIRST_DOCUMENTS):
            yield "d", doc.doc_id, doc.title, doc.text
        for fold, queries in enumerate(self.queries):
            yield from (("q", str(fold), query.query_id, query.text) for query in queries)
        for query_id, judged in self.qrels.items():
            yield from (("j", query_id, doc_id, str(relevance)) for doc_id, relevance in judged.items())


@dataclass
class _Search:
    """Queries to be searched for by one prompt (None: the base model), and what came of it."""

    candidate: Candidate | None
    queries: Sequence[Query]
    words: bool = False
    weighing: Judged | None = None
    """What the weight of words is chosen on; None: the text."""
    weight: HybridWeight | None = None
    vectors: Any = None
    seconds: float = 0.0
    """For its queries."""
    shared: tuple[int, float] = (0, 0.0)
    """The number of its pass over the documents, and the seconds of that; other jobs may have the same."""
    outcome: Run | Exception | None = None

    @property
    def asked(self) -> list[Query]:
        """All that is searched for."""
        return [*self.queries, *(self.weighing[0] if self.weighing is not None else ())]


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
        self.how: dict[str, Any] = {"precision": config.precision, "batch_size": config.batch_size, "quiet": quiet}
        self.backbone = {} if encoder is None else describe_backbone(encoder)
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.failures: list[dict[str, str]] = []
        self.banks = {s.name: read_bank(s.path) for s in systems if s.kind == "bank" and s.path is not None}
        self.single = {s.name: read_candidate(s.path) for s in systems if s.kind == "prompt" and s.path is not None}

    def add(self, leaf: Leaf) -> None:
        """Score every system on a collection, or take what is there."""
        try:
            if leaf.missing:
                raise ForewordError(f"{', '.join(leaf.missing)} not given: a mean over fewer folds is no score")
            words = any(system.words for system in self.systems)
            subject = Subject(leaf, (self.load(name) for name in leaf.ids), words=words)
        except (ForewordError, OSError) as error:
            self._fail(leaf, [system.name for system in self.systems], error)
            return
        collection = subject.identity()
        wanted: dict[str, list[Candidate | None]] = {}  # for each fold, or one alone
        identities: dict[str, dict[str, Any]] = {}
        about: dict[str, dict[str, Any]] = {}
        for system in self.systems:
            name = system.name
            try:
                found = self._candidates(system, leaf)
                about[name] = self._about(system, leaf, found)
            except PromptError as error:
                self._fail(leaf, [name], error)
                continue
            identities[name] = as_json({"collection": collection, **self._identity(system, found)})
            if not self._take(subject, name, identities[name], about[name]):
                wanted[name] = found
        for name, run, seconds, weights in self._runs(subject, wanted):
            try:
                if isinstance(run, Exception):
                    raise run
                row = about[name] | self._score(subject, run, seconds)
                row |= {"hybrid": [weight.as_dict() for weight in weights]} if weights else {}
                path = self.output / leaf.folder / f"{name}.json"
                path.unlink(missing_ok=True)  # of another configuration; the run below is not its own
                write_run(path.with_name(f"{name}.trec"), run, name)
                write_json(path, {"format": FORMAT, "identity": identities[name], "row": row})
                self._keep(leaf, name, row)
            except (ForewordError, OSError) as error:
                self._fail(leaf, [name], error)

    def _candidates(self, system: System, leaf: Leaf) -> list[Candidate | None]:
        """The prompt of each fold, or one alone for all (None: the base model). Raises `PromptError`."""
        if system.kind == "bank":
            bank = self.banks[system.name]
            found = [bank.get(name) or bank.get(union_of(name) or name) for name in leaf.ids]
            if lacking := [name for name, own in zip(leaf.ids, found, strict=True) if own is None]:
                raise PromptError(f"{system.path} holds no prompt for {', '.join(lacking)}")
            return found
        return [self.single.get(system.name)]

    def _about(self, system: System, leaf: Leaf, candidates: Sequence[Candidate | None]) -> dict[str, Any]:
        """What a row says besides its score. Raises `PromptError` for a prompt that has seen the test labels."""
        prompts = [found for found in candidates if found is not None]
        dense = system.kind != "bm25"
        scored_on = leaf.ids if len(prompts) == len(leaf.ids) else (leaf.id,) * len(prompts)
        used = [p for p, own in zip(prompts, scored_on, strict=True) if p.has_used(own, leaf.split)]
        if used and leaf.split == "test":
            raise PromptError(f"{used[0].path} was trained on test queries of {leaf.id}; score it on its own fold")
        return {
            "collection": leaf.id,
            "split": leaf.split,
            "system": system.name,
            "supervision": "none" if not prompts else "k-fold" if len(prompts) > 1 else prompts[0].supervision,
            "seen_by_backbone": seen(str(self.backbone["name"]), leaf.id) if dense else False,
            "backbone": self.backbone["name"] if dense else None,
            "prompts": [found.digest for found in prompts],
            "folds": leaf.folds or None,
            "notes": [f"its prompt was trained on, or chosen by, the {leaf.split} split"] if used else [],
        }

    def _identity(self, system: System, candidates: Sequence[Candidate | None]) -> dict[str, Any]:
        """Everything that a row follows from besides the collection."""
        identity: dict[str, Any] = {"measures": self.config.measures, "k": self.config.k}
        if self.encoder is not None and system.kind != "bm25":
            identity |= {
                "backbone": {key: value for key, value in self.backbone.items() if key not in ("name", "revision")},
                "query_length": self.config.query_length,
                "document_length": self.config.document_length,
                "passages": wanted(self.config.passages, self.config.document_length),
                "max_length": self.encoder.max_seq_length,
                "precision": resolve_precision(self.config.precision, self.encoder.device),
                "prompts": [found and found.digest for found in candidates],
            } | ({"words": [WEIGHTS, DEPTH, FEWEST, MOST]} if system.words else {})
        return identity

    def _take(self, subject: Subject, name: str, identity: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
        """Keep the row that an earlier evaluation left, if it is of this identity; what is known of it is today's."""
        path = self.output / subject.leaf.folder / f"{name}.json"
        stored = kept_json(path)  # None or not ours: it is computed and written over
        same = isinstance(stored, dict) and stored.get("identity") == identity and stored.get("format") == FORMAT
        whole = same and path.with_suffix(".trec").is_file()
        if not whole or (row := stored["row"])["corpus_sha256"] != subject.corpus_sha256():
            return False
        measures = {measure: row["measures"][measure] for measure in self.config.measures}  # JSON's are sorted
        self._keep(subject.leaf, name, {**row, "measures": measures, **about})
        return True

    def _runs(self, subject: Subject, wanted: Mapping[str, list[Candidate | None]]) -> Iterator[_Ended]:
        """Each system's run, or the error that it met, and its seconds: BM25 first, others as their passes end.

        Jobs that agree on the documents' vectors share a pass over them: the base model and every prompt of the query
        side alone cost one between them. At any time one prompt is carried, and one block of documents, the queries'
        vectors and their best hits are held.
        """
        jobs: dict[str, list[_Search]] = {}
        for system in self.systems:
            found = wanted.get(system.name)
            if found and system.kind == "bm25":
                began = time.perf_counter()
                run: Run | Exception
                try:
                    run = subject.by_words(subject.every_query(), self.config.k or 0)
                except (ForewordError, OSError) as error:
                    run = error
                yield system.name, run, time.perf_counter() - began, []
            elif found and (system.words or len(found) > 1):
                each = zip(found * (len(subject.queries) // len(found)), subject.queries, subject.weighing, strict=True)
                jobs[system.name] = [
                    _Search(candidate, queries, system.words, weighing if system.words else None)
                    for candidate, queries, weighing in each
                ]
            elif found:
                jobs[system.name] = [_Search(found[0], subject.every_query())]
        passes = self._passes([job for own in jobs.values() for job in own], subject.first)
        yield from _ended(jobs)
        for number, sharing in enumerate(passes):
            began = time.perf_counter()
            try:
                self._pass(subject, sharing)
            except (ForewordError, OSError) as error:
                for job in sharing:
                    job.outcome = error
            for job in sharing:
                job.shared = number, time.perf_counter() - began
            yield from _ended(jobs)

    def _passes(self, jobs: Sequence[_Search], collection: Collection) -> list[list[_Search]]:
        """The jobs by what their prompts make of documents, their queries encoded; one that fails is in none."""
        lengths = {"query": self.config.query_length, "document": self.config.document_length}
        passes: dict[str, list[_Search]] = {}
        for job in jobs:
            assert self.encoder is not None
            began = time.perf_counter()
            try:
                with carrying(self.encoder, job.candidate) as route:
                    embed = partial(self._embed, route, lengths, f"texts of {collection.id}")
                    job.vectors = embed([query.text for query in job.asked], "query")
                    if job.words and job.weighing is None:
                        job.weight = weigh(collection, embed, None, shares=self._shares)
                    passes.setdefault(document_key(self.encoder, route), []).append(job)
            except (ForewordError, OSError) as error:
                job.outcome = error
            job.seconds = time.perf_counter() - began
        return list(passes.values())

    def _pass(self, subject: Subject, sharing: Sequence[_Search]) -> None:
        """Search for the queries of some jobs at once."""
        assert self.encoder is not None
        asked = [(place, query.query_id) for place, job in enumerate(sharing) for query in job.asked]
        names = [f"{number}{_BETWEEN}{query_id}" for number, (_, query_id) in enumerate(asked)]
        k = self.config.k or 0
        reached = max(k, DEPTH) if any(job.words for job in sharing) else k
        exclude = None
        if subject.first.exclude_self:
            exclude = {name: (query_id,) for name, (_, query_id) in zip(names, asked, strict=True)}
        vectors = np.concatenate([job.vectors for job in sharing])
        with carrying(self.encoder, sharing[0].candidate) as route:
            lengths = {"max_length": self.config.document_length, "passages": self.config.passages}
            how = {"route": route, **lengths, **self.how}
            blocks = document_blocks(self.encoder, subject.first, subject.documents(), **how)
            device = str(self.encoder.device)
            found = exact_search(vectors, names, blocks, reached, exclude=exclude, best_rows={}, device=device)
        hits = iter(found[name] for name in names)
        for job in sharing:
            run = {query.query_id: next(hits) for query in job.queries}
            if not job.words:
                job.outcome = top_k(run, k)
                continue
            if job.weighing is not None:
                queries, qrels, split = job.weighing
                dense, words = {q.query_id: next(hits) for q in queries}, subject.by_words(queries, DEPTH, shares=True)
                job.weight = choose_weight(dense, words, qrels, f"{split} queries", shares=self._shares)
            assert job.weight is not None
            words = subject.by_words(job.queries, reached, shares=True)
            job.outcome = hybrid(run, words, job.weight.bm25, k, shares=self._shares)

    @property
    def _shares(self) -> bool:
        return self.encoder is not None and self.encoder.similarity_fn_name == "cosine"

    def _embed(
        self, route: Route, lengths: Mapping[str, int | None], what: str, texts: Sequence[str], side: Side
    ) -> Any:
        assert self.encoder is not None
        return encode(self.encoder, texts, side, route=route, max_length=lengths[side], what=what, **self.how)

    def _score(self, subject: Subject, run: Run, seconds: float) -> dict[str, Any]:
        """The part of a row that follows from a run."""
        scored = evaluate_run(run, subject.qrels, self.config.measures)
        row = {
            "queries": scored.queries,
            "documents": subject.documents_seen,
            "measures": scored.values,
            "unanswered": scored.unanswered,
            "seconds": round(seconds, 3),
            "subsample": subject.first.facts.get("subsample"),
            "corpus_sha256": subject.corpus_sha256(),
        }
        as_read: dict[str, Any] = as_json(row)
        return as_read

    def _keep(self, leaf: Leaf, name: str, row: dict[str, Any]) -> None:
        self.rows[leaf.id, name] = row
        if self.on_row is not None:
            self.on_row(row)

    def _fail(self, leaf: Leaf, systems: Sequence[str], error: Exception) -> None:
        self.failures += [{"collection": leaf.id, "system": name, "error": str(error)} for name in systems]

    def result(self, group: str, members: Sequence[Member], headline: str) -> GroupResult:
        """The table of the rows."""
        systems, measures = [system.name for system in self.systems], self.config.measures
        rows: dict[tuple[str, str], Mapping[str, Any]] = {}
        parts: list[Mapping[str, Any]] = []
        for member in members:
            for system in systems:
                own = [self.rows.get((leaf.id, system)) for leaf in member.leaves]
                present = [row for row in own if row is not None]
                parts += present if member.is_mean else []
                if len(present) == len(own):  # a mean over fewer would look like the whole
                    mean = row_of_means(member.id, present, measures) if member.is_mean else present[0]
                    rows[member.id, system] = mean
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
            tuple(self.failures),
            tuple(means),
            tuple(common),
        )


_Ended = tuple[str, Run | Exception, float, list[HybridWeight]]
"""A system's name, what came of it, its seconds, and where it searches by words, too, their weight, by fold."""


def _ended(jobs: dict[str, list[_Search]]) -> Iterator[_Ended]:
    """Take the systems from `jobs` whose jobs are all done, put together; a pass that several share counts once."""
    for name in [name for name, own in jobs.items() if all(job.outcome is not None for job in own)]:
        done = jobs.pop(name)
        run: Run = {}
        errors = []
        for job in done:
            if isinstance(job.outcome, dict):
                run |= job.outcome
            elif job.outcome is not None:
                errors.append(job.outcome)
        seconds = sum(job.seconds for job in done) + sum(dict(job.shared for job in done).values())
        weights = [job.weight for job in done if job.weight is not None]
        yield name, errors[0] if errors else run, seconds, weights
