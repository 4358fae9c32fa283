"""Distil a mixture into one prompt of the usual size, so that it costs nothing more at query time.

The mixture is the teacher: one prompt learns to give its embeddings, on the target's own documents and pseudo-queries
(distillation, Hinton et al. 2015; of embeddings as in Reimers and Gurevych, 2004.09813). No label is read.
"""

from __future__ import annotations

import heapq
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import get_linear_schedule_with_warmup

from foreword.collections.collection import Collection, Document, fingerprint
from foreword.collections.pseudo import pseudo_pairs
from foreword.collections.supervision import PSEUDO_METHOD, held_out, position
from foreword.collections.views import Unlabelled
from foreword.errors import DataError, ForewordError, PromptError
from foreword.evaluation.candidates import chosen_by_dev
from foreword.files import owns
from foreword.prompts.encoder import autocast, encode, resolve_precision, routed, state_digest, transformer_of
from foreword.prompts.kinds.kind import kind_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import (
    OneRoute,
    Route,
    Routes,
    Weight,
    common_spec,
    layer_weights,
    route_as_json,
    route_of_side,
)
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import DTYPES, SOURCES, StoredPrompt, is_mixture, load_prompt, save_prompt, trained_on
from foreword.retrieval.search import exact_search
from foreword.settings import SIDES, Precision, Side
from foreword.terminal import track
from foreword.training.train import text_settings
from foreword.transferring.config import DistilConfig
from foreword.transferring.fit import Vectors, batches_of, embed_batch
from foreword.transferring.reach import unit_rows
from foreword.transferring.transfer import average_prompts, start_of

METHODS = ("auto", "span")
"""The pseudo-queries of a document: its title or first sentence, and a random span."""

DEPTH = 10
"""How many of the best documents of teacher and student are compared."""

LEAST_GAIN = 1e-6
"""In mean cosine; below it is rounding, and the earlier values are kept."""

STUDENT = "(in distillation)"
"""The name under which the encoder carries the prompt while it learns."""


