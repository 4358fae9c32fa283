"""One prompt's parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foreword.errors import PromptError
from foreword.prompts.spec import PromptSpec
from foreword.settings import Side

# Shape legend of this package: B batch, R prompt rows (B, or 1 when all rows share theirs), T tokens,
# L prompted layers, S mixed sources, H query heads, G key/value heads, n prompt vectors, h width of a head,
# d width of the backbone.


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
