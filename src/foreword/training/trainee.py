"""What the trainer needs of a thing that it trains: a prompt, or the weights of another method to compare with.

And of the processes that train it together, as `torchrun` and `accelerate launch` start them.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from foreword.settings import Side


class NamedTensors(Protocol):
    """Named tensors."""

    def tensors(self) -> dict[str, Tensor]:
        """The values by name, detached."""
        ...


class Trainee(NamedTensors, Protocol):
    """Parameters that take part in an encoder's forward pass; `foreword.prompts.prompt.Prompt` is one."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """All of them."""
        ...

    def part(self, side: Side | None) -> dict[str, nn.Parameter] | None:
        """Those that encode `side`, by name; None: the base model does."""
        ...

    def rounded(self, dtype: torch.dtype) -> NamedTensors:
        """The values that a reader of the stored file gets when it holds `dtype`."""
        ...

    def assign(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the values in place (so that an optimizer keeps its hold on them)."""
        ...


class Together:
    """The values of several trainees as those of one: names begin with their numbers."""

    def __init__(self, trainees: Sequence[Trainee]) -> None:
        self.trainees = trainees

    def tensors(self) -> dict[str, Tensor]:
        """The values by name, detached."""
        return {f"{n}.{name}": tensor for n, one in enumerate(self.trainees) for name, tensor in one.tensors().items()}

    def assign(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the values in place."""
        for n, trainee in enumerate(self.trainees):
            own = f"{n}."
            trainee.assign({name[len(own) :]: t for name, t in tensors.items() if name.startswith(own)})


Result = TypeVar("Result")


def world_size() -> int:
    """Processes that train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: torch.device) -> None:
    """Join the other processes, over gloo where they compute on the CPU; nothing without a launcher."""
    if world_size() > 1 and not distributed.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu")
        # Wait for the others and end the group: gloo's threads abort a process that exits beneath them.
        atexit.register(lambda: distributed.is_initialized() and distributed.destroy_process_group())


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def on_main(work: Callable[[], Result]) -> Result:
    """Let the main process alone do something; every process gets what it returned, or raises what it raised."""
    if not distributed.is_initialized():
        return work()
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = work()
        except Exception as error:
            outcome[1] = error
    distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    result: Result = outcome[0]
    return result
