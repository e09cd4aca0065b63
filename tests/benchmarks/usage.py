"""What processes used, from /proc: processor time and memory."""

from __future__ import annotations

import os
from pathlib import Path


def processor_s(pid: int | None = None) -> float:
    """Seconds of processor time of a process with all its threads, of this one by default; a hundredth is the smallest step of others'."""
    if pid is None:
        return sum(os.times()[:2])
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int | None = None) -> float:
    """What a process holds in memory now, this one by default."""
    return int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """The most that this process ever held in memory; `ru_maxrss` would count what its parent held before it."""
    words = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()
    return int(words[0]) * 1024 / 1e6
