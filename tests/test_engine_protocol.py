"""The engine does what a ComfyUI 0.3.64 was recorded doing: the recordings are replayed against it over real sockets."""

import asyncio
import io
import json
from pathlib import Path
from urllib.parse import quote

import aiohttp
import av
import numpy as np
import pytest
from PIL import Image
from yarl import URL

from tests.engines import PATIENCE_S, eventually, running
from toolkit.engine.nodes import FUNCTIONS, sampling
from toolkit.engine.values import Latent

RECORDINGS = Path(__file__).with_name("recordings")


# What was recorded, with the engine's checkpoint in place of the recorded one.
def recorded(name):
    text = (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8").replace("tiny_sd15.safetensors", "standin_xl.safetensors")
    return [json.loads(line) for line in text.splitlines()]


def bodies(name):
    return [line["json"] for line in recorded(name) if line["kind"] == "http_req" and line["path"] == "/prompt" and "json" in line]


def exchanges(name):
    """Pair requests with replies; every recording made its calls one after the other."""
    calls = [line for line in recorded(name) if line["kind"] in ("http_req", "http_resp")]
    return list(zip(calls[::2], calls[1::2], strict=False))


def frames_of(name, client):
    lines = (line for line in recorded(name) if line.get("client") == client and line["kind"] in ("ws", "ws_bin"))
    return [line["json"] if line["kind"] == "ws" else {"type": "binary", "data": line} for line in lines]


def shape(frame):
    """Give all of a frame that does not depend on the run: kind, keys, nodes, states, counts; of binary frames the kind."""
    data = frame["data"]
    match frame["type"]:
        case "binary":
            return ("binary", data["event"], sorted(data.get("meta") or ()))
        case "progress_state":
            nodes = [(key, [(k, v if k != "prompt_id" else "") for k, v in entry.items()]) for key, entry in data["nodes"].items()]
            return ("progress_state", list(data), [(key, sorted(map(repr, entry))) for key, entry in nodes])
        case "status":
            return ("status", data["status"], "sid" in data)
        case "execution_cached" | "executing" | "progress":
            return (frame["type"], list(data), data.get("nodes"), data.get("node"), data.get("value"))
        case "executed":
            files = {key: [list(file) if isinstance(file, dict) else type(file) for file in files] for key, files in data["output"].items()}
            return ("executed", list(data), data["node"], files)
        case _:
            return (frame["type"], list(data), data.get("node_id"), data.get("node_type"), sorted(data.get("executed", ())))


def shapes(frames):
    return [shape(frame) for frame in frames]


@pytest.fixture
async def client(tmp_path):
    async with running(tmp_path) as client:
        yield client


@pytest.fixture
async def slow(tmp_path):
    """An engine with steps of 20 ms, to do something in between."""
    async with running(tmp_path, step_s=0.02) as client:
        yield client


def quick(color, prompt_id=None, **more):
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": color}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    return {"prompt": graph} | ({"prompt_id": prompt_id} if prompt_id else {}) | more


def txt2img(seed, steps, **more):
    body = bodies("a_txt2img_8steps")[0]
    body["prompt"]["3"]["inputs"] |= {"seed": seed, "steps": steps}
    del body["client_id"]
    return body | more


# a, b, h, i, o: a job and its events


async def test_txt2img_sends_the_recorded_frames(client):
    ear = await client.listen("clientA")
    prompt_id = await client.submit(bodies("a_txt2img_8steps")[0])
    await ear.end_of(prompt_id)
    assert shapes(ear.frames) == shapes(frames_of("a_txt2img_8steps", "clientA"))
    (want,) = [reply["json"] for call, reply in exchanges("a_txt2img_8steps") if call["path"].startswith("/history/")]
    (theirs,), (ours,) = want.values(), (await client.get(f"/history/{prompt_id}")).values()
    assert list(ours) == list(theirs)
    assert ours["prompt"][2:] == theirs["prompt"][2:]
    assert ours["meta"] == theirs["meta"]
    assert ours["outputs"].keys() == theirs["outputs"].keys()
    assert [(kind, sorted(data)) for kind, data in ours["status"].pop("messages")] == [(kind, sorted(data)) for kind, data in theirs["status"].pop("messages")]
    assert ours["status"] == theirs["status"]


async def test_same_prompt_again_is_cached_and_names_the_old_file(client):
    body = bodies("b_same_prompt_all_cached")[0]
    first = await client.run(body)
    ear = await client.listen("clientA")
    prompt_id = await client.submit(body)
    await ear.end_of(prompt_id)
    assert shapes(ear.frames) == shapes(frames_of("b_same_prompt_all_cached", "clientA"))
    assert (await client.done(prompt_id))["outputs"] == first["outputs"]
    assert len(list((client.engine.home / "output").iterdir())) == 1


async def test_cache_holds_the_prompt_before_only(client):
    def cached(entry):
        return entry["status"]["messages"][1][1]["nodes"]

    assert cached(await client.run(txt2img(1, 1))) == []
    assert cached(await client.run(txt2img(2, 1))) == ["4", "5", "6", "7"]
    assert cached(await client.run(quick(1))) == []
    assert cached(await client.run(txt2img(2, 1))) == []
    renamed = {f"n{key}": node for key, node in txt2img(2, 1)["prompt"].items()}
    for node in renamed.values():
        node["inputs"] = {k: [f"n{v[0]}", v[1]] if isinstance(v, list) else v for k, v in node["inputs"].items()}
    assert cached(await client.run({"prompt": renamed})) == list(renamed)
    await client.call("POST", "/free", json={"free_memory": True})

    async def freed():  # by the worker, between two prompts
        return not client.engine.worker.cache.history()["outputs"]

    await eventually(freed)
    assert cached(await client.run(txt2img(2, 1))) == []


async def test_batch_gives_four_files_of_following_seeds(client):
    body = bodies("h_batch4")[0]
    single = await client.run(txt2img(body["prompt"]["3"]["inputs"]["seed"] + 1, 2))
    ear = await client.listen("clientA")
    prompt_id = await client.submit(body)
    await ear.end_of(prompt_id)
    assert shapes(ear.frames) == shapes(frames_of("h_batch4", "clientA"))
    names = [file["filename"] for file in (await client.done(prompt_id))["outputs"]["9"]["images"]]
    assert names == [f"rig_{number:05}_.png" for number in range(2, 6)]
    pictures = [pixels(client, name) for name in names]
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert np.array_equal(pictures[1], pixels(client, single["outputs"]["9"]["images"][0]["filename"]))


def pixels(client, name, kind="output"):
    with Image.open(client.engine.home / kind / name) as picture:
        return np.asarray(picture)


async def test_video_stands_under_images_and_has_its_frames(client):
    body = bodies("i_video_outputs")[0]
    body["prompt"] = {key: node for key, node in body["prompt"].items() if node["class_type"] in FUNCTIONS}
    body["prompt"]["5"]["inputs"]["fps"] = 7.5
    ear = await client.listen("clientA")
    prompt_id = await client.submit(body)
    await ear.end_of(prompt_id)
    theirs = {frame["data"]["node"]: frame for frame in frames_of("i_video_outputs", "clientA") if frame["type"] == "executed"}
    ours = {frame["data"]["node"]: frame for frame in ear.frames if frame["type"] == "executed"}
    assert shapes(ours.values()) == shapes(theirs[node] for node in ours)
    assert ours["6"]["data"]["output"] == theirs["6"]["data"]["output"]
    _, text = await client.call("GET", "/view?filename=ComfyUI_00001_.mp4&subfolder=video&type=output")
    with av.open(io.BytesIO(text.encode("latin-1"))) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate, stream.frames) == ("h264", "yuv420p", 7.5, 8)
        assert len(list(file.decode(stream))) == 8
        assert json.loads(file.metadata["prompt"]) == body["prompt"]


