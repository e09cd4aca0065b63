"""The cards of many pictures: a batch that fills in, and a gallery.

A batch's card is drawn on a thread of its own, a few times a second however many jobs change: making a thumbnail takes longer than the one
poller of the process may be held up.
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
from toolkit.studio.batches import with_numbers
from toolkit.studio.handles import OutputHandle
from toolkit.widgets import pictures
from toolkit.widgets.shown import Card, said
from toolkit.widgets.tiles import TILE_SIDE, Grid, Tile, budget, empty_tile, still_grid, tile, waiting

if TYPE_CHECKING:
    from toolkit.studio.batches import Batch

log = logging.getLogger(__name__)
DRAW_EVERY_S = 0.2
LOOK_EVERY_S = 1.0  # while something is open: the seconds pass


class BatchCard(Card):
    """One bar, one ETA, Cancel, and a place for every picture."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch = batch
        self._studio = batch._studio
        self._jobs: dict[str, Job] = {}
        self._drawn: dict[str, tuple[str, Sequence[Any]]] = {}
        self._fractions: dict[str, Progress] = {}
        self._news = threading.Event()
        self.head, self.trouble, self.grid = ipywidgets.HTML(), ipywidgets.HTML(), Grid()
        self.cancel_button = ipywidgets.Button(description="Cancel", icon="stop", tooltip="Cancel every job of this batch that has not ended")
        self.retry_button = ipywidgets.Button(description="Retry failed", icon="refresh", tooltip="Make what failed once more, in the same places")
        self.box.children = [self.head, self.cancel_button, self.trouble, self.grid.box]
        self.cancel_button.on_click(self._cancel)
        self.retry_button.on_click(self._retry)
        self._begin()

    def _begin(self) -> None:
        self._leave = self._studio._watcher.subscribe_all(self._take)
        self._look()
        self._draw()
        if not self._ended:
            threading.Thread(target=self._keep_drawn, name=f"toolkit-batch-{self.batch.id[:8]}", daemon=True).start()

    # ---- news ---------------------------------------------------------------------------------------------------------

    def _take(self, news: Job | tuple[str, Progress]) -> None:
        """Note a change; on the watcher's thread."""
        if isinstance(news, Job):
            if news.id in self._jobs or news.group_id == self.batch.id:
                self._jobs[news.id] = news
                self._news.set()
        elif news[0] in self._jobs:
            self._fractions[news[0]] = news[1]
            self._news.set()

    def _look(self) -> None:
        self._jobs = {job.id: job for job in self.batch._now()}

    def _keep_drawn(self) -> None:
        """Draw until it ends; on a thread of its own, which must not die of a file that cannot be read now."""
        while not self._ended and not self._studio._closed:
            self._news.wait(LOOK_EVERY_S)
            self._news.clear()
            try:
                self._draw()
            except Exception:
                log.exception("drawing batch %s", self.batch.name)
            time.sleep(DRAW_EVERY_S)
        if not self._ended:
            self._leave()

    # ---- drawing ------------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        with self._lock:
            if self._ended:
                return
            jobs = self._in_order()
            self.head.value = pictures.STYLE + self._head_of(jobs)
            self.grid.put(self._pieces(jobs))
            if jobs and all(job.is_final for job in jobs):
                self._leave()
                self.cancel_button.layout.display = "none"
                failed = any(not job.is_done for job in jobs)
                hide = f"<style>.jp-OutputArea:has(.toolkit-live .toolkit-tile) .toolkit-still-{self.batch.id}{{display:none}}</style>"
                self._finish(ipywidgets.HTML(pictures.STYLE + hide), *([self.retry_button] if failed else []), self.trouble, self.grid.box)

    def _in_order(self) -> list[Job]:
        """The jobs in the order of their places; one that took another's place is told from its row."""
        ids = [handle.id for handle in self.batch.jobs]
        if any(job_id not in self._jobs for job_id in ids):
            self._look()
        return [self._jobs[job_id] for job_id in ids if job_id in self._jobs]

    def _pieces(self, jobs: Sequence[Job]) -> list[Any]:
        """A widget for every place; those of a job are made anew when its status changes."""
        found = list[Any]()
        for job, number, files in with_numbers(jobs):
            key = f"{job.status} {number}"
            if self._drawn.get(job.id, ("", ()))[0] != key:
                verdicts = self._studio._ledger.verdicts([job.id]) if files else {}
                outputs = [OutputHandle(file, job.id, self._studio) for file in files]
                made = [
                    Tile(output, number + place, verdicts.get((job.id, output.file.number)), pictures.about(job)).box for place, output in enumerate(outputs)
                ]
                self._drawn[job.id] = key, made or [waiting(number, _words(job), failed=job.is_final)]
            found += self._drawn[job.id][1]
        return found

    def _head_of(self, jobs: Sequence[Job]) -> str:
        ended = sum(job.is_final for job in jobs)
        under_way = sum(self._fractions[job.id].fraction for job in jobs if job.status == JobStatus.RUNNING and job.id in self._fractions)
        left = self._left_s(jobs)
        facts = [f"{ended} of {len(jobs)}", *([f"{pictures.seconds_said(left)} left"] if left is not None and ended < len(jobs) else [])]
        failed = sum(job.is_final and not job.is_done for job in jobs)
        facts += [f"{failed} not well"] if failed else []
        bar = pictures.bar((ended + under_way) / max(len(jobs), 1), f"progress of {self.batch.name}") if ended < len(jobs) else ""
        return f"{_title(self.batch.name)}{bar}<div>{escape(' · '.join(facts))}</div>"

    def _left_s(self, jobs: Sequence[Job]) -> float | None:
        """Seconds until the last of them ends, everybody's jobs counted; None while that of one in our line is unknown."""
        open_ones = {job.id for job in jobs if not job.is_final}
        places = self._studio._standing.waiting() if open_ones else {}
        in_line = [place for job_id, place in places.items() if job_id in open_ones]
        told = in_line or [self._fractions[job_id] for job_id in open_ones if job_id in self._fractions]
        known = [progress.ends_in.expected_s for progress in told if progress.ends_in is not None]
        return max(known) if known and (not in_line or len(known) == len(in_line)) else None

    def static(self) -> tuple[str, str]:
        """The pictures as they are now, small, each with its number."""
        jobs = self.batch._now()
        outputs = self.batch.numbered
        verdicts = self._studio._ledger.verdicts([job.id for job in jobs])
        about = {job.id: pictures.about(job) for job in jobs}
        shown, limit = budget(len(outputs))
        limits = (TILE_SIDE, limit)
        chosen = list(outputs.items())[:shown]
        tiles = [tile(one, number, verdicts.get((one.job_id, one.file.number)), about[one.job_id], limits) for number, one in chosen]
        tiles += [empty_tile(place, _words(job), failed=True) for job, place, _ in with_numbers(jobs) if job.is_final and not job.is_done][: max(shown, 12)]
        ended, failed = sum(job.is_final for job in jobs), sum(job.is_final and not job.is_done for job in jobs)
        find = f'<code>studio.batch("{escape(self.batch.name)}")</code>'
        facts = f"{ended} of {len(jobs)}" + (f" · {failed} not well" if failed else "")
        when = f"{find} has them all." if ended == len(jobs) else f"It was under way when this was saved; {find} shows it now."
        head = f'{_title(self.batch.name)}<div>{facts}</div><div class="toolkit-muted">{when}</div>'
        grid = f'<div class="toolkit-still-{self.batch.id}">{still_grid(tiles, len(outputs) - shown)}</div>'
        return repr(self.batch), f'<div class="toolkit-card{" toolkit-ended" if self._ended else ""}">{pictures.STYLE}{head}{grid}</div>'

    # ---- buttons ------------------------------------------------------------------------------------------------------

    def _cancel(self, _: Any) -> None:
        self.cancel_button.disabled, self.cancel_button.description = True, "Cancelling"
        try:
            self.batch.cancel()
        except ToolkitError as error:
            self.cancel_button.disabled, self.trouble.value = False, said(error).value

    def _retry(self, _: Any) -> None:
        """Ask for what failed once more, in a card below: the one above has ended."""
        self.retry_button.disabled = True
        try:
            self.batch.retry_failed()
        except ToolkitError as error:
            self.retry_button.disabled, self.trouble.value = False, said(error).value
            return
        again = BatchCard(self.batch)
        if self._cell is not None:
            self._cell.copy().run(again.show)


