"""What a prompt looks like (kind, length, layers, sides), and what it has to fit. Importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from foreword.errors import PromptError
from foreword.files import no_folder
from foreword.settings import Count, Natural, OneOf, Settings, Side

KINDS = {
    "memory": "foreword.prompts.kinds.memory",
    "gated": "foreword.prompts.kinds.gated",
    "prefix": "foreword.prompts.kinds.prefix",
    "input": "foreword.prompts.kinds.input",
}
"""Kind -> its module, whose `KIND` is all that is known of it; imported when needed, since it loads torch."""

CARD, MIXTURE_CARD = "prompt.json", "mixture.json"
"""What is known of a stored prompt, or of a mixture of them, in its folder."""

Kind = Annotated[str, OneOf(KINDS)]
Sides = Literal["shared", "untied", "query"]
Placement = Literal["after-cls", "before"]
Start = Literal["words", "text", "noise", "first-ids"]
StoredType = Literal["float32", "float16", "bfloat16"]
"""What the numbers of a prompt's file may be."""


class Default(Enum):
    """The default of functions that take a route; None already means the base model."""

    OWN = "what the encoder is routed to"


OWN = Default.OWN


@dataclass(frozen=True)
class PromptSpec(Settings):
    """The structure of a prompt, independent of any backbone.

    Attributes:
        kind: `memory`: learned keys and values beside a layer's attention, its feed-forward part, or both (Geva
            et al. 2021, He et al. 2022), values 0 at the start; `gated`: attention over n learned key/value vectors
            added to a layer's own attention behind a gate that starts at 0 (LLaMA-Adapter, Zhang et al. 2023);
            `prefix`: n keys and values before every layer's own (P-tuning v2, Liu et al. 2022); `input`: n vectors
            before the text (Lester et al. 2021).
        length: n, the number of vectors: before the text for `input`, else in the attention of each layer. None:
            0 for `memory`, 8 for other kinds.
        feed_forward: m, the number of vectors beside each layer's feed-forward part, for `memory` only; None: n if
            given, else 16.
        top_layers: put the prompt into the top k layers only, below which a training computes each text once; None:
            into all. Not for `input`.
        sides: `shared`, one prompt for queries and documents; `untied`, one for each; `query`, documents are
            encoded by the base model.
        placement: where `input` vectors stand: after the first token (`[CLS]`) or before it; None: after it if the
            backbone's tokenizer adds one, else before.
    """

    refusal = PromptError

    kind: Kind = "memory"
    length: Natural = None  # type: ignore[assignment]  # a number from the first moment on
    feed_forward: Natural = None  # type: ignore[assignment]  # likewise
    top_layers: Count | None = None
    sides: Sides = "shared"
    placement: Placement | None = None

    def __post_init__(self) -> None:
        memory = self.kind == "memory"
        if self.feed_forward is None:
            given = 16 if self.length is None else self.length
            object.__setattr__(self, "feed_forward", given if memory else 0)
        if self.length is None:
            object.__setattr__(self, "length", 0 if memory else 8)
        super().__post_init__()
        if self.kind != "memory" and (self.feed_forward or not self.length):
            raise PromptError(
                f"length is {self.length} and feed_forward {self.feed_forward}: a prompt of kind {self.kind} has 1 "
                "vector or more, and only those of kind memory have some beside feed-forward parts"
            )
        if not self.length and not self.feed_forward:
            raise PromptError("length and feed_forward are 0: a prompt has 1 vector or more")
        if self.top_layers is not None or self.placement is not None:
            loaded(self.kind).check(self)

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


def loaded(kind: str) -> Any:
    """The one object that a kind is; `foreword.prompts.kinds.kind.kind_of` says what it can do.

    Raises:
        PromptError: there is no such kind.
    """
    if kind not in KINDS:
        raise PromptError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")
    return import_module(KINDS[kind]).KIND


def no_prompt(folder: Path | str) -> PromptError:
    """The error for a folder that holds no prompt; it names those of a bank, where it is one."""
    if fault := no_folder(folder):
        return PromptError(f"{folder} is no prompt: {fault}")
    found = bank_folders(folder)
    hint = f"; it is a bank, so give one of its prompts, e.g. {found[0]}" if found else ""
    cut = "" if found else " (a training that was cut leaves none)"
    return PromptError(f"{folder} is no prompt: it has no {CARD}{cut}{hint}")


def no_bank(folder: Path | str) -> PromptError:
    """The error for a folder that holds no folders of prompts."""
    why = no_folder(folder) or f"none of its folders holds a {CARD}"
    return PromptError(f"{folder} is no bank: {why}")


def no_contents(folder: Path | str) -> PromptError:
    """The error for a folder that holds nothing of a prompt's, in itself or in its folders."""
    what = f"no prompt ({CARD}), no mixture ({MIXTURE_CARD}) and no folders of them"
    return PromptError(f"{folder}: {no_folder(folder) or f'it holds {what}'}")


def holds_folders(folder: Path | str) -> bool:
    """Whether there are prompts or mixtures in its folders."""
    return any(any(Path(folder).glob(f"*/{card}")) for card in (CARD, MIXTURE_CARD))


def bank_folders(folder: Path | str) -> list[Path]:
    """The prompts' folders of a bank, by name."""
    return sorted(path.parent for path in Path(folder).glob(f"*/{CARD}"))


@dataclass(frozen=True)
class LayerShape:
    """The attention of one layer: query heads H, key/value heads G, width of a head h."""

    heads: int
    key_value_heads: int
    head_width: int


@dataclass(frozen=True)
class BackboneShape:
    """What a prompt's shapes follow from: the width d, the attention layers and the feed-forward parts that carry one.

    `layers` is empty where the backbone's attention cannot be reached, `feed_forwards` is 0 where its feed-forward
    parts cannot; without both it takes `input` prompts only. `hidden` is the width of what the layers hand on, which
    may be another than that of the word embeddings, `width`.
    """

    width: int
    layers: tuple[LayerShape, ...]
    feed_forwards: int = 0
    hidden: int = 0
