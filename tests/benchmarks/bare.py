"""The bare client: POST, one socket, GET /history/{id}, GET /view, and nothing else, two prompts on the server at a time."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

import aiohttp


def tiny(number: int, folder: str) -> dict[str, Any]:
    """EmptyImage -> SaveImage: what it costs is the client."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": number % 2**24}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"{folder}/{number}/x"}},
    }


async def bare(url: str, first: int, count: int) -> float:
    """Seconds a bare client takes for so many tiny jobs."""
    client_id, ended = uuid.uuid4().hex, dict[str, asyncio.Event]()
    folder = f"bare/{client_id}"
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws?clientId={client_id}", max_msg_size=0) as socket:

        async def listen() -> None:
            async for message in socket:
                frame = json.loads(message.data) if isinstance(message.data, str) else {}
                if frame.get("type") == "executing" and frame["data"]["node"] is None:
                    ended[frame["data"]["prompt_id"]].set()

        async def one(number: int) -> None:
            prompt_id = str(uuid.uuid4())
            ended[prompt_id] = asyncio.Event()
            async with at_once:
                body = {"prompt": tiny(number, folder), "prompt_id": prompt_id, "client_id": client_id}
                async with session.post(f"{url}/prompt", json=body) as answer:
                    await answer.read()
                await ended[prompt_id].wait()
            async with session.get(f"{url}/history/{prompt_id}") as answer:
                outputs = (await answer.json())[prompt_id]["outputs"]
            async with session.get(f"{url}/view", params=outputs["2"]["images"][0]) as answer:
                assert len(await answer.read()) > 100

        at_once = asyncio.Semaphore(2)
        listening = asyncio.create_task(listen())
        began = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(first, first + count)))
        took = time.perf_counter() - began
        listening.cancel()
    return took
