"""What a conversion left out or guessed, as sentences.

Owns the words. One sentence a kind, however many nodes it is about: a large workflow has hundreds that are bypassed.
"""

from __future__ import annotations

NAMED = 8
WORDS = {
    "muted": "Muted, so left out",
    "bypassed": "Bypassed, so left out",
    "lost": "Fed by a node that is left out, so by nothing",
    "page": "Works only on ComfyUI's page, so left out",
    "group": "Group nodes of an older page, which must be turned into sub-graphs there",
    "assumed": "Not in the file, so the server's default is used",
    "strange": "Unknown to the server's class, so left out",
    "spare": "More values in the file than this server's node takes, the rest left out",
    "drawn": "Made by ComfyUI's page while it sends (a 3D view, a webcam, a microphone), so missing here",
    "syntax": "Holds {a|b} or a comment, which ComfyUI's page would resolve before it sends it; sent as it is",
}


class Notes:
    """Collects names by kind; `broken` counts what was unreadable."""

    def __init__(self) -> None:
        self.broken = 0
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Note a node or an input, named as a person knows it."""
        self._names.setdefault(kind, []).append(name)

    def sentences(self) -> tuple[str, ...]:
        """One sentence a kind, in the order of WORDS."""
        found = [f"{words}: {_listed(self._names[kind])}." for kind, words in WORDS.items() if kind in self._names]
        return (*found, f"Nodes or links of the file that are no such thing, left out: {self.broken}.") if self.broken else tuple(found)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
