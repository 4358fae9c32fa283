"""The methods, their structure and their usual settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from foreword.common.errors import ForewordError, UnknownNameError
from foreword.prompts.spec import PromptSpec
from foreword.training.config import Side, StartConfig, TrainingConfig

Method = Literal["full", "lora", "bitfit", "adapter", "linear-query"]

LEARNING_RATES: Mapping[str, float] = {
    "full": 5e-5,
    "lora": 1e-3,
    "bitfit": 1e-3,
    "adapter": 1e-3,
    "linear-query": 1e-3,
    "prefix": 3e-2,
    "input": 1e-2,
}
"""Where to begin for each method (usual: full 1e-5 to 5e-5, LoRA and adapters 1e-4 to 1e-3). Tune it on the dev split
before any comparison: the method tuned least looks worst."""


@dataclass(frozen=True)
class BaselineSpec:
    """What is trained, independent of any encoder.

    The defaults of `rank` and `bottleneck` train about as many numbers as the default prompt does.

    Attributes:
        method: `full`, every weight that embeddings depend on; `lora`, low-rank updates of weight matrices (Hu et
            al. 2022), by PEFT; `bitfit`, the biases, those of layer normalisation too (Ben Zaken et al. 2022);
            `adapter`, on each layer's output h, h + U relu(D h + b) + c with U and c 0 at the start (Houlsby et al.
            2019, one a layer as Pfeiffer et al. 2021); `linear-query`, a d' x d' matrix, at the start the identity, on
            the embeddings of queries alone.
        rank: of LoRA's updates.
        alpha: LoRA's updates are scaled by alpha / rank; None: twice the rank.
        targets: LoRA's matrices: ends of module names, or `all-linear`; None: attention's queries and values.
        bottleneck: width of an adapter.
    """

    method: Method
    rank: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] | str | None = None
    bottleneck: int = 16

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UnknownNameError(f"no baseline {self.method!r}; there are: {', '.join(get_args(Method))}")
        for name in ("rank", "bottleneck"):
            if getattr(self, name) < 1:
                raise ForewordError(f"{name} is {getattr(self, name)}; it is at least 1")
        if self.alpha is not None and not self.alpha > 0:
            raise ForewordError(f"alpha is {self.alpha}; it is above 0")

    @property
    def scale(self) -> float:
        """LoRA's alpha."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    @property
    def differences(self) -> bool:
        """Whether existing weights are trained, which are stored as differences from the base model's."""
        return self.method in ("full", "bitfit", "linear-query")

    def as_dict(self) -> dict[str, Any]:
        """The fields that the method looks at, as JSON values."""
        chosen: dict[str, Any] = {"method": self.method}
        if self.method == "lora":
            targets = list(self.targets) if isinstance(self.targets, tuple) else self.targets
            chosen |= {"rank": self.rank, "alpha": self.scale, "targets": targets}
        if self.method == "adapter":
            chosen["bottleneck"] = self.bottleneck
        return chosen

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> BaselineSpec:
        """The spec that `as_dict` gave."""
        targets = fields.get("targets")
        return cls(**{**fields, "targets": tuple(targets) if isinstance(targets, list) else targets})


def baseline_config(method: Method, *, side: Side | None = None, **changes: Any) -> TrainingConfig:
    """The settings that prompts have by default on this side, with the method's usual learning rate.

    Args:
        method: of `BaselineSpec`.
        side: None: `query` for `linear-query`, `both` for the others.
        changes: other settings, by name.
    """
    spec = BaselineSpec(method)
    side = side or ("query" if spec.method == "linear-query" else "both")
    return TrainingConfig.default(side, **{"learning_rate": LEARNING_RATES[method], **changes})


def prompt_baseline(
    kind: Literal["prefix", "input"], *, side: Side = "both", length: int | None = None, **changes: Any
) -> tuple[StartConfig, TrainingConfig]:
    """The start and the settings for `foreword.training.train.train` of a published kind of prompt.

    Args:
        kind: `prefix`, P-tuning v2 (Liu et al. 2022), 16 vectors a layer; `input`, the shallow prompt of Lester et al.
            (2021), 20 vectors.
        side: what is trained.
        length: vectors, instead.
        changes: settings of the training, by name.
    """
    lengths = {"prefix": 16, "input": 20}
    if kind not in lengths:
        raise UnknownNameError(f"no prompt baseline {kind!r}; there are: {', '.join(lengths)}")
    start = StartConfig(PromptSpec(kind, length or lengths[kind]))
    return start, TrainingConfig.default(side, **{"learning_rate": LEARNING_RATES[kind], **changes})
