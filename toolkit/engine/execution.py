"""The worker: one thread that runs one prompt after another, node by node, and tells of it in ComfyUI's words and order.

Owns the running of a prompt, its events, its time and the loaded models. It must not know HTTP or sockets: news go to an
`Outbox`. A thread of its own, as in ComfyUI, so that HTTP answers while a picture is made. Every order of events here is
recorded in tests/recordings.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from toolkit.engine import files
from toolkit.engine.cache import Agenda, NodeCache, Result, link
from toolkit.engine.catalog import catalog
from toolkit.engine.nodes import FUNCTIONS
from toolkit.engine.queue import Item, PromptQueue
from toolkit.engine.values import Made, Pixels

log = logging.getLogger(__name__)

PREVIEW = 1
PREVIEW_WITH_METADATA = 4
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Options:
    """How the engine behaves. Times in seconds."""

    step_s: float = 0.1
    """One sampling step of a picture, drawing and preview included; 0 is as fast as it goes."""
    noise: float = 0.0
    """Relative jitter of step times, 0..1."""
    load_s: float = 0.2
    """Loading one model file."""
    previews: bool = True
    idle_s: float = 60.0
    """The process ends this long after its last socket, job and request; 0 is never."""
    seed: int = 0
    """Of the jitter."""
    jobs_api: bool = False
    """Whether the newer /api/jobs is there."""


class Outbox(Protocol):
    """Where news go: to one client, or with None to every socket."""

    def post(self, event: str, data: dict[str, Any], client: str | None) -> None:
        """Send a JSON message."""

    def post_bytes(self, event: int, data: bytes, client: str | None) -> None:
        """Send a binary message."""

    def listens(self, client: str | None) -> bool:
        """Say whether anybody would get it."""

    def wants_metadata(self, client: str | None) -> bool:
        """Say whether this client asked for previews of type 4."""


class Interrupted(Exception):
    """POST /interrupt reached the running prompt."""


class Stopped(Exception):
    """The engine ends; clients are told nothing, as when a server dies."""


@dataclass(slots=True)
class Attention:
    """What the worker is at; the socket handler reads it to greet a client that comes back."""

    client: str | None = None
    node: str | None = None


class Worker:
    """The thread that runs prompts."""

    def __init__(self, queue: PromptQueue, outbox: Outbox, folders: Mapping[str, Path], journal: Journal, options: Options) -> None:
        self.queue, self.outbox, self.folders, self.options = queue, outbox, folders, options
        self.attention = Attention()
        self.cache = NodeCache()
        self.letters: dict[tuple[str, str], str] = {}
        self._loaded: dict[str, str] = {}
        self._journal = journal
        self._jitter = random.Random(options.seed)
        self._interrupt = threading.Event()
        self._thread = threading.Thread(target=self._work, name="engine worker", daemon=True)

    def start(self) -> None:
        """Begin to take prompts."""
        self._thread.start()

    def stop(self) -> None:
        """Give up the running prompt, silently, and end; blocks until the node at work comes to a stop."""
        self.queue.close()
        self._interrupt.set()
        self._thread.join()

    def interrupt(self) -> None:
        """Interrupt what runs; on an idle worker it has no effect."""
        self._interrupt.set()

    def go_on(self) -> None:
        """Go on, unless the engine ends.

        Raises:
            Stopped: it ends.
        """
        if self.queue.closed():
            raise Stopped

    def check(self) -> None:
        """Go on, unless asked to stop.

        Raises:
            Interrupted: by POST /interrupt.
            Stopped: by the end of the engine.
        """
        self.go_on()
        if self._interrupt.is_set():
            self._interrupt.clear()
            raise Interrupted

    def spend(self, seconds: float) -> None:
        """Let time pass; an interrupt ends it early."""
        if seconds > 0:
            self._interrupt.wait(seconds)

    def step_time(self, weight: float) -> float:
        """Say how long this step shall take, in seconds."""
        return self.options.step_s * weight * (1 + self.options.noise * self._jitter.uniform(-1, 1))

    def load(self, kind: str, name: str) -> None:
        """Load a model file; one of each kind stays loaded."""
        if self._loaded.get(kind) != name:
            self.spend(self.options.load_s)
            self._loaded[kind] = name

    def _work(self) -> None:
        while not self.queue.closed():
            try:
                item = self.queue.take()
            except TypeError:  # two waiting prompts with one number and id: this kills ComfyUI's worker for good (recorded m0)
                log.error("the worker died: two waiting prompts have the same number and id")
                return
            if item:
                self._run(item)
            self._free(self.queue.flags())

    def _free(self, flags: set[str]) -> None:
        if flags:
            self._loaded.clear()
        if "free_memory" in flags:
            self.cache.clear()
            self.letters.clear()

    def _run(self, item: Item) -> None:
        prompt_id = item[1]
        self._interrupt.clear()
        self.attention.client = item[3].get("client_id")
        self._journal.note("start", prompt_id, "running")
        run = Run(self, item)
        try:
            status = run.run()
        except Stopped:
            self._journal.note("end", prompt_id, "stopped")
            return
        finally:
            self.attention.node = None
        self._journal.note("end", prompt_id, status)
        self.queue.done(item, self.cache.history(), run.status(status == "success"))
        if self.attention.client is not None:
            self.outbox.post("executing", {"node": None, "prompt_id": prompt_id}, self.attention.client)


class Run:
    """One prompt on its way through its nodes."""

    def __init__(self, worker: Worker, item: Item) -> None:
        _, self.prompt_id, self.graph, self.extra, self.outputs = item
        self.worker = worker
        self.client: str | None = worker.attention.client
        self.executed: list[str] = []
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.progress: dict[str, dict[str, Any]] = {}

    def run(self) -> str:
        """Run every node that is due and say how it ended: success, error or interrupted.

        Raises:
            Stopped: the engine ends.
        """
        self._note("execution_start", {"prompt_id": self.prompt_id})
        cached = self.worker.cache.enter(self.graph)
        self._keep_letters()
        self._note("execution_cached", {"nodes": cached, "prompt_id": self.prompt_id})
        agenda = Agenda(self.graph, self.outputs, lambda node_id: self.worker.cache.get(node_id) is not None)
        while (node_id := agenda.next()) is not None:
            status = self._node(node_id)
            if status != "success":
                return status
            agenda.done(node_id)
        self._note("execution_success", {"prompt_id": self.prompt_id})
        return "success"

    def status(self, success: bool) -> dict[str, Any]:
        """Give the `status` of history: how it ended, with every message that says so."""
        return {"status_str": "success" if success else "error", "completed": success, "messages": self.messages}

    def tell(self, event: str, data: dict[str, Any]) -> None:
        """Send what only the job's own client gets: nobody, if the job has none."""
        if self.client is not None:
            self.worker.outbox.post(event, data, self.client)

    def report(self, node_id: str, **changes: Any) -> None:
        """Send progress_state; without a client every socket gets it."""
        fresh = {"value": 0, "max": 1, "state": "pending", "node_id": node_id, "prompt_id": self.prompt_id}
        fresh |= {"display_node_id": node_id, "parent_node_id": None, "real_node_id": node_id}
        self.progress = self.progress | {node_id: self.progress.get(node_id, fresh) | changes}
        self.worker.outbox.post("progress_state", {"prompt_id": self.prompt_id, "nodes": self.progress}, self.client)

    def _note(self, event: str, data: dict[str, Any], broadcast: bool = False) -> None:
        data = data | {"timestamp": int(time.time() * 1000)}
        self.messages.append((event, data))
        if broadcast:
            self.worker.outbox.post(event, data, self.client)
        else:
            self.tell(event, data)

    def _keep_letters(self) -> None:
        """A node keeps its five letters as long as each prompt has it (same id, same class)."""
        present = {(node_id, node["class_type"]) for node_id, node in self.graph.items()}
        self.worker.letters = {node: letters for node, letters in self.worker.letters.items() if node in present}

    def _finish(self, node_id: str) -> None:
        entry = self.progress.get(node_id, {"max": 1})
        self.report(node_id, state="finished", value=entry["max"])

    def _node(self, node_id: str) -> str:
        if known := self.worker.cache.get(node_id):
            told = {"node": node_id, "display_node": node_id, "output": known.made.told, "prompt_id": self.prompt_id}
            self.tell("executed", told)
            self._finish(node_id)
            return "success"
        self.worker.attention.node = node_id
        self.report(node_id, state="running", value=0.0, max=1.0)
        self.tell("executing", {"node": node_id, "display_node": node_id, "prompt_id": self.prompt_id})
        return self._execute(node_id)

    def _execute(self, node_id: str) -> str:
        inputs = self._inputs(node_id)
        try:
            self.worker.check()
            made = FUNCTIONS[self.graph[node_id]["class_type"]](NodeStage(self, node_id), **inputs)
        except Stopped:
            raise
        except Interrupted:
            self._note("execution_interrupted", self._where(node_id), broadcast=True)
            return "interrupted"
        except Exception as error:  # a node may raise anything; clients get it as execution_error
            self._note("execution_error", self._where(node_id) | self._error(error, inputs))
            return "error"
        self._keep(node_id, made)
        self._finish(node_id)
        return "success"

    def _keep(self, node_id: str, made: Made) -> None:
        meta = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
        self.worker.cache.put(node_id, Result(made, meta))
        self.executed.append(node_id)
        if made.told is not None:
            self.tell("executed", {"node": node_id, "display_node": node_id, "output": made.told, "prompt_id": self.prompt_id})

    def _inputs(self, node_id: str) -> dict[str, Any]:
        """Gather a node's inputs: values, what links bring, and the hidden ones; unknown ones are dropped."""
        node, groups = self.graph[node_id], catalog()[self.graph[node_id]["class_type"]]["input"]
        known = {name for group in ("required", "optional") for name in groups.get(group, {})}
        inputs = {name: self._value(value) for name, value in node["inputs"].items() if name in known}
        hidden = {"prompt": self.graph, "extra_pnginfo": self.extra.get("extra_pnginfo")}
        return inputs | {name: hidden[name] for name in groups.get("hidden", {})}

    def _value(self, value: Any) -> Any:
        source = link(value)
        result = self.worker.cache.get(source) if source else None
        return result.made.values[value[1]] if result else value

    def _where(self, node_id: str) -> dict[str, Any]:
        node_type = self.graph[node_id]["class_type"]
        return {"prompt_id": self.prompt_id, "node_id": node_id, "node_type": node_type, "executed": list(self.executed)}

    def _error(self, error: Exception, inputs: dict[str, Any]) -> dict[str, Any]:
        kind = type(error)
        plain = (int, float, bool, str, type(None))
        return {
            "exception_message": str(error),
            "exception_type": kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}",
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [value if isinstance(value, plain) else str(value)] for name, value in inputs.items()},
            "current_outputs": list(self.graph),
        }


