"""Rows to values and back: the columns of the ledger, once, beside the values they hold.

Owns the schema and the text form of instants, JSON and compressed blobs. Knows neither transactions nor rules.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Mapping, Set
from dataclasses import fields
from pathlib import Path
from typing import Any

from toolkit.jobs import PRIORITIES, Attempt, Eta, Instant, Job, JobStatus, NodeTiming, OpenJob, OutputFile, Rating, Timings
from toolkit.ledger.entries import PastRun
from toolkit.requests import parse_request

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE counter (revision INTEGER NOT NULL);
INSERT INTO counter VALUES (0);
CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL, status TEXT NOT NULL, kind TEXT NOT NULL,
  project TEXT NOT NULL, origin TEXT NOT NULL, person TEXT NOT NULL, priority INTEGER NOT NULL, servers TEXT NOT NULL,
  group_id TEXT, group_name TEXT, retry_of TEXT, request TEXT NOT NULL, request_hash TEXT NOT NULL, cancel_asked INTEGER NOT NULL DEFAULT 0,
  created_at REAL NOT NULL, created TEXT NOT NULL, ended TEXT, attempt INTEGER NOT NULL DEFAULT 0,
  error TEXT, hint TEXT, failure_kind TEXT, failure_node TEXT, warnings TEXT NOT NULL DEFAULT '[]', recipe TEXT NOT NULL DEFAULT '{}');
CREATE INDEX jobs_open ON jobs(seq) WHERE status IN ('created', 'queued', 'submitted', 'running', 'collecting');
CREATE INDEX jobs_revision ON jobs(revision);
CREATE INDEX jobs_created ON jobs(created_at);
CREATE INDEX jobs_request ON jobs(request_hash);
CREATE INDEX jobs_group ON jobs(group_id) WHERE group_id IS NOT NULL;
CREATE TABLE attempts (
  job_id TEXT NOT NULL REFERENCES jobs(id), number INTEGER NOT NULL, prompt_id TEXT NOT NULL UNIQUE, reason TEXT NOT NULL,
  server_url TEXT NOT NULL, epoch INTEGER NOT NULL, environment_id TEXT, status TEXT NOT NULL, acknowledged INTEGER NOT NULL DEFAULT 0,
  queue_number REAL, instance TEXT, failure_kind TEXT, failure_node TEXT, message TEXT, sent TEXT, submitted TEXT, started TEXT, ended TEXT,
  run_s REAL, timings TEXT, graph BLOB NOT NULL, nodes BLOB, PRIMARY KEY (job_id, number));
CREATE INDEX attempts_open ON attempts(server_url) WHERE status IN ('submitted', 'running', 'collecting');
CREATE TABLE files (
  job_id TEXT NOT NULL REFERENCES jobs(id), number INTEGER NOT NULL, attempt INTEGER NOT NULL, node_id TEXT NOT NULL, name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL, media_type TEXT NOT NULL, size_bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, width INTEGER, height INTEGER,
  frames INTEGER, fps REAL, cached INTEGER NOT NULL, temporary INTEGER NOT NULL, blank INTEGER, disk TEXT NOT NULL DEFAULT 'present',
  stored_at REAL NOT NULL, PRIMARY KEY (job_id, number));
CREATE TABLE servers (
  url TEXT PRIMARY KEY, epoch INTEGER NOT NULL DEFAULT 0, instance TEXT, environment_id TEXT, facts TEXT, catalog BLOB, catalog_hash TEXT,
  seen_at REAL) WITHOUT ROWID;
CREATE TABLE environments (
  environment_id TEXT PRIMARY KEY, server_url TEXT NOT NULL, revision INTEGER NOT NULL, facts TEXT NOT NULL,
  first_seen_at REAL NOT NULL, last_seen_at REAL NOT NULL) WITHOUT ROWID
"""

FAULTS_AND_PAUSES = """
ALTER TABLE attempts ADD COLUMN dropped TEXT NOT NULL DEFAULT '[]';
ALTER TABLE attempts ADD COLUMN reply BLOB;
ALTER TABLE servers ADD COLUMN paused_at REAL;
ALTER TABLE servers ADD COLUMN paused_note TEXT;
ALTER TABLE servers ADD COLUMN free_asked INTEGER NOT NULL DEFAULT 0
"""

