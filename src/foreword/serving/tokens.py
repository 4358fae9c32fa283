"""How many tokens texts have, and the texts that arrays of token ids stand for."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer

from foreword.common.errors import ForewordError
from foreword.prompts.encoder import text_prompt, transformer_of
from foreword.prompts.spec import Side
from foreword.serving.errors import RequestError

REFUSE, BACKBONE = "refuse", "backbone"


class Tokens:
    """Counts and decodes with a copy of the backbone's tokenizer: a fast tokenizer refuses two threads at once."""

    def __init__(self, encoder: SentenceTransformer, arrays: str = REFUSE) -> None:
        """Take the encoder's tokenizer.

        Args:
            encoder: from `load_encoder`.
            arrays: how arrays of ids are read, see `ServeConfig.token_arrays`.

        Raises:
            ForewordError: the tiktoken encoding is not there.
        """
        self._encoder = encoder
        self._tokenizer: Any = copy.deepcopy(transformer_of(encoder).tokenizer)
        self._lock = threading.Lock()
        self._arrays = arrays
        self._tiktoken = _tiktoken(arrays) if arrays not in (REFUSE, BACKBONE) else None

    def count(self, texts: Sequence[str], side: Side) -> list[int]:
        """The tokens of each text, special ones and the backbone's own words before it included, after it is cut.

        Raises:
            RequestError: a text is no Unicode text (it holds half a surrogate pair).
        """
        words = text_prompt(self._encoder, side) or ""
        for number, text in enumerate(texts):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                message = f"text {number} is not Unicode: {error.reason} at character {error.start}"
                raise RequestError(message, param="input") from None
        with self._lock:
            ids = self._tokenizer([words + text for text in texts], return_attention_mask=False, verbose=False)
        limit = transformer_of(self._encoder).max_seq_length
        lengths = [len(row) for row in ids["input_ids"]]
        return lengths if limit is None else [min(length, limit) for length in lengths]

    def decode(self, arrays: Sequence[Sequence[int]]) -> list[str]:
        """The texts of arrays of token ids.

        Raises:
            RequestError: arrays are refused here, or hold an id that the vocabulary has not.
        """
        if self._arrays == REFUSE:
            raise RequestError(
                "input holds token ids, and which tokenizer's cannot be known; send texts (LangChain: "
                "OpenAIEmbeddings(check_embedding_ctx_length=False)), or set the service's token_arrays",
                400,
                "token_arrays_refused",
                "input",
            )
        with self._lock:
            size = self._tiktoken.n_vocab if self._tiktoken is not None else len(self._tokenizer)
            if any(not 0 <= token < size for array in arrays for token in array):
                raise RequestError(
                    f"input holds token ids outside 0 to {size - 1}, the ids of {self._arrays}", param="input"
                )
            if self._tiktoken is not None:
                return [str(self._tiktoken.decode(list(array))) for array in arrays]
            return [str(self._tokenizer.decode(list(array), skip_special_tokens=True)) for array in arrays]


def _tiktoken(name: str) -> Any:
    try:
        import tiktoken
    except ImportError:
        raise ForewordError(
            f"token_arrays is {name!r}; for the name of a tiktoken encoding, pip install tiktoken; without it, "
            "refuse or backbone"
        ) from None
    try:
        return tiktoken.get_encoding(name)
    except (ValueError, OSError) as error:  # requests' errors are OSErrors
        raise ForewordError(
            f"token_arrays is {name!r}: {' '.join(str(error).split())[:300]}. Expected refuse, backbone or a tiktoken "
            "encoding; its file is downloaded once, or lies in TIKTOKEN_CACHE_DIR"
        ) from error
