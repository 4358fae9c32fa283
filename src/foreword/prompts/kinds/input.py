"""`input`: n learned vectors among the word embeddings of a text (Lester et al. 2021, 2104.08691)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foreword.errors import PromptError
from foreword.prompts.kinds.kind import Carrier, Form, PromptKind
from foreword.prompts.spec import BackboneShape, Placement, PromptSpec


class Input(PromptKind):
    """`vectors` (n, d), after a text's first token or before it; pooling sees the text's own positions alone."""

    name = "input"
    axes = {"vectors": ("length", "width")}  # noqa: RUF012  # nobody changes it
    peft = "PROMPT_TUNING"
    among_words = True

    def check(self, spec: PromptSpec) -> None:
        """Refuse a choice of layers."""
        if spec.top_layers is not None:
            raise PromptError(
                f"top_layers is {spec.top_layers} for a prompt of kind {self.name}: it counts the layers, from "
                "the top, that carry a prompt of another kind"
            )

    def layers(self, spec: PromptSpec, shape: BackboneShape) -> tuple[int, ...]:
        """None."""
        return ()

    def check_backbone(self, spec: PromptSpec, carrier: Carrier) -> None:
        """Every backbone has words."""

    def placement(self, spec: PromptSpec, carrier: Carrier) -> Placement:
        """As asked for, or else after a first token where the tokenizer puts one there."""
        if spec.placement == "after-cls" and not carrier.first_token:
            raise PromptError("placement 'after-cls': this backbone's tokenizer puts no [CLS] first; use 'before'")
        return spec.placement or ("after-cls" if carrier.first_token else "before")

    def positions(self, spec: PromptSpec) -> int:
        """One for each vector."""
        return spec.length

    def noise(self, carrier: Carrier, name: str) -> float:
        """That of the word embeddings."""
        return float(carrier.model.get_input_embeddings().weight.float().std())

    def from_tokens(self, spec: PromptSpec, carrier: Carrier, ids: Tensor) -> dict[str, Tensor]:
        """The tokens' embeddings."""
        embeddings = carrier.model.get_input_embeddings()
        return {"vectors": embeddings(ids.to(embeddings.weight.device)).detach()}

    def together(self, parts: Sequence[Mapping[str, Tensor]], weights: Tensor | None) -> dict[str, Tensor]:
        """(1, n, d)."""
        return {"vectors": parts[0]["vectors"].unsqueeze(0)}

    def by_row(self, parts: Sequence[Mapping[str, Tensor]], own: Tensor) -> dict[str, Tensor]:
        """(B, n, d)."""
        return {"vectors": torch.stack([part["vectors"] for part in parts])[own]}

    def forward(
        self,
        spec: PromptSpec,
        carrier: Carrier,
        features: dict[str, Any],
        tensors: Mapping[str, Tensor],
        present: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Prompt and text as one sequence; rows without a prompt apart, since their texts stand elsewhere."""
        if present is not None:
            return self._apart(spec, carrier, features, tensors, present, kwargs)
        vectors, tokens = tensors["vectors"], features["input_ids"].shape[1]
        if carrier.position_limit is not None and tokens + vectors.shape[1] > carrier.position_limit:
            raise PromptError(
                f"{tokens} tokens and {vectors.shape[1]} prompt vectors pass the backbone's limit of "
                f"{carrier.position_limit}"
            )
        words = carrier.model.get_input_embeddings()(features["input_ids"])
        after_first = self.placement(spec, carrier) == "after-cls"
        inputs, where = inserted(features, words, vectors, after_first=after_first)
        hidden = carrier.run({**inputs, "modality": "text"}, **kwargs)[carrier.module_output_name]
        features[carrier.module_output_name] = hidden.gather(1, where.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return features

    def _apart(
        self,
        spec: PromptSpec,
        carrier: Carrier,
        features: dict[str, Any],
        tensors: Mapping[str, Tensor],
        present: Tensor,
        kwargs: dict[str, Any],
    ) -> dict[str, Any]:
        output: Tensor | None = None
        for chosen in (~present, present):
            rows = rows_of(features, chosen)
            if chosen is present:
                own = {name: tensor[chosen] for name, tensor in tensors.items()}
                rows = self.forward(spec, carrier, rows, own, **kwargs)
            else:
                rows = carrier.run(rows, **kwargs)
            part: Tensor = rows[carrier.module_output_name]
            output = part.new_empty(len(present), *part.shape[1:]) if output is None else output
            output = output.index_copy(0, chosen.nonzero().squeeze(1), part)
        features[carrier.module_output_name] = output
        return features

    def spots(self, part: Mapping[str, Tensor]) -> Tensor:
        """The vectors."""
        return part["vectors"]

    def why_not(self, form: Form, spec: PromptSpec, carrier: Carrier) -> str | None:
        """A plain model has its words after [CLS], PEFT its vectors before the whole text."""
        placement = self.placement(spec, carrier)
        if form == "plain" and placement != "after-cls":
            return (
                "its vectors stand before the text's first token; a plain model's tokenizer puts [CLS] before any "
                "word, so only placement 'after-cls' can be words"
            )
        if form == "peft" and placement != "before":
            return (
                "its vectors stand after [CLS]; PEFT puts them before the whole text. Train with --placement before, "
                "or export with --to plain"
            )
        return None


KIND = Input()


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


def rows_of(features: Mapping[str, Any], chosen: Tensor) -> dict[str, Any]:
    """The tokenized batch with the rows that `chosen`, (B,) bool, is True for."""
    count = chosen.shape[0]
    return {k: v[chosen] if isinstance(v, Tensor) and v.shape[:1] == (count,) else v for k, v in features.items()}
