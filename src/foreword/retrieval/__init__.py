"""Rankings: exact dense search, BM25, fusion, and runs as TREC files. Importing this loads no torch."""

from foreword.retrieval.bm25 import BM25
from foreword.retrieval.dense import exact_search
from foreword.retrieval.fusion import min_max, reciprocal_rank
from foreword.retrieval.runs import (
    Run,
    drop_self,
    ranked,
    read_qrels,
    read_run,
    top_k,
    trec_name,
    write_qrels,
    write_run,
)

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
