"""An encoder as one graph of which prompts are inputs, whatever their length: what ONNX and int8 are made of."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from foreword.errors import BackboneError, PromptError
from foreword.prompts.attention import BatchPrompts, in_play
from foreword.prompts.encoder import head_of, leaves_out_text_prompt, transformer_of
from foreword.prompts.kinds.kind import FEED_FORWARD, LAYERS, VECTORS, PromptKind, kind_of
from foreword.prompts.routes import OneRoute, common_spec, layer_weights, names_of, parts_of
from foreword.prompts.spec import PromptSpec
from foreword.prompts.transformer import PromptedTransformer, positions_in_text
from foreword.settings import Side
from foreword.terminal import quietly


def input_axes(spec: PromptSpec) -> dict[str, tuple[str, ...]]:
    """The prompt's inputs and their axes; those in the layers have `sources` side by side: 1, or those of a mixture."""
    kind = kind_of(spec)
    axes = {name: kind.axes[name] for name in kind.tensors(spec)}
    return {name: (LAYERS, "sources", *own[1:]) if own[0] == LAYERS else own for name, own in axes.items()}


def free_axes(kind: PromptKind) -> set[str]:
    """The axes of any size. A mixture's weights are in its linear tensors, so only kinds that mix have many sources."""
    return {VECTORS, FEED_FORWARD, "sources"} if kind.mixes else {VECTORS}


class Traced:
    """A backbone as a graph of it is made: called by itself, without what sentence-transformers does around it."""

    position_limit: int | None = None  # a graph is made of no one length of text

    def __init__(self, transformer: PromptedTransformer) -> None:
        self.model, self.tokenizer, self.shape = transformer.model, transformer.tokenizer, transformer.shape
        self.refusal, self.feed_forward_refusal = transformer.refusal, transformer.feed_forward_refusal
        self.implementation = transformer.implementation
        self.rotary, self.first_token = transformer.rotary, transformer.first_token
        self.module_output_name = transformer.module_output_name
        self.record = transformer.record

    def run(self, features: dict[str, Any], prompts: BatchPrompts | None = None, **_: Any) -> dict[str, Any]:
        """As `PromptedTransformer.run`; whatever the padding, positions are counted in the text."""
        inputs: dict[str, Any] = {name: value for name, value in features.items() if isinstance(value, Tensor)}
        if prompts is not None and self.rotary:
            inputs["position_ids"] = positions_in_text(features["attention_mask"])
        with in_play(prompts):
            return {**features, self.module_output_name: self.model(**inputs)[0]}


class Graph(nn.Module):
    """What is exported: token ids, mask and prompt to embeddings, (B, d')."""

    def __init__(self, encoder: SentenceTransformer, spec: PromptSpec) -> None:
        super().__init__()
        self.encoder, self.spec, self.kind = encoder, spec, kind_of(spec)
        self.carrier = Traced(transformer_of(encoder))
        self.types = takes_types(encoder)
        head = head_of(encoder)
        self.unit = head.similarity == "cosine" and not head.normalized

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *rest: Tensor) -> Tensor:
        """Embeddings (B, d') of token ids (B, T); `rest`: `token_type_ids` where taken, then the prompt's tensors."""
        features: dict[str, Tensor] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.types:
            features["token_type_ids"], rest = rest[0], rest[1:]
        prompt = {name: tensor.unsqueeze(0) for name, tensor in zip(input_axes(self.spec), rest, strict=True)}
        modules = list(self.encoder)
        features = self.kind.forward(self.spec, self.carrier, features, prompt)
        for module in modules[1:]:
            features = module(features)
        embeddings = features["sentence_embedding"]
        return nn.functional.normalize(embeddings, dim=1) if self.unit else embeddings


def takes_types(encoder: SentenceTransformer) -> bool:
    """Whether the tokenizer makes token types, and the backbone takes them."""
    transformer = transformer_of(encoder)
    tokenizer: Any = transformer.tokenizer
    made = "token_type_ids" in tokenizer(["a"])
    return made and "token_type_ids" in inspect.signature(transformer.model.forward).parameters


def check_text_prompt(encoder: SentenceTransformer) -> None:
    """Raise `PromptError` where a graph's pooling would take in what the encoder's leaves out."""
    if leaves_out_text_prompt(encoder):
        raise PromptError(
            "the backbone's pooling leaves out its own text prompt, whose tokens a graph cannot tell from the text's"
        )


