"""Anime pictures and clips with ComfyUI: submit, watch, keep, and ask where the time went.

The public names in the order of a job's life. Importing this loads no gradio, duckdb, ipywidgets, fastapi or pandas.
"""

from toolkit.errors import ToolkitError
from toolkit.exported import Parameter, Workflow
from toolkit.jobs import Job, OutputFile, Timings
from toolkit.progress import Progress, Range
from toolkit.requests import ImageRequest, VideoRequest, WorkflowRequest
from toolkit.studio import JobHandle, OutputHandle, Result, ServerStatus, Studio

__version__ = "0.1.0"

__all__ = [
    "ImageRequest",
    "Job",
    "JobHandle",
    "OutputFile",
    "OutputHandle",
    "Parameter",
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
]
