"""The endpoints of `/v1`, as OpenAI's API has them, of `/search` and `/domains`, and of `/bank`."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator
from pydantic_core import PydanticCustomError
from sentence_transformers import SentenceTransformer

from foreword.collections.folder import query_labels, write_label
from foreword.collections.text_files import find_file, media_type
from foreword.errors import DataError, RequestError
from foreword.evaluation.group import FORMAT as GROUP_FORMAT
from foreword.files import read_json
from foreword.indexing import IndexHit
from foreword.prompts.inspect import bank_words
from foreword.prompts.store import StoredPrompt, folder_name
from foreword.serving.config import Key
from foreword.serving.prompts import BASE_MODEL, Served, Way
from foreword.serving.search import Searcher, check_where
from foreword.serving.service import Service, State
from foreword.settings import SIDES, Side
from foreword.training.dev import MEASURE
from foreword.transferring.reach import FILE as FEATURES
from foreword.transferring.reach import bank_features, similarity, source_domains


class Reply(JSONResponse):
    """JSON, whatever text or number a collection or a card holds.

    Half a surrogate pair is escaped, as JSON escapes it; what is no finite number is null.
    """

    def render(self, content: Any) -> bytes:
        """The bytes."""
        how: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
        try:
            text = json.dumps(content, **how)
        except ValueError:
            text = json.dumps(_finite(content), **how)
        return text.encode("utf-8", "backslashreplace")


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content


# -- bodies; those of answers are for the documentation of the endpoints ---------------------------------------------


class Body(BaseModel):
    """The body of a request. Of a million wrong entries, the first is enough to refuse it."""

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: Any) -> Any:
        """The fields there are, and of others the first."""
        if not isinstance(values, dict):
            return values
        other = next((name for name in values if name not in cls.model_fields), None)
        return {name: values[name] for name in (*cls.model_fields, other) if name in values}


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = {"why": error.reason, "place": error.start}
        raise PydanticCustomError("unicode", "it is no Unicode text: {why} at character {place}", what) from None
    return text


Text = Annotated[StrictStr, AfterValidator(_unicode)]
Texts = Annotated[list[Text], Field(fail_fast=True)]
Ids = Annotated[list[StrictInt], Field(fail_fast=True)]


class EmbeddingsBody(Body):
    """The request of `POST /v1/embeddings`, as OpenAI's API has it, and `input_type` besides."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [{"model": "base", "input": ["how to stop gradients"], "encoding_format": "float"}]
        },
    )

    model: Text = Field(description="`base` or a domain, with `:query` or `:document` behind it")
    input: Text | Texts | Ids | Annotated[list[Ids], Field(fail_fast=True)] = Field(
        description="a text or texts; arrays of token ids where the service is configured for them"
    )
    encoding_format: Literal["float", "base64"] | None = Field(None, description="null is `float`")
    dimensions: StrictInt | None = Field(
        None, description="the backbone's width, if given; embeddings are not shortened"
    )
    input_type: Side | None = Field(
        None, description="the side, where the model's name does not say it; not in OpenAI's API"
    )
    user: Any = Field(None, description="ignored")


class EmbeddingAnswer(BaseModel):
    """One text's embedding: numbers, or base64 of little-endian float32."""

    object: str
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens, after texts were cut."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """The answer of `/v1/embeddings`."""

    object: str
    data: list[EmbeddingAnswer]
    model: str
    usage: Usage


class ModelAnswer(BaseModel):
    """One model."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelsAnswer(BaseModel):
    """The models."""

    object: str
    data: list[ModelAnswer]


class SearchBody(Body):
    """The request of `POST /search`: `query` or `queries`."""

    model_config = ConfigDict(extra="forbid")

    domain: Text
    query: Text | None = None
    queries: Texts | None = None
    systems: Texts | None = Field(None, description="of the domain's; none: all of them")
    k: StrictInt = Field(10, ge=1)
    where: dict[str, Any] | None = Field(
        None, description="a filter by metadata: field -> a value, or a list of values of which it has one"
    )


