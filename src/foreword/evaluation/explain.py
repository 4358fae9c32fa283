"""What a prompt does on a collection, beside the base model, for a person to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.collections.records import Collection, Query
from foreword.common.errors import DataError, ForewordError
from foreword.evaluation.candidates import Candidate, bare, carrying, read_candidate
from foreword.evaluation.evaluate import judged_queries
from foreword.evaluation.explain_parts import BASE, Scene, acts, ask, calibrations, pair_words
from foreword.evaluation.influence import embed_views
from foreword.evaluation.measures import DEFAULT_MEASURES, depth, evaluate_run, first_relevant_ranks
from foreword.evaluation.searches import SearchPair, WinsAndLosses, wins_and_losses
from foreword.evaluation.seen import seen
from foreword.evaluation.significance import paired_randomization
from foreword.prompts.encoder import Precision, transformer_of
from foreword.prompts.mixture import SOURCES, is_mixture
from foreword.prompts.store import describe_backbone, library_versions, read_card

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

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
