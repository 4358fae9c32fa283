"""The base encoder on real collections: an encoder that scores far from these figures is wrong.

Slow (some minutes on two cores), so it runs only when asked for: FOREWORD_SLOW=1 make test
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foreword.collections.registry import load
from foreword.evaluation.evaluate import evaluate

DATA = Path(os.environ.get("FOREWORD_DATA", Path(__file__).parents[2] / "shared" / "data" / "glasgow"))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no files in {DATA}; set FOREWORD_DATA")
@pytest.mark.parametrize(("name", "ndcg"), [("cranfield", 0.374), ("cisi", 0.421), ("medline", 0.788), ("cacm", 0.410)])
def test_base_figures(minilm, name, ndcg):
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    collection = load(f"glasgow/{name}", data=DATA)
    result = evaluate(collection, minilm, measures=["nDCG@10"], route=None, precision="auto", quiet=True)
    torch.set_num_threads(1)
    assert result.measures["nDCG@10"] == pytest.approx(ndcg, abs=0.01)
