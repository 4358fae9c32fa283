"""How far a bank of prompts reaches: is there a domain among its sources whose documents are like the target's?

On domains far from all of a bank's, its prompts do harm. The limit is one number, whatever the bank: of sources that
are far from one another, none makes a far target near.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection
from foreword.collections.registry import canonical
from foreword.collections.supervision import split_fold
from foreword.errors import DataError, ForewordError
from foreword.files import atomic_write, rounded
from foreword.prompts.encoder import encode
from foreword.prompts.store import StoredPrompt, describe_backbone, trained_on
from foreword.settings import Precision
from foreword.transferring.config import FeatureSettings, Similarity

Array = np.ndarray[Any, np.dtype[np.float32]]


def document_features(
    encoder: SentenceTransformer,
    collection: Collection,
    *,
    limit: int = 500,
    seed: int = 0,
    precision: Precision = "float32",
    max_length: int | None = 128,
    quiet: bool = False,
) -> Array:
    """Unit-length base embeddings (N, d') of a sample of the documents; no query and no judgement is looked at.

    Args:
        encoder: whose base model embeds.
        collection: the domain.
        limit: at most so many documents, those with the smallest seeded hashes of their ids.
        seed: of the sample.
        precision: of the forward passes.
        max_length: tokens a document is cut to.

    Raises:
        DataError: no documents, as when all of them are the target's too.
    """

    def rank(doc_id: str) -> bytes:
        return hashlib.sha256(f"{seed}\x1f{doc_id}".encode()).digest()

    chosen = set(sorted((doc.doc_id for doc in collection.documents()), key=rank)[:limit])
    texts = [doc.content for doc in collection.documents() if doc.doc_id in chosen]
    if not texts:
        raise DataError(f"{collection.id} has no documents (left), so there is nothing to compare")
    how: dict[str, Any] = {"precision": precision, "max_length": max_length, "what": collection.id, "quiet": quiet}
    return unit_rows(encode(encoder, texts, "document", route=None, **how))


def unit_rows(vectors: np.ndarray[Any, Any]) -> Array:
    """The rows scaled to length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


def similarity(target: Array, source: Array, method: Similarity = "mean") -> float:
    """Likeness of two domains, from unit vectors (N, d') and (M, d').

    Args:
        target: one domain's document features.
        source: the other's.
        method: `mean`, the cosine of the mean embeddings; `pairwise`, the mean cosine over all pairs.
    """
    if method not in get_args(Similarity):
        raise ForewordError(f"similarity method is {method!r}; expected one of {', '.join(get_args(Similarity))}")
    a, b = target.mean(axis=0), source.mean(axis=0)
    product = float(a @ b)  # the mean of all pairs' products is the product of the means
    return product if method == "pairwise" else product / float(np.linalg.norm(a) * np.linalg.norm(b))


def softmax_weights(similarities: Mapping[str, float], *, top_k: int = 5, temperature: float = 0.1) -> dict[str, float]:
    """Weights of the `top_k` most similar sources, `softmax(similarity / temperature)`; they add up to 1.

    Ties are broken by name. Raises `ForewordError` when nothing is left to weigh.
    """
    if top_k < 1 or temperature <= 0 or not similarities:
        raise ForewordError(
            f"{len(similarities)} sources, top_k {top_k}, temperature {temperature}: expected at least one source, "
            "top_k at least 1 and a temperature above 0"
        )
    best = sorted(similarities.items(), key=lambda item: (-item[1], item[0]))[:top_k]
    scores = np.array([value for _, value in best]) / temperature
    shares = np.exp(scores - scores.max())
    return {name: float(share) for (name, _), share in zip(best, shares / shares.sum(), strict=True)}


LIMIT = 0.5
"""Nearness from which a domain is within reach.

By all-MiniLM-L6-v2, packages' documentation is at .51 to .91 from its nearest among six or more others, the manual of
a search for programs at .45 (`glasgow/cacm`, where prompts of documentation do harm), and any of ten collections with
people's queries at .33 or less from documentation and from one another, but for code and documentation (`cosqa`, .63).
"""


@dataclass(frozen=True)
class Reach:
    """A target's nearness to a bank's domains.

    Attributes:
        nearness: to the nearest of the domains, see `nearness`.
        limit: the least that is within reach.
        nearest: that domain.
    """

    nearness: float
    limit: float
    nearest: str

    @property
    def within(self) -> bool:
        """Whether the target is within reach."""
        return self.nearness >= self.limit

    def said(self, target: str) -> str:
        """The comparison in plain words."""
        where = "within" if self.within else "out of"
        return (
            f"of the bank's domains, {self.nearest} is most similar to {target}: the cosine of their documents' means "
            f"is {self.nearness:.3f}, {where} its reach (at least {self.limit:g})"
        )

    def as_dict(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        numbers: dict[str, Any] = rounded({**asdict(self), "within": self.within})
        return numbers


def nearness(target: Array, others: Mapping[str, Array]) -> tuple[float, str]:
    """The greatest cosine between the mean of a domain's document features and that of another, and which one's.

    More sources can only come nearer, and how they lie to one another has no part in it.

    Args:
        target: (N, d') unit-length document features, see `foreword.transferring.reach.document_features`.
        others: the other domains', (M, d') each.

    Raises:
        ForewordError: no documents on either side, or features of different width.
    """
    if not len(target) or not any(map(len, others.values())):
        raise ForewordError("nearness needs documents of the target and of one other domain at least; got none")
    widths = {features.shape[1] for features in (target, *others.values())}
    if len(widths) > 1:
        raise ForewordError(f"document features have {sorted(widths)} numbers each; expected those of one encoder")
    found = {name: similarity(target, features) for name, features in others.items() if len(features)}
    nearest = min(found, key=lambda name: (-found[name], name))
    return found[nearest], nearest


def reach_of(target_features: Array, source_features: Mapping[str, Array]) -> Reach:
    """A target's nearness to a bank's domains, by document features of one encoder. Raises as `nearness`."""
    value, nearest = nearness(target_features, source_features)
    return Reach(value, LIMIT, nearest)


def source_domains(bank: Mapping[str, StoredPrompt]) -> list[str]:
    """The collections behind a bank's prompts, each once, sorted.

    A prompt trained on several, or started from one that was, brings all of them; one whose card names none brings
    its own domain. A fold counts as its collection, whose documents it shares.
    """
    found: dict[str, str] = {}
    for name, stored in bank.items():
        for domain in trained_on(stored.card) or (name,):
            base = split_fold(domain)[0]
            found.setdefault(canonical(base), base)
    return sorted(found.values())


FILE = "features.safetensors"
"""With it the reach is known wherever a bank's folder goes, without the sources' collections."""

FORMAT = "foreword-features/1"


@dataclass(frozen=True)
class BankFeatures:
    """What is known of a bank's source domains: their features (at most `sample`, d'), or why they have none.

    Attributes:
        features: domain -> unit-length document features.
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
            f"similarity to the bank is judged without {', '.join(self.left_out)}, whose documents cannot be read "
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
    """
    settings = settings or FeatureSettings()
    path, described = Path(folder) / FILE, describe_backbone(encoder)
    identity = {  # what features must agree in to be comparable, as the texts that safetensors' metadata holds
        "format": FORMAT,
        "fingerprint": str(described["fingerprint"]),
        "pooling": json.dumps(described["pooling"]),
        "text_prompts": json.dumps(described["text_prompts"], sort_keys=True),
        **{name: str(value) for name, value in settings.as_dict().items()},
    }
    known = _read(path, identity)
    found, left_out = dict(known), {}
    for domain in domains:
        if domain in known:
            continue
        try:
            features = document_features(encoder, load(domain), quiet=quiet, **settings.sampling(precision))
        except ForewordError as error:
            left_out[domain] = str(error)
            continue
        found[domain] = features.astype(np.float16)  # rounded as the file's, so that both give the same reach
    if len(found) > len(known):
        tensors = {name: np.ascontiguousarray(found[name], np.float16) for name in sorted(found)}
        try:
            with atomic_write(path, "wb") as file:
                file.write(save(tensors, identity))
        except OSError as error:
            warnings.warn(f"the embeddings of the bank's documents could not be stored: {error}", stacklevel=2)
    return BankFeatures({name: unit_rows(found[name]) for name in domains if name in found}, left_out)


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
