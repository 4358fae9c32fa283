"""Encode with an encoder that carries prompts: its head, its precision, its routes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import Tensor, nn

from foreword.errors import BackboneError, ForewordError, PromptError, UnknownNameError, out_of_memory
from foreword.prompts.routes import BASE, OWN, Default, Route
from foreword.prompts.transformer import PromptedTransformer
from foreword.settings import EncodingPrecision, Precision, Side
from foreword.terminal import track

Pooled = str | tuple[str, ...] | None
Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Head:
    """The pooling, the normalisation and the similarity of an encoder; a prompt belongs to one of them.

    Attributes:
        pooling: as sentence-transformers names it (`cls`, `mean`, ...), several where their vectors are joined;
            None: the encoder has no pooling module.
        normalized: embeddings are made unit length last.
        similarity: as sentence-transformers names it; `cosine` where unit vectors make others rank the same.
    """

    pooling: Pooled
    normalized: bool
    similarity: str

    def __str__(self) -> str:
        name = self.pooling if isinstance(self.pooling, str) else "+".join(self.pooling or ["no"])
        length = "embeddings of unit length" if self.normalized else "embeddings of any length"
        return f"{name} pooling, {length} and similarity {self.similarity}"


def head_of(encoder: SentenceTransformer) -> Head:
    """The head that an encoder has."""
    modes = [module.pooling_mode for module in encoder if isinstance(module, Pooling)]
    return as_head(modes[0] if modes else None, isinstance(encoder[-1], Normalize), encoder.similarity_fn_name)


def as_head(pooling: Any, normalized: bool, similarity: str) -> Head:
    """A head whose similarity is the cosine where unit vectors make another rank the same."""
    same = normalized and similarity in ("dot", "euclidean")
    return Head(as_pooled(pooling), normalized, "cosine" if same else similarity)


def as_pooled(pooling: Any) -> Pooled:
    """A pooling as a module or a JSON file holds it: one name, a list of them, or None."""
    if isinstance(pooling, list | tuple):
        return str(pooling[0]) if len(pooling) == 1 else tuple(map(str, pooling))
    return None if pooling is None else str(pooling)


def known_pooling(pooling: Pooled) -> Pooled:
    """The pooling itself. Raises `UnknownNameError` where sentence-transformers has none of its name."""
    names = (pooling,) if isinstance(pooling, str) else pooling or ()
    unknown = [name for name in names if name not in Pooling.POOLING_MODES]
    if unknown or not names:
        raise UnknownNameError(
            f"no pooling {', '.join(map(repr, unknown)) or 'of that name'}; there are: "
            f"{', '.join(Pooling.POOLING_MODES)} (the first token's vector is 'cls')"
        )
    return pooling


def set_head(encoder: SentenceTransformer, head: Head) -> None:
    """Give an encoder this head.

    Raises:
        BackboneError: it has no pooling module, or one whose width later modules depend on.
    """
    own = head_of(encoder)
    if head == own:
        return
    if head.pooling != own.pooling:
        _set_pooling(encoder, head.pooling)
    if own.normalized and not head.normalized:
        delattr(encoder, list(encoder._modules)[-1])  # Sequential's own `del` renames what is left
    elif head.normalized and not own.normalized:
        encoder.add_module("normalize", Normalize())
    encoder.similarity_fn_name = head.similarity  # type: ignore[assignment]  # a name, checked by the setter


def _set_pooling(encoder: SentenceTransformer, pooling: Pooled) -> None:
    places = [place for place, module in enumerate(encoder) if isinstance(module, Pooling)]
    names = ", ".join(type(module).__name__ for module in encoder)
    if len(places) != 1 or pooling is None:
        raise BackboneError(f"the pooling cannot be set: among the encoder's modules ({names}) is not one Pooling")
    old: Any = encoder[places[0]]
    new = Pooling(old.embedding_dimension, known_pooling(pooling), include_prompt=old.include_prompt)  # type: ignore[arg-type]
    later = [module for module in list(encoder)[places[0] + 1 :] if not isinstance(module, Normalize)]
    if later and new.pooling_output_dimension != old.pooling_output_dimension:
        raise BackboneError(
            f"the encoder's modules ({names}) take vectors of width {old.pooling_output_dimension} after the pooling; "
            f"{pooling!r} gives {new.pooling_output_dimension}"
        )
    encoder[places[0]] = new


def shorten(encoder: SentenceTransformer) -> None:
    """Make of `truncate_dim`, which sentence-transformers' `encode` alone follows, a module that no path goes around.

    Embeddings are cut before they are made unit length, so that they have it. The module is a product with the first
    rows of the identity.

    Raises:
        BackboneError: it is not a number from 1 to the width of the embeddings.
    """
    kept, encoder.truncate_dim = encoder.truncate_dim, None
    width = encoder.get_embedding_dimension()
    if kept is None or kept == width:
        return
    if isinstance(kept, bool) or not isinstance(kept, int) or width is None or not 1 <= kept <= width:
        raise BackboneError(
            f"truncate_dim is {kept!r} in config_sentence_transformers.json; expected a number from 1 to {width}"
        )
    cut = Dense(width, kept, bias=False, activation_function=nn.Identity(), init_weight=torch.eye(kept, width))
    name, last = list(encoder.named_children())[-1]
    if isinstance(last, Normalize):
        delattr(encoder, name)  # Sequential's own `del` renames what is left
    encoder.add_module("shortened", cut.to(encoder.device))
    if isinstance(last, Normalize):
        encoder.add_module(name, last)


def transformer_of(encoder: SentenceTransformer) -> PromptedTransformer:
    """The module that carries the prompts. Raises `PromptError` for a plain SentenceTransformer."""
    first: Any = encoder[0]
    if not isinstance(first, PromptedTransformer):
        raise PromptError("this SentenceTransformer carries no prompts; load it with foreword.load_encoder")
    transformer: PromptedTransformer = first
    return transformer


@contextmanager
def routed(encoder: SentenceTransformer, route: Route) -> Iterator[None]:
    """Within the block, texts that do not say otherwise are encoded by `route`."""
    transformer = transformer_of(encoder)
    before, transformer.route = transformer.route, route
    try:
        yield
    finally:
        transformer.route = before


def hardware_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether bfloat16 products are fast there: without the instructions a CPU is 100 times slower with them."""
    device = torch.device(device)
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(check()) for check in checks if check is not None)


