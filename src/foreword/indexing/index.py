"""An index: documents of many domains, searched with the prompt that embedded them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from threading import RLock
from typing import TYPE_CHECKING, Any, Self

from foreword.collections.collection import DataWarning, Document
from foreword.errors import IndexingError
from foreword.indexing.search import Reader
from foreword.indexing.store import VARCHAR_BYTES, Store, check_domain, primary_key
from foreword.indexing.write import DomainInfo, Embed, Stamp, Written, check_document_side, stamp_of, write_documents
from foreword.prompts.routes import OWN, Default, Route
from foreword.terminal import track

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer


class Index(Reader):
    """Documents of many domains in a Milvus database; a context manager.

    It knows which backbone embedded its documents and, for each domain, what prompt they passed through, and refuses
    queries and documents of others: their vectors could be compared, and would mean nothing.
    """

    def __init__(self, store: Store, index_type: str | None, analyzer: Mapping[str, Any] | None) -> None:
        """See `open`."""
        super().__init__(store)
        self._index_type, self._analyzer = index_type, analyzer
        self._writing = RLock()

    @classmethod
    def open(
        cls,
        uri: str,
        collection: str = "foreword",
        token: str | None = None,
        create: bool = False,
        *,
        index_type: str | None = None,
        analyzer: Mapping[str, Any] | None = None,
    ) -> Self:
        """Open an index; `close` it, or use it as a context manager.

        Args:
            uri: a Milvus Lite file (`notes.db`), or a Milvus server (`http://host:19530`).
            collection: the name of the Milvus collection.
            token: of a server: `user:password` or an API key.
            create: make it where it is not there.
            index_type: of the vectors, as Milvus names it, for an index that is made; None: exact search in a file,
                AUTOINDEX on a server.
            analyzer: what makes words of texts, as Milvus's `analyzer_params`, for an index that is made; None:
                English.

        Raises:
            IndexingError: there is no such index, server or package.
            IndexBusyError: the file belongs to another process.
        """
        store = Store.connect(uri, collection, token, create=create)
        try:
            index = cls(store, index_type, analyzer)
            if not create:
                _ = index._facts.header  # an empty one is refused at once
        except BaseException:
            store.close()
            raise
        return index

    def close(self) -> None:
        """Let go of the file or the connection."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- writing ---------------------------------------------------------------------------------------------------

    def build(
        self,
        encoder: SentenceTransformer,
        domain: str,
        documents: Iterable[Document],
        route: Route | Default = OWN,
        batch_size: int = 64,
        quiet: bool = False,
        *,
        replace_all: bool = False,
        remove_missing: bool = False,
        **how: Any,
    ) -> Written:
        """Put documents into a domain, which is made where it is not there. Doing it again changes nothing.

        Documents whose title, text and metadata are there already are not embedded again, so that the same call goes
        on from where it was cut.

        Args:
            encoder: from `foreword.load_encoder`.
            domain: whose documents they are.
            documents: gone through once.
            route: the prompt or mixture; OWN: what the encoder is routed to; None: the base model.
            batch_size: texts in one forward pass.
            quiet: no progress bar.
            replace_all: empty the domain first; the only way to another prompt or backbone.
            remove_missing: remove those that are there and are not given.
            how: `precision` and `max_length` of `foreword.encode`.

        Raises:
            OtherEncoderError: the index was built by another backbone, or the domain through another prompt.
            IndexingError: no documents, or one that cannot be stored.
        """
        from foreword.prompts.encoder import encode

        def embed(texts: Sequence[str]) -> np.ndarray[Any, Any]:
            return encode(encoder, texts, "document", route=route, batch_size=batch_size, quiet=True, **how)

        return self.write(
            stamp_of(encoder, route, how.get("max_length")),
            embed,
            domain,
            documents,
            replace_all=replace_all,
            remove_missing=remove_missing,
            quiet=quiet,
        )

    def add(
        self,
        encoder: SentenceTransformer,
        domain: str,
        documents: Iterable[Document],
        route: Route | Default = OWN,
        batch_size: int = 64,
        quiet: bool = False,
        **how: Any,
    ) -> Written:
        """`build` for a domain that is there. Raises `UnknownNameError` for one that is not."""
        self.info(domain)
        return self.build(encoder, domain, documents, route, batch_size, quiet, **how)

    def update(
        self,
        encoder: SentenceTransformer,
        domain: str,
        documents: Iterable[Document],
        route: Route | Default = OWN,
        batch_size: int = 64,
        quiet: bool = False,
        **how: Any,
    ) -> Written:
        """`add`, and remove what is not among the documents: the domain then holds these and no others."""
        return self.add(encoder, domain, documents, route, batch_size, quiet, remove_missing=True, **how)

    def write(
        self,
        stamp: Stamp,
        embed: Embed,
        domain: str,
        documents: Iterable[Document],
        *,
        replace_all: bool = False,
        remove_missing: bool = False,
        quiet: bool = True,
    ) -> Written:
        """`build` with an embedding function of your own: vectors that are there already, another machine's.

        Args:
            stamp: what it puts on documents, see `foreword.indexing.write.stamp_of`.
            embed: vectors (N, d') of N texts.
            domain: see `build`.
            documents: see `build`.
            replace_all: see `build`.
            remove_missing: see `build`.
            quiet: no progress bar.
        """
        check_domain(domain)
        total = len(documents) if isinstance(documents, Sequence) else None
        rest = iter(documents)
        first = next(rest, None)
        if first is None:
            raise IndexingError(f"there are no documents for {domain!r}; nothing was changed")
        shown = track(chain([first], rest), f"documents of {domain}", total, quiet=quiet)
        with self._writing:
            before = self._prepare(stamp, domain, replace_all)
            base = before or DomainInfo(domain, 0, False, stamp)
            self._facts.put(replace(base, complete=False))
            written, given = write_documents(self._store, domain, shown, embed, stamp.dimension, new=before is None)
            if remove_missing:
                missing = sorted(self._store.keys(domain) - given)
                self._store.delete(missing)
                written = replace(written, removed=len(missing))
            self._store.settle()
            if base.complete or before is None:
                count = base.documents + written.added - written.removed
            else:  # a cut left some that were not counted
                count = self._store.count(domain)
            self._facts.put(replace(base, documents=count, complete=True))
        if written.shortened:
            warnings.warn(
                f"{written.shortened} documents of {domain!r} have more than {VARCHAR_BYTES:,} bytes of text: the rest "
                "is not shown, nor found by its words",
                DataWarning,
                stacklevel=2,
            )
        return written

    def _prepare(self, stamp: Stamp, domain: str, replace_all: bool) -> DomainInfo | None:
        """Make the collections where they are missing, and check that documents of this stamp may come in."""
        if replace_all and set(self.domains()) == {domain}:  # the only one: another backbone may come
            self.delete(domain)
        self._facts.begin(stamp, self._index_type, self._analyzer)
        if replace_all:
            self.delete(domain)
        info = self._facts.find(domain)
        if info is None:
            return None
        check_document_side(domain, info.stamp, stamp)
        if info.stamp.max_length != stamp.max_length:
            raise IndexingError(
                f"the documents of {domain!r} were cut to {info.stamp.max_length} tokens, these would be to "
                f"{stamp.max_length}; give the same --max-length, or embed all again (--replace)"
            )
        return info

    def delete(self, domain: str, doc_ids: Iterable[str] | None = None) -> int:
        """Remove documents, or (None) a whole domain; with the last domain the collections go too.

        Returns:
            How many there were; ids that are not there are passed over, and so is a domain that is not.
        """
        with self._writing:
            info = self._facts.find(domain)
            if info is None:
                return 0
            if doc_ids is None and set(self.domains()) == {domain}:
                self._facts.end()
                return info.documents
            self._facts.put(replace(info, complete=False))
            if doc_ids is None:
                self._store.delete_domain(domain)
                self._store.settle()
                self._facts.remove(domain)
                return info.documents
            found = sorted(self._store.hashes([primary_key(domain, doc_id) for doc_id in dict.fromkeys(doc_ids)]))
            self._store.delete(found)
            self._store.settle()
            self._facts.put(replace(info, documents=max(0, info.documents - len(found))))
            return len(found)
