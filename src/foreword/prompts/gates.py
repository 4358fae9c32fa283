"""In which layers and heads a gated prompt acts: the size of its gates, and of what it adds to the attention.

A gate alone says little: behind a wide gate may lie small values, and a layer's own output may be large. So what is
measured is the norm of the added term against the norm of the layer's own attention, on texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from foreword.common.errors import PromptError
from foreword.prompts.attention import SLOT, BatchPrompts
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import OWN, Default, Route, Routes
from foreword.prompts.spec import Side
from foreword.prompts.transformer import PromptedTransformer

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class GateStrength:
    """How strongly a prompt, or mixture, acts on one side's texts, by layer and head.

    Attributes:
        side: of the texts.
        layers: the L prompted layers, counted from the bottom, 0.
        gates: (L, H) the gates' sizes |g|; of a mixture, the sum of its sources', each times its weight.
        strength: (L, H) the norm of what the prompt adds to a head's output over the norm of that output itself, both
            over a text's tokens; the mean over the texts. At 1 the prompt says as much as the text.
        texts: how many.
    """

    side: Side
    layers: tuple[int, ...]
    gates: Array
    strength: Array
    texts: int

    def as_dict(self, domain: str) -> dict[str, Any]:
        """A record for the report: JSON values, with the domain whose prompt this is."""
        return {
            "domain": domain,
            "side": self.side,
            "layers": list(self.layers),
            "gates": np.round(self.gates, 6).tolist(),
            "strength": np.round(self.strength, 6).tolist(),
            "texts": self.texts,
        }


def gate_sizes(prompt: Prompt) -> dict[str, Array]:
    """|g| by part (`both`, or `query` and `document`): (L, H) each.

    Raises:
        PromptError: the prompt has no gates.
    """
    if prompt.spec.kind != "gated":
        raise PromptError(f"only gated prompts have gates; this one is of kind {prompt.spec.kind!r}")
    tensors = prompt.tensors()
    return {part: tensors[f"{part}.gate"].abs().double().cpu().numpy() for part in prompt.spec.parts}


def gate_strength(
    encoder: SentenceTransformer, texts: Sequence[str], side: Side, *, route: Route | Default = OWN, **how: Any
) -> GateStrength:
    """Encode texts and measure what the prompt adds in each layer and head.

    Args:
        encoder: from `load_encoder`.
        texts: of the prompt's domain; some hundred are plenty.
        side: `query` or `document`.
        route: the gated prompt or mixture; OWN: what the encoder is routed to.
        how: further arguments of `encode`, as `batch_size` and `max_length`.

    Raises:
        PromptError: no gated prompt encodes this side, or there are no texts.
    """
    if not texts:
        raise PromptError("no texts; what a prompt adds is measured on some of its domain")
    observer = _Observer()
    with observer.watching(transformer_of(encoder)):
        encode(encoder, texts, side, route=route, **{"quiet": True, **how})
    if observer.gates is None:
        raise PromptError(f"no gated prompt encodes a {side} here; give the route of one that does")
    strength = np.stack([observer.sums[layer] for layer in range(len(observer.layers))]) / len(texts)
    return GateStrength(side, observer.layers, observer.gates, strength, len(texts))


def gate_strengths(
    encoder: SentenceTransformer,
    queries: Sequence[str],
    documents: Sequence[str],
    *,
    route: Route | Default = OWN,
    **how: Any,
) -> list[GateStrength]:
    """`gate_strength` of queries and of documents, each where a prompt encodes them.

    Raises:
        PromptError: a prompt on the route is not gated, none encodes either side, or there are no texts.
    """
    transformer = transformer_of(encoder)
    chosen = transformer.route if isinstance(route, Default) else route
    texts: dict[Side, Sequence[str]] = {"query": queries, "document": documents}
    prompted: list[Side] = []
    for side in texts:
        one = (chosen.query if side == "query" else chosen.document) if isinstance(chosen, Routes) else chosen
        names = [one] if isinstance(one, str) else list(one or {})
        if any(transformer.prompt(name).part(side) is not None for name in names):
            prompted.append(side)
    if not prompted:
        raise PromptError("the base model encodes queries and documents here; give the route of a gated prompt")
    return [gate_strength(encoder, texts[side], side, route=route, **how) for side in prompted]


class _Observer:
    """Sums the ratios of every text by layer while batches go through the backbone."""

    def __init__(self) -> None:
        self.layers: tuple[int, ...] = ()
        self.gates: Array | None = None
        self.sums: dict[int, Array] = {}
        self._visible = torch.empty(0)

    @contextmanager
    def watching(self, transformer: PromptedTransformer) -> Iterator[None]:
        """Within the block, what goes through the transformer is measured."""
        layers = [module for module in transformer.model.modules() if hasattr(module, SLOT)]
        handles = [transformer.register_forward_pre_hook(self._begin)]
        handles += [layer.register_forward_pre_hook(self._ask, with_kwargs=True) for layer in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        """Keep which tokens of the batch are text."""
        self._visible = args[0]["attention_mask"].bool()  # (B, T)

    def _ask(self, _module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        """Have the batch's prompts show what they add to the layer."""
        batch = kwargs.get("foreword")
        if not isinstance(batch, BatchPrompts) or batch.gate is None:
            return
        batch.observe = self._note
        if self.gates is None:
            self.layers = tuple(sorted(batch.layers, key=lambda slot: batch.layers[slot]))
            # (R, L, S, H), equal in every row: one route encodes all texts
            self.gates = batch.gate[0].abs().sum(dim=1).double().cpu().numpy()

    def _note(self, layer: int, output: Tensor, added: Tensor) -> None:
        """Add a batch's ratios: tensors (B, T, H, h), of which padding does not count."""
        own, more = (self._norms(tensor) for tensor in (output, added))
        ratios = (more / own.clamp(min=torch.finfo(torch.float32).tiny)).double().sum(dim=0).cpu().numpy()
        self.sums[layer] = self.sums.get(layer, 0.0) + ratios

    def _norms(self, tensor: Tensor) -> Tensor:
        """(B, T, H, h) -> (B, H): over a text's tokens and a head's width."""
        seen = tensor.float() * self._visible[:, :, None, None]
        return seen.square().sum(dim=(1, 3)).sqrt()
