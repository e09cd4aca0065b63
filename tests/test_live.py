"""Against a real ComfyUI: `COMFYUI_URL=http://127.0.0.1:8188 pytest -m live`. Needs no models; says so where it finds some."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import end_children
from toolkit import Progress, Studio
from toolkit.errors import ModelUnknown

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "live"}},
}
CLIP = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 12, "color": 255}},
    "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 8.0}},
    "3": {"class_type": "SaveVideo", "inputs": {"video": ["2", 0], "filename_prefix": "live", "format": "mp4", "codec": "h264"}},
}


@pytest.fixture
def url() -> str:
    url = os.environ["LIVE_COMFYUI_URL"]
    if not url or url == "engine":
        pytest.fail("set COMFYUI_URL to a real ComfyUI")
    return url


@pytest.fixture
def live(url: str, tmp_path: Path) -> Iterator[Studio]:
    with Studio(url, home=tmp_path / "home") as studio:
        yield studio
    end_children(tmp_path / "home")


def toolkit(home: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TOOLKIT_HOME": str(home), "COMFYUI_URL": url, "TOOLKIT_FEEDER_IDLE_S": "5"}
    return subprocess.run([sys.executable, "-m", "toolkit.cli", *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False)


def run_file(tmp_path: Path, url: str, graph: dict[str, Any], *options: str) -> dict[str, Any]:
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    done = toolkit(tmp_path / "home", url, "run", str(tmp_path / "graph.json"), "--json", *options)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_workflow_runs_to_a_right_picture_with_rows(url: str, tmp_path: Path) -> None:
    job = run_file(tmp_path, url, PICTURE, "--set", "1.color=65280")
    (file,) = job["files"]
    assert (job["status"], file["width"], file["height"], file["media_type"]) == ("done", 96, 64, "image/png")
    with Studio(url, home=tmp_path / "home") as studio:
        pixel = studio.job(job["id"] if "id" in job else job["job_id"]).wait(5).files[0].image().getpixel((5, 5))
        assert pixel == (255, 0, 255)  # the inverse of green
        rows = studio.sql("select status, simulated, timed_by, nodes_run from jobs").fetchall()
        assert rows == [("done", False, "events", 3)]
    end_children(tmp_path / "home")


def test_a_workflow_runs_to_a_right_clip(url: str, tmp_path: Path) -> None:
    job = run_file(tmp_path, url, CLIP)
    (file,) = job["files"]
    assert (job["status"], file["frames"], file["fps"], file["media_type"]) == ("done", 12, 8.0, "video/mp4")
    end_children(tmp_path / "home")


def test_progress_rises_and_ends_at_one(live: Studio) -> None:
    seen: list[float] = []
    graph = {**PICTURE, "1": {"class_type": "EmptyImage", "inputs": {"width": 2048, "height": 2048, "batch_size": 4, "color": 7}}}
    handle = live.run(graph)
    handle.subscribe(lambda news: seen.append(news.fraction) if isinstance(news, Progress) else None)
    result = handle.wait(60)
    assert len(result.files) == 4
    assert seen == sorted(seen)
    assert max(seen) < 1.0
    assert handle.progress.fraction == 1.0


def test_the_same_workflow_twice_gives_two_whole_files(live: Studio) -> None:
    first, second = live.run(PICTURE, reuse=False), live.run(PICTURE, reuse=False)
    paths = [handle.wait(60).files[0].path for handle in (first, second)]
    assert paths[0] != paths[1]
    assert all(Path(path).stat().st_size > 0 for path in paths)


def test_pictures_without_models_are_refused_before_anything_is_sent(live: Studio) -> None:
    if live.servers()[0].can_make:
        pytest.fail("this server has models: run this against one without")
    with pytest.raises(ModelUnknown, match="models/checkpoints"):
        live.image("a girl")
    with pytest.raises(ModelUnknown, match=r"(?s)models/diffusion_models.*models/text_encoders.*models/vae"):
        live.video("a girl")
    assert live.jobs() == []


def test_fifty_tiny_jobs_end_done_once_each(live: Studio) -> None:
    graphs = [{**PICTURE, "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": n}}} for n in range(50)]
    handles = [live.run(graph) for graph in graphs]
    jobs = [handle.wait(120).job for handle in handles]
    assert [job.attempt for job in jobs] == [1] * 50
    assert all(len(job.files) == 1 for job in jobs)
