"""Batch: many jobs under one name, found again by it, and the stills of which some are animated.

Owns what one does with a group as a whole. The group is a word on each job in the ledger, so a batch survives kernels and is whatever the ledger
says it is. Awaiting one never raises for single jobs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from toolkit.errors import JobError, JobTimeout, RequestInvalid
from toolkit.studio.handles import JobHandle, OutputHandle

if TYPE_CHECKING:
    from toolkit.studio.studio import Studio


class Batch:
    """Many jobs, one name. Awaiting it never raises for single jobs: failures are in `.failed`."""

    def __init__(self, studio: Studio, group_id: str, name: str) -> None:
        self._studio, self.id, self.name = studio, group_id, name

    @property
    def jobs(self) -> Sequence[JobHandle]:
        """Its jobs, in the order they were asked for."""
        found = sorted(self._studio._ledger.jobs(group=self.id, limit=-1), key=lambda job: job.seq)
        return [JobHandle(self._studio, job.id) for job in found]

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[JobHandle]:
        return iter(self.jobs)

    def __getitem__(self, index: int) -> JobHandle:
        return self.jobs[index]

    def __await__(self) -> Generator[Any, None, Self]:
        return self._until_final().__await__()

    async def _until_final(self) -> Self:
        await asyncio.gather(*(handle._until_done() for handle in self.jobs), return_exceptions=True)
        return self

    def wait(self, timeout_s: float | None = None) -> Self:
        """Block until every job has ended.

        Raises:
            JobTimeout: after `timeout_s` seconds; the jobs go on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for handle in self.jobs:
            try:
                handle.wait(None if deadline is None else max(deadline - time.monotonic(), 0.0))
            except JobTimeout:
                if not handle.job.is_final:
                    raise
            except JobError:
                continue
        return self

    @property
    def outputs(self) -> Sequence[OutputHandle]:
        """Every file that is not a preview, in the order of the jobs; `keyframes` count from 1 in it."""
        handles = [OutputHandle(file, handle.id, self._studio) for handle in self.jobs for file in handle.job.files]
        return [handle for handle in handles if not handle.file.temporary]

    @property
    def failed(self) -> Sequence[JobHandle]:
        """The jobs that ended and did not end well."""
        return [handle for handle in self.jobs if handle.job.is_final and not handle.job.is_done]

    def cancel(self) -> None:
        """Take every job that has not ended out of the line, or stop it."""
        for handle in self.jobs:
            handle.cancel()

    def retry_failed(self) -> Self:
        """Ask for what failed once more, in this batch."""
        for handle in self.failed:
            handle.retry()
        return self

    def animate(self, *numbers: int, prompt: str | None = None, **fields: Any) -> Self:
        """Animate the stills with these numbers (1 is the first of `outputs`), as jobs of this batch; `fields` are VideoRequest's.

        Raises:
            RequestInvalid: a number that no still has, or none at all. ModelUnknown: no clip family can run, with the files to get.
        """
        stills = [output for output in self.outputs if output.file.kind == "image"]
        wrong = [number for number in numbers if not 1 <= number <= len(stills)]
        if wrong or not numbers:
            said = f"There is no still number {wrong[0]}" if wrong else "No still is chosen"
            raise RequestInvalid(f"{said}: this batch has {len(stills)} so far.", field="numbers", hint="Write e.g. batch.animate(1, 3).")
        for number in numbers:
            stills[number - 1].animate(prompt, **fields)
        return self

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        from toolkit.widgets import show_batch

        return {"text/plain": repr(self), "text/html": show_batch(self)}

    def __repr__(self) -> str:
        jobs = [handle.job for handle in self.jobs]
        ended, failed = sum(job.is_final for job in jobs), sum(job.is_final and not job.is_done for job in jobs)
        return f"batch '{self.name}': {ended} of {len(jobs)} ended" + (f", {failed} not well" if failed else "")
