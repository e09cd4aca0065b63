"""The ledger: accept, claim, record, end. Every promise about jobs is a transaction in this file.

An id is returned only after its row is durable; a prompt is sent only after its attempt is; what is final stays. Any change to a job
raises its one revision, by which faces and the log notice. A feeder that lost its server (an older epoch) is refused.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.errors import HomeUnusable
from toolkit.graph import NodeCatalog
from toolkit.jobs import FINAL, OPEN, PRIORITIES, Attempt, Eta, Instant, Job, JobStatus, may_move
from toolkit.ledger import rows
from toolkit.ledger.backup import Backup, Tell, back_up
from toolkit.ledger.database import Database
from toolkit.ledger.elsewhere import Chronicle
from toolkit.ledger.entries import Claim, NewBatch, NewJob, Outcome, StaleEpoch
from toolkit.ledger.keeping import keep_batch, kept_in_group
from toolkit.ledger.origin import HELD_TO, identify, refuse_network_disk
from toolkit.ledger.people import People
from toolkit.ledger.writing import insert, next_revision, update, update_job

ROOM_BYTES = 8_000_000  # what two running jobs may still write into the ledger, and the largest request


LONGEST = """INSERT INTO longest VALUES (?, (SELECT kind FROM jobs WHERE id = ?), ?)
    ON CONFLICT DO UPDATE SET run_s = max(run_s, excluded.run_s)"""


class Ledger(Chronicle):
    """`ledger.sqlite` of a home, the truth about jobs; safe to use from any thread and many processes."""

    def __init__(self, home: Path) -> None:
        refuse_network_disk(home)
        super().__init__(home, Database(home / "ledger.sqlite", rows.MIGRATIONS, durable=True))
        self.id = identify(self._database)
        self.people = People(self._database)

    def together(self) -> AbstractContextManager[None]:
        """A block whose writes, of this thread, are one: durable at its end, all or none."""
        return self._database.together()

    # ---- accept -------------------------------------------------------------------------------------------------------

    def accept(self, *new: NewJob) -> list[Job]:
        """Store jobs durably, all or none, and return them in order; an equal unfinished one is returned instead where `reuse` is None.

        With a job's `key` the key alone decides: the job that was accepted under it is returned, whatever became of it.

        Raises:
            QuotaReached: a guest may not have one more. KeyReused: the key is another request's.
        """
        with self._database.transaction() as connection:
            ids = self._accepted(connection, new, None)
        found = {job.id: job for job in self.these(ids)}
        return [found[job_id] for job_id in ids]

    def accept_batch(self, new: Sequence[NewJob], batch: NewBatch, cells: Sequence[tuple[int, Mapping[str, Any]]] | None = None) -> list[str]:
        """The same for a batch; returns the ids, since its jobs are read when somebody looks at it.

        Args:
            new: what is asked for.
            batch: the name they are under. What it already has, done or on its way, is not made again; what ended otherwise is.
            cells: its places, each the number of one of `new` and what it is called on each axis; None: one for each.
        """
        with self._database.transaction() as connection:
            ids = self._accepted(connection, new, batch)
            keep_batch(connection, batch, [(ids[at], axes) for at, axes in cells or [(at, {}) for at in range(len(ids))]])
        return ids

    def _accepted(self, connection: sqlite3.Connection, new: Sequence[NewJob], batch: NewBatch | None) -> list[str]:
        """Write new jobs; the ids of these, or of those that stand for them."""
        ids: list[str] = []
        revision = next_revision(connection)
        for job in new:
            digest = self.hash_of(job.request)
            before, is_kept = kept_in_group(connection, batch.group_id, digest) if batch is not None else (None, False)
            if is_kept and before is not None:
                ids.append(before)
                continue
            known = self._known(connection, job, digest)
            if known is None:
                self.people.admit(connection, job.person)
            ids.append(known or _insert_job(connection, replace(job, retry_of=job.retry_of or before), revision, digest))
        return ids

    def _known(self, connection: sqlite3.Connection, job: NewJob, digest: str) -> str | None:
        return self.keyed(job.person, job.key) if job.key else _reusable(connection, job, digest)

    def describe(self, costs: Mapping[str, tuple[str, Sequence[str]]]) -> None:
        """Write down recipe key and loads of jobs, by id, that were accepted before any catalog was known."""
        with self._database.transaction() as connection:
            for job_id, (key, loads) in costs.items():
                update_job(connection, job_id, recipe_key=key, loads=" ".join(loads))

    # ---- the way of an attempt ----------------------------------------------------------------------------------------

    def sending(self, claim: Claim) -> Attempt | None:
        """The claim, durable before the POST; None if the job is no longer queued or its cancel was asked.

        Raises:
            StaleEpoch: another feeder has taken the server.
        """
        with self._database.transaction() as connection:
            _check_epoch(connection, claim.server_url, claim.epoch)
            job = connection.execute("SELECT * FROM jobs WHERE id = ?", (claim.job_id,)).fetchone()
            if job is None or job["status"] != JobStatus.QUEUED or job["cancel_asked"]:
                return None
            number, sent = job["attempt"] + 1, Instant.now()
            prompt_id = claim.job_id if number == 1 else str(uuid.uuid4())
            connection.execute(
                "INSERT INTO attempts (job_id, number, prompt_id, reason, server_url, epoch, environment_id, status, instance, sent, graph)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 'submitted', ?, ?, ?)",
                (claim.job_id, number, prompt_id, claim.reason, claim.server_url, claim.epoch, claim.environment_id, claim.instance,
                 rows.instant_text(sent), rows.packed(claim.graph)),
            )  # fmt: skip
            known = json.loads(job["warnings"])
            update_job(
                connection, claim.job_id, status=JobStatus.SUBMITTED, attempt=number, recipe=json.dumps(claim.recipe),
                warnings=json.dumps(known + [text for text in claim.warnings if text not in known]),
            )  # fmt: skip
        return Attempt(
            claim.job_id, number, prompt_id, claim.reason, claim.server_url, JobStatus.SUBMITTED, claim.environment_id, instance=claim.instance, sent=sent
        )  # fmt: skip

    def record(self, attempt: Attempt, epoch: int, status: JobStatus | None = None, **facts: Any) -> bool:
        """Write what was learned of an attempt in flight: acknowledged, queue_number, submitted, started, dropped; False if it is no longer open."""
        values = _columns(facts)
        with self._database.transaction() as connection:
            _check_epoch(connection, attempt.server_url, epoch)
            now = _still_open(connection, attempt)
            if now is None:
                return False
            if status is not None and may_move(now["status"], status):
                values["status"] = status
                update_job(connection, attempt.job_id, status=status)
            elif values:
                update_job(connection, attempt.job_id)
            update(connection, "attempts", "job_id = ? AND number = ?", (attempt.job_id, attempt.number), values)
        return True

    def end(self, attempt: Attempt, epoch: int, outcome: Outcome, **learned: Any) -> bool:
        """Close an attempt with its files, timings and reason, once; False if it was closed before. `learned` is what `record` would have been told.

        Raises:
            StaleEpoch: another feeder has taken the server.
        """
        with self._database.transaction() as connection:
            _check_epoch(connection, attempt.server_url, epoch)
            now = _still_open(connection, attempt)
            if now is None:
                return False
            timings = json.dumps(rows.facts_of(outcome.timings)) if outcome.timings else None
            facts = _columns(learned) | {
                "status": outcome.status, "failure_kind": outcome.failure_kind, "failure_node": outcome.failure_node, "message": _first_line(outcome.error),
                "ended": rows.instant_text(outcome.ended), "run_s": outcome.timings.run_s if outcome.timings else None, "timings": timings,
                "nodes": rows.node_rows(list(outcome.nodes)) if outcome.nodes else None, "reply": rows.packed(outcome.reply) if outcome.reply else None,
            }  # fmt: skip
            update(connection, "attempts", "job_id = ? AND number = ?", (attempt.job_id, attempt.number), facts)
            for file in outcome.files:
                insert(connection, "files", rows.file_values(attempt.job_id, file))
            _insert_etas(connection, attempt, outcome.etas)
            if outcome.status == JobStatus.DONE and facts["run_s"] is not None:
                connection.execute(LONGEST, (attempt.server_url, attempt.job_id, facts["run_s"]))
            known = json.loads(now["warnings"])
            warnings = json.dumps(known + [text for text in outcome.warnings if text not in known])
            if outcome.again and not now["cancel_asked"]:
                update_job(connection, attempt.job_id, status=JobStatus.QUEUED, warnings=warnings)
            else:
                status = JobStatus.CANCELLED if outcome.again else outcome.status
                update_job(
                    connection, attempt.job_id, status=status, ended=rows.instant_text(outcome.ended), error=outcome.error, hint=outcome.hint,
                    failure_kind=outcome.failure_kind, failure_node=outcome.failure_node, warnings=warnings,
                )  # fmt: skip
        return True

    def end_unsent(self, job_id: str, outcome: Outcome) -> bool:
        """Close a job that waits in our line: rejected before it was sent; False if it no longer waits."""
        with self._database.transaction() as connection:
            return _close_queued(connection, job_id, outcome)

    def ask_cancel(self, job_id: str) -> Job:
        """Mark a job to be cancelled; one that waits in our line is cancelled at once, a final one stays as it is."""
        job = self.job(job_id)
        with self._database.transaction() as connection:
            if not _close_queued(connection, job.id, Outcome(JobStatus.CANCELLED)):
                asked = connection.execute("SELECT 1 FROM jobs WHERE id = ? AND cancel_asked = 0 AND ended IS NULL", (job.id,)).fetchone()
                if asked:
                    update_job(connection, job.id, cancel_asked=1)
        return self.job(job.id)

    # ---- servers ------------------------------------------------------------------------------------------------------

    def pause_server(self, url: str, note: str | None = None, *, free: bool = False) -> None:
        """Keep a server for its owner: its feeder sends nothing until `unpause_server`; `free` asks it once to give its memory back."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO servers (url) VALUES (?)", (url,))
            update(connection, "servers", "url = ?", (url,), {"paused_at": time.time(), "paused_note": note, "free_asked": int(free)})

    def unpause_server(self, url: str) -> bool:
        """Let a server be used again; False if it was not paused."""
        with self._database.transaction() as connection:
            values = (None, None, 0, url)
            query = "UPDATE servers SET paused_at = ?, paused_note = ?, free_asked = ? WHERE url = ? AND paused_at IS NOT NULL"
            return connection.execute(query, values).rowcount == 1

    def freed(self, url: str) -> None:
        """Note that a paused server was told to give its memory back."""
        with self._database.transaction() as connection:
            update(connection, "servers", "url = ?", (url,), {"free_asked": 0})

    def take_server(self, url: str) -> int:
        """Raise the server's epoch: from now on the former feeder is refused."""
        with self._database.transaction() as connection:
            query = "INSERT INTO servers (url, epoch) VALUES (?, 1) ON CONFLICT (url) DO UPDATE SET epoch = epoch + 1 RETURNING epoch"
            return int(connection.execute(query, (url,)).fetchone()[0])

    def remember_server(self, url: str, facts: Mapping[str, Any], instance: str | None, catalog: NodeCatalog | None) -> str:
        """Store what a server said of itself and its catalog; returns the id of its configuration, a new one when anything changed.

        A server that goes back to an older version begins a new period, with an id of its own.
        """
        now = time.time()
        blob = rows.packed({"object_info": catalog.object_info, "embeddings": catalog.embeddings}) if catalog is not None else None
        digest = hashlib.sha256(blob).hexdigest()[:16] if blob is not None else None
        with self._database.transaction() as connection:
            before = connection.execute("SELECT environment_id, facts, price_per_hour FROM servers WHERE url = ?", (url,)).fetchone()
            price = before["price_per_hour"] if before else None
            facts = {**facts, **({"price_per_hour": price} if price is not None else {})}
            environment_id = _environment(url, facts, before)
            connection.execute(
                "INSERT INTO servers (url, instance, environment_id, facts, catalog_hash, seen_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (url) DO UPDATE SET instance = excluded.instance, environment_id = excluded.environment_id, facts = excluded.facts,"
                " catalog_hash = coalesce(excluded.catalog_hash, catalog_hash), seen_at = excluded.seen_at",
                (url, instance, environment_id, json.dumps(dict(facts)), digest, now),
            )
            if blob is not None:
                connection.execute("INSERT OR REPLACE INTO catalogs VALUES (?, ?)", (url, blob))
            connection.execute(
                "INSERT INTO environments VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (environment_id) DO UPDATE SET last_seen_at = excluded.last_seen_at,"
                " revision = excluded.revision",
                (environment_id, url, next_revision(connection), json.dumps(dict(facts)), now, now),
            )
        return environment_id

    def name_server(self, url: str, name: str | None, price_per_hour: float | None) -> None:
        """Store the owner's word for a server and what an hour of it costs; the price holds from the next look at the server."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO servers (url) VALUES (?)", (url,))
            update(connection, "servers", "url = ?", (url,), {"name": name, "price_per_hour": price_per_hour})
            next_revision(connection)

    # ---- the home -----------------------------------------------------------------------------------------------------

    def require_room(self) -> None:
        """Refuse new work while the disk is so full that the end of what runs could no longer be written down.

        Raises:
            HomeUnusable: saying how much is left.
        """
        free = shutil.disk_usage(self.home).free
        if free < ROOM_BYTES:
            said = f"The disk of {self.home} is full ({free / 1e6:.1f} MB left)."
            raise HomeUnusable(said, path=str(self.home), hint="Make room; nothing is lost.")

    def release(self) -> None:
        """Let the open jobs of a copied home run from now on."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM meta WHERE key = 'held_to'")

    def back_up(self, target: Path, *, files: bool = True, tell: Tell) -> Backup:
        """Copy the home to a new folder; see backup.py."""
        return back_up(self._database, target, files=files, tell=tell)

    def close(self) -> None:
        """Close this process's connections."""
        self._database.close()


