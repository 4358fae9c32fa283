"""A folder with an ONNX graph, the prompts it takes as inputs, whatever their length, and the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from foreword.errors import ForewordError, PromptError
from foreword.exporting.folder import check_equal, new_folder, origin, proof_texts, write_readme
from foreword.files import atomic_write, write_json
from foreword.prompts.encoder import head_of, text_prompt, transformer_of
from foreword.prompts.graph import (
    base_inputs,
    check_text_prompt,
    free_axes,
    graph_spec,
    input_axes,
    prompt_inputs,
    takes_types,
    write_graph,
)
from foreword.prompts.kinds.kind import kind_of
from foreword.prompts.routes import Route, names_of, route_of_side
from foreword.prompts.spec import PromptSpec
from foreword.prompts.store import folder_name
from foreword.settings import SIDES

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
    check_text_prompt(encoder)
    device = encoder.device
    encoder.to("cpu")
    try:
        with new_folder(output) as folder:
            written = _write_prompts(folder, encoder, spec, routes)
            write_graph(folder / MODEL, encoder, spec)
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
    """The structure of all that is exported."""
    if not routes:
        raise PromptError("the encoder carries no prompt; load it with one, or with a bank")
    names = {name for route in routes.values() for side in SIDES for name in names_of(route_of_side(route, side))}
    if not names:
        raise PromptError("nothing to export: the base model encodes all texts here")
    return graph_spec(transformer_of(encoder), names)


# -- prompts -----------------------------------------------------------------------------------------------------------


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
        {"domain": BASE, "files": {"both": f"{PROMPTS}/{BASE}.npz"}, "tensors": {"both": base_inputs(encoder, spec)}}
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
    base = base_inputs(encoder, spec)
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