@pytest.mark.parametrize("flags", [None, {"supports_preview_metadata": True}])
async def test_previews_are_of_the_kind_asked_for(client, flags):
    warm, body = txt2img(99, 1), bodies("o_feature_flags_preview_meta")[0]
    await client.run(warm)
    ear = await client.listen("clientF")
    if flags:
        await ear.socket.send_json({"type": "feature_flags", "data": flags})
        await ear.until(lambda frame: frame["type"] == "feature_flags")
        await ear.socket.send_json({"type": "feature_flags", "data": {}})
    prompt_id = await client.submit(body)
    await ear.end_of(prompt_id)
    previews = [frame["data"] for frame in ear.frames if frame["type"] == "binary"]
    assert len(previews) == 3
    for preview in previews:
        with Image.open(io.BytesIO(preview["image"])) as picture:
            assert (picture.format, picture.size) == ("JPEG", (128, 128))
    if flags:
        assert shapes(ear.frames) == shapes(frames_of("o_feature_flags_preview_meta", "clientF"))
        assert {preview["meta"]["prompt_id"] for preview in previews} == {prompt_id}
    else:
        assert {(preview["event"], preview["fmt"]) for preview in previews} == {(1, 1)}


async def test_previews_can_be_switched_off(tmp_path):
    async with running(tmp_path, previews=False) as client:
        ear = await client.listen("A")
        await ear.end_of(await client.submit(txt2img(1, 3, client_id="A")))
        assert not [frame for frame in ear.frames if frame["type"] == "binary"]


