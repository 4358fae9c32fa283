"""Retrieve a collection's documents with an encoder, or with BM25.

Exact top-k inner-product search holds one tile of scores and the best hits so far, never the corpus. Where a processor
multiplies 8-bit numbers fast, most documents are ruled out by those, with a bound on what rounding changes; scores are
computed in float32 all the same. Shapes: Q queries, d width, N rows of one block of documents, q queries and n
documents of one tile, k hits.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Collection as AnyCollection
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foreword.collections.collection import Collection, Document, Query
from foreword.errors import ForewordError
from foreword.prompts.encoder import encode
from foreword.prompts.routes import OWN, Default, Route
from foreword.retrieval.bm25 import BM25
from foreword.retrieval.passages import Coverage, Cutter, Passage
from foreword.retrieval.runs import Run
from foreword.settings import EncodingPrecision

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


Block = tuple[Sequence[str], Any]
"""Document ids and their vectors [N, d]: a numpy array (memory-mapped or not), a torch tensor or a `Rescored`."""


@dataclass(frozen=True)
class Rescored:
    """Vectors in 8 bits and the same ones in full: all of the first are read, of the others what may be among the best.

    What is found are the best of `originals`, with their scores: it is known how far `rounded` are off.

    Attributes:
        rounded: [N, d], int8, as `to_int8` makes them; memory-mapped or not.
        originals: [N, d], of unit length, float32 or float16; memory-mapped or not.
    """

    rounded: Any
    originals: Any

    def __post_init__(self) -> None:
        if self.rounded.dtype not in (np.int8, torch.int8) or tuple(self.rounded.shape) != tuple(self.originals.shape):
            raise ForewordError(
                f"Vectors of {self.rounded.dtype}, {tuple(self.rounded.shape)}, for originals of "
                f"{tuple(self.originals.shape)}; expected int8 ones of the same shape."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, d)."""
        return tuple(self.rounded.shape)

    def __getitem__(self, rows: slice) -> Rescored:
        """Some of them."""
        return Rescored(self.rounded[rows], self.originals[rows])