class GalleryCard(Card):
    """Outputs of many jobs, with hearts and bins."""

    def __init__(self, outputs: Sequence[OutputHandle], about: Mapping[str, str], verdicts: Mapping[tuple[str, int], str | None]) -> None:
        super().__init__()
        self._outputs, self._about, self._verdicts = outputs, about, verdicts
        grid = Grid()
        grid.put([Tile(output, number, self._verdict(output), about.get(output.job_id, "")).box for number, output in enumerate(outputs, 1)])
        hide = f"<style>.jp-OutputArea:has(.toolkit-live .toolkit-tile) .{self._display_id}{{display:none}}</style>"
        self._finish(*([ipywidgets.HTML(pictures.STYLE + hide), grid.box] if outputs else []))

    def _verdict(self, output: OutputHandle) -> str | None:
        return self._verdicts.get((output.job_id, output.file.number))

    def static(self) -> tuple[str, str]:
        """The first of them, small."""
        shown, limit = budget(len(self._outputs))
        chosen, limits = list(enumerate(self._outputs[:shown], 1)), (TILE_SIDE, limit)
        tiles = [tile(output, number, self._verdict(output), self._about.get(output.job_id, ""), limits) for number, output in chosen]
        head = (
            _title(f"{len(self._outputs)} pictures and clips") if self._outputs else "<div>Nothing fits. Drawings of the engine come with simulated=True.</div>"
        )
        grid = f'<div class="{self._display_id}">{still_grid(tiles, len(self._outputs) - shown)}</div>'
        return repr(self._outputs), f'<div class="toolkit-card toolkit-ended">{pictures.STYLE}{head}{grid}</div>'


def _title(name: str) -> str:
    return f"<div><strong>{escape(name)}</strong></div>"


def _words(job: Job) -> str:
    """What stands where a picture will be, or would have been."""
    return f"{pictures.word(job)}: {job.error}" if job.is_final and job.error else pictures.word(job)