async def test_same_request_gives_the_same_bytes(tmp_path):
    made = []
    for home in (tmp_path / "one", tmp_path / "two"):
        async with running(home) as client:
            graph = txt2img(3, 2)["prompt"]
            graph["10"] = {"class_type": "CreateVideo", "inputs": {"images": ["8", 0], "fps": 16}}
            graph["11"] = {"class_type": "SaveVideo", "inputs": {"video": ["10", 0], "filename_prefix": "v", "format": "auto", "codec": "auto"}}
            graph["5"] = {"class_type": "EmptyHunyuanLatentVideo", "inputs": {"width": 64, "height": 64, "length": 7, "batch_size": 1}}
            entry = await client.run({"prompt": graph})
            assert len(entry["outputs"]["9"]["images"]) == 5
            made.append({file.name: file.read_bytes() for file in (home / "engine" / "output").iterdir()})
    assert made[0] == made[1]
    assert len(set(made[0].values())) == 6


# d, e: what is refused and what fails


async def test_validation_answers_as_recorded(client):
    for call, reply in exchanges("d_validation_errors"):
        options = {"json": call["json"]} if "json" in call else {"data": b"not json"}
        status, answer = await client.call("POST", "/prompt", **options)
        assert status == reply["status"], call["note"]
        assert verdict(answer) == verdict(reply.get("json", reply.get("text"))), call["note"]


def verdict(answer):
    if isinstance(answer, str):
        return answer
    nodes = {
        key: (entry["class_type"], entry["dependent_outputs"], [complaint(error) for error in entry["errors"]]) for key, entry in answer["node_errors"].items()
    }
    error = dict(answer.get("error", {}))
    error["details"] = error.get("details", "").partition(" not in [")[0]  # the list of files differs
    return error, nodes


def complaint(error):
    extra = {key: value for key, value in error["extra_info"].items() if key not in ("traceback", "input_config")}
    details = error["details"].partition(" not in [")[0]
    return error["type"], error["message"], details, extra, error["extra_info"].get("input_config", []) is None


async def test_counter_moves_for_rejected_prompts_too(client):
    numbers = [reply["json"].get("number") for _, reply in exchanges("d_validation_errors") if "json" in reply]
    ours = []
    for call, _ in exchanges("d_validation_errors"):
        options = {"json": call["json"]} if "json" in call else {"data": b"not json"}
        _, answer = await client.call("POST", "/prompt", **options)
        ours += [answer.get("number")] if isinstance(answer, dict) else []
    assert [number + 5 for number in ours if number is not None] == [number for number in numbers if number is not None]


async def test_a_coerced_value_is_stored_coerced(client):
    entry = await client.run(txt2img(1, "2"))
    assert entry["prompt"][2]["3"]["inputs"]["steps"] == 2


async def test_wrapped_value_is_unwrapped(client):
    body = quick(1)
    body["prompt"]["1"]["inputs"]["color"] = {"__value__": 7}
    assert (await client.run(body))["prompt"][2]["1"]["inputs"]["color"] == 7


async def test_bad_branch_is_dropped_and_the_rest_runs(client):
    body = quick(1)
    body["prompt"]["3"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}
    status, answer = await client.call("POST", "/prompt", json=body)
    assert (status, list(answer["node_errors"])) == (200, ["3"])
    assert (await client.done(answer["prompt_id"]))["prompt"][4] == ["2"]


async def test_body_over_the_limit_is_413_in_words(client):
    status, text = await client.call("POST", "/prompt", data=io.BytesIO(bytes(104_857_601)))
    assert status == 413
    assert text.startswith("Maximum request body size 104857600 exceeded")


