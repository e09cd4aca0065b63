"""The instants at which a process of ours can be told to die, or its disk to fail, so that "nothing is lost" is tested and not believed.

Part of the product and not of its tests: a promise about a crash between two lines holds for exactly these two lines, and only a mark that
stands between them moves with them. The environment is read once a process; a mark does nothing unless TOOLKIT_CRASH_AT names it.
With TOOLKIT_CRASH_FLAG, the path of a file that does not exist yet, only the first process to get there dies; the next one goes on.

TOOLKIT_FAIL_AT="chunk written=ENOSPC" raises that OSError at each pass instead, as long as the file TOOLKIT_FAIL_FLAG exists: a test makes
the disk well again by removing it. "chunk written:3=EIO" begins with the third pass of a process; =SHORT keeps a byte less than was written.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from typing import BinaryIO

POINTS = frozenset(
    {
        "request parsed",  # C01: nothing of it is in the ledger
        "row committed",  # C02: the caller has no answer yet
        "answer read",  # C05: the server has the prompt, the ledger does not know it
        "success known",  # C10: none of its files is ours
        "chunk written",  # C11: in the middle of a download
        "second file stored",  # C13: of four
        "end committed",  # C14: nobody was told
        "interrupt sent",  # C18: the ledger still says running
        "migration half done",  # C16: some statements of an upgrade are made, none is committed
        "file published",  # C20: it has no sidecar
        "settings written",  # C21: under another name
    }
)


_CRASH_AT, _FAIL_AT = os.environ.get("TOOLKIT_CRASH_AT"), os.environ.get("TOOLKIT_FAIL_AT", "")
_passes = Counter[str]()


def reached(name: str, stream: BinaryIO | None = None) -> None:
    """Die here by SIGKILL if the environment says so: no handler, no `finally`, no flush, as from the OOM killer; or fail as a disk does.

    Raises:
        OSError: the one that TOOLKIT_FAIL_AT names.
    """
    if _FAIL_AT.startswith(name):
        _fail(name, stream)
    if name == _CRASH_AT:
        _die()


def _die() -> None:
    flag = os.environ.get("TOOLKIT_CRASH_FLAG")
    if flag:
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(name: str, stream: BinaryIO | None) -> None:
    where, _, kind = _FAIL_AT.partition("=")
    point, _, first = where.partition(":")
    if point != name or not os.path.exists(os.environ.get("TOOLKIT_FAIL_FLAG", "")):
        return
    _passes[name] += 1
    if _passes[name] < int(first or 1):
        return
    if kind == "SHORT":
        assert stream is not None
        stream.seek(-1, os.SEEK_CUR)
        stream.truncate()
        return
    number = getattr(errno, kind)
    raise OSError(number, os.strerror(number))
