"""What is written to an index: documents, and beside them what embedded them.

Of documents, what is new or changed is embedded and written, block by block; the rest is passed over. What embedded
them is a `Stamp`: the backbone, and the side of a prompt that documents pass through, as fingerprints. Two prompts that
embed documents alike have one fingerprint, whatever they do with queries: a prompt trained for queries alone embeds
documents as the base model does. The facts of the index and of each domain are rows of a small collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from foreword.collections.collection import Document
from foreword.errors import IndexingError, OtherEncoderError, UnknownNameError
from foreword.indexing.store import DENSE, PLACE, VARCHAR_BYTES, Store, primary_key, row_of, rows_of
from foreword.prompts.spec import OWN, Default
from foreword.retrieval.passages import Passage

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.evaluation.hybrid import HybridWeight
    from foreword.prompts.routes import Route

FORMAT = "foreword-index/2"
FORMATS = ("foreword-index/1", FORMAT)
"""That can be read and written; the first holds a row for each document, and no passages."""

BLOCK = 1024
"""Documents, or passages, that are embedded, then written: what a cut loses."""

Embed = Callable[[Sequence[str]], "np.ndarray[Any, Any]"]
"""Vectors (N, d') of N texts."""

Cut = Callable[[Sequence[Document]], Sequence[Sequence[Passage]]]
"""Each document's passages, one at least."""


def uncut(documents: Sequence[Document]) -> list[list[Passage]]:
    """Each document as one passage."""
    return [[Passage(one.doc_id, 1, 1, 0, len(one.text), one.content)] for one in documents]


@dataclass(frozen=True)
class Written:
    """What became of the documents.

    Attributes:
        added: that were not there.
        changed: that were there with another title, text or metadata.
        unchanged: that were there as they are, and were not embedded again.
        removed: that were there and were not given, where those were to go.
        shortened: of those added and changed, how many have more text than Milvus holds; the beginning is stored.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    shortened: int = 0

    def as_dict(self) -> dict[str, int]:
        """JSON values."""
        return asdict(self)


def write_documents(
    store: Store,
    domain: str,
    documents: Iterable[Document],
    embed: Embed,
    dimension: int,
    *,
    new: bool,
    cut: Cut = uncut,
) -> tuple[Written, set[str]]:
    """Write documents whose content is not there yet; gives what became of them, and the keys of all that were given.

    The passages of a document are replaced together, the first one last: its row says that the others are there, and
    how many, so that what was cut on the way is done again. In a domain that is new nothing is looked up. Raises
    `IndexingError` where two documents have one id, or the vectors are not finite ones of the shape (N, dimension).
    """
    added = changed = unchanged = shortened = 0
    seen: set[str] = set()
    rest = iter(documents)
    while block := list(islice(rest, BLOCK)):
        rows = [row_of(domain, document) for document in block]
        for row in rows:
            if row["pk"] in seen:
                raise IndexingError(f"two documents of {domain!r} have the doc_id {row['doc_id']!r}; ids must differ")
            seen.add(row["pk"])
        known = {} if new else store.written([row["pk"] for row in rows])
        chosen = [number for number, row in enumerate(rows) if known.get(row["pk"], ("", 0))[0] != row["hash"]]
        pieces = cut([block[number] for number in chosen])
        for part in _parts(list(zip(chosen, pieces, strict=True))):
            texts = [piece.content for _, own in part for piece in own]
            vectors = np.ascontiguousarray(embed(texts), dtype=np.float32)
            if vectors.shape != (len(texts), dimension):
                expected = (len(texts), dimension)
                raise IndexingError(f"{len(texts)} texts have vectors of shape {vectors.shape}; expected {expected}")
            if not np.isfinite(vectors).all():
                raise IndexingError("a vector holds NaN or infinity; embed the documents in float32")
            made: list[dict[str, Any]] = []
            gone: list[str] = []
            for number, own in part:
                passages = rows_of(rows[number], block[number], own)
                shortened += any(len(piece.content.encode("utf-8", "replace")) > VARCHAR_BYTES for piece in own)
                made += [row | {DENSE: vector} for row, vector in zip(passages, vectors[len(made) :], strict=False)]
                before = known.get(rows[number]["pk"], ("", 0))[1]
                gone += [primary_key(domain, own[0].doc_id, n) for n in range(len(own) + 1, before + 1)]
            store.delete(gone)
            made.sort(key=lambda row: row["passage"] == 1)
            if not store.in_passages:
                made = [{name: value for name, value in row.items() if name not in PLACE} for row in made]
            store.upsert(made)
        there = sum(rows[number]["pk"] in known for number in chosen)
        added, changed, unchanged = added + len(chosen) - there, changed + there, unchanged + len(rows) - len(chosen)
    return Written(added=added, changed=changed, unchanged=unchanged, shortened=shortened), seen


def _parts(documents: Sequence[tuple[int, Sequence[Passage]]]) -> Iterator[list[tuple[int, Sequence[Passage]]]]:
    """Documents, each with its passages, in parts of `BLOCK` passages or one document."""
    part: list[tuple[int, Sequence[Passage]]] = []
    size = 0
    for number, own in documents:
        if part and size + len(own) > BLOCK:
            yield part
            part, size = [], 0
        part.append((number, own))
        size += len(own)
    if part:
        yield part


BASE = "base"
"""The fingerprint of documents without a prompt."""


@dataclass(frozen=True)
class Stamp:
    """What an encoder puts on the documents that it embeds.

    Attributes:
        backbone: see `describe_backbone`.
        document_side: `base`, or the 64 hexadecimal digits of `foreword.evaluation.candidates.side_fingerprint`.
        route: what encodes both sides, as JSON; the names in it are for people.
        dimension: d', of the vectors.
        max_length: tokens that a document, or a passage, is cut to; None: no limit.
        passages: longer documents are in passages.
    """

    backbone: Mapping[str, Any]
    document_side: str
    route: Any
    dimension: int
    max_length: int | None
    passages: bool = False

    @property
    def document_route(self) -> Any:
        """What encodes documents, as JSON."""
        two_sided = isinstance(self.route, Mapping) and "sides" in self.route
        return self.route["sides"]["document"] if two_sided else self.route


def stamp_of(
    encoder: SentenceTransformer, route: Route | Default = OWN, max_length: int | None = None, passages: bool = False
) -> Stamp:
    """What `encode(encoder, texts, "document", route=route, max_length=max_length)` puts on documents or passages."""
    from foreword.evaluation.candidates import side_fingerprint
    from foreword.prompts.encoder import transformer_of
    from foreword.prompts.routes import route_as_json
    from foreword.prompts.store import describe_backbone

    transformer = transformer_of(encoder)
    chosen: Route = transformer.route if isinstance(route, Default) else route
    limit = transformer.max_seq_length
    given = [length for length in (limit, max_length) if length is not None]
    return Stamp(
        describe_backbone(encoder),
        side_fingerprint(encoder, "document", chosen) or BASE,
        route_as_json(chosen),
        encoder.get_embedding_dimension() or 0,
        min(given, default=None),
        passages,
    )


def check_document_side(domain: str, stored: Stamp, here: Stamp) -> None:
    """Raise `OtherEncoderError` unless documents pass through the same prompt in both."""
    if stored.document_side == here.document_side:
        return
    raise OtherEncoderError(
        f"the documents of {domain!r} were embedded by {described(stored)}, and {described(here)} embeds documents "
        "otherwise; take the prompt that embedded them (--prompt), or one trained for queries alone where that is the "
        "base model, or embed them again (foreword index build --replace)"
    )


def described(stamp: Stamp) -> str:
    """What embeds documents, for people."""
    if stamp.document_side == BASE:
        return "the base model"
    route = stamp.document_route
    name = f"prompt {route!r}" if isinstance(route, str) else f"a mixture of {', '.join(map(repr, route))}"
    return f"{name} (document side {stamp.document_side[:12]})"


_HEADER, _DOMAIN = "index", "domain:"


@dataclass(frozen=True)
class DomainInfo:
    """One domain of an index.

    Attributes:
        documents: how many there are; while `complete` is False, how many there were.
        complete: False while documents are written, and after a cut until the same is done again.
        stamp: what embedded its documents.
        removing: True while documents are removed from a domain that is complete but for that.
        folder: the absolute path of the one that all its documents' files lie in; empty: there is none, or several.
        hybrid: how much words count in a hybrid search, as `HybridWeight` has it; None: nothing was chosen yet.
        weighed: what that was chosen by, see `foreword.evaluation.hybrid.weighed_by`.
    """

    domain: str
    documents: int
    complete: bool
    stamp: Stamp
    removing: bool = False
    folder: str = ""
    hybrid: Mapping[str, Any] | None = None
    weighed: str = ""

    @property
    def weight(self) -> HybridWeight:
        """How much words count in a hybrid search: what was chosen, or the default."""
        from foreword.evaluation.hybrid import HybridWeight

        return HybridWeight(**(self.hybrid or {}))

    @property
    def prompt(self) -> str:
        """What embedded the documents, in a word: `base`, a prompt's name, or `mixture`."""
        if self.stamp.document_side == BASE:
            return BASE
        route = self.stamp.document_route
        return route if isinstance(route, str) else "mixture"

    @property
    def embedded_by(self) -> str:
        """What embedded the documents, for people."""
        return described(self.stamp)

    @property
    def document_side(self) -> str:
        """`base`, or the fingerprint of the document side of the prompt."""
        return self.stamp.document_side

    def as_dict(self) -> dict[str, Any]:
        """JSON values: the fields and what follows from them, without the backbone's description."""
        return {
            "documents": self.documents,
            "folder": self.folder,
            "complete": self.complete,
            "prompt": self.prompt,
            "document_side": self.document_side,
            "route": self.stamp.route,
            "backbone": str(self.stamp.backbone["fingerprint"]),
            "dimension": self.stamp.dimension,
            "max_length": self.stamp.max_length,
            "hybrid": self.weight.as_dict(),
            "passages": self.stamp.passages,
        }


class Facts:
    """The rows of the small collection: `index`, what holds for all domains, and one for each domain."""

    def __init__(self, store: Store) -> None:
        """Read what is there. Raises `IndexingError` where it was written by another version."""
        self._store = store
        self.name = f"the index {store.name!r} in {store.uri}"
        there = store.collections()
        self._header: Mapping[str, Any] | None = None
        if there == {store.name, store.facts}:  # a build that was cut at once may have left one of them
            store.load()
            self._header = store.some_facts(_HEADER).get(_HEADER)
        if self._header is not None and self._header.get("format") not in FORMATS:
            raise IndexingError(
                f"{self.name} has the format {self._header.get('format')!r}; this Foreword reads {', '.join(FORMATS)}"
            )

    @property
    def empty(self) -> bool:
        """Nothing was built yet."""
        return self._header is None

    @property
    def header(self) -> Mapping[str, Any]:
        """`backbone`, `dimension`, `metric`, `index_type` of all domains; `IndexingError` before anything was built."""
        if self._header is None:
            raise IndexingError(f"{self.name} is empty; build it: foreword index build {self._store.uri} COLLECTION")
        return self._header

    def begin(self, stamp: Stamp, index_type: str | None, analyzer: Mapping[str, Any] | None) -> None:
        """Make the collections for this stamp where nothing was built yet, and `check_backbone`."""
        if self._header is not None:  # another process may have made it anew
            self._header = self._store.some_facts(_HEADER).get(_HEADER)
        if self._header is None:
            metric = "COSINE" if stamp.backbone.get("similarity") == "cosine" else "IP"
            self._store.create(stamp.dimension, metric, index_type, analyzer)
            self._store.load()
            values = {"format": FORMAT, "backbone": dict(stamp.backbone), "dimension": stamp.dimension}
            self._header = values | {"metric": metric, "index_type": index_type}
            self._store.put_fact(_HEADER, self._header)
        self.check_backbone(stamp)

    def check_backbone(self, stamp: Stamp) -> None:
        """Raise `OtherEncoderError` where the stamp's backbone is not the index's: of other vectors."""

        def short(value: Any) -> str:
            return f"'{value[:12]}...'" if isinstance(value, str) and len(value) == 64 else repr(value)

        stored, here = self.header["backbone"], stamp.backbone
        for key in sorted({*stored, *here} - {"name", "revision", "width"}):  # what it is called, not what it computes
            if stored.get(key) != here.get(key):
                raise OtherEncoderError(
                    f"{self.name} was built by backbone {stored.get('name')!r} with {key} {short(stored.get(key))}; "
                    f"this encoder is {here.get('name')!r} with {short(here.get(key))}. Load the backbone it was built "
                    "by (--backbone), or build another index"
                )
        if (width := self.header["dimension"]) != stamp.dimension:  # of one backbone, whose embeddings were cut
            raise OtherEncoderError(
                f"{self.name} holds vectors of {width} numbers; this encoder, {here.get('name')!r}, gives "
                f"{stamp.dimension}. Load the one it was built by (--backbone), or build another index"
            )

    def end(self) -> None:
        """Remove the collections, with all that they hold."""
        self._store.drop()
        self._header = None

    def find(self, domain: str) -> DomainInfo | None:
        """A domain, read anew with the header each time: on a server another process may have built it again."""
        if self._header is None:
            return None
        found = self._store.some_facts(_HEADER, f"{_DOMAIN}{domain}")
        self._header, value = found.get(_HEADER), found.get(f"{_DOMAIN}{domain}")
        return None if self._header is None or value is None else _info(self._header, value)

    def info(self, domain: str) -> DomainInfo:
        """A domain. Raises `UnknownNameError` for one that is not there."""
        found = self.find(domain)
        if found is None:
            known = ", ".join(map(repr, self.all())) or "none"
            raise UnknownNameError(f"{self.name} has no domain {domain!r}; there are: {known}")
        return found

    def all(self) -> dict[str, DomainInfo]:
        """The domains by name, in the order of their names."""
        if self._header is None:
            return {}
        rows = self._store.all_facts()
        self._header = header = rows.get(_HEADER)
        if header is None:  # another process has removed the last domain
            return {}
        found = [_info(header, value) for key, value in rows.items() if key.startswith(_DOMAIN)]
        return {info.domain: info for info in sorted(found, key=lambda info: info.domain)}

    def put(self, info: DomainInfo) -> None:
        """Write a domain's row; the backbone is in the row `index`."""
        values = asdict(info)
        del values["stamp"]["backbone"]
        self._store.put_fact(f"{_DOMAIN}{info.domain}", values)

    def remove(self, domain: str) -> None:
        """Remove a domain's row."""
        self._store.remove_fact(f"{_DOMAIN}{domain}")


def _info(header: Mapping[str, Any], value: Mapping[str, Any]) -> DomainInfo:
    stamp = Stamp(backbone=header["backbone"], **value["stamp"])
    rest = {name: value[name] for name in ("removing", "folder", "hybrid", "weighed") if name in value}
    return DomainInfo(str(value["domain"]), int(value["documents"]), bool(value["complete"]), stamp, **rest)
