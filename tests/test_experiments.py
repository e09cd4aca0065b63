"""Experiments and what is kept of them: variations, sweeps, sheets, judgements, the bin, the gallery, on the built-in engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageColor

from tests.conftest import children_of, end_children
from toolkit import ImageRef, ImageRequest, Lora, Studio, Workflow
from toolkit.errors import JobTimeout, JobUnknown, OutputError, QueryInvalid, RequestInvalid
from toolkit.ledger import Ledger
from toolkit.outputs import sidecar_of
from toolkit.sheets import FAULT, Sheet, wrapped
from toolkit.studio import Batch
from toolkit.studio.experiments import Bench, label_of
from toolkit.studio.handles import code_of

SMALL = {"width": 256, "height": 256, "steps": 2, "model": "illustrious"}
SLOW = {**SMALL, "steps": 150}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    home = tmp_path_factory.mktemp("house")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_ENGINE_STEP_S", "0.02")
        with Studio("engine", home=home) as studio:
            yield studio
    end_children(home)


@pytest.fixture(scope="module")
def foxes(house: Studio) -> Batch:
    return house.variations("1girl, fox ears, {red|silver} hair", 5, name="fox looks", **SMALL).wait(60)


@pytest.fixture(scope="module")
def swept(house: Studio) -> Batch:
    return house.sweep("1girl, {hair} hair", hair=["red", "silver"], cfg=[4, 5.5, 7], name="cfg test", **SMALL).wait(60)


def requests_of(batch: Batch) -> list[Any]:
    return [handle.job.request for handle in batch]


# ---- the first cells of a day ---------------------------------------------------------------------------------------------------------


def test_twenty_of_a_character_keep_three_animate_one_sweep_and_find_them_next_morning(house: Studio) -> None:
    fox = house.variations("1girl, fox ears, silver hair, {shrine|forest|rain}", 20, name="fox", **SMALL)
    best = fox.wait(120).keep(3, 11, 14)
    assert fox.trash_rest() == 17
    assert house.restore(*house.trashed()[:2]) == 2
    again = best[0].again(cfg=4, steps=3)
    clip = best[0].animate("she turns and smiles", frames=5, width=256, height=256, steps=2)
    cfg = house.sweep(best[0], cfg=[4, 5, 6], sampler=["euler_ancestral", "dpmpp_2m"], name="cfg of a fox")
    sheet = cfg.wait(120).sheet(rows="sampler", columns="cfg")
    assert (again.wait(60).job.request.cfg, clip.wait(60).files[0].file.kind, sheet.image().width > 256 * 3) == (4, "video", True)
    with Studio(["engine"], home=house.home) as morning:
        assert morning is not house
        found = morning.batch("fox")
        assert [output.path for output in found.kept] == [output.path for output in best]
        assert len(found) == 21, "twenty pictures and the clip"
        assert {job.id for job in morning.jobs(limit=100)} >= {handle.id for handle in (*cfg, again, clip)}


# ---- variations -----------------------------------------------------------------------------------------------------------------------


def test_variations_are_one_request_with_seeds_one_apart(foxes: Batch) -> None:
    seeds = [request.seed for request in requests_of(foxes)]
    assert seeds == list(range(seeds[0], seeds[0] + 5))
    assert len({request.but(seed=0).model_dump_json() for request in requests_of(foxes)}) == 1
    assert {handle.job.priority for handle in foxes} == {"background"}
    assert {handle.job.prompt.split(", ")[-1] for handle in foxes} <= {"red hair", "silver hair"}


def test_the_same_variations_under_the_same_name_are_not_made_again_and_more_of_them_are_added(house: Studio, foxes: Batch) -> None:
    again = house.variations("1girl, fox ears, {red|silver} hair", 5, name="fox looks", **SMALL)
    assert (again.id, [handle.id for handle in again]) == (foxes.id, [handle.id for handle in foxes])
    first_ones = [handle.id for handle in foxes]
    more = house.variations("1girl, fox ears, {red|silver} hair", 7, name="fox looks", **SMALL).wait(60)
    assert [handle.id for handle in more][:5] == first_ones[:5]
    assert [request.seed for request in requests_of(more)][-1] == requests_of(foxes)[0].seed + 6
    other = house.variations("1girl, cat ears", 1, name="fox looks", **SMALL)
    assert other.id != foxes.id
    other.wait(30)
    assert house.batch("fox looks").id == other.id, "the latest of a name is found by it"


def test_a_batch_without_a_name_is_gone_on_with_until_it_has_ended(house: Studio) -> None:
    first = house.variations("1girl, owl", 2, **SLOW)
    again = house.variations("1girl, owl", 2, **SLOW)
    anew = house.variations("1girl, owl", 2, reuse=False, **SLOW)
    assert first.id == again.id != anew.id
    for batch in (first, anew):
        batch.cancel()
        batch.wait(30)
    assert house.variations("1girl, owl", 2, **SLOW).id not in (first.id, anew.id)
    house.batch(house.job(-1).job.group_name).cancel()


def test_a_batch_waits_for_the_job_of_another_that_stands_for_one_of_its_own(house: Studio) -> None:
    request = ImageRequest(prompt="1girl, heron", seed=77, **SLOW)
    first, second = (house.submit_many([request], name=name) for name in ("herons", "herons too"))
    assert first.id != second.id
    assert first[0].id == second[0].id
    with pytest.raises(JobTimeout):
        second.wait(0.01)
    first.cancel()
    assert second.wait(30).failed[0].job.status == "cancelled"


def test_variations_of_an_output_begin_after_its_own_seed(house: Studio, foxes: Batch) -> None:
    of = foxes.outputs[0]
    batch = house.variations(of, 2, cfg=3, **SLOW)
    batch.cancel()
    seed = foxes[0].job.request.seed
    assert [(request.seed, request.cfg) for request in requests_of(batch)] == [(seed + 1, 3), (seed + 2, 3)]


def test_a_workflow_is_varied_by_its_own_seed_and_swept_by_its_own_names(house: Studio, foxes: Batch) -> None:
    own = foxes.outputs[0].workflow()
    seed = own.parameters["seed"].value
    batch = house.variations(own, 3).wait(60)
    assert [Workflow.load(request.workflow).parameters["seed"].value for request in requests_of(batch)] == [seed, seed + 1, seed + 2]
    swept = house.sweep(own, steps=[2, 3], name="own steps").wait(60)
    assert [cell["steps"] for cell, _ in swept.cells] == [2, 3]
    with pytest.raises(RequestInvalid, match="no seed to vary"):
        house.variations(Workflow.load({"1": {"class_type": "EmptyImage", "inputs": {}}, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}))


# ---- sweeps ---------------------------------------------------------------------------------------------------------------------------


def test_a_sweep_is_every_combination_with_one_seed_and_its_words_are_labels(swept: Batch) -> None:
    assert (swept.axes, [dict(cell) for cell, _ in swept.cells][:2]) == (("hair", "cfg"), [{"hair": "red", "cfg": 4}, {"hair": "red", "cfg": 5.5}])
    assert len({request.seed for request in requests_of(swept)}) == 1
    assert [request.prompt for request in requests_of(swept)] == ["1girl, red hair"] * 3 + ["1girl, silver hair"] * 3
    assert swept[5].job.request.labels == {"hair": "silver"}


def test_equal_cells_are_one_job_and_both_stand_on_the_sheet(house: Studio) -> None:
    batch = house.sweep("1girl, twins", cfg=[5, 5.0], sampler=["euler", "ddim"], name="twins", **SMALL).wait(60)
    assert (len(batch), len(batch.cells)) == (2, 4)
    with Image.open(batch.sheet().path) as sheet:
        assert sheet.width >= 256 + 10


def test_pairs_take_the_first_values_together(house: Studio) -> None:
    batch = house.sweep("1girl, pair", pair=True, steps=[2, 3], cfg=[4, 7], sampler="euler", width=256, height=256, model="illustrious", name="pairs")
    assert [(request.steps, request.cfg, request.sampler) for request in requests_of(batch)] == [(2, 4, "euler"), (3, 7, "euler")]
    batch.cancel()


def test_a_sweep_of_24_stopped_at_10_and_run_again_does_14_and_ends_with_a_sheet_of_24(house: Studio) -> None:
    def cell() -> Batch:
        axes = {"cfg": [3, 4, 5, 6, 7, 8], "sampler": ["euler", "euler_ancestral", "ddim", "dpmpp_2m"]}
        return house.sweep("1girl, a sweep of 24", name="24", **SMALL, **axes)

    first = cell()
    done = list(first)[:10]
    for handle in done:
        handle.wait(60)
    first.cancel()
    first.wait(60)
    kept = [handle.id for handle in first if handle.job.is_done]
    assert 10 <= len(kept) < 24
    before = house._ledger.count()
    again = cell().wait(120)
    assert again.id == first.id
    assert house._ledger.count() - before == 24 - len(kept)
    assert {handle.id for handle in again} >= set(kept)
    assert [handle.job.status for handle in again] == ["done"] * 24
    assert again.failed == []
    sheet = again.sheet(rows="sampler", columns="cfg").image()
    assert sheet.width > 6 * 256
    assert sheet.height > 4 * 256
    assert again.table().df().shape[0] == 24


def test_loras_given_together_are_one_value_and_lists_of_them_an_axis(house: Studio) -> None:
    mika = Lora(name="mika", strength=0.8)
    assert label_of([mika, Lora(name="rain")]) == "mika:0.8 + rain:1"
    assert label_of([]) == "none"
    assert label_of(ImageRef(sha256="a" * 64)) == "aaaaaaaa"
    bench = Bench(house._orders, house._ledger)
    assert list(bench.sweep("1girl", {"loras": [[], [mika]], "steps": 2}, False, {}).axes) == ["loras"]
    assert bench.sweep("1girl", {"loras": [mika], "cfg": [4]}, False, {}).request.loras == (mika,)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"stepz": [1, 2]}, "Did you mean steps"),
        ({"hair": ["red"]}, "braces"),
        ({"cfg": []}, "nothing to vary"),
        ({}, "nothing to vary"),
        ({"cfg": [1, 2], "steps": [1, 2, 3], "pair": True}, "one length"),
        ({"seed": range(20_000)}, "More than 10000"),
        ({"cfg": [4, "many"]}, "cfg"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_with_nothing_accepted(house: Studio, axes: dict[str, Any], said: str) -> None:
    before = house._ledger.count()
    with pytest.raises(RequestInvalid) as refused:
        house.sweep("1girl", **axes)
    assert said in f"{refused.value} {refused.value.hint}"
    assert house._ledger.count() == before


def test_variations_need_something_to_vary(house: Studio) -> None:
    with pytest.raises(RequestInvalid, match="at least 1"):
        house.variations("1girl", 0)
    with pytest.raises(RequestInvalid, match="int cannot be varied"):
        house.variations(7)  # type: ignore[arg-type]


# ---- sheets and tables ----------------------------------------------------------------------------------------------------------------


def test_a_table_has_a_row_a_cell_with_axes_times_and_verdict(house: Studio, swept: Batch) -> None:
    swept.keep(2)
    table = swept.table().df()
    assert list(table.columns[:3]) == ["hair", "cfg", "job_id"]
    assert table["hair"].tolist() == ["red"] * 3 + ["silver"] * 3
    assert table["cfg"].tolist() == [4, 5.5, 7] * 2
    assert table["verdict"].fillna("").tolist() == ["", "keep", "", "", "", ""]
    assert (table["run_s"] > 0).all()
    assert table["file"].str.endswith(".png").all()


def test_an_axis_that_is_none_is_named(swept: Batch) -> None:
    with pytest.raises(RequestInvalid) as refused:
        swept.sheet(rows="samplr")
    assert refused.value.hint == "Its axes: hair, cfg."


def test_a_sheet_of_variations_counts_them_and_is_replaced_by_the_next(foxes: Batch) -> None:
    first, again = foxes.sheet(), foxes.sheet()
    assert first.path == again.path
    assert Path(first.path).parent.name == "sheets"
    with pytest.raises(RequestInvalid, match="no job"):
        first.again()


def test_a_sheet_shows_what_there_is_to_say_where_a_picture_is_missing() -> None:
    red = Image.new("RGB", (100, 200), "red")
    cells: dict[tuple[int, int], Any] = {(0, 0): red, (1, 1): "failed: out of memory"}
    drawn = Sheet("cfg test", ["a row", ""], ["4", "a column with a very long name indeed, much too long"], cells, "x", "y").draw()
    colours = {colour for _, colour in drawn.getcolors(2**20) or ()}
    assert colours >= {(255, 0, 0), ImageColor.getrgb(FAULT)}
    many = wrapped("40", [red] * 40, [str(number) for number in range(40)]).draw()
    assert max(many.size) <= 6000
    wide = Sheet("", [""], [str(number) for number in range(70)], {(0, number): red for number in range(70)}).draw()
    assert wide.width <= 6000


# ---- what is kept ---------------------------------------------------------------------------------------------------------------------


def test_hearts_are_in_the_ledger_and_can_be_taken_back(house: Studio, swept: Batch) -> None:
    (chosen,) = swept.keep(4, stars=5)
    assert chosen.verdict == "keep"
    chosen.unrate()
    assert (chosen.verdict, chosen in swept.kept) == (None, False)
    chosen.reject("hands", "blur")
    (row,) = house.sql("from ratings select verdict, reasons where job_id = $job and verdict = 'reject'", job=chosen.job_id).fetchall()
    assert row == ("reject", ["hands", "blur"])
    assert [output.verdict for output in swept.reject(5, reasons=["face"])] == ["reject"]
    for stars in (0, 6):
        with pytest.raises(RequestInvalid, match="from 1 to 5"):
            chosen.keep(stars=stars)
    with pytest.raises(RequestInvalid, match="no file number 99"):
        swept.keep(99)
    with pytest.raises(RequestInvalid, match="No file is chosen"):
        swept.keep()


def test_numbers_stay_while_others_are_still_on_their_way(house: Studio) -> None:
    batch = house.submit_many([ImageRequest(prompt="1girl", seed=1, batch_size=2, **SMALL), ImageRequest(prompt="1girl", seed=2, **SLOW)])
    batch[0].wait(30)
    assert list(batch.numbered) == [1, 2]
    batch.cancel()
    batch.wait(30)


def test_the_bin_gives_back_what_was_put_there(house: Studio) -> None:
    house.empty_trash()
    batch = house.variations("1girl, bin", 3, name="bin", **SMALL).wait(60)
    with pytest.raises(RequestInvalid, match="Nothing of 'bin' is kept"):
        batch.trash_rest()
    batch.keep(2)
    first, kept, _ = batch.outputs
    assert batch.trash_rest() == 2
    assert batch.trash_rest() == 0, "what lies in the bin is not put there again"
    assert not Path(first.path).exists()
    assert not sidecar_of(Path(first.path)).exists()
    (gone,) = [output for output in batch.outputs if output.file.name == first.file.name]
    assert (gone.file.disk, gone.image().size, Path(kept.path).exists()) == ("trashed", (256, 256), True)
    assert sum(row[2] for row in house.disk_use().fetchall() if row[1] == "trashed") == 2
    assert house.restore(first) == 1
    assert Path(first.path).exists()
    assert sidecar_of(Path(first.path)).exists()
    assert house.restore() == 1, "without names all of it comes back"
    first.trash()
    assert house.empty_trash() > 1000
    assert (house.trashed(), house.restore(first)) == ([], 0)
    assert house.sql("select disk from outputs where name = $name", name=first.file.name).fetchall() == [("missing",)]


def test_a_place_that_is_taken_is_said_and_the_file_stays_in_the_bin(house: Studio) -> None:
    house.empty_trash()
    (output,) = house.variations("1girl, taken", 1, name="taken", **SMALL).wait(30).outputs
    output.trash()
    Path(output.path).write_bytes(b"somebody else's")
    with pytest.raises(OutputError, match="cannot be moved"):
        output.restore()
    assert Path(output.path).read_bytes() == b"somebody else's"
    assert [one.file.name for one in house.trashed()] == [output.file.name]
    Path(output.path).unlink()
    assert house.restore(output) == 1


def test_a_file_deleted_outside_is_missing_and_breaks_nothing(house: Studio) -> None:
    batch = house.variations("1girl, lost", 2, name="lost", **SMALL).wait(60)
    Path(batch.outputs[0].path).unlink()
    batch.keep(1)
    assert house.sql("select disk from outputs where name = $name", name=batch.outputs[0].file.name).fetchall() == [("missing",)]
    assert batch.sheet().image().width > 256
    with pytest.raises(OutputError, match="cannot be written"):
        batch.export(house.home / "lost.zip")


def test_the_kept_ones_travel_as_a_zip_with_what_they_were_made_from(house: Studio, swept: Batch, tmp_path: Path) -> None:
    swept.keep(1)
    path = swept.export(tmp_path / "kept.zip")
    with zipfile.ZipFile(path) as archive:
        pictures = [name for name in archive.namelist() if name.endswith(".png")]
        about = json.loads(archive.read(pictures[0].replace(".png", ".json")))
    assert len(pictures) == len(swept.kept)
    assert about["request"]["prompt"] == "1girl, red hair"
    assert len(zipfile.ZipFile(swept.export(tmp_path / "all.zip", kept_only=False)).namelist()) == 12
    with pytest.raises(OutputError, match="cannot be written"):
        swept.export(tmp_path / "all.zip" / "kept.zip")
    assert zipfile.is_zipfile(swept.export(tmp_path / "a new folder" / "kept.zip"))


def test_a_deleted_job_takes_its_files_along(house: Studio) -> None:
    batch = house.variations("1girl, gone", 2, name="gone", **SMALL).wait(60)
    first, second = batch.outputs
    first.trash()
    trashed = batch.outputs[0].path
    assert house.delete(batch[0], batch[1].id) > 1000
    assert not any(Path(path).exists() for path in (trashed, second.path, sidecar_of(Path(second.path))))
    with pytest.raises(JobUnknown):
        house.job(first.job_id)
    open_one = house.image("1girl, open", seed=5, **SLOW)
    with pytest.raises(RequestInvalid, match="has not ended"):
        house.delete(open_one)
    open_one.cancel()


# ---- the gallery ----------------------------------------------------------------------------------------------------------------------


def test_a_gallery_is_narrowed_by_questions_of_the_log(house: Studio, swept: Batch) -> None:
    assert len(house.gallery()) == 0, "drawings of the engine are left out"
    assert "0 outputs" in repr(house.gallery())
    swept.keep(6)
    kept = house.gallery(verdict="keep", batch="cfg test", simulated=True)
    assert {output.verdict for output in kept} == {"keep"}
    assert len(house.gallery(search="SILVER hair", batch="cfg test", simulated=True)) == 3
    assert len(house.gallery(where="cfg > 6 and outputs.width = 256", batch="cfg test", simulated=True)) == 2
    assert len(house.gallery(simulated=True, limit=3)) == 3
    assert house.gallery(simulated=True, project="none such") == []
    with pytest.raises(QueryInvalid):
        house.gallery(where="cfg >", simulated=True)
    with pytest.raises(QueryInvalid):
        house.gallery(where="true); drop table jobs; --", simulated=True)
    with pytest.raises(RequestInvalid, match="modl"):
        house.gallery(modl="x")


# ---- explain and code -----------------------------------------------------------------------------------------------------------------


def test_explain_sets_each_stage_beside_what_is_usual(house: Studio, swept: Batch) -> None:
    answer = swept[3].explain()
    stages = {row["stage"]: row for row in answer.records()}
    like_it = """from jobs as other, jobs as mine select count(*) where mine.job_id = $job and other.job_id <> $job and other.status = 'done'
        and other.model = mine.model and other.sampler = mine.sampler and (other.width, other.height, other.steps, other.kind) = (256, 256, 2, 'image')
        and other.batch_size = 1"""
    assert house.sql(like_it, job=swept[3].id).fetchall() == [(stages["sample"]["n"],)]
    assert stages["sample"]["n"] >= 5
    job = swept[3].job
    assert stages["sample"]["took_s"] == pytest.approx(job.timings.sample_s)  # type: ignore[union-attr]
    assert f"Job {job.id[:8]} (done) took" in answer.question
    assert "such jobs" in answer.question
    assert answer.plot().axes
    waiting = house.image("1girl, waiting", seed=8, **SLOW)
    with pytest.raises(RequestInvalid, match="has not ended"):
        waiting.explain()
    waiting.cancel()


def test_the_code_of_a_job_makes_the_same_request_again(house: Studio, foxes: Batch) -> None:
    picture = house.upload(foxes.outputs[0])
    about: dict[str, Any] = {"image": picture, "denoise": 0.5, "loras": [Lora(name="standin", strength=0.5)], "labels": {"a": "b"}, "project": "fox"}
    request = ImageRequest(prompt='it\'s\n"a" girl', seed=2**60, **about)

    class Recorder:
        def image(self, prompt: str, **fields: Any) -> ImageRequest:
            return ImageRequest(prompt=prompt, **fields)

    made = eval(code_of(replace(foxes[0].job, request=request)), {"studio": Recorder(), "ImageRef": ImageRef, "Lora": Lora})
    assert made == request.but(image=ImageRef(sha256=picture.sha256))
    own = house.run(foxes.outputs[0].workflow())
    assert f'studio.job("{own.id[:8]}")' in own.code()
    own.wait(30)


SWEEP = """
from toolkit import Studio
axes = {"cfg": [3, 4, 5, 6, 7, 8], "sampler": ["euler", "euler_ancestral", "ddim", "dpmpp_2m"]}
batch = Studio("engine").sweep("1girl, killed", name="killed", width=256, height=256, steps=2, model="illustrious", **axes)
print("asked", flush=True)
print(batch.wait(100).sheet(rows="sampler", columns="cfg").path, flush=True)
"""


def test_a_sweep_of_24_whose_processes_are_killed_at_10_goes_on_in_the_next_kernel_and_doubles_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_ENGINE_STEP_S", "0.05")
    monkeypatch.setenv("TOOLKIT_HOME", str(home))
    with subprocess.Popen([sys.executable, "-c", SWEEP], stdout=subprocess.PIPE, text=True) as kernel:
        assert kernel.stdout is not None
        assert kernel.stdout.readline() == "asked\n"
        ledger = Ledger(home)
        deadline = time.monotonic() + 60
        while ledger.count(status="done") < 10:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for pid in (kernel.pid, *children_of(home).values()):
            os.kill(pid, signal.SIGKILL)
    done = ledger.count(status="done")
    again = subprocess.run([sys.executable, "-c", SWEEP], capture_output=True, text=True, timeout=110, check=True)
    jobs = ledger.jobs(limit=-1)
    attempts = sum(job.attempt for job in jobs)
    ledger.close()
    assert [job.status for job in jobs] == ["done"] * 24
    assert 24 <= attempts <= 26, "two prompts at most were on the engine that was killed"
    assert 10 <= done < 24
    with Image.open(again.stdout.splitlines()[-1]) as sheet:
        assert sheet.width > 6 * 256
        assert sheet.height > 4 * 256
