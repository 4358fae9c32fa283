"""What a prompt looks like: its kind, length, layers and sides. Importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foreword.errors import PromptError
from foreword.settings import Count, Settings, Side

Kind = Literal["gated", "prefix", "input"]
Sides = Literal["shared", "untied", "query"]
Placement = Literal["after-cls", "before"]
Start = Literal["words", "text", "noise", "first-ids"]
StoredType = Literal["float32", "float16", "bfloat16"]
"""What the numbers of a prompt's file may be."""


@dataclass(frozen=True)
class PromptSpec(Settings):
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

    refusal = PromptError

    kind: Kind = "gated"
    length: Count = 16
    top_layers: Count | None = None
    sides: Sides = "shared"
    placement: Placement | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_layers is not None and self.kind == "input":
            raise PromptError(
                f"top_layers is {self.top_layers} for a prompt of kind {self.kind}: it counts the layers, from "
                "the top, that carry a gated or prefix prompt"
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
