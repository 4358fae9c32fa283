"""One prompt's parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from foreword.errors import PromptError

# What a prompt looks like: its kind, length, layers and sides.
#
# Shape legend of this package: B batch, R prompt rows (B, or 1 when all rows share theirs), T tokens,
# L prompted layers, S mixed sources, H query heads, G key/value heads, n prompt vectors, h width of a head,
# d width of the backbone.


Kind = Literal["gated", "prefix", "input"]
Sides = Literal["shared", "untied", "query"]
Placement = Literal["after-cls", "before"]
Side = Literal["query", "document"]


@dataclass(frozen=True)
class PromptSpec:
    """The structure of a prompt, independent of any backbone.

    Attributes:
        kind: `gated`, attention over n learned key/value vectors added to a layer's own attention behind a
            gate that starts at 0 (LLaMA-Adapter, Zhang et al. 2023); `prefix`, n keys and values before every
            layer's own (P-tuning v2, Liu et al. 2022); `input`, n vectors before the text (Lester et al. 2021).
        length: n, the number of vectors (in each layer, for `gated` and `prefix`).
        top_layers: only the top k layers carry the prompt; None: all. Not for `input`.
        sides: `shared`, one prompt for queries and documents; `untied`, one for each; `query`, documents are
            encoded by the base model.
        placement: where `input` vectors stand: after the first token (`[CLS]`) or before it; None: after it
            where the backbone's tokenizer puts one there, else before.
    """

    kind: Kind = "gated"
    length: int = 16
    top_layers: int | None = None
    sides: Sides = "shared"
    placement: Placement | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("kind", self.kind, get_args(Kind)),
            ("sides", self.sides, get_args(Sides)),
            ("placement", self.placement, (None, *get_args(Placement))),
        ):
            if value not in allowed:
                raise PromptError(f"{name} is {value!r}; expected one of {', '.join(map(str, allowed))}")
        if self.length < 1:
            raise PromptError(f"length is {self.length}; a prompt has at least 1 vector")
        if self.top_layers is not None and (self.kind == "input" or self.top_layers < 1):
            raise PromptError(
                f"top_layers is {self.top_layers} for a prompt of kind {self.kind}: it counts the layers, from "
                "the top, that carry a gated or prefix prompt, and is at least 1"
            )
        if self.placement is not None and self.kind != "input":
            raise PromptError(f"placement is for prompts of kind input, not {self.kind}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parameter sets: `both`, or `query` and `document`, or `query`."""
        return {"shared": ("both",), "untied": ("query", "document"), "query": ("query",)}[self.sides]

    def part_for(self, side: Side | None) -> str | None:
        """Which parameter set encodes `side`; None: the base model does.

        Raises:
            PromptError: `side` is None and the two sides differ.
        """
        if self.sides == "shared":
            return "both"
        if side is None:
            raise PromptError(
                f"this prompt's sides are {self.sides!r}: queries and documents are encoded differently, so "
                "call encode_query or encode_document (or pass task='query' or task='document')"
            )
        return side if side in self.parts else None

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class LayerShape:
    """The attention of one layer: query heads H, key/value heads G, width of a head h."""

    heads: int
    key_value_heads: int
    head_width: int


@dataclass(frozen=True)
class BackboneShape:
    """What a prompt's shapes follow from: the width d and the attention layers that can carry a prompt.

    `layers` is empty where the backbone's attention cannot be reached: it takes `input` prompts only.
    """

    width: int
    layers: tuple[LayerShape, ...]

    def prompted(self, spec: PromptSpec) -> tuple[int, ...]:
        """The indices (from the bottom, 0) of the layers that carry a prompt of `spec`; () for `input`.

        Raises:
            PromptError: more layers asked for than there are.
        """
        if spec.kind == "input":
            return ()
        count = len(self.layers)
        wanted = count if spec.top_layers is None else spec.top_layers
        if wanted > count:
            raise PromptError(f"the prompt wants the top {wanted} layers; the backbone has {count}")
        return tuple(range(count - wanted, count))