class NodeStage:
    """What one node gets to work with (values.Stage)."""

    def __init__(self, run: Run, node_id: str) -> None:
        self._run, self._node_id, self._worker = run, node_id, run.worker

    def load(self, kind: str, name: str) -> None:
        """Load a model file."""
        self._worker.load(kind, name)

    def go_on(self) -> None:
        """Raise Stopped if the engine ends."""
        self._worker.go_on()

    def folder(self, kind: str) -> Path:
        """Give a folder of files."""
        return self._worker.folders[kind]

    @property
    def letters(self) -> str:
        """Give the node's five letters, drawn at first use."""
        node = (self._node_id, self._run.graph[self._node_id]["class_type"])
        return self._worker.letters.setdefault(node, "".join(random.choices(LETTERS, k=5)))

    def step(self, value: int, total: int, weight: float, preview: Callable[[], Pixels]) -> None:
        """Take a step's time, the preview's included, then report it, if nobody interrupted."""
        ends = time.monotonic() + self._worker.step_time(weight)
        wanted = self._worker.options.previews and self._worker.outbox.listens(self._run.client)
        picture = files.jpeg(preview()) if wanted else None
        self._worker.spend(ends - time.monotonic())
        self._worker.check()
        self._report(value, total, picture)

    def _report(self, value: int, total: int, picture: bytes | None) -> None:
        """Send progress_state, progress and the preview: type 4 before `progress`, type 1 after it (recorded)."""
        run, outbox, client = self._run, self._worker.outbox, self._run.client
        run.report(self._node_id, value=value, max=total)
        rich = outbox.wants_metadata(client)
        if picture and rich:
            outbox.post_bytes(PREVIEW_WITH_METADATA, self._labelled(picture), client)
        outbox.post("progress", {"value": value, "max": total, "prompt_id": run.prompt_id, "node": self._node_id}, client)
        if picture and not rich:
            outbox.post_bytes(PREVIEW, (1).to_bytes(4, "big") + picture, client)  # 1 is JPEG

    def _labelled(self, picture: bytes) -> bytes:
        node_id = self._node_id
        label: dict[str, Any] = {"node_id": node_id, "prompt_id": self._run.prompt_id, "display_node_id": node_id}
        label |= {"parent_node_id": None, "real_node_id": node_id, "image_type": "image/jpeg"}
        text = json.dumps(label).encode()
        return len(text).to_bytes(4, "big") + text + picture


class Journal:
    """runs.jsonl: a line when a run starts and when it ends, flushed, so that tests can count runs of a prompt id."""

    def __init__(self, file: Path, instance_id: str) -> None:
        self._file, self._instance_id = file, instance_id

    def note(self, event: str, prompt_id: str, status: str) -> None:
        """Append one line."""
        line = {"event": event, "prompt_id": prompt_id, "at": time.time(), "status": status, "instance_id": self._instance_id}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
