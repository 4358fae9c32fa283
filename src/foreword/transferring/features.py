"""Document features of a bank's source domains, kept beside its prompts.

With `features.safetensors` in a bank's folder, its reach (see `foreword.transferring.reach`) is known wherever the
folder goes: the sources' collections need not be there, nor be embedded again.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from sentence_transformers import SentenceTransformer

from foreword.collections.records import Collection
from foreword.collections.templates import DOCUMENT
from foreword.common.errors import ForewordError
from foreword.common.files import atomic_write
from foreword.prompts.encoder import Precision
from foreword.prompts.store import describe_backbone
from foreword.transferring.similarity import Array, document_features, unit_rows

FILE = "features.safetensors"
FORMAT = "foreword-features/1"


@dataclass(frozen=True)
class FeatureSettings:
    """What document features depend on, besides the encoder.

    Attributes:
        sample: documents of a domain, at most; see `foreword.transferring.similarity.document_features`.
        seed: of the sample.
        max_length: tokens a document is cut to.
        document_template: what is embedded of a document.
    """

    sample: int = 400
    seed: int = 0
    max_length: int = 128
    document_template: str = DOCUMENT

    def __post_init__(self) -> None:
        if self.sample < 1 or self.max_length < 3:
            raise ForewordError(
                f"features of {self.sample} documents of {self.max_length} tokens; expected 1 document and 3 tokens "
                "at least"
            )


@dataclass(frozen=True)
class BankFeatures:
    """What is known of a bank's source domains.

    Attributes:
        features: domain -> unit-length document features (at most `sample`, d').
        left_out: domain -> why its documents cannot be looked at.
    """

    features: Mapping[str, Array]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def said(self) -> str:
        """Which domains are left out, and why the first one is; empty: none."""
        if not self.left_out:
            return ""
        first, reason = next(iter(self.left_out.items()))
        return (
            f"the bank's reach is judged without {', '.join(self.left_out)}, whose documents cannot be looked at "
            f"({first}: {reason})"
        )


def bank_features(
    folder: str | Path,
    encoder: SentenceTransformer,
    domains: Sequence[str],
    load: Callable[[str], Collection],
    settings: FeatureSettings | None = None,
    *,
    precision: Precision = "float32",
    quiet: bool = False,
) -> BankFeatures:
    """Document features of source domains, from the bank's folder where they are there, else made and kept there.

    Those of another encoder or other settings are made again. A folder that cannot be written to is no failure: a
    warning says that they are not kept. A collection that has changed since is not noticed; delete the file then.

    Args:
        folder: the bank's.
        encoder: whose base model embeds.
        domains: the collections' ids, see `foreword.transferring.reach.source_domains`.
        load: a collection by its id; called for what is missing only.
        settings: the sample; None: 400 documents.
        precision: of the forward passes.
        quiet: no progress bars.
    """
    settings = settings or FeatureSettings()
    path, identity = Path(folder) / FILE, _identity(encoder, settings)
    known = _read(path, identity)
    made: dict[str, Array] = {}
    left_out: dict[str, str] = {}
    for domain in domains:
        if domain in known:
            continue
        try:
            features = document_features(
                encoder,
                load(domain),
                limit=settings.sample,
                seed=settings.seed,
                precision=precision,
                max_length=settings.max_length,
                quiet=quiet,
            )
        except ForewordError as error:
            left_out[domain] = str(error)
            continue
        made[domain] = features.astype(np.float16)  # rounded as the file's, so that both give the same reach
    if made:
        _keep(path, {**known, **made}, identity)
    found = {**known, **made}
    return BankFeatures({name: unit_rows(found[name]) for name in domains if name in found}, left_out)


def _identity(encoder: SentenceTransformer, settings: FeatureSettings) -> dict[str, str]:
    """What features must agree in to be comparable, as the texts that safetensors' metadata holds."""
    described = describe_backbone(encoder)
    return {
        "format": FORMAT,
        "fingerprint": str(described["fingerprint"]),
        "pooling": json.dumps(described["pooling"]),
        "text_prompts": json.dumps(described["text_prompts"], sort_keys=True),
        "sample": str(settings.sample),
        "seed": str(settings.seed),
        "max_length": str(settings.max_length),
        "document_template": settings.document_template,
    }


def _read(path: Path, identity: Mapping[str, str]) -> dict[str, np.ndarray[Any, Any]]:
    """The features kept in a file, by domain; none where there is no file, or it is of something else."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}) != dict(identity):
                return {}
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (SafetensorError, OSError) as error:
        warnings.warn(f"{path} cannot be read ({error}) and is made again", stacklevel=3)
        return {}


def _keep(path: Path, features: Mapping[str, np.ndarray[Any, Any]], identity: Mapping[str, str]) -> None:
    tensors = {name: np.ascontiguousarray(features[name], np.float16) for name in sorted(features)}
    try:
        with atomic_write(path, "wb") as file:
            file.write(save(tensors, dict(identity)))
    except OSError as error:
        warnings.warn(f"the sources' document features are not kept for the next time: {error}", stacklevel=3)
