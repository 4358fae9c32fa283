"""The sentence-transformers module that carries prompts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn

from foreword.errors import BackboneError, DataError, PromptError
from foreword.files import half_a_pair
from foreword.prompts.attention import SLOT, BatchPrompts, LayersSeen, in_play, prompted_implementation
from foreword.prompts.backbone import Backbone, read_module, write_module
from foreword.prompts.feed_forward import carry, find_feed_forwards
from foreword.prompts.kinds import memory
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import (
    BASE,
    Route,
    common_spec,
    layer_weights,
    names_of,
    parts_of,
    route_as_json,
    route_of_json,
    route_of_side,
)
from foreword.prompts.spec import BackboneShape
from foreword.settings import SIDES, Side

logger = logging.getLogger(__name__)


class PromptedTransformer(Transformer):
    """A `Transformer` whose frozen backbone carries prompts, one by domain.

    `route` says what encodes texts that do not say it themselves; `encode(..., domain="a")`, or the tensor
    `features["prompt_rows"]` (B,) of indices into `domains` (-1: base), says it for a batch or for each row, and
    `features["prompt_route"]` stands for `route` in one call alone.
    The side comes with the task (`encode_query`, `encode_document`). With no prompt in play the forward pass is
    the base model's own.
    """

    forward_kwargs: set[str] = {"domain"}  # noqa: RUF012  # so declared by sentence-transformers
    config_file_name = "sentence_bert_config.json"

    prompts: nn.ModuleList
    domains: list[str]
    route: Route
    shape: BackboneShape
    refusal: str | None
    """Why the backbone's attention cannot carry prompts; None: it can."""
    feed_forward_refusal: str | None
    """Why its feed-forward parts cannot; None: they can."""
    implementation: str
    """Of the backbone's own attention, as transformers names it."""
    position_limit: int | None
    """Positions the backbone has; None: no limit."""
    text_limit: int | None
    """Tokens a text is cut to when no prompt asks for room."""
    backbone: Backbone | None
    first_token: bool
    """Whether the tokenizer puts one, as [CLS], before a text."""
    int8: Any = None
    """Its forward passes in int8, a `foreword.prompts.int8.Int8`, which `load_encoder` adds."""
    vectors: Any = None
    """Where `encode` looks for vectors of documents, a `foreword.prompts.cache.VectorCache`; None: nowhere."""
    lower: Any = None
    """What keeps the states of the layers below prompts, a `foreword.prompts.lower.LowerStates`; None: nothing."""
    rotary: bool
    """Whether the backbone turns queries and keys by their positions."""
    _warned_cut: bool

    @classmethod
    def from_transformer(cls, transformer: Transformer) -> Self:
        """Take over a loaded `Transformer`: same weights, same tokenizer; its backbone is frozen from here on."""
        module = cls.__new__(cls)
        module.__setstate__(vars(transformer))  # as unpickling does
        module.prompts, module.domains, module.route = nn.ModuleList(), [], None
        module.backbone = None
        module.unpad_inputs = False  # prompts are laid out by rows of a padded batch
        module._warned_cut = False
        module.rotary = any(type(part).__name__.endswith("RotaryEmbedding") for part in module.model.modules())
        module.model.requires_grad_(False)
        module.model.eval()
        tokenizer: Any = module.tokenizer
        firsts = (getattr(tokenizer, "cls_token_id", None), getattr(tokenizer, "bos_token_id", None))
        module.first_token = tokenizer is not None and any(i in firsts for i in tokenizer("a")["input_ids"][:1])
        module.shape, module.refusal = prepare_attention(module)
        module.shape, module.feed_forward_refusal = prepare_feed_forwards(module)
        module.position_limit = position_limit(module.model)
        if module.position_limit is not None:  # tokenizers of RoBERTa's family may promise more than there are
            module.max_seq_length = min(module.max_seq_length or module.position_limit, module.position_limit)
        module.text_limit = module.max_seq_length
        return module

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the prompts and the backbone's name, never the backbone (see `foreword.prompts.backbone`)."""
        if self.backbone is None:
            raise PromptError("only an encoder from foreword.load_encoder can be saved: its backbone has a name")
        prompts = {domain: self.prompt(domain) for domain in self.domains}
        write_module(Path(output_path), self.backbone, prompts, route_as_json(self.route), self.text_limit)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> Self:  # type: ignore[override]  # the rest is in kwargs
        """Read what `save` wrote; called by sentence-transformers."""
        card, backbone, prompts = read_module(model_name_or_path)
        given = {k: v for k, v in kwargs.items() if k in ("model_kwargs", "processor_kwargs", "config_kwargs")}
        module = cls.from_transformer(Transformer.load(str(backbone.path), **given))
        module.backbone = backbone
        module.restore(card, prompts)
        return module

    def restore(self, card: Mapping[str, Any], prompts: Mapping[str, Prompt]) -> None:
        """Carry the prompts of a saved encoder, and route and cut texts as it did. Raises `PromptError`."""
        for domain, prompt in prompts.items():
            self.add(domain, prompt)
        self.text_limit = card["max_length"]
        self._limit_text()
        self.route = route_of_json(card["route"])
        for name in {name for side in SIDES for name in names_of(route_of_side(self.route, side))}:
            self.prompt(name)  # raises for one that is not there

    # -- prompts -----------------------------------------------------------------------------------------------

    def add(self, domain: str, prompt: Prompt) -> None:
        """Carry `prompt` under `domain`, replacing what had that name.

        Raises:
            BackboneError: the backbone cannot carry this kind.
            PromptError: its tensors do not have the shapes of this backbone.
        """
        spec, kind = prompt.spec, prompt.kind
        kind.check_backbone(spec, self)
        shapes, tensors = kind.shapes(spec, self.shape), prompt.tensors()
        for name in (f"{part}.{name}" for part in spec.parts for name in shapes):
            if (got := tuple(tensors[name].shape)) != (expected := shapes[name.partition(".")[2]]):
                raise PromptError(f"{name} has shape {got}; this backbone takes {expected}")
        kind.placement(spec, self)
        taken = kind.positions(spec)
        if taken and self.position_limit is not None and self.position_limit - taken < 2:
            raise PromptError(f"the prompt fills the backbone's {self.position_limit} positions; shorten it")
        prompt.to(next(self.model.parameters()).device)
        if domain in self.domains:
            self.prompts[self.domains.index(domain)] = prompt
        else:
            self.domains.append(domain)
            self.prompts.append(prompt)
        self._limit_text()

    def prompt(self, domain: str) -> Prompt:
        """The prompt carried under `domain`. Raises `PromptError` for a domain that has none."""
        if domain not in self.domains:
            raise PromptError(f"no prompt for domain {domain!r}; there are: {', '.join(self.domains) or 'none'}")
        prompt = self.prompts[self.domains.index(domain)]
        assert isinstance(prompt, Prompt)
        return prompt

    def remove(self, domain: str) -> None:
        """Carry the prompt of `domain` no longer."""
        place = self.domains.index(domain)
        self.domains.pop(place)
        self.prompts = nn.ModuleList(prompt for i, prompt in enumerate(self.prompts) if i != place)
        self._limit_text()

    def remove_all(self) -> None:
        """Carry no prompt; the base model again."""
        self.prompts, self.domains, self.route = nn.ModuleList(), [], None
        self._limit_text()

    # -- inference ---------------------------------------------------------------------------------------------

    def preprocess(  # type: ignore[override]  # the parent's processing_kwargs travels in kwargs
        self, inputs: Any, prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Tokenize, keep the task (it chooses the side) and cut texts that leave no room for an input prompt.

        What is much too long is cut before, too: a tokenizer goes through all of a book to keep its first page.
        """
        limit = kwargs.get("max_length") or self.max_seq_length
        inputs = [beginning(self.tokenizer, one, limit) if isinstance(one, str) else one for one in inputs]
        try:
            features: dict[str, Any] = super().preprocess(inputs, prompt=prompt, **kwargs)
        except TypeError:  # a tokenizer's word for what is not Unicode, among others
            for text in inputs:
                try:
                    str(text).encode()
                except UnicodeEncodeError as error:
                    raise DataError(half_a_pair(error)) from None
            raise
        if features and kwargs.get("task") is not None:
            features["task"] = kwargs["task"]
        room = self._room()
        if not features or room is None:
            return features
        tokens = features["input_ids"].shape[1]
        if tokens > room:
            raise PromptError(f"max_length asks for {tokens} tokens; the prompt leaves room for {room}")
        if not self._warned_cut and tokens == room and (self.text_limit is None or self.text_limit > room):
            self._warned_cut = True
            logger.warning(
                "texts are cut to %d tokens: with the prompt before them they would pass the backbone's limit of "
                "%d positions",
                room,
                self.position_limit,
            )
        return features

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Token embeddings of the batch, (B, T, d), under `token_embeddings`; prompt positions are not in it."""
        domain, side = kwargs.pop("domain", None), features.get("task")
        route: Route = features.pop("prompt_route", self.route)
        rows: Tensor | None = features.pop("prompt_rows", None)
        if rows is not None:
            return self._forward_rows(features, rows, side, kwargs)
        return self._forward_route(features, domain if domain is not None else route, side, kwargs)

    def _forward_route(
        self, features: dict[str, Any], route: Route, side: Side | None, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        chosen = route_of_side(route, side)
        prompts = [self.prompt(name) for name in names_of(chosen)]
        if not prompts:
            return self.run(features, **kwargs)
        spec, parts = common_spec(prompts), parts_of(prompts, side)
        if not parts:
            return self.run(features, **kwargs)
        kind, weights = prompts[0].kind, None
        if isinstance(chosen, Mapping):
            if not kind.mixes:
                raise PromptError(
                    f"only memory and gated prompts can be mixed by weight; {spec.kind} prompts are averaged instead"
                )
            layers = kind.layers(spec, self.shape)
            weights = layer_weights(chosen, len(layers), next(iter(parts[0].values())).device)
        return kind.forward(spec, self, features, kind.together(parts, weights), **kwargs)

    def _forward_rows(
        self, features: dict[str, Any], rows: Tensor, side: Side | None, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Every row with its own prompt: `rows` (B,) indexes `domains`, -1 is the base model."""
        if rows.shape[0] != features["input_ids"].shape[0]:
            raise PromptError(f"prompt_rows has {rows.shape[0]} entries for {features['input_ids'].shape[0]} texts")
        used, inverse = torch.unique(rows, return_inverse=True)
        if int(used[0]) < BASE or int(used[-1]) >= len(self.domains):
            raise PromptError(f"prompt_rows has {used.tolist()}; indices run from -1 to {len(self.domains) - 1}")
        names = [None if index == BASE else self.domains[index] for index in used.tolist()]
        if len(names) == 1:
            return self._forward_route(features, names[0], side, kwargs)
        prompts = [self.prompt(name) for name in names if name is not None]
        spec, parts = common_spec(prompts), parts_of(prompts, side)
        if not parts:
            return self.run(features, **kwargs)
        kind, with_base = prompts[0].kind, names[0] is None
        tensors = kind.by_row(parts, (inverse - int(with_base)).clamp(min=0))
        return kind.forward(spec, self, features, tensors, rows != BASE if with_base else None, **kwargs)

    def run(self, features: dict[str, Any], prompts: BatchPrompts | None = None, **kwargs: Any) -> dict[str, Any]:
        """The backbone's own pass, with `prompts` in its layers; how kinds of prompts reach it."""
        from_left = prompts is None or bool(features["attention_mask"][:, 0].all())
        if self.rotary and not from_left:
            kwargs["position_ids"] = positions_in_text(features["attention_mask"])  # the backbone's own would not do
        passing: Any = nullcontext()
        if prompts is not None and self.lower is not None and (from_left or self.rotary):
            passing = self.lower.passing(features, min(prompts.layers))
        with in_play(prompts), passing:
            return super().forward(features, **kwargs)

    def record(self, features: dict[str, Any]) -> LayersSeen:
        """Pass `features` through the base model and note every layer's keys and values."""
        seen = LayersSeen()
        with torch.no_grad(), in_play(seen):
            super().forward(dict(features))
        return seen

    def train(self, mode: bool = True) -> Self:
        """Training mode for the prompts; the backbone stays in eval mode, without dropout."""
        super().train(mode)
        self.model.eval()
        return self

    # -- limits ------------------------------------------------------------------------------------------------

    def _room(self) -> int | None:
        """Tokens that a text may have beside the longest prompt among its words; None: no limit."""
        longest = max(
            (self.prompt(domain).kind.positions(self.prompt(domain).spec) for domain in self.domains), default=0
        )
        return None if not longest or self.position_limit is None else self.position_limit - longest

    def _limit_text(self) -> None:
        limits = [limit for limit in (self.text_limit, self._room()) if limit is not None]
        self.max_seq_length = min(limits, default=None)


def first_characters(tokenizer: Any, limit: int | None) -> int | None:
    """Characters of which `limit` tokens may be had: most texts have fewer, or fill it; None: that cannot be known."""
    known = limit is not None and tokenizer.is_fast and tokenizer.truncation_side == "right"
    return 16 * limit if known and limit is not None else None


def filled(tokenized: Any, place: int, limit: int | None) -> bool:
    """Whether what follows the characters of a text can change none of its first `limit` tokens.

    It may change the last word, which is whatever the tokenizer takes for one. `tokenized` is its answer, not cut.
    """
    if limit is None or not tokenized.is_fast:
        return False
    words: list[int] = [number for number in tokenized.word_ids(place) if number is not None]
    return sum(number < words[-1] for number in words) >= limit


def beginning(tokenizer: Any, text: str, limit: int | None) -> str:
    """As much of a text as its first `limit` tokens need, or all of it."""
    first = first_characters(tokenizer, limit)
    if first is None or len(text) <= 4 * first:  # sooner tokenised than looked at
        return text
    while len(text) > first and not filled(tokenizer([text[:first]], verbose=False), 0, limit):
        first *= 4
    return text[:first]


def prepare_attention(module: PromptedTransformer) -> tuple[BackboneShape, str | None]:
    """Send the backbone's attention through ours and check that this works.

    Returns the shape of the attention layers, and why there are none where it does not.
    """
    model = module.model
    words: Any = model.get_input_embeddings()
    width = int(words.weight.shape[1])
    kind = type(model).__name__
    before = module.implementation = model.config._attn_implementation or "eager"
    try:
        features, expected = padded_batch(module)
        model.set_attn_implementation(prompted_implementation(before))
        seen = module.record(features)
        if not seen.modules:
            raise BackboneError(f"{kind} does not go through transformers' attention interface")
        if len({id(attention) for attention in seen.modules}) < len(seen.modules):
            raise BackboneError("its layers share one attention")
        shape = BackboneShape(width, tuple(seen.shapes))
        for slot, attention in enumerate(seen.modules):
            setattr(attention, SLOT, slot)
        layers = shape.layers
        for group in ([i for i, layer in enumerate(layers) if layer == one] for one in dict.fromkeys(layers)):
            sizes = (2, layers[group[0]].key_value_heads, layers[group[0]].head_width)
            _check_place(module, features, expected, group, {"keys": sizes, "values": sizes})
    except FAILURES as error:
        model.set_attn_implementation(before)
        return BackboneShape(width, ()), f"{kind} cannot carry prompts in its attention ({error})"
    return shape, None


FAILURES = (BackboneError, TypeError, AttributeError, RuntimeError, KeyError, ValueError)
"""How a backbone may fail that is built otherwise than was thought."""


def prepare_feed_forwards(module: PromptedTransformer) -> tuple[BackboneShape, str | None]:
    """Open the backbone's feed-forward parts to prompts and check that this works.

    Returns the shape with their number, and why there are none where it does not.
    """
    shape, model = module.shape, module.model
    handles: list[Any] = []
    try:
        features, expected = padded_batch(module)
        hidden, layers = int(expected.shape[-1]), len(shape.layers) or int(model.config.num_hidden_layers)
        parts = find_feed_forwards(model, hidden, lambda: padded_batch(module))
        if len(parts) != layers:
            raise BackboneError(f"{len(parts)} of them are found in {layers} layers")
        handles = carry(parts)
        shape = replace(shape, feed_forwards=layers, hidden=hidden)
        sizes = {"feed_forward_keys": (2, hidden), "feed_forward_values": (2, hidden)}
        _check_place(module, features, expected, range(layers), sizes)
    except FAILURES as error:
        for handle in handles:
            handle.remove()
        kind = type(model).__name__
        return module.shape, f"{kind} cannot carry prompts in its feed-forward parts ({error})"
    return shape, None


def padded_batch(module: PromptedTransformer) -> tuple[dict[str, Any], Tensor]:
    """Two texts of different length, tokenized, and their hidden states by the base model, (B, T, d)."""
    features = module.preprocess(["prompt", "a longer text so that the first is padded"])
    features = {k: v.to(module.model.device) if isinstance(v, Tensor) else v for k, v in features.items()}
    with torch.no_grad():
        return features, Transformer.forward(module, dict(features))[module.module_output_name]


def _check_place(
    module: PromptedTransformer,
    features: dict[str, Any],
    expected: Tensor,
    layers: Sequence[int],
    sizes: Mapping[str, tuple[int, ...]],
) -> None:
    """Values of 0 give the base model's output on a padded batch, and those of every layer move the output.

    Args:
        module: the backbone's.
        features: the batch, tokenized.
        expected: its hidden states by the base model.
        layers: the slots.
        sizes: of the tensors, keys and values, in one layer.
    """
    visible = features["attention_mask"].bool()
    generator = torch.Generator().manual_seed(0)
    keys, values = (
        {name: torch.randn(1, len(layers), 1, *size, generator=generator).to(expected.device)}
        for name, size in sizes.items()
    )
    [(name, value)] = values.items()
    moving = torch.zeros_like(value, requires_grad=True)
    with torch.enable_grad():
        batch = memory.KIND.batch(layers, {**keys, name: moving}, None)
        output = module.run(dict(features), batch)[module.module_output_name]
    difference = (output.detach() - expected)[visible].abs().max().item()
    if difference > 1e-4 * max(1.0, expected[visible].abs().max().item()):
        raise BackboneError(f"a prompt of zeros changes its output by {difference:.2g}")
    probe = torch.randn(output.shape, generator=generator).to(output)
    (moved,) = torch.autograd.grad((output * probe)[visible].sum(), moving, allow_unused=True)
    still = [] if moved is None else [slot for slot, g in zip(layers, moved[0], strict=True) if not g.any()]
    if moved is None or still:
        raise BackboneError(f"a prompt in layer {still or 'any'} does not change its output")


def position_limit(model: nn.Module) -> int | None:
    """How many positions the backbone has; None for relative positions without an end (T5)."""
    for name, embedding in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(embedding, nn.Embedding):
            unused = 0 if embedding.padding_idx is None else embedding.padding_idx + 1  # RoBERTa counts from there
            return embedding.num_embeddings - unused
    config = getattr(model, "config", None)
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if limit and limit > 0 else None


def positions_in_text(mask: Tensor) -> Tensor:
    """Positions (B, T) counted from each row's first token, for a rotary backbone and padding on the left.

    Rotated queries meet keys that stand at no position, so their own must not depend on the padding. Among
    themselves the backbone's tokens see distances only, which stay.
    """
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
