"""The server against its own OpenAPI: its examples, and what schemathesis makes up."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from affinage.runtime.server.work import ENDPOINTS
from serving import ask

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODEL_OF = {
    "predict": "sentiment",
    "embed": "vectors",
    "ner": "ner",
    "qa": "qa",
    "zero-shot": "nli",
    "fill-mask": "mlm",
}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_what_is_made_up_is_answered_as_described(mode: GenerationMode, port: int) -> None:
    """Right bodies and wrong ones, of every operation. (Without schemathesis' own fixture, which pytest 9 breaks.)"""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    statuses: set[int] = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.method.upper() == "GET":
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        def answered(case: Any) -> None:
            response = case.call(timeout=30)
            case.validate_response(response, checks=CHECKS)
            statuses.add(response.status_code)

        answered()
    assert {GenerationMode.POSITIVE: 200, GenerationMode.NEGATIVE: 422}[mode] in statuses


def test_examples_are_answered(port: int) -> None:
    found = ask(port, "/openapi.json").content
    for name in ENDPOINTS:
        operation = found["paths"][f"/{name}"]["post"]
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        for key, example in examples.items():
            model = "nli" if key == "pair" else MODEL_OF[name]
            answer = ask(port, f"/models/{model}/{name}", example["value"])
            assert answer.status == 200, answer
        assert {"200", "400", "408", "413", "415", "422", "424", "429", "503"} <= set(operation["responses"])
        assert "example" in operation["responses"]["429"]["content"]["application/json"]
    assert {"/health", "/info", "/metrics"} < set(found["paths"])
    assert {"PredictRequest", "Question", "ErrorResponse", "Entity"} < set(found["components"]["schemas"])


def test_every_reference_leads_somewhere(port: int) -> None:
    found = ask(port, "/openapi.json").content

    def references(node: Any) -> set[str]:
        inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        own = {node["$ref"]} if isinstance(node, dict) and isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, inside))

    for reference in references(found):
        assert reference.rpartition("/")[2] in found["components"]["schemas"], reference
