"""An encoder with its prompt as a model that `mteb.evaluate` (mteb 2) takes, and mteb's tasks by name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sentence_transformers import SentenceTransformer

from foreword.errors import DataError, ForewordError, UnknownNameError
from foreword.evaluation.candidates import side_fingerprint
from foreword.prompts.encoder import encode, head_of, resolve_precision, transformer_of
from foreword.prompts.store import describe_backbone
from foreword.settings import EncodingPrecision, Side

if TYPE_CHECKING:
    from mteb import AbsTask
    from mteb.models import ModelMeta


def require_mteb() -> None:
    """Raise `ForewordError` unless mteb 2 is installed."""
    try:
        import mteb
    except ModuleNotFoundError as error:
        raise ForewordError(f"mteb is not installed ({error}): pip install 'foreword[mteb]'") from error
    if not hasattr(mteb, "evaluate"):
        raise ForewordError("this mteb is older than version 2: pip install -U 'foreword[mteb]'")


class MtebModel:
    """mteb's `EncoderProtocol`: queries as `encode_query` gives them, documents as `encode_document` does.

    Texts without a side (those of a pair to be compared, of classes or of clusters) are encoded as queries, for both
    of a pair are alike, and a query-side prompt would do nothing otherwise.
    """

    def __init__(
        self,
        encoder: SentenceTransformer,
        meta: ModelMeta,
        precision: EncodingPrecision,
        lengths: Mapping[Side, int | None],
    ) -> None:
        """Made by `as_mteb`; `lengths` are the tokens that the texts of a side are cut to (None: the encoder's)."""
        self.encoder = encoder
        self._meta, self._precision, self._lengths = meta, precision, lengths
        self._route = transformer_of(encoder).route  # what `meta` names, whatever the encoder is routed to later

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Name, revision and facts; mteb keeps results by the first two."""
        return self._meta

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Embeddings of the batches' `text`, float32 (N, d'), in their order, whose inner products are the scores.

        Args:
            inputs: mteb's batches; a document's text begins with its title.
            task_metadata: not looked at: the prompt is the same, whatever the task.
            hf_split: not looked at.
            hf_subset: not looked at.
            prompt_type: mteb's `PromptType`: query, document or None.
            kwargs: `batch_size` and `show_progress_bar` of `encode_kwargs`.

        Raises:
            ForewordError: further `encode_kwargs`, which would do nothing.
        """
        batch_size = int(kwargs.pop("batch_size", 32))
        quiet = not kwargs.pop("show_progress_bar", True)
        if kwargs:
            raise ForewordError(f"encode_kwargs {', '.join(sorted(kwargs))} are not known here; give them to as_mteb")
        side: Side = "document" if getattr(prompt_type, "value", prompt_type) == "document" else "query"
        return encode(
            self.encoder,
            [text for batch in inputs for text in batch["text"]],
            side,
            route=self._route,
            batch_size=batch_size,
            precision=self._precision,
            max_length=self._lengths.get(side),
            what=f"{'documents' if side == 'document' else 'queries'} of {getattr(task_metadata, 'name', 'a task')}",
            quiet=quiet,
        )

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Scores (N1, N2): inner products, which are the cosine where the encoder's similarity is."""
        return _tensor(embeddings1) @ _tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Scores (N,) of the rows of one with those of the other."""
        return (_tensor(embeddings1) * _tensor(embeddings2)).sum(-1)


def _tensor(embeddings: Any) -> Any:
    import torch

    return torch.atleast_2d(torch.as_tensor(embeddings))


def as_mteb(
    encoder: SentenceTransformer,
    *,
    name: str | None = None,
    precision: EncodingPrecision = "float32",
    query_length: int | None = None,
    document_length: int | None = None,
    trained_on: Iterable[str] | None = None,
) -> MtebModel:
    """A model for `mteb.evaluate`, which encodes by the prompt that the encoder is routed to now.

    Args:
        encoder: from `foreword.load_encoder`.
        name: `organisation/name`; None: made of the backbone's name and the prompt's.
        precision: of the forward passes.
        query_length: tokens a query is cut to; None: the encoder's limit.
        document_length: tokens a document is cut to; None: the encoder's limit.
        trained_on: mteb's names of the tasks whose data the prompt or the backbone was trained on; None: not said.

    Raises:
        ForewordError: mteb is not installed, or `name` has not this form.
    """
    require_mteb()
    from mteb.models import ModelMeta
    from mteb.models.model_meta import ScoringFunction

    described = describe_backbone(encoder)
    transformer = transformer_of(encoder)
    name = name or model_name(encoder)
    if not re.fullmatch(r"[\w.+-]+/[\w.+-]+", name):
        raise ForewordError(f"the model's name is {name!r}; mteb wants organisation/name")
    similarity = head_of(encoder).similarity
    chosen = resolve_precision(precision, encoder.device)
    length: dict[Side, int | None] = {"query": query_length, "document": document_length}
    # mteb takes a result that it has for one of an equal name, revision and experiment: all that changes vectors.
    experiment = {
        **({} if chosen == "float32" else {"precision": chosen}),
        **{f"{side}_length": tokens for side, tokens in length.items() if tokens is not None},
    }
    meta = ModelMeta(
        loader=None,
        name=name,
        revision=model_revision(encoder),
        release_date=None,
        languages=None,
        n_parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        memory_usage_mb=None,
        max_tokens=transformer.max_seq_length,
        embed_dim=encoder.get_embedding_dimension(),
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["Sentence Transformers", "PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE if similarity == "cosine" else ScoringFunction.DOT_PRODUCT,
        use_instructions=any(described["text_prompts"].values()),
        training_datasets=None if trained_on is None else set(trained_on),
        adapted_from=str(described["name"]),
        experiment_kwargs=experiment or None,
    )
    return MtebModel(encoder, meta, chosen, length)


def model_name(encoder: SentenceTransformer) -> str:
    """`foreword/<backbone>--<what encodes>`, in the letters that folders of results take."""
    route = transformer_of(encoder).route
    prompt = route if isinstance(route, str) else "base" if route is None else "mixture"
    backbone = str(describe_backbone(encoder)["name"]).rstrip("/").rpartition("/")[2]
    return f"foreword/{_plain(backbone)}--{_plain(prompt)}"


def model_revision(encoder: SentenceTransformer) -> str:
    """Fingerprints of the backbone, of how it is used, and of what encodes queries and documents.

    How it is used: pooling, normalisation, similarity, the backbone's own text prompts and the tokens that texts are
    cut to. `base` stands where the backbone alone encodes a side.
    """
    sides: tuple[Side, Side] = ("query", "document")
    described = describe_backbone(encoder)
    used = {name: described[name] for name in ("pooling", "normalized", "similarity", "text_prompts")}
    used["max_length"] = transformer_of(encoder).max_seq_length
    parts = [str(described["fingerprint"]), hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()]
    parts += [side_fingerprint(encoder, side) or "base" for side in sides]
    return "-".join(_plain(part[:12]) for part in parts)


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).strip("-") or "unnamed"


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
        known = cache.load_task_result(task.metadata.name, model.mteb_model_meta)
        if not task.data_loaded and (known is None or known.get_missing_evaluations(task)):
            try:
                task.load_data()
            except Exception as error:  # the hub's, its HTTP library's or datasets': whichever, the data did not come
                first = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
                message = f"the data of {task.metadata.name} did not come ({type(error).__name__}: {first})"
                raise DataError(f"{message}; mteb brings it from the Hugging Face hub") from error
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
