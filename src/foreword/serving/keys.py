"""API keys: who may ask, and for which domains. A key itself is never kept, only its SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.common.errors import ForewordError
from foreword.serving.errors import RequestError

EVERY = "*"
"""In place of domains: all of them, those to come too."""

LEAST = 16
"""Characters of a key, at least: shorter ones can be guessed."""


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: of whom it belongs to, for the log and the configuration.
        digest: SHA-256 of the key, hexadecimal.
        domains: that it may use; `*`: all. The base model is everyone's.
        admin: it may reload the prompts and read the metrics.
    """

    name: str
    digest: str
    domains: tuple[str, ...] = (EVERY,)
    admin: bool = False

    def may_use(self, domain: str) -> bool:
        """Whether it may use a domain's prompt and documents."""
        return EVERY in self.domains or domain in self.domains

    def as_dict(self) -> dict[str, Any]:
        """What it may do, as JSON values; not the digest."""
        return {"name": self.name, "domains": list(self.domains), "admin": self.admin}


ANYONE = Key("anyone", "", admin=True)
"""Who asks where no keys are configured."""


def key_of_value(name: str, value: str, domains: Sequence[str] = (EVERY,), *, admin: bool = False) -> Key:
    """A key by its value. Raises `ForewordError` for one that is short or has characters no header carries."""
    if len(value) < LEAST or not value.isascii() or not value.isprintable() or " " in value:
        raise ForewordError(
            f"the API key {name!r} has {len(value)} characters; expected {LEAST} or more, ASCII without blanks: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
        )
    return Key(name, hashlib.sha256(value.encode()).hexdigest(), tuple(domains), admin)


def key_of_table(table: Mapping[str, Any], environment: Mapping[str, str], where: str) -> Key:
    """A key of the configuration's file.

    Args:
        table: `name`; one of `env` (the variable that holds the key), `sha256` and `key`; `domains` (all, unless
            given) and `admin`.
        environment: for `env`.
        where: for messages.

    Raises:
        ForewordError: it is not of this form, or the variable is not set.
    """
    name, given = table.get("name"), [kind for kind in ("env", "sha256", "key") if kind in table]
    extra = set(table) - {"name", "env", "sha256", "key", "domains", "admin"}
    domains, admin = table.get("domains", [EVERY]), table.get("admin", False)
    if not isinstance(name, str) or not name or len(given) != 1 or extra or not isinstance(table[given[0]], str):
        raise ForewordError(f"{where}: a key has a name and one of env, sha256 and key; got {', '.join(sorted(table))}")
    if not isinstance(domains, list) or not all(isinstance(entry, str) for entry in domains) or type(admin) is not bool:
        raise ForewordError(f"{where}: of key {name!r}, domains is a list of names and admin true or false")
    value = table[given[0]]
    if given[0] == "sha256":
        if not re.fullmatch("[0-9a-f]{64}", value):
            raise ForewordError(f"{where}: sha256 of key {name!r} is not 64 hexadecimal digits in lower case")
        return Key(name, value, tuple(domains), admin)
    if given[0] == "env":
        if not environment.get(value):
            raise ForewordError(f"{where}: key {name!r} is to be in the variable {value}, which is not set")
        value = environment[value]
    return key_of_value(name, value, domains, admin=admin)


def authenticate(keys: Sequence[Key], header: str | None) -> Key:
    """The key of an `Authorization` header. Raises `RequestError` (401) for none, or one that is not known."""
    if not keys:
        return ANYONE
    scheme, _, value = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        message = "no API key; send the header 'Authorization: Bearer KEY'"
        raise RequestError(message, 401, "missing_api_key")
    digest = hashlib.sha256(value.strip().encode()).hexdigest()
    found = [key for key in keys if hmac.compare_digest(key.digest, digest)]
    if not found:
        raise RequestError("this API key is not known here", 401, "invalid_api_key")
    return found[0]
