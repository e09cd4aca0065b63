"""ComfyUI's newer routes below /api/jobs, as one reading of queue and history. Off unless asked for: 0.3.64 has none of them.

Written from ComfyUI's comfy_execution/jobs.py, not recorded. It must not change anything but by the queue's own ways.
"""

from __future__ import annotations

from typing import Any

from toolkit.engine.queue import Item, PromptQueue

ENDS = {"execution_success": "completed", "execution_error": "failed", "execution_interrupted": "cancelled"}


def job(queue: PromptQueue, prompt_id: str) -> dict[str, Any] | None:
    """One job whole, its outputs and workflow included; None if nobody knows it."""
    running, pending = queue.now()
    past = queue.past(prompt_id).get(prompt_id)
    if past is not None:
        return _past(prompt_id, past) | {"outputs": past["outputs"], "execution_status": past["status"], "workflow": _workflow(past["prompt"])}
    for items, status in ((running, "in_progress"), (pending, "pending")):
        for item in items:
            if item[1] == prompt_id:
                return _waiting(item, status) | {"workflow": _workflow(item)}
    return None


def jobs(queue: PromptQueue, wanted: set[str], limit: int | None, offset: int) -> dict[str, Any]:
    """A page of jobs, the newest first, none of them with outputs."""
    running, pending = queue.now()
    found = [_past(prompt_id, entry) for prompt_id, entry in queue.history().items()]
    found += [_waiting(item, "in_progress") for item in running] + [_waiting(item, "pending") for item in sorted(pending, key=lambda item: item[:2])]
    found = [entry for entry in reversed(found) if not wanted or entry["status"] in wanted]
    page = found[offset : None if limit is None else offset + limit]
    about = {"offset": offset, "limit": limit, "total": len(found), "has_more": offset + len(page) < len(found)}
    return {"jobs": page, "pagination": about}


def _waiting(item: Item, status: str) -> dict[str, Any]:
    return {"id": item[1], "status": status, "priority": item[0], "outputs_count": 0, "previewable_outputs_count": 0}


def _past(prompt_id: str, entry: dict[str, Any]) -> dict[str, Any]:
    messages = dict(entry["status"]["messages"])
    end = next((kind for kind in ENDS if kind in messages), "execution_success")
    count = sum(len(items) for node in entry["outputs"].values() for key, items in node.items() if key != "animated")
    about = {
        "id": prompt_id, "status": ENDS[end], "priority": entry["prompt"][0], "execution_error": messages.get("execution_error"),
        "execution_start_time": messages.get("execution_start", {}).get("timestamp"), "execution_end_time": messages.get(end, {}).get("timestamp"),
        "outputs_count": count, "previewable_outputs_count": count,
    }  # fmt: skip
    return {key: value for key, value in about.items() if value is not None}


def _workflow(item: Any) -> dict[str, Any]:
    return {"prompt": item[2], "extra_data": item[3]}
