"""Fold a mixture back into one prompt of the usual size, so that it costs nothing more at query time.

The mixture is the teacher: one prompt learns to give its embeddings, on the target's own documents and pseudo-queries
(distillation, Hinton et al. 2015; of embeddings as in Reimers and Gurevych, 2004.09813). No label is read.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from sentence_transformers import SentenceTransformer

from foreword.collections.pseudo_view import METHOD as PSEUDO_QUERIES
from foreword.collections.records import Collection, fingerprint
from foreword.collections.unlabelled import Unlabelled
from foreword.common.errors import ForewordError, PromptError
from foreword.prompts.encoder import Precision, resolve_precision, state_digest, transformer_of
from foreword.prompts.mixture import SOURCES, is_mixture
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Route, route_as_json, route_of_side
from foreword.prompts.spec import Side
from foreword.prompts.store import DTYPES, StoredPrompt, load_prompt, save_prompt
from foreword.training.config import TrainingConfig
from foreword.training.identity import text_settings
from foreword.transferring.fold_course import Course, learn, lesson
from foreword.transferring.fold_parts import (
    METHODS,
    Form,
    Texts,
    ancestry,
    chosen_by_dev,
    form_of,
    names_of,
    start_from,
    student_of,
    texts_of,
)

SIDES: tuple[Side, ...] = ("query", "document")

STUDENT = "(in folding)"
"""The name under which the encoder carries the prompt while it learns."""


@dataclass(frozen=True)
class FoldConfig:
    """How a mixture is folded into one prompt.

    Attributes:
        steps: optimizer steps.
        batch_size: texts in a step, at least 2; where documents are learnt too, half of them are documents.
        learning_rate: at its peak (Adam).
        warmup: share of the steps in which the rate rises; it falls linearly to 0 in the others.
        divergence: weight of the second loss, KL(teacher || student) between the softmaxes of a pseudo-query's
            scores for the documents of the batch; 0: none.
        temperature: of those softmaxes.
        query_length: tokens a pseudo-query is cut to.
        document_length: tokens a document is cut to.
        most: documents learnt on and held out, at most; of more, a seeded sample.
        held_out: share of them on which the student is compared with its teacher.
        evaluate_every: steps between these comparisons, the best of which is kept; 0: only at the start and the end.
        dtype: the precision that the prompt is stored in; None: that of the source whose document part it keeps, so
            that it keeps it exactly, or else float16.
        precision: of the forward passes.
        seed: of the sample, the spans and the order.
    """

    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 0.01
    warmup: float = 0.1
    divergence: float = 0.0
    temperature: float = 0.05
    query_length: int = 64
    document_length: int = 128
    most: int = 2000
    held_out: float = 0.2
    evaluate_every: int = 50
    dtype: str | None = None
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 2), ("most", 2), ("evaluate_every", 0), ("divergence", 0)):
            if getattr(self, name) < least:
                raise ForewordError(f"{name} is {getattr(self, name)}; it is at least {least}")
        for name in ("query_length", "document_length"):
            if getattr(self, name) < 3:
                raise ForewordError(f"{name} is {getattr(self, name)}; a text has at least 3 tokens")
        if not (self.learning_rate > 0 and self.temperature > 0):
            raise ForewordError(f"learning_rate {self.learning_rate}, temperature {self.temperature}: both are above 0")
        if not (0 <= self.warmup < 1 and 0 < self.held_out < 1):
            raise ForewordError(f"warmup {self.warmup}, held_out {self.held_out}: shares below 1, the second above 0")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ForewordError(f"dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        if self.precision not in get_args(Precision):
            raise ForewordError(f"precision is {self.precision!r}; expected one of {', '.join(get_args(Precision))}")

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)

    def length(self, side: Side) -> int:
        """Tokens a text of this side is cut to."""
        return self.query_length if side == "query" else self.document_length


def fold(
    encoder: SentenceTransformer,
    target: Collection,
    route: Route,
    output: str | Path,
    *,
    sources: Mapping[str, StoredPrompt],
    start: StoredPrompt | None = None,
    config: FoldConfig | None = None,
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
        config: the settings; None: the defaults.
        domain: the prompt's name; None: the target's id.
        record: further entries of `prompt.json`.
        quiet: no progress bar.

    Returns:
        The prompt as stored. Its card's `metrics` have, on held-out texts and for the base model, the start
        (`before`) and the result (`after`): the mean cosine to the mixture's embeddings by side, and the share of
        the mixture's ten best documents that are among its own.

    Raises:
        PromptError: a route or a start that cannot be folded, or `sources` that are not those carried.
        DataError: the target has too little text.
    """
    config = config or FoldConfig()
    began = time.time()
    sources = _on_route(encoder, route, sources)
    form = form_of(route, sources)
    name, first = (start.domain, start.prompt) if start is not None else start_from(route, sources)
    student = student_of(form, first, sources)
    start_digest, dtype = student.digest(), config.dtype or _stored_dtype(form, sources)
    texts = texts_of(Unlabelled(target), most=config.most, share=config.held_out, seed=config.seed)
    backbone = state_digest(encoder)
    with _carried(encoder, student):
        course = _course(encoder, route, form, student, texts, config, dtype, quiet)
    if state_digest(encoder) != backbone:
        raise ForewordError("the backbone changed in folding; this is a bug, please report it")
    relatives = [*sources.values(), *([start] if start is not None else [])]
    card = {
        "start": {
            "from": name,
            "prompt": first.spec.as_dict(),
            "digest": first.digest(),
            "trained_on": ancestry(relatives),
        },
        "start_digest": start_digest,
        "folded": {
            "route": route_as_json(route),
            "sources": {source: stored.prompt.digest() for source, stored in sources.items()},
            "chosen_by_dev": chosen_by_dev(relatives),
        },
        "metrics": course.metrics,
        **_provenance(encoder, target, form, texts, ancestry(relatives), config),
        **(record or {}),
    }
    run = {"seconds": round(time.time() - began, 2)}
    if is_mixture(output) and (Path(output) / SOURCES).exists():  # the mixture's copies go with it
        shutil.rmtree(Path(output) / SOURCES)
    save_prompt(output, course.best, encoder, domain or target.id, dtype=dtype, record=card, run=run)
    return load_prompt(output, encoder)


