"""The parts of an explanation: two systems' calibration, the words of single queries, and where a prompt acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foreword.collections.records import Collection, Document, Query
from foreword.common.errors import ForewordError
from foreword.evaluation.calibration import calibrate, fit_temperature
from foreword.evaluation.candidates import Candidate
from foreword.evaluation.evaluate import judged_queries
from foreword.evaluation.influence import TwoViews, token_influence
from foreword.evaluation.searches import SearchPair
from foreword.prompts.encoder import transformer_of
from foreword.prompts.gates import gate_strengths
from foreword.prompts.prompt import Prompt
from foreword.prompts.store import StoredPrompt
from foreword.prompts.words import bank_words
from foreword.retrieval.runs import Run, ranked
from foreword.retrieval.search import dense_run, search

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

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