class LabelBody(Body):
    """The request of `POST /labels`: what a query's labels are, or with a `file`, what one is to be."""

    model_config = ConfigDict(extra="forbid")

    domain: Text
    query: Text
    file: Text | None = Field(None, description="its path in the domain's folder; none: only ask")
    grade: StrictInt | None = Field(
        None, ge=0, le=1, description="1: it answers the query, 0: it does not; none: remove"
    )


class LabelAnswer(BaseModel):
    """The labels of a query."""

    labels: dict[str, int] = Field(description="file -> grade")


class HitAnswer(BaseModel):
    """One document that was found."""

    rank: int
    doc_id: str
    title: str
    text: str = Field(description="of the document; where it is in passages, of the one that was found")
    score: float
    passage: dict[str, int] | None = Field(
        description="which one: number (from 1), of, and start and end in the document's text, in code points"
    )
    metadata: dict[str, Any]


class QueryAnswer(BaseModel):
    """One query's hits by each system."""

    query: str
    systems: dict[str, list[HitAnswer]]


class SearchAnswer(BaseModel):
    """The answer of `/search`."""

    domain: str
    k: int
    results: list[QueryAnswer]
    milliseconds: float


class ErrorDetail(BaseModel):
    """What went wrong: for people, and by `code` for programs."""

    message: str
    type: str
    code: str
    param: str | None


class ErrorAnswer(BaseModel):
    """Every error, on every endpoint."""

    error: ErrorDetail


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        400: "The request cannot be read, or asks for what is not to be had",
        401: "No API key, or one that is not known",
        403: "The key may not use this domain, or is no admin's; without keys: a page of another site asks",
        404: "No such model or domain",
        408: "The request took too long to come",
        409: "The index was embedded again since the prompts were loaded, or a label cannot be written",
        413: "The request's body is too large",
        421: "The service has no such name (header Host)",
        422: "A field is wrong, or there are too many texts or tokens",
        503: "Too much waits, or the service is being stopped; Retry-After says when to ask again",
    }.items()
}

# A domain's name is a model where queries and documents are encoded alike. Where they differ, `DOMAIN:query` and
# `DOMAIN:document` are, so that a client that knows of no sides can ask for either, and `DOMAIN` alone is refused
# unless `input_type` says the side: a side that is guessed wrong would show in nothing but bad results.


def openai_router(service: Service) -> APIRouter:
    """The endpoints `/v1/embeddings` and `/v1/models`."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=REFUSALS)
    created = int(time.time())

    @router.post("/embeddings", response_model=EmbeddingsAnswer)
    async def embeddings(body: EmbeddingsBody, request: Request) -> Reply:
        """Embed texts, as `foreword.encode` does."""
        domain = check_allowed(request.state.key, body.model)
        if body.dimensions is not None and body.dimensions != service.width:
            message = f"dimensions is {body.dimensions}; these embeddings have {service.width} and cannot be shortened"
            raise RequestError(message, 400, "dimensions_unsupported", "dimensions")
        texts = await _texts(service, body.input)
        async with service.keep() as state:
            way = find_way(body.model, body.input_type, state.served, service.base, request.state.key)
            rows = await service.rows(texts, way)
            vectors = await service.embed(rows)
        tokens = sum(row.tokens for row in rows)
        service.metrics.texts.labels(domain).inc(len(texts))
        service.metrics.tokens.labels(domain).inc(tokens)
        if body.encoding_format != "base64":
            written = vectors.tolist()
        else:
            written = [base64.b64encode(vector.tobytes()).decode("ascii") for vector in vectors.astype("<f4")]
        data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(written)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Reply({"object": "list", "data": data, "model": body.model, "usage": usage})

    def listed(key: Key) -> list[dict[str, Any]]:
        names = model_names(service.state.served, service.base, key)
        return [{"id": name, "object": "model", "created": created, "owned_by": "foreword"} for name in names]

    @router.get("/models", response_model=ModelsAnswer)
    async def models(request: Request) -> Reply:
        """The models that the key may use: `base`, and each domain's prompt."""
        return Reply({"object": "list", "data": listed(request.state.key)})

    @router.get("/models/{model:path}", response_model=ModelAnswer)
    async def model(model: str, request: Request) -> Reply:
        """One of them."""
        check_allowed(request.state.key, model)
        found = next((entry for entry in listed(request.state.key) if entry["id"] == model), None)
        if found is None:
            raise RequestError(f"no model {model!r}; GET /v1/models lists them", 404, "model_not_found", "model")
        return Reply(found)

    return router


