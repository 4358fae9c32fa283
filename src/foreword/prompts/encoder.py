"""Load an encoder that carries prompts, and encode with it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import Tensor

from foreword.common.errors import BackboneError, PromptError
from foreword.common.progress import track
from foreword.prompts.backbone import Backbone, resolve_backbone
from foreword.prompts.defaults import DEFAULT_BACKBONE
from foreword.prompts.head import head_of, head_of_saved, head_of_stored, load_head, set_head
from foreword.prompts.routes import BASE, OWN, Default, Route
from foreword.prompts.saved import is_saved_encoder, read_module
from foreword.prompts.spec import Side
from foreword.prompts.transformer import PromptedTransformer

Precision = Literal["float32", "bfloat16", "float16", "auto"]
"""What the matrix products run in; `auto` is `bfloat16` where the processor multiplies it in hardware."""

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads fight torch's over the same cores


def load_encoder(
    backbone: str = DEFAULT_BACKBONE,
    *,
    prompt: str | Path | None = None,
    bank: str | Path | None = None,
    max_length: int | None = None,
    device: str | None = None,
    revision: str | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    pooling: str | Sequence[str] | None = None,
    normalize: bool | None = None,
) -> SentenceTransformer:
    """A `SentenceTransformer` whose first module is a `PromptedTransformer`.

    Args:
        backbone: a local folder, a hub name, the packaged MiniLM's name, or a folder that `save_pretrained` of such
            an encoder wrote.
        prompt: the folder of a stored prompt or mixture; it encodes every text from here on.
        bank: a folder of stored prompts; each is chosen with `encode(..., domain=name)`.
        max_length: tokens a text is cut to; None: the backbone's own setting.
        device: as torch names it; None: the accelerator where there is one, the process's own under torchrun.
        revision: of the backbone on the hub.
        attn_implementation: as transformers names it; None: its own choice.
        trust_remote_code: for backbones that bring code of their own.
        pooling: `cls`, `mean`, `max`, ... as sentence-transformers names them; None: as the prompt was made, or
            else the backbone's own (of a folder that holds a transformer alone: the mean).
        normalize: True: embeddings of unit length, compared by the cosine; False: as they are, compared by inner
            products; None: as the prompt was made, or else the backbone's own.

    Raises:
        BackboneError: the backbone cannot be found or loaded, or does not take this pooling.
        PromptError: a prompt was made for another backbone, pooling or length, or its files are broken.
        UnknownNameError: no such pooling.
    """
    from foreword.prompts.mixture import attach_mixture, is_mixture
    from foreword.prompts.store import attach_bank, attach_prompt

    device = device or _own_accelerator()
    if device is not None:
        _check_device(device)
    saved = read_module(backbone) if is_saved_encoder(backbone) else None
    found = saved[1] if saved is not None else resolve_backbone(backbone, revision)
    encoder = _load_base(found, device, attn_implementation, trust_remote_code)
    transformer = transformer_of(encoder)
    if saved is not None:
        set_head(encoder, head_of_saved(backbone, head_of(encoder)))
        made = (Path(backbone), head_of(encoder)) if saved[2] else None
        transformer.restore(saved[0], saved[2])
    else:
        made = head_of_stored(prompt, bank, found.fingerprint, head_of(encoder))
    load_head(encoder, made, pooling, normalize)
    if max_length is not None:
        if max_length < 3:
            raise BackboneError(f"max_length is {max_length}; a text needs at least 3 tokens")
        limit = transformer.position_limit
        transformer.text_limit = max_length if limit is None else min(max_length, limit)
        transformer.max_seq_length = transformer.text_limit
    if bank is not None:
        attach_bank(encoder, bank)
    if prompt is not None:
        attach = attach_mixture if is_mixture(prompt) else attach_prompt
        transformer.route = attach(encoder, prompt)
    return encoder


def _own_accelerator() -> str | None:
    """Of several processes on one machine (torchrun, accelerate launch), each has its own; None: no such."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else None


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        raise BackboneError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error


def _load_base(
    found: Backbone, device: str | None, attn_implementation: str | None, trust_remote_code: bool
) -> SentenceTransformer:
    model_kwargs: dict[str, Any] = {}
    if attn_implementation is not None:
        model_kwargs["attn_implementation"] = attn_implementation
    with _quiet_loading():
        encoder = SentenceTransformer(
            str(found.path), device=device, model_kwargs=model_kwargs, trust_remote_code=trust_remote_code
        )
    first = encoder[0]
    if not isinstance(first, Transformer):
        raise BackboneError(f"{found.name}: its first module is {type(first).__name__}, not a Transformer")
    transformer = PromptedTransformer.from_transformer(first)
    transformer.backbone = found
    encoder[0] = transformer
    encoder.requires_grad_(False)
    encoder.eval()
    return encoder


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Without transformers' bar for reading weights, which takes a fraction of a second here."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


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


