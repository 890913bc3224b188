"""The HTTP application: paths, bodies, answers, the page, OpenAPI."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from affinage import __version__
from affinage.runtime.server.guard import GONE, App, Guard
from affinage.runtime.server.limits import Limits
from affinage.runtime.server.models import Models
from affinage.runtime.server.openapi import describe, operation
from affinage.runtime.server.refusal import ErrorType, Refusal, too_large
from affinage.runtime.server.requests import AnyRequest
from affinage.runtime.server.responses import Health, Info, ServedModel
from affinage.runtime.server.work import ENDPOINTS

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_MOST_FIELDS = 16


def make_app(models: Models, *, token: str | None = None) -> App:
    """The application for uvicorn, or whatever else runs ASGI; its thread lives as long as the lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        models.batcher.start()
        yield
        await asyncio.to_thread(models.batcher.close, models.limits.timeout)

    app = FastAPI(title="affinage serve", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    for name, endpoint in ENDPOINTS.items():
        for path, suffix in ((f"/{name}", ""), (f"/models/{{model}}/{name}", "_of_model")):
            app.add_api_route(
                path,
                _handler(models, name),
                methods=["POST"],
                summary=endpoint.summary,
                **operation(name, secured=token is not None, operation_id=name.replace("-", "_") + suffix),
            )
    _add_small_ones(app, models)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(Exception, _mistaken)
    app.openapi = describe(app, secured=token is not None)  # type: ignore[method-assign]
    return Guard(app, limits=models.limits, metrics=models.metrics, token=token)


def _handler(models: Models, endpoint: str) -> Callable[..., Any]:
    async def handle(request: Request) -> Response:
        body = parse(await request.body(), request.headers.get("content-type"), endpoint, models.limits)
        named = request.path_params.get("model")
        if named is not None and body.model not in (None, named):
            raise Refusal(422, "Tokenizer", "the path and the field `model` name different models")
        name = models.choose(endpoint, named if named is not None else body.model)
        notes = request.scope["affinage"]
        notes["model"] = name
        gone = asyncio.ensure_future(_gone(request))
        try:
            computed = await models.answer(endpoint, name, body, gone)
        except asyncio.CancelledError:
            if gone.done():
                return Response(status_code=GONE)
            raise
        finally:
            gone.cancel()
        notes |= {
            "texts": computed.texts,
            "characters": computed.characters,
            "queue_ms": round(computed.queue_ms, 2),
            "inference_ms": round(computed.inference_ms, 2),
        }
        headers = {
            "x-compute-type": "cpu",
            "x-compute-characters": str(computed.characters),
            "x-total-time": f"{computed.total_ms:.0f}",
            "x-queue-time": f"{computed.queue_ms:.0f}",
            "x-inference-time": f"{computed.inference_ms:.0f}",
        }
        return _json(computed.content, headers)

    return handle


def parse(data: bytes, content_type: str | None, endpoint: str, limits: Limits) -> AnyRequest:
    """The body. Lists are measured before they are looked into, so that nothing that is refused costs much.

    Raises: Refusal: 415 for another type than JSON, 400 for what is no JSON, 413 for long lists, 422 for other fields.
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if not (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))):
        raise Refusal(415, "Validation", "expected the header Content-Type: application/json")
    try:
        found = from_json(data, allow_inf_nan=False, cache_strings="none")
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "Validation", f"the body is no JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict) or len(found) > _MOST_FIELDS:
        raise Refusal(422, "Tokenizer", f"expected an object with the field `inputs` and at most {_MOST_FIELDS} fields")
    given = found.get("inputs")
    pair = endpoint == "predict" and isinstance(given, list) and len(given) == 2 and isinstance(given[0], str)
    for field, most in (("inputs", max(limits.max_texts, 2 * pair)), ("labels", limits.max_labels)):
        if isinstance(found.get(field), list) and len(found[field]) > most:
            many = f"batch size {len(found[field])} > maximum allowed batch size {most}"
            raise too_large(many if field == "inputs" else f"{len(found[field])} labels; at most {most} are allowed")
    for one in found["inputs"] if isinstance(found.get("inputs"), list) else [found.get("inputs")]:
        if isinstance(one, list | dict) and len(one) > _MOST_FIELDS:
            raise Refusal(422, "Tokenizer", "inputs: a text, a pair of texts, or a batch of them")
    model = ENDPOINTS[endpoint].request
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise Refusal(422, "Tokenizer", _said(error, model)) from None


def _said(error: ValidationError, model: type[AnyRequest]) -> str:
    """What is wrong with every field, and what is expected there; never what came."""
    told: dict[str, str] = {}
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        name = str(one["loc"][0])[:40]
        field = model.model_fields.get(name)
        told[name] = one["msg"] if field is None or name != "inputs" else f"expected: {field.description}"
    return "; ".join(f"{name}: {what}" for name, what in list(told.items())[:4])


async def _gone(request: Request) -> None:
    """Returns when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content, ensure_ascii=False), headers=headers, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router itself refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    kind: ErrorType = "NotFound" if error.status_code == 404 else "Validation"
    refusal = Refusal(error.status_code, kind, HTTPStatus(error.status_code).phrase, **(error.headers or {}))
    return await _refused(request, refusal)


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return Response(refusal.body(), refusal.status, refusal.headers, media_type="application/json")


