"""analysis: each question against the same computed in pandas, on a made-up past; narrowing, showing, drawing, and the two faces that ask."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from tests.benchmarks import history
from toolkit import Answer, Studio
from toolkit.analysis import charts
from toolkit.analysis.answer import shown
from toolkit.analysis.questions import questions
from toolkit.cli import app
from toolkit.errors import RequestInvalid
from toolkit.service import build_service
from toolkit.settings import Settings

JOBS = 2000
NAMES = tuple(questions())
MADE = [name for name in NAMES if name != "help"]
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.drop")  # DuckDB's own .df() uses it (2.0.0 with pandas 3.1)


class RecentPast(history._Past):
    """Two years until now, of few recipes, so that each has runs before and after the upgrade."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.recipes = self.recipes[:12] + self.recipes[-2:]
        self.every_s = history.YEARS_S / JOBS
        self.began = time.time() - history.YEARS_S - 3600


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of 2,000 jobs; every third belongs to a batch, every tenth to a probe, every file of an even job is judged."""
    home = tmp_path_factory.mktemp("past")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "_Past", RecentPast)
        history.made_up_home(home, JOBS, waiting=0)
    with contextlib.closing(sqlite3.connect(home / "ledger.sqlite")) as connection, connection:
        connection.execute("UPDATE jobs SET group_name = 'cfg test', group_id = 'g1' WHERE seq % 3 = 0")
        connection.execute("UPDATE jobs SET request = json_set(request, '$.labels.probe', iif(seq % 2, 'before', 'after')) WHERE seq % 20 < 2")
        connection.execute(
            "INSERT INTO ratings (job_id, output, person, verdict, reasons, rated_at) SELECT id, 1, 'owner', iif(seq % 3, 'keep', 'reject'), '[]', ended_at"
            " FROM (SELECT id, seq, 1.8e9 AS ended_at FROM jobs WHERE seq % 2 = 0 AND status = 'done')"
        )
    return home


@pytest.fixture(scope="module")
def studio(home: Path) -> Iterator[Studio]:
    with Studio("engine", home=home) as studio:
        yield studio


@pytest.fixture(scope="module")
def log(studio: Studio) -> dict[str, pd.DataFrame]:
    """The tables, whole."""
    return {name: studio.sql(f"from {name}").df() for name in ("jobs", "nodes", "outputs", "attempts", "etas", "servers")}


# ---- each question, computed a second time -------------------------------------------------------------------------------


def real(log: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return log["jobs"][~log["jobs"].simulated]


def numbers(frame: pd.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    """Rows of these columns in an order of their own, numbers to nine digits: the order is the question's, and ties have none."""
    plain = (
        tuple("none" if pd.isna(value) else f"{value:.9g}" if isinstance(value, int | float | np.number) else str(value) for value in row)
        for row in frame[list(columns)].itertuples(index=False)
    )
    return sorted(plain)


def same(studio: Studio, name: str, expected: pd.DataFrame, *columns: str) -> None:
    answer = studio.ask(name)
    assert len(answer) > 0
    assert numbers(answer.df(), *columns) == numbers(expected, *columns)


def quantile(share: float) -> Any:
    return lambda values: values.quantile(share)


