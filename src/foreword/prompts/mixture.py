"""Mixtures of gated prompts on disk: `mixture.json` beside a bank of its sources."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.common.errors import PromptError
from foreword.common.files import write_json
from foreword.prompts.cards import read_json_card
from foreword.prompts.encoder import transformer_of
from foreword.prompts.routes import Route, Routes, Weight, layer_weights, plain_weight
from foreword.prompts.store import CARD as PROMPT_CARD
from foreword.prompts.store import StoredPrompt, describe_backbone, folder_name, load_bank, save_prompt

FORMAT = "foreword-mixture/1"
CARD = "mixture.json"
SOURCES = "foreword-sources"


def save_mixture(
    folder: str | Path,
    domain: str,
    weights: Mapping[str, Weight],
    sources: Mapping[str, StoredPrompt],
    encoder: SentenceTransformer,
    *,
    document: str | None = None,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Store a mixture with copies of its sources, so that the folder can be moved and used alone.

    Args:
        folder: made when missing; what a mixture left there before is replaced.
        domain: the target's name.
        weights: of the sources, a number or one for each layer; those of weight 0 are left out. None left: the base
            model.
        sources: the stored prompts, by name.
        encoder: whose backbone they belong to.
        document: the one source that encodes documents; None: the mixture does.
        record: further entries of `mixture.json`.

    Returns:
        The folder.

    Raises:
        PromptError: a weight is not made of finite numbers, or has not one for each layer of its source.
    """
    folder = Path(folder)
    kept = _kept(weights)
    if kept:
        _check_weights(kept, {name: sources[name] for name in kept}, encoder)
    if is_mixture(folder) and (folder / SOURCES).exists():  # an earlier mixture's own copies
        shutil.rmtree(folder / SOURCES)
    for name in (CARD, PROMPT_CARD):  # one folder holds one thing
        (folder / name).unlink(missing_ok=True)
    needed = [*kept, *([document] if kept and document is not None and document not in kept else [])]
    for name in needed:
        card = {
            key: sources[name].card[key]
            for key in ("start", "start_digest", "training", "supervision", "data", "metrics")
            if key in sources[name].card
        }
        prompt, dtype = sources[name].prompt, str(sources[name].card.get("dtype", "float32"))
        save_prompt(folder / SOURCES / folder_name(name), prompt, encoder, name, dtype=dtype, record=card)
    digests = {name: sources[name].prompt.digest() for name in needed}
    write_json(
        folder / CARD,
        {
            "format": FORMAT,
            "domain": domain,
            "weights": kept,
            "document": document,
            "sources": digests,
            "backbone": describe_backbone(encoder),
            **(record or {}),
        },
    )
    return folder


def _kept(weights: Mapping[str, Weight]) -> dict[str, float | list[float]]:
    """The weights as JSON values, without those that are 0 in every layer."""
    plain = {name: plain_weight(name, weight) for name, weight in weights.items()}
    return {name: weight for name, weight in plain.items() if (any(weight) if isinstance(weight, list) else weight)}


def _check_weights(
    weights: Mapping[str, Weight], sources: Mapping[str, StoredPrompt], encoder: SentenceTransformer
) -> None:
    """Raise `PromptError` unless every weight is one number, or one for each layer that its source stands in."""
    shape = transformer_of(encoder).shape
    for name, weight in weights.items():
        layer_weights({name: weight}, len(shape.prompted(sources[name].prompt.spec)))


def is_mixture(folder: str | Path) -> bool:
    """Whether the folder holds a mixture."""
    return (Path(folder) / CARD).is_file()


def read_mixture_card(folder: str | Path) -> dict[str, Any]:
    """The contents of a mixture's card. Raises `PromptError` when there is none, or it is not one."""
    fields = {"domain": str, "weights": dict, "sources": dict}
    try:
        return read_json_card(Path(folder) / CARD, FORMAT, fields)
    except FileNotFoundError:
        raise PromptError(f"{folder} holds no {CARD}") from None


def attach_mixture(encoder: SentenceTransformer, folder: str | Path) -> Route:
    """Load a stored mixture's sources into the encoder; returns the route that mixes them.

    Raises:
        PromptError: the folder is broken or altered, or was made for another backbone.
    """
    folder = Path(folder)
    card = read_mixture_card(folder)
    weights: dict[str, Weight] = card["weights"]
    if not weights:
        return None
    try:
        weights = {name: plain_weight(name, weight) for name, weight in weights.items()}
    except PromptError as error:
        raise PromptError(f"{folder / CARD}: {error}") from error
    bank = load_bank(folder / SOURCES, encoder)
    document: str | None = card.get("document")
    if set(bank) != {*weights, *([] if document is None else [document])}:
        raise PromptError(
            f"{folder}: weights are for {sorted(weights)}, sources are {sorted(bank)}; copy it again, whole"
        )
    try:
        _check_weights(weights, bank, encoder)
    except PromptError as error:
        raise PromptError(f"{folder / CARD}: {error}") from error
    # Another mixture may hold another prompt of the same name.
    carried = {name: f"{card['domain']} <- {name}" for name in bank}
    for name, stored in bank.items():
        if stored.prompt.digest() != card["sources"].get(name):
            raise PromptError(f"{folder}: source {name!r} is not the one the mixture was made of")
        transformer_of(encoder).add(carried[name], stored.prompt)
    mixed = {carried[name]: weight for name, weight in weights.items()}
    return mixed if document is None else Routes(mixed, carried[document])
