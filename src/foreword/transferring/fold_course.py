"""How one prompt learns to give a mixture's embeddings, and how near it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax
from transformers import get_linear_schedule_with_warmup

from foreword.common.progress import track
from foreword.prompts.encoder import Precision, autocast, encode, routed
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Route
from foreword.prompts.spec import Side
from foreword.prompts.store import DTYPES
from foreword.retrieval.dense import exact_search
from foreword.transferring.fit import FitConfig, batches_of, embed_batch
from foreword.transferring.similarity import unit_rows

Vectors = np.ndarray[Any, np.dtype[np.float32]]

DEPTH = 10
"""How many of the best documents of teacher and student are compared."""

LEAST_GAIN = 1e-6
"""In mean cosine; below it is rounding, and the earlier values are kept."""


@dataclass(frozen=True)
class Lesson:
    """The texts of one side, with the teacher's embeddings (N, d').

    Attributes:
        side: of the texts.
        trained: the student learns them; else it gives the teacher's embeddings already.
        length: tokens a text is cut to.
        texts: to learn on.
        vectors: of these; empty where nothing looks at them.
        held: held-out texts.
        held_vectors: of these.
    """

    side: Side
    trained: bool
    length: int
    texts: Sequence[str]
    vectors: Tensor
    held: Sequence[str]
    held_vectors: Vectors


@dataclass(frozen=True)
class Course:
    """What came of it: the best values, rounded as they will be stored, and the figures on the way."""

    best: Prompt
    metrics: Mapping[str, Any]


def lesson(
    encoder: SentenceTransformer,
    route: Route,
    side: Side,
    texts: Sequence[str],
    held: Sequence[str],
    *,
    trained: bool,
    used: bool,
    length: int,
    precision: Precision,
    quiet: bool,
) -> Lesson:
    """One side's lesson, its texts embedded by the teacher, once.

    Args:
        encoder: carrying the teacher's prompts.
        route: the teacher.
        side: of the texts.
        texts: to learn on.
        held: held-out texts.
        trained: see `Lesson`.
        used: the vectors of the texts to learn on are looked at.
        length: see `Lesson`.
        precision: of the forward passes.
        quiet: no progress bar.
    """
    learnt, checked = (
        encode(
            encoder, some, side, route=route, precision=precision, max_length=length,
            what=f"embedding the mixture's {side} texts", quiet=quiet,
        )
        for some in (texts if used else [], held)
    )  # fmt: skip
    return Lesson(side, trained, length, texts, torch.from_numpy(learnt).to(encoder.device), held, checked)


def nearness(
    encoder: SentenceTransformer, route: Route, lessons: Sequence[Lesson], precision: Precision
) -> dict[str, float]:
    """How near `route` comes to the teacher on held-out texts.

    Returns:
        The mean cosine by side, and `top_10`: the mean share of the teacher's ten best held-out documents of a
        pseudo-query (fewer where there are fewer) that are among the ten best by `route`.
    """
    found: dict[str, float] = {}
    ours: dict[str, Vectors] = {}
    for one in lessons:
        ours[one.side] = encode(
            encoder, one.held, one.side, route=route, precision=precision, max_length=one.length, quiet=True
        )
        cosines = (unit_rows(ours[one.side]) * unit_rows(one.held_vectors)).sum(axis=1)
        found[one.side] = round(float(cosines.mean()), 6)
    theirs = {one.side: one.held_vectors for one in lessons}
    best, wanted = (_best(vectors["query"], vectors["document"]) for vectors in (ours, theirs))
    shares = [len(best[name] & hits) / len(hits) for name, hits in wanted.items()]
    return {**found, f"top_{DEPTH}": round(float(np.mean(shares)), 6)}


def _best(queries: Vectors, documents: Vectors) -> dict[str, set[str]]:
    """The numbers of the best documents of each query."""
    query_ids, document_ids = ([str(number) for number in range(len(rows))] for rows in (queries, documents))
    run = exact_search(queries, query_ids, documents, DEPTH, document_ids=document_ids)
    return {query_id: set(hits) for query_id, hits in run.items()}


def learn(
    encoder: SentenceTransformer,
    route: str,
    student: Prompt,
    lessons: Sequence[Lesson],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    warmup: float,
    divergence: float,
    temperature: float,
    evaluate_every: int,
    dtype: str,
    precision: Precision,
    seed: int,
    quiet: bool,
) -> Course:
    """Train the parts of `student` that encode the trained lessons; see `FoldConfig` for the settings.

    Args:
        encoder: carrying the student.
        route: the student's name there.
        student: changed in place.
        lessons: of the queries and the documents, in this order.
        steps, batch_size, learning_rate, warmup, divergence, temperature, evaluate_every, dtype, precision, seed: see
            `FoldConfig`; `dtype` is given.
        quiet: no progress bar.
    """
    trained = [one for one in lessons if one.trained]
    parameters = [parameter for one in trained for parameter in (student.part(one.side) or {}).values()]
    optimizer = torch.optim.Adam(list(dict.fromkeys(parameters)), lr=learning_rate)  # shared parts come twice
    schedule = get_linear_schedule_with_warmup(optimizer, round(warmup * steps), steps)
    order = FitConfig(steps=steps, batch_size=max(1, batch_size // len(trained)), seed=seed)
    batches = zip(*(batches_of(len(one.texts), order) for one in lessons), strict=True)
    looks = _Looks(encoder, route, student, lessons, dtype, precision)
    looks.look(0)
    losses: list[float] = []
    encoder.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    for step, batch in enumerate(track(batches, "folding", steps, quiet=quiet), start=1):
        with routed(encoder, route), autocast(precision, encoder.device):
            ours = [
                embed_batch(encoder, [one.texts[i] for i in chosen], one.side, one.length) if one.trained else None
                for one, chosen in zip(lessons, batch, strict=True)
            ]
        pairs = [
            (made, one.vectors[chosen])
            for one, chosen, made in zip(lessons, batch, ours, strict=True)
            if one.vectors.numel()
        ]
        loss = torch.stack([distance(made, given) for made, given in pairs if made is not None]).mean()
        if divergence:
            (queries, wanted), (documents, known) = pairs
            own = known if documents is None else documents
            assert queries is not None  # queries are always learnt
            loss = loss + divergence * score_divergence(queries @ own.T, wanted @ known.T, temperature)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(round(float(loss.detach()), 6))
        if step == steps or (evaluate_every and step % evaluate_every == 0):
            looks.look(step)
    base = nearness(encoder, None, lessons, precision)
    return Course(Prompt(student.spec, looks.best), {"base": base, **looks.figures(), "loss": losses})


def distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean of `|s - t|^2 / (2 |t|^2)` over rows s of `ours` and t of `theirs`, (B, d') each.

    For unit vectors it is 1 - cosine; where lengths count in the scores, they are learnt too.
    """
    norms = theirs.square().sum(dim=1).clamp(min=torch.finfo(theirs.dtype).tiny)
    return ((ours - theirs).square().sum(dim=1) / (2 * norms)).mean()


