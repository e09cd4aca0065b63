"""`backup`: a copy of the home. Owns how it is told; what belongs to a backup is the ledger's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.door import app
from toolkit.cli.options import AsJson
from toolkit.cli.printing import print_json, say


@app.command()
def backup(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder that does not exist yet.", show_default=False)],
    no_files: Annotated[bool, typer.Option("--no-files", help="Only the ledger, without pictures, clips and inputs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy the whole home while jobs go on; the copy opens with --home and holds its open jobs until `resume`."""
    with context.obj.studio() as studio:
        made = studio.backup(path, files=not no_files, tell=say)
    print_json(asdict(made)) if as_json else typer.echo(made)
