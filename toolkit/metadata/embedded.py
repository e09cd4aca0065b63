"""What is read out of a picture or clip: the graph, the page's workflow, A1111's text, our own request.

Owns which texts are looked for, under which names the many writers put them, and the limits of what is taken in. Knows nothing of what a graph or a
request may be: whoever asks checks that. Texts are collected per format into one mapping, and understood in one place.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from toolkit.errors import ExportUnreadable
from toolkit.metadata.boxes import matroska_tags, mov_tags
from toolkit.metadata.pieces import Reader, exif_tags, form_of, jpeg_pieces, png_pieces, webp_pieces

SIZE_LIMIT = 200_000_000
TEXT_LIMIT = 20_000_000  # bytes of all texts of a file, unpacked
TOO_MUCH = f"it holds more than {TEXT_LIMIT / 1e6:.0f} MB of text"
PICTURES = frozenset({"png", "apng", "webp", "jpg", "jpeg", "gif", "bmp", "avif", "tif", "tiff"})
CLIPS = frozenset({"mp4", "m4v", "mov", "webm", "mkv"})
KEYS = frozenset({"prompt", "workflow", "parameters", "toolkit"})
TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"comf"})  # comf: ComfyUI's SaveAnimatedPNG, laid out as tEXt
USER_COMMENT = 0x9286


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a file says of itself; None where it does not say.

    `prompt`: the graph in API format. `workflow`: the same as ComfyUI's page draws it. `parameters`: A1111's text. `request`: the JSON of the request
    that this toolkit was asked with. `simulated`: the built-in engine drew it.
    """

    prompt: dict[str, Any] | None = None
    workflow: dict[str, Any] | None = None
    parameters: str | None = None
    request: dict[str, Any] | None = None
    simulated: bool = False


def is_media(source: str | PathLike[str] | bytes) -> bool:
    """Whether this is a picture or clip by its first bytes, or calls itself one; a file that cannot be read goes by its name."""
    if isinstance(source, bytes):
        return form_of(source[:16]) is not None
    if _suffix(source) in PICTURES | CLIPS:
        return True
    try:
        with Path(source).open("rb") as stream:
            return form_of(stream.read(16)) is not None
    except (OSError, ValueError):
        return False


def read(source: str | PathLike[str] | bytes) -> Embedded:
    """What a picture or clip, or its bytes, says of itself.

    Args:
        source: at most 200 MB; PNG, APNG, WebP, JPEG, MP4, MOV, WebM or MKV.

    Raises:
        ExportUnreadable: it cannot be opened, is too large, not a readable image or clip, holds too much text, or nothing that is known.
    """
    name = "The data" if isinstance(source, bytes) else str(source)
    what = "clip" if not isinstance(source, bytes) and _suffix(source) in CLIPS else "image"
    with _opened(source, name) as stream:
        reader = Reader(stream)
        if reader.length > SIZE_LIMIT:
            raise ExportUnreadable(f"{name} has {reader.length / 1e6:.0f} MB; what is read has at most {SIZE_LIMIT / 1e6:.0f}.")
        form = form_of(reader.head())
        if form is None:
            raise ExportUnreadable(f"{name} is not a readable {what}.")
        what = "clip" if form in ("mov", "matroska") else "image"
        try:
            texts = _READERS[form](reader)
            if sum(map(len, texts.values())) > TEXT_LIMIT:
                raise ValueError(TOO_MUCH)
        except (ValueError, zlib.error) as error:
            raise ExportUnreadable(f"{name} is not a readable {what}: {error}.") from error
    return understood(texts, name, what)


def _suffix(source: str | PathLike[str]) -> str:
    return Path(source).suffix.lower().lstrip(".")


