"""Studio: the one door for notebooks, the page, REST, the feed and the command line.

Does no network itself: it writes the ledger, sees to it that a feeder runs, and watches. A first look at a new server is the exception,
so that a request is refused before anything is sent. Everything here returns at once.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from toolkit.errors import RequestInvalid, ToolkitError
from toolkit.exported import Workflow
from toolkit.forecast import Forecaster
from toolkit.inputs import InputStore, WildcardFolder
from toolkit.jobs import Job, Origin, Priority
from toolkit.ledger import Key, Ledger, LiveBoard, NewJob
from toolkit.outputs import OutputStore
from toolkit.pipelines.choosing import missing
from toolkit.pipelines.families import ModelFile
from toolkit.progress import Progress
from toolkit.requests import ImageRef, ImageRequest, Request, VideoRequest, WorkflowRequest
from toolkit.settings import ServerAddress, Settings
from toolkit.studio.accepting import cost_of
from toolkit.studio.asking import Asking
from toolkit.studio.batches import Batch
from toolkit.studio.experiments import Experiments
from toolkit.studio.handles import JobHandle, OutputHandle
from toolkit.studio.keeping import Keeping
from toolkit.studio.orders import Orders
from toolkit.studio.plan import Plan, rehearse
from toolkit.studio.servers import Servers, ServerStatus
from toolkit.studio.standing import Queue, Standing
from toolkit.studio.watcher import Watcher

if TYPE_CHECKING:
    from toolkit.stats import Stats


class Studio(Asking, Experiments, Keeping):
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
        self._defaults = {"project": project, **({"labels": dict(labels)} if labels else {})}
        self._ledger = Ledger(self._settings.home)
        self._board = LiveBoard(self._settings.home)
        self._servers = Servers(self._settings, server, self._ledger, self._board)
        self._inputs, self._wildcards = InputStore(self._settings.home), WildcardFolder(self._settings.home)
        self._orders = Orders(self._inputs, self._ledger)
        self._outputs = OutputStore(self._settings.home)
        self._standing = Standing(self._ledger, self._board)
        self._watcher = Watcher(self._ledger, self._board, dict(self._settings.headers))
        self._stats: Stats | None = None
        self._ready = True
        left = {url for job in self._ledger.open_jobs() for url in job.servers}
        if left:  # by a kernel that was killed, a machine that was switched off: they go on without being asked for
            self._watcher.feed([address for address in self._servers.without_looking() if address.url in left])

    _ready: bool
    _closed: bool = False

    @property
    def home(self) -> Path:
        """The folder of jobs and files."""
        return self._settings.home

    # ---- make ---------------------------------------------------------------------------------------------------------

    def image(self, prompt: str, *, priority: Priority = "normal", reuse: bool | None = None, **fields: Any) -> JobHandle:
        """Ask for a picture; `fields` are ImageRequest's, `image` and `mask` any picture."""
        return self.submit(ImageRequest(**self._fields({"prompt": prompt, **fields})), priority=priority, reuse=reuse)

    def video(self, prompt: str, *, priority: Priority = "normal", reuse: bool | None = None, **fields: Any) -> JobHandle:
        """Ask for a clip; `fields` are VideoRequest's, `image` (the first frame) and `last_image` any picture."""
        return self.submit(VideoRequest(**self._fields({"prompt": prompt, **fields})), priority=priority, reuse=reuse)

    def run(
        self, workflow: Workflow | str | PathLike[str] | bytes | Mapping[str, Any], *, priority: Priority = "normal", reuse: bool | None = None,
        strict: bool = False, **parameters: Any,
    ) -> JobHandle:  # fmt: skip
        """Run the user's own workflow, with some of its parameters set; `strict`: not at all if the server would leave out a branch."""
        own = self.workflow(workflow)
        changed = own.set(**self._orders.own_pictures(own, parameters))
        request = WorkflowRequest(**self._fields({"workflow": changed, "strict": strict}))
        return self.submit(request, priority=priority, reuse=reuse)

    def workflow(self, source: Workflow | str | PathLike[str] | bytes | Mapping[str, Any]) -> Workflow:
        """A workflow file, or the graph inside a picture or clip, read with what the servers know of its nodes."""
        return (source if isinstance(source, Workflow) else Workflow.load(source)).with_best(self._servers.catalogs().values())

    def upload(self, image: Any) -> ImageRef:
        """Keep a picture in this home: a path, bytes, a PIL.Image or an output; requests refer to it.

        Raises:
            RequestInvalid: it is no picture, or larger than 20 MB or 64 megapixels.
        """
        return self._orders.picture(image)

    def plan(self, work: Request | Iterable[Request], *, person: str | None = None, look: bool = True) -> Plan:
        """What a request or a batch would do, nothing sent: jobs, duplicates, what is missing and where it belongs, the first graph.

        `person`: a guest; `look` False: what servers had when they were last looked at will do.
        """
        requests = [self._orders.with_sizes(request) for request in ([work] if isinstance(work, Request) else work)]
        catalogs = (None if look else self._servers.known()) or self._servers.catalogs()
        return rehearse(requests, catalogs, self._ledger, self._wildcards, self._forecast, person)

    def _forecast(self, url: str) -> Forecaster:
        """What the runs so far say of a server."""
        made = Forecaster(self._ledger, url)
        made.load()
        return made

    def submit(
        self, request: Request, *, priority: Priority = "normal", reuse: bool | None = None, origin: Origin = "notebook", person: str = "owner",
        key: Key | None = None,
    ) -> JobHandle:  # fmt: skip
        """Accept a request durably and see to it that it runs.

        Args:
            request: what is wanted.
            priority: now, normal or background.
            reuse: None: an equal unfinished job is returned; True: an equal finished one too; False: always a new job.
            origin: which face asks.
            person: who asks.
            key: what the caller calls this request: the same key again is the same job, whatever `reuse` says.

        Raises:
            KeyReused: the key is another request's. ServerUnreachable: no named server answers.
            WorkflowInvalid: no server can run it, with everything that is missing. QuotaReached, RequestInvalid: a guest may not.
            HomeUnusable: the home's disk is full, or somebody holds the ledger; nothing was accepted.
        """
        (job,) = self._accept([request], priority=priority, reuse=reuse, origin=origin, person=person, key=key)
        return JobHandle(self, job.id)

    def _feed_open(self, jobs: Iterable[Job]) -> None:
        """See to jobs that may be awaited and that an earlier kernel may have left without a feeder; those held in a copied home go on waiting."""
        held_to = self._ledger.held_to()
        left = {url for job in jobs if not job.is_final and job.seq > held_to for url in job.servers}
        if left:
            self._feed(left)

    def _retry(self, job: Job, origin: Origin = "notebook", key: Key | None = None) -> JobHandle:
        if not job.servers:  # nobody knows which server made an imported file
            return self.submit(job.request, reuse=False, origin=origin, key=key)
        guest = self._ledger.people.guest(job.person)
        cost = cost_of(self._ledger.graph(job.id))
        new = NewJob(job.request, job.servers, **cost) if guest is None else self._new(job.request, self._usable(), guest)[0]
        about: dict[str, Any] = {"priority": job.priority, "person": job.person or "owner", "group_id": job.group_id, "group_name": job.group_name}
        (again,) = self._ledger.accept(replace(new, **about, origin=origin, retry_of=job.id, key=key))
        self._feed(again.servers)
        return JobHandle(self, again.id)

    def _again(self, job: Job, changes: Mapping[str, Any]) -> JobHandle:
        return self.submit(self._orders.changed(job.request, changes), priority=job.priority)

    def _from_output(self, kind: type[VideoRequest | ImageRequest], output: OutputHandle, fields: Mapping[str, Any]) -> JobHandle:
        job = self._ledger.job(output.job_id)
        request = self._orders.begun_with(kind, output, job, fields)
        (new,) = self._accept([request], group=(job.group_id, job.group_name))
        return JobHandle(self, new.id)

    def _fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of a request with this studio's defaults, and pictures kept."""
        return self._orders.with_pictures({**self._defaults, **fields})

    # ---- find ---------------------------------------------------------------------------------------------------------

    def job(self, id: str | int = -1, *, person: str | None = None) -> JobHandle:
        """A job by its id, its first characters, or -1 for the latest; with `person` among that guest's own.

        Raises:
            JobUnknown: there is none, or several.
        """
        job = self._ledger.latest(id) if isinstance(id, int) else self._ledger.job(id, person)
        self._feed_open([job])
        return JobHandle(self, job.id)

    def batch(self, name: str) -> Batch:
        """The latest batch of this name.

        Raises:
            JobUnknown: there is none, with the nearest name.
        """
        return Batch(self, *self._ledger.group(name))

    def jobs(
        self, *, status: str | None = None, project: str | None = None, since: datetime | timedelta | None = None, person: str | None = None, limit: int = 20
    ) -> Sequence[JobHandle]:
        """The newest jobs first; with `person` those of one guest."""
        start = datetime.now(UTC) - since if isinstance(since, timedelta) else since
        found = self._ledger.jobs(status=status, project=project, since=start.timestamp() if start else None, person=person, limit=limit)
        self._feed_open(found)
        return [JobHandle(self, job.id) for job in found]

    def queue(self) -> Sequence[Job]:
        """Everybody's open jobs: those on a server first, then in the order they will run; last line of a cell: a live board of all servers."""
        jobs = self._ledger.open_jobs()
        waiting = self._standing.waiting()
        rest = [job.id for job in jobs if job.id not in waiting]
        found = {job.id: job for job in self._ledger.jobs(status="open", limit=-1)}
        return Queue(self, [found[job_id] for job_id in (*rest, *waiting) if job_id in found])

    def _progress_of(self, job: Job) -> Progress:
        return self._standing.progress_of(job)

    def _trouble_of(self, job: Job) -> str | None:
        return self._standing.trouble_of(job)

    # ---- the servers --------------------------------------------------------------------------------------------------

    def servers(self) -> Sequence[ServerStatus]:
        """Each server: how it was found, its state, and what it can make."""
        return self._servers.status()

    def missing(self, kind_or_family: str) -> Sequence[ModelFile]:
        """What to put where so that a server can make pictures (`image`), clips (`video`) or run a family; empty if it can.

        Raises:
            RequestInvalid: no such family, with the nearest one.
        """
        return missing(kind_or_family, list(self._servers.catalogs().values()))

    def pause(self, server: str | None = None, *, free_memory: bool = False, note: str | None = None) -> None:
        """Keep a server for yourself: what runs there ends, nothing more is sent until `resume`.

        Args:
            server: its address; None: every server of this studio.
            free_memory: tell it to unload its models once nothing of ours runs.
            note: what those who wait are told.
        """
        for url in self._urls(server):
            self._ledger.pause_server(url, note, free=free_memory)
            if free_memory:
                self._feed([url])

    def resume(self, server: str | None = None) -> tuple[int, int]:
        """Use paused servers again and, in a copied home, let the open jobs it came with run here: the original must not run them too.

        Args:
            server: only this one, and no held jobs; None: everything.

        Returns:
            How many servers were paused, and how many jobs were held.
        """
        used = [url for url in self._urls(server) if self._ledger.unpause_server(url)]
        held = self._ledger.held() if server is None else 0
        if held:
            self._ledger.release()
        self._feed(used)
        self._feed_open(self._ledger.jobs(status="open", limit=-1))
        return len(used), held

    def _urls(self, server: str | None) -> list[str]:
        known = [address.url for address in self._servers.addresses]
        if server is None:
            return known
        url = ServerAddress.parse(server).url
        if url not in known:
            raise RequestInvalid(f"{url} is not a server of this studio; known are {', '.join(known)}.", field="server")
        return [url]

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
            shown = "; ".join(status.described for status in self.servers())
        except ToolkitError as error:
            shown = str(error)
        counts = self._ledger.counts()
        waiting = sum(counts.get(status, 0) for status in ("queued", "submitted", "running", "collecting"))
        said = f"{shown}. {waiting} in line, {counts.get('done', 0)} done, home {os.fspath(self.home)}"
        held = self._held()
        return f"{said}. {held}" if held else said
