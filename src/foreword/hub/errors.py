"""What the hub refuses, said in the words of somebody who wants to push or fetch a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from foreword.common.errors import PromptError

_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class HubError(PromptError):
    """A prompt that could not be brought to the hub, or from it."""


@contextmanager
def hub_errors(repository: str, revision: str | None = None) -> Iterator[None]:
    """Within the block, what huggingface_hub raises about `repository` becomes a `HubError` that says the remedy."""
    import httpx2
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        message = f"{repository} is gated: ask for access on its page, and {_LOGIN}"
        raise HubError(message) from error
    except RepositoryNotFoundError as error:
        message = f"the hub shows no repository {repository}: check the name; if it is private, {_LOGIN}"
        raise HubError(message) from error
    except RevisionNotFoundError as error:
        message = f"{repository} has no revision {revision!r}: expected a branch, a tag or a whole commit hash"
        raise HubError(message) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        cause = error.__cause__ or error
        message = f"{repository} is not in the hub's cache, and the hub was not reached ({_first_line(cause)})"
        raise HubError(f"{message}; unset HF_HUB_OFFLINE, or check the network") from error
    except HfHubHTTPError as error:
        raise HubError(_refusal(repository, error.response.status_code, error)) from error
    except httpx2.HTTPError as error:
        message = f"the hub was not reached for {repository} ({type(error).__name__}: {error}); check the network"
        raise HubError(message) from error
    except HFValidationError as error:
        raise HubError(f"{repository!r} is no repository's name for the hub: {_first_line(error)}") from error


def _refusal(repository: str, status: int, error: Exception) -> str:
    """What to do about a status that is not about the name."""
    if status == 401:
        return f"the hub wants to know who you are for {repository} (401): {_LOGIN}"
    if status == 403:
        return (
            f"the hub does not let you write to {repository} (403): the token needs the right to write, and the name "
            "before the slash has to be you or an organisation of yours"
        )
    if status == 412:
        return f"somebody else has changed {repository} in the meantime (412): push again"
    return f"the hub answered {status} for {repository}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
