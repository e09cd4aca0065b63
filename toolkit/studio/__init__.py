"""The one door: Studio, the handles it gives, and the one poller that keeps them current."""

from toolkit.studio.batches import Batch
from toolkit.studio.handles import JobHandle, OutputHandle, Result
from toolkit.studio.plan import Plan
from toolkit.studio.servers import ServerStatus
from toolkit.studio.studio import Studio

__all__ = ["Batch", "JobHandle", "OutputHandle", "Plan", "Result", "ServerStatus", "Studio"]
