"""Prompts as PEFT's adapter files. PEFT itself is not needed to write them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

import torch
from safetensors.torch import save
from sentence_transformers import SentenceTransformer
from torch import Tensor

from foreword.errors import DataError, PromptError
from foreword.exporting.folder import carried_by, new_folder, origin, write_readme
from foreword.files import atomic_write, read_json, sha256_file, write_json
from foreword.prompts.backbone import check_fields, read_tensors
from foreword.prompts.encoder import transformer_of
from foreword.prompts.kinds.kind import Adapter
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import KINDS, BackboneShape, PromptSpec, Sides, loaded
from foreword.prompts.store import CARD, StoredPrompt, folder_name, is_mixture, load_prompt, save_prompt
from foreword.prompts.transformer import PromptedTransformer

# How PEFT lays a prompt out in its adapter files.
#
# `adapter_model.safetensors` holds one tensor, `prompt_embeddings`. Of prompt tuning it is the vectors, (n, d). Of
# prefix tuning it is (n, L * 2 * G * h), read as (n, 2L, G, h): layer by layer the key, then the value
# (`PeftModel.get_prompt` of PEFT 0.21). `adapter_config.json` says which.


CONFIG, WEIGHTS, TENSOR = "adapter_config.json", "adapter_model.safetensors", "prompt_embeddings"

TYPES: dict[str, Adapter] = {
    "PROMPT_TUNING": "PROMPT_TUNING",
    "P_TUNING": "PROMPT_TUNING",
    "PREFIX_TUNING": "PREFIX_TUNING",
}
"""What can be read, and as what; P-tuning (v1) stores what its network made, which is read as the vectors they are."""


def packed(adapter: Adapter, tensors: dict[str, Tensor]) -> Tensor:
    """PEFT's tensor from one part of a prompt: `vectors`, or `keys` and `values`, (L, n, G, h) each."""
    if adapter == "PROMPT_TUNING":
        return tensors["vectors"].float().cpu().contiguous()
    if adapter == "PREFIX_TUNING":
        pairs = torch.stack([tensors["keys"], tensors["values"]], dim=1)  # (L, 2, n, G, h)
        return pairs.permute(2, 0, 1, 3, 4).flatten(1).float().cpu().contiguous()
    assert_never(adapter)


def unpacked(adapter: Adapter, tensor: Tensor, shape: BackboneShape) -> dict[str, Tensor]:
    """One part of a prompt from PEFT's tensor.

    Raises:
        PromptError: it is not of this backbone's width.
    """
    if adapter == "PROMPT_TUNING":
        _check_width(tensor, shape.width, "the backbone's width")
        return {"vectors": tensor.float()}
    layer = shape.layers[0]
    layers, heads, width = len(shape.layers), layer.key_value_heads, layer.head_width
    _check_width(tensor, layers * 2 * heads * width, f"{layers} layers x 2 x {heads} heads x {width}")
    pairs = tensor.float().unflatten(1, (layers, 2, heads, width)).permute(1, 2, 0, 3, 4)  # (L, 2, n, G, h)
    return {"keys": pairs[:, 0].contiguous(), "values": pairs[:, 1].contiguous()}


def _check_width(tensor: Tensor, wanted: int, what: str) -> None:
    if tensor.ndim != 2 or tensor.shape[1] != wanted:
        raise PromptError(
            f"{TENSOR} has shape {tuple(tensor.shape)}; this backbone takes (n, {wanted}): {what}. Give the backbone "
            "that the adapter was trained on"
        )


def config_of(adapter: Adapter, length: int, shape: BackboneShape, backbone: str | None) -> dict[str, Any]:
    """The contents of `adapter_config.json`.

    Args:
        adapter: which of them.
        length: n.
        shape: of the backbone.
        backbone: its name.
    """
    common: dict[str, Any] = {
        "base_model_name_or_path": backbone,
        "inference_mode": True,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": length,
        "task_type": "FEATURE_EXTRACTION",
    }
    if shape.layers:  # PEFT looks these up by names that not every backbone's configuration has
        common |= {"num_layers": len(shape.layers), "num_attention_heads": shape.layers[0].heads}
    if adapter == "PROMPT_TUNING":
        return {**common, "peft_type": adapter, "prompt_tuning_init": "RANDOM", "token_dim": shape.width}
    layer = shape.layers[0]
    return {
        **common,
        "peft_type": adapter,
        "prefix_projection": False,
        "num_attention_heads": layer.key_value_heads,
        "token_dim": layer.key_value_heads * layer.head_width,
    }


