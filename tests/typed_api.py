"""The public API as its users write it: never run, only checked by mypy --strict (`make check`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

from toolkit import (
    Answer,
    Batch,
    ImageRequest,
    Job,
    JobHandle,
    Log,
    ModelFile,
    OutputFile,
    OutputHandle,
    Parameter,
    Progress,
    Range,
    Result,
    ServerStatus,
    Studio,
    Timings,
    VideoRequest,
    Workflow,
    WorkflowRequest,
    request_of,
)


async def a_notebook() -> None:
    studio = Studio("engine", home=Path("home"), project="fox", labels={"day": "one"})
    picture = studio.image("silver-haired girl under cherry trees", seed=7, width=832, height=1216)
    assert_type(picture, JobHandle)
    result = await picture
    assert_type(result, Result)
    assert_type(result.files, Sequence[OutputHandle])
    assert_type(result.files[0].path, str)
    assert_type(result.files[0].file, OutputFile)
    clip = studio.video("she turns and smiles", seconds=3.0, priority="now", reuse=False)
    assert_type(clip.wait(timeout_s=60), Result)
    assert_type(clip.updates(), AsyncIterator[Job | Progress])
    assert_type(clip.subscribe(lambda news: None), Callable[[], None])
    assert_type(clip.cancel(), Job)
    assert_type(clip.retry(), JobHandle)
    assert_type(studio.submit(request_of("fox.png")), JobHandle)
    assert_type(studio.job(), JobHandle)
    assert_type(studio.job("3f2a"), JobHandle)
    assert_type(studio.jobs(status="done", project="fox", since=timedelta(days=1), limit=5), Sequence[JobHandle])
    assert_type(studio.servers(), Sequence[ServerStatus])
    assert_type(studio.queue(), Sequence[Job])
    studio.sql("from jobs where seed = $seed", seed=7)
    assert_type(studio.export("log.duckdb"), str)
    assert_type(studio.probe("after"), Answer)
    assert_type(studio.import_folder("older").skipped, tuple[tuple[str, str], ...])
    assert_type(Log("log.duckdb").ask("people", since="7d"), Answer)
    answer = studio.ask("upgrade", model="illustrious", since=timedelta(days=30), simulated=True)
    assert_type(answer, Answer)
    assert_type((answer.question, answer.sql), tuple[str, str])
    answer.plot().savefig("upgrade.png")
    answer.df()
    studio.close()


def values(job: Job, progress: Progress) -> None:
    assert_type(job.id, str)
    assert_type(job.status, str)
    assert_type(job.seed, int)
    assert_type(job.server_url, str | None)
    assert_type(job.simulated, bool)
    assert_type(job.timings, Timings | None)
    assert_type(job.files, Sequence[OutputFile])
    assert_type(job.warnings, Sequence[str])
    assert_type(job.error, str | None)
    assert_type(progress.fraction, float)
    assert_type(progress.step, int | None)
    assert_type(progress.ends_in, Range | None)
    assert_type(progress.ahead, int | None)


def requests() -> None:
    request = ImageRequest(prompt="a girl", negative_prompt=None, preset="draft", aspect="portrait", cfg=5.5, sampler="euler", batch_size=2, labels={"a": "b"})
    assert_type(request.but(seed=8), ImageRequest)
    VideoRequest(prompt="a girl", frames=33, fps=16, width=832, height=480)
    own = Workflow.load("graph.json").set(seed=7, prompt="a girl")
    assert_type(own, Workflow)
    assert_type(own.parameters, Mapping[str, Parameter])
    assert_type(own.notes, Sequence[str])
    assert_type([str(fault) for fault in own.faults], list[str])
    WorkflowRequest(workflow=own.api())
    with Studio() as studio:
        assert_type(studio.submit(request, priority="background", reuse=True), JobHandle)
        assert_type(studio.run(own, steps=20), JobHandle)
        assert_type(studio.workflow("friend.png"), Workflow)
        assert_type(studio.plan(request).warnings, Sequence[str])
        assert_type(studio.missing("video"), Sequence[ModelFile])
        assert_type(studio.keyframes("a girl", 4).animate(1, 3, seconds=2), Batch)
        anything: Any = studio.run({"1": {"class_type": "EmptyImage", "inputs": {}}}).progress
        assert_type(anything, Any)
