"""Where the vectors of a prompt stand among a text's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from foreword.common.errors import PromptError
from foreword.prompts.spec import Placement


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
