"""What the system before this one claimed and did not do: each failure a test, so that it cannot come back."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from tests.conftest import RECORDINGS
from toolkit import ImageRequest, Progress, Studio, VideoRequest
from toolkit.errors import RequestInvalid
from toolkit.graph import NodeCatalog, validate
from toolkit.jobs import FINAL
from toolkit.pipelines import build

SMALL = {"width": 64, "height": 64}


def test_a_submit_reaches_the_server_and_ends(studio: Studio) -> None:
    """Every submit failed; no job ever ended."""
    job = studio.image("a girl", seed=1, steps=1, **SMALL).wait(60).job
    assert job.status in FINAL
    assert job.is_done


def test_progress_is_no_constant(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress was 50 % from the first moment to the last."""
    monkeypatch.setenv("TOOLKIT_ENGINE_STEP_S", "0.06")
    with Studio("engine", home=home) as studio:
        seen: list[float] = []
        handle = studio.image("a girl", seed=2, steps=12, **SMALL)
        handle.subscribe(lambda news: seen.append(news.fraction) if isinstance(news, Progress) else None)
        handle.wait(60)
        assert len(set(seen)) > 8
        assert seen == sorted(seen)


def test_four_files_of_one_job_stay_four(studio: Studio) -> None:
    """Four files of one job became one."""
    job = studio.image("a girl", seed=3, steps=1, batch_size=4, **SMALL).wait(60).job
    assert [file.number for file in job.files] == [1, 2, 3, 4]
    assert len({file.path for file in job.files}) == 4
    assert len({file.sha256 for file in job.files}) == 4
    assert all(Path(file.path).stat().st_size == file.size_bytes for file in job.files)


@pytest.mark.parametrize("name", ["../../x", "..", "/etc", "a/b", "a\\b", "C:\\x", "CON", ".hidden", "x" * 65, "", "a\x00b", "nul.txt", "dot."])
def test_a_project_name_cannot_leave_the_output_folder(name: str) -> None:
    """`../../` in a project name wrote outside."""
    with pytest.raises(RequestInvalid):
        ImageRequest(prompt="a girl", project=name)


def test_a_linked_project_folder_is_refused(studio: Studio, tmp_path: Path) -> None:
    (studio.home / "projects").mkdir(exist_ok=True)
    (studio.home / "projects" / "linked").symlink_to(tmp_path)
    handle = studio.image("a girl", seed=4, steps=1, project="linked", **SMALL)
    with pytest.raises(Exception, match="outside"):
        handle.wait(60)
    assert list(tmp_path.iterdir()) == []


def test_the_clip_graph_validates_against_a_real_catalog() -> None:
    """The video graph could not validate on any server."""
    info = json.loads((RECORDINGS / "object_info-0.3.64.json").read_text())
    for node, name, file in (
        ("UNETLoader", "unet_name", "wan2.2_ti2v_5B_fp16.safetensors"),
        ("CLIPLoader", "clip_name", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"),
        ("VAELoader", "vae_name", "wan2.2_vae.safetensors"),
    ):
        info[node]["input"]["required"][name][0] = [file]
    catalog = NodeCatalog(info)
    built = build(VideoRequest(prompt="a girl", seconds=2), catalog)
    assert validate(built.graph, catalog) == []
    assert built.recipe["frames"] == 49


def test_ids_never_start_again(studio: Studio, shared_home: Path) -> None:
    """Ids restarted at 1 with every process."""
    first = studio.image("a girl", seed=5, steps=1, **SMALL)
    studio.close()
    with Studio("engine", home=shared_home) as again:
        second = again.image("a girl", seed=6, steps=1, **SMALL)
        assert uuid.UUID(first.id).version == uuid.UUID(second.id).version == 4
        assert first.id != second.id
        assert again.job(first.id).wait(60).job.is_done
        second.wait(60)
