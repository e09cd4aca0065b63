"""probing: the same jobs on every server, cold and warm, found by their label."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.engines import running
from toolkit import Studio
from toolkit.cli import app
from toolkit.errors import ServerUnreachable
from toolkit.studio import probing


@pytest.fixture(autouse=True)
def _few_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "FAMILIES", [family for family in probing.FAMILIES if family.name in ("illustrious", "wan22_5b")])
    monkeypatch.setenv("TOOLKIT_ENGINE_STEP_S", "0.002")


def test_each_recipe_runs_cold_then_warm_and_the_question_has_a_row_of_both_probes(home: Path, tmp_path: Path) -> None:
    told: list[str] = []
    with Studio("engine", home=home) as studio:
        first = studio.probe("before", tell=told.append)
        assert first.columns == ["graph_hash", "model", "server_url", "before", "after"]
        assert {row["server_url"] for row in first.records()} == {"engine"}
        assert len(first) == 2
        assert all(row["before"] > 0 and row["after"] is None for row in first.records())
        both = studio.probe("after", tell=told.append)
        assert [row["graph_hash"] for row in both.records()] == [row["graph_hash"] for row in first.records()]
        assert all(row["before"] > 0 and row["after"] > 0 for row in both.records())
        rows = studio.sql("from jobs select kind, warmth, status, labels['probe'], count(*) group by all order by all").fetchall()
        assert rows == [(kind, warmth, "done", label, 1) for kind in ("image", "video") for warmth in ("cold", "warm") for label in ("after", "before")]
    assert len(told) == 8
    assert "s a step" in told[0]
    output = CliRunner().invoke(app, ["ask", "probe", "--json"], env={"TOOLKIT_HOME": str(home)}, prog_name="toolkit").stdout
    assert json.loads(output.splitlines()[0])["before"] > 0


async def test_every_job_is_for_one_server_alone(tmp_path: Path, home: Path) -> None:
    async with running(tmp_path / "a") as one, running(tmp_path / "b") as other:
        urls = [str(client.session._base_url).rstrip("/") for client in (one, other)]

        def probed() -> Any:
            with Studio(urls, home=home) as studio:
                answer = studio.probe("before", tell=lambda line: None)
                return answer.records(), [(job.servers, job.server_url) for job in (handle.job for handle in studio.jobs(limit=50))]

        rows, jobs = await asyncio.to_thread(probed)
        assert sorted(row["server_url"] for row in rows) == sorted(urls * 2)
        assert len(jobs) == 8
        assert all(servers == (ran_on,) for servers, ran_on in jobs)


def test_the_command_shows_progress_and_the_answer(home: Path) -> None:
    done = CliRunner().invoke(app, ["--server", "engine", "probe", "--json"], env={"TOOLKIT_HOME": str(home)}, prog_name="toolkit")
    assert done.exit_code == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["before"] > 0 for row in rows] == [True, True]
    assert "illustrious on engine, cold" in done.stderr
    assert "illustrious on engine, warm" in done.stderr


def test_no_server_that_answers_is_said_at_once(tmp_path: Path) -> None:
    with Studio("http://127.0.0.1:9", home=tmp_path / "home") as studio, pytest.raises(ServerUnreachable):
        studio.probe()
