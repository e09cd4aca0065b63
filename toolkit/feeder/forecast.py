"""What this server's jobs will take: times learned from its runs, how past predictions turned out, and what its last prompt left in its cache.

Losable: it is read from the ledger when a feeder starts. Knows neither sockets nor the live board.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from toolkit.graph import digests
from toolkit.jobs import Eta, Instant, NodeTiming, boot_id
from toolkit.ledger import Ledger
from toolkit.progress import MOMENTS, Prediction, ProgressTracker
from toolkit.times import LearnedTimes, NodeTime

PAST_RUNS = 200
RATIOS = 50  # predictions a kind and moment; the oldest of them may be of another server version
KINDS = ("image", "video", "workflow")
NODE_LIMIT = 2000  # a graph of 10,000 nodes would hold up the line for as long as it is read


class Forecaster:
    """Learns from each run, and gives the next one a tracker that knows what to expect."""

    def __init__(self, ledger: Ledger, server_url: str) -> None:
        self._ledger, self._server_url = ledger, server_url
        self._times = LearnedTimes()
        self._ratios: defaultdict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=RATIOS))
        self._fetches: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RATIOS))
        self._in_cache: Collection[str] = frozenset()

    def load(self) -> None:
        """Read what earlier feeders of this server saw."""
        for run in self._ledger.past_runs(self._server_url, PAST_RUNS):
            self.learn(run.graph, run.kind, run.nodes, run.fetch_s)
        for kind in KINDS:
            for moment in MOMENTS:
                for eta in reversed(self._ledger.etas(self._server_url, kind, moment, "end", RATIOS)):
                    self._learn_ratio(kind, eta)

    def tracker(self, graph: Mapping[str, Any], kind: str) -> ProgressTracker:
        """A tracker for the prompt that is sent next."""
        if len(graph) > NODE_LIMIT:
            self._in_cache = frozenset()
            return ProgressTracker(graph)
        now = digests(graph)
        cached = [node_id for node_id, digest in now.items() if digest in self._in_cache]
        self._in_cache = frozenset(now.values())  # ComfyUI keeps the nodes of the last prompt alone (comfy_execution/caching.py)
        ratios = {moment: tuple(self._ratios[kind, moment]) for moment in MOMENTS}

        def forecast(cached: Collection[str]) -> Mapping[str, NodeTime | None]:
            return self._times.of(graph, cached)

        after_s = statistics.median(self._fetches[kind]) if self._fetches[kind] else 0.0
        return ProgressTracker(graph, forecast=forecast, ratios=ratios, cached=cached, after_s=after_s)

    def learn(self, graph: Mapping[str, Any], kind: str, nodes: Sequence[NodeTiming], fetch_s: float | None, etas: Sequence[Eta] = ()) -> None:
        """Take a run that ended well, with what was said of it on the way."""
        if len(graph) <= NODE_LIMIT:
            self._times.learn(graph, nodes)
        if fetch_s is not None:
            self._fetches[kind].append(fetch_s)
        for eta in etas:
            self._learn_ratio(kind, eta)

    def _learn_ratio(self, kind: str, eta: Eta) -> None:
        if eta.basis == "history" and eta.target == "end" and eta.actual_s is not None and eta.expected_s > 0:
            self._ratios[kind, eta.moment].append(eta.actual_s / eta.expected_s)


def etas_of(predictions: Sequence[Prediction], ended: Instant) -> list[Eta]:
    """What was said on the way, beside what it was; both on this machine's monotonic clock."""
    now, mono = time.time(), time.monotonic()
    found = []
    for moment, at, said in ((made.moment, made.at, made.said) for made in predictions):
        made = Instant(now - (mono - at), at, boot_id())
        found.append(Eta(moment, "end", said.basis, made, said.expected_s, said.low_s, said.high_s, made.until(ended)))
    return found
