"""The sample log: every question is answered on it by one call, and each answer is worked out a second time here, in plain Python over its tables."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from toolkit import Answer, Log
from toolkit.analysis.questions import questions

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
SAMPLE = SAMPLES / "comfyui_on_cpu.duckdb"
ENDED_BADLY = ("failed", "lost", "timed_out")
Row = Mapping[str, Any]
SAMPLED = [
    "slow_recipes", "boxes", "cold_warm", "reloads", "queue_wait", "stages", "slowest_nodes", "upgrade", "probe",
    "clip_second", "cost_per_keeper", "eta_quality", "failures", "busy", "people", "lora", "winners",
]  # fmt: skip


@pytest.fixture(scope="module")
def log() -> Log:
    return Log(SAMPLE)


@pytest.fixture(scope="module")
def held(log: Log) -> dict[str, list[dict[str, Any]]]:
    """Every table as plain rows."""
    found = {}
    for name in ("jobs", "nodes", "outputs", "attempts", "etas", "servers"):
        relation = log.sql(f"from {name}")
        found[name] = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
    return found


@pytest.fixture(scope="module")
def jobs(held: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [job for job in held["jobs"] if not job["simulated"]]


# ---- arithmetic of its own ----------------------------------------------------------------------------------------------


def known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def middle(values: Iterable[float | None]) -> float | None:
    found = known(values)
    return statistics.median(found) if found else None


def total(values: Iterable[float | None]) -> float | None:
    found = known(values)
    return sum(found) if found else None


def mean(values: Iterable[float | None]) -> float | None:
    found = known(values)
    return sum(found) / len(found) if found else None


def at_share(values: Iterable[float | None], share: float) -> float | None:
    """The value below which this share lies, between two in proportion."""
    found = sorted(known(values))
    if not found:
        return None
    place = share * (len(found) - 1)
    low = int(place)
    return found[low] + (found[min(low + 1, len(found) - 1)] - found[low]) * (place - low)


def minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def plus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def per(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[key] for key in keys)].append(row)
    return found


def same(answer: Answer, keys: Sequence[str], expected: Mapping[tuple[Any, ...], Row], by: Callable[[Row], Any] | None = None, most: int | None = None) -> None:
    """The answer has the expected rows, or the first of them in its order."""
    assert len(answer) == min(most or len(expected), len(expected)) > 0
    for row in answer.records():
        key = tuple(row[name] for name in keys)
        assert key in expected, key
        for name, value in expected[key].items():
            assert row[name] == (pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value), (key, name)
    if by is not None:
        every = sorted((by(row) for row in expected.values()), reverse=True)
        assert [by(row) for row in answer.records()] == pytest.approx(every[: len(answer)])


# ---- the seventeen ------------------------------------------------------------------------------------------------------


def test_slow_recipes(log: Log, jobs: list[Row]) -> None:
    keys = ("model", "sampler", "width", "height", "steps")
    runs = grouped((job for job in jobs if job["status"] == "done" and job["warmth"] == "warm"), *keys)
    expected = {
        key: {"n": len(found), "p50_s": middle(job["run_s"] for job in found), "p90_s": at_share((job["run_s"] for job in found), 0.9)}
        for key, found in runs.items()
        if len(found) >= 5
    }
    answer = log.ask("slow_recipes")
    same(answer, keys, expected, lambda row: row["p50_s"], 10)
    for row in answer.records():
        sizes = {job["megapixels"] for job in runs[tuple(row[key] for key in keys)]}
        assert any(row["s_per_mpx"] == pytest.approx(row["p50_s"] / size) for size in sizes)


def test_boxes(log: Log, held: dict[str, list[Row]], jobs: list[Row]) -> None:
    devices = {server["environment_id"]: server["device"] for server in held["servers"]}
    warm = [{**job, "device": devices[job["environment_id"]]} for job in jobs if job["warmth"] == "warm"]
    keys = ("model", "width", "height", "frames", "device")
    expected = {key: {"n": len(found), "s_per_step": middle(job["step_s"] for job in found)} for key, found in grouped(warm, *keys).items()}
    same(log.ask("boxes"), keys, expected)


def test_cold_warm(log: Log, jobs: list[Row]) -> None:
    runs = grouped((job for job in jobs if job["status"] == "done"), "model", "warmth")
    expected = {
        key: {
            "n": len(found), "run_s": middle(job["run_s"] for job in found), "load_s": middle(job["load_s"] for job in found),
            "hidden_load_s": middle(minus(job["first_step_s"], job["step_s"]) for job in found),
        }
        for key, found in runs.items()
    }  # fmt: skip
    same(log.ask("cold_warm"), ("model", "warmth"), expected)


def test_reloads(log: Log, jobs: list[Row]) -> None:
    expected: dict[tuple[Any, ...], dict[str, Any]] = {}
    before: dict[str, Any] = {}
    for job in sorted((job for job in jobs if job["started_at"]), key=lambda job: job["started_at"]):
        day = expected.setdefault((job["server_url"], job["started_at"].date()), {"jobs": 0, "switches": 0, "lost_s": None})
        day["jobs"] += 1
        last, before[job["server_url"]] = before.get(job["server_url"]), job["model"]
        if None not in (last, job["model"]) and last != job["model"]:
            day["switches"] += 1
            day["lost_s"] = total([day["lost_s"], minus(plus(job["load_s"], job["first_step_s"]), job["step_s"])])
    same(log.ask("reloads"), ("server_url", "day"), expected)


def test_queue_wait(log: Log, jobs: list[Row]) -> None:
    ran = [{**job, "hour": job["created_at"].astimezone(UTC).hour} for job in jobs if job["started_at"]]
    expected = {
        key: {
            "n": len(found),
            **{f"{place}_p50_s": middle(job[f"wait_{place}_s"] for job in found) for place in ("home", "server")},
            **{f"{place}_p95_s": at_share((job[f"wait_{place}_s"] for job in found), 0.95) for place in ("home", "server")},
        }
        for key, found in grouped(ran, "hour").items()
    }
    same(log.ask("queue_wait"), ("hour",), expected)


def test_stages(log: Log, jobs: list[Row]) -> None:
    expected = {}
    for (kind,), found in grouped((job for job in jobs if job["status"] == "done"), "kind").items():
        waits = middle(plus(job["wait_home_s"], job["wait_server_s"]) for job in found)
        stages = {stage: middle(job[f"{stage}_s"] for job in found) for stage in ("load", "encode", "sample", "decode", "save", "fetch")}
        expected |= {(kind, stage): {"median_s": seconds} for stage, seconds in {"wait": waits, **stages}.items() if seconds is not None}
    same(log.ask("stages"), ("kind", "stage"), expected)


def test_slowest_nodes(log: Log, held: dict[str, list[Row]], jobs: list[Row]) -> None:
    real = {job["job_id"] for job in jobs}
    nodes = grouped((node for node in held["nodes"] if not node["cached"] and node["job_id"] in real), "class", "stage")
    expected = {
        key: {"runs": len(found), "total_s": total(node["elapsed_s"] for node in found), "p50_s": middle(node["elapsed_s"] for node in found)}
        for key, found in nodes.items()
    }
    same(log.ask("slowest_nodes"), ("class", "stage"), expected, lambda row: row["total_s"] or 0.0, 10)


def test_upgrade(log: Log, held: dict[str, list[Row]], jobs: list[Row]) -> None:
    warm = [job for job in jobs if job["warmth"] == "warm" and job["timed_by"] == "events"]
    periods = sorted(held["servers"], key=lambda server: server["first_seen_at"])
    expected = []
    for (url, model, width, _, frames, _), found in grouped(warm, "server_url", "model", "width", "height", "frames", "sampler").items():
        runs = [(server, [job["step_s"] for job in found if job["environment_id"] == server["environment_id"]]) for server in periods]
        enough = [(server["comfyui_version"], len(steps), middle(steps)) for server, steps in runs if len(steps) >= 8]
        for (version_before, n_before, s_before), (version, n, s) in pairwise(enough):
            expected.append((url, version_before, version, model, width, frames, n_before, n, s_before, s, per(s, s_before)))
    found_rows = sorted(log.ask("upgrade").rows, key=lambda row: row[-1])
    assert len(found_rows) >= 1
    for row, other in zip(found_rows, sorted(expected, key=lambda row: row[-1]), strict=True):
        assert row[:-3] == other[:-3]
        assert row[-3:] == pytest.approx(other[-3:])
    ratios = [row[-1] for row in log.ask("upgrade").rows]
    assert ratios == sorted(ratios, reverse=True)


def test_probe(log: Log, jobs: list[Row]) -> None:
    probed = [{**job, "probe": job["labels"]["probe"]} for job in jobs if "probe" in (job["labels"] or {}) and job["warmth"] == "warm"]
    keys = ("graph_hash", "model", "server_url")
    expected = {
        key: {label: middle(job["step_s"] for job in found if job["probe"] == label) for label in ("before", "after")}
        for key, found in grouped(probed, *keys).items()
    }
    assert all(None not in row.values() for row in expected.values()), "the story needs both"
    same(log.ask("probe"), keys, expected)


def spent(held: dict[str, list[Row]]) -> dict[str, tuple[float | None, float | None]]:
    """Seconds and money of all attempts of a job whose server is known."""
    prices = {(server["environment_id"], server["server_url"]): server["price_per_hour"] for server in held["servers"]}
    attempts = [attempt for attempt in held["attempts"] if (attempt["environment_id"], attempt["server_url"]) in prices]
    found = {}
    for (job_id,), tries in grouped(attempts, "job_id").items():
        costs = [(one["run_s"], prices[one["environment_id"], one["server_url"]]) for one in tries]
        found[job_id] = (total(run_s for run_s, _ in costs), total(None if None in cost else cost[0] * cost[1] / 3600 for cost in costs))
    return found


def test_clip_second(log: Log, held: dict[str, list[Row]], jobs: list[Row]) -> None:
    costs = spent(held)
    clips = [job for job in jobs if (job["kind"] == "video" or job["clip_s"] is not None) and job["job_id"] in costs]
    expected = {}
    for key, found in grouped(clips, "model", "width", "height").items():
        made_s = total(job["clip_s"] for job in found if job["status"] == "done")
        seconds, money = (total(costs[job["job_id"]][place] for job in found) for place in (0, 1))
        not_done = sum(job["status"] != "done" for job in found)
        expected[key] = {"gpu_s_per_clip_s": per(seconds, made_s), "cost_per_clip_s": per(money, made_s), "not_done": not_done}
    same(log.ask("clip_second"), ("model", "width", "height"), expected)


def test_cost_per_keeper(log: Log, held: dict[str, list[Row]], jobs: list[Row]) -> None:
    costs, files = spent(held), grouped(held["outputs"], "job_id")
    pictures = [job for job in jobs if job["kind"] == "image" and job["job_id"] in costs]
    expected = {}
    for key, found in grouped(pictures, "model", "preset").items():
        made = [files[(job["job_id"],)] for job in found if (job["job_id"],) in files]
        kept = sum(file["verdict"] == "keep" for some in made for file in some) if made else None
        expected[key] = {"jobs": len(found), "kept": kept, "cost_per_keeper": per(total(costs[job["job_id"]][1] for job in found), kept)}
    same(log.ask("cost_per_keeper"), ("model", "preset"), expected)
    assert any(row["cost_per_keeper"] for row in expected.values())


def test_eta_quality(log: Log, held: dict[str, list[Row]], jobs: list[Row]) -> None:
    real = {job["job_id"] for job in jobs}
    told = grouped((eta for eta in held["etas"] if eta["actual_s"] is not None and eta["job_id"] in real), "target", "moment", "basis")
    expected = {
        key: {
            "n": len(found), "median_abs_error": middle(abs(eta["error"]) for eta in found if eta["error"] is not None),
            "bias": middle(eta["error"] for eta in found), "coverage": mean(float(eta["inside"]) for eta in found),
        }
        for key, found in told.items()
    }  # fmt: skip
    same(log.ask("eta_quality"), ("target", "moment", "basis"), expected)


def test_failures(log: Log, held: dict[str, list[Row]], jobs: list[Row]) -> None:
    real = {job["job_id"] for job in jobs}
    bad = [attempt for attempt in held["attempts"] if attempt["status"] in ENDED_BADLY and attempt["job_id"] in real]
    expected = {
        (_monday(found[0]["submitted_at"]), *key[1:]): {"n": len(found), "lost_s": total(attempt["run_s"] for attempt in found)}
        for key, found in grouped(
            ({**one, "week": _monday(one["submitted_at"])} for one in bad), "week", "failure_kind", "failure_node", "server_url"
        ).items()
    }  # fmt: skip
    answer = log.ask("failures")
    rows = {(row["week"], row["failure_kind"], row["failure_node"], row["server_url"]): row for row in answer.records()}
    assert rows.keys() == expected.keys()
    for key, row in expected.items():
        assert rows[key]["n"] == row["n"]
        assert rows[key]["lost_s"] == (pytest.approx(row["lost_s"]) if row["lost_s"] is not None else None)


def _monday(at: datetime | None) -> datetime | None:
    if at is None:
        return None
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def test_busy(log: Log, held: dict[str, list[Row]], jobs: list[Row]) -> None:
    names = {(server["environment_id"], server["server_url"]): server["name"] for server in held["servers"]}
    ran = [job for job in jobs if job["started_at"] and (job["environment_id"], job["server_url"]) in names]
    ran = [{**job, "name": names[job["environment_id"], job["server_url"]], "day": job["started_at"].astimezone(UTC).date()} for job in ran]
    expected = {
        key: {
            "busy_share": per(total(job["run_s"] for job in found), 86400), "jobs": len(found),
            "from_elsewhere": sum(job["origin"] == "observed" for job in found),
        }
        for key, found in grouped(ran, "name", "day").items()
    }  # fmt: skip
    same(log.ask("busy"), ("name", "day"), expected)
    assert sum(row["from_elsewhere"] for row in expected.values()) > 0


def test_people(log: Log, jobs: list[Row]) -> None:
    now = log.ends_at
    assert now is not None
    week = [{**job, "who": job["person"] or job["origin"]} for job in jobs if job["started_at"] and job["started_at"] > now - timedelta(days=7)]
    expected = {
        key: {
            "jobs": len(found), "gpu_min": per(total(job["run_s"] for job in found), 60),
            "wait_p50_s": middle(plus(job["wait_home_s"], job["wait_server_s"]) for job in found), "clips": sum(job["kind"] == "video" for job in found),
        }
        for key, found in grouped(week, "who").items()
    }  # fmt: skip
    same(log.ask("people"), ("who",), expected)
    assert len(expected) >= 2


def test_lora(log: Log, held: dict[str, list[Row]], jobs: list[Row]) -> None:
    files = grouped(held["outputs"], "job_id")
    uses = [
        {"lora": lora["name"], "strength": lora["strength"], "model": job["model"], "file": file}
        for job in jobs
        for lora in job["loras"] or ()
        for file in files.get((job["job_id"],), ())
    ]
    expected = {
        key: {"files": len(found), "kept": sum(use["file"]["verdict"] == "keep" for use in found), "latest": max(use["file"]["name"] for use in found)}
        for key, found in grouped(uses, "lora", "strength", "model").items()
    }
    same(log.ask("lora"), ("lora", "strength", "model"), expected)
    mika = {key: row for key, row in expected.items() if "mika" in key[0]}
    same(log.ask("lora", lora="MIKA"), ("lora", "strength", "model"), mika)
    assert 0 < len(mika) < len(expected)


def test_winners(log: Log, held: dict[str, list[Row]], jobs: list[Row]) -> None:
    of = {job["job_id"]: job for job in held["jobs"]}
    judged = [{**of[file["job_id"]], "verdict": file["verdict"]} for file in held["outputs"] if file["verdict"] is not None]
    for where, rows in (({}, judged), ({"batch": "cfg test"}, [row for row in judged if row["group_name"] == "cfg test"])):
        expected = {
            key: {"n": len(found), "kept_share": mean(float(row["verdict"] == "keep") for row in found), "run_s": middle(row["run_s"] for row in found)}
            for key, found in grouped(rows, "cfg", "sampler").items()
        }
        same(log.ask("winners", **where), ("cfg", "sampler"), expected, lambda row: row["kept_share"], 6)


# ---- what it is ---------------------------------------------------------------------------------------------------------


def test_every_question_has_an_answer_and_a_chart(log: Log) -> None:
    asked = [name for name in questions() if name not in ("help", "timeline")]
    assert asked == SAMPLED
    for name in (*asked, "timeline"):
        answer = log.ask(name)
        assert len(answer) > 0, name
        figure = answer.plot("light")
        figure.draw_without_rendering()
        assert any(axes.patches or axes.lines for axes in figure.axes), name


def test_it_is_small_real_and_tells_nothing_of_the_machine_it_was_made_on(log: Log, held: dict[str, list[Row]]) -> None:
    assert SAMPLE.stat().st_size < 1_500_000
    assert len(held["jobs"]) >= 200
    assert not any(job["simulated"] for job in held["jobs"])
    assert {server["comfyui_version"] for server in held["servers"]} == {"0.3.64"}
    text = json.dumps(held, default=str)
    found = re.findall(r"(?<![\w/:.<])/(?:work|tmp|home|root|usr|mnt|data)\b[^\"\s]*", text)
    assert found == []
    assert set(re.findall(r"https?://[^/\"\s:]+", text)) == {"http://127.0.0.1"}


def test_its_page_says_what_it_is_and_names_the_figures_it_has(held: dict[str, list[Row]]) -> None:
    said = (SAMPLES / "README.md").read_text()
    assert f"{len(held['jobs'])} jobs" in said
    assert "0.3.64" in said
    assert "random" in said
    assert SAMPLE.name in said


def test_it_answers_from_the_shell_without_any_home(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "toolkit.cli", "--home", str(tmp_path / "none"), "ask", "cold_warm", "--log", str(SAMPLE), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert {json.loads(line)["model"] for line in done.stdout.splitlines()} >= {"tiny-sd15-a", "tiny-sd15-b"}
    assert not (tmp_path / "none").exists()
