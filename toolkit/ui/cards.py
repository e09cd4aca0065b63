"""What the page shows of servers and jobs, as HTML: pure functions from values to text.

Owns every word and tag between the form and the footer. Everything that comes from people, servers or files passes `text()`, so a prompt
is shown as it was written and never becomes markup. Knows neither gradio nor the studio.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from toolkit.errors import OutputError
from toolkit.jobs import Job, JobStatus, OutputFile, error_of
from toolkit.progress import Progress, duration
from toolkit.studio import ServerStatus
from toolkit.thumbnails import thumbnail
from toolkit.ui.live import View

STAND_IN = "stand-in drawing: connect ComfyUI to make real ones"
CONNECT = "toolkit connect http://127.0.0.1:8188"
SMALL = 192  # pixels: the longer side in the list of jobs
EMPTY_STAGE = """<div class="stage empty"><svg viewBox="0 0 120 80" aria-hidden="true"><circle cx="86" cy="26" r="11"/>
<path d="M4 74 38 30l20 25 13-15 44 34z"/></svg><p class="say">What you make appears here.</p>
<p class="hush">Describe it in words or tags, and press Create.</p></div>"""
WORDS = {
    JobStatus.CREATED: "Waiting", JobStatus.QUEUED: "Waiting", JobStatus.SUBMITTED: "Waiting at the server", JobStatus.RUNNING: "Drawing",
    JobStatus.COLLECTING: "Fetching the file", JobStatus.DONE: "Done", JobStatus.DONE_PARTIAL: "Done, with something missing",
    JobStatus.DONE_NO_FILES: "Done, without a file", JobStatus.CANCELLED: "Cancelled", JobStatus.REMOVED: "Removed", JobStatus.LOST: "Lost",
    JobStatus.TIMED_OUT: "Out of time", JobStatus.REJECTED: "Refused", JobStatus.FAILED: "Failed",
}  # fmt: skip


def text(value: object) -> str:
    """Anything as text that no browser takes for markup."""
    return escape(str(value), quote=True)


def time_left(progress: Progress) -> str:
    """The ETA in plain words, nothing while it is unknown."""
    if progress.ends_in is None:
        return ""
    expected = progress.ends_in.expected_s
    return "almost done" if expected < 1 else f"about {duration(max(round(expected), 1))} left"


def place_in_line(progress: Progress) -> str:
    """How many jobs come first, and when this one starts if that is known."""
    before = progress.ahead
    if before is None:
        return "Getting ready"
    said = "Next in line" if before == 0 else f"{before} job{'s' if before > 1 else ''} before this one"
    return said + (f", starts in about {duration(round(progress.starts_in.expected_s))}" if progress.starts_in else "")


# ---- servers ---------------------------------------------------------------------------------------------------------------


def server_line(servers: Sequence[ServerStatus]) -> str:
    """Which server draws, or how to get one."""
    return f'<div class="servers">{"".join(_server(server) for server in servers)}</div>'


def _server(server: ServerStatus) -> str:
    if server.simulated:
        return f'<p class="server standin"><i></i><span>Built-in engine · {STAND_IN}</span> <code>{CONNECT}</code></p>'
    if server.state == "unreachable":
        return f'<p class="server away"><i></i><span>{text(server.sentence or f"{server.url} does not answer.")}</span></p>'
    about = " · ".join(text(part) for part in (f"ComfyUI {server.comfyui_version or ''}".strip(), server.url, server.device) if part)
    lack = "" if server.can_make else " · it has no models that this page can use yet"
    return f'<p class="server"><i></i><span>{about}{lack}</span></p>'


def sentence(message: str) -> str:
    """A refusal below the button."""
    return f'<p class="refusal" role="alert">{text(message)}</p>' if message else ""


# ---- the stage: one job, large ---------------------------------------------------------------------------------------------


def remarks(notes: Sequence[str], faults: Sequence[str]) -> str:
    """What was left out of a file, and what its server would refuse as it stands."""
    said = "".join(f"<li>{text(fault)}</li>" for fault in faults)
    refused = f'<p class="note">As the file stands, the server would refuse:</p><ul class="faults">{said}</ul>' if faults else ""
    return "".join(f'<p class="note">{text(note)}</p>' for note in notes) + refused


def stage(view: View | None) -> str:
    """The job a page follows: its line, its preview, its files or what went wrong."""
    if view is None:
        return EMPTY_STAGE
    job = view.job
    if not job.is_final:
        return _running(view)
    error = error_of(job)
    if error is None:
        return _done(view)
    calm = job.status in (JobStatus.CANCELLED, JobStatus.REMOVED)
    said = "Cancelled. Nothing was kept." if job.status == JobStatus.CANCELLED else str(error)
    return f'<div class="stage ended"><p class="{"say" if calm else "refusal"}" role="status">{text(said)}</p>{_caption(job)}</div>'


def _running(view: View) -> str:
    job, progress = view.job, view.progress
    percent = round(progress.fraction * 100)
    waits = job.status in (JobStatus.CREATED, JobStatus.QUEUED)
    if job.cancel_asked:
        doing = "Cancelling"
    elif waits:
        doing = place_in_line(progress)
    else:
        doing = " · ".join(part for part in (WORDS[JobStatus(job.status)], progress.node or "", _step(progress)) if part)
    left = "" if waits else time_left(progress)
    stalled = f'<p class="note" role="status">{text(progress.stalled)}</p>' if progress.stalled else ""
    return (
        f'<div class="stage running">{_preview(view)}'
        f'<div class="bar" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}">'
        f'<i style="width:{percent}%"></i></div>'
        f'<p class="doing"><span>{text(doing)}</span><span class="left">{text(left)}</span><b>{percent} %</b></p>{stalled}{_caption(job)}</div>'
    )


def _step(progress: Progress) -> str:
    return f"step {progress.step} of {progress.steps}" if progress.step is not None and progress.steps else ""


def _preview(view: View) -> str:
    shape = _shape(view.job)
    if view.preview is None:
        return f'<div class="frame blank" {shape}></div>'
    return f'<div class="frame" {shape}><img src="{data_url(*view.preview)}" alt="Preview of the picture being made"></div>'


def _shape(job: Job) -> str:
    """The frame's proportions: what was sent, else what was asked for, else what is usual; so that nothing jumps when the file comes."""
    usual = (16, 9) if job.kind == "video" else (2, 3)
    width, height = (job.recipe.get(name) or getattr(job.request, name, None) for name in ("width", "height"))
    shape = (int(width), int(height)) if width and height else usual
    return f'style="--w:{shape[0]};--h:{shape[1]}"'


