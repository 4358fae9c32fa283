"""What a training learns from: pairs of a query and a document, and document vectors that are made once.

Vectors are made by the base model, or are the user's own from an index that exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.collections.collection import Collection, TrainingPair, fingerprint
from foreword.errors import DataError, of_file
from foreword.files import VECTORS, ids_file, kept_json, sha256_file, text_lines
from foreword.prompts.encoder import encode
from foreword.prompts.routes import Route
from foreword.settings import Precision
from foreword.training.config import TrainingConfig


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
        if self.vectors.dtype == np.int8 and encoder.similarity_fn_name != "cosine":
            raise DataError("int8 vectors are directions, and this encoder's have lengths; make them as float16")
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


@dataclass(frozen=True)
class TrainingData:
    """Collections, and what of them is trained on.

    Attributes:
        sources: the collections.
        pairs: their training pairs, by id.
        given: the ids of those whose pairs are not of their own training split.
        documents: vectors of their documents, by id, that need not be made.
    """

    sources: Sequence[Collection]
    pairs: Mapping[str, Sequence[TrainingPair]]
    given: frozenset[str] = frozenset()
    documents: Mapping[str, DocumentVectors] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        sources: Sequence[Collection],
        config: TrainingConfig,
        pairs: Mapping[str, Sequence[TrainingPair]] | None = None,
        documents: Mapping[str, DocumentVectors] | None = None,
    ) -> TrainingData:
        """The pairs of each collection, with the hard negatives that `config` asks for.

        Args:
            sources: the collections.
            config: the settings.
            pairs: by id, to take instead of a collection's own training split.
            documents: vectors by id.

        Raises:
            DataError: a collection has no pairs, or is there twice.
        """
        if not sources:
            raise DataError("no collection to train on")
        given, hard_negatives = pairs or {}, config.hard_negatives if config.side == "both" else 0
        found: dict[str, list[TrainingPair]] = {}
        for c in sources:
            if c.id not in given and "train" not in c.splits:
                raise DataError(
                    f"{c.id} has no training split (it has: {', '.join(c.splits) or 'none'}); judgements of its test "
                    "split are not for training. Use pseudo-queries (--pseudo-queries), or transfer"
                )
            found[c.id] = list(given[c.id] if c.id in given else c.pairs("train", hard_negatives=hard_negatives))
            if not found[c.id]:
                raise DataError(f"{c.id} has no training pairs")
        if len(found) < len(sources):
            raise DataError(f"a collection is given twice: {', '.join(c.id for c in sources)}")
        return cls(sources, found, frozenset(given), documents or {})

    @property
    def domain(self) -> str:
        """What the result is called unless it is given a name: the one collection's id, or `multitask`."""
        return self.sources[0].id if len(self.sources) == 1 else "multitask"

    def steps_of(self, config: TrainingConfig, processes: int) -> TrainingConfig:
        """The settings with the steps that its `epochs` ask for on these pairs."""
        return config.with_steps(sum(map(len, self.pairs.values())), processes)

    def identity(self) -> dict[str, Any]:
        """What tells these data from others: `supervision`, and digests of all that is learnt from as `data`."""
        supervision = {
            c.id: {"method": "given pairs"} if c.id in self.given else c.facts.get("supervision", {"method": "train"})
            for c in self.sources
        }
        data = {}
        for c in self.sources:
            lines = ("\x1f".join((p.query_id, p.query, p.doc_id, p.document, *p.negatives)) for p in self.pairs[c.id])
            data[c.id] = {
                "collection": fingerprint(c, [split for split in c.splits if split != "test"]),
                "pairs": len(self.pairs[c.id]),
                "pairs_sha256": hashlib.sha256("\x1e".join(lines).encode("utf-8", "surrogatepass")).hexdigest(),
                **({"vectors": self.documents[c.id].digest()} if c.id in self.documents else {}),
            }
        return {
            "supervision": supervision[self.sources[0].id] if len(self.sources) == 1 else supervision,
            "data": data,
        }

    def embedded(
        self, encoder: SentenceTransformer, config: TrainingConfig, route: Route, *, quiet: bool
    ) -> dict[str, DocumentVectors]:
        """Fixed vectors of every collection's documents: those given, else made by `route`."""
        return {
            c.id: self.documents[c.id].checked(encoder)
            if c.id in self.documents
            else embed_documents(
                encoder,
                c,
                split="train" if "train" in c.splits else None,
                route=route,
                precision=config.precision,
                max_length=config.document_length,
                quiet=quiet,
            )
            for c in self.sources
        }


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

    With `split`, those that its judgements are about (see `Collection.documents_for`); the other
    arguments are `foreword.prompts.encoder.encode`'s.
    """
    doc_ids, texts = [], []
    for doc in collection.documents() if split is None else collection.documents_for(split):
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
        path: `.npy` with an array (N, d') of floating point numbers or int8 (directions), memory-mapped; or `.parquet`
            with a column of ids (`doc_id`, `_id` or `id`) and one of vectors (`vector` or `embedding`). Or the name
            that `foreword encode --engine ray` was given: the vectors of all its files.
        ids: for `.npy`, a text file with an id on each line, blanks and all; None: the array's name with `.ids.txt`
            for `.npy`.

    Raises:
        DataError: a file is missing, not of this form, or not of one write with the others.
    """
    path = Path(path)
    record = None if path.is_file() else kept_json(path.with_suffix(".json"))
    if isinstance(record, dict) and record.get("format") == VECTORS:
        _check_record(path, ids)
        parts = [read_vectors(path.with_name(name)) for name in record["files"]]
        names = [one for part in parts for one in part.doc_ids]
        filled = [part.vectors for part in parts if part.doc_ids]
        return DocumentVectors(names, np.concatenate(filled or [part.vectors for part in parts]))
    if not path.is_file():
        raise DataError("no such file; give document vectors as .npy or .parquet", path=path)
    _check_record(path, ids)
    if path.suffix == ".npy":
        ids_path = Path(ids) if ids is not None else ids_file(path)
        if not ids_path.is_file():
            raise DataError(f"no ids for {path.name}: one document id a line, in the order of the rows", path=ids_path)
        try:
            vectors = np.lib.format.open_memmap(path, mode="r")  # of this format alone; np.load guesses at others
        except Exception as error:  # numpy reads a header as Python, and raises whatever it comes upon
            raise DataError(f"not an array of numbers: {error}", path=path) from error
        if not np.issubdtype(vectors.dtype, np.floating) and vectors.dtype != np.int8:
            raise DataError(f"the array holds {vectors.dtype}, not floating point numbers or int8", path=path)
        with of_file(path):
            return DocumentVectors([name for _, name in text_lines(ids_path) if name], vectors)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    raise DataError(f"document vectors are .npy or .parquet, not {path.suffix or 'a file without a suffix'}", path=path)


def _check_record(path: Path, ids: str | Path | None) -> None:
    """Raise `DataError` where vectors of `foreword encode` are not of one write: it was killed, or a file changed."""
    record = kept_json(path.with_suffix(".json"))
    if not isinstance(record, dict) or record.get("format") != VECTORS:
        return  # the user's own
    remedy = "they are not of one write; run foreword encode again"
    if not record.get("complete", True):
        raise DataError(f"the command that wrote these vectors did not end; {remedy}", path=path)
    files = {"sha256": path, **({"ids_sha256": ids_file(path)} if ids is None and path.suffix == ".npy" else {})}
    for key, file in files.items():
        if key in record and file.is_file() and sha256_file(file) != record[key]:
            raise DataError(f"is not the file that {path.with_suffix('.json').name} tells of: {remedy}", path=file)


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
    values = lists.flatten().to_numpy(zero_copy_only=False)
    values = values if values.dtype == np.int8 else values.astype(np.float32)
    ids, width = [str(i) for i in table.column(id_column).to_pylist()], max(lengths, default=0)
    with of_file(path):
        return DocumentVectors(ids, values.reshape(len(lists), width))
