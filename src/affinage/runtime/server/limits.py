"""What the server takes, and how long it waits: a bound on everything that a client can send."""

import math
from dataclasses import dataclass, fields

from affinage.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Bounds of one server; the defaults suit a few cores."""

    max_batch_tokens: int = 1024
    """computed together, estimated, padding included; while they are, the answers before them go out"""
    max_delay_ms: float = 2.0
    """how long the first text of a batch may wait for others; while requests come one by one none waits"""
    queue: int = 512
    """texts that may wait; further ones are answered 429"""
    max_text_chars: int = 20_000
    """characters of one text: above, 413"""
    max_texts: int = 32
    """texts of one request: above, 413"""
    max_labels: int = 32
    """candidate labels of one zero-shot request: above, 413"""
    max_body_bytes: int = 2 * 2**20
    """bytes of one request's body: above, 413, while it comes"""
    timeout: float = 30.0
    """seconds from the whole request to its answer: above, 503"""
    receive_timeout: float = 10.0
    """seconds that a client may take to send one request, headers or body: above, 408 or a closed connection"""
    connections: int = 512
    """open at once: above, 503"""
    auto_truncate: bool = False
    """whether texts that are too long for the model are cut where the request does not say; else 413"""

    def __post_init__(self) -> None:
        """Raises: InputError naming every bound that is no positive number (`max_delay_ms` may be 0)."""
        wrong = [
            f"{one.name} {value:g}"
            for one in fields(self)
            if not isinstance(value := getattr(self, one.name), bool)
            and not (math.isfinite(value) and (value > 0 or (value == 0 and one.name == "max_delay_ms")))
        ]
        if wrong:
            raise InputError(f"limits of the server: expected positive numbers, got {', '.join(wrong)}")
        if self.max_texts > self.queue:
            raise InputError(f"max_texts {self.max_texts} is more than the queue holds ({self.queue}): it never fits")
