"""The page without a browser: what the form asks for, what is shown of a job, what is served and what is not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from toolkit import ImageRequest, Progress, Range, ServerStatus, Studio, VideoRequest
from toolkit.errors import RequestInvalid
from toolkit.jobs import Instant, Job, JobStatus, OutputFile, Timings
from toolkit.ui import build_page, cards, page_options
from toolkit.ui.form import PRESETS, SIZES, request_of
from toolkit.ui.live import View
from toolkit.ui.page import Handlers
from toolkit.ui.workflow import WorkflowHandlers

EMPTY = {
    "kind": "image", "prompt": "a fox", "negative_prompt": "", "preset": "standard", "size": "preset", "width": "", "height": "", "steps": "", "cfg": "",
    "seed": "", "seconds": "", "frames": "", "fps": "",
}  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> [link](http://evil.example) {{x}} ${y}\"' onload=z"


def job(status: str = "running", **fields: Any) -> Job:
    request = fields.pop("request", ImageRequest(prompt=HOSTILE, seed=7))
    return Job("3f2a9c1e-0000", 1, 1, request, status, Instant(0.0), **fields)


def picture(path: str = "/home/a b/projects/x's/1.png", **fields: Any) -> OutputFile:
    return OutputFile(1, path, "x's/1.png", "image", "image/png", 10, "0" * 64, 832, 1216, **fields)


class Tags(HTMLParser):
    """What a browser would make of a piece of HTML: its tags with attributes, and its text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


async def built(studio: Studio) -> gr.Blocks:
    """The page, made while a loop runs: without one gradio makes a loop of its own and never closes it."""
    return build_page(studio)


async def mounted(studio: Studio) -> fastapi.FastAPI:
    return gr.mount_gradio_app(fastapi.FastAPI(), build_page(studio), path="", **page_options(studio.home))


# ---- the form --------------------------------------------------------------------------------------------------------------


def test_empty_fields_are_left_to_the_preset() -> None:
    made = request_of(EMPTY)
    assert made.as_json().keys() == ImageRequest(prompt="a fox").as_json().keys()


def test_typed_numbers_arrive_as_numbers() -> None:
    made = request_of({**EMPTY, "size": "own", "width": " 640 ", "height": "960", "steps": "12", "cfg": "4.5", "seed": str(2**64 - 1)})
    assert made == ImageRequest(prompt="a fox", width=640, height=960, steps=12, cfg=4.5, seed=2**64 - 1)


def test_a_picture_ignores_the_fields_of_clips_and_a_clip_takes_them() -> None:
    clip = request_of({**EMPTY, "kind": "video", "seconds": "2", "fps": "12", "size": "480x832", "seed": "1"})
    assert clip == VideoRequest(prompt="a fox", seconds=2, fps=12, width=480, height=832, seed=1)
    assert isinstance(request_of({**EMPTY, "seconds": "2"}), ImageRequest)


