"""An engine in the test's own process, and a tiny client that speaks with it over real sockets."""

import asyncio
import json
import struct
from contextlib import asynccontextmanager

import aiohttp

from toolkit.engine.execution import Options
from toolkit.engine.server import Engine

PATIENCE_S = 20.0


async def eventually(probe):
    """Ask until the answer is true; what is asked here has no event of its own."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if answer := await probe():
                return answer
            await asyncio.sleep(0.005)


class Ear:
    """A socket with everything it heard."""

    def __init__(self, socket):
        self.socket, self.frames, self._news = socket, [], asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def _read(self):
        async for message in self.socket:
            self.frames.append(json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else unpacked(message.data))
            self._news.set()
        self._news.set()

    async def until(self, wanted):
        async with asyncio.timeout(PATIENCE_S):
            while not (found := [frame for frame in self.frames if wanted(frame)]):
                self._news.clear()
                await self._news.wait()
        return found[0]

    async def end_of(self, prompt_id):
        await self.until(lambda frame: frame["type"] == "executing" and frame["data"] == {"node": None, "prompt_id": prompt_id})

    async def step(self, value, prompt_id=None):
        def wanted(frame):
            data = frame["data"]
            return frame["type"] == "progress" and data["value"] >= value and prompt_id in (None, data["prompt_id"])

        await self.until(wanted)

    def taken(self):
        taken, self.frames = self.frames, []
        return taken


def unpacked(data):
    (event,) = struct.unpack(">I", data[:4])
    if event == 1:
        return {"type": "binary", "data": {"event": 1, "fmt": struct.unpack(">I", data[4:8])[0], "image": data[8:]}}
    (size,) = struct.unpack(">I", data[4:8])
    if event == 3:
        return {"type": "binary", "data": {"event": 3, "node": data[8 : 8 + size].decode(), "text": data[8 + size :].decode()}}
    return {"type": "binary", "data": {"event": event, "meta": json.loads(data[8 : 8 + size]), "image": data[8 + size :]}}


class Client:
    """A tiny client: calls, and sockets that are closed at the end."""

    def __init__(self, engine, session):
        self.engine, self.session, self.ears = engine, session, []

    async def call(self, method, path, **options):
        async with self.session.request(method, path, **options) as reply:
            body = await reply.read()
            return reply.status, json.loads(body) if reply.content_type == "application/json" else body.decode("latin-1")

    async def get(self, path):
        return (await self.call("GET", path))[1]

    async def submit(self, body):
        status, answer = await self.call("POST", "/prompt", json=body)
        assert status == 200, answer
        return answer["prompt_id"]

    async def done(self, prompt_id):
        return (await eventually(lambda: self.get(f"/history/{prompt_id}")))[prompt_id]

    async def busy(self):
        return (await self.get("/queue"))["queue_running"]

    async def run(self, body):
        return await self.done(await self.submit(body))

    async def listen(self, client_id=None, **options):
        query = f"?clientId={client_id}" if client_id else ""
        ear = Ear(await self.session.ws_connect(f"/ws{query}", **options))
        self.ears.append(ear)
        await ear.until(lambda frame: frame["type"] == "status")
        return ear


@asynccontextmanager
async def running(home, **options):
    engine = Engine(home, Options(**({"step_s": 0, "load_s": 0} | options)))
    url = await engine.start()
    async with aiohttp.ClientSession(url) as session:
        client = Client(engine, session)
        try:
            yield client
        finally:
            for ear in client.ears:
                await ear.socket.close()
                await ear.task
            await engine.stop()
