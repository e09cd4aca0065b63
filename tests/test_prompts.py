r"""prompts: what people paste is read as they mean it, and equal seeds draw equally."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import RequestInvalid
from toolkit.prompts import Infotext, expand, sampler_of, split_infotext
from toolkit.requests import ImageRequest, VideoRequest

LISTS = {
    "hair": ["silver hair", "# a note", "", "  red hair  "], "eyes": ["{blue|green} eyes"], "look": ["__hair__, __eyes__"], "colors/warm": ["amber"],
    "endless": ["__endless__ again"], "nothing": ["# only a note"],
}  # fmt: skip
relaxed = settings(deadline=None, max_examples=100)

# as they stand under pictures in galleries, and what they mean: (pasted, sent, loras)
PASTED: list[tuple[str, str, list[tuple[str, float, float]]]] = [
    ("1girl, solo, silver hair", "1girl, solo, silver hair", []),
    ("1girl, <lora:mika_v3:0.8>, smile", "1girl, smile", [("mika_v3", 0.8, 0.8)]),
    ("<lora:mika_v3:0.8> 1girl", "1girl", [("mika_v3", 0.8, 0.8)]),
    ("1girl <lora:mika_v3>", "1girl", [("mika_v3", 1.0, 1.0)]),
    ("1girl, <lora:detail tweaker XL:-1.5>", "1girl", [("detail tweaker XL", -1.5, -1.5)]),
    ("1girl,<lora:a:0.6:0.3>,night", "1girl,night", [("a", 0.6, 0.3)]),
    ("<lora:a:1><lora:b:.5>, sky", "sky", [("a", 1.0, 1.0), ("b", 0.5, 0.5)]),
    ("<LoRA:Style_v2.1:0.7:lbw=ALL>, sky", "sky", [("Style_v2.1", 0.7, 0.7)]),
    ("<lyco:old:0.9>, sky", "sky", [("old", 0.9, 0.9)]),
    ("(masterpiece:1.2), (best quality), ((night))", "(masterpiece:1.2), (best quality), ((night))", []),
    (r"saber \(fate\), artoria pendragon \(fate\)", r"saber \(fate\), artoria pendragon \(fate\)", []),
    ("[blurry], sky", "(blurry:0.9), sky", []),
    ("[[blurry]], sky", "((blurry:0.9):0.9), sky", []),
    ("{{{detailed eyes}}}, sky", "(((detailed eyes:1.05):1.05):1.05), sky", []),
    ("{detailed eyes}, sky", "(detailed eyes:1.05), sky", []),
    ("1.5::rain::, 0.7::fog::", "(rain:1.5), (fog:0.7)", []),
    ("1girl BREAK forest, BREAK\nnight", "1girl forest, night", []),
    ("1girl, , ,  sky,", "1girl, sky", []),
    ("\u200b1girl,\u00a0sky\ufeff", "1girl,\u00a0sky", []),
    ("1girl, &lt;lora:mika:0.8&gt;, rock &amp; roll", "1girl, rock & roll", [("mika", 0.8, 0.8)]),
    ("score_9, score_8_up, score_7_up, source_anime, 1girl", "score_9, score_8_up, score_7_up, source_anime, 1girl", []),
    ("@comfyanonymous, @artist name, 1girl", "@comfyanonymous, @artist name, 1girl", []),
    ("artist:wlop, year 2024, rating:general", "artist:wlop, year 2024, rating:general", []),
    ("embedding:easynegative, (embedding:bad_hands.pt:1.2)", "embedding:easynegative, (embedding:bad_hands.pt:1.2)", []),
    (":d, :3, ^_^, >_<, ;), \\||/", ":d, :3, ^_^, >_<, ;), \\||/", []),
    ("hair_ribbon, looking_at_viewer, 1girl__solo", "hair_ribbon, looking_at_viewer, 1girl__solo", []),
    ("She said \"hello\", and smiled: it's late.", "She said \"hello\", and smiled: it's late.", []),
    ("a girl\nat the sea\n\nevening", "a girl\nat the sea\n\nevening", []),
    ('{"subject": "a girl", "style": ["ink", "soft"]}', '{"subject": "a girl", "style": ["ink", "soft"]}', []),
    ("[cat:dog:0.7], sky", "cat, sky", []),
    ("[cat:dog:0.3], sky", "dog, sky", []),
    ("[:dog:12], sky", "dog, sky", []),
    ("[rain:0.9], sky", ", sky".lstrip(", "), []),
    ("[red|blue] hair", "red hair", []),
    ("<hypernet:old:1>, sky", "sky", []),
    (r"\{not a choice\}, sky", r"\{not a choice\}, sky", []),
    ("銀髪の少女、桜の下", "銀髪の少女、桜の下", []),
    ("1girl, 👩🏽‍🎤 idol", "1girl, 👩🏽🎤 idol", []),
    ("(detailed:1.1), <lora:a:1>, (b:1.3), , <lora:c:0.2>,", "(detailed:1.1), (b:1.3)", [("a", 1.0, 1.0), ("c", 0.2, 0.2)]),
    ("{1girl}", "(1girl:1.05)", []),
    ("{}, sky", "sky", []),
    ("2::lantern::, {fox|fox}", "(lantern:2), fox", []),
]  # fmt: skip


@pytest.mark.parametrize(("pasted", "sent", "loras"), PASTED, ids=[text[:30] for text, _, _ in PASTED])
def test_a_pasted_prompt_is_read_as_it_is_meant(pasted, sent, loras):
    found = expand(pasted, 7)
    assert (found.text, list(found.loras)) == (sent, loras)


def test_there_are_forty_of_them():
    assert len(PASTED) >= 40


# ---- drawing ----------------------------------------------------------------------------------------------------------------


def drawn(text: str, count: int = 200) -> set[str]:
    return {expand(text, seed, LISTS.get).text for seed in range(count)}


def test_each_choice_is_drawn_and_a_seed_draws_the_same_again():
    assert drawn("{a|b|c}") == {"a", "b", "c"}
    assert [expand("{a|b|c} {d|e}", seed) for seed in range(9)] == [expand("{a|b|c} {d|e}", seed) for seed in range(9)]
    assert drawn("{a|{b|c} d}") == {"a", "b d", "c d"}
    assert drawn("x{|, y}") == {"x", "x, y"}
    assert drawn(r"{a\|b|c}") == {r"a\|b", "c"}


def test_weights_and_counts_are_kept():
    heavy = [expand("{9::a|1::b}", seed).text for seed in range(400)]
    assert 300 < heavy.count("a") < 398
    assert drawn("{2$$a|b|c}") == {f"{one}, {other}" for one in "abc" for other in "abc" if one != other}
    assert {len(text.split(", ")) for text in drawn("{1-3$$a|b|c}")} == {1, 2, 3}
    assert drawn("{5$$a|b}") == {"a, b", "b, a"}
    assert drawn("{0::a|1::b}") == {"b"}


def test_a_list_is_read_without_notes_and_may_name_another():
    assert drawn("__hair__") == {"silver hair", "red hair"}
    assert drawn("__look__") == {f"{hair} hair, {eyes} eyes" for hair in ("silver", "red") for eyes in ("blue", "green")}
    assert drawn("__colors/warm__ light") == {"amber light"}
    assert drawn("a, __nothing__, b") == {"a, b"}


def test_a_list_that_is_not_there_or_never_ends_is_said():
    with pytest.raises(RequestInvalid, match=r"no wildcard list 'hats'. Put wildcards/hats.txt"):
        expand("__hats__", 1, LISTS.get)
    with pytest.raises(RequestInvalid, match="without end"):
        expand("__endless__", 1, LISTS.get)
    bomb = {"a": ["__b__" * 50], "b": ["__c__" * 50], "c": ["x" * 1000]}
    with pytest.raises(RequestInvalid, match="grows beyond"):
        expand("__a__" * 10, 1, bomb.get)


def test_what_comfyui_does_not_know_is_left_out_and_said():
    said = expand("[cat:dog:0.7], <hypernet:x:1>, [a|b]", 1).warnings
    assert "<hypernet:x:1>" in said[0]
    assert "[cat:dog:0.7], [a|b]" in said[1]
    assert expand("1girl, (a:1.2)", 1).warnings == ()


@relaxed
@given(st.text(max_size=200), st.integers(0, 2**64 - 1))
def test_any_text_is_read_without_an_accident(text, seed):
    try:
        found = expand(text, seed)
    except RequestInvalid:
        return
    assert expand(text, seed) == found
    assert not re.search(r"<\s*lora\s*:[^<>:]+>", found.text, re.IGNORECASE)


@relaxed
@given(st.text(st.characters(exclude_characters="<>{}[]_:&\\\x00 \t\n,", exclude_categories=["Cs", "Cc", "Cf", "Zs"]), max_size=60))
def test_a_text_without_odd_syntax_stays_as_it_is(text):
    assert expand(text, 1).text == text.replace("BREAK", "") if "BREAK" in text else expand(text, 1).text == text


# ---- the text under a picture ---------------------------------------------------------------------------------------------------

CIVITAI = """1girl, fox ears, <lora:mika:0.7>
at the shrine
Negative prompt: bad hands,
lowres
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 3141592653, Size: 832x1216, Model: animagineXL40, Model hash: abc, Clip skip: 2, \
Hires upscale: 1.5, Lora hashes: "mika: 1f2e", Version: v1.9.4"""


def test_the_text_under_a_picture_is_taken_apart():
    assert split_infotext(CIVITAI) == Infotext(
        "1girl, fox ears, <lora:mika:0.7>\nat the shrine",
        "bad hands,\nlowres",
        {
            "steps": 28, "cfg": 6.5, "seed": 3141592653, "width": 832, "height": 1216, "prefer_model": "animagineXL40", "sampler": "dpmpp_2m",
            "scheduler": "karras",
        },
        ("clip skip", "hires upscale"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1", Infotext("a", None, {"steps": 20, "cfg": 7.0, "seed": 1, "sampler": "euler_ancestral"})),
        ("a\nNegative prompt: b", Infotext("a", "b")),
        ("Negative prompt: b", Infotext("", "b")),
        ("a\nNegative prompt: b\nSteps: 8, Sampler: Magic", Infotext("a", "b", {"steps": 8})),
        ("a\nSteps: 8, Sampler: DPM++ 2M, Schedule type: Karras", Infotext("a", None, {"steps": 8, "sampler": "dpmpp_2m", "scheduler": "karras"})),
        ("two steps: up and down, a girl", None),
        ("she is afraid of the Negative prompt: really", None),
        ("1girl", None),
    ],
)
def test_parts_may_be_missing_and_a_plain_prompt_stays_one(text, expected):
    assert split_infotext(text) == expected


def test_samplers_have_comfyuis_names():
    assert sampler_of("DPM++ 2M SDE Karras") == {"sampler": "dpmpp_2m_sde", "scheduler": "karras"}
    assert sampler_of("Euler a") == {"sampler": "euler_ancestral"}
    assert sampler_of("DDIM") == {"sampler": "ddim"}
    assert sampler_of("UniPC", "SGM Uniform") == {"sampler": "uni_pc", "scheduler": "sgm_uniform"}
    assert sampler_of("nobody knows") == {}


def test_a_request_takes_the_pasted_settings_and_what_is_given_apart_wins():
    request = ImageRequest(prompt=CIVITAI, steps=10)
    assert (request.prompt, request.negative_prompt) == ("1girl, fox ears, <lora:mika:0.7>\nat the shrine", "bad hands,\nlowres")
    assert (request.steps, request.cfg, request.seed, request.width, request.sampler) == (10, 6.5, 3141592653, 832, "dpmpp_2m")
    assert (request.model, request.prefer_model) == (None, "animagineXL40")
    assert ImageRequest(prompt=CIVITAI, aspect="square").width is None
    clip = VideoRequest(prompt=CIVITAI)
    assert (clip.steps, clip.width) == (28, None)
    assert ImageRequest(**request.as_json()) == request


def test_a_pasted_text_without_a_prompt_is_refused():
    with pytest.raises(RequestInvalid, match="prompt is empty"):
        ImageRequest(prompt="Negative prompt: b\nSteps: 20, Sampler: Euler")
