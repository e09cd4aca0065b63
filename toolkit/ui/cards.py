"""What the page shows of servers and jobs, as HTML: pure functions from values to text.

Owns every word and tag between the form and the footer. Everything that comes from people, servers or files passes `text()`, so a prompt
is shown as it was written and never becomes markup. Knows neither gradio nor the studio.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from toolkit.errors import OutputError, ToolkitError
from toolkit.jobs import Job, JobStatus, OutputFile, error_of
from toolkit.progress import Progress, duration
from toolkit.studio import ServerStatus
from toolkit.studio.handles import code_of
from toolkit.thumbnails import thumbnail
from toolkit.ui.live import View

STAND_IN = "stand-in drawing: connect ComfyUI to make real ones"
CONNECT = "toolkit connect http://127.0.0.1:8188"
SMALL = 192  # pixels: the longer side in the list of jobs
EMPTY_STAGE = """<div class="stage empty"><svg viewBox="0 0 120 80" aria-hidden="true"><circle cx="86" cy="26" r="11"/>
<path d="M4 74 38 30l20 25 13-15 44 34z"/></svg><p class="say">What you make appears here.</p>
<p class="hush">Describe it in words or tags, and press Create.</p></div>"""
ICONS = {
    "keep": "M12 20.5C5.5 15.5 3 12 3 8.5 3 5.6 5.2 3.5 7.7 3.5c1.7 0 3.3 1 4.3 2.7 1-1.7 2.6-2.7 4.3-2.7 2.5 0 4.7 2.1 4.7 5 0 3.5-2.5 7-9 12z",
    "reject": "M6 6l12 12M18 6 6 18", "trash": "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5",
}  # fmt: skip
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
    """Its place, and when it starts and is done if that is known."""
    before = progress.ahead
    if before is None:
        return "Getting ready"
    said = "Next in line" if before == 0 else f"{ordinal(before + 1)} in line"
    times = {"starts": progress.starts_in, "done": progress.ends_in}
    return said + "".join(f", {word} in about {duration(max(round(when.expected_s), 1))}" for word, when in times.items() if when is not None)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 11th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


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


def refusal(error: ToolkitError | None, *, is_new: bool = True) -> str:
    """Why not, as one sentence without paths of this machine; page.js puts it beside its field. `is_new`: told at once, since somebody pressed."""
    if error is None:
        return ""
    from toolkit.stats.connections import without_paths

    return f'<p class="refusal" role="{"alert" if is_new else "status"}" data-field="{text(error.field or "")}">{text(without_paths(str(error)))}</p>'


def plan(said: str) -> str:
    """What a press would do."""
    return f'<p class="plan" role="status">{text(said)}</p>' if said else ""


def note(said: str) -> str:
    """An aside."""
    return f'<p class="note" role="status">{text(said)}</p>' if said else ""


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
    doing = f'<p class="acts">{button("again", job, "Try again")}{button("with", job, "Again with …")}</p>'
    return f'{_head(view, "ended")}<p class="{"say" if calm else "refusal"}" role="status">{text(said)}</p>{doing}{_caption(job)}</div>'


def _head(view: View, how: str) -> str:
    """The opening tag: page.js reads the job, its status and how far it is from it, for address, title and notice."""
    told = f"{round(view.progress.fraction * 100)} %" if how == "running" else WORDS[JobStatus(view.job.status)]
    return f'<div class="stage {how}" data-job="{text(view.job.id)}" data-status="{how}" data-title="{told}">'


def button(act: str, job: Job, words: str, number: int | None = None, *, label: str | None = None, on: bool | None = None) -> str:
    """A button that tells what was pressed, of which job and file; `on`: whether it is down, for one that stays down."""
    about = "".join(
        f' {name}="{text(value)}"'
        for name, value in (("data-job", job.id), ("data-number", number), ("aria-label", label), ("title", label))
        if value is not None
    )
    state = "" if on is None else f' aria-pressed="{str(on).lower()}"'
    return f'<button type="button" class="act {act}" data-act="{act}"{about}{state}>{words}</button>'


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
        f"{_head(view, 'running')}{_preview(view)}"
        f"{bar(progress.fraction, 'Progress')}"
        f'<p class="doing"><span>{text(doing)}</span><span class="left">{text(left)}</span><b>{percent} %</b></p>{stalled}'
        f'<p class="acts"><button type="button" class="act notify" data-act="notify" hidden>Tell me when it is done</button></p>{_caption(job)}</div>'
    )


def bar(fraction: float, label: str) -> str:
    """How far, as a bar."""
    percent = round(fraction * 100)
    about = f'role="progressbar" aria-label="{text(label)}" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}"'
    return f'<div class="bar" {about}><i style="width:{percent}%"></i></div>'


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
    shown = "".join(_file(job, file, view.verdicts.get(file.number)) for file in here)
    gone = [button("restore", job, "Bring back", file.number) for file in job.files if file.number in view.gone and file.disk == "trashed"]
    none = "" if job.files else '<p class="say">Done, but the server made no file.</p>'
    said = f"{len(view.gone)} of {len(job.files)} files {'are in the bin' if gone else 'were moved or deleted'}."
    notes = "".join(note(warning) for warning in (*job.warnings, *([said] if view.gone else [])))
    return f'{_head(view, "done")}<div class="files n{min(len(here), 4)}">{shown}</div>{none}{_facts(job, here)}{notes}{"".join(gone)}{_caption(job)}</div>'


def _file(job: Job, file: OutputFile, verdict: str | None) -> str:
    shape, url = f'style="--w:{file.width or 1};--h:{file.height or 1}"', file_url(file)
    if file.kind == "video":
        shown = f'<video src="{url}" controls autoplay loop muted playsinline aria-label="The finished clip"></video>'
    elif file.kind == "image":
        shown = f'<a href="{url}" target="_blank" rel="noopener"><img src="{url}" alt="{text(asked(job))}"></a>'
    else:
        return f'<p class="note">{text(_name(file))}</p>'
    more = button("animate", job, "Make a clip of it", file.number) + button("upscale", job, "Twice as large", file.number) if file.kind == "image" else ""
    get = f'<a class="act get" href="{url}" download="{text(_name(file))}">Download</a>'
    return f'<div class="file"><div class="frame" {shape}>{shown}</div><p class="acts">{verdicts(job, file, verdict)}{get}{more}</p></div>'


def verdicts(job: Job, file: OutputFile, verdict: str | None) -> str:
    """A heart that keeps, a cross that rejects, a bin; pressed again, heart and cross take it back."""
    kept, rejected, number = verdict == "keep", verdict == "reject", file.number
    heart = button("unrate" if kept else "keep", job, icon("keep"), number, label=f"Keep {number}", on=kept)
    cross = button("unrate" if rejected else "reject", job, icon("reject"), number, label=f"Reject {number}", on=rejected)
    return heart + cross + button("trash", job, icon("trash"), number, label=f"Put {number} into the bin")


def icon(name: str) -> str:
    """A small drawing; its button has the words."""
    return f'<svg class="icon {name}" viewBox="0 0 24 24" aria-hidden="true"><path d="{ICONS[name]}"/></svg>'


def _name(file: OutputFile) -> str:
    return file.name.rsplit("/", 1)[-1]


def _facts(job: Job, files: Sequence[OutputFile]) -> str:
    facts = [f"seed <b>{job.seed}</b>"]
    if job.timings and job.timings.run_s is not None:
        facts.append(f"took <b>{duration(job.timings.run_s)}</b>")
    if files and files[0].width:
        facts.append(f"<b>{files[0].width} × {files[0].height}</b>")
    if files and files[0].kind == "video" and files[0].frames and files[0].fps:
        facts.append(f"<b>{files[0].frames}</b> frames at <b>{files[0].fps:g}</b> fps")
    standin = f'<span class="tag">{STAND_IN}</span>' if job.simulated else ""
    doing = button("with", job, "Again with …") + button("again", job, "Another one") + button("explain", job, "Why did it take this long?")
    said = "".join(f"<span>{fact}</span>" for fact in facts)
    return f'<p class="facts">{said}</p><p class="acts">{doing}</p>{standin}{_settings(job)}'


def _settings(job: Job) -> str:
    """What was sent, folded away, and the line of Python that asks for it again."""
    rows = "".join(f"<dt>{text(name.replace('_', ' '))}</dt><dd>{text(value)}</dd>" for name, value in job.recipe.items() if value not in (None, "", [], {}))
    return f'<details><summary>Settings</summary><dl>{rows}</dl><pre tabindex="0">{text(code_of(job))}</pre></details>'


def _caption(job: Job) -> str:
    return f'<p class="caption">{text(asked(job))}</p>'


def asked(job: Job) -> str:
    """The words that were asked for."""
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
        f'<button type="button" class="job {text(job.status)}" data-act="show" data-job="{text(job.id)}"'
        f' aria-label="Show this {kind}: {text(asked(job)[:120])}, {text(said)}">'
        f'<span class="thumb">{_thumb(view)}</span><span class="what">{text(asked(job)[:120])}</span><span class="state">{text(said)}</span></button>'
    )


def _thumb(view: View) -> str:
    file = next((file for file in view.job.files if file.kind in ("image", "video") and file.number not in view.gone), None)
    return small(file) if file is not None else ""


def small(file: OutputFile, alt: str = "") -> str:
    """A thumbnail of at most 8 kB as data; nothing when the file is gone."""
    try:
        return f'<img src="{data_url(thumbnail(file.path, file.kind, SMALL, 8_000), "image/webp")}" alt="{text(alt)}">'
    except OutputError:
        return ""
