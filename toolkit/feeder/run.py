"""The way of one attempt: submit, follow, collect, end.

Owns what happens to one prompt after the claim. Socket events and polls both lead to the same questions, answered by reconcile.judge, so
either alone can finish a job. Every wait has a bound and a reason; nothing here decides on an unreachable server's silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from toolkit.crashpoints import reached
from toolkit.errors import PromptRejected, ServerError, ServerRefused, ServerUnreachable, ToolkitError
from toolkit.failures import refusal_words
from toolkit.feeder import endings
from toolkit.feeder.account import WRITE_S, Account
from toolkit.feeder.collect import Collector, Desk, expected_outputs
from toolkit.feeder.showing import Showing
from toolkit.feeder.watched import Watched, is_last
from toolkit.jobs import Attempt, Instant, Job, JobStatus
from toolkit.ledger import Outcome
from toolkit.protocol import Event, ExecutionStart, HistoryEntry, Preview, Whereabouts
from toolkit.reconcile import Evidence, Fate, judge

log = logging.getLogger(__name__)

QUIET_S = 2.0  # with events flowing nobody polls; after this much silence we ask
POLL_S = 0.5  # without a socket
GATES = frozenset({301, 302, 303, 307, 308, 401, 403, 407, 429, 502, 503, 504})  # a proxy before the server says no: of the graph it says nothing
LET_PASS = 20  # times at most, POLL_S apart, that one which never arrived waits for others that may have to be sent again before it
ATTEMPTS_LIMIT = 2  # a lost job is sent once more; a server that loses it twice needs a person


class Run:
    """One attempt on its way; `way()` returns when the ledger has its end."""

    def __init__(
        self, desk: Desk, job: Job, attempt: Attempt, graph: Mapping[str, Any], recipe: Mapping[str, Any], *, fresh: bool, end: str | None = None
    ) -> None:  # fmt: skip
        """Take over an attempt, or make a `fresh` one; `end` is its one node that saves or shows something, where there is one."""
        self.desk, self.job, self.attempt, self.graph, self.recipe = desk, job, attempt, graph, recipe
        self.watched = Watched(desk.forecaster.tracker(graph, job), attempt.started)
        self.on_server = asyncio.Event()
        self.on_server.set()
        self.live = Showing(desk.board, desk.clerk.write, job.id, self.watched.tracker, self.on_server)
        self.cancel_asked = job.cancel_asked
        self._fresh = fresh
        self.is_posting = fresh
        self._end = end
        self._started_on = 0
        self._hint = asyncio.Event()
        self._ended_hint = False
        self._acknowledged, self._number = attempt.acknowledged, attempt.queue_number
        self._client_id: str | None = None
        self.not_sent = False  # the server certainly has not got it: it is to be POSTed again
        self._refusal: ServerError | None = None
        self._deleted = False
        self._stop: JobStatus | None = None
        self._account = Account(desk, attempt)
        self._absences, self._absent_since = 0, 0.0
        self._let_pass = 0
        self._seen_at = -1.0  # when it was last known to be on the server: `time.monotonic()`
        self._sent_at = time.monotonic() - ((attempt.sent.until(Instant.now()) or 0.0) if attempt.sent else 0.0)
        self._dropped = tuple(attempt.dropped)

    # ---- the spine ----------------------------------------------------------------------------------------------------

    async def way(self) -> None:
        """Submit if fresh, follow to the end on the server, collect the files, write the end."""
        self.desk.link.listeners[self.attempt.prompt_id] = self
        try:
            async with self.live.meanwhile():
                if self._fresh:
                    await self._submit()
                    self.is_posting = False
                    self.desk.wake.set()
                found = await self._follow()
                self._leave_server()
                outcome = await self._collect(found) if isinstance(found, HistoryEntry) else await self._unless_traces(found)
                self._note_start()
                await self._account.end(outcome)
        finally:
            self.is_posting = False
            self._leave_server()
            self.desk.link.listeners.pop(self.attempt.prompt_id, None)
        if self.live.is_shown or not self._fresh:
            with contextlib.suppress(ToolkitError):  # only now, or a late write would put it back
                await self.desk.clerk.write(lambda: self.desk.board.remove(self.attempt.job_id))

    def _leave_server(self) -> None:
        """Give the place on the server to the next job now: what is left of this one does not need it."""
        if self.on_server.is_set():
            self.on_server.clear()
            self.desk.wake.set()

    async def _submit(self) -> None:
        """POST once. In doubt, nothing is sent again before the server was asked."""
        self.not_sent, self._client_id = False, self.desk.link.client_id
        about: dict[str, Any] = {"toolkit": {"job_id": self.job.id, "attempt": self.attempt.number}}
        ui = getattr(self.job.request, "ui", None)
        if ui:
            about["extra_pnginfo"] = {"workflow": ui}  # the server writes it into kinds of files that we leave alone
        handed_in = False
        try:
            await self.desk.hand_in(self.graph)
            handed_in = True
            accepted = await self.desk.link.client.submit(self.graph, self.attempt.prompt_id, self._client_id, about)
        except PromptRejected as error:
            self._refusal = error
        except ServerUnreachable as error:
            self.desk.link.down(error)
            self.not_sent = error.not_sent or not handed_in
        except ServerError as error:
            status = error.status if isinstance(error, ServerRefused) else None
            if status in GATES or (not handed_in and (status is None or status >= 500)):
                self.desk.link.down(error)
                self.not_sent = not handed_in or (status or 500) < 500
            elif isinstance(error, ServerRefused):  # an answer that cannot be read says neither yes nor no: in doubt
                self._refusal = error
        else:
            reached("answer read")
            self.desk.link.up()
            self.desk.link.number = accepted.number
            self._acknowledged, self._number, self._seen_at = True, accepted.number, time.monotonic()
            if accepted.refused is not None:
                words = refusal_words(accepted.refused, self.graph, await self.desk.catalog())
                self._dropped = tuple(self.desk.discreet([str(fault) for fault in words]))
                self._hint.set()  # what was dropped may be a reason to stop it, now and not after a silence
            self._account.learn(acknowledged=1, queue_number=accepted.number, submitted=Instant.now(), dropped=json.dumps(self._dropped))
            if self._dropped:  # nothing else would tell who takes over that a part of it was refused
                await self._account.write()

    # ---- follow -------------------------------------------------------------------------------------------------------

    def hear(self, event: Event, at: float) -> None:
        """Take an event of this prompt from the socket."""
        self.watched.take(event, at)
        self._seen_at = at
        if isinstance(event, Preview):
            self.live.preview(event)
        elif isinstance(event, ExecutionStart):
            self._acknowledged, self._started_on = True, self.desk.link.sockets
            self._hint.set()
        elif is_last(event):
            self._ended_hint = True
            self._leave_server()  # the next one need not wait until this one's history is written and read
            self._hint.set()

    @property
    def may_be_lost(self) -> bool:
        """Whether it would be first in the line again if the server has restarted: not seen there since we lost sight of it, or absent when we asked."""
        return self._absences > 0 or (self._seen_at < self.desk.link.lost_sight_at and self.on_server.is_set() and not (self.not_sent or self.is_posting))

    def nudge(self) -> None:
        """Look again now: a cancel was asked, or the socket was lost."""
        self._hint.set()

    async def _follow(self) -> HistoryEntry | Outcome:
        """Wait for hints, ask when it is quiet, act on the fate, until the prompt has left the server."""
        while True:
            if self._refusal is not None:
                catalog = await self.desk.catalog() if isinstance(self._refusal, PromptRejected) else None
                if (refused := endings.refused(self._refusal, self.graph, catalog)) is not None:
                    return refused
            if not self._ended_hint and not self.not_sent:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._patience()):
                        await self._hint.wait()
            self._hint.clear()
            self._note_start()
            if self._account.due_in_s() == 0.0 and not self._ended_hint:
                await self._write_down()
            self._stop = self._stop or self._reason_to_stop()
            if self._stop is not None and not self.not_sent:
                await self._stop_on_server()
            elif not self._ended_hint and not self.not_sent and not self._is_quiet():
                continue
            found = await self._ask()
            if found is not None:
                return found

    def _patience(self) -> float:
        if self._stop is not None or self.cancel_asked or self._absences:
            asking = 0.1 if self._deleted else 1.0
        else:
            asking = QUIET_S if self.desk.link.is_open.is_set() and self.desk.link.reachable else POLL_S
        due = self._account.due_in_s()
        return asking if due is None else min(due, asking)

    def _is_quiet(self) -> bool:
        """Whether the socket has said nothing for long enough to ask; without one it is always quiet."""
        if not self.desk.link.is_open.is_set():
            return True
        return time.monotonic() - max(self.watched.tracker.last_event_at or 0.0, self._sent_at) >= QUIET_S

    def _reason_to_stop(self) -> JobStatus | None:
        """What it ends as if it is stopped now: somebody's cancel, its own time limit, a dropped branch where none may be; None: go on."""
        if self.cancel_asked:
            return JobStatus.CANCELLED
        limit = self.job.request.timeout_s
        if limit is not None and time.monotonic() - self._sent_at > limit:
            return JobStatus.TIMED_OUT
        return JobStatus.REJECTED if self._dropped and getattr(self.job.request, "strict", False) else None

    def _note_start(self) -> None:
        if self.watched.started is not None and self._account.status == JobStatus.SUBMITTED:
            self._account.learn(JobStatus.RUNNING, started=self.watched.started, acknowledged=1)

    async def _write_down(self) -> None:
        """Write what was learned; from the start on, silence longer than any such job ran is worth a sentence."""
        await self._account.write()
        if self._account.status == JobStatus.RUNNING:
            self.live.expect(await self.desk.clerk.ask(lambda: self.desk.home_ledger.longest_run_s(self.job.kind, self.attempt.server_url)))

    async def _ask(self) -> HistoryEntry | Outcome | None:
        """One round of questions; None if it goes on."""
        try:
            evidence = await self._evidence()
        except ServerError as error:
            self.desk.link.down(error)
            await asyncio.sleep(POLL_S)
            return None
        return await self._act(judge(evidence), evidence.where.history)

    async def _evidence(self) -> Evidence:
        """What the server says of the prompt now; nothing is asked of a server that never got it."""
        stopping = self._stop is not None
        if self.not_sent:
            return Evidence(self._acknowledged, not_sent=True, stopping=stopping)
        client, prompt_id, deleted = self.desk.link.client, self.attempt.prompt_id, self._deleted
        told = self._told() if self._ended_hint else None
        where = Whereabouts(history=told) if told or not self._ended_hint else await self.desk.link.history_soon(prompt_id)
        self._ended_hint = False
        if where.is_absent:
            where = await client.whereabouts(prompt_id)
        if where.history is not None:
            self.desk.link.saw_end(prompt_id, in_history=told is None)
        await self.desk.link.drop_superseded()
        forgot = where.is_absent and self._acknowledged and await self._server_forgot()
        self.desk.link.up()
        if where.is_absent:
            self._absences += 1
            self._absent_since = self._absent_since or time.monotonic()
        else:
            self._absences, self._absent_since, self._seen_at = 0, 0.0, time.monotonic()
        absent_for_s = time.monotonic() - self._absent_since if where.is_absent else 0.0
        return Evidence(self._acknowledged, where, self._absences, absent_for_s, forgot, False, stopping, deleted)

    def _told(self) -> HistoryEntry | None:
        """What its history says, where one socket told all of it: TCP loses nothing in the middle, so there is nothing left to ask.

        Not where several nodes put something out: files are numbered in the history's order, also by whoever goes on after a crash.
        """
        whole = self._end is not None and self._started_on == self.desk.link.sockets and self.watched.is_whole(self._end)
        return self.watched.as_history(self.attempt.prompt_id) if whole else None

    async def _act(self, fate: Fate, entry: HistoryEntry | None) -> HistoryEntry | Outcome | None:
        if fate in (Fate.ENDED, Fate.RUNNING) and self._fresh and not self.watched.heard and time.monotonic() - self._sent_at > QUIET_S:
            self.desk.link.is_deaf(self._client_id)
        match fate:
            case Fate.ENDED:
                return entry
            case Fate.SEND_AGAIN:
                await asyncio.sleep(POLL_S)
                with contextlib.suppress(ServerError):  # the engine may have to be started, and be elsewhere then
                    await self.desk.link.connect()
                if self._let_pass < LET_PASS and self.desk.would_overtake(self.job):
                    self._let_pass += self.desk.link.reachable  # while it is away nobody can be sent
                else:
                    await self._submit()
                    self.desk.wake.set()
            case Fate.RUNNING:
                self._acknowledged, self._refusal = True, None
                self._deleted = False  # ComfyUI forgets an interrupt that comes just before a prompt starts: ask again
                self.watched.runs(self.attempt.prompt_id)
                self._note_start()
            case Fate.PENDING:
                if not self._acknowledged:
                    self._acknowledged, self._refusal = True, None
                    self._account.learn(acknowledged=1)
            case Fate.LOST | Fate.REMOVED if (seen := self.watched.as_history(self.attempt.prompt_id)) is not None:
                return seen
            case Fate.CANCELLED:
                return self._stopped()
            case Fate.NEVER_ARRIVED | Fate.LOST:
                return self._lost(fate)
            case Fate.REMOVED:
                return endings.removed()
        return None

    def _lost(self, fate: Fate) -> Outcome:
        """The end of one that is nowhere; sent once more where that is wanted."""
        if self._refusal is not None:
            return endings.refused_late(self._refusal)
        if self.watched.ended_well:
            return endings.outputs_unknown()
        self.desk.link.superseded.add(self.attempt.prompt_id)
        wanted = self.job.kind == "image" if self.job.request.retry_on_lost is None else self.job.request.retry_on_lost
        return endings.lost(arrived=fate is Fate.LOST, again=wanted and self.attempt.number < ATTEMPTS_LIMIT)

    async def _server_forgot(self) -> bool:
        """Whether the server is no longer the process that took this: by its instance id, a count of prompts that began anew, a lost witness.

        Nothing else in ComfyUI's API tells a restart (design: Reconciler). With none of them, a server that was down meanwhile has forgotten.
        """
        link = self.desk.link
        if None not in (link.number, self._number) and link.number < self._number:  # type: ignore[operator]
            return True
        if self.attempt.instance is not None:
            return await link.client.instance() != self.attempt.instance
        if link.witness is not None:
            return await link.client.history(link.witness) is None
        return not self._fresh or (link.last_down_at is not None and link.last_down_at > self._sent_at)

    def _stopped(self) -> Outcome:
        return endings.stopped(self._stop, self.job.request.timeout_s, self._dropped)

    async def _stop_on_server(self) -> None:
        """Take it out of the queue or interrupt it, never another's; whether it worked is read back."""
        if self._deleted:
            return
        try:
            await self.desk.link.client.cancel(self.attempt.prompt_id)
            reached("interrupt sent")
            self._deleted = True
        except ServerError as error:
            log.warning("cancel %s: %s", self.attempt.job_id[:8], error)

    # ---- the end ------------------------------------------------------------------------------------------------------

    async def _collect(self, entry: HistoryEntry) -> Outcome:
        """What a prompt that left the server means, with its files on our side."""
        began, ended = time.monotonic(), Instant.now()
        if entry.how == "interrupted" or self._stop is JobStatus.REJECTED:
            return self._timed(endings.interrupted() if self._stop is None else self._stopped(), entry, ended, 0.0)
        outcome = await self._fetched(Collector(self.desk, self.job, self.attempt, self.graph, self.recipe, self.live.say), entry)
        return self._timed(outcome, entry, ended, time.monotonic() - began)

    async def _fetched(self, collector: Collector, entry: HistoryEntry) -> Outcome:
        """What comes of its files; a job is `collecting` where that takes its time."""
        writing: list[asyncio.Task[None]] = []
        timer = asyncio.get_running_loop().call_later(WRITE_S, lambda: writing.append(asyncio.create_task(self._note_collecting())))
        try:
            return await collector.collect(entry, self._dropped)
        finally:
            timer.cancel()
            for task in writing:
                await task

    async def _note_collecting(self) -> None:
        self._account.learn(JobStatus.COLLECTING)
        await self._account.write()

    async def _unless_traces(self, outcome: Outcome) -> Outcome:
        """The outcome of a prompt that is nowhere, unless the server's folder shows every file it was to make, under names that only it has."""
        if outcome.status not in (JobStatus.LOST, JobStatus.REMOVED) and outcome.failure_kind != "outputs_unknown":
            return outcome
        wanted = expected_outputs(self.graph) if self._acknowledged and self.job.kind != "workflow" else []
        try:
            there = [await self.desk.link.client.has(output) for output in wanted]
        except ServerError:
            there = []
        if not there or not all(there):
            return outcome
        log.info("%s left its files behind", self.job.id[:8])
        collected = await self._collect(HistoryEntry(self.attempt.prompt_id, "success", tuple(wanted)))
        return collected if collected.status == JobStatus.DONE else outcome

    def _timed(self, outcome: Outcome, entry: HistoryEntry, ended: Instant, fetch_s: float) -> Outcome:
        """The outcome with its times, from which the next jobs' are predicted."""
        timings, nodes, finished = self.watched.timings(self.job, self.attempt, entry, ended, fetch_s)
        done, started = outcome.status == JobStatus.DONE, self.watched.started
        etas = self.desk.forecaster.take(self.job, self.graph, self.watched.tracker, timings, nodes, (started, finished), done=done)
        return replace(outcome, timings=timings, nodes=nodes, etas=etas, ended=finished)
