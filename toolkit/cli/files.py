"""`validate` and `strip`: what a file says of how it was made, and a copy that does not. Nothing is made here and no job asked for.

Owns where copies go and how a workflow's state is printed; what is wrong with one is graph.py's to say, what is taken out metadata/'s.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.catalog import NodeCatalog
from toolkit.cli.door import CALL_WRONG, app
from toolkit.cli.options import AsJson
from toolkit.cli.printing import print_json, say
from toolkit.errors import ExportUnreadable, OutputError, RequestInvalid, ToolkitError
from toolkit.exported import Parameter, Workflow


@app.command()
def validate(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="WORKFLOW...", help="Workflow files, or pictures and clips that carry one.", show_default=False)],
    catalog: Annotated[Path | None, typer.Option(metavar="FILE", help="A saved /object_info.", show_default="what the server answers")] = None,
    as_json: AsJson = False,
) -> None:
    """Say of workflows what can be set and what a server would refuse; nothing is sent (2: something would be refused)."""
    with contextlib.ExitStack() as stack:
        known = [_saved_catalog(catalog)] if catalog is not None else stack.enter_context(context.obj.studio())._servers.catalogs().values()
        bad = [file for file in files if not _validated(file, known, as_json)]
    if bad:
        raise typer.Exit(CALL_WRONG)


def _validated(file: Path, catalogs: Sequence[NodeCatalog], as_json: bool) -> bool:
    """Print how it stands with one file; whether it would run."""
    from toolkit.shapes import workflow_json

    try:
        workflow = Workflow.load(file).with_best(catalogs)
    except ToolkitError as error:
        unread: dict[str, Any] = {"graph": None, "parameters": {}, "faults": [{"kind": error.code, "message": str(error), "sentence": str(error)}], "notes": []}
        print_json({"file": str(file), **unread}) if as_json else typer.echo(f"{file}: {error}")
        return False
    found = list(workflow.faults)
    if as_json:
        print_json({"file": str(file), **workflow_json(workflow)})
        return not found
    typer.echo(f"{file}: {len(workflow.api())} nodes, " + (f"{len(found)} faults" if len(found) > 1 else "1 fault" if found else "ready"))
    for parameter in workflow.parameters.values():
        if "." not in parameter.name:
            typer.echo(f"  {parameter.name} = {parameter.value!r:.80}{_limits(parameter)}")
    for line in (*(f"note: {note}" for note in workflow.notes), *(f"fault: {fault}" for fault in found)):
        typer.echo(f"  {line}")
    return not found


def _limits(parameter: Parameter) -> str:
    """What it may be, where that is worth a word: --json has it all."""
    if parameter.choices:
        return f"  ({len(parameter.choices)} choices)"
    ends = [end for end in (parameter.minimum, parameter.maximum) if end is not None and abs(end) < 1e9]
    return f"  ({ends[0]:g} to {ends[1]:g})" if len(ends) == 2 else ""


def _saved_catalog(path: Path) -> NodeCatalog:
    """The answer of a server's /object_info, from a file."""
    data: Any = None
    with contextlib.suppress(OSError, ValueError):
        data = json.loads(path.read_bytes())
    if not isinstance(data, dict) or not all(isinstance(known, dict) and "input" in known for known in data.values()) or not data:
        raise ExportUnreadable(f"{path} is no answer of /object_info.", hint="curl http://127.0.0.1:8188/object_info > object_info.json")
    return NodeCatalog(data)


@app.command()
def strip(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="PNG, JPEG, WebP, MP4, MOV, WebM or MKV.", show_default=False)],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where the copies go.", show_default="beside, NAME.clean.EXT")] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Change the files themselves.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy pictures and clips without prompt, workflow, EXIF and the like; what they show stays the same (2: not all could be copied)."""
    from toolkit.metadata import strip as copy_clean

    if output is not None and in_place:
        raise RequestInvalid("Give --output or --in-place, not both.")
    failed = False
    for file in files:
        try:
            target = _target(file, output, in_place, context.obj.settings().home)
            copy_clean(file, target)
        except ToolkitError as error:
            say(f"error: {error}")
            failed = True
        else:
            print_json({"file": str(file), "clean": str(target), "size_bytes": target.stat().st_size}) if as_json else typer.echo(target)
    if failed:
        raise typer.Exit(CALL_WRONG)


def _target(file: Path, folder: Path | None, in_place: bool, home: Path) -> Path:
    """Where the copy of a file goes: never onto another file, and never onto one whose hash the log holds."""
    if in_place:
        if file.resolve().is_relative_to((home / "projects").resolve()):
            raise OutputError(f"{file} is in the log as it is.", path=str(file), hint="Leave out --in-place: a copy goes beside it.")
        return file.resolve()  # a link stays a link
    target = file.with_name(f"{file.stem}.clean{file.suffix}") if folder is None else folder / file.name
    if target.exists():
        raise OutputError(f"{target} exists already.", path=str(target), hint="Remove it, or name another folder with -o.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target.parent} cannot be made: {error.strerror}.", path=str(target.parent)) from error
    return target
