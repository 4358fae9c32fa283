"""Where an index is, how it is reached, and Milvus's errors as Foreword's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from foreword.indexing.errors import IndexingError


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


def client_class() -> Any:
    """`pymilvus.MilvusClient`. Raises `IndexingError` where it is not installed."""
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise IndexingError(f"an index needs pymilvus ({error}): pip install 'foreword[index]'") from error
    for name in ("pymilvus", "milvus_lite"):  # they log what they also raise, and that is said once
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MilvusClient


@contextmanager
def said(what: str) -> Iterator[None]:
    """Milvus's errors as ours."""
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        message = error.message if isinstance(error, MilvusException) else str(error)
        raise IndexingError(f"{what}: {' '.join(str(message).split())}") from error
