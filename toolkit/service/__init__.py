"""REST: the paths below /api, in terms of a studio; the only importer of fastapi."""

from toolkit.service.service import build_service

__all__ = ["build_service"]
