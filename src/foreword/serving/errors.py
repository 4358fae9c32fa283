"""What a request can be refused for, in the form that OpenAI's clients read."""

from __future__ import annotations

from typing import Any

from foreword.common.errors import ForewordError

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 503: "overloaded_error"}


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

    def body(self) -> dict[str, Any]:
        """The JSON body: `{"error": {"message", "type", "code", "param"}}`, on every endpoint."""
        return error_body(self.status, self.message, self.code, self.param)


def error_body(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's API has it."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}
