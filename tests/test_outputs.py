"""outputs: files are whole, checked, named by us and never leave the projects folder; what fails leaves nothing behind."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import struct
from collections.abc import AsyncIterator
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from toolkit import decoding, outputs
from toolkit.decoding import KINDS, extension_of, kind_of, look_into
from toolkit.errors import DiskFull, HomeUnusable, OutputError, ServerUnreachable
from toolkit.jobs import Instant, Job, OutputFile
from toolkit.metadata import read
from toolkit.outputs import OutputStore, sidecar_of, text_chunks
from toolkit.protocol import ServerOutput
from toolkit.requests import ImageRequest, WorkflowRequest

relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault
CREATED = Instant(1_795_345_003.5)


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return OutputStore(tmp_path / "home")


def job(project: str = "default", job_id: str = "3f2a9c1e-0000-4000-8000-000000000000", **fields: Any) -> Job:
    request = ImageRequest(prompt="a füchsin", seed=2**64 - 1, project=project)
    return Job(**{"id": job_id, "seq": 1, "revision": 1, "request": request, "status": "collecting", "created": CREATED, **fields})


def png(color: tuple[int, int, int] | None = None, width: int = 48, height: int = 32, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels) if color is None else Image.new("RGB", (width, height), color)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def clip(path: Path, frames: int = 9, fps: int = 8, codec: str = "libx264", audio_only: bool = False) -> bytes:
    with av.open(str(path), "w") as container:
        if audio_only:
            stream = container.add_stream("aac", rate=44100)
            frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            frame.planes[0].update(b"\0" * frame.planes[0].buffer_size)
            frame.rate = 44100
            container.mux(stream.encode(frame))
        else:
            stream = container.add_stream(codec, rate=fps)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for n in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), n * 20, np.uint8), format="rgb24")))
            container.start_encoding()
        container.mux(stream.encode())
    return path.read_bytes()


async def chunks(data: bytes, size: int = 100) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def save(store: OutputStore, data: bytes, name: str = "rig_00001_.png", number: int = 1, of: Job | None = None, **fields: Any) -> OutputFile:
    output = ServerOutput("9", "images", 0, name, fields.pop("subfolder", ""), fields.pop("folder", "output"))
    return await store.save(of or job(), 1, number, output, chunks(data), fields.pop("length", len(data)), **fields)


def content(file: OutputFile) -> bytes:
    return Path(file.path).read_bytes()


def files(store: OutputStore) -> list[str]:
    return sorted(str(path.relative_to(store.projects)) for path in store.projects.rglob("*") if path.is_file())


# ---- names ----------------------------------------------------------------------------------------------------------------------------


def test_a_file_is_named_by_project_day_time_job_and_number(store):
    when = datetime.fromtimestamp(CREATED.wall).astimezone()
    path = store.place(job("fox"), 3, "png")
    assert path == store.projects / "fox" / f"{when:%Y-%m-%d}" / f"{when:%H%M%S}-3f2a9c1e-3.png"
    assert store.place(job("fox"), 3, "png") == path


def test_a_project_that_leads_elsewhere_is_refused(store, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    store.projects.mkdir(parents=True)
    (store.projects / "fox").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="The folder of project 'fox' lies outside"):
        store.place(job("fox"), 1, "png")


@pytest.mark.parametrize("project", ["../../etc", "..", "a/../../b"])
def test_a_project_that_slipped_through_still_cannot_leave(store, project):
    unchecked = job()
    object.__setattr__(unchecked, "request", ImageRequest.model_construct(prompt="a", project=project, seed=1))
    with pytest.raises(OutputError, match="lies outside"):
        store.place(unchecked, 1, "png")


HOSTILE = ["../../evil.png", "..\\..\\evil.png", "/etc/passwd.png", "a\x00b.png", "x" * 300 + ".png", "con.png", "ü 狐.PNG", "~/.png.png"]


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_name_of_the_server_gets_into_a_path(store, name):
    file = await save(store, png(), name, subfolder="../../..")
    assert Path(file.path).parent.parent == store.projects / "default"
    assert Path(file.path).name.endswith("-3f2a9c1e-1.png")
    assert files(store) == [file.name]


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("a.PNG", "png"), ("a.tar.gz", "gz"), ("a", "bin"), ("a.", "bin"), (".png", "bin"), ("a.p/g", "bin"), ("a.ünï", "bin"), ("a." + "x" * 12, "bin"),
        ("dir\\b.mp4", "mp4"), ("a.sh;rm", "bin"), ("", "bin"),
    ],
)  # fmt: skip
def test_an_extension_is_plain_or_bin(name, extension):
    assert extension_of(name) == extension


@relaxed
@given(st.text())
def test_any_name_gives_a_plain_extension_and_a_media_type(name):
    assert extension_of(name).isascii()
    assert extension_of(name).isalnum()
    kind, media_type = kind_of(name)
    assert kind in {*KINDS, "other"}
    assert "/" in media_type


@pytest.mark.parametrize(
    ("name", "kind", "media_type"),
    [
        ("a.png", "image", "image/png"), ("a.webp", "image", "image/webp"), ("a.avif", "image", "image/avif"), ("a.mp4", "video", "video/mp4"),
        ("a.webm", "video", "video/webm"), ("a.flac", "audio", None), ("a.glb", "model3d", "model/gltf-binary"), ("a.txt", "text", "text/plain"),
        ("a.latent", "latent", "application/octet-stream"), ("a.zzz", "other", "application/octet-stream"),
    ],
)  # fmt: skip
def test_the_kind_is_told_by_the_extension(name, kind, media_type):
    assert kind_of(name)[0] == kind
    assert media_type is None or kind_of(name)[1] == media_type


# ---- saving ---------------------------------------------------------------------------------------------------------------------------


async def test_a_saved_file_is_the_bytes_and_knows_itself(store):
    data = png()
    file = await save(store, data, number=2, folder="temp", cached=True)
    path = Path(file.path)
    assert content(file) == data
    assert (file.sha256, file.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (file.number, file.kind, file.media_type, file.fps) == (2, "image", "image/png", None)
    assert (file.width, file.height, file.frames, file.blank) == (48, 32, 1, False)
    assert (file.cached, file.temporary, file.disk, file.attempt, file.node_id) == (True, True, "present", 1, "9")
    assert store.projects / file.name == path
    assert files(store) == [file.name]


async def test_a_clip_is_counted_and_timed(store, tmp_path):
    file = await save(store, clip(tmp_path / "c.mp4", frames=9, fps=8), "video/ComfyUI_00001_.mp4")
    assert (file.kind, file.media_type, file.width, file.height, file.frames, file.fps, file.blank) == ("video", "video/mp4", 64, 48, 9, 8.0, None)
    webm = await save(store, clip(tmp_path / "c.webm", frames=3, fps=24, codec="libvpx-vp9"), "c.webm", number=2)
    assert (webm.frames, webm.fps) == (3, 24.0)


async def test_a_moving_picture_counts_its_frames(store):
    buffer = io.BytesIO()
    pictures = [Image.new("RGB", (8, 8), (n * 40, 0, 0)) for n in range(5)]
    pictures[0].save(buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=100)
    file = await save(store, buffer.getvalue(), "a.webp")
    assert (file.kind, file.frames, file.blank) == ("image", 5, False)


@pytest.mark.parametrize(("color", "blank"), [((0, 0, 0), True), ((255, 255, 255), True), ((7, 80, 9), True), (None, False)])
async def test_a_picture_of_one_colour_is_flagged(store, color, blank):
    assert (await save(store, png(color))).blank is blank


async def test_a_text_is_a_file_like_any_other(store):
    output = ServerOutput("9", "text", 0, text="a füchsin\n")
    file = await store.save(job(), 1, 1, output, text_chunks(output.text), None)
    assert content(file).decode() == "a füchsin\n"
    assert (file.kind, file.media_type, file.width, file.blank) == ("text", "text/plain", None, None)


async def test_a_latent_is_stored_unseen(store):
    file = await save(store, b"\0" * 10, "lat_00001_.latent")
    assert (file.kind, file.width, file.size_bytes) == ("latent", None, 10)


async def test_a_download_done_again_adopts_its_own_file(store):
    first = await save(store, png(seed=1))
    before = os.stat(first.path)
    again = await save(store, png(seed=1))
    assert (again.path, again.sha256) == (first.path, first.sha256)
    assert os.stat(first.path).st_ino == before.st_ino
    assert files(store) == [first.name]


async def test_other_bytes_never_replace_a_file(store):
    first = await save(store, png(seed=1))
    with pytest.raises(OutputError, match="is taken by another file") as refused:
        await save(store, png(seed=2))
    assert refused.value.path == first.path
    assert content(first) == png(seed=1)
    assert files(store) == [first.name]


async def test_a_later_attempt_has_names_of_its_own(store):
    """The first attempt may have stored a file and died; the second draws other bytes, since its prefix is in the PNG."""
    request = ServerOutput("9", "images", 0, "a.png")
    first = await store.save(job(), 1, 1, request, chunks(png(seed=1)), None)
    second = await store.save(job(), 2, 1, request, chunks(png(seed=2)), None)
    assert (content(first), content(second)) == (png(seed=1), png(seed=2))


@pytest.mark.parametrize("error", [struct.error("unpack"), IndexError("list"), KeyError(3)])
def test_whatever_a_decoder_raises_is_a_broken_file(tmp_path, monkeypatch, error):
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(decoding, "_look_into_picture", fail)
    with pytest.raises(OutputError, match="does not decode"):
        look_into(tmp_path / "a.png", "image")


async def test_a_file_system_without_hard_links_keeps_the_same_promises(store, monkeypatch):
    def refuse(*_paths: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    first = await save(store, png(seed=1))
    assert (await save(store, png(seed=1))).sha256 == first.sha256
    with pytest.raises(OutputError, match="is taken by another file"):
        await save(store, png(seed=2))
    assert content(first) == png(seed=1)
    assert files(store) == [first.name]


# ---- what a file says of itself -------------------------------------------------------------------------------------------------------

NOTES = {"prompt": '{"1": {}}', "toolkit": '{"request": {"kind": "image"}}', "parameters": "狐\nSteps: 3"}


def hashed(file: OutputFile) -> bool:
    return (file.sha256, file.size_bytes) == (hashlib.sha256(content(file)).hexdigest(), len(content(file)))


@pytest.mark.parametrize(("name", "codec"), [("a.png", None), ("a.mp4", "libx264"), ("a.webm", "libvpx-vp9")])
async def test_a_file_is_stored_with_its_notes_and_hashed_as_it_lies_there(store, tmp_path, name, codec):
    data = png() if codec is None else clip(tmp_path / name, codec=codec)
    plain = await save(store, data, name)
    file = await save(store, data, name, number=2, notes=NOTES)
    assert read(file.path).prompt == {"1": {}}
    assert hashed(file)
    assert content(file) != content(plain) == data
    assert (file.width, file.height, file.frames, file.fps, file.blank) == (plain.width, plain.height, plain.frames, plain.fps, plain.blank)
    before = os.stat(file.path)
    again = await save(store, data, name, number=2, notes=NOTES)
    assert (again.sha256, os.stat(again.path).st_ino) == (file.sha256, before.st_ino), "what was stored before a crash is known again"
    assert files(store) == sorted([plain.name, file.name])


@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
async def test_the_length_is_that_of_the_bytes_as_they_came(store, tmp_path, name):
    data = png() if name == "a.png" else clip(tmp_path / name)
    with pytest.raises(OutputError, match=rf"ended after {len(data)} of {len(data) + 1} bytes"):
        await save(store, data, name, notes=NOTES, length=len(data) + 1)
    with pytest.raises(OutputError, match="does not decode"):
        await save(store, data[: len(data) // 2], name, notes=NOTES)
    assert files(store) == []


@pytest.mark.parametrize("name", ["a.webp", "a.gif", "a.bmp", "a.latent", "a.json", "a.mkv"])
async def test_other_kinds_stay_as_they_came(store, tmp_path, name):
    buffer = io.BytesIO()
    if name in ("a.webp", "a.gif", "a.bmp"):
        Image.new("RGB", (8, 8)).save(buffer, name[2:].upper())
    data = clip(tmp_path / name) if name == "a.mkv" else buffer.getvalue() or b"{}"
    file = await save(store, data, name, notes=NOTES)
    assert content(file) == data


@pytest.mark.parametrize("name", ["a.png", "a.webm"])
async def test_a_file_that_lies_about_its_kind_is_kept_as_it_came(store, caplog, name):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, "GIF" if name == "a.webm" else "JPEG")
    file = await save(store, buffer.getvalue(), name, notes=NOTES)
    assert content(file) == buffer.getvalue()
    assert hashed(file)
    assert (name == "a.png") or "is kept as it came, without its prompt in it: it is no MP4, MOV, WebM or Matroska file" in caplog.text


async def test_a_clip_that_cannot_take_notes_is_kept_as_it_came_with_a_warning(store, tmp_path, monkeypatch, caplog):
    def refuse(_part: Path, copy: Path, *_how: Any) -> None:
        copy.write_bytes(b"half")
        raise ValueError("its copy would not be the same clip")

    monkeypatch.setattr(outputs, "annotate", refuse)
    data = clip(tmp_path / "c.mp4")
    file = await save(store, data, "c.mp4", notes=NOTES)
    assert content(file) == data
    assert hashed(file)
    assert "is kept as it came, without its prompt in it: its copy would not be the same clip" in caplog.text
    assert files(store) == [file.name]


async def test_a_disk_that_is_full_when_the_notes_are_written_is_told_and_nothing_is_left(store, tmp_path, monkeypatch):
    def full(_part: Path, copy: Path, *_how: Any) -> None:
        copy.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outputs, "annotate", full)
    with pytest.raises(DiskFull):
        await save(store, clip(tmp_path / "c.mp4"), "c.mp4", notes=NOTES)
    assert files(store) == []


# ---- what fails leaves nothing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [len(png()) + 1, len(png()) - 1, 10**9])
async def test_a_stream_of_another_length_leaves_nothing(store, length):
    with pytest.raises(OutputError, match=rf"rig_00001_.png ended after {len(png())} of {length} bytes"):
        await save(store, png(), length=length)
    assert files(store) == []


async def test_a_stream_that_breaks_off_leaves_nothing_and_says_whose_fault_it_is(store):
    async def broken() -> AsyncIterator[bytes]:
        yield png()[:50]
        raise ServerUnreachable("http://h does not answer.", server_url="http://h")

    with pytest.raises(ServerUnreachable):
        await store.save(job(), 1, 1, ServerOutput("9", "images", 0, "a.png"), broken(), None)
    assert files(store) == []


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", png()[:-90], b"<html>404</html>", png()[:60] + b"\0" * 50])
async def test_what_does_not_decode_leaves_nothing(store, data):
    with pytest.raises(OutputError, match="does not decode"):
        await save(store, data)
    assert files(store) == []


async def test_a_clip_that_does_not_decode_leaves_nothing(store, tmp_path):
    whole = clip(tmp_path / "c.mp4")
    for data in (b"", whole[: len(whole) // 3], clip(tmp_path / "sound.mp4", audio_only=True)):
        with pytest.raises(OutputError, match="does not decode"):
            await save(store, data, "c.mp4")
    with pytest.raises(OutputError, match="does not decode: no frames"):
        await save(store, clip(tmp_path / "none.avi", frames=0), "c.avi")
    assert files(store) == []


def bmp(width: int, height: int) -> bytes:
    """A picture that claims to be huge."""
    return struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


async def test_a_picture_that_claims_to_be_huge_is_not_unpacked(store):
    with pytest.raises(OutputError, match="does not decode"):
        await save(store, bmp(60_000, 60_000), "a.bmp")
    assert files(store) == []


@settings(relaxed, max_examples=120)
@given(st.data())
def test_a_damaged_picture_is_refused_or_read_and_nothing_else(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"]))
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (9, 99, 199)).save(buffer, kind)
    damaged = bytearray(buffer.getvalue())
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), max_size=6)):
        damaged[place] = value
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind.lower()}"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        looked = look_into(path, "image")
    except OutputError:
        return
    assert looked.width >= 1
    assert looked.frames >= 1


class FullDisk:
    """A file that takes a few bytes and then says what a full disk says."""

    def __init__(self, stream: Any, code: int) -> None:
        self.stream, self.code = stream, code

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_args: object) -> None:
        self.close()

    def close(self) -> None:
        self.stream.close()

    def write(self, data: bytes | str) -> int:
        self.stream.write(data[:10])
        self.stream.flush()
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_a_full_disk_is_told_apart_and_leaves_no_part(store, monkeypatch, code):
    whole = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode="r", *more, **how: FullDisk(whole(self, mode, *more, **how), code))
        with pytest.raises(DiskFull, match=r"The disk of .* is full. Make room; the job goes on by itself."):
            await save(store, png())
    assert files(store) == []
    assert (await save(store, png())).size_bytes == len(png())


async def test_a_disk_that_is_full_at_the_very_end_leaves_no_part(store, monkeypatch):
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFull):
            await save(store, png())
    assert files(store) == []


async def test_a_folder_that_cannot_be_made_durable_is_tried_again_and_said(store, monkeypatch):
    def broken(_handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    file = await save(store, png())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        for _ in range(2):
            with pytest.raises(HomeUnusable, match=r"cannot be used: Input/output error. Is its disk failing\?"):
                store.settle()
    synced = list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
        store.settle()
        store.settle()
    assert synced == [str(Path(file.path).parent)]


async def test_any_other_trouble_of_the_disk_is_one_sentence(tmp_path):
    (tmp_path / "projects").write_text("")
    with pytest.raises(OutputError, match="cannot be written: Not a directory") as refused:
        await save(OutputStore(tmp_path), png())
    assert not isinstance(refused.value, DiskFull)


async def test_a_file_that_vanishes_under_our_hands_is_one_sentence(store, monkeypatch):
    def gone(_path: Path, _kind: str) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(decoding, "_look_into_picture", lambda path: gone(path, ""))
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        await save(store, png())


async def test_a_folder_that_cannot_be_opened_is_no_fault(store, monkeypatch):
    real = os.open

    def refuse(path: Any, flags: int, *mode: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "no")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    assert (await save(store, png())).size_bytes == len(png())


# ---- sidecars -------------------------------------------------------------------------------------------------------------------------


async def test_the_sidecar_equals_the_file_and_its_request(store):
    made = job("fox")
    file = await save(store, png(), of=made)
    recipe = {"seed": 5, "simulated": True, "model": None, "parameters": {"3.seed": 5}}
    path = store.write_sidecar(made, file, recipe, "http://h")
    assert path == Path(file.path).with_suffix(".json")
    said = json.loads(path.read_text(encoding="utf-8"))
    assert "füchsin" in path.read_text(encoding="utf-8")
    data = content(file)
    with Image.open(file.path) as picture:
        assert (said["width"], said["height"]) == picture.size
    assert (said["size_bytes"], said["sha256"], said["file"]) == (len(data), hashlib.sha256(data).hexdigest(), Path(file.path).name)
    for name in ("attempt", "media_type", "frames", "fps", "cached", "temporary"):
        assert said[name] == getattr(file, name)
    assert (said["job_id"], said["output"], said["server_url"], said["simulated"]) == (made.id, 1, "http://h", True)
    assert said["request"] == made.request.as_json()
    assert said["recipe"] == {"seed": 5, "simulated": True}
    assert datetime.fromisoformat(said["created_at"]).timestamp() == CREATED.wall
    assert files(store) == sorted([file.name, str(path.relative_to(store.projects))])


async def test_a_sidecar_never_replaces_an_output_that_is_json_itself(store):
    file = await save(store, b'{"mine": 1}', "notes.json")
    sidecar = store.write_sidecar(job(), file, {}, "http://h")
    assert content(file) == b'{"mine": 1}'
    assert json.loads(sidecar.read_text())["file"] == Path(file.path).name
    assert sidecar_of(Path("a/b.png")) == Path("a/b.json")


async def test_a_sidecar_of_any_workflow_can_be_written(store):
    odd = job(request=WorkflowRequest(workflow={"1": {"class_type": "X", "inputs": {"a": "狐\u2028\x00\ud800"}}}))
    file = await save(store, png(), of=odd)
    assert json.loads(store.write_sidecar(odd, file, {}, "http://h").read_text(encoding="utf-8"))["request"] == odd.request.as_json()


async def test_a_sidecar_is_written_anew_as_a_whole_and_a_full_disk_leaves_the_old_one(store, monkeypatch):
    file = await save(store, png())
    path = store.write_sidecar(job(), file, {"seed": 1}, "http://h")
    store.write_sidecar(job(), file, {"seed": 2}, "http://h")
    assert json.loads(path.read_text())["recipe"] == {"seed": 2}
    before = files(store)

    def full(stream: FileIO, data: bytes) -> None:
        stream.write(data[:9])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("toolkit.outputs._write_all", full)
        with pytest.raises(DiskFull):
            store.write_sidecar(job(), file, {"seed": 3}, "http://h")
    assert json.loads(path.read_text())["recipe"] == {"seed": 2}
    assert files(store) == before
