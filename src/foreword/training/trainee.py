"""What the trainer needs of a thing that it trains: a prompt, or the weights of another method to compare with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from foreword.prompts.spec import Side


class Values(Protocol):
    """Named tensors."""

    def tensors(self) -> dict[str, Tensor]:
        """The values by name, detached."""
        ...


class Trainee(Values, Protocol):
    """Parameters that take part in an encoder's forward pass; `foreword.prompts.prompt.Prompt` is one."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """All of them."""
        ...

    def part(self, side: Side | None) -> dict[str, nn.Parameter] | None:
        """Those that encode `side`, by name; None: the base model does."""
        ...

    def rounded(self, dtype: torch.dtype) -> Values:
        """The values that a reader of the stored file gets when it holds `dtype`."""
        ...

    def assign(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the values in place (so that an optimizer keeps its hold on them)."""
        ...
