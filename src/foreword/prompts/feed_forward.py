"""Feed-forward parts that carry prompts: which matrices of a backbone they are, and the way in.

transformers has an interface for attention and none for these. But whatever they are called and however they are
gated, they end in a matrix that narrows to the backbone's width what one or two others, which begin them, had widened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from foreword.errors import BackboneError
from foreword.prompts.attention import SLOT, BatchPrompts


@dataclass
class _Pass:
    """One pass through a backbone: the prompts in play, and what the feed-forward part it is in was given."""

    prompts: BatchPrompts
    states: dict[int, Tensor] = field(default_factory=dict)


_current: ContextVar[_Pass | None] = ContextVar("foreword_pass", default=None)


@contextmanager
def in_play(prompts: BatchPrompts | None) -> Iterator[None]:
    """Within the block, feed-forward parts act with `prompts`."""
    token = _current.set(None if prompts is None else _Pass(prompts))
    try:
        yield
    finally:
        _current.reset(token)


def _enter(slot: int, _module: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Keep what a feed-forward part is given."""
    current = _current.get()
    if current is not None and slot in current.prompts.layers:
        current.states[slot] = arguments[0]


def _leave(slot: int, _module: nn.Module, _arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
    """Let the prompts act on what it gives."""
    current = _current.get()
    if current is None or slot not in current.states:
        return None
    prompts = current.prompts
    return prompts.feed(prompts, prompts.layers[slot], current.states.pop(slot), output)


def find_feed_forwards(model: nn.Module, width: int, run: Any) -> list[tuple[nn.Linear, nn.Linear]]:
    """The first and the last matrix of each feed-forward part, in the order in which a pass goes through them.

    Args:
        model: the backbone.
        width: d.
        run: called without arguments, passes a text through it.
    """
    events: list[nn.Module] = []
    watched = [m for m in model.modules() if isinstance(m, nn.Linear) or hasattr(m, SLOT)]
    handles = [m.register_forward_pre_hook(lambda module, _: events.append(module)) for m in watched]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    found: list[tuple[nn.Linear, nn.Linear]] = []
    wider: list[nn.Linear] = []  # the matrices in a row that begin at the width
    for module in events:
        if not isinstance(module, nn.Linear):
            wider = []  # attention begins
        elif module.in_features == width and module.out_features != width:
            wider.append(module)
        else:
            widened = wider[-1].out_features if wider else 0
            if module.out_features == width and module.in_features in (widened, widened // 2):
                alike = [m for m in wider if m.out_features == widened]
                found.append((alike[0], module))
            wider = []
    return found


def carry(pairs: Sequence[tuple[nn.Linear, nn.Linear]]) -> list[Any]:
    """Open a way for prompts into each of these; returns handles that close it."""
    if len({id(last) for _, last in pairs}) < len(pairs):
        raise BackboneError("several layers share one feed-forward part")
    handles: list[Any] = []
    for slot, (first, last) in enumerate(pairs):
        handles.append(first.register_forward_pre_hook(partial(_enter, slot)))
        handles.append(last.register_forward_hook(partial(_leave, slot)))
    return handles
