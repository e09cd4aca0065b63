"""What people keep: their judgements of outputs, what is in the bin, what is gone for good, and which jobs a batch is made of.

Owns ratings, the marks on files, deletions, and the cells of batches. Moves no file: that is outputs.py's. A deleted job leaves its id and a
revision behind, so that the log forgets it too.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toolkit.errors import RequestInvalid
from toolkit.jobs import FINAL, OPEN, JobStatus, Rating
from toolkit.ledger import presence
from toolkit.ledger.entries import BatchFacts, Cell, NewBatch
from toolkit.ledger.find import Finder
from toolkit.ledger.rows import listed
from toolkit.ledger.writing import insert, next_revision, update, update_job

OF_A_JOB = ("etas", "ratings", "files", "attempts")
LIVING = f"status = '{JobStatus.DONE}' OR status IN ({listed(OPEN)}) AND cancel_asked = 0"
KEPT = f"SELECT id, ({LIVING}) FROM jobs WHERE group_id = ? AND request_hash = ? ORDER BY seq DESC LIMIT 1"
OPEN_CELL = f"SELECT 1 FROM cells JOIN jobs ON id = job_id WHERE cells.group_id = batches.group_id AND status IN ({listed(OPEN)}) AND cancel_asked = 0"


class Keeper(Finder):
    """The part of a ledger that people write with their judgement."""

    # ---- judgements ---------------------------------------------------------------------------------------------------

    def rate(self, *ratings: Rating) -> None:
        """Add judgements; of a person and output the latest counts, and one without a verdict takes it back."""
        with self._database.transaction() as connection:
            for rating in ratings:
                values = {name: getattr(rating, name) for name in ("job_id", "output", "person", "verdict", "stars", "comment", "rated_at")}
                insert(connection, "ratings", {**values, "reasons": json.dumps(list(rating.reasons))})
            for job_id in {rating.job_id for rating in ratings}:
                update_job(connection, job_id)

    def verdicts(self, job_ids: Sequence[str]) -> dict[tuple[str, int], str | None]:
        """The latest verdict of each output of these jobs that has one, by job id and number."""
        return {(rating.job_id, rating.output): rating.verdict for rating in self.ratings(job_ids)}

    # ---- files and jobs that go ---------------------------------------------------------------------------------------

    def mark(self, marks: Iterable[tuple[str, int, str]]) -> None:
        """Write down where files are: job id, number, and `present`, `trashed` or `missing`."""
        marks = list(marks)
        with self._database.transaction() as connection:
            _mark(connection, marks)

    def look_at_files(self) -> int:
        """Mark files that were deleted or moved outside as missing, and those that are back as present; returns how many were marked."""
        found = presence.look(self._database, self.projects)
        if found.marks or found.folders:
            with self._database.transaction() as connection:
                _mark(connection, found.marks)
                connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", found.folders.items())
        return len(found.marks)

    def forget(self, job_ids: Sequence[str]) -> None:
        """Delete jobs with everything that is known of them; their files are the caller's business.

        Raises:
            RequestInvalid: one of them has not ended; nothing is deleted then.
        """
        with self._database.transaction() as connection:
            for job_id in job_ids:
                status = connection.execute("SELECT status FROM jobs WHERE id = ?", (job_id,)).fetchone()
                if status is not None and status[0] not in FINAL:
                    raise RequestInvalid(f"Job {job_id[:8]} has not ended: it is {status[0]}.", hint="Cancel it first.")
                for table in OF_A_JOB:
                    connection.execute(f"DELETE FROM {table} WHERE job_id = ?", (job_id,))
                connection.execute("DELETE FROM cells WHERE job_id = ?", (job_id,))
                connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
                connection.execute("INSERT OR REPLACE INTO deleted VALUES (?, ?)", (job_id, next_revision(connection)))

    def deleted_since(self, revision: int) -> list[str]:
        """The ids of jobs that were deleted after this revision."""
        return [row[0] for row in self._database.rows("SELECT job_id FROM deleted WHERE revision > ?", revision)]

    # ---- batches ------------------------------------------------------------------------------------------------------

    def batch(self, group_id: str) -> BatchFacts | None:
        """What is known of a batch as a whole; None for a group that was none."""
        return _facts(self._database.rows("SELECT * FROM batches WHERE group_id = ?", group_id))

    def batch_like(self, base: str, name: str | None) -> BatchFacts | None:
        """The latest batch that was made of the same: of this name, or without one as long as a job of it is open."""
        if name is not None:
            return _facts(self._database.rows("SELECT * FROM batches WHERE base = ? AND name = ? ORDER BY created_at DESC LIMIT 1", base, name))
        return _facts(self._database.rows(f"SELECT * FROM batches WHERE base = ? AND EXISTS ({OPEN_CELL}) ORDER BY created_at DESC LIMIT 1", base))

    def last_open(self, group_id: str) -> str | None:
        """The id of the last job of a batch that has not ended, be it another's that stands for one of its own."""
        open_now, mine = f"status IN ({listed(OPEN)})", "(group_id = ? OR id IN (SELECT job_id FROM cells WHERE cells.group_id = ?))"
        found = self._database.rows(f"SELECT id FROM jobs WHERE {open_now} AND {mine} ORDER BY seq DESC LIMIT 1", group_id, group_id)
        return str(found[0]["id"]) if found else None

    def cells(self, group_id: str) -> list[Cell]:
        """The cells of a batch in their order, and then the jobs that came into its group later: clips of its stills, say."""
        found = self._database.rows("SELECT place, job_id, axes FROM cells WHERE group_id = ? ORDER BY place", group_id)
        query = """SELECT id FROM jobs WHERE group_id = ? AND id NOT IN (SELECT job_id FROM cells WHERE cells.group_id = jobs.group_id)
            AND id NOT IN (SELECT retry_of FROM jobs AS later WHERE later.group_id = jobs.group_id AND retry_of IS NOT NULL) ORDER BY seq"""
        later = self._database.rows(query, group_id)
        return [Cell(row["job_id"], json.loads(row["axes"])) for row in found] + [Cell(row["id"], {}) for row in later]


