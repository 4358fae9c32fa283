"""The two collections of an index, through Milvus's own client: what is asked of them, and what goes wrong.

One code for Milvus Lite (a file, served inside this process) and for a server; `local` says which, in the few places
where they differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from foreword.indexing.connection import client_class, local_path, said, shown
from foreword.indexing.errors import IndexingError
from foreword.indexing.filters import of_domain, quoted
from foreword.indexing.owner import Owned, disown, own
from foreword.indexing.schema import DENSE, SHOWN, documents_indexes, documents_schema, facts_schema

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 120.0
"""A server that does not answer a request for so long is an error."""
MOST_HITS = 16_384
"""The most rows of one answer that Milvus gives."""
REQUEST_BYTES = 16 * 2**20
"""Of text in one request; a Milvus server takes 64 MiB in all."""


class Store:
    """The collections `<name>` (documents) and `<name>_facts` (what embedded them) of one database."""

    def __init__(self, client: Any, uri: str, name: str, owned: Owned | None) -> None:
        self._client, self.uri, self.name, self._owned = client, uri, name, owned
        self.facts = f"{name}_facts"
        self._places: dict[str, list[str]] = {}

    @classmethod
    def connect(cls, uri: str, name: str, token: str | None, *, create: bool) -> Store:
        """Open a Milvus Lite file or connect to a server.

        Args:
            uri: a path that ends in `.db`, or a server's URI.
            name: of the documents' collection.
            token: a server's, as `user:password` or an API key.
            create: make the file where there is none.

        Raises:
            IndexingError: there is no such file or server, or pymilvus is not installed.
            IndexBusyError: the file belongs to another process.
        """
        milvus_client = client_class()
        path = local_path(uri)
        if path is None:
            with said(f"cannot connect to {shown(uri)}"):
                client = milvus_client(uri=uri, token=token or "", timeout=CONNECT_SECONDS)
            return cls(client, shown(uri), name, None)
        if token is not None:
            raise IndexingError(f"{uri} is a file, which takes no token; a token is for a server (http://...)")
        if create:
            path.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise IndexingError(f"there is no index {uri}; `foreword index build {uri} COLLECTION` makes one")
        owned = own(path)
        try:
            with said(f"cannot open {uri}"):
                client = milvus_client(uri=str(path))
        except BaseException:
            disown(owned)
            raise
        return cls(client, uri, name, owned)

    @property
    def local(self) -> bool:
        """Milvus Lite."""
        return self._owned is not None

    @property
    def path(self) -> Path | None:
        """The folder that Milvus Lite keeps."""
        return self._owned.path if self._owned is not None else None

    def close(self) -> None:
        """Let go of the connection and the file. Closing twice does nothing."""
        if self._client is None:
            return
        client, self._client = self._client, None
        try:
            with said("closing"):
                client.close()
        finally:
            if self._owned is not None:
                disown(self._owned)

    @contextmanager
    def _asking(self, what: str) -> Iterator[Any]:
        """The client, one request at a time in Milvus Lite, with Milvus's errors as ours."""
        if self._client is None:
            raise IndexingError(f"the index {self.uri} was closed; open it again")
        with self._owned.guard if self._owned is not None else nullcontext(), said(f"{self.uri}: {what}"):
            yield self._client

    # -- collections -----------------------------------------------------------------------------------------------

    def collections(self) -> set[str]:
        """Which of the two there are."""
        with self._asking("the collections cannot be listed") as client:
            return {name for name in (self.name, self.facts) if client.has_collection(name)}

    def create(self, dimension: int, metric: str, index_type: str | None, analyzer: Mapping[str, Any] | None) -> None:
        """Make both collections; facts first, so that documents without facts are known to be somebody else's.

        Reads see what this client wrote (`Session`).
        """
        there = self.collections()
        if self.name in there and self.facts not in there:
            raise IndexingError(
                f"{self.uri} has a collection {self.name!r} that Foreword did not make; take another name "
                "(--milvus-collection)"
            )
        with self._asking(f"the collection {self.name!r} cannot be made") as client:
            if self.facts not in there:
                indexes = (
                    None if self.local else client.prepare_index_params(DENSE, index_type="FLAT", metric_type="L2")
                )
                schema = facts_schema(client)
                client.create_collection(self.facts, schema=schema, index_params=indexes, consistency_level="Strong")
            if self.name in there:  # a cut left it, empty
                client.drop_collection(self.name)
            client.create_collection(
                self.name,
                schema=documents_schema(client, dimension, analyzer),
                index_params=documents_indexes(client, metric, index_type, self.local),
                consistency_level="Session",
            )

    def load(self) -> None:
        """Make what is there ready for searches."""
        with self._asking("the collections cannot be loaded") as client:
            for name in (self.facts, self.name):
                client.load_collection(name)

    def drop(self) -> None:
        """Remove both collections, the facts last."""
        with self._asking("the collections cannot be removed") as client:
            client.drop_collection(self.name)
            client.drop_collection(self.facts)

    def version(self) -> str:
        """Of the server, as it says it."""
        with self._asking("the version cannot be had") as client:
            return str(client.get_server_version())

    # -- facts -----------------------------------------------------------------------------------------------------

    def some_facts(self, *keys: str) -> dict[str, Mapping[str, Any]]:
        """The values of those keys that there are."""
        with self._asking("the facts cannot be read") as client:
            # not by `ids`, which pymilvus 3.0 writes into an expression without escaping them
            chosen = f"key in [{', '.join(map(quoted, keys))}]"
            rows = client.query(self.facts, filter=chosen, output_fields=["key", "value"], timeout=REQUEST_SECONDS)
        return {row["key"]: row["value"] for row in rows}

    def all_facts(self) -> dict[str, Mapping[str, Any]]:
        """Every key and its value."""
        return {row["key"]: row["value"] for row in self._rows(self.facts, 'key != ""', ["key", "value"])}

    def put_fact(self, key: str, value: Mapping[str, Any]) -> None:
        """Write the value of a key."""
        with self._asking("the facts cannot be written") as client:
            client.upsert(self.facts, [{"key": key, "value": dict(value), DENSE: [0.0, 1.0]}], timeout=REQUEST_SECONDS)

    def remove_fact(self, key: str) -> None:
        """Remove a key."""
        with self._asking("the facts cannot be written") as client:
            client.delete(self.facts, filter=f"key in [{quoted(key)}]", timeout=REQUEST_SECONDS)

    # -- documents -------------------------------------------------------------------------------------------------

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write documents, each in place of what had its key, in requests of a size that servers take."""
        for part in _parts(rows):
            with self._asking("documents cannot be written") as client:
                client.upsert(self.name, part, timeout=REQUEST_SECONDS)

    def hashes(self, keys: Sequence[str]) -> dict[str, str]:
        """`pk -> hash` of those keys that there are."""
        with self._asking("documents cannot be read") as client:
            how = {"output_fields": ["pk", "hash"], "timeout": REQUEST_SECONDS}
            rows = client.get(self.name, ids=list(keys), **how) if keys else []
        return {row["pk"]: row["hash"] for row in rows}

    def keys(self, domain: str) -> set[str]:
        """The keys of a domain's documents."""
        return {row["pk"] for row in self._rows(self.name, of_domain(domain), ["pk"])}

    def count(self, domain: str) -> int:
        """How many documents a domain has; Milvus Lite goes through them all."""
        with self._asking("documents cannot be counted") as client:
            answer = client.query(
                self.name,
                filter=of_domain(domain),
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=REQUEST_SECONDS,
            )
        return int(answer[0]["count(*)"])

    def delete(self, keys: Sequence[str]) -> None:
        """Remove documents."""
        for first in range(0, len(keys), MOST_HITS):
            with self._asking("documents cannot be removed") as client:
                client.delete(self.name, ids=list(keys[first : first + MOST_HITS]), timeout=REQUEST_SECONDS)

    def delete_domain(self, domain: str) -> None:
        """Remove a domain's documents."""
        with self._asking("documents cannot be removed") as client:
            client.delete(self.name, filter=of_domain(domain), timeout=REQUEST_SECONDS)

    def settle(self) -> None:
        """Have Milvus Lite write what it holds in memory to its files; a server does so by itself."""
        if self.local:
            with self._asking("the files cannot be written") as client:
                client.flush(self.name)

    def search(self, data: Sequence[Any], field: str, metric: str, domain: str, where: str | None, k: int) -> list[Any]:
        """For each of `data` (vectors, or texts for BM25) the best k rows of a domain, as pymilvus gives them."""
        expression, places = of_domain(domain, where), self._partitions(domain)
        with self._asking(f"the search failed ({expression})") as client:
            found: list[Any] = client.search(
                self.name,
                data=list(data),
                anns_field=field,
                filter=expression,
                limit=k,
                output_fields=SHOWN,
                search_params={"metric_type": metric},
                partition_names=places,
                timeout=REQUEST_SECONDS,
            )
        return found

    def _partitions(self, domain: str) -> list[str] | None:
        """Where Milvus Lite keeps a domain: it hashes the partition key as a server does, but then searches everywhere.

        A server finds the partition by itself (None); here each is asked once for a document of the domain. That
        matters for conditions on `metadata`, for which Milvus Lite 3.2 unpacks every row that it looks at.
        """
        if not self.local:
            return None
        if domain not in self._places:
            with self._asking("the partitions cannot be read") as client:
                names = client.list_partitions(self.name)
                how = {"filter": of_domain(domain), "output_fields": ["pk"], "limit": 1}
                found = [name for name in names if client.query(self.name, partition_names=[name], **how)]
            if not found:
                return None  # all its documents were removed
            self._places[domain] = found
        return self._places[domain]

    def _rows(self, collection: str, expression: str, fields: list[str]) -> list[Mapping[str, Any]]:
        """Every row that an expression holds for; a server gives them page by page."""
        with self._asking("rows cannot be read") as client:
            if self.local:
                return list(client.query(collection, filter=expression, output_fields=fields))
            pages = client.query_iterator(
                collection, batch_size=1000, filter=expression, output_fields=fields, consistency_level="Strong"
            )
            rows: list[Mapping[str, Any]] = []
            while page := pages.next():
                rows += page
            pages.close()
            return rows


def _parts(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The rows in pieces of at most `REQUEST_BYTES` of text."""
    part: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        part.append(row)
        size += 4 * len(row["text"]) + 4096  # no letter has more than 4 bytes
        if size >= REQUEST_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
