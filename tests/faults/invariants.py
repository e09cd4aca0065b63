"""What must hold after every case, whatever went wrong in between: nothing lost, nothing doubled, nothing told.

Reads the ledger with sqlite alone, so that a fault in our own reading cannot hide one in our writing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from toolkit.decoding import look_into
from toolkit.jobs import DONE, FINAL
from toolkit.outputs import sidecar_of

GONE = ("outputs_gone", "outputs_unknown", "bad_file")  # the prompt ended well, its files could not be had: no false failure
STRICT = "dropped_branch"  # accepted without a branch, stopped for that, and what it may have made is not kept
NEVER_RAN = ("rejected",)


def check(home: Path, engine_runs: Sequence[str], ids: Iterable[str], *, finished: Iterable[str] = (), secrets: Sequence[str] = ()) -> None:
    """Hold a home against what was asked of it.

    Args:
        home: the home after the case.
        engine_runs: the prompt ids the servers ran, once for each run.
        ids: every job id that was handed out.
        finished: the prompt ids the servers brought to a good end; leave it out where the case lies about that.
        secrets: what must stand in no file of the home.
    """
    asked = list(ids)
    with closing(sqlite3.connect(f"file:{home / 'ledger.sqlite'}?mode=ro", uri=True)) as ledger:
        ledger.row_factory = sqlite3.Row
        jobs = ledger.execute("SELECT * FROM jobs").fetchall()
        attempts = ledger.execute("SELECT * FROM attempts").fetchall()
        files = ledger.execute("SELECT * FROM files").fetchall()
    _every_id_once(jobs, asked)
    _files_are_whole(home, jobs, files)
    _one_run_for_each_attempt(attempts, engine_runs)
    _files_belong_to_their_job(home, files)
    _ends_are_true(jobs, attempts, files, set(finished))
    _nothing_is_told(home, secrets)


def _every_id_once(jobs: Sequence[sqlite3.Row], asked: Sequence[str]) -> None:
    known = Counter(job["id"] for job in jobs)
    assert {job_id: known[job_id] for job_id in asked} == dict.fromkeys(asked, 1), "I1: an id is not there exactly once"
    open_jobs = {job["id"]: job["status"] for job in jobs if job["status"] not in FINAL}
    assert not open_jobs, f"I5: not ended: {open_jobs}"


def _files_are_whole(home: Path, jobs: Sequence[sqlite3.Row], files: Sequence[sqlite3.Row]) -> None:
    done = {job["id"] for job in jobs if job["status"] in DONE}
    for file in files:
        if file["job_id"] not in done:
            continue
        path = home / "projects" / file["name"]
        data = path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["size_bytes"], file["sha256"]), f"I3: {path} is not what was recorded"
        look_into(path, file["kind"])
    assert not list(home.rglob("*.part")), "I3: a part of a file was left"


def _one_run_for_each_attempt(attempts: Sequence[sqlite3.Row], engine_runs: Sequence[str]) -> None:
    runs = Counter(engine_runs)
    sent = {attempt["prompt_id"] for attempt in attempts}
    assert set(runs) <= sent, f"I4: ran without a record: {set(runs) - sent}"
    for attempt in attempts:
        often, status = runs[attempt["prompt_id"]], attempt["status"]
        assert often <= 1, f"I4: {attempt['prompt_id']} ran {often} times"
        if attempt["acknowledged"] and (status in DONE or status == "failed"):
            assert often == 1, f"I4: {attempt['prompt_id']} is {status} and never ran"
        if status in NEVER_RAN and attempt["failure_kind"] != STRICT:
            assert often == 0, f"I4: {attempt['prompt_id']} was {status} and ran"


def _files_belong_to_their_job(home: Path, files: Sequence[sqlite3.Row]) -> None:
    names = Counter(file["name"] for file in files)
    assert all(count == 1 for count in names.values()), f"I6: two records of one file: {names}"
    for file in files:
        path = home / "projects" / file["name"]
        assert file["job_id"][:8] in path.name, f"I6: {path} is not named after its job"
        about = json.loads(sidecar_of(path).read_text())
        assert (about["job_id"], about["sha256"]) == (file["job_id"], file["sha256"]), f"I6: the sidecar of {path} tells of another"


def _ends_are_true(jobs: Sequence[sqlite3.Row], attempts: Sequence[sqlite3.Row], files: Sequence[sqlite3.Row], finished: set[str]) -> None:
    with_files = {file["job_id"] for file in files}
    latest = {(attempt["job_id"], attempt["number"]): attempt for attempt in attempts}
    for job in jobs:
        if job["status"] in ("done", "done_partial"):
            assert job["id"] in with_files, f"I7: {job['id']} is {job['status']} without a file"
        attempt = latest.get((job["id"], job["attempt"]))
        if attempt is not None and attempt["prompt_id"] in finished and attempt["failure_kind"] not in (*GONE, STRICT):
            assert job["status"] in DONE or job["cancel_asked"], f"I7: the server finished {job['id']}, which is {job['status']}"


def _nothing_is_told(home: Path, secrets: Sequence[str]) -> None:
    words = [word for secret in secrets for word in (secret.encode(), base64.b64encode(secret.encode()).rstrip(b"="))]
    for path in home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            told = [word for word in words if word in data]
            assert not told, f"I8: {path} holds {told[0]!r}"
