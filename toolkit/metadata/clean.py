"""Copies without what a file says of itself. Pixels, frames and sound are copied byte by byte, never encoded again.

Owns what is dropped: everything that is not needed to show the file as it is. So unknown pieces go, colours and animation stay, and a photo keeps which
side is up. Knows nothing of what the dropped texts say.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

from toolkit.errors import ExportUnreadable, OutputError
from toolkit.metadata.clips import MUXERS, remux
from toolkit.metadata.pieces import ORIENTATION, PNG_SIGNATURE, SOS, Piece, Reader, exif_tags, form_of, jpeg_pieces, png_pieces, webp_pieces

# PNG: the critical chunks, colour, transparency, size of a pixel, animation
PNG_KEPT = frozenset(b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP cICP mDCV cLLI sBIT bKGD hIST pHYs sPLT acTL fcTL fdAT".split())
WEBP_KEPT = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"ANIM", b"ANMF"})
WEBP_SAYS = 0x04 | 0x08  # VP8X: has XMP, has EXIF
FAMILIES: Mapping[str, Sequence[str]] = {"mov": ("mp4", "mov"), "matroska": ("matroska", "webm")}
COMMENT, APP0, APP1, APP2, APP14, APP15, EOI = 0xFE, 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xD9  # JPEG
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # within scans 0xFF stands before 0, or begins a restart
BLOCK = 2**20


def strip(source: str | PathLike[str], target: str | PathLike[str]) -> None:
    """Write a copy of a picture or clip that only shows: no prompt, workflow, EXIF, XMP, comment or time.

    Args:
        source: PNG, APNG, JPEG, WebP, MP4, MOV, WebM or MKV.
        target: where the copy goes; replaces what is there once it is whole, and may be the source itself.

    Raises:
        ExportUnreadable: the source cannot be read, or not be copied without loss. OutputError: the copy cannot be written.
    """
    source, target = Path(source), Path(target)
    part = target.with_name(f".{target.name}.part")
    try:
        with source.open("rb") as stream:
            reader = Reader(stream)
            form = form_of(reader.head())
            if form in ("mov", "matroska"):
                remux(source, part, _muxer(form, source), lambda _: {})
            elif form in _COPIES:
                with part.open("wb") as copy:
                    copy.writelines(_COPIES[form](reader))
            else:
                raise ValueError("it is no PNG, JPEG, WebP, MP4, MOV, WebM or MKV")
        shutil.copymode(source, part)
        os.replace(part, target)
    except ValueError as error:
        raise ExportUnreadable(f"{source} cannot be stripped: {error}.") from error
    except OSError as error:
        if error.filename == str(source):
            raise ExportUnreadable(f"{source} cannot be read: {error.strerror}.") from error
        raise OutputError(f"{target} cannot be written: {error.strerror}.", path=str(target)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _muxer(form: str, source: Path) -> str:
    """The muxer of the source's own kind: four names for two formats."""
    wanted = MUXERS.get(source.suffix.lower().lstrip("."), "")
    return wanted if wanted in FAMILIES[form] else FAMILIES[form][0]


def _block(reader: Reader, start: int, end: int) -> Iterator[bytes]:
    for place in range(start, end, BLOCK):
        yield reader.at(place, min(BLOCK, end - place))


def _png(reader: Reader) -> Iterator[bytes]:
    yield PNG_SIGNATURE
    for piece in png_pieces(reader):
        if piece.kind in PNG_KEPT:
            yield from _block(reader, piece.start, piece.end)


def _webp(reader: Reader) -> Iterator[bytes]:
    kept = [piece for piece in webp_pieces(reader) if piece.kind in WEBP_KEPT]
    yield b"RIFF" + struct.pack("<I", 4 + sum(8 + piece.size + piece.size % 2 for piece in kept)) + b"WEBP"
    for piece in kept:
        if piece.kind == b"VP8X":
            body = reader.content(piece)
            yield struct.pack("<4sI", piece.kind, piece.size) + bytes([body[0] & ~WEBP_SAYS]) + body[1:]
        else:
            yield from _block(reader, piece.start, piece.end)
        yield b"\0" * (piece.size % 2)


def _jpeg(reader: Reader) -> Iterator[bytes]:
    yield b"\xff\xd8"
    for piece in jpeg_pieces(reader):
        if piece.kind[0] == SOS:
            yield from _scans(reader.at(piece.start, piece.end - piece.start))
        elif piece.kind[0] == APP1:
            yield _upright(reader.content(piece))
        elif _shows(piece, reader):
            yield from _block(reader, piece.start, piece.end)


def _shows(piece: Piece, reader: Reader) -> bool:
    """Whether a segment is needed to show a JPEG: tables, and of the APPn only JFIF, a colour profile and Adobe's word on colours."""
    kind = piece.kind[0]
    if kind == COMMENT or APP0 <= kind <= APP15:
        needed = {APP0: b"JFIF\0", APP2: b"ICC_PROFILE\0", APP14: b"Adobe"}.get(kind)
        return needed is not None and reader.content(piece).startswith(needed)
    return True


def _upright(body: bytes) -> bytes:
    """EXIF that says nothing but which side is up; nothing at all where that is the usual one."""
    side = exif_tags(body).get(ORIENTATION, b"\1")[0] if body.startswith(b"Exif\0\0") else 1
    if not 2 <= side <= 8:
        return b""
    said = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", ORIENTATION, 3, 1, side, 0, 0)
    return struct.pack(">BBH", 0xFF, APP1, len(said) + 2) + said


def _scans(data: bytes) -> Iterator[bytes]:
    """From the first scan to the end of the picture, without comments between scans and without what lies behind."""
    at = 0
    while data[at + 1 : at + 2] not in (b"", bytes([EOI])):
        kind, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == SOS:
            found = MARKER.search(data, end)
            end = found.start() if found else len(data)
        if not (kind == COMMENT or APP0 <= kind <= APP15):
            yield data[at:end]
        at = end
    yield b"\xff" + bytes([EOI])


_COPIES: Mapping[str | None, Callable[[Reader], Iterator[bytes]]] = {"png": _png, "webp": _webp, "jpeg": _jpeg}
