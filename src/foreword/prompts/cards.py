"""Reading the JSON files that say what a folder of prompts is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreword.common.errors import PromptError


def read_json_card(path: Path, version: str, fields: Mapping[str, type]) -> dict[str, Any]:
    """The object in `path`, whose `format` is `version` and which has the `fields`, of these types.

    Raises:
        FileNotFoundError: there is no such file.
        PromptError: it is not of this form; the message says what is wrong.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PromptError(f"{path} cannot be read: {error}") from error
    if not isinstance(card, dict) or card.get("format") != version:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise PromptError(f"{path}: format is {found!r}; this version reads {version!r}")
    missing = [key for key in fields if key not in card]
    if missing:
        raise PromptError(f"{path} lacks {', '.join(missing)}: it was cut or altered")
    wrong = [key for key, kind in fields.items() if not isinstance(card[key], kind)]
    if wrong:
        raise PromptError(f"{path}: {', '.join(wrong)} is not what it should be: it was altered")
    return card
