"""`connect`, `pause`, `resume`, `serve` and `engine`: which server is used and when, and the ones started here.

Owns what is remembered and what is said of it. Starts the page and the engine, and knows nothing of what they do.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import asdict
from typing import Annotated, TypeAlias

import typer

from toolkit.cli.door import JOB_FAILED, app
from toolkit.cli.options import AsJson
from toolkit.cli.printing import print_json, say
from toolkit.errors import RequestInvalid, ServerUnreachable
from toolkit.processes import lock_of
from toolkit.settings import parse_servers, remember_servers, remembered_servers
from toolkit.studio import ServerStatus, Studio

Url: TypeAlias = Annotated[str | None, typer.Argument(metavar="URL", help="The server.", show_default="all of this call")]


@app.command()
def connect(
    context: typer.Context,
    urls: Annotated[list[str] | None, typer.Argument(metavar="URL...", help="http://host:8188, https://host/prefix, or engine.", show_default=False)] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Forget these servers, or all.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at servers and remember them: all notebooks, pages and commands of this home use them from now on."""
    settings = context.obj.settings()
    home, asked = settings.home, parse_servers(",".join(urls or ()))
    if forget:
        names = {address.url for address in asked}
        remember_servers(home, tuple(kept for kept in remembered_servers(home) if kept.url not in names) if names else ())
        say("Forgotten.")
        return
    if not asked:
        raise RequestInvalid("No server is named.", hint="Write e.g. `toolkit connect http://127.0.0.1:8188`.")
    with Studio(urls, home=home) as studio:
        looks = studio.servers()
    for look in looks:
        if look.state == "unreachable":
            raise ServerUnreachable(look.sentence or f"{look.url} does not answer.", server_url=look.url, hint="Nothing is remembered.")
    remember_servers(home, asked)
    for look in looks:
        print_json(asdict(look)) if as_json else typer.echo(_described(look))
    if settings.servers not in ((), asked):
        say("note: COMFYUI_URL is set here and goes before what is remembered.")


def _described(look: ServerStatus) -> str:
    name = "built-in engine, which draws stand-ins" if look.simulated else f"ComfyUI {look.comfyui_version} at {look.url}, {look.device}"
    return f"{name}. Can make: {', '.join(look.can_make) or 'nothing yet, it has no models we know'}"


@app.command()
def missing(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="image|video|FAMILY", help="What the server should be able to make.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say which files to put where so that the server can make pictures, clips, or run a family (exit code 1: some are missing)."""
    with context.obj.studio() as studio:
        files = studio.missing(what)
    for file in files:
        about = {"name": file.name, "folder": file.folder, "size_bytes": file.size_bytes, "source": file.source}
        print_json(about) if as_json else typer.echo(f"models/{file.folder}/{file.name}  {file.source}".rstrip())
    if files:
        raise typer.Exit(JOB_FAILED)
    say("Nothing is missing.")


@app.command()
def pause(
    context: typer.Context,
    url: Url = None,
    free_memory: Annotated[bool, typer.Option("--free-memory", help="Let it unload its models once nothing of ours runs.")] = False,
    note: Annotated[str | None, typer.Option(help="What those who wait are told.")] = None,
    as_json: AsJson = False,
) -> None:
    """Keep a server for yourself: what runs there ends, nothing more is sent until `resume`."""
    with context.obj.studio() as studio:
        studio.pause(url, free_memory=free_memory, note=note)
        urls = studio._urls(url)
    for paused in urls:
        print_json({"url": paused, "paused": True, "note": note}) if as_json else typer.echo(f"{paused} is paused; `toolkit resume` uses it again.")


@app.command()
def resume(context: typer.Context, url: Url = None, as_json: AsJson = False) -> None:
    """Use paused servers again; in a copied home, let the open jobs it came with run here (the original must not run them too)."""
    with context.obj.studio() as studio:
        servers, jobs = studio.resume(url)
    said = [f"{servers} servers are used again." if servers else "", f"{jobs} held jobs go on." if jobs else ""]
    print_json({"servers": servers, "jobs": jobs}) if as_json else typer.echo(" ".join(filter(None, said)) or "None was paused, no job was held.")


@app.command()
def serve(
    context: typer.Context,
    public: Annotated[str | None, typer.Option(metavar="URL", help="Where others see the page, through a proxy on this machine: sign-in is required.")] = None,
) -> None:
    """Serve the page, REST and the feed until Ctrl-C; TOOLKIT_HOST, TOOLKIT_PORT, TOOLKIT_FEED_PORT and TOOLKIT_TOKEN say where and for whom."""
    from toolkit import app as program  # uvicorn, fastapi and gradio take seconds

    raise typer.Exit(program.serve(program.in_public(context.obj.settings(), public), context.obj.server))


@app.command()
def engine(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: the system picks one.")] = 0,
    step_s: Annotated[float | None, typer.Option("--step-s", min=0, help="Seconds a sampling step takes.")] = None,
    load_s: Annotated[float | None, typer.Option("--load-s", min=0, help="Seconds a model file takes to load.")] = None,
    noise: Annotated[float | None, typer.Option(min=0, max=1, help="Jitter of the step times, relative.")] = None,
) -> None:
    """Run the built-in engine in the foreground until Ctrl-C; its exit code is ours (2: the port is taken, 3: this home has one running)."""
    home = context.obj.settings().home
    lock_of(home, "engine")  # refuses a home that cannot be written, in our words
    asked = {"--port": port, "--step-s": step_s, "--load-s": load_s, "--noise": noise}
    given = [word for name, value in asked.items() if value is not None for word in (name, str(value))]
    child = subprocess.Popen([sys.executable, "-m", "toolkit.engine", "--home", str(home), "--idle-s", "0", *given])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: child.send_signal(number))
    raise typer.Exit(child.wait())
