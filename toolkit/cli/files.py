"""`strip`: copies of pictures and clips that do not say how they were made. Owns where copies go; what is taken out is metadata/'s."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.door import CALL_WRONG, app
from toolkit.cli.options import AsJson
from toolkit.cli.printing import print_json, say
from toolkit.errors import OutputError, RequestInvalid, ToolkitError


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
