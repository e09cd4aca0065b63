"""From a request to the graph of a model family: `build(request, catalog, folder)`, pure.

Owns which family a request runs with and which files it takes from what the server has. Knows no server, only its catalog.
"""

from __future__ import annotations

from toolkit.graph import NodeCatalog
from toolkit.pipelines.families import Built, refuse
from toolkit.pipelines.image import build_image
from toolkit.pipelines.own import build_workflow
from toolkit.pipelines.video import build_video
from toolkit.requests import ImageRequest, Request, VideoRequest, WorkflowRequest

__all__ = ["Built", "build"]


def build(request: Request, catalog: NodeCatalog, folder: str = "toolkit") -> Built:
    """The graph of a request on a server with this catalog.

    Args:
        request: what the user asked for.
        catalog: the server's /object_info.
        folder: where on the server the files go, below its output folder: a folder of this job alone keeps saves fast and names apart.

    Returns:
        The graph, its recipe for the log, and warnings about what was rounded.

    Raises:
        WorkflowInvalid: with everything the server would refuse; ModelUnknown, NodeUnknown when that is what is missing.
    """
    match request:
        case ImageRequest():
            built = build_image(request, catalog, folder)
        case VideoRequest():
            built = build_video(request, catalog, folder)
        case WorkflowRequest():
            refuse(request.workflow, catalog)  # before it is walked for its roles: it may be anything
            return build_workflow(request, folder)
        case _:
            raise TypeError(f"no pipeline for {type(request).__name__}")
    refuse(built.graph, catalog)
    return built
