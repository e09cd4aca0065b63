"""Handles that follow a job as it changes, and what one does with its files.

A handle holds an id and asks the studio; values come from the ledger, so a handle made after a restart is as good as the first. How a
handle looks in a notebook is widgets.py's, imported only when one is shown.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.errors import JobTimeout, RequestInvalid
from toolkit.exported import Workflow
from toolkit.jobs import Job, JobStatus, OutputFile, error_of
from toolkit.progress import Progress
from toolkit.requests import ImageRef, ImageRequest, VideoRequest, WorkflowRequest
from toolkit.thumbnails import open_array, open_image

if TYPE_CHECKING:
    from toolkit.analysis import Answer
    from toolkit.studio.studio import Studio

SLICE_S = 0.1  # Ctrl-C arrives within this time


class JobHandle:
    """Last line of a cell: its live card. `await` it, or `wait()`; both raise JobFailed, JobCancelled, JobLost, JobTimeout."""

    def __init__(self, studio: Studio, job_id: str) -> None:
        self._studio = studio
        self.id = job_id
        self._card: Any = None

    @property
    def job(self) -> Job:
        """The job now."""
        return self._studio._ledger.job(self.id)

    @property
    def progress(self) -> Progress:
        """How far it is now: 1.0 only when it has ended well."""
        return self._studio._progress_of(self.job)

    @property
    def preview(self) -> tuple[bytes, str] | None:
        """The latest preview picture of a running job and its media type."""
        live = self._studio._board.job(self.id)
        return (live.preview, live.preview_type or "image/jpeg") if live is not None and live.preview else None

    def __await__(self) -> Generator[Any, None, Result]:
        return self._until_done().__await__()

    async def _until_done(self) -> Result:
        async for news in self.updates():
            if isinstance(news, Job) and news.is_final:
                return self._result(news)
        return self._result(self.job)

    def wait(self, timeout_s: float | None = None) -> Result:
        """Block until it has ended; Ctrl-C leaves the job running.

        Raises:
            JobTimeout: after `timeout_s` seconds; the job goes on. JobFailed, JobCancelled, JobLost: as it ended.
        """
        job = self.job
        return self._result(job if job.is_final else self._waited(timeout_s))

    def _waited(self, timeout_s: float | None) -> Job:
        """The final job, as the watcher tells it or, if it ended before that was asked for, as the ledger has it."""
        final = threading.Event()
        found: list[Job] = []

        def take(news: Job | Progress) -> None:
            if isinstance(news, Job) and news.is_final:
                found.append(news)
                final.set()

        leave = self.subscribe(take)
        try:
            take(self.job)
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            while not final.wait(SLICE_S):
                if deadline is not None and time.monotonic() >= deadline:
                    said = f"Job {self.id[:8]} has not ended after {timeout_s:g} s; it goes on."
                    raise JobTimeout(said, job_id=self.id, status=self.job.status)
        finally:
            leave()
        return found[0]

    def _result(self, job: Job) -> Result:
        error = error_of(job)
        if error is not None:
            raise error
        return Result(job, tuple(OutputHandle(file, job.id, self._studio) for file in job.files))

    async def updates(self) -> AsyncIterator[Job | Progress]:
        """Every new Job and Progress until the job is final, the present Job first."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Job | Progress] = asyncio.Queue()

        def put(news: Job | Progress) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, news)

        leave = self.subscribe(put)
        try:
            news: Job | Progress = self.job
            while not (isinstance(news, Job) and news.is_final):
                yield news
                news = await queue.get()
            leave()  # whoever stops here leaves this generator suspended, for as long as an error's traceback holds it
            yield news
        finally:
            leave()

    def subscribe(self, callback: Callable[[Job | Progress], None]) -> Callable[[], None]:
        """Call `callback` on the watcher's thread with every change; returns how to stop."""
        return self._studio._watcher.subscribe(self.id, callback)

    def cancel(self) -> Job:
        """Take it out of the line, or stop it on the server; a job that has ended stays as it is."""
        return self._studio._ledger.ask_cancel(self.id)

    def retry(self) -> JobHandle:
        """The same request as a new job, with `retry_of` set."""
        return self._studio._retry(self.job)

    def again(self, **changes: Any) -> JobHandle:
        """The same once more with some fields changed; the seed stays unless it is one of them.

        Raises:
            RequestInvalid: an unknown field is refused with the nearest known one.
        """
        return self._studio._again(self.job, changes)

    def explain(self) -> Answer:
        """Why it took what it took: each stage against what is usual for this recipe on this server.

        Raises:
            RequestInvalid: it has not ended.
        """
        return self._studio._explain(self.job)

    def code(self) -> str:
        """A cell that makes it again."""
        return code_of(self.job)

    def _ipython_display_(self) -> None:
        self._shown().show()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        return self._shown()._repr_mimebundle_(include=include, exclude=exclude)

    def _shown(self) -> Any:
        """The card, made when first shown."""
        from toolkit.widgets import ProgressCard

        if self._card is None:
            self._card = ProgressCard(self)
        return self._card

    def __repr__(self) -> str:
        job, progress = self.job, self.progress
        said = f"{job.kind} {job.id[:8]} {job.status}"
        if job.status == JobStatus.QUEUED and progress.ahead is not None:
            said += f", {progress.ahead} before it"
        elif not job.is_final:
            said += f", {progress.fraction:.0%}" + (f" {progress.node}" if progress.node else "")
        files = ", ".join(file.name for file in job.files)
        return said + (f": {files}" if files else f": {job.error}" if job.error else "")


