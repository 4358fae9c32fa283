"""Which words a prompt's vectors lie near and where it acts, to see what it has learnt.

Lester et al. (2104.08691) read input prompts in this way: by the cosine of each vector with the backbone's word
embeddings. A word near a vector is a hint and no more: what a prompt does follows from all of its vectors together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from foreword.errors import PromptError
from foreword.prompts.attention import BatchPrompts, Place, current_pass
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import OWN, Default, Route, names_of, route_of_side
from foreword.prompts.store import StoredPrompt
from foreword.prompts.transformer import PromptedTransformer
from foreword.settings import Side

_ROWS = 4096  # word embeddings compared at a time: 16 MiB of float32 at width 1024, and two copies

_PLACEHOLDER = re.compile(
    r"\[unused\d+\]|\[PAD\d+\]|<unused_?\d+>|<extra_id_\d+>|madeupword\d+|<\|?reserved_.*\d+\|?>|<0x[0-9A-F]{2}>"
)
"""Tokens that no text has: places kept free in a vocabulary, and single bytes."""


@dataclass(frozen=True)
class NearWord:
    """A word near a vector, as the tokenizer decodes it (a piece of a word with its `##`), and their cosine."""

    word: str
    similarity: float


@dataclass(frozen=True)
class TellingWord:
    """A word near some of a prompt's vectors: the sum of its cosines with them, and how many they are."""

    word: str
    weight: float
    vectors: int


@dataclass(frozen=True)
class Vocabulary:
    """The words that are compared.

    Attributes:
        ids: (V,) rows of the word embeddings, ascending.
        words: V words, as the tokenizer decodes them.
        excluded: rows left out: special tokens, placeholders, bytes, blanks, and rows that no token has.
    """

    ids: Tensor
    words: tuple[str, ...]
    excluded: int


@dataclass(frozen=True)
class NearestWords:
    """For each part of a prompt (see `PromptSpec.parts`) and each of its n vectors the nearest words, nearest first."""

    parts: Mapping[str, tuple[tuple[NearWord, ...], ...]]
    candidates: int
    """Words that were compared."""
    excluded: int
    """Entries of the vocabulary that were not; see `Vocabulary`."""


@dataclass(frozen=True)
class BankWords:
    """The words of a bank: records as `words_record` makes them, and the domains without (domain -> kind)."""

    records: list[dict[str, Any]]
    left_out: Mapping[str, str]


def vocabulary_of(encoder: SentenceTransformer) -> Vocabulary:
    """The words of a backbone's vocabulary that a text can have; decoding 250,000 takes seconds, so ask once."""
    transformer = transformer_of(encoder)
    tokenizer: Any = transformer.tokenizer
    rows = int(transformer.model.get_input_embeddings().weight.shape[0])  # type: ignore[union-attr, index]
    special = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    ids = [
        index
        for token, index in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        if index < rows and index not in special and not _PLACEHOLDER.fullmatch(token)
    ]
    decoded = tokenizer.batch_decode([[index] for index in ids], clean_up_tokenization_spaces=False)
    kept = [
        (index, word) for index, text in zip(ids, decoded, strict=True) if (word := text.strip()) and "�" not in word
    ]
    return Vocabulary(torch.tensor([index for index, _ in kept]), tuple(word for _, word in kept), rows - len(kept))


def nearest_words(
    encoder: SentenceTransformer, prompt: Prompt, *, count: int = 5, vocabulary: Vocabulary | None = None
) -> NearestWords:
    """The words nearest to every vector of an `input` prompt, by cosine with the backbone's word embeddings.

    Args:
        encoder: whose backbone the prompt belongs to.
        prompt: of kind `input`.
        count: words for each vector, each once, though a vocabulary may hold it with and without a space before it.
        vocabulary: of `vocabulary_of(encoder)`; None: it is made.

    Raises:
        PromptError: the prompt is of another kind, or of another width than the word embeddings.
    """
    if not prompt.kind.among_words:
        raise PromptError(
            f"this prompt is of kind {prompt.spec.kind!r}: its vectors are keys and values inside the layers, which "
            "no word can be compared with; words exist for prompts of kind 'input' only"
        )
    if count < 1:
        raise PromptError(f"count is {count}; ask for at least 1 word a vector")
    table: Tensor = transformer_of(encoder).model.get_input_embeddings().weight  # type: ignore[union-attr, assignment]
    vocabulary = vocabulary_of(encoder) if vocabulary is None else vocabulary
    parts = {}
    for part in prompt.spec.parts:
        vectors = prompt.tensors()[f"{part}.vectors"]  # (n, d)
        if vectors.shape[1] != table.shape[1]:
            raise PromptError(f"the prompt has width {vectors.shape[1]}, the word embeddings {table.shape[1]}")
        parts[part] = _nearest(vectors, table, vocabulary, count)
    return NearestWords(parts, len(vocabulary.words), vocabulary.excluded)


