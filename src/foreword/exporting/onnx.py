"""A folder with an ONNX graph, the prompts it takes as inputs, whatever their length, and the tokenizer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn

from foreword.errors import BackboneError, ForewordError, PromptError
from foreword.exporting.folder import check_equal, new_folder, origin, proof_texts, quietly, write_readme
from foreword.files import atomic_write, write_json
from foreword.prompts.attention import BatchPrompts, in_play
from foreword.prompts.encoder import head_of, text_prompt, transformer_of
from foreword.prompts.kinds.kind import FEED_FORWARD, LAYERS, VECTORS, PromptKind, kind_of
from foreword.prompts.routes import OneRoute, Route, common_spec, layer_weights, names_of, parts_of, route_of_side
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import folder_name
from foreword.prompts.transformer import PromptedTransformer, positions_in_text
from foreword.settings import SIDES, Side


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


def write_graph(path: Path, encoder: SentenceTransformer, spec: PromptSpec, prompt: Mapping[str, Tensor]) -> None:
    """Export the encoder, for prompts of the kind, places, layers and placement of `spec`, to `path`.

    Args:
        path: of the file to write.
        encoder: from `load_encoder`.
        spec: of the prompts.
        prompt: the tensors of one, see `input_axes`.

    Raises:
        BackboneError: torch cannot export this backbone.
    """
    graph = Graph(encoder, spec).eval()
    tokenizer: Any = transformer_of(encoder).tokenizer
    tokens = tokenizer(["a short text", "a"], padding=True, return_tensors="pt")
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if graph.types else [])]
    inputs: list[Tensor] = [tokens[name] for name in names]
    rows: dict[str, dict[int, str]] = {}
    for name, axes in input_axes(spec).items():
        rows[name] = {place: axis for place, axis in enumerate(axes) if axis in free_axes(graph.kind)}
        example = prompt[name].detach().cpu()
        for place in rows[name]:  # of two entries: 0 and 1 would be taken for constants
            example = example.narrow(place, 0, 1).repeat_interleave(2, dim=place)
        inputs.append(example.contiguous())
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


MODEL, CARD, PROMPTS, BASE = "model.onnx", "foreword_onnx.json", "prompts", "base"
ALLOWED = 1e-4
"""Largest difference allowed between onnxruntime's embeddings and torch's."""


def export_onnx(encoder: SentenceTransformer, output: str | Path, *, routes: Mapping[str, Route] | None = None) -> Path:
    """Write `model.onnx`, the prompts as `.npz` files of its inputs, the tokenizer, and a README.

    One graph serves all prompts of one kind, in the same layers; their lengths and sides may differ. The base model
    is a prompt too, `prompts/base.npz`. The graph is run by onnxruntime and compared before the folder appears.

    Args:
        encoder: from `load_encoder`, with prompts.
        output: a folder that is not there yet.
        routes: what is exported, by name: domains or mixtures; None: every domain that the encoder carries.

    Raises:
        ForewordError: the packages of the extra `onnx` are missing.
        PromptError: there is no prompt, or prompts of different kinds, or the graph's embeddings differ.
        BackboneError: torch cannot export the backbone.
        DataError: `output` is there already.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ForewordError(
            f"ONNX needs onnx, onnxscript and onnxruntime: pip install 'foreword[onnx]' ({error})"
        ) from error
    transformer = transformer_of(encoder)
    tokenizer: Any = transformer.tokenizer
    routes = {domain: domain for domain in transformer.domains} if routes is None else routes
    spec = _common_spec(encoder, routes)
    left_out = any(isinstance(module, Pooling) and not module.include_prompt for module in encoder)
    if left_out and any(encoder.prompts.values()):
        raise PromptError(
            "the backbone's pooling leaves out its own text prompt, whose tokens a graph cannot tell from the text's"
        )
    device = encoder.device
    encoder.to("cpu")
    try:
        with new_folder(output) as folder:
            written = _write_prompts(folder, encoder, spec, routes)
            example = next(iter(written[0]["tensors"].values()))
            write_graph(folder / MODEL, encoder, spec, example)
            tokenizer.save_pretrained(str(folder))
            card = _card(encoder, spec, written)
            write_json(folder / CARD, card)
            write_readme(folder, "onnx", Path(output).name, "onnx", **card)
            _prove(folder, encoder, routes, written)
    finally:
        encoder.to(device)
    return Path(output)


# -- what can be exported ----------------------------------------------------------------------------------------------


def _common_spec(encoder: SentenceTransformer, routes: Mapping[str, Route]) -> PromptSpec:
    """The kind, layers and placement of all, with as many vectors in each place as the longest has."""
    transformer = transformer_of(encoder)
    if not routes:
        raise PromptError("the encoder carries no prompt; load it with one, or with a bank")
    names = {name for route in routes.values() for side in SIDES for name in names_of(route_of_side(route, side))}
    if not names:
        raise PromptError("nothing to export: the base model encodes all texts here")
    specs = [transformer.prompt(name).spec for name in sorted(names)]
    first = specs[0]
    for spec in specs:
        if (spec.kind, spec.top_layers, spec.placement) != (first.kind, first.top_layers, first.placement):
            raise PromptError("prompts of different kinds, layers or placements need a graph each; export them apart")
    return replace(first, length=max(s.length for s in specs), feed_forward=max(s.feed_forward for s in specs))


# -- prompts -----------------------------------------------------------------------------------------------------------


