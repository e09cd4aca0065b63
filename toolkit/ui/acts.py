"""What one does with a job and its files by a press, wherever they are shown: keep, reject, bin, clip, enlarge, again, why, cancel.

Owns the words that buttons may say, and that each is checked here: a press comes from a browser, and a browser can say anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.errors import OutputError, ToolkitError
from toolkit.jobs import Job
from toolkit.requests import ImageRequest, Request, VideoRequest
from toolkit.studio import JobHandle, OutputHandle, Studio
from toolkit.ui.form import clip_fields
from toolkit.visitors import Visitor


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a press came to: another job to show, a request to fill the form with, a sentence, or why not."""

    job_id: str | None = None
    request: Request | None = None
    said: str = ""
    error: ToolkitError | None = None


class Acts:
    """Presses on jobs and files."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._known: Mapping[str, Callable[[JobHandle, Mapping[str, str], Mapping[str, Any], Visitor], Outcome]] = {
            "show": lambda handle, *_: Outcome(handle.id),
            "with": lambda handle, *_: Outcome(request=handle.job.request),
            "again": self._again,
            "explain": lambda handle, *_: Outcome(said=handle.explain().question),
            "cancel": self._cancel,
            "keep": self._judge, "reject": self._judge, "unrate": self._judge, "trash": self._trash, "restore": self._trash,
            "animate": self._animate, "upscale": self._upscale,
        }  # fmt: skip

    def press(self, press: Mapping[str, str], values: Mapping[str, Any], visitor: Visitor) -> Outcome:
        """Do what a button says, `values` being the form's; what no button says does nothing."""
        act = self._known.get(press.get("act", ""))
        if act is None:
            return Outcome()
        try:
            return act(self.handle(press.get("job"), visitor), press, values, visitor)
        except ToolkitError as error:
            return Outcome(error=error)

    def handle(self, job_id: Any, visitor: Visitor) -> JobHandle:
        """The job of this id, if the visitor may see it; whatever is no text names no job.

        Raises:
            JobUnknown: there is none.
        """
        return self._studio.job(job_id if isinstance(job_id, str) and job_id else "none", person=visitor.only)

    def _again(self, handle: JobHandle, press: Mapping[str, str], values: Mapping[str, Any], visitor: Visitor) -> Outcome:
        request = handle.job.request
        fresh = request.but(seed=None) if isinstance(request, ImageRequest | VideoRequest) else request
        return self._made(fresh, visitor, reuse=False)

    def _cancel(self, handle: JobHandle, *_: Any) -> Outcome:
        handle.cancel()
        return Outcome()

    def _judge(self, handle: JobHandle, press: Mapping[str, str], values: Mapping[str, Any], visitor: Visitor) -> Outcome:
        verdict = {"keep": "keep", "reject": "reject"}.get(press["act"])
        self._studio._judge([self._output(handle, press)], verdict, person=visitor.person)  # type: ignore[arg-type]
        return Outcome()

    def _trash(self, handle: JobHandle, press: Mapping[str, str], *_: Any) -> Outcome:
        output = self._output(handle, press)
        output.trash() if press["act"] == "trash" else output.restore()
        return Outcome()

    def _animate(self, handle: JobHandle, press: Mapping[str, str], values: Mapping[str, Any], visitor: Visitor) -> Outcome:
        return self._begun(VideoRequest, handle.job, self._output(handle, press), clip_fields(values), visitor)

    def _upscale(self, handle: JobHandle, press: Mapping[str, str], values: Mapping[str, Any], visitor: Visitor) -> Outcome:
        return self._begun(ImageRequest, handle.job, self._output(handle, press), {"upscale": 2.0}, visitor)

    def _begun(self, kind: type[ImageRequest | VideoRequest], job: Job, output: OutputHandle, fields: Mapping[str, Any], visitor: Visitor) -> Outcome:
        return self._made(self._studio._orders.begun_with(kind, output, job, fields), visitor)

    def _made(self, request: Request, visitor: Visitor, reuse: bool | None = None) -> Outcome:
        return Outcome(self._studio.submit(request, origin="page", person=visitor.person, reuse=reuse).id)

    def _output(self, handle: JobHandle, press: Mapping[str, str]) -> OutputHandle:
        found = next((file for file in handle.job.files if str(file.number) == press.get("number")), None)
        if found is None:
            raise OutputError("There is no such file.", path="")
        return OutputHandle(found, handle.id, self._studio)