@torch.no_grad()
def _nearest(vectors: Tensor, table: Tensor, vocabulary: Vocabulary, count: int) -> tuple[tuple[NearWord, ...], ...]:
    """The nearest words of each vector: `vectors` (n, d), `table` (rows, d)."""
    spellings = max(Counter(vocabulary.words).values(), default=1)  # entries that show as one word
    wanted = count * spellings
    vectors = torch.nn.functional.normalize(vectors.to(table.device).float(), dim=1)
    scores = vectors.new_empty(len(vectors), 0)
    places = torch.empty(len(vectors), 0, dtype=torch.long, device=table.device)
    for begin in range(0, len(vocabulary.ids), _ROWS):
        chosen = vocabulary.ids[begin : begin + _ROWS].to(table.device)
        rows = torch.nn.functional.normalize(table[chosen].float(), dim=1)
        scores = torch.cat([scores, vectors @ rows.T], dim=1)
        here = torch.arange(begin, begin + len(chosen), device=table.device).expand(len(vectors), -1)
        places = torch.cat([places, here], dim=1)
        scores, order = scores.topk(min(wanted, scores.shape[1]), dim=1)
        places = places.gather(1, order)
    nearest = []
    for row, where in zip(scores.tolist(), places.tolist(), strict=True):
        found: dict[str, float] = {}
        for similarity, place in sorted(zip(row, where, strict=True), key=lambda pair: (-pair[0], pair[1])):
            found.setdefault(vocabulary.words[place], similarity)
        nearest.append(tuple(NearWord(word, value) for word, value in list(found.items())[:count]))
    return tuple(nearest)


def summary(rows: Sequence[Sequence[NearWord]], *, count: int = 10) -> list[TellingWord]:
    """The words of a prompt, most telling first: each weighs the sum of its cosines with the vectors it is near.

    Args:
        rows: the nearest words of each vector.
        count: words given at most; those of a cosine of 0 or less count for nothing.
    """
    weights: dict[str, float] = {}
    vectors: Counter[str] = Counter()
    for row in rows:
        for near in row:
            if near.similarity > 0:
                weights[near.word] = weights.get(near.word, 0.0) + near.similarity
                vectors[near.word] += 1
    ordered = sorted(weights, key=lambda word: (-weights[word], word))
    return [TellingWord(word, weights[word], vectors[word]) for word in ordered[:count]]


def words_record(domain: str, part: str, near: NearestWords) -> dict[str, Any]:
    """One part's words as a JSON object: `domain`, `part`, `rows`, `summary`, `candidates` and `excluded`.

    `rows` holds a list of `{word, similarity}` for each vector, `summary` a list of `{word, weight, vectors}`.
    """
    rows = near.parts[part]
    return {
        "domain": domain,
        "part": part,
        "rows": [[{"word": w.word, "similarity": round(w.similarity, 6)} for w in row] for row in rows],
        "summary": [{"word": w.word, "weight": round(w.weight, 6), "vectors": w.vectors} for w in summary(rows)],
        "candidates": near.candidates,
        "excluded": near.excluded,
    }


def bank_words(encoder: SentenceTransformer, bank: Mapping[str, StoredPrompt], *, count: int = 5) -> BankWords:
    """The words of every `input` prompt of a bank, a record for each domain and part; one prompt is a bank of one.

    Raises:
        PromptError: no prompt of the bank is of kind `input`.
    """
    left_out = {d: stored.prompt.spec.kind for d, stored in bank.items() if not stored.prompt.kind.among_words}
    if len(left_out) == len(bank):
        kinds = ", ".join(f"{domain} ({kind})" for domain, kind in left_out.items()) or "no prompt at all"
        raise PromptError(f"words exist for prompts of kind 'input' only; here are: {kinds}")
    vocabulary = vocabulary_of(encoder)
    records = []
    for domain, stored in bank.items():
        if domain not in left_out:
            near = nearest_words(encoder, stored.prompt, count=count, vocabulary=vocabulary)
            records += [words_record(domain, part, near) for part in near.parts]
    return BankWords(records, left_out)


# Where a prompt in the layers acts: what it adds there, against what the layer gives by itself.
#
# A gate or a value alone says little: behind a wide gate may lie small values, and a layer's own output may be large.
# So what is measured is the norm of the added term against the norm of the layer's own, on texts.


Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class PromptStrength:
    """How strongly a prompt, or mixture, acts on one side's texts, by layer.

    Strength is the norm of what the prompt adds over the norm of what the layer gives by itself, both over a text's
    tokens; the mean over the texts. At 1 the prompt says as much as the text.

    Attributes:
        side: of the texts.
        layers: the L prompted layers, counted from the bottom, 0.
        places: P names of what the prompt acts on in a layer: `head 1` and so on of its attention, `feed-forward`.
        strength: (L, P).
        texts: how many.
    """

    side: Side
    layers: tuple[int, ...]
    places: tuple[str, ...]
    strength: Array
    texts: int

    def as_dict(self, domain: str) -> dict[str, Any]:
        """A record for the report: JSON values, with the domain whose prompt this is."""
        return {
            "domain": domain,
            "side": self.side,
            "layers": list(self.layers),
            "places": list(self.places),
            "strength": np.round(self.strength, 6).tolist(),
            "texts": self.texts,
        }


