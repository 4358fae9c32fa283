"""The service's configuration: defaults, a TOML file, the environment and options, each above those before it.

Importing this needs none of the packages of the extra `serve`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from foreword.errors import DataError, ForewordError, UnknownNameError, of_file
from foreword.files import read_toml
from foreword.settings import (
    DEFAULT_BACKBONE,
    Count,
    EncodingPrecision,
    Natural,
    NotNegative,
    Positive,
    Settings,
    hints,
    number_or_text,
)

PREFIX = "FOREWORD_SERVE_"
"""The environment's names: `FOREWORD_SERVE_PORT` for `port`, and so on."""

API_KEY = "FOREWORD_API_KEY"
"""The environment's one key that may do everything."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")

EVERY = "*"
"""In place of a key's domains: all of them, those to come too."""

LEAST = 16
"""Characters of a key, at least: shorter ones can be guessed."""


@dataclass(frozen=True)
class Key:
    """Who may ask, and for which domains. The key itself is never kept, only its SHA-256.

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
        """Whether it may use a domain's prompt and documents, and know that there is such a domain."""
        return self.sees_all or domain in self.domains

    @property
    def sees_all(self) -> bool:
        """Whether all domains are its own."""
        return EVERY in self.domains


@dataclass(frozen=True)
class ServeConfig(Settings):
    """The settings of a service.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0: any free one.
        hosts: names by which the service may be asked for (of the header `Host`, without the port); none: any, but on
            this machine's own address without keys only `localhost` and that address, so that no page of the web can
            reach it by a name of its own.
        proxies: addresses or networks of reverse proxies, whose `X-Forwarded-For` is believed; none: nobody's.
        root_path: path below which a reverse proxy serves this, e.g. `/foreword`.
        backbone: folder or hub name.
        revision: revision of the backbone on the hub.
        pooling: None: as the prompts were made, else the backbone's own.
        normalize: None: as the prompts were made, else the backbone's own.
        device: torch device; None: an accelerator if there is one.
        precision: numerical precision.
        max_length: maximum of tokens per text; None: the backbone's limit.
        passages: split longer documents into passages and score each document by its best one.
        bank: folder of prompts and mixtures.
        prompts: further folders, of one prompt or mixture each.
        collections: ids of collections to embed and search in memory.
        labels: show buttons on the page that mark a hit as relevant or not, in `labels.tsv` of its folder.
        use: collection -> the prompt that searches it, where that is not the one of its own name.
        index: a Milvus index: a file, or the address of a server.
        index_collection: Milvus collection with the index.
        index_token: of a Milvus server: `user:password` or an API key.
        data: folder of collections; None: FOREWORD_DATA, else the cache.
        batch_tokens: maximum of tokens in a forward pass, padding included.
        batch_texts: maximum of texts in a forward pass.
        wait_ms: milliseconds that a text waits for others to share its forward pass, if none is running.
        queue_texts: maximum of waiting texts; further requests are answered 503.
        queue_searches: maximum of searches that run or wait; further requests are answered 503.
        max_connections: maximum of connections; further ones are answered 503.
        max_body_bytes: maximum of bytes in a request; 16 times as many in all current requests.
        read_seconds: seconds that a request's headers may take to come, and its body.
        max_texts: maximum of texts in a request.
        max_characters: characters of a query; and of a text, until it has the tokens that it is cut to.
        max_tokens: maximum of tokens in a request, after truncation.
        max_k: maximum of hits per query.
        stop_seconds: seconds that pending requests have to finish when the service stops.
        token_arrays: what arrays of token ids are read as: `refuse`; `backbone`, its tokenizer's; or the name of a
            tiktoken encoding such as `cl100k_base`, which LangChain sends unless told otherwise.
        keys: who may use the service; none: everyone.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    root_path: str = ""
    backbone: str = DEFAULT_BACKBONE
    revision: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    device: str | None = None
    precision: EncodingPrecision = "float32"
    max_length: int | None = None
    passages: bool = True
    bank: Path | None = None
    prompts: tuple[Path, ...] = ()
    collections: tuple[str, ...] = ()
    labels: bool = False
    use: Mapping[str, str] = field(default_factory=dict)
    index: str | None = field(default=None, repr=False)
    index_collection: str = "foreword"
    index_token: str | None = field(default=None, repr=False)
    data: Path | None = None
    batch_tokens: Count = 8192
    batch_texts: Count = 64
    wait_ms: NotNegative = 3.0
    queue_texts: Count = 8192
    queue_searches: Count = 100
    max_connections: Count = 500
    max_body_bytes: Count = 8 * 2**20
    read_seconds: Positive = 20.0
    max_texts: Count = 2048
    max_characters: Count = 100_000
    max_tokens: Count = 300_000
    max_k: Count = 1000
    stop_seconds: Natural = 30
    token_arrays: str = "refuse"
    keys: tuple[Key, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.port < 65536:
            raise ForewordError(f"port is {self.port}; expected 0 (a free one) to 65535")
        if self.queue_texts < self.max_texts:
            raise ForewordError(
                f"queue_texts is {self.queue_texts}, max_texts {self.max_texts}: a full request would never fit"
            )
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ForewordError(f"root_path is {self.root_path!r}; expected a path such as /foreword")
        if any(len({getattr(key, kind) for key in self.keys}) < len(self.keys) for kind in ("name", "digest")):
            raise ForewordError("two of the API keys have one name or one value; give each its own")
        if unknown := set(self.use) - set(self.collections) if self.index is None else set():
            raise UnknownNameError(f"use names {', '.join(sorted(unknown))}, which is not among the collections")

    @property
    def accepted_hosts(self) -> frozenset[str] | None:
        """The names by which it may be asked for, in small letters; None: any."""
        if self.hosts:
            return frozenset(name.casefold() for name in self.hosts)
        return frozenset(LOOPBACK) if self.host in LOOPBACK and not self.keys else None

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values, without secrets: of a key, its name and what it may do."""
        from foreword.indexing.store import shown

        values = {name: getattr(self, name) for name in hints(ServeConfig)}
        for name, value in values.items():
            if isinstance(value, Path):
                values[name] = str(value)
            elif isinstance(value, tuple):
                values[name] = list(map(str, value))
        values["use"] = dict(self.use)
        values["index"] = None if self.index is None else shown(self.index)
        values["index_token"] = None if self.index_token is None else "(set)"
        values["keys"] = [{"name": key.name, "domains": list(key.domains), "admin": key.admin} for key in self.keys]
        return values


