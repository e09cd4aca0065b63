"""The page without a browser: what the form asks for, what is shown of a job, what is served and what is not."""

from __future__ import annotations

import asyncio
import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr
import pytest
from fastapi.testclient import TestClient
from gradio.state_holder import SessionState
from PIL import Image

from toolkit import ImageRequest, Progress, Range, ServerStatus, Studio, VideoRequest
from toolkit.analysis.questions import questions
from toolkit.errors import RequestInvalid
from toolkit.jobs import Instant, Job, JobStatus, OutputFile, Timings
from toolkit.ui import build_page, cards, mending, page_options
from toolkit.ui.about import About
from toolkit.ui.acts import Acts
from toolkit.ui.create import Making
from toolkit.ui.form import KINDS, PRESETS, SIZES, request_of, values_of
from toolkit.ui.gallery import Shelf
from toolkit.ui.live import View
from toolkit.ui.page import Handlers
from toolkit.ui.queue import Line
from toolkit.ui.timings import Answering
from toolkit.ui.workflow import WorkflowHandlers
from toolkit.visitors import THE_OWNER, Visitor

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # by gradio's queue, which counts its events with pandas
EMPTY = {
    "kind": "image", "prompt": "a fox", "negative_prompt": "", "preset": "standard", "size": "preset", "width": "", "height": "", "steps": "", "cfg": "",
    "seed": "", "seconds": "", "frames": "", "fps": "", "motion": "", "model": "", "lora": [], "lora_strength": "", "image": None, "mask": None,
    "last_image": None, "denoise": "", "batch_size": "",
}  # fmt: skip
ALLOWED = {"div", "p", "i", "b", "span", "img", "a", "button", "h2", "svg", "path", "details", "summary", "dl", "dt", "dd", "pre"}
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
    app = fastapi.FastAPI()
    app.state.page = build_page(studio)
    return gr.mount_gradio_app(app, app.state.page, path="", **page_options(studio.home))


# ---- the form --------------------------------------------------------------------------------------------------------------


def test_empty_fields_are_left_to_the_preset() -> None:
    made = request_of(EMPTY)
    assert made.as_json().keys() == ImageRequest(prompt="a fox").as_json().keys()


def test_typed_numbers_arrive_as_numbers() -> None:
    made = request_of({**EMPTY, "size": "own", "width": " 640 ", "height": "960", "steps": "12", "cfg": "4.5", "seed": str(2**64 - 1)})
    assert made == ImageRequest(prompt="a fox", width=640, height=960, steps=12, cfg=4.5, seed=2**64 - 1)


def test_a_picture_ignores_the_fields_of_clips_and_a_clip_takes_them() -> None:
    clip = request_of({**EMPTY, "kind": "video", "seconds": "2", "fps": "12", "size": "portrait", "seed": "1", "batch_size": "4"})
    assert clip == VideoRequest(prompt="a fox", seconds=2, fps=12, aspect="portrait", seed=1)
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
        ({"lora": ["x"], "lora_strength": "much"}, "The strength of a LoRA is 'much'"),
        ({"lora": ["x"], "lora_strength": "99"}, "`loras.0.strength` is 99.0"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(change: dict[str, str], said: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        request_of({**EMPTY, **change})
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [kind for _, kind in KINDS])
def test_every_choice_of_the_page_can_be_asked_for(kind: str) -> None:
    for _, size in SIZES:
        for _, preset in PRESETS:
            assert request_of({**EMPTY, "kind": kind, "size": size, "preset": preset}).preset == preset


def test_a_still_that_becomes_a_clip_is_asked_for_as_a_picture() -> None:
    still = request_of({**EMPTY, "kind": "keyframe", "seconds": "2", "motion": "she turns", "seed": "1"})
    assert still == ImageRequest(prompt="a fox", seed=1)


@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest(prompt="a fox", seed=7, width=640, height=960, steps=12, cfg=4.5, negative_prompt="", batch_size=2, preset="high"),
        ImageRequest(prompt="a fox", seed=2**64 - 1, aspect="tall", loras=[{"name": "a", "strength": 0.5}, {"name": "b", "strength": 0.5}], model="pony"),
        VideoRequest(prompt="waves", seconds=2.5, fps=12, aspect="wide", seed=3, preset="draft"),
    ],
    ids=["own size", "aspect and LoRAs", "clip"],
)
def test_the_form_filled_with_a_request_asks_for_the_same(request_: ImageRequest | VideoRequest) -> None:
    again = request_of({**EMPTY, **values_of(request_, [name for name in EMPTY if name not in ("image", "mask", "last_image")])})
    assert again == (request_.but(negative_prompt=None) if request_.negative_prompt == "" else request_)


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
        assert {tag for tag, _ in shown.tags} <= ALLOWED
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
    assert cards.place_in_line(Progress(ahead=1)) == "2nd in line"
    told = Progress(ahead=2, starts_in=Range(30, 40, 60), ends_in=Range(60, 75, 90))
    assert cards.place_in_line(told) == "3rd in line, starts in about 40 s, done in about 75 s"
    assert [cards.ordinal(number) for number in (1, 11, 12, 13, 21, 111)] == ["1st", "11th", "12th", "13th", "21st", "111th"]


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
    assert ("a", {"class": "act get", "href": "gradio_api/file=/home/a%20b/projects/x%27s/1.png", "download": "1.png"}) in shown.tags


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


