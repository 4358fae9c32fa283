"""Which collections hold the same data: CQADupStack and its forums, an OAG-QA discipline and its topics, folds."""

from __future__ import annotations

from foreword.collections.folds import split_fold


def parts(collection_id: str) -> frozenset[str]:
    """The collections that one is made of; of most, itself alone. A fold counts as its collection."""
    base = split_fold(collection_id)[0]
    if base == "beir/cqadupstack":
        from foreword.collections.beir import facts

        return frozenset(f"cqadupstack/{forum}" for forum in facts()["forums"])
    family, _, name = base.partition("/")
    if family == "oag-qa-disciplines":
        from foreword.collections.oag_qa_disciplines import disciplines

        return frozenset(f"oag-qa/{topic}" for topic in disciplines().get(name, ()))
    return frozenset({base})


def overlap(one: str, other: str) -> bool:
    """Whether two collections share data, so that what was trained on one has seen the other."""
    return bool(parts(one) & parts(other))
