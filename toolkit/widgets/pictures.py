"""How jobs and their files look as HTML that needs no kernel and no other file: pictures as data, small; words, sizes, times.

Owns words, colours and the budget of bytes of a saved notebook. Pure: values come in, text goes out; everything from people is escaped.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from toolkit.errors import OutputError
from toolkit.jobs import Job, JobStatus, OutputFile
from toolkit.progress import Progress, Range
from toolkit.thumbnails import THUMBNAIL_LIMIT, thumbnail

CLIP_IN_HTML_LIMIT = 150_000  # bytes of mp4 that a saved notebook may carry
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
.toolkit-card pre{white-space:pre-wrap;margin:4px 0 4px 14px;user-select:all;background:var(--jp-layout-color2,#8882);padding:6px 8px;border-radius:4px}
.toolkit-files img[tabindex],.toolkit-tile img[tabindex]{cursor:zoom-in} .toolkit-card img:focus,.toolkit-live img:focus{cursor:zoom-out;outline:none}
.toolkit-tile figure:has(img:focus),.toolkit-files figure:has(img:focus){width:min(640px,100%)!important} .toolkit-tile:has(img:focus){flex:1 0 min(640px,100%)}
.toolkit-grid{display:flex;flex-flow:row wrap;gap:10px;margin:8px 0 4px;overflow:visible;align-items:flex-start}
.toolkit-grid .toolkit-tile{width:auto;overflow:visible;margin:0} .toolkit-tile figure{margin:0} .toolkit-tile figcaption{text-align:center;font-size:12px}
.toolkit-tile img{display:block;width:100%;height:auto;border-radius:6px}
.toolkit-tile .widget-hbox{justify-content:center;overflow:visible} .toolkit-tile .widget-button{width:36px;margin:2px}
.toolkit-empty{box-sizing:border-box;width:120px;min-height:120px;padding:8px;border:1px dashed var(--jp-border-color2,#8886);border-radius:6px;font-size:12px;
 line-height:1.4;overflow-wrap:anywhere;color:var(--jp-ui-font-color2,#767676)} .toolkit-empty.toolkit-error{color:var(--jp-error-color1,#d32f2f)}
.toolkit-empty div{display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:5;overflow:hidden} .toolkit-dimmed{opacity:.35}
.toolkit-card table.toolkit-line{border-collapse:collapse;table-layout:auto;width:100%;font-size:12px;margin:6px 0}
.toolkit-card table.toolkit-line td{text-align:left;vertical-align:top;padding:4px 8px 4px 0;border-top:1px solid var(--jp-border-color2,#8884);
 max-width:none} .toolkit-card table.toolkit-line td:first-child{width:1.5em}
.toolkit-card button.widget-button:focus-visible{outline:2px solid var(--jp-brand-color1,#1976d2)}
.jp-OutputArea-child:has(.toolkit-ended)+.jp-OutputArea-child:has(.jupyter-widgets,[data-mime-type="application/vnd.jupyter.widget-view+json"]):not(:has(.toolkit-live)){display:none}
.jp-OutputArea:has(.toolkit-live) .toolkit-snapshot{display:none}
</style>"""


# ---- files ------------------------------------------------------------------------------------------------------------


def show_files(job: Job) -> str:
    """The files of a job as HTML that needs no kernel and no other file."""
    return STYLE + (row([figure(file, about(job), _limits(job)) for file in job.files]) or f'<div class="toolkit-files">{word(job)}: no files</div>')


