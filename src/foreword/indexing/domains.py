"""What an index says about itself and its domains: rows in a small collection beside the documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from foreword.common.errors import UnknownNameError
from foreword.indexing.errors import IndexingError
from foreword.indexing.schema import FORMAT
from foreword.indexing.stamp import BASE, Stamp, check_backbone
from foreword.indexing.store import Store

_HEADER, _DOMAIN = "index", "domain:"


@dataclass(frozen=True)
class DomainInfo:
    """One domain of an index.

    Attributes:
        domain: its name.
        documents: how many there are; while `complete` is False, how many there were.
        complete: False while documents are written, and after a cut until the same is done again.
        stamp: what embedded its documents.
    """

    domain: str
    documents: int
    complete: bool
    stamp: Stamp

    @property
    def route(self) -> Any:
        """What encoded, as JSON: a prompt's name, weights by name, `{"sides": ...}`, or None for the base model."""
        return self.stamp.route

    @property
    def prompt(self) -> str:
        """What embedded the documents, in a word: `base`, a prompt's name, or `mixture`."""
        if self.stamp.document_side == BASE:
            return BASE
        route = self.stamp.route
        route = route["sides"]["document"] if isinstance(route, Mapping) and "sides" in route else route
        return route if isinstance(route, str) else "mixture"

    @property
    def document_side(self) -> str:
        """`base`, or the fingerprint of the document side of the prompt."""
        return self.stamp.document_side

    @property
    def backbone_fingerprint(self) -> str:
        """SHA-256 of the backbone's weights."""
        return str(self.stamp.backbone["fingerprint"])

    @property
    def dimension(self) -> int:
        """Of its vectors."""
        return self.stamp.dimension

    def as_dict(self) -> dict[str, Any]:
        """JSON values: the fields and what follows from them, without the backbone's description."""
        return {
            "documents": self.documents,
            "complete": self.complete,
            "prompt": self.prompt,
            "document_side": self.document_side,
            "route": self.route,
            "backbone": self.backbone_fingerprint,
            "dimension": self.dimension,
            "max_length": self.stamp.max_length,
        }


class Facts:
    """The rows of the small collection: `index`, what holds for all domains, and one for each domain."""

    def __init__(self, store: Store) -> None:
        """Read what is there.

        Raises:
            IndexingError: it was written by another version.
        """
        self._store = store
        self.name = f"the index {store.name!r} in {store.uri}"
        there = store.collections()
        self._header: Mapping[str, Any] | None = None
        if there == {store.name, store.facts}:  # a build that was cut at once may have left one of them
            store.load()
            self._header = store.some_facts(_HEADER).get(_HEADER)
        if self._header is not None and self._header.get("format") != FORMAT:
            raise IndexingError(
                f"{self.name} has the format {self._header.get('format')!r}; this Foreword reads {FORMAT!r}"
            )

    @property
    def empty(self) -> bool:
        """Nothing was built yet."""
        return self._header is None

    @property
    def header(self) -> Mapping[str, Any]:
        """What holds for all domains: `backbone`, `dimension`, `metric`, `index_type`.

        Raises:
            IndexingError: nothing was built yet.
        """
        if self._header is None:
            raise IndexingError(f"{self.name} is empty; build it: foreword index build {self._store.uri} COLLECTION")
        return self._header

    def begin(self, stamp: Stamp, index_type: str | None, analyzer: Mapping[str, Any] | None) -> None:
        """Make the collections for documents of this stamp where nothing was built yet.

        Raises:
            OtherEncoderError: what was built is of another backbone.
        """
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
        """Raise `OtherEncoderError` where the stamp's backbone is not the index's."""
        check_backbone(self.header["backbone"], stamp.backbone, self.name)

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
    return DomainInfo(str(value["domain"]), int(value["documents"]), bool(value["complete"]), stamp)