def split_model(model: str) -> tuple[str, Side | None]:
    """A model's domain and side: `("pydoc/torch", "query")` of `pydoc/torch:query`; None: it does not say."""
    domain, _, side = model.rpartition(":")
    return next(((domain, known) for known in SIDES if known == side), (model, None))


def model_names(served: Mapping[str, Served], base: Mapping[Side, Way], key: Key) -> list[str]:
    """The names that a key may ask for."""
    names: list[str] = []
    for domain, ways in ((BASE_MODEL, base), *((name, one.ways) for name, one in served.items() if key.may_use(name))):
        differ = ways["query"] != ways["document"]
        names += [f"{domain}:{side}" for side in SIDES] if differ else [domain]
    return names


def find_way(model: str, asked: Side | None, served: Mapping[str, Served], base: Mapping[Side, Way], key: Key) -> Way:
    """What encodes the texts of a request for `model`: `base` or a domain, with or without a side behind it.

    Raises `RequestError`: 404, no such model; 400, the side is not said where it matters, or said twice (in the name
    and by `asked`, the request's `input_type`).
    """
    domain, side = split_model(model)
    if domain != BASE_MODEL and domain not in served:
        known = model_names(served, base, key)
        message = f"no model {model!r}; there are: {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}"
        raise RequestError(message, 404, "model_not_found", "model")
    if side is not None and asked is not None and side != asked:
        message = f"model {model!r} is for a {side}, input_type says {asked}"
        raise RequestError(message, 400, "side_conflict", "input_type")
    side = side or asked
    ways = base if domain == BASE_MODEL else served[domain].ways
    if side is None and ways["query"] != ways["document"]:
        message = (
            f"{domain!r} encodes queries and documents differently: ask for model '{domain}:query' or "
            f"'{domain}:document', or send input_type"
        )
        raise RequestError(message, 400, "side_required", "model")
    return ways[side or "query"]


def check_allowed(key: Key, model: str) -> str:
    """A model's domain. Raises `RequestError` (403), whether it is there or not, for a key that may not use it."""
    domain, _ = split_model(model)
    if domain != BASE_MODEL and not key.may_use(domain):
        message = f"the key {key.name!r} may not use {domain!r}; it may use: base, {', '.join(key.domains)}"
        raise RequestError(message, 403, "domain_not_allowed", "model")
    return domain


async def _texts(service: Service, given: str | list[str] | list[int] | list[list[int]]) -> list[str]:
    """The texts of a request. Raises `RequestError` for none, too many, or token ids where they are refused."""
    inputs: list[Any] = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)
    if not inputs:
        raise RequestError("input is an empty list; send one text or more", code="empty_input", param="input")
    if len(inputs) > service.config.max_texts:
        message = f"input has {len(inputs)} texts; {service.config.max_texts} are allowed in a request"
        raise RequestError(message, code="too_many_texts", param="input")
    if isinstance(inputs[0], str):
        return inputs
    service.check_tokens(sum(map(len, inputs)))
    texts: list[str] = await service.with_tokens(lambda tokens: tokens.decode(inputs))
    return texts


MOST_HITS = 100_000
"""Hits in one answer, each with its document's text: queries times systems times k."""


