"""Dense retrieval with one frozen encoder and one small learned prompt per domain.

```python
import foreword

collection = foreword.load("pydoc/torch")
encoder = foreword.load_encoder("sentence-transformers/all-MiniLM-L6-v2")
prompt = foreword.train(encoder, collection, "prompts/torch")
encoder = foreword.load_encoder(prompt="prompts/torch")
print(foreword.evaluate(collection, encoder).measures)
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.collections.registry import load
    from foreword.evaluation.evaluate import evaluate
    from foreword.hub.contents import from_hub
    from foreword.hub.push import push
    from foreword.prompts.encoder import encode
    from foreword.prompts.loading import load_encoder
    from foreword.prompts.spec import PromptSpec
    from foreword.prompts.store import load_bank, load_prompt, save_prompt
    from foreword.retrieval.search import search
    from foreword.training.config import StartConfig, TrainingConfig
    from foreword.training.train import train, train_few
    from foreword.transferring.advise import advise
    from foreword.transferring.config import TransferConfig
    from foreword.transferring.distil import distil
    from foreword.transferring.transfer import transfer

_WHERE = {
    "load": "foreword.collections.registry",
    "load_encoder": "foreword.prompts.loading",
    "encode": "foreword.prompts.encoder",
    "PromptSpec": "foreword.prompts.spec",
    "load_prompt": "foreword.prompts.store",
    "load_bank": "foreword.prompts.store",
    "save_prompt": "foreword.prompts.store",
    "train": "foreword.training.train",
    "train_few": "foreword.training.train",
    "TrainingConfig": "foreword.training.config",
    "StartConfig": "foreword.training.config",
    "transfer": "foreword.transferring.transfer",
    "advise": "foreword.transferring.advise",
    "distil": "foreword.transferring.distil",
    "TransferConfig": "foreword.transferring.config",
    "evaluate": "foreword.evaluation.evaluate",
    "search": "foreword.retrieval.search",
    "from_hub": "foreword.hub.contents",
    "push": "foreword.hub.push",
}

__all__ = [
    "PromptSpec",
    "StartConfig",
    "TrainingConfig",
    "TransferConfig",
    "advise",
    "distil",
    "encode",
    "evaluate",
    "from_hub",
    "load",
    "load_bank",
    "load_encoder",
    "load_prompt",
    "push",
    "save_prompt",
    "search",
    "train",
    "train_few",
    "transfer",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import foreword` stays light (no torch)."""
    if name not in _WHERE:
        raise AttributeError(f"module 'foreword' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
