"""What programs may ask of the page through gradio's own client: a picture, a clip; each call waits for its file.

Owns how an ended job becomes gradio's answer. Holds no rule: a request is checked where it is made, as on the page.
"""

from __future__ import annotations

import gradio as gr

from toolkit.errors import ToolkitError
from toolkit.requests import ImageRequest, Request, VideoRequest
from toolkit.studio import Studio
from toolkit.ui.events import visitor_of


def program_calls(studio: Studio) -> None:
    """Add `/image` and `/video` to the page that is being built."""

    async def image(request: gr.Request, prompt: str, seed: int | None = None, preset: str = "standard") -> gr.FileData:
        """Make a picture and return its file."""
        return await made(request, ImageRequest, {"prompt": prompt, "seed": seed, "preset": preset})

    async def video(request: gr.Request, prompt: str, seed: int | None = None, preset: str = "standard", frames: int | None = None) -> gr.FileData:
        """Make a clip and return its file."""
        return await made(request, VideoRequest, {"prompt": prompt, "seed": seed, "preset": preset, "frames": frames})

    async def made(request: gr.Request, kind: type[Request], fields: dict[str, object]) -> gr.FileData:
        try:
            result = await studio.submit(kind(**fields), origin="page", person=visitor_of(request).person)
        except ToolkitError as error:
            raise gr.Error(str(error), print_exception=False) from error
        file = result.files[0].file
        return gr.FileData(path=file.path, orig_name=file.name.rsplit("/", 1)[-1], mime_type=file.media_type, size=file.size_bytes)

    for call in (image, video):
        gr.events.api(call, api_name=call.__name__, concurrency_limit=None)
