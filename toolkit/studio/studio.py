"""Studio: the one door for notebooks, the page, REST, the feed and the command line.

Does no network itself: it writes the ledger, sees to it that a feeder runs, and watches. A first look at a new server is the exception,
so that a request is refused before anything is sent. Everything here returns at once.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from toolkit.crashpoints import reached
from toolkit.errors import ToolkitError
from toolkit.exported import Workflow
from toolkit.jobs import Job, JobStatus, Origin, Priority
from toolkit.ledger import Ledger, LiveBoard, NewJob
from toolkit.order import ahead_of, in_line
from toolkit.pipelines import build
from toolkit.progress import Progress
from toolkit.requests import ImageRequest, Request, VideoRequest, WorkflowRequest
from toolkit.settings import ServerAddress, Settings
from toolkit.studio.handles import JobHandle
from toolkit.studio.servers import Servers, ServerStatus
from toolkit.studio.watcher import Watcher

if TYPE_CHECKING:
    from toolkit.stats import Stats


class Studio:
    """`Studio()` again in the same process and home gives the running one."""

    _running: ClassVar[dict[tuple[Path, str], weakref.ref[Studio]]] = {}
    _registry: ClassVar[threading.Lock] = threading.Lock()

    def __new__(
        cls, server: str | Sequence[str] | None = None, *, home: str | PathLike[str] | None = None, project: str = "default", labels: Mapping[str, str] = {}
    ) -> Self:
        """The running studio of this home and these servers, or a new one."""
        key = (Settings.read(home=home).home, str(server))
        with cls._registry:
            held = cls._running.get(key)
            found = held() if held is not None else None
            if found is not None and not found._closed:
                return found  # type: ignore[return-value]
            made = super().__new__(cls)
            made._ready = False
            cls._running[key] = weakref.ref(made)
            return made

    def __init__(
        self, server: str | Sequence[str] | None = None, *, home: str | PathLike[str] | None = None, project: str = "default", labels: Mapping[str, str] = {}
    ) -> None:
        """Open a home.

        Args:
            server: one or several addresses, or "engine"; None: COMFYUI_URL, what `toolkit connect` remembered, a ComfyUI on loopback, the engine.
            home: the folder of jobs and files; None: TOOLKIT_HOME, else the checkout's `data/`, else the user's data folder.
            project: the folder for requests that name none.
            labels: given to every request.

        Raises:
            HomeUnusable: the home cannot be read or written. RequestInvalid: an address or setting that cannot be read.
        """
        if self._ready:
            return
        self._closed = False
        self._settings = Settings.read(home=home)
        self._project, self._labels = project, dict(labels)
        self._ledger = Ledger(self._settings.home)
        self._board = LiveBoard(self._settings.home)
        self._servers = Servers(self._settings, server, self._ledger, self._board)
        self._watcher = Watcher(self._ledger, self._board, dict(self._settings.headers))
        self._stats: Stats | None = None
        self._ready = True

    _ready: bool
    _closed: bool = False

    @property
    def home(self) -> Path:
        """The folder of jobs and files."""
        return self._settings.home

    # ---- make ---------------------------------------------------------------------------------------------------------

    def image(self, prompt: str, *, priority: Priority = "normal", reuse: bool | None = None, **fields: Any) -> JobHandle:
        """Ask for a picture; `fields` are ImageRequest's."""
        return self.submit(ImageRequest(**self._defaults({"prompt": prompt, **fields})), priority=priority, reuse=reuse)

    def video(self, prompt: str, *, priority: Priority = "normal", reuse: bool | None = None, **fields: Any) -> JobHandle:
        """Ask for a clip; `fields` are VideoRequest's."""
        return self.submit(VideoRequest(**self._defaults({"prompt": prompt, **fields})), priority=priority, reuse=reuse)

    def run(
        self, workflow: Workflow | str | PathLike[str] | Mapping[str, Any], *, priority: Priority = "normal", reuse: bool | None = None, **parameters: Any
    ) -> JobHandle:
        """Run the user's own workflow, with some of its parameters set."""
        own = workflow if isinstance(workflow, Workflow) else Workflow.load(workflow)
        request = WorkflowRequest(**self._defaults({"workflow": own.set(**parameters).api()}))
        return self.submit(request, priority=priority, reuse=reuse)

    def submit(
        self, request: Request, *, priority: Priority = "normal", reuse: bool | None = None, origin: Origin = "notebook", person: str = "owner"
    ) -> JobHandle:
        """Accept a request durably and see to it that it runs.

        Args:
            request: what is wanted.
            priority: now, normal or background.
            reuse: None: an equal unfinished job is returned; True: an equal finished one too; False: always a new job.
            origin: which face asks.
            person: who asks.

        Raises:
            ServerUnreachable: no named server answers. WorkflowInvalid: no server can run it, with everything that is missing.
        """
        new = self._new(request, self._servers.usable(), priority, reuse, origin, person)
        reached("request parsed")
        (job,) = self._ledger.accept(new)
        reached("row committed")
        self._feed(new.servers)
        return JobHandle(self, job.id)

    def _new(self, request: Request, usable: Sequence[ServerAddress], priority: Priority, reuse: bool | None, origin: Origin, person: str) -> NewJob:
        able, warnings, failures = [], list[str](), list[ToolkitError]()
        for address in usable:
            catalog = self._servers.catalog(address)
            try:
                warnings = list(build(request, catalog).warnings) if catalog is not None else warnings
                able.append(address.url)
            except ToolkitError as error:
                failures.append(error)
        if not able:
            raise failures[0]
        return NewJob(request, able, priority, origin, person, reuse=reuse, warnings=warnings)

    def _feed(self, urls: Iterable[str]) -> None:
        wanted = set(urls)
        self._watcher.feed([address for address in self._servers.addresses if address.url in wanted])

    def _retry(self, job: Job, origin: Origin = "notebook") -> JobHandle:
        new = NewJob(job.request, job.servers, job.priority, origin, job.person, job.group_id, job.group_name, retry_of=job.id)
        (again,) = self._ledger.accept(new)
        self._feed(again.servers)
        return JobHandle(self, again.id)

    def _defaults(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"project": self._project, **({"labels": self._labels} if self._labels else {}), **fields}

    # ---- find ---------------------------------------------------------------------------------------------------------

    def job(self, id: str | int = -1) -> JobHandle:
        """A job by its id, its first characters, or -1 for the latest.

        Raises:
            JobUnknown: there is none, or several.
        """
        job = self._ledger.latest(id) if isinstance(id, int) else self._ledger.job(id)
        if not job.is_final:
            self._feed(job.servers)
        return JobHandle(self, job.id)

    def jobs(
        self, *, status: str | None = None, project: str | None = None, since: datetime | timedelta | None = None, limit: int = 20
    ) -> Sequence[JobHandle]:
        """The newest jobs first."""
        start = datetime.now(UTC) - since if isinstance(since, timedelta) else since
        found = self._ledger.jobs(status=status, project=project, since=start.timestamp() if start else None, limit=limit)
        left = {url for job in found if not job.is_final for url in job.servers}
        if left:  # one of these may be awaited, and an earlier kernel have left it without a feeder
            self._feed(left)
        return [JobHandle(self, job.id) for job in found]

    def queue(self) -> Sequence[Job]:
        """Everybody's open jobs: those on a server first, then in the order they will run."""
        jobs = self._ledger.open_jobs()
        waiting = {job.id: None for job in in_line(jobs)}
        rest = [job.id for job in jobs if job.id not in waiting]
        found = {job.id: job for job in self._ledger.jobs(status="open", limit=-1)}
        return [found[job_id] for job_id in (*rest, *waiting) if job_id in found]

    def _progress_of(self, job: Job) -> Progress:
        if job.is_final:
            took = job.timings.run_s if job.timings and job.timings.run_s is not None else 0.0
            return Progress(fraction=1.0 if job.is_done else 0.0, elapsed_s=took)
        live = self._board.job(job.id)
        trouble = self._trouble_of(job)
        if live is not None and job.status != JobStatus.QUEUED:
            progress = Progress.load(live.progress)
            return progress if trouble is None else Progress(**{**_fields(progress), "stalled": trouble})
        return Progress(ahead=ahead_of(self._ledger.open_jobs(), job.id), stalled=trouble)

    def _trouble_of(self, job: Job) -> str | None:
        """A sentence when the server of an open job cannot be reached."""
        for url in [job.server_url] if job.server_url else job.servers:
            live = self._board.server(url)
            if live is not None and live.is_alive() and live.state == "unreachable":
                return live.sentence or f"{url} does not answer."
        return None

    # ---- the servers --------------------------------------------------------------------------------------------------

    def servers(self) -> Sequence[ServerStatus]:
        """Each server: how it was found, its state, and what it can make."""
        return self._servers.status()

    # ---- ask ----------------------------------------------------------------------------------------------------------

    def sql(self, query: str, **parameters: Any) -> Any:
        """Ask the log in SQL; `$name` in the query takes a parameter. Returns DuckDB's relation: `.df()`, `.pl()`, `.fetchall()`.

        Raises:
            QueryInvalid: with DuckDB's own text.
        """
        return self._log().sql(query, **parameters)

    def export(self, path: str | PathLike[str]) -> str:
        """Write the log to a .duckdb file, a .parquet folder or .csv; returns where it is."""
        return str(self._log().export(path))

    def _log(self) -> Stats:
        from toolkit.stats import Stats

        if self._stats is None:
            self._stats = Stats(self._ledger)
        return self._stats

    def close(self) -> None:
        """Stop watching; jobs go on, and are found again by the next studio."""
        if self._closed:
            return
        self._closed = True
        self._watcher.close()
        if self._stats is not None:
            self._stats.close()
        self._ledger.close()
        self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __repr__(self) -> str:
        try:
            shown = "; ".join(_sentence(status) for status in self.servers())
        except ToolkitError as error:
            shown = str(error)
        counts = self._ledger.counts()
        waiting = sum(counts.get(status, 0) for status in ("queued", "submitted", "running", "collecting"))
        return f"{shown}. {waiting} in line, {counts.get('done', 0)} done, home {os.fspath(self.home)}"


def _fields(progress: Progress) -> dict[str, Any]:
    return {name: getattr(progress, name) for name in progress.__slots__}


def _sentence(status: ServerStatus) -> str:
    words = {"argument": "asked for", "COMFYUI_URL": "named by COMFYUI_URL", "settings": "remembered", "discovered": "found there"}
    how = words.get(status.found_by, "nothing else found")
    if status.simulated:
        return f"Built-in engine ({how}): draws stand-ins; `toolkit connect http://127.0.0.1:8188` for real pictures"
    if status.state == "unreachable":
        return f"ComfyUI at {status.url} ({how}) does not answer"
    making = ", ".join(status.can_make) or "nothing yet: it has no models"
    return f"ComfyUI {status.comfyui_version} at {status.url} ({how}), {status.device}. Can make: {making}"
