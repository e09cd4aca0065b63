"""Jobs that ended without us: what others run on our servers, and what older files tell of. Final from the start, each once.

Owns when such a job is known already: by its id or prompt id, also where it was deleted here. Nothing is ever sent for one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from toolkit.jobs import PRIORITIES
from toolkit.ledger import rows
from toolkit.ledger.entries import Elsewhere
from toolkit.ledger.keeping import Keeper
from toolkit.ledger.writing import insert, next_revision

KNOWN = "SELECT 1 FROM jobs WHERE id = ?1 UNION ALL SELECT 1 FROM deleted WHERE job_id = ?1 UNION ALL SELECT 1 FROM attempts WHERE prompt_id = ?2 LIMIT 1"


class Chronicle(Keeper):
    """The part of a ledger that tells of what happened elsewhere."""

    def chronicle(self, *found: Elsewhere) -> list[str]:
        """Write down the jobs that are not known yet, all or none; returns their ids."""
        with self._database.transaction() as connection:
            return list(self._written(connection, found))

    def knows(self, prompt_id: str) -> bool:
        """Whether a prompt is ours, or was observed."""
        return bool(self._database.rows(KNOWN, prompt_id, prompt_id))

    def file_hashes(self) -> set[str]:
        """The sha256 of every file of every job."""
        return {row[0] for row in self._database.rows("SELECT sha256 FROM files")}

    def _written(self, connection: sqlite3.Connection, found: Sequence[Elsewhere]) -> Iterator[str]:
        for one in found:
            if connection.execute(KNOWN, (one.id, one.prompt_id)).fetchone() is not None:
                continue
            insert(connection, "jobs", _job(one, next_revision(connection), self.hash_of(one.request)))
            if one.server_url is not None:
                insert(connection, "attempts", _attempt(one))
            for file in one.outcome.files:
                insert(connection, "files", rows.file_values(one.id, file))
            yield one.id


def _job(one: Elsewhere, revision: int, digest: str) -> dict[str, object]:
    """The row of jobs: nobody of this home asked for it."""
    request = one.request.as_json()
    return {
        "id": one.id, "revision": revision, "status": one.outcome.status, "kind": request["kind"], "project": one.request.project, "origin": one.origin,
        "person": "", "priority": PRIORITIES.index("normal"), "servers": json.dumps([one.server_url] if one.server_url else []),
        "request": json.dumps(request), "request_hash": digest, "created_at": one.created.wall, "created": rows.instant_text(one.created),
        "ended": rows.instant_text(one.outcome.ended), "attempt": 1, "error": one.outcome.error, "hint": one.outcome.hint,
        "failure_kind": one.outcome.failure_kind, "failure_node": one.outcome.failure_node, "recipe": json.dumps(dict(one.recipe)),
    }  # fmt: skip


def _attempt(one: Elsewhere) -> dict[str, object]:
    timings = one.outcome.timings
    return {
        "job_id": one.id, "number": 1, "prompt_id": one.prompt_id, "reason": "first", "server_url": one.server_url, "epoch": 0,
        "environment_id": one.environment_id, "status": one.outcome.status, "acknowledged": 1, "failure_kind": one.outcome.failure_kind,
        "failure_node": one.outcome.failure_node, "message": (one.outcome.error or "").partition("\n")[0][:500] or None,
        "submitted": rows.instant_text(one.submitted), "started": rows.instant_text(one.started), "ended": rows.instant_text(one.outcome.ended),
        "run_s": timings.run_s if timings else None, "timings": json.dumps(asdict(timings)) if timings else None, "graph": rows.packed(one.graph),
    }  # fmt: skip
