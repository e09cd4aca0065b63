"""progress: the bar tells the truth for every recorded run, and never falls nor ends early whatever gets lost, doubled or mixed up."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolkit.progress import BEFORE_THE_END, ENOUGH_RATIOS, Progress, ProgressTracker, Range, calibrated
from toolkit.protocol import (
    Ended,
    Event,
    Executed,
    Executing,
    ExecutionCached,
    ExecutionStart,
    NodeProgress,
    NodeState,
    Preview,
    ProgressState,
    Status,
    Unknown,
    parse_history,
    parse_message,
)
from toolkit.times import NodeTime

RECORDINGS = Path(__file__).with_name("recordings")
relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault
Run = tuple[dict[str, Any], list[tuple[float, Event]], dict[str, Any]]


@cache
def runs(name: str, client: str = "clientA") -> tuple[Run, ...]:
    """Each prompt of a recording: its graph, its events with their instants, its history (empty where nobody asked)."""
    lines = [json.loads(line) for line in (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    graphs, answered, histories = [], [], {}
    events: dict[str, list[tuple[float, Event]]] = {}
    for line in lines:
        if line["kind"] == "http_req" and line["path"] == "/prompt" and line["method"] == "POST":
            graphs.append(line["json"]["prompt"])
        elif line["kind"] == "http_resp" and line["path"] == "/prompt" and line["method"] == "POST":
            answered.append(line["json"]["prompt_id"])
        elif line["kind"] == "http_resp" and line["path"].startswith("/history"):
            histories |= line["json"]
        elif line["kind"] == "ws" and line["client"] == client:
            event = parse_message(json.dumps(line["json"]))
            if getattr(event, "prompt_id", None):
                events.setdefault(event.prompt_id, []).append((line["t"], event))
    return tuple((graph, events.get(prompt_id, []), histories) for graph, prompt_id in zip(graphs, answered, strict=True))


def watched(graph: dict[str, Any], events: list[tuple[float, Event]]) -> tuple[ProgressTracker, list[Progress]]:
    tracker = ProgressTracker(graph)
    return tracker, [tracker.apply(event, at) for at, event in events]


# ---- the recordings -------------------------------------------------------------------------------------------------------------------

SUCCESSES = ["a_txt2img_8steps", "b_same_prompt_all_cached", "h_batch4", "i_video_outputs"]
ALL = [*SUCCESSES, "e_runtime_error", "f_interrupt"]


@pytest.mark.parametrize("name", ALL)
def test_the_fraction_of_a_recorded_run_never_falls_and_stays_below_one(name):
    for graph, events, _ in runs(name):
        fractions = [progress.fraction for progress in watched(graph, events)[1]]
        assert fractions == sorted(fractions)
        assert all(0.0 <= fraction <= BEFORE_THE_END < 1.0 for fraction in fractions)


@pytest.mark.parametrize("name", SUCCESSES)
def test_a_recorded_success_fills_the_bar_up_to_the_fetching(name):
    for graph, events, _ in runs(name):
        assert watched(graph, events)[1][-1].fraction == BEFORE_THE_END


STALL_S = 0.5  # the server collects garbage after a job: its last frames were recorded up to 0.4 s after the instant they carry


@pytest.mark.parametrize("name", SUCCESSES)
def test_the_run_time_agrees_with_the_servers_own_clock(name):
    for graph, events, history in runs(name):
        tracker, _ = watched(graph, events)
        entry = parse_history(history, events[0][1].prompt_id)
        assert -0.03 <= tracker.timings().run_s - (entry.ended_ms - entry.started_ms) / 1000 < STALL_S


@pytest.mark.parametrize("name", SUCCESSES)
def test_the_cached_nodes_are_those_of_history(name):
    for graph, events, history in runs(name):
        tracker, _ = watched(graph, events)
        entry = parse_history(history, events[0][1].prompt_id)
        assert {node.node_id for node in tracker.node_timings(0.0) if node.cached} == set(entry.cached)
        assert tracker.timings().nodes_cached == len(entry.cached)
        assert tracker.timings().nodes_run == len(graph) - len(entry.cached)


@pytest.mark.parametrize("name", ALL)
def test_the_stages_add_up_to_the_run(name):
    for graph, events, _ in runs(name):
        timings = watched(graph, events)[0].timings()
        if timings.run_s is not None:
            stages = [timings.load_s, timings.encode_s, timings.sample_s, timings.decode_s, timings.save_s, timings.other_s]
            assert sum(stages) == pytest.approx(timings.run_s, abs=1e-6)
            assert min(stages) >= 0


def test_a_cold_picture_is_timed_by_stage_and_step():
    ((graph, events, _),) = runs("a_txt2img_8steps")
    tracker, _ = watched(graph, events)
    timings, nodes = tracker.timings(), {node.node_id: node for node in tracker.node_timings(1000.0)}
    assert (timings.warmth, timings.timed_by, timings.nodes_run, timings.nodes_cached) == ("cold", "events", 7, 0)
    starts = {event.node: at for at, event in events if isinstance(event, Executing) and event.node}
    steps = [at for at, event in events if isinstance(event, NodeProgress)]
    assert nodes["3"].started_at == starts["3"] + 1000.0
    assert nodes["3"].elapsed_s == pytest.approx(starts["8"] - starts["3"], abs=0.02)
    assert nodes["3"].steps == 8
    assert nodes["3"].first_step_s == pytest.approx(steps[0] - starts["3"], abs=0.02)
    gaps = sorted(later - earlier for earlier, later in pairwise(steps))
    assert nodes["3"].step_s == timings.step_s == pytest.approx(gaps[3], abs=0.02)
    assert [nodes[key].stage for key in "456389"] == ["load", "other", "encode", "sample", "decode", "save"]
    assert nodes["4"].model == "tiny_sd15.safetensors"
    assert timings.load_s == nodes["4"].elapsed_s


def test_the_bar_is_of_the_whole_graph_weighted_by_steps():
    ((graph, events, _),) = runs("a_txt2img_8steps")
    tracker = ProgressTracker(graph)
    for at, event in events:
        progress = tracker.apply(event, at)
        if isinstance(event, NodeProgress):
            assert progress.fraction == pytest.approx((4 + event.value) / 14)
            assert (progress.node, progress.step, progress.steps) == ("KSampler", event.value, 8)
    assert (progress.step, progress.steps) == (None, None)


def test_a_warm_run_and_one_from_the_cache_are_told_apart():
    ((graph, events, _),) = runs("h_batch4")
    assert watched(graph, events)[0].timings().warmth == "warm"
    ((graph, events, _),) = runs("b_same_prompt_all_cached")
    timings = watched(graph, events)[0].timings()
    assert (timings.warmth, timings.nodes_run, timings.sample_s, timings.step_s) == ("cached", 0, 0.0, None)


def test_who_looks_only_at_the_end_sees_what_those_saw_who_looked_all_the_time():
    steps = [(float(step), NodeProgress("p", "3", float(step), 4.0)) for step in range(1, 5)]
    looked, late = ProgressTracker(GRAPH), ProgressTracker(GRAPH)
    for at, event in [(0.0, ExecutionStart("p")), (0.5, Executing("3", "p")), *steps, (5.0, Ended("p", "success"))]:
        shown = looked.apply(event, at)
        late.take(event, at)
    assert shown.fraction > 0.4
    assert (late.shown_at(5.0).fraction, late.progress.elapsed_s, late.progress.ends_in) == (shown.fraction, shown.elapsed_s, shown.ends_in)
    assert (late.timings(), late.node_timings(0.0)) == (looked.timings(), looked.node_timings(0.0))


def test_a_failed_run_keeps_its_bar_where_it_broke_and_the_time_it_took():
    for graph, events, _ in runs("e_runtime_error"):
        tracker, shown = watched(graph, events)
        broken = next(event for _, event in events if isinstance(event, Ended))
        (node,) = [node for node in tracker.node_timings(0.0) if node.node_id == broken.failure.node_id]
        assert node.elapsed_s > 0
        assert shown[-1].fraction == pytest.approx((len(graph) - 1) / len(graph))


def test_an_interrupted_run_keeps_its_bar_at_the_step_it_reached():
    graph, events, _ = runs("f_interrupt")[0]
    tracker, shown = watched(graph, events)
    assert shown[-1].fraction == pytest.approx((4 + 2) / 26)
    assert tracker.timings().run_s == pytest.approx(4.09, abs=0.02)


def test_a_run_without_its_own_socket_is_followed_by_the_broadcast_progress():
    graph, events, _ = runs("f_interrupt", client="other")[-1]
    _, shown = watched(graph, events)
    assert not any(isinstance(event, (ExecutionStart, Executing)) for _, event in events)
    assert shown[0].fraction < shown[-2].fraction
    assert shown[-2].fraction == shown[-1].fraction == pytest.approx(3 / 26)


def test_a_socket_that_came_late_still_reaches_the_end():
    ((graph, events, _),) = runs("a_txt2img_8steps")
    late = events[events.index(next(pair for pair in events if isinstance(pair[1], NodeProgress) and pair[1].value == 5)) :]
    tracker, shown = watched(graph, late)
    assert shown[0].fraction > 0.3
    assert shown[-1].fraction == BEFORE_THE_END
    assert [node.elapsed_s for node in tracker.node_timings(0.0) if node.node_id == "4"] == [None]


def test_every_clip_node_gets_its_time():
    ((graph, events, _),) = runs("i_video_outputs")
    nodes = watched(graph, events)[0].node_timings(0.0)
    assert sorted(node.node_id for node in nodes) == sorted(graph)
    assert all(node.elapsed_s is not None and node.elapsed_s >= 0 for node in nodes)


# ---- whatever comes -------------------------------------------------------------------------------------------------------------------

GRAPH = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {}},
    "3": {"class_type": "KSampler", "_meta": {"title": "Paint"}, "inputs": {"steps": 4, "model": ["4", 0], "positive": ["4", 1], "latent_image": ["5", 0]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
}
ids = st.sampled_from([*GRAPH, "77"])
numbers = st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, 20.0, -1.0, 0.5]) | st.floats(-1e9, 1e9)
states = st.builds(NodeState, ids, ids, numbers, numbers, st.sampled_from(["running", "finished", "pending", "error"]))
events = st.one_of(
    st.just(ExecutionStart("p")),
    st.builds(ExecutionCached, st.just("p"), st.lists(ids, max_size=6).map(tuple)),
    st.builds(Executing, st.none() | ids, st.just("p")),
    st.builds(NodeProgress, st.just("p"), st.none() | ids, numbers, numbers),
    st.builds(ProgressState, st.just("p"), st.lists(states, max_size=3).map(tuple)),
    st.builds(Executed, st.just("p"), ids, st.just(())),
    st.builds(Ended, st.just("p"), st.sampled_from(["success", "error", "interrupted"])),
    st.sampled_from([Preview(b""), Status(1), Unknown("x")]),
)
gaps = st.floats(0, 5)


def check(shown: list[Progress]) -> None:
    previous = 0.0
    for progress in shown:
        assert previous <= progress.fraction <= BEFORE_THE_END < 1.0
        previous = progress.fraction
        assert progress.elapsed_s >= 0
        assert (progress.step is None) == (progress.steps is None)
        assert progress.step is None or progress.step >= 0
        if progress.ends_in is not None:
            assert 0 <= progress.ends_in.low_s <= progress.ends_in.expected_s <= progress.ends_in.high_s
        json.dumps(progress.as_json(), allow_nan=False)
        assert Progress.load(progress.dump()) == progress


@settings(relaxed, max_examples=100)
@given(st.lists(st.tuples(events, gaps), max_size=15))
@example([(NodeProgress("p", "3", 1.0, 4.0), 0.0), (NodeProgress("p", "3", 2.0, 4.0), 0.0), (Ended("p", "error"), 0.0)])
def test_fraction_never_falls_and_stays_below_one_for_any_events(sequence):
    tracker, at, shown = ProgressTracker(GRAPH), 0.0, []
    for event, gap in sequence:
        at += gap
        shown += [tracker.apply(event, at), tracker.shown_at(at + gap)]
    check(shown)
    timings = tracker.timings()
    assert timings.run_s is None or timings.run_s >= 0
    assert timings.nodes_run + timings.nodes_cached <= len(GRAPH)
    assert all(node.elapsed_s is None or node.elapsed_s >= 0 for node in tracker.node_timings(0.0))


@relaxed
@given(st.sampled_from(ALL), st.data())
def test_fraction_never_falls_however_a_recorded_run_is_mixed_doubled_and_thinned(name, data):
    graph, recorded, _ = data.draw(st.sampled_from(runs(name)))
    picked = data.draw(st.lists(st.sampled_from([event for _, event in recorded]), min_size=1, max_size=60)) if recorded else []
    tracker = ProgressTracker(graph)
    check([tracker.apply(event, float(at)) for at, event in enumerate(picked)])


@relaxed
@given(st.sets(st.integers(0, 60)))
def test_a_success_fills_the_bar_when_the_last_state_of_every_node_arrived(lost):
    ((graph, recorded, _),) = runs("a_txt2img_8steps")
    last = max(place for place, (_, event) in enumerate(recorded) if isinstance(event, ProgressState))
    kept = [pair for place, pair in enumerate(recorded) if place not in lost or place >= last]
    assert watched(graph, kept)[1][-1].fraction == BEFORE_THE_END


@relaxed
@given(st.lists(st.tuples(events, gaps), max_size=12), st.integers(0, 3))
def test_saying_it_twice_changes_no_fraction(sequence, place):
    once, twice, at = ProgressTracker(GRAPH), ProgressTracker(GRAPH), 0.0
    for event, gap in sequence:
        at += gap
        first = once.apply(event, at)
        twice.apply(event, at)
        assert twice.apply(event, at).fraction == first.fraction


# ---- single rules ---------------------------------------------------------------------------------------------------------------------


def test_nothing_is_known_before_the_first_event():
    tracker = ProgressTracker(GRAPH)
    assert tracker.progress == Progress()
    assert tracker.shown_at(5.0) == Progress()
    assert (tracker.current, tracker.timings().run_s, tracker.timings().warmth) == (None, None, "cold")


def test_a_node_is_shown_by_its_title():
    tracker = ProgressTracker(GRAPH)
    assert tracker.apply(Executing("3", "p"), 1.0).node == "Paint"
    assert tracker.current == "3"
    assert tracker.apply(Executing("77", "p"), 2.0).node == "Paint", "an unknown node changes nothing shown"
    assert tracker.current is None


def test_only_what_feeds_the_wanted_outputs_counts():
    tracker = ProgressTracker(GRAPH, {"2"})
    tracker.apply(ExecutionStart("p"), 0.0)
    tracker.apply(Executing("5", "p"), 0.0)
    assert tracker.apply(Executing("2", "p"), 1.0).fraction == 0.5
    assert tracker.apply(NodeProgress("p", "3", 4.0, 4.0), 2.0).fraction == 0.5
    assert [node.node_id for node in tracker.node_timings(0.0)] == ["5", "2"]


def test_a_graph_of_nothing_is_watched_without_an_error():
    tracker = ProgressTracker({})
    check([tracker.apply(event, 0.0) for event in (ExecutionStart("p"), Executing("3", "p"), Ended("p", "success"))])
    assert tracker.timings().warmth is None


def test_unattributed_progress_belongs_to_the_current_node():
    tracker = ProgressTracker(GRAPH)
    tracker.apply(Executing("3", "p"), 0.0)
    assert tracker.apply(NodeProgress(None, None, 2.0, 4.0), 1.0).step == 2


def test_a_node_that_was_said_to_be_cached_and_runs_after_all_is_timed():
    tracker = ProgressTracker(GRAPH)
    said, again = ExecutionCached("p", ("4", "77")), ExecutionCached("p", ("4",))
    for at, event in enumerate([said, Executing("4", "p"), Executing("5", "p"), again, Ended("p", "success")]):
        tracker.apply(event, float(at))
    (loader, *_) = tracker.node_timings(0.0)
    assert (loader.cached, loader.elapsed_s) == (False, 1.0)


def test_steps_without_an_executing_frame_start_the_clock():
    tracker = ProgressTracker(GRAPH)
    tracker.apply(NodeProgress("p", "3", 1.0, 4.0), 2.0)
    tracker.apply(ProgressState("p", (NodeState("3", "3", 2.0, 4.0, "running"),)), 3.0)
    assert tracker.apply(ProgressState("p", (NodeState("3", "3", 4.0, 4.0, "finished"),)), 5.0).elapsed_s == 3.0
    (sampler,) = [node for node in tracker.node_timings(0.0) if node.node_id == "3"]
    assert (sampler.elapsed_s, sampler.steps, sampler.first_step_s, sampler.step_s) == (3.0, 4, 0.0, 1.0)


def test_what_comes_after_the_end_starts_no_clock():
    tracker = ProgressTracker(GRAPH)
    for at, event in enumerate([Ended("p", "success"), ExecutionStart("p"), Executing("3", "p")]):
        tracker.apply(event, float(at))
    assert (tracker.started_at, tracker.timings().run_s, tracker.progress.elapsed_s) == (None, None, 0.0)


def test_a_finished_node_that_never_ran_has_no_time():
    tracker = ProgressTracker(GRAPH)
    assert tracker.apply(ProgressState("p", (NodeState("9", "9", 1.0, 1.0, "finished"),)), 1.0).fraction > 0
    assert [node.elapsed_s for node in tracker.node_timings(0.0) if node.node_id == "9"] == [None]


def test_the_clock_may_start_at_zero():
    tracker = ProgressTracker(GRAPH)
    for at, event in enumerate([Executing("4", "p"), Executing("3", "p"), NodeProgress("p", "3", 1.0, 4.0), NodeProgress("p", "3", 2.0, 4.0)]):
        progress = tracker.apply(event, float(at))
    assert progress.elapsed_s == 3.0
    # two steps of 1 s, and the four other nodes like the loader, 1 s
    assert progress.ends_in.expected_s == pytest.approx(2.0 + 4.0)
    ended = ProgressTracker(GRAPH)
    ended.apply(ExecutionStart("p"), 0.0)
    ended.apply(Ended("p", "success"), 0.0)
    assert ended.apply(Ended("p", "success"), 9.0).elapsed_s == 0.0


def test_the_time_left_is_unknown_until_two_steps_are_done_and_then_shrinks_with_the_clock():
    tracker = ProgressTracker(GRAPH)
    tracker.apply(Executing("3", "p"), 0.0)
    assert tracker.apply(NodeProgress("p", "3", 1.0, 4.0), 1.0).ends_in is None
    first = tracker.apply(NodeProgress("p", "3", 2.0, 4.0), 2.0).ends_in
    later = tracker.shown_at(2.5).ends_in
    assert first.expected_s - later.expected_s == pytest.approx(0.5)
    assert tracker.shown_at(90.0).ends_in.expected_s == pytest.approx(first.expected_s - 1.0), "a step that takes long is not counted down below itself"
    assert tracker.apply(Ended("p", "success"), 3.0).ends_in == Range(0.0, 0.0, 1.0)


def test_a_second_sampler_that_waits_counts_with_its_own_steps():
    second = {"class_type": "KSampler", "inputs": {"steps": ["x", 0], "positive": ["4", 1], "latent_image": ["3", 0]}}
    tracker = ProgressTracker({**GRAPH, "30": second})
    for at in range(1, 4):
        progress = tracker.apply(NodeProgress("p", "3", float(at), 4.0), float(at))
    assert progress.ends_in.expected_s == pytest.approx(1 + 20 + 5), "steps that another node decides are taken as 20"


def test_the_first_step_is_apart_from_the_others():
    tracker = ProgressTracker(GRAPH)
    tracker.apply(Executing("3", "p"), 0.0)
    assert tracker.apply(NodeProgress("p", "3", 1.0, 4.0), 6.0).step_s == 6.0
    assert tracker.apply(NodeProgress("p", "3", 2.0, 4.0), 7.0).step_s == 1.0
    tracker.apply(Ended("p", "success"), 8.0)
    assert (tracker.timings().first_step_s, tracker.timings().step_s) == (6.0, 1.0)


def test_a_graph_without_loaders_is_neither_cold_nor_warm():
    tracker = ProgressTracker({"1": {"class_type": "EmptyImage", "inputs": {}}})
    assert tracker.timings().warmth is None


def test_progress_in_json_has_a_flat_time_left():
    progress = Progress(0.123456, "Paint", 2, 4, 1.0, 3.14159, None, Range(1.0, 2.0, 3.0), 2, "quiet")
    assert progress.as_json() == {
        "fraction": 0.1235, "node": "Paint", "step": 2, "steps": 4, "elapsed_s": 3.142, "eta_s": 2.0, "eta_low_s": 1.0, "eta_high_s": 3.0, "ahead": 2,
        "stalled": "quiet",
    }  # fmt: skip
    unknown = Progress().as_json()
    assert (unknown["eta_s"], unknown["eta_low_s"], unknown["eta_high_s"], unknown["node"]) == (None, None, None, None)


ranges = st.none() | st.builds(Range, st.floats(0, 9), st.floats(0, 9), st.floats(0, 9), st.sampled_from(["history", "family", "this_run"]))


@relaxed
@given(
    st.builds(
        Progress, fraction=st.floats(0, 1), node=st.none() | st.text(), step=st.none() | st.integers(), elapsed_s=st.floats(0, 1e6), starts_in=ranges,
        ends_in=ranges, ahead=st.none() | st.integers(), stalled=st.none() | st.text(),
    )
)  # fmt: skip
def test_progress_comes_back_equal_from_the_live_board(progress):
    assert Progress.load(progress.dump()) == progress


# ---- with learned times -----------------------------------------------------------------------------------------------------------------

LEARNED = {
    node: NodeTime(first, step, 9)
    for node, first, step in (("4", 6.0, 0.0), ("5", 0.0, 0.0), ("3", 1.0, 0.5), ("8", 2.0, 0.0), ("9", 0.5, 0.0), ("2", 0.1, 0.0))
}


def expecting(cached=()):
    return ProgressTracker(GRAPH, forecast=lambda cached: {node: time for node, time in LEARNED.items() if node not in cached}, cached=cached, after_s=0.25)


def a_steady_run(tracker, *, pace=1.0, cached=()):
    """The progress every tenth of a second of a run that takes what was learned, times `pace`."""
    events, at = [(0.0, ExecutionStart("p")), (0.0, ExecutionCached("p", tuple(cached)))], 0.0
    for node_id in ("4", "5", "3", "8", "9", "2"):
        if node_id in cached or node_id not in GRAPH:
            continue
        events.append((at, Executing(node_id, "p")))
        steps = int(GRAPH[node_id]["inputs"].get("steps", 0))
        if steps:
            for step in range(1, steps + 1):
                at += pace * (LEARNED[node_id].first_s if step == 1 else LEARNED[node_id].step_s)
                events.append((at, NodeProgress("p", node_id, float(step), float(steps))))
        else:
            at += pace * LEARNED[node_id].first_s
    shown, clock = [], 0.0
    while clock < at:
        while events and events[0][0] <= clock + 1e-9:
            tracker.apply(events[0][1], events.pop(0)[0])
        shown.append((clock, tracker.shown_at(clock)))
        clock += 0.1
    return at, shown


@pytest.mark.parametrize("cached", [(), ("4",)])
@pytest.mark.parametrize("pace", [0.7, 1.0, 1.5])
def test_where_times_are_known_the_bar_moves_evenly_in_seconds(cached, pace):
    took, shown = a_steady_run(expecting(cached), pace=pace, cached=cached)
    deviations = [abs(progress.fraction - at / took) for at, progress in shown]
    assert sum(deviations) / len(deviations) < (0.01 if pace == 1.0 else 0.12)
    assert all(earlier.fraction <= later.fraction for (_, earlier), (_, later) in pairwise(shown))


def test_where_times_are_known_the_end_is_known_from_the_start_and_follows_the_run():
    took, shown = a_steady_run(expecting())
    for at, progress in shown:
        assert progress.ends_in.expected_s == pytest.approx(took - at + 0.25, abs=0.06)
        assert progress.ends_in.basis == "history"
    took, shown = a_steady_run(expecting(), pace=2.0)
    early, late = (abs(progress.ends_in.expected_s - (took - at)) / took for at, progress in (shown[1], shown[int(len(shown) * 0.7)]))
    assert late < 0.1 < early


def test_what_was_taken_for_cached_and_runs_is_counted_again():
    tracker = expecting(("4",))
    tracker.apply(ExecutionStart("p"), 0.0)
    before = tracker.apply(Executing("3", "p"), 0.0).ends_in.expected_s
    assert tracker.apply(ExecutionCached("p", ()), 0.0).ends_in.expected_s == pytest.approx(before + 6.0, abs=0.01)


def test_what_is_said_at_the_fixed_moments_is_kept_once():
    tracker = expecting()
    took, _ = a_steady_run(tracker)
    assert [made.moment for made in tracker.predictions] == ["started", "p10", "p25", "p50", "p75"]
    for made in tracker.predictions:
        assert made.said.expected_s == pytest.approx(took - made.at + 0.25, abs=0.1)


def test_few_runs_of_a_recipe_are_told_as_its_familys():
    tracker = ProgressTracker(GRAPH, forecast=lambda cached: {node: NodeTime(time.first_s, time.step_s, 1) for node, time in LEARNED.items()})
    tracker.apply(ExecutionStart("p"), 0.0)
    assert tracker.shown_at(0.0).ends_in.basis == "family"


def test_a_range_is_as_wide_as_past_predictions_were_wrong():
    ratios = [1.0 + 0.02 * number for number in range(-10, 11)]
    said = calibrated(10.0, "history", ratios)
    assert (said.low_s, said.expected_s, said.high_s) == (pytest.approx(8.24), 10.0, pytest.approx(11.76))
    assert calibrated(10.0, "history", [5.0] * 3) == calibrated(10.0, "history")  # too few to tell
    assert calibrated(10.0, "family").high_s > calibrated(10.0, "history").high_s


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.5, 2.0), min_size=ENOUGH_RATIOS, max_size=50), st.floats(0.01, 1e4))
def test_a_range_holds_what_is_expected(ratios, seconds):
    said = calibrated(seconds, "history", ratios)
    assert said.low_s <= said.expected_s <= said.high_s
