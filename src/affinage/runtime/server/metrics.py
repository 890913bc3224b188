"""What Prometheus reads: requests, refusals, batches, waiting; never a text."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from affinage.runtime.server.batcher import Batch
from affinage.runtime.server.work import Work

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, *, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "affinage_requests", "Requests answered or refused.", ["endpoint", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "affinage_request_seconds",
            "From the first byte to the last.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._queued = Histogram(
            "affinage_queue_seconds", "From the whole request to its batch.", buckets=_SECONDS, registry=self.registry
        )
        self._inference = Histogram(
            "affinage_batch_seconds", "Of one batch.", ["model"], buckets=_SECONDS, registry=self.registry
        )
        self._texts = Counter("affinage_texts", "Texts computed.", ["model", "endpoint"], registry=self.registry)
        self._failed = Counter(
            "affinage_failed_texts", "Texts that a model refused.", ["model"], registry=self.registry
        )
        self._sizes = Histogram(
            "affinage_batch_texts", "Of one batch.", buckets=[2**i for i in range(10)], registry=self.registry
        )
        self._tokens = Histogram(
            "affinage_batch_tokens", "Estimated.", buckets=[2**i for i in range(4, 16)], registry=self.registry
        )
        Gauge("affinage_waiting_texts", "In the queue.", registry=self.registry).set_function(waiting)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """One request is over."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def queued(self, seconds: float) -> None:
        """One request's first text was computed so long after it came."""
        self._queued.observe(seconds)

    def batch(self, batch: Batch) -> None:
        """One batch was computed."""
        work: Work = batch.work  # type: ignore[assignment]
        self._inference.labels(work.model).observe(batch.seconds)
        self._texts.labels(work.model, work.endpoint).inc(batch.texts)
        self._failed.labels(work.model).inc(batch.failed)
        self._sizes.observe(batch.texts)
        self._tokens.observe(batch.tokens)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
