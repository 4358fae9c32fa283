"""`gated`: attention over n learned keys and values, added to a layer's own behind a gate that starts at 0.

As LLaMA-Adapter has it (Zhang et al. 2023, 2303.16199). A gate of 0 is the base model to the bit, and a sum of what
several prompts add is exact: such prompts are mixed by weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from foreword.prompts.attention import Attended, AttentionCall, BatchPrompts
from foreword.prompts.kinds.kind import Carrier, Form, LayerKind
from foreword.prompts.spec import PromptSpec


class Gated(LayerKind):
    """`keys`, `values` (L, n, G, h) and `gate` (L, H)."""

    name = "gated"
    axes = {  # noqa: RUF012  # nobody changes it
        "keys": ("layers", "length", "key-value heads", "head width"),
        "values": ("layers", "length", "key-value heads", "head width"),
        "gate": ("layers", "heads"),
    }
    gates = ("gate",)

    def attend(self, prompts: BatchPrompts, layer: int, call: AttentionCall) -> Attended:
        """The layer's own attention, and what the prompts add."""
        output, weights = call()
        added = gated_term(prompts, layer, call.query, call.kwargs.get("scaling"))
        if prompts.observe is not None:
            prompts.observe(layer, output, added)
        return output + added, weights

    def spots(self, part: Mapping[str, Tensor]) -> Tensor:
        """As of every kind in the layers, the values behind their gates."""
        values, gate = part["values"], part["gate"]  # (L, n, G, h), (L, H)
        values = values.repeat_interleave(gate.shape[1] // values.shape[2], dim=2) * gate[:, None, :, None]
        return super().spots({**part, "values": values})

    def why_not(self, form: Form, spec: PromptSpec, carrier: Carrier) -> str | None:
        """PEFT has none."""
        if form == "peft":
            return (
                "PEFT has no gated prompts of this form (its adaption prompts are made for decoders); it takes "
                "'prefix' prompts, and 'input' prompts of placement 'before'"
            )
        return super().why_not(form, spec, carrier)


KIND = Gated()


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
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows, sources, length = prompts.at("keys", layer).shape[:3]
    keys, values = (prompts.at(name, layer).flatten(1, 2).transpose(1, 2) for name in ("keys", "values"))
    if (heads := query.shape[1]) != keys.shape[1]:  # key/value heads that several query heads share
        keys, values = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (keys, values))
    scores = torch.matmul(query * scaling, keys.to(query.dtype).transpose(-1, -2))  # (B, H, T, S*n)
    shares = torch.softmax(scores.unflatten(-1, (sources, length)).float(), dim=-1)
    gate = prompts.at("gate", layer).transpose(1, 2).reshape(rows, heads, 1, sources, 1)
    weighted = (shares * gate).flatten(-2).to(query.dtype)
    return torch.matmul(weighted, values.to(query.dtype)).transpose(1, 2)
