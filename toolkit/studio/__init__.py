"""The one door: Studio, the handles it gives, and the one poller that keeps them current."""

from toolkit.studio.handles import JobHandle, OutputHandle, Result
from toolkit.studio.servers import ServerStatus
from toolkit.studio.studio import Studio

__all__ = ["JobHandle", "OutputHandle", "Result", "ServerStatus", "Studio"]