def read_config(
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> ServeConfig:
    """The effective configuration.

    Args:
        file: in TOML, its keys the fields of `ServeConfig`, `[use]` a table, `[[keys]]` tables of `name`, one of `env`
            (the variable that holds the key), `sha256` and `key`, `domains` (all, unless given) and `admin`; None:
            `FOREWORD_SERVE_CONFIG`, where it is set.
        options: of the command line; None is not given.
        environment: None: the process's own.

    Raises:
        DataError: the file cannot be read.
        UnknownNameError: it, or the environment, has a name that is no setting.
        ForewordError: a value is not what it should be.
    """
    environment = os.environ if environment is None else environment
    file = file or (Path(environment[f"{PREFIX}CONFIG"]) if environment.get(f"{PREFIX}CONFIG") else None)
    values = _of_file(file, environment) if file is not None else {}
    for variable in sorted(environment):
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or name == "config":
            continue
        if name in ("keys", "use"):
            raise UnknownNameError(
                f"{variable}: {name} can be given in a file (--config) only, or {API_KEY} for one key"
            )
        values[name] = _typed(name, environment[variable], variable, text=True)
    values |= {name: value for name, value in (options or {}).items() if value is not None}
    if API_KEY in environment:  # an empty one is refused: a secret that was not filled in would open the service
        values["keys"] = (*values.get("keys", ()), key_of_value(API_KEY, environment[API_KEY], admin=True))
    try:
        return ServeConfig(**values)
    except ForewordError as error:
        raise error if file is None else type(error)(f"{error} (with what {file} says)") from error


def _of_file(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    table = read_toml(path)
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name != "keys":
            values[name] = _typed(name, value, str(path))
        elif not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise DataError("keys are given as tables: [[keys]]", path=path)
        else:
            with of_file(path):
                values[name] = tuple(_key_of_table(entry, environment, str(path)) for entry in value)
    return values


def _typed(name: str, value: Any, where: str, *, text: bool = False) -> Any:
    """A value as the field's type, which is then checked with the others; `text`: it comes from the environment."""
    if name not in hints(ServeConfig):
        raise UnknownNameError(f"{where}: no setting {name!r}; there are: {', '.join(sorted(hints(ServeConfig)))}")
    place = where if text else f"{where}: {name}"
    kind = number_or_text(hints(ServeConfig)[name])
    if name == "use":
        if not isinstance(value, dict) or not all(isinstance(entry, str) for entry in value.values()):
            raise ForewordError(f"{place} is {value!r}; expected a table of collection = prompt")
        return value
    if get_origin(kind) is tuple:
        entries = value.split() if text else value
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise ForewordError(f"{place} is {value!r}; expected a list of texts")
        return tuple(map(get_args(kind)[0], entries))
    if text and kind is bool and value in ("true", "false"):
        return value == "true"
    if text and kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            raise ForewordError(f"{place} is {value!r}; expected a number") from None
    accepted = {int: (int,), float: (float, int), bool: (bool,)}.get(kind, (str,))
    if type(value) not in accepted:
        raise ForewordError(f"{place} is {value!r}; expected {accepted[0].__name__}")
    return Path(value) if kind is Path else value


def key_of_value(name: str, value: str, domains: Sequence[str] = (EVERY,), *, admin: bool = False) -> Key:
    """A key by its value. Raises `ForewordError` for one that is short or has characters no header carries."""
    if len(value) < LEAST or not value.isascii() or not value.isprintable() or " " in value:
        raise ForewordError(
            f"the API key {name!r} has {len(value)} characters; expected {LEAST} or more, ASCII without blanks: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
        )
    return Key(name, hashlib.sha256(value.encode()).hexdigest(), tuple(domains), admin)


def _key_of_table(table: Mapping[str, Any], environment: Mapping[str, str], where: str) -> Key:
    """A key of the configuration's file, see `read_config`."""
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