async def test_failing_node_is_told_as_recorded(client):
    ear = await client.listen("clientA")
    body, both = bodies("e_runtime_error")
    prompt_id = await client.submit(body)
    await ear.end_of(prompt_id)
    theirs = frames_of("e_runtime_error", "clientA")
    assert shapes(ear.frames) == shapes(theirs)[: len(ear.frames)]
    error = next(frame["data"] for frame in ear.taken() if frame["type"] == "execution_error")
    want = next(frame["data"] for frame in theirs if frame["type"] == "execution_error")
    for key in ("exception_type", "executed", "current_outputs"):
        assert error[key] == want[key]
    assert error["exception_message"].splitlines()[0] == want["exception_message"].splitlines()[0]
    assert error["current_inputs"].keys() == want["current_inputs"].keys()
    assert error["current_inputs"]["filename_prefix"] == ["../../evil"]
    both["prompt"] = {key: both["prompt"][key] for key in "132"}  # recorded with 3 before 2: there the order is chance
    prompt_id = await client.submit(both)
    await ear.end_of(prompt_id)
    assert shapes(ear.frames) == shapes(theirs)[-len(ear.frames) :]
    entry = await client.done(prompt_id)
    assert (entry["status"]["status_str"], entry["status"]["completed"], list(entry["outputs"])) == ("error", False, ["3"])
    assert not list(client.engine.home.parent.glob("evil*"))


# f, g, m: the queue


async def test_interrupts_as_recorded(slow):
    ear, other = await slow.listen("clientA"), await slow.listen("other")
    first = await slow.submit(txt2img(21, 20, client_id="clientA"))
    await ear.step(2)
    assert await slow.call("POST", "/interrupt") == (200, "")
    await ear.end_of(first)
    theirs = [frame for frame in frames_of("f_interrupt", "clientA") if frame["type"] == "execution_interrupted"]
    told = next(frame for frame in ear.frames if frame["type"] == "execution_interrupted")
    assert shape(told) == shape(theirs[0])
    assert [frame["type"] for frame in ear.taken()][-3:] == ["execution_interrupted", "status", "executing"]
    entry = await slow.done(first)
    assert (entry["status"]["status_str"], entry["status"]["completed"], entry["outputs"]) == ("error", False, {})
    assert [kind for kind, _ in entry["status"]["messages"]] == ["execution_start", "execution_cached", "execution_interrupted"]

    running_id = await slow.submit(txt2img(22, 20, client_id="clientA"))
    pending_id = await slow.submit(txt2img(23, 2, client_id="clientA"))
    await ear.step(1, running_id)
    assert await slow.call("POST", "/interrupt", json={"prompt_id": pending_id}) == (200, "")
    await ear.step(3, running_id)
    await slow.call("POST", "/interrupt", json={"prompt_id": running_id})
    await ear.end_of(pending_id)
    told = [frame for frame in ear.taken() if frame["type"] == "execution_interrupted"]
    assert shapes(told) == shapes(theirs[1:2])
    assert (await slow.done(pending_id))["status"]["status_str"] == "success"

    await slow.call("POST", "/interrupt")  # of an idle server: harmless
    assert (await slow.run(quick(3)))["status"]["status_str"] == "success"
    other.taken()
    nobodys = await slow.submit(txt2img(24, 20))
    await ear.step(1, nobodys)
    await slow.call("POST", "/interrupt", json={"prompt_id": nobodys})
    await slow.done(nobodys)
    kinds = {"status", "progress_state", "progress", "binary", "execution_interrupted"}
    for one in (ear, other):
        await one.until(lambda frame: frame["type"] == "execution_interrupted")
        assert {frame["type"] for frame in one.frames} == kinds


async def test_delete_and_clear_tell_nobody(slow):
    ear = await slow.listen("clientA")
    ids = [await slow.submit(txt2img(seed, 25, client_id="clientA")) for seed in range(5)]
    queue = await slow.get("/queue")
    assert [item[1] for item in queue["queue_running"]] == ids[:1]
    assert sorted(item[1] for item in queue["queue_pending"]) == sorted(ids[1:])
    assert len(queue["queue_pending"][0]) == 5
    for wanted in (ids[2], ids[0], "nope"):
        assert await slow.call("POST", "/queue", json={"delete": [wanted]}) == (200, "")
    assert await slow.get("/prompt") == {"exec_info": {"queue_remaining": 4}}
    assert await slow.call("POST", "/queue", json={"clear": True}) == (200, "")
    assert await slow.get("/prompt") == {"exec_info": {"queue_remaining": 1}}
    await ear.end_of(ids[0])
    assert [await slow.get(f"/history/{prompt_id}") for prompt_id in ids[1:]] == [{}] * 4
    assert await slow.get("/queue") == {"queue_running": [], "queue_pending": []}
    assert {frame["data"].get("prompt_id", ids[0]) for frame in ear.frames if frame["type"] != "binary"} == {ids[0]}


