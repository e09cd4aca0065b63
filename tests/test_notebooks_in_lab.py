"""The first notebook in a real JupyterLab and a real browser: its cards come alive, end as pictures, and Cancel cancels.

Plain functions: Playwright's synchronous interface cannot run inside a running loop. The server and its kernels live in folders of the
test, on a port of the system's choice, and end with it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Page, expect, sync_playwright

from toolkit import Studio

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
TOKEN = "lab"
UP_S = 60.0  # JupyterLab imports for 3 s here, for 20 s on a busy machine
CARD_MS = 60_000  # a kernel, a feeder and an engine start, and a picture is drawn
SLOW = """from toolkit import Studio
slow = Studio("engine").image("a fox shrine at night", steps=200, seed=3, reuse=False)
slow"""


@pytest.fixture
def lab(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a JupyterLab over copies of the notebooks, with settings of its own."""
    monkeypatch.setenv("TOOLKIT_HOME", str(home))
    monkeypatch.setenv("TOOLKIT_ENGINE_STEP_S", "0.07")
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    settings = tmp_path / "jupyterlab_settings_dir" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    root = tmp_path / "notebooks"
    shutil.copytree(NOTEBOOKS, root)
    slow = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SLOW)])
    slow.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(slow, root / "slow.ipynb")
    with served(root, tmp_path / "lab.log") as url:
        yield url


@contextmanager
def served(root: Path, log: Path) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
    with log.open("wb") as output:
        command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={root}"]
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=dict(os.environ))
        try:
            wait_until_up(url, log)
            yield url
        finally:
            server.terminate()  # it ends its kernels
            try:
                server.wait(20.0)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def wait_until_up(url: str, log: Path) -> None:
    deadline = time.monotonic() + UP_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/api/status?token={TOKEN}", timeout=2.0):
                return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", headless=True, args=options)
        page = browser.new_page(viewport={"width": 1200, "height": 1400})
        yield page
        browser.close()


def open_notebook(page: Page, lab: str, name: str) -> None:
    page.goto(f"{lab}/lab/tree/{name}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=CARD_MS)
    # the indicator of the notebook says idle before the kernel is there, the status bar does not
    page.wait_for_function("document.body.innerText.includes('(ipykernel) | Idle')", timeout=CARD_MS)


def run_all(page: Page) -> None:
    page.click('.lm-MenuBar-item:has-text("Run")')
    page.click('.lm-Menu-item[data-command="runmenu:run-all"]')


def natural_width(page: Page, selector: str) -> Any:
    return page.locator(selector).first.evaluate("async picture => { await picture.decode(); return picture.naturalWidth }")


def test_the_first_notebook_runs_its_pictures_are_shown_and_a_heart_keeps(page: Page, lab: str, home: Path) -> None:
    open_notebook(page, lab, "01_first_picture.ipynb")
    page.click('.lm-MenuBar-item:has-text("Edit")')
    page.click('.lm-Menu-item[data-command="editmenu:clear-all"]')
    expect(page.locator(".toolkit-ended")).to_have_count(0)
    run_all(page)
    page.wait_for_selector('.toolkit-card [role="progressbar"]', timeout=CARD_MS)
    page.wait_for_selector("img.toolkit-preview[src^='blob:']", timeout=CARD_MS)
    page.wait_for_selector(".toolkit-ended img", timeout=CARD_MS)
    assert natural_width(page, ".toolkit-ended img") > 0
    page.wait_for_selector(".toolkit-live video", timeout=CARD_MS)
    page.wait_for_function("document.querySelector('.toolkit-live video').videoWidth === 576", timeout=CARD_MS)
    page.wait_for_function("!document.querySelector('.jp-Notebook').innerText.includes('[*]')", timeout=CARD_MS)
    page.wait_for_selector(".toolkit-live .toolkit-tile img", timeout=CARD_MS)
    assert natural_width(page, ".toolkit-live .toolkit-tile img") > 100
    heart = page.get_by_title("Keep 3", exact=True).first
    heart.focus()
    page.keyboard.press("Enter")  # a heart is a button that needs no mouse
    expect(page.get_by_title("Kept: take back 3", exact=True)).to_have_count(1)
    with Studio("engine", home=home) as studio:
        assert [number for number, output in studio.batch("fox looks").numbered.items() if output.verdict == "keep"] == [2, 3, 5]
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0


def test_the_saved_notebook_is_readable_without_running_it(page: Page, lab: str) -> None:
    open_notebook(page, lab, "01_first_picture.ipynb")
    page.wait_for_selector(".toolkit-ended img", timeout=CARD_MS)
    assert natural_width(page, ".toolkit-ended img") > 0
    assert "Error displaying widget" not in page.inner_text("body")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_as_a_web_page_a_saved_notebook_shows_its_pictures(page: Page, path: Path, tmp_path: Path) -> None:
    html, _ = HTMLExporter().from_filename(str(path))
    (tmp_path / "saved.html").write_text(html)
    page.goto(f"file://{tmp_path / 'saved.html'}")
    pictures = page.locator("img[src^='data:image/'], video")
    assert pictures.count() > 0
    for picture in pictures.all():
        assert picture.evaluate("one => one.tagName === 'VIDEO' || one.decode().then(() => one.naturalWidth > 0)")
    assert "Error displaying widget" not in page.inner_text("body")


def test_cancel_on_a_card_cancels_and_the_saved_card_says_so(page: Page, lab: str) -> None:
    open_notebook(page, lab, "slow.ipynb")
    run_all(page)
    page.wait_for_selector(".toolkit-card :text('step ')", timeout=CARD_MS)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".toolkit-ended")).to_contain_text("cancelled", timeout=CARD_MS)
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    page.keyboard.press("Control+s")
    page.wait_for_function("!document.querySelector('.lm-TabBar-tab.jp-mod-dirty')", timeout=CARD_MS)
    open_notebook(page, lab, "slow.ipynb")
    page.get_by_role("menuitem", name="Kernel").click()
    page.click('.lm-Menu-item[data-command="kernelmenu:shutdown"]')
    page.reload()
    expect(page.locator(".toolkit-ended")).to_contain_text("cancelled", timeout=CARD_MS)
    assert "Error displaying widget" not in page.inner_text("body")
