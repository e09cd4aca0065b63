"""Clips: copies with other tags. Packets are moved, never decoded or encoded again.

Owns the use of PyAV for that. Knows what no tag means. A copy is compared with its original, packet by packet, before anybody gets it: whatever a
container holds that cannot be copied is found out here and not by whoever watches it.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.metadata.pieces import form_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer, OutputContainer

MUXERS: Mapping[str, str] = {"mp4": "mp4", "m4v": "mp4", "mov": "mov", "webm": "webm", "mkv": "matroska"}
COPIED = ("video", "audio", "subtitle")
OF_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM})
Tags = dict[str, str]


def remux(source: Path, target: Path, muxer: str, change: Callable[[Tags], Tags]) -> None:
    """A copy with other tags: equal packets at equal times, and equal bytes at every call.

    Args:
        source: MP4, MOV, WebM or Matroska.
        target: is written anew.
        muxer: PyAV's name of the target's format, as in MUXERS.
        change: from the tags there are to the tags there shall be.

    Raises:
        ValueError: it cannot be copied, or not without loss; what was written is of no use. OSError: the disk.
    """
    import av

    # movflags: tags of any name, as ComfyUI's SaveVideo writes them (comfy_api video_types.py); the index first, so that browsers play at once
    options = {"fflags": "+bitexact"} | ({"movflags": "use_metadata_tags+faststart"} if muxer in ("mp4", "mov") else {})
    with _translated():
        with _opened(source) as there, av.open(_url(target), "w", format=muxer, options=options) as here:
            here.metadata.update(change(dict(there.metadata)))
            if not _copy(there, here):
                raise ValueError("it has no frames")
        if _contents(source) != _contents(target):
            raise ValueError("its copy would not be the same clip")


def _url(path: Path) -> str:
    """For FFmpeg, a name with a colon is no protocol if it is absolute."""
    return str(path.absolute())


def _opened(path: Path) -> InputContainer:
    """By its first bytes: FFmpeg would guess at anything, playlists of other files too."""
    import av

    with path.open("rb") as stream:
        form = form_of(stream.read(16))
    if form not in ("mov", "matroska"):
        raise ValueError("it is no MP4, MOV, WebM or Matroska file")
    return av.open(_url(path), format=form, metadata_errors="replace")


def _copy(there: InputContainer, here: OutputContainer) -> int:
    """Copy all packets; how many there were."""
    count = 0
    places: dict[int, Any] = {}
    for stream in there.streams:
        if stream.type in COPIED:
            rate = getattr(stream, "average_rate", None)  # without it Matroska forgets how long a frame is
            places[stream.index] = here.add_stream_from_template(stream, opaque=True, **({"framerate": rate} if rate else {}))
    for packet in there.demux([there.streams[index] for index in places]):
        if packet.size:  # the last ones only say that it is over
            packet.stream = places[packet.stream.index]
            here.mux(packet)
            count += 1
    return count


def _contents(path: Path) -> list[tuple[Any, ...]]:
    """What must be equal in a copy: for each stream its rate and a digest of all packets with their times."""
    with _opened(path) as container:
        streams = [stream for stream in container.streams if stream.type in COPIED]
        digests = {stream.index: hashlib.sha256() for stream in streams}
        for packet in container.demux(streams):
            if packet.size:
                at = None if packet.pts is None else packet.pts * packet.time_base
                digests[packet.stream.index].update(f"{at} {packet.is_keyframe} {packet.size} ".encode() + bytes(packet))
        return [(stream.type, getattr(stream, "average_rate", None), digests[stream.index].digest()) for stream in streams]


@contextmanager
def _translated() -> Iterator[None]:
    """PyAV's errors as ValueError, but for those that say something of the disk."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        if error.errno in OF_DISK:
            raise OSError(error.errno, error.strerror) from error
        raise ValueError(str(error.strerror or error).lower()) from error
    except (IndexError, AttributeError, TypeError) as error:  # PyAV on containers it has no words for
        raise ValueError(str(error)) from error
