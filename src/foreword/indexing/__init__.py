"""Documents of many domains in Milvus: embedded once, searched by vectors, words or both."""

from foreword.indexing.domains import DomainInfo
from foreword.indexing.errors import IndexBusyError, IndexingError, OtherEncoderError
from foreword.indexing.hits import Hit, Mode
from foreword.indexing.index import Index
from foreword.indexing.writing import Written

__all__ = ["DomainInfo", "Hit", "Index", "IndexBusyError", "IndexingError", "Mode", "OtherEncoderError", "Written"]
