"""The tags of MP4, MOV, WebM and Matroska, by walking their boxes; no frame is looked at.

Owns where these two formats keep texts. Knows no tag's meaning. By hand and not through PyAV, which decodes the first frames to learn what they are,
and walks as many boxes as a file has. Names come out in lower case: Matroska's writers change it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from toolkit.metadata.pieces import Piece, Reader

ITUNES = {b"\xa9cmt": "comment", b"\xa9nam": "title"}  # tags without names of their own, as FFmpeg writes them unless use_metadata_tags is asked for
KEYS_LIMIT = 1_000_000  # bytes of names
SEGMENT, TAGS, TAG, SIMPLE_TAG, NAME, STRING = b"\x18\x53\x80\x67", b"\x12\x54\xc3\x67", b"\x73\x73", b"\x67\xc8", b"\x45\xa3", b"\x44\x87"


def mov_tags(reader: Reader) -> dict[str, str]:
    """The tags of an MP4 or MOV.

    Raises:
        ValueError: it is cut, or has no index.
    """
    tops = {box.kind: box for box in _boxes(reader, 0, reader.length)}
    if b"moov" not in tops:
        raise ValueError("it has no index")
    inside = list(_within(reader, tops[b"moov"]))
    inside += [box for user in inside if user.kind == b"udta" for box in _within(reader, user)]
    found: dict[str, str] = {}
    for box in inside:
        if box.kind == b"meta":
            found |= _listed(reader, box)
        elif box.kind in ITUNES:  # QuickTime: length and language before the text
            found[ITUNES[box.kind]] = _text(reader.content(box)[4:])
    return found


def _boxes(reader: Reader, start: int, end: int) -> Iterator[Piece]:
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", reader.at(start, 8))
        body = start + 8
        if size == 1:
            size, body = int.from_bytes(reader.at(body, 8), "big"), start + 16
        size = size or end - start  # 0: the last one
        if size < body - start:
            raise ValueError("it has a box of no size")
        yield reader.within(Piece(kind, start, body, size - (body - start), start + size), end)
        start += size


def _within(reader: Reader, box: Piece, skipped: int = 0) -> Iterator[Piece]:
    return _boxes(reader, box.body + skipped, box.end)


def _listed(reader: Reader, meta: Piece) -> dict[str, str]:
    """The items of a `meta` box, by their names in `keys` or by iTunes' own."""
    is_quicktime = meta.size >= 8 and reader.at(meta.body + 4, 4) == b"hdlr"  # there it has no version
    parts = {box.kind: box for box in _within(reader, meta, 0 if is_quicktime else 4)}
    names = _names(reader.content(parts[b"keys"])) if b"keys" in parts else []
    found: dict[str, str] = {}
    for item in _within(reader, parts[b"ilst"]) if b"ilst" in parts else ():
        index = int.from_bytes(item.kind, "big") - 1
        name = names[index] if 0 <= index < len(names) else ITUNES.get(item.kind)
        value = next((box for box in _within(reader, item) if box.kind == b"data"), None)
        if name and value:
            found[name] = _text(reader.content(value)[8:])
    return found


def _names(keys: bytes) -> list[str]:
    """After version and count: size, namespace and name of each."""
    names, at = [], 8
    while at + 8 <= min(len(keys), KEYS_LIMIT):
        size = max(8, int.from_bytes(keys[at : at + 4], "big"))
        names.append(_text(keys[at + 8 : at + size]).lower())
        at += size
    return names


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").rstrip("\0")


def matroska_tags(reader: Reader) -> dict[str, str]:
    """The tags of a WebM or MKV, those of its tracks among them.

    Raises:
        ValueError: it is cut, or has no segment.
    """
    segment = next((element for element in _elements(reader, 0, reader.length) if element.kind == SEGMENT), None)
    if segment is None:
        raise ValueError("it has no segment")
    found: dict[str, str] = {}
    for tag in _below(reader, segment, TAGS, TAG, SIMPLE_TAG):
        parts = {element.kind: reader.content(element) for element in _elements(reader, tag.body, tag.end) if element.kind in (NAME, STRING)}
        if NAME in parts and STRING in parts:
            found[_text(parts[NAME]).lower()] = _text(parts[STRING])
    return found


def _below(reader: Reader, element: Piece, kind: bytes, *deeper: bytes) -> Iterator[Piece]:
    """The elements that a path of kinds leads to."""
    for part in _elements(reader, element.body, element.end):
        if part.kind == kind:
            yield from _below(reader, part, *deeper) if deeper else (part,)


def _elements(reader: Reader, start: int, end: int) -> Iterator[Piece]:
    while start + 2 <= end:
        head = reader.at(start, min(12, end - start)) + bytes(8)
        wide = 9 - head[0].bit_length()  # as many bytes as there are zeros before the first one, and one
        more = 9 - head[wide].bit_length() if wide <= 4 else 9
        if more > 8:
            raise ValueError("it has something else than elements")
        body, unknown = start + wide + more, (1 << 7 * more) - 1
        size = int.from_bytes(head[wide : wide + more], "big") & unknown
        piece = Piece(head[:wide], start, body, size, body + size)
        yield Piece(head[:wide], start, body, end - body, end) if size == unknown else reader.within(piece, end)
        start = end if size == unknown else piece.end
