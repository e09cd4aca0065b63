"""What befalls a home as a whole: an upgrade that is killed or comes under an open kernel, a lock that is deleted, a power cut.

TOOLKIT_CRASH_REPEATS sets how often the upgrade is killed.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import children_of, is_alive
from tests.faults.invariants import check
from tests.faults.layer import Layer
from tests.faults.test_crashes import REPEATS
from tests.test_feeder import wait_for
from tests.test_homes import SMALL, add, old_home, version_of
from toolkit import Studio
from toolkit.crashpoints import POINTS
from toolkit.errors import HomeUnusable
from toolkit.feeder.feeder import Feeder
from toolkit.ledger import Ledger, rows
from toolkit.ledger.database import Database
from toolkit.processes import feeder_lock, start_feeder
from toolkit.settings import ServerAddress

UPGRADE = """
import sys
from pathlib import Path
from toolkit.ledger import Ledger, rows
if sys.argv[2:]:
    rows.MIGRATIONS = (*rows.MIGRATIONS, sys.argv[2])
Ledger(Path(sys.argv[1])).close()
"""


def upgrade(home: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Open a home in a process of its own, by a toolkit that knows one schema more."""
    command = [sys.executable, "-c", UPGRADE, str(home), *more]
    return subprocess.run(command, env={**os.environ, **environment}, timeout=60, check=False, capture_output=True, text=True)


