"""The sentence-transformers module that carries prompts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn

from foreword.errors import BackboneError, PromptError
from foreword.prompts.attention import SLOT, BatchPrompts, Recorder, prompted_implementation
from foreword.prompts.backbone import Backbone, read_module, write_module
from foreword.prompts.prompt import BackboneShape, Prompt, tensor_shapes
from foreword.prompts.routes import (
    BASE,
    Route,
    common_spec,
    mixed_prompts,
    parts_of,
    route_as_json,
    route_of_json,
    route_of_side,
    row_prompts,
    rows_of,
)
from foreword.prompts.spec import Placement, PromptSpec
from foreword.settings import Side

# Whether a backbone can carry prompts in its layers, tried out on it, and whether a given prompt fits it.


def check_fits(prompt: Prompt, shape: BackboneShape, refusal: str | None, implementation: str) -> None:
    """Refuse a prompt that the backbone's layers cannot carry.

    Args:
        prompt: of any kind.
        shape: of the backbone.
        refusal: why its layers carry no prompts; None: they do.
        implementation: of its attention, as transformers names it.

    Raises:
        BackboneError: the backbone cannot carry this kind.
        PromptError: the prompt's tensors do not have the shapes of this backbone.
    """
    spec = prompt.spec
    if spec.kind != "input" and refusal is not None:
        raise BackboneError(f"{refusal}; it takes prompts of kind 'input' only, not {spec.kind!r}")
    if spec.kind == "prefix" and implementation not in ("sdpa", "eager"):
        raise BackboneError(f"prefix prompts need attn_implementation 'sdpa' or 'eager', not {implementation!r}")
    for part in spec.parts:
        for name, expected in tensor_shapes(spec, shape).items():
            got = tuple(prompt.tensors()[f"{part}.{name}"].shape)
            if got != expected:
                raise PromptError(f"{part}.{name} has shape {got}; this backbone takes {expected}")


def prepare_backbone(module: PromptedTransformer) -> tuple[BackboneShape, str | None]:
    """Send the backbone's attention through ours and check that this works.

    Returns the shape of the attention layers, and why there are none where it does not.
    """
    model = module.model
    words: Any = model.get_input_embeddings()
    width = int(words.weight.shape[1])
    kind = type(model).__name__
    before = module._base_implementation = model.config._attn_implementation or "eager"
    features = module.preprocess(["prompt", "a longer text so that the first is padded"])
    features = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in features.items()}
    try:
        with torch.no_grad():
            expected = Transformer.forward(module, dict(features))[module.module_output_name]
        model.set_attn_implementation(prompted_implementation(before))
        recorder = module.record(features)
        if not recorder.modules:
            raise BackboneError(f"{kind} does not go through transformers' attention interface")
        shape = BackboneShape(width, tuple(recorder.shapes))
        for slot, attention in enumerate(recorder.modules):
            setattr(attention, SLOT, slot)
        _check_gates(module, features, expected, shape)
    except (BackboneError, TypeError, AttributeError, RuntimeError, KeyError, ValueError) as error:
        model.set_attn_implementation(before)
        return BackboneShape(width, ()), f"{kind} cannot carry prompts in its layers ({error})"
    return shape, None


def _check_gates(module: PromptedTransformer, features: dict[str, Any], expected: Tensor, shape: BackboneShape) -> None:
    """A zero gate gives the base model's output on a padded batch, and every layer's gate moves the output."""
    layers = shape.layers
    groups = [[i for i, layer in enumerate(layers) if layer == kind] for kind in dict.fromkeys(layers)]
    visible = features["attention_mask"].bool()
    generator = torch.Generator().manual_seed(0)
    for group in groups:
        layer = layers[group[0]]
        noise = torch.randn(1, len(group), 1, 2, layer.key_value_heads, layer.head_width, generator=generator)
        noise = noise.to(expected.device)
        gate = torch.zeros(1, len(group), 1, layer.heads, device=expected.device, requires_grad=True)
        batch = BatchPrompts({slot: place for place, slot in enumerate(group)}, noise, noise, gate)
        with torch.enable_grad():
            output = Transformer.forward(module, dict(features), foreword=batch)[module.module_output_name]
        difference = (output.detach() - expected)[visible].abs().max().item()
        if difference > 1e-4 * max(1.0, expected[visible].abs().max().item()):
            raise BackboneError(f"a zero gate changes its output by {difference:.2g}")
        probe = torch.randn(output.shape, generator=generator).to(output)
        (moved,) = torch.autograd.grad((output * probe)[visible].sum(), gate, allow_unused=True)
        still = [
            slot for slot, g in zip(group, moved[0, :, 0] if moved is not None else [], strict=False) if not g.any()
        ]
        if moved is None or still:
            raise BackboneError(f"a gate in layer {still or 'any'} does not change its output")


def position_limit(model: nn.Module) -> int | None:
    """How many positions the backbone has; None for relative positions without an end (T5)."""
    for name, embedding in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(embedding, nn.Embedding):
            unused = 0 if embedding.padding_idx is None else embedding.padding_idx + 1  # RoBERTa counts from there
            return embedding.num_embeddings - unused
    config = getattr(model, "config", None)
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if limit and limit > 0 else None


# Where the vectors of a prompt stand among a text's tokens.


def inserted(
    features: Mapping[str, Any], words: Tensor, vectors: Tensor, *, after_first: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Prompt and text as one sequence.

    Args:
        features: the tokenized batch, (B, T).
        words: its tokens' embeddings, (B, T, d).
        vectors: (R, n, d).
        after_first: they follow each row's first token; else they come before it.

    Returns:
        What the backbone takes: `inputs_embeds` (B, n + T, d), `attention_mask` and, where the text has them,
        `token_type_ids`; and where each of the text's tokens went, (B, T).
    """
    mask, length = features["attention_mask"], vectors.shape[1]
    joined = torch.cat([vectors.expand(words.shape[0], -1, -1).to(words.dtype), words], dim=1)
    order = insertion_order(mask, length, after_first=after_first)  # (B, n + T) into `joined`
    inputs = {
        "inputs_embeds": joined.gather(1, order.unsqueeze(-1).expand(-1, -1, joined.shape[-1])),
        "attention_mask": nn.functional.pad(mask, (length, 0), value=1).gather(1, order),
    }
    if "token_type_ids" in features:
        inputs["token_type_ids"] = nn.functional.pad(features["token_type_ids"], (length, 0)).gather(1, order)
    return inputs, order.argsort(dim=1)[:, length:]


