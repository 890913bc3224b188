"""How the server says no: a status, and `{"error", "error_type"}` as text-embeddings-inference words it."""

import json
from typing import Literal, TypeAlias

ErrorType: TypeAlias = Literal[
    "Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty", "Unauthorized", "NotFound", "Timeout"
]
"""the first six are those of text-embeddings-inference 1.8, whose 401 has no body, and which has no 404 and no 408"""


class Refusal(Exception):
    """A request that is not answered, and why."""

    def __init__(self, status: int, error_type: ErrorType, error: str, **headers: str) -> None:
        super().__init__(error)
        self.status = status
        self.error_type = error_type
        self.error = error
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self) -> bytes:
        """The JSON of the response."""
        return json.dumps({"error": self.error, "error_type": self.error_type}, ensure_ascii=False).encode()


def too_large(error: str) -> Refusal:
    """413."""
    return Refusal(413, "Validation", error)


def overloaded(error: str) -> Refusal:
    """429; the client may come again in a second."""
    return Refusal(429, "Overloaded", error, retry_after="1")


def wrong_model(error: str) -> Refusal:
    """424, as text-embeddings-inference says that a model does not do what it is asked for."""
    return Refusal(424, "Backend", error)