def _done(view: View) -> str:
    job = view.job
    here = [file for file in job.files if file.number not in view.gone]
    shown = "".join(_file(job, file) for file in here)
    gone = f'<p class="note">{len(view.gone)} of {len(job.files)} files were moved or deleted.</p>' if view.gone else ""
    none = "" if job.files else '<p class="say">Done, but the server made no file.</p>'
    notes = "".join(f'<p class="note">{text(warning)}</p>' for warning in job.warnings)
    return f'<div class="stage done"><div class="files n{min(len(here), 4)}">{shown}</div>{none}{gone}{_facts(job, here)}{notes}{_caption(job)}</div>'


def _file(job: Job, file: OutputFile) -> str:
    shape, url = f'style="--w:{file.width or 1};--h:{file.height or 1}"', file_url(file)
    if file.kind == "video":
        return f'<div class="frame" {shape}><video src="{url}" controls autoplay loop muted playsinline aria-label="The finished clip"></video></div>'
    if file.kind == "image":
        return f'<div class="frame" {shape}><img src="{url}" alt="{text(_asked(job))}"></div>'
    return f'<p class="note">{text(file.name.rsplit("/", 1)[-1])}</p>'


def _facts(job: Job, files: Sequence[OutputFile]) -> str:
    facts = [f"seed <b>{job.seed}</b>"]
    if job.timings and job.timings.run_s is not None:
        facts.append(f"took <b>{duration(job.timings.run_s)}</b>")
    if files and files[0].width:
        facts.append(f"<b>{files[0].width} × {files[0].height}</b>")
    if files and files[0].kind == "video" and files[0].frames and files[0].fps:
        facts.append(f"<b>{files[0].frames}</b> frames at <b>{files[0].fps:g}</b> fps")
    links = "".join(
        f'<a class="get" href="{file_url(file)}" download="{text(file.name.rsplit("/", 1)[-1])}">Download{f" {file.number}" if len(files) > 1 else ""}</a>'
        for file in files
    )
    standin = f'<span class="tag">{STAND_IN}</span>' if job.simulated else ""
    return f'<p class="facts">{"".join(f"<span>{fact}</span>" for fact in facts)}{links}</p>{standin}'


def _caption(job: Job) -> str:
    return f'<p class="caption">{text(_asked(job))}</p>'


def _asked(job: Job) -> str:
    return str(getattr(job.request, "prompt", "") or job.prompt or "own workflow")


def file_url(file: OutputFile) -> str:
    """Where the page fetches a file: relative, so that a path prefix of a proxy stays."""
    return text(f"gradio_api/file={quote(file.path)}")


def data_url(content: bytes, media_type: str) -> str:
    """A small picture inside the page itself."""
    return f"data:{text(media_type)};base64,{base64.b64encode(content).decode('ascii')}"


# ---- the latest jobs, small ------------------------------------------------------------------------------------------------


def job_list(views: Sequence[View]) -> str:
    """The latest jobs as buttons; one press shows the job on the stage."""
    if not views:
        return ""
    return f'<h2>Latest</h2><div class="jobs">{"".join(_card(view) for view in views)}</div>'


def _card(view: View) -> str:
    job = view.job
    said = WORDS[JobStatus(job.status)]
    if job.status == JobStatus.RUNNING:
        said = f"{said}, {view.progress.fraction:.0%}"
    elif job.is_done and job.timings and job.timings.run_s is not None:
        said = f"{duration(job.timings.run_s)}"
    kind = "clip" if job.kind == "video" else "picture"
    return (
        f'<button type="button" class="job {text(job.status)}" data-job="{text(job.id)}"'
        f' aria-label="Show this {kind}: {text(_asked(job)[:120])}, {text(said)}">'
        f'<span class="thumb">{_thumb(view)}</span><span class="what">{text(_asked(job)[:120])}</span><span class="state">{text(said)}</span></button>'
    )


def _thumb(view: View) -> str:
    """A thumbnail of at most 8 kB as data; nothing when the file is gone or there is none yet."""
    file = next((file for file in view.job.files if file.kind in ("image", "video") and file.number not in view.gone), None)
    if file is None:
        return ""
    try:
        return f'<img src="{data_url(thumbnail(file.path, file.kind, SMALL, 8_000), "image/webp")}" alt="">'
    except OutputError:
        return ""
