"""PEFT's adapter files as a stored prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import Tensor

from foreword.common.errors import DataError, PromptError
from foreword.common.files import sha256_file
from foreword.exporting.peft_layout import CONFIG, TENSOR, TYPES, WEIGHTS, unpacked
from foreword.prompts.encoder import transformer_of
from foreword.prompts.mixture import is_mixture
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import PromptSpec, Sides
from foreword.prompts.store import CARD, StoredPrompt, load_prompt, save_prompt


def import_peft(
    folder: str | Path, encoder: SentenceTransformer, output: str | Path, domain: str, *, sides: Sides | None = None
) -> StoredPrompt:
    """Store a prompt that PEFT trained, or that `export_peft` wrote, in full precision.

    Its values are taken as they are. Of a `prefix`, PEFT's training moved the text's positions by the prompt's length,
    which is not done here: evaluate it before it is relied on.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`, or with `query` and `document` of such.
        encoder: from `load_encoder`, with the backbone that it was trained on and the pooling to use it with.
        output: the stored prompt's folder.
        domain: the name it goes by.
        sides: of a folder without `query` and `document`: `shared` (None) or `query`.

    Raises:
        PromptError: the files are not there, cannot be read, or are of another method or backbone.
        DataError: `output` holds a prompt already.
    """
    if (Path(output) / CARD).exists() or is_mixture(output):
        raise DataError("holds a prompt already; give another --output, or remove it first", path=output)
    places = adapters_in(folder, sides)
    found: dict[str, tuple[Mapping[str, Any], Tensor]] = {part: read_adapter(place) for part, place in places.items()}
    kinds = {TYPES[config["peft_type"]] for config, _ in found.values()}
    lengths = {tensor.shape[0] for _, tensor in found.values()}
    if len(kinds) > 1 or len(lengths) > 1:
        raise PromptError(f"{folder}: query and document differ in kind or length; a prompt has one of each")
    kind = kinds.pop()
    transformer = transformer_of(encoder)
    if kind != "input" and transformer.refusal is not None:
        raise PromptError(f"{transformer.refusal}; a prefix cannot be imported for it")
    own: Sides = "shared" if "both" in places else "untied" if len(places) == 2 else "query"
    spec = PromptSpec(kind, lengths.pop(), sides=own, placement="before" if kind == "input" else None)
    tensors = {
        f"{part}.{name}": tensor
        for part, (_, packed) in found.items()
        for name, tensor in unpacked(kind, packed, transformer.shape).items()
    }
    record = {
        "imported": {
            part: {
                "from": "peft",
                "peft_type": config["peft_type"],
                "base_model_name_or_path": config.get("base_model_name_or_path"),
                "sha256": sha256_file(places[part] / WEIGHTS),
            }
            for part, (config, _) in found.items()
        }
    }
    save_prompt(output, Prompt(spec, tensors), encoder, domain, dtype="float32", record=record)
    return load_prompt(output, encoder)


def adapters_in(folder: str | Path, sides: Sides | None) -> dict[str, Path]:
    """The adapters' folders by part of the prompt.

    Raises:
        PromptError: there are none, or not those that `sides` asks for.
    """
    folder = Path(folder)
    below = {side: folder / side for side in ("query", "document") if (folder / side / CONFIG).is_file()}
    if (folder / CONFIG).is_file():
        if sides == "untied":
            raise PromptError(f"{folder} holds one adapter; sides 'untied' are two, in {folder}/query and .../document")
        return {"query": folder} if sides == "query" else {"both": folder}
    if "query" not in below:
        raise PromptError(
            f"{folder} holds no {CONFIG}, nor do query and document below it: give a PEFT adapter's folder"
        )
    given: Sides = "untied" if len(below) == 2 else "query"
    if sides not in (None, given):
        raise PromptError(f"{folder} holds {' and '.join(below)}, which are sides {given!r}, not {sides!r}")
    return below


def read_adapter(folder: Path) -> tuple[dict[str, Any], Tensor]:
    """An adapter's configuration and its tensor, (n, ...).

    Raises:
        PromptError: it cannot be read, or is of a method that is no prompt of one encoder.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = config["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptError(f"{folder / CONFIG} cannot be read as a PEFT configuration: {error!r}") from error
    if kind not in TYPES:
        raise PromptError(f"{folder} is of PEFT's type {kind}; of its methods {', '.join(TYPES)} can be imported")
    if config.get("num_transformer_submodules") not in (None, 1):
        raise PromptError(
            f"{folder} was made for an encoder with a decoder; only prompts of one encoder can be imported"
        )
    path = folder / WEIGHTS
    if not path.is_file():
        raise PromptError(f"{folder} has no {WEIGHTS} (pickles, .bin, are not read): save it with safe_serialization")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise PromptError(f"{path} cannot be read: {error}") from error
    if set(tensors) != {TENSOR} or tensors[TENSOR].ndim != 2:
        raise PromptError(f"{path} holds {sorted(tensors)}; expected {TENSOR} alone, of two dimensions")
    return config, tensors[TENSOR]
