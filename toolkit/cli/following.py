"""A job on its way, shown on stderr: a bar on a terminal, a few lines in a log.

Owns the words for where a job is. Decides nothing: fraction, node, steps and ETA are the Progress of every face.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from toolkit.cli.printing import percent, say
from toolkit.jobs import Job, JobStatus
from toolkit.progress import Progress, duration
from toolkit.studio import JobHandle

REFRESH_S = 0.2  # between looks at the line and the clock when no news comes

Show: TypeAlias = Callable[[Job, Progress], None]


def followed(handle: JobHandle) -> Job:
    """The final job, its progress shown on stderr until then."""
    with _bar(handle.job) if sys.stderr.isatty() else _lines() as show:
        return _watched(handle, show)


def final_within(handle: JobHandle, seconds: float) -> Job:
    """The job when it is final, or as it is after these seconds."""
    return _watched(handle, lambda *_: None, seconds)


def _watched(handle: JobHandle, show: Show, seconds: float = math.inf) -> Job:
    news = threading.Event()
    leave = handle.subscribe(lambda _: news.set())
    deadline = time.monotonic() + seconds
    try:
        while not (job := handle.job).is_final and time.monotonic() < deadline:
            show(job, handle.progress)
            news.wait(REFRESH_S)
            news.clear()
        return job
    finally:
        leave()


@contextlib.contextmanager
def _bar(job: Job) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    said = TextColumn("{task.fields[said]}", markup=False)  # a node's title may hold brackets
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[percent]}"), said)
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{job.kind} {job.id[:8]}", total=1.0, percent="", said="")
        yield lambda job, progress: bar.update(task, completed=progress.fraction, percent=percent(progress), said=_state(job, progress))


@contextlib.contextmanager
def _lines() -> Iterator[Show]:
    """For logs and pipes: a line at each change of status and each quarter of the way."""
    shown: tuple[Any, ...] = ()

    def show(job: Job, progress: Progress) -> None:
        nonlocal shown
        now = (job.status, int(progress.fraction * 4), progress.stalled)
        if now != shown:
            shown = now
            say(f"{job.kind} {job.id[:8]}: {percent(progress)} {_state(job, progress)}")

    yield show


def _state(job: Job, progress: Progress) -> str:
    """Where a job is, in a few words: `KSampler 12/20, about 40 s left`."""
    place = progress.node if job.status == JobStatus.RUNNING and progress.node else str(job.status)
    step = f" {progress.step}/{progress.steps}" if progress.steps and job.status == JobStatus.RUNNING else ""
    ahead = f", {progress.ahead} before it" if progress.ahead else ""
    left = f", about {duration(progress.ends_in.expected_s)} left" if progress.ends_in and progress.ends_in.expected_s >= 0.5 else ""
    return f"{place}{step}{ahead}{left}" + (f": {progress.stalled}" if progress.stalled else "")
