"""`python -m toolkit.engine`: the engine as a process of its own, one per home.

Owns the command line, the lock, engine.json and the ways a process ends. It must not know the protocol. The lock is the
system's, so it is free again however the process died; engine.json only says where to find who holds it.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from toolkit.engine.execution import Options
from toolkit.engine.models import PRESETS, chosen
from toolkit.engine.server import Engine

BUSY_PORT, RUNS_ALREADY = 2, 3
LOOPBACK = ("127.0.0.1", "localhost")


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """Build the command line; the environment holds defaults."""

    def env(name: str, default: str) -> str:
        return environ.get(f"TOOLKIT_ENGINE_{name}", default)  # a string: argparse converts it, and complains of it

    options = argparse.ArgumentParser(prog="python -m toolkit.engine", description="A stand-in for ComfyUI that draws, with no model.")
    options.add_argument("--home", type=Path, required=True, metavar="DIR", help="the toolkit's home; files go to DIR/engine")
    options.add_argument("--host", choices=LOOPBACK, default="127.0.0.1", help="loopback only")
    options.add_argument("--port", type=int, default=0, help="0: the system picks one")
    options.add_argument("--step-s", type=float, default=env("STEP_S", "0.1"), help="seconds a sampling step takes; 0 is instant")
    options.add_argument("--noise", type=float, default=env("NOISE", "0"), help="relative jitter of step times, 0..1")
    options.add_argument("--load-s", type=float, default=env("LOAD_S", "0.2"), help="seconds a model file takes to load")
    options.add_argument("--idle-s", type=float, default=env("IDLE_S", "60"), help="end this long after the last use; 0: never")
    options.add_argument("--jobs-api", choices=("off", "on"), default=env("JOBS_API", "off"), help="whether newer servers' /api/jobs is there")
    options.add_argument("--newer", choices=("on", "off"), default=env("NEWER", "on"), help="whether classes that ComfyUI 0.3.64 lacks are there")
    options.add_argument("--models", type=_models, default=env("MODELS", "all"), metavar="SET", help=f"model files: {', '.join(PRESETS)}, or `folder/name,...`")
    options.add_argument("--preview-method", choices=("none", "auto"), default="auto", help="whether previews are sent")
    return options


def _models(asked: str) -> str:
    try:
        chosen(asked)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return asked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an engine until it is idle or told to end; gives the exit code."""
    asked = parser(os.environ).parse_args(arguments)
    options = Options(
        asked.step_s, asked.noise, asked.load_s, asked.preview_method == "auto", asked.idle_s,
        jobs_api=asked.jobs_api == "on", newer=asked.newer == "on", models=asked.models,
    )  # fmt: skip
    home: Path = asked.home.resolve()
    (home / "locks").mkdir(parents=True, exist_ok=True)
    lock = FileLock(home / "locks" / "engine.lock", thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return _refuse(RUNS_ALREADY, f"An engine already runs on {home}{_where(home)}.")
    (home / "engine" / "engine.json").unlink(missing_ok=True)  # of one that was killed
    try:
        return asyncio.run(_serve(Engine(home, options, host=asked.host, port=asked.port)))
    finally:
        lock.release()


async def _serve(engine: Engine) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows has none
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        url = await engine.start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return _refuse(BUSY_PORT, f"Port {engine.port} is taken by another program; choose another with --port.")
    try:
        _announce(engine)
        print(f"built-in engine at {url} (pid {os.getpid()})", flush=True)
        await _used(engine, ended)
    finally:
        (engine.home / "engine.json").unlink(missing_ok=True)
        await engine.stop()
    return 0


async def _used(engine: Engine, ended: asyncio.Event) -> None:
    """Wait for a signal, or until nobody has used the engine for its idle time."""
    limit = engine.options.idle_s
    while not ended.is_set():
        left = limit - engine.idle_s() if limit else None
        if left is not None and left <= 0:
            return
        try:
            await asyncio.wait_for(ended.wait(), left)
        except TimeoutError:
            continue


def _announce(engine: Engine) -> None:
    """Say in engine.json where the engine is; written whole or not at all."""
    about = {"port": engine.port, "pid": os.getpid(), "instance_id": engine.instance_id, "url": engine.url, "started_at": time.time()}
    draft = engine.home / f"engine.json.{os.getpid()}"
    draft.write_text(json.dumps(about), encoding="utf-8")
    os.replace(draft, engine.home / "engine.json")


def _where(home: Path) -> str:
    try:
        return f", on port {json.loads((home / 'engine' / 'engine.json').read_text(encoding='utf-8'))['port']}"
    except (OSError, ValueError, KeyError):
        return " (it is just starting)"


def _refuse(code: int, sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
