"""`--engine ray`: a collection's documents, part by part, by processes here or on a cluster, through Ray Data.

A part is a file of the collection, or a range of its documents. Each process loads a model of its own, reads its parts
itself and writes what it makes, so that nothing large goes through the command's own. Doing a part twice is doing it
once: Ray gives the part of a process that was lost to another one, and the command, run again, finds what is there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli import grammar as cli
from foreword.errors import DataError, ForewordError
from foreword.terminal import track

if TYPE_CHECKING:
    import numpy as np

    from foreword.collections.collection import Collection
    from foreword.collections.registry import Part

    Digests = np.ndarray[Any, np.dtype[np.uint64]]

Work = Callable[[Any], Mapping[str, Any]]
"""Does a piece of work, and says what it did."""

RETRIES = 3
"""A piece whose process is lost more often is given up: it may be what kills them."""


def engine_options(parser: cli.Parser) -> None:
    """Who does the work."""
    group = parser.add_argument_group("many processes, or machines")
    group.add_argument(
        "--engine",
        choices=["ray"],
        help="distribute the work with Ray Data, on this machine or the cluster at RAY_ADDRESS (foreword[scale]); to "
        "resume after an interruption, run the same command again",
    )
    group.add_argument(
        "--workers", type=int, metavar="N", help="number of processes (default: one per GPU, else one per core)"
    )


def settings_of(options: cli.Options) -> dict[str, Any]:
    """The options as other processes can be sent them: values alone, paths from the root."""
    values = {name: value for name, value in vars(options).items() if name not in ("parser", "run")}
    for name in ("collection", "backbone", "prompt", "data", "output"):
        value = values.get(name)
        if isinstance(value, Path):
            values[name] = value.resolve()
        elif isinstance(value, str):
            family, colon, path = value.rpartition(":")
            if Path(path).exists() and not (colon and values["data"]):  # `folder:` begins at `data`
                values[name] = f"{family}{colon}{Path(path).resolve()}"
    return values


def shared_out(
    options: cli.Options,
    make: Callable[..., Work],
    settings: Mapping[str, Any],
    name: Callable[[int, int], Any],
    *,
    one_machine: bool = False,
) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Do each part of a collection in some process: what `name` gave it (its number, of how many), and what was said.

    Args:
        options: with the collection, and how many workers.
        make: a module's function, called once in each process with `settings`: what does `(part, name)` there.
        settings: that can be pickled.
        name: see above.
        one_machine: the work can be done on this one alone.

    Raises:
        DataError: the work's own errors; or two documents have one id, found when all parts are done.
    """
    from foreword.collections.registry import parts_of

    workers, gpus = _begin(options.workers, one_machine)
    parts = parts_of(options.collection, options.data)
    if not parts:
        raise DataError(f"{options.collection} has no documents, so there is nothing to share out")
    names = [name(number, len(parts)) for number in range(len(parts))]
    ids: dict[int, Digests] = {}
    pieces = list(zip(parts, names, strict=True))
    results = _on_ray(make, settings, pieces, min(workers, len(parts)), gpus)
    for number, said in track(results, f"parts of {options.collection}", len(parts), quiet=options.json):
        ids[number] = said["ids"]
        yield names[number], said
    _check_ids(options, [(part, ids[number]) for number, part in enumerate(parts)])


def documents_of(options: cli.Options, part: Part) -> tuple[Collection, Digests]:
    """A part as a collection, and the digests of its ids."""
    collection = cli.load_collection(options, options.collection, part=part)
    return collection, _digests(document.doc_id for document in collection.documents())


def _digests(ids: Iterable[str]) -> Digests:
    """64 bits of each id, so that those of 10^9 documents are compared in 8 GB."""
    import numpy as np

    raw = b"".join(hashlib.blake2b(one.encode("utf-8", "surrogatepass"), digest_size=8).digest() for one in ids)
    return np.frombuffer(raw, np.uint64)


def _check_ids(options: cli.Options, parts: Sequence[tuple[Part, Digests]]) -> None:
    """Raise `DataError` where an id stands in two parts; equal digests alone are no fault."""
    import numpy as np

    values, counts = np.unique(np.concatenate([ids for _, ids in parts]), return_counts=True)
    twice = values[counts > 1]
    places: dict[str, Part] = {}
    for part, ids in parts if len(twice) else ():
        if not np.isin(ids, twice).any():
            continue
        for document in cli.load_collection(options, options.collection, part=part).documents():
            if np.isin(_digests([document.doc_id]), twice).any() and document.doc_id in places:
                where = f"in {places[document.doc_id]} and {part}"
                raise DataError(f"two documents have the id {document.doc_id!r}, {where}; ids must differ")
            places[document.doc_id] = part


def _begin(workers: int | None, one_machine: bool) -> tuple[int, float]:
    """Join the cluster of RAY_ADDRESS, or make one of this machine; gives the number of workers, and GPUs of each."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what concerns the user is raised
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ForewordError(f"--engine ray needs Ray Data ({error}): pip install 'foreword[scale]'") from error
    if workers is not None and workers < 1:
        raise ForewordError(f"--workers is {workers}; expected 1 or more")
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises it as it is where a part of it does not come up in time
            where = os.environ.get("RAY_ADDRESS")
            at = f"the cluster of RAY_ADDRESS={where} cannot be joined" if where else "Ray cannot be started here"
            raise ForewordError(f"{at}: {' '.join(str(error).split())[:300]}") from error
    if one_machine and sum(node["Alive"] for node in ray.nodes()) > 1:
        raise ForewordError(
            "a file is written on one machine, and the cluster has several; take a Milvus server (http://)"
        )
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0))
    return workers or gpus or int(there.get("CPU", 1)), 1.0 if gpus and (workers or gpus) <= gpus else 0.0


def _on_ray(
    make: Callable[..., Work], settings: Mapping[str, Any], pieces: Sequence[Any], workers: int, gpus: float
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The number of each piece and what was said of it, as they are done."""
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"work": pickle.dumps((number, make, settings, piece))} for number, piece in enumerate(pieces)]
    how: dict[str, Any] = {"num_gpus": gpus} if gpus else {"num_cpus": 1}
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        max_restarts=-1,
        max_task_retries=RETRIES,
        **how,
    )
    try:
        with redirect_stdout(sys.stderr):  # where Ray says what process it lost
            for row in done.iter_rows():
                number, said, error = pickle.loads(row["said"])
                if error is not None:
                    raise DataError(error)
                yield number, said
    except ray.exceptions.RayError as error:
        said = " ".join(str(error).split())[:300]
        raise ForewordError(
            f"a process was lost {RETRIES + 1} times on one part, or the cluster was ({said}); if memory is what they "
            "lack, give fewer --workers or a smaller --batch-size. Run the same command again to continue"
        ) from error


class Worker:
    """What a process of Ray's keeps: the function that does the work, made of the first piece."""

    def __init__(self) -> None:
        """Make nothing yet, so that what goes wrong is said of a piece."""
        self._do: Work | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        """Do a batch of one piece."""
        number, make, settings, piece = pickle.loads(batch["work"][0])
        said, error = None, None
        try:
            self._do = self._do or make(**settings)
            said = self._do(piece)
        except ForewordError as wrong:
            error = str(wrong)
        except OSError as wrong:
            error = cli.explained(wrong)
        return {"said": [pickle.dumps((number, said, error))]}
