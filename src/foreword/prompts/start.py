"""Where a prompt starts: words, text, noise, the first ids of the vocabulary or another prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from foreword.errors import BackboneError, PromptError
from foreword.prompts.encoder import transformer_of
from foreword.prompts.prompt import Prompt, tensor_shapes
from foreword.prompts.spec import PromptSpec, Start
from foreword.prompts.transformer import PromptedTransformer


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
            run through the backbone, whose keys and values they become (`gated`, `prefix`); `noise`, normal with
            the standard deviation of the word embeddings (`input`) or .02.
        texts: for `text`.
        seed: of the choice of words, or of the noise.

    Raises:
        PromptError: an unknown start, `texts` too short, or fewer ids than vectors.
        BackboneError: the backbone cannot carry this kind.
    """
    transformer = transformer_of(encoder)
    if start not in get_args(Start):
        raise PromptError(
            f"start is {start!r}; expected one of {', '.join(get_args(Start))}, or a prompt to start from"
        )
    if spec.kind != "input" and transformer.refusal is not None:
        raise BackboneError(f"{transformer.refusal}; it takes prompts of kind 'input' only, not {spec.kind!r}")
    shapes = tensor_shapes(spec, transformer.shape)
    if start == "noise":
        values = _noise(transformer, shapes, seed)
    else:
        values = _from_tokens(transformer, spec, _token_ids(transformer, start, texts, spec.length, seed))
    if "gate" in shapes:
        values["gate"] = torch.zeros(shapes["gate"])
    return Prompt(
        spec, {f"{part}.{name}": value.float().cpu() for part in spec.parts for name, value in values.items()}
    )


def _embeddings(transformer: PromptedTransformer) -> nn.Embedding:
    embeddings = transformer.model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    return embeddings


def _tokenizer(transformer: PromptedTransformer) -> Any:
    return transformer.tokenizer


def _noise(transformer: PromptedTransformer, shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    words = _embeddings(transformer).weight
    deviation = float(words.float().std()) if "vectors" in shapes else 0.02
    return {name: torch.randn(size, generator=generator) * deviation for name, size in sorted(shapes.items())}


def _token_ids(transformer: PromptedTransformer, start: Start, texts: Sequence[str], count: int, seed: int) -> Tensor:
    """The `count` tokens that a prompt starts from."""
    if start == "words":
        return _word_ids(transformer, count, seed)
    if start == "text":
        return _text_ids(transformer, texts, count)
    if count > (there := _embeddings(transformer).num_embeddings):
        raise PromptError(f"start 'first-ids' needs {count} ids, the vocabulary has {there}; shorten the prompt")
    return torch.arange(count)


def _word_ids(transformer: PromptedTransformer, count: int, seed: int) -> Tensor:
    """Whole words only: the first ids of a vocabulary are mostly placeholders, and pieces of words say little."""
    vocabulary = _tokenizer(transformer).get_vocab()
    words = sorted(
        index
        for token, index in vocabulary.items()
        if len(w := token.lstrip("▁Ġ")) >= 3 and w.isascii() and w.isalpha()
    )
    special = set(_tokenizer(transformer).all_special_ids)
    words = [index for index in words if index not in special] or sorted(set(vocabulary.values()) - special)
    generator = torch.Generator().manual_seed(seed)
    if len(words) < count:
        return torch.tensor(words)[torch.randint(len(words), (count,), generator=generator)]
    return torch.tensor(words)[torch.randperm(len(words), generator=generator)[:count]]


def _text_ids(transformer: PromptedTransformer, texts: Sequence[str], count: int) -> Tensor:
    ids: list[int] = []
    for text in texts:
        ids += _tokenizer(transformer)(text, add_special_tokens=False, truncation=True, max_length=count)["input_ids"]
        if len(ids) >= count:
            return torch.tensor(ids[:count])
    raise PromptError(f"start 'text' needs {count} tokens of text, got {len(ids)}; give more texts")


def _from_tokens(transformer: PromptedTransformer, spec: PromptSpec, ids: Tensor) -> dict[str, Tensor]:
    device = next(transformer.model.parameters()).device
    if spec.kind == "input":
        return {"vectors": _embeddings(transformer)(ids.to(device)).detach()}
    tokenizer = _tokenizer(transformer)
    before = [i for i in (tokenizer.cls_token_id,) if i is not None]
    after = [i for i in (tokenizer.sep_token_id,) if i is not None]
    row = torch.tensor([[*before, *ids.tolist(), *after]], device=device)
    if transformer.position_limit is not None and row.shape[1] > transformer.position_limit:
        raise PromptError(
            f"{len(ids)} words do not fit the backbone's {transformer.position_limit} positions; use start 'noise'"
        )
    recorder = transformer.record({"input_ids": row, "attention_mask": torch.ones_like(row), "modality": "text"})
    keep = slice(len(before), len(before) + len(ids))
    layers = transformer.shape.prompted(spec)

    def gathered(tensors: list[Tensor]) -> Tensor:  # each (1, G, T, h) -> (L, n, G, h)
        return torch.stack([tensors[layer][0, :, keep].transpose(0, 1) for layer in layers])

    return {"keys": gathered(recorder.keys), "values": gathered(recorder.values)}
