"""How a job looks in Jupyter: a live card while it is open, plain HTML once it has ended, and its files with or without a kernel.

Owns layout, words and colours. Holds no rules: it renders `Job` and `Progress`, and Cancel and Retry are the handle's own.

A widget view in a saved notebook is an error line as soon as the kernel is gone: JupyterLab prefers it to the HTML beside it and does not
save widget state by itself. So the output of a card is replaced when its job ends by HTML that needs nobody, with pictures of at most
40 kB. What only a living kernel can offer (Retry, a playing clip) is a second output below it, hidden where it cannot be shown.
"""

from __future__ import annotations

import base64
import contextvars
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets
from IPython.core.getipython import get_ipython
from IPython.display import display

from toolkit.errors import OutputError, ToolkitError
from toolkit.jobs import Job, JobStatus, OutputFile
from toolkit.progress import Progress, Range
from toolkit.thumbnails import THUMBNAIL_LIMIT, thumbnail

if TYPE_CHECKING:
    from toolkit.studio.batches import Batch
    from toolkit.studio.handles import JobHandle

PREVIEW_EVERY_S = 0.2  # five a second look alive; each is up to 150 kB for the browser
DRAW_EVERY_S = 0.1
CLIP_IN_HTML_LIMIT = 150_000  # bytes of mp4 that a saved notebook may carry
CLIP_IN_CARD_LIMIT = 32_000_000  # bytes of mp4 that are sent to a live card
PROMPT_SHOWN = 90
CONNECT = "toolkit connect http://127.0.0.1:8188"
KINDS = {"image": "Picture", "video": "Clip", "workflow": "Workflow"}
WORDS = {
    JobStatus.CREATED: "being accepted",
    JobStatus.QUEUED: "waiting in line",
    JobStatus.SUBMITTED: "sent to the server",
    JobStatus.RUNNING: "running",
    JobStatus.COLLECTING: "fetching the files",
    JobStatus.DONE_PARTIAL: "done, with files missing",
    JobStatus.DONE_NO_FILES: "done, without files",
    JobStatus.TIMED_OUT: "out of time",
}
SETTINGS = ("model", "loras", "preset", "steps", "cfg", "sampler", "scheduler", "seed", "prompt", "negative_prompt")

STYLE = """<style>
.toolkit-card{box-sizing:border-box;max-width:680px;margin:2px 0;padding:10px 14px;border:1px solid var(--jp-border-color2,#8886);border-radius:8px;
 overflow:hidden;color:var(--jp-ui-font-color1,inherit);font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif)}
.toolkit-card .widget-html,.toolkit-card .widget-html-content,.toolkit-live .widget-html,.toolkit-live .widget-html-content
{height:auto;width:100%;min-width:0;margin:0;font-size:13px;line-height:1.5;overflow-wrap:anywhere}
.toolkit-card .toolkit-muted,.toolkit-files figcaption{color:var(--jp-ui-font-color2,#767676);font-size:12px}
.toolkit-card code{font-size:12px;background:var(--jp-layout-color2,#8882);color:var(--jp-ui-font-color1,inherit);padding:1px 5px;border-radius:3px}
.toolkit-bar{height:6px;margin:8px 0 4px;border-radius:3px;background:var(--jp-layout-color3,#8884);overflow:hidden}
.toolkit-bar>div{height:100%;border-radius:3px;background:var(--jp-brand-color1,#1976d2)}
.toolkit-error{color:var(--jp-error-color1,#d32f2f)}
.toolkit-warning{border-left:3px solid var(--jp-warn-color1,#f57c00);padding-left:8px;margin:4px 0}
.toolkit-files{display:flex;flex-wrap:wrap;gap:10px;margin:8px 0 4px}
.toolkit-files figure{margin:0;padding:0;max-width:100%}
.toolkit-files img,.toolkit-files video{display:block;width:100%;height:auto;border-radius:6px}
.toolkit-preview{max-width:100%;max-height:400px;width:auto;height:auto;border-radius:6px}
.toolkit-said{margin-top:6px}
.toolkit-card .toolkit-preview{align-self:flex-start;margin:8px 0 4px} .toolkit-card .widget-button{margin:4px 0}
.toolkit-files figcaption{font-family:var(--jp-ui-font-family,system-ui,sans-serif);margin-top:4px;overflow-wrap:anywhere}
.toolkit-card details{font-size:12px;color:var(--jp-ui-font-color2,#767676)} .toolkit-card summary{cursor:pointer}
.toolkit-card details div{padding-left:14px}
.toolkit-card button.widget-button:focus-visible{outline:2px solid var(--jp-brand-color1,#1976d2)}
.jp-OutputArea-child:has(.toolkit-ended)+.jp-OutputArea-child:has(>.jp-OutputArea-output.jupyter-widgets):not(:has(.toolkit-live)){display:none}
</style>"""


