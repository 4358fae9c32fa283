"""Try a bank's prompts on a target: the base model, prompts alone and the fitted mixture, side by side.

Gains on pseudo-queries are not gains on real queries. `data/evidence.json` lists domains on which both are known,
measured with labels that no choice had seen; what a new domain may expect is where those on its side of the reach
lie.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection, Document, MemoryCollection, require_split
from foreword.collections.registry import overlap
from foreword.collections.supervision import headline_split, position
from foreword.errors import DataError, PromptError
from foreword.evaluation.candidates import document_key
from foreword.evaluation.hybrid import FEWEST, HybridWeight, choose_weight, weigh
from foreword.evaluation.measures import bootstrap_interval, evaluate_run
from foreword.files import rounded
from foreword.prompts.encoder import encode
from foreword.prompts.routes import Route, Weight
from foreword.prompts.store import StoredPrompt
from foreword.retrieval.bm25 import BM25
from foreword.retrieval.runs import DEPTH
from foreword.retrieval.search import dense_run
from foreword.settings import Side
from foreword.training.vectors import embed_documents
from foreword.transferring.config import AdviceConfig, FitConfig
from foreword.transferring.reach import Array, nearness, source_domains
from foreword.transferring.transfer import (
    check_mixable,
    compare,
    fit_mixture,
    pseudo_material,
    route_of,
    shared_document_source,
)

INSTALLED = Path(__file__).parent / "data" / "evidence.json"
LEAST_DOMAINS = 3
"""Domains from which a range is given; that of fewer would look narrower than it is."""

Basis = Literal["labels", "evidence", "pseudo-queries"]


@dataclass(frozen=True)
class Evidence:
    """One domain on which gains were measured.

    Attributes:
        target: the collection's id.
        genre: what kind of text it is, for people.
        within: whether the target was within reach, see `foreword.transferring.reach`.
        pseudo_gain: of transfer over the base model, in nDCG@10 on pseudo-queries; None: not measured.
        gain: of transfer on the test queries.
        supervised_gain: of a prompt trained on the domain's labels; None: not measured.
        pairs: labelled training pairs that it was trained on; None: not measured.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}

    target: str
    genre: str
    within: bool
    pseudo_gain: float | None
    gain: float
    supervised_gain: float | None = None
    pairs: int | None = None


@dataclass(frozen=True)
class Gain:
    """An expected difference in nDCG@10 from the base model: a mean of `count` queries or domains, a 95 % interval.

    `basis` is `labels` or `pseudo-queries`, where the interval is of the mean over queries like those, or `evidence`:
    where single domains' gains lay, which is wider.
    """

    value: float
    low: float
    high: float
    basis: Basis
    count: int

    def said(self) -> str:
        """The numbers, and what they are of."""
        what = {
            "labels": f"95 % interval over {self.count} labelled queries",
            "evidence": f"the range of 95 % of {self.count} measured domains",
            "pseudo-queries": f"95 % interval over {self.count} pseudo-queries, which overstate",
        }[self.basis]
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f}: {what})"

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        fields: dict[str, Any] = rounded(asdict(self))
        return fields


