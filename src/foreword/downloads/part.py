"""The part of a file that has come so far, and what is needed to ask for the rest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from foreword.common.files import write_json
from foreword.downloads.places import record_file


@dataclass(frozen=True)
class Origin:
    """What a server said of the file that a part is the beginning of."""

    url: str
    validator: str | None
    """A strong ETag, else the date of the last change: equal only for equal bytes. None: neither was given."""
    size: int | None
    """Bytes of the whole, None where the server did not say."""


class Part:
    """`<file>.part` beside the final file, and its origin as JSON below `.records`: both outlive the process."""

    def __init__(self, data: Path, name: str) -> None:
        self.path = Path(data) / f"{name}.part"
        self._origin = record_file(data, f"{name}.part")

    @property
    def length(self) -> int:
        """Bytes that have come."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def origin(self) -> Origin | None:
        """Where they came from; None when that is not known, and then they are of no use."""
        try:
            return Origin(**json.loads(self._origin.read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def resumes(self, url: str, verified: bool) -> int:
        """How many bytes can be kept when the rest comes from `url`; 0: start again.

        Args:
            url: the address to be asked.
            verified: the whole file will be compared with a hash, so that a wrong guess is found out.
        """
        origin = self.origin
        if origin is None:
            return 0
        surely_same = origin.url == url and (origin.validator is not None or origin.size is not None)
        return self.length if surely_same or verified else 0

    @property
    def whole(self) -> bool:
        """Whether all has come that the server promised."""
        origin = self.origin
        return origin is not None and self.length == origin.size

    def begin(self, origin: Origin) -> IO[bytes]:
        """Open it empty, for a file whose first byte comes next."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("wb")  # emptied before its origin is named: what is there never has a wrong one
        write_json(self._origin, asdict(origin))
        return file

    def go_on(self) -> IO[bytes]:
        """Open it to write what comes after what is there."""
        return self.path.open("ab")

    def discard(self) -> None:
        """Forget what came."""
        self.path.unlink(missing_ok=True)
        self._origin.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        """Give the whole file its final name."""
        self.path.replace(path)
        self._origin.unlink(missing_ok=True)
