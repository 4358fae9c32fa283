"""Exact search equals sorting the complete list of scores, however the corpus is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from foreword.errors import ForewordError
from foreword.retrieval.runs import Run
from foreword.retrieval.search import Rescored, exact_search, to_int8


def full_sort(queries: np.ndarray, documents: np.ndarray, ids: list[str], k: int) -> Run:
    """The reference: every score, sorted by score and doc_id, both descending."""
    scores = queries.astype(np.float64) @ documents.astype(np.float64).T
    return {
        f"q{row}": {doc_id: score for score, doc_id in sorted(zip(line.tolist(), ids, strict=True), reverse=True)[:k]}
        for row, line in enumerate(scores)
    }


def same(run: Run, expected: Run) -> bool:
    """Equal hits, scores and order."""
    return run == expected and all(list(run[query_id]) == list(expected[query_id]) for query_id in expected)


@pytest.mark.parametrize("seed", range(12))
def test_equals_a_full_sort_with_many_ties(seed: int) -> None:
    # Small whole numbers: every sum is exact, so that ties are plenty and no rounding can part them.
    rng = np.random.default_rng(seed)
    n, q, d = int(rng.integers(1, 400)), int(rng.integers(1, 20)), int(rng.integers(1, 6))
    documents = rng.integers(-2, 3, (n, d)).astype(np.float32)
    queries = rng.integers(-2, 3, (q, d)).astype(np.float32)
    ids = [f"d{number}" for number in rng.permutation(n)]
    k = int(rng.integers(1, 30))
    expected = full_sort(queries, documents, ids, k)
    names = [f"q{row}" for row in range(q)]
    cuts = sorted(rng.integers(0, n + 1, 3).tolist())
    blocks = [(ids[a:b], documents[a:b]) for a, b in zip([0, *cuts], [*cuts, n], strict=True)]  # some are empty
    for run in (
        exact_search(queries, names, documents, k, document_ids=ids),
        exact_search(queries, names, documents, k, document_ids=ids, block_rows=7, memory_mib=0.001),
        exact_search(queries, names, iter(blocks), k),
    ):
        assert same(run, expected)


def test_random_vectors_and_their_copies_do_not_depend_on_the_cuts() -> None:
    rng = np.random.default_rng(0)
    documents = rng.standard_normal((1500, 48)).astype(np.float32)
    documents[::37] = documents[0]  # copies, in every block
    queries = rng.standard_normal((9, 48)).astype(np.float32)
    ids, names = [f"d{row}" for row in range(1500)], [f"q{row}" for row in range(9)]
    whole = exact_search(queries, names, documents, 60, document_ids=ids)
    reference = full_sort(queries, documents, ids, 60)
    for rows in (9, 63, 500):
        assert same(exact_search(queries, names, documents, 60, document_ids=ids, block_rows=rows), whole)
    for query_id, hits in whole.items():
        assert list(hits.values()) == pytest.approx(list(reference[query_id].values()), abs=1e-4)
        copies = [doc_id for doc_id in hits if int(doc_id[1:]) % 37 == 0]
        assert len({hits[doc_id] for doc_id in copies}) <= 1
        assert copies == sorted(copies, reverse=True)


@pytest.mark.parametrize("made", ["of one length", "of many lengths", "ever better", "of few values"])
def test_many_queries_find_what_the_complete_list_of_scores_has(made: str) -> None:
    """So many, and so wide, that most documents are ruled out by products in 8 bits, where the processor has them."""
    rng = np.random.default_rng(2)
    queries = rng.standard_normal((200, 96)).astype(np.float32)
    documents = rng.standard_normal((5000, 96)).astype(np.float32)
    if made == "of many lengths":
        queries *= 10.0 ** rng.integers(-3, 4, (200, 1))
        documents *= 10.0 ** rng.integers(-2, 3, (5000, 1))
        documents[rng.random(documents.shape) < 0.01] *= 50
        documents[11] = queries[3] = 0
    elif made == "ever better":
        queries += 1
        documents += np.linspace(0, 3, 5000, dtype=np.float32)[:, None]
    elif made == "of few values":  # sums are exact, ties are plenty, and 8 bits tell the values apart
        queries, documents = np.clip(queries.round(), -2, 2), np.clip(documents.round(), -1, 1)
    documents[::91] = documents[7]  # copies, in every block
    ids, names = [f"d{row}" for row in range(5000)], [f"q{row}" for row in range(200)]
    exclude = {"q5": ["d7", "d98", "d4000"], "q6": ids[:4990]}
    run = exact_search(queries, names, documents, 30, document_ids=ids, exclude=exclude, block_rows=1500)
    reference = full_sort(queries, documents, ids, 5000)
    for number, query_id in enumerate(names):
        left = {one: score for one, score in reference[query_id].items() if one not in exclude.get(query_id, ())}
        expected = dict(list(left.items())[:30])
        off = 1e-6 * float(np.linalg.norm(queries[number]) * np.linalg.norm(documents, axis=1).max())  # float32's
        assert list(run[query_id].values()) == pytest.approx(list(expected.values()), rel=1e-6, abs=off)
        assert all(abs(left[one] - score) <= off for one, score in run[query_id].items())
        copies = [one for one in run[query_id] if int(one[1:]) % 91 == 0]
        assert copies == sorted(copies, reverse=True)
        if made == "of few values":
            assert list(run[query_id]) == list(expected)


@pytest.mark.parametrize("count", [3, 150])
@pytest.mark.parametrize("passages", [1, 4])
def test_rounded_vectors_find_the_best_of_their_originals(tmp_path: Path, count: int, passages: int) -> None:
    rng = np.random.default_rng(3)
    near = rng.standard_normal((4, 80))  # many documents that 8 bits do not tell apart
    documents = np.repeat(near, 750, axis=0) + 0.02 * rng.standard_normal((3000, 80))
    documents = (documents / np.linalg.norm(documents, axis=1, keepdims=True)).astype(np.float32)
    documents[1234] = 0
    queries = (np.resize(near, (count, 80)) + 0.1 * rng.standard_normal((count, 80))).astype(np.float32)
    ids, names = [f"d{row // passages}" for row in range(3000)], [f"q{row}" for row in range(count)]
    for name, vectors in {"rounded": to_int8(documents), "half": documents.astype(np.float16)}.items():
        np.save(tmp_path / f"{name}.npy", vectors)
    rounded, half = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("rounded", "half"))
    how = {"document_ids": ids, "exclude": {"q1": ids[750:900]}, "block_rows": 1000}
    rows: dict[str, dict[str, int]] = {}
    for originals in (documents, half):
        expected = exact_search(queries, names, originals, 20, best_rows={}, **how)
        run = exact_search(queries, names, Rescored(rounded, originals), 20, best_rows=rows, **how)
        scores = queries @ originals.astype(np.float32).T
        for query, query_id in enumerate(names):
            assert list(run[query_id].values()) == pytest.approx(list(expected[query_id].values()), abs=1e-5)
            for one, score in run[query_id].items():
                row = int(one[1:]) * passages + rows[query_id][one]
                assert score == pytest.approx(scores[query, row], abs=1e-5)
    alone = exact_search(queries, names, rounded, 20, best_rows={}, **how)
    assert {q: set(hits) for q, hits in alone.items()} != {q: set(hits) for q, hits in expected.items()}
    directions = rounded / np.maximum(np.linalg.norm(rounded.astype(np.float32), axis=1, keepdims=True), 1)
    for query_id, hits in exact_search(queries, names, directions, 20, best_rows={}, **how).items():
        assert list(alone[query_id].values()) == pytest.approx(list(hits.values()), abs=1e-5)


def test_originals_of_other_vectors_are_told() -> None:
    documents = np.random.default_rng(4).standard_normal((50, 70)).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    ids = [f"d{row}" for row in range(50)]
    for originals in (documents[::-1], 2 * documents):
        with pytest.raises(ForewordError, match="is not its original, of unit length, rounded"):
            exact_search(documents[:2], ["a", "b"], Rescored(to_int8(documents), originals), 3, document_ids=ids)
    for rounded in (documents, to_int8(documents)[1:]):
        with pytest.raises(ForewordError, match="expected int8 ones of the same shape"):
            Rescored(rounded, documents)


def test_exclusion() -> None:
    vectors = np.eye(4, dtype=np.float32) + 0.5
    ids = ["a", "b", "c", "d"]
    run = exact_search(vectors, ids, vectors, 2, document_ids=ids, exclude_self=True, exclude={"a": ["d", "zz"]})
    assert list(run["a"]) == ["c", "b"]
    assert list(run["d"]) == ["c", "b"]
    alone = exact_search(vectors[:1], ["a"], vectors[:1], 5, document_ids=["a"], exclude_self=True)
    assert alone == {"a": {}}


def test_other_types_and_memory_maps(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    documents = rng.integers(-3, 4, (50, 4)).astype(np.float32)
    queries, ids = documents[:3], [f"d{row}" for row in range(50)]
    names = ["q0", "q1", "q2"]
    expected = full_sort(queries, documents, ids, 80)
    np.save(tmp_path / "v.npy", documents.astype(np.float16))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    for vectors in (mapped, documents.astype(np.float64), torch.from_numpy(documents).to(torch.bfloat16)):
        assert same(exact_search(queries, names, vectors, 80, document_ids=ids, block_rows=9), expected)
    assert same(exact_search(torch.from_numpy(queries).half(), names, [(ids, mapped)], 80), expected)


def test_no_more_than_a_tile_and_the_hits_is_held() -> None:
    """A corpus as a stream: at any time the ids of the best hits are known, not those of the corpus."""
    import tracemalloc

    def blocks():  # type: ignore[no-untyped-def]
        rng = np.random.default_rng(0)
        for block in range(60):
            yield [f"{block}-{row}-{'x' * 200}" for row in range(1000)], rng.standard_normal((1000, 8))

    tracemalloc.start()
    run = exact_search(np.ones((2, 8)), ["a", "b"], blocks(), 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(run["a"]) == 5
    assert peak < 4 * 2**20  # the ids alone would be over 15 MiB


def test_mistakes_are_told() -> None:
    good = np.ones((2, 3), dtype=np.float32)
    broken = np.array([[1, 2, 3], [1, np.nan, 3]], dtype=np.float32)
    ids = ["a", "b"]
    for message, arguments in {
        "the queries' width": (good, ids, [(ids, np.ones((2, 4)))]),
        r"shape \(2, 3\) for 1 ids": (good, ids, [(["a"], good)]),
        "vector of document 'b' holds NaN": (good, ids, [(ids, broken)]),
        "vector of query 'b' holds NaN": (broken, ids, [(ids, good)]),
        "query ids must differ": (good, ["a", "a"], [(ids, good)]),
        "document ids must differ": (good, ids, [(["a", "a"], good)]),
        r"shape \(2, 3\) for 3 ids": (good, ["a", "b", "c"], [(ids, good)]),
        "needs document_ids": (good, ids, good),
        "float32's range": (good * 1e30, ids, [(ids, good * 1e30)]),
    }.items():
        with pytest.raises(ForewordError, match=message):
            exact_search(*arguments)
    with pytest.raises(ForewordError, match="k=0"):
        exact_search(good, ids, [(ids, good)], 0)
    assert exact_search(good, ids, []) == {"a": {}, "b": {}}
    assert exact_search(good[:0], [], [(ids, good)]) == {}