def test_width_and_height_count_only_for_an_own_size() -> None:
    made = request_of({**EMPTY, "size": "portrait", "width": "640"})
    assert isinstance(made, ImageRequest)
    assert (made.aspect, made.width) == ("portrait", None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": "  "}, "The prompt is empty."),
        ({"steps": "many"}, "`steps` is 'many': it must be a whole number from 1 to 200."),
        ({"steps": "9999"}, "`steps` is '9999': it must be a whole number from 1 to 200."),
        ({"seed": "-1"}, "`seed`"),
        ({"cfg": "nan"}, "`cfg`"),
        ({"size": "own", "width": "100000"}, "`width`"),
        ({"size": "own", "width": "641"}, "`width`"),
        ({"preset": "ultra"}, "`preset`"),
        ({"size": "huge"}, "`size` is 'huge'"),
        ({"kind": "workflow"}, "Choose a picture or a clip."),
        ({"kind": "video", "seconds": "2", "frames": "33"}, "Give seconds or frames, not both."),
        ({"kind": "video", "size": "portrait"}, "`size` is 'portrait'"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(change: dict[str, str], said: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        request_of({**EMPTY, **change})
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_every_choice_of_the_page_can_be_asked_for(kind: str) -> None:
    for _, size in SIZES[kind]:
        for _, preset in PRESETS:
            assert request_of({**EMPTY, "kind": kind, "size": size, "preset": preset}).preset == preset


# ---- what is shown ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "view",
    [
        View(job(), Progress(fraction=0.4, node=HOSTILE, step=1, steps=9, stalled=HOSTILE), (b"x", 'image/"><script>')),
        View(job("queued"), Progress(ahead=2)),
        View(job("failed", error=HOSTILE, hint=HOSTILE), Progress()),
        View(job("cancelled"), Progress()),
        View(job("done", files=(picture(f"/projects/{HOSTILE}.png"),), warnings=(HOSTILE,), simulated=True), Progress(fraction=1.0)),
    ],
    ids=lambda view: view.job.status,
)
def test_text_of_people_and_servers_never_becomes_markup(view: View) -> None:
    for markup in (cards.stage(view), cards.job_list([view])):
        shown = Tags(markup)
        assert {tag for tag, _ in shown.tags} <= {"div", "p", "i", "b", "span", "img", "a", "button", "h2"}
        assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on")]
        assert all((attributes.get("href") or "gradio_api/").startswith("gradio_api/file=") for tag, attributes in shown.tags if tag == "a")
    assert HOSTILE in Tags(cards.stage(view)).text


def test_a_prompt_of_two_hundred_lines_is_kept_as_it_is() -> None:
    prompt = "\n".join(f"line {n}" for n in range(200))
    assert prompt in Tags(cards.stage(View(job(request=ImageRequest(prompt=prompt)), Progress()))).text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "almost done"),
        (1.2, "about 1 s left"),
        (8.2, "about 8 s left"),
        (75, "about 75 s left"),
        (200, "about 3 min left"),
        (8000, "about 2 h 13 min left"),
    ],
)
def test_time_left_is_said_in_plain_words(seconds: float, said: str) -> None:
    assert cards.time_left(Progress(ends_in=Range(0, seconds, 9e9))) == said


def test_unknown_time_left_is_not_guessed() -> None:
    assert cards.time_left(Progress()) == ""


def test_the_place_in_line_is_said() -> None:
    assert cards.place_in_line(Progress(ahead=0)) == "Next in line"
    assert cards.place_in_line(Progress(ahead=1)) == "1 job before this one"
    assert cards.place_in_line(Progress(ahead=3, starts_in=Range(30, 40, 60))) == "3 jobs before this one, starts in about 40 s"


def test_the_built_in_engine_says_what_it_is_and_how_to_leave_it() -> None:
    engine = ServerStatus("engine", "built-in", "ready", "0.3.64", "draws", ["sdxl"], True)
    assert cards.STAND_IN in cards.server_line([engine])
    assert "toolkit connect " in cards.server_line([engine])
    real = ServerStatus("http://h:8188", "settings", "ready", "0.38.1", "RTX 3060", ["sdxl"], False)
    assert "ComfyUI 0.38.1 · http://h:8188 · RTX 3060" in cards.server_line([real])
    assert "does not answer" in cards.server_line([replace(real, state="unreachable")])


def test_a_done_picture_shows_seed_time_and_a_download() -> None:
    done = job("done", files=(picture(),), recipe={"seed": 7}, timings=Timings(run_s=3.75))
    shown = Tags(cards.stage(View(done, Progress(fraction=1.0))))
    assert "seed 7" in shown.text
    assert "took 3.8 s" in shown.text
    assert ("a", {"class": "get", "href": "gradio_api/file=/home/a%20b/projects/x%27s/1.png", "download": "1.png"}) in shown.tags


