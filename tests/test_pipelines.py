"""pipelines: a request becomes the graph of ComfyUI's own template, valid on a recorded server, or a refusal that says what to put where."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from toolkit.errors import ModelUnknown, NodeUnknown, RequestInvalid, WorkflowInvalid
from toolkit.graph import NodeCatalog, validate
from toolkit.pipelines import build
from toolkit.pipelines.families import CHECKPOINT, SDXL, WAN22_5B, Family, ModelFile, choose, rounded, with_quality
from toolkit.requests import ImageRequest, Request, VideoRequest, WorkflowRequest

RECORDINGS = Path(__file__).with_name("recordings")
RECORDED = json.loads((RECORDINGS / "object_info-0.3.64.json").read_text(encoding="utf-8"))
CHECKPOINTS = ["tiny_sd15.safetensors", "anime/animagine-xl-4.0.safetensors", "illustriousXL_v01.safetensors"]
WAN_FILES = {
    ("UNETLoader", "unet_name"): ["flux1-dev.safetensors", "wan2.2_ti2v_5B_fp16.safetensors"],
    ("CLIPLoader", "clip_name"): ["clip_l.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"],
    ("VAELoader", "vae_name"): ["wan_2.1_vae.safetensors", "wan2.2_vae.safetensors", "pixel_space"],
}
relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault


def catalog(files: dict[tuple[str, str], list[str]] | None = None, without: tuple[str, ...] = ()) -> NodeCatalog:
    """The recorded server with other files in its model folders."""
    info = {name: spec for name, spec in RECORDED.items() if name not in without}
    for (class_type, name), names in (files if files is not None else {("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINTS, **WAN_FILES}).items():
        if class_type in info:
            info[class_type] = copy.deepcopy(info[class_type])
            info[class_type]["input"]["required"][name][0] = names
    return NodeCatalog(info)


FULL = catalog()


def one(graph: dict[str, Any], class_type: str) -> dict[str, Any]:
    (found,) = [node["inputs"] for node in graph.values() if node["class_type"] == class_type]
    return found


def shape(graph: dict[str, Any]) -> set[tuple[str, str, str, int]]:
    """Every link as (class, input, class it comes from, slot); the two CLIPTextEncode are told apart by who takes them."""
    sides = {value[0]: name for node in graph.values() for name, value in node["inputs"].items() if name in ("positive", "negative")}

    def name_of(node_id: str) -> str:
        return f"{graph[node_id]['class_type']}{' ' + sides[node_id] if node_id in sides else ''}"

    links = [(node_id, name, value) for node_id, node in graph.items() for name, value in node["inputs"].items() if isinstance(value, list)]
    return {(name_of(node_id), name, name_of(value[0]), value[1]) for node_id, name, value in links}


# ---- the templates --------------------------------------------------------------------------------------------------------------------

# image_sdxl_simple.json of comfyui-workflow-templates-json 0.1.123, links and widget values as they are there
SDXL_LINKS = {
    ("CLIPTextEncode positive", "clip", "CheckpointLoaderSimple", 1),
    ("CLIPTextEncode negative", "clip", "CheckpointLoaderSimple", 1),
    ("KSampler", "model", "CheckpointLoaderSimple", 0),
    ("KSampler", "positive", "CLIPTextEncode positive", 0),
    ("KSampler", "negative", "CLIPTextEncode negative", 0),
    ("KSampler", "latent_image", "EmptyLatentImage", 0),
    ("VAEDecode", "samples", "KSampler", 0),
    ("VAEDecode", "vae", "CheckpointLoaderSimple", 2),
    ("SaveImage", "images", "VAEDecode", 0),
}
SDXL_SAMPLER = {"steps": 25, "cfg": 7, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1}

# video_wan2_2_5B_ti2v.json of the same package; its LoadImage is switched off there
WAN_LINKS = {
    ("CLIPTextEncode positive", "clip", "CLIPLoader", 0),
    ("CLIPTextEncode negative", "clip", "CLIPLoader", 0),
    ("Wan22ImageToVideoLatent", "vae", "VAELoader", 0),
    ("ModelSamplingSD3", "model", "UNETLoader", 0),
    ("KSampler", "model", "ModelSamplingSD3", 0),
    ("KSampler", "positive", "CLIPTextEncode positive", 0),
    ("KSampler", "negative", "CLIPTextEncode negative", 0),
    ("KSampler", "latent_image", "Wan22ImageToVideoLatent", 0),
    ("VAEDecode", "samples", "KSampler", 0),
    ("VAEDecode", "vae", "VAELoader", 0),
    ("CreateVideo", "images", "VAEDecode", 0),
    ("SaveVideo", "video", "CreateVideo", 0),
}
WAN_SAMPLER = {"steps": 20, "cfg": 5, "sampler_name": "uni_pc", "scheduler": "simple", "denoise": 1}


def literals(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if not isinstance(value, list)}


def test_a_picture_is_the_sdxl_template():
    assert "image_sdxl_simple of comfyui-workflow-templates-json 0.1.123" in SDXL.source
    graph = build(ImageRequest(prompt="a fox", seed=5), FULL).graph
    assert shape(graph) == SDXL_LINKS
    assert len(graph) == 7
    assert literals(one(graph, "KSampler")) == {**SDXL_SAMPLER, "seed": 5}
    assert literals(one(graph, "EmptyLatentImage")) == {"width": 832, "height": 1216, "batch_size": 1}


def test_a_clip_is_the_wan_template():
    assert "video_wan2_2_5B_ti2v of comfyui-workflow-templates-json 0.1.123" in WAN22_5B.source
    graph = build(VideoRequest(prompt="a fox", seed=5, preset="high", steps=20), FULL).graph
    assert shape(graph) == WAN_LINKS
    assert len(graph) == 11
    assert literals(one(graph, "KSampler")) == {**WAN_SAMPLER, "seed": 5}
    assert literals(one(graph, "ModelSamplingSD3")) == {"shift": 8}
    assert literals(one(graph, "Wan22ImageToVideoLatent")) == {"width": 1280, "height": 704, "length": 121, "batch_size": 1}
    assert literals(one(graph, "UNETLoader")) == {"unet_name": "wan2.2_ti2v_5B_fp16.safetensors", "weight_dtype": "default"}
    assert literals(one(graph, "CLIPLoader")) == {"clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "type": "wan", "device": "default"}
    assert literals(one(graph, "VAELoader")) == {"vae_name": "wan2.2_vae.safetensors"}
    assert literals(one(graph, "CreateVideo")) == {"fps": 24}
    # the template says auto, auto: what that becomes changes between versions, and browsers must play it
    assert {name: one(graph, "SaveVideo")[name] for name in ("format", "codec")} == {"format": "mp4", "codec": "h264"}


def test_the_standard_clip_uses_the_templates_sampler():
    assert literals(one(build(VideoRequest(prompt="a", seed=5), FULL).graph, "KSampler")) == {**WAN_SAMPLER, "seed": 5}


# ---- always valid ---------------------------------------------------------------------------------------------------------------------

SIDES = st.none() | st.integers(8, 512).map(lambda eighth: eighth * 8)
SAMPLERS = st.none() | st.sampled_from(FULL.choices("KSampler", "sampler_name"))
SCHEDULERS = st.none() | st.sampled_from(FULL.choices("KSampler", "scheduler"))
COMMON = {
    "prompt": st.text(min_size=1, max_size=20).filter(str.strip), "negative_prompt": st.none() | st.text(max_size=9), "seed": st.integers(0, 2**64 - 1),
    "preset": st.sampled_from(["draft", "standard", "high"]), "steps": st.none() | st.integers(1, 200), "cfg": st.none() | st.floats(0, 100),
    "sampler": SAMPLERS, "scheduler": SCHEDULERS, "width": SIDES, "height": SIDES,
}  # fmt: skip


@relaxed
@given(st.fixed_dictionaries({**COMMON, "batch_size": st.integers(1, 64), "quality_tags": st.booleans()}))
def test_every_picture_request_becomes_a_graph_without_faults(fields):
    built = build(ImageRequest(**fields), FULL, "toolkit/x")
    assert validate(built.graph, FULL) == []
    assert (built.recipe["seed"], built.recipe["family"], built.recipe["frames"]) == (fields["seed"], "sdxl", 1)
    assert fields["prompt"] in built.recipe["prompt"]
    for asked, made in (("steps", "steps"), ("cfg", "cfg"), ("sampler", "sampler"), ("scheduler", "scheduler"), ("width", "width"), ("height", "height")):
        assert fields[asked] is None or built.recipe[made] == fields[asked]
    assert built.recipe["negative_prompt"] == (SDXL.negative if fields["negative_prompt"] is None else fields["negative_prompt"])
    assert one(built.graph, "SaveImage")["filename_prefix"] == "toolkit/x/picture"


LENGTHS = st.one_of(st.just({}), st.fixed_dictionaries({"seconds": st.floats(0.01, 60)}), st.fixed_dictionaries({"frames": st.integers(1, 1024)}))


@relaxed
@given(st.fixed_dictionaries({**COMMON, "fps": st.none() | st.floats(1, 60)}), LENGTHS)
def test_every_clip_request_becomes_a_graph_without_faults_and_rounding_is_said(fields, length):
    built = build(VideoRequest(**fields, **length), FULL)
    assert validate(built.graph, FULL) == []
    recipe = built.recipe
    assert recipe["frames"] % 4 == 1
    assert recipe["width"] % 32 == recipe["height"] % 32 == 0
    fps = fields["fps"] or 24.0
    assert recipe["fps"] == fps
    wanted = length.get("frames") or (round(length["seconds"] * fps) if "seconds" in length else recipe["frames"])
    assert abs(recipe["frames"] - wanted) <= 2 or recipe["frames"] == 5
    assert any("frames" in warning for warning in built.warnings) == (recipe["frames"] != wanted)
    sides = [fields[side] for side in ("width", "height")]
    assert all(side is None or abs(side - made) <= 16 for side, made in zip(sides, (recipe["width"], recipe["height"]), strict=True))
    assert any("pixels" in warning for warning in built.warnings) == any(side is not None and side % 32 for side in sides)


@pytest.mark.parametrize(("name", "family"), [("image", SDXL), ("video", WAN22_5B)])
def test_every_preset_fits_its_family(name, family):
    for preset, about in family.presets.items():
        assert about.width % family.multiple == about.height % family.multiple == 0
        request: Request = ImageRequest(prompt="a", preset=preset) if name == "image" else VideoRequest(prompt="a", preset=preset)
        built = build(request, FULL)
        assert built.warnings == [] or built.warnings == ()
        assert (built.recipe["width"], built.recipe["height"], built.recipe["frames"]) == (about.width, about.height, about.frames)
        assert (built.recipe["steps"], built.recipe["preset"], built.recipe["family"]) == (about.steps, preset, family.name)


# ---- fields ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aspect", list(SDXL.aspects))
def test_an_aspect_becomes_a_trained_size(aspect):
    built = build(ImageRequest(prompt="a", aspect=aspect), FULL)
    assert (built.recipe["width"], built.recipe["height"]) == SDXL.aspects[aspect]
    assert 0.9 < built.recipe["width"] * built.recipe["height"] / 1024**2 < 1.1


def test_an_aspect_is_refused_beside_a_size_or_when_it_is_none():
    with pytest.raises(RequestInvalid, match="not both") as refused:
        build(ImageRequest(prompt="a", aspect="2:3", width=512), FULL)
    assert refused.value.field == "aspect"
    with pytest.raises(RequestInvalid, match=r"`aspect` is '5:7': it must be one of square, portrait"):
        build(ImageRequest(prompt="a", aspect="5:7"), FULL)


def test_quality_words_are_the_familys_once_and_only_if_wanted():
    assert with_quality("a fox", SDXL, True) == "masterpiece, best quality, a fox"
    assert with_quality("a fox", SDXL, False) == "a fox"
    assert with_quality("Masterpiece, best quality, a fox", SDXL, True) == "Masterpiece, best quality, a fox"
    assert with_quality("a fox", WAN22_5B, True) == "a fox"
    assert build(ImageRequest(prompt="a fox", quality_tags=False), FULL).recipe["prompt"] == "a fox"


def test_zero_and_empty_are_values():
    recipe = build(ImageRequest(prompt="a", cfg=0, negative_prompt=""), FULL).recipe
    assert (recipe["cfg"], recipe["negative_prompt"]) == (0, "")


@given(st.integers(1, 5000), st.sampled_from([8, 16, 32]))
def test_rounding_gives_the_nearest_multiple_and_at_least_one(value, multiple):
    result = rounded(value, multiple)
    assert result % multiple == 0
    assert result >= multiple
    assert abs(result - value) <= multiple / 2 or result == multiple


# ---- files ----------------------------------------------------------------------------------------------------------------------------


def checkpoint(asked: str | None, names: list[str]) -> str:
    return choose(CHECKPOINT, catalog({("CheckpointLoaderSimple", "ckpt_name"): names}), asked)


def test_without_a_name_the_first_file_that_fits_is_taken_else_the_first():
    assert checkpoint(None, CHECKPOINTS) == "anime/animagine-xl-4.0.safetensors"
    assert checkpoint(None, ["tiny_sd15.safetensors", "b.safetensors"]) == "tiny_sd15.safetensors"


@pytest.mark.parametrize(
    ("asked", "names", "found"),
    [
        ("illustrious", CHECKPOINTS, "illustriousXL_v01.safetensors"),
        ("Animagine XL", CHECKPOINTS, "anime/animagine-xl-4.0.safetensors"),
        ("anime/animagine-xl-4.0.safetensors", CHECKPOINTS, "anime/animagine-xl-4.0.safetensors"),
        ("anime\\animagine-xl-4.0.safetensors", CHECKPOINTS, "anime/animagine-xl-4.0.safetensors"),
        ("anime/x.safetensors", ["anime\\x.safetensors"], "anime\\x.safetensors"),
        ("anime-xl", ["anime-xl-v2.safetensors", "anime-xl.safetensors"], "anime-xl.safetensors"),
        ("anime_xl", ["anime-xl-v2.safetensors", "anime-xl.safetensors"], "anime-xl.safetensors"),
        ("a.safetensors", ["a.safetensors", "aa.safetensors"], "a.safetensors"),
    ],
)
def test_any_unambiguous_part_of_a_name_is_enough_and_a_whole_one_wins(asked, names, found):
    assert checkpoint(asked, names) == found
    built = build(ImageRequest(prompt="a", model=asked), catalog({("CheckpointLoaderSimple", "ckpt_name"): names}))
    assert one(built.graph, "CheckpointLoaderSimple")["ckpt_name"] == found


@pytest.mark.parametrize("names", [["xl-a.safetensors", "xl-b.safetensors"], ["one/xl.safetensors", "two/xl.safetensors"], ["xl.safetensors", "xl.ckpt"]])
def test_an_ambiguous_name_lists_what_it_fits(names):
    with pytest.raises(ModelUnknown) as refused:
        checkpoint("xl", names)
    assert refused.value.field == "model"
    assert all(name in str(refused.value) for name in names)


def test_an_unknown_name_gets_the_nearest_ones_or_where_to_put_it():
    with pytest.raises(ModelUnknown, match=r"no model 'ilustrious' in checkpoints. Did you mean illustriousXL_v01"):
        checkpoint("ilustrious", CHECKPOINTS)
    with pytest.raises(ModelUnknown, match=r"Put e.g. animagine-xl-4.0.safetensors into models/checkpoints"):
        checkpoint("ilustrious", [])


@relaxed
@given(st.text(min_size=1, max_size=6), st.lists(st.text("ab-_./\\", min_size=1, max_size=6), unique=True, max_size=5))
def test_a_chosen_file_is_always_one_the_server_has(asked, names):
    try:
        assert checkpoint(asked, names) in names
    except ModelUnknown:
        assume(True)


def test_a_server_without_pictures_says_what_to_put_where():
    with pytest.raises(ModelUnknown, match=r"cannot make pictures yet: it has no SDXL checkpoint files") as refused:
        build(ImageRequest(prompt="a"), catalog({("CheckpointLoaderSimple", "ckpt_name"): []}))
    assert refused.value.faults == ("Put e.g. animagine-xl-4.0.safetensors into models/checkpoints of the server.",)


def test_a_server_without_clips_names_every_missing_file_at_once():
    with pytest.raises(ModelUnknown, match=r"cannot make clips yet: it has no Wan 2\.2 5B files") as refused:
        build(VideoRequest(prompt="a"), NodeCatalog(RECORDED))
    assert [fault.split()[2] for fault in refused.value.faults] == [file.example for file in WAN22_5B.files]


def test_a_clip_model_that_is_not_there_is_named_with_what_is():
    with pytest.raises(ModelUnknown, match="no model 'ltx' in diffusion_models"):
        build(VideoRequest(prompt="a", model="ltx"), FULL)
    only_vae = {key: names if key[0] == "VAELoader" else [] for key, names in WAN_FILES.items()}
    with pytest.raises(ModelUnknown, match="cannot make clips yet") as refused:
        build(VideoRequest(prompt="a", model="wan"), catalog(only_vae))
    assert len(refused.value.faults) == 2


def test_a_server_without_the_loader_is_told_to_update():
    with pytest.raises(NodeUnknown, match=r"no node CheckpointLoaderSimple. Update ComfyUI."):
        build(ImageRequest(prompt="a"), catalog(without=("CheckpointLoaderSimple",)))


def test_a_server_without_the_nodes_of_a_family_names_them():
    with pytest.raises(NodeUnknown, match=r"The server lacks CreateVideo, SaveVideo\.") as refused:
        build(VideoRequest(prompt="a"), catalog(without=("CreateVideo", "SaveVideo")))
    assert len(refused.value.faults) == 2


def test_every_file_of_a_family_tells_where_it_belongs():
    families: list[Family] = [SDXL, WAN22_5B]
    files: list[ModelFile] = [file for family in families for file in family.files]
    for file in files:
        assert file.node in RECORDED
        assert file.input in RECORDED[file.node]["input"]["required"]
        assert file.advice == f"Put e.g. {file.example} into models/{file.folder} of the server."
        assert choose(file, catalog({(file.node, file.input): [file.example]})) == file.example


# ---- the user's own -------------------------------------------------------------------------------------------------------------------

OWN = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "my pictures/fox 1"}, "_meta": {"title": "Keep"}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


def test_a_workflow_is_sent_as_it_is_but_into_its_own_folder():
    built = build(WorkflowRequest(workflow=OWN), FULL, "toolkit/j1")
    expected = copy.deepcopy(OWN)
    expected["2"]["inputs"]["filename_prefix"] = "toolkit/j1/fox_1"
    assert built.graph == expected
    assert OWN["2"]["inputs"]["filename_prefix"] == "my pictures/fox 1", "the request stays as it was"
    assert built.recipe["graph_hash"]


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("../../etc/passwd", "passwd"), ("a\\b", "b"), ("", "output"), ("..", "output"), ("x" * 90, "x" * 60), ("狐 %date%", "狐_date"), ("a/", "output")],
)
def test_a_prefix_never_leaves_the_jobs_folder(prefix, name):
    own = copy.deepcopy(OWN)
    own["2"]["inputs"]["filename_prefix"] = prefix
    assert build(WorkflowRequest(workflow=own), FULL, "toolkit/j1").graph["2"]["inputs"]["filename_prefix"] == f"toolkit/j1/{name}"


@relaxed
@given(st.text(max_size=80))
def test_any_prefix_is_one_safe_name_below_the_folder(prefix):
    own = copy.deepcopy(OWN)
    own["2"]["inputs"]["filename_prefix"] = prefix
    made = build(WorkflowRequest(workflow=own), FULL, "f").graph["2"]["inputs"]["filename_prefix"]
    folder, _, name = made.partition("/")
    assert folder == "f"
    assert name not in ("", ".", "..")
    assert not set(name) & set('/\\:*?"<>|% \n\0')


def test_a_prefix_that_comes_from_another_node_is_left_alone():
    own = copy.deepcopy(OWN)
    own["4"] = {"class_type": "PrimitiveString", "inputs": {"value": "x"}}
    own["2"]["inputs"]["filename_prefix"] = ["4", 0]
    assert build(WorkflowRequest(workflow=own), FULL).graph["2"]["inputs"]["filename_prefix"] == ["4", 0]


def changed(node_id: str, **inputs: Any) -> dict[str, Any]:
    own = copy.deepcopy(OWN)
    own[node_id]["inputs"] |= inputs
    return own


@pytest.mark.parametrize(
    ("graph", "kind", "sentence"),
    [
        (changed("1", width=-1), WorkflowInvalid, "EmptyImage (node 1): `width` is -1; it takes 1 to 16384."),
        (changed("1", width=-1, height="x"), WorkflowInvalid, "EmptyImage (node 1): `height` is 'x'; it takes INT. (and 1 more)"),
        ({**OWN, "4": {"class_type": "KSamplr", "inputs": {}}}, NodeUnknown, "The server lacks KSamplr. Did you mean KSampler?"),
        ({**OWN, "4": {"class_type": None, "inputs": {}}}, WorkflowInvalid, "node 4 (node 4): it has no class_type."),
        ({**OWN, "4": 5}, WorkflowInvalid, "node 4 (node 4): it has no class_type."),
        ({**OWN, "4": {"class_type": "SaveImage"}}, WorkflowInvalid, "SaveImage (node 4): it has no inputs."),
        ({**OWN, "4": {"class_type": "VAELoader", "inputs": {"vae_name": "b"}}}, ModelUnknown, "VAELoader (node 4): `vae_name` is 'b'"),
        ({}, WorkflowInvalid, "The graph: it has no nodes."),
    ],
    ids=lambda value: str(value)[-30:] if not isinstance(value, type) else value.__name__,
)  # fmt: skip
def test_what_the_server_would_refuse_is_never_sent(graph, kind, sentence):
    with pytest.raises(WorkflowInvalid) as refused:
        build(WorkflowRequest(workflow=graph), FULL)
    assert type(refused.value) is kind
    assert str(refused.value).startswith(sentence)
    assert refused.value.faults


@pytest.mark.parametrize(("last", "said"), [(0, "it has a cycle"), (3000, "its longest chain has 3002 nodes")], ids=["circle", "chain"])
def test_a_workflow_of_any_depth_is_refused_in_words(last, said):
    deep: dict[str, Any] = {str(n): {"class_type": "LatentRotate", "inputs": {"samples": [str(n + 1), 0], "rotation": "none"}} for n in range(3000)}
    deep["2999"]["inputs"]["samples"] = [str(last), 0]
    deep["3000"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    deep["out"] = {"class_type": "SaveLatent", "inputs": {"samples": ["0", 0], "filename_prefix": "x"}}
    with pytest.raises(WorkflowInvalid, match=said):
        build(WorkflowRequest(workflow=deep), FULL)


def test_a_request_of_no_known_kind_is_a_programming_error():
    with pytest.raises(TypeError, match="no pipeline for Request"):
        build(Request(), FULL)