def _reusable(connection: sqlite3.Connection, job: NewJob, digest: str) -> str | None:
    if job.reuse is False or job.retry_of is not None:
        return None
    status = {JobStatus.DONE} | OPEN if job.reuse else OPEN
    marks = ", ".join(f"'{word}'" for word in status)
    query = f"SELECT id FROM jobs WHERE request_hash = ? AND servers = ? AND person = ? AND cancel_asked = 0 AND status IN ({marks})"
    query += f" AND (status = '{JobStatus.DONE}' OR seq > {HELD_TO}) ORDER BY seq DESC LIMIT 1"
    found = connection.execute(query, (digest, json.dumps(list(job.servers)), job.person)).fetchone()
    return str(found[0]) if found else None


def _insert_job(connection: sqlite3.Connection, job: NewJob, revision: int, digest: str) -> str:
    now = Instant.now()
    request = job.request.as_json()
    insert(
        connection,
        "jobs",
        {
            "id": job.id, "revision": revision, "status": JobStatus.QUEUED, "kind": request["kind"], "project": job.request.project, "origin": job.origin,
            "person": job.person, "priority": PRIORITIES.index(job.priority), "servers": json.dumps(list(job.servers)), "group_id": job.group_id,
            "group_name": job.group_name, "retry_of": job.retry_of, "request": json.dumps(request), "request_hash": digest,
            "created_at": now.wall, "created": rows.instant_text(now), "warnings": json.dumps(list(job.warnings)),
            "recipe_key": job.recipe_key, "loads": " ".join(job.loads),
            "key": job.key.word if job.key else None, "key_digest": job.key.digest if job.key else None,
        },
    )  # fmt: skip
    if job.retry_of is not None:  # in a batch the new one takes the place of the old
        connection.execute("UPDATE cells SET job_id = ? WHERE job_id = ?", (job.id, job.retry_of))
    return job.id


