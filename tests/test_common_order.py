"""The common order on real sockets: models are loaded as seldom as can be, guests are not kept waiting by a sweep, servers share the work."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import end_children
from toolkit import ImageRequest, Studio


def ended(studio: Studio) -> list[tuple[str, str, float, str | None]]:
    """Model, server and start of every job in the order they started, and its warmth."""
    query = "from jobs select model, server_url, epoch(started_at), warmth where started_at is not null order by started_at"
    return studio.sql(query).fetchall()


@pytest.fixture
def studio(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOOLKIT_ENGINE_STEP_S", "0.02")
    monkeypatch.setenv("TOOLKIT_ENGINE_LOAD_S", "0.5")
    with Studio("engine", home=home) as made:
        yield made
    end_children(home)


def asked(number: int, model: str, **fields) -> ImageRequest:
    return ImageRequest(prompt=f"a fox {number}", seed=number, model=model, width=64, height=64, steps=3, quality_tags=False, **fields)


def test_jobs_that_alternate_between_two_models_load_each_once(studio: Studio) -> None:
    models = ("standin_xl.safetensors", "standin_illustrious")
    batch = studio.submit_many([asked(number, models[number % 2]) for number in range(20)], name="two models")
    batch.wait(120)
    order = [model for model, *_ in ended(studio)]
    switches = sum(1 for earlier, later in pairwise(order) if earlier != later)
    assert len(order) == 20
    assert switches == 1
    assert [warmth for *_, warmth in ended(studio)].count("cold") == 2


def test_a_guests_picture_starts_after_the_job_that_runs_and_is_told_when(studio: Studio) -> None:
    studio.submit_many([asked(number, "standin_illustrious") for number in range(3)]).wait(60)  # so that times are known
    sweep = studio.submit_many([asked(number, "standin_illustrious") for number in range(10, 60)], name="sweep")
    deadline = time.monotonic() + 30
    while not any(job.job.status == "running" for job in sweep) and time.monotonic() < deadline:
        time.sleep(0.02)
    last = studio.job(sweep[-1].id)
    while last.progress.starts_in is None and time.monotonic() < deadline:
        time.sleep(0.02)
    waits = last.progress.starts_in
    assert waits is not None
    assert waits.expected_s > 0.5
    picture = studio.submit(asked(99, "standin_xl.safetensors"), origin="page", person="ben")
    picture.wait(60)
    started = [job.job for job in sweep if job.job.started is not None and job.job.started.wall < picture.job.started.wall]
    assert len(started) < 25, "it did not wait for the sweep"
    sweep.cancel()


def test_predictions_are_kept_with_what_became_of_them(studio: Studio) -> None:
    studio.submit_many([asked(number, "standin_illustrious") for number in range(6)]).wait(60)
    studio.submit_many([asked(number, "standin_illustrious") for number in range(10, 40)]).wait(120)
    rows = studio.sql(
        "from etas select moment, target, count(*), count(actual_s), bool_and(low_s <= expected_s and expected_s <= high_s) group by all"
    ).fetchall()
    kinds = {(moment, target) for moment, target, *_ in rows}
    assert {("accepted", "start"), ("accepted", "end"), ("started", "end"), ("p50", "end")} <= kinds
    assert all(count == actual and holds for _, _, count, actual, holds in rows)


def test_a_plan_says_how_long_it_takes_once_that_is_known(studio: Studio) -> None:
    requests = [asked(number, "standin_illustrious") for number in range(50, 60)]
    assert studio.plan(requests).duration is None
    studio.submit_many([asked(number, "standin_illustrious") for number in range(4)]).wait(60)
    plan = studio.plan(requests)
    assert plan.duration is not None
    assert plan.duration.low_s < plan.duration.expected_s < plan.duration.high_s
    assert "about" in plan.sentence
    began = time.monotonic()
    studio.submit_many(requests).wait(60)
    assert time.monotonic() - began < 3 * plan.duration.high_s + 2
