"""How PEFT lays a prompt out in its adapter files.

`adapter_model.safetensors` holds one tensor, `prompt_embeddings`. Of prompt tuning it is the vectors, (n, d). Of
prefix tuning it is (n, L * 2 * G * h), read as (n, 2L, G, h): layer by layer the key, then the value
(`PeftModel.get_prompt` of PEFT 0.21). `adapter_config.json` says which.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foreword.common.errors import PromptError
from foreword.prompts.prompt import BackboneShape
from foreword.prompts.spec import Kind

CONFIG, WEIGHTS, TENSOR = "adapter_config.json", "adapter_model.safetensors", "prompt_embeddings"

TYPES: dict[str, Kind] = {"PROMPT_TUNING": "input", "P_TUNING": "input", "PREFIX_TUNING": "prefix"}
"""What can be read; P-tuning (v1) stores what its network made, which is read as the vectors they are."""


def packed(kind: Kind, tensors: dict[str, Tensor]) -> Tensor:
    """PEFT's tensor from one part of a prompt: `vectors`, or `keys` and `values`, (L, n, G, h) each."""
    if kind == "input":
        return tensors["vectors"].float().cpu().contiguous()
    pairs = torch.stack([tensors["keys"], tensors["values"]], dim=1)  # (L, 2, n, G, h)
    return pairs.permute(2, 0, 1, 3, 4).flatten(1).float().cpu().contiguous()


def unpacked(kind: Kind, tensor: Tensor, shape: BackboneShape) -> dict[str, Tensor]:
    """One part of a prompt from PEFT's tensor.

    Raises:
        PromptError: it is not of this backbone's width.
    """
    if kind == "input":
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


def config_of(kind: Kind, length: int, shape: BackboneShape, backbone: str | None) -> dict[str, Any]:
    """The contents of `adapter_config.json`.

    Args:
        kind: `input` or `prefix`.
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
    if kind == "input":
        return {**common, "peft_type": "PROMPT_TUNING", "prompt_tuning_init": "RANDOM", "token_dim": shape.width}
    layer = shape.layers[0]
    return {
        **common,
        "peft_type": "PREFIX_TUNING",
        "prefix_projection": False,
        "num_attention_heads": layer.key_value_heads,
        "token_dim": layer.key_value_heads * layer.head_width,
    }
