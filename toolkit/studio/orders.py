"""Requests in the making: what a user hands in as a picture, and an earlier request with some of it changed.

Owns how a path, bytes, a PIL.Image or one of our own outputs becomes a reference to a kept picture. Knows the home's inputs and jobs, no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import path
from typing import Any, TypeVar

from toolkit.errors import RequestInvalid
from toolkit.exported import Workflow
from toolkit.inputs import InputStore
from toolkit.jobs import Job, OutputFile
from toolkit.ledger import Ledger
from toolkit.requests import ImageRef, Request, WorkflowRequest
from toolkit.studio.handles import OutputHandle
from toolkit.thumbnails import open_image

Made = TypeVar("Made", bound=Request)
PICTURES = ("image", "mask", "last_image")


class Orders:
    """Turns what users hand in into requests."""

    def __init__(self, inputs: InputStore, ledger: Ledger) -> None:
        self._inputs, self._ledger = inputs, ledger

    def picture(self, source: Any, person: str | None = None) -> ImageRef:
        """The kept picture of any source: a path, bytes, a PIL.Image, an output, a reference, or its JSON; outputs of jobs of `person` only.

        Raises:
            RequestInvalid: it is none, too large, or not there.
        """
        match source:
            case ImageRef():
                return self._inputs.find(source.sha256)
            case OutputHandle():
                return self._of_file(source.file)
            case {"sha256": str(sha256)}:
                return self._inputs.find(sha256)
            case {"job_id": str(job_id)}:
                return self._of_job(self._ledger.job(job_id, person), source.get("number", 1))
            case Mapping():
                raise RequestInvalid("A picture is {sha256} or {job_id, number}.", field="image")
            case _:
                return self._inputs.keep(source)

    def _of_job(self, job: Job, number: Any) -> ImageRef:
        file = next((file for file in job.files if file.number == number), None)
        if file is None:
            raise RequestInvalid(f"Job {job.id[:8]} has no file {number}.", field="image", hint=f"It has {len(job.files)}.")
        return self._of_file(file)

    def _of_file(self, file: OutputFile) -> ImageRef:
        """A picture as it is; the first frame of a clip."""
        return self._inputs.keep(file.path if file.kind == "image" else open_image(file.path, file.kind))

    def with_pictures(self, fields: Mapping[str, Any], person: str | None = None) -> dict[str, Any]:
        """The fields with every picture kept and referred to."""
        return {name: self.picture(value, person) if name in PICTURES and value is not None else value for name, value in fields.items()}

    def with_references(self, fields: Mapping[str, Any], person: str | None = None) -> dict[str, Any]:
        """The same for fields from elsewhere, where a picture may only be referred to: a text must not become a file of this machine."""
        wrong = next((name for name in PICTURES if not isinstance(fields.get(name), Mapping | None)), None)
        if wrong is not None:
            raise RequestInvalid(f"`{wrong}` must be {{sha256}} of an upload or {{job_id, number}} of an output.", field=wrong)
        return self.with_pictures(fields, person)

    def with_sizes(self, request: Request) -> Request:
        """A request whose pictures are known to be there, with their sizes, since graphs are built for those."""
        found = {name: self._inputs.find(ref.sha256) for name in PICTURES if isinstance(ref := getattr(request, name, None), ImageRef)}
        return request.but(**found) if any(getattr(request, name) != ref for name, ref in found.items()) else request

    def begun_with(self, kind: type[Made], output: OutputHandle, job: Job, fields: Mapping[str, Any]) -> Made:
        """A request that begins with a file of a job, in its project, with its words unless others are given."""
        words = {"prompt": getattr(job.request, "prompt", None) or job.prompt or "a picture", "project": job.project, "labels": job.request.labels}
        said = {name: value for name, value in fields.items() if value is not None}
        return kind(**self.with_pictures({**words, "image": output, **said}))

    def changed(self, request: Request, changes: Mapping[str, Any]) -> Request:
        """The request with some fields changed; of a workflow also its parameters, of which some may be pictures."""
        changes = self.with_pictures(changes)
        if not isinstance(request, WorkflowRequest):
            return request.but(**changes)
        own = {name: value for name, value in changes.items() if name in WorkflowRequest.model_fields}
        parameters = self.parameters({name: value for name, value in changes.items() if name not in own})
        return request.but(**{**own, "workflow": Workflow.load(request.workflow).set(**parameters).api()} if parameters else own)

    def parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values for a workflow's parameters: a picture becomes the name that a server will know it by; a text stays one."""
        kept = {name: value if isinstance(value, str) or not _may_be_picture(name, value) else self.picture(value) for name, value in values.items()}
        return {name: value.server_name if isinstance(value, ImageRef) else value for name, value in kept.items()}

    def named_pictures(self, workflow: Workflow, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values where those for a loader's picture may be {sha256} or {job_id, number}: what REST can say."""
        loads = {name for name, parameter in workflow.parameters.items() if parameter.input == "image"}
        return {name: self.picture(value) if name in loads and isinstance(value, Mapping) else value for name, value in values.items()}

    def own_pictures(self, workflow: Workflow, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same for a workflow file, where a text that is a file on this machine is a picture too, if a loader is to get it."""
        if not values:
            return {}
        loads = {name for name, parameter in workflow.parameters.items() if parameter.input == "image" and isinstance(parameter.value, str)}
        seen = {name: self.picture(value) if name in loads and isinstance(value, str) and path.isfile(value) else value for name, value in values.items()}
        return self.parameters(seen)


def _may_be_picture(name: str, value: Any) -> bool:
    return isinstance(value, (ImageRef, OutputHandle, bytes)) or hasattr(value, "__fspath__") or hasattr(value, "getbands")
