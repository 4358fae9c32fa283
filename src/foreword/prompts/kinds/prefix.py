"""`prefix`: n learned keys and values before every layer's own (P-tuning v2, Liu et al. 2022, 2110.07602)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from foreword.errors import BackboneError
from foreword.prompts.attention import Attended, AttentionCall, BatchPrompts
from foreword.prompts.kinds.kind import Carrier, Form, LayerKind
from foreword.prompts.spec import PromptSpec


class Prefix(LayerKind):
    """`keys` and `values` (L, n, G, h), which every token may attend to."""

    name = "prefix"
    axes = {  # noqa: RUF012  # nobody changes it
        "keys": ("layers", "length", "key-value heads", "head width"),
        "values": ("layers", "length", "key-value heads", "head width"),
    }
    peft = "PREFIX_TUNING"

    def check_backbone(self, spec: PromptSpec, carrier: Carrier) -> None:
        """Refuse kernels that take no mask of ours."""
        super().check_backbone(spec, carrier)
        if carrier.implementation not in ("sdpa", "eager"):
            raise BackboneError(
                f"prefix prompts need attn_implementation 'sdpa' or 'eager', not {carrier.implementation!r}"
            )

    def attend(self, prompts: BatchPrompts, layer: int, call: AttentionCall) -> Attended:
        """The layer's own attention over the prompt's keys and values, and then its own."""
        keys, values = (
            prompts.at(name, layer).flatten(1, 2).transpose(1, 2).expand(call.query.shape[0], -1, -1, -1)
            for name in ("keys", "values")
        )
        length, kwargs = keys.shape[2], dict(call.kwargs)
        mask = _extended_mask(call, length, prompts.present)
        bias = kwargs.get("position_bias")
        if bias is not None:  # a prompt vector has no place in the text: no relative position, no bias
            kwargs["position_bias"] = nn.functional.pad(bias, (length, 0))
        if mask is not None:  # a causal kernel would hide the prefix or shift the diagonal; the mask says it all
            kwargs["is_causal"] = False
        key = torch.cat([keys.to(call.key.dtype), call.key], 2)
        value = torch.cat([values.to(call.key.dtype), call.value], 2)
        return replace(call, key=key, value=value, mask=mask, kwargs=kwargs)()

    def why_not(self, form: Form, spec: PromptSpec, carrier: Carrier) -> str | None:
        """PEFT has those of all layers."""
        layers = len(carrier.shape.layers)
        if form == "peft" and spec.top_layers not in (None, layers):
            return (
                f"it stands in the top {spec.top_layers} of {layers} layers; PEFT fills layers from the bottom, so "
                "only prefixes of every layer can be exported"
            )
        return super().why_not(form, spec, carrier)


KIND = Prefix()


def _extended_mask(call: AttentionCall, length: int, present: Tensor | None) -> Tensor | None:
    """The mask (B or 1, 1, T, n + T), boolean (True: attend) or additive, whichever it was; None: all visible."""
    mask, tokens, keys = call.mask, call.query.shape[2], call.key.shape[2]
    if mask is None:
        causal = call.kwargs.get("is_causal")
        causal = bool(getattr(call.module, "is_causal", False) if causal is None else causal)
        if present is None and not causal:
            return None
        mask = torch.ones(1, 1, tokens, keys, dtype=torch.bool, device=call.query.device)
        mask = mask.tril(diagonal=keys - tokens) if causal else mask
    boolean = mask.dtype == torch.bool
    shown, hidden = (True, False) if boolean else (0.0, torch.finfo(mask.dtype).min)
    rows = mask.shape[0] if present is None else call.query.shape[0]
    prefix = mask.new_full((rows, 1, mask.shape[2], length), shown)
    if present is not None:
        prefix = prefix.masked_fill(~present.view(-1, 1, 1, 1), hidden)
    return torch.cat([prefix, mask.expand(rows, -1, -1, -1)], dim=-1)
