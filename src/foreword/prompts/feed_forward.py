"""Feed-forward parts that carry prompts: which matrices of a backbone they are, and the way in.

transformers has an interface for attention and none for these. But whatever they are called and however they are gated,
they end in a matrix that narrows to the width of the hidden states what one or two others, at whose input they begin,
had widened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from foreword.errors import BackboneError
from foreword.prompts.attention import SLOT, LayersSeen, current_pass

Ends = tuple[nn.Linear, nn.Linear]
"""The first and the last matrix of a feed-forward part."""


def find_feed_forwards(model: nn.Module, width: int, run: Callable[[], object]) -> list[Ends]:
    """The feed-forward parts, in the order in which a pass goes through them.

    Args:
        model: the backbone; its attention modules have their slots, where prompts reach them.
        width: of the hidden states.
        run: passes a text through it.
    """
    attention = [module for module in model.modules() if hasattr(module, SLOT)]
    inside = {id(part) for module in attention for part in module.modules()}
    matrices = [module for module in model.modules() if isinstance(module, nn.Linear) and id(module) not in inside]
    passed: list[nn.Linear] = []
    handles = [matrix.register_forward_pre_hook(lambda module, _: passed.append(module)) for matrix in matrices]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    found: list[Ends] = []
    wider: list[nn.Linear] = []  # the matrices in a row that begin at the width
    for matrix in passed:
        if matrix.in_features == width and matrix.out_features != width:
            wider.append(matrix)
            continue
        widened = wider[-1].out_features if wider else 0
        narrows = matrix.in_features != width and matrix.out_features == width
        if narrows and matrix.in_features in (widened, widened // 2):  # half of it may be a gate
            found.append((next(one for one in wider if one.out_features == widened), matrix))
        wider = []
    return found


def carry(parts: Sequence[Ends]) -> list[Any]:
    """Open a way for prompts into each of these; returns handles that close it.

    Raises:
        BackboneError: a part is passed through more than once.
    """
    if len({id(last) for _, last in parts}) < len(parts):
        raise BackboneError("its layers share one feed-forward part")
    handles: list[Any] = []
    for slot, (first, last) in enumerate(parts):
        handles.append(first.register_forward_pre_hook(partial(_enter, slot)))
        handles.append(last.register_forward_hook(partial(_leave, slot)))
    return handles


# Functions of the module, not inner ones: a backbone is copied and pickled with its hooks.


def _enter(slot: int, _module: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Keep what a feed-forward part is given."""
    current = current_pass()
    if current is not None and not isinstance(current.prompts, LayersSeen) and slot in current.prompts.layers:
        current.states[slot] = arguments[0]


def _leave(slot: int, _module: nn.Module, _arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
    """Let the prompts act on what it gives."""
    current = current_pass()
    if current is None or isinstance(current.prompts, LayersSeen) or slot not in current.states:
        return None
    prompts = current.prompts
    return prompts.feed(prompts, prompts.layers[slot], current.states.pop(slot), output)
