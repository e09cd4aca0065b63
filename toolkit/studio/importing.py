"""Older pictures and clips of ComfyUI as jobs of this home, by the graph that each file carries.

Owns which files are taken and what each is told as: one file is one job, made when it was written, with an id that its bytes give it, so that the
same file is never taken twice. Knows no server: nothing is run, and what a file does not say stays unknown.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import ExportUnreadable, OutputError, RequestInvalid
from toolkit.exported import Workflow
from toolkit.jobs import Instant, Job, JobStatus
from toolkit.ledger import Elsewhere, Ledger, Outcome, Pace
from toolkit.ledger.backup import Tell
from toolkit.metadata import read
from toolkit.metadata.embedded import CLIPS, PICTURES, Embedded
from toolkit.outputs import OutputStore
from toolkit.requests import Request, WorkflowRequest, parse_request
from toolkit.roles import recipe_of

AT_ONCE = 100  # files a commit


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of the files of a folder; `skipped` has those without a graph, by their name below it, each with the reason."""

    added: int
    known: int
    skipped: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        said = f"{self.added} files are jobs now, {self.known} were known."
        names = ", ".join(name for name, _ in self.skipped[:3]) + (", ..." if len(self.skipped) > 3 else "")
        return said + (f" {len(self.skipped)} tell of no graph: {names}." if self.skipped else "")


class Told(NamedTuple):
    """What a file tells of how it was made."""

    request: Request
    graph: Mapping[str, Any]
    recipe: Mapping[str, Any]


def import_files(ledger: Ledger, folder: Path, project: str, tell: Tell) -> Imported:
    """Take in every picture and clip below a folder; see `Studio.import_folder`."""
    WorkflowRequest(workflow={}, project=project)  # refuses the name before anything is read
    folder = folder.expanduser()
    paths = list(_media(folder))
    store, pace, known = OutputStore(ledger.home), Pace(tell), ledger.file_hashes()
    added, skipped, waiting = 0, list[tuple[str, str]](), list[Elsewhere]()
    for number, path in enumerate(paths, start=1):
        name = path.relative_to(folder).as_posix() if path != folder else path.name
        try:
            digest = _digest(path)
            if digest not in known:
                waiting.append(_job(store, path, digest, project))
                known.add(digest)
        except (ExportUnreadable, OutputError) as error:
            skipped.append((name, error.message.removeprefix(f"{path}: ")))
        if len(waiting) >= AT_ONCE or number == len(paths):
            added += len(ledger.chronicle(*waiting))
            waiting.clear()
        pace.say(f"files: {number} of {len(paths)}, {added + len(waiting)} taken in")
    return Imported(added, len(paths) - added - len(skipped), tuple(skipped))


def _media(folder: Path) -> Iterator[Path]:
    """The pictures and clips below a folder, by name, or the file itself."""
    if folder.is_file():
        yield folder
    elif not folder.is_dir():
        raise RequestInvalid(f"{folder} is not there.", field="path")
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names) if name.rpartition(".")[2].lower() in PICTURES | CLIPS)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise OutputError(f"it cannot be read: {error.strerror}.", path=str(path)) from error


def _job(store: OutputStore, path: Path, digest: str, project: str) -> Elsewhere:
    told = _told(read(path), project)
    written = Instant(path.stat().st_mtime)
    job_id = str(uuid.uuid5(uuid.NAMESPACE_OID, digest))
    job = Job(job_id, 0, 0, told.request, JobStatus.DONE, written, origin="imported")
    file = store.adopt(job, path, digest)
    store.write_sidecar(job, file, told.recipe, None)
    return Elsewhere(job_id, told.request, "imported", written, Outcome(JobStatus.DONE, files=[file], ended=written), told.recipe, graph=told.graph)


def _told(found: Embedded, project: str) -> Told:
    """The request that our own files carry, else the graph as a workflow of the user's."""
    if found.prompt is None:
        raise ExportUnreadable("it carries no graph that ran" + (", only what ComfyUI's page drew." if found.workflow else "."))
    graph = Workflow.load(found.prompt).api()
    recipe = {**recipe_of(graph), "simulated": found.simulated}
    request: Request = WorkflowRequest(workflow=graph, ui=found.workflow)
    if found.request is not None:
        with suppress(RequestInvalid, TypeError):  # of another version
            request = parse_request(found.request)
    return Told(request.but(project=project), graph, recipe)
