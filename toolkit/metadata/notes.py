"""What our files say of themselves: everything that is needed to make them again, and nothing of who, when and where.

Owns the four texts and how they get into a PNG that is being downloaded and into a clip that is here. No job id, no time and no server is in
them, so that one request gives equal bytes on a server that is deterministic. Knows graph, recipe and request as JSON alone.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.metadata.clips import Tags, remux
from toolkit.metadata.embedded import KEYS, TEXT_CHUNKS, TEXT_LIMIT, with_comment
from toolkit.metadata.pieces import PNG_SIGNATURE
from toolkit.prompts import SAMPLERS, SCHEDULERS

TIMES = frozenset({"creationtime", "creation time", "creation_time", "date"})  # VideoHelperSuite's and others'; a time is in no file of ours
MUXERS_OWN = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})
KEYWORD_LIMIT = 80  # bytes of a chunk's keyword and its NUL


def notes_of(graph: Mapping[str, Any], recipe: Mapping[str, Any], request: Mapping[str, Any], version: str) -> dict[str, str]:
    """The texts of a job's files, by name; empty if they would be too long to be read again.

    Args:
        graph: in API format, with the file names its user gave.
        recipe: what the log stores of it, as roles.py finds it; `simulated` if the engine drew.
        request: its JSON; a `ui` in it is the workflow of ComfyUI's page.
        version: of the toolkit.
    """
    ours = {"request": request, "version": version} | ({"simulated": True} if recipe.get("simulated") else {})
    texts = {"prompt": json.dumps(graph), "toolkit": json.dumps(ours), "parameters": _parameters(recipe)}
    if request.get("ui"):
        texts["workflow"] = json.dumps(request["ui"])
    if sum(map(len, texts.values())) > TEXT_LIMIT:
        return {}
    return {name: text for name, text in texts.items() if text}


def _parameters(recipe: Mapping[str, Any]) -> str:
    """The recipe in A1111's three paragraphs; empty if it says neither what was wanted nor how it was sampled."""
    denoise, size = recipe.get("denoise"), (recipe.get("width"), recipe.get("height"))
    facts = {
        "Steps": recipe.get("steps"),
        "Sampler": _called(SAMPLERS, recipe.get("sampler")),
        "Schedule type": _called(SCHEDULERS, recipe.get("scheduler")),
        "CFG scale": recipe.get("cfg"),
        "Seed": recipe.get("seed"),
        "Size": None if None in size else f"{size[0]}x{size[1]}",
        "Model": recipe.get("model"),
        "Denoising strength": denoise if isinstance(denoise, (int, float)) and denoise < 1 else None,
    }
    said = [f"{name}: {_quoted(value)}" for name, value in facts.items() if value is not None]
    prompt, negative = recipe.get("prompt"), recipe.get("negative_prompt")
    if not said and not prompt:
        return ""
    lines = [prompt, f"Negative prompt: {negative}" if negative else None, ", ".join([*said, "Version: anime-toolkit"])]
    text = "\n".join(str(line) for line in lines if line)
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _called(names: Mapping[str, str], value: Any) -> Any:
    return names.get(value, value) if isinstance(value, str) else value  # a user's graph may have anything there


def _quoted(value: Any) -> str:
    """A fact as A1111 writes it: what would end it too early goes into quotation marks."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ',:\n"') else text


# ---- into a PNG -----------------------------------------------------------------------------------------------------------------------


async def in_png(chunks: AsyncIterator[bytes], texts: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The bytes of a PNG with these texts instead of its own of the same names; what is no PNG passes unchanged.

    Holds back at most the head of one chunk; picture data passes as it comes.
    """
    pen = _Pen(texts)
    async for chunk in chunks:
        written = pen.feed(chunk)
        if written:
            yield written
    if pen.held:
        yield bytes(pen.held)


class _Pen:
    """Rewrites a PNG as it comes: bytes in, bytes out."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.held = bytearray()
        self._ours = b"".join(_chunk(name, text) for name, text in texts.items())
        self._names = frozenset(texts) | KEYS - {"workflow"} | TIMES
        self._left, self._keeps = 0, True
        self._place = "start"

    def feed(self, data: bytes) -> bytes:
        self.held += data
        written, at = bytearray(), 0
        while at < len(self.held):
            if not self._left and not self._begin(bytes(self.held[at : at + 8 + KEYWORD_LIMIT])):
                break
            size = min(self._left, len(self.held) - at)
            if self._keeps:
                written += self.held[at : at + size]
            at, self._left = at + size, self._left - size
            if not self._left and self._place == "header":
                written += self._ours
                self._place = "chunks"
        del self.held[:at]
        return bytes(written)

    def _begin(self, head: bytes) -> bool:
        """Decide what becomes of the piece that begins here; False if more of it must be seen."""
        if len(head) < 8:
            return False
        if self._place == "start":
            is_png = head.startswith(PNG_SIGNATURE)
            self._left, self._keeps, self._place = (8, True, "signature") if is_png else (sys.maxsize, True, "other")
            return True
        if self._place == "end":
            self._left, self._keeps = sys.maxsize, True
            return True
        size, kind = struct.unpack(">I4s", head[:8])
        if kind in TEXT_CHUNKS and len(head) < 8 + min(size, KEYWORD_LIMIT):
            return False
        name = head[8:].partition(b"\0")[0].decode("latin-1").lower() if kind in TEXT_CHUNKS else ""
        self._keeps = kind != b"tIME" and name not in self._names
        self._left = 12 + size
        if self._place == "signature":
            self._place = "header"
        if kind == b"IEND":
            self._place = "end"
        return True


def _chunk(name: str, text: str) -> bytes:
    """A text as a chunk that Pillow and ComfyUI's page both read.

    The page (frontend 1.27 getFromPngBuffer) takes tEXt for UTF-8 and does not skip iTXt's header: JSON must be ASCII in tEXt. iTXt is left to the one
    text that is not ASCII, A1111's, as A1111 writes it.
    """
    if text.isascii():
        kind, data = b"tEXt", name.encode() + b"\0" + text.encode()
    else:
        kind, data = b"iTXt", name.encode() + b"\0\0\0\0\0" + text.encode()
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# ---- into a clip ----------------------------------------------------------------------------------------------------------------------


def annotate(source: Path, target: Path, muxer: str, texts: Mapping[str, str]) -> None:
    """A copy of a clip with these texts as tags instead of its own of the same names; pictures, rate and sound are the same.

    Raises:
        ValueError: it cannot be copied without loss. OSError: the disk.
    """
    remux(source, target, muxer, lambda tags: {**_kept(tags), **texts})


def _kept(tags: Tags) -> Tags:
    """What stays of a clip's own tags: neither the muxer's, nor ours, nor times, nor a comment that tells the graph again."""
    tags = {name.lower(): value for name, value in tags.items()}
    tells = len(with_comment({"comment": tags.get("comment", "")})) > 1
    dropped = MUXERS_OWN | TIMES | KEYS - {"workflow"} | ({"comment"} if tells else set())
    return {name: value for name, value in with_comment(tags).items() if name not in dropped}