def resolve_precision(precision: Precision, device: torch.device | str) -> Precision:
    """`auto` -> `bfloat16` or `float32`. The rule looks at the processor alone, so equal runs choose alike."""
    if precision != "auto":
        return precision
    return "bfloat16" if hardware_bfloat16(device) else "float32"


def autocast(precision: Precision, device: torch.device | str) -> AbstractContextManager[Any]:
    """The context in which a forward pass runs at `precision`."""
    device = torch.device(device)
    chosen = resolve_precision(precision, device)
    if chosen == "float32":
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
    precision: Precision = "float32",
    max_length: int | None = None,
    what: str = "encoding",
    quiet: bool = False,
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Embeddings of `texts`, float32 (len(texts), d'), in their order, whose inner products are the scores.

    They are the encoder's own, scaled to unit length where its similarity is the cosine and it does not do so.

    Args:
        encoder: from `load_encoder`.
        texts: what to encode; sorted by length inside, so that batches hold little padding.
        side: `query` or `document`; it chooses the prompt's side and the backbone's own text prompt.
        route: the prompt, or mixture, that encodes all of them; None: the base model; OWN: what the encoder is
            routed to, the prompt it was loaded with.
        domains: instead of `route`, a domain for each text (None: base); rows of a batch may differ.
        batch_size: texts in one forward pass.
        precision: of the forward pass.
        max_length: tokens a text is cut to; None: the encoder's own limit.
        what: the progress bar's label.
        quiet: no progress bar.

    Raises:
        PromptError: an unknown domain, or as many domains as texts were not given.
    """
    transformer = transformer_of(encoder)
    chosen_route: Route = transformer.route if isinstance(route, Default) else route
    rows = None if domains is None else _row_indices(transformer, domains, len(texts))
    order = np.argsort([-len(text) for text in texts], kind="stable")
    words = text_prompt(encoder, side)
    output: np.ndarray[Any, np.dtype[np.float32]] | None = None
    extra = {} if max_length is None else {"max_length": min(max_length, transformer.max_seq_length or max_length)}
    device = encoder.device
    head = head_of(encoder)
    cosine = head.similarity == "cosine" and not head.normalized
    encoder.eval()
    with torch.inference_mode(), routed(encoder, chosen_route), autocast(precision, device):
        for begin in track(range(0, len(texts), batch_size), what, quiet=quiet):
            chosen = order[begin : begin + batch_size]
            features = encoder.preprocess([texts[i] for i in chosen], prompt=words, task=side, **extra)
            if rows is not None:
                features["prompt_rows"] = rows[torch.as_tensor(chosen)]
            features = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in features.items()}
            embedded = encoder(features)["sentence_embedding"].float()
            embedded = torch.nn.functional.normalize(embedded, dim=1) if cosine else embedded
            vectors = embedded.cpu().numpy()
            output = np.empty((len(texts), vectors.shape[1]), np.float32) if output is None else output
            output[chosen] = vectors
    width = encoder.get_embedding_dimension() or 0
    return np.empty((0, width), np.float32) if output is None else output


def _row_indices(transformer: PromptedTransformer, domains: Sequence[str | None], count: int) -> Tensor:
    if len(domains) != count:
        raise PromptError(f"{len(domains)} domains for {count} texts; give one for each")
    for domain in {d for d in domains if d is not None}:
        transformer.prompt(domain)
    places: Mapping[str | None, int] = {None: BASE, **{name: i for i, name in enumerate(transformer.domains)}}
    return torch.tensor([places[domain] for domain in domains], dtype=torch.long)


def text_prompt(encoder: SentenceTransformer, side: Side) -> str | None:
    """The backbone's own words before a text, under the names that `encode_query` and `encode_document` look for."""
    names = ("query",) if side == "query" else ("document", "passage", "corpus")
    for name in names:
        if name in encoder.prompts:
            return str(encoder.prompts[name]) or None
    default = encoder.default_prompt_name
    return encoder.prompts.get(default) if default else None


def state_digest(encoder: SentenceTransformer) -> str:
    """SHA-256 over the backbone's parameters and buffers: equal before and after training, or training is wrong."""
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(transformer_of(encoder).model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
