"""What a prompt does on a collection, beside the base model, for a person to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foreword.collections.collection import Collection, Document, Query
from foreword.errors import DataError, ForewordError
from foreword.evaluation.calibration import calibrate, fit_temperature
from foreword.evaluation.candidates import Candidate, bare, carrying, read_candidate
from foreword.evaluation.evaluate import judged_queries
from foreword.evaluation.influence import (
    SearchPair,
    TwoViews,
    WinsAndLosses,
    embed_views,
    token_influence,
    wins_and_losses,
)
from foreword.evaluation.measures import (
    DEFAULT_MEASURES,
    depth,
    evaluate_run,
    first_relevant_ranks,
    paired_randomization,
)
from foreword.evaluation.published import seen
from foreword.prompts.encoder import transformer_of
from foreword.prompts.inspect import bank_words, gate_strengths
from foreword.prompts.prompt import Prompt
from foreword.prompts.store import SOURCES, StoredPrompt, describe_backbone, is_mixture, library_versions, read_card
from foreword.retrieval.runs import Run, ranked
from foreword.retrieval.search import dense_run, search
from foreword.settings import Precision

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


# The parts of an explanation: two systems' calibration, the words of single queries, and where a prompt acts.


BASE = "base"
"""The base model's row."""

_OWN_HITS = 5  # shown of each ranking for the reader's own query
_SAMPLE = 200  # texts of each side that the gates are measured on
_K, _BINS = 10, 10  # hits a query that share its certainty, and bins of a reliability curve
_TAM_K = 5  # of Tam et al. (2207.07087), with 10 bins of equal width and T = 1: PT-Retrieval's script
_LENGTH = 300  # characters of a document that is shown


@dataclass(frozen=True)
class Scene:
    """Both systems on one collection: their document vectors, made once, serve every search."""

    encoder: SentenceTransformer
    collection: Collection
    split: str
    views: TwoViews
    name: str
    """The prompt's row."""
    how: Mapping[str, Any]
    """Further arguments of `encode`."""

    def prompts(self) -> dict[str, Prompt]:
        """The prompts carried, by name: one, or a mixture's sources."""
        transformer = transformer_of(self.encoder)
        return {domain: transformer.prompt(domain) for domain in transformer.domains}

    @property
    def systems(self) -> tuple[str, str]:
        """The two rows' names."""
        return BASE, self.name

    def sides(self) -> list[dict[str, Any]]:
        """What `dense_run` takes, for each system."""
        views, quiet = self.views, {**self.how, "quiet": True}
        pairs = ((None, views.base), (views.route, views.prompted))
        return [{"route": route, "vectors": (views.doc_ids, vectors), **quiet} for route, vectors in pairs]

    def runs(self, queries: Sequence[Query], k: int) -> dict[str, Run]:
        """The k best documents of each query by each system."""
        found = [dense_run(self.encoder, self.collection, queries, k=k, **side) for side in self.sides()]
        return dict(zip(self.systems, found, strict=True))


# -- calibration ---------------------------------------------------------------------------------------------------


def calibrations(scene: Scene, candidate: Candidate, runs: Mapping[str, Run]) -> tuple[list[dict[str, Any]], str]:
    """Each system's calibration with a temperature of dev, and as Tam et al. (2207.07087) define it; a note on T."""
    qrels = scene.collection.qrels(scene.split)
    temperatures, note = _temperatures(scene, candidate, set(qrels))
    source = "T fitted on dev" if temperatures else "T 1, not fitted"
    places = {
        "fitted": f"{scene.collection.id} ({source}, {_K} hits)",
        "pt-retrieval": f"{scene.collection.id} (as PT-Retrieval: T 1, {_TAM_K} hits)",
    }
    found, theirs = [], []
    for system, run in runs.items():
        temperature = temperatures.get(system, 1.0)
        # Several relevant hits share a query's certainty; each counts its share, or none could be calibrated.
        own = calibrate(run, qrels, temperature=temperature, k=_K, bins=_BINS, several="share")
        head = {"domain": places["fitted"], "system": system, "definition": "fitted"}
        found.append({**head, **own.as_dict(), "fitted": bool(temperatures)})
        tam = calibrate(run, qrels, k=_TAM_K, bins=_BINS, several="each").as_dict()
        kept = ("temperature", "k", "bins", "several", "queries", "unanswered", "hits", "nll", "brier")
        head = {"domain": places["pt-retrieval"], "system": system, "definition": "pt-retrieval"}
        curve = {"ece": tam["ece_equal_width"], "curve": tam["curve_equal_width"]}
        theirs.append({**head, **{name: tam[name] for name in kept}, **curve, "fitted": False})
    return found + theirs, f"{note}; bins of equal count, as PT-Retrieval of equal width"


