"""times: what a node will take follows from what it took, the nearest runs first; what was never seen is unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.jobs import NodeTiming
from toolkit.times import KEPT, LearnedTimes, NodeTime, expected_s, loads_of, recipe_key

relaxed = settings(deadline=None, max_examples=60)


def graph(
    *, model: str = "a.safetensors", width: int = 512, height: int = 512, steps: int = 20, seed: int = 1, text: str = "a fox", lora: str | None = None
) -> dict[str, Any]:
    made = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": model}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["1", 1]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": width, "height": height, "batch_size": 1}},
        "4": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0], "seed": seed, "steps": steps, "cfg": 5.0,
                "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            },
        },
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": f"x/{seed}"}},
    }  # fmt: skip
    if lora is not None:
        made["7"] = {
            "class_type": "LoraLoader",
            "inputs": {"model": ["1", 0], "clip": ["1", 1], "lora_name": lora, "strength_model": 1.0, "strength_clip": 1.0},
        }
        made["4"]["inputs"]["model"] = ["7", 0]
    return made


def run(graph: dict[str, Any], *, step_s: float = 0.1, load_s: float | None = 4.0, decode_s: float = 0.5) -> list[NodeTiming]:
    """The times of a run; without `load_s` its loader was cached."""
    steps = graph["4"]["inputs"]["steps"]
    first = step_s * (5 if load_s is not None else 1)  # on a GPU the weights move in the first step of a cold run
    took = {"1": load_s, "2": 0.05, "3": 0.0, "5": decode_s, "6": 0.1}
    found = [
        NodeTiming("4", "KSampler", "KSampler", "sample", None, False, 0.0, first + (steps - 1) * step_s, steps, first, step_s),
    ]
    for node_id, seconds in took.items():
        class_type = graph[node_id]["class_type"]
        model = graph[node_id]["inputs"].get("ckpt_name")
        stage = "load" if node_id == "1" else "other"
        found.append(NodeTiming(node_id, class_type, class_type, stage, model, seconds is None, 0.0, seconds or 0.0))
    return found


def test_nothing_is_known_of_what_was_never_seen():
    times = LearnedTimes().of(graph())
    assert set(times.values()) == {None}
    assert expected_s(graph(), times) is None


def test_a_run_is_expected_to_take_what_the_last_ones_took():
    learned = LearnedTimes()
    for seed in range(5):
        learned.learn(graph(seed=seed, text=f"fox {seed}"), run(graph(), load_s=None))
    warm = learned.of(graph(seed=9, text="a wolf"), cached=("1",))
    assert "1" not in warm
    assert warm["4"] == NodeTime(pytest.approx(0.1), pytest.approx(0.1), 5)
    assert expected_s(graph(), warm) == pytest.approx(20 * 0.1 + 0.65, rel=0.01)


def test_steps_are_known_one_by_one():
    learned = LearnedTimes()
    learned.learn(graph(steps=20), run(graph(steps=20), load_s=None))
    assert expected_s(graph(steps=40), learned.of(graph(steps=40), ("1",))) == pytest.approx(40 * 0.1 + 0.65, rel=0.02)


def test_a_cold_run_is_told_from_a_warm_one():
    learned = LearnedTimes()
    for _ in range(4):
        learned.learn(graph(), run(graph(), load_s=4.0))
        learned.learn(graph(), run(graph(), load_s=None))
    cold, warm = learned.of(graph()), learned.of(graph(), ("1",))
    assert cold["1"].first_s == pytest.approx(4.0)
    assert cold["4"].first_s == pytest.approx(0.5, rel=0.1)  # its first step moves the weights
    assert warm["4"].first_s == pytest.approx(0.1, rel=0.1)


def test_another_size_is_expected_in_proportion_to_its_pixels():
    learned = LearnedTimes()
    learned.learn(graph(), run(graph(), load_s=None))
    large = learned.of(graph(width=1024, height=1024), ("1",))
    assert large["4"] == NodeTime(pytest.approx(0.4), pytest.approx(0.4), 0)
    assert large["5"].first_s == pytest.approx(2.0)


def test_another_model_is_expected_like_those_that_are_known():
    learned = LearnedTimes()
    learned.learn(graph(), run(graph()))
    other = learned.of(graph(model="b.safetensors"))
    assert other["1"].first_s == pytest.approx(4.0)
    assert other["1"].runs == other["4"].runs == 0


def test_few_runs_are_drawn_towards_the_family_and_many_are_not():
    learned = LearnedTimes()
    for _ in range(KEPT):
        learned.learn(graph(model="a.safetensors"), run(graph(), step_s=0.1, load_s=None))
    new = graph(model="b.safetensors")
    learned.learn(new, run(new, step_s=0.4, load_s=None))
    once = learned.of(new, ("1",))["4"].step_s
    assert 0.25 < once < 0.4
    for _ in range(9):
        learned.learn(new, run(new, step_s=0.4, load_s=None))
    assert once < learned.of(new, ("1",))["4"].step_s <= 0.4


def test_one_run_that_hung_changes_nothing_and_an_upgrade_is_learned():
    learned = LearnedTimes()
    for _ in range(9):
        learned.learn(graph(), run(graph(), load_s=None))
    learned.learn(graph(), run(graph(), step_s=60.0, load_s=None))
    assert learned.of(graph(), ("1",))["4"].step_s == pytest.approx(0.1, rel=0.01)
    for _ in range(KEPT):
        learned.learn(graph(), run(graph(), step_s=0.05, load_s=None))
    assert learned.of(graph(), ("1",))["4"].step_s == pytest.approx(0.05, rel=0.01)


def test_what_was_cached_or_not_watched_teaches_nothing():
    learned = LearnedTimes()
    learned.learn(
        graph(), [NodeTiming("4", "KSampler", "KSampler", "sample", elapsed_s=None), NodeTiming("5", "VAEDecode", "", "decode", cached=True, elapsed_s=0.0)]
    )
    learned.learn(graph(), [NodeTiming("99", "KSampler", "KSampler", "sample", elapsed_s=3.0)])
    assert set(learned.of(graph()).values()) == {None}


def test_a_sampler_that_is_unknown_makes_the_whole_unknown_and_another_node_does_not():
    times = {"4": NodeTime(0.1, 0.1, 3), "5": None}
    assert expected_s(graph(), times) == pytest.approx(2.0)
    assert expected_s(graph(), {"4": None, "5": NodeTime(1.0)}) is None


@relaxed
@given(st.integers(0, 2**32), st.text(max_size=20), st.floats(1, 20))
def test_seeds_words_and_guidance_do_not_change_what_a_job_costs(seed, text, cfg):
    changed = graph(seed=seed, text=text)
    changed["4"]["inputs"]["cfg"] = cfg
    assert recipe_key(changed) == recipe_key(graph())
    assert recipe_key(graph(steps=21)) != recipe_key(graph()) != recipe_key(graph(width=520))


def test_what_stays_in_memory_is_told_by_its_loaders_and_what_they_are_put_on():
    assert loads_of(graph(seed=1, text="x")) == loads_of(graph(seed=2, width=640))
    plain, with_lora = set(loads_of(graph())), set(loads_of(graph(lora="x")))
    assert plain < with_lora
    assert set(loads_of(graph(lora="x"))) & set(loads_of(graph(lora="y"))) == plain
    assert not plain & set(loads_of(graph(model="b.safetensors")))
