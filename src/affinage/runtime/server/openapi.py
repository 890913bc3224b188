"""The server's description of itself: schemas and examples of bodies and answers, and every status there can be."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from affinage.runtime.server.responses import RESPONSES, ErrorResponse
from affinage.runtime.server.work import ENDPOINTS

_REFS = "#/components/schemas/{model}"
_EXAMPLES: dict[str, dict[str, Any]] = {
    "predict": {
        "text": {"inputs": "Une cave sombre, un fromage sublime."},
        "pair": {"inputs": ["Il pleut sur Brest.", "Le sol est sec."]},
        "batch": {"inputs": [["Une cave sombre."], ["Trop salé."]], "truncate": True},
        "logits": {"inputs": "Trop salé.", "raw_scores": True},
    },
    "embed": {"text": {"inputs": "Une cave sombre."}, "texts": {"inputs": ["Une cave sombre.", "Trop salé."]}},
    "ner": {"text": {"inputs": "Claire a quitté Lyon pour le Jura."}},
    "qa": {"question": {"inputs": {"question": "Où va Claire ?", "context": "Claire a quitté Lyon pour le Jura."}}},
    "zero-shot": {"text": {"inputs": "Le train est en retard.", "labels": ["transport", "cuisine", "sport"]}},
    "fill-mask": {"text": {"inputs": "Le fromage est <mask> douze mois.", "top_k": 3}},
}
_REFUSALS = {
    400: ("No JSON, or an empty text", {"error": "`inputs` cannot be empty", "error_type": "Empty"}),
    404: ("Unknown model", {"error": "unknown model; served: sentiment", "error_type": "NotFound"}),
    408: ("The request came too slowly", {"error": "the request did not come in time", "error_type": "Timeout"}),
    413: ("Too large", {"error": "batch size 33 > maximum allowed batch size 32", "error_type": "Validation"}),
    415: ("No JSON", {"error": "expected the header Content-Type: application/json", "error_type": "Validation"}),
    422: ("What cannot be used", {"error": "inputs: Field required", "error_type": "Tokenizer"}),
    424: ("No model that does it, or it failed", {"error": "no model here does /embed", "error_type": "Backend"}),
    429: ("The queue is full", {"error": "Model is overloaded", "error_type": "Overloaded"}),
    503: ("No answer in time, or stopping", {"error": "no answer within 30 seconds", "error_type": "Overloaded"}),
}
_UNAUTHORIZED = ("No token", {"error": "expected the header Authorization: Bearer TOKEN", "error_type": "Unauthorized"})


def operation(name: str, *, secured: bool, operation_id: str) -> dict[str, Any]:
    """What `add_api_route` is told of an endpoint's body and answers."""
    refusals = {**_REFUSALS, **({401: _UNAUTHORIZED} if secured else {})}
    examples = {key: {"value": value} for key, value in _EXAMPLES[name].items()}
    schema = {"$ref": _REFS.format(model=ENDPOINTS[name].request.__name__)}
    extra: dict[str, Any] = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}
    }
    if "{model}" not in operation_id and operation_id.endswith("_of_model"):
        extra["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    return {
        "operation_id": operation_id,
        "response_model": RESPONSES[name],
        "responses": {
            status: {
                "model": ErrorResponse,
                "description": what,
                "content": {"application/json": {"example": example}},
            }
            for status, (what, example) in refusals.items()
        },
        "openapi_extra": extra,
    }


def describe(app: FastAPI, *, secured: bool) -> Callable[[], dict[str, Any]]:
    """The application's `openapi`: with the schemas of bodies, which it does not read itself, and with the token."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes, description=_ABOUT)
            requests = [(endpoint.request, "validation") for endpoint in ENDPOINTS.values()]
            _, bodies = models_json_schema(requests, ref_template=_REFS)  # type: ignore[arg-type]
            made["components"]["schemas"] |= bodies["$defs"]
            if secured:
                made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                for path, methods in made["paths"].items():
                    if path not in ("/health", "/metrics"):
                        methods["post" if "post" in methods else "get"]["security"] = [{"token": []}]
            app.openapi_schema = made
        return app.openapi_schema

    return openapi


_ABOUT = "Text in, answer out. /predict and /embed are those of text-embeddings-inference."
