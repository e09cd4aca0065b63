"""What was seen of one attempt: its progress, its outputs, its start and its end; and where its seconds went.

Owns what the socket tells, and what stands in for it where it told nothing. Decides nothing: whether a prompt has ended is for run.py to ask.
Knows neither ledger nor server.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from toolkit.jobs import Attempt, Instant, Job, NodeTiming, Timings
from toolkit.order import UNKNOWN_S
from toolkit.progress import ProgressTracker
from toolkit.protocol import Ended, Event, Executed, Executing, ExecutionCached, ExecutionStart, HistoryEntry, Preview, ServerOutput


class Watched:
    """One attempt as its events show it."""

    def __init__(self, tracker: ProgressTracker, started: Instant | None) -> None:
        self.tracker, self.started = tracker, started
        self.heard = False  # anything at all
        self.ended_well = False
        self._from_its_start = False
        self._outputs: dict[str, tuple[ServerOutput, ...]] = {}
        self._cached: tuple[str, ...] = ()

    def take(self, event: Event, at: float) -> None:
        """Take an event of this prompt; `at` is its instant on the monotonic clock, in seconds."""
        self.heard = True
        if isinstance(event, Preview):
            return
        self.tracker.take(event, at)
        match event:
            case ExecutionStart():
                self._from_its_start = True
                self.started = self.started or Instant.now()
            case ExecutionCached(nodes=nodes):
                self._cached = nodes
            case Executed(node=node, outputs=outputs):
                self._outputs[node] = outputs
            case Ended(how="success"):
                self.ended_well = True

    def runs(self, prompt_id: str) -> None:
        """Note that it was found running, where nobody told of its start."""
        if self.started is None:
            self.started = Instant.now()
            self.tracker.apply(ExecutionStart(prompt_id), time.monotonic())

    def left_s(self) -> float:
        """Seconds until the server is free of it, as far as anybody knows."""
        said = self.tracker.shown_at(time.monotonic()).ends_in if self.tracker.started_at is not None else None
        return said.expected_s if said is not None else self.tracker.whole_s or UNKNOWN_S

    def is_whole(self, end: str) -> bool:
        """Whether it was told from its start to its good end, with what this node put out and no other: a part of a subgraph, say."""
        return self._from_its_start and self.ended_well and list(self._outputs) == [end]

    def as_history(self, prompt_id: str) -> HistoryEntry | None:
        """What its history would say, where it ended well and only that is gone."""
        outputs = tuple(output for some in self._outputs.values() for output in some)
        return HistoryEntry(prompt_id, "success", outputs, cached=self._cached) if self.ended_well and self._outputs else None

    def timings(self, job: Job, attempt: Attempt, entry: HistoryEntry, ended: Instant, fetch_s: float) -> tuple[Timings, Sequence[NodeTiming], Instant]:
        """Where its seconds went, by what was seen, else by the server's own timestamps; its nodes, where they were seen; and the instant of its end."""
        nodes: Sequence[NodeTiming] = []
        if self._from_its_start and self.tracker.started_at is not None:
            self.tracker.take(Ended(attempt.prompt_id, "success"), ended.mono or time.monotonic())
            for node in entry.cached:
                self.tracker.reuse(node)
            nodes = self.tracker.node_timings(time.time() - time.monotonic())
            timings = self.tracker.timings(nodes)
        else:
            run = (entry.ended_ms - entry.started_ms) / 1000 if entry.ended_ms and entry.started_ms else None
            timings = Timings(run_s=run if run is None or run >= 0 else None, nodes_cached=len(entry.cached), timed_by="history")
            self.started = self.started or (Instant(entry.started_ms / 1000) if entry.started_ms else None)
        sent, finished = attempt.sent, Instant.now()
        timings = replace(
            timings,
            wait_home_s=job.created.until(sent),
            wait_server_s=sent.until(self.started) if sent else None,
            fetch_s=fetch_s,
            total_s=job.created.until(finished),
        )
        return timings, nodes, finished


def is_last(event: Event) -> bool:
    """Whether an event is the last of a prompt."""
    return isinstance(event, Ended) or (isinstance(event, Executing) and event.node is None)
