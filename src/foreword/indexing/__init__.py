"""Documents of many domains in Milvus: embedded once, searched by vectors, words or both."""

from foreword.errors import IndexBusyError, IndexingError, OtherEncoderError
from foreword.indexing.index import Index, IndexHit, Mode
from foreword.indexing.write import DomainInfo, Written

__all__ = ["DomainInfo", "Index", "IndexBusyError", "IndexHit", "IndexingError", "Mode", "OtherEncoderError", "Written"]
