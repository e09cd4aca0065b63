"""Following one job from a page: a view now, and another whenever something changed.

Owns how often a page is told, and that a page follows one job at a time. Knows no HTML. Blocking reads happen in threads, so that a
hundred open pages do not hold up the loop they share.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.jobs import Job
from toolkit.progress import Progress
from toolkit.studio import JobHandle, Studio

PAUSE_S = 0.2  # at most five views a second: as often as the live board changes
LOOK_S = 1.0  # the place in line changes without news of this job


@dataclass(frozen=True, slots=True)
class View:
    """What a page shows of a job at one moment: `gone` are the numbers of files that are no longer on disk, `verdicts` what was said of each."""

    job: Job
    progress: Progress
    preview: tuple[bytes, str] | None = None
    gone: frozenset[int] = frozenset()
    verdicts: Mapping[int, str | None] = field(default_factory=dict)


def look(handle: JobHandle) -> View:
    """The job as it is now; reads the ledger and the live board."""
    job = handle.job
    gone = frozenset(file.number for file in job.files if not Path(file.path).is_file())
    said = {number: verdict for (_, number), verdict in handle._studio._ledger.verdicts([job.id]).items()} if job.files else {}
    return View(job, handle.progress, None if job.is_final else handle.preview, gone, said)


class Live:
    """The jobs that open pages follow: one a page, so choosing another job ends the view of the first."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._followed: dict[str, object] = {}

    async def follow(self, job_id: str, page: str, person: str | None = None) -> AsyncIterator[View]:
        """Views of a job, of this guest's if one is named, until it has ended or `page` follows another one.

        Raises:
            JobUnknown: there is no such job in this home.
        """
        mine = self._followed[page] = object()
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake(_: Job | Progress) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closing
                loop.call_soon_threadsafe(news.set)

        leave = None
        try:
            handle = await asyncio.to_thread(self._studio.job, job_id, person=person)
            leave = handle.subscribe(wake)
            while True:
                news.clear()
                view = await asyncio.to_thread(look, handle)
                if self._followed.get(page) is not mine:
                    return
                yield view
                if view.job.is_final:
                    return
                await asyncio.sleep(PAUSE_S)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), LOOK_S)
        finally:
            if leave is not None:
                leave()
            if self._followed.get(page) is mine:
                del self._followed[page]
