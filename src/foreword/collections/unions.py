"""Which collections hold the same data: CQADupStack and its forums, OAG-QA's disciplines and topics, folds, samples."""

from __future__ import annotations

import json
from pathlib import Path

from foreword.collections.folds import split_fold

_FOLDER = "folder:"


def canonical(collection_id: str) -> str:
    """One spelling for an id: a folder by its absolute path."""
    base, fold = split_fold(collection_id)
    if base.startswith(_FOLDER):
        base = f"{_FOLDER}{Path(base.removeprefix(_FOLDER)).expanduser().resolve()}"
    return base if fold is None else f"{base}{fold.suffix}"


def parts(collection_id: str) -> frozenset[str]:
    """The collections that one is made of; of most, itself alone. A fold, and a sample, counts as its collection."""
    base = split_fold(canonical(collection_id))[0]
    if base == "beir/cqadupstack":
        from foreword.collections.beir import facts

        return frozenset(f"cqadupstack/{forum}" for forum in facts()["forums"])
    family, _, name = base.partition("/")
    if family == "oag-qa-disciplines":
        from foreword.collections.oag_qa_disciplines import disciplines

        return frozenset(f"oag-qa/{topic}" for topic in disciplines().get(name, ()))
    source = _source(base)
    return frozenset({base}) if source is None else frozenset({base, *parts(source)})


def _source(base: str) -> str | None:
    """What a folder is a sample of; None: of nothing that says so."""
    record = Path(base.removeprefix(_FOLDER)) / "subsample.json"
    if not base.startswith(_FOLDER) or not record.is_file():
        return None
    try:
        source = json.loads(record.read_text("utf-8"))["source"]
    except (OSError, ValueError, KeyError, TypeError):  # the collection itself says what is wrong when it is loaded
        return None
    return source if isinstance(source, str) and canonical(source) != base else None


def overlap(one: str, other: str) -> bool:
    """Whether two collections share data, so that what was trained on one has seen the other."""
    return bool(parts(one) & parts(other))
