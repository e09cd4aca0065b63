"""The one poller of a process and home: turns changes of ledger and live board into callbacks, and keeps feeders alive.

One thread, 6 microseconds a look: 3 ms apart while somebody waits, 50 ms otherwise. Callbacks run on this thread and must be short; a
broken one is logged and dropped.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from toolkit.errors import RequestInvalid, ToolkitError
from toolkit.jobs import Job, JobStatus, OpenJob
from toolkit.ledger import Ledger, LiveBoard
from toolkit.processes import feeder_runs, reap, start_feeder
from toolkit.progress import Progress
from toolkit.settings import ServerAddress
from toolkit.studio.standing import waiting_progress

log = logging.getLogger(__name__)

FAST_S, SLOW_S = 0.003, 0.05
MANY, MANY_S = 16, 0.02  # where so many are open, nobody waits for one after the other, and the processor is better used by what makes them
NEXT_S, NEXT_FROM_S, NEXT_TO_S = 0.001, 0.005, 0.1  # the pause, so long after a change: a job alone takes some ten milliseconds, those of a batch end sooner
PLACES_EVERY_S = 0.1  # each end in a fast sweep moves everybody who waits
PLACES_SHARE = 20  # a line of thousands takes 30 ms: one part in twenty of this thread's time at most
COUNTDOWN_S = 1.0  # who waits sees the seconds pass
FEEDER_CHECK_S = 0.5
MISSED_BEAT_S = 1.5  # feeders write their pulse each second
FEEDER_PAUSES_S = (2.0, 4.0, 8.0, 15.0)  # a feeder takes about a second to import before it beats; one that leaves at once may do so again
LIVED_S = 5.0  # beyond the pause

Callback: TypeAlias = Callable[[Job | Progress], None]
EVERY_JOB = "*"


class Watcher:
    """Watches one home from one process."""

    def __init__(self, ledger: Ledger, board: LiveBoard, headers: dict[str, str]) -> None:
        self._ledger, self._board, self._headers = ledger, board, headers
        self._callbacks: dict[str, list[tuple[str, Callback]]] = {}
        self._everything: list[Callable[[Job | tuple[str, Progress]], None]] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._asked = threading.Event()  # somebody began to wait: the slow look is over
        self._addresses: dict[str, ServerAddress] = {}
        self._started: dict[str, tuple[float, int, int]] = {}  # when, its pid, and how many before it left at once
        self._revision = ledger.revision()
        self._line = ledger.line()
        self._open: list[OpenJob] = []
        self._places: dict[str, Progress] = {}
        self._line_moved = False

    def feed(self, addresses: list[ServerAddress]) -> None:
        """See to it, from now on, that open jobs of these servers have a feeder; the first one starts at once."""
        self._addresses.update({address.url: address for address in addresses})
        for address in addresses:
            self._ensure_feeder(address)
        self._run()

    def subscribe(self, job_id: str, callback: Callback) -> Callable[[], None]:
        """Call back with every new Job and Progress of this job; returns how to stop."""
        entry = (job_id, callback)
        with self._lock:
            self._callbacks.setdefault(job_id, []).append(entry)
        self._run()

        def leave() -> None:
            with self._lock:
                held = self._callbacks.get(job_id, [])
                if entry in held:
                    held.remove(entry)
                if not held:
                    self._callbacks.pop(job_id, None)

        return leave

    def subscribe_all(self, callback: Callable[[Job | tuple[str, Progress]], None]) -> Callable[[], None]:
        """Call back with every new Job and every (job id, Progress) of the home; returns how to stop."""
        with self._lock:
            self._everything.append(callback)
        self._run()

        def leave() -> None:
            with self._lock:
                if callback in self._everything:
                    self._everything.remove(callback)

        return leave

    def require_open(self) -> None:
        """Refuse to wait for news that nobody will bring.

        Raises:
            RequestInvalid: it was closed.
        """
        if self._stop.is_set():
            raise RequestInvalid("This studio is closed.", hint="Studio() opens the home again; jobs go on meanwhile.")

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._asked.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        self.require_open()
        self._asked.set()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="toolkit-watcher", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        ledger_version = live_version = -1
        shown = 0
        checked = placed = pause = changed = 0.0
        while not self._stop.is_set():
            self._asked.wait(self._pause_s(time.monotonic() - changed))
            self._asked.clear()
            try:
                now = self._ledger.data_version()
                if now != ledger_version:
                    ledger_version, changed = now, time.monotonic()
                    self._tell_jobs()
                now = self._board.data_version()
                if now != live_version:
                    live_version = now
                    shown = self._tell_progress(shown)
                if time.monotonic() - placed >= max(PLACES_EVERY_S if self._line_moved else COUNTDOWN_S, pause):
                    began, self._line_moved = time.monotonic(), False
                    self._tell_places()
                    placed = time.monotonic()
                    pause = PLACES_SHARE * (placed - began)
                if time.monotonic() - checked > FEEDER_CHECK_S:
                    checked = time.monotonic()
                    self._keep_fed()
            except ToolkitError as error:  # a home that cannot be read now may be readable in a second
                log.warning("watching %s: %s", self._ledger.home, error)
                self._stop.wait(1.0)
            except Exception:  # a dead watcher would leave every `wait()` waiting
                log.exception("watching %s", self._ledger.home)
                self._stop.wait(1.0)

    def _pause_s(self, quiet_s: float) -> float:
        """Until the next look, so long after a change."""
        if not self._callbacks and not self._everything:
            return SLOW_S
        if len(self._open) > MANY:
            return MANY_S
        return NEXT_S if NEXT_FROM_S < quiet_s < NEXT_TO_S else FAST_S

    def _tell_jobs(self) -> None:
        self._revision, jobs = self._ledger.changed_since(self._revision, self._is_followed)
        for job in jobs:
            self._tell(job.id, job)
            self._tell_all(job)
        self._open = self._line.jobs()
        self._line_moved = True

    def _is_followed(self, job_id: str) -> bool:
        """Whether anybody wants to hear of a job: reading one costs more than all the rest of a look."""
        return bool(self._everything) or job_id in self._callbacks

    def _tell_places(self) -> None:
        """A waiting job moves up when others end, which changes nothing of its own."""
        queued = {job.id for job in self._open if job.status == JobStatus.QUEUED}
        if not queued.intersection(self._callbacks):
            return
        wall = time.time()
        now = waiting_progress(self._open, self._board.lines(wall), wall)
        followed = [job_id for job_id in list(self._callbacks) if job_id in now]
        for job_id in followed:
            if _shown(now[job_id]) != _shown(self._places.get(job_id)):
                self._tell(job_id, now[job_id])
        self._places = {job_id: now[job_id] for job_id in followed}

    def _tell_progress(self, shown: int) -> int:
        for row in self._board.jobs_since(shown):
            shown = max(shown, row.version)
            if row.id in self._callbacks or self._everything:
                progress = Progress.load(row.progress)
                self._tell(row.id, progress)
                self._tell_all((row.id, progress))
        return shown

    def _tell(self, job_id: str, news: Job | Progress) -> None:
        with self._lock:
            callbacks = [callback for _, callback in self._callbacks.get(job_id, [])]
        for callback in callbacks:
            try:
                callback(news)
            except Exception:
                log.exception("a subscriber of job %s failed", job_id)

    def _tell_all(self, news: Job | tuple[str, Progress]) -> None:
        with self._lock:
            callbacks = list(self._everything)
        for callback in callbacks:
            try:
                callback(news)
            except Exception:
                log.exception("a subscriber of all jobs failed")

    def _keep_fed(self) -> None:
        """Start a feeder for each of our servers that has open jobs and none."""
        reap()
        wanted = {url for job in self._open for url in job.servers}
        for url, address in list(self._addresses.items()):
            if url in wanted:
                self._ensure_feeder(address)
            elif url in self._started:  # it did its work and may leave
                self._started[url] = (*self._started[url][:2], 0)

    def _ensure_feeder(self, address: ServerAddress) -> None:
        live = self._board.server(address.url)
        if live is not None and live.is_alive(within_s=MISSED_BEAT_S):  # a dead one's lock is free at once, so that there is no need to wait longer
            return
        started_at, pid, failures = self._started.get(address.url, (-math.inf, 0, 0))
        since, pause = time.monotonic() - started_at, FEEDER_PAUSES_S[min(failures, len(FEEDER_PAUSES_S) - 1)]
        if since < pause or feeder_runs(self._ledger.home, address.url):
            return
        killed = live is not None and live.pid == pid  # who gives up, as on a full disk, takes its pulse off the board or had none
        failures = failures + 1 if since < pause + LIVED_S and not killed else 0
        self._started[address.url] = (time.monotonic(), start_feeder(self._ledger.home, address, self._headers), failures)


def _shown(waiting: Progress | None) -> tuple[int | None, int | None] | None:
    """What a face shows of a waiting job: its place, and when it starts to the second."""
    return None if waiting is None else (waiting.ahead, round(waiting.starts_in.expected_s) if waiting.starts_in else None)
