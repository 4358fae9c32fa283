"""`memory`: learned keys and values beside a layer's attention, beside its feed-forward part, or both.

Both parts of a layer look keys up and add values: attention's keys are the text's, weighed by softmax, the feed-forward
part's are its weights, weighed by its activation (Geva et al. 2021, 2012.14913). A prompt's own vectors join either
(He et al. 2022, 2110.04366). Values start at 0, which is the base model to the bit and yet learns from the first step;
what is added is linear in them: such prompts are mixed by weight, exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreword.errors import BackboneError
from foreword.prompts.attention import Attended, AttentionCall, BatchPrompts
from foreword.prompts.kinds.kind import Carrier, LayerKind, looked_up
from foreword.prompts.spec import BackboneShape, PromptSpec


class Memory(LayerKind):
    """`keys`, `values` (L, n, G, h) beside attention; `feed_forward_keys`, `feed_forward_values` (L, m, d)."""

    name = "memory"
    axes = {  # noqa: RUF012  # nobody changes it
        "keys": ("layers", "length", "key-value heads", "head width"),
        "values": ("layers", "length", "key-value heads", "head width"),
        "feed_forward_keys": ("layers", "feed-forward length", "hidden width"),
        "feed_forward_values": ("layers", "feed-forward length", "hidden width"),
    }
    linear = ("values", "feed_forward_values")

    def check_backbone(self, spec: PromptSpec, carrier: Carrier) -> None:
        """Refuse a place that the backbone has not, and say which one it has."""
        attention, feed_forward = carrier.refusal, carrier.feed_forward_refusal
        count = spec.length + spec.feed_forward
        if attention is not None and feed_forward is not None:
            raise BackboneError(f"{attention}; {feed_forward}; it takes prompts of kind 'input' only, not 'memory'")
        if attention is not None and spec.length:
            raise BackboneError(f"{attention}; choose length 0 and feed_forward {count}")
        if feed_forward is not None and spec.feed_forward:
            raise BackboneError(f"{feed_forward}; choose length {count} and feed_forward 0")

    def layers(self, spec: PromptSpec, shape: BackboneShape) -> tuple[int, ...]:
        """The top ones, or all; counted by the feed-forward parts where attention carries nothing."""
        return self.top(spec, len(shape.layers) if spec.length else shape.feed_forwards)

    def noise(self, carrier: Carrier, name: str) -> float:
        """Of feed-forward keys 2 / sqrt(d): products with MiniLM's states deviate by 1.3 to 1.6 (LOG.md)."""
        return 2 / carrier.shape.hidden**0.5 if name == "feed_forward_keys" else super().noise(carrier, name)

    def from_tokens(self, spec: PromptSpec, carrier: Carrier, ids: Tensor) -> dict[str, Tensor]:
        """Attention's keys; tokens' states would be feed-forward keys too much alike, which start from noise."""
        return {"keys": super().from_tokens(spec, carrier, ids)["keys"]} if spec.length else {}

    def attend(self, prompts: BatchPrompts, layer: int, call: AttentionCall) -> Attended:
        """The layer's own attention, and what the prompts add."""
        output, weights = call()
        if "keys" not in prompts.tensors:
            return output, weights
        added = looked_up(prompts, layer, call.query, call.kwargs.get("scaling"))
        if prompts.observe is not None:
            prompts.observe("attention", layer, output, added)
        return output + added, weights

    def feed(self, prompts: BatchPrompts, layer: int, states: Tensor, output: Tensor) -> Tensor:
        """`output + sum_s gelu(x K_s^T) V_s` over the sources s."""
        if "feed_forward_keys" not in prompts.tensors:
            return output
        keys, values = (prompts.at(f"feed_forward_{name}", layer).flatten(1, 2) for name in ("keys", "values"))
        weights = nn.functional.gelu(torch.matmul(states, keys.to(states.dtype).transpose(-1, -2)))  # (B, T, S*m)
        added = torch.matmul(weights, values.to(weights.dtype)).to(output.dtype)
        if prompts.observe is not None:
            prompts.observe("feed-forward", layer, output.unsqueeze(2), added.unsqueeze(2))
        return output + added


KIND = Memory()
