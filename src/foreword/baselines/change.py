"""A copy of an encoder, and what is trained in it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from foreword.baselines.modules import add_bottlenecks, add_query_adapter, keep_documents
from foreword.baselines.spec import BaselineSpec
from foreword.common.errors import BackboneError, ForewordError
from foreword.prompts.encoder import transformer_of
from foreword.prompts.spec import Side as TextSide
from foreword.prompts.transformer import PromptedTransformer
from foreword.training.config import Side

ATTENTION = {"distilbert": ("q_lin", "v_lin"), "mpnet": ("q", "v"), "modernbert": ("Wqkv",)}
"""The matrices of attention's queries and values where PEFT has no names for them."""


class Values:
    """Named tensors."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self.values = dict(values)

    def tensors(self) -> dict[str, Tensor]:
        """The values by name."""
        return dict(self.values)


class Change:
    """The parameters of a copy that are trained; the trainer's trainee.

    What existed in the base model is stored as the difference from it: rounding then cannot change what training
    left alone, and the values where training starts are exactly the base model's.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, differences: bool) -> None:
        """`parameters` by name; `differences`: they are stored as what is added to their present values."""
        self._parameters = dict(parameters)
        self._base = {name: p.detach().clone() for name, p in parameters.items()} if differences else None

    def parameters(self) -> Iterable[nn.Parameter]:
        """All of them."""
        return self._parameters.values()

    def part(self, side: TextSide | None) -> dict[str, nn.Parameter] | None:
        """All of them, whichever side: the copy itself knows where they apply."""
        return dict(self._parameters)

    def tensors(self) -> dict[str, Tensor]:
        """The values by name, detached; they share memory with the copy."""
        return {name: p.detach() for name, p in self._parameters.items()}

    def count(self) -> int:
        """The number of trained parameters."""
        return sum(p.numel() for p in self._parameters.values())

    def assign(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the values in place."""
        if set(tensors) != set(self._parameters):
            odd = sorted(set(tensors) ^ set(self._parameters))
            raise ForewordError(f"the values are of another structure; they differ in {', '.join(odd[:3])}")
        with torch.no_grad():
            for name, tensor in tensors.items():
                self._parameters[name].copy_(tensor)

    def stored(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """What a file holds: values, or differences from the base model's.

        Raises:
            ForewordError: they are not finite in `dtype`.
        """
        values = self.tensors()
        if self._base is not None:
            values = {name: value - self._base[name] for name, value in values.items()}
        values = {name: value.to(dtype) for name, value in values.items()}
        lost = [name for name, value in values.items() if not torch.isfinite(value).all()]
        if lost:
            raise ForewordError(f"{lost[0]} holds values beyond {dtype}, or none; lower the learning rate")
        return values

    def restored(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values that `stored` stands for."""
        values = {name: value.float() for name, value in stored.items()}
        if self._base is None or set(values) != set(self._base):  # `assign` refuses the latter
            return values
        return {name: self._base[name] + value.to(self._base[name].device) for name, value in values.items()}

    def rounded(self, dtype: torch.dtype) -> Values:
        """The values that a reader of the stored file gets."""
        return Values(self.restored(self.stored(dtype)))


def changed_copy(
    encoder: SentenceTransformer, spec: BaselineSpec, side: Side, *, seed: int = 0
) -> tuple[SentenceTransformer, Change]:
    """A copy of the base model that can be changed as `spec` says, and what is trained in it; it starts as equal.

    The copy carries no prompts, and has no backbone's name: no prompt passes for one of the changed model's.

    Args:
        encoder: from `foreword.load_encoder`; left as it is.
        spec: what is trained.
        side: `query`: documents are encoded by the base model, which the copy borrows from `encoder`.
        seed: of new weights.

    Raises:
        BackboneError: the backbone has nothing of the kind.
        ForewordError: LoRA without PEFT.
    """
    base = transformer_of(encoder)
    if base.backbone is None:
        raise BackboneError("this encoder is changed already; start from the base model, foreword.load_encoder(...)")
    made: SentenceTransformer = copy.deepcopy(encoder)
    transformer = transformer_of(made)
    transformer.remove_all()
    transformer.backbone = None
    made.requires_grad_(False)
    made.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        candidates = _candidates(made, transformer, spec)
    parameters = _reached(made, candidates)
    if not parameters:
        raise BackboneError(f"{type(transformer.model).__name__} has nothing that {spec.method} could train")
    if side == "query" and spec.method != "linear-query":
        keep_documents(transformer, base.model)
    made.requires_grad_(False)
    made.eval()
    return made, Change(parameters, differences=spec.differences)


def _candidates(made: SentenceTransformer, transformer: PromptedTransformer, spec: BaselineSpec) -> set[int]:
    """The ids of the parameters that the method names, added to the copy where they are new."""
    if spec.method == "linear-query":
        return {id(add_query_adapter(made).weight)}
    if spec.method == "adapter":
        return {id(p) for p in add_bottlenecks(transformer, spec.bottleneck)}
    if spec.method == "lora":
        _add_lora(transformer.model, spec)
        return {id(p) for name, p in made.named_parameters() if ".lora_" in name}
    return {id(p) for name, p in made.named_parameters() if spec.method == "full" or name.endswith(".bias")}


def _add_lora(model: Any, spec: BaselineSpec) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ForewordError("LoRA needs PEFT: pip install foreword[baselines]") from error
    targets = spec.targets or ATTENTION.get(model.config.model_type)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.scale,  # type: ignore[arg-type]  # it multiplies
        lora_dropout=0.0,  # prompts are trained without dropout too
        target_modules=list(targets) if isinstance(targets, tuple) else targets,
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise BackboneError(
            f"{type(model).__name__} takes no LoRA at {targets or 'the usual modules'} ({error}); name its matrices "
            "with targets, or give 'all-linear'"
        ) from error


def _reached(made: SentenceTransformer, candidates: set[int]) -> dict[str, nn.Parameter]:
    """Those that a query's embedding depends on: a backbone's unused head is neither trained, counted nor stored."""
    chosen = {name: p for name, p in made.named_parameters() if id(p) in candidates}
    if not chosen:
        return {}
    features = made.preprocess(["a text to find what takes part"], task="query")
    features = {k: v.to(made.device) if isinstance(v, Tensor) else v for k, v in features.items()}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        output = made(features)["sentence_embedding"].float().square().sum()
    gradients = torch.autograd.grad(output, list(chosen.values()), allow_unused=True)
    return {name: p for (name, p), gradient in zip(chosen.items(), gradients, strict=True) if gradient is not None}
