"""The two collections of an index, through Milvus's own client: what is asked of them, and what goes wrong.

One code for Milvus Lite (a file, served inside this process) and for a server; `local` says which, in the few places
where they differ.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from filelock import FileLock, Timeout

from foreword.collections.collection import Document
from foreword.errors import IndexBusyError, IndexingError
from foreword.files import said_process, this_process, write_json
from foreword.retrieval.passages import Passage

VARCHAR_BYTES = 65_535
"""The most that Milvus stores in one text field, and (but for one byte) in one JSON field."""
ID_BYTES, DOMAIN_BYTES, TITLE_BYTES = 1024, 256, 4096

DENSE, SPARSE = "vector", "sparse"  # like `pk` and `text`, the names that LangChain's Milvus store looks for
SHOWN = ["doc_id", "domain", "title", "text", "metadata"]
"""The fields that a hit is made of."""
PLACE = ["passage", "passages", "start", "end"]
"""Of a row, which passage of its document it is (from 1), of how many, and where it stands in the text."""

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
        self._client, self._uri, self.uri, self.name, self._owned = client, uri, shown(uri), name, owned
        self.facts = f"{name}_facts"
        self.in_passages = False
        """Whether a document may have several rows; indexes of format 1 hold one for each."""
        self._places: dict[str, list[str]] = {}

    @classmethod
    def connect(cls, uri: str, name: str, token: str | None, *, create: bool) -> Store:
        """Open a Milvus Lite file (`.db`; `create` makes a missing one) or connect to a server; see `Index.open`."""
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it logs what pymilvus mends or raises
        try:
            from pymilvus import MilvusClient
        except ImportError as error:
            raise IndexingError(f"an index needs pymilvus ({error}): pip install 'foreword[index]'") from error
        for logging_twice in ("pymilvus", "milvus_lite"):  # they log what they also raise
            logging.getLogger(logging_twice).setLevel(logging.CRITICAL)
        path = local_path(uri)
        if path is None:
            with _said(f"cannot connect to {shown(uri)}"):
                client = MilvusClient(uri=uri, token=token or "", timeout=CONNECT_SECONDS)
                version = str(client.get_server_version())
            _check_version(version, shown(uri))
            return cls(client, uri, name, None)
        if token is not None:
            raise IndexingError(f"{uri} is a file, which takes no token; a token is for a server (http://...)")
        if create:
            path.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise IndexingError.absent(uri)
        owned = own(path)
        try:
            with _said(f"cannot open {uri}"):
                client = MilvusClient(uri=str(path))
        except BaseException:
            disown(owned)
            raise
        return cls(client, uri, name, owned)

    @property
    def local(self) -> bool:
        """Milvus Lite."""
        return self._owned is not None

    @property
    def address(self) -> str:
        """Where other processes reach it: those of this machine, where it is a file."""
        return self._owned.address if self._owned is not None else self._uri

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
            with _said("closing"):
                client.close()
        finally:
            if self._owned is not None:
                disown(self._owned)

    @contextmanager
    def _asking(self, what: str) -> Iterator[Any]:
        """The client, with Milvus's errors as ours."""
        if self._client is None:
            raise IndexingError(f"the index {self.uri} was closed; open it again")
        with _said(f"{self.uri}: {what}"):
            yield self._client

    def collections(self) -> set[str]:
        """Which of the two there are."""
        with self._asking("the collections cannot be listed") as client:
            return {name for name in (self.name, self.facts) if client.has_collection(name)}

    def create(self, dimension: int, metric: str, index_type: str | None, analyzer: Mapping[str, Any] | None) -> None:
        """Make both collections; facts first, so that documents without facts are known to be somebody else's.

        Reads see what this client wrote (`Session`). The metric is COSINE or IP. Without a type the index is none in
        Milvus Lite (exact search, for which FLAT would only write the vectors a second time), AUTOINDEX on a server.
        """
        there = self.collections()
        if self.name in there and self.facts not in there:
            raise IndexingError(
                f"{self.uri} has a collection {self.name!r} that Foreword did not make; take another name "
                "(--milvus-collection)"
            )
        from pymilvus import DataType

        with self._asking(f"the collection {self.name!r} cannot be made") as client:
            for name in (self.name, self.facts):  # a cut left them, with facts of documents that are gone
                if name in there:
                    client.drop_collection(name)
                elif self.path is not None:  # cut earlier still: what Milvus Lite does not know and stumbles at
                    shutil.rmtree(self.path / "collections" / name, ignore_errors=True)
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=DOMAIN_BYTES + 16)
            schema.add_field("value", DataType.JSON)
            schema.add_field(DENSE, DataType.FLOAT_VECTOR, dim=2)  # of no meaning: Milvus wants one everywhere
            flat = {"index_type": "FLAT", "metric_type": "L2"}
            indexes = None if self.local else client.prepare_index_params(DENSE, **flat)
            client.create_collection(self.facts, schema=schema, index_params=indexes, consistency_level="Strong")
            indexes = None
            if index_type is not None or not self.local:
                indexes = client.prepare_index_params()
                indexes.add_index(DENSE, index_type=index_type or "AUTOINDEX", metric_type=metric)
                indexes.add_index(SPARSE, index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
            schema = _documents_schema(client, dimension, analyzer)
            client.create_collection(self.name, schema=schema, index_params=indexes, consistency_level="Session")

    def load(self) -> None:
        """Make what is there ready for searches."""
        with self._asking("the collections cannot be loaded") as client:
            for name in (self.facts, self.name):
                client.load_collection(name)
            fields = client.describe_collection(self.name)["fields"]
            self.in_passages = any(field["name"] == PLACE[0] for field in fields)

    def drop(self) -> None:
        """Remove both collections, the facts last."""
        with self._asking("the collections cannot be removed") as client:
            client.drop_collection(self.name)
            client.drop_collection(self.facts)

    def version(self) -> str:
        """Of the server, as it says it."""
        with self._asking("the version cannot be had") as client:
            return str(client.get_server_version())

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

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write documents, each in place of what had its key, in requests of a size that servers take."""
        part: list[Mapping[str, Any]] = []
        size = 0
        for number, row in enumerate(rows, start=1):
            part.append(row)
            size += 4 * len(row["text"]) + 4096  # no letter has more than 4 bytes
            if size >= REQUEST_BYTES or number == len(rows):
                with self._asking("documents cannot be written") as client:
                    client.upsert(self.name, part, timeout=REQUEST_SECONDS)
                part, size = [], 0

    def written(self, keys: Sequence[str]) -> dict[str, tuple[str, int]]:
        """`pk -> (hash, passages)` of those documents that there are, by the keys of their first passages."""
        fields = ["pk", "hash", *(["passages"] if self.in_passages else [])]
        with self._asking("documents cannot be read") as client:
            how = {"output_fields": fields, "timeout": REQUEST_SECONDS}
            rows = client.get(self.name, ids=list(keys), **how) if keys else []
        return {row["pk"]: (row["hash"], int(row.get("passages", 1))) for row in rows}

    def keys(self, domain: str) -> dict[str, tuple[str, int]]:
        """`pk -> (doc_id, passages)` of a domain's documents."""
        counts: dict[str, int] = {}
        fields = ["doc_id", *(["passages"] if self.in_passages else [])]
        for row in self._rows(self.name, of_domain(domain), fields):  # all of them: a cut may have left no first one
            counts[row["doc_id"]] = max(counts.get(row["doc_id"], 1), int(row.get("passages", 1)))
        return {primary_key(domain, doc_id): (doc_id, passages) for doc_id, passages in counts.items()}

    def count(self, domain: str) -> int:
        """How many documents a domain has; Milvus Lite goes through them all."""
        with self._asking("documents cannot be counted") as client:
            how = {"output_fields": ["count(*)"], "consistency_level": "Strong", "timeout": REQUEST_SECONDS}
            first = "passage == 1" if self.in_passages else None
            answer = client.query(self.name, filter=of_domain(domain, first), **how)
        return int(answer[0]["count(*)"])

    def delete_documents(self, domain: str, documents: Iterable[tuple[str, int]]) -> None:
        """Remove documents, given as `(doc_id, passages)`; the first passages last, by which the others are known."""
        there = list(documents)
        self.delete([primary_key(domain, name, n) for name, last in there for n in range(2, last + 1)])
        self.delete([primary_key(domain, name) for name, _ in there])

    def delete(self, keys: Sequence[str]) -> None:
        """Remove rows."""
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

    def search(
        self, data: Sequence[Any], field: str, metric: str, domain: str, where: str | None, k: int
    ) -> list[list[tuple[Mapping[str, Any], float]]]:
        """For each of `data` (vectors, or texts for BM25) the best k rows of a domain, and their scores.

        Scores of BM25 are as a server gives them; Milvus Lite's are below zero.
        """
        expression, places = of_domain(domain, where), self._partitions(domain)
        with self._asking(f"the search failed ({expression})") as client:
            found = client.search(
                self.name,
                data=list(data),
                anns_field=field,
                filter=expression,
                limit=k,
                output_fields=[*SHOWN, *(PLACE if self.in_passages else [])],
                search_params={"metric_type": metric},
                partition_names=places,
                timeout=REQUEST_SECONDS,
            )
        score = abs if field == SPARSE else float
        return [[(row["entity"], score(float(row["distance"]))) for row in rows] for rows in found]

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


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Milvus's errors as ours."""
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        message = error.message if isinstance(error, MilvusException) else str(error)
        raise IndexingError(f"{what}: {' '.join(str(message).split())}") from error


OLDEST = (2, 5)
"""Milvus's first version that searches by words (BM25); an older one may fall over at what it does not know."""


def _check_version(version: str, uri: str) -> None:
    found = re.search(r"(\d+)\.(\d+)", version)
    if found is not None and tuple(map(int, found.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise IndexingError(
            f"{uri} is Milvus {version}, which has no BM25, so that nothing could be found by words; take Milvus "
            f"{oldest} or later, or a file (notes.db). For vectors alone, foreword encode writes what databases take"
        )


def local_path(uri: str) -> Path | None:
    """The absolute path of a Milvus Lite file; None for a server's URI. Raises `IndexingError` for neither."""
    if "://" in uri or uri.startswith("unix:"):
        return None
    if not uri.endswith(".db"):
        raise IndexingError(
            f"{uri!r} is neither a file nor a server: a file's name ends in .db (notes.db), a server's URI begins with "
            "http:// or https://"
        )
    return Path(uri).expanduser().resolve()


def shown(uri: str) -> str:
    """A URI without the user and password that it may hold."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.netloc else uri


def _documents_schema(client: Any, dimension: int, analyzer: Mapping[str, Any] | None) -> Any:
    """The fields of documents. Without an analyzer, stop words are dropped (those of `foreword.retrieval.BM25`) and the
    rest stemmed; Milvus Lite 3.2 knows the stop words and passes over the stemmer.
    """
    from bm25s.stopwords import STOPWORDS_EN
    from pymilvus import DataType, Function, FunctionType

    stop = {"type": "stop", "stop_words": list(STOPWORDS_EN)}
    english = {"tokenizer": "standard", "filter": ["lowercase", stop, {"type": "stemmer", "language": "english"}]}
    words = {"analyzer_params": dict(english if analyzer is None else analyzer)}
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("domain", DataType.VARCHAR, max_length=DOMAIN_BYTES, is_partition_key=True)
    schema.add_field("doc_id", DataType.VARCHAR, max_length=ID_BYTES)
    schema.add_field("title", DataType.VARCHAR, max_length=TITLE_BYTES)
    schema.add_field(
        "text", DataType.VARCHAR, max_length=VARCHAR_BYTES, enable_analyzer=True, enable_match=True, **words
    )
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("hash", DataType.VARCHAR, max_length=32)
    for name in PLACE:
        schema.add_field(name, DataType.INT64)
    schema.add_field(DENSE, DataType.FLOAT_VECTOR, dim=dimension)
    schema.add_field(SPARSE, DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, input_field_names=["text"], output_field_names=[SPARSE]))
    return schema


def check_domain(domain: str) -> None:
    """Raise `IndexingError` for a name that Milvus cannot hold."""
    if not domain.strip() or len(domain.encode("utf-8", "replace")) > DOMAIN_BYTES or not domain.isprintable():
        raise IndexingError(
            f"the domain's name is {domain!r}; expected 1 to {DOMAIN_BYTES} bytes of printable text, not all blank"
        )


def row_of(domain: str, document: Document) -> dict[str, Any]:
    """A document as a row, without its vector.

    `text` is what is embedded and found by words, title and text together. `hash` is of all that is stored: a document
    of the same hash need not be embedded again. Raises `IndexingError` where id or metadata are too long, or metadata
    is not JSON.
    """
    doc_id, metadata = document.doc_id, dict(document.metadata)
    try:
        id_size = len(doc_id.encode())
        size = len(json.dumps(metadata, ensure_ascii=False).encode())
    except TypeError as error:
        raise IndexingError(f"document {doc_id!r}: its metadata is not JSON: {error}") from error
    except UnicodeEncodeError as error:  # of a file whose name is not text
        raise IndexingError(f"document {doc_id!r}: its id or metadata cannot be written as UTF-8: {error}") from error
    if not 1 <= id_size <= ID_BYTES:
        raise IndexingError(f"the doc_id {doc_id[:80]!r} has {id_size} bytes; expected 1 to {ID_BYTES}")
    if size > VARCHAR_BYTES:
        raise IndexingError(f"document {doc_id!r}: its metadata has {size} bytes; Milvus holds {VARCHAR_BYTES}")
    title = document.title.strip()
    return {
        "pk": primary_key(domain, doc_id),
        "domain": domain,
        "doc_id": doc_id,
        "title": _cut(title, TITLE_BYTES),
        "text": f"{title} {document.text.strip()}".strip(),
        "metadata": metadata,
        "hash": _digest(document.title, document.text, json.dumps(metadata, sort_keys=True, default=str)),
    }


def rows_of(row: Mapping[str, Any], document: Document, pieces: Sequence[Passage]) -> list[dict[str, Any]]:
    """The rows of a document's passages, from `row_of`; texts are cut to what Milvus can hold."""
    rows = []
    for piece in pieces:
        text = row["text"] if piece.of == 1 else f"{document.title.strip()} {document.text[piece.start : piece.end]}"
        place = dict(zip(PLACE, (piece.number, piece.of, piece.start, piece.end), strict=True))
        key = primary_key(row["domain"], document.doc_id, piece.number)
        rows.append({**row, **place, "pk": key, "text": _cut(text.strip(), VARCHAR_BYTES)})
    return rows


def primary_key(domain: str, doc_id: str, passage: int = 1) -> str:
    """32 hexadecimal digits of domain, doc_id and passage, so that writing a document again replaces it."""
    return _digest(domain, doc_id, *([str(passage)] if passage > 1 else []))


def _digest(*texts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def _cut(text: str, most: int) -> str:
    """The text's beginning, of at most so many bytes of UTF-8."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_STRING = re.compile(r"""(["'])(?:\\.|(?!\1)[^\\])*\1""", re.DOTALL)


def quoted(text: str) -> str:
    """A text as a string of Milvus's expressions."""
    return f'"{text.translate(_ESCAPES)}"'


def of_domain(domain: str, where: str | None = None) -> str:
    """The expression for one domain's documents for which `where` (None or blank: nothing) holds as well.


    Raises:
        IndexingError: `where` is not one whole condition, so that it could reach beyond the domain.
    """
    own = f"domain == {quoted(domain)}"
    if where is None or not where.strip():
        return own
    awaited: list[str] = []  # `1 == 1) or (1 == 1` would leave our brackets
    for letter in _STRING.sub("", where):
        if letter in "([":
            awaited.append({"(": ")", "[": "]"}[letter])
        elif letter in "\"'":  # of a string that does not end
            awaited.append(letter)
            break
        elif letter in ")]" and (not awaited or awaited.pop() != letter):
            raise IndexingError(f"the condition {where!r} closes a bracket that it did not open")
    if awaited:
        raise IndexingError(f"the condition {where!r} is not whole: a {awaited[-1]} is missing")
    return f"{own} and ({where})"


# A Milvus Lite "file" is a folder that belongs to one process. Beside Milvus Lite's own lock, which names nobody,
# `foreword.lock` is held (by the operating system, so that it goes when the process does) and `owner.json` says whose
# it is.
LOCK, OWNER, LITE_LOCK = "foreword.lock", "owner.json", "LOCK"


@dataclass
class Owned:
    """A file that this process owns, however many indexes it has open on it."""

    path: Path
    lock: FileLock
    address: str
    """Where Milvus Lite answers on this machine."""
    users: int = 0


_owned: dict[Path, Owned] = {}
_registry = threading.Lock()


def own(path: Path) -> Owned:
    """Take the folder at an absolute path for this process, or share it with those in it that have it; see `disown`.

    Raises `IndexBusyError` where another process has it, `IndexingError` where it is no folder.
    """
    with _registry:
        mine = _owned.get(path)
        if mine is None:
            if not path.is_dir():
                raise IndexingError(
                    f"{path} is a plain file, and Milvus Lite 3 keeps a folder; give another name (a file of Milvus "
                    "Lite 2 has to be built again)"
                )
            lock = _locked(path)
            try:
                mine = _owned[path] = Owned(path, lock, _served(path))
            except BaseException:
                lock.release()
                raise
        mine.users += 1
        return mine


def disown(owned: Owned) -> None:
    """Give back what `own` took; the last one stops the server inside this process and frees the file."""
    with _registry:
        owned.users -= 1
        if owned.users:
            return
        del _owned[owned.path]
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(str(owned.path))
        (owned.path / OWNER).unlink(missing_ok=True)
        owned.lock.release()


def _served(path: Path) -> str:
    """Have Milvus Lite serve a folder to this machine, by one thread: it takes one write at a time, no reads beside it.

    Others in this process that name the folder (LangChain's store) find this server, as `server_manager` knows it.
    """
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    from milvus_lite.server_manager import server_manager_instance

    server = start_server_in_thread(str(path), max_workers=1)
    server_manager_instance._servers[str(path)] = server
    return f"http://127.0.0.1:{server[2]}"


_REMEDY = (
    "Milvus Lite's files belong to one process: wait for it, stop it, or ask it (a service answers searches); "
    "a Milvus server, by its http:// URI, takes any number of them"
)


def _locked(path: Path) -> FileLock:
    """The lock, and in `owner.json` the program and its command, never its further arguments."""
    lock = FileLock(path / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise IndexBusyError(f"{path} is open in {said_process(path / OWNER)}. {_REMEDY}") from None
    if _lite_is_locked(path):
        lock.release()
        raise IndexBusyError(f"{path} is open in a program that is not Foreword (it holds {LITE_LOCK}). {_REMEDY}")
    write_json(path / OWNER, this_process())
    return lock


def _lite_is_locked(path: Path) -> bool:
    """Whether someone holds Milvus Lite's own lock; asked first, since Milvus Lite itself only logs a traceback."""
    try:
        import fcntl
    except ImportError:  # not on Windows, where pymilvus then says that it failed
        return False
    if not (path / LITE_LOCK).exists():
        return False
    with open(path / LITE_LOCK, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
