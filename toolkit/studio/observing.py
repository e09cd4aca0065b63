"""What others run on a server, seen in its queue and history, as jobs of the log: `origin` observed, nobody's.

Owns what is asked how often, and what a history entry tells. It only asks: nothing is ever sent, moved or cancelled. A history is read whole once,
and then only its end, when the queue has changed; so what ended while nobody looked is found too, as long as the server remembers it. What a
prompt waited is known from the first time its queue showed it, within the pause between two looks, unless the server itself says when it came in.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit.errors import ServerError, ToolkitError
from toolkit.exported import Workflow
from toolkit.failures import failure_words
from toolkit.graph import NodeCatalog
from toolkit.jobs import Instant, Job, JobStatus, Timings
from toolkit.ledger import Elsewhere, Ledger, Outcome
from toolkit.processes import ensure_engine
from toolkit.protocol import HistoryEntry
from toolkit.requests import WorkflowRequest
from toolkit.roles import recipe_of
from toolkit.settings import ServerAddress

if TYPE_CHECKING:
    from toolkit.client import ComfyClient

PAUSE_S = 2.0  # between two looks
QUIET_LOOKS = 10  # after which the history is asked though the queue shows nothing: jobs shorter than a pause
LATEST = 8  # entries that are asked for first


class Observer:
    """One server; `look` now and then."""

    def __init__(self, ledger: Ledger, client: ComfyClient) -> None:
        self.ledger, self.client = ledger, client
        self._facts: Mapping[str, Any] | None = None
        self._environment_id: str | None = None
        self._catalog: NodeCatalog | None = None
        self._seen: dict[str, Instant] = {}
        self._newest: str | None = None
        self._quiet = 0

    async def look(self) -> list[Job]:
        """The jobs of others that have ended since the last look, written down.

        Raises:
            ServerError: the server cannot be asked; the next look begins anew.
        """
        try:
            if self._facts is None:
                await self._greet()
            queue = await self.client.queue()
            now, ids = Instant.now(), [entry.prompt_id for entry in (*queue.running, *queue.pending)]
            gone = self._seen.keys() - set(ids)
            self._quiet += 1
            before, self._seen = self._seen, {prompt_id: self._seen.get(prompt_id, now) for prompt_id in ids}
            if self._newest is not None and not gone and self._quiet < QUIET_LOOKS:
                return []
            self._quiet = 0
            return self._written(await self._ended(), before)
        except ServerError:
            self._facts = None
            raise

    async def _greet(self) -> None:
        """What the server is: it may have been restarted with other options."""
        look = await self.client.look()
        self._facts, self._catalog, self._newest = look.facts, look.catalog, None
        self._environment_id = self.ledger.remember_server(self.client.address.url, look.facts, look.instance, look.catalog)

    async def _ended(self) -> list[HistoryEntry]:
        """What the history has since the entry that was the newest; all of it where that one is gone."""
        latest: int | None = LATEST if self._newest is not None else None
        while True:
            entries = await self.client.ended(latest)
            ids = [entry.prompt_id for entry in entries]
            if self._newest in ids or latest is None or len(entries) < latest:
                break
            latest *= 4
        start = ids.index(self._newest) + 1 if self._newest in ids else 0
        self._newest = ids[-1] if ids else self._newest
        return entries[start:]

    def _written(self, entries: Iterable[HistoryEntry], seen: Mapping[str, Instant]) -> list[Job]:
        found = [self._job(entry, seen.get(entry.prompt_id)) for entry in entries if not self.ledger.knows(entry.prompt_id)]
        return [self.ledger.job(job_id) for job_id in self.ledger.chronicle(*(one for one in found if one is not None))]

    def _job(self, entry: HistoryEntry, seen: Instant | None) -> Elsewhere | None:
        """What an entry tells; None if its graph cannot be read."""
        try:
            graph = Workflow.load(entry.graph).api()
            request = WorkflowRequest(workflow=graph)
            recipe = {**recipe_of(graph), "simulated": bool((self._facts or {}).get("simulated"))}
        except ToolkitError:
            return None
        started, ended = _instant(entry.started_ms), _instant(entry.ended_ms)
        submitted = _instant(entry.created_ms) or seen
        if submitted and started and submitted.wall > started.wall:  # it was running already when we came
            submitted = None
        outcome = replace(self._outcome(entry, graph, recipe), ended=ended or Instant.now())
        created = submitted or started or outcome.ended
        return Elsewhere(
            _id_of(self.client.address, entry.prompt_id), request, "observed", created, outcome, recipe, self.client.address.url, self._environment_id,
            entry.prompt_id, graph, submitted, started,
        )  # fmt: skip

    def _outcome(self, entry: HistoryEntry, graph: Mapping[str, Any], recipe: Mapping[str, Any]) -> Outcome:
        run_s = (entry.ended_ms - entry.started_ms) / 1000 if entry.started_ms and entry.ended_ms else None
        timings = Timings(run_s=run_s if run_s is None or run_s >= 0 else None, nodes_cached=len(entry.cached), timed_by="history")
        if entry.how == "error":
            words = failure_words(entry.failure, graph, recipe, self._catalog)
            return Outcome(JobStatus.FAILED, timings=timings, error=words.message, hint=words.hint, failure_kind=words.kind, failure_node=words.node)
        return Outcome(JobStatus.DONE if entry.how == "success" else JobStatus.CANCELLED, timings=timings)


async def observe(
    ledger: Ledger, addresses: Iterable[ServerAddress], headers: Mapping[str, str], pause_s: float = PAUSE_S, looks: float = math.inf
) -> AsyncGenerator[Job | ServerError, None]:
    """Look at servers until cancelled, or so many times; yields each job of others that has ended, and what keeps a server from being asked.

    Args:
        ledger: where they are written down.
        addresses: the servers.
        headers: for each request.
        pause_s: seconds between two looks.
        looks: how many at most.
    """
    from toolkit.client import ComfyClient

    observers = [Observer(ledger, ComfyClient(address, _url_of(ledger, address), headers)) for address in addresses]
    trouble: dict[Observer, str] = {}
    try:
        for number in itertools.count(1):
            for observer in observers:
                try:
                    for job in await observer.look():
                        yield job
                    trouble.pop(observer, None)
                except ServerError as error:
                    if trouble.get(observer) != error.message:
                        trouble[observer] = error.message
                        yield error
            if number >= looks:
                return
            await asyncio.sleep(pause_s)
    finally:
        await asyncio.gather(*(observer.client.close() for observer in observers))


def _url_of(ledger: Ledger, address: ServerAddress) -> str | None:
    return ensure_engine(ledger.home) if address.is_engine else None


def _instant(at_ms: float | None) -> Instant | None:
    return Instant(at_ms / 1000) if at_ms is not None else None


def _id_of(address: ServerAddress, prompt_id: str) -> str:
    """The prompt's id where it is a UUID, as ComfyUI draws them; a client may have chosen any other text."""
    with suppress(ValueError):
        return str(uuid.UUID(prompt_id))
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{address.url} {prompt_id}"))
