"""What can go wrong with an index, beside what Foreword's other parts say."""

from __future__ import annotations

from foreword.common.errors import ForewordError


class IndexingError(ForewordError):
    """An index that cannot be opened, written or searched as asked."""


class IndexBusyError(IndexingError):
    """A Milvus Lite file that belongs to another process."""


class OtherEncoderError(IndexingError):
    """Queries or documents of another backbone, or of a prompt that did not embed what is stored."""
