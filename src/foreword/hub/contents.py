"""What a folder holds, file by file: a prompt, a mixture or a bank, and nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foreword.common.errors import PromptError
from foreword.evaluation.candidates import read_bank
from foreword.prompts.mixture import CARD as MIXTURE_CARD
from foreword.prompts.mixture import SOURCES, is_mixture, read_mixture_card
from foreword.prompts.store import CARD, WEIGHTS, load_bank, load_prompt, trained_on

OWN_FILES = (CARD, WEIGHTS, MIXTURE_CARD)
"""What a prompt's or a mixture's folder is made of. `run.json` is not: it names the machine."""


@dataclass(frozen=True)
class Contents:
    """A folder of prompts that has been read and found whole.

    Attributes:
        folder: where it is.
        kind: what it is.
        files: path in a repository, with `/` -> file.
        cards: domain -> the card of its prompt or mixture; of a mixture, its own alone.
        sources: domain -> the cards that say what it was trained on: its own, or those of a mixture's sources.
    """

    folder: Path
    kind: Literal["prompt", "mixture", "bank"]
    files: Mapping[str, Path]
    cards: Mapping[str, Mapping[str, Any]]
    sources: Mapping[str, tuple[Mapping[str, Any], ...]]

    def trained_on(self, domain: str) -> dict[str, str]:
        """`collection -> supervision` of all that a domain's prompt was trained on."""
        found: dict[str, str] = {}
        for card in self.sources[domain]:
            found |= trained_on(card)
        return found

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self.files.values())


def read_contents(folder: str | Path) -> Contents:
    """Read a folder and check every prompt in it against its card.

    Raises:
        PromptError: it holds neither a prompt, nor a mixture, nor a bank, or one that is cut or altered.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PromptError(f"there is no folder {folder}; give that of a prompt, a mixture or a bank")
    if is_mixture(folder):
        return _mixture(folder)
    if (folder / CARD).is_file():
        stored = load_prompt(folder)
        files = {name: folder / name for name in (CARD, WEIGHTS)}
        return Contents(folder, "prompt", files, {stored.domain: stored.card}, {stored.domain: (stored.card,)})
    if not any(any(folder.glob(f"*/{name}")) for name in (CARD, MIXTURE_CARD)):
        raise PromptError(f"{folder} holds no prompt ({CARD}), no mixture ({MIXTURE_CARD}) and no folders of them")
    files, cards, sources = {}, {}, {}
    for domain, candidate in read_bank(folder).items():
        member = read_contents(candidate.path)
        files.update({f"{candidate.path.name}/{name}": path for name, path in member.files.items()})
        cards[domain] = member.cards[domain]
        sources[domain] = member.sources[domain]
    return Contents(folder, "bank", files, cards, sources)


def _mixture(folder: Path) -> Contents:
    card = read_mixture_card(folder)
    files = {MIXTURE_CARD: folder / MIXTURE_CARD}
    sources: tuple[Mapping[str, Any], ...] = ()
    if card["weights"]:
        bank = load_bank(folder / SOURCES)
        if {name: stored.prompt.digest() for name, stored in bank.items()} != card["sources"]:
            raise PromptError(f"{folder}: its sources are not those that it was made of; copy the folder again, whole")
        sources = tuple(stored.card for stored in bank.values())
        for stored in bank.values():
            assert stored.path is not None
            files.update({f"{SOURCES}/{stored.path.name}/{name}": stored.path / name for name in (CARD, WEIGHTS)})
    domain = str(card["domain"])
    return Contents(folder, "mixture", files, {domain: card}, {domain: sources})
