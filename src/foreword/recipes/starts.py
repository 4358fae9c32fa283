"""Where a domain's prompt starts: from the multitask prompt, brought into another form where the settings want one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.common.errors import ForewordError
from foreword.prompts.prompt import Prompt
from foreword.prompts.start import new_prompt
from foreword.prompts.store import StoredPrompt
from foreword.recipes.values import Values

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def starting_prompt(encoder: SentenceTransformer, values: Values, multitask: StoredPrompt | None) -> Prompt:
    """The prompt that training starts from under these settings.

    A multitask prompt of another structure gives its query part to every part wanted (both, where it is untied and
    an untied one is wanted), and its first vectors; what it has too few of are a new prompt's.

    Raises:
        ForewordError: it is of another kind, or encodes no documents and that is wanted.
    """
    new = new_prompt(encoder, values.spec, start=values.beginning().start, seed=values.seed)
    if multitask is None:
        return new
    old = multitask.prompt
    if old.spec == values.spec:
        return Prompt(old.spec, old.tensors())
    if old.spec.kind != values.kind:
        raise ForewordError(f"the multitask prompt is of kind {old.spec.kind}, and {values.kind} is wanted; train anew")
    tensors, known = new.tensors(), old.tensors()
    axis = 0 if values.kind == "input" else 1  # of the vectors
    for name, tensor in tensors.items():
        part, _, what = name.partition(".")
        origin = known[f"{_part_of(old, part)}.{what}"]
        if what == "gate":
            tensor.copy_(origin)
        else:
            count = min(origin.shape[axis], tensor.shape[axis])
            tensor.narrow(axis, 0, count).copy_(origin.narrow(axis, 0, count))
    return Prompt(values.spec, tensors)


def _part_of(old: Prompt, part: str) -> str:
    """The part of the old prompt that a part of the new one is made of."""
    side = old.spec.part_for("document" if part == "document" else "query")
    if side is None:
        raise ForewordError("the multitask prompt does not encode documents, and the prompt wanted does; train anew")
    return side
