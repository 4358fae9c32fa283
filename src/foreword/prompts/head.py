"""What follows the backbone: how token embeddings become one vector, and how two vectors are compared."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from foreword.common.errors import BackboneError, PromptError, UnknownNameError

logger = logging.getLogger(__name__)

Pooled = str | tuple[str, ...] | None


@dataclass(frozen=True)
class Head:
    """The pooling, the normalisation and the similarity of an encoder; a prompt belongs to one of them.

    Attributes:
        pooling: as sentence-transformers names it (`cls`, `mean`, ...), several where their vectors are joined;
            None: the encoder has no pooling module.
        normalized: embeddings are made unit length last.
        similarity: as sentence-transformers names it; `cosine` where unit vectors make others rank the same.
    """

    pooling: Pooled
    normalized: bool
    similarity: str

    def __str__(self) -> str:
        name = self.pooling if isinstance(self.pooling, str) else "+".join(self.pooling or ["no"])
        length = "embeddings of unit length" if self.normalized else "embeddings of any length"
        return f"{name} pooling, {length} and similarity {self.similarity}"


def head_of(encoder: SentenceTransformer) -> Head:
    """The head that an encoder has."""
    modes = [module.pooling_mode for module in encoder if isinstance(module, Pooling)]
    return _head(modes[0] if modes else None, isinstance(encoder[-1], Normalize), encoder.similarity_fn_name)


def _head(pooling: Any, normalized: bool, similarity: str) -> Head:
    same = normalized and similarity in ("dot", "euclidean")  # unit vectors are ranked as by the cosine
    return Head(as_pooled(pooling), normalized, "cosine" if same else similarity)


def as_pooled(pooling: Any) -> Pooled:
    """A pooling as a module or a JSON file holds it: one name, a list of them, or None."""
    if isinstance(pooling, list | tuple):
        return str(pooling[0]) if len(pooling) == 1 else tuple(map(str, pooling))
    return None if pooling is None else str(pooling)


def head_of_card(described: Mapping[str, Any], own: Head) -> Head:
    """The head in a card's `backbone`; `own`, the backbone's, says what an older card leaves out."""
    return Head(
        as_pooled(described.get("pooling", own.pooling)),
        bool(described.get("normalized", own.normalized)),
        str(described.get("similarity", own.similarity)),
    )


def head_of_saved(folder: str | Path, own: Head) -> Head:
    """The head that `save_pretrained` wrote into a folder; `own`, the backbone's, where it wrote no modules.

    Raises:
        PromptError: the files are not as sentence-transformers writes them.
    """
    folder = Path(folder)
    if not (folder / "modules.json").is_file():
        return own
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        pooling = None
        if "Pooling" in kinds:
            place = modules[kinds.index("Pooling")]["path"]
            pooling = Pooling.load_config(str(folder), subfolder=place)["pooling_mode"]
        settings = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
        return _head(pooling, kinds[-1] == "Normalize", settings.get("similarity_fn_name") or "cosine")
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise PromptError(f"{folder}: its modules cannot be read ({error!r}): it was cut or altered") from error


def head_of_stored(
    prompt: str | Path | None, bank: str | Path | None, fingerprint: str, own: Head
) -> tuple[Path, Head] | None:
    """The folder and the head of a stored prompt, or of the first of a mixture's or a bank's.

    None where there is none, or none of these weights: it is refused for them, whatever its pooling.

    Args:
        prompt: folder of a prompt or a mixture; it comes before the bank.
        bank: folder of prompts.
        fingerprint: of the backbone's weights.
        own: the backbone's head.

    Raises:
        PromptError: a card is broken.
    """
    from foreword.prompts.mixture import SOURCES, is_mixture, read_mixture_card
    from foreword.prompts.store import CARD, read_card

    folders: list[Path] = []
    if prompt is not None:
        folders += sorted(Path(prompt, SOURCES).glob("*")) if is_mixture(prompt) else [Path(prompt)]
    if bank is not None:
        folders += sorted(path.parent for path in Path(bank).glob(f"*/{CARD}"))
    if not folders and prompt is not None:  # a mixture of nothing: the base model, pooled as its sources would be
        folders = [Path(prompt)]
        described = read_mixture_card(prompt).get("backbone") or {}
    elif folders:
        described = read_card(folders[0])["backbone"]
    else:
        return None
    return (folders[0], head_of_card(described, own)) if described.get("fingerprint") == fingerprint else None


def load_head(
    encoder: SentenceTransformer,
    made: tuple[Path, Head] | None,
    pooling: str | Sequence[str] | None,
    normalize: bool | None,
) -> None:
    """Give an encoder the head asked for, or else the prompt's, or else leave it its own.

    Args:
        encoder: as it was loaded.
        made: the folder of a prompt to load, and what it was made under; None: there is no such prompt.
        pooling: asked for; None: the prompt's or its own.
        normalize: asked for: True, unit length and the cosine; False, any length and inner products.

    Raises:
        UnknownNameError: no such pooling.
        PromptError: what is asked for contradicts the prompt.
        BackboneError: the encoder cannot have this pooling, or its similarity cannot be computed here.
    """
    own = head_of(encoder)
    head = own if made is None else made[1]
    if pooling is not None:
        head = replace(head, pooling=_known(as_pooled(pooling)))
    if normalize is not None:
        head = replace(head, normalized=normalize, similarity="cosine" if normalize else "dot")
    if made is not None and head != made[1]:
        raise PromptError(
            f"{made[0]}: was made under {made[1]}; asked for was {head}. Leave pooling and normalize out, and they "
            "are the prompt's own, or train a prompt under the others"
        )
    if head.similarity not in ("cosine", "dot"):
        raise BackboneError(
            f"the encoder's similarity is {head.similarity!r}, and scores here are inner products; load it with "
            "normalize=True (the cosine) or normalize=False (inner products of its embeddings as they are)"
        )
    set_head(encoder, head)
    if made is not None and head != own:
        logger.info("%s: loaded under %s, as it was made; the backbone's own is %s", made[0], head, own)


def _known(pooling: Pooled) -> Pooled:
    names = (pooling,) if isinstance(pooling, str) else pooling or ()
    unknown = [name for name in names if name not in Pooling.POOLING_MODES]
    if unknown or not names:
        raise UnknownNameError(
            f"no pooling {', '.join(map(repr, unknown)) or 'of that name'}; there are: "
            f"{', '.join(Pooling.POOLING_MODES)} (the first token's vector is 'cls')"
        )
    return pooling


def set_head(encoder: SentenceTransformer, head: Head) -> None:
    """Give an encoder this head.

    Raises:
        BackboneError: it has no pooling module, or one whose width later modules depend on.
    """
    own = head_of(encoder)
    if head == own:
        return
    if head.pooling != own.pooling:
        _set_pooling(encoder, head.pooling)
    if own.normalized and not head.normalized:
        delattr(encoder, list(encoder._modules)[-1])  # Sequential's own `del` renames what is left
    elif head.normalized and not own.normalized:
        encoder.add_module("normalize", Normalize())
    encoder.similarity_fn_name = head.similarity  # type: ignore[assignment]  # a name, checked by the setter


def _set_pooling(encoder: SentenceTransformer, pooling: Pooled) -> None:
    places = [place for place, module in enumerate(encoder) if isinstance(module, Pooling)]
    names = ", ".join(type(module).__name__ for module in encoder)
    if len(places) != 1 or pooling is None:
        raise BackboneError(f"the pooling cannot be set: among the encoder's modules ({names}) is not one Pooling")
    old: Any = encoder[places[0]]
    new = Pooling(old.embedding_dimension, _known(pooling), include_prompt=old.include_prompt)  # type: ignore[arg-type]
    later = [module for module in list(encoder)[places[0] + 1 :] if not isinstance(module, Normalize)]
    if later and new.pooling_output_dimension != old.pooling_output_dimension:
        raise BackboneError(
            f"the encoder's modules ({names}) take vectors of width {old.pooling_output_dimension} after the pooling; "
            f"{pooling!r} gives {new.pooling_output_dimension}"
        )
    encoder[places[0]] = new
