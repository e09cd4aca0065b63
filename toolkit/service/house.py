"""The routes about the house: the line, the servers, the counts.

Owns the one look at the servers that all who ask at once share. Knows no job's details.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from toolkit import __version__
from toolkit.service.jobs import Caller
from toolkit.service.schemas import Alive, Counts, Health, Missing, Models, Queue, gives
from toolkit.shapes import counts_json
from toolkit.studio import ServerStatus, Studio
from toolkit.visitors import Visitor

LOOK_AGAIN_S = 2.0  # a server that no feeder watches is looked at no more often, however many pages ask


class House:
    """The line, the servers, the counts."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._looking: asyncio.Task[Sequence[ServerStatus]] | None = None
        self._looked_at = 0.0

    def routes(self) -> APIRouter:
        """Its paths below /api/anime."""
        routes = APIRouter()
        routes.add_api_route("/queue", self.queue, **gives(Queue))
        routes.add_api_route("/health/live", self.live, **gives(Alive))
        for path in ("/health/ready", "/health"):
            routes.add_api_route(path, self.ready, **gives(Health))
        routes.add_api_route("/models", self.models, **gives(Models))
        routes.add_api_route("/missing/{what}", self.missing, **gives(Missing))
        routes.add_api_route("/stats", self.stats, **gives(Counts))
        return routes

    async def _servers(self) -> Sequence[ServerStatus]:
        """The servers' states: one look for all who ask at once, so that a silent server holds one thread and not forty."""
        task = self._looking
        if task is None or (task.done() and (time.monotonic() - self._looked_at > LOOK_AGAIN_S or task.exception() is not None)):
            task = self._looking = asyncio.create_task(run_in_threadpool(self._look))
        return await asyncio.shield(task)

    def _look(self) -> Sequence[ServerStatus]:
        found = self._studio.servers()
        self._looked_at = time.monotonic()
        return found

    async def queue(self, visitor: Caller) -> dict[str, Any]:
        """The servers as they are, and everybody's waiting jobs in the order they will run; a guest's own ones by id, others' are "someone"'s."""
        servers = await self._servers()
        return {"servers": [_server_json(server) for server in servers], **await run_in_threadpool(self._line, visitor)}

    def _line(self, visitor: Visitor) -> dict[str, Any]:
        people = {job.id: job.person for job in self._studio._ledger.open_jobs()}
        waiting = [
            {
                "job_id": job_id if visitor.only in (None, people.get(job_id)) else None,
                "person": visitor.called(people.get(job_id, "")),
                "position": (progress.ahead or 0) + 1,
                "expected_start_s": round(progress.starts_in.expected_s, 1) if progress.starts_in else None,
            }
            for job_id, progress in self._studio._standing.waiting().items()
        ]
        return {"waiting": waiting, "counts": counts_json(self._studio._ledger.counts(visitor.only))["counts"]}

    async def live(self) -> dict[str, Any]:
        """That this process answers; touches neither disk nor thread, so that a home which cannot be written is no reason to restart it."""
        return {"status": "alive", "version": __version__}

    def ready(self) -> dict[str, Any]:
        """Whether a job would be accepted now, 503 with the reason if not, and which feeders live; looks at no server."""
        self._studio._ledger.require_room()
        revision = self._studio._ledger.revision()
        feeders = [{"server": live.url, "state": live.state, "alive": live.is_alive()} for live in self._studio._board.servers()]
        return {"status": "ok", "version": __version__, "revision": revision, "feeders": feeders}

    async def models(self) -> dict[str, Any]:
        """The model files of each server by folder, and what it can make with them."""
        servers = await self._servers()
        return {"servers": await run_in_threadpool(lambda: [self._models_of(server) for server in servers])}

    def _models_of(self, server: ServerStatus) -> dict[str, Any]:
        address = next(address for address in self._studio._servers.addresses if address.url == server.url)
        return {**_server_json(server), "can_make": list(server.can_make), "models": self._studio._servers.models(address)}

    def missing(self, what: str) -> dict[str, Any]:
        """Which files a server lacks to make `image`, `video`, or to run one family, and where they belong."""
        files = self._studio.missing(what)
        return {"missing": [{"name": file.name, "folder": file.folder, "size_bytes": file.size_bytes, "source": file.source} for file in files]}

    def stats(self, visitor: Caller) -> dict[str, Any]:
        """How many jobs are in each status; a guest's own."""
        return counts_json(self._studio._ledger.counts(visitor.only))


def _server_json(server: ServerStatus) -> dict[str, Any]:
    said = {"url": server.url, "state": server.state, "version": server.comfyui_version, "running": server.running, "pending": server.pending}
    return {**said, "found_by": server.found_by, "simulated": server.simulated, "sentence": server.sentence}
