"""Rankings: exact dense search, BM25, fusion, and runs as TREC files."""
