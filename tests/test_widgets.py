"""The card of a job, without a browser: what it says while the job runs, what it leaves behind, and that it lets go."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import end_children
from toolkit import Studio
from toolkit.jobs import JobStatus
from toolkit.progress import Progress, Range
from toolkit.studio import JobHandle
from toolkit.widgets import BatchCard, ProgressCard, QueueBoard, pictures, show_file, show_files, shown
from toolkit.widgets.tiles import Grid, waiting

SMALL = {"width": 512, "height": 512}
MARKUP = '<script>alert("1")</script> & girl'
VIEW = "application/vnd.jupyter.widget-view+json"


def until(holds: Callable[[], Any], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def bytes_of_pictures(html: str) -> list[int]:
    return [len(base64.b64decode(found)) for found in re.findall(r'"data:image/webp;base64,([^"]+)"', html)]


def callbacks_of(handle: JobHandle) -> list[Any]:
    return list(handle._studio._watcher._callbacks.get(handle.id, []))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio whose engine takes its time, so that a card has something to show."""
    home = tmp_path_factory.mktemp("slow-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_ENGINE_STEP_S", "0.05")
        with Studio("engine", home=home) as studio:
            yield studio
    end_children(home)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], str | None, bool]]:
    """What a card displays, in place of a notebook."""
    found: list[tuple[dict[str, Any], str | None, bool]] = []
    monkeypatch.setattr(shown, "in_notebook", lambda: True)
    monkeypatch.setattr(shown, "publish", lambda bundle, display_id=None, *, update=False: found.append((bundle, display_id, update)))
    return found


# ---- while it runs ----------------------------------------------------------------------------------------------------


def test_a_running_card_shows_node_step_bar_and_preview_and_ends_by_itself(slow: Studio) -> None:
    handle = slow.image("fox girl", seed=1, steps=12, **SMALL)
    card = ProgressCard(handle)
    until(lambda: "step " in card.status.value and len(card.preview.value))
    percent = int(re.search(r'role="progressbar".*aria-valuenow="(\d+)"', card.status.value)[1])  # type: ignore[index]
    assert 0 < percent < 100
    assert re.search(r"KSampler · step \d+ of 12", card.status.value)
    assert card.preview.layout.display is None
    assert "stand-in drawing: connect ComfyUI" in card.head.value
    assert "toolkit connect" in card.head.value
    handle.wait(20)
    until(lambda: "seed 1" in card.body.value)
    assert card.preview.value == b""
    assert not callbacks_of(handle)


def test_cancel_on_the_card_stops_a_running_and_takes_out_a_waiting_job(slow: Studio) -> None:
    handles = [slow.image("cat", seed=seed, steps=200) for seed in range(4)]
    cards = [ProgressCard(handle) for handle in handles]
    until(lambda: "step " in cards[0].status.value)
    until(lambda: "waiting in line · 2 before it" in cards[2].status.value)
    assert "3 before it" in cards[3].status.value
    cards[1].cancel_button.click()
    until(lambda: "2 before it" in cards[3].status.value)  # it moves up without any change of its own
    for card in (cards[3], cards[2], cards[0]):
        card.cancel_button.click()
        assert card.cancel_button.disabled
    for handle, card in zip(handles, cards, strict=True):
        until(lambda handle=handle: handle.job.is_final)
        assert handle.job.status == JobStatus.CANCELLED
        until(lambda card=card: "cancelled" in card.body.value)
        assert card.live.children == (card.retry_button,)
        assert not callbacks_of(handle)


def test_a_place_in_line_is_drawn_however_short_ago_the_last_change_was(slow: Studio) -> None:
    handles = [slow.image("cat", seed=seed, steps=200) for seed in range(20, 23)]
    card = ProgressCard(handles[2])
    until(lambda: handles[1].job.status == JobStatus.SUBMITTED)
    for ahead in (7, 6, 5):
        card._take(Progress(ahead=ahead))
    assert "5 before it" in card.status.value
    for handle in handles:
        handle.cancel()
    until(lambda: handles[0].job.is_final)


def test_an_open_card_carries_the_widget_and_a_text_for_readers_without_one(slow: Studio) -> None:
    handle = slow.image("cat", seed=9, steps=200)
    bundle = handle._repr_mimebundle_()
    handle.cancel()
    assert bundle[VIEW]["model_id"] == handle._card.box.model_id
    assert f'studio.job("{handle.id[:8]}")' in bundle["text/html"]
    assert handle.id[:8] in bundle["text/plain"]


def test_retry_shows_the_new_job_in_the_same_cell(slow: Studio, published: list[Any]) -> None:
    handle = slow.image("cat", seed=5, steps=200)
    handle.cancel()
    until(lambda: handle.job.is_final)
    card = ProgressCard(handle)
    card.show()
    assert [bundle.get(VIEW) is not None for bundle, _, _ in published] == [False, True]  # the end, and the button below it
    card.retry_button.click()
    again = slow.job(-1)
    again.cancel()
    assert again.job.retry_of == handle.id
    assert again.id[:8] in str(published[2][0])
    until(lambda: len(published) == 5)  # its own end, and its own button


