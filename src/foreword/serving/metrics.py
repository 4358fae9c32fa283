"""What is counted, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from foreword.serving.batcher import Pass

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_POWERS = tuple(float(2**power) for power in range(11))


class Metrics:
    """The counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "foreword"}
        self.requests = Counter("requests", "Requests answered.", ["endpoint", "status"], **own)
        self.seconds = Histogram("request_seconds", "Time to answer a request.", ["endpoint"], buckets=_SECONDS, **own)
        self.texts = Counter("texts", "Texts embedded for /v1/embeddings, by domain.", ["domain"], **own)
        self.tokens = Counter("tokens", "Their tokens, by domain.", ["domain"], **own)
        self.searches = Counter("searches", "Queries searched, by domain and system.", ["domain", "system"], **own)
        self.pass_texts = Histogram("pass_texts", "Texts in a forward pass.", buckets=_POWERS, **own)
        self.pass_ways = Histogram(
            "pass_ways", "Prompts (and the base model) in a forward pass.", buckets=_POWERS, **own
        )
        self.pass_tokens = Counter("pass_tokens", "Tokens of forward passes, without padding.", **own)
        self.pass_seconds = Histogram("pass_seconds", "Time of a forward pass.", buckets=_SECONDS, **own)
        self.waited = Histogram(
            "queue_seconds", "How long the oldest text of a forward pass had waited.", buckets=_SECONDS, **own
        )
        self.reloads = Counter("reloads", "Times that the prompts were read again, by outcome.", ["outcome"], **own)
        self._gauges: list[Gauge] = []

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Add a value that is asked for whenever the metrics are read."""
        gauge = Gauge(name, what, registry=self.registry, namespace="foreword")
        gauge.set_function(value)
        self._gauges.append(gauge)

    def on_pass(self, done: Pass) -> None:
        """Count a forward pass."""
        self.pass_texts.observe(done.texts)
        self.pass_ways.observe(done.ways)
        self.pass_tokens.inc(done.tokens)
        self.pass_seconds.observe(done.seconds)
        self.waited.observe(done.waited)

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self.registry)
