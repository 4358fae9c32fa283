"""An encoder and its prompt's tensors as one ONNX graph.

The prompt is an input, of any length n. A gated one may be a mixture of S sources, whose weights are in the gate.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from foreword.common.errors import BackboneError, ForewordError
from foreword.prompts.attention import BatchPrompts
from foreword.prompts.encoder import transformer_of
from foreword.prompts.head import head_of
from foreword.prompts.insertion import inserted, positions_in_text
from foreword.prompts.spec import PromptSpec

TENSORS = {"gated": ("keys", "values", "gate"), "prefix": ("keys", "values"), "input": ("vectors",)}
"""The prompt's inputs: `keys`, `values` (L, S, n, G, h), with S = 1 of a prefix; `gate` (L, S, H); `vectors` (n, d)."""

_AXES: dict[str, dict[str, dict[int, str]]] = {
    "gated": {
        "keys": {1: "sources", 2: "length"},
        "values": {1: "sources", 2: "length"},
        "gate": {1: "sources"},
    },
    "prefix": {"keys": {2: "length"}, "values": {2: "length"}},
    "input": {"vectors": {0: "length"}},
}


class Graph(nn.Module):
    """What is exported: token ids, mask and prompt to embeddings, (B, d')."""

    def __init__(self, encoder: SentenceTransformer, spec: PromptSpec) -> None:
        super().__init__()
        transformer = transformer_of(encoder)
        self.encoder = encoder
        self.names = TENSORS[spec.kind]
        self.layers = {slot: place for place, slot in enumerate(transformer.shape.prompted(spec))}
        self.after_first = spec.kind == "input" and transformer.placement(spec.placement) == "after-cls"
        # Rotated keys meet those of a prefix, which stand nowhere: the same rule as in the encoder's own pass.
        self.positions = transformer._rotary and spec.kind != "input"
        self.types = takes_types(encoder)
        head = head_of(encoder)
        self.unit = head.similarity == "cosine" and not head.normalized

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *rest: Tensor) -> Tensor:
        """Embeddings (B, d') of token ids (B, T); `rest`: `token_type_ids` where taken, then the prompt's tensors."""
        features: dict[str, Tensor] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.types:
            features["token_type_ids"], rest = rest[0], rest[1:]
        prompt = dict(zip(self.names, rest, strict=True))
        modules = list(self.encoder)
        features["token_embeddings"] = self._hidden(features, prompt)
        for module in modules[1:]:
            features = module(features)
        embeddings = features["sentence_embedding"]
        return nn.functional.normalize(embeddings, dim=1) if self.unit else embeddings

    def _hidden(self, features: dict[str, Tensor], prompt: Mapping[str, Tensor]) -> Tensor:
        """The text's hidden states, (B, T, d)."""
        model: Any = transformer_of(self.encoder).model
        if "vectors" in prompt:
            words = model.get_input_embeddings()(features["input_ids"])
            inputs, where = inserted(features, words, prompt["vectors"].unsqueeze(0), after_first=self.after_first)
            hidden: Tensor = model(**inputs)[0]
            return hidden.gather(1, where.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        gate = prompt["gate"].unsqueeze(0) if "gate" in prompt else None
        batch = BatchPrompts(self.layers, prompt["keys"].unsqueeze(0), prompt["values"].unsqueeze(0), gate)
        more = {"position_ids": positions_in_text(features["attention_mask"])} if self.positions else {}
        hidden = model(**features, **more, foreword=batch)[0]
        return hidden


def takes_types(encoder: SentenceTransformer) -> bool:
    """Whether the tokenizer makes token types, and the backbone takes them."""
    transformer = transformer_of(encoder)
    tokenizer: Any = transformer.tokenizer
    made = "token_type_ids" in tokenizer(["a"])
    return made and "token_type_ids" in inspect.signature(transformer.model.forward).parameters


def write_graph(path: Path, encoder: SentenceTransformer, spec: PromptSpec, prompt: Mapping[str, Tensor]) -> None:
    """Export the encoder, for prompts of the kind, layers and placement of `spec`, to `path`.

    Args:
        path: of the file to write.
        encoder: from `load_encoder`.
        spec: of the prompts.
        prompt: the tensors of one, see `TENSORS`.

    Raises:
        ForewordError: the packages of the extra `onnx` are missing.
        BackboneError: torch cannot export this backbone.
    """
    require_onnx()
    graph = Graph(encoder, spec).eval()
    names, inputs, axes = _example(encoder, graph.types)
    rows, length = _AXES[spec.kind], 2
    for name in graph.names:
        inputs.append(_sized(prompt[name].detach().cpu(), rows[name], length))
    shapes = (axes, axes, (*([axes] if graph.types else []), *(rows[name] for name in graph.names)))
    try:
        with _quiet_export(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                tuple(inputs),
                dynamic_shapes=shapes,
                input_names=[*names, *graph.names],
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


def _example(encoder: SentenceTransformer, types: bool) -> tuple[list[str], list[Tensor], dict[int, str]]:
    """Token inputs of two texts, one of them padded, and the names of their axes."""
    tokenizer: Any = transformer_of(encoder).tokenizer
    tokens = tokenizer(["a short text", "a"], padding=True, return_tensors="pt")
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    return names, [tokens[name] for name in names], {0: "batch", 1: "tokens"}


def _sized(tensor: Tensor, axes: Mapping[int, str], size: int) -> Tensor:
    """A tensor whose dynamic axes have `size` entries: 0 and 1 would be taken for constants."""
    for axis in axes:
        tensor = tensor.narrow(axis, 0, 1).repeat_interleave(size, dim=axis)
    return tensor.contiguous()


def require_onnx() -> None:
    """Raise `ForewordError` unless the packages that ONNX needs are there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ForewordError(
            f"ONNX needs onnx, onnxscript and onnxruntime: pip install 'foreword[onnx]' ({error})"
        ) from error


@contextmanager
def _quiet_export() -> Iterator[None]:
    """Without the exporter's words on packages that play no part here."""
    import warnings

    log = logging.getLogger("torch.onnx")
    before, level = log.disabled, log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before
        log.setLevel(level)
