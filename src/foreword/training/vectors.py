"""Document vectors made once: by the base model, or the user's own from an index that exists."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection, documents_for
from foreword.errors import DataError
from foreword.prompts.encoder import encode
from foreword.prompts.routes import Route
from foreword.settings import Precision


@dataclass(frozen=True)
class DocumentVectors:
    """Vectors of documents: `vectors` is (N, d'), row i belongs to `doc_ids[i]`."""

    doc_ids: Sequence[str]
    vectors: np.ndarray[Any, Any]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.doc_ids) != self.vectors.shape[0]:
            raise DataError(
                f"{len(self.doc_ids)} ids for vectors of shape {self.vectors.shape}; expected one row an id"
            )
        if len(set(self.doc_ids)) != len(self.doc_ids):
            raise DataError("document ids of the vectors are not unique")

    def checked(self, encoder: SentenceTransformer) -> DocumentVectors:
        """These vectors in memory, as the encoder's own would be: its width, and unit length for the cosine.

        Raises:
            DataError: another width, or values that are not finite.
        """
        width = encoder.get_embedding_dimension()
        if self.vectors.shape[1] != width:
            raise DataError(f"the vectors have {self.vectors.shape[1]} numbers, the encoder's {width}: another model's")
        vectors = np.array(self.vectors, dtype=np.float32)
        if not np.isfinite(vectors).all():
            raise DataError("the vectors hold NaN or infinity; make them again")
        if encoder.similarity_fn_name == "cosine":
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return DocumentVectors(self.doc_ids, vectors)

    def digest(self) -> str:
        """SHA-256 of ids and values: 64 hexadecimal digits."""
        digest = hashlib.sha256("\x1f".join(self.doc_ids).encode())
        digest.update(np.ascontiguousarray(self.vectors, dtype=np.float32).tobytes())
        return digest.hexdigest()


def embed_documents(
    encoder: SentenceTransformer,
    collection: Collection,
    *,
    split: str | None = None,
    route: Route = None,
    precision: Precision = "float32",
    max_length: int | None = None,
    batch_size: int = 64,
    quiet: bool = False,
) -> DocumentVectors:
    """Embed a collection's documents, in its order.

    With `split`, those that its judgements are about (see `foreword.collections.collection.documents_for`); the other
    arguments are `foreword.prompts.encoder.encode`'s.
    """
    doc_ids, texts = [], []
    for doc in collection.documents() if split is None else documents_for(collection, split):
        doc_ids.append(doc.doc_id)
        texts.append(doc.content)
    vectors = encode(
        encoder,
        texts,
        "document",
        route=route,
        precision=precision,
        max_length=max_length,
        batch_size=batch_size,
        what=f"documents of {collection.id}",
        quiet=quiet,
    )
    return DocumentVectors(doc_ids, vectors)


def read_vectors(path: str | Path, ids: str | Path | None = None) -> DocumentVectors:
    """Read document vectors that the user has.

    Args:
        path: `.npy` with an array (N, d'), memory-mapped; or `.parquet` with a column of ids (`doc_id`, `_id` or
            `id`) and one of vectors (`vector` or `embedding`).
        ids: for `.npy`, a text file with an id on each line, blanks and all; None: the array's name with `.ids.txt`
            for `.npy`.

    Raises:
        DataError: a file is missing or not of this form.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("no such file; give document vectors as .npy or .parquet", path=path)
    if path.suffix == ".npy":
        ids_path = Path(ids) if ids is not None else path.with_suffix(".ids.txt")
        if not ids_path.is_file():
            raise DataError(f"no ids for {path.name}: one document id a line, in the order of the rows", path=ids_path)
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"not an array of numbers: {error}", path=path) from error
        if not np.issubdtype(vectors.dtype, np.floating):
            raise DataError(f"the array holds {vectors.dtype}, not floating point numbers", path=path)
        names = ids_path.read_text(encoding="utf-8").split("\n")  # any line end is read as this one
        return DocumentVectors([name for name in names if name], vectors)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    raise DataError(f"document vectors are .npy or .parquet, not {path.suffix or 'a file without a suffix'}", path=path)


def _read_parquet(path: Path) -> DocumentVectors:
    import pyarrow.parquet as parquet
    from pyarrow.lib import ArrowException

    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"cannot be read as parquet: {error}", path=path) from error
    id_column = next((name for name in ("doc_id", "_id", "id") if name in table.column_names), None)
    vector_column = next((name for name in ("vector", "embedding") if name in table.column_names), None)
    if id_column is None or vector_column is None:
        raise DataError(
            f"columns are {', '.join(table.column_names)}; expected doc_id, _id or id, and vector or embedding",
            path=path,
        )
    lists = table.column(vector_column).combine_chunks()
    if not hasattr(lists, "flatten") or not hasattr(lists.type, "value_type"):
        raise DataError(f"column {vector_column} holds {lists.type}; expected lists of numbers", path=path)
    lengths = np.diff(lists.offsets.to_numpy()) if hasattr(lists, "offsets") else np.array([lists.type.list_size])
    if len(set(lengths.tolist())) > 1:
        raise DataError(f"vectors have {sorted(set(lengths.tolist()))} numbers; expected all of one length", path=path)
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return DocumentVectors([str(i) for i in table.column(id_column).to_pylist()], values.reshape(len(lists), -1))