def _temperatures(scene: Scene, candidate: Candidate, judged: set[str]) -> tuple[dict[str, float], str]:
    """Each system's temperature by the dev split, and a note; none where there is no dev split apart from this one."""
    collection = scene.collection
    if scene.split == "dev" or "dev" not in collection.splits:
        why = "dev is the split explained" if scene.split == "dev" else f"{collection.id} has no dev split"
        return {}, f"temperature 1, not fitted: {why}"
    qrels = collection.qrels("dev")
    if both := judged & qrels.keys():
        return {}, f"temperature 1, not fitted: {len(both)} dev queries are in {scene.split}, too"
    asked = judged_queries(collection, "dev")
    try:
        fitted = {
            system: fit_temperature(run, qrels, _K, several="share") for system, run in scene.runs(asked, _K).items()
        }
    except ForewordError as error:
        return {}, f"temperature 1, not fitted on dev: {error}"
    also = ", which chose or trained the prompt, too" if candidate.has_used(collection.id, "dev") else ""
    return fitted, f"temperatures fitted on the {len(asked)} queries of dev{also}"


# -- single queries ------------------------------------------------------------------------------------------------


def pair_words(scene: Scene, pair: SearchPair, runs: Mapping[str, Run]) -> dict[str, Any]:
    """The words of a query that was won or lost, by the relevant document that the better system ranks first."""
    gain = pair.gain or 0.0
    hits = runs[scene.name if gain > 0 else BASE][pair.query.query_id]
    relevant, here = {doc.doc_id: doc for doc in pair.relevant}, set(scene.views.doc_ids)
    known = [doc_id for doc_id, _ in ranked(hits) if doc_id in relevant] + [doc for doc in relevant if doc in here]
    return _words_of(scene, pair.query, relevant[known[0]], relevant=True, change=gain)


