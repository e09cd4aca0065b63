import dataclasses
import hashlib
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest

from toolkit.engine import drawing, looks, words
from toolkit.engine.drawing import Brief, draw, emerging

PROMPT = "1girl, silver hair, long hair, blue eyes, smile, school uniform, cherry blossoms, day"


def brief(prompt=PROMPT, negative="", seed=7, width=208, height=304):
    return Brief(prompt, negative, seed, width, height)


def distance(one, other):
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())


def fingerprint(picture):
    return hashlib.sha256(picture.tobytes()).hexdigest()


def test_same_brief_gives_the_same_bytes():
    first = draw(brief(), 1.25)
    drawing._backdrop.cache_clear()
    assert np.array_equal(first, draw(brief(), 1.25))


def test_another_process_gives_the_same_bytes():
    code = (
        "import hashlib; from toolkit.engine.drawing import Brief, draw, emerging; "
        f"p = draw(Brief({PROMPT!r}, '', 7, 208, 304), 0.5); "
        "print(hashlib.sha256(p.tobytes() + emerging(p, 0.5, 7).tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    picture = draw(brief(), 0.5)
    assert done.stdout.strip() == hashlib.sha256(picture.tobytes() + emerging(picture, 0.5, 7).tobytes()).hexdigest()


@pytest.mark.parametrize("size", [(16, 16), (512, 512), (832, 1216), (832, 480), (16, 640), (640, 16), (333, 77)])
def test_size_is_exact(size):
    width, height = size
    picture = draw(brief(width=width, height=height))
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8


def test_scale_draws_a_smaller_version_of_the_same_composition():
    large, small = draw(brief(width=416, height=608)), draw(brief(width=416, height=608), scale=0.25)
    assert small.shape == (152, 104, 3)
    averaged = large.reshape(152, 4, 104, 4, 3).mean(axis=(1, 3)).astype(np.uint8)
    assert distance(averaged[:140], small[:140]) < 6


def test_another_seed_gives_another_picture():
    assert distance(draw(brief(seed=1)), draw(brief(seed=2))) > 1
    assert fingerprint(draw(brief(seed=2**64 - 1))) != fingerprint(draw(brief(seed=0)))


def test_unknown_words_vary_what_is_left_open():
    pictures = {fingerprint(draw(brief(f"1girl, {word}", width=64, height=96))) for word in ("quixotic", "zephyr", "lanternfish", "")}
    assert len(pictures) == 4


def test_praise_and_word_order_change_nothing():
    assert words.read("masterpiece, best quality, silver hair, zephyr", "", 3) == words.read("zephyr, silver hair", "", 3)


@pytest.mark.parametrize(
    ("attribute", "prompt", "value"),
    [
        ("hair_color", "a silver-haired girl under cherry trees", "silver"),
        ("hair_color", "her hair is green, blue eyes", "green"),
        ("hair_color", "girl with long wavy pink hair", "pink"),
        ("hair_color", "a blonde girl in a red dress", "blonde"),
        ("hair_color", "black_hair, (red hair:1.3)", "red"),
        ("hair_length", "a boy with short black hair", "short"),
        ("hair_length", "very long hair", "long"),
        ("hair_style", "twin_tails", "twintails"),
        ("eye_color", "Blue Eyes", "blue"),
        ("eye_color", "(green eyes:1.2), blue dress", "green"),
        ("eye_color", "a red-eyed knight", "red"),
        ("expression", "sleeping under a tree, closed eyes", "asleep"),
        ("expression", "she is crying in the rain", "crying"),
        ("expression", "angry knight", "angry"),
        ("clothes", "a girl in a yukata", "kimono"),
        ("clothes", "school uniform, beach", "uniform"),
        ("clothes_color", "a long red dress", "red"),
        ("clothes_color", "white coat, red scarf", "white"),
        ("accent_color", "white coat, red scarf", "red"),
        ("accent_color", "a red-haired girl with a blue hair ribbon", "blue"),
        ("hair_color", "green hair ribbon, brown hair", "brown"),
        ("clothes", "a knight in armor", "jacket"),
        ("place", "mountains", "forest"),
        ("time", "tokyo at midnight", "night"),
        ("time", "golden hour", "sunset"),
        ("place", "school uniform, beach", "beach"),
        ("place", "under cherry trees", "cherry"),
        ("place", "in front of a torii", "shrine"),
        ("weather", "it is raining", "rain"),
        ("weather", "winter forest, snowing", "snow"),
        ("framing", "close-up of a girl", "close"),
        ("framing", "wide shot, meadow", "full"),
        ("ears", "a fox girl", "fox"),
        ("ears", "nekomimi", "cat"),
        ("person", "1boy, hoodie", "boy"),
        ("person", "scenery, no humans", "nobody"),
        ("ornament", "girl with glasses", "glasses"),
    ],
)
def test_words_settle_an_attribute(attribute, prompt, value):
    for seed in range(4):
        assert getattr(words.read(prompt, "", seed), attribute) == value


def test_only_whole_words_count():
    plain = words.read("a training smiley scarecrow", "", 5)
    assert plain.weather != "rain"
    assert words._mentioned("expression", words._plain("smiley")) == []


@pytest.mark.parametrize(
    ("attribute", "one", "other"),
    [
        ("hair_color", "silver hair", "red hair"), ("eye_color", "blue eyes", "red eyes"), ("hair_length", "short hair", "long hair"),
        ("hair_style", "twintails", "hair down"), ("expression", "smile", "angry"), ("expression", "wink", "closed eyes"),
        ("clothes", "kimono", "armor"), ("accent_color", "red tie", "blue tie"), ("clothes_color", "red dress", "blue dress"), ("time", "day", "night"),
        ("place", "beach", "city"), ("weather", "clear sky", "snow"), ("framing", "close-up", "full body"), ("ears", "fox ears", "human ears"),
        ("ornament", "hair ribbon", "hair flower"), ("ornament", "glasses", "scarf"), ("skin", "dark skin", "pale skin"), ("person", "1girl", "1boy"),
    ],
)  # fmt: skip
def test_a_word_changes_its_attribute_and_the_picture(attribute, one, other):
    first, second = words.read(one, "", 11), words.read(other, "", 11)
    changed = {field.name for field in dataclasses.fields(first) if getattr(first, field.name) != getattr(second, field.name)}
    assert attribute in changed
    if attribute not in ("person", "place", "time"):  # these choose what usually goes with them
        assert changed == {attribute}
    assert distance(draw(brief(one, seed=11)), draw(brief(other, seed=11))) > 0.05


def crown(prompt):
    """The mean colour on top of the head in a close-up without sway."""
    picture = draw(brief(f"1girl, close-up, hair down, {prompt}, day, clear sky, white background"))
    return picture[55:68, 80:128].reshape(-1, 3).mean(axis=0)


def test_hair_has_the_colour_asked_for():
    red, blue, silver = crown("red hair"), crown("blue hair"), crown("silver hair")
    assert red[0] - red[2] > 60
    assert blue[2] - blue[0] > 60
    assert np.ptp(silver) < 40
    assert silver.mean() > 170


def test_scarf_has_the_colour_asked_for():
    red, blue = (draw(brief(f"1girl, upper body, {name} scarf, short hair, red dress, day")) for name in ("red", "blue"))
    scarf = np.abs(red.astype(int) - blue).sum(axis=2) > 100
    assert scarf.sum() > 300
    assert np.median(red[scarf], axis=0).argmax() == 0
    assert np.median(blue[scarf], axis=0).argmax() == 2


def test_night_is_darker_than_day():
    assert draw(brief("beach, night, no humans")).mean() < draw(brief("beach, day, no humans")).mean() - 60


def test_negative_words_switch_off():
    assert words.read("city, rain", "rain", 1).weather != "rain"
    assert words.read("glasses", "glasses", 1).ornament != "glasses"
    assert words.read("city, no rain, without glasses", "", 1).weather != "rain"
    assert words.read("city, no rain, without glasses", "", 1).ornament != "glasses"
    assert all(words.read("1girl", "night, (smile:1.2)", seed).time != "night" for seed in range(30))
    assert all(words.read("1girl", "night, (smile:1.2)", seed).expression != "smile" for seed in range(30))
    assert words.read("(rain:0), city", "", 1).weather != "rain"


@pytest.mark.parametrize("prompt", [PROMPT, "boy, rain, city, night", "fox girl, snow, no background", "meadow, fireflies, no humans", "room"])
def test_frames_move_smoothly(prompt):
    frames = [draw(brief(prompt), n / 12) for n in range(8)]
    steps = [distance(a, b) for a, b in pairwise(frames)]
    assert min(steps) > 0
    assert max(steps) < 8
    assert distance(frames[0], frames[-1]) > 0.1


def test_eyes_blink_within_three_seconds():
    pose = drawing.portrait.pose(words.read(PROMPT, "", 7), 7, 0.0)
    assert pose.openness == 1
    assert min(drawing.portrait.pose(words.read(PROMPT, "", 7), 7, n / 24).openness for n in range(72)) < 0.3


def test_picture_emerges_from_noise_and_only_comes_nearer():
    picture = draw(brief(width=384, height=256))
    away = [distance(emerging(picture, share / 20, 3), picture) for share in range(21)]
    assert away == sorted(away, reverse=True)
    assert away[0] > 50
    assert away[-1] == 0
    assert len(set(away)) == 21


def test_noise_is_colourful_and_owes_nothing_to_the_picture():
    one, other = draw(brief(seed=1)), draw(brief("city, night", seed=2))
    assert np.array_equal(emerging(one, 0.0, 5), emerging(other, 0.0, 5))
    assert not np.array_equal(emerging(one, 0.0, 5), emerging(one, 0.0, 6))
    assert np.ptp(emerging(one, 0.0, 5).astype(np.int16), axis=2).mean() > 30


def test_emerging_is_cheap():
    picture = draw(brief(width=384, height=256))
    emerging(picture, 0.1, 1)
    fastest = 1.0
    for n in range(8):
        start = time.perf_counter()
        emerging(picture, n / 8, 1)
        fastest = min(fastest, time.perf_counter() - start)
    assert fastest < 0.03


def test_every_picture_bears_the_mark(monkeypatch):
    marked = draw(brief(width=512, height=512))
    empty = drawing.Image.new("RGBA", (1, 1))
    monkeypatch.setattr(drawing, "_mark", lambda size: (empty, (0, 0)))
    rows, columns, _ = np.nonzero(marked != draw(brief(width=512, height=512)))
    assert rows.min() > 450
    assert columns.min() > 350
    assert np.ptp(columns) > 80
    corner = marked[rows.min() : rows.max(), columns.min() : columns.max()]
    assert (corner.min(axis=2) > 220).mean() > 0.03  # white letters


INK, MIKA = ("ink_lines_xl.safetensors", 1.0), ("mika_v3.safetensors", 1.0)


def test_a_look_changes_lines_and_colours_and_none_changes_nothing():
    plain = draw(brief())
    assert np.array_equal(draw(dataclasses.replace(brief(), look=(("any", 0.0),))), plain)
    away = [distance(draw(dataclasses.replace(brief(), look=(("ink", strength),))), plain) for strength in (0.3, 0.6, 1.0)]
    assert 0.5 < away[0] < away[1] < away[2] < 30


def test_names_of_lines_make_them_bold_and_every_name_has_its_own_look():
    assert looks.style((INK,)).ink > 2
    assert len({looks.style(((f"{n}.safetensors", 1.0),)) for n in range(20)}) == 20
    both = looks.style((INK, MIKA))
    assert both.ink == looks.style((INK,)).ink * looks.style((MIKA,)).ink
    for strength in (-100.0, -1.0, 100.0):
        style = looks.style((("a", strength), ("ink", strength)))
        assert style.ink > 0
        assert style.colour >= 0
        draw(dataclasses.replace(brief(width=32, height=32), look=(("a", strength),)))


def test_air_is_drawn_on_nothing_and_petals_where_there_is_no_weather():
    for prompt in (PROMPT, "room, indoors", "snow"):
        air = np.asarray(drawing.falling(brief(prompt, width=200, height=200), 1.0, (200, 200), 1.0))
        assert 0 < (air[..., 3] > 0).mean() < 0.3
    assert np.asarray(drawing.falling(brief(), 1.0, (200, 200), 0.0))[..., 3].max() == 0


def test_mark_stands_on_the_other_side_where_asked_and_fades():
    grey = drawing.Image.new("RGB", (400, 300), (128, 128, 128))
    right, left = drawing.marked_up(grey), drawing.marked_up(grey, left_side=True)
    assert np.nonzero((right != 128).any(axis=2))[1].min() > 200 > np.nonzero((left != 128).any(axis=2))[1].max()
    assert 0 < distance(drawing.marked_up(grey, 0.3), np.asarray(grey)) < distance(right, np.asarray(grey))
    assert np.array_equal(drawing.marked_up(grey, 0.0), np.asarray(grey))


def test_odd_prompts_are_drawn():
    for prompt in ("", "((((", "🦊🌸", "\ud800", "(a:b:c:9.9.9)", "<lora:x:1>", "no", "blue " * 3000):
        assert draw(brief(prompt, width=32, height=32)).shape == (32, 32, 3)
