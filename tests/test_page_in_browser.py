"""The page as a visitor has it: Chromium against a real server, the built-in engine behind it."""

from __future__ import annotations

import asyncio
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
    yield page
    context.close()
    assert elsewhere == []
    assert errors == []


def ask(page: Any, prompt: str) -> None:
    page.get_by_label("What do you want to see?").fill(prompt)
    page.get_by_role("button", name="Create").click()


def test_a_picture_is_made_before_ones_eyes(page: Any) -> None:
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
    page.get_by_label("Length in seconds").fill("0.5")
    page.get_by_text("Draft").click()
    ask(page, "waves on a beach")
    page.locator(".stage.done video").wait_for(timeout=SOON_MS)
    page.wait_for_function("(v => v.readyState >= 2 && v.currentTime > 0)(document.querySelector('video'))", timeout=SOON_MS)


def test_a_running_job_survives_a_reload_and_can_be_cancelled(page: Any, studio: Studio) -> None:
    page.get_by_text("High").click()
    ask(page, "a castle on a hill")
    page.locator(".stage.running").wait_for(timeout=SOON_MS)
    page.reload()
    page.get_by_role("button", name="Cancel", exact=True).click(timeout=SOON_MS)
    page.get_by_text("Cancelled. Nothing was kept.").wait_for(timeout=SOON_MS)
    assert studio.job().job.status == "cancelled"


def test_what_is_wrong_is_said_beside_the_button(page: Any, studio: Studio) -> None:
    before = len(studio.jobs(limit=100))
    ask(page, "")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text() == "The prompt is empty."
    page.get_by_role("button", name="More").click()
    page.get_by_label("Steps").fill("9999")
    ask(page, "a fox")
    page.get_by_text("it must be a whole number from 1 to 200").wait_for()
    assert len(studio.jobs(limit=100)) == before


def test_a_phone_shows_all_of_it_without_scrolling_sideways(phone: Any) -> None:
    phone.get_by_role("button", name="More").click()
    phone.get_by_role("button", name="Rainy street").click()
    phone.wait_for_function("document.querySelector('#prompt textarea').value.includes('umbrella')")
    phone.get_by_text("Draft").click()
    phone.get_by_role("button", name="Create").click()
    phone.locator(".stage.done .frame img").wait_for(timeout=SOON_MS)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.wait_for_function("document.querySelector('#result').getBoundingClientRect().top < window.innerHeight / 2")


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
