"""Modules that some methods add to a copy of the encoder.

Shape legend: B batch, T tokens, d width of the backbone, d' of the embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn

from foreword.common.errors import BackboneError, PromptError
from foreword.prompts.transformer import PromptedTransformer


class Bottleneck(nn.Module):
    """h -> h + U relu(D h + b) + c, with U and c 0 at the start, so that it changes nothing then."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d), in the type that comes in."""
        change: Tensor = self.up(torch.relu(self.down(hidden.to(self.down.weight.dtype))))
        return hidden + change.to(hidden.dtype)


def add_bottlenecks(transformer: PromptedTransformer, bottleneck: int) -> list[nn.Parameter]:
    """Put one on the output of each layer of the backbone; returns their parameters.

    Raises:
        BackboneError: its layers cannot be told.
    """
    model: Any = transformer.model
    count = model.config.num_hidden_layers
    layers = next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count), None)
    if layers is None:
        raise BackboneError(f"{type(model).__name__} has no list of its {count} layers; it takes no adapters")
    device = next(model.parameters()).device
    parameters: list[nn.Parameter] = []
    for layer in layers:
        adapter = Bottleneck(transformer.shape.width, bottleneck).to(device)
        parameters += adapter.parameters()
        layer.add_module("adapter", adapter)
        layer.register_forward_hook(_adapted)
    return parameters


def _adapted(layer: Any, arguments: Any, output: Any) -> Any:
    return (layer.adapter(output[0]), *output[1:]) if isinstance(output, tuple) else layer.adapter(output)


class QueryAdapter(nn.Module):
    """q -> W q for the embeddings of queries, W the identity at the start; documents pass as they are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(width))

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Replace `sentence_embedding` (B, d'); never in low precision, in which the identity would round."""
        task = features.get("task")
        if task is None:
            raise PromptError("queries and documents are encoded differently here; call encode_query, encode_document")
        if task == "query":
            embeddings = features["sentence_embedding"]
            with torch.autocast(embeddings.device.type, enabled=False):
                features["sentence_embedding"] = embeddings.float() @ self.weight.T
        return features


def add_query_adapter(encoder: SentenceTransformer) -> QueryAdapter:
    """Put one last, but before the normalisation."""
    width = encoder.get_embedding_dimension()
    if width is None:
        raise BackboneError("the encoder does not say the width of its embeddings; it takes no linear adapter")
    adapter = QueryAdapter(width).to(encoder.device)
    name, last = list(encoder.named_children())[-1]
    if isinstance(last, Normalize):
        delattr(encoder, name)  # Sequential's own `del` renames what is left
    encoder.add_module("query_adapter", adapter)
    if isinstance(last, Normalize):
        encoder.add_module(name, last)
    return adapter


def keep_documents(transformer: PromptedTransformer, base: nn.Module) -> None:
    """Let the base model encode documents, so that an index that it built goes on working.

    Args:
        transformer: of the changed copy.
        base: the backbone that was copied. It is borrowed for the time of a forward pass, not owned.
    """
    changed = transformer.model

    def borrow(module: nn.Module, arguments: Any) -> None:
        task = arguments[0].get("task")
        if task is None:
            raise PromptError("queries and documents are encoded differently here; call encode_query, encode_document")
        if task == "document":
            transformer._modules["model"] = base

    def give_back(module: nn.Module, arguments: Any, output: Any) -> None:
        transformer._modules["model"] = changed

    transformer.register_forward_pre_hook(borrow)
    transformer.register_forward_hook(give_back, always_call=True)
