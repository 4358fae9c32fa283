"""Mixtures of gated prompts on disk: `mixture.json` beside a bank of its sources."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.common.errors import PromptError
from foreword.common.files import write_json
from foreword.prompts.encoder import transformer_of
from foreword.prompts.store import StoredPrompt, folder_name, load_bank, save_prompt
from foreword.prompts.transformer import Route

FORMAT = "foreword-mixture/1"
CARD = "mixture.json"


def save_mixture(
    folder: str | Path,
    domain: str,
    weights: Mapping[str, float],
    sources: Mapping[str, StoredPrompt],
    encoder: SentenceTransformer,
    *,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Store a mixture with copies of its sources, so that the folder can be moved and used alone.

    Args:
        folder: made when missing; what a mixture left there before is replaced.
        domain: the target's name.
        weights: of the sources; those of weight 0 are left out. None left: the base model.
        sources: the stored prompts, by name.
        encoder: whose backbone they belong to.
        record: further entries of `mixture.json`.

    Returns:
        The folder.
    """
    folder = Path(folder)
    (folder / CARD).unlink(missing_ok=True)
    if (folder / "sources").exists():
        shutil.rmtree(folder / "sources")
    kept = {name: float(weight) for name, weight in weights.items() if weight}
    for name in kept:
        card = {
            key: sources[name].card[key]
            for key in ("start", "training", "data", "metrics")
            if key in sources[name].card
        }
        prompt, dtype = sources[name].prompt, str(sources[name].card.get("dtype", "float32"))
        save_prompt(folder / "sources" / folder_name(name), prompt, encoder, name, dtype=dtype, record=card)
    digests = {name: sources[name].prompt.digest() for name in kept}
    write_json(
        folder / CARD,
        {"format": FORMAT, "domain": domain, "weights": kept, "sources": digests, **(record or {})},
    )
    return folder


def is_mixture(folder: str | Path) -> bool:
    """Whether the folder holds a mixture."""
    return (Path(folder) / CARD).is_file()


def attach_mixture(encoder: SentenceTransformer, folder: str | Path) -> Route:
    """Load a stored mixture's sources into the encoder; returns the route that mixes them.

    Raises:
        PromptError: the folder is broken or altered, or was made for another backbone.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PromptError(f"{folder / CARD} cannot be read: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise PromptError(f"{folder / CARD} is not of the format {FORMAT!r}")
    weights: dict[str, float] = card["weights"]
    if not weights:
        return None
    if not all(isinstance(w, int | float) and math.isfinite(w) for w in weights.values()):
        raise PromptError(f"{folder / CARD}: weights are {weights}; expected finite numbers")
    bank = load_bank(folder / "sources", encoder)
    if set(bank) != set(weights):
        raise PromptError(
            f"{folder}: weights are for {sorted(weights)}, sources are {sorted(bank)}; copy it again, whole"
        )
    route: dict[str, float] = {}
    for name, stored in bank.items():
        if stored.prompt.digest() != card["sources"][name]:
            raise PromptError(f"{folder}: source {name!r} is not the one the mixture was made of")
        key = f"{card['domain']} <- {name}"  # another mixture may hold another prompt of this name
        transformer_of(encoder).add(key, stored.prompt)
        route[key] = weights[name]
    return route
