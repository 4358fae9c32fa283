"""Whether a backbone can carry prompts in its layers, tried out on it, and whether a given prompt fits it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn

from foreword.common.errors import BackboneError, PromptError
from foreword.prompts.attention import SLOT, BatchPrompts, prompted_implementation
from foreword.prompts.prompt import BackboneShape, Prompt, tensor_shapes

if TYPE_CHECKING:
    from foreword.prompts.transformer import PromptedTransformer


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
