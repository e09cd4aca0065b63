"""Files of a prompt that ended: fetched, checked, named; and what the end of a prompt means.

Owns the fetching of outputs, as often as it takes while the server cannot be reached or our disk is full, and the words for failures.
Knows no queue and no clock: that the prompt has ended is decided before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.crashpoints import reached
from toolkit.errors import DiskFull, OutputError, ServerRefused, ServerUnreachable, ToolkitError
from toolkit.feeder.link import Link
from toolkit.jobs import Attempt, Job, JobStatus, OutputFile
from toolkit.ledger import Ledger, LiveBoard, Outcome
from toolkit.outputs import OutputStore, text_chunks
from toolkit.protocol import Failure, HistoryEntry, ServerOutput

log = logging.getLogger(__name__)

FETCH_AGAIN_S = 1.0
CUTS_LIMIT = 3  # downloads that end early, before the file is called broken


@dataclass(frozen=True, slots=True)
class Desk:
    """What every run of a feeder shares."""

    home_ledger: Ledger
    board: LiveBoard
    store: OutputStore
    link: Link
    epoch: int
    database: Callable[..., Awaitable[Any]]
    full: asyncio.Event = field(default_factory=asyncio.Event)  # our disk: nothing is sent while files wait for room


class Collector:
    """Fetches what one prompt put out."""

    def __init__(
        self, desk: Desk, job: Job, attempt: Attempt, graph: Mapping[str, Any], recipe: Mapping[str, Any], say: Callable[[str | None], None]
    ) -> None:
        self.desk, self.job, self.attempt, self.graph, self.recipe, self.say = desk, job, attempt, graph, recipe, say

    async def collect(self, entry: HistoryEntry, dropped: tuple[str, ...]) -> Outcome:
        """Fetch, check and name every file; `dropped` are output branches that the server refused when it accepted the rest."""
        reached("success known")
        outputs = [output for output in entry.outputs if not entry.asked or output.node_id in entry.asked]
        files: list[OutputFile] = []
        missing: list[str] = []
        for number, output in enumerate(outputs, start=1):
            try:
                files.append(await self._fetch(number, output, cached=output.node_id in entry.cached))
                if number == 2:
                    reached("second file stored")
            except OutputError as error:
                missing.append(str(error))
            finally:
                self.desk.full.clear()
                self.say(None)
        return self._judged(entry, files, missing, dropped)

    async def _fetch(self, number: int, output: ServerOutput, *, cached: bool) -> OutputFile:
        """One file, as often as it takes while the server cannot be reached or our disk is full."""
        cuts = 0
        while True:
            try:
                file = await self._save(number, output, cached)
                reached("file published")
                self.desk.store.write_sidecar(self.job, file, self.recipe, self.attempt.server_url)
                return file
            except DiskFull as error:
                self.desk.full.set()
                self.say(error.message)
            except ServerUnreachable as error:
                self.desk.link.down(error)
            except ServerRefused as error:
                if error.status == 404:
                    raise OutputError(f"{output.filename} is gone from the server.", path=str(output.filename)) from error
                if error.status == 400:  # ComfyUI server.py: a name it will never serve
                    raise OutputError(f"The server refuses to hand out {output.filename}.", path=str(output.filename)) from error
                log.warning("fetch: %s", error)
                self.say(error.message)
            except OutputError as error:
                cuts += 1
                if cuts >= CUTS_LIMIT or "ended after" not in error.message:
                    raise
            await asyncio.sleep(FETCH_AGAIN_S)

    async def _save(self, number: int, output: ServerOutput, cached: bool) -> OutputFile:
        if output.text is not None:
            return await self.desk.store.save(self.job, self.attempt.number, number, output, text_chunks(output.text), None, cached=cached)
        async with self.desk.link.client.view(output) as (length, chunks):
            return await self.desk.store.save(self.job, self.attempt.number, number, output, chunks, length, cached=cached)

    def _judged(self, entry: HistoryEntry, files: list[OutputFile], missing: list[str], dropped: tuple[str, ...]) -> Outcome:
        warnings = [f"The server refused a part: {text}" for text in dropped]
        warnings += [f"Output {file.number} is one colour throughout (blank_output): a VAE in fp16 often does that." for file in files if file.blank]
        if entry.how == "error":
            return self._failed(entry.failure, files, warnings)
        if missing and not files:
            kind = "outputs_gone" if any("gone" in text for text in missing) else "bad_file"
            return Outcome(JobStatus.FAILED, error=missing[0], failure_kind=kind, warnings=(*warnings, *missing))
        if not files:
            return Outcome(JobStatus.DONE_NO_FILES, warnings=warnings)
        partial = bool(missing or dropped)
        return Outcome(JobStatus.DONE_PARTIAL if partial else JobStatus.DONE, files, warnings=(*warnings, *missing))

    def _failed(self, failure: Failure | None, files: list[OutputFile], warnings: list[str]) -> Outcome:
        if failure is None:
            return Outcome(JobStatus.FAILED, files, error="The server says that it failed, not why.", failure_kind="unknown", warnings=warnings)
        node = self.graph.get(failure.node_id or "", {})
        where = f"{failure.class_type} (node {failure.node_id})" if failure.node_id else "The server"
        kind, hint = failure_kind(failure)
        said = f"{where}: {failure.exception.split('.')[-1]}: {failure.message.splitlines()[0] if failure.message else 'no message'}"
        failed_node = failure.class_type or node.get("class_type")
        return Outcome(JobStatus.FAILED, files, error=said, hint=hint, failure_kind=kind, failure_node=failed_node, warnings=warnings)


HINTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "oom": (("outofmemory", "out of memory", "allocate memory"), "Use a smaller size, fewer frames or a smaller batch, or POST /free on the server."),
    "server_disk_full": (("no space left", "enospc"), "The server's disk is full: make room there, then retry."),
    "missing_model": (("filenotfounderror", "no such file", "safetensors_rust", "incomplete metadata"), "A model file is missing or broken on the server."),
}


def failure_kind(failure: Failure) -> tuple[str, str | None]:
    """The kind of a run-time failure and what to try, from the exception's type and text."""
    text = f"{failure.exception} {failure.message}".lower()
    return next(((kind, hint) for kind, (words, hint) in HINTS.items() if any(word in text for word in words)), ("node_error", None))


def reason_of(error: ToolkitError) -> Outcome:
    """The end of a job that cannot be built for this server."""
    kind = {"model_unknown": "missing_model"}.get(error.code, error.code)
    return Outcome(JobStatus.REJECTED, error=error.message, hint=error.hint, failure_kind=kind, warnings=tuple(getattr(error, "faults", ())))
