"""Put a prompt, a mixture or a bank on the hub, as one commit."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.errors import HubError, hub_errors
from foreword.hub.card import Figures, model_card, read_results
from foreword.hub.contents import OWN_FILES, REPOSITORY, Contents, read_contents
from foreword.prompts.store import CARD, MIXTURE_CARD, WEIGHTS

README = "README.md"


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
    """What a push has brought: files by their path in the repository, in bytes, and the page's address.

    Attributes:
        changed: False where all was there already, and no commit was made.
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
    if not REPOSITORY.fullmatch(repository):
        raise HubError(f"the repository is {repository!r}; expected user/name or organisation/name")
    contents = read_contents(folder)
    figures: Sequence[Figures] = read_results(results, contents.folder)
    cards = [*contents.cards.values(), *(card for source in contents.sources.values() for card in source)]
    texts = [text for card in cards for text in _strings(card)]
    local = [t for t in texts if t.startswith("folder:") or ("\n" not in t and Path(t).is_absolute())]
    local += [result.collection for result in figures if result.collection.startswith("folder:")]
    backbones = [str((card.get("backbone") or {}).get("name") or "") for card in cards]
    local += [name for name in backbones if name and Path(name).is_dir()]
    if local:
        names = ", ".join(dict.fromkeys(local))
        message = f"names of folders on this machine are in the prompt's card, to be read on the hub: {names}"
        warnings.warn(message, UserWarning, stacklevel=2)
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
        repository: `user/name`; made when missing.
        private: True: only you see it; None: what the account's settings say.
        revision: the branch, made when missing; None: main.
        licence: for the card, as the hub names it: `apache-2.0`, `cc-by-4.0`, ...
        results: files that `foreword evaluate --json` wrote about it, for the card's figures.
        card: False: `README.md` stays as it is.
        token: with the right to write; None: HF_TOKEN, or what `hf auth login` stored.
        endpoint: of the hub; None: HF_ENDPOINT, or huggingface.co.

    Raises:
        HubError: the hub refused it, or `private` was asked for and the repository is public.
        PromptError: the folder holds no prompt, or a broken one.
        DataError: results that cannot be read, or are about another prompt.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

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
        stale = tuple(sorted(_of_prompts(present) - set(upload.contents.files)))
        # Named one by one rather than as a folder: what else lies in the folder is nobody's business.
        operations: list[Any] = [CommitOperationAdd(name, path) for name, path in upload.contents.files.items()]
        if upload.card is not None:
            operations.insert(0, CommitOperationAdd(README, upload.card.encode()))
        operations += [CommitOperationDelete(name) for name in stale]
        title = message or f"A Foreword {upload.contents.kind}: {', '.join(upload.contents.cards)}"[:200]
        try:
            done = api.create_commit(
                repository, operations, commit_message=title, revision=revision, parent_commit=about.sha
            )
        except ValueError as error:  # the hub does not take the card's metadata, e.g. a licence that it does not know
            raise HubError(f"the hub does not take it: {' '.join(str(error).split())}") from error
    commit = str(done.oid)
    return Pushed(repository, url, revision or "main", commit, commit != about.sha, upload.sizes, stale)


def _of_prompts(present: Iterable[str]) -> set[str]:
    """The files of prompts and mixtures in a repository, by their paths.

    In a folder of it a card without weights, or weights without a card, may be anything that has this name.
    """
    there, partner = set(present), {CARD: WEIGHTS, WEIGHTS: CARD, MIXTURE_CARD: MIXTURE_CARD}
    found = set()
    for name in there:
        folder, slash, last = name.rpartition("/")
        if last in OWN_FILES and (not folder or f"{folder}{slash}{partner[last]}" in there):
            found.add(name)
    return found


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, names of entries too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            yield str(name)
            yield from _strings(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _strings(entry)
