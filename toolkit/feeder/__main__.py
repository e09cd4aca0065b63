"""Start a feeder: take the server's lock, or leave at once if another process holds it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import Timeout

from toolkit import logs
from toolkit.errors import HomeUnusable
from toolkit.processes import SERVER_VARIABLE, feeder_lock
from toolkit.settings import ServerAddress, Settings

if TYPE_CHECKING:
    from toolkit.feeder.feeder import Feeder

LOCK_WAIT_S = 1.0  # whoever looks whether a feeder runs holds the lock for a moment


def main(argv: list[str] | None = None) -> int:
    """Feed until nothing has been open for a minute. Exit code 0, also when another feeder was there first."""
    parser = argparse.ArgumentParser(prog="toolkit.feeder", description="Feed one ComfyUI server from one home.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--server", required=True)
    options = parser.parse_args(argv)
    lock = feeder_lock(options.home, options.server)
    try:
        lock.acquire(timeout=LOCK_WAIT_S)
    except Timeout:
        return 0
    try:
        from toolkit.feeder.feeder import Feeder

        gc.freeze()  # what was imported stays: looking through it again and again costs each job a twentieth
        settings = Settings.read(home=options.home)
        address = ServerAddress.parse(os.environ.get(SERVER_VARIABLE) or options.server)
        logs.set_up(os.environ, (*settings.secrets, *address.secrets), logging.INFO)
        asyncio.run(_serve(Feeder(settings.home, address, settings.headers, settings.feeder_idle_s, settings.patience_s)))
    except HomeUnusable as error:  # whoever has a job here starts the next one
        logging.error("%s", error)
        return 1
    finally:
        lock.release()
    return 0


async def _serve(feeder: Feeder) -> None:
    task = asyncio.ensure_future(feeder.serve())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        logging.info("asked to stop")


if __name__ == "__main__":
    sys.exit(main())
