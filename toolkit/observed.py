"""What the events of one run have said of each node, and the times that the log wants of it.

Knows no clock: instants are those of whoever heard the events.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.graph import title_of
from toolkit.jobs import NodeTiming, Timings
from toolkit.roles import STAGES, model_of, stage_of
from toolkit.times import NodeTime


@dataclass(slots=True)
class ObservedNode:
    """One node of a run: what it is worth, what is expected of it, and what was heard."""

    steps: int | None
    weight: float = 1.0
    time: NodeTime | None = None
    share: float = 0.0
    cached: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    value: float = 0.0
    maximum: float = 0.0
    steps_at: list[float] = field(default_factory=list)


def step_times(node: ObservedNode) -> tuple[float | None, float | None]:
    """The first step, from the node's start, and the median of the others."""
    if not node.steps_at or node.started_at is None:
        return None, None
    gaps = [later - earlier for earlier, later in zip(node.steps_at, node.steps_at[1:], strict=False)]
    return node.steps_at[0] - node.started_at, statistics.median(gaps) if gaps else None


def step_s_of(node: ObservedNode) -> float | None:
    """Seconds a step, by the first one while there is no other."""
    first, step = step_times(node)
    return step if step is not None else first


def timing_of(node_id: str, node: Mapping[str, Any], seen: ObservedNode, wall_of: float) -> NodeTiming:
    """The log's row of a node; `wall_of` is unix time minus the clock of its instants."""
    class_type = str(node.get("class_type"))
    elapsed = seen.ended_at - seen.started_at if seen.ended_at is not None and seen.started_at is not None else None
    began = seen.started_at + wall_of if seen.started_at is not None else None
    took, steps = (0.0 if seen.cached else elapsed), int(seen.maximum) or None
    return NodeTiming(node_id, class_type, title_of(node_id, node), stage_of(class_type), model_of(node), seen.cached, began, took, steps, *step_times(seen))


def timings_of(nodes: Sequence[NodeTiming], run_s: float | None) -> Timings:
    """The stages of a run that was watched."""
    by_stage = {stage: sum(node.elapsed_s or 0.0 for node in nodes if node.stage == stage) for stage in STAGES if stage != "other"}
    samplers = [node for node in nodes if node.stage == "sample" and node.steps]
    longest = max(samplers, key=lambda node: node.elapsed_s or 0.0, default=None)
    return Timings(
        run_s=run_s,
        **{f"{stage}_s": seconds for stage, seconds in by_stage.items()},
        other_s=max(run_s - sum(by_stage.values()), 0.0) if run_s is not None else None,
        first_step_s=longest.first_step_s if longest else None,
        step_s=longest.step_s if longest else None,
        warmth=_warmth(nodes),
        nodes_run=sum(1 for node in nodes if node.elapsed_s is not None and not node.cached),
        nodes_cached=sum(1 for node in nodes if node.cached),
        timed_by="events",
    )


def _warmth(nodes: Sequence[NodeTiming]) -> str | None:
    samplers = [node for node in nodes if node.stage == "sample"]
    loaders = [node for node in nodes if node.stage == "load" and node.model is not None]  # LoadImage reads no weights
    if samplers and all(node.cached for node in samplers):
        return "cached"
    if not loaders:
        return None
    return "cold" if any(not node.cached for node in loaders) else "warm"
