"""metadata: what a file says of itself is read whatever wrote it, written so that ComfyUI's page and Pillow read it, and taken out without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import struct
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from toolkit import metadata, prompts
from toolkit.errors import ExportUnreadable, OutputError
from toolkit.metadata import Embedded, annotate, in_png, is_media, notes_of, read, strip
from toolkit.metadata.notes import _Pen

FILES = Path(__file__).with_name("recordings") / "files-0.3.64"
relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
graphs = st.dictionaries(st.text(max_size=4), st.fixed_dictionaries({"class_type": st.text(max_size=9), "inputs": st.dictionaries(st.text(), json_values)}))
NOTES = {"prompt": '{"1": {"class_type": "A", "inputs": {}}}', "toolkit": '{"request": {"kind": "image"}, "version": "1"}', "parameters": "狐\nSteps: 3"}
UI = {"nodes": [{"id": 1}], "links": [], "version": 0.4}


@pytest.fixture
def quick() -> Iterator[None]:
    """A bad file costs less than a second of a processor."""
    began = time.process_time()
    yield
    assert time.process_time() - began < 1.0


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 8 : at + 8 + size]
        assert data[at + 8 + size : at + 12 + size] == struct.pack(">I", zlib.crc32(data[at + 4 : at + 8] + body))
        found.append((data[at + 4 : at + 8], body))
        at += 12 + size
    return found


def png(*extra: bytes, width: int = 48, height: int = 32, after: bytes = b"") -> bytes:
    """A PNG of noise with these chunks before its pixels."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:33] + b"".join(extra) + data[33:] + after


def text(key: str, value: str) -> bytes:
    return chunk(b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1"))


def as_the_page_reads(data: bytes) -> dict[str, Any]:
    """ComfyUI's page: frontend 1.27.10, getFromPngBuffer and handleFile. It takes tEXt for UTF-8 and does not skip what iTXt has before its text."""
    texts: dict[str, str] = {}
    for kind, body in chunks_of(data):
        if kind in (b"tEXt", b"comf", b"iTXt"):
            key, _, value = body.partition(b"\0")
            texts[key.decode("latin-1")] = value.decode("utf-8", "replace")
    return json.loads(texts.get("workflow") or texts["prompt"])


def noted(data: bytes, notes: Mapping[str, str], *sizes: int) -> bytes:
    """A PNG after the filter, fed in pieces of these sizes."""

    async def pieces() -> AsyncIterator[bytes]:
        at = 0
        while at < len(data):
            size = sizes[at % len(sizes)] if sizes else 100
            yield data[at : at + size]
            at += size

    async def whole() -> bytes:
        return b"".join([piece async for piece in in_png(pieces(), notes)])

    return asyncio.run(whole())


def clip(path: Path, codec: str = "libx264", rate: Any = 8, frames: int = 9, sound: str | None = None, tags: Mapping[str, str] | None = None) -> Path:
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"} if path.suffix in (".mp4", ".mov") else {}) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(sound, rate=48000) if sound else None
        random = np.random.default_rng(1)
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(random.integers(0, 255, (48, 64, 3), dtype=np.uint8), format="rgb24")))
        for n in range(20 if audio else 0):
            frame = av.AudioFrame(format="fltp", layout="mono", samples=960)
            frame.planes[0].update(random.standard_normal(960).astype("f4").tobytes())
            frame.rate, frame.pts, frame.time_base = 48000, n * 960, Fraction(1, 48000)
            container.mux(audio.encode(frame))
        for one in (stream, audio):
            container.mux(one.encode() if one else [])
    return path


def shown(path: Path) -> list[Any]:
    """Everything that a player gets: rates, times and the packets themselves."""
    with av.open(str(path)) as container:
        about = [(s.type, s.time_base, s.start_time, getattr(s, "average_rate", None), getattr(s, "rate", None)) for s in container.streams]
        packets = [(p.stream.index, p.pts, p.dts, p.duration, p.is_keyframe, bytes(p)) for p in container.demux() if p.size]
        return [about, container.duration, sorted(packets, key=lambda packet: (packet[0], packet[2]))]


def tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {name.lower(): value for name, value in container.metadata.items()}