def show_file(file: OutputFile, side: int = 512) -> str:
    """One file as HTML that needs no kernel: a picture as WebP, a clip playing if it is small, else by its poster and name."""
    return STYLE + row([figure(file, Path(file.name).name, (side, THUMBNAIL_LIMIT * side // 512))])


def row(figures: Sequence[str]) -> str:
    """Figures beside one another."""
    return f'<div class="toolkit-files">{"".join(figures)}</div>' if figures else ""


def _limits(job: Job) -> tuple[int, int]:
    """Longer side in pixels and bytes of each thumbnail: all of a job's together stay near those of one picture."""
    return (512, THUMBNAIL_LIMIT) if len(job.files) < 2 else (256, max(THUMBNAIL_LIMIT // len(job.files), 4_000))


def figure(file: OutputFile, about: str, limits: tuple[int, int], *, playing: bool = True, caption: str | None = None, side: int | None = None) -> str:
    """A file as a picture; `limits` are its longer side in pixels and bytes, `side` the one it is shown with: it grows while it has the focus."""
    if playing and file.kind == "video" and file.size_bytes <= CLIP_IN_HTML_LIMIT:
        return clip(file, about)
    try:
        picture = uri("image/webp", thumbnail(file.path, file.kind, *limits)) if file.kind in ("image", "video") else None
    except OutputError as error:
        return f'<figure><figcaption class="toolkit-error">{escape(str(error.message))}</figcaption></figure>'
    shown = f'<img src="{picture}" alt="{escape(about)}" tabindex="0">' if picture else ""
    under = _caption(file) if caption is None else f"<figcaption>{escape(caption)}</figcaption>"
    return f"{_frame(file, side or limits[0])}{shown}{under}</figure>"


def clip(file: OutputFile, about: str) -> str:
    """A clip that plays, with its poster."""
    try:
        poster = uri("image/webp", thumbnail(file.path, file.kind, 384, THUMBNAIL_LIMIT // 2))
        clip = uri(file.media_type, Path(file.path).read_bytes())
    except (OutputError, OSError) as error:
        return f'<figure><figcaption class="toolkit-error">{escape(file.name)}: {escape(str(error))}</figcaption></figure>'
    player = f'<video src="{clip}" poster="{poster}" aria-label="{escape(about)}" autoplay loop muted controls playsinline></video>'
    return f"{_frame(file, 512)}{player}{_caption(file)}</figure>"


def _frame(file: OutputFile, side: int) -> str:
    """A figure as wide as its picture is shown, so that the caption keeps to it: portraits end at 400 pixels of height."""
    width, height = file.width or side, file.height or side
    return f'<figure style="width:{min(side, max(400, side * 4 // 5) * width // height, side * width // max(width, height), width)}px">'


def _caption(file: OutputFile) -> str:
    size = f"{file.width}×{file.height}" if file.width else file.media_type
    frames = f", {file.frames} frames at {file.fps:g} fps" if file.kind == "video" and file.frames and file.fps else ""
    return f"<figcaption>{escape(size + frames)}, {size_said(file.size_bytes)}<br>{escape(file.name)}</figcaption>"


def uri(media_type: str, data: bytes) -> str:
    """Bytes as an address that needs nobody."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


# ---- words ------------------------------------------------------------------------------------------------------------


def about(job: Job) -> str:
    """The prompt in one short line."""
    return textwrap.shorten(str(getattr(job.request, "prompt", "") or job.prompt or job.id[:8]), PROMPT_SHOWN, placeholder=" …")


def word(job: Job) -> str:
    """A status in words."""
    return WORDS.get(JobStatus(job.status), str(job.status))


def head(job: Job) -> str:
    """What it is, and who makes it; for stand-ins, how to get real pictures."""
    title = f"<div><strong>{KINDS.get(job.kind, 'Job')}</strong> {escape(about(job))}</div>"
    if job.simulated or (job.server_url or " ".join(job.servers)) == "engine":
        return f'{title}<div class="toolkit-muted">stand-in drawing: connect ComfyUI to make real ones <code>{CONNECT}</code></div>'
    where = job.server_url or " or ".join(job.servers)
    return f'{title}<div class="toolkit-muted">on {escape(where)}</div>'


def status(job: Job, progress: Progress) -> str:
    """The bar and the line below it."""
    line = f"<div>{escape(' · '.join(facts(job, progress)))}</div>"
    stalled = f'<div class="toolkit-warning">{escape(progress.stalled)}</div>' if progress.stalled else ""
    return bar(progress.fraction, f"progress of {about(job)}") + line + stalled + _warnings(job)


def bar(fraction: float, label: str) -> str:
    """A progress bar that screen readers know."""
    return (
        f'<div class="toolkit-bar" role="progressbar" aria-label="{escape(label)}" aria-valuemin="0" aria-valuemax="100"'
        f' aria-valuenow="{int(fraction * 100)}"><div style="width:{fraction:.1%}"></div></div>'
    )


def facts(job: Job, progress: Progress) -> list[str]:
    """How far it is, in words: what is unknown is left out."""
    if job.status != JobStatus.RUNNING:
        facts = [word(job)]
        if progress.ahead is not None:
            facts.append(f"{progress.ahead} before it" if progress.ahead else "next")
        return facts + ([f"starts in {lasting(progress.starts_in)}"] if progress.starts_in else [])
    facts = [f"{progress.fraction:.0%}", progress.node or word(job)]
    if progress.step is not None and progress.steps:
        facts.append(f"step {progress.step} of {progress.steps}")
    if progress.ends_in is not None:
        facts.append(f"{lasting(progress.ends_in)} left")
    return [*facts, f"{seconds_said(progress.elapsed_s)} so far"]


def lasting(seconds: Range) -> str:
    """Both bounds where they differ to the eye, else the middle."""
    low, high = seconds_said(seconds.low_s), seconds_said(seconds.high_s)
    if seconds.high_s < 15 or low == high:
        return "less than 1 s" if seconds.expected_s < 1 else f"about {seconds_said(seconds.expected_s)}"
    return f"{low.removesuffix(' s') if seconds.high_s < 60 else low} to {high}"


def seconds_said(seconds: float) -> str:
    """Seconds as they are read on a clock."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def size_said(size: int) -> str:
    """A file's size."""
    return f"{size / 1000:.0f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"


def _warnings(job: Job) -> str:
    return "".join(f'<div class="toolkit-warning">{escape(warning)}</div>' for warning in job.warnings)


def ending(job: Job, code: str) -> str:
    """The files, or what went wrong and what to try; a clip by its poster; `code` makes it again."""
    if not job.is_done:
        failed = job.status not in (JobStatus.CANCELLED, JobStatus.REMOVED)
        node = f" in {job.failure_node}" if job.failure_node else ""
        said = f"{word(job)}{node}" + (f": {job.error}" if job.error else "")
        hint = f'<div class="toolkit-muted">{escape(job.hint)}</div>' if job.hint else ""
        return f'<div class="toolkit-said{" toolkit-error" if failed else ""}">{escape(said)}</div>{hint}{_warnings(job)}'
    files = row([_poster(file, job) if file.kind == "video" else figure(file, about(job), _limits(job)) for file in job.files])
    took = job.timings.run_s if job.timings else None
    facts = [word(job), f"seed {job.seed}", *([f"{took:.1f} s on the server"] if took is not None else [])]
    return f"{files}<div>{escape(' · '.join(facts))}</div>{_warnings(job)}{_details(job, code)}"


def _poster(file: OutputFile, job: Job) -> str:
    """A clip where it cannot play; hidden while it plays below."""
    how = f'<div class="toolkit-muted">poster of a clip; <code>studio.job("{job.id[:8]}")</code> plays it</div>'
    return f'<div class="toolkit-poster-{job.id}">{figure(file, about(job), _limits(job), playing=False)}{how}</div>'


def _details(job: Job, code: str) -> str:
    recipe: Mapping[str, Any] = {"preset": getattr(job.request, "preset", None), **job.recipe}
    lines = [f"<div>{name.replace('_', ' ')}: {escape(str(recipe[name]))}</div>" for name in SETTINGS if recipe.get(name) not in (None, "", [], ())]
    again = f"<details><summary>as code</summary><pre>{escape(code)}</pre></details>"
    return f"<details><summary>settings</summary>{''.join(lines)}</details>{again}"
