"""Files of a prompt that ended: fetched, checked, named; and what the end of a prompt means.

Owns the fetching of outputs, as often as it takes while the server cannot be reached or our disk is full. Knows no queue and no clock:
that the prompt has ended is decided before; the words for failures are failures.py's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit import __version__
from toolkit.crashpoints import reached
from toolkit.errors import DiskFull, OutputError, OutputGone, ServerRefused, ServerUnreachable, ToolkitError
from toolkit.failures import failure_words, without_secrets
from toolkit.feeder.clerk import Clerk
from toolkit.feeder.link import Link
from toolkit.forecast import Forecaster
from toolkit.graph import NodeCatalog
from toolkit.inputs import InputStore
from toolkit.jobs import Attempt, Job, JobStatus, OutputFile
from toolkit.ledger import Ledger, LiveBoard, Outcome
from toolkit.metadata import notes_of
from toolkit.outputs import OutputStore, text_chunks
from toolkit.pipelines import as_asked
from toolkit.protocol import HistoryEntry, ServerOutput
from toolkit.requests import ImageRef, pictures_of
from toolkit.settings import header_secrets

log = logging.getLogger(__name__)

FETCH_AGAIN_S = 1.0
CUTS_LIMIT = 3  # downloads that end early or do not decode, before the file is called broken


@dataclass(frozen=True, slots=True)
class Desk:
    """What every run of a feeder shares."""

    home_ledger: Ledger
    board: LiveBoard
    store: OutputStore
    inputs: InputStore
    link: Link
    epoch: int
    clerk: Clerk
    forecaster: Forecaster
    has_more: Callable[[], bool]  # jobs wait for this server: the next claim is near
    would_overtake: Callable[[Job], bool]  # one that was sent before it and may be lost
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # set when a prompt has left the server: its place is free
    full: asyncio.Event = field(default_factory=asyncio.Event)  # our disk: nothing is sent while files wait for room

    async def catalog(self) -> NodeCatalog | None:
        """What the server can run, as the ledger last saw it."""
        found: NodeCatalog | None = await self.clerk.ask(lambda: self.home_ledger.catalog(self.link.address.url))
        return found

    def settled_end(self, attempt: Attempt, outcome: Outcome, learned: Mapping[str, Any]) -> bool:
        """The ledger's `end`, once the names of its files are durable."""
        self.store.settle()
        return self.home_ledger.end(attempt, self.epoch, outcome, **learned)

    async def hand_in(self, graph: Mapping[str, Any]) -> None:
        """Bring a graph's input pictures to the server, those it lacks.

        Raises:
            ServerError: it cannot be asked, or does not take one.
        """
        for sha256 in pictures_of(graph):
            name = ImageRef(sha256=sha256).server_name
            subfolder, _, filename = name.rpartition("/")
            if not await self.link.client.has(ServerOutput("", "images", 0, filename, subfolder, "input")):
                await self.link.client.upload(name, await asyncio.to_thread(self.inputs.path(sha256).read_bytes))

    def discreet(self, said: Any) -> Any:
        """A text or JSON value without the secrets of this server: its errors are free to quote our address and headers."""
        return without_secrets(said, [*self.link.address.secrets, *header_secrets(self.link.headers)])