Given = TypeVar("Given", Precision, EncodingPrecision)


def resolve_precision(precision: Given, device: torch.device | str) -> Given:
    """`auto` -> `bfloat16` or `float32`. The rule looks at the processor alone, so equal runs choose alike."""
    if precision != "auto":
        return precision
    return "bfloat16" if hardware_bfloat16(device) else "float32"


def autocast(precision: EncodingPrecision, device: torch.device | str) -> AbstractContextManager[Any]:
    """The context in which a forward pass of torch's runs at `precision`; int8 is not one of them."""
    device = torch.device(device)
    chosen = resolve_precision(precision, device)
    if chosen in ("float32", "int8"):
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, chosen))


def encode(
    encoder: SentenceTransformer,
    texts: Sequence[str],
    side: Side,
    *,
    route: Route | Default = OWN,
    domains: Sequence[str | None] | None = None,
    batch_size: int = 64,
    precision: EncodingPrecision = "float32",
    max_length: int | None = None,
    what: str = "encoding",
    quiet: bool = False,
) -> Vectors:
    """Embeddings of `texts`, float32 (len(texts), d'), in their order, whose inner products are the scores.

    They are the encoder's own, scaled to unit length where its similarity is the cosine and it does not do so.
    Documents of one route are looked up in the encoder's `VectorCache`, where it has one, as in commands.

    Args:
        encoder: from `load_encoder`.
        texts: what to encode; sorted by length inside, so that batches hold little padding.
        side: `query` or `document`; it chooses the prompt's side and the backbone's own text prompt.
        route: the prompt, or mixture, that encodes all of them; None: the base model; OWN: what the encoder is
            routed to, the prompt it was loaded with.
        domains: instead of `route`, a domain for each text (None: base); rows of a batch may differ.
        batch_size: texts in one forward pass, at most: on a processor, longer and shorter ones have passes of their
            own; fewer, with a warning, where the memory is too small for so many.
        precision: of the forward pass; `int8` is for processors and takes OpenVINO, see `foreword.prompts.int8`.
        max_length: tokens a text is cut to; None: the encoder's own limit.
        what: the progress bar's label.
        quiet: no progress bar.

    Raises:
        PromptError: an unknown domain, or as many domains as texts were not given; what int8 spoils.
        BackboneError: an impossible `max_length`.
        ForewordError: an impossible `batch_size`; what int8 needs is missing, or cannot be made.
    """
    if batch_size < 1:
        raise ForewordError(f"batch_size is {batch_size}; expected 1 or more")
    if max_length is not None:
        check_length(max_length)
    transformer = transformer_of(encoder)
    chosen_route: Route = transformer.route if isinstance(route, Default) else route
    how: dict[str, Any] = {"batch_size": batch_size, "max_length": max_length, "what": what, "quiet": quiet}
    how["precision"] = resolve_precision(precision, encoder.device)
    cache = transformer.vectors if side == "document" and domains is None and len(texts) > 1 else None
    if cache is not None and precision != "int8":
        settings = {"precision": how["precision"], "max_length": max_length, "text_prompt": text_prompt(encoder, side)}

        def make(numbers: Sequence[int]) -> Vectors:
            return _encode(encoder, [texts[number] for number in numbers], side, chosen_route, None, **how)

        found: Vectors = cache.embed(encoder, chosen_route, settings, texts, make)
        return found
    return _encode(encoder, texts, side, chosen_route, domains, **how)


