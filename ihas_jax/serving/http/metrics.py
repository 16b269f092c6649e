"""What a service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)


class Metrics:
    """Requests, rows, and values without an id, by which a drift of the data is seen."""

    def __init__(self, fields: Sequence[str], others: np.ndarray) -> None:
        """All counts are 0.

        Args:
          fields: the N names.
          others: `[N]`, the id of all values without an id of their own.
        """
        self._registry = CollectorRegistry()
        self._fields, self._others = fields, others
        self._requests = Counter(
            *("ihas_requests", "Requests by path and status"),
            ["path", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            *("ihas_request_seconds", "Time of a request, by path"),
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._rows = Counter(
            *("ihas_rows", "Predicted rows by cluster"), ["cluster"], registry=self._registry
        )
        self._other = Counter(
            *("ihas_other_values", "Values without an id, by field"),
            ["field"],
            registry=self._registry,
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def rows(self, ids: np.ndarray, clusters: np.ndarray | None) -> None:
        """Counts predicted rows by their ids `[n, N]` and clusters `[n]`."""
        counts = np.array([len(ids)]) if clusters is None else np.bincount(clusters)
        for cluster, count in enumerate(counts.tolist()):
            self._rows.labels(str(cluster)).inc(count)
        unknown = (ids == self._others).sum(axis=0)
        for n in np.flatnonzero(unknown).tolist():
            self._other.labels(self._fields[n]).inc(int(unknown[n]))

    def text(self) -> bytes:
        """All counts in the text format of Prometheus."""
        return generate_latest(self._registry)
