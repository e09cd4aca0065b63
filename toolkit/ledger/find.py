"""Finding in the ledger: jobs by id, filter or revision, attempts, servers. Reads only; rows are fetched whole."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rapidfuzz import process as fuzzy

from toolkit.errors import JobUnknown, KeyReused
from toolkit.graph import NodeCatalog
from toolkit.jobs import FINAL, IN_FLIGHT, OPEN, Attempt, Eta, Job, JobStatus, OpenJob, OutputFile, Rating
from toolkit.ledger import rows
from toolkit.ledger.database import Database
from toolkit.ledger.entries import Key, PastRun, Pause, ServerFacts, Try
from toolkit.ledger.line import Line
from toolkit.ledger.origin import HELD_TO
from toolkit.requests import Request

JOB_IDS = "SELECT id, revision FROM jobs WHERE id >= ? AND id < ?%s ORDER BY id LIMIT 20"
OF_PERSON = "person = ? AND person <> 'owner'"  # the words of the partial index
ELSEWHERE = "'observed', 'imported'"
REMEMBERED = 1000  # jobs kept as they were last read: a hundred callers that ask for one ten times a second read its revision alone
# one short walk in the index for each project, kind and status that the filters let through: a rare one is found among a million at once
NEWEST_OF_EACH = """SELECT newest.seq FROM (SELECT * FROM tallies WHERE %s) AS tally JOIN jobs AS newest ON newest.seq IN (
    SELECT seq FROM jobs AS one INDEXED BY jobs_listed
    WHERE one.project = tally.project AND one.kind = tally.kind AND one.status = tally.status AND seq < ? ORDER BY seq DESC LIMIT ?)"""


class Finder:
    """The reading half of a ledger."""

    def __init__(self, home: Path, database: Database) -> None:
        self.home = home
        self.projects = home / "projects"
        self._database = database
        self._read: dict[str, Job] = {}

    # ---- find ---------------------------------------------------------------------------------------------------------

    def job(self, job_id: str, person: str | None = None) -> Job:
        """The job whose id is, or unambiguously begins with, `job_id`; with `person` among their own jobs, as if there were no others.

        Raises:
            JobUnknown: no job, or several, which it lists.
        """
        whose, values = (f" AND {OF_PERSON}", [person]) if person is not None else ("", [])
        found = self._database.rows(JOB_IDS % whose, job_id, job_id + "\U0010ffff", *values)
        matches = [row["id"] for row in found if row["id"] == job_id] or [row["id"] for row in found]
        if not job_id or not matches:
            raise JobUnknown(f"There is no job '{job_id[:40]}' in {self.home}.", hint="`toolkit jobs` lists them.")
        if len(matches) > 1:
            raise JobUnknown(f"'{job_id}' begins several ids: {', '.join(matches[:5])}.", matches=matches, hint="Give more of it.")
        revision = next(row["revision"] for row in found if row["id"] == matches[0])
        return self._job_at(matches[0], revision) or self.job(matches[0], person)

    def _job_at(self, job_id: str, revision: int) -> Job | None:
        """The job at this revision, from memory if it was read before; None if it changed meanwhile, so that its files may be older than it is."""
        known = self._read.get(job_id)
        if known is not None and known.revision == revision:
            return known
        found = [job for job in self._jobs("jobs.id IN (%s)", [job_id]) if job.revision == revision]
        if len(self._read) >= REMEMBERED:
            self._read.clear()
        self._read.update({job.id: job for job in found})
        return found[0] if found else None

    def remembered(self, job_id: str) -> Job | None:
        """The job of this whole id if it was read before and has not changed since: one look-up in an index, short enough for an event loop."""
        known = self._read.get(job_id)
        found = self._database.rows("SELECT revision FROM jobs WHERE id = ?", job_id) if known is not None else []
        return known if found and known is not None and known.revision == found[0]["revision"] else None

    def keyed(self, person: str, key: Key) -> str | None:
        """The id of the job that was accepted from this person under this key.

        Raises:
            KeyReused: it was another request.
        """
        found = self._database.rows("SELECT id, key_digest FROM jobs WHERE person = ? AND key = ?", person, key.word)
        if found and found[0]["key_digest"] != key.digest:
            said = f"The key '{key.word[:60]}' was used for another request, job {found[0]['id'][:8]}."
            raise KeyReused(said, hint="Take a new key for a new request; the old one with the same body finds its job.", field="Idempotency-Key")
        return str(found[0]["id"]) if found else None

    def these(self, ids: Iterable[str]) -> list[Job]:
        """The jobs with these ids that are there, each once, in the order they were accepted."""
        return sorted(self._jobs("jobs.id IN (%s)", list(dict.fromkeys(ids))), key=lambda job: job.seq)

    def files(self, disk: str) -> list[tuple[str, OutputFile]]:
        """The files that are `present`, `trashed` or `missing`, each with its job's id, newest first."""
        found = self._database.rows("SELECT * FROM files WHERE disk = ? ORDER BY stored_at DESC", disk)
        return [(row["job_id"], rows.read_file(row, self.projects)) for row in found]

    def latest(self, index: int = -1) -> Job:
        """A job by its place among those that were asked for here: -1 is the newest."""
        query = f"SELECT id FROM jobs WHERE origin NOT IN ({ELSEWHERE}) ORDER BY seq DESC LIMIT 1 OFFSET ?"
        found = self._database.rows(query, -index - 1) if index < 0 else []
        if not found:
            raise JobUnknown(f"There is no job {index} in {self.home}.")
        return self.job(found[0]["id"])

    def jobs(
        self, *, status: str | None = None, project: str | None = None, kind: str | None = None, since: float | None = None,
        before_seq: int | None = None, person: str | None = None, limit: int = 20,
    ) -> list[Job]:  # fmt: skip
        """The newest jobs first; `status` is one status, `open` or `final`; `person` is a guest's name."""
        where, values = _filters(status, project, kind)
        if where != "1" and since is None and person is None:
            where, values = f"seq IN ({NEWEST_OF_EACH % where})", [*values, 2**62 if before_seq is None else before_seq, limit]
        if since is not None:  # the first condition ends the walk, the second is exact where a clock was set
            where, values = (
                f"{where} AND seq >= (SELECT min(seq) FROM jobs INDEXED BY jobs_created WHERE created_at >= ?) AND created_at >= ?",
                [*values, since, since],
            )
        for condition, value in (("seq < ?", before_seq), (OF_PERSON, person)):
            if value is not None:
                where, values = f"{where} AND {condition}", [*values, value]
        found = self._database.rows(f"SELECT id FROM jobs WHERE {where} ORDER BY seq DESC LIMIT ?", *values, limit)
        return sorted(self._jobs("jobs.id IN (%s)", [row["id"] for row in found]), key=lambda job: -job.seq)

    def count(self, *, status: str | None = None, project: str | None = None, kind: str | None = None, person: str | None = None) -> int:
        """How many jobs these filters let through."""
        where, values = _filters(status, project, kind)
        if person is not None:
            return int(self._database.rows(f"SELECT count(*) FROM jobs WHERE {OF_PERSON} AND {where}", person, *values)[0][0])
        return int(self._database.rows(f"SELECT coalesce(sum(count), 0) FROM tallies WHERE {where}", *values)[0][0])

    def counts(self, person: str | None = None) -> dict[str, int]:
        """How many jobs are in each status, everybody's or a guest's."""
        if person is not None:
            return dict(tuple(row) for row in self._database.rows(f"SELECT status, count(*) FROM jobs WHERE {OF_PERSON} GROUP BY status", person))
        return {row[0]: row[1] for row in self._database.rows("SELECT status, sum(count) FROM tallies WHERE count > 0 GROUP BY status")}

    def changed_since(self, revision: int, wanted: Callable[[str], bool] = lambda job_id: True) -> tuple[int, list[Job]]:
        """The jobs changed after this revision whose ids are `wanted`, asked once they are known, and the revision that covers all."""
        found = self._database.rows("SELECT id, revision FROM jobs WHERE revision > ? ORDER BY revision", revision)
        latest = max((row["revision"] for row in found), default=revision)
        return latest, self._jobs("jobs.id IN (%s)", [row["id"] for row in found if wanted(row["id"])])

    def owns(self, person: str, *, job_id: str | None = None, file: str | None = None) -> bool:
        """Whether this very job, by its whole id, or this file below the projects folder is of a guest."""
        where, value = ("id = ?", job_id) if file is None else ("id = (SELECT job_id FROM files WHERE name = ?)", file)
        return bool(self._database.rows(f"SELECT 1 FROM jobs WHERE {where} AND person = ?", value, person))

    def open_jobs(self) -> list[OpenJob]:
        """All jobs that are not final nor held, in the order they were accepted."""
        return self.line().jobs()

    def line(self) -> Line:
        """The same for who asks at each change, on one thread."""
        return Line(self._database)

    def held_to(self) -> int:
        """In a copied home, the place in the line up to which open jobs are held until `release`; 0 elsewhere."""
        return int(self._database.rows(f"SELECT {HELD_TO}")[0][0])

    def held(self) -> int:
        """How many open jobs are held because this home is a copy."""
        where, values = _filters("open", None, None)
        return int(self._database.rows(f"SELECT count(*) FROM jobs WHERE {where} AND seq <= {HELD_TO}", *values)[0][0])

    def revision(self) -> int:
        """The revision of the whole ledger."""
        return int(self._database.rows("SELECT revision FROM counter")[0][0])

    def data_version(self) -> int:
        """Changes when another process or thread wrote; cheap to poll."""
        return self._database.data_version()

    def attempt(self, job_id: str) -> Attempt | None:
        """The latest attempt of a job."""
        found = self._database.rows("SELECT * FROM attempts WHERE job_id = ? ORDER BY number DESC LIMIT 1", job_id)
        return rows.read_attempt(found[0]) if found else None

    def graph(self, job_id: str, number: int | None = None) -> dict[str, Any]:
        """The graph an attempt sent, the latest one's by default; empty if none was sent."""
        found = self._database.rows("SELECT graph FROM attempts WHERE job_id = ? AND number = coalesce(?, number) ORDER BY number DESC LIMIT 1", job_id, number)
        return rows.unpacked(found[0]["graph"]) if found else {}

    def in_flight(self, server_url: str) -> list[Attempt]:
        """The attempts that were sent to this server and have not ended."""
        query = f"""SELECT attempts.* FROM attempts JOIN jobs ON jobs.id = attempts.job_id AND jobs.attempt = attempts.number
            WHERE server_url = ? AND attempts.status IN ({rows.listed(IN_FLIGHT)}) AND jobs.seq > {HELD_TO} ORDER BY jobs.seq"""
        return [rows.read_attempt(row) for row in self._database.rows(query, server_url)]

    def hash_of(self, request: Request) -> str:
        """Equal for requests that are equal field by field, seed included."""
        return hashlib.sha256(json.dumps(request.as_json(), sort_keys=True).encode()).hexdigest()[:32]

    def has_equal(self, request: Request, person: str | None = None) -> bool:
        """Whether a job with an equal request is open or done, anybody's or a guest's own."""
        whose, values = (f" AND {OF_PERSON}", [person]) if person is not None else ("", [])
        query = f"SELECT 1 FROM jobs WHERE request_hash = ? AND cancel_asked = 0 AND status IN ({rows.listed(OPEN | {JobStatus.DONE})}){whose} LIMIT 1"
        return bool(self._database.rows(query, self.hash_of(request), *values))

    def group(self, name: str) -> tuple[str, str]:
        """Id and name of the latest group of this name.

        Raises:
            JobUnknown: there is none.
        """
        found = self._database.rows("SELECT group_id, group_name FROM jobs WHERE group_name = ? ORDER BY seq DESC LIMIT 1", name)
        if not found:
            known = [row[0] for row in self._database.rows("SELECT DISTINCT group_name FROM jobs WHERE group_name IS NOT NULL")]
            near = fuzzy.extractOne(name, known, score_cutoff=60)
            raise JobUnknown(f"There is no batch '{name[:60]}' in {self.home}.", hint=f"Did you mean '{near[0]}'?" if near else None)
        return found[0][0], found[0][1]

    def longest_run_s(self, kind: str, server_url: str) -> float | None:
        """The longest time that a job of this kind ever ran on this server before it ended well, in seconds."""
        found = self._database.rows("SELECT run_s FROM longest WHERE server_url = ? AND kind = ?", server_url, kind)
        return found[0][0] if found else None

    def past_runs(self, server_url: str, limit: int) -> list[PastRun]:
        """The last runs that ended well on this server and were watched, oldest first."""
        query = """SELECT seq, priority, kind, graph, nodes, run_s, timings FROM attempts JOIN jobs ON jobs.id = job_id
            WHERE attempts.server_url = ? AND attempts.status = 'done' AND nodes IS NOT NULL ORDER BY attempts.rowid DESC LIMIT ?"""
        return [rows.read_past_run(row) for row in reversed(self._database.rows(query, server_url, limit))]

    def etas(self, server_url: str, kind: str, moment: str, target: str, limit: int = 50) -> list[Eta]:
        """What was predicted at this moment for jobs of this kind that this server then did, newest first; each with what it was."""
        query = """SELECT etas.* FROM etas JOIN attempts ON attempts.job_id = etas.job_id AND attempts.number = etas.attempt
            WHERE etas.server_url = ? AND kind = ? AND moment = ? AND target = ? AND actual_s IS NOT NULL AND attempts.status = 'done'
            ORDER BY made_at DESC LIMIT ?"""
        return [rows.read_eta(row) for row in self._database.rows(query, server_url, kind, moment, target, limit)]

    def witness(self, server_url: str) -> str | None:
        """The prompt that ended last on this server: its history has it unless it restarted."""
        query = "SELECT prompt_id FROM attempts WHERE server_url = ? AND status IN ('done', 'done_partial', 'failed') ORDER BY rowid DESC LIMIT 1"
        found = self._database.rows(query, server_url)
        return found[0]["prompt_id"] if found else None

    def server(self, url: str) -> ServerFacts | None:
        """What is known of a server; None if no feeder ever looked at it."""
        found = self._database.rows("SELECT url, epoch, instance, environment_id, facts, seen_at FROM servers WHERE url = ?", url)
        if not found:
            return None
        row = found[0]
        return ServerFacts(row[0], row[1], row[2], row[3], json.loads(row["facts"] or "{}"), row["seen_at"])

    def pause(self, url: str) -> Pause | None:
        """Whether a server is kept for its owner."""
        return self.epoch_and_pause(url)[1]

    def epoch_and_pause(self, url: str) -> tuple[int, Pause | None]:
        """What a feeder looks at before each turn of its line: whose the server is, 0 if nobody's, and whether it is kept for its owner."""
        for epoch, paused_at, note, free_asked in self._database.rows("SELECT epoch, paused_at, paused_note, free_asked FROM servers WHERE url = ?", url):
            return epoch, None if paused_at is None else Pause(note, bool(free_asked))
        return 0, None

    def reply(self, job_id: str) -> dict[str, Any] | None:
        """What the server answered when it refused the latest attempt of a job, whole."""
        found = self._database.rows("SELECT reply FROM attempts WHERE job_id = ? ORDER BY number DESC LIMIT 1", job_id)
        return rows.unpacked(found[0]["reply"]) if found else None

    def catalog_hash(self, url: str) -> str | None:
        """Which catalog of a server `catalog` would read; None if it was never looked at."""
        found = self._database.rows("SELECT catalog_hash FROM servers WHERE url = ?", url)
        return found[0][0] if found else None

    def catalog(self, url: str) -> NodeCatalog | None:
        """What the server can run, as last seen."""
        found = self._database.rows("SELECT catalog FROM catalogs WHERE server_url = ?", url)
        data = rows.unpacked(found[0]["catalog"]) if found else None
        return NodeCatalog(data.get("object_info", data), data.get("embeddings")) if data is not None else None

    # ---- for the log --------------------------------------------------------------------------------------------------

    def history_since(self, revision: int, limit: int = 5000) -> list[tuple[Job, list[Try]]]:
        """Jobs changed after a revision, oldest change first, each with its attempts, their nodes and what was predicted of them.

        Fewer than `limit` are all there are; more come where the last revision is one of many jobs, which are never parted.
        """
        last = "SELECT revision FROM jobs WHERE revision > ? ORDER BY revision LIMIT 1 OFFSET ?"
        query = f"SELECT id FROM jobs WHERE revision > ? AND revision <= coalesce(({last}), {2**62}) ORDER BY revision"
        found = self._database.rows(query, revision, revision, limit - 1)
        jobs = sorted(self._jobs("jobs.id IN (%s)", [row["id"] for row in found]), key=lambda job: job.revision)
        tries: dict[str, list[Try]] = {job.id: [] for job in jobs}
        etas: dict[tuple[str, int], list[Eta]] = {}
        for row in self._of_jobs("SELECT * FROM etas WHERE job_id IN (%s) ORDER BY job_id, attempt, made_at", list(tries)):
            etas.setdefault((row["job_id"], row["attempt"]), []).append(rows.read_eta(row))
        for row in self._of_jobs("SELECT * FROM attempts WHERE job_id IN (%s) ORDER BY job_id, number", list(tries)):
            made = etas.get((row["job_id"], row["number"]), [])
            tries[row["job_id"]].append(Try(rows.read_attempt(row), rows.unpacked(row["nodes"]) or [], made))
        return [(job, tries[job.id]) for job in jobs]

    def ratings(self, job_ids: Sequence[str]) -> list[Rating]:
        """Every judgement of the outputs of these jobs, oldest first."""
        query = "SELECT * FROM ratings WHERE job_id IN (%s) ORDER BY job_id, rated_at, rowid"
        return [rows.read_rating(row) for row in self._of_jobs(query, job_ids)]

    def environments(self) -> list[dict[str, Any]]:
        """Every server configuration ever seen, with its period and the owner's word for the server."""
        query = "SELECT environments.*, servers.name FROM environments LEFT JOIN servers ON servers.url = server_url ORDER BY first_seen_at"
        found = self._database.rows(query)
        return [{**dict(row), "facts": json.loads(row["facts"])} for row in found]

    def _of_jobs(self, query: str, ids: Sequence[str]) -> Iterator[sqlite3.Row]:
        """The rows of a query with `IN (%s)`, in pieces that SQLite takes."""
        for chunk in _chunks(ids):
            yield from self._database.rows(query % ", ".join("?" * len(chunk)), *chunk)

    def _jobs(self, where: str, ids: Sequence[str]) -> list[Job]:
        jobs: list[Job] = []
        for chunk in _chunks(ids):
            marks = ", ".join("?" * len(chunk))
            found = self._database.rows(f"{rows.JOB_QUERY} WHERE {where % marks} ORDER BY jobs.seq", *chunk)
            files: dict[str, list[OutputFile]] = {}  # read after their jobs: one that ends in between is seen open with its files, never done without them
            if any(row["attempt"] for row in found):
                for row in self._database.rows(f"SELECT * FROM files WHERE job_id IN ({marks}) ORDER BY job_id, number", *chunk):
                    files.setdefault(row["job_id"], []).append(rows.read_file(row, self.projects))
            jobs += [rows.read_job(row, files.get(row["id"], [])) for row in found]
        return jobs


def _chunks(ids: Sequence[str], size: int = 500) -> Iterable[Sequence[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _filters(status: str | None, project: str | None, kind: str | None) -> tuple[str, list[Any]]:
    where, values = ["1"], list[Any]()
    if status in ("open", "final"):
        words = OPEN if status == "open" else FINAL
        where.append(f"status IN ({rows.listed(words)})")
    elif status is not None:
        where, values = [*where, "status = ?"], [*values, status]
    for column, value in (("project", project), ("kind", kind)):
        if value is not None:
            where, values = [*where, f"{column} = ?"], [*values, value]
    return " AND ".join(where), values