class ProgressCard:
    """The live card of one job: what, how far, how long, a preview, Cancel; at the end its files or what went wrong."""

    def __init__(self, handle: JobHandle) -> None:
        self.handle = handle
        self._lock = threading.RLock()  # the watcher's thread and the kernel's draw the same card
        self._drawn_at = self._preview_at = 0.0
        self._display_id: str = f"toolkit-{handle.id}-{id(self):x}"
        self._cell: contextvars.Context | None = None
        self._ended = False
        self.head, self.status, self.body = (ipywidgets.HTML() for _ in range(3))
        self.preview = ipywidgets.Image(value=b"", format="jpeg", layout=ipywidgets.Layout(display="none"))
        self.cancel_button = ipywidgets.Button(description="Cancel", icon="stop", tooltip="Cancel this job: out of the line, or stopped on its server")
        self.retry_button = ipywidgets.Button(description="Retry", icon="refresh", tooltip="Make the same request again as a new job")
        self.live = ipywidgets.VBox([], layout=ipywidgets.Layout(display="none"))
        self.box = ipywidgets.VBox([self.head, self.status, self.preview, self.cancel_button, self.body, self.live])
        for widget, name in ((self.box, "toolkit-card"), (self.preview, "toolkit-preview"), (self.live, "toolkit-live")):
            widget.add_class(name)
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
            self.head.value = STYLE + _head(job)
            self.status.value = _status(job, progress)
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
            self._ended = True
            self._leave()
            for widget in (self.status, self.preview, self.cancel_button):
                widget.layout.display = "none"
            self.preview.value = b""
            self.head.value, self.body.value = STYLE + _head(job), _end(job)
            self.live.children = self._live(job)
            self.live.layout.display = None if self.live.children else "none"
            if self._cell is not None:
                # not in the cell's context: headless runs only take messages of the cell that runs now
                _publish(self._static(job), self._display_id, update=True)
                self._show_live()

    def _live(self, job: Job) -> Sequence[Any]:
        """What needs a kernel: a way to try again, or the clips, playing."""
        if not job.is_done:
            return (self.retry_button,)
        clips = [file for file in job.files if file.kind == "video" and file.size_bytes <= CLIP_IN_CARD_LIMIT]
        hide_posters = f"<style>.jp-OutputArea:has(.toolkit-live video) .toolkit-poster-{job.id}{{display:none}}</style>"
        return (ipywidgets.HTML(STYLE + hide_posters + _row([_clip(file, _about(job)) for file in clips])),) if clips else ()

    # ---- buttons ------------------------------------------------------------------------------------------------------

    def _cancel(self, _: Any) -> None:
        self._say_cancelling()
        try:
            self.handle.cancel()
        except ToolkitError as error:
            self.cancel_button.disabled = False
            self.body.value = f'<div class="toolkit-error">{escape(str(error))}</div>'

    def _say_cancelling(self) -> None:
        self.cancel_button.disabled, self.cancel_button.description = True, "Cancelling"

    def _retry(self, _: Any) -> None:
        """Show the new job's card in the cell of this one."""
        self.retry_button.disabled = True
        try:
            again = ProgressCard(self.handle.retry())
        except ToolkitError as error:
            self.retry_button.disabled = False
            self.live.children = (self.retry_button, ipywidgets.HTML(f'<div class="toolkit-error">{escape(str(error))}</div>'))
            return
        self.retry_button.description = "Retried"
        if self._cell is not None:
            self._cell.copy().run(again.show)
        else:
            self.live.children = (self.retry_button, again.box)

    # ---- in a notebook ------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Display it in the running cell; the output is replaced when the job ends."""
        with self._lock:
            self._cell = contextvars.copy_context() if _in_notebook() else None  # names the cell, for what is displayed later
            _publish(self._repr_mimebundle_(), self._display_id)
            if self._ended:
                self._show_live()

    _ipython_display_ = show

    def _show_live(self) -> None:
        if self.live.children and self._cell is not None:
            bundle = {**self.live._repr_mimebundle_(), "text/plain": "", "text/html": ""}
            self._cell.copy().run(_publish, bundle)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """HTML and text for everybody, and the widget while the job is open."""
        with self._lock:
            widget = {} if self._ended else self.box._repr_mimebundle_(include=include, exclude=exclude)
            return {**widget, **self._static(self.handle.job)}

    def _static(self, job: Job) -> dict[str, str]:
        if job.is_final:
            html = f'<div class="toolkit-card toolkit-ended">{STYLE}{_head(job)}{_end(job)}</div>'
        else:
            later = f'<div class="toolkit-muted">It was {_word(job)} when this was saved; <code>studio.job("{job.id[:8]}")</code> shows it now.</div>'
            html = f'<div class="toolkit-card">{STYLE}{_head(job)}{later}</div>'
        return {"text/plain": repr(self.handle), "text/html": html}

    def __repr__(self) -> str:
        return repr(self.handle)