async def test_order_of_numbers_fronts_and_ties_is_the_recorded_one(slow):
    posts = [(call["json"], reply) for call, reply in exchanges("m_prompt_options") if call["path"] == "/prompt" and "json" in call]
    start = next(place for place, (body, _) in enumerate(posts) if "4" in body["prompt"])
    block = posts[start : start + 12]
    block[0][0]["prompt"]["3"]["inputs"]["steps"] = 30  # time enough to post the others
    for _ in range(6):
        await slow.run(quick(1))  # the counter stood at 6 there
    answers = []
    for body, _ in block:
        answers.append((await slow.call("POST", "/prompt", json=body))[0])
        await eventually(slow.busy)
    assert answers == [reply["status"] for _, reply in block] == [200] * 11 + [500]
    theirs = [frame["data"]["prompt_id"] for frame in frames_of("m_prompt_options", "A") if frame["type"] == "execution_start"]
    named = [body["prompt_id"] for body, _ in block if "prompt_id" in body]
    for prompt_id in named:
        await slow.done(prompt_id)
    assert [prompt_id for prompt_id in await slow.get("/history") if prompt_id in named] == [x for x in theirs if x in named]
    numbers = {prompt_id: entry["prompt"][0] for prompt_id, entry in (await slow.get("/history")).items()}
    assert {p: numbers[p] for p in named} == {body["prompt_id"]: reply["json"]["number"] for body, reply in block if "prompt_id" in body}


@pytest.mark.parametrize("given", ["my-own-id", 12345, None, "a/b c"])
async def test_any_prompt_id_is_taken_as_it_is(client, given):
    _, answer = await client.call("POST", "/prompt", json=quick(5) | {"prompt_id": given})
    assert answer["prompt_id"] == str(given)
    path = URL(f"/history/{quote(str(given), safe='')}", encoded=True)
    assert list(await eventually(lambda: client.get(path))) == [str(given)]


async def test_extra_data_is_kept_and_goes_into_the_picture(client):
    body = next(body for body in bodies("m_prompt_options") if body.get("prompt_id") == "pnginfo")
    body["extra_data"]["api_key_comfy_org"] = "SECRET"
    entry = await client.run(body)
    assert entry["prompt"][3] == {"extra_pnginfo": {"workflow": {"nodes": []}, "my_note": {"a": 1}}, "custom": "kept?", "client_id": "A"}
    with Image.open(client.engine.home / "output" / "fast_00001_.png") as picture:
        texts = {key: json.loads(text) for key, text in picture.text.items()}
    assert texts == {"prompt": body["prompt"], "workflow": {"nodes": []}, "my_note": {"a": 1}}


async def test_partial_targets_run_some_outputs_and_history_shows_what_is_known(client):
    body = next(body for body in bodies("m_prompt_options") if body.get("prompt_id") == "part1")
    entry = await client.run(body)
    want = next(reply["json"]["part1"] for call, reply in exchanges("m_prompt_options") if call["path"] == "/history/part1")
    assert entry["prompt"][4] == want["prompt"][4] == ["2"]
    assert entry["meta"] == want["meta"]  # nodes 2 and 3 are the same: both are shown
    assert entry["outputs"]["2"] == entry["outputs"]["3"]
    for targets in (["1"], []):
        status, answer = await client.call("POST", "/prompt", json=body | {"partial_execution_targets": targets})
        assert (status, answer["error"]["type"]) == (400, "prompt_no_outputs")


async def test_same_number_and_id_twice_kills_the_worker_for_good(slow):
    name = "m0_duplicate_number_id_kills_worker"
    posts = [(call["json"], reply) for call, reply in exchanges(name) if call["path"] == "/prompt" and "json" in call]
    start = next(place for place, (body, _) in enumerate(posts) if "4" in body["prompt"])
    for _ in range(posts[start][1]["json"]["number"]):  # bring the counter to where it stood; rejected prompts count
        await slow.call("POST", "/prompt", json={"prompt": {}})
    ear = await slow.listen("A")
    posts[start][0]["prompt"]["3"]["inputs"]["steps"] = 30  # time enough to post the others
    for body, reply in posts[start:]:
        assert (await slow.call("POST", "/prompt", json=body))[0] == reply["status"]
        if body is not posts[-1][0]:
            await eventually(slow.busy)
    theirs = [frame["data"]["prompt_id"] for frame in frames_of(name, "A") if frame["type"] == "execution_start"][6:]
    await ear.end_of(theirs[-1])
    await asyncio.to_thread(slow.engine.worker._thread.join, PATIENCE_S)
    assert [frame["data"]["prompt_id"] for frame in ear.frames if frame["type"] == "execution_start"][1:] == theirs
    last = [frame["data"]["status"] for frame in frames_of(name, "A") if frame["type"] == "status"][-1]
    assert await slow.get("/prompt") == last  # what the dying worker took is lost, what came 60 s later waits for ever
    assert (await slow.get("/queue"))["queue_running"] == []


