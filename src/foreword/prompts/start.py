"""Where a prompt starts: words, text, noise, the first ids of the vocabulary or another prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from foreword.errors import PromptError
from foreword.prompts.encoder import transformer_of
from foreword.prompts.kinds.kind import Carrier, kind_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec, Start


def new_prompt(
    encoder: SentenceTransformer,
    spec: PromptSpec,
    *,
    start: Start = "words",
    texts: Sequence[str] = (),
    seed: int = 0,
) -> Prompt:
    """A prompt to train from; equal arguments give equal values.

    Args:
        encoder: its backbone gives the shapes and, for words and text, the values.
        spec: the prompt's structure.
        start: `words`, random words of the vocabulary; `text`, the beginning of `texts`; `first-ids`, the ids 0 to
            n - 1, mostly placeholders, as OpenDelta starts (to compare with it): these are embedded (`input`) or
            run through the backbone, whose keys and values they become (in the layers; feed-forward keys are noise
            all the same); `noise`, normal with the standard deviation of the word embeddings (`input`), 2 / sqrt(d)
            (feed-forward keys) or .02.
            Tensors that the prompt is linear in are 0.
        texts: for `text`.
        seed: of the choice of words, or of the noise.

    Raises:
        PromptError: an unknown start, `texts` too short, or fewer ids than vectors.
        BackboneError: the backbone cannot carry this kind.
    """
    carrier: Carrier = transformer_of(encoder)
    if start not in get_args(Start):
        raise PromptError(
            f"start is {start!r}; expected one of {', '.join(get_args(Start))}, or a prompt to start from"
        )
    kind = kind_of(spec)
    kind.check_backbone(spec, carrier)
    shapes = kind.shapes(spec, carrier.shape)
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: torch.randn(size, generator=generator) * kind.noise(carrier, name)
        for name, size in sorted(shapes.items())
    }
    if start != "noise":
        values |= kind.from_tokens(spec, carrier, _token_ids(carrier, start, texts, spec.length, seed))
    values |= {name: torch.zeros(shapes[name]) for name in kind.linear if name in shapes}
    return Prompt(
        spec, {f"{part}.{name}": value.float().cpu() for part in spec.parts for name, value in values.items()}
    )


def _token_ids(carrier: Carrier, start: Start, texts: Sequence[str], count: int, seed: int) -> Tensor:
    """The `count` tokens that a prompt starts from."""
    if start == "words":
        return _word_ids(carrier, count, seed)
    if start == "text":
        ids: list[int] = []
        for text in texts:
            ids += carrier.tokenizer(text, add_special_tokens=False, truncation=True, max_length=count)["input_ids"]
            if len(ids) >= count:
                return torch.tensor(ids[:count])
        raise PromptError(f"start 'text' needs {count} tokens of text, got {len(ids)}; give more texts")
    if count > (there := carrier.model.get_input_embeddings().num_embeddings):
        raise PromptError(f"start 'first-ids' needs {count} ids, the vocabulary has {there}; shorten the prompt")
    return torch.arange(count)


def _word_ids(carrier: Carrier, count: int, seed: int) -> Tensor:
    """Whole words only: the first ids of a vocabulary are mostly placeholders, and pieces of words say little."""
    vocabulary = carrier.tokenizer.get_vocab()
    words = sorted(
        index
        for token, index in vocabulary.items()
        if len(w := token.lstrip("▁Ġ")) >= 3 and w.isascii() and w.isalpha()
    )
    special = set(carrier.tokenizer.all_special_ids)
    words = [index for index in words if index not in special] or sorted(set(vocabulary.values()) - special)
    generator = torch.Generator().manual_seed(seed)
    if len(words) < count:
        return torch.tensor(words)[torch.randint(len(words), (count,), generator=generator)]
    return torch.tensor(words)[torch.randperm(len(words), generator=generator)[:count]]
