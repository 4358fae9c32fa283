"""Filtered recall@10 of a Milvus Lite file against exact search: a small one always, 100,000 documents when asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pages import ROOT

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from benchmarks.index import measure, recall
from foreword.indexing.index import IndexHit


def test_recall_worked_by_hand() -> None:
    vectors = np.array([[1.0], [0.9], [0.9], [0.1], [5.0]], dtype=np.float32)
    inside = np.array([0, 1, 2, 3])  # the best two of these: 0, and either of 1 and 2

    def of(*numbers: int) -> float:
        return recall([IndexHit(str(n), "a", 0.0, "", "") for n in numbers], vectors, inside, [1.0], 2)

    assert of(0, 1) == of(2, 0) == 1.0
    assert of(0, 3) == 0.5
    assert of(4, 3) == of() == 0.0
    assert recall([IndexHit("3", "a", 0.0, "", "")], vectors, np.array([3]), [1.0], 10) == 1.0


def test_filtered_recall(tmp_path: Path) -> None:
    figures = measure(str(tmp_path / "scale.db"), documents=2000, dimension=32, queries=25, words=20)
    assert figures["recall, domain"] == figures["recall, domain and metadata"] == 1.0


@pytest.mark.slow  # 100,000 documents
def test_filtered_recall_of_100_000_documents() -> None:
    """As a user runs it; the figures are printed with -s."""
    done = subprocess.run([sys.executable, "benchmarks/index.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    print(done.stdout)
    figures = json.loads(done.stdout)
    assert (figures["documents"], figures["domains"], figures["k"]) == (100_000, 5, 10)
    assert figures["recall, domain"] == figures["recall, domain and metadata"] == 1.0
