"""`/v1/embeddings` and `/v1/models`, as OpenAI's API has them."""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from foreword.serving.answers import REFUSALS, EmbeddingsAnswer, ModelAnswer, ModelsAnswer
from foreword.serving.batcher import Array
from foreword.serving.errors import RequestError
from foreword.serving.keys import Key
from foreword.serving.metrics import Metrics
from foreword.serving.models import find_way, model_names, split_model
from foreword.serving.schemas import EmbeddingsBody
from foreword.serving.service import Service
from foreword.serving.ways import BASE_MODEL


def openai_router(service: Service, metrics: Metrics) -> APIRouter:
    """The endpoints."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=REFUSALS)
    created = int(time.time())

    @router.post("/embeddings", responses={200: {"model": EmbeddingsAnswer}}, response_model=None)
    async def embeddings(body: EmbeddingsBody, request: Request) -> JSONResponse:
        """Embed texts, as `foreword.encode` does."""
        domain = check_allowed(request.state.key, body.model)
        if body.dimensions is not None and body.dimensions != service.width:
            raise RequestError(
                f"dimensions is {body.dimensions}; these embeddings have {service.width} and cannot be shortened",
                400,
                "dimensions_unsupported",
                "dimensions",
            )
        texts = await _texts(service, body.input)
        async with service.keep() as state:
            way = find_way(body.model, body.input_type, state.served, service.base)
            rows = await service.rows(texts, way)
            vectors = await service.embed(rows)
        tokens = sum(row.tokens for row in rows)
        metrics.texts.labels(domain).inc(len(texts))
        metrics.tokens.labels(domain).inc(tokens)
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": body.model, "usage": usage})

    def listed(key: Key) -> list[dict[str, Any]]:
        names = model_names(service.state.served, service.base)
        allowed = [name for name, domain in names if domain == BASE_MODEL or key.may_use(domain)]
        return [{"id": name, "object": "model", "created": created, "owned_by": "foreword"} for name in allowed]

    @router.get("/models", responses={200: {"model": ModelsAnswer}}, response_model=None)
    async def models(request: Request) -> JSONResponse:
        """The models that the key may use: `base`, and each domain's prompt."""
        return JSONResponse({"object": "list", "data": listed(request.state.key)})

    @router.get("/models/{model:path}", responses={200: {"model": ModelAnswer}}, response_model=None)
    async def model(model: str, request: Request) -> JSONResponse:
        """One of them."""
        check_allowed(request.state.key, model)
        found = next((entry for entry in listed(request.state.key) if entry["id"] == model), None)
        if found is None:
            raise RequestError(f"no model {model!r}; GET /v1/models lists them", 404, "model_not_found", "model")
        return JSONResponse(found)

    return router


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
        raise RequestError(
            f"input has {len(inputs)} texts; {service.config.max_texts} are allowed in a request",
            code="too_many_texts",
            param="input",
        )
    if isinstance(inputs[0], str):
        return inputs
    texts: list[str] = await service.with_tokens(lambda tokens: tokens.decode(inputs))
    return texts


def _written(vector: Array, form: str) -> Any:
    """A vector as numbers, or as the base64 of its little-endian float32 bytes."""
    if form == "float":
        return vector.tolist()
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")
