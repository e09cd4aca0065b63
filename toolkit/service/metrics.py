"""What Prometheus reads at /metrics: the home as it is, and the calls that were answered; the only importer of prometheus_client.

Owns names and units. The home is looked at when it is asked for, in a few milliseconds; only calls are counted on the way.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from toolkit import __version__
from toolkit.shapes import counts_json
from toolkit.studio import Studio

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS_S = (0.005, 0.025, 0.1, 0.25, 1.0, 5.0)


class Metrics(Collector):
    """Everything that is measured of a home and the process that serves it; `watchers` says how many follow the feed."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.watchers: Callable[[], int] = lambda: 0
        self._registry = CollectorRegistry()
        self._calls = Histogram("toolkit_request_seconds", "Calls answered", ["method", "route", "status"], buckets=BUCKETS_S, registry=self._registry)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a call; `route` is its pattern, so that no id becomes a series of its own."""
        self._calls.labels(method, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: a registry that asks would look at the home before anybody scrapes."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The home now."""
        counts = counts_json(self._studio._ledger.counts())
        yield _gauge("toolkit_info", "Which toolkit this is", {__version__: 1}, "version")
        yield _gauge("toolkit_jobs", "Jobs in each status", counts["counts"], "status")
        yield _gauge("toolkit_jobs_open", "Jobs that wait or run", counts["open"])
        feeders = self._studio._board.servers()
        yield _gauge("toolkit_feeder_alive", "Whether the feeder of a server lives", {live.url: int(live.is_alive()) for live in feeders}, "server")
        yield _gauge("toolkit_server_reachable", "Whether a server answers", {live.url: int(live.state != "unreachable") for live in feeders}, "server")
        yield _gauge("toolkit_server_pending", "Prompts that wait on a server", {live.url: live.pending for live in feeders}, "server")
        yield _gauge("toolkit_feed_watchers", "Who follows the feed", self.watchers())
        yield _gauge("toolkit_home_free_bytes", "Room on the disk of the home", shutil.disk_usage(self._studio.home).free)
        log = self._studio.home / "stats.duckdb"
        if log.exists():
            yield _gauge("toolkit_log_age_seconds", "Since the SQL log was published", max(time.time() - log.stat().st_mtime, 0.0))


def _gauge(name: str, meaning: str, value: float | dict[str, int], label: str | None = None) -> GaugeMetricFamily:
    made = GaugeMetricFamily(name, meaning, labels=[label] if label else None)
    for word, number in value.items() if isinstance(value, dict) else [("", value)]:
        made.add_metric([word] if label else [], number)
    return made