def insertion_order(mask: Tensor, length: int, *, after_first: bool) -> Tensor:
    """Where n prompt vectors go in each row: indices (B, n + T) into their concatenation `[prompt, text]`.

    Left padding stays on the left, so that the prompt stands next to its text and a row comes out the same
    whatever it is batched with.

    Args:
        mask: (B, T), 1 at tokens.
        length: n.
        after_first: the vectors follow each row's first token.
    """
    batch, tokens = mask.shape
    start = mask.to(torch.int32).argmax(dim=1, keepdim=True) + int(after_first)  # tokens before the prompt
    place = torch.arange(length + tokens, device=mask.device).expand(batch, -1)
    in_prompt = (place >= start) & (place < start + length)
    return torch.where(in_prompt, place - start, torch.where(place < start, place + length, place))


def placement_of(tokenizer: Any, wanted: Placement | None) -> Placement:
    """Where `input` vectors stand for a tokenizer. Raises `PromptError` for `after-cls` without a first token."""
    starts = tokenizer("a")["input_ids"][:1] if tokenizer is not None else []
    has_first = bool(starts) and starts[0] in (
        getattr(tokenizer, "cls_token_id", None),
        getattr(tokenizer, "bos_token_id", None),
    )
    if wanted == "after-cls" and not has_first:
        raise PromptError("placement 'after-cls': this backbone's tokenizer puts no [CLS] first; use 'before'")
    return wanted or ("after-cls" if has_first else "before")


