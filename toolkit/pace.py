"""Where a feeder waits for its disk: on the loop itself, since changing threads costs more than a write does, while the disk is quick.

A noisy disk may stall for seconds, and a loop that waits for it hears nobody. So each wait is timed, and for a minute after one that took long
nothing waits on the loop. Knows neither file nor database.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

SLOW_S = 0.05  # two frames of a live card
WARY_S = 60.0


class Pace:
    """How quick a disk has been."""

    def __init__(self) -> None:
        self._wary_until = 0.0

    def is_quick(self) -> bool:
        """Whether short work may wait for it on the loop."""
        return time.monotonic() >= self._wary_until

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """A block that waits for the disk."""
        began = time.monotonic()
        try:
            yield
        finally:
            if time.monotonic() - began > SLOW_S:
                self._wary_until = time.monotonic() + WARY_S
