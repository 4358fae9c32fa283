"""What a prompt looks like: its kind, length, layers and sides.

Shape legend of this package: B batch, R prompt rows (B, or 1 when all rows share theirs), T tokens,
L prompted layers, S mixed sources, H query heads, G key/value heads, n prompt vectors, h width of a head,
d width of the backbone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from foreword.common.errors import PromptError

Kind = Literal["gated", "prefix", "input"]
Sides = Literal["shared", "untied", "query"]
Placement = Literal["after-cls", "before"]
Side = Literal["query", "document"]


@dataclass(frozen=True)
class PromptSpec:
    """The structure of a prompt, independent of any backbone.

    Attributes:
        kind: `gated`, attention over n learned key/value vectors added to a layer's own attention behind a
            gate that starts at 0 (LLaMA-Adapter, Zhang et al. 2023); `prefix`, n keys and values before every
            layer's own (P-tuning v2, Liu et al. 2022); `input`, n vectors before the text (Lester et al. 2021).
        length: n, the number of vectors (in each layer, for `gated` and `prefix`).
        top_layers: only the top k layers carry the prompt; None: all. Not for `input`.
        sides: `shared`, one prompt for queries and documents; `untied`, one for each; `query`, documents are
            encoded by the base model.
        placement: where `input` vectors stand: after the first token (`[CLS]`) or before it; None: after it
            where the backbone's tokenizer puts one there, else before.
    """

    kind: Kind = "gated"
    length: int = 16
    top_layers: int | None = None
    sides: Sides = "shared"
    placement: Placement | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("kind", self.kind, get_args(Kind)),
            ("sides", self.sides, get_args(Sides)),
            ("placement", self.placement, (None, *get_args(Placement))),
        ):
            if value not in allowed:
                raise PromptError(f"{name} is {value!r}; expected one of {', '.join(map(str, allowed))}")
        if self.length < 1:
            raise PromptError(f"length is {self.length}; a prompt has at least 1 vector")
        if self.top_layers is not None and (self.kind == "input" or self.top_layers < 1):
            raise PromptError(
                f"top_layers is {self.top_layers} for a prompt of kind {self.kind}: it counts the layers, from "
                "the top, that carry a gated or prefix prompt, and is at least 1"
            )
        if self.placement is not None and self.kind != "input":
            raise PromptError(f"placement is for prompts of kind input, not {self.kind}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parameter sets: `both`, or `query` and `document`, or `query`."""
        return {"shared": ("both",), "untied": ("query", "document"), "query": ("query",)}[self.sides]

    def part_for(self, side: Side | None) -> str | None:
        """Which parameter set encodes `side`; None: the base model does.

        Raises:
            PromptError: `side` is None and the two sides differ.
        """
        if self.sides == "shared":
            return "both"
        if side is None:
            raise PromptError(
                f"this prompt's sides are {self.sides!r}: queries and documents are encoded differently, so "
                "call encode_query or encode_document (or pass task='query' or task='document')"
            )
        return side if side in self.parts else None

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)
