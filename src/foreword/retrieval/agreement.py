"""Which pseudo-queries find their own documents: a filter for training pairs that nobody judged.

Round-trip consistency: a made-up query is kept when a retriever brings its document back (Alberti et al., "Synthetic
QA Corpora Generation with Roundtrip Consistency", 2019, arXiv 1906.05416, for questions and answers; Dai et al.,
"Promptagator: Few-shot Dense Retrieval From 8 Examples", 2022, arXiv 2209.11755, for retrieval).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from foreword.collections.records import Document, Query, TrainingPair
from foreword.common.errors import DataError, ForewordError, UnknownNameError
from foreword.retrieval.bm25 import BM25
from foreword.retrieval.runs import Run, ranked

Need = Literal["any", "all"]


def agreeing(
    pairs: Sequence[TrainingPair],
    runs: Sequence[Run],
    k: int = 10,
    need: Need = "any",
    *,
    drop_easy: bool = False,
) -> tuple[list[TrainingPair], dict[str, int]]:
    """The pairs whose document is among the best `k` of its query in the runs, in their order, and what became of all.

    A query that a run has no hits for is one whose document it did not find.

    Args:
        pairs: (pseudo-)queries with a document each.
        runs: one or more searches of these queries, by `bm25_agreement` or by a dense system (see
            `paired_documents`), each at least `k` deep.
        k: 1 or more.
        need: `any` run that finds the document is enough, or `all` must.
        drop_easy: leave out pairs whose document every run ranks first: there is little left to learn from them.

    Returns:
        The pairs kept, and counts: `pairs`, `kept`, `dropped_not_found`, `dropped_easy`, which add up; and for each
        run, numbered from 1, `missed_by_run_1`: pairs whose document it did not find, dropped or not.

    Raises:
        ForewordError: no runs, `k` below 1, or a run that has none of the queries.
        UnknownNameError: an unknown `need`.
    """
    _check(pairs, runs, k, need)
    counts = {"pairs": len(pairs), "kept": 0, "dropped_not_found": 0, "dropped_easy": 0}
    counts |= {f"missed_by_run_{number}": 0 for number in range(1, len(runs) + 1)}
    enough = any if need == "any" else all
    kept = []
    for pair in pairs:
        ranks = [_rank(run, pair, k) for run in runs]
        for number, rank in enumerate(ranks, start=1):
            counts[f"missed_by_run_{number}"] += rank is None
        if not enough(rank is not None for rank in ranks):
            counts["dropped_not_found"] += 1
        elif drop_easy and all(rank == 1 for rank in ranks):
            counts["dropped_easy"] += 1
        else:
            kept.append(pair)
    counts["kept"] = len(kept)
    return kept, counts


def bm25_agreement(pairs: Sequence[TrainingPair], documents: Iterable[Document], k: int = 10) -> Run:
    """BM25's best `k` documents of every pair's query, for `agreeing`; each pair's document as it is in the pair.

    It finds nearly every document by its own key phrases, which are words of it chosen as BM25 weighs them: for these,
    take a dense run, or `drop_easy` with both.

    Args:
        pairs: with a document each.
        documents: the corpus, whole: what it holds beside the pairs' documents makes the search as hard as it is.
        k: hits a query.

    Raises:
        ForewordError: there are no documents, or two pairs give one query_id or doc_id different texts.
        DataError: a pair's document is not among `documents`.
    """
    return BM25(paired_documents(pairs, documents)).search(queries_of(pairs), k)


def queries_of(pairs: Iterable[TrainingPair]) -> list[Query]:
    """The pairs' queries, each once.

    Raises:
        ForewordError: two pairs give one query_id different texts.
    """
    return [Query(*item) for item in _texts(((pair.query_id, pair.query) for pair in pairs), "query_id").items()]


def paired_documents(pairs: Iterable[TrainingPair], documents: Iterable[Document]) -> Iterator[Document]:
    """The corpus, in its order, with each document that has a pair as it is in the pair: without its pseudo-query.

    Otherwise a sentence would be looked for in the very text that holds it, and always be found. For a dense run:
    `dense_run(encoder, collection, queries_of(pairs), documents=paired_documents(pairs, collection.documents()))`.

    Raises:
        ForewordError: two pairs give one doc_id different texts.
        DataError: at the end, a pair's document was not among `documents`.
    """
    left = _texts(((pair.doc_id, pair.document) for pair in pairs), "doc_id")
    return _replaced(left, documents)


def _replaced(left: dict[str, str], documents: Iterable[Document]) -> Iterator[Document]:
    for document in documents:
        text = left.pop(document.doc_id, None)
        yield document if text is None else Document(document.doc_id, text, "", document.metadata)
    if left:
        raise DataError(
            f"{len(left)} of the pairs' documents are not in the corpus, among them {next(iter(left))!r}; "
            "search the documents that the pairs were made from"
        )


def _texts(items: Iterable[tuple[str, str]], what: str) -> dict[str, str]:
    """`id -> text`, in order; one id has one text."""
    texts: dict[str, str] = {}
    for name, text in items:
        if texts.setdefault(name, text) != text:
            raise ForewordError(
                f"two pairs have the {what} {name!r} and different texts; filter the pairs of one recipe at a time"
            )
    return texts


def _rank(run: Run, pair: TrainingPair, k: int) -> int | None:
    """The place of the pair's document in the ranking, from 1; None: not among the best `k`."""
    best = [doc_id for doc_id, _ in ranked(run.get(pair.query_id, {}), k)]
    return best.index(pair.doc_id) + 1 if pair.doc_id in best else None


def _check(pairs: Sequence[TrainingPair], runs: Sequence[Run], k: int, need: str) -> None:
    if need not in ("any", "all"):
        raise UnknownNameError(f"need is {need!r}; expected any (one run is enough) or all")
    if not runs or k < 1:
        raise ForewordError(f"got {len(runs)} runs and k={k}; expected a run or more, and the best 1 or more of each")
    for number, run in enumerate(runs, start=1):
        if pairs and not any(pair.query_id in run for pair in pairs):
            raise ForewordError(
                f"run {number} has none of the {len(pairs)} queries, such as {pairs[0].query_id!r}; "
                "make it with queries_of(pairs)"
            )
