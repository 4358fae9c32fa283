"""Rankings: exact dense search, BM25, fusion, and runs as TREC files. Importing this loads no torch."""

from foreword.retrieval.bm25 import BM25
from foreword.retrieval.runs import (
    Run,
    drop_self,
    min_max,
    ranked,
    read_qrels,
    read_run,
    reciprocal_rank,
    top_k,
    trec_name,
    write_qrels,
    write_run,
)
from foreword.retrieval.search import exact_search

__all__ = [
    "BM25",
    "Run",
    "drop_self",
    "exact_search",
    "min_max",
    "ranked",
    "read_qrels",
    "read_run",
    "reciprocal_rank",
    "top_k",
    "trec_name",
    "write_qrels",
    "write_run",
]
