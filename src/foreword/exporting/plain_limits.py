"""Which prompts and poolings a plain sentence-transformers model can have."""

from __future__ import annotations

from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from foreword.common.errors import BackboneError, PromptError
from foreword.prompts.encoder import transformer_of
from foreword.prompts.head import head_of
from foreword.prompts.prompt import Prompt

ELSEWHERE = "--to sentence-transformers writes any prompt (Foreword is installed where it is loaded)"

POOLINGS = ("mean", "mean_sqrt_len_tokens", "cls", "lasttoken")


def check_exportable(encoder: SentenceTransformer, default: str | None) -> int:
    """Refuse what a plain model cannot do.

    Args:
        encoder: with its prompts.
        default: see `export_plain`.

    Returns:
        n, the one length of all prompts.

    Raises:
        PromptError: with the reason.
        BackboneError: the encoder's backbone has no files to start from.
    """
    transformer = transformer_of(encoder)
    if transformer.backbone is None:
        raise BackboneError("only an encoder from foreword.load_encoder can be exported: its backbone has a folder")
    if not transformer.domains:
        raise PromptError("the encoder carries no prompt; load it with one, or with a bank")
    if default is not None and default not in transformer.domains:
        raise PromptError(f"no prompt for {default!r} to be the default; there are: {', '.join(transformer.domains)}")
    check_head(encoder)
    for domain in transformer.domains:
        check_prompt(encoder, domain, transformer.prompt(domain))
    specs = {domain: transformer.prompt(domain).spec for domain in transformer.domains}
    lengths = {domain: spec.length for domain, spec in specs.items()}
    if len(set(lengths.values())) > 1:
        raise PromptError(
            f"the prompts have {_listed(lengths)} vectors: a model cuts text and prompt together to one length, so "
            "texts of some domains would be cut elsewhere; export each length to a folder of its own"
        )
    if len({spec.sides == "query" for spec in specs.values()}) > 1:
        sides = {domain: spec.sides for domain, spec in specs.items()}
        raise PromptError(
            f"the prompts' sides are {_listed(sides)}: where documents have no prompt, a model cuts them shorter than "
            "those that have one; export prompts of sides 'query' to a folder of their own"
        )
    return next(iter(lengths.values()))


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{value} ({domain})" for domain, value in values.items())


def check_prompt(encoder: SentenceTransformer, domain: str, prompt: Prompt) -> None:
    """Raise `PromptError` unless the vectors can be words after the first token."""
    spec = prompt.spec
    if spec.kind != "input":
        raise PromptError(
            f"{domain}: a {spec.kind} prompt stands inside the layers, where a plain model has no place for it; only "
            f"'input' prompts can be words. {ELSEWHERE}"
        )
    if transformer_of(encoder).placement(spec.placement) != "after-cls":
        raise PromptError(
            f"{domain}: its vectors stand before the text's first token; a plain model's tokenizer puts [CLS] before "
            f"any word, so only placement 'after-cls' can be words. {ELSEWHERE}"
        )


def check_head(encoder: SentenceTransformer) -> None:
    """Raise `PromptError` unless the pooling can leave the prompt's words out."""
    pooling = head_of(encoder).pooling
    modes = (pooling,) if isinstance(pooling, str) else pooling or ("none",)
    reasons = {
        "max": "a word of weight 0 still takes part in a maximum",
        "weightedmean": "its weights count positions, the prompt's too",
        "none": "there is no pooling to leave the prompt's words out",
    }
    for mode in modes:
        if mode not in POOLINGS:
            raise PromptError(
                f"pooling {mode!r} of a plain model would take the prompt's words in: "
                f"{reasons.get(mode, 'it is not known here')}; there is {', '.join(POOLINGS)}. {ELSEWHERE}"
            )
    left_out = any(isinstance(module, Pooling) and not module.include_prompt for module in encoder)
    if left_out and any(encoder.prompts.values()):
        raise PromptError(
            "the backbone's pooling leaves out its own text prompt, and would leave out [CLS] and the new words with "
            f"it on one side only. {ELSEWHERE}"
        )
