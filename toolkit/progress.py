"""How far a job is: one frozen `Progress` from the events of its prompt.

Owns the rules of a true bar: whole-graph, cached nodes counted, never falling, 1.0 only when the job has ended with its files. Owns the
times of nodes and steps too, since they come from the same events. Knows no clock and no socket: each event arrives with its instant.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from toolkit.graph import ancestors, title_of
from toolkit.jobs import NodeTiming, Timings
from toolkit.protocol import Ended, Event, Executing, ExecutionCached, ExecutionStart, NodeProgress, ProgressState
from toolkit.roles import STAGES, is_sampler, model_of, stage_of, steps_of

BEFORE_THE_END = 0.995  # the bar waits here while files are fetched and checked


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


@dataclass(slots=True)
class _Node:
    """What the events have said of one node so far."""

    weight: float
    share: float = 0.0
    cached: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    value: float = 0.0
    maximum: float = 0.0
    steps_at: list[float] = field(default_factory=list)


class ProgressTracker:
    """Turns the events of one prompt into progress and, at the end, into timings."""

    def __init__(self, graph: Mapping[str, Any], outputs: set[str] | None = None) -> None:
        """Watch the part of `graph` that runs: what is upstream of `outputs`, or all of it."""
        part = ancestors(graph, outputs) if outputs else set(graph)
        self._graph = {node_id: node for node_id, node in graph.items() if node_id in part}
        self._nodes = {node_id: _Node(_weight(node)) for node_id, node in self._graph.items()}
        self._total = sum(node.weight for node in self._nodes.values()) or 1.0
        self._current: str | None = None
        self.progress = Progress()
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.last_event_at: float | None = None

    def apply(self, event: Event, at: float) -> Progress:
        """The progress after an event that belongs to this prompt; `at` is in seconds on one monotonic clock."""
        self.last_event_at = at
        match event:
            case ExecutionStart():
                self._start(at)
            case ExecutionCached(nodes=nodes):
                for node_id in nodes:
                    self.reuse(node_id)
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
        return self.shown_at(at)

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
        reached = sum(node.weight * node.share for node in self._nodes.values()) / self._total
        fraction = max(self.progress.fraction, min(BEFORE_THE_END, reached))
        node = self._nodes.get(self._current or "")
        stepping = node is not None and node.maximum > 0
        now = at if self.ended_at is None else self.ended_at
        elapsed = now - self.started_at if self.started_at is not None else 0.0
        self.progress = replace(
            self.progress,
            fraction=fraction,
            node=title_of(self._current, self._graph[self._current]) if self._current else self.progress.node,
            step=int(node.value) if node and stepping else None,
            steps=int(node.maximum) if node and stepping else None,
            step_s=_step_s(node) if node and stepping else self.progress.step_s,
            elapsed_s=max(elapsed, 0.0),
            ends_in=self._eta(at),
        )
        return self.progress

    def _eta(self, at: float) -> Range | None:
        """Seconds left from this run alone: known from the second step on (design: a first run has no history)."""
        if self.ended_at is not None:
            return Range(0.0, 0.0, 1.0)
        if self.started_at is None:
            return None
        stepped = [node for node in self._nodes.values() if len(node.steps_at) >= 2]
        if not stepped:
            return None
        step_s = _step_s(stepped[-1]) or 0.0
        ended = [node for node in self._nodes.values() if not node.steps_at]
        whole = [node.ended_at - node.started_at for node in ended if node.ended_at is not None and node.started_at is not None]
        other_s = statistics.mean(whole) if whole else step_s
        left = 0.0
        for node_id, node in self._nodes.items():
            if node.share < 1.0:
                steps = node.maximum or (_steps(self._graph[node_id]) if is_sampler(self._graph[node_id]) else 0)
                left += (steps - node.value) * step_s if steps else other_s
        last = stepped[-1].steps_at[-1]
        left = max(left - min(at - last, step_s), 0.0)
        return Range(left * 0.85, left, left * 1.3 + 1.0)

    # ---- what the log wants at the end --------------------------------------------------------------------------------

    def node_timings(self, wall_of: float) -> list[NodeTiming]:
        """One row a node; `wall_of` is unix time minus this tracker's clock."""
        found: list[NodeTiming] = []
        for node_id, state in self._nodes.items():
            node = self._graph[node_id]
            class_type = str(node.get("class_type"))
            stage = stage_of(class_type)
            elapsed = state.ended_at - state.started_at if state.ended_at is not None and state.started_at is not None else None
            first, step = _step_times(state)
            began = state.started_at + wall_of if state.started_at is not None else None
            took, steps = (0.0 if state.cached else elapsed), int(state.maximum) or None
            title = title_of(node_id, node)
            found.append(NodeTiming(node_id, class_type, title, stage, model_of(node), state.cached, began, took, steps, first, step))
        return found

    def timings(self) -> Timings:
        """Seconds by stage, from what was seen; unknown where the run was not watched."""
        nodes = self.node_timings(0.0)
        run = self.ended_at - self.started_at if self.ended_at is not None and self.started_at is not None else None
        by_stage = {stage: sum(node.elapsed_s or 0.0 for node in nodes if node.stage == stage) for stage in STAGES if stage != "other"}
        samplers = [node for node in nodes if node.stage == "sample" and node.steps]
        longest = max(samplers, key=lambda node: node.elapsed_s or 0.0, default=None)
        return Timings(
            run_s=run,
            **{f"{stage}_s": seconds for stage, seconds in by_stage.items()},
            other_s=max(run - sum(by_stage.values()), 0.0) if run is not None else None,
            first_step_s=longest.first_step_s if longest else None,
            step_s=longest.step_s if longest else None,
            warmth=_warmth(nodes),
            nodes_run=sum(1 for node in nodes if node.elapsed_s is not None and not node.cached),
            nodes_cached=sum(1 for node in nodes if node.cached),
            timed_by="events",
        )


def _weight(node: Mapping[str, Any]) -> float:
    return float(max(_steps(node), 2)) if is_sampler(node) else 1.0


def _steps(node: Mapping[str, Any]) -> int:
    steps = steps_of(node)
    return 20 if steps is None else steps


def _step_times(node: _Node) -> tuple[float | None, float | None]:
    """The first step, from the node's start, and the median of the others."""
    if not node.steps_at or node.started_at is None:
        return None, None
    gaps = [later - earlier for earlier, later in zip(node.steps_at, node.steps_at[1:], strict=False)]
    return node.steps_at[0] - node.started_at, statistics.median(gaps) if gaps else None


def _step_s(node: _Node) -> float | None:
    first, step = _step_times(node)
    return step if step is not None else first


def _warmth(nodes: list[NodeTiming]) -> str | None:
    samplers = [node for node in nodes if node.stage == "sample"]
    loaders = [node for node in nodes if node.stage == "load"]
    if samplers and all(node.cached for node in samplers):
        return "cached"
    if not loaders:
        return None
    return "cold" if any(not node.cached for node in loaders) else "warm"