ANN = Visitor("ann", is_owner=False)


def drafted(studio: Studio, visitor: Visitor = THE_OWNER, **fields: Any) -> str:
    """The id of a small picture that is done."""
    made = studio.submit(ImageRequest(**{"prompt": "a fox", "preset": "draft", "width": 64, "height": 64, "steps": 2, **fields}), person=visitor.person)
    made.wait(30)
    return made.id


def test_a_press_submits_and_returns_and_the_view_follows_to_the_end(studio: Studio) -> None:
    handlers = Handlers(studio)
    before = time.monotonic()
    job_id, error = handlers.making.submit({**EMPTY, "preset": "draft", "seed": "41"})
    assert time.monotonic() - before < 1.5
    assert error is None
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
    handlers, first = Handlers(studio), drafted(studio)

    async def watch() -> tuple[int, int]:
        older = handlers.follow(first, "a page")
        assert await anext(older) is not None
        newer = [view async for view in handlers.follow(first, "a page")]
        return len(newer), len([view async for view in older])

    assert asyncio.run(watch()) == (1, 0)


def test_a_wrong_request_makes_no_job_and_names_its_field(studio: Studio) -> None:
    before = len(studio.jobs(limit=1000))
    job_id, error = Making(studio).submit({**EMPTY, "prompt": ""})
    assert (job_id, str(error), error.field if error else None) == (None, "The prompt is empty.", "prompt")
    shown = Tags(cards.refusal(error))
    assert (shown.text, shown.tags[0][1]["data-field"], shown.tags[0][1]["role"]) == ("The prompt is empty.", "prompt", "alert")
    assert len(studio.jobs(limit=1000)) == before


def test_the_plan_says_what_a_press_would_do_or_why_not(studio: Studio) -> None:
    making, before = Making(studio), len(studio.jobs(limit=1000))
    said, error = making.plan({**EMPTY, "seed": "5"})
    assert said.startswith("1 job")
    assert error is None
    assert making.plan({**EMPTY, "prompt": " "}) == ("", None)
    said, error = making.plan({**EMPTY, "steps": "999"})
    assert (said, error.field if error else None) == ("", "steps")
    said, error = making.plan({**EMPTY, "model": "nobody"})
    assert "no model 'nobody'" in str(error)
    assert len(studio.jobs(limit=1000)) == before