def ask(scene: Scene, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reader's own query: both systems' hits, and its words by the first hit with the prompt."""
    query = Query("your own", text)
    before, after = (search(scene.encoder, scene.collection, [text], k=_OWN_HITS, **side)[0] for side in scene.sides())
    pair = SearchPair(scene.collection.id, query, (), tuple(before), tuple(after), (None, None), scene.systems)
    told = {**pair.as_dict(), "collection": f"{scene.collection.id}: your own query"}
    return told, _words_of(scene, query, after[0].document, relevant=None, change=None)


def _words_of(
    scene: Scene, query: Query, doc: Document, *, relevant: bool | None, change: float | None
) -> dict[str, Any]:
    """What each word of a query does to a document's margin, by both systems: a record of the report."""
    views = _without(scene.views, query.query_id) if scene.collection.exclude_self else scene.views
    found = token_influence(scene.encoder, query.text, views, doc.doc_id, **scene.how).as_dict()
    return {
        **found,
        "words": list(found["words"]),
        "query_id": query.query_id,
        "collection": scene.collection.id,
        "systems": list(scene.systems),
        "document": doc.name,
        "text": " ".join(doc.text.split())[:_LENGTH],
        "relevant": relevant,
        "change": change,
    }


def _without(views: TwoViews, doc_id: str) -> TwoViews:
    """The documents without the query itself: it is never a hit, so it is no rival either."""
    if doc_id not in views.doc_ids:
        return views
    place = views.doc_ids.index(doc_id)
    base = np.delete(views.base, place, axis=0)
    prompted = base if views.prompted is views.base else np.delete(views.prompted, place, axis=0)
    return replace(views, doc_ids=views.doc_ids[:place] + views.doc_ids[place + 1 :], base=base, prompted=prompted)


# -- layers, heads and vectors -------------------------------------------------------------------------------------


def acts(scene: Scene, queries: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Where a gated prompt acts and the words an input prompt lies near; a note on what this prompt has none of."""
    prompts, gates, near = scene.prompts(), [], []
    kinds = {prompt.spec.kind for prompt in prompts.values()}
    notes = {}
    said = f"this prompt is of kind {' and '.join(sorted(kinds))}" if kinds else "this mixture is the base model alone"
    if kinds == {"gated"}:
        step = max(1, len(scene.views.doc_ids) // _SAMPLE)
        documents = [doc.content for place, doc in enumerate(scene.collection.documents()) if place % step == 0]
        texts = (list(queries)[:_SAMPLE], documents[:_SAMPLE])
        gates = [
            {**found.as_dict(scene.name), "most": _most(found.layers, found.strength)}
            for found in gate_strengths(scene.encoder, *texts, route=scene.views.route, **scene.how)
        ]
    else:
        notes["gates"] = f"none to show: {said}, and only gated prompts have gates"
    if kinds == {"input"}:
        stored = {name: StoredPrompt(prompt, {"domain": name}) for name, prompt in prompts.items()}
        near = bank_words(scene.encoder, stored).records
    else:
        notes["words"] = f"none to show: {said}, and only input prompts have vectors that words can be compared with"
    return {"gates": gates, "words": near}, notes


def _most(layers: Sequence[int], strength: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The place where a prompt acts most; layers from the bottom and heads, both from 1."""
    row, head = divmod(int(strength.argmax()), strength.shape[1])
    return {"layer": layers[row] + 1, "head": head + 1, "strength": round(float(strength[row, head]), 6)}


_HITS = 3  # shown of each ranking


def explain(
    encoder: SentenceTransformer,
    collection: Collection,
    prompt: Path | str,
    *,
    split: str = "test",
    measures: Sequence[str] = DEFAULT_MEASURES,
    queries: int = 5,
    influence: int = 6,
    own: Sequence[str] = (),
    precision: Precision = "float32",
    batch_size: int = 64,
    quiet: bool = False,
) -> dict[str, Any]:
    """Compare a prompt with the base model on a collection, as the results that `write_report` makes a page of.

    Documents are embedded once by the base model and, unless the prompt leaves documents to it, once with the prompt;
    both sets of vectors are held in memory. Equal runs give equal results.

    Args:
        encoder: from `load_encoder(prompt=prompt)`, which takes the pooling and lengths that the prompt was made for.
        collection: without judgements, only the reader's own queries are looked at.
        prompt: the folder of a stored prompt or mixture.
        split: `train`, `dev` or `test`.
        measures: as ir_measures names them; by the first one, queries are won and lost.
        queries: how many of the largest wins, and of the largest losses, are shown.
        influence: for how many of these, wins and losses in turn, each word of the query is left out once.
        own: queries of the reader's own, which are shown and taken apart as well.
        precision: of the forward passes.
        batch_size: texts in one forward pass.
        quiet: no progress bars.

    Returns:
        JSON values: `title, headline, rows, per_query, changes, searches, influence, calibration, gates, words,
        configuration, versions`. What there is nothing to show for is said in `configuration.notes`.

    Raises:
        PromptError: there is no such prompt, or it is another backbone's.
        DataError: the prompt was trained on this collection's test queries; fewer than two documents; an empty
            query; or neither judgements nor own queries.
        UnknownNameError: no such split, or no such measure.
    """
    if queries < 0 or influence < 0:
        raise ForewordError(f"queries={queries}, influence={influence}; expected 0 or more")
    if not all(text.strip() for text in own):
        raise DataError("one of your own queries is empty; give texts with words")
    candidate = read_candidate(Path(prompt))
    _refuse_test_labels(candidate, collection, split)
    asked = judged_queries(collection, split) if collection.splits or not own else []
    k = depth(measures)
    how: dict[str, Any] = {"precision": precision, "batch_size": batch_size}
    name = candidate.domain if candidate.domain != BASE else "prompt"
    with bare(encoder), carrying(encoder, candidate) as route:
        what = f"documents of {collection.id}"
        views = embed_views(encoder, collection.documents(), route=route, what=what, quiet=quiet, **how)
        scene = Scene(encoder, collection, split, views, name, how)
        where, notes = acts(scene, [query.text for query in asked] or own)
        results: dict[str, Any] = {
            "title": f"What {name} does on {collection.id}",
            "searches": [],
            "influence": [],
            **where,
        }
        for text in own:
            search, words = ask(scene, text)
            results["searches"].append(search)
            results["influence"].append(words)
        if asked:
            judged, more = _judged(scene, candidate, asked, measures, k, queries, influence)
            results["searches"] += judged.pop("searches")
            results["influence"] += judged.pop("influence")
            results |= judged
            notes |= more
        else:
            notes["judgements"] = "none, so nothing is measured; only your own queries are shown"
        if transformer_of(encoder).max_seq_length != transformer_of(encoder).text_limit:
            notes["length"] = "the prompt takes room before the text, so the base model's texts are cut as short here"
        results["configuration"] = _configuration(scene, candidate, measures, notes)
    return {**results, "versions": library_versions()}


def _refuse_test_labels(candidate: Candidate, collection: Collection, split: str) -> None:
    """Raise `DataError` when these are test labels that the prompt, of a fold, was trained on."""
    if split == "test" and candidate.has_used(collection.id, split):
        trained = ", ".join(candidate.trained_on)
        raise DataError(
            f"{candidate.path} was trained on test queries of {collection.id} (as {trained}); explain it on that"
        )


def _configuration(
    scene: Scene, candidate: Candidate, measures: Sequence[str], notes: Mapping[str, str]
) -> dict[str, Any]:
    """What was compared, and what is to be known of it."""
    backbone = describe_backbone(scene.encoder)
    return {
        "collection": scene.collection.id,
        "split": scene.split,
        "documents": len(scene.views.doc_ids),
        "prompt": str(candidate.path),
        "kinds": sorted({prompt.spec.kind for prompt in scene.prompts().values()}),
        "supervision": candidate.supervision or "unknown",
        "used_labels_of_split": candidate.has_used(scene.collection.id, scene.split),
        "backbone": backbone["name"],
        "seen_by_backbone": seen(str(backbone["name"]), scene.collection.id),
        "measures": list(measures),
        "precision": scene.how["precision"],
        "max_length": transformer_of(scene.encoder).max_seq_length,
        "notes": dict(notes),
    }


# -- judged queries ------------------------------------------------------------------------------------------------


def _judged(
    scene: Scene,
    candidate: Candidate,
    asked: Sequence[Query],
    measures: Sequence[str],
    k: int,
    queries: int,
    influence: int,
) -> tuple[dict[str, Any], dict[str, str]]:
    """All that needs judgements, and notes."""
    collection, split, qrels = scene.collection, scene.split, scene.collection.qrels(scene.split)
    runs = scene.runs(asked, k)
    scored = {system: evaluate_run(run, qrels, measures) for system, run in runs.items()}
    rows = _rows(scene, candidate, scored)
    first = next(iter(scored[BASE].values))
    changed = wins_and_losses(
        runs[BASE],
        runs[scene.name],
        qrels,
        collection,
        queries,
        measure=first,
        split=split,
        systems=scene.systems,
        hits=_HITS,
    )
    turns = zip_longest(changed.wins, changed.losses)
    chosen = [pair for turn in turns for pair in turn if pair is not None][:influence]
    calibration, note = calibrations(scene, candidate, runs)
    labels = _used_labels(scene, candidate)
    per_query = {
        "measure": first,
        "baseline": BASE,
        "chosen": scene.name,
        "systems": {system: dict(sorted(found.per_query[first].items())) for system, found in scored.items()},
        "ranks": {system: first_relevant_ranks(run, qrels) for system, run in runs.items()},
        "texts": {query.query_id: query.text for query in asked},
    }
    return {
        "headline": " ".join([_headline(scene, rows, changed), *labels.values()]),
        "rows": rows,
        "per_query": {collection.id: per_query},
        "changes": {
            "measure": first,
            **{name: getattr(changed, name) for name in ("better", "same", "worse")},
            "wins": [pair.query.query_id for pair in changed.wins],
            "losses": [pair.query.query_id for pair in changed.losses],
        },
        "searches": [_told(pair, first) for pair in (*changed.wins, *changed.losses)],
        "influence": [
            {**pair_words(scene, pair, runs), "measure": first} for pair in chosen if pair.query.text.strip()
        ],
        "calibration": calibration,
    }, {"calibration": note, **labels}


def _headline(scene: Scene, rows: Sequence[Mapping[str, Any]], changed: WinsAndLosses) -> str:
    """The outcome in two sentences."""
    base, tuned = (next(row for row in rows if row["system"] == system) for system in scene.systems)
    p_value = "< .001" if tuned["p_value"] < 0.001 else f"{tuned['p_value']:.3f}"
    return (
        f"{scene.collection.id}, {changed.measure} on {scene.split}: {base['value']:.3f} with the base model, "
        f"{tuned['value']:.3f} with {scene.name} ({tuned['difference']:+.3f}, p {p_value}). Better on "
        f"{changed.better} queries, worse on {changed.worse}, the same on {changed.same}."
    )


def _used_labels(scene: Scene, candidate: Candidate) -> dict[str, str]:
    """A note where the labels of this split took part in the training."""
    if not candidate.has_used(scene.collection.id, scene.split):
        return {}
    return {"labels": f"No result to report: the {scene.split} labels trained or chose the prompt."}


def _rows(scene: Scene, candidate: Candidate, scored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each system and measure, the prompt's with its difference."""
    folder = candidate.path
    cards = [read_card(path) for path in ([folder] if not is_mixture(folder) else sorted((folder / SOURCES).glob("*")))]
    costs = {
        BASE: (0, 0),
        scene.name: (
            sum(card.get("trained_parameters", card.get("parameters", 0)) for card in cards),
            sum(card["bytes"] for card in cards),
        ),
    }
    rows = []
    for system, found in scored.items():
        for measure, value in found.values.items():
            row = {"system": system, "collection": scene.collection.id, "measure": measure, "value": value}
            row |= {"trained_parameters": costs[system][0], "bytes": costs[system][1]}
            if system != BASE:
                test = paired_randomization(found.per_query[measure], scored[BASE].per_query[measure])
                row |= {"difference": test.difference, "p_value": test.p_value}
            rows.append(row)
    return rows


def _told(pair: SearchPair, measure: str) -> dict[str, Any]:
    """A search as a record of the report, with what it gained beside the collection's name."""
    gain, ranks = pair.gain or 0.0, [str(rank) if rank else "none" for rank in pair.ranks]
    sign = "+" if gain > 0 else "−"
    what = f"{measure} {sign}{abs(gain):.3f}, first relevant document at rank {' → '.join(ranks)}"
    return {**pair.as_dict(), "collection": f"{pair.collection}: {what}"}