# ---- reading: a real ComfyUI's files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SaveImage.png", "SaveAnimatedPNG.png", "SaveAnimatedWEBP.webp", "SaveWEBM.webm", "SaveVideo.mp4"])
def test_what_comfyui_wrote_is_read(name):
    found = read(FILES / name)
    assert found.prompt["9"] == {**found.prompt["9"], "class_type": name.partition(".")[0], "_meta": {"title": "雪の狐 füchsin"}}
    assert found.workflow["nodes"][0]["title"] == "雪の狐 füchsin"
    assert (found.parameters, found.request, found.simulated) == (None, None, False)
    assert read((FILES / name).read_bytes()) == read(str(FILES / name)) == found


def test_media_are_known_by_bytes_or_name(tmp_path):
    for path in FILES.iterdir():
        assert is_media(path)
        assert is_media(path.read_bytes())
        (tmp_path / "x").write_bytes(path.read_bytes())
        assert is_media(tmp_path / "x")
    assert is_media(tmp_path / "not there.png")
    for other in (b"", b"{}", b'{"BM": 1}', tmp_path / "not there.json", "a\0b"):
        assert not is_media(other)


# ---- reading: other writers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"packed iTXt"])
def test_every_kind_of_text_chunk_is_read(kind):
    value = '{"a": "ü"}'.encode()
    body = {
        b"tEXt": value, b"zTXt": b"\0" + zlib.compress(value), b"iTXt": b"\0\0de\0Wort\0" + value, b"packed iTXt": b"\1\0\0\0" + zlib.compress(value)
    }[kind]  # fmt: skip
    assert read(png(chunk(kind[-4:], b"Prompt\0" + body))).prompt == {"a": "ü"}


def test_a_text_chunk_in_latin_1_is_read():
    assert read(png(text("parameters", "füchsin"))).parameters == "füchsin"
    assert read(png(after=b"")[:-12] + chunk(b"tEXt", "parameters\0füchsin".encode()) + chunk(b"IEND", b"")).parameters == "füchsin"


A1111 = "狐, füchsin\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, Seed: 7"


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_a1111_in_exif_is_read(form, encoding):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + ("\u3000" + A1111).encode(encoding)
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, form, exif=exif)
    assert read(buffer.getvalue()) == Embedded(parameters="\u3000" + A1111)


def test_other_places_of_exif_are_read():
    exif = Image.Exif()
    exif[0x010E] = 'Workflow:{"nodes": [], "title": "狐"}'.encode()
    exif[0x010F] = "Canon"
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + json.dumps({"prompt": {"1": {}}, "extra": 1}).encode()
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "WEBP", exif=exif)
    assert read(buffer.getvalue()) == Embedded(prompt={"1": {}}, workflow={"nodes": [], "title": "狐"})


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mov", "libx264"), ("webm", "libvpx-vp9"), ("mkv", "libx264")])
def test_a_comment_with_json_is_read_in_any_container(tmp_path, suffix, codec):
    """VideoHelperSuite's way: the graph as a text or as it is."""
    path = clip(tmp_path / f"a.{suffix}", codec, tags={"comment": json.dumps({"prompt": json.dumps({"1": {"x": "狐"}}), "workflow": UI})})
    assert read(path) == Embedded(prompt={"1": {"x": "狐"}}, workflow=UI)


def test_a_comment_as_itunes_has_it_is_read(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        container.metadata["comment"] = json.dumps({"prompt": {"1": {}}})
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode())
    assert read(tmp_path / "a.mp4").prompt == {"1": {}}


def test_one_good_text_is_enough():
    found = read(png(text("prompt", "a girl"), text("workflow", "[" * 100_000), text("parameters", "a"), text("toolkit", '{"request": 5}')))
    assert found == Embedded(parameters="a")


