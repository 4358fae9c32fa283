"""The bodies of answers, for the documentation of the endpoints."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


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
    401: {"model": ErrorAnswer, "description": "No API key, or one that is not known"},
    403: {"model": ErrorAnswer, "description": "The key may not use this domain"},
    404: {"model": ErrorAnswer, "description": "No such model or domain"},
    409: {"model": ErrorAnswer, "description": "The index was embedded anew since the prompts were read"},
    413: {"model": ErrorAnswer, "description": "The request's body is too large"},
    422: {"model": ErrorAnswer, "description": "A field is wrong, or there are too many texts or tokens"},
    503: {"model": ErrorAnswer, "description": "Too many texts wait, or the service is being stopped"},
}


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


class HitAnswer(BaseModel):
    """One document that was found."""

    rank: int
    doc_id: str
    title: str
    text: str
    score: float
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
