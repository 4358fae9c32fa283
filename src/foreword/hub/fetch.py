"""`hf:user/name`: a prompt, a mixture or a bank that lies on the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from foreword.common.errors import PromptError
from foreword.hub.errors import HubError, hub_errors

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


def is_on_hub(name: object) -> bool:
    """Whether a prompt's place is written as one on the hub."""
    return str(name).startswith(SCHEME)


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

    from foreword.hub.contents import OWN_FILES, read_contents

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
