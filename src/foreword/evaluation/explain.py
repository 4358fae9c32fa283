"""What a prompt does on a collection, beside the base model, for a person to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.collections.collection import Collection, Document, Query, judged_queries
from foreword.errors import DataError, ForewordError
from foreword.evaluation.calibration import calibrate, fit_temperature
from foreword.evaluation.candidates import Candidate, bare, carrying, read_candidate
from foreword.evaluation.influence import (
    SearchPair,
    TwoViews,
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
from foreword.prompts.inspect import bank_words, prompt_strengths
from foreword.prompts.prompt import Prompt
from foreword.prompts.store import SOURCES, StoredPrompt, describe_backbone, is_mixture, library_versions, read_card
from foreword.retrieval.runs import Run, ranked
from foreword.retrieval.search import dense_run, search
from foreword.settings import EncodingPrecision

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


BASE = "base"
"""The base model's row."""

_HITS, _OWN_HITS = 3, 5  # shown of each ranking, and for the reader's own query
_SAMPLE = 200  # texts of each side that a prompt's strength is measured on
_K, _BINS = 10, 10  # hits a query that share its certainty, and bins of a reliability curve
_TAM_K = 5  # of Tam et al. (2207.07087), with 10 bins of equal width and T = 1: PT-Retrieval's script
_LENGTH = 300  # characters of a document that is shown


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
    precision: EncodingPrecision = "float32",
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

    Returns:
        JSON values: `title, headline, rows, per_query, changes, searches, influence, calibration, strength, words,
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
    if split == "test" and candidate.has_used(collection.id, split):
        raise DataError(
            f"{candidate.path} was trained on test queries of {collection.id} (as {', '.join(candidate.trained_on)}); "
            "explain it on that"
        )
    asked = judged_queries(collection, split) if collection.splits or not own else []
    k = depth(measures)
    how: dict[str, Any] = {"precision": precision, "batch_size": batch_size}
    with bare(encoder), carrying(encoder, candidate) as route:
        what = f"documents of {collection.id}"
        views = embed_views(encoder, collection.documents(), route=route, what=what, quiet=quiet, **how)
        scene = Scene(encoder, collection, split, candidate, measures, views, how)
        where, notes = scene.acts([query.text for query in asked] or own)
        results: dict[str, Any] = {
            "title": f"What {scene.name} does on {collection.id}",
            "searches": [],
            "influence": [],
            **where,
        }
        for text in own:
            search, words = scene.ask(text)
            results["searches"].append(search)
            results["influence"].append(words)
        if asked:
            judged, more = scene.judged(asked, k, queries, influence)
            results["searches"] += judged.pop("searches")
            results["influence"] += judged.pop("influence")
            results |= judged
            notes |= more
        else:
            notes["judgements"] = "none, so nothing is measured; only your own queries are shown"
        if transformer_of(encoder).max_seq_length != transformer_of(encoder).text_limit:
            notes["length"] = "the prompt takes room before the text, so the base model's texts are cut as short here"
        results["configuration"] = scene.configuration(notes)
    return {**results, "versions": library_versions()}


@dataclass(frozen=True)
class Scene:
    """Both systems on one collection: their document vectors, made once, serve every search.

    Attributes:
        encoder: it carries the prompt.
        collection: what is searched.
        split: of the judgements.
        candidate: the prompt.
        measures: as ir_measures names them.
        views: the documents, by both systems.
        how: further arguments of `encode`.
    """

    encoder: SentenceTransformer
    collection: Collection
    split: str
    candidate: Candidate
    measures: Sequence[str]
    views: TwoViews
    how: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The prompt's row."""
        return self.candidate.domain if self.candidate.domain != BASE else "prompt"

    @property
    def systems(self) -> tuple[str, str]:
        """The two rows' names."""
        return BASE, self.name

    @property
    def used_labels(self) -> bool:
        """Whether the labels of this split took part in the training."""
        return self.candidate.has_used(self.collection.id, self.split)

    def prompts(self) -> dict[str, Prompt]:
        """The prompts carried, by name: one, or a mixture's sources."""
        transformer = transformer_of(self.encoder)
        return {domain: transformer.prompt(domain) for domain in transformer.domains}

    def sides(self) -> list[dict[str, Any]]:
        """What `dense_run` takes, for each system."""
        views, quiet = self.views, {**self.how, "quiet": True}
        pairs = ((None, views.base), (views.route, views.prompted))
        return [{"route": route, "vectors": (views.doc_ids, vectors), **quiet} for route, vectors in pairs]

    def runs(self, queries: Sequence[Query], k: int) -> dict[str, Run]:
        """The k best documents of each query by each system."""
        found = [dense_run(self.encoder, self.collection, queries, k=k, **side) for side in self.sides()]
        return dict(zip(self.systems, found, strict=True))

    def configuration(self, notes: Mapping[str, str]) -> dict[str, Any]:
        """What was compared, and what is to be known of it."""
        backbone = str(describe_backbone(self.encoder)["name"])
        return {
            "collection": self.collection.id,
            "split": self.split,
            "documents": len(self.views.doc_ids),
            "prompt": str(self.candidate.path),
            "kinds": sorted({prompt.spec.kind for prompt in self.prompts().values()}),
            "supervision": self.candidate.supervision or "unknown",
            "used_labels_of_split": self.used_labels,
            "backbone": backbone,
            "seen_by_backbone": seen(backbone, self.collection.id),
            "measures": list(self.measures),
            "precision": self.how["precision"],
            "max_length": transformer_of(self.encoder).max_seq_length,
            "notes": dict(notes),
        }

    def judged(
        self, asked: Sequence[Query], k: int, queries: int, influence: int
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """All that needs judgements, and notes; arguments as of `explain`, `k` hits a query."""
        collection, qrels = self.collection, self.collection.qrels(self.split)
        runs = self.runs(asked, k)
        scored = {system: evaluate_run(run, qrels, self.measures) for system, run in runs.items()}
        rows = self._rows(scored)
        first = next(iter(scored[BASE].values))
        how: dict[str, Any] = {"measure": first, "split": self.split, "systems": self.systems, "hits": _HITS}
        changed = wins_and_losses(runs[BASE], runs[self.name], qrels, collection, queries, **how)
        turns = zip_longest(changed.wins, changed.losses)
        chosen = [pair for turn in turns for pair in turn if pair is not None][:influence]
        calibration, note = self._calibrations(runs)
        notes = {"calibration": note}
        base, tuned = (next(row for row in rows if row["system"] == system) for system in self.systems)
        p_value = "< .001" if tuned["p_value"] < 0.001 else f"{tuned['p_value']:.3f}"
        headline = (
            f"{collection.id}, {first} on {self.split}: {base['value']:.3f} with the base model, "
            f"{tuned['value']:.3f} with {self.name} ({tuned['difference']:+.3f}, p {p_value}). Better on "
            f"{changed.better} queries, worse on {changed.worse}, the same on {changed.same}."
        )
        if self.used_labels:
            notes["labels"] = f"No result to report: the {self.split} labels trained or chose the prompt."
            headline += f" {notes['labels']}"
        per_query = {
            "measure": first,
            "baseline": BASE,
            "chosen": self.name,
            "systems": {system: dict(sorted(found.per_query[first].items())) for system, found in scored.items()},
            "ranks": {system: first_relevant_ranks(run, qrels) for system, run in runs.items()},
            "texts": {query.query_id: query.text for query in asked},
        }
        return {
            "headline": headline,
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
                {**self._pair_words(pair, runs), "measure": first} for pair in chosen if pair.query.text.strip()
            ],
            "calibration": calibration,
        }, notes

    def _rows(self, scored: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A row for each system and measure, the prompt's with its difference."""
        folder = self.candidate.path
        cards = [read_card(path) for path in (sorted((folder / SOURCES).glob("*")) if is_mixture(folder) else [folder])]
        parameters = sum(card.get("trained_parameters", card.get("parameters", 0)) for card in cards)
        costs = {BASE: (0, 0), self.name: (parameters, sum(card["bytes"] for card in cards))}
        rows = []
        for system, found in scored.items():
            for measure, value in found.values.items():
                row = {"system": system, "collection": self.collection.id, "measure": measure, "value": value}
                row |= {"trained_parameters": costs[system][0], "bytes": costs[system][1]}
                if system != BASE:
                    test = paired_randomization(found.per_query[measure], scored[BASE].per_query[measure])
                    row |= {"difference": test.difference, "p_value": test.p_value}
                rows.append(row)
        return rows

    def _calibrations(self, runs: Mapping[str, Run]) -> tuple[list[dict[str, Any]], str]:
        """Each system's calibration with a temperature of dev, and as Tam et al. (2207.07087) have it; a note on T."""
        qrels = self.collection.qrels(self.split)
        temperatures, note = self._temperatures(set(qrels))
        source = "T fitted on dev" if temperatures else "T 1, not fitted"
        found, theirs = [], []
        for system, run in runs.items():
            temperature = temperatures.get(system, 1.0)
            # Several relevant hits share a query's certainty; each counts its share, or none could be calibrated.
            own = calibrate(run, qrels, temperature=temperature, k=_K, bins=_BINS, several="share")
            head = {"domain": f"{self.collection.id} ({source}, {_K} hits)", "system": system, "definition": "fitted"}
            found.append({**head, **own.as_dict(), "fitted": bool(temperatures)})
            tam = calibrate(run, qrels, k=_TAM_K, bins=_BINS, several="each").as_dict()
            kept = ("temperature", "k", "bins", "several", "queries", "unanswered", "hits", "nll", "brier")
            place = f"{self.collection.id} (as PT-Retrieval: T 1, {_TAM_K} hits)"
            head = {"domain": place, "system": system, "definition": "pt-retrieval"}
            curve = {"ece": tam["ece_equal_width"], "curve": tam["curve_equal_width"]}
            theirs.append({**head, **{name: tam[name] for name in kept}, **curve, "fitted": False})
        return found + theirs, f"{note}; bins of equal count, as PT-Retrieval of equal width"

    def _temperatures(self, judged: set[str]) -> tuple[dict[str, float], str]:
        """Each system's temperature by the dev split, and a note; none where there is no dev split apart from this."""
        collection = self.collection
        if self.split == "dev" or "dev" not in collection.splits:
            why = "dev is the split explained" if self.split == "dev" else f"{collection.id} has no dev split"
            return {}, f"temperature 1, not fitted: {why}"
        qrels = collection.qrels("dev")
        if both := judged & qrels.keys():
            return {}, f"temperature 1, not fitted: {len(both)} dev queries are in {self.split}, too"
        asked = judged_queries(collection, "dev")
        try:
            runs = self.runs(asked, _K)
            fitted = {system: fit_temperature(run, qrels, _K, several="share") for system, run in runs.items()}
        except ForewordError as error:
            return {}, f"temperature 1, not fitted on dev: {error}"
        also = ", which chose or trained the prompt, too" if self.candidate.has_used(collection.id, "dev") else ""
        return fitted, f"temperatures fitted on the {len(asked)} queries of dev{also}"

    def ask(self, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The reader's own query: both systems' hits, and its words by the first hit with the prompt."""
        query, collection = Query("your own", text), self.collection
        before, after = (search(self.encoder, collection, [text], k=_OWN_HITS, **side)[0] for side in self.sides())
        pair = SearchPair(collection.id, query, (), tuple(before), tuple(after), (None, None), self.systems)
        told = {**pair.as_dict(), "collection": f"{collection.id}: your own query"}
        return told, self._words_of(query, after[0].document, relevant=None, change=None)

    def _pair_words(self, pair: SearchPair, runs: Mapping[str, Run]) -> dict[str, Any]:
        """The words of a query that was won or lost, by the relevant document that the better system ranks first."""
        gain = pair.gain or 0.0
        hits = runs[self.name if gain > 0 else BASE][pair.query.query_id]
        relevant, here = {doc.doc_id: doc for doc in pair.relevant}, set(self.views.doc_ids)
        known = [doc_id for doc_id, _ in ranked(hits) if doc_id in relevant] + [doc for doc in relevant if doc in here]
        return self._words_of(pair.query, relevant[known[0]], relevant=True, change=gain)

    def _words_of(self, query: Query, doc: Document, *, relevant: bool | None, change: float | None) -> dict[str, Any]:
        """What each word of a query does to a document's margin, by both systems: a record of the report."""
        # Where queries are documents, the query itself is never a hit, so it is no rival either.
        views = self.views.without(query.query_id) if self.collection.exclude_self else self.views
        found = token_influence(self.encoder, query.text, views, doc.doc_id, **self.how).as_dict()
        return {
            **found,
            "words": list(found["words"]),
            "query_id": query.query_id,
            "collection": self.collection.id,
            "systems": list(self.systems),
            "document": doc.name,
            "text": " ".join(doc.text.split())[:_LENGTH],
            "relevant": relevant,
            "change": change,
        }

    def acts(self, queries: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Where a prompt acts and the words that an input prompt lies near; a note on what this one has not."""
        prompts, strength, near = self.prompts(), [], []
        of = [prompt.kind for prompt in prompts.values()]
        kinds = {kind.name for kind in of}
        notes = {}
        named = " and ".join(sorted(kinds))
        said = f"this prompt is of kind {named}" if kinds else "this mixture is the base model alone"
        if of and all(kind.mixes for kind in of):
            step = max(1, len(self.views.doc_ids) // _SAMPLE)
            documents = [doc.content for place, doc in enumerate(self.collection.documents()) if place % step == 0]
            texts = (list(queries)[:_SAMPLE], documents[:_SAMPLE])
            for found in prompt_strengths(self.encoder, *texts, route=self.views.route, **self.how):
                row, column = divmod(int(found.strength.argmax()), len(found.places))
                # Where it acts most: layers from the bottom, from 1.
                most = {"layer": found.layers[row] + 1, "place": found.places[column]}
                most |= {"strength": round(float(found.strength[row, column]), 6)}
                strength.append({**found.as_dict(self.name), "most": most})
        else:
            notes["strength"] = f"none to show: {said}, and only memory and gated prompts add to what a layer gives"
        if of and all(kind.among_words for kind in of):
            stored = {name: StoredPrompt(prompt, {"domain": name}) for name, prompt in prompts.items()}
            near = bank_words(self.encoder, stored).records
        else:
            notes["words"] = (
                f"none to show: {said}, and only input prompts have vectors that words can be compared with"
            )
        return {"strength": strength, "words": near}, notes


def _told(pair: SearchPair, measure: str) -> dict[str, Any]:
    """A search as a record of the report, with what it gained beside the collection's name."""
    gain, ranks = pair.gain or 0.0, [str(rank) if rank else "none" for rank in pair.ranks]
    sign = "+" if gain > 0 else "−"
    what = f"{measure} {sign}{abs(gain):.3f}, first relevant document at rank {' → '.join(ranks)}"
    return {**pair.as_dict(), "collection": f"{pair.collection}: {what}"}