def schema_of(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as plain:
        return plain.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


@pytest.mark.parametrize("repeat", range(REPEATS))
def test_an_upgrade_killed_halfway_leaves_the_old_schema_and_the_next_one_makes_it_whole(repeat: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C16: SIGKILL after the first statement of a migration; the old toolkit goes on with what is left, and so does the new one."""
    home, whole = tmp_path / "home", tmp_path / "whole"
    ids = old_home(home, monkeypatch)
    before = schema_of(home / "ledger.sqlite")
    assert "migration half done" in POINTS
    assert upgrade(home, TOOLKIT_CRASH_AT="migration half done").returncode == -signal.SIGKILL
    assert (version_of(home / "ledger.sqlite"), schema_of(home / "ledger.sqlite")) == (1, before)
    kept = home / "ledger.sqlite.v1.bak"
    assert (version_of(kept), schema_of(kept)) == (1, before)
    ids += old_home(home, monkeypatch, jobs=1)
    ledger = Ledger(home)
    assert [job.id for job in reversed(ledger.jobs())] == ids
    assert len(ledger.open_jobs()) == len(ids)
    ledger.close()
    Ledger(whole).close()
    assert version_of(home / "ledger.sqlite") == len(rows.MIGRATIONS)
    assert schema_of(home / "ledger.sqlite") == schema_of(whole / "ledger.sqlite")
    with closing(sqlite3.connect(kept)) as old:
        assert [row[0] for row in old.execute("SELECT id FROM jobs ORDER BY seq")] == ids, "it was kept anew"
    with pytest.raises(HomeUnusable, match=r"written by a newer toolkit .* upgrade the toolkit"):
        Database(home / "ledger.sqlite", rows.MIGRATIONS[:1], durable=True)


def test_a_kernel_whose_ledger_is_upgraded_refuses_in_one_sentence_and_loses_nothing(home: Path, tmp_path: Path) -> None:
    """C26: another process upgrades the ledger under an open studio."""
    known = len(rows.MIGRATIONS)
    with Layer(tmp_path / "server") as layer, Studio(layer.url, home=home) as studio:
        done = studio.image("a girl", seed=1, **SMALL)
        done.wait(60)
        upgraded = upgrade(home, "ALTER TABLE jobs ADD COLUMN mood TEXT NOT NULL DEFAULT 'good'")
        assert upgraded.returncode == 0, upgraded.stderr
        assert version_of(home / "ledger.sqlite") == known + 1
        sentence = rf"written by a newer toolkit \(schema {known + 1}, this one knows {known}\)\. Restart the kernel or upgrade the toolkit\.$"
        with pytest.raises(HomeUnusable, match=sentence):
            studio.image("a girl", seed=2, **SMALL)
        with pytest.raises(HomeUnusable, match=sentence):
            done.retry()
        assert [handle.job.status for handle in studio.jobs()] == ["done"], "reading goes on"
        assert version_of(home / f"ledger.sqlite.v{known}.bak") == known
        with pytest.raises(HomeUnusable, match=sentence), Studio("engine", home=home):
            pass
        check(home, layer.runs(), [done.id], finished=layer.finished())


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_a_lock_that_is_deleted_while_held_makes_one_feeder_and_doubles_nothing(busy: bool, home: Path, slow_layer: Layer) -> None:
    """C25: the next start takes the new lock file, and the epoch in the ledger sends the former feeder away, at work or not."""
    with Studio(slow_layer.url, home=home) as studio:
        jobs = [studio.image("a girl", seed=seed, width=64, height=64, steps=8) for seed in range(6 if busy else 1)]
        if busy:
            wait_for(lambda: jobs[0].progress.step is not None)
        else:
            jobs[0].wait(60)
        former = children_of(home)[f"feeder {slow_layer.url}"]
        Path(feeder_lock(home, slow_layer.url).lock_file).unlink()
        began = time.monotonic()
        latter = start_feeder(home, ServerAddress.parse(slow_layer.url), {})
        wait_for(lambda: not is_alive(former))
        assert time.monotonic() - began < 10.0  # 2 s on a quiet machine, most of it to start Python
        wait_for(lambda: children_of(home).get(f"feeder {slow_layer.url}") == latter)
        jobs.append(studio.image("a girl", seed=99, width=64, height=64, steps=2))
        for job in jobs:
            assert job.wait(60).job.attempt == 1
        assert is_alive(latter)
        check(home, slow_layer.runs(), [job.id for job in jobs], finished=slow_layer.finished())
        assert slow_layer.requests.count(("POST", "/api/prompt")) == len(jobs)
        assert "Another feeder has taken" in next((home / "logs").glob("feeder-*.log")).read_text()


async def test_a_file_is_on_disk_under_its_name_before_the_ledger_says_that_it_is(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: the order in which a feeder asks for durability: the file's bytes, its name, its folder, then the ledger's `end`, which is FULL.

    A recording of calls: it shows what is asked of the system and when. It cannot show that kernel and disk do it (no LazyFS and no dm-flakey
    here, which would drop unsynced pages), nor SQLite's own syncs, for which `synchronous` and `journal_mode` are read instead. A ledger that
    is cut anywhere in its write-ahead log is shown by the next test.
    """
    calls: list[tuple[str, str]] = []
    fsync, link, end = os.fsync, os.link, Ledger.end
    kinds: set[tuple[int, str]] = set()

    def noted_fsync(handle: int) -> None:
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def noted_link(source: Path, target: Path) -> None:
        calls.append(("name", str(target)))
        link(source, target)

    def noted_end(ledger: Ledger, *arguments: object, **learned: object) -> bool:
        connection = ledger._database.connection()
        kinds.add((connection.execute("PRAGMA synchronous").fetchone()[0], connection.execute("PRAGMA journal_mode").fetchone()[0]))
        calls.append(("end", ""))
        return end(ledger, *arguments, **learned)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    monkeypatch.setattr(Ledger, "end", noted_end)
    with Layer(tmp_path / "server") as layer:
        ledger = Ledger(home)
        (job,) = add(ledger, url=layer.url)
        await Feeder(home, ServerAddress.parse(layer.url), {}, 0.5).serve()
        (file,) = ledger.job(job.id).files
        ledger.close()
        mine = [call for call in calls if call[1].startswith(str(home / "projects")) or call[0] == "end"]
        path = Path(file.path)
        assert mine == [
            ("fsync", str(path.with_name(f".{path.name}.part"))),
            ("name", str(path)),
            ("fsync", str(path.parent)),
            ("end", ""),
        ]
        assert kinds == {(2, "wal")}
        check(home, layer.runs(), [job.id], finished=layer.finished())


def test_a_ledger_whose_log_is_cut_anywhere_opens_with_what_was_synced_before(tmp_path: Path) -> None:
    """C24: a power cut takes the unsynced tail of the write-ahead log; every job whose commit lies before the cut is there, whole."""
    home = tmp_path / "home"
    ledger = Ledger(home)
    log = home / "ledger.sqlite-wal"
    ends = []
    for seed in range(12):
        (job,) = add(ledger, seed=seed)
        ends.append((log.stat().st_size, job.id))
    data, trunk = log.read_bytes(), (home / "ledger.sqlite").read_bytes()
    first, last = ends[0][0], len(data)
    assert last - first > 10 * 4096, "the log holds the commits"
    for number, cut in enumerate(range(first, last, (last - first) // 15)):
        torn = tmp_path / f"torn{number}"
        torn.mkdir()
        (torn / "ledger.sqlite").write_bytes(trunk)
        (torn / "ledger.sqlite-wal").write_bytes(data[:cut] + b"\0" * 2000)  # a torn page
        after = Ledger(torn)
        after._database.quick_check()
        kept = [job.id for job in reversed(after.jobs(limit=-1))]
        synced = [job_id for size, job_id in ends if size <= cut]
        assert kept[: len(synced)] == synced
        assert len(kept) <= len(synced) + 1
        after.close()
    ledger.close()
