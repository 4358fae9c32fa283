"""How much an index holds, and how fast, on this machine: `python benchmarks/index.py --documents 100000`.

Made-up texts and random unit vectors (the hardest to tell apart), so that it says what Milvus does and nothing of a
model. Filtered searches are compared with all inner products, in float64 by numpy.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foreword.collections.collection import Document
from foreword.indexing.index import Index, IndexHit
from foreword.indexing.write import BASE, Stamp

GROUPS = 4
"""Values of `metadata["group"]`, by which a second search is filtered besides its domain."""

Vectors = np.ndarray[Any, np.dtype[np.float32]]


def measure(
    uri: str,
    *,
    documents: int = 100_000,
    domains: int = 5,
    dimension: int = 384,
    words: int = 60,
    queries: int = 100,
    k: int = 10,
    seed: int = 0,
    token: str | None = None,
    collection: str = "foreword_scale",
    index_type: str | None = None,
) -> dict[str, Any]:
    """Fill an index, search it, open it again, and remove it from a server (a file stays).

    Args:
        uri: a Milvus Lite file that does not exist yet, or a server.
        documents: N in all.
        domains: that they are shared out to in turn.
        dimension: d' of the vectors.
        words: of each text, out of 20,000 with Zipf's frequencies.
        queries: of each kind of search.
        k: hits a query.
        seed: of texts, vectors and queries.
        token: of a server.
        collection: the Milvus collection's name.
        index_type: see `Index.open`.

    Returns:
        Figures as JSON values: `recall` is the mean share of exact search's k that were found.
    """
    vectors = _unit(np.random.default_rng(seed), documents, dimension)
    asked = _unit(np.random.default_rng(seed + 1), queries, dimension)
    figures: dict[str, Any] = {"documents": documents, "domains": domains, "dimension": dimension, "k": k}
    names = [f"domain {number}" for number in range(domains)]
    backbone = {"name": "random vectors", "fingerprint": f"random:{seed}", "similarity": "cosine"}
    stamp = Stamp(backbone, BASE, None, dimension, None)

    def embed(texts: Sequence[str]) -> Vectors:
        return vectors[[int(text.partition(" ")[0]) for text in texts]]

    with Index.open(uri, collection, token, create=True, index_type=index_type) as index:
        begun = time.perf_counter()
        for number, name in enumerate(names):
            index.write(stamp, embed, name, _documents(range(number, documents, domains), words, seed))
        seconds = time.perf_counter() - begun
        figures |= {"insert_seconds": round(seconds, 1), "documents_per_second": round(documents / seconds)}
        figures["bytes"] = index.stats()["bytes"]
    begun = time.perf_counter()
    with Index.open(uri, collection, token) as index:
        figures["open_seconds"] = round(time.perf_counter() - begun, 2)
        figures |= _searches(index, names, vectors, asked, k)
        texts = [next(iter(_documents([number], 3, seed + 2))).text.partition(" ")[2] for number in range(queries)]
        for kind in ("first", "again"):  # the first query of a domain makes Milvus Lite's inverted index
            took = []
            for query, text in enumerate(texts if kind == "again" else texts[:domains]):
                took.append(_timed(index.search_words, [text], names[query % domains], k)[0])
            figures[f"milliseconds, bm25 {kind}"] = _percentiles(took)
        if index.stats()["bytes"] is None:
            for name in names:
                index.delete(name)
    return figures


def _searches(index: Index, names: Sequence[str], vectors: Vectors, asked: Vectors, k: int) -> dict[str, Any]:
    """Recall and times of searches filtered by the domain, and by a group within it."""
    numbers = np.arange(len(vectors))
    figures: dict[str, Any] = {}
    for kind in ("domain", "domain and metadata"):
        found, took = [], []
        for query, vector in enumerate(asked):
            place = query % len(names)
            group = query % GROUPS if kind != "domain" else None
            where = None if group is None else f'metadata["group"] == "{group}"'
            seconds, answer = _timed(index.search_vectors, [vector], names[place], k, where)
            took.append(seconds)
            inside = numbers % len(names) == place
            if group is not None:
                inside &= numbers // len(names) % GROUPS == group
            found.append(recall(answer[0], vectors, numbers[inside], vector, k))
        figures |= {f"recall, {kind}": float(np.mean(found)), f"milliseconds, {kind}": _percentiles(took)}
    return figures


def recall(hits: Sequence[IndexHit], vectors: Vectors, inside: Any, query: Any, k: int) -> float:
    """The share of the k best that were found; documents that score as the k-th does, to 1e-6, are as good.

    Args:
        hits: with the documents' numbers as ids.
        vectors: (N, d') of all documents.
        inside: the numbers of those that the filter lets through.
        query: (d',).
        k: how many.
    """
    scores = vectors[inside].astype(np.float64) @ np.asarray(query, dtype=np.float64)
    wanted = min(k, len(inside))
    border = np.partition(scores, -wanted)[-wanted] - 1e-6
    good = {int(number) for number in inside[scores >= border]}
    return len({int(hit.doc_id) for hit in hits} & good) / wanted


def _documents(numbers: Sequence[int], words: int, seed: int) -> Iterator[Document]:
    vocabulary = [f"w{number}" for number in range(20_000)]
    weights = list(np.cumsum(1.0 / np.arange(1, len(vocabulary) + 1)))
    for place, number in enumerate(numbers):
        chosen = random.Random(f"{seed} {number}").choices(vocabulary, cum_weights=weights, k=words)
        yield Document(str(number), f"{number} {' '.join(chosen)}", "", {"group": str(place % GROUPS)})


def _unit(generator: np.random.Generator, count: int, dimension: int) -> Vectors:
    made = generator.standard_normal((count, dimension), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def _timed(run: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    begun = time.perf_counter()
    answer = run(*arguments)
    return time.perf_counter() - begun, answer


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{share}": round(1000 * float(np.percentile(seconds, share)), 1) for share in (50, 95)}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uri", help="(default: a file that is removed afterwards)")
    parser.add_argument("--token", help="of a server")
    parser.add_argument("--index-type", help="as Milvus names it")
    for name, value in (("documents", 100_000), ("domains", 5), ("dimension", 384), ("queries", 100), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    options = vars(parser.parse_args())
    uri = options.pop("uri")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(uri or str(Path(folder) / "scale.db"), **options), indent=2))


if __name__ == "__main__":
    main()
