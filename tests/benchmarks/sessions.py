"""Fifty open pages of fifty guests for a while (L13): each speaks gradio's protocol as a browser does, makes pictures, and looks into Queue and Gallery.

What is looked for in every byte that a page gets: words and pictures of another guest. Each guest's words are a name of their own, each picture has
its own seed, so that what two pages both got belongs to one of them alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import random
import re
import statistics
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from gradio_client.utils import apply_diff
from PIL import Image

from tests.benchmarks.usage import resident_mb
from tests.serving import PUBLIC, Program
from toolkit import Studio
from toolkit.guests import Quota
from toolkit.ledger import Ledger

Row = Callable[..., None]
PAGES, IN_LINE, ALL_IN_LINE = 50, 5, 100
SECONDS = float(os.environ.get("TOOLKIT_BENCH_SECONDS", "30"))
TICK_S = 2.0
WORD = re.compile(r"guestword(\d\d)x")
PICTURE = re.compile(r"data:image/(?:webp|png|jpeg);base64,[\w+/=]+")
RESULT = re.compile(r'<img src="(gradio_api/[^"]+)"')
SENTENCES = re.compile(r"You have 5 jobs in line, as many as you may|The line of all guests is full")


class Page:
    """One open page: the events a browser would send for it, and what came back."""

    def __init__(self, http: aiohttp.ClientSession, number: int, cookie: str) -> None:
        self.word, self._number = f"guestword{number:02}x", f"{number:02}"
        self._http, self._hash = http, uuid.uuid4().hex
        self._headers = {"Host": PUBLIC.removeprefix("https://"), "Origin": PUBLIC, "X-Forwarded-Proto": "https", "Cookie": cookie}
        self._answers: dict[str, asyncio.Future[list[Any]]] = {}
        self._open = 0
        self._listening: asyncio.Task[None] | None = None
        self._hears = self.leaves = False
        self._values, self._kept = dict[int, Any](), dict[str, list[Any]]()
        self.pictures, self.took, self.refusals = set[str](), list[float](), list[str]()
        self.foreign, self.wrong, self.made = 0, 0, 0

    async def open(self) -> None:
        """Load the page and do what it does by itself."""
        async with self._http.get("/config", headers=self._headers) as answer:
            config = await answer.json()
        self._values = {part["id"]: part["props"].get("value") for part in config["components"]}
        self._states = {part["id"] for part in config["components"] if part["type"] == "state"}
        self._ids = {part["props"]["elem_id"]: part["id"] for part in config["components"] if part["props"].get("elem_id")}
        self._tabs = {part["props"].get("label"): part["id"] for part in config["components"] if part["type"] == "tabitem"}
        self._timers = [part["id"] for part in config["components"] if part["type"] == "timer"]
        self._events = config["dependencies"]
        self._root = min(target[0] for event in self._events for target in event["targets"] if target[1] == "load")
        await self._fire(self._root, "load")

    async def make(self, number: int) -> None:
        """Press Create and follow the job to its picture."""
        began = time.monotonic()
        await self._press(number)
        stage = str(self._values[self._ids["stage"]])
        found = RESULT.search(stage)
        if found is None:
            self.wrong += 1
            return
        async with self._http.get("/" + found[1].replace("&amp;", "&"), headers=self._headers) as answer:
            words = Image.open(io.BytesIO(await answer.read())).info.get("prompt", "")
        self.made += 1
        self.took.append(time.monotonic() - began)
        self.wrong += self.word not in words

    async def press_often(self, times: int) -> None:
        """Ask for more than may wait in line, one after the other."""
        for number in range(times):
            await self._press(900 + number, follow=False)
            self.refusals += re.findall(r'role="alert"[^>]*>([^<]+)', str(self._values[self._ids["refusal"]]))

    async def tick(self) -> None:
        """What the page's timer does, until one leaves."""
        while not self.leaves:
            await asyncio.sleep(TICK_S)
            for timer in self._timers:
                await self._fire(timer, "tick")

    async def look(self, tab: str) -> None:
        """Open a tab."""
        await self._fire(self._tabs[tab], "select")

    async def close(self) -> None:
        """Leave."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def _press(self, number: int, *, follow: bool = True) -> None:
        wanted = {"prompt": f"{self.word} a fox", "preset": "draft", "size": "own", "width": "64", "height": "64", "steps": "1"}
        seed = {"seed": str(int(self._number) * 100_000 + number)}
        for name, value in {**wanted, **seed}.items():
            self._values[self._ids[name]] = value
        await self._fire(self._ids["create"], "click", follow=follow)

    async def _fire(self, component: int, what: str, *, follow: bool = True) -> None:
        """Send what an event sets off, and what comes after it."""
        first = [event for event in self._events if [component, what] in event["targets"]]
        await asyncio.gather(*(self._send(event, follow) for event in first))

    async def _send(self, event: Mapping[str, Any], follow: bool) -> None:
        data = [None if part in self._states else self._values.get(part) for part in event["inputs"]]
        body = {"data": data, "fn_index": event["id"], "session_hash": self._hash, "trigger_id": None, "event_data": None}
        async with self._http.post("/gradio_api/queue/join", json=body, headers=self._headers) as answer:
            said = await answer.json()
            assert answer.status == 200, said
        self._open += 1
        if not self._hears:
            self._hears = True
            self._listening = asyncio.create_task(self._listen())
        for part, value in zip(event["outputs"], await asyncio.wait_for(self._answer(said["event_id"]), 120.0), strict=True):
            if not _is_update(value):
                self._values[part] = value
            elif "value" in value:
                self._values[part] = value["value"]
        if follow:
            await asyncio.gather(*(self._send(after, follow) for after in self._events if after["trigger_after"] == event["id"]))

    async def _listen(self) -> None:
        """Take what the server sends until it has nothing more to say, as a browser does."""
        shown: dict[str, list[Any]] = {}
        while self._open > 0:  # nothing is awaited between this look and the last line
            async with self._http.get("/gradio_api/queue/data", params={"session_hash": self._hash}, headers=self._headers) as stream:
                async for line in stream.content:
                    if line.startswith(b"data: "):
                        self._take(line[6:].decode(), shown)
        self._hears = False

    def _take(self, text: str, shown: dict[str, list[Any]]) -> None:
        self.foreign += sum(found != self._number for found in WORD.findall(text))
        self.pictures |= {hashlib.sha256(found.encode()).hexdigest() for found in PICTURE.findall(text)}
        message = json.loads(text)
        event = message.get("event_id")
        if message["msg"] == "process_generating":  # the first of a series is whole, later ones are differences
            data = message["output"]["data"]
            shown[event] = [apply_diff(before, change) for before, change in zip(shown[event], data, strict=True)] if event in shown else data
            self._keep(event, shown[event])
        if message["msg"] == "process_completed":
            assert message["success"], message
            self._keep(event, message["output"]["data"])
            self._open -= 1
            if not (answer := self._answer(event)).done():
                answer.set_result(self._kept.pop(event))

    def _answer(self, event: str) -> asyncio.Future[list[Any]]:
        """What comes of an event; who is first, the answer or who waits for it, makes the place."""
        return self._answers.setdefault(event, asyncio.get_running_loop().create_future())

    def _keep(self, event: str, data: list[Any]) -> None:
        """The last value of each output that is more than 'as before'."""
        kept = self._kept.setdefault(event, data)
        self._kept[event] = [before if _is_update(value) and "value" not in value else value for before, value in zip(kept, data, strict=True)]


def _is_update(value: Any) -> bool:
    """Whether it tells what changes of a part, and not its value."""
    return isinstance(value, Mapping) and value.get("__type__") == "update"


async def _live(page: Page, until: float, place: int) -> None:
    """One guest for a while: a picture, a look around, a pause."""
    await asyncio.sleep(place * 0.1)
    await page.open()
    ticking = asyncio.create_task(page.tick())
    number = 0
    while time.monotonic() < until:
        await page.make(number := number + 1)
        if number % 3 == 0:
            await page.look(random.choice(("Queue", "Gallery")))
        await asyncio.sleep(random.uniform(2.0, 8.0))
    page.leaves = True
    await ticking


async def _weigh(program: Program, held: list[float]) -> None:
    while True:
        held.append(resident_mb(program.process.pid))
        await asyncio.sleep(1.0)


async def _crowd(program: Program, studio: Studio) -> tuple[list[Page], list[float]]:
    """All pages, and what the program held in memory each second."""
    held = list[float]()
    timeout, connector = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(program.page, timeout=timeout, connector=connector, read_bufsize=2**24) as http:
        pages = [Page(http, number, program.cookie(f"guest {number}")) for number in range(PAGES)]
        weighing = asyncio.create_task(_weigh(program, held))
        living = [asyncio.create_task(_live(page, time.monotonic() + SECONDS, place)) for place, page in enumerate(pages)]
        await asyncio.gather(*living)
        weighing.cancel()
        studio.pause()
        await asyncio.gather(*(page.press_often(IN_LINE + 1) for page in pages))
        for page in pages:
            await page.close()
    return pages, held


def measure(home: Path, row: Row) -> None:
    """The pages against the program in public."""
    ledger = Ledger(home)
    for number in range(PAGES):
        ledger.people.add(f"guest {number}")
        ledger.people.set_quota(f"guest {number}", Quota(jobs_per_hour=100_000, in_line=IN_LINE, gpu_s_per_hour=100_000))
    ledger.people.add("owner", is_owner=True)
    ledger.close()
    program = Program(home)
    try:
        with Studio("engine", home=home) as studio:
            pages, held = asyncio.run(_crowd(program, studio))
            waiting = [job for job in studio.jobs(limit=200) if not job.job.is_final]
            for job in waiting:
                job.cancel()
    finally:
        code = program.stop()
    seen = [picture for page in pages for picture in page.pictures]
    took = sorted(seconds for page in pages for seconds in page.took)
    made, refusals = sum(page.made for page in pages), [said for page in pages for said in page.refusals]
    median, late_ones = took[len(took) // 2], took[int(len(took) * 0.99)]
    how = f"once, {SECONDS:g} s: {PAGES} pages, {made} pictures, from press to file {median:.2f} s (p50), {late_ones:.2f} s (p99)"
    foreign = sum(page.foreign for page in pages) + len(seen) - len(set(seen))
    row("L13: words and pictures of another guest", foreign, "seen", "0", foreign == 0, f"{how}; {len(seen)} small pictures and previews")
    wrong = sum(page.wrong for page in pages)
    row("L13: results that are not the asked one", wrong, "of them", "0", wrong == 0 < made, how)
    unclear = [said for said in refusals if SENTENCES.search(said) is None]
    full = len(waiting) == ALL_IN_LINE and len(refusals) == PAGES * (IN_LINE + 1) - ALL_IN_LINE and not unclear
    told = f"a paused server, 6 presses a page; {len(refusals)} refused, e.g. {refusals[:1]}"
    row("L13: jobs in line where all ask for too many", len(waiting), "jobs", f"{ALL_IN_LINE}", full, told)
    early, late = (statistics.median(held[part * len(held) // 3 : (part + 1) * len(held) // 3]) for part in (1, 2))
    row("L13: memory of the last third beside the second", late / early, "of it", "< 1.05", late < 1.05 * early, f"{early:.0f} MB, {how}")
    row("L13: the program ended well", code, "exit code", "0", code == 0 and "Traceback" not in program.said, how)
