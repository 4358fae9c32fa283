"""An index: documents of many domains, searched with the prompt that embedded them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from foreword.collections.collection import Collection, DataWarning, Document, Query, shown_name
from foreword.errors import IndexingError, UnknownNameError
from foreword.indexing.store import (
    DENSE,
    MOST_HITS,
    PLACE,
    SPARSE,
    VARCHAR_BYTES,
    Store,
    check_domain,
    primary_key,
    row_of,
)
from foreword.indexing.write import (
    BLOCK,
    Cut,
    DomainInfo,
    Embed,
    Facts,
    Stamp,
    Written,
    check_document_side,
    stamp_of,
    uncut,
    write_documents,
)
from foreword.prompts.spec import OWN, Default
from foreword.retrieval.runs import DEPTH, Run, drop_self, hybrid, ranked
from foreword.settings import Side
from foreword.terminal import track

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from foreword.evaluation.hybrid import HybridWeight
    from foreword.prompts.routes import Route
    from foreword.retrieval.passages import Coverage

Mode = Literal["dense", "bm25", "hybrid"]
"""By vectors, by words, or by both."""


@dataclass(frozen=True)
class IndexHit:
    """One document that was found.

    Attributes:
        doc_id: as it was given.
        score: higher is better: the inner product or the cosine, BM25's score, or the fused one.
        text: of the document, or of the passage that was found, without the title; the beginning, where it is longer
            than Milvus holds.
        rank: from 1.
        passage: `number` (from 1), `of`, `start` and `end`, in characters of the document's text; None: all of it.
    """

    doc_id: str
    domain: str
    score: float
    title: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 1
    passage: Mapping[str, int] | None = None

    @property
    def name(self) -> str:
        """What it is called on screen, see `shown_name`."""
        return shown_name(self.doc_id, self.title, self.metadata)


class Index:
    """Documents of many domains in a Milvus database; a context manager.

    It knows which backbone embedded its documents and, for each domain, what prompt they passed through, and refuses
    queries and documents of others: their vectors could be compared, and would mean nothing.
    """

    def __init__(self, store: Store, index_type: str | None, analyzer: Mapping[str, Any] | None) -> None:
        """See `open`."""
        self._store, self._facts = store, Facts(store)
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
            token: of a server: `user:password` or an API key.
            create: make it where it is not there.
            index_type: of the vectors, as Milvus names it, where it is made; None: exact in a file, else AUTOINDEX.
            analyzer: what makes words of texts, as Milvus's `analyzer_params`, where it is made; None: English.

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

    @property
    def address(self) -> str:
        """What another process opens it by: a server's URI; of a file, where this process serves it on this machine."""
        return self._store.address

    def close(self) -> None:
        """Let go of the file or the connection."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        folder: str = "",
        passages: bool | None = None,
        coverage: Coverage | None = None,
        parts: Callable[[], Written] | None = None,
        part: bool = False,
        **how: Any,
    ) -> Written:
        """Put documents into a domain, which is made where it is not there. Doing it again changes nothing.

        Documents whose title, text and metadata are there already are not embedded again, so that the same call goes
        on from where it was cut.

        Args:
            encoder: from `foreword.load_encoder`.
            documents: gone through once.
            route: the prompt or mixture; OWN: what the encoder is routed to; None: the base model.
            replace_all: empty the domain first; the only way to another prompt or backbone.
            remove_missing: remove those that are there and are not given.
            folder: that their files lie in, its absolute path; empty: in none.
            passages: documents longer than the model takes are in passages, and found by their best one; False: by
                their beginnings; None: as the domain's are, and in a new one unless `max_length` is given.
            coverage: counts what of the documents that are embedded is in the index.
            parts: writes the documents, which are then only looked at here, and gives what became of them: by other
                processes that open the index by its `address` and `build` some of them each, with
            part: this is one of those; the domain is begun, and counted when it is complete, elsewhere.
            how: `precision` and `max_length` of `foreword.encode`.

        Raises:
            OtherEncoderError: the index was built by another backbone, or the domain through another prompt.
            IndexingError: no documents, or one that cannot be stored; the domain's are cut otherwise.
        """
        from foreword.prompts.encoder import encode
        from foreword.retrieval.passages import Cutter, wanted

        def embed(texts: Sequence[str]) -> np.ndarray[Any, Any]:
            return encode(encoder, texts, "document", route=route, batch_size=batch_size, quiet=True, **how)

        length = how.get("max_length")
        if passages is None and not replace_all and (info := self._facts.find(domain)) is not None:
            passages = info.stamp.passages
        elif passages is None:
            passages = wanted(None, length) and self._takes_passages(domain, replace_all)
        cut = Cutter(encoder, length, passages=passages, coverage=coverage)
        stamp = stamp_of(encoder, route, length, passages)
        if part:
            self._prepare(stamp, domain, False)
            return write_documents(self._store, domain, documents, embed, stamp.dimension, new=False, cut=cut)[0]
        flags: dict[str, Any] = {"replace_all": replace_all, "remove_missing": remove_missing, "quiet": quiet}
        flags["parts"] = parts
        return self.write(stamp, embed, domain, documents, cut=cut, folder=folder, **flags)

    def add(
        self, encoder: SentenceTransformer, domain: str, documents: Iterable[Document], *args: Any, **how: Any
    ) -> Written:
        """`build`, with what it takes, for a domain that is there. Raises `UnknownNameError` for one that is not."""
        self.info(domain)
        return self.build(encoder, domain, documents, *args, **how)

    def update(
        self, encoder: SentenceTransformer, domain: str, documents: Iterable[Document], *args: Any, **how: Any
    ) -> Written:
        """`add`, and remove what is not among the documents: the domain then holds these and no others."""
        return self.add(encoder, domain, documents, *args, **how, remove_missing=True)

    def unchanged(self, domain: str, documents: Iterable[Document], *, all_of_them: bool) -> Written | None:
        """What `build` would say where it has nothing to do, which needs no encoder; None: it has.

        `all_of_them`: as `update`, there is something to do where the domain holds others besides.
        """
        info, seen, rest = self._facts.find(domain), 0, iter(documents)
        if info is None or not info.complete:
            return None
        while block := list(islice(rest, BLOCK)):
            rows = [row_of(domain, document) for document in block]
            known = self._store.written([row["pk"] for row in rows])
            if {key: one[0] for key, one in known.items()} != {row["pk"]: row["hash"] for row in rows}:
                return None
            seen += len(rows)
        return None if not seen or (all_of_them and seen != info.documents) else Written(unchanged=seen)

    def write(
        self,
        stamp: Stamp,
        embed: Embed,
        domain: str,
        documents: Iterable[Document],
        *,
        cut: Cut = uncut,
        replace_all: bool = False,
        remove_missing: bool = False,
        folder: str = "",
        quiet: bool = True,
        parts: Callable[[], Written] | None = None,
    ) -> Written:
        """`build` with an embedding function of your own: vectors that are there already, another machine's.

        Args:
            stamp: what it puts on documents, see `foreword.indexing.write.stamp_of`.
            embed: vectors (N, d') of N texts.
            cut: makes passages of documents, where the stamp has them, e.g. `foreword.retrieval.passages.Cutter`.
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
            base = before or DomainInfo(domain, 0, False, stamp, folder=folder)
            if base.folder != folder:  # others' files may lie elsewhere
                base = replace(base, folder=folder if remove_missing else "")
            self._facts.put(replace(base, complete=False, removing=False))
            how: dict[str, Any] = {"new": before is None, "cut": cut}
            if parts is None:
                written, given = write_documents(self._store, domain, shown, embed, stamp.dimension, **how)
            else:
                written, given = parts(), set()
            if remove_missing:
                missing = [known for key, known in self._store.keys(domain).items() if key not in given]
                self._store.delete_documents(domain, missing)
                written = replace(written, removed=len(missing))
            self._store.settle()
            if parts is None and (base.complete or before is None):
                count = base.documents + written.added - written.removed
            else:  # a cut, or a process that was lost, left some that were not counted
                count = self._store.count(domain)
            self._facts.put(replace(base, documents=count, complete=True, removing=False))
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
        if stamp.passages and not self._store.in_passages:
            raise IndexingError(
                f"{self._facts.name} holds one vector a document: it was made before there were passages; make another "
                "for documents in passages (or --replace its only domain), or say --no-passages"
            )
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
        if info.stamp.passages != stamp.passages:
            raise IndexingError(
                f"the documents of {domain!r} are {'' if info.stamp.passages else 'not '}in passages, and these would "
                f"{'not ' if info.stamp.passages else ''}be; embed all again (--replace), or leave that option out"
            )
        return info

    def _takes_passages(self, domain: str, replace_all: bool) -> bool:
        """Whether documents can be in passages: not in an index that was made before there were any."""
        made_anew = self._facts.empty or (replace_all and set(self.domains()) == {domain})
        return made_anew or self._store.in_passages

    def delete(self, domain: str, doc_ids: Iterable[str] | None = None) -> int:
        """Remove documents, or (None) a whole domain; with the last domain the collections go too.

        Ids that are not there are passed over, and so is a domain that is not; gives how many documents went.
        """
        with self._writing:
            info = self._facts.find(domain)
            if info is None:
                return 0
            if doc_ids is None and set(self.domains()) == {domain}:
                self._facts.end()
                return info.documents
            whole = info.complete or info.removing  # but for what a cut removal left
            self._facts.put(replace(info, complete=False, removing=whole))
            if doc_ids is None:
                self._store.delete_domain(domain)
                self._store.settle()
                self._facts.remove(domain)
                return info.documents
            keys = {primary_key(domain, doc_id): doc_id for doc_id in doc_ids}
            found = {keys[key]: known[1] for key, known in self._store.written(list(keys)).items()}
            self._store.delete_documents(domain, found.items())
            self._store.settle()
            count = info.documents - len(found) if info.complete else self._store.count(domain)
            self._facts.put(replace(info, documents=count, complete=whole, removing=False))
            return len(found)

    def search(
        self,
        encoder: SentenceTransformer | None,
        queries: Sequence[str],
        domain: str,
        route: Route | Default = OWN,
        k: int = 10,
        mode: Mode = "dense",
        where: str | None = None,
        *,
        bm25_weight: float | None = None,
        **how: Any,
    ) -> list[list[IndexHit]]:
        """The best k documents of a domain for each query, best first.

        Args:
            encoder: with the prompt that embedded the domain's documents, or one that leaves documents to the base
                model where that did; None, for `bm25` alone.
            route: see `build`.
            mode: by vectors, by words, or both.
            where: a condition in Milvus's language, e.g. `metadata["year"] == "2021"`,
                `TEXT_MATCH(text, "gradient")`.
            bm25_weight: how much words count in `hybrid`, 0 to 1; None: what `weigh` chose, or the default.
            how: `precision`, `max_length` and `batch_size` of `foreword.encode`.

        Raises:
            OtherEncoderError: the encoder or the prompt is not what embedded the documents.
            UnknownNameError: no such domain or mode.
        """
        from foreword.prompts.encoder import encode

        if mode not in ("dense", "bm25", "hybrid"):
            raise UnknownNameError(f"no mode {mode!r}; there are: dense, bm25, hybrid")
        if mode == "bm25":
            return self.search_words(queries, domain, k, where)
        if encoder is None:
            raise IndexingError(f"a search by {mode} needs an encoder; only bm25 does without")
        weight = self.check(encoder, domain, route).weight.bm25 if bm25_weight is None else bm25_weight
        depth = max(k, DEPTH) if mode == "hybrid" else k
        vectors = encode(encoder, queries, "query", route=route, quiet=True, **how)
        dense = self.search_vectors(vectors, domain, depth, where)
        return dense if mode == "dense" else fused(dense, self.search_words(queries, domain, depth, where), weight, k)

    def weigh(
        self,
        encoder: SentenceTransformer,
        domain: str,
        collection: Collection,
        route: Route | Default = OWN,
        **how: Any,
    ) -> HybridWeight:
        """Choose how much words count in hybrid searches of a domain, and keep it; see `foreword.evaluation.hybrid`.

        Args:
            collection: the domain's documents, and its train or dev labels where it has some.
            route: see `build`.
            how: `precision`, `max_length` and `batch_size` of `foreword.encode`.
        """
        from foreword.evaluation.candidates import side_fingerprint
        from foreword.evaluation.hybrid import weigh, weighed_by
        from foreword.prompts.encoder import encode

        self.check(encoder, domain, route)

        def embed(texts: Sequence[str], side: Side) -> np.ndarray[Any, Any]:
            return encode(encoder, texts, side, route=route, quiet=True, **how)

        def both(queries: Sequence[Query]) -> tuple[Run, Run]:
            texts = [query.text for query in queries]
            sides = self.search_vectors(embed(texts, "query"), domain, DEPTH), self.search_words(texts, domain, DEPTH)
            runs = [run_of(side, [query.query_id for query in queries]) for side in sides]
            dense, words = map(drop_self, runs) if collection.exclude_self else runs
            return dense, words

        weight = weigh(collection, embed, both, shares=False)
        with self._writing:
            by = weighed_by(collection, side_fingerprint(encoder, "query", route))
            self._facts.put(replace(self.info(domain), hybrid=weight.as_dict(), weighed=by))
        return weight

    def search_vectors(self, vectors: Any, domain: str, k: int = 10, where: str | None = None) -> list[list[IndexHit]]:
        """The k documents nearest to each of `vectors` (B, d'); that these are of the right prompt, you `check`."""
        stamp = self.info(domain).stamp
        width = stamp.dimension
        found = np.asarray(vectors, dtype=np.float32)
        if found.ndim != 2 or found.shape[1] != width:
            raise IndexingError(f"the queries' vectors have the shape {found.shape}; expected (B, {width})")
        return self._search(list(found), stamp, domain, k, where, DENSE, str(self._facts.header["metric"]))

    def search_words(
        self, queries: Sequence[str], domain: str, k: int = 10, where: str | None = None
    ) -> list[list[IndexHit]]:
        """The k documents of a domain with the best BM25 scores for each query; those without its words are not hits.

        Milvus computes them, with k1 and b of its own; Milvus Lite weighs words by each of its segments apart.
        """
        return self._search(list(queries), self.info(domain).stamp, domain, k, where, SPARSE, "BM25")

    def _search(
        self, data: list[Any], stamp: Stamp, domain: str, k: int, where: str | None, field: str, metric: str
    ) -> list[list[IndexHit]]:
        """The k best documents for each of `data`; of a document's passages, the best one counts."""
        if not 1 <= k <= MOST_HITS:
            raise IndexingError(f"k is {k}; expected 1 to {MOST_HITS:,}")
        hits: list[list[IndexHit]] = [[] for _ in data]
        waiting = list(range(len(data)))
        limit = min(MOST_HITS, 4 * k) if stamp.passages else k
        while waiting:  # rows come best first: k documents among them are the best k
            answers = self._store.search([data[place] for place in waiting], field, metric, domain, where, limit)
            short = []
            for place, rows in zip(waiting, answers, strict=True):
                found: dict[str, IndexHit] = {}
                for row, score in rows:
                    if len(found) < k and row["doc_id"] not in found:
                        found[row["doc_id"]] = _hit(row, score, domain)
                hits[place] = _in_order({doc_id: hit.score for doc_id, hit in found.items()}, found)
                if len(found) < k and len(rows) == limit < MOST_HITS:
                    short.append(place)
            waiting, limit = short, min(MOST_HITS, 4 * limit)
        return hits

    def check(self, encoder: SentenceTransformer, domain: str, route: Route | Default = OWN) -> DomainInfo:
        """A domain's facts. Raises `OtherEncoderError` unless queries by this encoder and route belong there."""
        info = self.info(domain)
        here = stamp_of(encoder, route)
        self._facts.check_backbone(here)
        check_document_side(domain, info.stamp, here)
        return info

    def check_backbone(self, encoder: SentenceTransformer) -> None:
        """Raise `OtherEncoderError` unless the encoder's backbone is what embedded the documents of all domains."""
        self._facts.check_backbone(stamp_of(encoder, None))

    def info(self, domain: str) -> DomainInfo:
        """What is known of a domain. Raises `UnknownNameError` for one that is not there."""
        return self._facts.info(domain)

    def domains(self) -> dict[str, DomainInfo]:
        """The domains by name, in the order of their names."""
        return self._facts.all()

    def stats(self) -> dict[str, Any]:
        """What `foreword index stats` prints, as JSON values."""
        domains, store = self.domains(), self._store
        files = [] if store.path is None else [file for file in store.path.rglob("*") if file.is_file()]
        header: Mapping[str, Any] = {} if self._facts.empty else self._facts.header
        return {
            "uri": store.uri,
            "collection": store.name,
            "server": store.version(),
            **{name: header.get(name) for name in ("backbone", "dimension", "metric")},
            "index_type": header.get("index_type") or ("exact" if store.local else "AUTOINDEX"),
            "documents": sum(info.documents for info in domains.values()),
            "bytes": sum(file.stat().st_size for file in files) if store.local else None,
            "domains": {name: {**info.as_dict(), "embedded_by": info.embedded_by} for name, info in domains.items()},
        }


def run_of(hits: Sequence[list[IndexHit]], query_ids: Sequence[str]) -> Run:
    """The hits of some queries as a run."""
    return {name: {hit.doc_id: hit.score for hit in own} for name, own in zip(query_ids, hits, strict=True)}


def _hit(row: Mapping[str, Any], score: float, domain: str) -> IndexHit:
    """A row as a hit. Raises `IndexingError` for one of another domain, a fault of the filter."""
    title, of = str(row["title"]), row["domain"]
    if of != domain:
        raise IndexingError(f"a search of {domain!r} found a document of {of!r}; nothing is shown")
    text, passage = str(row["text"]).removeprefix(title).lstrip(), None
    if row.get("passages", 1) > 1:
        passage = dict(zip(("number", "of", "start", "end"), (int(row[name]) for name in PLACE), strict=True))
    return IndexHit(row["doc_id"], domain, score, title, text, dict(row["metadata"] or {}), passage=passage)


def fused(
    dense: Sequence[list[IndexHit]], words: Sequence[list[IndexHit]], weight: float, k: int
) -> list[list[IndexHit]]:
    """The best k of two searches of the same queries, see `foreword.retrieval.runs.hybrid`."""
    names = [str(number) for number in range(len(dense))]
    merged = hybrid(run_of(dense, names), run_of(words, names), weight, k, shares=False)
    found = [{hit.doc_id: hit for hit in (*b, *a)} for a, b in zip(dense, words, strict=True)]
    return [_in_order(merged[name], by_id) for name, by_id in zip(names, found, strict=True)]


def _in_order(scores: Mapping[str, float], found: Mapping[str, IndexHit]) -> list[IndexHit]:
    """The hits with these scores, in trec_eval's order: by score, then doc_id, both descending."""
    order = enumerate(ranked(scores), start=1)
    return [replace(found[doc_id], score=score, rank=rank) for rank, (doc_id, score) in order]
