"""How documents lie in Milvus: the fields of the collection, and the one beside it that says what embedded them.

The names `pk`, `text` and `vector` are those that LangChain's Milvus store looks for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from foreword.collections.records import Document
from foreword.indexing.errors import IndexingError

FORMAT = "foreword-index/1"

VARCHAR_BYTES = 65_535
"""The most that Milvus stores in one text field, and (but for one byte) in one JSON field."""
ID_BYTES, DOMAIN_BYTES, TITLE_BYTES = 1024, 256, 4096

DENSE, SPARSE = "vector", "sparse"
SHOWN = ["doc_id", "domain", "title", "text", "metadata"]
"""The fields that a hit is made of."""


def english() -> dict[str, Any]:
    """Milvus's `analyzer_params` for BM25 and `TEXT_MATCH`: stop words are dropped (those of `foreword.retrieval.BM25`)
    and the rest stemmed. Milvus Lite 3.2 knows the stop words and passes over the stemmer.
    """
    from bm25s.stopwords import STOPWORDS_EN

    stop = {"type": "stop", "stop_words": list(STOPWORDS_EN)}
    return {"tokenizer": "standard", "filter": ["lowercase", stop, {"type": "stemmer", "language": "english"}]}


def documents_schema(client: Any, dimension: int, analyzer: Mapping[str, Any] | None) -> Any:
    """The schema of the documents' collection, for `MilvusClient.create_collection`."""
    from pymilvus import DataType, Function, FunctionType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("domain", DataType.VARCHAR, max_length=DOMAIN_BYTES, is_partition_key=True)
    schema.add_field("doc_id", DataType.VARCHAR, max_length=ID_BYTES)
    schema.add_field("title", DataType.VARCHAR, max_length=TITLE_BYTES)
    words = {
        "enable_analyzer": True,
        "enable_match": True,
        "analyzer_params": dict(english() if analyzer is None else analyzer),
    }
    schema.add_field("text", DataType.VARCHAR, max_length=VARCHAR_BYTES, **words)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("hash", DataType.VARCHAR, max_length=32)
    schema.add_field(DENSE, DataType.FLOAT_VECTOR, dim=dimension)
    schema.add_field(SPARSE, DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, input_field_names=["text"], output_field_names=[SPARSE]))
    return schema


def documents_indexes(client: Any, metric: str, index_type: str | None, local: bool) -> Any:
    """The indexes of the documents' collection.

    Milvus Lite searches exactly without an index of its vectors; a FLAT one would only write them a second time.

    Args:
        client: a `MilvusClient`.
        metric: COSINE or IP.
        index_type: as Milvus names it; None: exact search in Milvus Lite, AUTOINDEX on a server.
        local: Milvus Lite.
    """
    indexes = client.prepare_index_params()
    if index_type is not None or not local:
        indexes.add_index(DENSE, index_type=index_type or "AUTOINDEX", metric_type=metric)
        indexes.add_index(SPARSE, index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    return indexes if len(indexes) else None


def facts_schema(client: Any) -> Any:
    """The schema of the collection of facts; Milvus wants a vector in every collection, so it has one of no meaning."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=DOMAIN_BYTES + 16)
    schema.add_field("value", DataType.JSON)
    schema.add_field(DENSE, DataType.FLOAT_VECTOR, dim=2)
    return schema


# -- rows ----------------------------------------------------------------------------------------------------------


def primary_key(domain: str, doc_id: str) -> str:
    """32 hexadecimal digits of domain and doc_id, so that writing a document again replaces it."""
    return _digest(domain, doc_id)


def content_hash(document: Document) -> str:
    """32 hexadecimal digits of all that is stored of a document: the same hash, and it need not be embedded again."""
    return _digest(document.title, document.text, json.dumps(dict(document.metadata), sort_keys=True, default=str))


def _digest(*texts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def check_domain(domain: str) -> None:
    """Raise `IndexingError` for a name that Milvus cannot hold."""
    if not domain.strip() or len(domain.encode("utf-8", "replace")) > DOMAIN_BYTES or not domain.isprintable():
        raise IndexingError(
            f"the domain's name is {domain!r}; expected 1 to {DOMAIN_BYTES} bytes of printable text, not all blank"
        )


def row_of(domain: str, document: Document) -> dict[str, Any]:
    """A document as a row, without its vector.

    `text` is what is embedded and found by words, title and text together; it is cut to what Milvus can hold, the
    hash is of all of it.

    Raises:
        IndexingError: its id or metadata are too long, or metadata is not JSON.
    """
    doc_id = document.doc_id
    try:
        id_size = len(doc_id.encode())
        size = len(json.dumps(dict(document.metadata), ensure_ascii=False).encode())
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
        "title": cut(title, TITLE_BYTES),
        "text": cut(f"{title} {document.text.strip()}".strip(), VARCHAR_BYTES),
        "metadata": dict(document.metadata),
        "hash": content_hash(document),
    }


def text_of(row: Mapping[str, Any]) -> str:
    """A document's text without its title."""
    return str(row["text"]).removeprefix(str(row["title"])).lstrip()


def cut(text: str, most: int) -> str:
    """The text's beginning, of at most so many bytes of UTF-8."""
    raw = text.encode("utf-8", "replace")
    return raw[:most].decode("utf-8", "ignore")
