"""What a kind of prompt is: its parameters, where they start, how they act on a batch, and where they do not go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from foreword.errors import BackboneError, PromptError
from foreword.prompts.attention import Attended, AttentionCall, BatchPrompts, LayersSeen
from foreword.prompts.spec import BackboneShape, Placement, PromptSpec, loaded

Form = Literal["plain", "peft"]
"""The forms of other tools that not every kind can have: a plain sentence-transformers model, a PEFT adapter."""

Adapter = Literal["PROMPT_TUNING", "PREFIX_TUNING"]
"""PEFT's names for what its adapter files hold: vectors (n, d), or keys and values of every layer."""

LAYERS, VECTORS, FEED_FORWARD = "layers", "length", "feed-forward length"
"""The names of the axes L, n and m; the others are `heads` (H), `key-value heads` (G), `head width` (h), `width` (d, of
the word embeddings) and `hidden width` (d, of what the layers hand on)."""


class Carrier(Protocol):
    """What a kind may ask of the module that carries its prompts."""

    model: Any
    shape: BackboneShape
    refusal: str | None
    """Why the backbone's attention cannot carry prompts; None: it can."""
    feed_forward_refusal: str | None
    """Why its feed-forward parts cannot; None: they can."""
    implementation: str
    """Of its attention, as transformers names it."""
    first_token: bool
    """Whether the tokenizer puts one, as [CLS], before a text."""
    position_limit: int | None
    """Positions the backbone has; None: no limit."""

    @property
    def tokenizer(self) -> Any:
        """The backbone's."""

    module_output_name: str
    """The key that hidden states, (B, T, d), have in what `run` returns."""

    def run(self, features: dict[str, Any], prompts: BatchPrompts | None = None, **kwargs: Any) -> dict[str, Any]:
        """The backbone's pass over tokenized texts, with these prompts in its layers."""

    def record(self, features: dict[str, Any]) -> LayersSeen:
        """The keys and values of every layer in the base model's pass."""


