"""`oag-qa-disciplines/<discipline>`: the union of a discipline's OAG-QA topics; ids are `<topic>/<id>`.

A question is in the same split as in its topic, since the split is a hash of its text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from foreword.collections import oag_qa
from foreword.collections.collection import Collection, Entry
from foreword.collections.oag_qa import facts, obtain
from foreword.downloads import Transport
from foreword.errors import UnknownNameError

GROUP = "oag-qa-disciplines"
HEADLINE = oag_qa.HEADLINE
"""As for the topics."""


def load(
    name: str,
    *,
    data: Path | None = None,
    exclude: Iterable[Collection] = (),
    titles: str = "exact",
    seed: int = 0,
) -> Collection:
    """The questions and papers of a discipline; the arguments are those of `oag_qa.load`.

    A listed title finds its papers in every topic of the discipline.

    Raises:
        UnknownNameError: no such discipline, or another value of `titles`.
        DataError: files are missing or broken; the message says which.
    """
    if not knows(name):
        raise UnknownNameError(f"no discipline {name!r} in OAG-QA; known: {', '.join(disciplines())}")
    topics = disciplines()[name]
    return oag_qa.assemble(f"{GROUP}/{name}", GROUP, topics, data=data, exclude=exclude, titles=titles, seed=seed)


def knows(name: str) -> bool:
    """Whether it is one of the 22."""
    return name in disciplines()


def entries(data: Path | None = None) -> list[Entry]:
    """The disciplines, each with whether the files of all its topics are there."""
    return [
        oag_qa.entry(f"{GROUP}/{name}", GROUP, f"OAG-QA's {', '.join(topics).replace('_', ' ')}", topics, data)
        for name, topics in disciplines().items()
    ]


def download(name: str, data: Path, transport: Transport, source: Path | None = None) -> Path:
    """The folder with the files of a discipline's topics; see `oag_qa.download`."""
    return obtain(f"{GROUP}/{name}", disciplines()[name], data, transport, source)


def disciplines() -> dict[str, list[str]]:
    """The topics of each discipline."""
    listed: dict[str, list[str]] = facts()["disciplines"]
    return listed