def to_int8(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The directions of vectors [N, d] in 8 bits: each times what makes its greatest number 127, rounded.

    At d = 384 they are off by a hundredth of their length or so. The length is lost.
    """
    greatest = np.abs(vectors).max(axis=1, keepdims=True, initial=1e-30)
    scaled: np.ndarray[Any, Any] = np.rint(vectors.astype(np.float32) * (127 / greatest))
    return scaled.astype(np.int8)


# Matrix products take another path through the BLAS for a few rows than for many, and the two differ in the
# last bit. Tiles are filled up to a multiple of this, so that equal vectors get equal scores in every tile.
_ROWS_MULTIPLE = 64
_TILE_ROWS = 512
"""Documents whose scores for some queries are looked through at once: so few that a processor's cache holds them."""
_ROUNDING_PAYS = 128
"""Queries from which on products in 8 bits save more time than rounding the documents takes; where the processor has
instructions for them (VNNI): without, torch's are slower than float32's."""

BestRows = dict[str, dict[str, int]]
"""`query_id -> doc_id -> ` which of the document's rows scored best, from 0."""


def exact_search(
    query_vectors: Any,
    query_ids: Sequence[str],
    documents: Any,
    k: int = 100,
    *,
    document_ids: Sequence[str] | None = None,
    exclude: Mapping[str, AnyCollection[str]] | None = None,
    exclude_self: bool = False,
    best_rows: BestRows | None = None,
    device: str = "cpu",
    block_rows: int = 8192,
    memory_mib: float = 64.0,
) -> Run:
    """The k documents with the greatest inner product for every query, exactly.

    The result equals sorting the complete list of scores by score, then doc_id, both descending (the order
    of trec_eval). Scores are float32 sums of float32 products, whatever the type of the input. Documents of int8 are
    directions, as `to_int8` makes them: their vectors have unit length.

    Args:
        query_vectors: [Q, d], numpy or torch, any floating type.
        query_ids: Q ids.
        documents: `(ids, vectors [N, d])` blocks, gone through once, or one array (or `Rescored`) [N, d] with
            `document_ids`. A `numpy.memmap` is read a tile at a time, so it may be larger than memory.
        k: hits per query; a smaller corpus gives fewer.
        document_ids: N ids, when `documents` is one array.
        exclude: `query_id -> doc_ids` never returned for that query.
        exclude_self: never return a document whose id is the query's.
        best_rows: given, rows of one id that follow one another in a block are passages of one document: its score is
            the best of theirs, and which one that is, is written here.
        device: where torch multiplies, e.g. `cpu` or `cuda`.
        block_rows: the most documents taken at a time.
        memory_mib: bound on one tile of scores, in MiB; besides it, Q x k hits and a block's vectors are held.

    Returns:
        A run with every query, hits in rank order.

    Raises:
        ForewordError: widths or counts do not match, ids repeat, or a vector holds NaN or infinity.
    """
    if k < 1 or block_rows < 1 or memory_mib <= 0:
        raise ForewordError(f"k={k}, block_rows={block_rows}, memory_mib={memory_mib}; expected values above zero.")
    blocks: Iterable[Block] = documents if document_ids is None else [(document_ids, documents)]
    if document_ids is None and hasattr(documents, "shape"):
        raise ForewordError("One array of document vectors needs document_ids, an id for each row.")
    if document_ids is not None:
        k = max(1, min(k, len(document_ids)))
    with torch.inference_mode():
        queries = _rows(query_vectors, query_ids, "query").to(device)
        best = _Best(query_ids, k, device, best_rows)
        fast = queries.device.type == "cpu" and len(queries) >= _ROUNDING_PAYS and 64 <= queries.shape[1] < 2**17
        rounded = _Rounded.of(queries) if fast and torch.cpu._is_vnni_supported() else None
        hidden: dict[str, list[int]] = {}  # doc_id -> numbers of the queries that must not see it
        for number, query_id in enumerate(query_ids):
            for doc_id in {*(exclude or {}).get(query_id, ()), *([query_id] if exclude_self else [])}:
                hidden.setdefault(doc_id, []).append(number)
        for ids, vectors in _split(blocks, queries.shape[1], block_rows, whole=best_rows is not None):
            two = vectors if isinstance(vectors, Rescored) else None
            rows = _rows(vectors if two is None else two.rounded, ids, "document").to(device)
            if (vectors if two is None else two.rounded).dtype in (np.int8, torch.int8):
                lengths = rows.norm(dim=1, keepdim=True)
                rows /= lengths.clamp(min=1)
            originals = None if two is None else _Originals.of(two.originals, rows, lengths, ids)
            numbers = None if best_rows is None else _numbered(ids, device)
            if fill := -len(rows) % _ROWS_MULTIPLE:
                rows = torch.nn.functional.pad(rows, (0, 0, 0, fill))
            step = max(1, int(memory_mib * 2**20) // (4 * min(len(rows), _TILE_ROWS)))
            for first in range(0, len(queries), step):
                part = slice(first, first + step)
                near = None if rounded is None else rounded.part(part)
                best.add(queries[part], first, rows, ids, hidden, numbers, near, originals)
            best.end_block(len(ids))
        return best.run()


class _Best:
    """The best k hits of every query so far: scores [Q, k], numbers of documents [Q, k] and their ids."""

    def __init__(self, query_ids: Sequence[str], k: int, device: str, best_rows: BestRows | None) -> None:
        self.query_ids, self.k, self.best_rows = query_ids, k, best_rows
        self.scores = torch.full((len(query_ids), k), -torch.inf, device=device)
        self.numbers = torch.full((len(query_ids), k), -1, dtype=torch.int64, device=device)
        self.ids: dict[int, str] = {}  # of the documents in `numbers`, and of some that were
        self.firsts: dict[int, int] = {}  # where a document has several rows, the number of the first
        self.seen = 0  # documents in the blocks before this one

    def add(
        self,
        queries: Tensor,
        first: int,
        rows: Tensor,
        ids: Sequence[str],
        hidden: Mapping[str, Sequence[int]],
        numbers: Tensor | None,
        rounded: _Rounded | None,
        originals: _Originals | None,
    ) -> None:
        """Score documents [n, d] for queries [q, d], number `first` and on, and keep the best k of each.

        `numbers` [n]: of the document that a row is a passage of; None: each row is one. `rounded`: the queries, where
        most documents are ruled out by them. `originals`: what the documents are rounded from, where they are.
        """
        mine = slice(first, first + len(queries))
        n, worst = len(ids), self.scores[mine, -1:]
        unseen: dict[int, list[int]] = {}  # place of a document -> queries of this tile that must not see it
        for place, doc_id in enumerate(ids) if hidden else ():
            if numbered := [number - first for number in hidden.get(doc_id, ()) if mine.start <= number < mine.stop]:
                unseen[place] = numbered
        most = self.k if numbers is None else self.k * int(numbers.bincount().max())  # rows of k documents
        reaching, off = [], 0.0 if originals is None else originals.off
        for begin in range(0, len(rows), _TILE_ROWS):
            tile = rows[begin : begin + _TILE_ROWS]
            reaching.append(self._reaching(queries, rounded, tile, off, begin, n, worst, most, unseen))
        row, column, score = (torch.cat(parts) for parts in zip(*reaching, strict=True))  # each [r]
        order = row.argsort(stable=True)
        row, column, score = row[order], column[order], score[order]
        if rounded is not None or originals is not None:  # so far it is an estimate
            if originals is None:
                score = _products(queries, rows, row, column)
            else:
                wanted, place = column.unique(return_inverse=True)
                score = _products(queries, originals.at(wanted), row, place)
            kept = (score < worst[:, 0][row]).logical_not_().nonzero()[:, 0]
            row, column, score = row[kept], column[kept], score[kept]
        if bool((~torch.isfinite(score) & (score != -torch.inf)).any()):
            raise ForewordError("A score is beyond float32's range; scale the vectors down, e.g. normalise them.")
        if numbers is not None:
            best = _best_rows(row * n + numbers[column], score)
            row, column, score = row[best], column[best], score[best]
        if not len(row):
            return
        count = row.bincount(minlength=len(queries))
        after = self.k + torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
        found = self.scores.new_full((len(queries), self.k + int(count.max())), -torch.inf)
        named = self.numbers.new_full(found.shape, -1)
        found[:, : self.k], named[:, : self.k] = self.scores[mine], self.numbers[mine]
        found[row, after], named[row, after] = score, column + self.seen

        scores, columns = found.topk(self.k, dim=1)  # both [q, k]
        worst = scores[:, -1:]
        # topk takes any of several equal scores at the border; only such rows need to look at ids.
        torn = ((found >= worst).sum(1) > self.k) & (worst[:, 0] > -torch.inf)
        for number in torn.nonzero()[:, 0].tolist():
            columns[number] = self._untie(found[number], worst[number], named[number], ids)
            scores[number] = found[number, columns[number]]

        self.scores[mine] = scores
        kept = named.gather(1, columns).where(scores > -torch.inf, -1)  # the rest is hidden, or a place not yet taken
        self.numbers[mine] = kept
        fresh = torch.unique(kept[kept >= self.seen])
        self.ids.update((number, ids[number - self.seen]) for number in fresh.tolist())
        if numbers is not None:
            own = torch.searchsorted(numbers, numbers[fresh - self.seen]) + self.seen
            self.firsts.update(zip(fresh.tolist(), own.tolist(), strict=True))

    def _reaching(
        self,
        queries: Tensor,
        rounded: _Rounded | None,
        rows: Tensor,
        off: float,
        begin: int,
        n: int,
        worst: Tensor,
        most: int,
        unseen: Mapping[int, Sequence[int]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query, place and score (or an estimate) [r] of what may be among the best: few, after the first tiles.

        Args:
            queries: [q, d].
            rounded: the queries; None: the tile's scores are computed in float32.
            rows: [t, d], of the places `begin` and on, of which there are n.
            off: how far, at most, the rows are from what they stand for.
            worst: scores [q, 1] that are to be reached.
            most: of one query; where more reach it, and as many can be told.
            unseen: queries that must not see a place.
        """
        if rounded is None:
            tile, unit, slack = queries @ rows.T, torch.ones_like(worst), torch.zeros_like(worst)
        else:
            tile, unit, slack = rounded.scores(_Rounded.of(rows))
        if off:
            slack = slack + queries.norm(dim=1, keepdim=True) * off / unit
        for place, blind in unseen.items():
            if begin <= place < begin + len(rows):
                tile[blind, place - begin] = -np.inf
        tile[:, n - begin :] = -np.inf  # what only fills it up
        lowest = torch.finfo(tile.dtype).min
        least = (worst / unit - slack).clamp_(min=lowest)
        some = (tile.amax(1, keepdim=True) < least).logical_not_().nonzero()[:, 0]  # what is not a number reaches, too
        if len(some) < len(tile):
            tile, least = tile[some], least[some]
        row, column = _true((tile < least).logical_not_())
        if most < tile.shape[1] and len(row) > 4 * most * len(tile):
            least = (tile.topk(most, dim=1).values[:, -1:] - 2 * slack[some]).clamp_(min=lowest)
            row, column = _true((tile < least).logical_not_())
        return some[row], column + begin, tile[row, column]

    def _untie(self, found: Tensor, worst: Tensor, named: Tensor, ids: Sequence[str]) -> Tensor:
        """The k columns of one row when several score `worst`: the greatest doc_ids among those."""
        above = (found > worst).nonzero()[:, 0].tolist()
        numbers = named.tolist()

        def doc_id(column: int) -> str:
            number = numbers[column]
            return self.ids[number] if number < self.seen else ids[number - self.seen]

        equal = sorted((found == worst).nonzero()[:, 0].tolist(), key=doc_id, reverse=True)
        return torch.tensor(above + equal[: self.k - len(above)], device=found.device)

    def end_block(self, n: int) -> None:
        """End a block of n documents; now and then drop the ids of those that are no longer among anyone's best."""
        self.seen += n
        if len(self.ids) > 2 * self.numbers.numel():
            self.ids = {number: self.ids[number] for number in torch.unique(self.numbers).tolist() if number >= 0}
            self.firsts = {number: first for number, first in self.firsts.items() if number in self.ids}

    def run(self) -> Run:
        """The hits in rank order. Raises `ForewordError` when two of a query's hits have one id."""
        run: Run = {}
        for query_id, scores, numbers in zip(self.query_ids, self.scores.tolist(), self.numbers.tolist(), strict=True):
            hits = [
                (score, self.ids[number], number - self.firsts.get(number, number))
                for score, number in zip(scores, numbers, strict=True)
                if score > -np.inf
            ]
            run[query_id] = {doc_id: score for score, doc_id, _ in sorted(hits, reverse=True)}
            if len(run[query_id]) < len(hits):
                raise ForewordError(f"Two hits of query {query_id!r} have one doc_id; document ids must differ.")
            if self.best_rows is not None:
                self.best_rows[query_id] = {doc_id: row for _, doc_id, row in hits}
        return run


def _rows(vectors: Any, ids: Sequence[str], what: str) -> Tensor:
    """`vectors` as a float32 tensor [rows, d] of its own; checks the shape, the count and the values."""
    if isinstance(vectors, torch.Tensor):
        rows = vectors.to(torch.float32)
    else:
        rows = torch.from_numpy(np.array(vectors, dtype=np.float32))  # reads a memory map, widens float16
        _let_go(vectors)
    if rows.ndim != 2 or len(rows) != len(ids):
        raise ForewordError(
            f"The {what} vectors have the shape {tuple(rows.shape)} for {len(ids)} ids; expected [{len(ids)}, d]."
        )
    if rows.numel() and not bool(torch.isfinite(torch.stack(rows.aminmax())).all()):
        broken = ids[int((~torch.isfinite(rows).all(dim=1)).nonzero()[0])]
        raise ForewordError(f"The vector of {what} {broken!r} holds NaN or infinity; encode it again.")
    if what == "query" and len(set(ids)) < len(ids):
        raise ForewordError("Two queries have one query_id; query ids must differ.")
    return rows


def _let_go(vectors: Any) -> None:
    """Of a mapped file: what was read of it would count as this process's memory."""
    mapped = getattr(vectors, "_mmap", None)
    if mapped is not None and vectors.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class _Rounded:
    """Vectors in 8 bits: `values` [n, d], times `scales` [n, 1], and what was lost.

    `errors` [n, 1] are the lengths of the differences, `lengths` [n, 1] those of the vectors themselves.
    """

    values: Tensor
    scales: Tensor
    errors: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> _Rounded:
        """Of float32 vectors, each by its greatest value."""
        scales = (rows.abs().amax(1, keepdim=True) / 127).clamp_(min=1e-30)
        scaled = (rows / scales).round_()
        values = scaled.to(torch.int8)
        errors = scaled.mul_(scales).sub_(rows).norm(dim=1, keepdim=True)
        return cls(values, scales, errors, rows.norm(dim=1, keepdim=True))

    def part(self, rows: slice) -> _Rounded:
        """Some of the vectors."""
        return _Rounded(self.values[rows], self.scales[rows], self.errors[rows], self.lengths[rows])

    def scores(self, documents: _Rounded) -> tuple[Tensor, Tensor, Tensor]:
        """Estimates of the products of these queries and n documents [q, n], their unit and what they are off at most.

        The two are [q, 1]: the product is within (estimate - slack) unit and (estimate + slack) unit, as
        |q d - q' d'| <= |q| |d - d'| + |q - q'| |d'|, and so is its sum in float32.
        """
        error, length = documents.errors.max(), documents.lengths.max()
        summing = self.values.shape[1] * 2**-22 * self.lengths * length  # several times what sums in float32 are off
        lost = self.lengths * error + self.errors * (length + error) + summing
        return torch._int_mm(self.values, documents.values.T) * documents.scales.T, self.scales, lost / self.scales


@dataclass(frozen=True)
class _Originals:
    """What the `rows` [n, d] of a block are rounded from: `off` at most from them."""

    vectors: Any
    rows: Tensor
    ids: Sequence[str]
    off: float

    @classmethod
    def of(cls, vectors: Any, rows: Tensor, lengths: Tensor, ids: Sequence[str]) -> _Originals:
        """Those of int8 vectors of `lengths` [n, 1], of which `rows` are the directions.

        Rounding x/s, |x| = 1, leaves |x/s - x'| <= sqrt(d)/2 =: h. So s <= 1 / (|x'| - h), and the angle between x and
        x' has a sine of h s at most.
        """
        half = rows.shape[1] ** 0.5 / 2
        sine = half / (lengths[lengths > 0] - half).clamp(min=half)
        off = (sine / (1 - sine**2).sqrt()).clamp(max=2)
        return cls(vectors, rows, ids, float(off.max()) + 2**-10 if len(off) else 0.0)  # half precision, sums

    def at(self, places: Tensor) -> Tensor:
        """The vectors [m, d] at places [m]. Raises `ForewordError` where they are not what was rounded."""
        numbers = places.tolist()
        named = [self.ids[number] for number in numbers]
        found = _rows(self.vectors[numbers], named, "document").to(self.rows.device)
        _let_go(self.vectors)
        other = (found - self.rows[places]).norm(dim=1) > self.off
        if bool(other.any()):
            raise ForewordError(
                f"The int8 vector of document {named[int(other.nonzero()[0])]!r} is not its original, of unit length, "
                "rounded; make both of one array."
            )
        return found


@cache
def _sparse() -> None:
    """Let the first sparse tensor of a process say in vain that there may be better ones."""
    with warnings.catch_warnings(action="ignore"):
        torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int64), [], [], (0, 1))


def _products(queries: Tensor, rows: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The products [r] of queries and rows at `row` [r], ascending, and `column` [r]; the same in any company."""
    _sparse()
    ends = row.bincount(minlength=len(queries)).cumsum(0)
    places = torch.cat((ends.new_zeros(1), ends)), column
    empty = torch.sparse_csr_tensor(*places, queries.new_zeros(len(row)), (len(queries), len(rows)))
    found: Tensor = torch.sparse.sampled_addmm(empty, queries, rows.T, beta=0.0)
    return found.values()


def _numbered(ids: Sequence[str], device: str) -> Tensor | None:
    """The number of each row's document [n], from 0, where some have several rows."""
    fresh = [place == 0 or ids[place - 1] != doc_id for place, doc_id in enumerate(ids)]
    return None if all(fresh) else torch.tensor(fresh, device=device).cumsum(0) - 1


def _true(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns where `mask` [q, a multiple of 8] holds, in order: eight at a time, as few do."""
    row, eight = mask.view(torch.int64).nonzero(as_tuple=True)
    group, column = mask.view(len(mask), mask.shape[1] // 8, 8)[row, eight].nonzero(as_tuple=True)
    return row[group], eight[group] * 8 + column


def _best_rows(documents: Tensor, scores: Tensor) -> Tensor:
    """Where the greatest score (of equal ones the first) of each document is [m]; `documents` [r] ascend."""
    own = documents.unique_consecutive(return_inverse=True)[1]
    best = scores.new_full((int(own[-1]) + 1 if len(own) else 0,), -torch.inf)
    best.scatter_reduce_(0, own, scores, "amax")
    equal = (scores == best[own]).nonzero()[:, 0]
    fresh = torch.ones(len(equal), dtype=torch.bool, device=equal.device)
    fresh[1:] = own[equal[1:]] != own[equal[:-1]]
    return equal[fresh]


def _split(blocks: Iterable[Block], width: int, most: int, *, whole: bool) -> Iterator[Block]:
    """The blocks in pieces of at most `most` rows; raises when a block's width is not `width`.

    The first are small: they give the scores that documents after them have to reach.

    `whole`: rows of one id that follow one another stay together, however many they are.
    """
    size = min(_TILE_ROWS, most)
    for ids, vectors in blocks:
        shape = tuple(vectors.shape)
        if len(shape) != 2 or shape[1] != width or shape[0] != len(ids):
            raise ForewordError(
                f"A block of document vectors has the shape {shape} for {len(ids)} ids; expected "
                f"[{len(ids)}, {width}], the queries' width. Encode both with one encoder."
            )
        first = 0
        while first < len(ids):
            last = min(first + size, len(ids))
            while whole and last < len(ids) and ids[last] == ids[last - 1]:
                last += 1
            yield ids[first:last], vectors[first:last]
            first, size = last, min(2 * size, most)


Vectors = tuple[Sequence[str], np.ndarray[Any, Any]]
"""Document ids and vectors (N, d'); rows of one id that follow one another are a document's passages."""

BLOCK_DOCUMENTS = 20_000
"""Vectors that are made before they are searched and let go: these (30 MB at width 384) bound the memory."""


def dense_run(
    encoder: SentenceTransformer,
    collection: Collection,
    queries: Sequence[Query],
    *,
    route: Route | Default = OWN,
    documents: Iterable[Document] | None = None,
    vectors: Vectors | None = None,
    k: int = 100,
    query_length: int | None = None,
    document_length: int | None = None,
    passages: bool | None = None,
    coverage: Coverage | None = None,
    best_rows: BestRows | None = None,
    precision: EncodingPrecision = "float32",
    batch_size: int = 64,
    quiet: bool = False,
) -> Run:
    """The k nearest documents of each query, by exact search in memory bounded by blocks of documents.

    Args:
        encoder: from `foreword.load_encoder`.
        collection: its documents are searched.
        queries: what to search for.
        route: the prompt or mixture that encodes queries and documents (where it has a side for them); None: base;
            OWN: what the encoder is routed to.
        documents: what is searched in place of the collection's own; None: these.
        vectors: ids and vectors (N, d') of the documents, when they are embedded already.
        k: hits a query.
        query_length: tokens a query is cut to; None: the encoder's limit.
        document_length: tokens of a document, or of a passage; None: the encoder's limit.
        passages: a longer document is searched in passages, and scores as its best one does; False: by its beginning;
            None: in passages unless a `document_length` is given.
        coverage: counts what of the documents is embedded.
        best_rows: which passage it is, by query and document, is written here; see `exact_search`.
        precision: of the forward passes.
        batch_size: texts in one forward pass.
        quiet: no progress bars.
    """
    kind: dict[str, Any] = {"precision": precision, "batch_size": batch_size, "quiet": quiet}
    texts = [query.text for query in queries]
    query_vectors = encode(encoder, texts, "query", route=route, max_length=query_length, what="queries", **kind)
    blocks: Iterable[Vectors] = [vectors] if vectors is not None else []
    if vectors is None:
        kind |= {"passages": passages, "coverage": coverage}
        blocks = document_blocks(encoder, collection, documents, route=route, max_length=document_length, **kind)
    query_ids = [query.query_id for query in queries]
    rows = {} if best_rows is None else best_rows
    how: dict[str, Any] = {"exclude_self": collection.exclude_self, "device": str(encoder.device)}
    return exact_search(query_vectors, query_ids, blocks, k, best_rows=rows, **how)


def document_blocks(
    encoder: SentenceTransformer,
    collection: Collection,
    documents: Iterable[Document] | None = None,
    *,
    size: int = BLOCK_DOCUMENTS,
    passages: bool | None = None,
    coverage: Coverage | None = None,
    max_length: int | None = None,
    **how: Any,
) -> Iterator[Vectors]:
    """The collection's documents, or those given, embedded `size` at a time, long ones in passages.

    `passages` and `coverage` are as in `dense_run`, `max_length` is its `document_length`; `how` goes to `encode`.
    """
    rest = iter(collection.documents() if documents is None else documents)
    how |= {"max_length": max_length, "what": f"documents of {collection.id}"}
    for block in Cutter(encoder, max_length, passages=passages, coverage=coverage).blocks(rest, size):
        vectors = encode(encoder, [passage.content for passage in block], "document", **how)
        yield [passage.doc_id for passage in block], vectors


def bm25_run(collection: Collection, queries: Sequence[Query], *, k: int = 100, shares: bool = False) -> Run:
    """The k best documents of each query by BM25; for `shares` see `BM25.search`."""
    return BM25(collection.documents()).search(queries, k, exclude_self=collection.exclude_self, shares=shares)


@dataclass(frozen=True)
class Hit:
    """One document that was found.

    Attributes:
        score: the inner product (or BM25's score), higher is better.
        passage: the piece of the document that scored; None: all of it.
    """

    doc_id: str
    score: float
    document: Document
    passage: Passage | None = None


def search(
    encoder: SentenceTransformer | None,
    collection: Collection,
    queries: Sequence[str | Query],
    *,
    k: int = 10,
    **how: Any,
) -> list[list[Hit]]:
    """The k best documents for each of the user's queries, best first.

    Args:
        encoder: with the prompt it is routed to; None: BM25.
        collection: what to search.
        queries: texts, or queries with names of their own.
        k: hits a query.
        how: further arguments of `dense_run`.
    """
    asked = [q if isinstance(q, Query) else Query(f"q{number}", q) for number, q in enumerate(queries)]
    if encoder is None:
        run = bm25_run(collection, asked, k=k)
    else:
        how = {"best_rows": {}, **how}
        run = dense_run(encoder, collection, asked, k=k, **how)
    wanted = {doc_id for hits in run.values() for doc_id in hits}
    found = {doc.doc_id: doc for doc in collection.documents() if doc.doc_id in wanted}
    pieces: Mapping[str, Sequence[Passage]] = {}
    if encoder is not None and how.get("vectors") is None:  # the few that were found are cut again
        cut = Cutter(encoder, how.get("document_length"), passages=how.get("passages"))
        pieces = dict(zip(found, cut(list(found.values())), strict=True))
    return as_hits(asked, run, found, how.get("best_rows", {}), pieces)


def as_hits(
    queries: Sequence[Query],
    run: Run,
    documents: Mapping[str, Document],
    best_rows: BestRows,
    pieces: Mapping[str, Sequence[Passage]],
) -> list[list[Hit]]:
    """The hits of a run by query, each with its document and the passage that scored, where that is not all of it.

    Args:
        queries: whose hits are given, in their order.
        run: what was found.
        documents: by id.
        best_rows: see `exact_search`.
        pieces: the documents' passages by id, where these were searched.
    """

    def hit(query_id: str, doc_id: str, score: float) -> Hit:
        own, row = pieces.get(doc_id, ()), best_rows.get(query_id, {}).get(doc_id)  # none that its words alone found
        return Hit(doc_id, score, documents[doc_id], None if row is None or len(own) < 2 else own[row])

    return [[hit(query.query_id, *found) for found in run.get(query.query_id, {}).items()] for query in queries]