async def _mistaken(request: Request, _: Exception) -> Response:
    """After it, starlette raises the mistake again, for the guard to log."""
    return await _refused(request, Refusal(500, "Backend", "internal error"))


def _add_small_ones(app: FastAPI, models: Models) -> None:
    """`/health`, `/metrics`, `/info` and the page."""

    @app.get("/health", response_model=Health, operation_id="health", **_UNHEALTHY)
    async def health() -> Response:
        """Whether requests are computed."""
        if not models.batcher.alive:
            raise Refusal(503, "Unhealthy", "unhealthy")
        return _json({"status": "ok"})

    @app.get("/metrics", operation_id="metrics", response_class=_Text)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return _Text(models.metrics.text())

    @app.get("/info", response_model=Info, operation_id="info", responses={401: {"description": "No token"}})
    async def info() -> Response:
        """What is served."""
        return _json(_info(models))

    for path, (file, kind) in _PAGE.items():
        content = (resources.files("affinage.assets") / "serve" / file).read_bytes()
        app.add_api_route(path, _file(content, kind), methods=["GET"], include_in_schema=False)


class _Text(Response):
    media_type = "text/plain; version=0.0.4; charset=utf-8"


_UNHEALTHY: dict[str, Any] = {"responses": {503: {"description": "The server is stopping"}}}


def _file(content: bytes, kind: str) -> Callable[[], Any]:
    async def page() -> Response:
        return Response(content, media_type=kind, headers={"content-security-policy": _POLICY})

    return page


def _info(models: Models) -> dict[str, Any]:
    served = [
        ServedModel(
            name=name,
            kind=predictor.kind,
            endpoints=models.endpoints[name],
            labels=list(predictor.labels),
            max_input_length=predictor.max_length,
        )
        for name, predictor in models.predictors.items()
    ]
    first, limits = served[0], models.limits
    labels = {
        "id2label": {str(i): label for i, label in enumerate(first.labels)},
        "label2id": {label: i for i, label in enumerate(first.labels)},
    }
    classifier = "predict" in first.endpoints
    return Info(
        model_id=first.name,
        model_type={"classifier": labels} if classifier else {first.kind: labels if first.labels else {}},
        max_concurrent_requests=limits.queue,
        max_input_length=first.max_input_length,
        max_batch_tokens=limits.max_batch_tokens,
        max_client_batch_size=limits.max_texts,
        auto_truncate=limits.auto_truncate,
        version=__version__,
        models=served,
    ).model_dump()
