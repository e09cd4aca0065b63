"""roles: what the inputs of any graph mean, found by walking it and not by titles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.graph import NodeCatalog, graph_hash
from toolkit.roles import STAGES, Role, find_roles, is_sampler, model_of, named_roles, plain_model_name, recipe_of, stage_of

RECORDINGS = Path(__file__).with_name("recordings")
CATALOG = NodeCatalog(json.loads((RECORDINGS / "object_info-0.3.64.json").read_text(encoding="utf-8")))
relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault


def recorded_graphs() -> list[dict[str, Any]]:
    lines = [json.loads(text) for path in sorted(RECORDINGS.glob("*.jsonl")) for text in path.read_text(encoding="utf-8").splitlines()]
    bodies = [line["json"] for line in lines if line["kind"] == "http_req" and line["path"] == "/prompt" and isinstance(line.get("json"), dict)]
    graphs = [body["prompt"] for body in bodies if isinstance(body.get("prompt"), dict)]
    return [graph for graph in graphs if all(isinstance(node, dict) and "class_type" in node and "inputs" in node for node in graph.values())]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def roles(graph: dict[str, Any]) -> dict[str, list[tuple[str, str, Any]]]:
    found: dict[str, list[tuple[str, str, Any]]] = {}
    for role in find_roles(graph):
        found.setdefault(role.name, []).append((role.node_id, role.input, role.value))
    return found


BASIC = {
    "4": node("CheckpointLoaderSimple", ckpt_name="anime\\xl.safetensors"),
    "10": node("LoraLoader", model=["4", 0], clip=["4", 1], lora_name="mika_v3.safetensors", strength_model=0.8, strength_clip=1.0),
    "5": node("EmptyLatentImage", width=832, height=1216, batch_size=2),
    "6": node("CLIPTextEncode", text="a fox", clip=["10", 1]),
    "7": node("CLIPTextEncode", text="blur", clip=["10", 1]),
    "3": node(
        "KSampler", seed=7, steps=20, cfg=6.5, sampler_name="euler", scheduler="normal", denoise=1.0, model=["10", 0], positive=["6", 0], negative=["7", 0],
        latent_image=["5", 0],
    ),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", images=["8", 0], filename_prefix="x"),
}  # fmt: skip


# ---- roles ----------------------------------------------------------------------------------------------------------------------------


def test_a_plain_picture_has_every_role_once():
    assert roles(BASIC) == {
        "prompt": [("6", "text", "a fox")],
        "negative_prompt": [("7", "text", "blur")],
        "seed": [("3", "seed", 7)],
        "steps": [("3", "steps", 20)],
        "cfg": [("3", "cfg", 6.5)],
        "sampler": [("3", "sampler_name", "euler")],
        "scheduler": [("3", "scheduler", "normal")],
        "denoise": [("3", "denoise", 1.0)],
        "width": [("5", "width", 832)],
        "height": [("5", "height", 1216)],
        "batch_size": [("5", "batch_size", 2)],
        "model": [("4", "ckpt_name", "anime\\xl.safetensors")],
        "lora": [("10", "lora_name", "mika_v3.safetensors")],
        "lora_strength": [("10", "strength_model", 0.8), ("10", "strength_clip", 1.0)],
    }


def test_titles_do_not_count():
    titled = {key: {**value, "_meta": {"title": "negative prompt"}} for key, value in BASIC.items()}
    assert find_roles(titled) == find_roles(BASIC)


def test_the_sides_of_a_conditioning_are_kept_apart_through_other_nodes():
    graph = {
        **BASIC,
        "20": node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], control_net=["21", 0], strength=1.0),
        "21": node("ControlNetLoader", control_net_name="depth.safetensors"),
    }
    graph["3"] = node("KSampler", positive=["20", 0], negative=["20", 1], latent_image=["5", 0])
    assert roles(graph)["prompt"] == [("6", "text", "a fox")]
    assert roles(graph)["negative_prompt"] == [("7", "text", "blur")]


def test_texts_of_several_branches_come_in_the_order_of_the_inputs():
    graph = {
        "1": node("CLIPTextEncode", text="first", clip=["9", 0]),
        "2": node("CLIPTextEncode", text="second", clip=["9", 0]),
        "3": node("ConditioningCombine", conditioning_1=["1", 0], conditioning_2=["2", 0]),
        "4": node("ConditioningCombine", conditioning_1=["3", 0], conditioning_2=["1", 0]),
        "5": node("KSampler", positive=["4", 0], negative=["1", 0], latent_image=["6", 0]),
    }
    assert [value for _, _, value in roles(graph)["prompt"]] == ["first", "second"]
    assert "negative_prompt" not in roles(graph), "each input plays one role"


def test_a_text_from_another_node_is_found_where_it_is_written():
    graph = {**BASIC, "6": node("CLIPTextEncode", text=["30", 0], clip=["4", 1]), "30": node("PrimitiveString", value="from afar")}
    assert roles(graph)["prompt"] == [("30", "value", "from afar")]


def test_the_size_is_found_at_the_source_of_the_latent():
    graph = {**BASIC, "31": node("LatentUpscaleBy", samples=["5", 0], scale_by=1.5)}
    graph["3"] = node("KSampler", positive=["6", 0], negative=["7", 0], latent_image=["31", 0])
    assert roles(graph)["width"] == [("5", "width", 832)]


@pytest.mark.parametrize(("source", "found"), [(node("PrimitiveInt", value=5), [("40", "value", 5)]), (node("RandomSeed", value=5), None)])
def test_a_linked_setting_is_found_at_its_primitive_and_plays_no_role_elsewhere(source, found):
    graph = {**BASIC, "3": {**BASIC["3"], "inputs": {**BASIC["3"]["inputs"], "seed": ["40", 0]}}, "40": source}
    assert roles(graph).get("seed") == found


def test_a_switch_hands_on_the_branch_it_stands_at_and_what_it_leaves_out_plays_no_role():
    parts = {
        "40": node("PrimitiveBoolean", value=True),
        "41": node("ComfySwitchNode", switch=["40", 0], on_false=["42", 0], on_true=["43", 0]),
        "42": node("PrimitiveInt", value=20),
        "43": node("PrimitiveInt", value=4),
        "44": node("ComfySwitchNode", switch=["40", 0], on_false=["4", 0], on_true=["45", 0]),
        "45": node("LoraLoaderModelOnly", model=["4", 0], lora_name="fast.safetensors", strength_model=1.0),
        "46": node("ComfySwitchNode", switch=["40", 0], on_false="the other", on_true="a switched fox"),
        "6": node("CLIPTextEncode", text=["46", 0], clip=["4", 1]),
        "7": node("CLIPTextEncode", text="blur", clip=["4", 1]),
    }
    sampler = {**BASIC["3"], "inputs": {**BASIC["3"]["inputs"], "steps": ["41", 0], "model": ["44", 0]}}
    graph = {**BASIC, **parts, "3": sampler}
    found = roles(graph)
    assert (found["steps"], found["prompt"]) == ([("43", "value", 4)], [("46", "on_true", "a switched fox")])
    assert (found["lora"], found["negative_prompt"]) == ([("45", "lora_name", "fast.safetensors")], [("7", "text", "blur")])
    off = {**graph, "40": node("PrimitiveBoolean", value=False)}
    assert roles(off)["steps"] == [("42", "value", 20)]
    assert "lora" not in roles(off)
    assert recipe_of(off)["loras"] == []
    unsettled = {**graph, "40": node("SomeOracle", value=True)}
    assert "steps" not in roles(unsettled), "what decides is not known, so neither is set"


def test_an_encoder_of_both_sides_gives_each_its_own_text():
    both = node("TextEncodeQwenImage21", prompt="a fox", negative_prompt="blur", resolution=1024, clip=["4", 1])
    graph = {**BASIC, "6": both, "3": {**BASIC["3"], "inputs": {**BASIC["3"]["inputs"], "positive": ["6", 0], "negative": ["6", 1]}}}
    assert roles(graph)["prompt"] == [("6", "prompt", "a fox")]
    assert roles(graph)["negative_prompt"] == [("6", "negative_prompt", "blur")]


def test_what_leads_to_no_output_plays_no_role():
    sampler = {**BASIC["3"], "inputs": {**BASIC["3"]["inputs"], "positive": ["50", 0], "seed": 9}}
    lost = {"50": node("CLIPTextEncode", text="lost", clip=["4", 1]), "51": sampler}
    assert roles({**lost, **BASIC}) == roles(BASIC)


CUSTOM = {
    "1": node("UNETLoader", unet_name="high.safetensors"),
    "2": node("CLIPLoader", clip_name="t5.safetensors"),
    "3": node("CLIPTextEncode", text="a fox", clip=["2", 0]),
    "4": node("CLIPTextEncode", text="blur", clip=["2", 0]),
    "5": node("CFGGuider", model=["1", 0], positive=["3", 0], negative=["4", 0], cfg=3.0),
    "6": node("RandomNoise", noise_seed=7),
    "7": node("KSamplerSelect", sampler_name="euler"),
    "8": node("BasicScheduler", model=["1", 0], scheduler="simple", steps=12, denoise=1.0),
    "9": node("EmptyLTXVLatentVideo", width=768, height=512, length=97, batch_size=1),
    "10": node("SamplerCustomAdvanced", noise=["6", 0], guider=["5", 0], sampler=["7", 0], sigmas=["8", 0], latent_image=["9", 0]),
    "11": node("VAELoader", vae_name="v.safetensors"),
    "12": node("VAEDecode", samples=["10", 0], vae=["11", 0]),
    "13": node("CreateVideo", images=["12", 0], fps=24.0),
    "14": node("SaveVideo", video=["13", 0], filename_prefix="x"),
}


def test_a_sampler_put_together_from_parts_has_the_roles_of_its_parts():
    found = roles(CUSTOM)
    assert {name: [value for _, _, value in places] for name, places in found.items()} == {
        "prompt": ["a fox"], "negative_prompt": ["blur"], "seed": [7], "steps": [12], "cfg": [3.0], "sampler": ["euler"], "scheduler": ["simple"],
        "denoise": [1.0], "width": [768], "height": [512], "frames": [97], "batch_size": [1], "fps": [24.0], "model": ["high.safetensors"],
        "text_encoder": ["t5.safetensors"], "vae": ["v.safetensors"],
    }  # fmt: skip
    assert recipe_of(CUSTOM)["steps"] == 12


def test_parameters_that_differ_are_numbered_and_equal_ones_are_set_together():
    second = {"20": node("LoraLoaderModelOnly", model=["10", 0], lora_name="ink.safetensors", strength_model=0.5)}
    again = {"inputs": {**BASIC["3"]["inputs"], "latent_image": ["3", 0], "denoise": 0.5, "seed": 8, "model": ["20", 0]}}
    graph = {**BASIC, **second, "21": {**BASIC["3"], **again}, "8": node("VAEDecode", samples=["21", 0], vae=["4", 2])}
    found = {name: [(role.node_id, role.input) for role in places] for name, places in named_roles(graph).items()}
    assert found["seed"] == [("3", "seed"), ("21", "seed")]  # one name for all places, although they differ
    assert found["steps"] == [("3", "steps"), ("21", "steps")]
    assert (found["denoise"], found["denoise_2"]) == ([("3", "denoise")], [("21", "denoise")])
    assert (found["lora"], found["lora_2"]) == ([("10", "lora_name")], [("20", "lora_name")])
    assert (found["lora_strength"], found["lora_strength_2"]) == ([("10", "strength_model"), ("10", "strength_clip")], [("20", "strength_model")])


def test_two_experts_share_the_steps_between_them():
    parts = {"steps": 20, "positive": ["6", 0], "negative": ["7", 0], "cfg": 3.5}
    graph = {
        **BASIC,
        "30": node("KSamplerAdvanced", latent_image=["5", 0], start_at_step=0, end_at_step=10, **parts),
        "31": node("KSamplerAdvanced", latent_image=["30", 0], start_at_step=10, end_at_step=10000, **parts),
        "8": node("VAEDecode", samples=["31", 0], vae=["4", 2]),
    }
    assert recipe_of(graph)["steps"] == 20


def test_an_input_picture_and_its_mask_are_parameters():
    graph = {**BASIC, "40": node("LoadImage", image="a.png"), "41": node("LoadImageMask", image="m.png", channel="red")}
    graph["5"] = node("VAEEncodeForInpaint", pixels=["40", 0], mask=["41", 0], vae=["4", 2])
    assert roles(graph)["image"] == [("40", "image", "a.png")]
    assert roles(graph)["mask"] == [("41", "image", "m.png")]


def test_an_advanced_sampler_with_a_guider_is_one_too():
    graph = {
        "1": node("SamplerCustomAdvanced", noise=["2", 0], guider=["3", 0], sampler=["4", 0], sigmas=["5", 0], latent_image=["6", 0]),
        "6": node("EmptySD3LatentImage", width=512, height=512, batch_size=1),
    }
    assert is_sampler(graph["1"])
    assert roles(graph)["width"] == [("6", "width", 512)]
    assert not is_sampler(node("KSampler", positive=["6", 0]))
    assert not is_sampler({})


def test_a_clip_has_frames_and_a_rate():
    graph = {
        "1": node("EmptyHunyuanLatentVideo", width=832, height=480, length=49, batch_size=1),
        "2": node("CreateVideo", images=["1", 0], fps=24.0),
        "3": node("VHS_VideoCombine", images=["1", 0], frame_rate=16),
    }
    assert roles(graph)["frames"] == [("1", "length", 49)]
    assert roles(graph)["fps"] == [("2", "fps", 24.0), ("3", "frame_rate", 16)]


def test_a_missing_node_is_walked_around():
    graph = {"3": node("KSampler", positive=["6", 0], negative=["7", 0], latent_image=["5", 0], seed=1)}
    assert roles(graph) == {"seed": [("3", "seed", 1)]}


def test_a_circle_is_walked_once():
    graph = {"3": node("KSampler", positive=["3", 0], negative=["4", 0], latent_image=["3", 0]), "4": node("Mix", a=["3", 0], b=["4", 0])}
    assert find_roles(graph) == []


def test_a_graph_of_any_depth_is_walked():
    deep = {str(n): node("KSampler", positive=[str(n + 1), 0], negative=[str(n + 1), 0], latent_image=[str(n + 1), 0]) for n in range(3)}
    deep |= {str(n): node("Pass", x=[str(n + 1), 0]) for n in range(3, 3000)}
    deep["3000"] = node("CLIPTextEncode", text="down here", width=64)
    assert {(role.name, role.value) for role in find_roles(deep)} == {("prompt", "down here"), ("width", 64)}


@pytest.mark.parametrize("graph", recorded_graphs(), ids=lambda graph: f"{len(graph)} nodes")
def test_every_role_of_a_recorded_graph_is_the_value_of_its_input(graph):
    found = find_roles(graph)
    assert all(graph[role.node_id]["inputs"][role.input] == role.value for role in found)
    assert len({(role.node_id, role.input) for role in found}) == len(found)
    assert json.loads(json.dumps(recipe_of(graph)))["graph_hash"] == graph_hash(graph)


links = st.tuples(st.sampled_from("abc"), st.integers(0, 1)).map(list)
values = links | st.integers() | st.text(max_size=3) | st.none() | st.floats() | st.lists(st.integers(), max_size=2)
LINKED = ["positive", "negative", "latent_image", "guider", "text"]
SET = ["seed", "steps", "width", "length", "fps", "frame_rate", "lora_name", "strength_model", "ckpt_name"]
inputs = st.dictionaries(st.sampled_from(LINKED + SET), values)
graphs = st.dictionaries(st.sampled_from("abc"), st.builds(lambda name, inputs: node(name, **inputs), st.sampled_from(["K", "EmptyX"]), inputs))


@settings(relaxed, max_examples=150)
@given(graphs)
def test_no_graph_stops_the_reading_of_its_roles(graph):
    recipe, roles = recipe_of(graph), find_roles(graph)
    assert all(role.value is graph[role.node_id]["inputs"][role.input] for role in roles)
    assert len(recipe["loras"]) == sum(role.name == "lora" for role in roles)
    assert len(recipe["parameters"]) == len(roles)


# ---- recipes --------------------------------------------------------------------------------------------------------------------------


def test_the_recipe_of_a_plain_picture():
    recipe = recipe_of(BASIC)
    assert recipe.pop("parameters")["3.seed"] == 7
    assert recipe == {
        "prompt": "a fox", "negative_prompt": "blur", "seed": 7, "cfg": 6.5, "sampler": "euler", "scheduler": "normal", "denoise": 1.0, "width": 832,
        "height": 1216, "batch_size": 2, "frames": None, "fps": None, "steps": 20, "model": "anime/xl", "models": ["anime/xl"],
        "loras": [{"name": "mika_v3", "strength": 0.8}], "graph_hash": graph_hash(BASIC),
    }  # fmt: skip


def test_two_samplers_add_their_steps_and_share_what_is_equal():
    second = {**BASIC["3"], "inputs": {**BASIC["3"]["inputs"], "steps": 10, "cfg": 4.0, "latent_image": ["3", 0]}}
    recipe = recipe_of({**BASIC, "11": second, "8": node("VAEDecode", samples=["11", 0], vae=["4", 2])})
    assert (recipe["steps"], recipe["cfg"], recipe["sampler"], recipe["seed"]) == (30, None, "euler", 7)


@pytest.mark.parametrize(("given_strength", "strength"), [(0.5, 0.5), (1, 1.0), (["40", 0], None), ("0.5", None)])
def test_a_strength_that_another_node_decides_is_unknown(given_strength, strength):
    graph = {**BASIC, "10": {**BASIC["10"], "inputs": {**BASIC["10"]["inputs"], "strength_model": given_strength}}}
    assert recipe_of(graph)["loras"] == [{"name": "mika_v3", "strength": strength}]


def test_a_lora_without_a_strength_has_full_strength():
    assert recipe_of({"1": node("LoraLoader", lora_name="a.safetensors")})["loras"] == [{"name": "a", "strength": 1.0}]


def test_a_graph_without_a_sampler_has_a_recipe_of_nothing():
    recipe = recipe_of({"1": node("SaveImage", images=["2", 0])})
    assert {value for name, value in recipe.items() if name not in ("graph_hash", "models", "loras", "parameters")} == {None}
    assert (recipe["models"], recipe["loras"], recipe["parameters"]) == ([], [], {})


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.safetensors", "a"), ("sub\\b.CKPT", "sub/b"), ("x/y.gguf", "x/y"), ("v1.5", "v1.5"), ("v1.5.sft", "v1.5"), ("a.txt", "a.txt"), ("plain", "plain")],
)
def test_a_model_is_named_without_extension_and_with_forward_slashes(file, name):
    assert plain_model_name(file) == name


# ---- stages and models ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_type", "stage"),
    [
        ("CheckpointLoaderSimple", "load"), ("UNETLoader", "load"), ("DualCLIPLoader", "load"), ("LoraLoaderModelOnly", "load"), ("LoadImage", "load"),
        ("LoadImageMask", "load"), ("CLIPTextEncode", "encode"), ("VAEEncodeForInpaint", "encode"), ("KSampler", "sample"), ("KSamplerAdvanced", "sample"),
        ("SamplerCustomAdvanced", "sample"), ("KSamplerSelect", "other"), ("ModelSamplingSD3", "other"), ("VAEDecode", "decode"), ("VAEDecodeTiled", "decode"),
        ("SaveImage", "save"), ("PreviewImage", "save"), ("SaveVideo", "save"), ("EmptyLatentImage", "other"), ("CreateVideo", "other"),
    ],
)  # fmt: skip
def test_a_class_belongs_to_a_stage(class_type, stage):
    assert stage_of(class_type) == stage


def test_every_recorded_class_has_a_stage_and_every_output_saves():
    assert {stage_of(name) for name in CATALOG.classes()} == set(STAGES)
    assert {stage_of(name, CATALOG.is_output(name)) for name in CATALOG.classes() if CATALOG.is_output(name)} == {"save"}


def test_every_recorded_file_loader_tells_which_file_it_reads():
    for name in ("CheckpointLoaderSimple", "UNETLoader", "CLIPLoader", "VAELoader", "LoraLoader", "ControlNetLoader", "UpscaleModelLoader", "StyleModelLoader"):
        inputs = {spec.name: "some.file" for spec in CATALOG.inputs(name).values() if spec.choices is not None}
        assert model_of(node(name, **inputs)) == "some.file", name


def test_a_node_that_reads_no_file_has_no_model():
    assert model_of(BASIC["3"]) is None
    assert model_of(node("UNETLoader", unet_name=["1", 0])) is None
    assert Role("seed", "3", "seed", 7) == next(role for role in find_roles(BASIC) if role.name == "seed")