@owns("output")
def distil(
    encoder: SentenceTransformer,
    target: Collection,
    route: Route,
    output: str | Path,
    *,
    sources: Mapping[str, StoredPrompt],
    start: StoredPrompt | None = None,
    config: DistilConfig | None = None,
    domain: str | None = None,
    record: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> StoredPrompt:
    """Teach one prompt what a mixture does on the target's texts, and store it.

    Where the route leaves documents to one source (`Routes(query=mixture, document=name)`), the prompt keeps that
    source's document part as it is, and an index built with it goes on working; where it leaves them to the base
    model, so does the prompt.

    Args:
        encoder: carrying the sources under their names; comes back as it was.
        target: the domain whose documents are learnt on; its queries and judgements are not looked at.
        route: the mixture (`Transfer.route`).
        output: the prompt's folder; what it holds is replaced.
        sources: the stored prompts on the route, by the names that it has for them: their cards say what they were
            trained on, and so will the result's.
        start: where the prompt starts; None: the weighted average of the sources' parameters where they have one
            start, else the source of the greatest weight.
        domain: the prompt's name; None: the target's id.
        record: further entries of `prompt.json`.

    Returns:
        The prompt as stored. Its card's `metrics` have, on held-out texts and for the base model, the start
        (`before`) and the result (`after`): the mean cosine to the mixture's embeddings by side, and the share of
        the mixture's ten best documents that are among its own.

    Raises:
        PromptError: a route or a start that cannot be distilled, or `sources` that are not those carried.
        DataError: the target has too little text.
    """
    config = config or DistilConfig()
    began = time.time()
    sources = _on_route(encoder, route, sources)
    form = form_of(route, sources)
    name, first = (start.domain, start.prompt) if start is not None else start_from(route, sources)
    student = student_of(form, first, sources)
    start_digest = student.digest()
    kept = "float16" if form.kept is None else str(sources[form.kept].card.get("dtype", "float32"))
    dtype = config.dtype or kept  # exact for a part that is kept
    learnt, held = texts_of(Unlabelled(target), most=config.most, share=config.held_out, seed=config.seed)
    backbone, transformer = state_digest(encoder), transformer_of(encoder)
    transformer.add(STUDENT, student)
    encoder.eval()
    try:
        lessons = [lesson(encoder, route, side, side in form.trained, (learnt, held), config, quiet) for side in SIDES]
        best, metrics = learn(encoder, student, lessons, config, dtype, quiet)
    finally:
        transformer.remove(STUDENT)
        encoder.requires_grad_(False)
    if state_digest(encoder) != backbone:
        raise ForewordError("the backbone changed in distilling; this is a bug, please report it")
    relatives = [*sources.values(), *([start] if start is not None else [])]
    ancestors = ancestry(relatives)
    card = {
        "start": {"from": name, "prompt": first.spec.as_dict(), "digest": first.digest(), "trained_on": ancestors},
        "start_digest": start_digest,
        "distilled": {
            "route": route_as_json(route),
            "sources": {source: stored.prompt.digest() for source, stored in sources.items()},
            "chosen_by_dev": chosen_by_dev(stored.card for stored in relatives),
        },
        "metrics": metrics,
        "training": {
            **config.as_dict(),
            "method": "distil",
            "side": "both" if len(form.trained) == len(SIDES) else "query",
            "precision": resolve_precision(config.precision, encoder.device),
            "device": encoder.device.type,
        },
        "supervision": {  # by pseudo-queries, unless a source had learnt from the target's labels
            "method": ancestors.get(target.id, PSEUDO_METHOD),
            "train_queries": len(learnt.query),
            "dev_queries": len(held.query),
            "seed": config.seed,
            "made_by": list(METHODS),
            "reported": [split for split in target.splits if split != "train"],
        },
        "data": {
            target.id: {
                "collection": fingerprint(target, []),
                "query_texts": len(learnt.query),
                "document_texts": len(learnt.document),
            }
        },
        "text": text_settings(encoder, config.query_length, config.document_length, [target]),
        **(record or {}),
    }
    run = {"seconds": round(time.time() - began, 2)}
    if is_mixture(output) and (Path(output) / SOURCES).exists():  # the mixture's copies go with it
        shutil.rmtree(Path(output) / SOURCES)
    save_prompt(output, best, encoder, domain or target.id, dtype=dtype, record=card, run=run)
    return load_prompt(output, encoder)


def ancestry(prompts: Iterable[StoredPrompt]) -> dict[str, str]:
    """`collection -> supervision` of all that these prompts were trained on; labels come before pseudo-queries."""
    found: dict[str, str] = {}
    for stored in prompts:
        for name, method in trained_on(stored.card).items():
            if found.get(name, PSEUDO_METHOD) == PSEUDO_METHOD:
                found[name] = method
    return dict(sorted(found.items()))


def _on_route(
    encoder: SentenceTransformer, route: Route, sources: Mapping[str, StoredPrompt]
) -> dict[str, StoredPrompt]:
    """The sources that the route names. Raises `PromptError` when one is missing, or not the one carried."""
    names = dict.fromkeys(name for side in SIDES for name in weights_of(route_of_side(route, side)))
    missing = [name for name in names if name not in sources]
    if missing:
        raise PromptError(f"the route names {', '.join(missing)}; the sources given are {', '.join(sources) or 'none'}")
    transformer = transformer_of(encoder)
    other = [name for name in names if transformer.prompt(name).digest() != sources[name].prompt.digest()]
    if other:
        raise PromptError(f"{', '.join(other)}: the encoder carries another prompt of this name than the source given")
    return {name: sources[name] for name in names}


def weights_of(route: OneRoute) -> Mapping[str, Weight]:
    """A route of one side as weights; one prompt alone has 1."""
    return {route: 1.0} if isinstance(route, str) else route or {}


@dataclass(frozen=True)
class Form:
    """The prompt that a route becomes: its structure, the sides whose texts it learns on, and the source whose document
    part it keeps as it is (None: it has one of its own, or none).
    """

    spec: PromptSpec
    trained: tuple[Side, ...]
    kept: str | None = None


def form_of(route: Route, sources: Mapping[str, StoredPrompt]) -> Form:
    """Which one prompt can say what a route says; `PromptError` where none can."""
    query, document = (weights_of(route_of_side(route, side)) for side in SIDES)
    if not query:
        raise PromptError("the base model encodes queries on this route; there is nothing to distil")
    spec = common_spec([sources[name].prompt for name in query])
    if not kind_of(spec).mixes:
        raise PromptError(f"only mixtures of memory or gated prompts are distilled; these are of kind {spec.kind!r}")
    if not isinstance(route, Routes):
        return Form(spec, ("query",) if spec.sides == "query" else SIDES)
    other = common_spec([sources[name].prompt for name in document]) if document else None
    if other is None or other.part_for("document") is None:
        return Form(replace(spec, sides="query"), ("query",))
    if replace(other, sides=spec.sides) != spec:
        raise PromptError(f"one prompt cannot hold both: queries are encoded by {spec}, documents by {other}")
    untied = replace(spec, sides="untied")
    return Form(untied, ("query",), route.document) if isinstance(route.document, str) else Form(untied, SIDES)


def student_of(form: Form, start: Prompt, sources: Mapping[str, StoredPrompt]) -> Prompt:
    """A new prompt of this form, with the values of `start`; `PromptError` where those do not fit or lack a side."""
    if replace(start.spec, sides=form.spec.sides) != form.spec:
        raise PromptError(f"distilling starts from a prompt of the mixture's structure, {form.spec}; got {start.spec}")
    if form.spec.sides == "shared" and start.spec.sides != "shared":
        raise PromptError(f"the mixture's prompts are shared by both sides; the start's sides are {start.spec.sides!r}")
    tensors: dict[str, Tensor] = {}
    for part in form.spec.parts:
        side: Side = "document" if part == "document" else "query"
        own = sources[form.kept].prompt if side == "document" and form.kept is not None else start
        found = own.part(side)
        if found is None:
            raise PromptError("the mixture encodes documents too, and the prompt to start from does not; take another")
        tensors |= {f"{part}.{name}": tensor for name, tensor in found.items()}
    return Prompt(form.spec, tensors)


def start_from(route: Route, sources: Mapping[str, StoredPrompt]) -> tuple[str, Prompt]:
    """Where distilling starts unless it is told, see `distil`: a name for it, and the prompt.

    What it adds is times the sum of the weights, so that a single source is what it starts from.
    """
    weights = weights_of(route_of_side(route, "query"))
    names = list(weights)
    first = sources[names[0]].prompt
    by_layer = layer_weights(weights, len(first.tensors()[first.linear[0]])).detach().cpu()  # (L or 1, S)
    means = dict(zip(names, by_layer.mean(dim=0).tolist(), strict=True))
    one_start = len({start_of(sources[name]) for name in names}) == 1
    if len(names) > 1 and one_start and min(means.values()) >= 0 and max(means.values()) > 0:
        name, prompt = f"average of {', '.join(names)}", average_prompts(sources, means)
    else:
        name = max(names, key=lambda one: abs(means[one]))
        prompt = sources[name].prompt
    total = by_layer.sum(dim=1)  # (L or 1,)
    tensors = prompt.tensors()
    for key in prompt.linear:  # (L, ...)
        tensors[key] = tensors[key] * total.to(tensors[key].device).view(-1, *[1] * (tensors[key].ndim - 1))
    return name, Prompt(prompt.spec, tensors)


class LearntTexts(NamedTuple):
    """Texts of a domain, by side: pseudo-queries and whole documents, each once."""

    query: tuple[str, ...]
    document: tuple[str, ...]


def texts_of(target: Collection, *, most: int, share: float, seed: int) -> tuple[LearntTexts, LearntTexts]:
    """Texts to learn on and held-out texts (their share is `share`), of different documents.

    Copies of a document stay together. Of a corpus of more than `most` documents a seeded sample is taken, which its
    order does not change. Raises `DataError` when there is too little text.
    """

    def made_of(documents: Sequence[Document]) -> LearntTexts:
        queries = (pair.query for method in METHODS for pair in pseudo_pairs(documents, method, seed))
        return LearntTexts(
            tuple(dict.fromkeys(queries)), tuple(dict.fromkeys(document.content for document in documents))
        )

    places = ((position(document.doc_id, "fold", seed), document.doc_id, document) for document in target.documents())
    chosen = [document for _, _, document in heapq.nsmallest(most, places, key=lambda item: item[:2])]
    by_text = {document.doc_id: position(document.content, "held out", seed) for document in chosen}
    held = held_out(by_text, share, f"{target.id}, documents to distil a mixture on")
    learnt = made_of([document for document in chosen if document.doc_id not in held])
    checked = made_of([document for document in chosen if document.doc_id in held])
    if not learnt.query or not checked.query:
        raise DataError(
            f"{target.id}: {len(chosen)} documents gave {len(learnt.query)} pseudo-queries to learn on and "
            f"{len(checked.query)} held-out ones; distilling needs more text (at least a few dozen documents)"
        )
    return learnt, checked


@dataclass(frozen=True)
class SideLesson:
    """The texts of one side, to learn on and held out, with the teacher's embeddings (N, d').

    Where `trained` is False, the student gives the teacher's embeddings already, and `vectors` is empty.
    """

    side: Side
    trained: bool
    length: int
    texts: Sequence[str]
    vectors: Tensor
    held: Sequence[str]
    held_vectors: Vectors


def lesson(
    encoder: SentenceTransformer,
    route: Route,
    side: Side,
    trained: bool,
    divided: tuple[LearntTexts, LearntTexts],
    config: DistilConfig,
    quiet: bool,
) -> SideLesson:
    """One side's lesson: its texts, those to learn on and those held out, embedded by the teacher `route` once."""
    texts, held = (getattr(each, side) for each in divided)
    learnt, checked = (
        encode(
            encoder, some, side, route=route, precision=config.precision, max_length=config.length(side),
            what=f"embedding the mixture's {side} texts", quiet=quiet,
        )
        for some in (texts if trained else [], held)
    )  # fmt: skip
    vectors = torch.from_numpy(learnt).to(encoder.device)
    return SideLesson(side, trained, config.length(side), texts, vectors, held, checked)


def learn(
    encoder: SentenceTransformer,
    student: Prompt,
    lessons: Sequence[SideLesson],
    config: DistilConfig,
    dtype: str,
    quiet: bool,
) -> tuple[Prompt, dict[str, Any]]:
    """Train the parts of `student`, which the encoder carries as `STUDENT`, that encode the trained lessons.

    `lessons` are those of the queries and the documents, in this order; `dtype` is what the student will be stored
    in. Returns the best values, rounded as they will be stored, and the figures on the way.
    """
    trained = [one for one in lessons if one.trained]
    parameters = [parameter for one in trained for parameter in (student.part(one.side) or {}).values()]
    optimizer = torch.optim.Adam(list(dict.fromkeys(parameters)), lr=config.learning_rate)  # shared parts come twice
    schedule = get_linear_schedule_with_warmup(optimizer, round(config.warmup * config.steps), config.steps)
    size = max(1, config.batch_size // len(trained))
    numbers = (batches_of(len(one.texts), config.steps, size, config.seed) for one in trained)
    batches = (list(zip(trained, chosen, strict=True)) for chosen in zip(*numbers, strict=True))
    looks = _Looks(encoder, student, lessons, DTYPES[dtype], config.precision)
    looks.look(0)
    losses: list[float] = []
    encoder.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    for step, batch in enumerate(track(batches, "distilling", config.steps, quiet=quiet), start=1):
        with routed(encoder, STUDENT), autocast(config.precision, encoder.device):
            ours = [embed_batch(encoder, [one.texts[i] for i in some], one.side, one.length) for one, some in batch]
        far = [distance(made, one.vectors[some]) for made, (one, some) in zip(ours, batch, strict=True)]
        loss = torch.stack(far).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(round(float(loss.detach()), 6))
        if step == config.steps or (config.evaluate_every and step % config.evaluate_every == 0):
            looks.look(step)
    base = nearness(encoder, None, lessons, config.precision)
    figures = {"base": base, "held_out": looks.history, "loss": losses}
    for name, place in (("before", 0), ("after", looks.best_place)):
        figures[name] = {key: value for key, value in looks.history[place].items() if key != "step"}
    return Prompt(student.spec, looks.best), {**figures, "best_step": looks.history[looks.best_place]["step"]}


@dataclass
class _Looks:
    """Compares the student, rounded as it will be stored, with its teacher now and then, and keeps the best."""

    encoder: SentenceTransformer
    student: Prompt
    lessons: Sequence[SideLesson]
    dtype: torch.dtype
    precision: Precision
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_place: int = 0

    def look(self, step: int) -> None:
        """Measure the student as it is after `step` steps."""
        rounded = self.student.rounded(self.dtype).tensors()
        exact = {name: tensor.clone() for name, tensor in self.student.tensors().items()}
        self.student.assign(rounded)
        try:
            found = nearness(self.encoder, STUDENT, self.lessons, self.precision)
        finally:
            self.student.assign(exact)
        self.history.append({"step": step, **found})
        scores = [np.mean([look[one.side] for one in self.lessons if one.trained]) for look in self.history]
        if not self.best or scores[-1] > scores[self.best_place] + LEAST_GAIN:
            self.best, self.best_place = rounded, len(self.history) - 1


def distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean of `|s - t|^2 / (2 |t|^2)` over rows s of `ours` and t of `theirs`, (B, d') each.

    For unit vectors it is 1 - cosine; where lengths count in the scores, they are learnt too.
    """
    norms = theirs.square().sum(dim=1).clamp(min=torch.finfo(theirs.dtype).tiny)
    return ((ours - theirs).square().sum(dim=1) / (2 * norms)).mean()


def nearness(
    encoder: SentenceTransformer, route: Route, lessons: Sequence[SideLesson], precision: Precision
) -> dict[str, float]:
    """How near `route` comes to the teacher on held-out texts: the mean cosine by side, and `top_10`.

    That is the mean share of the teacher's ten best held-out documents of a pseudo-query (fewer where there are fewer)
    that are among the ten best by `route`.
    """
    theirs = {one.side: one.held_vectors for one in lessons}
    ours = {
        one.side: encode(
            encoder, one.held, one.side, route=route, precision=precision, max_length=one.length, quiet=True
        )
        for one in lessons
    }
    found: dict[str, float] = {}
    for side, vectors in ours.items():
        cosines = (unit_rows(vectors) * unit_rows(theirs[side])).sum(axis=1)
        found[side] = round(float(cosines.mean()), 6)
    runs = []
    for by_side in (ours, theirs):
        query_ids, document_ids = ([str(number) for number in range(len(by_side[side]))] for side in SIDES)
        runs.append(exact_search(by_side["query"], query_ids, by_side["document"], DEPTH, document_ids=document_ids))
    best, wanted = runs
    shares = [len(set(best[query_id]) & set(hits)) / len(hits) for query_id, hits in wanted.items()]
    return {**found, f"top_{DEPTH}": round(float(np.mean(shares)), 6)}