# l: who gets what


async def test_each_client_gets_its_own_and_all_get_status(client):
    a, b, nobody = await client.listen("A"), await client.listen("B"), await client.listen()
    await a.end_of(await client.submit(txt2img(1, 3, client_id="A")))
    await b.end_of(await client.submit(quick(1, client_id="B")))
    assert [frame["data"].get("prompt_id") for frame in b.frames if frame["type"] == "execution_start"] == [
        frame["data"]["prompt_id"] for frame in b.frames if frame["type"] == "executed"
    ]
    await nobody.until(lambda frame: sum(one["type"] == "status" for one in nobody.frames) == 7)
    assert {frame["type"] for frame in nobody.frames} == {"status"}
    assert len(nobody.frames[0]["data"]["sid"]) == 32


async def test_progress_of_a_job_without_client_goes_to_every_socket(client):
    a, b = await client.listen("A"), await client.listen("B")
    await client.run(txt2img(1, 3))
    for ear in (a, b):
        await ear.until(lambda frame: frame["type"] == "progress_state" and len(frame["data"]["nodes"]) == 7)
        assert {frame["type"] for frame in ear.frames} == {"status", "progress_state", "progress", "binary"}
        assert {frame["data"]["event"] for frame in ear.frames if frame["type"] == "binary"} == {1}


async def test_late_socket_learns_the_current_node_without_prompt_id(slow):
    prompt_id = await slow.submit(txt2img(1, 20, client_id="LATE"))
    early = await slow.listen("other")

    async def sampling():
        return slow.engine.worker.attention.node == "3"

    await eventually(sampling)
    late = await slow.listen("LATE")
    await late.end_of(prompt_id)
    theirs = frames_of("l4_ws_connects_after_submit", "LATE")
    assert shapes(late.frames)[:2] == shapes(theirs)[:2]
    assert [frame["type"] for frame in late.frames][-4:] == [frame["type"] for frame in theirs][-4:]
    assert {frame["type"] for frame in early.frames} == {"status"}


async def test_reconnecting_client_goes_on_without_replay(slow):
    first = await slow.listen("A")
    prompt_id = await slow.submit(txt2img(1, 20, client_id="A"))
    await first.step(2)
    await first.socket.close()
    again = await slow.listen("A")
    await again.end_of(prompt_id)
    theirs = frames_of("l2_reconnect_same_id", "A.2")
    assert shapes(again.frames)[:2] == shapes(theirs)[:2]
    assert next(frame for frame in again.frames if frame["type"] == "progress")["data"]["value"] > 2


async def test_second_socket_steals_and_its_end_leaves_the_first_deaf(slow):
    first = await slow.listen("A")
    prompt_id = await slow.submit(txt2img(1, 25, client_id="A"))
    await first.step(2)
    second = await slow.listen("A")
    await second.step(8)
    first.taken()  # with what was on its way
    await second.socket.close()
    await slow.done(prompt_id)
    await first.socket.ping()
    assert first.frames == []
    assert not first.socket.closed


async def test_end_of_the_first_socket_leaves_the_second_deaf(client):
    first, second = await client.listen("A"), await client.listen("A")
    await first.socket.close()
    await first.task

    async def forgotten():
        return not client.engine.sockets.listens("A")

    await eventually(forgotten)
    await client.run(quick(1, client_id="A"))
    await second.socket.ping()
    assert [frame["type"] for frame in second.frames] == ["status"]
    assert client.engine.sockets.open == 1


# j, k: the other routes

KEPT_ROUTES = ("/prompt", "/api/prompt", "/queue", "/history", "/embeddings", "/models", "/features", "/view", "/view_metadata/checkpoints", "/free")
KEPT_ROUTES += ("/object_info/Nope",)
ABSENT = ("/api/jobs", "/jobs", "/nope", "/global_subgraphs")


async def test_endpoints_answer_as_recorded(tmp_path):
    async with running(tmp_path, models="checkpoints/standin_xl.safetensors", newer=False) as client:
        await client.run(txt2img(1, 1))
        assert await answers_as_recorded(client) > 30


