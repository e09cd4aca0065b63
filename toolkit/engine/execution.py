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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from toolkit.engine import uploads
from toolkit.engine.cache import Agenda, NodeCache, Result, link
from toolkit.engine.catalog import Catalog, nested, picture_inputs, unfolded
from toolkit.engine.models import ModelFiles
from toolkit.engine.nodes import ASKS, FUNCTIONS
from toolkit.engine.queue import Item, PromptQueue
from toolkit.engine.stage import NodeStage
from toolkit.engine.values import Made

log = logging.getLogger(__name__)

# These take the place of each other in a machine's memory; every other file stays loaded until /free.
ONE_AT_A_TIME = ("checkpoints", "diffusion_models")


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
    newer: bool = True
    """Whether classes that ComfyUI 0.3.64 lacks are there (LTX-2.3 needs some)."""
    models: str | Mapping[str, Sequence[str]] = "all"
    """Which model files there are: all, sdxl, none, `folder/name` several times with commas between, or names by folder."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What an engine has: its folder, its model files and its classes."""

    home: Path
    files: ModelFiles
    catalog: Catalog


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

    def __init__(self, queue: PromptQueue, outbox: Outbox, stock: Stock, journal: Journal, options: Options) -> None:
        self.queue, self.outbox, self.stock, self.options = queue, outbox, stock, options
        self.attention = Attention()
        self.cache = NodeCache()
        self.letters: dict[tuple[str, str], str] = {}
        self._loaded: set[tuple[str, str]] = set()
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

    def load(self, folder: str, name: str) -> None:
        """Load a model file, unless it is loaded.

        Raises:
            FileNotFoundError: there is none; in ComfyUI's words, as clients see it in execution_error.
        """
        if name not in self.stock.files.get(folder, ()):
            raise FileNotFoundError(f"Model in folder '{folder}' with filename '{name}' not found.")
        if (folder, name) not in self._loaded:
            self.spend(self.options.load_s)
            if folder in ONE_AT_A_TIME:
                self._loaded = {file for file in self._loaded if file[0] not in ONE_AT_A_TIME}
            self._loaded.add((folder, name))

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
        cached = self.worker.cache.enter(self.graph, self._seen())
        self._keep_letters()
        self._note("execution_cached", {"nodes": cached, "prompt_id": self.prompt_id})
        self.agenda = Agenda(self.graph, self.worker.stock.catalog, self.outputs, lambda node_id: self.worker.cache.get(node_id) is not None)
        while (node_id := self.agenda.next()) is not None:
            status = self._node(node_id)
            if status == "success":
                self.agenda.done(node_id)
            elif status != "waits":
                return status
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

    def _seen(self) -> dict[str, str]:
        """Tell uploaded pictures apart by what is in them, as ComfyUI's LoadImage does."""
        stock = self.worker.stock
        asked = [(node_id, node["inputs"], picture_inputs(stock.catalog[node["class_type"]])) for node_id, node in self.graph.items()]
        return {node_id: uploads.fingerprint(stock.home, inputs.get(name)) for node_id, inputs, names in asked for name in names}

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
        if source := self._lacks(node_id, inputs):
            self.agenda.need(node_id, source)
            return "waits"
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

    def _lacks(self, node_id: str, inputs: Mapping[str, Any]) -> str | None:
        """Name the node that this one finds it needs; it comes again when that has run."""
        node = self.graph[node_id]
        asks = ASKS.get(node["class_type"])
        source = link(node["inputs"].get(asks(inputs))) if asks else None
        return source if source and not self.worker.cache.get(source) else None

    def _inputs(self, node_id: str) -> dict[str, Any]:
        """Gather a node's inputs: values, what links bring, and the hidden ones; unknown ones are dropped."""
        node = self.graph[node_id]
        entry = self.worker.stock.catalog[node["class_type"]]
        known = {name for group in unfolded(entry, node["inputs"]).values() for name in group}
        inputs = nested(entry, {name: self._value(value) for name, value in node["inputs"].items() if name in known})
        hidden = {"prompt": self.graph, "extra_pnginfo": self.extra.get("extra_pnginfo"), "unique_id": node_id}
        return inputs | {name: hidden[name] for name in entry["input"].get("hidden", {})}

    def _value(self, value: Any) -> Any:
        """Give a value, or what a link brings: nothing yet from a node that did not have to run."""
        source = link(value)
        if source is None:
            return value
        result = self.worker.cache.get(source)
        return result.made.values[value[1]] if result else None

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


class Journal:
    """runs.jsonl: a line when a run starts and when it ends, flushed, so that tests can count runs of a prompt id."""

    def __init__(self, file: Path, instance_id: str) -> None:
        self._file, self._instance_id = file, instance_id

    def note(self, event: str, prompt_id: str, status: str) -> None:
        """Append one line."""
        line = {"event": event, "prompt_id": prompt_id, "at": time.time(), "status": status, "instance_id": self._instance_id}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
