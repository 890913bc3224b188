"""What clients send: one body an endpoint; those of `/predict` and `/embed` are text-embeddings-inference's."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from affinage.decoding.zero_shot import DEFAULT_TEMPLATE

Single: TypeAlias = Annotated[list[str], Field(min_length=1, max_length=1)]
Pair: TypeAlias = Annotated[list[str], Field(min_length=2, max_length=2)]
ModelName = Annotated[str | None, Field(description="Which of the served models; by default the first that can do it.")]

_TEXTS = "A text, or a list of texts."


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    model: ModelName = None


class _TeiBody(_Body):
    """Unknown fields are ignored, as that server does."""

    model_config = ConfigDict(extra="ignore")

    truncate: bool | None = Field(None, description="Cut what is too long for the model, instead of answering 413.")
    truncation_direction: Literal["Left", "Right"] = Field("Right", description="Left is not served: 422.")


class PredictRequest(_TeiBody):
    """A text, a pair of texts, or a batch of both."""

    inputs: str | Single | Pair | list[Single | Pair] = Field(
        examples=["Une cave sombre, un fromage sublime."],
        description='"text", ["first", "second"], or a batch: [["text"], ["first", "second"]].',
    )
    raw_scores: bool = Field(False, description="Logits instead of probabilities.")


class EmbedRequest(_TeiBody):
    """A text or several."""

    inputs: str | list[str] = Field(
        examples=["Une cave sombre, un fromage sublime."], description="A text, or a list of texts; no token ids."
    )
    normalize: bool = Field(True, description="Vectors of length 1.")
    prompt_name: str | None = Field(None, description="Not served: 422.")
    dimensions: int | None = Field(None, description="Not served: 422.")


class NerRequest(_Body):
    """A text or several, of any length."""

    inputs: str | list[str] = Field(examples=["Claire a quitté Lyon pour le Jura."], description=_TEXTS)


class Question(BaseModel):
    """A question and the text that holds its answer."""

    model_config = ConfigDict(strict=True, extra="forbid")

    question: str = Field(examples=["Où va Claire ?"])
    context: str = Field(examples=["Claire a quitté Lyon pour le Jura."])


class QaRequest(_Body):
    """A question or several; contexts may be long."""

    inputs: Question | list[Question] = Field(description='{"question": …, "context": …}, or a list of them.')
    top_k: int | None = Field(None, ge=1, le=20, description='Adds "top": the k best answers.')


class ZeroShotRequest(_Body):
    """A text or several, and the labels to choose from."""

    inputs: str | list[str] = Field(examples=["Le train est en retard."], description=_TEXTS)
    labels: list[str] = Field(examples=[["transport", "cuisine", "sport"]])
    template: str = Field(DEFAULT_TEMPLATE, description="The hypothesis; {} stands for the label.")
    multi_label: bool = Field(False, description="Each label for itself, instead of one among them.")


class FillMaskRequest(_Body):
    """A text or several, with one <mask> each."""

    inputs: str | list[str] = Field(examples=["Le fromage est <mask> douze mois."], description=_TEXTS)
    top_k: int = Field(5, ge=1, le=100)


AnyRequest: TypeAlias = PredictRequest | EmbedRequest | NerRequest | QaRequest | ZeroShotRequest | FillMaskRequest


def texts_in(value: Any) -> list[str]:
    """Every text in a body's inputs."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Question):
        return [value.question, value.context]
    return [text for one in value for text in texts_in(one)]
