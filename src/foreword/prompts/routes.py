"""What encodes a text: a domain's prompt, a mixture of prompts by weight, or the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foreword.errors import PromptError
from foreword.prompts.prompt import Prompt
from foreword.prompts.spec import OWN as OWN
from foreword.prompts.spec import Default as Default
from foreword.prompts.spec import PromptSpec
from foreword.settings import SIDES, Side

Weight = float | Sequence[float | Tensor] | Tensor
"""How much of a source a mixture takes: one number, or one for each of its L prompted layers, from the bottom."""

OneRoute = str | Mapping[str, Weight] | None


@dataclass(frozen=True)
class Routes:
    """Queries and documents by different prompts or mixtures."""

    query: OneRoute
    document: OneRoute


Route = OneRoute | Routes
"""What encodes a text: a domain's prompt, a mixture of prompts by weight, or (None) the base model."""


BASE = -1
"""The row index that stands for the base model."""


def route_of_side(route: Route, side: Side | None) -> OneRoute:
    """What encodes texts of `side`. Raises `PromptError` where the sides differ and `side` is None."""
    if not isinstance(route, Routes):
        return route
    if side is None:
        raise PromptError("queries and documents are encoded differently here; pass the task")
    return route.query if side == "query" else route.document


def names_of(route: OneRoute) -> list[str]:
    """The domains whose prompts encode texts; none where the base model does."""
    return [route] if isinstance(route, str) else list(route or ())


def route_as_json(route: Route) -> Any:
    """A route as JSON values: a name, weights by name, None, or `{"sides": {"query": ..., "document": ...}}`.

    Raises:
        PromptError: a weight is not made of finite numbers.
    """
    if isinstance(route, Routes):
        return {"sides": {"query": route_as_json(route.query), "document": route_as_json(route.document)}}
    if isinstance(route, Mapping):
        return {name: plain_weight(name, weight) for name, weight in route.items()}
    return route


def route_of_json(value: Any) -> Route:
    """The route that `route_as_json` wrote. Raises `PromptError` for what it does not write."""
    if isinstance(value, Mapping) and isinstance(value.get("sides"), Mapping) and value["sides"].keys() == set(SIDES):
        query, document = (route_of_json(value["sides"][side]) for side in SIDES)
        if not isinstance(query, Routes) and not isinstance(document, Routes):
            return Routes(query, document)
    elif isinstance(value, Mapping):
        return {name: plain_weight(name, weight) for name, weight in value.items()}
    elif value is None or isinstance(value, str):
        return value
    raise PromptError(f"route is {value!r}; expected a name, weights by name, or both sides of such")


# -- weights -------------------------------------------------------------------------------------------------------


def plain_weight(name: str, weight: Weight) -> float | list[float]:
    """A source's weight as JSON values: a number, or a list of one for each layer.

    Args:
        name: the source's, for the message.
        weight: as a route has it.

    Raises:
        PromptError: it is something else, or not finite.
    """
    try:
        values = _values(weight.detach().cpu() if isinstance(weight, Tensor) else weight, torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PromptError(f"the weight of {name!r} is {weight!r}; expected finite numbers") from error
    if values.ndim > 1 or not values.isfinite().all():
        raise PromptError(f"the weight of {name!r} is {weight!r}; expected finite numbers, at most one a layer")
    plain: float | list[float] = values.detach().tolist()
    return plain


def layer_weights(weights: Mapping[str, Weight], layers: int, device: torch.device | str = "cpu") -> Tensor:
    """The weights as one tensor, (L, S), or (1, S) when every source has a single number for all layers.

    Differentiable in those that are tensors. A list of L equal numbers is the single number, to the bit.

    Args:
        weights: of the S sources.
        layers: L, how many the prompts stand in.
        device: of the result.

    Raises:
        PromptError: a source has a list of another length than L.
    """
    columns = [_values(weight, torch.float32).to(device) for weight in weights.values()]
    if all(column.ndim == 0 for column in columns):
        return torch.stack(columns).unsqueeze(0)
    for name, column in zip(weights, columns, strict=True):
        if column.ndim and column.shape != (layers,):
            got = f"a list of {len(column)}" if column.ndim == 1 else f"numbers of shape {tuple(column.shape)}"
            raise PromptError(
                f"the weight of {name!r} is {got}; expected one number, or a list of {layers}: one for each layer that "
                "the prompt stands in, from the bottom"
            )
    return torch.stack([column.expand(layers) for column in columns], dim=1)


def _values(weight: Weight, dtype: torch.dtype) -> Tensor:
    """A weight as a tensor, () or (L,)."""
    if isinstance(weight, Tensor):
        return weight.to(dtype)
    if isinstance(weight, Sequence) and any(isinstance(value, Tensor) for value in weight):
        return torch.stack([torch.as_tensor(value) for value in weight]).to(dtype)  # as_tensor would lose gradients
    return torch.as_tensor(weight, dtype=dtype)


# -- prompts of a batch --------------------------------------------------------------------------------------------


def common_spec(prompts: Sequence[Prompt]) -> PromptSpec:
    """The one spec of all. Raises `PromptError` for prompts of different structure."""
    first = prompts[0].spec
    if any(prompt.spec != first for prompt in prompts):
        raise PromptError("prompts of different kind, length, layers or sides cannot share a batch or a mixture")
    return first


def parts_of(prompts: Sequence[Prompt], side: Side | None) -> list[dict[str, nn.Parameter]]:
    """The tensors that encode `side`, of prompts of one spec; none where the base model does."""
    parts = [prompt.part(side) for prompt in prompts]
    return [part for part in parts if part is not None]