def prompt_strength(
    encoder: SentenceTransformer, texts: Sequence[str], side: Side, *, route: Route | Default = OWN, **how: Any
) -> PromptStrength:
    """Encode texts and measure what the prompt adds in each layer.

    Args:
        encoder: from `load_encoder`.
        texts: of the prompt's domain; some hundred are plenty.
        side: `query` or `document`.
        route: the prompt or mixture, of a kind that mixes (`memory`, `gated`); OWN: what the encoder is routed to.
        how: further arguments of `encode`, as `batch_size` and `max_length`.

    Raises:
        PromptError: no such prompt encodes this side, or there are no texts.
    """
    if not texts:
        raise PromptError("no texts; what a prompt adds is measured on some of its domain")
    observer = _Observer()
    with observer.watching(transformer_of(encoder)):
        encode(encoder, texts, side, route=route, **{"quiet": True, **how})
    if not observer.sums:
        raise PromptError(f"no memory or gated prompt encodes a {side} here; give the route of one that does")
    names: list[str] = []
    columns: list[Array] = []
    for place, by_layer in observer.sums.items():
        columns.append(np.stack([by_layer[layer] for layer in range(len(observer.layers))]) / len(texts))  # (L, H)
        names += [f"head {n + 1}" for n in range(columns[-1].shape[1])] if place == "attention" else [place]
    return PromptStrength(side, observer.layers, tuple(names), np.concatenate(columns, axis=1), len(texts))


def prompt_strengths(
    encoder: SentenceTransformer,
    queries: Sequence[str],
    documents: Sequence[str],
    *,
    route: Route | Default = OWN,
    **how: Any,
) -> list[PromptStrength]:
    """`prompt_strength` of queries and of documents, each where a prompt encodes them.

    Raises:
        PromptError: a prompt on the route is of another kind, none encodes either side, or there are no texts.
    """
    transformer = transformer_of(encoder)
    chosen = transformer.route if isinstance(route, Default) else route
    texts: dict[Side, Sequence[str]] = {"query": queries, "document": documents}
    prompted = [
        side
        for side in texts
        if any(transformer.prompt(name).part(side) is not None for name in names_of(route_of_side(chosen, side)))
    ]
    if not prompted:
        raise PromptError("the base model encodes queries and documents here; give the route of a prompt")
    return [prompt_strength(encoder, texts[side], side, route=route, **how) for side in prompted]


class _Observer:
    """Sums the ratios of every text by place and layer while batches go through the backbone."""

    def __init__(self) -> None:
        self.layers: tuple[int, ...] = ()
        self.sums: dict[Place, dict[int, Array]] = {}
        self._visible = torch.empty(0)

    @contextmanager
    def watching(self, transformer: PromptedTransformer) -> Iterator[None]:
        """Within the block, what goes through the transformer is measured."""
        words = [module for module in transformer.model.modules() if isinstance(module, nn.Embedding)]
        handles = [transformer.register_forward_pre_hook(self._begin)]
        handles += [module.register_forward_pre_hook(self._ask) for module in words]  # a pass begins with them
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        """Keep which tokens of the batch are text."""
        self._visible = args[0]["attention_mask"].bool()  # (B, T)

    def _ask(self, _module: nn.Module, _args: Any) -> None:
        """Have the batch's prompts show what they add."""
        current = current_pass()
        if current is not None and isinstance(current.prompts, BatchPrompts):
            self.layers = tuple(sorted(current.prompts.layers, key=current.prompts.layers.__getitem__))
            current.prompts.observe = self._note

    def _note(self, place: Place, layer: int, output: Tensor, added: Tensor) -> None:
        """Add a batch's ratios, of tensors (B, T, H, h) whose padding does not count; H is 1 in feed-forward parts."""
        own, more = (self._norms(tensor) for tensor in (output, added))
        ratios = (more / own.clamp(min=torch.finfo(torch.float32).tiny)).double().sum(dim=0).cpu().numpy()
        by_layer = self.sums.setdefault(place, {})
        by_layer[layer] = by_layer.get(layer, 0.0) + ratios

    def _norms(self, tensor: Tensor) -> Tensor:
        """(B, T, H, h) -> (B, H): over a text's tokens and a head's width."""
        seen = tensor.float() * self._visible[:, :, None, None]
        return seen.square().sum(dim=(1, 3)).sqrt()