def score_divergence(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of the softmax over each row of scores (B, C), the mean over rows."""
    logs = (log_softmax(scores / temperature, dim=1) for scores in (ours, theirs))
    own, wanted = logs
    return kl_div(own, wanted, reduction="batchmean", log_target=True)


class _Looks:
    """Compares the student, rounded as it will be stored, with its teacher now and then, and keeps the best."""

    def __init__(
        self,
        encoder: SentenceTransformer,
        route: str,
        student: Prompt,
        lessons: Sequence[Lesson],
        dtype: str,
        precision: Precision,
    ) -> None:
        self.encoder, self.route, self.student, self.lessons = encoder, route, student, lessons
        self.dtype, self.precision = DTYPES[dtype], precision
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self.best_place = 0

    def look(self, step: int) -> None:
        """Measure the student as it is after `step` steps."""
        rounded = self.student.rounded(self.dtype).tensors()
        exact = {name: tensor.clone() for name, tensor in self.student.tensors().items()}
        self.student.assign(rounded)
        try:
            found = nearness(self.encoder, self.route, self.lessons, self.precision)
        finally:
            self.student.assign(exact)
        self.history.append({"step": step, **found})
        if not self.best or self._score(found) > self._score(self.history[self.best_place]) + LEAST_GAIN:
            self.best, self.best_place = rounded, len(self.history) - 1

    def _score(self, found: Mapping[str, Any]) -> float:
        return float(np.mean([found[one.side] for one in self.lessons if one.trained]))

    def figures(self) -> dict[str, Any]:
        """The record: `before`, `after`, the best step and all looks."""
        before, after = ({k: v for k, v in self.history[i].items() if k != "step"} for i in (0, self.best_place))
        best_step = self.history[self.best_place]["step"]
        return {"before": before, "after": after, "best_step": best_step, "held_out": self.history}
