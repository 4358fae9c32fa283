"""Load an encoder that carries prompts, and encode with it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import Tensor

from foreword.errors import BackboneError, PromptError, UnknownNameError
from foreword.prompts.backbone import Backbone, is_saved_encoder, read_module, resolve_backbone
from foreword.prompts.routes import BASE, OWN, Default, Route
from foreword.prompts.transformer import PromptedTransformer
from foreword.settings import DEFAULT_BACKBONE, Precision, Side
from foreword.terminal import track

# What follows the backbone: how token embeddings become one vector, and how two vectors are compared.


logger = logging.getLogger(__name__)

Pooled = str | tuple[str, ...] | None


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
    return _head(modes[0] if modes else None, isinstance(encoder[-1], Normalize), encoder.similarity_fn_name)


def _head(pooling: Any, normalized: bool, similarity: str) -> Head:
    same = normalized and similarity in ("dot", "euclidean")  # unit vectors are ranked as by the cosine
    return Head(as_pooled(pooling), normalized, "cosine" if same else similarity)


def as_pooled(pooling: Any) -> Pooled:
    """A pooling as a module or a JSON file holds it: one name, a list of them, or None."""
    if isinstance(pooling, list | tuple):
        return str(pooling[0]) if len(pooling) == 1 else tuple(map(str, pooling))
    return None if pooling is None else str(pooling)


def head_of_card(described: Mapping[str, Any], own: Head) -> Head:
    """The head in a card's `backbone`; `own`, the backbone's, says what an older card leaves out."""
    return Head(
        as_pooled(described.get("pooling", own.pooling)),
        bool(described.get("normalized", own.normalized)),
        str(described.get("similarity", own.similarity)),
    )


def head_of_saved(folder: str | Path, own: Head) -> Head:
    """The head that `save_pretrained` wrote into a folder; `own`, the backbone's, where it wrote no modules.

    Raises:
        PromptError: the files are not as sentence-transformers writes them.
    """
    folder = Path(folder)
    if not (folder / "modules.json").is_file():
        return own
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        pooling = None
        if "Pooling" in kinds:
            place = modules[kinds.index("Pooling")]["path"]
            pooling = Pooling.load_config(str(folder), subfolder=place)["pooling_mode"]
        settings = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
        return _head(pooling, kinds[-1] == "Normalize", settings.get("similarity_fn_name") or "cosine")
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise PromptError(f"{folder}: its modules cannot be read ({error!r}): it was cut or altered") from error


def head_of_stored(
    prompt: str | Path | None, bank: str | Path | None, fingerprint: str, own: Head
) -> tuple[Path, Head] | None:
    """The folder and the head of a stored prompt, or of the first of a mixture's or a bank's.

    None where there is none, or none of these weights: it is refused for them, whatever its pooling.

    Args:
        prompt: folder of a prompt or a mixture; it comes before the bank.
        bank: folder of prompts.
        fingerprint: of the backbone's weights.
        own: the backbone's head.

    Raises:
        PromptError: a card is broken.
    """
    from foreword.prompts.store import CARD, SOURCES, is_mixture, read_card, read_mixture_card

    folders: list[Path] = []
    if prompt is not None:
        folders += sorted(Path(prompt, SOURCES).glob("*")) if is_mixture(prompt) else [Path(prompt)]
    if bank is not None:
        folders += sorted(path.parent for path in Path(bank).glob(f"*/{CARD}"))
    if not folders and prompt is not None:  # a mixture of nothing: the base model, pooled as its sources would be
        folders = [Path(prompt)]
        described = read_mixture_card(prompt).get("backbone") or {}
    elif folders:
        described = read_card(folders[0])["backbone"]
    else:
        return None
    return (folders[0], head_of_card(described, own)) if described.get("fingerprint") == fingerprint else None


def load_head(
    encoder: SentenceTransformer,
    made: tuple[Path, Head] | None,
    pooling: str | Sequence[str] | None,
    normalize: bool | None,
) -> None:
    """Give an encoder the head asked for, or else the prompt's, or else leave it its own.

    Args:
        encoder: as it was loaded.
        made: the folder of a prompt to load, and what it was made under; None: there is no such prompt.
        pooling: asked for; None: the prompt's or its own.
        normalize: asked for: True, unit length and the cosine; False, any length and inner products.

    Raises:
        UnknownNameError: no such pooling.
        PromptError: what is asked for contradicts the prompt.
        BackboneError: the encoder cannot have this pooling, or its similarity cannot be computed here.
    """
    own = head_of(encoder)
    head = own if made is None else made[1]
    if pooling is not None:
        head = replace(head, pooling=_known(as_pooled(pooling)))
    if normalize is not None:
        head = replace(head, normalized=normalize, similarity="cosine" if normalize else "dot")
    if made is not None and head != made[1]:
        raise PromptError(
            f"{made[0]}: was made under {made[1]}; asked for was {head}. Leave pooling and normalize out, and they "
            "are the prompt's own, or train a prompt under the others"
        )
    if head.similarity not in ("cosine", "dot"):
        raise BackboneError(
            f"the encoder's similarity is {head.similarity!r}, and scores here are inner products; load it with "
            "normalize=True (the cosine) or normalize=False (inner products of its embeddings as they are)"
        )
    set_head(encoder, head)
    if made is not None and head != own:
        logger.info("%s: loaded under %s, as it was made; the backbone's own is %s", made[0], head, own)


def _known(pooling: Pooled) -> Pooled:
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
    new = Pooling(old.embedding_dimension, _known(pooling), include_prompt=old.include_prompt)  # type: ignore[arg-type]
    later = [module for module in list(encoder)[places[0] + 1 :] if not isinstance(module, Normalize)]
    if later and new.pooling_output_dimension != old.pooling_output_dimension:
        raise BackboneError(
            f"the encoder's modules ({names}) take vectors of width {old.pooling_output_dimension} after the pooling; "
            f"{pooling!r} gives {new.pooling_output_dimension}"
        )
    encoder[places[0]] = new


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
    from foreword.prompts.store import attach_bank, attach_mixture, attach_prompt, is_mixture

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
