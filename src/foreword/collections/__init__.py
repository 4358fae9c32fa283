"""Retrieval collections by name: documents, queries, judgements and training pairs."""

from foreword.collections.collection import (
    Collection,
    DataWarning,
    Document,
    Entry,
    Qrels,
    Query,
    TrainingPair,
    fingerprint,
)
from foreword.collections.pseudo import pseudo_pairs
from foreword.collections.registry import catalogue, load

__all__ = [
    "Collection",
    "DataWarning",
    "Document",
    "Entry",
    "Qrels",
    "Query",
    "TrainingPair",
    "catalogue",
    "fingerprint",
    "load",
    "pseudo_pairs",
]