def test_slow_recipes(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    jobs = real(log)
    warm = jobs[(jobs.status == "done") & (jobs.warmth == "warm")]
    found = warm.groupby(["model", "sampler", "width", "height", "steps"], as_index=False).agg(
        n=("run_s", "size"), p50_s=("run_s", "median"), p90_s=("run_s", quantile(0.9)), megapixels=("megapixels", "first")
    )
    found["s_per_mpx"] = found.p50_s / found.megapixels
    best = found[found.n >= 5].sort_values("p50_s", ascending=False).head(10)
    same(studio, "slow_recipes", best, "model", "sampler", "width", "height", "steps", "n", "p50_s", "p90_s", "s_per_mpx")


def test_boxes(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    jobs = real(log).merge(log["servers"][["environment_id", "device"]], on="environment_id")
    found = (
        jobs[jobs.warmth == "warm"]
        .groupby(["model", "width", "height", "frames", "device"], as_index=False)
        .agg(n=("job_id", "size"), s_per_step=("step_s", "median"))
    )
    same(studio, "boxes", found, "model", "width", "height", "frames", "device", "n", "s_per_step")


def test_cold_warm(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    jobs = real(log)
    done = jobs[jobs.status == "done"].assign(hidden=lambda frame: frame.first_step_s - frame.step_s)
    found = done.groupby(["model", "warmth"], as_index=False).agg(
        n=("job_id", "size"), run_s=("run_s", "median"), load_s=("load_s", "median"), hidden_load_s=("hidden", "median")
    )
    same(studio, "cold_warm", found, "model", "warmth", "n", "run_s", "load_s", "hidden_load_s")


def test_reloads(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    days: dict[tuple[str, str], list[float]] = {}
    last: dict[str, str] = {}
    for job in real(log).dropna(subset="started_at").sort_values("started_at").itertuples():
        sums = days.setdefault((job.server_url, f"{job.started_at:%Y-%m-%d}"), [0, 0, 0.0])
        sums[0] += 1
        if last.get(job.server_url, job.model) != job.model:
            sums[1] += 1
            lost = job.load_s + job.first_step_s - job.step_s
            sums[2] += 0.0 if np.isnan(lost) else lost
        last[job.server_url] = job.model
    answer = studio.ask("reloads").records()
    # a day without a switch has lost nothing that is known, and DuckDB puts what is unknown last
    expected = sorted((sums[2] for sums in days.values() if sums[1]), reverse=True)[: len(answer)]
    assert [row["lost_s"] for row in answer] == pytest.approx(expected)
    assert all(days[row["server_url"], str(row["day"])][:2] == [row["jobs"], row["switches"]] for row in answer)


def test_queue_wait(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    jobs = real(log).dropna(subset="started_at").assign(hour=lambda frame: frame.created_at.dt.hour)
    found = jobs.groupby("hour", as_index=False).agg(
        n=("job_id", "size"),
        home_p50_s=("wait_home_s", "median"),
        home_p95_s=("wait_home_s", quantile(0.95)),
        server_p50_s=("wait_server_s", "median"),
        server_p95_s=("wait_server_s", quantile(0.95)),
    )
    same(studio, "queue_wait", found, "hour", "n", "home_p50_s", "home_p95_s", "server_p50_s", "server_p95_s")


def test_stages(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    jobs = real(log).assign(wait_s=lambda frame: frame.wait_home_s + frame.wait_server_s)
    columns = [f"{stage}_s" for stage in ("wait", "load", "encode", "sample", "decode", "save", "fetch")]
    found = jobs[jobs.status == "done"].groupby("kind")[columns].median().reset_index().melt("kind", var_name="stage", value_name="median_s")
    found["stage"] = found.stage.str.removesuffix("_s")
    same(studio, "stages", found, "kind", "stage", "median_s")


def test_slowest_nodes(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    nodes = log["nodes"].merge(real(log)[["job_id"]], on="job_id")
    found = (
        nodes[~nodes.cached]
        .groupby(["class", "stage"], as_index=False)
        .agg(runs=("job_id", "size"), total_s=("elapsed_s", "sum"), p50_s=("elapsed_s", "median"))
        .nlargest(10, "total_s")
    )
    same(studio, "slowest_nodes", found, "class", "stage", "runs", "total_s", "p50_s")


def test_upgrade_finds_the_box_that_became_slower(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    jobs = real(log)
    warm = jobs[(jobs.warmth == "warm") & (jobs.timed_by == "events")].merge(log["servers"][["environment_id", "comfyui_version"]], on="environment_id")
    recipe = ["server_url", "model", "width", "height", "frames", "sampler"]
    seen = warm.groupby([*recipe, "comfyui_version"]).step_s.agg(["median", "size"]).reset_index()
    seen = seen[seen["size"] >= 8]
    before, after = (seen[seen.comfyui_version == version] for version in ("0.3.64", "0.3.70"))
    found = before.merge(after, on=recipe, suffixes=("_before", "_after")).assign(ratio=lambda pair: pair.median_after / pair.median_before)
    found = found.rename(columns={"size_before": "n_before", "size_after": "n"})
    same(studio, "upgrade", found, "server_url", "model", "width", "frames", "n_before", "n", "ratio")
    ratios = studio.ask("upgrade").df().groupby("server_url").ratio.median()
    assert ratios["http://b:8188"] == pytest.approx(1.22, abs=0.05)
    assert ratios["http://a:8188"] == pytest.approx(1.0, abs=0.05)


def test_probe(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    jobs = log["jobs"]
    probe = jobs[jobs.warmth == "warm"].assign(probe=lambda frame: frame.labels.map(lambda labels: labels.get("probe"))).dropna(subset="probe")
    found = probe.pivot_table(index=["graph_hash", "model", "server_url"], columns="probe", values="step_s", aggfunc="median").reset_index()
    same(studio, "probe", found, "graph_hash", "model", "server_url", "before", "after")


def spent(log: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Seconds and money of each job, all its attempts."""
    attempts = log["attempts"].merge(log["servers"][["environment_id", "server_url", "price_per_hour"]], on=["environment_id", "server_url"])
    attempts["money"] = attempts.run_s * attempts.price_per_hour / 3600
    return attempts.groupby("job_id").agg(s=("run_s", "sum"), money=("money", "sum")).reset_index()


def test_clip_second(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    clips = real(log).merge(spent(log), on="job_id")
    clips = clips[(clips.kind == "video") | clips.clip_s.notna()]
    clips["made_s"], clips["not_done"] = clips.clip_s.where(clips.status == "done"), clips.status != "done"
    found = clips.groupby(["model", "width", "height"], as_index=False)[["s", "money", "made_s", "not_done"]].sum()
    found["gpu_s_per_clip_s"], found["cost_per_clip_s"] = found.s / found.made_s, found.money / found.made_s
    same(studio, "clip_second", found, "model", "width", "height", "gpu_s_per_clip_s", "cost_per_clip_s", "not_done")


def test_cost_per_keeper(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    kept = log["outputs"].assign(kept=log["outputs"].verdict == "keep").groupby("job_id").kept.sum().reset_index()
    pictures = real(log).merge(spent(log), on="job_id").merge(kept, on="job_id", how="left")
    pictures = pictures[pictures.kind == "image"]
    found = pictures.groupby(["model", "preset"], as_index=False).agg(jobs=("job_id", "size"), kept=("kept", "sum"), money=("money", "sum"))
    found["cost_per_keeper"] = found.money / found.kept
    same(studio, "cost_per_keeper", found, "model", "preset", "jobs", "kept", "cost_per_keeper")


def test_eta_quality(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    etas = log["etas"].merge(real(log)[["job_id"]], on="job_id").dropna(subset="actual_s")
    etas["off"], etas["held"] = (etas.expected_s / etas.actual_s - 1).abs(), (etas.low_s <= etas.actual_s) & (etas.actual_s <= etas.high_s)
    found = etas.groupby(["target", "moment", "basis"], as_index=False).agg(n=("off", "size"), median_abs_error=("off", "median"), coverage=("held", "mean"))
    same(studio, "eta_quality", found, "target", "moment", "basis", "n", "median_abs_error", "coverage")


def test_failures(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    attempts = log["attempts"].merge(real(log)[["job_id"]], on="job_id")
    bad = attempts[attempts.status.isin(["failed", "lost", "timed_out"])]
    monday = (bad.submitted_at - pd.to_timedelta(bad.submitted_at.dt.day_of_week, unit="D")).dt.date
    counted = bad.groupby([monday, bad.failure_kind.fillna("-"), bad.failure_node.fillna("-"), "server_url"]).size()
    answer = studio.ask("failures").records()
    assert [row["week"] for row in answer] == sorted((row["week"] for row in answer), reverse=True)
    assert len(answer) == 10
    for row in answer:
        assert row["n"] == counted[row["week"].date(), row["failure_kind"] or "-", row["failure_node"] or "-", row["server_url"]]
    assert answer[0]["week"].date() == max(monday)


def test_busy(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    jobs = real(log).dropna(subset="started_at").merge(log["servers"][["environment_id", "server_url", "name"]], on=["environment_id", "server_url"])
    jobs["day"], jobs["observed"] = jobs.started_at.dt.strftime("%Y-%m-%d"), jobs.origin == "observed"
    found = jobs.groupby(["day", "name"], as_index=False).agg(run_s=("run_s", "sum"), jobs=("job_id", "size"), from_elsewhere=("observed", "sum"))
    found = found.sort_values(["day", "name"], ascending=[False, True]).head(9)
    answer = studio.ask("busy").records()
    assert [(str(row["day"]), row["name"], row["jobs"], row["from_elsewhere"]) for row in answer] == [
        (row.day, row.name_, row.jobs, row.from_elsewhere) for row in found.rename(columns={"name": "name_"}).itertuples()
    ]
    assert [row["busy_share"] or 0 for row in answer] == pytest.approx(list(found.run_s / 86400))


def test_people(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    jobs = real(log)
    week = jobs[jobs.started_at > pd.Timestamp.now(UTC) - pd.Timedelta(days=7)]
    found = (
        week.assign(who=week.person.fillna(week.origin), wait=week.wait_home_s + week.wait_server_s, clip=week.kind == "video")
        .groupby("who", as_index=False)
        .agg(jobs=("job_id", "size"), run_s=("run_s", "sum"), wait_p50_s=("wait", "median"), clips=("clip", "sum"))
    )
    found["gpu_min"] = found.run_s / 60
    same(studio, "people", found, "who", "jobs", "gpu_min", "wait_p50_s", "clips")


def test_lora_counts_the_files_and_the_kept_ones(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    used = real(log)[["job_id", "model", "loras"]].explode("loras").dropna(subset="loras")
    used["lora"], used["strength"] = used.loras.map(lambda lora: lora["name"]), used.loras.map(lambda lora: lora["strength"])
    files = used.merge(log["outputs"][["job_id", "verdict"]], on="job_id").assign(keep=lambda frame: frame.verdict == "keep")
    found = files.groupby(["lora", "strength", "model"], as_index=False).agg(files=("job_id", "size"), kept=("keep", "sum"))
    same(studio, "lora", found, "lora", "strength", "model", "files", "kept")
    assert sorted(studio.ask("lora", lora="MIKA").rows) == sorted(studio.ask("lora").rows)
    assert len(studio.ask("lora", lora="ink")) == 0


def test_winners(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    judged = log["jobs"].merge(log["outputs"][["job_id", "verdict"]], on="job_id").dropna(subset="verdict")
    for where, jobs in (({}, judged), ({"batch": "cfg test"}, judged[judged.group_name == "cfg test"])):
        found = jobs.assign(keep=jobs.verdict == "keep").groupby(["cfg", "sampler"]).agg(n=("keep", "size"), kept_share=("keep", "mean"))
        answer = studio.ask("winners", **where).records()
        assert answer
        assert [row["kept_share"] for row in answer] == pytest.approx(sorted(found.kept_share, reverse=True)[: len(answer)])
        assert all(tuple(found.loc[row["cfg"], row["sampler"]]) == pytest.approx((row["n"], row["kept_share"])) for row in answer)


def test_timeline_has_the_last_500_jobs_that_ran(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    ran = real(log).dropna(subset="started_at").nlargest(500, "started_at")
    ran = ran.assign(server=ran.server_url.str.removeprefix("http://").str[:1])
    same(studio, "timeline", ran, "server", "model", "kind", "status", "person", "warmth", "started_at", "run_s", "wait_server_s", "group_name", "job_id")


# ---- narrowing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_question_can_be_narrowed_and_the_shown_sql_asks_the_same_again(studio: Studio, name: str) -> None:
    answer = studio.ask(name, model=["animagine", "wan"], kind="image", since=timedelta(days=400), simulated=True)
    again = studio.sql(answer.sql, **answer.parameters).df()
    assert len(again) == len(answer)
    if "limit" not in answer.sql:  # which of two equal rows comes within a limit is by chance
        assert numbers(again, *answer.columns) == numbers(answer.df(), *answer.columns)
    assert "animagine" not in answer.sql
    plain = studio.ask(name)
    assert plain.sql == questions()[name].sql or name in ("lora", "winners")
    assert plain.parameters == {}


def test_conditions_hold_for_the_jobs(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    jobs = real(log)
    jobs = jobs[jobs.status == "done"]

    def n(**where: Any) -> int:
        return sum(row["n"] for row in studio.ask("cold_warm", **where).records())

    assert n() == len(jobs)
    assert n(model="ANIMAGINE") == jobs.model.str.contains("animagine").sum()
    assert n(server_url="http://a:8188") == (jobs.server_url == "http://a:8188").sum()
    assert n(kind=["image", "video"]) == len(jobs)
    assert n(cfg="5.0", steps="28") == n(cfg=5, steps=28) == ((jobs.cfg == 5) & (jobs.steps == 28)).sum()
    assert n(cfg=(4, 6)) == jobs.cfg.isin([4, 6]).sum()
    assert n(group_name=None) == jobs.group_name.isna().sum()
    assert n(batch="cfg test") == (jobs.group_name == "cfg test").sum()
    assert n(lora="mika") == (jobs.loras.map(len) > 0).sum()
    assert n(lora=None) == (jobs.loras.map(len) == 0).sum()
    assert n(models="animagine-xl-4.0") == (jobs.model == "animagine-xl-4.0").sum()
    assert n(labels={"probe": "before"}) == jobs.labels.map(lambda labels: labels.get("probe") == "before").sum()
    assert n(kind=[]) == 0
    middle = jobs.created_at.median()
    assert n(since=middle) == n(since=middle.isoformat()) == (jobs.created_at >= middle).sum()
    year = (jobs.created_at >= datetime.now(UTC) - timedelta(days=365)).sum()
    assert n(since="365d") == n(since=timedelta(days=365)) == year


def test_simulated_runs_are_left_out_until_asked_for(studio: Studio, log: dict[str, pd.DataFrame]) -> None:
    done = log["jobs"][log["jobs"].status == "done"]
    for simulated, jobs in ((False, done[~done.simulated]), (True, done)):
        assert sum(row["n"] for row in studio.ask("cold_warm", simulated=simulated).records()) == len(jobs)
    assert "simulated" not in studio.ask("timeline", simulated=True).sql
    none = studio.ask("cold_warm", server_url="engine")
    assert "simulated=True" in str(none)
    assert "simulated=True" in none._repr_html_()


def test_a_value_is_never_text_of_the_query(studio: Studio) -> None:
    evil = "x') or true or ('"
    answer = studio.ask("cold_warm", model=evil, person=evil, batch=evil)
    assert answer.rows == []
    assert evil not in answer.sql
    assert set(answer.parameters.values()) == {evil}


@pytest.mark.parametrize(
    ("question", "where", "field", "said"),
    [
        ("poeple", {}, "question", "people"),
        ("", {}, "question", "help"),
        ("boxes", {"modle": "x"}, "modle", "model"),
        ("boxes", {"sinse": "7d"}, "sinse", "since"),
        ("boxes", {"1; drop table jobs": 1}, "1; drop table jobs", "columns of jobs"),
        ("boxes", {"parameters": "{}"}, "parameters", "cannot narrow"),
        ("boxes", {"question": "x"}, "question", "cannot narrow"),
        ("boxes", {"steps": "many"}, "steps", "a number"),
        ("boxes", {"seed": float("inf")}, "seed", "a number"),
        ("boxes", {"since": "yesterday"}, "since", "7d, 12h"),
        ("boxes", {"since": "999999999999d"}, "since", "a time"),
        ("boxes", {"simulated": "maybe"}, "simulated", "true or false"),
        ("boxes", {"labels": "probe"}, "labels", "names and values"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_nearest(studio: Studio, question: str, where: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(RequestInvalid, match=re.escape(said)) as refused:
        studio.ask(question, **where)
    assert refused.value.field == field


# ---- showing ------------------------------------------------------------------------------------------------------------


def test_help_lists_every_question_with_its_sentence(studio: Studio) -> None:
    assert studio.ask().rows == [(name, questions()[name].sentence) for name in MADE]
    assert len(MADE) == 18


def test_an_answer_shows_question_table_and_sql(studio: Studio) -> None:
    answer = studio.ask("cold_warm", model="<b>&")
    assert "No rows." in repr(answer)
    assert "&lt;b&gt;&amp;" in answer._repr_html_()
    assert "<b>" not in answer._repr_html_()
    answer = studio.ask("timeline")
    html = answer._repr_html_()
    assert html.count("<tr>") == 21
    assert "<strong>Who ran what, when?</strong>" in html
    assert "<details><summary>SQL</summary>" in html
    assert "first 20 of 500 rows" in html
    assert repr(answer).startswith("Who ran what, when?\n\nserver")
    assert len(answer.df()) == len(answer) == 500
    assert list(answer.df().columns) == list(answer.columns)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.123456, "0.1235"),
        (0.0000344, "0.000034"),
        (-0.00001, "-0.00001"),
        (1e-9, "1e-09"),
        (13725.9, "13726"),
        (7, "7"),
        (datetime(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02 03:04:05"),
    ],
)
def test_values_are_shown_as_one_reads_them(value: Any, text: str) -> None:
    assert shown(value) == text


# ---- charts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_every_question_has_a_chart_with_words_on_its_axes(studio: Studio, name: str) -> None:
    figure = studio.ask(name).plot()
    figure.draw_without_rendering()
    assert figure.axes
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel() or axes.get_yticklabels()
        assert axes.patches or axes.lines
    assert figure._suptitle.get_text().replace("\n", " ") == questions()[name].sentence


@pytest.mark.parametrize("name", MADE)
def test_one_row_of_which_little_is_known_can_be_drawn(studio: Studio, name: str) -> None:
    known = ("started_at", "hour", "target", "moment", "basis", "lora", "strength", "kept", "files", "median_abs_error", "coverage")
    row = studio.ask(name).records()[0]
    for told in (row, {column: value if column in known else None for column, value in row.items()}):
        charts.draw(name, "?", [told]).draw_without_rendering()


def test_every_unit_is_on_its_axis() -> None:
    assert set(charts.CHARTS) == {*MADE, "explain"}


def test_the_timeline_has_a_lane_a_server_and_a_bar_a_job(studio: Studio) -> None:
    answer = studio.ask("timeline")
    (axes,) = answer.plot("light").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert len(axes.patches) == 500
    assert sum(patch.get_hatch() is not None for patch in axes.patches) == sum(row["warmth"] == "cold" for row in answer.records())
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(legend) == sorted({row["model"] for row in answer.records()} | {"cold start"})


def test_an_empty_answer_says_so_in_words(studio: Studio) -> None:
    for name in NAMES:
        (axes,) = studio.ask(name, project="nobody").plot().axes if name != "help" else studio.ask("help").plot().axes
        assert not axes.patches
        assert "rows" in axes.texts[0].get_text() or name == "help"


def test_a_chart_is_a_transparent_picture_of_its_own(studio: Studio) -> None:
    figure = studio.ask("people").plot("dark")
    data, size = figure._repr_png_()
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.convert("RGBA").getpixel((1, 1))[3] == 0
        assert picture.width > size["width"] > 0
    assert "matplotlib.pyplot" not in sys.modules


def test_a_name_with_dollars_is_no_formula() -> None:
    rows = [{"who": "$x_{$", "jobs": 1, "gpu_min": 2.0, "wait_p50_s": 1.0, "clips": 0}]
    figure = charts.draw("people", "What do $1 and $2 cost?", rows)
    figure.draw_without_rendering()


def test_asking_for_the_names_loads_neither_duckdb_nor_matplotlib(tmp_path: Path) -> None:
    heavy = "{'duckdb', 'matplotlib', 'pandas', 'numpy', 'gradio'}"
    names = "from toolkit import Answer, Studio; from toolkit.analysis.questions import questions; questions()"
    code = f"import sys; {names}; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True).stdout == "[]\n"


# ---- the faces ----------------------------------------------------------------------------------------------------------


def toolkit(home: Path, *words: str) -> Any:
    return CliRunner().invoke(app, words, env={"TOOLKIT_HOME": str(home)}, prog_name="toolkit")


def test_the_command_prints_the_table_the_sql_or_json_lines(home: Path, studio: Studio) -> None:
    table = toolkit(home, "ask", "cold_warm", "--where", "model=animagine", "--where", "kind=image")
    assert table.exit_code == 0, table.stderr
    assert re.search(r"animagine-xl-4.0 +cold +\d+", table.stdout)
    assert "wan2.2" not in table.stdout
    assert "What does a cold start cost?" in table.stderr
    rows = [json.loads(line) for line in toolkit(home, "ask", "cold_warm", "--simulated", "--json").stdout.splitlines()]
    assert rows == studio.ask("cold_warm", simulated=True).records()
    either = toolkit(home, "ask", "timeline", "--json", "--where", "status=failed", "--where", "status=lost").stdout.splitlines()
    assert {json.loads(line)["status"] for line in either} == {"failed", "lost"}
    assert toolkit(home, "ask", "people", "--sql").stdout.strip() == questions()["people"].sql
    assert toolkit(home, "ask", "people", "--sql", "--where", "model=a\nb").stdout.endswith('\n-- $model = "a\\nb"\n')
    for name in NAMES:
        assert name in toolkit(home, "ask", "help").stdout or name == "help"
    assert toolkit(home, "ask").stdout == toolkit(home, "ask", "help").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [(["poeple"], "Did you mean people?"), (["people", "--where", "modle=x"], "model"), (["people", "--where", "model"], "write NAME=VALUE")],
)
def test_the_command_refuses_what_it_does_not_know(home: Path, words: list[str], said: str) -> None:
    answer = toolkit(home, "ask", *words)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert said in answer.stderr


def test_rest_answers_with_question_sql_columns_and_rows(studio: Studio) -> None:
    client = TestClient(build_service(studio, Settings(home=studio.home)), base_url="http://127.0.0.1")
    found = client.get("/api/anime/ask/timeline", params={"kind": ["image", "video"], "model": "anima", "simulated": "true"}).json()
    assert set(found) == {"question", "sql", "columns", "rows"}
    answer = studio.ask("timeline", kind=["image", "video"], model="anima", simulated=True)
    assert (found["question"], found["sql"], found["columns"]) == (answer.question, answer.sql, list(answer.columns))
    assert [datetime.fromisoformat(row[6]) for row in found["rows"]] == [row["started_at"] for row in answer.records()]
    assert [row[0] for row in client.get("/api/anime/ask/help").json()["rows"]] == MADE
    for path in ("poeple", "people?modle=x", "people?question=x", "people?self=x", "people?steps=many"):
        refused = client.get(f"/api/anime/ask/{path}")
        assert refused.status_code == 422, path
        assert refused.json()["error"]["code"] == "request_invalid"
    for name in NAMES:
        assert client.get(f"/api/anime/ask/{name}").status_code == 200


def test_an_answer_is_frozen(studio: Studio) -> None:
    answer = studio.ask("people")
    assert isinstance(answer, Answer)
    with pytest.raises(AttributeError):
        answer.sql = "x"  # type: ignore[misc]