def write_graph(path: Path, encoder: SentenceTransformer, spec: PromptSpec) -> None:
    """Export the encoder, for prompts of the kind, places, layers and placement of `spec`, to `path`.

    Args:
        path: of the file to write.
        encoder: from `load_encoder`.
        spec: of the prompts.

    Raises:
        BackboneError: torch cannot export this backbone.
    """
    graph = Graph(encoder, spec).eval()
    tokenizer: Any = transformer_of(encoder).tokenizer
    tokens = tokenizer(["a short text", "a"], padding=True, return_tensors="pt")
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if graph.types else [])]
    inputs: list[Tensor] = [tokens[name] for name in names]
    rows: dict[str, dict[int, str]] = {}
    base = base_inputs(encoder, spec)
    for name, axes in input_axes(spec).items():
        rows[name] = {place: axis for place, axis in enumerate(axes) if axis in free_axes(graph.kind)}
        # of two entries where any number may be: 0 and 1 would be taken for constants
        inputs.append(torch.zeros([2 if place in rows[name] else size for place, size in enumerate(base[name].shape)]))
    texts = {0: "batch", 1: "tokens"}
    shapes = (texts, texts, (*([texts] if graph.types else []), *rows.values()))
    try:
        with quietly(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                tuple(inputs),
                dynamic_shapes=shapes,
                input_names=[*names, *rows],
                output_names=["embeddings"],
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            functions = (function.all_nodes() for function in program.model.functions.values())
            for node in chain(program.model.graph.all_nodes(), *functions):
                node.metadata_props.clear()  # it says from which file of this machine the node was made
            program.save(path)
    except (torch.onnx.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
        kind = type(transformer_of(encoder).model).__name__
        said = str(error).strip().splitlines()
        raise BackboneError(
            f"torch cannot export {kind} with {spec.kind} prompts to ONNX ({said[0] if said else type(error).__name__})"
        ) from error


def graph_spec(transformer: PromptedTransformer, names: Collection[str]) -> PromptSpec:
    """The kind, layers and placement that prompts have in common, with as many vectors in each place as the longest.

    Raises:
        PromptError: they need graphs of their own.
    """
    specs = [transformer.prompt(name).spec for name in sorted(names)]
    first = specs[0]
    for spec in specs:
        if (spec.kind, spec.top_layers, spec.placement) != (first.kind, first.top_layers, first.placement):
            raise PromptError("prompts of different kinds, layers or placements need a graph each; export them apart")
    return replace(first, length=max(s.length for s in specs), feed_forward=max(s.feed_forward for s in specs))


def prompt_inputs(encoder: SentenceTransformer, spec: PromptSpec, route: OneRoute, side: Side) -> dict[str, Tensor]:
    """The graph's inputs for a route: a prompt's tensors, those of a mixture's sources side by side, or the base's."""
    transformer = transformer_of(encoder)
    names = names_of(route)
    prompts = [transformer.prompt(name) for name in names]
    if len(prompts) > 1:
        common_spec(prompts)
    parts = parts_of(prompts, side)
    if not parts:
        return base_inputs(encoder, spec)
    kind, weights = kind_of(spec), None
    if isinstance(route, Mapping) and kind.mixes:
        weights = layer_weights(route, len(kind.layers(spec, transformer.shape))).detach()
    values = [{name: tensor.detach().float().cpu() for name, tensor in part.items()} for part in parts]
    tensors = {name: tensor[0] for name, tensor in kind.together(values, weights).items()}
    return base_inputs(encoder, spec, len(parts)) | tensors


def base_inputs(encoder: SentenceTransformer, spec: PromptSpec, sources: int = 1) -> dict[str, Tensor]:
    """The base model: a vector of 0 in each place, or a prompt of no vectors."""
    kind, shape = kind_of(spec), transformer_of(encoder).shape
    length = int(kind.mixes)
    sizes = kind.sizes(spec, shape) | {"sources": sources, VECTORS: length, FEED_FORWARD: length}
    return {name: torch.zeros([sizes[axis] for axis in axes]) for name, axes in input_axes(spec).items()}
