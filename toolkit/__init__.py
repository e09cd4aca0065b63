"""Anime pictures and clips with ComfyUI: submit, watch, keep, and ask where the time went.

The public names in the order of a job's life, each loaded when it is first asked for: a feeder or an engine that starts needs few of them.
Importing this loads no gradio, duckdb, ipywidgets, fastapi, pandas or matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.analysis import Answer, Log
    from toolkit.errors import ToolkitError
    from toolkit.exported import Parameter, Workflow
    from toolkit.jobs import Job, OutputFile, Timings
    from toolkit.pipelines.families import ModelFile
    from toolkit.progress import Progress, Range
    from toolkit.requests import ImageRef, ImageRequest, Lora, VideoRequest, WorkflowRequest, request_of
    from toolkit.studio import Batch, JobHandle, OutputHandle, Plan, Result, ServerStatus, Studio

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Batch",
    "ImageRef",
    "ImageRequest",
    "Job",
    "JobHandle",
    "Log",
    "Lora",
    "ModelFile",
    "OutputFile",
    "OutputHandle",
    "Parameter",
    "Plan",
    "Progress",
    "Range",
    "Result",
    "ServerStatus",
    "Studio",
    "Timings",
    "ToolkitError",
    "VideoRequest",
    "Workflow",
    "WorkflowRequest",
    "request_of",
]

_ROOMS = {
    "analysis": "Answer Log",
    "errors": "ToolkitError",
    "exported": "Parameter Workflow",
    "jobs": "Job OutputFile Timings",
    "progress": "Progress Range",
    "pipelines.families": "ModelFile",
    "requests": "ImageRef ImageRequest Lora VideoRequest WorkflowRequest request_of",
    "studio": "Batch JobHandle OutputHandle Plan Result ServerStatus Studio",
}


def __getattr__(name: str) -> Any:
    room = next((room for room, names in _ROOMS.items() if name in names.split()), None)
    if room is None:
        raise AttributeError(f"module 'toolkit' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(f"toolkit.{room}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
