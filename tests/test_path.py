"""The one to read first: a picture and a clip walked through every room, from words to a row one can query."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from toolkit import ImageRequest, Job, Progress, Studio, VideoRequest, Workflow, WorkflowRequest, metadata, request_of
from toolkit.jobs import Attempt
from toolkit.ledger import Ledger
from toolkit.requests import Request

OWN = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 2, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "my/own"}, "_meta": {"title": "Keep"}},
}


def check_everywhere(studio: Studio, job: Job) -> None:
    """File, sidecar, ledger and log say the same."""
    (file,) = job.files
    data = Path(file.path).read_bytes()
    assert hashlib.sha256(data).hexdigest() == file.sha256
    sidecar = json.loads(Path(file.path).with_suffix(".json").read_text())
    assert sidecar["job_id"] == job.id
    assert sidecar["sha256"] == file.sha256
    assert sidecar["request"] == job.request.as_json()
    assert sidecar["simulated"] is job.simulated is True
    row = studio.sql("from jobs where job_id = $id", id=job.id).fetchall()[0]
    columns = [name for name, *_ in studio.sql("describe jobs").fetchall()]
    facts = dict(zip(columns, row, strict=True))
    assert (facts["status"], facts["kind"], facts["simulated"]) == ("done", job.kind, True)
    assert (facts["width"], facts["height"], facts["seed"]) == (file.width, file.height, job.seed)
    assert facts["files"] == 1
    assert facts["size_bytes"] == len(data)
    assert facts["run_s"] > 0
    assert facts["timed_by"] == "events"
    output = studio.sql("select name, sha256, disk from outputs where job_id = $id", id=job.id).fetchall()
    assert output == [(file.name, file.sha256, "present")]
    attempt = studio.sql("select prompt_id, reason, status from attempts where job_id = $id", id=job.id).fetchall()
    assert attempt == [(job.id, "first", "done")]
    classes = {name for (name,) in studio.sql("select class from nodes where job_id = $id", id=job.id).fetchall()}
    assert classes & {"KSampler", "KSamplerAdvanced"}


async def test_a_prompt_becomes_a_picture_with_live_progress_a_file_a_sidecar_and_rows(studio: Studio) -> None:
    request = ImageRequest(prompt="silver-haired girl under cherry trees", seed=7, width=832, height=1216, steps=8, project="path")
    handle = studio.submit(request)
    seen: list[Job | Progress] = [news async for news in handle.updates()]
    result = await handle
    job = result.job
    assert job.status == "done"
    assert job.request == request
    assert job.prompt == "masterpiece, best quality, silver-haired girl under cherry trees"
    statuses = [news.status for news in seen if isinstance(news, Job)]
    assert statuses == sorted(statuses, key=["queued", "submitted", "running", "collecting", "done"].index)
    assert statuses[-1] == "done"
    assert handle.progress.fraction == 1.0
    (output,) = result.files
    assert output.image().size == (832, 1216)
    assert output.array().shape == (1, 1216, 832, 3)
    with Image.open(output.path) as picture:
        assert picture.format == "PNG"
        assert "KSampler" in picture.text["prompt"]  # type: ignore[attr-defined]
    assert Path(output.path).parent.parent == studio.home / "projects" / "path"
    check_everywhere(studio, job)


def test_a_prompt_becomes_a_clip_of_exactly_the_asked_frames(studio: Studio) -> None:
    request = VideoRequest(prompt="silver-haired girl, wind", seed=7, frames=33, fps=16, width=256, height=160, steps=2, project="path")
    result = studio.submit(request).wait(60)
    (output,) = result.files
    with av.open(output.path) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate == 16
    assert len(frames) == 33
    assert output.array().shape == (33, 160, 256, 3)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 0.5  # it moves
    assert result.job.files[0].media_type == "video/mp4"
    check_everywhere(studio, result.job)


@pytest.mark.parametrize(
    "asked",
    [
        ImageRequest(prompt="a fox girl in the rain, 狐", seed=2**64 - 21, width=256, height=384, steps=2, project="path", labels={"n": "1"}),
        VideoRequest(prompt="a fox girl in the rain", seed=21, frames=5, fps=16, width=256, height=160, steps=2, project="path"),
        WorkflowRequest(workflow=OWN, ui={"nodes": [], "links": [], "title": "mine"}, project="path"),
    ],
    ids=lambda asked: asked.kind,
)
def test_a_file_knows_its_request_and_asked_again_it_becomes_the_same_bytes(studio: Studio, asked: Request) -> None:
    first = studio.submit(asked, reuse=False).wait(60).job
    request = request_of(first.files[0].path)
    assert request == asked
    second = studio.submit(request, reuse=False).wait(60).job
    assert second.id != first.id
    assert second.files[0].path != first.files[0].path
    assert second.files[0].sha256 == first.files[0].sha256
    data = Path(first.files[0].path).read_bytes()
    assert all(word.encode() not in data for word in (first.id, "toolkit/", "127.0.0.1"))
    said = metadata.read(data)
    assert said.simulated
    assert said.workflow == getattr(asked, "ui", None)
    assert Workflow.load(data).api() == (OWN if asked.kind == "workflow" else said.prompt)
    prefixes = {node["inputs"].get("filename_prefix") for node in said.prompt.values()}
    assert prefixes - {None} == {{"image": "picture", "video": "clip", "workflow": "my/own"}[asked.kind]}
    if asked.kind != "workflow":
        assert f"Seed: {asked.seed}, " in said.parameters
        assert said.parameters.endswith("Version: anime-toolkit")


def test_a_job_is_found_again_by_the_beginning_of_its_id_after_a_restart(studio: Studio, shared_home: Path) -> None:
    handle = studio.image("a girl", seed=31, width=64, height=64, steps=1)
    handle.wait(60)
    studio.close()
    with Studio("engine", home=shared_home) as again:
        found = again.job(handle.id[:13])
        assert found.id == handle.id
        assert found.wait(10).job.status == "done"
        assert again.jobs(limit=1)[0].id == handle.id


def test_two_loops_and_a_thread_can_wait_for_one_job(studio: Studio) -> None:
    handle = studio.image("a girl", seed=41, width=64, height=64, steps=1)

    async def both() -> list[str]:
        results = await asyncio.gather(handle._until_done(), handle._until_done())
        return [result.job.status for result in results]

    assert asyncio.run(both()) == ["done", "done"]
    assert handle.wait(10).job.status == "done"


def test_importing_the_toolkit_loads_no_framework() -> None:
    heavy = ("gradio", "duckdb", "ipywidgets", "fastapi", "pandas", "av", "PIL", "numpy")
    code = f"import sys, toolkit; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_an_attempt_is_in_the_ledger_before_the_server_hears_of_it(studio: Studio, shared_home: Path) -> None:
    handle = studio.image("a girl", seed=51, width=64, height=64, steps=1)
    handle.wait(60)
    ledger = Ledger(shared_home)
    attempt = ledger.attempt(handle.id)
    assert isinstance(attempt, Attempt)
    assert attempt.sent is not None
    assert attempt.started is not None
    assert attempt.sent.wall <= attempt.started.wall
    ledger.close()