async def answers_as_recorded(client):
    seen = 0
    for call, reply in exchanges("k_endpoints"):
        path = call["path"]
        if not (path.partition("?")[0] in (*KEPT_ROUTES, *ABSENT) or path.startswith("/history/")) or "channel=" in path:
            continue
        note = call.get("note")
        headers = {"cross origin": {"Origin": "http://evil.example"}, "range": {"Range": "bytes=0-9"}}.get(note, {})
        options = {"json": call["json"]} if "json" in call else {}
        async with client.session.request(call["method"], path, headers=headers, **options) as answer:
            body = await answer.read()
            assert answer.status == reply["status"], path
            if path.startswith("/view") and answer.ok:
                assert answer.headers["Content-Disposition"] == reply["headers"]["Content-Disposition"]
            if path not in ("/models",):
                assert answer.headers.get("Content-Type") == reply["headers"].get("Content-Type"), path
            if isinstance(reply.get("json"), (dict, list)):
                assert json.loads(body) == reply["json"], path
            if answer.status == 206:
                assert len(body) == reply["len"] == 10
        seen += 1
    return seen


async def test_foreign_pages_are_refused(client):
    host = client.engine.url.removeprefix("http://")
    good = [{}, {"Origin": client.engine.url}, {"Host": host.replace("127.0.0.1", "localhost")}]
    bad = [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}]
    for headers in good:
        assert (await client.call("GET", "/prompt", headers=headers))[0] == 200
    for headers in bad:
        assert await client.call("GET", "/prompt", headers=headers) == (403, "")
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await client.session.ws_connect("/ws", headers=headers)


async def test_preview_of_a_picture_is_encoded_anew(client):
    await client.run(txt2img(1, 1))
    for asked, kind in (("webp;50", "WEBP"), ("jpeg;90", "JPEG"), ("bmp", "WEBP")):
        _, text = await client.call("GET", f"/view?filename=rig_00001_.png&preview={asked}")
        with Image.open(io.BytesIO(text.encode("latin-1"))) as picture:
            assert (picture.format, picture.size) == (kind, (128, 128))


async def test_system_stats_have_the_recorded_shape_and_say_simulated(client):
    (theirs,) = [reply["json"] for call, reply in exchanges("k_endpoints") if call["path"] == "/system_stats"]
    ours = await client.get("/system_stats")
    assert [list(device) for device in ours["devices"]] == [list(device) for device in theirs["devices"]]
    assert list(ours["system"])[: len(theirs["system"])] == list(theirs["system"])
    assert (ours["system"]["comfyui_version"], ours["system"]["simulated"]) == ("0.3.64", True)
    assert ours["system"]["instance_id"] == client.engine.instance_id
    assert "draws, no model" in ours["devices"][0]["name"]


async def test_history_pages_and_can_be_cleared(client):
    for color in range(4):
        await client.run(quick(color, f"p{color}"))

    async def ids(query):
        return list(await client.get(f"/history{query}"))

    assert await ids("") == ["p0", "p1", "p2", "p3"]
    assert await ids("?max_items=2") == ["p2", "p3"]
    assert await ids("?max_items=2&offset=1") == ["p1", "p2"]
    await client.call("POST", "/history", json={"delete": ["p1", "zzz"]})
    assert await ids("") == ["p0", "p2", "p3"]
    await client.call("POST", "/history", json={"clear": True})
    assert await ids("") == []


async def test_uploads_are_stored_as_recorded(client):
    async def upload(data, name="in.png", **fields):
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("image", data, filename=name)
        for key, value in fields.items():
            form.add_field(key, value)
        return await client.call("POST", "/upload/image", data=form)

    def stored(name="in.png", subfolder="", kind="input"):
        return 200, {"name": name, "subfolder": subfolder, "type": kind}

    assert await upload(b"one") == stored()
    assert await upload(b"one") == stored()
    assert await upload(b"two") == stored("in (1).png")
    assert await upload(b"two", overwrite="true") == stored()
    assert await upload(b"one", subfolder="jobs/a") == stored(subfolder="jobs/a")
    assert await upload(b"one", type="temp") == stored(kind="temp")
    assert (await upload(b"one", type="bogus"))[0] == 500
    assert await upload(b"one", subfolder="../../x") == (400, "")
    assert await upload(b"one", name="../../evil.png") == (400, "")
    assert await client.call("POST", "/upload/image", data={"type": "input"}) == (400, "")
    assert await client.call("GET", "/view?filename=in.png&type=input") == (200, "two")


# what nodes do


