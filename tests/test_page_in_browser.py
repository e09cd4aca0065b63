"""The page as a visitor has it: Chromium against a real server, the built-in engine behind it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr
import pytest
import uvicorn

from tests.conftest import end_children
from tests.serving import served
from toolkit import Studio
from toolkit.service import build_service
from toolkit.settings import Settings
from toolkit.ui import build_page, page_options

sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed"),
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),  # by gradio's queue, which counts its events with pandas
]
QUIET_CHROMIUM = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
SOON_MS = 20_000  # a first job starts a feeder and an engine, about 3 s


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A home whose engine takes long enough over a picture to be watched."""
    home = tmp_path_factory.mktemp("page-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_ENGINE_STEP_S", "0.06")
        with Studio("engine", home=home) as studio:
            yield studio
        end_children(home)


@pytest.fixture(scope="module")
def address(studio: Studio) -> Iterator[str]:
    """Where the page is, served by a thread: Playwright has a loop in this one."""
    running: queue.Queue[uvicorn.Server] = queue.Queue()

    async def serve() -> None:  # the page is made while a loop runs: without one gradio makes a loop of its own and never closes it
        app = gr.mount_gradio_app(fastapi.FastAPI(), build_page(studio), path="", **page_options(studio.home))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1, ws="none"))
        running.put(server)
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="page")
    thread.start()
    server = running.get(timeout=30)
    while not server.started:
        thread.join(0.02)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET_CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A fresh visitor; leaving asserts that no request went elsewhere and no script failed."""
    yield from _visit(browser, address, width=1280, height=900)


@pytest.fixture
def phone(browser: Any, address: str) -> Iterator[Any]:
    yield from _visit(browser, address, width=390, height=844)


def _visit(browser: Any, address: str, **viewport: int) -> Iterator[Any]:
    context = browser.new_context(viewport=viewport)
    page = context.new_page()
    elsewhere: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else elsewhere.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.get_by_role("button", name="Create").wait_for()
    page.locator("#server .server").wait_for()  # the first events have been answered
    yield page
    context.close()
    assert elsewhere == []
    assert errors == []


def ask(page: Any, prompt: str) -> None:
    page.get_by_label("What do you want to see?").fill(prompt)
    page.get_by_role("button", name="Create").click()


TABS = {"Create": ".stage", "Queue": "#queue .say", "Gallery": ".tile img", "Timings": "#answer table", "About": "#about .box"}


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    page.locator(TABS[name]).first.wait_for(timeout=SOON_MS)


def test_a_picture_is_made_before_ones_eyes(page: Any) -> None:
    page.get_by_label("What do you want to see?").fill("a fox")
    page.locator("#plan .plan").get_by_text("1 job").wait_for(timeout=SOON_MS)
    ask(page, "1girl, silver hair, <img src=x onerror=window.hacked=1>, shrine")
    bar = page.get_by_role("progressbar")
    seen = []
    page.locator(".stage.running .frame img").wait_for(timeout=SOON_MS)
    while bar.count():
        try:
            seen.append(int(bar.get_attribute("aria-valuenow", timeout=500)))
        except sync_api.TimeoutError:
            break
        page.wait_for_timeout(50)
    assert seen == sorted(seen)
    assert len(set(seen)) >= 3
    assert re.search(r"\?job=[0-9a-f-]{36}$", page.url)
    picture = page.locator(".stage.done .frame img")
    picture.wait_for(timeout=SOON_MS)
    page.wait_for_function("document.querySelector('.stage.done img').naturalWidth > 0")
    assert page.get_by_text("<img src=x onerror=window.hacked=1>").count() >= 1
    assert page.evaluate("window.hacked") is None
    assert page.get_by_role("button", name="Cancel", exact=True).count() == 0
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert re.fullmatch(r"\d{6}-[0-9a-f]{8}-1\.png", download.value.suggested_filename)
    page.get_by_role("button", name=re.compile("Show this picture")).first.wait_for(timeout=5000)


def test_a_clip_plays(page: Any) -> None:
    page.get_by_text("Clip", exact=True).click()
    page.get_by_label("Length in seconds").fill("0.3")
    page.get_by_text("Draft").click()
    ask(page, "waves on a beach")
    it_plays(page)


def it_plays(page: Any) -> None:
    page.locator(".stage.done video").wait_for(timeout=SOON_MS)
    page.wait_for_function("(v => v.readyState >= 2 && v.currentTime > 0)(document.querySelector('video'))", timeout=SOON_MS)


def test_a_still_becomes_a_clip_and_its_settings_the_form_again(page: Any, studio: Studio) -> None:
    page.get_by_text("Still, then clip").click()
    page.get_by_label("What happens in the clip?").fill("the waves roll in")
    page.get_by_label("Length in seconds").fill("0.3")
    page.get_by_text("Draft").click()
    ask(page, "a beach at noon")
    page.get_by_role("button", name="Make a clip of it").click(timeout=SOON_MS)
    it_plays(page)
    job = studio.job().job
    assert (job.kind, job.prompt.startswith("the waves roll in"), job.request.image is not None) == ("video", True, True)  # type: ignore[attr-defined]
    page.get_by_role("button", name="Again with …").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'the waves roll in'")
    page.locator("#more .label-wrap").click()
    assert page.locator("#seed input, #seed textarea").input_value() == str(job.seed)


def test_a_link_shows_its_job_and_the_keyboard_keeps_it(page: Any, address: str, studio: Studio) -> None:
    made = studio.image("a kite", seed=3, width=128, height=128, steps=2).wait(30)
    page.goto(f"{address}/?job={made.job.id}")
    heart = page.get_by_role("button", name="Keep 1")
    heart.wait_for(timeout=SOON_MS)
    heart.focus()
    for pressed in ("true", "false", "true"):
        page.keyboard.press("Enter")
        page.locator(f"[data-number='1'][aria-label='Keep 1'][aria-pressed={pressed}]").wait_for()
        page.wait_for_function("document.activeElement.getAttribute('aria-label') === 'Keep 1'")
    assert made.files[0].verdict == "keep"


def test_a_running_job_survives_a_reload_and_can_be_cancelled(page: Any, studio: Studio) -> None:
    page.get_by_text("High").click()
    ask(page, "a castle on a hill")
    page.locator(".stage.running").wait_for(timeout=SOON_MS)
    page.reload()
    page.get_by_role("button", name="Cancel", exact=True).click(timeout=SOON_MS)
    page.get_by_text("Cancelled. Nothing was kept.").wait_for(timeout=SOON_MS)
    assert studio.job().job.status == "cancelled"


ELSEWHERE = """
window.Notification = class {
  static permission = 'default';
  static requestPermission() { this.permission = 'granted'; return Promise.resolve('granted'); }
  constructor(title, about) { window.told = `${title}: ${about.body}`; }
};
Object.defineProperty(document, 'hidden', {get: () => window.isElsewhere || false});
"""


def test_who_asked_for_it_is_told_when_it_is_done_and_the_title_says_how_far_it_is(page: Any) -> None:
    page.add_init_script(ELSEWHERE)
    page.reload()
    page.get_by_text("Draft").click()
    ask(page, "a bell")
    page.get_by_role("button", name="Tell me when it is done").click(timeout=SOON_MS)
    page.wait_for_function(r"/^\d+ % /.test(document.title)")
    assert page.evaluate("window.told") is None
    page.evaluate("window.isElsewhere = true")
    page.wait_for_function("window.told === 'anime-toolkit: Done'", timeout=SOON_MS)
    assert page.title() == "Done · anime-toolkit"


def test_what_is_wrong_is_said_beside_its_field(page: Any, studio: Studio) -> None:
    before = len(studio.jobs(limit=100))
    ask(page, "")
    page.locator("#prompt .beside").get_by_text("The prompt is empty.").wait_for()
    page.locator("#more .label-wrap").click()
    page.get_by_label("Steps").fill("9999")
    page.locator("#more .label-wrap").click()
    ask(page, "a fox")
    beside = page.locator("#steps .beside")
    beside.get_by_text("it must be a whole number from 1 to 200").wait_for()
    page.wait_for_function("document.activeElement === document.querySelector('#steps [aria-describedby=beside][aria-invalid=true]')")
    page.keyboard.press("Control+a")
    page.keyboard.type("5")
    beside.wait_for(state="detached")  # without a press
    assert len(studio.jobs(limit=100)) == before


def test_a_phone_shows_all_of_it_without_scrolling_sideways(phone: Any) -> None:
    phone.locator("#more .label-wrap").click()
    phone.get_by_role("button", name="Rainy street").click()
    phone.wait_for_function("document.querySelector('#prompt textarea').value.includes('umbrella')")
    phone.get_by_text("Draft").click()
    phone.get_by_role("button", name="Create").click()
    phone.locator(".stage.done .frame img").wait_for(timeout=SOON_MS)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.wait_for_function("document.querySelector('#result').getBoundingClientRect().top < window.innerHeight / 2")
    for tab in TABS:
        open_tab(phone, tab)
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390, tab


def test_the_keyboard_is_enough(page: Any) -> None:
    page.get_by_label("What do you want to see?").focus()
    page.keyboard.type("a lighthouse at night")
    page.keyboard.press("Shift+Enter")
    page.locator(".stage.running").wait_for(timeout=SOON_MS)
    page.get_by_role("button", name="Cancel", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_text("Cancelled. Nothing was kept.").wait_for(timeout=SOON_MS)


def test_a_file_becomes_a_form_and_the_form_a_picture(page: Any, studio: Studio, tmp_path: Path) -> None:
    made = studio.image("a fox in the snow", seed=3, width=128, height=128, steps=4).wait(30)
    page.get_by_role("tab", name="Workflow").click()
    page.set_input_files("#workflow-file input[type=file]", made.files[0].path)
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.wait_for(timeout=SOON_MS)
    assert "a fox in the snow" in prompt.input_value()
    assert page.get_by_label("Steps").locator("visible=true").input_value() == "4"
    prompt.fill("a wolf in the rain")
    page.locator("#workflow-steps input, #workflow-steps textarea").fill("many")
    page.locator("#workflow-create").click()
    page.get_by_text("'steps' is a whole number; 'many' is not.").wait_for(timeout=SOON_MS)
    page.locator("#workflow-steps input, #workflow-steps textarea").fill("5")
    page.locator("#workflow-create").click()
    page.locator(".stage.done .frame img").wait_for(timeout=SOON_MS)
    assert page.get_by_text("'steps' is a whole number").count() == 0
    job = studio.job().job
    assert (job.kind, job.prompt, job.recipe["steps"], job.origin) == ("workflow", "a wolf in the rain", 5, "page")
    (tmp_path / "bad.json").write_text('{"1": {"class_type": "SaveImages", "inputs": {}}}')
    page.locator("#workflow-file").get_by_label("Clear").click()
    page.set_input_files("#workflow-file input[type=file]", str(tmp_path / "bad.json"))
    page.get_by_text("Did you mean SaveImage?").wait_for(timeout=SOON_MS)


# ---- the other tabs ----------------------------------------------------------------------------------------------------


def test_the_line_is_everybodys_and_ones_own_job_can_be_taken_out_of_it(page: Any, studio: Studio) -> None:
    first, second = (studio.image("a long one", steps=150, seed=seed) for seed in (1, 2))
    page.get_by_role("tab", name="Queue").click()
    page.get_by_text("2 in line").wait_for(timeout=SOON_MS)
    assert page.locator(".line tbody tr").count() == 2
    for left in (first, second):
        page.get_by_role("button", name="Cancel a long one").last.click()
        page.wait_for_function(f"document.querySelectorAll('.line .cancel').length < {2 if left is first else 1}", timeout=SOON_MS)
    page.get_by_text("Nothing is in line.").wait_for(timeout=SOON_MS)
    assert {first.job.status, second.job.status} == {"cancelled"}


def test_the_gallery_keeps_rejects_and_throws_away(page: Any, studio: Studio) -> None:
    made = studio.image("a copper teapot", seed=3, width=128, height=128, steps=2).wait(30)
    open_tab(page, "Gallery")
    page.get_by_label("Search").fill("copper teapot")
    page.get_by_label("Search").press("Enter")
    page.wait_for_function("document.querySelectorAll('.tile').length === 1")
    page.get_by_role("button", name="Keep 1").click()
    page.locator(".tile.keep").wait_for()
    page.get_by_role("button", name="Reject 1").click()
    page.locator(".tile.reject").wait_for()
    page.get_by_text("Kept", exact=True).click()
    page.get_by_text("Nothing here.").wait_for()
    page.get_by_text("Rejected", exact=True).click()
    page.get_by_role("button", name="Put 1 into the bin").click()
    page.get_by_text("Nothing here.").wait_for()
    page.get_by_text("In the bin", exact=True).click()
    page.get_by_role("button", name="Bring back").click()
    page.get_by_text("Nothing here.").wait_for()
    assert (Path(made.files[0].path).is_file(), made.files[0].verdict) == (True, "reject")
    page.get_by_text("Rejected", exact=True).click()
    page.get_by_role("button", name=re.compile("Show this picture")).locator("visible=true").click()
    page.locator(".stage.done .caption").get_by_text("a copper teapot").wait_for()


def test_questions_are_charts_and_the_console_answers_sql(page: Any, studio: Studio) -> None:
    studio.image("a fox", preset="draft", seed=3, width=128, height=128).wait(30)
    open_tab(page, "Timings")
    page.wait_for_function("document.querySelector('#answer .chart.on-light').naturalWidth > 500")
    page.get_by_role("button", name="Ask in SQL").click()
    query = page.get_by_label("SQL", exact=True)
    query.fill("from jobs select kind, count(*) as made, '<i>x</i>' as said group by all")
    said = page.locator("#rows td").get_by_text("<i>x</i>").first
    for _ in range(3):  # it is stopped after 4 s, which a busy machine may need for its start
        page.get_by_role("button", name="Run").click()
        with contextlib.suppress(sync_api.TimeoutError):
            said.wait_for(timeout=SOON_MS / 2)
            break
    assert said.is_visible()
    with page.expect_download() as download:
        page.locator("#rows").get_by_role("link", name="Download CSV").click()
    assert Path(download.value.path()).read_text().startswith("kind,made,said\n")
    query.fill("select nothing from jobs")
    page.get_by_role("button", name="Run").click()
    page.locator("#rows .refusal").get_by_text("nothing").wait_for(timeout=SOON_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_keyboards_and_screen_readers(browser: Any, address: str, studio: Studio, scheme: str) -> None:
    made = studio.image("a fox", preset="draft", seed=3, width=128, height=128).wait(30)
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{address}/?job={made.job.id}")
    page.locator(".stage.done").wait_for(timeout=SOON_MS)
    for fold in page.locator("#form .fold .label-wrap").all():
        fold.click()
    faults = {}
    for tab in ("Workflow", *TABS):
        page.get_by_role("tab", name=tab).click()
        page.locator(TABS.get(tab, "#workflow-file")).first.wait_for(timeout=SOON_MS)
        page.wait_for_timeout(50)
        found = axe.Axe().run(page).response["violations"]
        faults |= {(tab, fault["id"]): [node["target"] for node in fault["nodes"]] for fault in found if fault["impact"] in ("serious", "critical")}
        if tab == "Workflow":
            page.get_by_role("tab", name="In words").click()
    context.close()
    assert faults == {}


# ---- signing in --------------------------------------------------------------------------------------------------------


def test_a_link_signs_in_once_and_the_page_says_so(browser: Any, tmp_path: Path) -> None:
    with Studio("http://127.0.0.1:1", home=tmp_path / "home") as studio, served(build_service(studio, Settings(home=tmp_path / "home"))) as url:
        people = studio._ledger.people
        code = people.give(people.add("ann").name, "code", 60.0)
        context = browser.new_context(viewport={"width": 390, "height": 844})
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{url}/sign-in#{code}")
        page.wait_for_url(f"{url}/")
        (cookie,) = context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("toolkit-session", True, "Strict")
        page.goto(f"{url.replace('127.0.0.1', 'localhost')}/sign-in")
        page.evaluate(f"location.href = '{url}/'")  # as a link on another site, with which the browser sends no strict cookie
        page.get_by_text("there is no such path").or_(page.get_by_text("Not Found")).wait_for()
        page.goto(f"{url}/sign-in")
        page.get_by_text("You are in as ann.").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Your link").fill(f"{url}/sign-in#{code}")
        page.get_by_role("button", name="Come in").click()
        page.get_by_text("This link was used already, or is too old.").wait_for()
        assert context.cookies() == []
        assert code not in page.url
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert errors == []
        context.close()
