"""How far a job is: one frozen `Progress` from the events of its prompt.

Owns the rules of a true bar: whole-graph, even in seconds where the times of its nodes were learned, never falling, 1.0 only when the job has
ended with its files; and what is left, as a range. Owns the times of nodes and steps too, since they come from the same events. Knows no clock
and no socket: each event arrives with its instant.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from toolkit.graph import ancestors, title_of
from toolkit.jobs import Moment, NodeTiming, Timings
from toolkit.observed import ObservedNode, step_s_of, timing_of, timings_of
from toolkit.protocol import Ended, Event, Executing, ExecutionCached, ExecutionStart, NodeProgress, ProgressState
from toolkit.roles import is_sampler, steps_at
from toolkit.times import NodeTime, expected_s

BEFORE_THE_END = 0.995  # the bar waits here while files are fetched and checked
BEFORE_A_NODES_END = 0.95  # and here while a node takes longer than it should
MOMENTS: Mapping[Moment, float] = {"started": 0.0, "p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75}
"""The fractions at which predictions are logged."""
DEFAULT_STEPS = 20
OWN_RUNS = 3  # of exactly this recipe, before its times count as history
OWN_STEPS = 6.0  # what was learned of a step weighs as much as this many steps of this run
OWN_SHARE = 0.4  # and of a whole run as much as this share of it
SPREADS = {"history": (0.85, 1.25), "family": (0.6, 1.8), "this_run": (0.85, 1.3)}  # until past predictions of the kind tell
ENOUGH_RATIOS = 9

Forecast = Callable[[Collection[str]], Mapping[str, NodeTime | None]]
"""What the nodes of a graph will take that are not among the cached ones."""


@dataclass(frozen=True, slots=True)
class Range:
    """Seconds: what is expected, and the bounds that should hold in 8 of 10 cases."""

    low_s: float
    expected_s: float
    high_s: float
    basis: Literal["history", "family", "this_run"] = "this_run"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: `fraction` of the whole graph, the node at work, its steps, and what is left in seconds."""

    fraction: float = 0.0
    node: str | None = None
    step: int | None = None
    steps: int | None = None
    step_s: float | None = None
    elapsed_s: float = 0.0
    starts_in: Range | None = None
    ends_in: Range | None = None
    ahead: int | None = None
    stalled: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The shape of REST and the feed: the ETA in three flat numbers."""
        eta = self.ends_in
        return {
            "fraction": round(self.fraction, 4),
            "node": self.node,
            "step": self.step,
            "steps": self.steps,
            "elapsed_s": round(self.elapsed_s, 3),
            "eta_s": round(eta.expected_s, 2) if eta else None,
            "eta_low_s": round(eta.low_s, 2) if eta else None,
            "eta_high_s": round(eta.high_s, 2) if eta else None,
            "ahead": self.ahead,
            "stalled": self.stalled,
        }

    def dump(self) -> str:
        """All of it as JSON, for the live board."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def load(cls, text: str) -> Progress:
        """The progress of a live board's row."""
        fields = json.loads(text)
        return cls(**{**fields, **{name: Range(**fields[name]) for name in ("starts_in", "ends_in") if fields[name]}})


def duration(seconds: float) -> str:
    """Seconds as one says them: 0.4 s, 8 s, 3 min, 1 h 20 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def calibrated(seconds: float, basis: Literal["history", "family", "this_run"], ratios: Sequence[float] = ()) -> Range:
    """The range around a prediction: by how past ones of its kind turned out (`actual / expected`), else by rule.

    The k-th of n sorted ratios bounds k / (n + 1) of the cases to come (split conformal prediction).
    """
    low, high = SPREADS[basis]
    if len(ratios) >= ENOUGH_RATIOS:
        tenths = statistics.quantiles(ratios, n=10)
        low, high = tenths[0], tenths[-1]
    return Range(min(low, 1.0) * seconds, seconds, max(high, 1.0) * seconds + (1.0 if basis == "this_run" else 0.0), basis)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was said of a run's end at one of the fixed moments; `at` on the tracker's clock."""

    moment: Moment
    at: float
    said: Range