def test_a_file_that_was_deleted_is_said_instead_of_shown() -> None:
    shown = Tags(cards.stage(View(job("done", files=(picture(),)), Progress(fraction=1.0), gone=frozenset({1}))))
    assert "1 of 1 files were moved or deleted." in shown.text
    assert not [tag for tag, _ in shown.tags if tag in ("img", "a")]


@pytest.mark.parametrize("status", [status for status in JobStatus if status not in ("done", "done_partial")])
def test_every_status_has_words(status: str) -> None:
    view = View(job(status), Progress())
    assert Tags(cards.stage(view)).text.strip()
    assert Tags(cards.job_list([view])).text.strip()


# ---- what happens ----------------------------------------------------------------------------------------------------------


def test_a_press_submits_and_returns_and_the_view_follows_to_the_end(studio: Studio) -> None:
    handlers = Handlers(studio)
    before = time.monotonic()
    job_id, said = handlers.create({**EMPTY, "preset": "draft", "seed": "41"})
    assert time.monotonic() - before < 1.5
    assert said == ""
    assert job_id is not None

    async def watch() -> list[View | None]:
        return [view async for view in handlers.follow(job_id, "a page")]

    views = asyncio.run(asyncio.wait_for(watch(), 30))
    fractions = [view.progress.fraction for view in views if view is not None]
    assert fractions == sorted(fractions)
    last = views[-1]
    assert last is not None
    assert (last.job.status, last.job.origin, last.progress.fraction) == ("done", "page", 1.0)
    assert handlers.last_seed(job_id) == "41"
    assert "data:image/webp;base64," in handlers.latest()
    assert f'data-job="{job_id}"' in handlers.latest()


def test_a_page_follows_one_job_at_a_time(studio: Studio) -> None:
    handlers = Handlers(studio)
    first, _ = handlers.create({**EMPTY, "preset": "draft"})
    done = studio.job(str(first))
    done.wait(30)

    async def watch() -> tuple[int, int]:
        older = handlers.follow(first, "a page")
        assert await anext(older) is not None
        newer = [view async for view in handlers.follow(first, "a page")]
        return len(newer), len([view async for view in older])

    assert asyncio.run(watch()) == (1, 0)


def test_a_wrong_request_makes_no_job(studio: Studio) -> None:
    before = len(studio.jobs(limit=1000))
    assert Handlers(studio).create({**EMPTY, "prompt": ""}) == (None, "The prompt is empty.")
    assert len(studio.jobs(limit=1000)) == before


@pytest.mark.parametrize("stored", [None, "", "no-such-job", -1, {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}])
def test_what_a_browser_remembers_wrongly_shows_nothing(studio: Studio, stored: Any) -> None:
    handlers = Handlers(studio)

    async def watch() -> list[View | None]:
        return [view async for view in handlers.follow(stored, "a page")]

    assert asyncio.run(watch()) == [None]
    handlers.cancel(stored)
    assert handlers.last_seed(stored) == ""
    assert cards.stage(None) == cards.EMPTY_STAGE


# ---- the workflow tab ------------------------------------------------------------------------------------------------------


def test_a_file_runs_with_what_the_form_says_otherwise_than_it(studio: Studio, tmp_path: Path) -> None:
    made = studio.image("a fox", preset="draft", seed=3, width=128, height=128, steps=2).wait(30)
    handlers = WorkflowHandlers(studio)
    workflow, said = handlers.read(made.files[0].path)
    assert (workflow is not None, said) == (True, "")
    assert workflow is not None
    form = {name: str(parameter.value) for name, parameter in workflow.parameters.items() if "." not in name}
    assert {"prompt", "negative_prompt", "seed", "steps", "cfg", "sampler", "scheduler", "width", "height", "model"} <= form.keys()
    job_id, said = handlers.run(made.files[0].path, {**form, "seed": "", "prompt": "a wolf", "others": "filename_prefix=x\n"})
    assert (job_id, "filename_prefix" in said) == (None, True)
    job_id, said = handlers.run(made.files[0].path, {**form, "seed": "", "prompt": "a wolf", "steps": "3", "others": " 1.ckpt_name = standin_sd15.safetensors"})
    assert (said, job_id is not None) == ("", True)
    job = studio.job(str(job_id)).wait(30).job
    assert (job.origin, job.prompt, job.recipe["steps"], job.recipe["width"], job.seed != 3) == ("page", "a wolf", 3, 128, True)
    assert job.recipe["model"] == "standin_sd15"
    for wrong, sentence in (({"steps": "many"}, "'steps' is a whole number"), ({"others": "seed"}, "write NAME=VALUE"), ({"model": "nobody"}, "does not have")):
        job_id, said = handlers.run(made.files[0].path, {**form, **wrong})
        assert job_id is None
        assert sentence in said


