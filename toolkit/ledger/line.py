"""The open jobs of a home as one process last saw them, brought up to date by what changed since.

Owns the comparison by revision. Knows no order: that is order.py's. Whoever watches a thousand open jobs asks at each change, and reading all
of them again took 5 ms each time here; reading what changed takes 0.05 ms.
"""

from __future__ import annotations

from toolkit.jobs import OPEN, OpenJob
from toolkit.ledger import rows
from toolkit.ledger.database import Database
from toolkit.ledger.origin import HELD_TO

COLUMNS = "jobs.seq, jobs.id, jobs.status, kind, priority, person, servers, created_at, cancel_asked, attempt, server_url, recipe_key, loads"
QUERY = f"SELECT {COLUMNS} FROM jobs LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.number = jobs.attempt"
STATUSES = rows.listed(OPEN)


class Line:
    """All jobs that are neither final nor held, for one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held_to = -1
        self._revision = 0
        self._jobs: dict[int, OpenJob] = {}

    def jobs(self) -> list[OpenJob]:
        """The open jobs now, in the order they were accepted."""
        (held_to, revision), *_ = self._database.rows(f"SELECT {HELD_TO}, revision FROM counter")
        if held_to != self._held_to:
            self._held_to = held_to
            found = self._database.rows(f"{QUERY} WHERE jobs.status IN ({STATUSES}) AND jobs.seq > ? ORDER BY jobs.seq", held_to)
            self._jobs = {row["seq"]: rows.read_open_job(row) for row in found}
            self._revision = revision  # read before the jobs: what changed in between is read twice, and nothing is missed
        elif revision != self._revision:
            # the `+`: SQLite would walk all jobs of the home to have these few in order
            for row in self._database.rows(f"{QUERY} WHERE jobs.revision > ? AND +jobs.seq > ? ORDER BY +jobs.seq", self._revision, held_to):
                self._take(row["seq"], rows.read_open_job(row))
            self._revision = revision
        return list(self._jobs.values())

    def _take(self, seq: int, job: OpenJob) -> None:
        if job.status in OPEN:
            self._jobs[seq] = job
        else:
            self._jobs.pop(seq, None)