def keep_batch(connection: sqlite3.Connection, batch: NewBatch, cells: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Write a batch with its cells; of one that was there before, cells that are not among these stay behind them."""
    values = {"group_id": batch.group_id, "name": batch.name, "base": batch.base, "seed": batch.seed, "axes": json.dumps(list(batch.axes))}
    insert(connection, "batches", {**values, "created_at": time.time()}, "OR IGNORE")
    told = [(job_id, json.dumps(dict(axes))) for job_id, axes in cells]
    before = connection.execute("SELECT job_id, axes FROM cells WHERE group_id = ? ORDER BY place", (batch.group_id,)).fetchall()
    said = {axes for _, axes in told}
    told += [(row["job_id"], row["axes"]) for row in before if row["axes"] not in said]
    connection.execute("DELETE FROM cells WHERE group_id = ?", (batch.group_id,))
    connection.executemany("INSERT INTO cells VALUES (?, ?, ?, ?)", [(batch.group_id, place, *cell) for place, cell in enumerate(told)])


def kept_in_group(connection: sqlite3.Connection, group_id: str, digest: str) -> tuple[str | None, bool]:
    """The latest job of a group with this request, if there is one, and whether it is done or on its way."""
    found = connection.execute(KEPT, (group_id, digest)).fetchone()
    return (found[0], bool(found[1])) if found else (None, False)


def _mark(connection: sqlite3.Connection, marks: Sequence[tuple[str, int, str]]) -> None:
    for job_id, number, disk in marks:
        update(connection, "files", "job_id = ? AND number = ?", (job_id, number), {"disk": disk})
    for job_id in {job_id for job_id, _, _ in marks}:
        update_job(connection, job_id)


def _facts(found: Sequence[sqlite3.Row]) -> BatchFacts | None:
    if not found:
        return None
    row = found[0]
    return BatchFacts(row["group_id"], row["name"], row["base"], None if row["seed"] is None else int(row["seed"]), tuple(json.loads(row["axes"])))
