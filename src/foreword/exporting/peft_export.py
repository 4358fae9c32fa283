"""Prompts as PEFT's adapter files. PEFT itself is not needed to write them."""

from __future__ import annotations

import inspect
from pathlib import Path

from safetensors.torch import save
from sentence_transformers import SentenceTransformer

from foreword.common.errors import PromptError
from foreword.common.files import atomic_write, write_json
from foreword.exporting.folders import new_folder
from foreword.exporting.peft_layout import CONFIG, TENSOR, WEIGHTS, config_of, packed
from foreword.exporting.readmes import PREFIX_SNIPPET, peft_readme
from foreword.prompts.encoder import transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.store import folder_name
from foreword.prompts.transformer import PromptedTransformer


def export_peft(encoder: SentenceTransformer, output: str | Path) -> list[str]:
    """Write the encoder's prompts as adapters that `peft.PeftModel.from_pretrained` reads.

    Of one prompt the adapter lies in `output`, of several in a folder for each domain; where the sides differ, in
    `query` and `document` below it.

    Args:
        encoder: from `load_encoder`, with `input` prompts before the text, or `prefix` prompts.
        output: a folder that is not there yet.

    Returns:
        What to know about how PEFT runs them on this backbone.

    Raises:
        PromptError: PEFT has no such prompt.
        DataError: `output` is there already.
    """
    transformer = transformer_of(encoder)
    if not transformer.domains:
        raise PromptError("the encoder carries no prompt; load it with one, or with a bank")
    for domain in transformer.domains:
        check_exportable(transformer, domain, transformer.prompt(domain))
    if len({folder_name(domain) for domain in transformer.domains}) < len(transformer.domains):
        raise PromptError(f"the names {', '.join(transformer.domains)} do not give folders of their own; rename one")
    kind = type(transformer.model).__name__
    loader = kind if kind.endswith("EncoderModel") else "AutoModel"  # of T5, AutoModel has a decoder too
    notes: list[str] = []
    with new_folder(output) as folder:
        for domain in transformer.domains:
            prompt = transformer.prompt(domain)
            below = folder / folder_name(domain) if len(transformer.domains) > 1 else folder
            parts = {part: "" if part == "both" else part for part in prompt.spec.parts}
            for part, place in parts.items():
                _write(below / place, transformer, prompt, part)
            said = notes_on(transformer, prompt)
            notes += [note for note in said if note not in notes]
            title = Path(output).name if below == folder else domain
            with atomic_write(below / "README.md") as file:
                file.write(peft_readme(title, parts, said, transformer.backbone, loader))
    return notes


def check_exportable(transformer: PromptedTransformer, domain: str, prompt: Prompt) -> None:
    """Raise `PromptError` for what PEFT has no form of."""
    spec = prompt.spec
    if spec.kind == "gated":
        raise PromptError(
            f"{domain}: PEFT has no gated prompts of this form (its adaption prompts are made for decoders); it takes "
            "'prefix' prompts, and 'input' prompts of placement 'before'"
        )
    if spec.kind == "input" and transformer.placement(spec.placement) != "before":
        raise PromptError(
            f"{domain}: its vectors stand after [CLS]; PEFT puts them before the whole text. Train with "
            "--placement before, or export with --to plain"
        )
    layers = len(transformer.shape.layers)
    if spec.kind == "prefix" and spec.top_layers not in (None, layers):
        raise PromptError(
            f"{domain}: it stands in the top {spec.top_layers} of {layers} layers; PEFT fills layers from the bottom, "
            "so only prefixes of every layer can be exported"
        )


def _write(folder: Path, transformer: PromptedTransformer, prompt: Prompt, part: str) -> None:
    spec = prompt.spec
    tensors = {name.partition(".")[2]: t for name, t in prompt.tensors().items() if name.startswith(f"{part}.")}
    with atomic_write(folder / WEIGHTS, "wb") as file:
        file.write(save({TENSOR: packed(spec.kind, tensors)}, metadata={"format": "pt"}))
    name = transformer.backbone.name if transformer.backbone else None
    write_json(folder / CONFIG, config_of(spec.kind, spec.length, transformer.shape, name))


def notes_on(transformer: PromptedTransformer, prompt: Prompt) -> list[str]:
    """What differs between PEFT's own forward pass and ours on this backbone."""
    left = getattr(transformer.tokenizer, "padding_side", "right") == "left"
    if prompt.spec.kind == "input":
        if not left:
            return []
        return [
            "PEFT puts its vectors before the padding, which stands on the left here: encode texts of equal length "
            "together, or one by one."
        ]
    kind = type(transformer.model).__name__
    if "past_key_values" not in inspect.signature(transformer.model.forward).parameters:
        return [
            f"PEFT hands a prefix over as `past_key_values`, which {kind} does not take: its forward pass fails, or "
            "leaves the prefix out without a word. `foreword import` reads these files, and runs them."
        ]
    positions = "(mask.cumsum(1) - 1).clamp(min=0)" if left else "mask.cumsum(1) - 1"
    first = getattr(transformer.model.get_input_embeddings(), "padding_idx", None)
    if _counts_from_padding(transformer) and first is not None:
        positions = f"mask.cumsum(1) + {first}"
    return [PREFIX_SNIPPET.format(positions=positions).rstrip()]


def _counts_from_padding(transformer: PromptedTransformer) -> bool:
    """Whether positions start behind the padding's index, as RoBERTa's do."""
    return any(
        name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
        for name, module in transformer.model.named_modules()
    )
