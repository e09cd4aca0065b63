"""One SQLite file: connections, transactions, and the border where sqlite3's errors become HomeUnusable.

Owns WAL (with SQLite's own passive checkpoints), synchronous, busy timeouts, migrations and the check that the file is still the one that was
opened. Knows no table. A durable file is copied aside before it is migrated; a losable one is made anew. One connection per (process, thread):
sqlite3 objects must not cross either.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from toolkit.crashpoints import reached
from toolkit.errors import HomeUnusable

BUSY_TIMEOUT_S = 5.0  # three writers waited at most 2 s on a noisy disk; longer means that somebody holds the file
LOCK_LOOK_S = 0.001  # between looks at a lock that somebody holds
_impatient = threading.local()
COPY_PAGES = 2048  # 8 MB between two words about a copy


class Database:
    """A SQLite file shared by processes and threads; `migrations[n]` brings version n to n + 1."""

    def __init__(self, path: Path, migrations: Sequence[str], *, durable: bool) -> None:
        self.path = path
        self._migrations = migrations
        self._durable = durable
        self._local = threading.local()
        self._connections: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()
        with self._border():
            path.parent.mkdir(parents=True, exist_ok=True)
        self._open()
        self._identity = self._file_identity()

    def connection(self) -> sqlite3.Connection:
        """The connection of this thread and process, opened when first asked for."""
        found: tuple[int, sqlite3.Connection] | None = getattr(self._local, "held", None)
        if found is not None and found[0] == os.getpid():
            return found[1]
        with self._border():
            connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, factory=_Connection)
            connection.row_factory = sqlite3.Row
            _set_wal(connection)
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
            connection.execute("PRAGMA foreign_keys = ON")
        self._local.held = (os.getpid(), connection)
        self._connections.add(connection)
        return connection

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """All rows at once, so that no reader holds a snapshot open."""
        with self._border():
            return self.connection().execute(query, values).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A short write: BEGIN IMMEDIATE, after checking that file and schema are still ours."""
        connection = self.connection()
        joined: list[bool] | None = getattr(self._local, "joined", None)
        with self._border():
            try:
                if not connection.in_transaction:
                    _begin(connection)
                    self._check()
                yield connection
                if joined is None:
                    connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                if joined is not None:
                    joined.append(True)
                raise

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Make one of this thread's transactions within the block: durable at its end, all or none, whoever hides the fault of one."""
        connection = self.connection()
        failed: list[bool] = []
        self._local.joined = failed
        try:
            yield
            if failed:
                raise HomeUnusable(f"One of several writes to {self.path} failed.", path=str(self.path))
            if connection.in_transaction:
                with self._border():
                    connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise
        finally:
            self._local.joined = None

    def data_version(self) -> int:
        """Changes when another connection has committed; 6 microseconds a call, so it can be polled."""
        with self._border():
            return int(self.connection().execute("PRAGMA data_version").fetchone()[0])

    def quick_check(self) -> None:
        """Look whether the file is whole.

        Raises:
            HomeUnusable: it is not.
        """
        said = str(self.rows("PRAGMA quick_check(1)")[0][0])
        if said != "ok":
            raise self._damaged(said.splitlines()[-1])

    def copy_to(self, path: Path, tell: Callable[[int, int], None] = lambda done, of: None) -> None:
        """Copy the file as it is now to a new one, while others write; `tell` hears how many pages of how many are copied.

        Raises:
            HomeUnusable: there is no room for it, or one of the two cannot be used.
        """
        try:
            with contextlib.closing(sqlite3.connect(self.path)) as source, contextlib.closing(sqlite3.connect(path)) as copy:
                source.execute("BEGIN")  # one snapshot for all steps: without it each write of a feeder begins the copy again
                source.execute("SELECT 1 FROM sqlite_master").fetchone()
                source.backup(copy, pages=COPY_PAGES, progress=lambda _, left, pages: tell(pages - left, pages))
        except sqlite3.Error as error:
            raise HomeUnusable(f"{self.path} cannot be copied to {path}: {error}.", path=str(path), hint="Is there room?") from error

    def close(self) -> None:
        """Close the connections of all threads of this process."""
        for connection in list(self._connections):
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self._local = threading.local()

    def _open(self) -> None:
        try:
            self._migrate()
        except HomeUnusable as error:
            if self._durable or type(error.__cause__) is not sqlite3.DatabaseError:
                raise
            self.close()  # losable, written without a sync, and broken by a power cut: begin again
            for ending in ("", "-wal", "-shm"):
                Path(f"{self.path}{ending}").unlink(missing_ok=True)
            self._migrate()

    def _migrate(self) -> None:
        """Bring the schema up in one transaction, `user_version` with it: whoever dies in between leaves the old one."""
        with self._border():
            connection = self.connection()
            if _version(connection) == len(self._migrations):
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                before = version = _version(connection)
                self._refuse_newer(version)
                if 0 < version < len(self._migrations):
                    version = self._keep(version) if self._durable else _emptied(connection)
                for script in self._migrations[version:]:
                    for statement in filter(str.strip, script.split(";\n")):
                        connection.execute(statement)
                        if before:
                            reached("migration half done")
                connection.execute(f"PRAGMA user_version = {len(self._migrations)}")
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    def _keep(self, version: int) -> int:
        """Put a copy of the old schema beside the file; nobody else can write now, since we hold the write lock."""
        kept = self.path.with_name(f"{self.path.name}.v{version}.bak")
        part = kept.with_suffix(".part")
        part.unlink(missing_ok=True)
        self.copy_to(part)
        os.replace(part, kept)
        return version

    def _refuse_newer(self, version: int) -> None:
        if version > len(self._migrations):
            raise HomeUnusable(
                f"{self.path} was written by a newer toolkit (schema {version}, this one knows {len(self._migrations)}).",
                path=str(self.path),
                hint="Restart the kernel or upgrade the toolkit.",
            )

    def _check(self) -> None:
        self._refuse_newer(_version(self.connection()))
        if self._file_identity() != self._identity:
            raise HomeUnusable(f"{self.path} was replaced while it was open.", path=str(self.path), hint="Restart this program.")

    def _file_identity(self) -> tuple[int, int]:
        try:
            about = os.stat(self.path)
        except OSError as error:
            raise HomeUnusable(f"{self.path} is gone: {error.strerror}.", path=str(self.path), hint="Restart this program.") from error
        return about.st_dev, about.st_ino

    @contextlib.contextmanager
    def _border(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise HomeUnusable(self._sentence(error), path=str(self.path), hint=_HINTS.get(_word(error))) from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise
            raise self._damaged(str(error)) from error
        except OSError as error:
            raise HomeUnusable(f"{self.path.parent} cannot be used: {error.strerror}.", path=str(self.path), hint=_HINTS["readonly"]) from error

    def _damaged(self, how: str) -> HomeUnusable:
        return HomeUnusable(f"{self.path} cannot be read: {how}.", path=str(self.path), hint="Restore it from a backup.")

    def _sentence(self, error: sqlite3.OperationalError) -> str:
        match _word(error):
            case "locked":
                holder = lock_holder(self.path)
                return f"{self.path} has been locked for {BUSY_TIMEOUT_S:g} s" + (f" by process {holder}." if holder else ".")
            case "readonly" | "open":
                return f"{self.path.parent} cannot be written."
            case "full":
                return f"The disk of {self.path.parent} is full."
            case _:
                return f"{self.path} cannot be used: {error}."


def _begin(connection: sqlite3.Connection) -> None:
    """Take the write lock. SQLite's own waiting falls asleep for up to 0.1 s at a time, where the other's transaction takes milliseconds."""
    deadline = time.monotonic() + (0.0 if getattr(_impatient, "now", False) else BUSY_TIMEOUT_S)
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if _word(error) != "locked" or time.monotonic() >= deadline:
                    raise
            time.sleep(LOCK_LOOK_S)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """A block in which this thread's transactions do not wait for a lock.

    Raises:
        HomeUnusable: somebody holds it.
    """
    _impatient.now = True
    try:
        yield
    finally:
        _impatient.now = False


def _set_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; where several processes open a new file at once SQLite refuses here without waiting for its busy timeout."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _word(error) != "locked" or time.monotonic() >= deadline:
                raise
        time.sleep(0.01)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _emptied(connection: sqlite3.Connection) -> int:
    """Drop every table; the version that is left is 0."""
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall():
        connection.execute(f"DROP TABLE {name}")
    return 0


def _roll_back(connection: sqlite3.Connection) -> None:
    """Undo what is open; on a full disk SQLite has done so itself, and a second ROLLBACK would hide the first error."""
    with contextlib.suppress(sqlite3.Error):
        connection.execute("ROLLBACK")


class _Connection(sqlite3.Connection):
    """A connection that can be weakly referenced and closes without a warning when its thread ends."""

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


_HINTS = {
    "readonly": "Set TOOLKIT_HOME to a folder of yours.",
    "open": "Set TOOLKIT_HOME to a folder of yours.",
    "full": "Make room; nothing is lost.",
    "io": "Is its disk full or failing? What was accepted is kept.",
    "locked": "End that process, or try again.",
}


def _word(error: sqlite3.OperationalError) -> str:
    text = str(error)
    words = {"locked": "locked", "busy": "locked", "readonly": "readonly", "unable to open": "open", "full": "full", "disk I/O": "io"}
    return next((word for part, word in words.items() if part in text), "other")


def lock_holder(path: Path) -> int | None:
    """The process that holds the write lock of a WAL database, from /proc/locks; None where that cannot be known."""
    try:
        inode = os.stat(f"{path}-shm").st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in locks:
        parts = line.split()
        if len(parts) >= 8 and parts[3] == "WRITE" and parts[5].endswith(f":{inode}") and parts[6] == "120":  # 120: WAL_WRITE_LOCK
            return int(parts[4])
    return None
