"""inputs: what a user brings is looked at before it is decoded, kept once, and given back in a year."""

from __future__ import annotations

import io
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from toolkit.errors import OutputError, RequestInvalid
from toolkit.inputs import PIXEL_LIMIT, SIZE_LIMIT, InputStore, WildcardFolder


@pytest.fixture
def store(tmp_path: Path) -> InputStore:
    return InputStore(tmp_path / "home")


def picture(size: tuple[int, int] = (40, 60), mode: str = "RGB") -> Image.Image:
    made = Image.new(mode, size, 100 if mode in ("L", "I;16") else None)
    if mode in ("RGB", "RGBA"):
        made.paste((200, 30, 90), (0, 0, size[0] // 2, size[1]))
    return made


def encoded(made: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    made.save(buffer, kind, **options)
    return buffer.getvalue()


def header_only(width: int, height: int) -> bytes:
    """A PNG of any size that holds no pixels: a decompression bomb in 70 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_png_is_kept_as_it_is_and_found_again(store, tmp_path):
    data = encoded(picture(), "PNG")
    ref = store.keep(data)
    assert (ref.width, ref.height) == (40, 60)
    assert store.path(ref.sha256).read_bytes() == data
    assert store.find(ref.sha256) == ref
    (tmp_path / "a.png").write_bytes(data)
    assert store.keep(tmp_path / "a.png") == store.keep(str(tmp_path / "a.png")) == ref
    assert [path.name for path in store.folder.iterdir()] == [f"{ref.sha256}.png"]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_other_pictures_become_png(store, kind):
    ref = store.keep(encoded(picture(), kind))
    with Image.open(store.path(ref.sha256)) as kept:
        assert (kept.format, kept.size) == ("PNG", (40, 60))
        assert kept.convert("RGB").getpixel((5, 5))[0] > 150


def test_a_picture_that_lies_on_its_side_is_turned_upright(store):
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG"):
        ref = store.keep(encoded(picture((60, 40)), kind, exif=exif))
        assert (ref.width, ref.height) == (40, 60)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1"])
def test_a_pil_image_of_any_mode_is_kept(store, mode):
    ref = store.keep(picture().convert(mode))
    with Image.open(store.path(ref.sha256)) as kept:
        assert kept.mode in ("RGB", "RGBA", "L")


def test_of_several_frames_the_first_is_kept(store):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    ref = store.keep(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    with Image.open(store.path(ref.sha256)) as kept:
        assert kept.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "data", [b"", b"MZ\x90\x00 a program", b"<html>not a picture</html>", encoded(picture(), "PNG")[:60], b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"],
    ids=["empty", "program", "page", "cut", "pdf", "signature"],
)  # fmt: skip
def test_what_is_no_picture_is_refused_and_leaves_nothing(store, data):
    with pytest.raises(RequestInvalid, match="no picture we can read") as refused:
        store.keep(data)
    assert refused.value.field == "image"
    assert not store.folder.exists()


def test_huge_pictures_are_refused_before_they_are_decoded(store):
    began = time.monotonic()
    for side, said in ((9_000, "9000x9000"), (30_000, "far too many")):
        with pytest.raises(RequestInvalid, match=f"{said} pixels; at most {PIXEL_LIMIT / 1e6:.0f} megapixels"):
            store.keep(header_only(side, side))
    with pytest.raises(RequestInvalid, match=f"at most {SIZE_LIMIT / 1e6:.0f} are taken"):
        store.keep(b"\0" * (SIZE_LIMIT + 1))
    assert time.monotonic() - began < 1.0


def test_only_two_pictures_are_decoded_at_once(store, monkeypatch):
    busy, most, decode = [0], [0], PngImageFile.load

    def counting(picture):
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        time.sleep(0.02)
        busy[0] -= 1
        return decode(picture)

    monkeypatch.setattr(PngImageFile, "load", counting)
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda side: store.keep(encoded(picture((side, 8)), "PNG")), range(8, 16)))
    assert (len(kept), most) == (8, [2])


def test_what_cannot_be_read_or_is_no_source_is_said(store, tmp_path):
    with pytest.raises(RequestInvalid, match="cannot be read: No such file"):
        store.keep(tmp_path / "none.png")
    with pytest.raises(RequestInvalid, match="cannot be read: Is a directory"):
        store.keep(tmp_path)
    with pytest.raises(RequestInvalid, match="int is no picture"):
        store.keep(5)
    with pytest.raises(RequestInvalid, match="is no file name"):
        store.keep("a\0b")
    with pytest.raises(RequestInvalid, match="no input picture ffffffffffff in this home"):
        store.find("f" * 64)


def test_a_folder_that_cannot_be_written_is_one_sentence(store, tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        store.keep(encoded(picture(), "PNG"))


# ---- wildcards --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lists(tmp_path: Path) -> WildcardFolder:
    found = WildcardFolder(tmp_path)
    for name, text in {"hair": "silver\nred\n", "colors/warm": "\ufeffamber\n", "colors/cold": "ice\n", "Poses": "sitting\n"}.items():
        path = found.folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return found


def test_a_list_is_a_file_by_its_path(lists):
    assert lists("hair") == ["silver", "red"]
    assert lists("colors/warm") == ["amber"]
    assert lists("poses") == ["sitting"]
    assert sorted(lists("colors/*") or ()) == ["amber", "ice"]
    assert lists.names() == ["Poses", "colors/cold", "colors/warm", "hair"]
    assert lists("hats") is None
    assert WildcardFolder(lists.folder / "none")("hair") is None


def test_a_misspelt_list_gets_the_nearest_one(lists):
    with pytest.raises(RequestInvalid, match="Did you mean __hair__"):
        lists("hairs")


def test_no_name_leads_out_of_the_folder(lists, tmp_path):
    (tmp_path / "secret.txt").write_text("key")
    (lists.folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert lists("../secret") is None
    assert lists("link") is None


def test_a_list_that_is_not_utf8_is_said(lists):
    (lists.folder / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(RequestInvalid, match=r"bad.txt is not UTF-8 \(byte 0\)"):
        lists("bad")
