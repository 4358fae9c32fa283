"""What the demo does, and how long each part trains."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from foreword.prompts.defaults import DEFAULT_BACKBONE


@dataclass(frozen=True)
class DemoConfig:
    """The demo's settings. Defaults take under 10 minutes on two processor cores, `quick` under 4.

    Attributes:
        backbone: a local folder, a hub name, or the packaged MiniLM's name.
        sources: collections with labels.
        target: a collection held out of all of them; the table is about it.
        others: further held-out collections, for transfer alone: no prompt of their own is trained.
        multitask_steps: of the prompt trained on all sources, both sides.
        source_steps: of each source's own query-side prompt, which starts from it.
        source_rate: the learning rate of those, low since the start is good already.
        query_steps: of the target's supervised query-side prompt.
        adapt_steps: of the multitask prompt on the target's own text.
        both_steps: of the target's supervised both-side prompt.
        length: prompt vectors in each layer.
        query_length: tokens a query is cut to.
        document_length: tokens a document is cut to when it is indexed: the backbone's own limit.
        training_length: tokens a document is cut to in training, where it is embedded at every step.
        similarity_documents: of each source, for the similarity of domains.
        measures: in the table.
        searches: real searches shown before and after.
        seed: of every random choice.
    """

    backbone: str = DEFAULT_BACKBONE
    sources: tuple[str, ...] = ("pydoc/numpy", "pydoc/scipy", "pydoc/pandas", "pydoc/sklearn")
    target: str = "pydoc/torch"
    others: tuple[str, ...] = ("pydoc/huggingface_hub", "pydoc/datasets")
    multitask_steps: int = 60
    source_steps: int = 40
    source_rate: float = 0.01
    query_steps: int = 150
    adapt_steps: int = 40
    both_steps: int = 110
    length: int = 16
    query_length: int = 64
    document_length: int = 256
    training_length: int = 128
    similarity_documents: int = 200
    measures: tuple[str, ...] = ("nDCG@10", "R@100")
    searches: int = 3
    seed: int = 0

    @classmethod
    def quick(cls) -> Self:
        """Fewer sources, targets and steps."""
        return cls(
            sources=("pydoc/numpy", "pydoc/pandas", "pydoc/sklearn"),
            others=(),
            multitask_steps=24,
            source_steps=20,
            query_steps=40,
            adapt_steps=12,
            both_steps=16,
            document_length=128,
            similarity_documents=100,
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
