"""What Prometheus reads: requests, their latency, and jobs by state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from shared.db.forecast import Slots
from shared.domain.job import JobState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ApiMetrics:
    """One process's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "thaw_http_requests_total",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "thaw_http_request_duration_seconds",
            "Time from a request to the end of its answer.",
            ["method", "route"],
            registry=self.registry,
        )
        self._jobs = Gauge("thaw_jobs", "Jobs by state, over all teams.", ["state"], registry=self.registry)
        self._slots = Gauge(
            "thaw_slots",
            "Slots of the nodes that are not lost; away: free, on a node that is given no work; "
            "unhealthy: free, on a GPU that is not fit for work.",
            ["accelerator", "state"],
            registry=self.registry,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the path's template, so that ids make no series."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self, jobs: Mapping[JobState, int], slots: Sequence[Slots]) -> bytes:
        """Everything in Prometheus's text format."""
        self._slots.clear()  # an accelerator may be gone
        for of in slots:
            for state in ("free", "held", "dirty", "away", "unhealthy"):
                self._slots.labels(of.accelerator, state).set(getattr(of, state))
        for state in JobState:
            self._jobs.labels(state.value).set(jobs.get(state, 0))
        return generate_latest(self.registry)
