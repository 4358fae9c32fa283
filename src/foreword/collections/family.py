"""A family: the collections whose ids begin with one word, found, read and downloaded in one way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from foreword.collections.collection import Collection, Entry
from foreword.collections.views import ExcludingCollection, Texts
from foreword.downloads.places import DEFAULT, Transport, data_folder
from foreword.errors import ForewordError, UnknownNameError


class Family:
    """What a family has to say is `names`, `entry` and `open`, and `download` where its files can be had.

    A family of any name at all (`folder:PATH`) says `knows` and `entries` in place of the first two.
    """

    name: str
    """What stands before the slash or colon of its ids; the group of its collections, too."""

    def names(self) -> Mapping[str, Any]:
        """Its collections, in order, each with what is known of it."""
        raise NotImplementedError

    def entry(self, name: str, root: Path) -> Entry:
        """The catalogue's line of one of them; it is available when its files are in the data folder `root`."""
        raise NotImplementedError

    def open(self, name: str, data: Path | None) -> Collection:
        """The collection `name`, which is one of `names`; options of the family are arguments by name.

        Args:
            name: without the family's.
            data: the folder with its files, where it needs any; None: see `foreword.downloads.data_folder`.

        Raises:
            UnknownNameError: an unknown name or option.
            DataError: files are missing or broken; the message says which, and how they may be had.
        """
        raise NotImplementedError

    def download(self, name: str, data: Path, transport: Transport = DEFAULT) -> Path:
        """Get the files of the collection `name`, unless they are there.

        Args:
            name: without the family's.
            data: the data folder.
            transport: mirrors, offline mode, timeout.

        Returns:
            The folder with its files.

        Raises:
            UnknownNameError: no such collection.
            DataError: the files cannot be had, or are broken.
            ForewordError: there is nothing to download.
        """
        raise ForewordError("there is nothing to download; its text is what is installed or lies on this machine")

    def id(self, name: str) -> str:
        """The whole id of one of its collections: `beir/scifact`."""
        return f"{self.name}/{name}"

    def knows(self, name: str) -> bool:
        """Whether there is such a collection."""
        return name in self.names()

    def about(self, name: str) -> Any:
        """What is known of a collection. Raises `UnknownNameError` when there is none of that name."""
        known = self.names()
        if name not in known:
            raise UnknownNameError(f"no collection {self.id(name)}; known: {', '.join(known)}")
        return known[name]

    def entries(self, data: Path | None = None) -> list[Entry]:
        """The catalogue's lines."""
        root = data_folder(data)
        return [self.entry(name, root) for name in self.names()]

    def load(
        self, name: str, *, data: Path | None = None, exclude: Iterable[Collection] = (), **options: Any
    ) -> Collection:
        """The collection `name`; see `open`, and `exclude` of `foreword.load`."""
        reading: Callable[..., Collection] = self.open
        collection = reading(name, data, **options)
        excluded = Texts.of(exclude)
        return ExcludingCollection(collection, excluded) if excluded else collection

    def options(self) -> set[str]:
        """The names of its own options."""
        parameters = inspect.signature(self.open).parameters.values()
        return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