ETAS_AND_RATINGS = """
CREATE TABLE etas (
  job_id TEXT NOT NULL REFERENCES jobs(id), attempt INTEGER NOT NULL, moment TEXT NOT NULL, target TEXT NOT NULL, basis TEXT NOT NULL,
  server_url TEXT NOT NULL, kind TEXT NOT NULL, made_at REAL NOT NULL, made TEXT NOT NULL, expected_s REAL NOT NULL, low_s REAL NOT NULL,
  high_s REAL NOT NULL, actual_s REAL, PRIMARY KEY (job_id, attempt, moment, target)) WITHOUT ROWID;
CREATE INDEX etas_known ON etas(server_url, kind, moment, target, made_at) WHERE actual_s IS NOT NULL;
CREATE TABLE ratings (
  job_id TEXT NOT NULL REFERENCES jobs(id), output INTEGER NOT NULL, person TEXT NOT NULL, verdict TEXT, stars INTEGER,
  reasons TEXT NOT NULL DEFAULT '[]', comment TEXT, rated_at REAL NOT NULL);
CREATE INDEX ratings_job ON ratings(job_id)
"""

RECIPES = """
ALTER TABLE jobs ADD COLUMN recipe_key TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN loads TEXT NOT NULL DEFAULT ''
"""

# A million jobs: what is counted, listed or compared over all of them is kept beside them, since a row of jobs or attempts is kilobytes long.
# `tallies` are kept by SQLite itself, so that no way of changing a status can forget them; inside a trigger no statement ends its line.
TALLIES_AND_OWNERS_WORDS = """
CREATE TABLE tallies (
  project TEXT NOT NULL, kind TEXT NOT NULL, status TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (project, kind, status)) WITHOUT ROWID;
INSERT INTO tallies SELECT project, kind, status, count(*) FROM jobs GROUP BY project, kind, status;
CREATE TRIGGER tally_new AFTER INSERT ON jobs BEGIN
  INSERT INTO tallies VALUES (new.project, new.kind, new.status, 1) ON CONFLICT DO UPDATE SET count = count + 1; END;
CREATE TRIGGER tally_moved AFTER UPDATE OF status ON jobs WHEN old.status <> new.status BEGIN
  UPDATE tallies SET count = count - 1 WHERE project = old.project AND kind = old.kind AND status = old.status; INSERT INTO tallies
  VALUES (new.project, new.kind, new.status, 1) ON CONFLICT DO UPDATE SET count = count + 1; END;
CREATE INDEX jobs_listed ON jobs(project, kind, status);
CREATE INDEX jobs_named ON jobs(group_name, group_id) WHERE group_name IS NOT NULL;
CREATE INDEX attempts_witness ON attempts(server_url) WHERE status IN ('done', 'done_partial', 'failed');
CREATE TABLE longest (server_url TEXT NOT NULL, kind TEXT NOT NULL, run_s REAL NOT NULL, PRIMARY KEY (server_url, kind)) WITHOUT ROWID;
INSERT INTO longest SELECT server_url, kind, max(run_s) FROM attempts JOIN jobs ON jobs.id = job_id
  WHERE attempts.status = 'done' AND run_s IS NOT NULL GROUP BY server_url, kind;
ALTER TABLE servers ADD COLUMN name TEXT;
ALTER TABLE servers ADD COLUMN price_per_hour REAL
"""

BATCHES_AND_DELETIONS = """
CREATE TABLE batches (
  group_id TEXT PRIMARY KEY, name TEXT NOT NULL, base TEXT NOT NULL, seed TEXT, axes TEXT NOT NULL, created_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX batches_base ON batches(base, created_at);
CREATE TABLE cells (group_id TEXT NOT NULL, place INTEGER NOT NULL, job_id TEXT NOT NULL, axes TEXT NOT NULL, PRIMARY KEY (group_id, place)) WITHOUT ROWID;
CREATE INDEX cells_job ON cells(job_id);
CREATE TABLE deleted (job_id TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX deleted_revision ON deleted(revision);
CREATE TRIGGER tally_gone AFTER DELETE ON jobs BEGIN
  UPDATE tallies SET count = count - 1 WHERE project = old.project AND kind = old.kind AND status = old.status; END
"""

