"""The board of everything that is open: every server, and everybody's jobs in the order they will run.

Drawn at each change of the home, at most twice a second; while something is open also each second, since the times pass.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets

from toolkit.errors import ToolkitError
from toolkit.jobs import Job, JobStatus
from toolkit.progress import Progress
from toolkit.widgets import pictures
from toolkit.widgets.shown import Card, said

if TYPE_CHECKING:
    from toolkit.studio import ServerStatus, Studio

log = logging.getLogger(__name__)
DRAW_EVERY_S, LOOK_EVERY_S = 0.5, 1.0
JOBS_SHOWN = 30


class QueueBoard(Card):
    """Servers and line, live; Pause keeps the servers for their owner."""

    def __init__(self, studio: Studio) -> None:
        super().__init__()
        self._studio = studio
        self._news = threading.Event()
        self._open = True
        self.body, self.trouble = ipywidgets.HTML(), ipywidgets.HTML()
        self.pause_button = ipywidgets.Button(description="Pause", icon="pause", tooltip="What runs ends, nothing more is sent until you resume")
        self.pause_button.on_click(self._pause)
        self.live.add_class("toolkit-card")
        self._leave = studio._watcher.subscribe_all(lambda _: self._news.set())
        self._draw()
        self._finish(self.body, self.pause_button, self.trouble)  # it has no end: how it stands now is what a saved notebook keeps
        threading.Thread(target=self._keep_drawn, name="toolkit-board", daemon=True).start()

    def close(self) -> None:
        """Draw no more."""
        self._open = False
        self._leave()
        self._news.set()

    def _keep_drawn(self) -> None:
        while self._open and not self._studio._closed:
            self._news.wait(LOOK_EVERY_S)
            self._news.clear()
            try:
                self._draw()
            except ToolkitError as error:
                self.trouble.value = said(error).value
            except Exception:
                log.exception("drawing the board")
            time.sleep(DRAW_EVERY_S)

    def _draw(self) -> None:
        servers, jobs = self._studio.servers(), self._studio.queue()
        told = {job.id: self._studio._progress_of(job) for job in jobs[:JOBS_SHOWN]}
        value = pictures.STYLE + drawn(servers, jobs, told)
        if value != self.body.value:
            self.body.value = value
        paused = any(self._studio._ledger.pause(server.url) for server in servers)  # a feeder tells it within a second
        self.pause_button.description, self.pause_button.icon = ("Resume", "play") if paused else ("Pause", "pause")

    def _pause(self, _: Any) -> None:
        try:
            if self.pause_button.description == "Pause":
                self._studio.pause()
            else:
                self._studio.resume()
            self._draw()
        except ToolkitError as error:
            self.trouble.value = said(error).value

    def static(self) -> tuple[str, str]:
        """How it stands now."""
        servers, jobs = self._studio.servers(), self._studio.queue()
        told = {job.id: self._studio._progress_of(job) for job in jobs[:JOBS_SHOWN]}
        later = '<div class="toolkit-muted">As it was when this was saved; <code>studio.queue()</code> shows it now.</div>'
        lines = [f"{place}. {_line(job, told.get(job.id, Progress()))}" for place, job in enumerate(jobs[:JOBS_SHOWN], 1)]
        text = "\n".join([server.described for server in servers] + (lines or ["nothing in line"]))
        return text, f'<div class="toolkit-card toolkit-ended toolkit-snapshot">{pictures.STYLE}{drawn(servers, jobs, told)}{later}</div>'


def drawn(servers: Sequence[ServerStatus], jobs: Sequence[Job], progress: Mapping[str, Progress]) -> str:
    """The board as HTML."""
    heads = "".join(f"<div>{_server(server)}</div>" for server in servers)
    rows = "".join(_row(place, job, progress.get(job.id, Progress())) for place, job in enumerate(jobs[:JOBS_SHOWN], 1))
    more = f'<div class="toolkit-muted">and {len(jobs) - JOBS_SHOWN} more</div>' if len(jobs) > JOBS_SHOWN else ""
    table = f'<table class="toolkit-line">{rows}</table>{more}' if jobs else '<div class="toolkit-muted">Nothing in line.</div>'
    return f"<div><strong>In line</strong> {len(jobs)}</div>{heads}{table}"


def _server(server: ServerStatus) -> str:
    said = f" {escape(server.sentence)}" if server.sentence else ""
    return f'<span class="toolkit-muted">{escape(server.url)}: {escape(server.state)}{said}</span>'


def _row(place: int, job: Job, progress: Progress) -> str:
    bar = pictures.bar(progress.fraction, f"progress of {pictures.about(job)}") if job.status == JobStatus.RUNNING else ""
    who = f"{job.person}, {job.origin}"
    cells = (str(place), pictures.about(job), who, " · ".join(pictures.facts(job, progress)))
    told = "".join(f"<td>{escape(cell)}</td>" for cell in cells[:-1])
    return f"<tr>{told}<td>{escape(cells[-1])}{bar}</td></tr>"


def _line(job: Job, progress: Progress) -> str:
    return f"{pictures.about(job)} ({job.person}): {' · '.join(pictures.facts(job, progress))}"
