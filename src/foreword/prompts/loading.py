"""Load an encoder that carries prompts: the backbone, the head that a stored prompt was made under, the prompts."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from foreword.errors import BackboneError, DataError, PromptError, of_file
from foreword.files import read_json
from foreword.prompts.backbone import Backbone, check_files, is_saved_encoder, read_module, resolve_backbone
from foreword.prompts.encoder import (
    Head,
    as_head,
    as_pooled,
    check_length,
    head_of,
    known_pooling,
    set_head,
    shorten,
    transformer_of,
)
from foreword.prompts.int8 import Int8
from foreword.prompts.spec import bank_folders
from foreword.prompts.store import (
    SOURCES,
    attach_bank,
    attach_mixture,
    attach_prompt,
    is_mixture,
    read_card,
    read_mixture_card,
)
from foreword.prompts.transformer import PromptedTransformer
from foreword.settings import DEFAULT_BACKBONE
from foreword.terminal import quiet_loading

logger = logging.getLogger(__name__)


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
    rank = os.environ.get("LOCAL_RANK")
    if device is None and rank is not None and torch.cuda.is_available():  # of several processes, each has its own
        device = f"cuda:{rank}"
    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
            said = str(error).splitlines()[0]
            raise BackboneError(f"device {device!r} cannot be used here: {said}") from error
    saved = read_module(backbone) if is_saved_encoder(backbone) else None
    found = saved[1] if saved is not None else resolve_backbone(backbone, revision)
    encoder = _load_base(found, device, attn_implementation, trust_remote_code)
    transformer = transformer_of(encoder)
    transformer.int8 = Int8()
    if saved is not None:
        with of_file(Path(backbone), PromptError):
            set_head(encoder, _head_of_saved(Path(backbone), head_of(encoder)))
            transformer.restore(saved[0], saved[2])
        made = (Path(backbone), head_of(encoder)) if saved[2] else None
    else:
        made = _head_of_stored(prompt, bank, found.fingerprint, head_of(encoder))
    load_head(encoder, made, pooling, normalize)
    if max_length is not None:
        check_length(max_length)
        limit = transformer.position_limit
        transformer.text_limit = max_length if limit is None else min(max_length, limit)
        transformer.max_seq_length = transformer.text_limit
    if bank is not None:
        attach_bank(encoder, bank)
    if prompt is not None:
        attach = attach_mixture if is_mixture(prompt) else attach_prompt
        transformer.route = attach(encoder, prompt)
    return encoder


def _load_base(
    found: Backbone, device: str | None, attn_implementation: str | None, trust_remote_code: bool
) -> SentenceTransformer:
    """The backbone, frozen, whose first module carries prompts. Raises `BackboneError` where it cannot be had."""
    check_files(found.path)
    model_kwargs: dict[str, Any] = {}
    if attn_implementation is not None:
        model_kwargs["attn_implementation"] = attn_implementation
    try:
        with quiet_loading(), missing_weights() as missing:
            encoder = SentenceTransformer(
                str(found.path), device=device, model_kwargs=model_kwargs, trust_remote_code=trust_remote_code
            )
        first = encoder[0]
        if not isinstance(first, Transformer):
            raise BackboneError(f"{found.path}: its first module is {type(first).__name__}, not a Transformer")
        if missing:
            raise BackboneError(
                f"{found.path}: its weights lack {missing[0]!r} and {len(missing) - 1} more that its config.json asks "
                "for, and random ones would take their place; copy the folder again, whole"
            )
        check_tokenizer(found.path, first)
        encoder[0] = transformer = PromptedTransformer.from_transformer(first)
        shorten(encoder)
        encoder.eval()
        if not np.isfinite(encoder.encode("a text", show_progress_bar=False)).all():  # and whatever else it raises
            raise BackboneError(f"{found.path}: what it makes of a text is not finite; its weights are broken")
    except BackboneError as error:
        raise error if str(found.path) in str(error) else BackboneError(f"{found.path}: {error}") from error
    except Exception as error:  # transformers, tokenizers, safetensors and torch raise a dozen kinds for broken files
        said = " ".join(str(error).split())
        said = said if len(said) <= 300 else f"{said[:300]}..."
        raise BackboneError(
            f"{found.path} cannot be loaded by sentence-transformers ({type(error).__name__}: {said}); copy the folder "
            "again, whole, or give another backbone"
        ) from error
    transformer.backbone = found
    encoder.requires_grad_(False)
    return encoder


def check_tokenizer(folder: Path, transformer: Transformer) -> None:
    """Raise `BackboneError` unless the tokenizer can fill a batch, and is of the model that it lies beside.

    A folder without a tokenizer's files is no error to transformers: it makes a tokenizer of the special tokens
    alone, by which all texts are alike. Embeddings have a row for every token, and few more (rows are filled up to
    a round number).
    """
    tokenizer: Any = transformer.tokenizer
    words: Any = transformer.model.get_input_embeddings()
    if tokenizer is None or getattr(words, "weight", None) is None:
        raise BackboneError(f"{folder}: it has no tokenizer, or no word embeddings; it does not encode texts")
    tokens, rows = len(tokenizer), int(words.weight.shape[0])
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows or tokens < 0.9 * rows:
        raise BackboneError(
            f"{folder}: its tokenizer knows {tokens:,} tokens, the highest is number {highest:,}, and its model has "
            f"embeddings of {rows:,}: the tokenizer's files (tokenizer.json, vocab.txt, ...) are missing or another "
            "model's; copy the folder again, whole"
        )
    if tokenizer.pad_token_id is None:
        raise BackboneError(
            f"{folder}: its tokenizer has no padding token, so that texts of different length make no batch; name one "
            "in its tokenizer_config.json (pad_token)"
        )


@contextmanager
def missing_weights() -> Iterator[list[str]]:
    """The names of weights that a folder lacks, of a model that is loaded in the block; but for the unused pooler's.

    Transformers fills them with random numbers and says so in a warning alone.
    """
    missing: list[str] = []
    log = logging.getLogger("transformers.modeling_utils")

    def note(record: logging.LogRecord) -> bool:
        lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).split("|") for line in record.getMessage().splitlines()]
        names = [line[0].strip() for line in lines if len(line) > 1 and line[1].strip().startswith("MISSING")]
        missing.extend(name for name in names if "pooler" not in name)
        return shown and not names

    level, shown = log.level, log.isEnabledFor(logging.WARNING)
    log.setLevel(logging.WARNING - 1)  # at WARNING it would check plans for several devices, and report on them
    log.addFilter(note)
    try:
        yield missing
    finally:
        log.removeFilter(note)
        log.setLevel(level)


# -- the head of what is loaded ---------------------------------------------------------------------------------------


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
        head = replace(head, pooling=known_pooling(as_pooled(pooling)))
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


def _head_of_stored(
    prompt: str | Path | None, bank: str | Path | None, fingerprint: str, own: Head
) -> tuple[Path, Head] | None:
    """The folder and the head of a stored prompt, or of the first of a mixture's or a bank's (a prompt comes first).

    None where there is none, or none of these weights: it is refused for them, whatever its pooling. `own`, the
    backbone's head, says what an older card leaves out.
    """
    folders: list[Path] = []
    if prompt is not None:
        folders += sorted(Path(prompt, SOURCES).glob("*")) if is_mixture(prompt) else [Path(prompt)]
    if bank is not None:
        folders += bank_folders(bank)
    if not folders and prompt is not None:  # a mixture of nothing: the base model, pooled as its sources would be
        folders = [Path(prompt)]
        described = read_mixture_card(prompt).get("backbone") or {}
    elif folders:
        described = read_card(folders[0])["backbone"]
    else:
        return None
    if described.get("fingerprint") != fingerprint:
        return None
    card = {"pooling": own.pooling, "normalized": own.normalized, "similarity": own.similarity, **described}
    return folders[0], Head(as_pooled(card["pooling"]), bool(card["normalized"]), str(card["similarity"]))


def _head_of_saved(folder: Path, own: Head) -> Head:
    """The head that `save_pretrained` wrote into a folder; `own`, the backbone's, where it wrote no modules."""
    if not (folder / "modules.json").is_file():
        return own
    try:
        modules = read_json(folder / "modules.json")
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        pooling = None
        if "Pooling" in kinds:
            place = modules[kinds.index("Pooling")]["path"]
            pooling = Pooling.load_config(str(folder), subfolder=place)["pooling_mode"]
        settings = read_json(folder / "config_sentence_transformers.json")
        return as_head(pooling, kinds[-1] == "Normalize", settings.get("similarity_fn_name") or "cosine")
    except (OSError, DataError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise PromptError(f"{folder}: its modules cannot be read ({error!r}): it was cut or altered") from error