# `keys` holds digests of codes (once, by link), sessions (cookies) and tokens (bearers), never the secrets themselves
PEOPLE = """
CREATE TABLE people (
  name TEXT PRIMARY KEY COLLATE NOCASE, is_owner INTEGER NOT NULL, quota TEXT NOT NULL DEFAULT '{}', added_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE keys (
  digest BLOB PRIMARY KEY, person TEXT NOT NULL REFERENCES people(name) ON DELETE CASCADE, kind TEXT NOT NULL, made_at REAL NOT NULL,
  expires_at REAL) WITHOUT ROWID;
CREATE INDEX keys_person ON keys(person);
CREATE TABLE uploads (person TEXT NOT NULL, at REAL NOT NULL, size_bytes INTEGER NOT NULL);
CREATE INDEX uploads_recent ON uploads(person, at);
CREATE INDEX jobs_person ON jobs(person, created_at) WHERE person <> 'owner'
"""

# A caller's key lies in the job's own row, so that no crash can part the two.
CALLERS_KEYS = """
ALTER TABLE jobs ADD COLUMN key TEXT;
ALTER TABLE jobs ADD COLUMN key_digest TEXT;
CREATE UNIQUE INDEX jobs_key ON jobs(person, key) WHERE key IS NOT NULL
"""

# A feeder looks at its server's row at every turn of the line; hundreds of kilobytes in the middle of it are pages to be walked over each time.
CATALOGS_ASIDE = """
CREATE TABLE catalogs (server_url TEXT PRIMARY KEY, catalog BLOB NOT NULL);
INSERT INTO catalogs SELECT url, catalog FROM servers WHERE catalog IS NOT NULL;
ALTER TABLE servers DROP COLUMN catalog
"""

# never change one that was released: append
MIGRATIONS = (SCHEMA, FAULTS_AND_PAUSES, ETAS_AND_RATINGS, RECIPES, TALLIES_AND_OWNERS_WORDS, BATCHES_AND_DELETIONS, PEOPLE, CALLERS_KEYS, CATALOGS_ASIDE)

SHORT = json.JSONEncoder(separators=(",", ":"))  # made once: `json.dumps` makes one for each call with options
FILE_COLUMNS = tuple(f.name for f in fields(OutputFile) if f.name != "path")
JOB_QUERY = """
SELECT jobs.*, attempts.server_url, attempts.submitted, attempts.sent, attempts.started, attempts.timings FROM jobs
LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.number = jobs.attempt
"""


def listed(statuses: Set[JobStatus]) -> str:
    """Statuses for `IN (...)`, in the order of the indexes: SQLite uses a partial index only where its condition is repeated to the letter."""
    return ", ".join(f"'{status}'" for status in JobStatus if status in statuses)


def instant_text(instant: Instant | None) -> str | None:
    """`wall mono boot` in one column."""
    return None if instant is None else f"{instant.wall!r} {instant.mono!r} {instant.boot}"


def read_instant(text: str | None) -> Instant | None:
    """The instant of such a column."""
    if text is None:
        return None
    wall, mono, boot = text.split(" ")
    return Instant(float(wall), None if mono == "None" else float(mono), None if boot == "None" else boot)


def facts_of(value: NodeTiming | Timings) -> dict[str, Any]:
    """The fields of a flat value; `asdict` copies each of them, which takes ten times as long."""
    return {name: getattr(value, name) for name in value.__slots__}


def packed(value: Any) -> bytes:
    """JSON, compressed: graphs shrink to a fifth."""
    return zlib.compress(SHORT.encode(value).encode(), 6)


def unpacked(blob: bytes | None) -> Any:
    """The value of a compressed column; None for NULL."""
    return None if blob is None else json.loads(zlib.decompress(blob))


def read_job(row: sqlite3.Row, files: list[OutputFile]) -> Job:
    """A Job from a row of JOB_QUERY and its files."""
    timings = json.loads(row["timings"]) if row["timings"] else None
    return Job(
        id=row["id"],
        seq=row["seq"],
        revision=row["revision"],
        request=parse_request(json.loads(row["request"])),
        status=row["status"],
        created=_present(read_instant(row["created"])),
        priority=PRIORITIES[row["priority"]],
        origin=row["origin"],
        person=row["person"],
        servers=tuple(json.loads(row["servers"])),
        group_id=row["group_id"],
        group_name=row["group_name"],
        retry_of=row["retry_of"],
        cancel_asked=bool(row["cancel_asked"]),
        server_url=row["server_url"],
        attempt=row["attempt"],
        submitted=read_instant(row["submitted"] or row["sent"]),
        started=read_instant(row["started"]),
        ended=read_instant(row["ended"]),
        timings=Timings(**timings) if timings else None,
        files=tuple(files),
        warnings=tuple(json.loads(row["warnings"])),
        error=row["error"],
        hint=row["hint"],
        failure_kind=row["failure_kind"],
        failure_node=row["failure_node"],
        **_recipe(json.loads(row["recipe"]), row),
    )


