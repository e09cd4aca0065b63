"""Stats, the door to the log: publish, ask, export.

Owns when the published file is replaced and who may do it (one process and thread at a time, by a file lock). Nobody writes the
published file and nobody waits for a reader: who holds an older version keeps it, whole. DuckDB is imported inside the methods, since
a Stats is made with every Studio and most never ask.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from toolkit.errors import HomeUnusable, RequestInvalid, ToolkitError
from toolkit.ledger.store import Ledger
from toolkit.stats.tables import SCHEMA

if TYPE_CHECKING:
    import duckdb

    from toolkit.stats.workfile import Stamp

LOCK_TIMEOUT_S = 30.0  # making 100,000 jobs anew takes less; longer means that the holder is stopped


class Published(NamedTuple):
    """One version of the published file, held open."""

    identity: tuple[int, int, int]
    connection: duckdb.DuckDBPyConnection
    stamp: Stamp | None


class Stats:
    """The log of a home: DuckDB tables made from its ledger; safe to use from any thread and many processes."""

    def __init__(self, ledger: Ledger) -> None:
        self.path = ledger.home / "stats.duckdb"
        self.work_path = ledger.home / "stats.work.duckdb"
        self._ledger = ledger
        self._lock_path = ledger.home / "locks" / "stats.lock"
        self._guard = threading.Lock()
        self._published: Published | None = None

    def publish(self, *, at_most_every_s: float = 0.0) -> bool:
        """Bring the published file up to the ledger's revision: only the jobs that changed are read.

        Args:
            at_most_every_s: do nothing if it was published less than these seconds ago, by whatever process.

        Returns:
            False if nothing was published: it was current, or too young.

        Raises:
            HomeUnusable: another publisher is stuck, the disk is full, or the home cannot be written; the older file stays.
        """
        from toolkit.stats import workfile

        if self._younger_than(at_most_every_s) or self._is_current():
            return False
        with self._locked():
            if self._is_current():  # somebody else published while we waited
                return False
            usable = self._is_of_this_ledger()
            workfile.prepare(self.work_path, self.path, usable=usable)
            workfile.bring_up_to_date(self.work_path, self._ledger)
            workfile.replace_published(self.work_path, self.path, usable=usable)
        return True

    def sql(self, query: str, **parameters: Any) -> duckdb.DuckDBPyRelation:
        """Ask the log, published first if it is behind; `from duckdb_columns()` lists tables, columns and what they mean.

        Args:
            query: one statement that reads.
            parameters: values for `$name` in it.

        Returns:
            DuckDB's own relation: `.df()`, `.fetchall()`, `.filter(...)`. It runs when it is fetched and keeps the version of the file it
            was asked of; an error found only then (a cast, say) is DuckDB's own, or QueryInvalid inside `connections.query_errors()`.

        Raises:
            QueryInvalid: DuckDB's text, with position and candidates; also for several statements, or one that writes.
            HomeUnusable: the log cannot be published or read.
        """
        from toolkit.stats import connections

        try:
            return connections.relation(self._current(), query, parameters)
        except ToolkitError:
            self.close()  # an internal error of DuckDB spoils every later query of its connection
            raise

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write a copy of the log for other tools, over an older one.

        Args:
            path: `.duckdb`: a file that DuckDB 1.2 and newer opens, with comments and views; `.parquet`: a folder with one file a table;
                `.csv`: the table jobs, times in UTC.

        Returns:
            The absolute path of what was written.

        Raises:
            RequestInvalid: another suffix, or the home's own log.
            OutputError: it cannot be written there.
            HomeUnusable: the log cannot be published or read.
        """
        from toolkit.stats import exports

        target = exports.checked(Path(path), self.path.parent)
        exports.write(self._current(), self.path, target)
        return target

    def close(self) -> None:
        """Let go of the published file; relations that were handed out keep theirs until they are dropped."""
        with self._guard:
            self._published = None  # closing the connection would close the relations' cursors with it

    def _current(self) -> duckdb.DuckDBPyConnection:
        self.publish()
        published = self._open()
        if published is None:
            raise HomeUnusable(f"{self.path} is gone or cannot be read.", path=str(self.path), hint="Ask again.")
        return published.connection

    def _is_current(self) -> bool:
        published = self._open()  # before the revision is read: what is published then cannot be ahead of it
        return published is not None and published.stamp == (self._ledger.id, SCHEMA, self._ledger.revision())

    def _is_of_this_ledger(self) -> bool:
        """Whether the published file can be gone on with."""
        published = self._open()
        stamp = published.stamp if published is not None else None
        return stamp is not None and stamp[:2] == (self._ledger.id, SCHEMA) and stamp.revision <= self._ledger.revision()

    def _open(self) -> Published | None:
        """The published file as it is now, opened once a version; None if there is none that can be read."""
        from toolkit.stats import connections, workfile

        with self._guard:
            identity = _identity(self.path)
            if identity is None:
                self._published = None
            elif self._published is None or self._published.identity != identity:
                self._published = None
                with contextlib.suppress(connections.Unreadable), connections.home_errors(self.path):
                    connection = connections.reading(self.path)
                    self._published = Published(identity, connection, workfile.stamp_of(connection))
            return self._published

    def _younger_than(self, seconds: float) -> bool:
        try:
            return seconds > 0 and 0 <= time.time() - self.path.stat().st_mtime < seconds
        except OSError:
            return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The lock of all publishers; a new object each time, since one object lets a second thread in."""
        lock = FileLock(self._lock_path, timeout=LOCK_TIMEOUT_S, thread_local=False, fallback_to_soft=False)
        try:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            said = f"Another process has been publishing the log for {LOCK_TIMEOUT_S:g} s."
            raise HomeUnusable(said, path=str(self._lock_path), hint="End it, or try again.") from error
        except (OSError, NotImplementedError) as error:
            raise HomeUnusable(f"{self._lock_path} cannot be locked: {error}.", path=str(self._lock_path)) from error
        try:
            yield
        finally:
            lock.release()


def merge_logs(homes: Sequence[Path], into: Path, tell: Callable[[str], None] = print) -> int:
    """Write the logs of several homes into one .duckdb file, over an older one, with the same tables, views and comments.

    A job that several of them have, since a home was copied, is there once: as the home tells it that has seen most of it.

    Args:
        homes: folders, published on the way where they can be; or .duckdb files that were exported or merged before.
        into: the file.
        tell: hears which log is read as it is.

    Returns:
        How many jobs it has.

    Raises:
        RequestInvalid: a folder that is no home, or a target that is no .duckdb file or a home's own. HomeUnusable: a log that cannot be read, or of
            another version of the toolkit. OutputError: the target cannot be written.
    """
    from toolkit.stats import exports, merging

    if not homes or into.suffix != ".duckdb":
        raise RequestInvalid(f"'{into.name}' is no .duckdb file." if homes else "No home is named.", field="into" if homes else "homes")
    targets = [exports.checked(into, home) for home in homes]
    return merging.merge([_log_of(home, tell) for home in homes], targets[0])


def _log_of(home: Path, tell: Callable[[str], None]) -> Path:
    """The published log of a home as new as it can be made, or the file itself."""
    log = home / "stats.duckdb"
    if home.is_file():
        return home
    if not (home / "ledger.sqlite").is_file():
        if log.is_file():
            return log
        raise RequestInvalid(f"{home} is no home: it has neither ledger.sqlite nor stats.duckdb.", field="homes")
    try:
        ledger = Ledger(home)
        with contextlib.closing(ledger), contextlib.closing(Stats(ledger)) as stats:
            ledger.look_at_files()
            stats.publish()
    except HomeUnusable as error:  # a network disk, or one that is not ours to write
        if not log.is_file():
            raise
        tell(f"{home}: its log is read as it was published last. {error.message}")
    return log


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size
