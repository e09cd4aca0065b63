"""One SQLite file: connections, transactions, and the border where sqlite3's errors become HomeUnusable.

Owns WAL (with SQLite's own passive checkpoints), synchronous, busy timeouts and the check that the file is still the one that was opened. Knows no table.
One connection per (process, thread): sqlite3 objects must not cross either.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import HomeUnusable

BUSY_TIMEOUT_S = 5.0  # three writers waited at most 2 s on a noisy disk; longer means that somebody holds the file


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
        self._migrate()
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
        with self._border():
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._check()
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    def data_version(self) -> int:
        """Changes when another connection has committed; 6 microseconds a call, so it can be polled."""
        with self._border():
            return int(self.connection().execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Close the connections of all threads of this process."""
        for connection in list(self._connections):
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self._local = threading.local()

    def _migrate(self) -> None:
        with self._border():
            connection = self.connection()
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version == len(self._migrations):
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                version = int(connection.execute("PRAGMA user_version").fetchone()[0])
                self._refuse_newer(version)
                for script in self._migrations[version:]:
                    for statement in filter(str.strip, script.split(";\n")):
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {len(self._migrations)}")
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    def _refuse_newer(self, version: int) -> None:
        if version > len(self._migrations):
            raise HomeUnusable(
                f"{self.path} was written by a newer toolkit (schema {version}, this one knows {len(self._migrations)}).",
                path=str(self.path),
                hint="Restart the kernel or upgrade the toolkit.",
            )

    def _check(self) -> None:
        self._refuse_newer(int(self.connection().execute("PRAGMA user_version").fetchone()[0]))
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
            raise HomeUnusable(f"{self.path} cannot be read: {error}.", path=str(self.path), hint="Restore it from a backup.") from error
        except OSError as error:
            raise HomeUnusable(f"{self.path.parent} cannot be used: {error.strerror}.", path=str(self.path), hint=_HINTS["readonly"]) from error

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