def _recipe(recipe: dict[str, Any], row: sqlite3.Row) -> dict[str, Any]:
    asked = json.loads(row["request"])
    simulated = bool(recipe.get("simulated", json.loads(row["servers"]) == ["engine"]))
    return {"recipe": recipe, "prompt": recipe.get("prompt") or asked.get("prompt") or "", "simulated": simulated}


def _present(instant: Instant | None) -> Instant:
    assert instant is not None
    return instant


def read_open_job(row: sqlite3.Row) -> OpenJob:
    """What ordering needs, without parsing the request."""
    return OpenJob(
        row["seq"],
        row["id"],
        row["status"],
        row["kind"],
        row["priority"],
        row["person"],
        tuple(json.loads(row["servers"])),
        row["created_at"],
        bool(row["cancel_asked"]),
        row["attempt"],
        row["server_url"],
        row["recipe_key"],
        tuple(row["loads"].split()),
    )


def read_attempt(row: sqlite3.Row) -> Attempt:
    """An Attempt; graph, nodes and timings stay in the row."""
    return Attempt(
        row["job_id"],
        row["number"],
        row["prompt_id"],
        row["reason"],
        row["server_url"],
        row["status"],
        row["environment_id"],
        bool(row["acknowledged"]),
        row["queue_number"],
        row["instance"],
        row["failure_kind"],
        row["failure_node"],
        row["message"],
        read_instant(row["sent"]),
        read_instant(row["submitted"]),
        read_instant(row["started"]),
        read_instant(row["ended"]),
        row["run_s"],
        tuple(json.loads(row["dropped"])),
    )


def read_file(row: sqlite3.Row, projects: Path) -> OutputFile:
    """An OutputFile with its absolute path."""
    values: dict[str, Any] = {name: row[name] for name in FILE_COLUMNS}
    values |= {name: bool(values[name]) for name in ("cached", "temporary")}
    values["blank"] = None if values["blank"] is None else bool(values["blank"])
    return OutputFile(path=str((bin_of(projects) if row["disk"] == "trashed" else projects) / row["name"]), **values)


def bin_of(projects: Path) -> Path:
    """Where trashed files wait, each under its name below projects."""
    return projects.with_name("trash")


def file_values(job_id: str, file: OutputFile) -> Mapping[str, Any]:
    """The row of a file."""
    return {"job_id": job_id, **{name: getattr(file, name) for name in FILE_COLUMNS}}


def read_past_run(row: sqlite3.Row) -> PastRun:
    """A PastRun."""
    nodes = [NodeTiming(**node) for node in unpacked(row["nodes"])]
    fetch_s = json.loads(row["timings"] or "{}").get("fetch_s")
    return PastRun(row["seq"], row["priority"], row["kind"], unpacked(row["graph"]), nodes, row["run_s"], fetch_s)


def eta_values(eta: Eta) -> Mapping[str, Any]:
    """The columns of a prediction that are its own."""
    own = {name: getattr(eta, name) for name in ("moment", "target", "basis", "expected_s", "low_s", "high_s", "actual_s")}
    return {**own, "made_at": eta.made.wall, "made": instant_text(eta.made)}


def read_eta(row: sqlite3.Row) -> Eta:
    """An Eta; whose it is stays in the row."""
    made = _present(read_instant(row["made"]))
    return Eta(row["moment"], row["target"], row["basis"], made, row["expected_s"], row["low_s"], row["high_s"], row["actual_s"])


def read_rating(row: sqlite3.Row) -> Rating:
    """A Rating."""
    reasons = tuple(json.loads(row["reasons"]))
    return Rating(row["job_id"], row["output"], row["person"], row["verdict"], row["stars"], reasons, row["comment"], row["rated_at"])


def node_rows(nodes: list[NodeTiming]) -> bytes:
    """All nodes of an attempt in one compressed column."""
    return packed([facts_of(node) for node in nodes])