def export_peft(encoder: SentenceTransformer, output: str | Path) -> list[str]:
    """Write the encoder's prompts as adapters that `peft.PeftModel.from_pretrained` reads.

    Of one prompt the adapter lies in `output`, of several in a folder for each domain; where the sides differ, in
    `query` and `document` below it.

    Args:
        encoder: from `load_encoder`, with `input` prompts before the text, or `prefix` prompts.
        output: a folder that is not there yet.

    Returns:
        What to know about how PEFT runs them on this backbone.

    Raises:
        PromptError: PEFT has no such prompt.
        DataError: `output` is there already.
    """
    transformer = carried_by(encoder)
    for domain in transformer.domains:
        prompt = transformer.prompt(domain)
        if why := prompt.kind.why_not("peft", prompt.spec, transformer):
            raise PromptError(f"{domain}: {why}")
    if len({folder_name(domain) for domain in transformer.domains}) < len(transformer.domains):
        raise PromptError(f"the names {', '.join(transformer.domains)} do not give folders of their own; rename one")
    kind = type(transformer.model).__name__
    loader = kind if kind.endswith("EncoderModel") else "AutoModel"  # of T5, AutoModel has a decoder too
    notes: list[str] = []
    with new_folder(output) as folder:
        for domain in transformer.domains:
            prompt = transformer.prompt(domain)
            below = folder / folder_name(domain) if len(transformer.domains) > 1 else folder
            parts = {part: "" if part == "both" else part for part in prompt.spec.parts}
            adapter, name = prompt.kind.peft, transformer.backbone.name if transformer.backbone else None
            assert adapter is not None
            for part, place in parts.items():
                tensors = {n.partition(".")[2]: t for n, t in prompt.tensors().items() if n.startswith(f"{part}.")}
                with atomic_write(below / place / WEIGHTS, "wb") as file:
                    file.write(save({TENSOR: packed(adapter, tensors)}, metadata={"format": "pt"}))
                write_json(below / place / CONFIG, config_of(adapter, prompt.spec.length, transformer.shape, name))
            said = notes_on(transformer, prompt)
            notes += [note for note in said if note not in notes]
            title = Path(output).name if below == folder else domain
            about = {"notes": said, "origin": origin(transformer.backbone), "loader": loader}
            backbone = transformer.backbone.name if transformer.backbone else "BACKBONE"
            subfolder = next(iter(parts.values()))
            write_readme(below, "peft", title, "peft", parts=parts, subfolder=subfolder, backbone=backbone, **about)
    return notes


PREFIX_NOTE = """\
PEFT moves a text's positions by the prompt's length; Foreword leaves them where they are. For equal results give PEFT
positions that are so much less:

```python
mask = batch["attention_mask"]
positions = {positions} - model.active_peft_config.num_virtual_tokens
model(**batch, position_ids=positions)
```"""


def notes_on(transformer: PromptedTransformer, prompt: Prompt) -> list[str]:
    """What differs between PEFT's own forward pass and ours on this backbone."""
    left = getattr(transformer.tokenizer, "padding_side", "right") == "left"
    if prompt.kind.peft == "PROMPT_TUNING":
        if not left:
            return []
        return [
            "PEFT puts its vectors before the padding, which stands on the left here: encode texts of equal length "
            "together, or one by one."
        ]
    kind = type(transformer.model).__name__
    if "past_key_values" not in inspect.signature(transformer.model.forward).parameters:
        return [
            f"PEFT hands a prefix over as `past_key_values`, which {kind} does not take: its forward pass fails, or "
            "leaves the prefix out without a word. `foreword import` reads these files, and runs them."
        ]
    positions = "(mask.cumsum(1) - 1).clamp(min=0)" if left else "mask.cumsum(1) - 1"
    first = getattr(transformer.model.get_input_embeddings(), "padding_idx", None)
    places = (part for name, part in transformer.model.named_modules() if name.endswith("position_embeddings"))
    if first is not None and any(getattr(part, "padding_idx", None) is not None for part in places):  # as RoBERTa's
        positions = f"mask.cumsum(1) + {first}"
    return [PREFIX_NOTE.format(positions=positions)]


# PEFT's adapter files as a stored prompt.


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
    adapters = {TYPES[config["peft_type"]] for config, _ in found.values()}
    lengths = {tensor.shape[0] for _, tensor in found.values()}
    if len(adapters) > 1 or len(lengths) > 1:
        raise PromptError(f"{folder}: query and document differ in kind or length; a prompt has one of each")
    adapter = adapters.pop()
    kind = next(kind for kind in map(loaded, KINDS) if kind.peft == adapter)
    transformer = transformer_of(encoder)
    if not kind.among_words and transformer.refusal is not None:
        raise PromptError(f"{transformer.refusal}; a prefix cannot be imported for it")
    own: Sides = "shared" if "both" in places else "untied" if len(places) == 2 else "query"
    spec = PromptSpec(kind.name, lengths.pop(), sides=own, placement="before" if kind.among_words else None)
    tensors = {
        f"{part}.{name}": tensor
        for part, (_, packed) in found.items()
        for name, tensor in unpacked(adapter, packed, transformer.shape).items()
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
        config = read_json(folder / CONFIG)
    except (OSError, DataError) as error:
        raise PromptError(f"{folder / CONFIG} cannot be read as a PEFT configuration: {error!r}") from error
    if not isinstance(config, dict):
        raise PromptError(f"{folder / CONFIG} cannot be read as a PEFT configuration: expected a JSON object")
    optional = {"num_transformer_submodules": int, "base_model_name_or_path": str}
    check_fields(folder / CONFIG, config, {"peft_type": str}, optional)
    kind = config["peft_type"]
    if kind not in TYPES:
        raise PromptError(f"{folder} is of PEFT's type {kind}; of its methods {', '.join(TYPES)} can be imported")
    if config.get("num_transformer_submodules") not in (None, 1):
        raise PromptError(
            f"{folder} was made for an encoder with a decoder; only prompts of one encoder can be imported"
        )
    path = folder / WEIGHTS
    if not path.is_file():
        raise PromptError(f"{folder} has no {WEIGHTS} (pickles, .bin, are not read): save it with safe_serialization")
    tensors = read_tensors(path)
    if set(tensors) != {TENSOR} or tensors[TENSOR].ndim != 2:
        raise PromptError(f"{path} holds {sorted(tensors)}; expected {TENSOR} alone, of two dimensions")
    return config, tensors[TENSOR]
