"""What a folder holds, file by file: a prompt, a mixture or a bank, and nothing beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foreword.errors import HubError, PromptError, hub_errors
from foreword.evaluation.candidates import read_bank
from foreword.prompts.spec import CARD, MIXTURE_CARD, holds_folders, no_contents
from foreword.prompts.store import SOURCES, WEIGHTS, is_mixture, load_bank, load_prompt, read_mixture_card, trained_on

OWN_FILES = (CARD, WEIGHTS, MIXTURE_CARD)
"""What a prompt's or a mixture's folder is made of. `run.json` is not: it names the machine."""


@dataclass(frozen=True)
class Contents:
    """A folder of prompts that has been read and found whole.

    Attributes:
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
        card = read_mixture_card(folder)
        files = {MIXTURE_CARD: folder / MIXTURE_CARD}
        bank = load_bank(folder / SOURCES) if card["weights"] else {}
        digests = {name: stored.prompt.digest() for name, stored in bank.items()}
        if card["weights"] and digests != card["sources"]:
            raise PromptError(f"{folder}: its sources are not those that it was made of; copy the folder again, whole")
        for stored in bank.values():
            assert stored.path is not None
            files.update({f"{SOURCES}/{stored.path.name}/{name}": stored.path / name for name in (CARD, WEIGHTS)})
        domain = str(card["domain"])
        made_of = tuple(stored.card for stored in bank.values())
        return Contents(folder, "mixture", files, {domain: card}, {domain: made_of})
    if (folder / CARD).is_file():
        stored = load_prompt(folder)
        files = {name: folder / name for name in (CARD, WEIGHTS)}
        return Contents(folder, "prompt", files, {stored.domain: stored.card}, {stored.domain: (stored.card,)})
    if not holds_folders(folder):
        raise no_contents(folder)
    members: dict[str, Path] = {}
    cards, sources = {}, {}
    for domain, candidate in read_bank(folder).items():
        member = read_contents(candidate.path)
        members.update({f"{candidate.path.name}/{name}": path for name, path in member.files.items()})
        cards[domain] = member.cards[domain]
        sources[domain] = member.sources[domain]
    return Contents(folder, "bank", members, cards, sources)


SCHEME = "hf:"

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""The form of a repository's name on the hub."""

_PLACE = re.compile(rf"(?P<repository>{REPOSITORY.pattern})(?:/(?P<folder>[^@]+?))?/?(?:@(?P<revision>.+))?")


@dataclass(frozen=True)
class Place:
    """Where on the hub: a repository, a folder in it (empty: the whole), and a branch, tag or commit."""

    repository: str
    folder: str = ""
    revision: str | None = None


def place_of(name: str) -> Place:
    """The place that `user/name`, `hf:user/name`, `user/name/folder` or `user/name@revision` means.

    Raises:
        PromptError: it is not of this form.
    """
    found = _PLACE.fullmatch(name.removeprefix(SCHEME))
    if found is None or {"", ".."} & set((found["folder"] or "here").split("/")):
        raise PromptError(
            f"{name!r} is no place on the hub; expected user/name, with /folder for one prompt of a bank and "
            "@revision for a branch, a tag or a commit"
        )
    return Place(found["repository"], found["folder"] or "", found["revision"])


def from_hub(
    name: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    cache: str | Path | None = None,
) -> Path:
    """Bring a prompt, a mixture or a bank from the hub into the hub's cache, and check that it is whole.

    What is in the cache already is not brought again, and is used when the hub is not reached.

    Args:
        name: `user/name`; `user/name/pydoc-torch` is one folder of a bank; `@v1` behind it is a revision; `hf:`
            before it changes nothing.
        revision: branch, tag or commit, instead of the one in the name; None: the main branch.
        token: of the hub; None: HF_TOKEN, or what `hf auth login` stored.
        endpoint: of the hub; None: HF_ENDPOINT, or huggingface.co.
        cache: the folder of the hub's cache; None: the usual one (HF_HOME, HF_HUB_CACHE).

    Returns:
        Its folder, which whatever takes a prompt's, mixture's or bank's folder takes.

    Raises:
        HubError: no such repository or revision, no right to see it, or the hub was not reached.
        PromptError: the name is malformed, the repository holds no prompt, or one that is cut or altered.
    """
    from huggingface_hub import snapshot_download

    place = place_of(name)
    revision = revision or place.revision
    inside = f"{place.folder}/" if place.folder else ""
    # A pattern's * matches / too: */prompt.json is that of a bank's prompt and of a mixture's source in a bank.
    patterns = [f"{inside}{below}{file}" for file in OWN_FILES for below in ("", "*/")]
    with hub_errors(place.repository, revision):
        snapshot = snapshot_download(
            place.repository,
            revision=revision,
            allow_patterns=patterns,
            token=token,
            endpoint=endpoint,
            cache_dir=cache,
            library_name="foreword",
        )
    folder = Path(snapshot, place.folder)
    where = f"{SCHEME}{place.repository}{'/' if inside else ''}{place.folder}"
    if not folder.is_dir() or not any(folder.rglob("*.json")):
        raise HubError(f"{where} holds no Foreword prompt: expected prompt.json, mixture.json or folders of them")
    try:
        read_contents(folder)
    except PromptError as error:
        raise HubError(f"{where} as it lies on the hub cannot be used: {error}") from error
    return folder