def test_a_picture_of_the_form_is_kept_and_a_path_that_is_typed_is_none(studio: Studio, tmp_path: Path) -> None:
    path, drawn, private = tmp_path / "w.json", tmp_path / "drawn.png", tmp_path / "private.png"
    path.write_text(
        json.dumps(
            {
                "1": {"class_type": "LoadImage", "inputs": {"image": "of the file.png"}},
                "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
            }
        )
    )
    Image.new("RGB", (40, 24), "teal").save(drawn)
    Image.new("RGB", (8, 8), "red").save(private)
    before = set(studio.home.glob("inputs/*"))
    handlers = WorkflowHandlers(studio)
    workflow, _ = handlers.read(str(path))
    assert workflow is not None
    assert "of the file.png" in str([str(fault) for fault in workflow.faults])
    job_id, said = handlers.run(str(path), {"image": str(drawn), "others": ""})
    assert said == ""
    (file,) = studio.job(str(job_id)).wait(30).files
    assert (file.file.width, file.file.height) == (40, 24)
    assert handlers.run(str(path), {"image": None, "others": f"1.image={private}"})[0] is None
    assert len(set(studio.home.glob("inputs/*")) - before) == 1
    assert handlers.read(str(private))[0] is None


# ---- what is served --------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(asyncio.run(mounted(studio))) as client:
        yield client


def test_only_what_programs_may_call_is_a_public_endpoint(studio: Studio) -> None:
    page = asyncio.run(built(studio))
    info = page.get_api_info()
    assert (set(info["named_endpoints"]), info["unnamed_endpoints"]) == ({"/image", "/video"}, {})
    assert {fn.api_name for fn in page.fns.values() if fn.api_visibility != "private"} == {"image", "video"}


def test_no_event_waits_for_another_one(studio: Studio) -> None:
    assert {fn.concurrency_limit for fn in asyncio.run(built(studio)).fns.values() if fn.fn is not None and fn.queue} == {None}


def test_only_the_projects_folder_is_served(client: TestClient, studio: Studio) -> None:
    done = studio.image("a fox", preset="draft").wait(30)
    path = done.files[0].path
    assert client.get(f"/gradio_api/file={path}").content == Path(path).read_bytes()
    assert client.get(f"/gradio_api/file={path}", headers={"Range": "bytes=0-3"}).content == Path(path).read_bytes()[:4]
    for hidden in (studio.home / "ledger.sqlite", studio.home / "settings.json", Path("/etc/passwd"), Path(path).parents[2] / ".." / "ledger.sqlite"):
        assert client.get(f"/gradio_api/file={hidden}").status_code in (403, 404)


def test_the_page_names_no_other_address(client: TestClient) -> None:
    config = json.dumps(client.get("/config").json())
    assert "fonts.googleapis" not in config
    assert json.loads(config).get("analytics_enabled") in (False, None)
    theme = client.get("/theme.css").text
    assert "@import" not in theme
    assert "url(http" not in theme.replace('"', "")


def test_options_take_the_home_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path))
    assert page_options()["allowed_paths"] == [str(tmp_path / "projects")]