def code_of(job: Job) -> str:
    """What to type for a job: its own fields, none that say nothing."""
    request = job.request
    if isinstance(request, WorkflowRequest):
        return f'studio.submit(studio.job("{job.id[:8]}").job.request, reuse=False)'
    fields = type(request).model_fields.items()
    said = {name: value for name, field in fields if (value := getattr(request, name)) != field.get_default(call_default_factory=True)}
    lines = [f"    {said.pop('prompt', '')!r},", *(f"    {name}={_typed(value)}," for name, value in said.items())]
    return "\n".join([f"studio.{job.kind}(", *lines, ")"])


def _typed(value: Any) -> str:
    """A value as Python; pictures and LoRAs by the names that `toolkit` exports."""
    if isinstance(value, ImageRef):
        return f"ImageRef(sha256={value.sha256!r})"
    if isinstance(value, tuple):
        return f"[{', '.join(f'Lora(name={one.name!r}, strength={one.strength:g})' for one in value)}]"
    return repr(dict(value) if isinstance(value, Mapping) else value)


@dataclass(frozen=True)
class Result:
    """A done job: shows its files."""

    job: Job
    files: Sequence[OutputHandle]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        from toolkit.widgets import show_files

        return {"text/plain": repr(self), "text/html": show_files(self.job)}

    def __repr__(self) -> str:
        return f"{self.job.kind} {self.job.id[:8]} {self.job.status}: {', '.join(handle.file.name for handle in self.files) or 'no files'}"


@dataclass(frozen=True)
class OutputHandle:
    """One file of a job and what one does with it; shows itself in a notebook, with or without a kernel."""

    file: OutputFile
    job_id: str
    _studio: Studio | None = field(default=None, repr=False, compare=False)

    @property
    def path(self) -> str:
        """Where the file is."""
        return self.file.path

    def image(self) -> Any:
        """A PIL.Image in RGB; the first frame of a clip."""
        return open_image(self.file.path, self.file.kind)

    def array(self) -> Any:
        """(frames, height, width, 3) uint8 RGB."""
        return open_array(self.file.path, self.file.kind)

    def again(self, **changes: Any) -> JobHandle:
        """The job that made it once more, with some fields changed; same seed unless that is one of them."""
        return self._handle().again(**changes)

    def animate(self, prompt: str | None = None, **fields: Any) -> JobHandle:
        """A clip that begins with this picture; without a prompt it has the picture's own. `fields` are VideoRequest's.

        Raises:
            ModelUnknown: no clip family can run, with the files to get.
        """
        return self._handle()._studio._from_output(VideoRequest, self, {"prompt": prompt, **fields})

    def upscale(self, factor: float = 2.0, **fields: Any) -> JobHandle:
        """The picture, larger; with `denoise` also drawn over once more. `fields` are ImageRequest's."""
        return self._handle()._studio._from_output(ImageRequest, self, {"upscale": factor, **fields})

    @property
    def verdict(self) -> str | None:
        """keep, reject, or None: the latest judgement."""
        return self._handle()._studio._verdict(self)

    def keep(self, stars: int | None = None) -> None:
        """Keep it, with 1 to 5 stars if you like."""
        self._handle()._studio._judge([self], "keep", stars=stars)

    def reject(self, *reasons: str) -> None:
        """Reject it, for reasons: hands, face, anatomy, style, blur, off_prompt, or other words."""
        self._handle()._studio._judge([self], "reject", reasons=reasons)

    def unrate(self) -> None:
        """Take the judgement back."""
        self._handle()._studio._judge([self], None)

    def trash(self) -> None:
        """Put it into the bin of the home; `studio.restore` brings it back."""
        self._handle()._studio._trash([self])

    def restore(self) -> None:
        """Bring it back from the bin."""
        self._handle()._studio.restore(self)

    def workflow(self) -> Workflow:
        """The graph that made it, its parameters named."""
        handle = self._handle()
        return Workflow.load(handle._studio._ledger.graph(self.job_id, self.file.attempt))

    def _handle(self) -> JobHandle:
        if self._studio is None or not self.job_id:
            raise RequestInvalid("This file belongs to no job.", hint="Take it from a job: studio.job(id).wait().files[0].")
        return JobHandle(self._studio, self.job_id)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        from toolkit.widgets import show_file

        return {"text/plain": repr(self), "text/html": show_file(self.file, 512 if self.job_id else 896)}  # the labels of a sheet shall be read

    def __repr__(self) -> str:
        size = f"{self.file.width}x{self.file.height}" if self.file.width else self.file.media_type
        clip = f", {self.file.frames} frames at {self.file.fps:g} fps" if self.file.fps and self.file.frames else ""
        return f"{self.file.name} ({size}{clip}, {self.file.size_bytes / 1000:.0f} kB)"