def test_who_types_sends_no_server_a_look_at_each_letter(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.servers()
    monkeypatch.setattr(type(studio._servers), "usable", lambda servers: pytest.fail("asked a server"))
    assert Making(studio).plan({**EMPTY, "seed": "6"})[0].startswith("1 job")


def test_no_path_of_this_machine_is_said() -> None:
    assert Tags(cards.refusal(RequestInvalid("/home/somebody/x.json holds nothing."))).text == "x.json holds nothing."


@pytest.mark.parametrize("stored", [None, "", "no-such-job", -1, {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}])
def test_what_a_browser_remembers_wrongly_shows_nothing(studio: Studio, stored: Any) -> None:
    handlers = Handlers(studio)

    async def watch() -> list[View | None]:
        return [view async for view in handlers.follow(stored, "a page")]

    assert asyncio.run(watch()) == [None]
    assert "There is no job" in str(handlers.acts.press({"act": "cancel", "job": stored}, {}, THE_OWNER).error)
    assert handlers.last_seed(stored) == ""
    assert cards.stage(None) == cards.EMPTY_STAGE


# ---- presses on jobs and files ---------------------------------------------------------------------------------------------


def test_hearts_crosses_and_the_bin_do_what_they_say(studio: Studio) -> None:
    acts, job_id = Acts(studio), drafted(studio)

    def press(act: str) -> tuple[str | None, str]:
        done = acts.press({"act": act, "job": job_id, "number": "1"}, {}, THE_OWNER)
        assert done.error is None
        (file,) = studio.job(job_id).job.files
        return studio._ledger.verdicts([job_id]).get((job_id, 1)), file.disk

    said = [press(act) for act in ("keep", "reject", "unrate", "trash", "restore")]
    assert said == [("keep", "present"), ("reject", "present"), (None, "present"), (None, "trashed"), (None, "present")]


def test_what_no_button_says_does_nothing(studio: Studio) -> None:
    acts, job_id = Acts(studio), drafted(studio)
    for press in ({}, {"act": "delete", "job": job_id}, {"act": "__class__", "job": job_id}):
        assert acts.press(press, {}, THE_OWNER) == type(acts.press({}, {}, THE_OWNER))()
    assert "no such file" in str(acts.press({"act": "keep", "job": job_id, "number": "../1"}, {}, THE_OWNER).error)


def test_a_result_is_made_again_enlarged_moved_and_put_into_the_form(studio: Studio) -> None:
    acts, job_id = Acts(studio), drafted(studio, seed=11)
    again, large = (acts.press({"act": act, "job": job_id, "number": "1"}, EMPTY, THE_OWNER) for act in ("again", "upscale"))
    moved = acts.press({"act": "animate", "job": job_id, "number": "1"}, {**EMPTY, "motion": "it runs", "seconds": "0.3", "preset": "draft"}, THE_OWNER)
    assert studio.job(str(again.job_id)).job.seed != 11
    assert studio.job(str(large.job_id)).wait(30).files[0].file.width == 128
    clip = studio.job(str(moved.job_id))
    assert (clip.job.kind, clip.job.request.prompt, clip.job.request.image is not None) == ("video", "it runs", True)  # type: ignore[attr-defined]
    clip.cancel()
    assert acts.press({"act": "with", "job": job_id}, {}, THE_OWNER).request == studio.job(job_id).job.request
    assert "took" in acts.press({"act": "explain", "job": job_id}, {}, THE_OWNER).said


def test_a_guest_neither_sees_nor_touches_what_is_anothers(studio: Studio) -> None:
    acts, shelf = Acts(studio), Shelf(studio)
    mine, hers = drafted(studio, prompt="a secret of the owner"), drafted(studio, ANN, prompt="a hare")
    for act in ("show", "with", "again", "explain", "cancel", "keep", "trash", "animate", "upscale"):
        assert "There is no job" in str(acts.press({"act": act, "job": mine, "number": "1"}, EMPTY, ANN).error)
    assert acts.press({"act": "keep", "job": hers, "number": "1"}, EMPTY, ANN).error is None
    assert [rating.person for rating in studio._ledger.ratings([hers])] == ["ann"]
    assert "secret" not in shelf.shown({}, visitor=ANN)
    assert "a hare" in shelf.shown({}, visitor=ANN)
    acts.press({"act": "trash", "job": mine, "number": "1"}, {}, THE_OWNER)
    assert "secret" in shelf.shown({"verdict": "bin"})
    assert "secret" not in shelf.shown({"verdict": "bin"}, visitor=ANN)
    assert "secret" not in Handlers(studio).latest(ANN)


# ---- the other tabs --------------------------------------------------------------------------------------------------------


def test_who_signed_in_reads_what_is_left_to_them_and_finds_the_way_out(studio: Studio) -> None:
    studio._ledger.people.add("zoe")
    told = Tags(About(studio).shown(Visitor("zoe", is_owner=False, key=b"key")))
    assert all(words in told.text for words in ("zoe", "0 of 30 jobs", "0 of 5 jobs", "Built-in engine"))
    assert [about["href"] for tag, about in told.tags if tag == "a"] == ["sign-in", "api/docs"]
    owner = Tags(About(studio).shown(Visitor(key=b"key")))
    assert "Sign out" in owner.text
    assert "0 of" not in owner.text
    assert "Sign out" not in About(studio).shown(), "a home without people has no door"
    studio._ledger.people.remove("zoe")


def test_the_line_names_others_to_the_owner_and_not_to_guests(studio: Studio) -> None:
    owners = studio.submit(ImageRequest(prompt="a secret", steps=150), person="owner")
    hers = studio.submit(ImageRequest(prompt="hers", steps=150), person="ann")
    try:
        seen, told = Tags(Line(studio).shown()), Tags(Line(studio).shown(ANN))
        assert all(word in seen.text for word in ("2 in line", "a secret", "hers", "ann"))
        assert all(word in told.text for word in ("2 in line", "someone", "hers", "ann"))
        assert "secret" not in told.text
        assert [about["data-job"] for tag, about in told.tags if tag == "button"] == [hers.id, hers.id]
    finally:
        for handle in (owners, hers):
            handle.cancel()


def test_the_gallery_finds_by_words_verdict_project_and_model(studio: Studio) -> None:
    shelf, acts = Shelf(studio), Acts(studio)
    kept, other = drafted(studio, prompt="a violet lantern", project="lamps"), drafted(studio, prompt="a violet kite")
    acts.press({"act": "keep", "job": kept, "number": "1"}, {}, THE_OWNER)

    def found(**values: str) -> set[str]:
        return {str(about["data-job"]) for tag, about in Tags(shelf.shown(values)).tags if tag == "button" and about["data-act"] == "show"}

    assert found(search="violet") == {kept, other}
    assert found(search="violet", verdict="keep") == {kept}
    assert found(search="violet", project="lamps") == {kept}
    assert found(search="violet", model=str(studio.job(kept).job.recipe["model"])) == {kept, other}
    assert found(search="violet", model="no such") == set()
    assert ("lamps", "lamps") in shelf.choices()[0]
    assert "stand-in drawings" in shelf.shown({})


def test_a_question_is_a_chart_and_a_table_with_a_file_of_it(studio: Studio) -> None:
    drafted(studio)
    shown = Tags(Answering(studio, has_console=True).answer("stages"))
    assert [str(about["alt"])[:5] for tag, about in shown.tags if tag == "img"] == ["Chart", "Chart"]
    (link,) = [about for tag, about in shown.tags if tag == "a"]
    assert str(link["href"]).startswith("data:text/csv;charset=utf-8,kind%2Cstage%2Cmedian_s")
    assert "built-in engine" in shown.text
    assert "There is no question" in Answering(studio, has_console=True).answer("nonsense")
    assert "for the owner" in Answering(studio, has_console=True).answer("people", visitor=ANN)


@pytest.mark.parametrize("question", [name for name in questions() if name != "help"])
def test_every_question_is_answered_on_the_page(studio: Studio, question: str) -> None:
    assert "refusal" not in Answering(studio, has_console=True).answer(question, "30d")


def test_the_console_answers_the_owner_and_nobody_else(studio: Studio) -> None:
    drafted(studio)
    open_, closed = Answering(studio, has_console=True), Answering(studio, has_console=False)
    shown = Tags(open_.query("from jobs select status, count(*) as jobs group by all"))
    assert "done" in shown.text
    assert [tag for tag, _ in shown.tags].count("img") == 2
    for refused in (open_.query("select 1", ANN), closed.query("select 1"), closed.query("select 1", ANN)):
        assert "for the owner" in refused
    wrong = open_.query("select nothing from jobs")
    assert "nothing" in wrong
    assert str(studio.home) not in wrong
    assert "&lt;b&gt;" in open_.query("select '<b>x</b>' as x")
    assert "refusal" in open_.query("select * from read_text('/etc/passwd')")


# ---- the workflow tab ------------------------------------------------------------------------------------------------------


def test_a_file_runs_with_what_the_form_says_otherwise_than_it(studio: Studio, tmp_path: Path) -> None:
    made = studio.image("a fox", preset="draft", seed=3, width=128, height=128, steps=2).wait(30)
    handlers = WorkflowHandlers(studio)
    workflow, error = handlers.read(made.files[0].path)
    assert error is None
    assert workflow is not None
    form = {name: str(parameter.value) for name, parameter in workflow.parameters.items() if "." not in name}
    assert {"prompt", "negative_prompt", "seed", "steps", "cfg", "sampler", "scheduler", "width", "height", "model"} <= form.keys()
    job_id, error = handlers.run(made.files[0].path, {**form, "seed": "", "prompt": "a wolf", "others": "filename_prefix=x\n"})
    assert (job_id, "filename_prefix" in str(error)) == (None, True)
    job_id, error = handlers.run(
        made.files[0].path, {**form, "seed": "", "prompt": "a wolf", "steps": "3", "others": " 1.ckpt_name = standin_sd15.safetensors"}
    )
    assert (error, job_id is not None) == (None, True)
    job = studio.job(str(job_id)).wait(30).job
    assert (job.origin, job.prompt, job.recipe["steps"], job.recipe["width"], job.seed != 3) == ("page", "a wolf", 3, 128, True)
    assert job.recipe["model"] == "standin_sd15"
    for wrong, sentence in (({"steps": "many"}, "'steps' is a whole number"), ({"others": "seed"}, "write NAME=VALUE"), ({"model": "nobody"}, "does not have")):
        job_id, error = handlers.run(made.files[0].path, {**form, **wrong})
        assert job_id is None
        assert sentence in str(error)


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
    job_id, error = handlers.run(str(path), {"image": str(drawn), "others": ""})
    assert error is None
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


def called(client: TestClient, name: str, **values: Any) -> dict[str, Any]:
    """What the page's server answers to an event as any program can send it, with these values in the fields of these ids."""
    config = client.get("/config").json()
    page: gr.Blocks = client.app.state.page  # type: ignore[attr-defined]
    number, event = next((number, event) for number, event in page.fns.items() if getattr(event.fn, "__qualname__", "").endswith(name))
    given = {part["id"]: part["props"] for part in config["components"]}
    data = [values.get(given[part._id].get("elem_id"), given[part._id].get("value")) for part in event.inputs]
    asked = client.post("/gradio_api/queue/join", json={"data": data, "fn_index": number, "session_hash": "anybody"})
    assert asked.status_code == 200
    for line in client.get("/gradio_api/queue/data", params={"session_hash": "anybody"}).text.splitlines():
        said = json.loads(line.removeprefix("data: ")) if line else {}
        if said.get("msg") == "process_completed":
            return dict(said)
    raise AssertionError("no answer")


def test_a_program_that_is_no_browser_is_checked_like_one(client: TestClient, studio: Studio) -> None:
    studio.servers()  # what it has is known from here on
    before = len(studio.jobs(limit=1000))
    said = called(client, "_wire_form.<locals>.submit", prompt="a fox", steps="9999")
    assert "from 1 to 200" in str(said["output"]["data"])
    for wrong in ({"preset": "ultra"}, {"kind": "workflow"}, {"size": "1x1"}, {"model": {"a": 1}}, {"lora": [{"a": 1}]}, {"seed": 1.5}):
        said = called(client, "_wire_form.<locals>.submit", **{"prompt": "a fox", **wrong})
        assert not said["success"] or "refusal" in str(said["output"]["data"]), wrong
    assert len(studio.jobs(limit=1000)) == before


def test_a_file_that_was_not_uploaded_is_not_read(client: TestClient, studio: Studio) -> None:
    done, before = studio.job(drafted(studio)).job, set(studio.home.glob("inputs/*"))
    for path in ("/etc/passwd", str(studio.home / "ledger.sqlite"), done.files[0].path):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.png"}
        said = called(client, "_wire_form.<locals>.submit", prompt="a fox", image=file)
        assert not said["success"]
        assert "passwd" not in str(said)
    assert set(studio.home.glob("inputs/*")) == before


def test_uploads_are_limited_and_pictures_are_measured_before_they_are_decoded(client: TestClient, studio: Studio, tmp_path: Path) -> None:
    assert client.post("/gradio_api/upload", files={"files": ("x.png", b"0" * 34_000_000)}).status_code == 413
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(30_000, 30_000))
    for content, sentence in ((bomb.read_bytes(), "far too many pixels"), (b"MZ" + b"0" * 500, "picture"), (b"", "picture")):
        (path,) = client.post("/gradio_api/upload", files={"files": ("x.png", content)}).json()
        file = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.png"}
        began = time.monotonic()
        said = called(client, "_wire_form.<locals>.submit", prompt="a fox", image=file)
        assert time.monotonic() - began < 1.0
        shown = Tags(str(said["output"]["data"]))
        assert sentence in shown.text
        assert str(Path(path).parent) not in shown.text


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of this size: what a decoder that looks first needs to refuse it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + struct.pack(">I", 0) + b"IDAT" + bytes(4)


async def test_a_page_that_stays_open_does_not_grow_with_each_job(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    page = build_page(studio)
    refresh = next(fn for fn in page.fns.values() if fn.name == "refresh")

    async def grown() -> int:
        state = SessionState(page)
        for _ in range(5):
            for values in (["<p>a list</p>", "<p>a line</p>", {}], [gr.skip(), gr.skip(), gr.skip()]):
                await page.postprocess_data(refresh, values, state)
        return len(state.blocks_config.blocks) - len(page.blocks)

    assert await grown() == 0
    monkeypatch.setattr(SessionState, "__setitem__", mending._put)
    assert await grown() > 5, "gradio has mended this itself: mending.py can go"


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