class Collector:
    """Fetches what one prompt put out."""

    def __init__(self, desk: Desk, job: Job, attempt: Attempt, graph: Mapping[str, Any], recipe: Mapping[str, Any], say: Callable[[str | None], None]) -> None:
        self.desk, self.job, self.attempt, self.graph, self.recipe, self.say = desk, job, attempt, graph, recipe, say
        kept = as_asked(graph, job.request, server_folder(job.id, attempt.number))
        self.notes = notes_of(kept, recipe, job.request.as_json(), __version__)
        if not self.notes:
            log.warning("%s: its graph is too long to be written into its files", job.id[:8])

    async def collect(self, entry: HistoryEntry, dropped: tuple[str, ...]) -> Outcome:
        """Fetch, check and name every file; `dropped` are output branches that the server refused when it accepted the rest."""
        reached("success known")
        outputs = [output for output in entry.outputs if not entry.asked or output.node_id in entry.asked]
        files: list[OutputFile] = []
        missing: list[OutputError] = []
        for number, output in enumerate(outputs, start=1):
            try:
                files.append(await self._fetch(number, output, cached=output.node_id in entry.cached))
                if number == 2:
                    reached("second file stored")
            except OutputError as error:
                missing.append(error)
            finally:
                self.desk.full.clear()
                self.say(None)
        catalog = await self.desk.catalog() if entry.how == "error" else None
        return self._judged(entry, files, missing, dropped, catalog)

    async def _fetch(self, number: int, output: ServerOutput, *, cached: bool) -> OutputFile:
        """One file, as often as it takes while the server cannot be reached or our disk is full."""
        cuts = 0
        while True:
            try:
                return await self._save(number, output, cached)
            except DiskFull as error:
                self.desk.full.set()
                self.say(error.message)
            except ServerUnreachable as error:
                self.desk.link.down(error)
            except ServerRefused as error:
                if error.status == 404:
                    raise OutputGone(f"{output.filename} is gone from the server.", path=str(output.filename)) from error
                if error.status == 400:  # ComfyUI server.py: a name it will never serve
                    raise OutputError(f"The server refuses to hand out {output.filename}.", path=str(output.filename)) from error
                log.warning("fetch: %s", error)
                self.say(error.message)
            except OutputError:  # cut, or garbled on the way: the next try may bring it whole
                cuts += 1
                if cuts >= CUTS_LIMIT:
                    raise
            await asyncio.sleep(FETCH_AGAIN_S)

    async def _save(self, number: int, output: ServerOutput, cached: bool) -> OutputFile:
        how: dict[str, Any] = {"cached": cached, "then": self._write_sidecar}
        if output.text is not None:
            return await self.desk.store.save(self.job, self.attempt.number, number, output, text_chunks(output.text), None, **how)
        async with self.desk.link.client.view(output) as (length, chunks):
            return await self.desk.store.save(self.job, self.attempt.number, number, output, chunks, length, notes=self.notes, **how)

    def _write_sidecar(self, file: OutputFile) -> None:
        reached("file published")
        self.desk.store.write_sidecar(self.job, file, self.recipe, self.attempt.server_url)

    def _judged(
        self, entry: HistoryEntry, files: list[OutputFile], missing: list[OutputError], dropped: tuple[str, ...], catalog: NodeCatalog | None
    ) -> Outcome:
        warnings = [f"The server refused a part: {text}" for text in dropped]
        warnings += [f"Output {file.number} is one colour throughout (blank_output): a VAE in fp16 often does that." for file in files if file.blank]
        if entry.how == "error":
            words = failure_words(entry.failure, self.graph, self.recipe, catalog)
            return Outcome(JobStatus.FAILED, files, error=words.message, hint=words.hint, failure_kind=words.kind, failure_node=words.node, warnings=warnings)
        lacking = [str(error) for error in missing]
        if missing and not files:
            gone = any(isinstance(error, OutputGone) for error in missing)
            # the server reused files that somebody moved away: a new attempt has another prefix, which its cache does not know
            again = gone and bool(entry.cached) and self.attempt.number == 1
            kind = "outputs_gone" if gone else "bad_file"
            return Outcome(JobStatus.FAILED, error=lacking[0], failure_kind=kind, warnings=(*warnings, *lacking), again=again)
        if not files:
            return Outcome(JobStatus.DONE_NO_FILES, warnings=warnings)
        partial = bool(missing or dropped)
        return Outcome(JobStatus.DONE_PARTIAL if partial else JobStatus.DONE, files, warnings=(*warnings, *lacking))


def server_folder(job_id: str, attempt: int) -> str:
    """Where an attempt's files go on the server, below its output folder: nobody else's are there."""
    return f"toolkit/{job_id}/{attempt}"


def expected_outputs(graph: Mapping[str, Any]) -> list[ServerOutput]:
    """The files that a graph of ours leaves in a folder of its own, by ComfyUI's way of counting (folder_paths.py: `name_00001_`)."""
    counts = [node["inputs"]["batch_size"] for node in graph.values() if isinstance(node["inputs"].get("batch_size"), int)]
    found = []
    for node_id, node in graph.items():
        subfolder, _, name = str(node["inputs"].get("filename_prefix", "")).rpartition("/")
        ending = {"SaveImage": "png", "SaveVideo": "mp4"}.get(node["class_type"])
        for number in range(1, max(counts, default=1) + 1) if ending else ():
            found.append(ServerOutput(node_id, "images", number - 1, f"{name}_{number:05}_.{ending}", subfolder))
    return found


def reason_of(error: ToolkitError) -> Outcome:
    """The end of a job that cannot be built for this server."""
    kind = {"model_unknown": "missing_model"}.get(error.code, error.code)
    return Outcome(JobStatus.REJECTED, error=error.message, hint=error.hint, failure_kind=kind, warnings=tuple(getattr(error, "faults", ())))
