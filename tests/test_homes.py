"""Homes: copied while they are used, found out when they were copied, upgraded with the old kept, refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conftest import children_of, end_children
from tests.faults.layer import Layer
from tests.test_feeder import wait_for
from tests.test_service import calling
from toolkit import ImageRequest, Studio
from toolkit.cli import app
from toolkit.engine.execution import Options
from toolkit.errors import HomeUnusable, RequestInvalid
from toolkit.jobs import Job, JobStatus, OutputFile
from toolkit.ledger import Claim, Ledger, LiveBoard, LiveServer, NewJob, Outcome, backup, database, origin, rows, store
from toolkit.ledger.database import Database
from toolkit.settings import ServerAddress
from toolkit.studio import watcher
from toolkit.studio.watcher import Watcher

SMALL = {"width": 64, "height": 64, "steps": 1}
URL = "http://nobody:8188"


def add(ledger: Ledger, count: int = 1, url: str = URL, seed: int = 0, reuse: bool | None = False) -> list[Job]:
    return ledger.accept(*(NewJob(ImageRequest(prompt="a girl", seed=seed + n, **SMALL), [url], reuse=reuse) for n in range(count)))


def add_done(ledger: Ledger, name: str, data: bytes = b"picture") -> Job:
    """A done job with one file, without any server."""
    (job,) = add(ledger, seed=1000)
    epoch = ledger.take_server(URL)
    attempt = ledger.sending(Claim(job.id, URL, epoch, {}))
    path = ledger.projects / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    file = OutputFile(1, str(path), name, "image", "image/png", len(data), "", 1, 1, 1, None, False, False, None, "present", 1, "9", 0.0)
    assert attempt is not None
    assert ledger.end(attempt, epoch, Outcome(JobStatus.DONE, files=[file]))
    return ledger.job(job.id)


def cli(home: Path, *words: str) -> Any:
    return CliRunner().invoke(app, words, env={"TOOLKIT_HOME": str(home)}, prog_name="toolkit")


def copied(home: Path, to: Path) -> Path:
    """What `cp -r` makes of a home that nobody uses."""
    return Path(shutil.copytree(home, to))


def meta(home: Path) -> dict[str, str]:
    with closing(sqlite3.connect(home / "ledger.sqlite")) as plain:
        return dict(plain.execute("SELECT key, value FROM meta").fetchall())


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    made = Ledger(tmp_path / "original")
    yield made
    made.close()


# ---- backup -----------------------------------------------------------------------------------------------------------------------------


def test_a_backup_has_ledger_files_and_servers_and_names_what_was_gone(ledger: Ledger, tmp_path: Path) -> None:
    kept, gone = add_done(ledger, "fox/1.png"), add_done(ledger, "fox/2.png")
    (ledger.projects / "fox/2.png").unlink()
    (ledger.projects / "fox/.3.png.part").touch()
    (ledger.home / "inputs").mkdir()
    (ledger.home / "inputs/start.png").write_bytes(b"input")
    (ledger.home / "settings.json").write_text("{}")
    (ledger.home / "settings.json").chmod(0o600)
    made = ledger.back_up(tmp_path / "deep/copy", tell=print)
    assert (made.jobs, made.files, made.size_bytes, made.missing) == (2, 2, 12, ("fox/2.png",))
    assert str(made) == f"2 jobs and 2 files (0.0 MB) are in {tmp_path}/deep/copy. 1 were gone already: fox/2.png."
    found = {path.relative_to(made.path).as_posix() for path in Path(made.path).rglob("*") if path.is_file()}
    assert found == {"ledger.sqlite", "settings.json", "projects/fox/1.png", "inputs/start.png"}
    assert (tmp_path / "deep/copy/settings.json").stat().st_mode & 0o777 == 0o600, "it holds passwords"
    opened = Ledger(tmp_path / "deep/copy")
    assert Path(opened.job(kept.id).files[0].path).read_bytes() == b"picture"
    assert opened.job(gone.id).status == "done"
    opened.close()


def test_a_backup_without_files_is_the_ledger_alone(ledger: Ledger, tmp_path: Path) -> None:
    add_done(ledger, "fox/1.png")
    made = ledger.back_up(tmp_path / "copy", files=False, tell=print)
    assert (made.jobs, made.files, made.missing) == (1, 0, ())
    assert os.listdir(tmp_path / "copy") == ["ledger.sqlite"]


def test_a_backup_under_a_busy_writer_is_one_instant_of_the_ledger(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(ledger, 300)
    monkeypatch.setattr(database, "COPY_PAGES", 1)
    written = threading.Event()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            add(ledger, 3)  # all three or none
            written.set()

    seen: list[int] = []

    def step(done: int, of: int) -> None:
        seen.append(ledger.count())
        written.clear()
        assert written.wait(10), "the copy locked the writer out"

    writer = threading.Thread(target=write)
    writer.start()
    try:
        steps = iter(range(15))
        path = tmp_path / "copy.sqlite"
        before = ledger.count()
        ledger._database.copy_to(path, lambda done, of: step(done, of) if next(steps, None) is not None else None)
        after = ledger.count()
    finally:
        stop.set()
        writer.join()
    assert after >= before + 3 * 14, "nothing was written meanwhile"
    with closing(sqlite3.connect(path)) as copy:
        assert copy.execute("PRAGMA quick_check").fetchone() == ("ok",)
        (count, last) = copy.execute("SELECT count(*), max(seq) FROM jobs").fetchone()
    assert count == last
    assert count % 3 == 0
    assert before <= count <= seen[0], "each write began the copy again"


def test_a_long_backup_says_how_far_it_is(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_done(ledger, "fox/1.png")
    said: list[str] = []
    ledger.back_up(tmp_path / "short", tell=said.append)
    assert said == []
    monkeypatch.setattr(backup, "SAY_EVERY_S", 0.0)
    ledger.back_up(tmp_path / "long", tell=said.append)
    assert said[0].startswith("ledger: ")
    assert said[-1] == "files: 1 of 1, 0.0 MB"


def test_a_backup_replaces_and_mixes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    for taken in (tmp_path / "full", tmp_path / "full/letter.txt", ledger.home):
        with pytest.raises(RequestInvalid, match=r"is not empty\. Name a folder that does not exist yet"):
            ledger.back_up(taken, tell=print)
    with pytest.raises(RequestInvalid, match="lies inside what is copied"):
        ledger.back_up(ledger.projects / "copy", tell=print)
    assert (tmp_path / "full/letter.txt").read_text() == "dear"


def test_a_backup_that_breaks_off_leaves_nothing_that_looks_like_one(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_done(ledger, "fox/1.png")

    def full(source: Path, target: Path) -> None:
        assert (tmp_path / "copy/ledger.sqlite.part").exists()
        assert not (tmp_path / "copy/ledger.sqlite").exists(), "killed here it would pass for a home"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(HomeUnusable, match=r"copy cannot be written: No space left on device. Is there room\?"):
        ledger.back_up(tmp_path / "copy", tell=print)
    assert not (tmp_path / "copy").exists()


def test_a_ledger_that_finds_no_room_for_its_copy_is_one_sentence(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(HomeUnusable, match=r"cannot be copied to .*: unable to open database file"):
        ledger._database.copy_to(tmp_path / "ledger.sqlite")


def test_the_command_line_makes_a_backup_and_says_what_is_in_it(ledger: Ledger, tmp_path: Path) -> None:
    add_done(ledger, "fox/1.png")
    said = cli(ledger.home, "backup", str(tmp_path / "a"))
    assert (said.exit_code, said.stdout) == (0, f"1 jobs and 1 files (0.0 MB) are in {tmp_path}/a.\n")
    said = cli(ledger.home, "backup", str(tmp_path / "b"), "--no-files", "--json")
    assert json.loads(said.stdout) == {"path": str(tmp_path / "b"), "jobs": 1, "files": 0, "size_bytes": 0, "missing": []}
    refused = cli(ledger.home, "backup", str(tmp_path / "a"))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "is not empty" in refused.stderr


# ---- copies and moves -------------------------------------------------------------------------------------------------------------------


def test_a_home_that_is_opened_again_or_moved_is_the_same_home(ledger: Ledger, tmp_path: Path) -> None:
    add(ledger, 2)
    ledger.close()
    for move in (lambda: ledger.home, lambda: ledger.home.rename(tmp_path / "moved")):
        again = Ledger(move())
        assert (again.id, again.held(), len(again.open_jobs())) == (ledger.id, 0, 2)
        again.close()
    assert "copied_from" not in meta(tmp_path / "moved")


def test_a_copy_has_an_id_of_its_own_and_holds_the_jobs_it_came_with(ledger: Ledger, tmp_path: Path) -> None:
    first, second = add(ledger, 2)
    epoch = ledger.take_server(URL)
    assert ledger.sending(Claim(first.id, URL, epoch, {}))
    ledger.close()
    home = copied(ledger.home, tmp_path / "copy")
    copy, beside = Ledger(home), Ledger(home)
    assert copy.id == beside.id != ledger.id
    assert (meta(home)["copied_from"], copy.held(), copy.held_to()) == (ledger.id, 2, second.seq)
    assert (copy.open_jobs(), copy.in_flight(URL)) == ([], [])
    (new,) = add(copy, seed=9)
    line = copy.line()
    assert [job.id for job in copy.open_jobs()] == [job.id for job in line.jobs()] == [new.id], "new jobs run at once"
    assert [job.id for job in copy.jobs(status="open")] == [new.id, second.id, first.id], "held jobs are listed"
    copy.release()
    assert [job.id for job in copy.open_jobs()] == [first.id, second.id, new.id]
    assert line.jobs() == copy.open_jobs(), "who follows the line sees it too"
    assert [attempt.job_id for attempt in copy.in_flight(URL)] == [first.id]
    assert copy.held() == 0
    copy.close()
    beside.close()
    original = Ledger(ledger.home)
    assert (original.id, original.held()) == (ledger.id, 0)
    original.close()


def test_a_copy_of_a_home_without_open_jobs_holds_nothing(ledger: Ledger, tmp_path: Path) -> None:
    add_done(ledger, "fox/1.png")
    ledger.close()
    copy = Ledger(copied(ledger.home, tmp_path / "copy"))
    assert copy.id != ledger.id
    assert (copy.held(), copy.held_to()) == (0, 0)
    copy.close()


def test_an_equal_request_in_a_copy_is_a_new_job_and_not_the_one_that_waits(ledger: Ledger, tmp_path: Path) -> None:
    (waiting,) = add(ledger, seed=5)
    assert add(ledger, seed=5, reuse=None)[0].id == waiting.id
    ledger.close()
    copy = Ledger(copied(ledger.home, tmp_path / "copy"))
    (again,) = add(copy, seed=5, reuse=None)
    assert again.id != waiting.id
    assert add(copy, seed=5, reuse=None)[0].id == again.id
    copy.close()


def test_a_held_job_can_be_cancelled_and_then_nothing_is_held(ledger: Ledger, tmp_path: Path) -> None:
    (waiting,) = add(ledger)
    ledger.close()
    copy = Ledger(copied(ledger.home, tmp_path / "copy"))
    assert copy.held() == 1
    assert copy.ask_cancel(waiting.id).status == "cancelled"
    assert copy.held() == 0
    copy.close()


def test_a_damaged_copy_is_refused_before_anything_is_written_to_it(ledger: Ledger, tmp_path: Path) -> None:
    add(ledger, 200)
    ledger.close()
    home = copied(ledger.home, tmp_path / "copy")
    pages = (home / "ledger.sqlite").stat().st_size // 4096
    with (home / "ledger.sqlite").open("r+b") as stream:
        for page in range(pages // 2, pages - 2):
            stream.seek(page * 4096)
            stream.write(b"\xff" * 4096)
    damaged = (home / "ledger.sqlite").read_bytes()
    with pytest.raises(HomeUnusable, match=r"ledger.sqlite cannot be read: .*Restore it from a backup."):
        Ledger(home)
    assert (home / "ledger.sqlite").read_bytes() == damaged


def test_every_face_of_a_copy_says_that_its_jobs_wait_and_nothing_starts_a_feeder(ledger: Ledger, home: Path, tmp_path: Path) -> None:
    jobs = add(ledger, 2, url="engine")
    ledger.close()
    copied(ledger.home, home)
    sentence = "This home is a copy: its 2 open jobs wait for `toolkit resume` or `studio.resume()`, lest they run twice."
    listed = cli(home, "jobs")
    assert sentence in listed.stderr
    assert jobs[0].id[:8] in listed.stdout
    with Studio("engine", home=home) as studio:
        handles = [*studio.jobs(), studio.job(jobs[0].id)]
        assert {handle.progress.stalled for handle in handles} == {sentence}
        with calling(studio) as rest:
            assert rest.get(f"/api/anime/jobs/{jobs[0].id}").json()["progress"]["stalled"] == sentence
            assert [job["progress"]["stalled"] for job in rest.get("/api/anime/jobs").json()["jobs"]] == [sentence] * 2
        wait_for(lambda: studio._watcher._thread is None or studio._watcher._open == [])
        assert not (home / "logs").exists(), "a feeder was started"
        assert studio.image("new", **SMALL).wait(60).job.status == "done", "new jobs run at once"
        assert [handle.job.status for handle in handles] == ["queued"] * 3
        assert repr(studio).endswith(sentence)
        resumed = cli(home, "resume")
        assert (resumed.exit_code, resumed.stdout) == (0, "2 held jobs go on.\n")
        assert {handle.wait(60).job.status for handle in handles} == {"done"}
        assert "This home is a copy" not in repr(studio)
        assert studio.resume() == (0, 0)
    assert cli(home, "resume", "--json").stdout == '{"servers": 0, "jobs": 0}\n'
    runs = [json.loads(line)["prompt_id"] for line in (home / "engine/runs.jsonl").read_text().splitlines() if '"start"' in line]
    assert len(runs) == len(set(runs)) == 3


def test_what_was_in_flight_when_a_home_was_copied_is_reconciled_once_it_may(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with Layer(tmp_path / "server", Options(0.1, 0.0, 0.0, True, 0.0)) as layer:
        try:
            with Studio(layer.url, home=home) as studio:
                job = studio.image("a girl", seed=1, width=64, height=64, steps=20)
                wait_for(lambda: job.progress.step is not None)
                made = studio.backup(copy)
                assert made.jobs == 1
            end_children(home)  # the original is given up
            with Studio(layer.url, home=copy) as studio:
                held = studio.job(job.id)
                assert studio.image("new", **SMALL).wait(60).job.status == "done"
                assert (held.job.status, held.job.attempt) == ("running", 1), "it was looked at"
                feeder = children_of(copy)
                assert studio.resume() == (0, 1)
                assert held.wait(60).job.status == "done"
                assert held.job.attempt == 1
                assert children_of(copy) == feeder, "the feeder that ran took it over"
            assert sorted(layer.runs()) == sorted({*layer.runs()})
            assert layer.requests.count(("POST", "/api/prompt")) == 2
        finally:
            end_children(copy)


# ---- migrations -------------------------------------------------------------------------------------------------------------------------


def old_home(home: Path, monkeypatch: pytest.MonkeyPatch, jobs: int = 3) -> list[str]:
    """A home of the first schema; returns its jobs."""
    made = Ledger(home.with_name(f"{home.name}-new"))
    ids = [job.id for job in add(made, jobs)]
    made.close()
    with monkeypatch.context() as patch:
        patch.setattr(rows, "MIGRATIONS", rows.MIGRATIONS[:1])
        Ledger(home).close()
    with closing(sqlite3.connect(home / "ledger.sqlite")) as old:
        columns = ", ".join(row[1] for row in old.execute("PRAGMA table_info(jobs)") if row[1] != "seq")
        old.execute("ATTACH ? AS made", (str(made.home / "ledger.sqlite"),))
        old.execute(f"INSERT INTO jobs ({columns}) SELECT {columns} FROM made.jobs ORDER BY seq")
        old.commit()
    shutil.rmtree(made.home)
    return ids


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as plain:
        return int(plain.execute("PRAGMA user_version").fetchone()[0])


def test_an_upgrade_keeps_the_old_ledger_beside_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = old_home(tmp_path, monkeypatch)
    assert version_of(tmp_path / "ledger.sqlite") == 1
    ledger = Ledger(tmp_path)
    assert [job.id for job in reversed(ledger.jobs())] == ids
    assert (ledger.held(), meta(tmp_path).get("copied_from")) == (0, None), "an upgrade is no copy"
    ledger.close()
    kept = tmp_path / "ledger.sqlite.v1.bak"
    assert (version_of(tmp_path / "ledger.sqlite"), version_of(kept)) == (len(rows.MIGRATIONS), 1)
    with closing(sqlite3.connect(kept)) as old:
        assert [row[0] for row in old.execute("SELECT id FROM jobs ORDER BY seq")] == ids
    assert not list(tmp_path.glob("*.part"))


def test_a_new_ledger_leaves_no_copy_of_nothing(ledger: Ledger) -> None:
    assert not list(ledger.home.glob("*.bak"))


def test_a_downgrade_is_one_clear_sentence(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.close()
    known = len(rows.MIGRATIONS)
    monkeypatch.setattr(rows, "MIGRATIONS", rows.MIGRATIONS[:1])
    with pytest.raises(HomeUnusable, match=rf"newer toolkit \(schema {known}, this one knows 1\).*upgrade the toolkit"):
        Ledger(ledger.home)


def test_a_board_of_an_older_schema_or_a_broken_one_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "live.sqlite"
    older = Database(path, ["CREATE TABLE old (x); INSERT INTO old VALUES (1)".replace("; ", ";\n")], durable=False)
    assert older.rows("SELECT x FROM old")[0][0] == 1
    newer = Database(path, ["CREATE TABLE old (x)", "CREATE TABLE new (y)"], durable=False)
    assert (newer.rows("SELECT * FROM old"), newer.rows("SELECT * FROM new")) == ([], [])
    older.close()
    newer.close()
    path.write_bytes(b"zeroes of a power cut" * 300)
    board = LiveBoard(tmp_path)
    board.show("a", "{}")
    assert [row.id for row in board.jobs_since(0)] == ["a"]
    board.close()
    assert not list(tmp_path.glob("*.bak"))


# ---- homes that cannot be used ----------------------------------------------------------------------------------------------------------

MOUNTED = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 21 0:32 / /net rw - nfs4 box:/export rw
37 36 8:2 / /net/local rw - xfs /dev/sdb1 rw
38 21 0:40 / /home/me/my\040share rw shared:2 master:1 - cifs //box/share rw
39 21 0:41 / /twice rw - ext4 /dev/sdc1 rw
40 21 0:42 / /twice rw - fuse.sshfs me@box: rw
41 21 0:43 / /usb rw - fuse.ntfs-3g /dev/sdd1 rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", "ext4"), ("/net", "nfs4"), ("/net/home/x", "nfs4"), ("/network", "ext4"), ("/net/local/x", "xfs"),
        ("/home/me/my share/data", "cifs"), ("/twice/x", "fuse.sshfs"), ("/usb", "fuse.ntfs-3g"),
    ],
)  # fmt: skip
def test_the_disk_of_a_path_is_that_of_its_longest_mount_point(path: str, kind: str) -> None:
    assert origin.disk_type(Path(path), MOUNTED) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"])
def test_a_home_on_a_network_disk_is_refused_and_nothing_is_made_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    table = tmp_path / "mounts"
    table.write_text(f"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 21 0:9 / {tmp_path}/far rw - {kind} x rw\n")
    monkeypatch.setattr(origin, "MOUNTS", table)
    with pytest.raises(HomeUnusable, match=rf"far/home is on a network disk \({kind}\), .*Set TOOLKIT_HOME to a folder on this machine.") as refused:
        Ledger(tmp_path / "far/home")
    assert refused.value.path == str(tmp_path / "far/home")
    assert not (tmp_path / "far").exists()
    Ledger(tmp_path / "near").close()
    (tmp_path / "link").symlink_to(tmp_path / "far")
    with pytest.raises(HomeUnusable, match=kind):
        Ledger(tmp_path / "link/home")


def test_where_no_mount_table_can_be_read_a_home_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "MOUNTS", tmp_path / "none")
    Ledger(tmp_path / "home").close()
    assert origin.disk_type(Path("/x"), "") is None


def test_a_ledger_that_is_gone_while_it_is_looked_at_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(HomeUnusable, match="none is gone: No such file"):
        origin._file_of(tmp_path / "none")


# ---- a full disk ------------------------------------------------------------------------------------------------------------------------

UNTIL_FULL = """
import resource, sys
from toolkit import ImageRequest
from toolkit.errors import HomeUnusable
from toolkit.ledger import Ledger, NewJob
from pathlib import Path
ledger = Ledger(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))  # the kernel refuses every byte beyond it
try:
    while True:
        (job,) = ledger.accept(NewJob(ImageRequest(prompt="x" * 3000), ["engine"], reuse=False))
        print(job.id, flush=True)