def search_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["search"], responses=REFUSALS)
    views: WeakKeyDictionary[State, dict[str, Any]] = WeakKeyDictionary()
    viewing, labelling = asyncio.Lock(), asyncio.Lock()

    def answer(hit: IndexHit) -> dict[str, Any]:
        plain = {name: getattr(hit, name) for name in ("rank", "doc_id", "text", "score", "passage")}
        return {**plain, "title": hit.title or str(hit.metadata.get("name", "")), "metadata": dict(hit.metadata)}

    @router.post("/search", response_model=SearchAnswer)
    async def search(body: SearchBody, request: Request) -> Reply:
        """Search a domain's documents by the base model, by the domain's prompt and by BM25."""
        began = time.monotonic()
        queries = _queries(body, service.config.max_texts, service.config.max_characters)
        if body.k > service.config.max_k:
            raise RequestError(f"k is {body.k}; {service.config.max_k} hits a query are allowed", param="k")
        where = check_where(body.where)
        async with service.keep() as state:
            searcher, systems = _chosen(state, request.state.key, body)
            if len(queries) * len(systems) * body.k > MOST_HITS:
                message = (
                    f"{len(queries)} queries by {len(systems)} systems with {body.k} hits each; {MOST_HITS} hits are "
                    "allowed in an answer: send fewer queries at a time, or a smaller k"
                )
                raise RequestError(message, code="too_many_hits", param="k")
            searches = [partial(searcher.search, queries, body.domain, name, body.k, where) for name in systems]
            with service.searching():
                # where one has failed the others are waited for, since they need the prompts
                found: list[Any] = await asyncio.gather(*map(service.in_thread, searches), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        for system in systems:
            service.metrics.searches.labels(body.domain, system).inc(len(queries))
        answers = [[list(map(answer, hits)) for hits in one] for one in found]  # by system, then query
        results = [
            {"query": query, "systems": dict(zip(systems, one, strict=True))}
            for query, *one in zip(queries, *answers, strict=True)
        ]
        milliseconds = round((time.monotonic() - began) * 1000, 3)
        return Reply({"domain": body.domain, "k": body.k, "results": results, "milliseconds": milliseconds})

    @router.get("/domains")
    async def domains(request: Request) -> Reply:
        """The domains that the key may use: their prompts, and what searches them."""
        backbone = {name: service.backbone[name] for name in ("name", "fingerprint")}
        found = service.domains(request.state.key)
        return Reply({"backbone": backbone, "domains": list(found.values())})

    @router.get("/file", response_class=FileResponse)
    async def file(domain: str, file: str, request: Request) -> FileResponse:
        """The file that a document was read from, by its path in the domain's folder (`file` of a hit's metadata).

        Documents alone are given: neither what else lies in the folder, nor what a link leads to outside it. Scripts in
        them do not run.
        """
        path = await _file(service, request.state.key, domain, file)
        kind = media_type(path)
        if kind != "application/pdf":  # browsers show none in a sandbox, and have one of their own for it
            request.state.policy = SANDBOX
        return FileResponse(path, media_type=kind, filename=path.name, content_disposition_type="inline")

    @router.post("/labels", response_model=LabelAnswer)
    async def labels(body: LabelBody, request: Request) -> Reply:
        """Which files answer a query, as `labels.tsv` in the domain's folder says: ask, or change one line of it."""
        check_domain(request.state.key, body.domain)
        query = " ".join(body.query.split())
        _check_texts([query], "query", service.config.max_characters)
        found = service.state.domains().get(body.domain)
        if not service.config.labels or found is None or not found.folder:
            message = (
                f"no labels of {body.domain!r} are kept here; start the service with --labels, on a folder of files"
            )
            raise RequestError(message, 404, "labels_off", "domain")
        folder, grade = Path(found.folder), body.grade
        async with labelling:
            if (name := body.file) is not None:
                await _file(service, request.state.key, body.domain, name)
                try:
                    await service.in_thread(lambda: write_label(folder, query, name, grade))
                except (DataError, OSError) as error:
                    raise RequestError(f"the label was not written: {error}", 409, "label_refused", "file") from error
            return Reply({"labels": await service.in_thread(lambda: query_labels(folder, query))})

    @router.get("/bank")
    async def bank(request: Request) -> Reply:
        """The prompts beside each other: similarity, transfer, figures and words, as far as the bank's files say."""
        async with service.keep() as state, viewing:
            if state not in views:
                made = await service.in_thread(lambda: bank_view(service.encoder, state.served, service.config.bank))
                views[state] = made
            view = views[state]
        return Reply(of_key(view, request.state.key))

    return router


SANDBOX = "; sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Added to the policy of a file's answer: what it holds can neither run nor ask this service."""


def check_domain(key: Key, domain: str) -> None:
    """Raise `RequestError` (403), whether it is there or not, for a domain that a key may not use."""
    if not key.may_use(domain):
        message = f"the key {key.name!r} may not use {domain!r}; it may use: {', '.join(key.domains)}"
        raise RequestError(message, 403, "domain_not_allowed", "domain")


async def _file(service: Service, key: Key, domain: str, name: str) -> Path:
    """A document's file; `RequestError` (403, 404): not the key's domain, or no document of its folder."""
    check_domain(key, domain)
    found = service.state.domains().get(domain)
    folder = Path(found.folder) if found is not None and found.folder else None
    path: Path | None = None if folder is None else await service.in_thread(lambda: find_file(folder, name))
    if folder is None or path is None or not path.resolve().is_relative_to(folder):
        raise RequestError(f"{domain!r} has no file {name!r} here", 404, "file_not_found", "file")
    return path


def _queries(body: SearchBody, most: int, characters: int) -> list[str]:
    if (body.query is None) == (body.queries is None):
        raise RequestError("send either query, a text, or queries, a list of texts", param="query")
    name = "query" if body.query is not None else "queries"
    queries = [body.query] if body.query is not None else list(body.queries or [])
    if len(queries) > most:
        message = f"queries has {len(queries)} texts; {most} are allowed in a request"
        raise RequestError(message, code="too_many_texts", param=name)
    _check_texts(queries, name, characters)
    return queries


def _check_texts(queries: Sequence[str], name: str, characters: int) -> None:
    """Raise `RequestError` for no query, a blank one or one that is too long; `name` is the field's."""
    if not queries or any(not query.strip() for query in queries):
        raise RequestError(f"{name} is empty or blank; send what to search for", code="empty_input", param=name)
    if (longest := max(map(len, queries))) > characters:
        message = f"{name} has one of {longest} characters; {characters} are allowed: send less of it"
        raise RequestError(message, code="text_too_long", param=name)


def _chosen(state: State, key: Key, body: SearchBody) -> tuple[Searcher, list[str]]:
    """Who searches the domain, and by which systems."""
    check_domain(key, body.domain)
    searcher = state.searcher(body.domain)
    if searcher is None:
        known = [name for each in state.searchers for name in each.domains() if key.may_use(name)]
        message = f"{body.domain!r} has no documents here; there are: {', '.join(known[:20]) or 'none'}"
        raise RequestError(message, 404, "domain_not_found", "domain")
    have = searcher.domains()[body.domain].systems
    systems = list(dict.fromkeys(have if body.systems is None else body.systems))
    unknown = [system for system in systems if system not in have]
    if unknown or not systems:
        message = f"{body.domain!r} is searched by {', '.join(have)}; got {', '.join(unknown) or 'none'}"
        raise RequestError(message, code="unknown_system", param="systems")
    return searcher, systems


EVALUATION = "evaluation/group.json"


def bank_view(encoder: SentenceTransformer, served: Mapping[str, Served], bank: Path | None) -> dict[str, Any]:
    """The names, the similarity of the domains, the matrix of transfer, the figures, and the words near the prompts.

    The folder `bank` may hold `features.safetensors` (of `foreword advise`) and what `foreword evaluate --group ...
    --systems each` wrote to its folder `evaluation`.
    """
    stored = {name: one.stored for name, one in served.items() if one.stored is not None}

    def absent(name: str) -> Any:
        raise DataError(f"{name} has no features in {bank}/{FEATURES}")

    rows, transfer = ([], None) if bank is None else _of_evaluation(bank / EVALUATION, served)
    similarities = None
    if bank is not None and (bank / FEATURES).is_file():
        features = bank_features(bank, encoder, source_domains(stored), absent, quiet=True).features
        if len(features) > 1:  # the cosine of the domains' mean document embeddings
            values = [[round(similarity(a, b), 6) for b in features.values()] for a in features.values()]
            similarities = {"names": list(features), "values": values}
    return {
        "names": list(served),
        "similarity": similarities,
        "transfer": transfer,
        "figures": _of_cards(stored) + rows,
        "words": _words(encoder, stored),
    }


OWN_SYSTEMS = ("base", "bm25", "prompt", "start")
"""Systems that are called alike on every domain; others are called by a prompt, which may be another domain's."""


def of_key(view: Mapping[str, Any], key: Key) -> dict[str, Any]:
    """The view without what a key may not see."""
    if key.sees_all:
        return dict(view)
    systems = {*OWN_SYSTEMS, *key.domains, *map(folder_name, key.domains)}

    def cut(table: Mapping[str, Any] | None, rows: str, columns: str) -> dict[str, Any] | None:
        if table is None:
            return None
        kept = {axis: [i for i, name in enumerate(table[axis]) if key.may_use(name)] for axis in (rows, columns)}
        values = [[table["values"][i][j] for j in kept[columns]] for i in kept[rows]]
        named = {axis: [table[axis][i] for i in places] for axis, places in kept.items()}
        return {**table, **named, "values": values} if all(kept.values()) else None

    return {
        "names": [name for name in view["names"] if key.may_use(name)],
        "similarity": cut(view["similarity"], "names", "names"),
        "transfer": cut(view["transfer"], "sources", "targets"),
        "figures": [one for one in view["figures"] if key.may_use(one["domain"]) and one["system"] in systems],
        "words": {name: words for name, words in view["words"].items() if key.may_use(name)},
    }


def _of_cards(stored: Mapping[str, StoredPrompt]) -> list[dict[str, Any]]:
    """The start's and the kept step's value on the dev split, where training looked at one."""
    figures = []
    for name, one in stored.items():
        metrics = one.card.get("metrics") or {}
        found = {entry["step"]: entry.get("dev") for entry in metrics.get("dev") or []}
        for system, step in (("start", 0), ("prompt", metrics.get("best_step"))):
            if found.get(step) is not None:
                figures.append({"domain": name, "system": system, "measure": f"{MEASURE} (dev)", "value": found[step]})
    return figures


def _of_evaluation(path: Path, served: Mapping[str, Served]) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """An evaluation's figures; and which prompt gives what on which collection, where its systems are prompts."""
    if not path.is_file():
        return [], None
    try:
        table = read_json(path)
        if not isinstance(table, dict) or table.get("format") != GROUP_FORMAT:
            return [], None
        figures = [
            {"domain": row["collection"], "system": row["system"], "measure": measure, "value": float(value)}
            for row in table["rows"]
            for measure, value in row["measures"].items()
        ]
        if not all(isinstance(figure[name], str) for figure in figures for name in ("domain", "system")):
            raise TypeError("a collection's or a system's name is no text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"is not what foreword evaluate writes ({error!r})", path=path) from error
    known = {**{name.replace("/", "-"): name for name in served}, **{name: name for name in served}}
    found = {
        (known[figure["system"]], figure["domain"]): figure["value"]
        for figure in figures
        if figure["measure"] == MEASURE and figure["system"] in known
    }
    sources = [name for name in served if any(source == name for source, _ in found)]
    targets = list(dict.fromkeys(target for _, target in found))
    values = [[found.get((source, target)) for target in targets] for source in sources]
    transfer = {"sources": sources, "targets": targets, "values": values, "measure": MEASURE}
    return figures, transfer if found else None


def _words(encoder: SentenceTransformer, stored: Mapping[str, StoredPrompt]) -> dict[str, list[list[Any]]]:
    """The most telling words near each input prompt; prompts inside the layers have none."""
    of_input = {name: one for name, one in stored.items() if one.prompt.kind.among_words}
    if not of_input:
        return {}
    found: dict[str, dict[str, float]] = {name: {} for name in of_input}
    for record in bank_words(encoder, of_input).records:
        own = found[record["domain"]]
        for entry in record["summary"]:
            own[entry["word"]] = max(entry["weight"], own.get(entry["word"], 0.0))
    return {
        name: [[word, weight] for word, weight in sorted(own.items(), key=lambda pair: (-pair[1], pair[0]))]
        for name, own in found.items()
    }
