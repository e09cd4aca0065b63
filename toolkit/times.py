"""What each node of a graph took before, and what it will take: seconds, learned for one server from the runs it has done.

Owns how runs are pooled. The same part of a graph at the same warmth says most; then the same class with the same model, in proportion to the
pixels; then both at any warmth and with any model. Each is a median, drawn towards the more general one while its runs are few. What was never seen is
unknown. Knows no clock, no server and no file; the built-in engine is a server of its own, so its times are never another's.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from toolkit.graph import UNHASHED_INPUTS, digests, graph_hash
from toolkit.jobs import NodeTiming
from toolkit.roles import is_sampler, model_of, outline_of, stage_of, steps_at

KEPT = 24  # runs a key: an upgrade of the server is learned within a few jobs
DRAWN = 0.7  # weight of the more general median, in runs
SAME_COST = UNHASHED_INPUTS | {"text", "cfg", "text_g", "text_l", "image", "strength_model", "strength_clip"}
"""Inputs that do not change what a node takes."""
SAME_STEP = SAME_COST | {"steps", "denoise", "start_at_step", "end_at_step"}
"""Inputs that do not change what one step takes."""

Key: TypeAlias = tuple[str | bool | None, ...]


def recipe_key(graph: Mapping[str, Any]) -> str:
    """Equal for graphs that take the same time: seeds, words and guidance do not count."""
    return graph_hash(graph, SAME_COST)


def loads_of(graph: Mapping[str, Any], known: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What a server has in memory after a run of this graph: a short digest for each of its loaders, LoRAs with what they are put on.

    `known` are its digests, where they are at hand.
    """
    readers = [node_id for node_id, node in graph.items() if reads_a_model(node)]
    digest_of = (known or digests(graph)) if readers else {}
    return tuple(sorted(digest_of[node_id][:8] for node_id in readers))


class Cost(NamedTuple):
    """What the common order needs of a graph: equal keys take the same time, equal loads share what a server has in memory."""

    recipe_key: str
    loads: tuple[str, ...]

    @classmethod
    def of(cls, graph: Mapping[str, Any]) -> Cost:
        """The cost of a graph."""
        return cls(recipe_key(graph), loads_of(graph))


@dataclass(frozen=True, slots=True)
class NodeTime:
    """What a node will take: `first_s` to its first step, all of it where it has no steps, and `step_s` for each further one."""

    first_s: float
    step_s: float = 0.0
    runs: int = 0  # of exactly this part of a graph

    def total_s(self, steps: int | None) -> float:
        """Seconds for this many steps."""
        return self.first_s + max((steps or 1) - 1, 0) * self.step_s


class LearnedTimes:
    """The times of one server: `learn` from each run that ended well, then ask `of` a graph."""

    def __init__(self) -> None:
        self._first: defaultdict[Key, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._step: defaultdict[Key, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._views: deque[_View] = deque(maxlen=8)  # a graph is asked for when it is sent, when the server tells what it has cached, and at its end

    def learn(self, graph: Mapping[str, Any], nodes: Sequence[NodeTiming]) -> None:
        """Take the nodes of a run; cached ones and those that were not watched teach nothing."""
        view, cold = self._seen(graph), any(node.model is not None and not node.cached for node in nodes)
        for node in nodes:
            if node.cached or node.elapsed_s is None or node.node_id not in graph:
                continue
            first, step = node.elapsed_s, None
            if node.steps and node.steps > 1 and node.first_step_s is not None:
                first, step = node.first_step_s, (node.elapsed_s - node.first_step_s) / (node.steps - 1)
            for key, scale in view.keys(node.node_id, cold):
                self._first[key].append(first / scale)
                if step is not None:
                    self._step[key].append(step / scale)

    def of(self, graph: Mapping[str, Any], cached: Collection[str] = ()) -> dict[str, NodeTime | None]:
        """What each node that is not cached will take; None where nothing like it was ever seen."""
        todo = [node_id for node_id in graph if node_id not in cached]
        view, cold = self._seen(graph), any(reads_a_model(graph[node_id]) for node_id in todo)
        return {node_id: self._node(view.keys(node_id, cold)) for node_id in todo}

    def _seen(self, graph: Mapping[str, Any]) -> _View:
        view = next((view for view in self._views if view.graph is graph), None)
        if view is None:
            view = _View.of(graph)
            self._views.append(view)
        return view

    def _node(self, keys: Sequence[tuple[Key, float]]) -> NodeTime | None:
        first = _pooled([(self._first.get(key), scale) for key, scale in keys])
        if first is None:
            return None
        own = max(len(self._first.get(key) or ()) for key, _ in (keys[0], keys[2]))
        return NodeTime(first, _pooled([(self._step.get(key), scale) for key, scale in keys]) or 0.0, own)


@dataclass(frozen=True, slots=True)
class _View:
    """A graph as times see it: the keys of its nodes, from the most special to the most general."""

    graph: Mapping[str, Any]
    shapes: Mapping[str, str]
    model: str | None
    work: float

    @classmethod
    def of(cls, graph: Mapping[str, Any]) -> _View:
        outline = outline_of(graph)
        sizes = [outline[name] for name in ("width", "height", "batch_size", "frames")]
        work = 1.0
        for size in sizes:
            work *= size if isinstance(size, (int, float)) and size > 0 else 1
        return cls(graph, digests(graph, SAME_STEP), outline["model"], work / 1e6 if work > 1 else 1.0)

    def keys(self, node_id: str, cold: bool) -> list[tuple[Key, float]]:
        """Keys with what a time is divided by: pixels, but for what reads files."""
        node, shape = self.graph[node_id], self.shapes[node_id]
        class_type = str(node.get("class_type"))
        loads = reads_a_model(node)
        model, scale = (model_of(node), 1.0) if loads else (self.model, self.work)
        return [((shape, cold), 1.0), ((class_type, model, cold), scale), ((shape,), 1.0), ((class_type,), scale)]


def reads_a_model(node: Mapping[str, Any]) -> bool:
    """Whether a node reads a model file: a run in which one does is cold."""
    return stage_of(str(node.get("class_type"))) == "load" and model_of(node) is not None


def _pooled(levels: Sequence[tuple[Sequence[float] | None, float]]) -> float | None:
    """The most special median, drawn towards the more general ones as far as its runs are few."""
    found: float | None = None
    for values, scale in reversed(levels):
        if values:
            median, count = statistics.median(values) * scale, len(values)
            found = median if found is None else (count * median + DRAWN * found) / (count + DRAWN)
    return found


def expected_s(graph: Mapping[str, Any], times: Mapping[str, NodeTime | None]) -> float | None:
    """Seconds the nodes in `times` will take together; None when a sampler, or nothing at all, is known. Others that are unknown count as nothing."""
    known = {node_id: time for node_id, time in times.items() if time is not None}
    if not known or any(is_sampler(graph[node_id]) for node_id in times if node_id not in known):
        return None
    return sum(time.total_s(steps_at(graph, node_id)) for node_id, time in known.items())