def read_evidence(path: Path | None = None) -> list[Evidence]:
    """The domains that a file of evidence lists: a JSON list of objects with the fields of `Evidence`.

    None is the file that came with the package. `DataError`: it is no such file, or an entry has other fields.
    """
    from pydantic import TypeAdapter, ValidationError

    path = path or INSTALLED
    try:
        return TypeAdapter(list[Evidence]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        mend = f"expected a list of domains with {', '.join(field.name for field in fields(Evidence))}"
        raise DataError(f"no evidence can be read ({error}); {mend}; install the package again", path=path) from error


def expected_gain(
    evidence: Sequence[Evidence], target: str, *, within: bool, kind: Literal["transfer", "train"]
) -> Gain | None:
    """What a domain may expect: the mean gain of those on its side of the reach, and the range that they span.

    The range is the 2.5 and 97.5 % quantiles of single domains' gains: it is about one more domain, not about their
    mean. Nothing is scaled: what training gained, it gained with the evidence's own numbers of pairs.

    `target` is the domain itself, whose own entries (and those of collections that share its data) do not count. None
    when fewer than three domains say anything.
    """
    same = [entry for entry in evidence if entry.within == within and not overlap(entry.target, target)]
    gains = [entry.gain if kind == "transfer" else entry.supervised_gain for entry in same]
    known = [gain for gain in gains if gain is not None]
    if len(known) < LEAST_DOMAINS:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return Gain(float(np.mean(known)), float(low), float(high), "evidence", len(known))


@dataclass(frozen=True)
class Compared:
    """A candidate's nDCG@10 on held-out pseudo-queries, and on labelled queries where there are some, with its gains.

    `name` is `base`, `fitted` (the mixture), or a prompt's.
    """

    name: str
    pseudo: float | None = None
    pseudo_gain: Gain | None = None
    labels: float | None = None
    labels_gain: Gain | None = None

    @property
    def better(self) -> bool:
        """Whether it is above the base model: by labels not significantly below, and above by something."""
        gains = [gain for gain in (self.labels_gain, self.pseudo_gain) if gain is not None]
        harmful = self.labels_gain is not None and self.labels_gain.high < 0
        return not harmful and any(gain.value > 0 for gain in gains)

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        fields = rounded(asdict(self))
        return {{"pseudo": "pseudo_nDCG@10", "labels": "labels_nDCG@10"}.get(key, key): fields[key] for key in fields}


@dataclass(frozen=True)
class Sample:
    """Documents of a collection, under its id, with or without a split's labelled queries; and how many with any text
    it has.
    """

    collection: MemoryCollection
    of: int

    @property
    def documents(self) -> int:
        """In the sample."""
        return len(self.collection.corpus)


def text_sample(target: Collection, limit: int, seed: int) -> Sample:
    """At most `limit` documents of a collection, without its queries and judgements; one pass over the corpus."""
    documents, count = _drawn(target.documents(), limit, seed, frozenset())
    return Sample(MemoryCollection(target.id, target.group, documents, {}, {}), count)


def labelled_sample(target: Collection, split: str, queries: int, limit: int, seed: int) -> Sample:
    """At most `queries` judged queries of a split, all their relevant documents, and others up to `limit`.

    Scores on it are higher than on the whole corpus, of which it leaves out what could be mistaken for relevant.
    `DataError`: no query has a relevant document.
    """
    relevant = {
        query_id: {doc_id: grade for doc_id, grade in judged.items() if grade > 0}
        for query_id, judged in target.qrels(split).items()
    }
    asked = [query for query in target.queries(split) if relevant.get(query.query_id)]
    places = {query.query_id: (position(query.query_id, "labels", seed), query.query_id) for query in asked}
    chosen = set(heapq.nsmallest(queries, places, key=lambda query_id: places[query_id]))
    wanted = frozenset(doc_id for query_id in chosen for doc_id in relevant[query_id])
    documents, count = _drawn(target.documents_for(split), limit, seed, wanted)
    there = {document.doc_id for document in documents}
    qrels = {
        query_id: kept
        for query_id in sorted(chosen)
        if (kept := {doc_id: grade for doc_id, grade in relevant[query_id].items() if doc_id in there})
    }
    if not qrels:
        raise DataError(f"no query of {target.id}, split {split}, has a relevant document in the corpus")
    texts = tuple(query for query in asked if query.query_id in qrels)
    own = target.exclude_self
    made = MemoryCollection(target.id, target.group, documents, {split: texts}, {split: qrels}, exclude_self=own)
    return Sample(made, count)


def _drawn(
    documents: Iterable[Document], limit: int, seed: int, wanted: frozenset[str]
) -> tuple[tuple[Document, ...], int]:
    """The wanted documents and others up to `limit` (one at least), in the corpus's order; and how many there are.

    Documents without any text are passed over, unless they are wanted. Holds what it draws, and no more.
    """
    count = 0
    kept: list[tuple[int, Document]] = []

    def others() -> Iterator[tuple[float, int, Document]]:
        nonlocal count
        for number, document in enumerate(documents):
            if document.doc_id in wanted:
                kept.append((number, document))
            elif not document.content.strip():
                continue
            else:
                yield position(document.doc_id, "sample", seed), number, document
            count += 1

    drawn = heapq.nsmallest(max(1, limit - len(wanted)), others())
    kept += [(number, document) for _, number, document in drawn]
    return tuple(document for _, document in sorted(kept, key=lambda item: item[0])), count


def label_split(target: Collection, asked: str | None = None) -> str | None:
    """The split whose labels may help to choose: `asked`, else dev, else train, else None; never the reported one.

    Raises:
        DataError: the split asked for is the reported one.
        UnknownNameError: there is no such split.
    """
    if asked == "none":
        return None
    if asked is not None:
        if asked in _reported(target):
            raise DataError(f"split {asked!r} of {target.id} is for scoring alone; name dev or train, or none")
        require_split(target.id, asked, target.splits)
        return asked
    return _first_split(target, ("dev", "train"))


def training_split(target: Collection) -> str | None:
    """The split that `foreword train` learns from: train, else a dev split that is not reported; None: neither."""
    return _first_split(target, ("train", "dev"))


def _first_split(target: Collection, order: Sequence[str]) -> str | None:
    """The first of these splits that there is and that is not reported."""
    return next((split for split in order if split in target.splits and split not in _reported(target)), None)


def _reported(target: Collection) -> set[str]:
    return {"test", headline_split(target)}


def training_pairs(target: Collection) -> int:
    """How many labelled pairs `foreword train` has."""
    split = training_split(target)
    if split is None:
        return 0
    return sum(grade > 0 for judged in target.qrels(split).values() for grade in judged.values())


MEASURE = "nDCG@10"
BASE, FITTED = "base", "fitted"
"""Candidates that are not prompts of the bank."""


@dataclass(frozen=True)
class Trial:
    """Candidates by name, and their scores by query; `weights` are the fitted mixture's."""

    routes: Mapping[str, Route]
    weights: Mapping[str, Weight]
    pseudo: Mapping[str, Mapping[str, float]]
    labels: Mapping[str, Mapping[str, float]]


def nearest_prompts(
    bank: Mapping[str, StoredPrompt], own: Array, features: Mapping[str, Array], most: int, notes: list[str]
) -> list[str]:
    """The prompts to try alone: those whose own training documents are nearest to the target's, each value once.

    One trained on several domains has the documents of all.
    `own` are the target's document features, `features` the domains'. What is left out is added to `notes`.
    """
    first: dict[str, str] = {}
    for name, stored in bank.items():
        first.setdefault(stored.prompt.digest(), name)
    if copies := [name for name in bank if name not in first.values()]:
        notes.append(f"equal to another prompt, value by value, so not tried alone: {', '.join(copies)}")
    distinct = {name: bank[name] for name in first.values()}
    if len(distinct) <= most:
        return list(distinct)
    near: dict[str, float] = {}
    for name, stored in distinct.items():
        trained = StoredPrompt(stored.prompt, {"data": stored.card.get("data") or {}})  # not what it started from
        known = {domain: features[domain] for domain in source_domains({name: trained}) if domain in features}
        near[name] = nearness(own, known)[0] if known else -1.0
    kept = sorted(near, key=lambda name: (-near[name], name))[:most]
    notes.append(f"of the bank's {len(distinct)} prompts, the nearest {most} are tried alone: {', '.join(kept)}")
    return kept


def try_prompts(
    encoder: SentenceTransformer,
    sample: Sample,
    labelled: Sample | None,
    bank: Mapping[str, StoredPrompt],
    names: Sequence[str],
    config: AdviceConfig,
    notes: list[str],
    quiet: bool,
) -> Trial:
    """Score the base model, prompts alone and the fitted mixture."""
    routes: dict[str, Route] = {BASE: None, **{name: name for name in names}}
    weights: dict[str, Weight] = {}
    pseudo: dict[str, dict[str, float]] = {}
    try:
        fitting, checks = pseudo_material(sample.collection, config.pseudo, config.fit)
    except DataError as error:
        notes.append(f"no pseudo-queries are compared on, and no mixture is fitted: {error}")
    else:
        try:
            check_mixable(bank)
        except PromptError as error:
            notes.append(f"no mixture is fitted: {error}")
        else:
            weights = dict(fit_mixture(encoder, bank, fitting, config.fit, quiet=quiet).weights)
            routes[FITTED] = route_of(weights, shared_document_source(bank))
        pseudo = compare(encoder, routes, checks, config.fit)
    if labelled is not None:
        if labelled.documents < labelled.of:
            notes.append(
                f"labelled queries search {labelled.documents} of {labelled.of} documents, all relevant ones among "
                f"them, so {MEASURE} is higher than on all"
            )
        notes.append(
            "the candidate was chosen on the labelled queries that its gain is given for, so that is a bit high"
        )
    return Trial(routes, weights, pseudo, {} if labelled is None else on_labels(encoder, labelled, routes, config.fit))


def on_labels(
    encoder: SentenceTransformer, labelled: Sample, routes: Mapping[str, Route], config: FitConfig
) -> dict[str, Mapping[str, float]]:
    """nDCG@10 by route and labelled query; documents are embedded once for all routes that encode them alike."""
    target = labelled.collection
    [split] = target.splits
    queries, qrels = list(target.queries(split)), target.qrels(split)
    embedded: dict[str, tuple[Sequence[str], Array]] = {}
    scores: dict[str, Mapping[str, float]] = {}
    how: dict[str, Any] = {"precision": config.precision, "quiet": True}
    for name, route in routes.items():
        key = document_key(encoder, route)
        if key not in embedded:
            made = embed_documents(encoder, target, route=route, max_length=config.document_length, **how)
            embedded[key] = made.doc_ids, made.vectors
        at: dict[str, Any] = {"vectors": embedded[key], "k": 10, "query_length": config.query_length, **how}
        run = dense_run(encoder, target, queries, route=route, **at)
        scores[name] = evaluate_run(run, qrels, [MEASURE]).per_query[MEASURE]
    return scores


def words_beside(
    encoder: SentenceTransformer, sample: Sample, labelled: Sample | None, config: AdviceConfig
) -> HybridWeight:
    """The weight of BM25 beside the base model: by the labelled queries, or by the text where they are too few."""
    fit = config.fit
    how: dict[str, Any] = {"precision": fit.precision, "quiet": True}
    shares = encoder.similarity_fn_name == "cosine"

    def embed(texts: Sequence[str], side: Side) -> Array:
        return np.asarray(encode(encoder, texts, side, route=None, max_length=fit.length(side), **how))

    if labelled is None or len(labelled.collection.qrels(labelled.collection.splits[0])) < FEWEST:
        return weigh(sample.collection, embed, None, shares=shares)
    target = labelled.collection
    [split] = target.splits
    queries = list(target.queries(split))
    how |= {"query_length": fit.query_length, "document_length": fit.document_length}
    dense = dense_run(encoder, target, queries, route=None, k=DEPTH, **how)
    words = BM25(target.corpus).search(queries, DEPTH, exclude_self=target.exclude_self, shares=True)
    return choose_weight(dense, words, target.qrels(split), f"{split} queries", shares=shares)


def compared_candidates(trial: Trial, seed: int) -> list[Compared]:
    """Every candidate's means and gains, the base model first; none that was measured on nothing."""
    kinds: dict[Basis, Mapping[str, Mapping[str, float]]] = {"pseudo-queries": trial.pseudo, "labels": trial.labels}
    made = []
    for name in trial.routes:
        found: dict[str, Any] = {}
        for basis, scores in kinds.items():
            if not scores:
                continue
            key = "labels" if basis == "labels" else "pseudo"
            found[key] = float(np.mean(list(scores[name].values())))
            if name != BASE:
                low, high = bootstrap_interval(scores[name], scores[BASE], seed=seed)
                base = float(np.mean(list(scores[BASE].values())))
                found[f"{key}_gain"] = Gain(found[key] - base, low, high, basis, len(scores[name]))
        if found:
            made.append(Compared(name, **found))
    return made
