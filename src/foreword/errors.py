"""The errors that users meet: each says what was got, what was expected and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self


class ForewordError(Exception):
    """Base of every error that is the input's fault, not the program's; the command line exits with 1."""


class DataError(ForewordError):
    """A collection's file is broken. The message names the file, the line (from 1) and the remedy."""

    def __init__(self, message: str, *, path: Path | str | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(f"{where}{message}")
        self.path = path
        self.line = line


class TooLittleTextError(DataError):
    """A collection has too little text for what was asked; the base model is the safe choice."""


class NoGainError(ForewordError):
    """What was made is not shown to be better than the base model, which is the safe choice."""


class UnknownNameError(ForewordError):
    """A name (collection, measure, system, option) that is not known; the message lists near matches."""


class BackboneError(ForewordError):
    """A backbone that cannot be found, or cannot carry the prompt asked for."""


class OtherTrainingError(ForewordError):
    """A folder holds a training of other settings or data than the one asked for."""


class PromptError(ForewordError):
    """A prompt that cannot be loaded, combined or used here."""


class HubError(PromptError):
    """A prompt that could not be brought to the hub, or from it."""


@contextmanager
def of_file(path: Path | str, refusal: type[ForewordError] = DataError) -> Iterator[None]:
    """Within the block, every error names the file that is read; what Python raises for a wrong form is a `refusal`."""
    try:
        yield
    except ForewordError as error:
        raise error if str(path) in str(error) else type(error)(f"{path}: {error}") from error
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise refusal(f"{path} cannot be read ({type(error).__name__}: {said[:300]}): it was cut or altered") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory, the machine's or an accelerator's, was too small."""
    from accelerate.utils.memory import should_reduce_batch_size  # knows torch's words for it, of each kind of device

    return isinstance(error, MemoryError) or (isinstance(error, Exception) and should_reduce_batch_size(error))


@contextmanager
def hub_errors(repository: str, revision: str | None = None) -> Iterator[None]:
    """Within the block, what huggingface_hub raises about `repository` becomes a `HubError` that says the remedy."""
    import httpx2
    from huggingface_hub import errors as hub

    try:
        yield
    except (hub.HfHubHTTPError, hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, httpx2.HTTPError) as error:
        raise HubError(_hub_refusal(error, repository, revision)) from error
    except hub.HFValidationError as error:
        raise HubError(f"{repository!r} is no repository's name for the hub: {_first_line(error)}") from error


def _hub_refusal(error: Exception, repository: str, revision: str | None) -> str:
    """What the hub refuses, in the words of somebody who wants to push or fetch a prompt."""
    from huggingface_hub import errors as hub

    login = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, hub.GatedRepoError):
        return f"{repository} is gated: ask for access on its page, and {login}"
    if isinstance(error, hub.RepositoryNotFoundError):
        return f"the hub shows no repository {repository}: check the name; if it is private, {login}"
    if isinstance(error, hub.RevisionNotFoundError):
        return f"{repository} has no revision {revision!r}: expected a branch, a tag or a whole commit hash"
    if isinstance(error, hub.LocalEntryNotFoundError | hub.OfflineModeIsEnabled):
        message = f"{repository} is not in the hub's cache, and the hub was not reached"
        cause = _first_line(error.__cause__ or error)
        return f"{message} ({cause}); unset HF_HUB_OFFLINE, or check the network"
    if not isinstance(error, hub.HfHubHTTPError):
        return f"the hub was not reached for {repository} ({type(error).__name__}: {error}); check the network"
    status = error.response.status_code
    return {
        401: f"the hub wants to know who you are for {repository} (401): {login}",
        403: f"the hub does not let you write to {repository} (403): the token needs the right to write, and the name "
        "before the slash has to be you or an organisation of yours",
        412: f"somebody else has changed {repository} in the meantime (412): push again",
    }.get(status, f"the hub answered {status} for {repository}: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class IndexingError(ForewordError):
    """An index that cannot be opened, written or searched as asked."""

    @classmethod
    def absent(cls, uri: str) -> Self:
        """There is none."""
        return cls(f"there is no index {uri}; `foreword index build {uri} COLLECTION` makes one")


class IndexBusyError(IndexingError):
    """A Milvus Lite file that belongs to another process."""


class OtherEncoderError(IndexingError):
    """Queries or documents of another backbone, or of a prompt that did not embed what is stored."""


_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 503: "overloaded_error"}
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}


class RequestError(ForewordError):
    """A request that is refused.

    Args:
        message: what was got, what was expected, how to mend it.
        status: of HTTP.
        code: a word for programs.
        param: the field that is wrong; None: none in particular.
    """

    def __init__(self, message: str, status: int = 422, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.code, self.param = message, status, code, param

    @property
    def headers(self) -> dict[str, str]:
        """What the answer bears besides: how to come in, or when to come again."""
        return _HEADERS.get(self.status, {})

    def body(self) -> dict[str, Any]:
        """The JSON body: `{"error": {"message", "type", "code", "param"}}`, on every endpoint."""
        return error_body(self.status, self.message, self.code, self.param)


def error_body(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's API has it."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}
