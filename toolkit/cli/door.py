"""The door of the command line: global options, exit codes, and where an error becomes one sentence.

Owns what holds for every command. Knows none of them: they add themselves to `app`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from toolkit import __version__
from toolkit.cli.printing import say
from toolkit.errors import JobError, JobUnknown, ToolkitError
from toolkit.settings import Settings
from toolkit.studio import Studio

JOB_FAILED, CALL_WRONG, AMBIGUOUS, INTERRUPTED = 1, 2, 3, 130


class Commands(TyperGroup):
    """All commands: where an error of the toolkit becomes one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except ToolkitError as error:
            say(f"error: {error}")
            several = isinstance(error, JobUnknown) and error.matches
            raise typer.Exit(AMBIGUOUS if several else JOB_FAILED if isinstance(error, JobError) else CALL_WRONG) from error
        except KeyboardInterrupt as error:
            say("Interrupted.")
            raise typer.Exit(INTERRUPTED) from error


@dataclass(frozen=True, slots=True)
class Place:
    """The options that stand before the command."""

    home: Path | None
    server: str | None

    def studio(self) -> Studio:
        """The studio of this home and server; looks for no server yet."""
        return Studio(self.server, home=self.home)

    def settings(self) -> Settings:
        """What the environment says, with this home."""
        return Settings.read(home=self.home)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 the job did not end well, 2 the call was wrong, 3 an id fits several jobs, 130 Ctrl-C (an accepted job goes on).",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"toolkit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    home: Annotated[Path | None, typer.Option(help="Folder of jobs and files.", show_default="TOOLKIT_HOME, the checkout's data/, your data folder")] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL|engine", help="Server of this call.", show_default="COMFYUI_URL, the connected, one on this machine, the engine")
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Anime pictures and clips with ComfyUI: make them, follow the jobs, ask the log."""
    context.obj = Place(home, server)
