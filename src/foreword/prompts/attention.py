"""Attention that carries prompts, registered with transformers beside its own implementations.

Every layer's call goes to the implementation the backbone had (sdpa, flash, eager), by way of the prompts of the
batch, which are in play while the backbone's pass lasts: their kind says what they do to it. Without any the
call is the backbone's own, to the bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from foreword.errors import BackboneError
from foreword.prompts.spec import LayerShape

# Shape legend of this package: B batch, R prompt rows (B, or 1 when all rows share theirs), T tokens,
# L prompted layers, S mixed sources, H query heads, G key/value heads, n prompt vectors, h width of a head,
# d width of the backbone.

SLOT = "foreword_slot"
"""The attribute of an attention module that says which prompted layer it is."""

Place = Literal["attention", "feed-forward"]
"""What of a layer a prompt acts on."""

Attended = tuple[Tensor, Any]
"""What attention functions return: the output (B, T, H, h), and the weights where they are asked for."""


@dataclass(frozen=True)
class AttentionCall:
    """A layer's own attention, with all that it was called with.

    `query` is (B, H, T, h), `key` and `value` (B, G, T, h), `mask` (B or 1, 1, T, T), boolean or additive, or None.
    """

    base: Callable[..., Attended]
    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    kwargs: Mapping[str, Any]

    def __call__(self) -> Attended:
        """Make the call."""
        return self.base(self.module, self.query, self.key, self.value, self.mask, **self.kwargs)


@dataclass
class BatchPrompts:
    """The prompts of one batch, ready for the layers.

    Attributes:
        layers: the slot of a module -> its place on the axis L; a slot that is not here carries no prompt.
        tensors: by name, (R, L, S, ...): the kind's own axes without their L; linear ones are already times each
            source's weight, and 0 in rows without a prompt.
        attend: what the kind does to a layer's attention, given these prompts and the place on the axis L.
        feed: what it does to a layer's feed-forward part, given its input and its output too.
        present: (R,) bool: rows that have a prompt, of a kind that cannot be mixed; None: all of them.
        observe: called with what is acted on, the place on the axis L, what the layer gives by itself there and what
            the prompt adds to it: both (B, T, H, h) in attention, (B, T, 1, d) in the feed-forward part.
    """

    layers: Mapping[int, int]
    tensors: Mapping[str, Tensor]
    attend: Callable[[BatchPrompts, int, AttentionCall], Attended]
    feed: Callable[[BatchPrompts, int, Tensor, Tensor], Tensor]
    present: Tensor | None = None
    observe: Callable[[Place, int, Tensor, Tensor], None] | None = None

    def at(self, name: str, layer: int) -> Tensor:
        """One layer's tensors of a name, (R, S, ...)."""
        return self.tensors[name][:, layer]


@dataclass
class LayersSeen:
    """Notes which attention modules a forward pass goes through, in order, with their keys and values.

    `keys` and `values` hold, for each, tensors of shape (B, G, T, h).
    """

    modules: list[nn.Module] = field(default_factory=list)
    shapes: list[LayerShape] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def note(self, call: AttentionCall) -> None:
        """Add one layer."""
        self.modules.append(call.module)
        self.shapes.append(LayerShape(call.query.shape[1], call.key.shape[1], call.key.shape[3]))
        self.keys.append(call.key.detach())
        self.values.append(call.value.detach())


@dataclass
class Pass:
    """One pass through a backbone: what is in play, and what the feed-forward part it is in was given."""

    prompts: BatchPrompts | LayersSeen
    states: dict[int, Tensor] = field(default_factory=dict)


_current: ContextVar[Pass | None] = ContextVar("foreword_pass", default=None)


@contextmanager
def in_play(prompts: BatchPrompts | LayersSeen | None) -> Iterator[None]:
    """Within the block, and this thread, layers act with `prompts`, or are noted in them."""
    token = _current.set(None if prompts is None else Pass(prompts))
    try:
        yield
    finally:
        _current.reset(token)


def current_pass() -> Pass | None:
    """The pass that this thread is in; None: the base model's own."""
    return _current.get()


def prompted_implementation(implementation: str) -> str:
    """Register attention and mask functions around `implementation`; returns the name they go by.

    The mask function has to be registered under the same name: without it transformers hands the attention no
    mask at all, and padding is attended to.
    """
    name = f"foreword-{implementation}"
    if implementation not in ALL_MASK_ATTENTION_FUNCTIONS:
        raise BackboneError(
            f"attention implementation {implementation!r} has no mask function in transformers; load the backbone "
            "with attn_implementation='sdpa' or 'eager'"
        )

    def forward(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
    ) -> Attended:
        if implementation == "eager":  # it is not registered, but lies in each model's own file
            base = sys.modules[type(module).__module__].eager_attention_forward
        else:
            base = ALL_ATTENTION_FUNCTIONS[implementation]
        call = AttentionCall(base, module, query, key, value, attention_mask, kwargs)
        prompts = None if (current := current_pass()) is None else current.prompts
        if isinstance(prompts, LayersSeen):
            prompts.note(call)
        elif prompts is not None and (layer := prompts.layers.get(getattr(module, SLOT, -1))) is not None:
            return prompts.attend(prompts, layer, call)
        return call()

    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name
