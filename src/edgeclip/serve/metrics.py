"""Figures for Prometheus, of one server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """What is counted and measured; `waiting` is asked for when somebody looks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("edgeclip_requests", "Requests answered", ["route", "status"], registry=self.registry)
        self.request_seconds = Histogram(
            "edgeclip_request_seconds", "From a request's headers to its answer", ["route"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.encode_seconds = Histogram(
            "edgeclip_encode_seconds", "One text or image through its graph", ["tower"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.decode_seconds = Histogram(
            "edgeclip_decode_seconds", "One picture from bytes to its crop", buckets=SECONDS, registry=self.registry
        )
        self._waiting = Gauge("edgeclip_requests_at_work", "Requests at work or waiting", registry=self.registry)

    def watch(self, waiting: Callable[[], float]) -> None:
        """Tell how many requests are at work by a function."""
        self._waiting.set_function(waiting)

    def text(self) -> bytes:
        """All of them in Prometheus's format."""
        return generate_latest(self.registry)