async def run_image(client, *nodes):
    graph = {str(place): node for place, node in enumerate(nodes, 1)}
    graph["9"] = {"class_type": "PreviewImage", "inputs": {"images": [str(len(nodes)), 0]}}
    (file,) = (await client.run({"prompt": graph}))["outputs"]["9"]["images"]
    assert file["filename"].startswith("ComfyUI_temp_")
    return pixels(client, file["filename"], "temp")


async def test_picture_nodes_do_what_they_say(client):
    red = {"class_type": "EmptyImage", "inputs": {"width": 40, "height": 20, "batch_size": 1, "color": 0xFF8000}}
    inverted = {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}
    picture = await run_image(client, red, inverted)
    assert picture.shape == (20, 40, 3)
    assert picture[0, 0].tolist() == [0, 127, 255]
    for method in ("nearest-exact", "bilinear", "area", "bicubic", "lanczos"):
        scaled = {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": method, "width": 10, "height": 0, "crop": "center"}}
        picture = await run_image(client, red, scaled)
        assert (picture.shape, picture[2, 2].tolist()) == ((5, 10, 3), [255, 128, 0])


async def test_temporary_names_keep_their_letters_while_the_node_stays(client):
    async def name(body):
        return (await client.run(body))["outputs"]["2"]["images"][0]["filename"]

    first, second = await name(quick(1)), await name(quick(2))
    assert first[: -len("00001_.png")] == second[: -len("00002_.png")]
    await client.run(txt2img(1, 1))
    assert (await name(quick(3)))[:18] != first[:18]


async def test_runs_are_journalled(client):
    for body in (quick(1, "good"), {"prompt": bodies("e_runtime_error")[0]["prompt"], "prompt_id": "bad"}):
        await client.run(body)
    lines = [json.loads(line) for line in (client.engine.home / "runs.jsonl").read_text().splitlines()]
    assert [(line["event"], line["prompt_id"], line["status"]) for line in lines] == [
        ("start", "good", "running"),
        ("end", "good", "success"),
        ("start", "bad", "running"),
        ("end", "bad", "error"),
    ]
    assert {line["instance_id"] for line in lines} == {client.engine.instance_id}


async def test_stop_in_the_middle_tells_no_client_that_the_job_ended(tmp_path):
    async with running(tmp_path, step_s=0.02) as client:
        ear = await client.listen("A")
        await client.submit(txt2img(1, 200, client_id="A"))
        await ear.step(2)
        await client.engine.stop()
        await ear.task
        assert ear.socket.close_code == 1001
        assert ear.frames[-1]["type"] in ("progress", "progress_state", "binary")
        lines = [json.loads(line) for line in (client.engine.home / "runs.jsonl").read_text().splitlines()]
        assert [line["status"] for line in lines] == ["running", "stopped"]


async def test_steps_take_their_time_with_seeded_jitter_and_clips_a_little_more(tmp_path):
    async with running(tmp_path / "a", step_s=0.1, noise=0.5) as one, running(tmp_path / "b", step_s=0.1, noise=0.5) as two:
        times = [[client.engine.worker.step_time(1.0) for _ in range(50)] for client in (one, two)]
        assert times[0] == times[1]
        assert 0.05 <= min(times[0]) < 0.07 < 0.13 < max(times[0]) <= 0.15
    weights = [sampling.weight(Latent(*size)) for size in ((512, 512, 1, 1), (1024, 1024, 1, 1), (832, 480, 33, 1), (1920, 1080, 121, 1))]
    assert weights[:2] == [1, 1]
    assert 1 < weights[2] < weights[3] == 3
    async with running(tmp_path / "c", step_s=0.03) as client:
        times = [data["timestamp"] for _, data in (await client.run(txt2img(1, 10)))["status"]["messages"]]
        assert times[-1] - times[0] >= 300


async def test_models_take_time_to_load_once(tmp_path):
    async with running(tmp_path, load_s=0.3) as client:

        async def took(entry):
            times = [data["timestamp"] for _, data in entry["status"]["messages"]]
            return (times[-1] - times[0]) / 1000

        def other_model(name):
            body = txt2img(1, 1)
            body["prompt"]["4"]["inputs"]["ckpt_name"] = name
            return body

        assert await took(await client.run(txt2img(1, 1))) >= 0.3
        await client.run(quick(1))
        assert await took(await client.run(txt2img(1, 1))) < 0.3  # the node runs again, the file is loaded
        assert await took(await client.run(other_model("standin_xl_b.safetensors"))) >= 0.3
