"""merging: the logs of several homes in one file, each job once, and a log in a file asked as a home is."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from tests.test_stats import accepted, done
from toolkit import Log
from toolkit.cli import app
from toolkit.errors import HomeUnusable, OutputError, RequestInvalid
from toolkit.jobs import Rating
from toolkit.ledger import Ledger, origin
from toolkit.stats import Stats, merge_logs, tables
from toolkit.stats.connections import STORAGE_VERSION

FACTS = {"simulated": False, "device": "cpu", "comfyui_version": "0.3.64"}


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[list[Ledger]]:
    """Two homes: the second begins as a copy of the first, then each goes on by itself."""
    with contextlib.ExitStack() as stack:
        ann = stack.enter_context(contextlib.closing(Ledger(tmp_path / "ann")))
        ann.remember_server("http://a:8188", FACTS, None, None)
        done(ann, *accepted(ann, project="shared"))
        accepted(ann, project="open")
        shutil.copytree(tmp_path / "ann", tmp_path / "ben")
        ben = stack.enter_context(contextlib.closing(Ledger(tmp_path / "ben")))
        done(ann, ann.jobs(project="open")[0])
        done(ben, *accepted(ben, project="ben"))
        ben.remember_server("http://a:8188", FACTS, None, None)
        ben.name_server("http://a:8188", "box", None)
        ben.rate(Rating(ben.jobs(project="shared")[0].id, 1, "ben", "keep", 5, ("style",), None, 1.8e9))
        yield [ann, ben]


def merged(homes: list[Ledger], tmp_path: Path) -> Log:
    into = tmp_path / "both.duckdb"
    assert merge_logs([ledger.home for ledger in homes], into, said.append) == 3
    return Log(into)


said: list[str] = []


def test_a_job_of_two_homes_is_there_once_as_the_home_tells_it_that_has_seen_most_of_it(homes: list[Ledger], tmp_path: Path) -> None:
    log = merged(homes, tmp_path)
    assert log.sql("from jobs select project, status, attempts order by all").fetchall() == [("ben", "done", 1), ("open", "done", 1), ("shared", "done", 1)]
    assert log.sql("from outputs join jobs using (job_id) select project, verdict order by all").fetchall() == [
        ("ben", None), ("open", None), ("shared", "keep"),
    ]  # fmt: skip
    assert log.sql("from attempts").shape[0] == 3
    assert log.sql("from ratings select person, stars").fetchall() == [("ben", 5)]


def test_rows_are_those_of_the_homes_own_logs(homes: list[Ledger], tmp_path: Path) -> None:
    log, found = merged(homes, tmp_path), dict[str, set[str]]()
    for ledger in homes:
        with contextlib.closing(Stats(ledger)) as stats:
            for name in ("jobs", "attempts", "outputs", "nodes", "etas"):
                found.setdefault(name, set()).update(map(str, stats.sql(f"from {name}").fetchall()))
    for name, rows in found.items():
        assert {str(row) for row in log.sql(f"from {name}").fetchall()} <= rows, name


def test_a_server_that_both_have_seen_is_one_row(homes: list[Ledger], tmp_path: Path) -> None:
    (row,) = merged(homes, tmp_path).sql("from servers select server_url, name, first_seen_at, last_seen_at").fetchall()
    seen = [ledger.environments()[0] for ledger in homes]
    assert row[:2] == ("http://a:8188", "box")
    assert row[2] == datetime.fromtimestamp(min(one["first_seen_at"] for one in seen), UTC)
    assert row[3] == datetime.fromtimestamp(max(one["last_seen_at"] for one in seen), UTC)


def test_the_file_has_tables_views_comments_and_an_older_format(homes: list[Ledger], tmp_path: Path) -> None:
    log = merged(homes, tmp_path)
    for table in (*tables.TABLES, *tables.VIEWS):
        query = "from duckdb_columns() select column_name, comment where table_name = $table and database_name = 'stats' order by column_index"
        assert log.sql(query, table=table.name).fetchall() == [(column.name, column.comment) for column in table.columns]
    (tags,) = log.sql("from duckdb_databases() select tags where database_name = 'stats'").fetchall()[0]
    assert tags["storage_version"].startswith(STORAGE_VERSION)


def test_merged_logs_and_exports_can_be_merged_again(homes: list[Ledger], tmp_path: Path) -> None:
    merged(homes, tmp_path)
    assert merge_logs([tmp_path / "both.duckdb", homes[0].home], tmp_path / "again.duckdb", said.append) == 3
    assert merge_logs([tmp_path / "both.duckdb"], tmp_path / "both.duckdb", said.append) == 3


def test_a_home_that_cannot_be_written_is_read_as_it_was_published(homes: list[Ledger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged(homes, tmp_path)
    done(homes[0], *accepted(homes[0]))
    said.clear()
    monkeypatch.setattr(origin, "disk_type", lambda path, mounts: "nfs")
    assert merged(homes, tmp_path)
    assert len(said) == 2
    assert "published last" in said[0]
    only_log = tmp_path / "nas"
    only_log.mkdir()
    shutil.copyfile(homes[1].home / "stats.duckdb", only_log / "stats.duckdb")
    assert merge_logs([only_log], tmp_path / "one.duckdb", said.append) == 3
    (homes[0].home / "stats.duckdb").unlink()
    with pytest.raises(HomeUnusable, match="network disk"):
        merged(homes, tmp_path)


def test_what_is_no_home_is_named_and_nothing_is_written(homes: list[Ledger], tmp_path: Path) -> None:
    into, (home, _) = tmp_path / "both.duckdb", [ledger.home for ledger in homes]
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.duckdb").write_text("x" * 5000)
    with contextlib.closing(duckdb.connect(str(tmp_path / "other.duckdb"))) as connection:
        connection.execute("CREATE TABLE meta (schema VARCHAR); INSERT INTO meta VALUES ('older')")
    with contextlib.closing(duckdb.connect(str(tmp_path / "foreign.duckdb"))) as connection:
        connection.execute("CREATE TABLE t (i INTEGER)")
    wrong: list[tuple[Any, type[Exception], str]] = [
        ([home, tmp_path / "empty"], RequestInvalid, "empty is no home"),
        ([home, tmp_path / "nowhere"], RequestInvalid, "nowhere is no home"),
        ([home, tmp_path / "text.duckdb"], HomeUnusable, "text.duckdb is no log"),
        ([home, tmp_path / "other.duckdb"], HomeUnusable, "another version"),
        ([home, tmp_path / "foreign.duckdb"], HomeUnusable, "no log of this toolkit"),
        ([], RequestInvalid, "No home is named"),
    ]
    for logs, kind, words in wrong:
        with pytest.raises(kind, match=words):
            merge_logs(logs, into, said.append)
    for target in (tmp_path / "both.parquet", home / "stats.duckdb"):
        with pytest.raises(RequestInvalid):
            merge_logs([home], target, said.append)
    with pytest.raises(OutputError):
        merge_logs([home], tmp_path / "text.duckdb" / "x.duckdb", said.append)
    assert sorted(path.name for path in tmp_path.glob("both*")) == []
    assert not (tmp_path / "empty" / "ledger.sqlite").exists()


# ---- a log in a file ----------------------------------------------------------------------------------------------------


def test_a_log_in_a_file_answers_as_its_home_does_and_its_now_is_its_own_end(homes: list[Ledger], tmp_path: Path) -> None:
    log = merged(homes, tmp_path)
    assert "3 jobs" in repr(log)
    people = log.ask("people", simulated=True)
    assert people.parameters["now"] == log.ends_at == log.sql("select max(ended_at) from jobs").fetchall()[0][0]
    assert people.records()[0]["jobs"] == 3
    assert log.sql(people.sql, **people.parameters).fetchall() == people.rows
    assert log.ask("timeline", simulated=True, since="1h").rows
    with contextlib.closing(duckdb.connect(str(tmp_path / "foreign.duckdb"))):
        pass
    for path, words in ((tmp_path / "nothing.duckdb", "not there"), (homes[0].home / "ledger.sqlite", "no log"), (tmp_path / "foreign.duckdb", "no log")):
        with pytest.raises(RequestInvalid, match=words):
            Log(path)


def test_commands_merge_export_and_ask_a_file(homes: list[Ledger], tmp_path: Path) -> None:
    def toolkit(*words: str) -> Any:
        return CliRunner().invoke(app, words, env={"TOOLKIT_HOME": str(homes[1].home)}, prog_name="toolkit")

    folders, into = [str(ledger.home) for ledger in homes], str(tmp_path / "out" / "both.duckdb")
    assert toolkit("log", "merge", *folders, "--into", into).stdout == f"3 jobs of 2 logs are in {into}.\n"
    assert json.loads(toolkit("log", "merge", *folders, "--into", into, "--json").stdout) == {"path": into, "jobs": 3}
    assert toolkit("sql", "select count(*) as n from jobs", "--log", into, "--json").stdout == '{"n": 3}\n'
    asked = toolkit("ask", "people", "--simulated", "--log", into, "--json")
    assert json.loads(asked.stdout)["who"] == "owner"
    refused = toolkit("log", "merge", str(tmp_path), "--into", into)
    assert (refused.exit_code, "is no home" in refused.stderr) == (2, True)
    exported = toolkit("log", "export", str(tmp_path / "ben.duckdb"))
    assert exported.stdout == f"{tmp_path / 'ben.duckdb'}\n"
    assert Log(tmp_path / "ben.duckdb").sql("from jobs").shape[0] == 3
