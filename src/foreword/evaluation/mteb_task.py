"""Run tasks of mteb by name, and keep their results as mteb does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.common.errors import DataError, UnknownNameError
from foreword.evaluation.mteb_model import MtebModel, require_mteb

if TYPE_CHECKING:
    from mteb import AbsTask
    from mteb.results import TaskResult


def find_tasks(names: Sequence[str], split: str | None = None) -> list[AbsTask]:
    """Tasks by mteb's names.

    Args:
        names: e.g. `SciFact`, `NFCorpus`, `STS12`.
        split: instead of the splits that mteb evaluates.

    Raises:
        UnknownNameError: mteb has no such task; the message names the nearest.
        DataError: a task has not the split.
        ForewordError: mteb is not installed.
    """
    require_mteb()
    import mteb

    tasks = []
    for name in names:
        try:
            task = mteb.get_task(name)
        except KeyError as error:
            said = str(error.args[0]).removeprefix("KeyError: ")
            raise UnknownNameError(f"mteb has no such task: {said}") from error
        if split is not None:
            if split not in task.eval_splits:
                raise DataError(f"{name} is evaluated on {', '.join(task.eval_splits)}; {split!r} was asked for")
            task.filter_eval_splits(eval_splits=[split])
        tasks.append(task)
    return tasks


def run_tasks(
    tasks: Sequence[AbsTask],
    model: MtebModel,
    output: str | Path,
    *,
    batch_size: int = 64,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Evaluate a model on tasks; mteb's files come to `output/results/<model>/<revision>/<task>.json`.

    A result that is there already is taken, not made again.

    Args:
        tasks: of `find_tasks`, or your own.
        model: of `as_mteb`.
        output: the folder of results; made when missing.
        batch_size: texts in one forward pass.
        quiet: no progress bars.

    Returns:
        For each task: `task`, `main_score`, the main measure's name as `measure`, `scores` by split and subset, and
        `file`.

    Raises:
        DataError: a task's data could not be had.
    """
    import mteb

    cache = mteb.ResultCache(output)
    found = []
    for task in tasks:
        _load(task, cache.load_task_result(task.metadata.name, model.mteb_model_meta))
        result = mteb.evaluate(
            model,
            task,
            co2_tracker=False,
            encode_kwargs={"batch_size": batch_size, "show_progress_bar": not quiet},
            cache=cache,
            show_progress_bar=not quiet,
        )[0]
        file = cache.get_task_result_path(task.metadata.name, model.mteb_model_meta)
        found.append(
            {
                "task": result.task_name,
                "measure": task.metadata.main_score,
                "main_score": float(result.get_score()),
                "scores": result.scores,
                "file": str(file),
            }
        )
        if task.data_loaded:
            task.unload_data()
    return found


def _load(task: AbsTask, known: TaskResult | None) -> None:
    """Load the task's data unless all its results are known already. Raises `DataError` when it does not come."""
    if task.data_loaded or (known is not None and not known.get_missing_evaluations(task)):
        return
    try:
        task.load_data()
    except Exception as error:  # the hub's, its HTTP library's or datasets': whichever, the data did not come
        first = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        message = f"the data of {task.metadata.name} did not come ({type(error).__name__}: {first})"
        raise DataError(f"{message}; mteb brings it from the Hugging Face hub") from error
