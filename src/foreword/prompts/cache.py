"""Vectors of documents that were embedded before, on the disk, so that no command embeds a document again.

A vector is found by all that it follows from: the text, the backbone's weights and head, the values of the prompts and
how they are mixed, the tokens that texts are cut to, the precision and the libraries. It is what another batch may give
in the last bits, as any two batches do.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.files import cache_folder, json_digest, megabytes
from foreword.prompts.encoder import Vectors, transformer_of
from foreword.prompts.routes import Route, names_of, route_as_json, route_of_side
from foreword.prompts.store import describe_backbone, library_versions

logger = logging.getLogger(__name__)

LIMIT = "FOREWORD_VECTORS_MB"
"""The environment variable that bounds the file, in megabytes; 0: nothing is kept."""
DEFAULT_LIMIT_MB = 1000.0
FILE = "vectors.sqlite"

_AT_ONCE = 500  # keys in one question
_DAY = 24 * 3600


class VectorCache:
    """A file of vectors by key. Whatever is wrong with the file, vectors are made anew; nothing fails for it.

    Several processes may share one. When it outgrows its bound, what was longest unused goes, a quarter of all.
    """

    def __init__(self, path: Path, limit_mb: float = DEFAULT_LIMIT_MB) -> None:
        self.path, self.limit = path, limit_mb * 1e6
        self._off = False

    @classmethod
    def of_user(cls) -> VectorCache | None:
        """The one in the user's cache folder (`FOREWORD_CACHE`); None where nothing is to be kept.

        Raises:
            ForewordError: `FOREWORD_VECTORS_MB` is no number.
        """
        folder, limit = cache_folder("vectors"), megabytes(LIMIT, DEFAULT_LIMIT_MB, "vectors")
        return cls(folder / FILE, limit) if folder is not None and limit > 0 else None

    def embed(
        self,
        encoder: SentenceTransformer,
        route: Route,
        settings: Mapping[str, Any],
        texts: Sequence[str],
        make: Callable[[Sequence[int]], Vectors],
    ) -> Vectors:
        """Vectors (len(texts), d') of documents, in order: known ones, and the others by `make`, which are kept.

        Args:
            encoder: from `load_encoder`; where its weights are no longer the backbone's, all are made.
            route: the prompt or mixture that encodes the documents.
            settings: what else vectors follow from, as JSON values.
            texts: in the order of the result.
            make: the vectors (m, d') of the texts of these m numbers.
        """
        context = _context(encoder, route, settings)
        if context is None:
            return make(range(len(texts)))
        start = hashlib.sha256(context.encode())
        keys = [_key(start, text) for text in texts]
        found = self._read(keys)
        if missing := [number for number, key in enumerate(keys) if key not in found]:
            made, unknown = make(missing), [keys[number] for number in missing]
            self._write(unknown, made)
            found.update(zip(unknown, made, strict=True))
        return np.stack([found[key] for key in keys])

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        found: dict[bytes, Vectors] = {}
        if not self.path.exists():
            return found

        def read(file: sqlite3.Connection) -> None:
            now, old = int(time.time()), []
            for begin in range(0, len(keys), _AT_ONCE):
                some = keys[begin : begin + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = file.execute(f"SELECT key, vector, crc, used FROM vectors WHERE key IN ({marks})", some)
                for key, vector, crc, used in rows:
                    if zlib.crc32(vector) == crc:
                        found[key] = np.frombuffer(vector, np.float32)
                        old += [(now, key)] if used < now - _DAY else []
            file.executemany("UPDATE vectors SET used = ? WHERE key = ?", old)

        self._with_file(read)
        return found

    def _write(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        now = int(time.time())

        def write(file: sqlite3.Connection) -> None:
            rows = ((k, v.tobytes(), zlib.crc32(v.tobytes()), now) for k, v in zip(keys, vectors, strict=True))
            file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
            pages, free, size = (
                file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
            )
            if (pages - free) * size > self.limit:
                count = file.execute("SELECT count(*) FROM vectors").fetchone()[0]
                oldest = "SELECT key FROM vectors ORDER BY used, rowid LIMIT ?"
                file.execute(f"DELETE FROM vectors WHERE key IN ({oldest})", (count // 4 + 1,))

        self._with_file(write)

    def _with_file(self, use: Callable[[sqlite3.Connection], None]) -> None:
        """Use the file in one transaction. A damaged one is removed; one that cannot be used is left alone."""
        if self._off:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = sqlite3.connect(self.path, timeout=10)
            try:
                with file:
                    columns = "key BLOB PRIMARY KEY, vector BLOB, crc INTEGER, used INTEGER"
                    file.execute(f"CREATE TABLE IF NOT EXISTS vectors ({columns})")
                    use(file)
            finally:
                file.close()
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                self.path.unlink(missing_ok=True)
            else:  # read-only, full, or locked by somebody for long
                self._off = True
            logger.debug("%s cannot be used: %s", self.path, error)


def _key(start: Any, text: str) -> bytes:
    digest = start.copy()
    digest.update(text.encode("utf-8", "surrogatepass"))
    return bytes(digest.digest())


def _context(encoder: SentenceTransformer, route: Route, settings: Mapping[str, Any]) -> str | None:
    """What vectors of documents follow from besides their texts; None where the weights are not a backbone's."""
    transformer = transformer_of(encoder)
    chosen = route_of_side(route, "document")
    prompts = [transformer.prompt(name) for name in names_of(chosen)]
    if transformer.backbone is None or any(p.requires_grad for p in transformer.model.parameters()):
        return None
    if isinstance(chosen, str) and prompts[0].spec.part_for("document") is None:  # the base model's, whatever its name
        chosen, prompts = None, []
    mixed = route_as_json(chosen)
    described = {key: value for key, value in describe_backbone(encoder).items() if key not in ("name", "revision")}
    return json_digest(
        {
            **settings,
            "backbone": described,
            "device": encoder.device.type,
            "max_seq_length": encoder.max_seq_length,
            "truncate_dim": encoder.truncate_dim,
            "prompts": [prompt.digest() for prompt in prompts],
            "weights": list(mixed.values()) if isinstance(mixed, dict) else None,
            "versions": library_versions(),
        }
    )
