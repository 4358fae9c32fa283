"""Searching a Milvus index with the prompts that the service carries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreword.indexing import Hit, Index, OtherEncoderError
from foreword.indexing.filters import quoted
from foreword.indexing.stamp import Stamp, described
from foreword.serving.errors import RequestError
from foreword.serving.searchers import Embed, Searchable, Where
from foreword.serving.ways import Way

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

Systems = Mapping[str, tuple[Way, Way]]


@dataclass(frozen=True)
class IndexSearcher:
    """Search of an index; of one state of the prompts.

    Attributes:
        index: what is searched.
        found: the domains there were when the prompts were last read.
        stamps: what had embedded their documents then.
        ways: domain -> dense system -> what encodes queries and documents.
        embed: embeds queries.
    """

    index: Index
    found: Mapping[str, Searchable]
    stamps: Mapping[str, Stamp]
    ways: Mapping[str, Systems]
    embed: Embed

    @classmethod
    def of(
        cls, index: Index, encoder: SentenceTransformer, systems: Callable[[str], Systems], embed: Embed
    ) -> IndexSearcher:
        """The searcher of a state of the prompts, while these are carried.

        A system whose documents' side is not what embedded a domain's documents does not search it; a domain that
        none searches is said in the log.

        Args:
            index: what is searched.
            encoder: that carries the prompts.
            systems: gives the dense systems of a domain.
            embed: embeds queries.

        Raises:
            OtherEncoderError: the index is of another backbone.
        """
        found, stamps, ways = {}, {}, {}
        for domain, info in index.domains().items():
            index.check_backbone(encoder)
            ways[domain] = {
                name: pair for name, pair in systems(domain).items() if _fits(index, encoder, domain, pair[1])
            }
            if not ways[domain]:
                logger.warning(
                    "%s is searched by words alone: %s embedded its documents, and is not what searches it here "
                    "(--bank, --prompt, --use)",
                    domain,
                    described(info.stamp),
                )
            found[domain] = Searchable(info.documents, (*ways[domain], "bm25"))
            stamps[domain] = info.stamp
        return cls(index, found, stamps, ways, embed)

    def domains(self) -> Mapping[str, Searchable]:
        """The index's domains."""
        return self.found

    def search(self, queries: Sequence[str], domain: str, system: str, k: int, where: Where | None) -> list[list[Hit]]:
        """The k best documents of each query.

        Raises:
            RequestError: 409, another process has embedded the documents by something else since.
        """
        condition = None if where is None else expression(where)
        if system == "bm25":
            return self.index.search_words(queries, domain, k, condition)
        if self.index.info(domain).stamp != self.stamps[domain]:  # on a server; a file is this process's
            message = f"the documents of {domain!r} were embedded anew; have the prompts read again (/admin/reload)"
            raise RequestError(message, 409, "index_changed", "domain")
        vectors = self.embed(queries, self.ways[domain][system][0])
        return self.index.search_vectors(vectors, domain, k, condition)


def _fits(index: Index, encoder: SentenceTransformer, domain: str, documents: Way) -> bool:
    route = documents.name if documents.name is not None else documents.route or None
    try:
        index.check(encoder, domain, route)
    except OtherEncoderError:
        return False
    return True


def expression(where: Where) -> str:
    """A filter by metadata in Milvus's language, each value quoted, so that no text in it is read as a condition."""

    def literal(value: Any) -> str:
        if isinstance(value, str):
            return quoted(value)
        return str(value).lower() if isinstance(value, bool) else repr(value)

    conditions = []
    for name, value in where.items():
        field = f"metadata[{quoted(name)}]"
        values = value if isinstance(value, list) else [value]
        either = " or ".join(f"{field} == {literal(one)}" for one in values)  # Milvus Lite knows no `in` here
        conditions.append(f"({either})")
    return " and ".join(conditions)
