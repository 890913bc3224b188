"""What clients get: the shapes of every endpoint's answers, for OpenAPI."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from affinage.runtime.server.refusal import ErrorType


class ErrorResponse(BaseModel):
    """Why there is no answer."""

    error: str
    error_type: ErrorType


class Prediction(BaseModel):
    """A class and its score."""

    score: float = Field(examples=[0.98])
    label: str = Field(examples=["positive"])


class Entity(BaseModel):
    """A named entity; `start` and `end` count characters of the text, `end` excluded."""

    entity_group: str = Field(examples=["LOC"])
    score: float
    word: str = Field(examples=["Lyon"])
    start: int = Field(examples=[16])
    end: int = Field(examples=[20])


class Span(BaseModel):
    """An answer; empty, from 0 to 0, where the text holds none."""

    answer: str = Field(examples=["le Jura"])
    score: float
    start: int
    end: int


class Answer(Span):
    """The best answer, and the k best where they were asked for."""

    top: list[Span] | None = None


class Ranked(BaseModel):
    """Labels, the best first; `truncated` where the model did not read the text to its end."""

    labels: list[str] = Field(examples=[["transport", "sport", "cuisine"]])
    scores: list[float]
    truncated: Literal[True] | None = None


class Filled(BaseModel):
    """A piece of the vocabulary in the place of the mask."""

    score: float
    token: int
    token_str: str = Field(examples=["affiné"])
    sequence: str


class ServedModel(BaseModel):
    """One of the models."""

    name: str
    kind: str
    endpoints: list[str]
    labels: list[str]
    max_input_length: int


class Info(BaseModel):
    """What is served; the first fields are text-embeddings-inference's, of the first model."""

    model_id: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    auto_truncate: bool
    version: str
    models: list[ServedModel]


class Health(BaseModel):
    """Whether requests are computed."""

    status: Literal["ok"] = "ok"


RESPONSES: dict[str, Any] = {
    "predict": list[Prediction] | list[list[Prediction]],
    "embed": list[list[float]],
    "ner": list[Entity] | list[list[Entity]],
    "qa": Answer | list[Answer],
    "zero-shot": Ranked | list[Ranked],
    "fill-mask": list[Filled] | list[list[Filled]],
}
