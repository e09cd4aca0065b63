"""From a request to the graph of a model family: `build(request, catalog, folder)`, pure.

choosing.py decides family and files by written rules, families.py and graphs/ are the families as data, rewriting.py changes their graphs,
texts.py, sizes.py and filling.py put a request's words and numbers in; image.py, video.py and own.py join them. Knows no server, only its catalog.
"""

from __future__ import annotations

from toolkit.graph import NodeCatalog
from toolkit.pipelines.built import Built, refuse
from toolkit.pipelines.image import build_image
from toolkit.pipelines.own import as_asked, build_workflow
from toolkit.pipelines.video import build_video
from toolkit.prompts import Wildcards
from toolkit.requests import ImageRequest, Request, VideoRequest, WorkflowRequest

__all__ = ["Built", "as_asked", "build"]


def build(request: Request, catalog: NodeCatalog, folder: str = "toolkit", wildcards: Wildcards = lambda name: None) -> Built:
    """The graph of a request on a server with this catalog.

    Args:
        request: what the user asked for.
        catalog: the server's /object_info.
        folder: where on the server the files go, below its output folder: a folder of this job alone keeps saves fast and names apart.
        wildcards: the lines of a named list, for `__name__` in prompts.

    Returns:
        The graph, its recipe for the log, and warnings about what was rounded.

    Raises:
        WorkflowInvalid: with everything the server would refuse; ModelUnknown, NodeUnknown when that is what is missing.
    """
    match request:
        case ImageRequest():
            built = build_image(request, catalog, folder, wildcards)
        case VideoRequest():
            built = build_video(request, catalog, folder, wildcards)
        case WorkflowRequest():
            refuse(request.workflow, catalog)  # before it is walked for its roles: it may be anything
            return build_workflow(request, catalog, folder)
        case _:
            raise TypeError(f"no pipeline for {type(request).__name__}")
    refuse(built.graph, catalog)
    return built
