"""`image`, `video`, `run` and `retry`: a request from options or of an earlier job, accepted and followed to its end.

Owns the way from words on a command line to a request, and leaving a job behind. What a request may say is its own to refuse.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from toolkit.cli.door import INTERRUPTED, app
from toolkit.cli.following import followed
from toolkit.cli.options import (
    AsJson,
    Cfg,
    Labels,
    Loras,
    Model,
    Negative,
    NoWait,
    Picture,
    PresetOption,
    PriorityOption,
    Project,
    QualityTags,
    RetryOnLost,
    Sampler,
    Scheduler,
    Seed,
    Side,
    Steps,
    TimeoutS,
)  # fmt: skip
from toolkit.cli.printing import print_jobs, say
from toolkit.errors import RequestInvalid
from toolkit.jobs import Job, error_of
from toolkit.requests import ImageRequest, Request, VideoRequest, WorkflowRequest
from toolkit.studio import JobHandle, Studio

RequestType = TypeVar("RequestType", bound=Request)


@app.command()
def image(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw.", show_default=False)],
    negative_prompt: Negative = None,
    model: Model = None,
    prefer_model: Annotated[str | None, typer.Option(help="The same, but only if the server has it.")] = None,
    preset: PresetOption = "standard",
    quality_tags: QualityTags = True,
    width: Side = None,
    height: Side = None,
    aspect: Annotated[str | None, typer.Option(help="portrait, square, 2:3, ...: the nearest size the model knows.")] = None,
    steps: Steps = None,
    cfg: Cfg = None,
    sampler: Sampler = None,
    scheduler: Scheduler = None,
    seed: Seed = None,
    batch_size: Annotated[int, typer.Option(help="Pictures made at once, in the server's memory.")] = 1,
    loras: Loras = None,
    image: Picture = None,
    mask: Annotated[Path | None, typer.Option("--mask", metavar="FILE", help="White: the part of --image that is made anew.")] = None,
    denoise: Annotated[float | None, typer.Option(help="How much of --image is made anew, 0 to 1.", show_default="0.6")] = None,
    upscale: Annotated[float | None, typer.Option(help="Make it this many times larger; with --image and no --denoise nothing else.")] = None,
    project: Project = "default",
    labels: Labels = None,
    timeout_s: TimeoutS = None,
    retry_on_lost: RetryOnLost = None,
    priority: PriorityOption = "normal",
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Make a picture and print where it is."""
    _make(context, ImageRequest)


