"""The instants at which a process of ours can be told to die, so that "nothing is lost" is tested and not believed.

Part of the product and not of its tests: a promise about a crash between two lines holds for exactly these two lines, and only a mark that
stands between them moves with them. A mark in the code costs one look into the environment; it does nothing unless TOOLKIT_CRASH_AT names it.
With TOOLKIT_CRASH_FLAG, the path of a file that does not exist yet, only the first process to get there dies; the next one goes on.
"""

from __future__ import annotations

import os
import signal

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
        "file published",  # C20: it has no sidecar
    }
)


def reached(name: str) -> None:
    """Die here by SIGKILL if the environment says so: no handler, no `finally`, no flush, as from the OOM killer."""
    if os.environ.get("TOOLKIT_CRASH_AT") != name:
        return
    flag = os.environ.get("TOOLKIT_CRASH_FLAG")
    if flag:
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
