"""Prompts on disk: `prompt.safetensors`, `prompt.json`, and `run.json` for what varies from run to run.

A prompt's folder never holds the backbone, nor a pickle. `prompt.json` is written last: a folder without it is
not a prompt. A bank is a folder of such folders, named by domain with `/` written `-`.
"""

from __future__ import annotations

import os
import platform
import shutil
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from sentence_transformers import SentenceTransformer

from foreword.errors import PromptError
from foreword.files import atomic_write, owns, sha256_file, write_json
from foreword.prompts.backbone import read_json_card
from foreword.prompts.encoder import head_of, state_digest, transformer_of
from foreword.prompts.prompt import Prompt
from foreword.prompts.routes import Route, Routes, Weight, layer_weights, plain_weight
from foreword.prompts.spec import CARD as CARD
from foreword.prompts.spec import MIXTURE_CARD as MIXTURE_CARD
from foreword.prompts.spec import PromptSpec, bank_folders, no_bank, no_prompt
from foreword.settings import Natural

FORMAT = "foreword-prompt/1"
WEIGHTS, RUN = "prompt.safetensors", "run.json"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def _possible(domain: str) -> str:
    """A domain's name itself. Raises `ValueError` for one that no folder, page or list could bear."""
    unseen = [letter for letter in domain if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")]
    if unseen or domain != domain.strip() or domain in ("", ".", "..", "*") or len(domain) > 1000:
        raise ValueError("expected a name")
    return domain


class _Start(BaseModel):
    """Of `start`, what is read."""

    trained_on: dict[str, str] | None = None


class _Step(BaseModel):
    """Of an entry of `metrics.dev`, what is read."""

    step: int
    dev: float | None = None


class _Metrics(BaseModel):
    """Of `metrics`, what is read."""

    dev: list[_Step] | None = None
    best_step: int | None = None


Domain = Annotated[str, AfterValidator(_possible)]
_JSON = dict[str, Any]
_FIELDS = {"domain": Domain, "prompt": _JSON, "bytes": Natural, "sha256": str, "backbone": _JSON}
_OPTIONAL = {
    **{"digest": str, "dtype": str, "start": _Start | str, "metrics": _Metrics},
    **dict.fromkeys(("data", "supervision", "distilled", "folded", "training", "text", "versions"), _JSON),
    **{"parameters": Natural, "learnt": bool, "layers": list[int]},
}


@dataclass(frozen=True)
class StoredPrompt:
    """A prompt with what its `prompt.json` says. `card` has at least `domain`, `backbone` and `prompt`."""

    prompt: Prompt
    card: Mapping[str, Any]
    path: Path | None = field(default=None, compare=False)

    @property
    def domain(self) -> str:
        """The domain it was trained for."""
        return str(self.card["domain"])


def folder_name(domain: str) -> str:
    """A domain's folder in a bank. Raises `PromptError` for a domain that no folder can be called by, such as `..`."""
    name = domain.replace("/", "-")
    if name in ("", ".", "..") or not name.isprintable() or "\\" in name or len(os.fsencode(name)) > 200:
        raise PromptError(
            f"the domain {domain[:80]!r} cannot be a folder's name; expected 1 to 200 bytes of printable text without "
            "a backslash, other than . and .."
        )
    return name


def describe_backbone(encoder: SentenceTransformer) -> dict[str, Any]:
    """What a prompt depends on: the weights' fingerprint, pooling, normalisation and similarity, the text prompts."""
    transformer = transformer_of(encoder)
    found = getattr(transformer, "backbone", None)
    head = head_of(encoder)
    return {
        "name": found.name if found else type(transformer.model).__name__,
        "revision": found.revision if found else None,
        "fingerprint": found.fingerprint if found else f"state:{state_digest(encoder)}",
        "pooling": list(head.pooling) if isinstance(head.pooling, tuple) else head.pooling,
        "normalized": head.normalized,
        "similarity": head.similarity,
        "width": transformer.shape.width,
        "text_prompts": {name: text for name, text in sorted(encoder.prompts.items()) if text},
    }


def library_versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    versions = {"python": platform.python_version()}
    for name in ("foreword", "torch", "transformers", "sentence-transformers"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            versions[name] = "unknown"
    return versions


@owns("folder")
def save_prompt(
    folder: str | Path,
    prompt: Prompt,
    encoder: SentenceTransformer,
    domain: str,
    *,
    dtype: str = "float16",
    record: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Path:
    """Store a prompt; equal prompts and records give equal bytes in `prompt.safetensors` and `prompt.json`.

    Args:
        folder: made when missing.
        prompt: its values are rounded to `dtype`.
        encoder: whose backbone it belongs to.
        domain: the name it goes by.
        dtype: `float16`, `bfloat16` or `float32`.
        record: further entries of `prompt.json`: `training`, `data`, `metrics`, `text`, `start`, ...
        run: what varies from run to run (times, host), for `run.json`.

    Returns:
        The folder.
    """
    if dtype not in DTYPES:
        raise PromptError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    folder = Path(folder)
    values = prompt.rounded(DTYPES[dtype]).tensors()
    stored = {name: tensor.to(DTYPES[dtype]).cpu().contiguous() for name, tensor in sorted(values.items())}
    (folder / "mixture.json").unlink(missing_ok=True)  # one folder holds one thing
    (folder / CARD).unlink(missing_ok=True)  # while the weights change, there is no prompt here
    with atomic_write(folder / WEIGHTS, "wb") as file:
        file.write(save(stored))
    card = {
        "format": FORMAT,
        "domain": domain,
        "prompt": prompt.spec.as_dict(),
        "layers": list(prompt.kind.layers(prompt.spec, transformer_of(encoder).shape)),
        "parameters": prompt.count(),
        "dtype": dtype,
        "bytes": (folder / WEIGHTS).stat().st_size,
        "sha256": sha256_file(folder / WEIGHTS),
        "digest": prompt.rounded(DTYPES[dtype]).digest(),
        "backbone": describe_backbone(encoder),
        "versions": library_versions(),
        **(record or {}),
    }
    write_json(folder / RUN, {"host": platform.node(), **(run or {})})
    write_json(folder / CARD, card)
    return folder


def read_card(folder: str | Path) -> dict[str, Any]:
    """The contents of a prompt's `prompt.json`.

    Raises:
        PromptError: there is none, or it is not one.
    """
    try:
        return read_json_card(Path(folder) / CARD, FORMAT, _FIELDS, _OPTIONAL)
    except FileNotFoundError:
        raise no_prompt(folder) from None


def trained_on(card: Mapping[str, Any]) -> dict[str, str]:
    """`collection -> supervision` of all that a prompt was trained on: itself, and what it started from.

    Labels that the start was trained on are not forgotten for pseudo-queries of the same collection.
    """
    start, supervision = card.get("start"), card.get("supervision")
    found: dict[str, str] = dict(start.get("trained_on") or {}) if isinstance(start, Mapping) else {}
    for name in card.get("data") or {}:
        said = supervision if isinstance(supervision, Mapping) else {}
        own = said if "method" in said else said.get(name)
        method = str(own.get("method", "unknown")) if isinstance(own, Mapping) else "unknown"
        found[name] = found[name] if method == "pseudo-queries" and name in found else method
    return found


def load_prompt(folder: str | Path, encoder: SentenceTransformer | None = None) -> StoredPrompt:
    """Read a stored prompt and check it against its own card and, when given, the encoder's backbone.

    Raises:
        PromptError: a file is missing, cut or altered, or the prompt was made for another backbone.
    """
    folder = Path(folder)
    card = read_card(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise PromptError(f"{folder} has no {WEIGHTS}; copy the folder again, whole")
    if (size := weights.stat().st_size) != card["bytes"]:
        raise PromptError(f"{weights} has {size} bytes, {CARD} says {card['bytes']}: it was cut or altered")
    if (found := sha256_file(weights)) != card["sha256"]:
        raise PromptError(f"{weights} has sha256 {found[:12]}..., {CARD} says {card['sha256'][:12]}...: it was altered")
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(weights).items()}
        prompt = Prompt(PromptSpec(**card["prompt"]), tensors)
    except (PromptError, SafetensorError, TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise PromptError(f"{folder} cannot be read: {error}") from error
    if encoder is not None:
        check_backbone(card, encoder, folder)
    return StoredPrompt(prompt, card, folder)


def check_backbone(card: Mapping[str, Any], encoder: SentenceTransformer, where: str | Path) -> None:
    """Raise `PromptError` unless the prompt of `card` was made for this encoder's backbone and pooling."""
    here = describe_backbone(encoder)
    made_for = {"similarity": here["similarity"], **card["backbone"]}  # older cards do not say it
    for key, what in (
        ("fingerprint", "weights"),
        ("pooling", "pooling"),
        ("normalized", "normalisation"),
        ("similarity", "similarity"),
        ("text_prompts", "text prompts"),
    ):
        if (there := made_for.get(key)) != here[key]:
            raise PromptError(
                f"{where}: the prompt was made for backbone {made_for.get('name')!r} with {what} {there!r}; this "
                f"encoder is {here['name']!r} with {what} {here[key]!r}. Load the backbone it was made for"
            )


def attach_prompt(encoder: SentenceTransformer, folder: str | Path) -> str:
    """Load a stored prompt into the encoder; returns its domain."""
    stored = load_prompt(folder, encoder)
    transformer_of(encoder).add(stored.domain, stored.prompt)
    return stored.domain


def load_bank(folder: str | Path, encoder: SentenceTransformer | None = None) -> dict[str, StoredPrompt]:
    """The prompts of a bank by domain, in order of their folders' names.

    Raises:
        PromptError: the folder holds no prompt, a broken one, or two for one domain.
    """
    folder = Path(folder)
    found = bank_folders(folder)
    if not found:
        raise no_bank(folder)
    bank: dict[str, StoredPrompt] = {}
    for path in found:
        stored = load_prompt(path, encoder)
        if stored.domain in bank:
            raise PromptError(f"{path} and {bank[stored.domain].path} both hold a prompt for {stored.domain!r}")
        bank[stored.domain] = stored
    return bank


def attach_bank(encoder: SentenceTransformer, folder: str | Path) -> list[str]:
    """Load a bank's prompts into the encoder; returns their domains."""
    bank = load_bank(folder, encoder)
    for domain, stored in bank.items():
        transformer_of(encoder).add(domain, stored.prompt)
    return list(bank)


# Mixtures of prompts on disk: `mixture.json` beside a bank of its sources.


MIXTURE_FORMAT = "foreword-mixture/1"
SOURCES = "foreword-sources"


@owns("folder")
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
    plain = {name: plain_weight(name, weight) for name, weight in weights.items()}
    kept = {name: weight for name, weight in plain.items() if (any(weight) if isinstance(weight, list) else weight)}
    if kept:
        _check_weights(kept, {name: sources[name] for name in kept}, encoder)
    if is_mixture(folder) and (folder / SOURCES).exists():  # an earlier mixture's own copies
        shutil.rmtree(folder / SOURCES)
    for name in (MIXTURE_CARD, CARD):  # one folder holds one thing
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
        folder / MIXTURE_CARD,
        {
            "format": MIXTURE_FORMAT,
            "domain": domain,
            "weights": kept,
            "document": document,
            "sources": digests,
            "backbone": describe_backbone(encoder),
            **(record or {}),
        },
    )
    return folder


def _check_weights(
    weights: Mapping[str, Weight], sources: Mapping[str, StoredPrompt], encoder: SentenceTransformer
) -> None:
    """Raise `PromptError` unless every weight is one number, or one for each layer that its source stands in."""
    shape = transformer_of(encoder).shape
    for name, weight in weights.items():
        prompt = sources[name].prompt
        layer_weights({name: weight}, len(prompt.kind.layers(prompt.spec, shape)))


def is_mixture(folder: str | Path) -> bool:
    """Whether the folder holds a mixture."""
    return (Path(folder) / MIXTURE_CARD).is_file()


def read_mixture_card(folder: str | Path) -> dict[str, Any]:
    """The contents of a mixture's card. Raises `PromptError` when there is none, or it is not one."""
    fields = {"domain": Domain, "weights": _JSON, "sources": _JSON}
    optional = {"document": str, "backbone": _JSON, "supervision": _JSON}
    try:
        return read_json_card(Path(folder) / MIXTURE_CARD, MIXTURE_FORMAT, fields, optional)
    except FileNotFoundError:
        raise PromptError(f"{folder} holds no {MIXTURE_CARD}") from None


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
        raise PromptError(f"{folder / MIXTURE_CARD}: {error}") from error
    bank = load_bank(folder / SOURCES, encoder)
    document: str | None = card.get("document")
    if set(bank) != {*weights, *([] if document is None else [document])}:
        raise PromptError(
            f"{folder}: weights are for {sorted(weights)}, sources are {sorted(bank)}; copy it again, whole"
        )
    try:
        _check_weights(weights, bank, encoder)
    except PromptError as error:
        raise PromptError(f"{folder / MIXTURE_CARD}: {error}") from error
    # Another mixture may hold another prompt of the same name.
    carried = {name: f"{card['domain']} <- {name}" for name in bank}
    for name, stored in bank.items():
        if stored.prompt.digest() != card["sources"].get(name):
            raise PromptError(f"{folder}: source {name!r} is not the one the mixture was made of")
        transformer_of(encoder).add(carried[name], stored.prompt)
    mixed = {carried[name]: weight for name, weight in weights.items()}
    return mixed if document is None else Routes(mixed, carried[document])