# ---- reading: what is none ------------------------------------------------------------------------------------------------------------


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(b" " * 10**6) for _ in range(size // 10**6)) + packer.flush()


def huge() -> bytes:
    """B38: 30,000 x 30,000 in some kB."""
    rows = zlib.compressobj(9)
    pixels = b"".join(rows.compress(bytes(3751)) for _ in range(3000)) + rows.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", pixels) + text("prompt", '{"1": {}}') + chunk(b"IEND", b"")


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


BAD = {
    "no metadata": (png(), "The data: no workflow stored in this image."),
    "another's text": (png(text("Software", "paint")), "The data: no workflow stored in this image."),
    "a prompt in words": (png(text("prompt", "a girl")), "The data: the prompt stored in it is not JSON."),
    "a prompt that is a list": (png(text("prompt", "[]")), "The data: the prompt stored in it is no JSON object."),
    "deep": (png(text("prompt", "[" * 100_000)), "The data: the prompt stored in it is too deeply nested."),
    "endless number": (png(text("prompt", "9" * 5000)), "The data: the prompt stored in it is not JSON."),
    "truncated": (png(text("prompt", "{}"))[:-30], "The data is not a readable image: it ends too early."),
    "only a signature": (png()[:8], "The data is not a readable image: it ends too early."),
    "HTML": (b"<!DOCTYPE html><html>404</html>", "The data is not a readable image."),
    "empty": (b"", "The data is not a readable image."),
    "a packed bomb": (png(chunk(b"zTXt", b"prompt\0\0" + bomb(300_000_000))), "The data is not a readable image: it holds more than 20 MB of text."),
    "many packed bombs": (png(*[chunk(b"zTXt", b"x%d\0\0" % n + bomb(9_000_000)) for n in range(9)]), "The data is not a readable image: it holds more"),
    "an international bomb": (png(chunk(b"iTXt", b"prompt\0\1\0\0\0" + bomb(300_000_000))), "The data is not a readable image: it holds more than 20"),
    "a text of 30 MB": (png(chunk(b"tEXt", b"prompt\0" + b" " * 30_000_000)), "The data is not a readable image: it holds more than 20 MB of text."),
    "garbled text": (png(chunk(b"zTXt", b"prompt\0\0garbage")), "The data is not a readable image: Error -3 while decompressing data"),
    "a million chunks": (png(chunk(b"IDAT", b"") * 1_000_000), "The data is not a readable image: it has too many pieces."),
    "a chunk of 4 GB": (png(b"\xff\xff\xff\xfftEXtprompt\0"), "The data is not a readable image: it ends too early."),
    "GIF": (b"GIF89a" + bytes(20), "The data: no workflow stored in this image."),
    "AVIF": (b"\0\0\0\x1cftypavif" + bytes(20), "The data: no workflow stored in this image."),
    "BMP": (b"BM\x46\0\0\0\0\0\0\0" + bytes(60), "The data: no workflow stored in this image."),
    "JPEG cut": (b"\xff\xd8\xff\xe1\x20\x00Exif\0\0", "The data is not a readable image: it ends too early."),
    "JPEG of nothing": (b"\xff\xd8\xff" + b"\xff" * 10**6, "The data is not a readable image: it has too many pieces."),
    "JPEG that goes on": (b"\xff\xd8\xff\xe0\0\x04ab" + b"cd" * 9, "The data is not a readable image: it has something else than segments."),
    "WebP cut": ((FILES / "SaveAnimatedWEBP.webp").read_bytes()[:-9], "The data is not a readable image: it ends too early."),
    "WebP of nothing": (b"RIFF\4\0\0\0WEBP", "The data is not a readable image: it ends too early."),
    "MP4 cut": ((FILES / "SaveVideo.mp4").read_bytes()[:-9], "The data is not a readable clip: it ends too early."),
    "MP4 without index": (b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\0\x08free", "The data is not a readable clip: it has no index."),
    "MP4 of nothing": (b"\0\0\0\x0cftypisom" + b"\0\0\0\x04moov", "The data is not a readable clip: it has a box of no size."),
    "MP4 of many boxes": (b"\0\0\0\x0cftypisom" + b"\0\0\0\x08free" * 10**6, "The data is not a readable clip: it has too many pieces."),
    "MP4 of many names": (box(b"ftyp", b"isom") + box(b"moov", box(b"meta", bytes(4) + box(b"keys", bytes(20_000_000)))), "The data: no w"),
    "WebM cut": ((FILES / "SaveWEBM.webm").read_bytes()[:-9], "The data is not a readable clip: it ends too early."),
    "WebM of nothing": (b"\x1a\x45\xdf\xa3\x80", "The data is not a readable clip: it has no segment."),
    "WebM of zeros": (b"\x1a\x45\xdf\xa3" + bytes(10**6), "The data is not a readable clip: it has something else than elements."),
    "WebM of many elements": (b"\x1a\x45\xdf\xa3\x80" + b"\xec\x80" * 10**6, "The data is not a readable clip: it has too many pieces."),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", BAD)
def test_what_says_nothing_says_why_and_at_once(name):
    data, sentence = BAD[name]
    with pytest.raises(ExportUnreadable) as refused:
        read(data)
    assert str(refused.value).startswith(sentence)


@pytest.mark.usefixtures("quick")
def test_a_huge_picture_costs_what_its_headers_cost():
    assert len(huge()) < 200_000
    assert read(huge()).prompt == {"1": {}}


@pytest.mark.usefixtures("quick")
def test_exif_that_points_at_itself_ends():
    entry = struct.pack(">HHII", 0x8769, 4, 1, 8) + struct.pack(">HHII", 0x010E, 2, 4_000_000, 0)
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", 65_535) + entry * 32_768 + bytes(4_000_000)
    chunks = b"EXIF" + struct.pack("<I", len(exif)) + exif
    with pytest.raises(ExportUnreadable, match="no workflow stored"):
        read(b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks)


@pytest.mark.usefixtures("quick")
def test_a_file_that_cannot_be_opened_is_one_sentence(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.mp4").write_text("<html>")
    with (tmp_path / "large.png").open("wb") as stream:
        stream.truncate(200_000_001)
    for path, sentence in (
        (tmp_path / "none.png", "none.png cannot be read: No such file or directory."),
        (tmp_path, "cannot be read: Is a directory."),
        ("a\0b.png", "is no file name: embedded null byte."),
        (tmp_path / "empty.png", "empty.png is not a readable image."),
        (tmp_path / "page.mp4", "page.mp4 is not a readable clip."),
        (tmp_path / "large.png", "large.png has 200 MB; what is read has at most 200."),
    ):
        with pytest.raises(ExportUnreadable) as refused:
            read(path)
        assert str(refused.value).endswith(sentence)


@settings(relaxed, max_examples=300)
@given(st.sampled_from(sorted(FILES.iterdir())), st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(path, data):
    damaged = bytearray(path.read_bytes())
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), max_size=6)):
        damaged[place] = value
    with contextlib.suppress(ExportUnreadable):
        assert read(bytes(damaged[: data.draw(st.integers(0, len(damaged)))])) != Embedded()


# ---- what our files say ---------------------------------------------------------------------------------------------------------------

RECIPE = {
    "prompt": "a fox, <lora:mika:0.8>", "negative_prompt": "blur", "steps": 20, "sampler": "euler_ancestral", "scheduler": "karras", "cfg": 7.0, "seed": 7,
    "width": 832, "height": 1216, "model": "anime/noobai", "denoise": 1.0,
}  # fmt: skip


def test_the_parameters_are_a1111s():
    assert notes_of({}, RECIPE, {}, "1")["parameters"] == (
        "a fox, <lora:mika:0.8>\nNegative prompt: blur\n"
        "Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 7, Size: 832x1216, Model: anime/noobai, Version: anime-toolkit"
    )
    odd = {**RECIPE, "denoise": 0.55, "sampler": "res_2s", "scheduler": "bong", "model": 'a,b: "c"', "cfg": 6.5, "negative_prompt": "", "width": None}
    assert notes_of({}, odd, {}, "1")["parameters"] == (
        "a fox, <lora:mika:0.8>\nSteps: 20, Sampler: res_2s, Schedule type: bong, CFG scale: 6.5, Seed: 7, "
        'Model: "a,b: \\"c\\"", Denoising strength: 0.55, Version: anime-toolkit'
    )
    anything = {"sampler": {"__value__": [1, 2]}, "scheduler": 5, "cfg": "7", "seed": 1.5}
    said = """Sampler: "{'__value__': [1, 2]}", Schedule type: 5, CFG scale: 7, Seed: 1.5, Version: anime-toolkit"""
    assert notes_of({}, anything, {}, "1")["parameters"] == said
    assert "parameters" not in notes_of({}, {"prompt": None, "seed": None, "cfg": None}, {}, "1")


@pytest.mark.parametrize("sampler", sorted(prompts.SAMPLERS))
def test_the_parameters_can_be_pasted_as_a_prompt(sampler):
    for scheduler in prompts.SCHEDULERS:
        pasted = prompts.split_infotext(notes_of({}, {**RECIPE, "sampler": sampler, "scheduler": scheduler}, {}, "1")["parameters"])
        asked = {"steps": 20, "cfg": 7.0, "seed": 7, "width": 832, "height": 1216, "prefer_model": "anime/noobai", "sampler": sampler, "scheduler": scheduler}
        assert pasted == prompts.Infotext("a fox, <lora:mika:0.8>", "blur", asked)


def test_the_notes_are_graph_request_and_nothing_of_who_and_when():
    notes = notes_of({"1": {}}, RECIPE, {"kind": "image", "seed": 7}, "0.1")
    assert {name: json.loads(notes[name]) for name in ("prompt", "toolkit")} == {
        "prompt": {"1": {}},
        "toolkit": {"request": {"kind": "image", "seed": 7}, "version": "0.1"},
    }
    assert "workflow" not in notes
    simulated = notes_of({}, {**RECIPE, "simulated": True}, {"ui": UI}, "0.1")
    assert json.loads(simulated["workflow"]) == UI
    assert json.loads(simulated["toolkit"])["simulated"] is True


def test_notes_that_could_not_be_read_again_are_none():
    assert notes_of({"1": {"x": " " * 20_000_000}}, RECIPE, {}, "1") == {}


# ---- into a PNG -----------------------------------------------------------------------------------------------------------------------


@relaxed
@given(graphs, st.text(st.characters(codec=None), min_size=1), st.lists(st.integers(1, 4000), min_size=1, max_size=4))
def test_whatever_a_graph_says_a_png_says_it_again(graph, prompt, sizes):
    notes = notes_of(graph, {**RECIPE, "prompt": prompt}, {"kind": "image", "prompt": prompt}, "1")
    data = noted(png(text("prompt", "{}")), notes, *sizes)
    found = read(data)
    assert (found.prompt, found.request, found.workflow) == (graph, {"kind": "image", "prompt": prompt}, None)
    assert found.parameters == notes["parameters"]
    assert found.parameters.startswith(prompt.replace("\0", "\ufffd").encode("utf-8", "replace").decode())
    assert as_the_page_reads(data) == graph
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert picture.text == notes
        assert all(isinstance(value, PngImagePlugin.iTXt) != value.isascii() or key != "parameters" for key, value in picture.text.items())


def test_the_pixels_pass_as_they_came_and_every_sum_is_right():
    data = png(text("prompt", "{}"), chunk(b"gAMA", b"\0\0\xb1\x8f"), text("workflow", json.dumps(UI)), text("note", "kept"))
    written = noted(data, NOTES)
    kinds = [kind for kind, _ in chunks_of(written)]
    assert kinds == [b"IHDR", b"tEXt", b"tEXt", b"iTXt", b"gAMA", b"tEXt", b"tEXt", b"IDAT", b"IEND"]
    assert [body for kind, body in chunks_of(written) if kind == b"IDAT"] == [body for kind, body in chunks_of(data) if kind == b"IDAT"]
    assert as_the_page_reads(written) == UI
    assert read(written) == Embedded({"1": {"class_type": "A", "inputs": {}}}, UI, "狐\nSteps: 3", {"kind": "image"})
    assert b"kept" in written


def test_times_and_older_notes_do_not_pass_wherever_they_are():
    end = chunk(b"IEND", b"")
    tail = text("parameters", "old") + chunk(b"comf", b'prompt\0{"old": 1}') + chunk(b"tIME", bytes(7)) + chunk(b"zTXt", b"Toolkit\0\0" + zlib.compress(b"{}"))
    written = noted(png(text("CreationTime", "now"), chunk(b"tIME", bytes(7)))[:-12] + tail + end, NOTES)
    assert noted(png(), NOTES) == written


def test_the_workflow_of_the_request_takes_the_place_of_the_servers():
    written = noted(png(text("workflow", '{"nodes": []}')), {**NOTES, "workflow": json.dumps(UI)})
    assert written.count(b"workflow\0") == 1
    assert as_the_page_reads(written) == UI


def test_a_moving_png_moves_as_before():
    data = (FILES / "SaveAnimatedPNG.png").read_bytes()
    written = noted(data, NOTES, 1, 5, 90)
    assert [piece for piece in chunks_of(data) if piece[0] != b"comf"] == [piece for piece in chunks_of(written) if piece[0] not in (b"comf", b"tEXt", b"iTXt")]
    assert read(written).workflow == read(data).workflow
    assert b"shapes/sample" not in written
    with Image.open(io.BytesIO(written)) as picture:
        assert picture.n_frames == 2


@relaxed
@given(st.binary(max_size=400) | st.binary(max_size=60).map(lambda data: png()[:8] + data) | st.just(png() + b"what lies behind"), st.integers(1, 50))
def test_what_is_no_png_passes_unchanged_and_what_lies_behind_one_too(data, size):
    written = noted(data, NOTES, size)
    if not data.startswith(png()[:8]):
        assert written == data
    elif data.startswith(png()):
        assert written == noted(png(), NOTES) + b"what lies behind"
    else:
        assert len(written) <= len(data) + 400


def test_the_filter_holds_nothing_back_but_the_head_of_a_chunk():
    pen, data = _Pen(NOTES), png(text("Software", "x" * 9000), width=200, height=200)
    came = 0
    for at in range(0, len(data), 1000):
        came += len(pen.feed(data[at : at + 1000]))
        assert len(pen.held) < 100
    assert came == len(data) + sum(len(body) + 12 for _, body in chunks_of(noted(png(), NOTES))) - sum(len(body) + 12 for _, body in chunks_of(png()))


# ---- into a clip ----------------------------------------------------------------------------------------------------------------------

CLIPS = {
    "b-frames.mp4": {"codec": "libx264", "rate": 24, "frames": 30}, "ntsc and sound.mp4": {"rate": Fraction(30000, 1001), "sound": "aac"},
    "odd.mp4": {"rate": Fraction(7300, 1000)}, "one.mp4": {"frames": 1}, "vp9.webm": {"codec": "libvpx-vp9", "rate": Fraction(24000, 1001), "sound": "libopus"},
    "one.webm": {"codec": "libvpx-vp9", "frames": 1}, "quick.mov": {"sound": "aac"},
}  # fmt: skip


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_with_notes_shows_the_same_and_is_the_same_every_time(tmp_path, name):
    source, copies = clip(tmp_path / name, **CLIPS[name]), [tmp_path / f"{n}.part" for n in range(2)]
    for copy in copies:
        annotate(source, copy, name[-3:].replace("ebm", "webm"), NOTES)
    assert shown(copies[0]) == shown(source)
    assert copies[0].read_bytes() == copies[1].read_bytes()
    assert read(copies[0]) == Embedded({"1": {"class_type": "A", "inputs": {}}}, None, "狐\nSteps: 3", {"kind": "image"})
    assert tags(copies[0]).get("encoder", "Lavf") == "Lavf"


@pytest.mark.parametrize("name", ["SaveVideo.mp4", "SaveWEBM.webm"])
def test_what_comfyui_says_in_a_clip_is_replaced_but_for_the_workflow(tmp_path, name):
    copy = tmp_path / name
    annotate(FILES / name, copy, name[-4:].strip("."), NOTES)
    assert shown(copy) == shown(FILES / name)
    assert read(copy) == Embedded({"1": {"class_type": "A", "inputs": {}}}, read(FILES / name).workflow, "狐\nSteps: 3", {"kind": "image"})
    assert b"shapes/sample" not in copy.read_bytes()
    assert b"moov" in copy.read_bytes()[:64] or name.endswith("webm")  # the index comes first


def test_a_comment_that_tells_the_graph_again_goes_and_its_workflow_stays(tmp_path):
    told = {"comment": json.dumps({"prompt": {"secret": 1}, "workflow": UI}), "title": "kept", "creation_time": "2026-01-01T00:00:00Z", "workflow": "{}"}
    annotate(clip(tmp_path / "a.mp4", tags={key: told[key] for key in ("comment", "title", "creation_time")}), tmp_path / "b.mp4", "mp4", NOTES)
    assert read(tmp_path / "b.mp4").workflow == UI
    assert tags(tmp_path / "b.mp4")["title"] == "kept"
    assert {"comment", "creation_time"} & set(tags(tmp_path / "b.mp4")) == set()
    annotate(clip(tmp_path / "c.mp4", tags=told), tmp_path / "d.mp4", "mp4", NOTES)
    assert b"secret" not in (tmp_path / "d.mp4").read_bytes()
    annotate(clip(tmp_path / "e.mp4", tags={"comment": "my favourite"}), tmp_path / "f.mp4", "mp4", NOTES)
    assert tags(tmp_path / "f.mp4")["comment"] == "my favourite"


@settings(relaxed, max_examples=25)
@given(graphs, st.text(st.characters(codec=None), min_size=1))
def test_whatever_a_graph_says_a_clip_says_it_again(tmp_path_factory, graph, prompt):
    folder = tmp_path_factory.getbasetemp()
    for name, muxer in (("SaveVideo.mp4", "mp4"), ("SaveWEBM.webm", "webm")):
        notes = notes_of(graph, {**RECIPE, "prompt": prompt}, {"kind": "image", "prompt": prompt}, "1")
        annotate(FILES / name, folder / "noted", muxer, notes)
        found = read(folder / "noted")
        assert (found.prompt, found.request) == (graph, {"kind": "image", "prompt": prompt})
        assert found.parameters == notes["parameters"]


def test_what_cannot_be_copied_is_refused(tmp_path):
    cut = (FILES / "SaveVideo.mp4").read_bytes()[:900]
    for name, data in (("text", b"#EXTM3U\nfile:///etc/passwd"), ("none", b""), ("zeros", b"\0\0\0\x0cftypisom" + bytes(99)), ("cut", cut)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=r"."):
            annotate(tmp_path / name, tmp_path / "copy", "mp4", NOTES)
    with pytest.raises(ValueError, match=r"format does not support"):
        annotate(FILES / "SaveVideo.mp4", tmp_path / "copy", "webm", NOTES)


def test_a_copy_that_would_not_be_the_same_is_refused(tmp_path, monkeypatch):
    seen = iter([["as it was"], ["otherwise"]])
    monkeypatch.setattr(metadata.clips, "_contents", lambda path: next(seen))
    with pytest.raises(ValueError, match="its copy would not be the same clip"):
        annotate(FILES / "SaveVideo.mp4", tmp_path / "copy", "mp4", NOTES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_no_fault_of_the_clip():
    with pytest.raises(OSError, match="No space left") as full:
        annotate(FILES / "SaveVideo.mp4", Path("/dev/full"), "matroska", NOTES)
    assert not isinstance(full.value, ValueError)


# ---- out again ------------------------------------------------------------------------------------------------------------------------


def stripped(tmp_path: Path, data: bytes, name: str) -> bytes:
    (tmp_path / name).write_bytes(data)
    strip(tmp_path / name, tmp_path / f"clean {name}")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({name, f"clean {name}"})
    return (tmp_path / f"clean {name}").read_bytes()


def pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as picture:
        return b"".join(picture.seek(n) or picture.convert("RGBA").tobytes() for n in range(getattr(picture, "n_frames", 1)))


def test_a_stripped_png_is_its_pixels_and_what_shows_them(tmp_path):
    others = {b"iTXt": b"a\0\0\0\0\0b", b"zTXt": b"a\0\0x", b"eXIf": b"MM\0*", b"tIME": bytes(7), b"caBX": b"c2pa"}
    said = [text("prompt", "{}"), *(chunk(kind, body) for kind, body in others.items())]
    data = png(chunk(b"gAMA", b"\0\0\xb1\x8f"), *said, after=b"behind")
    assert stripped(tmp_path, data, "a.png") == png(chunk(b"gAMA", b"\0\0\xb1\x8f"))
    moving = (FILES / "SaveAnimatedPNG.png").read_bytes()
    assert pixels(stripped(tmp_path / ".", moving, "a.png")) == pixels(moving)


@pytest.mark.parametrize("name", ["SaveImage.png", "SaveAnimatedPNG.png", "SaveAnimatedWEBP.webp"])
def test_a_stripped_picture_of_comfyui_looks_the_same_and_says_nothing(tmp_path, name):
    data = (FILES / name).read_bytes()
    clean = stripped(tmp_path, data, name)
    assert pixels(clean) == pixels(data)
    assert b"EmptyImage" not in clean
    with pytest.raises(ExportUnreadable, match="no workflow stored in this image"):
        read(clean)
    assert stripped(tmp_path, clean, name) == clean


def photo(form: str, orientation: int = 1, **how: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "secret"
    buffer = io.BytesIO()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(buffer, form, exif=exif, xmp=b"<secret/>", icc_profile=profile, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_stripped_photo_keeps_pixels_and_colours_and_loses_exif_and_xmp(tmp_path, form, progressive):
    data = photo(form, **({"comment": b"secret", "progressive": progressive} if form == "JPEG" else {"lossless": progressive}))
    clean = stripped(tmp_path, data, f"a.{form}")
    assert data.count(b"secret") == (3 if form == "JPEG" else 2)
    assert b"secret" not in clean
    assert pixels(clean) == pixels(data)
    with Image.open(io.BytesIO(clean)) as picture:
        assert picture.info["icc_profile"]
        assert not picture.getexif()
        picture.load()


def test_a_photo_keeps_which_side_is_up(tmp_path):
    clean = stripped(tmp_path, photo("JPEG", orientation=6), "a.jpg")
    with Image.open(io.BytesIO(clean)) as picture:
        assert dict(picture.getexif()) == {0x0112: 6}
    assert b"secret" not in clean


def test_what_hides_between_scans_or_behind_a_jpeg_goes(tmp_path):
    data = photo("JPEG", progressive=True)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    hidden = data[:second] + b"\xff\xfe\0\x08secret" + data[second:] + b"secret behind"
    assert stripped(tmp_path, hidden, "a.jpg") == stripped(tmp_path, data, "a.jpg")
    assert pixels(stripped(tmp_path, data[:-2], "a.jpg")) == pixels(data)


@pytest.mark.parametrize("name", ["a.mp4", "a.m4v", "a.mov", "a.webm", "a.mkv", "a", "a.png"])
def test_a_stripped_clip_shows_the_same_and_has_no_tags(tmp_path, name):
    codec, sound = {"a.webm": ("libvpx-vp9", "libopus"), "a.mkv": ("ffv1", "aac")}.get(name, ("libx264", "aac"))
    made = tmp_path / (name if Path(name).suffix in (".mov", ".webm", ".mkv") else "made.mp4")
    clip(made, codec, sound=sound, tags={"prompt": '{"1": {}}', "title": "secret"}).rename(tmp_path / name)
    strip(tmp_path / name, tmp_path / "clean")
    assert shown(tmp_path / "clean") == shown(tmp_path / name)
    assert set(tags(tmp_path / "clean")) <= {"major_brand", "minor_version", "compatible_brands", "encoder"}
    assert b"secret" not in (tmp_path / "clean").read_bytes()


def test_a_file_may_be_stripped_in_its_place(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(text("prompt", "{}")))
    path.chmod(0o640)
    strip(path, path)
    assert path.read_bytes() == png()
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_stripped_is_one_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + bytes(20))
    (tmp_path / "cut.png").write_bytes(png()[:-20])
    (tmp_path / "cut.mp4").write_bytes((FILES / "SaveVideo.mp4").read_bytes()[:900])
    (tmp_path / "a.png").write_bytes(png())
    for name, sentence in (
        ("a.gif", "a.gif cannot be stripped: it is no PNG, JPEG, WebP, MP4, MOV, WebM or MKV."),
        ("cut.png", "cut.png cannot be stripped: it ends too early."),
        ("cut.mp4", "cut.mp4 cannot be stripped: "),
        ("none.png", "none.png cannot be read: No such file or directory."),
    ):
        with pytest.raises(ExportUnreadable) as refused:
            strip(tmp_path / name, tmp_path / "clean")
        assert sentence in str(refused.value)
    for source, target in ((tmp_path / "a.png", "nowhere/a.png"), (FILES / "SaveVideo.mp4", "nowhere/a.mp4"), (tmp_path / "a.png", "a.gif/a.png")):
        with pytest.raises(OutputError, match=rf"{target} cannot be written: No"):
            strip(str(source), str(tmp_path / target))
    assert len(list(tmp_path.iterdir())) == 4


@settings(relaxed, max_examples=200)
@given(st.sampled_from(["JPEG", "WEBP", "PNG"]), st.data())
def test_a_damaged_picture_is_stripped_or_refused_and_nothing_else(tmp_path_factory, form, data):
    damaged = bytearray(photo(form) if form != "PNG" else png(text("prompt", "{}")))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), max_size=6)):
        damaged[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    before = path.read_bytes()
    try:
        strip(path, path)
    except ExportUnreadable:
        assert path.read_bytes() == before