def _encode(
    encoder: SentenceTransformer,
    texts: Sequence[str],
    side: Side,
    chosen_route: Route,
    domains: Sequence[str | None] | None,
    *,
    batch_size: int,
    precision: EncodingPrecision,
    max_length: int | None,
    what: str,
    quiet: bool,
) -> Vectors:
    """`encode`, of texts that are not known."""
    transformer = transformer_of(encoder)
    rows: Tensor | None = None
    if domains is not None:
        if len(domains) != len(texts):
            raise PromptError(f"{len(domains)} domains for {len(texts)} texts; give one for each")
        for domain in {d for d in domains if d is not None}:
            transformer.prompt(domain)
        places: Mapping[str | None, int] = {None: BASE, **{name: i for i, name in enumerate(transformer.domains)}}
        rows = torch.tensor([places[domain] for domain in domains], dtype=torch.long)
    lengths = np.array([len(text) for text in texts])
    order = np.argsort(-lengths, kind="stable")
    words = text_prompt(encoder, side)
    output: Vectors | None = None
    extra = {} if max_length is None else {"max_length": min(max_length, transformer.max_seq_length or max_length)}
    device = encoder.device
    head = head_of(encoder)
    width = encoder.truncate_dim  # set by hand since it was loaded, see `shorten`
    cosine = head.similarity == "cosine" and (width is not None or not head.normalized)
    encoder.eval()
    int8 = transformer.int8 if precision == "int8" else None
    if precision == "int8" and int8 is None:
        raise PromptError("int8 takes an encoder from foreword.load_encoder")

    def embed(chosen: np.ndarray[Any, np.dtype[np.intp]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        features = encoder.preprocess([texts[i] for i in chosen], prompt=words, task=side, **extra)
        if int8 is not None:
            some = None if domains is None else [domains[i] for i in chosen]
            embedded = int8.embed(encoder, features, side, chosen_route, some)
        else:
            features["prompt_route"] = chosen_route
            if rows is not None:
                features["prompt_rows"] = rows[torch.as_tensor(chosen)]
            features = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in features.items()}
            embedded = encoder(features)["sentence_embedding"].float()
        embedded = embedded[:, :width]
        embedded = torch.nn.functional.normalize(embedded, dim=1) if cosine else embedded
        return embedded.cpu().numpy()

    most = batch_size
    with torch.inference_mode(), autocast(precision, device):
        for begin in track(range(0, len(texts), batch_size), what, quiet=quiet):
            left = order[begin : begin + batch_size]
            while len(left):
                now = left[:most]
                if device.type == "cpu":
                    now = now[: alike(lengths[now])]
                try:
                    vectors = embed(now)
                except (RuntimeError, MemoryError) as error:
                    tried = len(now)
                    if tried == 1 or not out_of_memory(error):
                        raise
                    most = tried // 2  # for the shorter texts that follow, too
                    warnings.warn(f"no memory for {tried} texts at once; going on with {most}", stacklevel=2)
                    continue
                output = np.empty((len(texts), vectors.shape[1]), np.float32) if output is None else output
                output[now] = vectors
                left = left[len(now) :]
    width = encoder.get_embedding_dimension() or 0
    return np.empty((0, width), np.float32) if output is None else output


PASS_CHARACTERS = 1000
"""Of a forward pass on a processor, for each thread, padding included: with fewer its products are slow."""


def alike(lengths: np.ndarray[Any, Any]) -> int:
    """How many texts to take at once on a processor, where padding costs what words do.

    Of `lengths` in characters, the longest first: as many as have three quarters of the longest's, and more where
    these are few.
    """
    near = int((lengths * 4 >= lengths[0] * 3).sum())
    return max(near, PASS_CHARACTERS * torch.get_num_threads() // max(1, int(lengths[0])))


def check_length(tokens: int) -> None:
    """Raise `BackboneError` for a number of tokens to which no text can be cut."""
    if not 3 <= tokens < 2**31:
        raise BackboneError(f"max_length is {tokens}; a text needs at least 3 tokens, and tokenizers count to 2**31")


def text_prompt(encoder: SentenceTransformer, side: Side) -> str | None:
    """The backbone's own words before a text, under the names that `encode_query` and `encode_document` look for."""
    names = ("query",) if side == "query" else ("document", "passage", "corpus")
    for name in names:
        if name in encoder.prompts:
            return str(encoder.prompts[name]) or None
    default = encoder.default_prompt_name
    return encoder.prompts.get(default) if default else None


def leaves_out_text_prompt(encoder: SentenceTransformer) -> bool:
    """Whether the pooling leaves out words that the backbone has before a text."""
    left_out = any(isinstance(module, Pooling) and not module.include_prompt for module in encoder)
    return left_out and any(encoder.prompts.values())


def state_digest(encoder: SentenceTransformer) -> str:
    """SHA-256 over the backbone's parameters and buffers: equal before and after training, or training is wrong."""
    digest = hashlib.sha256()
    for name, tensor in sorted(transformer_of(encoder).model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
