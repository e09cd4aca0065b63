"""The live board: the latest progress and a small preview of each running job, and each feeder's pulse.

Losable by design (synchronous=OFF): everything here can be made again by the feeder. Faces of all processes read it; only feeders write.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from toolkit.ledger.database import Database
from toolkit.order import ServerLine

SCHEMA = """
CREATE TABLE jobs (id TEXT PRIMARY KEY, version INTEGER NOT NULL, progress TEXT NOT NULL, preview BLOB, preview_type TEXT) WITHOUT ROWID;
CREATE INDEX jobs_version ON jobs(version);
CREATE TABLE servers (url TEXT PRIMARY KEY, pid INTEGER, beat REAL, state TEXT, sentence TEXT, running INTEGER, pending INTEGER) WITHOUT ROWID;
CREATE TABLE counter (version INTEGER NOT NULL);
INSERT INTO counter VALUES (0)
"""

LINES = "ALTER TABLE servers ADD COLUMN line TEXT"

BEAT_STALE_S = 3.0  # a feeder writes its pulse each second; three missed ones are worth a sentence


@dataclass(frozen=True, slots=True)
class LiveJob:
    """The latest Progress of a running job as JSON, and its preview picture."""

    id: str
    version: int
    progress: str
    preview: bytes | None = field(default=None, repr=False)
    preview_type: str | None = None


@dataclass(frozen=True, slots=True)
class LiveServer:
    """What a feeder last said of its server; `beat` is unix seconds."""

    url: str
    pid: int
    beat: float
    state: str
    sentence: str | None
    running: int
    pending: int
    line: str | None = field(default=None, repr=False)  # what the common order needs to know of it, as JSON

    def in_order(self, now: float) -> ServerLine:
        """What the common order needs to know of it, `now` in unix seconds."""
        told = ServerLine.load(self.line) if self.line else ServerLine(self.url)
        return replace(told, busy_s=max(told.busy_s - max(now - self.beat, 0.0), 0.0), usable=told.usable and self.is_alive(now))

    def is_alive(self, now: float | None = None, *, within_s: float = BEAT_STALE_S) -> bool:
        """Whether the feeder's pulse is fresh."""
        return abs((time.time() if now is None else now) - self.beat) < within_s  # a clock set back makes no pulse fresh


class LiveBoard:
    """`live.sqlite` of a home."""

    def __init__(self, home: Path) -> None:
        self._database = Database(home / "live.sqlite", [SCHEMA, LINES], durable=False)

    def show(self, job_id: str, progress: str, preview: bytes | None = None, preview_type: str | None = None) -> None:
        """Replace a job's progress; the preview stays when none is given."""
        with self._database.transaction() as connection:
            (version,) = connection.execute("UPDATE counter SET version = version + 1 RETURNING version").fetchone()
            connection.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET version = excluded.version, progress = excluded.progress,"
                " preview = coalesce(excluded.preview, preview), preview_type = coalesce(excluded.preview_type, preview_type)",
                (job_id, version, progress, preview, preview_type),
            )

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def job(self, job_id: str) -> LiveJob | None:
        """What is shown of one job now."""
        found = self._database.rows("SELECT * FROM jobs WHERE id = ?", job_id)
        return LiveJob(*found[0]) if found else None

    def jobs_since(self, version: int) -> Sequence[LiveJob]:
        """The jobs that were shown anew after this version, oldest first."""
        return [LiveJob(*row) for row in self._database.rows("SELECT * FROM jobs WHERE version > ? ORDER BY version", version)]

    def beat(self, server: LiveServer) -> None:
        """Write a feeder's pulse."""
        with self._database.transaction() as connection:
            values = (server.url, server.pid, server.beat, server.state, server.sentence, server.running, server.pending, server.line)
            connection.execute("INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def servers(self) -> Sequence[LiveServer]:
        """Every feeder's last pulse, also old ones."""
        return [LiveServer(*row) for row in self._database.rows("SELECT * FROM servers ORDER BY url")]

    def lines(self, now: float) -> list[ServerLine]:
        """What the common order needs to know of every server that is fed."""
        return [server.in_order(now) for server in self.servers()]

    def server(self, url: str) -> LiveServer | None:
        """One feeder's last pulse."""
        return next((server for server in self.servers() if server.url == url), None)

    def leave(self, url: str) -> None:
        """Take a feeder that ends off the board."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM servers WHERE url = ?", (url,))

    def data_version(self) -> int:
        """Changes when another process or thread wrote; cheap to poll."""
        return self._database.data_version()

    def close(self) -> None:
        """Close this process's connections."""
        self._database.close()