def _in_notebook() -> bool:
    """Whether a display can be replaced; IPython in a terminal would print the replacement."""
    return getattr(get_ipython(), "kernel", None) is not None


def _publish(bundle: Mapping[str, Any], display_id: str | None = None, *, update: bool = False) -> None:
    display(bundle, raw=True, display_id=display_id, update=update)  # type: ignore[no-untyped-call]


# ---- files ------------------------------------------------------------------------------------------------------------


def show_files(job: Job) -> str:
    """The files of a job as HTML that needs no kernel and no other file."""
    return STYLE + (_row([_figure(file, _about(job), _limits(job)) for file in job.files]) or f'<div class="toolkit-files">{_word(job)}: no files</div>')


def show_file(file: OutputFile) -> str:
    """One file as HTML that needs no kernel: a picture as WebP, a clip playing if it is small, else by its poster and name."""
    return STYLE + _row([_figure(file, Path(file.name).name, (512, THUMBNAIL_LIMIT))])


def show_batch(batch: Batch) -> str:
    """The pictures of a batch as they are now, small, in the order of its jobs."""
    shown = [(file, _about(handle.job)) for handle in batch.jobs for file in handle.job.files]
    limits = (160, max(THUMBNAIL_LIMIT * 3 // max(len(shown), 3), 2_000))
    title = f"<div><strong>{escape(repr(batch))}</strong></div>"
    return f'<div class="toolkit-card">{STYLE}{title}{_row([_figure(file, about, limits, playing=False) for file, about in shown])}</div>'


def _row(figures: Sequence[str]) -> str:
    return f'<div class="toolkit-files">{"".join(figures)}</div>' if figures else ""


def _limits(job: Job) -> tuple[int, int]:
    """Longer side in pixels and bytes of each thumbnail: all of a job's together stay near those of one picture."""
    return (512, THUMBNAIL_LIMIT) if len(job.files) < 2 else (256, max(THUMBNAIL_LIMIT // len(job.files), 4_000))


def _figure(file: OutputFile, about: str, limits: tuple[int, int], *, playing: bool = True) -> str:
    if playing and file.kind == "video" and file.size_bytes <= CLIP_IN_HTML_LIMIT:
        return _clip(file, about)
    try:
        picture = _uri("image/webp", thumbnail(file.path, file.kind, *limits)) if file.kind in ("image", "video") else None
    except OutputError as error:
        return f'<figure><figcaption class="toolkit-error">{escape(str(error.message))}</figcaption></figure>'
    shown = f'<img src="{picture}" alt="{escape(about)}">' if picture else ""
    return f"{_frame(file, limits[0])}{shown}{_caption(file)}</figure>"


def _clip(file: OutputFile, about: str) -> str:
    try:
        poster = _uri("image/webp", thumbnail(file.path, file.kind, 384, THUMBNAIL_LIMIT // 2))
        clip = _uri(file.media_type, Path(file.path).read_bytes())
    except (OutputError, OSError) as error:
        return f'<figure><figcaption class="toolkit-error">{escape(file.name)}: {escape(str(error))}</figcaption></figure>'
    player = f'<video src="{clip}" poster="{poster}" aria-label="{escape(about)}" autoplay loop muted controls playsinline></video>'
    return f"{_frame(file, 512)}{player}{_caption(file)}</figure>"


def _frame(file: OutputFile, side: int) -> str:
    """A figure as wide as its picture is shown, so that the caption keeps to it: portraits end at 400 pixels of height."""
    width, height = file.width or side, file.height or side
    return f'<figure style="width:{min(side, 400 * width // height, side * width // max(width, height), width)}px">'


def _caption(file: OutputFile) -> str:
    size = f"{file.width}×{file.height}" if file.width else file.media_type
    frames = f", {file.frames} frames at {file.fps:g} fps" if file.kind == "video" and file.frames and file.fps else ""
    return f"<figcaption>{escape(size + frames)}, {_bytes(file.size_bytes)}<br>{escape(file.name)}</figcaption>"


def _uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


# ---- words ------------------------------------------------------------------------------------------------------------


def _about(job: Job) -> str:
    """The prompt in one short line."""
    return textwrap.shorten(str(getattr(job.request, "prompt", "") or job.prompt or job.id[:8]), PROMPT_SHOWN, placeholder=" …")


def _word(job: Job) -> str:
    return WORDS.get(JobStatus(job.status), str(job.status))


def _head(job: Job) -> str:
    """What it is, and who makes it; for stand-ins, how to get real pictures."""
    title = f"<div><strong>{KINDS.get(job.kind, 'Job')}</strong> {escape(_about(job))}</div>"
    if job.simulated or (job.server_url or " ".join(job.servers)) == "engine":
        return f'{title}<div class="toolkit-muted">stand-in drawing: connect ComfyUI to make real ones <code>{CONNECT}</code></div>'
    where = job.server_url or " or ".join(job.servers)
    return f'{title}<div class="toolkit-muted">on {escape(where)}</div>'


def _status(job: Job, progress: Progress) -> str:
    """The bar and the line below it."""
    percent = int(progress.fraction * 100)
    bar = (
        f'<div class="toolkit-bar" role="progressbar" aria-label="progress of {escape(_about(job))}" aria-valuemin="0" aria-valuemax="100"'
        f' aria-valuenow="{percent}"><div style="width:{progress.fraction:.1%}"></div></div>'
    )
    line = f"<div>{escape(' · '.join(_facts(job, progress)))}</div>"
    stalled = f'<div class="toolkit-warning">{escape(progress.stalled)}</div>' if progress.stalled else ""
    return bar + line + stalled + _warnings(job)


def _facts(job: Job, progress: Progress) -> list[str]:
    """How far it is, in words: what is unknown is left out."""
    if job.status != JobStatus.RUNNING:
        facts = [_word(job)]
        if progress.ahead is not None:
            facts.append(f"{progress.ahead} before it" if progress.ahead else "next")
        return facts + ([f"starts in {_range(progress.starts_in)}"] if progress.starts_in else [])
    facts = [f"{progress.fraction:.0%}", progress.node or _word(job)]
    if progress.step is not None and progress.steps:
        facts.append(f"step {progress.step} of {progress.steps}")
    if progress.ends_in is not None:
        facts.append(f"{_range(progress.ends_in)} left")
    return [*facts, f"{_seconds(progress.elapsed_s)} so far"]


def _range(seconds: Range) -> str:
    """Both bounds where they differ to the eye, else the middle."""
    low, high = _seconds(seconds.low_s), _seconds(seconds.high_s)
    if seconds.high_s < 15 or low == high:
        return "less than 1 s" if seconds.expected_s < 1 else f"about {_seconds(seconds.expected_s)}"
    return f"{low.removesuffix(' s') if seconds.high_s < 60 else low} to {high}"


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _bytes(size: int) -> str:
    return f"{size / 1000:.0f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"


def _warnings(job: Job) -> str:
    return "".join(f'<div class="toolkit-warning">{escape(warning)}</div>' for warning in job.warnings)


def _end(job: Job) -> str:
    """The files, or what went wrong and what to try; a clip by its poster."""
    if not job.is_done:
        failed = job.status not in (JobStatus.CANCELLED, JobStatus.REMOVED)
        node = f" in {job.failure_node}" if job.failure_node else ""
        said = f"{_word(job)}{node}" + (f": {job.error}" if job.error else "")
        hint = f'<div class="toolkit-muted">{escape(job.hint)}</div>' if job.hint else ""
        return f'<div class="toolkit-said{" toolkit-error" if failed else ""}">{escape(said)}</div>{hint}{_warnings(job)}'
    files = _row([_poster(file, job) if file.kind == "video" else _figure(file, _about(job), _limits(job)) for file in job.files])
    took = job.timings.run_s if job.timings else None
    facts = [_word(job), f"seed {job.seed}", *([f"{took:.1f} s on the server"] if took is not None else [])]
    return f"{files}<div>{escape(' · '.join(facts))}</div>{_warnings(job)}{_details(job)}"


def _poster(file: OutputFile, job: Job) -> str:
    """A clip where it cannot play; hidden while it plays below."""
    how = f'<div class="toolkit-muted">poster of a clip; <code>studio.job("{job.id[:8]}")</code> plays it</div>'
    return f'<div class="toolkit-poster-{job.id}">{_figure(file, _about(job), _limits(job), playing=False)}{how}</div>'


def _details(job: Job) -> str:
    recipe: Mapping[str, Any] = {"preset": getattr(job.request, "preset", None), **job.recipe}
    lines = [f"<div>{name.replace('_', ' ')}: {escape(str(recipe[name]))}</div>" for name in SETTINGS if recipe.get(name) not in (None, "", [], ())]
    return f"<details><summary>settings</summary>{''.join(lines)}</details>"
