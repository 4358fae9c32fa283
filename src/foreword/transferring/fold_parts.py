"""What a folding is made of: the texts it learns on, and the one prompt that a mixture is to become."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from foreword.collections.pseudo import pseudo_pairs
from foreword.collections.records import Collection, Document
from foreword.collections.resplit import held_out, position
from foreword.common.errors import DataError, PromptError
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import OneRoute, Route, Routes, Weight, common_spec, layer_weights, route_of_side
from foreword.prompts.spec import PromptSpec, Side
from foreword.prompts.store import StoredPrompt, trained_on
from foreword.transferring.combine import average_prompts, start_of

METHODS = ("auto", "span")
"""The pseudo-queries of a document: its title or first sentence, and a random span."""


# -- texts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """Texts of a domain, by side: pseudo-queries and whole documents."""

    query: tuple[str, ...]
    document: tuple[str, ...]

    def of(self, side: Side) -> tuple[str, ...]:
        """Those of one side."""
        return self.query if side == "query" else self.document

    @classmethod
    def made_of(cls, documents: Iterable[Document], seed: int) -> Texts:
        """The documents and their pseudo-queries, each text once, in order."""
        kept = list(documents)
        pairs = [pair for method in METHODS for pair in pseudo_pairs(kept, method, seed)]
        queries = dict.fromkeys(pair.query for pair in pairs)
        return cls(tuple(queries), tuple(dict.fromkeys(document.content for document in kept)))


def texts_of(target: Collection, *, most: int, share: float, seed: int) -> tuple[Texts, Texts]:
    """Texts to learn on and held-out texts, of different documents; copies of a document stay together.

    Args:
        target: only its documents are read.
        most: documents at most; of a larger corpus a seeded sample, which its order does not change.
        share: of them, held out.
        seed: of the sample, the division and the spans.

    Raises:
        DataError: too few documents, or they give no pseudo-queries.
    """
    places = ((position(document.doc_id, "fold", seed), document.doc_id, document) for document in target.documents())
    chosen = [document for _, _, document in heapq.nsmallest(most, places, key=lambda item: item[:2])]
    by_text = {document.doc_id: position(document.content, "held out", seed) for document in chosen}
    held = held_out(by_text, share, f"{target.id}, documents to fold a mixture on")
    learnt = Texts.made_of((document for document in chosen if document.doc_id not in held), seed)
    checked = Texts.made_of((document for document in chosen if document.doc_id in held), seed)
    if not learnt.query or not checked.query:
        raise DataError(
            f"{target.id}: {len(chosen)} documents gave {len(learnt.query)} pseudo-queries to learn on and "
            f"{len(checked.query)} held-out ones; folding needs more text (at least a few dozen documents)"
        )
    return learnt, checked


# -- the prompt ----------------------------------------------------------------------------------------------------


def names_of(route: OneRoute) -> list[str]:
    """The prompts on a route of one side."""
    return [route] if isinstance(route, str) else list(route or {})


def weights_of(route: OneRoute) -> Mapping[str, Weight]:
    """A route of one side as weights; one prompt alone has 1."""
    return {route: 1.0} if isinstance(route, str) else route or {}


@dataclass(frozen=True)
class Form:
    """The prompt that a route becomes.

    Attributes:
        spec: its structure.
        trained: the sides whose texts it learns on.
        kept: the source whose document part it keeps as it is; None: it has one of its own, or none.
    """

    spec: PromptSpec
    trained: tuple[Side, ...]
    kept: str | None = None


def form_of(route: Route, sources: Mapping[str, StoredPrompt]) -> Form:
    """Which one prompt can say what a route says.

    Raises:
        PromptError: queries are the base model's, or the prompts are not gated or differ in structure.
    """
    query, document = route_of_side(route, "query"), route_of_side(route, "document")
    if not names_of(query):
        raise PromptError("the base model encodes queries on this route; there is nothing to fold")
    spec = common_spec([sources[name].prompt for name in names_of(query)])
    if spec.kind != "gated":
        raise PromptError(f"only mixtures of gated prompts are folded; these are of kind {spec.kind!r}")
    if not isinstance(route, Routes):
        return Form(spec, ("query",) if spec.sides == "query" else ("query", "document"))
    if not names_of(document):
        return Form(replace(spec, sides="query"), ("query",))
    other = common_spec([sources[name].prompt for name in names_of(document)])
    if other.part_for("document") is None:
        return Form(replace(spec, sides="query"), ("query",))
    if replace(other, sides=spec.sides) != spec:
        raise PromptError(f"one prompt cannot hold both: queries are encoded by {spec}, documents by {other}")
    untied = replace(spec, sides="untied")
    return Form(untied, ("query",), document) if isinstance(document, str) else Form(untied, ("query", "document"))


def student_of(form: Form, start: Prompt, sources: Mapping[str, StoredPrompt]) -> Prompt:
    """A new prompt of this form, with the values of `start`.

    Raises:
        PromptError: `start` has another structure, or lacks a side.
    """
    if replace(start.spec, sides=form.spec.sides) != form.spec:
        raise PromptError(f"folding starts from a prompt of the mixture's structure, {form.spec}; got {start.spec}")
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
    """Where folding starts unless it is told: a name for it, and the prompt.

    It is the weighted average of the sources' parameters where all come from one start, else the source of the
    greatest weight. The gates are times the sum of the weights, so that a single source is folded from the start.
    """
    weights = weights_of(route_of_side(route, "query"))
    names = list(weights)
    by_layer = layer_weights(weights, _layers(sources[names[0]])).detach().cpu()  # (L or 1, S)
    means = dict(zip(names, by_layer.mean(dim=0).tolist(), strict=True))
    one_start = len({start_of(sources[name]) for name in names}) == 1
    if len(names) > 1 and one_start and min(means.values()) >= 0 and max(means.values()) > 0:
        name, prompt = f"average of {', '.join(names)}", average_prompts(sources, means)
    else:
        name = max(names, key=lambda one: abs(means[one]))
        prompt = sources[name].prompt
    total = by_layer.sum(dim=1, keepdim=True)  # (L or 1, 1), against gates (L, H)
    tensors = {key: t * total.to(t.device) if key.endswith(".gate") else t for key, t in prompt.tensors().items()}
    return name, Prompt(prompt.spec, tensors)


def _layers(stored: StoredPrompt) -> int:
    """How many layers a gated prompt stands in."""
    return next(tensor.shape[0] for name, tensor in stored.prompt.tensors().items() if name.endswith(".gate"))


# -- where it comes from -------------------------------------------------------------------------------------------


def ancestry(prompts: Iterable[StoredPrompt]) -> dict[str, str]:
    """`collection -> supervision` of all that these prompts were trained on; labels come before pseudo-queries."""
    found: dict[str, str] = {}
    for stored in prompts:
        for name, method in trained_on(stored.card).items():
            if found.get(name, "pseudo-queries") == "pseudo-queries":
                found[name] = method
    return dict(sorted(found.items()))


def chosen_by_dev(prompts: Iterable[StoredPrompt]) -> bool:
    """Whether the best step of one of these prompts was chosen by a dev split."""
    histories: Iterable[Any] = ((stored.card.get("metrics") or {}).get("dev", ()) for stored in prompts)
    return any(entry.get("dev") is not None for history in histories for entry in history)