class PromptKind(ABC):
    """All that is known of one kind of prompt. A file of this folder defines one, and `KIND`, its only object.

    Attributes:
        name: as `PromptSpec.kind` has it.
        axes: the tensors of one part of a prompt: name -> the names of its axes. Shapes, storing, hashing, averaging
            and the inputs of an ONNX graph follow from these alone. Tensors in the layers begin with `layers`.
        linear: the tensors that what the prompt adds is linear in, one for each place in a layer. They start at 0, at
            which the prompt is the base model; times weights, they mix prompts exactly.
        peft: what PEFT's adapter files call the kind; None: it has none.
        among_words: the vectors stand among a text's word embeddings, not in the layers.
    """

    name: ClassVar[str]
    axes: ClassVar[Mapping[str, tuple[str, ...]]]
    linear: ClassVar[tuple[str, ...]] = ()
    peft: ClassVar[Adapter | None] = None
    among_words: ClassVar[bool] = False

    @property
    def mixes(self) -> bool:
        """Whether prompts of this kind can be mixed by weight."""
        return bool(self.linear)

    # -- structure -------------------------------------------------------------------------------------------------

    @abstractmethod
    def check(self, spec: PromptSpec) -> None:
        """Raise `PromptError` for what the kind cannot be combined with; called where a choice of it is made."""

    @abstractmethod
    def layers(self, spec: PromptSpec, shape: BackboneShape) -> tuple[int, ...]:
        """The indices (from the bottom, 0) of the layers that carry a prompt of `spec`; () for one among the words.

        Raises:
            PromptError: more layers asked for than there are.
        """

    def sizes(self, spec: PromptSpec, shape: BackboneShape) -> dict[str, int]:
        """The sizes of the axes, by name, for a backbone.

        Raises:
            PromptError: the backbone has fewer layers than asked for, or layers that differ.
        """
        layers = self.layers(spec, shape)
        if not layers and not self.among_words:
            raise PromptError(f"the backbone has no layers that carry prompts of kind {self.name!r}")
        sizes = {LAYERS: len(layers), "width": shape.width, "hidden width": shape.hidden, **counts(spec)}
        if spec.length and layers:
            first, *others = (shape.layers[index] for index in layers)
            if any(layer != first for layer in others):
                raise PromptError("the prompted layers differ in heads or width; choose fewer with top_layers")
            sizes |= {"heads": first.heads, "key-value heads": first.key_value_heads, "head width": first.head_width}
        return sizes

    def shapes(self, spec: PromptSpec, shape: BackboneShape) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors of one part of a prompt; raises as `sizes`."""
        sizes = self.sizes(spec, shape)
        return {name: tuple(sizes[axis] for axis in self.axes[name]) for name in self.tensors(spec)}

    def tensors(self, spec: PromptSpec) -> tuple[str, ...]:
        """The names of the tensors of a prompt: all but those of a place where it has no vectors."""
        none = {axis for axis, count in counts(spec).items() if not count}
        return tuple(name for name, axes in self.axes.items() if none.isdisjoint(axes))

    def length_axis(self, name: str) -> tuple[int, str] | None:
        """Which axis of a tensor counts vectors, and its name; None: it has none."""
        return next(((i, axis) for i, axis in enumerate(self.axes[name]) if axis in (VECTORS, FEED_FORWARD)), None)

    # -- the backbone ----------------------------------------------------------------------------------------------

    @abstractmethod
    def check_backbone(self, spec: PromptSpec, carrier: Carrier) -> None:
        """Raise `BackboneError` or `PromptError` where the backbone cannot carry the kind, with the reason."""

    def placement(self, spec: PromptSpec, carrier: Carrier) -> Placement | None:
        """Where the vectors stand among a text's words; None: they do not."""
        return None

    def positions(self, spec: PromptSpec) -> int:
        """How many of the backbone's positions a prompt takes from the text."""
        return 0

    @abstractmethod
    def noise(self, carrier: Carrier, name: str) -> float:
        """The standard deviation of a start from noise, of a tensor."""

    @abstractmethod
    def from_tokens(self, spec: PromptSpec, carrier: Carrier, ids: Tensor) -> dict[str, Tensor]:
        """The values of a prompt that starts from n token ids, (n,), where tokens have such; others are noise, or 0."""

    # -- a batch ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def together(self, parts: Sequence[Mapping[str, Tensor]], weights: Tensor | None) -> dict[str, Tensor]:
        """The tensors of a batch whose rows all have the same prompt, or mixture: R is 1.

        Args:
            parts: each prompt's tensors for the side that is encoded, S of them.
            weights: (L or 1, S), of a kind that mixes; None: the one prompt as it is.
        """

    @abstractmethod
    def by_row(self, parts: Sequence[Mapping[str, Tensor]], own: Tensor) -> dict[str, Tensor]:
        """The tensors of a batch whose rows have a prompt each: R is B.

        Args:
            parts: each prompt's tensors for the side that is encoded.
            own: (B,), which of `parts` a row has.
        """

    @abstractmethod
    def forward(
        self,
        spec: PromptSpec,
        carrier: Carrier,
        features: dict[str, Any],
        tensors: Mapping[str, Tensor],
        present: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Encode tokenized texts with prompts of a batch; the prompt's own positions are not in the hidden states.

        Args:
            spec: of all the prompts.
            carrier: the backbone.
            features: the tokenized texts, (B, T).
            tensors: of `together` or `by_row`.
            present: (B,) bool, False for rows of the base model, which borrow another's prompt, unseen; None: none.
            kwargs: for the backbone.
        """

    @abstractmethod
    def spots(self, part: Mapping[str, Tensor]) -> Tensor:
        """The vectors of a part, (n, w), each with all that belongs to it; for comparing prompts."""

    # -- elsewhere -------------------------------------------------------------------------------------------------

    @abstractmethod
    def why_not(self, form: Form, spec: PromptSpec, carrier: Carrier) -> str | None:
        """Why a prompt cannot be had in another tool's form; None: it can."""


class LayerKind(PromptKind):
    """A kind that stands in the layers: it acts on their attention (`attend`), their feed-forward parts (`feed`)."""

    def check(self, spec: PromptSpec) -> None:
        """Refuse a placement among the words."""
        if spec.placement is not None:
            raise PromptError(f"placement is for prompts of kind input, not {spec.kind}")

    def layers(self, spec: PromptSpec, shape: BackboneShape) -> tuple[int, ...]:
        """The top ones, or all."""
        return self.top(spec, len(shape.layers))

    def top(self, spec: PromptSpec, count: int) -> tuple[int, ...]:
        """The top ones of so many layers, or all."""
        wanted = count if spec.top_layers is None else spec.top_layers
        if wanted > count:
            raise PromptError(f"the prompt wants the top {wanted} layers; the backbone has {count}")
        return tuple(range(count - wanted, count))

    def check_backbone(self, spec: PromptSpec, carrier: Carrier) -> None:
        """Refuse a backbone whose attention cannot be reached."""
        if carrier.refusal is not None:
            other = " only" if carrier.feed_forward_refusal is not None else ", or 'memory' with length 0"
            raise BackboneError(f"{carrier.refusal}; it takes prompts of kind 'input'{other}, not {spec.kind!r}")

    def noise(self, carrier: Carrier, name: str) -> float:
        """A deviation of .02."""
        return 0.02

    def from_tokens(self, spec: PromptSpec, carrier: Carrier, ids: Tensor) -> dict[str, Tensor]:
        """`keys` and `values` (L, n, G, h): those of the tokens, run through the backbone as a text."""
        before = [i for i in (carrier.tokenizer.cls_token_id,) if i is not None]
        after = [i for i in (carrier.tokenizer.sep_token_id,) if i is not None]
        row = torch.tensor([[*before, *ids.tolist(), *after]], device=next(carrier.model.parameters()).device)
        if carrier.position_limit is not None and row.shape[1] > carrier.position_limit:
            raise PromptError(
                f"{len(ids)} words do not fit the backbone's {carrier.position_limit} positions; use start 'noise'"
            )
        seen = carrier.record({"input_ids": row, "attention_mask": torch.ones_like(row), "modality": "text"})
        keep = slice(len(before), len(before) + len(ids))
        layers = self.layers(spec, carrier.shape)

        def gathered(tensors: list[Tensor]) -> Tensor:  # each (1, G, T, h) -> (L, n, G, h)
            return torch.stack([tensors[layer][0, :, keep].transpose(0, 1) for layer in layers])

        return {"keys": gathered(seen.keys), "values": gathered(seen.values)}

    def together(self, parts: Sequence[Mapping[str, Tensor]], weights: Tensor | None) -> dict[str, Tensor]:
        """(1, L, S, ...), the linear tensors times the weights."""
        stacked = {name: torch.stack([part[name] for part in parts], dim=1) for name in parts[0]}  # (L, S, ...)
        if weights is not None:
            for name in stacked.keys() & set(self.linear):
                stacked[name] = stacked[name] * weights.reshape(*weights.shape, *[1] * (stacked[name].ndim - 2))
        return {name: tensor.unsqueeze(0) for name, tensor in stacked.items()}

    def by_row(self, parts: Sequence[Mapping[str, Tensor]], own: Tensor) -> dict[str, Tensor]:
        """(B, L, 1, ...)."""
        return {name: torch.stack([part[name] for part in parts])[own].unsqueeze(2) for name in parts[0]}

    def batch(self, layers: Sequence[int], tensors: Mapping[str, Tensor], present: Tensor | None) -> BatchPrompts:
        """The prompts of a batch as the layers of these slots take them."""
        tensors = dict(tensors)
        if present is not None and self.linear:  # 0 says it, without a mask
            for name in tensors.keys() & set(self.linear):
                tensors[name] = tensors[name] * present.view(-1, *[1] * (tensors[name].ndim - 1))
            present = None
        places = {slot: place for place, slot in enumerate(layers)}
        return BatchPrompts(places, tensors, self.attend, self.feed, present)

    def forward(
        self,
        spec: PromptSpec,
        carrier: Carrier,
        features: dict[str, Any],
        tensors: Mapping[str, Tensor],
        present: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The backbone's pass, whose layers go through `attend` and `feed`."""
        return carrier.run(features, self.batch(self.layers(spec, carrier.shape), tensors, present), **kwargs)

    def spots(self, part: Mapping[str, Tensor]) -> Tensor:
        """The vectors of all layers side by side, in each layer all tensors that have them; each place has columns of
        its own, (n + m, w + w').
        """
        blocks = []
        for count in (VECTORS, FEED_FORWARD):
            own = [part[name].flatten(2) for name, axes in self.axes.items() if count in axes and name in part]
            blocks += [torch.cat(own, dim=2).transpose(0, 1).flatten(1)] if own else []  # of (L, n, ...)
        joined: Tensor = torch.block_diag(*blocks)
        return joined

    @abstractmethod
    def attend(self, prompts: BatchPrompts, layer: int, call: AttentionCall) -> Attended:
        """A layer's attention with the prompts.

        Args:
            prompts: of the batch.
            layer: the place on their axis L.
            call: the layer's own attention.
        """

    def feed(self, prompts: BatchPrompts, layer: int, states: Tensor, output: Tensor) -> Tensor:
        """What a layer's feed-forward part gives with the prompts, (B, T, d): what it gives without them.

        Args:
            prompts: of the batch.
            layer: the place on their axis L.
            states: what goes into it, (B, T, d).
            output: what its last matrix gives, (B, T, d).
        """
        return output

    def why_not(self, form: Form, spec: PromptSpec, carrier: Carrier) -> str | None:
        """A plain model has no place inside its layers, and PEFT has `peft` or nothing."""
        if form == "plain":
            return (
                f"a {self.name} prompt stands inside the layers, where a plain model has no place for it; only 'input' "
                "prompts can be words"
            )
        return f"PEFT has no {self.name} prompts" if self.peft is None else None


def kind_of(spec: PromptSpec) -> PromptKind:
    """What a prompt's kind is and does."""
    kind: PromptKind = loaded(spec.kind)
    return kind


def counts(spec: PromptSpec) -> dict[str, int]:
    """How many vectors a prompt has, by the name of the axis."""
    return {VECTORS: spec.length, FEED_FORWARD: spec.feed_forward}


def looked_up(
    prompts: BatchPrompts, layer: int, query: Tensor, scaling: float | None, gate: Tensor | None = None
) -> Tensor:
    """`sum_s g_s softmax(q K_s^T * scaling) V_s` over the sources s: what learned keys and values add to attention.

    Args:
        prompts: the prompts of the batch.
        layer: the place on their axis L.
        query: (B, H, T, h), as the layer's own attention sees it.
        scaling: the interface's own factor (T5 has 1.0); None: h ** -0.5.
        gate: g, (R, S, H); None: 1.

    Returns:
        (B, T, H, h), as attention functions return it.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows, sources, length = prompts.at("keys", layer).shape[:3]
    keys, values = (prompts.at(name, layer).flatten(1, 2).transpose(1, 2) for name in ("keys", "values"))
    if (heads := query.shape[1]) != keys.shape[1]:  # key/value heads that several query heads share
        keys, values = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (keys, values))
    scores = torch.matmul(query * scaling, keys.to(query.dtype).transpose(-1, -2))  # (B, H, T, S*n)
    shares = torch.softmax(scores.unflatten(-1, (sources, length)).float(), dim=-1)
    if gate is not None:
        shares = shares * gate.transpose(1, 2).reshape(rows, heads, 1, sources, 1)
    return torch.matmul(shares.flatten(-2).to(query.dtype), values.to(query.dtype)).transpose(1, 2)
