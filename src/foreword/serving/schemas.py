"""The bodies of requests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

EXAMPLE: dict[str, Any] = {"model": "base", "input": ["how to stop gradients"], "encoding_format": "float"}


class EmbeddingsBody(BaseModel):
    """The request of `POST /v1/embeddings`, as OpenAI's API has it, and `input_type` besides."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [EXAMPLE]})

    model: StrictStr = Field(description="`base` or a domain, with `:query` or `:document` behind it")
    input: StrictStr | list[StrictStr] | list[StrictInt] | list[list[StrictInt]] = Field(
        description="a text or texts; arrays of token ids where the service is configured for them"
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="the backbone's width, if given; embeddings are not shortened")
    input_type: Literal["query", "document"] | None = Field(
        None, description="the side, where the model's name does not say it; not in OpenAI's API"
    )
    user: str | None = Field(None, description="passed over")


class SearchBody(BaseModel):
    """The request of `POST /search`: `query` or `queries`."""

    model_config = ConfigDict(extra="forbid")

    domain: StrictStr
    query: StrictStr | None = None
    queries: list[StrictStr] | None = None
    systems: list[StrictStr] | None = Field(None, description="of the domain's; none: all of them")
    k: StrictInt = Field(10, ge=1)
    where: dict[str, Any] | None = Field(
        None, description="a filter by metadata: field -> a value, or a list of values of which it has one"
    )