@app.command()
def video(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to show.", show_default=False)],
    negative_prompt: Negative = None,
    model: Model = None,
    preset: PresetOption = "standard",
    quality_tags: QualityTags = True,
    seconds: Annotated[float | None, typer.Option(help="Length; rounded to what the model can do.")] = None,
    frames: Annotated[int | None, typer.Option(help="Length in frames, instead of --seconds.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second.", show_default="the model's own")] = None,
    width: Side = None,
    height: Side = None,
    aspect: Annotated[str | None, typer.Option(help="landscape, portrait, 16:9, ...: the nearest size the model knows.")] = None,
    steps: Steps = None,
    cfg: Cfg = None,
    sampler: Sampler = None,
    scheduler: Scheduler = None,
    seed: Seed = None,
    loras: Loras = None,
    image: Picture = None,
    last_image: Annotated[Path | None, typer.Option("--last-image", metavar="FILE", help="The picture it ends with.")] = None,
    project: Project = "default",
    labels: Labels = None,
    timeout_s: TimeoutS = None,
    retry_on_lost: RetryOnLost = None,
    priority: PriorityOption = "normal",
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Make a clip and print where it is."""
    _make(context, VideoRequest)


@app.command()
def run(
    context: typer.Context,
    workflow: Annotated[Path, typer.Argument(metavar="WORKFLOW", help="A workflow of ComfyUI, or a picture or clip that carries one.", show_default=False)],
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set seed, steps, 3.cfg, ...; may be repeated.")] = None,
    strict: Annotated[bool, typer.Option(help="Run nothing if the server would leave out a part.")] = False,
    project: Project = "default",
    labels: Labels = None,
    timeout_s: TimeoutS = None,
    retry_on_lost: RetryOnLost = None,
    priority: PriorityOption = "normal",
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Run a workflow file of yours, with some of its values set."""
    values = _pairs(changes, "--set")

    def own(studio: Studio) -> dict[str, Any]:
        read = studio.workflow(workflow)
        return {"workflow": read.set(**studio._orders.own_pictures(read, values))}

    _make(context, WorkflowRequest, own)


@app.command()
def retry(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, or how it begins.", show_default=False)],
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Make a job that has ended once more, as a new job, and print where it is."""

    def ask(studio: Studio) -> JobHandle:
        job = studio._ledger.job(job_id)
        if not job.is_final:
            raise RequestInvalid(f"Job {job.id[:8]} has not ended: it is {job.status}.", hint="Cancel it first.")
        return studio._retry(job, "cli")

    _follow(context, ask, lambda job: (job.retry_of or "").startswith(job_id))


def _request(kind: type[RequestType], params: Mapping[str, Any], studio: Studio) -> RequestType:
    """The request of a command's options: they have the names of its fields."""
    fields = {name: params[name] for name in kind.model_fields if params.get(name) is not None}
    if "loras" in fields:
        fields["loras"] = [_lora(text) for text in fields["loras"]]
    return kind(**studio._orders.with_pictures({**fields, "labels": _pairs(params["labels"], "--label")}))


def _lora(text: str) -> dict[str, Any]:
    name, _, strength = text.rpartition(":")
    try:
        return {"name": name, "strength": float(strength)} if name else {"name": text}
    except ValueError:
        return {"name": text}


def _pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    for text in texts or ():
        if not text.partition("=")[0].strip() or "=" not in text:
            raise RequestInvalid(f"{option} {text}: write NAME=VALUE.")
    return {name.strip(): value for name, _, value in (text.partition("=") for text in texts or ())}


def _make(context: typer.Context, kind: type[Request], more: Callable[[Studio], dict[str, Any]] = lambda studio: {}) -> None:
    asked: list[Request] = []

    def ask(studio: Studio) -> JobHandle:
        _look_at_engine(studio)
        asked.append(_request(kind, {**context.params, **more(studio)}, studio))
        return studio.submit(asked[0], priority=context.params["priority"], origin="cli")

    _follow(context, ask, lambda job: job.request in asked)


def _follow(context: typer.Context, ask: Callable[[Studio], JobHandle], is_asked: Callable[[Job], bool]) -> None:
    """Ask for a job and, unless --no-wait, follow it to its end; Ctrl-C leaves it running. `is_asked` knows the job again."""
    place, options = context.obj, context.params
    with place.studio() as studio:
        handle: JobHandle | None = None
        try:
            handle = ask(studio)
            if options["no_wait"]:
                print_jobs(studio, handle.job) if options["as_json"] else typer.echo(handle.id)
            else:
                _tell(studio, followed(handle), options["as_json"])
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # a second one waits for nothing
            _leave(studio, handle or _accepted(studio, is_asked), options["as_json"])


def _look_at_engine(studio: Studio) -> None:
    """Other servers are looked at before a job is accepted for them; an engine nobody has asked yet must refuse a wrong model here too."""
    servers = studio._servers
    for address in servers.addresses:
        if address.is_engine and servers.catalog(address) is None:
            servers.look(address)


def _accepted(studio: Studio, is_asked: Callable[[Job], bool]) -> JobHandle | None:
    """The job that was asked for, if Ctrl-C came between the commit and our knowing of it."""
    return next((handle for handle in studio.jobs(status="open") if is_asked(handle.job)), None)


def _leave(studio: Studio, handle: JobHandle | None, as_json: bool) -> NoReturn:
    if handle is None:
        say("Interrupted before the job was accepted.")
        raise typer.Exit(INTERRUPTED)
    job = handle.job
    if as_json:
        print_jobs(studio, job)
    say(f"Left; {job.kind} {job.id} goes on. `toolkit jobs` shows it, `toolkit cancel {job.id[:8]}` stops it.")
    raise typer.Exit(INTERRUPTED)


def _tell(studio: Studio, job: Job, as_json: bool) -> None:
    """Print what a final job made; one that did not end well is raised."""
    if as_json:
        print_jobs(studio, job)
    for file in () if as_json else job.files:
        typer.echo(file.path)
    for warning in job.warnings:
        say(f"note: {warning}")
    error = error_of(job)
    if error is not None:
        raise error
    if job.simulated:
        say("note: a stand-in drawing of the built-in engine; `toolkit connect http://127.0.0.1:8188` for real ones.")