# ---- at the end -------------------------------------------------------------------------------------------------------


def test_the_displayed_output_is_replaced_by_html_that_needs_no_kernel(studio: Studio, published: list[Any]) -> None:
    handle = studio.image(MARKUP, seed=3, **SMALL)
    handle._ipython_display_()
    handle.wait(20)
    until(lambda: len(published) == 2)
    (first, shown_as, _), (last, replaced, update) = published
    assert VIEW in first
    assert VIEW not in last
    assert update
    assert shown_as == replaced
    assert MARKUP not in last["text/html"]
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; girl" in last["text/html"]
    assert bytes_of_pictures(last["text/html"])[0] <= 40_000
    assert str(studio.home) not in last["text/html"] + last["text/plain"]


def test_a_job_found_again_shows_its_end_at_once(studio: Studio) -> None:
    done = studio.image("girl", seed=8, reuse=True, **SMALL).wait(20).job
    found = studio.job(done.id[:8])
    card = ProgressCard(found)
    assert "seed 8" in card.body.value
    assert done.files[0].name in card.body.value
    assert card.cancel_button.layout.display == "none"
    assert not callbacks_of(found)
    assert VIEW not in card._repr_mimebundle_()


def test_a_clip_plays_in_the_card_and_leaves_its_poster(studio: Studio, published: list[Any]) -> None:
    handle = studio.video("girl", frames=9, fps=8, width=320, height=192, seed=2)
    result = handle.wait(30)
    handle._ipython_display_()
    (static, _, _), (live, _, _) = published
    assert "<video" not in static["text/html"]
    assert bytes_of_pictures(static["text/html"])
    assert VIEW in live
    player = handle._card.live.children[0].value
    assert re.search(r'<video src="data:video/mp4;base64,[^"]+" poster="[^"]+" aria-label="girl" autoplay loop muted controls', player)
    assert "9 frames at 8 fps" in player
    assert "data:video/mp4" in show_file(result.files[0].file)
    big = replace(result.files[0].file, size_bytes=pictures.CLIP_IN_HTML_LIMIT + 1)
    assert "data:video/mp4" not in show_file(big)
    assert bytes_of_pictures(show_file(big))


def test_all_pictures_of_a_job_together_stay_small(studio: Studio) -> None:
    job = studio.image(MARKUP, batch_size=3, seed=6, **SMALL).wait(20).job
    sizes = bytes_of_pictures(show_files(job))
    assert len(sizes) == 3
    assert sum(sizes) <= 40_000
    assert MARKUP not in show_files(job)


def test_a_file_that_is_gone_is_said_and_not_raised(studio: Studio, tmp_path: Path) -> None:
    job = studio.image("girl", seed=8, reuse=True, **SMALL).wait(20).job
    gone = replace(job.files[0], path=str(tmp_path / "gone.png"))
    assert "gone.png cannot be shown" in show_file(gone)
    assert "cannot be shown" in pictures.ending(replace(job, files=(gone,)), "")


def test_a_failure_is_said_with_its_node_and_what_to_try(studio: Studio) -> None:
    job = studio.image("girl", seed=8, reuse=True, **SMALL).wait(20).job
    failed = replace(job, status=JobStatus.FAILED, error="Out of <memory>.", failure_node="KSampler", hint="Try a smaller size.", warnings=("a & b",))
    html = pictures.ending(failed, "")
    assert "failed in KSampler: Out of &lt;memory&gt;." in html
    assert "Try a smaller size." in html
    assert "a &amp; b" in html


# ---- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (Range(0.1, 0.4, 1.2), "less than 1 s"),
        (Range(6.8, 8.0, 11.4), "about 8 s"),
        (Range(34.0, 40.0, 53.0), "34 to 53 s"),
        (Range(85.0, 100.0, 131.0), "1 min 25 s to 2 min 11 s"),
        (Range(3500.0, 3600.0, 7400.0), "58 min to 2 h 3 min"),
    ],
)
def test_an_eta_is_a_range_in_plain_words(left: Range, words: str) -> None:
    assert pictures.lasting(left) == words


def test_unknown_is_left_out(studio: Studio) -> None:
    job = studio.image("girl", seed=8, reuse=True, **SMALL).wait(20).job
    assert pictures.facts(replace(job, status=JobStatus.RUNNING), Progress(fraction=0.25)) == ["25%", "running", "0 s so far"]
    assert pictures.facts(replace(job, status=JobStatus.QUEUED), Progress()) == ["waiting in line"]


# ---- batches, galleries, the queue ------------------------------------------------------------------------------------


def buttons_of(card: Any, word: str) -> list[Any]:
    found: list[Any] = []

    def walk(widget: Any) -> None:
        if str(getattr(widget, "tooltip", "") or "").startswith(word):
            found.append(widget)
        for child in getattr(widget, "children", ()):
            walk(child)

    walk(card.live)
    return found


