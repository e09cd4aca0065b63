"""How files are cut into pieces: PNG, WebP, JPEG and EXIF here, MP4 and Matroska in boxes.py. Kinds, places and lengths, never pixels.

Owns the walks over chunks, segments and tags. Knows nothing of what the pieces mean. A walk reads a few bytes a piece and skips the rest, is bounded in
steps, and raises ValueError where a file ends too early or is not of its kind: a picture of 30,000 x 30,000 costs what its headers cost.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
STEPS_LIMIT = 60_000  # 0.1 s; 200 MB in the 8 kB chunks of libpng are 25,000
SOS = 0xDA  # JPEG: the first scan begins
IFD_LIMIT = 4  # EXIF: directories that are followed
EXIF_POINTER, ORIENTATION = 0x8769, 0x0112


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk, segment, box or element: from `start` to `end` with its header, `size` bytes of content at `body`."""

    kind: bytes
    start: int
    body: int
    size: int
    end: int


class Reader:
    """A file that is read at places, a bounded number of times."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._steps = stream, STEPS_LIMIT
        self.length = stream.seek(0, os.SEEK_END)

    def at(self, place: int, count: int) -> bytes:
        """Exactly `count` bytes at a place.

        Raises:
            ValueError: there are fewer, or this was asked too often.
        """
        self._steps -= 1
        if self._steps < 0:
            raise ValueError("it has too many pieces")
        if place + count > self.length:
            raise ValueError("it ends too early")
        self._stream.seek(place)
        return self._stream.read(count)

    def head(self) -> bytes:
        """The first 16 bytes, or as many as there are."""
        return self.at(0, min(16, self.length))

    def content(self, piece: Piece) -> bytes:
        """The content of a piece."""
        return self.at(piece.body, piece.size)

    def within(self, piece: Piece, end: int | None = None) -> Piece:
        """The piece itself, if it ends within the file, or within what it is part of."""
        if piece.end > (self.length if end is None else end):
            raise ValueError("it ends too early")
        return piece


def form_of(head: bytes) -> str | None:
    """What the first 16 bytes of a file say it is: png, webp, jpeg, mov (MP4 too), matroska (WebM too), picture (of another kind) or None."""
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if head.startswith(PNG_SIGNATURE):
        return "png"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    is_bmp = head.startswith(b"BM") and head[6:10] == b"\0\0\0\0"
    if is_bmp or head.startswith((b"GIF8", b"II*\0", b"MM\0*")) or brand in (b"avif", b"avis", b"heic", b"heix", b"mif1"):
        return "picture"
    return "mov" if brand or head[4:8] in (b"moov", b"mdat", b"wide") else None


def png_pieces(reader: Reader) -> Iterator[Piece]:
    """The chunks of a PNG, up to IEND.

    Raises:
        ValueError: it ends before.
    """
    start, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        size, kind = struct.unpack(">I4s", reader.at(start, 8))
        yield reader.within(Piece(kind, start, start + 8, size, start + 12 + size))
        start += 12 + size


def webp_pieces(reader: Reader) -> Iterator[Piece]:
    """The chunks of a WebP, after the 12 bytes of its RIFF header.

    Raises:
        ValueError: it ends before it says that it does, or holds none.
    """
    end = 8 + int.from_bytes(reader.at(4, 4), "little")
    if not 20 <= end <= reader.length + 1:  # the last chunk's padding is often forgotten
        raise ValueError("it ends too early")
    start = 12
    while start < end - 1:
        kind, size = struct.unpack("<4sI", reader.at(start, 8))
        yield reader.within(Piece(kind, start, start + 8, size, start + 8 + size))
        start += 8 + size + size % 2


def jpeg_pieces(reader: Reader) -> Iterator[Piece]:
    """The segments of a JPEG up to its first scan; that one is the last, and takes in the rest of the file.

    Raises:
        ValueError: it ends before that.
    """
    start = 2
    while True:
        mark, kind, size = struct.unpack(">BBH", reader.at(start, 4))
        if mark != 0xFF or size < 2 or kind in range(0xD0, SOS):
            raise ValueError("it has something else than segments")
        if kind == SOS:
            yield Piece(bytes([kind]), start, start + 4, reader.length - start - 4, reader.length)
            return
        if kind == 0xFF:  # padding
            start += 1
            continue
        yield reader.within(Piece(bytes([kind]), start, start + 4, size - 2, start + 2 + size))
        start += 2 + size


def exif_tags(data: bytes) -> Mapping[int, bytes]:
    """The texts of EXIF, as bytes by tag: of the picture's own directory and the one called Exif; and which side is up, as one byte.

    As many as can be read: what is cut or garbled ends the search.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    found: dict[int, bytes] = {}
    left = len(data)  # tags that share their bytes are a bomb
    try:
        todo = [struct.unpack_from(f"{order}I", data, 4)[0]] if order else []
        for place in todo:
            for n in range(struct.unpack_from(f"{order}H", data, place)[0]):
                entry = place + 2 + 12 * n
                tag, kind, count, value = struct.unpack_from(f"{order}HHII", data, entry)
                if tag == EXIF_POINTER and len(todo) < IFD_LIMIT:
                    todo.append(value)
                elif kind in (1, 2, 7) and count <= left:  # bytes, ASCII (in fact UTF-8), undefined
                    begin = value if count > 4 else entry + 8
                    found[tag] = data[begin : begin + count]
                    left -= count
                elif tag == ORIENTATION and kind == 3:
                    found[tag] = bytes([struct.unpack_from(f"{order}H", data, entry + 8)[0] & 0xFF])
    except struct.error:
        pass
    return found