def _opened(source: str | PathLike[str] | bytes, name: str) -> BinaryIO:
    try:
        return io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb")
    except OSError as error:
        raise ExportUnreadable(f"{name} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a NUL in the name
        raise ExportUnreadable(f"{name!r:.100} is no file name: {error}.") from error


# ---- texts by format ------------------------------------------------------------------------------------------------------------------


def _png_texts(reader: Reader) -> dict[str, str]:
    texts: dict[str, str] = {}
    left = TEXT_LIMIT
    for piece in png_pieces(reader):
        if piece.kind not in TEXT_CHUNKS:
            continue
        if piece.size > left:
            raise ValueError(TOO_MUCH)
        key, text = _png_text(piece.kind, reader.content(piece), left)
        left -= len(text)
        texts[key.decode("latin-1").lower()] = _decoded(text)
    return texts


def _png_text(kind: bytes, data: bytes, limit: int) -> tuple[bytes, bytes]:
    """Keyword and text of a chunk, unpacked."""
    key, _, rest = data.partition(b"\0")
    if kind == b"zTXt":
        return key, _unpacked(rest[1:], limit)
    if kind == b"iTXt":
        packed, (_language, _, rest) = rest[:1], rest[2:].partition(b"\0")
        text = rest.partition(b"\0")[2]
        return key, _unpacked(text, limit) if packed == b"\1" else text
    return key, rest


def _unpacked(data: bytes, limit: int) -> bytes:
    text = zlib.decompressobj().decompress(data, limit + 1)
    if len(text) > limit:
        raise ValueError(TOO_MUCH)
    return text


def _decoded(text: bytes) -> str:
    """UTF-8, as ComfyUI's page reads every chunk; tEXt should be Latin-1, which is then no UTF-8 as a rule."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _webp_texts(reader: Reader) -> dict[str, str]:
    found = [piece for piece in webp_pieces(reader) if piece.kind == b"EXIF" and piece.size <= TEXT_LIMIT]
    return _exif_texts(reader.content(found[0])) if found else {}


def _jpeg_texts(reader: Reader) -> dict[str, str]:
    found = [piece for piece in jpeg_pieces(reader) if piece.kind == b"\xe1"]
    return _exif_texts(next((data for data in map(reader.content, found) if data.startswith(b"Exif\0\0")), b""))


def _exif_texts(data: bytes) -> dict[str, str]:
    """ComfyUI's SaveAnimatedWEBP has `prompt:{...}` as Model, `workflow:{...}` as Make, more in the tags below; A1111 its text as UserComment."""
    texts: dict[str, str] = {}
    for tag, value in exif_tags(data).items():
        if tag == USER_COMMENT:
            texts["comment"] = _user_comment(value)
        elif match := re.match(rb"(\w{1,40}):", value):
            texts[match[1].decode("latin-1").lower()] = _decoded(value[match.end() :].rstrip(b"\0"))
    return texts


def _user_comment(data: bytes) -> str:
    """EXIF's UserComment: 8 bytes name the encoding; UTF-16 in either order, since writers disagree on it."""
    code, text = data[:8], data[8:]
    if code == b"UNICODE\0":
        order = "utf-16-le" if text[1::2].count(0) > text[::2].count(0) else "utf-16-be"  # most of it is ASCII
        return text.decode(order, "replace").rstrip("\0")
    return _decoded(text if code in (b"ASCII\0\0\0", b"\0" * 8) else data).rstrip("\0")


_READERS: Mapping[str, Callable[[Reader], dict[str, str]]] = {
    "png": _png_texts, "webp": _webp_texts, "jpeg": _jpeg_texts, "mov": mov_tags, "matroska": matroska_tags, "picture": lambda reader: {},
}  # fmt: skip


# ---- what they mean -------------------------------------------------------------------------------------------------------------------


def with_comment(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts with what a `comment` holds: JSON of prompt and workflow (VideoHelperSuite), or A1111's text."""
    comment = texts.get("comment", "")
    if not comment.startswith("{"):
        return {**({"parameters": comment} if "\nSteps: " in f"\n{comment}" else {}), **texts}
    try:
        held = json.loads(comment)
    except (ValueError, RecursionError):
        return dict(texts)
    found = {key: value if isinstance(value, str) else json.dumps(value) for key, value in held.items() if key in KEYS}
    return {**found, **texts}


def understood(texts: Mapping[str, str], name: str, what: str) -> Embedded:
    """What the texts of a file mean.

    Raises:
        ExportUnreadable: none of them is one of ours, ComfyUI's or A1111's; or the only ones are broken.
    """
    texts = with_comment(texts)
    faults: list[str] = []
    prompt, workflow, ours = (_object(texts, key, faults) for key in ("prompt", "workflow", "toolkit"))
    request = ours.get("request") if ours else None
    found = Embedded(prompt, workflow, texts.get("parameters"), request if isinstance(request, dict) else None, bool(ours and ours.get("simulated")))
    if found == Embedded(simulated=found.simulated):
        raise ExportUnreadable(f"{name}: {faults[0]}." if faults else f"{name}: no workflow stored in this {what}.")
    return found


def _object(texts: Mapping[str, str], key: str, faults: list[str]) -> dict[str, Any] | None:
    """The JSON object under a key; what is wrong with it goes to `faults`, since another text may still do."""
    if key not in texts:
        return None
    try:
        value = json.loads(texts[key])
    except RecursionError:
        faults.append(f"the {key} stored in it is too deeply nested")
    except ValueError:
        faults.append(f"the {key} stored in it is not JSON")
    else:
        if isinstance(value, dict):
            return value
        faults.append(f"the {key} stored in it is no JSON object")
    return None