def test_a_batch_fills_in_and_leaves_its_pictures_without_a_kernel(slow: Studio, published: list[Any]) -> None:
    batch = slow.variations("fox girl", 3, name="fills in", steps=4, **SMALL)
    card = BatchCard(batch)
    card.show()
    assert published[0][0][VIEW]
    assert "It was under way" in published[0][0]["text/html"]
    until(lambda: "1 of 3" in card.head.value)
    batch.wait(30)
    until(lambda: len(published) == 3)
    bundle, display_id, update = published[1]
    assert (VIEW in bundle, display_id, update) == (False, published[0][1], True)
    assert len(bytes_of_pictures(bundle["text/html"])) == 3
    assert "3 of 3" in bundle["text/html"]
    assert sum(bytes_of_pictures(bundle["text/html"])) < 60_000
    assert VIEW in published[2][0]
    assert not slow._watcher._everything


def test_a_batch_says_how_long_it_will_take_once_that_is_known(slow: Studio) -> None:
    batch = slow.variations("fox girl", 8, name="how long", steps=4, **SMALL)
    card = BatchCard(batch)
    until(lambda: re.search(r"[1-6] of 8 · \d+ s left", card.head.value), 30)
    batch.cancel()
    batch.wait(30)


def test_heart_and_bin_judge_and_are_taken_back(slow: Studio) -> None:
    batch = slow.variations("fox girl", 3, name="fills in", steps=4, **SMALL).wait(30)
    card = BatchCard(batch)
    buttons_of(card, "Keep 2")[0].click()
    assert [output.job_id for output in batch.kept] == [batch[1].id]
    buttons_of(card, "Kept")[0].click()
    assert batch.kept == []
    buttons_of(card, "Put 1 into")[0].click()
    first = batch.outputs[0]
    assert (first.file.disk, first.verdict) == ("trashed", "reject")
    buttons_of(card, "Bring 1 back")[0].click()
    assert (batch.outputs[0].file.disk, batch.outputs[0].verdict) == ("present", None)
    Path(batch.outputs[2].path).unlink()
    buttons_of(card, "Put 3 into")[0].click()
    assert "cannot be moved" in str([widget.value for tile in card.grid._flow.children for widget in tile.children if hasattr(widget, "value")])


def test_what_failed_is_red_with_its_reason_and_retry_shows_the_batch_again(slow: Studio, published: list[Any]) -> None:
    batch = slow.variations("cat girl", 2, name="to be cancelled", steps=100, **SMALL)
    card = BatchCard(batch)
    card.show()
    card.cancel_button.click()
    batch.wait(30)
    until(lambda: len(published) == 3)
    assert "2 not well" in published[1][0]["text/html"]
    assert 'toolkit-empty toolkit-error"><span>1</span><div>cancelled' in published[1][0]["text/html"]
    card.retry_button.click()
    assert [handle.job.status == "cancelled" for handle in batch] == [False, False]
    assert VIEW in published[3][0]
    batch.cancel()
    batch.wait(30)
    until(lambda: len(published) == 6)


def test_a_gallery_shows_some_and_offers_the_rest(slow: Studio, published: list[Any]) -> None:
    slow.variations("fox girl", 3, name="fills in", steps=4, **SMALL).wait(30)
    found = slow.gallery(simulated=True)
    found._ipython_display_()
    assert f"{len(found)} pictures and clips" in published[0][0]["text/html"]
    assert VIEW in published[1][0]
    slow.gallery(search="no such thing")._ipython_display_()
    assert "Nothing fits" in published[2][0]["text/html"]
    grid = Grid()
    grid.put([waiting(number, "waiting in line") for number in range(70)])
    assert (len(grid._flow.children), grid.more.description) == (60, "10 more")
    grid.more.click()
    assert (len(grid._flow.children), grid.more.layout.display) == (70, "none")


def test_the_board_shows_everybodys_jobs_in_order_and_pauses_the_servers(slow: Studio, published: list[Any]) -> None:
    handle = slow.image("owl girl", seed=4, steps=200, **SMALL)
    until(lambda: handle.job.status == "running")
    line = slow.queue()
    line._ipython_display_()  # type: ignore[attr-defined]
    assert "owl girl" in published[0][0]["text/html"]
    assert [VIEW in bundle for bundle, _, _ in published] == [False, True], "a saved notebook keeps how it stood"
    assert published[0][0]["text/plain"].startswith("Built-in engine")
    board = QueueBoard(slow)
    until(lambda: 'role="progressbar"' in board.body.value)
    assert "owner, notebook" in board.body.value
    board.pause_button.click()
    assert (board.pause_button.description, slow._ledger.pause("engine") is not None) == ("Resume", True)
    board.pause_button.click()
    assert slow._ledger.pause("engine") is None
    handle.cancel()
    until(lambda: "Nothing in line" in board.body.value)
    board.close()
