"""The live card of one job: what, how far, how long, a preview, Cancel; at the end its files or what went wrong, and Retry."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

from toolkit.errors import ToolkitError
from toolkit.jobs import Job
from toolkit.progress import Progress
from toolkit.widgets import pictures
from toolkit.widgets.shown import Card, said

if TYPE_CHECKING:
    from toolkit.studio.handles import JobHandle

PREVIEW_EVERY_S = 0.2  # five a second look alive; each is up to 150 kB for the browser
DRAW_EVERY_S = 0.1
CLIP_IN_CARD_LIMIT = 32_000_000  # bytes of mp4 that are sent to a live card


class ProgressCard(Card):
    """One job, drawn at each change until it ends."""

    def __init__(self, handle: JobHandle) -> None:
        super().__init__()
        self.handle = handle
        self._drawn_at = self._preview_at = 0.0
        self.head, self.status, self.body = (ipywidgets.HTML() for _ in range(3))
        self.preview = ipywidgets.Image(value=b"", format="jpeg", layout=ipywidgets.Layout(display="none"))
        self.preview.add_class("toolkit-preview")
        self.cancel_button = ipywidgets.Button(description="Cancel", icon="stop", tooltip="Cancel this job: out of the line, or stopped on its server")
        self.retry_button = ipywidgets.Button(description="Retry", icon="refresh", tooltip="Make the same request again as a new job")
        self.box.children = [self.head, self.status, self.preview, self.cancel_button, self.body, self.live]
        self.cancel_button.on_click(self._cancel)
        self.retry_button.on_click(self._retry)
        with self._lock:
            self._leave = handle.subscribe(self._take)  # before the first look, so that no change falls between
            job = handle.job
            if job.is_final:
                self._end(job)
            else:
                self._draw(job, handle.progress)

    # ---- news ---------------------------------------------------------------------------------------------------------

    def _take(self, news: Job | Progress) -> None:
        """Draw a change; on the watcher's thread."""
        with self._lock:
            if self._ended:
                return
            if isinstance(news, Job):
                if news.is_final:
                    self._end(news)
                else:
                    self._draw(news, self.handle.progress)
            elif news.ahead is not None or time.monotonic() - self._drawn_at >= DRAW_EVERY_S:  # a place is told once, a step again and again
                self._draw(self.handle.job, news)

    def _draw(self, job: Job, progress: Progress) -> None:
        with self._lock:
            if self._ended or job.is_final:
                return
            self._drawn_at = time.monotonic()
            self.head.value = pictures.STYLE + pictures.head(job)
            self.status.value = pictures.status(job, progress)
            if job.cancel_asked:
                self._say_cancelling()
            if self._drawn_at - self._preview_at >= PREVIEW_EVERY_S:
                self._draw_preview()

    def _draw_preview(self) -> None:
        found = self.handle.preview
        if found is None:
            return
        data, media_type = found
        self._preview_at = self._drawn_at
        if data != self.preview.value:
            self.preview.format = media_type.partition("/")[2]
            self.preview.value = data
            self.preview.layout.display = None

    def _end(self, job: Job) -> None:
        """Show the end, in the card and, where it was displayed, as an output that needs no kernel."""
        with self._lock:
            if self._ended:
                return
            self._leave()
            for widget in (self.status, self.preview, self.cancel_button):
                widget.layout.display = "none"
            self.preview.value = b""
            self.head.value, self.body.value = pictures.STYLE + pictures.head(job), pictures.ending(job, self.handle.code())
            self._finish(*self._needing_a_kernel(job))

    def _needing_a_kernel(self, job: Job) -> Sequence[Any]:
        """A way to try again, or the clips, playing."""
        if not job.is_done:
            return (self.retry_button,)
        clips = [file for file in job.files if file.kind == "video" and file.size_bytes <= CLIP_IN_CARD_LIMIT]
        hide_posters = f"<style>.jp-OutputArea:has(.toolkit-live video) .toolkit-poster-{job.id}{{display:none}}</style>"
        playing = pictures.row([pictures.clip(file, pictures.about(job)) for file in clips])
        return (ipywidgets.HTML(pictures.STYLE + hide_posters + playing),) if clips else ()

    # ---- buttons ------------------------------------------------------------------------------------------------------

    def _cancel(self, _: Any) -> None:
        self._say_cancelling()
        try:
            self.handle.cancel()
        except ToolkitError as error:
            self.cancel_button.disabled = False
            self.body.value = said(error).value

    def _say_cancelling(self) -> None:
        self.cancel_button.disabled, self.cancel_button.description = True, "Cancelling"

    def _retry(self, _: Any) -> None:
        """Show the new job's card in the cell of this one."""
        self.retry_button.disabled = True
        try:
            again = ProgressCard(self.handle.retry())
        except ToolkitError as error:
            self.retry_button.disabled = False
            self.live.children = (self.retry_button, said(error))
            return
        self.retry_button.description = "Retried"
        if self._cell is not None:
            self._cell.copy().run(again.show)
        else:
            self.live.children = (self.retry_button, again.box)

    def static(self) -> tuple[str, str]:
        """What it is now; for an open job, where to find it later."""
        job = self.handle.job
        if job.is_final:
            html = f'<div class="toolkit-card toolkit-ended">{pictures.STYLE}{pictures.head(job)}{pictures.ending(job, self.handle.code())}</div>'
        else:
            find = f'<code>studio.job("{job.id[:8]}")</code>'
            later = f'<div class="toolkit-muted">It was {pictures.word(job)} when this was saved; {find} shows it now.</div>'
            html = f'<div class="toolkit-card">{pictures.STYLE}{pictures.head(job)}{later}</div>'
        return repr(self.handle), html
