"""Attention that carries prompts, registered with transformers beside its own implementations.

Every layer's call goes to the implementation the backbone had (sdpa, flash, eager), and the prompt of the batch,
handed down as the keyword argument `foreword`, is added to it (`gated`) or put before its keys and values
(`prefix`). Without that argument the call is the backbone's own, to the bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from foreword.errors import BackboneError
from foreword.prompts.prompt import LayerShape

SLOT = "foreword_slot"
"""The attribute of an attention module that says which prompted layer it is."""


@dataclass
class Recorder:
    """Notes which attention modules a forward pass goes through, in order, with their keys and values.

    `keys` and `values` hold, for each, tensors of shape (B, G, T, h).
    """

    modules: list[nn.Module] = field(default_factory=list)
    shapes: list[LayerShape] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def note(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Add one layer."""
        self.modules.append(module)
        self.shapes.append(LayerShape(query.shape[1], key.shape[1], key.shape[3]))
        self.keys.append(key.detach())
        self.values.append(value.detach())


@dataclass
class BatchPrompts:
    """The prompts of one batch, ready for the layers.

    Attributes:
        layers: the slot of a module -> its place on the axis L; a slot that is not here carries no prompt.
        keys: (R, L, S, n, G, h).
        values: (R, L, S, n, G, h).
        gate: (R, L, S, H), already times each source's weight; None for `prefix`.
        present: (R,) bool: rows that have a prefix; None: all of them. Gated rows without a prompt have gate 0.
        observe: called in each layer of a `gated` prompt with its place on the axis L, the layer's own output and
            what the prompt adds to it, both (B, T, H, h).
    """

    layers: dict[int, int]
    keys: Tensor
    values: Tensor
    gate: Tensor | None
    present: Tensor | None = None
    observe: Callable[[int, Tensor, Tensor], None] | None = None


def prompted_implementation(implementation: str) -> str:
    """Register attention and mask functions around `implementation`; returns the name they go by.

    The mask function has to be registered under the same name: without it transformers hands the attention no
    mask at all, and padding is attended to.
    """
    name = f"foreword-{implementation}"
    if implementation not in ALL_MASK_ATTENTION_FUNCTIONS:
        raise BackboneError(
            f"attention implementation {implementation!r} has no mask function in transformers; load the backbone "
            "with attn_implementation='sdpa' or 'eager'"
        )

    def forward(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
    ) -> tuple[Tensor, Any]:
        prompts = kwargs.pop("foreword", None)
        base = _own_attention(module, implementation)
        if prompts is None:
            return base(module, query, key, value, attention_mask, **kwargs)
        if isinstance(prompts, Recorder):
            prompts.note(module, query, key, value)
            return base(module, query, key, value, attention_mask, **kwargs)
        layer = prompts.layers.get(getattr(module, SLOT, -1))
        if layer is None:
            return base(module, query, key, value, attention_mask, **kwargs)
        if prompts.gate is None:
            return _with_prefix(base, prompts, layer, module, query, key, value, attention_mask, **kwargs)
        output, weights = base(module, query, key, value, attention_mask, **kwargs)
        added = gated_term(prompts, layer, query, kwargs.get("scaling"))
        if prompts.observe is not None:
            prompts.observe(layer, output, added)
        return output + added, weights

    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name


def _own_attention(module: nn.Module, implementation: str) -> Callable[..., tuple[Tensor, Any]]:
    """The backbone's attention function; `eager` is not registered but lies in each model's own file."""
    if implementation != "eager":
        return ALL_ATTENTION_FUNCTIONS[implementation]  # type: ignore[no-any-return]
    file = sys.modules[type(module).__module__]
    return file.eager_attention_forward  # type: ignore[no-any-return]


def gated_term(prompts: BatchPrompts, layer: int, query: Tensor, scaling: float | None) -> Tensor:
    """`sum_s g_s softmax(q K_s^T * scaling) V_s` over the sources s: what a gated prompt adds to a layer.

    Args:
        prompts: the prompts of the batch.
        layer: the place on their axis L.
        query: (B, H, T, h), as the layer's own attention sees it.
        scaling: the interface's own factor (T5 has 1.0); None: h ** -0.5.

    Returns:
        (B, T, H, h), as attention functions return it.
    """
    assert prompts.gate is not None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    keys, values = (_per_head(t[:, layer], query.shape[1]) for t in (prompts.keys, prompts.values))
    rows, sources, length = prompts.keys.shape[0], *prompts.keys.shape[2:4]
    scores = torch.matmul(query * scaling, keys.to(query.dtype).transpose(-1, -2))  # (B, H, T, S*n)
    shares = torch.softmax(scores.unflatten(-1, (sources, length)).float(), dim=-1)
    gate = prompts.gate[:, layer].transpose(1, 2).reshape(rows, query.shape[1], 1, sources, 1)
    weighted = (shares * gate).flatten(-2).to(query.dtype)
    return torch.matmul(weighted, values.to(query.dtype)).transpose(1, 2)


def _per_head(tensor: Tensor, heads: int) -> Tensor:
    """(R, S, n, G, h) -> (R, H, S*n, h): sources side by side, shared key/value heads repeated."""
    flat = tensor.flatten(1, 2).transpose(1, 2)
    return flat if flat.shape[1] == heads else flat.repeat_interleave(heads // flat.shape[1], dim=1)


def _with_prefix(
    base: Callable[..., tuple[Tensor, Any]],
    prompts: BatchPrompts,
    layer: int,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """The layer's attention with n keys and values before its own, which every token may attend to."""
    batch, length = query.shape[0], prompts.keys.shape[3]
    prefix_keys, prefix_values = (
        t[:, layer].flatten(1, 2).transpose(1, 2).expand(batch, -1, -1, -1).to(key.dtype)
        for t in (prompts.keys, prompts.values)
    )
    is_causal = kwargs.get("is_causal")
    is_causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    mask = _extended_mask(attention_mask, query, key, length, bool(is_causal), prompts.present)
    bias = kwargs.get("position_bias")
    if bias is not None:  # a prompt vector has no place in the text: no relative position, no bias
        kwargs["position_bias"] = nn.functional.pad(bias, (length, 0))
    if mask is not None:  # a causal kernel would hide the prefix or shift the diagonal; the mask says it all
        kwargs["is_causal"] = False
    return base(module, query, torch.cat([prefix_keys, key], 2), torch.cat([prefix_values, value], 2), mask, **kwargs)


def _extended_mask(
    mask: Tensor | None, query: Tensor, key: Tensor, length: int, causal: bool, present: Tensor | None
) -> Tensor | None:
    """The mask (B or 1, 1, T, n + T), boolean (True: attend) or additive, whichever it was; None: all visible."""
    tokens, keys = query.shape[2], key.shape[2]
    if mask is None:
        if present is None and not causal:
            return None
        mask = torch.ones(1, 1, tokens, keys, dtype=torch.bool, device=query.device)
        mask = mask.tril(diagonal=keys - tokens) if causal else mask
    boolean = mask.dtype == torch.bool
    shown, hidden = (True, False) if boolean else (0.0, torch.finfo(mask.dtype).min)
    rows = mask.shape[0] if present is None else query.shape[0]
    prefix = mask.new_full((rows, 1, mask.shape[2], length), shown)
    if present is not None:
        prefix = prefix.masked_fill(~present.view(-1, 1, 1, 1), hidden)
    return torch.cat([prefix, mask.expand(rows, -1, -1, -1)], dim=-1)
