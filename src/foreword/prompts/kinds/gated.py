"""`gated`: attention over n learned keys and values, added to a layer's own behind a gate that starts at 0.

As LLaMA-Adapter has it (Zhang et al. 2023, 2303.16199). A gate of 0 is the base model to the bit, and a sum of what
several prompts add is exact: such prompts are mixed by weight.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from foreword.prompts.attention import Attended, AttentionCall, BatchPrompts
from foreword.prompts.kinds.kind import Carrier, Form, LayerKind, looked_up
from foreword.prompts.spec import PromptSpec


class Gated(LayerKind):
    """`keys`, `values` (L, n, G, h) and `gate` (L, H)."""

    name = "gated"
    axes = {  # noqa: RUF012  # nobody changes it
        "keys": ("layers", "length", "key-value heads", "head width"),
        "values": ("layers", "length", "key-value heads", "head width"),
        "gate": ("layers", "heads"),
    }
    linear = ("gate",)

    def attend(self, prompts: BatchPrompts, layer: int, call: AttentionCall) -> Attended:
        """The layer's own attention, and what the prompts add."""
        output, weights = call()
        added = looked_up(prompts, layer, call.query, call.kwargs.get("scaling"), prompts.at("gate", layer))
        if prompts.observe is not None:
            prompts.observe("attention", layer, output, added)
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