def _on_route(
    encoder: SentenceTransformer, route: Route, sources: Mapping[str, StoredPrompt]
) -> dict[str, StoredPrompt]:
    """The sources that the route names. Raises `PromptError` when one is missing, or not the one carried."""
    names = dict.fromkeys(name for side in SIDES for name in names_of(route_of_side(route, side)))
    missing = [name for name in names if name not in sources]
    if missing:
        raise PromptError(f"the route names {', '.join(missing)}; the sources given are {', '.join(sources) or 'none'}")
    transformer = transformer_of(encoder)
    other = [name for name in names if transformer.prompt(name).digest() != sources[name].prompt.digest()]
    if other:
        raise PromptError(f"{', '.join(other)}: the encoder carries another prompt of this name than the source given")
    return {name: sources[name] for name in names}


def _stored_dtype(form: Form, sources: Mapping[str, StoredPrompt]) -> str:
    """What the result is stored in: exact for a part that is kept."""
    return "float16" if form.kept is None else str(sources[form.kept].card.get("dtype", "float32"))


@contextmanager
def _carried(encoder: SentenceTransformer, student: Prompt) -> Iterator[None]:
    """Within the block the encoder carries the student too; afterwards it is as it was, with nothing to train."""
    transformer = transformer_of(encoder)
    transformer.add(STUDENT, student)
    encoder.eval()
    try:
        yield
    finally:
        transformer.remove(STUDENT)
        encoder.requires_grad_(False)


def _course(
    encoder: SentenceTransformer,
    route: Route,
    form: Form,
    student: Prompt,
    texts: Sequence[Texts],
    config: FoldConfig,
    dtype: str,
    quiet: bool,
) -> Course:
    learnt, held = texts
    lessons = [
        lesson(
            encoder, route, side, learnt.of(side), held.of(side),
            trained=side in form.trained, used=side in form.trained or config.divergence > 0,
            length=config.length(side), precision=config.precision, quiet=quiet,
        )
        for side in SIDES
    ]  # fmt: skip
    return learn(
        encoder, STUDENT, student, lessons,
        steps=config.steps, batch_size=config.batch_size, learning_rate=config.learning_rate, warmup=config.warmup,
        divergence=config.divergence, temperature=config.temperature, evaluate_every=config.evaluate_every,
        dtype=dtype, precision=config.precision, seed=config.seed, quiet=quiet,
    )  # fmt: skip


def _provenance(
    encoder: SentenceTransformer,
    target: Collection,
    form: Form,
    texts: Sequence[Texts],
    ancestors: Mapping[str, str],
    config: FoldConfig,
) -> dict[str, Any]:
    """What it was trained on and how, as the cards of trained prompts say it.

    The target counts as supervised by pseudo-queries, unless a source had learnt from its labels.
    """
    learnt, held = texts
    counts = {f"{side}_texts": len(learnt.of(side)) for side in SIDES}
    lengths = TrainingConfig(query_length=config.query_length, document_length=config.document_length)
    return {
        "training": {
            **config.as_dict(),
            "method": "fold",
            "side": "both" if len(form.trained) == len(SIDES) else "query",
            "precision": resolve_precision(config.precision, encoder.device),
            "device": encoder.device.type,
        },
        "supervision": {
            "method": ancestors.get(target.id, PSEUDO_QUERIES),
            "train_queries": len(learnt.query),
            "dev_queries": len(held.query),
            "seed": config.seed,
            "made_by": list(METHODS),
            "reported": [split for split in target.splits if split != "train"],
        },
        "data": {target.id: {"collection": fingerprint(target, []), **counts}},
        "text": text_settings(encoder, lengths, [target]),
    }
