"""importing: a folder of older files as jobs, each once, nothing run, and what cannot be taken in named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conftest import RECORDINGS
from tests.test_metadata import png, text
from tests.test_observing import graph as sampled
from toolkit import ImageRequest, Studio
from toolkit.cli import app
from toolkit.errors import RequestInvalid
from toolkit.ledger import backup
from toolkit.studio import importing

FILES = RECORDINGS / "files-0.3.64"
WRITTEN = datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()
GRAPH = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "XL\\old_model.safetensors"}}}


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """What real nodes of ComfyUI wrote, in folders as people have them; a copy, files of other programs, one that is broken."""
    folder = tmp_path / "older"
    shutil.copytree(FILES, folder / "2024")
    (folder / "again").mkdir()
    shutil.copy(FILES / "SaveImage.png", folder / "again" / "copy.png")
    (folder / "a1111.png").write_bytes(png(text("parameters", "a fox\nSteps: 20, Sampler: Euler a")))
    (folder / "drawn.png").write_bytes(png(text("workflow", '{"nodes": []}')))
    (folder / "painted.PNG").write_bytes(png())
    (folder / "broken.png").write_bytes(png(text("prompt", json.dumps(GRAPH)))[:-40])
    (folder / "notes.txt").write_text("not a picture")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    for path in folder.rglob("*"):
        if path.exists():
            os.utime(path, (WRITTEN, WRITTEN))
    return folder


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio("engine", home=tmp_path / "home") as studio:
        yield studio


def taken(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "2024").iterdir() if path.suffix in (".png", ".webp", ".webm", ".mp4"))


def test_every_file_with_a_graph_is_a_done_job_of_the_time_it_was_written(studio: Studio, older: Path) -> None:
    found = studio.import_folder(older)
    assert found.added == len(taken(older)) >= 5
    assert found.known == 1, "a copy in another folder"
    rows = studio.sql(
        "from jobs select distinct origin, person, status, created_at, ended_at, run_s, total_s, timed_by, server_url, attempts, kind, project"
    ).fetchall()
    written = datetime.fromtimestamp(WRITTEN, UTC)
    assert rows == [("imported", None, "done", written, written, None, None, None, None, 1, "workflow", "imported")]
    assert studio.sql("from attempts").shape[0] == 0
    kinds = dict(studio.sql("from outputs select kind, count(*) group by all").fetchall())
    assert kinds["image"] >= 2
    assert kinds["video"] >= 2


def test_the_recipe_is_read_from_the_graph_and_the_size_from_the_file(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(text("prompt", json.dumps(sampled(seed=9))), width=48, height=32))
    studio.import_folder(tmp_path / "a.png")
    rows = studio.sql("from jobs select model, sampler, scheduler, steps, cfg, seed, prompt, width, height, frames, simulated").fetchall()
    assert rows == [("standin_animagine", "euler", "karras", 3, 4.5, 9, "a fox", 48, 32, 1, False)]


def test_files_have_a_second_name_in_the_home_and_a_sidecar_and_stay_where_they_were(studio: Studio, older: Path) -> None:
    before = {path: path.read_bytes() for path in older.rglob("*.*") if path.is_file()}
    studio.import_folder(older, project="old times")
    assert {path: path.read_bytes() for path in older.rglob("*.*") if path.is_file()} == before
    for handle in studio.jobs(limit=50):
        (file,) = handle.job.files
        path = Path(file.path)
        assert file.name.startswith("old times/2024-05-01/")
        assert path.stat().st_nlink == 2, "no second copy on one disk"
        assert json.loads(path.with_suffix(".json").read_text())["job_id"] == handle.id
    assert studio.sql("from outputs where disk <> 'present' or blank is null and kind = 'image' and frames = 1").shape[0] == 0


def test_another_disk_gets_a_copy(studio: Studio, older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, older_file = os.link, str(older)

    def other_disk(source: Any, target: Any) -> None:
        if str(source).startswith(older_file):
            raise OSError(18, "Invalid cross-device link")
        link(source, target)

    monkeypatch.setattr(os, "link", other_disk)
    studio.import_folder(older)
    path = Path(studio.jobs()[0].job.files[0].path)
    assert path.stat().st_nlink == 1
    assert path.stat().st_mtime == WRITTEN


def test_what_tells_of_no_graph_is_counted_and_named_with_its_reason(studio: Studio, older: Path) -> None:
    found = studio.import_folder(older)
    reasons = dict(found.skipped)
    assert set(reasons) == {"a1111.png", "drawn.png", "painted.PNG", "broken.png", "gone.png"}
    assert "no graph that ran" in reasons["a1111.png"]
    assert "page drew" in reasons["drawn.png"]
    assert "no workflow stored" in reasons["painted.PNG"]
    assert "5 tell of no graph: a1111.png" in str(found)
    assert list(studio.home.rglob("*.part")) == []


def test_the_same_folder_again_adds_nothing_also_after_a_job_was_deleted(studio: Studio, older: Path) -> None:
    first = studio.import_folder(older)
    revision = studio._ledger.revision()
    again = studio.import_folder(older)
    assert (again.added, again.known) == (0, first.added + 1)
    assert studio._ledger.revision() == revision
    job = studio.jobs()[0].job
    studio._ledger.forget([job.id])
    Path(job.files[0].path).unlink()
    assert studio.import_folder(older).added == 0
    assert studio.sql("select count(*), count(distinct job_id) from outputs").fetchall() == [(first.added - 1,) * 2]


def test_an_import_that_was_killed_between_file_and_row_is_gone_on_with(studio: Studio, older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(importing, "AT_ONCE", 2)
        chronicle = studio._ledger.chronicle
        calls = iter(range(9))

        def killed(*found: Any) -> list[str]:
            if next(calls) == 1:
                raise KeyboardInterrupt
            return chronicle(*found)

        patch.setattr(studio._ledger, "chronicle", killed)
        with pytest.raises(KeyboardInterrupt):
            studio.import_folder(older)
    found = studio.import_folder(older)
    assert found.added == len(taken(older)) - 2
    assert studio.sql("select count(*) from outputs").fetchall() == [(len(taken(older)),)]


def test_our_own_files_come_with_their_request_and_what_is_here_already_stays_one(home: Path, tmp_path: Path) -> None:
    with Studio("engine", home=home) as studio:
        made = studio.image("a fox", seed=7, width=64, height=64, steps=2, labels={"a": "b"}).wait(60)
        folder = Path(made.files[0].path).parent
        assert studio.import_folder(folder).known == 1
    with Studio("engine", home=tmp_path / "other") as other:
        assert other.import_folder(folder).added == 1
        job = other.jobs()[0].job
        assert isinstance(job.request, ImageRequest)
        assert (job.request.seed, job.request.labels, job.project, job.simulated) == (7, {"a": "b"}, "imported", True)
        assert other.job(job.id).wait().files[0].path.endswith(".png")


def test_an_imported_job_is_not_the_latest_and_can_be_made_again(home: Path, older: Path) -> None:
    with Studio("engine", home=home) as studio:
        asked = studio.image("a fox", width=64, height=64, steps=2)
        (older / "one").mkdir()
        (older / "one" / "a.png").write_bytes(png(text("prompt", json.dumps(graph()))))
        assert studio.import_folder(older / "one" / "a.png").added == 1
        assert studio.job().id == asked.id
        old = next(handle for handle in studio.jobs() if handle.job.origin == "imported")
        again = old.retry()
        assert again.id != old.id
        assert again.wait(60).files
        assert again.job.person == "owner"


def graph() -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 5}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }


def test_a_long_folder_tells_how_far_it_is(studio: Studio, older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "SAY_EVERY_S", 0.0)
    told: list[str] = []
    studio.import_folder(older, tell=told.append)
    assert told[-1] == f"files: {len(told)} of {len(told)}, {len(taken(older))} taken in"


def test_no_folder_and_no_project_are_refused_before_anything_is_read(studio: Studio, older: Path) -> None:
    with pytest.raises(RequestInvalid, match="is not there"):
        studio.import_folder(older / "nowhere")
    with pytest.raises(RequestInvalid, match="cannot be a project"):
        studio.import_folder(older, project="../up")
    assert studio.jobs() == []


def test_the_command_names_what_it_left_out(older: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["log", "import", str(older)], env={"TOOLKIT_HOME": str(tmp_path / "home")}, prog_name="toolkit")
    assert done.exit_code == 0, done.stderr
    assert "files are jobs now, 1 were known. 5 tell of no graph" in done.stdout
    assert "painted.PNG: no workflow stored in this image." in done.stderr
    again = CliRunner().invoke(app, ["log", "import", str(older), "--json"], env={"TOOLKIT_HOME": str(tmp_path / "home")}, prog_name="toolkit")
    assert json.loads(again.stdout)["added"] == 0
