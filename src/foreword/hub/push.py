"""Put a prompt, a mixture or a bank on the hub, as one commit."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.hub.card import model_card
from foreword.hub.contents import OWN_FILES, Contents, read_contents
from foreword.hub.errors import HubError, hub_errors
from foreword.hub.results import Figures, read_results

if TYPE_CHECKING:
    from huggingface_hub import HfApi

README = "README.md"
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Upload:
    """What a push will bring: the files by their path in the repository, and the card's text (None: no card)."""

    repository: str
    contents: Contents
    card: str | None

    @property
    def sizes(self) -> dict[str, int]:
        """Path in the repository -> bytes, of all that is uploaded."""
        card = {} if self.card is None else {README: len(self.card.encode())}
        return {**card, **{name: path.stat().st_size for name, path in self.contents.files.items()}}


@dataclass(frozen=True)
class Pushed:
    """What a push has brought.

    Attributes:
        repository: `user/name`.
        url: of its page.
        revision: the branch.
        commit: its hash.
        changed: False where all was there already, and no commit was made.
        files: path in the repository -> bytes.
        removed: files of an earlier prompt there that were taken away in the same commit.
    """

    repository: str
    url: str
    revision: str
    commit: str
    changed: bool
    files: dict[str, int]
    removed: tuple[str, ...]


def plan_push(
    folder: str | Path,
    repository: str,
    *,
    licence: str | None = None,
    results: Iterable[str | Path] = (),
    card: bool = True,
) -> Upload:
    """What `push` would upload; asks no network. The arguments and errors are those of `push`."""
    if not _REPOSITORY.fullmatch(repository):
        raise HubError(f"the repository is {repository!r}; expected user/name or organisation/name")
    contents = read_contents(folder)
    figures: Sequence[Figures] = read_results(results, contents.folder)
    if local := _local_names(contents):
        warnings.warn(
            f"names of folders on this machine are in the prompt's card, to be read on the hub: {', '.join(local)}",
            UserWarning,
            stacklevel=2,
        )
    text = model_card(contents, repository, licence=licence, figures=figures) if card else None
    return Upload(repository, contents, text)


def push(
    folder: str | Path,
    repository: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    licence: str | None = None,
    results: Iterable[str | Path] = (),
    card: bool = True,
    message: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> Pushed:
    """Upload a prompt, a mixture or a bank: its own files and a model card, nothing else, in one commit.

    Files of an earlier prompt in the repository that this one has not are removed in that commit, so that the
    repository holds one thing; other files there are left alone.

    Args:
        folder: of the prompt, mixture or bank.
        repository: `user/name`; made when missing.
        private: True: only you see it; None: what the account's settings say.
        revision: the branch, made when missing; None: main.
        licence: for the card, as the hub names it: `apache-2.0`, `cc-by-4.0`, ...
        results: files that `foreword evaluate --json` wrote about it, for the card's figures.
        card: False: `README.md` stays as it is.
        message: of the commit.
        token: with the right to write; None: HF_TOKEN, or what `hf auth login` stored.
        endpoint: of the hub; None: HF_ENDPOINT, or huggingface.co.

    Raises:
        HubError: the hub refused it, or `private` was asked for and the repository is public.
        PromptError: the folder holds no prompt, or a broken one.
        DataError: results that cannot be read, or are about another prompt.
    """
    from huggingface_hub import HfApi

    upload = plan_push(folder, repository, licence=licence, results=results, card=card)
    api = HfApi(endpoint=endpoint, token=token, library_name="foreword")
    with hub_errors(repository, revision):
        url = str(api.create_repo(repository, private=private, exist_ok=True))
        if revision is not None and revision != "main":
            api.create_branch(repository, branch=revision, exist_ok=True)
        about = api.model_info(repository, revision=revision)
        if private and not about.private:
            raise HubError(
                f"{repository} is public already; make it private on its page first, or push without --private"
            )
        present = [file.rfilename for file in about.siblings or ()]
        stale = tuple(sorted(name for name in present if _is_own(name) and name not in upload.contents.files))
        found = _commit(api, upload, stale, revision, about.sha, message)
    return Pushed(repository, url, revision or "main", found, found != about.sha, upload.sizes, stale)


def _commit(
    api: HfApi, upload: Upload, stale: Iterable[str], revision: str | None, parent: str | None, message: str | None
) -> str:
    """Send the commit on top of `parent`; returns its hash."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    # Named one by one rather than as a folder: what else lies in the folder is nobody's business.
    operations: list[Any] = [CommitOperationAdd(name, path) for name, path in upload.contents.files.items()]
    if upload.card is not None:
        operations.insert(0, CommitOperationAdd(README, upload.card.encode()))
    operations += [CommitOperationDelete(name) for name in stale]
    try:
        done = api.create_commit(
            upload.repository,
            operations,
            commit_message=message or f"A Foreword {upload.contents.kind}: {', '.join(upload.contents.cards)}"[:200],
            revision=revision,
            parent_commit=parent,
        )
    except ValueError as error:  # the hub does not take the card's metadata, e.g. a licence that it does not know
        raise HubError(f"the hub does not take it: {' '.join(str(error).split())}") from error
    return str(done.oid)


def _is_own(name: str) -> bool:
    return name.rpartition("/")[2] in OWN_FILES


def _local_names(contents: Contents) -> list[str]:
    """Names in the cards that are places on this machine."""
    names: list[str] = []
    for domain, card in contents.cards.items():
        names += [domain, str((card.get("backbone") or {}).get("name") or ""), *contents.trained_on(domain)]
    places = [name.partition(":")[2] if name.startswith("folder:") else name for name in names]
    return [name for name in dict.fromkeys(places) if Path(name).is_absolute()]
