"""One prompt's parameters. Shapes are written by the legend of `foreword.prompts.attention`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from foreword.errors import PromptError
from foreword.prompts.kinds.kind import PromptKind, counts, kind_of
from foreword.prompts.spec import PromptSpec
from foreword.settings import Side


def _attribute(name: str) -> str:
    return f"vectors_{name.replace('.', '_')}"


class Prompt(nn.Module):
    """The parameters of one prompt: for each part (see `PromptSpec.parts`) the tensors of its kind."""

    def __init__(self, spec: PromptSpec, tensors: Mapping[str, Tensor]) -> None:
        """Take the parameters from `tensors`, named `<part>.<name>`; they are copied.

        Raises:
            PromptError: a part or tensor is missing, unknown, or not finite.
        """
        super().__init__()
        self.spec = spec
        expected = {f"{part}.{name}" for part in spec.parts for name in self.kind.tensors(spec)}
        if set(tensors) != expected:
            raise PromptError(f"a {spec.kind} prompt has tensors {sorted(expected)}, got {sorted(tensors)}")
        bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        if bad:
            raise PromptError(f"tensors {bad} hold values that are not finite")
        for name, tensor in tensors.items():
            place, axis = self.kind.length_axis(name.partition(".")[2]) or (-1, "")
            if axis and (tensor.ndim <= place or tensor.shape[place] != counts(spec)[axis]):
                shape = tuple(tensor.shape)
                raise PromptError(f"{name} has shape {shape}; a prompt of {counts(spec)[axis]} vectors was said")
        for name in sorted(expected):  # a module's attribute names hold no dots, and `keys` is taken
            self.register_parameter(_attribute(name), nn.Parameter(tensors[name].detach().clone()))
        self._names = sorted(expected)

    @property
    def kind(self) -> PromptKind:
        """What it is and does."""
        return kind_of(self.spec)

    @property
    def linear(self) -> tuple[str, ...]:
        """The names, `<part>.<name>`, of the tensors that a weight multiplies; none of a kind that is not mixed."""
        names = [name for name in self.kind.tensors(self.spec) if name in self.kind.linear]
        return tuple(f"{part}.{name}" for part in self.spec.parts for name in names)

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
