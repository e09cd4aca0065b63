"""What a studio is asked: SQL, named questions, copies of the log; and what is brought into it for them: probes, older files, names of servers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import JobError, RequestInvalid
from toolkit.jobs import Job
from toolkit.ledger import Ledger
from toolkit.settings import ServerAddress

if TYPE_CHECKING:
    from toolkit.analysis import Answer
    from toolkit.stats import Stats
    from toolkit.studio.importing import Imported


class Asking:
    """The half of a Studio that reads its log."""

    _ledger: Ledger
    _stats: Stats | None

    def sql(self, query: str, **parameters: Any) -> Any:
        """Ask the log in SQL; `$name` in the query takes a parameter. Returns DuckDB's relation: `.df()`, `.pl()`, `.fetchall()`.

        Raises:
            QueryInvalid: with DuckDB's own text.
        """
        return self._log().sql(query, **parameters)

    def console(self, query: str) -> dict[str, Any]:
        """Somebody else's SQL, in a process of its own with limits on time, memory, rows and bytes: `columns`, `types`, `rows`, `truncated`, `elapsed_s`.

        Raises:
            QueryInvalid: with DuckDB's own text, or that it was stopped.
        """
        from toolkit.stats.console import console

        return console(self._log(), query)

    def ask(self, question: str = "help", /, **where: Any) -> Answer:
        """Ask the log a question by its name; "help" lists them. The answer is a table with its SQL, `.df()` and `.plot()`.

        Args:
            question: its name, e.g. "upgrade".
            where: which jobs it is about: any column of the table jobs (`model="illustrious"`, `kind="image"`), `since=timedelta(days=7)`,
                `lora=` a part of its name, `batch=` a name; several values mean any of them. `simulated=True` takes in the built-in engine's runs.

        Raises:
            RequestInvalid: no such question or column, with the nearest one, or a value that cannot be read.
        """
        from toolkit.analysis import ask

        return ask(self._log(), question, where)

    def _explain(self, job: Job) -> Answer:
        from toolkit.analysis import explain

        if not job.is_final:
            raise RequestInvalid(f"Job {job.id[:8]} has not ended: it is {job.status}.", hint="Its card says how far it is.")
        return explain(self._log(), job.id)

    def probe(self, label: str = "before", *, tell: Callable[[str], None] = print) -> Answer:
        """Run the same small jobs on every server, one after another, each cold and then warm; `probe("after")` once something was changed.

        Args:
            label: the word they are found by: labels={"probe": label}. Question `probe` compares "before" and "after".
            tell: hears a line when a job has ended.

        Returns:
            `ask("probe")`: seconds a step, a row for each recipe and server.

        Raises:
            ServerUnreachable: none of the named servers answers.
        """
        from toolkit.studio.probing import probes

        for probe in probes(self, label):  # type: ignore[arg-type]
            with suppress(JobError):
                probe.handle.wait()
            tell(probe.told)
        return self.ask("probe")

    def import_folder(self, path: str | PathLike[str], *, project: str = "imported", tell: Callable[[str], None] = print) -> Imported:
        """Take older pictures and clips of ComfyUI into this home as jobs: their graph is read from each file, and nothing is run.

        Each becomes a done job of its own, `origin` imported, made when the file was written; how long it took is unknown. The file gets a second
        name below projects (a hard link; a copy where it lies on another disk), so that it can be found, judged, animated and made again like any
        other. The same files again add nothing; those without a graph are named.

        Args:
            path: a folder, looked through to its depths, or one file.
            project: the folder its files go to.
            tell: hears every 2 s how far it is.

        Raises:
            RequestInvalid: it is not there, or no such project can be. HomeUnusable: the home cannot be written; what was taken in stays.
        """
        from toolkit.studio.importing import import_files

        return import_files(self._ledger, Path(path), project, tell)

    def export(self, path: str | PathLike[str]) -> str:
        """Write the log to a .duckdb file, a .parquet folder or .csv; returns where it is."""
        return str(self._log().export(path))

    def _log(self) -> Stats:
        from toolkit.stats import Stats

        if self._stats is None:
            self._stats = Stats(self._ledger)
        self._ledger.look_at_files()
        return self._stats

    def name_server(self, server: str, name: str | None, *, price_per_hour: float | None = None) -> None:
        """Say what a server is called in answers and what an hour of it costs, in any currency; the price holds from the feeder's next look at it.

        Raises:
            RequestInvalid: an address that is none.
        """
        self._ledger.name_server(ServerAddress.parse(server).url, name, price_per_hour)
