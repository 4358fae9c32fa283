"""Documents of many domains in Milvus: embedded once, searched by vectors, words or both."""

from foreword.errors import IndexBusyError, IndexingError, OtherEncoderError
from foreword.indexing.index import Index
from foreword.indexing.search import Hit, Mode
from foreword.indexing.write import DomainInfo, Written

__all__ = ["DomainInfo", "Hit", "Index", "IndexBusyError", "IndexingError", "Mode", "OtherEncoderError", "Written"]