def _environment(url: str, facts: Mapping[str, Any], before: sqlite3.Row | None) -> str:
    """The id of a server's configuration: the one it had if nothing changed, else one that tells this period from an earlier equal one."""
    same = json.dumps(dict(facts), sort_keys=True, default=str)
    known = before["environment_id"] if before else None
    if before is not None and known is not None and json.dumps(json.loads(before["facts"]), sort_keys=True) == same:
        return str(known)
    return hashlib.sha256(json.dumps([url, same, known]).encode()).hexdigest()[:12]


def _insert_etas(connection: sqlite3.Connection, attempt: Attempt, etas: Sequence[Eta]) -> None:
    """A moment is predicted once: of two the first stays."""
    if etas:
        (kind,) = connection.execute("SELECT kind FROM jobs WHERE id = ?", (attempt.job_id,)).fetchone()
        whose = {"job_id": attempt.job_id, "attempt": attempt.number, "server_url": attempt.server_url, "kind": kind}
        for eta in etas:
            insert(connection, "etas", {**whose, **rows.eta_values(eta)}, "OR IGNORE")


def _columns(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: rows.instant_text(value) if isinstance(value, Instant) else value for name, value in facts.items()}


def _close_queued(connection: sqlite3.Connection, job_id: str, outcome: Outcome) -> bool:
    now = connection.execute("SELECT status, warnings FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if now is None or now["status"] not in (JobStatus.CREATED, JobStatus.QUEUED) or not may_move(now["status"], outcome.status):
        return False
    known = json.loads(now["warnings"])
    update_job(
        connection, job_id, status=outcome.status, ended=rows.instant_text(outcome.ended), error=outcome.error, hint=outcome.hint,
        failure_kind=outcome.failure_kind, failure_node=outcome.failure_node,
        warnings=json.dumps(known + [text for text in outcome.warnings if text not in known]),
    )  # fmt: skip
    return True


def _check_epoch(connection: sqlite3.Connection, url: str, epoch: int) -> None:
    found = connection.execute("SELECT epoch FROM servers WHERE url = ?", (url,)).fetchone()
    if found is None or found[0] != epoch:
        raise StaleEpoch(f"Another feeder has taken {url}.")


def _still_open(connection: sqlite3.Connection, attempt: Attempt) -> sqlite3.Row | None:
    """The status of an attempt that is still the latest of its job and open, with what its job knows; None otherwise."""
    query = """SELECT attempts.status, warnings, cancel_asked FROM attempts JOIN jobs ON jobs.id = job_id AND jobs.attempt = number
        WHERE job_id = ? AND number = ?"""
    found: sqlite3.Row | None = connection.execute(query, (attempt.job_id, attempt.number)).fetchone()
    return found if found is not None and found["status"] not in FINAL else None


def _first_line(text: str | None) -> str | None:
    return text.splitlines()[0][:500] if text else None