def tensor_shapes(spec: PromptSpec, shape: BackboneShape) -> dict[str, tuple[int, ...]]:
    """The tensors of one part of a prompt: `vectors` (n, d), or `keys`, `values` (L, n, G, h), `gate` (L, H)."""
    if spec.kind == "input":
        return {"vectors": (spec.length, shape.width)}
    layers = [shape.layers[index] for index in shape.prompted(spec)]
    first = layers[0]
    if any(layer != first for layer in layers):
        raise PromptError("the prompted layers differ in heads or width; choose fewer with top_layers")
    vectors = (len(layers), spec.length, first.key_value_heads, first.head_width)
    shapes: dict[str, tuple[int, ...]] = {"keys": vectors, "values": vectors}
    if spec.kind == "gated":
        shapes["gate"] = (len(layers), first.heads)
    return shapes


def _attribute(name: str) -> str:
    return f"vectors_{name.replace('.', '_')}"


class Prompt(nn.Module):
    """The parameters of one prompt: for each part (see `PromptSpec.parts`) the tensors of `tensor_shapes`."""

    def __init__(self, spec: PromptSpec, tensors: Mapping[str, Tensor]) -> None:
        """Take the parameters from `tensors`, named `<part>.<name>`; they are copied.

        Raises:
            PromptError: a part or tensor is missing, unknown, or not finite.
        """
        super().__init__()
        self.spec = spec
        names = {"input": {"vectors"}, "prefix": {"keys", "values"}, "gated": {"keys", "values", "gate"}}[spec.kind]
        expected = {f"{part}.{name}" for part in spec.parts for name in names}
        if set(tensors) != expected:
            raise PromptError(f"a {spec.kind} prompt has tensors {sorted(expected)}, got {sorted(tensors)}")
        bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        if bad:
            raise PromptError(f"tensors {bad} hold values that are not finite")
        axis = 0 if spec.kind == "input" else 1
        for name, tensor in tensors.items():
            if not name.endswith(".gate") and (tensor.ndim <= axis or tensor.shape[axis] != spec.length):
                raise PromptError(f"{name} has shape {tuple(tensor.shape)}; a prompt of {spec.length} vectors was said")
        for name in sorted(expected):  # a module's attribute names hold no dots, and `keys` is taken
            self.register_parameter(_attribute(name), nn.Parameter(tensors[name].detach().clone()))
        self._names = sorted(expected)

    def part(self, side: Side | None) -> dict[str, nn.Parameter] | None:
        """The tensors that encode `side`, by name, or None where the base model does."""
        part = self.spec.part_for(side)
        if part is None:
            return None
        own = dict(self.named_parameters())
        return {n.partition(".")[2]: own[_attribute(n)] for n in self._names if n.startswith(f"{part}.")}

    def tensors(self) -> dict[str, Tensor]:
        """The parameters by name, `<part>.<name>`, detached; they share memory with the prompt."""
        own = dict(self.named_parameters())
        return {name: own[_attribute(name)].detach() for name in self._names}

    def count(self) -> int:
        """The number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def rounded(self, dtype: torch.dtype) -> Prompt:
        """A copy whose values are rounded to `dtype`, kept as float32: what a reader of the file gets.

        Raises:
            PromptError: a value overflows `dtype`.
        """
        rounded = {name: t.to(dtype).to(torch.float32) for name, t in self.tensors().items()}
        lost = [name for name, tensor in rounded.items() if not torch.isfinite(tensor).all()]
        if lost:
            raise PromptError(f"{', '.join(lost)} hold values beyond {dtype}; store them as float32")
        return Prompt(self.spec, rounded)

    def assign(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the parameters in place (so that an optimizer keeps its hold on them)."""
        own = self.tensors()
        if set(own) != set(tensors):
            raise PromptError(f"expected tensors {sorted(own)}, got {sorted(tensors)}")
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name].copy_(tensor)

    def digest(self) -> str:
        """SHA-256 of the values: 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors().items()):
            digest.update(name.encode())
            digest.update(tensor.to(torch.float32).cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