def prompt_inputs(encoder: SentenceTransformer, spec: PromptSpec, route: OneRoute, side: Side) -> dict[str, Tensor]:
    """The graph's inputs for a route: a prompt's tensors, those of a mixture's sources side by side, or the base's."""
    transformer = transformer_of(encoder)
    names = names_of(route)
    prompts = [transformer.prompt(name) for name in names]
    if len(prompts) > 1:
        common_spec(prompts)
    parts = parts_of(prompts, side)
    if not parts:
        return _base_inputs(encoder, spec)
    kind, weights = kind_of(spec), None
    if isinstance(route, Mapping) and kind.mixes:
        weights = layer_weights(route, len(kind.layers(spec, transformer.shape))).detach()
    values = [{name: tensor.detach().float().cpu() for name, tensor in part.items()} for part in parts]
    tensors = {name: tensor[0] for name, tensor in kind.together(values, weights).items()}
    return _base_inputs(encoder, spec, len(parts)) | tensors


def _base_inputs(encoder: SentenceTransformer, spec: PromptSpec, sources: int = 1) -> dict[str, Tensor]:
    """The base model: a vector of 0 in each place, or a prompt of no vectors."""
    kind, shape = kind_of(spec), transformer_of(encoder).shape
    length = int(kind.mixes)
    sizes = kind.sizes(spec, shape) | {"sources": sources, VECTORS: length, FEED_FORWARD: length}
    return {name: torch.zeros([sizes[axis] for axis in axes]) for name, axes in input_axes(spec).items()}


def _write_prompts(
    folder: Path, encoder: SentenceTransformer, spec: PromptSpec, routes: Mapping[str, Route]
) -> list[dict[str, Any]]:
    """Write the prompts' files; returns for each its `domain`, `files` by side and `tensors` by side."""
    (folder / PROMPTS).mkdir()
    written: list[dict[str, Any]] = []
    for domain, route in routes.items():
        tensors: dict[str, dict[str, Tensor]] = {
            side: prompt_inputs(encoder, spec, route_of_side(route, side), side) for side in SIDES
        }
        query, document = tensors["query"], tensors["document"]
        if all(torch.equal(query[name], document[name]) for name in query):
            tensors = {"both": query}
        files = {side: f"{PROMPTS}/{folder_name(domain)}{'' if side == 'both' else f'-{side}'}.npz" for side in tensors}
        written.append({"domain": domain, "files": files, "tensors": tensors})
    written.append(
        {"domain": BASE, "files": {"both": f"{PROMPTS}/{BASE}.npz"}, "tensors": {"both": _base_inputs(encoder, spec)}}
    )
    named = [file for entry in written for file in entry["files"].values()]
    if BASE in routes or len(set(named)) < len(named):
        raise PromptError(f"the names {', '.join(routes)} do not give files of their own beside base.npz; rename one")
    for entry in written:
        for side, file in entry["files"].items():
            with atomic_write(folder / file, "wb") as handle:
                np.savez(handle, **{name: tensor.numpy() for name, tensor in entry["tensors"][side].items()})
    return written


# -- what is said of it ------------------------------------------------------------------------------------------------


def _card(encoder: SentenceTransformer, spec: PromptSpec, written: list[dict[str, Any]]) -> dict[str, Any]:
    transformer = transformer_of(encoder)
    tokenizer: Any = transformer.tokenizer
    head = head_of(encoder)
    tokens = [("input_ids", "token ids"), ("attention_mask", "1 at tokens, 0 at padding")]
    tokens += [("token_type_ids", "0 everywhere")] if takes_types(encoder) else []
    inputs: list[dict[str, Any]] = [
        {"name": n, "type": "int64", "shape": ["batch", "tokens"], "meaning": m} for n, m in tokens
    ]
    base = _base_inputs(encoder, spec)
    kind = kind_of(spec)
    for name, axes in input_axes(spec).items():
        shape = [axis if axis in free_axes(kind) else size for axis, size in zip(axes, base[name].shape, strict=True)]
        inputs.append({"name": name, "type": "float32", "shape": shape, "meaning": f"the prompt: {' x '.join(axes)}"})
    return {
        "format": "foreword-onnx/1",
        "inputs": inputs,
        "output": {"name": "embeddings", "shape": ["batch", encoder.get_embedding_dimension()]},
        "width": encoder.get_embedding_dimension(),
        "kind": spec.kind,
        "max_length": transformer.max_seq_length,
        "padding_side": tokenizer.padding_side,
        "pooling": str(head),
        "scores": ", which are cosines" if head.similarity == "cosine" else "",
        "text_prompts": {side: words for side in SIDES if (words := text_prompt(encoder, side))},
        "origin": origin(transformer.backbone),
        "prompts": [{"domain": entry["domain"], "files": entry["files"]} for entry in written],
    }


# -- proof -------------------------------------------------------------------------------------------------------------


def _prove(
    folder: Path, encoder: SentenceTransformer, routes: Mapping[str, Route], written: list[dict[str, Any]]
) -> None:
    """Run the graph by onnxruntime, from the files, and compare with the encoder."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / MODEL), providers=["CPUExecutionProvider"])
    names = {one.name for one in session.get_inputs()}
    tokenizer: Any = transformer_of(encoder).tokenizer
    limit = transformer_of(encoder).max_seq_length
    for entry in written:
        for part, file in entry["files"].items():
            prompt = dict(np.load(folder / file))
            for side in SIDES if part == "both" else (part,):
                texts = [(text_prompt(encoder, side) or "") + text for text in proof_texts(encoder)]
                tokens = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="np")
                inputs = {name: value.astype(np.int64) for name, value in tokens.items() if name in names}
                (got,) = session.run(None, {**inputs, **prompt})
                route = routes.get(entry["domain"])
                check_equal(got, encoder, side, route, f"{entry['domain']} ({side})", ALLOWED)
