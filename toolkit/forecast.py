"""What this server's jobs will take: times learned from its runs, how past predictions turned out, and what its last prompt left in memory.

Owns what the common order is told of this server. Losable: it is read from the ledger when a feeder starts. Knows neither sockets nor the live
board.
"""

from __future__ import annotations

import statistics
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from toolkit.graph import digests
from toolkit.jobs import PRIORITIES, Eta, Instant, Job, NodeTiming, Timings, boot_id
from toolkit.ledger import Ledger
from toolkit.order import UNKNOWN_S, Sent, ServerLine, Takes, Turn
from toolkit.progress import MOMENTS, Prediction, ProgressTracker, calibrated
from toolkit.times import KEPT, LearnedTimes, NodeTime, expected_s, loads_of, reads_a_model, recipe_key

PAST_RUNS = 200
RATIOS = 50  # predictions a kind and moment; the oldest of them may be of another server version
RECIPES = 400  # whose graphs are kept to say what they will take
KINDS = ("image", "video", "workflow")
NODE_LIMIT = 2000  # a graph of 10,000 nodes would hold up the line for as long as it is read


class Forecaster:
    """Learns from each run, and gives the next one a tracker that knows what to expect."""

    def __init__(self, ledger: Ledger, server_url: str) -> None:
        self._ledger, self._server_url = ledger, server_url
        self._times = LearnedTimes()
        self._ratios: defaultdict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=RATIOS))
        self._fetches: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RATIOS))
        self._took: defaultdict[tuple[str, bool], deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._recipes: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._sent: OrderedDict[int, Sent] = OrderedDict()
        self._guesses: dict[tuple[str, bool], tuple[int, float | None]] = {}
        self._runs = 0
        self._accepted: dict[str, list[tuple[str, Instant, float]]] = {}
        self._in_cache: Collection[str] = frozenset()
        self._loaded: tuple[str, ...] = ()

    def load(self) -> None:
        """Read what earlier feeders of this server saw."""
        for run in self._ledger.past_runs(self._server_url, PAST_RUNS):
            self._sent[run.seq] = Sent(run.seq, run.priority, run.run_s or 0.0)
            self._loaded = loads_of(run.graph)
            self.learn(run.graph, run.kind, run.nodes, run.run_s, run.fetch_s)
        for kind in KINDS:
            for moment in MOMENTS:
                for eta in reversed(self._ledger.etas(self._server_url, kind, moment, "end", RATIOS)):
                    self._learn_ratio(kind, eta)

    # ---- one run ------------------------------------------------------------------------------------------------------

    def tracker(self, graph: Mapping[str, Any], job: Job) -> ProgressTracker:
        """A tracker for the prompt that is sent next."""
        now = digests(graph)
        self._loaded = loads_of(graph, now) or self._loaded
        if len(graph) > NODE_LIMIT:
            self._in_cache = frozenset()
            return ProgressTracker(graph)
        cached = [node_id for node_id, digest in now.items() if digest in self._in_cache]
        self._in_cache = frozenset(now.values())  # ComfyUI keeps the nodes of the last prompt alone (comfy_execution/caching.py)
        ratios = {moment: tuple(self._ratios[job.kind, moment]) for moment in MOMENTS}

        def forecast(cached: Collection[str]) -> Mapping[str, NodeTime | None]:
            return self._times.of(graph, cached)

        after_s = statistics.median(self._fetches[job.kind]) if self._fetches[job.kind] else 0.0
        return ProgressTracker(graph, forecast=forecast, ratios=ratios, cached=cached, after_s=after_s)

    def note_sent(self, seq: int, priority: int, took_s: float | None) -> None:
        """Note a job that goes to the server, and again what it took when it has left."""
        self._sent[seq] = Sent(seq, priority, UNKNOWN_S if took_s is None else took_s)
        while len(self._sent) > PAST_RUNS:
            self._sent.popitem(last=False)

    def take(
        self, job: Job, graph: Mapping[str, Any], tracker: ProgressTracker, timings: Timings, nodes: Sequence[NodeTiming],
        was: tuple[Instant | None, Instant], *, done: bool,
    ) -> list[Eta]:  # fmt: skip
        """Take what a run took, from its start to its end as they were; returns what was predicted of it if it is `done`."""
        self.note_sent(job.seq, PRIORITIES.index(job.priority), timings.run_s)
        etas = self.etas(job.id, tracker.predictions, *was)
        if done and nodes:
            self.learn(graph, job.kind, nodes, timings.run_s, timings.fetch_s, etas)
        return etas if done else []

    def learn(
        self, graph: Mapping[str, Any], kind: str, nodes: Sequence[NodeTiming], run_s: float | None, fetch_s: float | None, etas: Sequence[Eta] = ()
    ) -> None:
        """Take a run that ended well, with what was said of it on the way."""
        if len(graph) <= NODE_LIMIT:
            self._times.learn(graph, nodes)
            self._runs += 1
            key = recipe_key(graph)
            self.remember(key, graph)
            if run_s is not None:
                self._took[key, any(node.model is not None and not node.cached for node in nodes)].append(run_s)
        if fetch_s is not None:
            self._fetches[kind].append(fetch_s)
        for eta in etas:
            self._learn_ratio(kind, eta)

    def _learn_ratio(self, kind: str, eta: Eta) -> None:
        if eta.basis == "history" and eta.target == "end" and eta.actual_s is not None and eta.expected_s > 0:
            self._ratios[kind, eta.moment].append(eta.actual_s / eta.expected_s)

    # ---- the line -----------------------------------------------------------------------------------------------------

    def knows(self, key: str) -> bool:
        """Whether a recipe's graph is at hand."""
        return key in self._recipes

    def remember(self, key: str, graph: Mapping[str, Any]) -> None:
        """Keep a recipe's graph, to say what its next job will take."""
        self._recipes[key] = graph
        self._recipes.move_to_end(key)
        while len(self._recipes) > RECIPES:
            self._recipes.popitem(last=False)

    def line(self, busy_s: float, *, usable: bool, patience_s: float, since: int | None = None, keys: Iterable[str] | None = None) -> ServerLine:
        """What the common order needs to know of this server.

        Args:
            busy_s: until what it has is done.
            usable: whether it takes jobs now.
            patience_s: how long a job may be held back.
            since: the place of arrival of the first job that waits; what was sent before that one came matters no more.
            keys: the recipes that others are to be told of; None: all, worked out when asked for.
        """
        sent = tuple(one for one in self._sent.values() if one.seq > since) if since is not None else ()
        takes: Mapping[str, Takes] = _Takes(self)
        if keys is not None:
            takes = {key: known for key in keys if (known := self.takes(key)) is not None}
        return ServerLine(self._server_url, busy_s, self._loaded, sent, takes, usable, patience_s)

    def takes(self, key: str) -> Takes | None:
        """What a recipe takes warm and cold: as it did, else by its nodes."""
        warm, cold = (self._whole_s(key, cold) for cold in (False, True))
        if warm is None and cold is None:
            return None
        return Takes(warm if warm is not None else cold or 0.0, cold if cold is not None else warm or 0.0)

    def _whole_s(self, key: str, cold: bool) -> float | None:
        took = self._took.get((key, cold))
        if took:
            return statistics.median(took)
        made, seconds = self._guesses.get((key, cold), (0, None))
        if key in self._recipes and self._runs >= 2 * made:  # a guess costs a millisecond, and the next run changes little of it
            seconds = self._guess(self._recipes[key], cold)
            self._guesses[key, cold] = (max(self._runs, 1), seconds)
        return seconds

    def _guess(self, graph: Mapping[str, Any], cold: bool) -> float | None:
        cached = () if cold or len(graph) > NODE_LIMIT else [node_id for node_id, node in graph.items() if reads_a_model(node)]
        return expected_s(graph, self._times.of(graph, cached)) if len(graph) <= NODE_LIMIT else None

    def predict(self, turns: Iterable[Turn]) -> None:
        """Note, once a job, when it will start and end as the line stands when it is first seen there."""
        now = Instant.now()
        for job, _, _, starts_s, takes_s in turns:
            if job.id not in self._accepted and starts_s is not None and takes_s is not None:
                self._accepted[job.id] = [("start", now, starts_s), ("end", now, starts_s + takes_s)]

    def etas(self, job_id: str, predictions: Sequence[Prediction], started: Instant | None, ended: Instant) -> list[Eta]:
        """All that was said of a job on the way, beside what it was."""
        now, mono = time.time(), time.monotonic()
        found = []
        for target, made, seconds in self._accepted.pop(job_id, ()):
            said, then = calibrated(seconds, "history"), started if target == "start" else ended
            actual_s = made.until(then)
            found.append(Eta("accepted", "start" if target == "start" else "end", "history", made, seconds, said.low_s, said.high_s, actual_s))
        for moment, at, said in ((made.moment, made.at, made.said) for made in predictions):
            made = Instant(now - (mono - at), at, boot_id())
            found.append(Eta(moment, "end", said.basis, made, said.expected_s, said.low_s, said.high_s, made.until(ended)))
        return found


class _Takes(Mapping[str, Takes]):
    """What each recipe takes, worked out when it is asked for: of a thousand that wait, the order asks for a few."""

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster

    def __getitem__(self, key: str) -> Takes:
        found = self._forecaster.takes(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
