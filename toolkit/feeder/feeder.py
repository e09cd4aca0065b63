"""Feeder: takes the next job of the common order to its server, two at a time, until nothing is open for a minute.

Owns the server's epoch, its pulse on the live board, and who runs. Jobs are never held here: what is in flight is in the ledger, and a
feeder that starts reconciles it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import logs
from toolkit.errors import HomeUnusable, ServerError, ToolkitError
from toolkit.feeder.clerk import Clerk
from toolkit.feeder.collect import Desk, reason_of, server_folder
from toolkit.feeder.link import Link
from toolkit.feeder.rehearsal import Rehearsal
from toolkit.feeder.run import Run
from toolkit.forecast import Forecaster
from toolkit.graph import NodeCatalog
from toolkit.inputs import InputStore, WildcardFolder
from toolkit.jobs import IN_FLIGHT, Job, JobStatus, OpenJob
from toolkit.ledger import Claim, Ledger, LiveBoard, LiveServer, Outcome, Pause, StaleEpoch
from toolkit.order import PATIENCE_S, QUEUED, ServerLine, next_job, turns
from toolkit.outputs import OutputStore
from toolkit.pipelines import build
from toolkit.pipelines.loras import refuse_foreign
from toolkit.requests import pictures_of
from toolkit.settings import ServerAddress

log = logging.getLogger(__name__)

AT_ONCE = 2  # hides the 2 to 5 ms between jobs; more gives nothing and loses more when the server dies
BEAT_S = 1.0
RECIPES_TOLD = 300  # and jobs predicted, of those who wait; the others' times are unknown to the faces until they come nearer
LOOK_EVERY_S = 0.003  # at the ledger's version: one percent of a core
LOOK_SOON_S = 0.001  # the same for a moment after something was done here: who asks for one job after another waits for each look
SOON_S = 2.0
LOOK_BUSY_S = 0.03  # while the server has all it may have: only a cancel could matter, and our own commits would show as changes
SOCKET_WAIT_S = 1.5  # socket first; where it is refused or slow, polling alone will do
LOOK_PAUSE_S = 0.5  # between looks at a server that does not answer
LOOK_AGAIN_S = 300.0  # new model files show up in the catalog within this time


class Feeder:
    """One server of one home."""

    def __init__(self, home: Path, address: ServerAddress, headers: Mapping[str, str], idle_s: float, patience_s: float = PATIENCE_S) -> None:
        self.home, self.address, self.idle_s, self.patience_s = home, address, idle_s, patience_s
        self.ledger = Ledger(home)
        self.board = LiveBoard(home)
        self.store = OutputStore(home)
        self.inputs, self.wildcards = InputStore(home), WildcardFolder(home)
        self.link = Link(home, address, headers)
        self.forecaster = Forecaster(self.ledger, address.url)
        self.runs: dict[str, Run] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self._line = self.ledger.line()
        self._clerk = Clerk(self.ledger.together)
        self._database = self._clerk.ask
        self.rehearsal = Rehearsal(self.ledger, address.url, self.forecaster, self.wildcards, self._clerk)
        self._catalog: NodeCatalog | None = None
        self._facts: Mapping[str, Any] = {}
        self._jobs: list[OpenJob] = []
        self._environment: str | None = None
        self._loras: dict[str, Mapping[str, Any] | None] = {}
        self._looked_at = 0.0
        self._look: asyncio.Task[None] | None = None
        self._pause: Pause | None = None
        self._idle_since = time.monotonic()
        self._failure: BaseException | None = None
        self._wake = asyncio.Event()

    async def serve(self) -> None:
        """Feed until idle; ends early, saying so in the log, when another feeder has taken the server."""
        self.epoch: int = await self._database(lambda: self.ledger.take_server(self.address.url))
        log.info("feeding %s from %s, epoch %d", self.address.url, self.home, self.epoch)
        self.desk = self._new_desk()
        helpers = [asyncio.create_task(self._beat()), asyncio.create_task(self.link.keep_listening())]
        try:
            await self._resume()
            await self._feed()
        except StaleEpoch as error:
            log.warning("%s", error)
        finally:
            tasks = [*helpers, *self.tasks, *([self._look] if self._look is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.link.close()
            with contextlib.suppress(ToolkitError):
                await self._database(lambda: self.board.leave(self.address.url))
            self._clerk.close()
            self.ledger.close()
            self.board.close()
            log.info("done")

    def _new_desk(self) -> Desk:
        shared = (self.link, self.epoch, self._clerk, self.forecaster, self._has_more, self._would_overtake, self._wake)
        return Desk(self.ledger, self.board, self.store, self.inputs, *shared)

    # ---- the line -----------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Look at the line whenever something changed; leave when nothing has been open for `idle_s`."""
        version, looked_at = -1, 0.0
        while True:
            if self._failure is not None:
                raise self._failure
            self._wake.clear()
            if self.tasks:  # two long clips may leave the ledger unchanged for longer than `idle_s`
                self._idle_since = time.monotonic()
            busy = self._slots() == 0 and time.monotonic() - looked_at < LOOK_BUSY_S
            if not busy and (self.ledger.data_version() != version or not self.link.reachable or self._slots() > 0):
                version, looked_at = self.ledger.data_version(), time.monotonic()
                jobs = self._jobs = self._open_jobs()
                sent = [job for job in jobs if job.status in IN_FLIGHT]  # few, where thousands may wait
                if any(job.server_url == self.address.url and job.id not in self.runs for job in sent):
                    await self._take_over()  # those of a copied home, once a person has released them
                if self._catalog is not None and await self.rehearsal.describe(jobs, self._catalog):
                    jobs = self._jobs = self._open_jobs()
                self._pass_cancels(sent)
                await self._fill(jobs)
                if any(self.address.url in job.servers for job in jobs):
                    self._idle_since = time.monotonic()
            if time.monotonic() - self._idle_since > self.idle_s:
                return
            await self._changed(version)

    def _open_jobs(self) -> list[OpenJob]:
        """The line, as long as the server is ours: where our lock file was deleted, an idle feeder would stay beside its successor."""
        epoch, self._pause = self.ledger.epoch_and_pause(self.address.url)
        if epoch != self.epoch:
            raise StaleEpoch(f"Another feeder has taken {self.address.url}.")
        return self._line.jobs()

    async def _changed(self, version: int) -> None:
        """Wait until a run left the server, a prompt has arrived there, the ledger was written to, or a second has passed; 30 ms with no place free."""
        busy = self._slots() == 0
        pause = LOOK_BUSY_S if busy else LOOK_SOON_S if time.monotonic() - self._idle_since < SOON_S else LOOK_EVERY_S
        for _ in range(1 if busy else round(1.0 / pause)):
            if self._wake.is_set() or (not busy and self.ledger.data_version() != version):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    def _slots(self) -> int:
        """How many prompts the server may get now: none while one is on its way there, since two might arrive in the other order."""
        if any(run.is_posting for run in self.runs.values()):
            return 0
        return AT_ONCE - sum(1 for run in self.runs.values() if run.on_server.is_set())

    def _pass_cancels(self, jobs: list[OpenJob]) -> None:
        for job in jobs:
            run = self.runs.get(job.id)
            if run is not None and job.cancel_asked and not run.cancel_asked:
                run.cancel_asked = True
                run.nudge()

    def _has_more(self) -> bool:
        """Whether jobs wait for this server: the next claim is near."""
        return any(job.status == QUEUED and job.id not in self.runs and self.address.url in job.servers for job in self._jobs)

    def _would_overtake(self, job: Job) -> bool:
        """Whether a job that was sent before this one may be lost, or is and has not been sent again."""
        others = [run for run in self.runs.values() if run.job.id != job.id]
        lost = (other for other in self._open_jobs() if other.attempt and other.seq < job.seq and other.status == QUEUED and self.address.url in other.servers)
        return any(run.may_be_lost or run.is_posting for run in others) or any(lost)

    async def _fill(self, jobs: list[OpenJob]) -> None:
        """Send as many waiting jobs as there are slots, once the server is known and unless its owner keeps it."""
        if self._pause is not None:
            return await self._give_back(self._pause)
        while self._slots() > 0 and not any(run.may_be_lost for run in self.runs.values()):  # nobody overtakes what a server that restarted has lost
            job = next_job(jobs, self.address.url, functools.partial(self._lines, jobs), time.time())
            if job is None or not self._ready() or any(run.not_sent and run.job.seq < job.seq for run in self.runs.values()):
                return
            await self._start(job)
            if self._slots() > 0:
                jobs = self._jobs = self._open_jobs()  # another may have come back into the line meanwhile

    def _lines(self, jobs: Sequence[OpenJob]) -> list[ServerLine]:
        """Our server, and those that share jobs with it as their feeders last told."""
        return [self.forecaster.line(self._busy_s(), usable=True, patience_s=self.patience_s, since=_first_waiting(jobs)), *self._others(jobs)]

    def _others(self, jobs: Sequence[OpenJob]) -> list[ServerLine]:
        shared = set(itertools.chain.from_iterable({job.servers for job in jobs if job.status == QUEUED})) - {self.address.url}
        return [line for line in self.board.lines(time.time()) if line.url in shared] if shared else []

    def _busy_s(self) -> float:
        return sum(run.watched.left_s() for run in self.runs.values() if run.on_server.is_set())

    async def _give_back(self, pause: Pause) -> None:
        """Tell a paused server to free its memory, once nothing of ours runs there."""
        if not pause.free or self.runs:
            return
        try:
            await (await self.link.connect()).free()
        except ServerError as error:
            self.link.down(error)
        else:
            await self._database(lambda: self.ledger.freed(self.address.url))

    def _ready(self) -> bool:
        """Whether our disk has room, the server answers and its catalog is fresh; if not, a look is on its way: cancels must not wait for it."""
        if self.desk.full.is_set():
            return False
        due = time.monotonic() - self._looked_at > LOOK_AGAIN_S or self.link.reconnected.is_set()
        if self._catalog is not None and self.link.reachable and not due:
            return True
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._take_a_look(), name="look")
            self._look.add_done_callback(self._looked)
        return False

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()

    async def _take_a_look(self) -> None:
        """Ask the server what it is and has; the first time this waits a moment for the socket."""
        try:
            client = await self.link.connect()
            look = await client.look()
        except ServerError as error:
            self.link.down(error)
            await asyncio.sleep(LOOK_PAUSE_S)
            return
        self.link.up()
        self.link.reconnected.clear()
        self._catalog, self._facts, self._looked_at = look.catalog, look.facts, time.monotonic()
        self.link.instance = look.instance
        self._environment = await self._database(lambda: self.ledger.remember_server(self.address.url, look.facts, look.instance, look.catalog))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.link.socket_tried.wait(), SOCKET_WAIT_S)

    async def _start(self, waiting: OpenJob) -> None:
        """Build, claim, and let the run go its way."""
        assert self._catalog is not None
        job = self.ledger.job(waiting.id)
        number = job.attempt + 1
        try:
            built = build(job.request, self._catalog, server_folder(job.id, number), self.wildcards)
            for sha256 in pictures_of(built.graph):
                self.inputs.find(sha256)
            refuse_foreign(built.recipe.get("family"), await self._about_loras(built.graph))
        except Exception as error:  # the top of a job: what breaks its graph must not stop the line behind it
            refusal = reason_of(error) if isinstance(error, ToolkitError) else _stumbled(error)
            log.warning("%s cannot be built: %s", job.id[:8], refusal.error, extra={"job_id": job.id})
            await self._database(lambda: self.ledger.end_unsent(job.id, refusal))
            return
        recipe = {**built.recipe, "simulated": bool(self._facts.get("simulated"))}
        claim = Claim(job.id, self.address.url, self.epoch, built.graph, recipe, built.warnings, self._reason(job), self._environment, self.link.instance)
        attempt = await self._clerk.write(lambda: self.ledger.sending(claim))
        if attempt is not None:
            self.forecaster.note_sent(waiting.seq, waiting.priority, None)
            ends = [node_id for node_id, node in built.graph.items() if self._catalog.is_output(node["class_type"])]
            self._run(Run(self.desk, job, attempt, built.graph, recipe, fresh=True, end=ends[0] if len(ends) == 1 else None))

    async def _about_loras(self, graph: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | None]:
        """What the files of a graph's LoRAs say of themselves, each asked for once; nothing of those the server cannot tell about now."""
        names = {str(node["inputs"]["lora_name"]) for node in graph.values() if isinstance(node.get("inputs", {}).get("lora_name"), str)}
        for name in names - self._loras.keys():
            with contextlib.suppress(ServerError):
                self._loras[name] = await self.link.client.model_metadata("loras", name)
        return {name: self._loras.get(name) for name in names}

    def _reason(self, job: Job) -> str:
        """Why another attempt is made, in the log's words."""
        before = self.ledger.attempt(job.id) if job.attempt else None
        return "first" if before is None else "output_missing" if before.failure_kind == "outputs_gone" else "lost"

    async def _resume(self) -> None:
        """Carry on with what an earlier feeder had in flight on this server."""
        await self._database(self._tidy_board)
        await self._database(self.forecaster.load)
        self.link.witness = await self._database(lambda: self.ledger.witness(self.address.url))
        await self._take_over()

    async def _take_over(self) -> None:
        """Follow every attempt in flight here that has no run; who has one is asked first, since it may end meanwhile."""
        followed = set(self.runs)
        for attempt in await self._database(lambda: self.ledger.in_flight(self.address.url)):
            if attempt.job_id in followed:
                continue
            job = await self._database(lambda attempt=attempt: self.ledger.job(attempt.job_id))  # type: ignore[misc]
            graph = await self._database(lambda attempt=attempt: self.ledger.graph(attempt.job_id, attempt.number))  # type: ignore[misc]
            log.info("taking over %s attempt %d (%s)", job.id[:8], attempt.number, attempt.status, extra={"job_id": job.id})
            self._run(Run(self.desk, job, attempt, graph, job.recipe, fresh=False))
        if self.runs:
            with contextlib.suppress(ServerError):
                await self.link.connect()

    def _tidy_board(self) -> None:
        """Take off the board what a feeder left there that died between a job's end and its own next line."""
        shown = self.board.jobs_since(0)
        still_open = {job.id for job in self.ledger.open_jobs()}
        for row in shown:
            if row.id not in still_open:
                self.board.remove(row.id)

    def _run(self, run: Run) -> None:
        self.runs[run.job.id] = run
        task = asyncio.create_task(self._way(run), name=run.job.id)
        self.tasks.add(task)
        task.add_done_callback(lambda done: self._ended(run, done))

    async def _way(self, run: Run) -> None:
        """The top of a run: a fault of ours is tried once more by asking the server, then costs this job and never the line behind it."""
        logs.job.set(run.job.id)
        try:
            try:
                await run.way()
            except (StaleEpoch, HomeUnusable):
                raise
            except Exception:
                log.exception("run %s, once more", run.job.id)
                await Run(self.desk, run.job, run.attempt, run.graph, run.recipe, fresh=False).way()
        except (StaleEpoch, HomeUnusable):
            raise
        except Exception as error:
            log.exception("run %s", run.job.id)
            outcome = _stumbled(error)
            await self._database(lambda: self.ledger.end(run.attempt, self.epoch, outcome))

    def _ended(self, run: Run, task: asyncio.Task[None]) -> None:
        """The owner of every run: an epoch that is gone or a home that cannot be used stops the feeder, and the next one reconciles."""
        self.tasks.discard(task)
        if self.runs.get(run.job.id) is run:  # its next attempt may have begun
            del self.runs[run.job.id]
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("run %s", run.job.id, exc_info=task.exception())
            self._failure = self._failure or task.exception()

    # ---- the pulse ----------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Once a second: who feeds, how the server is, and what its jobs will take."""
        while True:
            jobs = [job for job in self._jobs if job.status != JobStatus.QUEUED or self.address.url in job.servers]
            if self._catalog is not None:
                await self.rehearsal.look_ahead(jobs, self._catalog)
            keys = itertools.islice(dict.fromkeys(job.recipe_key for job in jobs if job.status == JobStatus.QUEUED), RECIPES_TOLD)
            usable = self._pause is None and self.link.trouble is None
            first = _first_waiting(jobs)
            line = self.forecaster.line(self._busy_s(), usable=usable, patience_s=self.patience_s, since=first, keys=list(keys))
            if first is not None:
                self.forecaster.predict(turns(jobs, [line, *self._others(jobs)], time.time(), RECIPES_TOLD))
            state = "paused" if self._pause else "unreachable" if self.link.trouble is not None else "busy" if self.runs else "ready"
            running = sum(1 for run in self.runs.values() if run.watched.tracker.started_at is not None)
            sentence = self._pause.sentence if self._pause else self.link.trouble
            beat = LiveServer(self.address.url, os.getpid(), time.time(), state, sentence, running, len(self.runs) - running, line.dump())
            with contextlib.suppress(ToolkitError):
                await self._clerk.write(lambda beat=beat: self.board.beat(beat))  # type: ignore[misc]
            await asyncio.sleep(BEAT_S)


def _first_waiting(jobs: Sequence[OpenJob]) -> int | None:
    """The place of arrival of the first job that waits."""
    return next((job.seq for job in jobs if job.status == QUEUED), None)


def _stumbled(error: Exception) -> Outcome:
    """The end of a job that our own code could not handle."""
    said = f"The toolkit stumbled over it: {type(error).__name__}: {str(error)[:200]}."
    return Outcome(JobStatus.FAILED, error=said, hint="The feeder's log in the home has the details; retry it.", failure_kind="toolkit_error")
