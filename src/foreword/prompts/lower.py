"""States that the layers below a prompt give, computed once a text.

They depend on no prompt, so a training through the top layers alone goes over the same ones again and again. They are
kept in a file without a name, so that nothing is left of it whatever ends the process.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn

from foreword.files import megabytes
from foreword.prompts.attention import SLOT
from foreword.prompts.kinds.kind import kind_of
from foreword.prompts.spec import PromptSpec
from foreword.prompts.transformer import FAILURES, PromptedTransformer, padded_batch

logger = logging.getLogger(__name__)

LIMIT = "FOREWORD_STATES_MB"
"""The environment variable that bounds the file, in megabytes; 0: nothing is kept."""
DEFAULT_LIMIT_MB = 4000.0

_WHOLE = {2: torch.int16, 4: torch.int32}
"""Integers as wide as the states' numbers, since NumPy has no bfloat16."""


class LowerStates:
    """What the layers below a prompt hand on for texts that were seen, (T, d) each, in a file.

    Texts are known by their tokens. A batch of known ones passes these layers by; what no longer fits into the file is
    computed anew each time.
    """

    def __init__(self, layers: Sequence[nn.Module], folder: Path, limit_mb: float) -> None:
        """`layers` are all of those below, from the bottom; the file is made in `folder`."""
        self.layers, self.limit = layers, limit_mb * 1e6
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by `installed`
        self._places: dict[bytes, int] = {}  # where a text's states begin
        self._end = 0
        self._shape: tuple[int, torch.dtype, bool] | None = None  # of what is handed on: d, type, whether in a tuple
        self._known: Tensor | None = None
        self._unknown: tuple[Tensor, list[bytes], torch.dtype | None] | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within the block, passes in `passing` look here first."""
        for place, layer in enumerate(self.layers):
            layer.forward = partial(self._pass, layer.forward, place == len(self.layers) - 1)
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.__dict__["forward"]
            self._file.close()

    @contextmanager
    def passing(self, features: Mapping[str, Any], lowest: int) -> Iterator[None]:
        """Within the block, a pass of this tokenized batch, (B, T), takes what is known, or leaves its own here.

        `lowest` is the first layer with a prompt; nothing happens where it is one of those below.
        """
        if lowest < len(self.layers):
            yield
            return
        mask, device = features["attention_mask"].bool().cpu(), features["input_ids"].device.type
        stored = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        tokens = [features[name] for name in ("input_ids", "token_type_ids") if name in features]
        rows = zip(torch.stack(tokens, dim=-1).cpu().numpy(), mask.numpy(), strict=True)
        keys = [f"{stored} ".encode() + row[own].tobytes() for row, own in rows]
        if all(key in self._places for key in keys):
            self._known = self._read(keys, mask, stored).to(features["input_ids"].device)
        else:
            self._unknown = mask, keys, stored
        try:
            yield
        finally:
            self._known = self._unknown = None

    def _pass(self, forward: Any, last: bool, *arguments: Any, **named: Any) -> Any:
        """What stands in for the `forward` of a layer."""
        if self._known is not None and self._shape is not None:
            return (self._known,) if self._shape[2] else self._known
        output = forward(*arguments, **named)
        if last and self._unknown is not None:
            states, in_tuple = (output[0], True) if isinstance(output, tuple) else (output, False)
            self._shape = states.shape[-1], states.dtype, in_tuple
            self._write(states.detach(), *self._unknown)
        return output

    def _write(self, states: Tensor, mask: Tensor, keys: Sequence[bytes], stored: torch.dtype | None) -> None:
        dtype = stored or states.dtype
        whole = states.cpu().to(dtype).view(_WHOLE[dtype.itemsize]).numpy()
        for key, row, own in zip(keys, whole, mask.numpy(), strict=True):
            if key in self._places or self._end + row[own].nbytes > self.limit:
                continue
            try:
                self._file.seek(self._end)
                self._file.write(row[own].tobytes())
            except OSError as error:  # a full disk: what is known stays known
                logger.warning("states of texts are no longer kept: %s", error)
                self.limit = 0
                return
            self._places[key] = self._end
            self._end += row[own].nbytes

    def _read(self, keys: Sequence[bytes], mask: Tensor, stored: torch.dtype | None) -> Tensor:
        assert self._shape is not None
        width, dtype, _ = self._shape
        kept = stored or dtype
        whole = torch.empty(int(mask.sum()), width, dtype=_WHOLE[kept.itemsize])
        raw, begin = whole.numpy().reshape(-1).view("u1"), 0
        for key, tokens in zip(keys, mask.sum(dim=1).tolist(), strict=True):
            end = begin + tokens * width * kept.itemsize
            self._file.seek(self._places[key])
            self._file.readinto(raw[begin:end].data)
            begin = end
        states = torch.zeros(*mask.shape, width, dtype=dtype)
        states[mask] = whole.view(kept).to(dtype)
        return states


@contextmanager
def lower_states_kept(transformer: PromptedTransformer, spec: PromptSpec, folder: Path) -> Iterator[bool]:
    """Within the block, passes with prompts of `spec` compute the layers below them once a text.

    Nothing happens where the prompts stand in the lowest layer or among the words, where the backbone's layers cannot
    be passed by, or where it is so already. Values are the same up to rounding: under autocast, states are kept in its
    type.

    Args:
        transformer: that carries the prompts.
        spec: of the prompts.
        folder: where the file without a name lies, of `FOREWORD_STATES_MB` (4,000) at most.

    Yields:
        Whether states are kept.

    Raises:
        ForewordError: `FOREWORD_STATES_MB` is no number.
    """
    limit = megabytes(LIMIT, DEFAULT_LIMIT_MB, "states")
    below = min(kind_of(spec).layers(spec, transformer.shape), default=0)
    layers = layers_of(transformer)[:below]
    if not layers or limit <= 0 or transformer.lower is not None:
        yield transformer.lower is not None
        return
    lower = LowerStates(layers, folder, limit)
    with lower.installed():
        transformer.lower = lower if _same(transformer, lower) else None
        try:
            yield transformer.lower is not None
        finally:
            transformer.lower = None


def layers_of(transformer: PromptedTransformer) -> list[nn.Module]:
    """The backbone's layers from the bottom, each with one attention; none where they are not in one list."""
    for module in transformer.model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == len(transformer.shape.layers):
            slots = [[part.__dict__[SLOT] for part in layer.modules() if SLOT in part.__dict__] for layer in module]
            if slots == [[place] for place in range(len(module))]:
                return list(module)
    return []


def _same(transformer: PromptedTransformer, lower: LowerStates) -> bool:
    """Whether a padded batch comes out alike when it passes the layers by."""
    features, expected = padded_batch(transformer)
    visible = features["attention_mask"].bool()
    try:
        with torch.no_grad():
            for _ in range(2):  # once to leave states, once to take them
                with lower.passing(features, len(lower.layers)):
                    output = Transformer.forward(transformer, dict(features))[transformer.module_output_name]
    except FAILURES as error:
        logger.debug("the lower layers of %s cannot be passed by: %s", type(transformer.model).__name__, error)
        return False
    return bool(torch.allclose(output[visible], expected[visible], atol=1e-4, rtol=1e-3))
