"""How a job stands: its progress, its place, and what it waits for, from ledger and live board.

Owns the sentences for an open job that cannot go on by itself. Asks no server.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from toolkit.jobs import Job, JobStatus, OpenJob
from toolkit.ledger import Ledger, LiveBoard
from toolkit.order import ServerLine, Turn, turns
from toolkit.progress import Progress, calibrated


def waiting_progress(jobs: Sequence[OpenJob], lines: Sequence[ServerLine], now: float) -> dict[str, Progress]:
    """How every waiting job of a home stands, everybody's before it counted; `now` in unix seconds."""
    return {turn.job.id: _of_turn(turn) for turn in turns(jobs, lines, now)}


def _of_turn(turn: Turn) -> Progress:
    if turn.starts_s is None:
        return Progress(ahead=turn.ahead)
    ends_in = calibrated(turn.starts_s + turn.takes_s, "history") if turn.takes_s is not None else None
    return Progress(ahead=turn.ahead, starts_in=calibrated(turn.starts_s, "history"), ends_in=ends_in)


class Standing:
    """What is known of open jobs now."""

    def __init__(self, ledger: Ledger, board: LiveBoard) -> None:
        self._ledger, self._board = ledger, board

    def progress_of(self, job: Job) -> Progress:
        """How far it is: 1.0 only when it has ended well."""
        if job.is_final:
            took = job.timings.run_s if job.timings and job.timings.run_s is not None else 0.0
            return Progress(fraction=1.0 if job.is_done else 0.0, elapsed_s=took)
        live = self._board.job(job.id)
        trouble = self.trouble_of(job)
        if live is not None and job.status != JobStatus.QUEUED:
            progress = Progress.load(live.progress)
            return progress if trouble is None else replace(progress, stalled=trouble)
        return replace(self.waiting().get(job.id, Progress()), stalled=trouble)

    def waiting(self) -> dict[str, Progress]:
        """How every waiting job of the home stands now."""
        now = time.time()
        return waiting_progress(self._ledger.open_jobs(), self._board.lines(now), now)

    def trouble_of(self, job: Job) -> str | None:
        """A sentence when an open job waits for a server that cannot be reached or is paused, for a feeder that is silent, or to be released."""
        if job.seq <= self._ledger.held_to():
            return self.held()
        for url in [job.server_url] if job.server_url else job.servers:
            pause = self._ledger.pause(url) if job.status == JobStatus.QUEUED else None
            live = self._board.server(url)
            if pause is not None:
                return pause.sentence
            if live is not None and live.state == "unreachable" and live.is_alive():
                return live.sentence or f"{url} does not answer."
            if live is not None and not live.is_alive():
                return f"The feeder of {url} has been silent for {time.time() - live.beat:.0f} s; another one is started."
        return None

    def held(self) -> str | None:
        """A sentence when this home is a copy whose open jobs wait."""
        count = self._ledger.held()
        if not count:
            return None
        which = f"{count} open jobs wait" if count > 1 else "open job waits"
        return f"This home is a copy: its {which} for `toolkit resume` or `studio.resume()`, lest they run twice."


class Queue(list[Job]):
    """Open jobs that show themselves as a live board of all servers."""

    def __init__(self, studio: Any, jobs: Sequence[Job]) -> None:
        super().__init__(jobs)
        self._studio = studio

    def _ipython_display_(self) -> None:
        from toolkit.widgets import QueueBoard

        QueueBoard(self._studio).show()
