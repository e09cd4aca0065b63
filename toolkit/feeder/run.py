"""The way of one attempt: submit, follow, collect, end.

Owns what happens to one prompt after the claim. Socket events and polls both lead to the same questions, answered by reconcile.judge, so
either alone can finish a job. Every wait has a bound and a reason; nothing here decides on an unreachable server's silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from toolkit.crashpoints import reached
from toolkit.errors import PromptRejected, ServerError, ServerRefused, ServerUnreachable, ToolkitError
from toolkit.feeder.collect import Collector, Desk
from toolkit.jobs import Attempt, Instant, Job, JobStatus, Timings
from toolkit.ledger import Outcome
from toolkit.progress import ProgressTracker
from toolkit.protocol import Ended, Event, Executed, Executing, ExecutionStart, HistoryEntry, Preview, ServerOutput, parse_rejection
from toolkit.reconcile import Evidence, Fate, judge

log = logging.getLogger(__name__)

SHOW_EVERY_S = 0.05  # 20 steps in 2 s shall show as 20 steps; a write to the live board costs 50 microseconds
PREVIEW_EVERY_S = 0.2
QUIET_S = 2.0  # with events flowing nobody polls; after this much silence we ask
POLL_S = 0.5  # without a socket
HISTORY_WAIT_S = 10.0  # success is sent before history is written (ComfyUI main.py); 5 ms as a rule
HISTORY_STEPS_S = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2)
GATES = frozenset({301, 302, 303, 307, 308, 401, 403, 407, 429, 502, 503, 504})  # a proxy before the server says no: of the graph it says nothing
ATTEMPTS_LIMIT = 2  # a lost job is sent once more; a server that loses it twice needs a person
PREVIEW_LIMIT = 300_000


class Run:
    """One attempt on its way; `way()` returns when the ledger has its end."""

    def __init__(self, desk: Desk, job: Job, attempt: Attempt, graph: Mapping[str, Any], recipe: Mapping[str, Any], *, fresh: bool) -> None:
        self.desk, self.job, self.attempt, self.graph, self.recipe = desk, job, attempt, graph, recipe
        self.tracker = ProgressTracker(graph)
        self.on_server = asyncio.Event()
        self.on_server.set()
        self.cancel_asked = job.cancel_asked
        self._fresh = fresh
        self._hint = asyncio.Event()
        self._ended_hint = False
        self._acknowledged = attempt.acknowledged
        self._not_sent = False
        self._refusal: ServerError | None = None
        self._deleted = False
        self._timed_out = False
        self._status = JobStatus(attempt.status)
        self._absences, self._absent_since = 0, 0.0
        self._sent_at = time.monotonic() - ((attempt.sent.until(Instant.now()) or 0.0) if attempt.sent else 0.0)
        self._seen: dict[str, tuple[ServerOutput, ...]] = {}
        self._succeeded = False
        self._watched = False
        self._started: Instant | None = attempt.started
        self._dropped: tuple[str, ...] = ()
        self._shown_at = self._preview_at = 0.0
        self._preview: Preview | None = None

    # ---- the spine ----------------------------------------------------------------------------------------------------

    async def way(self) -> None:
        """Submit if fresh, follow to the end on the server, collect the files, write the end."""
        self.desk.link.listeners[self.attempt.prompt_id] = self
        showing = asyncio.create_task(self._show_live())
        try:
            if self._fresh:
                await self._submit()
            outcome = await self._follow()
            self.on_server.clear()
            if isinstance(outcome, HistoryEntry):
                outcome = await self._collect(outcome)
            await self._end(outcome)
        finally:
            self.on_server.clear()
            self.desk.link.listeners.pop(self.attempt.prompt_id, None)
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
        with contextlib.suppress(ToolkitError):  # only now, or a late write would put it back
            await self.desk.database(lambda: self.desk.board.remove(self.attempt.job_id))

    async def _submit(self) -> None:
        """POST once. In doubt, nothing is sent again before the server was asked."""
        self._not_sent = False
        try:
            accepted = await self.desk.link.client.submit(
                self.graph, self.attempt.prompt_id, self.desk.link.client_id, {"toolkit": {"job_id": self.job.id, "attempt": self.attempt.number}}
            )
        except PromptRejected as error:
            self._refusal = error
        except ServerUnreachable as error:
            self.desk.link.down(error)
            self._not_sent = error.not_sent
        except ServerError as error:
            if isinstance(error, ServerRefused) and error.status in GATES:
                self.desk.link.down(error)
                self._not_sent = error.status < 500
            else:
                self._refusal = error
        else:
            reached("answer read")
            self.desk.link.up()
            self._acknowledged = True
            if accepted.refused is not None:
                self._dropped = tuple(str(error) for error in accepted.refused.errors)
            await self._record(None, acknowledged=1, queue_number=accepted.number, submitted=Instant.now())

    # ---- follow -------------------------------------------------------------------------------------------------------

    def hear(self, event: Event, at: float) -> None:
        """Take an event of this prompt from the socket."""
        if isinstance(event, Preview):
            if len(event.data) <= PREVIEW_LIMIT:
                self._preview = event
            return
        self.tracker.apply(event, at)
        match event:
            case ExecutionStart():
                self._watched = self._acknowledged = True
                self._started = self._started or Instant.now()
                self._hint.set()
            case Executed(node=node, outputs=outputs):
                self._seen[node] = outputs
            case Ended() | Executing(node=None):
                self._succeeded = self._succeeded or (isinstance(event, Ended) and event.how == "success")
                self._ended_hint = True
                self._hint.set()

    def nudge(self) -> None:
        """Look again now: a cancel was asked, or the server came back."""
        self._hint.set()

    async def _follow(self) -> HistoryEntry | Outcome:
        """Wait for hints, ask when it is quiet, act on the fate, until the prompt has left the server."""
        while True:
            refused = self._refused()
            if refused is not None:
                return refused
            if not self._ended_hint and not self._not_sent:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hint.wait(), self._patience())
            self._hint.clear()
            await self._note_start()
            if self.cancel_asked or self._is_out_of_time():
                await self._stop_on_server()
            elif not self._ended_hint and not self._not_sent and not self._is_quiet():
                continue
            found = await self._ask()
            if found is not None:
                return found

    def _patience(self) -> float:
        if self.cancel_asked or self._timed_out or self._absences:
            return 0.1 if self._deleted else 1.0
        return QUIET_S if self.desk.link.is_open.is_set() and self.desk.link.reachable else POLL_S

    def _is_quiet(self) -> bool:
        """Whether the socket has said nothing for long enough to ask; without one it is always quiet."""
        if not self.desk.link.is_open.is_set():
            return True
        return time.monotonic() - max(self.tracker.last_event_at or 0.0, self._sent_at) >= QUIET_S

    def _is_out_of_time(self) -> bool:
        limit = self.job.request.timeout_s
        self._timed_out = limit is not None and time.monotonic() - self._sent_at > limit
        return self._timed_out

    def _refused(self) -> Outcome | None:
        """The end that a refusal of the POST means, if it is certain."""
        error = self._refusal
        if isinstance(error, PromptRejected):
            details = parse_rejection({"error": {"message": error.message}, "node_errors": error.node_errors}).errors
            node = details[0].class_type if details else None
            return Outcome(JobStatus.REJECTED, error=error.message, failure_kind=details[0].kind if details else error.kind, failure_node=node)
        if isinstance(error, ServerRefused) and error.status < 500:
            return Outcome(JobStatus.REJECTED, error=error.message, hint=error.hint, failure_kind=f"http_{error.status}")
        return None

    async def _note_start(self) -> None:
        if self._started is not None and self._status == JobStatus.SUBMITTED:
            await self._record(JobStatus.RUNNING, started=self._started, acknowledged=1)

    async def _ask(self) -> HistoryEntry | Outcome | None:
        """One round of questions, queue before history; None if it goes on."""
        client, prompt_id = self.desk.link.client, self.attempt.prompt_id
        try:
            if self._ended_hint:
                entry = await self._history_soon()
                if entry is not None:
                    return entry
                self._ended_hint = False
            if self._not_sent:
                return await self._again_or_cancelled()
            deleted = self._deleted
            queue = await client.queue()
            late = [found.prompt_id for found in queue.pending if found.prompt_id in self.desk.link.superseded]
            if late:  # a POST that arrived after it was given up: its successor is on the way
                await client.delete(late)
            entry = None if queue.runs(prompt_id) or queue.place(prompt_id) is not None else await client.history(prompt_id)
            absent = entry is None and not queue.runs(prompt_id) and queue.place(prompt_id) is None
            forgot = absent and self._acknowledged and await self._server_forgot()
        except ServerError as error:
            self.desk.link.down(error)
            await asyncio.sleep(POLL_S)
            return None
        self.desk.link.up()
        self._absences = self._absences + 1 if absent else 0
        self._absent_since = (self._absent_since or time.monotonic()) if absent else 0.0
        evidence = Evidence(
            self._acknowledged, entry, queue.runs(prompt_id), queue.place(prompt_id), self._absences,
            time.monotonic() - self._absent_since if absent else 0.0, False, forgot, False, self.cancel_asked or self._timed_out, deleted,
        )  # fmt: skip
        return await self._act(judge(evidence), entry)

    async def _history_soon(self) -> HistoryEntry | None:
        """The history entry after a final event: there at once, or within milliseconds; bounded, since it may never come."""
        deadline = time.monotonic() + HISTORY_WAIT_S
        steps = iter(HISTORY_STEPS_S)
        while time.monotonic() < deadline:
            await asyncio.sleep(next(steps, 0.5))
            entry = await self.desk.link.client.history(self.attempt.prompt_id)
            if entry is not None:
                return entry
            queue = await self.desk.link.client.queue()
            if queue.place(self.attempt.prompt_id) is not None:
                return None
        return None

    async def _again_or_cancelled(self) -> Outcome | None:
        """The POST never left us: send it again under the same id once the server answers."""
        if self.cancel_asked or self._timed_out:
            return self._stopped()
        await asyncio.sleep(POLL_S)
        await self.desk.link.connect()
        await self._submit()
        return None

    async def _act(self, fate: Fate, entry: HistoryEntry | None) -> HistoryEntry | Outcome | None:
        match fate:
            case Fate.ENDED:
                return entry
            case Fate.RUNNING:
                self._acknowledged, self._refusal = True, None
                self._deleted = False  # ComfyUI forgets an interrupt that comes just before a prompt starts: ask again
                if self._started is None:
                    self._started = Instant.now()
                    self.tracker.apply(ExecutionStart(self.attempt.prompt_id), time.monotonic())
                await self._note_start()
            case Fate.PENDING:
                if not self._acknowledged:
                    self._acknowledged, self._refusal = True, None
                    await self._record(None, acknowledged=1)
            case Fate.LOST | Fate.REMOVED if self._succeeded and self._seen:  # it ended well; only its history is gone
                return HistoryEntry(prompt_id=self.attempt.prompt_id, how="success", outputs=tuple(output for some in self._seen.values() for output in some))
            case Fate.CANCELLED:
                return self._stopped()
            case Fate.NEVER_ARRIVED | Fate.LOST:
                return self._lost(fate)
            case Fate.REMOVED:
                return Outcome(JobStatus.REMOVED, error="Somebody removed it from the server's queue.", hint="Retry it if that was a mistake.")
            case Fate.WAIT | Fate.SEND_AGAIN:
                pass
        return None

    def _lost(self, fate: Fate) -> Outcome:
        if self._refusal is not None:
            return Outcome(JobStatus.REJECTED, error=self._refusal.message, hint=self._refusal.hint, failure_kind="server_error")
        said = "The server restarted and forgot it." if fate is Fate.LOST else "The server never received it."
        wanted = self.job.request.retry_on_lost
        again = (self.job.kind == "image" if wanted is None else wanted) and self.attempt.number < ATTEMPTS_LIMIT
        self.desk.link.superseded.add(self.attempt.prompt_id)
        return Outcome(JobStatus.LOST, error=said, hint="Retry it.", again=again)

    async def _server_forgot(self) -> bool:
        """Whether the server is no longer the process that took this: by its instance id, else by a witness that its history lacks.

        Nothing else in ComfyUI's API tells a restart (design: Reconciler). With neither, a server that was down meanwhile has forgotten.
        """
        link = self.desk.link
        if self.attempt.instance is not None:
            return await link.client.instance() != self.attempt.instance
        if link.witness is not None:
            return await link.client.history(link.witness) is None
        return not self._fresh or (link.last_down_at is not None and link.last_down_at > self._sent_at)

    def _stopped(self) -> Outcome:
        return Outcome(JobStatus.TIMED_OUT if self._timed_out else JobStatus.CANCELLED, error=self._too_long())

    def _too_long(self) -> str | None:
        return f"It took longer than the {self.job.request.timeout_s:g} s it was given." if self._timed_out else None

    async def _stop_on_server(self) -> None:
        """Delete it if it waits, interrupt it if it runs, never another's; whether it worked is read back."""
        if self._deleted:
            return
        client, prompt_id = self.desk.link.client, self.attempt.prompt_id
        try:
            await client.delete([prompt_id])
            if (await client.queue()).runs(prompt_id):  # older servers ignore the id and stop whatever runs
                await client.interrupt(prompt_id)
                reached("interrupt sent")
            await client.delete([prompt_id])
            self._deleted = True
        except ServerError as error:
            log.warning("cancel %s: %s", self.attempt.job_id[:8], error)

    # ---- the end ------------------------------------------------------------------------------------------------------

    async def _collect(self, entry: HistoryEntry) -> Outcome:
        """What a prompt that left the server means, with its files on our side."""
        began, ended = time.monotonic(), Instant.now()
        self.desk.link.witness = entry.prompt_id
        if entry.how == "interrupted":
            said = self._too_long() or (None if self.cancel_asked else "Somebody interrupted it on the server.")
            return self._timed(Outcome(JobStatus.TIMED_OUT if self._timed_out else JobStatus.CANCELLED, error=said), entry, ended, 0.0)
        await self._record(JobStatus.COLLECTING)
        outcome = await Collector(self.desk, self.job, self.attempt, self.graph, self.recipe, self._say).collect(entry, self._dropped)
        return self._timed(outcome, entry, ended, time.monotonic() - began)

    def _timed(self, outcome: Outcome, entry: HistoryEntry, ended: Instant, fetch_s: float) -> Outcome:
        """Timings from what was seen, else from the server's own timestamps."""
        nodes = []
        if self._watched and self.tracker.started_at is not None:
            self.tracker.apply(Ended(self.attempt.prompt_id, "success"), ended.mono or time.monotonic())
            for node in entry.cached:
                self.tracker.reuse(node)
            nodes = self.tracker.node_timings(time.time() - time.monotonic())
            timings = self.tracker.timings()
        else:
            run = (entry.ended_ms - entry.started_ms) / 1000 if entry.ended_ms and entry.started_ms else None
            timings = Timings(run_s=run if run is None or run >= 0 else None, nodes_cached=len(entry.cached), timed_by="history")
            self._started = self._started or (Instant(entry.started_ms / 1000) if entry.started_ms else None)
        created, sent = self.job.created, self.attempt.sent
        finished = Instant.now()
        timings = replace(
            timings,
            wait_home_s=created.until(sent),
            wait_server_s=sent.until(self._started) if sent else None,
            fetch_s=fetch_s,
            total_s=created.until(finished),
        )
        return replace(outcome, timings=timings, nodes=nodes, ended=finished)

    # ---- writing down -------------------------------------------------------------------------------------------------

    async def _record(self, status: JobStatus | None, **facts: Any) -> None:
        await self.desk.database(lambda: self.desk.home_ledger.record(self.attempt, self.desk.epoch, status, **facts))
        self._status = status or self._status

    async def _end(self, outcome: Outcome) -> None:
        if self._started is not None and self._status == JobStatus.SUBMITTED:
            await self._record(None, started=self._started)
        written = await self.desk.database(lambda: self.desk.home_ledger.end(self.attempt, self.desk.epoch, outcome))
        reached("end committed")
        log.info("%s attempt %d: %s%s", self.attempt.job_id[:8], self.attempt.number, outcome.status, "" if written else " (was ended before)")

    def _say(self, sentence: str | None) -> None:
        self.tracker.progress = replace(self.tracker.progress, stalled=sentence)

    async def _show_live(self) -> None:
        """Put progress and previews on the live board while they change, at a bounded pace."""
        shown = None
        while True:
            progress = self.tracker.shown_at(time.monotonic()) if self.tracker.started_at is not None else self.tracker.progress
            key = (progress.fraction, progress.node, progress.step, progress.stalled, self._preview is not None)
            now = time.monotonic()
            if key != shown or now - self._shown_at >= 1.0:
                preview = self._preview if self._preview is not None and now - self._preview_at >= PREVIEW_EVERY_S else None
                if preview is not None:
                    self._preview, self._preview_at = None, now
                data, kind = (preview.data, preview.media_type) if preview else (None, None)
                text = progress.dump()
                with contextlib.suppress(ToolkitError):  # the board is losable; the job is not
                    await self.desk.database(lambda text=text, data=data, kind=kind: self.desk.board.show(self.job.id, text, data, kind))
                shown, self._shown_at = key, now
            await asyncio.sleep(SHOW_EVERY_S)