except HomeUnusable as error:
    print(error, file=sys.stderr)
print(ledger.count(), flush=True)
"""


def test_a_ledger_that_cannot_grow_refuses_in_one_sentence_and_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", UNTIL_FULL, str(tmp_path)], capture_output=True, text=True, timeout=60)
    *ids, readable = done.stdout.split()
    assert len(ids) > 10
    assert int(readable) == len(ids), "reading went on"
    assert done.stderr.count("\n") == 1
    assert "cannot be used: disk I/O error. Is its disk full or failing? What was accepted is kept." in done.stderr
    ledger = Ledger(tmp_path)
    assert {job.id for job in ledger.jobs(limit=-1)} == set(ids)
    assert add(ledger)[0].status == "queued"
    ledger.close()


def test_a_full_disk_refuses_a_request_before_any_server_is_asked(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Layer(tmp_path / "server") as layer, Studio(layer.url, home=home) as studio, calling(studio) as rest:
        monkeypatch.setattr(store.shutil, "disk_usage", lambda path: SimpleNamespace(free=store.ROOM_BYTES - 1))
        with pytest.raises(HomeUnusable, match=r"The disk of .*home is full \(8.0 MB left\). Make room; nothing is lost."):
            studio.image("a girl", **SMALL)
        answer = rest.post("/api/anime/generate/image", json={"prompt": "a girl"})
        assert answer.status_code == 503
        assert answer.json()["error"] == {
            "code": "home_unusable",
            "message": "The disk of the home is full (8.0 MB left).",
            "hint": "Make room; nothing is lost.",
        }
        assert layer.requests == []
        assert studio.jobs() == []
        monkeypatch.undo()
        assert studio.image("a girl", **SMALL).wait(60).job.status == "done"


FEED_ON_A_FULL_DISK = """
import resource, sys
from toolkit.feeder.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
sys.exit(main(["--home", sys.argv[1], "--server", "http://127.0.0.1:1"]))
"""


def test_a_feeder_that_cannot_write_leaves_with_one_line(ledger: Ledger) -> None:
    add(ledger, url="http://127.0.0.1:1")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # who measures would want to write, too
    done = subprocess.run([sys.executable, "-c", FEED_ON_A_FULL_DISK, str(ledger.home)], capture_output=True, text=True, timeout=60, env=plain)
    assert done.returncode == 1, done.stderr
    assert "cannot be used: disk I/O error" in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr


@pytest.fixture
def starts(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Look for a feeder each half second of a clock of our own, and get the seconds at which one was started; each dies at once."""
    board = LiveBoard(ledger.home)
    watch = Watcher(ledger, board, {})
    clock, started = [100.0], list[float]()
    monkeypatch.setattr(watcher, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def start(*_: object) -> int:
        started.append(clock[0] - 100.0)
        return 4711

    monkeypatch.setattr(watcher, "start_feeder", start)

    def during(seconds: float) -> list[float]:
        for _ in range(int(seconds * 2)):
            watch._open = ledger.open_jobs()
            watch._keep_fed()
            clock[0] += 0.5
        return started

    watch._addresses = {URL: ServerAddress(URL)}
    yield during
    board.close()


def test_a_feeder_that_was_killed_is_replaced_after_two_seconds_however_often(ledger: Ledger, starts: Callable[[float], list[float]]) -> None:
    add(ledger)
    board = LiveBoard(ledger.home)
    board.beat(LiveServer(URL, 4711, 1.0, "ready", None, 0, 0))  # the pulse it left, an old one
    board.close()
    assert starts(7.0) == [0.0, 2.0, 4.0, 6.0]


def test_a_feeder_that_keeps_giving_up_is_started_ever_more_rarely(ledger: Ledger, starts: Callable[[float], list[float]]) -> None:
    add(ledger)
    assert starts(60.0) == [0.0, 2.0, 6.0, 14.0, 29.0, 44.0, 59.0]


def test_a_feeder_that_did_its_work_before_it_left_is_started_at_once(ledger: Ledger, starts: Callable[[float], list[float]]) -> None:
    for _ in range(4):
        (job,) = add(ledger)
        starts(2.0)
        ledger.ask_cancel(job.id)
        began = starts(1.0)
    assert began == [0.0, 3.0, 6.0, 9.0]


def test_a_feeder_that_lived_for_a_while_is_replaced_after_two_seconds(
    ledger: Ledger, starts: Callable[[float], list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(ledger)
    assert starts(10.0) == [0.0, 2.0, 6.0]
    with monkeypatch.context() as patch:
        patch.setattr(watcher, "feeder_runs", lambda *_: True)
        starts(60.0)
    assert starts(2.5) == [0.0, 2.0, 6.0, 70.0, 72.0]


def test_a_backup_that_was_interrupted_leaves_nothing(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    add(ledger)
    monkeypatch.setattr(Database, "copy_to", stop)
    with pytest.raises(KeyboardInterrupt):
        ledger.back_up(tmp_path / "copy", tell=lambda _: None)
    assert not (tmp_path / "copy").exists()


def test_where_no_mount_table_can_be_read_every_disk_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "MOUNTS", tmp_path / "none")
    origin.refuse_network_disk(tmp_path)


def test_a_copy_that_another_process_has_just_found_out_is_not_found_out_twice(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(ledger)
    ledger.back_up(tmp_path / "copy", tell=lambda _: None)
    first: list[str] = []

    def meanwhile(self: Database) -> None:
        monkeypatch.undo()
        with closing(Ledger(tmp_path / "copy")) as other:
            first.append(other.id)

    monkeypatch.setattr(Database, "quick_check", meanwhile)
    with closing(Ledger(tmp_path / "copy")) as copy:
        assert [copy.id] == first
        assert copy.id != ledger.id