class ProgressTracker:
    """Turns the events of one prompt into progress and, at the end, into timings."""

    def __init__(
        self, graph: Mapping[str, Any], outputs: set[str] | None = None, forecast: Forecast | None = None,
        ratios: Mapping[Moment, Sequence[float]] | None = None, cached: Collection[str] = (), after_s: float = 0.0,
    ) -> None:  # fmt: skip
        """Watch the part of `graph` that runs: what is upstream of `outputs`, or all of it.

        Args:
            graph: in API format.
            outputs: the nodes that are asked for.
            forecast: what its nodes will take, as learned.
            ratios: how past predictions turned out, `actual / expected` by moment.
            cached: what the server is expected to take from its cache.
            after_s: what fetching its files will take, in seconds.
        """
        part = ancestors(graph, outputs) if outputs else set(graph)
        self._graph = {node_id: node for node_id, node in graph.items() if node_id in part}
        self._nodes = {node_id: ObservedNode(steps_at(graph, node_id) if is_sampler(node) else None) for node_id, node in self._graph.items()}
        self._forecast, self._ratios, self._after_s = forecast, ratios or {}, after_s
        self._current: str | None = None
        self._knows_times = False
        self._reused = frozenset(cached)  # what the server takes from its cache
        self._weighed: frozenset[str] | None = None  # the same, when the nodes were last weighed
        self.progress = Progress()
        self.predictions: list[Prediction] = []
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.last_event_at: float | None = None

    def _weigh(self) -> None:
        """Give each node its weight, once somebody looks: seconds where the samplers' times are known, else steps; what is cached weighs nothing."""
        if self._weighed == self._reused:
            return
        self._weighed = cached = self._reused
        times = self._forecast(cached) if self._forecast is not None else {}
        times = {node_id: times.get(node_id) for node_id in self._nodes if node_id not in cached}
        self._knows_times = expected_s(self._graph, times) is not None
        for node_id, node in self._nodes.items():
            node.time = times.get(node_id)
            by_count = float(max((node.steps or DEFAULT_STEPS), 2)) if is_sampler(self._graph[node_id]) else 1.0
            by_time = node.time.total_s(node.steps) if node.time is not None else 0.0
            node.weight = 0.0 if node_id in cached else by_time if self._knows_times else by_count

    def apply(self, event: Event, at: float) -> Progress:
        """The progress after an event that belongs to this prompt; `at` is in seconds on one monotonic clock."""
        self.take(event, at)
        return self.shown_at(at)

    def take(self, event: Event, at: float) -> None:
        """The same for who looks at the progress later, if at all: of a run of milliseconds nobody sees any."""
        self.last_event_at = at
        match event:
            case ExecutionStart():
                self._start(at)
            case ExecutionCached(nodes=nodes):
                for node_id in nodes:
                    self.reuse(node_id)
                self._reused = frozenset(node_id for node_id, node in self._nodes.items() if node.cached)
            case Executing(node=node_id):
                self._enter(node_id, at)
            case NodeProgress(node=node_id, value=value, maximum=maximum):
                self._step(node_id, value, maximum, at)
            case ProgressState(nodes=states):
                for state in states:
                    self._state(state.display_node, state.value, state.maximum, state.state, at)
            case Ended(how=how):
                if how != "success" and self._current is not None:
                    self._break_off(self._current, at)
                self._enter(None, at)
                self.ended_at = at if self.ended_at is None else self.ended_at

    @property
    def whole_s(self) -> float | None:
        """What all of it will take, as learned; None if unknown."""
        self._weigh()
        return sum(node.weight for node in self._nodes.values()) if self._knows_times else None

    @property
    def current(self) -> str | None:
        """The node at work: unattributed previews belong to it."""
        return self._current

    def _start(self, at: float) -> None:
        if self.started_at is None and self.ended_at is None:
            self.started_at = at

    def reuse(self, node_id: str) -> None:
        """Note that the server took this node from its cache, unless it was seen to run."""
        node = self._nodes.get(node_id)
        if node is not None and node.started_at is None:
            node.cached, node.share = True, 1.0

    def _enter(self, node_id: str | None, at: float) -> None:
        if self._current is not None and self._current != node_id:
            self._finish(self._current, at)
        self._current = node_id if node_id in self._nodes else None
        if self._current is not None:
            self._start(at)
            node = self._nodes[self._current]
            node.cached = False
            node.started_at = node.started_at if node.started_at is not None else at

    def _break_off(self, node_id: str, at: float) -> None:
        """Stop a node's clock where it failed: it was not done, so its share stays."""
        node = self._nodes[node_id]
        node.ended_at = node.ended_at if node.ended_at is not None else at
        self._current = None

    def _finish(self, node_id: str, at: float) -> None:
        node = self._nodes[node_id]
        node.started_at = node.started_at if node.started_at is not None else at
        node.ended_at = node.ended_at if node.ended_at is not None else at
        node.share = 1.0

    def _step(self, node_id: str | None, value: float, maximum: float, at: float) -> None:
        node = self._nodes.get(node_id or self._current or "")
        if node is None or maximum <= 1 or value <= node.value:
            return
        self._start(at)
        node.started_at = node.started_at if node.started_at is not None else at
        node.value, node.maximum = value, maximum
        node.steps_at.append(at)
        node.share = max(node.share, min(1.0, value / maximum))

    def _state(self, node_id: str, value: float, maximum: float, state: str, at: float) -> None:
        if node_id not in self._nodes:
            return
        if state == "finished":
            node = self._nodes[node_id]
            if not node.cached and (node.started_at is not None or node_id == self._current):
                self._finish(node_id, at)
            else:
                node.share = 1.0
        else:
            self._step(node_id, value, maximum, at)

    def shown_at(self, at: float) -> Progress:
        """The same progress with the clock moved on: elapsed grows, the ETA shrinks."""
        self._weigh()
        now = at if self.ended_at is None else self.ended_at
        fraction = max(self.progress.fraction, min(BEFORE_THE_END, self._reached(now)))
        node = self._nodes.get(self._current or "")
        stepping = node is not None and node.maximum > 0
        elapsed = now - self.started_at if self.started_at is not None else 0.0
        self.progress = replace(
            self.progress,
            fraction=fraction,
            node=title_of(self._current, self._graph[self._current]) if self._current else self.progress.node,
            step=int(node.value) if node and stepping else None,
            steps=int(node.maximum) if node and stepping else None,
            step_s=step_s_of(node) if node and stepping else self.progress.step_s,
            elapsed_s=max(elapsed, 0.0),
            ends_in=self._eta(at, fraction),
        )
        self._note(at)
        return self.progress

    def _reached(self, at: float) -> float:
        total = sum(node.weight for node in self._nodes.values())
        if total <= 0.0:  # nothing left to do but what was cached
            return min((node.share for node in self._nodes.values()), default=1.0)
        return sum(node.weight * self._share(node, at) for node in self._nodes.values()) / total

    def _share(self, node: ObservedNode, at: float) -> float:
        """How much of a node is done; between events the clock moves it, where its time is known."""
        if node.share >= 1.0 or node.started_at is None or node.time is None or not self._knows_times:
            return node.share
        done, unit, since = _stepped(node)
        total = node.time.total_s(int(node.maximum) or node.steps)
        moved = min(at - since, unit * BEFORE_A_NODES_END) if node.ended_at is None else 0.0
        return max(node.share if not node.maximum else 0.0, min((done + max(moved, 0.0)) / total, 1.0)) if total > 0 else node.share

    def _note(self, at: float) -> None:
        """Keep what is said at a fixed moment, once."""
        due = [moment for moment, fraction in MOMENTS.items() if self.progress.fraction >= fraction]
        if self._current is None or self.progress.ends_in is None or any(made.moment == due[-1] for made in self.predictions):
            return
        self.predictions.append(Prediction(due[-1], at, self.progress.ends_in))

    def _eta(self, at: float, fraction: float) -> Range | None:
        """Seconds left: by what was learned, corrected by this run; else by this run alone, from its second step on."""
        if self.ended_at is not None:
            return Range(0.0, self._after_s, 2 * self._after_s + 1.0)
        if self.started_at is None:
            return None
        if not self._knows_times:
            left = self._left_by_this_run(at)
            return None if left is None else calibrated(left, "this_run")
        runs = max((node.time.runs for node in self._nodes.values() if node.time is not None and node.weight > 0), default=0)
        basis: Literal["history", "family"] = "history" if runs >= OWN_RUNS else "family"
        moment = [moment for moment, reached in MOMENTS.items() if fraction >= reached][-1]
        return calibrated(self._left(at), basis, self._ratios.get(moment, ()) if basis == "history" else ())

    def _left(self, at: float) -> float:
        """Seconds left of what was learned, at this run's own pace."""
        pace, left = self._pace(), self._after_s
        for node in self._nodes.values():
            if node.share >= 1.0 or node.time is None or node.ended_at is not None:
                continue
            if node.started_at is None:
                left += node.time.total_s(node.steps) * pace
                continue
            _, unit, since = _stepped(node)
            steps = int(node.maximum) or node.steps or 1
            step_s = self._own_step_s(node) if len(node.steps_at) > 1 else node.time.step_s * pace
            unit = step_s if node.value else node.time.first_s * pace
            left += max(unit - (at - since), 0.0) + max(steps - node.value - 1, 0) * step_s
        return left

    def _own_step_s(self, node: ObservedNode) -> float:
        """A step of this run, drawn towards what was learned while there are few."""
        gaps, learned = len(node.steps_at) - 1, node.time.step_s if node.time is not None else 0.0
        return (node.steps_at[-1] - node.steps_at[0] + OWN_STEPS * learned) / (gaps + OWN_STEPS)

    def _pace(self) -> float:
        """How long this run takes for what it has done, beside what was learned."""
        took = learned = 0.0
        for node in self._nodes.values():
            if node.time is None or node.started_at is None or node.cached:
                continue
            done, _, since = _stepped(node)
            ended = node.ended_at is not None
            learned += node.time.total_s(int(node.maximum) or node.steps) if ended else done
            took += (node.ended_at or since) - node.started_at
        prior = OWN_SHARE * sum(node.weight for node in self._nodes.values()) + 0.05
        return (took + prior) / (learned + prior)

    def _left_by_this_run(self, at: float) -> float | None:
        stepped = [node for node in self._nodes.values() if len(node.steps_at) >= 2]
        if not stepped:
            return None
        step_s = step_s_of(stepped[-1]) or 0.0
        ended = [node for node in self._nodes.values() if not node.steps_at]
        whole = [node.ended_at - node.started_at for node in ended if node.ended_at is not None and node.started_at is not None]
        other_s = statistics.mean(whole) if whole else step_s
        left = 0.0
        for node_id, node in self._nodes.items():
            if node.share < 1.0:
                steps = node.maximum or ((node.steps or DEFAULT_STEPS) if is_sampler(self._graph[node_id]) else 0)
                left += (steps - node.value) * step_s if steps else other_s
        last = stepped[-1].steps_at[-1]
        return max(left - min(at - last, step_s), 0.0)

    # ---- what the log wants at the end --------------------------------------------------------------------------------

    def node_timings(self, wall_of: float) -> list[NodeTiming]:
        """One row a node; `wall_of` is unix time minus this tracker's clock."""
        return [timing_of(node_id, self._graph[node_id], node, wall_of) for node_id, node in self._nodes.items()]

    def timings(self, nodes: Sequence[NodeTiming] | None = None) -> Timings:
        """Seconds by stage, from what was seen; unknown where the run was not watched. `nodes` are its rows, where they are at hand."""
        run_s = self.ended_at - self.started_at if self.ended_at is not None and self.started_at is not None else None
        return timings_of(self.node_timings(0.0) if nodes is None else nodes, run_s)


def _stepped(node: ObservedNode) -> tuple[float, float, float]:
    """Learned seconds of the steps that are done, of the one at work, and when that began."""
    assert node.time is not None
    assert node.started_at is not None
    if not node.value:
        return 0.0, node.time.first_s, node.started_at
    return node.time.total_s(int(node.value)), node.time.step_s, node.steps_at[-1]