def positions_in_text(mask: Tensor) -> Tensor:
    """Positions (B, T) counted from each row's first token, for a rotary backbone and padding on the left.

    Rotated queries meet keys that stand at no position, so their own must not depend on the padding. Among
    themselves the backbone's tokens see distances only, which stay.
    """
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


logger = logging.getLogger(__name__)


class PromptedTransformer(Transformer):
    """A `Transformer` whose frozen backbone carries prompts, one by domain.

    `route` says what encodes texts that do not say it themselves; `encode(..., domain="a")`, or the tensor
    `features["prompt_rows"]` (B,) of indices into `domains` (-1: base), says it for a batch or for each row.
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
    """Why the backbone's layers cannot carry prompts; None: they can."""
    position_limit: int | None
    """Positions the backbone has; None: no limit."""
    text_limit: int | None
    """Tokens a text is cut to when no prompt asks for room."""
    backbone: Backbone | None
    _base_implementation: str
    _rotary: bool
    _warned_cut: bool

    @classmethod
    def from_transformer(cls, transformer: Transformer) -> Self:
        """Take over a loaded `Transformer`: same weights, same tokenizer; its backbone is frozen from here on."""
        module = cls.__new__(cls)
        module.__dict__ = transformer.__dict__
        module.prompts, module.domains, module.route = nn.ModuleList(), [], None
        module.backbone = None
        module.unpad_inputs = False  # prompts are laid out by rows of a padded batch
        module._warned_cut = False
        module._rotary = any(type(part).__name__.endswith("RotaryEmbedding") for part in module.model.modules())
        module.model.requires_grad_(False)
        module.model.eval()
        module.shape, module.refusal = prepare_backbone(module)
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
        """Carry the prompts of a saved encoder, and route and cut texts as it did."""
        for domain, prompt in prompts.items():
            self.add(domain, prompt)
        self.text_limit = card["max_length"]
        self._limit_text()
        self.route = route_of_json(card["route"])

    # -- prompts -----------------------------------------------------------------------------------------------

    def add(self, domain: str, prompt: Prompt) -> None:
        """Carry `prompt` under `domain`, replacing what had that name.

        Raises:
            BackboneError: the backbone cannot carry this kind.
            PromptError: its tensors do not have the shapes of this backbone.
        """
        spec = prompt.spec
        check_fits(prompt, self.shape, self.refusal, self._base_implementation)
        self.placement(spec.placement)
        if spec.kind == "input" and self.position_limit is not None and self.position_limit - spec.length < 2:
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

    def placement(self, wanted: Placement | None) -> Placement:
        """Where `input` vectors stand for this tokenizer. Raises `PromptError` for `after-cls` without one."""
        return placement_of(self.tokenizer, wanted)

    # -- inference ---------------------------------------------------------------------------------------------

    def preprocess(  # type: ignore[override]  # the parent's processing_kwargs travels in kwargs
        self, inputs: Any, prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Tokenize, keep the task (it chooses the side) and cut texts that leave no room for an input prompt."""
        features: dict[str, Any] = super().preprocess(inputs, prompt=prompt, **kwargs)
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
        rows: Tensor | None = features.pop("prompt_rows", None)
        if rows is not None:
            return self._forward_rows(features, rows, side, kwargs)
        return self._forward_route(features, domain if domain is not None else self.route, side, kwargs)

    def _forward_route(
        self, features: dict[str, Any], route: Route, side: Side | None, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        chosen = route_of_side(route, side)
        names = [chosen] if isinstance(chosen, str) else list(chosen or {})
        if not names:
            return super().forward(features, **kwargs)
        prompts = [self.prompt(name) for name in names]
        spec, parts = common_spec(prompts), parts_of(prompts, side)
        if not parts:
            return super().forward(features, **kwargs)
        weights = chosen if isinstance(chosen, Mapping) else None
        if spec.kind != "gated" and weights is not None:
            raise PromptError(f"only gated prompts can be mixed by weight; {spec.kind} prompts are averaged instead")
        if spec.kind == "input":
            vectors = parts[0]["vectors"].unsqueeze(0)
            return self._forward_input(features, vectors, self.placement(spec.placement), kwargs)
        batch = mixed_prompts(parts, weights, self._layers(spec))
        return super().forward(features, foreword=batch, **self._positions(features), **kwargs)

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
            return super().forward(features, **kwargs)
        if spec.kind == "input" and names[0] is None:
            return self._forward_split(features, rows == BASE, rows, side, kwargs)
        if spec.kind == "input":
            vectors = torch.stack([part["vectors"] for part in parts])[inverse]
            return self._forward_input(features, vectors, self.placement(spec.placement), kwargs)
        own = (inverse - int(names[0] is None)).clamp(min=0)
        batch = row_prompts(parts, own, rows != BASE, self._layers(spec))
        return super().forward(features, foreword=batch, **self._positions(features), **kwargs)

    def _forward_split(
        self, features: dict[str, Any], is_base: Tensor, rows: Tensor, side: Side | None, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Base rows and input-prompted rows apart: their texts stand at different positions."""
        output: Tensor | None = None
        for chosen in (is_base, ~is_base):
            done = self._forward_rows(rows_of(features, chosen), rows[chosen], side, dict(kwargs))
            part: Tensor = done[self.module_output_name]
            output = part.new_empty(len(rows), *part.shape[1:]) if output is None else output
            output = output.index_copy(0, chosen.nonzero().squeeze(1), part)
        features[self.module_output_name] = output
        return features

    def _forward_input(
        self, features: dict[str, Any], vectors: Tensor, placement: Placement, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Run the backbone on prompt and text together; give back the text's positions only.

        Args:
            features: the tokenized batch, (B, T).
            vectors: (R, n, d).
            placement: where they stand.
            kwargs: for the backbone.
        """
        ids = features["input_ids"]
        tokens, length = ids.shape[1], vectors.shape[1]
        if self.position_limit is not None and tokens + length > self.position_limit:
            raise PromptError(
                f"{tokens} tokens and {length} prompt vectors pass the backbone's limit of {self.position_limit}"
            )
        words = self.model.get_input_embeddings()(ids)
        inputs, where = inserted(features, words, vectors, after_first=placement == "after-cls")
        hidden = super().forward({**inputs, "modality": "text"}, **kwargs)[self.module_output_name]
        features[self.module_output_name] = hidden.gather(1, where.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return features

    def _positions(self, features: dict[str, Any]) -> dict[str, Tensor]:
        """Position ids, where the backbone's own would not do."""
        mask = features["attention_mask"]
        return {"position_ids": positions_in_text(mask)} if self._rotary and not bool(mask[:, 0].all()) else {}

    def record(self, features: dict[str, Any]) -> Recorder:
        """Pass `features` through the base model and note every layer's keys and values."""
        recorder = Recorder()
        with torch.no_grad():
            super().forward(dict(features), foreword=recorder)
        return recorder

    def train(self, mode: bool = True) -> Self:
        """Training mode for the prompts; the backbone stays in eval mode, without dropout."""
        super().train(mode)
        self.model.eval()
        return self

    # -- limits ------------------------------------------------------------------------------------------------

    def _layers(self, spec: PromptSpec) -> dict[int, int]:
        return {slot: place for place, slot in enumerate(self.shape.prompted(spec))}

    def _room(self) -> int | None:
        """Tokens that a text may have beside the longest input prompt; None: no limit."""
        lengths = (p.spec.length for p in self.prompts if isinstance(p, Prompt) and p.spec.kind == "input")
        longest = max(lengths, default=0)
        return None if not longest or self.position_limit is None else self.position_limit - longest

    def _limit_text(self) -> None:
        limits = [limit for limit in (self.text_limit, self._room()) if limit is not None]
        self.max_seq_length = min(limits, default=None)
